package shard

import (
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/mem"
	"github.com/tailbound/tailbound/metrics"
	"github.com/tailbound/tailbound/netring"
)

// request is one Kafka request in flight on this shard, from its last byte in
// to its reply's last byte out. It belongs to the shard; a log's waiters and
// the mail name it by slot and serial.
type request struct {
	frame     netring.RequestID
	conn      netring.ConnID
	free      uint32 // next free slot + 0; meaningless in use
	serial    uint32 // use of this slot; stale mail and waiters carry an older one
	used      bool
	kind      requestKind
	parked    bool  // a fetch that waits for data
	replied   bool  // the answer is on its way: only Sent is awaited
	faulty    bool  // produce: a partition was refused
	named     int32 // produce: partitions of the topics whose names stand in the reply
	done      int32 // produce: partitions taken so far
	dirty     bool  // in the list of fetches to look at
	starved   bool  // in the list of those that wait for memory
	code      kafka.ErrorCode
	header    kafka.Request
	acks      int16
	pending   int32    // parts not yet durable, or reads under way
	parts     mem.List // in the request's order
	pins      int32    // chunks of pinned log memory, given back when sent
	bytes     int32    // fetch: what it asked for at least, at most
	bytesMax  int32
	session   int32     // fetch: the session it goes on with, until it is answered
	sessionID int32     // and as the answer names it; 0: none
	wants     bool      // fetch: it asks for a session
	behind    bool      // fetch of a session: there are news it has not looked at
	have      int64     // fetch, parked: bytes counted of what it waits for
	poll      mem.Links // fetch, parked: among those that are
	parkedAt  ioring.Instant
	waitUntil ioring.Instant
	lent      mem.Block // our copy of a cold request, at the control shard
	answer    mem.Block // the control shard's answer, lent to us
	stamps    metrics.Timeline
	seen
}

type requestKind uint8

const (
	kindProduce requestKind = iota
	kindFetch
	kindOffsets
	kindImmediate // answered when it came
	kindForward   // waits for the control shard
	kindLocal     // on the control shard itself
)

// part is one partition named by a request.
type part struct {
	links     mem.Links // the request's parts
	request   uint32
	topic     int32      // in the topic table; none where it is not known
	index     int32      // partition number, as asked
	partition *partition // nil where code says so
	code      kafka.ErrorCode
	waits     partWait
	wait      mem.Links // among the partition's waiters
	from      int64     // fetch: offset asked for; produce: base; offsets: timestamp
	end       int64     // produce: durable when the log is durable up to here
	max       int32     // fetch: bytes wanted of this partition
	dst       []byte    // produce, offsets: where in the reply the result stands
	read      uint32    // a cold read that serves this part
	reading   bool
	haveRead  bool
	last      bool       // produce, offsets: its topic's last, behind which the topic is closed
	searching bool       // offsets: by time, not found yet
	name      kafka.Span // fetch: the topic as the request names it
	views     int32      // fetch: how many of the shard's views are this part's
	tally                // fetch: bytes of the views, and while it is parked of what came since
	interest  int32      // fetch: the session's, which it is part of
	known     int64      // fetch: log start when it was answered
	high      int64      // and its high watermark
	where     int64      // offsets: where the search stands
	epoch     int32
}

type partWait uint8

const (
	waitNone partWait = iota
	waitDurable
	waitData
)

type pinChunk struct {
	next int32
	n    int32
	pin  [pinsPerChunk]uint32
}

// A request and a part begin as copies of these: a literal with anything variable
// in it is put together on the stack and read back in larger words than it was
// written in, which waits for all stores before it.
var (
	emptyRequest = request{used: true, parts: mem.EmptyList, pins: none, session: none}
	emptyPart    = part{topic: none, interest: none}
)

// newRequest takes a slot. There must be one: handle asks.
func (s *Shard) newRequest(w *waiter) (uint32, *request) {
	i := s.freeReq
	r := &s.requests[i]
	s.freeReq = r.free
	serial := r.serial + 1
	*r = emptyRequest
	r.frame, r.conn, r.serial = w.frame, w.conn, serial
	r.stamps[metrics.Received] = int64(w.at)
	r.stamps[metrics.Parsed] = int64(s.now)
	if s.Flight != nil && w.at == s.now {
		r.early = *s.Flight.Early()
	}
	s.inFlight++
	s.Timelines.Counters.Requests++
	return i, r
}

// endRequest gives everything back. The reply, if there was one, has left.
func (s *Shard) endRequest(i uint32) {
	r := &s.requests[i]
	s.leave(r)
	s.freeParts(r)
	for c := r.pins; c != none; {
		k := &s.pins[c]
		for _, pin := range k.pin[:k.n] {
			s.engine.Unpin(pin)
		}
		next := k.next
		k.next, s.freePin = s.freePin, c
		s.pinsFree++
		c = next
	}
	if !r.lent.IsZero() {
		s.mailMem.Put(r.lent)
	}
	if !r.answer.IsZero() {
		s.outbox.put(Mail{Kind: MailGiveBack, From: uint8(s.o.Shard), Block: r.answer}, 0)
	}
	s.timers.clear(i)
	s.waiting.retry = true // what it held may be what another waits for
	r.used, r.dirty, r.lent, r.answer = false, false, mem.Block{}, mem.Block{}
	r.free, s.freeReq = s.freeReq, i
	s.inFlight--
}

// freeParts gives a request's parts back.
func (s *Shard) freeParts(r *request) {
	for !r.parts.Empty() {
		s.dropPart(r, r.parts.First)
	}
}

func (s *Shard) dropPart(r *request, p int32) {
	x := &s.parts[p]
	s.unwait(p)
	if x.haveRead {
		s.engine.ReadEnd(x.read)
		x.haveRead = false
	}
	s.partsOf.Remove(&r.parts, p)
	s.partsOf.Push(&s.freePart, p)
	x.dst = nil
	s.partsFree++
}

// hush gives back those parts of a session's fetch of which there is nothing to
// say.
func (s *Shard) hush(r *request) {
	for p := r.parts.First; p != none; {
		next := s.partsOf.Next(p)
		if s.silent(&s.parts[p]) {
			s.dropPart(r, p)
		}
		p = next
	}
}

// addPart takes a part for request i. There must be one: callers ask partsFree.
func (s *Shard) addPart(i uint32) *part {
	p := s.partsOf.Pop(&s.freePart)
	x := &s.parts[p]
	s.partsFree--
	*x = emptyPart
	x.request = i
	s.partsOf.PushBack(&s.requests[i].parts, p)
	return x
}

// keepPin remembers a pin until the reply of request r has left. There must be
// room: callers ask pinsFree.
func (s *Shard) keepPin(r *request, pin uint32) {
	if r.pins == none || s.pins[r.pins].n == pinsPerChunk {
		c := s.freePin
		k := &s.pins[c]
		s.freePin = k.next
		s.pinsFree--
		k.next, k.n = r.pins, 0
		r.pins = c
	}
	k := &s.pins[r.pins]
	k.pin[k.n] = pin
	k.n++
}

// unwait takes part p off its partition's waiters.
func (s *Shard) unwait(p int32) {
	x := &s.parts[p]
	if x.waits == waitNone {
		return
	}
	switch x.waits {
	case waitDurable:
		s.waiters.Remove(&x.partition.awaitingDurable, p)
	case waitData:
		s.waiters.Remove(&x.partition.awaitingData, p)
	}
	x.waits = waitNone
}

// awaitDurable puts part p among those that wait for its partition's durable
// offset. They come in order of their end, duplicates excepted, which go where
// they belong.
func (s *Shard) awaitDurable(p int32) {
	x := &s.parts[p]
	waiting := &x.partition.awaitingDurable
	after := waiting.Last
	for after != none && s.parts[after].end > x.end {
		after = s.parts[after].wait.Prev
	}
	x.waits = waitDurable
	s.waiters.InsertAfter(waiting, after, p)
}

func (s *Shard) awaitData(p int32) {
	x := &s.parts[p]
	x.waits = waitData
	s.waiters.PushFront(&x.partition.awaitingData, p)
}

// waitQueue holds frames that wait for log or reply memory, in order of
// arrival. It never grows.
type waitQueue struct {
	all   []waiter
	head  int
	n     int
	pass  uint32
	retry bool // something was given back: try again
}

type waiter struct {
	frame   netring.RequestID
	conn    netring.ConnID
	at      ioring.Instant
	request int32 // a produce that is half done, else none
	parts   int32 // a fetch: how many parts it did not find
}

func newWaitQueue(n int) waitQueue { return waitQueue{all: make([]waiter, n)} }

func (q *waitQueue) push(w waiter) {
	if q.n == len(q.all) {
		panic("shard: more frames wait than there are")
	}
	q.all[(q.head+q.n)%len(q.all)] = w
	q.n++
}

func (q *waitQueue) pop() waiter {
	w := q.all[q.head]
	q.head = (q.head + 1) % len(q.all)
	q.n--
	return w
}
