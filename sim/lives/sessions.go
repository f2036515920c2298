package lives

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// interestsMax is how many partitions all sessions of a node may have; one session may
// have a quarter of them.
const interestsMax = 40

// fetchSession is a simulated client's fetch session with one node (KIP-227).
// It names topics by name, has at most one fetch in flight, and sends it on any
// connection.
type fetchSession struct {
	node   int
	id     int32 // 0: not begun yet
	epoch  int32
	lives  int   // in which it was begun
	busy   *conn // of the fetch in flight; nil: none
	parts  []*sessionPart
	unsure bool // one of its topics was deleted: the node may end the session
	large  bool // it may have more partitions than a session may have: the node may end it
}

// sessionPart is a partition of a session: the fetch offset, and the last high watermark
// that the client got, -1 for none.
type sessionPart struct {
	book *partBook
	from int64
	told int64

	// When the fetch in flight was sent: the partition's start, and the highest high
	// watermark that any client had got.
	start int64
	high  int64
}

// fetchOn sends the next fetch of a session: it moves the fetch offset of some partitions,
// adds one, and removes one.
func (s *brokerSim) fetchOn(p *partBook) error {
	for len(s.fetchers) <= p.node {
		s.fetchers = append(s.fetchers, nil)
	}
	x := s.fetchers[p.node]
	if x != nil && x.busy != nil && !x.busy.c.Closed {
		return nil
	}
	for i := 0; x != nil && i < len(x.parts); i++ {
		if y := x.parts[i].book.topic; y != p.topic && y.name == p.topic.name {
			x = nil // one of that name is in it, and is gone
		}
	}
	if x == nil || x.busy != nil || x.lives != s.lives && s.rng.IntN(2) == 0 {
		x = &fetchSession{node: p.node, lives: s.lives}
		s.fetchers[p.node] = x
	}
	c, err := s.to(p.node)
	if err != nil {
		return err
	}
	req := kmsg.NewPtrFetchRequest()
	req.Version, req.ReplicaID = int16(7+s.rng.IntN(6)), -1
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = int32(s.pick(0, 1, 20)), int32(s.pick(0, 1, 10_000)), int32(s.pick(1, 10_000, 1<<20))
	req.SessionID, req.SessionEpoch = x.id, x.epoch
	name := func(y *sessionPart) {
		q := kmsg.NewFetchRequestTopicPartition()
		q.Partition, q.FetchOffset, q.PartitionMaxBytes, q.CurrentLeaderEpoch = y.book.index, y.from, 1<<20, -1
		t := kmsg.NewFetchRequestTopic()
		t.Topic, t.Partitions = y.book.topic.name, append(t.Partitions, q)
		req.Topics = append(req.Topics, t)
	}
	has := false
	x.large = len(x.parts) >= interestsMax/4
	var keep []*sessionPart
	for _, y := range x.parts {
		switch {
		case x.id != 0 && (y.book.topic.fate != open || y.book != p && s.rng.IntN(20) == 0):
			t := kmsg.NewFetchRequestForgottenTopic()
			t.Topic, t.Partitions = y.book.topic.name, append(t.Partitions, y.book.index)
			req.ForgottenTopics = append(req.ForgottenTopics, t)
			x.unsure = x.unsure || y.book.topic.fate != open
			continue
		case y.book.topic.fate != open:
			continue
		case x.id == 0 || y.book == p || s.rng.IntN(4) == 0:
			y.from = s.rng.Int64N(y.book.known() + 1)
			if s.rng.IntN(2) == 0 {
				y.from = y.book.known() // to wait there
			}
			name(y)
		}
		has = has || y.book == p
		keep = append(keep, y)
	}
	x.parts = keep
	if !has {
		y := &sessionPart{book: p, from: s.rng.Int64N(p.known() + 1), told: -1}
		x.parts = append(x.parts, y)
		name(y)
	}
	for _, y := range x.parts {
		y.start, y.high = y.book.start, y.book.high
	}
	x.busy = c
	c.ask(req, owed{note: x})
	return nil
}

// fetchedOn compares a session's answer with the oracle. Partitions that the answer does
// not have must be unchanged.
func (s *brokerSim) fetchedOn(c *conn, k owed, x *fetchSession, r *kmsg.FetchResponse) error {
	x.busy = nil
	mine := s.fetchers[x.node] == x
	for _, y := range x.parts {
		x.unsure = x.unsure || y.book.topic.fate != open
	}
	if r.ErrorCode != 0 {
		if mine {
			s.fetchers[x.node] = nil
		}
		if r.ErrorCode == codeNoSession && (x.lives != s.lives || x.unsure || x.large) {
			return nil
		}
		return fmt.Errorf("a fetch of session %d, epoch %d, of %d partitions: error %d", x.id, x.epoch, len(x.parts), r.ErrorCode)
	}
	records := false
	said := map[*sessionPart]bool{}
	for i := range r.Topics {
		for j := range r.Topics[i].Partitions {
			q := &r.Topics[i].Partitions[j]
			var of *sessionPart
			for _, y := range x.parts {
				if y.book.topic.name == r.Topics[i].Topic && y.book.index == q.Partition {
					of = y
				}
			}
			if of == nil && x.unsure {
				continue
			}
			if of == nil || said[of] {
				return fmt.Errorf("a session of %d partitions is told of %s/%d, not of it or twice", len(x.parts), r.Topics[i].Topic, q.Partition)
			}
			said[of] = true
			of.told = q.HighWatermark
			if q.ErrorCode != 0 {
				of.told = -1
			}
			records = records || len(q.RecordBatches) > 0
			if of.book.topic.fate != open {
				continue // it may be the next topic of the same name
			}
			if err := s.fetchedPart(c, of.book, of.from, of.start, r.Version, q); err != nil {
				return err
			}
		}
	}
	for _, y := range x.parts {
		if said[y] || y.book.topic.fate != open {
			continue
		}
		switch {
		case x.epoch == 0:
			return fmt.Errorf("a session's first answer does not speak of %s/%d", y.book.topic.name, y.book.index)
		case y.told < y.high:
			return fmt.Errorf("SILENT: %s/%d: a session was told of high watermark %d and no other since, others of %d before", y.book.topic.name, y.book.index, y.told, y.high)
		case !records && y.from < y.told:
			return fmt.Errorf("SILENT: %s/%d: a session that reads from %d is given nothing, and the high watermark is %d", y.book.topic.name, y.book.index, y.from, y.told)
		}
	}
	s.reads++
	if x.id != 0 && r.SessionID != x.id || r.SessionID == 0 && !x.unsure && x.epoch != 0 {
		return fmt.Errorf("session %d was answered as %d", x.id, r.SessionID)
	}
	if r.SessionID == 0 { // no room, or a topic that was deleted
		if mine {
			s.fetchers[x.node] = nil
		}
		return nil
	}
	x.id = r.SessionID
	x.epoch++
	return nil
}
