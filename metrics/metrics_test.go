package metrics

import (
	"encoding/json"
	"math/rand"
	"reflect"
	"slices"
	"testing"
	"time"
)

func TestHistogramKeepsEverything(t *testing.T) {
	h := NewHistogram()
	for _, v := range []int64{-5, 0, 1, 99, 100, 1e3, 1e6, 1e9, TopNS, TopNS + 1, 1<<63 - 1 - 4*TopNS} {
		h.Record(v)
	}
	if h.settle(); h.Count() != 11 || h.above != 2 {
		t.Fatalf("recorded 11 values, 2 above the top; it has %d, %d above", h.Count(), h.above)
	}
	s := h.Summary()
	if s.Above != 2 || s.MaxNS != 1<<63-1-4*TopNS {
		t.Fatalf("the summary lost what was above the top: %+v", s)
	}
	h.Reset()
	if h.Count() != 0 || h.Summary() != (Summary{}) || len(h.Buckets()) != 0 {
		t.Fatalf("not empty after Reset: %+v", h.Summary())
	}
}

func TestHistogramIsTrueToTwoDigits(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	h, o := NewHistogram(), NewHistogram()
	var all []int64
	for i := range 20000 {
		v := int64(100 + r.ExpFloat64()*200e3)
		all = append(all, v)
		if i%3 == 0 {
			o.Record(v)
		} else {
			h.Record(v)
		}
	}
	h.Add(o)
	slices.Sort(all)
	s := h.Summary()
	for _, q := range []struct {
		name    string
		percent float64
		got     int64
	}{{"p50", 50, s.P50NS}, {"p90", 90, s.P90NS}, {"p99", 99, s.P99NS}, {"p99.9", 99.9, s.P999NS}} {
		want := all[int(q.percent/100*float64(len(all)))-1]
		if d := float64(q.got-want) / float64(want); d < -0.01 || d > 0.011 {
			t.Errorf("%s is %d, exactly %d: off by %.1f %%", q.name, q.got, want, d*100)
		}
	}
	if s.MaxNS != all[len(all)-1] || s.Count != int64(len(all)) {
		t.Errorf("max %d and count %d; want %d and %d", s.MaxNS, s.Count, all[len(all)-1], len(all))
	}
	n := int64(0)
	for _, b := range h.Buckets() {
		n += b.Count
	}
	if n != s.Count {
		t.Errorf("the buckets hold %d of %d values", n, s.Count)
	}
}

func TestTimelineFeedsEveryStepOnce(t *testing.T) {
	s := NewShard()
	c := NewCollector(s)
	s.Record(Produce, &Timeline{1000, 2000, 4000, 8000, 16000, 32000, 64000})
	s.Record(Fetch, &Timeline{1000, 3000, 7000, 0, 0, 8000, 9000}) // from memory
	s.Record(Other, &Timeline{})                                   // nothing was stamped
	if s.Swap() {
		t.Fatal("swapped without being asked")
	}
	c.Ask()
	if c.Collect() {
		t.Fatal("collected what the shard has not handed over")
	}
	if !s.Swap() || s.Swap() {
		t.Fatal("one Ask gives one swap")
	}
	s.Record(Produce, &Timeline{1, 2, 3, 4, 5, 6, 7}) // into the other set
	if !c.Collect() || c.Collect() {
		t.Fatal("one swap gives one collection")
	}
	for st, want := range map[Stage]int64{Received: 63000, Parsed: 1000, Appended: 2000, Submitted: 4000, Durable: 8000, Queued: 16000, Sent: 32000} { // order does not matter
		h := c.Total().Step(Produce, st)
		if h.Count() != 1 || h.max != want {
			t.Errorf("produce %s: %d values, at most %d ns; want one of %d", st.Name(Produce), h.Count(), h.max, want)
		}
	}
	if h := c.Total().Step(Fetch, Queued); h.Count() != 1 || h.max != 1000 {
		t.Errorf("a stage after skipped ones counts from the last that was passed; got %d values, %d ns", h.Count(), h.max)
	}
	if n := c.Total().Step(Fetch, Submitted).Count() + c.Total().Step(Fetch, Durable).Count() + c.Total().Step(Other, Received).Count(); n != 0 {
		t.Errorf("%d values for stages nobody passed", n)
	}
	w := c.Open()
	s.Turned(500)
	c.Ask()
	if !s.Asked() {
		t.Error("the shard does not see that it is asked")
	}
	s.Gauge("pool", 3, 4, 5)
	s.Swap()
	c.Collect()
	if c.Total().Step(Produce, Sent).Count() != 2 || w.Step(Produce, Sent).Count() != 1 || w.Step(Fetch, Sent).Count() != 0 {
		t.Error("the total has both collections, the window only what came after it was opened")
	}
	if w.Turn().max != 500 || !slices.Equal(w.Gauges(), []Gauge{{"pool", 3, 4, 5}}) {
		t.Errorf("turn of %d ns, levels %v", w.Turn().max, w.Gauges())
	}
	c.Close(w)
	w.Reset()
	s.Turned(600)
	c.Ask()
	s.Swap()
	c.Collect()
	if w.Turn().Count() != 0 || c.Total().Turn().Count() != 2 || len(c.Total().Gauges()) != 0 {
		t.Error("something came into a closed window, or levels stayed that nobody told again")
	}
	if b, err := json.Marshal(c.Total().Report()); err != nil || len(b) < 1000 {
		t.Errorf("report: %d bytes, %v", len(b), err)
	}
}

// The race detector watches: one goroutine records and swaps as a shard does,
// another collects.
func TestHandingOver(t *testing.T) {
	s := NewShard()
	c := NewCollector(s)
	const n = 20000
	stopped := make(chan bool)
	go func() {
		for i := range int64(n) {
			s.Record(Produce, &Timeline{i + 1, i + 2, i + 3, i + 4, i + 5, i + 6, i + 7})
			s.Counters.Produces++
			s.Swap()
		}
		stopped <- true
	}()
	for running := true; running; {
		select {
		case <-stopped:
			running = false
		default:
			c.Ask()
			c.Collect()
			s.ReadCounters()
			time.Sleep(50 * time.Microsecond)
		}
	}
	for range 2 {
		c.Collect()
		c.Ask()
		s.Swap()
	}
	c.Collect()
	if got := c.Total().Step(Produce, Sent).Count(); got != n {
		t.Fatalf("recorded %d, collected %d", n, got)
	}
	for _, v := range s.ReadCounters() {
		if v.Name == "produces" && v.Value != n {
			t.Fatalf("counted %d, published %d", n, v.Value)
		}
	}
}

func TestCountersArePlain(t *testing.T) {
	c := reflect.TypeFor[Counters]()
	for i := range c.NumField() {
		if f := c.Field(i); f.Type.Kind() != reflect.Uint64 {
			t.Errorf("Counters.%s is a %s; Publish copies the struct as an array of uint64", f.Name, f.Type)
		}
	}
	s := NewShard()
	s.Counters.Turns, s.Counters.TimedOut = 7, 9
	s.Publish()
	v := s.ReadCounters()
	if v[0] != (CounterValue{"turns", 7}) || v[len(v)-1] != (CounterValue{"timed_out", 9}) {
		t.Errorf("published %v and %v", v[0], v[len(v)-1])
	}
}

func TestNothingAllocates(t *testing.T) {
	s := NewShard()
	c := NewClock()
	h := NewHistogram()
	tl := Timeline{1, 2, 3, 4, 5, 6, 7}
	for name, f := range map[string]func(){ // order does not matter
		"Clock.Now":               func() { c.Now() },
		"Clock.Tick":              func() { c.Tick(c.Now() + 2e9) },
		"Histogram.Record":        func() { h.Record(12345) },
		"Histogram.Record, above": func() { h.Record(TopNS * 2) },
		"Shard.Record":            func() { s.Record(Produce, &tl) },
		"Shard.Turned":            func() { s.Turned(1234) },
		"Shard.Level":             func() { s.sets[s.live].gauges.n = 0; s.Gauge("pool", 1, 2, 3) },
		"Shard.Swap":              func() { s.Swap() },
		"Shard.Swap, asked":       func() { s.handover.Store(asked); s.Swap() },
		"Shard.Publish":           func() { s.Publish() },
	} {
		if n := testing.AllocsPerRun(200, f); n != 0 {
			t.Errorf("%s allocates %v times a call; it runs in a data shard's turn", name, n)
		}
	}
}

func TestClockFollowsMonotonic(t *testing.T) {
	for _, tsc := range []bool{false, tscTrusted()} {
		c := newClock(tsc)
		t.Logf("clock: %s", c.Source())
		last := c.Now()
		worst := int64(0)
		for begin := last; last < begin+100e6; {
			now := c.Now()
			if now < last {
				t.Fatalf("%s: went back by %d ns", c.Source(), last-now)
			}
			last = now
			c.Tick(now)
			before := c.monotonic()
			now = c.Now()
			after := c.monotonic()
			if off := max(before-now, now-after); off > worst {
				worst = off
			}
		}
		t.Logf("%s: at most %d ns away from CLOCK_MONOTONIC", c.Source(), worst)
		if worst > 1e6 {
			t.Errorf("%s: %d ns away from CLOCK_MONOTONIC", c.Source(), worst)
		}
	}
}

// A clock that is wrong comes back without ever going backwards.
func TestClockRecovers(t *testing.T) {
	if !tscTrusted() {
		t.Skip("the kernel does not trust this machine's time stamp counter")
	}
	for _, miss := range []int64{-5e6, 5e6, -50e6, 50e6} {
		c := newClock(true)
		c.baseNS += miss
		last := c.Now()
		for range 3 {
			time.Sleep(20 * time.Millisecond)
			c.recalibrate()
			now := c.Now()
			if now < last {
				t.Fatalf("off by %d: went back by %d ns", miss, last-now)
			}
			last = now
		}
		if off := c.Now() - c.monotonic(); off > max(miss, 0) || off < -6e6 {
			t.Errorf("off by %d at first, still off by %d", miss, off)
		}
	}
}

func BenchmarkNow(b *testing.B) {
	for _, tsc := range []bool{false, tscTrusted()} {
		c := newClock(tsc)
		b.Run(c.Source(), func(b *testing.B) {
			for b.Loop() {
				c.Now()
			}
		})
	}
}

func BenchmarkRecord(b *testing.B) {
	s := NewShard()
	tl := Timeline{1e3, 2e3, 3e3, 100e3, 300e3, 301e3, 310e3}
	for b.Loop() {
		s.Record(Produce, &tl)
	}
}
