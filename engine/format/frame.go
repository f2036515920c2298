package format

// FrameBytesMax is the size at which a frame takes no more: one larger batch
// passes.
const FrameBytesMax = 1 << 20

// FrameHeader: 112 journal id 8 | 120 shard 4 | 124 entries 4 | 128 sequence 8
// | 136 durable 8: the highest sequence known durable when this was submitted.
type FrameHeader struct {
	Header
	Journal  uint64
	Shard    uint32
	Entries  uint32
	Sequence uint64
	Durable  uint64
}

// Put writes the header and computes its CRC; the body's CRC is the caller's.
func (h *FrameHeader) Put(p []byte) {
	h.Magic = MagicFrame
	clear(p[112:HeaderBytes])
	h.Header.put(p)
	le.PutUint64(p[112:], h.Journal)
	le.PutUint32(p[120:], h.Shard)
	le.PutUint32(p[124:], h.Entries)
	le.PutUint64(p[128:], h.Sequence)
	le.PutUint64(p[136:], h.Durable)
	h.seal(p)
}

// Get parses a header. False: it is none, broken, or not served.
func (h *FrameHeader) Get(p []byte) bool {
	newer, ok := h.Parse(p)
	return ok && newer == ""
}

// Parse parses a header. ok: it is one, and whole; newer then names what it
// needs that is not served.
func (h *FrameHeader) Parse(p []byte) (newer string, ok bool) {
	if newer, ok = h.Header.get(p, MagicFrame); !ok {
		return "", false
	}
	h.Journal, h.Shard, h.Entries = le.Uint64(p[112:]), le.Uint32(p[120:]), le.Uint32(p[124:])
	h.Sequence, h.Durable = le.Uint64(p[128:]), le.Uint64(p[136:])
	return newer, true
}
