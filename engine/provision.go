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
func (e *Engine) wantSegment(slot Slot, n int64) Status {
	lg := &e.logs[slot]
	if lg.noSpace {
		if e.now < lg.retryAt {
			return NoSpace
		}
		lg.noSpace = false
	}
	if lg.working || e.failed {
		return e.waitRoom()
	}
	job := e.takeWork()
	if job == nil {
		return e.waitRoom()
	}
	*job = work{stage: workOpen, create: true, log: slot, segment: none, bytes: growBytesMin}
	file := none
	if i := e.findSpare(lg, format.RoomFor(n)); i >= 0 {
		spare := e.dropSpare(i)
		was := &e.segments.all[spare.segment]
		job.stage, job.spare, job.bytes, job.zeroes, file = workRename, was.generation, was.bytes, spare.zeroes, was.file
		e.freeSegment(spare.segment)
	}
	segIndex, ok := e.takeSegment(e.nextGeneration(), slot)
	if !ok {
		*job = work{}
		e.segments.worksBusy--
		if e.spaceGone(lg); lg.noSpace {
			return NoSpace
		}
		return e.waitRoom()
	}
	if job.segment = segIndex; file != none { // it may be open, and stays so
		e.segments.all[segIndex].file, e.files.opened[file].segment = file, segIndex
	}
	for job.bytes < format.RoomFor(n) {
		job.bytes *= 2
	}
	job.bytes = min(job.bytes, int64(e.o.SegmentBytes))
	job.least = min(job.bytes, max(int64(format.AlignBlock(int(format.RoomFor(n)))), growBytesMin))
	e.appendSegment(lg, segIndex)
	lg.working = true
	return e.waitRoom()
}

// wantRoom has segment g grown to at least need bytes.
func (e *Engine) wantRoom(slot Slot, segIndex int32, need int64) Status {
	lg := &e.logs[slot]
	if lg.noSpace {
		if e.now < lg.retryAt {
			return NoSpace
		}
		lg.noSpace = false
	}
	if lg.working || e.failed {
		return e.waitRoom()
	}
	job := e.takeWork()
	if job == nil {
		return e.waitRoom()
	}
	need = int64(format.AlignBlock(int(need)))
	bytes := max(e.segments.all[segIndex].bytes, growBytesMin)
	for bytes < need {
		bytes *= 2
	}
	bytes = max(min(bytes, int64(e.o.SegmentBytes)), need)
	*job = work{stage: workOpen, log: slot, segment: segIndex, bytes: bytes, least: max(need, e.segments.all[segIndex].bytes+growBytesMin)}
	lg.working = true
	return e.waitRoom()
}

// spaceGone: l waits for room, which spares make at once.
func (e *Engine) spaceGone(lg *log) {
	if e.GiveRoom() {
		e.changes++
		return
	}
	lg.noSpace, lg.retryAt = true, e.now+retryNS
	e.stats.NoSpace++
	e.changes++
}

func (e *Engine) stepWorks(sleep *ioring.Instant) {
	if e.segments.worksBusy == 0 {
		return
	}
	for i := range e.segments.works {
		if job := &e.segments.works[i]; job.stage != workFree && !job.pushed {
			e.stepWork(uint32(i), job, sleep)
		}
	}
}

func (e *Engine) stepWork(index uint32, job *work, sleep *ioring.Instant) {
	seg := &e.segments.all[job.segment]
	token := ioring.MakeToken(kindWork, 0, index)
	switch job.stage {
	case workRename:
		at := (len(e.files.opened) + 1 + int(index)) * pathBytes
		path := e.files.paths.Slice(at, pathBytes)
		format.PutSegmentPath(path.Bytes(), job.spare)
		format.PutSegmentPath(path.Bytes()[format.SegmentPathBytes:], seg.generation)
		job.pushed = e.ring.Push(ioring.Op{Code: ioring.Rename, Buf: path, Token: token})
	case workOpen:
		_, pending, errno := e.acquire(job.segment, job.create)
		if errno != 0 {
			job.errno = errno
			e.workFailed(job)
			return
		}
		if pending {
			if e.ring.Room() < 1 {
				earlier(sleep, e.now)
			}
			return
		}
		job.pinned, job.stage = true, workAllocate
		fallthrough
	case workAllocate:
		job.pushed = e.ring.Push(ioring.Op{Code: ioring.Allocate, File: e.files.open0 + uint32(seg.file), Offset: uint64(seg.bytes), Arg: uint64(job.bytes - seg.bytes), Token: token})
	case workSync:
		job.pushed = e.ring.Push(ioring.Op{Code: ioring.Sync, Flags: ioring.FlagFull, File: e.files.open0 + uint32(seg.file), Token: token})
	case workDirectory:
		job.pushed = e.ring.Push(ioring.Op{Code: ioring.Sync, Flags: ioring.FlagFull, File: e.o.Files + slotSegments, Token: token})
	case workEntry:
		if e.failed {
			e.endWork(job)
			return
		}
		if e.entryFits(0) {
			e.putNote(format.Entry{Kind: format.EntryAssigned, Log: e.logs[job.log].id, Slot: uint32(job.log), Base: e.logs[job.log].end, Aux: seg.generation})
			job.stage = workAwait
		}
		return
	case workAwait:
		if e.failed {
			e.endWork(job)
		}
		return
	}
	if !job.pushed {
		earlier(sleep, e.now)
		return
	}
	e.disk.begin(WorkFiles, metadataBytes)
}

func (e *Engine) workCompleted(index uint32, completion ioring.Completion) {
	job := &e.segments.works[index]
	job.pushed = false
	e.disk.end(WorkFiles, metadataBytes)
	if again(job.stage.code(), completion.Result) {
		return
	}
	seg := &e.segments.all[job.segment]
	if completion.Result < 0 {
		job.errno = int(-completion.Result)
		if job.stage == workAllocate && spaceShort(ioring.Allocate, job.errno) && job.bytes > job.least && e.recycled.sparesN == 0 {
			job.bytes = max(job.least, (seg.bytes+job.bytes)/2&^(format.BlockBytes-1)) // half as much more
			return
		}
		e.workFailed(job)
		return
	}
	switch job.stage {
	case workRename:
		seg.bytes, seg.spare = job.bytes, true
		job.stage = workDirectory
		if job.zeroes {
			e.stats.Zeroed++
		} else {
			e.stats.Recycled++
		}
	case workAllocate:
		job.stage = workSync
	case workSync:
		seg.bytes = job.bytes
		if job.create {
			job.stage = workDirectory
			return
		}
		e.stats.Grown++
		e.endWork(job)
	case workDirectory:
		job.stage = workEntry
	}
}

// segmentAssigned: the journal says durably whose the file is.
func (e *Engine) segmentAssigned(lg *log, generation uint64) {
	for i := range e.segments.works {
		job := &e.segments.works[i]
		if job.stage == workAwait && e.segments.all[job.segment].generation == generation {
			seg := &e.segments.all[job.segment]
			seg.ready = true
			e.stats.SegmentsMade++
			if lg.filling == none {
				lg.filling, lg.writing = job.segment, job.segment
				seg.base, seg.end = lg.end, lg.end
			}
			e.endWork(job)
			return
		}
	}
}

// workFailed gives up: what was there before stays, a new file is removed.
func (e *Engine) workFailed(job *work) {
	lg, code := &e.logs[job.log], job.stage.code()
	full := spaceShort(code, job.errno)
	if !full {
		seg := &e.segments.all[job.segment]
		failure := Failure{Op: code, File: SegmentFile, Generation: seg.generation, Errno: ioring.Errno(job.errno), Log: lg.id}
		switch job.stage {
		case workRename:
			failure.Generation = job.spare
		case workAllocate:
			failure.Offset, failure.Length = seg.bytes, job.bytes-seg.bytes
		case workDirectory:
			failure.File = SegmentsDirectory
		}
		e.survived(failure)
	}
	if job.create {
		// it is the log's last: one work at a time
		if lg.segments == job.segment {
			lg.segments, lg.tail = none, none
		} else {
			for g := lg.segments; g != none; g = e.segments.all[g].next {
				if e.segments.all[g].next == job.segment {
					e.segments.all[g].next, lg.tail = none, g
				}
			}
		}
		e.segments.all[job.segment].next = none
		e.removeSegment(job.segment)
	} else if !full {
		e.segments.all[job.segment].broken = true
	}
	e.spaceGone(lg)
	e.endWork(job)
}

func (e *Engine) endWork(job *work) {
	if job.pinned {
		e.letGo(job.segment)
	}
	lg := &e.logs[job.log]
	lg.working = false
	*job = work{}
	e.segments.worksBusy--
	e.changes++
	e.finishClosing(lg)
}
