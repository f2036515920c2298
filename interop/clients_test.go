package interop

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// recordOverhead is more than a batch of one record adds to the value in it.
const recordOverhead = 100

// TestSizes: a record of any size up to the limit of a batch comes back; a larger one is refused with the broker's word for it and leaves no trace.
func TestSizes(t *testing.T) {
	b := sharedBroker(t)
	eachClient(t, func(t *testing.T, name string, c client) {
		ctx := within(t, 2*time.Minute)
		topic := topicName(t)
		if err := c.create(ctx, b, topic, 1, 1); err != nil {
			t.Fatal(err)
		}
		var rs []record
		for i, n := range []int{0, 1, 61, 511, 4095, 4096, 65535, 65536, 262144, 1000000, messageBytesMax - recordOverhead} {
			value := bytes.Repeat([]byte{byte('a' + i)}, n)
			rs = append(rs, record{offset: int64(i), timeMS: time.Now().UnixMilli() + int64(i), value: value})
		}
		wide := produceOptions{acks: -1, idempotent: true, bytesMax: messageBytesMax}
		for i, r := range rs { // one a batch: the client must not add two
			offsets, err := c.produce(ctx, b, topic, wide, []record{r})
			if err != nil {
				t.Fatalf("a record of %d bytes: %v", len(r.value), err)
			}
			if offsets[0] != int64(i) {
				t.Fatalf("a record of %d bytes is at %d, want %d", len(r.value), offsets[0], i)
			}
		}
		wide.bytesMax = 2 << 20
		for _, n := range []int{messageBytesMax + 1, 1500000} {
			_, err := c.produce(ctx, b, topic, wide, []record{{timeMS: dawn + 1, value: make([]byte, n)}})
			if refused(err) != kerr.MessageTooLarge.Code {
				t.Errorf("a record of %d bytes: %v, want MESSAGE_TOO_LARGE", n, err)
			}
		}
		got, err := c.consume(ctx, b, topic, zeroes(1), []int{len(rs)})
		if err != nil {
			t.Fatal(err)
		}
		written, read := c.tells()
		if err := same(rs, got, written.and(read)); err != nil {
			t.Error(err)
		}
		if end := endOf(t, leaderOf(t, b, topic, 0), topic); end != int64(len(rs)) {
			t.Errorf("the end is %d, want %d: something refused was stored", end, len(rs))
		}
	})
}

// TestPositions: reading begins where the client says: at an offset in the middle of a batch, at a time, at the end.
func TestPositions(t *testing.T) {
	b := sharedBroker(t)
	eachClient(t, func(t *testing.T, name string, c client) {
		ctx := within(t, time.Minute)
		topic := topicName(t)
		if err := c.create(ctx, b, topic, 1, 1); err != nil {
			t.Fatal(err)
		}
		// Three batches of ten, a second between records, with a gap between batches.
		start := time.Now().Add(-time.Hour).UnixMilli()
		var all []record
		for batch := range 3 {
			var rs []record
			for i := range 10 {
				n := int64(batch*10 + i)
				rs = append(rs, record{offset: n, timeMS: start + n*1000 + int64(batch)*60000, value: fmt.Appendf(nil, "value %d", n)})
			}
			if _, err := c.produce(ctx, b, topic, produceOptions{acks: -1}, rs); err != nil {
				t.Fatal(err)
			}
			all = append(all, rs...)
		}
		for _, from := range []int64{0, 1, 9, 10, 17, 29} {
			got, err := c.consume(ctx, b, topic, []int64{from}, []int{30 - int(from)})
			if err != nil {
				t.Fatalf("from %d: %v", from, err)
			}
			if err := same(all[from:], got, nullness{}); err != nil {
				t.Errorf("from %d: %v", from, err)
			}
		}
		for _, n := range []int64{0, 4, 9, 10, 15, 20, 29} {
			for _, before := range []int64{0, 1, 999} {
				got, err := c.offsetAt(ctx, b, topic, 0, all[n].timeMS-before)
				if err != nil {
					t.Fatalf("offset at the time of %d - %d ms: %v", n, before, err)
				}
				if got != n {
					t.Errorf("offset at the time of %d - %d ms is %d", n, before, got)
				}
			}
		}
		if got, err := c.offsetAt(ctx, b, topic, 0, all[29].timeMS+1); err != nil || got != -1 {
			t.Errorf("offset at a time after all: %d, %v, want none", got, err)
		}
	})
}

// TestEndAndLongPoll: a consumer that starts at the end gets what comes later, nothing before, and gets it when it comes.
func TestEndAndLongPoll(t *testing.T) {
	b := sharedBroker(t)
	eachClient(t, func(t *testing.T, name string, c client) {
		ctx := within(t, time.Minute)
		topic := topicName(t)
		if err := c.create(ctx, b, topic, 1, 1); err != nil {
			t.Fatal(err)
		}
		if _, err := c.produce(ctx, b, topic, produceOptions{acks: -1}, []record{{timeMS: dawn + 1, value: []byte("before")}}); err != nil {
			t.Fatal(err)
		}
		type result struct {
			rs  []record
			err error
		}
		done := make(chan result, 1)
		go func() {
			rs, err := c.consume(ctx, b, topic, []int64{atEnd}, []int{2})
			done <- result{rs, err}
		}()
		// When the consumer has found the end cannot be seen from here, so records keep coming until it has two.
		for i := 0; ; i++ {
			select {
			case r := <-done:
				if r.err != nil {
					t.Fatal(r.err)
				}
				for _, g := range r.rs {
					if string(g.value) != "after" {
						t.Errorf("got %q at %d", g.value, g.offset)
					}
				}
				if r.rs[1].offset != r.rs[0].offset+1 {
					t.Errorf("got %d after %d", r.rs[1].offset, r.rs[0].offset)
				}
				return
			case <-time.After(200 * time.Millisecond):
				if _, err := c.produce(ctx, b, topic, produceOptions{acks: -1}, []record{{timeMS: dawn + 2, value: []byte("after")}}); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// TestAcks: acks 0, 1 and all store; with 0 nothing is answered, so the record is waited for.
func TestAcks(t *testing.T) {
	b := sharedBroker(t)
	eachClient(t, func(t *testing.T, name string, c client) {
		ctx := within(t, time.Minute)
		topic := topicName(t)
		if err := c.create(ctx, b, topic, 1, 1); err != nil {
			t.Fatal(err)
		}
		var want []record
		for i, acks := range []int{0, 1, -1} {
			r := record{offset: int64(i), timeMS: dawn + int64(1000+i), value: fmt.Appendf(nil, "acks %d", acks)}
			offsets, err := c.produce(ctx, b, topic, produceOptions{acks: acks}, []record{r})
			if err != nil {
				t.Fatalf("acks %d: %v", acks, err)
			}
			if acks != 0 && offsets[0] != int64(i) {
				t.Errorf("acks %d: acknowledged at %d, want %d", acks, offsets[0], i)
			}
			want = append(want, r)
			got, err := c.consume(ctx, b, topic, zeroes(1), []int{len(want)})
			if err != nil {
				t.Fatalf("acks %d: %v", acks, err)
			}
			if err := same(want, got, nullness{}); err != nil {
				t.Errorf("acks %d: %v", acks, err)
			}
		}
	})
}

// TestIdempotentAcrossBatches: many small batches of an idempotent producer, several in flight, arrive once and in order.
func TestIdempotentAcrossBatches(t *testing.T) {
	b := sharedBroker(t)
	eachClient(t, func(t *testing.T, name string, c client) {
		ctx := within(t, time.Minute)
		topic := topicName(t)
		if err := c.create(ctx, b, topic, 2, 1); err != nil {
			t.Fatal(err)
		}
		var rs []record
		for i := range 400 {
			rs = append(rs, record{partition: int32(i % 2), offset: int64(i / 2), timeMS: dawn + int64(i+1), value: bytes.Repeat(fmt.Appendf(nil, "%d ", i), 20)})
		}
		if _, err := c.produce(ctx, b, topic, produceOptions{acks: -1, idempotent: true, bytesMax: 2000}, rs); err != nil {
			t.Fatal(err)
		}
		got, err := c.consume(ctx, b, topic, zeroes(2), []int{200, 200})
		if err != nil {
			t.Fatal(err)
		}
		if err := same(rs, got, nullness{}); err != nil {
			t.Error(err)
		}
	})
}

// TestAutoCreation: a topic that does not exist is created when a client asks for its metadata in order to produce.
func TestAutoCreation(t *testing.T) {
	b := sharedBroker(t)
	eachClient(t, func(t *testing.T, name string, c client) {
		ctx := within(t, time.Minute)
		topic := topicName(t)
		rs := []record{{timeMS: dawn + 1, value: []byte("first")}}
		if _, err := c.produce(ctx, b, topic, produceOptions{acks: -1}, rs); err != nil {
			t.Fatal(err)
		}
		got, err := c.consume(ctx, b, topic, zeroes(1), []int{1})
		if err != nil {
			t.Fatal(err)
		}
		if err := same(rs, got, nullness{}); err != nil {
			t.Error(err)
		}
	})
}

// TestTopicErrors: each client hears Kafka's own words.
func TestTopicErrors(t *testing.T) {
	b := sharedBroker(t)
	eachClient(t, func(t *testing.T, name string, c client) {
		ctx := within(t, time.Minute)
		topic := topicName(t)
		for _, step := range []struct {
			what string
			do   func() error
			want *kerr.Error
		}{
			{"delete of an unknown topic", func() error { return c.remove(ctx, b, topic) }, kerr.UnknownTopicOrPartition},
			{"create", func() error { return c.create(ctx, b, topic, 3, 1) }, nil},
			{"create again", func() error { return c.create(ctx, b, topic, 3, 1) }, kerr.TopicAlreadyExists},
			{"delete", func() error { return c.remove(ctx, b, topic) }, nil},
			{"delete again", func() error { return c.remove(ctx, b, topic) }, kerr.UnknownTopicOrPartition},
			{"create anew", func() error { return c.create(ctx, b, topic, 1, 1) }, nil},
			{"create with an invalid name", func() error { return c.create(ctx, b, "in valid", 1, 1) }, kerr.InvalidTopicException},
			{"create with the name ..", func() error { return c.create(ctx, b, "..", 1, 1) }, kerr.InvalidTopicException},
			{"create with a name too long", func() error { return c.create(ctx, b, strings.Repeat("x", 250), 1, 1) }, kerr.InvalidTopicException},
			{"create with no partition", func() error { return c.create(ctx, b, topic+".p0", 0, 1) }, kerr.InvalidPartitions},
			{"create with replication factor 33", func() error { return c.create(ctx, b, topic+".r33", 1, 33) }, kerr.InvalidReplicationFactor},
		} {
			if b.fake != nil && step.want == kerr.InvalidTopicException {
				continue // kfake takes any name
			}
			err := step.do()
			var client error // some clients refuse by themselves: that is no finding about the broker
			switch {
			case step.want == nil && err != nil:
				t.Errorf("%s: %v", step.what, err)
			case step.want != nil && err == nil:
				t.Errorf("%s was accepted", step.what)
			case step.want != nil && refused(err) == 0:
				client = err
			case step.want != nil && refused(err) != step.want.Code:
				t.Errorf("%s: %v, want %v", step.what, err, step.want)
			}
			if client != nil {
				t.Logf("%s: the client itself says: %v", step.what, client)
			}
		}
	})
}

// TestRecreatedTopic: a topic that is deleted and created again is empty, and takes records from offset 0 on.
func TestRecreatedTopic(t *testing.T) {
	b := sharedBroker(t)
	c := clients["franz-go"]
	ctx := within(t, time.Minute)
	topic := topicName(t)
	for life := range 5 {
		if err := c.create(ctx, b, topic, 3, 1); err != nil {
			t.Fatalf("life %d: %v", life, err)
		}
		rs := []record{{partition: 0, timeMS: dawn + 1, value: fmt.Appendf(nil, "life %d", life)}, {partition: 2, timeMS: dawn + 1, value: []byte("x")}}
		if _, err := c.produce(ctx, b, topic, produceOptions{acks: -1, idempotent: true}, rs); err != nil {
			t.Fatalf("life %d: %v", life, err)
		}
		got, err := c.consume(ctx, b, topic, zeroes(3), []int{1, 0, 1})
		if err != nil {
			t.Fatalf("life %d: %v", life, err)
		}
		if err := same(rs, got, nullness{}); err != nil {
			t.Errorf("life %d: %v", life, err)
		}
		if err := c.remove(ctx, b, topic); err != nil {
			t.Fatalf("life %d: %v", life, err)
		}
	}
}

// TestMaxTimestamp: ListOffsets with timestamp -3 names the newest record, not the last.
func TestMaxTimestamp(t *testing.T) {
	b := sharedBroker(t)
	f := franz{}
	ctx := within(t, time.Minute)
	topic := topicName(t)
	if err := f.create(ctx, b, topic, 1, 1); err != nil {
		t.Fatal(err)
	}
	now := time.Now().UnixMilli()
	for _, at := range [][]int64{{5, 9, 7}, {3, 8, 1}} {
		var rs []record
		for _, v := range at {
			rs = append(rs, record{timeMS: now + v, value: []byte("v")})
		}
		if _, err := f.produce(ctx, b, topic, produceOptions{acks: -1}, rs); err != nil {
			t.Fatal(err)
		}
	}
	adm, err := f.admin(b)
	if err != nil {
		t.Fatal(err)
	}
	defer adm.Close()
	l, err := adm.ListMaxTimestampOffsets(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	o, _ := l.Lookup(topic, 0)
	if o.Err != nil || o.Offset != 1 || o.Timestamp != now+9 {
		t.Errorf("offset %d, time %+d, %v; want the record at 1, time +9", o.Offset, o.Timestamp-now, o.Err)
	}
}

// TestTimeInCompressedBatch: where the records are compressed, what is answered may be the batch's first, never one past the record asked for.
func TestTimeInCompressedBatch(t *testing.T) {
	b := sharedBroker(t)
	f := franz{}
	ctx := within(t, time.Minute)
	topic := topicName(t)
	if err := f.create(ctx, b, topic, 1, 1); err != nil {
		t.Fatal(err)
	}
	now := time.Now().UnixMilli()
	for batch := range int64(2) {
		var rs []record
		for i := range int64(10) {
			rs = append(rs, record{timeMS: now + batch*1000 + i*10, value: []byte("v")})
		}
		if _, err := f.produce(ctx, b, topic, produceOptions{acks: -1, codec: "zstd"}, rs); err != nil {
			t.Fatal(err)
		}
	}
	got, err := f.offsetAt(ctx, b, topic, 0, now+1000+50)
	if err != nil {
		t.Fatal(err)
	}
	if got < 10 || got > 15 {
		t.Errorf("the record at 15 was looked for and %d found", got)
	}
	if got != 15 {
		t.Logf("found %d, the exact record is 15", got)
	}
}

// TestLongPoll: a fetch at the end waits, is answered when a record comes, and otherwise when its time is over.
func TestLongPoll(t *testing.T) {
	b := sharedBroker(t)
	topic := topicName(t)
	leader := createTopic(t, b, topic, 1)
	w := dialTo(t, leader)

	begun := time.Now()
	empty := mustAsk[*kmsg.FetchResponse](t, w, fetchRequest(topic, 11, 0, 400*time.Millisecond))
	if took := time.Since(begun); took < 350*time.Millisecond || took > 3*time.Second {
		t.Errorf("an empty fetch with a wait of 400 ms took %v", took)
	}
	if p := empty.Topics[0].Partitions[0]; p.ErrorCode != 0 || p.HighWatermark != 0 || len(p.RecordBatches) != 0 {
		t.Errorf("an empty fetch: %+v", p)
	}

	const after = 300 * time.Millisecond
	begun = time.Now()
	time.AfterFunc(after, func() {
		if p, err := dial(leader); err == nil {
			p.ask(produceRequest(topic, 7, -1, bytesOf(batchOf("now"))))
			p.Close()
		}
	})
	full := mustAsk[*kmsg.FetchResponse](t, w, fetchRequest(topic, 11, 0, 20*time.Second))
	if took := time.Since(begun); took < after || took > after+5*time.Second {
		t.Errorf("a fetch waiting for a record that comes after %v took %v", after, took)
	}
	if p := full.Topics[0].Partitions[0]; p.ErrorCode != 0 || len(p.RecordBatches) == 0 || p.HighWatermark != 1 {
		t.Errorf("the fetch that waited: error %d, %d bytes, high watermark %d", p.ErrorCode, len(p.RecordBatches), p.HighWatermark)
	}
}

// TestLeaderEpoch: OffsetForLeaderEpoch ends the current epoch at the end of the log, and knows of no later one.
func TestLeaderEpoch(t *testing.T) {
	b := sharedBroker(t)
	topic := topicName(t)
	w := dialTo(t, createTopic(t, b, topic, 1))
	mustProduce(t, w, topic, bytesOf(batchOf("a", "b", "c")))

	fetched := mustAsk[*kmsg.FetchResponse](t, w, fetchRequest(topic, 11, 0, 0)).Topics[0].Partitions[0]
	var stored kmsg.RecordBatch
	if err := stored.ReadFrom(fetched.RecordBatches); err != nil {
		t.Fatal(err)
	}
	epoch := stored.PartitionLeaderEpoch
	if epoch < 0 {
		t.Fatalf("the batch carries leader epoch %d", epoch)
	}
	ask := func(version int16, current, of int32) kmsg.OffsetForLeaderEpochResponseTopicPartition {
		req := kmsg.NewPtrOffsetForLeaderEpochRequest()
		req.Version, req.ReplicaID = version, -1
		p := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
		p.CurrentLeaderEpoch, p.LeaderEpoch = current, of
		rt := kmsg.NewOffsetForLeaderEpochRequestTopic()
		rt.Topic, rt.Partitions = topic, append(rt.Partitions, p)
		req.Topics = append(req.Topics, rt)
		return mustAsk[*kmsg.OffsetForLeaderEpochResponse](t, w, req).Topics[0].Partitions[0]
	}
	first := int16(2) // librdkafka speaks exactly this one
	if b.fake != nil {
		first = 3
	}
	for version := first; version <= 4; version++ {
		if p := ask(version, -1, epoch); p.ErrorCode != 0 || p.EndOffset != 3 || p.LeaderEpoch != epoch {
			t.Errorf("v%d: epoch %d: error %d, end %d, epoch %d", version, epoch, p.ErrorCode, p.EndOffset, p.LeaderEpoch)
		}
		if p := ask(version, -1, epoch+1000); p.ErrorCode != 0 || p.EndOffset != -1 {
			t.Errorf("v%d: an epoch that is yet to come: error %d, end %d, epoch %d", version, p.ErrorCode, p.EndOffset, p.LeaderEpoch)
		}
		if p := ask(version, epoch+1000, epoch); p.ErrorCode != kerr.UnknownLeaderEpoch.Code {
			t.Errorf("v%d: with a current epoch of the future: error %d", version, p.ErrorCode)
		}
	}
}

// TestOldVersions: a client of another time speaks the versions of that time.
func TestOldVersions(t *testing.T) {
	b := sharedBroker(t)
	for name, v := range map[string]*kversion.Versions{
		"0.11": kversion.V0_11_0(), "1.1": kversion.V1_1_0(), "2.8": kversion.V2_8_0(), "3.9": kversion.V3_9_0(), "4.1": kversion.V4_1_0(),
	} {
		t.Run(name, func(t *testing.T) {
			f := franz{extra: []kgo.Opt{kgo.MaxVersions(v)}}
			roundTrip(t, b, "franz-go", "franz-go "+name, clients["franz-go"], f, "lz4", 3)
			t.Run("writer", func(t *testing.T) {
				codec := "gzip"
				roundTrip(t, b, "franz-go "+name, "sarama", f, clients["sarama"], codec, 3)
			})
		})
	}
}

// TestEveryVersion: each version of each key that ApiVersions promises and that this test can build is understood: a well-formed answer, no closed
// connection, no UNSUPPORTED_VERSION.
func TestEveryVersion(t *testing.T) {
	b := sharedBroker(t)
	topic := topicName(t)
	leader := createTopic(t, b, topic, 1)
	mustProduce(t, dialTo(t, leader), topic, bytesOf(batchOf("one", "two")))
	id := idOf(t, b, topic)

	promised := mustAsk[*kmsg.ApiVersionsResponse](t, dialTo(t, b.addr()), kmsg.NewPtrApiVersionsRequest())
	for _, k := range promised.ApiKeys {
		for version := k.MinVersion; version <= k.MaxVersion; version++ {
			var req kmsg.Request
			addr := b.addr()
			switch k.ApiKey {
			case 0:
				if version < 3 {
					continue
				}
				p := produceRequest(topic, version, -1, bytesOf(batchOf("v")))
				p.Topics[0].TopicID = id // which counts from 13 on
				req, addr = p, leader
			case 1:
				f := fetchRequest(topic, version, 0, 0)
				f.Topics[0].TopicID = id
				req, addr = f, leader
			case 2:
				req, addr = listRequest(topic, version, -1), leader
			case 3:
				m := kmsg.NewPtrMetadataRequest()
				m.Version = version
				rt := kmsg.NewMetadataRequestTopic()
				rt.Topic = kmsg.StringPtr(topic)
				m.Topics = append(m.Topics, rt)
				req = m
			case 18, 10, 22:
				req = kmsg.RequestForKey(k.ApiKey)
				req.SetVersion(version)
				switch r := req.(type) {
				case *kmsg.ApiVersionsRequest:
					r.ClientSoftwareName, r.ClientSoftwareVersion = "interop", "1"
				case *kmsg.FindCoordinatorRequest:
					r.CoordinatorKey, r.CoordinatorKeys = "group", []string{"group"}
				case *kmsg.InitProducerIDRequest:
					r.TransactionTimeoutMillis, r.ProducerID, r.ProducerEpoch = 60000, -1, -1
				}
			case 23:
				r := kmsg.NewPtrOffsetForLeaderEpochRequest()
				r.Version, r.ReplicaID = version, -1
				p := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
				p.CurrentLeaderEpoch = -1
				rt := kmsg.NewOffsetForLeaderEpochRequestTopic()
				rt.Topic, rt.Partitions = topic, append(rt.Partitions, p)
				r.Topics = append(r.Topics, rt)
				req, addr = r, leader
			default:
				continue
			}
			resp, err := dialTo(t, addr).ask(req)
			if err != nil {
				t.Errorf("%s v%d: %v", kmsg.NameForKey(k.ApiKey), version, err)
				continue
			}
			code := errorIn(resp)
			if code != 0 {
				t.Errorf("%s v%d: error %d (%v)", kmsg.NameForKey(k.ApiKey), version, code, kerr.ErrorForCode(code))
			}
		}
	}
}

// errorIn is the first error code in a response of the hot keys.
func errorIn(resp kmsg.Response) int16 {
	switch r := resp.(type) {
	case *kmsg.ProduceResponse:
		return r.Topics[0].Partitions[0].ErrorCode
	case *kmsg.FetchResponse:
		if r.ErrorCode != 0 || len(r.Topics) == 0 {
			return r.ErrorCode
		}
		return r.Topics[0].Partitions[0].ErrorCode
	case *kmsg.ListOffsetsResponse:
		return r.Topics[0].Partitions[0].ErrorCode
	case *kmsg.MetadataResponse:
		return r.Topics[0].ErrorCode
	case *kmsg.ApiVersionsResponse:
		return r.ErrorCode
	case *kmsg.InitProducerIDResponse:
		return r.ErrorCode
	case *kmsg.FindCoordinatorResponse:
		if len(r.Coordinators) > 0 {
			return r.Coordinators[0].ErrorCode
		}
		return r.ErrorCode
	case *kmsg.OffsetForLeaderEpochResponse:
		return r.Topics[0].Partitions[0].ErrorCode
	}
	return 0
}

// mustProduce appends a batch to partition 0 of topic at its leader and returns its base offset.
func mustProduce(t *testing.T, w *wire, topic string, records []byte) int64 {
	t.Helper()
	p := mustAsk[*kmsg.ProduceResponse](t, w, produceRequest(topic, 7, -1, records)).Topics[0].Partitions[0]
	if p.ErrorCode != 0 {
		t.Fatalf("produce: error %d (%v)", p.ErrorCode, kerr.ErrorForCode(p.ErrorCode))
	}
	return p.BaseOffset
}

// TestNodes: every node is in every Metadata response, on the ports that were asked for, and each partition is served by its leader alone.
func TestNodes(t *testing.T) {
	needReal(t, "its nodes are laid out otherwise")
	b := sharedBroker(t)
	topic := topicName(t)
	createTopic(t, b, topic, 8)
	m := metadata(t, dialTo(t, b.addr()), topic)
	ports := make(map[int32]int32)
	for _, n := range m.Brokers {
		ports[n.NodeID] = n.Port
	}
	if len(m.Brokers) != 1+dataShards {
		t.Fatalf("%d nodes: %+v", len(m.Brokers), m.Brokers)
	}
	if ports[m.ControllerID] != int32(b.port) {
		t.Errorf("the controller is node %d on port %d, want port %d", m.ControllerID, ports[m.ControllerID], b.port)
	}
	led := make(map[int32]int)
	for _, p := range m.Topics[0].Partitions {
		led[p.Leader]++
		if p.Leader == m.ControllerID {
			t.Errorf("partition %d is led by the control shard", p.Partition)
		}
		if len(p.Replicas) != 1 || p.Replicas[0] != p.Leader || len(p.ISR) != 1 || p.ISR[0] != p.Leader {
			t.Errorf("partition %d: leader %d, replicas %v, in sync %v", p.Partition, p.Leader, p.Replicas, p.ISR)
		}
	}
	if len(led) != dataShards {
		t.Errorf("8 partitions are led so: %v", led)
	}
	leader := leaderOf(t, b, topic, 0)
	for _, n := range m.Brokers {
		addr := fmt.Sprintf("%s:%d", n.Host, n.Port)
		if err := answers(addr); err != nil {
			t.Errorf("node %d: %v", n.NodeID, err)
		}
		if addr == leader || n.NodeID == m.ControllerID {
			continue
		}
		for _, req := range []kmsg.Request{
			produceRequest(topic, 7, -1, bytesOf(batchOf("lost"))), fetchRequest(topic, 11, 0, 10*time.Second), listRequest(topic, 4, -1),
		} {
			resp, err := dialTo(t, addr).ask(req)
			if err != nil {
				t.Errorf("%s at the wrong node: %v", kmsg.NameForKey(req.Key()), err)
			} else if code := errorIn(resp); code != kerr.NotLeaderForPartition.Code {
				t.Errorf("%s at the wrong node: error %d, want NOT_LEADER_OR_FOLLOWER", kmsg.NameForKey(req.Key()), code)
			}
		}
	}
	if end := endOf(t, leader, topic); end != 0 {
		t.Errorf("the end is %d: a record sent to the wrong node was stored", end)
	}
}

// TestStoredVerbatim: but for base offset and leader epoch, a batch comes back bit by bit as it was sent, compressed or not.
func TestStoredVerbatim(t *testing.T) {
	b := sharedBroker(t)
	topic := topicName(t)
	w := dialTo(t, createTopic(t, b, topic, 1))
	sent := bytesOf(batchOf("a", "b", strings.Repeat("c", 70000)))
	for i := range 3 {
		if base := mustProduce(t, w, topic, sent); base != int64(3*i) {
			t.Fatalf("base offset %d", base)
		}
	}
	for i := range 3 {
		p := mustAsk[*kmsg.FetchResponse](t, w, fetchRequest(topic, 11, int64(3*i), 0)).Topics[0].Partitions[0]
		got := p.RecordBatches
		if len(got) < len(sent) || !bytes.Equal(got[16:len(sent)], sent[16:]) || !bytes.Equal(got[8:12], sent[8:12]) {
			t.Fatalf("batch %d differs", i)
		}
		var head kmsg.RecordBatch
		if err := head.ReadFrom(got[:len(sent)]); err != nil {
			t.Fatal(err)
		}
		if head.FirstOffset != int64(3*i) {
			t.Errorf("batch %d begins at %d", i, head.FirstOffset)
		}
	}
	// Offsets outside the log.
	for _, offset := range []int64{-1, 10, 1 << 40} {
		p := mustAsk[*kmsg.FetchResponse](t, w, fetchRequest(topic, 11, offset, 0)).Topics[0].Partitions[0]
		if p.ErrorCode != kerr.OffsetOutOfRange.Code {
			t.Errorf("fetch from %d: error %d", offset, p.ErrorCode)
		}
	}
}

// TestIdempotentDuplicate: the same batch of an idempotent producer, sent again, is answered with the offset it has and stored once; a gap is refused.
func TestIdempotentDuplicate(t *testing.T) {
	b := sharedBroker(t)
	topic := topicName(t)
	leader := createTopic(t, b, topic, 1)
	w := dialTo(t, leader)
	init := mustAsk[*kmsg.InitProducerIDResponse](t, dialTo(t, b.addr()), kmsg.NewPtrInitProducerIDRequest())
	if init.ErrorCode != 0 {
		t.Fatalf("InitProducerId: %d", init.ErrorCode)
	}
	send := func(sequence int32, n int) (int64, int16) {
		batch := batchOf(strings.Split(strings.Repeat("v", n), "")...)
		batch.ProducerID, batch.ProducerEpoch, batch.FirstSequence = init.ProducerID, init.ProducerEpoch, sequence
		batch.FirstTimestamp, batch.MaxTimestamp = 1000, 1000
		p := mustAsk[*kmsg.ProduceResponse](t, w, produceRequest(topic, 7, -1, bytesOf(batch))).Topics[0].Partitions[0]
		return p.BaseOffset, p.ErrorCode
	}
	sequence := int32(0)
	for i := range 7 {
		if base, code := send(sequence, 3); code != 0 || base != int64(sequence) {
			t.Fatalf("batch %d: base %d, error %d", i, base, code)
		}
		sequence += 3
	}
	for back := int32(1); back <= 5; back++ {
		if base, code := send(sequence-3*back, 3); code != 0 && code != kerr.DuplicateSequenceNumber.Code || code == 0 && base != int64(sequence-3*back) {
			t.Errorf("the batch %d back, again: base %d, error %d", back, base, code)
		}
	}
	for _, c := range []struct {
		sequence int32
		n        int
	}{{sequence + 1, 1}, {sequence + 100, 3}, {sequence - 3, 2}} {
		if _, code := send(c.sequence, c.n); code != kerr.OutOfOrderSequenceNumber.Code && code != kerr.DuplicateSequenceNumber.Code {
			t.Errorf("sequence %d+%d after %d: error %d", c.sequence, c.n, sequence, code)
		}
	}
	if end := endOf(t, leader, topic); end != int64(sequence) {
		t.Errorf("the end is %d, want %d", end, sequence)
	}
}

// idOf is the id of a topic.
func idOf(t *testing.T, b *broker, topic string) [16]byte {
	t.Helper()
	req := kmsg.NewPtrMetadataRequest()
	req.Version = 12
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = &topic
	req.Topics = append(req.Topics, rt)
	x := mustAsk[*kmsg.MetadataResponse](t, dialTo(t, b.addr()), req).Topics[0]
	if x.ErrorCode != 0 || x.TopicID == [16]byte{} {
		t.Fatalf("the id of %s: error %d, %x", topic, x.ErrorCode, x.TopicID)
	}
	return x.TopicID
}

// TestTopicIDs: a topic that is named by its id is that topic, and never another one of its name.
func TestTopicIDs(t *testing.T) {
	b := sharedBroker(t)
	topic := topicName(t)
	leader := createTopic(t, b, topic, 1)
	id := idOf(t, b, topic)
	produce := func(addr string, version int16, id [16]byte) *kmsg.ProduceResponse {
		t.Helper()
		req := produceRequest("", version, -1, bytesOf(batchOf("by id")))
		req.Topics[0].TopicID = id
		r := mustAsk[*kmsg.ProduceResponse](t, dialTo(t, addr), req)
		if r.Topics[0].TopicID != id {
			t.Errorf("a produce to %x is answered for %x", id, r.Topics[0].TopicID)
		}
		return r
	}
	fetch := func(addr string, version int16, id [16]byte) *kmsg.FetchResponseTopicPartition {
		t.Helper()
		req := fetchRequest("", version, 0, 0)
		req.Topics[0].TopicID = id
		r := mustAsk[*kmsg.FetchResponse](t, dialTo(t, addr), req)
		if r.Topics[0].TopicID != id {
			t.Errorf("a fetch of %x is answered for %x", id, r.Topics[0].TopicID)
		}
		return &r.Topics[0].Partitions[0]
	}
	if r := produce(leader, 13, id); errorIn(r) != 0 || r.Topics[0].Partitions[0].BaseOffset != 0 {
		t.Fatalf("produced by id: %+v", r)
	}
	for version := int16(13); version <= 18; version++ {
		if p := fetch(leader, version, id); p.ErrorCode != 0 || !bytes.Contains(p.RecordBatches, []byte("by id")) {
			t.Errorf("fetched by id, v%d: error %d, %d bytes", version, p.ErrorCode, len(p.RecordBatches))
		}
	}
	unknown := id
	unknown[3]++
	wrong := b.addr()
	if b.fake != nil {
		wrong = leader
	}
	for _, addr := range []string{leader, wrong} {
		if code := errorIn(produce(addr, 13, unknown)); code != kerr.UnknownTopicID.Code {
			t.Errorf("produced to an unknown id: error %d", code)
		}
		if p := fetch(addr, 16, unknown); p.ErrorCode != kerr.UnknownTopicID.Code {
			t.Errorf("fetched from an unknown id: error %d", p.ErrorCode)
		}
	}
	if b.fake == nil {
		if code, p := errorIn(produce(wrong, 13, id)), fetch(wrong, 17, id); code != kerr.NotLeaderForPartition.Code || p.ErrorCode != kerr.NotLeaderForPartition.Code {
			t.Errorf("by id, to the wrong node: produce error %d, fetch error %d", code, p.ErrorCode)
		}
	}
	ctx := within(t, time.Minute)
	if err := clients["franz-go"].remove(ctx, b, topic); err != nil {
		t.Fatal(err)
	}
	createTopic(t, b, topic, 1)
	createTopic(t, b, topic+".2", 1) // one of them is where the old one was
	if code := errorIn(produce(leader, 13, id)); code != kerr.UnknownTopicID.Code {
		t.Errorf("produced to the id of the topic before: error %d", code)
	}
	if p := fetch(leader, 18, id); p.ErrorCode != kerr.UnknownTopicID.Code {
		t.Errorf("fetched from the id of the topic before: error %d", p.ErrorCode)
	}
	if now := idOf(t, b, topic); now == id {
		t.Error("the new topic has the id of the one before")
	}
}
