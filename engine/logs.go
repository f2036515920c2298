package engine

import (
	"github.com/tailbound/tailbound/engine/format"
)

// OpenLog makes a log. It is durable when the event Opened comes.
func (e *Engine) OpenLog(id uint64, user uint32) Status {
	if e.failed {
		return StorageFailed
	}
	if e.stopping {
		return WaitMemory
	}
	if _, ok := e.byID[id]; ok {
		return Unknown
	}
	if e.freeLog == none {
		return Full
	}
	if !e.entryFits(0) {
		e.stats.WaitMemory++
		return WaitMemory
	}
	s, _ := e.takeLog(id)
	l := &e.logs[s]
	l.state, l.user = logOpening, user
	e.putNote(format.Entry{Kind: format.EntryOpened, Log: id, Slot: uint32(s)})
	return OK
}

func (e *Engine) takeLog(id uint64) (Slot, bool) {
	i := e.freeLog
	if i == none {
		return 0, false
	}
	l := &e.logs[i]
	e.logsHigh = max(e.logsHigh, int(i)+1)
	e.freeLog = l.nextFree
	*l = log{id: id, first: none, last: none, taking: cursor{none, 0}, settling: cursor{none, 0}, runFirst: none, runLast: none, runSent: none, building: none, segments: none, tail: none, writing: none, filling: none,
		maxTime: format.NoTime, maxTimeBase: format.NoOffset, drainMax: format.NoTime, drainBase: format.NoOffset, rotFrom: format.NoOffset, rotTo: format.NoOffset}
	e.byID[id] = Slot(i)
	return Slot(i), true
}

func (e *Engine) open(l Slot) bool {
	return int(l) < len(e.logs) && e.logs[l].state == logOpen
}

// Lookup finds an open log.
func (e *Engine) Lookup(id uint64) (Slot, bool) {
	s, ok := e.byID[id]
	if ok && e.logs[s].state != logOpen {
		return 0, false
	}
	return s, ok
}

// Start is the log's first offset.
func (e *Engine) Start(l Slot) int64 { return e.logs[l].start }

// End is one past the last offset appended, Durable one past the last that is
// durable.
func (e *Engine) End(l Slot) int64 { return e.logs[l].end }

// Durable is one past the last offset on stable storage.
func (e *Engine) Durable(l Slot) int64 { return e.logs[l].durable }

// StartDurable is the log's first offset as it would be after a power cut now,
// at least.
func (e *Engine) StartDurable(s Slot) int64 { return e.logs[s].startDurable }

// MaxTime is the largest timestamp appended and an offset at or before its
// batch, at which to look for it; ts < 0 and base -1 when there is none.
func (e *Engine) MaxTime(l Slot) (ts, base int64) {
	x := &e.logs[l]
	if x.maxTimeBase == format.NoOffset {
		return -1, -1
	}
	if x.maxTimeBase < x.start {
		return e.maxTimeLeft(x)
	}
	return x.maxTime, x.maxTimeBase
}

// maxTimeLeft is MaxTime of a log whose newest record by time is before its
// start. Of a segment that the start cuts in two the time may be that of a
// record before it.
func (e *Engine) maxTimeLeft(l *log) (ts, base int64) {
	ts, base = -1, -1
	for g := l.segments; g != none; g = e.segments.all[g].next {
		if q := &e.segments.all[g]; q.position > 0 && q.end > l.start && q.maxTime > ts {
			ts, base = q.maxTime, max(q.seekTime(q.maxTime), l.start)
		}
	}
	for i := l.first; i != none; i = e.cache.chunks[i].next {
		c := &e.cache.chunks[i]
		for k := c.head; k < c.tail; k++ {
			if x := &c.nodes[k]; x.maxTime > ts && x.base+int64(x.count) > l.start {
				ts, base = x.maxTime, max(x.base, l.start)
			}
		}
	}
	return ts, base
}

func (l *log) addEpoch(x format.EpochStart) {
	if l.nEpochs == len(l.epochs) {
		copy(l.epochs[:], l.epochs[1:])
		l.nEpochs--
	}
	l.epochs[l.nEpochs] = x
	l.nEpochs++
}

// EpochAt is the largest epoch at or below epoch that has records, and where
// the next larger one begins (end for the last); -1, -1 when there is none.
func (e *Engine) EpochAt(l Slot, epoch int32, end int64) (epochFound int32, endOffset int64) {
	x := &e.logs[l]
	if epoch > int32(e.epoch) {
		return -1, -1
	}
	for i := x.nEpochs - 1; i >= 0; i-- {
		if x.epochs[i].Epoch <= epoch {
			if i+1 < x.nEpochs {
				return x.epochs[i].Epoch, x.epochs[i+1].Start
			}
			return x.epochs[i].Epoch, end
		}
	}
	return -1, -1
}

// EpochOf is the leader epoch of the record at offset; -1: not known.
func (e *Engine) EpochOf(l Slot, offset int64) int32 {
	x := &e.logs[l]
	for i := x.nEpochs - 1; i >= 0; i-- {
		if x.epochs[i].Start <= offset {
			return x.epochs[i].Epoch
		}
	}
	return -1
}

// rots says that the record at offset is known to be lost on disk.
func (l *log) rots(offset int64) bool {
	return l.rotFrom != format.NoOffset && offset >= l.rotFrom && offset < l.rotTo
}

// Rotten is the range of records of log l, from to to - 1, that were
// acknowledged and are lost: opening found so, or a cold read did.
func (e *Engine) Rotten(l Slot) (from, to int64, rotten bool) {
	x := &e.logs[l]
	return x.rotFrom, x.rotTo, x.rotFrom != format.NoOffset
}

// DeleteLog ends a log. It is gone when the event Deleted comes; its files
// are removed later.
func (e *Engine) DeleteLog(s Slot, user uint32) Status {
	if e.failed {
		return StorageFailed
	}
	if !e.open(s) {
		return Unknown
	}
	if !e.entryFits(0) {
		e.stats.WaitMemory++
		return WaitMemory
	}
	l := &e.logs[s]
	l.state, l.user = logClosing, user
	e.putNote(format.Entry{Kind: format.EntryClosed, Log: l.id, Slot: uint32(s), Base: l.end})
	return OK
}

// logClosed: the end of a log is durable.
func (e *Engine) logClosed(s Slot) {
	l := &e.logs[s]
	e.tell(Event{Kind: Deleted, User: l.user, Slot: s})
	l.state = logGone
	e.finishClosing(l)
}

// finishClosing lets what a log that is gone holds in the journal and in memory
// go, at once: its own segment's entry may wait for that room. It gives the
// slot back when nothing of the log is in flight.
func (e *Engine) finishClosing(l *log) {
	if l.state != logGone || l.runsFlying > 0 || l.runFirst != none && e.failed {
		return
	}
	for l.runFirst != none { // none was sent
		e.dropRun(l, l.runFirst)
	}
	e.letNodesGo(l.taking, l.end)
	e.dropNodes(l)
	e.undurable -= l.undurable
	l.undurable = 0
	l.taken, l.drained = l.end, l.end
	e.changes++
	if !l.told || l.working || l.queued {
		return
	}
	for g := l.segments; g != none; {
		next := e.segments.all[g].next
		e.removeSegment(g)
		g = next
	}
	s := e.byID[l.id]
	delete(e.byID, l.id)
	*l = log{nextFree: e.freeLog, first: none, last: none}
	e.freeLog = int32(s)
	e.changes++
}
