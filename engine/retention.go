package engine

import (
	"github.com/tailbound/tailbound/engine/format"
)

// What retention needs: how large a log's segments get, which of them may go,
// and the start that moves past them. The rules are the caller's; here is what
// the log knows. A segment goes in this order:
//
//	Expired(); TruncateBefore(); await its entry durable; await its readers; unlink()

// SetSegmentBytes bounds the log's segments to n bytes, where that is less than
// the shard's own. One larger batch still finds a place.
func (e *Engine) SetSegmentBytes(s Slot, n int64) { e.logs[s].segmentBytes = n }

// Filling is the segment that takes the log's appends: its first offset, its
// bytes, and the largest time in it that is drained; no bytes where there is
// none yet.
func (e *Engine) Filling(s Slot) (base, bytes, maxTime int64) {
	l := &e.logs[s]
	if !e.open(s) || l.filling == none {
		return 0, 0, format.NoTime
	}
	q := &e.segments.all[l.filling]
	return q.base, q.position + q.pending, q.maxTime
}

// Seal has the next append begin a new segment.
func (e *Engine) Seal(s Slot) {
	if l := &e.logs[s]; e.open(s) && l.filling != none {
		e.segments.all[l.filling].sealed = true
	}
}

// Bytes is what the log's records take in its segments, what is still to be
// drained to them included.
func (e *Engine) Bytes(s Slot) (n int64) {
	if !e.open(s) {
		return 0
	}
	for g := e.logs[s].segments; g != none; g = e.segments.all[g].next {
		n += e.segments.all[g].position + e.segments.all[g].pending
	}
	return n
}

// Expired is where the log would start without its oldest segments: those whose
// every record has a time before olderThan, milliseconds, and those without
// which the log still has bytesMax bytes; a negative bytesMax is no bound. A
// segment without a time does not age. One that still takes something is left.
func (e *Engine) Expired(s Slot, olderThan, bytesMax int64) (start int64) {
	if !e.open(s) {
		return 0
	}
	l := &e.logs[s]
	start = l.start
	left := int64(0)
	if bytesMax >= 0 {
		left = e.Bytes(s) // else the walk ends at the first segment that stays
	}
	for g := l.segments; g != none; g = e.segments.all[g].next {
		q := &e.segments.all[g]
		if !q.ready || q.pending > 0 {
			break
		}
		if q.position == 0 {
			continue
		}
		left -= q.position
		old := q.maxTime >= 0 && q.maxTime < olderThan
		if q.end > l.start && !old && (bytesMax < 0 || left < bytesMax) {
			break
		}
		start = max(start, q.end)
	}
	return start
}

// TruncateBefore moves the log's start up to start, at most to what is
// durable. It takes effect at once and is durable when StartDurable says so. WaitMemory: it
// had no room for the entry, and nothing was done.
func (e *Engine) TruncateBefore(s Slot, start int64, user uint32) Status {
	if e.failed {
		return StorageFailed
	}
	if !e.open(s) {
		return Unknown
	}
	l := &e.logs[s]
	start = min(start, l.durable)
	if start <= l.start {
		return OK
	}
	if !e.entryFits(0) {
		e.stats.WaitMemory++
		return WaitMemory
	}
	l.start = start
	e.stats.Truncated++
	e.putNote(format.Entry{Kind: format.EntryStartMoved, Log: l.id, Slot: uint32(s), Base: start})
	return OK
}

// startMoved: the new start is durable; files wholly before it may go.
func (e *Engine) startMoved(s Slot, start int64) {
	l := &e.logs[s]
	l.startDurable = max(l.startDurable, start)
	if !l.dirty && l.state == logOpen {
		l.dirty = true
		e.tell(Event{Kind: Durable, Slot: s})
	}
	for g := l.segments; g != none && g != l.writing && e.segments.all[g].ready && e.segments.all[g].flying == 0 && e.segments.all[g].end <= start; g = l.segments {
		l.segments = e.segments.all[g].next
		e.removeSegment(g)
	}
}

// Release lets go of the only segment of a log in which nothing is left. The
// next append has another made, and waits for it.
func (e *Engine) Release(s Slot) {
	l := &e.logs[s]
	if !e.open(s) || l.startDurable < l.end || l.drained < l.end || l.runFirst != none || l.working || e.cache.reserved.active {
		return
	}
	g := l.segments
	if g == none || g != l.filling || g != l.writing || e.segments.all[g].next != none || !e.segments.all[g].ready || e.segments.all[g].position == 0 {
		return
	}
	l.segments, l.tail, l.filling, l.writing = none, none, none, none
	e.removeSegment(g)
}
