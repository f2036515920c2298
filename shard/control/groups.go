package control

import (
	"encoding/binary"
	"encoding/hex"
	"math"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/cluster/groups"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/shard"
)

// This file is the control shard's side of consumer groups. It is the
// coordinator of all of them: groups.Coordinator decides, and here its
// decisions become commands in the control log and answers to requests.
//
// Changes that come while a command is becoming durable wait together and are
// the next one: a write for many commits, without a timer.

// coordinator is what the control shard has of the groups: those that live, and
// the requests and changes of theirs that wait.
type coordinator struct {
	live     *groups.Coordinator // nil until the control log was read
	tickets  map[uint64]*task    // requests the coordinator is to answer
	last     uint64              // the last ticket
	stores   [][]byte            // changes that wait, in order; nil ones only wait
	settling int                 // changes in the command under way
	yields   bool                // the next change is not ours, if there is another
	expireAt ioring.Instant      // when to look again for offsets whose time is over
}

// GroupOptions are what a broker has to know of consumer groups.
type GroupOptions struct {
	groups.Options
	OffsetMetadataBytesMax int // offset.metadata.max.bytes
	ExpireEveryMS          int // offsets.retention.check.interval.ms
}

const (
	groupAnswerBytes = 3 << 20 // what mail can lend for one answer, with room for names
	clientIDBytesMax = 255     // of a client's id, in a member's id
)

// DefaultGroupOptions are Kafka's defaults, and bounds that Kafka does not
// have. Every member may wait with a request: MembersMax leaves frames of the
// control shard for others.
func DefaultGroupOptions() GroupOptions {
	return GroupOptions{
		Options: groups.Options{
			SessionTimeoutMinMS: 6000, SessionTimeoutMaxMS: 1800000, InitialRebalanceDelayMS: 3000, NewMemberTimeoutMS: 300000, OffsetsRetentionMS: 10080 * 60000,
			GroupSizeMax: 1024, MembersMax: 1536, GroupsMax: 8192, GroupBytesMax: 1 << 20, OffsetBytesMax: 2 << 20, BytesMax: 32 << 20,
			ConsumerSessionTimeoutMS: 45000, ConsumerHeartbeatIntervalMS: 5000, ConsumerGroupSizeMax: math.MaxInt32, ConsumersMax: 16384,
			Migration: cluster.MigrationPolicy{Upgrades: true, Downgrades: true},
		},
		OffsetMetadataBytesMax: 4096, ExpireEveryMS: 600000,
	}
}

// groupsLoaded takes up the groups of the control log.
func (c *control) groupsLoaded() {
	c.groups.tickets = map[uint64]*task{}
	c.groups.live = groups.New(c.state, c.groupOptions(), c.groupTime())
	c.groups.expireAt = c.shard.Now() + ioring.Instant(c.o.Groups.ExpireEveryMS)*1e6
}

// groupOptions are the coordinator's rules as they are now.
func (c *control) groupOptions() groups.Options {
	o, node := c.started.Groups.Options, c.o.Nodes[0].ID
	o.InitialRebalanceDelayMS = c.state.BrokerNumber(node, cluster.RebalanceDelayMS, o.InitialRebalanceDelayMS)
	o.SessionTimeoutMinMS = c.state.BrokerNumber(node, cluster.SessionMinMS, o.SessionTimeoutMinMS)
	o.SessionTimeoutMaxMS = c.state.BrokerNumber(node, cluster.SessionMaxMS, o.SessionTimeoutMaxMS)
	o.GroupSizeMax = int(c.state.BrokerNumber(node, cluster.GroupSizeMax, int64(o.GroupSizeMax)))
	o.ConsumerSessionTimeoutMS = c.state.BrokerNumber(node, cluster.ConsumerSessionMS, o.ConsumerSessionTimeoutMS)
	o.ConsumerHeartbeatIntervalMS = c.state.BrokerNumber(node, cluster.ConsumerHeartbeatMS, o.ConsumerHeartbeatIntervalMS)
	o.ConsumerGroupSizeMax = int(c.state.BrokerNumber(node, cluster.ConsumerGroupSizeMax, int64(o.ConsumerGroupSizeMax)))
	if name, set := c.state.BrokerValue(node, cluster.ConsumerMigration); set {
		o.Migration, _ = cluster.ParseMigrationPolicy(name) // it was checked when it was set
	}
	if minutes := c.state.BrokerNumber(node, cluster.OffsetsRetentionMins, -1); minutes >= 0 {
		o.OffsetsRetentionMS = minutes * 60000
	}
	o.GroupBytesMax = min(o.GroupBytesMax, c.o.Engine.BatchBytesMax-commandRoom)
	return o
}

func (c *control) groupTime() groups.Time {
	return groups.Time{NowMS: int64(c.shard.Now()) / 1e6, WallMS: int64(c.shard.Wall())}
}

// stepGroups does what is due.
func (c *control) stepGroups() {
	live := c.groups.live
	if live == nil {
		return
	}
	if c.shard.Stage() >= shard.StageDraining {
		live.Close()
	}
	live.Tick(c.groupTime())
	if c.shard.Now() >= c.groups.expireAt && c.shard.Stage() == shard.StageServing {
		live.Expire(c.groupTime())
		c.groups.expireAt = c.shard.Now() + ioring.Instant(c.o.Groups.ExpireEveryMS)*1e6
	}
	c.groupEffects()
}

// next is when stepGroups has something to do.
func (g *coordinator) next() ioring.Instant {
	if g.live == nil {
		return ioring.Never
	}
	due := g.expireAt
	if ms := g.live.Next(); ms < int64(ioring.Never)/1e6 {
		due = min(due, ioring.Instant(ms)*1e6)
	}
	return due
}

// idle says that nothing is on its way.
func (g *coordinator) idle() bool { return g.live == nil || !g.live.Waiting() }

// groupEffects does what the coordinator wants done.
func (c *control) groupEffects() {
	for _, e := range c.groups.live.Effects() {
		if e.Store {
			c.groups.stores = append(c.groups.stores, e.Change)
			continue
		}
		t := c.groups.tickets[e.Ticket]
		delete(c.groups.tickets, e.Ticket)
		switch r := e.Reply.(type) {
		case *groups.JoinReply:
			joinAnswer(t, r)
		case *groups.SyncReply:
			syncAnswer(t, r)
		case *groups.ConsumerReply:
			consumerAnswer(t, r)
		case groups.Done:
			if q, ok := t.req.(*kmsg.OffsetFetchRequest); ok && r.Code == 0 {
				c.fetchOffsets(q, t.resp.(*kmsg.OffsetFetchResponse))
			} else if r.Code != 0 {
				groupError(t, r.Code)
			}
		}
		c.less(t)
	}
}

// nextGroups makes the changes that wait the next command. It says whether
// there is one; changes that only wait are over at once.
func (c *control) nextGroups() bool {
	g := &c.groups
	if len(g.stores) == 0 || g.yields && len(c.changes) > 0 {
		g.yields = false
		return false
	}
	n, size := 0, 0
	for n < len(g.stores) && (size == 0 || size+len(g.stores[n]) <= c.commandBytes()) {
		size += len(g.stores[n])
		n++
	}
	all := g.stores[:n]
	g.stores = slices.Clone(g.stores[n:])
	g.settling, g.yields = n, true
	if size == 0 {
		c.groupsStored(0)
		return c.nextGroups()
	}
	c.current = change{kind: changeGroups, cmd: c.state.PlanGroups(all)}
	return true
}

// groupsStored: the command under way is applied, or cannot be stored.
func (c *control) groupsStored(code kafka.ErrorCode) {
	n := c.groups.settling
	c.groups.settling = 0
	for range n {
		c.groups.live.Stored(c.groupTime(), code)
	}
	c.groupEffects()
}

// ticket has the task wait for the coordinator's answer.
func (c *control) ticket(t *task) uint64 {
	c.groups.last++
	c.groups.tickets[c.groups.last] = t
	t.pending++
	return c.groups.last
}

// untake: the coordinator answered at once, without the ticket.
func (c *control) untake(t *task) {
	delete(c.groups.tickets, c.groups.last)
	t.pending--
}

// startGroup begins a request to the coordinator. It says whether t is one.
func (c *control) startGroup(t *task) bool {
	switch t.req.(type) {
	case *kmsg.JoinGroupRequest, *kmsg.SyncGroupRequest, *kmsg.HeartbeatRequest, *kmsg.LeaveGroupRequest, *kmsg.OffsetCommitRequest, *kmsg.OffsetFetchRequest,
		*kmsg.OffsetDeleteRequest, *kmsg.DescribeGroupsRequest, *kmsg.DeleteGroupsRequest, *kmsg.ListGroupsRequest,
		*kmsg.ConsumerGroupHeartbeatRequest, *kmsg.ConsumerGroupDescribeRequest:
	default:
		return false
	}
	if t.from.Shard != 0 && !c.o.OneNode() { // clients ask every node for its groups; data shards have none
		groupError(t, kafka.NotCoordinator)
		return true
	}
	at := c.groupTime()
	live := c.groups.live
	switch r := t.req.(type) {
	case *kmsg.JoinGroupRequest:
		live.Join(at, c.ticket(t), c.joinRequest(t, r))
	case *kmsg.SyncGroupRequest:
		if r.Version >= 5 && (r.ProtocolType == nil || r.Protocol == nil) {
			groupError(t, kafka.InconsistentGroupProtocol)
			break
		}
		q := &groups.SyncRequest{Group: r.Group, MemberID: r.MemberID, InstanceID: text(r.InstanceID), Generation: r.Generation, ProtocolType: r.ProtocolType, Protocol: r.Protocol}
		for _, a := range r.GroupAssignment {
			q.Assignments = append(q.Assignments, groups.Assignment{MemberID: a.MemberID, Assignment: a.MemberAssignment})
		}
		live.Sync(at, c.ticket(t), q)
	case *kmsg.HeartbeatRequest:
		t.resp.(*kmsg.HeartbeatResponse).ErrorCode = int16(live.Heartbeat(at, r.Group, r.MemberID, text(r.InstanceID), r.Generation))
	case *kmsg.LeaveGroupRequest:
		c.leaveGroup(t, r, t.resp.(*kmsg.LeaveGroupResponse))
	case *kmsg.OffsetCommitRequest:
		c.commitOffsets(t, r, t.resp.(*kmsg.OffsetCommitResponse))
	case *kmsg.OffsetFetchRequest:
		// What was sent before it on the same connection comes before it.
		if live.Waiting() {
			live.Settle(c.ticket(t))
		} else {
			c.fetchOffsets(r, t.resp.(*kmsg.OffsetFetchResponse))
		}
	case *kmsg.OffsetDeleteRequest:
		c.deleteOffsets(t, r, t.resp.(*kmsg.OffsetDeleteResponse))
	case *kmsg.DescribeGroupsRequest:
		c.describeGroups(r, t.resp.(*kmsg.DescribeGroupsResponse))
	case *kmsg.DeleteGroupsRequest:
		codes := live.Delete(at, c.ticket(t), r.Groups)
		resp := t.resp.(*kmsg.DeleteGroupsResponse)
		for i, id := range r.Groups {
			x := kmsg.NewDeleteGroupsResponseGroup()
			x.Group, x.ErrorCode = id, int16(codes[i])
			resp.Groups = append(resp.Groups, x)
		}
	case *kmsg.ListGroupsRequest:
		c.listGroups(r, t.resp.(*kmsg.ListGroupsResponse))
	case *kmsg.ConsumerGroupHeartbeatRequest:
		live.ConsumerHeartbeat(at, c.ticket(t), c.consumerRequest(t, r))
	case *kmsg.ConsumerGroupDescribeRequest:
		c.describeConsumers(r, t.resp.(*kmsg.ConsumerGroupDescribeResponse))
	}
	c.groupEffects()
	return true
}

// namedOfGroups is how many groups, members, topics and partitions a request
// names.
func namedOfGroups(req kmsg.Request) (n int) {
	switch r := req.(type) {
	case *kmsg.JoinGroupRequest:
		return len(r.Protocols)
	case *kmsg.SyncGroupRequest:
		return len(r.GroupAssignment)
	case *kmsg.LeaveGroupRequest:
		return len(r.Members)
	case *kmsg.OffsetCommitRequest:
		for i := range r.Topics {
			n += 1 + len(r.Topics[i].Partitions)
		}
	case *kmsg.OffsetFetchRequest:
		for i := range r.Topics {
			n += 1 + len(r.Topics[i].Partitions)
		}
		for i := range r.Groups {
			n++
			for k := range r.Groups[i].Topics {
				n += 1 + len(r.Groups[i].Topics[k].Partitions)
			}
		}
	case *kmsg.OffsetDeleteRequest:
		for i := range r.Topics {
			n += 1 + len(r.Topics[i].Partitions)
		}
	case *kmsg.DescribeGroupsRequest:
		return len(r.Groups)
	case *kmsg.DeleteGroupsRequest:
		return len(r.Groups)
	case *kmsg.ConsumerGroupHeartbeatRequest:
		n = len(r.SubscribedTopicNames)
		for i := range r.Topics {
			n += 1 + len(r.Topics[i].Partitions)
		}
	case *kmsg.ConsumerGroupDescribeRequest:
		return len(r.Groups)
	case *kmsg.ListGroupsRequest:
		return len(r.StatesFilter) + len(r.TypesFilter)
	}
	return n
}

// groupError makes a code the answer to a whole request, wherever its response
// has errors. What has another error already keeps it.
func groupError(t *task, failure kafka.ErrorCode) {
	code := int16(failure)
	set := func(at *int16) {
		if *at == 0 {
			*at = code
		}
	}
	switch r := t.resp.(type) {
	case *kmsg.JoinGroupResponse:
		r.ErrorCode, r.Generation = code, -1
	case *kmsg.SyncGroupResponse:
		r.ErrorCode = code
	case *kmsg.HeartbeatResponse:
		r.ErrorCode = code
	case *kmsg.LeaveGroupResponse:
		r.ErrorCode, r.Members = code, nil
	case *kmsg.OffsetCommitResponse:
		if len(r.Topics) == 0 {
			for _, q := range t.req.(*kmsg.OffsetCommitRequest).Topics {
				x := kmsg.NewOffsetCommitResponseTopic()
				x.Topic = q.Topic
				for _, p := range q.Partitions {
					y := kmsg.NewOffsetCommitResponseTopicPartition()
					y.Partition = p.Partition
					x.Partitions = append(x.Partitions, y)
				}
				r.Topics = append(r.Topics, x)
			}
		}
		for i := range r.Topics {
			for k := range r.Topics[i].Partitions {
				set(&r.Topics[i].Partitions[k].ErrorCode)
			}
		}
	case *kmsg.OffsetFetchResponse:
		offsetFetchError(t.req.(*kmsg.OffsetFetchRequest), r, failure)
	case *kmsg.OffsetDeleteResponse:
		r.ErrorCode, r.Topics = code, nil
	case *kmsg.DescribeGroupsResponse:
		r.Groups = nil
		for _, id := range t.req.(*kmsg.DescribeGroupsRequest).Groups {
			x := kmsg.NewDescribeGroupsResponseGroup()
			x.Group, x.ErrorCode = id, code
			r.Groups = append(r.Groups, x)
		}
	case *kmsg.ConsumerGroupHeartbeatResponse:
		r.ErrorCode = code
	case *kmsg.ConsumerGroupDescribeResponse:
		r.Groups = nil
		for _, id := range t.req.(*kmsg.ConsumerGroupDescribeRequest).Groups {
			x := kmsg.NewConsumerGroupDescribeResponseGroup()
			x.Group, x.ErrorCode = id, code
			r.Groups = append(r.Groups, x)
		}
	case *kmsg.DeleteGroupsResponse:
		if len(r.Groups) == 0 {
			for _, id := range t.req.(*kmsg.DeleteGroupsRequest).Groups {
				x := kmsg.NewDeleteGroupsResponseGroup()
				x.Group = id
				r.Groups = append(r.Groups, x)
			}
		}
		for i := range r.Groups {
			set(&r.Groups[i].ErrorCode)
		}
	}
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// orNil is how an empty text is written where a field may be null.
func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func (c *control) joinRequest(t *task, r *kmsg.JoinGroupRequest) *groups.JoinRequest {
	q := &groups.JoinRequest{
		Group: r.Group, MemberID: r.MemberID, InstanceID: text(r.InstanceID), ProtocolType: r.ProtocolType, SessionTimeoutMS: r.SessionTimeoutMillis,
		RebalanceTimeoutMS: r.RebalanceTimeoutMillis, ClientID: t.clientID, ClientHost: t.clientHost(), IDRequired: r.Version >= 4, CanSkip: r.Version >= 9,
	}
	if r.Version == 0 {
		q.RebalanceTimeoutMS = r.SessionTimeoutMillis
	}
	for _, p := range r.Protocols {
		q.Protocols = append(q.Protocols, cluster.GroupProtocol{Name: p.Name, Metadata: p.Metadata})
	}
	if r.MemberID == "" {
		name := q.InstanceID
		if name == "" {
			name = t.clientID
		}
		q.NewID = name + "-" + c.uuid()
	}
	return q
}

// uuid is a random UUID of version 4 (RFC 9562), as Kafka writes them.
func (c *control) uuid() string {
	var id [16]byte
	binary.LittleEndian.PutUint64(id[:8], c.rand.Uint64())
	binary.LittleEndian.PutUint64(id[8:], c.rand.Uint64())
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	h := hex.EncodeToString(id[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

func joinAnswer(t *task, r *groups.JoinReply) {
	resp := t.resp.(*kmsg.JoinGroupResponse)
	resp.ErrorCode, resp.Generation, resp.LeaderID, resp.MemberID, resp.SkipAssignment = int16(r.Code), r.Generation, r.Leader, r.MemberID, r.SkipAssignment
	resp.ProtocolType, resp.Protocol = orNil(r.ProtocolType), orNil(r.Protocol)
	for _, m := range r.Members {
		x := kmsg.NewJoinGroupResponseMember()
		x.MemberID, x.InstanceID, x.ProtocolMetadata = m.ID, orNil(m.InstanceID), m.Metadata
		resp.Members = append(resp.Members, x)
	}
}

func syncAnswer(t *task, r *groups.SyncReply) {
	resp := t.resp.(*kmsg.SyncGroupResponse)
	resp.ErrorCode, resp.ProtocolType, resp.Protocol, resp.MemberAssignment = int16(r.Code), orNil(r.ProtocolType), orNil(r.Protocol), r.Assignment
}

func (c *control) leaveGroup(t *task, r *kmsg.LeaveGroupRequest, resp *kmsg.LeaveGroupResponse) {
	var who []groups.Leaving
	if r.Version < 3 {
		who = []groups.Leaving{{MemberID: r.MemberID}}
	}
	for _, m := range r.Members {
		who = append(who, groups.Leaving{MemberID: m.MemberID, InstanceID: text(m.InstanceID)})
	}
	codes, code := c.groups.live.Leave(c.groupTime(), c.ticket(t), r.Group, who)
	switch {
	case code != 0:
		c.untake(t)
		resp.ErrorCode = int16(code)
	case r.Version < 3:
		resp.ErrorCode = int16(codes[0])
	default:
		for i, m := range r.Members {
			x := kmsg.NewLeaveGroupResponseMember()
			x.MemberID, x.InstanceID, x.ErrorCode = m.MemberID, m.InstanceID, int16(codes[i])
			resp.Members = append(resp.Members, x)
		}
	}
}

// commitOffsets refuses what cannot be stored, and has the rest stored.
func (c *control) commitOffsets(t *task, r *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse) {
	wall := int64(c.shard.Wall())
	expires := int64(-1)
	if r.Version <= 4 && r.RetentionTimeMillis >= 0 {
		expires = wall + r.RetentionTimeMillis
	}
	var topics []cluster.GroupTopic
	known := false
	for i := range r.Topics {
		q := &r.Topics[i]
		topic, ok := c.state.Topic(q.Topic)
		x := kmsg.NewOffsetCommitResponseTopic()
		x.Topic = q.Topic
		offsets := cluster.GroupTopic{Name: q.Topic}
		for _, p := range q.Partitions {
			y := kmsg.NewOffsetCommitResponseTopicPartition()
			y.Partition = p.Partition
			switch {
			case !ok || p.Partition < 0 || int(p.Partition) >= len(topic.Partitions):
				y.ErrorCode = int16(kafka.UnknownTopicOrPartition)
			case len(text(p.Metadata)) > c.o.Groups.OffsetMetadataBytesMax:
				known = true
				y.ErrorCode = int16(kafka.OffsetMetadataTooLarge)
			default:
				known = true
				offsets.Offsets = append(offsets.Offsets, cluster.Offset{
					Partition: p.Partition, Offset: p.Offset, LeaderEpoch: p.LeaderEpoch, Metadata: text(p.Metadata), CommittedMS: wall, ExpiresMS: expires,
				})
			}
			x.Partitions = append(x.Partitions, y)
		}
		if len(offsets.Offsets) > 0 {
			topics = append(topics, offsets)
		}
		resp.Topics = append(resp.Topics, x)
	}
	if !known {
		return
	}
	who := &groups.CommitRequest{Group: r.Group, MemberID: r.MemberID, InstanceID: text(r.InstanceID), Generation: r.Generation, KnowsGroupIDNotFound: r.Version >= 9}
	if code := c.groups.live.Commit(c.groupTime(), c.ticket(t), who, topics); code != 0 {
		c.untake(t)
		for i := range resp.Topics {
			for k := range resp.Topics[i].Partitions {
				if p := &resp.Topics[i].Partitions[k]; p.ErrorCode != int16(kafka.UnknownTopicOrPartition) {
					p.ErrorCode = int16(code)
				}
			}
		}
	}
}

// fetchOffsets reads what is durable.
func (c *control) fetchOffsets(r *kmsg.OffsetFetchRequest, resp *kmsg.OffsetFetchResponse) {
	size := 0
	if r.Version < 8 {
		q := kmsg.OffsetFetchRequestGroup{Group: r.Group, MemberEpoch: -1}
		if r.Topics != nil {
			q.Topics = []kmsg.OffsetFetchRequestGroupTopic{}
		}
		for i := range r.Topics {
			q.Topics = append(q.Topics, kmsg.OffsetFetchRequestGroupTopic{Topic: r.Topics[i].Topic, Partitions: r.Topics[i].Partitions})
		}
		g := c.fetchGroup(&q, &size)
		if g.ErrorCode != 0 {
			offsetFetchError(r, resp, kafka.ErrorCode(g.ErrorCode))
			return
		}
		for _, t := range g.Topics {
			x := kmsg.NewOffsetFetchResponseTopic()
			x.Topic = t.Topic
			for _, p := range t.Partitions {
				x.Partitions = append(x.Partitions, kmsg.OffsetFetchResponseTopicPartition{Partition: p.Partition, Offset: p.Offset, LeaderEpoch: p.LeaderEpoch, Metadata: p.Metadata, ErrorCode: p.ErrorCode})
			}
			resp.Topics = append(resp.Topics, x)
		}
		return
	}
	for i := range r.Groups {
		resp.Groups = append(resp.Groups, c.fetchGroup(&r.Groups[i], &size))
	}
}

// fetchGroup answers for one group; nil topics are all it has. size is what the
// response has so far.
func (c *control) fetchGroup(q *kmsg.OffsetFetchRequestGroup, size *int) kmsg.OffsetFetchResponseGroup {
	x := kmsg.NewOffsetFetchResponseGroup()
	x.Group = q.Group
	if x.ErrorCode = int16(c.groups.live.ValidateFetch(q.Group, q.MemberID, q.MemberEpoch)); x.ErrorCode != 0 {
		return x
	}
	g, ok := c.state.Group(q.Group)
	if !ok {
		g = &cluster.Group{}
	}
	add := func(topic string, partitions func(yield func(int32, *cluster.Offset) bool)) {
		y := kmsg.NewOffsetFetchResponseGroupTopic()
		y.Topic = topic
		*size += 16 + len(topic)
		for p, o := range partitions {
			z := kmsg.NewOffsetFetchResponseGroupTopicPartition()
			z.Partition, z.Offset, z.LeaderEpoch = p, -1, -1
			metadata := ""
			if o != nil {
				z.Offset, z.LeaderEpoch, metadata = o.Offset, o.LeaderEpoch, o.Metadata
			}
			z.Metadata = &metadata
			*size += 24 + len(metadata)
			y.Partitions = append(y.Partitions, z)
		}
		x.Topics = append(x.Topics, y)
	}
	if q.Topics == nil {
		for i := range g.Topics {
			add(g.Topics[i].Name, func(yield func(int32, *cluster.Offset) bool) {
				for k := range g.Topics[i].Offsets {
					if o := &g.Topics[i].Offsets[k]; !yield(o.Partition, o) {
						return
					}
				}
			})
		}
	}
	for _, t := range q.Topics {
		add(t.Topic, func(yield func(int32, *cluster.Offset) bool) {
			for _, p := range t.Partitions {
				o, _ := g.Offset(t.Topic, p)
				if !yield(p, o) {
					return
				}
			}
		})
	}
	if *size > groupAnswerBytes {
		x.Topics, x.ErrorCode = nil, int16(kafka.MessageTooLarge)
	}
	return x
}

// offsetFetchError is an error for the whole request: version 1 has a place for
// it with each partition only, version 8 and up with each group.
func offsetFetchError(r *kmsg.OffsetFetchRequest, resp *kmsg.OffsetFetchResponse, failure kafka.ErrorCode) {
	code := int16(failure)
	resp.ErrorCode = code
	for i := range r.Groups {
		x := kmsg.NewOffsetFetchResponseGroup()
		x.Group, x.ErrorCode = r.Groups[i].Group, code
		resp.Groups = append(resp.Groups, x)
	}
	if r.Version >= 2 {
		return
	}
	for i := range r.Topics {
		x := kmsg.NewOffsetFetchResponseTopic()
		x.Topic = r.Topics[i].Topic
		for _, p := range r.Topics[i].Partitions {
			y := kmsg.NewOffsetFetchResponseTopicPartition()
			y.Partition, y.Offset, y.ErrorCode = p, -1, code
			x.Partitions = append(x.Partitions, y)
		}
		resp.Topics = append(resp.Topics, x)
	}
}

func (c *control) deleteOffsets(t *task, r *kmsg.OffsetDeleteRequest, resp *kmsg.OffsetDeleteResponse) {
	var topics []cluster.GroupPartitions
	for i := range r.Topics {
		q := &r.Topics[i]
		topic, ok := c.state.Topic(q.Topic)
		x := kmsg.NewOffsetDeleteResponseTopic()
		x.Topic = q.Topic
		gone := cluster.GroupPartitions{Topic: q.Topic}
		for _, p := range q.Partitions {
			y := kmsg.NewOffsetDeleteResponseTopicPartition()
			y.Partition = p.Partition
			if !ok || p.Partition < 0 || int(p.Partition) >= len(topic.Partitions) {
				y.ErrorCode = int16(kafka.UnknownTopicOrPartition)
			} else {
				gone.Partitions = append(gone.Partitions, p.Partition)
			}
			x.Partitions = append(x.Partitions, y)
		}
		resp.Topics = append(resp.Topics, x)
		topics = append(topics, gone)
	}
	subscribed, code := c.groups.live.DeleteOffsets(c.groupTime(), c.ticket(t), r.Group, topics)
	if code != 0 {
		c.untake(t)
		groupError(t, code)
		return
	}
	for i := range resp.Topics {
		if !slices.Contains(subscribed, resp.Topics[i].Topic) {
			continue
		}
		for k := range resp.Topics[i].Partitions {
			if p := &resp.Topics[i].Partitions[k]; p.ErrorCode == 0 {
				p.ErrorCode = int16(kafka.GroupSubscribedToTopic)
			}
		}
	}
}

// groupOperations are what may be done to a group, as bits: read, delete,
// describe. Source: org.apache.kafka.common.acl.AclOperation, and
// AclEntry.supportedOperations of kafka.security.authorizer.
const groupOperations = 1<<3 | 1<<6 | 1<<8

func (c *control) describeGroups(r *kmsg.DescribeGroupsRequest, resp *kmsg.DescribeGroupsResponse) {
	size := 0
	for _, id := range r.Groups {
		x := kmsg.NewDescribeGroupsResponseGroup()
		g, ok := c.groups.live.Describe(id)
		x.Group, x.State, x.ProtocolType, x.Protocol = id, g.State.String(), g.ProtocolType, g.Protocol
		if !ok && r.Version >= 6 {
			message := "Group " + id + " not found."
			if g.Kind == groups.KindConsumer {
				message = "Group " + id + " is not a classic group."
			}
			x.ErrorCode, x.ErrorMessage = int16(kafka.GroupIDNotFound), &message
		}
		if r.IncludeAuthorizedOperations && x.ErrorCode == 0 {
			x.AuthorizedOperations = groupOperations
		}
		for _, m := range g.Members {
			y := kmsg.NewDescribeGroupsResponseGroupMember()
			y.MemberID, y.InstanceID, y.ClientID, y.ClientHost, y.ProtocolMetadata, y.MemberAssignment = m.ID, orNil(m.InstanceID), m.ClientID, m.ClientHost, m.Subscription, m.Assignment
			size += 64 + len(m.ID) + len(m.InstanceID) + len(m.ClientID) + len(m.ClientHost) + len(m.Subscription) + len(m.Assignment)
			x.Members = append(x.Members, y)
		}
		if size += 64 + len(id); size > groupAnswerBytes {
			x.Members, x.ErrorCode = nil, int16(kafka.MessageTooLarge)
		}
		resp.Groups = append(resp.Groups, x)
	}
}

func (c *control) consumerRequest(t *task, r *kmsg.ConsumerGroupHeartbeatRequest) *groups.ConsumerRequest {
	q := &groups.ConsumerRequest{
		Group: r.Group, MemberID: r.MemberID, Epoch: r.MemberEpoch, InstanceID: r.InstanceID, RackID: r.RackID, RebalanceTimeoutMS: r.RebalanceTimeoutMillis,
		Topics: r.SubscribedTopicNames, Regex: r.SubscribedTopicRegex, Assignor: r.ServerAssignor, ClientID: t.clientID, ClientHost: t.clientHost(), BringsID: r.Version >= 1,
	}
	if r.MemberID == "" {
		q.NewID = c.uuid()
	}
	if r.Topics != nil {
		q.Owned = []cluster.TopicPartitions{}
	}
	for _, x := range r.Topics {
		q.Owned = append(q.Owned, cluster.TopicPartitions{Topic: x.TopicID, Partitions: x.Partitions})
	}
	return q
}

func consumerAnswer(t *task, r *groups.ConsumerReply) {
	resp := t.resp.(*kmsg.ConsumerGroupHeartbeatResponse)
	resp.ErrorCode, resp.ErrorMessage, resp.MemberID = int16(r.Code), orNil(r.Why), orNil(r.MemberID)
	resp.MemberEpoch, resp.HeartbeatIntervalMillis = r.Epoch, r.IntervalMS
	if !r.Assigns {
		return
	}
	resp.Assignment = &kmsg.ConsumerGroupHeartbeatResponseAssignment{}
	for _, x := range r.Assignment {
		y := kmsg.NewConsumerGroupHeartbeatResponseAssignmentTopic()
		y.TopicID, y.Partitions = x.Topic, x.Partitions
		resp.Assignment.Topics = append(resp.Assignment.Topics, y)
	}
}

// What a member of a group of the consumer protocol speaks.
// Source: Kafka's ConsumerGroupDescribeResponse.json, MemberType.
const (
	memberClassic = 0
	memberModern  = 1
)

func (c *control) describeConsumers(r *kmsg.ConsumerGroupDescribeRequest, resp *kmsg.ConsumerGroupDescribeResponse) {
	size := 0
	assignment := func(all []cluster.TopicPartitions) (out kmsg.Assignment) {
		for _, x := range all {
			topic, ok := c.state.TopicByID(x.Topic)
			if !ok {
				continue // it was deleted, and its consumer has not given it up yet
			}
			y := kmsg.NewAssignmentTopicPartition()
			y.TopicID, y.Topic, y.Partitions = x.Topic, topic.Name, x.Partitions
			size += 32 + len(topic.Name) + 4*len(x.Partitions)
			out.TopicPartitions = append(out.TopicPartitions, y)
		}
		return out
	}
	for _, id := range r.Groups {
		x := kmsg.NewConsumerGroupDescribeResponseGroup()
		x.Group = id
		g, ok := c.groups.live.DescribeConsumer(id)
		switch {
		case id == "":
			x.ErrorCode = int16(kafka.InvalidGroupID)
		case !ok:
			message := "Group " + id + " is not a consumer group."
			x.ErrorCode, x.ErrorMessage = int16(kafka.GroupIDNotFound), &message
		default:
			x.State, x.Epoch, x.AssignmentEpoch, x.AssignorName = g.State.String(), g.Epoch, g.AssignmentEpoch, g.Assignor
			if r.IncludeAuthorizedOperations {
				x.AuthorizedOperations = groupOperations
			}
		}
		for i := range g.Members {
			m := &g.Members[i]
			y := kmsg.NewConsumerGroupDescribeResponseGroupMember()
			y.MemberID, y.InstanceID, y.RackID, y.MemberEpoch, y.ClientID, y.ClientHost = m.ID, orNil(m.InstanceID), orNil(m.RackID), m.Epoch, m.ClientID, m.ClientHost
			y.SubscribedTopics, y.SubscribedTopicRegex, y.MemberType = m.Topics, orNil(m.Regex), memberModern
			if m.Classic != nil {
				y.MemberType = memberClassic
			}
			y.Assignment, y.TargetAssignment = assignment(m.Assigned), assignment(m.Target)
			size += 128 + len(m.ID) + len(m.InstanceID) + len(m.RackID) + len(m.ClientID) + len(m.Regex)
			for _, t := range m.Topics {
				size += 4 + len(t)
			}
			x.Members = append(x.Members, y)
		}
		if size += 64 + len(id); size > groupAnswerBytes {
			x.Members, x.ErrorCode = nil, int16(kafka.MessageTooLarge)
		}
		resp.Groups = append(resp.Groups, x)
	}
}

func (c *control) listGroups(r *kmsg.ListGroupsRequest, resp *kmsg.ListGroupsResponse) {
	among := func(filter []string, what string) bool {
		return len(filter) == 0 || slices.ContainsFunc(filter, func(f string) bool { return strings.EqualFold(strings.TrimSpace(f), what) })
	}
	for _, g := range c.groups.live.List() {
		if !among(r.StatesFilter, g.State.String()) || !among(r.TypesFilter, g.Kind) {
			continue
		}
		x := kmsg.NewListGroupsResponseGroup()
		x.Group, x.ProtocolType, x.GroupState, x.GroupType = g.ID, g.ProtocolType, g.State.String(), g.Kind
		resp.Groups = append(resp.Groups, x)
	}
}
