package format

const (
	RunBytesMax   = 1 << 20   // a run is at most this, or one larger batch
	FlushBytesMax = 256 << 10 // and one that copies from the journal this, as it is in nobody's way
)

// RunHeader: 112 log id 8 | 120 generation 8 | 128 base 8 | 136 end 8 | 144 count 4 | 148 kind 4 (1: data)
// | 152 largest timestamp 8 | 160 base of its batch 8 | 168 the log's durable offset 8 | 176 batches 4
type RunHeader struct {
	Header
	Log         uint64
	Generation  uint64
	Base, End   int64 // end: one past the last offset
	MaxTime     int64
	MaxTimeBase int64
	Durable     int64
	Batches     uint32
}

// Add counts a batch that follows what the run holds.
func (h *RunHeader) Add(base int64, count uint32, maxTime int64) {
	if maxTime > h.MaxTime || h.Batches == 0 {
		h.MaxTime, h.MaxTimeBase = maxTime, base
	}
	h.End = base + int64(count)
	h.Batches++
}

// Put writes the header and computes its CRC; the body's CRC is the caller's.
func (h *RunHeader) Put(p []byte) {
	h.Magic = MagicRun
	clear(p[112:HeaderBytes])
	h.Header.put(p)
	le.PutUint64(p[112:], h.Log)
	le.PutUint64(p[120:], h.Generation)
	le.PutUint64(p[128:], uint64(h.Base))
	le.PutUint64(p[136:], uint64(h.End))
	le.PutUint32(p[144:], uint32(h.End-h.Base))
	le.PutUint32(p[148:], RunData)
	le.PutUint64(p[152:], uint64(h.MaxTime))
	le.PutUint64(p[160:], uint64(h.MaxTimeBase))
	le.PutUint64(p[168:], uint64(h.Durable))
	le.PutUint32(p[176:], h.Batches)
	h.seal(p)
}

// Get parses a header. False: it is none, broken, or not served.
func (h *RunHeader) Get(p []byte) bool {
	newer, ok := h.Parse(p)
	return ok && newer == ""
}

// Parse parses a header. ok: it is one, and whole; newer then names what it
// needs that is not served.
func (h *RunHeader) Parse(p []byte) (newer string, ok bool) {
	if newer, ok = h.Header.get(p, MagicRun); !ok {
		return "", false
	}
	h.Log, h.Generation = le.Uint64(p[112:]), le.Uint64(p[120:])
	h.Base, h.End = int64(le.Uint64(p[128:])), int64(le.Uint64(p[136:]))
	h.MaxTime, h.MaxTimeBase = int64(le.Uint64(p[152:])), int64(le.Uint64(p[160:]))
	h.Durable, h.Batches = int64(le.Uint64(p[168:])), le.Uint32(p[176:])
	if newer == "" {
		newer = newerKind(le.Uint32(p[148:]))
	}
	return newer, newer != "" || h.End > h.Base
}

// Bytes is what the run takes in its file.
func (h *RunHeader) Bytes() int { return AlignBlock(HeaderBytes + int(h.BodyBytes)) }

// Whole says whether p, the body of the run h, is what was written: its CRC,
// and batches that follow each other from base to end.
func (h *RunHeader) Whole(p []byte) bool {
	if CRC(p) != h.BodyCRC {
		return false
	}
	next, batches := h.Base, uint32(0)
	for len(p) > 0 {
		var x Entry
		if !x.Get(p) || x.Bytes() > len(p) || x.Kind != EntryData || x.Flags != 0 || x.Base != next || x.Count == 0 || x.Log != h.Log {
			return false
		}
		next += int64(x.Count)
		batches++
		p = p[x.Bytes():]
	}
	return next == h.End && batches == h.Batches
}

// EachBatch gives each batch of a run's body, up to the first that is broken.
func EachBatch(body []byte, each func(batch []byte)) {
	for len(body) > 0 {
		var x Entry
		if !x.Get(body) || x.Bytes() > len(body) {
			return
		}
		each(body[EntryHeaderBytes : EntryHeaderBytes+int(x.Length)])
		body = body[x.Bytes():]
	}
}
