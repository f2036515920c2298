package format

import (
	"fmt"
)

// CheckpointHeaderBytes is the length of a checkpoint's header, which its body follows.
const CheckpointHeaderBytes = 128

const (
	BatchHeaderBytes = 61                   // of a Kafka batch
	KeptHeaderBytes  = 8 + BatchHeaderBytes // as LogRecord.Headers has it: end offset, header
)

// Checkpoint is the header of a checkpoint slot.
type Checkpoint struct {
	Directory [16]byte
	Epoch     uint32
	Shard     uint32
	Clean     bool
	Sequence  uint64
	Journal   uint64
	Block     uint64 // of the journal, where replay begins
	Frame     uint64 // the sequence of the frame there
	Previous  uint32 // the header CRC of the frame before that
	Durable   uint64 // the highest sequence known durable
	Logs      uint32
}

// Put writes the header of a slot whose body, of bodyBytes, is in place behind it.
func (c *Checkpoint) Put(buf []byte, bodyBytes int) {
	clear(buf[:CheckpointHeaderBytes])
	le.PutUint32(buf, MagicCheckpoint)
	le.PutUint16(buf[4:], Version)
	copy(buf[16:], c.Directory[:])
	le.PutUint32(buf[32:], c.Epoch)
	le.PutUint32(buf[36:], uint32(bodyBytes))
	le.PutUint32(buf[40:], c.Shard)
	le.PutUint32(buf[48:], CRC(buf[CheckpointHeaderBytes:CheckpointHeaderBytes+bodyBytes]))
	if c.Clean {
		le.PutUint32(buf[52:], 1)
	}
	le.PutUint64(buf[56:], c.Sequence)
	le.PutUint64(buf[64:], c.Journal)
	le.PutUint64(buf[72:], c.Block)
	le.PutUint64(buf[80:], c.Frame)
	le.PutUint32(buf[88:], c.Previous)
	le.PutUint32(buf[92:], c.Logs)
	le.PutUint64(buf[96:], c.Durable)
	le.PutUint32(buf[44:], CRC(buf[:CheckpointHeaderBytes]))
}

// Get parses the header. ok: it is one, and whole; newer then names what it needs of a
// later version, "" if nothing. The caller verifies the body, which begins at headerBytes,
// with bodyCRC.
func (c *Checkpoint) Get(buf []byte) (headerBytes, bodyBytes int, bodyCRC uint32, newer string, ok bool) {
	if le.Uint32(buf) != MagicCheckpoint {
		return 0, 0, 0, "", false
	}
	version, headerBytes := le.Uint16(buf[4:]), CheckpointHeaderBytes
	if version != Version { // a later version's header has its own length in it
		headerBytes = int(le.Uint16(buf[6:]))
	}
	if headerBytes < CheckpointHeaderBytes || headerBytes > len(buf) {
		return 0, 0, 0, "", false
	}
	crc := le.Uint32(buf[44:])
	le.PutUint32(buf[44:], 0)
	defer le.PutUint32(buf[44:], crc)
	if CRC(buf[:headerBytes]) != crc {
		return 0, 0, 0, "", false
	}
	copy(c.Directory[:], buf[16:])
	c.Epoch, c.Shard, c.Clean = le.Uint32(buf[32:]), le.Uint32(buf[40:]), le.Uint32(buf[52:])&1 != 0
	c.Sequence, c.Journal, c.Block, c.Frame = le.Uint64(buf[56:]), le.Uint64(buf[64:]), le.Uint64(buf[72:]), le.Uint64(buf[80:])
	c.Previous, c.Logs, c.Durable = le.Uint32(buf[88:]), le.Uint32(buf[92:]), le.Uint64(buf[96:])
	if version != Version {
		newer = fmt.Sprintf("checkpoints of version %d", version)
	} else {
		newer = names(nil).first(le.Uint32(buf[12:]), "checkpoints")
	}
	return headerBytes, int(le.Uint32(buf[36:])), le.Uint32(buf[48:]), newer, true
}

// The lengths of the parts of a checkpoint's body.
const (
	LogRecordBytes     = 80
	EpochRecordBytes   = 12
	HoleBytes          = 16
	SegmentRecordBytes = 48
)

// EpochStart is a leader epoch and the offset of its first record.
type EpochStart struct {
	Epoch int32
	Start int64
}

// EpochsMax is how many leader epochs of a log are kept: the last ones that have records.
const EpochsMax = 32

// AddEpoch adds a leader epoch, the newest, and drops the oldest one where there are too
// many.
func (l *LogRecord) AddEpoch(epoch EpochStart) {
	if len(l.Epochs) >= EpochsMax {
		l.Epochs = append(l.Epochs[:0], l.Epochs[len(l.Epochs)-EpochsMax+1:]...)
	}
	l.Epochs = append(l.Epochs, epoch)
}

// Hole is a range of a log's offsets, From to To - 1, whose acknowledged records are lost.
// From == To: the log's end, behind which an unknown number may be lost.
type Hole struct {
	From, To int64
}

// HolesMax bounds how many holes a log has.
const HolesMax = 64

// SegmentRecord is a segment in a checkpoint.
type SegmentRecord struct {
	Generation uint64
	Base, End  int64 // offsets of the records in it; base == end: none yet
	Position   int64 // of its next run
	MaxTime    int64
	Chain      uint32 // header CRC of its last run, or of the last run before it
	Bytes      int64  // allocated, whole blocks
}

// LogRecord is a log in a checkpoint.
//
//	0 id 8 | 8 start 8 | 16 end 8 | 24 largest timestamp 8 | 32 base of its batch 8
//	40 corrupt from 8 | 48 corrupt to 8 | 56 chain 4 | 60 attachment bytes 4 | 64 segments 4
//	68 epochs 2 | 70 flags 2 (bit 3: holes follow) | 72 header bytes 4 | 76 zero 4
//	80 epochs, holes, segments, attachment, headers
//
// A single hole is at 40 and 48 alone. Of several the first begins at 40 and the last one
// ends at 48, which ends the list.
type LogRecord struct {
	ID                     uint64
	Start, End             int64 // end: of what is synced in segments
	MaxTime, MaxTimeBase   int64
	CorruptFrom, CorruptTo int64        // where the first hole begins, and the last one ends; NoOffset: there is none
	Chain                  uint32       // header CRC of its last run
	Epochs                 []EpochStart // at most EpochsMax
	Holes                  []Hole       // in order; they do not touch each other
	Segments               []SegmentRecord
	Attachment             []byte
	Headers                []byte // of batches after the attachment; only recovery writes any
}

// PutLogRecord writes the fixed part of a record, and returns its length. The caller puts
// epochs, holes if there are several, segments, attachment and headers behind it.
func PutLogRecord(buf []byte, record *LogRecord, epochs, holes, segments int) int {
	le.PutUint64(buf, record.ID)
	le.PutUint64(buf[8:], uint64(record.Start))
	le.PutUint64(buf[16:], uint64(record.End))
	le.PutUint64(buf[24:], uint64(record.MaxTime))
	le.PutUint64(buf[32:], uint64(record.MaxTimeBase))
	le.PutUint64(buf[40:], uint64(record.CorruptFrom))
	le.PutUint64(buf[48:], uint64(record.CorruptTo))
	le.PutUint32(buf[56:], record.Chain)
	le.PutUint32(buf[60:], uint32(len(record.Attachment)))
	le.PutUint32(buf[64:], uint32(segments))
	le.PutUint16(buf[68:], uint16(epochs))
	flags := uint16(0)
	if holes > 1 {
		flags |= RecordHoles
	}
	le.PutUint16(buf[70:], flags)
	le.PutUint32(buf[72:], uint32(len(record.Headers)))
	le.PutUint32(buf[76:], 0)
	return LogRecordBytes
}

// PutEpoch writes one epoch of a record, and returns its length.
func PutEpoch(buf []byte, epoch EpochStart) int {
	le.PutUint32(buf, uint32(epoch.Epoch))
	le.PutUint64(buf[4:], uint64(epoch.Start))
	return EpochRecordBytes
}

// PutHole writes one hole of a record, and returns its length.
func PutHole(buf []byte, hole Hole) int {
	le.PutUint64(buf, uint64(hole.From))
	le.PutUint64(buf[8:], uint64(hole.To))
	return HoleBytes
}

// PutSegment writes one segment of a record, and returns its length.
func PutSegment(buf []byte, segment *SegmentRecord) int {
	le.PutUint64(buf, segment.Generation)
	le.PutUint64(buf[8:], uint64(segment.Base))
	le.PutUint64(buf[16:], uint64(segment.End))
	le.PutUint64(buf[24:], uint64(segment.Position))
	le.PutUint64(buf[32:], uint64(segment.MaxTime))
	le.PutUint32(buf[40:], segment.Chain)
	le.PutUint32(buf[44:], uint32(segment.Bytes/BlockBytes))
	return SegmentRecordBytes
}

// GetLogRecords parses a checkpoint's body of n logs, whose CRC is known to be right. The
// error is a Newer if a record needs a later version.
func GetLogRecords(buf []byte, n int) ([]*LogRecord, error) {
	logs := make([]*LogRecord, 0, n)
	for range n {
		if len(buf) < LogRecordBytes {
			return nil, fmt.Errorf("it is shorter than its %d logs", n)
		}
		flags := le.Uint16(buf[70:])
		record := &LogRecord{
			ID: le.Uint64(buf), Start: int64(le.Uint64(buf[8:])), End: int64(le.Uint64(buf[16:])),
			MaxTime: int64(le.Uint64(buf[24:])), MaxTimeBase: int64(le.Uint64(buf[32:])),
			CorruptFrom: int64(le.Uint64(buf[40:])), CorruptTo: int64(le.Uint64(buf[48:])), Chain: le.Uint32(buf[56:]),
		}
		if newer := recordFlags.first(uint32(flags)&^(RecordDirect|RecordHoles), "a log's record"); newer != "" {
			return nil, Newer(newer)
		}
		if le.Uint32(buf[76:]) != 0 {
			return nil, Newer(replicas)
		}
		attachment, segments, epochs := int(le.Uint32(buf[60:])), int(le.Uint32(buf[64:])), int(le.Uint16(buf[68:]))
		headers := int(le.Uint32(buf[72:]))
		buf = buf[LogRecordBytes:]
		if len(buf) < epochs*EpochRecordBytes+segments*SegmentRecordBytes+attachment+headers {
			return nil, fmt.Errorf("it is shorter than its log %d", record.ID)
		}
		for range epochs {
			record.AddEpoch(EpochStart{int32(le.Uint32(buf)), int64(le.Uint64(buf[4:]))}) // a start of an earlier version may have left more than EpochsMax
			buf = buf[EpochRecordBytes:]
		}
		switch {
		case flags&RecordHoles != 0:
			if buf = record.getHoles(buf); buf == nil {
				return nil, fmt.Errorf("the holes of its log %d are in no order", record.ID)
			}
			if len(buf) < segments*SegmentRecordBytes+attachment+headers {
				return nil, fmt.Errorf("it is shorter than its log %d", record.ID)
			}
		case record.CorruptFrom != NoOffset:
			record.Holes = []Hole{{record.CorruptFrom, record.CorruptTo}}
		}
		for range segments {
			record.Segments = append(record.Segments, SegmentRecord{Generation: le.Uint64(buf), Base: int64(le.Uint64(buf[8:])), End: int64(le.Uint64(buf[16:])),
				Position: int64(le.Uint64(buf[24:])), MaxTime: int64(le.Uint64(buf[32:])), Chain: le.Uint32(buf[40:]), Bytes: int64(le.Uint32(buf[44:])) * BlockBytes})
			buf = buf[SegmentRecordBytes:]
		}
		record.Attachment = append([]byte(nil), buf[:attachment]...)
		record.Headers = append([]byte(nil), buf[attachment:attachment+headers]...)
		buf = buf[attachment+headers:]
		logs = append(logs, record)
	}
	return logs, nil
}

// getHoles parses the list of holes, up to the one that ends where the last one does, and
// returns what follows it. nil: it is no such list.
func (r *LogRecord) getHoles(buf []byte) []byte {
	for before := int64(-1); len(r.Holes) < HolesMax && len(buf) >= HoleBytes; {
		hole := Hole{int64(le.Uint64(buf)), int64(le.Uint64(buf[8:]))}
		if hole.From <= before || hole.To < hole.From || len(r.Holes) == 0 && hole.From != r.CorruptFrom {
			return nil
		}
		r.Holes, buf, before = append(r.Holes, hole), buf[HoleBytes:], hole.To
		if hole.To == r.CorruptTo {
			return buf
		}
	}
	return nil
}
