package shard

import (
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/mem"
)

// fetchRequest is what a Fetch has in addition to its request.
type fetchRequest struct {
	parts     mem.List        // of a session: partitions that may have changed; none while the Fetch waits for data
	code      kafka.ErrorCode // of the whole request, if it is refused
	parked    bool            // it waits for data
	wants     bool            // a session is to be created for it
	bytesMin  int32
	bytesMax  int32
	session   int32 // that it belongs to, until it is answered; else none
	sessionID int32 // in the reply; 0: none
	pins      int32 // list of pin chunks, freed when the reply has left
	have      int64 // while it is parked: bytes that there are to send
	poll      mem.Links
	parkedAt  ioring.Instant
	deadline  ioring.Instant
	idleFrom  ioring.Instant // for the flight recorder: when it waited for data
	idleTo    ioring.Instant
}

// fetchPart is one partition of a Fetch.
type fetchPart struct {
	ofRequest mem.Links
	wait      mem.Links // in its partition's awaitingData
	request   uint32
	topic     int32 // in the topic table; none if it is not known
	index     int32
	max       int32      // bytes that the client wants at most
	partition *partition // nil if it was not found
	from      int64
	start     int64 // log start and high watermark in the reply
	high      int64
	tally           // of its views and, while it is parked, of what came since
	epoch     int32 // leader epoch that the client knows; -1: none
	session   int32 // the session's partition that it was made of; else none
	views     int32 // how many of the shard's views are its
	diskRead
	waits bool
	code  kafka.ErrorCode
	name  kafka.Span // the topic's name in the request
}

// fetches is the table of Fetch requests in flight.
type fetches struct {
	engine         *engine.Engine
	requests       []fetchRequest // by the request's slot
	parts          partTable[fetchPart]
	waiters        mem.Thread // through partitions' awaitingData
	polls          longPolls
	pins           pins
	partsExhausted bool                     // a Fetch found no free parts
	name           [kafka.TopicNameMax]byte // scratch: of a topic that is not known
	replyMax       int                      // bytes of records in one reply, except for its first batch
	copyMax        int                      // and of those of them that are copied
}

var (
	emptyFetch     = fetchRequest{parts: mem.EmptyList, session: none, pins: none}
	emptyFetchPart = fetchPart{topic: none, session: none}
)

func newFetches(arena *mem.Arena, requests int, credit *partCredit, pinChunks int, log *engine.Engine) (fetches, error) {
	t := fetches{engine: log, requests: make([]fetchRequest, requests)}
	var err error
	if t.pins, err = newPins(arena, pinChunks); err != nil {
		return t, err
	}
	t.parts = newPartTable(credit.fetchesMax(), credit, func(part *fetchPart) *mem.Links { return &part.ofRequest })
	t.waiters = mem.ThreadOf(t.parts.all, func(part *fetchPart) *mem.Links { return &part.wait })
	t.polls = longPolls{all: mem.EmptyList, links: mem.ThreadOf(t.requests, func(fetch *fetchRequest) *mem.Links { return &fetch.poll })}
	return t, nil
}

func (t *fetches) of(req *request) *fetchRequest { return &t.requests[req.slot] }

// await puts a part into its partition's awaitingData.
func (t *fetches) await(at int32) {
	part := &t.parts.all[at]
	part.waits = true
	t.waiters.PushFront(&part.partition.awaitingData, at)
}

// stopAwaiting takes a part out of that list, if it is there.
func (t *fetches) stopAwaiting(at int32) {
	if part := &t.parts.all[at]; part.waits {
		part.waits = false
		t.waiters.Remove(&part.partition.awaitingData, at)
	}
}

// end frees what a Fetch has. It belongs to no session any more.
func (t *fetches) end(fetch *fetchRequest) {
	t.dropParts(fetch)
	t.pins.release(&fetch.pins, t.engine)
}

// dropParts frees a request's parts.
func (t *fetches) dropParts(fetch *fetchRequest) {
	for !fetch.parts.Empty() {
		t.dropPart(fetch, fetch.parts.First)
	}
}

func (t *fetches) dropPart(fetch *fetchRequest, at int32) {
	t.stopAwaiting(at)
	t.parts.all[at].endRead(t.engine)
	t.parts.give(&fetch.parts, at)
}

// pins keeps the pins of log memory that replies hold until they have left, in
// chunks. The table never grows.
type pins struct {
	all   []pinChunk
	first int32 // list of free chunks
	fresh mem.Fresh
	free  int // how many there are
}

type pinChunk struct {
	next int32
	n    int32
	pin  [pinsPerChunk]uint32
}

const pinsPerChunk = 14

func newPins(arena *mem.Arena, n int) (t pins, err error) {
	var region *mem.Region
	t.all, region, err = mem.MapTable[pinChunk](arena, "pins of replies", n)
	t.free = n
	t.fresh, t.first = mem.FreshOf(t.all, region)
	return t, err
}

// haveRoom says whether n pins can be kept.
func (t *pins) haveRoom(n int) bool { return t.free >= (n+pinsPerChunk-1)/pinsPerChunk }

// keep adds a pin to a reply's list of chunks, which begins at *head. haveRoom has
// said that there is room.
func (t *pins) keep(head *int32, pin uint32) {
	if *head == none || t.all[*head].n == pinsPerChunk {
		at := t.first
		chunk := &t.all[at]
		t.first = t.fresh.Take(at, chunk.next)
		t.free--
		chunk.next, chunk.n = *head, 0
		*head = at
	}
	chunk := &t.all[*head]
	chunk.pin[chunk.n] = pin
	chunk.n++
}

// release unpins all pins of a reply and frees its chunks.
func (t *pins) release(head *int32, log *engine.Engine) {
	for at := *head; at != none; {
		chunk := &t.all[at]
		for _, pin := range chunk.pin[:chunk.n] {
			log.Unpin(pin)
		}
		next := chunk.next
		chunk.next, t.first = t.first, at
		t.free++
		at = next
	}
	*head = none
}
