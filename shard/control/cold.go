package control

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/shard"
)

// This file is what the control shard answers: one function per key, on decoded
// requests. A task holds one count for start itself; what has to become
// durable first adds its own.

// start does a task's work, as far as it can be done at once.
func (c *control) start(t *task) {
	switch r := t.req.(type) {
	case *kmsg.MetadataRequest:
		c.createMissing(t, r)
	case *kmsg.CreateTopicsRequest:
		c.createTopics(t, r, t.resp.(*kmsg.CreateTopicsResponse))
	case *kmsg.DeleteTopicsRequest:
		c.deleteTopics(t, r, t.resp.(*kmsg.DeleteTopicsResponse))
	case *kmsg.CreatePartitionsRequest:
		c.createPartitions(t, r, t.resp.(*kmsg.CreatePartitionsResponse))
	case *kmsg.DescribeLogDirsRequest:
		c.describeLogDirs(t, t.resp.(*kmsg.DescribeLogDirsResponse))
	case *kmsg.DescribeProducersRequest:
		c.describeProducers(t, r, t.resp.(*kmsg.DescribeProducersResponse))
	case *kmsg.DescribeTopicPartitionsRequest:
		c.describeTopicPartitions(r, t.resp.(*kmsg.DescribeTopicPartitionsResponse))
	case *kmsg.ElectLeadersRequest:
		c.electLeaders(r, t.resp.(*kmsg.ElectLeadersResponse))
	case *kmsg.ListPartitionReassignmentsRequest:
		// none is ever under way: the answer is empty
	case *kmsg.DeleteRecordsRequest:
		c.deleteRecords(t, r, t.resp.(*kmsg.DeleteRecordsResponse))
	case *kmsg.DescribeConfigsRequest:
		c.describeConfigs(t.from.Shard, r, t.resp.(*kmsg.DescribeConfigsResponse))
	case *kmsg.AlterConfigsRequest:
		c.alterConfigs(t, r, t.resp.(*kmsg.AlterConfigsResponse))
	case *kmsg.IncrementalAlterConfigsRequest:
		c.incrementalAlterConfigs(t, r, t.resp.(*kmsg.IncrementalAlterConfigsResponse))
	case *kmsg.InitProducerIDRequest:
		c.initProducerID(t, r, t.resp.(*kmsg.InitProducerIDResponse))
	case *kmsg.FindCoordinatorRequest:
		c.findCoordinator(t.from.Listener, r, t.resp.(*kmsg.FindCoordinatorResponse))
	case *kmsg.DescribeClusterRequest:
		c.describeCluster(t.from.Listener, r, t.resp.(*kmsg.DescribeClusterResponse))
	case *kmsg.ProduceRequest:
		if c.notHereProduce(r, t.resp.(*kmsg.ProduceResponse)) {
			t.resp = nil
		}
	case *kmsg.FetchRequest:
		c.notHereFetch(r, t.resp.(*kmsg.FetchResponse))
	case *kmsg.ListOffsetsRequest:
		c.notHereOffsets(r, t.resp.(*kmsg.ListOffsetsResponse))
	case *kmsg.OffsetForLeaderEpochRequest:
		c.notHereEpochs(r, t.resp.(*kmsg.OffsetForLeaderEpochResponse))
	default:
		if !c.startGroup(t) {
			t.resp = nil // no such key is advertised
		}
	}
}

// fail sets the error of one item of the task's response.
func (t *task) fail(item int, failure kafka.ErrorCode, message string) {
	code := int16(failure)
	switch r := t.resp.(type) {
	case *kmsg.CreateTopicsResponse:
		x := &r.Topics[item]
		if x.ErrorCode == 0 {
			x.ErrorCode, x.ErrorMessage = code, &message
			x.NumPartitions, x.ReplicationFactor, x.Configs, x.TopicID = -1, -1, nil, [16]byte{}
		}
	case *kmsg.DeleteTopicsResponse:
		x := &r.Topics[item]
		if x.ErrorCode == 0 {
			x.ErrorCode, x.ErrorMessage = code, &message
		}
	case *kmsg.InitProducerIDResponse:
		r.ErrorCode, r.ProducerID = code, -1
	case *kmsg.CreatePartitionsResponse:
		if x := &r.Topics[item]; x.ErrorCode == 0 {
			x.ErrorCode, x.ErrorMessage = code, &message
		}
	case *kmsg.AlterConfigsResponse:
		if x := &r.Resources[item]; x.ErrorCode == 0 {
			x.ErrorCode, x.ErrorMessage = code, &message
		}
	case *kmsg.IncrementalAlterConfigsResponse:
		if x := &r.Resources[item]; x.ErrorCode == 0 {
			x.ErrorCode, x.ErrorMessage = code, &message
		}
	}
}

// limits are what the cluster's plans are held to.
func (c *control) limits() cluster.Limits {
	return cluster.Limits{TopicsMax: c.o.TopicsMax, PartitionsPerTopicMax: c.o.PartitionsMax, PartitionsMax: c.o.PartitionsMax, PartitionsDefault: c.o.PartitionsDefault, MessageBytesMax: c.o.MessageBytesMax}
}

func (c *control) createTopics(t *task, r *kmsg.CreateTopicsRequest, resp *kmsg.CreateTopicsResponse) {
	count := map[string]int{}
	for i := range r.Topics {
		count[r.Topics[i].Topic]++
	}
	for i := range r.Topics {
		q := &r.Topics[i]
		x := kmsg.NewCreateTopicsResponseTopic()
		x.Topic, x.NumPartitions, x.ReplicationFactor = q.Topic, q.NumPartitions, 1
		resp.Topics = append(resp.Topics, x)
		partitions := int(q.NumPartitions)
		replicas := int(q.ReplicationFactor)
		if count[q.Topic] > 1 {
			t.fail(i, kafka.InvalidRequest, "Create topics request has duplicate topic names.")
			continue
		}
		var on cluster.Placement
		if n := len(q.ReplicaAssignment); n > 0 {
			if partitions != -1 || replicas != -1 {
				t.fail(i, kafka.InvalidRequest, "A manual partition assignment was specified, but numPartitions or replicationFactor was not set to -1.")
				continue
			}
			byPartition, why := make([][]int32, n), ""
			for _, a := range q.ReplicaAssignment {
				if a.Partition < 0 || int(a.Partition) >= n || byPartition[a.Partition] != nil {
					why = "Partitions should be a consecutive 0-based integer sequence."
					break
				}
				byPartition[a.Partition] = append([]int32{}, a.Replicas...)
			}
			if why == "" {
				on, why = c.placement(byPartition)
			}
			if why != "" {
				t.fail(i, kafka.InvalidReplicaAssignment, why)
				continue
			}
			partitions, replicas = n, 1
		}
		if partitions == -1 {
			partitions = c.o.PartitionsDefault
		}
		resp.Topics[i].NumPartitions = int32(partitions)
		var configs []cluster.Config
		missing := ""
		for _, k := range q.Configs {
			if k.Value == nil {
				missing = k.Name
				break
			}
			configs = append(configs, cluster.Config{Name: k.Name, Value: *k.Value})
		}
		if missing != "" {
			t.fail(i, kafka.InvalidConfig, "Null value not supported for topic configs: "+missing)
			continue
		}
		t.pending++
		c.changes = append(c.changes, change{kind: changeCreate, task: t, item: i, name: q.Topic, partitions: partitions, replicas: replicas, on: on, configs: configs})
	}
}

// createdID fills in what a create learns only when it is planned.
func (c *control) createdIDs(by int, resp *kmsg.CreateTopicsResponse) {
	for i := range resp.Topics {
		x := &resp.Topics[i]
		t, ok := c.state.Topic(x.Topic)
		if x.ErrorCode != 0 || !ok {
			continue
		}
		x.TopicID, x.NumPartitions = t.ID, int32(len(t.Partitions))
		configs := cluster.Configs()
		for k := range configs {
			e := kmsg.NewCreateTopicsResponseTopicConfig()
			v := c.topicConfig(t, &configs[k], by)[0]
			e.Name, e.Value, e.Source = configs[k].Name, &v.value, int8(v.source)
			x.Configs = append(x.Configs, e)
		}
	}
}

func (c *control) deleteTopics(t *task, r *kmsg.DeleteTopicsRequest, resp *kmsg.DeleteTopicsResponse) {
	add := func(name *string, id [16]byte) int {
		x := kmsg.NewDeleteTopicsResponseTopic()
		x.Topic, x.TopicID = name, id
		resp.Topics = append(resp.Topics, x)
		return len(resp.Topics) - 1
	}
	names, ids := map[string]int{}, map[[16]byte]int{}
	for _, name := range r.TopicNames {
		names[name]++
	}
	for i := range r.Topics {
		if q := &r.Topics[i]; q.Topic != nil {
			names[*q.Topic]++
		} else {
			ids[q.TopicID]++
		}
	}
	for i := range r.TopicNames {
		name := r.TopicNames[i]
		n := add(&name, [16]byte{})
		if names[name] > 1 {
			t.fail(n, kafka.InvalidRequest, "Duplicate topic name.")
			continue
		}
		t.pending++
		c.changes = append(c.changes, change{kind: changeDelete, task: t, item: n, name: name})
	}
	for i := range r.Topics {
		q := &r.Topics[i]
		n := add(q.Topic, q.TopicID)
		switch {
		case q.Topic != nil && q.TopicID != [16]byte{}:
			t.fail(n, kafka.InvalidRequest, "Topic name and topic id can not both be specified.")
		case q.Topic == nil && q.TopicID == [16]byte{}:
			t.fail(n, kafka.InvalidRequest, "Neither topic name nor id were specified.")
		case q.Topic != nil && names[*q.Topic] > 1:
			t.fail(n, kafka.InvalidRequest, "Duplicate topic name.")
		case q.Topic == nil && ids[q.TopicID] > 1:
			t.fail(n, kafka.InvalidRequest, "Duplicate topic id.")
		case q.Topic != nil:
			if x, ok := c.state.Topic(*q.Topic); ok {
				resp.Topics[n].TopicID = x.ID
			}
			t.pending++
			c.changes = append(c.changes, change{kind: changeDelete, task: t, item: n, name: *q.Topic})
		default:
			if x, ok := c.state.TopicByID(q.TopicID); ok {
				resp.Topics[n].Topic = &x.Name
			}
			t.pending++
			c.changes = append(c.changes, change{kind: changeDeleteID, task: t, item: n, id: q.TopicID})
		}
	}
}

// createMissing begins to create the topics a Metadata request names that do
// not exist, where that is allowed.
func (c *control) createMissing(t *task, r *kmsg.MetadataRequest) {
	if !c.o.AutoCreateTopics || r.Version >= 4 && !r.AllowAutoTopicCreation {
		return
	}
	for i := range r.Topics {
		name := r.Topics[i].Topic
		if name == nil || cluster.NameFault(*name) != "" {
			continue
		}
		if _, ok := c.state.Topic(*name); ok {
			continue
		}
		t.pending++
		c.changes = append(c.changes, change{kind: changeCreate, task: t, name: *name, partitions: c.o.PartitionsDefault, replicas: 1})
	}
}

// metadata describes the cluster as it is when the answer leaves.
func (c *control) metadata(listener uint8, r *kmsg.MetadataRequest, resp *kmsg.MetadataResponse) {
	resp.Brokers = resp.Brokers[:0]
	for _, n := range c.o.ClientNodes(listener) {
		b := kmsg.NewMetadataResponseBroker()
		b.NodeID, b.Host, b.Port = n.ID, n.Host, n.Port
		resp.Brokers = append(resp.Brokers, b)
	}
	resp.ClusterID = kmsg.StringPtr(c.o.ClusterID)
	resp.ControllerID = c.o.Nodes[0].ID
	all := r.Topics == nil || r.Version == 0 && len(r.Topics) == 0
	if all {
		for _, t := range c.state.Topics() {
			resp.Topics = append(resp.Topics, c.metadataTopic(t))
		}
		return
	}
	type wanted struct {
		name string
		id   [16]byte
	}
	seen := map[wanted]bool{}
	for i := range r.Topics {
		q := &r.Topics[i]
		w := wanted{id: q.TopicID}
		if q.Topic != nil {
			w.name = *q.Topic
		}
		if seen[w] {
			continue // as Kafka does: once
		}
		seen[w] = true
		if q.Topic != nil && r.Version < 12 || q.Topic != nil && q.TopicID == [16]byte{} {
			if t, ok := c.state.Topic(*q.Topic); ok {
				resp.Topics = append(resp.Topics, c.metadataTopic(t))
				continue
			}
			x := kmsg.NewMetadataResponseTopic()
			x.Topic, x.ErrorCode = q.Topic, int16(kafka.UnknownTopicOrPartition)
			if cluster.NameFault(*q.Topic) != "" {
				x.ErrorCode = int16(kafka.InvalidTopic)
			}
			resp.Topics = append(resp.Topics, x)
			continue
		}
		if t, ok := c.state.TopicByID(q.TopicID); ok {
			resp.Topics = append(resp.Topics, c.metadataTopic(t))
			continue
		}
		x := kmsg.NewMetadataResponseTopic()
		x.TopicID, x.ErrorCode = q.TopicID, int16(kafka.UnknownTopicID)
		if r.Version < 12 {
			empty := ""
			x.Topic, x.ErrorCode = &empty, int16(kafka.InvalidRequest)
		}
		resp.Topics = append(resp.Topics, x)
	}
}

func (c *control) metadataTopic(t *cluster.Topic) kmsg.MetadataResponseTopic {
	x := kmsg.NewMetadataResponseTopic()
	name := t.Name
	x.Topic, x.TopicID = &name, t.ID
	for i, p := range t.Partitions {
		m := kmsg.NewMetadataResponseTopicPartition()
		m.Partition = int32(i)
		m.Leader = c.o.Nodes[format.Place(p.LogID, c.o.DataShards)].ID
		m.LeaderEpoch = c.shard.LeaderEpoch()
		m.Replicas, m.ISR, m.OfflineReplicas = []int32{m.Leader}, []int32{m.Leader}, []int32{}
		if _, opening := c.confirm[awaited{p.LogID, false}]; opening {
			// Who were sent there now would be refused, and a producer's next
			// batch perhaps not: it would be stored before the first.
			m.ErrorCode, m.Leader, m.LeaderEpoch = int16(kafka.LeaderNotAvailable), -1, -1
		}
		x.Partitions = append(x.Partitions, m)
	}
	return x
}

// initProducerID gives out an id of a block that is durable. Transactions are
// not served: there is no coordinator for them.
func (c *control) initProducerID(t *task, r *kmsg.InitProducerIDRequest, resp *kmsg.InitProducerIDResponse) {
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	switch {
	case (r.ProducerID == -1) != (r.ProducerEpoch == -1), r.TransactionalID != nil && *r.TransactionalID == "":
		resp.ErrorCode = int16(kafka.InvalidRequest)
		return
	case r.TransactionalID != nil:
		resp.ErrorCode = int16(kafka.TransactionalIDAuthorizationFailed)
		return
	}
	t.pending++
	c.ids = append(c.ids, t)
	c.giveIDs()
}

// giveIDs serves the producers that wait for an id and reserves the next block
// before the present one ends.
func (c *control) giveIDs() {
	for len(c.ids) > 0 {
		id, need := c.state.NextProducerID()
		if c.o.Faults.ProducerIDTwice {
			id, c.early = c.early, c.early+1
		}
		if need && !c.reserving {
			c.reserving = true
			c.changes = append(c.changes, change{kind: changeReserve})
		}
		if id < 0 {
			return
		}
		t := c.ids[0]
		c.ids = c.ids[1:]
		resp := t.resp.(*kmsg.InitProducerIDResponse)
		resp.ProducerID, resp.ProducerEpoch = id, 0
		c.less(t)
	}
	c.ids = nil
}

// findCoordinator: the control shard coordinates all groups, and no transactions.
func (c *control) findCoordinator(listener uint8, r *kmsg.FindCoordinatorRequest, resp *kmsg.FindCoordinatorResponse) {
	node, failure, message := c.o.ClientNodes(listener)[0], kafka.None, (*string)(nil)
	if r.CoordinatorType != 0 {
		// What makes clients give up at once: they would try again for a minute
		// if there were only no coordinator yet.
		text := "This broker coordinates no transactions."
		node, failure, message = shard.Node{ID: -1, Port: -1}, kafka.TransactionalIDAuthorizationFailed, &text
		if r.CoordinatorType != 1 {
			text, failure = fmt.Sprintf("There is no coordinator of type %d.", r.CoordinatorType), kafka.InvalidRequest
		}
	}
	code := int16(failure)
	if r.Version < 4 {
		resp.ErrorCode, resp.ErrorMessage, resp.NodeID, resp.Host, resp.Port = code, message, node.ID, node.Host, node.Port
		return
	}
	for _, key := range r.CoordinatorKeys {
		x := kmsg.NewFindCoordinatorResponseCoordinator()
		x.Key, x.NodeID, x.Host, x.Port, x.ErrorCode, x.ErrorMessage = key, node.ID, node.Host, node.Port, code, message
		resp.Coordinators = append(resp.Coordinators, x)
	}
}

func (c *control) describeCluster(listener uint8, r *kmsg.DescribeClusterRequest, resp *kmsg.DescribeClusterResponse) {
	resp.EndpointType = 1
	if r.Version >= 1 && r.EndpointType != 1 {
		code, message := kafka.UnsupportedEndpointType, fmt.Sprintf("Unsupported endpoint type %d.", r.EndpointType)
		if r.EndpointType == 2 {
			code, message = kafka.MismatchedEndpointType, "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER."
		}
		resp.ErrorCode, resp.ErrorMessage = int16(code), &message
		return
	}
	resp.ClusterID, resp.ControllerID = c.o.ClusterID, c.o.Nodes[0].ID
	for _, n := range c.o.ClientNodes(listener) {
		b := kmsg.NewDescribeClusterResponseBroker()
		b.NodeID, b.Host, b.Port = n.ID, n.Host, n.Port
		resp.Brokers = append(resp.Brokers, b)
	}
}

// The hot keys on the control shard's own node: it leads no partition, and says
// so of those that exist.

// elsewhereID is elsewhere for a request that names topics by id.
func (c *control) elsewhereID(id [16]byte, partition int32) int16 {
	if t, ok := c.state.TopicByID(id); ok {
		return c.elsewhere(t.Name, partition)
	}
	return int16(kafka.UnknownTopicID)
}

func (c *control) elsewhere(topic string, partition int32) int16 {
	if t, ok := c.state.Topic(topic); ok && partition >= 0 && int(partition) < len(t.Partitions) {
		return int16(kafka.NotLeaderOrFollower)
	}
	return int16(kafka.UnknownTopicOrPartition)
}

// notHereProduce says whether the connection is to be closed: with acks=0 there
// is no answer in which an error could stand.
func (c *control) notHereProduce(r *kmsg.ProduceRequest, resp *kmsg.ProduceResponse) (closeIt bool) {
	for _, t := range r.Topics {
		x := kmsg.NewProduceResponseTopic()
		x.Topic, x.TopicID = t.Topic, t.TopicID
		for _, p := range t.Partitions {
			y := kmsg.NewProduceResponseTopicPartition()
			y.Partition, y.ErrorCode, y.BaseOffset, y.LogStartOffset = p.Partition, c.elsewhere(t.Topic, p.Partition), -1, -1
			if r.Version >= kafka.ProduceByID {
				y.ErrorCode = c.elsewhereID(t.TopicID, p.Partition)
			}
			x.Partitions = append(x.Partitions, y)
		}
		resp.Topics = append(resp.Topics, x)
	}
	return r.Acks == 0
}

func (c *control) notHereFetch(r *kmsg.FetchRequest, resp *kmsg.FetchResponse) {
	for _, t := range r.Topics {
		x := kmsg.NewFetchResponseTopic()
		x.Topic, x.TopicID = t.Topic, t.TopicID
		for _, p := range t.Partitions {
			y := kmsg.NewFetchResponseTopicPartition()
			y.Partition, y.ErrorCode, y.HighWatermark, y.LastStableOffset, y.LogStartOffset = p.Partition, c.elsewhere(t.Topic, p.Partition), -1, -1, -1
			if r.Version >= kafka.FetchByID {
				y.ErrorCode = c.elsewhereID(t.TopicID, p.Partition)
			}
			x.Partitions = append(x.Partitions, y)
		}
		resp.Topics = append(resp.Topics, x)
	}
}

func (c *control) notHereOffsets(r *kmsg.ListOffsetsRequest, resp *kmsg.ListOffsetsResponse) {
	type partition struct {
		topic string
		index int32
	}
	times := map[partition]int{}
	for _, t := range r.Topics {
		for _, p := range t.Partitions {
			times[partition{t.Topic, p.Partition}]++
		}
	}
	for _, t := range r.Topics {
		x := kmsg.NewListOffsetsResponseTopic()
		x.Topic = t.Topic
		for _, p := range t.Partitions {
			y := kmsg.NewListOffsetsResponseTopicPartition()
			y.Partition, y.ErrorCode, y.Timestamp, y.Offset = p.Partition, c.elsewhere(t.Topic, p.Partition), -1, -1
			if times[partition{t.Topic, p.Partition}] > 1 {
				y.ErrorCode = int16(kafka.InvalidRequest)
			}
			x.Partitions = append(x.Partitions, y)
		}
		resp.Topics = append(resp.Topics, x)
	}
}

func (c *control) notHereEpochs(r *kmsg.OffsetForLeaderEpochRequest, resp *kmsg.OffsetForLeaderEpochResponse) {
	for _, t := range r.Topics {
		x := kmsg.NewOffsetForLeaderEpochResponseTopic()
		x.Topic = t.Topic
		for _, p := range t.Partitions {
			y := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
			y.Partition, y.ErrorCode, y.EndOffset, y.LeaderEpoch = p.Partition, c.elsewhere(t.Topic, p.Partition), -1, -1
			x.Partitions = append(x.Partitions, y)
		}
		resp.Topics = append(resp.Topics, x)
	}
}

// apiVersionsBody is the answer to ApiVersions at a version, without its
// correlation id: the same for every client, made once.
func apiVersionsBody(version int16) []byte {
	r := kmsg.NewPtrApiVersionsResponse()
	r.SetVersion(version)
	for _, k := range kafka.Keys() {
		x := kmsg.NewApiVersionsResponseApiKey()
		x.ApiKey, x.MinVersion, x.MaxVersion = k.Key, k.Min, k.Max
		r.ApiKeys = append(r.ApiKeys, x)
	}
	return r.AppendTo(nil)
}

// apiVersionsRefusal is the answer to a version of ApiVersions that is not
// served: the body of version 0 with UNSUPPORTED_VERSION and the keys (KIP-511).
func apiVersionsRefusal() []byte {
	r := kmsg.NewPtrApiVersionsResponse()
	r.ErrorCode = int16(kafka.UnsupportedVersion)
	for _, k := range kafka.Keys() {
		x := kmsg.NewApiVersionsResponseApiKey()
		x.ApiKey, x.MinVersion, x.MaxVersion = k.Key, k.Min, k.Max
		r.ApiKeys = append(r.ApiKeys, x)
	}
	return r.AppendTo(nil)
}

// apiVersionsInvalid is the answer to a client that names its software as
// KIP-511 does not allow.
func apiVersionsInvalid(version int16) []byte {
	r := kmsg.NewPtrApiVersionsResponse()
	r.SetVersion(version)
	r.ErrorCode = int16(kafka.InvalidRequest)
	return r.AppendTo(nil)
}
