package format

const (
	RunBytesMax   = 1 << 20   // bounds a run that is not one larger batch
	FlushBytesMax = 256 << 10 // ... that was copied from the journal: smaller, as no append waits for it
)

// RunTimesChecked is a compatible feature bit of a run: each of its records has a timestamp,
// none is newer than the largest, and the broker has checked that.
const RunTimesChecked = 1 << 0

// RunHeader is the header of a run, behind the common part:
//
//	112 log id 8 | 120 generation 8 | 128 base 8 | 136 end 8 | 144 count 4 | 148 kind 4 (1: data)
//	| 152 largest timestamp 8 | 160 base of its batch 8 | 168 the log's durable offset 8 | 176 batches 4
type RunHeader struct {
	Header
	Log         uint64
	Generation  uint64
	Base, End   int64 // end: one past the last offset
	MaxTime     int64
	MaxTimeBase int64
	Durable     int64
	Batches     uint32
	// TimesChecked is the feature bit RunTimesChecked.
	TimesChecked bool
}

// IsOf reports that the run is of that segment of that log, in that data directory.
func (h *RunHeader) IsOf(directory [16]byte, generation, log uint64) bool {
	return h.Directory == directory && h.Generation == generation && h.Log == log
}

// Add counts one more batch, which follows those that the run has.
func (h *RunHeader) Add(base int64, count uint32, maxTime int64, timesChecked bool) {
	h.TimesChecked = timesChecked && (h.TimesChecked || h.Batches == 0)
	if maxTime > h.MaxTime || h.Batches == 0 {
		h.MaxTime, h.MaxTimeBase = maxTime, base
	}
	h.End = base + int64(count)
	h.Batches++
}

// Put writes the header and computes its CRC; the body's CRC is the caller's.
func (h *RunHeader) Put(buf []byte) {
	h.Magic = MagicRun
	clear(buf[112:HeaderBytes])
	h.Compatible = 0
	if h.TimesChecked {
		h.Compatible = RunTimesChecked
	}
	h.Header.put(buf)
	le.PutUint64(buf[112:], h.Log)
	le.PutUint64(buf[120:], h.Generation)
	le.PutUint64(buf[128:], uint64(h.Base))
	le.PutUint64(buf[136:], uint64(h.End))
	le.PutUint32(buf[144:], uint32(h.End-h.Base))
	le.PutUint32(buf[148:], RunData)
	le.PutUint64(buf[152:], uint64(h.MaxTime))
	le.PutUint64(buf[160:], uint64(h.MaxTimeBase))
	le.PutUint64(buf[168:], uint64(h.Durable))
	le.PutUint32(buf[176:], h.Batches)
	h.seal(buf)
}

// Get parses a header. False: it is none, it is broken, or it needs a later version.
func (h *RunHeader) Get(buf []byte) bool {
	newer, ok := h.Parse(buf)
	return ok && newer == ""
}

// Parse parses a header. ok: it is one, and whole; newer then names what it needs of a
// later version, "" if nothing.
func (h *RunHeader) Parse(buf []byte) (newer string, ok bool) {
	if newer, ok = h.Header.get(buf, MagicRun); !ok {
		return "", false
	}
	h.Log, h.Generation = le.Uint64(buf[112:]), le.Uint64(buf[120:])
	h.Base, h.End = int64(le.Uint64(buf[128:])), int64(le.Uint64(buf[136:]))
	h.MaxTime, h.MaxTimeBase = int64(le.Uint64(buf[152:])), int64(le.Uint64(buf[160:]))
	h.TimesChecked = h.Compatible&RunTimesChecked != 0
	h.Durable, h.Batches = int64(le.Uint64(buf[168:])), le.Uint32(buf[176:])
	if newer == "" {
		newer = newerKind(le.Uint32(buf[148:]))
	}
	return newer, newer != "" || h.End > h.Base
}

// Bytes is the size of the run in its file, with its padding.
func (h *RunHeader) Bytes() int { return AlignBlock(HeaderBytes + int(h.BodyBytes)) }

// Whole reports whether a run's body is what was written: its CRC is right, and its batches
// follow each other from base to end.
func (h *RunHeader) Whole(buf []byte) bool {
	if CRC(buf) != h.BodyCRC {
		return false
	}
	next, batches := h.Base, uint32(0)
	for len(buf) > 0 {
		var entry Entry
		if !entry.Get(buf) || entry.Bytes() > len(buf) || entry.Kind != EntryData || entry.Flags != 0 || entry.Base != next || entry.Count == 0 || entry.Log != h.Log {
			return false
		}
		next += int64(entry.Count)
		batches++
		buf = buf[entry.Bytes():]
	}
	return next == h.End && batches == h.Batches
}

// EachBatch calls each with every batch of a run's body, up to the first broken one.
func EachBatch(body []byte, each func(batch []byte)) {
	for len(body) > 0 {
		var entry Entry
		if !entry.Get(body) || entry.Bytes() > len(body) {
			return
		}
		each(body[EntryHeaderBytes : EntryHeaderBytes+int(entry.Length)])
		body = body[entry.Bytes():]
	}
}
