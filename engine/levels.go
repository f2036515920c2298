package engine

import "github.com/tailbound/tailbound/mem"

// Levels are how full the engine's pools are, for people who watch.
type Levels struct {
	Slabs, SlabsMax         int // of log memory: those that cannot be taken again yet
	SlabsPinned             int // of those, by readers
	Frames, FramesMax       int // in flight: submitted, not durable
	JournalBlocks           int // not free
	JournalBlocksMax        int
	Runs, RunsMax           int // being drained
	DrainQueue              int // logs that wait to be drained
	ColdReads, ColdReadsMax int
	Spares, SparesMax       int // files kept for logs to come
	Logs, LogsMax           int
	IndexChunksFree         int
	IndexChunks             int // of nodesPerChunk batches in memory
}

// InFlight is how many journal frames are submitted and not durable.
func (e *Engine) InFlight() int { return int(e.journal.submitted - e.journal.durableSeq) }

// Levels looks at every slab: it is for once in a while.
func (e *Engine) Levels() Levels {
	l := Levels{
		SlabsMax: len(e.cache.slabs), SlabsPinned: e.cache.pinned, Frames: e.InFlight(), FramesMax: e.o.InflightMax,
		JournalBlocks: int(e.journal.used), JournalBlocksMax: int(e.journal.blocks), Runs: e.flush.drainsBusy, RunsMax: drainsMax, DrainQueue: e.flush.queueN,
		ColdReads: e.reads.coldsBusy, ColdReadsMax: readsMax, Spares: e.recycled.sparesN, SparesMax: RecycledMax, Logs: len(e.byID), LogsMax: e.o.LogsMax, IndexChunks: len(e.cache.chunks),
	}
	l.Slabs = l.SlabsMax - e.slabsFree()
	for i := e.cache.chunk; i != none; i = e.cache.chunks[i].next {
		l.IndexChunksFree++
	}
	return l
}

// Plan carves what New would and opens nothing: the engine is good for being
// looked at only.
func Plan(arena *mem.Arena, o Options) (*Engine, error) {
	if err := o.Complete(); err != nil {
		return nil, err
	}
	e := &Engine{o: o}
	return e, e.carve(arena)
}
