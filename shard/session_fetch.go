package shard

import (
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/kafka"
)

// A Fetch of a session is a Fetch whose parts come and go:
//
//	continueSession: take what the request changes of its session
//	addChangedParts: make parts of the partitions that are ready
//	releaseParts: give them back while the Fetch waits for data, or for its turn
//	dropUnchanged, markSent: reply with what changed, and remember what was said

// continueSession takes what a request changes of its session, and has the Fetch
// be the session's. The walk stands behind the head of the request, which is well
// formed.
func (s *Shard) continueSession(req *request, fetch *fetchRequest, walk *kafka.FetchWalk, id, epoch int32) kafka.ErrorCode {
	t := &s.sessions
	n := t.find(id)
	if n == none {
		return kafka.FetchSessionIDNotFound
	}
	session := &t.all[n]
	switch {
	case session.epoch != epoch:
		return kafka.InvalidFetchSessionEpoch
	case session.byID != (req.header.Version >= kafka.FetchByID):
		return kafka.FetchSessionTopicIDError
	}
	s.refuseInFlight(session, kafka.InvalidFetchSessionEpoch) // as Kafka does: the session went on without it
	t.remapTopics(n)
	for walk.Topics() > 0 {
		topic, _ := walk.NextTopic()
		number := t.topic(n, topic.Name)
		for range topic.Partitions {
			asked, _ := walk.NextPartition()
			ok := number != none
			if ok {
				_, ok = t.addPartition(n, number, &asked)
			}
			if !ok {
				// What is not known here has no place in a session; the whole
				// Fetch that follows is told so, partition by partition.
				s.endSession(n)
				return kafka.FetchSessionIDNotFound
			}
		}
	}
	walk.Forgotten()
	for walk.Topics() > 0 {
		topic, _ := walk.NextForgotten()
		number := t.topic(n, topic.Name)
		for range topic.Partitions {
			index, _ := walk.NextForgottenPartition()
			if member := t.lookup(n, number, index); member != none {
				t.removePartition(member)
			}
		}
	}
	if session.size == 0 {
		s.endSession(n)
		return kafka.None
	}
	t.touch(n, s.now)
	fetch.session, fetch.sessionID = n, session.id
	session.fetch = int32(req.slot)
	return kafka.None
}

// createSession begins the session that a Fetch asked for, with the partitions
// it named, as it is answered. It is the id of the session, 0 where there is none:
// there is no room for it, or a topic is not known.
func (s *Shard) createSession(req *request, fetch *fetchRequest) int32 {
	size := 0
	for at := fetch.parts.First; at != none; at = s.fetches.parts.next(at) {
		if s.fetches.parts.all[at].topic == none {
			return 0
		}
		size++
	}
	t := &s.sessions
	if !t.fits(size) {
		return 0
	}
	for t.full(size) {
		victim := t.victim(size, s.now)
		if victim == none {
			return 0
		}
		s.endSession(victim)
	}
	n := t.begin(req.header.Version >= kafka.FetchByID, s.now)
	for at := fetch.parts.First; at != none; at = s.fetches.parts.next(at) {
		part := &s.fetches.parts.all[at]
		part.session, _ = t.addPartition(n, part.topic, &kafka.FetchPartition{Index: part.index, CurrentEpoch: part.epoch, Offset: part.from, MaxBytes: part.max})
		t.markSent(part)
	}
	return t.all[n].id
}

// endSession forgets a session. The Fetch in flight with it hears that it is not
// there.
func (s *Shard) endSession(n int32) {
	s.refuseInFlight(&s.sessions.all[n], kafka.FetchSessionIDNotFound)
	s.sessions.end(n)
}

// refuseInFlight answers the Fetch in flight with a session, if there is one,
// with an error.
func (s *Shard) refuseInFlight(session *session, code kafka.ErrorCode) {
	if session.fetch == none {
		return
	}
	fetch := &s.fetches.requests[session.fetch]
	fetch.code, fetch.session = code, none
	s.requests.schedule(&s.requests.all[session.fetch])
	session.fetch = none
}

// notify tells the sessions that subscribe to a partition's changes of one: an
// append, a new start, or that it is gone. Each hears it once between two of its
// Fetches, but for those whose Fetch waits for data, which count.
func (s *Shard) notify(p *partition, gone bool) {
	if s.o.Faults.NewsMissed && !gone {
		return
	}
	t := &s.sessions
	for n := p.subscribers.First; n != none; {
		member := &t.members[n]
		next := t.subscribers.Next(n)
		t.markReady(n)
		fetch := t.all[member.session].fetch
		parked := fetch != none && s.fetches.requests[fetch].parked
		if !parked || gone {
			t.unsubscribe(n)
		}
		if parked {
			if gone {
				s.requests.schedule(&s.requests.all[fetch])
			} else {
				s.count(&s.requests.all[fetch], p, &member.tally, member.max)
			}
		}
		n = next
	}
}

// addChangedParts makes parts of those partitions of a session of which there may
// be something to say. Of what it leaves out, rest says whether there is any.
func (s *Shard) addChangedParts(req *request, fetch *fetchRequest) (rest bool) {
	t := &s.sessions
	session, left := &t.all[fetch.session], s.requests.credit.fetchesFree()
	session.changed = false
	for n := session.ready.First; n != none; {
		member := &t.members[n]
		next := t.readies.Next(n)
		p, code := s.topics.locateAt(member.topic, member.index, session.byID, member.epoch)
		if code == kafka.None {
			s.Timelines.Counters.PartitionsLookedAt++
			high := p.highWatermark()
			_, st := s.engine.Read(p.slot, member.from, high, 0, nil)
			if st == engine.Empty && member.from >= high && high == member.high && p.logStart() == member.start {
				t.markUnchanged(n)
				t.subscribe(n, p)
				n = next
				continue
			}
		}
		if left == 0 {
			return true
		}
		left--
		part := &s.fetches.parts.all[s.fetches.parts.take(&fetch.parts, &emptyFetchPart)]
		part.request, part.session = req.slot, n
		part.topic, part.index = member.topic, member.index
		part.partition, part.code = p, code
		part.from, part.max = member.from, member.max
		n = next
	}
	return false
}

// releaseParts gives the parts of a session's Fetch back, with what was counted
// of them; with subscribe the Fetch waits for more.
func (t *fetches) releaseParts(fetch *fetchRequest, sessions *sessions, subscribe bool) {
	for at := fetch.parts.First; subscribe && at != none; at = t.parts.next(at) {
		if part := &t.parts.all[at]; part.session != none {
			sessions.members[part.session].tally = part.tally
			sessions.subscribe(part.session, part.partition)
		}
	}
	t.dropParts(fetch)
}

// dropUnchanged gives back those parts of a session's Fetch of which there is
// nothing to say.
func (t *fetches) dropUnchanged(fetch *fetchRequest, sessions *sessions) {
	for at := fetch.parts.First; at != none; {
		next := t.parts.next(at)
		if sessions.unchanged(&t.parts.all[at]) {
			t.dropPart(fetch, at)
		}
		at = next
	}
}
