// Package recovery opens the data directory of a life that ended, cleanly or
// not, checks one and repairs one. It knows the engine's options and format, and
// runs on one ring before any shard does: a straight line of blocking calls. It
// keeps nothing between two calls.
//
// Invariants:
//   - What was acknowledged is in segments, synced, when Recover returns, or it is
//     named as lost; what was not acknowledged is in no reader's way.
//   - Recover and Repair may be cut at any point and run again: writing the
//     superblock is the one step that counts. Check writes nothing.
//   - What cannot be opened is refused with its file, place and reason; what a
//     later version wrote, by its name.
package recovery
