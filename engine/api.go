package engine

import (
	"fmt"

	"tailbound/ioring"
	"tailbound/mem"
)

// Slot is the index of an open log in this shard's table; stable while open.
type Slot uint32

// Status says how a call, or what an Event tells of, went.
type Status uint8

const (
	OK            Status = iota
	WaitMemory           // no log memory (or read buffer) now: try again when Progress changes
	WaitRoom             // the log's file is being extended: try again when Progress changes
	NoSpace              // the disk has no room for this log; it is tried again by itself
	StorageFailed        // a write or sync of this shard failed: it accepts nothing more
	Rot                  // acknowledged bytes of this log are broken: it accepts nothing more
	OutOfRange           // the offset is below the log's start or above what may be read
	Empty                // nothing to read at that offset yet
	Cold                 // not in memory: ReadCold
	Unknown              // no such log
	TooLarge             // larger than BatchBytesMax
	Full                 // the table of logs is full
	Corrupt              // a run read from disk is not what was written
)

var statusNames = [...]string{"OK", "WaitMemory", "WaitRoom", "NoSpace", "StorageFailed", "Rot", "OutOfRange", "Empty", "Cold", "Unknown", "TooLarge", "Full", "Corrupt"}

// String is the status's name.
func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return fmt.Sprintf("Status(%d)", uint8(s))
}

// Kind is what an Event tells of.
type Kind uint8

const (
	Durable  Kind = iota // Durable(Slot) has moved
	Opened               // the log OpenLog asked for, with User, is open durably; or Status says why not
	Deleted              // the log is deleted durably, its slot is free
	ReadDone             // the cold read with User ended; Read names it when Status is OK
	Failed               // the storage of this shard failed; told once
)

// Event is something that happened.
type Event struct {
	Kind   Kind
	Status Status
	Slot   Slot
	User   uint32
	Read   uint32
}

// Faults are planted bugs, so that the simulator can prove it would find them.
type Faults uint32

const (
	NoSync             Faults = 1 << iota // syncs are not pushed, their success is made up
	AckBeforeSync                         // a frame counts as durable when it is written
	NoEpoch                               // every life writes epoch 1: earlier ones cannot be told apart
	StaleRunAccepted                      // runs are believed again, whatever chain and offset they have
	JournalReusedEarly                    // the journal is overwritten as soon as one checkpoint is past it
	GapIsRot                              // any frame beyond a break makes it rot
	NoSyncAtOpen                          // opening believes what kill -9 left unsynced
)

// Options size an engine. Zero values take the defaults named.
type Options struct {
	LogsMax        int    // open logs
	SegmentBytes   int    // a segment file's limit
	JournalBytes   int    // the journal file's size; at least two of the largest frames
	LogMemoryBytes int    // memory for open frames, what is not drained, and the cache
	BatchBytesMax  int    // largest append
	InflightMax    int    // frames in flight; default 2
	Files          uint32 // first file slot that is ours
	FilesMax       int    // how many are ours; default 64, at least 8
	Buffered       bool   // the files cannot be written directly
	// ReadOnlyOnFailure: the process stays after a failure to serve reads. The
	// engine does so always; the shard decides.
	ReadOnlyOnFailure bool

	CheckpointBytes int   // journal bytes between checkpoints; default JournalBytes/4
	SegmentsMax     int   // segments of all logs of the shard; default 4 LogsMax + 1024
	BatchesMax      int   // batches in memory; default LogMemoryBytes/1024, at least 4096
	ReadBuffers     int   // cold reads at once; default LogMemoryBytes/8 worth, 4 to 64
	AttachmentBytes int   // largest attachment; default 64 KiB
	DrainIdleNS     int64 // undrained bytes of a quiet shard are drained after this; default 500 ms
	QuietNS         int64 // a quiet shard covers its newest frame after this; default 5 ms
	Faults          Faults
}

// RecoverOptions say how a directory is to be opened.
type RecoverOptions struct {
	Options
	Shards int      // data shards of the life that begins
	Seed   [16]byte // id of a directory that has none yet; zero: derived from nothing but Options
}

// HeaderBytes is how much of each batch LogBoot.Headers has: a Kafka batch header.
const HeaderBytes = 61

// Boot is what opening found. Each shard's New reads its own part only.
type Boot struct {
	Directory [16]byte
	Epoch     uint32 // of the life that begins
	Shards    []ShardBoot
	Fresh     bool     // the directory was made now
	Clean     bool     // the life before stopped cleanly: nothing was scanned
	Notes     []string // what was dropped, broken or left aside; for the log
}

// LeaderEpoch is the leader epoch of everything appended in this life.
func (b *Boot) LeaderEpoch() int32 { return int32(b.Epoch) }

// ShardBoot is one shard's logs, by id.
type ShardBoot struct {
	Logs         []LogBoot
	checkpoint   checkpointHeader // the newest one on disk
	journalBytes int64
}

// LogBoot is one log as it was found.
type LogBoot struct {
	ID         uint64
	Start, End int64
	Rot        string // not empty: what acknowledged offsets are broken, and where
	Attachment []byte
	Headers    []byte // the first HeaderBytes of every batch after the attachment
	record     logRecord
}

// Meta describes a batch.
type Meta struct {
	Count   uint32 // offsets it takes, at least 1
	MaxTime int64  // milliseconds
	CRC     uint32 // the batch's own, opaque
}

// View is bytes of a log, whole batches, and the pin that keeps them.
type View struct {
	Bytes []byte
	Pin   uint32
}

// Attacher gives the engine an opaque attachment per log for its checkpoints:
// what it says of the log as of End(l). len(dst) is Options.AttachmentBytes.
type Attacher interface {
	Attachment(l Slot, dst []byte) int
}

var (
	_ = ioring.Never
	_ = mem.BlockBytes
)
