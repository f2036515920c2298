package shard

import (
	"math/bits"
	"unsafe"

	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/mem"
)

// sessions are the fetch sessions of a data shard (KIP-227). They belong to the
// shard: any of its connections may go on with any of them. Both tables are of
// fixed size, in the arena: who finds no room gets no session, and names all of
// its partitions in each fetch.
//
// A fetch of a session costs what has news, not what the session holds. An
// interest is ready where there may be something to say of its partition, and
// else waits among the partition's news:
//
//	named by a request, or the partition has an append, a new start, or is gone: ready
//	looked at by a fetch, and there is nothing to say: waits
//
// Invariant: an interest that is not ready waits. One that is ready waits too
// only while a fetch of its session is parked, or until the next news.
type sessions struct {
	all   []session
	free  int32
	byUse mem.List // least recently used first
	uses  mem.Thread
	n     int

	interests     []interest
	interestsFree int
	freeInterest  int32
	buckets       []int32 // of interests, by session, topic and partition; + 1
	seed          uint64
	ofSession     mem.Thread
	readies       mem.Thread
	waits         mem.Thread // for a partition's news
}

type session struct {
	id       int32 // 0: not in use
	epoch    int32 // of the next request
	byID     bool  // it names topics by their ids
	gone     bool  // as of removals: it has interests in topics that are gone
	size     int32
	all      mem.List // its interests
	ready    mem.List // of them, those with news, in the order in which they are served
	fetch    int32    // the request that is in flight with it; none
	removals uint64
	created  ioring.Instant
	used     ioring.Instant
	byUse    mem.Links // free: Next is the next free
}

// interest is what a session knows of one partition.
type interest struct {
	session   int32
	topic     int32
	index     int32
	max       int32
	epoch     int32     // leader epoch the client believes in; -1: none
	slot      int32     // waits: whose news
	ofSession mem.Links // free: Next is the next free
	readies   mem.Links
	wait      mem.Links // among those that wait for the partition's news
	hashNext  int32
	tally
	from  int64
	high  int64 // high watermark and log start as the client was told; -1 after an error
	start int64
	ready bool
	waits bool
}

// SessionsMax is how many fetch sessions a data shard keeps where nobody says,
// and sessionEvictNS how long one is safe from others: Kafka's
// max.incremental.fetch.session.cache.slots, for each node, and
// min.incremental.fetch.session.eviction.ms.
const (
	SessionsMax    = 1000
	sessionEvictNS = 120e9
)

// SessionPartitionBytes is what a partition takes in a session, with its place in at
// most two buckets.
const SessionPartitionBytes = int(unsafe.Sizeof(interest{})) + 8

func newSessions(a *mem.Arena, slots, interests int, seed uint64) (s sessions, err error) {
	s.seed, s.free, s.byUse, s.freeInterest = seed, none, mem.EmptyList, none
	if slots == 0 || interests == 0 {
		return s, nil
	}
	if s.all, err = mem.AllocateTable[session](a, "fetch sessions", slots); err != nil {
		return s, err
	}
	if s.interests, err = mem.AllocateTable[interest](a, "partitions in fetch sessions", interests); err != nil {
		return s, err
	}
	if s.buckets, err = mem.AllocateTable[int32](a, "partitions in fetch sessions, by name", 1<<bits.Len(uint(interests-1))); err != nil {
		return s, err
	}
	for i := slots - 1; i >= 0; i-- {
		s.all[i].byUse.Next, s.free = s.free, int32(i)
	}
	for i := interests - 1; i >= 0; i-- {
		s.interests[i].ofSession.Next, s.freeInterest = s.freeInterest, int32(i)
	}
	s.uses = mem.ThreadOf(s.all, func(x *session) *mem.Links { return &x.byUse })
	s.ofSession = mem.ThreadOf(s.interests, func(y *interest) *mem.Links { return &y.ofSession })
	s.readies = mem.ThreadOf(s.interests, func(y *interest) *mem.Links { return &y.readies })
	s.waits = mem.ThreadOf(s.interests, func(y *interest) *mem.Links { return &y.wait })
	s.interestsFree = interests
	return s, nil
}

// find is the session of an id. The id's low bits are its place in the table,
// the others are random.
func (s *sessions) find(id int32) int32 {
	if i := id & (1<<bits.Len(uint(len(s.all))) - 1); id > 0 && int(i) < len(s.all) && s.all[i].id == id {
		return i
	}
	return none
}

// begin makes a session, none where there is no room for it and its partitions
// (FetchSessionCache.maybeCreateSession). A quarter of the room is the most that
// one session gets of it.
func (s *Shard) beginSession(partitions int, byID bool) int32 {
	q := &s.sessions
	if partitions > len(q.interests)/4 || len(q.all) == 0 {
		return none
	}
	for q.free == none || q.interestsFree < partitions {
		if !s.evictSession(partitions) {
			return none
		}
	}
	i := q.free
	x := &q.all[i]
	q.free = x.byUse.Next
	low := bits.Len(uint(len(q.all)))
	q.seed = q.seed*6364136223846793005 + 1442695040888963407
	id := int32(q.seed>>33)>>low<<low | i
	if id == 0 {
		id = 1 << low
	}
	*x = session{id: id, epoch: 1, byID: byID, all: mem.EmptyList, ready: mem.EmptyList, fetch: none, removals: s.topics.removals, created: s.now}
	q.n++
	q.uses.PushBack(&q.byUse, i)
	x.used = s.now
	return i
}

// evictSession ends the session least recently used, where that was long ago;
// else the smallest of those that are old, where the one to be is larger.
func (s *Shard) evictSession(partitions int) bool {
	q := &s.sessions
	if q.byUse.Empty() {
		return false
	}
	if oldest := q.byUse.First; s.now-q.all[oldest].used > sessionEvictNS {
		s.endSession(oldest)
		return true
	}
	smallest := none
	for i := range q.all {
		x := &q.all[i]
		if x.id != 0 && s.now-x.created > sessionEvictNS && int(x.size) < partitions && (smallest == none || x.size < q.all[smallest].size) {
			smallest = int32(i)
		}
	}
	if smallest == none {
		return false
	}
	s.endSession(smallest)
	return true
}

// endSession forgets a session. The fetch in flight with it hears that it is
// not there.
func (s *Shard) endSession(i int32) {
	q := &s.sessions
	x := &q.all[i]
	if x.fetch != none {
		s.expel(i, kafka.FetchSessionIDNotFound)
	}
	for !x.all.Empty() {
		s.lose(x.all.First)
	}
	q.uses.Remove(&q.byUse, i)
	q.n--
	*x = session{byUse: mem.Links{Next: q.free}}
	q.free = i
}

// expel answers the fetch in flight with a session with an error.
func (s *Shard) expel(i int32, code kafka.ErrorCode) {
	x := &s.sessions.all[i]
	fetch := &s.fetches.requests[x.fetch]
	fetch.code, fetch.session = code, none
	s.schedule(&s.requests.all[x.fetch])
	x.fetch = none
}

// detach: a Fetch is no longer in flight with its session.
func (s *Shard) detach(fetch *fetchRequest) {
	if fetch.session != none {
		s.sessions.all[fetch.session].fetch = none
		fetch.session = none
	}
}

// touch: a session is used; its next request comes with the next epoch.
func (s *Shard) touch(i int32) {
	q := &s.sessions
	q.uses.Remove(&q.byUse, i)
	q.uses.PushBack(&q.byUse, i)
	x := &q.all[i]
	x.used = s.now
	if x.epoch++; x.epoch < 0 {
		x.epoch = 1
	}
}

func (q *sessions) bucket(session, topic, index int32) *int32 {
	h := uint64(uint32(session))*0x9e3779b97f4a7c15 ^ uint64(uint32(topic))*0xc2b2ae3d27d4eb4f ^ uint64(uint32(index))*0x165667b19e3779f9
	return &q.buckets[(h^h>>32)&uint64(len(q.buckets)-1)]
}

func (q *sessions) lookup(session, topic, index int32) int32 {
	for n := *q.bucket(session, topic, index) - 1; n != none; n = q.interests[n].hashNext {
		if x := &q.interests[n]; x.session == session && x.topic == topic && x.index == index {
			return n
		}
	}
	return none
}

func (q *sessions) hash(n int32) {
	x := &q.interests[n]
	b := q.bucket(x.session, x.topic, x.index)
	x.hashNext, *b = *b-1, n+1
}

func (q *sessions) unhash(n int32) {
	x := &q.interests[n]
	b := q.bucket(x.session, x.topic, x.index)
	if *b-1 == n {
		*b = x.hashNext + 1
		return
	}
	at := *b - 1
	for q.interests[at].hashNext != n {
		at = q.interests[at].hashNext
	}
	q.interests[at].hashNext = x.hashNext
}

// gain has a session take interest in a partition, or change what it asks of
// it. False: there is no room.
func (s *Shard) gain(i, topic int32, p *kafka.FetchPartition) (n int32, ok bool) {
	q := &s.sessions
	x := &q.all[i]
	if n = q.lookup(i, topic, p.Index); n == none {
		if q.freeInterest == none || int(x.size) >= len(q.interests)/4 {
			return none, false
		}
		n = q.freeInterest
		y := &q.interests[n]
		q.freeInterest = y.ofSession.Next
		q.interestsFree--
		*y = interest{session: i, topic: topic, index: p.Index, high: -1, start: -1}
		q.ofSession.PushFront(&x.all, n)
		x.size++
		q.hash(n)
	}
	y := &q.interests[n]
	y.from, y.max, y.epoch = p.Offset, max(p.MaxBytes, 0), p.CurrentEpoch
	s.readied(n)
	return n, true
}

// lose ends an interest.
func (s *Shard) lose(n int32) {
	q := &s.sessions
	y := &q.interests[n]
	x := &q.all[y.session]
	q.unready(n)
	s.unwatch(n)
	q.unhash(n)
	q.ofSession.Remove(&x.all, n)
	x.size--
	y.ofSession.Next, q.freeInterest = q.freeInterest, n
	q.interestsFree++
}

// readied: there may be something to say of an interest's partition.
func (s *Shard) readied(n int32) {
	q := &s.sessions
	y := &q.interests[n]
	x := &q.all[y.session]
	if x.fetch != none {
		s.fetches.requests[x.fetch].changed = true
	}
	if y.ready {
		return
	}
	y.ready, y.tally = true, tally{counted: y.from}
	q.readies.PushBack(&x.ready, n)
}

func (q *sessions) unready(n int32) {
	if y := &q.interests[n]; y.ready {
		y.ready = false
		q.readies.Remove(&q.all[y.session].ready, n)
	}
}

// watch has an interest wait for its partition's news.
func (s *Shard) watch(n int32, on *partition) {
	if y := &s.sessions.interests[n]; !y.waits {
		y.waits, y.slot = true, int32(on.slot)
		s.sessions.waits.PushFront(&on.subscribers, n)
	}
}

func (s *Shard) unwatch(n int32) {
	if y := &s.sessions.interests[n]; y.waits {
		y.waits = false
		s.sessions.waits.Remove(&s.partitions[y.slot].subscribers, n)
	}
}

// stir tells the sessions that wait for news of a partition that there are some:
// appends, a new start, or that it is gone. Each hears it once between two of
// its fetches, but for those whose fetch waits, which count.
func (s *Shard) stir(on *partition, gone bool) {
	if s.o.Faults.NewsMissed && !gone {
		return
	}
	for n := on.subscribers.First; n != none; {
		y := &s.sessions.interests[n]
		next := s.sessions.waits.Next(n)
		s.readied(n)
		fetch := s.sessions.all[y.session].fetch
		parked := fetch != none && s.fetches.requests[fetch].parked
		if !parked || gone {
			s.unwatch(n)
		}
		if parked {
			if gone {
				s.schedule(&s.requests.all[fetch])
			} else {
				s.count(&s.requests.all[fetch], on, &y.tally, y.max)
			}
		}
		n = next
	}
}

// continueSession takes what a request changes of its session, and has the
// fetch be the session's. The walk stands behind the head of the request, which
// is well formed.
func (s *Shard) continueSession(req *request, fetch *fetchRequest, walk *kafka.FetchWalk, id, epoch int32) kafka.ErrorCode {
	byID := req.header.Version >= kafka.FetchByID
	n := s.sessions.find(id)
	if n == none {
		return kafka.FetchSessionIDNotFound
	}
	x := &s.sessions.all[n]
	switch {
	case x.epoch != epoch:
		return kafka.InvalidFetchSessionEpoch
	case x.byID != byID:
		return kafka.FetchSessionTopicIDError
	}
	if x.fetch != none {
		s.expel(n, kafka.InvalidFetchSessionEpoch) // as Kafka does: the session went on without it
	}
	s.rehome(n)
	for walk.Topics() > 0 {
		t, _ := walk.NextTopic()
		topic := s.topics.lookup(t.Name, byID)
		if topic == none {
			topic = s.goneTopic(n, t.Name)
		}
		for range t.Partitions {
			p, _ := walk.NextPartition()
			if topic == none {
				// What is not known here has no place in a session; the whole
				// fetch that follows is told so, partition by partition.
				s.endSession(n)
				return kafka.FetchSessionIDNotFound
			}
			if _, ok := s.gain(n, topic, &p); !ok {
				s.endSession(n)
				return kafka.FetchSessionIDNotFound
			}
		}
	}
	walk.Forgotten()
	for walk.Topics() > 0 {
		t, _ := walk.NextForgotten()
		topic := s.topics.lookup(t.Name, byID)
		if topic == none {
			topic = s.goneTopic(n, t.Name)
		}
		for range t.Partitions {
			index, _ := walk.NextForgottenPartition()
			if at := s.sessions.lookup(n, topic, index); at != none {
				s.lose(at)
			}
		}
	}
	if x.size == 0 {
		s.endSession(n)
		return kafka.None
	}
	s.touch(n)
	fetch.session, fetch.sessionID = n, x.id
	x.fetch = int32(req.slot)
	return kafka.None
}

// rehome looks after a session's topics that are gone. Where one of the same
// name is there, a session that names topics by name means that one.
func (s *Shard) rehome(n int32) {
	q := &s.sessions
	x := &q.all[n]
	if !x.gone && x.removals == s.topics.removals {
		return
	}
	x.removals, x.gone = s.topics.removals, false
	for at := x.all.First; at != none; at = q.ofSession.Next(at) {
		y := &q.interests[at]
		t := &s.topics.all[y.topic]
		if !t.gone {
			continue
		}
		again := none
		if !x.byID {
			again = s.topics.find(t.nameBytes)
		}
		if again == none {
			x.gone = true
			s.readied(at)
			continue
		}
		s.unwatch(at)
		q.unhash(at)
		y.topic = again
		q.hash(at)
		s.readied(at)
	}
}

// goneTopic finds a topic that a session has and that is gone, by the name or
// id of a request.
func (s *Shard) goneTopic(n int32, name []byte) int32 {
	x := &s.sessions.all[n]
	if !x.gone {
		return none
	}
	for at := x.all.First; at != none; at = s.sessions.ofSession.Next(at) {
		topic := s.sessions.interests[at].topic
		t := &s.topics.all[topic]
		if t.gone && (x.byID && string(name) == string(t.id[:]) || !x.byID && string(name) == t.name) {
			return topic
		}
	}
	return none
}

// addChangedParts makes parts of those partitions of a session's Fetch of which
// there may be something to say. Of what it leaves out, rest says whether there is
// any.
func (s *Shard) addChangedParts(req *request, fetch *fetchRequest) (rest bool) {
	q := &s.sessions
	fetch.changed = false
	byID, left := q.all[fetch.session].byID, s.credit.fetchesFree()
	for n := q.all[fetch.session].ready.First; n != none; {
		y := &q.interests[n]
		next := q.readies.Next(n)
		p, code := s.topics.locateAt(y.topic, y.index, byID, y.epoch)
		if code == kafka.None {
			s.Timelines.Counters.PartitionsLookedAt++
			high := p.highWatermark()
			_, st := s.engine.Read(p.slot, y.from, high, 0, nil)
			if st == engine.Empty && y.from >= high && high == y.high && s.engine.Start(p.slot) == y.start {
				q.unready(n)
				s.watch(n, p)
				n = next
				continue
			}
		}
		if left == 0 {
			return true
		}
		left--
		part := &s.fetches.parts.all[s.fetches.parts.take(&fetch.parts, &s.credit, &emptyFetchPart)]
		part.request, part.topic, part.index, part.partition, part.code, part.from, part.max, part.session = req.slot, y.topic, y.index, p, code, y.from, y.max, n
		n = next
	}
	return false
}

// releaseParts gives the parts of a session's Fetch back, with what was counted
// of them; with watch the Fetch waits for more.
func (s *Shard) releaseParts(fetch *fetchRequest, watch bool) {
	for p := fetch.parts.First; p != none; p = s.fetches.parts.next(p) {
		part := &s.fetches.parts.all[p]
		if n := part.session; watch && n != none {
			s.sessions.interests[n].tally = part.tally
			s.watch(n, part.partition)
		}
	}
	s.dropParts(fetch)
}

// dropUnchanged gives back those parts of a session's Fetch of which there is
// nothing to say.
func (s *Shard) dropUnchanged(fetch *fetchRequest) {
	for p := fetch.parts.First; p != none; {
		next := s.fetches.parts.next(p)
		if s.unchanged(&s.fetches.parts.all[p]) {
			s.dropPart(fetch, p)
		}
		p = next
	}
}

// unchanged says that there is nothing to say of a part of a session's Fetch.
func (s *Shard) unchanged(part *fetchPart) bool {
	y := &s.sessions.interests[part.session]
	return part.code == kafka.None && part.views == 0 && part.high == y.high && part.start == y.start
}

// markSent: the client is told of a part. A partition that gave records goes
// behind the others.
func (s *Shard) markSent(part *fetchPart) {
	n := part.session
	y := &s.sessions.interests[n]
	y.high, y.start = part.high, part.start
	if part.code != kafka.None {
		y.high, y.start = -1, -1
	}
	if part.views > 0 {
		s.sessions.unready(n)
		s.readied(n)
	}
}

// createSession begins the session that a Fetch asked for, with the partitions
// it named, as it is answered. It is the id of the session, 0 where there is none.
func (s *Shard) createSession(req *request, fetch *fetchRequest) int32 {
	n := 0
	for p := fetch.parts.First; p != none; p = s.fetches.parts.next(p) {
		if s.fetches.parts.all[p].topic == none {
			return 0
		}
		n++
	}
	i := s.beginSession(n, req.header.Version >= kafka.FetchByID)
	if i == none {
		return 0
	}
	for p := fetch.parts.First; p != none; p = s.fetches.parts.next(p) {
		part := &s.fetches.parts.all[p]
		at, _ := s.gain(i, part.topic, &kafka.FetchPartition{Index: part.index, CurrentEpoch: part.epoch, Offset: part.from, MaxBytes: part.max})
		part.session = at
		s.markSent(part)
	}
	return s.sessions.all[i].id
}
