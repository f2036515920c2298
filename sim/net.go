package sim

import (
	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/ioring"
)

// network is the world's network: the listeners, by port.
type network struct {
	listeners []*listener
}

type listener struct {
	ring   *Ring
	port   int
	waits  *running // the armed Accept
	queued []*socket
}

// socket is the server's end of a connection, in a slot of a ring. The other end is a
// Client.
//
// Invariant: at most one Recv and one Send are in flight.
type socket struct {
	ring   *Ring
	from   ioring.Address
	slot   uint32
	client *Client

	inbound []byte         // arrived and not received yet
	ended   bool           // the client sends nothing more after inbound
	reset   bool           // the connection was reset
	shut    bool           // the server shut both directions
	closed  bool           // the server closed its slot
	arrives ioring.Instant // when the last byte sent to the server arrives
	departs ioring.Instant // when the last byte sent to the client arrives

	receive *running
	flowing bool // a delivery to the armed Recv is scheduled
	send    *running
	pumping bool
}

// Client is the client's end of a connection. A test sends with its methods, reads
// Received, and consumes with Take.
type Client struct {
	w        *World
	sock     *socket
	Received []byte
	// Window is how many more bytes the client accepts before the server's sends become
	// partial and then wait; negative: no limit. See Widen.
	Window int
	// Closed says that the server closed or reset the connection.
	Closed bool
	gone   bool
}

func (n *network) unlisten(l *listener) {
	for i, x := range n.listeners {
		if x == l {
			n.listeners = append(n.listeners[:i], n.listeners[i+1:]...)
			return
		}
	}
}

// Listen makes slot a listening socket of port.
func (r *Ring) Listen(slot uint32, port int) {
	f := &r.files[slot]
	if f.node != nil || f.listener != nil {
		abuse("Listen on slot %d, which is taken", slot)
	}
	f.listener = &listener{ring: r, port: port}
	f.path = "listener"
	r.w.net.listeners = append(r.w.net.listeners, f.listener)
}

// Dial connects to port; nil if no socket listens there.
func (w *World) Dial(port int) *Client { return w.DialFrom(port, ioring.Address{15: 1}) }

// DialFrom connects to port from a peer address.
func (w *World) DialFrom(port int, from ioring.Address) *Client {
	for _, l := range w.net.listeners {
		if l.port != port || l.ring.dead {
			continue
		}
		c := &Client{w: w, Window: -1}
		s := &socket{ring: l.ring, client: c, from: from}
		c.sock = s
		s.arrives = w.Now + ioring.Instant(w.delay(20_000))
		w.after(l.ring, int64(s.arrives-w.Now), func() {
			l.queued = append(l.queued, s)
			l.ring.accept(l)
		})
		return c
	}
	return nil
}

// Send gives bytes to the network, which delivers them later, in order and cut anywhere.
func (c *Client) Send(p []byte) {
	w, s := c.w, c.sock
	for len(p) > 0 && !c.gone && !c.Closed {
		n := len(p)
		switch w.Rand.IntN(4) {
		case 0:
			n = 1 + w.Rand.IntN(len(p))
		case 1:
			n = 1 + w.Rand.IntN(min(len(p), 16))
		}
		piece := append([]byte(nil), p[:n]...)
		p = p[n:]
		s.toServer(func() {
			s.inbound = append(s.inbound, piece...)
			s.ring.flow(s)
		})
	}
}

// End closes the client's sending direction, after what was sent.
func (c *Client) End() {
	s := c.sock
	s.toServer(func() { s.ended = true; s.ring.flow(s) })
}

// Reset kills the connection at once.
func (c *Client) Reset() {
	s := c.sock
	c.gone, c.Closed = true, true
	c.w.after(s.ring, c.w.delay(5_000), func() {
		s.reset, s.inbound = true, nil
		s.ring.flow(s)
		s.ring.pump(s)
	})
}

// Take removes the first n bytes of what was received.
func (c *Client) Take(n int) []byte {
	p := append([]byte(nil), c.Received[:n]...)
	c.Received = c.Received[:copy(c.Received, c.Received[n:])]
	return p
}

// Widen lets the client accept n more bytes.
func (c *Client) Widen(n int) {
	if c.Window >= 0 {
		c.Window += n
	}
	c.sock.ring.pump(c.sock)
}

func (s *socket) toServer(run func()) {
	w := s.ring.w
	s.arrives = max(s.arrives+1, w.Now+ioring.Instant(w.delay(10_000)))
	w.after(s.ring, int64(s.arrives-w.Now), func() {
		if !s.reset && !s.shut {
			run()
		}
	})
}

func (s *socket) toClient(run func()) {
	w := s.ring.w
	s.departs = max(s.departs+1, w.Now+ioring.Instant(w.delay(10_000)))
	w.after(s.ring, int64(s.departs-w.Now), func() {
		if !s.client.gone {
			run()
		}
	})
}

func (r *Ring) socket(slot uint32) *socket {
	if int(slot) < r.o.Files || int(slot) >= len(r.files) {
		abuse("slot %d is not a socket's", slot)
	}
	return r.files[slot].sock
}

func (r *Ring) startNet(x *running) {
	op := x.op
	refuse := func(e unix.Errno) {
		r.w.after(r, r.w.delay(500), func() { r.complete(x, failed(e), 0) })
	}
	if op.Code == ioring.Accept {
		if int(op.File) >= r.o.Files || r.files[op.File].listener == nil {
			refuse(unix.EBADF)
			return
		}
		l := r.files[op.File].listener
		if !op.Buf.IsZero() {
			r.lend(x, op.Buf, true)
		}
		if l.waits != nil {
			abuse("a second Accept on slot %d", op.File)
		}
		l.waits = x
		r.accept(l)
		return
	}
	s := r.socket(op.File)
	if s == nil {
		refuse(unix.EBADF)
		return
	}
	switch op.Code {
	case ioring.Recv:
		if s.receive != nil {
			abuse("a second Recv on socket %d", op.File)
		}
		s.receive = x
		r.flow(s)
	case ioring.Send:
		if s.send != nil {
			abuse("a second Send on socket %d", op.File)
		}
		n := int(op.Arg)
		if n < 1 || n > 1024 || op.Buf.Len() < ioring.VectorBytes(n) {
			abuse("a Send of %d pieces in a vector of %d bytes", n, op.Buf.Len())
		}
		r.lend(x, op.Buf, true)
		for i := range n {
			p := ioring.Piece(op.Buf, i)
			if len(p) == 0 {
				abuse("an empty piece in a Send")
			}
			x.copied = append(x.copied, p...)
			r.lendBytes(x, p)
		}
		s.send = x
		r.pump(s)
	case ioring.Shutdown:
		r.w.after(r, r.w.delay(2_000), func() {
			s.shut, s.inbound = true, nil
			s.toClient(func() { s.client.Closed = true })
			r.complete(x, 0, 0)
			r.flow(s)
			r.pump(s)
		})
	}
}

// accept completes the armed Accept with waiting connections.
func (r *Ring) accept(l *listener) {
	for l.waits != nil && len(l.queued) > 0 {
		x, slot := l.waits, -1
		for i := r.o.Files; i < len(r.files); i++ {
			if r.files[i].sock == nil {
				slot = i
				break
			}
		}
		if slot < 0 {
			l.waits = nil
			r.complete(x, failed(unix.ENFILE), 0)
			return
		}
		s := l.queued[0]
		l.queued = l.queued[1:]
		s.slot = uint32(slot)
		r.files[slot].sock = s
		r.files[slot].path = "socket"
		if x.op.Buf.IsZero() {
			r.complete(x, int32(slot), ioring.FlagMore)
			continue
		}
		ioring.PutPeerAddress(x.op.Buf, s.from)
		l.waits = nil
		r.complete(x, int32(slot), 0)
	}
}

func (r *Ring) provide(op ioring.Op) {
	if op.Arg > 1<<16-1 || op.Buf.IsZero() {
		abuse("Provide of buffer %d of %d bytes", op.Arg, op.Buf.Len())
	}
	for _, b := range r.buffers {
		if b.id == uint16(op.Arg) {
			abuse("receive buffer %d is provided twice", op.Arg)
		}
	}
	p := op.Buf.Bytes()
	for i := 0; i < len(p); i += 61 {
		p[i] = 0xa5
	}
	x := &running{op: op}
	r.lend(x, op.Buf, true)
	r.buffers = append(r.buffers, provided{uint16(op.Arg), op.Buf, x})
}

// flow delivers arrived bytes to the armed Recv, some with each event.
func (r *Ring) flow(s *socket) {
	if s.flowing || s.receive == nil || len(s.inbound) == 0 && !s.ended && !s.reset && !s.shut {
		return
	}
	s.flowing = true
	r.w.after(r, r.w.delay(3_000), func() {
		s.flowing = false
		x := s.receive
		switch {
		case x == nil:
			return
		case s.reset:
			s.receive = nil
			r.complete(x, failed(unix.ECONNRESET), 0)
			return
		case s.shut || len(s.inbound) == 0:
			s.receive = nil
			r.complete(x, 0, 0)
			return
		case !x.op.Buf.IsZero():
			n := min(len(s.inbound), x.op.Buf.Len())
			if r.w.oneIn(4) {
				n = 1 + r.w.Rand.IntN(n)
			}
			copy(x.op.Buf.Bytes(), s.inbound[:n])
			s.inbound = s.inbound[n:]
			s.receive = nil
			r.complete(x, int32(n), 0)
			return
		case len(r.buffers) == 0:
			s.receive = nil
			r.complete(x, failed(unix.ENOBUFS), 0)
			return
		}
		// any buffer, not necessarily the one provided last
		i := r.w.Rand.IntN(len(r.buffers))
		b := r.buffers[i]
		r.buffers = append(r.buffers[:i], r.buffers[i+1:]...)
		r.giveBack(b.op)
		n := min(len(s.inbound), b.buf.Len())
		if r.w.oneIn(4) {
			n = 1 + r.w.Rand.IntN(n)
		}
		copy(b.buf.Bytes(), s.inbound[:n])
		s.inbound = s.inbound[n:]
		flags := ioring.FlagBuffer | ioring.FlagMore | uint32(b.id)<<16
		if r.o.NoMultishot || r.w.oneIn(50) { // the kernel may end a multishot at any time
			flags &^= ioring.FlagMore
			s.receive = nil
		}
		r.complete(x, int32(n), flags)
		r.flow(s)
	})
}

// pump completes the Send in flight with as many bytes as the client accepts.
func (r *Ring) pump(s *socket) {
	if s.pumping || s.send == nil || !s.reset && !s.shut && s.client.Window == 0 {
		return
	}
	s.pumping = true
	r.w.after(r, r.w.delay(5_000), func() {
		s.pumping = false
		x := s.send
		if x == nil {
			return
		}
		if s.reset || s.shut {
			s.send = nil
			r.complete(x, failed(unix.EPIPE), 0)
			return
		}
		n := len(x.copied)
		if s.client.Window >= 0 {
			n = min(n, s.client.Window)
		}
		if n == 0 {
			return
		}
		if r.w.oneIn(6) {
			n = 1 + r.w.Rand.IntN(n)
		}
		if s.client.Window > 0 {
			s.client.Window -= n
		}
		at := 0
		for i := range int(x.op.Arg) {
			p := ioring.Piece(x.op.Buf, i)
			if at+len(p) > len(x.copied) || string(p) != string(x.copied[at:at+len(p)]) {
				abuse("piece %d of a Send was changed while it was lent", i)
			}
			at += len(p)
		}
		p := x.copied[:n]
		s.toClient(func() { s.client.Received = append(s.client.Received, p...) })
		s.send = nil
		r.complete(x, int32(n), 0)
	})
}

func (r *Ring) cancelNet(x *running) {
	r.w.after(r, r.w.delay(500), func() {
		if x.finished {
			return
		}
		switch x.op.Code {
		case ioring.Accept:
			if f := &r.files[x.op.File]; f.listener != nil && f.listener.waits == x {
				f.listener.waits = nil
			}
		default:
			if s := r.socket(x.op.File); s != nil {
				if s.receive == x {
					s.receive = nil
				}
				if s.send == x {
					s.send = nil
				}
			}
		}
		r.complete(x, failed(unix.ECANCELED), 0)
	})
}

func (r *Ring) closeSocket(slot uint32) int32 {
	s := r.socket(slot)
	if s == nil {
		return failed(unix.EBADF)
	}
	if s.receive != nil && !s.shut && !s.reset || s.send != nil {
		abuse("Close of socket %d with operations in flight", slot)
	}
	s.closed, s.shut, s.inbound = true, true, nil
	s.toClient(func() { s.client.Closed = true })
	r.files[slot] = slot0
	return 0
}

var slot0 slot
