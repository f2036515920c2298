package format

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/tailbound/tailbound/mem"
)

// BlockBytes is the unit in which files are written and laid out.
const BlockBytes = mem.BlockBytes

// Version is the version of every structure here.
const Version = 1

// The first four bytes of each structure, as little-endian numbers.
const (
	MagicFrame      = 0x52464254 // "TBFR"
	MagicRun        = 0x4e524254 // "TBRN"
	MagicCheckpoint = 0x4b434254 // "TBCK"
	MagicSuperblock = 0x42534254 // "TBSB"
	MagicIndex      = 0x58494254 // "TBIX"
)

// AlignBlock rounds up to a multiple of BlockBytes.
func AlignBlock(n int) int { return (n + BlockBytes - 1) &^ (BlockBytes - 1) }

// Align8 rounds up to a multiple of 8, to which entries are padded.
func Align8(n int) int { return (n + 7) &^ 7 }

var le = binary.LittleEndian

// CRC is the CRC-32C of some bytes, the algorithm of every checksum here.
func CRC(buf []byte) uint32 { return crc32.Checksum(buf, castagnoli) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// JournalID is different for every epoch and shard, so that neither a client's bytes nor a
// frame of an earlier epoch can be taken for a frame of this one.
func JournalID(directory [16]byte, epoch uint32, shard int) uint64 {
	mixed := le.Uint64(directory[:]) ^ le.Uint64(directory[8:])*0x9e3779b97f4a7c15 ^ uint64(epoch)<<32 ^ uint64(shard)
	mixed = (mixed ^ mixed>>30) * 0xbf58476d1ce4e5b9
	mixed = (mixed ^ mixed>>27) * 0x94d049bb133111eb
	return mixed ^ mixed>>31
}

// RoomFor bounds what entries of so many bytes take as runs. Each run costs a header and
// its padding, and two runs in sequence hold more than FlushBytesMax: otherwise they
// would have been one.
func RoomFor(bytes int64) int64 {
	return bytes + (bytes/(FlushBytesMax/2)+2)*(HeaderBytes+BlockBytes)
}

// NoOffset is the absence of an offset; every real one is greater.
const NoOffset = int64(-1)

// NoTime is the absence of a timestamp; every real one is greater.
const NoTime = -1 << 63
