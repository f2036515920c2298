package engine

import (
	"fmt"

	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/mem"
)

// cache is the log memory: slabs in which frames and direct extents are built and
// from which they are written. What lies there is also what reads are answered
// from: a slab is reused, oldest first, when no batch in it is unflushed, in flight
// or pinned. batches says where in it a log's batches are.
type cache struct {
	env        *env
	slabs      []slab
	grown      *mem.Region // the slabs
	current    int32       // where frames are built, of slabs; none
	age        uint32      // of the slab that was begun last: slabs are counted
	pinned     int         // slabs with pins
	evictedAge uint32      // batches of this age and older are evicted
	unswept    int         // logs that may still have some of them
	sweepAt    int         // the log to look at next
}

// slab is one block of log memory.
//
// Invariant: used <= the block's length, and a multiple of format.BlockBytes between
// frames.
type slab struct {
	block     mem.Block
	used      int
	age       uint32 // when it was begun; 0: never
	closed    uint32 // the age of the youngest batch in it
	unflushed int32  // batches in it that no segment has
	frames    int32  // frames in it that are not durable, the open one included
	pins      int32
	filling   bool // frames or extents are being built in it
}

// allocate divides log memory into slabs. Three are the least: one that is being filled, one
// to fill next, and one that readers pin.
func (c *cache) allocate(arena *mem.Arena) error {
	size := c.env.o.slabBytes()
	n := c.env.o.LogMemoryBytes / size
	if n < 3 {
		return fmt.Errorf("log memory of %d bytes holds %d slabs of %d, fewer than 3", c.env.o.LogMemoryBytes, n, size)
	}
	c.slabs = make([]slab, n)
	for i := range c.slabs {
		block, err := arena.Allocate("log memory", size, format.BlockBytes)
		if err != nil {
			return err
		}
		c.slabs[i].block = block
	}
	// The slab to fill next is resident before it is begun.
	c.grown = arena.Grow(c.slabs[0].block, c.slabs[n-1].block, size)
	c.grown.Use(size)
	c.current = none
	return nil
}

// reusable reports that nothing but the cache needs what is in the slab.
func (s *slab) reusable() bool { return s.unflushed == 0 && s.frames == 0 && s.pins == 0 }

// reusable counts the slabs that could be filled next.
func (c *cache) reusable() int {
	n := 0
	for i := range c.slabs {
		if c.slabs[i].reusable() {
			n++
		}
	}
	return n
}

// oldest is the least recently filled reusable slab, or none. With used, slabs that
// were never filled do not count.
func (c *cache) oldest(used bool) int32 {
	best := none
	for i := range c.slabs {
		if slab := &c.slabs[i]; !slab.filling && slab.reusable() && (slab.age != 0 || !used) && (best == none || slab.closed < c.slabs[best].closed) {
			best = int32(i)
		}
	}
	return best
}

// take replaces *which, a slab that was being filled, by the oldest reusable one and
// evicts what that cached. False: none is reusable.
func (c *cache) take(logs *logTable, batches *batches, which *int32) bool {
	best := c.oldest(false)
	if best == none {
		return false
	}
	kept := false
	if c.slabs[best].age == 0 && !c.grown.Resident((int(best)+1)*c.env.o.slabBytes()) {
		// Rather a smaller cache for a moment than page faults here.
		if filled := c.oldest(true); filled != none {
			best, kept = filled, c.env.o.Faults.Has(ReusedKept)
		}
	}
	slab := &c.slabs[best]
	if slab.age != 0 && !kept {
		c.evict(logs, batches, slab.closed)
	}
	c.grown.Use((int(best) + 1) * c.env.o.slabBytes()) // slabs are first used in their order
	if *which != none {
		c.slabs[*which].closed, c.slabs[*which].filling = c.age, false
	}
	c.age++
	slab.age, slab.used, slab.filling = c.age, 0, true
	*which = best
	return true
}

// evict forgets the batches up to an age, in every log: in a log that is read before
// it is, in the others some at a time, now and in each step.
func (c *cache) evict(logs *logTable, batches *batches, age uint32) {
	c.evictedAge, c.unswept = max(c.evictedAge, age), logs.used
	c.sweep(logs, batches, sweptPerStep)
	c.env.stats.Evictions++
}

// sweptPerStep is how many logs one step trims.
const sweptPerStep = 64

// sweep trims some of the logs that may have evicted batches.
func (c *cache) sweep(logs *logTable, batches *batches, count int) {
	for ; c.unswept > 0 && count > 0; count-- {
		c.unswept--
		if c.sweepAt++; c.sweepAt >= logs.used {
			c.sweepAt = 0
		}
		c.trim(batches, &logs.all[c.sweepAt])
	}
}

// trim forgets the evicted batches of a log, oldest first, and only flushed ones: a
// log whose oldest batch is unflushed has nothing in a reusable slab. Several slabs
// are filled at a time, so batches have ages of their own, and what memory holds of
// a log has no gap.
func (c *cache) trim(batches *batches, lg *log) {
	for lg.state != logFree && lg.firstChunk != none {
		chunk := &batches.chunks[lg.firstChunk]
		if chunk.head == chunk.tail {
			return
		}
		batch := &chunk.batches[chunk.head]
		if batch.age > c.evictedAge || batch.base >= lg.flushed {
			return
		}
		batches.pop(lg)
	}
}

// evictOldest makes room in the index of batches, which small batches use up before
// the memory: it forgets what is evicted already, or else the oldest reusable slab.
func (c *cache) evictOldest(logs *logTable, batches *batches) {
	c.sweep(logs, batches, c.unswept)
	if batches.free != none {
		return
	}
	best := c.oldest(true)
	if best == none {
		return
	}
	slab := &c.slabs[best]
	c.evict(logs, batches, slab.closed)
	c.sweep(logs, batches, c.unswept)
	slab.age, slab.closed, slab.used = 0, 0, 0
}

// PinsLeft is how many more slabs readers may pin. They may pin half of them, so
// that some can always be filled; the caller of Read keeps to it. It can be negative.
func (e *Engine) PinsLeft() int {
	n := len(e.cache.slabs)
	return max(1, min(n/2, n-3)) - e.cache.pinned
}

// LogMemoryBytes is the size of log memory, in bytes.
func (e *Engine) LogMemoryBytes() int { return len(e.cache.slabs) * e.o.slabBytes() }
