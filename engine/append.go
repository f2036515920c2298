package engine

import (
	"unsafe"

	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
)

// One append, as the function it stands for:
//
//	batch, base := reserve(n)           // Reserve: choose journal or direct write, find room
//	copy(batch, request)                // the caller: the only copy; it validates and stamps
//	commit(batch)                       // Commit: the batch has offsets, readers do not see it
//	await the end of the turn
//	seal(frame); await write and sync   // stepJournal: linked; both are over in frameCompleted
//	await the frames before             // advanceFrames, entryDurable
//	await what is before it in its log  // advanceDurable
//	notify                              // notifyDurable: the event Durable, for the reply
//
// All appends of a turn, of all logs of the shard, share one frame, one write and one
// sync: that is group commit, without a timer. A large batch takes the same steps with an
// extent of its log's segment in place of the frame (direct.go, extent.go): openExtentFor,
// seal, sendExtent, extentOver. Both ways meet in advanceDurable.

// reservation is the room that Reserve handed out until Commit or Abort.
type reservation struct {
	active bool
	direct bool // it is in the log's extent that is being built; else in the open frame
	slot   Slot
	bytes  int   // of the batch
	slab   int32 // where its entry's header goes
	pos    int
}

// Reserve gives n bytes of log memory for one batch of a log, and the offset of
// its first record. Commit or Abort must follow in the same turn. WaitMemory and
// WaitRoom: try again when Progress has changed.
func (e *Engine) Reserve(slot Slot, n int) (dst []byte, base int64, st Status) {
	if e.JournalKept() {
		return nil, 0, NoSpace
	}
	return e.ReserveKept(slot, n)
}

// JournalKept reports that nothing frees the journal, as the disk has no room for a
// checkpoint, and that the rest of it is left to what makes room: deleted logs, moved
// starts, and what is appended by ReserveKept.
func (e *Engine) JournalKept() bool {
	return e.checkpoints.short && e.journal.usedBlocks > e.journal.blocks/2
}

// ReserveKept is Reserve for a batch that has room made on the disk.
func (e *Engine) ReserveKept(slot Slot, n int) (dst []byte, base int64, st Status) {
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
	if lg.firstHole != none {
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
	// The segment has room before the journal has the batch: what is acknowledged
	// can always be flushed.
	if st := e.admit(lg, room); st != OK {
		return nil, 0, st
	}
	if !e.batches.fits(lg) {
		e.cache.evictOldest(&e.logs, &e.batches)
	}
	switch {
	case !e.batches.fits(lg):
	case direct && e.openExtentFor(lg, n):
		ext := &e.extents.pool[lg.building]
		return e.handOut(lg, n, true, ext.slab, ext.pos+format.HeaderBytes+ext.bytes), lg.end, OK
	case e.openFrameFor(n):
		return e.handOut(lg, n, false, e.cache.current, e.journal.openPos+e.journal.openBytes), lg.end, OK
	}
	e.stats.WaitMemory++
	e.journal.memoryShort = true
	return nil, 0, WaitMemory
}

// Room asks for room for a batch of n bytes behind what is admitted to the log, without
// reserving it: OK, WaitRoom or NoSpace.
func (e *Engine) Room(slot Slot, n int) Status {
	if !e.logs.isOpen(slot) {
		return Unknown
	}
	return e.admit(&e.logs.all[slot], int64(format.EntryHeaderBytes+format.Align8(n)))
}

// handOut makes the reservation and gives the memory for the batch itself, behind its
// entry's header.
func (e *Engine) handOut(lg *log, n int, direct bool, slab int32, pos int) []byte {
	e.reserved = reservation{active: true, direct: direct, slot: lg.slot, bytes: n, slab: slab, pos: pos}
	at := pos + format.EntryHeaderBytes
	return e.cache.slabs[slab].block.Bytes()[at : at+n : at+n]
}

// openFrameFor makes sure that a frame is open that takes an entry of n bytes. An open
// one without room is sealed, and the next one opened. False: there is no memory, or no
// free place in journal.live.
func (e *Engine) openFrameFor(n int) bool {
	j, c := &e.journal, &e.cache
	need := format.EntryHeaderBytes + format.Align8(n)
	if j.openBytes > 0 {
		if j.openBytes+need <= max(e.o.frameBytes(), format.HeaderBytes+need) && j.openPos+j.openBytes+need <= c.slabs[c.current].block.Len() {
			return true
		}
		if j.openEntries > 0 {
			j.seal(c)
		} else {
			j.openBytes = 0
			c.slabs[c.current].frames--
		}
	}
	// More frames may be sealed than are in flight; log memory bounds what is built ahead.
	if j.sealedSeq+2-j.released >= uint64(len(j.live)) {
		j.memoryShort = true
		return false
	}
	if c.current == none || c.slabs[c.current].used+format.HeaderBytes+need > c.slabs[c.current].block.Len() {
		if !c.take(&e.logs, &e.batches, &c.current) {
			j.memoryShort = true
			return false
		}
	}
	slab := &c.slabs[c.current]
	slab.frames++
	j.openPos, j.openBytes, j.openEntries = slab.used, format.HeaderBytes, 0
	j.grown.Use(int((j.sealedSeq+1)%uint64(len(j.live))+1) * int(unsafe.Sizeof(liveFrame{})))
	*j.frame(j.sealedSeq + 1) = liveFrame{slab: c.current, pos: j.openPos}
	return true
}

// Abort gives back what Reserve handed out.
func (e *Engine) Abort() { e.reserved.active = false }

// Meta is what the engine keeps of a batch.
type Meta struct {
	Count        uint32 // of records
	MaxTime      int64  // the largest timestamp, in milliseconds; negative: there is none
	TimesChecked bool   // each record has a timestamp, and none is newer than MaxTime
	CRC          uint32
}

// Commit appends the batch that Reserve made room for: it takes meta.Count offsets from
// the base on. It is not durable yet, and waits for the end of the turn.
func (e *Engine) Commit(meta Meta) {
	r := &e.reserved
	if !r.active || meta.Count == 0 {
		panic("engine: Commit without Reserve, or of no records")
	}
	r.active = false
	lg := &e.logs.all[r.slot]
	if lg.nEpochs == 0 || lg.epochs[lg.nEpochs-1].Epoch != int32(e.epoch) {
		lg.addEpoch(format.EpochStart{Epoch: int32(e.epoch), Start: lg.end})
	}
	entry := format.Entry{Kind: format.EntryData, Log: lg.id, Base: lg.end, Count: meta.Count, Length: uint32(r.bytes),
		CRC: meta.CRC, Slot: uint32(r.slot), Durable: lg.durable, MaxTime: meta.MaxTime}
	added := e.batches.push(lg)
	*added = batch{base: lg.end, maxTime: meta.MaxTime, slab: r.slab, pos: uint32(r.pos), length: uint32(r.bytes), count: meta.Count, timesChecked: meta.TimesChecked, age: e.cache.age}
	if r.direct {
		ext := &e.extents.pool[lg.building]
		putEntry(e.cache.slabs[r.slab].block.Bytes()[r.pos:], &entry)
		ext.bytes += entry.Bytes()
		ext.header.Add(added.base, added.count, added.maxTime, added.timesChecked)
		e.journal.lastEntry = e.now
		e.stats.Entries++
	} else {
		added.seq = e.journal.append(&e.cache, &entry)
		e.journal.frame(added.seq).unflushed++
		if lg.unflushed == 0 {
			lg.oldestUnflushed = e.now
		}
		lg.unflushed += int64(entry.Bytes())
		if lg.frameSeq != added.seq {
			lg.frameSeq, lg.frameBytes = added.seq, 0
		}
		lg.frameBytes += entry.Bytes()
		e.flush.enqueue(lg)
	}
	e.cache.slabs[r.slab].unflushed++
	e.segments.all[lg.active].pending += int64(entry.Bytes())
	lg.unsynced += int64(r.bytes)
	e.unsynced += int64(r.bytes)
	if meta.MaxTime > lg.maxTime || lg.maxTimeBase == format.NoOffset {
		lg.maxTime, lg.maxTimeBase = meta.MaxTime, lg.end
	}
	lg.end += int64(meta.Count)
}

// stepJournal goes on after the wait for the turn's end. It writes sealed frames, and seals
// the open one, while fewer than Options.InflightMax are in flight.
func (e *Engine) stepJournal(sleep *ioring.Instant) {
	j := &e.journal
	if e.failed {
		return
	}
	for seq := j.durableSeq + 1; seq <= j.submitted; seq++ { // where the ring had no room, or a write was short
		if j.frame(seq).state == frameInFlight && !j.push(seq) {
			earlier(sleep, e.now)
			return
		}
	}
	e.stampWhenIdle(sleep)
	for j.inFlight() < e.o.InflightMax {
		if j.submitted == j.sealedSeq {
			if j.openEntries == 0 || e.reserved.active {
				return
			}
			j.seal(&e.cache)
		}
		if !j.submit(&e.cache) {
			return // the journal is full: a checkpoint frees it
		}
		if !j.push(j.submitted) {
			earlier(sleep, e.now)
			return
		}
	}
}

// submit gives the next sealed frame its place in the journal and its header.
// False: the journal has no room.
func (j *journal) submit(cache *cache) bool {
	seq := j.submitted + 1
	frame := j.frame(seq)
	if !j.place(frame) {
		return false
	}
	bytes := int(frame.blocks) * format.BlockBytes
	block := cache.slabs[frame.slab].block.Slice(frame.pos, bytes)
	header := format.FrameHeader{Journal: j.id, Shard: uint32(j.env.shard), Entries: frame.entries, Sequence: seq, Durable: j.durableSeq}
	header.Header = j.env.header(block.Bytes()[format.HeaderBytes:frame.bytes], j.chain)
	header.Put(block.Bytes())
	j.chain, j.stampSeq, j.stampAt = header.CRC, j.durableSeq, 0
	if frame.entries > 0 {
		j.dataSeq = seq
	}
	frame.state, frame.at = frameInFlight, j.env.now
	frame.io.begin(j.file, frame.block*format.BlockBytes, block)
	j.submitted = seq
	j.env.appendedAt = j.env.now
	j.env.disk.begin(WorkFrames, bytes)
	j.env.stats.Frames++
	j.env.stats.FrameBytes += uint64(bytes)
	return true
}

// frameCompleted goes on after the waits for a frame's write and its sync. A failure ends
// this shard's appends: a sync is never repeated and then trusted.
func (e *Engine) frameCompleted(index uint32, completion ioring.Completion) {
	frame, over := e.journal.complete(index, completion)
	if !over {
		return
	}
	if frame.io.errno != 0 {
		frame.state = frameBroken
		e.journal.brokenFrames++
		e.fail(frame.io.failure(JournalFile))
		return
	}
	frame.state = frameDone
	e.advanceFrames()
	if e.failed && frame.state == frameDone { // behind a broken frame: never durable
		frame.state = frameBroken
		e.journal.brokenFrames++
	}
}

// advanceFrames goes on after the wait for the frames before. It makes frames durable that
// are written and synced, in order, and does what waited for their entries.
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

// entryDurable does what waited for an entry of the journal.
func (e *Engine) entryDurable(entry *format.Entry, timing writeTiming) {
	lg := &e.logs.all[entry.Slot]
	if lg.state == logFree || lg.id != entry.Log {
		return // the log was deleted meanwhile
	}
	switch entry.Kind {
	case format.EntryData:
		e.advanceDurable(lg, timing)
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

// advanceDurable goes on after the wait for what is before a batch in its log. It moves the
// durable offset over batches that are in a durable frame or flushed, without a gap.
func (e *Engine) advanceDurable(lg *log, timing writeTiming) {
	moved := false
	for batch := e.batches.at(&lg.durableCursor); batch != nil; batch = e.batches.at(&lg.durableCursor) {
		end := batch.base + int64(batch.count)
		if end > lg.flushed && (batch.direct() || batch.seq > e.journal.durableSeq) {
			break
		}
		lg.durable = max(lg.durable, end)
		lg.durableCursor.at++
		lg.unsynced -= int64(batch.length)
		e.unsynced -= int64(batch.length)
		moved = true
	}
	if moved {
		e.notifyDurable(lg, timing)
	}
}

// notifyDurable says that a log's durable offset moved, by a write with this timing.
func (v *env) notifyDurable(lg *log, timing writeTiming) {
	lg.lastWrite = timing
	v.notifyReaders(lg)
}

// notifyReaders queues the event Durable of a log, unless it is in the queue.
func (v *env) notifyReaders(lg *log) {
	if !lg.durableEventDue && lg.state == logOpen {
		lg.durableEventDue = true
		v.emit(Event{Kind: Durable, Slot: lg.slot})
	}
}

// NotifyReaders queues the event Durable of a log though nothing became durable: with
// write.caching the owner shows readers what is only appended.
func (e *Engine) NotifyReaders(slot Slot) { e.notifyReaders(&e.logs.all[slot]) }
