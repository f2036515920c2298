package shard

import (
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
)

// A Fetch of a session is a Fetch whose parts are not those that its request names:
//
//	resume: apply to the session what the request changes
//	addChangedParts: make parts of the partitions that are ready
//	releaseParts: free them while the Fetch waits
//	dropUnchanged, markSent: reply with what has changed, and remember it

// resume applies to a session what a request changes, and makes the Fetch the
// session's. The walk is at the first topic of the request, which is well formed.
func (t *sessions) resume(req *request, fetch *fetchRequest, walk *kafka.FetchWalk, id, epoch int32, now ioring.Instant) kafka.ErrorCode {
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
	t.refuseInFlight(session, kafka.InvalidFetchSessionEpoch) // as Kafka does: this request takes its place
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
				// An unknown topic cannot be in a session. The client then sends a
				// Fetch of all partitions, whose reply has an error for each of these.
				t.end(n)
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
		t.end(n)
		return kafka.None
	}
	t.touch(n, now)
	fetch.session, fetch.sessionID = n, session.id
	session.fetch = int32(req.slot)
	return kafka.None
}

// create creates the session that a Fetch has asked for, of the partitions that it
// names, when the Fetch is answered. It returns the session's id, or 0 if there is no
// room or a topic is not known.
func (t *sessions) create(req *request, fetch *fetchRequest, now ioring.Instant) int32 {
	size, parts := 0, &t.fetches.parts
	for at := fetch.parts.First; at != none; at = parts.next(at) {
		if parts.all[at].topic == none {
			return 0
		}
		size++
	}
	if !t.fits(size) {
		return 0
	}
	for t.full(size) {
		victim := t.victim(size, now)
		if victim == none {
			return 0
		}
		t.end(victim)
	}
	n := t.begin(req.header.Version >= kafka.FetchByID, now)
	for at := fetch.parts.First; at != none; at = parts.next(at) {
		part := &parts.all[at]
		part.session, _ = t.addPartition(n, part.topic, &kafka.FetchPartition{Index: part.index, CurrentEpoch: part.epoch, Offset: part.from, MaxBytes: part.max})
		t.markSent(part)
	}
	return t.all[n].id
}

// refuseInFlight has the Fetch in flight for a session, if there is one, answered
// with an error.
func (t *sessions) refuseInFlight(session *session, code kafka.ErrorCode) {
	if session.fetch == none {
		return
	}
	fetch := &t.fetches.requests[session.fetch]
	fetch.code, fetch.session = code, none
	t.requests.schedule(&t.requests.all[session.fetch])
	session.fetch = none
}

// notify notifies the sessions that subscribe to a partition of a change: an append,
// a new log start or, with gone, its deletion. A session is notified once between two
// of its Fetches, except while its Fetch waits for data, which counts every append.
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

// addChangedParts makes parts of those of a session's ready partitions that have
// changed. rest says that some had no room.
func (t *sessions) addChangedParts(req *request, fetch *fetchRequest) (rest bool) {
	session, left := &t.all[fetch.session], t.requests.credit.fetchesFree()
	session.changed = false
	for n := session.ready.First; n != none; {
		member := &t.members[n]
		next := t.readies.Next(n)
		p, code := t.topics.locateAt(member.topic, member.index, session.byID, member.epoch)
		if code == kafka.None {
			t.counters.PartitionsLookedAt++
			high := p.highWatermark()
			_, st := p.engine.Read(p.slot, member.from, high, 0, nil)
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
		part := &t.fetches.parts.all[t.fetches.parts.take(&fetch.parts, &emptyFetchPart)]
		part.request, part.session = req.slot, n
		part.topic, part.index = member.topic, member.index
		part.partition, part.code = p, code
		part.from, part.max = member.from, member.max
		n = next
	}
	return false
}

// releaseParts frees the parts of a session's Fetch. With subscribe the Fetch waits
// for data: its partitions subscribe, and keep what was counted.
func (t *fetches) releaseParts(fetch *fetchRequest, sessions *sessions, subscribe bool) {
	for at := fetch.parts.First; subscribe && at != none; at = t.parts.next(at) {
		if part := &t.parts.all[at]; part.session != none {
			sessions.members[part.session].tally = part.tally
			sessions.subscribe(part.session, part.partition)
		}
	}
	t.dropParts(fetch)
}

// dropUnchanged frees those parts of a session's Fetch that the reply leaves out.
func (t *fetches) dropUnchanged(fetch *fetchRequest, sessions *sessions) {
	for at := fetch.parts.First; at != none; {
		next := t.parts.next(at)
		if sessions.unchanged(&t.parts.all[at]) {
			t.dropPart(fetch, at)
		}
		at = next
	}
}
