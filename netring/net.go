package netring

import (
	"errors"
	"fmt"

	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// none is no slot of any table.
const none int32 = -1

// headerBytesMin is the shortest request: api key, version, correlation id.
const headerBytesMin = 8

// Token kinds.
const (
	kindAccept = ioring.KindNet + iota
	kindRecv
	kindSend
	kindCancel // of a connection's Recv or Send; of the Accept with slot acceptSlot
	kindShutdown
	kindClose
	kindOrphan // Close of a socket that found no place in the table
)

const acceptSlot = 1<<32 - 1 // and down, for the listeners after the first

const (
	replyPieceMax = 4096 // bytes that Bytes hands out in one piece
	// Small blocks are a cache line more than a power of two, so that the first
	// bytes of all of them, which is what most requests and answers are, do not lie
	// in the same few sets of a processor's caches.
	blockSkew       = 64
	replyBlockBytes = replyPieceMax + blockSkew // a piece, and a reply's length before it
	vectorPieces    = 1024                      // the most pieces in a Send
	stashBytesMax   = 512                       // of a frame, before it is admitted
	ownPieces       = 8                         // pieces in a connection's own vector: it can always send
)

// Options are the sizes and the limits. Zero takes the default in brackets.
type Options struct {
	Listener           uint32         // file slot of the first listening socket
	Listeners          int            // [1] of them, in the slots from there on
	ConnsMax           int            // [1024] connections (max.connections)
	ConnsPerAddressMax int            // [ConnsMax] of them, of one peer's address (max.connections.per.ip); below 0: none
	AddressLimits      []AddressLimit // of addresses with a number of their own (max.connections.per.ip.overrides)
	RequestsMax        int            // [2048] requests, from the first byte to the reply's last
	ReceiveBufferBytes int            // [64 KiB] a multiple of 1 KiB
	ReceiveBuffers     int            // [256] 16..65535; the receive pool is their product
	RequestBytesMax    int            // [a quarter of the receive pool] and at most that
	ProgressTimeoutNS  int64          // [30 s] for a request that has begun; a twentieth while others wait for memory
	IdleTimeoutNS      int64          // [600 s] for a connection without any
	SendTimeoutNS      int64          // [60 s] for a peer to take a reply, or 64 KiB of it; a sixtieth while others wait for what replies hold
	PipelineMax        int            // [64] requests of one connection
	ReplyBlocks        int            // [1024] of 4 KiB; a reply may copy into half of them
	VectorsMax         int            // [16] of 1,024 pieces; without one a send has 8
	AttachedMax        int            // [4096] attached pieces expected at once; more are counted and allocated
}

// AddressLimit is how many connections one address may have.
type AddressLimit struct {
	Address  ioring.Address
	ConnsMax int
}

func (o Options) defaults() Options {
	set := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	long := func(p *int64, v int64) {
		if *p == 0 {
			*p = v
		}
	}
	set(&o.Listeners, 1)
	set(&o.ConnsMax, 1024)
	set(&o.ConnsPerAddressMax, o.ConnsMax)
	set(&o.RequestsMax, 2048)
	set(&o.ReceiveBufferBytes, 64<<10)
	set(&o.ReceiveBuffers, 256)
	set(&o.RequestBytesMax, o.ReceiveBuffers*o.ReceiveBufferBytes/4)
	long(&o.ProgressTimeoutNS, 30e9)
	long(&o.IdleTimeoutNS, 600e9)
	long(&o.SendTimeoutNS, 60e9)
	set(&o.PipelineMax, 64)
	set(&o.ReplyBlocks, 1024)
	set(&o.VectorsMax, 16)
	set(&o.AttachedMax, 4096)
	return o
}

// Stats counts. Levels are as of the last Step.
type Stats struct {
	Accepted, ClosedConns                      uint64 // connections
	Refused, RefusedPerAddress                 uint64 // closed at once: the table was full; their address had its share
	AcceptBackoffs                             uint64 // accepts that failed for want of descriptors or otherwise
	Requests, RequestBytes                     uint64 // whole requests
	Copied                                     uint64 // bytes copied while putting requests together
	Replies, Dropped, SendOps, SentBytes       uint64
	Gathered                                   uint64 // replies that shared a Send with an earlier one
	PartialSends                               uint64
	NoBuffers, Admissions, Waited              uint64 // ENOBUFS; requests admitted; of them after a wait
	ProtocolErrors, Backpressured, Evicted     uint64 // see gate, evict
	ProgressTimeouts, SendTimeouts, IdleCloses uint64
	RepliesTooLarge, NoReplyMemory             uint64 // Begin refused: for ever, for now
	AttachedGrown                              uint64

	Conns, RequestsOpen, Attached                       int
	BuffersInRing, BuffersHeld, SmallFree, ReplyFree    int
	BuffersFreeLow, SmallLow, ReplyLow, RequestsFreeLow int
	BudgetFree, ReserveFree, BudgetLow, ReserveFreeLow  int // bytes
}

// Net is all connections of one shard. It belongs to the shard's thread.
//
// Receive memory is R buffers of B bytes, one sum:
//
//	R/8      cut into small blocks (B/16 bytes): requests that fit in one are copied there
//	R/8      reserve of requests of at most B bytes, so that they never wait behind large ones
//	R/4 + 2  budget of all
//	R/8      lent to the kernel
//	3R/8 - 2 holds what came and cannot be cut yet; the gate shuts before it is full
//
// All but the first are the ring's. A request of n bytes pins at most n + 2B of
// them (frame.go says why), and one of at most B 2B; so the budget is what the
// largest, a quarter of the pool, needs.
//
// Invariant: budget + reserve + what frames were charged is constant.
type Net struct {
	ring ioring.Ring
	o    Options
	now  ioring.Instant // of the last Complete or Step

	conns    []conn
	peers    []ioring.Address // by connection
	freeConn int32
	live     int
	runs     runQueue // connections that may have something to do

	frames     []frame
	freeFrame  int32
	framesFree int

	buffers   *mem.Pool // receive buffers; the ring's have one reference, the ring's
	fill      []uint32  // by buffer: where its bytes end
	inRing    int
	small     *mem.Pool
	views     []view
	freeV     int32
	budget    int
	reserve   int
	budgetAll int // both, all of it
	window    int // the most buffers that are lent to the kernel at once
	uncut     int // buffers that hold what cannot be cut yet, once for each connection
	gateAt    int // above so many the gate shuts
	gated     bool
	gatedAt   ioring.Instant
	waiting   [2]waitList // for admission, by class
	hungry    bool        // some connection met ENOBUFS
	held      int         // receive buffers and small blocks in whole requests not released

	replies  *mem.Pool
	nextOf   []int32 // by reply block: the reply's next one
	lengths  mem.Block
	stash    mem.Block // the first bytes of a request, for each connection
	scratch  mem.Block // what Bytes hands out for a request that is gone
	extents  []extent
	freeE    int32
	own      mem.Block // a vector of ownPieces for each connection
	attached int       // pieces
	large    int       // reply blocks of replies that have several
	hurried  bool      // somebody waits for what replies hold
	vectors  *mem.Pool
	events   events
	orphans  []uint32 // sockets to close, not taken in
	orphaned int      // their closes in flight

	listening, stopping bool
	doors               []door  // by listener
	refusal             Refusal // the last
	acceptAt            ioring.Instant
	scanAt              ioring.Instant
	scanNS              int64
	stats               Stats
}

// door is what a listening socket has under way.
type door struct {
	accepting bool      // an Accept is in flight
	peer      mem.Block // where it puts whom it accepts
	cancel    opStage
}

// New makes a Net and carves its memory. Errors: options that contradict each
// other, an arena that is too small.
func New(ring ioring.Ring, arena *mem.Arena, o Options) (*Net, error) {
	o = o.defaults()
	b, r := o.ReceiveBufferBytes, o.ReceiveBuffers
	switch {
	case b < 1024 || b%1024 != 0:
		return nil, fmt.Errorf("netring: receive buffers of %d bytes; a multiple of 1024 is needed", b)
	case r < 16 || r > 1<<16-1:
		return nil, fmt.Errorf("netring: %d receive buffers; 16 to 65535 are possible", r)
	case o.RequestBytesMax < headerBytesMin || o.RequestBytesMax > b*r/4:
		return nil, fmt.Errorf("netring: requests of %d bytes in a receive pool of %d; at most a quarter is possible", o.RequestBytesMax, b*r)
	case o.Listeners < 1 || o.Listeners > 64:
		return nil, fmt.Errorf("netring: %d listeners; 1 to 64 are possible", o.Listeners)
	case o.ConnsMax < 1 || o.RequestsMax < 1 || o.PipelineMax < 1 || o.ReplyBlocks < 1 || o.VectorsMax < 1:
		return nil, errors.New("netring: a limit below 1")
	}
	n := &Net{ring: ring, o: o, freeConn: none, freeFrame: none, freeV: none, freeE: none}
	ringBuffers := r - r/8
	n.reserve = r / 8 * b
	n.budget = (r/4 + 2) * b
	n.budgetAll = n.budget + n.reserve
	n.window, n.gateAt = max(2, r/8), max(1, r/4)
	var err error
	carve := func(what string, size int) mem.Block {
		block, e := arena.Allocate(what, size, 64)
		err = errors.Join(err, e)
		return block
	}
	pool := func(name string, size, count int) *mem.Pool {
		p, e := mem.NewPool(arena, name, size, count)
		err = errors.Join(err, e)
		return p
	}
	n.buffers = pool("receive", b, ringBuffers)
	n.small = pool("small receive", b/16+blockSkew, r/8*16)
	n.replies = pool("reply", replyBlockBytes, o.ReplyBlocks)
	n.vectors = pool("vector", ioring.VectorBytes(vectorPieces), o.VectorsMax)
	if err != nil {
		return nil, err
	}
	n.own = carve("vectors of connections", ioring.VectorBytes(ownPieces)*o.ConnsMax)
	n.stash = carve("first bytes of requests", n.stashBytes()*o.ConnsMax)
	n.lengths = carve("lengths of empty replies", 4*o.RequestsMax)
	n.scratch = carve("netring scratch", replyBlockBytes)
	n.doors = make([]door, o.Listeners)
	for k := range n.doors {
		n.doors[k].peer = carve("peer address", ioring.AddressBytes)
	}
	if err != nil {
		return nil, err
	}
	n.fill = make([]uint32, ringBuffers)
	n.nextOf = make([]int32, o.ReplyBlocks)
	n.conns = make([]conn, o.ConnsMax)
	n.peers = make([]ioring.Address, o.ConnsMax)
	for i := o.ConnsMax - 1; i >= 0; i-- {
		n.conns[i] = conn{next: n.freeConn}
		n.freeConn = int32(i)
	}
	n.runs.all = make([]int32, o.ConnsMax)
	n.frames = make([]frame, o.RequestsMax)
	for i := o.RequestsMax - 1; i >= 0; i-- {
		n.frames[i].next = n.freeFrame
		n.freeFrame = int32(i)
	}
	n.framesFree = o.RequestsMax
	// a buffer's pieces: one not yet looked at, one of each frame in it but
	// two where a frame ends and one begins; a frame's: one small block more
	n.views = make([]view, 2*ringBuffers+3*o.RequestsMax+o.ConnsMax)
	for i := len(n.views) - 1; i >= 0; i-- {
		n.views[i].next = n.freeV
		n.freeV = int32(i)
	}
	// a reply's own pieces: its length, its blocks (and again after each attached)
	n.extents = make([]extent, 2*o.RequestsMax+o.ReplyBlocks+2*o.AttachedMax)
	for i := len(n.extents) - 1; i >= 0; i-- {
		n.extents[i].next = n.freeE
		n.freeE = int32(i)
	}
	n.events.all = make([]Event, 4*o.RequestsMax+4*o.ConnsMax)
	n.orphans = make([]uint32, 0, 64)
	n.waiting = [2]waitList{{first: none, last: none}, {first: none, last: none}}
	n.scanNS = max(min(o.ProgressTimeoutNS/32, o.IdleTimeoutNS/4, o.SendTimeoutNS/4, 1e9), 1e6)
	n.stats.BudgetLow, n.stats.ReserveFreeLow, n.stats.RequestsFreeLow = n.budget, n.reserve, n.framesFree
	n.stats.BuffersFreeLow = ringBuffers
	return n, nil
}

// Refusal is a connection that was closed at once: whose, and for which limit.
type Refusal struct {
	Address    ioring.Address
	PerAddress bool // ConnsPerAddressMax, else ConnsMax
	Limit      int
}

// Refusals says how many connections were closed because a limit was reached,
// and which was the last.
func (n *Net) Refusals() (count uint64, last Refusal) {
	return n.stats.Refused + n.stats.RefusedPerAddress, n.refusal
}

// Stats are the counters, valid until the next call of any method.
func (n *Net) Stats() *Stats {
	s := &n.stats
	s.Conns, s.RequestsOpen, s.Attached = n.live, len(n.frames)-n.framesFree, n.attached
	s.BuffersInRing, s.BuffersHeld = n.inRing, n.buffers.Count()-n.buffers.Free()-n.inRing
	s.SmallFree, s.SmallLow = n.small.Free(), n.small.Low()
	s.ReplyFree, s.ReplyLow = n.replies.Free(), n.replies.Low()
	s.BudgetFree, s.ReserveFree = n.budget, n.reserve
	return s
}

// Listen begins accepting.
func (n *Net) Listen() { n.listening = true }

// Stop ends it: no more connections, no more requests. What was handed out is
// still answered; each connection closes after its last reply.
func (n *Net) Stop() {
	n.stopping = true
	for i := range n.conns {
		if n.conns[i].stage != stageFree {
			n.conns[i].ended, n.conns[i].sendAt = true, n.now
			n.wakeConn(int32(i))
		}
	}
}

// Idle says, after Stop, that nothing is in flight and no connection is left.
func (n *Net) Idle() bool {
	for k := range n.doors {
		if n.doors[k].accepting || n.doors[k].cancel == stageAsked {
			return false
		}
	}
	return n.live == 0 && len(n.orphans) == 0 && n.orphaned == 0 && n.events.n == 0
}

// Complete takes one completion of kind 0x10-0x1f.
func (n *Net) Complete(c ioring.Completion, now ioring.Instant) {
	n.now = now
	switch c.Token.Kind() {
	case kindAccept:
		n.accepted(c, int(c.Token.Slot()))
		return
	case kindOrphan:
		n.orphaned--
		return
	case kindCancel:
		if k := acceptSlot - c.Token.Slot(); int(k) < len(n.doors) {
			n.doors[k].cancel = stageDoneOp
			return
		}
	}
	i := int32(c.Token.Slot())
	x := &n.conns[i]
	if x.stage == stageFree || x.generation&0xffffff != c.Token.Generation() {
		panic("netring: a completion of a connection that was closed")
	}
	switch c.Token.Kind() {
	case kindRecv:
		n.received(i, c)
	case kindSend:
		n.sendDone(i, c)
	case kindCancel:
		x.cancels--
		if x.cancelRecv == stageAsked && c.Result < 0 && x.receiving {
			// It was not found: it is completing, or it will be looked for again.
			x.cancelRecv = stageNone
		}
	case kindShutdown:
		x.shutdown = stageDoneOp
	case kindClose:
		n.gone(i)
		return
	default:
		panic("netring: a completion of no kind of ours")
	}
	n.wakeConn(i)
}

// accepted takes a new connection in, or learns that the Accept ended.
func (n *Net) accepted(c ioring.Completion, at int) {
	door := &n.doors[at]
	if c.Flags&ioring.FlagMore == 0 {
		door.accepting = false
	}
	if c.Result < 0 {
		switch ioring.Judge(ioring.Accept, c.Result) {
		case ioring.Cancelled, ioring.Again, ioring.Gone:
		default: // EMFILE, ENFILE, ENOMEM …: it will be no better at once
			n.acceptAt = n.now + acceptBackoffNS
			n.stats.AcceptBackoffs++
		}
		return
	}
	i, peer := n.freeConn, ioring.PeerAddress(door.peer)
	if n.stopping || n.refused(peer) {
		n.orphans = append(n.orphans, uint32(c.Result))
		return
	}
	n.peers[i] = peer
	x := &n.conns[i]
	n.freeConn = x.next
	*x = conn{
		generation: x.generation + 1, stage: stageOpen, queued: x.queued, file: uint32(c.Result), listener: uint8(at),
		frame: none, first: none, last: none, chunk: none, chunkLast: none, vector: none, waitNext: none, waitPrev: none, waits: noClass,
		activeAt: n.now, progressAt: n.now,
	}
	n.live++
	n.stats.Accepted++
	n.tell(Opened, n.connID(i), 0, 0)
	n.wakeConn(i)
}

const acceptBackoffNS = 10e6

// refused says whether there are as many connections, or as many of this peer's
// address, as may be.
func (n *Net) refused(peer ioring.Address) bool {
	limit := n.o.ConnsPerAddressMax
	for i := range n.o.AddressLimits {
		if l := &n.o.AddressLimits[i]; l.Address == peer {
			limit = l.ConnsMax
		}
	}
	switch {
	case n.freeConn == none:
		n.stats.Refused++
		n.refusal = Refusal{peer, false, n.o.ConnsMax}
	case n.live >= limit && n.connsOf(peer) >= limit:
		n.stats.RefusedPerAddress++
		n.refusal = Refusal{peer, true, max(limit, 0)}
	default:
		return false
	}
	return true
}

// connsOf counts an address's connections. It looks at all, which is less work
// than the system calls of the one that comes.
func (n *Net) connsOf(peer ioring.Address) (count int) {
	for i := range n.peers {
		if n.peers[i] == peer && n.conns[i].stage != stageFree {
			count++
		}
	}
	return count
}

// Step does what has become possible: gives buffers back, admits, receives,
// sends, closes, and looks at the timeouts. It is called once a turn and says
// when it wants to be called again at the latest.
func (n *Net) Step(now ioring.Instant) (sleepUntil ioring.Instant) {
	n.now = now
	full := !n.provide()
	n.admitWaiting()
	n.gate()
	if n.hungry && n.inRing == 0 && n.buffers.Free() == 0 && n.held == 0 {
		n.evict(false)
	}
	if n.hungry && n.inRing > 0 {
		n.hungry = false
		for i := range n.conns {
			if x := &n.conns[i]; x.stage != stageFree && x.hungry {
				x.hungry = false
				n.wakeConn(int32(i))
			}
		}
	}
	if n.pressed() {
		n.scanAt = min(n.scanAt, now+ioring.Instant(n.o.ProgressTimeoutNS/pressedPart/4))
	}
	if n.hurried {
		n.scanAt = min(n.scanAt, now+ioring.Instant(n.o.SendTimeoutNS/hurriedPart/4))
	}
	if now >= n.scanAt {
		n.scanAt = now + ioring.Instant(n.scanNS)
		n.timeouts()
	}
	for k := n.runs.n; k > 0; k-- {
		i := n.runs.pop()
		n.conns[i].queued = false
		if !n.run(i) {
			n.wakeConn(i)
			full = true
		}
	}
	full = !n.provide() || full
	full = !n.accept() || full
	if full || n.gateMoves() || n.waiting[0].first != none && n.admissible(0) || n.waiting[1].first != none && n.admissible(1) || n.hungry && n.inRing > 0 {
		return now
	}
	sleepUntil = ioring.Never
	if n.live > 0 {
		sleepUntil = n.scanAt
	}
	for k := range n.doors {
		if n.listening && !n.doors[k].accepting && !n.stopping {
			sleepUntil = min(sleepUntil, n.acceptAt)
		}
	}
	return sleepUntil
}

// accept keeps an Accept in flight while we listen; and closes the sockets
// that were not taken in. False: the ring is full.
//
// It accepts one connection at a time, with its address: an Accept with many
// completions has no place to put their addresses, and asking the kernel for
// them later would be two system calls and a descriptor for each, on kernels
// that can do it at all (6.8). It costs a storm of clients a turn each.
func (n *Net) accept() bool {
	for len(n.orphans) > 0 {
		last := len(n.orphans) - 1
		if !n.ring.Push(ioring.Op{Token: ioring.MakeToken(kindOrphan, 0, 0), Code: ioring.Close, File: n.orphans[last]}) {
			return false
		}
		n.orphans = n.orphans[:last]
		n.orphaned++
	}
	for k := range n.doors {
		door, token := &n.doors[k], ioring.MakeToken(kindAccept, 0, uint32(k))
		switch {
		case n.stopping:
			if door.accepting && door.cancel == stageNone {
				if !n.ring.Push(ioring.Op{Token: ioring.MakeToken(kindCancel, 0, acceptSlot-uint32(k)), Code: ioring.Cancel, Arg: uint64(token)}) {
					return false
				}
				door.cancel = stageAsked
			}
		case n.listening && !door.accepting && n.now >= n.acceptAt:
			door.accepting = n.ring.Push(ioring.Op{Token: token, Code: ioring.Accept, File: n.o.Listener + uint32(k), Buf: door.peer})
			if !door.accepting {
				return false
			}
		}
	}
	return true
}

// provide gives free receive buffers to the ring. False: the ring is full.
func (n *Net) provide() bool {
	window := n.window
	if n.gated {
		window = (window + 3) / 4
	}
	for n.inRing < window {
		b, ok := n.buffers.Get()
		if !ok {
			return true
		}
		if !n.ring.Push(ioring.Op{Token: ioring.MakeToken(kindAccept, 0, 0), Code: ioring.Provide, Arg: uint64(b), Buf: n.buffers.Block(b)}) {
			n.buffers.Unref(b)
			return false
		}
		n.inRing++
	}
	return true
}

// pressed says that somebody waits for memory: who holds some and sends nothing
// is given less time.
func (n *Net) pressed() bool { return n.waiting[0].first != none || n.waiting[1].first != none }

// RequestsWanted says that requests wait because as many are open as may be.
func (n *Net) RequestsWanted() bool { return n.framesFree == 0 && n.pressed() }

// pressedPart is what part of the progress timeout is left then.
const pressedPart = 20

// hurriedPart is what part of the send timeout is left while somebody waits for
// what replies hold, and takenBytesMin what a peer takes within it, at least.
const (
	hurriedPart   = 60
	takenBytesMin = 64 << 10
)

// timeouts ends what has made no progress. It runs every scanNS, so each comes
// by as much too late.
func (n *Net) timeouts() {
	progress := n.o.ProgressTimeoutNS
	if n.pressed() {
		progress /= pressedPart
	}
	if n.gated && int64(n.now-n.gatedAt) > n.o.ProgressTimeoutNS/8 {
		n.evict(true)
	}
	taking := n.o.SendTimeoutNS
	if n.hurried {
		taking /= hurriedPart
	}
	for i := range n.conns {
		x := &n.conns[i]
		switch {
		case x.stage != stageOpen:
		case x.owing && int64(n.now-x.takenAt) > taking:
			n.stats.SendTimeouts++
			n.kill(int32(i))
		case x.ended && int64(n.now-max(x.activeAt, x.sendAt)) > n.o.SendTimeoutNS:
			n.kill(int32(i))
		case x.receiving && (x.lengthHave > 0 || x.frame != none) && x.waits == noClass && int64(n.now-x.progressAt) > progress:
			n.stats.ProgressTimeouts++
			n.kill(int32(i))
		case x.outstanding == 0 && x.frame == none && x.chunk == none && x.lengthHave == 0 && int64(n.now-x.activeAt) > n.o.IdleTimeoutNS:
			n.stats.IdleCloses++
			n.kill(int32(i))
		}
	}
}

// Adopt will take over a connection that was accepted, and partly received,
// elsewhere: the way in from a TLS handshake. Not built.
func (n *Net) Adopt(fd int, received []byte) error {
	return errors.New("netring: Adopt is not built")
}
