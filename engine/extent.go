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
func (e *Engine) takeRun(ext run) int32 {
	i, lg := e.extents.runFree, &e.logs[ext.log]
	e.extents.runFree = e.extents.pool[i].next
	e.extents.runsUsed++
	after := lg.runSent
	if ext.direct() {
		after = lg.runLast
	}
	if after == none {
		ext.next, lg.runFirst = lg.runFirst, i
	} else {
		ext.next, e.extents.pool[after].next = e.extents.pool[after].next, i
	}
	if ext.next == none {
		lg.runLast = i
	}
	e.extents.pool[i] = ext
	return i
}

func (e *Engine) freeRun(lg *log, i int32) {
	ext := &e.extents.pool[i]
	if ext.direct() {
		e.segments.all[ext.segment].extra -= ext.extra
		lg.directs--
		if lg.directs == 0 {
			e.extents.directLogs--
			for k := range e.extents.directLogs {
				if e.extents.directAt[k] == ext.log {
					e.extents.directAt[k] = e.extents.directAt[e.extents.directLogs]
				}
			}
		}
	} else {
		e.flush.lent[ext.buffer] = none
		e.flush.drainsBusy--
	}
	*ext = run{next: e.extents.runFree}
	e.extents.runFree = i
	e.extents.runsUsed--
}

// dropRun forgets a direct run that was not sent.
func (e *Engine) dropRun(lg *log, i int32) {
	if lg.building == i {
		e.grown(lg)
	}
	before := none
	for k := lg.runFirst; k != i; k = e.extents.pool[k].next {
		before = k
	}
	if before == none {
		lg.runFirst = e.extents.pool[i].next
	} else {
		e.extents.pool[before].next = e.extents.pool[i].next
	}
	if lg.runLast == i {
		lg.runLast = before
	}
	e.freeRun(lg, i)
}

// sendRun gives run i, its log's next, its place and its header.
func (e *Engine) sendRun(i int32, sleep *ioring.Instant) {
	ext := &e.extents.pool[i]
	lg, seg := &e.logs[ext.log], &e.segments.all[ext.segment]
	header := &ext.header
	header.Log, header.Generation, header.Durable = lg.id, seg.generation, lg.durable
	header.Directory, header.Epoch, header.BodyBytes, header.Previous = e.dir, e.epoch, uint32(ext.bytes), lg.chainSent
	buf := ext.block.Bytes()
	if !ext.direct() {
		clear(buf[format.HeaderBytes+ext.bytes : format.AlignBlock(format.HeaderBytes+ext.bytes)])
		ext.block = ext.block.Slice(0, format.AlignBlock(format.HeaderBytes+ext.bytes))
	}
	header.BodyCRC = format.CRC(buf[format.HeaderBytes : format.HeaderBytes+ext.bytes])
	header.Put(buf)
	e.at(&lg.taking)
	ext.from = lg.taking
	for cur := &lg.taking; ; cur.at++ {
		if batch := e.at(cur); batch == nil || batch.base >= header.End {
			break
		}
	}
	lg.taken = header.End
	ext.state, ext.at = runSent, e.now
	ext.io.begin(0, seg.next0, ext.block)
	seg.next0 += int64(ext.block.Len())
	seg.flying++
	seg.sent += int64(ext.bytes)
	lg.chainSent, lg.runSent = header.CRC, i
	lg.runsFlying++
	e.extents.runsFlying++
	e.stats.Runs++
	e.stats.RunBytes += uint64(ext.block.Len())
	if ext.direct() {
		e.stats.DirectRuns++
		e.stats.DirectBytes += uint64(ext.block.Len())
	}
	e.disk.begin(ext.work(), ext.block.Len())
	e.reads.appendedAt = e.now
	e.pushRun(i, sleep)
}

func (e *Engine) pushRun(i int32, sleep *ioring.Instant) {
	ext := &e.extents.pool[i]
	if !ext.opened {
		file, pending, errno := e.acquire(ext.segment, false)
		if errno != 0 {
			ext.io.errno, ext.io.failed = errno, ioring.Open
			e.runOver(i)
			return
		}
		if pending {
			if e.ring.Room() < 1 {
				earlier(sleep, e.now)
			}
			return
		}
		ext.opened, ext.io.file = true, file
	}
	if !ext.io.push(e.ring, kindRun, uint32(i)) {
		earlier(sleep, e.now)
	}
}

func (e *Engine) runCompleted(index uint32, completion ioring.Completion) {
	if e.extents.pool[index>>1].io.complete(index&1 != 0, completion.Result, e.now) {
		e.runOver(int32(index >> 1))
	}
}

// runOver: run i is written and synced, or has failed.
func (e *Engine) runOver(i int32) {
	ext := &e.extents.pool[i]
	slot, at := ext.log, ext.landing()
	lg, seg := &e.logs[slot], &e.segments.all[ext.segment]
	if ext.opened {
		e.letGo(ext.segment)
		ext.opened = false
	}
	seg.flying--
	lg.runsFlying--
	e.extents.runsFlying--
	e.disk.end(ext.work(), ext.block.Len())
	e.changes++
	if ext.io.errno != 0 {
		e.runFailed(i)
		return
	}
	ext.state = runDone
	if e.o.Faults.Has(RunAckedAlone) && ext.direct() && !e.failed && lg.state != logGone {
		lg.durable = max(lg.durable, ext.header.End)
		e.tellDurable(ext.log, ext.landing())
	}
	e.runsDurable(lg)
	if lg.state == logGone {
		e.finishClosing(lg)
		return
	}
	if !e.failed {
		e.settle(slot, at)
	}
	if lg.taken < lg.end {
		e.queueDrain(int32(slot))
	}
}

// runsDurable takes what is written and synced, in order.
func (e *Engine) runsDurable(lg *log) {
	for i := lg.runFirst; i != none && e.extents.pool[i].state == runDone; i = lg.runFirst {
		if e.failed && e.extents.pool[i].header.End > lg.durable {
			return // after a failure nothing becomes durable
		}
		e.runDurable(lg, i)
	}
}

// runDurable: run i is durable, and so is every run of its log before it.
func (e *Engine) runDurable(lg *log, i int32) {
	ext := &e.extents.pool[i]
	seg, header := &e.segments.all[ext.segment], &ext.header
	if seg.position == 0 {
		seg.base = header.Base
	}
	seg.note(format.IndexEntry{Base: header.Base, Position: seg.position, Before: seg.maxTime})
	seg.position += int64(ext.block.Len())
	seg.pending -= int64(ext.bytes)
	seg.sent -= int64(ext.bytes)
	e.extents.walked += int64(ext.block.Len())
	seg.end, seg.chain = header.End, header.CRC
	seg.runs++
	seg.maxTime = max(seg.maxTime, header.MaxTime)
	lg.chain, lg.drained = header.CRC, header.End
	if header.MaxTime > lg.drainMax || lg.drainBase == format.NoOffset {
		lg.drainMax, lg.drainBase = header.MaxTime, header.MaxTimeBase
	}
	e.letNodesGo(ext.from, header.End)
	if ext.segment != lg.writing {
		e.indexDue(ext.segment)
	}
	lg.runFirst = ext.next
	if lg.runSent == i {
		lg.runSent = none
	}
	if lg.runLast == i {
		lg.runLast = none
	}
	e.freeRun(lg, i)
}

// runFailed: what a drain held lies in the journal, and is drained again,
// elsewhere. A direct run lies nowhere, nor does what was to follow a drain.
func (e *Engine) runFailed(i int32) {
	ext := &e.extents.pool[i]
	lg := &e.logs[ext.log]
	alone := lg.runFirst == i && ext.next == none && !ext.direct()
	if !alone && lg.state != logGone {
		ext.state = runBroken
		e.fail(e.runFailure(ext))
		return
	}
	if !alone {
		ext.state = runDone // its log is gone
		e.runsDurable(lg)
		e.finishClosing(lg)
		return
	}
	if !spaceShort(ext.io.failed, ext.io.errno) {
		e.survived(e.runFailure(ext))
	}
	lg.taking, lg.taken, lg.chainSent = ext.from, lg.drained, lg.chain
	lg.undrained += int64(ext.bytes)
	slot := ext.log
	e.segments.all[ext.segment].broken = true
	e.segments.all[ext.segment].sent -= int64(ext.bytes)
	e.stats.DrainRetries++
	e.flush.drainAfter = e.now + retryNS/10
	lg.runFirst, lg.runLast, lg.runSent = none, none, none
	e.freeRun(lg, i)
	if lg.state == logGone {
		e.finishClosing(lg)
		return
	}
	e.queueDrain(int32(slot))
}

// runFailure is what ended run r, and which records it held.
func (e *Engine) runFailure(ext *run) Failure {
	failure := ext.io.failure(SegmentFile)
	if failure.Op == ioring.Open {
		failure.Offset, failure.Length = 0, 0
	}
	failure.Generation, failure.Log, failure.From, failure.To = e.segments.all[ext.segment].generation, ext.header.Log, ext.header.Base, ext.header.End
	return failure
}
