package format

// Sizes in the index block.
const (
	IndexEntriesMax  = 64
	IndexHeaderBytes = 128
	IndexEntryBytes  = 24
)

// IndexHeader is the header of the block behind the last run of a segment, which says where
// some of the runs begin. It is a hint.
//
//	0 magic 4 | 4 version 2 | 6 entries 2 | 8 generation 8 | 16 log id 8 | 24 position of this block 8
//	32 directory id 16 | 48 stride 8 | 56 zero | 128 entries: base 8, position 8, largest time before 8
//	4092 CRC of bytes 0-4091
type IndexHeader struct {
	Directory  [16]byte
	Generation uint64
	Log        uint64
	Position   int64
	Stride     int64 // the least distance of two entries, in bytes
	Entries    int
}

// IndexEntry is where a run begins.
type IndexEntry struct {
	Base     int64
	Position int64 // of the run in the segment
	Before   int64 // largest timestamp of all runs before it in the segment
}

// Put writes the block, with these entries; x.Entries is not read.
func (x *IndexHeader) Put(buf []byte, entries []IndexEntry) {
	clear(buf[:BlockBytes])
	le.PutUint32(buf, MagicIndex)
	le.PutUint16(buf[4:], Version)
	le.PutUint16(buf[6:], uint16(len(entries)))
	le.PutUint64(buf[8:], x.Generation)
	le.PutUint64(buf[16:], x.Log)
	le.PutUint64(buf[24:], uint64(x.Position))
	copy(buf[32:], x.Directory[:])
	le.PutUint64(buf[48:], uint64(x.Stride))
	at := IndexHeaderBytes
	for _, entry := range entries {
		le.PutUint64(buf[at:], uint64(entry.Base))
		le.PutUint64(buf[at+8:], uint64(entry.Position))
		le.PutUint64(buf[at+16:], uint64(entry.Before))
		at += IndexEntryBytes
	}
	le.PutUint32(buf[BlockBytes-4:], CRC(buf[:BlockBytes-4]))
}

// Get parses the block's header. False: it is no index, or it is broken.
func (x *IndexHeader) Get(buf []byte) bool {
	x.Entries = int(le.Uint16(buf[6:]))
	if le.Uint32(buf) != MagicIndex || le.Uint16(buf[4:]) != Version || x.Entries > IndexEntriesMax || le.Uint32(buf[BlockBytes-4:]) != CRC(buf[:BlockBytes-4]) {
		return false
	}
	x.Directory, x.Generation, x.Log = [16]byte(buf[32:48]), le.Uint64(buf[8:]), le.Uint64(buf[16:])
	x.Position, x.Stride = int64(le.Uint64(buf[24:])), int64(le.Uint64(buf[48:]))
	return true
}

// IndexEntryAt is entry i of the block.
func IndexEntryAt(buf []byte, i int) IndexEntry {
	buf = buf[IndexHeaderBytes+i*IndexEntryBytes:]
	return IndexEntry{Base: int64(le.Uint64(buf)), Position: int64(le.Uint64(buf[8:])), Before: int64(le.Uint64(buf[16:]))}
}
