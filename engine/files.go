package engine

import (
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// files is the table of open segment files: there are fewer than segments, so one
// that was not used lately is closed for another. One file's life:
//
//	take(); await open(); pinned by what reads and writes it; until another needs the slot; await close()
type files struct {
	env       *env
	firstSlot uint32 // the ring's file slot of table[0]
	table     []file
	paths     mem.Block // one for each file, one for unlink, one for each job of provision
	busy      int
	free      int32 // the first unused one
	closing   int32 // the one that take is having closed
	hand      int32 // clock hand of take
}

// file is one file slot of the ring.
//
// Invariant: pins > 0 only while it is open.
type file struct {
	state   fileState
	segment int32
	pins    int32
	pushed  bool
	create  bool
	errno   int
	used    bool  // since the hand passed
	next    int32 // of the unused ones
}

// pathBytes is the room for a path, or for the two of a rename.
const pathBytes = 64

// fileState is the life of a file slot.
type fileState uint8

const (
	fileUnused fileState = iota
	fileOpening
	fileOpen
	fileClosing
	fileFailed
)

const (
	slotJournal    = 0
	slotCheckpoint = 1 // and 2
	slotSegments   = 3 // the directory
	slotsFixed     = 4
)

// allocate makes the table: what Options.FilesMax leaves for segments, and memory for paths.
func (f *files) allocate(arena *mem.Arena) (err error) {
	f.firstSlot = f.env.o.Files + slotsFixed
	f.table = make([]file, f.env.o.FilesMax-slotsFixed)
	f.free, f.closing = none, none
	for i := len(f.table) - 1; i >= 0; i-- {
		f.release(int32(i))
	}
	f.paths, err = arena.Allocate("paths", max(format.BlockBytes, pathBytes*(len(f.table)+1+jobsMax)), 64)
	return err
}

// acquire pins a segment's file for I/O until unpin. pending: it is being opened, and has
// to be asked for again at the next step, which comes at once if the ring has no room now.
// errno: it cannot be opened.
func (f *files) acquire(seg *segment, create bool, sleep *ioring.Instant) (slot uint32, pending bool, errno int) {
	if seg.file == none {
		i := f.take()
		if i == none {
			f.wait(sleep)
			return 0, true, 0
		}
		opened := &f.table[i]
		*opened = file{state: fileOpening, segment: seg.number, create: create}
		seg.file = i
		format.PutSegmentPath(f.paths.Bytes()[int(i)*pathBytes:], seg.generation)
		f.busy++
	}
	opened := &f.table[seg.file]
	opened.used = true
	switch opened.state {
	case fileOpen:
		opened.pins++
		return f.firstSlot + uint32(seg.file), false, 0
	case fileFailed:
		errno = opened.errno
		f.release(seg.file)
		seg.file = none
		return 0, false, errno
	case fileOpening:
		f.push(seg.file)
	}
	f.wait(sleep)
	return 0, true, 0
}

// wait has the next step come at once if the ring has no room for an open or close. Else the
// completion brings it.
func (f *files) wait(sleep *ioring.Instant) {
	if f.env.ring.Room() < 1 {
		earlier(sleep, f.env.now)
	}
}

// unpin ends the use of a file that acquire pinned.
func (f *files) unpin(seg *segment) {
	file := &f.table[seg.file]
	if file.pins <= 0 {
		panic("engine: a file is let go twice")
	}
	file.pins--
}

// take takes an unused slot; none where it had to begin closing one.
func (f *files) take() int32 {
	if i := f.free; i != none {
		f.free = f.table[i].next
		return i
	}
	if f.closing != none {
		f.push(f.closing)
		return none
	}
	for range 2 * len(f.table) {
		i := f.hand
		if f.hand++; int(f.hand) == len(f.table) {
			f.hand = 0
		}
		file := &f.table[i]
		if file.state != fileOpen || file.pins > 0 {
			continue
		}
		if file.used {
			file.used = false
			continue
		}
		f.closing = i
		f.close(i)
		return none
	}
	return none
}

// release makes slot i unused.
func (f *files) release(i int32) {
	f.table[i] = file{segment: none, next: f.free}
	f.free = i
	if f.closing == i {
		f.closing = none
	}
}

// close has a slot's file closed, if it is open and not pinned. It may be called again until
// the file is closed.
func (f *files) close(i int32) {
	file := &f.table[i]
	if file.state == fileOpen && file.pins == 0 {
		file.state, file.pushed = fileClosing, false
		f.busy++
	}
	f.push(i)
}

// push starts the open or close that a slot waits for, unless it is in flight.
func (f *files) push(i int32) {
	file := &f.table[i]
	if file.pushed || f.env.ring.Room() < 1 {
		return
	}
	switch file.state {
	case fileOpening:
		arg := uint64(0)
		if file.create {
			arg = ioring.OpenCreate | ioring.OpenExclusive
		}
		file.pushed = f.env.ring.Push(ioring.Op{Code: ioring.Open, File: f.firstSlot + uint32(i), Arg: arg, Buf: f.paths.Slice(int(i)*pathBytes, pathBytes), Token: ioring.MakeToken(kindOpenFile, 0, uint32(i))})
	case fileClosing:
		file.pushed = f.env.ring.Push(ioring.Op{Code: ioring.Close, File: f.firstSlot + uint32(i), Token: ioring.MakeToken(kindCloseFile, 0, uint32(i))})
	}
}

// completed takes the completion of an open or close.
func (f *files) completed(segments *segments, index uint32, completion ioring.Completion) {
	file := &f.table[index]
	file.pushed = false
	code := ioring.Open
	if file.state == fileClosing {
		code = ioring.Close
	}
	if again(code, completion.Result) {
		return // pushed again when the file is asked for again
	}
	f.busy--
	switch {
	case file.state == fileClosing:
		if file.segment != none {
			segments.all[file.segment].file = none
		}
		f.release(int32(index))
	case completion.Result < 0:
		file.state, file.errno = fileFailed, int(-completion.Result)
	default:
		file.state = fileOpen
	}
}
