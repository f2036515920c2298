package engine

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/tailbound/tailbound/mem"
)

// The bytes on disk. docs/FORMAT.md is the prose of this file.

const (
	blockBytes    = mem.BlockBytes
	formatVersion = 1
	magicFrame    = 0x52464254 // "TBFR"
	magicRun      = 0x4e524254 // "TBRN"
	magicCheck    = 0x4b434254 // "TBCK"
	magicSuper    = 0x42534254 // "TBSB"
	magicIndex    = 0x58494254 // "TBIX"
	pieceHeader   = 256        // of frames and runs
	entryHeader   = 64         // of a frame's entries and of a run's batches
	runBytesMax   = 1 << 20    // a run is at most this, or one larger batch
	drainBytesMax = 256 << 10  // and one that copies from the journal this, as it is in nobody's way
	frameBytesMax = 1 << 20    // a frame that reached this is closed
	checkHeader   = 128
	superBytes    = 2 * blockBytes
	shardsMax     = 254
	recoveryShard = 0xff            // in the generations of files that opening makes
	HeaderBytes   = 61              // of a batch that recovery hands back
	keptHeader    = 8 + HeaderBytes // in a checkpoint: end offset, header
	epochsPerLog  = 32
	noOffset      = int64(-1)
)

// Kinds of entries in a frame. A kind that is not one of these is refused.
const (
	entryData       = 1
	entryAssigned   = 2 // aux: the segment's generation
	entryReleased   = 3 // reserved
	entryOpened     = 4
	entryClosed     = 5
	entryStartMoved = 6 // base: the new start
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func crcOf(p []byte) uint32 { return crc32.Checksum(p, castagnoli) }

var le = binary.LittleEndian

func alignBlock(n int) int { return (n + blockBytes - 1) &^ (blockBytes - 1) }
func align8(n int) int     { return (n + 7) &^ 7 }

// piece is the header that frames and runs have in common.
//
//	0 magic 4 | 4 version 2 | 6 header length 2 | 8 compatible features 4 | 12 incompatible features 4
//	16 directory id 16 | 32 epoch 4 | 36 body length 4 | 40 algorithm 2, flags 2 | 44 header CRC 4
//	48 body CRC 4 | 52 header CRC of the one before 4 | 56 reserved: key id 4, nonce 12, tag 16
//	88 reserved: term 8, first index 8, last index 8 | 112 of its own
type piece struct {
	magic     uint32
	directory [16]byte
	epoch     uint32
	bodyBytes uint32
	crc       uint32 // of the header; computed by put, checked by get
	bodyCRC   uint32
	previous  uint32
}

func (h *piece) put(p []byte) {
	clear(p[:112])
	le.PutUint32(p, h.magic)
	le.PutUint16(p[4:], formatVersion)
	le.PutUint16(p[6:], pieceHeader)
	copy(p[16:], h.directory[:])
	le.PutUint32(p[32:], h.epoch)
	le.PutUint32(p[36:], h.bodyBytes)
	le.PutUint32(p[48:], h.bodyCRC)
	le.PutUint32(p[52:], h.previous)
}

// seal computes the header's CRC, with the CRC's own field taken as zero.
func (h *piece) seal(p []byte) {
	le.PutUint32(p[44:], 0)
	h.crc = crcOf(p[:pieceHeader])
	le.PutUint32(p[44:], h.crc)
}

func (h *piece) get(p []byte, magic uint32) bool {
	if len(p) < pieceHeader || le.Uint32(p) != magic || le.Uint16(p[4:]) != formatVersion || le.Uint16(p[6:]) != pieceHeader || le.Uint32(p[12:]) != 0 {
		return false
	}
	h.magic, h.crc = magic, le.Uint32(p[44:])
	var zero [4]byte
	c := crc32.Update(0, castagnoli, p[:44])
	c = crc32.Update(c, castagnoli, zero[:])
	if crc32.Update(c, castagnoli, p[48:pieceHeader]) != h.crc {
		return false
	}
	copy(h.directory[:], p[16:])
	h.epoch, h.bodyBytes = le.Uint32(p[32:]), le.Uint32(p[36:])
	h.bodyCRC, h.previous = le.Uint32(p[48:]), le.Uint32(p[52:])
	return true
}

// frameHeader: 112 journal id 8 | 120 shard 4 | 124 entries 4 | 128 sequence 8
// | 136 durable 8: the highest sequence known durable when this was submitted.
type frameHeader struct {
	piece
	journal  uint64
	shard    uint32
	entries  uint32
	sequence uint64
	durable  uint64
}

func (h *frameHeader) put(p []byte) {
	h.magic = magicFrame
	clear(p[112:pieceHeader])
	h.piece.put(p)
	le.PutUint64(p[112:], h.journal)
	le.PutUint32(p[120:], h.shard)
	le.PutUint32(p[124:], h.entries)
	le.PutUint64(p[128:], h.sequence)
	le.PutUint64(p[136:], h.durable)
	h.seal(p)
}

func (h *frameHeader) get(p []byte) bool {
	if !h.piece.get(p, magicFrame) {
		return false
	}
	h.journal, h.shard, h.entries = le.Uint64(p[112:]), le.Uint32(p[120:]), le.Uint32(p[124:])
	h.sequence, h.durable = le.Uint64(p[128:]), le.Uint64(p[136:])
	return true
}

// entry heads each piece of a frame's and of a run's body; length bytes
// follow, padded to 8.
//
//	0 CRC of the rest 4 | 4 kind 2, flags 2 | 8 log id 8 | 16 base offset 8 | 24 count 4 | 28 length 4
//	32 batch CRC 4 | 36 slot 4 (of this life, informal) | 40 the log's durable offset at submission 8
//	48 largest timestamp 8 | 56 auxiliary 8
type entry struct {
	kind    uint16
	log     uint64
	base    int64
	count   uint32
	length  uint32
	crc     uint32
	slot    uint32
	durable int64
	maxTime int64
	aux     uint64
}

func (h *entry) put(p []byte) {
	le.PutUint16(p[4:], h.kind)
	le.PutUint16(p[6:], 0)
	le.PutUint64(p[8:], h.log)
	le.PutUint64(p[16:], uint64(h.base))
	le.PutUint32(p[24:], h.count)
	le.PutUint32(p[28:], h.length)
	le.PutUint32(p[32:], h.crc)
	le.PutUint32(p[36:], h.slot)
	le.PutUint64(p[40:], uint64(h.durable))
	le.PutUint64(p[48:], uint64(h.maxTime))
	le.PutUint64(p[56:], h.aux)
	le.PutUint32(p, crcOf(p[4:entryHeader]))
}

// get parses the entry at the start of p. False: broken, or longer than p.
func (h *entry) get(p []byte) bool {
	if len(p) < entryHeader || crcOf(p[4:entryHeader]) != le.Uint32(p) {
		return false
	}
	h.read(p)
	return int64(h.length) <= int64(len(p)-entryHeader)
}

func (h *entry) read(p []byte) {
	h.kind, h.log, h.base = le.Uint16(p[4:]), le.Uint64(p[8:]), int64(le.Uint64(p[16:]))
	h.count, h.length, h.crc, h.slot = le.Uint32(p[24:]), le.Uint32(p[28:]), le.Uint32(p[32:]), le.Uint32(p[36:])
	h.durable, h.maxTime, h.aux = int64(le.Uint64(p[40:])), int64(le.Uint64(p[48:])), le.Uint64(p[56:])
}

// bytes is what the entry takes in a body.
func (h *entry) bytes() int { return entryHeader + align8(int(h.length)) }

// runHeader: 112 log id 8 | 120 generation 8 | 128 base 8 | 136 end 8 | 144 count 4 | 148 kind 4 (1: data)
// | 152 largest timestamp 8 | 160 base of its batch 8 | 168 the log's durable offset 8 | 176 batches 4
type runHeader struct {
	piece
	log         uint64
	generation  uint64
	base, end   int64 // end: one past the last offset
	maxTime     int64
	maxTimeBase int64
	durable     int64
	batches     uint32
}

func (h *runHeader) put(p []byte) {
	h.magic = magicRun
	clear(p[112:pieceHeader])
	h.piece.put(p)
	le.PutUint64(p[112:], h.log)
	le.PutUint64(p[120:], h.generation)
	le.PutUint64(p[128:], uint64(h.base))
	le.PutUint64(p[136:], uint64(h.end))
	le.PutUint32(p[144:], uint32(h.end-h.base))
	le.PutUint32(p[148:], 1)
	le.PutUint64(p[152:], uint64(h.maxTime))
	le.PutUint64(p[160:], uint64(h.maxTimeBase))
	le.PutUint64(p[168:], uint64(h.durable))
	le.PutUint32(p[176:], h.batches)
	h.seal(p)
}

func (h *runHeader) get(p []byte) bool {
	if !h.piece.get(p, magicRun) || le.Uint32(p[148:]) != 1 {
		return false
	}
	h.log, h.generation = le.Uint64(p[112:]), le.Uint64(p[120:])
	h.base, h.end = int64(le.Uint64(p[128:])), int64(le.Uint64(p[136:]))
	h.maxTime, h.maxTimeBase = int64(le.Uint64(p[152:])), int64(le.Uint64(p[160:]))
	h.durable, h.batches = int64(le.Uint64(p[168:])), le.Uint32(p[176:])
	return h.end > h.base
}

// bytes is what the run takes in its file.
func (h *runHeader) bytes() int { return alignBlock(pieceHeader + int(h.bodyBytes)) }

// superblock is what the data directory says of itself: two slots written in
// turn. Writing it is the commit point of an opening.
type superblock struct {
	directory [16]byte
	epoch     uint32
	shards    uint32 // the control shard included
	sequence  uint64
	batchMax  uint32 // BatchBytesMax of the life that allowed most: no batch here is larger
}

func (s *superblock) put(p []byte) {
	clear(p[:blockBytes])
	le.PutUint32(p, magicSuper)
	le.PutUint16(p[4:], formatVersion)
	copy(p[16:], s.directory[:])
	le.PutUint32(p[32:], s.epoch)
	le.PutUint32(p[36:], s.shards)
	le.PutUint64(p[40:], s.sequence)
	le.PutUint32(p[48:], s.batchMax)
	le.PutUint32(p[blockBytes-4:], crcOf(p[:blockBytes-4]))
}

func (s *superblock) get(p []byte) bool {
	if le.Uint32(p) != magicSuper || crcOf(p[:blockBytes-4]) != le.Uint32(p[blockBytes-4:]) || le.Uint16(p[4:]) != formatVersion || le.Uint32(p[12:]) != 0 {
		return false
	}
	copy(s.directory[:], p[16:])
	s.epoch, s.shards, s.sequence, s.batchMax = le.Uint32(p[32:]), le.Uint32(p[36:]), le.Uint64(p[40:]), le.Uint32(p[48:])
	return s.shards >= 1 && s.shards <= shardsMax
}

// checkpoint is the head of a checkpoint slot.
type checkpoint struct {
	directory [16]byte
	epoch     uint32
	shard     uint32
	clean     bool
	sequence  uint64
	journal   uint64
	block     uint64 // where replay begins
	frame     uint64 // the sequence expected there
	previous  uint32 // the chain there
	durable   uint64 // frames known durable
	logs      uint32
}

// put completes the slot in p, whose body (bodyBytes) stands after the header.
func (c *checkpoint) put(p []byte, bodyBytes int) {
	clear(p[:checkHeader])
	le.PutUint32(p, magicCheck)
	le.PutUint16(p[4:], formatVersion)
	copy(p[16:], c.directory[:])
	le.PutUint32(p[32:], c.epoch)
	le.PutUint32(p[36:], uint32(bodyBytes))
	le.PutUint32(p[40:], c.shard)
	le.PutUint32(p[48:], crcOf(p[checkHeader:checkHeader+bodyBytes]))
	if c.clean {
		le.PutUint32(p[52:], 1)
	}
	le.PutUint64(p[56:], c.sequence)
	le.PutUint64(p[64:], c.journal)
	le.PutUint64(p[72:], c.block)
	le.PutUint64(p[80:], c.frame)
	le.PutUint32(p[88:], c.previous)
	le.PutUint32(p[92:], c.logs)
	le.PutUint64(p[96:], c.durable)
	le.PutUint32(p[44:], crcOf(p[:checkHeader]))
}

// get parses the header; the caller then checks the body against it.
func (c *checkpoint) get(p []byte) (bodyBytes int, bodyCRC uint32, ok bool) {
	crc := le.Uint32(p[44:])
	le.PutUint32(p[44:], 0)
	defer le.PutUint32(p[44:], crc)
	if le.Uint32(p) != magicCheck || le.Uint16(p[4:]) != formatVersion || crcOf(p[:checkHeader]) != crc || le.Uint32(p[12:]) != 0 {
		return 0, 0, false
	}
	copy(c.directory[:], p[16:])
	c.epoch, c.shard, c.clean = le.Uint32(p[32:]), le.Uint32(p[40:]), le.Uint32(p[52:])&1 != 0
	c.sequence, c.journal, c.block, c.frame = le.Uint64(p[56:]), le.Uint64(p[64:]), le.Uint64(p[72:]), le.Uint64(p[80:])
	c.previous, c.logs, c.durable = le.Uint32(p[88:]), le.Uint32(p[92:]), le.Uint64(p[96:])
	return int(le.Uint32(p[36:])), le.Uint32(p[48:]), true
}

const (
	logRecordBytes   = 80
	epochRecordBytes = 12
	segRecordBytes   = 48
)

type epochStart struct {
	epoch int32
	start int64
}

// segRecord is a segment as a checkpoint names it.
type segRecord struct {
	generation uint64
	base, end  int64 // offsets drained into it; base == end: none yet
	position   int64 // where its next run goes
	maxTime    int64
	chain      uint32 // header CRC of its last run, or of the last run before it
	bytes      int64  // allocated, whole blocks
}

// logRecord is a log as a checkpoint names it. On the wire: id 8, start 8, end
// 8, largest timestamp 8, base of its batch 8, rot from 8, rot to 8, chain 4,
// attachment bytes 4, segments 4, epochs 2, flags 2 (bit 0: direct),
// header bytes 4, 4 spare; epochs, segments, attachment, headers.
type logRecord struct {
	id                   uint64
	start, end           int64 // end: drained and synced
	maxTime, maxTimeBase int64
	rotFrom, rotTo       int64 // acknowledged offsets that are lost; noOffset: none
	direct               bool  // direct runs were written in this life
	chain                uint32
	epochs               []epochStart
	segments             []segRecord
	attachment           []byte
	headers              []byte // of batches after the attachment; only an opening writes any
}

func putLogRecord(p []byte, l *logRecord, epochs, segments int) int {
	le.PutUint64(p, l.id)
	le.PutUint64(p[8:], uint64(l.start))
	le.PutUint64(p[16:], uint64(l.end))
	le.PutUint64(p[24:], uint64(l.maxTime))
	le.PutUint64(p[32:], uint64(l.maxTimeBase))
	le.PutUint64(p[40:], uint64(l.rotFrom))
	le.PutUint64(p[48:], uint64(l.rotTo))
	le.PutUint32(p[56:], l.chain)
	le.PutUint32(p[60:], uint32(len(l.attachment)))
	le.PutUint32(p[64:], uint32(segments))
	le.PutUint16(p[68:], uint16(epochs))
	le.PutUint16(p[70:], 0)
	if l.direct {
		le.PutUint16(p[70:], 1)
	}
	le.PutUint32(p[72:], uint32(len(l.headers)))
	le.PutUint32(p[76:], 0)
	return logRecordBytes
}

func putEpoch(p []byte, e epochStart) int {
	le.PutUint32(p, uint32(e.epoch))
	le.PutUint64(p[4:], uint64(e.start))
	return epochRecordBytes
}

func putSegment(p []byte, s *segRecord) int {
	le.PutUint64(p, s.generation)
	le.PutUint64(p[8:], uint64(s.base))
	le.PutUint64(p[16:], uint64(s.end))
	le.PutUint64(p[24:], uint64(s.position))
	le.PutUint64(p[32:], uint64(s.maxTime))
	le.PutUint32(p[40:], s.chain)
	le.PutUint32(p[44:], uint32(s.bytes/blockBytes))
	return segRecordBytes
}

// getLogRecords parses a checkpoint's body, whose CRC is known to be right.
func getLogRecords(p []byte, n int) ([]*logRecord, error) {
	logs := make([]*logRecord, 0, n)
	for range n {
		if len(p) < logRecordBytes {
			return nil, fmt.Errorf("engine: a checkpoint is shorter than its %d logs", n)
		}
		l := &logRecord{
			id: le.Uint64(p), start: int64(le.Uint64(p[8:])), end: int64(le.Uint64(p[16:])),
			maxTime: int64(le.Uint64(p[24:])), maxTimeBase: int64(le.Uint64(p[32:])),
			rotFrom: int64(le.Uint64(p[40:])), rotTo: int64(le.Uint64(p[48:])), chain: le.Uint32(p[56:]), direct: le.Uint16(p[70:])&1 != 0,
		}
		attachment, segments, epochs := int(le.Uint32(p[60:])), int(le.Uint32(p[64:])), int(le.Uint16(p[68:]))
		headers := int(le.Uint32(p[72:]))
		p = p[logRecordBytes:]
		if len(p) < epochs*epochRecordBytes+segments*segRecordBytes+attachment+headers {
			return nil, fmt.Errorf("engine: a checkpoint is shorter than its log %d", l.id)
		}
		for range epochs {
			l.epochs = append(l.epochs, epochStart{int32(le.Uint32(p)), int64(le.Uint64(p[4:]))})
			p = p[epochRecordBytes:]
		}
		for range segments {
			l.segments = append(l.segments, segRecord{generation: le.Uint64(p), base: int64(le.Uint64(p[8:])), end: int64(le.Uint64(p[16:])),
				position: int64(le.Uint64(p[24:])), maxTime: int64(le.Uint64(p[32:])), chain: le.Uint32(p[40:]), bytes: int64(le.Uint32(p[44:])) * blockBytes})
			p = p[segRecordBytes:]
		}
		l.attachment = append([]byte(nil), p[:attachment]...)
		l.headers = append([]byte(nil), p[attachment:attachment+headers]...)
		p = p[attachment+headers:]
		logs = append(logs, l)
	}
	return logs, nil
}

// journalID is unlike any other life's or shard's, so that no payload and no
// frame of an earlier life can be taken for a frame of this one.
func journalID(directory [16]byte, epoch uint32, shard int) uint64 {
	x := le.Uint64(directory[:]) ^ le.Uint64(directory[8:])*0x9e3779b97f4a7c15 ^ uint64(epoch)<<32 ^ uint64(shard)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

const hexDigits = "0123456789abcdef"

// segmentPathBytes is a segment's path with its NUL.
const segmentPathBytes = 26

// putSegmentPath writes segments/<generation> and a NUL.
func putSegmentPath(p []byte, generation uint64) {
	n := copy(p, "segments/")
	for i := range 16 {
		p[n+i] = hexDigits[generation>>(60-4*i)&15]
	}
	p[n+16] = 0
}

// roomFor is the most that n bytes of entries take as runs: each run costs a
// header and its padding, and two runs in sequence hold more than one is
// allowed to.
func roomFor(n int64) int64 {
	return n + (n/(drainBytesMax/2)+2)*(pieceHeader+blockBytes)
}

// whole says whether p, the body of the run h, is what was written: its CRC,
// and batches that follow each other from base to end.
func (h *runHeader) whole(p []byte) bool {
	if crcOf(p) != h.bodyCRC {
		return false
	}
	next, batches := h.base, uint32(0)
	for len(p) > 0 {
		var x entry
		if !x.get(p) || x.bytes() > len(p) || x.kind != entryData || x.base != next || x.count == 0 || x.log != h.log {
			return false
		}
		next += int64(x.count)
		batches++
		p = p[x.bytes():]
	}
	return next == h.end && batches == h.batches
}
