// Package mem is a shard's memory: one mapped arena, from which pools and tables are
// allocated before the shard starts, and nothing after Seal. It has pools of blocks with
// reference counts, a buddy allocator for rare blocks of any size, and linked lists
// through tables of fixed size. It imports nothing of ours.
//
// Invariants:
//   - After Seal no Allocate succeeds.
//   - A block is either free in its pool or lent to one holder, or to the holders that
//     its references count.
//   - A freed block is poisoned, if the arena was mapped with Poison.
//   - Every address that the kernel is given is in an arena.
package mem
