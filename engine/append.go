package engine

import (
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
)

// reservation is what Reserve handed out.
type reservation struct {
	active bool
	direct bool
	slot   Slot
	n      int
	slab   int32
	pos    int
}

func (r *reservation) note(direct bool, s Slot, n int, slab int32, pos int) {
	r.active, r.direct, r.slot, r.n, r.slab, r.pos = true, direct, s, n, slab, pos
}

// Reserve gives n bytes of log memory for one batch of log l, and the offset
// its first record gets. Commit or Abort follows in the same turn.
func (e *Engine) Reserve(s Slot, n int) (dst []byte, base int64, st Status) {
	if e.cache.reserved.active {
		panic("engine: Reserve before Commit or Abort of the one before")
	}
	switch {
	case e.failed:
		return nil, 0, StorageFailed
	case !e.open(s):
		return nil, 0, Unknown
	case n <= 0 || n > e.o.BatchBytesMax:
		return nil, 0, TooLarge
	case e.stopping:
		return nil, 0, WaitMemory
	}
	l := &e.logs[s]
	if l.rotFrom != format.NoOffset {
		return nil, 0, Rot
	}
	need := format.EntryHeaderBytes + format.Align8(n)
	if e.catchesUp(l, need) {
		e.stats.WaitMemory++
		return nil, 0, WaitMemory
	}
	direct := e.wantsDirect(l, s, need)
	room := int64(need)
	if direct {
		room += 2 * runOverhead
	}
	if st := e.admit(s, room); st != OK {
		return nil, 0, st
	}
	if !e.nodeFits(l) {
		e.evictOldest()
	}
	if direct && e.nodeFits(l) && e.directFits(s, n) {
		r := &e.extents.pool[l.building]
		at := r.pos + format.HeaderBytes + r.bytes
		e.cache.reserved.note(true, s, n, r.slab, at)
		at += format.EntryHeaderBytes
		return e.cache.slabs[r.slab].block.Bytes()[at : at+n : at+n], l.end, OK
	}
	if !e.nodeFits(l) || !e.entryFits(n) {
		e.stats.WaitMemory++
		e.journal.pressed = true
		return nil, 0, WaitMemory
	}
	b := e.cache.slabs[e.cache.slab].block.Bytes()
	at := e.journal.openPos + e.journal.openBytes + format.EntryHeaderBytes
	e.cache.reserved.note(false, s, n, e.cache.slab, at-format.EntryHeaderBytes)
	return b[at : at+n : at+n], l.end, OK
}

// catchesUp says that log l has large batches, and more in the journal than may
// be ahead of a direct run, while memory is short: it had better wait for its
// drains, or it goes on writing everything twice just when that is too much.
func (e *Engine) catchesUp(l *log, need int) bool {
	l.catching = (l.catching || e.journal.pressed) && l.undrained > e.aheadMax() && e.large(l, need)
	return l.catching
}

// wantsDirect chooses for a batch of need entry bytes: its log's own segment,
// or the journal. A run costs a sync of its file, a frame costs writing its
// bytes twice; at DirectBytes the two are about even. Many logs with a little
// each never get there, and share the journal's one sync.
func (e *Engine) wantsDirect(l *log, s Slot, need int) bool {
	if l.building != none {
		// what follows a run that is being built goes with it, however small
		if r := &e.extents.pool[l.building]; r.header.End == l.end && r.header.Batches > 0 && format.HeaderBytes+r.bytes+need <= e.extents.directMax {
			return true
		}
	}
	if !e.large(l, need) || e.crowded(l, need) {
		return false
	}
	return l.undrained <= e.aheadMax() && e.extents.runFree != none && e.extents.pool[e.extents.runFree].next != none && // one more for what the journal has before it
		(l.directs > 0 || e.extents.directLogs < directLogsMax)
}

// large says that need entry bytes more make as much of log l as is worth a run:
// with what waits for the next frame, or, while runs of it are in flight, with
// what gathers behind those, as long as that came to something the last time.
func (e *Engine) large(l *log, need int) bool {
	if l.frameSeq == e.journal.sealedSeq+1 {
		need += l.frameBytes
	}
	return e.o.DirectBytes > 0 && (need >= e.o.DirectBytes || l.directs > 0 && l.runBytes >= e.o.DirectBytes/2)
}

// aheadMax is how much the journal may have of a log that is not in its segment
// when it goes on with a direct run, which waits for that.
func (e *Engine) aheadMax() int64 { return int64(min(16*format.FlushBytesMax, e.o.LogMemoryBytes/8)) }

// Abort gives back what Reserve handed out.
func (e *Engine) Abort() { e.cache.reserved.active = false }

// Meta is what the engine keeps of a batch.
type Meta struct {
	Count   uint32
	MaxTime int64 // milliseconds
	CRC     uint32
}

// Commit appends the batch that Reserve made room for: it takes m.Count
// offsets from the base.
func (e *Engine) Commit(m Meta) {
	r := &e.cache.reserved
	if !r.active || m.Count == 0 {
		panic("engine: Commit without Reserve, or of no records")
	}
	r.active = false
	l := &e.logs[r.slot]
	if l.nEpochs == 0 || l.epochs[l.nEpochs-1].Epoch != int32(e.epoch) {
		l.addEpoch(format.EpochStart{Epoch: int32(e.epoch), Start: l.end})
	}
	h := format.Entry{Kind: format.EntryData, Log: l.id, Base: l.end, Count: m.Count, Length: uint32(r.n), CRC: m.CRC, Slot: uint32(r.slot), Durable: l.durable, MaxTime: m.MaxTime}
	n := e.pushNode(l)
	n.base, n.maxTime, n.slab, n.pos, n.length, n.count, n.crc, n.age, n.seq = l.end, m.MaxTime, r.slab, uint32(r.pos), uint32(r.n), m.Count, m.CRC, e.cache.age, 0
	if r.direct {
		x := &e.extents.pool[l.building]
		putEntry(e.cache.slabs[r.slab].block.Bytes()[r.pos:], &h)
		x.bytes += h.Bytes()
		x.header.Add(n.base, n.count, n.maxTime)
		e.journal.lastEntry = e.now
		e.stats.Entries++
	} else {
		n.seq = e.appendEntry(&h)
		e.journal.live[n.seq%uint64(len(e.journal.live))].undrained++
		if l.undrained == 0 {
			l.oldest = e.now
		}
		l.undrained += int64(h.Bytes())
		if l.frameSeq != n.seq {
			l.frameSeq, l.frameBytes = n.seq, 0
		}
		l.frameBytes += h.Bytes()
		e.queueDrain(int32(r.slot))
	}
	e.cache.slabs[r.slab].undrained++
	e.segments.all[l.filling].pending += int64(h.Bytes())
	l.undurable += int64(r.n)
	e.undurable += int64(r.n)
	if m.MaxTime > l.maxTime || l.maxTimeBase == format.NoOffset {
		l.maxTime, l.maxTimeBase = m.MaxTime, l.end
	}
	l.end += int64(m.Count)
}

// stepFrames submits closed frames, and closes the open one, while frames may
// be in flight.
func (e *Engine) stepFrames(sleep *ioring.Instant) {
	if e.failed {
		return
	}
	for q := e.journal.durableSeq + 1; q <= e.journal.submitted; q++ {
		f := &e.journal.live[q%uint64(len(e.journal.live))]
		if f.state == frameInFlight && !e.pushFrame(q) {
			earlier(sleep, e.now)
			return
		}
	}
	if e.journal.openCount == 0 && e.journal.sealedSeq == e.journal.durableSeq && e.journal.stampSeq < e.journal.dataSeq {
		// an empty frame says that the newest one is durable
		switch {
		case e.journal.idleAt == 0:
			e.journal.idleAt = e.now + idleStampNS
		case (e.now >= e.journal.idleAt || e.stopping) && e.journal.openBytes == 0 && e.journal.used+8 < e.journal.blocks/2 && e.entryFits(0):
			e.sealFrame()
		case e.now >= e.journal.idleAt && e.journal.openBytes > 0:
			e.sealFrame()
		}
		if e.journal.sealedSeq == e.journal.durableSeq && e.now < e.journal.idleAt {
			earlier(sleep, e.journal.idleAt)
		}
	}
	for e.journal.submitted-e.journal.durableSeq < uint64(e.o.InflightMax) {
		if e.journal.submitted == e.journal.sealedSeq {
			if e.journal.openCount == 0 || e.cache.reserved.active {
				return
			}
			e.sealFrame()
		}
		if !e.submitFrame() {
			return // the journal is full: a checkpoint frees it
		}
		q := e.journal.submitted
		if !e.pushFrame(q) {
			earlier(sleep, e.now)
			return
		}
	}
}

// submitFrame gives the next closed frame its place and its header.
func (e *Engine) submitFrame() bool {
	q := e.journal.submitted + 1
	f := &e.journal.live[q%uint64(len(e.journal.live))]
	wasted := int64(0)
	if e.journal.next+int64(f.blocks) > e.journal.blocks {
		wasted = e.journal.blocks - e.journal.next
	}
	if e.journal.used+wasted+int64(f.blocks) > e.journal.blocks {
		e.journal.journalFull = true
		return false
	}
	e.journal.used += wasted + int64(f.blocks)
	f.wasted = int32(wasted)
	if wasted > 0 {
		e.journal.next = 0
	}
	f.block, f.previous = e.journal.next, e.journal.chain
	e.journal.next += int64(f.blocks)
	if e.journal.next == e.journal.blocks {
		e.journal.next = 0
	}
	p := e.cache.slabs[f.slab].block.Bytes()[f.pos:]
	h := format.FrameHeader{Journal: e.journalID, Shard: uint32(e.shard), Entries: f.entries, Sequence: q, Durable: e.journal.durableSeq}
	h.Directory, h.Epoch, h.BodyBytes, h.Previous = e.dir, e.epoch, uint32(f.bytes-format.HeaderBytes), e.journal.chain
	h.BodyCRC = format.CRC(p[format.HeaderBytes:f.bytes])
	h.Put(p)
	e.journal.chain, e.journal.stampSeq, e.journal.idleAt = h.CRC, e.journal.durableSeq, 0
	if f.entries > 0 {
		e.journal.dataSeq = q
	}
	e.journal.journalFull = false
	e.journal.sinceCheck += wasted + int64(f.blocks)
	f.state, f.at = frameInFlight, e.now
	e.disk.begin(WorkFrames, int(f.blocks)*format.BlockBytes)
	e.reads.appendedAt = e.now
	f.io.begin(e.journal.file, f.block*format.BlockBytes, e.cache.slabs[f.slab].block.Slice(f.pos, int(f.blocks)*format.BlockBytes))
	e.journal.submitted = q
	e.stats.Frames++
	e.stats.FrameBytes += uint64(f.blocks) * format.BlockBytes
	return true
}

func (e *Engine) pushFrame(q uint64) bool {
	i := q % uint64(len(e.journal.live))
	f := &e.journal.live[i]
	if e.o.Faults.Has(NoSync) && !f.io.pushed {
		if e.ring.Room() < 1 {
			return false
		}
		f.io.pushed, f.io.writing = true, true
		return e.ring.Push(ioring.Op{Code: ioring.Write, File: f.io.file, Offset: f.io.offset + uint64(f.io.done), Buf: f.io.buf.Slice(f.io.done, f.io.buf.Len()-f.io.done), Token: ioring.MakeToken(kindFrame, 0, uint32(i)<<1)})
	}
	return f.io.push(e.ring, kindFrame, uint32(i))
}

func (e *Engine) frameCompleted(i uint32, c ioring.Completion) {
	f := &e.journal.live[i>>1]
	over := f.io.complete(i&1 != 0, c.Result, e.now)
	if e.o.Faults.Has(NoSync) && f.io.errno == 0 && f.io.done == f.io.buf.Len() {
		over = true
	}
	if e.o.Faults.Has(AckBeforeSync) && f.io.errno == 0 && f.io.done == f.io.buf.Len() && f.state == frameInFlight {
		f.state = frameDone
		e.disk.end(WorkFrames, int(f.blocks)*format.BlockBytes)
		e.advance()
		return
	}
	if !over || f.state != frameInFlight {
		return
	}
	e.disk.end(WorkFrames, int(f.blocks)*format.BlockBytes)
	if f.io.errno != 0 {
		f.state = frameBroken
		e.journal.brokenFrames++
		e.fail(f.io.failure(JournalFile))
		return
	}
	f.state = frameDone
	e.advance()
	if e.failed && f.state == frameDone {
		e.journal.brokenFrames++ // after a broken one: never durable
		f.state = frameBroken
	}
}

// advance makes frames durable, in order, and says what that means.
func (e *Engine) advance() {
	for !e.failed && e.journal.durableSeq < e.journal.submitted {
		f := &e.journal.live[(e.journal.durableSeq+1)%uint64(len(e.journal.live))]
		if f.state != frameDone {
			return
		}
		f.state = frameDurable
		e.journal.durableSeq++
		e.changes++
		e.cache.slabs[f.slab].frames--
		b := e.cache.slabs[f.slab].block.Bytes()[f.pos : f.pos+f.bytes]
		for at := format.HeaderBytes; at < len(b); {
			var h format.Entry
			h.Read(b[at:])
			at += h.Bytes()
			e.entryDurable(&h, landing{f.at, f.io.written, f.bytes})
		}
	}
}

func (e *Engine) entryDurable(h *format.Entry, at landing) {
	l := &e.logs[h.Slot]
	if l.state == logFree || l.id != h.Log {
		return
	}
	switch h.Kind {
	case format.EntryData:
		e.settle(Slot(h.Slot), at)
		e.queueDrain(int32(h.Slot))
	case format.EntryOpened:
		l.state = logOpen
		e.tell(Event{Kind: Opened, User: l.user, Slot: Slot(h.Slot)})
	case format.EntryClosed:
		e.logClosed(Slot(h.Slot))
	case format.EntryStartMoved:
		e.startMoved(Slot(h.Slot), h.Base)
	case format.EntryAssigned:
		e.segmentAssigned(l, h.Aux)
	}
}

// settle moves log s's durable offset on, over what frames, in their order, and
// runs, in theirs, made durable without a gap.
func (e *Engine) settle(s Slot, at landing) {
	l := &e.logs[s]
	moved := false
	for n := e.at(&l.settling); n != nil; n = e.at(&l.settling) {
		end := n.base + int64(n.count)
		if end > l.drained && (n.seq == 0 || n.seq > e.journal.durableSeq) {
			break
		}
		l.durable = max(l.durable, end)
		l.settling.at++
		l.undurable -= int64(n.length)
		e.undurable -= int64(n.length)
		moved = true
	}
	if moved {
		e.tellDurable(s, at)
	}
}

func (e *Engine) tellDurable(s Slot, at landing) {
	e.logs[s].landed = at
	e.Announce(s)
}

// Announce has the event Durable come for log l: its owner shows readers what
// is not durable yet.
func (e *Engine) Announce(l Slot) {
	if x := &e.logs[l]; !x.dirty && x.state == logOpen {
		x.dirty = true
		e.tell(Event{Kind: Durable, Slot: l})
	}
}
