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
	slabs    []slab
	slab     int32 // where frames are built; none
	age      uint32
	chunks   []chunk
	chunk    int32  // free list
	pinned   int    // slabs with pins
	evicted  uint32 // batches so old are forgotten, see evict
	unswept  int    // logs that have not been looked at for such
	sweepAt  int    // the next of them
	reserved reservation
}

// Invariant: used <= the block's length, and a multiple of blockBytes between frames.
type slab struct {
	block     mem.Block
	used      int
	age       uint32 // when it was begun, in slabs; 0: never
	closed    uint32 // the age of the youngest batch in it
	undrained int32  // data entries
	frames    int32  // not durable yet, the open one included
	pins      int32
	filling   bool // it is e.slab, or one of e.growing
}

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

// reservation is what Reserve handed out.
type reservation struct {
	active bool
	direct bool
	slot   Slot
	n      int
	slab   int32
	pos    int
}

func (r *reservation) note(direct bool, s Slot, n int, slab int32, pos int) {
	r.active, r.direct, r.slot, r.n, r.slab, r.pos = true, direct, s, n, slab, pos
}

func (e *Engine) carveMemory(arena *mem.Arena) error {
	// Last of all: what the arena has left is log memory.
	e.o.LogMemoryBytes = min(e.o.LogMemoryBytes, arena.Bytes()-arena.Used()-format.BlockBytes)
	size := e.o.slabBytes()
	n := e.o.LogMemoryBytes / size
	if n < 3 {
		return fmt.Errorf("log memory of %d bytes holds %d slabs of %d, fewer than 3", e.o.LogMemoryBytes, n, size)
	}
	e.cache.slabs = make([]slab, n)
	for i := range e.cache.slabs {
		b, err := arena.Allocate("log memory", size, format.BlockBytes)
		if err != nil {
			return err
		}
		e.cache.slabs[i].block = b
	}
	e.cache.slab = none
	e.extents.growing = make([]growing, max(1, min(directLogsMax, n/8)))
	for i := range e.extents.growing {
		e.extents.growing[i] = growing{none, none}
	}
	e.cache.chunks = make([]chunk, e.o.LogMemoryBytes/512/nodesPerChunk+2*e.o.LogsMax)
	e.cache.chunk = none
	for i := len(e.cache.chunks) - 1; i >= 0; i-- {
		e.cache.chunks[i].next = e.cache.chunk
		e.cache.chunk = int32(i)
	}
	return e.carveFrames(arena)
}

func (s *slab) free() bool { return s.undrained == 0 && s.frames == 0 && s.pins == 0 }

// oldestSlab is the free slab that was filled before the others, or was not
// filled at all unless it is to be a used one; none.
func (e *Engine) oldestSlab(used bool) int32 {
	best := none
	for i := range e.cache.slabs {
		if s := &e.cache.slabs[i]; !s.filling && s.free() && (s.age != 0 || !used) && (best == none || s.closed < e.cache.slabs[best].closed) {
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
	s := &e.cache.slabs[best]
	if s.age != 0 {
		e.evict(s.closed)
	}
	if *which != none {
		e.cache.slabs[*which].closed, e.cache.slabs[*which].filling = e.cache.age, false
	}
	e.cache.age++
	s.age, s.used, s.filling = e.cache.age, 0, true
	*which = best
	return true
}

// evict forgets, in every log, the batches up to age. A log does so when it is
// read, or when its turn comes: some logs now, some each step.
func (e *Engine) evict(age uint32) {
	e.cache.evicted, e.cache.unswept = max(e.cache.evicted, age), e.logsHigh
	e.sweep(sweptPerStep)
	e.stats.Evictions++
}

// sweptPerStep is how many logs a step looks at for what is evicted.
const sweptPerStep = 64

func (e *Engine) sweep(logs int) {
	for ; e.cache.unswept > 0 && logs > 0; logs-- {
		e.cache.unswept--
		if e.cache.sweepAt++; e.cache.sweepAt >= e.logsHigh {
			e.cache.sweepAt = 0
		}
		e.trim(&e.logs[e.cache.sweepAt])
	}
}

// trim forgets what is evicted of log l, oldest first and only what is drained: a
// log whose oldest batch is undrained has nothing in a slab that is free. Several
// slabs are filled at a time, so batches have ages of their own: what memory holds
// of a log has no gap.
func (e *Engine) trim(l *log) {
	for l.state != logFree && l.first != none {
		c := &e.cache.chunks[l.first]
		if c.head == c.tail {
			return
		}
		n := &c.nodes[c.head]
		if n.age > e.cache.evicted || n.base >= l.drained {
			return
		}
		e.popNode(l)
	}
}

// evictOldest makes room in the index, which small batches use up before the
// memory: of what is evicted already, or of the oldest slab that is free.
func (e *Engine) evictOldest() {
	e.sweep(e.cache.unswept)
	if e.cache.chunk != none {
		return
	}
	best := e.oldestSlab(true)
	if best == none {
		return
	}
	s := &e.cache.slabs[best]
	e.evict(s.closed)
	e.sweep(e.cache.unswept)
	s.age, s.closed, s.used = 0, 0, 0
}

// slabsFree counts what could be filled next.
func (e *Engine) slabsFree() int {
	n := 0
	for i := range e.cache.slabs {
		if e.cache.slabs[i].free() {
			n++
		}
	}
	return n
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

// Reserve gives n bytes of log memory for one batch of log l, and the offset
// its first record gets. Commit or Abort follows in the same turn.
func (e *Engine) Reserve(s Slot, n int) (dst []byte, base int64, st Status) {
	if e.cache.reserved.active {
		panic("engine: Reserve before Commit or Abort of the one before")
	}
	switch {
	case e.failed:
		return nil, 0, StorageFailed
	case !e.open(s):
		return nil, 0, Unknown
	case n <= 0 || n > e.o.BatchBytesMax:
		return nil, 0, TooLarge
	case e.stopping:
		return nil, 0, WaitMemory
	}
	l := &e.logs[s]
	if l.rotFrom != format.NoOffset {
		return nil, 0, Rot
	}
	need := format.EntryHeaderBytes + format.Align8(n)
	if e.catchesUp(l, need) {
		e.stats.WaitMemory++
		return nil, 0, WaitMemory
	}
	direct := e.wantsDirect(l, s, need)
	room := int64(need)
	if direct {
		room += 2 * runOverhead
	}
	if st := e.admit(s, room); st != OK {
		return nil, 0, st
	}
	if !e.nodeFits(l) {
		e.evictOldest()
	}
	if direct && e.nodeFits(l) && e.directFits(s, n) {
		r := &e.extents.pool[l.building]
		at := r.pos + format.HeaderBytes + r.bytes
		e.cache.reserved.note(true, s, n, r.slab, at)
		at += format.EntryHeaderBytes
		return e.cache.slabs[r.slab].block.Bytes()[at : at+n : at+n], l.end, OK
	}
	if !e.nodeFits(l) || !e.entryFits(n) {
		e.stats.WaitMemory++
		e.journal.pressed = true
		return nil, 0, WaitMemory
	}
	b := e.cache.slabs[e.cache.slab].block.Bytes()
	at := e.journal.openPos + e.journal.openBytes + format.EntryHeaderBytes
	e.cache.reserved.note(false, s, n, e.cache.slab, at-format.EntryHeaderBytes)
	return b[at : at+n : at+n], l.end, OK
}

// Abort gives back what Reserve handed out.
func (e *Engine) Abort() { e.cache.reserved.active = false }

// Meta is what the engine keeps of a batch.
type Meta struct {
	Count   uint32
	MaxTime int64 // milliseconds
	CRC     uint32
}

// Commit appends the batch that Reserve made room for: it takes m.Count
// offsets from the base.
func (e *Engine) Commit(m Meta) {
	r := &e.cache.reserved
	if !r.active || m.Count == 0 {
		panic("engine: Commit without Reserve, or of no records")
	}
	r.active = false
	l := &e.logs[r.slot]
	if l.nEpochs == 0 || l.epochs[l.nEpochs-1].Epoch != int32(e.epoch) {
		l.addEpoch(format.EpochStart{Epoch: int32(e.epoch), Start: l.end})
	}
	h := format.Entry{Kind: format.EntryData, Log: l.id, Base: l.end, Count: m.Count, Length: uint32(r.n), CRC: m.CRC, Slot: uint32(r.slot), Durable: l.durable, MaxTime: m.MaxTime}
	n := e.pushNode(l)
	n.base, n.maxTime, n.slab, n.pos, n.length, n.count, n.crc, n.age, n.seq = l.end, m.MaxTime, r.slab, uint32(r.pos), uint32(r.n), m.Count, m.CRC, e.cache.age, 0
	if r.direct {
		x := &e.extents.pool[l.building]
		putEntry(e.cache.slabs[r.slab].block.Bytes()[r.pos:], &h)
		x.bytes += h.Bytes()
		x.header.Add(n.base, n.count, n.maxTime)
		e.journal.lastEntry = e.now
		e.stats.Entries++
	} else {
		n.seq = e.appendEntry(&h)
		e.journal.live[n.seq%uint64(len(e.journal.live))].undrained++
		if l.undrained == 0 {
			l.oldest = e.now
		}
		l.undrained += int64(h.Bytes())
		if l.frameSeq != n.seq {
			l.frameSeq, l.frameBytes = n.seq, 0
		}
		l.frameBytes += h.Bytes()
		e.queueDrain(int32(r.slot))
	}
	e.cache.slabs[r.slab].undrained++
	e.segments.all[l.filling].pending += int64(h.Bytes())
	l.undurable += int64(r.n)
	e.undurable += int64(r.n)
	if m.MaxTime > l.maxTime || l.maxTimeBase == format.NoOffset {
		l.maxTime, l.maxTimeBase = m.MaxTime, l.end
	}
	l.end += int64(m.Count)
}

// View is one batch as it lies in memory. Its bytes stay until Unpin(Pin).
type View struct {
	Bytes []byte
	Pin   uint32
}

const pinCold = 1 << 31

// Hot says that a View lies in log memory, and pins some of it.
func (v View) Hot() bool { return v.Pin&pinCold == 0 }

// PinsLeft is how many slabs more readers may pin: half of them, so that there
// are always some to fill. It may be below 0: whoever pins keeps to it.
func (e *Engine) PinsLeft() int {
	n := len(e.cache.slabs)
	return max(1, min(n/2, n-3)) - e.cache.pinned
}

// LogMemoryBytes is how much log memory there is.
func (e *Engine) LogMemoryBytes() int { return len(e.cache.slabs) * e.o.slabBytes() }

// Read gives the batches that hold offsets from to to, oldest first, at most
// maxBytes of them, but the first one whole.
func (e *Engine) Read(s Slot, from, to int64, maxBytes int, out []View) (n int, st Status) {
	if !e.open(s) {
		return 0, Unknown
	}
	l := &e.logs[s]
	switch {
	case from < l.start || from > l.end:
		return 0, OutOfRange
	case l.rotFrom != format.NoOffset && from >= l.end:
		return 0, Rot // nothing will come there
	case from >= to || len(out) == 0:
		return 0, Empty
	}
	e.trim(l)
	c, ok := e.find(l, from)
	if !ok && l.rots(from) {
		return 0, Rot
	}
	if !ok {
		return 0, Cold
	}
	for x := e.at(&c); x != nil && n < len(out) && x.base < to; x = e.at(&c) {
		if n > 0 && int(x.length) > maxBytes {
			break
		}
		maxBytes -= int(x.length)
		k := &e.cache.slabs[x.slab]
		if k.pins == 0 {
			e.cache.pinned++
		}
		k.pins++
		at := int(x.pos) + format.EntryHeaderBytes
		out[n] = View{k.block.Bytes()[at : at+int(x.length) : at+int(x.length)], uint32(x.slab)}
		n++
		c.at++
	}
	return n, OK
}

// Unread is Unpin of what was read in this turn: that is no progress, which
// would have whoever waits for memory look, and read, again.
func (e *Engine) Unread(pin uint32) {
	was := e.changes
	e.Unpin(pin)
	e.changes = was
}

// Unpin lets a View's bytes go.
func (e *Engine) Unpin(pin uint32) {
	if pin&pinCold != 0 {
		e.unpinCold(pin &^ pinCold)
		return
	}
	s := &e.cache.slabs[pin]
	if s.pins <= 0 {
		panic("engine: Unpin of what is not pinned")
	}
	s.pins--
	if s.pins == 0 {
		e.cache.pinned--
		e.changes++
	}
}

// SeekTime is an offset at which to begin looking for the first batch whose
// largest timestamp is at least ts, never past it. False: no batch has one.
func (e *Engine) SeekTime(s Slot, ts int64) (base int64, ok bool) {
	l := &e.logs[s]
	if l.maxTimeBase == format.NoOffset || l.maxTime < ts || l.start == l.end {
		return 0, false
	}
	for g := l.segments; g != none; g = e.segments.all[g].next {
		q := &e.segments.all[g]
		if q.position == 0 || q.maxTime < ts || q.end <= l.start {
			continue
		}
		return max(q.seekTime(ts), l.start), true
	}
	for i := l.first; i != none; i = e.cache.chunks[i].next {
		c := &e.cache.chunks[i]
		for k := c.head; k < c.tail; k++ {
			if x := &c.nodes[k]; x.maxTime >= ts && x.base+int64(x.count) > l.start {
				return max(x.base, l.start), true
			}
		}
	}
	return max(l.drained, l.start), true
}
