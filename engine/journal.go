package engine

import (
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// The journal. One frame's life, as the function it stands for:
//
//	build(entries); seal(); await write+sync(); durable in order; told
//
// Frames are built in log memory, closed when the shard's turn ends and there
// is room in flight, and written as they lie.
type journal struct {
	live []liveFrame // by sequence, from released to sealed; a circle

	// Invariant: released <= durableSeq+1; durableSeq <= submitted <= sealedSeq.
	durableSeq uint64 // frames up to here are durable
	submitted  uint64 // ... were pushed
	sealedSeq  uint64 // ... are closed
	released   uint64 // the first whose journal blocks are not free

	openPos      int // of the open frame in its slab
	openBytes    int // header included; 0: no frame is open
	openCount    uint32
	chain        uint32 // header CRC of the last submitted frame
	next         int64  // block the next frame goes to
	blocks       int64  // of the journal file
	used         int64  // blocks that are not free, the wasted ones at the end included
	file         uint32
	stampSeq     uint64 // the durable stamp of the last frame
	dataSeq      uint64 // the last frame that holds anything
	lastEntry    ioring.Instant
	replayHint   uint64
	journalFull  bool  // a frame found no room
	sinceCheck   int64 // blocks submitted since the last checkpoint was begun
	idleAt       ioring.Instant
	pressed      bool // an append waits for memory
	brokenFrames int
}

// liveFrame is a frame whose blocks in the journal are not free.
type liveFrame struct {
	block     int64
	blocks    int32
	wasted    int32 // blocks left at the journal's end before it
	previous  uint32
	undrained int32
	entries   uint32
	slab      int32
	pos       int
	bytes     int // body and header
	state     frameState
	at        ioring.Instant // when it was submitted
	io        writeSync
}

type frameState uint8

const (
	frameSealed frameState = iota + 1
	frameInFlight
	frameDone
	frameDurable
	frameBroken
)

// writeSync writes a buffer and syncs its file: linked, and again where the
// write came short. It owns nothing; the buffer is its caller's, lent until
// both have completed.
type writeSync struct {
	file    uint32
	offset  uint64
	buf     mem.Block
	done    int
	writing bool
	syncing bool
	pushed  bool
	syn     bool
	short   bool           // a write wrote nothing and gave no error
	errno   int            // of the first operation that failed
	failed  ioring.Code    // which that was
	written ioring.Instant // when its last write was reaped
}

func (w *writeSync) begin(file uint32, offset int64, buf mem.Block) {
	*w = writeSync{file: file, offset: uint64(offset), buf: buf}
}

// push starts what is left. False: the ring has no room now.
func (w *writeSync) push(r ioring.Ring, kind uint8, slot uint32) bool {
	if w.pushed {
		return true
	}
	if r.Room() < 2 {
		return false
	}
	if w.done < w.buf.Len() {
		r.Push(ioring.Op{Code: ioring.Write, Flags: ioring.FlagLink, File: w.file, Offset: w.offset + uint64(w.done), Buf: w.buf.Slice(w.done, w.buf.Len()-w.done), Token: ioring.MakeToken(kind, 0, slot<<1)})
		w.writing = true
	}
	r.Push(ioring.Op{Code: ioring.Sync, File: w.file, Token: ioring.MakeToken(kind, 0, slot<<1|1)})
	w.syncing, w.pushed, w.syn = true, true, false
	return true
}

// complete takes one of the two completions. over: it ended, well or with
// errno; else, with pushed false, push again.
func (w *writeSync) complete(sync bool, result int32, now ioring.Instant) (over bool) {
	if !sync {
		w.written = now
		w.writing = false
		switch {
		case result > 0:
			w.done += int(result)
			if w.done < w.buf.Len() {
				w.done &^= format.BlockBytes - 1
			}
		case again(ioring.Write, result):
		case w.errno == 0:
			w.errno, w.failed = int(-result), ioring.Write
			if result == 0 {
				w.errno, w.short = int(ioring.EIO), true
			}
		}
	} else {
		w.syncing = false
		switch {
		case result == 0:
			w.syn = true
		case again(ioring.Sync, result) || ioring.Judge(ioring.Sync, result) == ioring.Cancelled:
		case w.errno == 0:
			w.errno, w.failed = int(-result), ioring.Sync
		}
	}
	if w.writing || w.syncing {
		return false
	}
	if w.errno != 0 || w.done == w.buf.Len() && w.syn {
		return true
	}
	w.pushed = false
	return false
}

// failure is what made it end with errno. A failed sync names all that it was
// to make durable.
func (w *writeSync) failure(file FailedFile) Failure {
	f := Failure{Op: w.failed, File: file, Offset: int64(w.offset), Length: int64(w.buf.Len()), Errno: ioring.Errno(w.errno)}
	if w.failed == ioring.Write {
		f.Offset, f.Length = f.Offset+int64(w.done), f.Length-int64(w.done)
	}
	if w.short {
		f.Errno = 0
	}
	return f
}

func (e *Engine) carveFrames(*mem.Arena) error {
	e.journal.live = make([]liveFrame, e.o.JournalBytes/format.BlockBytes+64)
	e.journal.released = 1
	return nil
}

func (e *Engine) openEntries() uint32 { return e.journal.openCount }

// entryFits makes sure that the open frame can take an entry of n bytes,
// closing it and opening the next where it must.
func (e *Engine) entryFits(n int) bool {
	need := format.EntryHeaderBytes + format.Align8(n)
	if e.journal.openBytes > 0 {
		if e.journal.openBytes+need <= max(e.o.frameBytes(), format.HeaderBytes+need) && e.journal.openPos+e.journal.openBytes+need <= e.cache.slabs[e.cache.slab].block.Len() {
			return true
		}
		if e.journal.openCount > 0 {
			e.sealFrame()
		} else {
			e.journal.openBytes = 0
			e.cache.slabs[e.cache.slab].frames--
		}
	}
	// a frame more may be closed than is in flight: what is built ahead is bounded by log memory
	if e.journal.sealedSeq+2-e.journal.released >= uint64(len(e.journal.live)) {
		e.journal.pressed = true
		return false
	}
	if e.cache.slab == none || e.cache.slabs[e.cache.slab].used+format.HeaderBytes+need > e.cache.slabs[e.cache.slab].block.Len() {
		if !e.takeSlab(&e.cache.slab) {
			e.journal.pressed = true
			return false
		}
	}
	s := &e.cache.slabs[e.cache.slab]
	s.frames++
	e.journal.openPos, e.journal.openBytes, e.journal.openCount = s.used, format.HeaderBytes, 0
	e.journal.live[(e.journal.sealedSeq+1)%uint64(len(e.journal.live))] = liveFrame{slab: e.cache.slab, pos: e.journal.openPos}
	return true
}

// appendEntry writes the header of an entry whose bytes are in place.
func (e *Engine) appendEntry(h *format.Entry) (seq uint64) {
	b := e.cache.slabs[e.cache.slab].block.Bytes()
	putEntry(b[e.journal.openPos+e.journal.openBytes:], h)
	e.journal.openBytes += h.Bytes()
	e.journal.openCount++
	e.journal.lastEntry = e.now
	e.stats.Entries++
	return e.journal.sealedSeq + 1
}

// putEntry writes the header of an entry, and the zeroes after its bytes.
func putEntry(p []byte, h *format.Entry) {
	h.Put(p)
	clear(p[format.EntryHeaderBytes+int(h.Length) : h.Bytes()])
}

// putNote appends an entry without bytes; entryFits(0) said that it fits.
func (e *Engine) putNote(h format.Entry) { e.appendEntry(&h) }

func (e *Engine) sealFrame() {
	s := &e.cache.slabs[e.cache.slab]
	f := &e.journal.live[(e.journal.sealedSeq+1)%uint64(len(e.journal.live))]
	b := s.block.Bytes()
	n := format.AlignBlock(e.journal.openBytes)
	clear(b[e.journal.openPos+e.journal.openBytes : e.journal.openPos+n])
	f.state, f.bytes, f.entries, f.blocks = frameSealed, e.journal.openBytes, e.journal.openCount, int32(n/format.BlockBytes)
	s.used = e.journal.openPos + n
	e.journal.openBytes, e.journal.openCount = 0, 0
	e.journal.sealedSeq++
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

// release frees the journal's blocks before frame upTo.
func (e *Engine) release(upTo uint64) {
	for e.journal.released < upTo {
		f := &e.journal.live[e.journal.released%uint64(len(e.journal.live))]
		e.journal.used -= int64(f.blocks) + int64(f.wasted)
		e.journal.released++
		e.changes++
	}
}

// replayFrom is the first frame that must be replayed: not durable, or with
// something in it that is not drained.
func (e *Engine) replayFrom() uint64 {
	q := max(e.journal.released, e.journal.replayHint)
	for q <= e.journal.durableSeq && e.journal.live[q%uint64(len(e.journal.live))].undrained == 0 {
		q++
	}
	e.journal.replayHint = q
	return q
}
