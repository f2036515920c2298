package control

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/cluster/groups"
	"github.com/tailbound/tailbound/kafka"
)

// Offsets of groups: committed, fetched and deleted. A topic that does not exist has none.
//
// OffsetCommit (8): 2 to 4 say how long an offset is kept (5 and later leave that to the
// broker, KIP-211), 6 has leader epochs (KIP-320), 7 static members (KIP-345), 9 an epoch
// of the consumer protocol, 10 names topics by id alone (KIP-848).
//
// OffsetFetch (9): in 1 only partitions have an error, 2 may ask for all partitions, 8
// for several groups (KIP-709), 9 with a member's epoch, 10 names topics by id alone
// (KIP-848).
//
// OffsetDelete (47): KIP-496.

func offsetCommitNames(req *kmsg.OffsetCommitRequest) (count int) {
	for i := range req.Topics {
		count += 1 + len(req.Topics[i].Partitions)
	}
	return count
}

// offsetCommit refuses what cannot be stored, and has the rest stored.
func (c *control) offsetCommit(task *task, req *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse) {
	wall := int64(c.shard.Wall())
	expires := int64(-1)
	if req.Version <= 4 && req.RetentionTimeMillis >= 0 {
		expires = wall + req.RetentionTimeMillis
	}
	var topics []cluster.GroupTopic
	known := false // at least one partition of the request exists
	for i := range req.Topics {
		asked := &req.Topics[i]
		topic, ok := c.topicNamed(req.Version >= 10, asked.Topic, asked.TopicID)
		out := kmsg.NewOffsetCommitResponseTopic()
		out.Topic, out.TopicID = asked.Topic, asked.TopicID
		offsets := cluster.GroupTopic{}
		if ok {
			offsets.Name = topic.Name
		}
		for _, partition := range asked.Partitions {
			part := kmsg.NewOffsetCommitResponseTopicPartition()
			part.Partition = partition.Partition
			switch {
			case !ok && req.Version >= 10:
				part.ErrorCode = int16(kafka.UnknownTopicID)
			case !ok || partition.Partition < 0 || int(partition.Partition) >= len(topic.Partitions):
				part.ErrorCode = int16(kafka.UnknownTopicOrPartition)
			case len(stringOf(partition.Metadata)) > c.o.Groups.OffsetMetadataBytesMax:
				known = true
				part.ErrorCode = int16(kafka.OffsetMetadataTooLarge)
			default:
				known = true
				offsets.Offsets = append(offsets.Offsets, cluster.Offset{
					Partition: partition.Partition, Offset: partition.Offset, LeaderEpoch: partition.LeaderEpoch, Metadata: stringOf(partition.Metadata), CommittedMS: wall, ExpiresMS: expires,
				})
			}
			out.Partitions = append(out.Partitions, part)
		}
		if len(offsets.Offsets) > 0 {
			topics = append(topics, offsets)
		}
		resp.Topics = append(resp.Topics, out)
	}
	if !known {
		return
	}
	commit := &groups.CommitRequest{Group: req.Group, MemberID: req.MemberID, InstanceID: stringOf(req.InstanceID), Generation: req.Generation, KnowsGroupIDNotFound: req.Version >= 9}
	if code := c.groups.live.Commit(c.groupTime(), c.await(task, nil), commit, topics); code != kafka.None {
		c.withdraw(task)
		for i := range resp.Topics {
			for k := range resp.Topics[i].Partitions {
				if part := &resp.Topics[i].Partitions[k]; part.ErrorCode != int16(kafka.UnknownTopicOrPartition) && part.ErrorCode != int16(kafka.UnknownTopicID) {
					part.ErrorCode = int16(code)
				}
			}
		}
	}
}

// topicNamed returns the topic that a request names by its id, or by its name.
func (c *control) topicNamed(byID bool, name string, id [16]byte) (*cluster.Topic, bool) {
	if byID {
		return c.state.TopicByID(id)
	}
	return c.state.Topic(name)
}

func failOffsetCommit(req *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, _ int, code kafka.ErrorCode, _ string) {
	if len(resp.Topics) == 0 {
		for _, topic := range req.Topics {
			out := kmsg.NewOffsetCommitResponseTopic()
			out.Topic, out.TopicID = topic.Topic, topic.TopicID
			for _, partition := range topic.Partitions {
				part := kmsg.NewOffsetCommitResponseTopicPartition()
				part.Partition = partition.Partition
				out.Partitions = append(out.Partitions, part)
			}
			resp.Topics = append(resp.Topics, out)
		}
	}
	for i := range resp.Topics {
		for k := range resp.Topics[i].Partitions {
			if part := &resp.Topics[i].Partitions[k]; part.ErrorCode == 0 {
				part.ErrorCode = int16(code)
			}
		}
	}
}

func offsetFetchNames(req *kmsg.OffsetFetchRequest) (count int) {
	for i := range req.Topics {
		count += 1 + len(req.Topics[i].Partitions)
	}
	for i := range req.Groups {
		count++
		for k := range req.Groups[i].Topics {
			count += 1 + len(req.Groups[i].Topics[k].Partitions)
		}
	}
	return count
}

// offsetFetch answers from what is durable. Commits that arrived before it on the same
// connection are waited for, so a client reads its own commits.
func (c *control) offsetFetch(task *task, req *kmsg.OffsetFetchRequest, resp *kmsg.OffsetFetchResponse) {
	if !c.groups.live.Waiting() {
		c.fetchOffsets(req, resp)
		return
	}
	c.groups.live.Settle(c.await(task, func(any) { c.fetchOffsets(req, resp) }))
}

func (c *control) fetchOffsets(req *kmsg.OffsetFetchRequest, resp *kmsg.OffsetFetchResponse) {
	size := 0
	if req.Version >= 8 {
		for i := range req.Groups {
			resp.Groups = append(resp.Groups, c.fetchGroup(&req.Groups[i], req.Version >= 10, &size))
		}
		return
	}
	asked := kmsg.OffsetFetchRequestGroup{Group: req.Group, MemberEpoch: -1}
	if req.Topics != nil {
		asked.Topics = []kmsg.OffsetFetchRequestGroupTopic{}
	}
	for i := range req.Topics {
		asked.Topics = append(asked.Topics, kmsg.OffsetFetchRequestGroupTopic{Topic: req.Topics[i].Topic, Partitions: req.Topics[i].Partitions})
	}
	group := c.fetchGroup(&asked, false, &size)
	if group.ErrorCode != 0 {
		failOffsetFetch(req, resp, wholeRequest, kafka.ErrorCode(group.ErrorCode), "")
		return
	}
	for _, topic := range group.Topics {
		out := kmsg.NewOffsetFetchResponseTopic()
		out.Topic = topic.Topic
		for _, fetched := range topic.Partitions {
			out.Partitions = append(out.Partitions, kmsg.OffsetFetchResponseTopicPartition{Partition: fetched.Partition, Offset: fetched.Offset, LeaderEpoch: fetched.LeaderEpoch, Metadata: fetched.Metadata, ErrorCode: fetched.ErrorCode})
		}
		resp.Topics = append(resp.Topics, out)
	}
}

// fetchGroup answers for one group. Where asked.Topics is nil it answers with all topics the
// group has offsets of. byID: topics are named by their ids. size is an estimate of the whole
// response's bytes, which it adds to.
func (c *control) fetchGroup(asked *kmsg.OffsetFetchRequestGroup, byID bool, size *int) kmsg.OffsetFetchResponseGroup {
	out := kmsg.NewOffsetFetchResponseGroup()
	out.Group = asked.Group
	if out.ErrorCode = int16(c.groups.live.ValidateFetch(asked.Group, asked.MemberID, asked.MemberEpoch)); out.ErrorCode != 0 {
		return out
	}
	group, ok := c.state.Group(asked.Group)
	if !ok {
		group = &cluster.Group{}
	}
	add := func(name string, id [16]byte, code kafka.ErrorCode, offsets func(yield func(int32, *cluster.Offset) bool)) {
		topic := kmsg.NewOffsetFetchResponseGroupTopic()
		topic.Topic, topic.TopicID = name, id
		*size += 32 + len(name)
		for index, offset := range offsets {
			part := kmsg.NewOffsetFetchResponseGroupTopicPartition()
			part.Partition, part.Offset, part.LeaderEpoch, part.ErrorCode = index, -1, -1, int16(code)
			metadata := ""
			if offset != nil {
				part.Offset, part.LeaderEpoch, metadata = offset.Offset, offset.LeaderEpoch, offset.Metadata
			}
			part.Metadata = &metadata
			*size += 24 + len(metadata)
			topic.Partitions = append(topic.Partitions, part)
		}
		out.Topics = append(out.Topics, topic)
	}
	if asked.Topics == nil {
		for i := range group.Topics {
			topic, ok := c.state.Topic(group.Topics[i].Name)
			if !ok {
				continue // it is being deleted, and its offsets with it
			}
			add(topic.Name, topic.ID, kafka.None, func(yield func(int32, *cluster.Offset) bool) {
				for k := range group.Topics[i].Offsets {
					if offset := &group.Topics[i].Offsets[k]; !yield(offset.Partition, offset) {
						return
					}
				}
			})
		}
	}
	for _, topic := range asked.Topics {
		name, code := topic.Topic, kafka.None
		if byID {
			if named, ok := c.state.TopicByID(topic.TopicID); ok {
				name = named.Name
			} else {
				name, code = "", kafka.UnknownTopicID
			}
		}
		add(name, topic.TopicID, code, func(yield func(int32, *cluster.Offset) bool) {
			for _, index := range topic.Partitions {
				offset, _ := group.Offset(name, index)
				if !yield(index, offset) {
					return
				}
			}
		})
	}
	if *size > groupAnswerBytes {
		out.Topics, out.ErrorCode = nil, int16(kafka.MessageTooLarge)
	}
	return out
}

// failOffsetFetch writes an error for the whole request: version 1 has a place for it
// with each partition only, version 8 and later with each group.
func failOffsetFetch(req *kmsg.OffsetFetchRequest, resp *kmsg.OffsetFetchResponse, _ int, code kafka.ErrorCode, _ string) {
	resp.ErrorCode = int16(code)
	for i := range req.Groups {
		out := kmsg.NewOffsetFetchResponseGroup()
		out.Group, out.ErrorCode = req.Groups[i].Group, int16(code)
		resp.Groups = append(resp.Groups, out)
	}
	if req.Version >= 2 {
		return
	}
	for i := range req.Topics {
		out := kmsg.NewOffsetFetchResponseTopic()
		out.Topic = req.Topics[i].Topic
		for _, index := range req.Topics[i].Partitions {
			part := kmsg.NewOffsetFetchResponseTopicPartition()
			part.Partition, part.Offset, part.Metadata, part.ErrorCode = index, -1, kmsg.StringPtr(""), int16(code) // Kafka's clients refuse null
			out.Partitions = append(out.Partitions, part)
		}
		resp.Topics = append(resp.Topics, out)
	}
}

func offsetDeleteNames(req *kmsg.OffsetDeleteRequest) (count int) {
	for i := range req.Topics {
		count += 1 + len(req.Topics[i].Partitions)
	}
	return count
}

func (c *control) offsetDelete(task *task, req *kmsg.OffsetDeleteRequest, resp *kmsg.OffsetDeleteResponse) {
	var topics []cluster.GroupPartitions
	for i := range req.Topics {
		asked := &req.Topics[i]
		topic, ok := c.state.Topic(asked.Topic)
		out := kmsg.NewOffsetDeleteResponseTopic()
		out.Topic = asked.Topic
		gone := cluster.GroupPartitions{Topic: asked.Topic}
		for _, partition := range asked.Partitions {
			part := kmsg.NewOffsetDeleteResponseTopicPartition()
			part.Partition = partition.Partition
			if !ok || partition.Partition < 0 || int(partition.Partition) >= len(topic.Partitions) {
				part.ErrorCode = int16(kafka.UnknownTopicOrPartition)
			} else {
				gone.Partitions = append(gone.Partitions, partition.Partition)
			}
			out.Partitions = append(out.Partitions, part)
		}
		resp.Topics = append(resp.Topics, out)
		topics = append(topics, gone)
	}
	subscribed, code := c.groups.live.DeleteOffsets(c.groupTime(), c.await(task, nil), req.Group, topics)
	if code != kafka.None {
		c.withdraw(task)
		task.fail(wholeRequest, code, "")
		return
	}
	for i := range resp.Topics {
		if !slices.Contains(subscribed, resp.Topics[i].Topic) {
			continue
		}
		for k := range resp.Topics[i].Partitions {
			if part := &resp.Topics[i].Partitions[k]; part.ErrorCode == 0 {
				part.ErrorCode = int16(kafka.GroupSubscribedToTopic)
			}
		}
	}
}

func failOffsetDelete(_ *kmsg.OffsetDeleteRequest, resp *kmsg.OffsetDeleteResponse, _ int, code kafka.ErrorCode, _ string) {
	resp.ErrorCode, resp.Topics = int16(code), nil
}
