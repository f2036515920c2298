// Package sim is the lying world: a disk that forgets what was not synced, a
// network that cuts bytes where it likes, a clock that jumps, and rings
// (ioring.Ring) over all three, so that journal, recovery, framing and
// protocol run unchanged under power cuts and kill -9. Of ours it knows only
// mem and ioring (what lives in this world is in sim/lives); product code never
// imports it.
//
// Invariants: everything that happens is drawn from one source made from the
// seed; there is no goroutine, no wall clock and no order of a map anywhere;
// the same seed gives the same trace hash. A checker that finds nothing is
// not believed until it has found a planted bug (see sim/lives).
package sim
