package metrics

const (
	turnsKept   = 4096 // the last turns
	coarseEvery = 64   // of the turns before them, one in so many
	coarseKept  = 2048
)

// turn is an entry of the circle of turns: sums since the start, as they were when a
// turn began, and what the disk had been given and had done when it ended. What
// happened between two turns is the difference of their entries.
type turn struct {
	at    int64
	seq   uint64
	busy  int64             // ns inside turns
	away  int64             // ns the thread waited for a CPU
	gc    int64             // ns Go's collector kept it from running
	steal int64             // ns it was on no CPU for a reason of the host's
	begun [DiskWorks]uint64 // bytes
	over  [DiskWorks]uint64 // bytes
}

// entry is the place of a turn among the last ones.
func (f *Flight) entry(seq uint64) *turn { return &f.table.turns[seq%turnsKept] }

// find is the turn that began at a time, or the last known one that began before it;
// the oldest known one if there is none.
func (f *Flight) find(at int64) *turn {
	n := min(f.seq, turnsKept)
	if oldest := f.entry(f.seq - n + 1); oldest.at <= at || f.seq <= turnsKept {
		low, high := f.seq-n+1, f.seq // the answer is in low..high
		for low < high {
			mid := high - (high-low)/2
			if f.entry(mid).at <= at {
				low = mid
			} else {
				high = mid - 1
			}
		}
		return f.entry(low)
	}
	last := f.seq / coarseEvery
	low, high := last-min(last-1, coarseKept-1), last
	for low < high {
		mid := high - (high-low)/2
		if f.table.coarse[mid%coarseKept].at <= at {
			low = mid
		} else {
			high = mid - 1
		}
	}
	return &f.table.coarse[low%coarseKept]
}

// near is a turn among the last ones, nil if it is older.
func (f *Flight) near(seq uint64) *turn {
	if seq+turnsKept > f.seq {
		return f.entry(seq)
	}
	return nil
}

// Step is what happened between the stage before and this one, in ns but for Turns.
type Step struct {
	Turns int64 `json:"turns"` // turns that began in it
	Busy  int64 `json:"busy_ns"`
	Away  int64 `json:"away_ns"`
	GC    int64 `json:"gc_ns"`
	Steal int64 `json:"steal_ns"`

	// Of those, what certainly made it longer: what lies between the turn that asked for
	// something and the next, and between the turn that saw the outcome and the one before.
	LateBusy  int64 `json:"late_busy_ns"`
	LateAway  int64 `json:"late_away_ns"`
	LateGC    int64 `json:"late_gc_ns"`
	LateSteal int64 `json:"late_steal_ns"`
}

// span is what happened between two turns' beginnings.
func (s *Step) span(a, b *turn) {
	s.Turns = int64(b.seq - a.seq)
	s.Busy, s.Away, s.GC, s.Steal = b.busy-a.busy, b.away-a.away, b.gc-a.gc, b.steal-a.steal
}

// last adds what lies between two successive turns to what certainly made the step
// longer. Time in which the thread was kept from running inside a turn is not that
// turn's work.
func (s *Step) last(a, b *turn) {
	away, gc, steal := b.away-a.away, b.gc-a.gc, b.steal-a.steal
	s.LateAway += away
	s.LateGC += gc
	s.LateSteal += steal
	s.LateBusy += max(0, b.busy-a.busy-away-gc-steal)
}

// between is the step from a turn that asked for something to the one that saw the
// outcome.
func (s *Step) between(f *Flight, a, b *turn) {
	s.span(a, b)
	first, before := f.near(a.seq+1), f.near(b.seq-1)
	if first == nil || before == nil { // too old: only one turn in coarseEvery is known
		s.LateAway, s.LateGC, s.LateSteal = s.Away, s.GC, s.Steal
		if s.Turns > 0 {
			s.LateBusy = 2 * max(0, s.Busy-s.Away-s.GC-s.Steal) / s.Turns
		}
		return
	}
	s.last(a, first)
	if before.seq > a.seq {
		s.last(before, b)
	}
}
