package engine

import (
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
)

// The journal. One frame's life, as the function it stands for:
//
//	build(entries); seal(); await write+sync(); durable in order; told
//
// Frames are built in log memory, closed when the shard's turn ends and there
// is room in flight, and written as they lie.
type journal struct {
	env  *env
	id   uint64      // no other life of this journal has it
	live []liveFrame // by sequence, from released to sealed; a circle

	// Invariant: released <= durableSeq+1; durableSeq <= submitted <= sealedSeq.
	durableSeq uint64 // frames up to here are durable
	submitted  uint64 // ... were pushed
	sealedSeq  uint64 // ... are closed
	released   uint64 // the first whose journal blocks are not free

	openPos         int // of the open frame in its slab
	openBytes       int // header included; 0: no frame is open
	openEntries     uint32
	chain           uint32 // header CRC of the last submitted frame
	next            int64  // block the next frame goes to
	blocks          int64  // of the journal file
	usedBlocks      int64  // blocks that are not free, the wasted ones at the end included
	file            uint32
	stampSeq        uint64 // the durable stamp of the last frame
	dataSeq         uint64 // the last frame that holds anything
	lastEntry       ioring.Instant
	replayHint      uint64
	full            bool  // a frame found no room
	sinceCheckpoint int64 // blocks submitted since the last checkpoint was begun
	stampAt         ioring.Instant
	memoryShort     bool // an append waits for memory
	brokenFrames    int
}

// liveFrame is a frame whose blocks in the journal are not free.
type liveFrame struct {
	block     int64
	blocks    int32
	wasted    int32 // blocks left at the journal's end before it
	previous  uint32
	unflushed int32
	entries   uint32
	slab      int32
	pos       int
	bytes     int // body and header
	state     frameState
	at        ioring.Instant // when it was submitted
	io        writeSync
}

// idleStampNS is how long after the last frame an empty one says that it is
// durable.
const idleStampNS = 50e6

// frame is the frame with a sequence number.
func (j *journal) frame(seq uint64) *liveFrame { return &j.live[seq%uint64(len(j.live))] }

type frameState uint8

const (
	frameSealed frameState = iota + 1
	frameInFlight
	frameDone
	frameDurable
	frameBroken
)

func (j *journal) allocate() {
	j.live = make([]liveFrame, j.env.o.JournalBytes/format.BlockBytes+64)
	j.released = 1
	j.file = j.env.o.Files + slotJournal
}

// entryFits makes sure that the open frame can take an entry of n bytes,
// closing it and opening the next where it must.
func (e *Engine) openFrameFor(n int) bool {
	need := format.EntryHeaderBytes + format.Align8(n)
	if e.journal.openBytes > 0 {
		if e.journal.openBytes+need <= max(e.o.frameBytes(), format.HeaderBytes+need) && e.journal.openPos+e.journal.openBytes+need <= e.cache.slabs[e.cache.current].block.Len() {
			return true
		}
		if e.journal.openEntries > 0 {
			e.journal.seal(&e.cache)
		} else {
			e.journal.openBytes = 0
			e.cache.slabs[e.cache.current].frames--
		}
	}
	// a frame more may be closed than is in flight: what is built ahead is bounded by log memory
	if e.journal.sealedSeq+2-e.journal.released >= uint64(len(e.journal.live)) {
		e.journal.memoryShort = true
		return false
	}
	if e.cache.current == none || e.cache.slabs[e.cache.current].used+format.HeaderBytes+need > e.cache.slabs[e.cache.current].block.Len() {
		if !e.cache.take(&e.logs, &e.batches, &e.cache.current) {
			e.journal.memoryShort = true
			return false
		}
	}
	slab := &e.cache.slabs[e.cache.current]
	slab.frames++
	e.journal.openPos, e.journal.openBytes, e.journal.openEntries = slab.used, format.HeaderBytes, 0
	*e.journal.frame(e.journal.sealedSeq + 1) = liveFrame{slab: e.cache.current, pos: e.journal.openPos}
	return true
}

// appendEntry writes the header of an entry whose bytes are in place.
func (j *journal) append(cache *cache, entry *format.Entry) (seq uint64) {
	buf := cache.slabs[cache.current].block.Bytes()
	putEntry(buf[j.openPos+j.openBytes:], entry)
	j.openBytes += entry.Bytes()
	j.openEntries++
	j.lastEntry = j.env.now
	j.env.stats.Entries++
	return j.sealedSeq + 1
}

// putEntry writes the header of an entry, and the zeroes after its bytes.
func putEntry(buf []byte, entry *format.Entry) {
	entry.Put(buf)
	clear(buf[format.EntryHeaderBytes+int(entry.Length) : entry.Bytes()])
}

// putNote appends an entry without bytes; entryFits(0) said that it fits.
func (j *journal) appendControl(cache *cache, entry format.Entry) { j.append(cache, &entry) }

func (j *journal) seal(cache *cache) {
	slab := &cache.slabs[cache.current]
	frame := j.frame(j.sealedSeq + 1)
	buf := slab.block.Bytes()
	n := format.AlignBlock(j.openBytes)
	clear(buf[j.openPos+j.openBytes : j.openPos+n])
	frame.state, frame.bytes, frame.entries, frame.blocks = frameSealed, j.openBytes, j.openEntries, int32(n/format.BlockBytes)
	slab.used = j.openPos + n
	j.openBytes, j.openEntries = 0, 0
	j.sealedSeq++
}

// release frees the journal's blocks before frame upTo.
func (j *journal) release(upTo uint64) {
	for j.released < upTo {
		frame := j.frame(j.released)
		j.usedBlocks -= int64(frame.blocks) + int64(frame.wasted)
		j.released++
		j.env.progress++
	}
}

// replayFrom is the first frame that must be replayed: not durable, or with
// something in it that is not drained.
func (j *journal) replayFrom() uint64 {
	seq := max(j.released, j.replayHint)
	for seq <= j.durableSeq && j.frame(seq).unflushed == 0 {
		seq++
	}
	j.replayHint = seq
	return seq
}

// blocksBefore is how many of the journal's blocks in use lie before frame q, at
// most the first that is not durable.
func (j *journal) blocksBefore(seq uint64) int64 {
	if seq > j.submitted {
		return j.usedBlocks
	}
	n := j.frame(seq).block - j.frame(j.released).block
	if n < 0 {
		n += j.blocks
	}
	return n
}
