package engine

import (
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
)

// work makes a segment, of a spare where there is one, or grows one:
//
//	rename();                                 await syncDirectory(); entry(assigned); await durable; ready
//	open(create); await allocate(); await sync(); await syncDirectory(); entry(assigned); await durable; ready
//	open();       await allocate(); await sync(); grown
type work struct {
	stage   workStage
	create  bool
	pushed  bool
	pinned  bool
	spare   uint64 // the generation its file had
	zeroes  bool   // a file of zeroes
	log     Slot
	segment int32
	bytes   int64
	least   int64 // what is needed now, where the disk has not so much
	errno   int
}

// growBytesMin is the least that a segment is made with, and grows by: crumbs on a
// disk that is nearly full are for opening, which needs some.
const growBytesMin = 1 << 20

// worksMax is how many segments are made or grown at a time.
const worksMax = 4

// retryNS is how long a log waits that found no space on the disk.
const retryNS = 1e9

type workStage uint8

const (
	workFree workStage = iota
	workRename
	workOpen
	workAllocate
	workSync
	workDirectory
	workEntry
	workAwait
)

// code is the operation that a stage waits for.
func (s workStage) code() ioring.Code {
	switch s {
	case workRename:
		return ioring.Rename
	case workOpen:
		return ioring.Open
	case workAllocate:
		return ioring.Allocate
	}
	return ioring.Sync
}

func (e *Engine) takeWork() *work {
	for i := range e.segments.works {
		if e.segments.works[i].stage == workFree {
			e.segments.worksBusy++
			return &e.segments.works[i]
		}
	}
	return nil
}

// wantSegment has the log's next segment made.
func (e *Engine) wantSegment(s Slot, n int64) Status {
	l := &e.logs[s]
	if l.noSpace {
		if e.now < l.retryAt {
			return NoSpace
		}
		l.noSpace = false
	}
	if l.working || e.failed {
		return e.waitRoom()
	}
	w := e.takeWork()
	if w == nil {
		return e.waitRoom()
	}
	*w = work{stage: workOpen, create: true, log: s, segment: none, bytes: growBytesMin}
	file := none
	if i := e.findSpare(l, format.RoomFor(n)); i >= 0 {
		x := e.dropSpare(i)
		was := &e.segments.all[x.segment]
		w.stage, w.spare, w.bytes, w.zeroes, file = workRename, was.generation, was.bytes, x.zeroes, was.file
		e.freeSegment(x.segment)
	}
	g, ok := e.takeSegment(e.nextGeneration(), s)
	if !ok {
		*w = work{}
		e.segments.worksBusy--
		if e.spaceGone(l); l.noSpace {
			return NoSpace
		}
		return e.waitRoom()
	}
	if w.segment = g; file != none { // it may be open, and stays so
		e.segments.all[g].file, e.files.opened[file].segment = file, g
	}
	for w.bytes < format.RoomFor(n) {
		w.bytes *= 2
	}
	w.bytes = min(w.bytes, int64(e.o.SegmentBytes))
	w.least = min(w.bytes, max(int64(format.AlignBlock(int(format.RoomFor(n)))), growBytesMin))
	e.appendSegment(l, g)
	l.working = true
	return e.waitRoom()
}

// wantRoom has segment g grown to at least need bytes.
func (e *Engine) wantRoom(s Slot, g int32, need int64) Status {
	l := &e.logs[s]
	if l.noSpace {
		if e.now < l.retryAt {
			return NoSpace
		}
		l.noSpace = false
	}
	if l.working || e.failed {
		return e.waitRoom()
	}
	w := e.takeWork()
	if w == nil {
		return e.waitRoom()
	}
	need = int64(format.AlignBlock(int(need)))
	bytes := max(e.segments.all[g].bytes, growBytesMin)
	for bytes < need {
		bytes *= 2
	}
	bytes = max(min(bytes, int64(e.o.SegmentBytes)), need)
	*w = work{stage: workOpen, log: s, segment: g, bytes: bytes, least: max(need, e.segments.all[g].bytes+growBytesMin)}
	l.working = true
	return e.waitRoom()
}

// spaceGone: l waits for room, which spares make at once.
func (e *Engine) spaceGone(l *log) {
	if e.GiveRoom() {
		e.changes++
		return
	}
	l.noSpace, l.retryAt = true, e.now+retryNS
	e.stats.NoSpace++
	e.changes++
}

func (e *Engine) stepWorks(sleep *ioring.Instant) {
	if e.segments.worksBusy == 0 {
		return
	}
	for i := range e.segments.works {
		if w := &e.segments.works[i]; w.stage != workFree && !w.pushed {
			e.stepWork(uint32(i), w, sleep)
		}
	}
}

func (e *Engine) stepWork(i uint32, w *work, sleep *ioring.Instant) {
	q := &e.segments.all[w.segment]
	token := ioring.MakeToken(kindWork, 0, i)
	switch w.stage {
	case workRename:
		at := (len(e.files.opened) + 1 + int(i)) * pathBytes
		p := e.files.paths.Slice(at, pathBytes)
		format.PutSegmentPath(p.Bytes(), w.spare)
		format.PutSegmentPath(p.Bytes()[format.SegmentPathBytes:], q.generation)
		w.pushed = e.ring.Push(ioring.Op{Code: ioring.Rename, Buf: p, Token: token})
	case workOpen:
		_, pending, errno := e.acquire(w.segment, w.create)
		if errno != 0 {
			w.errno = errno
			e.workFailed(w)
			return
		}
		if pending {
			if e.ring.Room() < 1 {
				earlier(sleep, e.now)
			}
			return
		}
		w.pinned, w.stage = true, workAllocate
		fallthrough
	case workAllocate:
		w.pushed = e.ring.Push(ioring.Op{Code: ioring.Allocate, File: e.files.open0 + uint32(q.file), Offset: uint64(q.bytes), Arg: uint64(w.bytes - q.bytes), Token: token})
	case workSync:
		w.pushed = e.ring.Push(ioring.Op{Code: ioring.Sync, Flags: ioring.FlagFull, File: e.files.open0 + uint32(q.file), Token: token})
	case workDirectory:
		w.pushed = e.ring.Push(ioring.Op{Code: ioring.Sync, Flags: ioring.FlagFull, File: e.o.Files + slotSegments, Token: token})
	case workEntry:
		if e.failed {
			e.endWork(w)
			return
		}
		if e.entryFits(0) {
			e.putNote(format.Entry{Kind: format.EntryAssigned, Log: e.logs[w.log].id, Slot: uint32(w.log), Base: e.logs[w.log].end, Aux: q.generation})
			w.stage = workAwait
		}
		return
	case workAwait:
		if e.failed {
			e.endWork(w)
		}
		return
	}
	if !w.pushed {
		earlier(sleep, e.now)
		return
	}
	e.disk.begin(WorkFiles, metadataBytes)
}

func (e *Engine) workCompleted(i uint32, c ioring.Completion) {
	w := &e.segments.works[i]
	w.pushed = false
	e.disk.end(WorkFiles, metadataBytes)
	if again(w.stage.code(), c.Result) {
		return
	}
	q := &e.segments.all[w.segment]
	if c.Result < 0 {
		w.errno = int(-c.Result)
		if w.stage == workAllocate && spaceShort(ioring.Allocate, w.errno) && w.bytes > w.least && e.recycled.sparesN == 0 {
			w.bytes = max(w.least, (q.bytes+w.bytes)/2&^(format.BlockBytes-1)) // half as much more
			return
		}
		e.workFailed(w)
		return
	}
	switch w.stage {
	case workRename:
		q.bytes, q.spare = w.bytes, true
		w.stage = workDirectory
		if w.zeroes {
			e.stats.Zeroed++
		} else {
			e.stats.Recycled++
		}
	case workAllocate:
		w.stage = workSync
	case workSync:
		q.bytes = w.bytes
		if w.create {
			w.stage = workDirectory
			return
		}
		e.stats.Grown++
		e.endWork(w)
	case workDirectory:
		w.stage = workEntry
	}
}

// segmentAssigned: the journal says durably whose the file is.
func (e *Engine) segmentAssigned(l *log, generation uint64) {
	for i := range e.segments.works {
		w := &e.segments.works[i]
		if w.stage == workAwait && e.segments.all[w.segment].generation == generation {
			q := &e.segments.all[w.segment]
			q.ready = true
			e.stats.SegmentsMade++
			if l.filling == none {
				l.filling, l.writing = w.segment, w.segment
				q.base, q.end = l.end, l.end
			}
			e.endWork(w)
			return
		}
	}
}

// workFailed gives up: what was there before stays, a new file is removed.
func (e *Engine) workFailed(w *work) {
	l, code := &e.logs[w.log], w.stage.code()
	full := spaceShort(code, w.errno)
	if !full {
		q := &e.segments.all[w.segment]
		f := Failure{Op: code, File: SegmentFile, Generation: q.generation, Errno: ioring.Errno(w.errno), Log: l.id}
		switch w.stage {
		case workRename:
			f.Generation = w.spare
		case workAllocate:
			f.Offset, f.Length = q.bytes, w.bytes-q.bytes
		case workDirectory:
			f.File = SegmentsDirectory
		}
		e.survived(f)
	}
	if w.create {
		// it is the log's last: one work at a time
		if l.segments == w.segment {
			l.segments, l.tail = none, none
		} else {
			for g := l.segments; g != none; g = e.segments.all[g].next {
				if e.segments.all[g].next == w.segment {
					e.segments.all[g].next, l.tail = none, g
				}
			}
		}
		e.segments.all[w.segment].next = none
		e.removeSegment(w.segment)
	} else if !full {
		e.segments.all[w.segment].broken = true
	}
	e.spaceGone(l)
	e.endWork(w)
}

func (e *Engine) endWork(w *work) {
	if w.pinned {
		e.letGo(w.segment)
	}
	l := &e.logs[w.log]
	l.working = false
	*w = work{}
	e.segments.worksBusy--
	e.changes++
	e.finishClosing(l)
}
