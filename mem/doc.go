// Package mem holds a shard's memory: one mapped arena, carved into pools
// before the shard starts and never again after Seal. It knows addresses,
// sizes, reference counts, poison, and lists through tables of fixed size. It
// imports nothing of ours.
//
// Invariants: after Seal no Allocate succeeds; a block is in exactly one place
// (its pool's free list or its holder's hands); a freed block is poisoned when
// the arena was made so; every address handed to the kernel lies in an arena.
package mem
