package load

import (
	"encoding/binary"
	"hash/crc32"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Non-flexible versions, which every broker and yardstick here serves: the
// cost of their encoding is the same, the bytes are easy to check by hand.
const (
	produceKey     = 0
	produceVersion = 7
	fetchKey       = 1
	fetchVersion   = 11
)

const (
	batchHeaderBytes = 61
	crcAt            = 17 // of a batch; it covers all from crcFrom on
	crcFrom          = 21
)

// appendHeader appends a request's length, header v1 and client id; endFrame
// sets the length when the rest, and bodyBytes that follow elsewhere, are known.
func appendHeader(b []byte, key, version int16, correlation int32) []byte {
	be := binary.BigEndian
	b = be.AppendUint32(b, 0)
	b = be.AppendUint16(b, uint16(key))
	b = be.AppendUint16(b, uint16(version))
	b = be.AppendUint32(b, uint32(correlation))
	return appendString(b, "bench")
}

func endFrame(b []byte, from, bodyBytes int) {
	binary.BigEndian.PutUint32(b[from:], uint32(len(b)-from-4+bodyBytes))
}

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

// appendProduce appends a Produce request of one batch up to where the batch's
// batchBytes bytes follow.
func appendProduce(b []byte, correlation int32, acks int16, topic string, partition int32, batchBytes int) []byte {
	be := binary.BigEndian
	from := len(b)
	b = appendHeader(b, produceKey, produceVersion, correlation)
	b = be.AppendUint16(b, ^uint16(0)) // no transactional id
	b = be.AppendUint16(b, uint16(acks))
	b = be.AppendUint32(b, 30_000) // timeout, ms
	b = be.AppendUint32(b, 1)
	b = appendString(b, topic)
	b = be.AppendUint32(b, 1)
	b = be.AppendUint32(b, uint32(partition))
	b = be.AppendUint32(b, uint32(batchBytes))
	endFrame(b, from, batchBytes)
	return b
}

// produceAnswer reads the answer's correlation and error code; frame is
// without its length.
func produceAnswer(frame []byte, topic string) (correlation int32, code int16, ok bool) {
	at := 4 + 4 + 2 + len(topic) + 4 + 4
	if len(frame) < at+2 {
		return 0, 0, false
	}
	be := binary.BigEndian
	return int32(be.Uint32(frame)), int16(be.Uint16(frame[at:])), true
}

// appendFetch appends a long poll of a session, which names those partitions
// that it has to.
func appendFetch(b []byte, correlation int32, topic string, s *session, partitions []int32, offsets []int64, waitMS, maxBytes, partitionBytes int32) []byte {
	be := binary.BigEndian
	from := len(b)
	b = appendHeader(b, fetchKey, fetchVersion, correlation)
	b = be.AppendUint32(b, ^uint32(0)) // a consumer
	b = be.AppendUint32(b, uint32(waitMS))
	b = be.AppendUint32(b, 1) // min bytes
	b = be.AppendUint32(b, uint32(maxBytes))
	b = append(b, 0) // read uncommitted
	b = be.AppendUint32(b, uint32(s.id))
	b = be.AppendUint32(b, uint32(s.epoch))
	if names := s.names(); len(names) == 0 {
		b = be.AppendUint32(b, 0) // no topic
	} else {
		b = be.AppendUint32(b, 1)
		b = appendString(b, topic)
		b = be.AppendUint32(b, uint32(len(names)))
		for _, slot := range names {
			b = be.AppendUint32(b, uint32(partitions[slot]))
			b = be.AppendUint32(b, ^uint32(0)) // leader epoch unknown
			b = be.AppendUint64(b, uint64(offsets[slot]))
			b = be.AppendUint64(b, ^uint64(0))
			b = be.AppendUint32(b, uint32(partitionBytes))
		}
	}
	b = be.AppendUint32(b, 0) // nothing forgotten
	b = appendString(b, "")   // no rack
	endFrame(b, from, 0)
	return b
}

// A walker reads a big-endian frame; after a short read ok is false and
// everything reads as zero.
type walker struct {
	b  []byte
	ok bool
}

func (w *walker) take(n int) []byte {
	if n < 0 || n > len(w.b) {
		w.ok, w.b = false, nil
		return nil
	}
	t := w.b[:n]
	w.b = w.b[n:]
	return t
}

func (w *walker) i16() int16 {
	if t := w.take(2); t != nil {
		return int16(binary.BigEndian.Uint16(t))
	}
	return 0
}

func (w *walker) i32() int32 {
	if t := w.take(4); t != nil {
		return int32(binary.BigEndian.Uint32(t))
	}
	return 0
}

// fetchAnswer walks a Fetch answer: partition is called for each, with its
// whole record batches.
func fetchAnswer(frame []byte, partition func(index int32, code int16, records []byte)) (session int32, code int16, ok bool) {
	w := walker{b: frame, ok: true}
	w.take(4 + 4) // correlation, throttle
	code = w.i16()
	session = w.i32()
	for topics := w.i32(); topics > 0 && w.ok; topics-- {
		w.take(int(w.i16()))
		for n := w.i32(); n > 0 && w.ok; n-- {
			index := w.i32()
			c := w.i16()
			w.take(8 + 8 + 8)
			if aborted := w.i32(); aborted > 0 {
				w.take(int(aborted) * 16)
			}
			w.take(4) // preferred replica
			var records []byte
			if size := w.i32(); size > 0 {
				records = w.take(int(size))
			}
			if w.ok {
				partition(index, c, records)
			}
		}
	}
	return session, code, w.ok
}

// nextBatch cuts the first whole batch off records.
func nextBatch(records []byte) (b, rest []byte, next int64, ok bool) {
	if len(records) < batchHeaderBytes {
		return nil, nil, 0, false
	}
	be := binary.BigEndian
	size := int(be.Uint32(records[8:])) + 12
	if size < batchHeaderBytes || size > len(records) {
		return nil, nil, 0, false
	}
	b = records[:size]
	return b, records[size:], int64(be.Uint64(b)) + int64(int32(be.Uint32(b[23:]))) + 1, true
}
