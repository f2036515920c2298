package format

// EntryHeaderBytes is the length of the header of an entry, in a frame or a run.
const EntryHeaderBytes = 64

// Kinds of entries. Any other kind is refused: see Newer. In a run all are EntryData.
const (
	EntryData       = 1
	EntryAssigned   = 2 // aux: the segment's generation
	EntryReleased   = 3 // reserved
	EntryOpened     = 4
	EntryClosed     = 5
	EntryStartMoved = 6 // base: the new start
)

// Entry is the header of an entry, of which the body of a frame or a run is made. length
// bytes follow it, padded to a multiple of 8.
//
//	0 CRC of the rest 4 | 4 kind 2, flags 2 | 8 log id 8 | 16 base offset 8 | 24 count 4 | 28 length 4
//	32 batch CRC 4 | 36 slot 4 (of this epoch, informal) | 40 the log's durable offset at submission 8
//	48 largest timestamp 8 | 56 auxiliary 8
type Entry struct {
	Kind    uint16
	Flags   uint16 // all are of later versions
	Log     uint64
	Base    int64
	Count   uint32
	Length  uint32
	CRC     uint32
	Slot    uint32
	Durable int64
	MaxTime int64
	Aux     uint64
}

// Put writes the header.
func (h *Entry) Put(buf []byte) {
	le.PutUint16(buf[4:], h.Kind)
	le.PutUint16(buf[6:], h.Flags)
	le.PutUint64(buf[8:], h.Log)
	le.PutUint64(buf[16:], uint64(h.Base))
	le.PutUint32(buf[24:], h.Count)
	le.PutUint32(buf[28:], h.Length)
	le.PutUint32(buf[32:], h.CRC)
	le.PutUint32(buf[36:], h.Slot)
	le.PutUint64(buf[40:], uint64(h.Durable))
	le.PutUint64(buf[48:], uint64(h.MaxTime))
	le.PutUint64(buf[56:], h.Aux)
	le.PutUint32(buf, CRC(buf[4:EntryHeaderBytes]))
}

// Get parses the entry at the start of buf. False: its header is broken, or it is longer
// than buf.
func (h *Entry) Get(buf []byte) bool {
	if len(buf) < EntryHeaderBytes || CRC(buf[4:EntryHeaderBytes]) != le.Uint32(buf) {
		return false
	}
	h.Read(buf)
	return int64(h.Length) <= int64(len(buf)-EntryHeaderBytes)
}

// Read parses a header that is known to be sound.
func (h *Entry) Read(buf []byte) {
	h.Kind, h.Flags, h.Log, h.Base = le.Uint16(buf[4:]), le.Uint16(buf[6:]), le.Uint64(buf[8:]), int64(le.Uint64(buf[16:]))
	h.Count, h.Length, h.CRC, h.Slot = le.Uint32(buf[24:]), le.Uint32(buf[28:]), le.Uint32(buf[32:]), le.Uint32(buf[36:])
	h.Durable, h.MaxTime, h.Aux = int64(le.Uint64(buf[40:])), int64(le.Uint64(buf[48:])), le.Uint64(buf[56:])
}

// Bytes is the size of the entry in a body, with its padding.
func (h *Entry) Bytes() int { return EntryHeaderBytes + Align8(int(h.Length)) }
