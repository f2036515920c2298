package metrics

import (
	"math/rand"
	"slices"
	"testing"
	"unsafe"
)

func newTestFlight() *Flight {
	memory := make([]uint64, FlightBytes/8+8)
	b := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(memory))), len(memory)*8)
	for uintptr(unsafe.Pointer(unsafe.SliceData(b)))%64 != 0 {
		b = b[8:]
	}
	return NewFlight(b)
}

// request is a produce of so long, that was durable at once.
func (f *Flight) request(from, to int64) *Slow {
	s := f.Add(Produce, to-from, 0)
	if s != nil {
		s.Stamps = Timeline{Received: from, Sent: to}
		f.Surround(s)
	}
	return s
}

// The slowest of each interval are kept, whatever order they come in.
func TestFlightKeepsTheSlowest(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	f := newTestFlight()
	now := int64(1e9)
	var into Interval
	for range 5 {
		var all []int64
		for range 500 {
			now += 1000
			f.Begin(now)
			ns := int64(r.ExpFloat64() * 1e5)
			all = append(all, ns)
			f.request(now-ns, now)
		}
		if f.Due(now) {
			t.Fatal("an interval is over before its time")
		}
		now += IntervalNS
		f.Begin(now)
		if !f.Due(now) {
			t.Fatal("an interval does not end")
		}
		f.Roll(now, now/1e6, 0)
		if f.Due(now + 2*IntervalNS) {
			t.Fatal("an interval ends while nobody took the one before")
		}
		if !f.Take(&into) || f.Take(&into) {
			t.Fatal("one roll gives one interval")
		}
		slices.Sort(all)
		var got []int64
		k := &into.Kinds[Produce]
		for i := range k.Slowest[:k.N] {
			got = append(got, k.Slowest[i].NS())
		}
		slices.Sort(got)
		if want := all[len(all)-SlowKept:]; !slices.Equal(got, want) {
			t.Fatalf("kept %v, the slowest are %v", got, want)
		}
		if n := k.Counts.Total(); n != 500 {
			t.Fatalf("counted %d of 500", n)
		}
		for _, p := range []float64{50, 99} {
			if want, got := all[int(p/100*500)-1], k.Counts.Quantile(p); float64(got) < float64(want)*0.99-64 || float64(got) > float64(want)*1.07+64 {
				t.Errorf("p%v is %d, exactly %d", p, got, want)
			}
		}
	}
	f.Ask()
	if !f.Due(now) {
		t.Error("the shard does not see that it is asked")
	}
}

func TestCountsHoldEveryDuration(t *testing.T) {
	last := int64(-1)
	for i := range countBuckets {
		top := bucketTop(i)
		if top <= last || bucketOf(top) != i || i+1 < countBuckets && bucketOf(top+1) != i+1 {
			t.Fatalf("bucket %d ends at %d, the one before at %d; it is bucket %d's, the next value bucket %d's", i, top, last, bucketOf(top), bucketOf(top+1))
		}
		last = top
	}
	if bucketOf(-1) != 0 || bucketOf(1<<62) != countBuckets-1 {
		t.Error("what is out of range is not counted at the ends")
	}
}

// What happened around a request is found, whether its turns are among the last
// ones or long ago.
func TestFlightFindsWhatHappenedAround(t *testing.T) {
	for _, between := range []int64{1, 10, 3000, 50000} {
		f := newTestFlight()
		at := int64(1e9)
		turn := func(took, away int64) int64 {
			f.Kept(away, 0, 0)
			f.Begin(at)
			var begun, over [DiskWorks]uint64
			begun[DiskFlushes], over[DiskFlushes] = 3000+f.seq, 1000
			f.Disk(&begun, &over)
			f.Turned(took)
			began := at
			at += took + away + 100
			return began
		}
		turn(10, 0)
		asked := turn(50, 0)
		for range between {
			turn(5, 0)
		}
		turn(200, 0)
		seen := turn(7, 4000)
		s := f.Add(Produce, seen-asked, 0)
		s.Stamps = Timeline{Received: asked, Submitted: asked, Durable: seen, Sent: seen}
		f.Surround(s)
		d := s.Steps[Durable]
		off := int64(0)
		if between > turnsKept {
			off = coarseEvery // turns that long ago are known so well
		}
		if d.Turns < between+2-off || d.Turns > between+2+off || off == 0 && d.Busy != 50+5*between+200 || d.Away != 4000 {
			t.Errorf("%d turns between: around it %+v", between, d)
		}
		if between < turnsKept/2 && (d.LateBusy != 50 || d.LateAway != 4000) {
			t.Errorf("%d turns between: late %+v; it was asked for in a turn of 50 and seen after one of 200 in which 4000 were missing", between, d)
		}
		if between > turnsKept && d.LateAway != 4000 {
			t.Errorf("%d turns between: late %+v", between, d)
		}
		if s.Disk[DiskFlushes] < 2000 || s.Disk[DiskFlushes] > 2000+between+4 {
			t.Errorf("%d turns between: %d bytes of drains beside it", between, s.Disk[DiskFlushes])
		}
		if s.Steps[Sent] != (Step{}) {
			t.Errorf("something happened between two stamps of one turn: %+v", s.Steps[Sent])
		}
	}
}

func TestFlightAllocatesNothing(t *testing.T) {
	f := newTestFlight()
	now := int64(1)
	var works [DiskWorks]uint64
	var into Interval
	if n := testing.AllocsPerRun(2000, func() {
		now += 1e5
		f.Kept(1, 2, 3)
		f.Begin(now)
		f.request(now-5e5, now)
		f.Disk(&works, &works)
		f.Turned(100)
		if f.Due(now) {
			f.Roll(now, 0, 0)
			f.Take(&into)
		}
	}); n != 0 {
		t.Errorf("it allocates %v times a turn", n)
	}
}

// The race detector watches: one goroutine records as a shard does, another takes.
func TestFlightHandsOver(t *testing.T) {
	f := newTestFlight()
	const turns = 20000
	done := make(chan int64)
	go func() {
		taken := int64(0)
		var into Interval
		for taken < turns {
			f.Ask()
			if f.Take(&into) {
				taken += into.Kinds[Produce].Counts.Total()
			}
		}
		done <- taken
	}()
	now := int64(0)
	for n := 0; ; n++ {
		now += 1000
		f.Begin(now)
		if n < turns {
			f.request(now-500, now)
		}
		if f.Due(now) {
			f.Roll(now, 0, 0)
		}
		select {
		case taken := <-done:
			if taken != turns {
				t.Errorf("recorded %d, taken %d", turns, taken)
			}
			return
		default:
		}
	}
}

// Each cause leads where it is the cause.
func TestCauses(t *testing.T) {
	usual := Timeline{Appended: 10e3, Submitted: 20e3, Durable: 400e3, Queued: 0, Sent: 30e3}
	produce := func() *Slow {
		return &Slow{Stamps: Timeline{1e9, 1e9, 1e9 + 10e3, 1e9 + 30e3, 1e9 + 430e3, 1e9 + 430e3, 1e9 + 460e3}, Written: 1e9 + 130e3, OwnBytes: 16 << 10}
	}
	later := func(s *Slow, from Stage, ns int64) {
		for i := from; i < Stages; i++ {
			s.Stamps[i] += ns
		}
	}
	for _, c := range []struct {
		want Cause
		kind Kind
		make func(s *Slow)
	}{
		{OwnQueueing, Produce, func(s *Slow) { later(s, Durable, 5e6); s.Steps[Durable].LateBusy = 4900e3 }},
		{OwnQueueing, Produce, func(s *Slow) { later(s, Parsed, 5e6) }},
		{OwnQueueing, Produce, func(s *Slow) { s.Early.LateBusy = 9e6 }},
		{Gathering, Produce, func(s *Slow) { later(s, Submitted, 5e6) }},
		{DiskSync, Produce, func(s *Slow) { later(s, Durable, 5e6) }},
		{DiskWrite, Produce, func(s *Slow) { later(s, Durable, 5e6); s.Written += 5e6 }},
		{AwayFromCPU, Produce, func(s *Slow) { later(s, Durable, 5e6); s.Steps[Durable].LateAway = 4e6 }},
		{AwayFromCPU, Produce, func(s *Slow) { later(s, Sent, 5e6); s.Steps[Sent].LateAway = 5e6 }},
		{GarbageCollection, Produce, func(s *Slow) { later(s, Durable, 5e6); s.Steps[Durable].LateGC = 4e6 }},
		{Stolen, Produce, func(s *Slow) { later(s, Durable, 5e6); s.Steps[Durable].LateSteal = 4e6 }},
		{SlowReader, Produce, func(s *Slow) { later(s, Sent, 5e6) }},
		{SlowReader, Fetch, func(s *Slow) { later(s, Sent, 5e6) }},
		{SlowReader, Fetch, func(s *Slow) { later(s, Appended, 5e6); s.Waited = WaitedReader }},
		{SlowReader, Fetch, func(s *Slow) { later(s, Queued, 5e6); s.Waited = WaitedReader }},
		{AwayFromCPU, Produce, func(s *Slow) { later(s, Durable, 5e6); s.Steps[Durable].Away = 3e6 }}, // not in one piece
		{NeighbourLog, Produce, func(s *Slow) { later(s, Durable, 5e6); s.OtherBytes = 8 << 20 }},
		{NeighbourLog, Produce, func(s *Slow) { later(s, Submitted, 5e6); s.OtherBytes = 8 << 20 }},
		{Flushing, Produce, func(s *Slow) { later(s, Durable, 5e6); s.Disk[DiskFlushes] = 4 << 20 }},
		{Flushing, Produce, func(s *Slow) { later(s, Durable, 5e6); s.Disk[DiskCheckpoints] = 4 << 20 }},
		{Flushing, Produce, func(s *Slow) { later(s, Appended, 5e6); s.Waited = WaitedMemory }},
		{Flushing, Produce, func(s *Slow) { later(s, Submitted, 5e6); s.Waited = WaitedJournal }},
		{Preparing, Produce, func(s *Slow) { later(s, Appended, 5e6); s.Waited = WaitedRoom }},
		{Preparing, Produce, func(s *Slow) { later(s, Durable, 5e6); s.Disk[DiskFiles] = 2 << 20 }},
		{ColdRead, Produce, func(s *Slow) { later(s, Durable, 5e6); s.Disk[DiskReads] = 2 << 20 }},
		{ColdRead, Fetch, func(s *Slow) { later(s, Durable, 5e6) }},
		{ColdRead, Fetch, func(s *Slow) { later(s, Appended, 5e6); s.Waited = WaitedReadBuffers | WaitedReader }},
	} {
		s := produce()
		c.make(s)
		spent := s.Spent(c.kind)
		by := spent.ByCause()
		sum := int64(0)
		for _, n := range by {
			if n < 0 {
				t.Errorf("%s: less than nothing went to something: %v", c.want.Name(), by)
			}
			sum += n
		}
		if want := s.NS() + s.EarlyNS(); sum != want {
			t.Errorf("%s: it took %d, its causes come to %d", c.want.Name(), want, sum)
		}
		beyond := spent.Beyond(c.kind, &usual)
		if got, _ := Leading(&beyond); got != c.want {
			t.Errorf("%s is called %s: %v", c.want.Name(), got.Name(), beyond)
		}
	}
	s := &Slow{Stamps: Timeline{1e9, 1e9, 2e9, 0, 0, 2e9, 2e9 + 10e3}, Idle: 1e9}
	spent := s.Spent(Fetch)
	if by := spent.ByCause(); by != [Causes]int64{SlowReader: 10e3} || s.NS() != 10e3 {
		t.Errorf("a fetch's wait for data is somebody's fault: %v", by)
	}
}

func BenchmarkFlight(b *testing.B) {
	f := newTestFlight()
	now := int64(1e9)
	var works [DiskWorks]uint64
	var into Interval
	b.Run("turn", func(b *testing.B) {
		for b.Loop() {
			now += 20e3
			f.Begin(now)
			f.Disk(&works, &works)
			f.Turned(10e3)
			if f.Due(now) {
				f.Roll(now, 0, 0)
				f.Take(&into)
			}
		}
	})
	b.Run("request", func(b *testing.B) {
		for b.Loop() {
			f.Add(Produce, 100, 0)
		}
	})
	b.Run("slow", func(b *testing.B) { // one of the slowest: each is slower than all before
		s := Slow{}
		for b.Loop() {
			s.Stamps = Timeline{now - 5e6, now - 5e6, now - 4e6, now - 4e6, now - 1e6, now - 1e6, now}
			f.Surround(&s)
		}
	})
}
