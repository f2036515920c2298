package engine

import (
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// index keeps what is known of where runs begin, so that a cold read or a
// search by time need not walk them all in the next life: a block behind the
// last run of a segment that takes no more, or of any at a clean stop. It is a
// hint, not synced, verified like anything read. One at a time:
//
//	open(); await write(index)
//	open(); await read(); verify; noted
type indexer struct {
	env       *env
	block     mem.Block
	job       indexJob
	next      int32 // where to look for the next
	writesDue int   // segments whose index is to be written
	readsDue  int   // ... read
	atStop    bool  // the ones of a clean stop were asked for
}

type indexJob struct {
	active  bool
	opened  bool
	pushed  bool
	write   bool
	segment int32
}

const recentEntries = 4

func (x *indexer) allocate(arena *mem.Arena) (err error) {
	x.block, err = arena.Allocate("index block", format.BlockBytes, format.BlockBytes)
	return err
}

// note adds a run to the index, in its place, thinning it where it is full. The
// index is sparse, and filled by writing, by walking, and from what the life
// before knew.
func (q *segment) addIndexEntry(entry format.IndexEntry) {
	i := q.indexed
	for i > 0 && q.index[i-1].Position > entry.Position {
		i--
	}
	if i > 0 && (q.index[i-1].Position == entry.Position || entry.Position-q.index[i-1].Position < q.stride) {
		return
	}
	if i < q.indexed && q.index[i].Position-entry.Position < q.stride && i > 0 {
		return
	}
	if q.indexed == format.IndexEntriesMax {
		for k := 0; k < format.IndexEntriesMax/2; k++ {
			q.index[k] = q.index[2*k]
		}
		q.indexed = format.IndexEntriesMax / 2
		q.stride = max(2*q.stride, 2*format.FlushBytesMax)
		q.addIndexEntry(entry)
		return
	}
	copy(q.index[i+1:q.indexed+1], q.index[i:q.indexed])
	q.index[i] = entry
	q.indexed++
}

// seek is the last run that is known to be at or before offset; near says that
// it is the one, or close to it.
func (q *segment) seek(offset int64) (entry format.IndexEntry, near bool) {
	entry = format.IndexEntry{Base: q.base, Before: format.NoTime}
	for i := q.indexed - 1; i >= 0; i-- {
		if q.index[i].Base <= offset {
			entry = q.index[i]
			break
		}
	}
	near = entry.Base == offset
	for i := range q.recent {
		if recent := &q.recent[i]; recent.Position > 0 && recent.Position >= entry.Position && recent.Base <= offset {
			entry, near = *recent, true
		}
	}
	return entry, near
}

// remember keeps where a reader may go on; recentEntries readers of a segment
// are told apart.
func (q *segment) rememberReader(entry format.IndexEntry) {
	for i := range q.recent {
		if q.recent[i].Position == entry.Position {
			return
		}
	}
	q.recent[q.recentAt] = entry
	q.recentAt = (q.recentAt + 1) % recentEntries
}

func (q *segment) seekTime(ts int64) int64 {
	for i := q.indexed - 1; i >= 0; i-- {
		if q.index[i].Before < ts {
			return q.index[i].Base
		}
	}
	return q.base
}

// indexDue has the index of segment g written, if g is complete.
func (x *indexer) writeDue(seg *segment) {
	if !seg.indexWriteDue && seg.position > 0 && seg.indexPosition != seg.position && seg.pending == 0 && seg.extentsInFlight == 0 && seg.position+format.BlockBytes <= seg.allocated {
		seg.indexWriteDue = true
		x.writesDue++
	}
}

// loadDue has the index of segment g read.
func (x *indexer) readDue(seg *segment) {
	seg.indexReadDue, seg.indexPosition = true, seg.position
	x.readsDue++
}

// noIndexDue forgets what is due of segment q.
func (x *indexer) cancel(seg *segment) {
	if seg.indexWriteDue {
		x.writesDue--
	}
	if seg.indexReadDue {
		x.readsDue--
	}
	seg.indexWriteDue, seg.indexReadDue = false, false
}

// indexesWritten says that at a clean stop nothing of them is left to do.
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

func (e *Engine) stepIndex(sleep *ioring.Instant) {
	job := &e.index.job
	if !job.active {
		if e.failed || e.index.writesDue == 0 && (e.index.readsDue == 0 || e.stopping) {
			return
		}
		for seg := &e.segments.all[e.index.next]; !seg.indexWriteDue && (!seg.indexReadDue || e.stopping); seg = &e.segments.all[e.index.next] {
			e.index.next = (e.index.next + 1) % int32(len(e.segments.all))
		}
		seg := &e.segments.all[e.index.next]
		*job = indexJob{active: true, write: seg.indexWriteDue, segment: e.index.next}
		e.index.cancel(seg)
		seg.readers++ // it is not removed under us
	}
	if job.pushed {
		return
	}
	seg := &e.segments.all[job.segment]
	if !job.opened {
		_, pending, errno := e.files.acquire(seg, false)
		if errno != 0 {
			seg.readers--
			job.active = false
			return
		}
		if pending {
			if e.ring.Room() < 1 {
				earlier(sleep, e.now)
			}
			return
		}
		job.opened = true
		if job.write {
			seg.indexPosition = seg.position
			header := format.IndexHeader{Directory: e.dir, Generation: seg.generation, Log: e.logs.all[seg.log].id, Position: seg.indexPosition, Stride: seg.stride}
			header.Put(e.index.block.Bytes(), seg.index[:seg.indexed])
		}
	}
	op := ioring.Op{Code: ioring.Read, File: e.files.firstSlot + uint32(seg.file), Offset: uint64(seg.indexPosition), Buf: e.index.block, Token: ioring.MakeToken(kindIndex, 0, 0)}
	if job.write {
		op.Code = ioring.Write
	}
	if job.pushed = e.ring.Push(op); !job.pushed {
		earlier(sleep, e.now)
		return
	}
	e.disk.begin(WorkFiles, metadataBytes)
}

func (e *Engine) indexCompleted(completion ioring.Completion) {
	job := &e.index.job
	seg := &e.segments.all[job.segment]
	job.pushed = false
	e.disk.end(WorkFiles, metadataBytes)
	code := ioring.Read
	if job.write {
		code = ioring.Write
	}
	if again(code, completion.Result) {
		return
	}
	if completion.Result < 0 && !spaceShort(code, int(-completion.Result)) {
		e.survived(Failure{Op: code, File: SegmentFile, Generation: seg.generation, Offset: seg.indexPosition, Length: format.BlockBytes, Errno: ioring.Errno(-completion.Result), Log: e.logs.all[seg.log].id})
	}
	if !job.write && (completion.Result != format.BlockBytes || !e.index.accept(&e.logs, e.index.block.Bytes(), seg)) {
		seg.indexPosition = 0
	}
	e.files.unpin(seg)
	seg.readers--
	job.active = false
}

// takeIndex takes what p tells of q. False: it is no index, or not this one.
func (x *indexer) accept(logs *logTable, buf []byte, seg *segment) bool {
	var header format.IndexHeader
	if !header.Get(buf) || header.Directory != x.env.dir || header.Generation != seg.generation || header.Log != logs.all[seg.log].id || header.Position != seg.indexPosition {
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
