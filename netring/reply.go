package netring

import (
	"unsafe"

	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// reply is the answer to a request: its length word and bytes in reply blocks,
// and attached memory that belongs to the caller again after Sent. It is this
// function:
//
//	begin(); for more { fill in bytes or attach }; send()
//	await every reply before it on its connection
//	for left > 0 { left -= await Send(the slices of this and the next replies) }
//	sent()
//
// Invariant: the slices from head on are what has not left yet.
type reply struct {
	begun          bool
	lastAttached   bool // the last slice is attached
	attachedSlices int
	attachedBytes  int
	multiBlock     int // its blocks, where it has several
	user           uint64
	total          uint32 // bytes, without the length word
	copied         int    // bytes that Bytes handed out
	copiedMax      int
	blockFirst     int32 // reserved reply blocks
	block          int32 // the one being filled
	blockUsed      int
	head, tail     int32 // slices
}

var emptyReply = reply{blockFirst: none, block: none, head: none, tail: none}

// replySlice is a contiguous part of a reply.
type replySlice struct {
	bytes []byte
	next  int32
}

// replies is the memory that replies are made of.
type replies struct {
	blocks    *mem.Pool
	nextBlock []int32   // by block: the reply's next one
	lengths   mem.Block // length words of replies without a block, by request
	scratch   mem.Block // what Bytes hands out for a request that is gone

	slices      []replySlice
	freeSlice   int32
	freshSlices mem.Fresh
	grown       uint64 // how often slices had to grow

	vectors     *mem.Pool // large ones
	connVectors mem.Block // a vector of connVectorSlices for each connection, so that each can always send

	attached   int  // slices attached to replies that have not left
	multiBlock int  // blocks of replies that have several
	expedited  bool // requests wait for memory that replies hold
}

const (
	replySliceMax = 4096 // bytes that Bytes hands out at once
	// Blocks are a cache line more than a power of two, so that their first
	// bytes, which are all there is of most requests and answers, do not all lie
	// in the same few sets of a processor's caches.
	blockSkew        = 64
	replyBlockBytes  = replySliceMax + blockSkew // a slice, and a reply's length before it
	vectorSlices     = 1024                      // the most slices in a Send
	connVectorSlices = 8                         // in a connection's own vector
)

// replyBlocksFor is the most blocks that the given bytes and the length before
// them can need when they are handed out in slices of at most a block: any two
// neighbouring blocks together hold more than one block's bytes.
func replyBlocksFor(bytes int) int {
	if bytes > 0 {
		bytes += 4
	}
	return 2*(bytes/(replyBlockBytes+1)) + min(1, bytes%(replyBlockBytes+1))
}

// ReplySlack returns how many more bytes than these a reply can have from Begin without
// taking another block.
func ReplySlack(bytes int) int {
	rest := (bytes + 4) % (replyBlockBytes + 1)
	if bytes == 0 || rest == 0 {
		return 0
	}
	return replyBlockBytes - rest
}

// Begin reserves reply memory for what Bytes will hand out. False: there is not
// enough now (try again after a Sent, or after a Drop, which may have made this
// request its connection's first), or the request is gone (see Alive). Begin(id, 0)
// always has its memory.
//
// Half of the memory is kept for replies that are next on their connection: other
// replies can only wait, so they must not take it all. A reply that needs more
// than that half could wait for ever; its connection is closed.
func (n *Net) Begin(id RequestID, copiedBytesMax int) bool {
	req := n.requests.get(id)
	if req == nil || !n.Alive(id) {
		return false
	}
	if req.begun {
		panic("netring: Begin twice")
	}
	pool := n.replies.blocks
	blocks, leave := replyBlocksFor(copiedBytesMax), 0
	if n.requests.head(&n.conns.all[req.conn]) != req.index {
		leave = (pool.Count() + 1) / 2
	}
	if blocks > (pool.Count()+1)/2 {
		n.stats.RepliesTooLarge++
		n.conns.terminate(&n.conns.all[req.conn])
		return false
	}
	if blocks > 0 && pool.Free()-blocks < leave {
		n.stats.NoReplyMemory++
		n.Expedite()
		return false
	}
	if blocks > 1 {
		req.multiBlock = blocks
		n.replies.multiBlock += blocks
	}
	for range blocks {
		block, _ := pool.Get()
		n.replies.nextBlock[block] = req.blockFirst
		req.blockFirst = int32(block)
	}
	req.begun, req.copiedMax, req.block = true, copiedBytesMax, req.blockFirst
	length := n.replies.lengths.Slice(int(req.index)*4, 4)
	if blocks > 0 {
		length, req.blockUsed = pool.Block(int(req.block)).Slice(0, 4), 4
	}
	n.replies.add(&req.reply, length.Bytes())
	return true
}

// HasReplyRoom says whether a reply that copies and attaches so much leaves room
// for others: replies of several blocks share half of the reply memory, and all
// replies share AttachedMax. It is asked for replies that peers may be slow to
// take.
func (n *Net) HasReplyRoom(copiedBytes, attached int) bool {
	blocks, half := replyBlocksFor(copiedBytes), n.replies.blocks.Count()/2
	return (blocks <= 1 || n.replies.multiBlock+min(blocks, half) <= half) && n.replies.attached+attached <= n.options.AttachedMax
}

// CanReserve says whether a reply that copies so much leaves an eighth of the
// reply memory free. It is asked for replies that may wait for a disk.
func (n *Net) CanReserve(copiedBytes int) bool {
	all := n.replies.blocks.Count()
	return n.replies.blocks.Free()-min(replyBlocksFor(copiedBytes), all/2) >= all/8
}

// IsNext says that all requests before this one on its connection have been
// answered, or that it is gone.
func (n *Net) IsNext(id RequestID) bool {
	req := n.requests.get(id)
	if req == nil {
		return true
	}
	for i := n.conns.all[req.conn].first; i != none && i != req.index; i = n.requests.all[i].next {
		if n.requests.all[i].stage < requestAnswered {
			return false
		}
	}
	return true
}

// IsHead says that every reply before this request's on its connection has left,
// or that it is gone.
func (n *Net) IsHead(id RequestID) bool {
	req := n.requests.get(id)
	return req == nil || n.requests.head(&n.conns.all[req.conn]) == req.index
}

// Attached is how many bytes are attached to replies that the connection has
// not taken.
func (n *Net) Attached(id ConnID) int {
	if conn := n.conns.get(id); conn != nil {
		return conn.attachedBytes
	}
	return 0
}

// Expedite says that requests wait for memory that replies hold: until the next
// reply with attached memory or several blocks has left, peers have less time to
// take their replies.
func (n *Net) Expedite() { n.replies.expedited = true }

// Bytes hands out the next count bytes of the reply, contiguous, to be filled in
// before Send: 0 to 4096, and no more in all than Begin reserved. For a request
// that is gone they are scratch memory.
func (n *Net) Bytes(id RequestID, count int) []byte {
	req := n.requests.get(id)
	if req == nil {
		return n.replies.scratch.Bytes()[:count]
	}
	if !req.begun || req.copied+count > req.copiedMax || count < 0 || count > replySliceMax {
		panic("netring: more reply bytes than were begun")
	}
	if count == 0 {
		return nil
	}
	if req.blockUsed+count > replyBlockBytes {
		req.block, req.blockUsed = n.replies.nextBlock[req.block], 0
	}
	out := n.replies.blocks.Block(int(req.block)).Slice(req.blockUsed, count).Bytes()
	req.blockUsed += count
	req.copied += count
	req.total += uint32(count)
	last := &n.replies.slices[req.tail]
	if !req.lastAttached && unsafe.Pointer(unsafe.SliceData(out)) == unsafe.Add(unsafe.Pointer(unsafe.SliceData(last.bytes)), len(last.bytes)) {
		last.bytes = unsafe.Slice(unsafe.SliceData(last.bytes), len(last.bytes)+count)
	} else {
		n.replies.add(&req.reply, out)
	}
	req.lastAttached = false
	return out
}

// Attach adds arena memory to the reply without copying it. It is lent until
// Sent.
func (n *Net) Attach(id RequestID, bytes []byte) {
	req := n.requests.get(id)
	if req == nil || len(bytes) == 0 {
		return
	}
	if !req.begun {
		panic("netring: Attach before Begin")
	}
	req.total += uint32(len(bytes))
	req.lastAttached = true
	req.attachedSlices++
	req.attachedBytes += len(bytes)
	n.replies.attached++
	n.conns.all[req.conn].attachedBytes += len(bytes)
	n.replies.add(&req.reply, bytes)
}

// Send completes the reply. There will be one Sent event with user, at once
// where the request is gone already.
func (n *Net) Send(id RequestID, user uint64) {
	req := n.requests.get(id)
	if req == nil {
		n.emit(Sent, 0, id).User = user
		return
	}
	if !req.begun {
		panic("netring: Send before Begin")
	}
	n.releaseBytes(req)
	req.user = user
	req.stage = requestAnswered
	length := n.replies.slices[req.head].bytes
	length[0], length[1], length[2], length[3] = byte(req.total>>24), byte(req.total>>16), byte(req.total>>8), byte(req.total)
	n.stats.Replies++
	n.conns.schedule(&n.conns.all[req.conn])
}

// Drop says that the request gets no reply.
func (n *Net) Drop(id RequestID) {
	req := n.requests.get(id)
	if req == nil {
		return
	}
	n.releaseBytes(req)
	n.freeReply(req)
	req.stage = requestDropped
	n.stats.Dropped++
	n.conns.schedule(&n.conns.all[req.conn])
}

// send pushes the replies that are next and complete, as many as one vector
// takes. False: the ring is full.
func (n *Net) send(conn *conn) bool {
	if conn.sending {
		return true
	}
	slices := n.replies.sendable(n.requests.all, conn.first)
	if slices == 0 {
		return true
	}
	if n.ring.Room() == 0 {
		return false
	}
	vector := n.replies.connVectors.Slice(int(conn.slot)*ioring.VectorBytes(connVectorSlices), ioring.VectorBytes(connVectorSlices))
	conn.vector = none
	if slices > connVectorSlices {
		if large, ok := n.replies.vectors.Get(); ok {
			vector, conn.vector = n.replies.vectors.Block(large), int32(large)
		} else {
			slices = connVectorSlices
		}
	}
	filled := 0
	conn.inSend = 0
	for index := conn.first; filled < slices; index = n.requests.all[index].next {
		conn.inSend++
		if conn.inSend > 1 && n.requests.all[index].stage == requestAnswered {
			n.stats.Gathered++
		}
		for slice := n.requests.all[index].head; slice != none && filled < slices; slice = n.replies.slices[slice].next {
			ioring.SetPiece(vector, filled, n.replies.slices[slice].bytes)
			filled++
		}
	}
	if !n.ring.Push(ioring.Op{
		Token: conn.token(kindSend), Code: ioring.Send, File: conn.file,
		Arg: uint64(slices), Buf: vector.Slice(0, ioring.VectorBytes(slices)),
	}) {
		n.replies.freeVector(conn)
		return false
	}
	conn.sending, conn.sendAt = true, n.now
	if !conn.replyPending {
		conn.replyPending, conn.sendProgressAt, conn.sendProgressBytes = true, n.now, 0
	}
	n.stats.SendOps++
	return true
}

// sendable counts the slices of the replies that are complete from first on, up to
// a large vector's.
func (p *replies) sendable(requests []request, first int32) (slices int) {
	for index := first; index != none && requests[index].stage >= requestAnswered && slices < vectorSlices; index = requests[index].next {
		for slice := requests[index].head; slice != none && slices < vectorSlices; slice = p.slices[slice].next {
			slices++
		}
	}
	return slices
}

// sendDone takes the completion of the Send: the kernel took some of it, or none.
func (n *Net) sendDone(conn *conn, completion ioring.Completion) {
	conn.sending = false
	n.replies.freeVector(conn)
	left := int(completion.Result)
	if left < 0 {
		if ioring.Judge(ioring.Send, completion.Result) != ioring.Again {
			n.conns.terminate(conn)
		}
		left = 0
	}
	if left > 0 {
		conn.activeAt = n.now
		n.stats.SentBytes += uint64(left)
		if conn.sendProgressBytes += left; conn.sendProgressBytes >= sendProgressBytesMin {
			n.sendProgressed(conn)
		}
	}
	for ; conn.inSend > 0; conn.inSend-- {
		req := &n.requests.all[conn.first]
		for req.head != none {
			slice := &n.replies.slices[req.head]
			if left < len(slice.bytes) {
				slice.bytes = slice.bytes[left:]
				left = 0
				break
			}
			left -= len(slice.bytes)
			n.replies.dropHead(&req.reply)
		}
		if req.head != none {
			n.stats.PartialSends++
			break
		}
		n.sendProgressed(conn)
		n.removeHead(conn)
	}
	conn.inSend = 0
	conn.replyPending = conn.first != none && n.requests.all[conn.first].stage == requestAnswered
	if left > 0 {
		panic("netring: more sent than was pushed")
	}
}

// sendProgressed restarts the peer's send timeout, except after Stop, when there is one
// for all replies.
func (n *Net) sendProgressed(conn *conn) {
	conn.sendProgressBytes = 0
	if !n.stopping {
		conn.sendProgressAt = n.now
	}
}

// removeHead removes the first request of a connection, with its Sent.
func (n *Net) removeHead(conn *conn) {
	req := &n.requests.all[conn.first]
	conn.first = req.next
	if conn.first == none {
		conn.last = none
	}
	n.end(conn, req)
}

// dropCancelled removes the requests that a Close cancelled. They are the last
// ones.
func (n *Net) dropCancelled(conn *conn) {
	before := none
	for index := conn.first; index != none; before, index = index, n.requests.all[index].next {
		if n.requests.all[index].cancelled {
			n.removeAfter(conn, before)
			return
		}
	}
}

// dropReplies removes all requests that no Send in flight reads.
func (n *Net) dropReplies(conn *conn) {
	keep := 0
	if conn.sending {
		keep = conn.inSend
	}
	next, before := conn.first, none
	for range keep {
		before, next = next, n.requests.all[next].next
	}
	if next != none {
		n.removeAfter(conn, before)
	}
}

// removeAfter removes the requests of a connection after the given one, all of
// them for none.
func (n *Net) removeAfter(conn *conn, before int32) {
	index := conn.first
	if before == none {
		conn.first = none
	} else {
		index = n.requests.all[before].next
		n.requests.all[before].next = none
	}
	conn.last = before
	for index != none {
		next := n.requests.all[index].next
		n.end(conn, &n.requests.all[index])
		index = next
	}
}

// end is the end of a request that was delivered.
func (n *Net) end(conn *conn, req *request) {
	conn.outstanding--
	if req.stage == requestAnswered {
		n.emit(Sent, conn.id(), req.id()).User = req.user
	}
	n.freeRequest(req)
}

// freeReply gives back what the request's reply holds.
func (n *Net) freeReply(req *request) {
	n.conns.all[req.conn].attachedBytes -= req.attachedBytes
	n.replies.free(&req.reply)
}

func (p *replies) free(reply *reply) {
	p.attached -= reply.attachedSlices
	p.multiBlock -= reply.multiBlock
	p.expedited = p.expedited && reply.attachedSlices == 0 && reply.multiBlock == 0
	for reply.head != none {
		p.dropHead(reply)
	}
	for block := reply.blockFirst; block != none; {
		next := p.nextBlock[block]
		p.blocks.Unref(int(block))
		block = next
	}
	*reply = emptyReply
}

func (p *replies) freeVector(conn *conn) {
	if conn.vector != none {
		p.vectors.Unref(int(conn.vector))
		conn.vector = none
	}
}

// add adds a slice to a reply.
func (p *replies) add(reply *reply, bytes []byte) {
	if p.freeSlice == none {
		p.grow()
	}
	added := p.freeSlice
	p.freeSlice = p.freshSlices.Take(added, p.slices[added].next)
	p.slices[added] = replySlice{bytes, none}
	if reply.tail == none {
		reply.head = added
	} else {
		p.slices[reply.tail].next = added
	}
	reply.tail = added
}

// grow makes more slices: callers attach more than Options.AttachedMax.
func (p *replies) grow() {
	from := len(p.slices)
	p.slices = append(p.slices, make([]replySlice, from/4+1)...)
	for i := len(p.slices) - 1; i >= from; i-- {
		p.slices[i].next = p.freeSlice
		p.freeSlice = int32(i)
	}
	p.grown++
}

// dropHead removes the first slice of a reply.
func (p *replies) dropHead(reply *reply) {
	head := reply.head
	reply.head = p.slices[head].next
	if reply.head == none {
		reply.tail = none
	}
	p.slices[head] = replySlice{nil, p.freeSlice}
	p.freeSlice = head
}
