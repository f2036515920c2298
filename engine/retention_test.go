package engine_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/tailbound/tailbound/engine"
)

// The stories in testdata/retention have the commands of TestRecover, and:
//
//	segment-bytes ID n=BYTES              how large its segments get
//	seal ID                               the next append begins a new segment
//	retain ID [older=MS] [bytes=N]        what a shard does: find what has expired, move the start; prints the start
//	                                      and how many files of segments there are
//	release ID                            removes the only segment of a log that is empty
//	recycled                              how many segments were made of removed ones' files and of zeroes, and how many files are kept
//	newest ID                             the largest time and where to look for it
//	pin ID from=OFFSET, unpin             begins a read from disk, ends it
//	keep-next ID n=BYTES                  has its next segment kept ready; prints the status, and whether it can be rolled to
//	shortage                              what keeps logs from getting room
func TestRetention(t *testing.T) {
	datadriven.Walk(t, "testdata/retention", func(t *testing.T, path string) {
		h := newHost(t, 1)
		var reader *node
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			h.t = t
			var id uint64
			if len(d.CmdArgs) > 0 {
				fmt.Sscan(d.CmdArgs[0].Key, &id)
			}
			var n *node
			var s engine.Slot
			var e *engine.Engine
			var seen strings.Builder
			if id > 0 && h.nodes != nil {
				var err error
				if n, s, err = h.slot(id); err == nil {
					e = n.engine
				}
			}
			number := func(name string, otherwise int64) int64 {
				d.MaybeScanArgs(t, name, &otherwise)
				return otherwise
			}
			switch d.Cmd {
			case "segment-bytes":
				e.SetSegmentBytes(s, number("n", 0))
				return "ok\n"
			case "seal":
				e.RollSegment(s)
				return "ok\n"
			case "retain":
				limits := engine.Limits{Now: h.w.WallMS(), OlderThan: number("older", -1), BytesMax: number("bytes", -1)}
				if age := number("age", -1); age >= 0 {
					limits.OlderThan = limits.Now - age
				}
				limits.ByAge = limits.OlderThan >= 0
				start, unknown := e.RetentionStart(s, limits)
				before := e.Stats().AgesRead
				for ; unknown; start, unknown = e.RetentionStart(s, limits) {
					h.rest(100e6)
				}
				if st := e.TruncateBefore(s, start, 0); st != engine.OK {
					return name(st) + "\n"
				}
				if n := e.Stats().AgesRead - before; n > 0 {
					fmt.Fprintf(&seen, "%d segments looked at\n", n)
				}
				h.rest(number("ms", 2000) * 1e6)
				return seen.String() + fmt.Sprintf("log %d: %d..%d, start durable at %d, %s\n", id, e.Start(s), e.End(s), e.StartDurable(s), h.files())
			case "release":
				e.DropEmpty(s)
				h.rest(number("ms", 2000) * 1e6)
				return h.files() + "\n"
			case "newest":
				ts, base := e.MaxTime(s, e.Durable(s))
				return fmt.Sprintf("%d at %d\n", ts, base)
			case "files":
				h.rest(1e9)
				return h.files() + "\n"
			case "recycled":
				e := h.nodes[len(h.nodes)-1].engine
				kept, bytes := e.Recycled()
				return fmt.Sprintf("%d recycled, %d of zeroes, %d of %d bytes kept, %s\n", e.Stats().Recycled, e.Stats().Zeroed, kept, bytes, h.files())
			case "keep-next":
				st := e.KeepNext(s, number("n", 0))
				h.rest(number("ms", 100) * 1e6)
				return fmt.Sprintf("%s, then it holds that: %v, %s\n", name(st), e.NextHolds(s, number("n", 0)), h.files())
			case "shortage":
				failure, short := h.nodes[len(h.nodes)-1].engine.Shortage()
				if !short {
					return "none\n"
				}
				return fmt.Sprintf("log %d: %s\n", failure.Log, tidy(failure.Error()))
			case "pin":
				if st := e.ReadDisk(s, number("from", 0), 5); st != engine.OK {
					return name(st) + "\n"
				}
				reader = n
				return "ok\n"
			case "unpin":
				ev, err := reader.event(engine.ReadDone, 5)
				if err != nil || ev.Status != engine.OK {
					return fmt.Sprintf("%v %s\n", err, name(ev.Status))
				}
				reader.engine.ReadEnd(ev.Read)
				return "ok\n"
			}
			return strings.TrimRight(h.command(d), "\n") + "\n"
		})
	})
}

// files says how many files of segments there are.
func (h *host) files() string {
	n := 0
	for _, p := range h.disk.Paths() {
		if strings.HasPrefix(p, "segments/") {
			n++
		}
	}
	return fmt.Sprintf("%d files", n)
}
