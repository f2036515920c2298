package engine

import (
	"fmt"

	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// Engine is one shard's storage. One thread owns it, and only New blocks. Its owner
// calls Complete for each completion, takes events with Next, and calls Step once a
// turn.
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
	ages        ages
	checkpoints checkpointer
	reads       diskReads
	recycled    recycledFiles
	shortage    shortage

	notes       []string // of its opening
	stopped     bool
	stopRetries uint64 // flushes and files that may have failed in all before a stop is given up as a clean one
}

// env is what all machines of an engine share: the ring, the time, the options,
// the events, counters and failures. No machine's state is in it.
type env struct {
	ring       ioring.Ring
	o          Options
	shard      int
	dir        [16]byte
	epoch      uint32
	now        ioring.Instant
	stopping   bool
	failed     bool
	failure    Failure // why failed
	troubles   uint64  // failures that were survived
	trouble    Failure // the last of them
	events     eventQueue
	progress   uint64
	appendedAt ioring.Instant // the last frame or extent went to the disk
	stats      Stats
	disk       Disk

	unlinkUntil ioring.Instant // with stopping: when the removal of files ends
}

// logTable is the table of the shard's logs, by slot.
type logTable struct {
	all   []log
	used  int // slots from here on were never used
	byID  map[uint64]Slot
	free  int32
	fresh mem.Fresh
	holes holes
}

// eventQueue is a circle with room for every log's Durable and every answer.
type eventQueue struct {
	all    []Event
	head   int
	length int
}

// log is one open log: a partition's records.
//
// Invariant: start <= end; flushed <= durable <= end; flushed <= flushing <= end;
// what is in memory begins at or before flushed.
type log struct {
	id       uint64
	state    logState
	user     uint32
	start    int64
	end      int64
	durable  int64
	flushed  int64 // up to here it is synced in segments
	flushing int64 // up to here it is in extents that were sent

	maxTime, maxTimeBase               int64 // over everything appended
	flushedMaxTime, flushedMaxTimeBase int64 // the same over what is flushed
	firstHole                          int32 // what is lost of it, oldest first; none

	firstChunk, lastChunk int32  // its chunks in batches
	flushCursor           cursor // the first batch at or past flushing
	durableCursor         cursor // the first batch that is not durable
	unflushed             int64  // entry bytes past flushing that the journal has
	oldestUnflushed       ioring.Instant
	lastWrite             writeTiming // of the frame or extent that last moved durable
	unsynced              int64       // bytes of batches that were appended and are not durable

	firstSegment, lastSegment int32  // its segments, oldest first
	writing                   int32  // the segment that extents are written to; none before the first
	active                    int32  // the segment that appends are admitted to: writing or the one after it
	chain                     uint32 // header CRC of the last durable extent

	firstExtent, lastExtent int32  // its extents under way, by offset
	sentExtent              int32  // the last of them that was sent; none
	building                int32  // the direct one that batches are added to, the last; none
	extentsInFlight         int    // sent, and neither written nor failed
	directExtents           int    // how many of its extents are direct
	contentionInterval      uint32 // the interval in which directContention counted it
	extentBytes             int    // of the entries of the last direct one
	frameSeq                uint64 // the last frame with a batch of it
	frameBytes              int    // entry bytes of it there
	chainSent               uint32 // header CRC of the last extent that was sent
	slot                    Slot   // its own

	segmentBytes int64 // bound of the size of its segments; 0: Options.SegmentBytes
	startDurable int64 // Invariant: startDurable <= start
	keptNext     int64 // what its next segment is kept for, in entry bytes: see KeepNext; 0: none is kept

	durableEventDue  bool                      // its event Durable is in the queue
	flushQueued      bool                      // it is in the flush queue
	provisioning     bool                      // a segment is being made or grown
	refused          [lackKinds]ioring.Instant // when it may ask again for what it was refused
	catchingUp       bool                      // its next large batch waits for flushes
	deletedDelivered bool                      // the owner has taken Deleted
	nextFree         int32

	// Last, so that what every append touches shares cache lines.
	nEpochs int
	epochs  [format.EpochsMax]format.EpochStart // those that have records
}

// none stands for no index, in every table.
const none = int32(-1)

// logState is the life of a slot of the table of logs.
type logState uint8

const (
	logFree logState = iota
	logOpening
	logOpen
	logDeleting // the deletion is not durable yet
	logDeleted  // it is; the slot is freed when nothing of the log is in flight and Deleted was taken
)

// Slot is the index of a log in its shard's table. It is stable while the log is open.
type Slot uint32

// Status is the result of a call.
type Status uint8

const (
	OK            Status = iota // done
	WaitMemory                  // no log memory, read buffer or frame is free: try again when Progress has changed
	WaitRoom                    // the log's segment is being made or grown: try again when Progress has changed
	NoSpace                     // no file can be made or grown: see Shortage; the engine tries again
	StorageFailed               // a write or sync of this shard failed: nothing is appended any more
	LogCorrupt                  // acknowledged records of this log are lost: it is readable up to there and takes no appends
	OutOfRange                  // the offset is below the log's start or above its end
	Empty                       // nothing is there yet
	NotCached                   // not in memory: call ReadDisk
	Unknown                     // no such log
	TooLarge                    // larger than Options.BatchBytesMax
	Full                        // the table of logs is full
	Corrupt                     // what is on disk is not what was written
	Unfinished                  // ReadDone: the run was not found within the headers that may be read; the next read begins where this one ended
)

// Kind is the kind of an Event.
type Kind uint8

const (
	Durable     Kind = iota // Slot: Durable(Slot) or StartDurable(Slot) moved, or NotifyReaders was called
	Opened                  // User, Slot, Status
	Deleted                 // User, Slot, Status
	ReadDone                // User, Status, Read
	Failed                  // the shard's storage failed: see Engine.Failure
	HolesPassed             // Slot: the log's start has passed all that it had lost, and it takes appends again
)

// Event is something that happened, as plain data: which fields it has depends on Kind.
type Event struct {
	Kind   Kind
	Slot   Slot
	User   uint32
	Status Status
	Read   uint32
}

// Attacher gives bytes to keep with a log, opaque to the engine: they are written
// with every checkpoint, and RecoveredLog has them.
type Attacher interface {
	Attachment(slot Slot, dst []byte) int // bytes written, at most len(dst)
}

// Complete takes one completion whose token has a kind of the engine.
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
		e.index.completed(&e.logs, &e.segments, &e.files, completion)
	case kindAge:
		e.ages.completed(&e.logs, &e.segments, &e.files, completion)
	case kindCheckpoint:
		e.checkpointCompleted(index, completion)
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
	kindFrame      = ioring.KindEngine + iota // slot: index in journal.live<<1 | sync
	kindExtent                                // slot: extent<<1 | sync
	kindProvision                             // slot: job
	kindCheckpoint                            // slot: sync
	kindRead                                  // slot: read
	kindOpenFile                              // slot: file
	kindCloseFile                             // slot: file
	kindUnlink
	kindPreallocate
	kindIndex
	KindBlocking // of New and of package recovery, when nothing else is in flight
	kindAge      // behind KindBlocking: the traces of simulated lives have the numbers
)

// Step runs every machine once. It returns when it is to be called again even if
// nothing completes before.
func (e *Engine) Step(now ioring.Instant) (sleepUntil ioring.Instant) {
	e.now = max(e.now, now)
	sleepUntil = ioring.Never
	e.stepJournal(&sleepUntil)
	e.stepExtents(&sleepUntil)
	e.stepShortage(&sleepUntil)
	e.stepProvision(&sleepUntil)
	e.stepFlush(&sleepUntil)
	e.index.step(&e.logs, &e.segments, &e.files, &sleepUntil)
	e.ages.step(&e.segments, &e.files, &sleepUntil)
	e.checkpoints.step(&e.journal, &e.extents, &e.logs, &e.segments, &sleepUntil)
	e.reads.step(&e.segments, &e.files, &sleepUntil)
	e.segments.stepUnlinks(&e.files, &e.recycled, &sleepUntil)
	e.recycled.step(&e.journal, &e.segments, &e.files, e.diskBusy(), &sleepUntil)
	e.cache.sweep(&e.logs, &e.batches, sweptPerStep)
	e.stepJournal(&sleepUntil) // writes the entries that the other machines appended
	e.stepStop(&sleepUntil)
	return sleepUntil
}

// earlier lowers a time to wait until.
func earlier(until *ioring.Instant, at ioring.Instant) { *until = min(*until, at) }

// Next takes the oldest event. False: there is none.
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

// emit queues an event for Next. The queue has room for all that can be due.
func (v *env) emit(event Event) {
	if v.events.length == len(v.events.all) {
		panic("engine: events are not taken")
	}
	v.events.all[(v.events.head+v.events.length)%len(v.events.all)] = event
	v.events.length++
}

// Progress changes when a call that returned WaitMemory or WaitRoom may succeed now.
func (e *Engine) Progress() uint64 { return e.progress }

// flushRetriesAtStop is how many flushes and new files may fail during a stop before
// the stop is no longer a clean one.
const flushRetriesAtStop = 20

// unlinksAtStopNS is how long a stop continues to remove files. Deleted topics can leave
// thousands of them, and a removal takes milliseconds. Files that remain are removed at the
// next start, as no log names them.
const unlinksAtStopNS = 1e9

// Shutdown begins a clean stop: everything is flushed, then a clean checkpoint is
// written. Idle says when that is done.
func (e *Engine) Shutdown() {
	if !e.stopping {
		e.stopping, e.stopRetries = true, e.retries()+flushRetriesAtStop
		e.unlinkUntil = e.now + unlinksAtStopNS
	}
}

// retries is how many flushes and files have failed and were tried again.
func (e *Engine) retries() uint64 { return e.stats.DrainRetries + e.stats.NoSpace + e.stats.NoFile }

// stepStop drives the clean stop: flush all, write indexes, write the checkpoint.
func (e *Engine) stepStop(sleep *ioring.Instant) {
	if !e.stopping || e.stopped || e.failed {
		return
	}
	if e.retries() > e.stopRetries {
		e.stopped = true // what is not flushed is in the journal, and will be replayed
		return
	}
	if e.journal.openEntries > 0 || e.journal.sealedSeq > e.journal.durableSeq ||
		e.extents.used > 0 || e.provision.busy > 0 || e.checkpoints.busy ||
		e.recycled.prealloc.pushed || e.segments.unlinking || len(e.segments.unlinks) > 0 && e.now < e.unlinkUntil {
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

// Idle reports that nothing is in flight and, after Shutdown, that the stop is done.
func (e *Engine) Idle() bool {
	if e.failed { // what was not submitted never will be
		return e.journal.submitted == e.journal.durableSeq+uint64(e.journal.brokenFrames) &&
			e.extents.inFlight == 0 && e.provision.busy == 0 && !e.checkpoints.busy && e.reads.busy == 0 &&
			!e.index.job.pushed && !e.ages.job.pushed && e.files.busy == 0 && !e.segments.unlinking && !e.recycled.prealloc.pushed
	}
	busy := e.diskBusy() || e.index.job.active || e.ages.job.active || e.files.busy > 0 || e.segments.unlinking || e.recycled.prealloc.pushed
	if e.stopping {
		return e.stopped && !busy
	}
	return !busy
}

// diskBusy reports that an operation is in flight other than preallocation and
// opening, closing or removing files.
func (e *Engine) diskBusy() bool {
	return e.journal.sealedSeq > e.journal.durableSeq || e.extents.used > 0 || e.provision.busy > 0 || e.reads.busy > 0 || e.checkpoints.busy
}
