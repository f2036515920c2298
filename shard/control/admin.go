package control

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/shard"
)

// Administration: what operators ask of the control shard beside making and
// deleting topics. What only a data shard knows, or has to do, is a question:
//
//	ask(); await mail; answered()
//
// A question takes one of the control's credits until it is answered, so data
// shards have a place for each that is open.

// question is one mail to a data shard whose answer a task waits for.
type question struct {
	task *task
	to   int
	item int // in the task's response
	part int // in the item
}

// ask sends a question for a task. fill is copied into a block, which the data
// shard gives back.
func (c *control) ask(to int, m shard.Mail, fill []byte, q question) {
	q.task.pending++
	c.asked++
	if c.asked == 0 {
		c.asked++ // 0 is no question
	}
	m.Serial, q.to = c.asked, to
	c.questions[m.Serial] = q
	c.errands = append(c.errands, errand{to: to, m: m, fill: fill})
}

// answered takes a data shard's answer.
func (c *control) answered(m shard.Mail) {
	c.credit++
	q := c.questions[m.Serial]
	delete(c.questions, m.Serial)
	switch r := q.task.resp.(type) {
	case *kmsg.DeleteRecordsResponse:
		p := &r.Topics[q.item].Partitions[q.part]
		if p.ErrorCode = m.Code; m.Code == 0 {
			p.LowWatermark = int64(m.A)
		}
	case *kmsg.DescribeLogDirsResponse:
		c.sized(q, m, r)
	case *kmsg.DescribeProducersResponse:
		c.produced(&r.Topics[q.item].Partitions[q.part], m)
	}
	if !m.Block.IsZero() {
		c.shard.Send(shard.Mail{Kind: shard.MailGiveBack, Block: m.Block}, int(m.From))
	}
	c.less(q.task)
}

// tellConfig has every data shard act on a topic's configurations, before the
// task that changed them is answered.
func (c *control) tellConfig(t *cluster.Topic, by *task, item int) {
	number, ok := c.numbers[t.ID]
	if !ok {
		return
	}
	for i := 1; i <= c.o.DataShards; i++ {
		fill := shard.AppendConfigMail(nil, c.state.LogConfig(t, c.o.Nodes[i].ID))
		c.ask(i, shard.Mail{Kind: shard.MailConfigure, B: uint64(number)}, fill, question{task: by, item: item})
	}
}

// namesMax bounds what one request may name, so that its answer, which may be
// much larger, is bounded by what the broker can have.
func (c *control) namesMax() int { return 2*(c.o.TopicsMax+c.o.PartitionsMax) + 1000 }

// named is how many topics and partitions a request of the control shard names.
func named(req kmsg.Request) (n int) {
	switch r := req.(type) {
	case *kmsg.MetadataRequest:
		return len(r.Topics)
	case *kmsg.CreateTopicsRequest:
		return len(r.Topics)
	case *kmsg.DeleteTopicsRequest:
		return len(r.Topics) + len(r.TopicNames)
	case *kmsg.DeleteRecordsRequest:
		for i := range r.Topics {
			n += 1 + len(r.Topics[i].Partitions)
		}
	case *kmsg.DescribeConfigsRequest:
		return len(r.Resources)
	case *kmsg.AlterConfigsRequest:
		return len(r.Resources)
	case *kmsg.IncrementalAlterConfigsRequest:
		return len(r.Resources)
	case *kmsg.CreatePartitionsRequest:
		return len(r.Topics)
	case *kmsg.ElectLeadersRequest:
		for i := range r.Topics {
			n += 1 + len(r.Topics[i].Partitions)
		}
	case *kmsg.DescribeProducersRequest:
		for i := range r.Topics {
			n += 1 + len(r.Topics[i].Partitions)
		}
	case *kmsg.DescribeTopicPartitionsRequest:
		return len(r.Topics)
	default:
		return namedOfGroups(req)
	}
	return n
}

// validateOnly says whether a change is a rehearsal.
func (t *task) validateOnly() bool {
	if t == nil {
		return false
	}
	switch r := t.req.(type) {
	case *kmsg.CreateTopicsRequest:
		return r.ValidateOnly
	case *kmsg.CreatePartitionsRequest:
		return r.ValidateOnly
	case *kmsg.AlterConfigsRequest:
		return r.ValidateOnly
	case *kmsg.IncrementalAlterConfigsRequest:
		return r.ValidateOnly
	}
	return false
}

// createPartitions has topics grow. Each of the new partitions is open when it
// is answered.
func (c *control) createPartitions(t *task, r *kmsg.CreatePartitionsRequest, resp *kmsg.CreatePartitionsResponse) {
	count := map[string]int{}
	for i := range r.Topics {
		count[r.Topics[i].Topic]++
	}
	for i := range r.Topics {
		q := &r.Topics[i]
		x := kmsg.NewCreatePartitionsResponseTopic()
		x.Topic = q.Topic
		resp.Topics = append(resp.Topics, x)
		if count[q.Topic] > 1 {
			t.fail(i, kafka.InvalidRequest, "Duplicate topic name.")
			continue
		}
		var replicas [][]int32
		for _, a := range q.Assignment {
			replicas = append(replicas, a.Replicas)
		}
		on, why := c.placement(replicas)
		if why != "" {
			t.fail(i, kafka.InvalidReplicaAssignment, why)
			continue
		}
		t.pending++
		c.changes = append(c.changes, change{kind: changeGrow, task: t, item: i, name: q.Topic, partitions: int(q.Count), on: on})
	}
}

// placement is where a client's replica assignment wants partitions. It holds
// until the broker is started with another number of data shards.
func (c *control) placement(replicas [][]int32) (on cluster.Placement, why string) {
	for i, r := range replicas {
		if len(r) != 1 {
			return on, fmt.Sprintf("Partition %d is assigned to %d replicas; this broker does not replicate, so each has 1.", i, len(r))
		}
		at := -1
		for k, n := range c.o.Nodes {
			if n.ID == r[0] {
				at = k
			}
		}
		switch at {
		case -1:
			return on, fmt.Sprintf("Partition %d is assigned to broker %d, which is not there.", i, r[0])
		case 0:
			return on, fmt.Sprintf("Partition %d is assigned to broker %d, which holds no partitions.", i, r[0])
		}
		on.Shards = append(on.Shards, at)
	}
	on.DataShards = c.o.DataShards
	return on, ""
}

// deleteRecords has the owners of the logs move their starts. A client asks
// each partition's leader; who asks another node is told so.
func (c *control) deleteRecords(t *task, r *kmsg.DeleteRecordsRequest, resp *kmsg.DeleteRecordsResponse) {
	for i := range r.Topics {
		q := &r.Topics[i]
		x := kmsg.NewDeleteRecordsResponseTopic()
		x.Topic, x.Partitions = q.Topic, make([]kmsg.DeleteRecordsResponseTopicPartition, len(q.Partitions))
		resp.Topics = append(resp.Topics, x)
		for k, p := range q.Partitions {
			y := &x.Partitions[k]
			y.Partition, y.LowWatermark = p.Partition, -1
			logID, code := c.ledBy(t.from.Shard, q.Topic, p.Partition)
			switch {
			case code != kafka.None:
				y.ErrorCode = int16(code)
			case p.Offset < -1:
				y.ErrorCode = int16(kafka.OffsetOutOfRange)
			default:
				c.ask(t.from.Shard, shard.Mail{Kind: shard.MailTruncate, A: logID, B: uint64(p.Offset)}, nil, question{task: t, item: i, part: k})
			}
		}
	}
}

// ledBy is the log of a partition, where that node leads it.
func (c *control) ledBy(shard int, topic string, partition int32) (logID uint64, code kafka.ErrorCode) {
	t, ok := c.state.Topic(topic)
	if !ok || partition < 0 || int(partition) >= len(t.Partitions) {
		return 0, kafka.UnknownTopicOrPartition
	}
	logID = t.Partitions[partition].LogID
	if format.Place(logID, c.o.DataShards) != shard {
		return 0, kafka.NotLeaderOrFollower
	}
	return logID, kafka.None
}
