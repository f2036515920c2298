package netring

import (
	"github.com/tailbound/tailbound/ioring"
)

// A frame is this function:
//
//	length := await 4 bytes
//	await more than the stash holds, or all of it
//	await admission(length)
//	for have < need { gather(await chunk) }
//	surface(); await released and answered
//
// Its bytes lie where the kernel put them, except:
//
//   - one that fits in a small block, while there are any, is copied there as it
//     comes: slow and small senders pin no receive buffer;
//   - the last buffer of a frame is filled up from the next one, so that
//     senders of small pieces do not pin a buffer with each. (Tried: only while
//     one of the two is less than half full. It copies less and pins twice as
//     much, so half as much could be admitted.) What comes in full buffers is
//     not copied.
//
// A frame that has come whole in one buffer needs no memory but that: where it is
// not its turn it is surfaced all the same, and its buffer goes on counting as
// one that cannot be cut.
//
// The first bytes of a frame, up to stashBytes, wait in its connection's stash: who announces
// a request and sends no more of it than that has been admitted to nothing.
//
// So all of a frame's buffers but the first and the last, which it may share
// with its neighbours, are full of it: n bytes pin at most n + 2B.
type frame struct {
	generation uint32
	stage      frameStage
	doomed     bool  // its connection was told to close before its answer
	conn       int32 // slot
	next       int32 // free list; the connection's order
	need, have uint32
	first      int32 // views, in order
	last       int32
	small      bool  // in one small block
	uncut      bool  // charged to nothing: its buffer counts as one that cannot be cut
	charged    int   // bytes of budget or reserve
	from       class // which of them
	at         ioring.Instant

	reply
}

// emptyFrame is a frame that begins. It is copied from where it lies: a literal
// with anything variable in it is put together on the stack and read back in
// larger words than it was written in, which waits for all stores before it.
var emptyFrame = frame{stage: framePartial, next: none, first: none, last: none, from: noClass, reply: emptyReply}

type frameStage uint8

const (
	frameFree    frameStage = iota
	framePartial            // being put together
	frameTaken              // surfaced: the caller has it
	frameReady              // the reply is complete
	frameDropped            // there will be none
)

// view is a piece of received bytes: of a frame, or not yet cut into frames.
// It holds a reference on its buffer.
type view struct {
	next   int32
	buffer int32 // receive buffer; small block ^buffer where negative
	off, n uint32
}

// class of a frame, by its length: which queue it waits in.
type class uint8

const (
	classSmall class = iota // at most a receive buffer: has the reserve to itself
	classLarge
	noClass
)

func (n *Net) frameID(f int32) RequestID {
	return RequestID(n.frames[f].generation)<<32 | RequestID(f)
}

// taken is the caller's frame; nil where it is gone.
func (n *Net) taken(f RequestID) (int32, *frame) {
	i := uint32(f)
	if int(i) >= len(n.frames) {
		return none, nil
	}
	x := &n.frames[i]
	if x.generation != uint32(f>>32) || x.stage != frameTaken {
		return none, nil
	}
	return int32(i), x
}

// Alive says whether an answer to f can still be sent: it has had none, and
// its connection is there.
func (n *Net) Alive(f RequestID) bool {
	_, x := n.taken(f)
	return x != nil && !x.doomed && n.conns[x.conn].stage == stageOpen
}

// Pieces appends the request's bytes, without its length word, to dst. They
// are valid until Release, or until the connection is gone, which shows in no
// turn before its Step.
func (n *Net) Slices(f RequestID, dst [][]byte) [][]byte {
	_, x := n.taken(f)
	if x == nil {
		return dst
	}
	for v := x.first; v != none; v = n.views[v].next {
		dst = append(dst, n.bytesOf(&n.views[v]))
	}
	return dst
}

// Release says that the request's bytes are no longer needed. Again is no
// harm.
func (n *Net) Release(f RequestID) {
	if i, x := n.taken(f); x != nil {
		n.releaseBytes(i)
	}
}

// cut makes requests of what was received, as far as memory and the pipeline
// allow.
func (n *Net) cut(i int32) {
	x := &n.conns[i]
	for n.cuttable(x) && x.stage == stageOpen && !x.deaf && !n.stopping {
		if x.frame == none {
			if x.lengthHave < 4 {
				k := uint32(copy(x.length[x.lengthHave:], n.bytesOf(&n.views[x.chunk])))
				x.lengthHave += uint8(k)
				n.eat(i, k)
				if x.lengthHave < 4 {
					continue
				}
			}
			if n.noise(i) {
				return
			}
			if x.outstanding >= n.o.PipelineMax {
				return
			}
			if n.stashes(i) {
				continue
			}
			if !n.begin(i) {
				return
			}
		}
		f := x.frame
		if x.chunk != none && n.frames[f].have < n.frames[f].need {
			n.gather(i, f)
		}
		if n.frames[f].have == n.frames[f].need {
			n.surface(i, f)
		}
	}
}

// cuttable says that there is something to go on with.
func (n *Net) cuttable(x *conn) bool {
	return x.chunk != none || n.stashDone(x) || x.frame != none && n.frames[x.frame].have == n.frames[x.frame].need
}

// stashes puts the first chunk into the stash, where that holds all that has
// come of a frame, and more of it is to come.
func (n *Net) stashes(i int32) bool {
	x := &n.conns[i]
	if x.chunk == none {
		return !n.stashDone(x) // or the length was all
	}
	v := &n.views[x.chunk]
	if uint32(x.stashed)+v.n >= min(x.need(), uint32(n.stashBytes())+1) {
		return false
	}
	copy(n.stashOf(i)[x.stashed:], n.bytesOf(v))
	x.stashed += uint16(v.n)
	n.stats.Copied += uint64(v.n)
	n.eat(i, v.n)
	return true
}

// unstash makes the stashed bytes the frame's first. A frame that lies in
// receive buffers has them in a small block before those.
func (n *Net) unstash(i, f int32) {
	x, y := &n.conns[i], &n.frames[f]
	if x.stashed == 0 {
		return
	}
	if !y.small {
		block, ok := n.small.Get()
		if !ok {
			panic("netring: a frame was admitted without a block for its beginning")
		}
		n.chain(&y.first, &y.last, n.newView(^int32(block), 0, 0))
	}
	w := &n.views[y.first]
	w.n = uint32(copy(n.small.Block(int(^w.buffer)).Bytes(), n.stashOf(i)[:x.stashed]))
	y.have, x.stashed = w.n, 0
	n.stats.Copied += uint64(w.n)
}

// eat takes k bytes off the first chunk.
func (n *Net) eat(i int32, k uint32) {
	x := &n.conns[i]
	v := &n.views[x.chunk]
	v.off += k
	v.n -= k
	if v.n > 0 {
		return
	}
	c := x.chunk
	x.chunk = v.next
	if x.chunk == none {
		x.chunkLast = none
	}
	n.freeView(c)
	n.uncut--
}

// noise says whether the length word is none. The connection is then closed,
// after the replies to what came before.
func (n *Net) noise(i int32) bool {
	x := &n.conns[i]
	var first [8]byte
	k := copy(first[:], x.length[:])
	k += copy(first[k:], n.stashOf(i)[:x.stashed])
	if x.chunk != none {
		copy(first[k:], n.bytesOf(&n.views[x.chunk]))
	}
	length := lengthOf(first)
	// As a length, the start of a TLS handshake is 353 MiB and more: possible
	// in a very large arena, but not with these bytes after it.
	if length >= headerBytesMin && int(length) <= n.o.RequestBytesMax && !(isTLS(first) && first[5] == 1) {
		return false
	}
	n.stats.ProtocolErrors++
	n.tell(ProtocolError, n.connID(i), 0, 0).First = first
	x.ended, x.deaf, x.sendAt = true, true, n.now
	n.wakeConn(i)
	return true
}

// need is the length of the frame that begins.
func (x *conn) need() uint32 {
	return uint32(x.length[0])<<24 | uint32(x.length[1])<<16 | uint32(x.length[2])<<8 | uint32(x.length[3])
}

// begin admits the frame whose length is known. False: it waits.
func (n *Net) begin(i int32) bool {
	x := &n.conns[i]
	need := x.need()
	b := n.o.ReceiveBufferBytes
	class := classLarge
	if int(need) <= b {
		class = classSmall
	}
	whole := n.whole(x)
	turn := n.waiting[class].turn()
	free := (turn == none || turn == i) && n.fits(class, need, x.stashed > 0, whole)
	if !free && !(whole && x.stashed == 0 && n.framesFree > 0) {
		if x.waits == noClass {
			n.wait(i, class)
		}
		return false
	}
	if x.waits != noClass {
		n.waiting[class].newest = !n.waiting[class].newest
		n.unwait(i)
		n.stats.Waited++
	}
	n.stats.Admissions++
	f := n.freeFrame
	y := &n.frames[f]
	n.freeFrame = y.next
	n.framesFree--
	n.stats.RequestsFreeLow = min(n.stats.RequestsFreeLow, n.framesFree)
	generation := y.generation + 1
	*y = emptyFrame
	y.generation, y.conn, y.need = generation, i, need
	x.frame, x.lengthHave, x.progressAt = f, 0, n.now
	if n.smallFits(need, whole) {
		block, _ := n.small.Get()
		y.small = true
		n.chain(&y.first, &y.last, n.newView(^int32(block), 0, 0))
		n.unstash(i, f)
		return true
	}
	if !free {
		y.uncut = true
		n.uncut++
		return true
	}
	y.charged = n.price(need)
	if class == classLarge || n.waiting[classLarge].first == none && n.budget >= y.charged {
		y.from = classLarge
		n.budget -= y.charged
		n.stats.BudgetLow = min(n.stats.BudgetLow, n.budget)
	} else {
		y.from = classSmall
		n.reserve -= y.charged
		n.stats.ReserveFreeLow = min(n.stats.ReserveFreeLow, n.reserve)
	}
	n.unstash(i, f)
	return true
}

// price is what a frame of n bytes may pin.
func (n *Net) price(need uint32) int {
	b := n.o.ReceiveBufferBytes
	if int(need) <= b {
		return 2 * b
	}
	return int(need) + 2*b
}

// whole says that all of the frame that begins has come.
func (n *Net) whole(x *conn) bool {
	have := uint32(x.stashed)
	if x.chunk != none {
		have += n.views[x.chunk].n
	}
	return have >= x.need()
}

// smallFits: a quarter of the small blocks is for frames that are whole.
func (n *Net) smallFits(need uint32, whole bool) bool {
	return int(need) <= n.small.Size() && (n.small.Free() > n.small.Count()/4 || whole && n.small.Free() > 0)
}

func (n *Net) fits(c class, need uint32, stashed, whole bool) bool {
	if n.framesFree == 0 || stashed && n.small.Free() == 0 {
		return false
	}
	price := n.price(need)
	if c == classLarge {
		return n.budget >= price
	}
	return n.smallFits(need, whole) || n.reserve >= price || n.waiting[classLarge].first == none && n.budget >= price
}

// gather adds as much of the first chunk to the frame as is its own.
func (n *Net) gather(i, f int32) {
	x, y := &n.conns[i], &n.frames[f]
	v := n.views[x.chunk]
	k := min(v.n, y.need-y.have)
	v.n = k
	y.have += k
	switch {
	case y.small:
		w := &n.views[y.first]
		copy(n.small.Block(int(^w.buffer)).Bytes()[w.n:], n.bytesOf(&v))
		w.n += k
		n.stats.Copied += uint64(k)
	case y.last == none || n.views[y.last].buffer < 0: // nothing, or what was stashed
		n.hold(y, v)
	default:
		w := &n.views[y.last]
		room := uint32(n.o.ReceiveBufferBytes) - n.fill[w.buffer]
		if w.off+w.n == n.fill[w.buffer] && room > 0 {
			p := n.bytesOf(&v)
			c := uint32(copy(n.buffers.Block(int(w.buffer)).Bytes()[n.fill[w.buffer]:], p))
			n.fill[w.buffer] += c
			w.n += c
			v.off += c
			v.n -= c
			n.stats.Copied += uint64(c)
		}
		if v.n > 0 {
			n.hold(y, v)
		}
	}
	n.eat(i, k)
}

// hold adds a view of received bytes to a frame.
func (n *Net) hold(y *frame, v view) {
	n.buffers.Ref(int(v.buffer))
	n.chain(&y.first, &y.last, n.newView(v.buffer, v.off, v.n))
}

// surface hands a whole frame to the caller.
func (n *Net) surface(i, f int32) {
	x, y := &n.conns[i], &n.frames[f]
	x.frame = none
	y.stage, y.at = frameTaken, n.now
	pinned := 0
	for v := y.first; v != none; v = n.views[v].next {
		if n.views[v].buffer >= 0 {
			pinned++
		}
	}
	if pinned *= n.o.ReceiveBufferBytes; !y.small && pinned < y.charged {
		n.refund(y, y.charged-pinned)
	}
	if x.last == none {
		x.first = f
	} else {
		n.frames[x.last].next = f
	}
	x.last = f
	x.outstanding++
	n.held++
	n.stats.Requests++
	n.stats.RequestBytes += uint64(y.need)
	n.tell(RequestReady, n.connID(i), n.frameID(f), 0)
}

func (n *Net) refund(y *frame, bytes int) {
	y.charged -= bytes
	switch y.from {
	case classLarge:
		n.budget += bytes
	case classSmall:
		n.reserve += bytes
	}
}

// releaseBytes gives back what a frame's request holds.
func (n *Net) releaseBytes(f int32) {
	y := &n.frames[f]
	if y.first != none && y.stage != framePartial {
		n.held--
	}
	for v := y.first; v != none; {
		next := n.views[v].next
		n.freeView(v)
		v = next
	}
	y.first, y.last = none, none
	if y.uncut {
		y.uncut = false
		n.uncut--
	}
	n.refund(y, y.charged)
}

func (n *Net) freeFrameSlot(f int32) {
	n.releaseBytes(f)
	n.freeReply(f)
	y := &n.frames[f]
	y.stage, y.next = frameFree, n.freeFrame
	n.freeFrame = f
	n.framesFree++
}

// forgetInput drops what was received and is no request yet.
func (n *Net) forgetInput(i int32) {
	x := &n.conns[i]
	n.unwait(i)
	for x.chunk != none {
		n.eat(i, n.views[x.chunk].n)
	}
	if x.frame != none {
		n.freeFrameSlot(x.frame)
		x.frame = none
	}
	x.lengthHave, x.stashed = 0, 0
}

// waitList is connections that wait for admission, in order of arrival. The
// oldest and the newest are admitted in turn: nobody waits for ever, and a
// thousand that will send no more hold up who comes now by one of them.
type waitList struct {
	first, last int32
	newest      bool // it is the newest's turn
}

// turn is whose turn it is.
func (q *waitList) turn() int32 {
	if q.newest {
		return q.last
	}
	return q.first
}

func (n *Net) wait(i int32, c class) {
	x, q := &n.conns[i], &n.waiting[c]
	x.waits, x.waitPrev, x.waitNext = c, q.last, none
	if q.last == none {
		q.first = i
	} else {
		n.conns[q.last].waitNext = i
	}
	q.last = i
}

func (n *Net) unwait(i int32) {
	x := &n.conns[i]
	if x.waits == noClass {
		return
	}
	q := &n.waiting[x.waits]
	if x.waitPrev == none {
		q.first = x.waitNext
	} else {
		n.conns[x.waitPrev].waitNext = x.waitNext
	}
	if x.waitNext == none {
		q.last = x.waitPrev
	} else {
		n.conns[x.waitNext].waitPrev = x.waitPrev
	}
	x.waits, x.waitNext, x.waitPrev = noClass, none, none
}

// admissible says whether the first that waits could begin.
func (n *Net) admissible(c class) bool {
	x := &n.conns[n.waiting[c].turn()]
	return n.fits(c, x.need(), x.stashed > 0, n.whole(x))
}

// admitWaiting begins frames that waited.
func (n *Net) admitWaiting() {
	for c := range n.waiting {
		for n.waiting[c].first != none && n.admissible(class(c)) {
			i := n.waiting[c].turn()
			x := &n.conns[i]
			if x.stage != stageOpen || x.deaf || n.stopping || !n.begin(i) {
				n.unwait(i)
				n.wakeConn(i)
				continue
			}
			n.cut(i)
			n.wakeConn(i)
		}
	}
}

// gate has, where too many buffers hold what cannot be cut yet, connections that
// have no admitted request under way receive into their stash: so they hold no
// buffer, and small requests go on. (Tried before: one buffer at a time, and
// hundreds who stop in one hold all there are. Only those that wait, by a Cancel. One sweep of the kernel's may fill dozens of
// buffers from one connection before its Cancel is seen, and what was admitted
// found none. And: none of them, which held up small requests of others until
// the progress timeout.)
func (n *Net) gate() {
	if !n.gateMoves() {
		return
	}
	n.gated, n.gatedAt = !n.gated, n.now
	if n.gated {
		n.stats.Backpressured++
	}
	for i := range n.conns {
		if x := &n.conns[i]; x.stage == stageOpen && x.frame == none && x.receiving == n.gated {
			n.wakeConn(int32(i))
		}
	}
}

func (n *Net) gateMoves() bool {
	if n.gated {
		return n.uncut <= n.gateAt/2
	}
	return n.uncut > n.gateAt
}

// evict closes the connection that holds the most uncut buffers. It is the
// last resort where those are all there are and the caller has none to
// release; and where the gate has long been shut, for those that wait for
// nothing but their own unread replies.
func (n *Net) evict(pipelined bool) {
	worst, most := none, 0
	for i := range n.conns {
		x := &n.conns[i]
		if x.stage != stageOpen || pipelined && x.waits != noClass {
			continue
		}
		held := 0
		for v := x.chunk; v != none; v = n.views[v].next {
			held++
		}
		if held > most {
			worst, most = int32(i), held
		}
	}
	if worst != none {
		n.stats.Evicted++
		n.kill(worst)
	}
}

func (n *Net) newView(buffer int32, off, size uint32) int32 {
	v := n.freeV
	if v == none {
		panic("netring: the sum of the views is wrong")
	}
	n.freeV = n.views[v].next
	n.views[v] = view{none, buffer, off, size}
	return v
}

func (n *Net) freeView(v int32) {
	if b := n.views[v].buffer; b >= 0 {
		n.buffers.Unref(int(b))
	} else {
		n.small.Unref(int(^b))
	}
	n.views[v].next = n.freeV
	n.freeV = v
}

func (n *Net) chain(first, last *int32, v int32) {
	if *last == none {
		*first = v
	} else {
		n.views[*last].next = v
	}
	*last = v
}

func (n *Net) bytesOf(v *view) []byte {
	if v.buffer < 0 {
		return n.small.Block(int(^v.buffer)).Slice(int(v.off), int(v.n)).Bytes()
	}
	return n.buffers.Block(int(v.buffer)).Slice(int(v.off), int(v.n)).Bytes()
}
