package engine

import (
	"encoding/binary"

	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// ages finds out how old segments of earlier lives are, before retention removes them.
//
// A segment is as old as its largest timestamp, if all of its runs say that their
// timestamps were checked (format.RunTimesChecked). Otherwise a producer may have claimed
// something else than its records say, or some records have no timestamp, and the segment
// is as old as its last write. Of what this life writes both are known. Of earlier lives
// only the runs say it, and the file, which are read when the segment seems to be old enough to
// go. One segment at a time, as the function it stands for:
//
//	open(file); for { await read(headers of runs) }; if any was not checked { await stat(file) }
type ages struct {
	env   *env
	block mem.Block
	due   bool  // a segment may have ageDue
	next  int32 // the segment to look at next
	job   ageJob
	rest  ioring.Instant // no read is begun before
}

// ageJob is the segment whose age is being found out.
type ageJob struct {
	active    bool
	opened    bool // its file is pinned
	pushed    bool // its operation is in flight
	stat      bool // which is the Stat
	unchecked bool // a run was found whose timestamps were not checked
	segment   int32
	at, until int64 // the runs from at to until are to be read
}

// One read has the headers of many small runs. Between two reads there is a rest, a longer
// one beside appends, because nothing waits for the result.
const (
	ageReadBytes    = 64 << 10
	ageRestNS       = 1e6
	ageRestBesideNS = 10e6
)

func (a *ages) allocate(arena *mem.Arena) (err error) {
	a.block, err = arena.Allocate("ages of segments", ageReadBytes, format.BlockBytes)
	return err
}

// request has the age of a segment of an earlier life found out.
func (a *ages) request(seg *segment) { seg.ageDue, a.due = true, true }

// step begins with the next segment that is due, and starts its next operation.
func (a *ages) step(segments *segments, files *files, sleep *ioring.Instant) {
	job := &a.job
	if !job.active && !a.begin(segments) || job.pushed {
		return
	}
	seg := &segments.all[job.segment]
	if a.env.stopping || a.env.failed {
		a.end(files, seg)
		return
	}
	if a.env.now < a.rest {
		earlier(sleep, a.rest)
		return
	}
	if !job.opened {
		_, pending, errno := files.acquire(seg, false, sleep)
		if errno != 0 {
			job.unchecked = true
			a.found(files, seg, format.NoTime)
			return
		}
		if pending {
			return
		}
		job.opened = true
	}
	op := ioring.Op{Code: ioring.Stat, File: files.firstSlot + uint32(seg.file), Buf: a.block, Token: ioring.MakeToken(kindAge, 0, 0)}
	if !job.stat {
		op.Code, op.Offset, op.Buf = ioring.Read, uint64(job.at), a.block.Slice(0, int(min(ageReadBytes, job.until-job.at)))
	}
	if job.pushed = a.env.ring.Push(op); !job.pushed {
		earlier(sleep, a.env.now)
		return
	}
	a.env.disk.begin(WorkFiles, metadataBytes)
}

// begin begins with the next segment that is due. False: none is.
func (a *ages) begin(segments *segments) bool {
	if !a.due || a.env.stopping || a.env.failed {
		return false
	}
	for range segments.all {
		seg := &segments.all[a.next]
		a.next = (a.next + 1) % int32(len(segments.all))
		if seg.ageDue {
			seg.ageDue = false
			seg.readers++ // the file is not removed meanwhile
			a.job = ageJob{active: true, segment: seg.number, until: seg.position}
			return true
		}
	}
	a.due = false
	return false
}

// completed takes the completion of a read or of the Stat.
func (a *ages) completed(logs *logTable, segments *segments, files *files, completion ioring.Completion) {
	job := &a.job
	seg := &segments.all[job.segment]
	code := ioring.Read
	if job.stat {
		code = ioring.Stat
	}
	job.pushed = false
	a.env.disk.end(WorkFiles, metadataBytes)
	if again(code, completion.Result) {
		return
	}
	if a.rest = a.env.now + ageRestNS; a.env.appending() {
		a.rest = a.env.now + ageRestBesideNS
	}
	if completion.Result < 0 {
		a.env.survived(Failure{Op: code, File: SegmentFile, Generation: seg.generation, Offset: job.at, Errno: ioring.Errno(-completion.Result), Log: logs.all[seg.log].id})
	}
	switch {
	case job.stat && completion.Result < 0:
		a.found(files, seg, format.NoTime)
	case job.stat:
		a.found(files, seg, int64(binary.LittleEndian.Uint64(a.block.Bytes()[8:])))
	default:
		a.examine(logs, seg, a.block.Bytes()[:max(completion.Result, 0)])
		if job.stat = job.unchecked; !job.stat && job.at >= job.until {
			a.found(files, seg, format.NoTime)
		}
	}
}

// examine looks at the headers of runs in what was read. What is no run of the segment is
// taken for one whose timestamps were not checked.
func (a *ages) examine(logs *logTable, seg *segment, buf []byte) {
	job, at := &a.job, 0
	for job.at < job.until && !job.unchecked {
		var header format.RunHeader
		if at+format.HeaderBytes > len(buf) {
			job.unchecked = at == 0
			return
		}
		own := header.Get(buf[at:]) && header.IsOf(a.env.dir, seg.generation, logs.all[seg.log].id)
		job.unchecked = !own || !header.TimesChecked
		at += header.Bytes()
		job.at += int64(header.Bytes())
	}
}

// found records the result: modified is when the file was last written, NoTime if that
// is not known or does not matter. A segment of which it matters and is not known is as old
// as this life knows it.
func (a *ages) found(files *files, seg *segment, modified int64) {
	seg.ageKnown = true
	a.env.stats.AgesRead++
	if a.job.unchecked {
		seg.unchecked, seg.modified = true, modified
		if modified == format.NoTime {
			seg.writtenAt = max(a.env.now, 1)
		}
	}
	a.end(files, seg)
}

// end ends the work on a segment.
func (a *ages) end(files *files, seg *segment) {
	if a.job.opened {
		files.unpin(seg)
	}
	seg.readers--
	a.job.active = false
}
