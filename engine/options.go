package engine

import (
	"fmt"

	"github.com/tailbound/tailbound/engine/format"
)

// Options are the sizes of one shard's storage.
type Options struct {
	LogsMax        int
	SegmentBytes   int
	JournalBytes   int
	LogMemoryBytes int // at most; less where the arena has less left
	BatchBytesMax  int
	SpareBytes     int64  // of files that logs let go, kept for their next segments; default 2 GiB, negative: none
	PrepareBytes   int64  // of files of zeroes, written while nothing is appended and kept for the next segments of logs with large batches
	InflightMax    int    // frames, and runs of a log; default 2
	CheckLogs      int    // that a turn puts into a checkpoint; default 32, some 5 us
	CheckPauseNS   int64  // left to others until the next turn that does; default 50 us
	DirectBytes    int    // a batch so large is written to its log's segment at once; default 64 KiB, negative: never
	Files          uint32 // first file slot
	FilesMax       int
	Faults         Faults
}

// Complete fills in the defaults, and refuses sizes that nothing works with.
func (o *Options) Complete() error {
	if o.InflightMax == 0 {
		o.InflightMax = 2
	}
	if o.CheckLogs == 0 {
		o.CheckLogs = 32
	}
	if o.CheckPauseNS == 0 {
		o.CheckPauseNS = 50e3
	}
	if o.SpareBytes == 0 {
		o.SpareBytes = 2 << 30
	}
	if o.BatchBytesMax == 0 {
		o.BatchBytesMax = 1 << 20
	}
	if o.DirectBytes == 0 {
		o.DirectBytes = 64 << 10
	}
	if o.LogsMax < 1 || o.FilesMax < 16 || o.LogMemoryBytes < 1<<20 || o.JournalBytes < 1<<20 || o.SegmentBytes < 256<<10 {
		return fmt.Errorf("options %+v are too small", *o)
	}
	o.SegmentBytes = format.AlignBlock(max(o.SegmentBytes, 4*int(format.RoomFor(int64(o.entryBytesMax())))))
	// two of the largest frames always find a place, whatever the end wastes
	o.JournalBytes = format.AlignBlock(max(o.JournalBytes, 4*(o.entryBytesMax()+2*format.BlockBytes)))
	return nil
}

func (o *Options) entryBytesMax() int {
	return format.EntryHeaderBytes + format.Align8(o.BatchBytesMax)
}

// frameBytes is the size at which a frame is closed: one larger batch passes.
func (o *Options) frameBytes() int { return min(format.FrameBytesMax, o.JournalBytes/8) }

// RunBufferBytes is the size of the largest run, with its header and padding.
func (o *Options) RunBufferBytes() int {
	return format.AlignBlock(format.HeaderBytes + max(format.RunBytesMax, o.entryBytesMax()))
}

// slabBytes: at least one frame of one largest batch.
func (o *Options) slabBytes() int {
	n := 256 << 10
	for n < o.entryBytesMax()+2*format.BlockBytes {
		n <<= 1
	}
	for n < 4<<20 && n*16 <= o.LogMemoryBytes {
		n <<= 1
	}
	return n
}

func (o *Options) segmentsMax() int { return 2*o.LogsMax + 4096 }

// attachmentsBytes is what the attachments of all logs may take in a
// checkpoint; one log's may be as large.
func (o *Options) attachmentsBytes() int { return min(4<<20, max(1<<20, o.LogMemoryBytes/16)) }

func (o *Options) checkpointBytes() int {
	return format.AlignBlock(format.CheckpointHeaderBytes + o.LogsMax*(format.LogRecordBytes+checkpointEpochs*format.EpochRecordBytes) + o.segmentsMax()*format.SegmentRecordBytes + o.attachmentsBytes())
}

// Faults are planted bugs: tests turn one on to see that they would notice.
type Faults uint32

const (
	NoSync             Faults = 1 << iota // frames are written and never synced
	AckBeforeSync                         // a frame is durable when its write is
	NoEpoch                               // replay takes frames of any life
	StaleRunAccepted                      // opening believes runs past the checkpoint by their heads alone
	JournalReusedEarly                    // the journal is freed before the checkpoint that allows it is durable
	RunAckedAlone                         // a direct run is acknowledged though one before it is not durable
	GapIsRot                              // a hole that a power cut leaves is called rot
	CheckpointFromLate                    // a checkpoint replays from where its last log was put, not its first
	NoSyncAtOpen                          // opening syncs neither what it finds nor what it drains
)

// Has says whether x is on.
func (f Faults) Has(x Faults) bool { return f&x != 0 }
