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

func (e *Engine) carveIndexes(a *mem.Arena) (err error) {
	e.index.indexBlock, err = a.Allocate("index block", format.BlockBytes, format.BlockBytes)
	return err
}

// note adds a run to the index, in its place, thinning it where it is full. The
// index is sparse, and filled by writing, by walking, and from what the life
// before knew.
func (q *segment) note(x format.IndexEntry) {
	i := q.indexed
	for i > 0 && q.index[i-1].Position > x.Position {
		i--
	}
	if i > 0 && (q.index[i-1].Position == x.Position || x.Position-q.index[i-1].Position < q.stride) {
		return
	}
	if i < q.indexed && q.index[i].Position-x.Position < q.stride && i > 0 {
		return
	}
	if q.indexed == format.IndexEntriesMax {
		for k := 0; k < format.IndexEntriesMax/2; k++ {
			q.index[k] = q.index[2*k]
		}
		q.indexed = format.IndexEntriesMax / 2
		q.stride = max(2*q.stride, 2*format.FlushBytesMax)
		q.note(x)
		return
	}
	copy(q.index[i+1:q.indexed+1], q.index[i:q.indexed])
	q.index[i] = x
	q.indexed++
}

// seek is the last run that is known to be at or before offset; near says that
// it is the one, or close to it.
func (q *segment) seek(offset int64) (x format.IndexEntry, near bool) {
	x = format.IndexEntry{Base: q.base, Before: format.NoTime}
	for i := q.indexed - 1; i >= 0; i-- {
		if q.index[i].Base <= offset {
			x = q.index[i]
			break
		}
	}
	near = x.Base == offset
	for i := range q.recent {
		if y := &q.recent[i]; y.Position > 0 && y.Position >= x.Position && y.Base <= offset {
			x, near = *y, true
		}
	}
	return x, near
}

// remember keeps where a reader may go on; recentEntries readers of a segment
// are told apart.
func (q *segment) remember(x format.IndexEntry) {
	for i := range q.recent {
		if q.recent[i].Position == x.Position {
			return
		}
	}
	q.recent[q.recentAt] = x
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
func (e *Engine) indexDue(g int32) {
	if q := &e.segments.all[g]; !q.writeDue && q.position > 0 && q.indexAt != q.position && q.pending == 0 && q.flying == 0 && q.position+format.BlockBytes <= q.bytes {
		q.writeDue = true
		e.index.writesDue++
	}
}

// loadDue has the index of segment g read.
func (e *Engine) loadDue(g int32) {
	e.segments.all[g].loadDue, e.segments.all[g].indexAt = true, e.segments.all[g].position
	e.index.loadsDue++
}

// noIndexDue forgets what is due of segment q.
func (e *Engine) noIndexDue(q *segment) {
	if q.writeDue {
		e.index.writesDue--
	}
	if q.loadDue {
		e.index.loadsDue--
	}
	q.writeDue, q.loadDue = false, false
}

// indexesWritten says that at a clean stop nothing of them is left to do.
func (e *Engine) indexesWritten() bool {
	if !e.index.atStop {
		e.index.atStop = true
		for i := range e.logs[:e.logsHigh] {
			if l := &e.logs[i]; l.state == logOpen && l.writing != none {
				e.indexDue(l.writing)
			}
		}
	}
	return e.index.writesDue == 0 && !e.index.indexing.active
}

func (e *Engine) stepIndexes(sleep *ioring.Instant) {
	w := &e.index.indexing
	if !w.active {
		if e.failed || e.index.writesDue == 0 && (e.index.loadsDue == 0 || e.stopping) {
			return
		}
		for q := &e.segments.all[e.index.indexAt]; !q.writeDue && (!q.loadDue || e.stopping); q = &e.segments.all[e.index.indexAt] {
			e.index.indexAt = (e.index.indexAt + 1) % int32(len(e.segments.all))
		}
		q := &e.segments.all[e.index.indexAt]
		*w = indexWork{active: true, write: q.writeDue, segment: e.index.indexAt}
		e.noIndexDue(q)
		q.readers++ // it is not removed under us
	}
	if w.pushed {
		return
	}
	q := &e.segments.all[w.segment]
	if !w.opened {
		_, pending, errno := e.acquire(w.segment, false)
		if errno != 0 {
			q.readers--
			w.active = false
			return
		}
		if pending {
			if e.ring.Room() < 1 {
				earlier(sleep, e.now)
			}
			return
		}
		w.opened = true
		if w.write {
			q.indexAt = q.position
			x := format.IndexHeader{Directory: e.dir, Generation: q.generation, Log: e.logs[q.log].id, Position: q.indexAt, Stride: q.stride}
			x.Put(e.index.indexBlock.Bytes(), q.index[:q.indexed])
		}
	}
	op := ioring.Op{Code: ioring.Read, File: e.files.open0 + uint32(q.file), Offset: uint64(q.indexAt), Buf: e.index.indexBlock, Token: ioring.MakeToken(kindIndex, 0, 0)}
	if w.write {
		op.Code = ioring.Write
	}
	if w.pushed = e.ring.Push(op); !w.pushed {
		earlier(sleep, e.now)
		return
	}
	e.disk.begin(WorkFiles, metadataBytes)
}

func (e *Engine) indexCompleted(c ioring.Completion) {
	w := &e.index.indexing
	q := &e.segments.all[w.segment]
	w.pushed = false
	e.disk.end(WorkFiles, metadataBytes)
	code := ioring.Read
	if w.write {
		code = ioring.Write
	}
	if again(code, c.Result) {
		return
	}
	if c.Result < 0 && !spaceShort(code, int(-c.Result)) {
		e.survived(Failure{Op: code, File: SegmentFile, Generation: q.generation, Offset: q.indexAt, Length: format.BlockBytes, Errno: ioring.Errno(-c.Result), Log: e.logs[q.log].id})
	}
	if !w.write && (c.Result != format.BlockBytes || !e.takeIndex(e.index.indexBlock.Bytes(), q)) {
		q.indexAt = 0
	}
	e.letGo(w.segment)
	q.readers--
	w.active = false
}

// takeIndex takes what p tells of q. False: it is no index, or not this one.
func (e *Engine) takeIndex(p []byte, q *segment) bool {
	var x format.IndexHeader
	if !x.Get(p) || x.Directory != e.dir || x.Generation != q.generation || x.Log != e.logs[q.log].id || x.Position != q.indexAt {
		return false
	}
	if q.stride == 0 {
		q.stride = x.Stride
	}
	for i := range x.Entries {
		q.note(format.IndexEntryAt(p, i))
	}
	return true
}
