package kafka_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/kafka"
)

// cut cuts b into pieces anywhere.
func cut(r *rand.Rand, b []byte) [][]byte {
	var out [][]byte
	for len(b) > 0 {
		n := 1 + r.IntN(len(b))
		if r.IntN(3) == 0 {
			n = min(len(b), 1+r.IntN(7))
		}
		out = append(out, append([]byte(nil), b[:n]...))
		b = b[n:]
	}
	return out
}

func frame(req kmsg.Request, r *rand.Rand) []byte {
	f := kmsg.NewRequestFormatter(kmsg.FormatterClientID("client"))
	return f.AppendRequest(nil, req, int32(r.Uint32()))[4:]
}

func begin(t *testing.T, r *rand.Rand, req kmsg.Request) (*kafka.Reader, kafka.Request) {
	t.Helper()
	reader := new(kafka.Reader)
	reader.Reset(cut(r, frame(req, r)))
	var h kafka.Request
	err := kafka.ParseHeader(reader, &h)
	if err != nil || h.Key != req.Key() || h.Version != req.GetVersion() || string(h.ClientID) != "client" || h.Flexible != req.IsFlexible() {
		t.Fatalf("header of key %d version %d: %+v, %v", req.Key(), req.GetVersion(), h, err)
	}
	return reader, h
}

func name(r *rand.Rand) string {
	b := make([]byte, 1+r.IntN(200))
	for i := range b {
		b[i] = byte('a' + r.IntN(26))
	}
	return string(b)
}

// named names a topic: by id, its name stands for the id's bytes.
func named(r *rand.Rand, byID bool) (string, [16]byte) {
	if !byID {
		return name(r), [16]byte{}
	}
	var id [16]byte
	for i := range id {
		id[i] = byte(r.Uint32())
	}
	return string(id[:]), id
}

func read(t *testing.T, h kafka.Request, resp kmsg.Response, b []byte) {
	t.Helper()
	resp.SetVersion(h.Version)
	if got := int32(binary.BigEndian.Uint32(b)); got != h.Correlation {
		t.Fatalf("correlation id %d, not %d", got, h.Correlation)
	}
	b = b[4:]
	if h.Flexible {
		if b[0] != 0 {
			t.Fatal("tags in the response header")
		}
		b = b[1:]
	}
	if err := resp.ReadFrom(b); err != nil {
		t.Fatalf("key %d version %d: kmsg cannot read the answer: %v", h.Key, h.Version, err)
	}
	if again := resp.AppendTo(nil); !bytes.Equal(again, b) {
		t.Fatalf("key %d version %d: the answer is\n% x, kmsg writes\n% x", h.Key, h.Version, b, again)
	}
}

func put(out *[]byte, n int) []byte {
	at := len(*out)
	*out = append(*out, make([]byte, n)...)
	return (*out)[at:]
}

func TestProduce(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for round := range 2000 {
		version := int16(3 + round%11)
		req := kmsg.NewPtrProduceRequest()
		req.SetVersion(version)
		req.Acks, req.TimeoutMillis = int16(r.IntN(3)-1), int32(r.IntN(1000))
		for range r.IntN(4) {
			x := kmsg.NewProduceRequestTopic()
			x.Topic, x.TopicID = named(r, version >= kafka.ProduceByID)
			for range r.IntN(4) {
				p := kmsg.NewProduceRequestTopicPartition()
				p.Partition, p.Records = int32(r.IntN(100)), make([]byte, r.IntN(5000))
				for i := range p.Records {
					p.Records[i] = byte(r.Uint32())
				}
				x.Partitions = append(x.Partitions, p)
			}
			req.Topics = append(req.Topics, x)
		}
		reader, h := begin(t, r, req)
		var w kafka.ProduceWalk
		if err := w.Begin(reader, version); err != nil {
			t.Fatal(err)
		}
		if w.Acks != req.Acks || w.TimeoutMS != req.TimeoutMillis || w.Topics() != len(req.Topics) || w.Transactional {
			t.Fatalf("version %d: %+v", version, w)
		}
		var out []byte
		kafka.PutProduceHead(put(&out, kafka.ProduceHeadBytes(&h, w.Topics())), &h, w.Topics())
		for _, x := range req.Topics {
			topic, err := w.NextTopic()
			if err != nil || string(topic.Name) != x.Topic || topic.Partitions != len(x.Partitions) {
				t.Fatalf("version %d: topic %+v %v", version, topic, err)
			}
			kafka.PutProduceTopic(put(&out, kafka.ProduceTopicBytes(version, len(x.Topic), topic.Partitions)), version, []byte(x.Topic), topic.Partitions)
			for i, q := range x.Partitions {
				p, err := w.NextPartition()
				got := make([]byte, p.Records.Len)
				reader.CopyTo(p.Records, got)
				if err != nil || p.Index != q.Partition || !bytes.Equal(got, q.Records) {
					t.Fatalf("version %d: partition %+v %v", version, p, err)
				}
				last := i == len(x.Partitions)-1
				if version >= kafka.ProduceFaults && i%2 == 1 {
					fault := kafka.ProduceFault{Message: bytes.Repeat([]byte("why"), i*17), Record: int32(i%3) - 1}
					kafka.PutProduceFault(put(&out, kafka.ProduceFaultBytes(version, last, &fault)), version, last, p.Index, kafka.InvalidRecord, &fault)
					continue
				}
				kafka.PutProducePartition(put(&out, kafka.ProducePartitionBytes(version, last)), version, last, p.Index, kafka.MessageTooLarge, 77, 99, 5)
			}
		}
		if w.Topics() != 0 || reader.Left() > 1 {
			t.Fatalf("version %d: %d bytes left", version, reader.Left())
		}
		kafka.PutProduceEnd(put(&out, kafka.ProduceEndBytes(version)), version)
		resp := kmsg.NewPtrProduceResponse()
		read(t, h, resp, out)
		for i, x := range req.Topics {
			if version >= kafka.ProduceByID && resp.Topics[i].TopicID != x.TopicID || version < kafka.ProduceByID && resp.Topics[i].Topic != x.Topic {
				t.Fatalf("version %d: topic %+v", version, resp.Topics[i])
			}
			for j := range x.Partitions {
				p := resp.Topics[i].Partitions[j]
				if record := int32(j%3) - 1; version >= kafka.ProduceFaults && j%2 == 1 {
					if p.ErrorCode != 87 || p.BaseOffset != -1 || p.ErrorMessage == nil || *p.ErrorMessage != strings.Repeat("why", j*17) ||
						record < 0 != (len(p.ErrorRecords) == 0) || record >= 0 && (p.ErrorRecords[0].RelativeOffset != record || p.ErrorRecords[0].ErrorMessage != nil) {
						t.Fatalf("version %d: a refusal is %+v", version, p)
					}
					continue
				}
				if p.ErrorCode != 10 || p.BaseOffset != 77 || version >= 5 && p.LogStartOffset != 5 || version >= 2 && p.LogAppendTime != 99 || p.ErrorMessage != nil {
					t.Fatalf("version %d: %+v", version, p)
				}
			}
		}
	}
}

func TestFetch(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 1))
	for round := range 2000 {
		version := int16(4 + round%15)
		req := kmsg.NewPtrFetchRequest()
		req.SetVersion(version)
		req.MaxWaitMillis, req.MinBytes, req.MaxBytes = int32(r.IntN(500)), int32(r.IntN(9)), int32(r.IntN(1<<20))
		for range r.IntN(4) {
			x := kmsg.NewFetchRequestTopic()
			x.Topic, x.TopicID = named(r, version >= kafka.FetchByID)
			for range r.IntN(4) {
				p := kmsg.NewFetchRequestTopicPartition()
				p.Partition, p.FetchOffset, p.PartitionMaxBytes, p.CurrentLeaderEpoch = int32(r.IntN(100)), r.Int64(), int32(r.IntN(1<<20)), int32(r.IntN(10))
				x.Partitions = append(x.Partitions, p)
			}
			req.Topics = append(req.Topics, x)
		}
		reader, h := begin(t, r, req)
		var w kafka.FetchWalk
		if err := w.Begin(reader, version); err != nil {
			t.Fatal(err)
		}
		if w.MaxWaitMS != req.MaxWaitMillis || w.MinBytes != req.MinBytes || w.MaxBytes != req.MaxBytes || w.Topics() != len(req.Topics) {
			t.Fatalf("version %d: %+v", version, w)
		}
		var out []byte
		kafka.PutFetchHead(put(&out, kafka.FetchHeadBytes(&h, w.Topics())), &h, kafka.None, 77, w.Topics())
		for _, x := range req.Topics {
			topic, err := w.NextTopic()
			if err != nil || string(topic.Name) != x.Topic || topic.Partitions != len(x.Partitions) {
				t.Fatalf("version %d: topic %+v %v", version, topic, err)
			}
			kafka.PutFetchTopic(put(&out, kafka.FetchTopicBytes(version, len(x.Topic), topic.Partitions)), version, []byte(x.Topic), topic.Partitions)
			for i, q := range x.Partitions {
				p, err := w.NextPartition()
				if err != nil || p.Index != q.Partition || p.Offset != q.FetchOffset || p.MaxBytes != q.PartitionMaxBytes || version >= 9 && p.CurrentEpoch != q.CurrentLeaderEpoch || version < 9 && p.CurrentEpoch != -1 {
					t.Fatalf("version %d: partition %+v %v", version, p, err)
				}
				records := r.IntN(300)
				kafka.PutFetchPartition(put(&out, kafka.FetchPartitionBytes(version, records)), version, p.Index, kafka.None, 90, 3, records)
				put(&out, records)
				kafka.PutFetchPartitionEnd(put(&out, kafka.FetchPartitionEndBytes(version, i == len(x.Partitions)-1)))
			}
		}
		kafka.PutFetchEnd(put(&out, kafka.FetchEndBytes(version)))
		resp := kmsg.NewPtrFetchResponse()
		read(t, h, resp, out)
		for i, x := range req.Topics {
			if version >= kafka.FetchByID && resp.Topics[i].TopicID != x.TopicID || version < kafka.FetchByID && resp.Topics[i].Topic != x.Topic {
				t.Fatalf("version %d: topic %+v", version, resp.Topics[i])
			}
		}
	}
}

func TestListOffsets(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 1))
	for round := range 1000 {
		version := int16(1 + round%11)
		req := kmsg.NewPtrListOffsetsRequest()
		req.SetVersion(version)
		for range r.IntN(4) {
			x := kmsg.NewListOffsetsRequestTopic()
			x.Topic = name(r)
			for range r.IntN(4) {
				p := kmsg.NewListOffsetsRequestTopicPartition()
				p.Partition, p.Timestamp, p.CurrentLeaderEpoch = int32(r.IntN(100)), r.Int64(), 7
				x.Partitions = append(x.Partitions, p)
			}
			req.Topics = append(req.Topics, x)
		}
		reader, h := begin(t, r, req)
		var w kafka.ListOffsetsWalk
		if err := w.Begin(reader, version); err != nil || w.Topics() != len(req.Topics) {
			t.Fatal(err)
		}
		var out []byte
		kafka.PutListOffsetsHead(put(&out, kafka.ListOffsetsHeadBytes(&h, w.Topics())), &h, w.Topics())
		for _, x := range req.Topics {
			topic, err := w.NextTopic()
			if err != nil || string(topic.Name) != x.Topic {
				t.Fatal(err)
			}
			kafka.PutListOffsetsTopic(put(&out, kafka.ListOffsetsTopicBytes(version, len(x.Topic), topic.Partitions)), version, []byte(x.Topic), topic.Partitions)
			for i, q := range x.Partitions {
				p, err := w.NextPartition()
				if err != nil || p.Index != q.Partition || p.Timestamp != q.Timestamp {
					t.Fatalf("version %d: partition %+v %v", version, p, err)
				}
				last := i == len(x.Partitions)-1
				kafka.PutListOffsetsPartition(put(&out, kafka.ListOffsetsPartitionBytes(version, last)), version, last, p.Index, kafka.None, 5, 6, 7)
			}
		}
		kafka.PutListOffsetsEnd(put(&out, kafka.ListOffsetsEndBytes(version)))
		read(t, h, kmsg.NewPtrListOffsetsResponse(), out)
	}
}

func TestOffsetForLeaderEpoch(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 1))
	for round := range 600 {
		version := int16(2 + round%3)
		req := kmsg.NewPtrOffsetForLeaderEpochRequest()
		req.SetVersion(version)
		for range r.IntN(4) {
			x := kmsg.NewOffsetForLeaderEpochRequestTopic()
			x.Topic = name(r)
			for range r.IntN(4) {
				p := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
				p.Partition, p.CurrentLeaderEpoch, p.LeaderEpoch = int32(r.IntN(100)), 3, 2
				x.Partitions = append(x.Partitions, p)
			}
			req.Topics = append(req.Topics, x)
		}
		reader, h := begin(t, r, req)
		var w kafka.EpochWalk
		if err := w.Begin(reader, version); err != nil {
			t.Fatal(err)
		}
		var out []byte
		kafka.PutEpochHead(put(&out, kafka.EpochHeadBytes(&h, w.Topics())), &h, w.Topics())
		for _, x := range req.Topics {
			topic, err := w.NextTopic()
			if err != nil {
				t.Fatal(err)
			}
			kafka.PutEpochTopic(put(&out, kafka.EpochTopicBytes(version, len(x.Topic), topic.Partitions)), version, []byte(x.Topic), topic.Partitions)
			for i, q := range x.Partitions {
				p, err := w.NextPartition()
				if err != nil || p.Index != q.Partition || p.CurrentEpoch != 3 || p.Epoch != 2 {
					t.Fatalf("version %d: partition %+v %v", version, p, err)
				}
				last := i == len(x.Partitions)-1
				kafka.PutEpochPartition(put(&out, kafka.EpochPartitionBytes(version, last)), version, last, p.Index, kafka.None, 2, 9)
			}
		}
		kafka.PutEpochEnd(put(&out, kafka.EpochEndBytes(version)))
		read(t, h, kmsg.NewPtrOffsetForLeaderEpochResponse(), out)
	}
}

func TestBatches(t *testing.T) {
	good := kafka.AppendBatch(nil, 1234, []byte("key"), []byte("value"))
	if b, code := validate(good, 1<<20); code != kafka.None || b.Count != 1 || b.MaxTime != 1234 || b.ProducerID != -1 {
		t.Fatalf("%+v %v", b, code)
	}
	it := kafka.Records(good)
	if r, ok := it.Next(); !ok || string(r.Key) != "key" || string(r.Value) != "value" || r.Time != 1234 {
		t.Fatalf("%+v %v", r, ok)
	}
	crc := func(b []byte) []byte {
		binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
		return b
	}
	for _, c := range []struct {
		name string
		code kafka.ErrorCode
		bad  func(b []byte) []byte
	}{
		{"wrong CRC", kafka.CorruptMessage, func(b []byte) []byte { b[17]++; return b }},
		{"changed value", kafka.CorruptMessage, func(b []byte) []byte { b[len(b)-2]++; return b }},
		{"magic 0", kafka.InvalidRecord, func(b []byte) []byte { b[16] = 0; return b }},
		{"magic 1", kafka.InvalidRecord, func(b []byte) []byte { b[16] = 1; return b }},
		{"magic 3", kafka.CorruptMessage, func(b []byte) []byte { b[16] = 3; return b }},
		{"magic -1", kafka.CorruptMessage, func(b []byte) []byte { b[16] = 0xff; return b }},
		{"base offset 1", kafka.InvalidRecord, func(b []byte) []byte { b[7] = 1; return b }},
		{"length too long", kafka.InvalidRecord, func(b []byte) []byte { b[11]++; return b }},
		{"length too short", kafka.InvalidRecord, func(b []byte) []byte { b[11]--; return b }},
		{"length negative", kafka.CorruptMessage, func(b []byte) []byte { b[8] = 0x80; return b }},
		{"length 2^31-1", kafka.InvalidRecord, func(b []byte) []byte { copy(b[8:], "\x7f\xff\xff\xff"); return b }},
		{"length 13", kafka.CorruptMessage, func(b []byte) []byte { copy(b[8:], "\x00\x00\x00\x0d"); return b }},
		{"whole, but less than a header", kafka.CorruptMessage, func(b []byte) []byte { b[11] = 28; return b[:40] }},
		{"header only in part", kafka.InvalidRecord, func(b []byte) []byte { return b[:40] }},
		{"two batches", kafka.InvalidRecord, func(b []byte) []byte { return append(b, b...) }},
		{"a byte behind", kafka.InvalidRecord, func(b []byte) []byte { return append(b, 0) }},
		{"count 2", kafka.InvalidRecord, func(b []byte) []byte { b[60] = 2; return crc(b) }},
		{"count 0", kafka.InvalidRecord, func(b []byte) []byte { b[60] = 0; return crc(b) }},
		{"count 0, delta -1", kafka.InvalidRecord, func(b []byte) []byte { copy(b[23:], "\xff\xff\xff\xff"); b[60] = 0; return crc(b) }},
		{"count 2, delta 1, one record", kafka.InvalidRecord, func(b []byte) []byte { b[60], b[26] = 2, 1; return crc(b) }},
		{"count 2^31-1", kafka.InvalidRecord, func(b []byte) []byte {
			copy(b[23:], "\x7f\xff\xff\xfe")
			copy(b[57:], "\x7f\xff\xff\xff")
			return crc(b)
		}},
		{"control", kafka.InvalidRecord, func(b []byte) []byte { b[22] |= 0x20; return crc(b) }},
		{"transactional", kafka.InvalidTxnState, func(b []byte) []byte { b[22] |= 0x10; return crc(b) }},
		{"log append time", kafka.InvalidTimestamp, func(b []byte) []byte { b[22] |= 0x08; return crc(b) }},
		{"codec 5", kafka.UnsupportedCompressionType, func(b []byte) []byte { b[22] |= 5; return crc(b) }},
		{"codec 4, not opened", kafka.None, func(b []byte) []byte { b[22] |= 4; copy(b[61:], "\x28\xb5\x2f\xfd"); return crc(b) }},
		{"codec 4, and no zstd", kafka.InvalidRecord, func(b []byte) []byte { b[22] |= 4; return crc(b) }},
		{"codec 1, and nothing", kafka.InvalidRecord, func(b []byte) []byte { b = b[:61]; b[11], b[22] = 49, b[22]|1; return crc(b) }},
		{"producer without sequence", kafka.InvalidRecord, func(b []byte) []byte { copy(b[43:], make([]byte, 8)); return crc(b) }},
		{"producer without epoch", kafka.InvalidRecord, func(b []byte) []byte { copy(b[43:], make([]byte, 8)); copy(b[53:], make([]byte, 4)); return crc(b) }},
		{"producer", kafka.None, func(b []byte) []byte { copy(b[43:], make([]byte, 14)); return crc(b) }},
		{"empty", kafka.InvalidRecord, func(b []byte) []byte { return nil }},
		{"11 bytes", kafka.InvalidRecord, func(b []byte) []byte { return b[:11] }},
		{"16 bytes", kafka.InvalidRecord, func(b []byte) []byte { return b[:16] }},
	} {
		if _, code := validate(c.bad(bytes.Clone(good)), 1<<20); code != c.code {
			t.Errorf("%s: %v, not %v", c.name, code, c.code)
		}
	}
	if _, code := validate(good, len(good)-1); code != kafka.MessageTooLarge {
		t.Errorf("too large: %v", code)
	}
}

// A request cut off anywhere, or with any byte changed, is refused or read: it
// never panics or reads beyond its end.
func TestDamage(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 1))
	req := kmsg.NewPtrProduceRequest()
	req.SetVersion(9)
	x := kmsg.NewProduceRequestTopic()
	x.Topic = "topic"
	p := kmsg.NewProduceRequestTopicPartition()
	p.Records = kafka.AppendBatch(nil, 1, nil, []byte("v"))
	x.Partitions = append(x.Partitions, p)
	req.Topics = append(req.Topics, x)
	whole := frame(req, r)
	for i := range whole {
		walkAll(cut(r, whole[:i]))
		for range 8 {
			b := bytes.Clone(whole)
			b[i] = byte(r.Uint32())
			walkAll(cut(r, b))
		}
	}
}

// versionsRead are the versions of a key that this room reads.
func versionsRead(key int16) kafka.Versions {
	return map[int16]kafka.Versions{
		kafka.KeyProduce: kafka.ProduceVersions, kafka.KeyFetch: kafka.FetchVersions, kafka.KeyListOffsets: kafka.ListOffsetsVersions,
		kafka.KeyOffsetForLeaderEpoch: kafka.EpochVersions, kafka.KeyApiVersions: {Max: kafka.ApiVersionsMax},
	}[key]
}

// walkAll does with any bytes what a shard does.
func walkAll(pieces [][]byte) {
	reader := new(kafka.Reader)
	reader.Reset(pieces)
	var h kafka.Request
	err := kafka.ParseHeader(reader, &h)
	if err != nil {
		return
	}
	dst := make([]byte, 1<<16)
	switch h.Key {
	case kafka.KeyApiVersions:
		kafka.ParseApiVersions(reader, h.Version)
	case kafka.KeyProduce:
		var w kafka.ProduceWalk
		if w.Begin(reader, h.Version) != nil {
			return
		}
		for w.Topics() > 0 {
			t, err := w.NextTopic()
			if err != nil {
				return
			}
			for range t.Partitions {
				p, err := w.NextPartition()
				if err != nil {
					return
				}
				if p.Records.Len <= len(dst) {
					reader.CopyTo(p.Records, dst[:p.Records.Len])
					validate(dst[:p.Records.Len], 1<<20)
				}
			}
		}
	case kafka.KeyFetch:
		var w kafka.FetchWalk
		if w.Begin(reader, h.Version) != nil {
			return
		}
		for w.Topics() > 0 {
			t, err := w.NextTopic()
			if err != nil {
				return
			}
			for range t.Partitions {
				if _, err := w.NextPartition(); err != nil {
					return
				}
			}
		}
	case kafka.KeyListOffsets:
		var w kafka.ListOffsetsWalk
		if w.Begin(reader, h.Version) != nil {
			return
		}
		for w.Topics() > 0 {
			t, err := w.NextTopic()
			if err != nil {
				return
			}
			for range t.Partitions {
				if _, err := w.NextPartition(); err != nil {
					return
				}
			}
		}
	case kafka.KeyOffsetForLeaderEpoch:
		var w kafka.EpochWalk
		if w.Begin(reader, h.Version) != nil {
			return
		}
		for w.Topics() > 0 {
			t, err := w.NextTopic()
			if err != nil {
				return
			}
			for range t.Partitions {
				if _, err := w.NextPartition(); err != nil {
					return
				}
			}
		}
	}
}

func FuzzRequest(f *testing.F) {
	r := rand.New(rand.NewPCG(6, 1))
	for _, req := range []kmsg.Request{kmsg.NewPtrProduceRequest(), kmsg.NewPtrFetchRequest(), kmsg.NewPtrListOffsetsRequest(), kmsg.NewPtrOffsetForLeaderEpochRequest(), kmsg.NewPtrApiVersionsRequest()} {
		versions := versionsRead(req.Key())
		for v := versions.Min; v <= versions.Max; v++ {
			req.SetVersion(v)
			f.Add(frame(req, r), uint8(v))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, at uint8) {
		if len(b) == 0 {
			return
		}
		n := int(at) % len(b)
		walkAll([][]byte{b[:n], b[n:]})
	})
}

func FuzzBatch(f *testing.F) {
	f.Add(kafka.AppendBatch(nil, 1, []byte("k"), []byte("v")))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		fixed := bytes.Clone(b)
		if len(fixed) >= kafka.BatchHeaderBytes { // past the checksum, else nothing is tried
			fixed[16] = 2
			binary.BigEndian.PutUint32(fixed[8:], uint32(len(fixed)-12))
			binary.BigEndian.PutUint32(fixed[17:], crc32.Checksum(fixed[21:], crc32.MakeTable(crc32.Castagnoli)))
		}
		for _, b := range [][]byte{b, fixed} {
			h, code := validate(b, 1<<20)
			if code != kafka.None {
				continue
			}
			n := int32(0)
			for it := kafka.Records(b); ; n++ {
				r, ok := it.Next()
				if !ok {
					break
				}
				if r.Delta != int64(n) {
					t.Fatalf("record %d has delta %d in a batch that was accepted", n, r.Delta)
				}
			}
			if h.Attributes&7 == 0 && n != h.Count {
				t.Fatalf("%d records in a batch of %d that was accepted", n, h.Count)
			}
			search := kafka.TimeSearch{Time: h.MaxTime}
			search.Batch(b)
		}
	})
}

func TestNothingAllocates(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 1))
	req := kmsg.NewPtrProduceRequest()
	req.SetVersion(9)
	x := kmsg.NewProduceRequestTopic()
	x.Topic = "topic"
	p := kmsg.NewProduceRequestTopicPartition()
	p.Records = kafka.AppendBatch(nil, 1, nil, make([]byte, 1000))
	x.Partitions = append(x.Partitions, p)
	req.Topics = append(req.Topics, x)
	pieces := cut(r, frame(req, r))
	reader := new(kafka.Reader)
	dst := make([]byte, len(p.Records))
	reply := make([]byte, 256)
	if n := testing.AllocsPerRun(100, func() {
		reader.Reset(pieces)
		var h kafka.Request
		kafka.ParseHeader(reader, &h)
		var w kafka.ProduceWalk
		w.Begin(reader, h.Version)
		w.NextTopic()
		p, _ := w.NextPartition()
		reader.CopyTo(p.Records, dst)
		if _, code := validate(dst, 1<<20); code != kafka.None {
			t.Fatal(code)
		}
		kafka.PatchBase(dst, 9, 1)
		kafka.PutProduceHead(reply[:kafka.ProduceHeadBytes(&h, 1)], &h, 1)
		kafka.PutProducePartition(reply[:kafka.ProducePartitionBytes(9, true)], 9, true, 0, kafka.None, 9, -1, 0)
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}
