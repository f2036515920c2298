package engine

import (
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// The journal. One frame's life, as the function it stands for:
//
//	build(entries); seal(); await write+sync(); durable in order; told
//
// Frames are built in log memory, closed when the shard's turn ends and there
// is room in flight, and written as they lie.
type frames struct {
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
	file     uint32
	offset   uint64
	buf      mem.Block
	done     int
	writing  bool
	syncing  bool
	syncOnly bool
	pushed   bool
	errno    int
	syn      bool
	written  ioring.Instant // when its last write was reaped
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

func again(result int32) bool {
	return result == -int32(ioring.EINTR) || result == -int32(ioring.EAGAIN)
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
				w.done &^= blockBytes - 1
			}
		case again(result):
		case w.errno == 0:
			w.errno = int(-result)
			if result == 0 {
				w.errno = int(ioring.EIO)
			}
		}
	} else {
		w.syncing = false
		switch {
		case result == 0:
			w.syn = true
		case again(result) || result == -int32(ioring.ECANCELED):
		case w.errno == 0:
			w.errno = int(-result)
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

func (e *Engine) carveFrames(*mem.Arena) error {
	e.live = make([]liveFrame, e.o.JournalBytes/blockBytes+64)
	e.released = 1
	return nil
}

func (e *Engine) openEntries() uint32 { return e.openCount }

// entryFits makes sure that the open frame can take an entry of n bytes,
// closing it and opening the next where it must.
func (e *Engine) entryFits(n int) bool {
	need := entryHeader + align8(n)
	if e.openBytes > 0 {
		if e.openBytes+need <= max(e.o.frameBytes(), pieceHeader+need) && e.openPos+e.openBytes+need <= e.slabs[e.slab].block.Len() {
			return true
		}
		if e.openCount > 0 {
			e.sealFrame()
		} else {
			e.openBytes = 0
			e.slabs[e.slab].frames--
		}
	}
	// a frame more may be closed than is in flight: what is built ahead is bounded by log memory
	if e.sealedSeq+2-e.released >= uint64(len(e.live)) {
		e.pressed = true
		return false
	}
	if e.slab == none || e.slabs[e.slab].used+pieceHeader+need > e.slabs[e.slab].block.Len() {
		if !e.takeSlab(&e.slab) {
			e.pressed = true
			return false
		}
	}
	s := &e.slabs[e.slab]
	s.frames++
	e.openPos, e.openBytes, e.openCount = s.used, pieceHeader, 0
	e.live[(e.sealedSeq+1)%uint64(len(e.live))] = liveFrame{slab: e.slab, pos: e.openPos}
	return true
}

// appendEntry writes the header of an entry whose bytes are in place.
func (e *Engine) appendEntry(h *entry) (seq uint64) {
	b := e.slabs[e.slab].block.Bytes()
	putEntry(b[e.openPos+e.openBytes:], h)
	e.openBytes += h.bytes()
	e.openCount++
	e.lastEntry = e.now
	e.stats.Entries++
	return e.sealedSeq + 1
}

// putEntry writes the header of an entry, and the zeroes after its bytes.
func putEntry(p []byte, h *entry) {
	h.put(p)
	clear(p[entryHeader+int(h.length) : h.bytes()])
}

// putNote appends an entry without bytes; entryFits(0) said that it fits.
func (e *Engine) putNote(h entry) { e.appendEntry(&h) }

func (e *Engine) sealFrame() {
	s := &e.slabs[e.slab]
	f := &e.live[(e.sealedSeq+1)%uint64(len(e.live))]
	b := s.block.Bytes()
	n := alignBlock(e.openBytes)
	clear(b[e.openPos+e.openBytes : e.openPos+n])
	f.state, f.bytes, f.entries, f.blocks = frameSealed, e.openBytes, e.openCount, int32(n/blockBytes)
	s.used = e.openPos + n
	e.openBytes, e.openCount = 0, 0
	e.sealedSeq++
}

// stepFrames submits closed frames, and closes the open one, while frames may
// be in flight.
func (e *Engine) stepFrames(sleep *ioring.Instant) {
	if e.failed != 0 {
		return
	}
	for q := e.durableSeq + 1; q <= e.submitted; q++ {
		f := &e.live[q%uint64(len(e.live))]
		if f.state == frameInFlight && !e.pushFrame(q) {
			earlier(sleep, e.now)
			return
		}
	}
	if e.openCount == 0 && e.sealedSeq == e.durableSeq && e.stampSeq < e.dataSeq {
		// an empty frame says that the newest one is durable
		switch {
		case e.idleAt == 0:
			e.idleAt = e.now + idleStampNS
		case (e.now >= e.idleAt || e.stopping) && e.openBytes == 0 && e.used+8 < e.blocks/2 && e.entryFits(0):
			e.sealFrame()
		case e.now >= e.idleAt && e.openBytes > 0:
			e.sealFrame()
		}
		if e.sealedSeq == e.durableSeq && e.now < e.idleAt {
			earlier(sleep, e.idleAt)
		}
	}
	for e.submitted-e.durableSeq < uint64(e.o.InflightMax) {
		if e.submitted == e.sealedSeq {
			if e.openCount == 0 || e.reserved.active {
				return
			}
			e.sealFrame()
		}
		if !e.submitFrame() {
			return // the journal is full: a checkpoint frees it
		}
		q := e.submitted
		if !e.pushFrame(q) {
			earlier(sleep, e.now)
			return
		}
	}
}

// submitFrame gives the next closed frame its place and its header.
func (e *Engine) submitFrame() bool {
	q := e.submitted + 1
	f := &e.live[q%uint64(len(e.live))]
	wasted := int64(0)
	if e.next+int64(f.blocks) > e.blocks {
		wasted = e.blocks - e.next
	}
	if e.used+wasted+int64(f.blocks) > e.blocks {
		e.journalFull = true
		return false
	}
	e.used += wasted + int64(f.blocks)
	f.wasted = int32(wasted)
	if wasted > 0 {
		e.next = 0
	}
	f.block, f.previous = e.next, e.chain
	e.next += int64(f.blocks)
	if e.next == e.blocks {
		e.next = 0
	}
	p := e.slabs[f.slab].block.Bytes()[f.pos:]
	h := frameHeader{journal: e.journal, shard: uint32(e.shard), entries: f.entries, sequence: q, durable: e.durableSeq}
	h.directory, h.epoch, h.bodyBytes, h.previous = e.dir, e.epoch, uint32(f.bytes-pieceHeader), e.chain
	h.bodyCRC = crcOf(p[pieceHeader:f.bytes])
	h.put(p)
	e.chain, e.stampSeq, e.idleAt = h.crc, e.durableSeq, 0
	if f.entries > 0 {
		e.dataSeq = q
	}
	e.journalFull = false
	e.sinceCheck += wasted + int64(f.blocks)
	f.state, f.at = frameInFlight, e.now
	e.disk.begin(WorkFrames, int(f.blocks)*blockBytes)
	e.appendedAt = e.now
	f.io.begin(e.file, f.block*blockBytes, e.slabs[f.slab].block.Slice(f.pos, int(f.blocks)*blockBytes))
	e.submitted = q
	e.stats.Frames++
	e.stats.FrameBytes += uint64(f.blocks) * blockBytes
	return true
}

func (e *Engine) pushFrame(q uint64) bool {
	i := q % uint64(len(e.live))
	f := &e.live[i]
	if e.o.Faults.has(NoSync) && !f.io.pushed {
		if e.ring.Room() < 1 {
			return false
		}
		f.io.pushed, f.io.writing = true, true
		return e.ring.Push(ioring.Op{Code: ioring.Write, File: f.io.file, Offset: f.io.offset + uint64(f.io.done), Buf: f.io.buf.Slice(f.io.done, f.io.buf.Len()-f.io.done), Token: ioring.MakeToken(kindFrame, 0, uint32(i)<<1)})
	}
	return f.io.push(e.ring, kindFrame, uint32(i))
}

func (e *Engine) frameCompleted(i uint32, c ioring.Completion) {
	f := &e.live[i>>1]
	over := f.io.complete(i&1 != 0, c.Result, e.now)
	if e.o.Faults.has(NoSync) && f.io.errno == 0 && f.io.done == f.io.buf.Len() {
		over = true
	}
	if e.o.Faults.has(AckBeforeSync) && f.io.errno == 0 && f.io.done == f.io.buf.Len() && f.state == frameInFlight {
		f.state = frameDone
		e.disk.end(WorkFrames, int(f.blocks)*blockBytes)
		e.advance()
		return
	}
	if !over || f.state != frameInFlight {
		return
	}
	e.disk.end(WorkFrames, int(f.blocks)*blockBytes)
	if f.io.errno != 0 {
		f.state = frameBroken
		e.brokenFrames++
		e.fail(f.io.errno)
		return
	}
	f.state = frameDone
	e.advance()
	if e.failed != 0 && f.state == frameDone {
		e.brokenFrames++ // after a broken one: never durable
		f.state = frameBroken
	}
}

// advance makes frames durable, in order, and says what that means.
func (e *Engine) advance() {
	for e.failed == 0 && e.durableSeq < e.submitted {
		f := &e.live[(e.durableSeq+1)%uint64(len(e.live))]
		if f.state != frameDone {
			return
		}
		f.state = frameDurable
		e.durableSeq++
		e.changes++
		e.slabs[f.slab].frames--
		b := e.slabs[f.slab].block.Bytes()[f.pos : f.pos+f.bytes]
		for at := pieceHeader; at < len(b); {
			var h entry
			h.read(b[at:])
			at += h.bytes()
			e.entryDurable(&h, landing{f.at, f.io.written, f.bytes})
		}
	}
}

func (e *Engine) entryDurable(h *entry, at landing) {
	l := &e.logs[h.slot]
	if l.state == logFree || l.id != h.log {
		return
	}
	switch h.kind {
	case entryData:
		e.settle(Slot(h.slot), at)
		e.queueDrain(int32(h.slot))
	case entryOpened:
		l.state = logOpen
		e.tell(Event{Kind: Opened, User: l.user, Slot: Slot(h.slot)})
	case entryClosed:
		e.logClosed(Slot(h.slot))
	case entryStartMoved:
		e.startMoved(Slot(h.slot), h.base)
	case entryAssigned:
		e.segmentAssigned(l, h.aux)
	}
}

// release frees the journal's blocks before frame upTo.
func (e *Engine) release(upTo uint64) {
	for e.released < upTo {
		f := &e.live[e.released%uint64(len(e.live))]
		e.used -= int64(f.blocks) + int64(f.wasted)
		e.released++
		e.changes++
	}
}

// replayFrom is the first frame that must be replayed: not durable, or with
// something in it that is not drained.
func (e *Engine) replayFrom() uint64 {
	q := max(e.released, e.replayHint)
	for q <= e.durableSeq && e.live[q%uint64(len(e.live))].undrained == 0 {
		q++
	}
	e.replayHint = q
	return q
}
