package format

import (
	"fmt"
)

// CheckpointHeaderBytes is the length of a checkpoint's header; the body
// follows it.
const CheckpointHeaderBytes = 128

const (
	BatchHeaderBytes = 61                   // of a batch, kept in a checkpoint
	KeptHeaderBytes  = 8 + BatchHeaderBytes // as it is kept: end offset, header
)

// Checkpoint is the head of a checkpoint slot.
type Checkpoint struct {
	Directory [16]byte
	Epoch     uint32
	Shard     uint32
	Clean     bool
	Sequence  uint64
	Journal   uint64
	Block     uint64 // where replay begins
	Frame     uint64 // the sequence expected there
	Previous  uint32 // the chain there
	Durable   uint64 // frames known durable
	Logs      uint32
}

// Put completes the slot in p, whose body (bodyBytes) stands after the header.
func (c *Checkpoint) Put(p []byte, bodyBytes int) {
	clear(p[:CheckpointHeaderBytes])
	le.PutUint32(p, MagicCheckpoint)
	le.PutUint16(p[4:], Version)
	copy(p[16:], c.Directory[:])
	le.PutUint32(p[32:], c.Epoch)
	le.PutUint32(p[36:], uint32(bodyBytes))
	le.PutUint32(p[40:], c.Shard)
	le.PutUint32(p[48:], CRC(p[CheckpointHeaderBytes:CheckpointHeaderBytes+bodyBytes]))
	if c.Clean {
		le.PutUint32(p[52:], 1)
	}
	le.PutUint64(p[56:], c.Sequence)
	le.PutUint64(p[64:], c.Journal)
	le.PutUint64(p[72:], c.Block)
	le.PutUint64(p[80:], c.Frame)
	le.PutUint32(p[88:], c.Previous)
	le.PutUint32(p[92:], c.Logs)
	le.PutUint64(p[96:], c.Durable)
	le.PutUint32(p[44:], CRC(p[:CheckpointHeaderBytes]))
}

// Get parses the header; the caller then checks the body, which begins at
// headerBytes, against it. ok: it is one, and whole; newer then names what it
// needs that is not served.
func (c *Checkpoint) Get(p []byte) (headerBytes, bodyBytes int, bodyCRC uint32, newer string, ok bool) {
	if le.Uint32(p) != MagicCheckpoint {
		return 0, 0, 0, "", false
	}
	version, headerBytes := le.Uint16(p[4:]), CheckpointHeaderBytes
	if version != Version { // it says its length itself
		headerBytes = int(le.Uint16(p[6:]))
	}
	if headerBytes < CheckpointHeaderBytes || headerBytes > len(p) {
		return 0, 0, 0, "", false
	}
	crc := le.Uint32(p[44:])
	le.PutUint32(p[44:], 0)
	defer le.PutUint32(p[44:], crc)
	if CRC(p[:headerBytes]) != crc {
		return 0, 0, 0, "", false
	}
	copy(c.Directory[:], p[16:])
	c.Epoch, c.Shard, c.Clean = le.Uint32(p[32:]), le.Uint32(p[40:]), le.Uint32(p[52:])&1 != 0
	c.Sequence, c.Journal, c.Block, c.Frame = le.Uint64(p[56:]), le.Uint64(p[64:]), le.Uint64(p[72:]), le.Uint64(p[80:])
	c.Previous, c.Logs, c.Durable = le.Uint32(p[88:]), le.Uint32(p[92:]), le.Uint64(p[96:])
	if version != Version {
		newer = fmt.Sprintf("checkpoints of version %d", version)
	} else {
		newer = names(nil).first(le.Uint32(p[12:]), "checkpoints")
	}
	return headerBytes, int(le.Uint32(p[36:])), le.Uint32(p[48:]), newer, true
}

// The lengths of what a checkpoint's body is made of.
const (
	LogRecordBytes     = 80
	EpochRecordBytes   = 12
	SegmentRecordBytes = 48
)

// EpochStart says that records from Start on have a leader epoch.
type EpochStart struct {
	Epoch int32
	Start int64
}

// SegmentRecord is a segment as a checkpoint names it.
type SegmentRecord struct {
	Generation uint64
	Base, End  int64 // offsets drained into it; base == end: none yet
	Position   int64 // where its next run goes
	MaxTime    int64
	Chain      uint32 // header CRC of its last run, or of the last run before it
	Bytes      int64  // allocated, whole blocks
}

// LogRecord is a log as a checkpoint names it. On the wire: id 8, start 8, end
// 8, largest timestamp 8, base of its batch 8, rot from 8, rot to 8, chain 4,
// attachment bytes 4, segments 4, epochs 2, flags 2 (bit 0: direct),
// header bytes 4, 4 spare; epochs, segments, attachment, headers.
type LogRecord struct {
	ID                     uint64
	Start, End             int64 // end: drained and synced
	MaxTime, MaxTimeBase   int64
	CorruptFrom, CorruptTo int64 // acknowledged offsets that are lost; noOffset: none
	Direct                 bool  // direct runs were written in this life
	Chain                  uint32
	Epochs                 []EpochStart
	Segments               []SegmentRecord
	Attachment             []byte
	Headers                []byte // of batches after the attachment; only an opening writes any
}

// PutLogRecord writes the fixed part of a record; epochs, segments, attachment
// and headers follow it. It gives its length, as PutEpoch and PutSegment do.
func PutLogRecord(p []byte, l *LogRecord, epochs, segments int) int {
	le.PutUint64(p, l.ID)
	le.PutUint64(p[8:], uint64(l.Start))
	le.PutUint64(p[16:], uint64(l.End))
	le.PutUint64(p[24:], uint64(l.MaxTime))
	le.PutUint64(p[32:], uint64(l.MaxTimeBase))
	le.PutUint64(p[40:], uint64(l.CorruptFrom))
	le.PutUint64(p[48:], uint64(l.CorruptTo))
	le.PutUint32(p[56:], l.Chain)
	le.PutUint32(p[60:], uint32(len(l.Attachment)))
	le.PutUint32(p[64:], uint32(segments))
	le.PutUint16(p[68:], uint16(epochs))
	le.PutUint16(p[70:], 0)
	if l.Direct {
		le.PutUint16(p[70:], RecordDirect)
	}
	le.PutUint32(p[72:], uint32(len(l.Headers)))
	le.PutUint32(p[76:], 0)
	return LogRecordBytes
}

// PutEpoch writes one epoch of a record.
func PutEpoch(p []byte, e EpochStart) int {
	le.PutUint32(p, uint32(e.Epoch))
	le.PutUint64(p[4:], uint64(e.Start))
	return EpochRecordBytes
}

// PutSegment writes one segment of a record.
func PutSegment(p []byte, s *SegmentRecord) int {
	le.PutUint64(p, s.Generation)
	le.PutUint64(p[8:], uint64(s.Base))
	le.PutUint64(p[16:], uint64(s.End))
	le.PutUint64(p[24:], uint64(s.Position))
	le.PutUint64(p[32:], uint64(s.MaxTime))
	le.PutUint32(p[40:], s.Chain)
	le.PutUint32(p[44:], uint32(s.Bytes/BlockBytes))
	return SegmentRecordBytes
}

// GetLogRecords parses a checkpoint's body, whose CRC is known to be right. Its
// error is a Newer where a record needs what is not served.
func GetLogRecords(p []byte, n int) ([]*LogRecord, error) {
	logs := make([]*LogRecord, 0, n)
	for range n {
		if len(p) < LogRecordBytes {
			return nil, fmt.Errorf("it is shorter than its %d logs", n)
		}
		l := &LogRecord{
			ID: le.Uint64(p), Start: int64(le.Uint64(p[8:])), End: int64(le.Uint64(p[16:])),
			MaxTime: int64(le.Uint64(p[24:])), MaxTimeBase: int64(le.Uint64(p[32:])),
			CorruptFrom: int64(le.Uint64(p[40:])), CorruptTo: int64(le.Uint64(p[48:])), Chain: le.Uint32(p[56:]), Direct: le.Uint16(p[70:])&RecordDirect != 0,
		}
		if newer := recordFlags.first(uint32(le.Uint16(p[70:]))&^RecordDirect, "a log's record"); newer != "" {
			return nil, Newer(newer)
		}
		if le.Uint32(p[76:]) != 0 {
			return nil, Newer(replicas)
		}
		attachment, segments, epochs := int(le.Uint32(p[60:])), int(le.Uint32(p[64:])), int(le.Uint16(p[68:]))
		headers := int(le.Uint32(p[72:]))
		p = p[LogRecordBytes:]
		if len(p) < epochs*EpochRecordBytes+segments*SegmentRecordBytes+attachment+headers {
			return nil, fmt.Errorf("it is shorter than its log %d", l.ID)
		}
		for range epochs {
			l.Epochs = append(l.Epochs, EpochStart{int32(le.Uint32(p)), int64(le.Uint64(p[4:]))})
			p = p[EpochRecordBytes:]
		}
		for range segments {
			l.Segments = append(l.Segments, SegmentRecord{Generation: le.Uint64(p), Base: int64(le.Uint64(p[8:])), End: int64(le.Uint64(p[16:])),
				Position: int64(le.Uint64(p[24:])), MaxTime: int64(le.Uint64(p[32:])), Chain: le.Uint32(p[40:]), Bytes: int64(le.Uint32(p[44:])) * BlockBytes})
			p = p[SegmentRecordBytes:]
		}
		l.Attachment = append([]byte(nil), p[:attachment]...)
		l.Headers = append([]byte(nil), p[attachment:attachment+headers]...)
		p = p[attachment+headers:]
		logs = append(logs, l)
	}
	return logs, nil
}
