package rings

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/bench/plain"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

const (
	flushesMax   = 2         // writes in flight, as the broker has them
	flushBytes   = 32 << 20  // of one, at most: more than the generator has in flight
	writtenBytes = 256 << 20 // of the file that is written over again and again
	newBytes     = 24 << 30  // of the one whose blocks are new
	blockBytes   = 4096
	connsMax     = 64
	receives     = 256
	receiveBytes = 64 << 10
	answerBytes  = 256 << 10
	requestMax   = 4 << 20

	listener = 0
	logFile  = 1
	files    = 2
)

// Token kinds; the ring has them in ranges by room, and here is one room.
const (
	kindAccept = ioring.KindShard + iota
	kindReceive
	kindSend
	kindWrite
	kindSync
	kindSetup
)

type probe struct {
	plain.Front
	ring    *ioring.Kernel
	conns   [connsMax]conn
	buffers []mem.Block // lent to the ring
	flushes [flushesMax + 1]flush
	open    int // the flush that gathers
	first   int // the oldest in flight
	busy    int // in flight
	next    int64
	size    int64 // of the file
	new     bool  // its blocks are: none is written twice
}

type conn struct {
	live    bool
	socket  uint32
	in      []byte // from the first byte of an unfinished request
	out     []byte // may leave
	send    mem.Block
	vector  mem.Block
	sending int // bytes of send, 0: none
	sent    int
}

type flush struct {
	buf     mem.Block
	fill    int
	writing bool
	syncing bool
	answers []byte // of every connection, one after another
	whose   []share
}

// share is the next bytes of a flush's answers: connection conn's.
type share struct{ conn, bytes int }

// Serve listens until the process ends. newBlocks: it writes to blocks that were
// only allocated, as a log in a new directory does, and ends with an error when
// there are no more of them.
func Serve(listen, dataDir string, newBlocks bool) error {
	runtime.LockOSThread()
	if err := os.MkdirAll(dataDir, 0o755); err != nil {
		return err
	}
	root, err := unix.Open(dataDir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	features, err := ioring.Probe()
	if err != nil {
		return err
	}
	ring, err := ioring.NewKernel(ioring.KernelOptions{
		Entries: 1024, CQEntries: 8192, Files: files, Sockets: connsMax, RootFD: root, ReceiveBuffers: receives, Features: features.Mask, SpinNS: 20e3,
	})
	if err != nil {
		return err
	}
	p := &probe{ring: ring, size: writtenBytes}
	if newBlocks {
		p.new, p.size = true, newBytes
	}
	if err := p.allocate(); err != nil {
		return err
	}
	if err := p.prepare(); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	// Connections inherit it.
	if err := unix.SetsockoptInt(int(f.Fd()), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return err
	}
	if err := ring.InstallFile(listener, int(f.Fd())); err != nil {
		return err
	}
	addr := ln.Addr().(*net.TCPAddr)
	p.Host, p.Port, p.Store = addr.IP.String(), int32(addr.Port), p.store
	for i, b := range p.buffers {
		p.push(ioring.Op{Code: ioring.Provide, Arg: uint64(i), Buf: b})
	}
	p.accept()
	return p.serve()
}

func (p *probe) allocate() error {
	arena, err := mem.Map((flushesMax+1)*flushBytes+receives*receiveBytes+connsMax*(answerBytes+blockBytes)+1<<20, mem.Options{HugePages: true, Lock: true})
	if err != nil {
		return err
	}
	var failed error
	allocate := func(n int) mem.Block {
		b, err := arena.Allocate("probe", n, blockBytes)
		if err != nil {
			failed = err
		}
		return b
	}
	for i := range p.flushes {
		p.flushes[i].buf = allocate(flushBytes)
	}
	for range receives {
		p.buffers = append(p.buffers, allocate(receiveBytes))
	}
	for i := range p.conns {
		p.conns[i].send, p.conns[i].vector = allocate(answerBytes), allocate(ioring.VectorBytes(1))
	}
	return failed
}

// prepare makes the file and writes all of it, so that no later write changes
// anything but data; a new one it only allocates.
func (p *probe) prepare() error {
	path := p.conns[0].send
	copy(path.Bytes(), "log\x00")
	return p.makeFile(logFile, p.size, !p.new, path, p.flushes[0].buf.Slice(0, 8<<20))
}

// makeFile allocates a file, whose relative path is in path, writes all of it with
// what is in buf unless it is to be new, and syncs it.
func (p *probe) makeFile(slot uint32, size int64, written bool, path, buf mem.Block) error {
	if _, err := p.await(ioring.Op{Code: ioring.Open, File: slot, Arg: ioring.OpenCreate, Buf: path}); err != nil {
		return fmt.Errorf("creating the file: %w", err)
	}
	if _, err := p.await(ioring.Op{Code: ioring.Allocate, File: slot, Arg: uint64(size)}); err != nil {
		return fmt.Errorf("allocating %d bytes: %w", size, err)
	}
	for at := int64(0); at < size && written; {
		n, err := p.await(ioring.Op{Code: ioring.Write, File: slot, Offset: uint64(at), Buf: buf})
		if err != nil || n%blockBytes != 0 || n == 0 {
			return fmt.Errorf("writing the file: %d bytes, %w", n, err)
		}
		at += int64(n)
	}
	_, err := p.await(ioring.Op{Code: ioring.Sync, File: slot, Flags: ioring.FlagFull})
	return err
}

// await does one operation before anything else is under way.
func (p *probe) await(op ioring.Op) (int, error) {
	op.Token = ioring.MakeToken(kindSetup, 0, 0)
	p.push(op)
	var c [1]ioring.Completion
	for p.ring.Reap(c[:]) == 0 {
		p.ring.Wait(ioring.Never)
	}
	if c[0].Result < 0 {
		return 0, unix.Errno(-c[0].Result)
	}
	return int(c[0].Result), nil
}

// push queues op; the queue is larger than all that can be under way.
func (p *probe) push(op ioring.Op) {
	for !p.ring.Push(op) {
		p.ring.Wait(0)
	}
}

func (p *probe) accept() {
	p.push(ioring.Op{Code: ioring.Accept, File: listener, Token: ioring.MakeToken(kindAccept, 0, 0)})
}

// serve: reap; take what came; flush; let go what is durable; sleep.
func (p *probe) serve() error {
	done := make([]ioring.Completion, 256)
	for {
		for {
			n := p.ring.Reap(done)
			for _, c := range done[:n] {
				if err := p.complete(c); err != nil {
					return err
				}
			}
			if n < len(done) {
				break
			}
		}
		if err := p.flush(); err != nil {
			return err
		}
		for i := range p.conns {
			p.send(i)
		}
		p.ring.Wait(ioring.Never)
	}
}

func (p *probe) complete(c ioring.Completion) error {
	slot := int(c.Token.Slot())
	switch c.Token.Kind() {
	case kindAccept:
		if c.Result >= 0 {
			i := slices.IndexFunc(p.conns[:], func(x conn) bool { return !x.live })
			if i < 0 {
				return fmt.Errorf("more than %d connections", connsMax)
			}
			x := &p.conns[i]
			*x = conn{live: true, socket: uint32(c.Result), in: x.in[:0], out: x.out[:0], send: x.send, vector: x.vector}
			p.receive(i)
		}
		if c.Flags&ioring.FlagMore == 0 {
			p.accept()
		}
	case kindReceive:
		return p.received(slot, c)
	case kindSend:
		x := &p.conns[slot]
		if c.Result <= 0 {
			x.sending, x.out = 0, x.out[:0] // its receive says the rest
			return nil
		}
		x.sent += int(c.Result)
		if x.sent < x.sending {
			p.pushSend(slot)
			return nil
		}
		x.sending = 0
	case kindWrite, kindSync:
		return p.flushed(&p.flushes[slot], c)
	}
	return nil
}

func (p *probe) receive(i int) {
	p.push(ioring.Op{Code: ioring.Recv, File: p.conns[i].socket, Token: ioring.MakeToken(kindReceive, 0, uint32(i))})
}

func (p *probe) received(i int, c ioring.Completion) error {
	x := &p.conns[i]
	if c.Flags&ioring.FlagBuffer != 0 {
		id := c.BufferID()
		if c.Result > 0 {
			if err := p.take(i, p.buffers[id].Bytes()[:c.Result]); err != nil {
				return err
			}
		}
		p.push(ioring.Op{Code: ioring.Provide, Arg: uint64(id), Buf: p.buffers[id]})
	}
	switch {
	case c.Flags&ioring.FlagMore != 0:
	case c.Result > 0 || c.Result == -int32(ioring.ENOBUFS):
		p.receive(i)
	default:
		x.live = false
		p.push(ioring.Op{Code: ioring.Close, File: x.socket, Token: ioring.MakeToken(kindSetup, 0, 0)})
	}
	return nil
}

// take handles every whole request, from where they lie if they lie there whole.
func (p *probe) take(i int, b []byte) error {
	x := &p.conns[i]
	for len(b) > 0 {
		from := b
		if len(x.in) > 0 {
			// Up to the end of the request that has begun, no further.
			want := 4
			if len(x.in) >= 4 {
				want = 4 + int(binary.BigEndian.Uint32(x.in))
			}
			n := min(want-len(x.in), len(b))
			x.in = append(x.in, b[:n]...)
			b = b[n:]
			if len(x.in) < want || want == 4 {
				continue
			}
			from = x.in
		}
		if len(from) < 4 {
			x.in = append(x.in, from...)
			return nil
		}
		size := int(binary.BigEndian.Uint32(from))
		if size < 10 || size > requestMax {
			return fmt.Errorf("a request of %d bytes", size)
		}
		if len(from) < 4+size {
			x.in = append(x.in, from...)
			return nil
		}
		if err := p.request(i, from[4:4+size]); err != nil {
			return err
		}
		if len(x.in) > 0 {
			x.in = x.in[:0]
		} else {
			b = b[4+size:]
		}
	}
	return nil
}

func (p *probe) request(i int, b []byte) (err error) {
	f := &p.flushes[p.open]
	before := len(f.answers)
	if f.answers, err = p.Handle(f.answers, b); err != nil {
		return err
	}
	f.whose = append(f.whose, share{i, len(f.answers) - before})
	return nil
}

func (p *probe) store(batch []byte) error {
	f := &p.flushes[p.open]
	if f.fill+len(batch) > f.buf.Len() {
		return fmt.Errorf("more than %d bytes in flight", f.buf.Len())
	}
	f.fill += copy(f.buf.Bytes()[f.fill:], batch)
	return nil
}

// flush writes what was gathered while writes may be in flight.
func (p *probe) flush() error {
	f := &p.flushes[p.open]
	if len(f.whose) == 0 || p.busy == flushesMax {
		return nil
	}
	n := (f.fill + blockBytes - 1) &^ (blockBytes - 1)
	if f.fill > 0 {
		clear(f.buf.Bytes()[f.fill:n])
		if p.next+int64(n) > p.size {
			if p.new {
				return fmt.Errorf("all %d bytes are written: the load is too long", p.size)
			}
			p.next = 0
		}
		p.push(ioring.Op{Code: ioring.Write, Flags: ioring.FlagLink, File: logFile, Offset: uint64(p.next), Buf: f.buf.Slice(0, n), Token: ioring.MakeToken(kindWrite, 0, uint32(p.open))})
		p.push(ioring.Op{Code: ioring.Sync, File: logFile, Token: ioring.MakeToken(kindSync, 0, uint32(p.open))})
		f.writing, f.syncing = true, true
		p.next += int64(n)
	}
	p.open = (p.open + 1) % len(p.flushes)
	p.busy++
	p.release()
	return nil
}

func (p *probe) flushed(f *flush, c ioring.Completion) error {
	if c.Token.Kind() == kindWrite {
		if want := (f.fill + blockBytes - 1) &^ (blockBytes - 1); int(c.Result) != want {
			return fmt.Errorf("a write of %d bytes: %d", want, c.Result)
		}
		f.writing = false
	} else {
		if c.Result != 0 {
			return fmt.Errorf("fdatasync: %w", unix.Errno(-c.Result))
		}
		f.syncing = false
	}
	p.release()
	return nil
}

// release lets the answers of durable flushes go, oldest first.
func (p *probe) release() {
	for ; p.busy > 0; p.busy-- {
		f := &p.flushes[p.first]
		if f.writing || f.syncing {
			return
		}
		rest := f.answers
		for _, s := range f.whose {
			x := &p.conns[s.conn]
			x.out = append(x.out, rest[:s.bytes]...)
			rest = rest[s.bytes:]
		}
		f.fill, f.answers, f.whose = 0, f.answers[:0], f.whose[:0]
		p.first = (p.first + 1) % len(p.flushes)
	}
}

func (p *probe) send(i int) {
	x := &p.conns[i]
	if !x.live || x.sending > 0 || len(x.out) == 0 {
		return
	}
	x.sending, x.sent = copy(x.send.Bytes(), x.out), 0
	x.out = x.out[:copy(x.out, x.out[x.sending:])]
	p.pushSend(i)
}

func (p *probe) pushSend(i int) {
	x := &p.conns[i]
	ioring.SetPiece(x.vector, 0, x.send.Bytes()[x.sent:x.sending])
	p.push(ioring.Op{Code: ioring.Send, File: x.socket, Arg: 1, Buf: x.vector, Token: ioring.MakeToken(kindSend, 0, uint32(i))})
}
