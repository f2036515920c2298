package sim

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// RingOptions are the sizes and the fault rates of a Ring.
type RingOptions struct {
	Files   int // slots below it are files and listeners, the others accepted sockets; default 1024
	Sockets int // default 256
	Depth   int // operations queued and not yet submitted; default 256

	// Fault rates: once in so many operations; 0: never.
	ShortWrites int // a write ends early, at a block boundary
	ShortReads  int
	Again       int // a write fails with EAGAIN and did nothing
	Late        int // completions take a hundred times as long

	NoMultishot bool // Recv completes once, without FlagMore
}

// Ring is an ioring.Ring over a Disk and the world's network. Completions come late and
// in any order. Of a linked pair, the Sync starts once the Write has completed in full.
//
// It panics with Abuse if the caller breaks the rules of ioring.Ring.
type Ring struct {
	w     *World
	disk  *Disk
	arena *mem.Arena
	o     RingOptions
	dead  bool

	// Also are the arenas of other shards that may lend memory to a Send.
	Also []*mem.Arena

	queue []ioring.Op         // pushed, not started
	ready []ioring.Completion // to be reaped
	files []slot
	lent  []lent
	live  []*running
	wakes []ioring.Token // armed Wake operations
	woken int

	buffers []provided // receive buffers that the ring has, a stack
	Done    int        // completions given, for statistics
}

type slot struct {
	node     *inode
	path     string
	readOnly bool
	busy     int
	sock     *socket
	listener *listener
}

// lent is memory that the ring may read or write until the completion is reaped.
type lent struct {
	from, to uint64
	writes   bool // the ring writes to it
	op       *running
}

type provided struct {
	id  uint16
	buf mem.Block
	op  *running // to which the memory is lent
}

// running is an operation that has started.
type running struct {
	op       ioring.Op
	linked   *ioring.Op
	change   *change
	node     *inode
	before   uint64 // Sync: it covers changes that completed before this serial number
	copied   []byte // the buffer's contents at the start
	event    *event
	finished bool
	want     int64
}

// NewRing makes a ring. Every pushed buffer must be in arena; nil: not checked.
func NewRing(w *World, disk *Disk, arena *mem.Arena, o RingOptions) *Ring {
	if o.Files == 0 {
		o.Files = 1024
	}
	if o.Sockets == 0 {
		o.Sockets = 256
	}
	if o.Depth == 0 {
		o.Depth = 256
	}
	return &Ring{w: w, disk: disk, arena: arena, o: o, files: make([]slot, o.Files+o.Sockets)}
}

var _ ioring.Ring = (*Ring)(nil)

func abuse(format string, a ...any) { panic(Abuse(fmt.Sprintf(format, a...))) }

// Room returns how many operations can be pushed now.
func (r *Ring) Room() int { return r.o.Depth - len(r.queue) }

// Push queues op.
func (r *Ring) Push(op ioring.Op) bool {
	if n := len(r.queue); n > 0 && r.queue[n-1].Flags&ioring.FlagLink != 0 && op.Code != ioring.Sync {
		abuse("a %s after a linked write", CodeName(op.Code))
	}
	if op.Flags&ioring.FlagLink != 0 && op.Code != ioring.Write {
		abuse("FlagLink on a %s", CodeName(op.Code))
	}
	if len(r.queue) >= r.o.Depth {
		return false
	}
	if r.arena != nil && !op.Buf.IsZero() && !r.arena.Contains(op.Buf) {
		abuse("the buffer of a %s is not arena memory", CodeName(op.Code))
	}
	r.queue = append(r.queue, op)
	return true
}

// Reap moves completions to out.
func (r *Ring) Reap(out []ioring.Completion) int {
	n := copy(out, r.ready)
	r.ready = r.ready[:copy(r.ready, r.ready[n:])]
	return n
}

// Ready returns how many completions are to be reaped.
func (r *Ring) Ready() int { return len(r.ready) }

// Wait submits, then advances the world's clock until an operation completes on this
// ring, or to until. It panics with Crash if the world is to crash now, and with Stuck if
// nothing would ever end the sleep.
func (r *Ring) Wait(until ioring.Instant) {
	r.Submit()
	for len(r.ready) == 0 && r.woken == 0 && r.w.Now < until {
		if r.w.Step(until) {
			continue
		}
		if until == ioring.Never {
			panic(Stuck("a ring waits for ever and nothing is in flight"))
		}
	}
	r.wake()
}

// Wake wakes the ring as another thread does by its Waker.
func (r *Ring) Wake() { r.woken++ }

func (r *Ring) wake() {
	if r.woken > 0 && len(r.wakes) > 0 {
		r.woken = 0
		for _, t := range r.wakes {
			r.ready = append(r.ready, ioring.Completion{Token: t, Flags: ioring.FlagMore})
		}
	}
}

// InFlight returns how many operations have started and not completed.
func (r *Ring) InFlight() int { return len(r.live) }

// Submit starts the queued operations.
func (r *Ring) Submit() {
	for i := 0; i < len(r.queue); i++ {
		op := r.queue[i]
		var linked *ioring.Op
		if op.Flags&ioring.FlagLink != 0 {
			if i+1 == len(r.queue) {
				abuse("a linked write is submitted without its sync")
			}
			i++
			next := r.queue[i]
			linked = &next
		}
		r.start(op, linked)
	}
	r.queue = r.queue[:0]
}

func (r *Ring) lend(x *running, b mem.Block, writes bool) {
	if b.IsZero() {
		return
	}
	r.lendRange(x, b.Addr(), b.Addr()+uint64(b.Len()), writes)
}

func (r *Ring) lendBytes(x *running, p []byte) {
	from := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(p))))
	mine := r.arena == nil || r.arena.Contains(blockOf(p))
	for _, a := range r.Also {
		mine = mine || a.Contains(blockOf(p))
	}
	if !mine {
		abuse("a piece of a Send is not arena memory")
	}
	r.lendRange(x, from, from+uint64(len(p)), false)
}

// blockOf is p as a block: mem makes blocks only by allocating, and a vector holds
// bare pointers. A Block is a pointer and a length.
func blockOf(p []byte) mem.Block {
	b := struct {
		base unsafe.Pointer
		size uint32
	}{unsafe.Pointer(unsafe.SliceData(p)), uint32(len(p))}
	return *(*mem.Block)(unsafe.Pointer(&b))
}

func (r *Ring) lendRange(x *running, from, to uint64, writes bool) {
	for _, l := range r.lent {
		if l.from < to && from < l.to && (writes || l.writes) {
			abuse("the buffer of a %s overlaps one lent to a %s", CodeName(x.op.Code), CodeName(l.op.op.Code))
		}
	}
	r.lent = append(r.lent, lent{from, to, writes, x})
}

func (r *Ring) giveBack(x *running) {
	rest := r.lent[:0]
	for _, l := range r.lent {
		if l.op != x {
			rest = append(rest, l)
		}
	}
	r.lent = rest
}

func (r *Ring) complete(x *running, result int32, flags uint32) {
	if flags&ioring.FlagMore == 0 {
		x.finished = true
		r.giveBack(x)
		for i, y := range r.live {
			if y == x {
				r.live = append(r.live[:i], r.live[i+1:]...)
				break
			}
		}
	}
	if x.op.Code == ioring.Provide {
		return
	}
	r.Done++
	r.w.mix(uint64(r.w.Now), uint64(x.op.Token), uint64(x.op.Code), uint64(x.op.File), x.op.Offset, uint64(uint32(result)))
	if r.w.Trace != nil {
		r.w.Logf("%-9s file %d %s off %d len %d token %x -> %d flags %x", CodeName(x.op.Code), x.op.File, r.pathOf(x.op), x.op.Offset, x.op.Buf.Len(), uint64(x.op.Token), result, flags)
	}
	r.ready = append(r.ready, ioring.Completion{Token: x.op.Token, Result: result, Flags: flags})
}

func (r *Ring) pathOf(op ioring.Op) string {
	switch op.Code {
	case ioring.Open, ioring.Unlink, ioring.Mkdir, ioring.Rename, ioring.List:
		return cstring(op.Buf.Bytes())
	}
	if int(op.File) < len(r.files) {
		return r.files[op.File].path
	}
	return ""
}

func cstring(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return string(b[:i])
	}
	abuse("a path without its NUL")
	return ""
}

func failed(e unix.Errno) int32 { return -int32(e) }

// start begins one operation. It takes effect on the disk when its event happens, but a
// write's bytes and a sync's coverage are fixed now.
func (r *Ring) start(op ioring.Op, linked *ioring.Op) {
	w := r.w
	x := &running{op: op, linked: linked}
	r.live = append(r.live, x)
	later := func(typical int64, run func()) {
		d := w.delay(typical)
		if w.oneIn(r.o.Late) {
			d *= 100
		}
		x.event = w.after(r, d, run)
	}
	finish := func(typical int64, result func() int32) {
		later(typical, func() { r.complete(x, result(), 0) })
	}
	switch op.Code {
	case ioring.Nop:
		finish(500, func() int32 { return 0 })
	case ioring.Timeout:
		d := int64(op.Offset) - int64(w.Now)
		x.event = w.after(r, max(d, 0), func() { r.complete(x, failed(unix.ETIME), 0) })
	case ioring.Wake:
		r.wakes = append(r.wakes, op.Token)
		r.live = r.live[:len(r.live)-1]
	case ioring.Cancel:
		finish(500, func() int32 { return r.cancel(ioring.Token(op.Arg), x) })
	case ioring.Provide:
		r.live = r.live[:len(r.live)-1]
		r.provide(op)
	case ioring.Accept, ioring.Recv, ioring.Send, ioring.Shutdown:
		r.startNet(x)
	case ioring.Open:
		r.lend(x, op.Buf, false)
		path := cstring(op.Buf.Bytes())
		finish(20_000, func() int32 { return r.open(op, path) })
	case ioring.Close:
		finish(2_000, func() int32 { return r.close(op) })
	case ioring.Rename:
		r.lend(x, op.Buf, false)
		from := cstring(op.Buf.Bytes())
		to := cstring(op.Buf.Bytes()[len(from)+1:])
		finish(30_000, func() int32 {
			if e := r.inject(op, from); e != 0 {
				return e
			}
			return failed(r.disk.rename(from, to))
		})
	case ioring.Unlink:
		r.lend(x, op.Buf, false)
		path := cstring(op.Buf.Bytes())
		finish(30_000, func() int32 {
			if e := r.inject(op, path); e != 0 {
				return e
			}
			return failed(r.disk.unlink(path))
		})
	case ioring.Mkdir:
		r.lend(x, op.Buf, false)
		path := cstring(op.Buf.Bytes())
		finish(20_000, func() int32 {
			if e := r.inject(op, path); e != 0 {
				return e
			}
			return failed(r.disk.mkdir(path))
		})
	case ioring.List:
		r.lend(x, op.Buf, true)
		path := cstring(op.Buf.Bytes())
		finish(20_000, func() int32 { return r.list(op, path) })
	case ioring.Stat:
		r.lend(x, op.Buf, true)
		if op.Buf.Len() < 16 {
			abuse("a Stat into %d bytes", op.Buf.Len())
		}
		finish(5_000, func() int32 {
			f := r.file(op.File)
			if f == nil {
				return failed(unix.EBADF)
			}
			binary.LittleEndian.PutUint64(op.Buf.Bytes(), uint64(f.node.seen))
			binary.LittleEndian.PutUint64(op.Buf.Bytes()[8:], uint64(f.node.written))
			return 0
		})
	case ioring.SeekData:
		r.lend(x, op.Buf, true)
		finish(5_000, func() int32 {
			f := r.file(op.File)
			if f == nil {
				return failed(unix.EBADF)
			}
			binary.LittleEndian.PutUint64(op.Buf.Bytes(), uint64(f.node.seekData(int64(op.Offset))))
			return 0
		})
	case ioring.Read:
		r.startRead(x, later)
	case ioring.Write:
		r.startWrite(x, later)
	case ioring.Sync:
		r.startSync(x, later)
	case ioring.Allocate:
		f := r.file(op.File)
		if f == nil {
			finish(1_000, func() int32 { return failed(unix.EBADF) })
			return
		}
		f.busy++
		x.node = f.node
		finish(50_000, func() int32 {
			f.busy--
			if e := r.inject(op, f.path); e != 0 {
				return e
			}
			c, n := r.disk.begin(x.node, int64(op.Offset), nil, int64(op.Arg), op.Flags&ioring.FlagKeepSize == 0)
			if n < int64(op.Arg) {
				// the allocated part stays allocated, as on a real file system
				c.grows = false
				if n > 0 {
					r.disk.done(x.node, c)
				}
				return failed(unix.ENOSPC)
			}
			if n > 0 {
				r.disk.done(x.node, c)
			}
			return 0
		})
	default:
		abuse("operation code %d", op.Code)
	}
}

func (r *Ring) file(slot uint32) *slot {
	if int(slot) >= r.o.Files {
		abuse("file slot %d of %d", slot, r.o.Files)
	}
	f := &r.files[slot]
	if f.node == nil {
		return nil
	}
	return f
}

func (r *Ring) inject(op ioring.Op, path string) int32 {
	if r.disk.Fail == nil {
		return 0
	}
	n := op.Buf.Len()
	if op.Code == ioring.Allocate {
		n = int(op.Arg)
	}
	return r.disk.Fail(op.Code, path, op.Offset, n)
}

func (r *Ring) open(op ioring.Op, path string) int32 {
	if int(op.File) >= r.o.Files {
		abuse("Open into slot %d of %d", op.File, r.o.Files)
	}
	f := &r.files[op.File]
	if f.node != nil || f.listener != nil {
		abuse("Open of %s into slot %d, which holds %s", path, op.File, f.path)
	}
	if e := r.inject(op, path); e != 0 {
		return e
	}
	node, errno := r.disk.open(path, op.Arg)
	if errno != 0 {
		return failed(errno)
	}
	*f = slot{node: node, path: path, readOnly: op.Arg&ioring.OpenReadOnly != 0}
	return 0
}

func (r *Ring) close(op ioring.Op) int32 {
	if int(op.File) >= r.o.Files {
		return r.closeSocket(op.File)
	}
	f := &r.files[op.File]
	if f.listener != nil {
		r.w.net.unlisten(f.listener)
		*f = slot{}
		return 0
	}
	if f.node == nil {
		return failed(unix.EBADF)
	}
	if f.busy > 0 {
		abuse("Close of slot %d (%s) with %d operations in flight", op.File, f.path, f.busy)
	}
	r.disk.close(f.node)
	*f = slot{}
	return 0
}

func (r *Ring) list(op ioring.Op, path string) int32 {
	n, errno := r.disk.lookup(path)
	if errno != 0 {
		return failed(errno)
	}
	if !n.dir {
		return failed(unix.ENOTDIR)
	}
	out := op.Buf.Bytes()
	count := int32(0)
	for i := int(min(op.Offset, uint64(len(n.now)))); i < len(n.now); i++ {
		name := n.now[i].name
		if len(name)+1 > len(out) {
			if count == 0 {
				return failed(unix.ERANGE)
			}
			break
		}
		copy(out, name)
		out[len(name)] = 0
		out = out[len(name)+1:]
		count++
	}
	return count
}

func (r *Ring) aligned(op ioring.Op, f *slot) {
	if op.Buf.Addr()%blockBytes != 0 || op.Buf.Len()%blockBytes != 0 || op.Offset%blockBytes != 0 || op.Buf.Len() == 0 {
		abuse("a %s of %d bytes at offset %d of %s from address %#x: not a multiple of %d", CodeName(op.Code), op.Buf.Len(), op.Offset, f.path, op.Buf.Addr(), blockBytes)
	}
	if f.node.dir {
		abuse("a %s of directory %s", CodeName(op.Code), f.path)
	}
}

func (r *Ring) startRead(x *running, later func(int64, func())) {
	op := x.op
	f := r.file(op.File)
	if f == nil {
		later(1_000, func() { r.complete(x, failed(unix.EBADF), 0) })
		return
	}
	r.aligned(op, f)
	r.lend(x, op.Buf, true)
	// the buffer must not be read before the completion: fill it, so that a read shows
	p := op.Buf.Bytes()
	for i := 0; i < len(p); i += 61 {
		p[i] = 0xa5
	}
	f.busy++
	x.node = f.node
	later(80_000, func() {
		f.busy--
		if e := r.inject(op, f.path); e != 0 {
			r.complete(x, e, 0)
			return
		}
		n := x.node.read(int64(op.Offset), p)
		if n > blockBytes && r.w.oneIn(r.o.ShortReads) {
			n = (1 + r.w.Rand.IntN(n/blockBytes)) * blockBytes
			n = min(n, len(p))
		}
		r.complete(x, int32(n), 0)
	})
}

func (r *Ring) startWrite(x *running, later func(int64, func())) {
	op := x.op
	f := r.file(op.File)
	if f == nil {
		later(1_000, func() { r.complete(x, failed(unix.EBADF), 0); r.unlink(x) })
		return
	}
	r.aligned(op, f)
	if f.readOnly {
		abuse("a write to %s, which is open for reading only", f.path)
	}
	r.lend(x, op.Buf, false)
	x.node, x.want = f.node, int64(op.Buf.Len())
	x.copied = append([]byte(nil), op.Buf.Bytes()...)
	f.busy++
	if r.w.oneIn(r.o.Again) {
		later(1_000, func() { f.busy--; r.complete(x, failed(unix.EAGAIN), 0); r.unlink(x) })
		return
	}
	if e := r.inject(op, f.path); e != 0 {
		// a failed write may have happened, in part or as a whole
		c, n := r.disk.begin(x.node, int64(op.Offset), x.copied, x.want, true)
		c.doomed = true
		later(60_000, func() {
			f.busy--
			if n > 0 {
				if r.w.oneIn(2) {
					r.disk.undo(x.node, c)
				} else {
					r.disk.done(x.node, c)
				}
			}
			r.complete(x, e, 0)
			r.unlink(x)
		})
		return
	}
	size := x.want
	if size > blockBytes && r.w.oneIn(r.o.ShortWrites) {
		size = (1 + r.w.Rand.Int64N(size/blockBytes-1)) * blockBytes
	}
	c, n := r.disk.begin(x.node, int64(op.Offset), x.copied, size, true)
	x.change = c
	later(40_000+int64(size)/4, func() {
		f.busy--
		if !bytes.Equal(x.copied, op.Buf.Bytes()) {
			abuse("a buffer was changed while it was lent to a write of %s at %d", f.path, op.Offset)
		}
		if n == 0 {
			r.complete(x, failed(unix.ENOSPC), 0)
			r.unlink(x)
			return
		}
		r.disk.done(x.node, c)
		x.node.written = r.w.WallMS()
		r.complete(x, int32(n), 0)
		if n == x.want && x.linked != nil {
			r.start(*x.linked, nil)
			return
		}
		r.unlink(x)
	})
}

// unlink cancels the sync that is linked to an incomplete write.
func (r *Ring) unlink(x *running) {
	if x.linked == nil {
		return
	}
	y := &running{op: *x.linked}
	r.live = append(r.live, y)
	y.event = r.w.after(r, r.w.delay(500), func() { r.complete(y, failed(unix.ECANCELED), 0) })
}

func (r *Ring) startSync(x *running, later func(int64, func())) {
	op := x.op
	f := r.file(op.File)
	if f == nil {
		later(1_000, func() { r.complete(x, failed(unix.EBADF), 0) })
		return
	}
	f.busy++
	x.node, x.before = f.node, r.disk.tick()
	later(60_000, func() {
		f.busy--
		if e := r.inject(op, f.path); e != 0 {
			r.disk.doom(x.node, x.before)
			r.complete(x, e, 0)
			return
		}
		r.disk.sync(x.node, x.before, op.Flags&ioring.FlagFull != 0)
		r.complete(x, 0, 0)
	})
}

// cancel ends operations that wait: timeouts, accepts, receives, sends. Operations on the
// disk complete as usual.
func (r *Ring) cancel(t ioring.Token, self *running) int32 {
	n := int32(0)
	for _, x := range append([]*running(nil), r.live...) {
		if x == self || x.finished || x.op.Token != t || x.op.Code == ioring.Cancel {
			continue
		}
		n++
		switch x.op.Code {
		case ioring.Timeout:
			r.w.drop(x.event)
			r.w.after(r, 500, func() { r.complete(x, failed(unix.ECANCELED), 0) })
		case ioring.Accept, ioring.Recv, ioring.Send:
			r.cancelNet(x)
		}
	}
	if n == 0 {
		return failed(unix.ENOENT)
	}
	return n
}

// CodeName returns the name of an operation.
func CodeName(c ioring.Code) string {
	names := [...]string{"Nop", "Read", "Write", "Sync", "Allocate", "Open", "Close", "Rename", "Unlink", "Mkdir", "List", "Stat",
		"Accept", "Recv", "Provide", "Send", "Shutdown", "Cancel", "Timeout", "Wake", "SeekData"}
	if int(c) < len(names) {
		return names[c]
	}
	return fmt.Sprintf("Code(%d)", c)
}
