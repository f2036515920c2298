package control

import (
	"fmt"
	"math"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/shard"
)

// What clients find their way by: nodes, topics, partitions' leaders, and the coordinator.
//
// Metadata (3): in 0 no topics mean all, from 1 on null does. 4 says whether topics may
// be created, 8 says what the client may do (KIP-430; of the cluster only up to 10), 10
// adds topic ids to the answer, 12 lets a request name topics by id alone (KIP-516), 13
// has an error for the whole request.
//
// FindCoordinator (10): 1 has a kind of coordinator, 4 a list of keys (KIP-699), 5 may be
// answered with TRANSACTION_ABORTABLE (KIP-890), 6 may ask for the coordinator of a share
// group's partition (KIP-932), of which there is none.
//
// DescribeCluster (60): 1 asks for brokers or controllers (KIP-919), 2 may ask for
// brokers that are fenced (KIP-1073), of which there are none.
//
// DescribeTopicPartitions (75): Metadata by pages (KIP-966).

func metadataNames(req *kmsg.MetadataRequest) int { return len(req.Topics) }

// metadata creates the missing topics, where that is allowed, and then describes the
// cluster as it is when the answer leaves.
func (c *control) metadata(task *task, req *kmsg.MetadataRequest, resp *kmsg.MetadataResponse) {
	task.finish = func() { c.describeMetadata(task.from.Listener, req, resp) }
	if !c.o.AutoCreateTopics || req.Version >= 4 && !req.AllowAutoTopicCreation {
		return
	}
	for i := range req.Topics {
		name := req.Topics[i].Topic
		if name == nil || cluster.NameFault(*name) != "" {
			continue
		}
		if _, ok := c.state.Topic(*name); !ok {
			c.enqueue(change{kind: changeCreate, task: task, name: *name, partitions: c.o.PartitionsDefault, replicas: 1})
		}
	}
}

// failMetadata ignores that a topic could not be created. The answer has the topic as not
// existing, and the client asks again.
func failMetadata(*kmsg.MetadataRequest, *kmsg.MetadataResponse, int, kafka.ErrorCode, string) {}

func (c *control) describeMetadata(listener uint8, req *kmsg.MetadataRequest, resp *kmsg.MetadataResponse) {
	for _, node := range c.o.ClientNodes(listener) {
		broker := kmsg.NewMetadataResponseBroker()
		broker.NodeID, broker.Host, broker.Port = node.ID, node.Host, node.Port
		resp.Brokers = append(resp.Brokers, broker)
	}
	resp.ClusterID = kmsg.StringPtr(c.o.ClusterID)
	resp.ControllerID = c.o.Nodes[0].ID
	if req.IncludeClusterAuthorizedOperations {
		resp.AuthorizedOperations = clusterOperations
	}
	if req.IncludeTopicAuthorizedOperations {
		defer func() {
			for i := range resp.Topics {
				if topic := &resp.Topics[i]; topic.ErrorCode == 0 {
					topic.AuthorizedOperations = topicOperations
				}
			}
		}()
	}
	if req.Topics == nil || req.Version == 0 && len(req.Topics) == 0 {
		for _, topic := range c.state.Topics() {
			resp.Topics = append(resp.Topics, c.metadataTopic(topic))
		}
		return
	}
	type wanted struct {
		name string
		id   [16]byte
	}
	seen := map[wanted]bool{}
	for i := range req.Topics {
		asked := &req.Topics[i]
		key := wanted{stringOf(asked.Topic), asked.TopicID}
		if seen[key] {
			continue // each once, as Kafka does
		}
		seen[key] = true
		if asked.Topic != nil && (req.Version < 12 || asked.TopicID == [16]byte{}) {
			if topic, ok := c.state.Topic(*asked.Topic); ok {
				resp.Topics = append(resp.Topics, c.metadataTopic(topic))
				continue
			}
			out := kmsg.NewMetadataResponseTopic()
			out.Topic, out.ErrorCode = asked.Topic, int16(missingTopic(*asked.Topic))
			resp.Topics = append(resp.Topics, out)
			continue
		}
		if topic, ok := c.state.TopicByID(asked.TopicID); ok {
			resp.Topics = append(resp.Topics, c.metadataTopic(topic))
			continue
		}
		out := kmsg.NewMetadataResponseTopic()
		out.TopicID, out.ErrorCode = asked.TopicID, int16(kafka.UnknownTopicID)
		if req.Version < 12 {
			empty := ""
			out.Topic, out.ErrorCode = &empty, int16(kafka.InvalidRequest)
		}
		resp.Topics = append(resp.Topics, out)
	}
}

// missingTopic returns the error for the name of a topic that does not exist.
func missingTopic(name string) kafka.ErrorCode {
	if cluster.NameFault(name) != "" {
		return kafka.InvalidTopic
	}
	return kafka.UnknownTopicOrPartition
}

func (c *control) metadataTopic(topic *cluster.Topic) kmsg.MetadataResponseTopic {
	out := kmsg.NewMetadataResponseTopic()
	name := topic.Name
	out.Topic, out.TopicID = &name, topic.ID
	for i, partition := range topic.Partitions {
		part := kmsg.NewMetadataResponseTopicPartition()
		part.Partition = int32(i)
		part.Leader = c.leader(partition)
		part.LeaderEpoch = c.shard.LeaderEpoch()
		part.Replicas, part.ISR, part.OfflineReplicas = []int32{part.Leader}, []int32{part.Leader}, []int32{}
		if _, opening := c.pendingLogOps[logOp{partition.LogID, false}]; opening {
			// Until the log is open the leader would reject a producer's first batch, and
			// might accept the second: out of order.
			part.ErrorCode, part.Leader, part.LeaderEpoch = int16(kafka.LeaderNotAvailable), -1, -1
		}
		out.Partitions = append(out.Partitions, part)
	}
	return out
}

// leader returns the id of the node that leads a partition.
func (c *control) leader(partition cluster.Partition) int32 {
	return c.o.Nodes[format.Place(partition.LogID, c.o.DataShards)].ID
}

// findCoordinator names the control shard's node for every group. There is no coordinator of
// transactions.
func (c *control) findCoordinator(task *task, req *kmsg.FindCoordinatorRequest, resp *kmsg.FindCoordinatorResponse) {
	node, code, message := c.o.ClientNodes(task.from.Listener)[0], kafka.None, (*string)(nil)
	if req.CoordinatorType != 0 {
		// With this error clients give up at once. With one that says that there is no
		// coordinator yet they would ask again for a minute.
		text := "This broker coordinates no transactions."
		node, code, message = shard.Node{ID: -1, Port: -1}, kafka.TransactionalIDAuthorizationFailed, &text
		if req.CoordinatorType != 1 {
			text, code = fmt.Sprintf("There is no coordinator of type %d.", req.CoordinatorType), kafka.InvalidRequest
		}
	}
	if req.Version < 4 {
		resp.ErrorCode, resp.ErrorMessage, resp.NodeID, resp.Host, resp.Port = int16(code), message, node.ID, node.Host, node.Port
		return
	}
	for _, key := range req.CoordinatorKeys {
		out := kmsg.NewFindCoordinatorResponseCoordinator()
		out.Key, out.NodeID, out.Host, out.Port, out.ErrorCode, out.ErrorMessage = key, node.ID, node.Host, node.Port, int16(code), message
		resp.Coordinators = append(resp.Coordinators, out)
	}
}

func (c *control) describeCluster(task *task, req *kmsg.DescribeClusterRequest, resp *kmsg.DescribeClusterResponse) {
	resp.EndpointType = 1
	if req.Version >= 1 && req.EndpointType != 1 {
		code, message := kafka.UnsupportedEndpointType, fmt.Sprintf("Unsupported endpoint type %d.", req.EndpointType)
		if req.EndpointType == 2 {
			code, message = kafka.MismatchedEndpointType, "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER."
		}
		resp.ErrorCode, resp.ErrorMessage = int16(code), &message
		return
	}
	resp.ClusterID, resp.ControllerID = c.o.ClusterID, c.o.Nodes[0].ID
	if req.IncludeClusterAuthorizedOperations {
		resp.ClusterAuthorizedOperations = clusterOperations
	}
	for _, node := range c.o.ClientNodes(task.from.Listener) {
		broker := kmsg.NewDescribeClusterResponseBroker()
		broker.NodeID, broker.Host, broker.Port = node.ID, node.Host, node.Port
		resp.Brokers = append(resp.Brokers, broker)
	}
}

// describedPartitionsMax is Kafka's max.request.partition.size.limit.
const describedPartitionsMax = 2000

func describeTopicPartitionsNames(req *kmsg.DescribeTopicPartitionsRequest) int {
	return len(req.Topics)
}

// describeTopicPartitions answers with one page of partitions, sorted by topic, and with
// where the next page begins.
func (c *control) describeTopicPartitions(_ *task, req *kmsg.DescribeTopicPartitionsRequest, resp *kmsg.DescribeTopicPartitionsResponse) {
	left := describedPartitionsMax
	if req.ResponsePartitionLimit > 0 {
		left = min(left, int(req.ResponsePartitionLimit))
	}
	next := func(topic string, partition int32) {
		cursor := kmsg.NewDescribeTopicPartitionsResponseNextCursor()
		cursor.Topic, cursor.Partition = topic, partition
		resp.NextCursor = &cursor
	}
	var names []string
	for i := range req.Topics {
		names = append(names, req.Topics[i].Topic)
	}
	if len(names) == 0 {
		for _, topic := range c.state.Topics() {
			names = append(names, topic.Name)
		}
	}
	slices.Sort(names)
	first := int32(0)
	for _, name := range slices.Compact(names) {
		if req.Cursor != nil {
			if name < req.Cursor.Topic {
				continue
			}
			if first = 0; name == req.Cursor.Topic {
				first = max(0, req.Cursor.Partition)
			}
		}
		if left == 0 {
			next(name, first)
			return
		}
		out := kmsg.NewDescribeTopicPartitionsResponseTopic()
		out.Topic, out.AuthorizedOperations = &name, math.MinInt32
		topic, ok := c.state.Topic(name)
		if !ok {
			out.ErrorCode = int16(missingTopic(name))
			resp.Topics = append(resp.Topics, out)
			continue
		}
		out.TopicID, out.AuthorizedOperations = topic.ID, topicOperations
		for index := first; int(index) < len(topic.Partitions); index++ {
			if left == 0 {
				next(name, index)
				break
			}
			left--
			part := kmsg.NewDescribeTopicPartitionsResponseTopicPartition()
			part.Partition, part.LeaderEpoch = index, c.shard.LeaderEpoch()
			part.LeaderID = c.leader(topic.Partitions[index])
			part.Replicas, part.ISR, part.OfflineReplicas = []int32{part.LeaderID}, []int32{part.LeaderID}, []int32{}
			part.EligibleLeaderReplicas, part.LastKnownELR = []int32{}, []int32{}
			out.Partitions = append(out.Partitions, part)
		}
		resp.Topics = append(resp.Topics, out)
		if resp.NextCursor != nil {
			return
		}
	}
}
