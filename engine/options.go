package engine

import (
	"fmt"

	"github.com/tailbound/tailbound/engine/format"
)

// Options are the sizes and bounds of one shard's storage.
type Options struct {
	LogsMax        int
	SegmentBytes   int
	JournalBytes   int
	LogMemoryBytes int // at most: less where the arena has less left
	BatchBytesMax  int
	// AttachmentsBytes bounds the attachments of all logs in a checkpoint, and that of one;
	// default 1 MiB.
	AttachmentsBytes int
	SpareBytes       int64  // of removed segments' files kept for new segments; default 2 GiB, negative: none
	PrepareBytes     int64  // of files prewritten with zeroes while nothing is appended, kept for new segments of logs with large batches
	InflightMax      int    // frames in flight, and extents of one log, at most InflightLimit; default 2
	CheckLogs        int    // logs that one turn adds to a checkpoint; default 32, some 5 us
	CheckPauseNS     int64  // between two turns that add to a checkpoint; default 50 us
	DirectBytes      int    // batches from this size on are written directly to their log's segment; default 64 KiB, negative: never
	Files            uint32 // first file slot of the ring
	FilesMax         int
	Faults           Faults
}

// InflightLimit is the largest InflightMax of any version: directories of versions before
// 0.2.0 do not say theirs.
const InflightLimit = 8

// Complete fills in the defaults, and refuses sizes that are too small to work.
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
	if o.AttachmentsBytes == 0 {
		o.AttachmentsBytes = 1 << 20
	}
	if o.DirectBytes == 0 {
		o.DirectBytes = 64 << 10
	}
	if o.LogsMax < 1 || o.FilesMax < 16 || o.LogMemoryBytes < 1<<20 || o.JournalBytes < 1<<20 || o.SegmentBytes < 256<<10 {
		return fmt.Errorf("options %+v are too small", *o)
	}
	if o.InflightMax < 1 || o.InflightMax > InflightLimit {
		return fmt.Errorf("%d frames in flight: there may be 1 to %d", o.InflightMax, InflightLimit)
	}
	o.SegmentBytes = format.AlignBlock(max(o.SegmentBytes, 4*int(format.RoomFor(int64(o.entryBytesMax())))))
	o.JournalBytes = format.AlignBlock(max(o.JournalBytes, o.journalBytesMin()))
	return nil
}

// journalBytesMin is the smallest journal: two of the largest frames always find a place
// in it, however much the end wastes.
func (o *Options) journalBytesMin() int { return 4 * (o.entryBytesMax() + 2*format.BlockBytes) }

// entryBytesMax is the size of the largest entry.
func (o *Options) entryBytesMax() int {
	return format.EntryHeaderBytes + format.Align8(o.BatchBytesMax)
}

// frameBytes is the size at which a frame is sealed. A single larger batch makes a larger frame.
func (o *Options) frameBytes() int { return min(format.FrameBytesMax, o.JournalBytes/8) }

// RunBufferBytes is the size of the largest run on disk, with its header and padding.
func (o *Options) RunBufferBytes() int {
	return format.AlignBlock(format.HeaderBytes + max(format.RunBytesMax, o.entryBytesMax()))
}

// slabBytes is the size of a slab: it holds at least a frame with one largest batch.
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

// segmentsMax is the size of the table of segments of all logs: two for each, as a log has the
// next one made before the last one is full, and some for logs that keep many.
func (o *Options) segmentsMax() int { return 2*o.LogsMax + 4096 }

// checkpointBytes is the size of the largest checkpoint.
func (o *Options) checkpointBytes() int {
	logs := o.LogsMax * (format.LogRecordBytes + format.EpochsMax*format.EpochRecordBytes)
	logs += (o.LogsMax + extraHolesMax) * format.HoleBytes
	segments := o.segmentsMax() * format.SegmentRecordBytes
	return format.AlignBlock(format.CheckpointHeaderBytes + logs + segments + o.AttachmentsBytes)
}

// Faults are planted bugs: a test turns one on to prove that it would be found.
type Faults uint32

const (
	NoSync             Faults = 1 << iota // frames are written and never synced
	AckBeforeSync                         // a frame is durable when its write is
	NoEpoch                               // replay accepts frames of any epoch
	StaleRunAccepted                      // opening believes runs past the checkpoint by their headers alone
	JournalReusedEarly                    // the journal is freed before the checkpoint that allows it is durable
	RunAckedAlone                         // a direct extent is acknowledged though one before it is not durable
	GapIsRot                              // a hole that a power cut leaves is called corruption
	CheckpointFromLate                    // a checkpoint replays from where its last log was put, not its first
	NoSyncAtOpen                          // opening syncs neither what it finds nor what it flushes
	TimesTrusted                          // segments are as old as their largest timestamp, checked or not
	EpochsForgotten                       // a leader epoch before all that are known has no end
	EpochsOfEight                         // a checkpoint has a log's last eight leader epochs only
	PresentLimits                         // opening looks for later runs only as far as its own InflightMax needs
	EndsAtBreak                           // opening ends a log where it first breaks
	WalksOnAnyway                         // opening goes on behind a broken run though nothing there was acknowledged
	FillForgotten                         // opening forgets what the journal has of broken runs
	HolesForgotten                        // checkpoints have no holes
	HolesPassedEarly                      // a log takes appends when its start has passed its holes, durably or not
	ReadsOverHole                         // a read goes on behind a hole
	JournalForEachLog                     // opening reads a shard's journal once for each of its logs
	LooksAtOneBlock                       // opening looks for runs behind a log's last one only if the next block is not zero
	ReusedKept                            // a slab that is reused because no other is resident stays in the index
)

// Has reports whether any of x is on.
func (f Faults) Has(x Faults) bool { return f&x != 0 }
