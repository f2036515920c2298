package engine

import (
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
)

// RecoveredState is what package recovery found in a data directory, and what the
// shards of the new epoch begin with.
type RecoveredState struct {
	Directory     [16]byte
	Epoch         uint32
	Shards        []RecoveredShard // 0 is the control shard's
	Fresh         bool             // there was no directory
	Clean         bool             // the process before stopped cleanly
	Notes         []string         // lines for an operator: what was dropped, what is corrupt
	BatchBytesMax int              // bounds every client's batch in this directory
	Frames        int              // of the journals, that were replayed
	Tally         ioring.Tally     // what opening it took
}

// LeaderEpoch is the leader epoch of what is appended from now on.
func (b *RecoveredState) LeaderEpoch() int32 { return int32(b.Epoch) }

// RecoveredShard is what one shard begins with.
type RecoveredShard struct {
	Logs       []RecoveredLog // by ID
	Checkpoint uint64         // sequence of its newest checkpoint
	Recycled   []RecycledFile
}

// RecycledFile is a file that is no log's and may become a segment of any log.
type RecycledFile struct {
	Generation uint64
	Bytes      int64
}

// RecoveredLog is one log as recovery found it.
type RecoveredLog struct {
	ID         uint64
	Start, End int64
	Holes      []Hole // acknowledged records that are lost, in order; the log takes no appends
	Attachment []byte // of its last checkpoint: see Attacher
	Headers    []byte // the first format.BatchHeaderBytes of every batch after that checkpoint
	Record     *format.LogRecord
}
