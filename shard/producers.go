package shard

import (
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/mem"
)

// producerWindow is how many batches of a producer a partition remembers: as many as
// Kafka's clients may have in flight (max.in.flight.requests.per.connection <= 5 with
// idempotence; ProducerStateEntry.NUM_BATCHES_TO_RETAIN).
const producerWindow = 5

// AttachmentsBytes is room for the windows of so many producers in a checkpoint. Some may
// be in it twice: those that a log forgot and another one remembered while it was put
// together, which takes some turns.
func AttachmentsBytes(producers int) int {
	return max(256<<10, producers*5/4*(format.ProducerBytes+producerWindow*format.MarkBytes))
}

// batchMark is one appended batch of a producer.
type batchMark struct {
	first, last int32 // sequence numbers, both inclusive
	base, end   int64 // offsets [base, end); base < 0: nothing was appended, see refused
}

// producer is what a partition remembers of one idempotent producer.
//
// Invariant: marks[0:n] are in the order of the log; 0 < n <= producerWindow.
type producer struct {
	id    int64
	slot  engine.Slot // its partition's
	epoch int16
	n     int8
	newMS int64 // the largest timestamp of its last batch; -1: not known since the start, or none
	marks [producerWindow]batchMark

	chain int32     // next in its hash bucket, or in the free list
	ofLog mem.Links // in partition.producers
	byUse mem.Links // in producers.used
}

// producers is the table of what the partitions of a data shard remember of
// idempotent producers, an entry for each pair of a partition and a producer. It
// belongs to the shard and never grows. A full table forgets the least recently used
// entry; from a producer that is not known any sequence number is accepted (KIP-360).
type producers struct {
	all     []producer
	buckets []int32
	free    int32
	fresh   mem.Fresh
	ofLog   mem.Thread // through partition.producers
	used    mem.List   // most recently used first
	byUse   mem.Thread // through used
	evicted uint64

	partitions *partitions
}

const none = mem.None

func newProducers(arena *mem.Arena, count int, partitions *partitions) (producers, error) {
	size := 1
	for size < 2*count {
		size *= 2
	}
	all, region, err := mem.MapTable[producer](arena, "windows of producers", count)
	if err != nil {
		return producers{}, err
	}
	t := producers{all: all, buckets: make([]int32, size), used: mem.EmptyList, partitions: partitions}
	t.fresh, t.free = mem.FreshOf(all, region)
	for i := range t.buckets {
		t.buckets[i] = none
	}
	t.ofLog = mem.ThreadOf(t.all, func(known *producer) *mem.Links { return &known.ofLog })
	t.byUse = mem.ThreadOf(t.all, func(known *producer) *mem.Links { return &known.byUse })
	return t, nil
}

func (t *producers) bucket(slot engine.Slot, id int64) *int32 {
	hash := (uint64(id) + 1) * 0x9e3779b97f4a7c15
	hash ^= uint64(slot) * 0xc2b2ae3d27d4eb4f
	hash ^= hash >> 29
	return &t.buckets[hash&uint64(len(t.buckets)-1)]
}

func (t *producers) find(p *partition, id int64) int32 {
	at := *t.bucket(p.slot, id)
	for at != none && (t.all[at].id != id || t.all[at].slot != p.slot) {
		at = t.all[at].chain
	}
	return at
}

// verdict is whether an idempotent batch may be appended.
type verdict struct {
	code      kafka.ErrorCode
	duplicate bool
	base, end int64 // of the original, where it is a duplicate
}

// check judges a batch before it is appended, by Kafka's rules
// (ProducerAppendInfo.checkSequence):
//
//   - an older epoch than the producer's is refused;
//   - a newer epoch begins with sequence number 0;
//   - in the same epoch a batch continues the one before it, or is the same as one of
//     the last five: a duplicate;
//   - a producer that is not known may begin with any sequence number.
func (t *producers) check(p *partition, batch *kafka.Batch) verdict {
	at := t.find(p, batch.ProducerID)
	if at == none {
		return verdict{}
	}
	known := &t.all[at]
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

// refused remembers a batch for which there was no room, of a producer that is not
// known: the producer has to continue with this batch, not with one that it has sent
// after it. The mark is that of a batch before this one, without records.
func (t *producers) refused(p *partition, batch *kafka.Batch) {
	if at := t.find(p, batch.ProducerID); at != none && t.all[at].epoch >= batch.ProducerEpoch {
		return // its last mark says where it continues
	}
	before := (batch.BaseSequence - 1) & 0x7fffffff
	t.add(p, batch.ProducerID, batch.ProducerEpoch, batchMark{before, before, -1, -1})
}

// lastSequence is the sequence number of the last of count records. Sequence numbers
// wrap from 2^31-1 to 0.
func lastSequence(first int32, count int32) int32 {
	return int32((int64(first) + int64(count) - 1) & 0x7fffffff)
}

func nextSequence(last int32) int32 { return int32((int64(last) + 1) & 0x7fffffff) }

// note remembers a batch that was appended at base.
func (t *producers) note(p *partition, batch *kafka.Batch, base int64) {
	known := t.add(p, batch.ProducerID, batch.ProducerEpoch, batchMark{batch.BaseSequence, lastSequence(batch.BaseSequence, batch.Count), base, base + int64(batch.Count)})
	known.newMS = batch.MaxTime
}

func (t *producers) add(p *partition, id int64, epoch int16, mark batchMark) *producer {
	at := t.find(p, id)
	if at == none {
		at = t.take(p, id)
	} else {
		t.touch(at)
	}
	known := &t.all[at]
	if known.epoch != epoch {
		known.epoch, known.n = epoch, 0
	}
	if known.n == producerWindow {
		copy(known.marks[:], known.marks[1:])
		known.n--
	}
	known.marks[known.n] = mark
	known.n++
	known.newMS = -1
	return known
}

func (t *producers) take(p *partition, id int64) int32 {
	if t.free == none {
		t.drop(t.used.Last)
		t.evicted++
	}
	at := t.free
	known := &t.all[at]
	t.free = t.fresh.Take(at, known.chain)
	head := t.bucket(p.slot, id)
	*known = producer{id: id, slot: p.slot, epoch: -1, chain: *head}
	*head = at
	t.ofLog.PushFront(&p.producers, at)
	t.byUse.PushFront(&t.used, at)
	return at
}

func (t *producers) touch(at int32) {
	if t.used.First != at {
		t.byUse.Remove(&t.used, at)
		t.byUse.PushFront(&t.used, at)
	}
}

func (t *producers) drop(at int32) {
	known := &t.all[at]
	before := t.bucket(known.slot, known.id)
	for *before != at {
		before = &t.all[*before].chain
	}
	*before = known.chain
	t.ofLog.Remove(&t.partitions.of(known.slot).producers, at)
	t.byUse.Remove(&t.used, at)
	known.chain = t.free
	t.free = at
}

// forget removes all of a partition's producers: it is deleted.
func (t *producers) forget(p *partition) {
	for !p.producers.Empty() {
		t.drop(p.producers.First)
	}
}

// truncate forgets every batch that ends past an offset: it never became durable.
func (t *producers) truncate(p *partition, end int64) {
	for at := p.producers.First; at != none; {
		known, next := &t.all[at], t.ofLog.Next(at)
		for known.n > 0 && known.marks[known.n-1].end > end {
			known.n--
			known.newMS = -1
		}
		if known.n == 0 {
			t.drop(at)
		}
		at = next
	}
}

// attachment writes as many of a partition's producers as dst has room for, the
// newest, and returns the length. The engine keeps it with a checksum.
func (t *producers) attachment(p *partition, dst []byte) int {
	n := 0
	for at := p.producers.First; at != none; at = t.ofLog.Next(at) {
		known := &t.all[at]
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

// PrunedBytes is how many bytes PruneHeaders leaves of a producer at most, in memory that grew
// to twice as many.
const PrunedBytes = 2 * producerWindow * format.KeptHeaderBytes

// PruneHeaders drops from a log's kept headers, oldest first, those that restore makes
// nothing of: of batches without a producer, and of all but the last batches of each
// producer. It does so in place.
func PruneHeaders(kept []byte) []byte {
	seen := map[int64]int{} // how many of a producer were met, from the end
	at := len(kept) / format.KeptHeaderBytes * format.KeptHeaderBytes
	to := at
	for from := at - format.KeptHeaderBytes; from >= 0; from -= format.KeptHeaderBytes {
		header := kept[from : from+format.KeptHeaderBytes]
		id := kafka.ParseBatchHeader(header[format.KeptHeaderBytes-format.BatchHeaderBytes:]).ProducerID
		if id < 0 || seen[id] == producerWindow {
			continue
		}
		seen[id]++
		to -= format.KeptHeaderBytes
		copy(kept[to:], header)
	}
	return kept[:copy(kept, kept[to:at])]
}

// restore rebuilds a partition's producers after recovery: first from the attachment
// of the checkpoint, without batches past the log's end (a checkpoint may be ahead of
// what was durable), then from the headers of the batches after it.
func (t *producers) restore(p *partition, end int64, attachment, headers []byte) {
	for len(attachment) >= format.ProducerBytes {
		var window format.ProducerWindow
		window.Get(attachment)
		attachment = attachment[format.ProducerBytes:]
		for n := int(uint8(window.Marks)); n > 0 && len(attachment) >= format.MarkBytes; n-- {
			var mark format.BatchMark
			mark.Get(attachment)
			if mark.End <= end {
				t.add(p, window.ID, window.Epoch, batchMark{mark.First, mark.Last, mark.Base, mark.End})
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
		if at := t.find(p, batch.ProducerID); at != none {
			known := &t.all[at]
			if known.epoch > batch.ProducerEpoch || known.epoch == batch.ProducerEpoch && known.marks[known.n-1].base >= base {
				continue // it was in the attachment
			}
		}
		t.note(p, &batch, base)
	}
}
