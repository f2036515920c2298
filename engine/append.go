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

func (r *reservation) note(direct bool, slot Slot, n int, slab int32, pos int) {
	r.active, r.direct, r.slot, r.n, r.slab, r.pos = true, direct, slot, n, slab, pos
}

// Reserve gives n bytes of log memory for one batch of log l, and the offset
// its first record gets. Commit or Abort follows in the same turn.
func (e *Engine) Reserve(slot Slot, n int) (dst []byte, base int64, st Status) {
	if e.reserved.active {
		panic("engine: Reserve before Commit or Abort of the one before")
	}
	switch {
	case e.failed:
		return nil, 0, StorageFailed
	case !e.logs.isOpen(slot):
		return nil, 0, Unknown
	case n <= 0 || n > e.o.BatchBytesMax:
		return nil, 0, TooLarge
	case e.stopping:
		return nil, 0, WaitMemory
	}
	lg := &e.logs.all[slot]
	if lg.corruptFrom != format.NoOffset {
		return nil, 0, LogCorrupt
	}
	need := format.EntryHeaderBytes + format.Align8(n)
	if e.extents.mustCatchUp(&e.journal, lg, need) {
		e.stats.WaitMemory++
		return nil, 0, WaitMemory
	}
	direct := e.extents.wantsDirect(&e.journal, lg, need)
	room := int64(need)
	if direct {
		room += 2 * extentOverhead
	}
	if st := e.admit(lg, room); st != OK {
		return nil, 0, st
	}
	if !e.batches.fits(lg) {
		e.cache.evictOldest(&e.logs, &e.batches)
	}
	if direct && e.batches.fits(lg) && e.openExtentFor(lg, n) {
		ext := &e.extents.pool[lg.building]
		at := ext.pos + format.HeaderBytes + ext.bytes
		e.reserved.note(true, slot, n, ext.slab, at)
		at += format.EntryHeaderBytes
		return e.cache.slabs[ext.slab].block.Bytes()[at : at+n : at+n], lg.end, OK
	}
	if !e.batches.fits(lg) || !e.openFrameFor(n) {
		e.stats.WaitMemory++
		e.journal.memoryShort = true
		return nil, 0, WaitMemory
	}
	buf := e.cache.slabs[e.cache.current].block.Bytes()
	at := e.journal.openPos + e.journal.openBytes + format.EntryHeaderBytes
	e.reserved.note(false, slot, n, e.cache.current, at-format.EntryHeaderBytes)
	return buf[at : at+n : at+n], lg.end, OK
}

// catchesUp says that log l has large batches, and more in the journal than may
// be ahead of a direct run, while memory is short: it had better wait for its
// drains, or it goes on writing everything twice just when that is too much.
func (x *extents) mustCatchUp(journal *journal, lg *log, need int) bool {
	lg.catchingUp = (lg.catchingUp || journal.memoryShort) && lg.unflushed > x.env.flushAheadMax() && x.large(journal, lg, need)
	return lg.catchingUp
}

// wantsDirect chooses for a batch of need entry bytes: its log's own segment,
// or the journal. A run costs a sync of its file, a frame costs writing its
// bytes twice; at DirectBytes the two are about even. Many logs with a little
// each never get there, and share the journal's one sync.
func (x *extents) wantsDirect(journal *journal, lg *log, need int) bool {
	if lg.building != none {
		// what follows a run that is being built goes with it, however small
		if ext := &x.pool[lg.building]; ext.header.End == lg.end && ext.header.Batches > 0 && format.HeaderBytes+ext.bytes+need <= x.directBytesMax {
			return true
		}
	}
	if !x.large(journal, lg, need) || x.contended(journal, lg, need) {
		return false
	}
	return lg.unflushed <= x.env.flushAheadMax() && x.free != none && x.pool[x.free].next != none && // one more for what the journal has before it
		(lg.directExtents > 0 || x.directLogs < directLogsMax)
}

// large says that need entry bytes more make as much of log l as is worth a run:
// with what waits for the next frame, or, while runs of it are in flight, with
// what gathers behind those, as long as that came to something the last time.
func (x *extents) large(journal *journal, lg *log, need int) bool {
	if lg.frameSeq == journal.sealedSeq+1 {
		need += lg.frameBytes
	}
	return x.env.o.DirectBytes > 0 && (need >= x.env.o.DirectBytes || lg.directExtents > 0 && lg.extentBytes >= x.env.o.DirectBytes/2)
}

// aheadMax is how much the journal may have of a log that is not in its segment
// when it goes on with a direct run, which waits for that.
func (v *env) flushAheadMax() int64 {
	return int64(min(16*format.FlushBytesMax, v.o.LogMemoryBytes/8))
}

// Abort gives back what Reserve handed out.
func (e *Engine) Abort() { e.reserved.active = false }

// Meta is what the engine keeps of a batch.
type Meta struct {
	Count   uint32
	MaxTime int64 // milliseconds
	CRC     uint32
}

// Commit appends the batch that Reserve made room for: it takes m.Count
// offsets from the base.
func (e *Engine) Commit(meta Meta) {
	reserved := &e.reserved
	if !reserved.active || meta.Count == 0 {
		panic("engine: Commit without Reserve, or of no records")
	}
	reserved.active = false
	lg := &e.logs.all[reserved.slot]
	if lg.nEpochs == 0 || lg.epochs[lg.nEpochs-1].Epoch != int32(e.epoch) {
		lg.addEpoch(format.EpochStart{Epoch: int32(e.epoch), Start: lg.end})
	}
	entry := format.Entry{Kind: format.EntryData, Log: lg.id, Base: lg.end, Count: meta.Count, Length: uint32(reserved.n), CRC: meta.CRC, Slot: uint32(reserved.slot), Durable: lg.durable, MaxTime: meta.MaxTime}
	batch := e.batches.push(lg)
	batch.base, batch.maxTime, batch.slab, batch.pos, batch.length, batch.count, batch.crc, batch.age, batch.seq = lg.end, meta.MaxTime, reserved.slab, uint32(reserved.pos), uint32(reserved.n), meta.Count, meta.CRC, e.cache.age, 0
	if reserved.direct {
		ext := &e.extents.pool[lg.building]
		putEntry(e.cache.slabs[reserved.slab].block.Bytes()[reserved.pos:], &entry)
		ext.bytes += entry.Bytes()
		ext.header.Add(batch.base, batch.count, batch.maxTime)
		e.journal.lastEntry = e.now
		e.stats.Entries++
	} else {
		batch.seq = e.journal.append(&e.cache, &entry)
		e.journal.frame(batch.seq).unflushed++
		if lg.unflushed == 0 {
			lg.oldestUnflushed = e.now
		}
		lg.unflushed += int64(entry.Bytes())
		if lg.frameSeq != batch.seq {
			lg.frameSeq, lg.frameBytes = batch.seq, 0
		}
		lg.frameBytes += entry.Bytes()
		e.flush.enqueue(lg)
	}
	e.cache.slabs[reserved.slab].unflushed++
	e.segments.all[lg.active].pending += int64(entry.Bytes())
	lg.unsynced += int64(reserved.n)
	e.unsynced += int64(reserved.n)
	if meta.MaxTime > lg.maxTime || lg.maxTimeBase == format.NoOffset {
		lg.maxTime, lg.maxTimeBase = meta.MaxTime, lg.end
	}
	lg.end += int64(meta.Count)
}

// stepFrames submits closed frames, and closes the open one, while frames may
// be in flight.
func (e *Engine) stepJournal(sleep *ioring.Instant) {
	if e.failed {
		return
	}
	for seq := e.journal.durableSeq + 1; seq <= e.journal.submitted; seq++ {
		frame := e.journal.frame(seq)
		if frame.state == frameInFlight && !e.journal.push(seq) {
			earlier(sleep, e.now)
			return
		}
	}
	if e.journal.openEntries == 0 && e.journal.sealedSeq == e.journal.durableSeq && e.journal.stampSeq < e.journal.dataSeq {
		// an empty frame says that the newest one is durable
		switch {
		case e.journal.stampAt == 0:
			e.journal.stampAt = e.now + idleStampNS
		case (e.now >= e.journal.stampAt || e.stopping) && e.journal.openBytes == 0 && e.journal.usedBlocks+8 < e.journal.blocks/2 && e.openFrameFor(0):
			e.journal.seal(&e.cache)
		case e.now >= e.journal.stampAt && e.journal.openBytes > 0:
			e.journal.seal(&e.cache)
		}
		if e.journal.sealedSeq == e.journal.durableSeq && e.now < e.journal.stampAt {
			earlier(sleep, e.journal.stampAt)
		}
	}
	for e.journal.submitted-e.journal.durableSeq < uint64(e.o.InflightMax) {
		if e.journal.submitted == e.journal.sealedSeq {
			if e.journal.openEntries == 0 || e.reserved.active {
				return
			}
			e.journal.seal(&e.cache)
		}
		if !e.journal.submit(&e.cache) {
			return // the journal is full: a checkpoint frees it
		}
		seq := e.journal.submitted
		if !e.journal.push(seq) {
			earlier(sleep, e.now)
			return
		}
	}
}

// submitFrame gives the next closed frame its place and its header.
func (j *journal) submit(cache *cache) bool {
	seq := j.submitted + 1
	frame := j.frame(seq)
	wasted := int64(0)
	if j.next+int64(frame.blocks) > j.blocks {
		wasted = j.blocks - j.next
	}
	if j.usedBlocks+wasted+int64(frame.blocks) > j.blocks {
		j.full = true
		return false
	}
	j.usedBlocks += wasted + int64(frame.blocks)
	frame.wasted = int32(wasted)
	if wasted > 0 {
		j.next = 0
	}
	frame.block, frame.previous = j.next, j.chain
	j.next += int64(frame.blocks)
	if j.next == j.blocks {
		j.next = 0
	}
	buf := cache.slabs[frame.slab].block.Bytes()[frame.pos:]
	header := format.FrameHeader{Journal: j.id, Shard: uint32(j.env.shard), Entries: frame.entries, Sequence: seq, Durable: j.durableSeq}
	header.Directory, header.Epoch, header.BodyBytes, header.Previous = j.env.dir, j.env.epoch, uint32(frame.bytes-format.HeaderBytes), j.chain
	header.BodyCRC = format.CRC(buf[format.HeaderBytes:frame.bytes])
	header.Put(buf)
	j.chain, j.stampSeq, j.stampAt = header.CRC, j.durableSeq, 0
	if frame.entries > 0 {
		j.dataSeq = seq
	}
	j.full = false
	j.sinceCheckpoint += wasted + int64(frame.blocks)
	frame.state, frame.at = frameInFlight, j.env.now
	j.env.disk.begin(WorkFrames, int(frame.blocks)*format.BlockBytes)
	j.env.appendedAt = j.env.now
	frame.io.begin(j.file, frame.block*format.BlockBytes, cache.slabs[frame.slab].block.Slice(frame.pos, int(frame.blocks)*format.BlockBytes))
	j.submitted = seq
	j.env.stats.Frames++
	j.env.stats.FrameBytes += uint64(frame.blocks) * format.BlockBytes
	return true
}

func (j *journal) push(seq uint64) bool {
	i := seq % uint64(len(j.live))
	frame := &j.live[i]
	if j.env.o.Faults.Has(NoSync) && !frame.io.pushed {
		if j.env.ring.Room() < 1 {
			return false
		}
		frame.io.pushed, frame.io.writing = true, true
		return j.env.ring.Push(ioring.Op{Code: ioring.Write, File: frame.io.file, Offset: frame.io.offset + uint64(frame.io.done), Buf: frame.io.buf.Slice(frame.io.done, frame.io.buf.Len()-frame.io.done), Token: ioring.MakeToken(kindFrame, 0, uint32(i)<<1)})
	}
	return frame.io.push(j.env.ring, kindFrame, uint32(i))
}

func (e *Engine) frameCompleted(index uint32, completion ioring.Completion) {
	frame := &e.journal.live[index>>1]
	over := frame.io.complete(index&1 != 0, completion.Result, e.now)
	if e.o.Faults.Has(NoSync) && frame.io.errno == 0 && frame.io.done == frame.io.buf.Len() {
		over = true
	}
	if e.o.Faults.Has(AckBeforeSync) && frame.io.errno == 0 && frame.io.done == frame.io.buf.Len() && frame.state == frameInFlight {
		frame.state = frameDone
		e.disk.end(WorkFrames, int(frame.blocks)*format.BlockBytes)
		e.advanceFrames()
		return
	}
	if !over || frame.state != frameInFlight {
		return
	}
	e.disk.end(WorkFrames, int(frame.blocks)*format.BlockBytes)
	if frame.io.errno != 0 {
		frame.state = frameBroken
		e.journal.brokenFrames++
		e.fail(frame.io.failure(JournalFile))
		return
	}
	frame.state = frameDone
	e.advanceFrames()
	if e.failed && frame.state == frameDone {
		e.journal.brokenFrames++ // after a broken one: never durable
		frame.state = frameBroken
	}
}

// advance makes frames durable, in order, and says what that means.
func (e *Engine) advanceFrames() {
	for !e.failed && e.journal.durableSeq < e.journal.submitted {
		frame := e.journal.frame(e.journal.durableSeq + 1)
		if frame.state != frameDone {
			return
		}
		frame.state = frameDurable
		e.journal.durableSeq++
		e.progress++
		e.cache.slabs[frame.slab].frames--
		buf := e.cache.slabs[frame.slab].block.Bytes()[frame.pos : frame.pos+frame.bytes]
		for at := format.HeaderBytes; at < len(buf); {
			var entry format.Entry
			entry.Read(buf[at:])
			at += entry.Bytes()
			e.entryDurable(&entry, writeTiming{frame.at, frame.io.written, frame.bytes})
		}
	}
}

func (e *Engine) entryDurable(entry *format.Entry, at writeTiming) {
	lg := &e.logs.all[entry.Slot]
	if lg.state == logFree || lg.id != entry.Log {
		return
	}
	switch entry.Kind {
	case format.EntryData:
		e.advanceDurable(lg, at)
		e.flush.enqueue(lg)
	case format.EntryOpened:
		lg.state = logOpen
		e.emit(Event{Kind: Opened, User: lg.user, Slot: lg.slot})
	case format.EntryClosed:
		e.deletionDurable(lg)
	case format.EntryStartMoved:
		e.startMoved(lg, entry.Base)
	case format.EntryAssigned:
		e.segmentAssigned(lg, entry.Aux)
	}
}

// settle moves log s's durable offset on, over what frames, in their order, and
// runs, in theirs, made durable without a gap.
func (e *Engine) advanceDurable(lg *log, at writeTiming) {
	moved := false
	for batch := e.batches.at(&lg.durableCursor); batch != nil; batch = e.batches.at(&lg.durableCursor) {
		end := batch.base + int64(batch.count)
		if end > lg.flushed && (batch.seq == 0 || batch.seq > e.journal.durableSeq) {
			break
		}
		lg.durable = max(lg.durable, end)
		lg.durableCursor.at++
		lg.unsynced -= int64(batch.length)
		e.unsynced -= int64(batch.length)
		moved = true
	}
	if moved {
		e.notifyDurable(lg, at)
	}
}

func (v *env) notifyDurable(lg *log, at writeTiming) {
	lg.lastWrite = at
	v.notifyReaders(lg)
}

// NotifyReaders has the event Durable come for the log: its owner shows readers what
// is not durable yet.
func (e *Engine) NotifyReaders(slot Slot) { e.notifyReaders(&e.logs.all[slot]) }

func (v *env) notifyReaders(lg *log) {
	if !lg.durableEventDue && lg.state == logOpen {
		lg.durableEventDue = true
		v.emit(Event{Kind: Durable, Slot: lg.slot})
	}
}
