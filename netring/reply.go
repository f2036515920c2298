package netring

import (
	"unsafe"

	"github.com/tailbound/tailbound/ioring"
)

// reply is the answer to a frame: its length word and bytes in reply blocks, and
// attached memory that belongs to the caller until Sent.
//
// Invariant: the extents from head on are what has not left yet.
type reply struct {
	begun      bool
	attached   bool // the last piece is
	pieces     int  // attached
	lent       int  // bytes attached
	large      int  // blocks, where there are several
	user       uint64
	total      uint32 // bytes, without the length word
	copied     int    // bytes handed out by Bytes
	copiedMax  int
	blockFirst int32 // reserved reply blocks
	block      int32 // the one being filled
	blockUsed  int
	head       int32 // extents
	tail       int32
}

var emptyReply = reply{blockFirst: none, block: none, head: none, tail: none}

// extent is a piece of a reply.
type extent struct {
	p    []byte
	next int32
}

// replyBlocksFor is how many blocks n bytes, and their length before them, may
// need when they are handed out in contiguous pieces of at most a block each: any
// two neighbours hold more than one block together.
func replyBlocksFor(n int) int {
	if n > 0 {
		n += 4
	}
	return 2*(n/(replyBlockBytes+1)) + min(1, n%(replyBlockBytes+1))
}

// Begin reserves reply memory for what Bytes will hand out. False: none now
// (try again after a Sent, or after a Drop, which may have made this frame its
// connection's first), or f is gone (see Alive). Begin(f, 0) never wants for
// memory.
//
// Half of the memory is for replies whose turn it is on their connection: the
// others only wait, so they must not leave those without. A reply that needs
// more than that half could wait for ever; its connection is closed.
func (n *Net) Begin(f RequestID, copiedBytesMax int) bool {
	i, y := n.taken(f)
	if y == nil || !n.Alive(f) {
		return false
	}
	if y.begun {
		panic("netring: Begin twice")
	}
	blocks, leave := replyBlocksFor(copiedBytesMax), 0
	first := n.conns[y.conn].first
	for first != none && n.frames[first].stage == frameDropped {
		first = n.frames[first].next
	}
	if first != i {
		leave = (n.replies.Count() + 1) / 2
	}
	if blocks > (n.replies.Count()+1)/2 {
		n.stats.RepliesTooLarge++
		n.kill(y.conn)
		return false
	}
	if blocks > 0 && n.replies.Free()-blocks < leave {
		n.stats.NoReplyMemory++
		n.Expedite()
		return false
	}
	if blocks > 1 {
		y.large = blocks
		n.large += blocks
	}
	for range blocks {
		k, _ := n.replies.Get()
		n.nextOf[k] = y.blockFirst
		y.blockFirst = int32(k)
	}
	y.begun, y.copiedMax, y.block = true, copiedBytesMax, y.blockFirst
	length := n.lengths.Slice(int(i)*4, 4)
	if blocks > 0 {
		length, y.blockUsed = n.replies.Block(int(y.block)).Slice(0, 4), 4
	}
	n.extend(&y.reply, length.Bytes())
	return true
}

// Spare says whether a reply that copies and attaches so much leaves others
// theirs: those of several blocks have half of the reply memory, and there are
// as many pieces as may be attached. It is asked for replies that peers may be
// slow to take.
func (n *Net) HasReplyRoom(copiedBytes, attached int) bool {
	blocks, half := replyBlocksFor(copiedBytes), n.replies.Count()/2
	return (blocks <= 1 || n.large+min(blocks, half) <= half) && n.attached+attached <= n.o.AttachedMax
}

// Leaves says whether a reply that copies so much leaves an eighth of the reply
// memory. It is asked for replies that may wait for a disk.
func (n *Net) CanReserve(copiedBytes int) bool {
	all := n.replies.Count()
	return n.replies.Free()-min(replyBlocksFor(copiedBytes), all/2) >= all/8
}

// Turn says that all requests before f on its connection have been answered, or
// f is gone.
func (n *Net) IsNext(f RequestID) bool {
	i, y := n.taken(f)
	if y == nil {
		return true
	}
	for k := n.conns[y.conn].first; k != none && k != i; k = n.frames[k].next {
		if n.frames[k].stage < frameReady {
			return false
		}
	}
	return true
}

// First says that every reply before f's on its connection has left, or f is
// gone.
func (n *Net) IsHead(f RequestID) bool {
	i, y := n.taken(f)
	if y == nil {
		return true
	}
	k := n.conns[y.conn].first
	for k != none && n.frames[k].stage == frameDropped {
		k = n.frames[k].next
	}
	return k == i
}

// Attached is how many bytes are attached to replies that the connection has
// not taken.
func (n *Net) Attached(c ConnID) int {
	if _, x := n.conn(c); x != nil {
		return x.attached
	}
	return 0
}

// Hurry says that somebody waits for what replies hold: from now on until
// one of some size has left, peers are given less time to take theirs.
func (n *Net) Expedite() { n.hurried = true }

// Bytes hands out the next k bytes of the reply, contiguous, to be filled in
// before Send. 0 <= k <= 4096, and no more in all than Begin reserved. For a
// request that is gone they are nobody's.
func (n *Net) Bytes(f RequestID, k int) []byte {
	_, y := n.taken(f)
	if y == nil {
		return n.scratch.Bytes()[:k]
	}
	if !y.begun || y.copied+k > y.copiedMax || k < 0 || k > replyPieceMax {
		panic("netring: more reply bytes than were begun")
	}
	if k == 0 {
		return nil
	}
	if y.blockUsed+k > replyBlockBytes {
		y.block, y.blockUsed = n.nextOf[y.block], 0
	}
	p := n.replies.Block(int(y.block)).Slice(y.blockUsed, k).Bytes()
	y.blockUsed += k
	y.copied += k
	y.total += uint32(k)
	if e := &n.extents[y.tail]; unsafe.Pointer(unsafe.SliceData(p)) == unsafe.Add(unsafe.Pointer(unsafe.SliceData(e.p)), len(e.p)) && !y.attached {
		e.p = unsafe.Slice(unsafe.SliceData(e.p), len(e.p)+k)
	} else {
		n.extend(&y.reply, p)
	}
	y.attached = false
	return p
}

// Attach adds v, arena memory, to the reply without copying it. It is lent
// until Sent.
func (n *Net) Attach(f RequestID, v []byte) {
	_, y := n.taken(f)
	if y == nil || len(v) == 0 {
		return
	}
	if !y.begun {
		panic("netring: Attach before Begin")
	}
	y.total += uint32(len(v))
	y.attached = true
	y.pieces++
	y.lent += len(v)
	n.attached++
	n.conns[y.conn].attached += len(v)
	n.extend(&y.reply, v)
}

// Send completes the reply. There will be one Sent event with user, at once
// where f is gone already.
func (n *Net) Send(f RequestID, user uint64) {
	i, y := n.taken(f)
	if y == nil {
		n.tell(Sent, 0, f, user)
		return
	}
	if !y.begun {
		panic("netring: Send before Begin")
	}
	n.releaseBytes(i)
	y.user = user
	y.stage = frameReady
	length := n.extents[y.head].p
	length[0], length[1], length[2], length[3] = byte(y.total>>24), byte(y.total>>16), byte(y.total>>8), byte(y.total)
	n.stats.Replies++
	n.wakeConn(y.conn)
}

// Drop says that f gets no reply.
func (n *Net) Drop(f RequestID) {
	i, y := n.taken(f)
	if y == nil {
		return
	}
	n.releaseBytes(i)
	n.freeReply(i)
	y.stage = frameDropped
	n.stats.Dropped++
	n.wakeConn(y.conn)
}

// extend adds a piece to a reply.
func (n *Net) extend(r *reply, p []byte) {
	if n.freeE == none {
		from := len(n.extents)
		n.extents = append(n.extents, make([]extent, from/4+1)...)
		for i := len(n.extents) - 1; i >= from; i-- {
			n.extents[i].next = n.freeE
			n.freeE = int32(i)
		}
		n.stats.AttachedGrown++
	}
	e := n.freeE
	n.freeE = n.extents[e].next
	n.extents[e] = extent{p, none}
	if r.tail == none {
		r.head = e
	} else {
		n.extents[r.tail].next = e
	}
	r.tail = e
}

func (n *Net) freeReply(f int32) {
	r := &n.frames[f].reply
	n.attached -= r.pieces
	n.large -= r.large
	n.conns[n.frames[f].conn].attached -= r.lent
	n.hurried = n.hurried && r.pieces == 0 && r.large == 0
	for r.head != none {
		n.dropExtent(r)
	}
	for b := r.blockFirst; b != none; {
		next := n.nextOf[b]
		n.replies.Unref(int(b))
		b = next
	}
	*r = emptyReply
}

func (n *Net) dropExtent(r *reply) {
	e := r.head
	r.head = n.extents[e].next
	if r.head == none {
		r.tail = none
	}
	n.extents[e] = extent{nil, n.freeE}
	n.freeE = e
}

// send pushes the replies that are next and complete, as many as one vector
// takes. False: the ring is full.
func (n *Net) send(i int32) bool {
	x := &n.conns[i]
	if x.sending {
		return true
	}
	pieces := 0
	for f := x.first; f != none && n.frames[f].stage >= frameReady && pieces < vectorPieces; f = n.frames[f].next {
		for e := n.frames[f].head; e != none && pieces < vectorPieces; e = n.extents[e].next {
			pieces++
		}
	}
	if pieces == 0 {
		return true
	}
	if n.ring.Room() == 0 {
		return false
	}
	vector := n.own.Slice(int(i)*ioring.VectorBytes(ownPieces), ioring.VectorBytes(ownPieces))
	x.vector = none
	if pieces > ownPieces {
		if big, ok := n.vectors.Get(); ok {
			vector, x.vector = n.vectors.Block(big), int32(big)
		} else {
			pieces = ownPieces
		}
	}
	k := 0
	x.inSend = 0
	for f := x.first; k < pieces; f = n.frames[f].next {
		x.inSend++
		if x.inSend > 1 && n.frames[f].stage == frameReady {
			n.stats.Gathered++
		}
		for e := n.frames[f].head; e != none && k < pieces; e = n.extents[e].next {
			ioring.SetPiece(vector, k, n.extents[e].p)
			k++
		}
	}
	if !n.ring.Push(ioring.Op{
		Token: ioring.MakeToken(kindSend, x.generation, uint32(i)), Code: ioring.Send, File: x.file,
		Arg: uint64(pieces), Buf: vector.Slice(0, ioring.VectorBytes(pieces)),
	}) {
		n.freeVector(x)
		return false
	}
	x.sending, x.sendAt = true, n.now
	if !x.owing {
		x.owing, x.takenAt, x.taken = true, n.now, 0
	}
	n.stats.SendOps++
	return true
}

func (n *Net) freeVector(x *conn) {
	if x.vector != none {
		n.vectors.Unref(int(x.vector))
		x.vector = none
	}
}

// sendDone: the kernel took some of it, or failed.
func (n *Net) sendDone(i int32, c ioring.Completion) {
	x := &n.conns[i]
	x.sending = false
	n.freeVector(x)
	left := int(c.Result)
	if left < 0 {
		if ioring.Judge(ioring.Send, c.Result) != ioring.Again {
			n.kill(i)
		}
		left = 0
	}
	if left > 0 {
		x.activeAt = n.now
		n.stats.SentBytes += uint64(left)
		if x.taken += left; x.taken >= takenBytesMin {
			x.takenAt, x.taken = n.now, 0
		}
	}
	for ; x.inSend > 0; x.inSend-- {
		y := &n.frames[x.first]
		for y.head != none {
			e := &n.extents[y.head]
			if left < len(e.p) {
				e.p = e.p[left:]
				left = 0
				break
			}
			left -= len(e.p)
			n.dropExtent(&y.reply)
		}
		if y.head != none {
			n.stats.PartialSends++
			break
		}
		x.takenAt, x.taken = n.now, 0
		n.shift(i)
	}
	x.inSend = 0
	x.owing = x.first != none && n.frames[x.first].stage == frameReady
	if left > 0 {
		panic("netring: more sent than was pushed")
	}
}

// shiftDropped takes off the frames at the front that get no reply.
func (n *Net) shiftDropped(i int32) {
	x := &n.conns[i]
	for !x.sending && x.first != none && n.frames[x.first].stage == frameDropped {
		n.shift(i)
	}
}

// shift takes the first frame of a connection off, with its Sent.
func (n *Net) shift(i int32) {
	x := &n.conns[i]
	f := x.first
	y := &n.frames[f]
	x.first = y.next
	if x.first == none {
		x.last = none
	}
	x.outstanding--
	if y.stage == frameReady {
		n.tell(Sent, n.connID(i), n.frameID(f), y.user)
	}
	n.freeFrameSlot(f)
}

// forgetDoomed takes off the requests that came after a Close.
func (n *Net) forgetDoomed(i int32) {
	x := &n.conns[i]
	for f, before := x.first, none; f != none; before, f = f, n.frames[f].next {
		if !n.frames[f].doomed {
			continue
		}
		x.last = before
		if before == none {
			x.first = none
		} else {
			n.frames[before].next = none
		}
		for f != none {
			next := n.frames[f].next
			if n.frames[f].stage == frameReady { // sent after the Close
				n.tell(Sent, n.connID(i), n.frameID(f), n.frames[f].user)
			}
			n.freeFrameSlot(f)
			x.outstanding--
			f = next
		}
		return
	}
}

// forgetReplies takes everything off that no Send in flight reads.
func (n *Net) forgetReplies(i int32) {
	x := &n.conns[i]
	keep := 0
	if x.sending {
		keep = x.inSend
	}
	f, before := x.first, none
	for range keep {
		before, f = f, n.frames[f].next
	}
	if f == none {
		return
	}
	x.last = before
	if before == none {
		x.first = none
	} else {
		n.frames[before].next = none
	}
	for f != none {
		next := n.frames[f].next
		if n.frames[f].stage == frameReady {
			n.tell(Sent, n.connID(i), n.frameID(f), n.frames[f].user)
		}
		n.freeFrameSlot(f)
		x.outstanding--
		f = next
	}
}
