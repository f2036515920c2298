package engine_test

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/engine/recovery"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
	"github.com/tailbound/tailbound/sim"
)

// quick is a sim.Ring that, once fast, completes everything at once and
// without allocating: what is measured is the engine.
type quick struct {
	*sim.Ring
	fast bool
	done []ioring.Completion
}

func (q *quick) Push(op ioring.Op) bool {
	if !q.fast {
		return q.Ring.Push(op)
	}
	n := int32(op.Buf.Len())
	if op.Code != ioring.Write && op.Code != ioring.Read {
		n = 0
	}
	q.done = append(q.done, ioring.Completion{Token: op.Token, Result: n})
	return true
}

func (q *quick) Room() int {
	if !q.fast {
		return q.Ring.Room()
	}
	return 64
}

func (q *quick) Reap(out []ioring.Completion) int {
	if !q.fast {
		return q.Ring.Reap(out)
	}
	n := copy(out, q.done)
	q.done = q.done[:copy(q.done, q.done[n:])]
	return n
}

type life struct {
	t    *testing.T
	w    *sim.World
	disk *sim.Disk
	ring *quick
	e    *engine.Engine
	boot *engine.RecoveredState
	out  [64]ioring.Completion
}

var options = engine.Options{LogsMax: 8, SegmentBytes: 4 << 20, JournalBytes: 4 << 20, LogMemoryBytes: 4 << 20, BatchBytesMax: 64 << 10, Files: 8, FilesMax: 64}

func begin(t *testing.T, w *sim.World, disk *sim.Disk) *life {
	t.Helper()
	o := recovery.Options{Options: options, Shards: 1, Seed: [16]byte{1, 2, 3}}
	arena, err := mem.Map(64<<20, mem.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { arena.Unmap() })
	l := &life{t: t, w: w, disk: disk}
	l.ring = &quick{Ring: sim.NewRing(w, disk, arena, sim.RingOptions{Files: 128}), done: make([]ioring.Completion, 0, 256)}
	if l.boot, err = recovery.Recover(l.ring, arena, o); err != nil {
		t.Fatal(err)
	}
	if l.e, err = engine.New(l.ring, arena, l.boot, 1, nil, options); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *life) turn(wait bool) (ev []engine.Event) {
	for {
		n := l.ring.Reap(l.out[:])
		for _, c := range l.out[:n] {
			l.e.Complete(c, l.w.Now)
		}
		if n == 0 {
			break
		}
	}
	sleep := l.e.Step(l.w.Now)
	for {
		v, ok := l.e.Next()
		if !ok {
			break
		}
		ev = append(ev, v)
	}
	if wait {
		l.ring.Wait(min(sleep, l.w.Now+1e6))
	}
	return ev
}

func (l *life) until(what string, ok func([]engine.Event) bool) {
	l.t.Helper()
	for range 20000 {
		if ok(l.turn(true)) {
			return
		}
	}
	l.t.Fatalf("%s never came", what)
}

func (l *life) open(id uint64) (slot engine.Slot) {
	l.t.Helper()
	if st := l.e.OpenLog(id, 7); st != engine.OK {
		l.t.Fatalf("opening log %d: status %d", id, st)
	}
	l.until("Opened", func(ev []engine.Event) bool {
		for _, v := range ev {
			if v.Kind == engine.Opened {
				slot = v.Slot
				return true
			}
		}
		return false
	})
	return slot
}

func (l *life) append(s engine.Slot, n int) {
	l.t.Helper()
	l.until("room", func([]engine.Event) bool {
		dst, base, st := l.e.Reserve(s, n)
		switch st {
		case engine.OK:
			for i := range dst {
				dst[i] = byte(int64(s) + base + int64(i))
			}
			binary.BigEndian.PutUint64(dst, uint64(base))
			l.e.Commit(engine.Meta{Count: 1, MaxTime: base})
			return true
		case engine.WaitMemory, engine.WaitRoom:
			return false
		}
		l.t.Fatalf("appending: status %d", st)
		return false
	})
}

func (l *life) durable(s engine.Slot) {
	l.t.Helper()
	l.until("durable", func([]engine.Event) bool { return l.e.Durable(s) == l.e.End(s) })
}

func (l *life) cut() {
	l.w.Stop()
	l.disk.PowerCut(l.w.Rand)
}

func TestAcknowledgedSurvivesPowerCut(t *testing.T) {
	w, disk := sim.NewWorld(3), sim.NewDisk(0)
	l := begin(t, w, disk)
	a, b := l.open(2), l.open(3)
	for range 50 {
		l.append(a, 1000)
		l.append(b, 3000)
	}
	l.durable(a)
	l.durable(b)
	l.cut()
	l = begin(t, w, disk)
	for _, id := range []uint64{2, 3} {
		s, ok := l.e.Lookup(id)
		if !ok || l.e.Durable(s) != 50 {
			t.Fatalf("log %d: found %v, durable %d of 50", id, ok, l.e.Durable(s))
		}
		for epoch := range int32(2) { // the one before, and the present one
			if found, end := l.e.EpochEnd(s, 1+epoch, l.e.Durable(s)); found != 1+epoch || end != 50 {
				t.Errorf("log %d, epoch %d: epoch %d ends at %d, want 50", id, 1+epoch, found, end)
			}
		}
	}
}

// A broken frame that later frames call durable is corruption: the logs with entries in it can
// be read up to there, all others completely.
func TestRotHurtsOnlyTheLogsItHit(t *testing.T) {
	w, disk := sim.NewWorld(4), sim.NewDisk(0)
	l := begin(t, w, disk)
	a, b := l.open(2), l.open(3)
	l.append(a, 1000)
	l.append(b, 1000)
	l.durable(a)
	l.durable(b)
	for range 5 {
		l.append(a, 9000)
		l.durable(a)
	}
	l.append(b, 1000)
	l.durable(b)
	// the payload of a's batch 3
	want := make([]byte, 9000)
	for i := range want {
		want[i] = byte(int64(a) + 3 + int64(i))
	}
	journal := disk.Contents("shard-001/journal")
	at := strings.Index(string(journal), string(want[8:]))
	if at < 0 {
		t.Fatal("batch 3 is not in the journal")
	}
	l.cut()
	disk.Flip("shard-001/journal", int64(at+4000))
	l = begin(t, w, disk)
	sa, _ := l.e.Lookup(2)
	sb, _ := l.e.Lookup(3)
	var holes [2]engine.Hole
	if n := l.e.Holes(sa, holes[:]); l.e.End(sa) != 6 || n != 1 || holes[0].From != 3 || holes[0].To != 4 {
		t.Errorf("the rotten log ends at %d with %d holes, %+v, want 6 with one of record 3; notes %q", l.e.End(sa), n, holes, l.boot.Notes)
	}
	if _, _, st := l.e.Reserve(sa, 100); st != engine.LogCorrupt {
		t.Errorf("an append to the rotten log: status %d, want Rot", st)
	}
	if l.e.End(sb) != 2 {
		t.Errorf("the whole log ends at %d, want 2; notes %q", l.e.End(sb), l.boot.Notes)
	}
	l.append(sb, 100)
	l.durable(sb)
	// The start after that knows it too.
	l.cut()
	l = begin(t, w, disk)
	sa, _ = l.e.Lookup(2)
	if _, _, st := l.e.Reserve(sa, 100); st != engine.LogCorrupt {
		t.Errorf("an append to the rotten log in the next life: status %d, want Rot", st)
	}
}

func TestCheckFindsARottenRun(t *testing.T) {
	w, disk := sim.NewWorld(5), sim.NewDisk(0)
	l := begin(t, w, disk)
	a := l.open(2)
	for range 20 {
		l.append(a, 5000)
	}
	l.e.Shutdown()
	l.until("idle", func([]engine.Event) bool { return l.e.Idle() })
	l.cut()
	check := func() *recovery.CheckReport {
		arena, err := mem.Map(16<<20, mem.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer arena.Unmap()
		r, err := recovery.Check(sim.NewRing(w, disk, arena, sim.RingOptions{Files: 128}), arena, recovery.Options{Options: options, Shards: 1})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := check(); len(r.Problems()) > 0 || r.Sum().Batches != 20 {
		t.Fatalf("a sound directory: %d batches, %q", r.Sum().Batches, r.Problems())
	}
	for _, p := range disk.Paths() {
		if strings.HasPrefix(p, "segments/") {
			disk.Flip(p, 7000)
		}
	}
	if r := check(); len(r.Problems()) != 1 {
		t.Fatalf("a flipped bit in a run: %q", r.Problems())
	}
	l = begin(t, w, disk)
	s, _ := l.e.Lookup(2)
	var views [4]engine.View
	if _, st := l.e.Read(s, 0, 20, 1000, views[:]); st != engine.NotCached {
		t.Fatalf("reading what is not in memory: status %d", st)
	}
	if st := l.e.ReadDisk(s, 0, 9); st != engine.OK {
		t.Fatalf("status %d", st)
	}
	l.until("ReadDone", func(ev []engine.Event) bool {
		for _, v := range ev {
			if v.Kind == engine.ReadDone {
				if v.Status != engine.Corrupt {
					t.Errorf("a rotten run is read with status %d", v.Status)
				}
				return true
			}
		}
		return false
	})
}

func TestHotPathsDoNotAllocate(t *testing.T) {
	w, disk := sim.NewWorld(6), sim.NewDisk(0)
	l := begin(t, w, disk)
	a := l.open(2)
	l.append(a, 1000)
	l.durable(a)
	l.ring.fast = true
	var views [16]engine.View
	appended := 0
	round := func() {
		for range 8 {
			dst, _, st := l.e.Reserve(a, 3000)
			if st != engine.OK {
				break
			}
			dst[0] = 1
			l.e.Commit(engine.Meta{Count: 1, MaxTime: 5})
			appended++
		}
		for range 6 {
			l.e.Step(l.w.Now)
			n := l.ring.Reap(l.out[:])
			for _, c := range l.out[:n] {
				l.e.Complete(c, l.w.Now)
			}
		}
		for {
			if _, ok := l.e.Next(); !ok {
				break
			}
		}
		l.w.Now += 100_000
		end := l.e.Durable(a)
		n, _ := l.e.Read(a, max(0, end-8), end, 1<<20, views[:])
		for _, v := range views[:n] {
			l.e.Unpin(v.Pin)
		}
	}
	if n := testing.AllocsPerRun(2000, round); n != 0 {
		t.Errorf("%v allocations a round of append, commit, step, complete and read", n)
	}
	s := l.e.Stats()
	if appended < 8000 || s.Runs < 10 || s.Checkpoints < 2 {
		t.Errorf("%d appends, %d runs, %d checkpoints: the rounds did too little", appended, s.Runs, s.Checkpoints)
	}
}
