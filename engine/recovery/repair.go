package recovery

import (
	"fmt"
	"slices"

	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// Cut is what a repair takes from a log whose records are not all there: the
// log goes on at From, and From to To - 1 are no more. Some of them may be
// sound, behind what is broken: Sound says how many.
type Cut struct {
	Log      uint64
	Start    int64 // where the log begins
	From, To int64
	Sound    int64
	Why      []Problem
	Files    []string // that lose bytes or are removed
}

// Repair opens a data directory as Recover does and, with it, cuts each of the
// logs named where its first broken run lies, or where the journal's break left
// it; it takes appends again. The number of shards stays. A log of which nothing
// is broken is left alone. It may be cut at any point and run again.
//
// Whoever wants what is lost copies the Files before: see CheckReport.Cuts.
func Repair(ring ioring.Ring, arena *mem.Arena, o Options, logs []uint64) (_ []Cut, err error) {
	defer func() { err = ioring.Advised(err) }()
	r, err := begin(ring, arena, o)
	if err != nil {
		return nil, err
	}
	if r.boot.Fresh {
		return nil, &Refusal{At: -1, What: "there is nothing to repair: no broker has served this directory"}
	}
	r.o.Shards, r.boot.BatchBytesMax = int(r.old.Shards)-1, int(r.old.BatchMax)
	if err := r.shards(); err != nil {
		return nil, err
	}
	var cuts []Cut
	for _, id := range logs {
		l := r.logs[id]
		if l == nil {
			return nil, &Refusal{At: -1, What: fmt.Sprintf("there is no log %d", id), Next: "tailbound check shows which there are"}
		}
		row := LogReport{ID: id}
		x, broken, err := r.breaks(l, &row)
		if err != nil {
			return nil, err
		}
		if broken {
			if err := r.cut(l, &x); err != nil {
				return nil, err
			}
			cuts = append(cuts, x.Cut)
		}
	}
	return cuts, r.commit()
}

// breakAt is where a log breaks, and what lies before that.
type breakAt struct {
	Cut
	segment     int // none: it does not break in a segment
	position    int64
	chain       uint32
	maxTime     int64
	maxTimeBase int64
	segmentMax  int64        // largest time in the segment, before the break
	base        int64        // offset of the first record of the broken run
	saved       []foundEntry // what is sound of it, up to its break: From is where that ends
}

// breaks looks for the first place where l breaks.
func (r *recovery) breaks(l *found, row *LogReport) (x breakAt, broken bool, err error) {
	end := max(l.accepted, l.End)
	x = breakAt{Cut: Cut{Log: l.ID, Start: l.Start, From: end, To: end}, segment: -1, maxTime: format.NoTime, maxTimeBase: format.NoOffset}
	if l.RotFrom != format.NoOffset {
		row.Problems = append(row.Problems, Problem{From: l.RotFrom, To: l.RotTo, What: "acknowledged records are lost"})
		x.To = max(x.To, l.RotTo)
	}
	last := format.NoOffset
	for i := range l.Segments {
		q := &l.Segments[i]
		if !l.readable(i) {
			continue
		}
		if last != format.NoOffset && q.Base != last && q.Base > l.Start {
			row.Problems = append(row.Problems, Problem{Path: format.SegmentPath(q.Generation), From: last, To: q.Base, What: "the segment begins late"})
			x.breaksAt(i, 0, last)
		}
		last = q.End
		row.Segments++
		if err := r.checkSegment(l, i, row, &x); err != nil {
			return x, false, err
		}
	}
	x.Why = row.Problems
	if x.segment >= 0 {
		for i := x.segment; i < len(l.Segments); i++ {
			x.Files = append(x.Files, format.SegmentPath(l.Segments[i].Generation))
		}
	}
	return x, len(row.Problems) > 0, nil
}

// breaksAt notes the first break: at a position of a segment, where the record
// at offset base would be.
func (x *breakAt) breaksAt(segment int, position, base int64) {
	if x.segment < 0 {
		x.segment, x.position, x.base, x.From = segment, position, base, base
	}
}

// save keeps what is sound at the beginning of the first broken run, whose head
// h is whole.
func (r *recovery) save(l *found, h *format.RunHeader, body []byte, x *breakAt) {
	if r.o.Sound == nil || x.saved != nil || x.base != h.Base || x.From != h.Base {
		return
	}
	for len(body) > 0 {
		var e format.Entry
		if !e.Get(body) || e.Bytes() > len(body) || e.Kind != format.EntryData || e.Base != x.From || e.Count == 0 || e.Log != l.ID {
			return
		}
		epoch := int32(-1)
		for _, s := range l.Epochs {
			if s.Start <= e.Base {
				epoch = s.Epoch
			}
		}
		if !r.o.Sound(body[format.EntryHeaderBytes:format.EntryHeaderBytes+int(e.Length)], e.Base, epoch) {
			return
		}
		x.saved = append(x.saved, foundEntry{e, slices.Clone(body[:e.Bytes()])})
		x.From += int64(e.Count)
		body = body[e.Bytes():]
	}
}

// whole notes a run that is as it was written.
func (x *breakAt) whole(h *format.RunHeader, first bool) {
	if x.segment >= 0 {
		x.Sound += h.End - max(h.Base, x.Start)
		return
	}
	x.chain = h.CRC
	if first {
		x.segmentMax = format.NoTime
	}
	x.segmentMax = max(x.segmentMax, h.MaxTime)
	if h.MaxTime > x.maxTime || x.maxTimeBase == format.NoOffset {
		x.maxTime, x.maxTimeBase = h.MaxTime, h.MaxTimeBase
	}
}

// cut has l end where it breaks. What producers wrote behind that is forgotten
// with it: a duplicate of a record that is lost must not be taken for one.
func (r *recovery) cut(l *found, x *breakAt) error {
	l.RotFrom, l.RotTo = format.NoOffset, format.NoOffset
	if x.segment < 0 {
		return nil
	}
	l.Segments = l.Segments[:x.segment+1]
	q := &l.Segments[x.segment]
	switch {
	case x.position > 0:
		q.Position, q.End, q.Chain, q.MaxTime = x.position, x.base, x.chain, x.segmentMax
	case x.saved != nil:
		q.Position, q.Base, q.End, q.Chain, q.MaxTime = 0, x.base, x.base, x.chain, format.NoTime
	default: // nothing of it stays, if it is there at all
		l.Segments = l.Segments[:x.segment]
	}
	l.End, l.accepted, l.Chain = x.base, x.From, x.chain
	l.MaxTime, l.MaxTimeBase = x.maxTime, x.maxTimeBase
	l.Attachment, l.Headers = nil, nil
	for n := len(l.Epochs); n > 0 && l.Epochs[n-1].Start >= x.From; n = len(l.Epochs) {
		l.Epochs = l.Epochs[:n-1]
	}
	l.Start = min(l.Start, x.From)
	l.entries = x.saved
	return r.drain(l)
}

// Cuts are what Repair would take from each log that is broken.
func (c *CheckReport) Cuts() (cuts []Cut) {
	for i := range c.Logs {
		if l := &c.Logs[i]; len(l.Problems) > 0 {
			cuts = append(cuts, l.cut)
		}
	}
	return cuts
}
