// Package sim is a simulated world with faults: a disk that forgets what was not
// synced, a network that cuts bytes anywhere, a clock that jumps, and rings
// (ioring.Ring) over all three. Journal, recovery, framing and protocol run on it
// unchanged, under power cuts and kill -9. Of Tailbound it knows only mem and ioring;
// what runs in the world is in sim/lives. Product code never imports it.
//
// Invariants: every event is drawn from one random source made from the seed; there is
// no goroutine, no wall clock and no order of a map; the same seed gives the same trace
// hash. A checker is not trusted until it has found a planted bug (see sim/lives).
package sim
