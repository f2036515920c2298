package shard

import (
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
	"github.com/tailbound/tailbound/netring"
)

// longPolls are the Fetch requests that wait for data, those that have waited
// longest first.
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

// park has a Fetch wait for data or its deadline. Its request's bytes are let
// go: every topic it names is known, else it would have been answered.
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

// unpark takes a Fetch off those that wait.
func (t *fetches) unpark(req *request) {
	if fetch := t.of(req); fetch.parked {
		fetch.parked = false
		t.polls.remove(req.slot)
	}
}

// stopWaiting ends the wait of a Fetch that is answered.
func (t *fetches) stopWaiting(req *request) {
	for at := t.of(req).parts.First; at != none; at = t.parts.next(at) {
		t.stopAwaiting(at)
	}
	t.unpark(req)
}

// tally is how much of a partition a Fetch has counted, while it waits.
type tally struct {
	counted int64 // up to this offset
	bytes   int32
	full    bool // there is more than the reply takes of it: no more is counted
}

// count counts what has become readable of a partition for a Fetch that waits,
// and has the Fetch tried when that is enough: an append costs it the same
// however many partitions it waits for.
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

// countAll counts a partition for each Fetch that waits for its data.
func (s *Shard) countAll(p *partition) {
	for at := p.awaitingData.First; at != none; at = s.fetches.waiters.Next(at) {
		part := &s.fetches.parts.all[at]
		s.count(&s.requests.all[part.request], p, &part.tally, part.max)
	}
}

// pollLeastNS is how long a Fetch may wait for data while others find no parts
// to wait with. Shorter would be kinder to them, and have a crowd of clients
// keep the shard busy with replies that say nothing.
const pollLeastNS = 10e6

// makeRoom answers the Fetch that has waited for data longest, where a Fetch
// finds no parts, or any request no place in netring.
func (s *Shard) makeRoom() {
	if s.roomDue() > s.now {
		return
	}
	slot := uint32(s.fetches.polls.all.First)
	s.fetches.partsExhausted = false // a Fetch that still finds none says so again
	// One that has reads under way is not over at once: the others are asked
	// before it is asked again.
	s.fetches.polls.remove(slot)
	s.fetches.requests[slot].parkedAt = s.now
	s.fetches.polls.push(slot)
	s.timers.clear(slot)
	s.expire(slot)
}

// roomDue says when makeRoom has something to do.
func (s *Shard) roomDue() ioring.Instant {
	polls := &s.fetches.polls
	if polls.n == 0 || !s.fetches.partsExhausted && !s.net.RequestsWanted() {
		return ioring.Never
	}
	return s.fetches.requests[polls.all.First].parkedAt + pollLeastNS
}

// answerLongPolls answers every Fetch that waits with what there is: the shard
// stops.
func (s *Shard) answerLongPolls() {
	for i := range s.requests.all {
		if req := &s.requests.all[i]; req.used && req.kind == kindFetch && s.fetches.of(req).parked {
			s.requests.schedule(req)
		}
	}
}

// endLongPolls ends those of a connection that is gone, but for reads under way:
// the last of them does.
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
