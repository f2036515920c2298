package engine

import (
	"math"

	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// diskReads read runs from segments, into buffers of their own. One read, as the
// function it stands for:
//
//	open(file); current = seek(from)
//	while current ends at or before from { await read(header of current); current = the next run }
//	await read(current, and what follows up to readAtOnce); verify each run; ReadDone
//
// Where current's header is broken, the next run is looked for block by block (search):
// runs say themselves what they are. What lies between is a hole of the log.
//
// A read that begins where another one ended, as the reads of a consumer that catches
// up do, reads no headers: the segment remembers where that was (rememberReader).
type diskReads struct {
	env  *env
	all  [readsMax]diskRead
	busy int
	next int // the read whose turn it is to be pushed
}

// diskRead is one read, and its buffer. current is the run that it has come to, examined
// where in buf that begins.
//
// Invariant: examined <= got <= want <= the buffer's length, except that a run which
// was passed may end behind got.
type diskRead struct {
	stage    readStage
	held     bool // ReadEnd was not called
	pushed   bool // it is in flight
	opened   bool // the segment's file is pinned
	log      Slot
	id       uint64 // the log's: another log may have the slot when the read ends
	segment  int32
	user     uint32
	from     int64
	current  format.IndexEntry
	examined int
	buf      mem.Block
	got      int  // bytes read into buf
	want     int  // bytes to read into it
	asked    int  // bytes that the operation in flight reads
	ended    bool // the file ends behind what was got
	single   bool // the disk has refused a read of several runs: one run alone is read
	heads    int  // headers of other runs that it may still read, and blocks that it may search
	search   search
	first    int // buf[first:end] holds the runs that were found whole; end 0: none yet
	end      int
	pins     int32
}

// search looks for the run behind a broken one, from a position on. It is of a read whose
// stage is readSearch.
//
// The run with base target is the one behind a hole. Where there is none, the first behind it
// says how far the damage goes; the target may still follow it, as recovery writes what
// the journal has of broken runs to the end of their place.
type search struct {
	position int64             // what is in buf, or read into it, begins here
	target   int64             // the base of the run that is looked for; format.NoOffset: any from current on
	later    format.IndexEntry // the first run behind target; at 0: none yet
	errno    int               // with which the disk has refused to read current's header, which may be sound
}

// Sizes of reads, and how many are in flight (docs/decisions/0016-cold-reads.md).
const (
	readsMax = 4
	// readAtOnce is what one read asks of the disk, unless a single run is larger. More
	// would keep the shard's thread verifying checksums for too long in one turn.
	readAtOnce = 256 << 10
	// Within besideNS of an append reads are smaller and fewer are in flight, as the
	// next append waits in the disk for the reads before it.
	readBeside  = 128 << 10
	readsBeside = 2
	besideNS    = 20e6
)

// View is one batch in memory. Its bytes are valid until Unpin(Pin).
type View struct {
	Bytes []byte
	Pin   uint32
}

// pinDisk marks a pin of a read buffer; any other pins a slab.
const pinDisk = 1 << 31

// Hot reports that a View is in log memory, and pins a slab of it.
func (v View) Hot() bool { return v.Pin&pinDisk == 0 }

// Read gives the batches in memory that hold offsets from from to to - 1, oldest first:
// at most maxBytes bytes, but at least one batch. Each view pins a slab. NotCached: the
// batch at from is not in memory.
func (e *Engine) Read(slot Slot, from, to int64, maxBytes int, out []View) (n int, st Status) {
	if !e.logs.isOpen(slot) {
		return 0, Unknown
	}
	lg := &e.logs.all[slot]
	switch {
	case from < lg.start || from > lg.end:
		return 0, OutOfRange
	case lg.firstHole != none && from >= lg.end && e.logs.holes.endUnknown(lg):
		return 0, Corrupt
	case from >= to || len(out) == 0:
		return 0, Empty
	}
	e.cache.trim(&e.batches, lg)
	cur, ok := e.batches.find(lg, from)
	if !ok && e.logs.holes.find(lg, from) != nil {
		return 0, Corrupt
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

// SeekTime is an offset at or behind from, and at or before the first batch behind from
// whose largest timestamp is at least ts. False: no batch has one.
func (e *Engine) SeekTime(slot Slot, ts, from int64) (base int64, ok bool) {
	lg := &e.logs.all[slot]
	if lg.maxTimeBase == format.NoOffset || lg.maxTime < ts {
		return 0, false
	}
	from = max(from, lg.start)
	for seg := e.segments.at(lg.firstSegment); seg != nil; seg = e.segments.at(seg.next) {
		if seg.position > 0 && seg.maxTime >= ts && seg.end > from {
			return max(seg.seekTime(ts), from), true
		}
	}
	for i := lg.firstChunk; i != none; i = e.batches.chunks[i].next {
		chunk := &e.batches.chunks[i]
		if chunk.next != none && e.batches.chunks[chunk.next].batches[e.batches.chunks[chunk.next].head].base <= from {
			continue
		}
		for k := chunk.head; k < chunk.tail; k++ {
			if batch := &chunk.batches[k]; batch.maxTime >= ts && batch.base >= lg.flushed && batch.base+int64(batch.count) > from {
				return max(batch.base, from), true
			}
		}
	}
	return 0, false
}

// Unpin gives the bytes of a View back.
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

// UnpinQuietly is Unpin of a view that was made in this turn. It does not count as
// Progress, after which requests that wait for memory would try, and read, again.
func (e *Engine) UnpinQuietly(pin uint32) {
	was := e.progress
	e.Unpin(pin)
	e.progress = was
}

// ReadDisk reads and verifies the run that holds from, and runs behind it. The event
// ReadDone has the result; if its Status is OK, ReadEnd must follow. WaitMemory: no read
// buffer is free.
func (e *Engine) ReadDisk(slot Slot, from int64, user uint32) Status {
	return e.ReadDiskWithin(slot, from, user, math.MaxInt)
}

// ReadDiskWithin is ReadDisk with a bound of the headers of other runs that it reads to find
// the right one: a segment of many small runs that has no index, as after a kill, may have
// hundreds of thousands. A read that comes to the bound is Unfinished. The next one goes on where
// it ended, unless others have read elsewhere in the segment; so the bound has to grow from
// one to the next.
func (e *Engine) ReadDiskWithin(slot Slot, from int64, user uint32, heads int) Status {
	if !e.logs.isOpen(slot) {
		return Unknown
	}
	lg := &e.logs.all[slot]
	if from < lg.start || from >= lg.flushed {
		return OutOfRange
	}
	if e.logs.holes.find(lg, from) != nil {
		return Corrupt
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
		*read = diskRead{stage: readHeader, held: true, log: slot, id: lg.id, segment: seg.number, user: user, from: from, heads: heads, want: format.BlockBytes, buf: read.buf}
		var near bool
		if read.current, near = seg.seek(from); near {
			e.reads.want(&e.segments, read, 0)
		}
		seg.readers++
		e.reads.busy++
		e.stats.ColdReads++
		return OK
	}
	return WaitMemory
}

// step pushes reads, in turn, so that each of them gets its share of the disk.
func (r *diskReads) step(segments *segments, files *files, sleep *ioring.Instant) {
	if r.busy == 0 {
		return
	}
	inFlight := 0
	for i := range r.all {
		if r.all[i].pushed {
			inFlight++
		}
	}
	for k, first := 0, r.next; k < readsMax; k++ {
		i := (first + k) % readsMax
		read := &r.all[i]
		if read.pushed || read.stage == readFree || read.stage == readDone {
			continue
		}
		if inFlight >= readsBeside && r.env.appending() {
			return // the step comes again when one of them completes
		}
		if !read.opened {
			_, pending, errno := files.acquire(&segments.all[read.segment], false, sleep)
			if errno != 0 {
				r.env.survived(r.failureOf(segments, read, ioring.Open, errno))
				r.end(segments, files, uint32(i), Corrupt)
				continue
			}
			if pending {
				continue
			}
			read.opened = true
		}
		read.pushed = r.env.ring.Push(ioring.Op{Code: ioring.Read, File: files.firstSlot + uint32(segments.all[read.segment].file),
			Offset: uint64(read.position() + int64(read.got)), Buf: read.buf.Slice(read.got, read.want-read.got),
			Token: ioring.MakeToken(kindRead, 0, uint32(i))})
		if !read.pushed {
			earlier(sleep, r.env.now)
			continue
		}
		inFlight++
		r.next = (i + 1) % readsMax
		read.asked = read.want - read.got
		r.env.disk.begin(WorkReads, read.asked)
	}
}

// appending reports that a frame or an extent went to the disk within besideNS.
func (v *env) appending() bool { return v.now-v.appendedAt < besideNS }

// readStage is what a read waits for.
type readStage uint8

const (
	readFree   readStage = iota
	readHeader           // it reads the header of a run alone
	readRuns             // it reads a run and what follows
	readSearch           // it looks for a run behind a broken one
	readDone             // the event ReadDone was queued; its views may be pinned
)

func (r *diskReads) allocate(arena *mem.Arena) (err error) {
	for i := range r.all {
		if r.all[i].buf, err = arena.Allocate("read buffers", r.env.o.RunBufferBytes(), format.BlockBytes); err != nil {
			return err
		}
	}
	return nil
}

// completed takes the completion of a read, and examines what it has brought.
func (r *diskReads) completed(logs *logTable, segments *segments, files *files, index uint32, completion ioring.Completion) {
	read := &r.all[index]
	read.pushed = false
	r.env.disk.end(WorkReads, read.asked)
	if again(ioring.Read, completion.Result) {
		return
	}
	switch {
	case completion.Result < 0 && read.stage == readRuns && !read.single:
		read.single = true // what cannot be read may be behind the run
		read.wantHeader()
		return
	case completion.Result < 0 && read.stage == readSearch:
		r.searchOn(logs, segments, files, index, true)
		return
	case completion.Result < 0 && read.stage == readHeader && r.passUnreadable(logs, segments, files, index, int(-completion.Result)):
		return
	case completion.Result < 0:
		r.env.survived(r.failureOf(segments, read, ioring.Read, int(-completion.Result)))
		r.end(segments, files, index, StorageFailed) // not Corrupt: what is on disk may be sound
		return
	case completion.Result == 0:
		read.ended = true
	default:
		if read.got += int(completion.Result); read.got < read.want {
			read.got &^= format.BlockBytes - 1
			return
		}
	}
	if read.stage == readSearch {
		r.searchOn(logs, segments, files, index, false)
		return
	}
	for r.examine(logs, segments, files, index) {
	}
}

// position is where in the file the read's buffer begins.
func (r *diskRead) position() int64 {
	if r.stage == readSearch {
		return r.search.position
	}
	return r.current.Position
}

// wantHeader has the header of the current run read.
func (r *diskRead) wantHeader() {
	r.stage, r.examined, r.got, r.want = readHeader, 0, 0, format.BlockBytes
}

// want has the current run read, which takes at least so many bytes, and what follows. What
// is read of it already stays.
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
	// The next run is probably as large as the last one: whole runs of that size are read.
	seg := &segments.all[read.segment]
	if seg.lastReadBytes > most {
		most = seg.lastReadBytes
	} else if seg.lastReadBytes > 0 {
		most -= most % seg.lastReadBytes
	}
	read.want = int(min(int64(max(atLeast, most)), seg.position-read.current.Position, int64(read.buf.Len())))
}

// examine verifies the current run, and moves on behind it. False: the read has ended, or has
// to read more first.
func (r *diskReads) examine(logs *logTable, segments *segments, files *files, index uint32) bool {
	read := &r.all[index]
	seg := &segments.all[read.segment]
	var header format.RunHeader
	buf := read.buf.Bytes()[min(read.examined, read.got):read.got]
	last := read.end > 0 || read.ended // nothing more is read
	switch {
	case read.current.Position >= seg.position || len(buf) < format.BlockBytes && last:
		return r.stop(logs, segments, files, index, seg.end)
	case len(buf) < format.BlockBytes:
		read.wantHeader()
		return false
	}
	own := r.isRunOf(read, seg, &header, buf) && header.Bytes() <= read.buf.Len() && read.current.Position+int64(header.Bytes()) <= seg.position
	hole := r.holeAt(logs, read, read.current.Base)
	over := r.env.o.Faults.Has(ReadsOverHole) && read.end > 0
	switch {
	case hole != nil && read.end > 0 && !over:
		return r.stop(logs, segments, files, index, 0) // what is behind a hole is another read's
	case hole != nil && hole.To > read.from && !over:
		r.end(segments, files, index, Corrupt) // it was found since the read began
		return false
	case hole != nil && !(own && header.Base == hole.To):
		// The lengths of runs in it say nothing: recovery may have used their places.
		return r.beginSearch(logs, segments, files, index, read.current.Position, hole.To)
	case hole != nil:
		read.current.Base = hole.To
	}
	// Before the log's start there may be a gap, as recovery does not flush what is before it.
	expected := header.Base == read.current.Base || header.Base > read.current.Base && header.Base <= logs.all[read.log].start
	switch {
	case own && expected:
	case read.end > 0:
		return r.stop(logs, segments, files, index, 0)
	default:
		return r.beginSearch(logs, segments, files, index, read.current.Position+format.BlockBytes, format.NoOffset)
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
	seg.addIndexEntry(read.current)
	if read.end == 0 {
		r.env.stats.ColdHeads++
	}
	if !passed {
		if read.end == 0 {
			read.first = read.examined
			seg.rememberReader(read.current)
		}
		read.end = read.examined + header.Bytes()
		seg.lastReadBytes = header.Bytes()
		r.env.stats.ColdBytes += uint64(header.Bytes())
	}
	read.pass(&header)
	if !passed {
		return true
	}
	if read.heads--; read.heads < 0 || r.env.stopping {
		seg.rememberReader(read.current)
		r.end(segments, files, index, Unfinished)
		return false
	}
	return true
}

// isRunOf reports that buf begins with the header of a run of the read's log and segment.
func (r *diskReads) isRunOf(read *diskRead, seg *segment, header *format.RunHeader, buf []byte) bool {
	return header.Get(buf) && header.IsOf(r.env.dir, seg.generation, read.id)
}

// holeAt is the hole of the read's log that has an offset; nil: there is none. What lies before
// the log's start counts as its first offset: what is missing there is in no hole.
func (r *diskReads) holeAt(logs *logTable, read *diskRead, offset int64) *listedHole {
	lg := &logs.all[read.log]
	if lg.firstHole == none || lg.id != read.id {
		return nil
	}
	return logs.holes.find(lg, max(offset, lg.start))
}

// pass moves on behind the current run.
func (r *diskRead) pass(header *format.RunHeader) {
	r.current = format.IndexEntry{Base: header.End, Position: r.current.Position + int64(header.Bytes()), Before: max(r.current.Before, header.MaxTime)}
	r.examined += header.Bytes()
}

// passUnreadable begins to look for the run behind current, whose header the disk refuses to
// read. False: from is not known to be behind it.
func (r *diskReads) passUnreadable(logs *logTable, segments *segments, files *files, index uint32, errno int) bool {
	read := &r.all[index]
	if read.current.Base == read.from || read.end > 0 {
		return false
	}
	read.search.errno = errno
	target := format.NoOffset
	if hole := r.holeAt(logs, read, read.current.Base); hole != nil {
		target = hole.To
	}
	r.beginSearch(logs, segments, files, index, read.current.Position+format.BlockBytes, target)
	return true
}

// beginSearch looks for the run with base target from a position on. It returns false, as more
// has to be read, or the read has ended.
func (r *diskReads) beginSearch(logs *logTable, segments *segments, files *files, index uint32, position, target int64) bool {
	read := &r.all[index]
	read.stage, read.search.position, read.search.target = readSearch, position, target
	if read.wantSearched(&segments.all[read.segment]); read.want == 0 {
		r.searchEnded(logs, segments, files, index, segments.all[read.segment].end)
	}
	return false
}

// wantSearched has the next part of the segment read; nothing, at its end.
func (r *diskRead) wantSearched(seg *segment) {
	r.examined, r.got = 0, 0
	r.want = int(max(0, min(readBeside, seg.position-r.search.position, int64(r.buf.Len()))))
}

// searchOn goes on with a search: refused says that the disk has not read what was wanted.
// A block that it refuses alone is passed.
func (r *diskReads) searchOn(logs *logTable, segments *segments, files *files, index uint32, refused bool) {
	read := &r.all[index]
	seg := &segments.all[read.segment]
	if refused {
		if read.want > format.BlockBytes {
			read.got, read.want = 0, format.BlockBytes
			return
		}
		read.got = 0
		read.search.position += format.BlockBytes
	}
	var header format.RunHeader
	for buf := read.buf.Bytes()[:read.got]; len(buf) >= format.BlockBytes; buf = buf[format.BlockBytes:] {
		target, later := read.search.target, &read.search.later
		if r.isRunOf(read, seg, &header, buf) && header.Base >= max(target, read.current.Base) {
			if target == format.NoOffset || header.Base == target {
				r.searchEnded(logs, segments, files, index, header.Base)
				return
			}
			if later.Position == 0 {
				later.Base, later.Position = header.Base, read.search.position
			}
		}
		read.search.position += format.BlockBytes
		read.heads--
	}
	if read.heads < 0 || r.env.stopping {
		r.end(segments, files, index, Unfinished) // the next read begins the search again, and has a larger bound
		return
	}
	later := read.search.later
	if read.wantSearched(seg); read.want > 0 && !read.ended && (later.Position == 0 || read.search.position < later.Position+searchBehind) {
		return
	}
	if read.search.position = seg.position; later.Position > 0 {
		read.search.position = later.Position
		r.searchEnded(logs, segments, files, index, later.Base)
		return
	}
	r.searchEnded(logs, segments, files, index, seg.end)
}

// searchBehind bounds how far a run is looked for behind one that should follow it.
const searchBehind = 4 << 20

// searchEnded ends a search at a run with that base, or at the end of the segment. What was
// passed is a hole, unless it is known as one or only the disk refused to read it.
func (r *diskReads) searchEnded(logs *logTable, segments *segments, files *files, index uint32, base int64) {
	read := &r.all[index]
	position := read.search.position
	found := position < segments.all[read.segment].position
	errno := read.search.errno
	read.search = search{}
	if hole := r.holeAt(logs, read, read.current.Base); hole != nil {
		read.current.Base = min(hole.To, base) // as far as is known
	}
	if errno == 0 {
		r.corruptionFound(logs, segments, read, base)
	}
	switch {
	case found && base <= read.from:
		read.current.Base, read.current.Position = base, position
		read.wantHeader()
	case errno != 0:
		failure := r.failureOf(segments, read, ioring.Read, errno)
		failure.Offset, failure.Length = read.current.Position, format.BlockBytes
		r.env.survived(failure)
		r.end(segments, files, index, StorageFailed)
	default:
		r.end(segments, files, index, Corrupt)
	}
}

// stop ends a read that cannot go further, and returns false. Runs that were found are
// sound, and the read has succeeded; the next read finds what is wrong behind them. If
// none was found, the current run is corrupt, and the records up to end are not known to
// be sound.
func (r *diskReads) stop(logs *logTable, segments *segments, files *files, index uint32, end int64) bool {
	read := &r.all[index]
	if read.end > 0 {
		segments.all[read.segment].rememberReader(read.current)
		r.end(segments, files, index, OK)
		return false
	}
	r.corruptionFound(logs, segments, read, end)
	r.end(segments, files, index, Corrupt)
	return false
}

// corruptionFound records that the current run is not what was written. Its log takes no
// more appends. The records from that run up to end are lost unless memory has them;
// those before and after can still be read.
func (r *diskReads) corruptionFound(logs *logTable, segments *segments, read *diskRead, end int64) {
	lg := &logs.all[read.log]
	if lg.state != logOpen || lg.id != read.id {
		return
	}
	from := max(read.current.Base, lg.start)
	if from >= end {
		return // all of it was removed
	}
	failure := r.failureOf(segments, read, ioring.Read, 0)
	failure.Offset, failure.Length, failure.Corrupt = read.current.Position, 0, true
	failure.From, failure.To = from, end
	r.env.survived(failure)
	logs.holes.add(lg, Hole{From: from, To: end, Generation: failure.Generation, At: failure.Offset})
	r.env.progress++
}

// failureOf is what a read failed with.
func (r *diskReads) failureOf(segments *segments, read *diskRead, code ioring.Code, errno int) Failure {
	failure := Failure{Op: code, File: SegmentFile, Generation: segments.all[read.segment].generation, Errno: ioring.Errno(errno), Log: read.id}
	if code == ioring.Read {
		failure.Offset, failure.Length = read.current.Position+int64(read.got), int64(read.asked)
	}
	return failure
}

// end queues the event ReadDone. A read without a result is free at once.
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

// ReadViews gives the batches of a read that has ended which hold offsets from from to
// to - 1, as Read does. Each view pins the read buffer.
func (e *Engine) ReadViews(read uint32, from, to int64, maxBytes int, out []View) (n int) {
	r := &e.reads.all[read]
	if r.stage != readDone || !r.held {
		panic("engine: ReadViews of a read that is not done")
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

// unpin drops one pin of a read buffer.
func (r *diskReads) unpin(number uint32) {
	read := &r.all[number]
	if read.pins <= 0 {
		panic("engine: Unpin of what is not pinned")
	}
	read.pins--
	r.release(read)
}

// release frees a read that has ended and whose views are all unpinned.
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

// ReadBuffersPinned reports that a read buffer waits until its views are unpinned.
func (e *Engine) ReadBuffersPinned() bool {
	for i := range e.reads.all {
		if read := &e.reads.all[i]; read.stage == readDone && read.pins > 0 {
			return true
		}
	}
	return false
}
