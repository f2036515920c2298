package control

import (
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/cluster/groups"
	"github.com/tailbound/tailbound/kafka"
)

// Groups: listed, described and deleted.
//
// ListGroups (16): 4 has states, 5 the protocol's type (KIP-848).
//
// DescribeGroups (15): 3 says what the client may do (KIP-430), 4 has static members, 6
// answers GROUP_ID_NOT_FOUND with a message, where earlier versions describe a group that
// is dead (KIP-1043).
//
// ConsumerGroupDescribe (69): 1 says which protocol a member speaks (KIP-1099).
//
// DeleteGroups (42): 2 is flexible, 3 has a message with an error (KIP-1331).

// What may be done to a group, a topic and the cluster, as bits: as nothing is authorized
// here, all that there is. Source: org.apache.kafka.common.acl.AclOperation (3 read, 4 write,
// 5 create, 6 delete, 7 alter, 8 describe, 9 cluster action, 10 describe and 11 alter
// configurations, 12 idempotent write), and AclEntry.supportedOperations of
// org.apache.kafka.security.authorizer.
const (
	groupOperations   = 1<<3 | 1<<6 | 1<<8 | 1<<10 | 1<<11
	topicOperations   = 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<10 | 1<<11
	clusterOperations = 1<<5 | 1<<7 | 1<<8 | 1<<9 | 1<<10 | 1<<11 | 1<<12
)

func listGroupsNames(req *kmsg.ListGroupsRequest) int {
	return len(req.StatesFilter) + len(req.TypesFilter)
}

// listGroups lists the groups at the coordinator, and none at other nodes: clients ask
// every node for its groups and put the answers together.
func (c *control) listGroups(task *task, req *kmsg.ListGroupsRequest, resp *kmsg.ListGroupsResponse) {
	if !c.coordinates(task.from) {
		return
	}
	among := func(filter []string, word string) bool {
		return len(filter) == 0 || slices.ContainsFunc(filter, func(allowed string) bool { return strings.EqualFold(strings.TrimSpace(allowed), word) })
	}
	for _, group := range c.groups.live.List() {
		if !among(req.StatesFilter, group.State.String()) || !among(req.TypesFilter, group.Kind) {
			continue
		}
		out := kmsg.NewListGroupsResponseGroup()
		out.Group, out.ProtocolType, out.GroupState, out.GroupType = group.ID, group.ProtocolType, group.State.String(), group.Kind
		resp.Groups = append(resp.Groups, out)
	}
}

func describeGroupsNames(req *kmsg.DescribeGroupsRequest) int { return len(req.Groups) }

func (c *control) describeGroups(_ *task, req *kmsg.DescribeGroupsRequest, resp *kmsg.DescribeGroupsResponse) {
	size := 0
	for _, id := range req.Groups {
		out := kmsg.NewDescribeGroupsResponseGroup()
		group, ok := c.groups.live.Describe(id)
		out.Group, out.State, out.ProtocolType, out.Protocol = id, group.State.String(), group.ProtocolType, group.Protocol
		if !ok && req.Version >= 6 {
			message := "Group " + id + " not found."
			if group.Kind == groups.KindConsumer {
				message = "Group " + id + " is not a classic group."
			}
			out.ErrorCode, out.ErrorMessage = int16(kafka.GroupIDNotFound), &message
		}
		if req.IncludeAuthorizedOperations && out.ErrorCode == 0 {
			out.AuthorizedOperations = groupOperations
		}
		for _, member := range group.Members {
			described := kmsg.NewDescribeGroupsResponseGroupMember()
			described.MemberID, described.InstanceID, described.ClientID, described.ClientHost, described.ProtocolMetadata, described.MemberAssignment = member.ID, nullable(member.InstanceID), member.ClientID, member.ClientHost, member.Subscription, member.Assignment
			size += 64 + len(member.ID) + len(member.InstanceID) + len(member.ClientID) + len(member.ClientHost) + len(member.Subscription) + len(member.Assignment)
			out.Members = append(out.Members, described)
		}
		if size += 64 + len(id); size > groupAnswerBytes {
			out.Members, out.ErrorCode, out.ErrorMessage = nil, int16(kafka.MessageTooLarge), nullable("Group "+id+" has more members than fit the answer.")
		}
		resp.Groups = append(resp.Groups, out)
	}
}

func failDescribeGroups(req *kmsg.DescribeGroupsRequest, resp *kmsg.DescribeGroupsResponse, _ int, code kafka.ErrorCode, message string) {
	resp.Groups = nil
	for _, id := range req.Groups {
		out := kmsg.NewDescribeGroupsResponseGroup()
		out.Group, out.ErrorCode, out.ErrorMessage = id, int16(code), nullable(message)
		resp.Groups = append(resp.Groups, out)
	}
}

// What a member of a group of the consumer protocol speaks.
// Source: Kafka's ConsumerGroupDescribeResponse.json, MemberType.
const (
	memberClassic = 0
	memberModern  = 1
)

func consumerGroupDescribeNames(req *kmsg.ConsumerGroupDescribeRequest) int { return len(req.Groups) }

func (c *control) consumerGroupDescribe(_ *task, req *kmsg.ConsumerGroupDescribeRequest, resp *kmsg.ConsumerGroupDescribeResponse) {
	size := 0
	assignment := func(all []cluster.TopicPartitions) (out kmsg.Assignment) {
		for _, assigned := range all {
			topic, ok := c.state.TopicByID(assigned.Topic)
			if !ok {
				continue // deleted, and its consumer has not revoked it yet
			}
			part := kmsg.NewAssignmentTopicPartition()
			part.TopicID, part.Topic, part.Partitions = assigned.Topic, topic.Name, assigned.Partitions
			size += 32 + len(topic.Name) + 4*len(assigned.Partitions)
			out.TopicPartitions = append(out.TopicPartitions, part)
		}
		return out
	}
	for _, id := range req.Groups {
		out := kmsg.NewConsumerGroupDescribeResponseGroup()
		out.Group = id
		group, ok := c.groups.live.DescribeConsumer(id)
		switch {
		case id == "":
			out.ErrorCode, out.ErrorMessage = int16(kafka.InvalidGroupID), nullable("The group id is empty.")
		case !ok:
			message := "Group " + id + " is not a consumer group."
			out.ErrorCode, out.ErrorMessage = int16(kafka.GroupIDNotFound), &message
		default:
			out.State, out.Epoch, out.AssignmentEpoch, out.AssignorName = group.State.String(), group.Epoch, group.AssignmentEpoch, group.Assignor
			if req.IncludeAuthorizedOperations {
				out.AuthorizedOperations = groupOperations
			}
		}
		for i := range group.Members {
			member := &group.Members[i]
			described := kmsg.NewConsumerGroupDescribeResponseGroupMember()
			described.MemberID, described.InstanceID, described.RackID, described.MemberEpoch, described.ClientID, described.ClientHost = member.ID, nullable(member.InstanceID), nullable(member.RackID), member.Epoch, member.ClientID, member.ClientHost
			described.SubscribedTopics, described.SubscribedTopicRegex, described.MemberType = member.Topics, nullable(member.Regex), memberModern
			if member.Classic != nil {
				described.MemberType = memberClassic
			}
			described.Assignment, described.TargetAssignment = assignment(member.Assigned), assignment(member.Target)
			size += 128 + len(member.ID) + len(member.InstanceID) + len(member.RackID) + len(member.ClientID) + len(member.Regex)
			for _, topic := range member.Topics {
				size += 4 + len(topic)
			}
			out.Members = append(out.Members, described)
		}
		if size += 64 + len(id); size > groupAnswerBytes {
			out.Members, out.ErrorCode, out.ErrorMessage = nil, int16(kafka.MessageTooLarge), nullable("Group "+id+" has more members than fit the answer.")
		}
		resp.Groups = append(resp.Groups, out)
	}
}

func failConsumerGroupDescribe(req *kmsg.ConsumerGroupDescribeRequest, resp *kmsg.ConsumerGroupDescribeResponse, _ int, code kafka.ErrorCode, message string) {
	resp.Groups = nil
	for _, id := range req.Groups {
		out := kmsg.NewConsumerGroupDescribeResponseGroup()
		out.Group, out.ErrorCode, out.ErrorMessage = id, int16(code), nullable(message)
		resp.Groups = append(resp.Groups, out)
	}
}

func deleteGroupsNames(req *kmsg.DeleteGroupsRequest) int { return len(req.Groups) }

func (c *control) deleteGroups(task *task, req *kmsg.DeleteGroupsRequest, resp *kmsg.DeleteGroupsResponse) {
	codes := c.groups.live.Delete(c.groupTime(), c.await(task, nil), req.Groups)
	for i, id := range req.Groups {
		out := kmsg.NewDeleteGroupsResponseGroup()
		out.Group, out.ErrorCode, out.ErrorMessage = id, int16(codes[i]), notDeleted(codes[i], id)
		resp.Groups = append(resp.Groups, out)
	}
}

func failDeleteGroups(req *kmsg.DeleteGroupsRequest, resp *kmsg.DeleteGroupsResponse, _ int, code kafka.ErrorCode, _ string) {
	if len(resp.Groups) == 0 {
		for _, id := range req.Groups {
			out := kmsg.NewDeleteGroupsResponseGroup()
			out.Group = id
			resp.Groups = append(resp.Groups, out)
		}
	}
	for i := range resp.Groups {
		if out := &resp.Groups[i]; out.ErrorCode == 0 {
			out.ErrorCode, out.ErrorMessage = int16(code), notDeleted(code, out.Group)
		}
	}
}

// notDeleted says why a group is not deleted; nil where its code says all.
func notDeleted(code kafka.ErrorCode, id string) *string {
	switch code {
	case kafka.GroupIDNotFound:
		return nullable("Group " + id + " not found.")
	case kafka.NonEmptyGroup:
		return nullable("Group " + id + " has members.")
	}
	return nil
}
