package engine

import "github.com/tailbound/tailbound/engine/format"

// A log whose owner rewrites it has its next segment kept ready, so that it can be
// rewritten on a disk that is full by then. From then on it takes no new space, however
// often it is rewritten:
//
//	KeepNext()
//	for {
//		await NextHolds(); RollSegment(); append(what the log says, in less); TruncateBefore()
//		await the old segment before the durable start; its file becomes the next segment
//	}

// KeepNext has a log's next segment made now, with room for n entry bytes, and kept until
// RollSegment. It is called again to have that tried again, or made larger. OK: the segment
// is there.
func (e *Engine) KeepNext(slot Slot, n int64) Status {
	if !e.logs.isOpen(slot) {
		return Unknown
	}
	lg := &e.logs.all[slot]
	lg.keptNext = n
	e.removeBeforeStart(lg) // what the life before has left
	return e.keepNext(lg)
}

// keepNext makes or grows the next segment of a log that is to have one.
func (e *Engine) keepNext(lg *log) Status {
	seg := e.segments.at(lg.active)
	if seg == nil {
		return NoSpace // the first append has the first segment made
	}
	next := e.segments.at(seg.next)
	need := min(format.RoomFor(lg.keptNext), e.segmentLimit(lg))
	switch {
	case next == nil && e.inherits(lg):
		return e.waitForRoom()
	case next == nil:
		return e.requestSegment(lg, lg.keptNext)
	case !next.ready:
		return e.waitForRoom()
	case next.broken:
		return NoSpace
	case next.allocated < need:
		return e.requestGrowth(lg, next, need, 0)
	}
	e.recycled.dropHeld(&e.segments, lg)
	return OK
}

// Spread reports that a log's records are in more than one segment.
func (e *Engine) Spread(slot Slot) bool {
	lg := &e.logs.all[slot]
	return e.logs.isOpen(slot) && lg.firstSegment != lg.writing
}

// NextHolds reports that a log can roll to its next segment at once, and that n entry bytes
// find room there.
func (e *Engine) NextHolds(slot Slot, n int64) bool {
	lg := &e.logs.all[slot]
	if !e.logs.isOpen(slot) || lg.active == none || lg.active != lg.writing {
		return false
	}
	seg := &e.segments.all[lg.active]
	next := e.segments.at(seg.next)
	return next != nil && next.ready && !next.broken && !seg.broken && seg.position+seg.pending > 0 && format.RoomFor(n) <= next.allocated
}

// NextComing reports that a log gets its next segment without new space, or can soon be
// rolled to it.
func (e *Engine) NextComing(slot Slot) bool {
	lg := &e.logs.all[slot]
	if !e.logs.isOpen(slot) || lg.keptNext == 0 || lg.active == none || e.failed {
		return false
	}
	if e.segments.all[lg.active].next != none {
		return lg.provisioning || lg.active != lg.writing
	}
	if e.inherits(lg) {
		lg.catchingUp = true // it is flushed at once; Reserve ends that
		e.flush.enqueue(lg)
		return true
	}
	return lg.provisioning || e.recycled.heldFor(&e.segments, lg, 0) >= 0
}

// inherits reports that a log's first segment is going to be its next one: it is before
// the start, and removed once what lies behind is flushed and the start durable.
func (e *Engine) inherits(lg *log) bool {
	if first := &e.segments.all[lg.firstSegment]; first.number != lg.active && e.segments.all[first.next].base <= lg.start {
		return e.handsDown(lg, first)
	}
	for _, number := range e.segments.unlinks {
		if seg := &e.segments.all[number]; seg.handedDown && seg.log == lg.slot {
			return true
		}
	}
	return false
}

// handsDown reports that the file of a segment, once removed, is to become the log's next
// segment, as the log is to have one. It is kept too while another file is being made for
// that, which may fail. A file that is much larger than needed is not: its room is worth
// more to others.
func (e *Engine) handsDown(lg *log, seg *segment) bool {
	if lg.keptNext == 0 || lg.active == none || seg.broken || seg.allocated > 4*max(format.RoomFor(lg.keptNext), growBytesMin) {
		return false
	}
	next := e.segments.at(e.segments.all[lg.active].next)
	return next == nil || !next.ready
}
