package shard

import (
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/mem"
)

// produceRequest is what a Produce has in addition to its request.
type produceRequest struct {
	parts  mem.List
	code   kafka.ErrorCode // of all partitions, if the whole request is refused
	acks   int16
	named  int32 // partitions of the topics whose names are in the reply
	done   int32 // partitions that were appended or refused so far
	faulty bool  // a partition was refused
	slack  int32 // bytes of the reply that messages of refused partitions may take
	trace  appendTrace
}

// producePart is one partition of a Produce, with its batch.
type producePart struct {
	ofRequest mem.Links
	wait      mem.Links // in its partition's awaitingDurable
	request   uint32
	index     int32
	partition *partition // nil if it was not found
	base, end int64      // the batch's offsets [base, end)
	reply     []byte     // its answer in the reply
	code      kafka.ErrorCode
	waits     bool
	last      bool // of its topic in the request
}

// produces is the table of Produce requests in flight.
type produces struct {
	requests []produceRequest // by the request's slot
	parts    partTable[producePart]
	waiters  mem.Thread                   // through partitions' awaitingDurable
	head     [kafka.BatchHeaderBytes]byte // scratch: of a batch for which there is no memory
	message  [faultBytesMax]byte          // scratch: why a batch is refused
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

// end frees a request's parts.
func (t *produces) end(produce *produceRequest) {
	for parts := &produce.parts; !parts.Empty(); {
		at := parts.First
		t.stopAwaiting(at)
		t.parts.all[at].reply = nil
		t.parts.give(parts, at)
	}
}
