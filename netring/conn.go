package netring

import (
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// A connection is this function:
//
//	opened()
//	for !ended {
//		chunk := await receive()
//		for frame in cut(chunk) { await admission(frame); surface(frame) }
//	}
//	// meanwhile, in the order of the frames
//	for frame { await answered(frame); await send(frame); sent(frame) }
//	shutdown(); await receive, send, shutdown; await close(); closed()
//
// Any failure goes to the last line, with Sent for what was answered.
//
// Invariant: outstanding == frames on the list first..last; what is on it has
// been surfaced.
type conn struct {
	generation uint32
	stage      stage
	queued     bool // in Net.runs
	listener   uint8
	file       uint32
	next       int32 // free list

	// receive
	receiving  bool // a Recv is in flight
	own        bool // into the stash, once
	cancelRecv opStage
	hungry     bool // waits for buffers after ENOBUFS
	ended      bool // nothing more is received: end of stream, Close, Stop
	deaf       bool // nothing more is surfaced either: Close, ProtocolError
	told       bool // Close was called
	lengthHave uint8
	length     [4]byte // of the frame that begins
	stashed    uint16  // bytes of it that lie in the connection's stash
	frame      int32   // being put together
	chunk      int32   // received, not yet cut; waits for admission or for the pipeline
	chunkLast  int32
	waits      class // in Net.waiting
	waitNext   int32
	waitPrev   int32
	progressAt ioring.Instant
	activeAt   ioring.Instant

	// reply
	first, last int32 // frames surfaced and not yet answered on the wire, in order
	outstanding int
	sending     bool
	inSend      int // how many frames, from first on, the Send in flight reads
	vector      int32
	sendAt      ioring.Instant
	owing       bool           // it has not taken all that was to be sent
	takenAt     ioring.Instant // when it last had taken enough of that: takenBytesMin, or a whole reply
	taken       int            // bytes since
	attached    int            // bytes attached to its replies

	// close
	shutdown   opStage
	cancelSend opStage
	cancels    int // in flight
}

type stage uint8

const (
	stageFree    stage = iota
	stageOpen          // or ended, with replies to come
	stageDying         // everything is being taken back; waits for operations in flight
	stageClosing       // the Close is in flight
)

// opStage is where an operation stands that is asked for at most once.
type opStage uint8

const (
	stageNone opStage = iota
	stageAsked
	stageDoneOp
)

// stashBytes is how many that are: a small block takes them.
func (n *Net) stashBytes() int { return min(stashBytesMax, n.small.Size()) }

// stashDone says that the stash holds all that may come of a frame before that
// is admitted.
func (n *Net) stashDone(x *conn) bool {
	return x.frame == none && x.lengthHave == 4 && uint32(x.stashed) >= min(x.need(), uint32(n.stashBytes()))
}

// stashRoom is where a Recv into the stash puts what is next: what is missing of
// the length, or what may come before the frame is admitted.
func (n *Net) stashRoom(i int32) mem.Block {
	x, k := &n.conns[i], n.stashBytes()
	at := int(i) * k
	if x.lengthHave < 4 {
		return n.stash.Slice(at, 4-int(x.lengthHave))
	}
	return n.stash.Slice(at+int(x.stashed), min(int(x.need()), k)-int(x.stashed))
}

// heard takes k bytes that were received into the stash.
func (n *Net) heard(i int32, k int) {
	x := &n.conns[i]
	if x.lengthHave < 4 {
		copy(x.length[x.lengthHave:], n.stashOf(i)[:k])
		x.lengthHave += uint8(k)
	} else {
		x.stashed += uint16(k)
		n.stats.Copied += uint64(k)
	}
	if x.lengthHave == 4 && n.noise(i) {
		return
	}
	n.cut(i)
}

// stashOf is where the first bytes of a connection's next frame wait.
func (n *Net) stashOf(i int32) []byte {
	k := n.stashBytes()
	return n.stash.Slice(int(i)*k, k).Bytes()
}

func (n *Net) connID(i int32) ConnID {
	return ConnID(n.conns[i].generation)<<32 | ConnID(i)
}

func (n *Net) conn(c ConnID) (int32, *conn) {
	i := uint32(c)
	if int(i) >= len(n.conns) {
		return none, nil
	}
	x := &n.conns[i]
	if x.stage == stageFree || x.generation != uint32(c>>32) {
		return none, nil
	}
	return int32(i), x
}

// Listener is the number of the listening socket by which a connection came, 0
// for one that is gone.
func (n *Net) Listener(c ConnID) int {
	if _, x := n.conn(c); x != nil {
		return int(x.listener)
	}
	return 0
}

// Peer is whose connection it is, zero for one that is gone.
func (n *Net) Peer(c ConnID) ioring.Address {
	if i, x := n.conn(c); x != nil {
		return n.peers[i]
	}
	return ioring.Address{}
}

// Close closes the connection after the replies to its requests up to the last
// one that was answered, by Send or Drop, so far. Later requests are
// forgotten: they are no longer Alive.
func (n *Net) Close(c ConnID) {
	i, x := n.conn(c)
	if x == nil || x.told {
		return
	}
	x.ended, x.deaf, x.told = true, true, true
	x.sendAt = n.now
	answered := none
	for f := x.first; f != none; f = n.frames[f].next {
		if n.frames[f].stage >= frameReady {
			answered = f
		}
	}
	f := x.first
	if answered != none {
		f = n.frames[answered].next
	}
	for ; f != none; f = n.frames[f].next {
		n.frames[f].doomed = true
	}
	n.wakeConn(i)
}

// Abort says that f can get no reply, and so nothing that came after it may: who
// waits for one takes the first that comes for it. The connection closes after
// the replies to what came before.
func (n *Net) Abort(f RequestID) {
	i, y := n.taken(f)
	if y == nil {
		return
	}
	at := y.conn
	n.Drop(f)
	n.Close(n.connID(at))
	for later := n.frames[i].next; later != none; later = n.frames[later].next {
		n.frames[later].doomed = true
	}
}

// kill ends a connection at once: what it holds is taken back in this Step or
// the next.
func (n *Net) kill(i int32) {
	x := &n.conns[i]
	if x.stage == stageOpen {
		x.stage = stageDying
		n.wakeConn(i)
	}
}

// run does for one connection what has become possible. False: the ring is
// full, it has to run again.
func (n *Net) run(i int32) bool {
	x := &n.conns[i]
	if x.stage == stageOpen {
		n.shiftDropped(i)
		if x.deaf {
			n.forgetInput(i)
			n.forgetDoomed(i)
		} else {
			n.cut(i)
		}
	}
	if x.stage == stageOpen {
		if !n.send(i) {
			return false
		}
		if x.ended && x.outstanding == 0 && !n.canCut(i) {
			x.stage = stageDying
		}
	}
	if x.stage == stageOpen {
		return n.receive(i)
	}
	if x.stage == stageDying {
		return n.die(i)
	}
	return true
}

// canCut says whether what was received before the end of the stream may yet
// become a request.
func (n *Net) canCut(i int32) bool {
	x := &n.conns[i]
	return !x.deaf && !n.stopping && (x.chunk != none || n.stashDone(x))
}

// wantsInput says whether the connection may receive: it has room for what
// comes.
func (x *conn) wantsInput(pipelineMax int) bool {
	return !x.ended && x.chunk == none && x.waits == noClass && (x.outstanding < pipelineMax || x.frame != none)
}

// receive keeps a Recv in flight where the connection wants input, and cancels
// it where not. Behind the gate it goes into the stash.
func (n *Net) receive(i int32) bool {
	x := &n.conns[i]
	token := ioring.MakeToken(kindRecv, x.generation, uint32(i))
	wants, own := x.wantsInput(n.o.PipelineMax) && !n.stashDone(x), n.gated && x.frame == none
	switch {
	case wants && !x.receiving:
		op := ioring.Op{Token: token, Code: ioring.Recv, File: x.file}
		switch {
		case own:
			op.Buf = n.stashRoom(i)
		case n.inRing == 0:
			x.hungry, n.hungry = true, true
			return true
		case x.hungry:
			return true
		}
		if !n.ring.Push(op) {
			return false
		}
		x.receiving, x.own, x.cancelRecv, x.progressAt = true, own, stageNone, n.now
	case (!wants || own && !x.own) && x.receiving && x.cancelRecv == stageNone:
		return n.cancel(i, token, &x.cancelRecv)
	}
	return true
}

func (n *Net) cancel(i int32, token ioring.Token, at *opStage) bool {
	x := &n.conns[i]
	if !n.ring.Push(ioring.Op{Token: ioring.MakeToken(kindCancel, x.generation, uint32(i)), Code: ioring.Cancel, Arg: uint64(token)}) {
		return false
	}
	*at = stageAsked
	x.cancels++
	return true
}

// received takes a completion of the Recv.
func (n *Net) received(i int32, c ioring.Completion) {
	x := &n.conns[i]
	if c.Flags&ioring.FlagMore == 0 {
		x.receiving = false
	}
	var b mem.Block
	if c.Flags&ioring.FlagBuffer != 0 {
		b = n.buffers.Block(int(c.BufferID()))
		n.inRing--
		n.stats.BuffersFreeLow = min(n.stats.BuffersFreeLow, n.inRing+n.buffers.Free())
	}
	if c.Result > 0 && x.own {
		x.activeAt, x.progressAt = n.now, n.now
		if !x.deaf && !n.stopping && x.stage == stageOpen {
			n.heard(i, int(c.Result))
		}
		return
	}
	if c.Result > 0 && !b.IsZero() {
		if int(c.Result) > b.Len() {
			panic("netring: more received than the buffer holds")
		}
		n.fill[c.BufferID()] = uint32(c.Result)
		x.activeAt, x.progressAt = n.now, n.now
		if x.deaf || n.stopping || x.stage != stageOpen {
			n.buffers.Unref(int(c.BufferID()))
			return
		}
		n.keepChunk(i, view{none, int32(c.BufferID()), 0, uint32(c.Result)})
		n.cut(i)
		return
	}
	if !b.IsZero() {
		n.buffers.Unref(int(c.BufferID()))
	}
	if c.Flags&ioring.FlagMore != 0 {
		return
	}
	switch verdict := ioring.Judge(ioring.Recv, c.Result); {
	case c.Result == 0: // the end of the stream
		x.ended = true
		x.sendAt = n.now
	case verdict == ioring.NoBuffers:
		n.stats.NoBuffers++
		x.hungry, n.hungry = true, true
	case verdict == ioring.Cancelled, verdict == ioring.Again:
	default: // the connection is broken
		n.kill(i)
	}
}

// keepChunk puts received bytes behind those that wait to be cut; small ones
// into the room that the last chunk's buffer has left.
func (n *Net) keepChunk(i int32, v view) {
	x := &n.conns[i]
	if x.chunkLast != none && int(v.n) < n.o.ReceiveBufferBytes/2 {
		w := &n.views[x.chunkLast]
		at := n.fill[w.buffer]
		if int(at+v.n) <= n.o.ReceiveBufferBytes {
			copy(n.buffers.Block(int(w.buffer)).Bytes()[at:], n.bytesOf(&v))
			n.fill[w.buffer] += v.n
			w.n += v.n
			n.stats.Copied += uint64(v.n)
			n.buffers.Unref(int(v.buffer))
			return
		}
	}
	n.chain(&x.chunk, &x.chunkLast, n.newView(v.buffer, v.off, v.n))
	n.uncut++
}

// die takes back everything a connection holds, what is in a Send in flight
// excepted, and closes the socket when the last operation completed.
func (n *Net) die(i int32) bool {
	x := &n.conns[i]
	n.unwait(i)
	n.forgetInput(i)
	x.ended, x.deaf = true, true
	n.forgetReplies(i)
	if x.shutdown == stageNone {
		if !n.ring.Push(ioring.Op{Token: ioring.MakeToken(kindShutdown, x.generation, uint32(i)), Code: ioring.Shutdown, File: x.file}) {
			return false
		}
		x.shutdown = stageAsked
	}
	if x.receiving && x.cancelRecv == stageNone && !n.cancel(i, ioring.MakeToken(kindRecv, x.generation, uint32(i)), &x.cancelRecv) {
		return false
	}
	if x.sending && x.cancelSend == stageNone && !n.cancel(i, ioring.MakeToken(kindSend, x.generation, uint32(i)), &x.cancelSend) {
		return false
	}
	if x.receiving || x.sending || x.cancels > 0 || x.shutdown != stageDoneOp {
		return true
	}
	if !n.ring.Push(ioring.Op{Token: ioring.MakeToken(kindClose, x.generation, uint32(i)), Code: ioring.Close, File: x.file}) {
		return false
	}
	x.stage = stageClosing
	return true
}

// gone: the socket is closed.
func (n *Net) gone(i int32) {
	x := &n.conns[i]
	n.tell(Closed, n.connID(i), 0, 0)
	x.stage, x.next = stageFree, n.freeConn
	n.freeConn = i
	n.live--
	n.stats.ClosedConns++
}

// runQueue holds connections that may have something to do, each once.
type runQueue struct {
	all     []int32
	head, n int
}

func (n *Net) wakeConn(i int32) {
	x := &n.conns[i]
	if x.queued {
		return
	}
	x.queued = true
	q := &n.runs
	q.all[(q.head+q.n)%len(q.all)] = i
	q.n++
}

func (q *runQueue) pop() int32 {
	i := q.all[q.head]
	q.head = (q.head + 1) % len(q.all)
	q.n--
	return i
}
