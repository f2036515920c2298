package engine

import (
	"tailbound/ioring"
	"tailbound/mem"
)

// spares are files whose blocks were written before: a sync over blocks that
// were only allocated is a commit of the file system's own journal, over these
// it is not. They are files that logs let go, or new ones of zeroes, made while
// logs have large batches. One becomes a log's next segment so, and the name
// changes with it; what lies in it is nobody's until the journal says whose:
//
//	await start moved past it, or log closed, durable; await its readers; close()
//	await rename(old, new); await syncDirectory(); entry(assigned); await durable; ready
//
// A file of zeroes is no log's while anything is written to it:
//
//	open(create); await allocate(); until full { await write(zeroes) }; await sync()
type spares struct {
	spare       [sparesMax]spare
	sparesN     int
	sparesBytes int64
	zeroes      mem.Block
	making      making
	madeBytes   int64          // of the file of zeroes that was made last
	zeroCredit  int64          // so many zeroes may be written
	zeroLimit   int64          // segment limit of the log that wrote the last direct run
	zeroAt      ioring.Instant // no file of zeroes is begun before
	directsMost int            // logs with direct runs at a time, in the present look or the one before
	directsLast int
	directsAt   ioring.Instant // when the present look ends
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

const (
	sparesMax    = 32
	spareForNS   = 600e9 // one that nobody took for so long goes
	sparesLookNS = 10e9
	zeroBytes    = 256 << 10
	zeroFileMin  = 64 << 20
	zeroAgainNS  = 60e9 // after the disk had no room
	zeroesPer    = 5    // bytes of zeroes for each 4 bytes of direct runs, at most
)

func (e *Engine) carveSpares(a *mem.Arena) (err error) {
	if e.o.ZeroFiles && e.o.SpareBytes > 0 && e.o.DirectBytes > 0 {
		e.zeroes, err = a.Carve("zeroes", zeroBytes, blockBytes)
		clear(e.zeroes.Bytes())
	}
	return err
}

// keepSpare keeps the file of segment g, which nobody has open, for another log.
// False: it may go.
func (e *Engine) keepSpare(g int32) bool {
	q := &e.all[g]
	return !e.stopping && !q.broken && q.position > 0 && q.position >= q.bytes/2 && e.addSpare(g, false)
}

func (e *Engine) addSpare(g int32, zeroes bool) bool {
	if e.failed != 0 || e.sparesN == sparesMax || e.sparesBytes+e.all[g].bytes > e.o.SpareBytes {
		return false
	}
	e.spare[e.sparesN] = spare{g, e.now, zeroes}
	e.sparesN++
	e.sparesBytes += e.all[g].bytes
	return true
}

// findSpare is the largest of the spares for l that has room for n bytes; -1. A
// log with large batches takes what it may have, another what it has filled
// once.
func (e *Engine) findSpare(l *log, n int64) int {
	limit, best := e.segmentLimit(l), -1
	if !e.inRuns(l) {
		if l.filling == none {
			return -1
		}
		limit = min(limit, e.all[l.filling].bytes)
	}
	for i := range e.sparesN {
		has := e.all[e.spare[i].segment].bytes
		if has >= n && has <= limit && (best < 0 || has > e.all[e.spare[best].segment].bytes) {
			best = i
		}
	}
	return best
}

// inRuns says that the log's batches, as far as is known, go to direct runs.
func (e *Engine) inRuns(l *log) bool { return e.o.DirectBytes > 0 && l.runBytes >= e.o.DirectBytes/2 }

func (e *Engine) dropSpare(i int) (x spare) {
	x = e.spare[i]
	e.sparesN--
	e.spare[i] = e.spare[e.sparesN]
	e.sparesBytes -= e.all[x.segment].bytes
	return x
}

// Spares is how many files are kept for logs to come, and their bytes.
func (e *Engine) Spares() (n int, bytes int64) { return e.sparesN, e.sparesBytes }

// GiveRoom lets go of the files kept for logs to come: somebody else on this
// disk finds no room, or a log of its own. False: there is none.
func (e *Engine) GiveRoom() (any bool) {
	e.zeroAt = e.now + zeroAgainNS
	return e.letSparesGo(e.now)
}

// letSparesGo has the spares removed that nobody took since before. False: there
// is none.
func (e *Engine) letSparesGo(before ioring.Instant) (any bool) {
	for i := e.sparesN - 1; i >= 0; i-- {
		if e.spare[i].since <= before {
			any = true
			e.discard(e.dropSpare(i).segment)
		}
	}
	return any
}

// discard has a file removed and not kept.
func (e *Engine) discard(g int32) {
	e.all[g].position = 0
	e.unlinks = append(e.unlinks, g)
}

// wroteDirect notes a direct run of n bytes of l: as much is to be made ready
// for what comes.
func (e *Engine) wroteDirect(l *log, n int) {
	e.zeroLimit = e.segmentLimit(l)
	e.zeroCredit = min(e.zeroCredit+int64(n)*zeroesPer/4, e.zeroLimit)
	e.directsMost = max(e.directsMost, e.directLogs)
}

func (e *Engine) stepSpares(sleep *ioring.Instant) {
	if e.sparesN > 0 {
		e.letSparesGo(e.now - spareForNS)
		earlier(sleep, e.now+spareForNS/10)
	}
	if e.zeroes.Len() == 0 || e.failed != 0 {
		return
	}
	if e.now >= e.directsAt {
		e.directsLast, e.directsMost, e.directsAt = e.directsMost, e.directLogs, e.now+sparesLookNS
	}
	e.stepMaking(sleep)
}

// stepMaking goes on with the file of zeroes: one operation at a time, when
// there are fewer spares than logs with large batches, as much as those write,
// and never while they wait for the disk.
func (e *Engine) stepMaking(sleep *ioring.Instant) {
	m := &e.making
	if m.stage == makeNothing && !e.beginMaking() || m.pushed || e.stopping {
		return
	}
	q := &e.all[m.segment]
	op := ioring.Op{Token: ioring.MakeToken(kindMake, 0, 0)}
	switch m.stage {
	case makeOpen:
		_, pending, errno := e.acquire(m.segment, true)
		if errno != 0 {
			e.makingFailed()
			return
		}
		if pending {
			if e.ring.Room() < 1 {
				earlier(sleep, e.now)
			}
			return
		}
		m.pinned, m.stage = true, makeAllocate
		fallthrough
	case makeAllocate:
		op.Code, op.Arg = ioring.Allocate, uint64(m.bytes)
	case makeZero:
		if e.zeroCredit < zeroBytes || e.diskWanted() {
			return // asked again when a run is sent or done
		}
		op.Code, op.Offset, op.Buf = ioring.Write, uint64(m.zeroed), e.zeroes.Slice(0, int(min(zeroBytes, m.bytes-m.zeroed)))
	case makeSync:
		op.Code, op.Flags = ioring.Sync, ioring.FlagFull
	}
	op.File = e.open0 + uint32(q.file)
	if m.pushed = e.ring.Push(op); !m.pushed {
		earlier(sleep, e.now)
		return
	}
	m.asked = max(op.Buf.Len(), metadataBytes)
	e.disk.begin(WorkFiles, m.asked)
}

// diskWanted says that appends wait for the disk: as many frames, or half as
// many direct runs, as there may be are in flight.
func (e *Engine) diskWanted() bool {
	return e.pressed || int(e.submitted-e.durableSeq) >= e.o.InflightMax || 2*e.runsFlying > e.directLogs*e.o.InflightMax
}

func (e *Engine) beginMaking() bool {
	if e.sparesN >= max(e.directsMost, e.directsLast) || e.zeroCredit < zeroBytes || e.now < e.zeroAt || e.stopping {
		return false
	}
	bytes := min(max(2*e.madeBytes, zeroFileMin), e.zeroLimit)
	if e.sparesBytes+bytes > e.o.SpareBytes || bytes < zeroBytes {
		return false
	}
	g, ok := e.takeSegment(e.nextGeneration(), 0)
	if !ok {
		return false
	}
	e.making = making{stage: makeOpen, segment: g, bytes: bytes &^ (blockBytes - 1)}
	return true
}

func (e *Engine) makeCompleted(c ioring.Completion) {
	m := &e.making
	m.pushed = false
	e.disk.end(WorkFiles, m.asked)
	if again(c.Result) {
		return
	}
	if c.Result < 0 {
		e.makingFailed()
		return
	}
	switch m.stage {
	case makeAllocate:
		m.stage = makeZero
	case makeZero:
		n := int64(c.Result) &^ (blockBytes - 1)
		m.zeroed += n
		e.zeroCredit -= n
		e.stats.ZeroBytes += uint64(n)
		if m.zeroed == m.bytes {
			m.stage = makeSync
		}
	case makeSync:
		g := m.segment
		e.letGo(g)
		e.all[g].bytes, e.madeBytes = m.bytes, m.bytes
		e.making = making{}
		if !e.addSpare(g, true) {
			e.discard(g)
		}
	}
}

// makingFailed: it is tried again later, with another file.
func (e *Engine) makingFailed() {
	if e.making.pinned {
		e.letGo(e.making.segment)
	}
	e.discard(e.making.segment)
	e.making, e.zeroAt = making{}, e.now+zeroAgainNS
}
