package control

import (
	"encoding/hex"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/cluster/groups"
	"github.com/tailbound/tailbound/kafka"
)

// Members of groups: of the classic protocol, and of the consumer protocol (KIP-848).
//
// JoinGroup (11): 1 has a rebalance timeout, 4 makes a member join again with the id that
// its first request was answered with (KIP-394), 5 has static members (KIP-345), 7 names
// the protocol in the answer, 8 has a reason (KIP-800), 9 may tell the leader not to assign
// (KIP-814).
//
// SyncGroup (14): 3 has static members, 5 names the protocol (KIP-559).
//
// Heartbeat (12): 3 has static members. LeaveGroup (13): 3 lets several members leave at
// once (KIP-345), 5 has a reason (KIP-800).
//
// ConsumerGroupHeartbeat (68): 1 has patterns of topics, and members that choose their own
// id (KIP-1082).

func joinGroupNames(req *kmsg.JoinGroupRequest) int { return len(req.Protocols) }

func (c *control) joinGroup(task *task, req *kmsg.JoinGroupRequest, resp *kmsg.JoinGroupResponse) {
	ticket := c.await(task, func(reply any) { joined(resp, reply.(*groups.JoinReply)) })
	join := &groups.JoinRequest{
		Group: req.Group, MemberID: req.MemberID, InstanceID: stringOf(req.InstanceID), ProtocolType: req.ProtocolType, SessionTimeoutMS: req.SessionTimeoutMillis,
		RebalanceTimeoutMS: req.RebalanceTimeoutMillis, ClientID: task.clientID, ClientHost: task.clientHost(), IDRequired: req.Version >= 4, CanSkip: req.Version >= 9,
	}
	if req.Version == 0 {
		join.RebalanceTimeoutMS = req.SessionTimeoutMillis
	}
	for _, protocol := range req.Protocols {
		join.Protocols = append(join.Protocols, cluster.GroupProtocol{Name: protocol.Name, Metadata: protocol.Metadata})
	}
	if req.MemberID == "" {
		name := join.InstanceID
		if name == "" {
			name = task.clientID
		}
		join.NewID = name + "-" + c.newMemberID()
	}
	c.groups.live.Join(c.groupTime(), ticket, join)
}

// newMemberID returns a random UUID in the form that Kafka writes.
func (c *control) newMemberID() string {
	id := c.newUUID()
	digits := hex.EncodeToString(id[:])
	return digits[:8] + "-" + digits[8:12] + "-" + digits[12:16] + "-" + digits[16:20] + "-" + digits[20:]
}

func joined(resp *kmsg.JoinGroupResponse, reply *groups.JoinReply) {
	resp.ErrorCode, resp.Generation, resp.LeaderID, resp.MemberID, resp.SkipAssignment = int16(reply.Code), reply.Generation, reply.Leader, reply.MemberID, reply.SkipAssignment
	resp.ProtocolType, resp.Protocol = nullable(reply.ProtocolType), nullable(reply.Protocol)
	for _, member := range reply.Members {
		out := kmsg.NewJoinGroupResponseMember()
		out.MemberID, out.InstanceID, out.ProtocolMetadata = member.ID, nullable(member.InstanceID), member.Metadata
		resp.Members = append(resp.Members, out)
	}
}

func failJoinGroup(_ *kmsg.JoinGroupRequest, resp *kmsg.JoinGroupResponse, _ int, code kafka.ErrorCode, _ string) {
	resp.ErrorCode, resp.Generation = int16(code), -1
}

func syncGroupNames(req *kmsg.SyncGroupRequest) int { return len(req.GroupAssignment) }

func (c *control) syncGroup(task *task, req *kmsg.SyncGroupRequest, resp *kmsg.SyncGroupResponse) {
	if req.Version >= 5 && (req.ProtocolType == nil || req.Protocol == nil) {
		task.fail(wholeRequest, kafka.InconsistentGroupProtocol, "")
		return
	}
	ticket := c.await(task, func(reply any) {
		sync := reply.(*groups.SyncReply)
		resp.ErrorCode, resp.ProtocolType, resp.Protocol, resp.MemberAssignment = int16(sync.Code), nullable(sync.ProtocolType), nullable(sync.Protocol), sync.Assignment
	})
	sync := &groups.SyncRequest{Group: req.Group, MemberID: req.MemberID, InstanceID: stringOf(req.InstanceID), Generation: req.Generation, ProtocolType: req.ProtocolType, Protocol: req.Protocol}
	for _, assigned := range req.GroupAssignment {
		sync.Assignments = append(sync.Assignments, groups.Assignment{MemberID: assigned.MemberID, Assignment: assigned.MemberAssignment})
	}
	c.groups.live.Sync(c.groupTime(), ticket, sync)
}

func failSyncGroup(_ *kmsg.SyncGroupRequest, resp *kmsg.SyncGroupResponse, _ int, code kafka.ErrorCode, _ string) {
	resp.ErrorCode = int16(code)
}

func (c *control) heartbeat(_ *task, req *kmsg.HeartbeatRequest, resp *kmsg.HeartbeatResponse) {
	resp.ErrorCode = int16(c.groups.live.Heartbeat(c.groupTime(), req.Group, req.MemberID, stringOf(req.InstanceID), req.Generation))
}

func failHeartbeat(_ *kmsg.HeartbeatRequest, resp *kmsg.HeartbeatResponse, _ int, code kafka.ErrorCode, _ string) {
	resp.ErrorCode = int16(code)
}

func leaveGroupNames(req *kmsg.LeaveGroupRequest) int { return len(req.Members) }

func (c *control) leaveGroup(task *task, req *kmsg.LeaveGroupRequest, resp *kmsg.LeaveGroupResponse) {
	var leaving []groups.Leaving
	if req.Version < 3 {
		leaving = []groups.Leaving{{MemberID: req.MemberID}}
	}
	for _, member := range req.Members {
		leaving = append(leaving, groups.Leaving{MemberID: member.MemberID, InstanceID: stringOf(member.InstanceID)})
	}
	codes, code := c.groups.live.Leave(c.groupTime(), c.await(task, nil), req.Group, leaving)
	switch {
	case code != kafka.None:
		c.withdraw(task)
		resp.ErrorCode = int16(code)
	case req.Version < 3:
		resp.ErrorCode = int16(codes[0])
	default:
		for i, member := range req.Members {
			out := kmsg.NewLeaveGroupResponseMember()
			out.MemberID, out.InstanceID, out.ErrorCode = member.MemberID, member.InstanceID, int16(codes[i])
			resp.Members = append(resp.Members, out)
		}
	}
}

func failLeaveGroup(_ *kmsg.LeaveGroupRequest, resp *kmsg.LeaveGroupResponse, _ int, code kafka.ErrorCode, _ string) {
	resp.ErrorCode, resp.Members = int16(code), nil
}

func consumerGroupHeartbeatNames(req *kmsg.ConsumerGroupHeartbeatRequest) int {
	count := len(req.SubscribedTopicNames)
	for i := range req.Topics {
		count += 1 + len(req.Topics[i].Partitions)
	}
	return count
}

func (c *control) consumerGroupHeartbeat(task *task, req *kmsg.ConsumerGroupHeartbeatRequest, resp *kmsg.ConsumerGroupHeartbeatResponse) {
	ticket := c.await(task, func(reply any) { consumerAnswered(resp, reply.(*groups.ConsumerReply)) })
	beat := &groups.ConsumerRequest{
		Group: req.Group, MemberID: req.MemberID, Epoch: req.MemberEpoch, InstanceID: req.InstanceID, RackID: req.RackID, RebalanceTimeoutMS: req.RebalanceTimeoutMillis,
		Topics: req.SubscribedTopicNames, Regex: req.SubscribedTopicRegex, Assignor: req.ServerAssignor, ClientID: task.clientID, ClientHost: task.clientHost(), BringsID: req.Version >= 1,
	}
	if req.MemberID == "" {
		beat.NewID = c.newMemberID()
	}
	if req.Topics != nil {
		beat.Owned = []cluster.TopicPartitions{}
	}
	for _, topic := range req.Topics {
		beat.Owned = append(beat.Owned, cluster.TopicPartitions{Topic: topic.TopicID, Partitions: topic.Partitions})
	}
	c.groups.live.ConsumerHeartbeat(c.groupTime(), ticket, beat)
}

func consumerAnswered(resp *kmsg.ConsumerGroupHeartbeatResponse, reply *groups.ConsumerReply) {
	resp.ErrorCode, resp.ErrorMessage, resp.MemberID = int16(reply.Code), nullable(reply.Why), nullable(reply.MemberID)
	resp.MemberEpoch, resp.HeartbeatIntervalMillis = reply.Epoch, reply.IntervalMS
	if !reply.Assigns {
		return
	}
	resp.Assignment = &kmsg.ConsumerGroupHeartbeatResponseAssignment{}
	for _, assigned := range reply.Assignment {
		topic := kmsg.NewConsumerGroupHeartbeatResponseAssignmentTopic()
		topic.TopicID, topic.Partitions = assigned.Topic, assigned.Partitions
		resp.Assignment.Topics = append(resp.Assignment.Topics, topic)
	}
}

func failConsumerGroupHeartbeat(_ *kmsg.ConsumerGroupHeartbeatRequest, resp *kmsg.ConsumerGroupHeartbeatResponse, _ int, code kafka.ErrorCode, message string) {
	resp.ErrorCode, resp.ErrorMessage = int16(code), nullable(message)
}
