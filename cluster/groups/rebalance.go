package groups

import (
	"bytes"
	"slices"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/kafka"
)

// This file is how members come and go, and what their groups do about it.

// join handles a join of a group that is there.
func (c *Coordinator) join(g *group, ticket uint64, r *JoinRequest) {
	if !g.accepts(r.MemberID, c.o.GroupSizeMax) || !c.hasRoomFor(g, r) {
		// Whoever comes too late in a rebalance does not stay a member.
		c.refuseJoin(ticket, kafka.GroupMaxSizeReached, "")
		c.dropPending(g, r.MemberID)
		if m := g.byID[r.MemberID]; m != nil {
			c.remove(g, m)
			c.rebalance(g)
		}
		return
	}
	if !g.supports(r.ProtocolType, r.Protocols) {
		c.refuseJoin(ticket, kafka.InconsistentGroupProtocol, r.MemberID)
		return
	}
	if r.MemberID != "" {
		c.joinAgain(g, ticket, r)
		return
	}
	if r.InstanceID != "" {
		if old := g.static[r.InstanceID]; old != nil {
			c.replaceStatic(g, old, ticket, r)
		} else {
			c.addMember(g, r.NewID, ticket, r)
		}
		return
	}
	if r.IDRequired {
		g.pending = append(g.pending, pendingMember{r.NewID, c.at.NowMS + int64(r.SessionTimeoutMS)})
		c.members++
		c.refuseJoin(ticket, kafka.MemberIDRequired, r.NewID)
		return
	}
	c.addMember(g, r.NewID, ticket, r)
}

// joinAgain handles the join of one who has an id.
func (c *Coordinator) joinAgain(g *group, ticket uint64, r *JoinRequest) {
	if g.isPending(r.MemberID) {
		if r.InstanceID != "" { // no id is given out to a static member before it joins
			c.refuseJoin(ticket, kafka.UnknownMemberID, r.MemberID)
			return
		}
		c.addMember(g, r.MemberID, ticket, r)
		return
	}
	if code := g.validate(r.MemberID, r.InstanceID); code != 0 {
		c.refuseJoin(ticket, code, r.MemberID)
		return
	}
	m := g.byID[r.MemberID]
	same := slices.EqualFunc(m.protocols, r.Protocols, func(a, b cluster.GroupProtocol) bool { return a.Name == b.Name && bytes.Equal(a.Metadata, b.Metadata) })
	switch {
	case g.state == Empty:
		c.refuseJoin(ticket, kafka.UnknownMemberID, r.MemberID)
	case g.state == CompletingRebalance && same, // its answer got lost
		g.state == Stable && same && g.leader != m.id: // nothing changed
		c.reply(ticket, g.joined(m))
	default: // a leader that joins again wants a rebalance: its topics may have changed
		c.update(g, m, ticket, r)
		c.rebalance(g)
	}
}

// accepts says whether a group of at most sizeMax members has room for this one.
func (g *group) accepts(memberID string, sizeMax int) bool {
	m := g.byID[memberID]
	switch g.state {
	case PreparingRebalance: // who has joined again counts: the last ones to do so are turned away
		return m != nil && m.join != 0 || g.awaiting < sizeMax
	case CompletingRebalance, Stable:
		return m != nil || len(g.members) < sizeMax
	}
	return true
}

// hasRoomFor says whether what a join brings keeps the bounds.
func (c *Coordinator) hasRoomFor(g *group, r *JoinRequest) bool {
	more := memberBytes(r.NewID, r.InstanceID, r.ClientID, r.ClientHost, r.Protocols)
	old := g.byID[r.MemberID]
	if old == nil && r.InstanceID != "" && r.MemberID == "" {
		old = g.static[r.InstanceID]
	}
	switch {
	case old != nil:
		more -= old.bytes()
	case !g.isPending(r.MemberID) && c.members >= c.o.MembersMax:
		return false
	}
	return more <= 0 || g.bytes+more <= c.o.GroupBytesMax && c.bytes+c.state.GroupBytes()+more <= c.o.BytesMax
}

func memberBytes(id, instance, clientID, clientHost string, protocols []cluster.GroupProtocol) int {
	n := cluster.MemberFixedBytes + len(id) + len(instance) + len(clientID) + len(clientHost)
	for _, p := range protocols {
		n += cluster.TopicFixedBytes + len(p.Name) + len(p.Metadata)
	}
	return n
}

// bytes counts all but the assignment, which is counted where it is stored.
func (m *member) bytes() int {
	return memberBytes(m.id, m.instance, m.clientID, m.clientHost, m.protocols)
}

// supports says whether a member with these protocols can be in the group.
func (g *group) supports(protocolType string, protocols []cluster.GroupProtocol) bool {
	if g.state == Empty {
		return protocolType != "" && len(protocols) > 0
	}
	return g.protocolType == protocolType && slices.ContainsFunc(protocols, func(p cluster.GroupProtocol) bool { return g.allKnow(p.Name) })
}

// allKnow says whether every member knows a protocol.
func (g *group) allKnow(name string) bool {
	for _, m := range g.members {
		if !m.knows(name) {
			return false
		}
	}
	return true
}

func (m *member) knows(name string) bool {
	return slices.ContainsFunc(m.protocols, func(p cluster.GroupProtocol) bool { return p.Name == name })
}

// metadata is what the member has to say for a protocol.
func (m *member) metadata(name string) []byte {
	for _, p := range m.protocols {
		if p.Name == name {
			return p.Metadata
		}
	}
	return nil
}

// choose is the protocol that most members prefer of those that all know.
// Between equals it is the one that comes first in the first member's order.
func (g *group) choose() string {
	var known []cluster.GroupProtocol
	for _, p := range g.members[0].protocols {
		if g.allKnow(p.Name) {
			known = append(known, p)
		}
	}
	best, most := "", 0
	for _, p := range known {
		votes := 0
		for _, m := range g.members {
			i := slices.IndexFunc(m.protocols, func(q cluster.GroupProtocol) bool {
				return slices.ContainsFunc(known, func(k cluster.GroupProtocol) bool { return k.Name == q.Name })
			})
			if m.protocols[i].Name == p.Name {
				votes++
			}
		}
		if votes > most {
			best, most = p.Name, votes
		}
	}
	return best
}

// validate says who a member is that claims an id.
func (g *group) validate(memberID, instanceID string) (code kafka.ErrorCode) {
	if instanceID != "" {
		switch m := g.static[instanceID]; {
		case m == nil:
			return kafka.UnknownMemberID
		case m.id != memberID:
			return kafka.FencedInstanceID
		}
	}
	if g.byID[memberID] == nil {
		return kafka.UnknownMemberID
	}
	return 0
}

// validateCommit says whether who commits may.
func (c *Coordinator) validateCommit(g *group, r *CommitRequest) (code kafka.ErrorCode) {
	if r.Generation < 0 && g.state == Empty {
		return 0 // from outside: nobody's offsets are overwritten
	}
	if g.consumer != nil {
		if m := g.consumer.member(r.MemberID); m != nil && m.Classic == nil && !r.KnowsGroupIDNotFound {
			return kafka.UnsupportedVersion // it takes the epoch for a generation
		}
		code := g.consumer.validateConsumer(r.MemberID, r.Generation)
		if (code == kafka.StaleMemberEpoch || code == kafka.IllegalGeneration) && c.o.Faults.StaleEpochTaken {
			return 0
		}
		return code
	}
	if r.Generation < 0 && r.MemberID == "" && r.InstanceID == "" {
		return kafka.UnknownMemberID
	}
	if code := g.validate(r.MemberID, r.InstanceID); code != 0 {
		return code
	}
	if r.Generation != g.generation {
		return kafka.IllegalGeneration
	}
	if g.state == CompletingRebalance {
		return kafka.RebalanceInProgress
	}
	return 0
}

func (g *group) isPending(id string) bool {
	return slices.ContainsFunc(g.pending, func(p pendingMember) bool { return p.id == id })
}

func (c *Coordinator) dropPending(g *group, id string) {
	n := len(g.pending)
	g.pending = slices.DeleteFunc(g.pending, func(p pendingMember) bool { return p.id == id })
	c.members -= n - len(g.pending)
}

// addMember makes a new member, and has the group rebalance for it.
func (c *Coordinator) addMember(g *group, id string, ticket uint64, r *JoinRequest) {
	c.dropPending(g, id)
	m := &member{id: id, instance: r.InstanceID, clientID: r.ClientID, clientHost: r.ClientHost, fresh: true}
	if len(g.members) == 0 {
		g.protocolType = r.ProtocolType
	}
	if g.state == PreparingRebalance && g.previous == Empty {
		g.grew = true
	}
	m.sessionMS, m.rebalanceMS, m.protocols = r.SessionTimeoutMS, r.RebalanceTimeoutMS, cloneProtocols(r.Protocols)
	c.put(g, m)
	c.awaitJoin(g, m, ticket)
	// It cannot send heartbeats, and whether its connection still lives nobody
	// knows. So its wait has an end of its own.
	c.rearm(g, m, c.o.NewMemberTimeoutMS)
	c.rebalance(g)
}

// put adds a member to its group.
func (c *Coordinator) put(g *group, m *member) {
	g.members = append(g.members, m)
	g.byID[m.id] = m
	if m.instance != "" {
		g.static[m.instance] = m
	}
	if g.leader == "" {
		g.leader = m.id
	}
	c.members++
	c.weigh(g, m.bytes())
}

func (c *Coordinator) weigh(g *group, n int) {
	g.bytes += n
	c.bytes += n
}

func cloneProtocols(from []cluster.GroupProtocol) []cluster.GroupProtocol {
	out := make([]cluster.GroupProtocol, len(from))
	for i, p := range from {
		out[i] = cluster.GroupProtocol{Name: p.Name, Metadata: slices.Clone(p.Metadata)} // the request's memory is not kept
	}
	return out
}

// update takes what a member says when it joins again.
func (c *Coordinator) update(g *group, m *member, ticket uint64, r *JoinRequest) {
	c.weigh(g, -m.bytes())
	m.sessionMS, m.rebalanceMS, m.protocols = r.SessionTimeoutMS, r.RebalanceTimeoutMS, cloneProtocols(r.Protocols)
	c.weigh(g, m.bytes())
	c.awaitJoin(g, m, ticket)
}

// awaitJoin lets a member wait for the rebalance. An older wait of its ends:
// who asks again has given that one up.
func (c *Coordinator) awaitJoin(g *group, m *member, ticket uint64) {
	if m.join != 0 {
		c.refuseJoin(m.join, kafka.RebalanceInProgress, m.id)
		g.awaiting--
	}
	m.join = ticket
	g.awaiting++
}

// remove takes a member out of its group. What follows is the caller's.
func (c *Coordinator) remove(g *group, m *member) {
	if m.join != 0 {
		ticket := m.join
		m.join = 0
		g.awaiting--
		c.refuseJoin(ticket, kafka.UnknownMemberID, "")
	}
	c.endSync(m, &SyncReply{Code: kafka.UnknownMemberID})
	g.members = slices.DeleteFunc(g.members, func(o *member) bool { return o == m })
	delete(g.byID, m.id)
	if m.instance != "" {
		delete(g.static, m.instance)
	}
	if g.leader == m.id {
		g.leader = ""
		if len(g.members) > 0 {
			g.leader = g.members[0].id
		}
	}
	c.members--
	c.weigh(g, -m.bytes())
}

// rebalance begins a rebalance, or goes on with the one that is under way.
func (c *Coordinator) rebalance(g *group) {
	if g.state == PreparingRebalance {
		c.maybeComplete(g)
		return
	}
	if g.state == CompletingRebalance {
		for _, m := range g.members {
			m.assignment = nil
			c.endSync(m, &SyncReply{Code: kafka.RebalanceInProgress})
		}
	}
	c.endSyncs(g)
	first := g.state == Empty
	c.become(g, PreparingRebalance)
	switch {
	case first: // more may be on their way
		g.initial = true
		g.delayMS = c.o.InitialRebalanceDelayMS
		g.leftMS = max(g.rebalanceTimeoutMS()-g.delayMS, 0)
		g.joinAt = c.at.NowMS + g.delayMS
	case g.allJoined():
		c.complete(g)
	default:
		g.joinAt = c.at.NowMS + g.rebalanceTimeoutMS()
	}
}

// maybeComplete ends the wait for joins if nobody is missing. A group that was
// empty waits its time.
func (c *Coordinator) maybeComplete(g *group) {
	if g.state == PreparingRebalance && g.previous != Empty && g.allJoined() {
		c.complete(g)
	}
}

func (g *group) allJoined() bool { return g.awaiting == len(g.members) && len(g.pending) == 0 }

// complete ends the wait for joins: the next generation begins with those who
// came. A static member stays though it did not.
func (c *Coordinator) complete(g *group) {
	g.joinAt, g.initial, g.grew = Never, false, false
	for _, m := range slices.Clone(g.members) {
		if m.join == 0 && m.instance == "" {
			c.remove(g, m)
		}
	}
	if len(g.members) > 0 && !g.electLeader() {
		// Static members only, and none came: they have until their sessions end.
		g.joinAt = c.at.NowMS + g.rebalanceTimeoutMS()
		return
	}
	if !c.o.Faults.GenerationKept || g.generation == 0 {
		g.generation++
	}
	if len(g.members) == 0 {
		g.protocol = ""
		g.learnTopics()
		c.become(g, Empty)
		c.store(cluster.PutGroup(g.durable(nil)), storing{group: g})
		return
	}
	g.protocol = g.choose()
	g.learnTopics()
	c.become(g, CompletingRebalance)
	for _, m := range g.members {
		if m.join != 0 {
			ticket := m.join
			m.join = 0
			g.awaiting--
			c.reply(ticket, g.joined(m))
		}
		c.rearm(g, m, int64(m.sessionMS))
		m.fresh, m.unsynced = false, true
	}
	g.syncAt = c.at.NowMS + g.rebalanceTimeoutMS()
}

// electLeader makes sure that the leader is one who came, if anyone did.
func (g *group) electLeader() bool {
	if m := g.byID[g.leader]; m != nil && m.join != 0 {
		return true
	}
	for _, m := range g.members {
		if m.join != 0 {
			g.leader = m.id
			return true
		}
	}
	return false
}

// joined is the answer to a member's join.
func (g *group) joined(m *member) *JoinReply {
	r := &JoinReply{MemberID: m.id, Generation: g.generation, ProtocolType: g.protocolType, Protocol: g.protocol, Leader: g.leader}
	if m.id == g.leader {
		r.Members = g.joinMembers()
	}
	return r
}

func (g *group) joinMembers() []JoinMember {
	out := make([]JoinMember, len(g.members))
	for i, o := range g.members {
		out[i] = JoinMember{o.id, o.instance, o.metadata(g.protocol)}
	}
	return out
}

func (c *Coordinator) refuseJoin(ticket uint64, code kafka.ErrorCode, memberID string) {
	c.reply(ticket, &JoinReply{Code: code, MemberID: memberID, Generation: -1})
}

// replaceStatic gives a static member that comes back another id: the old one
// is fenced from now on.
func (c *Coordinator) replaceStatic(g *group, m *member, ticket uint64, r *JoinRequest) {
	leader := g.leader
	c.endJoin(g, m, kafka.FencedInstanceID)
	c.endSync(m, &SyncReply{Code: kafka.FencedInstanceID})
	c.weigh(g, -m.bytes())
	delete(g.byID, m.id)
	if g.leader == m.id {
		g.leader = r.NewID
	}
	m.id = r.NewID
	g.byID[m.id] = m
	c.weigh(g, m.bytes())
	c.update(g, m, ticket, r)
	c.rearm(g, m, int64(m.sessionMS))
	switch {
	case g.state == Stable && g.protocol == g.choose():
		// It goes on with what the old id had; nobody else need know.
		assignment := map[string][]byte{}
		for _, o := range g.members {
			assignment[o.id] = o.assignment
		}
		c.store(cluster.PutGroup(g.durable(assignment)), storing{kind: storingStatic, group: g, ticket: ticket, member: m.id, leader: leader, skips: r.CanSkip})
	default: // while completing, the leader may know the old id already
		c.rebalance(g)
	}
}

// replaced: a static member's other id is stored, or cannot be.
func (c *Coordinator) replaced(g *group, s *storing, code kafka.ErrorCode) {
	m := g.byID[s.member]
	if g.unlisted || m == nil || m.join != s.ticket {
		return // a rebalance has answered it
	}
	if code != 0 {
		// It comes again, and its id is replaced again: the fenced one stays fenced.
		c.endJoin(g, m, code)
		return
	}
	m.join = 0
	g.awaiting--
	r := g.joined(m)
	if s.skips {
		r.SkipAssignment = m.id == g.leader
	} else {
		// It must not take itself for the leader: it would assign anew what is
		// assigned.
		r.Leader, r.Members = s.leader, nil
	}
	c.reply(s.ticket, r)
}

// sync handles a valid sync.
func (c *Coordinator) sync(g *group, ticket uint64, r *SyncRequest) {
	m := g.byID[r.MemberID]
	c.synced(g, m)
	if g.state == Stable {
		c.reply(ticket, &SyncReply{ProtocolType: g.protocolType, Protocol: g.protocol, Assignment: m.assignment})
		return
	}
	c.endSync(m, &SyncReply{Code: kafka.RebalanceInProgress})
	m.sync = ticket
	if m.id != g.leader || g.assigns == g.generation {
		// A leader that asks again gets the assignment it gave first: were the
		// second stored too, a restart would tell another one than was told.
		return
	}
	assignment := map[string][]byte{}
	for _, a := range r.Assignments {
		if g.byID[a.MemberID] != nil {
			assignment[a.MemberID] = slices.Clone(a.Assignment)
		}
	}
	s := storing{kind: storingAssignment, group: g, generation: g.generation, assignment: assignment}
	change := cluster.PutGroup(g.durable(assignment))
	if len(change) > c.o.GroupBytesMax || c.bytes+c.state.GroupBytes()+len(change) > c.o.BytesMax {
		c.assigned(g, &s, kafka.UnknownServerError) // as Kafka answers a record that is too large
		return
	}
	g.assigns = g.generation
	c.store(change, s)
}

// synced: one member fewer to wait for.
func (c *Coordinator) synced(g *group, m *member) {
	m.unsynced = false
	if !slices.ContainsFunc(g.members, func(o *member) bool { return o.unsynced }) {
		g.syncAt = Never
	}
}

// assigned: the leader's assignment is stored, or cannot be.
func (c *Coordinator) assigned(g *group, s *storing, code kafka.ErrorCode) {
	if g.unlisted || g.state != CompletingRebalance || g.generation != s.generation {
		return // another rebalance has come between
	}
	if code != 0 {
		for _, m := range g.members {
			m.assignment = nil
			c.endSync(m, &SyncReply{Code: code})
		}
		c.rebalance(g)
		return
	}
	for _, m := range g.members {
		m.assignment = s.assignment[m.id]
		if m.sync != 0 && (m.id == g.leader || !c.o.Faults.SyncForgotten) {
			c.endSync(m, &SyncReply{ProtocolType: g.protocolType, Protocol: g.protocol, Assignment: m.assignment})
			// Its session may have ended while it waited, which was overlooked.
			c.rearm(g, m, int64(m.sessionMS))
		}
	}
	c.become(g, Stable)
}

// endJoin answers a member's join with an error, if it waits.
func (c *Coordinator) endJoin(g *group, m *member, code kafka.ErrorCode) {
	if m.join == 0 {
		return
	}
	ticket := m.join
	m.join = 0
	g.awaiting--
	c.refuseJoin(ticket, code, m.id)
}

// endSync answers a member's sync, if it waits.
func (c *Coordinator) endSync(m *member, r *SyncReply) {
	if m.sync == 0 {
		return
	}
	ticket := m.sync
	m.sync = 0
	c.reply(ticket, r)
}

// endSyncs stops waiting for syncs.
func (c *Coordinator) endSyncs(g *group) {
	g.syncAt = Never
	for _, m := range g.members {
		m.unsynced = false
	}
}

func (c *Coordinator) become(g *group, s State) {
	g.previous, g.state, g.changedMS = g.state, s, c.at.WallMS
}

func (c *Coordinator) rearm(g *group, m *member, timeoutMS int64) {
	m.deadline = c.at.NowMS + timeoutMS
}

func (g *group) rebalanceTimeoutMS() (n int64) {
	for _, m := range g.members {
		n = max(n, int64(m.rebalanceMS))
	}
	return max(n, 1) // whatever a client says, a wait is over later than it began
}

// expire does what is due in a group.
func (c *Coordinator) expire(g *group) {
	now := c.at.NowMS
	if g.consumer != nil {
		c.expireConsumers(g)
	}
	for _, p := range slices.Clone(g.pending) {
		if p.deadline <= now && g.isPending(p.id) {
			c.dropPending(g, p.id)
			if g.state == PreparingRebalance && g.allJoined() {
				c.complete(g)
			}
		}
	}
	for _, m := range slices.Clone(g.members) {
		if m.deadline > now || g.byID[m.id] != m {
			continue
		}
		if !m.fresh && (m.join != 0 || m.sync != 0) {
			m.deadline = Never // who waits for us need not send heartbeats
			continue
		}
		c.remove(g, m)
		switch {
		case g.state == Stable || g.state == CompletingRebalance:
			c.rebalance(g)
		case g.state == PreparingRebalance && g.allJoined():
			c.complete(g)
		}
	}
	if g.joinAt <= now {
		c.joinsEnd(g)
	}
	if g.syncAt <= now {
		c.syncsEnd(g)
	}
}

// joinsEnd: the time to join is over. A group that was empty, and has grown
// meanwhile, waits for some more.
func (c *Coordinator) joinsEnd(g *group) {
	if g.initial && g.grew && g.leftMS != 0 {
		g.grew = false
		delay := min(c.o.InitialRebalanceDelayMS, g.leftMS)
		g.leftMS = max(g.leftMS-g.delayMS, 0)
		g.delayMS = delay
		g.joinAt = c.at.NowMS + delay
		return
	}
	c.complete(g)
}

// syncsEnd: who has not sent its sync is no member any more.
func (c *Coordinator) syncsEnd(g *group) {
	g.syncAt = Never
	late := false
	for _, m := range slices.Clone(g.members) {
		if m.unsynced {
			c.remove(g, m)
			late = true
		}
	}
	if late && (g.state == Stable || g.state == CompletingRebalance) {
		c.rebalance(g)
	}
}

// durable is what is stored of a group: its members with their part of the
// assignment.
func (g *group) durable(assignment map[string][]byte) *cluster.Group {
	d := &cluster.Group{ID: g.id, Generation: g.generation, ProtocolType: g.protocolType, Protocol: g.protocol, Leader: g.leader, ChangedMS: g.changedMS}
	for _, m := range g.members {
		d.Members = append(d.Members, cluster.GroupMember{
			ID: m.id, InstanceID: m.instance, ClientID: m.clientID, ClientHost: m.clientHost, SessionTimeoutMS: m.sessionMS, RebalanceTimeoutMS: m.rebalanceMS,
			Subscription: m.metadata(g.protocol), Assignment: assignment[m.id],
		})
	}
	return d
}
