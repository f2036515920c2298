package engine

// node is one batch in memory.
type node struct {
	base    int64
	maxTime int64
	seq     uint64 // of its frame; 0: a direct run's
	slab    int32
	pos     uint32 // of the entry header
	length  uint32 // of the batch
	count   uint32
	crc     uint32
	age     uint32 // when it was appended, in slabs
}

const nodesPerChunk = 32

// chunk is a piece of a log's index. Invariant: head < tail in every chunk of
// a log but the last, which may be empty when it is the only one.
type chunk struct {
	nodes      [nodesPerChunk]node
	next, prev int32
	head, tail int32
}

// cursor names a node: the one at of chunk, which may be one past its tail.
type cursor struct {
	chunk int32
	at    int32
}

// nodeFits says that pushNode would find a place.
func (e *Engine) nodeFits(lg *log) bool {
	return lg.last != none && e.cache.chunks[lg.last].tail < nodesPerChunk || e.cache.chunk != none
}

// pushNode is a new last node of l, to be filled in.
func (e *Engine) pushNode(lg *log) *node {
	if lg.last == none || e.cache.chunks[lg.last].tail == nodesPerChunk {
		i := e.cache.chunk
		e.cache.chunk = e.cache.chunks[i].next
		chunk := &e.cache.chunks[i]
		chunk.next, chunk.prev, chunk.head, chunk.tail = none, lg.last, 0, 0
		if lg.last != none {
			e.cache.chunks[lg.last].next = i
		} else {
			lg.first = i
		}
		lg.last = i
		for _, cur := range [...]*cursor{&lg.taking, &lg.settling} {
			if cur.chunk == none {
				*cur = cursor{i, 0}
			}
		}
	}
	chunk := &e.cache.chunks[lg.last]
	chunk.tail++
	return &chunk.nodes[chunk.tail-1]
}

// at is the node under c, moved on to the next chunk where it stands at the
// end of one; nil at the end of the log.
func (e *Engine) at(cur *cursor) *node {
	for cur.chunk != none {
		chunk := &e.cache.chunks[cur.chunk]
		if cur.at < chunk.tail {
			return &chunk.nodes[cur.at]
		}
		if chunk.next == none {
			return nil
		}
		cur.chunk, cur.at = chunk.next, e.cache.chunks[chunk.next].head
	}
	return nil
}

// find is the node that holds offset. False: it is not in memory.
func (e *Engine) find(lg *log, offset int64) (cursor, bool) {
	for i := lg.last; i != none; i = e.cache.chunks[i].prev {
		chunk := &e.cache.chunks[i]
		if chunk.head == chunk.tail || chunk.nodes[chunk.head].base > offset {
			continue
		}
		lo, hi := chunk.head, chunk.tail // the last node whose base <= offset
		for hi-lo > 1 {
			m := (lo + hi) / 2
			if chunk.nodes[m].base <= offset {
				lo = m
			} else {
				hi = m
			}
		}
		batch := &chunk.nodes[lo]
		return cursor{i, lo}, offset < batch.base+int64(batch.count)
	}
	return cursor{}, false
}

func (e *Engine) popNode(lg *log) {
	first := lg.first
	chunk := &e.cache.chunks[first]
	for _, cur := range [...]*cursor{&lg.taking, &lg.settling} {
		if cur.chunk == first && cur.at == chunk.head {
			cur.at++
		}
	}
	chunk.head++
	if chunk.head < chunk.tail {
		return
	}
	if chunk.next == none {
		if chunk.tail < nodesPerChunk {
			return // the only one stays, to be filled on
		}
		lg.first, lg.last, lg.taking, lg.settling = none, none, cursor{none, 0}, cursor{none, 0}
	} else {
		for _, cur := range [...]*cursor{&lg.taking, &lg.settling} {
			if cur.chunk == first {
				*cur = cursor{chunk.next, 0}
			}
		}
		lg.first = chunk.next
		e.cache.chunks[lg.first].prev = none
	}
	chunk.next = e.cache.chunk
	e.cache.chunk = first
}

func (e *Engine) dropNodes(lg *log) {
	for lg.first != none {
		first := lg.first
		lg.first = e.cache.chunks[first].next
		e.cache.chunks[first].next = e.cache.chunk
		e.cache.chunk = first
	}
	lg.last, lg.taking, lg.settling = none, cursor{none, 0}, cursor{none, 0}
}
