package netring

import (
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// prefixBytesMax is how much of a request comes before it is admitted, at most.
const prefixBytesMax = 512

// receive is the memory that connections receive into.
//
// The kernel chooses the buffer: a Recv takes one of those that were provided to
// the ring, so connections that send nothing hold none. The first bytes of a
// request that has not been admitted are kept in its connection's prefix buffer
// instead, and under backpressure a Recv writes there directly.
//
// Receiving is this function, for each connection:
//
//	while wantsInput() {
//		bytes := await Recv(backpressure && no request admitted ? prefix : ring buffer)
//		parse(bytes)
//	}
//
// Invariant: every bufferRange holds one reference on its buffer; a buffer in the
// ring has one reference, the ring's.
type receive struct {
	buffers     *mem.Pool
	bufferBytes int      // of each
	filled      []uint32 // by buffer: how many of its bytes are in use
	inRing      int      // buffers that the kernel has
	window      int      // the most it has at once

	small *mem.Pool // blocks that short requests are copied to

	ranges      []bufferRange
	freeRange   int32
	freshRanges mem.Fresh

	prefixes    mem.Block // a prefix buffer for each connection
	prefixBytes int       // of each: a small block takes as many

	// unparsed counts the buffers that hold what is not parsed yet, once for each
	// connection that has bytes there.
	unparsed int
	copied   uint64 // bytes copied while assembling requests

	needsBuffers bool // some connection's is set
	unreleased   int  // requests delivered and not yet released, with bytes here
}

// bufferRange is a part of a buffer: of a request, or not yet parsed.
type bufferRange struct {
	next           int32
	buffer         int32 // a receive buffer; the small block ^buffer where negative
	offset, length uint32
}

// rangeList is a list of bufferRanges, in order.
type rangeList struct{ first, last int32 }

var noRanges = rangeList{none, none}

func (l *rangeList) empty() bool { return l.first == none }

// provide gives free receive buffers to the ring, as far as it may have them.
// False: the ring is full.
func (r *receive) provide(ring ioring.Ring, backpressure bool) bool {
	window := r.window
	if backpressure {
		window = (window + 3) / 4
	}
	for r.inRing < window {
		buffer, ok := r.buffers.Get()
		if !ok {
			return true
		}
		if !ring.Push(ioring.Op{Token: ioring.MakeToken(kindAccept, 0, 0), Code: ioring.Provide, Arg: uint64(buffer), Buf: r.buffers.Block(buffer)}) {
			r.buffers.Unref(buffer)
			return false
		}
		r.inRing++
	}
	return true
}

// wantsInput says whether the connection may receive: there is room for what
// comes.
func (c *conn) wantsInput(pipelineMax int) bool {
	return !c.receiveEnded && c.unparsed.empty() && c.waitClass == noClass && (c.outstanding < pipelineMax || c.partial != none)
}

// keepReceiving keeps a Recv in flight while the connection wants input, and
// cancels it when not. False: the ring is full.
func (n *Net) keepReceiving(conn *conn) bool {
	wants := conn.wantsInput(n.options.PipelineMax) && !n.receive.prefixFull(conn)
	intoPrefix := n.admission.backpressure && conn.partial == none
	switch {
	case wants && !conn.receiving:
		op := ioring.Op{Token: conn.token(kindRecv), Code: ioring.Recv, File: conn.file}
		switch {
		case intoPrefix:
			op.Buf = n.receive.prefixRoom(conn)
		case n.receive.inRing == 0:
			conn.needsBuffers, n.receive.needsBuffers = true, true
			return true
		case conn.needsBuffers:
			return true
		}
		if !n.ring.Push(op) {
			return false
		}
		conn.receiving, conn.intoPrefix, conn.cancelRecv, conn.progressAt = true, intoPrefix, opNone, n.now
	case (!wants || intoPrefix && !conn.intoPrefix) && conn.receiving && conn.cancelRecv == opNone:
		return conn.cancel(n.ring, kindRecv, &conn.cancelRecv)
	}
	return true
}

// received takes a completion of the Recv.
func (n *Net) received(conn *conn, completion ioring.Completion) {
	more := completion.Flags&ioring.FlagMore != 0
	if !more {
		conn.receiving = false
	}
	hasBuffer, buffer := completion.Flags&ioring.FlagBuffer != 0, int(completion.BufferID())
	if hasBuffer {
		n.receive.inRing--
		n.stats.BuffersFreeLow = min(n.stats.BuffersFreeLow, n.receive.inRing+n.receive.buffers.Free())
	}
	accepts := !conn.inputClosed && !n.stopping && conn.stage == stageOpen
	switch {
	case completion.Result > 0 && conn.intoPrefix:
		conn.activeAt, conn.progressAt = n.now, n.now
		if accepts {
			n.receive.receivedPrefix(conn, int(completion.Result))
			if conn.lengthHave < 4 || !n.malformed(conn) {
				n.parse(conn)
			}
		}
		return
	case completion.Result > 0 && hasBuffer:
		if int(completion.Result) > n.receive.bufferBytes {
			panic("netring: more received than the buffer holds")
		}
		n.receive.filled[buffer] = uint32(completion.Result)
		conn.activeAt, conn.progressAt = n.now, n.now
		if !accepts {
			n.receive.buffers.Unref(buffer)
			return
		}
		n.receive.appendUnparsed(conn, bufferRange{none, int32(buffer), 0, uint32(completion.Result)})
		n.parse(conn)
		return
	case hasBuffer:
		n.receive.buffers.Unref(buffer)
	}
	if more {
		return
	}
	switch verdict := ioring.Judge(ioring.Recv, completion.Result); {
	case completion.Result == 0: // the end of the stream
		conn.receiveEnded = true
		conn.sendAt = n.now
	case verdict == ioring.NoBuffers:
		n.stats.NoBuffers++
		conn.needsBuffers, n.receive.needsBuffers = true, true
	case verdict == ioring.Cancelled, verdict == ioring.Again:
	default: // the connection is broken
		n.conns.terminate(conn)
	}
}

// receivedPrefix takes bytes that a Recv wrote into the prefix buffer.
func (r *receive) receivedPrefix(conn *conn, bytes int) {
	if conn.lengthHave < 4 {
		copy(conn.length[conn.lengthHave:], r.prefixOf(conn)[:bytes])
		conn.lengthHave += uint8(bytes)
	} else {
		conn.prefixBytes += uint16(bytes)
		r.copied += uint64(bytes)
	}
}

// prefixRoom is where a Recv into the prefix buffer writes: the rest of the
// length, or the bytes that may come before the request is admitted.
func (r *receive) prefixRoom(conn *conn) mem.Block {
	at := int(conn.slot) * r.prefixBytes
	if conn.lengthHave < 4 {
		return r.prefixes.Slice(at, 4-int(conn.lengthHave))
	}
	return r.prefixes.Slice(at+int(conn.prefixBytes), min(int(conn.need()), r.prefixBytes)-int(conn.prefixBytes))
}

// prefixFull says that the prefix buffer has as much of a request as may come
// before it is admitted.
func (r *receive) prefixFull(conn *conn) bool {
	return conn.partial == none && conn.lengthHave == 4 && uint32(conn.prefixBytes) >= min(conn.need(), uint32(r.prefixBytes))
}

// prefixOf is the connection's prefix buffer.
func (r *receive) prefixOf(conn *conn) []byte {
	return r.prefixes.Slice(int(conn.slot)*r.prefixBytes, r.prefixBytes).Bytes()
}

// appendUnparsed puts received bytes behind those that are not parsed yet. Few
// bytes are copied into the room that the last buffer has left, so that a peer
// that sends little at a time does not hold a buffer for each piece.
func (r *receive) appendUnparsed(conn *conn, received bufferRange) {
	if !conn.unparsed.empty() && int(received.length) < r.bufferBytes/2 {
		last := &r.ranges[conn.unparsed.last]
		at := r.filled[last.buffer]
		if int(at+received.length) <= r.bufferBytes {
			copy(r.buffers.Block(int(last.buffer)).Bytes()[at:], r.bytesOf(&received))
			r.filled[last.buffer] += received.length
			last.length += received.length
			r.copied += uint64(received.length)
			r.buffers.Unref(int(received.buffer))
			return
		}
	}
	r.add(&conn.unparsed, received)
	r.unparsed++
}

// dropInput drops what was received of requests that are not whole.
func (n *Net) dropInput(conn *conn) {
	n.admission.dequeue(conn)
	for !conn.unparsed.empty() {
		n.receive.consume(conn, n.receive.ranges[conn.unparsed.first].length)
	}
	if conn.partial != none {
		n.freeRequest(&n.requests.all[conn.partial])
		conn.partial = none
	}
	conn.lengthHave, conn.prefixBytes = 0, 0
}

// serveNeedingBuffers schedules the connections that met ENOBUFS, once the ring has
// buffers again.
func (n *Net) serveNeedingBuffers() {
	if !n.receive.needsBuffers || n.receive.inRing == 0 {
		return
	}
	n.receive.needsBuffers = false
	for i := range n.conns.all {
		if conn := &n.conns.all[i]; conn.stage != stageFree && conn.needsBuffers {
			conn.needsBuffers = false
			n.conns.schedule(conn)
		}
	}
}

// add puts a range at the end of a list. It takes over the reference that added
// has on its buffer.
func (r *receive) add(list *rangeList, added bufferRange) {
	free := r.freeRange
	if free == none {
		panic("netring: the sum of the buffer ranges is wrong")
	}
	r.freeRange = r.freshRanges.Take(free, r.ranges[free].next)
	r.ranges[free] = bufferRange{none, added.buffer, added.offset, added.length}
	if list.last == none {
		list.first = free
	} else {
		r.ranges[list.last].next = free
	}
	list.last = free
}

// drop frees a range with its reference.
func (r *receive) drop(at int32) {
	if buffer := r.ranges[at].buffer; buffer >= 0 {
		r.buffers.Unref(int(buffer))
	} else {
		r.small.Unref(int(^buffer))
	}
	r.ranges[at].next = r.freeRange
	r.freeRange = at
}

func (r *receive) bytesOf(part *bufferRange) []byte {
	if part.buffer < 0 {
		return r.small.Block(int(^part.buffer)).Slice(int(part.offset), int(part.length)).Bytes()
	}
	return r.buffers.Block(int(part.buffer)).Slice(int(part.offset), int(part.length)).Bytes()
}
