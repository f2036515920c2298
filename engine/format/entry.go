package format

// EntryHeaderBytes is the length of the header of a frame's entries and of a
// run's batches.
const EntryHeaderBytes = 64

// Kinds of entries in a frame. One that is not among these is refused: see Newer.
const (
	EntryData       = 1
	EntryAssigned   = 2 // aux: the segment's generation
	EntryReleased   = 3 // reserved
	EntryOpened     = 4
	EntryClosed     = 5
	EntryStartMoved = 6 // base: the new start
)

// Entry heads each piece of a frame's and of a run's body; length bytes
// follow, padded to 8.
//
//	0 CRC of the rest 4 | 4 kind 2, flags 2 | 8 log id 8 | 16 base offset 8 | 24 count 4 | 28 length 4
//	32 batch CRC 4 | 36 slot 4 (of this life, informal) | 40 the log's durable offset at submission 8
//	48 largest timestamp 8 | 56 auxiliary 8
type Entry struct {
	Kind    uint16
	Flags   uint16 // none is served
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
func (h *Entry) Put(p []byte) {
	le.PutUint16(p[4:], h.Kind)
	le.PutUint16(p[6:], h.Flags)
	le.PutUint64(p[8:], h.Log)
	le.PutUint64(p[16:], uint64(h.Base))
	le.PutUint32(p[24:], h.Count)
	le.PutUint32(p[28:], h.Length)
	le.PutUint32(p[32:], h.CRC)
	le.PutUint32(p[36:], h.Slot)
	le.PutUint64(p[40:], uint64(h.Durable))
	le.PutUint64(p[48:], uint64(h.MaxTime))
	le.PutUint64(p[56:], h.Aux)
	le.PutUint32(p, CRC(p[4:EntryHeaderBytes]))
}

// Get parses the entry at the start of p. False: broken, or longer than p.
func (h *Entry) Get(p []byte) bool {
	if len(p) < EntryHeaderBytes || CRC(p[4:EntryHeaderBytes]) != le.Uint32(p) {
		return false
	}
	h.Read(p)
	return int64(h.Length) <= int64(len(p)-EntryHeaderBytes)
}

// Read parses a header that is known to be whole.
func (h *Entry) Read(p []byte) {
	h.Kind, h.Flags, h.Log, h.Base = le.Uint16(p[4:]), le.Uint16(p[6:]), le.Uint64(p[8:]), int64(le.Uint64(p[16:]))
	h.Count, h.Length, h.CRC, h.Slot = le.Uint32(p[24:]), le.Uint32(p[28:]), le.Uint32(p[32:]), le.Uint32(p[36:])
	h.Durable, h.MaxTime, h.Aux = int64(le.Uint64(p[40:])), int64(le.Uint64(p[48:])), le.Uint64(p[56:])
}

// Bytes is what the entry takes in a body.
func (h *Entry) Bytes() int { return EntryHeaderBytes + Align8(int(h.Length)) }
