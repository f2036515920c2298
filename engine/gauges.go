package engine

import (
	"github.com/tailbound/tailbound/ioring"
)

// Gauges are the occupancies of the engine's pools and queues.
type Gauges struct {
	Slabs, SlabsMax         int // of log memory that cannot be reused yet
	SlabsPinned             int // how many of those readers pin
	Frames, FramesMax       int // in flight: submitted, not durable
	JournalBlocks           int // in use
	JournalBlocksMax        int
	Flushes, FlushesMax     int // under way
	FlushQueue              int // logs that wait for a flush
	DiskReads, DiskReadsMax int
	Recycled, RecycledMax   int // files kept for new segments
	Logs, LogsMax           int
	Lossy                   int // logs that have lost records
	Holes, HolesMax         int // what they have lost
	IndexChunksFree         int
	IndexChunks             int // of the index of batches in memory
}

// Gauges looks at every slab and free chunk: it is not for every turn.
func (e *Engine) Gauges() Gauges {
	gauges := Gauges{
		SlabsMax: len(e.cache.slabs), SlabsPinned: e.cache.pinned, Frames: e.InFlight(), FramesMax: e.o.InflightMax,
		JournalBlocks: int(e.journal.usedBlocks), JournalBlocksMax: int(e.journal.blocks), Flushes: e.flush.busy, FlushesMax: flushesMax, FlushQueue: e.flush.queueLength,
		DiskReads: e.reads.busy, DiskReadsMax: readsMax, Recycled: e.recycled.count, RecycledMax: RecycledMax, Logs: len(e.logs.byID), LogsMax: e.o.LogsMax,
		Lossy: e.logs.holes.used - e.logs.holes.extra, Holes: e.logs.holes.used, HolesMax: len(e.logs.holes.all), IndexChunks: len(e.batches.chunks),
	}
	gauges.Slabs = gauges.SlabsMax - e.cache.reusable()
	gauges.IndexChunksFree = e.batches.fresh.Count(e.batches.free, func(i int32) int32 { return e.batches.chunks[i].next })
	return gauges
}

// InFlight is how many journal frames are submitted and not durable.
func (e *Engine) InFlight() int { return e.journal.inFlight() }

// Stats are counters, from the start of the engine.
type Stats struct {
	Frames, FrameBytes, Entries     uint64 // entries: of extents too
	Runs, RunBytes                  uint64 // extents sent
	DirectRuns, DirectBytes         uint64 // how many of those were direct
	Checkpoints, CheckpointBytes    uint64
	ColdReads, ColdBytes, Corrupt   uint64 // reads from disk; corrupt: those that found corruption
	ColdHeads                       uint64 // headers of runs that were read to find the right one
	Evictions, SegmentsMade, Grown  uint64 // evictions: slabs
	Recycled, Zeroed                uint64 // segments made of removed segments' files; of files of zeroes
	ZeroBytes                       uint64 // written to files of zeroes
	AgesRead                        uint64 // segments of earlier lives that were looked at to find out their age
	NoSpace, NoFile                 uint64 // files that could not be made or grown: the disk was full; for another reason
	DrainRetries                    uint64
	WaitMemory, WaitRoom, Truncated uint64 // calls that returned these (and room asked for ahead of need); starts moved
}

// Stats are the engine's counters; they go on counting.
func (e *Engine) Stats() *Stats { return &e.stats }

// Work is a kind of work for the disk. A write shares the disk with all other work in
// flight, which may be why it was slow.
type Work int

// The kinds of work.
const (
	WorkFrames      Work = iota // of the journal
	WorkDirect                  // direct extents
	WorkFlushes                 // from the journal to segments
	WorkCheckpoints             // writing them
	WorkFiles                   // making, growing, zeroing and removing files
	WorkReads                   // reads of segments
	Works                       // how many kinds there are
)

// Disk is how many bytes of work were begun, and how many have ended, since the start.
//
// Invariant: Over <= Begun, for each kind.
type Disk struct {
	Begun, Over [Works]uint64
}

// metadataBytes is what an operation on a file counts that moves no bytes of its own:
// the file system writes and syncs its own journal for it.
const metadataBytes = 64 << 10

// begin counts work that was given to the disk.
func (d *Disk) begin(kind Work, n int) { d.Begun[kind] += uint64(n) }

// end counts work that the disk has done, or has failed at.
func (d *Disk) end(kind Work, n int) { d.Over[kind] += uint64(n) }

// Disk is the engine's account of disk work; it goes on counting.
func (e *Engine) Disk() *Disk { return &e.disk }

// writeTiming is when a frame or an extent was written.
type writeTiming struct {
	submitted ioring.Instant // when it was pushed
	written   ioring.Instant // when its write was reaped; its sync completes later
	bytes     int
}

// LastWrite is the frame or extent that last moved Durable(slot): when it was pushed,
// when its write completed, and its size.
func (e *Engine) LastWrite(slot Slot) (submitted, written ioring.Instant, bytes int) {
	timing := &e.logs.all[slot].lastWrite
	return timing.submitted, timing.written, timing.bytes
}

// Unsynced is how many bytes of batches were appended and are not durable: of a log, and
// of all logs of the shard.
func (e *Engine) Unsynced(slot Slot) (own, all int64) { return e.logs.all[slot].unsynced, e.unsynced }

// JournalFull reports that a frame found no room in the journal: it waits for flushes and
// a checkpoint.
func (e *Engine) JournalFull() bool { return e.journal.full }
