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
type diskReads struct {
	env  *env
	all  [readsMax]diskRead
	busy int
	next int // whose turn it is to ask the disk
}

type diskRead struct {
	stage    readStage
	held     bool // ReadEnd has not come
	pushed   bool
	opened   bool
	log      Slot
	id       uint64 // of the log when the read began: the slot may be another's by now
	segment  int32
	user     uint32
	from     int64
	at       format.IndexEntry // of the run that is looked at
	examined int               // where it is in buf
	buf      mem.Block
	got      int
	want     int
	asked    int  // of the disk
	ended    bool // the file does, behind what was got
	single   bool // the disk has refused a read of much
	first    int  // the runs that were found whole are here in buf
	end      int
	pins     int32
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

const pinDisk = 1 << 31

// Hot says that a View lies in log memory, and pins some of it.
func (v View) Hot() bool { return v.Pin&pinDisk == 0 }

// Read gives the batches that hold offsets from to to, oldest first, at most
// maxBytes of them, but the first one whole.
func (e *Engine) Read(slot Slot, from, to int64, maxBytes int, out []View) (n int, st Status) {
	if !e.logs.isOpen(slot) {
		return 0, Unknown
	}
	lg := &e.logs.all[slot]
	switch {
	case from < lg.start || from > lg.end:
		return 0, OutOfRange
	case lg.corruptFrom != format.NoOffset && from >= lg.end:
		return 0, LogCorrupt // nothing will come there
	case from >= to || len(out) == 0:
		return 0, Empty
	}
	e.cache.trim(&e.batches, lg)
	cur, ok := e.batches.find(lg, from)
	if !ok && lg.isCorrupt(from) {
		return 0, LogCorrupt
	}
	if !ok {
		return 0, NotCached
	}
	for batch := e.batches.at(&cur); batch != nil && n < len(out) && batch.base < to; batch = e.batches.at(&cur) {
		if n > 0 && int(batch.length) > maxBytes {
			break
		}
		maxBytes -= int(batch.length)
		slab := &e.cache.slabs[batch.slab]
		if slab.pins == 0 {
			e.cache.pinned++
		}
		slab.pins++
		at := int(batch.pos) + format.EntryHeaderBytes
		out[n] = View{slab.block.Bytes()[at : at+int(batch.length) : at+int(batch.length)], uint32(batch.slab)}
		n++
		cur.at++
	}
	return n, OK
}

// SeekTime is an offset at which to begin looking for the first batch whose
// largest timestamp is at least ts, never past it. False: no batch has one.
func (e *Engine) SeekTime(slot Slot, ts int64) (base int64, ok bool) {
	lg := &e.logs.all[slot]
	if lg.maxTimeBase == format.NoOffset || lg.maxTime < ts || lg.start == lg.end {
		return 0, false
	}
	for seg := e.segments.at(lg.firstSegment); seg != nil; seg = e.segments.at(seg.next) {
		if seg.position == 0 || seg.maxTime < ts || seg.end <= lg.start {
			continue
		}
		return max(seg.seekTime(ts), lg.start), true
	}
	for i := lg.firstChunk; i != none; i = e.batches.chunks[i].next {
		chunk := &e.batches.chunks[i]
		for k := chunk.head; k < chunk.tail; k++ {
			if batch := &chunk.batches[k]; batch.maxTime >= ts && batch.base+int64(batch.count) > lg.start {
				return max(batch.base, lg.start), true
			}
		}
	}
	return max(lg.flushed, lg.start), true
}

// Unpin lets a View's bytes go.
func (e *Engine) Unpin(pin uint32) {
	if pin&pinDisk != 0 {
		e.reads.unpin(pin &^ pinDisk)
		return
	}
	slab := &e.cache.slabs[pin]
	if slab.pins <= 0 {
		panic("engine: Unpin of what is not pinned")
	}
	slab.pins--
	if slab.pins == 0 {
		e.cache.pinned--
		e.progress++
	}
}

// UnpinQuietly is Unpin of what was read in this turn: that is no progress, which
// would have whoever waits for memory look, and read, again.
func (e *Engine) UnpinQuietly(pin uint32) {
	was := e.progress
	e.Unpin(pin)
	e.progress = was
}

// ReadDisk reads and verifies the run that holds from, and runs behind it. The
// event ReadDone tells; with status OK, ReadEnd must follow it.
func (e *Engine) ReadDisk(slot Slot, from int64, user uint32) Status {
	if !e.logs.isOpen(slot) {
		return Unknown
	}
	lg := &e.logs.all[slot]
	if from < lg.start || from >= lg.flushed {
		return OutOfRange
	}
	if lg.isCorrupt(from) {
		return LogCorrupt
	}
	seg := e.segments.at(lg.firstSegment)
	for seg != nil && (seg.position == 0 || seg.end <= from) {
		seg = e.segments.at(seg.next)
	}
	if seg == nil || seg.base > from {
		e.stats.Corrupt++
		return Corrupt
	}
	for i := range e.reads.all {
		read := &e.reads.all[i]
		if read.stage != readFree {
			continue
		}
		*read = diskRead{stage: readHeader, held: true, log: slot, id: lg.id, segment: seg.number, user: user, from: from, want: format.BlockBytes, buf: read.buf}
		var near bool
		if read.at, near = seg.seek(from); near {
			e.reads.want(&e.segments, read, 0)
		}
		seg.readers++
		e.reads.busy++
		e.stats.ColdReads++
		return OK
	}
	return WaitMemory
}

func (r *diskReads) step(segments *segments, files *files, sleep *ioring.Instant) {
	if r.busy == 0 {
		return
	}
	flying := 0
	for i := range r.all {
		if r.all[i].pushed {
			flying++
		}
	}
	for k, first := 0, r.next; k < readsMax; k++ {
		i := (first + k) % readsMax
		read := &r.all[i]
		if read.pushed || read.stage == readFree || read.stage == readDone {
			continue
		}
		if flying >= readsBeside && r.env.appending() {
			return // asked again when one is done
		}
		if !read.opened {
			_, pending, errno := files.acquire(&segments.all[read.segment], false)
			if errno != 0 {
				r.env.survived(r.failureOf(segments, read, ioring.Open, errno))
				r.end(segments, files, uint32(i), Corrupt)
				continue
			}
			if pending {
				if r.env.ring.Room() < 1 {
					earlier(sleep, r.env.now)
				}
				continue
			}
			read.opened = true
		}
		read.pushed = r.env.ring.Push(ioring.Op{Code: ioring.Read, File: files.firstSlot + uint32(segments.all[read.segment].file), Offset: uint64(read.at.Position) + uint64(read.got), Buf: read.buf.Slice(read.got, read.want-read.got), Token: ioring.MakeToken(kindRead, 0, uint32(i))})
		if !read.pushed {
			earlier(sleep, r.env.now)
			continue
		}
		flying++
		r.next = (i + 1) % readsMax
		read.asked = read.want - read.got
		r.env.disk.begin(WorkReads, read.asked)
	}
}

// appending says that something was appended just now.
func (v *env) appending() bool { return v.now-v.appendedAt < besideNS }

type readStage uint8

const (
	readFree   readStage = iota
	readHeader           // the head of a run alone is read
	readRuns             // a run is, with what follows
	readDone
)

func (r *diskReads) allocate(arena *mem.Arena) (err error) {
	for i := range r.all {
		if r.all[i].buf, err = arena.Allocate("read buffers", r.env.o.RunBufferBytes(), format.BlockBytes); err != nil {
			return err
		}
	}
	return nil
}

func (r *diskReads) completed(logs *logTable, segments *segments, files *files, index uint32, completion ioring.Completion) {
	read := &r.all[index]
	read.pushed = false
	r.env.disk.end(WorkReads, read.asked)
	if again(ioring.Read, completion.Result) {
		return
	}
	switch {
	case completion.Result < 0 && read.stage == readRuns && !read.single:
		read.single = true // it may be about what lies behind the run
		read.wantHeader()
		return
	case completion.Result < 0:
		r.env.survived(r.failureOf(segments, read, ioring.Read, int(-completion.Result)))
		r.end(segments, files, index, StorageFailed) // what lies there may be sound
		return
	case completion.Result == 0:
		read.ended = true
	default:
		if read.got += int(completion.Result); read.got < read.want {
			read.got &^= format.BlockBytes - 1
			return
		}
	}
	for r.examine(logs, segments, files, index) {
	}
}

// readHead has the head of the run be read where the read stands.
func (r *diskRead) wantHeader() {
	r.stage, r.examined, r.got, r.want = readHeader, 0, 0, format.BlockBytes
}

// readRuns has the run be read where the read stands, which takes so many bytes
// at least, and what follows. What is there of it stays.
func (r *diskReads) want(segments *segments, read *diskRead, atLeast int) {
	if read.examined > 0 {
		read.examined, read.got = 0, 0
	}
	read.stage, read.want = readRuns, atLeast
	if read.single {
		return
	}
	most := readAtOnce
	if r.env.appending() {
		most = readBeside
	}
	// The next run is likely as large as the last: no piece of one more.
	seg := &segments.all[read.segment]
	if seg.lastReadBytes > most {
		most = seg.lastReadBytes
	} else if seg.lastReadBytes > 0 {
		most -= most % seg.lastReadBytes
	}
	read.want = int(min(int64(max(atLeast, most)), seg.position-read.at.Position, int64(read.buf.Len())))
}

// lookCold looks at the run where the read stands. False: the read is over, or
// more has to come.
func (r *diskReads) examine(logs *logTable, segments *segments, files *files, index uint32) bool {
	read := &r.all[index]
	seg := &segments.all[read.segment]
	var header format.RunHeader
	buf := read.buf.Bytes()[min(read.examined, read.got):read.got] // a run that was passed may end behind it
	last := read.end > 0 || read.ended                             // no more is asked of the disk
	switch {
	case read.at.Position >= seg.position || len(buf) < format.BlockBytes && last:
		return r.stop(logs, segments, files, index, seg.end)
	case len(buf) < format.BlockBytes:
		read.wantHeader()
		return false
	}
	if !header.Get(buf) || header.Directory != r.env.dir || header.Generation != seg.generation || header.Log != read.id || header.Base != read.at.Base && (header.Base < read.at.Base || header.Base > logs.all[read.log].start) || header.Bytes() > read.buf.Len() || read.at.Position+int64(header.Bytes()) > seg.position {
		return r.stop(logs, segments, files, index, seg.end)
	}
	passed := header.End <= read.from
	switch {
	case passed:
	case header.Bytes() > len(buf) && last:
		return r.stop(logs, segments, files, index, header.End)
	case header.Bytes() > len(buf):
		r.want(segments, read, header.Bytes())
		return false
	case !header.Whole(buf[format.HeaderBytes : format.HeaderBytes+int(header.BodyBytes)]):
		return r.stop(logs, segments, files, index, header.End)
	}
	seg.addIndexEntry(read.at)
	if read.end == 0 {
		r.env.stats.ColdHeads++
	}
	if !passed {
		if read.end == 0 {
			read.first = read.examined
			seg.rememberReader(read.at)
		}
		read.end = read.examined + header.Bytes()
		seg.lastReadBytes = header.Bytes()
		r.env.stats.ColdBytes += uint64(header.Bytes())
	}
	read.at = format.IndexEntry{Base: header.End, Position: read.at.Position + int64(header.Bytes()), Before: max(read.at.Before, header.MaxTime)}
	read.examined += header.Bytes()
	return true
}

// stopCold ends a read that goes no further: it is no longer under way, false.
// What was found is sound, and whoever reads on finds what stands behind it;
// where nothing was found the run is not what was written, nor is what follows
// up to end known to be.
func (r *diskReads) stop(logs *logTable, segments *segments, files *files, index uint32, end int64) bool {
	read := &r.all[index]
	if read.end > 0 {
		segments.all[read.segment].rememberReader(read.at)
		r.end(segments, files, index, OK)
		return false
	}
	r.corruptionFound(logs, segments, read, end)
	r.end(segments, files, index, Corrupt)
	return false
}

// rotFound: the run where r stands is not what was written. From now on its log
// takes no more; the records from that run on, to end at most, are lost unless
// memory still has them, those before and after are read on.
func (r *diskReads) corruptionFound(logs *logTable, segments *segments, read *diskRead, end int64) {
	lg := &logs.all[read.log]
	if lg.state != logOpen || lg.id != read.id {
		return
	}
	from := max(read.at.Base, lg.start)
	failure := r.failureOf(segments, read, ioring.Read, 0)
	failure.Offset, failure.Length, failure.From, failure.To, failure.Corrupt = read.at.Position, 0, from, end, true
	r.env.survived(failure)
	if lg.corruptFrom == format.NoOffset {
		lg.corruptFrom, lg.corruptTo = from, end
	} else {
		lg.corruptFrom, lg.corruptTo = min(lg.corruptFrom, from), max(lg.corruptTo, end)
	}
	r.env.progress++
}

// readFailure is what ended read r: the operation that it stands at.
func (r *diskReads) failureOf(segments *segments, read *diskRead, code ioring.Code, errno int) Failure {
	failure := Failure{Op: code, File: SegmentFile, Generation: segments.all[read.segment].generation, Errno: ioring.Errno(errno), Log: read.id}
	if code == ioring.Read {
		failure.Offset, failure.Length = read.at.Position+int64(read.got), int64(read.asked)
	}
	return failure
}

func (r *diskReads) end(segments *segments, files *files, index uint32, st Status) {
	read := &r.all[index]
	if read.opened {
		files.unpin(&segments.all[read.segment])
	}
	segments.all[read.segment].readers--
	r.busy--
	read.stage = readDone
	if st != OK {
		if st == Corrupt {
			r.env.stats.Corrupt++
		}
		read.stage, read.held = readFree, false
		r.env.progress++
	}
	r.env.emit(Event{Kind: ReadDone, Slot: read.log, User: read.user, Status: st, Read: index})
}

// ReadViews gives the batches of a finished read that hold offsets from to to,
// as Read does.
func (e *Engine) ReadViews(read uint32, from, to int64, maxBytes int, out []View) (n int) {
	r := &e.reads.all[read]
	if r.stage != readDone || !r.held {
		panic("engine: ReadViews of a read that is not")
	}
	for at := r.first; at < r.end; {
		var run format.RunHeader
		run.Get(r.buf.Bytes()[at:r.end])
		buf := r.buf.Bytes()[at : at+format.HeaderBytes+int(run.BodyBytes)]
		at += run.Bytes()
		if run.End <= from {
			continue
		}
		for at := format.HeaderBytes; at < len(buf); {
			var entry format.Entry
			entry.Read(buf[at:])
			if entry.Base >= to || n == len(out) {
				return n
			}
			if entry.Base+int64(entry.Count) > from {
				if n > 0 && int(entry.Length) > maxBytes {
					return n
				}
				maxBytes -= int(entry.Length)
				b := at + format.EntryHeaderBytes
				out[n] = View{buf[b : b+int(entry.Length) : b+int(entry.Length)], pinDisk | read}
				r.pins++
				n++
			}
			at += entry.Bytes()
		}
	}
	return n
}

// ReadEnd ends a read; its views stay until they are unpinned.
func (e *Engine) ReadEnd(read uint32) {
	r := &e.reads.all[read]
	if !r.held {
		panic("engine: ReadEnd twice")
	}
	r.held = false
	e.reads.release(r)
}

func (r *diskReads) unpin(number uint32) {
	read := &r.all[number]
	if read.pins <= 0 {
		panic("engine: Unpin of what is not pinned")
	}
	read.pins--
	r.release(read)
}

func (r *diskReads) release(read *diskRead) {
	if !read.held && read.pins == 0 && read.stage == readDone {
		read.stage = readFree
		r.env.progress++
	}
}

// ReadBuffersFree is how many read buffers are free.
func (e *Engine) ReadBuffersFree() (n int) {
	for i := range e.reads.all {
		if e.reads.all[i].stage == readFree {
			n++
		}
	}
	return n
}

// ReadBuffersPinned says that a read buffer waits for its views to be unpinned.
func (e *Engine) ReadBuffersPinned() bool {
	for i := range e.reads.all {
		if read := &e.reads.all[i]; read.stage == readDone && read.pins > 0 {
			return true
		}
	}
	return false
}
