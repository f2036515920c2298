package lives

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
	"github.com/tailbound/tailbound/netring"
	"github.com/tailbound/tailbound/sim"
)

// netWork runs one seed of netring alone: a server that answers requests late and in any
// order, and clients that cut, stall, reset and send invalid bytes. Replies must arrive in
// order and whole, lent memory must not change, in either direction, and at the end all
// memory must be free.
func netWork(r Run) (res Result) {
	s := &netSim{run: r, w: sim.NewWorld(r.Seed)}
	s.rng = s.w.Rand
	s.w.Trace = r.Trace
	defer func() {
		if p := recover(); p != nil {
			res.Err = explain(p)
		}
		if s.arena != nil {
			s.arena.Unmap()
		}
		res.Hash, res.Lives, res.Appends, res.Reads, res.Steps = s.w.Hash(), 1, s.asked, s.answered, s.w.Steps()
	}()
	if res.Err = s.open(); res.Err == nil {
		res.Err = s.live()
	}
	return res
}

type netSim struct {
	run   Run
	w     *sim.World
	rng   *rand.Rand
	arena *mem.Arena
	ring  *sim.Ring
	net   *netring.Net
	o     netring.Options
	sleep ioring.Instant
	cache *mem.Pool // memory that replies send by reference

	peers    []*peer
	work     []job
	sends    []sending // by user
	conns    map[netring.ConnID]ioring.Address
	perPeer  map[ioring.Address]int // of these, by address
	serial   uint64
	cut      map[uint64]bool // requests that were dropped with their connection; looked up only
	asked    int
	answered int
}

// peer is a client and the requests that it waits for.
type peer struct {
	c    *sim.Client
	owed []uint64 // serials of its requests, in order
	rude bool     // it sent bytes that end its connection
	part bool     // it stopped in the middle of a request
}

// job is a request that the server has.
type job struct {
	frame    netring.RequestID
	conn     netring.ConnID
	serial   uint64
	turns    int
	released bool
	replied  bool
	pieces   [][]byte
	sum      uint64
}

// sending is a reply without a Sent event yet.
type sending struct {
	used   bool
	lent   []int
	sums   []uint64
	serial uint64
}

func (s *netSim) pick(v ...int) int { return v[s.rng.IntN(len(v))] }

func (s *netSim) open() (err error) {
	if s.arena, err = mem.Map(24<<20, mem.Options{Poison: true}); err != nil {
		return err
	}
	s.conns, s.perPeer = map[netring.ConnID]ioring.Address{}, map[ioring.Address]int{}
	s.cut = map[uint64]bool{}
	s.ring = sim.NewRing(s.w, sim.NewDisk(0), s.arena, sim.RingOptions{Files: 4, Sockets: s.pick(4, 20), Depth: s.pick(8, 64, 512), NoMultishot: s.rng.IntN(3) == 0})
	s.o = netring.Options{
		ConnsMax: s.pick(2, 8, 16), ConnsPerAddressMax: s.pick(0, 1, 4), RequestsMax: s.pick(4, 16, 64), ReceiveBufferBytes: s.pick(1024, 4096, 65536), ReceiveBuffers: s.pick(16, 20, 64),
		PipelineMax: s.pick(1, 3, 16), ReplyBlocks: s.pick(8, 32),
		ProgressTimeoutNS: 20e6, IdleTimeoutNS: 500e6, SendTimeoutNS: 50e6, StopTimeoutNS: 20e6,
	}
	s.o.RequestBytesMax = s.frameMax()
	if s.cache, err = mem.NewPool(s.arena, "cache", 4096, 64); err != nil {
		return err
	}
	if s.net, err = netring.New(s.ring, s.arena, s.o); err != nil {
		return err
	}
	s.arena.Seal()
	s.ring.Listen(0, 9092)
	s.net.Listen()
	return nil
}

// frameMax is the length of the longest served request.
func (s *netSim) frameMax() int { return s.o.ReceiveBuffers * s.o.ReceiveBufferBytes / 4 }

func (s *netSim) live() error {
	for range 100 + s.rng.IntN(600) {
		s.clients()
		if err := s.turn(); err != nil {
			return err
		}
		s.pass()
		if err := s.hear(); err != nil {
			return err
		}
	}
	// Stop. Of the peers that have received nothing, some now receive all replies, and
	// the others nothing or a few bytes now and then: these are not waited for.
	s.net.Stop()
	for _, p := range s.peers {
		if p.c.Window >= 0 && s.rng.IntN(3) > 0 {
			p.c.Window = -1
			p.c.Widen(0)
		}
	}
	last := s.w.Now // there was work
	for range 20_000 {
		if err := s.turn(); err != nil {
			return err
		}
		if len(s.work) > 0 {
			last = s.w.Now
		}
		if s.net.Idle() && len(s.work) == 0 {
			break
		}
		if late := int64(s.w.Now - last); late > 2*s.o.StopTimeoutNS {
			return fmt.Errorf("STALLED: %d ms after the stop and the last answer there are connections: %d", late/1e6, len(s.conns))
		}
		if p := s.peers[s.rng.IntN(len(s.peers))]; p.c.Window >= 0 && s.rng.IntN(4) == 0 {
			p.c.Widen(1 + s.rng.IntN(100))
		}
		s.w.Step(max(s.w.Now+1, min(s.sleep, s.w.Now+5_000_000)))
		if err := s.hear(); err != nil {
			return err
		}
	}
	switch {
	case !s.net.Idle():
		return fmt.Errorf("STALLED: netring does not become idle: %d connections, %d requests in hand", len(s.conns), len(s.work))
	case len(s.conns) != 0:
		return fmt.Errorf("%d connections were opened and not closed", len(s.conns))
	}
	for i, x := range s.sends {
		if x.used {
			return fmt.Errorf("the reply of user %d was never answered by Sent", i)
		}
	}
	return nil
}

func (s *netSim) pass() {
	switch s.rng.IntN(5) {
	case 0:
	case 1:
		s.w.Step(s.w.Now + 1_000_000)
	case 2:
		if s.rng.IntN(20) == 0 {
			until := s.w.Now + ioring.Instant(s.rng.Int64N(30_000_000))
			for s.w.Step(until) {
			}
		}
	default:
		until := s.w.Now + ioring.Instant(s.rng.Int64N(200_000))
		for s.w.Step(until) {
		}
	}
}

// pattern returns byte i of the data of a serial.
func pattern(serial uint64, i int) byte {
	return byte((serial*0x9e3779b97f4a7c15 + uint64(i)*0x517cc1b7) >> 24)
}

// clients has clients do something.
func (s *netSim) clients() {
	if len(s.peers) < 20 && s.rng.IntN(8) == 0 || len(s.peers) == 0 {
		if c := s.w.DialFrom(9092, ioring.Address{15: byte(1 + s.rng.IntN(3))}); c != nil {
			if s.rng.IntN(3) == 0 {
				c.Window = s.rng.IntN(3000)
			}
			s.peers = append(s.peers, &peer{c: c})
		}
		return
	}
	p := s.peers[s.rng.IntN(len(s.peers))]
	if p.c.Closed {
		return
	}
	switch x := s.rng.IntN(100); {
	case x < 60:
		if !p.rude && len(p.owed) < 40 {
			for range s.pick(1, 1, 5) {
				s.request(p)
			}
		}
	case x < 75:
		p.c.Widen(s.rng.IntN(20_000))
	case x < 78:
		if p.rude {
			return
		}
		p.rude = true
		switch s.rng.IntN(4) {
		case 0:
			p.c.Send([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
		case 1:
			p.c.Send([]byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc})
		case 2:
			p.c.Send(binary.BigEndian.AppendUint32(nil, uint32(s.frameMax()+1)))
		case 3:
			p.c.Send([]byte{0, 0, 0, 7, 1, 2, 3, 4, 5, 6, 7})
		}
	case x < 80:
		if !p.rude { // half a request, then nothing
			p.rude, p.part = true, true
			b := binary.BigEndian.AppendUint32(nil, uint32(100+s.rng.IntN(s.frameMax()-100)))
			p.c.Send(append(b, make([]byte, s.rng.IntN(80))...)[:1+s.rng.IntN(len(b))])
		}
	case x < 82:
		p.c.Reset()
	case x < 84:
		p.rude = true
		p.c.End()
	}
}

func (s *netSim) request(p *peer) {
	s.serial++
	s.asked++
	n := 12 + s.rng.IntN(s.pick(40, 3000, s.frameMax()-12))
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 4+n), uint32(n))
	b = binary.BigEndian.AppendUint64(b, s.serial)
	for i := 8; i < n; i++ {
		b = append(b, pattern(s.serial, i))
	}
	p.c.Send(b)
	p.owed = append(p.owed, s.serial)
}

// hear checks what clients received: whole replies, in the order of the requests, without
// those to dropped requests.
func (s *netSim) hear() error {
	for _, p := range s.peers {
		for len(p.c.Received) >= 4 {
			n := int(binary.BigEndian.Uint32(p.c.Received))
			if n < 8 || n > 1<<20 {
				return fmt.Errorf("a reply of %d bytes", n)
			}
			if len(p.c.Received) < 4+n {
				break
			}
			b := p.c.Take(4 + n)[4:]
			serial := binary.BigEndian.Uint64(b)
			for len(p.owed) > 0 && p.owed[0] != serial && s.dropped(p.owed[0]) {
				p.owed = p.owed[1:]
			}
			if len(p.owed) == 0 || p.owed[0] != serial {
				return fmt.Errorf("ORDER: the reply to request %d, the next one owed is %v", serial, p.owed[:min(3, len(p.owed))])
			}
			p.owed = p.owed[1:]
			for i := 8; i < n; i++ {
				if b[i] != pattern(serial^1<<40, i) {
					return fmt.Errorf("CHANGED: byte %d of %d of the reply to request %d", i, n, serial)
				}
			}
			s.answered++
		}
	}
	return nil
}

// dropped says whether the server drops the request of a serial without a reply.
func (s *netSim) dropped(serial uint64) bool { return serial%31 == 7 || s.cut[serial] }

// turn is one turn of the server.
func (s *netSim) turn() error {
	s.ring.Wait(s.w.Now)
	var out [32]ioring.Completion
	for {
		k := s.ring.Reap(out[:])
		for _, c := range out[:k] {
			s.net.Complete(c, s.w.Now)
		}
		if k < len(out) {
			break
		}
	}
	if err := s.events(); err != nil {
		return err
	}
	if err := s.serve(); err != nil {
		return err
	}
	s.sleep = s.net.Step(s.w.Now)
	if err := s.events(); err != nil {
		return err
	}
	s.ring.Submit()
	return nil
}

func (s *netSim) events() error {
	for {
		ev, ok := s.net.Next()
		if !ok {
			return nil
		}
		switch ev.Kind {
		case netring.Opened:
			if _, is := s.conns[ev.Conn]; is {
				return fmt.Errorf("connection %x was opened twice", ev.Conn)
			}
			a := s.net.Peer(ev.Conn)
			s.conns[ev.Conn] = a
			s.perPeer[a]++
			if most := s.o.ConnsPerAddressMax; len(s.conns) > s.o.ConnsMax || most > 0 && s.perPeer[a] > most {
				return fmt.Errorf("LIMIT: %d connections of at most %d, %d of %v of at most %d", len(s.conns), s.o.ConnsMax, s.perPeer[a], a, most)
			}
		case netring.Closed:
			a, is := s.conns[ev.Conn]
			if !is {
				return fmt.Errorf("connection %x was closed and is not open", ev.Conn)
			}
			s.perPeer[a]--
			delete(s.conns, ev.Conn)
		case netring.RequestReady:
			if err := s.take(ev); err != nil {
				return err
			}
		case netring.Sent:
			if err := s.sent(ev.User); err != nil {
				return err
			}
		case netring.ProtocolError:
			if ev.What() == "" {
				return fmt.Errorf("noise without a name")
			}
		}
	}
}

// take reads a request and keeps it for a while.
func (s *netSim) take(ev netring.Event) error {
	j := job{frame: ev.Request, conn: ev.Conn, turns: s.rng.IntN(s.pick(1, 4, 30))}
	j.pieces = s.net.Slices(ev.Request, nil)
	var b []byte
	for _, p := range j.pieces {
		b = append(b, p...)
	}
	if len(b) < 12 || len(b) > s.frameMax() {
		return fmt.Errorf("a request of %d bytes", len(b))
	}
	j.serial = binary.BigEndian.Uint64(b)
	for i := 8; i < len(b); i++ {
		if b[i] != pattern(j.serial, i) {
			return fmt.Errorf("CHANGED: byte %d of %d of request %d", i, len(b), j.serial)
		}
	}
	j.sum = sum(j.pieces...)
	s.work = append(s.work, j)
	return nil
}

func sum(pieces ...[]byte) uint64 {
	h := uint64(14695981039346656037)
	for _, p := range pieces {
		for _, c := range p {
			h = (h ^ uint64(c)) * 1099511628211
		}
	}
	return h
}

// serve answers the requests that are due, in any order.
func (s *netSim) serve() error {
	rest := s.work[:0]
	for _, j := range s.work {
		if j.turns--; j.turns > 0 {
			rest = append(rest, j)
			continue
		}
		if !j.released && s.net.Alive(j.frame) && sum(j.pieces...) != j.sum {
			return fmt.Errorf("CHANGED: request %d while it was in the server's hands", j.serial)
		}
		if !j.replied && !s.answer(&j) {
			j.turns = 1 + s.rng.IntN(3)
			rest = append(rest, j)
			continue
		}
		if !j.released {
			s.net.Release(j.frame)
		}
	}
	s.work = rest
	return nil
}

// answer replies to a request. False: there is no memory for it now.
func (s *netSim) answer(j *job) bool {
	switch {
	case s.dropped(j.serial):
		if !j.released {
			s.net.Release(j.frame)
			j.released = true
		}
		s.net.Drop(j.frame)
		return true
	case s.rng.IntN(300) == 0:
		s.cut[j.serial] = true
		s.net.Release(j.frame)
		j.released = true
		s.net.Drop(j.frame)
		s.net.Close(j.conn)
		return true
	}
	if s.rng.IntN(2) == 0 && !j.released {
		s.net.Release(j.frame)
		j.released = true
	}
	copied := 8 + s.rng.IntN(s.pick(10, 500, 9000))
	if !s.net.Begin(j.frame, copied) {
		return false
	}
	x := sending{used: true, serial: j.serial}
	at := 0
	put := func(p []byte) {
		for i := range p {
			p[i] = pattern(j.serial^1<<40, at+i)
		}
		if at == 0 {
			binary.BigEndian.PutUint64(p, j.serial)
		}
		at += len(p)
	}
	for left := copied; left > 0; {
		n := min(left, 4096, 8+s.rng.IntN(s.pick(20, 5000)))
		put(s.net.Bytes(j.frame, n))
		left -= n
		if s.rng.IntN(2) == 0 {
			if i, ok := s.cache.Get(); ok {
				b := s.cache.Block(i)
				v := b.Slice(0, 1+s.rng.IntN(4096))
				put(v.Bytes())
				s.net.Attach(j.frame, v.Bytes())
				x.lent = append(x.lent, i)
				x.sums = append(x.sums, sum(b.Bytes()))
			}
		}
	}
	user := len(s.sends)
	for i := range s.sends {
		if !s.sends[i].used {
			user = i
			break
		}
	}
	if user == len(s.sends) {
		s.sends = append(s.sends, sending{})
	}
	s.sends[user] = x
	s.net.Send(j.frame, uint64(user))
	j.replied = true
	return true
}

// sent takes back the memory that the reply sent by reference.
func (s *netSim) sent(user uint64) error {
	if user >= uint64(len(s.sends)) || !s.sends[user].used {
		return fmt.Errorf("a Sent event for user %d, who sent nothing", user)
	}
	x := &s.sends[user]
	for i, b := range x.lent {
		if sum(s.cache.Block(b).Bytes()) != x.sums[i] {
			return fmt.Errorf("CHANGED: what was attached to the reply of request %d", x.serial)
		}
		s.cache.Unref(b) // poisons it
	}
	*x = sending{}
	return nil
}
