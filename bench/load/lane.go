package load

// A request is one that was taken and not answered.
type request struct {
	intended  int64
	number    uint32 // of its lane, for the stamp
	partition int32  // its slot among the link's
}

// A lane is the arithmetic of one connection: what is due, what is in flight,
// since when each of them counts. It has no clock and no socket.
//
// Invariant: 0 <= tail-head <= len(inflight); answers come in request order.
type lane struct {
	Schedule
	inflight []request // a ring; its length is the bound
	head     uint64    // next to be answered
	tail     uint64    // next to be taken
	held     bool      // a due send found the bound reached or the socket full
	freeAt   int64     // when what held the lane last let go

	sent      int64
	heldSends int64 // sends that were late because the lane was held
}

// take hands out the next due request, if there is one and it may go.
// intended is the instant its latency counts from; lag is how late the
// generator itself was, or -1 where something else held the request back.
func (l *lane) take(now int64) (intended, lag int64, ok bool) {
	closed := l.Interval == 0
	if closed {
		intended = now
	} else {
		intended = l.Due()
	}
	if intended >= l.End || intended > now {
		return 0, 0, false
	}
	if l.tail-l.head == uint64(len(l.inflight)) {
		l.hold()
		return 0, 0, false
	}
	if l.held {
		l.held = false
		l.freeAt = now
	}
	lag = -1
	switch {
	case closed:
	case intended > l.freeAt:
		lag = now - intended
	default:
		l.heldSends++
	}
	l.put(request{intended: intended, number: uint32(l.sent)})
	l.Advance()
	return intended, lag, true
}

func (l *lane) put(r request) {
	*l.at64(l.tail) = r
	l.tail++
	l.sent++
}

func (l *lane) at64(i uint64) *request { return &l.inflight[i%uint64(len(l.inflight))] }

// full says whether nothing more may be taken.
func (l *lane) full() bool { return l.tail-l.head == uint64(len(l.inflight)) }

// hold notes that due requests cannot leave; the next take ends it.
func (l *lane) hold() { l.held = true }

// answer gives the oldest request in flight.
func (l *lane) answer() (r request, ok bool) {
	if l.head == l.tail {
		return r, false
	}
	r = *l.at64(l.head)
	l.head++
	return r, true
}

// wakeAt is when take may next succeed by the passing of time alone.
func (l *lane) wakeAt() int64 {
	if l.Interval == 0 || l.held {
		return never
	}
	if t := l.Due(); t < l.End {
		return t
	}
	return never
}

// done says whether every intended request of an open loop was answered; of a
// closed loop whether nothing is in flight.
func (l *lane) done() bool {
	return l.head == l.tail && (l.Interval == 0 || l.Due() >= l.End)
}

// leftovers calls f with the intended instant of each request that was not
// answered, sent or not. It uses the schedule up.
func (l *lane) leftovers(f func(intended int64)) {
	for i := l.head; i != l.tail; i++ {
		f(l.at64(i).intended)
	}
	if l.Interval == 0 {
		return
	}
	for ; l.Due() < l.End; l.Advance() {
		f(l.Due())
	}
}
