package engine_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/engine/recovery"
	"github.com/tailbound/tailbound/ioring"
)

// The stories in testdata/recover are text files. Their commands:
//
//	open [shards=N] [direct=BYTES] [spares=BYTES] [prepare=BYTES] [headers]  opens the directory and starts the shards; prints what was found, and how many
//	                                  batches the last checkpoint's attachments do not have
//	log ID...                         makes logs
//	append ID [n=1] [bytes=1000] [count=10]   appends n batches of count records each
//	settle                            waits until all of it is durable, that is acknowledged
//	rest [ms=10000]                   lets time pass without appends: after 50 ms the newest frame is known durable, after
//	                                  a second what is durable is flushed, after three a checkpoint leaves nothing to replay
//	truncate ID before=OFFSET         moves the log's start
//	delete ID
//	stop                              a clean stop
//	kill [seed=N]                     kill -9: what completed is seen, but need not be durable
//	power-cut keep=all|none|some [seed=N]   what was not synced is there, is not, or each sector by itself
//	rot PATH at=N [zeroes=BYTES]      changes a byte, or makes so many zero; segment:ID is the last segment with bytes of a log
//	rot-frame N in=header|body        changes a byte of journal frame N of the data shard
//	tear-frame N                      puts back zeroes for the last block of frame N
//	lose PATH                         removes a file
//	read ID...                        reads everything and compares it with what was appended
//	repair ID...                      cuts these logs where they are broken
//	epochs ID first=N last=N          where these leader epochs of a log end
//	check [rows]                      the checker's findings, and a row for each log
//	room BYTES|all                    from now on the disk has room for so many bytes more
//	fail PATH op=write|sync [times=1] [errno=5]   the next so many such operations on files that begin with PATH fail
//	frames                            the journal of the data shard, frame by frame
func TestRecover(t *testing.T) {
	datadriven.Walk(t, "testdata/recover", func(t *testing.T, path string) {
		h := newHost(t, 1)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			h.t = t
			out := h.command(d)
			return strings.TrimRight(out, "\n") + "\n"
		})
	})
}

const dataJournal = "shard-001/journal"

func (h *host) command(d *datadriven.TestData) string {
	seed := uint64(1)
	d.MaybeScanArgs(h.t, "seed", &seed)
	ids := func() (ids []uint64) {
		for _, a := range d.CmdArgs {
			var id uint64
			if _, err := fmt.Sscan(a.Key, &id); err == nil && len(a.Vals) == 0 {
				ids = append(ids, id)
			}
		}
		return ids
	}
	switch d.Cmd {
	case "log", "append", "settle", "rest", "truncate", "delete", "stop", "read", "epochs":
		if h.nodes == nil {
			return "the directory is not open"
		}
	}
	switch d.Cmd {
	case "open":
		d.MaybeScanArgs(h.t, "shards", &h.shards)
		d.MaybeScanArgs(h.t, "direct", &h.o.DirectBytes)
		d.MaybeScanArgs(h.t, "inflight", &h.o.InflightMax)
		d.MaybeScanArgs(h.t, "batch-max", &h.o.BatchBytesMax)
		d.MaybeScanArgs(h.t, "spares", &h.o.SpareBytes)
		d.MaybeScanArgs(h.t, "prepare", &h.o.PrepareBytes)
		if err := h.open(); err != nil {
			h.end()
			return "refused: " + tidy(err.Error())
		}
		return h.found(d.HasArg("headers"))
	case "log":
		for _, id := range ids() {
			if err := h.openLog(id); err != nil {
				return err.Error()
			}
		}
		return "ok"
	case "append":
		n, bytes, count := 1, 1000, 10
		d.MaybeScanArgs(h.t, "n", &n)
		d.MaybeScanArgs(h.t, "bytes", &bytes)
		d.MaybeScanArgs(h.t, "count", &count)
		for _, id := range ids() {
			for range n {
				st, err := h.append(id, bytes, uint32(count))
				if err != nil {
					return err.Error()
				}
				if st != engine.OK {
					return name(st)
				}
			}
		}
		return "ok"
	case "settle":
		if err := h.settle(); err != nil {
			return err.Error()
		}
		return h.ends()
	case "rest":
		ms := int64(10_000)
		d.MaybeScanArgs(h.t, "ms", &ms)
		h.rest(ms * 1e6)
		return h.ends()
	case "truncate":
		var before int64
		d.ScanArgs(h.t, "before", &before)
		n, s, err := h.slot(ids()[0])
		if err != nil {
			return err.Error()
		}
		n.engine.TruncateBefore(s, before, 0)
		h.rest(1e9)
		return "ok"
	case "delete":
		n, s, err := h.slot(ids()[0])
		if err != nil {
			return err.Error()
		}
		if st := n.engine.DeleteLog(s, 9); st != engine.OK {
			return name(st)
		}
		ev, err := n.event(engine.Deleted, 9)
		if err != nil {
			return err.Error()
		}
		delete(n.ids, s)
		return name(ev.Status)
	case "stop":
		if err := h.stop(); err != nil {
			return err.Error()
		}
		return "ok"
	case "kill":
		h.end()
		h.disk.Kill(rand.New(rand.NewPCG(seed, 1)))
		return "ok"
	case "power-cut":
		var keep string
		d.ScanArgs(h.t, "keep", &keep)
		h.end()
		h.disk.PowerCut(mood(keep, seed))
		return "ok"
	case "rot":
		var at int64
		d.ScanArgs(h.t, "at", &at)
		if zeroes := 0; d.HasArg("zeroes") {
			d.ScanArgs(h.t, "zeroes", &zeroes)
			h.disk.Overwrite(h.path(d.CmdArgs[0].Key), at, make([]byte, zeroes))
			return "ok"
		}
		h.disk.Flip(h.path(d.CmdArgs[0].Key), at)
		return "ok"
	case "rot-frame", "tear-frame":
		var n uint64
		fmt.Sscan(d.CmdArgs[0].Key, &n)
		at, bytes := h.frame(n)
		if d.Cmd == "tear-frame" {
			h.disk.Overwrite(dataJournal, at+bytes-4096, make([]byte, 4096))
			return "ok"
		}
		var in string
		d.ScanArgs(h.t, "in", &in)
		if in == "header" {
			h.disk.Flip(dataJournal, at+40)
		} else {
			h.disk.Flip(dataJournal, at+bytes-4096+300)
		}
		return "ok"
	case "read":
		var out strings.Builder
		for _, id := range ids() {
			from, to, cold, why := h.readAll(id)
			for fmt.Fprintf(&out, "log %d:", id); ; {
				where := "from memory"
				if cold > 0 {
					where = "from disk"
				}
				fmt.Fprintf(&out, " %d..%d as appended, %s", from, to, where)
				if why != "" {
					fmt.Fprintf(&out, "; then %s", why)
				}
				n, slot, err := h.slot(id)
				if err != nil {
					break
				}
				behind, ok := n.engine.HoleEnd(slot, to)
				if !ok {
					break
				}
				fmt.Fprintf(&out, "; behind it")
				from, to, cold, why = h.readFrom(id, behind)
			}
			out.WriteByte('\n')
		}
		return out.String()
	case "epochs":
		var first, last int32
		d.ScanArgs(h.t, "first", &first)
		d.ScanArgs(h.t, "last", &last)
		n, s, err := h.slot(ids()[0])
		if err != nil {
			return err.Error()
		}
		var out strings.Builder
		for epoch := first; epoch <= last; epoch++ {
			found, end := n.engine.EpochEnd(s, epoch, n.engine.Durable(s))
			fmt.Fprintf(&out, "%d: epoch %d ends at %d\n", epoch, found, end)
		}
		return out.String()
	case "check":
		r, err := h.check()
		if err != nil {
			return "refused: " + tidy(err.Error())
		}
		var out strings.Builder
		if d.HasArg("rows") {
			for _, l := range r.Logs {
				fmt.Fprintf(&out, "log %d: %d..%d in %d segments, %d runs, %d bytes, %d problems\n", l.ID, l.Start, l.End, l.Segments, l.Runs, l.Bytes, len(l.Problems))
			}
		}
		for _, p := range r.Problems() {
			fmt.Fprintln(&out, tidy(p))
		}
		if len(r.Problems()) == 0 {
			out.WriteString("nothing wrong")
		}
		return out.String()
	case "repair":
		a := h.arena()
		var logs []uint64
		for _, id := range ids() {
			logs = append(logs, uint64(id))
		}
		cuts, err := recovery.Repair(h.ring(a), a, h.recoverOptions(), logs)
		if err != nil {
			return "refused: " + tidy(err.Error())
		}
		var out strings.Builder
		for _, c := range cuts {
			fmt.Fprintf(&out, "log %d: kept %d..%d, lost %d..%d, %d of them sound, %d files\n", c.Log, c.Start, c.From, c.From, c.To, c.Sound, len(c.Files))
		}
		if len(cuts) == 0 {
			out.WriteString("nothing wrong")
		}
		return out.String()
	case "room":
		h.disk.Capacity = 0
		var n int64
		if _, err := fmt.Sscan(d.CmdArgs[0].Key, &n); err == nil {
			h.disk.Capacity = h.disk.Used() + n
		}
		return "ok"
	case "fail":
		times, errno, op, prefix := 1, 5, "", d.CmdArgs[0].Key
		d.MaybeScanArgs(h.t, "times", &times)
		d.MaybeScanArgs(h.t, "errno", &errno)
		d.ScanArgs(h.t, "op", &op)
		want := map[string]ioring.Code{"write": ioring.Write, "sync": ioring.Sync, "open": ioring.Open, "read": ioring.Read, "allocate": ioring.Allocate}[op]
		h.disk.Fail = func(code ioring.Code, path string, _ uint64, _ int) int32 {
			if code != want || want == 0 || !strings.HasPrefix(path, prefix) || times == 0 {
				return 0
			}
			times--
			return -int32(errno)
		}
		return "ok"
	case "frames":
		return h.listFrames()
	}
	return "unknown command " + d.Cmd
}

// mood is a source of chance whose first draw makes a power cut keep
// everything, nothing, or each sector by itself.
func mood(keep string, seed uint64) *rand.Rand {
	for {
		want := rand.New(rand.NewPCG(seed, 1)).IntN(4)
		if keep == "all" && want == 0 || keep == "none" && want == 1 || keep == "some" && want > 1 {
			return rand.New(rand.NewPCG(seed, 1))
		}
		seed += 1000
	}
}

var generation = regexp.MustCompile(`[0-9a-f]{16}`)

// tidy leaves out what another run would have otherwise.
func tidy(s string) string { return generation.ReplaceAllString(s, "<generation>") }

// found says what opening found.
func (h *host) found(headers bool) string {
	var out strings.Builder
	kind := "not clean"
	if h.boot.Clean {
		kind = "clean"
	}
	if h.boot.Fresh {
		kind = "fresh"
	}
	fmt.Fprintf(&out, "epoch %d, %s\n", h.boot.Epoch, kind)
	for _, n := range h.boot.Notes {
		fmt.Fprintln(&out, tidy(n))
	}
	for i := range h.boot.Shards {
		for _, l := range h.boot.Shards[i].Logs {
			fmt.Fprintf(&out, "shard %d log %d: %d..%d", i, l.ID, l.Start, l.End)
			for _, hole := range l.Holes {
				fmt.Fprintf(&out, ", lost %d..%d", hole.From, hole.To)
			}
			if headers {
				fmt.Fprintf(&out, ", %d headers", len(l.Headers)/format.BatchHeaderBytes)
			}
			out.WriteByte('\n')
		}
	}
	return out.String()
}

func (h *host) ends() string {
	var out strings.Builder
	for id := uint64(1); id < 100; id++ {
		if n, s, err := h.slot(id); err == nil {
			fmt.Fprintf(&out, "log %d: %d..%d durable\n", id, n.engine.Start(s), n.engine.Durable(s))
		}
	}
	if out.Len() == 0 {
		return "ok"
	}
	return out.String()
}

// path is a file by name; segment:ID is the newest segment with runs of a log.
func (h *host) path(name string) string {
	var id uint64
	if _, err := fmt.Sscanf(name, "segment:%d", &id); err != nil {
		return name
	}
	found := ""
	for _, p := range h.disk.Paths() {
		if !strings.HasPrefix(p, "segments/") {
			continue
		}
		c := h.disk.Contents(p)
		if len(c) >= 128 && binary.LittleEndian.Uint32(c) == 0x4e524254 && binary.LittleEndian.Uint64(c[112:]) == id {
			found = p
		}
	}
	if found == "" {
		h.t.Fatalf("log %d has no segment with a run", id)
	}
	return found
}

type foundFrame struct {
	at, bytes         int64
	epoch             uint32
	sequence, durable uint64
	entries           uint32
}

// journalFrames finds the frames of the data shard by their magic.
func (h *host) journalFrames() (all []foundFrame) {
	p := h.disk.Contents(dataJournal)
	for at := 0; at+4096 <= len(p); at += 4096 {
		q := p[at:]
		if binary.LittleEndian.Uint32(q) == 0x52464254 {
			all = append(all, foundFrame{int64(at), (256 + int64(binary.LittleEndian.Uint32(q[36:])) + 4095) &^ 4095,
				binary.LittleEndian.Uint32(q[32:]), binary.LittleEndian.Uint64(q[128:]), binary.LittleEndian.Uint64(q[136:]), binary.LittleEndian.Uint32(q[124:])})
		}
	}
	return all
}

func (h *host) frame(n uint64) (at, bytes int64) {
	epoch := uint32(0)
	for _, f := range h.journalFrames() {
		epoch = max(epoch, f.epoch)
	}
	for _, f := range h.journalFrames() {
		if f.sequence == n && f.epoch == epoch {
			return f.at, f.bytes
		}
	}
	h.t.Fatalf("the journal has no frame %d", n)
	return 0, 0
}

func (h *host) listFrames() string {
	var out strings.Builder
	for _, f := range h.journalFrames() {
		fmt.Fprintf(&out, "frame %d of epoch %d at %d: %d blocks, %d entries, durable %d\n", f.sequence, f.epoch, f.at, f.bytes/4096, f.entries, f.durable)
	}
	if out.Len() == 0 {
		return "none"
	}
	return out.String()
}
