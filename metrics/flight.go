package metrics

import (
	"sync/atomic"
	"unsafe"
)

// RecordedKinds are the kinds of requests that are recorded: produce and fetch.
const RecordedKinds = 2

// Flight is the flight recorder of one shard. It keeps the slowest requests of each
// interval whole: when they reached each stage, and what the shard's turns, its thread
// and its disk did meanwhile.
//
// A request carries its stamps anyway. What happened around them is in a circle of
// turns (see turn). It is looked up for a request that is among the slowest when it is
// over, and for no other:
//
//	Begin(); ... Add(), and if that gives a place, Surround(); ... Turned(); if Due() { Roll() }
//
// It lives on the shard's core, in memory that it was given, and allocates none. Only
// Take and Ask are for another thread, and for one only.
type Flight struct {
	now    turn // sums, up to now
	seq    uint64
	early  Step // of the turn under way
	table  *flightTable
	live   int           // the interval that is being recorded; the other one is handed over
	handed atomic.Uint32 // as in Shard: shardHas -> (asked) -> collectorHas -> shardHas
}

type flightTable struct {
	turns     [turnsKept]turn
	coarse    [coarseKept]turn
	intervals [2]Interval
}

// FlightBytes is how much memory a Flight takes, aligned to 64.
const FlightBytes = int(unsafe.Sizeof(flightTable{}))

// NewFlight makes a recorder in memory of FlightBytes, which is zeroed.
func NewFlight(memory []byte) *Flight {
	if len(memory) < FlightBytes || uintptr(unsafe.Pointer(unsafe.SliceData(memory)))%64 != 0 {
		panic("metrics: a flight recorder's memory is too small or not aligned")
	}
	return &Flight{table: (*flightTable)(unsafe.Pointer(unsafe.SliceData(memory)))}
}

// Begin begins a turn at a time of the shard's clock.
func (f *Flight) Begin(now int64) {
	if f.seq == 0 {
		f.table.intervals[f.live].reset(now)
	}
	before := f.entry(f.seq)
	f.seq++
	f.now.at, f.now.seq = now, f.seq
	here := f.entry(f.seq)
	*here = f.now
	if f.seq%coarseEvery == 0 {
		f.table.coarse[f.seq/coarseEvery%coarseKept] = f.now
	}
	f.early = Step{}
	if f.seq > 1 {
		f.early.span(before, here)
		f.early.last(before, here)
		f.early.LateBusy /= 2
		f.early.LateAway /= 2
		f.early.LateGC /= 2
		f.early.LateSteal /= 2
	}
}

// Turned adds to the duration of the turn that Begin began. It may be called several
// times in a turn.
func (f *Flight) Turned(ns int64) { f.now.busy += ns }

// Kept adds how long the shard's thread did not run, in ns since the last call: away
// because it had no CPU, gc because of Go's collector, steal because of the host.
func (f *Flight) Kept(away, gc, steal int64) {
	f.now.away += away
	f.now.gc += gc
	f.now.steal += steal
}

// Disk is called at the end of a turn with how much of each kind of work the disk was
// given and has done, in bytes since the start.
func (f *Flight) Disk(begun, over *[DiskWorks]uint64) {
	here := f.entry(f.seq)
	here.begun, here.over = *begun, *over
	f.now.begun, f.now.over = *begun, *over
}

// Early is the shard's activity in the window in which this turn's inputs may have
// arrived unseen: half of what lies between the turn before and this one.
func (f *Flight) Early() *Step { return &f.early }

// EarlyNS is how much of that window the shard spent on something else.
func (f *Flight) EarlyNS() int64 {
	return f.early.LateBusy + f.early.LateAway + f.early.LateGC + f.early.LateSteal
}

// Add counts a request of a kind that took ns. If it is among the slowest of its
// interval, early included, Add returns the place for it: the caller fills it and calls
// Surround. If not, it returns nil.
func (f *Flight) Add(k Kind, ns, early int64) *Slow {
	v := &f.table.intervals[f.live].Kinds[k]
	v.Counts[bucketOf(ns)]++
	score := ns + early
	if v.N < SlowKept {
		v.N++
		s := &v.Slowest[v.N-1]
		if v.N == SlowKept {
			v.least = 0 // looked for when the next one comes
		}
		return s
	}
	if score <= v.least {
		return nil
	}
	at, least, next := 0, int64(1<<63-1), int64(1<<63-1)
	for i := range v.Slowest {
		s := v.Slowest[i].NS() + v.Slowest[i].EarlyNS()
		if s < least {
			at, least, next = i, s, least
		} else {
			next = min(next, s)
		}
	}
	if score <= least {
		v.least = least
		return nil
	}
	v.least = min(next, score)
	return &v.Slowest[at]
}

// Surround fills in what happened around a request whose stamps are set.
func (f *Flight) Surround(s *Slow) {
	s.Steps, s.Disk = [Stages]Step{}, [DiskWorks]int64{}
	var before *turn
	for i := range s.Stamps {
		if s.Stamps[i] == 0 {
			continue
		}
		here := f.find(s.Stamps[i])
		if before != nil && here.seq > before.seq {
			s.Steps[i].between(f, before, here)
			if Stage(i) == Durable {
				end := here // what the disk was given in this turn was for later requests
				if e := f.near(here.seq - 1); e != nil {
					end = e
				}
				for w := range s.Disk {
					s.Disk[w] = int64(end.begun[w] - before.over[w])
				}
			}
		}
		before = here
	}
}
