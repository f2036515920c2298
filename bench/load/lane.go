package load

import "math"

// never is later than every instant.
const never = math.MaxInt64

// A schedule is the evenly spaced intended sends of one lane among several
// that share a rate. Its zero Interval is a closed loop.
type schedule struct {
	Start    int64   // ns, the first send of lane 0
	End      int64   // ns, nothing is intended at or after it
	Interval float64 // ns between two sends of all lanes together
	Lanes    int64
	Lane     int64
}

// at is the instant at which send number k of this lane is intended.
func (s *schedule) at(k int64) int64 {
	return s.Start + int64(float64(k*s.Lanes+s.Lane)*s.Interval)
}

// A lane is the arithmetic of one connection: what is due, what is in flight,
// since when each of them counts. It has no clock and no socket.
//
// Invariant: 0 <= tail-head <= len(inflight); answers come in request order.
type lane struct {
	schedule
	inflight []int64 // intended instants, a ring; its length is the bound
	head     uint64  // next to be answered
	tail     uint64  // next to be sent
	next     int64   // number of the next intended send
	held     bool    // a due send found the bound reached or the socket full
	freeAt   int64   // when what held the lane last let go

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
		intended = l.at(l.next)
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
	l.inflight[l.tail%uint64(len(l.inflight))] = intended
	l.tail++
	l.next++
	l.sent++
	return intended, lag, true
}

// hold notes that due requests cannot leave; the next take ends it.
func (l *lane) hold() { l.held = true }

// answer gives the intended instant of the oldest request in flight.
func (l *lane) answer() (intended int64, ok bool) {
	if l.head == l.tail {
		return 0, false
	}
	intended = l.inflight[l.head%uint64(len(l.inflight))]
	l.head++
	return intended, true
}

// wakeAt is when take may next succeed by the passing of time alone.
func (l *lane) wakeAt() int64 {
	if l.Interval == 0 || l.held {
		return never
	}
	if t := l.at(l.next); t < l.End {
		return t
	}
	return never
}

// done says whether every intended request of an open loop was answered; of a
// closed loop whether nothing is in flight.
func (l *lane) done() bool {
	return l.head == l.tail && (l.Interval == 0 || l.at(l.next) >= l.End)
}

// leftovers calls f with the intended instant of each request that was not
// answered, sent or not.
func (l *lane) leftovers(f func(intended int64)) {
	for i := l.head; i != l.tail; i++ {
		f(l.inflight[i%uint64(len(l.inflight))])
	}
	if l.Interval == 0 {
		return
	}
	for k := l.next; l.at(k) < l.End; k++ {
		f(l.at(k))
	}
}
