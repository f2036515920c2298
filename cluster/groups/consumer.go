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

// This file is groups of the consumer protocol (KIP-848) as they live. Members
// send heartbeats and nothing else; what they are to have is assigned here, and
// each is led to it by itself:
//
//	for {
//		await a change of members, subscriptions or topics // epoch++
//		assign()                                           // at the next heartbeat of anybody
//		for each member {
//			await its giving up what it is to lose // MemberUnrevoked, at its old epoch
//			await others' giving up what it is to get // MemberUnreleased, at the new one
//		}
//	}
//
// Members that still speak the classic protocol are in migration.go.
//
// The rules are those of org.apache.kafka.coordinator.group.GroupMetadataManager
// and of its modern.consumer.CurrentAssignmentBuilder, of Kafka 4.

// consumerGroup is the part of a group that follows the consumer protocol.
//
// Invariants: owners has exactly the partitions that members' Assigned and
// Revoking name, each with its one owner; assigned <= epoch.
type consumerGroup struct {
	epoch, assigned int32 // ConsumerGroup's Epoch and AssignmentEpoch
	hash            uint64
	members         []*consumerMember          // sorted by id
	static          map[string]*consumerMember // by instance id
	owners          map[slot]*consumerMember   // who may use a partition
	seen            uint64                     // State.topicChanges when topics were last looked at

	// What the next change has to say: dirty, something; whole, everything.
	dirty, whole bool
	gone         []string
	serial       uint32 // of the last change
	broken       bool   // a change was lost, and those after it are until a whole one
}

// slot is one partition.
type slot struct {
	topic     [16]byte
	partition int32
}

// consumerMember is one member as it lives.
type consumerMember struct {
	cluster.ConsumerMember
	regex    *regexp.Regexp
	deadline int64 // of its session
	revokeBy int64 // when to stop waiting for it to give up partitions
	joinBy   int64 // of one that speaks the classic protocol: when to stop waiting for its join
	syncBy   int64 // and for its sync
	dirty    bool
	counted  int // of Coordinator.bytes
}

// ConsumerRequest is a ConsumerGroupHeartbeat request. What is nil did not
// change.
type ConsumerRequest struct {
	Group, MemberID      string
	Epoch                int32
	InstanceID, RackID   *string
	RebalanceTimeoutMS   int32 // -1: as before
	Topics               []string
	Regex, Assignor      *string
	Owned                []cluster.TopicPartitions
	ClientID, ClientHost string
	NewID                string // the member's id if it brings none
	BringsID             bool   // versions 1 and up: it must bring one
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
// answered when all that the answer tells is durable.
func (c *Coordinator) ConsumerHeartbeat(at Time, ticket uint64, r *ConsumerRequest) {
	c.at = at
	if code, why := c.refuses(r); code != 0 {
		c.refuseConsumer(ticket, code, why)
		return
	}
	g, ok := c.group(r.Group)
	switch {
	case ok && g.consumer == nil && r.Epoch != cluster.EpochJoin:
		c.refuseConsumer(ticket, kafka.GroupIDNotFound, "Group "+r.Group+" is not a consumer group.")
		return
	case !ok && r.Epoch != cluster.EpochJoin:
		c.refuseConsumer(ticket, kafka.GroupIDNotFound, "Group "+r.Group+" not found.")
		return
	case !ok && len(c.groups) >= c.o.GroupsMax:
		c.refuseConsumer(ticket, kafka.GroupMaxSizeReached, "There are as many groups as there can be.")
		return
	case !ok:
		g = c.list(r.Group)
		g.changedMS = at.WallMS
	}
	if r.Epoch == cluster.EpochLeave || r.Epoch == cluster.EpochAway {
		c.leaveConsumer(g, ticket, r)
	} else {
		c.heartbeatConsumer(g, ticket, r)
	}
	c.unlistUnused(g)
	c.schedule(g)
}

// refuses says what is wrong with a request by itself.
func (c *Coordinator) refuses(r *ConsumerRequest) (code kafka.ErrorCode, why string) {
	fits := func(s *string) bool { return s == nil || len(*s) <= cluster.GroupIDBytesMax }
	switch {
	case c.closed:
		return kafka.CoordinatorNotAvailable, ""
	case r.Group == "":
		return kafka.InvalidRequest, "GroupId can't be empty."
	case !groupIDFits(r.Group):
		return kafka.InvalidGroupID, "GroupId is too long."
	case r.InstanceID != nil && *r.InstanceID == "":
		return kafka.InvalidRequest, "InstanceId can't be empty."
	case r.RackID != nil && *r.RackID == "":
		return kafka.InvalidRequest, "RackId can't be empty."
	case r.MemberID == "" && (r.Epoch != cluster.EpochJoin || r.BringsID):
		return kafka.InvalidRequest, "MemberId can't be empty."
	case len(r.MemberID) > cluster.GroupStringBytesMax || !fits(r.InstanceID) || !fits(r.RackID) || len(r.NewID) > cluster.GroupStringBytesMax ||
		len(r.ClientID) > cluster.GroupStringBytesMax || len(r.ClientHost) > cluster.GroupStringBytesMax:
		return kafka.InvalidRequest, "A name is too long."
	case r.Epoch < cluster.EpochAway:
		return kafka.InvalidRequest, "MemberEpoch is invalid."
	case r.Epoch == cluster.EpochJoin && r.RebalanceTimeoutMS == -1:
		return kafka.InvalidRequest, "RebalanceTimeoutMs must be provided in first request."
	case r.Epoch == cluster.EpochJoin && (r.Owned == nil || len(r.Owned) > 0):
		return kafka.InvalidRequest, "TopicPartitions must be empty when (re-)joining."
	case r.Epoch == cluster.EpochJoin && r.Topics == nil && r.Regex == nil:
		return kafka.InvalidRequest, "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining."
	case r.Assignor != nil && !knownAssignor(*r.Assignor):
		return kafka.UnsupportedAssignor, "ServerAssignor " + *r.Assignor + " is not supported. Supported assignors: uniform, range."
	}
	for _, t := range r.Topics {
		if len(t) > cluster.TopicNameBytesMax {
			return kafka.InvalidRequest, "A topic's name is too long."
		}
	}
	return 0, ""
}

func (c *Coordinator) refuseConsumer(ticket uint64, code kafka.ErrorCode, why string) {
	c.reply(ticket, &ConsumerReply{Code: code, Why: why})
}

func newConsumerGroup(epoch int32) *consumerGroup {
	return &consumerGroup{epoch: epoch, assigned: epoch, static: map[string]*consumerMember{}, owners: map[slot]*consumerMember{}, seen: ^uint64(0), whole: true}
}

// heartbeatConsumer handles a join or a heartbeat. Nothing of the group changes
// before all that may be refused has been looked at.
func (c *Coordinator) heartbeatConsumer(g *group, ticket uint64, r *ConsumerRequest) {
	x := g.consumer
	switch {
	case x != nil:
	case g.state == Empty:
		x = newConsumerGroup(g.generation) // epochs go on from generations, so that an old one is never valid again
	default:
		var why string
		if x, why = c.upgraded(g); x == nil {
			c.refuseConsumer(ticket, kafka.GroupIDNotFound, why)
			return
		}
	}
	old, code, why := x.who(r)
	if code == 0 && old == nil && len(x.members) >= c.o.ConsumerGroupSizeMax {
		code, why = kafka.GroupMaxSizeReached, "The consumer group has reached its maximum capacity."
	}
	if code != 0 {
		c.refuseConsumer(ticket, code, why)
		return
	}
	m := &consumerMember{revokeBy: Never, joinBy: Never, syncBy: Never, dirty: true}
	if old != nil {
		*m = *old
	}
	if old == nil || r.Epoch == cluster.EpochJoin && old.ID != r.MemberID { // a new one, or a static one that is back under another id
		m.ID, m.Epoch, m.PreviousEpoch, m.State = r.MemberID, 0, 0, cluster.MemberStable
		if r.MemberID == "" {
			m.ID = r.NewID
		}
	}
	if m.Epoch == cluster.EpochAway { // and back under the same one
		m.Epoch, m.PreviousEpoch, m.State = 0, 0, cluster.MemberStable
	}
	if !m.take(r) {
		c.refuseConsumer(ticket, kafka.InvalidRegularExpression, "SubscribedTopicRegex is no regular expression that is understood here.")
		return
	}
	m.Classic, m.joinBy, m.syncBy = nil, Never, Never
	before := m.Assigned
	if code, why := c.admit(g, x, old, m, r.Owned); code != 0 {
		c.refuseConsumer(ticket, code, why)
		return
	}
	m.deadline = c.at.NowMS + c.state.GroupNumber(g.id, cluster.GroupSessionMS, c.o.ConsumerSessionTimeoutMS)
	reply := &ConsumerReply{MemberID: m.ID, Epoch: m.Epoch, IntervalMS: int32(c.state.GroupNumber(g.id, cluster.GroupHeartbeatMS, c.o.ConsumerHeartbeatIntervalMS))}
	full := r.Epoch == cluster.EpochJoin || r.RebalanceTimeoutMS != -1 && (r.Topics != nil || r.Regex != nil) && r.Owned != nil
	if full || !cluster.SamePartitions(before, m.Assigned) {
		reply.Assigns, reply.Assignment = true, m.Assigned
	}
	c.storeConsumer(g, ticket, reply)
}

// admit makes m a member of the group, in place of old (nil: nobody), assigns
// anew where that asks for it, and leads m a step towards its target. owned is
// what it says it has; nil: it does not say. x is what the group is to be, where
// it is none of the consumer protocol yet. With a code nothing has changed.
func (c *Coordinator) admit(g *group, x *consumerGroup, old, m *consumerMember, owned []cluster.TopicPartitions) (code kafka.ErrorCode, why string) {
	more := 0
	if g.consumer == nil {
		more += len(x.members)
	}
	if old == nil {
		more++
	}
	if more > 0 && c.consumers+more > c.o.ConsumersMax {
		return kafka.GroupMaxSizeReached, "There are as many consumers as there can be."
	}
	members := slices.Clone(x.members)
	if old != nil {
		members = slices.DeleteFunc(members, func(o *consumerMember) bool { return o == old })
	}
	at, _ := slices.BinarySearchFunc(members, m.ID, func(o *consumerMember, id string) int { return cmp.Compare(o.ID, id) })
	members = slices.Insert(members, at, m)

	bump := old == nil || !slices.Equal(old.Topics, m.Topics) || old.Regex != m.Regex
	epoch, hash := x.epoch, x.hash
	var names []string
	var targets [][]cluster.TopicPartitions
	looks := bump || x.seen != c.state.TopicChanges()
	if looks || epoch > x.assigned {
		var topics []assignTopic
		var in []assignMember
		names, topics, in, hash = c.resolve(members)
		if bump || hash != x.hash {
			epoch++
		}
		if epoch > x.assigned {
			targets = assign(preferred(members), topics, in)
			if !c.holds(g, members, targets, more > 0) {
				return kafka.GroupMaxSizeReached, "The group would have more than can be stored of one."
			}
		}
	}

	// From here on nothing is refused.
	if g.consumer == nil {
		c.endClassic(g)
		g.consumer, g.protocolType = x, cluster.ConsumerProtocol
		g.learnConsumer(nil)
	}
	c.consumers += more
	if looks {
		x.seen = c.state.TopicChanges()
		g.learnConsumer(names)
	}
	if old != nil {
		x.disown(old)
		if old.ID != m.ID {
			x.gone = append(x.gone, old.ID)
		}
		m.dirty = m.dirty || !m.ConsumerMember.Equal(&old.ConsumerMember)
	}
	x.members = members
	if m.InstanceID != "" {
		x.static[m.InstanceID] = m
	}
	x.own(m)
	if epoch != x.epoch || hash != x.hash {
		x.epoch, x.hash, x.dirty = epoch, hash, true
	}
	if targets != nil {
		for i, o := range x.members {
			if !cluster.SamePartitions(o.Target, targets[i]) {
				o.Target, o.dirty = targets[i], true
			}
		}
		x.assigned, x.dirty = epoch, true
	}
	c.reconcile(x, m, owned)
	return 0, ""
}

// who is the member that sends a request, nil for a new one.
func (x *consumerGroup) who(r *ConsumerRequest) (m *consumerMember, code kafka.ErrorCode, why string) {
	m = x.member(r.MemberID)
	joins := r.Epoch == cluster.EpochJoin
	if r.InstanceID != nil {
		s := x.static[*r.InstanceID]
		switch {
		case s == nil && !joins:
			return nil, kafka.UnknownMemberID, "Instance id " + *r.InstanceID + " is unknown."
		case s == nil && m != nil:
			return nil, kafka.InvalidRequest, "A member cannot take another InstanceId."
		case s == nil:
			return nil, 0, ""
		case s.ID != r.MemberID && !joins:
			return nil, kafka.FencedInstanceID, "Static member " + r.MemberID + " with instance id " + *r.InstanceID + " was fenced by member " + s.ID + "."
		case s.ID != r.MemberID && (m != nil || s.Epoch != cluster.EpochAway && s.Classic == nil):
			return nil, kafka.UnreleasedInstanceID, "Static member " + r.MemberID + " with instance id " + *r.InstanceID + " cannot join the group because the instance id is owned by " + s.ID + " member."
		}
		m = s
	}
	switch {
	case m == nil && joins:
		return nil, 0, ""
	case m == nil:
		return nil, kafka.UnknownMemberID, "Member " + r.MemberID + " is not a member of group " + r.Group + "."
	case joins: // it begins anew and owns nothing, whatever was told before
	case r.Epoch > m.Epoch:
		return nil, kafka.FencedMemberEpoch, "The consumer group member has a greater member epoch than the one known by the group coordinator. The member must abandon all its partitions and rejoin."
	case r.Epoch < m.Epoch && (r.Epoch != m.PreviousEpoch || r.Owned == nil || !within(r.Owned, m.Assigned)): // else the answer with the new epoch got lost
		return nil, kafka.FencedMemberEpoch, "The consumer group member has a smaller member epoch than the one known by the group coordinator. The member must abandon all its partitions and rejoin."
	}
	return m, 0, ""
}

func (x *consumerGroup) member(id string) *consumerMember {
	i, ok := x.memberAt(id)
	if !ok {
		return nil
	}
	return x.members[i]
}

// take has the member say what the request says. False: its regular expression
// is none.
func (m *consumerMember) take(r *ConsumerRequest) bool {
	if r.InstanceID != nil {
		m.InstanceID = *r.InstanceID
	}
	if r.RackID != nil {
		m.RackID = *r.RackID
	}
	if r.RebalanceTimeoutMS != -1 {
		m.RebalanceTimeoutMS = r.RebalanceTimeoutMS
	}
	if r.Assignor != nil {
		m.Assignor = *r.Assignor
	}
	if r.Topics != nil {
		m.Topics = slices.Clone(r.Topics)
		slices.Sort(m.Topics)
		m.Topics = slices.Compact(m.Topics)
	}
	m.ClientID, m.ClientHost = r.ClientID, r.ClientHost
	if r.Regex != nil && *r.Regex != m.Regex {
		m.Regex = *r.Regex
		var ok bool
		if m.regex, ok = compileRegex(m.Regex); !ok {
			return false
		}
	}
	return true
}

// regexCostMax bounds a regular expression: its length, and how many times its
// parts are repeated. Matching takes so many steps for each byte of a name.
const regexCostMax = 2000

// compileRegex makes a regular expression of one that has to match a name
// wholly. Kafka's are RE2's, and Go's are too. The empty one is none.
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
	n := 1 + len(re.Rune)
	for _, sub := range re.Sub {
		n += regexCost(sub)
	}
	if re.Op == syntax.OpRepeat {
		n *= max(re.Min, re.Max, 1)
	}
	return min(n, regexCostMax+1)
}

// resolve looks up what members subscribe to: all names, those that are topics,
// which of them each member has, and a hash of the latter's ids and partitions.
func (c *Coordinator) resolve(members []*consumerMember) (names []string, topics []assignTopic, in []assignMember, hash uint64) {
	matches := map[string][]string{} // by regular expression; looked up only
	for _, m := range members {
		names = append(names, m.Topics...)
		if m.regex == nil {
			continue
		}
		if _, ok := matches[m.Regex]; ok {
			continue
		}
		var found []string
		for _, t := range c.state.Topics() {
			if m.regex.MatchString(t.Name) {
				found = append(found, t.Name)
			}
		}
		matches[m.Regex] = found
		names = append(names, found...)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	sum := fnv.New64a()
	for _, name := range names {
		t, ok := c.state.Topic(name)
		if !ok {
			continue
		}
		topics = append(topics, assignTopic{t.ID, name, len(t.Partitions)})
		sum.Write(binary.LittleEndian.AppendUint32(slices.Clone(t.ID[:]), uint32(len(t.Partitions))))
	}
	for _, m := range members {
		x := assignMember{id: m.ID, instance: m.InstanceID, had: m.Target}
		for _, list := range [][]string{m.Topics, matches[m.Regex]} {
			for _, name := range list {
				if i, ok := slices.BinarySearchFunc(topics, name, func(t assignTopic, n string) int { return cmp.Compare(t.name, n) }); ok {
					x.topics = append(x.topics, i)
				}
			}
		}
		slices.Sort(x.topics)
		x.topics = slices.Compact(x.topics)
		in = append(in, x)
	}
	return names, topics, in, sum.Sum64()
}

// preferred is the assignor that most members ask for; between equals the one
// that Kafka lists first.
func preferred(members []*consumerMember) string {
	uniform, ranges := 0, 0
	for _, m := range members {
		switch m.Assignor {
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

// holds says whether a group with these members and targets keeps the bounds.
// Each partition is in one target, and assigned to one member or still to be
// given up by one: twice the targets is the most that comes of them.
func (c *Coordinator) holds(g *group, members []*consumerMember, targets [][]cluster.TopicPartitions, grows bool) bool {
	n := 0
	for i, m := range members {
		n += m.CountedBytes() - cluster.PartitionsBytes(m.Target) + 2*cluster.PartitionsBytes(targets[i])
	}
	if n+cluster.GroupFixedBytes+len(g.id) > c.o.GroupBytesMax {
		return false
	}
	return !grows || c.bytes+c.state.GroupBytes()+n-g.bytes <= c.o.BytesMax
}

func (c *Coordinator) dropAllPending(g *group) {
	c.members -= len(g.pending)
	g.pending = nil
}

// learnConsumer takes what members of the consumer protocol subscribe to.
func (g *group) learnConsumer(names []string) { g.subscribed, g.knows = names, true }

func (x *consumerGroup) own(m *consumerMember) {
	for _, all := range [][]cluster.TopicPartitions{m.Assigned, m.Revoking} {
		for _, t := range all {
			for _, p := range t.Partitions {
				s := slot{t.Topic, p}
				if o := x.owners[s]; o != nil && o != m {
					panic("cluster: a partition with two owners")
				}
				x.owners[s] = m
			}
		}
	}
}

func (x *consumerGroup) disown(m *consumerMember) {
	for _, all := range [][]cluster.TopicPartitions{m.Assigned, m.Revoking} {
		for _, t := range all {
			for _, p := range t.Partitions {
				delete(x.owners, slot{t.Topic, p})
			}
		}
	}
}

// reconcile leads a member a step towards its target. owned is what it says it
// has; nil: it does not say.
func (c *Coordinator) reconcile(x *consumerGroup, m *consumerMember, owned []cluster.TopicPartitions) {
	if m.State == cluster.MemberStable && m.Epoch == x.assigned {
		return
	}
	epoch := m.Epoch
	if m.State == cluster.MemberUnrevoked {
		if owned == nil || overlap(owned, m.Revoking) {
			return
		}
		epoch++ // it has given up what it was to
	}
	was := m.ConsumerMember
	x.disown(m)
	kept := both(m.Assigned, m.Target)
	revoking := without(m.Assigned, kept)
	if len(revoking) > 0 && (owned == nil || overlap(owned, revoking)) {
		m.State, m.Assigned, m.Revoking = cluster.MemberUnrevoked, kept, revoking
		if m.Classic == nil { // others have their time to join
			m.revokeBy = c.at.NowMS + int64(m.RebalanceTimeoutMS)
		}
	} else {
		m.State, m.revokeBy, epoch = cluster.MemberStable, Never, x.assigned
		var free []cluster.TopicPartitions
		for _, t := range m.Target {
			var parts []int32
			for _, p := range t.Partitions {
				if x.owners[slot{t.Topic, p}] == nil || c.o.Faults.AssignedUnreleased {
					parts = append(parts, p)
				} else {
					m.State = cluster.MemberUnreleased
				}
			}
			if parts != nil {
				free = append(free, cluster.TopicPartitions{Topic: t.Topic, Partitions: parts})
			}
		}
		// What it keeps is free too: nobody else owns it.
		m.Assigned, m.Revoking = free, nil
	}
	if c.o.Faults.AssignedUnreleased {
		for _, t := range m.Assigned {
			for _, p := range t.Partitions {
				delete(x.owners, slot{t.Topic, p})
			}
		}
	}
	x.own(m)
	if epoch != m.Epoch {
		m.PreviousEpoch, m.Epoch = m.Epoch, epoch
	}
	m.dirty = m.dirty || !m.ConsumerMember.Equal(&was)
}

// leaveConsumer handles a member that goes, for good or for a while.
func (c *Coordinator) leaveConsumer(g *group, ticket uint64, r *ConsumerRequest) {
	x := g.consumer
	m := x.member(r.MemberID)
	if r.InstanceID != nil {
		m = x.static[*r.InstanceID]
		if m != nil && m.ID != r.MemberID {
			c.refuseConsumer(ticket, kafka.FencedInstanceID, "Static member "+r.MemberID+" with instance id "+*r.InstanceID+" was fenced by member "+m.ID+".")
			return
		}
	}
	if m == nil {
		c.refuseConsumer(ticket, kafka.UnknownMemberID, "Member "+r.MemberID+" is not a member of group "+r.Group+".")
		return
	}
	if r.Epoch == cluster.EpochAway && m.InstanceID == "" { // Kafka wants the instance id in the request; franz-go 1.22 leaves it out
		c.refuseConsumer(ticket, kafka.InvalidRequest, "InstanceId can't be null.")
		return
	}
	reply := &ConsumerReply{MemberID: r.MemberID, Epoch: r.Epoch}
	if r.Epoch == cluster.EpochAway {
		x.disown(m)
		m.Epoch, m.State, m.Revoking, m.revokeBy, m.dirty = cluster.EpochAway, cluster.MemberStable, nil, Never, true
		x.own(m)
		c.storeConsumer(g, ticket, reply)
	} else {
		c.fence(g, []*consumerMember{m}, ticket, reply)
	}
}

// fence takes members out of their group: what they had is free. The ticket (0:
// none) is answered when that is durable.
func (c *Coordinator) fence(g *group, gone []*consumerMember, ticket uint64, reply any) {
	x := g.consumer
	if len(gone) > 0 && c.downgrades(x, gone, 0) {
		c.downgrade(g, gone, ticket, reply)
		return
	}
	for _, m := range gone {
		x.disown(m)
		x.members = slices.DeleteFunc(x.members, func(o *consumerMember) bool { return o == m })
		if m.InstanceID != "" {
			delete(x.static, m.InstanceID)
		}
		x.gone = append(x.gone, m.ID)
		c.consumers--
	}
	if len(gone) > 0 {
		c.released(g)
	}
	c.storeConsumer(g, ticket, reply)
}

// released: members have gone.
func (c *Coordinator) released(g *group) {
	x := g.consumer
	x.epoch++
	var names []string
	names, _, _, x.hash = c.resolve(x.members)
	x.seen, x.dirty = c.state.TopicChanges(), true
	g.learnConsumer(names)
}

// storeConsumer has what changed stored, and the ticket (0: none) answered when
// that and all before it is durable.
func (c *Coordinator) storeConsumer(g *group, ticket uint64, reply any) {
	x := g.consumer
	if s := x.state(); s != g.state {
		c.become(g, s)
	}
	d := &cluster.ConsumerGroup{Epoch: x.epoch, AssignmentEpoch: x.assigned, TopicsHash: x.hash}
	bytes := 0
	for _, m := range x.members {
		if m.dirty || x.whole {
			m.counted = m.CountedBytes()
			d.Members = append(d.Members, m.ConsumerMember)
		}
		m.dirty = false
		bytes += m.counted
	}
	c.weigh(g, bytes-g.bytes)
	s := storing{kind: storingConsumer, group: g, ticket: ticket, reply: reply}
	switch {
	case x.dirty || x.whole || len(x.gone) > 0 || len(d.Members) > 0:
		gone := x.gone
		if s.whole = x.whole; s.whole {
			gone = nil
		}
		x.serial++
		d.Serial = x.serial
		change := cluster.PutConsumer(g.id, g.changedMS, d, x.whole, gone)
		x.dirty, x.whole, x.gone = false, false, nil
		c.store(change, s)
	case g.stores > 0:
		c.store(nil, s) // the answer tells what is not durable yet
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
	for _, m := range x.members {
		if m.State != cluster.MemberStable || m.Epoch != x.assigned {
			return Reconciling
		}
	}
	return Stable
}

// consumerStored: what was to be stored is, or cannot be. Then nobody is told,
// the changes after it are lost too, and the next one has all of it.
func (c *Coordinator) consumerStored(g *group, s *storing, code kafka.ErrorCode) {
	if x := g.consumer; x != nil {
		switch {
		case code != 0:
			x.whole, x.broken = true, true
		case s.whole:
			x.broken = false
		case x.broken:
			code = kafka.NotCoordinator
		}
	}
	if code != 0 {
		switch s.reply.(type) {
		case *JoinReply:
			s.reply = &JoinReply{Code: code, Generation: -1}
		case *SyncReply:
			s.reply = &SyncReply{Code: code}
		case Done:
			s.reply = Done{code}
		default:
			s.reply = &ConsumerReply{Code: code}
		}
	}
	if s.ticket != 0 {
		c.reply(s.ticket, s.reply)
	}
}

// expireConsumers fences the members whose session is over, and those that did
// not give up partitions, join or sync in time.
func (c *Coordinator) expireConsumers(g *group) {
	var gone []*consumerMember
	for _, m := range g.consumer.members {
		if c.o.Faults.SessionsNeverEnd {
			m.deadline = Never
		}
		if min(m.deadline, m.revokeBy, m.joinBy, m.syncBy) <= c.at.NowMS {
			gone = append(gone, m)
		}
	}
	if gone != nil {
		c.fence(g, gone, 0, nil)
	}
}

// takeUpConsumers makes a group of the consumer protocol of what is durable.
func (c *Coordinator) takeUpConsumers(g *group, d *cluster.ConsumerGroup) {
	x := newConsumerGroup(d.Epoch)
	x.assigned, x.hash, x.serial, x.whole = d.AssignmentEpoch, d.TopicsHash, d.Serial, false
	g.consumer, g.protocolType = x, cluster.ConsumerProtocol
	for i := range d.Members {
		m := &consumerMember{ConsumerMember: d.Members[i], deadline: c.at.NowMS + c.state.GroupNumber(g.id, cluster.GroupSessionMS, c.o.ConsumerSessionTimeoutMS), revokeBy: Never, joinBy: Never, syncBy: Never}
		m.regex, _ = compileRegex(m.Regex)
		if m.Classic != nil {
			m.deadline = c.at.NowMS + int64(m.Classic.SessionTimeoutMS)
		} else if m.State == cluster.MemberUnrevoked {
			m.revokeBy = c.at.NowMS + int64(m.RebalanceTimeoutMS)
		}
		m.counted = m.CountedBytes()
		c.weigh(g, m.counted)
		c.consumers++
		x.members = append(x.members, m)
		if m.InstanceID != "" {
			x.static[m.InstanceID] = m
		}
		x.own(m)
	}
	names, _, _, _ := c.resolve(x.members)
	g.learnConsumer(names)
	g.state = x.state()
}

// validateConsumer says whether a member of the consumer protocol is who it
// says it is.
func (x *consumerGroup) validateConsumer(memberID string, epoch int32) (code kafka.ErrorCode) {
	m := x.member(memberID)
	switch {
	case m == nil:
		return kafka.UnknownMemberID
	case m.Epoch != epoch && m.Classic != nil:
		return kafka.IllegalGeneration
	case m.Epoch != epoch:
		return kafka.StaleMemberEpoch
	}
	return 0
}

// ValidateFetch says whether a member (nil, and epoch -1: anybody) may read a
// group's offsets.
func (c *Coordinator) ValidateFetch(group string, memberID *string, epoch int32) (code kafka.ErrorCode) {
	g, ok := c.group(group)
	if !ok || g.consumer == nil || memberID == nil && epoch < 0 {
		return 0
	}
	id := ""
	if memberID != nil {
		id = *memberID
	}
	return g.consumer.validateConsumer(id, epoch)
}

// DescribeConsumer is one group of the consumer protocol. Not to be kept.
func (c *Coordinator) DescribeConsumer(id string) (ConsumerInfo, bool) {
	g, ok := c.group(id)
	if !ok || g.consumer == nil {
		return ConsumerInfo{}, false
	}
	x := g.consumer
	out := ConsumerInfo{State: g.state, Epoch: x.epoch, AssignmentEpoch: x.assigned, Assignor: preferred(x.members)}
	for _, m := range x.members {
		out.Members = append(out.Members, m.ConsumerMember)
	}
	return out, true
}

// within says whether all of a's partitions are b's.
func within(a, b []cluster.TopicPartitions) bool {
	for _, t := range a {
		parts := partitionsOf(b, t.Topic)
		for _, p := range t.Partitions {
			if !slices.Contains(parts, p) {
				return false
			}
		}
	}
	return true
}

// overlap says whether a and b have a partition in common.
func overlap(a, b []cluster.TopicPartitions) bool {
	for _, t := range a {
		parts := partitionsOf(b, t.Topic)
		for _, p := range t.Partitions {
			if slices.Contains(parts, p) {
				return true
			}
		}
	}
	return false
}

// partitionsOf are the partitions of one topic in a sorted list.
func partitionsOf(all []cluster.TopicPartitions, topic [16]byte) []int32 {
	i, ok := slices.BinarySearchFunc(all, topic, func(t cluster.TopicPartitions, id [16]byte) int { return bytes.Compare(t.Topic[:], id[:]) })
	if !ok {
		return nil
	}
	return all[i].Partitions
}

// both are the partitions that a and b have in common.
func both(a, b []cluster.TopicPartitions) []cluster.TopicPartitions {
	return filter(a, b, true)
}

// union are the partitions of a and b, which have none in common.
func union(a, b []cluster.TopicPartitions) []cluster.TopicPartitions {
	out := slices.Clone(a)
	for _, t := range b {
		at, ok := slices.BinarySearchFunc(out, t.Topic, func(o cluster.TopicPartitions, id [16]byte) int { return bytes.Compare(o.Topic[:], id[:]) })
		if !ok {
			out = slices.Insert(out, at, t)
			continue
		}
		all := slices.Concat(out[at].Partitions, t.Partitions)
		slices.Sort(all)
		out[at].Partitions = all
	}
	return out
}

// without are the partitions of a that b does not have.
func without(a, b []cluster.TopicPartitions) []cluster.TopicPartitions {
	return filter(a, b, false)
}

func filter(a, b []cluster.TopicPartitions, in bool) (out []cluster.TopicPartitions) {
	for _, t := range a {
		parts := partitionsOf(b, t.Topic)
		var left []int32
		for _, p := range t.Partitions {
			if _, ok := slices.BinarySearch(parts, p); ok == in {
				left = append(left, p)
			}
		}
		if left != nil {
			out = append(out, cluster.TopicPartitions{Topic: t.Topic, Partitions: left})
		}
	}
	return out
}
