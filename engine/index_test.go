package engine_test

import (
	"testing"

	"tailbound/engine"
)

// After a restart a cold read, and a search by time, find their run at once:
// the life before wrote where runs begin, behind those of full segments and, at
// its clean stop, of the others.
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
			if st := n.engine.ReadCold(s, from, 9); st != engine.OK {
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
			base, ok := n.engine.SeekTime(s, 1000+from/10*10)
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
