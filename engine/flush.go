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
	buffers    [drainsMax]mem.Block
	lent       [drainsMax]int32 // the run that each is; none
	drainsBusy int
	queue      []int32 // a circle of logs that have something undrained
	queueAt    int
	queueN     int
	drainAfter ioring.Instant // after a failure
}

const (
	largeDrains = 2  // of any size
	smallDrains = 14 // besides, of logs that have little
	drainsMax   = largeDrains + smallDrains

	// smallDrainBytes holds the run of a log that has little.
	smallDrainBytes = 32 << 10

	// idleDrainNS is how long a batch stays in the journal alone where nothing
	// presses.
	idleDrainNS = 1e9
)

// looksPerStep bounds how many logs one step looks at.
const looksPerStep = 32

func (e *Engine) carveDrains(arena *mem.Arena) (err error) {
	e.flush.queue = make([]int32, e.o.LogsMax)
	for i := range e.flush.buffers {
		e.flush.lent[i] = none
		what, n := "run buffers", e.o.RunBufferBytes()
		if i >= largeDrains {
			what, n = "small run buffers", smallDrainBytes
		}
		if e.flush.buffers[i], err = arena.Allocate(what, n, format.BlockBytes); err != nil {
			return err
		}
	}
	return e.carveRuns()
}

func (e *Engine) queueDrain(slot int32) {
	lg := &e.logs[slot]
	if lg.queued {
		return
	}
	lg.queued = true
	e.flush.queue[(e.flush.queueAt+e.flush.queueN)%len(e.flush.queue)] = slot
	e.flush.queueN++
}

func (e *Engine) stepDrains(sleep *ioring.Instant) {
	if e.stopped {
		return
	}
	if e.now < e.flush.drainAfter {
		earlier(sleep, e.flush.drainAfter)
		return
	}
	if e.journal.pressed && e.slabsFree() > len(e.cache.slabs)/2 {
		e.journal.pressed = false
	}
	urgent := e.stopping || e.journal.pressed || e.journal.journalFull || e.journal.used > e.journal.blocks/2 || e.slabsFree() < len(e.cache.slabs)/2
	most := e.drainsNow()
	looks := min(e.flush.queueN, looksPerStep)
	if looks < e.flush.queueN {
		earlier(sleep, e.now+10e6)
	}
	for ; looks > 0 && e.flush.drainsBusy < most; looks-- {
		slot := e.flush.queue[e.flush.queueAt]
		lg := &e.logs[slot]
		if e.drainBuffer(lg) == none {
			break // nobody goes before it: the journal is freed from the oldest on
		}
		e.flush.queueAt = (e.flush.queueAt + 1) % len(e.flush.queue)
		e.flush.queueN--
		lg.queued = false
		if lg.state == logGone {
			e.finishClosing(lg)
			continue
		}
		if lg.state != logOpen && lg.state != logClosing || lg.taken >= lg.end || lg.runFirst != none {
			continue // a run that ends puts its log back
		}
		due := lg.oldest + idleDrainNS
		if lg.taken < lg.durable && (urgent || lg.catching || lg.undrained >= format.FlushBytesMax || e.now >= due) {
			if e.startDrain(Slot(slot), lg.durable, sleep) {
				continue
			}
			earlier(sleep, e.now+5e6)
		} else if lg.taken < lg.durable {
			earlier(sleep, due)
		}
		e.queueDrain(slot)
	}
	if e.flush.queueN > 0 && urgent && e.flush.drainsBusy < most {
		earlier(sleep, e.now+1e6)
	}
}

// drainsNow is how many drains may be under way. Each syncs a file of its own, as
// do the frames that somebody waits for: there are the more of them the more of
// the journal only drains can free.
func (e *Engine) drainsNow() int {
	if e.journal.pressed || e.stopping {
		return drainsMax
	}
	quarter := e.journal.blocks / 4
	over := e.journal.used - e.blocksBefore(e.replayFrom()) - 2*quarter
	return largeDrains + int(smallDrains*min(max(over, 0), quarter)/quarter)
}

// drainBuffer is a free buffer for the next run of l: a small one where that
// holds all there is. none: there is none.
func (e *Engine) drainBuffer(lg *log) int32 {
	if format.HeaderBytes+lg.undrained <= smallDrainBytes {
		for i := largeDrains; i < drainsMax; i++ {
			if e.flush.lent[i] == none {
				return int32(i)
			}
		}
	}
	for i := range largeDrains {
		if e.flush.lent[i] == none {
			return int32(i)
		}
	}
	return none
}

// startDrain builds the next run of log s, of batches that end at limit or
// before, and starts it. Before a direct run they need not be durable yet.
// False: not now.
func (e *Engine) startDrain(slot Slot, limit int64, sleep *ioring.Instant) bool {
	lg := &e.logs[slot]
	batch := e.at(&lg.taking)
	if batch == nil {
		panic("engine: undrained batches are not in memory")
	}
	alone := lg.runFirst == none
	if seg := &e.segments.all[lg.writing]; seg.broken && alone {
		return e.replaceSegment(slot)
	}
	if lg.filling != lg.writing && batch.base >= e.segments.all[lg.filling].base {
		e.writesTo(lg, lg.filling)
	}
	seg := &e.segments.all[lg.writing]
	buffer := e.drainBuffer(lg)
	if buffer == none || e.extents.runFree == none {
		return false
	}
	buf := e.flush.buffers[buffer].Bytes()
	header := format.RunHeader{Base: batch.base, MaxTime: format.NoTime}
	at := format.HeaderBytes
	cur := lg.taking
	for ; batch != nil && batch.seq != 0; batch = e.at(&cur) {
		size := format.EntryHeaderBytes + format.Align8(int(batch.length))
		if batch.base+int64(batch.count) > limit || header.Batches > 0 && at+size > format.FlushBytesMax || lg.filling != lg.writing && batch.base >= e.segments.all[lg.filling].base {
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
	if rest := seg.pending - seg.sent - int64(bytes); rest > 0 && seg.next0+int64(length)+format.RoomFor(rest) > seg.bytes || seg.next0+int64(length) > seg.bytes {
		e.wantRoom(slot, lg.writing, seg.next0+int64(length)+format.RoomFor(rest))
		if seg.next0+int64(length) > seg.bytes {
			return false
		}
	}
	i := e.takeRun(run{state: runSealed, log: slot, segment: lg.writing, buffer: buffer, block: e.flush.buffers[buffer], bytes: bytes, header: header})
	e.flush.lent[buffer] = i
	e.flush.drainsBusy++
	lg.undrained -= int64(bytes)
	e.sendRun(i, sleep)
	return true
}

// replaceSegment moves what is pending from a broken segment to the next one.
func (e *Engine) replaceSegment(slot Slot) bool {
	lg := &e.logs[slot]
	seg := &e.segments.all[lg.writing]
	if seg.next == none {
		e.wantSegment(slot, seg.pending)
		return false
	}
	next := &e.segments.all[seg.next]
	if !next.ready {
		return false
	}
	next.pending += seg.pending
	seg.pending = 0
	next.base, next.end = lg.drained, lg.drained
	lg.filling, lg.writing = seg.next, seg.next
	return false
}
