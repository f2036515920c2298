package engine

import (
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// flush copies what is durable in the journal to the segments, in the
// background, from memory. Each is a run (see runs), built in a buffer of its
// own because its batches lie in many frames.
type flush struct {
	env         *env
	buffers     [flushesMax]mem.Block
	extentOf    [flushesMax]int32 // the run that each is; none
	busy        int
	queue       []int32 // a circle of logs that have something undrained
	queueHead   int
	queueLength int
	retryAfter  ioring.Instant // after a failure
}

const (
	largeFlushes = 2  // of any size
	smallFlushes = 14 // besides, of logs that have little
	flushesMax   = largeFlushes + smallFlushes

	// smallDrainBytes holds the run of a log that has little.
	smallFlushBytes = 32 << 10

	// idleDrainNS is how long a batch stays in the journal alone where nothing
	// presses.
	idleFlushNS = 1e9
)

// looksPerStep bounds how many logs one step looks at.
const logsPerFlushStep = 32

func (f *flush) allocate(arena *mem.Arena) (err error) {
	f.queue = make([]int32, f.env.o.LogsMax)
	for i := range f.buffers {
		f.extentOf[i] = none
		what, n := "run buffers", f.env.o.RunBufferBytes()
		if i >= largeFlushes {
			what, n = "small run buffers", smallFlushBytes
		}
		if f.buffers[i], err = arena.Allocate(what, n, format.BlockBytes); err != nil {
			return err
		}
	}
	return nil
}

func (f *flush) enqueue(lg *log) {
	if lg.flushQueued {
		return
	}
	lg.flushQueued = true
	f.queue[(f.queueHead+f.queueLength)%len(f.queue)] = int32(lg.slot)
	f.queueLength++
}

func (e *Engine) stepFlush(sleep *ioring.Instant) {
	if e.stopped {
		return
	}
	if e.now < e.flush.retryAfter {
		earlier(sleep, e.flush.retryAfter)
		return
	}
	if e.journal.memoryShort && e.cache.reusable() > len(e.cache.slabs)/2 {
		e.journal.memoryShort = false
	}
	urgent := e.stopping || e.journal.memoryShort || e.journal.full || e.journal.usedBlocks > e.journal.blocks/2 || e.cache.reusable() < len(e.cache.slabs)/2
	most := e.flush.allowed(&e.journal)
	looks := min(e.flush.queueLength, logsPerFlushStep)
	if looks < e.flush.queueLength {
		earlier(sleep, e.now+10e6)
	}
	for ; looks > 0 && e.flush.busy < most; looks-- {
		lg := &e.logs.all[e.flush.queue[e.flush.queueHead]]
		if e.flush.freeBuffer(lg) == none {
			break // nobody goes before it: the journal is freed from the oldest on
		}
		e.flush.queueHead = (e.flush.queueHead + 1) % len(e.flush.queue)
		e.flush.queueLength--
		lg.flushQueued = false
		if lg.state == logDeleted {
			e.finishDeletion(lg)
			continue
		}
		if lg.state != logOpen && lg.state != logDeleting || lg.flushing >= lg.end || lg.firstExtent != none {
			continue // a run that ends puts its log back
		}
		due := lg.oldestUnflushed + idleFlushNS
		if lg.flushing < lg.durable && (urgent || lg.catchingUp || lg.unflushed >= format.FlushBytesMax || e.now >= due) {
			if e.startFlush(lg, lg.durable, sleep) {
				continue
			}
			earlier(sleep, e.now+5e6)
		} else if lg.flushing < lg.durable {
			earlier(sleep, due)
		}
		e.flush.enqueue(lg)
	}
	if e.flush.queueLength > 0 && urgent && e.flush.busy < most {
		earlier(sleep, e.now+1e6)
	}
}

// drainsNow is how many drains may be under way. Each syncs a file of its own, as
// do the frames that somebody waits for: there are the more of them the more of
// the journal only drains can free.
func (f *flush) allowed(journal *journal) int {
	if journal.memoryShort || f.env.stopping {
		return flushesMax
	}
	quarter := journal.blocks / 4
	over := journal.usedBlocks - journal.blocksBefore(journal.replayFrom()) - 2*quarter
	return largeFlushes + int(smallFlushes*min(max(over, 0), quarter)/quarter)
}

// drainBuffer is a free buffer for the next run of l: a small one where that
// holds all there is. none: there is none.
func (f *flush) freeBuffer(lg *log) int32 {
	if format.HeaderBytes+lg.unflushed <= smallFlushBytes {
		for i := largeFlushes; i < flushesMax; i++ {
			if f.extentOf[i] == none {
				return int32(i)
			}
		}
	}
	for i := range largeFlushes {
		if f.extentOf[i] == none {
			return int32(i)
		}
	}
	return none
}

// startDrain builds the next run of log s, of batches that end at limit or
// before, and starts it. Before a direct run they need not be durable yet.
// False: not now.
func (e *Engine) startFlush(lg *log, limit int64, sleep *ioring.Instant) bool {
	batch := e.batches.at(&lg.flushCursor)
	if batch == nil {
		panic("engine: undrained batches are not in memory")
	}
	alone := lg.firstExtent == none
	if seg := &e.segments.all[lg.writing]; seg.broken && alone {
		return e.moveToNextSegment(lg)
	}
	if lg.active != lg.writing && batch.base >= e.segments.all[lg.active].base {
		e.segments.writesTo(&e.index, lg, &e.segments.all[lg.active])
	}
	seg := &e.segments.all[lg.writing]
	buffer := e.flush.freeBuffer(lg)
	if buffer == none || e.extents.free == none {
		return false
	}
	buf := e.flush.buffers[buffer].Bytes()
	header := format.RunHeader{Base: batch.base, MaxTime: format.NoTime}
	at := format.HeaderBytes
	cur := lg.flushCursor
	for ; batch != nil && batch.seq != 0; batch = e.batches.at(&cur) {
		size := format.EntryHeaderBytes + format.Align8(int(batch.length))
		if batch.base+int64(batch.count) > limit || header.Batches > 0 && at+size > format.FlushBytesMax || lg.active != lg.writing && batch.base >= e.segments.all[lg.active].base {
			break
		}
		slab := &e.cache.slabs[batch.slab]
		copy(buf[at:], slab.block.Bytes()[batch.pos:int(batch.pos)+size])
		header.Add(batch.base, batch.count, batch.maxTime)
		at += size
		cur.at++
	}
	if header.Batches == 0 {
		return false
	}
	bytes := at - format.HeaderBytes
	length := format.AlignBlock(at)
	if rest := seg.pending - seg.sent - int64(bytes); rest > 0 && seg.nextPosition+int64(length)+format.RoomFor(rest) > seg.allocated || seg.nextPosition+int64(length) > seg.allocated {
		e.requestGrowth(lg, seg, seg.nextPosition+int64(length)+format.RoomFor(rest))
		if seg.nextPosition+int64(length) > seg.allocated {
			return false
		}
	}
	i := e.extents.add(&e.logs, extent{state: extentSealed, log: lg.slot, segment: lg.writing, buffer: buffer, block: e.flush.buffers[buffer], bytes: bytes, header: header})
	e.flush.extentOf[buffer] = i
	e.flush.busy++
	lg.unflushed -= int64(bytes)
	e.sendExtent(i, sleep)
	return true
}

// replaceSegment moves what is pending from a broken segment to the next one.
func (e *Engine) moveToNextSegment(lg *log) bool {
	seg := &e.segments.all[lg.writing]
	if seg.next == none {
		e.requestSegment(lg, seg.pending)
		return false
	}
	next := &e.segments.all[seg.next]
	if !next.ready {
		return false
	}
	next.pending += seg.pending
	seg.pending = 0
	next.base, next.end = lg.flushed, lg.flushed
	lg.active, lg.writing = seg.next, seg.next
	return false
}
