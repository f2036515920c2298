package recovery

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
)

// scan adds to a log the runs that the epoch before wrote past its checkpoint, while
// epoch, chain and base offset continue, in the same segment or at the beginning of a
// later one. It begins in segment k, and returns in which one it ended.
func (r *recovery) scan(lg *recoveredLog, k int) (int, error) {
	firsts := make([]*format.RunHeader, len(lg.Segments)) // headers of first runs
	for k < len(lg.Segments) {
		// The writer did not come back to a segment that it left, which it may have done
		// after a failure: a later segment whose first run continues is the next one.
		next := k
		for i := len(lg.Segments) - 1; i > k && next == k; i-- {
			if firsts[i] == nil {
				header, err := r.readHeader(lg, &lg.Segments[i], 0)
				if err != nil {
					return k, err
				}
				firsts[i] = &header
			}
			if r.continues(lg, firsts[i]) || firsts[i].Batches > 0 && firsts[i].Base > lg.End && firsts[i].Base <= lg.Start {
				next = i
			}
		}
		seg := &lg.Segments[next]
		header, err := r.readHeader(lg, seg, seg.Position)
		if err != nil {
			return k, err
		}
		if next == k && !r.continues(lg, &header) {
			break
		}
		body, err := r.readBody(seg, seg.Position, &header)
		if err != nil {
			return k, err
		}
		if body == nil {
			if next == k {
				break
			}
			firsts[next] = &format.RunHeader{} // torn: no run
			continue
		}
		k = next
		r.addRun(lg, seg, &header, body)
	}
	return k, nil
}

// lastWritten is the last segment that has runs of the log; 0 if none has.
func (l *recoveredLog) lastWritten() (k int) {
	for i := range l.Segments {
		if l.Segments[i].Position > 0 {
			k = i
		}
	}
	return k
}

// readBody reads the body of the run at a position of a segment, whose header is whole. nil:
// it is not what was written.
func (r *recovery) readBody(seg *format.SegmentRecord, at int64, header *format.RunHeader) ([]byte, error) {
	there, err := r.openSegment(seg)
	if err != nil || !there {
		return nil, err
	}
	buf, err := r.Read(r.First+slotSegment, at, header.Bytes())
	if err != nil || len(buf) < header.Bytes() {
		return nil, err
	}
	body := buf[format.HeaderBytes : format.HeaderBytes+int(header.BodyBytes)]
	if what := header.NewerIn(body); what != "" {
		return nil, newer(r.PathOf(r.First+slotSegment), at, what)
	}
	if !header.Whole(body) && !r.o.Faults.Has(engine.StaleRunAccepted) {
		return nil, nil
	}
	return body, nil
}

// continues reports that a run follows what the log has.
func (r *recovery) continues(lg *recoveredLog, header *format.RunHeader) bool {
	return header.Batches > 0 && header.Base == lg.End && (header.Previous == lg.Chain || r.o.Faults.Has(engine.StaleRunAccepted))
}

// addRun adds a whole run, which is at the segment's position, to a log.
func (r *recovery) addRun(lg *recoveredLog, seg *format.SegmentRecord, header *format.RunHeader, body []byte) {
	lg.extend(seg, header)
	seg.Bytes = max(seg.Bytes, r.openedBytes&^(format.BlockBytes-1))
	r.epochBegan(lg, header.Base)
	lg.claimedDurable = max(lg.claimedDurable, header.Durable)
	for len(body) > 0 {
		var entry format.Entry
		if !entry.Get(body) || entry.Bytes() > len(body) {
			return // only with the fault StaleRunAccepted
		}
		r.keepHeader(lg, &entry, body)
		body = body[entry.Bytes():]
	}
}

// laterRun is the header of a run behind the first one that does not continue its log.
type laterRun struct {
	format.RunHeader
	segment   int
	at        int64
	rewritten bool // it is whole, and is written again as the journal has it
}

// scanAhead finds the runs of the epoch before behind segment k's position and in later
// segments, in the order of the files. There may be as many broken ones before each as
// were in flight, each as large as allowed; all says to look through whole files. Nothing but
// runs says whether a log has written any behind its checkpoint, and damage may have made the
// first of them zero. Most files have nothing there, and their file system knows that without
// a read.
func (r *recovery) scanAhead(lg *recoveredLog, k int, all bool) (later []laterRun, err error) {
	for i := k; i < len(lg.Segments); i++ {
		seg := &lg.Segments[i]
		if there, err := r.openSegment(seg); err != nil {
			return nil, err
		} else if !there {
			continue
		}
		if r.o.Faults.Has(engine.LooksAtOneBlock) && !all {
			buf, err := r.Read(r.First+slotSegment, seg.Position, format.BlockBytes)
			if err != nil {
				return nil, err
			}
			if !slices.ContainsFunc(buf, func(b byte) bool { return b != 0 }) {
				continue
			}
		}
		reach := r.reach()
		until := seg.Position + reach
		if all {
			until = r.openedBytes
		}
		for at := seg.Position; at < min(until, r.openedBytes); at += bufferBytes {
			data, err := r.SeekData(r.First+slotSegment, at)
			if err != nil {
				return nil, err
			}
			if at = max(at, data&^(format.BlockBytes-1)); at >= min(until, r.openedBytes) {
				break
			}
			buf, err := r.Read(r.First+slotSegment, at, int(min(bufferBytes, until-at, int64(format.AlignBlock(int(r.openedBytes-at))))))
			if err != nil {
				return nil, err
			}
			for n := 0; n+format.BlockBytes <= len(buf); n += format.BlockBytes {
				run := laterRun{segment: i, at: at + int64(n)}
				if what, ok := run.Parse(buf[n:]); ok && r.isOwn(lg, seg, &run.RunHeader) {
					if what != "" {
						return nil, newer(r.PathOf(r.First+slotSegment), run.at, what)
					}
					later = append(later, run)
					until = max(until, run.at+int64(run.Bytes())+reach)
				}
			}
		}
	}
	return later, nil
}

// reach is how far behind a broken run a later one is looked for: over as many broken runs
// as were in flight, each as large as allowed, and the block that the later one begins
// with. What the epoch before allowed counts, and not the present settings: they may
// be lower.
func (r *recovery) reach() int64 {
	inflight := int(r.old.InflightMax)
	switch {
	case r.o.Faults.Has(engine.PresentLimits):
		inflight = r.o.InflightMax
	case inflight == 0:
		inflight = engine.InflightLimit
	}
	return int64(inflight*r.o.RunBufferBytes() + format.BlockBytes)
}

// readHeader reads the header of the run at a position of a segment. Without batches:
// there is no run of the epoch before. One that needs a later version is refused.
func (r *recovery) readHeader(lg *recoveredLog, seg *format.SegmentRecord, at int64) (header format.RunHeader, err error) {
	there, err := r.openSegment(seg)
	if err != nil || !there {
		return format.RunHeader{}, err
	}
	buf, err := r.Read(r.First+slotSegment, at, format.BlockBytes)
	if err != nil {
		return format.RunHeader{}, err
	}
	if len(buf) < format.BlockBytes {
		return format.RunHeader{}, nil
	}
	what, ok := header.Parse(buf)
	if !ok || !r.isOwn(lg, seg, &header) {
		return format.RunHeader{}, nil
	}
	if what != "" {
		return header, newer(r.PathOf(r.First+slotSegment), at, what)
	}
	if at+int64(header.Bytes()) > r.openedBytes {
		return format.RunHeader{}, nil
	}
	return header, nil
}

// isOwn reports that a run is of this log and segment, in the epoch before.
func (r *recovery) isOwn(lg *recoveredLog, seg *format.SegmentRecord, header *format.RunHeader) bool {
	return header.IsOf(r.old.Directory, seg.Generation, lg.ID) && (header.Epoch == r.old.Epoch || r.o.Faults.Has(engine.StaleRunAccepted))
}

// openSegment opens a segment's file, unless it is open. False: the file was removed.
func (r *recovery) openSegment(seg *format.SegmentRecord) (there bool, err error) {
	if r.opened == seg.Generation {
		return true, nil
	}
	r.closeSegment()
	slot, path, bits := r.First+slotSegment, format.SegmentPath(seg.Generation), uint64(0)
	if r.readOnly {
		bits = ioring.OpenReadOnly
	}
	if there, err = r.Open(slot, path, bits); err != nil || !there {
		return false, err
	}
	r.opened = seg.Generation
	r.openedBytes, err = r.Size(slot)
	return true, err
}

// closeSegment closes the file that openSegment opened.
func (r *recovery) closeSegment() {
	if r.opened != 0 {
		r.Close(r.First + slotSegment)
		r.opened = 0
	}
}

// adoptSegments gives files that are in no log to the logs whose runs they hold: the entries
// that assigned them may have been in a frame of which nothing is known.
func (r *recovery) adoptSegments(shard int, logs map[uint64]*recoveredLog) error {
	defer r.closeSegment()
	named := map[string]bool{}
	for _, all := range []map[uint64]*recoveredLog{r.logs, logs} {
		for _, lg := range all { // order does not matter
			for i := range lg.Segments {
				named[format.SegmentPath(lg.Segments[i].Generation)] = true
			}
		}
	}
	names, err := r.List("segments")
	if err != nil {
		return err
	}
	for _, name := range names {
		generation, err := strconv.ParseUint(name, 16, 64)
		path := "segments/" + name
		// What an opening that was interrupted has made is made again.
		made := generation>>24&0xff == format.RecoveryShard
		if err != nil || path != format.SegmentPath(generation) || named[path] || made {
			continue
		}
		seg := format.SegmentRecord{Generation: generation, MaxTime: format.NoTime}
		if there, err := r.openSegment(&seg); err != nil || !there {
			return err
		}
		header, err := r.firstRun(generation, shard)
		if err != nil {
			return err
		}
		r.closeSegment()
		if header.Batches == 0 {
			continue
		}
		lg := logs[header.Log]
		if lg == nil && !r.mayBeNew(header.Log) || lg != nil && lg.closed {
			continue
		}
		if lg == nil {
			lg = newRecoveredLog(&format.LogRecord{ID: header.Log, MaxTime: format.NoTime, MaxTimeBase: format.NoOffset})
			r.store.add(&lg.journal, nil, *r.unknown)
			logs[header.Log] = lg
		}
		seg.Base, seg.End = min(lg.End, header.Base), min(lg.End, header.Base)
		lg.Segments = append(lg.Segments, seg)
		// Generations are given out in order.
		slices.SortFunc(lg.Segments, func(a, b format.SegmentRecord) int { return cmp.Compare(a.Generation, b.Generation) })
		r.note("log %d: %s has records of it, and belonged to no log: the entry that assigned it was in a broken frame", header.Log, path)
	}
	return nil
}

// firstRun is the header of the first run in a segment's file, which is open, that is of a log of
// the shard and of the epoch before. Without batches: there is none near its beginning.
func (r *recovery) firstRun(generation uint64, shard int) (header format.RunHeader, err error) {
	for at := int64(0); at < min(r.reach(), r.openedBytes); at += bufferBytes {
		buf, err := r.Read(r.First+slotSegment, at, bufferBytes)
		if err != nil {
			return header, err
		}
		for ; len(buf) >= format.BlockBytes; buf = buf[format.BlockBytes:] {
			if header.Get(buf) && header.Directory == r.old.Directory && header.Epoch == r.old.Epoch && header.Generation == generation &&
				format.Place(header.Log, int(r.old.Shards)-1) == shard {
				return header, nil
			}
		}
	}
	return format.RunHeader{}, nil
}
