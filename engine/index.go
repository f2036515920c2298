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
type index struct {
	indexBlock mem.Block
	indexing   indexWork
	indexAt    int32 // where to look for the next
	writesDue  int   // segments whose index is to be written
	loadsDue   int   // ... read
	atStop     bool  // the ones of a clean stop were asked for
}

type indexWork struct {
	active  bool
	opened  bool
	pushed  bool
	write   bool
	segment int32
}

const recentEntries = 4

func (e *Engine) carveIndexes(arena *mem.Arena) (err error) {
	e.index.indexBlock, err = arena.Allocate("index block", format.BlockBytes, format.BlockBytes)
	return err
}

// note adds a run to the index, in its place, thinning it where it is full. The
// index is sparse, and filled by writing, by walking, and from what the life
// before knew.
func (q *segment) note(entry format.IndexEntry) {
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
		q.note(entry)
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
func (q *segment) remember(entry format.IndexEntry) {
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
func (e *Engine) indexDue(segIndex int32) {
	if seg := &e.segments.all[segIndex]; !seg.writeDue && seg.position > 0 && seg.indexAt != seg.position && seg.pending == 0 && seg.flying == 0 && seg.position+format.BlockBytes <= seg.bytes {
		seg.writeDue = true
		e.index.writesDue++
	}
}

// loadDue has the index of segment g read.
func (e *Engine) loadDue(segIndex int32) {
	e.segments.all[segIndex].loadDue, e.segments.all[segIndex].indexAt = true, e.segments.all[segIndex].position
	e.index.loadsDue++
}

// noIndexDue forgets what is due of segment q.
func (e *Engine) noIndexDue(seg *segment) {
	if seg.writeDue {
		e.index.writesDue--
	}
	if seg.loadDue {
		e.index.loadsDue--
	}
	seg.writeDue, seg.loadDue = false, false
}

// indexesWritten says that at a clean stop nothing of them is left to do.
func (e *Engine) indexesWritten() bool {
	if !e.index.atStop {
		e.index.atStop = true
		for i := range e.logs[:e.logsHigh] {
			if lg := &e.logs[i]; lg.state == logOpen && lg.writing != none {
				e.indexDue(lg.writing)
			}
		}
	}
	return e.index.writesDue == 0 && !e.index.indexing.active
}

func (e *Engine) stepIndexes(sleep *ioring.Instant) {
	job := &e.index.indexing
	if !job.active {
		if e.failed || e.index.writesDue == 0 && (e.index.loadsDue == 0 || e.stopping) {
			return
		}
		for seg := &e.segments.all[e.index.indexAt]; !seg.writeDue && (!seg.loadDue || e.stopping); seg = &e.segments.all[e.index.indexAt] {
			e.index.indexAt = (e.index.indexAt + 1) % int32(len(e.segments.all))
		}
		seg := &e.segments.all[e.index.indexAt]
		*job = indexWork{active: true, write: seg.writeDue, segment: e.index.indexAt}
		e.noIndexDue(seg)
		seg.readers++ // it is not removed under us
	}
	if job.pushed {
		return
	}
	seg := &e.segments.all[job.segment]
	if !job.opened {
		_, pending, errno := e.acquire(job.segment, false)
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
			seg.indexAt = seg.position
			header := format.IndexHeader{Directory: e.dir, Generation: seg.generation, Log: e.logs[seg.log].id, Position: seg.indexAt, Stride: seg.stride}
			header.Put(e.index.indexBlock.Bytes(), seg.index[:seg.indexed])
		}
	}
	op := ioring.Op{Code: ioring.Read, File: e.files.open0 + uint32(seg.file), Offset: uint64(seg.indexAt), Buf: e.index.indexBlock, Token: ioring.MakeToken(kindIndex, 0, 0)}
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
	job := &e.index.indexing
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
		e.survived(Failure{Op: code, File: SegmentFile, Generation: seg.generation, Offset: seg.indexAt, Length: format.BlockBytes, Errno: ioring.Errno(-completion.Result), Log: e.logs[seg.log].id})
	}
	if !job.write && (completion.Result != format.BlockBytes || !e.takeIndex(e.index.indexBlock.Bytes(), seg)) {
		seg.indexAt = 0
	}
	e.letGo(job.segment)
	seg.readers--
	job.active = false
}

// takeIndex takes what p tells of q. False: it is no index, or not this one.
func (e *Engine) takeIndex(buf []byte, seg *segment) bool {
	var header format.IndexHeader
	if !header.Get(buf) || header.Directory != e.dir || header.Generation != seg.generation || header.Log != e.logs[seg.log].id || header.Position != seg.indexAt {
		return false
	}
	if seg.stride == 0 {
		seg.stride = header.Stride
	}
	for i := range header.Entries {
		seg.note(format.IndexEntryAt(buf, i))
	}
	return true
}
