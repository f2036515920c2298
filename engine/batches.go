package engine

import "github.com/tailbound/tailbound/mem"

// batches is the index of the batches in memory: a list of chunks for each log,
// by offset.
type batches struct {
	chunks []chunk
	free   int32 // the first free one
	fresh  mem.Fresh
}

// batch is one batch in memory.
type batch struct {
	base         int64
	maxTime      int64
	seq          uint64 // of its frame; 0: it is in a direct extent
	slab         int32
	pos          uint32 // of its entry's header in the slab
	length       uint32 // of its bytes, without the entry's header
	count        uint32
	timesChecked bool   // Meta.TimesChecked
	age          uint32 // cache.age when it was appended
}

// direct reports that the batch is in an extent of its log and in no frame.
func (b *batch) direct() bool { return b.seq == 0 }

const batchesPerChunk = 32

// chunk is a part of a log's list. Its batches are those from head to tail - 1.
//
// Invariant: head < tail in every chunk of a log, except that its only chunk may be
// empty.
type chunk struct {
	batches    [batchesPerChunk]batch
	next, prev int32
	head, tail int32
}

// cursor is a place in a log's list: batch number at of a chunk. It may be one past
// the last batch.
type cursor struct {
	chunk int32
	at    int32
}

// allocate makes chunks for one batch in 512 bytes of log memory, and for two chunks that
// are partly used in each log.
func (b *batches) allocate(arena *mem.Arena, o *Options) (err error) {
	var region *mem.Region
	b.chunks, region, err = mem.MapTable[chunk](arena, "index of batches in memory", o.LogMemoryBytes/512/batchesPerChunk+2*o.LogsMax)
	b.fresh, b.free = mem.FreshOf(b.chunks, region)
	return err
}

// fits reports that push has a place for a batch of the log.
func (b *batches) fits(lg *log) bool {
	return lg.lastChunk != none && b.chunks[lg.lastChunk].tail < batchesPerChunk || b.free != none
}

// push adds a last batch to a log, to be filled in by the caller.
func (b *batches) push(lg *log) *batch {
	if lg.lastChunk == none || b.chunks[lg.lastChunk].tail == batchesPerChunk {
		i := b.free
		b.free = b.fresh.Take(i, b.chunks[i].next)
		chunk := &b.chunks[i]
		chunk.next, chunk.prev, chunk.head, chunk.tail = none, lg.lastChunk, 0, 0
		if lg.lastChunk != none {
			b.chunks[lg.lastChunk].next = i
		} else {
			lg.firstChunk = i
		}
		lg.lastChunk = i
		for _, cur := range [...]*cursor{&lg.flushCursor, &lg.durableCursor} {
			if cur.chunk == none {
				*cur = cursor{i, 0}
			}
		}
	}
	chunk := &b.chunks[lg.lastChunk]
	chunk.tail++
	return &chunk.batches[chunk.tail-1]
}

// at is the batch under the cursor; nil at the end of the log. A cursor at the end
// of a chunk is moved to the next one.
func (b *batches) at(cur *cursor) *batch {
	for cur.chunk != none {
		chunk := &b.chunks[cur.chunk]
		if cur.at < chunk.tail {
			return &chunk.batches[cur.at]
		}
		if chunk.next == none {
			return nil
		}
		cur.chunk, cur.at = chunk.next, b.chunks[chunk.next].head
	}
	return nil
}

// find is the batch that holds offset. False: it is not in memory.
func (b *batches) find(lg *log, offset int64) (cursor, bool) {
	for i := lg.lastChunk; i != none; i = b.chunks[i].prev {
		chunk := &b.chunks[i]
		if chunk.head == chunk.tail || chunk.batches[chunk.head].base > offset {
			continue
		}
		lo, hi := chunk.head, chunk.tail // the last batch whose base <= offset
		for hi-lo > 1 {
			m := (lo + hi) / 2
			if chunk.batches[m].base <= offset {
				lo = m
			} else {
				hi = m
			}
		}
		batch := &chunk.batches[lo]
		return cursor{i, lo}, offset < batch.base+int64(batch.count)
	}
	return cursor{}, false
}

// pop forgets the oldest batch of a log.
func (b *batches) pop(lg *log) {
	first := lg.firstChunk
	chunk := &b.chunks[first]
	for _, cur := range [...]*cursor{&lg.flushCursor, &lg.durableCursor} {
		if cur.chunk == first && cur.at == chunk.head {
			cur.at++
		}
	}
	chunk.head++
	if chunk.head < chunk.tail {
		return
	}
	if chunk.next == none {
		if chunk.tail < batchesPerChunk {
			return // the only chunk stays, and is filled further
		}
		lg.firstChunk, lg.lastChunk, lg.flushCursor, lg.durableCursor = none, none, cursor{none, 0}, cursor{none, 0}
	} else {
		for _, cur := range [...]*cursor{&lg.flushCursor, &lg.durableCursor} {
			if cur.chunk == first {
				*cur = cursor{chunk.next, 0}
			}
		}
		lg.firstChunk = chunk.next
		b.chunks[lg.firstChunk].prev = none
	}
	chunk.next = b.free
	b.free = first
}

// drop forgets all batches of a log.
func (b *batches) drop(lg *log) {
	for lg.firstChunk != none {
		first := lg.firstChunk
		lg.firstChunk = b.chunks[first].next
		b.chunks[first].next = b.free
		b.free = first
	}
	lg.lastChunk, lg.flushCursor, lg.durableCursor = none, cursor{none, 0}, cursor{none, 0}
}

// release says that the batches from a cursor up to offset end are in segments: the
// journal need not keep them, and their slabs can be reused.
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
