package format

// What a log's attachment is made of: the windows of its producers, those it
// came to know last first. A log's record says its version (see RecordWindows2); it has none
// of its own.
const (
	ProducerBytes = 11 // and its marks follow
	MarkBytes     = 24
)

// ProducerWindow is what a log remembers of an idempotent producer.
//
//	0 producer id 8 | 8 epoch 2 | 10 marks 1
type ProducerWindow struct {
	ID    int64
	Epoch int16
	Marks int8
}

// Put writes it and gives its length; its marks follow, oldest first.
func (w *ProducerWindow) Put(p []byte) int {
	le.PutUint64(p, uint64(w.ID))
	le.PutUint16(p[8:], uint16(w.Epoch))
	p[10] = byte(w.Marks)
	return ProducerBytes
}

// Get parses it.
func (w *ProducerWindow) Get(p []byte) {
	w.ID, w.Epoch, w.Marks = int64(le.Uint64(p)), int16(le.Uint16(p[8:])), int8(p[10])
}

// BatchMark is one batch of a producer.
//
//	0 first sequence 4 | 4 last sequence 4 | 8 base offset 8 | 16 end 8
type BatchMark struct {
	First, Last int32 // sequence numbers, both inclusive
	Base, End   int64 // offsets; below 0: nothing was stored
}

// Put writes it and gives its length.
func (m *BatchMark) Put(p []byte) int {
	le.PutUint32(p, uint32(m.First))
	le.PutUint32(p[4:], uint32(m.Last))
	le.PutUint64(p[8:], uint64(m.Base))
	le.PutUint64(p[16:], uint64(m.End))
	return MarkBytes
}

// Get parses it.
func (m *BatchMark) Get(p []byte) {
	m.First, m.Last = int32(le.Uint32(p)), int32(le.Uint32(p[4:]))
	m.Base, m.End = int64(le.Uint64(p[8:])), int64(le.Uint64(p[16:]))
}
