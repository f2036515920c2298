package control

import (
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/kafka"
)

// Produce (0), Fetch (1), ListOffsets (2) and OffsetForLeaderEpoch (23), where the
// control shard's own node is asked. It leads no partition, and says so of those that
// exist. Room kafka has the versions: Produce and Fetch name topics by id from 13 on
// (KIP-516).

// notLeader returns the error for a partition that is named by its topic's name.
func (c *control) notLeader(topic string, partition int32) int16 {
	if found, ok := c.state.Topic(topic); ok && partition >= 0 && int(partition) < len(found.Partitions) {
		return int16(kafka.NotLeaderOrFollower)
	}
	return int16(kafka.UnknownTopicOrPartition)
}

// notLeaderByID returns the error for a partition that is named by its topic's id.
func (c *control) notLeaderByID(id [16]byte, partition int32) int16 {
	if found, ok := c.state.TopicByID(id); ok {
		return c.notLeader(found.Name, partition)
	}
	return int16(kafka.UnknownTopicID)
}

// notLed says why this node does not serve a partition. It is said in the words of data
// shards. name is "" for an unknown id.
func notLed(name string, partition int32, code kafka.ErrorCode) string {
	if name = strings.ToValidUTF8(name, "?"); name == "" || len(name) > cluster.TopicNameBytesMax {
		name = "partition "
	} else {
		name += "/"
	}
	why := "this broker has no such topic or partition"
	switch code {
	case kafka.NotLeaderOrFollower:
		why = "another node leads it; Metadata says which"
	case kafka.UnknownTopicID:
		why = "this broker has no topic of that id"
	}
	return name + strconv.Itoa(int(partition)) + ": " + why
}

// refuseProduce refuses every partition. A request with acks=0 has no answer that could
// carry an error, so its connection is closed, as Kafka does.
func (c *control) refuseProduce(task *task, req *kmsg.ProduceRequest, resp *kmsg.ProduceResponse) {
	for i := range req.Topics {
		asked := &req.Topics[i]
		out := kmsg.NewProduceResponseTopic()
		out.Topic, out.TopicID = asked.Topic, asked.TopicID
		for _, partition := range asked.Partitions {
			part := kmsg.NewProduceResponseTopicPartition()
			part.Partition, part.ErrorCode, part.BaseOffset, part.LogStartOffset = partition.Partition, c.notLeader(asked.Topic, partition.Partition), -1, -1
			name := asked.Topic
			if req.Version >= kafka.ProduceByID {
				part.ErrorCode = c.notLeaderByID(asked.TopicID, partition.Partition)
				if found, ok := c.state.TopicByID(asked.TopicID); ok {
					name = found.Name
				}
			}
			part.ErrorMessage = nullable(notLed(name, partition.Partition, kafka.ErrorCode(part.ErrorCode)))
			out.Partitions = append(out.Partitions, part)
		}
		resp.Topics = append(resp.Topics, out)
	}
	if req.Acks == 0 {
		task.resp = nil
	}
}

func (c *control) refuseFetch(_ *task, req *kmsg.FetchRequest, resp *kmsg.FetchResponse) {
	for i := range req.Topics {
		asked := &req.Topics[i]
		out := kmsg.NewFetchResponseTopic()
		out.Topic, out.TopicID = asked.Topic, asked.TopicID
		for k := range asked.Partitions {
			index := asked.Partitions[k].Partition
			part := kmsg.NewFetchResponseTopicPartition()
			part.Partition, part.ErrorCode, part.HighWatermark, part.LastStableOffset, part.LogStartOffset = index, c.notLeader(asked.Topic, index), -1, -1, -1
			if req.Version >= kafka.FetchByID {
				part.ErrorCode = c.notLeaderByID(asked.TopicID, index)
			}
			out.Partitions = append(out.Partitions, part)
		}
		resp.Topics = append(resp.Topics, out)
	}
}

func (c *control) refuseListOffsets(_ *task, req *kmsg.ListOffsetsRequest, resp *kmsg.ListOffsetsResponse) {
	type partition struct {
		topic string
		index int32
	}
	asked := map[partition]int{}
	for _, topic := range req.Topics {
		for _, wanted := range topic.Partitions {
			asked[partition{topic.Topic, wanted.Partition}]++
		}
	}
	for _, topic := range req.Topics {
		out := kmsg.NewListOffsetsResponseTopic()
		out.Topic = topic.Topic
		for _, wanted := range topic.Partitions {
			part := kmsg.NewListOffsetsResponseTopicPartition()
			part.Partition, part.ErrorCode, part.Timestamp, part.Offset = wanted.Partition, c.notLeader(topic.Topic, wanted.Partition), -1, -1
			if asked[partition{topic.Topic, wanted.Partition}] > 1 {
				part.ErrorCode = int16(kafka.InvalidRequest)
			}
			out.Partitions = append(out.Partitions, part)
		}
		resp.Topics = append(resp.Topics, out)
	}
}

func (c *control) refuseEpochs(_ *task, req *kmsg.OffsetForLeaderEpochRequest, resp *kmsg.OffsetForLeaderEpochResponse) {
	for _, topic := range req.Topics {
		out := kmsg.NewOffsetForLeaderEpochResponseTopic()
		out.Topic = topic.Topic
		for _, partition := range topic.Partitions {
			part := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
			part.Partition, part.ErrorCode, part.EndOffset, part.LeaderEpoch = partition.Partition, c.notLeader(topic.Topic, partition.Partition), -1, -1
			out.Partitions = append(out.Partitions, part)
		}
		resp.Topics = append(resp.Topics, out)
	}
}
