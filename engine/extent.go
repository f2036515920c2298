package engine

import (
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// extents are the parts of segments that are being built and written. On disk an
// extent is a run (format.RunHeader). There are two sorts: one of a flush copies what
// the journal has; a direct one holds what nothing else on disk has, and its batches
// are acknowledged from it. A direct extent's life, as the function it stands for:
//
//	build(batches, in a slab); [flush what the journal has before them]; await write+sync(); await the extents before it; durable
//
// Several extents of a log are written at a time, each at the position it will have.
// They complete in any order, and count in the order of their offsets.
type extents struct {
	env            *env
	pool           []extent
	free           int32
	fresh          mem.Fresh
	used           int
	inFlight       int     // in flight, or waiting for their file
	places         []place // where direct extents are built
	directBytesMax int     // bound of a direct extent that is not one larger batch: a quarter of a slab at most, so that little of a slab is wasted
	directLogs     int     // logs with direct extents that are not durable
	directSlots    [directLogsMax]Slot
	contention     directContention
	uncovered      int64 // bytes of extents that are in no checkpoint: the next start reads them
}

// extent is a part of a segment that is being built or written.
//
// Invariant: a log's extents are in its list in the order of their offsets; those
// that were sent are before those that were not.
type extent struct {
	state   extentState
	opened  bool // its file is pinned
	next    int32
	log     Slot
	segment int32
	buffer  int32     // of flush; none: it is direct
	slab    int32     // a direct extent: where it is built
	pos     int       // in the slab
	extra   int64     // room in the segment for its header and padding, besides its entries
	block   mem.Block // what is written
	bytes   int       // of its entries
	from    cursor    // its first batch
	header  format.RunHeader
	sentAt  ioring.Instant
	io      writeSync
}

// extentState is the life of an extent. One of a flush begins as extentSealed.
type extentState uint8

const (
	extentUnused   extentState = iota
	extentBuilding             // a direct one that batches are added to
	extentSealed               // it takes no more, and waits to be sent
	extentSent                 // it has its position and header, and is written or waits for its file
	extentDone                 // written and synced; an extent before it is not
	extentBroken               // its write or sync failed, which ended the shard
)

const (
	// directLogsMax bounds how many logs write directly at a time: each needs syncs
	// of its own file, and each sync takes a worker thread of the kernel.
	directLogsMax = 128
	// extentOverhead bounds what an extent takes besides its entries.
	extentOverhead = format.HeaderBytes + format.BlockBytes
)

// direct reports that the extent is no copy of what the journal has.
func (x *extent) direct() bool { return x.buffer == none }

// kind is the extent's kind of disk work.
func (x *extent) kind() Work {
	if x.direct() {
		return WorkDirect
	}
	return WorkFlushes
}

// timing is when the extent was written.
func (x *extent) timing() writeTiming { return writeTiming{x.sentAt, x.io.written, x.block.Len()} }

// allocate makes an extent for every flush, and for direct ones as many as fill log memory
// with extents of Options.DirectBytes, within bounds.
func (x *extents) allocate(arena *mem.Arena) (err error) {
	x.directBytesMax = max(format.FlushBytesMax, min(format.RunBytesMax, x.env.o.slabBytes()/4))
	n := flushesMax
	if x.env.o.DirectBytes > 0 {
		n += min(max(x.env.o.LogMemoryBytes/x.env.o.DirectBytes, 64), 4096)
	}
	var region *mem.Region
	x.pool, region, err = mem.MapTable[extent](arena, "runs under way", n)
	x.fresh, x.free = mem.FreshOf(x.pool, region)
	return err
}

// allocatePlaces makes one place for every eight slabs, so that few slabs are half
// full.
func (x *extents) allocatePlaces(slabs int) {
	x.places = make([]place, max(1, min(directLogsMax, slabs/8)))
	for i := range x.places {
		x.places[i] = place{none, none}
	}
}

// add makes the first free extent a log's: in its list, behind the extents that were
// sent, or at the end where it is direct.
func (x *extents) add(logs *logTable, ext extent) int32 {
	i, lg := x.free, &logs.all[ext.log]
	x.free = x.fresh.Take(i, x.pool[i].next)
	x.used++
	after := lg.sentExtent
	if ext.direct() {
		after = lg.lastExtent
	}
	if after == none {
		ext.next, lg.firstExtent = lg.firstExtent, i
	} else {
		ext.next, x.pool[after].next = x.pool[after].next, i
	}
	if ext.next == none {
		lg.lastExtent = i
	}
	x.pool[i] = ext
	return i
}

// release frees an extent that is in no list any more.
func (x *extents) release(segments *segments, flush *flush, lg *log, i int32) {
	ext := &x.pool[i]
	if ext.direct() {
		segments.all[ext.segment].extra -= ext.extra
		lg.directExtents--
		if lg.directExtents == 0 {
			x.directLogs--
			for k := range x.directLogs {
				if x.directSlots[k] == ext.log {
					x.directSlots[k] = x.directSlots[x.directLogs]
				}
			}
		}
	} else {
		flush.extentOf[ext.buffer] = none
		flush.busy--
	}
	*ext = extent{next: x.free}
	x.free = i
	x.used--
}

// drop frees a direct extent that was not sent.
func (x *extents) drop(segments *segments, flush *flush, lg *log, i int32) {
	if lg.building == i {
		x.leavePlace(lg)
	}
	before := none
	for k := lg.firstExtent; k != i; k = x.pool[k].next {
		before = k
	}
	if before == none {
		lg.firstExtent = x.pool[i].next
	} else {
		x.pool[before].next = x.pool[i].next
	}
	if lg.lastExtent == i {
		lg.lastExtent = before
	}
	x.release(segments, flush, lg, i)
}

// sendExtent sends its log's next extent: it gets its position in the segment and its
// header, and its write is started.
func (e *Engine) sendExtent(i int32, sleep *ioring.Instant) {
	ext := &e.extents.pool[i]
	lg, seg := &e.logs.all[ext.log], &e.segments.all[ext.segment]
	header := &ext.header
	header.Log, header.Generation, header.Durable = lg.id, seg.generation, lg.durable
	buf := ext.block.Bytes()
	if !ext.direct() {
		clear(buf[format.HeaderBytes+ext.bytes : format.AlignBlock(format.HeaderBytes+ext.bytes)])
		ext.block = ext.block.Slice(0, format.AlignBlock(format.HeaderBytes+ext.bytes))
	}
	header.Header = e.header(buf[format.HeaderBytes:format.HeaderBytes+ext.bytes], lg.chainSent)
	header.Put(buf)
	e.batches.at(&lg.flushCursor)
	ext.from = lg.flushCursor
	for cur := &lg.flushCursor; ; cur.at++ {
		if batch := e.batches.at(cur); batch == nil || batch.base >= header.End {
			break
		}
	}
	lg.flushing = header.End
	ext.state, ext.sentAt = extentSent, e.now
	ext.io.begin(0, seg.nextPosition, ext.block)
	seg.nextPosition += int64(ext.block.Len())
	seg.extentsInFlight++
	seg.sent += int64(ext.bytes)
	lg.chainSent, lg.sentExtent = header.CRC, i
	lg.extentsInFlight++
	e.extents.inFlight++
	e.stats.Runs++
	e.stats.RunBytes += uint64(ext.block.Len())
	if ext.direct() {
		e.stats.DirectRuns++
		e.stats.DirectBytes += uint64(ext.block.Len())
	}
	e.disk.begin(ext.kind(), ext.block.Len())
	e.appendedAt = e.now
	e.pushExtent(i, sleep)
}

// pushExtent starts what is left of an extent's write and sync, once its file is open.
func (e *Engine) pushExtent(i int32, sleep *ioring.Instant) {
	ext := &e.extents.pool[i]
	if !ext.opened {
		file, pending, errno := e.files.acquire(&e.segments.all[ext.segment], false, sleep)
		if errno != 0 {
			ext.io.errno, ext.io.failed = errno, ioring.Open
			e.extentOver(i)
			return
		}
		if pending {
			return
		}
		ext.opened, ext.io.file = true, file
	}
	if !ext.io.push(e.ring, kindExtent, uint32(i)) {
		earlier(sleep, e.now)
	}
}

// extentCompleted takes the completion of an extent's write or sync.
func (e *Engine) extentCompleted(index uint32, completion ioring.Completion) {
	if e.extents.pool[index>>1].io.complete(index&1 != 0, completion.Result, e.now) {
		e.extentOver(int32(index >> 1))
	}
}

// extentOver goes on where an extent is written and synced, or has failed.
func (e *Engine) extentOver(i int32) {
	ext := &e.extents.pool[i]
	lg, seg, at := &e.logs.all[ext.log], &e.segments.all[ext.segment], ext.timing()
	if ext.opened {
		e.files.unpin(seg)
		ext.opened = false
	}
	seg.extentsInFlight--
	lg.extentsInFlight--
	e.extents.inFlight--
	e.disk.end(ext.kind(), ext.block.Len())
	e.progress++
	if ext.io.errno != 0 {
		e.extentFailed(i)
		return
	}
	ext.state = extentDone
	if e.o.Faults.Has(RunAckedAlone) && ext.direct() && !e.failed && lg.state != logDeleted {
		lg.durable = max(lg.durable, ext.header.End)
		e.notifyDurable(lg, at)
	}
	e.extentsDurable(lg)
	if lg.state == logDeleted {
		e.finishDeletion(lg)
		return
	}
	if !e.failed {
		e.advanceDurable(lg, at)
	}
	if lg.flushing < lg.end {
		e.flush.enqueue(lg)
	}
}

// extentsDurable makes a log's extents durable that are written and synced, in order.
func (e *Engine) extentsDurable(lg *log) {
	for i := lg.firstExtent; i != none && e.extents.pool[i].state == extentDone; i = lg.firstExtent {
		if e.failed && e.extents.pool[i].header.End > lg.durable {
			return // after a failure of the shard nothing becomes durable
		}
		e.extentDurable(lg, i)
	}
}

// extentDurable counts an extent as a part of its segment: it is durable, and so is
// every extent of its log before it. What it holds is flushed.
func (e *Engine) extentDurable(lg *log, i int32) {
	ext := &e.extents.pool[i]
	seg, header := &e.segments.all[ext.segment], &ext.header
	if seg.position == 0 {
		seg.base = header.Base
	}
	seg.addIndexEntry(format.IndexEntry{Base: header.Base, Position: seg.position, Before: seg.maxTime})
	seg.position += int64(ext.block.Len())
	seg.pending -= int64(ext.bytes)
	seg.sent -= int64(ext.bytes)
	e.extents.uncovered += int64(ext.block.Len())
	seg.end, seg.chain = header.End, header.CRC
	seg.extents++
	seg.maxTime = max(seg.maxTime, header.MaxTime)
	if seg.unchecked = seg.unchecked || !header.TimesChecked; seg.unchecked {
		seg.writtenAt = max(e.now, 1)
	}
	lg.chain, lg.flushed = header.CRC, header.End
	if header.MaxTime > lg.flushedMaxTime || lg.flushedMaxTimeBase == format.NoOffset {
		lg.flushedMaxTime, lg.flushedMaxTimeBase = header.MaxTime, header.MaxTimeBase
	}
	e.batches.release(&e.cache, &e.journal, ext.from, header.End)
	if ext.segment != lg.writing {
		e.index.writeDue(seg)
	}
	lg.firstExtent = ext.next
	if lg.sentExtent == i {
		lg.sentExtent = none
	}
	if lg.lastExtent == i {
		lg.lastExtent = none
	}
	e.extents.release(&e.segments, &e.flush, lg, i)
	if first := &e.segments.all[lg.firstSegment]; first.number != lg.writing && first.end <= lg.startDurable {
		e.removeBeforeStart(lg)
	}
}

// extentFailed handles a failed write or sync. A flush is repeated, in another segment,
// as the journal still has its batches. A direct extent is in no other place, and an
// extent behind a flush has its position already: then the failure ends the shard.
func (e *Engine) extentFailed(i int32) {
	ext := &e.extents.pool[i]
	lg := &e.logs.all[ext.log]
	alone := lg.firstExtent == i && ext.next == none && !ext.direct()
	if !alone && lg.state != logDeleted {
		ext.state = extentBroken
		e.fail(e.extents.failureOf(&e.segments, ext))
		return
	}
	if !alone {
		ext.state = extentDone // its log is deleted
		e.extentsDurable(lg)
		e.finishDeletion(lg)
		return
	}
	if !spaceShort(ext.io.failed, ext.io.errno) {
		e.survived(e.extents.failureOf(&e.segments, ext))
	}
	lg.flushCursor, lg.flushing, lg.chainSent = ext.from, lg.flushed, lg.chain
	lg.unflushed += int64(ext.bytes)
	e.segments.all[ext.segment].broken = true
	e.segments.all[ext.segment].sent -= int64(ext.bytes)
	e.stats.DrainRetries++
	e.flush.retryAfter = e.now + retryNS/10
	lg.firstExtent, lg.lastExtent, lg.sentExtent = none, none, none
	e.extents.release(&e.segments, &e.flush, lg, i)
	if lg.state == logDeleted {
		e.finishDeletion(lg)
		return
	}
	e.flush.enqueue(lg)
}

// failureOf is what an extent failed with, and the records that it held.
func (x *extents) failureOf(segments *segments, ext *extent) Failure {
	failure := ext.io.failure(SegmentFile)
	if failure.Op == ioring.Open {
		failure.Offset, failure.Length = 0, 0
	}
	failure.Generation = segments.all[ext.segment].generation
	failure.Log, failure.From, failure.To = ext.header.Log, ext.header.Base, ext.header.End
	return failure
}
