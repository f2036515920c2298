package engine

import (
	"math"
	"slices"

	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// recycledFiles are files to become segments of logs to come. Their blocks were
// written before: thin-provisioned disks, as virtual machines have them, allocate a
// block on its first write, which costs 2-3x (docs/decisions/0017-new-blocks.md).
// They are files of removed segments, and files that were filled with zeroes while
// nothing was appended.
//
// How a removed segment's file becomes another log's segment. It gets a new name;
// until the journal names its log, what it holds counts for nothing:
//
//	await start moved past it, or log closed, durable; await its readers; close()
//	await rename(old, new); await syncDirectory(); entry(assigned); await durable; ready
//
// How a file of zeroes is made. Each step waits until nothing was appended for
// preallocQuietNS and nothing is in flight:
//
//	open(create); await allocate(); until full { await write(zeroes) }; await sync()
type recycledFiles struct {
	env           *env
	files         [RecycledMax]recycledFile
	count         int
	releasedBytes int64     // of files of removed segments
	zeroedBytes   int64     // of files of zeroes
	zeroes        mem.Block // what is written to them; empty: none are made
	prealloc      preallocation
	preallocAfter ioring.Instant // no file of zeroes is begun before
}

// recycledFile is one of them: an entry of the table of segments that is in no log.
type recycledFile struct {
	segment int32
	since   ioring.Instant
	zeroed  bool // it is a file of zeroes
	held    bool // it is for the log that had it, and is not removed for lack of room: see KeepNext
}

// preallocation is the file of zeroes that is being made.
type preallocation struct {
	stage   preallocStage
	pushed  bool
	pinned  bool
	segment int32
	bytes   int64 // its size
	zeroed  int64 // how many of them are written
	asked   int   // bytes that the operation in flight counts as, in Disk
}

// preallocStage is the next operation of a file of zeroes.
type preallocStage uint8

const (
	preallocIdle preallocStage = iota
	preallocOpen
	preallocAllocate
	preallocZero
	preallocSync
)

// code is the operation that a stage waits for.
func (s preallocStage) code() ioring.Code {
	switch s {
	case preallocAllocate:
		return ioring.Allocate
	case preallocZero:
		return ioring.Write
	case preallocSync:
		return ioring.Sync
	}
	return ioring.Open
}

// PrepareBytesMin is the size of a file of zeroes. They are larger where
// Options.PrepareBytes would otherwise be more than RecycledMax/2 of them.
const PrepareBytesMin = 64 << 20

// RecycledMax bounds how many files a shard keeps.
const RecycledMax = 256

const (
	recycledKeepNS  = 600e9     // a removed segment's file that was not taken for so long is removed
	zeroWriteBytes  = 256 << 10 // one write of zeroes
	preallocRetryNS = 600e9     // after the disk had no room
	preallocQuietNS = 50e6      // after the last append, before a step of a file of zeroes
)

// allocate makes the zeroes to write, if files of zeroes are to be made.
func (r *recycledFiles) allocate(arena *mem.Arena) (err error) {
	if r.env.preallocBytes() > 0 && r.env.o.DirectBytes > 0 {
		r.zeroes, err = arena.Allocate("zeroes", zeroWriteBytes, format.BlockBytes)
		clear(r.zeroes.Bytes())
	}
	return err
}

// keep keeps the file of a removed segment, which is closed, for another log. False:
// it is to be removed.
func (r *recycledFiles) keep(seg *segment) bool {
	return !r.env.stopping && !seg.broken && seg.position > 0 && seg.position >= seg.allocated/2 && r.add(seg, false)
}

// add keeps a file. False: there are too many, or too many bytes of its sort.
func (r *recycledFiles) add(seg *segment, zeroes bool) bool {
	sum, most := &r.releasedBytes, r.env.o.SpareBytes
	if zeroes {
		sum, most = &r.zeroedBytes, r.env.o.PrepareBytes
	}
	if r.env.failed || r.count == RecycledMax || *sum+seg.allocated > most {
		return false
	}
	r.files[r.count] = recycledFile{segment: seg.number, since: r.env.now, zeroed: zeroes}
	r.count++
	*sum += seg.allocated
	return true
}

// hold keeps the file of a removed segment for the log that had it. False: it is to be
// removed. At a stop it is kept too, as the room that it gives up might be taken: the next
// start removes it, as no log names it, and has its room for the log's next segment.
func (r *recycledFiles) hold(seg *segment) bool {
	if r.env.failed || seg.broken || r.count == RecycledMax {
		return false
	}
	r.files[r.count] = recycledFile{segment: seg.number, since: r.env.now, held: true}
	r.count++
	r.releasedBytes += seg.allocated
	return true
}

// heldFor is the index of the file that is held for a log, if it has room for n bytes;
// another that is held is removed. -1: there is none.
func (r *recycledFiles) heldFor(segments *segments, lg *log, n int64) int {
	for i := r.count - 1; i >= 0; i-- {
		if seg := &segments.all[r.files[i].segment]; r.files[i].held && seg.log == lg.slot {
			if seg.allocated >= n {
				return i
			}
			segments.discard(&segments.all[r.take(segments, i).segment])
		}
	}
	return -1
}

// dropHeld removes the files that are held for a log, as it has what they were held for.
func (r *recycledFiles) dropHeld(segments *segments, lg *log) {
	r.heldFor(segments, lg, math.MaxInt64)
}

// find is the index of the largest file for a log that has room for n bytes; -1:
// there is none. Files of removed segments go first, as they are not kept for long.
// A log that writes directly takes files up to its segments' limit, any other log
// only files no larger than the segment it fills now.
func (r *recycledFiles) find(segments *segments, lg *log, n int64) int {
	if lg.keptNext > 0 {
		return r.heldFor(segments, lg, n)
	}
	limit, best := r.env.segmentLimit(lg), -1
	if !r.env.writesDirect(lg) {
		if lg.active == none {
			return -1
		}
		limit = min(limit, segments.all[lg.active].allocated)
	}
	for i := range r.count {
		file := &r.files[i]
		has := segments.all[file.segment].allocated
		if has < n || has > limit || file.held {
			continue
		}
		if best < 0 || r.files[best].zeroed && !file.zeroed || r.files[best].zeroed == file.zeroed && has > segments.all[r.files[best].segment].allocated {
			best = i
		}
	}
	return best
}

// writesDirect reports that the log's last direct extent was large enough to expect
// more of them.
func (v *env) writesDirect(lg *log) bool {
	return v.o.DirectBytes > 0 && lg.extentBytes >= v.o.DirectBytes/2
}

// take takes file number i out of those that are kept.
func (r *recycledFiles) take(segments *segments, i int) recycledFile {
	file := r.files[i]
	r.count--
	r.files[i] = r.files[r.count]
	if file.zeroed {
		r.zeroedBytes -= segments.all[file.segment].allocated
	} else {
		r.releasedBytes -= segments.all[file.segment].allocated
	}
	return file
}

// Recycled is how many files are kept for new segments, and their bytes.
func (e *Engine) Recycled() (n int, bytes int64) {
	return e.recycled.count, e.recycled.releasedBytes + e.recycled.zeroedBytes
}

// ReleaseRecycled removes the files that are kept for new segments, because
// something found no room on this disk. False: there is none.
func (e *Engine) ReleaseRecycled() (any bool) { return e.recycled.releaseAll(&e.segments) }

// releaseAll removes all files, and makes none of zeroes for a while. False: there is none.
func (r *recycledFiles) releaseAll(segments *segments) (any bool) {
	r.preallocAfter = r.env.now + preallocRetryNS
	return r.releaseOlder(segments, r.env.now, true)
}

// releasable reports that there are files which releaseAll removes.
func (r *recycledFiles) releasable() bool {
	return slices.ContainsFunc(r.files[:r.count], func(file recycledFile) bool { return !file.held })
}

// releaseOlder removes the files of removed segments that are kept since before or
// longer, and with zeroed the files of zeroes too. False: there is none.
func (r *recycledFiles) releaseOlder(segments *segments, before ioring.Instant, zeroed bool) (any bool) {
	for i := r.count - 1; i >= 0; i-- {
		if file := &r.files[i]; file.since <= before && (zeroed || !file.zeroed) && !file.held {
			any = true
			segments.discard(&segments.all[r.take(segments, i).segment])
		}
	}
	return any
}

// discard has a file that is in no log removed, and not kept again.
func (s *segments) discard(seg *segment) {
	seg.position = 0
	s.unlinks = append(s.unlinks, seg.number)
}

// step removes what was kept too long, and makes files of zeroes while the disk is
// quiet: diskBusy says that something is in flight.
func (r *recycledFiles) step(journal *journal, segments *segments, files *files, diskBusy bool, sleep *ioring.Instant) {
	if r.count > 0 {
		r.releaseOlder(segments, r.env.now-recycledKeepNS, false)
		earlier(sleep, r.env.now+recycledKeepNS/10)
	}
	if r.zeroes.Len() > 0 && !r.env.failed && !r.env.stopping && !r.prealloc.pushed {
		r.stepPreallocate(journal, segments, files, diskBusy, sleep)
	}
}

// stepPreallocate starts the next operation of the file of zeroes.
func (r *recycledFiles) stepPreallocate(journal *journal, segments *segments, files *files, diskBusy bool, sleep *ioring.Instant) {
	prealloc := &r.prealloc
	at := journal.lastEntry + preallocQuietNS
	if prealloc.stage == preallocIdle {
		if r.count == RecycledMax || r.zeroedBytes+r.env.preallocBytes() > r.env.o.PrepareBytes {
			return
		}
		at = max(at, r.preallocAfter)
	}
	switch {
	case r.env.now < at:
		earlier(sleep, at)
		return
	case diskBusy: // the step comes again when that ends
		return
	case prealloc.stage == preallocIdle:
		fresh, _ := segments.takeNew(0)
		if fresh == nil {
			r.preallocAfter = r.env.now + preallocRetryNS
			return
		}
		r.prealloc = preallocation{stage: preallocOpen, segment: fresh.number, bytes: r.env.preallocBytes()}
	}
	seg := &segments.all[prealloc.segment]
	op := ioring.Op{Token: ioring.MakeToken(kindPreallocate, 0, 0)}
	switch prealloc.stage {
	case preallocOpen:
		_, pending, errno := files.acquire(seg, true, sleep)
		if errno != 0 {
			r.preallocFailed(segments, files, ioring.Open, errno)
			return
		}
		if pending {
			return
		}
		prealloc.pinned, prealloc.stage = true, preallocAllocate
		fallthrough
	case preallocAllocate:
		op.Code, op.Arg = ioring.Allocate, uint64(prealloc.bytes)
	case preallocZero:
		op.Code, op.Offset, op.Buf = ioring.Write, uint64(prealloc.zeroed), r.zeroes.Slice(0, int(min(zeroWriteBytes, prealloc.bytes-prealloc.zeroed)))
	case preallocSync:
		op.Code, op.Flags = ioring.Sync, ioring.FlagFull
	}
	op.File = files.firstSlot + uint32(seg.file)
	if prealloc.pushed = r.env.ring.Push(op); !prealloc.pushed {
		earlier(sleep, r.env.now)
		return
	}
	prealloc.asked = max(op.Buf.Len(), metadataBytes)
	r.env.disk.begin(WorkFiles, prealloc.asked)
}

// preallocBytes is the size of a file of zeroes. Most topics' segments may be as
// large.
func (v *env) preallocBytes() int64 {
	n := min(max(PrepareBytesMin, v.o.PrepareBytes/(RecycledMax/2)), int64(v.o.SegmentBytes), v.o.PrepareBytes)
	return n &^ (format.BlockBytes - 1)
}

// preallocCompleted takes the completion of a step and goes on to the next. A short
// write of zeroes goes on at the next block.
func (r *recycledFiles) preallocCompleted(segments *segments, files *files, completion ioring.Completion) {
	prealloc := &r.prealloc
	prealloc.pushed = false
	r.env.disk.end(WorkFiles, prealloc.asked)
	code := prealloc.stage.code()
	if again(code, completion.Result) {
		return
	}
	if completion.Result < 0 {
		r.preallocFailed(segments, files, code, int(-completion.Result))
		return
	}
	switch prealloc.stage {
	case preallocAllocate:
		prealloc.stage = preallocZero
	case preallocZero:
		n := int64(completion.Result) &^ (format.BlockBytes - 1)
		prealloc.zeroed += n
		r.env.stats.ZeroBytes += uint64(n)
		if prealloc.zeroed == prealloc.bytes {
			prealloc.stage = preallocSync
		}
	case preallocSync:
		seg := &segments.all[prealloc.segment]
		files.unpin(seg)
		seg.allocated = prealloc.bytes
		r.prealloc = preallocation{}
		if !r.add(seg, true) {
			segments.discard(seg)
		}
	}
}

// preallocFailed gives the file of zeroes up. Another one is begun later.
func (r *recycledFiles) preallocFailed(segments *segments, files *files, code ioring.Code, errno int) {
	if prealloc := &r.prealloc; !spaceShort(code, errno) {
		failure := Failure{Op: code, File: SegmentFile, Generation: segments.all[prealloc.segment].generation, Errno: ioring.Errno(errno)}
		if code == ioring.Write {
			failure.Offset, failure.Length = prealloc.zeroed, int64(prealloc.asked)
		}
		r.env.survived(failure)
	}
	if r.prealloc.pinned {
		files.unpin(&segments.all[r.prealloc.segment])
	}
	segments.discard(&segments.all[r.prealloc.segment])
	r.prealloc, r.preallocAfter = preallocation{}, r.env.now+preallocRetryNS
}
