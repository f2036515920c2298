// Package mem is a shard's memory: one mapped arena, from which pools and tables are
// allocated before the shard starts, and nothing after Seal, and tables that are mapped
// beside it. It becomes resident as it is used, ahead of the shard, if a thread is found
// that populates it. It has pools of blocks with
// reference counts, a buddy allocator for rare blocks of any size, and linked lists
// through tables of fixed size. It imports nothing of ours.
//
// Invariants:
//   - After Seal no Allocate and no MapTable succeeds.
//   - A block is either free in its pool or lent to one holder, or to the holders that
//     its references count.
//   - A freed block is poisoned, if the arena was mapped with Poison.
//   - Every address that the kernel is given is in an arena.
package mem
