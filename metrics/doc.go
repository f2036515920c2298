// Package metrics knows how one shard's work is counted and timed: the clock, the
// counters, a histogram for every stage of a request, and the flight recorder.
//
// It imports no package of Tailbound, and no HTTP. It has no lock: one shard writes,
// and hands whole buffers over to the thread that reads them.
//
// Invariants:
//
//   - A histogram that a shard writes has no reader. The shard retires a whole set
//     of histograms in its own turn (Swap); the reader has that set until it gives it
//     back, and meanwhile the shard writes to the other set.
//   - Recording never allocates, never waits and never loses a value: a value above
//     a histogram's range is recorded at its top, and counted separately too.
//   - A Clock never goes backwards.
package metrics
