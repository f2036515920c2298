package format

// The index block: how many entries, and their lengths.
const (
	IndexEntriesMax  = 64 // at most
	IndexHeaderBytes = 128
	IndexEntryBytes  = 24
)

// IndexHeader heads the block that stands behind the last run of a segment
// and says where some of its runs begin. It is a hint.
//
//	0 magic 4 | 4 version 2 | 6 entries 2 | 8 generation 8 | 16 log id 8 | 24 position 8: its own
//	32 directory id 16 | 48 stride 8 | 56 zero | 128 entries: base 8, position 8, largest time before 8
//	4092 CRC of bytes 0-4091
type IndexHeader struct {
	Directory  [16]byte
	Generation uint64
	Log        uint64
	Position   int64
	Stride     int64 // at least so many bytes lie between two entries
	Entries    int
}

// IndexEntry says where a run begins; before is the largest time of all runs
// before it in the segment.
type IndexEntry struct {
	Base     int64
	Position int64
	Before   int64
}

// Put writes the block into p; of x it reads all but the number of entries.
func (x *IndexHeader) Put(p []byte, entries []IndexEntry) {
	clear(p[:BlockBytes])
	le.PutUint32(p, MagicIndex)
	le.PutUint16(p[4:], Version)
	le.PutUint16(p[6:], uint16(len(entries)))
	le.PutUint64(p[8:], x.Generation)
	le.PutUint64(p[16:], x.Log)
	le.PutUint64(p[24:], uint64(x.Position))
	copy(p[32:], x.Directory[:])
	le.PutUint64(p[48:], uint64(x.Stride))
	at := IndexHeaderBytes
	for _, y := range entries {
		le.PutUint64(p[at:], uint64(y.Base))
		le.PutUint64(p[at+8:], uint64(y.Position))
		le.PutUint64(p[at+16:], uint64(y.Before))
		at += IndexEntryBytes
	}
	le.PutUint32(p[BlockBytes-4:], CRC(p[:BlockBytes-4]))
}

// Get parses the block. False: it is no index.
func (x *IndexHeader) Get(p []byte) bool {
	x.Entries = int(le.Uint16(p[6:]))
	if le.Uint32(p) != MagicIndex || le.Uint16(p[4:]) != Version || x.Entries > IndexEntriesMax || le.Uint32(p[BlockBytes-4:]) != CRC(p[:BlockBytes-4]) {
		return false
	}
	x.Directory, x.Generation, x.Log = [16]byte(p[32:48]), le.Uint64(p[8:]), le.Uint64(p[16:])
	x.Position, x.Stride = int64(le.Uint64(p[24:])), int64(le.Uint64(p[48:]))
	return true
}

// IndexEntryAt is entry i of the block.
func IndexEntryAt(p []byte, i int) IndexEntry {
	p = p[IndexHeaderBytes+i*IndexEntryBytes:]
	return IndexEntry{Base: int64(le.Uint64(p)), Position: int64(le.Uint64(p[8:])), Before: int64(le.Uint64(p[16:]))}
}
