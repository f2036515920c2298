package lives

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/cluster/groups"
	"github.com/tailbound/tailbound/ioring"
)

// This file is the members of a group of the consumer protocol (KIP-848) in the
// broker's workload: they join, release partitions late, commit, leave and crash. The
// oracle checks that no member is assigned a partition that another may still use,
// whatever happens to the broker; that a member's epoch does not go back; that a commit
// of an earlier epoch is refused; and that once no more faults occur, all members soon
// have their partitions and every partition has an owner.

const consumerSessionMS = 200

// consumer is a client in a group of the consumer protocol.
type consumer struct {
	group      *groupBook
	instance   string
	id         string
	epoch      int32
	last       int32               // an epoch before that one; 0: none
	uses       map[partition]bool  // partitions that it may still use
	since      map[partition]grant // since when it has been assigned what it was assigned last
	lastLife   int                 // the broker's life in which it was in epoch last
	toldIn     int                 // the broker's life in which it was told of its epoch
	lastToldIn int                 // ... and of epoch last
	has        map[partition]bool  // its last assignment; it has to release the others
	full       bool                // its next heartbeat has to have all fields

	// classic says that it uses the classic protocol, in which it releases all
	// partitions before it joins again. Its epoch is its generation.
	classic, joined, stable bool
	others                  []kmsg.JoinGroupResponseMember // if it is the leader
	subscribes              []string                       // the subscription with which it joined; see news

	sent  ioring.Instant // when it sent its last request
	heard ioring.Instant // when it sent the last request that was answered
	conn  *conn
	waits bool
}

// grant is when a member was given a partition, as far as it knows: an epoch, and a life of the
// broker.
type grant struct {
	epoch int32
	life  int
}

type partition struct {
	topic [16]byte
	index int32
}

func (s *brokerSim) makeConsumers() {
	g := &groupBook{name: "consumers", owners: map[claim]string{}}
	s.groups = append(s.groups, g)
	for i := range 4 {
		m := &consumer{group: g}
		if i == 0 {
			m.instance = "static"
		}
		s.consumers = append(s.consumers, m)
	}
	o := &s.o.Groups
	o.ConsumerSessionTimeoutMS, o.ConsumerHeartbeatIntervalMS = consumerSessionMS, 10
}

// out makes it leave the group and use no partition.
func (m *consumer) out() {
	m.id, m.epoch, m.last, m.uses, m.has, m.since, m.full = "", 0, 0, nil, nil, nil, false
	m.joined, m.stable, m.others = false, false, nil
}

// actConsumer has a member take its next step or, unless calm, sometimes do something else.
func (s *brokerSim) actConsumer(m *consumer, calm bool) error {
	if m.conn == nil || m.conn.c.Closed {
		c, err := s.connect(0)
		if err != nil {
			return err
		}
		c.private = true
		m.conn, m.waits = c, false
	}
	if m.waits {
		if !calm && s.rng.IntN(40) == 0 {
			m.conn.c.Reset()
		}
		return nil
	}
	x := 99
	if !calm {
		x = s.rng.IntN(100)
	}
	switch {
	case x < 3: // it crashes and forgets its member id
		m.conn.c.Reset()
		m.out()
		return nil
	case x < 25 && m.epoch > 0 && (!m.classic || m.stable):
		s.commitConsumer(m)
		return nil
	}
	if m.id == "" && m.epoch == 0 && !calm && s.o.Groups.Migration.Upgrades && s.o.Groups.GroupSizeMax > len(s.consumers) {
		// As a client that is restarted with another configuration: all of them are in
		// turn, and then back.
		m.classic = s.starts/6%2 == 0
		if s.rng.IntN(10) == 0 {
			m.classic = !m.classic
		}
		s.starts++
	}
	if m.classic {
		s.actClassic(m, x)
		return nil
	}
	req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	req.Version, req.Group, req.RebalanceTimeoutMillis = 1, m.group.name, -1
	if m.instance != "" {
		req.InstanceID = &m.instance
	}
	if m.id == "" {
		s.joins++
		m.id, m.full = fmt.Sprintf("c%d", s.joins), true
	}
	req.MemberID, req.MemberEpoch = m.id, m.epoch
	leaves := x < 29 && m.epoch > 0
	if leaves {
		req.MemberEpoch = cluster.EpochLeave
		if m.instance != "" && s.rng.IntN(2) == 0 {
			req.MemberEpoch = cluster.EpochAway
		}
		m.out()
	}
	if m.full && !leaves {
		regex := ".*"
		req.SubscribedTopicRegex, req.SubscribedTopicNames, req.RebalanceTimeoutMillis = &regex, []string{}, 3_600_000
		if s.rng.IntN(4) == 0 {
			assignor := []string{groups.AssignUniform, groups.AssignRange}[s.rng.IntN(2)]
			req.ServerAssignor = &assignor
		}
	}
	if m.epoch == 0 {
		m.uses, m.has, m.since = nil, nil, nil
	} else if calm || s.rng.IntN(2) == 0 {
		m.uses = m.has // it has released the others
	}
	if m.full || calm || s.rng.IntN(2) == 0 {
		req.Topics = owned(m.uses)
	}
	m.waits, m.sent = true, s.w.Now
	m.conn.ask(req, owed{note: &groupAsk{consumer: m, group: m.group}})
	return nil
}

// owned lists partitions in order, so that a request depends on the seed only.
func owned(all map[partition]bool) []kmsg.ConsumerGroupHeartbeatRequestTopic {
	out := []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	for _, p := range slices.SortedFunc(maps.Keys(all), func(a, b partition) int {
		return cmp.Or(bytes.Compare(a.topic[:], b.topic[:]), cmp.Compare(a.index, b.index))
	}) {
		if n := len(out); n == 0 || out[n-1].TopicID != p.topic {
			t := kmsg.NewConsumerGroupHeartbeatRequestTopic()
			t.TopicID = p.topic
			out = append(out, t)
		}
		t := &out[len(out)-1]
		t.Partitions = append(t.Partitions, p.index)
	}
	return out
}

// commitConsumer commits an offset, sometimes with an earlier epoch.
func (s *brokerSim) commitConsumer(m *consumer) {
	o := s.anOffset(m.group)
	if o == nil {
		return
	}
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Version, req.Group, req.MemberID, req.Generation = 9, m.group.name, m.id, m.epoch
	if m.classic {
		req.Version = 7
	}
	stale, late := m.last > 0 && s.rng.IntN(4) == 0, false
	if stale {
		req.Generation = m.last
		stale, late = s.earlierEpoch(m, partition{o.part.topic.id, o.part.index})
	}
	s.commits++
	o.offered, o.busy, m.waits = s.commits, true, true
	p := kmsg.NewOffsetCommitRequestTopicPartition()
	p.Partition, p.Offset = o.part.index, s.commits
	t := kmsg.NewOffsetCommitRequestTopic()
	t.Topic, t.Partitions = o.part.topic.name, append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	m.conn.ask(req, owed{note: &groupAsk{consumer: m, group: m.group, offset: o, serial: s.commits, stale: stale, late: late}})
}

// earlierEpoch says whether a commit of a partition in the member's last epoch has to be
// refused, and whether it has to be taken: it may have been under way when the epoch rose
// (KIP-1251). The broker does not remember over a restart since when a member has a partition.
func (s *brokerSim) earlierEpoch(m *consumer, p partition) (refused, taken bool) {
	since, had := m.since[p]
	if m.classic || !had || since.epoch > m.last {
		// After a crash it may have had the partition in that epoch: the crash took the answer that said so.
		return m.classic || m.lastToldIn == s.lives, false
	}
	if m.uses[p] {
		return false, since.life == s.lives && m.lastLife == s.lives
	}
	// It has given the partition up. The broker may not know it yet, but once another member
	// may use it, it does.
	return slices.ContainsFunc(s.consumers, func(o *consumer) bool { return o != m && o.uses[p] }), false
}

// beaten checks the response to a heartbeat.
func (s *brokerSim) beaten(m *consumer, r *kmsg.ConsumerGroupHeartbeatResponse, down func(int16) bool) error {
	switch code := r.ErrorCode; {
	case code == 0:
	case code == codeUnknownMember || code == codeFenced || code == codeFencedEpoch || code == codeNoGroup:
		m.out()
		return nil
	case code == codeGroupFull: // crashed members, until their sessions end, would make the group too large
		m.out()
		return nil
	case code == codeUnreleased:
		m.out() // until its former session is over
		return nil
	case down(code):
		m.full = true
		return nil
	default:
		return fmt.Errorf("a heartbeat to %s: error %d", m.group.name, code)
	}
	if m.id == "" || r.MemberEpoch < 0 {
		return nil // it left
	}
	if r.MemberEpoch < m.epoch {
		return fmt.Errorf("WENT BACK: %s of %s was at epoch %d and is at %d", m.id, m.group.name, m.epoch, r.MemberEpoch)
	}
	if r.MemberEpoch > m.epoch {
		m.last, m.lastLife, m.lastToldIn, m.toldIn = m.epoch, s.lives, m.toldIn, s.lives
	}
	m.epoch, m.heard, m.full = r.MemberEpoch, m.sent, false
	if r.Assignment == nil {
		return nil
	}
	had := m.has
	m.has = map[partition]bool{}
	uses := map[partition]bool{}
	if m.since == nil {
		m.since = map[partition]grant{}
	}
	for p := range m.uses {
		uses[p] = true
	}
	for _, t := range r.Assignment.Topics {
		for _, i := range t.Partitions {
			p := partition{t.TopicID, i}
			m.has[p], uses[p] = true, true
			if !had[p] {
				m.since[p] = grant{m.epoch, s.lives}
			}
			if err := s.mayUse(m, p); err != nil {
				return err
			}
		}
	}
	m.uses = uses
	return nil
}

// mayUse says whether another member may use a partition that a member is assigned.
func (s *brokerSim) mayUse(m *consumer, p partition) error {
	for _, o := range s.consumers {
		// Its session was at least as long, because it began when the heartbeat arrived.
		if o != m && o.uses[p] && s.w.Now-o.heard < (consumerSessionMS-1)*1_000_000 {
			return fmt.Errorf("TWICE: partition %d of topic %x is assigned to %s, and %s may use it", p.index, p.topic, m.id, o.id)
		}
	}
	return nil
}

// calm lets members do what the protocol demands and nothing else. Soon all of them
// must be members, and every partition must have an owner.
func (s *brokerSim) calm() error {
	if s.full {
		return nil // nothing can be stored
	}
	// Time for the sessions of crashed members, one after another, and for rebalances
	// that wait for them.
	if err := s.calmed(); err != nil {
		return err
	}
	// Members of the consumer protocol leave for good, one after another, and the
	// remaining members get their partitions.
	all := s.consumers
	defer func() { s.consumers = all }()
	if !slices.ContainsFunc(all, func(m *consumer) bool { return m.classic }) {
		return nil
	}
	for _, m := range all {
		if m.classic {
			continue
		}
		if m.conn == nil || m.conn.c.Closed || m.waits {
			return nil // it is not a member yet
		}
		req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
		req.Version, req.Group, req.MemberID, req.MemberEpoch, req.RebalanceTimeoutMillis = 1, m.group.name, m.id, cluster.EpochLeave, -1
		if m.instance != "" {
			req.InstanceID = &m.instance
		}
		m.out()
		m.waits = true
		m.conn.ask(req, owed{note: &groupAsk{consumer: m, group: m.group}})
		s.consumers = slices.DeleteFunc(slices.Clone(s.consumers), func(o *consumer) bool { return o == m })
		if err := s.calmed(); err != nil {
			return err
		}
	}
	return nil
}

// calmed waits until every member has the partitions that it is to have.
func (s *brokerSim) calmed() error {
	why, next := "", s.w.Now
	for until := s.w.Now + 3_000_000_000; s.w.Now < until; {
		if s.w.Now >= next {
			next = s.w.Now + 5_000_000
			for _, m := range s.members {
				if err := s.actMember(m, true); err != nil {
					return err
				}
			}
			for _, m := range s.consumers {
				if err := s.actConsumer(m, true); err != nil {
					return err
				}
			}
		}
		if err := s.rest(); err != nil {
			return err
		}
		if why = s.stuck(); why == "" {
			return nil
		}
	}
	return fmt.Errorf("STUCK: %s, though nothing has gone wrong for long", why)
}

// stuck names a member that does not have its partitions yet.
func (s *brokerSim) stuck() string {
	for _, m := range s.members {
		if s.o.Groups.GroupSizeMax > len(s.members) && !m.stable {
			return fmt.Sprintf("a member %q of %s is not stable", m.id, m.group.name)
		}
	}
	owners := map[partition]bool{}
	for _, m := range s.consumers {
		if m.epoch == 0 || m.full || m.classic && !m.stable {
			return fmt.Sprintf("%q is no member of %s", m.id, m.group.name)
		}
		for p := range m.has {
			owners[p] = true
		}
	}
	want := 0
	for _, t := range s.openTopics() {
		want += len(t.parts)
	}
	if len(owners) < want {
		return fmt.Sprintf("%d of %d partitions have an owner", len(owners), want)
	}
	return ""
}
