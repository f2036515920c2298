package engine_test

import (
	"strings"
	"testing"

	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/ioring"
)

// After a restart a read from disk, and a search by time, find their run at once: the process
// before wrote where runs begin, behind the last run of full segments and, at its clean stop,
// of all others.
func TestIndexOutlivesTheProcess(t *testing.T) {
	for _, direct := range []int{-1, 50_000} {
		h := newHost(t, 3)
		h.o.DirectBytes = direct
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		must(h.open())
		must(h.openLog(2))
		for range 60 {
			if st, err := h.append(2, 100_000, 10); err != nil || st != engine.OK {
				t.Fatal(err, name(st))
			}
		}
		must(h.settle())
		must(h.stop())
		must(h.open())
		h.rest(1e9)
		n, s, err := h.slot(2)
		must(err)
		for _, from := range []int64{0, 85, 150, 195, 205, 333, 415, 599} {
			before := n.engine.Stats().ColdHeads
			if st := n.engine.ReadDisk(s, from, 9); st != engine.OK {
				t.Fatal(name(st))
			}
			ev, err := n.event(engine.ReadDone, 9)
			must(err)
			if ev.Status != engine.OK {
				t.Fatalf("direct %d: reading at %d: %s", direct, from, name(ev.Status))
			}
			n.engine.ReadEnd(ev.Read)
			if heads := n.engine.Stats().ColdHeads - before; heads > 1 {
				t.Errorf("direct %d: the run that holds %d was found by the heads of %d", direct, from, heads)
			}
			base, ok := n.engine.SeekTime(s, 1000+from/10*10, 0)
			if !ok || base > from || base < from-40 {
				t.Errorf("direct %d: the time of %d is looked for from %d on (%v)", direct, from, base, ok)
			}
		}
		_, to, _, why := h.readAll(2)
		if to != 600 || why != "" {
			t.Errorf("direct %d: read to %d: %s", direct, to, why)
		}
		must(h.stop())
		h.free()
	}
}

// ofRuns is a host whose log 2 has so many direct runs, each a batch of perRun
// records, and the means to read them from disk: readOn gives the records from
// at on that one read brought, and how it ended.
func ofRuns(t *testing.T, seed uint64, runs, bytes, perRun int) (h *host, n *node, readOn func(at int64) (int64, engine.Status)) {
	t.Helper()
	h = newHost(t, seed)
	h.o.DirectBytes = bytes / 2
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(h.open())
	must(h.openLog(2))
	for range runs {
		if st, err := h.append(2, bytes, uint32(perRun)); err != nil || st != engine.OK {
			t.Fatal(err, name(st))
		}
		must(h.settle())
	}
	n, s, err := h.slot(2)
	must(err)
	views := make([]engine.View, 64)
	return h, n, func(at int64) (int64, engine.Status) {
		t.Helper()
		if st := n.engine.ReadDisk(s, at, 9); st != engine.OK {
			t.Fatal(name(st))
		}
		ev, err := n.event(engine.ReadDone, 9)
		must(err)
		if ev.Status != engine.OK {
			return 0, ev.Status
		}
		got := n.engine.ReadViews(ev.Read, at, n.engine.Durable(s), 1<<30, views)
		if got == 0 {
			t.Fatalf("nothing was read at %d", at)
		}
		for _, v := range views[:got] {
			n.engine.UnpinQuietly(v.Pin)
		}
		n.engine.ReadEnd(ev.Read)
		return int64(got * perRun), engine.OK
	}
}

// A reader that goes on where its last read ended needs no headers, however sparse the index
// is; nor do two readers side by side. Each read delivers all runs that it has room for.
func TestReadingOnFindsItsPlace(t *testing.T) {
	const runs, perRun = 300, 10
	_, n, readOn := ofRuns(t, 5, runs, 20_000, perRun)
	at := []int64{0, runs * perRun / 2} // two readers
	reads := 0
	for at[0] < runs*perRun/2 || at[1] < runs*perRun {
		for k := range at {
			if k == 0 && at[0] >= runs*perRun/2 || at[1] >= runs*perRun {
				continue
			}
			got, st := readOn(at[k])
			if st != engine.OK {
				t.Fatalf("reading at %d: %s", at[k], name(st))
			}
			reads++
			at[k] += got
		}
	}
	passed := int(n.engine.Stats().ColdHeads) - reads
	if passed > 64 { // the second reader's way to its place
		t.Errorf("%d reads passed the heads of %d runs", reads, passed)
	}
	if reads > runs/5 {
		t.Errorf("%d runs took %d reads", runs, reads)
	}
}

// A sector that the disk cannot read loses its own run only: the runs before and behind it are
// delivered, also by a read of several runs.
func TestABadSectorIsItsRunsLoss(t *testing.T) {
	const runs, perRun, runBytes = 12, 10, 20_480 + 4096
	h, _, readOn := ofRuns(t, 6, runs, 20_000, perRun)
	h.rest(1e9) // reads are large
	const bad = 5*runBytes + 8192
	refused := 0
	h.disk.Fail = func(code ioring.Code, path string, offset uint64, bytes int) int32 {
		if code == ioring.Read && strings.HasPrefix(path, "segments/") && offset <= bad && offset+uint64(bytes) > bad {
			refused++
			return -int32(ioring.EIO)
		}
		return 0
	}
	var lost []int64
	for at := int64(0); at < runs*perRun; {
		got, st := readOn(at)
		switch st {
		case engine.OK:
			at += got
		case engine.StorageFailed:
			lost = append(lost, at)
			at += perRun
		default:
			t.Fatalf("reading at %d: %s", at, name(st))
		}
	}
	if len(lost) != 1 || lost[0]/perRun < 4 || lost[0]/perRun > 6 {
		t.Errorf("records at %v were not read; one run has the sector", lost)
	}
	if refused < 2 {
		t.Errorf("the disk refused %d reads: none asked for more than the run", refused)
	}
}

// A read that looks for its run through the headers of a segment without an index gives its
// buffer back after as many as it may read, and the next one goes on there. It comes to its
// run even if others read elsewhere in the segment meanwhile.
func TestReadsAreBounded(t *testing.T) {
	h := newHost(t, 1)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(h.open())
	must(h.openLog(2))
	const runs = 300
	for range runs {
		if st, err := h.append(2, 1000, 10); err != nil || st != engine.OK {
			t.Fatal(name(st), err)
		}
		h.rest(1500e6)
	}
	h.end()
	h.disk.Kill(h.w.Rand)
	must(h.open())
	n, s, err := h.slot(2)
	must(err)
	for _, from := range []int64{2990, 1500, 2200, 10} {
		for within, tries := 8, 0; ; within, tries = 2*within, tries+1 {
			before := n.engine.Stats().ColdHeads
			if st := n.engine.ReadDiskWithin(s, from, 9, within); st != engine.OK {
				t.Fatal(name(st))
			}
			ev, err := n.event(engine.ReadDone, 9)
			must(err)
			if heads := n.engine.Stats().ColdHeads - before; heads > uint64(within)+1 {
				t.Errorf("reading at %d: %d headers, and there may be %d", from, heads, within)
			}
			if ev.Status == engine.OK {
				n.engine.ReadEnd(ev.Read)
				if from > 1000 && tries < 2 {
					t.Errorf("of %d runs, the one with %d was found in %d reads", runs, from, tries+1)
				}
				break
			}
			if ev.Status != engine.Unfinished || tries > 10 {
				t.Fatalf("reading at %d: %s after %d", from, name(ev.Status), tries)
			}
			if n.engine.ReadBuffersFree() != 4 {
				t.Fatalf("%d read buffers are free", n.engine.ReadBuffersFree())
			}
			// Others read elsewhere.
			for at := int64(0); at < 100; at += 20 {
				if st := n.engine.ReadDisk(s, at, 5); st != engine.OK {
					t.Fatal(name(st))
				}
				ev, err := n.event(engine.ReadDone, 5)
				must(err)
				n.engine.ReadEnd(ev.Read)
			}
		}
	}
	must(h.stop())
}
