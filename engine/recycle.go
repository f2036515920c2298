package engine

import (
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// recycled are files whose blocks were written before, which many disks are quicker
// with: one of a virtual machine finds a place for a block when it is first
// written. They are files that logs let go, or of zeroes, made ready while
// nothing is appended. One becomes a log's next segment so, and the name changes
// with it; what lies in it is nobody's until the journal says whose:
//
//	await start moved past it, or log closed, durable; await its readers; close()
//	await rename(old, new); await syncDirectory(); entry(assigned); await durable; ready
//
// A file of zeroes is no log's while anything is written to it, and each step
// waits until nothing was appended for a while, and nothing is in flight:
//
//	open(create); await allocate(); until full { await write(zeroes) }; await sync()
type recycledFiles struct {
	env           *env
	files         [RecycledMax]recycledFile
	count         int
	releasedBytes int64 // of those that logs let go
	zeroedBytes   int64 // of those of zeroes
	zeroes        mem.Block
	prealloc      preallocation
	preallocAfter ioring.Instant // no file is begun before
}

type recycledFile struct {
	segment int32
	since   ioring.Instant
	zeroed  bool
}

// making is the file of zeroes under way.
type preallocation struct {
	stage   preallocStage
	pushed  bool
	pinned  bool
	segment int32
	bytes   int64
	zeroed  int64
	asked   int // of the disk, by what was pushed last
}

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

// PrepareBytesMin is the size of a file of zeroes; they are larger where there
// would be more than RecycledMax/2 of them.
const PrepareBytesMin = 64 << 20

// RecycledMax is how many files a shard keeps ready at most.
const RecycledMax = 256

const (
	recycledKeepNS  = 600e9 // one that a log let go and nobody took for so long goes
	zeroWriteBytes  = 256 << 10
	preallocRetryNS = 600e9 // after the disk had no room
	preallocQuietNS = 50e6  // what is taken for quiet
)

func (r *recycledFiles) allocate(arena *mem.Arena) (err error) {
	if r.env.preallocBytes() > 0 && r.env.o.DirectBytes > 0 {
		r.zeroes, err = arena.Allocate("zeroes", zeroWriteBytes, format.BlockBytes)
		clear(r.zeroes.Bytes())
	}
	return err
}

// keepSpare keeps the file of segment g, which nobody has open, for another log.
// False: it may go.
func (r *recycledFiles) keep(seg *segment) bool {
	return !r.env.stopping && !seg.broken && seg.position > 0 && seg.position >= seg.allocated/2 && r.add(seg, false)
}

func (r *recycledFiles) add(seg *segment, zeroes bool) bool {
	sum, most := &r.releasedBytes, r.env.o.SpareBytes
	if zeroes {
		sum, most = &r.zeroedBytes, r.env.o.PrepareBytes
	}
	if r.env.failed || r.count == RecycledMax || *sum+seg.allocated > most {
		return false
	}
	r.files[r.count] = recycledFile{seg.number, r.env.now, zeroes}
	r.count++
	*sum += seg.allocated
	return true
}

// findSpare is the largest of the spares for l that has room for n bytes, rather
// one that a log let go, as those do not stay; -1. A log with large batches takes
// what it may have, another what it has filled once.
func (r *recycledFiles) find(segments *segments, lg *log, n int64) int {
	limit, best := r.env.segmentLimit(lg), -1
	if !r.env.writesDirect(lg) {
		if lg.active == none {
			return -1
		}
		limit = min(limit, segments.all[lg.active].allocated)
	}
	for i := range r.count {
		spare := &r.files[i]
		has := segments.all[spare.segment].allocated
		if has < n || has > limit {
			continue
		}
		if best < 0 || r.files[best].zeroed && !spare.zeroed || r.files[best].zeroed == spare.zeroed && has > segments.all[r.files[best].segment].allocated {
			best = i
		}
	}
	return best
}

// inRuns says that the log's batches, as far as is known, go to direct runs.
func (v *env) writesDirect(lg *log) bool {
	return v.o.DirectBytes > 0 && lg.extentBytes >= v.o.DirectBytes/2
}

func (r *recycledFiles) take(segments *segments, i int) (x recycledFile) {
	x = r.files[i]
	r.count--
	r.files[i] = r.files[r.count]
	if x.zeroed {
		r.zeroedBytes -= segments.all[x.segment].allocated
	} else {
		r.releasedBytes -= segments.all[x.segment].allocated
	}
	return x
}

// Recycled is how many files are kept for logs to come, and their bytes.
func (e *Engine) Recycled() (n int, bytes int64) {
	return e.recycled.count, e.recycled.releasedBytes + e.recycled.zeroedBytes
}

// ReleaseRecycled lets go of the files kept for logs to come: somebody else on this
// disk finds no room, or a log of its own. False: there is none.
func (e *Engine) ReleaseRecycled() (any bool) {
	e.recycled.preallocAfter = e.now + preallocRetryNS
	return e.recycled.releaseOlder(&e.segments, e.now, true)
}

// letSparesGo has the spares removed that nobody took since before; those made
// ready only where they are meant too. False: there is none.
func (r *recycledFiles) releaseOlder(segments *segments, before ioring.Instant, ready bool) (any bool) {
	for i := r.count - 1; i >= 0; i-- {
		if spare := &r.files[i]; spare.since <= before && (ready || !spare.zeroed) {
			any = true
			segments.discard(&segments.all[r.take(segments, i).segment])
		}
	}
	return any
}

// discard has a file removed and not kept.
func (s *segments) discard(seg *segment) {
	seg.position = 0
	s.unlinks = append(s.unlinks, seg.number)
}

func (e *Engine) stepRecycled(sleep *ioring.Instant) {
	if e.recycled.count > 0 {
		e.recycled.releaseOlder(&e.segments, e.now-recycledKeepNS, false)
		earlier(sleep, e.now+recycledKeepNS/10)
	}
	if e.recycled.zeroes.Len() > 0 && !e.failed && !e.stopping && !e.recycled.prealloc.pushed {
		e.stepPreallocate(sleep)
	}
}

// stepMaking goes on with the file of zeroes, one operation at a time.
func (e *Engine) stepPreallocate(sleep *ioring.Instant) {
	prealloc := &e.recycled.prealloc
	at := e.journal.lastEntry + preallocQuietNS
	if prealloc.stage == preallocIdle {
		if e.recycled.count == RecycledMax || e.recycled.zeroedBytes+e.preallocBytes() > e.o.PrepareBytes {
			return
		}
		at = max(at, e.recycled.preallocAfter)
	}
	switch {
	case e.now < at:
		earlier(sleep, at)
		return
	case e.diskBusy(): // what ends has this step come again
		return
	case prealloc.stage == preallocIdle:
		fresh := e.segments.take(e.segments.nextGeneration(), 0)
		if fresh == nil {
			e.recycled.preallocAfter = e.now + preallocRetryNS
			return
		}
		e.recycled.prealloc = preallocation{stage: preallocOpen, segment: fresh.number, bytes: e.preallocBytes()}
	}
	seg := &e.segments.all[prealloc.segment]
	op := ioring.Op{Token: ioring.MakeToken(kindPreallocate, 0, 0)}
	switch prealloc.stage {
	case preallocOpen:
		_, pending, errno := e.files.acquire(seg, true)
		if errno != 0 {
			e.recycled.preallocFailed(&e.segments, &e.files, ioring.Open, errno)
			return
		}
		if pending {
			if e.ring.Room() < 1 {
				earlier(sleep, e.now)
			}
			return
		}
		prealloc.pinned, prealloc.stage = true, preallocAllocate
		fallthrough
	case preallocAllocate:
		op.Code, op.Arg = ioring.Allocate, uint64(prealloc.bytes)
	case preallocZero:
		op.Code, op.Offset, op.Buf = ioring.Write, uint64(prealloc.zeroed), e.recycled.zeroes.Slice(0, int(min(zeroWriteBytes, prealloc.bytes-prealloc.zeroed)))
	case preallocSync:
		op.Code, op.Flags = ioring.Sync, ioring.FlagFull
	}
	op.File = e.files.firstSlot + uint32(seg.file)
	if prealloc.pushed = e.ring.Push(op); !prealloc.pushed {
		earlier(sleep, e.now)
		return
	}
	prealloc.asked = max(op.Buf.Len(), metadataBytes)
	e.disk.begin(WorkFiles, prealloc.asked)
}

// zeroFileBytes is the size of a file of zeroes: one that most topics may have as
// a segment.
func (v *env) preallocBytes() int64 {
	n := min(max(PrepareBytesMin, v.o.PrepareBytes/(RecycledMax/2)), int64(v.o.SegmentBytes), v.o.PrepareBytes)
	return n &^ (format.BlockBytes - 1)
}

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

// makingFailed: it is tried again later, with another file.
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
