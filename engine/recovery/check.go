package recovery

import (
	"errors"
	"fmt"

	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// CheckReport is what Check found, with a row for each log, by id.
type CheckReport struct {
	Directory [16]byte
	Epoch     uint32
	Clean     bool
	Frames    int // of the journals, which the next start replays
	Logs      []LogReport
}

// LogReport is one log on disk. End is one past the last record that a start would find,
// Bytes the size of its runs with their padding.
type LogReport struct {
	ID         uint64
	Start, End int64
	Segments   int
	Runs       int
	Batches    int
	Bytes      int64
	Problems   []Problem

	cut Cut // what a repair would remove, if there are problems
}

// Problem is one thing that is wrong: where, and the records that it affects, From to
// To - 1. From == To: an unknown number, from there on. Path is empty where no file can be
// named.
type Problem struct {
	Path     string
	At       int64 // byte of the file
	From, To int64
	What     string
}

// String is the problem in one line.
func (p Problem) String() string {
	text := fmt.Sprintf("%s: records %d to %d", p.What, p.From, p.To-1)
	if p.From == p.To {
		text = fmt.Sprintf("%s: records from %d on", p.What, p.From)
	}
	if p.Path == "" {
		return text
	}
	return fmt.Sprintf("%s at %d: %s", p.Path, p.At, text)
}

// Problems is the problems of all logs, one line each.
func (c *CheckReport) Problems() (lines []string) {
	for i := range c.Logs {
		for _, problem := range c.Logs[i].Problems {
			lines = append(lines, fmt.Sprintf("log %d: %s", c.Logs[i].ID, problem))
		}
	}
	return lines
}

// Sum adds up the rows. ID, Start, End and Problems have no meaning in the sum.
func (c *CheckReport) Sum() (sum LogReport) {
	for i := range c.Logs {
		row := &c.Logs[i]
		sum.Segments += row.Segments
		sum.Runs += row.Runs
		sum.Batches += row.Batches
		sum.Bytes += row.Bytes
	}
	return sum
}

// Check reads and verifies everything in a data directory, and changes nothing. The broker
// of the directory may have been killed; it must not be running.
func Check(ring ioring.Ring, arena *mem.Arena, options Options) (_ *CheckReport, err error) {
	defer func() { err = ioring.Advised(err) }()
	options.Faults |= engine.NoSyncAtOpen // a sync would be a change
	r, err := begin(ring, arena, options)
	if err != nil {
		return nil, err
	}
	defer r.store.close()
	r.readOnly = true
	out := &CheckReport{Directory: r.boot.Directory, Epoch: r.old.Epoch}
	if r.boot.Fresh {
		return out, nil
	}
	if err := r.recoverShards(); err != nil {
		return nil, err
	}
	out.Clean, out.Frames = r.boot.Clean, r.frames
	for _, lg := range r.logs { // order does not matter
		for i := range lg.Segments {
			if lg.hasRecords(i) {
				r.toCheck += lg.Segments[i].Position
			}
		}
	}
	for _, id := range sorted(r.logs) {
		lg := r.logs[id]
		row := LogReport{ID: id, Start: lg.Start, End: lg.accepted}
		point, _, err := r.lanes[0].findBreak(lg, &row)
		if err != nil {
			return nil, err
		}
		row.cut = point.Cut
		r.each(lg.entries)
		out.Logs = append(out.Logs, row)
	}
	return out, nil
}

// checkSegment reads and verifies all runs of one segment.
func (r *recovery) checkSegment(lg *recoveredLog, i int, out *LogReport, point *breakPoint) error {
	seg := &lg.Segments[i]
	before := r.checked
	defer func() { r.progress(before + seg.Position) }()
	path, slot := format.SegmentPath(seg.Generation), r.First+slotSegment
	problem := func(at, from, to int64, what string) {
		if from = max(from, lg.Start); from < to {
			out.Problems = append(out.Problems, Problem{path, at, from, to, what})
			point.addBreak(i, at, from)
		}
	}
	there, err := r.Open(slot, path, ioring.OpenReadOnly)
	if err != nil {
		return err
	}
	if !there {
		problem(0, seg.Base, seg.End, "missing")
		return nil
	}
	defer r.Close(slot)
	base := seg.Base
	for at := int64(0); at < seg.Position; r.progress(before + at) {
		if g := lg.gapAt(i, at); g != nil { // broken runs, of which the journal has what is no hole
			for k := range lg.holes {
				if h := &lg.holes[k]; h.From < g.next && h.To > g.base {
					problem(at, max(h.From, g.base), min(h.To, g.next), "a run is broken")
				}
			}
			r.eachOf(g)
			at, base = g.end, g.next
			continue
		}
		var header format.RunHeader
		buf, err := r.Read(slot, at, format.BlockBytes)
		what := "the head of a run is broken"
		if err != nil {
			what = unreadable(err)
		}
		if unserved, ok := header.Parse(buf); ok && unserved != "" && header.IsOf(r.old.Directory, seg.Generation, lg.ID) {
			return newer(path, at, unserved)
		}
		own := err == nil && r.isOfSegment(lg, seg, &header, buf) && at+int64(header.Bytes()) <= seg.Position
		h := lg.holeAt(max(base, lg.Start))
		switch {
		case own && header.Base == base && (h == nil || header.End <= lg.Start):
		case own && header.Base > base && header.Base <= lg.Start: // before the start there may be gaps
		case h != nil && own && header.Base == h.To:
			problem(at, base, h.To, "records are missing")
			base = h.To
			continue
		case h != nil:
			if own {
				what = "a run is broken"
			}
			problem(at, base, min(h.To, seg.End), what)
			if own && header.Base == base {
				if buf, err := r.Read(slot, at, header.Bytes()); err == nil && len(buf) == header.Bytes() {
					r.saveSound(lg, &header, buf[format.HeaderBytes:format.HeaderBytes+int(header.BodyBytes)], point)
				}
			}
			next, behind, err := r.nextRun(lg, i, at, base)
			if err != nil {
				return err
			}
			problem(at, h.To, behind, "the head of a run is broken")
			at, base = next, behind
			continue
		default:
			next, base2, err := r.nextRun(lg, i, at+format.BlockBytes, base)
			if err != nil {
				return err
			}
			problem(at, base, base2, what)
			at, base = next, base2
			continue
		}
		buf, err = r.Read(slot, at, header.Bytes())
		if err == nil && len(buf) == header.Bytes() {
			if what := header.NewerIn(buf[format.HeaderBytes : format.HeaderBytes+int(header.BodyBytes)]); what != "" {
				return newer(path, at, what)
			}
		}
		if err != nil || len(buf) < header.Bytes() || !header.Whole(buf[format.HeaderBytes:format.HeaderBytes+int(header.BodyBytes)]) {
			what := "a run is broken"
			if err != nil {
				what = unreadable(err)
			}
			problem(at, base, header.End, what)
			if len(buf) == header.Bytes() {
				r.saveSound(lg, &header, buf[format.HeaderBytes:format.HeaderBytes+int(header.BodyBytes)], point)
			}
			at, base = at+int64(header.Bytes()), header.End
			continue
		}
		point.addSound(&header, at == 0)
		if r.o.Each != nil {
			format.EachBatch(buf[format.HeaderBytes:format.HeaderBytes+int(header.BodyBytes)], func(batch []byte) { r.o.Each(lg.ID, batch) })
		}
		out.Batches += int(header.Batches)
		out.Runs++
		out.Bytes += int64(header.Bytes())
		at += int64(header.Bytes())
		base = header.End
	}
	if base != seg.End {
		problem(seg.Position, base, seg.End, "the segment ends early")
	}
	return nil
}

// gapAt is the gap of a log that begins at a position of segment i and has records; nil: there
// is none. Only Check, which writes nothing, has any.
func (l *recoveredLog) gapAt(i int, at int64) *gap {
	for k := range l.gaps {
		if g := &l.gaps[k]; g.segment == i && g.at == at && g.end > at {
			return g
		}
	}
	return nil
}

// eachOf hands out the batches that the journal has of a gap.
func (r *recovery) eachOf(g *gap) {
	for f := range g.fills {
		r.each(g.fills[f].entries)
	}
}

// each hands out the batches of entries.
func (r *recovery) each(entries []replayedEntry) {
	if r.o.Each == nil {
		return
	}
	for i := range entries {
		r.o.Each(entries[i].Log, entries[i].bytes[format.EntryHeaderBytes:format.EntryHeaderBytes+int(entries[i].Length)])
	}
}

// isOfSegment reports that buf begins with the header of a run of a log and segment, of any
// epoch.
func (r *recovery) isOfSegment(lg *recoveredLog, seg *format.SegmentRecord, header *format.RunHeader, buf []byte) bool {
	return header.Get(buf) && header.IsOf(r.old.Directory, seg.Generation, lg.ID)
}

// nextRun looks from a position of segment i on for the next run from offset base on, block by
// block: if base is in a hole, for the one behind it, or, if that is broken too, the first
// behind that; or for a gap. It returns the ends of the segment where there is none. Blocks
// that cannot be read are passed.
func (r *recovery) nextRun(lg *recoveredLog, i int, from, base int64) (at, next int64, err error) {
	seg := &lg.Segments[i]
	h := lg.holeAt(max(base, lg.Start))
	later, laterBase := seg.Position, seg.End
	for at = from; at < seg.Position; {
		buf, err := r.Read(r.First+slotSegment, at, int(min(bufferBytes, seg.Position-at)))
		if err != nil {
			if buf, err = r.Read(r.First+slotSegment, at, format.BlockBytes); err != nil {
				at += format.BlockBytes
				continue
			}
		}
		if len(buf) < format.BlockBytes {
			break
		}
		for ; len(buf) >= format.BlockBytes; buf = buf[format.BlockBytes:] {
			if g := lg.gapAt(i, at); g != nil {
				return at, g.base, nil
			}
			var header format.RunHeader
			if r.isOfSegment(lg, seg, &header, buf) {
				if h == nil && header.Base >= base || h != nil && header.Base == h.To {
					return at, header.Base, nil
				}
				if h != nil && header.Base > h.To && later == seg.Position {
					later, laterBase = at, header.Base
				}
			}
			at += format.BlockBytes
		}
	}
	return later, laterBase, nil
}

// unreadable is what the disk answered where a run could not be read; the position is the
// Problem's.
func unreadable(err error) string {
	var failed *ioring.OpError
	if errors.As(err, &failed) {
		return "a run cannot be read: " + failed.Errno.Error()
	}
	return "a run cannot be read: " + err.Error()
}

// hasRecords reports that segment i has records at or past the log's start.
func (l *recoveredLog) hasRecords(i int) bool {
	return l.Segments[i].Position > 0 && l.Segments[i].End > l.Start
}

// progress reports how many bytes were checked.
func (r *recovery) progress(to int64) {
	r.checked = to
	if r.o.Progress != nil {
		r.o.Progress(r.checked, r.toCheck)
	}
}
