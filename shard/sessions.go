package shard

import (
	"math/bits"
	"unsafe"

	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/mem"
	"github.com/tailbound/tailbound/metrics"
)

// sessions has the fetch sessions of a data shard (KIP-227). They belong to the
// shard: a request of any of its connections may continue any of them. Both tables
// are of fixed size, in the arena. A client that finds no room gets no session, and
// names all of its partitions in each Fetch.
//
// A Fetch of a session costs as much as has changed, not as much as the session
// has. A partition of a session is ready if a Fetch may have to send something about
// it; else it subscribes to changes:
//
//	named by a request, records appended, a new log start, deleted: it becomes ready
//	examined by a Fetch that has nothing to send about it: it subscribes
//
// Invariant: a partition of a session that is not ready is subscribed. One that is
// ready is subscribed too only while a Fetch of its session waits for data, or until
// the next change.
type sessions struct {
	all   []session
	free  int32
	byUse mem.List // least recently used first
	uses  mem.Thread
	n     int

	members     []sessionPartition
	membersFree int
	freeMember  int32
	fresh       mem.Fresh // of members
	buckets     []int32   // hash table of members by session, topic and partition: index + 1
	seed        uint64
	ofSession   mem.Thread // through session.members
	readies     mem.Thread // through session.ready
	subscribers mem.Thread // through partition.subscribers

	partitions *partitions
	topics     *topicTable
	requests   *requests
	fetches    *fetches
	counters   *metrics.Counters
}

// session is one fetch session.
type session struct {
	id       int32 // 0: not in use
	epoch    int32 // that the next request must have
	byID     bool  // it names topics by their ids
	gone     bool  // it had partitions of deleted topics when removals was set
	changed  bool  // a partition has become ready that the Fetch in flight has not examined
	size     int32
	members  mem.List // its partitions
	ready    mem.List // those that are ready, in the order in which they are served
	fetch    int32    // slot of the Fetch that is in flight for it; else none
	removals uint64   // topicTable.removals when its topics were last compared
	created  ioring.Instant
	used     ioring.Instant
	byUse    mem.Links // in a free entry Next is the next free one
}

// sessionPartition is what a session knows of one of its partitions.
type sessionPartition struct {
	session      int32
	topic        int32
	index        int32
	max          int32
	epoch        int32     // leader epoch that the client knows; -1: none
	slot         int32     // of the partition that it is subscribed to
	ofSession    mem.Links // in a free entry Next is the next free one
	readies      mem.Links
	subscription mem.Links // in partition.subscribers
	hashNext     int32
	tally
	from       int64
	high       int64 // high watermark and log start in the last reply; -1 after an error
	start      int64
	ready      bool
	subscribed bool
}

// SessionsMax is how many fetch sessions a data shard keeps by default, and
// sessionEvictNS how long one cannot be evicted by another: the defaults of Kafka's
// max.incremental.fetch.session.cache.slots and
// min.incremental.fetch.session.eviction.ms.
const (
	SessionsMax    = 1000
	sessionEvictNS = 120e9
)

// SessionPartitionBytes is the memory of one partition of a session, with at most
// two hash buckets.
const SessionPartitionBytes = int(unsafe.Sizeof(sessionPartition{})) + 8

func newSessions(arena *mem.Arena, slots, members int, seed uint64) (t sessions, err error) {
	t.seed, t.free = seed, none
	t.byUse, t.freeMember = mem.EmptyList, none
	if slots == 0 || members == 0 {
		return t, nil
	}
	if t.all, err = mem.AllocateTable[session](arena, "fetch sessions", slots); err != nil {
		return t, err
	}
	var region *mem.Region
	if t.members, region, err = mem.AllocateGrowing[sessionPartition](arena, "partitions in fetch sessions", members); err != nil {
		return t, err
	}
	t.fresh, t.freeMember = mem.FreshOf(t.members, region)
	if t.buckets, err = mem.AllocateTable[int32](arena, "partitions in fetch sessions, by name", 1<<bits.Len(uint(members-1))); err != nil {
		return t, err
	}
	for i := slots - 1; i >= 0; i-- {
		t.all[i].byUse.Next, t.free = t.free, int32(i)
	}
	t.uses = mem.ThreadOf(t.all, func(session *session) *mem.Links { return &session.byUse })
	t.ofSession = mem.ThreadOf(t.members, func(member *sessionPartition) *mem.Links { return &member.ofSession })
	t.readies = mem.ThreadOf(t.members, func(member *sessionPartition) *mem.Links { return &member.readies })
	t.subscribers = mem.ThreadOf(t.members, func(member *sessionPartition) *mem.Links { return &member.subscription })
	t.membersFree = members
	return t, nil
}

// find is the session with that id, none if there is none. The id's low bits are the
// index in the table, the others are random.
func (t *sessions) find(id int32) int32 {
	if i := id & (1<<bits.Len(uint(len(t.all))) - 1); id > 0 && int(i) < len(t.all) && t.all[i].id == id {
		return i
	}
	return none
}

// fits says whether a session may have so many partitions: at most a quarter of all.
func (t *sessions) fits(partitions int) bool {
	return partitions <= len(t.members)/4 && len(t.all) > 0
}

// full says that a session has to end before there is room for another one of so
// many partitions.
func (t *sessions) full(partitions int) bool { return t.free == none || t.membersFree < partitions }

// victim is the session to evict for a new one of so many partitions: the least
// recently used if that is longer ago than sessionEvictNS, else the smallest of those
// that were created longer ago than that, if it is smaller than the new one, else none
// (Kafka's FetchSessionCache.maybeCreateSession).
func (t *sessions) victim(partitions int, now ioring.Instant) int32 {
	if t.byUse.Empty() {
		return none
	}
	if oldest := t.byUse.First; now-t.all[oldest].used > sessionEvictNS {
		return oldest
	}
	smallest := none
	for i := range t.all {
		session := &t.all[i]
		if session.id != 0 && now-session.created > sessionEvictNS && int(session.size) < partitions && (smallest == none || session.size < t.all[smallest].size) {
			smallest = int32(i)
		}
	}
	return smallest
}

// begin takes a free session. There must be one.
func (t *sessions) begin(byID bool, now ioring.Instant) int32 {
	i := t.free
	session := &t.all[i]
	t.free = session.byUse.Next
	low := bits.Len(uint(len(t.all)))
	t.seed = t.seed*6364136223846793005 + 1442695040888963407
	id := int32(t.seed>>33)>>low<<low | i
	if id == 0 {
		id = 1 << low
	}
	*session = emptySession
	session.id, session.epoch = id, 1
	session.byID, session.removals = byID, t.topics.removals
	session.created, session.used = now, now
	t.n++
	t.uses.PushBack(&t.byUse, i)
	return i
}

var emptySession = session{members: mem.EmptyList, ready: mem.EmptyList, fetch: none}

// end frees a session. The Fetch in flight for it is answered that there is no such
// session.
func (t *sessions) end(i int32) {
	ended := &t.all[i]
	t.refuseInFlight(ended, kafka.FetchSessionIDNotFound)
	for !ended.members.Empty() {
		t.removePartition(ended.members.First)
	}
	t.uses.Remove(&t.byUse, i)
	t.n--
	*ended = session{byUse: mem.Links{Next: t.free}}
	t.free = i
}

// touch notes that a session is used. Its next request must have the next epoch.
func (t *sessions) touch(i int32, now ioring.Instant) {
	t.uses.Remove(&t.byUse, i)
	t.uses.PushBack(&t.byUse, i)
	session := &t.all[i]
	session.used = now
	if session.epoch++; session.epoch < 0 {
		session.epoch = 1
	}
}

func (t *sessions) bucket(session, topic, index int32) *int32 {
	hash := uint64(uint32(session))*0x9e3779b97f4a7c15 ^ uint64(uint32(topic))*0xc2b2ae3d27d4eb4f ^ uint64(uint32(index))*0x165667b19e3779f9
	return &t.buckets[(hash^hash>>32)&uint64(len(t.buckets)-1)]
}

// lookup is the member of a session with that topic and partition, or none.
func (t *sessions) lookup(session, topic, index int32) int32 {
	for at := *t.bucket(session, topic, index) - 1; at != none; at = t.members[at].hashNext {
		if member := &t.members[at]; member.session == session && member.topic == topic && member.index == index {
			return at
		}
	}
	return none
}

func (t *sessions) hash(at int32) {
	member := &t.members[at]
	bucket := t.bucket(member.session, member.topic, member.index)
	member.hashNext, *bucket = *bucket-1, at+1
}

func (t *sessions) unhash(at int32) {
	member := &t.members[at]
	bucket := t.bucket(member.session, member.topic, member.index)
	if *bucket-1 == at {
		*bucket = member.hashNext + 1
		return
	}
	before := *bucket - 1
	for t.members[before].hashNext != at {
		before = t.members[before].hashNext
	}
	t.members[before].hashNext = member.hashNext
}

// addPartition adds a partition to a session, or changes what the session asks of
// it. False: there is no room.
func (t *sessions) addPartition(i, topic int32, asked *kafka.FetchPartition) (at int32, ok bool) {
	session := &t.all[i]
	if at = t.lookup(i, topic, asked.Index); at == none {
		if t.freeMember == none || int(session.size) >= len(t.members)/4 {
			return none, false
		}
		at = t.freeMember
		member := &t.members[at]
		t.freeMember = t.fresh.Take(at, member.ofSession.Next)
		t.membersFree--
		*member = sessionPartition{session: i, topic: topic, index: asked.Index, high: -1, start: -1}
		t.ofSession.PushFront(&session.members, at)
		session.size++
		t.hash(at)
	}
	member := &t.members[at]
	member.from, member.max, member.epoch = asked.Offset, max(asked.MaxBytes, 0), asked.CurrentEpoch
	t.markReady(at)
	return at, true
}

// removePartition removes a partition from its session.
func (t *sessions) removePartition(at int32) {
	member := &t.members[at]
	session := &t.all[member.session]
	t.markUnchanged(at)
	t.unsubscribe(at)
	t.unhash(at)
	t.ofSession.Remove(&session.members, at)
	session.size--
	member.ofSession.Next, t.freeMember = t.freeMember, at
	t.membersFree++
}

// markReady notes that a Fetch may have something to send about a partition.
func (t *sessions) markReady(at int32) {
	member := &t.members[at]
	session := &t.all[member.session]
	session.changed = true
	if member.ready {
		return
	}
	member.ready, member.tally = true, tally{counted: member.from}
	t.readies.PushBack(&session.ready, at)
}

// markUnchanged notes that it has nothing to send.
func (t *sessions) markUnchanged(at int32) {
	if member := &t.members[at]; member.ready {
		member.ready = false
		t.readies.Remove(&t.all[member.session].ready, at)
	}
}

// subscribe has a member of a session become ready when its partition changes.
func (t *sessions) subscribe(at int32, p *partition) {
	if member := &t.members[at]; !member.subscribed {
		member.subscribed, member.slot = true, int32(p.slot)
		t.subscribers.PushFront(&p.subscribers, at)
	}
}

func (t *sessions) unsubscribe(at int32) {
	if member := &t.members[at]; member.subscribed {
		member.subscribed = false
		t.subscribers.Remove(&t.partitions.all[member.slot].subscribers, at)
	}
}

// unchanged says that a session's Fetch has nothing to send about a part.
func (t *sessions) unchanged(part *fetchPart) bool {
	member := &t.members[part.session]
	return part.code == kafka.None && part.views == 0 && part.high == member.high && part.start == member.start
}

// markSent notes what the reply says about a part. A partition that gave records
// goes to the end of the ready ones, so that the others are served before it.
func (t *sessions) markSent(part *fetchPart) {
	at := part.session
	member := &t.members[at]
	member.high, member.start = part.high, part.start
	if part.code != kafka.None {
		member.high, member.start = -1, -1
	}
	if part.views > 0 {
		t.markUnchanged(at)
		t.markReady(at)
	}
}

// remapTopics updates a session's partitions of deleted topics. In a session that
// names topics by name, a new topic of the same name takes their place.
func (t *sessions) remapTopics(i int32) {
	session := &t.all[i]
	if !session.gone && session.removals == t.topics.removals {
		return
	}
	session.removals, session.gone = t.topics.removals, false
	for at := session.members.First; at != none; at = t.ofSession.Next(at) {
		member := &t.members[at]
		topic := &t.topics.all[member.topic]
		if !topic.gone {
			continue
		}
		again := none
		if !session.byID {
			again = t.topics.find(topic.nameBytes)
		}
		if again == none {
			session.gone = true
			t.markReady(at)
			continue
		}
		t.unsubscribe(at)
		t.unhash(at)
		member.topic = again
		t.hash(at)
		t.markReady(at)
	}
}

// topic is the topic that a request of a session names, none if there is none. It may
// be a deleted one of which the session has partitions.
func (t *sessions) topic(i int32, name []byte) int32 {
	session := &t.all[i]
	if topic := t.topics.lookup(name, session.byID); topic != none || !session.gone {
		return topic
	}
	for at := session.members.First; at != none; at = t.ofSession.Next(at) {
		number := t.members[at].topic
		topic := &t.topics.all[number]
		if topic.gone && (session.byID && string(name) == string(topic.id[:]) || !session.byID && string(name) == topic.name) {
			return number
		}
	}
	return none
}

// detach ends a Fetch's being in flight for its session.
func (t *sessions) detach(fetch *fetchRequest) {
	if fetch.session != none {
		t.all[fetch.session].fetch = none
		fetch.session = none
	}
}
