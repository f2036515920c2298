package netring

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// none is no slot of any table.
const none = mem.None

// headerBytesMin is the shortest request: api key, version, correlation id.
const headerBytesMin = 8

// Token kinds. The slot is the connection's, where nothing else is said.
const (
	kindAccept = ioring.KindNet + iota // slot: the listener
	kindRecv
	kindSend
	kindCancel // of the connection's Recv or Send; with slot acceptSlot of an Accept
	kindShutdown
	kindClose
	kindReject // Close of a socket that has no place in the table
)

// acceptSlot is the slot of the first listener's Cancel. The others' count down
// from it.
const acceptSlot = 1<<32 - 1

// Options are the sizes and the limits. Zero takes the default in brackets.
type Options struct {
	Listener           uint32         // file slot of the first listening socket
	Listeners          int            // [1] of them, in the slots from there on
	ConnsMax           int            // [1024] (max.connections)
	ConnsPerAddressMax int            // [ConnsMax] from one address (max.connections.per.ip); below 0: none
	AddressLimits      []AddressLimit // exceptions from ConnsPerAddressMax (max.connections.per.ip.overrides)
	RequestsMax        int            // [2048] requests, from the first byte to the reply's last
	ReceiveBufferBytes int            // [64 KiB] a multiple of 1 KiB
	ReceiveBuffers     int            // [256] 16..65535; the receive pool is their product
	RequestBytesMax    int            // [a quarter of the receive pool] and at most that
	ProgressTimeoutNS  int64          // [30 s] without a byte for a request that has begun; a twentieth while requests wait for memory
	IdleTimeoutNS      int64          // [600 s] for a connection without any
	SendTimeoutNS      int64          // [60 s] for a peer to take a reply, or 64 KiB of it; a sixtieth while requests wait for what replies hold
	StopTimeoutNS      int64          // [1 s] after Stop, for a peer to receive its replies
	PipelineMax        int            // [64] requests of one connection
	ReplyBlocks        int            // [1024] blocks of 4 KiB; a reply may copy into half of them
	VectorsMax         int            // [16] vectors of 1,024 slices; without one a Send has 8
	AttachedMax        int            // [4096] attached slices expected at once; more are counted and allocated
}

// AddressLimit is how many connections one address may have.
type AddressLimit struct {
	Address  ioring.Address
	ConnsMax int
}

func (o Options) defaults() Options {
	set := func(size *int, byDefault int) {
		if *size == 0 {
			*size = byDefault
		}
	}
	long := func(ns *int64, byDefault int64) {
		if *ns == 0 {
			*ns = byDefault
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
	long(&o.StopTimeoutNS, 1e9)
	set(&o.PipelineMax, 64)
	set(&o.ReplyBlocks, 1024)
	set(&o.VectorsMax, 16)
	set(&o.AttachedMax, 4096)
	return o
}

// Stats counts since New. The second group is current occupancy; a name ending in
// Low is the fewest that were ever free.
type Stats struct {
	Accepted, ClosedConns                      uint64 // connections
	Refused, RefusedPerAddress                 uint64 // closed at once: the table was full; their address had its share
	AcceptBackoffs                             uint64 // accepts that failed for want of descriptors or otherwise
	Requests, RequestBytes                     uint64 // delivered
	Copied                                     uint64 // bytes copied while assembling requests
	Replies, Dropped, SendOps, SentBytes       uint64
	Gathered                                   uint64 // replies that shared a Send with an earlier one
	PartialSends                               uint64
	NoBuffers, Admissions, Waited              uint64 // ENOBUFS; requests admitted; of them after a wait
	ProtocolErrors, Backpressured, Evicted     uint64 // see updateBackpressure, evict
	ProgressTimeouts, SendTimeouts, IdleCloses uint64
	StopTimeouts                               uint64 // connections closed after Stop because their peers did not receive their replies
	RepliesTooLarge, NoReplyMemory             uint64 // Begin refused: the reply can never fit, or cannot now
	AttachedGrown                              uint64

	Conns, RequestsOpen, Attached                       int
	BuffersInRing, BuffersHeld, SmallFree, ReplyFree    int
	BuffersFreeLow, SmallLow, ReplyLow, RequestsFreeLow int
	BudgetFree, ReserveFree                             int // bytes
}

// Net is all connections of one shard. It belongs to the shard's thread.
//
// A turn of the shard calls Complete for each completion, takes events with Next,
// answers what it can, and calls Step.
//
// Receive memory is R buffers of B bytes, of which
//
//	R/8      is small blocks (B/16 bytes): requests that fit in one are copied there
//	R/8      is the reserve for requests of at most B bytes, so that they never wait behind large ones
//	R/4 + 2  is the budget for all requests
//	R/8      is lent to the kernel
//	3R/8 - 2 holds input that cannot be parsed yet; backpressure begins before it is full
//
// All but the first are receive buffers. A request of n bytes pins at most n + 2B of
// them (request.go says why), and one of at most B pins 2B; so the budget is what
// the largest request, a quarter of the pool, needs.
type Net struct {
	ring     ioring.Ring
	options  Options
	now      ioring.Instant // of the last Complete or Step
	stopping bool           // no new connection, no new request

	listeners listeners
	conns     conns
	receive   receive
	admission admission
	requests  requests
	replies   replies
	timeouts  timeouts
	events    events
	stats     Stats
}

// New makes a Net and allocates its memory from the arena. Errors: options that
// contradict each other, an arena that is too small.
func New(ring ioring.Ring, arena *mem.Arena, options Options) (*Net, error) {
	options = options.defaults()
	if err := options.check(); err != nil {
		return nil, err
	}
	net := &Net{ring: ring, options: options, conns: newConns(options.ConnsMax), requests: newRequests(options.RequestsMax)}
	net.admission = newAdmission(options, net.conns.all)
	if err := net.allocate(arena); err != nil {
		return nil, err
	}
	net.stats.BuffersFreeLow = net.receive.buffers.Count()
	net.timeouts.scanNS = max(min(options.ProgressTimeoutNS/32, options.IdleTimeoutNS/4, options.SendTimeoutNS/4, 1e9), 1e6)
	return net, nil
}

func (o *Options) check() error {
	size, count := o.ReceiveBufferBytes, o.ReceiveBuffers
	switch {
	case size < 1024 || size%1024 != 0:
		return fmt.Errorf("netring: receive buffers of %d bytes; a multiple of 1024 is needed", size)
	case count < 16 || count > 1<<16-1:
		return fmt.Errorf("netring: %d receive buffers; 16 to 65535 are possible", count)
	case o.RequestBytesMax < headerBytesMin || o.RequestBytesMax > size*count/4:
		return fmt.Errorf("netring: requests of %d bytes in a receive pool of %d; at most a quarter is possible", o.RequestBytesMax, size*count)
	case o.Listeners < 1 || o.Listeners > 64:
		return fmt.Errorf("netring: %d listeners; 1 to 64 are possible", o.Listeners)
	case o.ConnsMax < 1 || o.RequestsMax < 1 || o.PipelineMax < 1 || o.ReplyBlocks < 1 || o.VectorsMax < 1:
		return errors.New("netring: a limit below 1")
	}
	return nil
}

// allocate makes the pools and the tables of what lies in them.
func (n *Net) allocate(arena *mem.Arena) error {
	options, size, count := &n.options, n.options.ReceiveBufferBytes, n.options.ReceiveBuffers
	var err error
	pool := func(name string, size, count int) *mem.Pool {
		pool, failed := mem.NewPool(arena, name, size, count)
		err = errors.Join(err, failed)
		return pool
	}
	block := func(what string, size int) mem.Block {
		block, failed := arena.Allocate(what, size, 64)
		err = errors.Join(err, failed)
		return block
	}
	n.receive = receive{
		bufferBytes: size, window: max(2, count/8),
		buffers: pool("receive", size, count-count/8), small: pool("small receive", size/16+blockSkew, count/8*16),
	}
	n.replies = replies{
		nextBlock: make([]int32, options.ReplyBlocks),
		blocks:    pool("reply", replyBlockBytes, options.ReplyBlocks), vectors: pool("vector", ioring.VectorBytes(vectorSlices), options.VectorsMax),
	}
	if err != nil {
		return err
	}
	n.receive.prefixBytes = min(prefixBytesMax, n.receive.small.Size())
	n.replies.connVectors = block("vectors of connections", ioring.VectorBytes(connVectorSlices)*options.ConnsMax)
	n.receive.prefixes = block("first bytes of requests", n.receive.prefixBytes*options.ConnsMax)
	n.replies.lengths = block("lengths of empty replies", 4*options.RequestsMax)
	n.replies.scratch = block("netring scratch", replyBlockBytes)
	n.listeners = listeners{all: make([]listener, options.Listeners), rejected: make([]uint32, 0, 64)}
	for i := range n.listeners.all {
		n.listeners.all[i].peer = block("peer address", ioring.AddressBytes)
	}
	if err != nil {
		return err
	}
	n.receive.filled = make([]uint32, n.receive.buffers.Count())
	// A buffer has at most one range that is not parsed yet and one of a request
	// that fills it. A request has three more: in a small block, and in its first
	// and last buffers, which it may share.
	ranges, region, err := mem.MapTable[bufferRange](arena, "parts of receive buffers", 2*n.receive.buffers.Count()+3*options.RequestsMax+options.ConnsMax)
	if err != nil {
		return err
	}
	n.receive.ranges = ranges
	n.receive.freshRanges, n.receive.freeRange = mem.FreshOf(ranges, region)
	// A reply has a slice for its length and each of its blocks, and two for each
	// attachment: that and the rest of the block behind it.
	n.replies.slices = make([]replySlice, 2*options.RequestsMax+options.ReplyBlocks+2*options.AttachedMax)
	n.replies.freshSlices, n.replies.freeSlice = mem.FreshOf(n.replies.slices, nil)
	events, region, err := mem.MapTable[Event](arena, "events of connections", 4*options.RequestsMax+4*options.ConnsMax)
	if err != nil {
		return err
	}
	region.Use(len(events) * int(unsafe.Sizeof(Event{}))) // a circle: all of it is soon used
	n.events.all = events
	return nil
}

// Stats are the counters, valid until the next call of any method.
func (n *Net) Stats() *Stats {
	stats := &n.stats
	stats.Conns, stats.RequestsOpen, stats.RequestsFreeLow = n.conns.open, len(n.requests.all)-n.requests.freeCount, n.requests.freeLow
	stats.Attached, stats.AttachedGrown = n.replies.attached, n.replies.grown
	stats.BuffersInRing, stats.BuffersHeld = n.receive.inRing, n.receive.buffers.Count()-n.receive.buffers.Free()-n.receive.inRing
	stats.SmallFree, stats.SmallLow = n.receive.small.Free(), n.receive.small.Low()
	stats.ReplyFree, stats.ReplyLow = n.replies.blocks.Free(), n.replies.blocks.Low()
	stats.Copied = n.receive.copied
	stats.BudgetFree, stats.ReserveFree = n.admission.budget, n.admission.reserve
	return stats
}

// Stop accepts no further connections and requests. Requests that were delivered
// are still answered; each connection closes after its last reply. A peer has
// StopTimeoutNS to receive all replies that are complete, however many bytes it
// receives at a time. So a stop waits for the caller's replies but not for peers.
func (n *Net) Stop() {
	n.stopping = true
	n.timeouts.scanAt = n.now
	for i := range n.conns.all {
		if conn := &n.conns.all[i]; conn.stage != stageFree {
			conn.receiveEnded, conn.sendAt, conn.sendProgressAt = true, n.now, n.now
			n.conns.schedule(conn)
		}
	}
}

// Idle says, after Stop, that nothing is in flight and no connection is left.
func (n *Net) Idle() bool {
	return n.listeners.idle() && n.conns.open == 0 && n.events.count == 0
}

// Complete takes one completion of kind 0x10-0x1f.
func (n *Net) Complete(completion ioring.Completion, now ioring.Instant) {
	n.now = now
	token := completion.Token
	switch token.Kind() {
	case kindAccept:
		n.accepted(completion, int(token.Slot()))
		return
	case kindReject:
		n.listeners.closing--
		return
	case kindCancel:
		if listener := acceptSlot - token.Slot(); int(listener) < len(n.listeners.all) {
			n.listeners.all[listener].cancel = opDone
			return
		}
	}
	conn := &n.conns.all[token.Slot()]
	if conn.stage == stageFree || conn.generation&0xffffff != token.Generation() {
		panic("netring: a completion of a connection that was closed")
	}
	switch token.Kind() {
	case kindRecv:
		n.received(conn, completion)
	case kindSend:
		n.sendDone(conn, completion)
	case kindCancel:
		conn.cancels--
		if conn.cancelRecv == opAsked && completion.Result < 0 && conn.receiving {
			// The Recv was not found: it is completing, or it is cancelled again.
			conn.cancelRecv = opNone
		}
	case kindShutdown:
		conn.shutdown = opDone
	case kindClose:
		n.emit(Closed, conn.id(), 0)
		n.conns.release(conn)
		n.stats.ClosedConns++
		return
	default:
		panic("netring: a completion of an unknown kind")
	}
	n.conns.schedule(conn)
}

// Step does what has become possible: it provides buffers, admits, receives,
// sends, closes, and checks the timeouts. It is called once a turn, and returns
// the time by which it has to be called again.
func (n *Net) Step(now ioring.Instant) (sleepUntil ioring.Instant) {
	n.now = now
	full := !n.receive.provide(n.ring, n.admission.backpressure)
	n.admitWaiting()
	n.updateBackpressure()
	if n.receive.needsBuffers && n.receive.inRing == 0 && n.receive.buffers.Free() == 0 && n.receive.unreleased == 0 {
		n.evict(false)
	}
	n.serveNeedingBuffers()
	n.checkTimeouts()
	for count := n.conns.dueCount; count > 0; count-- {
		conn := n.conns.nextDue()
		if !n.serve(conn) {
			n.conns.schedule(conn)
			full = true
		}
	}
	full = !n.receive.provide(n.ring, n.admission.backpressure) || full
	full = !n.listeners.step(n.ring, n.options.Listener, n.stopping, now) || full
	if full || n.admission.backpressureChanges(n.receive.unparsed) || n.admissible(classSmall) || n.admissible(classLarge) || n.receive.needsBuffers && n.receive.inRing > 0 {
		return now
	}
	sleepUntil = ioring.Never
	if n.conns.open > 0 {
		sleepUntil = n.timeouts.scanAt
	}
	if !n.stopping {
		sleepUntil = min(sleepUntil, n.listeners.sleepUntil())
	}
	return sleepUntil
}
