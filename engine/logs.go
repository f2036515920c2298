package engine

import (
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/mem"
)

// OpenLog makes a log. It is durable, and open, when the event Opened comes.
func (e *Engine) OpenLog(id uint64, user uint32) Status {
	if e.failed {
		return StorageFailed
	}
	if e.stopping {
		return WaitMemory
	}
	if _, ok := e.logs.byID[id]; ok {
		return Unknown
	}
	if e.logs.free == none {
		return Full
	}
	if !e.openFrameFor(0) {
		e.stats.WaitMemory++
		return WaitMemory
	}
	slot, _ := e.logs.add(id)
	lg := &e.logs.all[slot]
	lg.state, lg.user = logOpening, user
	e.journal.appendControl(&e.cache, format.Entry{Kind: format.EntryOpened, Log: id, Slot: uint32(slot)})
	return OK
}

// allocate makes the table, all slots free.
func (t *logTable) allocate(arena *mem.Arena, logsMax int) (err error) {
	var region *mem.Region
	t.all, region, err = mem.MapTable[log](arena, "logs", logsMax)
	t.byID = make(map[uint64]Slot, logsMax)
	t.fresh, t.free = mem.FreshOf(t.all, region)
	if err != nil {
		return err
	}
	return t.holes.allocate(arena, logsMax)
}

// add takes a free slot for a log. False: there is none.
func (t *logTable) add(id uint64) (Slot, bool) {
	i := t.free
	if i == none {
		return 0, false
	}
	lg := &t.all[i]
	t.used = max(t.used, int(i)+1)
	t.free = t.fresh.Take(i, lg.nextFree)
	*lg = log{id: id, slot: Slot(i),
		maxTime: format.NoTime, maxTimeBase: format.NoOffset, flushedMaxTime: format.NoTime, flushedMaxTimeBase: format.NoOffset,
		firstChunk: none, lastChunk: none, flushCursor: cursor{none, 0}, durableCursor: cursor{none, 0},
		firstSegment: none, lastSegment: none, writing: none, active: none,
		firstExtent: none, lastExtent: none, sentExtent: none, building: none, firstHole: none}
	t.byID[id] = Slot(i)
	return Slot(i), true
}

// isOpen reports that there is an open log in a slot.
func (t *logTable) isOpen(slot Slot) bool {
	return int(slot) < len(t.all) && t.all[slot].state == logOpen
}

// Lookup finds an open log.
func (e *Engine) Lookup(id uint64) (Slot, bool) {
	slot, ok := e.logs.byID[id]
	if ok && e.logs.all[slot].state != logOpen {
		return 0, false
	}
	return slot, ok
}

// Start is the log's first offset.
func (e *Engine) Start(slot Slot) int64 { return e.logs.all[slot].start }

// End is one past the last offset appended: the log end offset.
func (e *Engine) End(slot Slot) int64 { return e.logs.all[slot].end }

// Durable is one past the last offset on stable storage. It never decreases.
func (e *Engine) Durable(slot Slot) int64 { return e.logs.all[slot].durable }

// StartDurable is what Start would at least be after a power cut now.
func (e *Engine) StartDurable(slot Slot) int64 { return e.logs.all[slot].startDurable }

// MaxTime is an upper bound of the timestamps of the records from the log's start up to
// offset to, and an offset at or before the batch that has it, where it is one. There is
// none: ts < 0 and base -1.
func (e *Engine) MaxTime(slot Slot, to int64) (ts, base int64) {
	lg := &e.logs.all[slot]
	if lg.maxTimeBase >= lg.start && lg.maxTimeBase < to && lg.maxTime >= 0 {
		return lg.maxTime, lg.maxTimeBase
	}
	return lg.maxTimeLeft(&e.segments, &e.batches, to)
}

// maxTimeLeft is MaxTime where the batch with the largest timestamp was deleted, or is not
// to be seen yet: it looks at all that is left. Of a segment that the start cuts in two
// the time may be that of a record before the start.
func (l *log) maxTimeLeft(segments *segments, batches *batches, to int64) (ts, base int64) {
	ts, base = -1, -1
	for seg := segments.at(l.firstSegment); seg != nil; seg = segments.at(seg.next) {
		if seg.position > 0 && seg.end > l.start && seg.maxTime > ts {
			ts, base = seg.maxTime, max(seg.seekTime(seg.maxTime), l.start)
		}
	}
	for i := l.firstChunk; i != none; i = batches.chunks[i].next {
		chunk := &batches.chunks[i]
		for k := chunk.head; k < chunk.tail; k++ {
			batch := &chunk.batches[k]
			if batch.maxTime > ts && batch.base >= l.flushed && batch.base+int64(batch.count) > l.start && batch.base < to {
				ts, base = batch.maxTime, max(batch.base, l.start)
			}
		}
	}
	return ts, base
}

// addEpoch adds a leader epoch, and drops the oldest one where there are too many.
func (l *log) addEpoch(epoch format.EpochStart) {
	if l.nEpochs == len(l.epochs) {
		copy(l.epochs[:], l.epochs[1:])
		l.nEpochs--
	}
	l.epochs[l.nEpochs] = epoch
	l.nEpochs++
}

// EpochEnd is where the records of a leader epoch end, and the leader epoch that this is
// the end of, as Kafka's LeaderEpochFileCache.endOffsetFor has it. Kafka knows a log's
// epochs that have records at or past its start, and the present one, which begins at the
// end of what earlier ones appended. The answers:
//
//	the present epoch                      it, end
//	-1, or one that is yet to come         -1, -1
//	one that is known                      it, the start of the next known one
//	one between two that are known         the earlier of these, the start of the later
//	one before all that are known          it, the start of the first known one
//
// The first known one starts at the log's start at least. Its records may follow those of
// an epoch that was dropped for format.EpochsMax: whoever read those is told an end at or
// past them.
func (e *Engine) EpochEnd(slot Slot, epoch int32, end int64) (found int32, endOffset int64) {
	lg := &e.logs.all[slot]
	later := format.EpochStart{Epoch: int32(e.epoch), Start: lg.end}
	switch {
	case epoch == later.Epoch:
		return epoch, end
	case epoch == -1 || epoch > later.Epoch:
		return -1, -1
	}
	for i := lg.nEpochs - 1; i >= 0 && later.Start > lg.start; i-- {
		if lg.epochs[i].Epoch <= epoch {
			return lg.epochs[i].Epoch, later.Start
		}
		later = lg.epochs[i]
	}
	if e.o.Faults.Has(EpochsForgotten) {
		return -1, -1
	}
	return epoch, max(later.Start, lg.start)
}

// EpochOf is the leader epoch of the record at offset, at the log's end that of the next
// one; -1 if it is not known any more.
func (e *Engine) EpochOf(slot Slot, offset int64) int32 {
	lg := &e.logs.all[slot]
	if offset >= lg.end {
		return int32(e.epoch)
	}
	for i := lg.nEpochs - 1; i >= 0; i-- {
		if lg.epochs[i].Start <= offset {
			return lg.epochs[i].Epoch
		}
	}
	return -1
}

// DeleteLog deletes a log. The deletion is durable when the event Deleted comes; the
// log's files are removed after that.
func (e *Engine) DeleteLog(slot Slot, user uint32) Status {
	if e.failed {
		return StorageFailed
	}
	if !e.logs.isOpen(slot) {
		return Unknown
	}
	if e.stopping {
		return WaitMemory
	}
	if !e.openFrameFor(0) {
		e.stats.WaitMemory++
		return WaitMemory
	}
	lg := &e.logs.all[slot]
	lg.state, lg.user = logDeleting, user
	e.journal.appendControl(&e.cache, format.Entry{Kind: format.EntryClosed, Log: lg.id, Slot: uint32(slot), Base: lg.end})
	return OK
}

// deletionDurable: the journal says durably that a log is deleted.
func (e *Engine) deletionDurable(lg *log) {
	e.emit(Event{Kind: Deleted, User: lg.user, Slot: lg.slot})
	lg.state = logDeleted
	e.finishDeletion(lg)
}

// finishDeletion frees a deleted log's journal space and memory immediately, as the
// entry of a segment being made for it may wait for that room, and its slot once
// nothing of it is in flight. It is called each time something of the log ends.
func (e *Engine) finishDeletion(lg *log) {
	if lg.state != logDeleted || lg.extentsInFlight > 0 || lg.firstExtent != none && e.failed {
		return
	}
	for lg.firstExtent != none { // none was sent
		e.extents.drop(&e.segments, &e.flush, lg, lg.firstExtent)
	}
	e.batches.release(&e.cache, &e.journal, lg.flushCursor, lg.end)
	e.batches.drop(lg)
	e.unsynced -= lg.unsynced
	lg.unsynced = 0
	lg.flushing, lg.flushed = lg.end, lg.end
	e.progress++
	if !lg.deletedDelivered || lg.provisioning || lg.flushQueued {
		return
	}
	for seg := e.segments.at(lg.firstSegment); seg != nil; {
		next := e.segments.at(seg.next)
		e.segments.remove(&e.index, seg)
		seg = next
	}
	e.logs.holes.drop(lg)
	slot := lg.slot
	delete(e.logs.byID, lg.id)
	*lg = log{nextFree: e.logs.free, firstChunk: none, lastChunk: none, firstHole: none}
	e.logs.free = int32(slot)
	e.progress++
}
