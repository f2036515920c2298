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
	p.ofLog = mem.ThreadOf(p.all, func(w *producer) *mem.Links { return &w.ofLog })
	p.byUse = mem.ThreadOf(p.all, func(w *producer) *mem.Links { return &w.byUse })
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

func (p *producers) bucket(l engine.Slot, id int64) *int32 {
	h := (uint64(id) + 1) * 0x9e3779b97f4a7c15
	h ^= uint64(l) * 0xc2b2ae3d27d4eb4f
	h ^= h >> 29
	return &p.buckets[h&uint64(len(p.buckets)-1)]
}

func (p *producers) find(l engine.Slot, id int64) int32 {
	i := *p.bucket(l, id)
	for i != none && (p.all[i].id != id || p.all[i].log != l) {
		i = p.all[i].chain
	}
	return i
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
func (p *producers) check(l engine.Slot, b *kafka.Batch) verdict {
	i := p.find(l, b.ProducerID)
	if i == none {
		return verdict{}
	}
	w := &p.all[i]
	switch {
	case b.ProducerEpoch < w.epoch:
		return verdict{code: kafka.InvalidProducerEpoch}
	case b.ProducerEpoch > w.epoch:
		if b.BaseSequence != 0 {
			return verdict{code: kafka.OutOfOrderSequenceNumber}
		}
		return verdict{}
	}
	last := lastSequence(b.BaseSequence, b.Count)
	for _, m := range w.marks[:w.n] {
		if m.first == b.BaseSequence && m.last == last && m.base >= 0 {
			return verdict{duplicate: true, base: m.base, end: m.end}
		}
	}
	if b.BaseSequence != nextSequence(w.marks[w.n-1].last) {
		return verdict{code: kafka.OutOfOrderSequenceNumber}
	}
	return verdict{}
}

// refused remembers of a producer that nothing is known of where it is to go on:
// with the batch that found no room, not with one that was sent behind it. The
// mark stands for a batch before it that was stored nowhere.
func (p *producers) refused(l engine.Slot, b *kafka.Batch) {
	if i := p.find(l, b.ProducerID); i != none && p.all[i].epoch >= b.ProducerEpoch {
		return // its last mark says the same
	}
	before := (b.BaseSequence - 1) & 0x7fffffff
	p.add(l, b.ProducerID, b.ProducerEpoch, batchMark{before, before, -1, -1})
}

// Sequence numbers wrap from 2^31-1 to 0.
func lastSequence(first int32, count int32) int32 {
	return int32((int64(first) + int64(count) - 1) & 0x7fffffff)
}
func nextSequence(last int32) int32 { return int32((int64(last) + 1) & 0x7fffffff) }

// note remembers a batch that was appended at base.
func (p *producers) note(l engine.Slot, b *kafka.Batch, base int64) {
	p.add(l, b.ProducerID, b.ProducerEpoch, batchMark{b.BaseSequence, lastSequence(b.BaseSequence, b.Count), base, base + int64(b.Count)})
}

func (p *producers) add(l engine.Slot, id int64, epoch int16, m batchMark) {
	i := p.find(l, id)
	if i == none {
		i = p.take(l, id)
	} else {
		p.touch(i)
	}
	w := &p.all[i]
	if w.epoch != epoch {
		w.epoch, w.n = epoch, 0
	}
	if w.n == producerWindow {
		copy(w.marks[:], w.marks[1:])
		w.n--
	}
	w.marks[w.n] = m
	w.n++
}

func (p *producers) take(l engine.Slot, id int64) int32 {
	if p.free == none {
		p.drop(p.used.Last)
		p.evicted++
	}
	i := p.free
	w := &p.all[i]
	p.free = w.chain
	head := p.bucket(l, id)
	*w = producer{id: id, log: l, epoch: -1, chain: *head}
	*head = i
	p.ofLog.PushFront(&p.logs[l], i)
	p.byUse.PushFront(&p.used, i)
	return i
}

func (p *producers) touch(i int32) {
	if p.used.First != i {
		p.byUse.Remove(&p.used, i)
		p.byUse.PushFront(&p.used, i)
	}
}

func (p *producers) drop(i int32) {
	w := &p.all[i]
	at := p.bucket(w.log, w.id)
	for *at != i {
		at = &p.all[*at].chain
	}
	*at = w.chain
	p.ofLog.Remove(&p.logs[w.log], i)
	p.byUse.Remove(&p.used, i)
	w.chain = p.free
	p.free = i
}

// forget drops all a log's producers: the log is deleted.
func (p *producers) forget(l engine.Slot) {
	for !p.logs[l].Empty() {
		p.drop(p.logs[l].First)
	}
}

// truncate forgets every batch at or past end: it never became durable.
func (p *producers) truncate(l engine.Slot, end int64) {
	for i := p.logs[l].First; i != none; {
		w, next := &p.all[i], p.ofLog.Next(i)
		for w.n > 0 && w.marks[w.n-1].end > end {
			w.n--
		}
		if w.n == 0 {
			p.drop(i)
		}
		i = next
	}
}

// attachment writes as many producers of l as dst holds, those it came to know
// last, and says how long it is. The engine keeps it with a checksum of its own.
func (p *producers) attachment(l engine.Slot, dst []byte) int {
	n := 0
	for i := p.logs[l].First; i != none; i = p.ofLog.Next(i) {
		w := &p.all[i]
		need := format.ProducerBytes + int(w.n)*format.MarkBytes
		if n+need > len(dst) {
			break
		}
		window := format.ProducerWindow{ID: w.id, Epoch: w.epoch, Marks: w.n}
		n += window.Put(dst[n:])
		for _, m := range w.marks[:w.n] {
			mark := format.BatchMark{First: m.first, Last: m.last, Base: m.base, End: m.end}
			n += mark.Put(dst[n:])
		}
	}
	return n
}

// restore rebuilds a log's windows after recovery: the attachment of the
// checkpoint, less what the log turned out not to hold (a checkpoint may be
// ahead of what was durable), then the headers of the batches after it.
func (p *producers) restore(l engine.Slot, end int64, attachment, headers []byte) {
	for len(attachment) >= format.ProducerBytes {
		var window format.ProducerWindow
		window.Get(attachment)
		attachment = attachment[format.ProducerBytes:]
		for n := int(uint8(window.Marks)); n > 0 && len(attachment) >= format.MarkBytes; n-- {
			var m format.BatchMark
			m.Get(attachment)
			if m.End <= end {
				p.add(l, window.ID, window.Epoch, batchMark{m.First, m.Last, m.Base, m.End})
			}
			attachment = attachment[format.MarkBytes:]
		}
	}
	for ; len(headers) >= kafka.BatchHeaderBytes; headers = headers[kafka.BatchHeaderBytes:] {
		b := kafka.ParseBatchHeader(headers)
		base := kafka.BaseOffset(headers)
		if b.ProducerID < 0 || base+int64(b.Count) > end {
			continue
		}
		if i := p.find(l, b.ProducerID); i != none {
			w := &p.all[i]
			if w.epoch > b.ProducerEpoch || w.epoch == b.ProducerEpoch && w.marks[w.n-1].base >= base {
				continue // the attachment had it
			}
		}
		p.note(l, &b, base)
	}
}
