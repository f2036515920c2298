package engine

import (
	"tailbound/ioring"
	"tailbound/mem"
)

// drains copy what is durable in the journal to the segments, in the
// background, from memory. One run's life:
//
//	build(batches); await open(); await write+sync(); drained
type drains struct {
	runs       [drainsMax]run
	drainsBusy int
	queue      []int32 // a circle of logs that have something undrained
	queueAt    int
	queueN     int
	drainAfter ioring.Instant // after a failure
}

// Invariant: a log has at most one run under way.
type run struct {
	active  bool
	opened  bool
	log     Slot
	segment int32
	buf     mem.Block
	from    cursor // its first node
	nodes   int
	bytes   int // of its entries
	header  runHeader
	io      writeSync
}

func (e *Engine) carveDrains(a *mem.Arena) (err error) {
	e.queue = make([]int32, e.o.LogsMax)
	for i := range e.runs {
		if e.runs[i].buf, err = a.Carve("run buffers", e.o.runBufferBytes(), blockBytes); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) queueDrain(s int32) {
	l := &e.logs[s]
	if l.queued {
		return
	}
	l.queued = true
	e.queue[(e.queueAt+e.queueN)%len(e.queue)] = s
	e.queueN++
}

// looksPerStep bounds how many logs one step looks at.
const looksPerStep = 32

func (e *Engine) stepDrains(sleep *ioring.Instant) {
	for i := range e.runs {
		if r := &e.runs[i]; r.active && !r.io.pushed {
			e.stepRun(uint32(i), sleep)
		}
	}
	if e.stopped {
		return
	}
	if e.now < e.drainAfter {
		earlier(sleep, e.drainAfter)
		return
	}
	if e.pressed && e.slabsFree() > len(e.slabs)/2 {
		e.pressed = false
	}
	urgent := e.stopping || e.pressed || e.journalFull || e.used > e.blocks/2 || e.slabsFree() < len(e.slabs)/2
	looks := min(e.queueN, looksPerStep)
	if looks < e.queueN {
		earlier(sleep, e.now+10e6)
	}
	for ; looks > 0 && e.drainsBusy < drainsMax; looks-- {
		s := e.queue[e.queueAt]
		e.queueAt = (e.queueAt + 1) % len(e.queue)
		e.queueN--
		l := &e.logs[s]
		l.queued = false
		if l.state == logGone {
			e.finishClosing(l)
			continue
		}
		if l.state != logOpen && l.state != logClosing || l.taken >= l.end || l.running {
			continue // a run that ends puts its log back
		}
		due := l.oldest + idleDrainNS
		if l.taken < l.durable && (urgent || l.undrained >= runBytesMax || e.now >= due) {
			if e.startRun(Slot(s), sleep) {
				continue
			}
			earlier(sleep, e.now+5e6)
		} else if l.taken < l.durable {
			earlier(sleep, due)
		}
		e.queueDrain(s)
	}
	if e.queueN > 0 && urgent && e.drainsBusy < drainsMax {
		earlier(sleep, e.now+1e6)
	}
}

// startRun builds the next run of log s. False: not now.
func (e *Engine) startRun(s Slot, sleep *ioring.Instant) bool {
	l := &e.logs[s]
	n := e.at(&l.taking)
	if n == nil {
		panic("engine: undrained batches are not in memory")
	}
	if q := &e.all[l.writing]; q.broken {
		return e.replaceSegment(s)
	}
	if l.filling != l.writing && n.base >= e.all[l.filling].base {
		l.writing = l.filling
	}
	q := &e.all[l.writing]
	slot := none
	for i := range e.runs {
		if !e.runs[i].active {
			slot = int32(i)
		}
	}
	r := &e.runs[slot]
	r.log, r.segment, r.from, r.nodes, r.bytes = s, l.writing, l.taking, 0, 0
	p := r.buf.Bytes()
	h := runHeader{log: l.id, generation: q.generation, base: n.base, maxTime: noTime, durable: l.durable}
	at := pieceHeader
	c := l.taking
	for ; n != nil; n = e.at(&c) {
		size := entryHeader + align8(int(n.length))
		if n.base+int64(n.count) > l.durable || r.nodes > 0 && at+size > runBytesMax || l.filling != l.writing && n.base >= e.all[l.filling].base {
			break
		}
		k := &e.slabs[n.slab]
		copy(p[at:], k.block.Bytes()[n.pos:int(n.pos)+size])
		if n.maxTime > h.maxTime || r.nodes == 0 {
			h.maxTime, h.maxTimeBase = n.maxTime, n.base
		}
		h.end = n.base + int64(n.count)
		at += size
		r.nodes++
		c.at++
	}
	if r.nodes == 0 {
		return false
	}
	r.bytes = at - pieceHeader
	length := alignBlock(at)
	if rest := q.pending - int64(r.bytes); rest > 0 && q.position+int64(length)+roomFor(rest) > q.bytes || q.position+int64(length) > q.bytes {
		e.wantRoom(s, l.writing, q.position+int64(length)+roomFor(rest))
		if q.position+int64(length) > q.bytes {
			return false
		}
	}
	clear(p[at:length])
	h.directory, h.epoch, h.bodyBytes, h.previous, h.batches = e.dir, e.epoch, uint32(r.bytes), l.chain, uint32(r.nodes)
	h.bodyCRC = crcOf(p[pieceHeader:at])
	h.put(p)
	r.header = h
	r.active, r.opened = true, false
	l.taking, l.taken, l.running = c, h.end, true
	l.undrained -= int64(r.bytes)
	e.drainsBusy++
	r.io.begin(0, q.position, r.buf.Slice(0, length))
	e.stepRun(uint32(slot), sleep)
	return true
}

func (e *Engine) stepRun(i uint32, sleep *ioring.Instant) {
	r := &e.runs[i]
	if !r.opened {
		file, pending, errno := e.acquire(r.segment, false)
		if errno != 0 {
			e.runFailed(r)
			return
		}
		if pending {
			if e.ring.Room() < 1 {
				earlier(sleep, e.now)
			}
			return
		}
		r.opened, r.io.file = true, file
	}
	if !r.io.push(e.ring, kindDrain, i) {
		earlier(sleep, e.now)
	}
}

func (e *Engine) drainCompleted(i uint32, c ioring.Completion) {
	r := &e.runs[i>>1]
	if !r.io.complete(i&1 != 0, c.Result) {
		return
	}
	if r.io.errno != 0 {
		e.runFailed(r)
		return
	}
	l, q, h := &e.logs[r.log], &e.all[r.segment], &r.header
	if q.position == 0 {
		q.base = h.base
	}
	q.note(indexEntry{base: h.base, position: q.position, before: q.maxTime})
	q.position += int64(r.io.buf.Len())
	q.pending -= int64(r.bytes)
	q.end, q.chain = h.end, h.crc
	q.runs++
	q.maxTime = max(q.maxTime, h.maxTime)
	l.chain, l.drained = h.crc, h.end
	if h.maxTime > l.drainMax || l.drainBase == noOffset {
		l.drainMax, l.drainBase = h.maxTime, h.maxTimeBase
	}
	for c := r.from; r.nodes > 0; r.nodes-- {
		n := e.at(&c)
		e.slabs[n.slab].undrained--
		e.live[n.seq%uint64(len(e.live))].undrained--
		c.at++
	}
	e.stats.Runs++
	e.stats.RunBytes += uint64(r.io.buf.Len())
	e.endRun(r)
}

func (e *Engine) endRun(r *run) {
	if r.opened {
		e.letGo(r.segment)
	}
	l := &e.logs[r.log]
	r.active = false
	l.running = false
	e.drainsBusy--
	e.changes++
	if l.taken < l.end {
		e.queueDrain(int32(r.log))
	}
	e.finishClosing(l)
}

// runFailed: the bytes are in the journal, and go to another file.
func (e *Engine) runFailed(r *run) {
	l := &e.logs[r.log]
	l.taking, l.taken = r.from, l.drained
	l.undrained += int64(r.bytes)
	e.all[r.segment].broken = true
	e.stats.DrainRetries++
	e.drainAfter = e.now + retryNS/10
	e.endRun(r)
}

// replaceSegment moves what is pending from a broken segment to the next one.
func (e *Engine) replaceSegment(s Slot) bool {
	l := &e.logs[s]
	q := &e.all[l.writing]
	if q.next == none {
		e.wantSegment(s, q.pending)
		return false
	}
	x := &e.all[q.next]
	if !x.ready {
		return false
	}
	x.pending += q.pending
	q.pending = 0
	x.base, x.end = l.drained, l.drained
	l.filling, l.writing = q.next, q.next
	return false
}
