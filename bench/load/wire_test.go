package load

import (
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestBatchKeepsItsCRC(t *testing.T) {
	for _, c := range [][2]int{{100, 1000}, {1, 100}, {1, 1}} {
		shape := shape{records: c[0], recordBytes: c[1]}
		b := batchOf(t, shape)
		for _, at := range []int64{0, 1, 123456789012345} {
			b.stamp(7, 9, at)
			if got, want := binary.BigEndian.Uint32(b.bytes[crcAt:]), crc32.Checksum(b.bytes[crcFrom:], castagnoli); got != want {
				t.Fatalf("%v: CRC %x, want %x", c, got, want)
			}
			if lane, number, got, ok := stampOf(b.bytes); !ok || got != at || lane != 7 || number != 9 {
				t.Fatalf("%v: stamp %d %d %d %v, want 7 9 %d", c, lane, number, got, ok, at)
			}
		}
		var k kmsg.RecordBatch
		if err := k.ReadFrom(b.bytes); err != nil {
			t.Fatal(err)
		}
		if int(k.NumRecords) != c[0] || int(k.Length) != len(b.bytes)-12 || k.ProducerID != -1 {
			t.Fatalf("%v: read back as %d records, length %d", c, k.NumRecords, k.Length)
		}
		for records, i := k.Records, 0; len(records) > 0; i++ {
			var r kmsg.Record
			if err := r.ReadFrom(records); err != nil || int(r.OffsetDelta) != i {
				t.Fatalf("%v: record %d: %v, delta %d", c, i, err, r.OffsetDelta)
			}
			_, n := binary.Varint(records)
			records = records[n+int(r.Length):]
		}
	}
}

func TestRequestsReadBack(t *testing.T) {
	b := batchOf(t, shape{records: 3, recordBytes: 50})
	frame := append(appendProduce(nil, 9, -1, "topic", 5, len(b.bytes)), b.bytes...)
	body := skipHeader(t, frame)
	p := kmsg.NewPtrProduceRequest()
	p.Version = produceVersion
	if err := p.ReadFrom(body); err != nil {
		t.Fatal(err)
	}
	if p.Acks != -1 || p.TransactionID != nil || p.Topics[0].Topic != "topic" || p.Topics[0].Partitions[0].Partition != 5 ||
		len(p.Topics[0].Partitions[0].Records) != len(b.bytes) {
		t.Fatalf("produce reads back as %+v", p)
	}

	f := kmsg.NewPtrFetchRequest()
	f.Version = fetchVersion
	s := newSession(2)
	read := func() *kmsg.FetchRequest {
		t.Helper()
		f.Topics = nil
		if err := f.ReadFrom(skipHeader(t, appendFetch(nil, 1, "topic", &s, []int32{3, 4}, []int64{7, 8}, 500, 1000, 100))); err != nil {
			t.Fatal(err)
		}
		return f
	}
	if f := read(); f.SessionID != 0 || f.SessionEpoch != 0 || f.MaxBytes != 1000 || f.Topics[0].Partitions[1].Partition != 4 || f.Topics[0].Partitions[1].FetchOffset != 8 {
		t.Fatalf("fetch reads back as %+v", f)
	}
	// With a session only what has changed is named, until the broker has let it go; a broker that gives none is always asked for all.
	s.answered(77, 0)
	if f := read(); f.SessionID != 77 || f.SessionEpoch != 1 || len(f.Topics) != 0 {
		t.Errorf("a fetch of a session reads back as %+v", f)
	}
	s.answered(77, 0)
	s.changed = append(s.changed, 1)
	if f := read(); f.SessionEpoch != 2 || len(f.Topics) != 1 || len(f.Topics[0].Partitions) != 1 || f.Topics[0].Partitions[0].Partition != 4 {
		t.Errorf("a fetch of what has changed reads back as %+v", f)
	}
	if gone := s.answered(0, invalidFetchSessionEpoch); !gone {
		t.Error("a session that is gone is not")
	}
	if f := read(); f.SessionID != 0 || f.SessionEpoch != 0 || len(f.Topics[0].Partitions) != 2 {
		t.Errorf("the first fetch of another session reads back as %+v", f)
	}
	s.answered(0, 0)
	if f := read(); f.SessionEpoch != -1 || len(f.Topics[0].Partitions) != 2 {
		t.Errorf("a fetch without a session reads back as %+v", f)
	}
}

func TestFetchAnswerIsWalked(t *testing.T) {
	b := batchOf(t, shape{records: 3, recordBytes: 50})
	b.stamp(1, 2, 77)
	binary.BigEndian.PutUint64(b.bytes, 40)
	r := kmsg.NewPtrFetchResponse()
	r.Version = fetchVersion
	topic := kmsg.NewFetchResponseTopic()
	topic.Topic = "topic"
	for _, records := range [][]byte{nil, append(append([]byte{}, b.bytes...), b.bytes[:30]...)} {
		p := kmsg.NewFetchResponseTopicPartition()
		p.Partition = int32(len(topic.Partitions))
		p.RecordBatches = records
		topic.Partitions = append(topic.Partitions, p)
	}
	r.Topics = append(r.Topics, topic)
	n := 0
	_, _, ok := fetchAnswer(r.AppendTo(make([]byte, 4)), func(index int32, code int16, records []byte) {
		for {
			whole, rest, next, ok := nextBatch(records)
			if !ok {
				return
			}
			n++
			if _, _, at, ok := stampOf(whole); !ok || at != 77 || next != 43 || index != 1 || code != 0 {
				t.Fatalf("batch of partition %d: stamp %d, next %d", index, at, next)
			}
			records = rest
		}
	})
	if !ok || n != 1 {
		t.Fatalf("%d batches, %v", n, ok)
	}
}

func skipHeader(t *testing.T, frame []byte) []byte {
	t.Helper()
	if int(binary.BigEndian.Uint32(frame)) != len(frame)-4 {
		t.Fatalf("length %d of a frame of %d", binary.BigEndian.Uint32(frame), len(frame))
	}
	return frame[4+8+2+len("bench"):]
}

func batchOf(t *testing.T, s shape) *batch {
	t.Helper()
	b, err := newBatch(s, 1)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A client that knows nothing of stamps opens what every codec made, after the
// stamp was changed in place.
func TestCompressedBatchesAreOpenedByOthers(t *testing.T) {
	for name, c := range codecs {
		b := batchOf(t, shape{records: 50, recordBytes: 300, codec: c, key: keysOf(2, 4, 100, 8)})
		b.stamp(1, 2, 1<<40)
		if c != plain && len(b.bytes) > 50*300*8/10 {
			t.Errorf("%s: %d bytes are not compressed", name, len(b.bytes))
		}
		p := kmsg.NewFetchResponseTopicPartition()
		p.RecordBatches = b.bytes
		got, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Partition: 0}, &p, kgo.DefaultDecompressor(), nil)
		if got.Err != nil || len(got.Records) != 50 {
			t.Fatalf("%s: %d records, %v", name, len(got.Records), got.Err)
		}
		last := got.Records[49]
		if at := binary.BigEndian.Uint64(last.Value[len(last.Value)-8:]); at != 1<<40 {
			t.Errorf("%s: the stamp reads %d", name, at)
		}
		for _, r := range got.Records {
			if len(r.Key) != 8 || len(r.Value) != 300 {
				t.Fatalf("%s: a record of %d and %d bytes", name, len(r.Key), len(r.Value))
			}
			if at := kgo.StickyKeyPartitioner(nil).ForTopic("t").Partition(r, 4); at != 2 {
				t.Fatalf("%s: key %s belongs to partition %d", name, r.Key, at)
			}
		}
	}
}
