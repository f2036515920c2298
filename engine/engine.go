package engine

import (
	"fmt"

	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
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
	Rot                         // acknowledged records of this log are lost: readable up to there, no writes
	OutOfRange                  // the offset is below the log's start or above its end
	Empty                       // nothing to read there yet
	Cold                        // not in memory: ReadCold
	Unknown                     // no such log
	TooLarge                    // larger than BatchBytesMax
	Full                        // the table of logs is full
	Corrupt                     // what is on disk is not what was written
)

// Kind says what an Event tells.
type Kind uint8

const (
	Durable  Kind = iota // Slot: Durable(Slot) or StartDurable(Slot) moved, or Announce asked for it
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

// Faults are planted bugs: tests turn one on to see that they would notice.
type Faults uint32

const (
	NoSync             Faults = 1 << iota // frames are written and never synced
	AckBeforeSync                         // a frame is durable when its write is
	NoEpoch                               // replay takes frames of any life
	StaleRunAccepted                      // opening believes runs past the checkpoint by their heads alone
	JournalReusedEarly                    // the journal is freed before the checkpoint that allows it is durable
	RunAckedAlone                         // a direct run is acknowledged though one before it is not durable
	GapIsRot                              // a hole that a power cut leaves is called rot
	CheckpointFromLate                    // a checkpoint replays from where its last log was put, not its first
	NoSyncAtOpen                          // opening syncs neither what it finds nor what it drains
)

// Has says whether x is on.
func (f Faults) Has(x Faults) bool { return f&x != 0 }

// Options are the sizes of one shard's storage.
type Options struct {
	LogsMax        int
	SegmentBytes   int
	JournalBytes   int
	LogMemoryBytes int // at most; less where the arena has less left
	BatchBytesMax  int
	SpareBytes     int64  // of files that logs let go, kept for their next segments; default 2 GiB, negative: none
	PrepareBytes   int64  // of files of zeroes, written while nothing is appended and kept for the next segments of logs with large batches
	InflightMax    int    // frames, and runs of a log; default 2
	CheckLogs      int    // that a turn puts into a checkpoint; default 32, some 5 us
	CheckPauseNS   int64  // left to others until the next turn that does; default 50 us
	DirectBytes    int    // a batch so large is written to its log's segment at once; default 64 KiB, negative: never
	Files          uint32 // first file slot
	FilesMax       int
	Faults         Faults
}

// Complete fills in the defaults, and refuses sizes that nothing works with.
func (o *Options) Complete() error {
	if o.InflightMax == 0 {
		o.InflightMax = 2
	}
	if o.CheckLogs == 0 {
		o.CheckLogs = 32
	}
	if o.CheckPauseNS == 0 {
		o.CheckPauseNS = 50e3
	}
	if o.SpareBytes == 0 {
		o.SpareBytes = 2 << 30
	}
	if o.BatchBytesMax == 0 {
		o.BatchBytesMax = 1 << 20
	}
	if o.DirectBytes == 0 {
		o.DirectBytes = 64 << 10
	}
	if o.LogsMax < 1 || o.FilesMax < 16 || o.LogMemoryBytes < 1<<20 || o.JournalBytes < 1<<20 || o.SegmentBytes < 256<<10 {
		return fmt.Errorf("options %+v are too small", *o)
	}
	o.SegmentBytes = format.AlignBlock(max(o.SegmentBytes, 4*int(format.RoomFor(int64(o.entryBytesMax())))))
	// two of the largest frames always find a place, whatever the end wastes
	o.JournalBytes = format.AlignBlock(max(o.JournalBytes, 4*(o.entryBytesMax()+2*format.BlockBytes)))
	return nil
}

func (o *Options) entryBytesMax() int {
	return format.EntryHeaderBytes + format.Align8(o.BatchBytesMax)
}

// frameBytes is the size at which a frame is closed: one larger batch passes.
func (o *Options) frameBytes() int { return min(format.FrameBytesMax, o.JournalBytes/8) }

// RunBufferBytes is the size of the largest run, with its header and padding.
func (o *Options) RunBufferBytes() int {
	return format.AlignBlock(format.HeaderBytes + max(format.RunBytesMax, o.entryBytesMax()))
}

// slabBytes: at least one frame of one largest batch.
func (o *Options) slabBytes() int {
	n := 256 << 10
	for n < o.entryBytesMax()+2*format.BlockBytes {
		n <<= 1
	}
	for n < 4<<20 && n*16 <= o.LogMemoryBytes {
		n <<= 1
	}
	return n
}

func (o *Options) segmentsMax() int { return 2*o.LogsMax + 4096 }

// attachmentsBytes is what the attachments of all logs may take in a
// checkpoint; one log's may be as large.
func (o *Options) attachmentsBytes() int { return min(4<<20, max(1<<20, o.LogMemoryBytes/16)) }

func (o *Options) checkpointBytes() int {
	return format.AlignBlock(format.CheckpointHeaderBytes + o.LogsMax*(format.LogRecordBytes+checkEpochs*format.EpochRecordBytes) + o.segmentsMax()*format.SegmentRecordBytes + o.attachmentsBytes())
}

// epochsPerLog is how many leader epochs of a log are known, the last ones.
const epochsPerLog = 32

const (
	largeDrains = 2  // of any size
	smallDrains = 14 // besides, of logs that have little
	drainsMax   = largeDrains + smallDrains
	worksMax    = 4
	readsMax    = 4
	pathBytes   = 64
	idleDrainNS = 1e9
	idleStampNS = 50e6
	idleCheckNS = 3e9

	drainRetriesAtStop = 20
	retryNS            = 1e9
	none               = int32(-1)
)

// Attacher gives what a shard wants kept with a log: opaque bytes written with
// every checkpoint.
type Attacher interface {
	Attachment(l Slot, dst []byte) int // bytes written, at most len(dst)
}

// Stats are plain counters.
type Stats struct {
	Frames, FrameBytes, Entries     uint64
	Runs, RunBytes                  uint64
	DirectRuns, DirectBytes         uint64 // of those
	Checkpoints, CheckpointBytes    uint64
	ColdReads, ColdBytes, Corrupt   uint64
	ColdHeads                       uint64 // heads of runs that were read to find the one
	Evictions, SegmentsMade, Grown  uint64
	Recycled, Zeroed                uint64 // segments made of files that other logs let go; of files of zeroes
	ZeroBytes                       uint64 // written for those
	NoSpace, DrainRetries           uint64
	WaitMemory, WaitRoom, Truncated uint64
}

// log is one open log.
//
// Invariant: start <= end; drained <= durable <= end; drained <= taken; what is
// in memory begins at or before drained.
type log struct {
	id      uint64
	state   logState
	user    uint32
	start   int64
	end     int64
	durable int64
	drained int64 // synced in segments
	taken   int64 // in runs under way

	maxTime, maxTimeBase int64 // over everything appended
	drainMax, drainBase  int64 // the same over what is drained
	rotFrom, rotTo       int64

	first, last int32  // chunks of the memory index
	taking      cursor // the first node that is not taken
	settling    cursor // the first node that is not durable
	undrained   int64  // entry bytes past taken that the journal has
	oldest      ioring.Instant
	landed      landing // of the last frame or run that moved durable
	undurable   int64   // bytes of batches that were appended and are not

	segments, tail int32  // its segments, oldest first
	writing        int32  // where runs go; none before the first
	filling        int32  // where appends are admitted; writing or the one after it
	chain          uint32 // header CRC of the last durable run

	runFirst, runLast int32  // its runs under way
	runSent           int32  // the last of them that was sent; none
	building          int32  // the last of them, which grows; none
	runsFlying        int    // sent, and not over
	directs           int    // of them all, those that are direct
	crowd             uint32 // the interval in which it was counted as one with large batches
	direct            bool   // there were any in this life
	runBytes          int    // of the last one's entries
	frameSeq          uint64 // the last frame with something of it
	frameBytes        int    // and how much
	chainSent         uint32 // header CRC of the last run that was sent

	segmentBytes int64 // of its segments, at most; 0: the shard's own
	startDurable int64 // startDurable <= start

	dirty    bool // a Durable event is due
	queued   bool // in the drain queue
	working  bool // a segment is being made or grown
	noSpace  bool
	catching bool // its next large batch waits for drains
	retryAt  ioring.Instant
	told     bool // Deleted was taken
	nextFree int32

	// last, so that what every append looks at lies together
	nEpochs int
	epochs  [epochsPerLog]format.EpochStart
}

type logState uint8

const (
	logFree logState = iota
	logOpening
	logOpen
	logClosing // its end is not durable yet
	logGone    // it is; the slot is free when nothing of it is in flight and Deleted was taken
)

// Engine is one shard's storage. One thread owns it; nothing in it blocks but
// New.
type Engine struct {
	ring      ioring.Ring
	attach    Attacher
	o         Options
	shard     int
	dir       [16]byte
	epoch     uint32
	journalID uint64
	counter   uint32 // of generations
	now       ioring.Instant
	failed    bool
	failure   Failure // why
	troubles  uint64  // failures that were survived
	trouble   Failure // the last of them
	stats     Stats
	disk      Disk
	changes   uint64

	undurable int64 // the sum of the logs'

	logs     []log
	logsHigh int // no slot from here on was ever used
	byID     map[uint64]Slot
	freeLog  int32

	events  []Event // a circle; room for every log's Durable and every answer
	eventAt int
	eventN  int

	cache       cache
	journal     journal
	files       files
	segments    segments
	flush       flush
	extents     extents
	index       index
	checkpoints checkpoints
	reads       reads
	recycled    recycled

	stopping    bool
	stopped     bool
	stopRetries uint64 // drains and files that failed until the stop is given up as a clean one
}

// New carves what the engine of one shard needs and opens its files: the only
// call here that blocks. boot is Recover's, whose logs of this shard are open
// afterwards.
func New(ring ioring.Ring, arena *mem.Arena, boot *RecoveredState, shard int, attach Attacher, o Options) (*Engine, error) {
	if shard > 0 { // the control shard's own log has commands, which no setting makes larger
		o.BatchBytesMax = max(o.BatchBytesMax, boot.BatchBytesMax)
	}
	if err := o.Complete(); err != nil {
		return nil, err
	}
	if shard < 0 || shard >= len(boot.Shards) {
		return nil, fmt.Errorf("shard %d of %d", shard, len(boot.Shards))
	}
	if shard == 0 {
		o.DirectBytes = -1 // that a start moves after what was appended before it is the journal's order
	}
	o.LogsMax = max(o.LogsMax, len(boot.Shards[shard].Logs)) // another number of shards may bring more
	e := &Engine{ring: ring, attach: attach, o: o, shard: shard, dir: boot.Directory, epoch: boot.Epoch,
		journalID: format.JournalID(boot.Directory, boot.Epoch, shard)}
	if err := e.carve(arena); err != nil {
		return nil, fmt.Errorf("%w; this directory may hold batches of %d bytes", err, o.BatchBytesMax)
	}
	if err := e.openShard(arena); err != nil {
		return nil, ioring.Advised(err)
	}
	for i := range boot.Shards[shard].Logs {
		if err := e.adopt(&boot.Shards[shard].Logs[i]); err != nil {
			return nil, err
		}
	}
	e.checkpoints.sequence = boot.Shards[shard].Checkpoint
	e.adoptSpares(boot.Shards[shard].Recycled)
	return e, nil
}

// carve takes all memory the engine will ever have.
func (e *Engine) carve(arena *mem.Arena) error {
	e.logs = make([]log, e.o.LogsMax)
	e.byID = make(map[uint64]Slot, e.o.LogsMax)
	e.freeLog = none
	for i := len(e.logs) - 1; i >= 0; i-- {
		e.logs[i].nextFree = e.freeLog
		e.freeLog = int32(i)
	}
	e.events = make([]Event, 4*e.o.LogsMax+1024)
	for _, err := range []error{e.carveFiles(arena), e.carveSegments(arena), e.carveDrains(arena), e.carveIndexes(arena), e.carveSpares(arena), e.carveChecks(arena), e.carveColds(arena), e.carveMemory(arena)} {
		if err != nil {
			return err
		}
	}
	return nil
}

// adopt opens a log that Recover found.
func (e *Engine) adopt(b *RecoveredLog) error {
	s, ok := e.takeLog(b.ID)
	if !ok {
		return fmt.Errorf("shard %d has more than %d logs", e.shard, e.o.LogsMax)
	}
	r, l := b.Record, &e.logs[s]
	l.state = logOpen
	l.start, l.end, l.durable, l.drained, l.taken = r.Start, r.End, r.End, r.End, r.End
	l.startDurable = r.Start
	l.maxTime, l.maxTimeBase, l.drainMax, l.drainBase = r.MaxTime, r.MaxTimeBase, r.MaxTime, r.MaxTimeBase
	l.rotFrom, l.rotTo, l.chain, l.chainSent = r.RotFrom, r.RotTo, r.Chain, r.Chain
	for _, x := range r.Epochs {
		l.addEpoch(x)
	}
	for i := range r.Segments {
		x := &r.Segments[i]
		g, ok := e.takeSegment(x.Generation, s)
		if !ok {
			return fmt.Errorf("shard %d has more than %d segments", e.shard, e.o.segmentsMax())
		}
		q := &e.segments.all[g]
		q.base, q.end, q.position, q.maxTime, q.bytes, q.chain = x.Base, x.End, x.Position, x.MaxTime, x.Bytes, x.Chain
		q.ready, q.next0 = true, q.position
		if q.position > 0 {
			q.note(format.IndexEntry{Base: q.base, Before: format.NoTime})
			e.loadDue(g)
		}
		e.appendSegment(l, g)
		if l.writing == none || q.position > 0 {
			l.writing, l.filling = g, g
		}
	}
	return nil
}

func (e *Engine) takeLog(id uint64) (Slot, bool) {
	i := e.freeLog
	if i == none {
		return 0, false
	}
	l := &e.logs[i]
	e.logsHigh = max(e.logsHigh, int(i)+1)
	e.freeLog = l.nextFree
	*l = log{id: id, first: none, last: none, taking: cursor{none, 0}, settling: cursor{none, 0}, runFirst: none, runLast: none, runSent: none, building: none, segments: none, tail: none, writing: none, filling: none,
		maxTime: format.NoTime, maxTimeBase: format.NoOffset, drainMax: format.NoTime, drainBase: format.NoOffset, rotFrom: format.NoOffset, rotTo: format.NoOffset}
	e.byID[id] = Slot(i)
	return Slot(i), true
}

// rots says that the record at offset is known to be lost on disk.
func (l *log) rots(offset int64) bool {
	return l.rotFrom != format.NoOffset && offset >= l.rotFrom && offset < l.rotTo
}

// Rotten is the range of records of log l, from to to - 1, that were
// acknowledged and are lost: opening found so, or a cold read did.
func (e *Engine) Rotten(l Slot) (from, to int64, rotten bool) {
	x := &e.logs[l]
	return x.rotFrom, x.rotTo, x.rotFrom != format.NoOffset
}

func (l *log) addEpoch(x format.EpochStart) {
	if l.nEpochs == len(l.epochs) {
		copy(l.epochs[:], l.epochs[1:])
		l.nEpochs--
	}
	l.epochs[l.nEpochs] = x
	l.nEpochs++
}

// Complete takes every completion whose token's kind is the engine's.
func (e *Engine) Complete(c ioring.Completion, now ioring.Instant) {
	e.now = max(e.now, now)
	i := c.Token.Slot()
	switch c.Token.Kind() {
	case kindFrame:
		e.frameCompleted(i, c)
	case kindRun:
		e.runCompleted(i, c)
	case kindWork:
		e.workCompleted(i, c)
	case kindIndex:
		e.indexCompleted(c)
	case kindCheck:
		e.checkCompleted(i, c)
	case kindCold:
		e.coldCompleted(i, c)
	case kindOpenFile, kindCloseFile:
		e.fileCompleted(i, c)
	case kindMake:
		e.makeCompleted(c)
	case kindUnlink:
		e.unlinkCompleted(c)
	default:
		panic(fmt.Sprintf("engine: a completion of kind %#x", c.Token.Kind()))
	}
}

const (
	kindFrame     = ioring.KindEngine + iota // slot: frame ring index<<1 | sync
	kindRun                                  // slot: run<<1 | sync
	kindWork                                 // slot: work
	kindCheck                                // slot: sync
	kindCold                                 // slot: read
	kindOpenFile                             // slot: file
	kindCloseFile                            // slot: file
	kindUnlink
	kindMake
	kindIndex
	KindBlocking // of New, and of package recovery, while nothing else is in flight
)

// Step runs every machine once and says when it wants to run again though
// nothing completes.
func (e *Engine) Step(now ioring.Instant) (sleepUntil ioring.Instant) {
	e.now = max(e.now, now)
	sleepUntil = ioring.Never
	e.stepFrames(&sleepUntil)
	e.stepRuns(&sleepUntil)
	e.stepWorks(&sleepUntil)
	e.stepDrains(&sleepUntil)
	e.stepIndexes(&sleepUntil)
	e.stepChecks(&sleepUntil)
	e.stepColds(&sleepUntil)
	e.stepUnlinks(&sleepUntil)
	e.stepSpares(&sleepUntil)
	e.sweep(sweptPerStep)
	e.stepFrames(&sleepUntil) // entries that the others made
	e.stepStop(&sleepUntil)
	return sleepUntil
}

func earlier(t *ioring.Instant, at ioring.Instant) { *t = min(*t, at) }

// Next is what happened and was not told yet.
func (e *Engine) Next() (Event, bool) {
	if e.eventN == 0 {
		return Event{}, false
	}
	v := e.events[e.eventAt]
	e.eventAt = (e.eventAt + 1) % len(e.events)
	e.eventN--
	switch v.Kind {
	case Durable:
		e.logs[v.Slot].dirty = false
	case Deleted:
		l := &e.logs[v.Slot]
		l.told = true
		e.finishClosing(l)
	}
	return v, true
}

func (e *Engine) tell(v Event) {
	if e.eventN == len(e.events) {
		panic("engine: events are not taken")
	}
	e.events[(e.eventAt+e.eventN)%len(e.events)] = v
	e.eventN++
}

// Progress changes when what had to wait is worth another try.
func (e *Engine) Progress() uint64 { return e.changes }

// Stats are the counters, live.
func (e *Engine) Stats() *Stats { return &e.stats }

func (e *Engine) open(l Slot) bool {
	return int(l) < len(e.logs) && e.logs[l].state == logOpen
}

// Start is the log's first offset.
func (e *Engine) Start(l Slot) int64 { return e.logs[l].start }

// End is one past the last offset appended, Durable one past the last that is
// durable.
func (e *Engine) End(l Slot) int64 { return e.logs[l].end }

// Announce has the event Durable come for log l: its owner shows readers what
// is not durable yet.
func (e *Engine) Announce(l Slot) {
	if x := &e.logs[l]; !x.dirty && x.state == logOpen {
		x.dirty = true
		e.tell(Event{Kind: Durable, Slot: l})
	}
}

// Durable is one past the last offset on stable storage.
func (e *Engine) Durable(l Slot) int64 { return e.logs[l].durable }

// MaxTime is the largest timestamp appended and an offset at or before its
// batch, at which to look for it; ts < 0 and base -1 when there is none.
func (e *Engine) MaxTime(l Slot) (ts, base int64) {
	x := &e.logs[l]
	if x.maxTimeBase == format.NoOffset {
		return -1, -1
	}
	if x.maxTimeBase < x.start {
		return e.maxTimeLeft(x)
	}
	return x.maxTime, x.maxTimeBase
}

// EpochAt is the largest epoch at or below epoch that has records, and where
// the next larger one begins (end for the last); -1, -1 when there is none.
func (e *Engine) EpochAt(l Slot, epoch int32, end int64) (epochFound int32, endOffset int64) {
	x := &e.logs[l]
	if epoch > int32(e.epoch) {
		return -1, -1
	}
	for i := x.nEpochs - 1; i >= 0; i-- {
		if x.epochs[i].Epoch <= epoch {
			if i+1 < x.nEpochs {
				return x.epochs[i].Epoch, x.epochs[i+1].Start
			}
			return x.epochs[i].Epoch, end
		}
	}
	return -1, -1
}

// EpochOf is the leader epoch of the record at offset; -1: not known.
func (e *Engine) EpochOf(l Slot, offset int64) int32 {
	x := &e.logs[l]
	for i := x.nEpochs - 1; i >= 0; i-- {
		if x.epochs[i].Start <= offset {
			return x.epochs[i].Epoch
		}
	}
	return -1
}

// Lookup finds an open log.
func (e *Engine) Lookup(id uint64) (Slot, bool) {
	s, ok := e.byID[id]
	if ok && e.logs[s].state != logOpen {
		return 0, false
	}
	return s, ok
}

// OpenLog makes a log. It is durable when the event Opened comes.
func (e *Engine) OpenLog(id uint64, user uint32) Status {
	if e.failed {
		return StorageFailed
	}
	if e.stopping {
		return WaitMemory
	}
	if _, ok := e.byID[id]; ok {
		return Unknown
	}
	if e.freeLog == none {
		return Full
	}
	if !e.entryFits(0) {
		e.stats.WaitMemory++
		return WaitMemory
	}
	s, _ := e.takeLog(id)
	l := &e.logs[s]
	l.state, l.user = logOpening, user
	e.putNote(format.Entry{Kind: format.EntryOpened, Log: id, Slot: uint32(s)})
	return OK
}

// DeleteLog ends a log. It is gone when the event Deleted comes; its files
// are removed later.
func (e *Engine) DeleteLog(s Slot, user uint32) Status {
	if e.failed {
		return StorageFailed
	}
	if !e.open(s) {
		return Unknown
	}
	if !e.entryFits(0) {
		e.stats.WaitMemory++
		return WaitMemory
	}
	l := &e.logs[s]
	l.state, l.user = logClosing, user
	e.putNote(format.Entry{Kind: format.EntryClosed, Log: l.id, Slot: uint32(s), Base: l.end})
	return OK
}

// TruncateBefore moves the log's start up to start, at most to what is
// durable. It takes effect at once and is durable when StartDurable says so. WaitMemory: it
// had no room for the entry, and nothing was done.
func (e *Engine) TruncateBefore(s Slot, start int64, user uint32) Status {
	if e.failed {
		return StorageFailed
	}
	if !e.open(s) {
		return Unknown
	}
	l := &e.logs[s]
	start = min(start, l.durable)
	if start <= l.start {
		return OK
	}
	if !e.entryFits(0) {
		e.stats.WaitMemory++
		return WaitMemory
	}
	l.start = start
	e.stats.Truncated++
	e.putNote(format.Entry{Kind: format.EntryStartMoved, Log: l.id, Slot: uint32(s), Base: start})
	return OK
}

// Shutdown begins a clean stop: everything is drained, then a clean
// checkpoint is written. Idle says when.
func (e *Engine) Shutdown() {
	if !e.stopping {
		e.stopping, e.stopRetries = true, e.stats.DrainRetries+e.stats.NoSpace+drainRetriesAtStop
	}
}

// Idle says that nothing is in flight and, after Shutdown, that all is done.
func (e *Engine) Idle() bool {
	busy := e.diskBusy() || e.index.indexing.active || e.files.filesBusy > 0 || e.segments.unlinking || e.recycled.making.pushed
	if e.failed {
		return e.journal.submitted == e.journal.durableSeq+uint64(e.journal.brokenFrames) && e.extents.runsFlying == 0 && !e.recycled.making.pushed && !e.index.indexing.pushed && e.segments.worksBusy == 0 && !e.checkpoints.checkBusy && e.reads.coldsBusy == 0 && e.files.filesBusy == 0 && !e.segments.unlinking
	}
	if e.stopping {
		return e.stopped && !busy
	}
	return !busy
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
	if e.openEntries() > 0 || e.journal.sealedSeq > e.journal.durableSeq || e.extents.runsUsed > 0 || e.segments.worksBusy > 0 || e.checkpoints.checkBusy || e.recycled.making.pushed || e.segments.unlinking || len(e.segments.unlinks) > 0 {
		return
	}
	for i := range e.logs[:e.logsHigh] {
		if l := &e.logs[i]; l.state == logOpen && l.drained < l.end {
			return
		}
	}
	if !e.indexesWritten() {
		return
	}
	if !e.checkpoints.cleanWritten {
		e.checkpoints.wantClean = true
		e.stepChecks(sleep)
		return
	}
	e.stopped = true
}
