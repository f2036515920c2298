package engine

import (
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// extents are the pieces of segments under way. A drain's run holds what the
// journal has; a direct run holds what nothing else on disk has, and
// acknowledges it. A direct run's life, as the function it stands for:
//
//	build(batches, where they stay); [drain what the journal has before them]; await write+sync(); await the runs before it; durable
//
// Runs of a log are written several at a time, at the places they will have,
// and count in the order of their offsets, whatever order they land in.
type extents struct {
	pool       []run
	runFree    int32
	runsUsed   int
	runsFlying int       // lent to the ring, or waiting for their file
	growing    []growing // where direct runs are built, each in a slab of its own
	directMax  int       // bytes of one, but for a larger batch: a quarter of a slab, so that little of one is left over
	directLogs int       // logs with direct runs that are not durable
	directAt   [directLogsMax]Slot
	crowd      crowd
	walked     int64 // bytes of runs that no checkpoint says are durable: the next opening reads them
}

// run is one piece of a segment.
//
// Invariant: a log's runs stand in its list in the order of their offsets;
// those that were sent are before those that were not.
type run struct {
	state   runState
	opened  bool // its file is pinned
	next    int32
	log     Slot
	segment int32
	buffer  int32 // a drain's; none: it is direct
	slab    int32 // a direct one's place, and the bytes given to it there
	pos     int
	extra   int64     // room its header and padding may take, besides its entries'
	block   mem.Block // what is written
	bytes   int       // of its entries
	from    cursor    // its first node
	header  format.RunHeader
	at      ioring.Instant // when it was sent
	io      writeSync
}

type runState uint8

const (
	runUnused runState = iota
	runBuilding
	runSealed
	runSent
	runDone
	runBroken
)

const (
	// directLogsMax bounds how many logs write runs of their own at a time: each
	// needs syncs of its own file, each in a worker of the kernel's.
	directLogsMax = 128
	// runOverhead is what a run takes besides its entries, at most.
	runOverhead = format.HeaderBytes + format.BlockBytes
)

func (r *run) direct() bool { return r.buffer == none }

func (r *run) work() Work {
	if r.direct() {
		return WorkRuns
	}
	return WorkDrains
}

func (r *run) landing() landing { return landing{r.at, r.io.written, r.block.Len()} }

func (e *Engine) carveRuns() error {
	e.extents.directMax = max(format.FlushBytesMax, min(format.RunBytesMax, e.o.slabBytes()/4))
	n := drainsMax
	if e.o.DirectBytes > 0 {
		n += min(max(e.o.LogMemoryBytes/e.o.DirectBytes, 64), 4096)
	}
	e.extents.pool = make([]run, n)
	e.extents.runFree = none
	for i := len(e.extents.pool) - 1; i >= 0; i-- {
		e.extents.pool[i].next = e.extents.runFree
		e.extents.runFree = int32(i)
	}
	return nil
}

// takeRun puts r, as the first of the free runs, into its log's list: behind
// those that were sent, or at the end where it is direct.
func (e *Engine) takeRun(r run) int32 {
	i, l := e.extents.runFree, &e.logs[r.log]
	e.extents.runFree = e.extents.pool[i].next
	e.extents.runsUsed++
	after := l.runSent
	if r.direct() {
		after = l.runLast
	}
	if after == none {
		r.next, l.runFirst = l.runFirst, i
	} else {
		r.next, e.extents.pool[after].next = e.extents.pool[after].next, i
	}
	if r.next == none {
		l.runLast = i
	}
	e.extents.pool[i] = r
	return i
}

func (e *Engine) freeRun(l *log, i int32) {
	r := &e.extents.pool[i]
	if r.direct() {
		e.segments.all[r.segment].extra -= r.extra
		l.directs--
		if l.directs == 0 {
			e.extents.directLogs--
			for k := range e.extents.directLogs {
				if e.extents.directAt[k] == r.log {
					e.extents.directAt[k] = e.extents.directAt[e.extents.directLogs]
				}
			}
		}
	} else {
		e.flush.lent[r.buffer] = none
		e.flush.drainsBusy--
	}
	*r = run{next: e.extents.runFree}
	e.extents.runFree = i
	e.extents.runsUsed--
}

// dropRun forgets a direct run that was not sent.
func (e *Engine) dropRun(l *log, i int32) {
	if l.building == i {
		e.grown(l)
	}
	before := none
	for k := l.runFirst; k != i; k = e.extents.pool[k].next {
		before = k
	}
	if before == none {
		l.runFirst = e.extents.pool[i].next
	} else {
		e.extents.pool[before].next = e.extents.pool[i].next
	}
	if l.runLast == i {
		l.runLast = before
	}
	e.freeRun(l, i)
}

// sendRun gives run i, its log's next, its place and its header.
func (e *Engine) sendRun(i int32, sleep *ioring.Instant) {
	r := &e.extents.pool[i]
	l, q := &e.logs[r.log], &e.segments.all[r.segment]
	h := &r.header
	h.Log, h.Generation, h.Durable = l.id, q.generation, l.durable
	h.Directory, h.Epoch, h.BodyBytes, h.Previous = e.dir, e.epoch, uint32(r.bytes), l.chainSent
	p := r.block.Bytes()
	if !r.direct() {
		clear(p[format.HeaderBytes+r.bytes : format.AlignBlock(format.HeaderBytes+r.bytes)])
		r.block = r.block.Slice(0, format.AlignBlock(format.HeaderBytes+r.bytes))
	}
	h.BodyCRC = format.CRC(p[format.HeaderBytes : format.HeaderBytes+r.bytes])
	h.Put(p)
	e.at(&l.taking)
	r.from = l.taking
	for c := &l.taking; ; c.at++ {
		if n := e.at(c); n == nil || n.base >= h.End {
			break
		}
	}
	l.taken = h.End
	r.state, r.at = runSent, e.now
	r.io.begin(0, q.next0, r.block)
	q.next0 += int64(r.block.Len())
	q.flying++
	q.sent += int64(r.bytes)
	l.chainSent, l.runSent = h.CRC, i
	l.runsFlying++
	e.extents.runsFlying++
	e.stats.Runs++
	e.stats.RunBytes += uint64(r.block.Len())
	if r.direct() {
		e.stats.DirectRuns++
		e.stats.DirectBytes += uint64(r.block.Len())
	}
	e.disk.begin(r.work(), r.block.Len())
	e.reads.appendedAt = e.now
	e.pushRun(i, sleep)
}

func (e *Engine) pushRun(i int32, sleep *ioring.Instant) {
	r := &e.extents.pool[i]
	if !r.opened {
		file, pending, errno := e.acquire(r.segment, false)
		if errno != 0 {
			r.io.errno, r.io.failed = errno, ioring.Open
			e.runOver(i)
			return
		}
		if pending {
			if e.ring.Room() < 1 {
				earlier(sleep, e.now)
			}
			return
		}
		r.opened, r.io.file = true, file
	}
	if !r.io.push(e.ring, kindRun, uint32(i)) {
		earlier(sleep, e.now)
	}
}

func (e *Engine) runCompleted(i uint32, c ioring.Completion) {
	if e.extents.pool[i>>1].io.complete(i&1 != 0, c.Result, e.now) {
		e.runOver(int32(i >> 1))
	}
}

// runOver: run i is written and synced, or has failed.
func (e *Engine) runOver(i int32) {
	r := &e.extents.pool[i]
	s, at := r.log, r.landing()
	l, q := &e.logs[s], &e.segments.all[r.segment]
	if r.opened {
		e.letGo(r.segment)
		r.opened = false
	}
	q.flying--
	l.runsFlying--
	e.extents.runsFlying--
	e.disk.end(r.work(), r.block.Len())
	e.changes++
	if r.io.errno != 0 {
		e.runFailed(i)
		return
	}
	r.state = runDone
	if e.o.Faults.Has(RunAckedAlone) && r.direct() && !e.failed && l.state != logGone {
		l.durable = max(l.durable, r.header.End)
		e.tellDurable(r.log, r.landing())
	}
	e.runsDurable(l)
	if l.state == logGone {
		e.finishClosing(l)
		return
	}
	if !e.failed {
		e.settle(s, at)
	}
	if l.taken < l.end {
		e.queueDrain(int32(s))
	}
}

// runsDurable takes what is written and synced, in order.
func (e *Engine) runsDurable(l *log) {
	for i := l.runFirst; i != none && e.extents.pool[i].state == runDone; i = l.runFirst {
		if e.failed && e.extents.pool[i].header.End > l.durable {
			return // after a failure nothing becomes durable
		}
		e.runDurable(l, i)
	}
}

// runDurable: run i is durable, and so is every run of its log before it.
func (e *Engine) runDurable(l *log, i int32) {
	r := &e.extents.pool[i]
	q, h := &e.segments.all[r.segment], &r.header
	if q.position == 0 {
		q.base = h.Base
	}
	q.note(format.IndexEntry{Base: h.Base, Position: q.position, Before: q.maxTime})
	q.position += int64(r.block.Len())
	q.pending -= int64(r.bytes)
	q.sent -= int64(r.bytes)
	e.extents.walked += int64(r.block.Len())
	q.end, q.chain = h.End, h.CRC
	q.runs++
	q.maxTime = max(q.maxTime, h.MaxTime)
	l.chain, l.drained = h.CRC, h.End
	if h.MaxTime > l.drainMax || l.drainBase == format.NoOffset {
		l.drainMax, l.drainBase = h.MaxTime, h.MaxTimeBase
	}
	e.letNodesGo(r.from, h.End)
	if r.segment != l.writing {
		e.indexDue(r.segment)
	}
	l.runFirst = r.next
	if l.runSent == i {
		l.runSent = none
	}
	if l.runLast == i {
		l.runLast = none
	}
	e.freeRun(l, i)
}

// runFailed: what a drain held lies in the journal, and is drained again,
// elsewhere. A direct run lies nowhere, nor does what was to follow a drain.
func (e *Engine) runFailed(i int32) {
	r := &e.extents.pool[i]
	l := &e.logs[r.log]
	alone := l.runFirst == i && r.next == none && !r.direct()
	if !alone && l.state != logGone {
		r.state = runBroken
		e.fail(e.runFailure(r))
		return
	}
	if !alone {
		r.state = runDone // its log is gone
		e.runsDurable(l)
		e.finishClosing(l)
		return
	}
	if !spaceShort(r.io.failed, r.io.errno) {
		e.survived(e.runFailure(r))
	}
	l.taking, l.taken, l.chainSent = r.from, l.drained, l.chain
	l.undrained += int64(r.bytes)
	s := r.log
	e.segments.all[r.segment].broken = true
	e.segments.all[r.segment].sent -= int64(r.bytes)
	e.stats.DrainRetries++
	e.flush.drainAfter = e.now + retryNS/10
	l.runFirst, l.runLast, l.runSent = none, none, none
	e.freeRun(l, i)
	if l.state == logGone {
		e.finishClosing(l)
		return
	}
	e.queueDrain(int32(s))
}

// runFailure is what ended run r, and which records it held.
func (e *Engine) runFailure(r *run) Failure {
	f := r.io.failure(SegmentFile)
	if f.Op == ioring.Open {
		f.Offset, f.Length = 0, 0
	}
	f.Generation, f.Log, f.From, f.To = e.segments.all[r.segment].generation, r.header.Log, r.header.Base, r.header.End
	return f
}
