package engine

import (
	"fmt"

	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/mem"
)

// cache is the log memory: slabs in which frames are built, and per log an
// index of the batches in them. It is also the cache: a slab is taken again,
// in order of age, when nothing in it is undrained, in flight or pinned.
type cache struct {
	slabs      []slab
	current    int32 // where frames are built; none
	age        uint32
	pinned     int    // slabs with pins
	evictedAge uint32 // batches so old are forgotten, see evict
	unswept    int    // logs that have not been looked at for such
	sweepAt    int    // the next of them
}

// Invariant: used <= the block's length, and a multiple of blockBytes between frames.
type slab struct {
	block     mem.Block
	used      int
	age       uint32 // when it was begun, in slabs; 0: never
	closed    uint32 // the age of the youngest batch in it
	unflushed int32  // data entries
	frames    int32  // not durable yet, the open one included
	pins      int32
	filling   bool // it is e.slab, or one of e.growing
}

func (e *Engine) allocateCache(arena *mem.Arena) error {
	// Last of all: what the arena has left is log memory.
	e.o.LogMemoryBytes = min(e.o.LogMemoryBytes, arena.Bytes()-arena.Used()-format.BlockBytes)
	size := e.o.slabBytes()
	n := e.o.LogMemoryBytes / size
	if n < 3 {
		return fmt.Errorf("log memory of %d bytes holds %d slabs of %d, fewer than 3", e.o.LogMemoryBytes, n, size)
	}
	e.cache.slabs = make([]slab, n)
	for i := range e.cache.slabs {
		block, err := arena.Allocate("log memory", size, format.BlockBytes)
		if err != nil {
			return err
		}
		e.cache.slabs[i].block = block
	}
	e.cache.current = none
	e.extents.places = make([]place, max(1, min(directLogsMax, n/8)))
	for i := range e.extents.places {
		e.extents.places[i] = place{none, none}
	}
	e.batches.chunks = make([]chunk, e.o.LogMemoryBytes/512/batchesPerChunk+2*e.o.LogsMax)
	e.batches.free = none
	for i := len(e.batches.chunks) - 1; i >= 0; i-- {
		e.batches.chunks[i].next = e.batches.free
		e.batches.free = int32(i)
	}
	return e.allocateJournal(arena)
}

func (s *slab) reusable() bool { return s.unflushed == 0 && s.frames == 0 && s.pins == 0 }

// slabsFree counts what could be filled next.
func (e *Engine) slabsReusable() int {
	n := 0
	for i := range e.cache.slabs {
		if e.cache.slabs[i].reusable() {
			n++
		}
	}
	return n
}

// oldestSlab is the free slab that was filled before the others, or was not
// filled at all unless it is to be a used one; none.
func (e *Engine) oldestSlab(used bool) int32 {
	best := none
	for i := range e.cache.slabs {
		if slab := &e.cache.slabs[i]; !slab.filling && slab.reusable() && (slab.age != 0 || !used) && (best == none || slab.closed < e.cache.slabs[best].closed) {
			best = int32(i)
		}
	}
	return best
}

// takeSlab makes the oldest slab that can be had the one to fill instead of
// which: e.slab or one of e.growing.
func (e *Engine) takeSlab(which *int32) bool {
	best := e.oldestSlab(false)
	if best == none {
		return false
	}
	slab := &e.cache.slabs[best]
	if slab.age != 0 {
		e.evict(slab.closed)
	}
	if *which != none {
		e.cache.slabs[*which].closed, e.cache.slabs[*which].filling = e.cache.age, false
	}
	e.cache.age++
	slab.age, slab.used, slab.filling = e.cache.age, 0, true
	*which = best
	return true
}

// evict forgets, in every log, the batches up to age. A log does so when it is
// read, or when its turn comes: some logs now, some each step.
func (e *Engine) evict(age uint32) {
	e.cache.evictedAge, e.cache.unswept = max(e.cache.evictedAge, age), e.logs.used
	e.sweep(sweptPerStep)
	e.stats.Evictions++
}

// sweptPerStep is how many logs a step looks at for what is evicted.
const sweptPerStep = 64

func (e *Engine) sweep(logs int) {
	for ; e.cache.unswept > 0 && logs > 0; logs-- {
		e.cache.unswept--
		if e.cache.sweepAt++; e.cache.sweepAt >= e.logs.used {
			e.cache.sweepAt = 0
		}
		e.trim(&e.logs.all[e.cache.sweepAt])
	}
}

// trim forgets what is evicted of log l, oldest first and only what is drained: a
// log whose oldest batch is undrained has nothing in a slab that is free. Several
// slabs are filled at a time, so batches have ages of their own: what memory holds
// of a log has no gap.
func (e *Engine) trim(lg *log) {
	for lg.state != logFree && lg.firstChunk != none {
		chunk := &e.batches.chunks[lg.firstChunk]
		if chunk.head == chunk.tail {
			return
		}
		batch := &chunk.batches[chunk.head]
		if batch.age > e.cache.evictedAge || batch.base >= lg.flushed {
			return
		}
		e.popBatch(lg)
	}
}

// evictOldest makes room in the index, which small batches use up before the
// memory: of what is evicted already, or of the oldest slab that is free.
func (e *Engine) evictOldest() {
	e.sweep(e.cache.unswept)
	if e.batches.free != none {
		return
	}
	best := e.oldestSlab(true)
	if best == none {
		return
	}
	slab := &e.cache.slabs[best]
	e.evict(slab.closed)
	e.sweep(e.cache.unswept)
	slab.age, slab.closed, slab.used = 0, 0, 0
}

// letNodesGo: nobody but the cache needs the batches from c to end.
func (e *Engine) releaseBatches(cur cursor, end int64) {
	for ; ; cur.at++ {
		batch := e.batchAt(&cur)
		if batch == nil || batch.base >= end {
			return
		}
		e.cache.slabs[batch.slab].unflushed--
		if batch.seq != 0 {
			e.journal.frame(batch.seq).unflushed--
		}
	}
}

// PinsLeft is how many slabs more readers may pin: half of them, so that there
// are always some to fill. It may be below 0: whoever pins keeps to it.
func (e *Engine) PinsLeft() int {
	n := len(e.cache.slabs)
	return max(1, min(n/2, n-3)) - e.cache.pinned
}

// LogMemoryBytes is how much log memory there is.
func (e *Engine) LogMemoryBytes() int { return len(e.cache.slabs) * e.o.slabBytes() }
