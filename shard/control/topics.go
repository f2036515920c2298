package control

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/kafka"
)

// Topics: created, given more partitions, and deleted.
//
// CreateTopics (19): 4 may leave partitions and replicas to the broker's defaults
// (KIP-464), 5 returns configurations (KIP-525), 7 the topic's id.
//
// DeleteTopics (20): 5 has a message with an error, 6 names topics by name or by id.
//
// CreatePartitions (37): 2 is flexible, 3 may be answered with
// THROTTLING_QUOTA_EXCEEDED (KIP-599).

func createTopicsNames(req *kmsg.CreateTopicsRequest) int { return len(req.Topics) }

// createTopics starts the creation of topics. When the request is answered each topic
// exists, and its logs are open.
func (c *control) createTopics(task *task, req *kmsg.CreateTopicsRequest, resp *kmsg.CreateTopicsResponse) {
	if task.validateOnly = req.ValidateOnly; !task.validateOnly {
		task.finish = func() { c.describeCreated(task.from.Shard, resp) }
	}
	count := map[string]int{}
	for i := range req.Topics {
		count[req.Topics[i].Topic]++
	}
	for i := range req.Topics {
		asked := &req.Topics[i]
		out := kmsg.NewCreateTopicsResponseTopic()
		out.Topic, out.NumPartitions, out.ReplicationFactor, out.Configs = asked.Topic, asked.NumPartitions, 1, []kmsg.CreateTopicsResponseTopicConfig{}
		resp.Topics = append(resp.Topics, out)
		if count[asked.Topic] > 1 {
			task.fail(i, kafka.InvalidRequest, "Create topics request has duplicate topic names.")
			continue
		}
		partitions, replicas := int(asked.NumPartitions), int(asked.ReplicationFactor)
		var on cluster.Placement
		if assigned := len(asked.ReplicaAssignment); assigned > 0 {
			if partitions != -1 || replicas != -1 {
				task.fail(i, kafka.InvalidRequest, "A manual partition assignment was specified, but numPartitions or replicationFactor was not set to -1.")
				continue
			}
			var why string
			if on, why = c.assignedPlacement(asked.ReplicaAssignment); why != "" {
				task.fail(i, kafka.InvalidReplicaAssignment, why)
				continue
			}
			partitions, replicas = assigned, 1
		}
		if partitions == -1 {
			partitions = c.o.PartitionsDefault
		}
		resp.Topics[i].NumPartitions = int32(partitions)
		var configs []cluster.Config
		missing := ""
		for _, config := range asked.Configs {
			if config.Value == nil {
				missing = config.Name
				break
			}
			configs = append(configs, cluster.Config{Name: config.Name, Value: *config.Value})
		}
		if missing != "" {
			task.fail(i, kafka.InvalidConfig, "Null value not supported for topic configs: "+missing)
			continue
		}
		c.enqueue(change{kind: changeCreate, task: task, item: i, name: asked.Topic, partitions: partitions, replicas: replicas, on: on, configs: configs})
	}
}

func failCreateTopics(_ *kmsg.CreateTopicsRequest, resp *kmsg.CreateTopicsResponse, item int, code kafka.ErrorCode, message string) {
	if out := &resp.Topics[item]; out.ErrorCode == 0 {
		out.ErrorCode, out.ErrorMessage = int16(code), &message
		// An empty list, not null: null is allowed by the schema, and Java's admin client does not expect it.
		out.NumPartitions, out.ReplicationFactor, out.Configs, out.TopicID = -1, -1, []kmsg.CreateTopicsResponseTopicConfig{}, [16]byte{}
	}
}

// describeCreated fills in what is known of a topic only once it exists.
func (c *control) describeCreated(node int, resp *kmsg.CreateTopicsResponse) {
	for i := range resp.Topics {
		out := &resp.Topics[i]
		topic, ok := c.state.Topic(out.Topic)
		if out.ErrorCode != 0 || !ok {
			continue
		}
		out.TopicID = topic.ID
		c.describeNew(out, topic, node)
	}
}

// describeValidated describes a topic that could be created and is not: a change that was to
// be validated only. It has no id.
func (c *control) describeValidated(ch *change) {
	resp, ok := ch.task.resp.(*kmsg.CreateTopicsResponse)
	if !ok || ch.cmd == nil {
		return
	}
	c.describeNew(&resp.Topics[ch.item], cluster.PlannedTopic(ch.cmd), ch.task.from.Shard)
}

// describeNew fills in what a new topic has: its partitions, and all of its configurations.
func (c *control) describeNew(out *kmsg.CreateTopicsResponseTopic, topic *cluster.Topic, node int) {
	out.NumPartitions = int32(len(topic.Partitions))
	defs := cluster.Configs()
	for k := range defs {
		config := kmsg.NewCreateTopicsResponseTopicConfig()
		inForce := c.topicConfig(topic, &defs[k], node)[0]
		config.Name, config.Value, config.Source = defs[k].Name, &inForce.value, int8(inForce.source)
		out.Configs = append(out.Configs, config)
	}
}

// assignedPlacement is placement for the assignment of a new topic, which may name its
// partitions in any order.
func (c *control) assignedPlacement(assignment []kmsg.CreateTopicsRequestTopicReplicaAssignment) (on cluster.Placement, why string) {
	replicas := make([][]int32, len(assignment))
	for _, assigned := range assignment {
		if assigned.Partition < 0 || int(assigned.Partition) >= len(replicas) || replicas[assigned.Partition] != nil {
			return on, "Partitions should be a consecutive 0-based integer sequence."
		}
		replicas[assigned.Partition] = append([]int32{}, assigned.Replicas...)
	}
	return c.placement(replicas)
}

// placement converts a client's replica assignment to data shards, or returns why that is
// not possible. The placement holds until the broker is started with another number of data
// shards.
func (c *control) placement(replicas [][]int32) (on cluster.Placement, why string) {
	for i, nodes := range replicas {
		if len(nodes) != 1 {
			return on, fmt.Sprintf("Partition %d is assigned to %d replicas; this broker does not replicate, so each has 1.", i, len(nodes))
		}
		at := -1
		for k, node := range c.o.Nodes {
			if node.ID == nodes[0] {
				at = k
			}
		}
		switch at {
		case -1:
			return on, fmt.Sprintf("Partition %d is assigned to broker %d, which is not there.", i, nodes[0])
		case 0:
			return on, fmt.Sprintf("Partition %d is assigned to broker %d, which holds no partitions.", i, nodes[0])
		}
		on.Shards = append(on.Shards, at)
	}
	on.DataShards = c.o.DataShards
	return on, ""
}

func deleteTopicsNames(req *kmsg.DeleteTopicsRequest) int {
	return len(req.Topics) + len(req.TopicNames)
}

// deleteTopics starts the deletion of topics. When the request is answered their logs are
// deleted too.
func (c *control) deleteTopics(task *task, req *kmsg.DeleteTopicsRequest, resp *kmsg.DeleteTopicsResponse) {
	add := func(name *string, id [16]byte) int {
		out := kmsg.NewDeleteTopicsResponseTopic()
		out.Topic, out.TopicID = name, id
		resp.Topics = append(resp.Topics, out)
		return len(resp.Topics) - 1
	}
	names, ids := map[string]int{}, map[[16]byte]int{}
	for _, name := range req.TopicNames {
		names[name]++
	}
	for i := range req.Topics {
		if asked := &req.Topics[i]; asked.Topic != nil {
			names[*asked.Topic]++
		} else {
			ids[asked.TopicID]++
		}
	}
	for i := range req.TopicNames {
		name := req.TopicNames[i]
		item := add(&name, [16]byte{})
		if names[name] > 1 {
			task.fail(item, kafka.InvalidRequest, "Duplicate topic name.")
			continue
		}
		c.enqueue(change{kind: changeDelete, task: task, item: item, name: name})
	}
	for i := range req.Topics {
		asked := &req.Topics[i]
		item := add(asked.Topic, asked.TopicID)
		switch {
		case asked.Topic != nil && asked.TopicID != [16]byte{}:
			task.fail(item, kafka.InvalidRequest, "Topic name and topic id can not both be specified.")
		case asked.Topic == nil && asked.TopicID == [16]byte{}:
			task.fail(item, kafka.InvalidRequest, "Neither topic name nor id were specified.")
		case asked.Topic != nil && names[*asked.Topic] > 1:
			task.fail(item, kafka.InvalidRequest, "Duplicate topic name.")
		case asked.Topic == nil && ids[asked.TopicID] > 1:
			task.fail(item, kafka.InvalidRequest, "Duplicate topic id.")
		case asked.Topic != nil:
			if topic, ok := c.state.Topic(*asked.Topic); ok {
				resp.Topics[item].TopicID = topic.ID
			}
			c.enqueue(change{kind: changeDelete, task: task, item: item, name: *asked.Topic})
		default:
			if topic, ok := c.state.TopicByID(asked.TopicID); ok {
				resp.Topics[item].Topic = &topic.Name
			}
			c.enqueue(change{kind: changeDeleteID, task: task, item: item, id: asked.TopicID})
		}
	}
}

func failDeleteTopics(_ *kmsg.DeleteTopicsRequest, resp *kmsg.DeleteTopicsResponse, item int, code kafka.ErrorCode, message string) {
	if out := &resp.Topics[item]; out.ErrorCode == 0 {
		out.ErrorCode, out.ErrorMessage = int16(code), &message
	}
}

func createPartitionsNames(req *kmsg.CreatePartitionsRequest) int { return len(req.Topics) }

// createPartitions starts the growth of topics. When the request is answered the logs of
// the new partitions are open.
func (c *control) createPartitions(task *task, req *kmsg.CreatePartitionsRequest, resp *kmsg.CreatePartitionsResponse) {
	task.validateOnly = req.ValidateOnly
	count := map[string]int{}
	for i := range req.Topics {
		count[req.Topics[i].Topic]++
	}
	for i := range req.Topics {
		asked := &req.Topics[i]
		out := kmsg.NewCreatePartitionsResponseTopic()
		out.Topic = asked.Topic
		resp.Topics = append(resp.Topics, out)
		if count[asked.Topic] > 1 {
			task.fail(i, kafka.InvalidRequest, "Duplicate topic name.")
			continue
		}
		var replicas [][]int32
		for _, assigned := range asked.Assignment {
			replicas = append(replicas, assigned.Replicas)
		}
		on, why := c.placement(replicas)
		if why != "" {
			task.fail(i, kafka.InvalidReplicaAssignment, why)
			continue
		}
		c.enqueue(change{kind: changeGrow, task: task, item: i, name: asked.Topic, partitions: int(asked.Count), on: on})
	}
}

func failCreatePartitions(_ *kmsg.CreatePartitionsRequest, resp *kmsg.CreatePartitionsResponse, item int, code kafka.ErrorCode, message string) {
	if out := &resp.Topics[item]; out.ErrorCode == 0 {
		out.ErrorCode, out.ErrorMessage = int16(code), &message
	}
}
