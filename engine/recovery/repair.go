package recovery

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// Cut is what a repair removes from a log that has lost records: the log goes on at From,
// and the records From to To - 1 are gone. Some of them, behind what is broken, may be
// sound: Sound is how many.
type Cut struct {
	Log      uint64
	Start    int64 // the log's first offset
	From, To int64
	Sound    int64
	Why      []Problem
	Files    []string // which lose bytes or are removed
}

// Broken is the ranges of offsets that are lost whatever is done, in order and apart from each
// other. One without an end is left out.
func (c *Cut) Broken() (ranges []format.Hole) {
	for _, problem := range c.Why {
		if problem.From < problem.To {
			ranges = append(ranges, format.Hole{From: problem.From, To: problem.To})
		}
	}
	slices.SortFunc(ranges, func(a, b format.Hole) int { return cmp.Compare(a.From, b.From) })
	for k := 0; k+1 < len(ranges); {
		if ranges[k].To < ranges[k+1].From {
			k++
			continue
		}
		ranges[k].To = max(ranges[k].To, ranges[k+1].To)
		ranges = slices.Delete(ranges, k+1, k+2)
	}
	return ranges
}

// Repair opens a data directory as Recover does, and ends each of the named logs at its
// first broken run, or where a broken frame of the journal left it, so that the log takes
// appends again. A log without a problem is not changed, and the number of shards stays.
// Repair may be interrupted at any point and run again.
//
// What is removed can be kept by copying the Files of CheckReport.Cuts first.
func Repair(ring ioring.Ring, arena *mem.Arena, options Options, logs []uint64) (_ []Cut, err error) {
	defer func() { err = ioring.Advised(err) }()
	r, err := begin(ring, arena, options)
	if err != nil {
		return nil, err
	}
	defer r.store.close()
	if r.boot.Fresh {
		return nil, &Refusal{At: -1, What: "there is nothing to repair: no broker has served this directory"}
	}
	r.o.Shards, r.boot.BatchBytesMax = int(r.old.Shards)-1, int(r.old.BatchMax)
	if err := r.recoverShards(); err != nil {
		return nil, err
	}
	var cuts []Cut
	lane := r.lanes[0] // its buffer has room for any run
	for _, id := range logs {
		lg := r.logs[id]
		if lg == nil {
			return nil, &Refusal{At: -1, What: fmt.Sprintf("there is no log %d", id), Next: "tailbound check shows which there are"}
		}
		row := LogReport{ID: id}
		point, broken, err := lane.findBreak(lg, &row)
		if err != nil {
			return nil, err
		}
		if broken {
			if err := lane.cut(lg, &point); err != nil {
				return nil, err
			}
			cuts = append(cuts, point.Cut)
		}
	}
	return cuts, r.commit()
}

// breakPoint is where a log breaks, and what is known of the runs before that.
type breakPoint struct {
	Cut
	segment     int    // index in Segments; -1: it does not break in a segment
	position    int64  // of the first broken run in it
	chain       uint32 // header CRC of the last run before
	maxTime     int64  // over all runs before
	maxTimeBase int64
	segmentMax  int64           // largest timestamp in the segment before the break
	base        int64           // first offset of the broken run
	saved       []replayedEntry // the sound batches at the beginning of that run; From is behind them
}

// findBreak checks all segments of a log, and gives the first place where it breaks.
func (r *recovery) findBreak(lg *recoveredLog, row *LogReport) (point breakPoint, broken bool, err error) {
	end := max(lg.accepted, lg.End)
	point = breakPoint{Cut: Cut{Log: lg.ID, Start: lg.Start, From: end, To: end}, segment: -1, maxTime: format.NoTime, maxTimeBase: format.NoOffset}
	last := lg.Start // the end of the records before a segment
	for i := range lg.Segments {
		seg := &lg.Segments[i]
		if !lg.hasRecords(i) {
			continue
		}
		if seg.Base != last && seg.Base > lg.Start {
			what := "the segment begins late"
			if lg.holeAt(max(last, lg.Start)) != nil {
				what = "records are missing before it"
			}
			row.Problems = append(row.Problems, Problem{Path: format.SegmentPath(seg.Generation), From: max(last, lg.Start), To: seg.Base, What: what})
			point.addBreak(i, 0, max(last, lg.Start))
		}
		last = seg.End
		row.Segments++
		if err := r.checkSegment(lg, i, row, &point); err != nil {
			return point, false, err
		}
	}
	for i := range lg.holes {
		lg.addHoleProblem(&lg.holes[i], row, &point, last)
	}
	for i := range lg.gaps { // only Check has any, and entries
		for f := range lg.gaps[i].fills {
			point.addEntries(lg.gaps[i].fills[f].entries)
		}
	}
	point.addEntries(lg.entries)
	point.Why = row.Problems
	if point.segment >= 0 {
		for i := point.segment; i < len(lg.Segments); i++ {
			point.Files = append(point.Files, format.SegmentPath(lg.Segments[i].Generation))
		}
	}
	return point, len(row.Problems) > 0, nil
}

// addHoleProblem adds what no problem was found for of a hole: its records are in no file. last is
// the end of what the segments have.
func (l *recoveredLog) addHoleProblem(h *hole, row *LogReport, point *breakPoint, last int64) {
	from := h.From
	for i := range row.Problems {
		if problem := &row.Problems[i]; problem.From <= from && problem.To > from {
			from = problem.To
		}
	}
	if from > h.From && from >= h.To {
		return
	}
	problem := Problem{From: from, To: h.To, What: "acknowledged records are lost"}
	if h.From == h.To {
		problem.What = "acknowledged records may be lost"
	}
	problem.Path, problem.At = h.file()
	row.Problems = append(row.Problems, problem)
	point.To = max(point.To, h.To)
	if point.segment < 0 && h.From >= last {
		point.From = min(point.From, h.From)
	}
}

// addBreak records a break at a position of a segment, where the record at offset base
// would be, if it is the first.
func (b *breakPoint) addBreak(segment int, position, base int64) {
	if b.segment < 0 {
		b.segment, b.position, b.base, b.From = segment, position, base, base
	}
}

// saveSound keeps the sound batches at the beginning of the first broken run, whose header
// is whole.
func (r *recovery) saveSound(lg *recoveredLog, header *format.RunHeader, body []byte, point *breakPoint) {
	if r.o.Sound == nil || point.saved != nil || point.base != header.Base || point.From != header.Base {
		return
	}
	for len(body) > 0 {
		var entry format.Entry
		if !entry.Get(body) || entry.Bytes() > len(body) || entry.Kind != format.EntryData || entry.Base != point.From || entry.Count == 0 || entry.Log != lg.ID {
			return
		}
		first, last := r.epochsAt(lg, entry.Base)
		if !r.o.Sound(body[format.EntryHeaderBytes:format.EntryHeaderBytes+int(entry.Length)], entry.Base, first, last) {
			return
		}
		point.saved = append(point.saved, replayedEntry{Entry: entry, bytes: slices.Clone(body[:entry.Bytes()])})
		point.From += int64(entry.Count)
		body = body[entry.Bytes():]
	}
}

// epochsAt is the first and the last leader epoch that the record at an offset can have
// been appended in: one, unless it is older than all that are known.
func (r *recovery) epochsAt(lg *recoveredLog, offset int64) (first, last int32) {
	last = int32(r.old.Epoch)
	for i := len(lg.Epochs) - 1; i >= 0; i-- {
		if lg.Epochs[i].Start <= offset {
			return lg.Epochs[i].Epoch, lg.Epochs[i].Epoch
		}
		last = lg.Epochs[i].Epoch - 1
	}
	return 1, last
}

// addSound records a run that is what was written.
func (b *breakPoint) addSound(header *format.RunHeader, first bool) {
	if b.segment >= 0 {
		b.Sound += header.End - max(header.Base, b.Start)
		return
	}
	b.chain = header.CRC
	if first {
		b.segmentMax = format.NoTime
	}
	b.segmentMax = max(b.segmentMax, header.MaxTime)
	if header.MaxTime > b.maxTime || b.maxTimeBase == format.NoOffset {
		b.maxTime, b.maxTimeBase = header.MaxTime, header.MaxTimeBase
	}
}

// addEntries records entries that only the journal has.
func (b *breakPoint) addEntries(entries []replayedEntry) {
	for i := range entries {
		if entry := &entries[i]; entry.Base >= b.From {
			b.Sound += entry.end() - max(entry.Base, b.Start)
		}
	}
}

// cut ends a log where it breaks. The state of its producers is dropped with the records:
// a record that is sent again because it was lost must not be taken for a duplicate.
func (r *recovery) cut(lg *recoveredLog, point *breakPoint) error {
	lg.holes = nil
	if point.segment < 0 {
		lg.End, lg.accepted = point.From, point.From
		lg.cutEpochs(point.From)
		lg.Start = min(lg.Start, point.From)
		return nil
	}
	lg.Segments = lg.Segments[:point.segment+1]
	seg := &lg.Segments[point.segment]
	switch {
	case point.position > 0:
		seg.Position, seg.End, seg.Chain, seg.MaxTime = point.position, point.base, point.chain, point.segmentMax
	case point.saved != nil:
		seg.Position, seg.Base, seg.End, seg.Chain, seg.MaxTime = 0, point.base, point.base, point.chain, format.NoTime
	default: // nothing of the segment stays, if its file exists
		lg.Segments = lg.Segments[:point.segment]
	}
	lg.End, lg.accepted, lg.Chain = point.base, point.From, point.chain
	lg.MaxTime, lg.MaxTimeBase = point.maxTime, point.maxTimeBase
	lg.Attachment, lg.Headers = nil, nil
	lg.cutEpochs(point.From)
	lg.Start = min(lg.Start, point.From)
	lg.entries = point.saved
	defer r.closeSegment()
	if err := r.flush(lg); err != nil {
		return err
	}
	return r.syncLog(lg)
}

// cutEpochs drops the leader epochs that begin at or past the log's new end.
func (l *recoveredLog) cutEpochs(end int64) {
	for n := len(l.Epochs); n > 0 && l.Epochs[n-1].Start >= end; n = len(l.Epochs) {
		l.Epochs = l.Epochs[:n-1]
	}
}

// Cuts is what Repair would remove from each log that has problems.
func (c *CheckReport) Cuts() (cuts []Cut) {
	for i := range c.Logs {
		if row := &c.Logs[i]; len(row.Problems) > 0 {
			cuts = append(cuts, row.cut)
		}
	}
	return cuts
}
