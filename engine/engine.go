package engine

import (
	"fmt"

	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
)

// Engine is one shard's storage. One thread owns it; nothing in it blocks but
// New.
type Engine struct {
	env
	logs     logTable
	reserved reservation
	unsynced int64 // bytes of batches that were appended and are not durable: the sum of the logs'

	cache       cache
	batches     batches
	journal     journal
	files       files
	segments    segments
	provision   provisioner
	flush       flush
	extents     extents
	index       indexer
	checkpoints checkpointer
	reads       diskReads
	recycled    recycledFiles

	stopped     bool
	stopRetries uint64 // flushes and files that may have failed in all before a stop is given up as a clean one
}

// env is what all machines of an engine share: the ring, the time, what was
// configured, and the ways to tell the owner of what happened. It has nothing of
// any machine.
type env struct {
	ring       ioring.Ring
	o          Options
	shard      int
	dir        [16]byte
	epoch      uint32
	now        ioring.Instant
	stopping   bool
	failed     bool
	failure    Failure // why
	troubles   uint64  // failures that were survived
	trouble    Failure // the last of them
	events     eventQueue
	progress   uint64
	appendedAt ioring.Instant // the last frame or extent went to the disk
	stats      Stats
	disk       Disk
}

// logTable has the logs of the shard by slot.
type logTable struct {
	all  []log
	used int // no slot from here on was ever used
	byID map[uint64]Slot
	free int32
}

// eventQueue is a circle with room for every log's Durable and every answer.
type eventQueue struct {
	all    []Event
	head   int
	length int
}

// log is one open log.
//
// Invariant: start <= end; drained <= durable <= end; drained <= taken; what is
// in memory begins at or before drained.
type log struct {
	id       uint64
	state    logState
	user     uint32
	start    int64
	end      int64
	durable  int64
	flushed  int64 // synced in segments
	flushing int64 // in runs under way

	maxTime, maxTimeBase               int64 // over everything appended
	flushedMaxTime, flushedMaxTimeBase int64 // the same over what is drained
	corruptFrom, corruptTo             int64

	firstChunk, lastChunk int32  // chunks of the memory index
	flushCursor           cursor // the first node that is not taken
	durableCursor         cursor // the first node that is not durable
	unflushed             int64  // entry bytes past taken that the journal has
	oldestUnflushed       ioring.Instant
	lastWrite             writeTiming // of the last frame or run that moved durable
	unsynced              int64       // bytes of batches that were appended and are not

	firstSegment, lastSegment int32  // its segments, oldest first
	writing                   int32  // where runs go; none before the first
	active                    int32  // where appends are admitted; writing or the one after it
	chain                     uint32 // header CRC of the last durable run

	firstExtent, lastExtent int32  // its runs under way
	sentExtent              int32  // the last of them that was sent; none
	building                int32  // the last of them, which grows; none
	extentsInFlight         int    // sent, and not over
	directExtents           int    // of them all, those that are direct
	contentionInterval      uint32 // the interval in which it was counted as one with large batches
	wroteDirect             bool   // there were any in this life
	extentBytes             int    // of the last one's entries
	frameSeq                uint64 // the last frame with something of it
	frameBytes              int    // and how much
	chainSent               uint32 // header CRC of the last run that was sent
	slot                    Slot   // its own

	segmentBytes int64 // of its segments, at most; 0: the shard's own
	startDurable int64 // startDurable <= start

	durableEventDue  bool // a Durable event is due
	flushQueued      bool // in the drain queue
	provisioning     bool // a segment is being made or grown
	noSpace          bool
	catchingUp       bool // its next large batch waits for drains
	retryAt          ioring.Instant
	deletedDelivered bool // Deleted was taken
	nextFree         int32

	// last, so that what every append looks at lies together
	nEpochs int
	epochs  [epochsPerLog]format.EpochStart
}

// epochsPerLog is how many leader epochs of a log are known, the last ones.
const epochsPerLog = 32

// none is the index of nothing, in every table.
const none = int32(-1)

type logState uint8

const (
	logFree logState = iota
	logOpening
	logOpen
	logDeleting // its end is not durable yet
	logDeleted  // it is; the slot is free when nothing of it is in flight and Deleted was taken
)

// Slot is the index of an open log in its shard's table, stable while open.
type Slot uint32

// Status says what came of a call.
type Status uint8

const (
	OK            Status = iota // done
	WaitMemory                  // log memory, a read buffer or a frame is not free: try again when Progress changed
	WaitRoom                    // the log's segment is being made or grown: try again when Progress changed
	NoSpace                     // the disk had no room; it is tried again by itself
	StorageFailed               // a write or sync of this shard failed: it takes nothing more
	LogCorrupt                  // acknowledged records of this log are lost: readable up to there, no writes
	OutOfRange                  // the offset is below the log's start or above its end
	Empty                       // nothing to read there yet
	NotCached                   // not in memory: ReadDisk
	Unknown                     // no such log
	TooLarge                    // larger than BatchBytesMax
	Full                        // the table of logs is full
	Corrupt                     // what is on disk is not what was written
)

// Kind says what an Event tells.
type Kind uint8

const (
	Durable  Kind = iota // Slot: Durable(Slot) or StartDurable(Slot) moved, or NotifyReaders asked for it
	Opened               // User, Slot, Status
	Deleted              // User, Slot, Status
	ReadDone             // User, Status, Read
	Failed               // the shard's storage failed: Failure
)

// Event is what happened, as plain data.
type Event struct {
	Kind   Kind
	Slot   Slot
	User   uint32
	Status Status
	Read   uint32
}

// Attacher gives what a shard wants kept with a log: opaque bytes written with
// every checkpoint.
type Attacher interface {
	Attachment(l Slot, dst []byte) int // bytes written, at most len(dst)
}

// Complete takes every completion whose token's kind is the engine's.
func (e *Engine) Complete(completion ioring.Completion, now ioring.Instant) {
	e.now = max(e.now, now)
	index := completion.Token.Slot()
	switch completion.Token.Kind() {
	case kindFrame:
		e.frameCompleted(index, completion)
	case kindExtent:
		e.extentCompleted(index, completion)
	case kindProvision:
		e.provisionCompleted(index, completion)
	case kindIndex:
		e.indexCompleted(completion)
	case kindCheckpoint:
		e.checkpoints.completed(&e.journal, &e.extents, index, completion)
	case kindRead:
		e.reads.completed(&e.logs, &e.segments, &e.files, index, completion)
	case kindOpenFile, kindCloseFile:
		e.files.completed(&e.segments, index, completion)
	case kindPreallocate:
		e.recycled.preallocCompleted(&e.segments, &e.files, completion)
	case kindUnlink:
		e.segments.unlinkCompleted(completion)
	default:
		panic(fmt.Sprintf("engine: a completion of kind %#x", completion.Token.Kind()))
	}
}

const (
	kindFrame      = ioring.KindEngine + iota // slot: frame ring index<<1 | sync
	kindExtent                                // slot: run<<1 | sync
	kindProvision                             // slot: work
	kindCheckpoint                            // slot: sync
	kindRead                                  // slot: read
	kindOpenFile                              // slot: file
	kindCloseFile                             // slot: file
	kindUnlink
	kindPreallocate
	kindIndex
	KindBlocking // of New, and of package recovery, while nothing else is in flight
)

// Step runs every machine once and says when it wants to run again though
// nothing completes.
func (e *Engine) Step(now ioring.Instant) (sleepUntil ioring.Instant) {
	e.now = max(e.now, now)
	sleepUntil = ioring.Never
	e.stepJournal(&sleepUntil)
	e.stepExtents(&sleepUntil)
	e.stepProvision(&sleepUntil)
	e.stepFlush(&sleepUntil)
	e.stepIndex(&sleepUntil)
	e.checkpoints.step(&e.journal, &e.extents, &e.logs, &e.segments, &sleepUntil)
	e.reads.step(&e.segments, &e.files, &sleepUntil)
	e.segments.stepUnlinks(&e.files, &e.recycled, &sleepUntil)
	e.stepRecycled(&sleepUntil)
	e.cache.sweep(&e.logs, &e.batches, sweptPerStep)
	e.stepJournal(&sleepUntil) // entries that the others made
	e.stepStop(&sleepUntil)
	return sleepUntil
}

func earlier(until *ioring.Instant, at ioring.Instant) { *until = min(*until, at) }

// Next is what happened and was not told yet.
func (e *Engine) Next() (Event, bool) {
	if e.events.length == 0 {
		return Event{}, false
	}
	event := e.events.all[e.events.head]
	e.events.head = (e.events.head + 1) % len(e.events.all)
	e.events.length--
	switch event.Kind {
	case Durable:
		e.logs.all[event.Slot].durableEventDue = false
	case Deleted:
		lg := &e.logs.all[event.Slot]
		lg.deletedDelivered = true
		e.finishDeletion(lg)
	}
	return event, true
}

func (v *env) emit(event Event) {
	if v.events.length == len(v.events.all) {
		panic("engine: events are not taken")
	}
	v.events.all[(v.events.head+v.events.length)%len(v.events.all)] = event
	v.events.length++
}

// Progress changes when what had to wait is worth another try.
func (e *Engine) Progress() uint64 { return e.progress }

// drainRetriesAtStop is how many drains and files may fail until a stop is given
// up as a clean one.
const flushRetriesAtStop = 20

// Shutdown begins a clean stop: everything is drained, then a clean
// checkpoint is written. Idle says when.
func (e *Engine) Shutdown() {
	if !e.stopping {
		e.stopping, e.stopRetries = true, e.stats.DrainRetries+e.stats.NoSpace+flushRetriesAtStop
	}
}

// stepStop drives the clean stop: drain all, checkpoint.
func (e *Engine) stepStop(sleep *ioring.Instant) {
	if !e.stopping || e.stopped || e.failed {
		return
	}
	if e.stats.DrainRetries+e.stats.NoSpace > e.stopRetries {
		e.stopped = true // what is not drained is in the journal
		return
	}
	if e.journal.openEntries > 0 || e.journal.sealedSeq > e.journal.durableSeq || e.extents.used > 0 || e.provision.busy > 0 || e.checkpoints.busy || e.recycled.prealloc.pushed || e.segments.unlinking || len(e.segments.unlinks) > 0 {
		return
	}
	for i := range e.logs.all[:e.logs.used] {
		if lg := &e.logs.all[i]; lg.state == logOpen && lg.flushed < lg.end {
			return
		}
	}
	if !e.index.written(&e.logs, &e.segments) {
		return
	}
	if !e.checkpoints.cleanWritten {
		e.checkpoints.wantClean = true
		e.checkpoints.step(&e.journal, &e.extents, &e.logs, &e.segments, sleep)
		return
	}
	e.stopped = true
}

// Idle says that nothing is in flight and, after Shutdown, that all is done.
func (e *Engine) Idle() bool {
	busy := e.diskBusy() || e.index.job.active || e.files.busy > 0 || e.segments.unlinking || e.recycled.prealloc.pushed
	if e.failed {
		return e.journal.submitted == e.journal.durableSeq+uint64(e.journal.brokenFrames) && e.extents.inFlight == 0 && !e.recycled.prealloc.pushed && !e.index.job.pushed && e.provision.busy == 0 && !e.checkpoints.busy && e.reads.busy == 0 && e.files.busy == 0 && !e.segments.unlinking
	}
	if e.stopping {
		return e.stopped && !busy
	}
	return !busy
}

// diskBusy says that something is under way on the disk, beside what is made ready
// and what is done with files alone.
func (e *Engine) diskBusy() bool {
	return e.journal.sealedSeq > e.journal.durableSeq || e.extents.used > 0 || e.provision.busy > 0 || e.reads.busy > 0 || e.checkpoints.busy
}
