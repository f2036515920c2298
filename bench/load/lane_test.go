package load

import (
	"math"
	"slices"
	"testing"
)

func TestScheduleSharesTheRateEvenly(t *testing.T) {
	// 1000 requests a second over four lanes: every millisecond one, in turn.
	seen := map[int64]bool{}
	for lane := int64(0); lane < 4; lane++ {
		s := Schedule{Start: 7, End: never, Interval: 1e6, Lanes: 4, Lane: lane}
		for k := int64(0); k < 250; k++ {
			at := s.at(k)
			if want := 7 + (k*4+lane)*1e6; at != want {
				t.Fatalf("lane %d send %d at %d, want %d", lane, k, at, want)
			}
			seen[at] = true
		}
	}
	if len(seen) != 1000 {
		t.Fatalf("%d distinct instants, want 1000", len(seen))
	}
}

func TestScheduleDoesNotDrift(t *testing.T) {
	s := Schedule{Interval: 1e9 / 3.0, Lanes: 1}
	if at := s.at(3 * 86400); at < 86400e9-1 || at > 86400e9+1 {
		t.Fatalf("after a day of 3/s: %d", at)
	}
}

// A server that answers at once, then stands still for a second: each request
// meant for that second must count its full wait, also those that the bound
// kept from being sent. A generator with omission would show two.
func TestStallIsCountedFromTheIntendedTime(t *testing.T) {
	const ms = 1_000_000
	l := lane{Schedule: Schedule{Start: 0, End: 3000 * ms, Interval: 10 * ms, Lanes: 1}, inflight: make([]request, 2)}
	over, count, held := 0, 0, 0
	for now := int64(0); now < 4000*ms; now += ms {
		for {
			_, lag, ok := l.take(now)
			if !ok {
				break
			}
			if lag < 0 {
				held++
			} else if lag != 0 {
				t.Fatalf("own lag of %d ns at %d", lag, now)
			}
		}
		if now >= 1000*ms && now < 2000*ms {
			continue
		}
		for {
			r, ok := l.answer()
			if !ok {
				break
			}
			count++
			if now-r.intended > 5*ms {
				over++
			}
		}
	}
	if count != 300 || !l.done() {
		t.Fatalf("%d answers, want 300", count)
	}
	// 100 were meant for the stall; with two answers a millisecond their
	// backlog delays five more.
	if over != 105 {
		t.Fatalf("%d requests show the stall, want 105", over)
	}
	if held < 100 || held > 105 {
		t.Fatalf("%d requests counted as held, want about 103", held)
	}
}

func TestHeldTimeIsNotTheGeneratorsLag(t *testing.T) {
	l := lane{Schedule: Schedule{Start: 0, End: never, Interval: 10, Lanes: 1}, inflight: make([]request, 1), freeAt: -1}
	if _, lag, ok := l.take(3); !ok || lag != 3 {
		t.Fatalf("first: lag %d, %v", lag, ok)
	}
	if _, _, ok := l.take(12); ok {
		t.Fatal("sent above the bound")
	}
	if l.wakeAt() != never {
		t.Fatal("a held lane wakes by time")
	}
	l.answer()
	if at, lag, ok := l.take(45); !ok || at != 10 || lag != -1 {
		t.Fatalf("held: intended %d lag %d %v", at, lag, ok)
	}
	if l.wakeAt() != 20 {
		t.Fatalf("wakes at %d, want 20", l.wakeAt())
	}
	l.answer()
	if at, lag, ok := l.take(46); !ok || at != 20 || lag != -1 {
		t.Fatalf("backlog of the hold: intended %d lag %d %v", at, lag, ok)
	}
	l.answer()
	l.take(46)
	l.answer()
	l.take(46)
	l.answer()
	if at, lag, ok := l.take(57); !ok || at != 50 || lag != 7 {
		t.Fatalf("after the hold: intended %d lag %d %v", at, lag, ok)
	}
	if l.heldSends != 4 {
		t.Fatalf("%d held sends, want 4", l.heldSends)
	}
}

func TestLeftoversAreAllThatWasNotAnswered(t *testing.T) {
	l := lane{Schedule: Schedule{Start: 0, End: 100, Interval: 10, Lanes: 1}, inflight: make([]request, 4)}
	for range 6 {
		l.take(1000)
	}
	l.answer()
	var got []int64
	l.leftovers(func(at int64) { got = append(got, at) })
	if len(got) != 9 || got[0] != 10 || got[8] != 90 {
		t.Fatalf("leftovers %v, want 10..90", got)
	}
}

func TestClosedLoopKeepsTheBound(t *testing.T) {
	l := lane{Schedule: Schedule{End: 100, Lanes: 1}, inflight: make([]request, 16)}
	n := 0
	for {
		if _, _, ok := l.take(5); !ok {
			break
		}
		n++
	}
	if n != 16 {
		t.Fatalf("%d in flight, want 16", n)
	}
	l.answer()
	if at, lag, ok := l.take(9); !ok || at != 9 || lag != -1 {
		t.Fatalf("closed loop: intended %d lag %d %v", at, lag, ok)
	}
	if _, _, ok := l.take(100); ok {
		t.Fatal("sent after the end")
	}
}

// collect is every intended instant of all lanes of a schedule, in order.
func collect(s Schedule) (all []int64) {
	for lane := range s.Lanes {
		one := s
		one.Lane = lane
		for ; one.Due() < one.End; one.Advance() {
			all = append(all, one.Due())
		}
	}
	slices.Sort(all)
	return all
}

func TestPoissonArrivalsAreOfTheirRate(t *testing.T) {
	s := Schedule{End: 100e9, Interval: 1e6, Lanes: 4, Arrivals: Arrivals{Kind: "poisson", Seed: 7}}
	all := collect(s)
	if n := len(all); n < 99_000 || n > 101_000 { // sigma is 316
		t.Fatalf("%d arrivals in 100 s of 1000/s", n)
	}
	// The gaps' deviation is their mean, as of an exponential distribution.
	var sum, squares float64
	for i := 1; i < len(all); i++ {
		gap := float64(all[i] - all[i-1])
		sum, squares = sum+gap, squares+gap*gap
	}
	mean := sum / float64(len(all)-1)
	deviation := math.Sqrt(squares/float64(len(all)-1) - mean*mean)
	if r := deviation / mean; r < 0.97 || r > 1.03 {
		t.Errorf("the gaps' deviation is %.3f of their mean", r)
	}
	if !slices.Equal(all, collect(s)) {
		t.Error("one seed gave two schedules")
	}
	s.Seed = 8
	if slices.Equal(all, collect(s)) {
		t.Error("two seeds gave one schedule")
	}
}

func TestBurstsKeepTheRate(t *testing.T) {
	all := collect(Schedule{Start: 5, End: 5 + 10e9, Interval: 1e6, Lanes: 3, Arrivals: Arrivals{Kind: "bursts", Burst: 50}})
	if len(all) != 10_000 {
		t.Fatalf("%d sends in 10 s of 1000/s", len(all))
	}
	for i, at := range all {
		if want := 5 + int64(i/50)*50e6; at != want {
			t.Fatalf("send %d at %d, want %d", i, at, want)
		}
	}
}

func TestRampGrowsEvenly(t *testing.T) {
	for _, c := range []struct{ from, interval float64 }{{0, 1e6}, {500, 1e6}, {2000, 1e6}, {1000, 1e6}} {
		all := collect(Schedule{End: 10e9, Interval: c.interval, Lanes: 4, Arrivals: Arrivals{Kind: "ramp", From: c.from}})
		to := 1e9 / c.interval
		if want := (c.from + to) / 2 * 10; math.Abs(float64(len(all))-want) > 2 {
			t.Fatalf("from %v to %v: %d sends, want %.0f", c.from, to, len(all), want)
		}
		var seconds [10]int
		for _, at := range all {
			seconds[at/1e9]++
		}
		for i, n := range seconds {
			if want := c.from + (to-c.from)*(float64(i)+0.5)/10; math.Abs(float64(n)-want) > 2 {
				t.Errorf("from %v to %v: %d sends in second %d, want %.0f", c.from, to, n, i, want)
			}
		}
	}
}
