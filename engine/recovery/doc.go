// Package recovery opens the data directory of a process that stopped or crashed,
// checks one, and repairs one. It runs on one ring before any shard does, as a
// straight line of blocking calls, of which there is one for each of many logs side by
// side (ioring.Lanes), and keeps nothing between two calls. It knows the engine's
// options and format.
//
// Each start has an epoch, one higher than the start before. "The epoch before" is the
// one whose files are opened.
//
// The files: recovery.go opens a directory, shard by shard; replay.go reads journals
// into a store (store.go),
// scan.go the ends of segments, walk.go goes on behind what is broken, holes.go keeps
// what is lost, fill.go puts what a journal has into the place of broken runs, flush.go
// writes to segments what else only a journal has, and commit.go begins the new epoch. check.go and repair.go use the same steps.
//
// Invariants:
//   - When Recover returns, every acknowledged record is in a segment, synced, or is
//     named as lost. Records that were not acknowledged may be kept, if they follow
//     without a gap; what is dropped of them is never read later.
//   - Recover and Repair may be interrupted at any point and run again: writing the
//     superblock is the only step that takes effect. Check writes nothing.
//   - What cannot be opened is refused with its file, position and reason. What a later
//     version wrote is refused by its name.
package recovery
