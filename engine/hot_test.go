package engine_test

import (
	"testing"

	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/ioring"
)

// still is a ring on which every operation succeeds at once and nothing is
// stored. It allocates nothing, so that what allocates is the engine.
type still struct {
	out []ioring.Completion
	n   int
}

func newStill() *still { return &still{out: make([]ioring.Completion, 1024)} }

func (s *still) Room() int { return len(s.out) - s.n }

func (s *still) Push(op ioring.Op) bool {
	if s.n == len(s.out) {
		return false
	}
	result := int32(0)
	if op.Code == ioring.Write || op.Code == ioring.Read {
		result = int32(op.Buf.Len())
	}
	s.out[s.n] = ioring.Completion{Token: op.Token, Result: result}
	s.n++
	return true
}

func (s *still) Reap(out []ioring.Completion) int {
	n := copy(out, s.out[:s.n])
	s.n = copy(s.out, s.out[n:s.n])
	return n
}

func (s *still) Wait(ioring.Instant) {}

// hot is an engine past its start, and a shard's loop around it that
// allocates nothing either.
type hot struct {
	e    *engine.Engine
	ring *still
	now  ioring.Instant
	in   []ioring.Completion
	slot engine.Slot
}

func (h *hot) turn() {
	h.now += 50_000
	for n := h.ring.Reap(h.in); n > 0; n = h.ring.Reap(h.in) {
		for _, c := range h.in[:n] {
			h.e.Complete(c, h.now)
		}
	}
	for {
		ev, ok := h.e.Next()
		if !ok {
			break
		}
		if ev.Kind == engine.Opened {
			h.slot = ev.Slot
		}
	}
	h.e.Step(h.now)
}

func (h *hot) append(n int) bool {
	dst, _, st := h.e.Reserve(h.slot, n)
	if st != engine.OK {
		return false
	}
	dst[0], dst[n-1] = 1, 2
	h.e.Commit(engine.Meta{Count: 10, MaxTime: int64(h.now), CRC: 7})
	return true
}

func newHot(t testing.TB, direct int) *hot {
	return newHotWith(t, func(o *engine.Options) { o.DirectBytes = direct })
}

func newHotWith(t testing.TB, set func(*engine.Options)) *hot {
	host := newHost(t, 1)
	if err := host.recover(); err != nil {
		t.Fatal(err)
	}
	h := &hot{ring: newStill(), in: make([]ioring.Completion, 256), now: 1e9}
	o := host.o
	o.JournalBytes = 1 << 20
	o.SegmentBytes = 1 << 20
	set(&o)
	a := host.arena()
	var err error
	if h.e, err = engine.New(h.ring, a, host.boot, 1, nil, o); err != nil {
		t.Fatal(err)
	}
	a.Seal()
	h.e.OpenLog(3, 0)
	for range 10 {
		h.turn()
	}
	return h
}

// The append path allocates nothing: journal, flush, roll, checkpoint and eviction included, as
// the test is long enough for all of them.
func TestAppendAllocatesNothing(t *testing.T) {
	h := newHot(t, -1)
	appended := 0
	step := func() {
		for range 4 {
			if h.append(20_000) {
				appended++
			}
		}
		h.turn()
	}
	for range 3000 {
		step()
	}
	appended = 0
	if n := testing.AllocsPerRun(3000, step); n != 0 {
		t.Errorf("%v allocations a turn", n)
	}
	s := h.e.Stats()
	if appended < 6000 || s.Checkpoints < 20 || s.Runs < 100 || s.SegmentsMade < 5 || s.Evictions < 10 {
		t.Errorf("the run did not meet everything it should: %d appends, %+v", appended, *s)
	}
}

// Nor does the path of large appends, alone and between small ones; and alone
// they are written once.
func TestDirectAppendsAllocateNothing(t *testing.T) {
	for _, small := range []int{0, 3} {
		h := newHot(t, 60_000)
		appended, turns := 0, 0
		step := func() {
			if turns++; turns%8 < small && h.append(500) {
				appended += 500
			}
			for range 2 {
				if h.append(100_000) {
					appended += 100_000
				}
			}
			h.turn()
		}
		for range 2000 {
			step()
		}
		before, was := appended, *h.e.Stats()
		if n := testing.AllocsPerRun(2000, step); n != 0 {
			t.Errorf("%d small ones of 8: %v allocations a turn", small, n)
		}
		s := *h.e.Stats()
		written := s.RunBytes + s.FrameBytes + s.CheckpointBytes - was.RunBytes - was.FrameBytes - was.CheckpointBytes
		amplification := float64(written) / float64(appended-before)
		t.Logf("%d small ones of 8: %.3f bytes written for each appended, %d runs, %d frames", small, amplification, s.Runs-was.Runs, s.Frames-was.Frames)
		if s.DirectRuns-was.DirectRuns < 900 || s.SegmentsMade-was.SegmentsMade < 10 || s.Evictions-was.Evictions < 10 || s.Checkpoints == was.Checkpoints {
			t.Errorf("the run did not meet everything it should: %+v", s)
		}
		if amplification > 1.1 {
			t.Errorf("%d small ones of 8: %.3f bytes are written for each appended", small, amplification)
		}
	}
}

// Many batches of a log that are large together are written once, too: all but
// the first ones, by which it is known.
func TestBatchesThatAreLargeTogether(t *testing.T) {
	h := newHotWith(t, func(o *engine.Options) { o.DirectBytes, o.SegmentBytes = 64<<10, 16<<20 })
	appended, was := 0, engine.Stats{}
	for i := range 3000 {
		if i == 1000 {
			appended, was = 0, *h.e.Stats()
		}
		for range 12 {
			if h.append(16_000) {
				appended += 16_000
			}
		}
		h.turn()
	}
	s := *h.e.Stats()
	written := s.RunBytes + s.FrameBytes - was.RunBytes - was.FrameBytes
	if float64(written) > 1.1*float64(appended) || s.DirectRuns-was.DirectRuns < 1000 {
		t.Errorf("%d bytes appended, %d written: %+v", appended, written, s)
	}
	// a few small ones do not keep it there
	for range 100 {
		h.append(1000)
		h.turn()
	}
	was = *h.e.Stats()
	for range 100 {
		h.append(1000)
		h.turn()
	}
	if s := h.e.Stats(); s.DirectRuns != was.DirectRuns {
		t.Errorf("small batches are written one by one: %+v", *s)
	}
}

func TestReadAllocatesNothing(t *testing.T) {
	h := newHot(t, -1)
	for range 200 {
		h.append(2000)
		h.turn()
	}
	end := h.e.Durable(h.slot)
	views := make([]engine.View, 16)
	at, got := int64(0), 0
	n := testing.AllocsPerRun(1000, func() {
		k, st := h.e.Read(h.slot, at, end, 64<<10, views)
		if st != engine.OK {
			at = 0
			return
		}
		for _, v := range views[:k] {
			got += len(v.Bytes)
			h.e.Unpin(v.Pin)
		}
		at += int64(k) * 10
		h.e.SeekTime(h.slot, int64(h.now)/2, at)
	})
	if n != 0 {
		t.Errorf("%v allocations a read", n)
	}
	if got == 0 {
		t.Error("nothing was read")
	}
}

// Looking an offset up must not cost more with much in memory.
func BenchmarkFind(b *testing.B) {
	h := newHot(b, -1)
	for range 20_000 {
		h.append(100)
		h.turn()
	}
	end := h.e.Durable(h.slot)
	first := end
	views := make([]engine.View, 1)
	for lo, hi := int64(0), end; lo < hi; {
		m := (lo + hi) / 2
		if k, st := h.e.Read(h.slot, m, end, 1, views); st == engine.OK {
			h.e.Unpin(views[0].Pin)
			first, hi = m, m
			_ = k
		} else {
			lo = m + 1
		}
	}
	b.Logf("%d offsets in memory", end-first)
	for i := 0; b.Loop(); i++ {
		_, st := h.e.Read(h.slot, first+int64(i*7919)%(end-first), end, 1, views)
		if st != engine.OK {
			b.Fatal(st)
		}
		h.e.Unpin(views[0].Pin)
	}
}

func BenchmarkAppend(b *testing.B) {
	h := newHot(b, -1)
	b.SetBytes(10_000)
	for b.Loop() {
		for !h.append(10_000) {
			h.turn()
		}
		h.turn()
	}
}

// Batches so small that the index of what is in memory is full before the
// memory is: old ones are forgotten, appending goes on.
func TestTheIndexFillsBeforeTheMemory(t *testing.T) {
	h := newHot(t, -1)
	for i := range 200_000 {
		for turns := 0; !h.append(70); turns++ {
			if turns == 1000 {
				t.Fatalf("batch %d is never taken: %+v", i, *h.e.Stats())
			}
			h.turn()
		}
	}
	if s := h.e.Stats(); s.Evictions == 0 {
		t.Errorf("nothing was forgotten: %+v", *s)
	}
}
