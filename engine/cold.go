package engine

import (
	"tailbound/ioring"
	"tailbound/mem"
)

// colds read runs from segments into buffers of their own. One read's life:
//
//	open(); loop { await header(); past it? next }; await whole run; verify; told
type colds struct {
	reads     [readsMax]coldRead
	coldsBusy int
}

type coldRead struct {
	stage   coldStage
	held    bool // ReadEnd has not come
	pushed  bool
	opened  bool
	log     Slot
	id      uint64 // of the log when the read began: the slot may be another's by now
	segment int32
	user    uint32
	from    int64
	at      indexEntry
	header  runHeader
	buf     mem.Block
	got     int
	want    int
	asked   int // of the disk
	pins    int32
}

type coldStage uint8

const (
	coldFree coldStage = iota
	coldOpen
	coldHeader
	coldBody
	coldDone
)

func (e *Engine) carveColds(a *mem.Arena) (err error) {
	for i := range e.reads {
		if e.reads[i].buf, err = a.Carve("read buffers", e.o.runBufferBytes(), blockBytes); err != nil {
			return err
		}
	}
	return nil
}

// ReadCold reads and verifies the run that holds from. The event ReadDone
// tells; with status OK, ReadEnd must follow it.
func (e *Engine) ReadCold(s Slot, from int64, user uint32) Status {
	if !e.open(s) {
		return Unknown
	}
	l := &e.logs[s]
	if from < l.start || from >= l.drained {
		return OutOfRange
	}
	if l.rots(from) {
		return Rot
	}
	g := l.segments
	for g != none && (e.all[g].position == 0 || e.all[g].end <= from) {
		g = e.all[g].next
	}
	if g == none || e.all[g].base > from {
		e.stats.Corrupt++
		return Corrupt
	}
	for i := range e.reads {
		r := &e.reads[i]
		if r.stage != coldFree {
			continue
		}
		*r = coldRead{stage: coldOpen, held: true, log: s, id: l.id, segment: g, user: user, from: from, at: e.all[g].seek(from), buf: r.buf}
		e.all[g].readers++
		e.coldsBusy++
		e.stats.ColdReads++
		return OK
	}
	return WaitMemory
}

func (e *Engine) stepColds(sleep *ioring.Instant) {
	if e.coldsBusy == 0 {
		return
	}
	for i := range e.reads {
		r := &e.reads[i]
		if r.pushed || r.stage == coldFree || r.stage == coldDone {
			continue
		}
		if !r.opened {
			_, pending, errno := e.acquire(r.segment, false)
			if errno != 0 {
				e.endCold(uint32(i), Corrupt)
				continue
			}
			if pending {
				if e.ring.Room() < 1 {
					earlier(sleep, e.now)
				}
				continue
			}
			r.opened = true
			r.stage, r.got, r.want = coldHeader, 0, blockBytes
		}
		r.pushed = e.ring.Push(ioring.Op{Code: ioring.Read, File: e.open0 + uint32(e.all[r.segment].file), Offset: uint64(r.at.position) + uint64(r.got), Buf: r.buf.Slice(r.got, r.want-r.got), Token: ioring.MakeToken(kindCold, 0, uint32(i))})
		if !r.pushed {
			earlier(sleep, e.now)
			continue
		}
		r.asked = r.want - r.got
		e.disk.begin(WorkReads, r.asked)
	}
}

func (e *Engine) coldCompleted(i uint32, c ioring.Completion) {
	r := &e.reads[i]
	r.pushed = false
	e.disk.end(WorkReads, r.asked)
	if again(c.Result) {
		return
	}
	if c.Result < 0 {
		e.endCold(i, StorageFailed) // what lies there may be sound
		return
	}
	if c.Result == 0 {
		e.rotFound(r, e.all[r.segment].end)
		e.endCold(i, Corrupt)
		return
	}
	r.got += int(c.Result)
	if r.got < r.want {
		r.got &^= blockBytes - 1
		return
	}
	q := &e.all[r.segment]
	h := &r.header
	p := r.buf.Bytes()
	if r.stage == coldHeader {
		e.stats.ColdHeads++
		if !h.get(p) || h.directory != e.dir || h.generation != q.generation || h.log != r.id || h.base != r.at.base && (h.base < r.at.base || h.base > e.logs[r.log].start) || h.bytes() > r.buf.Len() || r.at.position+int64(h.bytes()) > q.position {
			e.rotFound(r, q.end)
			e.endCold(i, Corrupt)
			return
		}
		if h.end <= r.from {
			q.note(r.at)
			r.at = indexEntry{base: h.end, position: r.at.position + int64(h.bytes()), before: max(r.at.before, h.maxTime)}
			r.got = 0
			if r.at.position >= q.position {
				e.rotFound(r, q.end)
				e.endCold(i, Corrupt)
			}
			return
		}
		q.note(r.at)
		r.stage, r.want = coldBody, h.bytes()
		if r.got < r.want {
			return
		}
	}
	e.stats.ColdBytes += uint64(r.want)
	if !h.whole(p[pieceHeader : pieceHeader+int(h.bodyBytes)]) {
		e.rotFound(r, h.end)
		e.endCold(i, Corrupt)
		return
	}
	e.endCold(i, OK)
}

// rotFound: the run where r stands is not what was written. From now on its log
// takes no more; the records from that run on, to end at most, are lost unless
// memory still has them, those before and after are read on.
func (e *Engine) rotFound(r *coldRead, end int64) {
	l := &e.logs[r.log]
	if l.state != logOpen || l.id != r.id {
		return
	}
	from := max(r.at.base, l.start)
	if l.rotFrom == noOffset {
		l.rotFrom, l.rotTo = from, end
	} else {
		l.rotFrom, l.rotTo = min(l.rotFrom, from), max(l.rotTo, end)
	}
	e.changes++
}

func (e *Engine) endCold(i uint32, st Status) {
	r := &e.reads[i]
	if r.opened {
		e.letGo(r.segment)
	}
	e.all[r.segment].readers--
	e.coldsBusy--
	r.stage = coldDone
	if st != OK {
		if st == Corrupt {
			e.stats.Corrupt++
		}
		r.stage, r.held = coldFree, false
		e.changes++
	}
	e.tell(Event{Kind: ReadDone, Slot: r.log, User: r.user, Status: st, Read: i})
}

// ReadViews gives the batches of a finished read that hold offsets from to to,
// as Read does.
func (e *Engine) ReadViews(read uint32, from, to int64, maxBytes int, out []View) (n int) {
	r := &e.reads[read]
	if r.stage != coldDone || !r.held {
		panic("engine: ReadViews of a read that is not")
	}
	p := r.buf.Bytes()[:pieceHeader+int(r.header.bodyBytes)]
	for at := pieceHeader; at < len(p) && n < len(out); {
		var h entry
		h.read(p[at:])
		if h.base >= to {
			break
		}
		if h.base+int64(h.count) > from {
			if n > 0 && int(h.length) > maxBytes {
				break
			}
			maxBytes -= int(h.length)
			b := at + entryHeader
			out[n] = View{p[b : b+int(h.length) : b+int(h.length)], pinCold | read}
			r.pins++
			n++
		}
		at += h.bytes()
	}
	return n
}

// ReadEnd ends a read; its views stay until they are unpinned.
func (e *Engine) ReadEnd(read uint32) {
	r := &e.reads[read]
	if !r.held {
		panic("engine: ReadEnd twice")
	}
	r.held = false
	e.freeCold(r)
}

func (e *Engine) unpinCold(read uint32) {
	r := &e.reads[read]
	if r.pins <= 0 {
		panic("engine: Unpin of what is not pinned")
	}
	r.pins--
	e.freeCold(r)
}

// ColdFree is how many read buffers are free.
func (e *Engine) ColdFree() (n int) {
	for i := range e.reads {
		if e.reads[i].stage == coldFree {
			n++
		}
	}
	return n
}

// ColdPinned says that a read buffer waits for its views to be unpinned.
func (e *Engine) ColdPinned() bool {
	for i := range e.reads {
		if r := &e.reads[i]; r.stage == coldDone && r.pins > 0 {
			return true
		}
	}
	return false
}

func (e *Engine) freeCold(r *coldRead) {
	if !r.held && r.pins == 0 && r.stage == coldDone {
		r.stage = coldFree
		e.changes++
	}
}
