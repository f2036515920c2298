package netring

import (
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// admission decides which requests may take receive memory, and stops connections
// whose input cannot be parsed for want of it.
//
// Invariant: budget + reserve + what all requests are charged == capacity.
type admission struct {
	budget   int // bytes for requests of any size
	reserve  int // bytes for small requests alone
	capacity int

	// waiting has connections whose request waits to be admitted, by class.
	waiting [2]waitQueue
	links   mem.Thread // through conn.wait

	unparsedMax       int // buffers that hold what is not parsed yet; above it backpressure begins
	backpressure      bool
	backpressureSince ioring.Instant
}

func newAdmission(options Options, conns []conn) admission {
	admission := admission{
		budget: (options.ReceiveBuffers/4 + 2) * options.ReceiveBufferBytes, reserve: options.ReceiveBuffers / 8 * options.ReceiveBufferBytes,
		unparsedMax: max(1, options.ReceiveBuffers/4),
		waiting:     [2]waitQueue{{List: mem.EmptyList}, {List: mem.EmptyList}}, links: mem.ThreadOf(conns, func(conn *conn) *mem.Links { return &conn.wait }),
	}
	admission.capacity = admission.budget + admission.reserve
	return admission
}

// class of a request, by its length: which queue it waits in.
type class uint8

const (
	classSmall class = iota // at most a receive buffer: the reserve is for these
	classLarge
	noClass
)

// waitQueue is connections that wait for admission, in order of arrival. The
// oldest and the newest are admitted in turn: no connection waits for ever, and a
// thousand that send no more of their requests delay a new one by one admission.
type waitQueue struct {
	mem.List
	newestNext bool
}

// next is the connection to be admitted next, none if the queue is empty.
func (q *waitQueue) next() int32 {
	if q.newestNext {
		return q.Last
	}
	return q.First
}

// underPressure says that requests wait for memory. Connections that hold some and
// send nothing then get less time.
func (a *admission) underPressure() bool {
	return !a.waiting[classSmall].Empty() || !a.waiting[classLarge].Empty()
}

// RequestsWanted says that requests wait because RequestsMax are open.
func (n *Net) RequestsWanted() bool {
	return n.requests.freeCount == 0 && n.admission.underPressure()
}

// admit begins the request whose length is known. False: it waits.
func (n *Net) admit(conn *conn) bool {
	need := conn.need()
	class := classLarge
	if int(need) <= n.receive.bufferBytes {
		class = classSmall
	}
	whole := n.receive.hasWhole(conn)
	next := n.admission.waiting[class].next()
	fits := (next == none || next == conn.slot) && n.fits(class, need, conn.prefixBytes > 0, whole)
	if !fits && !(whole && conn.prefixBytes == 0 && n.requests.freeCount > 0) {
		if conn.waitClass == noClass {
			n.admission.enqueue(conn, class)
		}
		return false
	}
	if conn.waitClass != noClass {
		n.admission.waiting[class].newestNext = !n.admission.waiting[class].newestNext
		n.admission.dequeue(conn)
		n.stats.Waited++
	}
	n.stats.Admissions++
	req := n.requests.begin(conn, need)
	conn.partial, conn.lengthHave, conn.progressAt = req.index, 0, n.now
	if n.receive.smallFits(need, whole) {
		block, _ := n.receive.small.Get()
		req.small = true
		n.receive.add(&req.bytes, bufferRange{none, ^int32(block), 0, 0})
		n.receive.consumePrefix(conn, req)
		return true
	}
	if !fits { // it is whole: its buffer keeps counting as unparsed
		req.unparsed = true
		n.receive.unparsed++
		return true
	}
	n.admission.charge(req, class, n.receive.cost(need))
	n.receive.consumePrefix(conn, req)
	return true
}

// fits says whether a request of need bytes can begin. prefixed: some of it is in
// the prefix buffer, so that it takes a small block; whole: all of it has come.
func (n *Net) fits(class class, need uint32, prefixed, whole bool) bool {
	if n.requests.freeCount == 0 || prefixed && n.receive.small.Free() == 0 {
		return false
	}
	cost := n.receive.cost(need)
	if class == classLarge {
		return n.admission.budget >= cost
	}
	return n.receive.smallFits(need, whole) || n.admission.reserve >= cost || n.admission.budgetForSmall(cost)
}

// cost is how many bytes of receive buffers a request of need bytes may pin.
func (r *receive) cost(need uint32) int {
	if int(need) <= r.bufferBytes {
		return 2 * r.bufferBytes
	}
	return int(need) + 2*r.bufferBytes
}

// smallFits says whether the request can have a small block. A quarter of them is
// for requests that are whole.
func (r *receive) smallFits(need uint32, whole bool) bool {
	return int(need) <= r.small.Size() && (r.small.Free() > r.small.Count()/4 || whole && r.small.Free() > 0)
}

// hasWhole says that all of the request that begins has come.
func (r *receive) hasWhole(conn *conn) bool {
	have := uint32(conn.prefixBytes)
	if !conn.unparsed.empty() {
		have += r.ranges[conn.unparsed.first].length
	}
	return have >= conn.need()
}

// budgetForSmall says whether a small request may take from the budget: large
// requests that wait take precedence.
func (a *admission) budgetForSmall(cost int) bool {
	return a.waiting[classLarge].Empty() && a.budget >= cost
}

// charge takes the cost of a request that fits.
func (a *admission) charge(req *request, class class, cost int) {
	req.charged = cost
	if class == classLarge || a.budgetForSmall(cost) {
		req.from = classLarge
		a.budget -= cost
	} else {
		req.from = classSmall
		a.reserve -= cost
	}
}

// refund gives back some of what the request was charged.
func (a *admission) refund(req *request, bytes int) {
	req.charged -= bytes
	switch req.from {
	case classLarge:
		a.budget += bytes
	case classSmall:
		a.reserve += bytes
	}
}

func (a *admission) enqueue(conn *conn, class class) {
	conn.waitClass = class
	a.links.PushBack(&a.waiting[class].List, conn.slot)
}

func (a *admission) dequeue(conn *conn) {
	if conn.waitClass == noClass {
		return
	}
	a.links.Remove(&a.waiting[conn.waitClass].List, conn.slot)
	conn.waitClass = noClass
}

// admissible says whether the next connection in this class can be admitted.
func (n *Net) admissible(class class) bool {
	next := n.admission.waiting[class].next()
	if next == none {
		return false
	}
	conn := &n.conns.all[next]
	return n.fits(class, conn.need(), conn.prefixBytes > 0, n.receive.hasWhole(conn))
}

// admitWaiting begins requests that wait, as far as there is memory.
func (n *Net) admitWaiting() {
	for class := range noClass {
		for n.admissible(class) {
			conn := &n.conns.all[n.admission.waiting[class].next()]
			if conn.stage != stageOpen || conn.inputClosed || n.stopping || !n.admit(conn) {
				n.admission.dequeue(conn)
				n.conns.schedule(conn)
				continue
			}
			n.parse(conn)
			n.conns.schedule(conn)
		}
	}
}

// updateBackpressure turns backpressure on when too many buffers hold input that
// cannot be parsed, and off again when half of them have been parsed. Under it,
// connections without an admitted request receive into their prefix buffers: they
// hold no buffer, and small requests go on.
//
// What was tried before, and how it failed:
//
//   - one buffer at a time for each connection: hundreds of peers that stop
//     within a buffer hold all buffers;
//   - cancelling the Recv only of connections that wait: the kernel may fill
//     dozens of buffers from one connection before it sees the Cancel, and
//     admitted requests found none;
//   - cancelling nothing: small requests of other connections waited until the
//     progress timeout.
func (n *Net) updateBackpressure() {
	admission := &n.admission
	if !admission.backpressureChanges(n.receive.unparsed) {
		return
	}
	admission.backpressure, admission.backpressureSince = !admission.backpressure, n.now
	if admission.backpressure {
		n.stats.Backpressured++
	}
	for i := range n.conns.all {
		if conn := &n.conns.all[i]; conn.stage == stageOpen && conn.partial == none && conn.receiving == admission.backpressure {
			n.conns.schedule(conn)
		}
	}
}

func (a *admission) backpressureChanges(unparsed int) bool {
	if a.backpressure {
		return unparsed <= a.unparsedMax/2
	}
	return unparsed > a.unparsedMax
}

// evict closes the connection that holds the most unparsed buffers. It is the
// last resort when these are all the buffers and the caller has none to release.
// With pipelined, used when backpressure has lasted long, connections that wait
// for admission are spared: it is for those that only wait for the peer to read
// their replies.
func (n *Net) evict(pipelined bool) {
	var worst *conn
	most := 0
	for i := range n.conns.all {
		conn := &n.conns.all[i]
		if conn.stage != stageOpen || pipelined && conn.waitClass != noClass {
			continue
		}
		held := 0
		for at := conn.unparsed.first; at != none; at = n.receive.ranges[at].next {
			held++
		}
		if held > most {
			worst, most = conn, held
		}
	}
	if worst != nil {
		n.stats.Evicted++
		n.conns.terminate(worst)
	}
}
