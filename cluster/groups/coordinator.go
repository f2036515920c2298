package groups

import (
	"cmp"
	"container/heap"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/kafka"
)

// State is the state of a live group.
type State uint8

// The states, as org.apache.kafka.coordinator.group.classic.ClassicGroupState.
const (
	Empty               State = iota // no members; may have offsets
	PreparingRebalance               // waits for its members to join again
	CompletingRebalance              // waits for the leader's assignment
	Stable                           // has an assignment
	Dead                             // does not exist any more

	// Groups of the consumer protocol have these beside Empty, Stable and Dead, as
	// org.apache.kafka.coordinator.group.modern.consumer.ConsumerGroup.ConsumerGroupState.
	Assigning   // something changed, and no target has been assigned since
	Reconciling // members have not reached their targets
)

var stateNames = [...]string{"Empty", "PreparingRebalance", "CompletingRebalance", "Stable", "Dead", "Assigning", "Reconciling"}

// String is Kafka's name of the state.
func (s State) String() string { return stateNames[s] }

// Options are the broker's rules for groups. Times are in milliseconds.
type Options struct {
	SessionTimeoutMinMS     int64 // group.min.session.timeout.ms
	SessionTimeoutMaxMS     int64 // group.max.session.timeout.ms
	InitialRebalanceDelayMS int64 // group.initial.rebalance.delay.ms
	NewMemberTimeoutMS      int64 // how long a new member's first join may wait; Kafka's is five minutes
	OffsetsRetentionMS      int64 // offsets.retention.minutes
	GroupSizeMax            int   // members of one group; group.max.size
	MembersMax              int   // members of all classic groups, pending ones included
	GroupsMax               int
	GroupBytesMax           int // bytes of one group's members (subscriptions, assignments, names), and of one change
	OffsetBytesMax          int // bytes of one group's offsets
	BytesMax                int // bytes of all groups

	ConsumerSessionTimeoutMS    int64                   // group.consumer.session.timeout.ms
	ConsumerHeartbeatIntervalMS int64                   // group.consumer.heartbeat.interval.ms
	ConsumerGroupSizeMax        int                     // members of one group of the consumer protocol; group.consumer.max.size
	ConsumersMax                int                     // members of all groups of the consumer protocol
	Migration                   cluster.MigrationPolicy // group.consumer.migration.policy

	Faults Faults // planted bugs, for the simulator only
}

// Faults are bugs that the simulator plants to prove that it finds them.
type Faults struct {
	GenerationKept     bool // a rebalance begins no new generation
	SyncForgotten      bool // only the leader is told the assignment
	AssignedUnreleased bool // a partition is assigned before its owner has revoked it
	StaleEpochTaken    bool // a commit's member epoch is not checked
	LateCommitRefused  bool // a commit that was under way while the member's epoch rose is refused
	AssignedSinceEver  bool // a member's partitions count as its own since its first epoch
	SessionsNeverEnd   bool // sessions of members of the consumer protocol never time out
	UpgradeForgets     bool // a group that changes to the consumer protocol forgets what its members have
	EmptyGroupsStay    bool // empty groups without offsets make no room for others
	DowngradeQuiet     bool // a group that changes to the classic protocol does not rebalance
}

// Time is the time of a call: NowMS of a monotonic clock, WallMS of the wall clock.
type Time struct {
	NowMS, WallMS int64
}

// Never is a deadline that is never reached.
const Never int64 = 1<<63 - 1

// Effect is something that the caller has to do, in order. With Store, make Change
// (nil: nothing) durable and apply it after all earlier changes, then call Stored.
// Otherwise Reply is the answer to Ticket: a *JoinReply, a *SyncReply, a
// *ConsumerReply or a Done.
type Effect struct {
	Store  bool
	Change []byte
	Ticket uint64
	Reply  any
}

// Done is the answer to every other request.
type Done struct{ Code kafka.ErrorCode }

// Coordinator is the live part of all groups: members, waiting requests and
// deadlines. The durable part is in the State, and changes only by the changes
// that the Coordinator asks to be stored. The rules for classic groups are those
// of org.apache.kafka.coordinator.group.GroupMetadataManager of Kafka 4.0; groups
// of the consumer protocol are in consumer.go.
//
// A classic group is this function:
//
//	for {
//		await join() // Empty
//		do {
//			await all members' joins, or the rebalance timeout // PreparingRebalance
//			generation++; answer joins
//			await the leader's sync; await store()          // CompletingRebalance
//			answer syncs
//			await join, leave or a session timeout          // Stable
//		} while members
//		await store()
//	}
//
// Every method takes the time and leaves its effects in Effects. A ticket (never
// 0) is answered exactly once, by an Effect, unless the method returned a code for
// the whole request. A Coordinator belongs to the control shard.
type Coordinator struct {
	state     *cluster.State
	options   Options
	at        Time
	groups    []*group // sorted by id
	due       dueHeap
	members   int            // of all classic groups, pending ones too
	consumers int            // members of all groups of the consumer protocol
	bytes     int            // of all groups' members
	storing   []pendingStore // changes that wait for Stored, in order
	effects   []Effect
	closed    bool
	refusals  Refusals // bounds.go
	roomAt    int64    // no group makes room before
}

// group is one live group.
//
// Invariants: len(members) == len(byID); static holds the members with an
// instance id; awaiting counts the members with join != 0; a member waits for a
// join or for a sync, not for both.
type group struct {
	id           string
	state        State
	previous     State
	generation   int32
	protocolType string
	protocol     string
	leader       string
	changedMS    int64
	members      []*member // in the order in which they joined
	byID         map[string]*member
	static       map[string]*member // by instance id
	pending      []pendingMember    // were given an id and have not joined with it
	awaiting     int
	bytes        int
	subscribed   []string // sorted topics of all subscriptions
	knows        bool     // subscribed is known

	// consumer is nil for a classic group. A group of the consumer protocol has all
	// its members there; the fields of classic rebalances are unused.
	consumer *consumerGroup

	joinAt   int64 // deadline of joins
	initial  bool  // the group was empty: joinAt is put off while members join
	grew     bool  // a member joined during this initial delay
	delayMS  int64 // with initial: this delay
	leftMS   int64 // with initial: all further delays together are at most this
	syncAt   int64 // deadline of syncs
	stores   int   // changes that wait for Stored
	assigns  int32 // the last generation whose assignment was given to be stored
	due      int64 // at or before the first of all deadlines
	heapAt   int
	unlisted bool // no longer in Coordinator.groups
}

// member is one live member of a classic group.
type member struct {
	id, instance         string
	clientID, clientHost string
	sessionMS            int32
	rebalanceMS          int32
	protocols            []cluster.GroupProtocol // in its order of preference
	assignment           []byte
	join, sync           uint64 // waiting tickets; 0: none
	fresh                bool   // it has not completed its first rebalance
	unsynced             bool   // it has not sent its sync of this generation
	deadline             int64  // of its session
}

type pendingMember struct {
	id       string
	deadline int64
}

// pendingStore is a change that waits for Stored, and what to do then.
type pendingStore struct {
	kind       storingKind
	group      *group
	ticket     uint64
	generation int32
	assignment map[string][]byte
	member     string
	leader     string // before the static member came back
	skips      bool   // the client knows SkipAssignment
	reply      any
	whole      bool     // the change contains the whole consumer group
	dropped    []string // groups that the change removes, and that are not live any more
}

type storingKind uint8

const (
	storingOther      storingKind = iota // offsets, groups that end, empty groups
	storingAssignment                    // the leader's assignment
	storingStatic                        // a static member has another member id
	storingConsumer                      // a group of the consumer protocol
)

// JoinRequest is a JoinGroup request.
type JoinRequest struct {
	Group, MemberID      string
	InstanceID           string // "": none
	ProtocolType         string
	Protocols            []cluster.GroupProtocol
	SessionTimeoutMS     int32
	RebalanceTimeoutMS   int32
	ClientID, ClientHost string
	NewID                string // the member's id if it needs a new one
	IDRequired           bool   // versions 4 and up: a new member is told its id first
	CanSkip              bool   // versions 9 and up: a leader may be told not to assign
}

// JoinReply is a JoinGroup response.
type JoinReply struct {
	Code           kafka.ErrorCode
	MemberID       string
	Generation     int32  // -1 with an error
	ProtocolType   string // "": null
	Protocol       string // "": null
	Leader         string
	SkipAssignment bool
	Members        []JoinMember // for the leader
}

// JoinMember is what the leader is told about a member.
type JoinMember struct {
	ID, InstanceID string
	Metadata       []byte
}

// SyncRequest is a SyncGroup request.
type SyncRequest struct {
	Group, MemberID, InstanceID string
	Generation                  int32
	ProtocolType, Protocol      *string // nil: not given
	Assignments                 []Assignment
}

// Assignment is what the leader assigns a member.
type Assignment struct {
	MemberID   string
	Assignment []byte
}

// SyncReply is a SyncGroup response.
type SyncReply struct {
	Code                   kafka.ErrorCode
	ProtocolType, Protocol string // "": null
	Assignment             []byte
}

// Leaving is a member that a LeaveGroup request names.
type Leaving struct{ MemberID, InstanceID string }

// SetOptions changes the rules. Deadlines that are set stay as they are.
func (c *Coordinator) SetOptions(options Options) { c.options = options }

// New restores the live groups from a State. A stored member stays a member until
// its session times out.
func New(state *cluster.State, options Options, at Time) *Coordinator {
	coordinator := &Coordinator{state: state, options: options, at: at}
	for _, stored := range state.Groups() {
		coordinator.takeUp(stored)
	}
	return coordinator
}

// takeUp makes a stored group live.
func (c *Coordinator) takeUp(stored *cluster.Group) {
	group := c.list(stored.ID)
	if stored.Consumer != nil {
		group.changedMS = stored.ChangedMS
		c.takeUpConsumers(group, stored.Consumer)
		c.schedule(group)
		return
	}
	group.generation, group.protocolType, group.protocol, group.leader, group.changedMS = stored.Generation, stored.ProtocolType, stored.Protocol, stored.Leader, stored.ChangedMS
	for i := range stored.Members {
		from := &stored.Members[i]
		member := &member{
			id: from.ID, instance: from.InstanceID, clientID: from.ClientID, clientHost: from.ClientHost, sessionMS: from.SessionTimeoutMS, rebalanceMS: from.RebalanceTimeoutMS,
			protocols: []cluster.GroupProtocol{{Name: stored.Protocol, Metadata: from.Subscription}}, assignment: from.Assignment,
		}
		c.put(group, member)
		c.rearm(group, member, int64(member.sessionMS))
	}
	if len(group.members) > 0 {
		group.state = Stable
	}
	group.learnTopics()
	if len(group.members) > 0 && stored.Leader == "" { // it was of the consumer protocol, and no leader has assigned since
		c.rebalance(group)
	}
	c.schedule(group)
}

// relist makes groups live again whose removal could not be stored. A group that has been
// begun anew meanwhile goes on as it is.
func (c *Coordinator) relist(ids []string) {
	for _, id := range ids {
		stored, durable := c.state.Group(id)
		if _, live := c.group(id); durable && !live {
			c.takeUp(stored)
		}
	}
}

// Effects takes the effects since the last call.
func (c *Coordinator) Effects() []Effect {
	effects := c.effects
	c.effects = nil
	return effects
}

// Next is when Tick has something to do, Never if nothing is due.
func (c *Coordinator) Next() int64 {
	if len(c.due) == 0 || c.closed {
		return Never
	}
	return c.due[0].due
}

// Waiting says whether changes wait for Stored.
func (c *Coordinator) Waiting() bool { return len(c.storing) > 0 }

// Join handles a JoinGroup request.
func (c *Coordinator) Join(at Time, ticket uint64, req *JoinRequest) {
	c.at = at
	switch {
	case c.closed:
		c.refuseJoin(ticket, kafka.CoordinatorNotAvailable, req.MemberID)
		return
	case !groupIDFits(req.Group):
		c.refuseJoin(ticket, kafka.InvalidGroupID, req.MemberID)
		return
	case int64(req.SessionTimeoutMS) < c.options.SessionTimeoutMinMS || int64(req.SessionTimeoutMS) > c.options.SessionTimeoutMaxMS:
		c.refuseJoin(ticket, kafka.InvalidSessionTimeout, req.MemberID)
		return
	case !req.fits():
		c.refuseJoin(ticket, kafka.InvalidRequest, req.MemberID)
		return
	}
	group, ok := c.group(req.Group)
	switch {
	case ok && group.consumer != nil && group.state != Empty:
		c.joinConsumer(group, ticket, req)
		c.schedule(group)
		return
	case ok && group.consumer != nil: // its last member has left: it becomes a classic group
		group.generation, group.consumer, group.protocolType = group.consumer.epoch, nil, ""
	case ok:
	case req.MemberID != "":
		c.refuseJoin(ticket, kafka.UnknownMemberID, req.MemberID)
		return
	case !c.hasRoomForGroup():
		c.refuseJoin(ticket, c.refused(GroupsBound, req.Group, req.ClientID), "")
		return
	default:
		group = c.list(req.Group)
		group.changedMS = at.WallMS
	}
	c.join(group, ticket, req)
	c.unlistUnused(group)
	c.schedule(group)
}

// Sync handles a SyncGroup request.
func (c *Coordinator) Sync(at Time, ticket uint64, req *SyncRequest) {
	c.at = at
	code := kafka.None
	group, ok := c.group(req.Group)
	switch {
	case c.closed:
		code = kafka.CoordinatorNotAvailable
	case !groupIDFits(req.Group):
		code = kafka.InvalidGroupID
	case !ok || group.state == Empty:
		code = kafka.UnknownMemberID
	case group.consumer != nil:
		c.syncConsumer(group, ticket, req)
		c.schedule(group)
		return
	default:
		code = group.validate(req.MemberID, req.InstanceID)
	}
	switch {
	case code != 0:
	case req.Generation != group.generation:
		code = kafka.IllegalGeneration
	case req.ProtocolType != nil && *req.ProtocolType != group.protocolType || req.Protocol != nil && group.protocol != "" && *req.Protocol != group.protocol:
		code = kafka.InconsistentGroupProtocol
	case group.state == PreparingRebalance:
		code = kafka.RebalanceInProgress
	}
	if code != 0 {
		c.reply(ticket, &SyncReply{Code: code})
		return
	}
	c.sync(group, ticket, req)
	c.schedule(group)
}

// Heartbeat handles a Heartbeat request.
func (c *Coordinator) Heartbeat(at Time, groupID, memberID, instanceID string, generation int32) (code kafka.ErrorCode) {
	c.at = at
	if c.closed {
		return kafka.CoordinatorNotAvailable
	}
	if !groupIDFits(groupID) {
		return kafka.InvalidGroupID
	}
	group, ok := c.group(groupID)
	if !ok {
		return kafka.UnknownMemberID
	}
	if group.consumer != nil {
		return c.heartbeatClassic(group, memberID, instanceID, generation)
	}
	if code := group.validate(memberID, instanceID); code != 0 {
		return code
	}
	if generation != group.generation {
		return kafka.IllegalGeneration
	}
	c.alive(group, group.byID[memberID])
	if group.state == PreparingRebalance {
		return kafka.RebalanceInProgress
	}
	return 0
}

// Leave handles a LeaveGroup request. It returns each member's code, or one code
// for the whole request; without the latter the ticket is answered when the
// effects are durable.
func (c *Coordinator) Leave(at Time, ticket uint64, groupID string, leaving []Leaving) (codes []kafka.ErrorCode, code kafka.ErrorCode) {
	c.at = at
	if c.closed {
		return nil, kafka.CoordinatorNotAvailable
	}
	if !groupIDFits(groupID) {
		return nil, kafka.InvalidGroupID
	}
	codes = make([]kafka.ErrorCode, len(leaving))
	group, ok := c.group(groupID)
	if ok && group.consumer != nil {
		codes = c.leaveClassic(group, ticket, leaving)
		c.schedule(group)
		return codes, 0
	}
	left := false
	for i, leaver := range leaving {
		if !ok {
			codes[i] = kafka.UnknownMemberID
			continue
		}
		id := leaver.MemberID
		if id == "" {
			member := group.static[leaver.InstanceID]
			if member == nil || leaver.InstanceID == "" {
				codes[i] = kafka.UnknownMemberID
				continue
			}
			id = member.id
		} else if group.isPending(id) {
			c.dropPending(group, id)
			left = true
			continue
		} else if codes[i] = group.validate(id, leaver.InstanceID); codes[i] != 0 {
			continue
		}
		c.remove(group, group.byID[id])
		left = true
	}
	stores := len(c.storing)
	if left {
		switch group.state {
		case Stable, CompletingRebalance:
			c.rebalance(group)
		case PreparingRebalance:
			c.maybeComplete(group)
		}
	}
	if len(c.storing) > stores {
		c.storing[len(c.storing)-1].ticket = ticket
	} else {
		c.reply(ticket, Done{})
	}
	if ok {
		c.unlistUnused(group)
		c.schedule(group)
	}
	return codes, 0
}

// CommitRequest identifies the client that commits offsets.
type CommitRequest struct {
	Group, MemberID, InstanceID string
	Generation                  int32 // -1: not a member
	KnowsGroupIDNotFound        bool  // versions 9 and up
}

// Commit handles an OffsetCommit request, for partitions that exist and with
// metadata that is not too large. With code 0 the ticket is answered when the
// offsets are durable.
func (c *Coordinator) Commit(at Time, ticket uint64, req *CommitRequest, topics []cluster.GroupTopic) (code kafka.ErrorCode) {
	c.at = at
	if c.closed {
		return kafka.CoordinatorNotAvailable
	}
	if len(req.Group) > cluster.GroupIDBytesMax { // the empty id is allowed here, as in Kafka
		return kafka.InvalidGroupID
	}
	group, ok := c.group(req.Group)
	switch {
	case ok:
		if code := c.validateCommit(group, req, topics); code != 0 {
			return code
		}
	case req.Generation >= 0 && req.KnowsGroupIDNotFound:
		return kafka.GroupIDNotFound
	case req.Generation >= 0:
		return kafka.IllegalGeneration
	case !c.hasRoomForGroup():
		return c.refused(GroupsBound, req.Group, "")
	}
	if ok && (group.state == Stable || group.state == PreparingRebalance) {
		if member := group.byID[req.MemberID]; member != nil {
			c.alive(group, member)
		}
	}
	if len(topics) == 0 {
		c.reply(ticket, Done{})
		return 0
	}
	if more := c.state.MoreOffsetBytes(req.Group, topics); more > 0 {
		have := 0
		if stored, ok := c.state.Group(req.Group); ok {
			have = stored.OffsetBytes()
		}
		if have+more > c.options.OffsetBytesMax {
			return kafka.InvalidCommitOffsetSize
		}
		if !c.hasBytes(more) {
			return c.refused(BytesBound, req.Group, "")
		}
	}
	change := cluster.CommitOffsets(req.Group, topics)
	if len(change) > c.options.GroupBytesMax {
		return kafka.InvalidCommitOffsetSize
	}
	if !ok {
		group = c.list(req.Group)
		group.changedMS = at.WallMS
	}
	c.store(change, pendingStore{group: group, ticket: ticket})
	return 0
}

// Settle answers the ticket when all changes that wait for Stored now are durable,
// so that a read after the answer is no older than the Coordinator's state now.
func (c *Coordinator) Settle(ticket uint64) { c.store(nil, pendingStore{ticket: ticket}) }

// DeleteOffsets handles an OffsetDelete request, for partitions that exist.
// subscribed are the topics refused with GROUP_SUBSCRIBED_TO_TOPIC. With code 0
// the ticket is answered when the deletion of the others is durable.
func (c *Coordinator) DeleteOffsets(at Time, ticket uint64, groupID string, topics []cluster.GroupPartitions) (subscribed []string, code kafka.ErrorCode) {
	c.at = at
	if c.closed {
		return nil, kafka.CoordinatorNotAvailable
	}
	if !groupIDFits(groupID) {
		return nil, kafka.InvalidGroupID
	}
	group, ok := c.group(groupID)
	if !ok {
		return nil, kafka.GroupIDNotFound
	}
	if group.state != Empty && !group.isConsumer() {
		return nil, kafka.NonEmptyGroup
	}
	var gone []cluster.GroupPartitions
	for _, topic := range topics {
		if group.subscribes(topic.Topic) {
			subscribed = append(subscribed, topic.Topic)
		} else if len(topic.Partitions) > 0 {
			gone = append(gone, topic)
		}
	}
	if len(gone) == 0 {
		c.reply(ticket, Done{})
	} else {
		c.store(cluster.ForgetOffsets(groupID, gone), pendingStore{group: group, ticket: ticket})
	}
	return subscribed, 0
}

// Delete handles a DeleteGroups request and returns each group's code. The ticket
// is answered when the deletions are durable.
func (c *Coordinator) Delete(at Time, ticket uint64, ids []string) (codes []kafka.ErrorCode) {
	c.at = at
	codes = make([]kafka.ErrorCode, len(ids))
	var change []byte
	var dropped []string
	for i, id := range ids {
		group, ok := c.group(id)
		switch {
		case c.closed:
			codes[i] = kafka.CoordinatorNotAvailable
		case !ok:
			codes[i] = kafka.GroupIDNotFound
		case group.state != Empty:
			codes[i] = kafka.NonEmptyGroup
		default:
			change = append(change, cluster.DropGroup(id)...)
			dropped = append(dropped, id)
			c.unlist(group)
		}
	}
	if change == nil {
		c.reply(ticket, Done{})
	} else {
		c.store(change, pendingStore{ticket: ticket, dropped: dropped})
	}
	return codes
}

// Info describes a group.
type Info struct {
	ID           string
	Kind         string // "classic" or "consumer"
	State        State
	ProtocolType string
	Protocol     string // while it is stable
	Members      []cluster.GroupMember
}

// Kinds of groups. Source: org.apache.kafka.common.GroupType.
const (
	KindClassic  = "classic"
	KindConsumer = "consumer"
)

// List are the groups by id, without their members.
func (c *Coordinator) List() []Info {
	out := make([]Info, len(c.groups))
	for i, group := range c.groups {
		out[i] = Info{ID: group.id, Kind: KindClassic, State: group.state, ProtocolType: group.protocolType}
		if group.consumer != nil {
			out[i].Kind = KindConsumer
		}
	}
	return out
}

// Describe is one classic group with its members; their Subscription and the
// Protocol only while it is stable. The result refers to the group's memory: do
// not keep it. False: there is no such group, or it is of the consumer protocol,
// as Kind then says.
func (c *Coordinator) Describe(id string) (Info, bool) {
	group, ok := c.group(id)
	if !ok {
		return Info{ID: id, State: Dead}, false
	}
	if group.consumer != nil {
		return Info{ID: id, Kind: KindConsumer, State: Dead}, false
	}
	out := Info{ID: group.id, Kind: KindClassic, State: group.state, ProtocolType: group.protocolType}
	if group.state == Stable {
		out.Protocol = group.protocol
	}
	for _, member := range group.members {
		described := cluster.GroupMember{ID: member.id, InstanceID: member.instance, ClientID: member.clientID, ClientHost: member.clientHost, Assignment: member.assignment}
		if group.state == Stable {
			described.Subscription = member.metadata(group.protocol)
		}
		out.Members = append(out.Members, described)
	}
	return out, true
}

// Tick does what is due.
func (c *Coordinator) Tick(at Time) {
	if c.closed {
		return
	}
	c.at = at
	for len(c.due) > 0 && c.due[0].due <= at.NowMS {
		group := c.due[0]
		c.expire(group)
		c.unlistUnused(group)
		group.due = Never // it may lie before the group's first deadline
		c.schedule(group)
	}
}

// Expire removes expired offsets, by Kafka's rules, and the empty groups that are
// left without any.
func (c *Coordinator) Expire(at Time) {
	c.at = at
	for _, group := range slices.Clone(c.groups) {
		if group.stores > 0 || len(group.pending) > 0 {
			continue
		}
		stored, durable := c.state.Group(group.id)
		var gone []cluster.GroupPartitions
		all := true
		if durable {
			gone, all = group.expired(stored, at.WallMS, c.options.OffsetsRetentionMS)
		}
		switch {
		case all && group.state == Empty:
			if durable {
				c.store(cluster.DropGroup(group.id), pendingStore{dropped: []string{group.id}})
			}
			c.unlist(group)
		case len(gone) > 0:
			c.store(cluster.ForgetOffsets(group.id, gone), pendingStore{group: group})
		}
	}
}

// expired are a group's expired offsets; all says that no other is left.
func (g *group) expired(stored *cluster.Group, wallMS, retentionMS int64) (gone []cluster.GroupPartitions, all bool) {
	if len(stored.Topics) == 0 {
		return nil, true
	}
	sinceEmpty := false
	switch {
	case g.consumer != nil: // by the time of the commit, whatever the group does
	case g.protocolType == "": // it only stores offsets
	case g.state == Empty:
		sinceEmpty = true
	case g.state == Stable && g.isConsumer() && g.knows: // offsets of topics that no member subscribes to any more
	default:
		return nil, false
	}
	all = true
	for _, topic := range stored.Topics {
		if g.subscribes(topic.Name) {
			all = false
			continue
		}
		topicGone := cluster.GroupPartitions{Topic: topic.Name}
		for i := range topic.Offsets {
			offset := &topic.Offsets[i]
			since := offset.CommittedMS
			if sinceEmpty {
				since = g.changedMS
			}
			if offset.ExpiresMS >= 0 && wallMS >= offset.ExpiresMS || offset.ExpiresMS < 0 && wallMS-since >= retentionMS {
				topicGone.Partitions = append(topicGone.Partitions, offset.Partition)
			} else {
				all = false
			}
		}
		if len(topicGone.Partitions) > 0 {
			gone = append(gone, topicGone)
		}
	}
	return gone, all
}

// Close answers all waiting joins and syncs, and accepts no further ones.
func (c *Coordinator) Close() {
	if c.closed {
		return
	}
	c.closed = true
	for _, group := range c.groups {
		for _, member := range group.members {
			c.endJoin(group, member, kafka.NotCoordinator)
			c.endSync(member, &SyncReply{Code: kafka.NotCoordinator})
		}
	}
}

// Stored says that the first change that waits for it is durable and applied or,
// with a code, that it cannot be.
func (c *Coordinator) Stored(at Time, code kafka.ErrorCode) {
	c.at = at
	storing := c.storing[0]
	c.storing = c.storing[1:]
	if len(c.storing) == 0 {
		c.storing = nil
	}
	group := storing.group
	if group != nil {
		group.stores--
	}
	switch storing.kind {
	case storingAssignment:
		c.assigned(group, &storing, code)
	case storingStatic:
		c.replaced(group, &storing, code)
	case storingConsumer:
		c.consumerStored(group, &storing, code)
	default:
		if code != kafka.None {
			c.relist(storing.dropped)
		}
		if storing.ticket != 0 {
			c.reply(storing.ticket, Done{code})
		}
	}
	if group != nil {
		c.unlistUnused(group)
		c.schedule(group)
	}
}

// group is the live group of that id.
func (c *Coordinator) group(id string) (*group, bool) {
	i, ok := c.find(id)
	if !ok {
		return nil, false
	}
	return c.groups[i], true
}

func (c *Coordinator) find(id string) (int, bool) {
	return slices.BinarySearchFunc(c.groups, id, func(group *group, id string) int { return cmp.Compare(group.id, id) })
}

// list adds an empty group.
func (c *Coordinator) list(id string) *group {
	group := &group{id: id, byID: map[string]*member{}, static: map[string]*member{}, joinAt: Never, syncAt: Never, due: Never, heapAt: -1}
	i, _ := c.find(id)
	c.groups = slices.Insert(c.groups, i, group)
	return group
}

// unlist removes an empty group. Its durable state is not changed.
func (c *Coordinator) unlist(group *group) {
	i, ok := c.find(group.id)
	if !ok || c.groups[i] != group {
		return
	}
	c.groups = slices.Delete(c.groups, i, i+1)
	c.members -= len(group.pending)
	group.pending = nil
	group.state, group.unlisted = Dead, true
	if group.heapAt >= 0 {
		heap.Remove(&c.due, group.heapAt)
	}
}

// unlistUnused removes a group that has no members and nothing stored.
func (c *Coordinator) unlistUnused(group *group) {
	if group.unlisted || group.state != Empty || len(group.pending) > 0 || group.stores > 0 {
		return
	}
	if _, durable := c.state.Group(group.id); !durable {
		c.unlist(group)
	}
}

func (c *Coordinator) reply(ticket uint64, reply any) {
	c.effects = append(c.effects, Effect{Ticket: ticket, Reply: reply})
}

func (c *Coordinator) store(change []byte, storing pendingStore) {
	if storing.group != nil {
		storing.group.stores++
	}
	c.storing = append(c.storing, storing)
	c.effects = append(c.effects, Effect{Store: true, Change: change})
}

// schedule makes sure that Tick visits the group in time. A deadline that was put
// off leaves the group where it is in the heap: Tick visits it once too often.
func (c *Coordinator) schedule(group *group) {
	if group.unlisted {
		return
	}
	due := group.earliest()
	switch {
	case due == Never:
		group.due = due
		if group.heapAt >= 0 {
			heap.Remove(&c.due, group.heapAt)
		}
	case group.heapAt < 0:
		group.due = due
		heap.Push(&c.due, group)
	case due < group.due || group.due == Never || group.due <= c.at.NowMS:
		group.due = due
		heap.Fix(&c.due, group.heapAt)
	}
}

// alive puts off the end of a member's session. The new deadline is hardly ever
// before the time the group is scheduled for, so the members are not scanned.
func (c *Coordinator) alive(group *group, member *member) {
	c.rearm(group, member, int64(member.sessionMS))
	if member.deadline < group.due {
		c.schedule(group)
	}
}

func (g *group) earliest() int64 {
	due := min(g.joinAt, g.syncAt)
	for _, member := range g.members {
		due = min(due, member.deadline)
	}
	for _, pending := range g.pending {
		due = min(due, pending.deadline)
	}
	if g.consumer != nil {
		for _, member := range g.consumer.members {
			due = min(due, member.deadline, member.revokeBy, member.joinBy, member.syncBy)
		}
	}
	return due
}

// dueHeap orders groups by due, then by id.
type dueHeap []*group

func (h dueHeap) Len() int { return len(h) }
func (h dueHeap) Less(i, j int) bool {
	if h[i].due != h[j].due {
		return h[i].due < h[j].due
	}
	return h[i].id < h[j].id
}
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].heapAt, h[j].heapAt = i, j
}
func (h *dueHeap) Push(added any) {
	group := added.(*group)
	group.heapAt = len(*h)
	*h = append(*h, group)
}
func (h *dueHeap) Pop() any {
	old := *h
	group := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	group.heapAt = -1
	return group
}

func groupIDFits(id string) bool { return id != "" && len(id) <= cluster.GroupIDBytesMax }

// fits says whether a join's strings are short enough to be stored.
func (r *JoinRequest) fits() bool {
	for _, protocol := range r.Protocols {
		if len(protocol.Name) > cluster.GroupIDBytesMax {
			return false
		}
	}
	return len(r.InstanceID) <= cluster.GroupIDBytesMax && len(r.ProtocolType) <= cluster.GroupIDBytesMax && len(r.NewID) <= cluster.GroupStringBytesMax &&
		len(r.ClientID) <= cluster.GroupStringBytesMax && len(r.ClientHost) <= cluster.GroupStringBytesMax
}

func (g *group) isConsumer() bool { return g.protocolType == "consumer" }

// subscribes says whether members subscribe to a topic, or may if that is unknown.
func (g *group) subscribes(topic string) bool {
	if !g.knows {
		return g.isConsumer()
	}
	_, ok := slices.BinarySearch(g.subscribed, topic)
	return ok
}

// learnTopics reads what the members of a group of consumers subscribe to.
// Source of the format: Kafka's ConsumerProtocolSubscription.json, version 0,
// with which all others begin.
func (g *group) learnTopics() {
	g.subscribed, g.knows = nil, false
	if !g.isConsumer() {
		return
	}
	if len(g.members) == 0 {
		g.knows = true
		return
	}
	var all []string
	for _, member := range g.members {
		rest := member.metadata(g.protocol)
		if len(rest) < 6 {
			return
		}
		count := int32(binary.BigEndian.Uint32(rest[2:]))
		rest = rest[6:]
		for ; count > 0; count-- {
			if len(rest) < 2 {
				return
			}
			size := int(int16(binary.BigEndian.Uint16(rest)))
			if size < 0 || len(rest)-2 < size {
				return
			}
			all = append(all, strings.Clone(string(rest[2:2+size])))
			rest = rest[2+size:]
		}
	}
	slices.Sort(all)
	g.subscribed, g.knows = slices.Compact(all), true
}
