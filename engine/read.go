package engine

import (
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// reads read runs from segments into buffers of their own. One read's life:
//
//	open(); loop { await head of a run(); past it? next }; await the run, and
//	what follows up to readAtOnce; verify; told
//
// Who goes on where another read ended, as a consumer does that catches up,
// needs no heads: the segment remembers where that was.
type reads struct {
	reads      [readsMax]coldRead
	coldsBusy  int
	coldNext   int            // whose turn it is to ask the disk
	appendedAt ioring.Instant // the last frame or run went to the disk
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
	at      format.IndexEntry // of the run that is looked at
	look    int               // where it is in buf
	buf     mem.Block
	got     int
	want    int
	asked   int  // of the disk
	ended   bool // the file does, behind what was got
	narrow  bool // the disk has refused a read of much
	first   int  // the runs that were found whole are here in buf
	end     int
	pins    int32
}

// readAtOnce is what one read asks of the disk, where no single run is larger:
// much for a request, and little for the shard's thread to verify in one turn.
// Where something was appended within besideNS, reads are smaller, and fewer are
// in flight: an append waits for those before it (docs/decisions/0016-cold-reads.md).
const (
	readsMax    = 4
	readAtOnce  = 256 << 10
	readBeside  = 128 << 10
	readsBeside = 2
	besideNS    = 20e6
)

// View is one batch as it lies in memory. Its bytes stay until Unpin(Pin).
type View struct {
	Bytes []byte
	Pin   uint32
}

const pinCold = 1 << 31

// Hot says that a View lies in log memory, and pins some of it.
func (v View) Hot() bool { return v.Pin&pinCold == 0 }

// Read gives the batches that hold offsets from to to, oldest first, at most
// maxBytes of them, but the first one whole.
func (e *Engine) Read(s Slot, from, to int64, maxBytes int, out []View) (n int, st Status) {
	if !e.open(s) {
		return 0, Unknown
	}
	l := &e.logs[s]
	switch {
	case from < l.start || from > l.end:
		return 0, OutOfRange
	case l.rotFrom != format.NoOffset && from >= l.end:
		return 0, Rot // nothing will come there
	case from >= to || len(out) == 0:
		return 0, Empty
	}
	e.trim(l)
	c, ok := e.find(l, from)
	if !ok && l.rots(from) {
		return 0, Rot
	}
	if !ok {
		return 0, Cold
	}
	for x := e.at(&c); x != nil && n < len(out) && x.base < to; x = e.at(&c) {
		if n > 0 && int(x.length) > maxBytes {
			break
		}
		maxBytes -= int(x.length)
		k := &e.cache.slabs[x.slab]
		if k.pins == 0 {
			e.cache.pinned++
		}
		k.pins++
		at := int(x.pos) + format.EntryHeaderBytes
		out[n] = View{k.block.Bytes()[at : at+int(x.length) : at+int(x.length)], uint32(x.slab)}
		n++
		c.at++
	}
	return n, OK
}

// SeekTime is an offset at which to begin looking for the first batch whose
// largest timestamp is at least ts, never past it. False: no batch has one.
func (e *Engine) SeekTime(s Slot, ts int64) (base int64, ok bool) {
	l := &e.logs[s]
	if l.maxTimeBase == format.NoOffset || l.maxTime < ts || l.start == l.end {
		return 0, false
	}
	for g := l.segments; g != none; g = e.segments.all[g].next {
		q := &e.segments.all[g]
		if q.position == 0 || q.maxTime < ts || q.end <= l.start {
			continue
		}
		return max(q.seekTime(ts), l.start), true
	}
	for i := l.first; i != none; i = e.cache.chunks[i].next {
		c := &e.cache.chunks[i]
		for k := c.head; k < c.tail; k++ {
			if x := &c.nodes[k]; x.maxTime >= ts && x.base+int64(x.count) > l.start {
				return max(x.base, l.start), true
			}
		}
	}
	return max(l.drained, l.start), true
}

// Unpin lets a View's bytes go.
func (e *Engine) Unpin(pin uint32) {
	if pin&pinCold != 0 {
		e.unpinCold(pin &^ pinCold)
		return
	}
	s := &e.cache.slabs[pin]
	if s.pins <= 0 {
		panic("engine: Unpin of what is not pinned")
	}
	s.pins--
	if s.pins == 0 {
		e.cache.pinned--
		e.changes++
	}
}

// Unread is Unpin of what was read in this turn: that is no progress, which
// would have whoever waits for memory look, and read, again.
func (e *Engine) Unread(pin uint32) {
	was := e.changes
	e.Unpin(pin)
	e.changes = was
}

// ReadCold reads and verifies the run that holds from, and runs behind it. The
// event ReadDone tells; with status OK, ReadEnd must follow it.
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
	for g != none && (e.segments.all[g].position == 0 || e.segments.all[g].end <= from) {
		g = e.segments.all[g].next
	}
	if g == none || e.segments.all[g].base > from {
		e.stats.Corrupt++
		return Corrupt
	}
	for i := range e.reads.reads {
		r := &e.reads.reads[i]
		if r.stage != coldFree {
			continue
		}
		*r = coldRead{stage: coldHead, held: true, log: s, id: l.id, segment: g, user: user, from: from, want: format.BlockBytes, buf: r.buf}
		var near bool
		if r.at, near = e.segments.all[g].seek(from); near {
			e.readRuns(r, 0)
		}
		e.segments.all[g].readers++
		e.reads.coldsBusy++
		e.stats.ColdReads++
		return OK
	}
	return WaitMemory
}

func (e *Engine) stepColds(sleep *ioring.Instant) {
	if e.reads.coldsBusy == 0 {
		return
	}
	flying := 0
	for i := range e.reads.reads {
		if e.reads.reads[i].pushed {
			flying++
		}
	}
	for k, first := 0, e.reads.coldNext; k < readsMax; k++ {
		i := (first + k) % readsMax
		r := &e.reads.reads[i]
		if r.pushed || r.stage == coldFree || r.stage == coldDone {
			continue
		}
		if flying >= readsBeside && e.appending() {
			return // asked again when one is done
		}
		if !r.opened {
			_, pending, errno := e.acquire(r.segment, false)
			if errno != 0 {
				e.survived(e.readFailure(r, ioring.Open, errno))
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
		}
		r.pushed = e.ring.Push(ioring.Op{Code: ioring.Read, File: e.files.open0 + uint32(e.segments.all[r.segment].file), Offset: uint64(r.at.Position) + uint64(r.got), Buf: r.buf.Slice(r.got, r.want-r.got), Token: ioring.MakeToken(kindCold, 0, uint32(i))})
		if !r.pushed {
			earlier(sleep, e.now)
			continue
		}
		flying++
		e.reads.coldNext = (i + 1) % readsMax
		r.asked = r.want - r.got
		e.disk.begin(WorkReads, r.asked)
	}
}

// appending says that something was appended just now.
func (e *Engine) appending() bool { return e.now-e.reads.appendedAt < besideNS }

type coldStage uint8

const (
	coldFree coldStage = iota
	coldHead           // the head of a run alone is read
	coldRuns           // a run is, with what follows
	coldDone
)

func (e *Engine) carveColds(a *mem.Arena) (err error) {
	for i := range e.reads.reads {
		if e.reads.reads[i].buf, err = a.Allocate("read buffers", e.o.RunBufferBytes(), format.BlockBytes); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) coldCompleted(i uint32, c ioring.Completion) {
	r := &e.reads.reads[i]
	r.pushed = false
	e.disk.end(WorkReads, r.asked)
	if again(ioring.Read, c.Result) {
		return
	}
	switch {
	case c.Result < 0 && r.stage == coldRuns && !r.narrow:
		r.narrow = true // it may be about what lies behind the run
		r.readHead()
		return
	case c.Result < 0:
		e.survived(e.readFailure(r, ioring.Read, int(-c.Result)))
		e.endCold(i, StorageFailed) // what lies there may be sound
		return
	case c.Result == 0:
		r.ended = true
	default:
		if r.got += int(c.Result); r.got < r.want {
			r.got &^= format.BlockBytes - 1
			return
		}
	}
	for e.lookCold(i) {
	}
}

// readHead has the head of the run be read where the read stands.
func (r *coldRead) readHead() { r.stage, r.look, r.got, r.want = coldHead, 0, 0, format.BlockBytes }

// readRuns has the run be read where the read stands, which takes so many bytes
// at least, and what follows. What is there of it stays.
func (e *Engine) readRuns(r *coldRead, atLeast int) {
	if r.look > 0 {
		r.look, r.got = 0, 0
	}
	r.stage, r.want = coldRuns, atLeast
	if r.narrow {
		return
	}
	most := readAtOnce
	if e.appending() {
		most = readBeside
	}
	// The next run is likely as large as the last: no piece of one more.
	q := &e.segments.all[r.segment]
	if q.runBytes > most {
		most = q.runBytes
	} else if q.runBytes > 0 {
		most -= most % q.runBytes
	}
	r.want = int(min(int64(max(atLeast, most)), q.position-r.at.Position, int64(r.buf.Len())))
}

// lookCold looks at the run where the read stands. False: the read is over, or
// more has to come.
func (e *Engine) lookCold(i uint32) bool {
	r := &e.reads.reads[i]
	q := &e.segments.all[r.segment]
	var h format.RunHeader
	p := r.buf.Bytes()[min(r.look, r.got):r.got] // a run that was passed may end behind it
	last := r.end > 0 || r.ended                 // no more is asked of the disk
	switch {
	case r.at.Position >= q.position || len(p) < format.BlockBytes && last:
		return e.stopCold(i, q.end)
	case len(p) < format.BlockBytes:
		r.readHead()
		return false
	}
	if !h.Get(p) || h.Directory != e.dir || h.Generation != q.generation || h.Log != r.id || h.Base != r.at.Base && (h.Base < r.at.Base || h.Base > e.logs[r.log].start) || h.Bytes() > r.buf.Len() || r.at.Position+int64(h.Bytes()) > q.position {
		return e.stopCold(i, q.end)
	}
	passed := h.End <= r.from
	switch {
	case passed:
	case h.Bytes() > len(p) && last:
		return e.stopCold(i, h.End)
	case h.Bytes() > len(p):
		e.readRuns(r, h.Bytes())
		return false
	case !h.Whole(p[format.HeaderBytes : format.HeaderBytes+int(h.BodyBytes)]):
		return e.stopCold(i, h.End)
	}
	q.note(r.at)
	if r.end == 0 {
		e.stats.ColdHeads++
	}
	if !passed {
		if r.end == 0 {
			r.first = r.look
			q.remember(r.at)
		}
		r.end = r.look + h.Bytes()
		q.runBytes = h.Bytes()
		e.stats.ColdBytes += uint64(h.Bytes())
	}
	r.at = format.IndexEntry{Base: h.End, Position: r.at.Position + int64(h.Bytes()), Before: max(r.at.Before, h.MaxTime)}
	r.look += h.Bytes()
	return true
}

// stopCold ends a read that goes no further: it is no longer under way, false.
// What was found is sound, and whoever reads on finds what stands behind it;
// where nothing was found the run is not what was written, nor is what follows
// up to end known to be.
func (e *Engine) stopCold(i uint32, end int64) bool {
	r := &e.reads.reads[i]
	if r.end > 0 {
		e.segments.all[r.segment].remember(r.at)
		e.endCold(i, OK)
		return false
	}
	e.rotFound(r, end)
	e.endCold(i, Corrupt)
	return false
}

// rotFound: the run where r stands is not what was written. From now on its log
// takes no more; the records from that run on, to end at most, are lost unless
// memory still has them, those before and after are read on.
func (e *Engine) rotFound(r *coldRead, end int64) {
	l := &e.logs[r.log]
	if l.state != logOpen || l.id != r.id {
		return
	}
	from := max(r.at.Base, l.start)
	f := e.readFailure(r, ioring.Read, 0)
	f.Offset, f.Length, f.From, f.To, f.Corrupt = r.at.Position, 0, from, end, true
	e.survived(f)
	if l.rotFrom == format.NoOffset {
		l.rotFrom, l.rotTo = from, end
	} else {
		l.rotFrom, l.rotTo = min(l.rotFrom, from), max(l.rotTo, end)
	}
	e.changes++
}

// readFailure is what ended read r: the operation that it stands at.
func (e *Engine) readFailure(r *coldRead, code ioring.Code, errno int) Failure {
	f := Failure{Op: code, File: SegmentFile, Generation: e.segments.all[r.segment].generation, Errno: ioring.Errno(errno), Log: r.id}
	if code == ioring.Read {
		f.Offset, f.Length = r.at.Position+int64(r.got), int64(r.asked)
	}
	return f
}

func (e *Engine) endCold(i uint32, st Status) {
	r := &e.reads.reads[i]
	if r.opened {
		e.letGo(r.segment)
	}
	e.segments.all[r.segment].readers--
	e.reads.coldsBusy--
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
	r := &e.reads.reads[read]
	if r.stage != coldDone || !r.held {
		panic("engine: ReadViews of a read that is not")
	}
	for at := r.first; at < r.end; {
		var run format.RunHeader
		run.Get(r.buf.Bytes()[at:r.end])
		p := r.buf.Bytes()[at : at+format.HeaderBytes+int(run.BodyBytes)]
		at += run.Bytes()
		if run.End <= from {
			continue
		}
		for at := format.HeaderBytes; at < len(p); {
			var h format.Entry
			h.Read(p[at:])
			if h.Base >= to || n == len(out) {
				return n
			}
			if h.Base+int64(h.Count) > from {
				if n > 0 && int(h.Length) > maxBytes {
					return n
				}
				maxBytes -= int(h.Length)
				b := at + format.EntryHeaderBytes
				out[n] = View{p[b : b+int(h.Length) : b+int(h.Length)], pinCold | read}
				r.pins++
				n++
			}
			at += h.Bytes()
		}
	}
	return n
}

// ReadEnd ends a read; its views stay until they are unpinned.
func (e *Engine) ReadEnd(read uint32) {
	r := &e.reads.reads[read]
	if !r.held {
		panic("engine: ReadEnd twice")
	}
	r.held = false
	e.freeCold(r)
}

func (e *Engine) unpinCold(read uint32) {
	r := &e.reads.reads[read]
	if r.pins <= 0 {
		panic("engine: Unpin of what is not pinned")
	}
	r.pins--
	e.freeCold(r)
}

func (e *Engine) freeCold(r *coldRead) {
	if !r.held && r.pins == 0 && r.stage == coldDone {
		r.stage = coldFree
		e.changes++
	}
}

// ColdFree is how many read buffers are free.
func (e *Engine) ColdFree() (n int) {
	for i := range e.reads.reads {
		if e.reads.reads[i].stage == coldFree {
			n++
		}
	}
	return n
}

// ColdPinned says that a read buffer waits for its views to be unpinned.
func (e *Engine) ColdPinned() bool {
	for i := range e.reads.reads {
		if r := &e.reads.reads[i]; r.stage == coldDone && r.pins > 0 {
			return true
		}
	}
	return false
}
