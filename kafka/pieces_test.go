package kafka_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/kafka"
)

// trace is all that a walk over a request gives, as text: two walks over the
// same bytes must give the same, however they are cut.
func trace(pieces [][]byte) (out string, whole bool) {
	r := new(kafka.Reader)
	r.Reset(pieces)
	var b bytes.Buffer
	var h kafka.Request
	err := kafka.ParseHeader(r, &h)
	fmt.Fprintf(&b, "%+v %v\n", h, err)
	if err != nil {
		return b.String(), false
	}
	var (
		topics    func() int
		topic     func() (kafka.Topic, error)
		partition func() (any, error)
		end       func() error
	)
	switch h.Key {
	case kafka.KeyProduce:
		w := new(kafka.ProduceWalk)
		err = w.Begin(r, h.Version)
		fmt.Fprintln(&b, w.Acks, w.TimeoutMS, w.Transactional)
		topics, topic, end = w.Topics, w.NextTopic, w.End
		partition = func() (any, error) {
			p, err := w.NextPartition()
			if err == nil {
				dst := make([]byte, p.Records.Len)
				r.CopyTo(p.Records, dst)
				fmt.Fprintf(&b, "%x", dst)
			}
			return p, err
		}
	case kafka.KeyFetch:
		w := new(kafka.FetchWalk)
		err = w.Begin(r, h.Version)
		fmt.Fprintln(&b, w.MaxWaitMS, w.MinBytes, w.MaxBytes, w.Committed, w.SessionID, w.SessionEpoch)
		topics, topic = w.Topics, w.NextTopic
		partition = func() (any, error) { p, err := w.NextPartition(); return p, err }
		end = func() error {
			n, err := w.Forgotten()
			fmt.Fprintln(&b, "forgotten", n)
			for err == nil && w.Topics() > 0 {
				var t kafka.Topic
				t, err = w.NextForgotten()
				fmt.Fprintf(&b, "%q %v %d\n", t.Name, t.Span, t.Partitions)
				for i := 0; i < t.Partitions && err == nil; i++ {
					var index int32
					index, err = w.NextForgottenPartition()
					fmt.Fprintln(&b, index)
				}
			}
			if err != nil {
				return err
			}
			return w.End()
		}
	case kafka.KeyListOffsets:
		w := new(kafka.ListOffsetsWalk)
		err = w.Begin(r, h.Version)
		topics, topic, end = w.Topics, w.NextTopic, w.End
		partition = func() (any, error) { p, err := w.NextPartition(); return p, err }
	case kafka.KeyOffsetForLeaderEpoch:
		w := new(kafka.EpochWalk)
		err = w.Begin(r, h.Version)
		topics, topic, end = w.Topics, w.NextTopic, w.End
		partition = func() (any, error) { p, err := w.NextPartition(); return p, err }
	default:
		return b.String(), false
	}
	for err == nil && topics() > 0 {
		var t kafka.Topic
		t, err = topic()
		fmt.Fprintf(&b, "%q %v %d\n", t.Name, t.Span, t.Partitions)
		for i := 0; i < t.Partitions && err == nil; i++ {
			var p any
			p, err = partition()
			fmt.Fprintf(&b, "%+v\n", p)
		}
	}
	if err == nil {
		err = end()
	}
	fmt.Fprintln(&b, err, r.Offset(), r.Left())
	return b.String(), err == nil && r.Left() == 0
}

// samples is a request of every key that is walked, of every version.
func samples() []kmsg.Request {
	var out []kmsg.Request
	for version := int16(3); version <= 13; version++ {
		req := kmsg.NewPtrProduceRequest()
		req.SetVersion(version)
		req.Acks, req.TimeoutMillis = -1, 1500
		if version&1 == 1 {
			req.TransactionID = kmsg.StringPtr("transaction")
		}
		for i := range 2 {
			x := kmsg.NewProduceRequestTopic()
			x.Topic, x.TopicID = fmt.Sprint("topic-", i), [16]byte{1, 2, 15: byte(i)}
			for j := range int32(2) {
				p := kmsg.NewProduceRequestTopicPartition()
				p.Partition = j
				if i+int(j) > 0 {
					p.Records = kafka.AppendBatch(nil, 1000, []byte("key"), []byte("value"))
				}
				x.Partitions = append(x.Partitions, p)
			}
			req.Topics = append(req.Topics, x)
		}
		out = append(out, req)
	}
	for version := int16(4); version <= 18; version++ {
		req := kmsg.NewPtrFetchRequest()
		req.SetVersion(version)
		req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.IsolationLevel, req.SessionID, req.SessionEpoch, req.Rack = 500, 1, 1<<20, 1, 9, 8, "rack"
		req.ClusterID = kmsg.StringPtr("cluster") // a tagged field from 12 on
		req.ReplicaState.ID = 7                   // a tagged field from 15 on
		x := kmsg.NewFetchRequestTopic()
		x.Topic, x.TopicID = "topic", [16]byte{3, 15: 4}
		p := kmsg.NewFetchRequestTopicPartition()
		p.Partition, p.FetchOffset, p.PartitionMaxBytes, p.CurrentLeaderEpoch = 3, 1<<40, 1<<20, 6
		x.Partitions = append(x.Partitions, p, p)
		y := kmsg.NewFetchRequestTopic()
		y.Topic = "none"
		req.Topics = append(req.Topics, x, y)
		forgotten := kmsg.NewFetchRequestForgottenTopic()
		forgotten.Topic, forgotten.Partitions = "forgotten", []int32{1, 2, 3}
		req.ForgottenTopics = append(req.ForgottenTopics, forgotten)
		out = append(out, req)
	}
	for version := int16(1); version <= 11; version++ {
		req := kmsg.NewPtrListOffsetsRequest()
		req.SetVersion(version)
		x := kmsg.NewListOffsetsRequestTopic()
		x.Topic = "topic"
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.Timestamp, p.CurrentLeaderEpoch = 3, -1, 6
		x.Partitions = append(x.Partitions, p, p)
		req.Topics = append(req.Topics, x, x)
		out = append(out, req)
	}
	for version := int16(2); version <= 4; version++ {
		req := kmsg.NewPtrOffsetForLeaderEpochRequest()
		req.SetVersion(version)
		x := kmsg.NewOffsetForLeaderEpochRequestTopic()
		x.Topic = "topic"
		p := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
		p.Partition, p.LeaderEpoch, p.CurrentLeaderEpoch = 3, 5, 6
		x.Partitions = append(x.Partitions, p, p)
		req.Topics = append(req.Topics, x, x)
		out = append(out, req)
	}
	return out
}

// TestPieces: a request is walked to its last byte, and gives the same wherever
// it is cut; one that ends early is refused.
func TestPieces(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 1))
	for _, req := range samples() {
		name := fmt.Sprintf("key %d version %d", req.Key(), req.GetVersion())
		b := frame(req, r)
		want, whole := trace([][]byte{b})
		if !whole {
			t.Fatalf("%s is not walked to its end:\n%s", name, want)
		}
		var single [][]byte
		for i := range b {
			single = append(single, b[i:i+1], nil)
			if got, _ := trace([][]byte{b[:i], nil, b[i:]}); got != want {
				t.Fatalf("%s cut at %d gives\n%s\nnot\n%s", name, i, got, want)
			}
			if got, whole := trace(cut(r, b[:i])); whole {
				t.Fatalf("%s ends at %d and is taken for a whole one:\n%s", name, i, got)
			}
		}
		if got, _ := trace(single); got != want {
			t.Fatalf("%s in single bytes gives\n%s\nnot\n%s", name, got, want)
		}
	}
}

// The list of keys is kmsg's, which is made from Kafka's definitions.
func TestKeys(t *testing.T) {
	for key := int16(-1); key < kafka.KeysMax+1; key++ {
		k, known := kafka.KeyOf(key)
		req := kmsg.RequestForKey(key)
		if known != (req != nil) {
			t.Errorf("key %d: known here is %v, and to kmsg %v", key, known, req != nil)
		}
		if !known || req == nil {
			continue
		}
		name := strings.Replace(kmsg.NameForKey(key), "AlterPartitionAssignments", "AlterPartitionReassignments", 1) // kmsg's name for 45
		if !strings.EqualFold(k.Name, name) || k.Latest != req.MaxVersion() {
			t.Errorf("key %d is %s to version %d; kmsg has %s to %d", key, k.Name, k.Latest, name, req.MaxVersion())
		}
		for version := int16(0); version <= k.Latest; version++ {
			req.SetVersion(version)
			want := 4
			if req.IsFlexible() && key != kafka.KeyApiVersions {
				want = 5
			}
			if got := kafka.ResponseHeaderBytes(key, version); got != want || req.IsFlexible() != (version >= k.Flexible) {
				t.Errorf("%s %d: flexible is %v, a response's header %d bytes, not %d", k.Name, version, version >= k.Flexible, got, want)
			}
		}
	}
}

// An unknown version of ApiVersions is still answered (KIP-511).
func TestApiVersionsOfTheFuture(t *testing.T) {
	r := new(kafka.Reader)
	r.Reset([][]byte{{0, 18, 0, 99, 1, 2, 3, 4, 0xff}})
	var h kafka.Request
	if err := kafka.ParseHeader(r, &h); err != nil || h.Version != 99 || h.Correlation != 0x01020304 {
		t.Fatalf("%+v %v", h, err)
	}
}

// What KIP-511 lets a client call its software.
func TestSoftwareNames(t *testing.T) {
	for word, valid := range map[string]bool{
		"a": true, "7": true, "apache-kafka-java": true, "4.1.0": true, "v1.2.3-rc.1-g0": true, "A--.b": true,
		"": false, "-a": false, "a-": false, ".": false, "a.": false, "a b": false, "a_b": false, "a/b": false, "caf\u00e9": false, "a\n": false, "a\x00": false, "[a": false, "a`a": false, "@a": false, "a{": false,
	} {
		for _, req := range []kmsg.ApiVersionsRequest{{ClientSoftwareName: word, ClientSoftwareVersion: "1"}, {ClientSoftwareName: "name", ClientSoftwareVersion: word}} {
			for version := int16(0); version <= kafka.ApiVersionsMax; version++ {
				req.Version, req.NodeID = version, -1
				b := req.AppendTo(nil)
				for cut := range len(b) + 1 {
					r := new(kafka.Reader)
					r.Reset([][]byte{b[:cut:cut], b[cut:]})
					if got, err := kafka.ParseApiVersions(r, version); err != nil || got.Valid != (valid || version < 3) || got.Cluster != nil || got.Node != -1 {
						t.Errorf("%q, version %d, cut at %d: %+v %v", word, version, cut, got, err)
					}
					r.Reset([][]byte{b[:cut:cut]})
					if _, err := kafka.ParseApiVersions(r, version); (err == nil) != (cut == len(b)) {
						t.Errorf("%q, version %d, ends at %d of %d: %v", word, version, cut, len(b), err)
					}
				}
			}
		}
	}
}

// The cluster and the node that a client means are read, wherever the request is cut.
func TestNodesMeant(t *testing.T) {
	for _, cluster := range []*string{nil, kmsg.StringPtr(""), kmsg.StringPtr("tailbound-0123456789abcdef")} {
		req := kmsg.ApiVersionsRequest{Version: 5, ClientSoftwareName: "name", ClientSoftwareVersion: "1", ClusterID: cluster, NodeID: 77}
		b := req.AppendTo(nil)
		for cut := range len(b) + 1 {
			r := new(kafka.Reader)
			r.Reset([][]byte{b[:cut:cut], b[cut:]})
			got, err := kafka.ParseApiVersions(r, 5)
			if err != nil || got.Node != 77 || (got.Cluster == nil) != (cluster == nil) || cluster != nil && string(got.Cluster) != *cluster {
				t.Errorf("cut at %d of %d: %+v %v", cut, len(b), got, err)
			}
		}
	}
}

// The timestamps that ListOffsets gives a meaning of their own, from which version on.
func TestTimestampsWithAMeaning(t *testing.T) {
	first := map[int64]int16{-1: 1, -2: 1, -3: 7, -4: 8, -5: 9, -6: 11, 0: 0, 1: 0, 1<<63 - 1: 0}
	for _, timestamp := range []int64{-1, -2, -3, -4, -5, -6, -7, -8, -1 << 63, 0, 1, 1<<63 - 1} {
		from, any := first[timestamp]
		for version := int16(1); version <= kafka.ListOffsetsVersions.Max; version++ {
			if got := kafka.TimestampMeansSomething(version, timestamp); got != (any && version >= from) {
				t.Errorf("%d in version %d: %v", timestamp, version, got)
			}
		}
	}
}

// walkOnly walks a request as a data shard does, and keeps nothing.
func walkOnly(r *kafka.Reader, pieces [][]byte) error {
	r.Reset(pieces)
	var h kafka.Request
	err := kafka.ParseHeader(r, &h)
	if err != nil {
		return err
	}
	switch h.Key {
	case kafka.KeyProduce:
		var w kafka.ProduceWalk
		w.Begin(r, h.Version)
		for w.Topics() > 0 && r.Err() == nil {
			t, _ := w.NextTopic()
			for i := 0; i < t.Partitions && r.Err() == nil; i++ {
				w.NextPartition()
			}
		}
		return w.End()
	case kafka.KeyFetch:
		var w kafka.FetchWalk
		w.Begin(r, h.Version)
		for w.Topics() > 0 && r.Err() == nil {
			t, _ := w.NextTopic()
			for i := 0; i < t.Partitions && r.Err() == nil; i++ {
				w.NextPartition()
			}
		}
		w.Forgotten()
		for w.Topics() > 0 && r.Err() == nil {
			t, _ := w.NextForgotten()
			for i := 0; i < t.Partitions && r.Err() == nil; i++ {
				w.NextForgottenPartition()
			}
		}
		return w.End()
	case kafka.KeyListOffsets:
		var w kafka.ListOffsetsWalk
		w.Begin(r, h.Version)
		for w.Topics() > 0 && r.Err() == nil {
			t, _ := w.NextTopic()
			for i := 0; i < t.Partitions && r.Err() == nil; i++ {
				w.NextPartition()
			}
		}
		return w.End()
	}
	var w kafka.EpochWalk
	w.Begin(r, h.Version)
	for w.Topics() > 0 && r.Err() == nil {
		t, _ := w.NextTopic()
		for i := 0; i < t.Partitions && r.Err() == nil; i++ {
			w.NextPartition()
		}
	}
	return w.End()
}

func TestWalksDoNotAllocate(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 1))
	r := new(kafka.Reader)
	for _, req := range samples() {
		b := frame(req, rng)
		for _, pieces := range [][][]byte{{b}, cut(rng, b), {b[:len(b)-3]}} {
			if n := testing.AllocsPerRun(20, func() { walkOnly(r, pieces) }); n != 0 {
				t.Errorf("key %d version %d: %v allocations", req.Key(), req.GetVersion(), n)
			}
		}
	}
	batch := kafka.AppendBatch(nil, 1, []byte("k"), []byte("v"))
	if n := testing.AllocsPerRun(20, func() {
		for it := kafka.Batches(batch); ; {
			b, ok := it.Next()
			if !ok {
				break
			}
			search := kafka.TimeSearch{Time: 1, Largest: true}
			search.Batch(b)
		}
	}); n != 0 {
		t.Errorf("walking stored batches: %v allocations", n)
	}
	batch[17]++
	if n := testing.AllocsPerRun(20, func() { validate(batch, 1<<20) }); n != 0 {
		t.Errorf("refusing a batch: %v allocations", n)
	}
}

// FuzzPieces: bytes of any kind give the same in one piece and in three.
func FuzzPieces(f *testing.F) {
	r := rand.New(rand.NewPCG(10, 1))
	for i, req := range samples() {
		f.Add(frame(req, r), uint16(7*i), uint16(11*i))
	}
	f.Fuzz(func(t *testing.T, b []byte, x, y uint16) {
		i := int(x) % (len(b) + 1)
		j := i + int(y)%(len(b)-i+1)
		one, _ := trace([][]byte{b[:len(b):len(b)]})
		three, _ := trace([][]byte{b[:i:i], b[i:j:j], b[j:len(b):len(b)]})
		if one != three {
			t.Fatalf("cut at %d and %d:\n%s\nin one piece:\n%s", i, j, three, one)
		}
	})
}

// FuzzAnswers: whatever is put, kmsg reads it and would have written the same.
func FuzzAnswers(f *testing.F) {
	for version := uint8(0); version <= 18; version++ {
		f.Add(version, "topic", uint8(2), uint8(3), int32(7), int16(6), int64(1<<40), int64(5))
	}
	f.Fuzz(func(t *testing.T, version uint8, name string, topics, partitions uint8, index int32, code int16, a, b int64) {
		if len(name) > kafka.TopicNameMax {
			return
		}
		e := kafka.ErrorCode(code)
		n, m := int(topics%200), int(partitions%4)
		answer := func(key, least, most int16) (*kafka.Request, int16) {
			k, _ := kafka.KeyOf(key)
			v := least + int16(version)%(most-least+1)
			return &kafka.Request{Key: key, Version: v, Correlation: index, Flexible: v >= k.Flexible}, v
		}
		var id [kafka.TopicIDBytes]byte
		copy(id[:], name)
		called := func(byID bool) []byte {
			if byID {
				return id[:]
			}
			return []byte(name)
		}
		var out []byte
		h, v := answer(kafka.KeyProduce, 0, 13)
		kafka.PutProduceHead(put(&out, kafka.ProduceHeadBytes(h, n)), h, n)
		for range n {
			kafka.PutProduceTopic(put(&out, kafka.ProduceTopicBytes(v, len(name), m)), v, called(v >= kafka.ProduceByID), m)
			for i := range m {
				kafka.PutProducePartition(put(&out, kafka.ProducePartitionBytes(v, i == m-1)), v, i == m-1, index, e, a, -1, b)
			}
		}
		kafka.PutProduceEnd(put(&out, kafka.ProduceEndBytes(v)), v)
		produce := kmsg.NewPtrProduceResponse()
		read(t, *h, produce, out)
		if n > 0 && m > 0 {
			p := produce.Topics[n-1].Partitions[m-1]
			if v < kafka.ProduceByID && produce.Topics[n-1].Topic != name || v >= kafka.ProduceByID && produce.Topics[n-1].TopicID != id || p.Partition != index || p.ErrorCode != code || p.BaseOffset != a || v >= 5 && p.LogStartOffset != b || len(p.ErrorRecords) != 0 {
				t.Fatalf("Produce %d: %+v", v, p)
			}
		}

		out = nil
		h, v = answer(kafka.KeyFetch, 4, 18)
		kafka.PutFetchHead(put(&out, kafka.FetchHeadBytes(h, n)), h, e, index, n)
		for range n {
			kafka.PutFetchTopic(put(&out, kafka.FetchTopicBytes(v, len(name), m)), v, called(v >= kafka.FetchByID), m)
			for i := range m {
				kafka.PutFetchPartition(put(&out, kafka.FetchPartitionBytes(v, len(name))), v, index, e, a, b, len(name))
				out = append(out, name...)
				kafka.PutFetchPartitionEnd(put(&out, kafka.FetchPartitionEndBytes(v, i == m-1)))
			}
		}
		kafka.PutFetchEnd(put(&out, kafka.FetchEndBytes(v)))
		fetch := kmsg.NewPtrFetchResponse()
		read(t, *h, fetch, out)
		if v >= 7 && (fetch.ErrorCode != code || fetch.SessionID != index) {
			t.Fatalf("Fetch %d: %+v", v, fetch)
		}
		if n > 0 && m > 0 {
			p := fetch.Topics[n-1].Partitions[m-1]
			if p.Partition != index || p.ErrorCode != code || p.HighWatermark != a || p.LastStableOffset != a || v >= 5 && p.LogStartOffset != b || string(p.RecordBatches) != name || p.PreferredReadReplica != -1 || len(p.AbortedTransactions) != 0 {
				t.Fatalf("Fetch %d: %+v", v, p)
			}
		}

		out = nil
		h, v = answer(kafka.KeyListOffsets, 1, 11)
		kafka.PutListOffsetsHead(put(&out, kafka.ListOffsetsHeadBytes(h, n)), h, n)
		for range n {
			kafka.PutListOffsetsTopic(put(&out, kafka.ListOffsetsTopicBytes(v, len(name), m)), v, []byte(name), m)
			for i := range m {
				kafka.PutListOffsetsPartition(put(&out, kafka.ListOffsetsPartitionBytes(v, i == m-1)), v, i == m-1, index, e, a, b, index)
			}
		}
		kafka.PutListOffsetsEnd(put(&out, kafka.ListOffsetsEndBytes(v)))
		list := kmsg.NewPtrListOffsetsResponse()
		read(t, *h, list, out)
		if n > 0 && m > 0 {
			p := list.Topics[n-1].Partitions[m-1]
			if p.Partition != index || p.ErrorCode != code || p.Timestamp != a || p.Offset != b || v >= 4 && p.LeaderEpoch != index {
				t.Fatalf("ListOffsets %d: %+v", v, p)
			}
		}

		out = nil
		h, v = answer(kafka.KeyOffsetForLeaderEpoch, 2, 4)
		kafka.PutEpochHead(put(&out, kafka.EpochHeadBytes(h, n)), h, n)
		for range n {
			kafka.PutEpochTopic(put(&out, kafka.EpochTopicBytes(v, len(name), m)), v, []byte(name), m)
			for i := range m {
				kafka.PutEpochPartition(put(&out, kafka.EpochPartitionBytes(v, i == m-1)), v, i == m-1, index, e, index, b)
			}
		}
		kafka.PutEpochEnd(put(&out, kafka.EpochEndBytes(v)))
		epoch := kmsg.NewPtrOffsetForLeaderEpochResponse()
		read(t, *h, epoch, out)
		if n > 0 && m > 0 {
			p := epoch.Topics[n-1].Partitions[m-1]
			if p.Partition != index || p.ErrorCode != code || p.LeaderEpoch != index || p.EndOffset != b {
				t.Fatalf("OffsetForLeaderEpoch %d: %+v", v, p)
			}
		}
	})
}

func BenchmarkWalk(b *testing.B) {
	rng := rand.New(rand.NewPCG(11, 1))
	for _, req := range samples() {
		if req.GetVersion() != versionsRead(req.Key()).Max {
			continue
		}
		whole := frame(req, rng)
		for _, c := range []struct {
			name   string
			pieces [][]byte
		}{{"whole", [][]byte{whole}}, {"pieces", cut(rng, whole)}} {
			b.Run(kmsg.NameForKey(req.Key())+"/"+c.name, func(b *testing.B) {
				r := new(kafka.Reader)
				b.SetBytes(int64(len(whole)))
				b.ReportAllocs()
				for b.Loop() {
					walkOnly(r, c.pieces)
				}
			})
		}
	}
}

func BenchmarkValidate(b *testing.B) {
	for _, c := range []struct{ records, bytes int }{{1, 100}, {1, 100_000}, {1000, 100}} {
		var records []byte
		for i := range c.records {
			records = append(records, record(v(0), v(int64(i)), v(-1), v(int64(c.bytes)), make([]byte, c.bytes), v(0))...)
		}
		batch := batchAround(records, int32(c.records))
		b.Run(fmt.Sprintf("%dx%d", c.records, c.bytes), func(b *testing.B) {
			b.SetBytes(int64(len(batch)))
			b.ReportAllocs()
			for b.Loop() {
				if _, code := validate(batch, 1<<20); code != kafka.None {
					b.Fatal(code)
				}
			}
		})
	}
}
