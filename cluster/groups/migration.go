package groups

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/kafka"
)

// This file is the migration of live groups between the classic protocol and the
// consumer protocol:
//
//	for {
//		await a heartbeat that joins a classic group // its members become members of a consumer group
//		serve both protocols: heartbeats of one, and joins, syncs, heartbeats and leaves of the other
//		await the leave of the last member that speaks the consumer protocol // the others become a classic group, and rebalance
//	}
//
// A member that speaks the classic protocol is led to its target like any other,
// one step with each join: its generation is its epoch, and the answer to its
// heartbeat asks it to join again when there is a step to take. It is never the
// leader.
//
// The rules are those of org.apache.kafka.coordinator.group.GroupMetadataManager
// of Kafka 4.1: convertToConsumerGroup, convertToClassicGroup, and the methods
// named classicGroup...ToConsumerGroup.

// upgraded is a classic group with members in the form of a consumer group, or why
// it cannot become one. The group itself is not changed.
func (c *Coordinator) upgraded(group *group) (consumer *consumerGroup, why string) {
	cannot := func(why string) (*consumerGroup, string) {
		return nil, "Cannot upgrade classic group " + group.id + " to consumer group because " + why
	}
	switch {
	case !c.options.Migration.Upgrades:
		return cannot("online upgrade is disabled.")
	case !group.isConsumer():
		return cannot("the group does not use the consumer embedded protocol.")
	case len(group.members) > c.options.ConsumerGroupSizeMax:
		return cannot("the group size exceeds the consumer group maximum size.")
	}
	consumer = newConsumerGroup(group.generation)
	for _, classic := range group.members {
		metadata := classic.metadata(group.protocol)
		if metadata == nil { // a rebalance is under way, and no protocol that it knows is chosen yet
			metadata = classic.protocols[0].Metadata
		}
		subscribed, ok := parseSubscription(metadata)
		has, custom, assigned := parseAssignment(classic.assignment)
		switch {
		case !ok || !assigned:
			return cannot("the embedded consumer protocol is malformed.")
		case custom:
			return cannot("an unsupported custom assignor is in use. Please refer to the documentation or switch to a default assignor before re-attempting the upgrade.")
		}
		if len(classic.assignment) == 0 { // a rebalance has cleared it: the subscription says what the member still has
			has = subscribed.owned
		}
		member := &consumerMember{deadline: c.at.NowMS + int64(classic.sessionMS), revokeBy: Never, joinBy: Never, syncBy: Never, dirty: true}
		member.ID, member.InstanceID, member.RackID, member.ClientID, member.ClientHost = classic.id, classic.instance, subscribed.rack, classic.clientID, classic.clientHost
		member.RebalanceTimeoutMS, member.Topics, member.Epoch, member.PreviousEpoch = classic.rebalanceMS, subscribed.topics, group.generation, group.generation
		member.Classic = &cluster.ClassicMember{SessionTimeoutMS: classic.sessionMS, Protocols: classic.protocols}
		if !c.options.Faults.UpgradeForgets {
			member.Assigned = c.unowned(consumer, has)
		}
		member.Target = member.Assigned
		consumer.own(member)
		at, _ := consumer.memberAt(member.ID)
		consumer.members = slices.Insert(consumer.members, at, member)
		if member.InstanceID != "" {
			consumer.static[member.InstanceID] = member
		}
	}
	return consumer, ""
}

// unowned are the partitions of a list that exist and have no owner yet: a client's
// assignor may have assigned one to two members.
func (c *Coordinator) unowned(consumer *consumerGroup, named []namedPartitions) []cluster.TopicPartitions {
	var out []cluster.TopicPartitions
	for _, topic := range c.withIDs(named) {
		topic.Partitions = slices.DeleteFunc(topic.Partitions, func(partition int32) bool { return consumer.owners[slot{topic.Topic, partition}] != nil })
		if len(topic.Partitions) > 0 {
			out = append(out, topic)
		}
	}
	return out
}

// withIDs is a list with topic ids in place of names. Partitions that do not exist
// are left out.
func (c *Coordinator) withIDs(named []namedPartitions) []cluster.TopicPartitions {
	var out []cluster.TopicPartitions
	for _, name := range named {
		topic, ok := c.state.Topic(name.topic)
		if !ok {
			continue
		}
		parts := slices.DeleteFunc(slices.Clone(name.partitions), func(partition int32) bool { return partition < 0 || int(partition) >= len(topic.Partitions) })
		slices.Sort(parts)
		parts = slices.Compact(parts)
		at, twice := slices.BinarySearchFunc(out, topic.ID, func(topic cluster.TopicPartitions, id [16]byte) int { return bytes.Compare(topic.Topic[:], id[:]) })
		if len(parts) > 0 && !twice {
			out = slices.Insert(out, at, cluster.TopicPartitions{Topic: topic.ID, Partitions: parts})
		}
	}
	return out
}

// endClassic removes the classic members of a group that becomes a consumer group.
// Members that wait are told to join again.
func (c *Coordinator) endClassic(group *group) {
	for _, member := range group.members {
		c.endJoin(group, member, kafka.RebalanceInProgress)
		c.endSync(member, &SyncReply{Code: kafka.RebalanceInProgress})
	}
	c.dropAllPending(group)
	c.members -= len(group.members)
	group.members, group.byID, group.static = nil, map[string]*member{}, map[string]*member{}
	group.joinAt, group.syncAt, group.initial, group.grew = Never, Never, false, false
	group.protocol, group.leader = "", ""
}

// downgrades says whether a group has to become a classic one when these members
// leave and come new ones join that speak the classic protocol: whether no member
// that speaks the consumer protocol is left.
func (c *Coordinator) downgrades(consumer *consumerGroup, gone []*consumerMember, come int) bool {
	left := come
	for _, member := range consumer.members {
		if slices.Contains(gone, member) {
			continue
		}
		if member.Classic == nil {
			return false
		}
		left++
	}
	return left > 0 && c.options.Migration.Downgrades && left <= c.options.GroupSizeMax && c.members+left <= c.options.MembersMax
}

// downgrade makes a group without the members in gone a classic one, and
// rebalances it. Targets that members had not reached are dropped; what members
// have is kept until they join, for the case that the group is upgraded again
// before. No leader is stored, so that the group rebalances after a restart too.
func (c *Coordinator) downgrade(group *group, gone []*consumerMember, ticket uint64, reply any) {
	consumer := group.consumer
	c.consumers -= len(consumer.members)
	c.weigh(group, -group.bytes)
	group.consumer, group.generation = nil, consumer.epoch // at least every member's epoch; the next generation is above it
	for _, old := range consumer.members {
		if slices.Contains(gone, old) {
			continue
		}
		member := &member{
			id: old.ID, instance: old.InstanceID, clientID: old.ClientID, clientHost: old.ClientHost,
			sessionMS: old.Classic.SessionTimeoutMS, rebalanceMS: old.RebalanceTimeoutMS, protocols: old.Classic.Protocols,
		}
		member.assignment = c.classicAssignment(old.Classic, union(old.Assigned, old.Revoking)) // until it joins
		c.put(group, member)
		c.rearm(group, member, int64(member.sessionMS))
	}
	storing := pendingStore{kind: storingConsumer, group: group, ticket: ticket, reply: reply}
	if len(group.members) == 0 {
		group.learnTopics()
		c.become(group, Empty)
		c.store(cluster.PutGroup(group.durable(nil)), storing)
		return
	}
	group.protocol = group.choose()
	group.learnTopics()
	c.become(group, Stable)
	has := map[string][]byte{}
	for _, member := range group.members {
		has[member.id] = member.assignment
	}
	stored := group.durable(has)
	stored.Leader = ""
	c.store(cluster.PutGroup(stored), storing)
	if !c.options.Faults.DowngradeQuiet {
		c.rebalance(group)
	}
}

// joinConsumer handles the join of a member that speaks the classic protocol to
// a group of the consumer protocol that has members. It does not wait for others.
func (c *Coordinator) joinConsumer(group *group, ticket uint64, req *JoinRequest) {
	consumer := group.consumer
	if !consumer.supports(req.ProtocolType, req.Protocols) {
		c.refuseJoin(ticket, kafka.InconsistentGroupProtocol, req.MemberID)
		return
	}
	old := consumer.member(req.MemberID)
	if req.InstanceID != "" {
		old = consumer.static[req.InstanceID]
		switch {
		case req.MemberID == "":
		case old == nil:
			c.refuseJoin(ticket, kafka.UnknownMemberID, req.MemberID)
			return
		case old.ID != req.MemberID:
			c.refuseJoin(ticket, kafka.FencedInstanceID, req.MemberID)
			return
		}
	}
	if old == nil && len(consumer.members) >= c.options.ConsumerGroupSizeMax {
		c.refuseJoin(ticket, kafka.GroupMaxSizeReached, "")
		return
	}
	if req.MemberID == "" && req.InstanceID == "" && req.IDRequired {
		c.refuseJoin(ticket, kafka.MemberIDRequired, req.NewID) // not kept as pending: any client that brings the id is accepted
		return
	}
	subscribed, ok := parseSubscription(req.Protocols[0].Metadata)
	if !ok {
		c.refuseJoin(ticket, kafka.UnknownServerError, req.MemberID)
		return
	}
	id := req.MemberID
	if id == "" {
		id = req.NewID
	}
	if gone := []*consumerMember{old}; old != nil && old.ID != id && c.downgrades(consumer, gone, 1) {
		// The last member that spoke the consumer protocol is back with the classic
		// one.
		c.downgrade(group, gone, 0, nil)
		c.join(group, ticket, req)
		return
	}
	member := &consumerMember{revokeBy: Never, dirty: true}
	if old != nil {
		*member = *old
	}
	if old == nil || old.ID != id {
		member.ID, member.Epoch, member.PreviousEpoch, member.State = id, 0, 0, cluster.MemberStable
	}
	if req.InstanceID != "" {
		member.InstanceID = req.InstanceID
	}
	if req.RebalanceTimeoutMS >= 0 {
		member.RebalanceTimeoutMS = req.RebalanceTimeoutMS
	}
	member.RackID, member.Topics, member.Regex, member.regex, member.ClientID, member.ClientHost = subscribed.rack, subscribed.topics, "", nil, req.ClientID, req.ClientHost
	member.Classic = &cluster.ClassicMember{SessionTimeoutMS: req.SessionTimeoutMS, Protocols: cloneProtocols(req.Protocols)}
	member.revokeBy = Never
	owned := c.withIDs(subscribed.owned)
	if owned == nil {
		owned = []cluster.TopicPartitions{}
	}
	if code, _ := c.admit(group, consumer, old, member, owned); code != 0 {
		c.refuseJoin(ticket, code, req.MemberID)
		return
	}
	member.deadline, member.joinBy = c.at.NowMS+int64(member.Classic.SessionTimeoutMS), Never
	member.syncBy = c.at.NowMS + member.rebalanceMS()
	c.storeConsumer(group, ticket, &JoinReply{MemberID: member.ID, Generation: member.Epoch, ProtocolType: cluster.ConsumerProtocol, Protocol: member.Classic.Protocols[0].Name})
}

// supports says whether a member with these classic protocols can be in the group:
// all its members that speak the classic protocol know one of them.
func (x *consumerGroup) supports(protocolType string, protocols []cluster.GroupProtocol) bool {
	return protocolType == cluster.ConsumerProtocol && slices.ContainsFunc(protocols, func(protocol cluster.GroupProtocol) bool {
		for _, member := range x.members {
			if member.Classic != nil && !slices.ContainsFunc(member.Classic.Protocols, func(known cluster.GroupProtocol) bool { return known.Name == protocol.Name }) {
				return false
			}
		}
		return true
	})
}

// speaksClassic is the member of that id that speaks the classic protocol, at
// that generation.
func (x *consumerGroup) speaksClassic(memberID, instanceID string, generation int32) (member *consumerMember, code kafka.ErrorCode) {
	member = x.member(memberID)
	if instanceID != "" {
		if member = x.static[instanceID]; member != nil && member.ID != memberID {
			return nil, kafka.FencedInstanceID
		}
	}
	switch {
	case member == nil || member.Classic == nil:
		return nil, kafka.UnknownMemberID
	case member.Epoch != generation:
		return nil, kafka.IllegalGeneration
	}
	return member, 0
}

// syncConsumer handles the sync of a member that speaks the classic protocol.
func (c *Coordinator) syncConsumer(group *group, ticket uint64, req *SyncRequest) {
	consumer := group.consumer
	member, code := consumer.speaksClassic(req.MemberID, req.InstanceID, req.Generation)
	switch {
	case code != 0:
	case req.ProtocolType != nil && *req.ProtocolType != cluster.ConsumerProtocol || req.Protocol != nil && *req.Protocol != member.Classic.Protocols[0].Name:
		code = kafka.InconsistentGroupProtocol
	case consumer.epoch > member.Epoch && member.State != cluster.MemberUnrevoked: // otherwise it first revokes what it has to, and joins again afterwards
		c.awaitRejoin(member)
		code = kafka.RebalanceInProgress
	}
	if code != 0 {
		c.reply(ticket, &SyncReply{Code: code})
		return
	}
	member.deadline, member.syncBy = c.at.NowMS+int64(member.Classic.SessionTimeoutMS), Never
	reply := &SyncReply{Assignment: c.classicAssignment(member.Classic, member.Assigned)}
	if req.ProtocolType != nil {
		reply.ProtocolType = *req.ProtocolType
	}
	if req.Protocol != nil {
		reply.Protocol = *req.Protocol
	}
	c.storeConsumer(group, ticket, reply)
}

// awaitRejoin sets the deadline for a member that is told to join again.
func (c *Coordinator) awaitRejoin(member *consumerMember) {
	if member.joinBy == Never {
		member.joinBy = c.at.NowMS + member.rebalanceMS()
	}
}

func (m *consumerMember) rebalanceMS() int64 { return max(int64(m.RebalanceTimeoutMS), 1) }

// heartbeatClassic handles the heartbeat of a member that speaks the classic
// protocol. The member is told to join again when there is a step for it to take.
func (c *Coordinator) heartbeatClassic(group *group, memberID, instanceID string, generation int32) (code kafka.ErrorCode) {
	consumer := group.consumer
	member, code := consumer.speaksClassic(memberID, instanceID, generation)
	if code != 0 {
		return code
	}
	member.deadline = c.at.NowMS + int64(member.Classic.SessionTimeoutMS)
	if member.Epoch < consumer.epoch || member.State == cluster.MemberUnrevoked || member.State == cluster.MemberUnreleased && !consumer.waitsForOthers(member) {
		c.awaitRejoin(member)
		code = kafka.RebalanceInProgress
	}
	if min(member.deadline, member.joinBy) < group.due {
		c.schedule(group)
	}
	return code
}

// waitsForOthers says whether another member still owns a part of this member's
// target.
func (x *consumerGroup) waitsForOthers(member *consumerMember) bool {
	for _, topic := range member.Target {
		for _, partition := range topic.Partitions {
			if owner := x.owners[slot{topic.Topic, partition}]; owner != nil && owner != member {
				return true
			}
		}
	}
	return false
}

// leaveClassic handles a LeaveGroup request, which is of the classic protocol, for
// a group of the consumer protocol. As in Kafka it may name members of either.
func (c *Coordinator) leaveClassic(group *group, ticket uint64, leaving []Leaving) (codes []kafka.ErrorCode) {
	consumer := group.consumer
	codes = make([]kafka.ErrorCode, len(leaving))
	var gone []*consumerMember
	for i, leaver := range leaving {
		member := consumer.member(leaver.MemberID)
		if leaver.InstanceID != "" {
			member = consumer.static[leaver.InstanceID]
		}
		switch {
		case member == nil || slices.Contains(gone, member):
			codes[i] = kafka.UnknownMemberID
		case leaver.MemberID != "" && member.ID != leaver.MemberID:
			codes[i] = kafka.FencedInstanceID
		default:
			gone = append(gone, member)
		}
	}
	c.fence(group, gone, ticket, Done{})
	return codes
}

// The consumer protocol that is embedded in the classic one. Sources: Kafka's
// ConsumerProtocolSubscription.json and ConsumerProtocolAssignment.json,
// versions 0 to 3, which begin alike; later ones are read as version 3.

type namedPartitions struct {
	topic      string
	partitions []int32
}

// subscribed is the subscription in a member's join.
type subscribed struct {
	version int16
	topics  []string // sorted, each once
	owned   []namedPartitions
	rack    string
}

func parseSubscription(metadata []byte) (subscription subscribed, ok bool) {
	fields := wire{b: metadata}
	subscription.version = fields.int16()
	for topics := fields.count(2); topics > 0; topics-- {
		subscription.topics = append(subscription.topics, fields.string())
	}
	slices.Sort(subscription.topics)
	subscription.topics = slices.Compact(subscription.topics)
	fields.bytes()                                      // user data
	if subscription.version >= 1 && len(fields.b) > 0 { // some clients that say 1 or more end here
		subscription.owned = fields.partitions()
	}
	if subscription.version >= 2 && len(fields.b) > 0 {
		fields.int32() // the previous generation
	}
	if subscription.version >= 3 && len(fields.b) > 0 {
		subscription.rack = fields.string()
	}
	return subscription, !fields.bad && subscription.version >= 0
}

// parseAssignment reads what a leader assigned; no bytes are an empty assignment.
// custom says that it has user data, which only its assignor understands.
func parseAssignment(assignment []byte) (has []namedPartitions, custom, ok bool) {
	if len(assignment) == 0 {
		return nil, false, true
	}
	fields := wire{b: assignment}
	version := fields.int16()
	has = fields.partitions()
	custom = len(fields.bytes()) > 0
	return has, custom, !fields.bad && version >= 0
}

// classicAssignment encodes what a member has as a leader's assignment.
func (c *Coordinator) classicAssignment(classic *cluster.ClassicMember, has []cluster.TopicPartitions) []byte {
	subscription, _ := parseSubscription(classic.Protocols[0].Metadata)
	out := binary.BigEndian.AppendUint16(nil, uint16(min(subscription.version, 3)))
	out = append(out, 0, 0, 0, 0)
	count := uint32(0)
	for _, held := range has {
		topic, ok := c.state.TopicByID(held.Topic)
		if !ok || topic.Deleted {
			continue // it was deleted meanwhile
		}
		count++
		out = append(binary.BigEndian.AppendUint16(out, uint16(len(topic.Name))), topic.Name...)
		out = binary.BigEndian.AppendUint32(out, uint32(len(held.Partitions)))
		for _, partition := range held.Partitions {
			out = binary.BigEndian.AppendUint32(out, uint32(partition))
		}
	}
	binary.BigEndian.PutUint32(out[2:], count)
	return append(out, 0xff, 0xff, 0xff, 0xff) // no user data
}

// wire reads Kafka's encoding. bad says that the bytes were malformed; it is
// checked once, at the end.
type wire struct {
	b   []byte
	bad bool
}

func (r *wire) take(count int) []byte {
	if count < 0 || count > len(r.b) {
		r.bad, r.b = true, nil
		return nil
	}
	out := r.b[:count]
	r.b = r.b[count:]
	return out
}

func (r *wire) int16() int16 {
	if taken := r.take(2); taken != nil {
		return int16(binary.BigEndian.Uint16(taken))
	}
	return 0
}

func (r *wire) int32() int32 {
	if taken := r.take(4); taken != nil {
		return int32(binary.BigEndian.Uint32(taken))
	}
	return 0
}

// count is how many things follow that have at least leastBytes each.
func (r *wire) count(leastBytes int) int {
	count := int(r.int32())
	if count < 0 || count > len(r.b)/leastBytes {
		r.bad = r.bad || count != -1 // -1 is null
		return 0
	}
	return count
}

func (r *wire) string() string {
	size := int(r.int16())
	if size == -1 {
		return ""
	}
	return string(r.take(size))
}

func (r *wire) bytes() []byte {
	size := int(r.int32())
	if size == -1 {
		return nil
	}
	return r.take(size)
}

func (r *wire) partitions() (out []namedPartitions) {
	for topics := r.count(6); topics > 0; topics-- {
		topic := namedPartitions{topic: r.string()}
		for count := r.count(4); count > 0; count-- {
			topic.partitions = append(topic.partitions, r.int32())
		}
		out = append(out, topic)
	}
	return out
}

// memberAt is the index at which the member of that id is or would be inserted.
func (x *consumerGroup) memberAt(id string) (int, bool) {
	return slices.BinarySearchFunc(x.members, id, func(member *consumerMember, id string) int { return cmp.Compare(member.ID, id) })
}
