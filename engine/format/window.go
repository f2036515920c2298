package format

// A log's attachment is the windows of its producers, the newest producer first. Its version
// is in the log's record (see RecordWindows2).
const (
	ProducerBytes = 11 // its marks follow
	MarkBytes     = 24
)

// ProducerWindow is what a log keeps of an idempotent producer.
//
//	0 producer id 8 | 8 epoch 2 | 10 marks 1
type ProducerWindow struct {
	ID    int64
	Epoch int16
	Marks int8
}

// Put writes the window and returns its length. Its marks follow, oldest first.
func (w *ProducerWindow) Put(buf []byte) int {
	le.PutUint64(buf, uint64(w.ID))
	le.PutUint16(buf[8:], uint16(w.Epoch))
	buf[10] = byte(w.Marks)
	return ProducerBytes
}

// Get parses a window.
func (w *ProducerWindow) Get(buf []byte) {
	w.ID, w.Epoch, w.Marks = int64(le.Uint64(buf)), int16(le.Uint16(buf[8:])), int8(buf[10])
}

// BatchMark is one batch of a producer, by which its duplicates are recognized.
//
//	0 first sequence 4 | 4 last sequence 4 | 8 base offset 8 | 16 end 8
type BatchMark struct {
	First, Last int32 // sequence numbers, both inclusive
	Base, End   int64 // offsets; below 0: nothing was stored
}

// Put writes the mark and returns its length.
func (m *BatchMark) Put(buf []byte) int {
	le.PutUint32(buf, uint32(m.First))
	le.PutUint32(buf[4:], uint32(m.Last))
	le.PutUint64(buf[8:], uint64(m.Base))
	le.PutUint64(buf[16:], uint64(m.End))
	return MarkBytes
}

// Get parses a mark.
func (m *BatchMark) Get(buf []byte) {
	m.First, m.Last = int32(le.Uint32(buf)), int32(le.Uint32(buf[4:]))
	m.Base, m.End = int64(le.Uint64(buf[8:])), int64(le.Uint64(buf[16:]))
}
