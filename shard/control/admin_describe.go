package control

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/shard"
)

// describeLogDirs asks the node that was asked what its logs take: a data
// shard, by mail, page by page. The control shard's node has none.
func (c *control) describeLogDirs(t *task, resp *kmsg.DescribeLogDirsResponse) {
	d := kmsg.NewDescribeLogDirsResponseDir()
	d.Dir, d.TotalBytes, d.UsableBytes = c.o.DataDir, -1, -1 // not known to a shard
	resp.Dirs = append(resp.Dirs, d)
	if t.from.Shard != 0 {
		c.ask(t.from.Shard, shard.Mail{Kind: shard.MailSizes}, nil, question{task: t})
	}
}

// sized takes a page of sizes, and asks for the next one.
func (c *control) sized(q question, m shard.Mail, resp *kmsg.DescribeLogDirsResponse) {
	d := &resp.Dirs[0]
	if m.Code != 0 {
		d.ErrorCode = m.Code
		return
	}
	wanted := q.task.req.(*kmsg.DescribeLogDirsRequest).Topics
	b := m.Block.Bytes()
	for range m.A {
		t, ok := c.state.TopicByID([16]byte(b))
		p := kmsg.NewDescribeLogDirsResponseDirTopicPartition()
		p.Partition, p.Size = int32(binary.LittleEndian.Uint64(b[16:])), int64(binary.LittleEndian.Uint64(b[24:]))
		b = b[shard.SizeMailBytes:]
		if !ok || wanted != nil && !slices.ContainsFunc(wanted, func(w kmsg.DescribeLogDirsRequestTopic) bool {
			return w.Topic == t.Name && slices.Contains(w.Partitions, p.Partition)
		}) {
			continue
		}
		i, ok := q.task.topics[t.ID]
		if !ok {
			x := kmsg.NewDescribeLogDirsResponseDirTopic()
			x.Topic = t.Name
			i, d.Topics = len(d.Topics), append(d.Topics, x)
			if q.task.topics == nil {
				q.task.topics = map[[16]byte]int{}
			}
			q.task.topics[t.ID] = i
		}
		d.Topics[i].Partitions = append(d.Topics[i].Partitions, p)
	}
	if m.B != 0 {
		c.ask(q.to, shard.Mail{Kind: shard.MailSizes, B: m.B}, nil, question{task: q.task})
	}
}

// describeProducers asks each partition's leader, which must be the node that
// was asked, for the idempotent producers it remembers.
func (c *control) describeProducers(t *task, r *kmsg.DescribeProducersRequest, resp *kmsg.DescribeProducersResponse) {
	asked := map[uint64]bool{}
	for i := range r.Topics {
		q := &r.Topics[i]
		x := kmsg.NewDescribeProducersResponseTopic()
		x.Topic, x.Partitions = q.Topic, make([]kmsg.DescribeProducersResponseTopicPartition, len(q.Partitions))
		resp.Topics = append(resp.Topics, x)
		for k, index := range q.Partitions {
			y := &x.Partitions[k]
			y.Partition = index
			logID, code := c.ledBy(t.from.Shard, q.Topic, index)
			if code == kafka.None && asked[logID] {
				code = kafka.InvalidRequest // once is enough, and bounds the answer
			}
			if code != kafka.None {
				y.ErrorCode = int16(code)
				continue
			}
			asked[logID] = true
			c.ask(t.from.Shard, shard.Mail{Kind: shard.MailProducers, A: logID}, nil, question{task: t, item: i, part: k})
		}
	}
}

func (c *control) produced(p *kmsg.DescribeProducersResponseTopicPartition, m shard.Mail) {
	if m.Code != 0 {
		p.ErrorCode = m.Code
		return
	}
	b := m.Block.Bytes()
	for range m.A {
		x := kmsg.NewDescribeProducersResponseTopicPartitionActiveProducer()
		x.ProducerID, x.ProducerEpoch = int64(binary.LittleEndian.Uint64(b)), int32(binary.LittleEndian.Uint32(b[8:]))
		x.LastSequence = int32(binary.LittleEndian.Uint32(b[12:]))
		x.LastTimestamp, x.CoordinatorEpoch, x.CurrentTxnStartOffset = -1, -1, -1 // not kept; no transactions
		p.ActiveProducers = append(p.ActiveProducers, x)
		b = b[shard.ProducerMailBytes:]
	}
	slices.SortFunc(p.ActiveProducers, func(a, b kmsg.DescribeProducersResponseTopicPartitionActiveProducer) int {
		return cmp.Compare(a.ProducerID, b.ProducerID)
	})
}

// describedPartitionsMax is Kafka's max.request.partition.size.limit.
const describedPartitionsMax = 2000

// describeTopicPartitions is Metadata's newer form: topics in order of name, a
// page of partitions, and where the next page begins (KIP-966).
func (c *control) describeTopicPartitions(r *kmsg.DescribeTopicPartitionsRequest, resp *kmsg.DescribeTopicPartitionsResponse) {
	left := describedPartitionsMax
	if r.ResponsePartitionLimit > 0 {
		left = min(left, int(r.ResponsePartitionLimit))
	}
	var names []string
	for _, q := range r.Topics {
		names = append(names, q.Topic)
	}
	if len(names) == 0 {
		for _, t := range c.state.Topics() {
			names = append(names, t.Name)
		}
	}
	slices.Sort(names)
	first := int32(0)
	for _, name := range slices.Compact(names) {
		if r.Cursor != nil {
			if name < r.Cursor.Topic {
				continue
			}
			if first = 0; name == r.Cursor.Topic {
				first = max(0, r.Cursor.Partition)
			}
		}
		if left == 0 {
			next := kmsg.NewDescribeTopicPartitionsResponseNextCursor()
			next.Topic, next.Partition = name, first
			resp.NextCursor = &next
			return
		}
		x := kmsg.NewDescribeTopicPartitionsResponseTopic()
		x.Topic, x.AuthorizedOperations = &name, math.MinInt32
		t, ok := c.state.Topic(name)
		if !ok {
			x.ErrorCode = int16(kafka.UnknownTopicOrPartition)
			if cluster.NameFault(name) != "" {
				x.ErrorCode = int16(kafka.InvalidTopic)
			}
			resp.Topics = append(resp.Topics, x)
			continue
		}
		x.TopicID = t.ID
		for i := first; int(i) < len(t.Partitions); i++ {
			if left == 0 {
				next := kmsg.NewDescribeTopicPartitionsResponseNextCursor()
				next.Topic, next.Partition = name, i
				resp.NextCursor = &next
				break
			}
			left--
			p := kmsg.NewDescribeTopicPartitionsResponseTopicPartition()
			p.Partition, p.LeaderEpoch = i, c.shard.LeaderEpoch()
			p.LeaderID = c.o.Nodes[format.Place(t.Partitions[i].LogID, c.o.DataShards)].ID
			p.Replicas, p.ISR, p.OfflineReplicas = []int32{p.LeaderID}, []int32{p.LeaderID}, []int32{}
			p.EligibleLeaderReplicas, p.LastKnownELR = []int32{}, []int32{}
			x.Partitions = append(x.Partitions, p)
		}
		resp.Topics = append(resp.Topics, x)
		if resp.NextCursor != nil {
			return
		}
	}
}

// electLeaders: the only replica leads already. As in Kafka, who asks for all
// partitions hears only of those where something was done: none.
func (c *control) electLeaders(r *kmsg.ElectLeadersRequest, resp *kmsg.ElectLeadersResponse) {
	for i := range r.Topics {
		q := &r.Topics[i]
		x := kmsg.NewElectLeadersResponseTopic()
		x.Topic = q.Topic
		for _, index := range q.Partitions {
			y := kmsg.NewElectLeadersResponseTopicPartition()
			y.Partition = index
			code, message := kafka.ElectionNotNeeded, "Leader election not needed for topic partition."
			if t, ok := c.state.Topic(q.Topic); !ok || index < 0 || int(index) >= len(t.Partitions) {
				code, message = kafka.UnknownTopicOrPartition, "This server does not host this topic-partition."
			}
			y.ErrorCode, y.ErrorMessage = int16(code), &message
			x.Partitions = append(x.Partitions, y)
		}
		resp.Topics = append(resp.Topics, x)
	}
	slices.SortFunc(resp.Topics, func(a, b kmsg.ElectLeadersResponseTopic) int { return strings.Compare(a.Topic, b.Topic) })
}
