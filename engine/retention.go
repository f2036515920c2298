package engine

import (
	"github.com/tailbound/tailbound/engine/format"
)

// Retention. The caller has the rules (ages, sizes); the engine knows how large and
// how old segments are, and moves a log's start. A segment is removed in this order:
//
//	RetentionStart(); TruncateBefore(); await its entry durable; await its readers; unlink()

// SetSegmentBytes bounds a log's segments to n bytes, if that is less than
// Options.SegmentBytes. A single larger batch makes a larger segment.
func (e *Engine) SetSegmentBytes(slot Slot, n int64) { e.logs.all[slot].segmentBytes = n }

// ActiveSegment is the segment that takes a log's appends: its first offset, its bytes,
// and the largest timestamp in it that is flushed. There is none yet: no bytes.
func (e *Engine) ActiveSegment(slot Slot) (base, bytes, maxTime int64) {
	lg := &e.logs.all[slot]
	if !e.logs.isOpen(slot) || lg.active == none {
		return 0, 0, format.NoTime
	}
	seg := &e.segments.all[lg.active]
	return seg.base, seg.position + seg.pending, seg.maxTime
}

// RollSegment has a log's next append begin a new segment.
func (e *Engine) RollSegment(slot Slot) {
	if lg := &e.logs.all[slot]; e.logs.isOpen(slot) && lg.active != none {
		e.segments.all[lg.active].sealed = true
	}
}

// Bytes is what a log's records take in its segments, those that are not flushed yet
// included.
func (e *Engine) Bytes(slot Slot) (n int64) {
	if !e.logs.isOpen(slot) {
		return 0
	}
	for seg := e.segments.at(e.logs.all[slot].firstSegment); seg != nil; seg = e.segments.at(seg.next) {
		n += seg.position + seg.pending
	}
	return n
}

// Limits are what a log may keep.
type Limits struct {
	ByAge     bool
	Now       int64 // with ByAge: the time, in milliseconds since 1970
	OlderThan int64 // with ByAge: what is older than this time goes
	BytesMax  int64 // negative: no bound
}

// RetentionStart is where a log would start without its oldest segments: those that are
// too old, and those without which the log still has BytesMax bytes. One that still takes
// batches stays. unknown: the age of a segment is being found out, and it stays until then.
func (e *Engine) RetentionStart(slot Slot, limits Limits) (start int64, unknown bool) {
	if !e.logs.isOpen(slot) {
		return 0, false
	}
	lg := &e.logs.all[slot]
	start = lg.start
	left := int64(0)
	if limits.BytesMax >= 0 {
		left = e.Bytes(slot)
	}
	for seg := e.segments.at(lg.firstSegment); seg != nil; seg = e.segments.at(seg.next) {
		if !seg.ready || seg.pending > 0 {
			break
		}
		if seg.position == 0 {
			continue
		}
		left -= seg.position
		if seg.end > lg.start && (limits.BytesMax < 0 || left < limits.BytesMax) {
			var old bool
			if old, unknown = e.isOld(seg, &limits); !old {
				break
			}
		}
		start = max(start, seg.end)
	}
	return start, unknown
}

// aheadMS is how far the largest timestamp of a segment may be ahead of the clock and
// still be believed unseen: clocks differ by less.
const aheadMS = 60_000

// isOld reports that a segment is too old. unknown: it is of an earlier life, its
// timestamps would make it old or cannot be true, and it is looked at first.
func (e *Engine) isOld(seg *segment, limits *Limits) (old, unknown bool) {
	if !limits.ByAge {
		return false, false
	}
	known := seg.ageKnown || seg.writtenAt > 0 || e.o.Faults.Has(TimesTrusted)
	if !known && (seg.maxTime < limits.OlderThan || seg.maxTime > limits.Now+aheadMS) {
		e.ages.request(seg)
		return false, true
	}
	age := seg.maxTime
	switch {
	case e.o.Faults.Has(TimesTrusted):
	case seg.writtenAt > 0:
		age = limits.Now - int64(e.now-seg.writtenAt)/1e6
	case seg.unchecked:
		age = seg.modified
	}
	return age < limits.OlderThan, false
}

// TruncateBefore moves a log's start up to start, or to the durable offset if that is
// lower. It takes effect for readers at once, and is durable when StartDurable says so.
// WaitMemory: there was no room for its entry, and nothing was done.
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
	if e.stopping {
		return WaitMemory
	}
	if !e.openFrameFor(0) {
		e.stats.WaitMemory++
		return WaitMemory
	}
	lg.start = start
	if e.o.Faults.Has(HolesPassedEarly) {
		e.logs.holes.passed(lg, start)
	}
	e.stats.Truncated++
	e.journal.appendControl(&e.cache, format.Entry{Kind: format.EntryStartMoved, Log: lg.id, Slot: uint32(slot), Base: start})
	return OK
}

// startMoved says that a new start is durable: segments wholly before it are removed.
func (e *Engine) startMoved(lg *log, start int64) {
	lg.startDurable = max(lg.startDurable, start)
	if e.logs.holes.passed(lg, lg.startDurable) && lg.state == logOpen {
		e.emit(Event{Kind: HolesPassed, Slot: lg.slot})
	}
	e.notifyReaders(lg)
	e.removeBeforeStart(lg)
}

// removeBeforeStart removes the segments that are wholly before the log's durable start. One
// that is still written to is removed when an extent behind it is durable.
func (e *Engine) removeBeforeStart(lg *log) {
	for seg := e.segments.at(lg.firstSegment); seg != nil; seg = e.segments.at(lg.firstSegment) {
		if seg.number == lg.writing || !seg.ready || seg.extentsInFlight > 0 || seg.end > lg.startDurable {
			return
		}
		lg.firstSegment = seg.next
		seg.handedDown = e.handsDown(lg, seg)
		e.segments.remove(&e.index, seg)
	}
}

// DropEmpty removes the only segment of a log that has no records. The next append waits
// until another one is made.
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
