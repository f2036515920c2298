// Package metrics knows how one shard's work is counted and timed: the clock,
// the counters, and a histogram for every step of a request's way.
//
// It imports none of our rooms, and never HTTP. There is no lock in it: one
// shard writes, and hands whole buffers over for others to read.
//
// Invariants:
//
//   - Nobody reads a live histogram. The shard retires a whole set of them in
//     its own turn (Swap); a reader has that set until it gives it back, and
//     meanwhile the shard fills the other.
//   - Recording never allocates, never waits and never loses a value: what is
//     above a histogram's top is recorded there and counted beside it.
//   - A Clock never goes backwards.
package metrics
