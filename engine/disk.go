package engine

import "github.com/tailbound/tailbound/ioring"

// Work is what an engine has a disk do. What the disk does at the same time
// shares it: whoever asks why a write was slow wants to know of the others.
type Work int

// The kinds of work.
const (
	WorkFrames      Work = iota // of the journal
	WorkRuns                    // direct runs
	WorkDrains                  // what the journal has, to segments
	WorkCheckpoints             //
	WorkFiles                   // making, growing, zeroing and removing them
	WorkReads                   // cold reads
	Works                       // how many there are
)

// Disk is what was begun and what is over, in bytes, since the start.
//
// Invariant: Over <= Begun, for each kind.
type Disk struct {
	Begun, Over [Works]uint64
}

// metadataBytes is what work on a file that moves no bytes counts as: the file
// system's own journal is written and synced for it.
const metadataBytes = 64 << 10

func (d *Disk) begin(w Work, n int) { d.Begun[w] += uint64(n) }
func (d *Disk) end(w Work, n int)   { d.Over[w] += uint64(n) }

// Disk is what is under way, live.
func (e *Engine) Disk() *Disk { return &e.disk }

// landing is how a frame or a run came to the disk.
type landing struct {
	submitted ioring.Instant // when it was pushed
	written   ioring.Instant // when its write was reaped; what is left is its sync
	bytes     int
}

// Landed tells of the frame or the run that last moved Durable(l): when it was
// pushed, when its write was over, how large it was.
func (e *Engine) Landed(l Slot) (submitted, written ioring.Instant, bytes int) {
	x := &e.logs[l].landed
	return x.submitted, x.written, x.bytes
}

// Undurable is how many bytes of batches were appended and are not durable, of a
// log and of all of the shard.
func (e *Engine) Undurable(l Slot) (own, all int64) { return e.logs[l].undurable, e.undurable }

// JournalFull says that a frame found no room in the journal: it waits for drains
// and for a checkpoint.
func (e *Engine) JournalFull() bool { return e.journal.journalFull }
