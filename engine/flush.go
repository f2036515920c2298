package engine

import (
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// flush copies what is durable in the journal from memory to segments, in the
// background, so that the journal's blocks can be reused. One flush, as the function
// it stands for:
//
//	await due or urgent; copy(batches, buffer); send(extent); await write+sync(); flushed advances
//
// An extent of a flush is built in a buffer, as its batches lie in many frames.
//
// Invariant: a log is in the queue at most once (log.flushQueued), and has one flush
// at a time unless a direct extent of it waits.
type flush struct {
	env         *env
	buffers     [flushesMax]mem.Block
	extentOf    [flushesMax]int32 // the extent that is in each buffer; none
	busy        int               // buffers in use
	queue       []int32           // logs with unflushed batches: a circle
	queueHead   int
	queueLength int
	retryAfter  ioring.Instant // no flush is begun before, after a failure
}

const (
	// Buffers for flushes of any size, and for small ones. With ten thousand logs the
	// journal is freed by many small flushes, each with a sync of its own file
	// (docs/decisions/0018-many-logs.md).
	largeFlushes    = 2
	smallFlushes    = 14
	flushesMax      = largeFlushes + smallFlushes
	smallFlushBytes = 32 << 10

	// idleFlushNS is how long a batch may wait for a flush that is not urgent.
	idleFlushNS = 1e9

	logsPerFlushStep = 32 // how many logs one step looks at
)

// How long a step sleeps that cannot go on, in nanoseconds. What it waits for does not
// call it: room in a segment, a buffer, or the rest of the queue's turn.
const (
	flushMoreNS   = 10e6 // the queue is longer than logsPerFlushStep
	flushRoomNS   = 5e6  // a log's flush found no room, buffer or extent
	flushUrgentNS = 1e6  // the flush is urgent
)

// allocate makes the queue, with room for every log, and the buffers.
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

// enqueue has the step look at a log.
func (f *flush) enqueue(lg *log) {
	if lg.flushQueued {
		return
	}
	lg.flushQueued = true
	f.queue[(f.queueHead+f.queueLength)%len(f.queue)] = int32(lg.slot)
	f.queueLength++
}

// stepFlush starts flushes of the logs in the queue, in its order, while as many are
// allowed. It is urgent to flush when a stop, memory or the journal waits for it;
// otherwise a log is flushed when it has enough, or after idleFlushNS.
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
		earlier(sleep, e.now+flushMoreNS)
	}
	for ; looks > 0 && e.flush.busy < most; looks-- {
		lg := &e.logs.all[e.flush.queue[e.flush.queueHead]]
		if e.flush.freeBuffer(lg) == none {
			break // no log goes before it: the journal is freed from the oldest frame on
		}
		e.flush.queueHead = (e.flush.queueHead + 1) % len(e.flush.queue)
		e.flush.queueLength--
		lg.flushQueued = false
		if lg.state == logDeleted {
			e.finishDeletion(lg)
			continue
		}
		if lg.state != logOpen && lg.state != logDeleting || lg.flushing >= lg.end || lg.firstExtent != none {
			continue // its extent puts the log back when it ends
		}
		due := lg.oldestUnflushed + idleFlushNS
		if lg.flushing < lg.durable && (urgent || lg.catchingUp || lg.unflushed >= format.FlushBytesMax || e.now >= due) {
			if e.startFlush(lg, lg.durable, sleep) {
				continue
			}
			earlier(sleep, e.now+flushRoomNS)
		} else if lg.flushing < lg.durable {
			earlier(sleep, due)
		}
		e.flush.enqueue(lg)
	}
	if e.flush.queueLength > 0 && urgent && e.flush.busy < most {
		earlier(sleep, e.now+flushUrgentNS)
	}
}

// allowed is how many flushes may be under way: the more, the more of the journal
// only flushes can free. Each is a sync of a file, which delays the syncs of the frames
// that producers wait for.
func (f *flush) allowed(journal *journal) int {
	if journal.memoryShort || f.env.stopping {
		return flushesMax
	}
	quarter := journal.blocks / 4
	over := journal.usedBlocks - journal.blocksBefore(journal.replayFrom()) - 2*quarter
	return largeFlushes + int(smallFlushes*min(max(over, 0), quarter)/quarter)
}

// freeBuffer is a free buffer for a log's next flush: a small one where that holds all
// there is of it. none: there is none.
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

// startFlush builds an extent of a log's oldest unflushed batches, those that end at
// limit or before, and sends it. Before a direct extent they need not be durable yet.
// False: it cannot be started now.
func (e *Engine) startFlush(lg *log, limit int64, sleep *ioring.Instant) bool {
	batch := e.batches.at(&lg.flushCursor)
	if batch == nil {
		panic("engine: unflushed batches are not in memory")
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
		full := header.Batches > 0 && at+size > format.FlushBytesMax
		if full || batch.base+int64(batch.count) > limit || lg.active != lg.writing && batch.base >= e.segments.all[lg.active].base {
			break // what follows is not durable, or is for the next extent or segment
		}
		slab := &e.cache.slabs[batch.slab]
		copy(buf[at:], slab.block.Bytes()[batch.pos:int(batch.pos)+size])
		header.Add(batch.base, batch.count, batch.maxTime, batch.timesChecked)
		at += size
		cur.at++
	}
	if header.Batches == 0 {
		return false
	}
	bytes := at - format.HeaderBytes
	length := format.AlignBlock(at)
	end := seg.nextPosition + int64(length)
	rest := seg.pending - seg.sent - int64(bytes) // is admitted to the segment too
	if end > seg.allocated || rest > 0 && end+format.RoomFor(rest) > seg.allocated {
		e.requestGrowth(lg, seg, end+format.RoomFor(rest), rest)
		if end > seg.allocated {
			return false
		}
	}
	i := e.extents.add(&e.logs, extent{state: extentSealed, log: lg.slot, segment: lg.writing,
		buffer: buffer, block: e.flush.buffers[buffer], bytes: bytes, header: header})
	e.flush.extentOf[buffer] = i
	e.flush.busy++
	lg.unflushed -= int64(bytes)
	e.sendExtent(i, sleep)
	return true
}
