package recovery

import (
	"slices"

	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
)

// scan adds to a log the runs that the epoch before wrote past its checkpoint, while
// epoch, chain and base offset continue, in the same segment or at the beginning of a
// later one. The first run that does not continue was not acknowledged, unless a run
// behind it claims that it was: see scanAhead.
func (r *recovery) scan(lg *recoveredLog) error {
	defer r.closeSegment()
	k := 0
	for i := range lg.Segments {
		if lg.Segments[i].Position > 0 {
			k = i
		}
	}
	firsts := make([]*format.RunHeader, len(lg.Segments)) // headers of first runs
	any := lg.Direct
	for k < len(lg.Segments) {
		// The writer did not come back to a segment that it left, which it may have done
		// after a failure: a later segment whose first run continues is the next one.
		next := k
		for i := len(lg.Segments) - 1; i > k && next == k; i-- {
			if firsts[i] == nil {
				header, err := r.readHeader(lg, &lg.Segments[i], 0)
				if err != nil {
					return err
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
			return err
		}
		if next == k && !r.continues(lg, &header) {
			break
		}
		there, err := r.openSegment(seg)
		if err != nil || !there {
			return err
		}
		buf, err := r.Read(r.First+slotSegment, seg.Position, header.Bytes())
		if err != nil {
			return err
		}
		if len(buf) == header.Bytes() {
			if what := header.NewerIn(buf[format.HeaderBytes : format.HeaderBytes+int(header.BodyBytes)]); what != "" {
				return newer(r.PathOf(r.First+slotSegment), seg.Position, what)
			}
		}
		if len(buf) < header.Bytes() || !header.Whole(buf[format.HeaderBytes:format.HeaderBytes+int(header.BodyBytes)]) && !r.o.Faults.Has(engine.StaleRunAccepted) {
			if next == k {
				break
			}
			firsts[next] = &format.RunHeader{} // torn: no run
			continue
		}
		k, any = next, true
		r.addRun(lg, seg, &header, buf[format.HeaderBytes:format.HeaderBytes+int(header.BodyBytes)])
	}
	for i := k; i < len(lg.Segments); i++ {
		if err := r.scanAhead(lg, &lg.Segments[i], any); err != nil {
			return err
		}
	}
	return nil
}

// continues reports that a run follows what the log has.
func (r *recovery) continues(lg *recoveredLog, header *format.RunHeader) bool {
	return header.Batches > 0 && header.Base == lg.End && (header.Previous == lg.Chain || r.o.Faults.Has(engine.StaleRunAccepted))
}

// addRun adds a whole run, which is at the segment's position, to a log.
func (r *recovery) addRun(lg *recoveredLog, seg *format.SegmentRecord, header *format.RunHeader, body []byte) {
	if seg.Position == 0 {
		seg.Base = header.Base
	}
	seg.Position += int64(header.Bytes())
	seg.End, seg.Chain, seg.Bytes = header.End, header.CRC, max(seg.Bytes, r.openedBytes&^(format.BlockBytes-1))
	seg.MaxTime = max(seg.MaxTime, header.MaxTime)
	r.epochBegan(lg, header.Base)
	lg.claimedDurable = max(lg.claimedDurable, header.Durable)
	lg.Chain, lg.End = header.CRC, header.End
	if header.MaxTime > lg.MaxTime || lg.MaxTimeBase == format.NoOffset {
		lg.MaxTime, lg.MaxTimeBase = header.MaxTime, header.MaxTimeBase
	}
	for len(body) > 0 {
		var entry format.Entry
		if !entry.Get(body) || entry.Bytes() > len(body) {
			return // only with the fault StaleRunAccepted
		}
		r.keepHeader(lg, &entry, body)
		body = body[entry.Bytes():]
	}
}

// scanAhead looks for runs of the epoch before behind a segment's position, for the durable
// offsets that they claim. A log that wrote no direct run (any is false) and has
// nothing there is left alone: the journal has all of it.
func (r *recovery) scanAhead(lg *recoveredLog, seg *format.SegmentRecord, any bool) error {
	if there, err := r.openSegment(seg); err != nil || !there {
		return err
	}
	if buf, err := r.Read(r.First+slotSegment, seg.Position, format.BlockBytes); err != nil || !any && !slices.ContainsFunc(buf, func(b byte) bool { return b != 0 }) {
		return err
	}
	const step = bufferBytes
	reach := r.reach()
	for at, until := seg.Position, seg.Position+reach; at < min(until, r.openedBytes); at += step {
		buf, err := r.Read(r.First+slotSegment, at, int(min(step, until-at)))
		if err != nil {
			return err
		}
		for k := 0; k+format.BlockBytes <= len(buf); k += format.BlockBytes {
			var header format.RunHeader
			if what, ok := header.Parse(buf[k:]); ok && r.isOwn(lg, seg, &header) {
				if what != "" {
					return newer(r.PathOf(r.First+slotSegment), at+int64(k), what)
				}
				lg.claimedDurable = max(lg.claimedDurable, header.Durable)
				until = max(until, at+int64(k+header.Bytes())+reach)
			}
		}
	}
	return nil
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
	return header.Directory == r.old.Directory && header.Generation == seg.Generation && header.Log == lg.ID &&
		(header.Epoch == r.old.Epoch || r.o.Faults.Has(engine.StaleRunAccepted))
}

// openSegment opens a segment's file, unless it is open, and syncs it the first time: what
// can be read of it need not be durable. False: the file was removed.
func (r *recovery) openSegment(seg *format.SegmentRecord) (there bool, err error) {
	if r.opened != nil && r.opened.Generation == seg.Generation {
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
	r.opened = seg
	if !r.synced[seg.Generation] && !r.o.Faults.Has(engine.NoSyncAtOpen) {
		if err := r.Sync(slot); err != nil {
			return false, err
		}
		r.synced[seg.Generation] = true
	}
	r.openedBytes, err = r.Size(slot)
	return true, err
}

// closeSegment closes the file that openSegment opened.
func (r *recovery) closeSegment() {
	if r.opened != nil {
		r.Close(r.First + slotSegment)
		r.opened = nil
	}
}
