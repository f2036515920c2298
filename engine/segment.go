package engine

import (
	"slices"

	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// files are the open segment files of the shard, fewer than there are
// segments: one that nobody uses is closed for another.
type files struct {
	open0     uint32 // ring slot of opened[0]
	opened    []file
	paths     mem.Block // one for each, one for unlink, one for each work
	filesBusy int
	freeFile  int32 // closed ones, a list
	closing   int32 // the one that fileFor had closed last
	hand      int32 // goes round for one that was not used lately
}

// file is one ring slot. Invariant: pins > 0 only while it is open or opening.
type file struct {
	state   fileState
	segment int32
	pins    int32
	pushed  bool
	create  bool
	errno   int
	used    bool  // since the hand came by
	next    int32 // closed: the free list
}

type fileState uint8

const (
	fileUnused fileState = iota
	fileOpening
	fileOpen
	fileClosing
	fileFailed
)

const (
	slotJournal  = 0
	slotCheck    = 1 // and 2
	slotSegments = 3 // the directory
	slotsFixed   = 4
)

func (e *Engine) carveFiles(a *mem.Arena) (err error) {
	e.files.open0 = e.o.Files + slotsFixed
	e.journal.file = e.o.Files + slotJournal
	e.files.opened = make([]file, e.o.FilesMax-slotsFixed)
	e.files.freeFile, e.files.closing = none, none
	for i := len(e.files.opened) - 1; i >= 0; i-- {
		e.fileClosed(int32(i))
	}
	e.files.paths, err = a.Allocate("paths", max(format.BlockBytes, pathBytes*(len(e.files.opened)+1+worksMax)), 64)
	return err
}

// acquire pins the file of segment g for I/O. pending: not now, ask again at
// the next step; errno: it cannot be opened.
func (e *Engine) acquire(g int32, create bool) (slot uint32, pending bool, errno int) {
	q := &e.segments.all[g]
	if q.file == none {
		i := e.fileFor()
		if i == none {
			return 0, true, 0
		}
		f := &e.files.opened[i]
		*f = file{state: fileOpening, segment: g, create: create}
		q.file = i
		format.PutSegmentPath(e.files.paths.Bytes()[int(i)*pathBytes:], q.generation)
		e.files.filesBusy++
	}
	f := &e.files.opened[q.file]
	f.used = true
	switch f.state {
	case fileOpen:
		f.pins++
		return e.files.open0 + uint32(q.file), false, 0
	case fileFailed:
		errno = f.errno
		e.fileClosed(q.file)
		q.file = none
		return 0, false, errno
	case fileOpening:
		e.pushFile(q.file)
	}
	return 0, true, 0
}

func (e *Engine) letGo(g int32) {
	f := &e.files.opened[e.segments.all[g].file]
	if f.pins <= 0 {
		panic("engine: a file is let go twice")
	}
	f.pins--
}

// fileFor takes a closed slot, or begins to close one that was not used lately.
func (e *Engine) fileFor() int32 {
	if i := e.files.freeFile; i != none {
		e.files.freeFile = e.files.opened[i].next
		return i
	}
	if e.files.closing != none {
		e.pushFile(e.files.closing)
		return none
	}
	for range 2 * len(e.files.opened) {
		i := e.files.hand
		if e.files.hand++; int(e.files.hand) == len(e.files.opened) {
			e.files.hand = 0
		}
		f := &e.files.opened[i]
		if f.state != fileOpen || f.pins > 0 {
			continue
		}
		if f.used {
			f.used = false
			continue
		}
		e.files.closing = i
		e.closeFile(i)
		return none
	}
	return none
}

// fileClosed puts slot i among the closed ones.
func (e *Engine) fileClosed(i int32) {
	e.files.opened[i] = file{segment: none, next: e.files.freeFile}
	e.files.freeFile = i
	if e.files.closing == i {
		e.files.closing = none
	}
}

func (e *Engine) closeFile(i int32) {
	f := &e.files.opened[i]
	if f.state == fileOpen && f.pins == 0 {
		f.state, f.pushed = fileClosing, false
		e.files.filesBusy++
	}
	e.pushFile(i)
}

func (e *Engine) pushFile(i int32) {
	f := &e.files.opened[i]
	if f.pushed || e.ring.Room() < 1 {
		return
	}
	switch f.state {
	case fileOpening:
		arg := uint64(0)
		if f.create {
			arg = ioring.OpenCreate | ioring.OpenExclusive
		}
		f.pushed = e.ring.Push(ioring.Op{Code: ioring.Open, File: e.files.open0 + uint32(i), Arg: arg, Buf: e.files.paths.Slice(int(i)*pathBytes, pathBytes), Token: ioring.MakeToken(kindOpenFile, 0, uint32(i))})
	case fileClosing:
		f.pushed = e.ring.Push(ioring.Op{Code: ioring.Close, File: e.files.open0 + uint32(i), Token: ioring.MakeToken(kindCloseFile, 0, uint32(i))})
	}
}

func (e *Engine) fileCompleted(i uint32, c ioring.Completion) {
	f := &e.files.opened[i]
	f.pushed = false
	code := ioring.Open
	if f.state == fileClosing {
		code = ioring.Close
	}
	if again(code, c.Result) {
		return // pushed again by whoever asks next
	}
	e.files.filesBusy--
	switch {
	case f.state == fileClosing:
		if f.segment != none {
			e.segments.all[f.segment].file = none
		}
		e.fileClosed(int32(i))
	case c.Result < 0:
		f.state, f.errno = fileFailed, int(-c.Result)
	default:
		f.state = fileOpen
	}
}

// segments are the segments of all logs of the shard.
type segments struct {
	all       []segment
	freeSeg   int32
	works     [worksMax]work
	worksBusy int
	unlinks   []int32 // segments to remove, in order
	unlinking bool
	unlinkGo  bool
}

// segment is one file of one log. What it says of runs is of durable ones.
//
// Invariant: position + room for what is pending, and extra, <= bytes; ready before the
// first append is admitted.
type segment struct {
	generation uint64
	log        Slot
	next       int32
	file       int32
	readers    int32
	base, end  int64
	position   int64
	next0      int64 // where the next run is written, behind those in flight
	bytes      int64 // allocated and synced
	pending    int64 // entry bytes admitted to it and not in a durable run
	sent       int64 // those of them in runs in flight
	extra      int64 // room for the headers and padding of direct runs under way
	flying     int32 // runs in flight
	runs       int64
	maxTime    int64
	chain      uint32
	ready      bool // assigned, durably
	spare      bool // it was one: all its blocks were written
	broken     bool // a write or sync failed: no more runs
	sealed     bool // no more appends: the next one begins another segment
	index      [format.IndexEntriesMax]format.IndexEntry
	indexed    int
	stride     int64                            // at least so many bytes lie between entries
	recent     [recentEntries]format.IndexEntry // where readers left off; not in the file
	recentAt   int
	runBytes   int   // of the run that was read last
	indexAt    int64 // where the file has the index; 0: nowhere, that is known
	writeDue   bool  // it is to be written
	loadDue    bool  // it is to be read
}

func (e *Engine) carveSegments(*mem.Arena) error {
	e.segments.all = make([]segment, e.o.segmentsMax())
	e.segments.unlinks = make([]int32, 0, len(e.segments.all))
	e.segments.freeSeg = none
	for i := len(e.segments.all) - 1; i >= 0; i-- {
		e.segments.all[i].next = e.segments.freeSeg
		e.segments.freeSeg = int32(i)
	}
	return nil
}

// nextGeneration names a file as no other is or was.
func (e *Engine) nextGeneration() uint64 {
	e.counter++
	return uint64(e.epoch)<<32 | uint64(e.shard)<<24 | uint64(e.counter&0xffffff)
}

func (e *Engine) takeSegment(generation uint64, s Slot) (int32, bool) {
	g := e.segments.freeSeg
	if g == none {
		return none, false
	}
	e.segments.freeSeg = e.segments.all[g].next
	e.segments.all[g] = segment{generation: generation, log: s, next: none, file: none, maxTime: format.NoTime}
	return g, true
}

func (e *Engine) freeSegment(g int32) {
	e.segments.all[g] = segment{next: e.segments.freeSeg, file: none}
	e.segments.freeSeg = g
}

func (e *Engine) appendSegment(l *log, g int32) {
	if l.tail == none {
		l.segments = g
	} else {
		e.segments.all[l.tail].next = g
	}
	l.tail = g
}

// admit says whether log s has room, prepared and durably its own, for n bytes
// of entry besides all that is not drained; and has it made ahead of need.
func (e *Engine) admit(s Slot, n int64) Status {
	l := &e.logs[s]
	limit := e.segmentLimit(l)
	for {
		if l.filling == none {
			return e.wantSegment(s, n)
		}
		q := &e.segments.all[l.filling]
		if !q.ready {
			return e.waitRoom()
		}
		need := q.position + min(q.runs, 1024)*format.BlockBytes + format.RoomFor(q.pending+n) + q.extra
		if (need > limit || q.broken || q.sealed || need > q.bytes-q.bytes/4 && e.spareWaits(l)) && (q.position > 0 || q.pending > 0 || q.broken) {
			if q.next == none {
				return e.wantSegment(s, n)
			}
			if !e.segments.all[q.next].ready || l.writing != l.filling || q.broken {
				e.journal.pressed = true
				e.queueDrain(int32(s))
				return e.waitRoom()
			}
			l.filling = q.next
			e.segments.all[q.next].base, e.segments.all[q.next].end = l.end, l.end
			continue
		}
		if need > q.bytes {
			return e.wantRoom(s, l.filling, need)
		}
		if q.next == none && need > q.bytes-q.bytes/4 && !l.working && e.inRuns(l) && e.findSpare(l, max(format.RoomFor(n), q.bytes)) >= 0 {
			e.wantSegment(s, n) // rather than growing
			return OK
		}
		if !l.working && !(l.noSpace && e.now < l.retryAt) {
			if q.bytes < limit && q.bytes-need < q.bytes/4 {
				e.wantRoom(s, l.filling, q.bytes+1)
			} else if need > limit/4*3 && q.next == none {
				e.wantSegment(s, n)
			}
		}
		return OK
	}
}

// spareWaits says that the log need not grow its segment: the next one is ready,
// its blocks written, and the log is where it would go on.
func (e *Engine) spareWaits(l *log) bool {
	next := e.segments.all[l.filling].next
	return next != none && e.segments.all[next].ready && e.segments.all[next].spare && !e.segments.all[next].broken && l.writing == l.filling
}

func (e *Engine) waitRoom() Status {
	e.stats.WaitRoom++
	return WaitRoom
}

// work makes a segment, of a spare where there is one, or grows one:
//
//	rename();                                 await syncDirectory(); entry(assigned); await durable; ready
//	open(create); await allocate(); await sync(); await syncDirectory(); entry(assigned); await durable; ready
//	open();       await allocate(); await sync(); grown
type work struct {
	stage   workStage
	create  bool
	pushed  bool
	pinned  bool
	spare   uint64 // the generation its file had
	zeroes  bool   // a file of zeroes
	log     Slot
	segment int32
	bytes   int64
	least   int64 // what is needed now, where the disk has not so much
	errno   int
}

// growBytesMin is the least that a segment is made with, and grows by: crumbs on a
// disk that is nearly full are for opening, which needs some.
const growBytesMin = 1 << 20

type workStage uint8

const (
	workFree workStage = iota
	workRename
	workOpen
	workAllocate
	workSync
	workDirectory
	workEntry
	workAwait
)

// code is the operation that a stage waits for.
func (s workStage) code() ioring.Code {
	switch s {
	case workRename:
		return ioring.Rename
	case workOpen:
		return ioring.Open
	case workAllocate:
		return ioring.Allocate
	}
	return ioring.Sync
}

func (e *Engine) takeWork() *work {
	for i := range e.segments.works {
		if e.segments.works[i].stage == workFree {
			e.segments.worksBusy++
			return &e.segments.works[i]
		}
	}
	return nil
}

// wantSegment has the log's next segment made.
func (e *Engine) wantSegment(s Slot, n int64) Status {
	l := &e.logs[s]
	if l.noSpace {
		if e.now < l.retryAt {
			return NoSpace
		}
		l.noSpace = false
	}
	if l.working || e.failed {
		return e.waitRoom()
	}
	w := e.takeWork()
	if w == nil {
		return e.waitRoom()
	}
	*w = work{stage: workOpen, create: true, log: s, segment: none, bytes: growBytesMin}
	file := none
	if i := e.findSpare(l, format.RoomFor(n)); i >= 0 {
		x := e.dropSpare(i)
		was := &e.segments.all[x.segment]
		w.stage, w.spare, w.bytes, w.zeroes, file = workRename, was.generation, was.bytes, x.zeroes, was.file
		e.freeSegment(x.segment)
	}
	g, ok := e.takeSegment(e.nextGeneration(), s)
	if !ok {
		*w = work{}
		e.segments.worksBusy--
		if e.spaceGone(l); l.noSpace {
			return NoSpace
		}
		return e.waitRoom()
	}
	if w.segment = g; file != none { // it may be open, and stays so
		e.segments.all[g].file, e.files.opened[file].segment = file, g
	}
	for w.bytes < format.RoomFor(n) {
		w.bytes *= 2
	}
	w.bytes = min(w.bytes, int64(e.o.SegmentBytes))
	w.least = min(w.bytes, max(int64(format.AlignBlock(int(format.RoomFor(n)))), growBytesMin))
	e.appendSegment(l, g)
	l.working = true
	return e.waitRoom()
}

// wantRoom has segment g grown to at least need bytes.
func (e *Engine) wantRoom(s Slot, g int32, need int64) Status {
	l := &e.logs[s]
	if l.noSpace {
		if e.now < l.retryAt {
			return NoSpace
		}
		l.noSpace = false
	}
	if l.working || e.failed {
		return e.waitRoom()
	}
	w := e.takeWork()
	if w == nil {
		return e.waitRoom()
	}
	need = int64(format.AlignBlock(int(need)))
	bytes := max(e.segments.all[g].bytes, growBytesMin)
	for bytes < need {
		bytes *= 2
	}
	bytes = max(min(bytes, int64(e.o.SegmentBytes)), need)
	*w = work{stage: workOpen, log: s, segment: g, bytes: bytes, least: max(need, e.segments.all[g].bytes+growBytesMin)}
	l.working = true
	return e.waitRoom()
}

// spaceGone: l waits for room, which spares make at once.
func (e *Engine) spaceGone(l *log) {
	if e.GiveRoom() {
		e.changes++
		return
	}
	l.noSpace, l.retryAt = true, e.now+retryNS
	e.stats.NoSpace++
	e.changes++
}

func (e *Engine) stepWorks(sleep *ioring.Instant) {
	if e.segments.worksBusy == 0 {
		return
	}
	for i := range e.segments.works {
		if w := &e.segments.works[i]; w.stage != workFree && !w.pushed {
			e.stepWork(uint32(i), w, sleep)
		}
	}
}

func (e *Engine) stepWork(i uint32, w *work, sleep *ioring.Instant) {
	q := &e.segments.all[w.segment]
	token := ioring.MakeToken(kindWork, 0, i)
	switch w.stage {
	case workRename:
		at := (len(e.files.opened) + 1 + int(i)) * pathBytes
		p := e.files.paths.Slice(at, pathBytes)
		format.PutSegmentPath(p.Bytes(), w.spare)
		format.PutSegmentPath(p.Bytes()[format.SegmentPathBytes:], q.generation)
		w.pushed = e.ring.Push(ioring.Op{Code: ioring.Rename, Buf: p, Token: token})
	case workOpen:
		_, pending, errno := e.acquire(w.segment, w.create)
		if errno != 0 {
			w.errno = errno
			e.workFailed(w)
			return
		}
		if pending {
			if e.ring.Room() < 1 {
				earlier(sleep, e.now)
			}
			return
		}
		w.pinned, w.stage = true, workAllocate
		fallthrough
	case workAllocate:
		w.pushed = e.ring.Push(ioring.Op{Code: ioring.Allocate, File: e.files.open0 + uint32(q.file), Offset: uint64(q.bytes), Arg: uint64(w.bytes - q.bytes), Token: token})
	case workSync:
		w.pushed = e.ring.Push(ioring.Op{Code: ioring.Sync, Flags: ioring.FlagFull, File: e.files.open0 + uint32(q.file), Token: token})
	case workDirectory:
		w.pushed = e.ring.Push(ioring.Op{Code: ioring.Sync, Flags: ioring.FlagFull, File: e.o.Files + slotSegments, Token: token})
	case workEntry:
		if e.failed {
			e.endWork(w)
			return
		}
		if e.entryFits(0) {
			e.putNote(format.Entry{Kind: format.EntryAssigned, Log: e.logs[w.log].id, Slot: uint32(w.log), Base: e.logs[w.log].end, Aux: q.generation})
			w.stage = workAwait
		}
		return
	case workAwait:
		if e.failed {
			e.endWork(w)
		}
		return
	}
	if !w.pushed {
		earlier(sleep, e.now)
		return
	}
	e.disk.begin(WorkFiles, metadataBytes)
}

func (e *Engine) workCompleted(i uint32, c ioring.Completion) {
	w := &e.segments.works[i]
	w.pushed = false
	e.disk.end(WorkFiles, metadataBytes)
	if again(w.stage.code(), c.Result) {
		return
	}
	q := &e.segments.all[w.segment]
	if c.Result < 0 {
		w.errno = int(-c.Result)
		if w.stage == workAllocate && spaceShort(ioring.Allocate, w.errno) && w.bytes > w.least && e.recycled.sparesN == 0 {
			w.bytes = max(w.least, (q.bytes+w.bytes)/2&^(format.BlockBytes-1)) // half as much more
			return
		}
		e.workFailed(w)
		return
	}
	switch w.stage {
	case workRename:
		q.bytes, q.spare = w.bytes, true
		w.stage = workDirectory
		if w.zeroes {
			e.stats.Zeroed++
		} else {
			e.stats.Recycled++
		}
	case workAllocate:
		w.stage = workSync
	case workSync:
		q.bytes = w.bytes
		if w.create {
			w.stage = workDirectory
			return
		}
		e.stats.Grown++
		e.endWork(w)
	case workDirectory:
		w.stage = workEntry
	}
}

// workFailed gives up: what was there before stays, a new file is removed.
func (e *Engine) workFailed(w *work) {
	l, code := &e.logs[w.log], w.stage.code()
	full := spaceShort(code, w.errno)
	if !full {
		q := &e.segments.all[w.segment]
		f := Failure{Op: code, File: SegmentFile, Generation: q.generation, Errno: ioring.Errno(w.errno), Log: l.id}
		switch w.stage {
		case workRename:
			f.Generation = w.spare
		case workAllocate:
			f.Offset, f.Length = q.bytes, w.bytes-q.bytes
		case workDirectory:
			f.File = SegmentsDirectory
		}
		e.survived(f)
	}
	if w.create {
		// it is the log's last: one work at a time
		if l.segments == w.segment {
			l.segments, l.tail = none, none
		} else {
			for g := l.segments; g != none; g = e.segments.all[g].next {
				if e.segments.all[g].next == w.segment {
					e.segments.all[g].next, l.tail = none, g
				}
			}
		}
		e.segments.all[w.segment].next = none
		e.removeSegment(w.segment)
	} else if !full {
		e.segments.all[w.segment].broken = true
	}
	e.spaceGone(l)
	e.endWork(w)
}

func (e *Engine) endWork(w *work) {
	if w.pinned {
		e.letGo(w.segment)
	}
	l := &e.logs[w.log]
	l.working = false
	*w = work{}
	e.segments.worksBusy--
	e.changes++
	e.finishClosing(l)
}

// segmentAssigned: the journal says durably whose the file is.
func (e *Engine) segmentAssigned(l *log, generation uint64) {
	for i := range e.segments.works {
		w := &e.segments.works[i]
		if w.stage == workAwait && e.segments.all[w.segment].generation == generation {
			q := &e.segments.all[w.segment]
			q.ready = true
			e.stats.SegmentsMade++
			if l.filling == none {
				l.filling, l.writing = w.segment, w.segment
				q.base, q.end = l.end, l.end
			}
			e.endWork(w)
			return
		}
	}
}

// removeSegment has the file of g unlinked, once nobody reads it.
func (e *Engine) removeSegment(g int32) {
	e.noIndexDue(&e.segments.all[g])
	e.segments.unlinks = append(e.segments.unlinks, g)
}

// logClosed: the end of a log is durable.
func (e *Engine) logClosed(s Slot) {
	l := &e.logs[s]
	e.tell(Event{Kind: Deleted, User: l.user, Slot: s})
	l.state = logGone
	e.finishClosing(l)
}

// finishClosing lets what a log that is gone holds in the journal and in memory
// go, at once: its own segment's entry may wait for that room. It gives the
// slot back when nothing of the log is in flight.
func (e *Engine) finishClosing(l *log) {
	if l.state != logGone || l.runsFlying > 0 || l.runFirst != none && e.failed {
		return
	}
	for l.runFirst != none { // none was sent
		e.dropRun(l, l.runFirst)
	}
	e.letNodesGo(l.taking, l.end)
	e.dropNodes(l)
	e.undurable -= l.undurable
	l.undurable = 0
	l.taken, l.drained = l.end, l.end
	e.changes++
	if !l.told || l.working || l.queued {
		return
	}
	for g := l.segments; g != none; {
		next := e.segments.all[g].next
		e.removeSegment(g)
		g = next
	}
	s := e.byID[l.id]
	delete(e.byID, l.id)
	*l = log{nextFree: e.freeLog, first: none, last: none}
	e.freeLog = int32(s)
	e.changes++
}

// stepUnlinks removes one file at a time.
func (e *Engine) stepUnlinks(sleep *ioring.Instant) {
	if e.segments.unlinking {
		if !e.segments.unlinkGo {
			e.pushUnlink(sleep)
		}
		return
	}
	if len(e.segments.unlinks) == 0 {
		return
	}
	g := e.segments.unlinks[0]
	q := &e.segments.all[g]
	if q.readers > 0 {
		copy(e.segments.unlinks, e.segments.unlinks[1:])
		e.segments.unlinks[len(e.segments.unlinks)-1] = g
		return
	}
	if q.file != none {
		f := &e.files.opened[q.file]
		if f.state == fileFailed {
			e.fileClosed(q.file)
			q.file = none
		} else {
			e.closeFile(q.file)
			return
		}
	}
	if e.keepSpare(g) {
		e.segments.unlinks = slices.Delete(e.segments.unlinks, 0, 1)
		return
	}
	e.segments.unlinking = true
	format.PutSegmentPath(e.files.paths.Bytes()[len(e.files.opened)*pathBytes:], q.generation)
	e.pushUnlink(sleep)
}

func (e *Engine) pushUnlink(sleep *ioring.Instant) {
	e.segments.unlinkGo = e.ring.Push(ioring.Op{Code: ioring.Unlink, Buf: e.files.paths.Slice(len(e.files.opened)*pathBytes, pathBytes), Token: ioring.MakeToken(kindUnlink, 0, 0)})
	if !e.segments.unlinkGo {
		earlier(sleep, e.now)
		return
	}
	e.disk.begin(WorkFiles, metadataBytes)
}

// unlinkCompleted: a file that could not be removed is removed at the next
// opening, which no log names.
func (e *Engine) unlinkCompleted(c ioring.Completion) {
	e.segments.unlinkGo = false
	e.disk.end(WorkFiles, metadataBytes)
	if again(ioring.Unlink, c.Result) {
		return
	}
	e.segments.unlinking = false
	g := e.segments.unlinks[0]
	if c.Result < 0 {
		e.survived(Failure{Op: ioring.Unlink, File: SegmentFile, Generation: e.segments.all[g].generation, Errno: ioring.Errno(-c.Result)})
	}
	e.segments.unlinks = slices.Delete(e.segments.unlinks, 0, 1)
	e.freeSegment(g)
}
