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

func (e *Engine) allocateRecycled(arena *mem.Arena) (err error) {
	if e.preallocBytes() > 0 && e.o.DirectBytes > 0 {
		e.recycled.zeroes, err = arena.Allocate("zeroes", zeroWriteBytes, format.BlockBytes)
		clear(e.recycled.zeroes.Bytes())
	}
	return err
}

// keepSpare keeps the file of segment g, which nobody has open, for another log.
// False: it may go.
func (e *Engine) keepForRecycling(seg *segment) bool {
	return !e.stopping && !seg.broken && seg.position > 0 && seg.position >= seg.allocated/2 && e.addRecycled(seg, false)
}

func (e *Engine) addRecycled(seg *segment, zeroes bool) bool {
	sum, most := &e.recycled.releasedBytes, e.o.SpareBytes
	if zeroes {
		sum, most = &e.recycled.zeroedBytes, e.o.PrepareBytes
	}
	if e.failed || e.recycled.count == RecycledMax || *sum+seg.allocated > most {
		return false
	}
	e.recycled.files[e.recycled.count] = recycledFile{seg.number, e.now, zeroes}
	e.recycled.count++
	*sum += seg.allocated
	return true
}

// findSpare is the largest of the spares for l that has room for n bytes, rather
// one that a log let go, as those do not stay; -1. A log with large batches takes
// what it may have, another what it has filled once.
func (e *Engine) findRecycled(lg *log, n int64) int {
	limit, best := e.segmentLimit(lg), -1
	if !e.writesDirect(lg) {
		if lg.active == none {
			return -1
		}
		limit = min(limit, e.segments.all[lg.active].allocated)
	}
	for i := range e.recycled.count {
		spare := &e.recycled.files[i]
		has := e.segments.all[spare.segment].allocated
		if has < n || has > limit {
			continue
		}
		if best < 0 || e.recycled.files[best].zeroed && !spare.zeroed || e.recycled.files[best].zeroed == spare.zeroed && has > e.segments.all[e.recycled.files[best].segment].allocated {
			best = i
		}
	}
	return best
}

// inRuns says that the log's batches, as far as is known, go to direct runs.
func (e *Engine) writesDirect(lg *log) bool {
	return e.o.DirectBytes > 0 && lg.extentBytes >= e.o.DirectBytes/2
}

func (e *Engine) takeRecycled(i int) (x recycledFile) {
	x = e.recycled.files[i]
	e.recycled.count--
	e.recycled.files[i] = e.recycled.files[e.recycled.count]
	if x.zeroed {
		e.recycled.zeroedBytes -= e.segments.all[x.segment].allocated
	} else {
		e.recycled.releasedBytes -= e.segments.all[x.segment].allocated
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
	return e.releaseRecycled(e.now, true)
}

// letSparesGo has the spares removed that nobody took since before; those made
// ready only where they are meant too. False: there is none.
func (e *Engine) releaseRecycled(before ioring.Instant, ready bool) (any bool) {
	for i := e.recycled.count - 1; i >= 0; i-- {
		if spare := &e.recycled.files[i]; spare.since <= before && (ready || !spare.zeroed) {
			any = true
			e.discard(&e.segments.all[e.takeRecycled(i).segment])
		}
	}
	return any
}

// discard has a file removed and not kept.
func (e *Engine) discard(seg *segment) {
	seg.position = 0
	e.segments.unlinks = append(e.segments.unlinks, seg.number)
}

func (e *Engine) stepRecycled(sleep *ioring.Instant) {
	if e.recycled.count > 0 {
		e.releaseRecycled(e.now-recycledKeepNS, false)
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
		fresh := e.takeSegment(e.nextGeneration(), 0)
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
		_, pending, errno := e.acquire(seg, true)
		if errno != 0 {
			e.preallocFailed(ioring.Open, errno)
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
func (e *Engine) preallocBytes() int64 {
	n := min(max(PrepareBytesMin, e.o.PrepareBytes/(RecycledMax/2)), int64(e.o.SegmentBytes), e.o.PrepareBytes)
	return n &^ (format.BlockBytes - 1)
}

func (e *Engine) preallocCompleted(completion ioring.Completion) {
	prealloc := &e.recycled.prealloc
	prealloc.pushed = false
	e.disk.end(WorkFiles, prealloc.asked)
	code := prealloc.stage.code()
	if again(code, completion.Result) {
		return
	}
	if completion.Result < 0 {
		e.preallocFailed(code, int(-completion.Result))
		return
	}
	switch prealloc.stage {
	case preallocAllocate:
		prealloc.stage = preallocZero
	case preallocZero:
		n := int64(completion.Result) &^ (format.BlockBytes - 1)
		prealloc.zeroed += n
		e.stats.ZeroBytes += uint64(n)
		if prealloc.zeroed == prealloc.bytes {
			prealloc.stage = preallocSync
		}
	case preallocSync:
		seg := &e.segments.all[prealloc.segment]
		e.unpinFile(seg)
		seg.allocated = prealloc.bytes
		e.recycled.prealloc = preallocation{}
		if !e.addRecycled(seg, true) {
			e.discard(seg)
		}
	}
}

// makingFailed: it is tried again later, with another file.
func (e *Engine) preallocFailed(code ioring.Code, errno int) {
	if prealloc := &e.recycled.prealloc; !spaceShort(code, errno) {
		failure := Failure{Op: code, File: SegmentFile, Generation: e.segments.all[prealloc.segment].generation, Errno: ioring.Errno(errno)}
		if code == ioring.Write {
			failure.Offset, failure.Length = prealloc.zeroed, int64(prealloc.asked)
		}
		e.survived(failure)
	}
	if e.recycled.prealloc.pinned {
		e.unpinFile(&e.segments.all[e.recycled.prealloc.segment])
	}
	e.discard(&e.segments.all[e.recycled.prealloc.segment])
	e.recycled.prealloc, e.recycled.preallocAfter = preallocation{}, e.now+preallocRetryNS
}
