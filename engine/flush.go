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

func (e *Engine) carveDrains(a *mem.Arena) (err error) {
	e.flush.queue = make([]int32, e.o.LogsMax)
	for i := range e.flush.buffers {
		e.flush.lent[i] = none
		what, n := "run buffers", e.o.RunBufferBytes()
		if i >= largeDrains {
			what, n = "small run buffers", smallDrainBytes
		}
		if e.flush.buffers[i], err = a.Allocate(what, n, format.BlockBytes); err != nil {
			return err
		}
	}
	return e.carveRuns()
}

func (e *Engine) queueDrain(s int32) {
	l := &e.logs[s]
	if l.queued {
		return
	}
	l.queued = true
	e.flush.queue[(e.flush.queueAt+e.flush.queueN)%len(e.flush.queue)] = s
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
		s := e.flush.queue[e.flush.queueAt]
		l := &e.logs[s]
		if e.drainBuffer(l) == none {
			break // nobody goes before it: the journal is freed from the oldest on
		}
		e.flush.queueAt = (e.flush.queueAt + 1) % len(e.flush.queue)
		e.flush.queueN--
		l.queued = false
		if l.state == logGone {
			e.finishClosing(l)
			continue
		}
		if l.state != logOpen && l.state != logClosing || l.taken >= l.end || l.runFirst != none {
			continue // a run that ends puts its log back
		}
		due := l.oldest + idleDrainNS
		if l.taken < l.durable && (urgent || l.catching || l.undrained >= format.FlushBytesMax || e.now >= due) {
			if e.startDrain(Slot(s), l.durable, sleep) {
				continue
			}
			earlier(sleep, e.now+5e6)
		} else if l.taken < l.durable {
			earlier(sleep, due)
		}
		e.queueDrain(s)
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
func (e *Engine) drainBuffer(l *log) int32 {
	if format.HeaderBytes+l.undrained <= smallDrainBytes {
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
func (e *Engine) startDrain(s Slot, limit int64, sleep *ioring.Instant) bool {
	l := &e.logs[s]
	n := e.at(&l.taking)
	if n == nil {
		panic("engine: undrained batches are not in memory")
	}
	alone := l.runFirst == none
	if q := &e.segments.all[l.writing]; q.broken && alone {
		return e.replaceSegment(s)
	}
	if l.filling != l.writing && n.base >= e.segments.all[l.filling].base {
		e.writesTo(l, l.filling)
	}
	q := &e.segments.all[l.writing]
	buffer := e.drainBuffer(l)
	if buffer == none || e.extents.runFree == none {
		return false
	}
	p := e.flush.buffers[buffer].Bytes()
	h := format.RunHeader{Base: n.base, MaxTime: format.NoTime}
	at := format.HeaderBytes
	c := l.taking
	for ; n != nil && n.seq != 0; n = e.at(&c) {
		size := format.EntryHeaderBytes + format.Align8(int(n.length))
		if n.base+int64(n.count) > limit || h.Batches > 0 && at+size > format.FlushBytesMax || l.filling != l.writing && n.base >= e.segments.all[l.filling].base {
			break
		}
		k := &e.cache.slabs[n.slab]
		copy(p[at:], k.block.Bytes()[n.pos:int(n.pos)+size])
		h.Add(n.base, n.count, n.maxTime)
		at += size
		c.at++
	}
	if h.Batches == 0 {
		return false
	}
	bytes := at - format.HeaderBytes
	length := format.AlignBlock(at)
	if rest := q.pending - q.sent - int64(bytes); rest > 0 && q.next0+int64(length)+format.RoomFor(rest) > q.bytes || q.next0+int64(length) > q.bytes {
		e.wantRoom(s, l.writing, q.next0+int64(length)+format.RoomFor(rest))
		if q.next0+int64(length) > q.bytes {
			return false
		}
	}
	i := e.takeRun(run{state: runSealed, log: s, segment: l.writing, buffer: buffer, block: e.flush.buffers[buffer], bytes: bytes, header: h})
	e.flush.lent[buffer] = i
	e.flush.drainsBusy++
	l.undrained -= int64(bytes)
	e.sendRun(i, sleep)
	return true
}

// replaceSegment moves what is pending from a broken segment to the next one.
func (e *Engine) replaceSegment(s Slot) bool {
	l := &e.logs[s]
	q := &e.segments.all[l.writing]
	if q.next == none {
		e.wantSegment(s, q.pending)
		return false
	}
	x := &e.segments.all[q.next]
	if !x.ready {
		return false
	}
	x.pending += q.pending
	q.pending = 0
	x.base, x.end = l.drained, l.drained
	l.filling, l.writing = q.next, q.next
	return false
}
