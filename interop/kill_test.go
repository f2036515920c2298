package interop

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const killPartitions = 6

// A mark is the content of a record in the kill test: its producer, and the number of the producer's record in this partition.
type mark struct {
	producer, counter int
}

func (m mark) value(padding int) []byte {
	return fmt.Appendf(nil, "%d/%d/%s", m.producer, m.counter, strings.Repeat("x", padding))
}

func markOf(value []byte) (m mark, err error) {
	fields := strings.SplitN(string(value), "/", 3)
	if len(fields) != 3 || strings.Trim(fields[2], "x") != "" {
		return m, fmt.Errorf("nobody wrote %s", show(value))
	}
	m.producer, err = strconv.Atoi(fields[0])
	if err == nil {
		m.counter, err = strconv.Atoi(fields[1])
	}
	return m, err
}

// A promise is an acknowledgement.
type promise struct {
	partition int32
	offset    int64
	mark      mark
}

// A load is a set of producers that go on through every death of their broker, and what they were promised.
type load struct {
	topic      string
	idempotent []bool // by producer

	mu       sync.Mutex
	promises []promise
	failures []error
	acks     []atomic.Int64 // by producer
}

func (l *load) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.failures) < 10 {
		l.failures = append(l.failures, err)
	}
}

// run is one producer, until stop is closed and all it sent is acknowledged.
func (l *load) run(b *broker, id int, seed uint64, stop <-chan struct{}) {
	rng := rand.New(rand.NewPCG(seed, uint64(id)))
	opts := []kgo.Opt{
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(time.Duration(id%3) * time.Millisecond), kgo.ProducerBatchMaxBytes(300000),
		kgo.ProducerBatchCompression([]kgo.CompressionCodec{kgo.NoCompression(), kgo.SnappyCompression()}[id%2]),
		kgo.ProducerOnDataLossDetected(func(topic string, partition int32) {
			l.fail(fmt.Errorf("producer %d is told of lost data in partition %d", id, partition))
		}),
	}
	if !l.idempotent[id] {
		opts = append(opts, kgo.DisableIdempotentWrite())
	}
	cl, err := franz{}.dial(b, opts...)
	if err != nil {
		l.fail(err)
		return
	}
	defer cl.Close()
	var counters [killPartitions]int
	for {
		select {
		case <-stop:
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			if err := cl.Flush(ctx); err != nil {
				l.fail(fmt.Errorf("producer %d flushes: %w", id, err))
			}
			return
		default:
		}
		for range 1 + rng.IntN(20) {
			p := rng.IntN(killPartitions)
			m := mark{id, counters[p]}
			counters[p]++
			padding := rng.IntN(500)
			if rng.IntN(400) == 0 {
				padding = 100000 // past the threshold of a direct write
			}
			cl.Produce(context.Background(), &kgo.Record{Topic: l.topic, Partition: int32(p), Value: m.value(padding)}, func(r *kgo.Record, err error) {
				if err != nil {
					l.fail(fmt.Errorf("producer %d, record %d of partition %d: %w", id, m.counter, r.Partition, err))
					return
				}
				l.mu.Lock()
				l.promises = append(l.promises, promise{r.Partition, r.Offset, m})
				l.mu.Unlock()
				l.acks[id].Add(1)
			})
		}
		time.Sleep(time.Duration(2+rng.IntN(8)) * time.Millisecond)
	}
}

// resumed waits until every producer has had an acknowledgement since before.
func (l *load) resumed(before []int64) error {
	limit := time.Now().Add(45 * time.Second)
	for id := range l.acks {
		for l.acks[id].Load() == before[id] {
			if time.Now().After(limit) {
				return fmt.Errorf("producer %d has had no acknowledgement for 45 s", id)
			}
			time.Sleep(2 * time.Millisecond)
		}
	}
	return nil
}

func (l *load) counts() []int64 {
	n := make([]int64, len(l.acks))
	for i := range n {
		n[i] = l.acks[i].Load()
	}
	return n
}

// verify reads everything and holds it against the promises made before it began.
func (l *load) verify(ctx context.Context, b *broker) (log [][]mark, repeated int, err error) {
	l.mu.Lock()
	promised := slices.Clone(l.promises)
	failures := slices.Clone(l.failures)
	l.mu.Unlock()
	if len(failures) > 0 {
		return nil, 0, errors.Join(failures...)
	}
	adm, err := franz{}.admin(b)
	if err != nil {
		return nil, 0, err
	}
	defer adm.Close()
	ends, err := adm.ListEndOffsets(ctx, l.topic)
	if err != nil {
		return nil, 0, err
	}
	if err := ends.Error(); err != nil {
		return nil, 0, err
	}
	count := make([]int, killPartitions)
	for p := range count {
		o, _ := ends.Lookup(l.topic, int32(p))
		count[p] = int(o.Offset)
	}
	rs, err := franz{}.consume(ctx, b, l.topic, zeroes(killPartitions), count)
	if err != nil {
		return nil, 0, fmt.Errorf("reading everything back: %w", err)
	}
	return judge(rs, promised, l.idempotent)
}

// judge holds everything that is stored, in order within each partition, against what was promised.
func judge(rs []record, promised []promise, idempotent []bool) (log [][]mark, repeated int, err error) {
	log = make([][]mark, killPartitions)
	next := make(map[[2]int]int) // by partition and producer: the counter that has not been seen yet
	for _, r := range rs {
		if r.offset != int64(len(log[r.partition])) {
			return nil, 0, fmt.Errorf("partition %d: offset %d follows %d", r.partition, r.offset, len(log[r.partition])-1)
		}
		m, err := markOf(r.value)
		if err != nil {
			return nil, 0, fmt.Errorf("partition %d, offset %d: %w", r.partition, r.offset, err)
		}
		log[r.partition] = append(log[r.partition], m)
		stream := [2]int{int(r.partition), m.producer}
		switch due := next[stream]; {
		case m.counter == due:
			next[stream]++
		case m.counter > due:
			return nil, 0, fmt.Errorf("partition %d, offset %d: record %d of producer %d, whose record %d is missing", r.partition, r.offset, m.counter, m.producer, due)
		case idempotent[m.producer]:
			return nil, 0, fmt.Errorf("partition %d, offset %d: record %d of idempotent producer %d, for the second time (the newest is %d)",
				r.partition, r.offset, m.counter, m.producer, due-1)
		default:
			repeated++
		}
	}
	lost := 0
	for _, p := range promised {
		switch here := log[p.partition]; {
		case p.offset < 0 || p.offset >= int64(len(here)):
			err = fmt.Errorf("acknowledged at %d of partition %d, which ends at %d: %+v", p.offset, p.partition, len(here), p.mark)
		case here[p.offset] != p.mark:
			err = fmt.Errorf("acknowledged at %d of partition %d: %+v; there is %+v", p.offset, p.partition, p.mark, here[p.offset])
		default:
			continue
		}
		lost++
	}
	if err != nil {
		err = fmt.Errorf("%d of %d acknowledged records are not where they were promised, such as: %w", lost, len(promised), err)
	}
	return log, repeated, err
}

// TestJudge: the judgement finds each harm that a broker could do.
func TestJudge(t *testing.T) {
	stored := func(counters ...int) (rs []record) {
		for i, c := range counters {
			rs = append(rs, record{partition: 1, offset: int64(i), value: mark{0, c}.value(3)})
		}
		return rs
	}
	promised := []promise{{1, 0, mark{0, 0}}, {1, 2, mark{0, 2}}}
	holed := stored(0, 1, 2)
	holed[2].offset = 3
	changed := stored(0, 1, 2)
	changed[1].value[5] ^= 1
	for _, c := range []struct {
		what       string
		rs         []record
		idempotent bool
		want       string // "" is none
	}{
		{"as promised", stored(0, 1, 2), true, ""},
		{"more than promised", stored(0, 1, 2, 3), true, ""},
		{"the end is lost", stored(0, 1), true, "not where they were promised"},
		{"one in the middle is lost", stored(0, 2, 3), true, "is missing"},
		{"two are swapped", stored(0, 2, 1), true, "is missing"},
		{"one is there twice", stored(0, 1, 2, 2), true, "for the second time"},
		{"one of a plain producer is there twice", stored(0, 1, 2, 2), false, ""},
		{"a repetition moves what was promised", stored(0, 1, 1, 2), false, "not where they were promised"},
		{"an offset is left out", holed, true, "follows"},
		{"a byte has changed", changed, true, "nobody wrote"},
	} {
		_, _, err := judge(c.rs, promised, []bool{c.idempotent})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.what, err, c.want)
		}
	}
}

// A witness consumes through every death; what it has been shown must never be taken back.
type witness struct {
	mu  sync.Mutex
	log [][]mark
	err error
}

func (w *witness) run(b *broker, topic string, stop <-chan struct{}) {
	start := make(map[int32]kgo.Offset)
	for p := range int32(killPartitions) {
		start[p] = kgo.NewOffset().At(0)
	}
	w.log = make([][]mark, killPartitions)
	cl, err := franz{}.dial(b, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: start}), kgo.FetchMaxWait(time.Second), kgo.ConsumeResetOffset(kgo.NoResetOffset()))
	if err != nil {
		w.err = err
		return
	}
	defer cl.Close()
	for {
		select {
		case <-stop:
			return
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		fetches := cl.PollFetches(ctx)
		cancel()
		w.mu.Lock()
		fetches.EachError(func(_ string, p int32, err error) {
			var k *kerr.Error
			var loss *kgo.ErrDataLoss
			if w.err == nil && (errors.As(err, &loss) || errors.As(err, &k) && !k.Retriable) {
				w.err = fmt.Errorf("consuming partition %d: %w", p, err)
			}
		})
		fetches.EachRecord(func(r *kgo.Record) {
			m, err := markOf(r.Value)
			if err == nil && r.Offset != int64(len(w.log[r.Partition])) {
				err = fmt.Errorf("consuming partition %d: offset %d follows %d", r.Partition, r.Offset, len(w.log[r.Partition])-1)
			}
			if err != nil && w.err == nil {
				w.err = err
			}
			w.log[r.Partition] = append(w.log[r.Partition], m)
		})
		w.mu.Unlock()
	}
}

// agrees holds what was consumed against what is stored.
func (w *witness) agrees(log [][]mark) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	for p, seen := range w.log {
		for o, m := range seen {
			if o < len(log[p]) && log[p][o] != m {
				return fmt.Errorf("a consumer was shown %+v at %d of partition %d, where now is %+v", m, o, p, log[p][o])
			}
		}
	}
	return nil
}

// A founder creates and deletes topics through every death. What it was told is done must stay done.
type founder struct {
	mu     sync.Mutex
	exists map[string]bool // only of topics whose last change was acknowledged
}

func (f *founder) run(b *broker, stop <-chan struct{}) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-time.After(20 * time.Millisecond):
		}
		adm, err := franz{}.admin(b)
		if err != nil {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		name, old := fmt.Sprintf("founded-%d", i), fmt.Sprintf("founded-%d", i-3)
		if _, err := adm.CreateTopic(ctx, 2, 1, nil, name); err == nil {
			f.set(name, true)
		}
		f.mu.Lock()
		there := f.exists[old]
		delete(f.exists, old)
		f.mu.Unlock()
		if there && i%4 != 0 { // some stay
			if _, err := adm.DeleteTopic(ctx, old); err == nil {
				f.set(old, false)
			}
		} else if there {
			f.set(old, true)
		}
		cancel()
		adm.Close()
	}
}

func (f *founder) set(name string, exists bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.exists == nil {
		f.exists = make(map[string]bool)
	}
	f.exists[name] = exists
}

// verify asks while no broker has been up since the last change: call it with the founder's answers of the life before.
func (f *founder) verify(ctx context.Context, adm *kadm.Client, before map[string]bool) error {
	listed, err := adm.ListTopics(ctx)
	if err != nil {
		return err
	}
	for name, exists := range before {
		f.mu.Lock()
		now, known := f.exists[name]
		f.mu.Unlock()
		if d, ok := listed[name]; known && now == exists && (ok && d.Err == nil) != exists {
			return fmt.Errorf("topic %s: exists is %v, acknowledged was %v", name, ok, exists)
		}
	}
	return nil
}

func (f *founder) snapshot() map[string]bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := make(map[string]bool, len(f.exists))
	for k, v := range f.exists {
		m[k] = v
	}
	return m
}

// TestKill: a broker killed at any moment, under load, has kept every promise when it is back. Every fifth time it is asked to end instead.
func TestKill(t *testing.T) {
	t.Parallel()
	needReal(t, "it cannot be killed")
	rounds := 20
	if testing.Short() {
		rounds = 3
	}
	if s := os.Getenv("INTEROP_KILL_ROUNDS"); s != "" {
		rounds, _ = strconv.Atoi(s)
	}
	seed := seedOf(t, 1)
	deaths(t, seed, rounds, func(int) int { return dataShards })
}

// TestShards: what was acknowledged by a broker with one number of shards is there with any other, though it was killed in between, and killed again
// while it moved its logs.
func TestShards(t *testing.T) {
	t.Parallel()
	needReal(t, "it has no shards")
	rounds := 6
	if testing.Short() {
		rounds = 3
	}
	seed := seedOf(t, 1)
	deaths(t, seed, rounds, func(round int) int { return []int{1, 3, 2}[round%3] }) // the first life has 2
}

// deaths has a broker die and come back, under load, as often as is said; shards is how many it has in the life after a death.
func deaths(t *testing.T, seed uint64, rounds int, shards func(round int) int) {
	rng := rand.New(rand.NewPCG(seed, 99))
	b := ownBroker(t)
	const topic = "kill"
	ctx := within(t, time.Minute)
	if err := (franz{}).create(ctx, b, topic, killPartitions, 1); err != nil {
		t.Fatal(err)
	}
	l := &load{topic: topic, idempotent: []bool{true, true, true, true, false, false}, acks: make([]atomic.Int64, 6)}
	w, f := &witness{}, &founder{}
	stop := make(chan struct{})
	var producers, others sync.WaitGroup
	for id := range l.idempotent {
		producers.Go(func() { l.run(b, id, seed, stop) })
	}
	stopOthers := make(chan struct{})
	others.Go(func() { w.run(b, topic, stopOthers) })
	others.Go(func() { f.run(b, stopOthers) })
	defer others.Wait()
	defer close(stopOthers)
	stopProducers := sync.OnceFunc(func() { close(stop) })
	defer stopProducers()

	if err := l.resumed(make([]int64, len(l.acks))); err != nil {
		t.Fatal(err)
	}
	for round := range rounds {
		time.Sleep(time.Duration(20+rng.IntN(700)) * time.Millisecond)
		if round%5 == 4 {
			if err := b.stop(); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
		} else {
			b.kill()
		}
		founded := f.snapshot()
		before := l.counts()
		if err := b.check(); err != nil {
			t.Fatalf("round %d: %v\nthe broker's output:\n%s", round, err, b.out.tail())
		}
		b.shards = shards(round)
		if round%3 == 1 { // a recovery may be cut at any point, again and again
			for range 1 + rng.IntN(3) {
				if err := b.stillborn(time.Duration(rng.IntN(60)) * time.Millisecond); err != nil {
					t.Fatalf("round %d: %v", round, err)
				}
			}
			if err := b.check(); err != nil {
				t.Fatalf("round %d, after a recovery cut short: %v\nthe broker's output:\n%s", round, err, b.out.tail())
			}
		}
		begun := time.Now()
		if err := b.start(); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		up := time.Since(begun)
		if err := l.resumed(before); err != nil {
			t.Fatalf("round %d: %v\nthe broker's output:\n%s", round, err, b.out.tail())
		}
		ctx := within(t, time.Minute)
		log, repeated, err := l.verify(ctx, b)
		if err == nil {
			err = w.agrees(log)
		}
		if err == nil {
			var adm *kadm.Client
			if adm, err = (franz{}).admin(b); err == nil {
				err = f.verify(ctx, adm, founded)
				adm.Close()
			}
		}
		if err != nil {
			t.Fatalf("round %d: %v\nthe broker's output:\n%s", round, err, b.out.tail())
		}
		records := 0
		for _, p := range log {
			records += len(p)
		}
		t.Logf("round %d: up with %d shards after %v, %d acknowledged before, %d stored, %d repeated by plain producers, %d topics founded",
			round, b.shards, up.Round(time.Millisecond), sum64(before), records, repeated, len(founded))
	}
	stopProducers()
	producers.Wait()
	log, _, err := l.verify(within(t, time.Minute), b)
	if err == nil {
		err = w.agrees(log)
	}
	if err != nil {
		t.Fatalf("at the end: %v", err)
	}
}

func sum64(n []int64) (total int64) {
	for _, v := range n {
		total += v
	}
	return total
}

// ownBroker starts a broker for one test, whose end verifies that it can be ended and that its data directory is sound.
func ownBroker(t *testing.T, flags ...string) *broker {
	t.Helper()
	dir, err := os.MkdirTemp(tempRoot(), "interop-")
	if err != nil {
		t.Fatal(err)
	}
	b, err := newBroker(dir, flags...)
	if err != nil {
		os.RemoveAll(dir)
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if b.alive() {
			if err := b.stop(); err != nil {
				t.Error(err)
			} else if err := b.check(); err != nil && !t.Failed() {
				t.Error(err)
			}
		}
		if t.Failed() && os.Getenv("INTEROP_KEEP") != "" {
			t.Logf("the data directory is kept: %s", dir)
			return
		}
		os.RemoveAll(dir)
	})
	return b
}

// TestCleanStop: SIGTERM ends a broker in good order, whatever its clients are doing, and the next life has everything; with other numbers of shards too.
func TestCleanStop(t *testing.T) {
	needReal(t, "it is no process")
	b := ownBroker(t)
	ctx := within(t, 2*time.Minute)
	const topic, partitions = "stop", 5
	if err := (franz{}).create(ctx, b, topic, partitions, 1); err != nil {
		t.Fatal(err)
	}
	var want []record
	for life, shards := range []int{2, 2, 3, 1, 2} {
		var rs []record
		for i := range 50 {
			rs = append(rs, record{partition: int32(i % partitions), offset: int64(life*10 + i/partitions), timeMS: dawn + int64(1000*life+i+1), value: fmt.Appendf(nil, "life %d record %d", life, i)})
		}
		offsets, err := franz{}.produce(ctx, b, topic, produceOptions{acks: -1, idempotent: true}, rs)
		if err != nil {
			t.Fatalf("life %d: %v", life, err)
		}
		for i, r := range rs {
			if offsets[i] != r.offset {
				t.Fatalf("life %d: record %d of partition %d was acknowledged at %d", life, r.offset, r.partition, offsets[i])
			}
		}
		want = append(want, rs...)
		got, err := franz{}.consume(ctx, b, topic, zeroes(partitions), counts(want, partitions))
		if err != nil {
			t.Fatalf("life %d: %v", life, err)
		}
		if err := same(want, got, nullness{true, true}); err != nil {
			t.Fatalf("life %d: %v", life, err)
		}
		// Long polls are waiting when the end comes.
		for p := range int32(partitions) {
			req := fetchRequest(topic, 11, int64(life*10+10), 20*time.Second)
			req.Topics[0].Partitions[0].Partition = p
			dialTo(t, leaderOf(t, b, topic, p)).send(req)
		}
		begun := time.Now()
		if err := b.stop(); err != nil {
			t.Fatalf("life %d: %v", life, err)
		}
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("life %d took %v to end", life, took)
		}
		if err := b.check(); err != nil {
			t.Fatalf("life %d: %v", life, err)
		}
		b.shards = shards
		if err := b.start(); err != nil {
			t.Fatalf("the life after %d, of %d shards: %v", life, shards, err)
		}
	}
	got, err := franz{}.consume(ctx, b, topic, zeroes(partitions), counts(want, partitions))
	if err != nil {
		t.Fatal(err)
	}
	if err := same(want, got, nullness{true, true}); err != nil {
		t.Fatal(err)
	}
}

// TestDirectoryLocked: a data directory has one broker at a time.
func TestDirectoryLocked(t *testing.T) {
	needReal(t, "it has no lock")
	b := ownBroker(t)
	second, err := newBroker(b.dir)
	if err == nil {
		second.kill()
		t.Fatal("a second broker serves the same data directory")
	}
	if !strings.Contains(err.Error(), "ended while starting") {
		t.Error(err)
	}
	if err := answers(b.addr()); err != nil {
		t.Errorf("the first broker after the attempt: %v", err)
	}
}
