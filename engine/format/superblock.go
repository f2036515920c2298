package format

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
	le.PutUint32(p[BlockBytes-4:], CRC(p[:BlockBytes-4]))
}

// Get parses one slot. False: it is none, or broken.
func (s *Superblock) Get(p []byte) bool {
	if le.Uint32(p) != MagicSuperblock || CRC(p[:BlockBytes-4]) != le.Uint32(p[BlockBytes-4:]) || le.Uint16(p[4:]) != Version || le.Uint32(p[12:]) != 0 {
		return false
	}
	copy(s.Directory[:], p[16:])
	s.Epoch, s.Shards, s.Sequence, s.BatchMax = le.Uint32(p[32:]), le.Uint32(p[36:]), le.Uint64(p[40:]), le.Uint32(p[48:])
	return s.Shards >= 1 && s.Shards <= ShardsMax
}
