package engine_test

import (
	"testing"

	"github.com/tailbound/tailbound/engine"
)

// A few logs with large batches write runs of their own. Of many, frames take
// everything as long as they keep up, and runs when they do not.
func TestCrowd(t *testing.T) {
	h := newHost(t, 1)
	h.o.DirectBytes, h.o.LogMemoryBytes, h.o.JournalBytes, h.o.SegmentBytes = 64<<10, 16<<20, 16<<20, 16<<20
	if err := h.open(); err != nil {
		t.Fatal(err)
	}
	const logs = 12
	for id := range uint64(logs) {
		if err := h.openLog(2 + id); err != nil {
			t.Fatal(err)
		}
	}
	stats := h.nodes[1].engine.Stats
	direct := uint64(0)
	runs := func() uint64 {
		before := direct
		direct = stats().DirectRuns
		return direct - before
	}
	write := func(to, rounds int, wait bool) {
		t.Helper()
		for range rounds {
			for id := range uint64(to) {
				if st, err := h.append(2+id, 70_000, 10); err != nil || st != engine.OK {
					t.Fatal(name(st), err)
				}
			}
			if wait {
				if err := h.settle(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	write(4, 3, true)
	if n := runs(); n != 12 {
		t.Errorf("4 logs, 3 times: %d direct runs; 12 expected", n)
	}
	write(logs, 1, true)
	runs()
	frames := stats().Frames
	write(logs, 5, true)
	if n := runs(); n > logs || stats().Frames < frames+5 { // once more when the disk took longer than they are counted

		t.Errorf("%d logs, 5 times, each when the one before was durable: %d direct runs, %d frames; hardly any and 5 expected", logs, n, stats().Frames-frames)
	}
	write(logs, 20, false)
	if err := h.settle(); err != nil {
		t.Fatal(err)
	}
	if n := runs(); n < logs {
		t.Errorf("%d logs, 20 times, at once: %d direct runs; each log's expected", logs, n)
	}
	h.rest(2e9)
	write(logs, 1, true)
	runs()
	if write(logs, 5, true); runs() > logs {
		t.Errorf("%d direct runs when frames keep up again", direct)
	}
	for id := range uint64(logs) {
		n, s, err := h.slot(2 + id)
		if err != nil {
			t.Fatal(err)
		}
		if _, to, _, why := h.readAll(2 + id); why != "" || to != n.engine.End(s) {
			t.Errorf("log %d: read to %d of %d: %s", 2+id, to, n.engine.End(s), why)
		}
	}
}
