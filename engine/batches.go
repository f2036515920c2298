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
func (e *Engine) nodeFits(l *log) bool {
	return l.last != none && e.cache.chunks[l.last].tail < nodesPerChunk || e.cache.chunk != none
}

// pushNode is a new last node of l, to be filled in.
func (e *Engine) pushNode(l *log) *node {
	if l.last == none || e.cache.chunks[l.last].tail == nodesPerChunk {
		i := e.cache.chunk
		e.cache.chunk = e.cache.chunks[i].next
		c := &e.cache.chunks[i]
		c.next, c.prev, c.head, c.tail = none, l.last, 0, 0
		if l.last != none {
			e.cache.chunks[l.last].next = i
		} else {
			l.first = i
		}
		l.last = i
		for _, k := range [...]*cursor{&l.taking, &l.settling} {
			if k.chunk == none {
				*k = cursor{i, 0}
			}
		}
	}
	c := &e.cache.chunks[l.last]
	c.tail++
	return &c.nodes[c.tail-1]
}

// at is the node under c, moved on to the next chunk where it stands at the
// end of one; nil at the end of the log.
func (e *Engine) at(c *cursor) *node {
	for c.chunk != none {
		k := &e.cache.chunks[c.chunk]
		if c.at < k.tail {
			return &k.nodes[c.at]
		}
		if k.next == none {
			return nil
		}
		c.chunk, c.at = k.next, e.cache.chunks[k.next].head
	}
	return nil
}

// find is the node that holds offset. False: it is not in memory.
func (e *Engine) find(l *log, offset int64) (cursor, bool) {
	for i := l.last; i != none; i = e.cache.chunks[i].prev {
		c := &e.cache.chunks[i]
		if c.head == c.tail || c.nodes[c.head].base > offset {
			continue
		}
		lo, hi := c.head, c.tail // the last node whose base <= offset
		for hi-lo > 1 {
			m := (lo + hi) / 2
			if c.nodes[m].base <= offset {
				lo = m
			} else {
				hi = m
			}
		}
		n := &c.nodes[lo]
		return cursor{i, lo}, offset < n.base+int64(n.count)
	}
	return cursor{}, false
}

func (e *Engine) popNode(l *log) {
	f := l.first
	c := &e.cache.chunks[f]
	for _, k := range [...]*cursor{&l.taking, &l.settling} {
		if k.chunk == f && k.at == c.head {
			k.at++
		}
	}
	c.head++
	if c.head < c.tail {
		return
	}
	if c.next == none {
		if c.tail < nodesPerChunk {
			return // the only one stays, to be filled on
		}
		l.first, l.last, l.taking, l.settling = none, none, cursor{none, 0}, cursor{none, 0}
	} else {
		for _, k := range [...]*cursor{&l.taking, &l.settling} {
			if k.chunk == f {
				*k = cursor{c.next, 0}
			}
		}
		l.first = c.next
		e.cache.chunks[l.first].prev = none
	}
	c.next = e.cache.chunk
	e.cache.chunk = f
}

func (e *Engine) dropNodes(l *log) {
	for l.first != none {
		f := l.first
		l.first = e.cache.chunks[f].next
		e.cache.chunks[f].next = e.cache.chunk
		e.cache.chunk = f
	}
	l.last, l.taking, l.settling = none, cursor{none, 0}, cursor{none, 0}
}
