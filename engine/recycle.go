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
type recycled struct {
	spare     [RecycledMax]spare
	sparesN   int
	letBytes  int64 // of those that logs let go
	zeroBytes int64 // of those of zeroes
	zeroes    mem.Block
	making    making
	makeAt    ioring.Instant // no file is begun before
}

type spare struct {
	segment int32
	since   ioring.Instant
	zeroes  bool
}

// making is the file of zeroes under way.
type making struct {
	stage   makeStage
	pushed  bool
	pinned  bool
	segment int32
	bytes   int64
	zeroed  int64
	asked   int // of the disk, by what was pushed last
}

type makeStage uint8

const (
	makeNothing makeStage = iota
	makeOpen
	makeAllocate
	makeZero
	makeSync
)

// code is the operation that a stage waits for.
func (s makeStage) code() ioring.Code {
	switch s {
	case makeAllocate:
		return ioring.Allocate
	case makeZero:
		return ioring.Write
	case makeSync:
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
	spareForNS  = 600e9 // one that a log let go and nobody took for so long goes
	zeroWrite   = 256 << 10
	makeAgainNS = 600e9 // after the disk had no room
	makeQuietNS = 50e6  // what is taken for quiet
)

func (e *Engine) carveSpares(arena *mem.Arena) (err error) {
	if e.zeroFileBytes() > 0 && e.o.DirectBytes > 0 {
		e.recycled.zeroes, err = arena.Allocate("zeroes", zeroWrite, format.BlockBytes)
		clear(e.recycled.zeroes.Bytes())
	}
	return err
}

// keepSpare keeps the file of segment g, which nobody has open, for another log.
// False: it may go.
func (e *Engine) keepSpare(segIndex int32) bool {
	seg := &e.segments.all[segIndex]
	return !e.stopping && !seg.broken && seg.position > 0 && seg.position >= seg.bytes/2 && e.addSpare(segIndex, false)
}

func (e *Engine) addSpare(segIndex int32, zeroes bool) bool {
	sum, most := &e.recycled.letBytes, e.o.SpareBytes
	if zeroes {
		sum, most = &e.recycled.zeroBytes, e.o.PrepareBytes
	}
	if e.failed || e.recycled.sparesN == RecycledMax || *sum+e.segments.all[segIndex].bytes > most {
		return false
	}
	e.recycled.spare[e.recycled.sparesN] = spare{segIndex, e.now, zeroes}
	e.recycled.sparesN++
	*sum += e.segments.all[segIndex].bytes
	return true
}

// findSpare is the largest of the spares for l that has room for n bytes, rather
// one that a log let go, as those do not stay; -1. A log with large batches takes
// what it may have, another what it has filled once.
func (e *Engine) findSpare(lg *log, n int64) int {
	limit, best := e.segmentLimit(lg), -1
	if !e.inRuns(lg) {
		if lg.filling == none {
			return -1
		}
		limit = min(limit, e.segments.all[lg.filling].bytes)
	}
	for i := range e.recycled.sparesN {
		spare := &e.recycled.spare[i]
		has := e.segments.all[spare.segment].bytes
		if has < n || has > limit {
			continue
		}
		if best < 0 || e.recycled.spare[best].zeroes && !spare.zeroes || e.recycled.spare[best].zeroes == spare.zeroes && has > e.segments.all[e.recycled.spare[best].segment].bytes {
			best = i
		}
	}
	return best
}

// inRuns says that the log's batches, as far as is known, go to direct runs.
func (e *Engine) inRuns(lg *log) bool { return e.o.DirectBytes > 0 && lg.runBytes >= e.o.DirectBytes/2 }

func (e *Engine) dropSpare(i int) (x spare) {
	x = e.recycled.spare[i]
	e.recycled.sparesN--
	e.recycled.spare[i] = e.recycled.spare[e.recycled.sparesN]
	if x.zeroes {
		e.recycled.zeroBytes -= e.segments.all[x.segment].bytes
	} else {
		e.recycled.letBytes -= e.segments.all[x.segment].bytes
	}
	return x
}

// Spares is how many files are kept for logs to come, and their bytes.
func (e *Engine) Spares() (n int, bytes int64) {
	return e.recycled.sparesN, e.recycled.letBytes + e.recycled.zeroBytes
}

// GiveRoom lets go of the files kept for logs to come: somebody else on this
// disk finds no room, or a log of its own. False: there is none.
func (e *Engine) GiveRoom() (any bool) {
	e.recycled.makeAt = e.now + makeAgainNS
	return e.letSparesGo(e.now, true)
}

// letSparesGo has the spares removed that nobody took since before; those made
// ready only where they are meant too. False: there is none.
func (e *Engine) letSparesGo(before ioring.Instant, ready bool) (any bool) {
	for i := e.recycled.sparesN - 1; i >= 0; i-- {
		if spare := &e.recycled.spare[i]; spare.since <= before && (ready || !spare.zeroes) {
			any = true
			e.discard(e.dropSpare(i).segment)
		}
	}
	return any
}

// discard has a file removed and not kept.
func (e *Engine) discard(segIndex int32) {
	e.segments.all[segIndex].position = 0
	e.segments.unlinks = append(e.segments.unlinks, segIndex)
}

func (e *Engine) stepSpares(sleep *ioring.Instant) {
	if e.recycled.sparesN > 0 {
		e.letSparesGo(e.now-spareForNS, false)
		earlier(sleep, e.now+spareForNS/10)
	}
	if e.recycled.zeroes.Len() > 0 && !e.failed && !e.stopping && !e.recycled.making.pushed {
		e.stepMaking(sleep)
	}
}

// stepMaking goes on with the file of zeroes, one operation at a time.
func (e *Engine) stepMaking(sleep *ioring.Instant) {
	prealloc := &e.recycled.making
	at := e.journal.lastEntry + makeQuietNS
	if prealloc.stage == makeNothing {
		if e.recycled.sparesN == RecycledMax || e.recycled.zeroBytes+e.zeroFileBytes() > e.o.PrepareBytes {
			return
		}
		at = max(at, e.recycled.makeAt)
	}
	switch {
	case e.now < at:
		earlier(sleep, at)
		return
	case e.diskBusy(): // what ends has this step come again
		return
	case prealloc.stage == makeNothing:
		segIndex, ok := e.takeSegment(e.nextGeneration(), 0)
		if !ok {
			e.recycled.makeAt = e.now + makeAgainNS
			return
		}
		e.recycled.making = making{stage: makeOpen, segment: segIndex, bytes: e.zeroFileBytes()}
	}
	seg := &e.segments.all[prealloc.segment]
	op := ioring.Op{Token: ioring.MakeToken(kindMake, 0, 0)}
	switch prealloc.stage {
	case makeOpen:
		_, pending, errno := e.acquire(prealloc.segment, true)
		if errno != 0 {
			e.makingFailed(ioring.Open, errno)
			return
		}
		if pending {
			if e.ring.Room() < 1 {
				earlier(sleep, e.now)
			}
			return
		}
		prealloc.pinned, prealloc.stage = true, makeAllocate
		fallthrough
	case makeAllocate:
		op.Code, op.Arg = ioring.Allocate, uint64(prealloc.bytes)
	case makeZero:
		op.Code, op.Offset, op.Buf = ioring.Write, uint64(prealloc.zeroed), e.recycled.zeroes.Slice(0, int(min(zeroWrite, prealloc.bytes-prealloc.zeroed)))
	case makeSync:
		op.Code, op.Flags = ioring.Sync, ioring.FlagFull
	}
	op.File = e.files.open0 + uint32(seg.file)
	if prealloc.pushed = e.ring.Push(op); !prealloc.pushed {
		earlier(sleep, e.now)
		return
	}
	prealloc.asked = max(op.Buf.Len(), metadataBytes)
	e.disk.begin(WorkFiles, prealloc.asked)
}

// zeroFileBytes is the size of a file of zeroes: one that most topics may have as
// a segment.
func (e *Engine) zeroFileBytes() int64 {
	n := min(max(PrepareBytesMin, e.o.PrepareBytes/(RecycledMax/2)), int64(e.o.SegmentBytes), e.o.PrepareBytes)
	return n &^ (format.BlockBytes - 1)
}

func (e *Engine) makeCompleted(completion ioring.Completion) {
	prealloc := &e.recycled.making
	prealloc.pushed = false
	e.disk.end(WorkFiles, prealloc.asked)
	code := prealloc.stage.code()
	if again(code, completion.Result) {
		return
	}
	if completion.Result < 0 {
		e.makingFailed(code, int(-completion.Result))
		return
	}
	switch prealloc.stage {
	case makeAllocate:
		prealloc.stage = makeZero
	case makeZero:
		n := int64(completion.Result) &^ (format.BlockBytes - 1)
		prealloc.zeroed += n
		e.stats.ZeroBytes += uint64(n)
		if prealloc.zeroed == prealloc.bytes {
			prealloc.stage = makeSync
		}
	case makeSync:
		segIndex := prealloc.segment
		e.letGo(segIndex)
		e.segments.all[segIndex].bytes = prealloc.bytes
		e.recycled.making = making{}
		if !e.addSpare(segIndex, true) {
			e.discard(segIndex)
		}
	}
}

// makingFailed: it is tried again later, with another file.
func (e *Engine) makingFailed(code ioring.Code, errno int) {
	if prealloc := &e.recycled.making; !spaceShort(code, errno) {
		failure := Failure{Op: code, File: SegmentFile, Generation: e.segments.all[prealloc.segment].generation, Errno: ioring.Errno(errno)}
		if code == ioring.Write {
			failure.Offset, failure.Length = prealloc.zeroed, int64(prealloc.asked)
		}
		e.survived(failure)
	}
	if e.recycled.making.pinned {
		e.letGo(e.recycled.making.segment)
	}
	e.discard(e.recycled.making.segment)
	e.recycled.making, e.recycled.makeAt = making{}, e.now+makeAgainNS
}
