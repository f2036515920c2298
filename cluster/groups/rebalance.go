package groups

import (
	"bytes"
	"slices"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/kafka"
)

// This file is the rebalance of classic groups: members join and leave, and a
// generation begins.

// join handles a join of a listed group.
func (c *Coordinator) join(group *group, ticket uint64, req *JoinRequest) {
	more, isNew := c.growth(group, req)
	if !group.accepts(req.MemberID, c.options.GroupSizeMax) || more > 0 && group.bytes+more > c.options.GroupBytesMax {
		// A member that joins again too late in a rebalance is removed.
		c.refuseJoin(ticket, kafka.GroupMaxSizeReached, "")
		c.dropPending(group, req.MemberID)
		if member := group.byID[req.MemberID]; member != nil {
			c.remove(group, member)
			c.rebalance(group)
		}
		return
	}
	switch {
	case isNew && c.members >= c.options.MembersMax:
		c.refuseJoin(ticket, c.refused(MembersBound, group.id, req.ClientID), "")
		return
	case more > 0 && !c.hasBytes(more):
		c.refuseJoin(ticket, c.refused(BytesBound, group.id, req.ClientID), req.MemberID)
		return
	}
	if !group.supports(req.ProtocolType, req.Protocols) {
		c.refuseJoin(ticket, kafka.InconsistentGroupProtocol, req.MemberID)
		return
	}
	if req.MemberID != "" {
		c.joinAgain(group, ticket, req)
		return
	}
	if req.InstanceID != "" {
		if old := group.static[req.InstanceID]; old != nil {
			c.replaceStatic(group, old, ticket, req)
		} else {
			c.addMember(group, req.NewID, ticket, req)
		}
		return
	}
	if req.IDRequired {
		group.pending = append(group.pending, pendingMember{req.NewID, c.at.NowMS + int64(req.SessionTimeoutMS)})
		c.members++
		c.refuseJoin(ticket, kafka.MemberIDRequired, req.NewID)
		return
	}
	c.addMember(group, req.NewID, ticket, req)
}

// joinAgain handles the join of a client that has a member id.
func (c *Coordinator) joinAgain(group *group, ticket uint64, req *JoinRequest) {
	if group.isPending(req.MemberID) {
		if req.InstanceID != "" { // a static member is not given an id before it joins
			c.refuseJoin(ticket, kafka.UnknownMemberID, req.MemberID)
			return
		}
		c.addMember(group, req.MemberID, ticket, req)
		return
	}
	if code := group.validate(req.MemberID, req.InstanceID); code != 0 {
		c.refuseJoin(ticket, code, req.MemberID)
		return
	}
	member := group.byID[req.MemberID]
	same := slices.EqualFunc(member.protocols, req.Protocols, func(left, right cluster.GroupProtocol) bool {
		return left.Name == right.Name && bytes.Equal(left.Metadata, right.Metadata)
	})
	switch {
	case group.state == Empty:
		c.refuseJoin(ticket, kafka.UnknownMemberID, req.MemberID)
	case group.state == CompletingRebalance && same, // its answer was lost
		group.state == Stable && same && group.leader != member.id: // nothing changed
		c.reply(ticket, group.joined(member))
	default: // a leader that joins again wants a rebalance: its topics may have changed
		c.update(group, member, ticket, req)
		c.rebalance(group)
	}
}

// accepts says whether a group of at most sizeMax members has room for this member.
func (g *group) accepts(memberID string, sizeMax int) bool {
	member := g.byID[memberID]
	switch g.state {
	case PreparingRebalance: // only members that have joined again count: the last ones to do so are refused
		return member != nil && member.join != 0 || g.awaiting < sizeMax
	case CompletingRebalance, Stable:
		return member != nil || len(g.members) < sizeMax
	}
	return true
}

// growth returns how many bytes more the members have after the join, and whether there
// is one member more.
func (c *Coordinator) growth(group *group, req *JoinRequest) (more int, isNew bool) {
	more = memberBytes(req.NewID, req.InstanceID, req.ClientID, req.ClientHost, req.Protocols)
	old := group.byID[req.MemberID]
	if old == nil && req.InstanceID != "" && req.MemberID == "" {
		old = group.static[req.InstanceID]
	}
	if old != nil {
		return more - old.bytes(), false
	}
	return more, req.MemberID == ""
}

func memberBytes(id, instance, clientID, clientHost string, protocols []cluster.GroupProtocol) int {
	bytes := cluster.MemberFixedBytes + len(id) + len(instance) + len(clientID) + len(clientHost)
	for _, protocol := range protocols {
		bytes += cluster.TopicFixedBytes + len(protocol.Name) + len(protocol.Metadata)
	}
	return bytes
}

// bytes counts everything but the assignment, which counts where it is stored.
func (m *member) bytes() int {
	return memberBytes(m.id, m.instance, m.clientID, m.clientHost, m.protocols)
}

// supports says whether a member with these protocols can be in the group.
func (g *group) supports(protocolType string, protocols []cluster.GroupProtocol) bool {
	if g.state == Empty {
		return protocolType != "" && len(protocols) > 0
	}
	return g.protocolType == protocolType && slices.ContainsFunc(protocols, func(protocol cluster.GroupProtocol) bool { return g.allKnow(protocol.Name) })
}

// allKnow says whether every member knows a protocol.
func (g *group) allKnow(name string) bool {
	for _, member := range g.members {
		if !member.knows(name) {
			return false
		}
	}
	return true
}

func (m *member) knows(name string) bool {
	return slices.ContainsFunc(m.protocols, func(protocol cluster.GroupProtocol) bool { return protocol.Name == name })
}

// metadata is the member's metadata for a protocol.
func (m *member) metadata(name string) []byte {
	for _, protocol := range m.protocols {
		if protocol.Name == name {
			return protocol.Metadata
		}
	}
	return nil
}

// choose is, of the protocols that all members know, the one that most prefer. If
// equally many do, it is the one that comes first in the first member's order.
func (g *group) choose() string {
	var known []cluster.GroupProtocol
	for _, protocol := range g.members[0].protocols {
		if g.allKnow(protocol.Name) {
			known = append(known, protocol)
		}
	}
	best, most := "", 0
	for _, protocol := range known {
		votes := 0
		for _, member := range g.members {
			i := slices.IndexFunc(member.protocols, func(preferred cluster.GroupProtocol) bool {
				return slices.ContainsFunc(known, func(other cluster.GroupProtocol) bool { return other.Name == preferred.Name })
			})
			if member.protocols[i].Name == protocol.Name {
				votes++
			}
		}
		if votes > most {
			best, most = protocol.Name, votes
		}
	}
	return best
}

// validate says whether the ids are a member's.
func (g *group) validate(memberID, instanceID string) (code kafka.ErrorCode) {
	if instanceID != "" {
		switch member := g.static[instanceID]; {
		case member == nil:
			return kafka.UnknownMemberID
		case member.id != memberID:
			return kafka.FencedInstanceID
		}
	}
	if g.byID[memberID] == nil {
		return kafka.UnknownMemberID
	}
	return 0
}

// validateCommit says whether the client may commit offsets of these topics.
func (c *Coordinator) validateCommit(group *group, req *CommitRequest, topics []cluster.GroupTopic) (code kafka.ErrorCode) {
	if req.Generation < 0 && group.state == Empty {
		return 0 // a client outside the group: no member's offsets are overwritten
	}
	if group.consumer != nil {
		if member := group.consumer.member(req.MemberID); member != nil && member.Classic == nil && !req.KnowsGroupIDNotFound {
			return kafka.UnsupportedVersion // it takes the epoch for a generation
		}
		code := c.validateConsumerCommit(group.consumer, req, topics)
		if (code == kafka.StaleMemberEpoch || code == kafka.IllegalGeneration) && c.options.Faults.StaleEpochTaken {
			return 0
		}
		return code
	}
	if req.Generation < 0 && req.MemberID == "" && req.InstanceID == "" {
		return kafka.UnknownMemberID
	}
	if code := group.validate(req.MemberID, req.InstanceID); code != 0 {
		return code
	}
	if req.Generation != group.generation {
		return kafka.IllegalGeneration
	}
	if group.state == CompletingRebalance {
		return kafka.RebalanceInProgress
	}
	return 0
}

func (g *group) isPending(id string) bool {
	return slices.ContainsFunc(g.pending, func(pending pendingMember) bool { return pending.id == id })
}

func (c *Coordinator) dropPending(group *group, id string) {
	before := len(group.pending)
	group.pending = slices.DeleteFunc(group.pending, func(pending pendingMember) bool { return pending.id == id })
	c.members -= before - len(group.pending)
}

// addMember adds a new member, and rebalances.
func (c *Coordinator) addMember(group *group, id string, ticket uint64, req *JoinRequest) {
	c.dropPending(group, id)
	member := &member{id: id, instance: req.InstanceID, clientID: req.ClientID, clientHost: req.ClientHost, fresh: true}
	if len(group.members) == 0 {
		group.protocolType = req.ProtocolType
	}
	if group.state == PreparingRebalance && group.previous == Empty {
		group.grew = true
	}
	member.sessionMS, member.rebalanceMS, member.protocols = req.SessionTimeoutMS, req.RebalanceTimeoutMS, cloneProtocols(req.Protocols)
	c.put(group, member)
	c.awaitJoin(group, member, ticket)
	// It cannot send heartbeats, and the Coordinator does not know whether its
	// connection is still open, so its wait has a timeout of its own.
	c.rearm(group, member, c.options.NewMemberTimeoutMS)
	c.rebalance(group)
}

// put adds a member to its group.
func (c *Coordinator) put(group *group, member *member) {
	group.members = append(group.members, member)
	group.byID[member.id] = member
	if member.instance != "" {
		group.static[member.instance] = member
	}
	if group.leader == "" {
		group.leader = member.id
	}
	c.members++
	c.weigh(group, member.bytes())
}

func (c *Coordinator) weigh(group *group, bytes int) {
	group.bytes += bytes
	c.bytes += bytes
}

func cloneProtocols(from []cluster.GroupProtocol) []cluster.GroupProtocol {
	out := make([]cluster.GroupProtocol, len(from))
	for i, protocol := range from {
		out[i] = cluster.GroupProtocol{Name: protocol.Name, Metadata: slices.Clone(protocol.Metadata)} // the request's memory is not kept
	}
	return out
}

// update takes over the request of a member that joins again.
func (c *Coordinator) update(group *group, member *member, ticket uint64, req *JoinRequest) {
	c.weigh(group, -member.bytes())
	member.sessionMS, member.rebalanceMS, member.protocols = req.SessionTimeoutMS, req.RebalanceTimeoutMS, cloneProtocols(req.Protocols)
	c.weigh(group, member.bytes())
	c.awaitJoin(group, member, ticket)
}

// awaitJoin has a member wait for the rebalance. An earlier join of it that still
// waits is refused: the client has given that up.
func (c *Coordinator) awaitJoin(group *group, member *member, ticket uint64) {
	if member.join != 0 {
		c.refuseJoin(member.join, kafka.RebalanceInProgress, member.id)
		group.awaiting--
	}
	member.join = ticket
	group.awaiting++
}

// remove removes a member from its group. The caller rebalances.
func (c *Coordinator) remove(group *group, gone *member) {
	if gone.join != 0 {
		ticket := gone.join
		gone.join = 0
		group.awaiting--
		c.refuseJoin(ticket, kafka.UnknownMemberID, "")
	}
	c.endSync(gone, &SyncReply{Code: kafka.UnknownMemberID})
	group.members = slices.DeleteFunc(group.members, func(other *member) bool { return other == gone })
	delete(group.byID, gone.id)
	if gone.instance != "" {
		delete(group.static, gone.instance)
	}
	if group.leader == gone.id {
		group.leader = ""
		if len(group.members) > 0 {
			group.leader = group.members[0].id
		}
	}
	c.members--
	c.weigh(group, -gone.bytes())
}

// rebalance begins a rebalance, or continues the one that is under way.
func (c *Coordinator) rebalance(group *group) {
	if group.state == PreparingRebalance {
		c.maybeComplete(group)
		return
	}
	if group.state == CompletingRebalance {
		for _, member := range group.members {
			member.assignment = nil
			c.endSync(member, &SyncReply{Code: kafka.RebalanceInProgress})
		}
	}
	c.endSyncs(group)
	first := group.state == Empty
	c.become(group, PreparingRebalance)
	switch {
	case first: // more members may be about to join
		group.initial = true
		group.delayMS = c.options.InitialRebalanceDelayMS
		group.leftMS = max(group.rebalanceTimeoutMS()-group.delayMS, 0)
		group.joinAt = c.at.NowMS + group.delayMS
	case group.allJoined():
		c.complete(group)
	default:
		group.joinAt = c.at.NowMS + group.rebalanceTimeoutMS()
	}
}

// maybeComplete ends the wait for joins if no member is missing. A group that was
// empty waits for its initial delay in any case.
func (c *Coordinator) maybeComplete(group *group) {
	if group.state == PreparingRebalance && group.previous != Empty && group.allJoined() {
		c.complete(group)
	}
}

func (g *group) allJoined() bool { return g.awaiting == len(g.members) && len(g.pending) == 0 }

// complete ends the wait for joins: the next generation begins with the members
// that have joined. A static member stays even if it has not.
func (c *Coordinator) complete(group *group) {
	group.joinAt, group.initial, group.grew = Never, false, false
	for _, member := range slices.Clone(group.members) {
		if member.join == 0 && member.instance == "" {
			c.remove(group, member)
		}
	}
	if len(group.members) > 0 && !group.electLeader() {
		// Only static members are left, and none has joined: wait until they do or
		// their sessions end.
		group.joinAt = c.at.NowMS + group.rebalanceTimeoutMS()
		return
	}
	if !c.options.Faults.GenerationKept || group.generation == 0 {
		group.generation++
	}
	if len(group.members) == 0 {
		group.protocol = ""
		group.learnTopics()
		c.become(group, Empty)
		c.store(cluster.PutGroup(group.durable(nil)), pendingStore{group: group})
		return
	}
	group.protocol = group.choose()
	group.learnTopics()
	c.become(group, CompletingRebalance)
	for _, member := range group.members {
		if member.join != 0 {
			ticket := member.join
			member.join = 0
			group.awaiting--
			c.reply(ticket, group.joined(member))
		}
		c.rearm(group, member, int64(member.sessionMS))
		member.fresh, member.unsynced = false, true
	}
	group.syncAt = c.at.NowMS + group.rebalanceTimeoutMS()
}

// electLeader makes sure that the leader has joined. False: no member has.
func (g *group) electLeader() bool {
	if member := g.byID[g.leader]; member != nil && member.join != 0 {
		return true
	}
	for _, member := range g.members {
		if member.join != 0 {
			g.leader = member.id
			return true
		}
	}
	return false
}

// joined is the answer to a member's join.
func (g *group) joined(member *member) *JoinReply {
	reply := &JoinReply{MemberID: member.id, Generation: g.generation, ProtocolType: g.protocolType, Protocol: g.protocol, Leader: g.leader}
	if member.id == g.leader {
		reply.Members = g.joinMembers()
	}
	return reply
}

func (g *group) joinMembers() []JoinMember {
	out := make([]JoinMember, len(g.members))
	for i, member := range g.members {
		out[i] = JoinMember{member.id, member.instance, member.metadata(g.protocol)}
	}
	return out
}

func (c *Coordinator) refuseJoin(ticket uint64, code kafka.ErrorCode, memberID string) {
	c.reply(ticket, &JoinReply{Code: code, MemberID: memberID, Generation: -1})
}

// replaceStatic gives a static member that comes back a new id. The old id is
// fenced from then on.
func (c *Coordinator) replaceStatic(group *group, member *member, ticket uint64, req *JoinRequest) {
	leader := group.leader
	c.endJoin(group, member, kafka.FencedInstanceID)
	c.endSync(member, &SyncReply{Code: kafka.FencedInstanceID})
	c.weigh(group, -member.bytes())
	delete(group.byID, member.id)
	if group.leader == member.id {
		group.leader = req.NewID
	}
	member.id = req.NewID
	group.byID[member.id] = member
	c.weigh(group, member.bytes())
	c.update(group, member, ticket, req)
	c.rearm(group, member, int64(member.sessionMS))
	switch {
	case group.state == Stable && group.protocol == group.choose():
		// It continues with the assignment of the old id; no other member needs to
		// know.
		assignment := map[string][]byte{}
		for _, other := range group.members {
			assignment[other.id] = other.assignment
		}
		c.store(cluster.PutGroup(group.durable(assignment)), pendingStore{kind: storingStatic, group: group, ticket: ticket, member: member.id, leader: leader, skips: req.CanSkip})
	default: // while the rebalance completes, the leader may already have been told the old id
		c.rebalance(group)
	}
}

// replaced continues after a static member's new id was stored or could not be.
func (c *Coordinator) replaced(group *group, storing *pendingStore, code kafka.ErrorCode) {
	member := group.byID[storing.member]
	if group.unlisted || member == nil || member.join != storing.ticket {
		return // a rebalance has answered it
	}
	if code != 0 {
		// The client joins again, and its id is replaced again; the old one stays
		// fenced.
		c.endJoin(group, member, code)
		return
	}
	member.join = 0
	group.awaiting--
	reply := group.joined(member)
	if storing.skips {
		reply.SkipAssignment = member.id == group.leader
	} else {
		// It must not take itself for the leader: it would assign again.
		reply.Leader, reply.Members = storing.leader, nil
	}
	c.reply(storing.ticket, reply)
}

// sync handles a valid sync.
func (c *Coordinator) sync(group *group, ticket uint64, req *SyncRequest) {
	member := group.byID[req.MemberID]
	c.synced(group, member)
	if group.state == Stable {
		c.reply(ticket, &SyncReply{ProtocolType: group.protocolType, Protocol: group.protocol, Assignment: member.assignment})
		return
	}
	c.endSync(member, &SyncReply{Code: kafka.RebalanceInProgress})
	member.sync = ticket
	if member.id != group.leader || group.assigns == group.generation {
		// A leader that syncs again gets its first assignment. If the second were
		// stored too, members would be told another assignment after a restart.
		return
	}
	assignment := map[string][]byte{}
	for _, assigned := range req.Assignments {
		if group.byID[assigned.MemberID] != nil {
			assignment[assigned.MemberID] = slices.Clone(assigned.Assignment)
		}
	}
	storing := pendingStore{kind: storingAssignment, group: group, generation: group.generation, assignment: assignment}
	change := cluster.PutGroup(group.durable(assignment))
	if len(change) > c.options.GroupBytesMax {
		c.assigned(group, &storing, kafka.UnknownServerError) // as Kafka answers a record that is too large
		return
	}
	if !c.hasBytes(len(change)) {
		c.assigned(group, &storing, c.refused(BytesBound, group.id, group.byID[req.MemberID].clientID))
		return
	}
	group.assigns = group.generation
	c.store(change, storing)
}

// synced notes that a member has sent its sync. After the last the deadline is off.
func (c *Coordinator) synced(group *group, waited *member) {
	waited.unsynced = false
	if !slices.ContainsFunc(group.members, func(other *member) bool { return other.unsynced }) {
		group.syncAt = Never
	}
}

// assigned continues after the leader's assignment was stored or could not be.
func (c *Coordinator) assigned(group *group, storing *pendingStore, code kafka.ErrorCode) {
	if group.unlisted || group.state != CompletingRebalance || group.generation != storing.generation {
		return // another rebalance has begun
	}
	if code != 0 {
		for _, member := range group.members {
			member.assignment = nil
			c.endSync(member, &SyncReply{Code: code})
		}
		c.rebalance(group)
		return
	}
	for _, member := range group.members {
		member.assignment = storing.assignment[member.id]
		if member.sync != 0 && (member.id == group.leader || !c.options.Faults.SyncForgotten) {
			c.endSync(member, &SyncReply{ProtocolType: group.protocolType, Protocol: group.protocol, Assignment: member.assignment})
			// expire has ignored the end of its session while it waited.
			c.rearm(group, member, int64(member.sessionMS))
		}
	}
	c.become(group, Stable)
}

// endJoin answers a member's join with an error, if it waits.
func (c *Coordinator) endJoin(group *group, member *member, code kafka.ErrorCode) {
	if member.join == 0 {
		return
	}
	ticket := member.join
	member.join = 0
	group.awaiting--
	c.refuseJoin(ticket, code, member.id)
}

// endSync answers a member's sync, if it waits.
func (c *Coordinator) endSync(member *member, reply *SyncReply) {
	if member.sync == 0 {
		return
	}
	ticket := member.sync
	member.sync = 0
	c.reply(ticket, reply)
}

// endSyncs stops waiting for syncs.
func (c *Coordinator) endSyncs(group *group) {
	group.syncAt = Never
	for _, member := range group.members {
		member.unsynced = false
	}
}

func (c *Coordinator) become(group *group, state State) {
	group.previous, group.state, group.changedMS = group.state, state, c.at.WallMS
}

func (c *Coordinator) rearm(group *group, member *member, timeoutMS int64) {
	member.deadline = c.at.NowMS + timeoutMS
}

func (g *group) rebalanceTimeoutMS() (longest int64) {
	for _, member := range g.members {
		longest = max(longest, int64(member.rebalanceMS))
	}
	return max(longest, 1) // a deadline is later than its wait's beginning, whatever clients ask for
}

// expire does what is due in a group.
func (c *Coordinator) expire(group *group) {
	now := c.at.NowMS
	if group.consumer != nil {
		c.expireConsumers(group)
	}
	for _, pending := range slices.Clone(group.pending) {
		if pending.deadline <= now && group.isPending(pending.id) {
			c.dropPending(group, pending.id)
			if group.state == PreparingRebalance && group.allJoined() {
				c.complete(group)
			}
		}
	}
	for _, member := range slices.Clone(group.members) {
		if member.deadline > now || group.byID[member.id] != member {
			continue
		}
		if !member.fresh && (member.join != 0 || member.sync != 0) {
			member.deadline = Never // a member that waits for an answer need not send heartbeats
			continue
		}
		c.remove(group, member)
		switch {
		case group.state == Stable || group.state == CompletingRebalance:
			c.rebalance(group)
		case group.state == PreparingRebalance && group.allJoined():
			c.complete(group)
		}
	}
	if group.joinAt <= now {
		c.joinsEnd(group)
	}
	if group.syncAt <= now {
		c.syncsEnd(group)
	}
}

// joinsEnd is called at the deadline of joins. A group that was empty, and to which
// members were added during the delay, waits for another delay.
func (c *Coordinator) joinsEnd(group *group) {
	if group.initial && group.grew && group.leftMS != 0 {
		group.grew = false
		delay := min(c.options.InitialRebalanceDelayMS, group.leftMS)
		group.leftMS = max(group.leftMS-group.delayMS, 0)
		group.delayMS = delay
		group.joinAt = c.at.NowMS + delay
		return
	}
	c.complete(group)
}

// syncsEnd is called at the deadline of syncs: members that have not sent theirs
// are removed.
func (c *Coordinator) syncsEnd(group *group) {
	group.syncAt = Never
	late := false
	for _, member := range slices.Clone(group.members) {
		if member.unsynced {
			c.remove(group, member)
			late = true
		}
	}
	if late && (group.state == Stable || group.state == CompletingRebalance) {
		c.rebalance(group)
	}
}

// durable is a group's stored form, with each member's part of the assignment.
func (g *group) durable(assignment map[string][]byte) *cluster.Group {
	stored := &cluster.Group{ID: g.id, Generation: g.generation, ProtocolType: g.protocolType, Protocol: g.protocol, Leader: g.leader, ChangedMS: g.changedMS}
	for _, member := range g.members {
		stored.Members = append(stored.Members, cluster.GroupMember{
			ID: member.id, InstanceID: member.instance, ClientID: member.clientID, ClientHost: member.clientHost, SessionTimeoutMS: member.sessionMS, RebalanceTimeoutMS: member.rebalanceMS,
			Subscription: member.metadata(g.protocol), Assignment: assignment[member.id],
		})
	}
	return stored
}
