package kafka

import "encoding/binary"

// PutInt32 writes v to the start of b, big-endian.
func PutInt32(b []byte, v int32) { binary.BigEndian.PutUint32(b, uint32(v)) }

// writer writes fields one after another to a slice of exactly their size.
type writer struct {
	b []byte
	n int
}

func (w *writer) int16(v int16) {
	binary.BigEndian.PutUint16(w.b[w.n:], uint16(v))
	w.n += 2
}
func (w *writer) int32(v int32) {
	binary.BigEndian.PutUint32(w.b[w.n:], uint32(v))
	w.n += 4
}
func (w *writer) int64(v int64) {
	binary.BigEndian.PutUint64(w.b[w.n:], uint64(v))
	w.n += 8
}

func (w *writer) count(flexible bool, n int) {
	if flexible {
		w.uvarint(uint32(n + 1))
	} else {
		w.int32(int32(n))
	}
}

func (w *writer) uvarint(v uint32) { w.n += binary.PutUvarint(w.b[w.n:], uint64(v)) }

func (w *writer) name(flexible bool, s []byte) {
	if flexible {
		w.uvarint(uint32(len(s) + 1))
	} else {
		w.int16(int16(len(s)))
	}
	w.n += copy(w.b[w.n:], s)
}

func (w *writer) tags(flexible bool) {
	if flexible {
		w.b[w.n] = 0
		w.n++
	}
}

func (w *writer) done() {
	if w.n != len(w.b) {
		panic("kafka: a part of an answer has another size than it was said to have")
	}
}

func uvarintBytes(v uint32) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

func countBytes(flexible bool, n int) int {
	if flexible {
		return uvarintBytes(uint32(n + 1))
	}
	return 4
}

func nameBytes(flexible bool, n int) int {
	if flexible {
		return uvarintBytes(uint32(n+1)) + n
	}
	return 2 + n
}

func tagBytes(flexible bool) int {
	if flexible {
		return 1
	}
	return 0
}

// headBytes is the size of the response header: correlation id, and from header version
// 1 on tagged fields.
func headBytes(h *Request) int { return 4 + tagBytes(h.Flexible) }

func (w *writer) head(h *Request) {
	w.int32(h.Correlation)
	w.tags(h.Flexible)
}

// topicBytes is the size of a topic's name and number of partitions. The tagged fields
// of a topic without partitions follow at once.
func topicBytes(flexible bool, name, partitions int) int {
	n := nameBytes(flexible, name) + countBytes(flexible, partitions)
	if partitions == 0 {
		n += tagBytes(flexible)
	}
	return n
}

// topicIDBytes is topicBytes for a topic that is named by its id.
func topicIDBytes(partitions int) int {
	n := TopicIDBytes + countBytes(true, partitions)
	if partitions == 0 {
		n += tagBytes(true)
	}
	return n
}

func (w *writer) topicID(id []byte, partitions int) {
	w.n += copy(w.b[w.n:], id)
	w.count(true, partitions)
	if partitions == 0 {
		w.tags(true)
	}
}

func (w *writer) topic(flexible bool, name []byte, partitions int) {
	w.name(flexible, name)
	w.count(flexible, partitions)
	if partitions == 0 {
		w.tags(flexible)
	}
}
