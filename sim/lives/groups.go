package lives

import (
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/shard/control"
)

// This file is the consumer groups of the broker's workload: members that join,
// commit, leave and crash, and a client that commits without being a member. The
// oracle checks that a committed offset never goes back once it was acknowledged,
// whatever happens to the broker; that in one generation a partition has one owner,
// however often the assignment is sent; and that no generation is assigned twice.

// groupBook is what the oracle knows of one group.
type groupBook struct {
	name    string
	offsets []*offsetBook
	owners  map[claim]string // looked up only
	told    int32            // the highest generation of which an assignment was sent
}

type claim struct {
	generation int32
	partition  byte
}

// offsetBook is what is known of one committed offset. Clients commit increasing
// numbers, one at a time.
type offsetBook struct {
	part    *partBook
	acked   int64   // the last acknowledged, -1 for none
	maybe   []int64 // sent and never answered: they may be committed or not
	offered int64   // the last sent
	busy    bool    // a commit is in flight
}

// groupMember is a client in a group.
type groupMember struct {
	group      *groupBook
	instance   string // group.instance.id
	id         string
	generation int32
	leads      bool
	others     []string
	joined     bool
	stable     bool
	parts      []byte // its assignment
	conn       *conn  // its own
	waits      bool   // for a response
}

// groupAsk is what a request of a group was for.
type groupAsk struct {
	member   *groupMember // nil: from a client that is no member, or
	consumer *consumer    // of the consumer protocol
	stale    bool         // with an earlier epoch, which has to be refused
	late     bool         // with an earlier epoch, which is good all the same
	group    *groupBook
	offset   *offsetBook // of a commit
	serial   int64
	floor    []int64 // of a fetch: the acknowledged commits when it was sent, by offsetBook
	books    []*offsetBook
	elsewh   bool // it was sent to a node that is not the coordinator
}

// groupPartitions is how many partitions an assignment has. They are numbers, not the
// partitions of a topic.
const groupPartitions = 4

// groups are made with the world, and exist through all lives.
func (s *brokerSim) makeGroups() {
	for i := range 3 {
		s.groups = append(s.groups, &groupBook{name: fmt.Sprintf("g%d", i), owners: map[claim]string{}})
	}
	for i := range 6 {
		m := &groupMember{group: s.groups[1+i%2]} // the first has no members
		if i%3 == 0 {
			m.instance = fmt.Sprintf("i%d", i)
		}
		s.members = append(s.members, m)
	}
	g := &s.o.Groups
	*g = control.DefaultGroupOptions()
	g.Options.Faults = s.run.GroupFaults
	g.SessionTimeoutMinMS, g.InitialRebalanceDelayMS = 1, int64(s.pick(0, 5))
	g.NewMemberTimeoutMS = 500
	g.GroupSizeMax = s.pick(2, 10)
	g.Migration, _ = cluster.ParseMigrationPolicy([]string{"bidirectional", "bidirectional", "upgrade", "disabled"}[s.rng.IntN(4)])
	s.makeConsumers()
	if s.run.Seed%4 == 3 {
		g.GroupsMax = len(s.groups) + 1 // passers take the places of groups
	}
}

// fewGroups says that there may be hardly more groups than the workload has, so that a
// request may be refused until others make room.
func (s *brokerSim) fewGroups() bool { return s.o.Groups.GroupsMax <= len(s.groups)+1 }

// passer is a client that joins a group of its own and leaves it at once. The group holds
// nothing then, and makes room for another.
type passer struct {
	conn  *conn
	group string
}

func (s *brokerSim) pass() error {
	c, err := s.connect(0)
	if err != nil {
		return err
	}
	c.private = true
	s.passers++
	p := &passer{c, fmt.Sprintf("passing-%d", s.passers)}
	req := kmsg.NewPtrJoinGroupRequest()
	req.Version, req.Group, req.ProtocolType, req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = 3, p.group, "sim", 60, 30
	protocol := kmsg.NewJoinGroupRequestProtocol()
	protocol.Name, protocol.Metadata = "p", []byte{1}
	req.Protocols = append(req.Protocols, protocol)
	c.ask(req, owed{note: p})
	return nil
}

// passed takes an answer to a passer.
func (s *brokerSim) passed(p *passer, resp kmsg.Response) error {
	join, ok := resp.(*kmsg.JoinGroupResponse)
	if !ok {
		p.conn.c.Reset() // it has left
		return nil
	}
	switch code := join.ErrorCode; {
	case code == 0:
		req := kmsg.NewPtrLeaveGroupRequest()
		req.Version, req.Group, req.MemberID = 1, p.group, join.MemberID
		p.conn.ask(req, owed{note: p})
	case code == codeUnavailable, code == codeUnknownMember, code == codeNotCoordinator && (s.full || s.stopping):
		p.conn.c.Reset()
	default:
		return fmt.Errorf("joining %s: error %d", p.group, code)
	}
	return nil
}

// actGroups has a client do something with a group.
func (s *brokerSim) actGroups() error {
	if s.fewGroups() && s.rng.IntN(4) == 0 {
		return s.pass()
	}
	switch x := s.rng.IntN(10); {
	case x < 2:
		return s.commitOutside()
	case x == 2:
		return s.fetchGroup(s.groups[s.rng.IntN(len(s.groups))], false)
	}
	if s.rng.IntN(2) == 0 {
		return s.actConsumer(s.consumers[s.rng.IntN(len(s.consumers))], false)
	}
	return s.actMember(s.members[s.rng.IntN(len(s.members))], false)
}

// anOffset returns some offset of the group for which no commit is in flight.
func (s *brokerSim) anOffset(g *groupBook) *offsetBook {
	open := s.openTopics()
	if len(open) == 0 {
		return nil
	}
	t := open[s.rng.IntN(len(open))]
	p := t.parts[s.rng.IntN(len(t.parts))]
	i := slices.IndexFunc(g.offsets, func(o *offsetBook) bool { return o.part == p })
	if i < 0 {
		i = len(g.offsets)
		g.offsets = append(g.offsets, &offsetBook{part: p, acked: -1})
	}
	if g.offsets[i].busy {
		return nil
	}
	return g.offsets[i]
}

func (s *brokerSim) commit(c *conn, g *groupBook, m *groupMember, elsewhere bool) {
	o := s.anOffset(g)
	if o == nil {
		return
	}
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Version, req.Group, req.Generation = 7, g.name, -1
	if m != nil {
		req.MemberID, req.Generation = m.id, m.generation
		if m.instance != "" {
			req.InstanceID = &m.instance
		}
		m.waits = true
	}
	s.commits++
	o.offered, o.busy = s.commits, true
	p := kmsg.NewOffsetCommitRequestTopicPartition()
	p.Partition, p.Offset = o.part.index, s.commits
	t := kmsg.NewOffsetCommitRequestTopic()
	t.Topic, t.Partitions = o.part.topic.name, append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	c.ask(req, owed{note: &groupAsk{member: m, group: g, offset: o, serial: s.commits, elsewh: elsewhere}})
}

func (s *brokerSim) commitOutside() error {
	node := 0
	if s.rng.IntN(10) == 0 {
		node = s.rng.IntN(s.shards + 1)
	}
	c, err := s.to(node)
	if err == nil {
		s.commit(c, s.groups[0], nil, node != 0)
	}
	return err
}

// fetchGroup fetches all known offsets of a group.
func (s *brokerSim) fetchGroup(g *groupBook, own bool) error {
	var c *conn
	var err error
	if own {
		c, err = s.connect(0)
	} else {
		c, err = s.to(0)
	}
	if err != nil {
		return err
	}
	ask := &groupAsk{group: g, books: slices.Clone(g.offsets)}
	for _, o := range g.offsets {
		ask.floor = append(ask.floor, o.acked)
	}
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Version, req.Group = 5, g.name
	c.ask(req, owed{note: ask})
	return nil
}

// actMember has a member take its next step or, unless calm, sometimes do something
// else.
func (s *brokerSim) actMember(m *groupMember, calm bool) error {
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
	var instance *string
	if m.instance != "" {
		instance = &m.instance
	}
	x := 99
	if !calm {
		x = s.rng.IntN(100)
	}
	switch {
	case x < 3: // it crashes: a dynamic member forgets its member id
		m.conn.c.Reset()
		m.id, m.joined, m.stable = "", false, false
		return nil
	case !m.joined || x < 6:
		req := kmsg.NewPtrJoinGroupRequest()
		req.Version, req.Group, req.MemberID, req.InstanceID, req.ProtocolType = 5, m.group.name, m.id, instance, "sim"
		req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = int32(s.pick(60, 300)), int32(s.pick(30, 200))
		p := kmsg.NewJoinGroupRequestProtocol()
		p.Name, p.Metadata = "p", []byte{1}
		req.Protocols = append(req.Protocols, p)
		m.joined, m.stable = false, false
		m.conn.ask(req, owed{note: &groupAsk{member: m, group: m.group}})
	case !m.stable:
		req := kmsg.NewPtrSyncGroupRequest()
		req.Version, req.Group, req.MemberID, req.InstanceID, req.Generation = 3, m.group.name, m.id, instance, m.generation
		if m.leads {
			shift := s.rng.IntN(groupPartitions) // so that assignments differ
			for i, id := range m.others {
				a := kmsg.NewSyncGroupRequestGroupAssignment()
				a.MemberID = id
				for p := range groupPartitions {
					if (p+shift)%len(m.others) == i {
						a.MemberAssignment = append(a.MemberAssignment, byte(p))
					}
				}
				req.GroupAssignment = append(req.GroupAssignment, a)
			}
		}
		m.conn.ask(req, owed{note: &groupAsk{member: m, group: m.group}})
	case x < 10:
		req := kmsg.NewPtrLeaveGroupRequest()
		req.Version, req.Group = 3, m.group.name
		l := kmsg.NewLeaveGroupRequestMember()
		l.MemberID, l.InstanceID = m.id, instance
		req.Members = append(req.Members, l)
		m.id, m.joined, m.stable = "", false, false
		m.conn.ask(req, owed{note: &groupAsk{member: m, group: m.group}})
	case x < 50:
		s.commit(m.conn, m.group, m, false)
		return nil
	default:
		req := kmsg.NewPtrHeartbeatRequest()
		req.Version, req.Group, req.MemberID, req.InstanceID, req.Generation = 3, m.group.name, m.id, instance, m.generation
		m.conn.ask(req, owed{note: &groupAsk{member: m, group: m.group}})
	}
	m.waits = true
	return nil
}

// lostAsk: what became of a request is never learned.
func (a *groupAsk) lost() {
	if a.member != nil {
		a.member.waits = false
	}
	if a.consumer != nil {
		a.consumer.waits, a.consumer.full = false, a.consumer.id != "" && !a.consumer.classic
	}
	if o := a.offset; o != nil {
		o.busy = false
		o.maybe = append(o.maybe, a.serial)
	}
}

// answeredGroup checks one response.
func (s *brokerSim) answeredGroup(a *groupAsk, resp kmsg.Response) error {
	m := a.member
	if m != nil {
		m.waits = false
	}
	if a.consumer != nil {
		a.consumer.waits = false
	}
	// down: the broker is stopping, or could not store a change, or there are as many
	// groups as may be.
	down := func(code int16) bool {
		return code == codeUnavailable && (s.stopping || s.fewGroups()) || code == codeNotCoordinator && (s.full || s.stopping || a.elsewh)
	}
	out := func() { m.id, m.joined, m.stable = "", false, false }
	switch r := resp.(type) {
	case *kmsg.JoinGroupResponse:
		if a.consumer != nil {
			return a.consumer.classicJoined(r, down)
		}
		switch code := r.ErrorCode; {
		case code == 0:
			if r.Generation < m.group.told {
				return fmt.Errorf("group %s is in generation %d, and had assigned partitions in %d", m.group.name, r.Generation, m.group.told)
			}
			m.id, m.generation, m.joined, m.leads, m.others = r.MemberID, r.Generation, true, r.LeaderID == r.MemberID, nil
			for _, x := range r.Members {
				m.others = append(m.others, x.MemberID)
			}
		case code == codeIDRequired:
			m.id = r.MemberID
		case code == codeUnknownMember || code == codeFenced || code == codeGroupFull:
			out()
		case code == codeRebalance || down(code):
		default:
			return fmt.Errorf("joining %s: error %d", m.group.name, code)
		}
	case *kmsg.SyncGroupResponse:
		if a.consumer != nil {
			return s.classicSynced(a.consumer, r, down)
		}
		switch code := r.ErrorCode; {
		case code == 0:
			return s.assigned(m, r.MemberAssignment)
		case code == codeUnknownMember || code == codeFenced:
			out()
		case code == codeGeneration || code == codeRebalance || down(code):
			m.joined = false
		default:
			return fmt.Errorf("syncing %s: error %d", m.group.name, code)
		}
	case *kmsg.HeartbeatResponse:
		if a.consumer != nil {
			return a.consumer.classicBeaten(r, down)
		}
		switch code := r.ErrorCode; {
		case code == 0:
		case code == codeUnknownMember || code == codeFenced:
			out()
		case code == codeGeneration || code == codeRebalance:
			m.joined, m.stable = false, false
		case down(code):
		default:
			return fmt.Errorf("heartbeat to %s: error %d", m.group.name, code)
		}
	case *kmsg.LeaveGroupResponse:
		if r.ErrorCode != 0 && !down(r.ErrorCode) {
			return fmt.Errorf("leaving %s: error %d", m.group.name, r.ErrorCode)
		}
	case *kmsg.ConsumerGroupHeartbeatResponse:
		return s.beaten(a.consumer, r, down)
	case *kmsg.OffsetCommitResponse:
		return s.committed(a, r.Topics[0].Partitions[0].ErrorCode, down)
	case *kmsg.OffsetFetchResponse:
		if down(r.ErrorCode) {
			return nil
		}
		if r.ErrorCode != 0 {
			return fmt.Errorf("offsets of %s: error %d", a.group.name, r.ErrorCode)
		}
		return s.offsets(a, r)
	}
	return nil
}

// assigned records that a member got its assignment.
func (s *brokerSim) assigned(m *groupMember, parts []byte) error {
	who := m.instance
	if who == "" {
		who = m.id
	}
	m.stable, m.parts = true, parts
	if s.fewGroups() {
		return nil // a group that makes room for another begins again with its first generation
	}
	m.group.told = max(m.group.told, m.generation)
	for _, p := range parts {
		k := claim{m.generation, p}
		if owner, ok := m.group.owners[k]; ok && owner != who {
			return fmt.Errorf("TWICE: partition %d of generation %d of %s belongs to %s and to %s", p, m.generation, m.group.name, owner, who)
		}
		m.group.owners[k] = who
	}
	return nil
}

func (s *brokerSim) committed(a *groupAsk, code int16, down func(int16) bool) error {
	m, o := a.member, a.offset
	o.busy = false
	switch {
	case code == 0 && a.stale:
		return fmt.Errorf("ZOMBIE: %s has committed to %s in an epoch that is over", a.consumer.id, a.group.name)
	case code == 0:
		o.acked = a.serial
		s.appends++
	case code == codeUnknownTopic && o.part.topic.fate != open:
	case down(code):
		o.maybe = append(o.maybe, a.serial)
	case a.consumer != nil && (code == codeUnknownMember || code == codeNoGroup):
		a.consumer.out()
	case a.consumer != nil && code == codeStaleEpoch && a.late && o.part.topic.fate == open:
		return fmt.Errorf("REFUSED: a commit of %s to %s of a partition that it has had all the while", a.consumer.id, a.group.name)
	case a.consumer != nil && code == codeStaleEpoch: // it learns of the new epoch by its next heartbeat
	case a.consumer != nil && a.consumer.classic && (code == codeGeneration || code == codeRebalance || code == codeFenced):
	case m != nil && (code == codeUnknownMember || code == codeFenced):
		m.id, m.joined, m.stable = "", false, false
	case m != nil && (code == codeGeneration || code == codeRebalance):
		m.joined, m.stable = false, false
	default:
		return fmt.Errorf("committing to %s: error %d", a.group.name, code)
	}
	return nil
}

// offsets compares a group's committed offsets with the oracle.
func (s *brokerSim) offsets(a *groupAsk, r *kmsg.OffsetFetchResponse) error {
	for i, o := range a.books {
		if o.part.topic.fate != open {
			continue
		}
		have := int64(-1)
		for _, t := range r.Topics {
			if t.Topic != o.part.topic.name {
				continue
			}
			for _, p := range t.Partitions {
				if p.Partition == o.part.index {
					have = p.Offset
				}
			}
		}
		if have > o.offered || have < a.floor[i] && !slices.Contains(o.maybe, have) {
			return fmt.Errorf("WENT BACK: group %s has committed %d of %s/%d; %d was acknowledged before, %d offered, %v may be", a.group.name, have, o.part.topic.name, o.part.index, a.floor[i], o.offered, o.maybe)
		}
		s.reads++
	}
	return nil
}

// auditGroups reads all offsets after a crash. Commits that were in flight have taken
// effect or not, and cannot any more.
func (s *brokerSim) auditGroups() error {
	for _, g := range s.groups {
		g.offsets = slices.DeleteFunc(g.offsets, func(o *offsetBook) bool { return o.part.topic.fate == gone })
		if err := s.fetchGroup(g, true); err != nil {
			return err
		}
		c := s.conns[len(s.conns)-1]
		var got *kmsg.OffsetFetchResponse
		read := c.read
		c.read = func(k owed, resp kmsg.Response) error {
			got, _ = resp.(*kmsg.OffsetFetchResponse)
			return read(k, resp)
		}
		for n := 0; n < 5000 && got == nil; n++ {
			if err := s.rest(); err != nil {
				return err
			}
		}
		if got == nil {
			return fmt.Errorf("STALLED: no answer to OffsetFetch of %s", g.name)
		}
		for _, o := range g.offsets {
			o.maybe = nil
			if o.part.topic.fate != open {
				continue
			}
			o.acked = -1
			for _, t := range got.Topics {
				for _, p := range t.Partitions {
					if t.Topic == o.part.topic.name && p.Partition == o.part.index {
						o.acked = p.Offset
					}
				}
			}
		}
		c.c.Reset()
	}
	return nil
}
