package shard

import (
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/mem"
)

// producerWindow is how many batches of a producer are remembered for each
// partition: what Kafka's clients may have in flight (max.in.flight.requests
// .per.connection <= 5 with idempotence; ProducerStateEntry.NUM_BATCHES_TO_RETAIN).
const producerWindow = 5

// batchMark remembers one stored batch of a producer.
type batchMark struct {
	first, last int32 // sequence numbers, both inclusive
	base, end   int64 // offsets [base, end); base < 0: nothing was stored, see refused
}

// producer is what a partition remembers of one idempotent producer.
//
// Invariant: marks[0:n] are in the order stored; 0 < n <= producerWindow.
type producer struct {
	id    int64
	log   engine.Slot
	epoch int16
	n     int8
	marks [producerWindow]batchMark

	chain int32     // next in its hash bucket, or in the free list
	ofLog mem.Links // the log's producers, newest first
	byUse mem.Links // all producers, most recently used first
}

// producers are the windows of all partitions of a data shard, in one table
// that never grows. They belong to the shard. A full table forgets the producer
// used least recently; it is then an unknown one, of which any sequence is
// accepted (KIP-360).
type producers struct {
	all     []producer
	buckets []int32
	free    int32
	logs    []mem.List // by engine slot, through ofLog
	ofLog   mem.Thread
	used    mem.List // through byUse
	byUse   mem.Thread
	evicted uint64
}

const none = mem.None

func newProducers(count, logs int) producers {
	size := 1
	for size < 2*count {
		size *= 2
	}
	p := producers{all: make([]producer, count), buckets: make([]int32, size), logs: make([]mem.List, logs), used: mem.EmptyList}
	fill(p.buckets)
	for i := range p.logs {
		p.logs[i] = mem.EmptyList
	}
	p.ofLog = mem.ThreadOf(p.all, func(known *producer) *mem.Links { return &known.ofLog })
	p.byUse = mem.ThreadOf(p.all, func(known *producer) *mem.Links { return &known.byUse })
	for i := range p.all {
		p.all[i].chain = int32(i + 1)
	}
	p.all[count-1].chain = none
	return p
}

func fill(s []int32) {
	for i := range s {
		s[i] = none
	}
}

func (p *producers) bucket(slot engine.Slot, id int64) *int32 {
	hash := (uint64(id) + 1) * 0x9e3779b97f4a7c15
	hash ^= uint64(slot) * 0xc2b2ae3d27d4eb4f
	hash ^= hash >> 29
	return &p.buckets[hash&uint64(len(p.buckets)-1)]
}

func (p *producers) find(slot engine.Slot, id int64) int32 {
	at := *p.bucket(slot, id)
	for at != none && (p.all[at].id != id || p.all[at].log != slot) {
		at = p.all[at].chain
	}
	return at
}

// verdict is what a partition says of an idempotent batch.
type verdict struct {
	code      kafka.ErrorCode
	duplicate bool
	base, end int64 // of the original, where it is a duplicate
}

// check judges a batch before it is appended. Kafka's rules
// (ProducerAppendInfo.checkSequence): an older epoch is fenced; a new epoch
// begins at 0; the same epoch goes on where it was; an exact match with one of
// the last five is a duplicate; a producer that is not known may begin
// anywhere.
func (p *producers) check(slot engine.Slot, batch *kafka.Batch) verdict {
	at := p.find(slot, batch.ProducerID)
	if at == none {
		return verdict{}
	}
	known := &p.all[at]
	switch {
	case batch.ProducerEpoch < known.epoch:
		return verdict{code: kafka.InvalidProducerEpoch}
	case batch.ProducerEpoch > known.epoch:
		if batch.BaseSequence != 0 {
			return verdict{code: kafka.OutOfOrderSequenceNumber}
		}
		return verdict{}
	}
	last := lastSequence(batch.BaseSequence, batch.Count)
	for _, mark := range known.marks[:known.n] {
		if mark.first == batch.BaseSequence && mark.last == last && mark.base >= 0 {
			return verdict{duplicate: true, base: mark.base, end: mark.end}
		}
	}
	if batch.BaseSequence != nextSequence(known.marks[known.n-1].last) {
		return verdict{code: kafka.OutOfOrderSequenceNumber}
	}
	return verdict{}
}

// refused remembers where a producer that is not known has to go on: with the
// batch for which there was no room, and not with one that was sent behind it. The
// mark stands for a batch before it, of which no record was stored.
func (p *producers) refused(slot engine.Slot, batch *kafka.Batch) {
	if at := p.find(slot, batch.ProducerID); at != none && p.all[at].epoch >= batch.ProducerEpoch {
		return // its last mark says the same
	}
	before := (batch.BaseSequence - 1) & 0x7fffffff
	p.add(slot, batch.ProducerID, batch.ProducerEpoch, batchMark{before, before, -1, -1})
}

// Sequence numbers wrap from 2^31-1 to 0.
func lastSequence(first int32, count int32) int32 {
	return int32((int64(first) + int64(count) - 1) & 0x7fffffff)
}
func nextSequence(last int32) int32 { return int32((int64(last) + 1) & 0x7fffffff) }

// note remembers a batch that was appended at base.
func (p *producers) note(slot engine.Slot, batch *kafka.Batch, base int64) {
	p.add(slot, batch.ProducerID, batch.ProducerEpoch, batchMark{batch.BaseSequence, lastSequence(batch.BaseSequence, batch.Count), base, base + int64(batch.Count)})
}

func (p *producers) add(slot engine.Slot, id int64, epoch int16, mark batchMark) {
	at := p.find(slot, id)
	if at == none {
		at = p.take(slot, id)
	} else {
		p.touch(at)
	}
	known := &p.all[at]
	if known.epoch != epoch {
		known.epoch, known.n = epoch, 0
	}
	if known.n == producerWindow {
		copy(known.marks[:], known.marks[1:])
		known.n--
	}
	known.marks[known.n] = mark
	known.n++
}

func (p *producers) take(slot engine.Slot, id int64) int32 {
	if p.free == none {
		p.drop(p.used.Last)
		p.evicted++
	}
	at := p.free
	known := &p.all[at]
	p.free = known.chain
	head := p.bucket(slot, id)
	*known = producer{id: id, log: slot, epoch: -1, chain: *head}
	*head = at
	p.ofLog.PushFront(&p.logs[slot], at)
	p.byUse.PushFront(&p.used, at)
	return at
}

func (p *producers) touch(at int32) {
	if p.used.First != at {
		p.byUse.Remove(&p.used, at)
		p.byUse.PushFront(&p.used, at)
	}
}

func (p *producers) drop(at int32) {
	known := &p.all[at]
	before := p.bucket(known.log, known.id)
	for *before != at {
		before = &p.all[*before].chain
	}
	*before = known.chain
	p.ofLog.Remove(&p.logs[known.log], at)
	p.byUse.Remove(&p.used, at)
	known.chain = p.free
	p.free = at
}

// forget drops all a log's producers: the log is deleted.
func (p *producers) forget(slot engine.Slot) {
	for !p.logs[slot].Empty() {
		p.drop(p.logs[slot].First)
	}
}

// truncate forgets every batch at or past end: it never became durable.
func (p *producers) truncate(slot engine.Slot, end int64) {
	for at := p.logs[slot].First; at != none; {
		known, next := &p.all[at], p.ofLog.Next(at)
		for known.n > 0 && known.marks[known.n-1].end > end {
			known.n--
		}
		if known.n == 0 {
			p.drop(at)
		}
		at = next
	}
}

// attachment writes as many producers of l as dst holds, those it came to know
// last, and says how long it is. The engine keeps it with a checksum of its own.
func (p *producers) attachment(slot engine.Slot, dst []byte) int {
	n := 0
	for at := p.logs[slot].First; at != none; at = p.ofLog.Next(at) {
		known := &p.all[at]
		need := format.ProducerBytes + int(known.n)*format.MarkBytes
		if n+need > len(dst) {
			break
		}
		window := format.ProducerWindow{ID: known.id, Epoch: known.epoch, Marks: known.n}
		n += window.Put(dst[n:])
		for _, m := range known.marks[:known.n] {
			mark := format.BatchMark{First: m.first, Last: m.last, Base: m.base, End: m.end}
			n += mark.Put(dst[n:])
		}
	}
	return n
}

// restore rebuilds a log's windows after recovery: the attachment of the
// checkpoint, less what the log turned out not to hold (a checkpoint may be
// ahead of what was durable), then the headers of the batches after it.
func (p *producers) restore(slot engine.Slot, end int64, attachment, headers []byte) {
	for len(attachment) >= format.ProducerBytes {
		var window format.ProducerWindow
		window.Get(attachment)
		attachment = attachment[format.ProducerBytes:]
		for n := int(uint8(window.Marks)); n > 0 && len(attachment) >= format.MarkBytes; n-- {
			var mark format.BatchMark
			mark.Get(attachment)
			if mark.End <= end {
				p.add(slot, window.ID, window.Epoch, batchMark{mark.First, mark.Last, mark.Base, mark.End})
			}
			attachment = attachment[format.MarkBytes:]
		}
	}
	for ; len(headers) >= kafka.BatchHeaderBytes; headers = headers[kafka.BatchHeaderBytes:] {
		batch := kafka.ParseBatchHeader(headers)
		base := kafka.BaseOffset(headers)
		if batch.ProducerID < 0 || base+int64(batch.Count) > end {
			continue
		}
		if at := p.find(slot, batch.ProducerID); at != none {
			known := &p.all[at]
			if known.epoch > batch.ProducerEpoch || known.epoch == batch.ProducerEpoch && known.marks[known.n-1].base >= base {
				continue // the attachment had it
			}
		}
		p.note(slot, &batch, base)
	}
}
