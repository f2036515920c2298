package engine

import (
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
)

// provisioner makes and grows segments.
type provisioner struct {
	jobs [jobsMax]provisionJob
	busy int
}

// provisionJob makes a segment, of a spare where there is one, or grows one:
//
//	rename();                                 await syncDirectory(); entry(assigned); await durable; ready
//	open(create); await allocate(); await sync(); await syncDirectory(); entry(assigned); await durable; ready
//	open();       await allocate(); await sync(); grown
type provisionJob struct {
	stage    jobStage
	create   bool
	pushed   bool
	pinned   bool
	recycled uint64 // the generation its file had
	zeroes   bool   // a file of zeroes
	log      Slot
	segment  int32
	bytes    int64
	bytesMin int64 // what is needed now, where the disk has not so much
	errno    int
}

// growBytesMin is the least that a segment is made with, and grows by: crumbs on a
// disk that is nearly full are for opening, which needs some.
const growBytesMin = 1 << 20

// worksMax is how many segments are made or grown at a time.
const jobsMax = 4

// retryNS is how long a log waits that found no space on the disk.
const retryNS = 1e9

type jobStage uint8

const (
	jobFree jobStage = iota
	jobRename
	jobOpen
	jobAllocate
	jobSync
	jobDirectory
	jobEntry
	jobAwait
)

// code is the operation that a stage waits for.
func (s jobStage) code() ioring.Code {
	switch s {
	case jobRename:
		return ioring.Rename
	case jobOpen:
		return ioring.Open
	case jobAllocate:
		return ioring.Allocate
	}
	return ioring.Sync
}

func (p *provisioner) take() *provisionJob {
	for i := range p.jobs {
		if p.jobs[i].stage == jobFree {
			p.busy++
			return &p.jobs[i]
		}
	}
	return nil
}

// wantSegment has the log's next segment made.
func (e *Engine) requestSegment(lg *log, n int64) Status {
	if lg.noSpace {
		if e.now < lg.retryAt {
			return NoSpace
		}
		lg.noSpace = false
	}
	if lg.provisioning || e.failed {
		return e.waitForRoom()
	}
	job := e.provision.take()
	if job == nil {
		return e.waitForRoom()
	}
	*job = provisionJob{stage: jobOpen, create: true, log: lg.slot, segment: none, bytes: growBytesMin}
	file := none
	if i := e.recycled.find(&e.segments, lg, format.RoomFor(n)); i >= 0 {
		spare := e.recycled.take(&e.segments, i)
		was := &e.segments.all[spare.segment]
		job.stage, job.recycled, job.bytes, job.zeroes, file = jobRename, was.generation, was.allocated, spare.zeroed, was.file
		e.segments.release(was)
	}
	seg := e.segments.take(e.segments.nextGeneration(), lg.slot)
	if seg == nil {
		*job = provisionJob{}
		e.provision.busy--
		if e.diskFull(lg); lg.noSpace {
			return NoSpace
		}
		return e.waitForRoom()
	}
	if job.segment = seg.number; file != none { // it may be open, and stays so
		seg.file, e.files.table[file].segment = file, seg.number
	}
	for job.bytes < format.RoomFor(n) {
		job.bytes *= 2
	}
	job.bytes = min(job.bytes, int64(e.o.SegmentBytes))
	job.bytesMin = min(job.bytes, max(int64(format.AlignBlock(int(format.RoomFor(n)))), growBytesMin))
	e.segments.append(lg, seg)
	lg.provisioning = true
	return e.waitForRoom()
}

// wantRoom has segment g grown to at least need bytes.
func (e *Engine) requestGrowth(lg *log, seg *segment, need int64) Status {
	if lg.noSpace {
		if e.now < lg.retryAt {
			return NoSpace
		}
		lg.noSpace = false
	}
	if lg.provisioning || e.failed {
		return e.waitForRoom()
	}
	job := e.provision.take()
	if job == nil {
		return e.waitForRoom()
	}
	need = int64(format.AlignBlock(int(need)))
	bytes := max(seg.allocated, growBytesMin)
	for bytes < need {
		bytes *= 2
	}
	bytes = max(min(bytes, int64(e.o.SegmentBytes)), need)
	*job = provisionJob{stage: jobOpen, log: lg.slot, segment: seg.number, bytes: bytes, bytesMin: max(need, seg.allocated+growBytesMin)}
	lg.provisioning = true
	return e.waitForRoom()
}

// spaceGone: l waits for room, which spares make at once.
func (e *Engine) diskFull(lg *log) {
	if e.ReleaseRecycled() {
		e.progress++
		return
	}
	lg.noSpace, lg.retryAt = true, e.now+retryNS
	e.stats.NoSpace++
	e.progress++
}

func (e *Engine) stepProvision(sleep *ioring.Instant) {
	if e.provision.busy == 0 {
		return
	}
	for i := range e.provision.jobs {
		if job := &e.provision.jobs[i]; job.stage != jobFree && !job.pushed {
			e.stepJob(uint32(i), job, sleep)
		}
	}
}

func (e *Engine) stepJob(index uint32, job *provisionJob, sleep *ioring.Instant) {
	seg := &e.segments.all[job.segment]
	token := ioring.MakeToken(kindProvision, 0, index)
	switch job.stage {
	case jobRename:
		at := (len(e.files.table) + 1 + int(index)) * pathBytes
		path := e.files.paths.Slice(at, pathBytes)
		format.PutSegmentPath(path.Bytes(), job.recycled)
		format.PutSegmentPath(path.Bytes()[format.SegmentPathBytes:], seg.generation)
		job.pushed = e.ring.Push(ioring.Op{Code: ioring.Rename, Buf: path, Token: token})
	case jobOpen:
		_, pending, errno := e.files.acquire(seg, job.create)
		if errno != 0 {
			job.errno = errno
			e.jobFailed(job)
			return
		}
		if pending {
			if e.ring.Room() < 1 {
				earlier(sleep, e.now)
			}
			return
		}
		job.pinned, job.stage = true, jobAllocate
		fallthrough
	case jobAllocate:
		job.pushed = e.ring.Push(ioring.Op{Code: ioring.Allocate, File: e.files.firstSlot + uint32(seg.file), Offset: uint64(seg.allocated), Arg: uint64(job.bytes - seg.allocated), Token: token})
	case jobSync:
		job.pushed = e.ring.Push(ioring.Op{Code: ioring.Sync, Flags: ioring.FlagFull, File: e.files.firstSlot + uint32(seg.file), Token: token})
	case jobDirectory:
		job.pushed = e.ring.Push(ioring.Op{Code: ioring.Sync, Flags: ioring.FlagFull, File: e.o.Files + slotSegments, Token: token})
	case jobEntry:
		if e.failed {
			e.endJob(job)
			return
		}
		if e.openFrameFor(0) {
			e.journal.appendControl(&e.cache, format.Entry{Kind: format.EntryAssigned, Log: e.logs.all[job.log].id, Slot: uint32(job.log), Base: e.logs.all[job.log].end, Aux: seg.generation})
			job.stage = jobAwait
		}
		return
	case jobAwait:
		if e.failed {
			e.endJob(job)
		}
		return
	}
	if !job.pushed {
		earlier(sleep, e.now)
		return
	}
	e.disk.begin(WorkFiles, metadataBytes)
}

func (e *Engine) provisionCompleted(index uint32, completion ioring.Completion) {
	job := &e.provision.jobs[index]
	job.pushed = false
	e.disk.end(WorkFiles, metadataBytes)
	if again(job.stage.code(), completion.Result) {
		return
	}
	seg := &e.segments.all[job.segment]
	if completion.Result < 0 {
		job.errno = int(-completion.Result)
		if job.stage == jobAllocate && spaceShort(ioring.Allocate, job.errno) && job.bytes > job.bytesMin && e.recycled.count == 0 {
			job.bytes = max(job.bytesMin, (seg.allocated+job.bytes)/2&^(format.BlockBytes-1)) // half as much more
			return
		}
		e.jobFailed(job)
		return
	}
	switch job.stage {
	case jobRename:
		seg.allocated, seg.recycled = job.bytes, true
		job.stage = jobDirectory
		if job.zeroes {
			e.stats.Zeroed++
		} else {
			e.stats.Recycled++
		}
	case jobAllocate:
		job.stage = jobSync
	case jobSync:
		seg.allocated = job.bytes
		if job.create {
			job.stage = jobDirectory
			return
		}
		e.stats.Grown++
		e.endJob(job)
	case jobDirectory:
		job.stage = jobEntry
	}
}

// segmentAssigned: the journal says durably whose the file is.
func (e *Engine) segmentAssigned(lg *log, generation uint64) {
	for i := range e.provision.jobs {
		job := &e.provision.jobs[i]
		if job.stage == jobAwait && e.segments.all[job.segment].generation == generation {
			seg := &e.segments.all[job.segment]
			seg.ready = true
			e.stats.SegmentsMade++
			if lg.active == none {
				lg.active, lg.writing = job.segment, job.segment
				seg.base, seg.end = lg.end, lg.end
			}
			e.endJob(job)
			return
		}
	}
}

// workFailed gives up: what was there before stays, a new file is removed.
func (e *Engine) jobFailed(job *provisionJob) {
	lg, code := &e.logs.all[job.log], job.stage.code()
	full := spaceShort(code, job.errno)
	if !full {
		seg := &e.segments.all[job.segment]
		failure := Failure{Op: code, File: SegmentFile, Generation: seg.generation, Errno: ioring.Errno(job.errno), Log: lg.id}
		switch job.stage {
		case jobRename:
			failure.Generation = job.recycled
		case jobAllocate:
			failure.Offset, failure.Length = seg.allocated, job.bytes-seg.allocated
		case jobDirectory:
			failure.File = SegmentsDirectory
		}
		e.survived(failure)
	}
	if job.create {
		// it is the log's last: one work at a time
		if lg.firstSegment == job.segment {
			lg.firstSegment, lg.lastSegment = none, none
		} else {
			for g := lg.firstSegment; g != none; g = e.segments.all[g].next {
				if e.segments.all[g].next == job.segment {
					e.segments.all[g].next, lg.lastSegment = none, g
				}
			}
		}
		e.segments.all[job.segment].next = none
		e.segments.remove(&e.index, &e.segments.all[job.segment])
	} else if !full {
		e.segments.all[job.segment].broken = true
	}
	e.diskFull(lg)
	e.endJob(job)
}

func (e *Engine) endJob(job *provisionJob) {
	if job.pinned {
		e.files.unpin(&e.segments.all[job.segment])
	}
	lg := &e.logs.all[job.log]
	lg.provisioning = false
	*job = provisionJob{}
	e.provision.busy--
	e.progress++
	e.finishDeletion(lg)
}
