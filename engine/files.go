package engine

import (
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// files are the open segment files of the shard, fewer than there are
// segments: one that nobody uses is closed for another.
type files struct {
	firstSlot uint32 // ring slot of opened[0]
	table     []file
	paths     mem.Block // one for each, one for unlink, one for each work
	busy      int
	free      int32 // closed ones, a list
	closing   int32 // the one that fileFor had closed last
	hand      int32 // goes round for one that was not used lately
}

// file is one ring slot. Invariant: pins > 0 only while it is open or opening.
type file struct {
	state   fileState
	segment int32
	pins    int32
	pushed  bool
	create  bool
	errno   int
	used    bool  // since the hand came by
	next    int32 // closed: the free list
}

// pathBytes is the room for the path of a file.
const pathBytes = 64

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

func (e *Engine) allocateFiles(arena *mem.Arena) (err error) {
	e.files.firstSlot = e.o.Files + slotsFixed
	e.journal.file = e.o.Files + slotJournal
	e.files.table = make([]file, e.o.FilesMax-slotsFixed)
	e.files.free, e.files.closing = none, none
	for i := len(e.files.table) - 1; i >= 0; i-- {
		e.freeFile(int32(i))
	}
	e.files.paths, err = arena.Allocate("paths", max(format.BlockBytes, pathBytes*(len(e.files.table)+1+jobsMax)), 64)
	return err
}

// acquire pins the file of segment g for I/O. pending: not now, ask again at
// the next step; errno: it cannot be opened.
func (e *Engine) acquire(seg *segment, create bool) (slot uint32, pending bool, errno int) {
	if seg.file == none {
		i := e.takeFile()
		if i == none {
			return 0, true, 0
		}
		f := &e.files.table[i]
		*f = file{state: fileOpening, segment: seg.number, create: create}
		seg.file = i
		format.PutSegmentPath(e.files.paths.Bytes()[int(i)*pathBytes:], seg.generation)
		e.files.busy++
	}
	f := &e.files.table[seg.file]
	f.used = true
	switch f.state {
	case fileOpen:
		f.pins++
		return e.files.firstSlot + uint32(seg.file), false, 0
	case fileFailed:
		errno = f.errno
		e.freeFile(seg.file)
		seg.file = none
		return 0, false, errno
	case fileOpening:
		e.pushFile(seg.file)
	}
	return 0, true, 0
}

func (e *Engine) unpinFile(seg *segment) {
	file := &e.files.table[seg.file]
	if file.pins <= 0 {
		panic("engine: a file is let go twice")
	}
	file.pins--
}

// fileFor takes a closed slot, or begins to close one that was not used lately.
func (e *Engine) takeFile() int32 {
	if i := e.files.free; i != none {
		e.files.free = e.files.table[i].next
		return i
	}
	if e.files.closing != none {
		e.pushFile(e.files.closing)
		return none
	}
	for range 2 * len(e.files.table) {
		i := e.files.hand
		if e.files.hand++; int(e.files.hand) == len(e.files.table) {
			e.files.hand = 0
		}
		file := &e.files.table[i]
		if file.state != fileOpen || file.pins > 0 {
			continue
		}
		if file.used {
			file.used = false
			continue
		}
		e.files.closing = i
		e.closeFile(i)
		return none
	}
	return none
}

// fileClosed puts slot i among the closed ones.
func (e *Engine) freeFile(i int32) {
	e.files.table[i] = file{segment: none, next: e.files.free}
	e.files.free = i
	if e.files.closing == i {
		e.files.closing = none
	}
}

func (e *Engine) closeFile(i int32) {
	file := &e.files.table[i]
	if file.state == fileOpen && file.pins == 0 {
		file.state, file.pushed = fileClosing, false
		e.files.busy++
	}
	e.pushFile(i)
}

func (e *Engine) pushFile(i int32) {
	file := &e.files.table[i]
	if file.pushed || e.ring.Room() < 1 {
		return
	}
	switch file.state {
	case fileOpening:
		arg := uint64(0)
		if file.create {
			arg = ioring.OpenCreate | ioring.OpenExclusive
		}
		file.pushed = e.ring.Push(ioring.Op{Code: ioring.Open, File: e.files.firstSlot + uint32(i), Arg: arg, Buf: e.files.paths.Slice(int(i)*pathBytes, pathBytes), Token: ioring.MakeToken(kindOpenFile, 0, uint32(i))})
	case fileClosing:
		file.pushed = e.ring.Push(ioring.Op{Code: ioring.Close, File: e.files.firstSlot + uint32(i), Token: ioring.MakeToken(kindCloseFile, 0, uint32(i))})
	}
}

func (e *Engine) fileCompleted(index uint32, completion ioring.Completion) {
	file := &e.files.table[index]
	file.pushed = false
	code := ioring.Open
	if file.state == fileClosing {
		code = ioring.Close
	}
	if again(code, completion.Result) {
		return // pushed again by whoever asks next
	}
	e.files.busy--
	switch {
	case file.state == fileClosing:
		if file.segment != none {
			e.segments.all[file.segment].file = none
		}
		e.freeFile(int32(index))
	case completion.Result < 0:
		file.state, file.errno = fileFailed, int(-completion.Result)
	default:
		file.state = fileOpen
	}
}
