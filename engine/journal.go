package engine

import (
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// journal is a file of a fixed number of blocks that is written as a circle of frames.
// One frame's life, as the function it stands for:
//
//	open(); append(entries); seal(); place(); await write+sync(); durable, in order; await flushed, in both checkpoints; release
//
// A frame is built in log memory and written from there. It is sealed when the shard's
// turn ends and fewer frames than Options.InflightMax are in flight, or when it is full.
//
// Invariant: released <= durableSeq+1; durableSeq <= submitted <= sealedSeq. The open
// frame, if any, has the sequence sealedSeq+1.
type journal struct {
	env   *env
	id    uint64      // of this journal in this process: see format.JournalID
	live  []liveFrame // frames from released to the open one, by sequence: a circle
	grown *mem.Region // live

	durableSeq uint64 // frames up to here are durable
	submitted  uint64 // ... have their place in the file and are or were in flight
	sealedSeq  uint64 // ... take no more entries
	released   uint64 // the first frame whose blocks are in use

	openPos         int // of the open frame in its slab
	openBytes       int // of the open frame, header included; 0: no frame is open
	openEntries     uint32
	chain           uint32 // header CRC of the last submitted frame
	next            int64  // block of the next frame, unless the end has too few left
	blocks          int64  // of the journal file
	usedBlocks      int64  // of frames that are not released, with those wasted at the end
	file            uint32
	stampSeq        uint64         // the durable sequence in the header of the last frame
	dataSeq         uint64         // the last frame with an entry
	lastEntry       ioring.Instant // when the last entry was appended, to a frame or an extent
	replayHint      uint64         // frames before it are flushed
	full            bool           // the next frame finds no room in the file
	sinceCheckpoint int64          // blocks submitted since the last checkpoint was begun
	stampAt         ioring.Instant // when the empty frame of stampWhenIdle is due; 0: not set
	memoryShort     bool           // an append waits for memory: flushes are urgent
	brokenFrames    int            // submitted frames that will never be durable
}

// liveFrame is a frame whose blocks in the journal are not free.
type liveFrame struct {
	block     int64
	blocks    int32
	wasted    int32  // blocks left unused at the journal's end before it
	previous  uint32 // header CRC of the frame before
	unflushed int32  // batches in it that no segment has
	entries   uint32
	slab      int32
	pos       int
	bytes     int // header and body
	state     frameState
	at        ioring.Instant // when it was submitted
	io        writeSync
}

// frameState is the life of a frame, from its seal on.
type frameState uint8

const (
	frameSealed frameState = iota + 1
	frameInFlight
	frameDone // written and synced; a frame before it is not
	frameDurable
	frameBroken // its write or sync failed, or that of a frame before it
)

// idleStampNS is how long after the last frame an empty one is written.
const idleStampNS = 50e6

// allocate makes live: a frame for each block of the file, as a frame has at least one, and
// some for frames that are sealed and wait for their place in the file.
func (j *journal) allocate(arena *mem.Arena) (err error) {
	j.live, j.grown, err = mem.MapTable[liveFrame](arena, "frames in the journal", j.env.o.JournalBytes/format.BlockBytes+64)
	j.released = 1
	j.file = j.env.o.Files + slotJournal
	return err
}

// frame is the frame with a sequence number.
func (j *journal) frame(seq uint64) *liveFrame { return &j.live[seq%uint64(len(j.live))] }

// inFlight is how many frames are submitted and not durable.
func (j *journal) inFlight() int { return int(j.submitted - j.durableSeq) }

// append adds an entry, whose bytes are in place, to the open frame: it writes the
// entry's header. openFrameFor has made room. seq is the frame's.
func (j *journal) append(cache *cache, entry *format.Entry) (seq uint64) {
	buf := cache.slabs[cache.current].block.Bytes()
	putEntry(buf[j.openPos+j.openBytes:], entry)
	j.openBytes += entry.Bytes()
	j.openEntries++
	j.lastEntry = j.env.now
	j.env.stats.Entries++
	return j.sealedSeq + 1
}

// appendControl appends an entry without bytes; openFrameFor(0) made room for it.
func (j *journal) appendControl(cache *cache, entry format.Entry) { j.append(cache, &entry) }

// putEntry writes the header of an entry, and the zeroes that pad its bytes.
func putEntry(buf []byte, entry *format.Entry) {
	entry.Put(buf)
	clear(buf[format.EntryHeaderBytes+int(entry.Length) : entry.Bytes()])
}

// seal closes the open frame.
func (j *journal) seal(cache *cache) {
	slab := &cache.slabs[cache.current]
	frame := j.frame(j.sealedSeq + 1)
	n := format.AlignBlock(j.openBytes)
	clear(slab.block.Bytes()[j.openPos+j.openBytes : j.openPos+n])
	frame.state, frame.entries = frameSealed, j.openEntries
	frame.bytes, frame.blocks = j.openBytes, int32(n/format.BlockBytes)
	slab.used = j.openPos + n
	j.openBytes, j.openEntries = 0, 0
	j.sealedSeq++
}

// place gives a frame the next blocks of the journal, from its beginning where
// the end has too few left. False: there are not so many free ones.
func (j *journal) place(frame *liveFrame) bool {
	wasted := int64(0)
	if j.next+int64(frame.blocks) > j.blocks {
		wasted = j.blocks - j.next
	}
	taken := wasted + int64(frame.blocks)
	if j.full = j.usedBlocks+taken > j.blocks; j.full {
		return false
	}
	j.usedBlocks += taken
	j.sinceCheckpoint += taken
	frame.wasted = int32(wasted)
	if wasted > 0 {
		j.next = 0
	}
	frame.block, frame.previous = j.next, j.chain
	j.next += int64(frame.blocks)
	if j.next == j.blocks {
		j.next = 0
	}
	return true
}

// push starts what is left of a frame's write and its sync. False: the ring has
// no room.
func (j *journal) push(seq uint64) bool {
	frame, index := j.frame(seq), uint32(seq%uint64(len(j.live)))
	if j.env.o.Faults.Has(NoSync) && !frame.io.pushed {
		if j.env.ring.Room() < 1 {
			return false
		}
		frame.io.pushed, frame.io.writing = true, true
		return j.env.ring.Push(ioring.Op{Code: ioring.Write, File: frame.io.file, Offset: frame.io.offset + uint64(frame.io.done),
			Buf: frame.io.buf.Slice(frame.io.done, frame.io.buf.Len()-frame.io.done), Token: ioring.MakeToken(kindFrame, 0, index<<1)})
	}
	return frame.io.push(j.env.ring, kindFrame, index)
}

// complete takes the completion of a frame's write or sync. over: the frame is
// written and synced, or has failed.
func (j *journal) complete(index uint32, completion ioring.Completion) (frame *liveFrame, over bool) {
	frame = &j.live[index>>1]
	over = frame.io.complete(index&1 != 0, completion.Result, j.env.now)
	if j.env.o.Faults.Has(NoSync|AckBeforeSync) && frame.io.errno == 0 && frame.io.done == frame.io.buf.Len() {
		over = true // as if the sync had come
	}
	if !over || frame.state != frameInFlight {
		return frame, false
	}
	j.env.disk.end(WorkFrames, int(frame.blocks)*format.BlockBytes)
	return frame, true
}

// stampWhenIdle writes an empty frame idleStampNS after the last one. Its header says
// that the last one is durable: a start that finds that one broken knows then that
// acknowledged records are lost, and does not take it for the hole of a power cut.
func (e *Engine) stampWhenIdle(sleep *ioring.Instant) {
	j := &e.journal
	if j.openEntries > 0 || j.sealedSeq > j.durableSeq || j.stampSeq >= j.dataSeq {
		return
	}
	switch {
	case j.stampAt == 0:
		j.stampAt = e.now + idleStampNS
	case (e.now >= j.stampAt || e.stopping) && j.openBytes == 0 && j.usedBlocks+8 < j.blocks/2 && e.openFrameFor(0):
		j.seal(&e.cache)
	case e.now >= j.stampAt && j.openBytes > 0:
		j.seal(&e.cache)
	}
	if j.sealedSeq == j.durableSeq && e.now < j.stampAt {
		earlier(sleep, j.stampAt)
	}
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

// replayFrom is the first frame that must be replayed: it is not durable, or
// holds a batch that no segment has.
func (j *journal) replayFrom() uint64 {
	seq := max(j.released, j.replayHint)
	for seq <= j.durableSeq && j.frame(seq).unflushed == 0 {
		seq++
	}
	j.replayHint = seq
	return seq
}

// blocksBefore is how many used blocks lie before a frame, which is at most the first
// that is not submitted.
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
