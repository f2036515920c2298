package shard

import (
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
	"github.com/tailbound/tailbound/netring"
)

// longPolls is the queue of the Fetch requests that wait for data, in the order in
// which they began to.
type longPolls struct {
	all   mem.List
	links mem.Thread // through the Fetch requests
	n     int
}

func (q *longPolls) push(slot uint32) {
	q.links.PushBack(&q.all, int32(slot))
	q.n++
}

func (q *longPolls) remove(slot uint32) {
	q.links.Remove(&q.all, int32(slot))
	q.n--
}

// park has a Fetch wait for data or its deadline. The request's bytes are released:
// all topics that it names are known, else it would have been answered.
func (s *Shard) park(req *request) {
	fetch := s.fetches.of(req)
	fetch.idleTo = 0
	if fetch.parked {
		return
	}
	fetch.parked, fetch.parkedAt, fetch.idleFrom = true, s.now, s.now
	s.fetches.polls.push(req.slot)
	s.Timelines.Counters.FetchWaits++
	s.net.Release(req.id)
	for at := fetch.parts.First; at != none; at = s.fetches.parts.next(at) {
		s.fetches.await(at)
	}
	s.timers.set(req.slot, fetch.deadline)
}

// unpark takes a Fetch out of the queue, if it is there.
func (t *fetches) unpark(req *request) {
	if fetch := t.of(req); fetch.parked {
		fetch.parked = false
		t.polls.remove(req.slot)
	}
}

// stopWaiting ends a Fetch's wait for data: it is answered.
func (t *fetches) stopWaiting(req *request) {
	for at := t.of(req).parts.First; at != none; at = t.parts.next(at) {
		t.stopAwaiting(at)
	}
	t.unpark(req)
}

// tally is how much there is of a partition for a Fetch, as it was read or, while
// the Fetch waits, counted.
type tally struct {
	counted int64 // bytes are those below this offset
	bytes   int32
	full    bool // the reply takes no more of it: no more is counted
}

// count adds what has become readable of a partition to what a parked Fetch has, and
// schedules the Fetch when that is enough. So an append costs a Fetch the same,
// however many partitions the Fetch waits for.
func (s *Shard) count(req *request, p *partition, seen *tally, most int32) {
	fetch, high := s.fetches.of(req), p.highWatermark()
	if req.scheduled || seen.full || seen.counted >= high {
		return
	}
	s.Timelines.Counters.PartitionsLookedAt++
	count, st := s.engine.Read(p.slot, seen.counted, high, int(most-seen.bytes), s.views)
	if st != engine.OK {
		s.requests.schedule(req)
		return
	}
	for _, view := range s.views[:count] {
		if seen.bytes > 0 && int(seen.bytes)+len(view.Bytes) > int(most) {
			seen.full = true
			fetch.have += int64(max(most-seen.bytes, 0))
			break
		}
		seen.bytes += int32(len(view.Bytes))
		seen.counted = viewEnd(view)
		fetch.have += int64(len(view.Bytes))
	}
	s.unpin(0, count)
	if fetch.have >= int64(fetch.bytesMin) {
		s.requests.schedule(req)
	}
}

// countAll counts for each Fetch that waits for a partition's data.
func (s *Shard) countAll(p *partition) {
	for at := p.awaitingData.First; at != none; at = s.fetches.waiters.Next(at) {
		part := &s.fetches.parts.all[at]
		s.count(&s.requests.all[part.request], p, &part.tally, part.max)
	}
}

// pollLeastNS is how long a Fetch may wait for data even while others find no parts.
// With less the others would wait less, but many clients would keep the shard busy
// with empty replies.
const pollLeastNS = 10e6

// makeRoom has the Fetch answered that has waited for data longest, if a Fetch finds
// no parts, or netring no place for a request.
func (s *Shard) makeRoom() {
	if s.roomDue() > s.now {
		return
	}
	slot := uint32(s.fetches.polls.all.First)
	s.fetches.partsExhausted = false // a Fetch that still finds none sets it again
	// It may have reads under way and not end at once: it goes to the end of the
	// queue, so that the others come before it does again.
	s.fetches.polls.remove(slot)
	s.fetches.requests[slot].parkedAt = s.now
	s.fetches.polls.push(slot)
	s.timers.clear(slot)
	s.expire(slot)
}

// roomDue is when makeRoom has something to do.
func (s *Shard) roomDue() ioring.Instant {
	polls := &s.fetches.polls
	if polls.n == 0 || !s.fetches.partsExhausted && !s.net.RequestsWanted() {
		return ioring.Never
	}
	return s.fetches.requests[polls.all.First].parkedAt + pollLeastNS
}

// answerLongPolls has every parked Fetch answered with what there is: the shard
// stops.
func (s *Shard) answerLongPolls() {
	for i := range s.requests.all {
		if req := &s.requests.all[i]; req.used && req.kind == kindFetch && s.fetches.of(req).parked {
			s.requests.schedule(req)
		}
	}
}

// endLongPolls ends the parked Fetch requests of a connection that is gone. One with
// reads under way ends with the last of them.
func (s *Shard) endLongPolls(conn netring.ConnID) {
	for slot := s.fetches.polls.all.First; slot != none; {
		req := &s.requests.all[slot]
		next := s.fetches.polls.links.Next(slot)
		if req.conn == conn {
			s.fetches.unpark(req)
			s.requests.schedule(req)
		}
		slot = next
	}
}
