package engine

import (
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
)

// provisioner makes and grows segments, a few at a time, ahead of need: see admit. A
// log has one job at most (log.provisioning).
type provisioner struct {
	env  *env
	jobs [jobsMax]provisionJob
	busy int
}

// provisionJob makes a log's next segment, of a recycled file where there is one, or
// grows a segment:
//
//	rename();                                 await syncDirectory(); entry(assigned); await durable; ready
//	open(create); await allocate(); await sync(); await syncDirectory(); entry(assigned); await durable; ready
//	open();       await allocate(); await sync(); grown
type provisionJob struct {
	stage    jobStage
	create   bool   // it makes a segment
	pushed   bool   // its operation is in flight
	pinned   bool   // its file is pinned
	zeroes   bool   // the recycled file is one of zeroes
	recycled uint64 // the generation that the recycled file had
	log      Slot
	segment  int32
	bytes    int64 // the size to reach
	bytesMin int64 // the size that is needed now, where the disk has no room for bytes
	asked    int64 // the entry bytes that it is made for
	errno    int
}

// growBytesMin is the least size of a new segment, and the least growth of one. What
// a nearly full disk has left below that is kept for the next start, which needs some.
const growBytesMin = 1 << 20

// jobsMax is how many segments are made or grown at a time. Sixteen made no more of
// them a second (docs/decisions/0018-many-logs.md).
const jobsMax = 4

// retryNS is how long a log that found no space on the disk waits before it tries
// again.
const retryNS = 1e9

// jobStage is the operation or event that a job waits for.
type jobStage uint8

const (
	jobFree jobStage = iota
	jobRename
	jobOpen
	jobAllocate
	jobSync
	jobDirectory
	jobEntry // the entry that assigns the segment to its log is to be appended
	jobAwait // until that entry is durable
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

// beginJob takes a free job for a log, which is to have what it may lack, for n entry
// bytes. A nil job: it has to wait, and the Status says for what.
func (e *Engine) beginJob(lg *log, what lack, n int64) (*provisionJob, Status) {
	if e.now < lg.refused[what] || e.shortage.covers(lg, what, n) {
		return nil, NoSpace
	}
	p := &e.provision
	if lg.provisioning || p.env.failed {
		return nil, p.env.waitForRoom()
	}
	for i := range p.jobs {
		if p.jobs[i].stage == jobFree {
			p.busy++
			return &p.jobs[i], OK
		}
	}
	return nil, p.env.waitForRoom()
}

// requestSegment has the log's next segment made, with room for n entry bytes. The
// Status is for an append that cannot go on without it: WaitRoom or NoSpace.
func (e *Engine) requestSegment(lg *log, n int64) Status {
	job, st := e.beginJob(lg, lacksSegment, n)
	if job == nil {
		return st
	}
	*job = provisionJob{stage: jobOpen, create: true, log: lg.slot, segment: none, bytes: growBytesMin, asked: n}
	file := none
	if i := e.recycled.find(&e.segments, lg, format.RoomFor(n)); i >= 0 && e.segments.counter < generationsMax {
		kept := e.recycled.take(&e.segments, i)
		was := &e.segments.all[kept.segment]
		job.stage, job.bytes = jobRename, was.allocated
		job.recycled, job.zeroes = was.generation, kept.zeroed
		file = was.file
		e.segments.release(was)
	}
	seg, limit := e.segments.takeNew(lg.slot)
	if seg == nil {
		*job = provisionJob{}
		e.provision.busy--
		e.noRoom(lg, lacksSegment, Failure{Limit: limit, Log: lg.id}, n)
		return NoSpace
	}
	if job.segment = seg.number; file != none { // an open file stays open under its new name
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

// requestGrowth has a log's segment grown to at least need bytes, for n entry bytes. The
// Status is as requestSegment's.
func (e *Engine) requestGrowth(lg *log, seg *segment, need, n int64) Status {
	job, st := e.beginJob(lg, lacksGrowth, n)
	if job == nil {
		return st
	}
	need = int64(format.AlignBlock(int(need)))
	bytes := max(seg.allocated, growBytesMin)
	for bytes < need {
		bytes *= 2
	}
	bytes = max(min(bytes, int64(e.o.SegmentBytes)), need)
	*job = provisionJob{stage: jobOpen, log: lg.slot, segment: seg.number, bytes: bytes, bytesMin: max(need, seg.allocated+growBytesMin), asked: n}
	lg.provisioning = true
	return e.waitForRoom()
}

// moveToNextSegment moves what is pending from a broken segment to the log's next
// one, once that is ready. It returns false, as nothing can be flushed in this step.
func (e *Engine) moveToNextSegment(lg *log) bool {
	seg := &e.segments.all[lg.writing]
	if seg.next == none {
		e.requestSegment(lg, seg.pending)
		return false
	}
	next := &e.segments.all[seg.next]
	if !next.ready {
		return false
	}
	next.pending += seg.pending
	seg.pending = 0
	next.base, next.end = lg.flushed, lg.flushed
	lg.active, lg.writing = seg.next, seg.next
	return false
}

// stepProvision starts what the jobs wait for.
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

// stepJob starts the operation that a job's stage waits for.
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
		_, pending, errno := e.files.acquire(seg, job.create, sleep)
		if errno != 0 {
			job.errno = errno
			e.jobFailed(job)
			return
		}
		if pending {
			return
		}
		job.pinned, job.stage = true, jobAllocate
		fallthrough
	case jobAllocate:
		job.pushed = e.ring.Push(ioring.Op{Code: ioring.Allocate, File: e.files.firstSlot + uint32(seg.file),
			Offset: uint64(seg.allocated), Arg: uint64(job.bytes - seg.allocated), Token: token})
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
			lg := &e.logs.all[job.log]
			e.journal.appendControl(&e.cache, format.Entry{Kind: format.EntryAssigned, Log: lg.id, Slot: uint32(job.log), Base: lg.end, Aux: seg.generation})
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

// provisionCompleted takes the completion of a job's operation and goes on to the
// next stage. Where the disk has no room for all that was asked, half as much growth
// is tried, down to what is needed now.
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
		if job.stage == jobAllocate && spaceShort(ioring.Allocate, job.errno) && job.bytes > job.bytesMin && !e.recycled.releasable() {
			job.bytes = max(job.bytesMin, (seg.allocated+job.bytes)/2&^(format.BlockBytes-1))
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
		e.roomFound(&e.logs.all[job.log])
		e.endJob(job)
	case jobDirectory:
		job.stage = jobEntry
	}
}

// segmentAssigned ends the job of a new segment: the journal says durably which log
// it belongs to.
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
			e.roomFound(lg)
			e.endJob(job)
			return
		}
	}
}

// jobFailed gives a job up. A segment that was to grow stays as it was, and takes no
// more extents unless the disk was only full; a new one is removed.
func (e *Engine) jobFailed(job *provisionJob) {
	lg, code := &e.logs.all[job.log], job.stage.code()
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
	if job.create {
		// The new segment is the log's last: a log has one job at a time.
		if lg.firstSegment == job.segment {
			lg.firstSegment, lg.lastSegment = none, none
		} else {
			for seg := e.segments.at(lg.firstSegment); seg != nil; seg = e.segments.at(seg.next) {
				if seg.next == job.segment {
					seg.next, lg.lastSegment = none, seg.number
				}
			}
		}
		e.segments.all[job.segment].next = none
		e.segments.remove(&e.index, &e.segments.all[job.segment])
	} else if !failure.Full() {
		seg.broken = true
	}
	what := lacksGrowth
	if job.create {
		what = lacksSegment
	}
	switch {
	case lg.state != logOpen:
	case job.stage == jobRename && ioring.Judge(code, -int32(job.errno)) == ioring.Missing:
		// A crash had the journal say again of a segment that its file is free, which the life
		// before had used already. Another file is taken, or made.
		e.progress++
	default:
		e.noRoom(lg, what, failure, job.asked)
	}
	e.endJob(job)
}

// endJob frees a job. Its log may go on, or be freed where it was deleted meanwhile.
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
