package engine

import (
	"github.com/tailbound/tailbound/ioring"
)

// Gauges are how full the engine's pools are, for people who watch.
type Gauges struct {
	Slabs, SlabsMax         int // of log memory: those that cannot be taken again yet
	SlabsPinned             int // of those, by readers
	Frames, FramesMax       int // in flight: submitted, not durable
	JournalBlocks           int // not free
	JournalBlocksMax        int
	Flushes, FlushesMax     int // being drained
	FlushQueue              int // logs that wait to be drained
	DiskReads, DiskReadsMax int
	Recycled, RecycledMax   int // files kept for logs to come
	Logs, LogsMax           int
	IndexChunksFree         int
	IndexChunks             int // of nodesPerChunk batches in memory
}

// Gauges looks at every slab: it is for once in a while.
func (e *Engine) Gauges() Gauges {
	levels := Gauges{
		SlabsMax: len(e.cache.slabs), SlabsPinned: e.cache.pinned, Frames: e.InFlight(), FramesMax: e.o.InflightMax,
		JournalBlocks: int(e.journal.usedBlocks), JournalBlocksMax: int(e.journal.blocks), Flushes: e.flush.busy, FlushesMax: flushesMax, FlushQueue: e.flush.queueLength,
		DiskReads: e.reads.busy, DiskReadsMax: readsMax, Recycled: e.recycled.count, RecycledMax: RecycledMax, Logs: len(e.logs.byID), LogsMax: e.o.LogsMax, IndexChunks: len(e.batches.chunks),
	}
	levels.Slabs = levels.SlabsMax - e.cache.reusable()
	for i := e.batches.free; i != none; i = e.batches.chunks[i].next {
		levels.IndexChunksFree++
	}
	return levels
}

// InFlight is how many journal frames are submitted and not durable.
func (e *Engine) InFlight() int { return e.journal.inFlight() }

// Stats are plain counters.
type Stats struct {
	Frames, FrameBytes, Entries     uint64
	Runs, RunBytes                  uint64
	DirectRuns, DirectBytes         uint64 // of those
	Checkpoints, CheckpointBytes    uint64
	ColdReads, ColdBytes, Corrupt   uint64
	ColdHeads                       uint64 // heads of runs that were read to find the one
	Evictions, SegmentsMade, Grown  uint64
	Recycled, Zeroed                uint64 // segments made of files that other logs let go; of files of zeroes
	ZeroBytes                       uint64 // written for those
	NoSpace, DrainRetries           uint64
	WaitMemory, WaitRoom, Truncated uint64
}

// Stats are the counters, live.
func (e *Engine) Stats() *Stats { return &e.stats }

// Work is what an engine has a disk do. What the disk does at the same time
// shares it: whoever asks why a write was slow wants to know of the others.
type Work int

// The kinds of work.
const (
	WorkFrames      Work = iota // of the journal
	WorkDirect                  // direct runs
	WorkFlushes                 // what the journal has, to segments
	WorkCheckpoints             //
	WorkFiles                   // making, growing, zeroing and removing them
	WorkReads                   // cold reads
	Works                       // how many there are
)

// Disk is what was begun and what is over, in bytes, since the start.
//
// Invariant: Over <= Begun, for each kind.
type Disk struct {
	Begun, Over [Works]uint64
}

// metadataBytes is what work on a file that moves no bytes counts as: the file
// system's own journal is written and synced for it.
const metadataBytes = 64 << 10

func (d *Disk) begin(kind Work, n int) { d.Begun[kind] += uint64(n) }

func (d *Disk) end(kind Work, n int) { d.Over[kind] += uint64(n) }

// Disk is what is under way, live.
func (e *Engine) Disk() *Disk { return &e.disk }

// landing is how a frame or a run came to the disk.
type writeTiming struct {
	submitted ioring.Instant // when it was pushed
	written   ioring.Instant // when its write was reaped; what is left is its sync
	bytes     int
}

// LastWrite tells of the frame or the run that last moved Durable(slot): when it was
// pushed, when its write was over, how large it was.
func (e *Engine) LastWrite(slot Slot) (submitted, written ioring.Instant, bytes int) {
	landing := &e.logs.all[slot].lastWrite
	return landing.submitted, landing.written, landing.bytes
}

// Unsynced is how many bytes of batches were appended and are not durable, of a
// log and of all of the shard.
func (e *Engine) Unsynced(slot Slot) (own, all int64) { return e.logs.all[slot].unsynced, e.unsynced }

// JournalFull says that a frame found no room in the journal: it waits for drains
// and for a checkpoint.
func (e *Engine) JournalFull() bool { return e.journal.full }
