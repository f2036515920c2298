package load

import (
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestBatchKeepsItsCRC(t *testing.T) {
	for _, shape := range [][2]int{{100, 1000}, {1, 100}, {1, 1}} {
		b := newBatch(shape[0], shape[1], rand.NewChaCha8([32]byte{1}))
		for _, at := range []int64{0, 1, 123456789012345} {
			b.stamp(at)
			if got, want := binary.BigEndian.Uint32(b.bytes[crcAt:]), crc32.Checksum(b.bytes[crcFrom:], castagnoli); got != want {
				t.Fatalf("%v: CRC %x, want %x", shape, got, want)
			}
			if got, ok := stampOf(b.bytes); !ok || got != at {
				t.Fatalf("%v: stamp %d %v, want %d", shape, got, ok, at)
			}
		}
		var k kmsg.RecordBatch
		if err := k.ReadFrom(b.bytes); err != nil {
			t.Fatal(err)
		}
		if int(k.NumRecords) != shape[0] || int(k.Length) != len(b.bytes)-12 || k.ProducerID != -1 {
			t.Fatalf("%v: read back as %d records, length %d", shape, k.NumRecords, k.Length)
		}
		for records, i := k.Records, 0; len(records) > 0; i++ {
			var r kmsg.Record
			if err := r.ReadFrom(records); err != nil || int(r.OffsetDelta) != i {
				t.Fatalf("%v: record %d: %v, delta %d", shape, i, err, r.OffsetDelta)
			}
			_, n := binary.Varint(records)
			records = records[n+int(r.Length):]
		}
	}
}

func TestRequestsReadBack(t *testing.T) {
	b := newBatch(3, 50, rand.NewChaCha8([32]byte{2}))
	frame := append(appendProduce(nil, 9, "topic", 5, len(b.bytes)), b.bytes...)
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
	if err := f.ReadFrom(skipHeader(t, appendFetch(nil, 1, "topic", []int32{3, 4}, []int64{7, 8}, 500, 1000, 100))); err != nil {
		t.Fatal(err)
	}
	if f.SessionEpoch != -1 || f.MaxBytes != 1000 || f.Topics[0].Partitions[1].Partition != 4 || f.Topics[0].Partitions[1].FetchOffset != 8 {
		t.Fatalf("fetch reads back as %+v", f)
	}
}

func TestFetchAnswerIsWalked(t *testing.T) {
	b := newBatch(3, 50, rand.NewChaCha8([32]byte{2}))
	b.stamp(77)
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
	_, ok := fetchAnswer(r.AppendTo(make([]byte, 4)), func(index int32, code int16, records []byte) {
		for {
			whole, rest, next, ok := nextBatch(records)
			if !ok {
				return
			}
			n++
			if at, ok := stampOf(whole); !ok || at != 77 || next != 43 || index != 1 || code != 0 {
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
