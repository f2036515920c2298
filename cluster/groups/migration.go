package groups

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/kafka"
)

// This file is groups whose members change from the classic protocol to the
// consumer protocol and back while they go on:
//
//	for {
//		await a heartbeat that joins a classic group // its members become those of a consumer group
//		serve both: heartbeats, and joins, syncs, heartbeats and leaves of those who still speak the classic protocol
//		await the last member that speaks the consumer protocol to go // who is left becomes a classic group, and rebalances
//	}
//
// A member that speaks the classic protocol is led to its target as any other,
// a step with each join: its generation is its epoch, and its heartbeats are
// told to join again when there is a step to take. It never leads.
//
// The rules are those of org.apache.kafka.coordinator.group.GroupMetadataManager
// of Kafka 4.1: convertToConsumerGroup, convertToClassicGroup, and the methods
// named classicGroup...ToConsumerGroup.

// upgraded is what a classic group with members would be as one of the consumer
// protocol, or why it cannot be one. The group stays as it is.
func (c *Coordinator) upgraded(g *group) (x *consumerGroup, why string) {
	cannot := func(why string) (*consumerGroup, string) {
		return nil, "Cannot upgrade classic group " + g.id + " to consumer group because " + why
	}
	switch {
	case !c.o.Migration.Upgrades:
		return cannot("online upgrade is disabled.")
	case !g.isConsumer():
		return cannot("the group does not use the consumer embedded protocol.")
	case len(g.members) > c.o.ConsumerGroupSizeMax:
		return cannot("the group size exceeds the consumer group maximum size.")
	}
	x = newConsumerGroup(g.generation)
	for _, o := range g.members {
		metadata := o.metadata(g.protocol)
		if metadata == nil { // a rebalance is under way, and there is no protocol yet that it knows
			metadata = o.protocols[0].Metadata
		}
		subscribed, ok := parseSubscription(metadata)
		has, custom, assigned := parseAssignment(o.assignment)
		switch {
		case !ok || !assigned:
			return cannot("the embedded consumer protocol is malformed.")
		case custom:
			return cannot("an unsupported custom assignor is in use. Please refer to the documentation or switch to a default assignor before re-attempting the upgrade.")
		}
		if len(o.assignment) == 0 { // a rebalance has taken it: what it still has it says itself
			has = subscribed.owned
		}
		m := &consumerMember{deadline: c.at.NowMS + int64(o.sessionMS), revokeBy: Never, joinBy: Never, syncBy: Never, dirty: true}
		m.ID, m.InstanceID, m.RackID, m.ClientID, m.ClientHost = o.id, o.instance, subscribed.rack, o.clientID, o.clientHost
		m.RebalanceTimeoutMS, m.Topics, m.Epoch, m.PreviousEpoch = o.rebalanceMS, subscribed.topics, g.generation, g.generation
		m.Classic = &cluster.ClassicMember{SessionTimeoutMS: o.sessionMS, Protocols: o.protocols}
		if !c.o.Faults.UpgradeForgets {
			m.Assigned = c.unowned(x, has)
		}
		m.Target = m.Assigned
		x.own(m)
		at, _ := x.memberAt(m.ID)
		x.members = slices.Insert(x.members, at, m)
		if m.InstanceID != "" {
			x.static[m.InstanceID] = m
		}
	}
	return x, ""
}

// unowned are the partitions of a list that there are, and that have no owner
// yet: an assignor that is not ours may give one to two members.
func (c *Coordinator) unowned(x *consumerGroup, named []namedPartitions) []cluster.TopicPartitions {
	var out []cluster.TopicPartitions
	for _, t := range c.withIDs(named) {
		t.Partitions = slices.DeleteFunc(t.Partitions, func(p int32) bool { return x.owners[slot{t.Topic, p}] != nil })
		if len(t.Partitions) > 0 {
			out = append(out, t)
		}
	}
	return out
}

// withIDs is a list with the topics' ids in place of their names. What there is
// not is left out.
func (c *Coordinator) withIDs(named []namedPartitions) []cluster.TopicPartitions {
	var out []cluster.TopicPartitions
	for _, n := range named {
		topic, ok := c.state.Topic(n.topic)
		if !ok {
			continue
		}
		parts := slices.DeleteFunc(slices.Clone(n.partitions), func(p int32) bool { return p < 0 || int(p) >= len(topic.Partitions) })
		slices.Sort(parts)
		parts = slices.Compact(parts)
		at, twice := slices.BinarySearchFunc(out, topic.ID, func(t cluster.TopicPartitions, id [16]byte) int { return bytes.Compare(t.Topic[:], id[:]) })
		if len(parts) > 0 && !twice {
			out = slices.Insert(out, at, cluster.TopicPartitions{Topic: topic.ID, Partitions: parts})
		}
	}
	return out
}

// endClassic: what a classic group's members are they are in a consumer group
// from now on. Those who wait are to join that.
func (c *Coordinator) endClassic(g *group) {
	for _, m := range g.members {
		c.endJoin(g, m, kafka.RebalanceInProgress)
		c.endSync(m, &SyncReply{Code: kafka.RebalanceInProgress})
	}
	c.dropAllPending(g)
	c.members -= len(g.members)
	g.members, g.byID, g.static = nil, map[string]*member{}, map[string]*member{}
	g.joinAt, g.syncAt, g.initial, g.grew = Never, Never, false, false
	g.protocol, g.leader = "", ""
}

// downgrades says whether a group is to be a classic one when these members have
// gone, and so many come that speak the classic protocol: whoever is left does.
func (c *Coordinator) downgrades(x *consumerGroup, gone []*consumerMember, come int) bool {
	left := come
	for _, m := range x.members {
		if slices.Contains(gone, m) {
			continue
		}
		if m.Classic == nil {
			return false
		}
		left++
	}
	return left > 0 && c.o.Migration.Downgrades && left <= c.o.GroupSizeMax && c.members+left <= c.o.MembersMax
}

// downgrade makes a group without these members a classic one, which rebalances.
// Its members are not told what they were on the way to; what they have is known
// until they join, should the group change back before. No leader is stored, so
// that a restart has it rebalance too.
func (c *Coordinator) downgrade(g *group, gone []*consumerMember, ticket uint64, reply any) {
	x := g.consumer
	c.consumers -= len(x.members)
	c.weigh(g, -g.bytes)
	g.consumer, g.generation = nil, x.epoch // no member's epoch is above it, and the next generation is
	for _, o := range x.members {
		if slices.Contains(gone, o) {
			continue
		}
		m := &member{
			id: o.ID, instance: o.InstanceID, clientID: o.ClientID, clientHost: o.ClientHost,
			sessionMS: o.Classic.SessionTimeoutMS, rebalanceMS: o.RebalanceTimeoutMS, protocols: o.Classic.Protocols,
		}
		m.assignment = c.classicAssignment(o.Classic, union(o.Assigned, o.Revoking)) // until it joins
		c.put(g, m)
		c.rearm(g, m, int64(m.sessionMS))
	}
	s := storing{kind: storingConsumer, group: g, ticket: ticket, reply: reply}
	if len(g.members) == 0 {
		g.learnTopics()
		c.become(g, Empty)
		c.store(cluster.PutGroup(g.durable(nil)), s)
		return
	}
	g.protocol = g.choose()
	g.learnTopics()
	c.become(g, Stable)
	has := map[string][]byte{}
	for _, m := range g.members {
		has[m.id] = m.assignment
	}
	d := g.durable(has)
	d.Leader = ""
	c.store(cluster.PutGroup(d), s)
	if !c.o.Faults.DowngradeQuiet {
		c.rebalance(g)
	}
}

// joinConsumer handles the join of a member that speaks the classic protocol to
// a group of the consumer protocol that has members. It waits for nobody.
func (c *Coordinator) joinConsumer(g *group, ticket uint64, r *JoinRequest) {
	x := g.consumer
	if !x.supports(r.ProtocolType, r.Protocols) {
		c.refuseJoin(ticket, kafka.InconsistentGroupProtocol, r.MemberID)
		return
	}
	old := x.member(r.MemberID)
	if r.InstanceID != "" {
		old = x.static[r.InstanceID]
		switch {
		case r.MemberID == "":
		case old == nil:
			c.refuseJoin(ticket, kafka.UnknownMemberID, r.MemberID)
			return
		case old.ID != r.MemberID:
			c.refuseJoin(ticket, kafka.FencedInstanceID, r.MemberID)
			return
		}
	}
	if old == nil && len(x.members) >= c.o.ConsumerGroupSizeMax {
		c.refuseJoin(ticket, kafka.GroupMaxSizeReached, "")
		return
	}
	if r.MemberID == "" && r.InstanceID == "" && r.IDRequired {
		c.refuseJoin(ticket, kafka.MemberIDRequired, r.NewID) // whoever brings it is taken
		return
	}
	subscribed, ok := parseSubscription(r.Protocols[0].Metadata)
	if !ok {
		c.refuseJoin(ticket, kafka.UnknownServerError, r.MemberID)
		return
	}
	id := r.MemberID
	if id == "" {
		id = r.NewID
	}
	if gone := []*consumerMember{old}; old != nil && old.ID != id && c.downgrades(x, gone, 1) {
		// The last that spoke the consumer protocol is back, with the classic one.
		c.downgrade(g, gone, 0, nil)
		c.join(g, ticket, r)
		return
	}
	m := &consumerMember{revokeBy: Never, dirty: true}
	if old != nil {
		*m = *old
	}
	if old == nil || old.ID != id {
		m.ID, m.Epoch, m.PreviousEpoch, m.State = id, 0, 0, cluster.MemberStable
	}
	if r.InstanceID != "" {
		m.InstanceID = r.InstanceID
	}
	if r.RebalanceTimeoutMS >= 0 {
		m.RebalanceTimeoutMS = r.RebalanceTimeoutMS
	}
	m.RackID, m.Topics, m.Regex, m.regex, m.ClientID, m.ClientHost = subscribed.rack, subscribed.topics, "", nil, r.ClientID, r.ClientHost
	m.Classic = &cluster.ClassicMember{SessionTimeoutMS: r.SessionTimeoutMS, Protocols: cloneProtocols(r.Protocols)}
	m.revokeBy = Never
	owned := c.withIDs(subscribed.owned)
	if owned == nil {
		owned = []cluster.TopicPartitions{}
	}
	if code, _ := c.admit(g, x, old, m, owned); code != 0 {
		c.refuseJoin(ticket, code, r.MemberID)
		return
	}
	m.deadline, m.joinBy = c.at.NowMS+int64(m.Classic.SessionTimeoutMS), Never
	m.syncBy = c.at.NowMS + m.rebalanceMS()
	c.storeConsumer(g, ticket, &JoinReply{MemberID: m.ID, Generation: m.Epoch, ProtocolType: cluster.ConsumerProtocol, Protocol: m.Classic.Protocols[0].Name})
}

// supports says whether a member with these classic protocols can be in the
// group: one of them is known to all who speak the classic protocol.
func (x *consumerGroup) supports(protocolType string, protocols []cluster.GroupProtocol) bool {
	return protocolType == cluster.ConsumerProtocol && slices.ContainsFunc(protocols, func(p cluster.GroupProtocol) bool {
		for _, m := range x.members {
			if m.Classic != nil && !slices.ContainsFunc(m.Classic.Protocols, func(o cluster.GroupProtocol) bool { return o.Name == p.Name }) {
				return false
			}
		}
		return true
	})
}

// speaksClassic is the member of that id that speaks the classic protocol, at
// that generation.
func (x *consumerGroup) speaksClassic(memberID, instanceID string, generation int32) (m *consumerMember, code kafka.ErrorCode) {
	m = x.member(memberID)
	if instanceID != "" {
		if m = x.static[instanceID]; m != nil && m.ID != memberID {
			return nil, kafka.FencedInstanceID
		}
	}
	switch {
	case m == nil || m.Classic == nil:
		return nil, kafka.UnknownMemberID
	case m.Epoch != generation:
		return nil, kafka.IllegalGeneration
	}
	return m, 0
}

// syncConsumer tells a member that speaks the classic protocol what it has.
func (c *Coordinator) syncConsumer(g *group, ticket uint64, r *SyncRequest) {
	x := g.consumer
	m, code := x.speaksClassic(r.MemberID, r.InstanceID, r.Generation)
	switch {
	case code != 0:
	case r.ProtocolType != nil && *r.ProtocolType != cluster.ConsumerProtocol || r.Protocol != nil && *r.Protocol != m.Classic.Protocols[0].Name:
		code = kafka.InconsistentGroupProtocol
	case x.epoch > m.Epoch && m.State != cluster.MemberUnrevoked: // it first gives up what it has to, and joins for more then
		c.awaitRejoin(m)
		code = kafka.RebalanceInProgress
	}
	if code != 0 {
		c.reply(ticket, &SyncReply{Code: code})
		return
	}
	m.deadline, m.syncBy = c.at.NowMS+int64(m.Classic.SessionTimeoutMS), Never
	reply := &SyncReply{Assignment: c.classicAssignment(m.Classic, m.Assigned)}
	if r.ProtocolType != nil {
		reply.ProtocolType = *r.ProtocolType
	}
	if r.Protocol != nil {
		reply.Protocol = *r.Protocol
	}
	c.storeConsumer(g, ticket, reply)
}

// awaitRejoin: the member is told to join again, and has its time for that.
func (c *Coordinator) awaitRejoin(m *consumerMember) {
	if m.joinBy == Never {
		m.joinBy = c.at.NowMS + m.rebalanceMS()
	}
}

func (m *consumerMember) rebalanceMS() int64 { return max(int64(m.RebalanceTimeoutMS), 1) }

// heartbeatClassic handles the heartbeat of a member that speaks the classic
// protocol. It is to join again when there is a step for it to take.
func (c *Coordinator) heartbeatClassic(g *group, memberID, instanceID string, generation int32) (code kafka.ErrorCode) {
	x := g.consumer
	m, code := x.speaksClassic(memberID, instanceID, generation)
	if code != 0 {
		return code
	}
	m.deadline = c.at.NowMS + int64(m.Classic.SessionTimeoutMS)
	if m.Epoch < x.epoch || m.State == cluster.MemberUnrevoked || m.State == cluster.MemberUnreleased && !x.waitsForOthers(m) {
		c.awaitRejoin(m)
		code = kafka.RebalanceInProgress
	}
	if min(m.deadline, m.joinBy) < g.due {
		c.schedule(g)
	}
	return code
}

// waitsForOthers says whether some of a member's target still is another's.
func (x *consumerGroup) waitsForOthers(m *consumerMember) bool {
	for _, t := range m.Target {
		for _, p := range t.Partitions {
			if o := x.owners[slot{t.Topic, p}]; o != nil && o != m {
				return true
			}
		}
	}
	return false
}

// leaveClassic has members leave a group of the consumer protocol by the classic
// one. Kafka lets whoever asks remove a member of either.
func (c *Coordinator) leaveClassic(g *group, ticket uint64, leaving []Leaving) (codes []kafka.ErrorCode) {
	x := g.consumer
	codes = make([]kafka.ErrorCode, len(leaving))
	var gone []*consumerMember
	for i, l := range leaving {
		m := x.member(l.MemberID)
		if l.InstanceID != "" {
			m = x.static[l.InstanceID]
		}
		switch {
		case m == nil || slices.Contains(gone, m):
			codes[i] = kafka.UnknownMemberID
		case l.MemberID != "" && m.ID != l.MemberID:
			codes[i] = kafka.FencedInstanceID
		default:
			gone = append(gone, m)
		}
	}
	c.fence(g, gone, ticket, Done{})
	return codes
}

// The consumer protocol that is embedded in the classic one. Sources: Kafka's
// ConsumerProtocolSubscription.json and ConsumerProtocolAssignment.json,
// versions 0 to 3, which begin alike; later ones are read as version 3.

type namedPartitions struct {
	topic      string
	partitions []int32
}

// subscribed is what a member says when it joins.
type subscribed struct {
	version int16
	topics  []string // sorted, each once
	owned   []namedPartitions
	rack    string
}

func parseSubscription(b []byte) (s subscribed, ok bool) {
	r := wire{b: b}
	s.version = r.int16()
	for n := r.count(2); n > 0; n-- {
		s.topics = append(s.topics, r.string())
	}
	slices.Sort(s.topics)
	s.topics = slices.Compact(s.topics)
	r.bytes()                           // user data
	if s.version >= 1 && len(r.b) > 0 { // some clients that say 1 or more end here
		s.owned = r.partitions()
	}
	if s.version >= 2 && len(r.b) > 0 {
		r.int32() // the generation that was
	}
	if s.version >= 3 && len(r.b) > 0 {
		s.rack = r.string()
	}
	return s, !r.bad && s.version >= 0
}

// parseAssignment reads what a leader assigned; nothing is no assignment.
// custom says that it has something only its assignor understands.
func parseAssignment(b []byte) (has []namedPartitions, custom, ok bool) {
	if len(b) == 0 {
		return nil, false, true
	}
	r := wire{b: b}
	version := r.int16()
	has = r.partitions()
	custom = len(r.bytes()) > 0
	return has, custom, !r.bad && version >= 0
}

// classicAssignment is what a member has, as a leader would have assigned it.
func (c *Coordinator) classicAssignment(classic *cluster.ClassicMember, has []cluster.TopicPartitions) []byte {
	s, _ := parseSubscription(classic.Protocols[0].Metadata)
	b := binary.BigEndian.AppendUint16(nil, uint16(min(s.version, 3)))
	b = append(b, 0, 0, 0, 0)
	n := uint32(0)
	for _, t := range has {
		topic, ok := c.state.TopicByID(t.Topic)
		if !ok || topic.Deleted {
			continue // it was deleted meanwhile
		}
		n++
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(topic.Name))), topic.Name...)
		b = binary.BigEndian.AppendUint32(b, uint32(len(t.Partitions)))
		for _, p := range t.Partitions {
			b = binary.BigEndian.AppendUint32(b, uint32(p))
		}
	}
	binary.BigEndian.PutUint32(b[2:], n)
	return append(b, 0xff, 0xff, 0xff, 0xff) // no user data
}

// wire reads Kafka's encoding, from a client: bad is said once, at the end.
type wire struct {
	b   []byte
	bad bool
}

func (r *wire) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.bad, r.b = true, nil
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *wire) int16() int16 {
	if b := r.take(2); b != nil {
		return int16(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (r *wire) int32() int32 {
	if b := r.take(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

// count is how many things follow that have leastBytes each at least.
func (r *wire) count(leastBytes int) int {
	n := int(r.int32())
	if n < 0 || n > len(r.b)/leastBytes {
		r.bad = r.bad || n != -1 // -1 is null
		return 0
	}
	return n
}

func (r *wire) string() string {
	n := int(r.int16())
	if n == -1 {
		return ""
	}
	return string(r.take(n))
}

func (r *wire) bytes() []byte {
	n := int(r.int32())
	if n == -1 {
		return nil
	}
	return r.take(n)
}

func (r *wire) partitions() (out []namedPartitions) {
	for n := r.count(6); n > 0; n-- {
		t := namedPartitions{topic: r.string()}
		for k := r.count(4); k > 0; k-- {
			t.partitions = append(t.partitions, r.int32())
		}
		out = append(out, t)
	}
	return out
}

// memberAt is where the member of that id is, or would be.
func (x *consumerGroup) memberAt(id string) (int, bool) {
	return slices.BinarySearchFunc(x.members, id, func(m *consumerMember, id string) int { return cmp.Compare(m.ID, id) })
}
