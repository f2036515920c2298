package recovery

import (
	"errors"
	"fmt"

	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// CheckReport is what Check found: a row for each log, by id.
type CheckReport struct {
	Directory [16]byte
	Epoch     uint32
	Clean     bool
	Frames    int // of the journals, that the next opening replays
	Logs      []LogReport
}

// LogReport is one log as it lies on disk. End is one past the last record that
// an opening would find, Bytes what its runs take with their padding.
type LogReport struct {
	ID         uint64
	Start, End int64
	Segments   int
	Runs       int
	Batches    int
	Bytes      int64
	Problems   []Problem

	cut Cut // what a repair would take, where there are problems
}

// Problem is one thing that is wrong: where, and the records it touches, From
// to To - 1. Path is empty where no file can be named.
type Problem struct {
	Path     string
	At       int64 // byte of the file
	From, To int64
	What     string
}

// String is the problem in one line.
func (p Problem) String() string {
	if p.Path == "" {
		return fmt.Sprintf("%s: records %d to %d", p.What, p.From, p.To)
	}
	return fmt.Sprintf("%s at %d: %s: records %d to %d", p.Path, p.At, p.What, p.From, p.To)
}

// Problems are those of all logs, a line each; none where all is well.
func (c *CheckReport) Problems() (lines []string) {
	for i := range c.Logs {
		for _, p := range c.Logs[i].Problems {
			lines = append(lines, fmt.Sprintf("log %d: %s", c.Logs[i].ID, p))
		}
	}
	return lines
}

// Sum adds the rows up; ID, Start, End and Problems have no meaning in it.
func (c *CheckReport) Sum() (sum LogReport) {
	for i := range c.Logs {
		l := &c.Logs[i]
		sum.Segments += l.Segments
		sum.Runs += l.Runs
		sum.Batches += l.Batches
		sum.Bytes += l.Bytes
	}
	return sum
}

// Check reads everything a data directory holds and verifies it, without
// changing a byte. It may be given the directory of a broker that was killed.
func Check(ring ioring.Ring, arena *mem.Arena, o Options) (_ *CheckReport, err error) {
	defer func() { err = ioring.Advised(err) }()
	o.Faults |= engine.NoSyncAtOpen // it changes nothing
	r, err := begin(ring, arena, o)
	if err != nil {
		return nil, err
	}
	r.readOnly = true
	out := &CheckReport{Directory: r.boot.Directory, Epoch: r.old.Epoch}
	if r.boot.Fresh {
		return out, nil
	}
	if err := r.shards(); err != nil {
		return nil, err
	}
	out.Clean, out.Frames = r.boot.Clean, r.frames
	for _, l := range r.logs { // order does not matter
		for i := range l.Segments {
			if l.readable(i) {
				r.ahead += l.Segments[i].Position
			}
		}
	}
	for _, id := range sorted(r.logs) {
		l := r.logs[id]
		row := LogReport{ID: id, Start: l.Start, End: l.accepted}
		x, _, err := r.breaks(l, &row)
		if err != nil {
			return nil, err
		}
		row.cut = x.Cut
		if o.Each != nil {
			for i := range l.entries {
				o.Each(id, l.entries[i].bytes[format.EntryHeaderBytes:format.EntryHeaderBytes+int(l.entries[i].Length)])
			}
		}
		out.Logs = append(out.Logs, row)
	}
	return out, nil
}

// checkSegment walks the runs of one segment, whole.
func (r *recovery) checkSegment(l *found, i int, out *LogReport, x *breakAt) error {
	q := &l.Segments[i]
	before := r.passed
	defer func() { r.pass(before + q.Position) }()
	path, slot := format.SegmentPath(q.Generation), r.First+4
	problem := func(at, from, to int64, what string) {
		out.Problems = append(out.Problems, Problem{path, at, from, to, what})
		x.breaksAt(i, at, from)
	}
	there, err := r.Open(slot, path, ioring.OpenReadOnly)
	if err != nil {
		return err
	}
	if !there {
		problem(0, q.Base, q.End, "missing")
		return nil
	}
	defer r.Close(slot)
	base := q.Base
	for at := int64(0); at < q.Position; {
		var h format.RunHeader
		p, err := r.Read(slot, at, format.BlockBytes)
		if err != nil {
			problem(at, base, q.End, unreadable(err))
			return nil
		}
		if what, ok := h.Parse(p); ok && what != "" && h.Directory == r.old.Directory && h.Generation == q.Generation && h.Log == l.ID {
			return newer(path, at, what)
		}
		if len(p) < format.BlockBytes || !h.Get(p) || h.Directory != r.old.Directory || h.Generation != q.Generation || h.Log != l.ID || h.Base != base && (h.Base < base || h.Base > l.Start) || at+int64(h.Bytes()) > q.Position {
			problem(at, base, q.End, "the head of a run is broken")
			return nil
		}
		p, err = r.Read(slot, at, h.Bytes())
		if err == nil && len(p) == h.Bytes() {
			if what := h.NewerIn(p[format.HeaderBytes : format.HeaderBytes+int(h.BodyBytes)]); what != "" {
				return newer(path, at, what)
			}
		}
		if err != nil || len(p) < h.Bytes() || !h.Whole(p[format.HeaderBytes:format.HeaderBytes+int(h.BodyBytes)]) {
			what := "a run is broken"
			if err != nil {
				what = unreadable(err)
			}
			problem(at, base, h.End, what)
			if len(p) == h.Bytes() {
				r.save(l, &h, p[format.HeaderBytes:format.HeaderBytes+int(h.BodyBytes)], x)
			}
			at, base = at+int64(h.Bytes()), h.End
			continue
		}
		x.whole(&h, at == 0)
		if r.o.Each != nil {
			format.EachBatch(p[format.HeaderBytes:format.HeaderBytes+int(h.BodyBytes)], func(b []byte) { r.o.Each(l.ID, b) })
		}
		out.Batches += int(h.Batches)
		out.Runs++
		out.Bytes += int64(h.Bytes())
		at += int64(h.Bytes())
		r.pass(before + at)
		base = h.End
	}
	if base != q.End {
		problem(q.Position, base, q.End, "the segment ends early")
	}
	return nil
}

// unreadable says of a run that could not be read what the disk answered; where
// is said beside it.
func unreadable(err error) string {
	var failed *ioring.OpError
	if errors.As(err, &failed) {
		return "a run cannot be read: " + failed.Errno.Error()
	}
	return "a run cannot be read: " + err.Error()
}

// readable says whether there is anything to read in segment i.
func (l *found) readable(i int) bool {
	return l.Segments[i].Position > 0 && l.Segments[i].End > l.Start
}

// pass tells whoever asks how far a check is.
func (r *recovery) pass(to int64) {
	r.passed = to
	if r.o.Progress != nil {
		r.o.Progress(r.passed, r.ahead)
	}
}
