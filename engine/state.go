package engine

import "github.com/tailbound/tailbound/engine/format"

// RecoveredState is what opening a data directory found, and what the shards of
// the new life begin with: see package recovery.
type RecoveredState struct {
	Directory     [16]byte
	Epoch         uint32
	Shards        []RecoveredShard // 0 is the control shard's
	Fresh         bool             // there was no directory
	Clean         bool             // the life before ended with a clean stop
	Notes         []string         // what was dropped, and what rotted, for the log
	BatchBytesMax int              // no batch of a client in this directory is larger
}

// LeaderEpoch is the leader epoch of what this life appends.
func (b *RecoveredState) LeaderEpoch() int32 { return int32(b.Epoch) }

// RecoveredShard is what one shard of the new life opens with.
type RecoveredShard struct {
	Logs       []RecoveredLog // by ID
	Checkpoint uint64         // sequence of its newest one
	Recycled   []RecycledFile
}

// RecycledFile is a file that no log names and that may become a segment of any.
type RecycledFile struct {
	Generation uint64
	Bytes      int64
}

// RecoveredLog is one log as it was found.
type RecoveredLog struct {
	ID         uint64
	Start, End int64
	Corruption string // not empty: acknowledged records are lost, and which
	Attachment []byte // as of the checkpoint
	Headers    []byte // the first format.BatchHeaderBytes of every batch after it
	Record     *format.LogRecord
}
