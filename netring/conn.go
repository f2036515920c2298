package netring

import (
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// conn is one connection. It is this function:
//
//	opened()
//	for !receiveEnded {
//		bytes := await receive()
//		for request in parse(bytes) { await admission(request); deliver(request) }
//	}
//	// meanwhile, in the order of the requests
//	for request { await answered(request); await send(request); sent(request) }
//	shutdown(); await receive, send, shutdown; await close(); closed()
//
// A failure at any point goes on with the last line; each reply that Send was
// given still has its Sent event.
//
// Invariants: outstanding is the length of the list first..last, and every
// request in that list has been delivered; inputClosed implies receiveEnded.
type conn struct {
	slot       int32 // its place in conns.all
	generation uint32
	stage      stage
	scheduled  bool  // in conns.due
	listener   uint8 // the number of the listening socket that accepted it
	file       uint32
	next       int32 // of the free list

	// receive
	receiving    bool // a Recv is in flight
	intoPrefix   bool // that Recv writes into the prefix buffer
	cancelRecv   opStage
	needsBuffers bool           // met ENOBUFS, and waits for receive buffers
	receiveEnded bool           // no further Recv: end of stream, Close, Stop
	inputClosed  bool           // no further request is delivered: Close, ProtocolError
	closeAsked   bool           // Close was called
	lengthHave   uint8          // bytes of length that came
	length       [4]byte        // of the request that begins
	prefixBytes  uint16         // bytes behind length that lie in the prefix buffer
	partial      int32          // the request being assembled
	unparsed     rangeList      // received, not yet parsed: waits for admission or for the pipeline
	waitClass    class          // the queue in which it waits for admission, noClass for none
	wait         mem.Links      // its neighbours there
	progressAt   ioring.Instant // when the request that is coming last made progress
	activeAt     ioring.Instant // when any byte last went either way

	// reply
	first, last       int32 // requests delivered whose replies have not left, in order
	outstanding       int
	sending           bool
	inSend            int   // how many requests, from first on, the Send in flight reads
	vector            int32 // the large vector of that Send
	sendAt            ioring.Instant
	replyPending      bool           // the peer has not taken all that was pushed to it
	sendProgressAt    ioring.Instant // when it last had taken a whole reply, or sendProgressBytesMin; after Stop, since when replies have been pending
	sendProgressBytes int            // taken since
	attachedBytes     int            // attached to its replies

	// close
	shutdown   opStage
	cancelSend opStage
	cancels    int // in flight
}

type stage uint8

const (
	stageFree        stage = iota
	stageOpen              // also when nothing more is received but replies are to come
	stageTearingDown       // everything is being taken back; waits for operations in flight
	stageClosing           // the Close is in flight
)

// opStage is how far an operation is that is started at most once.
type opStage uint8

const (
	opNone opStage = iota
	opAsked
	opDone
)

// conns is the table of connections, and the queue of those that may have
// something to do.
//
// Invariant: a connection is in due once exactly while its scheduled is set.
type conns struct {
	all   []conn
	peers []ioring.Address // by slot
	free  int32            // list through next
	open  int

	due      []int32 // a circle
	dueHead  int
	dueCount int
}

func newConns(count int) conns {
	table := conns{all: make([]conn, count), peers: make([]ioring.Address, count), free: none, due: make([]int32, count)}
	for i := count - 1; i >= 0; i-- {
		table.all[i] = conn{slot: int32(i), next: table.free}
		table.free = int32(i)
	}
	return table
}

// take makes a connection of a socket that was accepted. The caller has checked
// that there is a free slot.
func (c *conns) take(peer ioring.Address, listener uint8, file uint32, now ioring.Instant) *conn {
	slot := c.free
	taken := &c.all[slot]
	c.free = taken.next
	c.peers[slot] = peer
	*taken = conn{
		slot: slot, generation: taken.generation + 1, stage: stageOpen, scheduled: taken.scheduled, file: file, listener: listener,
		partial: none, unparsed: noRanges, first: none, last: none, vector: none, waitClass: noClass, activeAt: now, progressAt: now,
	}
	c.open++
	return taken
}

func (c *conns) release(conn *conn) {
	conn.stage, conn.next = stageFree, c.free
	c.free = conn.slot
	c.open--
}

// get is the connection of that id, nil where it is gone.
func (c *conns) get(id ConnID) *conn {
	slot := uint32(id)
	if int(slot) >= len(c.all) {
		return nil
	}
	conn := &c.all[slot]
	if conn.stage == stageFree || conn.generation != uint32(id>>32) {
		return nil
	}
	return conn
}

// countOf counts the connections of one address. It looks at all connections,
// which is less work than the system calls of the connection that asks for it.
func (c *conns) countOf(peer ioring.Address) (count int) {
	for i := range c.peers {
		if c.peers[i] == peer && c.all[i].stage != stageFree {
			count++
		}
	}
	return count
}

// schedule has Step serve the connection.
func (c *conns) schedule(conn *conn) {
	if conn.scheduled {
		return
	}
	conn.scheduled = true
	c.due[(c.dueHead+c.dueCount)%len(c.due)] = conn.slot
	c.dueCount++
}

// nextDue takes the first connection that is scheduled.
func (c *conns) nextDue() *conn {
	conn := &c.all[c.due[c.dueHead]]
	c.dueHead = (c.dueHead + 1) % len(c.due)
	c.dueCount--
	conn.scheduled = false
	return conn
}

func (c *conn) id() ConnID { return ConnID(c.generation)<<32 | ConnID(c.slot) }

func (c *conn) token(kind uint8) ioring.Token {
	return ioring.MakeToken(kind, c.generation, uint32(c.slot))
}

// Listener is the number of the listening socket that accepted the connection, 0
// for one that is gone.
func (n *Net) Listener(id ConnID) int {
	if conn := n.conns.get(id); conn != nil {
		return int(conn.listener)
	}
	return 0
}

// Peer is the address of the connection's other end, zero for one that is gone.
func (n *Net) Peer(id ConnID) ioring.Address {
	if conn := n.conns.get(id); conn != nil {
		return n.conns.peers[conn.slot]
	}
	return ioring.Address{}
}

// serve does for one connection what has become possible. False: the ring is
// full, and the connection has to be served again.
func (n *Net) serve(conn *conn) bool {
	if conn.stage == stageOpen {
		for !conn.sending && conn.first != none && n.requests.all[conn.first].stage == requestDropped {
			n.removeHead(conn)
		}
		if conn.inputClosed {
			n.dropInput(conn)
			n.dropCancelled(conn)
		} else {
			n.parse(conn)
		}
	}
	if conn.stage == stageOpen {
		if !n.send(conn) {
			return false
		}
		if conn.receiveEnded && conn.outstanding == 0 && !n.canParse(conn) {
			conn.stage = stageTearingDown
		}
	}
	if conn.stage == stageOpen {
		return n.keepReceiving(conn)
	}
	if conn.stage == stageTearingDown {
		return n.tearDown(conn)
	}
	return true
}

// canParse says whether what was received before the end of the stream may yet
// become a request.
func (n *Net) canParse(conn *conn) bool {
	return !conn.inputClosed && !n.stopping && (!conn.unparsed.empty() || n.receive.prefixFull(conn))
}

// Close closes the connection after the replies to its requests up to the last
// that has been answered, by Send or Drop. Later requests are cancelled: they are
// no longer Alive.
func (n *Net) Close(id ConnID) {
	conn := n.conns.get(id)
	if conn == nil || conn.closeAsked {
		return
	}
	conn.receiveEnded, conn.inputClosed, conn.closeAsked = true, true, true
	conn.sendAt = n.now
	answered := none
	for index := conn.first; index != none; index = n.requests.all[index].next {
		if n.requests.all[index].stage >= requestAnswered {
			answered = index
		}
	}
	index := conn.first
	if answered != none {
		index = n.requests.all[answered].next
	}
	n.requests.cancel(index)
	n.conns.schedule(conn)
}

// Abort says that the request gets no reply. The requests after it get none
// either, because a client takes the next reply for the answer to its oldest open
// request. The connection closes after the replies to the requests before it.
func (n *Net) Abort(id RequestID) {
	req := n.requests.get(id)
	if req == nil {
		return
	}
	conn := &n.conns.all[req.conn]
	n.Drop(id)
	n.Close(conn.id())
	n.requests.cancel(req.next)
}

// terminate ends a connection at once: this Step or the next takes back what it
// holds.
func (c *conns) terminate(conn *conn) {
	if conn.stage == stageOpen {
		conn.stage = stageTearingDown
		c.schedule(conn)
	}
}

// tearDown takes back everything that the connection holds, except what a Send in
// flight reads, and closes the socket when the last operation has completed.
// False: the ring is full.
func (n *Net) tearDown(conn *conn) bool {
	n.dropInput(conn)
	conn.receiveEnded, conn.inputClosed = true, true
	n.dropReplies(conn)
	if conn.shutdown == opNone {
		if !n.ring.Push(ioring.Op{Token: conn.token(kindShutdown), Code: ioring.Shutdown, File: conn.file}) {
			return false
		}
		conn.shutdown = opAsked
	}
	if conn.receiving && conn.cancelRecv == opNone && !conn.cancel(n.ring, kindRecv, &conn.cancelRecv) {
		return false
	}
	if conn.sending && conn.cancelSend == opNone && !conn.cancel(n.ring, kindSend, &conn.cancelSend) {
		return false
	}
	if conn.receiving || conn.sending || conn.cancels > 0 || conn.shutdown != opDone {
		return true
	}
	if !n.ring.Push(ioring.Op{Token: conn.token(kindClose), Code: ioring.Close, File: conn.file}) {
		return false
	}
	conn.stage = stageClosing
	return true
}

// cancel cancels the connection's operation of that kind. False: the ring is full.
func (c *conn) cancel(ring ioring.Ring, kind uint8, stage *opStage) bool {
	if !ring.Push(ioring.Op{Token: c.token(kindCancel), Code: ioring.Cancel, Arg: uint64(c.token(kind))}) {
		return false
	}
	*stage = opAsked
	c.cancels++
	return true
}
