package format

// FrameBytesMax is the size of a frame that takes no more entries. A single larger batch
// makes a larger frame.
const FrameBytesMax = 1 << 20

// FrameHeader is the header of a journal frame, behind the common part:
//
//	112 journal id 8 | 120 shard 4 | 124 entries 4 | 128 sequence 8
//	| 136 durable 8: the highest sequence known durable when this frame was submitted
type FrameHeader struct {
	Header
	Journal  uint64
	Shard    uint32
	Entries  uint32
	Sequence uint64
	Durable  uint64
}

// Put writes the header and computes its CRC; the body's CRC is the caller's.
func (h *FrameHeader) Put(buf []byte) {
	h.Magic = MagicFrame
	clear(buf[112:HeaderBytes])
	h.Header.put(buf)
	le.PutUint64(buf[112:], h.Journal)
	le.PutUint32(buf[120:], h.Shard)
	le.PutUint32(buf[124:], h.Entries)
	le.PutUint64(buf[128:], h.Sequence)
	le.PutUint64(buf[136:], h.Durable)
	h.seal(buf)
}

// Get parses a header. False: it is none, it is broken, or it needs a later version.
func (h *FrameHeader) Get(buf []byte) bool {
	newer, ok := h.Parse(buf)
	return ok && newer == ""
}

// Parse parses a header. ok: it is one, and whole; newer then names what it needs of a
// later version, "" if nothing.
func (h *FrameHeader) Parse(buf []byte) (newer string, ok bool) {
	if newer, ok = h.Header.get(buf, MagicFrame); !ok {
		return "", false
	}
	h.Journal, h.Shard, h.Entries = le.Uint64(buf[112:]), le.Uint32(buf[120:]), le.Uint32(buf[124:])
	h.Sequence, h.Durable = le.Uint64(buf[128:]), le.Uint64(buf[136:])
	return newer, true
}
