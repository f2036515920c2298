package engine

import (
	"slices"

	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// segments is the table of the segments of all logs of the shard.
type segments struct {
	env          *env
	counter      uint32 // of generations that were given out
	all          []segment
	free         int32
	fresh        mem.Fresh
	unlinks      []int32 // numbers of segments to remove, in order
	unlinking    bool
	unlinkPushed bool
}

// segment is one file of one log. base, end, position, extents, maxTime and chain
// count durable extents only.
//
// Invariant: position + room for pending + extra <= allocated; a segment is ready
// before the first append is admitted to it.
type segment struct {
	generation      uint64 // names the file
	log             Slot
	next            int32 // of the log, or of the free ones
	file            int32 // in the table of files; none: it is not open
	readers         int32 // reads and index work under way: the file is not removed
	base, end       int64
	position        int64 // bytes of extents
	nextPosition    int64 // where the next extent is written, behind those in flight
	allocated       int64 // size of the file, durably
	pending         int64 // entry bytes admitted to it and in no durable extent
	sent            int64 // how many of them are in extents in flight
	extra           int64 // room for headers and padding of direct extents under way
	number          int32 // its index in the table
	extentsInFlight int32
	extents         int64
	maxTime         int64
	chain           uint32
	ready           bool // the journal says durably that it is the log's
	recycled        bool // its file is a recycled one: all its blocks were written before
	broken          bool // a write or sync failed: it takes no more extents
	sealed          bool // the next append begins another segment
	handedDown      bool // its file is to become the next segment of its own log
	index           [format.IndexEntriesMax]format.IndexEntry
	indexed         int
	stride          int64                            // the least distance of two entries of index, in bytes
	recent          [recentEntries]format.IndexEntry // where readers stopped; in memory only
	recentAt        int
	lastReadBytes   int   // size of the run that was read last
	indexPosition   int64 // where the file has the index; 0: not known
	indexWriteDue   bool  // the index is to be written
	indexReadDue    bool  // the index is to be read

	// For retention by age; see ages.
	ageKnown  bool           // unchecked and modified are true; else the segment is of an earlier life and was not looked at
	ageDue    bool           // it is to be looked at
	unchecked bool           // it has a run whose timestamps were not checked
	writtenAt ioring.Instant // with unchecked: when the last run was written, if this life has written one; else 0
	modified  int64          // when the file of an earlier life was last written, ms since 1970; NoTime: that does not matter
}

// allocate makes the table, all entries free.
func (s *segments) allocate(arena *mem.Arena) (err error) {
	var region *mem.Region
	s.all, region, err = mem.MapTable[segment](arena, "segments", s.env.o.segmentsMax())
	s.unlinks = make([]int32, 0, len(s.all))
	s.fresh, s.free = mem.FreshOf(s.all, region)
	return err
}

// at is the segment with a number; nil for none.
func (s *segments) at(number int32) *segment {
	if number == none {
		return nil
	}
	return &s.all[number]
}

// generationsMax is how many names for segments a shard has in one life.
const generationsMax = 1<<24 - 1

// takeNew takes a free entry of the table for a new file, under a name that no other has or
// had. nil: there is none, because of the limit.
func (s *segments) takeNew(slot Slot) (*segment, Limit) {
	if s.counter == generationsMax {
		return nil, GenerationsLimit
	}
	seg := s.take(uint64(s.env.epoch)<<32|uint64(s.env.shard)<<24|uint64(s.counter+1), slot)
	if seg == nil {
		return nil, SegmentsLimit
	}
	s.counter++
	return seg, NoLimit
}

// take takes a free entry of the table. nil: there is none.
func (s *segments) take(generation uint64, slot Slot) *segment {
	seg := s.at(s.free)
	if seg == nil {
		return nil
	}
	number := s.free
	s.free = s.fresh.Take(number, seg.next)
	*seg = segment{number: number, generation: generation, log: slot, next: none, file: none, maxTime: format.NoTime, ageKnown: true, modified: format.NoTime}
	return seg
}

// release frees an entry of the table, whose file is gone or another entry's.
func (s *segments) release(seg *segment) {
	number := seg.number
	*seg = segment{next: s.free, file: none}
	s.free = number
}

// append makes a segment the log's last.
func (s *segments) append(lg *log, seg *segment) {
	if lg.lastSegment == none {
		lg.firstSegment = seg.number
	} else {
		s.all[lg.lastSegment].next = seg.number
	}
	lg.lastSegment = seg.number
}

// admit reports whether a log's segment has room for n entry bytes behind all that
// is admitted and not yet written. It asks for the next segment, or for more room,
// before they are needed. The append waits only if that was too late.
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
		nearlyFull := need > seg.allocated-seg.allocated/4
		roll := need > limit || seg.broken || seg.sealed || nearlyFull && e.segments.recycledReady(lg)
		if lg.keptNext > 0 && roll && !seg.sealed && !seg.broken && seg.position+seg.pending > 0 {
			return NoSpace // its owner has it rolled, or rewritten: see KeepNext
		}
		if roll && (seg.position > 0 || seg.pending > 0 || seg.broken) {
			if seg.next == none {
				return e.requestSegment(lg, n)
			}
			if !e.segments.all[seg.next].ready || lg.writing != lg.active || seg.broken {
				e.journal.memoryShort = true
				e.flush.enqueue(lg)
				return e.waitForRoom()
			}
			lg.active = seg.next
			e.segments.all[seg.next].base, e.segments.all[seg.next].end = lg.end, lg.end
			continue
		}
		if need > seg.allocated {
			return e.requestGrowth(lg, seg, need, n)
		}
		if nearlyFull && seg.next == none && !lg.provisioning && e.writesDirect(lg) &&
			e.recycled.find(&e.segments, lg, max(format.RoomFor(n), seg.allocated)) >= 0 {
			e.requestSegment(lg, n) // a recycled file, rather than growing this one
			return OK
		}
		if !lg.provisioning {
			if seg.allocated < limit && seg.allocated-need < seg.allocated/4 {
				e.requestGrowth(lg, seg, seg.allocated+1, n)
			} else if need > limit/4*3 && seg.next == none && lg.keptNext == 0 {
				e.requestSegment(lg, n)
			}
		}
		return OK
	}
}

// recycledReady reports that the log's next segment is ready and a recycled file:
// going on there is better than growing.
func (s *segments) recycledReady(lg *log) bool {
	next := s.all[lg.active].next
	return next != none && lg.keptNext == 0 && s.all[next].ready && s.all[next].recycled && !s.all[next].broken && lg.writing == lg.active
}

// waitForRoom is WaitRoom, counted.
func (v *env) waitForRoom() Status {
	v.stats.WaitRoom++
	return WaitRoom
}

// segmentLimit bounds the size of a log's segments.
func (v *env) segmentLimit(lg *log) int64 {
	if lg.segmentBytes > 0 {
		return min(lg.segmentBytes, int64(v.o.SegmentBytes))
	}
	return int64(v.o.SegmentBytes)
}

// writesTo makes a segment the one that a log's extents are written to. The index of
// the one before is due.
func (s *segments) writesTo(index *indexer, lg *log, seg *segment) {
	old := s.at(lg.writing)
	lg.writing = seg.number
	if old != nil && old != seg {
		index.writeDue(old)
	}
}

// remove has a segment's file removed, or recycled, once nothing reads it.
func (s *segments) remove(index *indexer, seg *segment) {
	index.cancel(seg)
	seg.ageDue = false
	s.unlinks = append(s.unlinks, seg.number)
}

// stepUnlinks removes files, one at a time: close(); recycle, or await unlink().
func (s *segments) stepUnlinks(files *files, recycled *recycledFiles, sleep *ioring.Instant) {
	if s.unlinking {
		if !s.unlinkPushed {
			s.pushUnlink(files, sleep)
		}
		return
	}
	if len(s.unlinks) == 0 || s.env.stopping && s.env.now >= s.env.unlinkUntil {
		return
	}
	seg := &s.all[s.unlinks[0]]
	if seg.readers > 0 {
		copy(s.unlinks, s.unlinks[1:])
		s.unlinks[len(s.unlinks)-1] = seg.number
		return
	}
	if seg.file != none {
		file := &files.table[seg.file]
		if file.state == fileFailed {
			files.release(seg.file)
			seg.file = none
		} else {
			files.close(seg.file)
			return
		}
	}
	if seg.handedDown && recycled.hold(seg) || recycled.keep(seg) {
		s.unlinks = slices.Delete(s.unlinks, 0, 1)
		return
	}
	s.unlinking = true
	format.PutSegmentPath(files.paths.Bytes()[len(files.table)*pathBytes:], seg.generation)
	s.pushUnlink(files, sleep)
}

// pushUnlink starts the unlink of the first segment to remove.
func (s *segments) pushUnlink(files *files, sleep *ioring.Instant) {
	s.unlinkPushed = s.env.ring.Push(ioring.Op{Code: ioring.Unlink, Buf: files.paths.Slice(len(files.table)*pathBytes, pathBytes), Token: ioring.MakeToken(kindUnlink, 0, 0)})
	if !s.unlinkPushed {
		earlier(sleep, s.env.now)
		return
	}
	s.env.disk.begin(WorkFiles, metadataBytes)
}

// unlinkCompleted takes the completion of an unlink. A file that could not be removed
// is removed at the next start, as no log names it.
func (s *segments) unlinkCompleted(completion ioring.Completion) {
	s.unlinkPushed = false
	s.env.disk.end(WorkFiles, metadataBytes)
	if again(ioring.Unlink, completion.Result) {
		return
	}
	s.unlinking = false
	seg := &s.all[s.unlinks[0]]
	// There is no file where making it failed.
	if verdict := ioring.Judge(ioring.Unlink, completion.Result); verdict != ioring.Good && verdict != ioring.Missing {
		s.env.survived(Failure{Op: ioring.Unlink, File: SegmentFile, Generation: seg.generation, Errno: ioring.Errno(-completion.Result)})
	}
	s.unlinks = slices.Delete(s.unlinks, 0, 1)
	s.release(seg)
}
