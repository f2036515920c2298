package format

import "fmt"

const (
	SuperblockBytes = 2 * BlockBytes // both slots
	ShardsMax       = 254            // the control shard included
)

// Superblock is what the data directory says of itself: two slots written in
// turn. Writing it is the commit point of an opening.
type Superblock struct {
	Directory [16]byte
	Epoch     uint32
	Shards    uint32 // the control shard included
	Sequence  uint64
	BatchMax  uint32 // BatchBytesMax of the life that allowed most: no batch here is larger
	WrittenBy Release
}

// Put writes one slot.
func (s *Superblock) Put(p []byte) {
	clear(p[:BlockBytes])
	le.PutUint32(p, MagicSuperblock)
	le.PutUint16(p[4:], Version)
	copy(p[16:], s.Directory[:])
	le.PutUint32(p[32:], s.Epoch)
	le.PutUint32(p[36:], s.Shards)
	le.PutUint64(p[40:], s.Sequence)
	le.PutUint32(p[48:], s.BatchMax)
	le.PutUint32(p[56:], uint32(s.WrittenBy))
	le.PutUint32(p[BlockBytes-4:], CRC(p[:BlockBytes-4]))
}

// Get parses one slot. ok: it is one, and whole; newer then names what it needs
// that is not served.
func (s *Superblock) Get(p []byte) (newer string, ok bool) {
	if le.Uint32(p) != MagicSuperblock || CRC(p[:BlockBytes-4]) != le.Uint32(p[BlockBytes-4:]) {
		return "", false
	}
	copy(s.Directory[:], p[16:])
	s.Epoch, s.Shards, s.Sequence, s.BatchMax = le.Uint32(p[32:]), le.Uint32(p[36:]), le.Uint64(p[40:]), le.Uint32(p[48:])
	s.WrittenBy = Release(le.Uint32(p[56:]))
	if version := le.Uint16(p[4:]); version != Version {
		return fmt.Sprintf("format version %d", version), true
	}
	if newer = superblockNeeds.first(le.Uint32(p[12:]), "the superblock"); newer != "" {
		return newer, true
	}
	return "", s.Shards >= 1 && s.Shards <= ShardsMax
}

// Release is a version of Tailbound, as a superblock says by which it was
// written: 10,000 for each major version, 100 for each minor one. Nothing
// depends on it but what is said of a directory; 0 is a version before 0.2.
type Release uint32

// ThisRelease is the release that this code becomes.
const ThisRelease Release = 200

// String is "0.2.0"; "" where it is not known.
func (r Release) String() string {
	if r == 0 {
		return ""
	}
	return fmt.Sprintf("%d.%d.%d", r/10_000, r/100%100, r%100)
}
