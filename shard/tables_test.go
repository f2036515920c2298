package shard

import (
	"math/rand/v2"
	"testing"

	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/mem"
)

func TestTimersAgainstASortedList(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	h := newTimers(64)
	model := map[uint32]ioring.Instant{}
	for range 20000 {
		slot := uint32(r.IntN(64))
		switch r.IntN(3) {
		case 0:
			when := ioring.Instant(r.IntN(1000))
			h.set(slot, when)
			model[slot] = when
		case 1:
			h.clear(slot)
			delete(model, slot)
		case 2:
			now := ioring.Instant(r.IntN(1000))
			got, ok := h.due(now)
			least := ioring.Never
			for _, w := range model { // order does not matter: the least is the least
				least = min(least, w)
			}
			if ok != (least <= now) || ok && model[got] != least {
				t.Fatalf("due(%d): slot %d %v; the earliest is %d", now, got, ok, least)
			}
			if ok {
				delete(model, got)
			}
		}
		if len(h.heap) != len(model) {
			t.Fatal("a deadline was lost or doubled")
		}
	}
}

// newTable is a table of producers over partitions of its own.
func newTable(t *testing.T, producersMax, logs int) *producers {
	arena, err := mem.Map(1<<20, mem.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { arena.Unmap() })
	partitions := newPartitions(nil, 0, logs)
	table, err := newProducers(arena, producersMax, &partitions)
	if err != nil {
		t.Fatal(err)
	}
	return &table
}

func (t *producers) of(slot engine.Slot) *partition { return t.partitions.of(slot) }

func batch(id int64, epoch int16, sequence, count int32) *kafka.Batch {
	return &kafka.Batch{ProducerID: id, ProducerEpoch: epoch, BaseSequence: sequence, Count: count}
}

func TestProducerWindow(t *testing.T) {
	p := newTable(t, 16, 4)
	const log = engine.Slot(1)
	offset := int64(100)
	store := func(b *kafka.Batch) {
		p.note(p.of(log), b, offset)
		offset += int64(b.Count)
	}
	if v := p.check(p.of(log), batch(7, 0, 41, 1)); v.code != kafka.None || v.duplicate {
		t.Fatalf("a producer that is not known may begin anywhere: %+v", v)
	}
	for i := range int32(7) {
		b := batch(7, 0, i*10, 10)
		if v := p.check(p.of(log), b); v.code != kafka.None || v.duplicate {
			t.Fatalf("batch %d: %+v", i, v)
		}
		store(b)
	}
	for i := range int32(7) {
		v := p.check(p.of(log), batch(7, 0, i*10, 10))
		if i < 2 {
			if v.code != kafka.OutOfOrderSequenceNumber {
				t.Fatalf("batch %d is out of the window: %+v", i, v)
			}
			continue
		}
		if !v.duplicate || v.base != 100+int64(i)*10 || v.end != v.base+10 {
			t.Fatalf("batch %d again: %+v; want its first offset", i, v)
		}
	}
	if v := p.check(p.of(log), batch(7, 0, 71, 1)); v.code != kafka.OutOfOrderSequenceNumber {
		t.Fatalf("a gap: %+v", v)
	}
	if v := p.check(p.of(log), batch(7, 1, 5, 1)); v.code != kafka.OutOfOrderSequenceNumber {
		t.Fatalf("a new epoch that does not begin at 0: %+v", v)
	}
	b := batch(7, 1, 0, 3)
	if v := p.check(p.of(log), b); v.code != kafka.None || v.duplicate {
		t.Fatalf("a new epoch: %+v", v)
	}
	store(b)
	if v := p.check(p.of(log), batch(7, 0, 70, 1)); v.code != kafka.InvalidProducerEpoch {
		t.Fatalf("an old epoch: %+v", v)
	}
	if v := p.check(p.of(2), batch(7, 0, 70, 1)); v.code != kafka.None {
		t.Fatalf("another log knows nothing of it: %+v", v)
	}
}

func TestSequenceWraps(t *testing.T) {
	p := newTable(t, 4, 1)
	p.note(p.of(0), batch(1, 0, 0x7ffffffe, 4), 0) // 2^31-2, 2^31-1, 0, 1
	if v := p.check(p.of(0), batch(1, 0, 2, 1)); v.code != kafka.None {
		t.Fatalf("behind the wrap: %+v", v)
	}
	if v := p.check(p.of(0), batch(1, 0, 0x7ffffffe, 4)); !v.duplicate {
		t.Fatalf("the wrapping batch again: %+v", v)
	}
}

// A window that is written to a checkpoint, cut to what the log holds and
// completed from later headers is the window there was.
func TestWindowSurvivesRecovery(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 1))
	for range 300 {
		live, back := newTable(t, 64, 2), newTable(t, 64, 2)
		next := map[int64]int32{}
		var headers []byte
		attachment := make([]byte, 1<<16)
		n, offset, durable := 0, int64(0), int64(0)
		total := 5 + r.IntN(60)
		at := r.IntN(total)
		for i := range total {
			id := int64(r.IntN(8))
			b := batch(id, 0, next[id], int32(1+r.IntN(3)))
			next[id] += b.Count
			live.note(live.of(1), b, offset)
			h := make([]byte, kafka.BatchHeaderBytes)
			kafka.PatchBase(h, offset, 0)
			putHeader(h, b)
			offset += int64(b.Count)
			if i == at {
				n = live.attachment(live.of(1), attachment)
			}
			if i > at-3 { // later headers may overlap the attachment
				headers = append(headers, h...)
			}
		}
		durable = offset
		if r.IntN(2) == 0 { // as recovery hands them over
			headers = pruned(t, headers)
		}
		back.restore(back.of(1), durable, attachment[:n], headers)
		for id := range int64(8) {
			i, j := live.find(live.of(1), id), back.find(back.of(1), id)
			if (i == none) != (j == none) {
				t.Fatalf("producer %d: known %v before, %v after", id, i != none, j != none)
			}
			if i == none {
				continue
			}
			a, b := live.all[i], back.all[j]
			if a.n != b.n || a.marks != b.marks || a.epoch != b.epoch {
				t.Fatalf("producer %d:\n%+v before\n%+v after", id, a, b)
			}
		}
	}
}

// pruned is headers as they are after recovery has pruned them twice, with those of batches
// without a producer among them.
func pruned(t *testing.T, headers []byte) (out []byte) {
	t.Helper()
	var kept []byte
	for round := range 2 {
		for ; len(headers) > 0 && (round == 1 || len(kept) < 20*format.KeptHeaderBytes); headers = headers[kafka.BatchHeaderBytes:] {
			kept = append(kept, make([]byte, format.KeptHeaderBytes-kafka.BatchHeaderBytes)...)
			kept = append(kept, headers[:kafka.BatchHeaderBytes]...)
			none := make([]byte, format.KeptHeaderBytes)
			putHeader(none[format.KeptHeaderBytes-kafka.BatchHeaderBytes:], batch(-1, -1, -1, 1))
			kept = append(kept, none...)
		}
		kept = PruneHeaders(kept)
		if most := 8 * producerWindow * format.KeptHeaderBytes; len(kept) > most {
			t.Fatalf("%d bytes of headers are kept, of at most %d", len(kept), most)
		}
	}
	for ; len(kept) > 0; kept = kept[format.KeptHeaderBytes:] {
		out = append(out, kept[format.KeptHeaderBytes-kafka.BatchHeaderBytes:format.KeptHeaderBytes]...)
	}
	return out
}

// What a checkpoint remembers of batches that never became durable is
// forgotten: else their retry would be taken for a duplicate, and lost.
func TestWindowForgetsWhatWasLost(t *testing.T) {
	p, back := newTable(t, 8, 1), newTable(t, 8, 1)
	for i := range int32(4) {
		p.note(p.of(0), batch(1, 0, i, 1), int64(i))
	}
	attachment := make([]byte, 4096)
	n := p.attachment(p.of(0), attachment)
	back.restore(back.of(0), 2, attachment[:n], nil)
	if v := back.check(back.of(0), batch(1, 0, 2, 1)); v.code != kafka.None || v.duplicate {
		t.Fatalf("the retry of a lost batch: %+v", v)
	}
	p.truncate(p.of(0), 2)
	if v := p.check(p.of(0), batch(1, 0, 2, 1)); v.code != kafka.None || v.duplicate {
		t.Fatalf("the retry after a failure: %+v", v)
	}
}

func TestFullTableForgetsTheLeastRecentlyUsed(t *testing.T) {
	p := newTable(t, 4, 2)
	for id := range int64(4) {
		p.note(p.of(0), batch(id, 0, 0, 1), id)
	}
	p.note(p.of(0), batch(0, 0, 1, 1), 10) // 0 is fresh again; 1 is the oldest
	p.note(p.of(1), batch(9, 0, 0, 1), 0)
	if p.find(p.of(0), 1) != none || p.find(p.of(0), 0) == none || p.find(p.of(1), 9) == none || p.evicted != 1 {
		t.Fatal("another producer than the one used least recently was forgotten")
	}
	p.forget(p.of(0))
	if !p.of(0).producers.Empty() || p.find(p.of(1), 9) == none {
		t.Fatal("forgetting one log's producers")
	}
}

func putHeader(h []byte, b *kafka.Batch) {
	put := func(at, n int, v int64) {
		for i := range n {
			h[at+i] = byte(v >> (8 * (n - 1 - i)))
		}
	}
	put(23, 4, int64(b.Count-1))
	put(43, 8, b.ProducerID)
	put(51, 2, int64(b.ProducerEpoch))
	put(53, 4, int64(b.BaseSequence))
	put(57, 4, int64(b.Count))
}

func TestMailArrivesInOrder(t *testing.T) {
	post, err := NewPost(1, 8)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan bool)
	const n = 100000
	go func() {
		for i := uint64(0); i < n; {
			if post.toData[1].put(Mail{Kind: MailOpen, A: i, B: ^i}) {
				i++
			}
		}
		done <- true
	}()
	for i := uint64(0); i < n; {
		m, ok := post.toData[1].take()
		if !ok {
			continue
		}
		if m.A != i || m.B != ^i || m.Kind != MailOpen {
			t.Fatalf("mail %d: %+v", i, m)
		}
		i++
	}
	<-done
}

// A producer's first batch finds no room: the one sent behind it must not take
// its place.
func TestProducerWindowAfterARefusal(t *testing.T) {
	p := newTable(t, 16, 4)
	const log = engine.Slot(1)
	for _, first := range []int32{0, 41} {
		id := int64(100 + first)
		p.refused(p.of(log), batch(id, 0, first, 10))
		p.refused(p.of(log), batch(id, 0, first+10, 10))
		if v := p.check(p.of(log), batch(id, 0, first+10, 10)); v.code != kafka.OutOfOrderSequenceNumber {
			t.Errorf("from %d: the second batch is taken before the first: %+v", first, v)
		}
		if v := p.check(p.of(log), batch(id, 0, (first-1)&0x7fffffff, 1)); v.duplicate {
			t.Errorf("from %d: a batch that was never stored is called a duplicate", first)
		}
		if v := p.check(p.of(log), batch(id, 0, first, 10)); v.code != kafka.None || v.duplicate {
			t.Errorf("from %d: the first batch, sent again: %+v", first, v)
		}
	}
}
