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
	env        *env
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
	c.current = none
	return nil
}

func (s *slab) reusable() bool { return s.unflushed == 0 && s.frames == 0 && s.pins == 0 }

// slabsFree counts what could be filled next.
func (c *cache) reusable() int {
	n := 0
	for i := range c.slabs {
		if c.slabs[i].reusable() {
			n++
		}
	}
	return n
}

// oldestSlab is the free slab that was filled before the others, or was not
// filled at all unless it is to be a used one; none.
func (c *cache) oldest(used bool) int32 {
	best := none
	for i := range c.slabs {
		if slab := &c.slabs[i]; !slab.filling && slab.reusable() && (slab.age != 0 || !used) && (best == none || slab.closed < c.slabs[best].closed) {
			best = int32(i)
		}
	}
	return best
}

// takeSlab makes the oldest slab that can be had the one to fill instead of
// which: e.slab or one of e.growing.
func (c *cache) take(logs *logTable, batches *batches, which *int32) bool {
	best := c.oldest(false)
	if best == none {
		return false
	}
	slab := &c.slabs[best]
	if slab.age != 0 {
		c.evict(logs, batches, slab.closed)
	}
	if *which != none {
		c.slabs[*which].closed, c.slabs[*which].filling = c.age, false
	}
	c.age++
	slab.age, slab.used, slab.filling = c.age, 0, true
	*which = best
	return true
}

// evict forgets, in every log, the batches up to age. A log does so when it is
// read, or when its turn comes: some logs now, some each step.
func (c *cache) evict(logs *logTable, batches *batches, age uint32) {
	c.evictedAge, c.unswept = max(c.evictedAge, age), logs.used
	c.sweep(logs, batches, sweptPerStep)
	c.env.stats.Evictions++
}

// sweptPerStep is how many logs a step looks at for what is evicted.
const sweptPerStep = 64

func (c *cache) sweep(logs *logTable, batches *batches, count int) {
	for ; c.unswept > 0 && count > 0; count-- {
		c.unswept--
		if c.sweepAt++; c.sweepAt >= logs.used {
			c.sweepAt = 0
		}
		c.trim(batches, &logs.all[c.sweepAt])
	}
}

// trim forgets what is evicted of log l, oldest first and only what is drained: a
// log whose oldest batch is undrained has nothing in a slab that is free. Several
// slabs are filled at a time, so batches have ages of their own: what memory holds
// of a log has no gap.
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

// evictOldest makes room in the index, which small batches use up before the
// memory: of what is evicted already, or of the oldest slab that is free.
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

// letNodesGo: nobody but the cache needs the batches from c to end.
func (b *batches) release(cache *cache, journal *journal, cur cursor, end int64) {
	for ; ; cur.at++ {
		batch := b.at(&cur)
		if batch == nil || batch.base >= end {
			return
		}
		cache.slabs[batch.slab].unflushed--
		if batch.seq != 0 {
			journal.frame(batch.seq).unflushed--
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
