package engine

import (
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// indexer writes and reads the indexes of segments, which say where some of their runs
// begin. With them a read from disk, or a search by time, need not go from header to
// header through a whole segment after a restart. An index is one block behind the last
// run, written when a segment takes no more extents, and at a clean stop. It is a hint:
// not synced, verified when it is read, and the run that it leads to is verified too.
// One index at a time is written or read:
//
//	open(file); await write(index)
//	open(file); await read(index); verify; add its entries to the segment's
type indexer struct {
	env       *env
	block     mem.Block
	job       indexJob
	next      int32 // the segment to look at next
	writesDue int   // segments whose index is to be written
	readsDue  int   // ... is to be read
	atStop    bool  // the indexes of a clean stop are due
}

// indexJob is the index that is being written or read.
type indexJob struct {
	active  bool
	opened  bool // its file is pinned
	pushed  bool // its operation is in flight
	write   bool
	segment int32
}

// recentEntries is how many readers of one segment are remembered.
const recentEntries = 4

func (x *indexer) allocate(arena *mem.Arena) (err error) {
	x.block, err = arena.Allocate("index block", format.BlockBytes, format.BlockBytes)
	return err
}

// addIndexEntry adds a run to a segment's index. Entries are ordered by position and at
// least stride bytes apart; when there are too many, every second one is dropped and
// the stride doubles. They come from extents that became durable, from reads, and from
// the index in the file.
func (s *segment) addIndexEntry(entry format.IndexEntry) {
	i := s.indexed
	for i > 0 && s.index[i-1].Position > entry.Position {
		i--
	}
	if i > 0 && (s.index[i-1].Position == entry.Position || entry.Position-s.index[i-1].Position < s.stride) {
		return
	}
	if i < s.indexed && s.index[i].Position-entry.Position < s.stride && i > 0 {
		return
	}
	if s.indexed == format.IndexEntriesMax {
		for k := 0; k < format.IndexEntriesMax/2; k++ {
			s.index[k] = s.index[2*k]
		}
		s.indexed = format.IndexEntriesMax / 2
		s.stride = max(2*s.stride, 2*format.FlushBytesMax)
		s.addIndexEntry(entry)
		return
	}
	copy(s.index[i+1:s.indexed+1], s.index[i:s.indexed])
	s.index[i] = entry
	s.indexed++
}

// seek is the last known run at or before an offset. near: it holds the offset, or is
// close to the run that does.
func (s *segment) seek(offset int64) (entry format.IndexEntry, near bool) {
	entry = format.IndexEntry{Base: s.base, Before: format.NoTime}
	for i := s.indexed - 1; i >= 0; i-- {
		if s.index[i].Base <= offset {
			entry = s.index[i]
			break
		}
	}
	near = entry.Base == offset
	for i := range s.recent {
		if recent := &s.recent[i]; recent.Position > 0 && recent.Position >= entry.Position && recent.Base <= offset {
			entry, near = *recent, true
		}
	}
	return entry, near
}

// rememberReader keeps a position where a reader will go on.
func (s *segment) rememberReader(entry format.IndexEntry) {
	for i := range s.recent {
		if s.recent[i].Position == entry.Position {
			return
		}
	}
	s.recent[s.recentAt] = entry
	s.recentAt = (s.recentAt + 1) % recentEntries
}

// seekTime is the base of a run at or before the first run with a timestamp of at least
// ts.
func (s *segment) seekTime(ts int64) int64 {
	for i := s.indexed - 1; i >= 0; i-- {
		if s.index[i].Before < ts {
			return s.index[i].Base
		}
	}
	return s.base
}

// writeDue has a segment's index written, if everything admitted to the segment is in it
// and the file has room for a block more.
func (x *indexer) writeDue(seg *segment) {
	complete := seg.position > 0 && seg.pending == 0 && seg.extentsInFlight == 0
	fits := seg.position+format.BlockBytes <= seg.allocated
	if complete && fits && !seg.indexWriteDue && seg.indexPosition != seg.position {
		seg.indexWriteDue = true
		x.writesDue++
	}
}

// readDue has a segment's index read.
func (x *indexer) readDue(seg *segment) {
	seg.indexReadDue, seg.indexPosition = true, seg.position
	x.readsDue++
}

// cancel drops what is due of a segment.
func (x *indexer) cancel(seg *segment) {
	if seg.indexWriteDue {
		x.writesDue--
	}
	if seg.indexReadDue {
		x.readsDue--
	}
	seg.indexWriteDue, seg.indexReadDue = false, false
}

// written reports, at a clean stop, that the indexes of all segments are written.
func (x *indexer) written(logs *logTable, segments *segments) bool {
	if !x.atStop {
		x.atStop = true
		for i := range logs.all[:logs.used] {
			if lg := &logs.all[i]; lg.state == logOpen && lg.writing != none {
				x.writeDue(&segments.all[lg.writing])
			}
		}
	}
	return x.writesDue == 0 && !x.job.active
}

// step begins the next index that is due, and starts its operation.
func (x *indexer) step(logs *logTable, segments *segments, files *files, sleep *ioring.Instant) {
	job := &x.job
	if !job.active {
		if x.env.failed || x.writesDue == 0 && (x.readsDue == 0 || x.env.stopping) {
			return
		}
		for seg := &segments.all[x.next]; !seg.indexWriteDue && (!seg.indexReadDue || x.env.stopping); seg = &segments.all[x.next] {
			x.next = (x.next + 1) % int32(len(segments.all))
		}
		seg := &segments.all[x.next]
		*job = indexJob{active: true, write: seg.indexWriteDue, segment: x.next}
		x.cancel(seg)
		seg.readers++ // the file is not removed meanwhile
	}
	if job.pushed {
		return
	}
	seg := &segments.all[job.segment]
	if !job.opened {
		_, pending, errno := files.acquire(seg, false, sleep)
		if errno != 0 {
			seg.readers--
			job.active = false
			return
		}
		if pending {
			return
		}
		job.opened = true
		if job.write {
			seg.indexPosition = seg.position
			header := format.IndexHeader{Directory: x.env.dir, Generation: seg.generation, Log: logs.all[seg.log].id, Position: seg.indexPosition, Stride: seg.stride}
			header.Put(x.block.Bytes(), seg.index[:seg.indexed])
		}
	}
	op := ioring.Op{Code: ioring.Read, File: files.firstSlot + uint32(seg.file), Offset: uint64(seg.indexPosition), Buf: x.block,
		Token: ioring.MakeToken(kindIndex, 0, 0)}
	if job.write {
		op.Code = ioring.Write
	}
	if job.pushed = x.env.ring.Push(op); !job.pushed {
		earlier(sleep, x.env.now)
		return
	}
	x.env.disk.begin(WorkFiles, metadataBytes)
}

// completed takes the completion of the write or read.
func (x *indexer) completed(logs *logTable, segments *segments, files *files, completion ioring.Completion) {
	job := &x.job
	seg := &segments.all[job.segment]
	job.pushed = false
	x.env.disk.end(WorkFiles, metadataBytes)
	code := ioring.Read
	if job.write {
		code = ioring.Write
	}
	if again(code, completion.Result) {
		return
	}
	if completion.Result < 0 && !spaceShort(code, int(-completion.Result)) {
		x.env.survived(Failure{Op: code, File: SegmentFile, Generation: seg.generation, Offset: seg.indexPosition, Length: format.BlockBytes,
			Errno: ioring.Errno(-completion.Result), Log: logs.all[seg.log].id})
	}
	if !job.write && (completion.Result != format.BlockBytes || !x.accept(logs, x.block.Bytes(), seg)) {
		seg.indexPosition = 0
	}
	files.unpin(seg)
	seg.readers--
	job.active = false
}

// accept adds the entries of an index that was read to its segment. False: it is no
// index, or not of this segment and position.
func (x *indexer) accept(logs *logTable, buf []byte, seg *segment) bool {
	var header format.IndexHeader
	if !header.Get(buf) || header.Directory != x.env.dir || header.Generation != seg.generation ||
		header.Log != logs.all[seg.log].id || header.Position != seg.indexPosition {
		return false
	}
	if seg.stride == 0 {
		seg.stride = header.Stride
	}
	for i := range header.Entries {
		seg.addIndexEntry(format.IndexEntryAt(buf, i))
	}
	return true
}
