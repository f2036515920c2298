package shard

import (
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/mem"
)

// produceRequest is what a Produce has beside its request.
type produceRequest struct {
	parts  mem.List
	code   kafka.ErrorCode // refuses all partitions
	acks   int16
	named  int32 // partitions of the topics whose names stand in the reply
	done   int32 // partitions appended or refused so far
	faulty bool  // a partition was refused
	trace  appendTrace
}

// producePart is one partition of a Produce: its batch.
type producePart struct {
	ofRequest mem.Links
	wait      mem.Links // among those that await their partition's durable offset
	request   uint32
	index     int32
	partition *partition // nil where it was not found
	base, end int64      // the batch's offsets [base, end)
	reply     []byte     // where in the reply the partition stands
	code      kafka.ErrorCode
	waits     bool
	last      bool // its topic's last, behind which the topic is closed
}

// produces are the Produce requests in flight.
type produces struct {
	requests []produceRequest // by the request's slot
	parts    partTable[producePart]
	waiters  mem.Thread                   // parts in partitions' lists
	head     [kafka.BatchHeaderBytes]byte // of a batch for which there is no memory
}

var (
	emptyProduce     = produceRequest{parts: mem.EmptyList}
	emptyProducePart producePart
)

func newProduces(requests int, credit *partCredit) produces {
	t := produces{requests: make([]produceRequest, requests)}
	t.parts = newPartTable(credit.all, credit, func(part *producePart) *mem.Links { return &part.ofRequest })
	t.waiters = mem.ThreadOf(t.parts.all, func(part *producePart) *mem.Links { return &part.wait })
	return t
}

// await puts a part among those that await their partition's durable offset, in
// order of their end: a duplicate belongs before those that came behind its
// original.
func (t *produces) await(at int32) {
	part := &t.parts.all[at]
	waiting := &part.partition.awaitingDurable
	after := waiting.Last
	for after != none && t.parts.all[after].end > part.end {
		after = t.parts.all[after].wait.Prev
	}
	part.waits = true
	t.waiters.InsertAfter(waiting, after, at)
}

func (t *produces) stopAwaiting(at int32) {
	if part := &t.parts.all[at]; part.waits {
		part.waits = false
		t.waiters.Remove(&part.partition.awaitingDurable, at)
	}
}

// end gives a request's parts back.
func (t *produces) end(produce *produceRequest) {
	for parts := &produce.parts; !parts.Empty(); {
		at := parts.First
		t.stopAwaiting(at)
		t.parts.all[at].reply = nil
		t.parts.give(parts, at)
	}
}
