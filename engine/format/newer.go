package format

import (
	"fmt"
	"math/bits"
)

// What later versions will write, by number. It is known here only so that it can be refused
// by its name. docs/FORMAT.md has the same lists.

// Incompatible feature bits of the superblock.
const (
	NeedsCheckpoint2 = 1 << 0 // checkpoints of version 2, and what came with them
	NeedsSealed      = 1 << 1 // sealed frames and runs
	NeedsReplicas    = 1 << 2 // groups of replicas

	// NeedsServed is what this version serves, and sets at each opening: of what came with
	// checkpoints of version 2 it writes lists of holes.
	NeedsServed = NeedsCheckpoint2
)

// Incompatible feature bits of frames and runs.
const PieceSealed = 1 << 0

// RunData is the kind of every run of this version; RunCompacted is that of a run whose
// offsets have gaps.
const (
	RunData      = 1
	RunCompacted = 2
)

// Flags of entries.
const (
	EntryTransactional = 1 << 0
	EntryMarker        = 1 << 1 // of a transaction's end
	EntryAbort         = 1 << 2
	EntryOfGroup       = 1 << 3 // of replicas: 32 bytes more of header
)

// Kinds of entries of later versions.
const (
	EntryReplaced     = 7  // a segment, by a compacted one
	EntryNote         = 16 // of a share group
	EntryReplicaFirst = 20 // to EntryReplicaLast: of groups of replicas
	EntryReplicaLast  = 28
)

// Checkpoint2 is the version of checkpoints with groups of replicas, whose header has its own
// length in it.
const Checkpoint2 = 2

// Flags of a log's record in a checkpoint. RecordHoles is of this version. RecordDirect was
// written before 0.2.0, and says nothing that is needed.
const (
	RecordDirect   = 1 << 0 // the log wrote direct runs in that life
	RecordMarks    = 1 << 1 // transactions ended in it
	RecordWindows2 = 1 << 2 // the producers' windows have version 2
	RecordHoles    = 1 << 3 // holes follow the epochs
)

// Newer is the error for what a later version of Tailbound has written, by name. It is not
// damage.
type Newer string

// Error is the text for an operator.
func (n Newer) Error() string { return "written by a newer Tailbound: " + string(n) }

// names is the names of bits, by number.
type names []string

// first is the name of the lowest bit that is set; "": none is.
func (n names) first(set uint32, of string) string {
	if set == 0 {
		return ""
	}
	i := bits.TrailingZeros32(set)
	if i < len(n) {
		return n[i]
	}
	return fmt.Sprintf("feature %d of %s", i, of)
}

const replicas = "groups of replicas"

var (
	superblockNeeds = names{"checkpoints of version 2", "sealed frames and runs", replicas}
	pieceNeeds      = names{"sealed frames and runs"}
	entryFlags      = names{"batches of transactions", "ends of transactions", "aborted transactions", replicas}
	recordFlags     = names{"", "ends of transactions", "producers' windows of version 2", "holes among records"}
)

// Newer names what the entry needs of a later version; "": nothing.
func (h *Entry) Newer() string {
	if h.Flags != 0 {
		return entryFlags.first(uint32(h.Flags), "an entry")
	}
	switch {
	case h.Kind >= EntryData && h.Kind <= EntryStartMoved:
		return ""
	case h.Kind == EntryReplaced:
		return "compacted segments"
	case h.Kind == EntryNote:
		return "share groups"
	case h.Kind >= EntryReplicaFirst && h.Kind <= EntryReplicaLast:
		return replicas
	}
	return fmt.Sprintf("entries of kind %d", h.Kind)
}

// newerKind names a kind of runs of a later version; "": it is of this one.
func newerKind(kind uint32) string {
	switch kind {
	case RunData:
		return ""
	case RunCompacted:
		return "compacted runs"
	}
	return fmt.Sprintf("runs of kind %d", kind)
}

// NewerIn names what a run's body needs of a later version; "": nothing, or the body is not
// what was written.
func (h *RunHeader) NewerIn(body []byte) string {
	if CRC(body) != h.BodyCRC {
		return ""
	}
	for len(body) > 0 {
		var entry Entry
		if !entry.Get(body) || entry.Bytes() > len(body) {
			return ""
		}
		if what := entry.Newer(); what != "" {
			return what
		}
		body = body[entry.Bytes():]
	}
	return ""
}
