package netring

// request is one request from its first byte until its reply has left. Until it
// is delivered it is this function:
//
//	need := await 4 bytes
//	await more bytes than the prefix buffer holds, or all of them
//	await admission(need)
//	for have < need { assemble(await bytes) }
//	deliver(); await released and answered
//
// Its bytes lie where the kernel put them, with two exceptions:
//
//   - a request that fits in a small block, while there are any, is copied there
//     as it comes: slow and small senders pin no receive buffer;
//   - the last buffer of a request is filled up from the next one, so that
//     senders of small pieces do not pin a buffer for each. (Tried: only while one
//     of the two is less than half full. That copies less and pins twice as much,
//     so half as many requests could be admitted.) What comes in full buffers is
//     not copied.
//
// A request that has come whole in one buffer needs no other memory. It is
// delivered even if it is not its turn to be admitted; its buffer keeps counting
// as unparsed.
//
// The first bytes of a request wait in its connection's prefix buffer, so a peer
// that announces a large request and sends only those bytes takes no budget.
//
// Invariant: all of a request's buffers are full of it, except the first and the
// last, which it may share with its neighbours. So n bytes pin at most n + 2B,
// where B is the size of a buffer.
type request struct {
	index      int32 // its place in requests.all
	generation uint32
	stage      requestStage
	cancelled  bool  // its connection was told to close before its answer
	conn       int32 // slot
	next       int32 // of the free list, or of the connection's list
	need, have uint32
	bytes      rangeList
	small      bool  // its bytes are in one small block
	unparsed   bool  // charged to nothing: its buffer counts as unparsed
	charged    int   // bytes of the budget or the reserve
	from       class // which of them was charged

	reply
}

// emptyRequest is a request that begins, as a template to copy. (A literal with
// variable fields is put together on the stack with narrow stores and then copied
// with wide loads, each of which waits for those stores.)
var emptyRequest = request{stage: requestPartial, next: none, bytes: noRanges, from: noClass, reply: emptyReply}

type requestStage uint8

const (
	requestFree      requestStage = iota
	requestPartial                // being assembled
	requestDelivered              // the caller has it
	requestAnswered               // the reply is complete
	requestDropped                // there will be no reply
)

// requests is the table of all requests.
type requests struct {
	all       []request
	free      int32 // list through next
	freeCount int
	freeLow   int // the fewest that were ever free
}

func newRequests(count int) requests {
	table := requests{all: make([]request, count), free: none, freeCount: count, freeLow: count}
	for i := count - 1; i >= 0; i-- {
		table.all[i].next = table.free
		table.free = int32(i)
	}
	return table
}

// begin takes a free request for need bytes. The caller has checked that there is
// one.
func (r *requests) begin(conn *conn, need uint32) *request {
	index := r.free
	req := &r.all[index]
	r.free = req.next
	r.freeCount--
	r.freeLow = min(r.freeLow, r.freeCount)
	generation := req.generation + 1
	*req = emptyRequest
	req.index, req.generation, req.conn, req.need = index, generation, conn.slot, need
	return req
}

// get is the request that was delivered under that id, nil once it was answered or
// is gone.
func (r *requests) get(id RequestID) *request {
	index := uint32(id)
	if int(index) >= len(r.all) {
		return nil
	}
	req := &r.all[index]
	if req.generation != uint32(id>>32) || req.stage != requestDelivered {
		return nil
	}
	return req
}

// cancel marks the requests from first on.
func (r *requests) cancel(first int32) {
	for i := first; i != none; i = r.all[i].next {
		r.all[i].cancelled = true
	}
}

// head is the first request of a connection whose reply is to come or has not
// left.
func (r *requests) head(conn *conn) int32 {
	first := conn.first
	for first != none && r.all[first].stage == requestDropped {
		first = r.all[first].next
	}
	return first
}

func (r *request) id() RequestID { return RequestID(r.generation)<<32 | RequestID(r.index) }

// Alive says whether an answer to the request can still be sent: it has had none,
// and its connection is there.
func (n *Net) Alive(id RequestID) bool {
	req := n.requests.get(id)
	return req != nil && !req.cancelled && n.conns.all[req.conn].stage == stageOpen
}

// Slices appends the request's bytes, without its length word, to dst. They are
// valid until Release, or until the Step in which the connection goes.
func (n *Net) Slices(id RequestID, dst [][]byte) [][]byte {
	req := n.requests.get(id)
	if req == nil {
		return dst
	}
	for i := req.bytes.first; i != none; i = n.receive.ranges[i].next {
		dst = append(dst, n.receive.bytesOf(&n.receive.ranges[i]))
	}
	return dst
}

// Release says that the request's bytes are no longer needed. It may be called
// again.
func (n *Net) Release(id RequestID) {
	if req := n.requests.get(id); req != nil {
		n.releaseBytes(req)
	}
}

// parse makes requests of what was received, as far as memory and the pipeline
// allow.
func (n *Net) parse(conn *conn) {
	for n.parsable(conn) && conn.stage == stageOpen && !conn.inputClosed && !n.stopping {
		if conn.partial == none {
			if conn.lengthHave < 4 {
				count := uint32(copy(conn.length[conn.lengthHave:], n.receive.bytesOf(&n.receive.ranges[conn.unparsed.first])))
				conn.lengthHave += uint8(count)
				n.receive.consume(conn, count)
				if conn.lengthHave < 4 {
					continue
				}
			}
			if n.malformed(conn) {
				return
			}
			if conn.outstanding >= n.options.PipelineMax {
				return
			}
			if n.receive.bufferPrefix(conn) {
				continue
			}
			if !n.admit(conn) {
				return
			}
		}
		req := &n.requests.all[conn.partial]
		if !conn.unparsed.empty() && req.have < req.need {
			n.receive.assemble(conn, req)
		}
		if req.have == req.need {
			n.deliver(conn, req)
		}
	}
}

// parsable says that parse can make progress.
func (n *Net) parsable(conn *conn) bool {
	if !conn.unparsed.empty() || n.receive.prefixFull(conn) {
		return true
	}
	return conn.partial != none && n.requests.all[conn.partial].have == n.requests.all[conn.partial].need
}

// need is the length of the request that begins.
func (c *conn) need() uint32 {
	return uint32(c.length[0])<<24 | uint32(c.length[1])<<16 | uint32(c.length[2])<<8 | uint32(c.length[3])
}

// malformed says whether the input cannot be a request. The connection is then
// closed after the replies to the requests before it.
func (n *Net) malformed(conn *conn) bool {
	var first [8]byte
	count := copy(first[:], conn.length[:])
	count += copy(first[count:], n.receive.prefixOf(conn)[:conn.prefixBytes])
	if !conn.unparsed.empty() {
		copy(first[count:], n.receive.bytesOf(&n.receive.ranges[conn.unparsed.first]))
	}
	length := lengthOf(first)
	// As a length, the start of a TLS handshake is 353 MiB and more: possible
	// in a very large arena, but not with these bytes after it.
	if length >= headerBytesMin && int(length) <= n.options.RequestBytesMax && !(isTLS(first) && first[5] == 1) {
		return false
	}
	n.stats.ProtocolErrors++
	n.emit(ProtocolError, conn.id(), 0).First = first
	conn.receiveEnded, conn.inputClosed, conn.sendAt = true, true, n.now
	n.conns.schedule(conn)
	return true
}

// bufferPrefix copies the first unparsed range to the prefix buffer, if more of the
// request is to come and the prefix buffer has room for what has. It says whether
// it did.
func (r *receive) bufferPrefix(conn *conn) bool {
	if conn.unparsed.empty() {
		return !r.prefixFull(conn) // or the length was all that came
	}
	first := &r.ranges[conn.unparsed.first]
	if uint32(conn.prefixBytes)+first.length >= min(conn.need(), uint32(r.prefixBytes)+1) {
		return false
	}
	copy(r.prefixOf(conn)[conn.prefixBytes:], r.bytesOf(first))
	conn.prefixBytes += uint16(first.length)
	r.copied += uint64(first.length)
	r.consume(conn, first.length)
	return true
}

// consumePrefix makes the bytes in the prefix buffer the request's first. A
// request that lies in receive buffers has them in a small block before those.
func (r *receive) consumePrefix(conn *conn, req *request) {
	if conn.prefixBytes == 0 {
		return
	}
	if !req.small {
		block, ok := r.small.Get()
		if !ok {
			panic("netring: a request was admitted without a block for its beginning")
		}
		r.add(&req.bytes, bufferRange{none, ^int32(block), 0, 0})
	}
	first := &r.ranges[req.bytes.first]
	first.length = uint32(copy(r.small.Block(int(^first.buffer)).Bytes(), r.prefixOf(conn)[:conn.prefixBytes]))
	req.have, conn.prefixBytes = first.length, 0
	r.copied += uint64(first.length)
}

// assemble adds to the request as much of the first unparsed range as belongs to
// it.
func (r *receive) assemble(conn *conn, req *request) {
	received := r.ranges[conn.unparsed.first]
	count := min(received.length, req.need-req.have)
	received.length = count
	req.have += count
	switch {
	case req.small:
		block := &r.ranges[req.bytes.first]
		copy(r.small.Block(int(^block.buffer)).Bytes()[block.length:], r.bytesOf(&received))
		block.length += count
		r.copied += uint64(count)
	case req.bytes.empty() || r.ranges[req.bytes.last].buffer < 0: // nothing yet, or the prefix
		r.hold(req, received)
	default:
		last := &r.ranges[req.bytes.last]
		filled := r.filled[last.buffer]
		room := uint32(r.bufferBytes) - filled
		if last.offset+last.length == filled && room > 0 {
			copied := uint32(copy(r.buffers.Block(int(last.buffer)).Bytes()[filled:], r.bytesOf(&received)))
			r.filled[last.buffer] += copied
			last.length += copied
			received.offset += copied
			received.length -= copied
			r.copied += uint64(copied)
		}
		if received.length > 0 {
			r.hold(req, received)
		}
	}
	r.consume(conn, count)
}

// hold adds received bytes to a request, with a reference of their own.
func (r *receive) hold(req *request, received bufferRange) {
	r.buffers.Ref(int(received.buffer))
	r.add(&req.bytes, received)
}

// consume takes bytes off the front of what is not parsed yet. They are in its
// first range.
func (r *receive) consume(conn *conn, bytes uint32) {
	front := conn.unparsed.first
	first := &r.ranges[front]
	first.offset += bytes
	first.length -= bytes
	if first.length > 0 {
		return
	}
	conn.unparsed.first = first.next
	if conn.unparsed.first == none {
		conn.unparsed.last = none
	}
	r.drop(front)
	r.unparsed--
}

// deliver hands a whole request to the caller.
func (n *Net) deliver(conn *conn, req *request) {
	conn.partial = none
	req.stage = requestDelivered
	pinned := 0
	for i := req.bytes.first; i != none; i = n.receive.ranges[i].next {
		if n.receive.ranges[i].buffer >= 0 {
			pinned++
		}
	}
	if pinned *= n.receive.bufferBytes; !req.small && pinned < req.charged {
		n.admission.refund(req, req.charged-pinned)
	}
	if conn.last == none {
		conn.first = req.index
	} else {
		n.requests.all[conn.last].next = req.index
	}
	conn.last = req.index
	conn.outstanding++
	n.receive.unreleased++
	n.stats.Requests++
	n.stats.RequestBytes += uint64(req.need)
	n.emit(RequestReady, conn.id(), req.id())
}

// releaseBytes gives back the memory that holds a request's bytes.
func (n *Net) releaseBytes(req *request) {
	if !req.bytes.empty() && req.stage != requestPartial {
		n.receive.unreleased--
	}
	for i := req.bytes.first; i != none; {
		next := n.receive.ranges[i].next
		n.receive.drop(i)
		i = next
	}
	req.bytes = noRanges
	if req.unparsed {
		req.unparsed = false
		n.receive.unparsed--
	}
	n.admission.refund(req, req.charged)
}

// freeRequest ends a request, whatever its stage.
func (n *Net) freeRequest(req *request) {
	n.releaseBytes(req)
	n.freeReply(req)
	req.stage, req.next = requestFree, n.requests.free
	n.requests.free = req.index
	n.requests.freeCount++
}
