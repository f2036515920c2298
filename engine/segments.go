package engine

import (
	"slices"

	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// segments are the segments of all logs of the shard.
type segments struct {
	counter      uint32 // of generations
	all          []segment
	free         int32
	unlinks      []int32 // segments to remove, in order
	unlinking    bool
	unlinkPushed bool
}

// segment is one file of one log. What it says of runs is of durable ones.
//
// Invariant: position + room for what is pending, and extra, <= bytes; ready before the
// first append is admitted.
type segment struct {
	generation      uint64
	log             Slot
	next            int32
	file            int32
	readers         int32
	base, end       int64
	position        int64
	nextPosition    int64 // where the next run is written, behind those in flight
	allocated       int64 // allocated and synced
	pending         int64 // entry bytes admitted to it and not in a durable run
	sent            int64 // those of them in runs in flight
	extra           int64 // room for the headers and padding of direct runs under way
	number          int32 // its own, in the table
	extentsInFlight int32
	extents         int64
	maxTime         int64
	chain           uint32
	ready           bool // assigned, durably
	recycled        bool // it was one: all its blocks were written
	broken          bool // a write or sync failed: no more runs
	sealed          bool // no more appends: the next one begins another segment
	index           [format.IndexEntriesMax]format.IndexEntry
	indexed         int
	stride          int64                            // at least so many bytes lie between entries
	recent          [recentEntries]format.IndexEntry // where readers left off; not in the file
	recentAt        int
	lastReadBytes   int   // of the run that was read last
	indexPosition   int64 // where the file has the index; 0: nowhere, that is known
	indexWriteDue   bool  // it is to be written
	indexReadDue    bool  // it is to be read
}

func (e *Engine) allocateSegments(*mem.Arena) error {
	e.segments.all = make([]segment, e.o.segmentsMax())
	e.segments.unlinks = make([]int32, 0, len(e.segments.all))
	e.segments.free = none
	for i := len(e.segments.all) - 1; i >= 0; i-- {
		e.segments.all[i].next = e.segments.free
		e.segments.free = int32(i)
	}
	return nil
}

// at is the segment with a number; nil for none.
func (s *segments) at(number int32) *segment {
	if number == none {
		return nil
	}
	return &s.all[number]
}

// nextGeneration names a file as no other is or was.
func (e *Engine) nextGeneration() uint64 {
	e.segments.counter++
	return uint64(e.epoch)<<32 | uint64(e.shard)<<24 | uint64(e.segments.counter&0xffffff)
}

func (e *Engine) takeSegment(generation uint64, slot Slot) *segment {
	seg := e.segments.at(e.segments.free)
	if seg == nil {
		return nil
	}
	number := e.segments.free
	e.segments.free = seg.next
	*seg = segment{number: number, generation: generation, log: slot, next: none, file: none, maxTime: format.NoTime}
	return seg
}

func (e *Engine) freeSegment(seg *segment) {
	number := seg.number
	*seg = segment{next: e.segments.free, file: none}
	e.segments.free = number
}

func (e *Engine) appendSegment(lg *log, seg *segment) {
	if lg.lastSegment == none {
		lg.firstSegment = seg.number
	} else {
		e.segments.all[lg.lastSegment].next = seg.number
	}
	lg.lastSegment = seg.number
}

// admit says whether log s has room, prepared and durably its own, for n bytes
// of entry besides all that is not drained; and has it made ahead of need.
func (e *Engine) admit(lg *log, n int64) Status {
	limit := e.segmentLimit(lg)
	for {
		if lg.active == none {
			return e.requestSegment(lg, n)
		}
		seg := &e.segments.all[lg.active]
		if !seg.ready {
			return e.waitForRoom()
		}
		need := seg.position + min(seg.extents, 1024)*format.BlockBytes + format.RoomFor(seg.pending+n) + seg.extra
		if (need > limit || seg.broken || seg.sealed || need > seg.allocated-seg.allocated/4 && e.recycledReady(lg)) && (seg.position > 0 || seg.pending > 0 || seg.broken) {
			if seg.next == none {
				return e.requestSegment(lg, n)
			}
			if !e.segments.all[seg.next].ready || lg.writing != lg.active || seg.broken {
				e.journal.memoryShort = true
				e.queueFlush(lg)
				return e.waitForRoom()
			}
			lg.active = seg.next
			e.segments.all[seg.next].base, e.segments.all[seg.next].end = lg.end, lg.end
			continue
		}
		if need > seg.allocated {
			return e.requestGrowth(lg, seg, need)
		}
		if seg.next == none && need > seg.allocated-seg.allocated/4 && !lg.provisioning && e.writesDirect(lg) && e.findRecycled(lg, max(format.RoomFor(n), seg.allocated)) >= 0 {
			e.requestSegment(lg, n) // rather than growing
			return OK
		}
		if !lg.provisioning && !(lg.noSpace && e.now < lg.retryAt) {
			if seg.allocated < limit && seg.allocated-need < seg.allocated/4 {
				e.requestGrowth(lg, seg, seg.allocated+1)
			} else if need > limit/4*3 && seg.next == none {
				e.requestSegment(lg, n)
			}
		}
		return OK
	}
}

// spareWaits says that the log need not grow its segment: the next one is ready,
// its blocks written, and the log is where it would go on.
func (e *Engine) recycledReady(lg *log) bool {
	next := e.segments.all[lg.active].next
	return next != none && e.segments.all[next].ready && e.segments.all[next].recycled && !e.segments.all[next].broken && lg.writing == lg.active
}

func (e *Engine) waitForRoom() Status {
	e.stats.WaitRoom++
	return WaitRoom
}

func (e *Engine) segmentLimit(lg *log) int64 {
	if lg.segmentBytes > 0 {
		return min(lg.segmentBytes, int64(e.o.SegmentBytes))
	}
	return int64(e.o.SegmentBytes)
}

// writesTo makes segment g the one that log l's runs go to.
func (e *Engine) writesTo(lg *log, seg *segment) {
	old := e.segments.at(lg.writing)
	lg.writing = seg.number
	if old != nil && old != seg {
		e.indexWriteDue(old)
	}
}

// removeSegment has the file of g unlinked, once nobody reads it.
func (e *Engine) removeSegment(seg *segment) {
	e.cancelIndex(seg)
	e.segments.unlinks = append(e.segments.unlinks, seg.number)
}

// stepUnlinks removes one file at a time.
func (e *Engine) stepUnlinks(sleep *ioring.Instant) {
	if e.segments.unlinking {
		if !e.segments.unlinkPushed {
			e.pushUnlink(sleep)
		}
		return
	}
	if len(e.segments.unlinks) == 0 {
		return
	}
	seg := &e.segments.all[e.segments.unlinks[0]]
	if seg.readers > 0 {
		copy(e.segments.unlinks, e.segments.unlinks[1:])
		e.segments.unlinks[len(e.segments.unlinks)-1] = seg.number
		return
	}
	if seg.file != none {
		file := &e.files.table[seg.file]
		if file.state == fileFailed {
			e.freeFile(seg.file)
			seg.file = none
		} else {
			e.closeFile(seg.file)
			return
		}
	}
	if e.keepForRecycling(seg) {
		e.segments.unlinks = slices.Delete(e.segments.unlinks, 0, 1)
		return
	}
	e.segments.unlinking = true
	format.PutSegmentPath(e.files.paths.Bytes()[len(e.files.table)*pathBytes:], seg.generation)
	e.pushUnlink(sleep)
}

func (e *Engine) pushUnlink(sleep *ioring.Instant) {
	e.segments.unlinkPushed = e.ring.Push(ioring.Op{Code: ioring.Unlink, Buf: e.files.paths.Slice(len(e.files.table)*pathBytes, pathBytes), Token: ioring.MakeToken(kindUnlink, 0, 0)})
	if !e.segments.unlinkPushed {
		earlier(sleep, e.now)
		return
	}
	e.disk.begin(WorkFiles, metadataBytes)
}

// unlinkCompleted: a file that could not be removed is removed at the next
// opening, which no log names.
func (e *Engine) unlinkCompleted(completion ioring.Completion) {
	e.segments.unlinkPushed = false
	e.disk.end(WorkFiles, metadataBytes)
	if again(ioring.Unlink, completion.Result) {
		return
	}
	e.segments.unlinking = false
	seg := &e.segments.all[e.segments.unlinks[0]]
	if completion.Result < 0 {
		e.survived(Failure{Op: ioring.Unlink, File: SegmentFile, Generation: seg.generation, Errno: ioring.Errno(-completion.Result)})
	}
	e.segments.unlinks = slices.Delete(e.segments.unlinks, 0, 1)
	e.freeSegment(seg)
}
