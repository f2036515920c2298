package recovery

import (
	"slices"

	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
)

// flush writes to a log's segments the entries that only the journal has. What is on disk
// there is overwritten: it was not acknowledged. syncLog syncs it.
func (r *recovery) flush(lg *recoveredLog) error {
	if err := r.writeFills(lg); err != nil {
		return err
	}
	lg.gaps = nil // segments are dropped from here on
	lg.dropBeforeStart()
	if len(lg.entries) == 0 {
		lg.End = lg.accepted
		return r.dropMissing(lg)
	}
	target := lg.lastWritten()
	for len(lg.entries) > 0 {
		seg, err := r.segmentFor(lg, &target, runBytes(lg.entries[:1]), runBytes(lg.entries[:runLength(lg.entries, format.FlushBytesMax)]))
		if err != nil {
			return err
		}
		n := runLength(lg.entries, int(min(format.FlushBytesMax, r.openedBytes-seg.Position)))
		if err := r.appendRun(lg, seg, &fill{bytes: runBytes(lg.entries[:n]), entries: lg.entries[:n]}); err != nil {
			return err
		}
		lg.entries = lg.entries[n:]
	}
	lg.entries, lg.End = nil, lg.accepted // behind the last record there may be a hole
	return nil
}

// runLength is how many of the entries make a run of at most most bytes, which has no gap; it is
// one at least.
func runLength(entries []replayedEntry, most int) int {
	n, bytes := 0, format.HeaderBytes
	for n < len(entries) && (n == 0 || entries[n].Base == entries[n-1].end() && format.AlignBlock(bytes+len(entries[n].bytes)) <= most) {
		bytes += len(entries[n].bytes)
		n++
	}
	return n
}

// runBytes is what entries take as a run.
func runBytes(entries []replayedEntry) int64 {
	bytes := format.HeaderBytes
	for i := range entries {
		bytes += len(entries[i].bytes)
	}
	return int64(format.AlignBlock(bytes))
}

// dropBeforeStart drops the entries and segments that are wholly before the log's start.
// The last segment with records stays if entries follow: it may have room for them.
func (l *recoveredLog) dropBeforeStart() {
	for len(l.entries) > 0 && l.entries[0].Base+int64(l.entries[0].Count) <= l.Start {
		l.End = l.entries[0].Base + int64(l.entries[0].Count)
		l.entries = l.entries[1:]
	}
	kept := l.Segments[:0]
	for i, seg := range l.Segments {
		last := !slices.ContainsFunc(l.Segments[i+1:], func(seg format.SegmentRecord) bool { return seg.Position > 0 })
		if seg.Position > 0 && seg.End <= l.Start && !(last && len(l.entries) > 0) {
			continue
		}
		kept = append(kept, seg)
	}
	l.Segments = kept
}

// segmentFor is the segment for a log's next run, with room for least bytes and its file open:
// that with the index target, one behind it, or the last one, which is grown to have room
// for want.
//
// What a batch was admitted to has room for it, so no segment is grown where each is filled
// to its end before the next one: a start on a full disk could not grow any.
func (r *recovery) segmentFor(lg *recoveredLog, target *int, least, want int64) (*format.SegmentRecord, error) {
	for {
		if err := r.openTarget(lg, *target); err != nil {
			return nil, err
		}
		seg := &lg.Segments[*target]
		if seg.Position+least > r.openedBytes {
			if *target+1 < len(lg.Segments) {
				*target++
				continue
			}
			if err := r.Allocate(r.First+slotSegment, r.openedBytes, seg.Position+want-r.openedBytes); err != nil {
				return nil, err
			}
			r.openedBytes = seg.Position + want
		}
		seg.Bytes = r.openedBytes &^ (format.BlockBytes - 1)
		return seg, nil
	}
}

// openTarget opens the file of the segment with the index target. A segment whose file is gone
// is dropped if it can have held only records before the start; where no segment is left,
// one is made.
func (r *recovery) openTarget(lg *recoveredLog, target int) error {
	for {
		if target >= len(lg.Segments) {
			// The entry that assigned it was in a broken frame, or its file is gone.
			seg, err := r.newSegment(lg)
			if err != nil {
				return err
			}
			lg.Segments = append(lg.Segments, seg)
		}
		seg := &lg.Segments[target]
		there, err := r.openSegment(seg)
		if err != nil || there {
			return err
		}
		// The epoch before removed it, after it was filled with records that are
		// before the start now.
		if seg.Position > 0 && seg.End > lg.Start {
			return ioring.MissingFile(format.SegmentPath(seg.Generation))
		}
		lg.Segments = slices.Delete(lg.Segments, target, target+1)
	}
}

// dropMissing drops segments whose files the epoch before removed: all that they held came
// after the checkpoint and is before the start.
func (r *recovery) dropMissing(lg *recoveredLog) error {
	kept := lg.Segments[:0]
	for _, seg := range lg.Segments {
		if seg.Position == 0 {
			there, err := r.openSegment(&seg)
			if err != nil {
				return err
			}
			if !there {
				continue
			}
		}
		kept = append(kept, seg)
	}
	lg.Segments = kept
	return nil
}

// newSegment makes a segment for entries that have none. A start that is interrupted and
// run again makes the same one.
func (r *recovery) newSegment(lg *recoveredLog) (seg format.SegmentRecord, err error) {
	r.segmentsMade++
	seg = format.SegmentRecord{Generation: uint64(r.old.Epoch)<<32 | format.RecoveryShard<<24 | r.segmentsMade, Base: lg.End, End: lg.End, MaxTime: format.NoTime, Chain: lg.Chain}
	path, slot := format.SegmentPath(seg.Generation), r.First+slotSegment
	r.closeSegment()
	if _, err := r.Open(slot, path, ioring.OpenCreate); err != nil {
		return seg, err
	}
	r.Close(slot)
	r.note("log %d: %s was made for what the journal holds of it", lg.ID, path)
	return seg, r.SyncDirectory("segments")
}

// putRun writes a run into a segment, whose file is open, at its place.
func (r *recovery) putRun(lg *recoveredLog, seg *format.SegmentRecord, run *fill, previous uint32) (format.RunHeader, error) {
	buf := r.Buffer()[:run.bytes]
	header := format.RunHeader{Log: lg.ID, Generation: seg.Generation, Base: run.entries[0].Base, MaxTime: format.NoTime, Durable: run.entries[0].Base}
	at := format.HeaderBytes
	for i := range run.entries {
		entry := &run.entries[i]
		at += copy(buf[at:], entry.bytes)
		batch := entry.bytes[format.EntryHeaderBytes : format.EntryHeaderBytes+int(entry.Length)]
		header.Add(entry.Base, entry.Count, entry.MaxTime, r.o.TimesChecked != nil && r.o.TimesChecked(batch, entry.MaxTime))
	}
	clear(buf[:format.HeaderBytes])
	clear(buf[at:])
	body := buf[format.HeaderBytes:at]
	header.Header = format.Header{Directory: r.old.Directory, Epoch: r.old.Epoch, BodyBytes: uint32(len(body)), BodyCRC: format.CRC(body), Previous: previous}
	header.Put(buf)
	return header, r.WriteBuffer(r.First+slotSegment, run.at, len(buf))
}

// appendRun writes a run behind those that a segment has.
func (r *recovery) appendRun(lg *recoveredLog, seg *format.SegmentRecord, run *fill) error {
	run.at = seg.Position
	header, err := r.putRun(lg, seg, run, lg.Chain)
	if err != nil {
		return err
	}
	lg.extend(seg, &header)
	return nil
}
