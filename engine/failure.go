package engine

import (
	"fmt"

	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
)

// Failure is an operation on the disk that did not do what was asked, as plain values:
// recording one allocates nothing, and text is made only where it is printed.
type Failure struct {
	Op         ioring.Code
	Shard      int
	File       FailedFile
	Generation uint64 // of the segment, for SegmentFile
	Offset     int64  // in the file, of the first byte asked for
	Length     int64  // in bytes; 0: the operation has no range
	Errno      ioring.Errno
	Log        uint64 // id of the log that it concerns; 0: none, or several
	From, To   int64  // the log's records that it concerns, From to To - 1; From == To: not known
	Corrupt    bool   // a read that succeeded and did not return what was written
	Limit      Limit  // no operation failed: there is as much as there can be
}

// Limit is a limit of a shard that keeps a segment from being made.
type Limit uint8

// The limits.
const (
	NoLimit          Limit = iota
	SegmentsLimit          // the table of segments has no free entry
	GenerationsLimit       // every name for a segment of this life was used
)

var limits = [...]struct{ what, advice string }{
	SegmentsLimit:    {"no segment can be made: the shard has as many as it can have", "larger segments are fewer ones (segment.bytes, segment.ms), and a higher --partitions-max allows more"},
	GenerationsLimit: {"no segment can be made: the shard has used all names of this life", "a restart gives new ones; larger segments need fewer (segment.bytes, segment.ms)"},
}

// FailedFile says which of a shard's files a Failure is about.
type FailedFile uint8

// The files of a shard.
const (
	JournalFile FailedFile = iota
	CheckpointFile0
	CheckpointFile1
	SegmentFile
	SegmentsDirectory
)

// Path is the file's path in the data directory.
func (f *Failure) Path() string {
	switch f.File {
	case JournalFile:
		return format.ShardPath(f.Shard, "journal")
	case CheckpointFile0:
		return format.ShardPath(f.Shard, "checkpoint-0")
	case CheckpointFile1:
		return format.ShardPath(f.Shard, "checkpoint-1")
	case SegmentsDirectory:
		return "segments"
	}
	return format.SegmentPath(f.Generation)
}

// Error is one line: "writing shard-001/journal, 65536 bytes at 1048576: EIO:
// input/output error". It does not name the log, whose topic the engine does not know.
func (f *Failure) Error() string {
	if f.Corrupt {
		return fmt.Sprintf("reading %s, at %d: what lies there is not what was written", f.Path(), f.Offset)
	}
	if f.Limit != NoLimit {
		return limits[f.Limit].what
	}
	return f.operation().Error()
}

// Advice is what an operator can do about it; "" where nothing is known.
func (f *Failure) Advice() string {
	if f.Corrupt {
		return "`tailbound repair` shows what else is broken and the ways to go on"
	}
	if f.Limit != NoLimit {
		return limits[f.Limit].advice
	}
	return f.operation().Advice()
}

// operation is the failure as the error of a ring operation.
func (f *Failure) operation() *ioring.OpError {
	return &ioring.OpError{Op: f.Op, Path: f.Path(), Offset: f.Offset, Length: f.Length, Errno: f.Errno}
}

// fail ends this shard's appends: from now on nothing becomes durable. The first failure
// is the reason that is kept.
func (v *env) fail(failure Failure) {
	if v.failed {
		return
	}
	failure.Shard = v.shard
	v.failed, v.failure = true, failure
	v.progress++
	v.emit(Event{Kind: Failed})
}

// Failure is what ended this shard's storage. False: it has not failed.
func (e *Engine) Failure() (failure Failure, failed bool) { return e.failure, e.failed }

// survived counts a failure after which the shard goes on: the operation is repeated in
// another place, its request is refused, or it was optional.
func (v *env) survived(failure Failure) {
	failure.Shard = v.shard
	v.troubles, v.trouble = v.troubles+1, failure
}

// Troubles is how many operations failed without ending the shard, and the last of them.
// Files that cannot be made or grown are not among them: see Shortage.
func (e *Engine) Troubles() (n uint64, last Failure) { return e.troubles, e.trouble }

// again reports that an operation has to be pushed once more as it is.
func again(code ioring.Code, result int32) bool { return ioring.Judge(code, result) == ioring.Again }

// spaceShort reports that an operation found no space on the disk.
func spaceShort(code ioring.Code, errno int) bool {
	return ioring.Judge(code, -int32(errno)) == ioring.NoSpace
}
