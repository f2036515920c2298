package netring

import (
	"bytes"
	"encoding/binary"
	"flag"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// world is a Ring over sockets in memory that cut, delay and fail as a seed
// says.
type world struct {
	t         *testing.T
	rng       *rand.Rand
	now       ioring.Instant
	queue     []ioring.Op
	ready     []ioring.Completion
	accept    *ioring.Op
	dialed    []*peer
	peers     []*peer // by file slot - files
	bufs      []ioring.Op
	given     map[uint64]bool // provided and not yet used
	multishot bool
	depth     int
	calm      bool
}

const files = 4

// peer is the other end of a socket: what it sends, what it got.
type peer struct {
	from     ioring.Address
	out      []byte // not yet on the wire
	end      bool   // closes its direction after out
	reset    bool
	got      []byte
	stuck    bool // takes nothing
	recv     *ioring.Op
	send     *ioring.Op
	sent     []byte // the Send's bytes when it was pushed
	shut     bool
	accepted bool
	closed   bool
}

func (w *world) Room() int { return w.depth - len(w.queue) }
func (w *world) Push(op ioring.Op) bool {
	if len(w.queue) >= w.depth {
		return false
	}
	w.queue = append(w.queue, op)
	return true
}
func (w *world) Reap(out []ioring.Completion) int {
	k := copy(out, w.ready)
	w.ready = w.ready[:copy(w.ready, w.ready[k:])]
	return k
}
func (w *world) done(op ioring.Op, result int32, flags uint32) {
	w.ready = append(w.ready, ioring.Completion{Token: op.Token, Result: result, Flags: flags})
}
func (w *world) oneIn(k int) bool { return !w.calm && w.rng.IntN(k) == 0 }

func (w *world) Wait(ioring.Instant) {
	for _, op := range w.queue {
		var p *peer
		if op.File >= files {
			p = w.peers[op.File-files]
		}
		switch op.Code {
		case ioring.Accept:
			if w.accept != nil {
				w.t.Fatal("a second Accept")
			}
			w.accept = &op
		case ioring.Provide:
			if w.given[op.Arg] {
				w.t.Fatal("a buffer is provided twice")
			}
			w.given[op.Arg] = true
			w.bufs = append(w.bufs, op)
		case ioring.Recv:
			if p.recv != nil || p.closed {
				w.t.Fatal("a second Recv")
			}
			p.recv = &op
		case ioring.Send:
			if p.send != nil || p.closed {
				w.t.Fatal("a second Send")
			}
			p.send, p.sent = &op, nil
			for i := range int(op.Arg) {
				p.sent = append(p.sent, ioring.Piece(op.Buf, i)...)
			}
		case ioring.Shutdown:
			p.shut = true
			w.done(op, 0, 0)
		case ioring.Close:
			if p.recv != nil || p.send != nil {
				w.t.Fatal("Close with operations in flight")
			}
			p.closed = true
			w.done(op, 0, 0)
		case ioring.Cancel:
			found := int32(-int32(syscall.ENOENT))
			hit := func(o **ioring.Op) {
				if *o != nil && (*o).Token == ioring.Token(op.Arg) {
					w.done(**o, -int32(syscall.ECANCELED), 0)
					*o, found = nil, 1
				}
			}
			hit(&w.accept)
			for _, q := range w.peers {
				hit(&q.recv)
				hit(&q.send)
			}
			w.done(op, found, 0)
		default:
			w.t.Fatalf("operation %d", op.Code)
		}
	}
	w.queue = w.queue[:0]
	for w.accept != nil && len(w.dialed) > 0 {
		if w.oneIn(10) {
			w.done(*w.accept, -int32(syscall.EMFILE), 0)
			w.accept = nil
			break
		}
		p := w.dialed[0]
		w.dialed = w.dialed[1:]
		p.accepted = true
		w.peers = append(w.peers, p)
		if !w.accept.Buf.IsZero() {
			ioring.PutPeerAddress(w.accept.Buf, p.from)
			w.done(*w.accept, int32(files+len(w.peers)-1), 0)
			w.accept = nil
			break
		}
		w.done(*w.accept, int32(files+len(w.peers)-1), ioring.FlagMore)
	}
	for _, p := range w.peers {
		for p.recv != nil && !w.oneIn(3) {
			if !w.deliver(p) {
				break
			}
		}
		if p.send != nil && (p.reset || p.shut) {
			w.done(*p.send, -int32(syscall.EPIPE), 0)
			p.send = nil
		} else if p.send != nil && !p.stuck && !w.oneIn(3) {
			var now []byte
			for i := range int(p.send.Arg) {
				now = append(now, ioring.Piece(p.send.Buf, i)...)
			}
			if !bytes.Equal(now, p.sent) {
				w.t.Fatal("bytes changed while they were lent to a Send")
			}
			k := len(now)
			if w.oneIn(2) {
				k = 1 + w.rng.IntN(k)
			}
			p.got = append(p.got, now[:k]...)
			w.done(*p.send, int32(k), 0)
			p.send = nil
		}
	}
}

func (w *world) deliver(p *peer) bool {
	end := func(r int32) bool { w.done(*p.recv, r, 0); p.recv = nil; return false }
	switch {
	case p.reset:
		return end(-int32(syscall.ECONNRESET))
	case p.shut:
		return end(0)
	case len(p.out) == 0 && p.end:
		return end(0)
	case len(p.out) == 0:
		return false
	case !p.recv.Buf.IsZero():
		k := min(len(p.out), p.recv.Buf.Len())
		if w.oneIn(3) {
			k = 1 + w.rng.IntN(k)
		}
		copy(p.recv.Buf.Bytes(), p.out[:k])
		p.out = p.out[k:]
		return end(int32(k))
	case len(w.bufs) == 0:
		return end(-int32(syscall.ENOBUFS))
	}
	at := 0
	if !w.calm {
		at = w.rng.IntN(len(w.bufs))
	}
	b := w.bufs[at]
	w.bufs = append(w.bufs[:at], w.bufs[at+1:]...)
	delete(w.given, b.Arg)
	k := min(len(p.out), b.Buf.Len())
	switch {
	case w.oneIn(3):
		k = 1 + w.rng.IntN(min(k, 9))
	case w.oneIn(2):
		k = 1 + w.rng.IntN(k)
	}
	copy(b.Buf.Bytes(), p.out[:k])
	p.out = p.out[k:]
	flags := ioring.FlagBuffer | uint32(b.Arg)<<16
	if w.multishot && !w.oneIn(20) {
		w.done(*p.recv, int32(k), flags|ioring.FlagMore)
		return true
	}
	w.done(*p.recv, int32(k), flags)
	p.recv = nil
	return false
}

// rig is a Net in a world.
type rig struct {
	*world
	n    *Net
	lent mem.Block // what tests attach
}

func newRig(t *testing.T, seed uint64, o Options) *rig {
	a, err := mem.Map(64<<20, mem.Options{Poison: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Unmap() })
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 1)), now: 1e9, multishot: seed%3 != 0, depth: 64, given: map[uint64]bool{}}
	n, err := New(w, a, o)
	if err != nil {
		t.Fatal(err)
	}
	lent, err := a.Allocate("lent", 1<<20, 4096)
	if err != nil {
		t.Fatal(err)
	}
	for i := range lent.Bytes() {
		lent.Bytes()[i] = byte(i * 31 >> 4)
	}
	n.Listen()
	return &rig{w, n, lent}
}

func (r *rig) turn() {
	r.now += 1e5
	var out [16]ioring.Completion
	for {
		k := r.Reap(out[:])
		for _, c := range out[:k] {
			r.n.Complete(c, r.now)
		}
		if k == 0 {
			break
		}
	}
}

func (r *rig) step() { r.n.Step(r.now); r.Wait(0) }

func (r *rig) clean() {
	r.t.Helper()
	n := r.n
	n.Stop()
	for range 5000 {
		r.turn()
		for {
			if _, ok := n.Next(); !ok {
				break
			}
		}
		r.step()
		if n.Idle() {
			break
		}
	}
	if !n.Idle() {
		r.t.Fatal("not idle after Stop")
	}
	r.noLeak()
}

func (r *rig) noLeak() {
	r.t.Helper()
	n := r.n
	if s := n.Stats(); s.BuffersHeld != 0 || s.SmallFree != n.receive.small.Count() || s.ReplyFree != n.replies.blocks.Count() || n.requests.freeCount != len(n.requests.all) || n.replies.vectors.Free() != n.replies.vectors.Count() {
		r.t.Fatalf("leaked: %+v", *s)
	}
	if a := &n.admission; a.budget+a.reserve != a.capacity || n.receive.unreleased != 0 || n.receive.unparsed != 0 {
		r.t.Fatalf("budget %d + reserve %d of %d, %d unreleased, %d unparsed", a.budget, a.reserve, a.capacity, n.receive.unreleased, n.receive.unparsed)
	}
	ranges := n.receive.freshRanges.Count(n.receive.freeRange, func(i int32) int32 { return n.receive.ranges[i].next })
	slices := n.replies.freshSlices.Count(n.replies.freeSlice, func(i int32) int32 { return n.replies.slices[i].next })
	if ranges != len(n.receive.ranges) || slices != len(n.replies.slices) {
		r.t.Fatal("buffer ranges or slices leaked")
	}
}

// encoded is a request with its length word: its number, then bytes that follow
// from it.
func encoded(number uint32, size int) []byte {
	p := make([]byte, 4+size)
	binary.BigEndian.PutUint32(p, uint32(size))
	body(p[4:], number)
	return p
}

func body(p []byte, number uint32) {
	for i := range p {
		p[i] = byte(uint32(i)*2654435761>>20) ^ byte(number)
	}
	binary.BigEndian.PutUint32(p, number)
}

var seedFlag = flag.Uint64("seed", 0, "of TestRandom: run only this one")

type pending struct {
	request RequestID
	conn    ConnID
	bytes   []byte // the request
}

func TestRandom(t *testing.T) {
	if *seedFlag != 0 {
		random(t, *seedFlag)
		return
	}
	seeds := uint64(300)
	if testing.Short() {
		seeds = 30
	}
	for seed := uint64(1); seed <= seeds && !t.Failed(); seed++ {
		random(t, seed)
	}
}

// random runs clients that pipeline requests of any size, are slow, reset or
// leave, against a caller that answers in any order.
func random(t *testing.T, seed uint64) {
	defer func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	}()
	rng := rand.New(rand.NewPCG(seed, 2))
	b := []int{1024, 4096}[rng.IntN(2)]
	o := Options{
		Listener: 1, ConnsMax: 8, RequestsMax: []int{6, 64}[rng.IntN(2)], ReceiveBufferBytes: b, ReceiveBuffers: []int{16, 64}[rng.IntN(2)],
		PipelineMax: []int{1, 3, 20}[rng.IntN(3)], ReplyBlocks: 32, VectorsMax: 1,
	}
	r := newRig(t, seed, o)
	n := r.n
	max := n.options.RequestBytesMax
	type client struct {
		p        *peer
		asked    uint32
		surfaced uint32
		bad      bool // reset or evicted: not all need come back
	}
	var clients []*client
	of := map[ConnID]*client{}
	closed := map[ConnID]bool{}
	nextUser, lent := uint64(1), map[uint64]bool{}
	var todo []pending
	opened := 0
	dial := func() {
		c := &client{p: &peer{}}
		for range rng.IntN(30) {
			size := 8 + rng.IntN(200)
			switch rng.IntN(8) {
			case 0:
				size = 8 + rng.IntN(max-7)
			case 1:
				size = 8 + rng.IntN(3*b)
				if size > max {
					size = max
				}
			}
			c.p.out = append(c.p.out, encoded(c.asked, size)...)
			c.asked++
		}
		clients = append(clients, c)
		r.dialed = append(r.dialed, c.p)
	}
	for range 1 + rng.IntN(8) {
		dial()
	}
	for turn := 0; ; turn++ {
		if turn > 60000 {
			t.Errorf("seed %d does not end: %+v", seed, *n.Stats())
			return
		}
		r.turn()
		for {
			e, ok := n.Next()
			if !ok {
				break
			}
			switch e.Kind {
			case Opened:
				for _, c := range clients {
					if c.p.accepted && c.p == r.peers[opened] {
						of[e.Conn] = c
					}
				}
				opened++
			case RequestReady:
				c := of[e.Conn]
				var got []byte
				for _, p := range n.Slices(e.Request, nil) {
					got = append(got, p...)
				}
				want := make([]byte, len(got))
				body(want, c.surfaced)
				if !bytes.Equal(got, want) {
					t.Fatalf("seed %d: request %d of %d bytes is wrong", seed, c.surfaced, len(got))
				}
				c.surfaced++
				todo = append(todo, pending{e.Request, e.Conn, want})
			case Sent:
				if !lent[e.User] {
					t.Fatalf("seed %d: Sent %d twice or never sent", seed, e.User)
				}
				delete(lent, e.User)
			case Closed:
				closed[e.Conn] = true
			case ProtocolError:
				t.Fatalf("seed %d: noise", seed)
			}
		}
		// answer some, in any order; the expected bytes are put in order below
		for k := rng.IntN(4); k > 0 && len(todo) > 0; k-- {
			at := rng.IntN(len(todo))
			x := todo[at]
			c := of[x.conn]
			if !n.Alive(x.request) {
				todo = append(todo[:at], todo[at+1:]...)
				continue
			}
			var got []byte
			for _, p := range n.Slices(x.request, nil) {
				got = append(got, p...)
			}
			if len(got) != 0 && !bytes.Equal(got, x.bytes) {
				t.Fatalf("seed %d: a request changed before its release", seed)
			}
			number := binary.BigEndian.Uint32(x.bytes)
			if rng.IntN(4) == 0 {
				n.Release(x.request)
				if rng.IntN(2) == 0 {
					continue
				}
			}
			if number%7 == 3 {
				n.Drop(x.request)
			} else {
				want := answer(number, r.lent)
				copied, at := 0, 0
				parts := rand.New(rand.NewPCG(uint64(number), 3))
				for at < len(want) { // first the copied sum
					k := min(len(want)-at, 1+parts.IntN(3000))
					if parts.IntN(3) > 0 {
						copied += k
					}
					at += k
				}
				if !n.Begin(x.request, copied) {
					continue
				}
				parts, at = rand.New(rand.NewPCG(uint64(number), 3)), 0
				for at < len(want) {
					k := min(len(want)-at, 1+parts.IntN(3000))
					if parts.IntN(3) > 0 {
						copy(n.Bytes(x.request, k), want[at:])
					} else {
						n.Attach(x.request, r.lent.Slice(int(number)*100+at, k).Bytes())
					}
					at += k
				}
				n.Send(x.request, nextUser)
				lent[nextUser] = true
				nextUser++
			}
			if rng.IntN(400) == 0 {
				n.Close(x.conn)
				c.bad = true
			}
			todo = append(todo[:at0(at, todo, x)], todo[at0(at, todo, x)+1:]...)
		}
		// clients: mostly well, some not
		if c := clients[rng.IntN(len(clients))]; !c.p.closed && c.p.accepted {
			switch rng.IntN(300) {
			case 0:
				c.p.reset, c.bad = true, true
			case 1:
				c.p.end = true
			case 2:
				c.p.stuck = !c.p.stuck
			}
		}
		r.step()
		if turn < 2000 {
			continue
		}
		over := true
		for _, c := range clients {
			c.p.end, c.p.stuck = true, false
			over = over && c.p.closed
		}
		if over && len(lent) == 0 && n.conns.open == 0 {
			break
		}
	}
	for _, c := range clients {
		want := []byte{}
		for k := range c.asked {
			if k%7 == 3 {
				continue
			}
			a := answer(k, r.lent)
			want = binary.BigEndian.AppendUint32(want, uint32(len(a)))
			want = append(want, a...)
		}
		complete := !c.bad && n.stats.Evicted == 0
		if !bytes.HasPrefix(want, c.p.got) || complete && len(c.p.got) != len(want) {
			t.Fatalf("seed %d: a client got %d bytes of %d, or wrong ones; %d of %d requests surfaced", seed, len(c.p.got), len(want), c.surfaced, c.asked)
		}
	}
	for id := range of {
		if !closed[id] {
			t.Fatalf("seed %d: a connection without Closed", seed)
		}
	}
	r.clean()
}

func at0(_ int, todo []pending, x pending) int {
	for i := range todo {
		if todo[i].request == x.request {
			return i
		}
	}
	panic("not there")
}

// answer is the reply to request number: lent bytes from number*100 on, so that
// any part may be attached.
func answer(number uint32, lent mem.Block) []byte {
	size := int(number*2654435761>>7) % 300
	if number%5 == 1 {
		size += int(number*2654435761>>9) % 40000
	}
	return lent.Bytes()[number*100:][:size]
}

func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	for range 10000 {
		r.turn()
		if ok() {
			return
		}
		r.step()
	}
	r.t.Fatal("never: " + what)
}

func (r *rig) next(k Kind) (found Event) {
	r.t.Helper()
	r.until("event", func() bool {
		for {
			e, ok := r.n.Next()
			if !ok {
				return false
			}
			if e.Kind == k {
				found = e
				return true
			}
		}
	})
	return found
}

func TestNoise(t *testing.T) {
	for _, x := range []struct{ bytes, what string }{
		{"GET / HTTP/1.1\r\n\r\n", "HTTP spoken to a Kafka port"},
		{"\x16\x03\x01\x02\x00\x01\x00\x01", "TLS spoken to a port without it"},
		{"\xff\xff\xff\xff", "a request of negative length"},
		{"\x00\x00\x00\x07abcdefg", "a request shorter than its header"},
		{"\x7f\x00\x00\x00", "a request longer than socket.request.max.bytes"},
	} {
		r := newRig(t, 1, Options{})
		p := &peer{out: []byte(x.bytes)}
		r.dialed = append(r.dialed, p)
		if e := r.next(ProtocolError); e.What() != x.what {
			t.Errorf("%q is called %q", x.bytes, e.What())
		}
		r.next(Closed)
		if !p.closed {
			t.Error("not closed")
		}
		r.clean()
	}
}

func TestHalfOpenSendersHoldNothing(t *testing.T) {
	r := newRig(t, 1, Options{ReceiveBuffers: 32, ReceiveBufferBytes: 4096, ProgressTimeoutNS: 1e9})
	r.calm = true
	for range 8 {
		r.dialed = append(r.dialed, &peer{out: encoded(0, 30000)[:2000]})
	}
	for range 50 {
		r.turn()
		r.step()
		for {
			if _, ok := r.n.Next(); !ok {
				break
			}
		}
	}
	// a small request goes through beside them
	good := &peer{out: encoded(0, 100)}
	r.dialed = append(r.dialed, good)
	e := r.next(RequestReady)
	if !r.n.Begin(e.Request, 0) {
		t.Fatal("Begin")
	}
	r.n.Send(e.Request, 1)
	r.next(Sent)
	// and in time each of them is gone
	r.until("only the good one is left", func() bool {
		r.now += 1e8
		for {
			if _, ok := r.n.Next(); !ok {
				return r.n.conns.open == 1
			}
		}
	})
	r.clean()
}

// A thousand connections that stop anywhere in requests of any size, more than fits in memory, do not delay other clients or
// cost them their connections.
func TestThousandHalfOpen(t *testing.T) {
	for _, mix := range [][][2]int{ // announced, sent
		{{3000, 600}}, {{20000, 600}}, {{60000, 59000}}, {{300_000, 5000}}, {{900_000, 450_000}}, {{100, 50}},
		{{3000, 600}, {20000, 5000}, {60000, 59000}, {900_000, 450_000}, {200, 1}, {400, 399}},
	} {
		for seed := uint64(1); seed <= 3; seed++ {
			const progressNS = 10e9
			r := newRig(t, seed, Options{ReceiveBuffers: 64, ReceiveBufferBytes: 64 << 10, ProgressTimeoutNS: progressNS, ConnsMax: 1100})
			r.calm = true
			discard := func() {
				for range 40 {
					r.turn()
					for {
						if _, ok := r.n.Next(); !ok {
							break
						}
					}
					r.step()
				}
			}
			good := &peer{}
			r.dialed = append(r.dialed, good)
			discard()
			for i := range 1000 {
				m := mix[i%len(mix)]
				r.dialed = append(r.dialed, &peer{out: encoded(0, m[0])[:4+m[1]]})
			}
			for came := r.now; len(r.dialed) > 0; r.now = came { // all at once
				discard()
			}
			for i, size := range []int{40, 500, 2000, 30000, 64 << 10, 300_000, 1 << 20, 100} {
				asked := r.now
				good.out = encoded(uint32(i), size)
				e := Event{}
				for e.Kind != RequestReady {
					r.turn()
					for {
						got, ok := r.n.Next()
						if !ok {
							break
						}
						if got.Kind == RequestReady {
							e = got
						}
					}
					r.step()
					if took := r.now - asked; took > progressNS/5 {
						t.Fatalf("%v, seed %d: a request of %d bytes is not through after a fifth of the progress timeout: %+v", mix, seed, size, *r.n.Stats())
					}
				}
				if !r.n.Begin(e.Request, 0) {
					t.Fatal("Begin")
				}
				r.n.Send(e.Request, 1)
				r.next(Sent)
			}
			if good.closed || good.shut || r.n.stats.Evicted > 0 {
				t.Fatalf("%v: an innocent connection was closed: %+v", mix, *r.n.Stats())
			}
			good.end = true
			r.clean()
		}
	}
}

func TestSlowReaderIsClosed(t *testing.T) {
	r := newRig(t, 1, Options{})
	p := &peer{out: encoded(0, 100), stuck: true}
	r.dialed = append(r.dialed, p)
	e := r.next(RequestReady)
	r.n.Begin(e.Request, 0)
	r.n.Attach(e.Request, r.lent.Bytes()[:50000])
	r.n.Send(e.Request, 77)
	for range 20 {
		r.turn()
		r.step()
	}
	if _, ok := r.n.Next(); ok {
		t.Fatal("an event while the reader is stuck")
	}
	r.now += 61e9
	if e := r.next(Sent); e.User != 77 {
		t.Fatal("not ours")
	}
	r.next(Closed)
	r.n.Send(e.Request, 5) // stale: reported free at once
	if e, ok := r.n.Next(); !ok || e.Kind != Sent || e.User != 5 {
		t.Fatal("a stale Send has no Sent")
	}
	r.n.Drop(e.Request)
	r.n.Release(e.Request)
	r.n.Close(e.Conn)
	if r.n.Alive(e.Request) || r.n.Begin(e.Request, 4) || len(r.n.Slices(e.Request, nil)) != 0 || len(r.n.Bytes(e.Request, 4)) != 4 {
		t.Fatal("a stale id is not ignored")
	}
	r.clean()
}

// After Stop a peer has StopTimeoutNS to receive its replies, also if it receives a few
// bytes at a time. A request that the caller has not answered yet is waited for.
func TestStopWaitsForNoPeer(t *testing.T) {
	for _, trickles := range []bool{false, true} {
		r := newRig(t, 1, Options{})
		stuck, waits := &peer{out: append(encoded(0, 100), encoded(1, 100)...), stuck: true}, &peer{out: encoded(2, 100)}
		r.dialed = append(r.dialed, stuck, waits)
		var late RequestID
		for answered := 0; answered < 2 || late == 0; {
			e := r.next(RequestReady)
			if binary.BigEndian.Uint32(r.n.Slices(e.Request, nil)[0]) == 2 {
				late = e.Request
				continue
			}
			r.n.Begin(e.Request, 0)
			r.n.Attach(e.Request, r.lent.Bytes()[:500_000])
			r.n.Send(e.Request, 0)
			answered++
		}
		r.n.Stop()
		open := func() int {
			for {
				if _, ok := r.n.Next(); !ok {
					return r.n.conns.open
				}
			}
		}
		for begun := r.now; open() > 1; {
			r.turn()
			r.step()
			r.now += 10e6
			if trickles && r.oneIn(3) { // without a stop that is progress enough
				stuck.stuck = !stuck.stuck
			}
			if r.now-begun > 2e9 {
				t.Fatalf("trickles %v: a peer delays a stop", trickles)
			}
		}
		if got := r.n.stats.StopTimeouts; got > 1 || !trickles && got == 0 {
			t.Errorf("trickles %v: %d are counted", trickles, got)
		}
		r.now += 5e9 // and the caller has not answered yet
		r.turn()
		r.step()
		if !r.n.Alive(late) {
			t.Fatal("a request that is not answered yet is not waited for")
		}
		r.n.Begin(late, 0)
		r.n.Send(late, 0)
		r.clean()
	}
}

func TestIdleConnectionIsClosed(t *testing.T) {
	r := newRig(t, 1, Options{})
	r.dialed = append(r.dialed, &peer{})
	r.next(Opened)
	r.now += 601e9
	r.next(Closed)
	r.clean()
}

// A Close lets go what was answered before it, and forgets the rest.
func TestCloseAfterTheLastAnswer(t *testing.T) {
	r := newRig(t, 1, Options{})
	p := &peer{}
	for i := range uint32(3) {
		p.out = append(p.out, encoded(i, 20)...)
	}
	r.dialed = append(r.dialed, p)
	var e [3]Event
	for i := range e {
		e[i] = r.next(RequestReady)
	}
	r.n.Drop(e[1].Request)
	r.n.Close(e[1].Conn)
	if !r.n.Alive(e[0].Request) || r.n.Alive(e[2].Request) {
		t.Fatal("Close forgot the wrong ones")
	}
	for range 10 {
		r.turn()
		r.step()
	}
	if p.closed {
		t.Fatal("closed before the first was answered")
	}
	r.n.Begin(e[0].Request, 3)
	copy(r.n.Bytes(e[0].Request, 3), "abc")
	r.n.Send(e[0].Request, 1)
	r.next(Sent)
	r.next(Closed)
	if string(p.got) != "\x00\x00\x00\x03abc" {
		t.Fatalf("got %q", p.got)
	}
	r.clean()
}

// After a request that was aborted no reply leaves, though it be ready: it would
// be taken for the aborted one's.
func TestAbort(t *testing.T) {
	r := newRig(t, 1, Options{})
	p := &peer{}
	for i := range uint32(3) {
		p.out = append(p.out, encoded(i, 20)...)
	}
	r.dialed = append(r.dialed, p)
	var e [3]Event
	for i := range e {
		e[i] = r.next(RequestReady)
	}
	send := func(k int, text string) {
		r.n.Begin(e[k].Request, len(text))
		copy(r.n.Bytes(e[k].Request, len(text)), text)
		r.n.Send(e[k].Request, uint64(k))
	}
	send(2, "late")
	r.n.Abort(e[1].Request)
	if !r.n.Alive(e[0].Request) || r.n.Alive(e[2].Request) {
		t.Fatal("Abort forgot the wrong ones")
	}
	if s := r.next(Sent); s.User != 2 {
		t.Fatalf("reply %d is free", s.User)
	}
	send(0, "abc")
	if s := r.next(Sent); s.User != 0 {
		t.Fatalf("reply %d is free", s.User)
	}
	r.next(Closed)
	if string(p.got) != "\x00\x00\x00\x03abc" {
		t.Fatalf("got %q", p.got)
	}
	r.clean()
}

func TestOptionsThatCannotBe(t *testing.T) {
	a, err := mem.Map(32<<20, mem.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Unmap()
	for _, o := range []Options{
		{ReceiveBuffers: 64, RequestBytesMax: 64<<16/4 + 1},
		{ReceiveBuffers: 8},
		{ReceiveBufferBytes: 1000},
		{ReceiveBuffers: 4096},
	} {
		if _, err := New(&world{}, a, o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}

func TestNoAllocation(t *testing.T) {
	r := newRig(t, 1, Options{})
	r.calm = true
	p := &peer{}
	r.dialed = append(r.dialed, p)
	r.next(Opened)
	small, large := encoded(1, 200), encoded(2, 150_000)
	pieces := make([][]byte, 0, 64)
	ring := &steady{w: r.world}
	r.n.ring = ring
	for range 5 {
		r.turn()
		r.step()
	}
	p.recv = nil
	i, x := int32(0), &r.n.conns.all[0]
	x.receiving = true
	recv := ioring.Token(ioring.MakeToken(kindRecv, x.generation, 0))
	deliver := func(q []byte) {
		for len(q) > 0 {
			b := r.bufs[len(r.bufs)-1]
			r.bufs = r.bufs[:len(r.bufs)-1]
			k := copy(b.Buf.Bytes(), q)
			q = q[k:]
			r.n.Complete(ioring.Completion{Token: recv, Result: int32(k), Flags: ioring.FlagBuffer | ioring.FlagMore | uint32(b.Arg)<<16}, r.now)
		}
	}
	_ = i
	got := testing.AllocsPerRun(200, func() {
		r.now += 1000
		deliver(small)
		deliver(large)
		for {
			e, ok := r.n.Next()
			if !ok {
				break
			}
			if e.Kind != RequestReady {
				continue
			}
			pieces = r.n.Slices(e.Request, pieces[:0])
			r.n.Begin(e.Request, 100)
			copy(r.n.Bytes(e.Request, 100), pieces[0])
			r.n.Attach(e.Request, r.lent.Bytes()[:9000])
			r.n.Send(e.Request, 1)
		}
		r.n.Step(r.now)
		r.n.Complete(ioring.Completion{Token: ring.send, Result: 2 * (4 + 100 + 9000)}, r.now)
		r.n.Step(r.now)
	})
	if got != 0 {
		t.Errorf("%v allocations for two requests and their replies", got)
	}
	if r.n.stats.Gathered == 0 {
		t.Error("nothing was gathered")
	}
}

// steady is a Ring that allocates nothing.
type steady struct {
	w    *world
	send ioring.Token
}

func (s *steady) Room() int                    { return 100 }
func (s *steady) Reap([]ioring.Completion) int { return 0 }
func (s *steady) Wait(ioring.Instant)          {}
func (s *steady) Push(op ioring.Op) bool {
	switch op.Code {
	case ioring.Provide:
		s.w.bufs = append(s.w.bufs, op)
	case ioring.Send:
		s.send = op.Token
	}
	return true
}

// A connection over the limit of its address, or of all addresses, is closed at
// once and counted; a connection that closes makes room.
func TestConnectionLimits(t *testing.T) {
	one, two, three, barred := ioring.Address{15: 1}, ioring.Address{15: 2}, ioring.Address{15: 3}, ioring.Address{15: 4}
	r := newRig(t, 3, Options{ConnsMax: 3, ConnsPerAddressMax: 2, AddressLimits: []AddressLimit{{barred, 0}, {three, 1}}, RequestsMax: 8, ReceiveBufferBytes: 1024, ReceiveBuffers: 32, ReplyBlocks: 8, VectorsMax: 1})
	r.calm = true
	turns := func() {
		for range 20 {
			r.turn()
			for {
				if _, ok := r.n.Next(); !ok {
					break
				}
			}
			r.step()
		}
	}
	come := func(from ioring.Address, taken bool) *peer {
		t.Helper()
		p := &peer{from: from}
		r.dialed = append(r.dialed, p)
		turns()
		if !p.accepted || p.closed == taken {
			t.Fatalf("accepted %v, closed %v; it was to be taken in: %v", p.accepted, p.closed, taken)
		}
		return p
	}
	refused := func(table, address uint64, last Refusal) {
		t.Helper()
		s := r.n.Stats()
		if n, l := r.n.Refusals(); s.Refused != table || s.RefusedPerAddress != address || n != table+address || l != last {
			t.Fatalf("refused %d and %d, the last %v; want %d and %d, %v", s.Refused, s.RefusedPerAddress, l, table, address, last)
		}
	}
	first := come(one, true)
	come(one, true)
	come(one, false)
	refused(0, 1, Refusal{one, true, 2})
	other := come(two, true)
	come(two, false) // two has one of its two, but there is no place
	refused(1, 1, Refusal{two, false, 3})
	other.end = true
	turns()
	come(one, false)
	refused(1, 2, Refusal{one, true, 2})
	first.reset = true
	turns()
	come(one, true)
	third := come(three, true)
	refused(1, 2, Refusal{one, true, 2})
	third.end = true
	turns()
	come(barred, false)
	refused(1, 3, Refusal{barred, true, 0})
	r.clean()
}
