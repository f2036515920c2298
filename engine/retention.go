package engine

import (
	"github.com/tailbound/tailbound/engine/format"
)

// What retention needs: how large a log's segments get, which of them may go,
// and the start that moves past them. The rules are the caller's; here is what
// the log knows. A segment goes in this order:
//
//	RetentionStart(); TruncateBefore(); await its entry durable; await its readers; unlink()

// SetSegmentBytes bounds the log's segments to n bytes, where that is less than
// the shard's own. One larger batch still finds a place.
func (e *Engine) SetSegmentBytes(slot Slot, n int64) { e.logs.all[slot].segmentBytes = n }

// ActiveSegment is the segment that takes the log's appends: its first offset, its
// bytes, and the largest time in it that is drained; no bytes where there is
// none yet.
func (e *Engine) ActiveSegment(slot Slot) (base, bytes, maxTime int64) {
	lg := &e.logs.all[slot]
	if !e.logs.isOpen(slot) || lg.active == none {
		return 0, 0, format.NoTime
	}
	seg := &e.segments.all[lg.active]
	return seg.base, seg.position + seg.pending, seg.maxTime
}

// RollSegment has the next append begin a new segment.
func (e *Engine) RollSegment(slot Slot) {
	if lg := &e.logs.all[slot]; e.logs.isOpen(slot) && lg.active != none {
		e.segments.all[lg.active].sealed = true
	}
}

// Bytes is what the log's records take in its segments, what is still to be
// drained to them included.
func (e *Engine) Bytes(slot Slot) (n int64) {
	if !e.logs.isOpen(slot) {
		return 0
	}
	for seg := e.segments.at(e.logs.all[slot].firstSegment); seg != nil; seg = e.segments.at(seg.next) {
		n += seg.position + seg.pending
	}
	return n
}

// RetentionStart is where the log would start without its oldest segments: those whose
// every record has a time before olderThan, milliseconds, and those without
// which the log still has bytesMax bytes; a negative bytesMax is no bound. A
// segment without a time does not age. One that still takes something is left.
func (e *Engine) RetentionStart(slot Slot, olderThan, bytesMax int64) (start int64) {
	if !e.logs.isOpen(slot) {
		return 0
	}
	lg := &e.logs.all[slot]
	start = lg.start
	left := int64(0)
	if bytesMax >= 0 {
		left = e.Bytes(slot) // else the walk ends at the first segment that stays
	}
	for seg := e.segments.at(lg.firstSegment); seg != nil; seg = e.segments.at(seg.next) {
		if !seg.ready || seg.pending > 0 {
			break
		}
		if seg.position == 0 {
			continue
		}
		left -= seg.position
		old := seg.maxTime >= 0 && seg.maxTime < olderThan
		if seg.end > lg.start && !old && (bytesMax < 0 || left < bytesMax) {
			break
		}
		start = max(start, seg.end)
	}
	return start
}

// TruncateBefore moves the log's start up to start, at most to what is
// durable. It takes effect at once and is durable when StartDurable says so. WaitMemory: it
// had no room for the entry, and nothing was done.
func (e *Engine) TruncateBefore(slot Slot, start int64, user uint32) Status {
	if e.failed {
		return StorageFailed
	}
	if !e.logs.isOpen(slot) {
		return Unknown
	}
	lg := &e.logs.all[slot]
	start = min(start, lg.durable)
	if start <= lg.start {
		return OK
	}
	if !e.openFrameFor(0) {
		e.stats.WaitMemory++
		return WaitMemory
	}
	lg.start = start
	e.stats.Truncated++
	e.journal.appendControl(&e.cache, format.Entry{Kind: format.EntryStartMoved, Log: lg.id, Slot: uint32(slot), Base: start})
	return OK
}

// startMoved: the new start is durable; files wholly before it may go.
func (e *Engine) startMoved(lg *log, start int64) {
	lg.startDurable = max(lg.startDurable, start)
	e.notifyReaders(lg)
	for seg := e.segments.at(lg.firstSegment); seg != nil && seg.number != lg.writing && seg.ready && seg.extentsInFlight == 0 && seg.end <= start; seg = e.segments.at(lg.firstSegment) {
		lg.firstSegment = seg.next
		e.segments.remove(&e.index, seg)
	}
}

// DropEmpty lets go of the only segment of a log in which nothing is left. The
// next append has another made, and waits for it.
func (e *Engine) DropEmpty(slot Slot) {
	lg := &e.logs.all[slot]
	if !e.logs.isOpen(slot) || lg.startDurable < lg.end || lg.flushed < lg.end || lg.firstExtent != none || lg.provisioning || e.reserved.active {
		return
	}
	seg := e.segments.at(lg.firstSegment)
	if seg == nil || seg.number != lg.active || seg.number != lg.writing || seg.next != none || !seg.ready || seg.position == 0 {
		return
	}
	lg.firstSegment, lg.lastSegment, lg.active, lg.writing = none, none, none, none
	e.segments.remove(&e.index, seg)
}
