package control

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/shard"
)

// Requests about partitions. As in Kafka, a client sends them to the partition's leader. The
// data shard that leads it forwards them to the control shard, which asks that data shard
// back what only it knows.
//
// DeleteRecords (21): 2 is flexible.
//
// DescribeLogDirs (35): 3 has an error for the whole request, 4 sizes of the directory
// (KIP-827), 5 says whether a directory is cordoned (KIP-1066): the only one never is.
//
// DescribeProducers (61): KIP-664. There are no transactions to describe.
//
// ElectLeaders (43): 1 says which kind of election (KIP-460), 2 is flexible.
//
// ListPartitionReassignments (46): KIP-455.

func deleteRecordsNames(req *kmsg.DeleteRecordsRequest) (count int) {
	for i := range req.Topics {
		count += 1 + len(req.Topics[i].Partitions)
	}
	return count
}

// deleteRecords has the data shard that was asked move the start of each partition's log. A
// partition that another node leads is answered with NOT_LEADER_OR_FOLLOWER.
func (c *control) deleteRecords(task *task, req *kmsg.DeleteRecordsRequest, resp *kmsg.DeleteRecordsResponse) {
	for i := range req.Topics {
		asked := &req.Topics[i]
		out := kmsg.NewDeleteRecordsResponseTopic()
		out.Topic, out.Partitions = asked.Topic, make([]kmsg.DeleteRecordsResponseTopicPartition, len(asked.Partitions))
		resp.Topics = append(resp.Topics, out)
		for k, partition := range asked.Partitions {
			part := &out.Partitions[k]
			part.Partition, part.LowWatermark = partition.Partition, -1
			logID, code := c.ledBy(task.from.Shard, asked.Topic, partition.Partition)
			switch {
			case code != kafka.None:
				part.ErrorCode = int16(code)
			case partition.Offset < -1:
				part.ErrorCode = int16(kafka.OffsetOutOfRange)
			default:
				c.ask(task.from.Shard, shard.Mail{Kind: shard.MailTruncate, A: logID, B: uint64(partition.Offset)}, nil, question{task: task, onAnswer: func(mail shard.Mail) {
					if part.ErrorCode = mail.Code; mail.Code == 0 {
						part.LowWatermark = int64(mail.A)
					}
				}})
			}
		}
	}
}

// ledBy returns the log of a partition if node leads it, and otherwise the error.
func (c *control) ledBy(node int, topic string, partition int32) (logID uint64, code kafka.ErrorCode) {
	found, ok := c.state.Topic(topic)
	if !ok || partition < 0 || int(partition) >= len(found.Partitions) {
		return 0, kafka.UnknownTopicOrPartition
	}
	logID = found.Partitions[partition].LogID
	if format.Place(logID, c.o.DataShards) != node {
		return 0, kafka.NotLeaderOrFollower
	}
	return logID, kafka.None
}

// describeLogDirs has the data shard that was asked report the sizes of its logs, page by
// page. The control shard's own node has no logs that clients know of.
func (c *control) describeLogDirs(task *task, req *kmsg.DescribeLogDirsRequest, resp *kmsg.DescribeLogDirsResponse) {
	dir := kmsg.NewDescribeLogDirsResponseDir()
	dir.Dir, dir.TotalBytes, dir.UsableBytes = c.o.DataDir, -1, -1 // a shard does not know them
	resp.Dirs = append(resp.Dirs, dir)
	if task.from.Shard == 0 {
		return
	}
	topics := map[[16]byte]int{} // topic id -> its index in the response
	var page func(mail shard.Mail)
	ask := func(from uint64) {
		c.ask(task.from.Shard, shard.Mail{Kind: shard.MailSizes, B: from}, nil, question{task: task, onAnswer: page})
	}
	page = func(mail shard.Mail) {
		if c.logSizes(mail, req, &resp.Dirs[0], topics); mail.Code == 0 && mail.B != 0 {
			ask(mail.B)
		}
	}
	ask(0)
}

// logSizes adds a page of sizes to the response: those of the partitions that were asked for.
func (c *control) logSizes(mail shard.Mail, req *kmsg.DescribeLogDirsRequest, dir *kmsg.DescribeLogDirsResponseDir, topics map[[16]byte]int) {
	if mail.Code != 0 {
		dir.ErrorCode = mail.Code
		return
	}
	entries := mail.Block.Bytes()
	for range mail.A {
		topic, ok := c.state.TopicByID([16]byte(entries))
		part := kmsg.NewDescribeLogDirsResponseDirTopicPartition()
		part.Partition, part.Size = int32(binary.LittleEndian.Uint64(entries[16:])), int64(binary.LittleEndian.Uint64(entries[24:]))
		entries = entries[shard.SizeMailBytes:]
		if !ok || req.Topics != nil && !slices.ContainsFunc(req.Topics, func(asked kmsg.DescribeLogDirsRequestTopic) bool {
			return asked.Topic == topic.Name && slices.Contains(asked.Partitions, part.Partition)
		}) {
			continue
		}
		i, ok := topics[topic.ID]
		if !ok {
			out := kmsg.NewDescribeLogDirsResponseDirTopic()
			out.Topic = topic.Name
			i, dir.Topics = len(dir.Topics), append(dir.Topics, out)
			topics[topic.ID] = i
		}
		dir.Topics[i].Partitions = append(dir.Topics[i].Partitions, part)
	}
}

func describeProducersNames(req *kmsg.DescribeProducersRequest) (count int) {
	for i := range req.Topics {
		count += 1 + len(req.Topics[i].Partitions)
	}
	return count
}

// describeProducers has the data shard that was asked, which must lead the partitions,
// report the idempotent producers it remembers of each.
func (c *control) describeProducers(task *task, req *kmsg.DescribeProducersRequest, resp *kmsg.DescribeProducersResponse) {
	described := map[uint64]bool{}
	for i := range req.Topics {
		asked := &req.Topics[i]
		out := kmsg.NewDescribeProducersResponseTopic()
		out.Topic, out.Partitions = asked.Topic, make([]kmsg.DescribeProducersResponseTopicPartition, len(asked.Partitions))
		resp.Topics = append(resp.Topics, out)
		for k, index := range asked.Partitions {
			part := &out.Partitions[k]
			part.Partition = index
			logID, code := c.ledBy(task.from.Shard, asked.Topic, index)
			message := notLed(asked.Topic, index, code)
			if code == kafka.None && described[logID] {
				code, message = kafka.InvalidRequest, "Each partition must appear at most once." // which bounds the answer
			}
			if code != kafka.None {
				part.ErrorCode, part.ErrorMessage = int16(code), &message
				continue
			}
			described[logID] = true
			c.ask(task.from.Shard, shard.Mail{Kind: shard.MailProducers, A: logID}, nil, question{task: task, onAnswer: func(mail shard.Mail) { activeProducers(mail, part) }})
		}
	}
}

// activeProducers adds the producers of one partition to the response, sorted by id.
func activeProducers(mail shard.Mail, part *kmsg.DescribeProducersResponseTopicPartition) {
	if mail.Code != 0 {
		part.ErrorCode = mail.Code
		return
	}
	b := mail.Block.Bytes()
	for range mail.A {
		out := kmsg.NewDescribeProducersResponseTopicPartitionActiveProducer()
		out.ProducerID, out.ProducerEpoch = int64(binary.LittleEndian.Uint64(b)), int32(binary.LittleEndian.Uint32(b[8:]))
		out.LastSequence = int32(binary.LittleEndian.Uint32(b[12:]))
		out.LastTimestamp = int64(binary.LittleEndian.Uint64(b[16:]))
		out.CoordinatorEpoch, out.CurrentTxnStartOffset = -1, -1 // no transactions
		part.ActiveProducers = append(part.ActiveProducers, out)
		b = b[shard.ProducerMailBytes:]
	}
	slices.SortFunc(part.ActiveProducers, func(a, b kmsg.DescribeProducersResponseTopicPartitionActiveProducer) int {
		return cmp.Compare(a.ProducerID, b.ProducerID)
	})
}

func electLeadersNames(req *kmsg.ElectLeadersRequest) (count int) {
	for i := range req.Topics {
		count += 1 + len(req.Topics[i].Partitions)
	}
	return count
}

// electLeaders elects nothing: the only replica of a partition leads already. As in Kafka,
// the answer to a request for all partitions has only those whose leader changed: none.
func (c *control) electLeaders(_ *task, req *kmsg.ElectLeadersRequest, resp *kmsg.ElectLeadersResponse) {
	for i := range req.Topics {
		asked := &req.Topics[i]
		out := kmsg.NewElectLeadersResponseTopic()
		out.Topic = asked.Topic
		for _, index := range asked.Partitions {
			part := kmsg.NewElectLeadersResponseTopicPartition()
			part.Partition = index
			code, message := kafka.ElectionNotNeeded, "Leader election not needed for topic partition."
			if topic, ok := c.state.Topic(asked.Topic); !ok || index < 0 || int(index) >= len(topic.Partitions) {
				code, message = kafka.UnknownTopicOrPartition, "This server does not host this topic-partition."
			}
			part.ErrorCode, part.ErrorMessage = int16(code), &message
			out.Partitions = append(out.Partitions, part)
		}
		resp.Topics = append(resp.Topics, out)
	}
	slices.SortFunc(resp.Topics, func(a, b kmsg.ElectLeadersResponseTopic) int { return strings.Compare(a.Topic, b.Topic) })
}

// listPartitionReassignments answers that none is under way: partitions do not move while
// the broker runs.
func (c *control) listPartitionReassignments(*task, *kmsg.ListPartitionReassignmentsRequest, *kmsg.ListPartitionReassignmentsResponse) {
}
