package format

import "fmt"

const (
	SuperblockBytes = 2 * BlockBytes // of both slots
	ShardsMax       = 254            // the control shard included
)

// Superblock is the root of a data directory, in two slots that are written in turn. Writing
// it is the commit point of an opening.
type Superblock struct {
	Directory   [16]byte
	Epoch       uint32
	Shards      uint32 // the control shard included
	Sequence    uint64
	BatchMax    uint32 // the largest BatchBytesMax of all epochs: no batch here is larger
	InflightMax uint32 // the largest InflightMax of all epochs that said theirs; 0: none did
	WrittenBy   Release
	Needs       uint32 // incompatible feature bits
}

// Put writes one slot.
func (s *Superblock) Put(buf []byte) {
	clear(buf[:BlockBytes])
	le.PutUint32(buf, MagicSuperblock)
	le.PutUint16(buf[4:], Version)
	le.PutUint32(buf[12:], s.Needs)
	copy(buf[16:], s.Directory[:])
	le.PutUint32(buf[32:], s.Epoch)
	le.PutUint32(buf[36:], s.Shards)
	le.PutUint64(buf[40:], s.Sequence)
	le.PutUint32(buf[48:], s.BatchMax)
	le.PutUint32(buf[52:], s.InflightMax)
	le.PutUint32(buf[56:], uint32(s.WrittenBy))
	le.PutUint32(buf[BlockBytes-4:], CRC(buf[:BlockBytes-4]))
}

// Get parses one slot. ok: it is one, and whole; newer then names what it needs of a later
// version, "" if nothing.
func (s *Superblock) Get(buf []byte) (newer string, ok bool) {
	if le.Uint32(buf) != MagicSuperblock || CRC(buf[:BlockBytes-4]) != le.Uint32(buf[BlockBytes-4:]) {
		return "", false
	}
	copy(s.Directory[:], buf[16:])
	s.Epoch, s.Shards, s.Sequence, s.BatchMax = le.Uint32(buf[32:]), le.Uint32(buf[36:]), le.Uint64(buf[40:]), le.Uint32(buf[48:])
	s.InflightMax, s.WrittenBy, s.Needs = le.Uint32(buf[52:]), Release(le.Uint32(buf[56:])), le.Uint32(buf[12:])
	if version := le.Uint16(buf[4:]); version != Version {
		return fmt.Sprintf("format version %d", version), true
	}
	if newer = superblockNeeds.first(s.Needs&^NeedsServed, "the superblock"); newer != "" {
		return newer, true
	}
	return "", s.Shards >= 1 && s.Shards <= ShardsMax
}

// Release is the version of Tailbound that wrote a superblock: 10,000 for each major version,
// 100 for each minor one; 0 before 0.2. It is only for texts about a directory.
type Release uint32

// ThisRelease is the release of this code.
const ThisRelease Release = 200

// String is "0.2.0", or "" if it is not known.
func (r Release) String() string {
	if r == 0 {
		return ""
	}
	return fmt.Sprintf("%d.%d.%d", r/10_000, r/100%100, r%100)
}
