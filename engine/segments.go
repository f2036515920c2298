package engine

import (
	"slices"

	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

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

func (e *Engine) segmentLimit(l *log) int64 {
	if l.segmentBytes > 0 {
		return min(l.segmentBytes, int64(e.o.SegmentBytes))
	}
	return int64(e.o.SegmentBytes)
}

// writesTo makes segment g the one that log l's runs go to.
func (e *Engine) writesTo(l *log, g int32) {
	old := l.writing
	l.writing = g
	if old != none && old != g {
		e.indexDue(old)
	}
}

// removeSegment has the file of g unlinked, once nobody reads it.
func (e *Engine) removeSegment(g int32) {
	e.noIndexDue(&e.segments.all[g])
	e.segments.unlinks = append(e.segments.unlinks, g)
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
