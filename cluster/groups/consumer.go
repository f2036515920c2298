package groups

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"hash/fnv"
	"regexp"
	"regexp/syntax"
	"slices"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/kafka"
)

// This file is the live groups of the consumer protocol (KIP-848). Members send
// heartbeats and nothing else; their targets are assigned here, and each member is
// led to its target separately:
//
//	for {
//		await a change of members, subscriptions or topics // epoch++
//		assign()                                           // at the next heartbeat of any member
//		for each member {
//			await its revoking what it is to lose            // MemberUnrevoked, at its old epoch
//			await other members' revoking what it is to get // MemberUnreleased, at the new epoch
//		}
//	}
//
// Members that still speak the classic protocol are in migration.go.
//
// The rules are those of org.apache.kafka.coordinator.group.GroupMetadataManager
// and of its modern.consumer.CurrentAssignmentBuilder, of Kafka 4.

// consumerGroup is the part of a group that follows the consumer protocol.
//
// Invariants: owners has exactly the partitions in members' Assigned and Revoking,
// each with its only owner; assigned <= epoch.
type consumerGroup struct {
	epoch, assigned int32 // ConsumerGroup's Epoch and AssignmentEpoch
	hash            uint64
	members         []*consumerMember          // sorted by id
	static          map[string]*consumerMember // by instance id
	owners          map[slot]*consumerMember   // the member that may use a partition
	computedMS      int64                      // when targets were last assigned in this life; -Never: never
	seen            uint64                     // State.TopicChanges when topics were last resolved

	// What the next stored change has to contain: with dirty the group's epochs,
	// with whole everything; gone are members that it removes.
	dirty, whole bool
	gone         []string
	serial       uint32 // of the last change
	broken       bool   // a change could not be stored: later ones do not apply until a whole one
}

// slot is one partition.
type slot struct {
	topic     [16]byte
	partition int32
}

// consumerMember is one live member.
type consumerMember struct {
	cluster.ConsumerMember
	regex    *regexp.Regexp
	deadline int64          // of its session
	revokeBy int64          // deadline of revoking partitions
	since    map[slot]int32 // by each partition of Assigned and Revoking: the member's epoch when it got it; nil: it has no epoch
	joinBy   int64          // of a member that speaks the classic protocol: deadline of its join
	syncBy   int64          // and of its sync
	dirty    bool           // it has changes that are not stored
	counted  int            // its part of Coordinator.bytes
}

// ConsumerRequest is a ConsumerGroupHeartbeat request. A nil field did not change.
type ConsumerRequest struct {
	Group, MemberID      string
	Epoch                int32
	InstanceID, RackID   *string
	RebalanceTimeoutMS   int32 // -1: as before
	Topics               []string
	Regex, Assignor      *string
	Owned                []cluster.TopicPartitions
	ClientID, ClientHost string
	NewID                string // the member's id if MemberID is empty
	BringsID             bool   // versions 1 and up: MemberID must not be empty
}

// ConsumerReply is a ConsumerGroupHeartbeat response.
type ConsumerReply struct {
	Code       kafka.ErrorCode
	Why        string // with an error; "": null
	MemberID   string
	Epoch      int32
	IntervalMS int32
	Assigns    bool // Assignment is given
	Assignment []cluster.TopicPartitions
}

// ConsumerInfo describes a group of the consumer protocol.
type ConsumerInfo struct {
	State                  State
	Epoch, AssignmentEpoch int32
	Assignor               string
	Members                []cluster.ConsumerMember // by id
}

// ConsumerHeartbeat handles a ConsumerGroupHeartbeat request. The ticket is
// answered when everything that the answer depends on is durable.
func (c *Coordinator) ConsumerHeartbeat(at Time, ticket uint64, req *ConsumerRequest) {
	c.at = at
	if code, why := c.refuses(req); code != 0 {
		c.refuseConsumer(ticket, code, why)
		return
	}
	group, ok := c.group(req.Group)
	switch {
	case ok && group.consumer == nil && req.Epoch != cluster.EpochJoin:
		c.refuseConsumer(ticket, kafka.GroupIDNotFound, "Group "+req.Group+" is not a consumer group.")
		return
	case !ok && req.Epoch != cluster.EpochJoin:
		c.refuseConsumer(ticket, kafka.GroupIDNotFound, "Group "+req.Group+" not found.")
		return
	case !ok && !c.hasRoomForGroup():
		c.refuseConsumer(ticket, c.refused(GroupsBound, req.Group, req.ClientID), "There are as many groups as there can be.")
		return
	case !ok:
		group = c.list(req.Group)
		group.changedMS = at.WallMS
	}
	if req.Epoch == cluster.EpochLeave || req.Epoch == cluster.EpochAway {
		c.leaveConsumer(group, ticket, req)
	} else {
		c.heartbeatConsumer(group, ticket, req)
	}
	c.unlistUnused(group)
	c.schedule(group)
}

// refuses checks a request without looking at its group.
func (c *Coordinator) refuses(req *ConsumerRequest) (code kafka.ErrorCode, why string) {
	fits := func(text *string) bool { return text == nil || len(*text) <= cluster.GroupIDBytesMax }
	switch {
	case c.closed:
		return kafka.CoordinatorNotAvailable, ""
	case req.Group == "":
		return kafka.InvalidRequest, "GroupId can't be empty."
	case !groupIDFits(req.Group):
		return kafka.InvalidGroupID, "GroupId is too long."
	case req.InstanceID != nil && *req.InstanceID == "":
		return kafka.InvalidRequest, "InstanceId can't be empty."
	case req.RackID != nil && *req.RackID == "":
		return kafka.InvalidRequest, "RackId can't be empty."
	case req.MemberID == "" && (req.Epoch != cluster.EpochJoin || req.BringsID):
		return kafka.InvalidRequest, "MemberId can't be empty."
	case len(req.MemberID) > cluster.GroupStringBytesMax || !fits(req.InstanceID) || !fits(req.RackID) || len(req.NewID) > cluster.GroupStringBytesMax ||
		len(req.ClientID) > cluster.GroupStringBytesMax || len(req.ClientHost) > cluster.GroupStringBytesMax:
		return kafka.InvalidRequest, "A name is too long."
	case req.Epoch < cluster.EpochAway:
		return kafka.InvalidRequest, "MemberEpoch is invalid."
	case req.Epoch == cluster.EpochJoin && req.RebalanceTimeoutMS == -1:
		return kafka.InvalidRequest, "RebalanceTimeoutMs must be provided in first request."
	case req.Epoch == cluster.EpochJoin && (req.Owned == nil || len(req.Owned) > 0):
		return kafka.InvalidRequest, "TopicPartitions must be empty when (re-)joining."
	case req.Epoch == cluster.EpochJoin && req.Topics == nil && req.Regex == nil:
		return kafka.InvalidRequest, "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining."
	case req.Assignor != nil && !knownAssignor(*req.Assignor):
		return kafka.UnsupportedAssignor, "ServerAssignor " + *req.Assignor + " is not supported. Supported assignors: uniform, range."
	}
	for _, topic := range req.Topics {
		if len(topic) > cluster.TopicNameBytesMax {
			return kafka.InvalidRequest, "A topic's name is too long."
		}
	}
	return 0, ""
}

func (c *Coordinator) refuseConsumer(ticket uint64, code kafka.ErrorCode, why string) {
	c.reply(ticket, &ConsumerReply{Code: code, Why: why})
}

func newConsumerGroup(epoch int32) *consumerGroup {
	return &consumerGroup{epoch: epoch, assigned: epoch, static: map[string]*consumerMember{}, owners: map[slot]*consumerMember{}, computedMS: -Never, seen: ^uint64(0), whole: true}
}

// heartbeatConsumer handles a join or a heartbeat. The group changes only after
// every check has passed.
func (c *Coordinator) heartbeatConsumer(group *group, ticket uint64, req *ConsumerRequest) {
	consumer := group.consumer
	switch {
	case consumer != nil:
	case group.state == Empty:
		consumer = newConsumerGroup(group.generation) // epochs go on from generations, so that an old one is never valid again
	default:
		var why string
		if consumer, why = c.upgraded(group); consumer == nil {
			c.refuseConsumer(ticket, kafka.GroupIDNotFound, why)
			return
		}
	}
	old, code, why := consumer.claimant(req)
	if code == 0 && old == nil && len(consumer.members) >= c.options.ConsumerGroupSizeMax {
		code, why = kafka.GroupMaxSizeReached, "The consumer group has reached its maximum capacity."
	}
	if code != 0 {
		c.refuseConsumer(ticket, code, why)
		return
	}
	member := &consumerMember{revokeBy: Never, joinBy: Never, syncBy: Never, dirty: true}
	if old != nil {
		*member = *old
	}
	if old == nil || req.Epoch == cluster.EpochJoin && old.ID != req.MemberID { // a new member, or a static member that is back under another id
		member.ID, member.Epoch, member.PreviousEpoch, member.State, member.since = req.MemberID, 0, 0, cluster.MemberStable, nil
		if req.MemberID == "" {
			member.ID = req.NewID
		}
	}
	if member.Epoch == cluster.EpochAway { // a static member that is back under the same id
		member.Epoch, member.PreviousEpoch, member.State, member.since = 0, 0, cluster.MemberStable, nil
	}
	if !member.take(req) {
		c.refuseConsumer(ticket, kafka.InvalidRegularExpression, "SubscribedTopicRegex is no regular expression that is understood here.")
		return
	}
	member.Classic, member.joinBy, member.syncBy = nil, Never, Never
	before := member.Assigned
	if code, why := c.admit(group, consumer, old, member, req.Owned); code != 0 {
		c.refuseConsumer(ticket, code, why)
		return
	}
	member.deadline = c.at.NowMS + c.state.GroupNumber(group.id, cluster.GroupSessionMS, c.options.ConsumerSessionTimeoutMS)
	reply := &ConsumerReply{MemberID: member.ID, Epoch: member.Epoch, IntervalMS: int32(c.state.GroupNumber(group.id, cluster.GroupHeartbeatMS, c.options.ConsumerHeartbeatIntervalMS))}
	full := req.Epoch == cluster.EpochJoin || req.RebalanceTimeoutMS != -1 && (req.Topics != nil || req.Regex != nil) && req.Owned != nil
	if full || !cluster.SamePartitions(before, member.Assigned) {
		reply.Assigns, reply.Assignment = true, member.Assigned
	}
	c.storeConsumer(group, ticket, reply)
}

// admit makes member a member of the group, in place of old if that is not nil,
// assigns anew if that is needed, and reconciles the member. owned is what the
// member says it has; nil: it does not say. consumer is what the group becomes if
// it is not of the consumer protocol yet. With a code nothing has changed.
func (c *Coordinator) admit(group *group, consumer *consumerGroup, old, member *consumerMember, owned []cluster.TopicPartitions) (code kafka.ErrorCode, why string) {
	more := 0
	if group.consumer == nil {
		more += len(consumer.members)
	}
	if old == nil {
		more++
	}
	if more > 0 && c.consumers+more > c.options.ConsumersMax {
		return c.refused(ConsumersBound, group.id, member.ClientID), "There are as many consumers as there can be."
	}
	members := slices.Clone(consumer.members)
	if old != nil {
		members = slices.DeleteFunc(members, func(other *consumerMember) bool { return other == old })
	}
	at, _ := slices.BinarySearchFunc(members, member.ID, func(other *consumerMember, id string) int { return cmp.Compare(other.ID, id) })
	members = slices.Insert(members, at, member)

	bump := old == nil || !slices.Equal(old.Topics, member.Topics) || old.Regex != member.Regex
	epoch, hash := consumer.epoch, consumer.hash
	var names []string
	var targets [][]cluster.TopicPartitions
	looks := bump || consumer.seen != c.state.TopicChanges()
	if looks || epoch > consumer.assigned {
		var topics []assignTopic
		var in []assignMember
		names, topics, in, hash = c.resolve(members)
		if bump || hash != consumer.hash {
			epoch++
		}
		if epoch > consumer.assigned && !c.awaitsInterval(group, consumer, members, topics, in) {
			targets = assign(preferred(members), topics, in)
			bytes := consumerBytes(members, targets)
			if bytes+cluster.GroupFixedBytes+len(group.id) > c.options.GroupBytesMax {
				return kafka.GroupMaxSizeReached, "The group would have more than can be stored of one."
			}
			if more > 0 && !c.hasBytes(bytes-group.bytes) {
				return c.refused(BytesBound, group.id, member.ClientID), "The groups would have more than can be stored of all."
			}
		}
	}

	// No check follows: from here on the group changes.
	if group.consumer == nil {
		c.endClassic(group)
		group.consumer, group.protocolType = consumer, cluster.ConsumerProtocol
		group.learnConsumer(nil)
	}
	c.consumers += more
	if looks {
		consumer.seen = c.state.TopicChanges()
		group.learnConsumer(names)
	}
	if old != nil {
		consumer.disown(old)
		if old.ID != member.ID {
			consumer.gone = append(consumer.gone, old.ID)
		}
		member.dirty = member.dirty || !member.ConsumerMember.Equal(&old.ConsumerMember)
	}
	consumer.members = members
	if member.InstanceID != "" {
		consumer.static[member.InstanceID] = member
	}
	consumer.own(member)
	if epoch != consumer.epoch || hash != consumer.hash {
		consumer.epoch, consumer.hash, consumer.dirty = epoch, hash, true
	}
	if targets != nil {
		for i, other := range consumer.members {
			if !cluster.SamePartitions(other.Target, targets[i]) {
				other.Target, other.dirty = targets[i], true
			}
		}
		consumer.assigned, consumer.dirty, consumer.computedMS = epoch, true, c.at.NowMS
	}
	c.reconcile(consumer, member, owned)
	return 0, ""
}

// awaitsInterval says that a group's next assignment is not computed yet, because one was
// within the group's interval (KIP-1263): it is at the first heartbeat after that, and until
// then a new member has no partitions. An assignment that might not fit what can be stored of
// a group is computed at once, so that it is the member that joins who is refused, and not
// the members whose heartbeats come later.
func (c *Coordinator) awaitsInterval(group *group, consumer *consumerGroup, members []*consumerMember, topics []assignTopic, in []assignMember) bool {
	interval := c.state.GroupNumber(group.id, cluster.GroupAssignmentMS, 0)
	if interval == 0 || consumer.computedMS == -Never || c.at.NowMS-consumer.computedMS >= interval {
		return false
	}
	most := make([][]cluster.TopicPartitions, len(members)) // each has some of each topic, and the first one all partitions
	for i := range members {
		most[i] = make([]cluster.TopicPartitions, len(in[i].topics))
	}
	for _, topic := range topics {
		most[0] = append(most[0], cluster.TopicPartitions{Partitions: make([]int32, topic.partitions)})
	}
	bytes := consumerBytes(members, most)
	return bytes+cluster.GroupFixedBytes+len(group.id) <= c.options.GroupBytesMax && c.hasBytes(bytes-group.bytes)
}

// claimant is the member that sent a request, nil for a new one, or why the
// request is refused.
func (x *consumerGroup) claimant(req *ConsumerRequest) (member *consumerMember, code kafka.ErrorCode, why string) {
	member = x.member(req.MemberID)
	joins := req.Epoch == cluster.EpochJoin
	if req.InstanceID != nil {
		static := x.static[*req.InstanceID]
		switch {
		case static == nil && !joins:
			return nil, kafka.UnknownMemberID, "Instance id " + *req.InstanceID + " is unknown."
		case static == nil && member != nil:
			return nil, kafka.InvalidRequest, "A member cannot take another InstanceId."
		case static == nil:
			return nil, 0, ""
		case static.ID != req.MemberID && !joins:
			return nil, kafka.FencedInstanceID, "Static member " + req.MemberID + " with instance id " + *req.InstanceID + " was fenced by member " + static.ID + "."
		case static.ID != req.MemberID && (member != nil || static.Epoch != cluster.EpochAway && static.Classic == nil):
			return nil, kafka.UnreleasedInstanceID, "Static member " + req.MemberID + " with instance id " + *req.InstanceID + " cannot join the group because the instance id is owned by " + static.ID + " member."
		}
		member = static
	}
	switch {
	case member == nil && joins:
		return nil, 0, ""
	case member == nil:
		return nil, kafka.UnknownMemberID, "Member " + req.MemberID + " is not a member of group " + req.Group + "."
	case joins: // it begins anew and owns nothing, whatever it was told before
	case req.Epoch > member.Epoch:
		return nil, kafka.FencedMemberEpoch, "The consumer group member has a greater member epoch than the one known by the group coordinator. The member must abandon all its partitions and rejoin."
	case req.Epoch < member.Epoch && (req.Epoch != member.PreviousEpoch || req.Owned == nil || !within(req.Owned, member.Assigned)): // otherwise the answer with the new epoch was lost
		return nil, kafka.FencedMemberEpoch, "The consumer group member has a smaller member epoch than the one known by the group coordinator. The member must abandon all its partitions and rejoin."
	}
	return member, 0, ""
}

func (x *consumerGroup) member(id string) *consumerMember {
	i, ok := x.memberAt(id)
	if !ok {
		return nil
	}
	return x.members[i]
}

// take copies the request's fields to the member. False: the regular expression is
// invalid.
func (m *consumerMember) take(req *ConsumerRequest) bool {
	if req.InstanceID != nil {
		m.InstanceID = *req.InstanceID
	}
	if req.RackID != nil {
		m.RackID = *req.RackID
	}
	if req.RebalanceTimeoutMS != -1 {
		m.RebalanceTimeoutMS = req.RebalanceTimeoutMS
	}
	if req.Assignor != nil {
		m.Assignor = *req.Assignor
	}
	if req.Topics != nil {
		m.Topics = slices.Clone(req.Topics)
		slices.Sort(m.Topics)
		m.Topics = slices.Compact(m.Topics)
	}
	m.ClientID, m.ClientHost = req.ClientID, req.ClientHost
	if req.Regex != nil && *req.Regex != m.Regex {
		m.Regex = *req.Regex
		var ok bool
		if m.regex, ok = compileRegex(m.Regex); !ok {
			return false
		}
	}
	return true
}

// regexCostMax bounds the length of a regular expression, and its cost: how many
// steps matching takes for each byte of a name.
const regexCostMax = 2000

// compileRegex compiles a regular expression that has to match whole names. Kafka
// and Go both use RE2's syntax. Empty text is no regular expression.
func compileRegex(text string) (re *regexp.Regexp, ok bool) {
	if text == "" {
		return nil, true
	}
	if len(text) > regexCostMax {
		return nil, false
	}
	tree, err := syntax.Parse(text, syntax.Perl)
	if err != nil || regexCost(tree) > regexCostMax {
		return nil, false
	}
	re, err = regexp.Compile(`\A(?:` + text + `)\z`)
	return re, err == nil
}

func regexCost(re *syntax.Regexp) int {
	cost := 1 + len(re.Rune)
	for _, sub := range re.Sub {
		cost += regexCost(sub)
	}
	if re.Op == syntax.OpRepeat {
		cost *= max(re.Min, re.Max, 1)
	}
	return min(cost, regexCostMax+1)
}

// resolve looks up what members subscribe to: all names, the topics among them,
// which of these each member subscribes to, and a hash of the topics' ids and
// partition counts.
func (c *Coordinator) resolve(members []*consumerMember) (names []string, topics []assignTopic, in []assignMember, hash uint64) {
	matches := map[string][]string{} // by regular expression; never iterated
	for _, member := range members {
		names = append(names, member.Topics...)
		if member.regex == nil {
			continue
		}
		if _, ok := matches[member.Regex]; ok {
			continue
		}
		var found []string
		for _, topic := range c.state.Topics() {
			if member.regex.MatchString(topic.Name) {
				found = append(found, topic.Name)
			}
		}
		matches[member.Regex] = found
		names = append(names, found...)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	sum := fnv.New64a()
	for _, name := range names {
		topic, ok := c.state.Topic(name)
		if !ok {
			continue
		}
		topics = append(topics, assignTopic{topic.ID, name, len(topic.Partitions)})
		sum.Write(binary.LittleEndian.AppendUint32(slices.Clone(topic.ID[:]), uint32(len(topic.Partitions))))
	}
	for _, member := range members {
		resolved := assignMember{id: member.ID, instance: member.InstanceID, had: member.Target}
		for _, list := range [][]string{member.Topics, matches[member.Regex]} {
			for _, name := range list {
				if i, ok := slices.BinarySearchFunc(topics, name, func(topic assignTopic, wanted string) int { return cmp.Compare(topic.name, wanted) }); ok {
					resolved.topics = append(resolved.topics, i)
				}
			}
		}
		slices.Sort(resolved.topics)
		resolved.topics = slices.Compact(resolved.topics)
		in = append(in, resolved)
	}
	return names, topics, in, sum.Sum64()
}

// preferred is the assignor that most members ask for; if equally many do, the one
// that Kafka lists first.
func preferred(members []*consumerMember) string {
	uniform, ranges := 0, 0
	for _, member := range members {
		switch member.Assignor {
		case AssignUniform:
			uniform++
		case AssignRange:
			ranges++
		}
	}
	if ranges > uniform {
		return AssignRange
	}
	return AssignUniform
}

// consumerBytes bounds what is stored of these members with these targets. Each
// partition is in at most one target and in at most one member's Assigned or
// Revoking, so twice the targets bounds what is stored.
func consumerBytes(members []*consumerMember, targets [][]cluster.TopicPartitions) (bytes int) {
	for i, member := range members {
		bytes += member.CountedBytes() - cluster.PartitionsBytes(member.Target) + 2*cluster.PartitionsBytes(targets[i])
	}
	return bytes
}

func (c *Coordinator) dropAllPending(group *group) {
	c.members -= len(group.pending)
	group.pending = nil
}

// learnConsumer sets what members of the consumer protocol subscribe to.
func (g *group) learnConsumer(names []string) { g.subscribed, g.knows = names, true }

// own notes that a member may use what is in its Assigned and Revoking. What it could use
// before it has since the epoch that it had then. After a start that is not known, and it has
// everything since the epoch that was stored.
func (x *consumerGroup) own(member *consumerMember) {
	since := member.since
	member.since = nil
	if member.Epoch > 0 {
		member.since = map[slot]int32{}
	}
	for _, all := range [][]cluster.TopicPartitions{member.Assigned, member.Revoking} {
		for _, topic := range all {
			for _, partition := range topic.Partitions {
				at := slot{topic.Topic, partition}
				if owner := x.owners[at]; owner != nil && owner != member {
					panic("cluster: a partition with two owners")
				}
				x.owners[at] = member
				if member.since == nil {
					continue
				}
				epoch, had := since[at]
				if !had {
					epoch = member.Epoch
				}
				member.since[at] = epoch
			}
		}
	}
}

func (x *consumerGroup) disown(member *consumerMember) {
	for _, all := range [][]cluster.TopicPartitions{member.Assigned, member.Revoking} {
		for _, topic := range all {
			for _, partition := range topic.Partitions {
				delete(x.owners, slot{topic.Topic, partition})
			}
		}
	}
}

// reconcile takes a member one step towards its target. owned is what it says it
// has; nil: it does not say.
func (c *Coordinator) reconcile(consumer *consumerGroup, member *consumerMember, owned []cluster.TopicPartitions) {
	if member.State == cluster.MemberStable && member.Epoch == consumer.assigned {
		return
	}
	epoch := member.Epoch
	if member.State == cluster.MemberUnrevoked {
		if owned == nil || overlap(owned, member.Revoking) {
			return
		}
		epoch++ // it has revoked what it had to
	}
	was := member.ConsumerMember
	consumer.disown(member)
	kept := both(member.Assigned, member.Target)
	revoking := without(member.Assigned, kept)
	if len(revoking) > 0 && (owned == nil || overlap(owned, revoking)) {
		member.State, member.Assigned, member.Revoking = cluster.MemberUnrevoked, kept, revoking
		if member.Classic == nil { // members of the classic protocol have joinBy instead
			member.revokeBy = c.at.NowMS + int64(member.RebalanceTimeoutMS)
		}
	} else {
		member.State, member.revokeBy, epoch = cluster.MemberStable, Never, consumer.assigned
		var free []cluster.TopicPartitions
		for _, topic := range member.Target {
			var parts []int32
			for _, partition := range topic.Partitions {
				if consumer.owners[slot{topic.Topic, partition}] == nil || c.options.Faults.AssignedUnreleased {
					parts = append(parts, partition)
				} else {
					member.State = cluster.MemberUnreleased
				}
			}
			if parts != nil {
				free = append(free, cluster.TopicPartitions{Topic: topic.Topic, Partitions: parts})
			}
		}
		// free includes what the member keeps: disown above has released that.
		member.Assigned, member.Revoking = free, nil
	}
	if c.options.Faults.AssignedUnreleased {
		for _, topic := range member.Assigned {
			for _, partition := range topic.Partitions {
				delete(consumer.owners, slot{topic.Topic, partition})
			}
		}
	}
	if epoch != member.Epoch {
		member.PreviousEpoch, member.Epoch = member.Epoch, epoch
	}
	consumer.own(member)
	member.dirty = member.dirty || !member.ConsumerMember.Equal(&was)
}

// leaveConsumer handles a member that leaves for good, or a static member that
// leaves temporarily.
func (c *Coordinator) leaveConsumer(group *group, ticket uint64, req *ConsumerRequest) {
	consumer := group.consumer
	member := consumer.member(req.MemberID)
	if req.InstanceID != nil {
		member = consumer.static[*req.InstanceID]
		if member != nil && member.ID != req.MemberID {
			c.refuseConsumer(ticket, kafka.FencedInstanceID, "Static member "+req.MemberID+" with instance id "+*req.InstanceID+" was fenced by member "+member.ID+".")
			return
		}
	}
	if member == nil {
		c.refuseConsumer(ticket, kafka.UnknownMemberID, "Member "+req.MemberID+" is not a member of group "+req.Group+".")
		return
	}
	if req.Epoch == cluster.EpochAway && member.InstanceID == "" { // Kafka wants the instance id in the request; franz-go 1.22 leaves it out
		c.refuseConsumer(ticket, kafka.InvalidRequest, "InstanceId can't be null.")
		return
	}
	reply := &ConsumerReply{MemberID: req.MemberID, Epoch: req.Epoch}
	if req.Epoch == cluster.EpochAway {
		consumer.disown(member)
		member.Epoch, member.State, member.Revoking, member.revokeBy, member.dirty = cluster.EpochAway, cluster.MemberStable, nil, Never, true
		consumer.own(member)
		c.storeConsumer(group, ticket, reply)
	} else {
		c.fence(group, []*consumerMember{member}, ticket, reply)
	}
}

// fence removes members from their group and frees their partitions. The ticket
// (0: none) is answered when that is durable.
func (c *Coordinator) fence(group *group, gone []*consumerMember, ticket uint64, reply any) {
	consumer := group.consumer
	if len(gone) > 0 && c.downgrades(consumer, gone, 0) {
		c.downgrade(group, gone, ticket, reply)
		return
	}
	for _, member := range gone {
		consumer.disown(member)
		consumer.members = slices.DeleteFunc(consumer.members, func(other *consumerMember) bool { return other == member })
		if member.InstanceID != "" {
			delete(consumer.static, member.InstanceID)
		}
		consumer.gone = append(consumer.gone, member.ID)
		c.consumers--
	}
	if len(gone) > 0 {
		c.released(group)
	}
	c.storeConsumer(group, ticket, reply)
}

// released begins a new epoch after members have been removed.
func (c *Coordinator) released(group *group) {
	consumer := group.consumer
	consumer.epoch++
	var names []string
	names, _, _, consumer.hash = c.resolve(consumer.members)
	consumer.seen, consumer.dirty = c.state.TopicChanges(), true
	group.learnConsumer(names)
}

// storeConsumer stores what changed. The ticket (0: none) is answered when that
// and everything before it is durable.
func (c *Coordinator) storeConsumer(group *group, ticket uint64, reply any) {
	consumer := group.consumer
	if state := consumer.state(); state != group.state {
		c.become(group, state)
	}
	stored := &cluster.ConsumerGroup{Epoch: consumer.epoch, AssignmentEpoch: consumer.assigned, TopicsHash: consumer.hash}
	bytes := 0
	for _, member := range consumer.members {
		if member.dirty || consumer.whole {
			member.counted = member.CountedBytes()
			stored.Members = append(stored.Members, member.ConsumerMember)
		}
		member.dirty = false
		bytes += member.counted
	}
	c.weigh(group, bytes-group.bytes)
	storing := pendingStore{kind: storingConsumer, group: group, ticket: ticket, reply: reply}
	switch {
	case consumer.dirty || consumer.whole || len(consumer.gone) > 0 || len(stored.Members) > 0:
		gone := consumer.gone
		if storing.whole = consumer.whole; storing.whole {
			gone = nil
		}
		consumer.serial++
		stored.Serial = consumer.serial
		change := cluster.PutConsumer(group.id, group.changedMS, stored, consumer.whole, gone)
		consumer.dirty, consumer.whole, consumer.gone = false, false, nil
		c.store(change, storing)
	case group.stores > 0:
		c.store(nil, storing) // the answer depends on changes that are not durable yet
	case ticket != 0:
		c.reply(ticket, reply)
	}
}

// state is the group's state by Kafka's rules.
func (x *consumerGroup) state() State {
	switch {
	case len(x.members) == 0:
		return Empty
	case x.epoch > x.assigned:
		return Assigning
	}
	for _, member := range x.members {
		if member.State != cluster.MemberStable || member.Epoch != x.assigned {
			return Reconciling
		}
	}
	return Stable
}

// consumerStored continues after a change of a consumer group was stored or could
// not be. In the latter case no member is told, the changes that follow it are
// lost too, and the next change contains the whole group.
func (c *Coordinator) consumerStored(group *group, storing *pendingStore, code kafka.ErrorCode) {
	if consumer := group.consumer; consumer != nil {
		switch {
		case code != 0:
			consumer.whole, consumer.broken = true, true
		case storing.whole:
			consumer.broken = false
		case consumer.broken:
			code = kafka.NotCoordinator
		}
	}
	if code != 0 {
		switch storing.reply.(type) {
		case *JoinReply:
			storing.reply = &JoinReply{Code: code, Generation: -1}
		case *SyncReply:
			storing.reply = &SyncReply{Code: code}
		case Done:
			storing.reply = Done{code}
		default:
			storing.reply = &ConsumerReply{Code: code}
		}
	}
	if storing.ticket != 0 {
		c.reply(storing.ticket, storing.reply)
	}
}

// expireConsumers fences the members whose session is over, and those that did
// not give up partitions, join or sync in time.
func (c *Coordinator) expireConsumers(group *group) {
	var gone []*consumerMember
	for _, member := range group.consumer.members {
		if c.options.Faults.SessionsNeverEnd {
			member.deadline = Never
		}
		if min(member.deadline, member.revokeBy, member.joinBy, member.syncBy) <= c.at.NowMS {
			gone = append(gone, member)
		}
	}
	if gone != nil {
		c.fence(group, gone, 0, nil)
	}
}

// takeUpConsumers restores a live group of the consumer protocol from its durable
// state.
func (c *Coordinator) takeUpConsumers(group *group, stored *cluster.ConsumerGroup) {
	consumer := newConsumerGroup(stored.Epoch)
	consumer.assigned, consumer.hash, consumer.serial, consumer.whole = stored.AssignmentEpoch, stored.TopicsHash, stored.Serial, false
	group.consumer, group.protocolType = consumer, cluster.ConsumerProtocol
	for i := range stored.Members {
		member := &consumerMember{ConsumerMember: stored.Members[i], deadline: c.at.NowMS + c.state.GroupNumber(group.id, cluster.GroupSessionMS, c.options.ConsumerSessionTimeoutMS), revokeBy: Never, joinBy: Never, syncBy: Never}
		member.regex, _ = compileRegex(member.Regex)
		if member.Classic != nil {
			member.deadline = c.at.NowMS + int64(member.Classic.SessionTimeoutMS)
		} else if member.State == cluster.MemberUnrevoked {
			member.revokeBy = c.at.NowMS + int64(member.RebalanceTimeoutMS)
		}
		member.counted = member.CountedBytes()
		c.weigh(group, member.counted)
		c.consumers++
		consumer.members = append(consumer.members, member)
		if member.InstanceID != "" {
			consumer.static[member.InstanceID] = member
		}
		consumer.own(member)
	}
	names, _, _, _ := c.resolve(consumer.members)
	group.learnConsumer(names)
	group.state = consumer.state()
}

// validateConsumer checks a member's id and epoch.
func (x *consumerGroup) validateConsumer(memberID string, epoch int32) (code kafka.ErrorCode) {
	member := x.member(memberID)
	switch {
	case member == nil:
		return kafka.UnknownMemberID
	case member.Epoch != epoch && member.Classic != nil:
		return kafka.IllegalGeneration
	case member.Epoch != epoch:
		return kafka.StaleMemberEpoch
	}
	return 0
}

// validateConsumerCommit checks the id and the epoch of a member that commits offsets of
// these topics. A commit may be under way while a heartbeat raises the member's epoch, so an
// earlier epoch is good for partitions that the member has had since then (KIP-1251). Kafka's
// are the rules: the whole commit is refused if one of its partitions is not the member's, or
// came to it later. With the member's present epoch partitions are not looked at.
func (c *Coordinator) validateConsumerCommit(x *consumerGroup, req *CommitRequest, topics []cluster.GroupTopic) (code kafka.ErrorCode) {
	code = x.validateConsumer(req.MemberID, req.Generation)
	if code != kafka.StaleMemberEpoch || c.options.Faults.LateCommitRefused {
		return code
	}
	member := x.member(req.MemberID)
	if req.Generation > member.Epoch || req.Generation < 0 {
		return code
	}
	for i := range topics {
		topic, ok := c.state.Topic(topics[i].Name)
		if !ok {
			return code
		}
		for k := range topics[i].Offsets {
			since, has := member.since[slot{topic.ID, topics[i].Offsets[k].Partition}]
			if !has || since > req.Generation && !c.options.Faults.AssignedSinceEver {
				return code
			}
		}
	}
	return 0
}

// ValidateFetch says whether a client may read a group's offsets. memberID nil and
// epoch -1: the client is not a member, and may.
func (c *Coordinator) ValidateFetch(groupID string, memberID *string, epoch int32) (code kafka.ErrorCode) {
	group, ok := c.group(groupID)
	if !ok || group.consumer == nil || memberID == nil && epoch < 0 {
		return 0
	}
	id := ""
	if memberID != nil {
		id = *memberID
	}
	return group.consumer.validateConsumer(id, epoch)
}

// DescribeConsumer is one group of the consumer protocol. The result refers to the
// group's memory: do not keep it.
func (c *Coordinator) DescribeConsumer(id string) (ConsumerInfo, bool) {
	group, ok := c.group(id)
	if !ok || group.consumer == nil {
		return ConsumerInfo{}, false
	}
	consumer := group.consumer
	out := ConsumerInfo{State: group.state, Epoch: consumer.epoch, AssignmentEpoch: consumer.assigned, Assignor: preferred(consumer.members)}
	for _, member := range consumer.members {
		out.Members = append(out.Members, member.ConsumerMember)
	}
	return out, true
}

// within says whether all partitions of part are in whole.
func within(part, whole []cluster.TopicPartitions) bool {
	for _, topic := range part {
		parts := partitionsOf(whole, topic.Topic)
		for _, partition := range topic.Partitions {
			if !slices.Contains(parts, partition) {
				return false
			}
		}
	}
	return true
}

// overlap says whether the two lists have a partition in common.
func overlap(left, right []cluster.TopicPartitions) bool {
	for _, topic := range left {
		parts := partitionsOf(right, topic.Topic)
		for _, partition := range topic.Partitions {
			if slices.Contains(parts, partition) {
				return true
			}
		}
	}
	return false
}

// partitionsOf are the partitions of one topic in a sorted list.
func partitionsOf(all []cluster.TopicPartitions, topic [16]byte) []int32 {
	i, ok := slices.BinarySearchFunc(all, topic, func(topic cluster.TopicPartitions, id [16]byte) int { return bytes.Compare(topic.Topic[:], id[:]) })
	if !ok {
		return nil
	}
	return all[i].Partitions
}

// both are the partitions that the two lists have in common.
func both(left, right []cluster.TopicPartitions) []cluster.TopicPartitions {
	return filter(left, right, true)
}

// union are the partitions of two lists that have none in common.
func union(left, right []cluster.TopicPartitions) []cluster.TopicPartitions {
	out := slices.Clone(left)
	for _, topic := range right {
		at, ok := slices.BinarySearchFunc(out, topic.Topic, func(other cluster.TopicPartitions, id [16]byte) int { return bytes.Compare(other.Topic[:], id[:]) })
		if !ok {
			out = slices.Insert(out, at, topic)
			continue
		}
		all := slices.Concat(out[at].Partitions, topic.Partitions)
		slices.Sort(all)
		out[at].Partitions = all
	}
	return out
}

// without are the partitions of from that are not in removed.
func without(from, removed []cluster.TopicPartitions) []cluster.TopicPartitions {
	return filter(from, removed, false)
}

func filter(from, by []cluster.TopicPartitions, in bool) (out []cluster.TopicPartitions) {
	for _, topic := range from {
		parts := partitionsOf(by, topic.Topic)
		var kept []int32
		for _, partition := range topic.Partitions {
			if _, ok := slices.BinarySearch(parts, partition); ok == in {
				kept = append(kept, partition)
			}
		}
		if kept != nil {
			out = append(out, cluster.TopicPartitions{Topic: topic.Topic, Partitions: kept})
		}
	}
	return out
}
