package interop

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func alterBroker(ctx context.Context, adm *kadm.Client, edits []kadm.AlterConfig, nodes ...int32) error {
	rs, err := adm.AlterBrokerConfigs(ctx, edits, nodes...)
	if err != nil {
		return err
	}
	return rs[0].Err
}

// brokerConfigOf is one configuration of a broker, or of all (none named), as it is described; nil where it is not.
func brokerConfigOf(t *testing.T, adm *kadm.Client, name string, nodes ...int32) *kadm.Config {
	t.Helper()
	rs, err := adm.DescribeBrokerConfigs(within(t, time.Minute), nodes...)
	if err != nil || len(rs) != 1 || rs[0].Err != nil {
		t.Fatalf("DescribeConfigs of brokers %v: %v %+v", nodes, err, rs)
	}
	for _, c := range rs[0].Configs {
		if c.Key == name {
			return &c
		}
	}
	return nil
}

func chain(c *kadm.Config) string {
	var out []string
	for _, s := range c.Synonyms {
		out = append(out, s.Source.String()+" "+s.Key+"="+*s.Value)
	}
	return strings.Join(out, ", ")
}

// TestBrokerConfigs: what a broker acts on may be altered without a restart, for one node or for all; it is described with where it came from, in force
// at once, and in the next life after kill -9; what a topic has of its own goes before it, and what is deleted falls back.
func TestBrokerConfigs(t *testing.T) {
	needReal(t, "its defaults are its own")
	b := ownBroker(t, "--num-partitions", "2", "--group-min-session-timeout", "100ms")
	adm := admin(t, b)
	ctx := within(t, time.Minute)
	topic := topicName(t)
	leader := configured(t, b, adm, topic, nil)
	node := metadata(t, dialTo(t, b.addr()), topic).Topics[0].Partitions[0].Leader

	if c := brokerConfigOf(t, adm, "num.partitions", 0); c.MaybeValue() != "2" || c.Source != kmsg.ConfigSourceStaticBrokerConfig || chain(c) != "STATIC_BROKER_CONFIG num.partitions=2, DEFAULT_CONFIG num.partitions=1" {
		t.Errorf("num.partitions is described as %+v: %s", c, chain(c))
	}
	if c := brokerConfigOf(t, adm, "log.retention.ms"); c != nil {
		t.Errorf("all brokers have a log.retention.ms that nobody set: %+v", c)
	}
	for _, x := range []struct {
		name, value string
		nodes       []int32
	}{
		{"message.max.bytes", "1000", nil},
		{"log.message.timestamp.type", "LogAppendTime", nil},
		{"num.partitions", "3", nil},
		{"auto.create.topics.enable", "false", []int32{0}},
		{"group.min.session.timeout.ms", "9000", []int32{0}},
		{"log.retention.ms", "7000000", nil},
		{"log.retention.ms", "8000000", []int32{node}},
		{"log.retention.check.interval.ms", "50", nil},
		{"offsets.retention.minutes", "20", nil},
	} {
		if err := alterBroker(ctx, adm, []kadm.AlterConfig{setConfig(x.name, x.value)}, x.nodes...); err != nil {
			t.Fatalf("%s=%s of %v: %v", x.name, x.value, x.nodes, err)
		}
	}
	big := bytesOf(batchOf(strings.Repeat("x", 2000)))
	inForce := func(life string) {
		t.Helper()
		w := dialTo(t, leader)
		if p := mustAsk[*kmsg.ProduceResponse](t, w, produceRequest(topic, 7, -1, big)).Topics[0].Partitions[0]; p.ErrorCode != kerr.MessageTooLarge.Code {
			t.Errorf("%s: a batch of more than message.max.bytes: error %d", life, p.ErrorCode)
		}
		before := time.Now().UnixMilli()
		if p := mustAsk[*kmsg.ProduceResponse](t, w, produceRequest(topic, 7, -1, bytesOf(batchOf("small")))).Topics[0].Partitions[0]; p.ErrorCode != 0 || p.LogAppendTime < before {
			t.Errorf("%s: produced with LogAppendTime: %+v", life, p)
		}
		made := topicName(t)
		if _, err := adm.CreateTopic(ctx, -1, 1, nil, made); err != nil {
			t.Fatal(err)
		}
		if m := metadata(t, dialTo(t, b.addr()), made); len(m.Topics[0].Partitions) != 3 {
			t.Errorf("%s: a new topic has %d partitions, want num.partitions, 3", life, len(m.Topics[0].Partitions))
		}
		auto, err := kgo.NewClient(kgo.SeedBrokers(b.addr()), kgo.AllowAutoTopicCreation(), kgo.UnknownTopicRetries(1))
		if err != nil {
			t.Fatal(err)
		}
		defer auto.Close()
		if err := auto.ProduceSync(ctx, &kgo.Record{Topic: made + ".auto", Value: []byte("v")}).FirstErr(); err != kerr.UnknownTopicOrPartition {
			t.Errorf("%s: without auto.create.topics.enable, producing to no topic: %v", life, err)
		}
		join := joinRequest(5, "g."+topic, "")
		join.SessionTimeoutMillis = 8999
		if x := mustAsk[*kmsg.JoinGroupResponse](t, dialTo(t, b.addr()), join); x.ErrorCode != kerr.InvalidSessionTimeout.Code {
			t.Errorf("%s: a session shorter than group.min.session.timeout.ms: error %d", life, x.ErrorCode)
		}
		if c := brokerConfigOf(t, adm, "log.retention.ms", node); chain(c) != "DYNAMIC_BROKER_CONFIG log.retention.ms=8000000, DYNAMIC_DEFAULT_BROKER_CONFIG log.retention.ms=7000000, DEFAULT_CONFIG log.retention.ms=604800000" {
			t.Errorf("%s: log.retention.ms of broker %d: %s", life, node, chain(c))
		}
		if c := brokerConfigOf(t, adm, "log.retention.ms"); c.MaybeValue() != "7000000" || c.Source != kmsg.ConfigSourceDynamicDefaultBrokerConfig {
			t.Errorf("%s: log.retention.ms of all brokers: %+v", life, c)
		}
		if c := configOf(t, adm, topic, "max.message.bytes"); c.MaybeValue() != "1000" || c.Source != kmsg.ConfigSourceDynamicDefaultBrokerConfig {
			t.Errorf("%s: the topic's max.message.bytes: %+v", life, c)
		}
	}
	inForce("as altered")
	b.kill()
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	leader = leaderOf(t, b, topic, 0)
	inForce("after kill -9")

	// Retention by a broker's configuration, on a node, and not where the topic has its own.
	kept := topicName(t)
	own := configured(t, b, adm, kept, map[string]string{"retention.ms": "-1", "max.message.bytes": "5000"})
	mustProduce(t, dialTo(t, own), kept, big)
	if err := alterBroker(ctx, adm, []kadm.AlterConfig{setConfig("log.roll.ms", "10"), setConfig("log.retention.ms", "10")}, 1, 2); err != nil {
		t.Fatal(err)
	}
	mustProduce(t, dialTo(t, leader), topic, bytesOf(batchOf("small")))
	eventually(t, "records older than log.retention.ms are gone", func() bool { return startOf(t, leader, topic) == endOf(t, leader, topic) })
	if startOf(t, own, kept) != 0 {
		t.Error("the broker's log.retention.ms went before the topic's retention.ms")
	}

	// What is deleted, or left out of AlterConfigs, falls back.
	if err := alterBroker(ctx, adm, []kadm.AlterConfig{{Op: kadm.DeleteConfig, Name: "message.max.bytes"}, {Op: kadm.DeleteConfig, Name: "log.retention.ms"}}); err != nil {
		t.Fatal(err)
	}
	mustProduce(t, dialTo(t, leader), topic, big)
	if rs, err := adm.AlterBrokerConfigsState(ctx, nil, 0); err != nil || rs[0].Err != nil {
		t.Fatal(err, rs)
	}
	if c := brokerConfigOf(t, adm, "auto.create.topics.enable", 0); c.MaybeValue() != "true" || c.Source != kmsg.ConfigSourceDefaultConfig {
		t.Errorf("auto.create.topics.enable is described as %+v", c)
	}
}

// TestGroupConfigs: configurations of one group, as kafka-configs --entity-type groups alters and describes them; they survive kill -9.
func TestGroupConfigs(t *testing.T) {
	needReal(t, "it has none")
	b := ownBroker(t, groupFlags...)
	w := dialTo(t, b.addr())
	alter := func(name, value string) (int16, string) {
		t.Helper()
		req := kmsg.NewPtrIncrementalAlterConfigsRequest()
		req.Version = 1
		x := kmsg.NewIncrementalAlterConfigsRequestResource()
		x.ResourceType, x.ResourceName = kmsg.ConfigResourceTypeGroupConfig, "g"
		k := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		k.Name, k.Value = name, &value
		x.Configs = append(x.Configs, k)
		req.Resources = append(req.Resources, x)
		r := mustAsk[*kmsg.IncrementalAlterConfigsResponse](t, w, req).Resources[0]
		why := ""
		if r.ErrorMessage != nil {
			why = *r.ErrorMessage
		}
		return r.ErrorCode, why
	}
	describe := func() map[string]string {
		t.Helper()
		req := kmsg.NewPtrDescribeConfigsRequest()
		req.Version = 4
		x := kmsg.NewDescribeConfigsRequestResource()
		x.ResourceType, x.ResourceName = kmsg.ConfigResourceTypeGroupConfig, "g"
		req.Resources = append(req.Resources, x)
		r := mustAsk[*kmsg.DescribeConfigsResponse](t, w, req).Resources[0]
		if r.ErrorCode != 0 {
			t.Fatalf("describing: %+v", r)
		}
		have := map[string]string{}
		for _, c := range r.Configs {
			have[c.Name] = fmt.Sprint(*c.Value, " ", c.Source)
		}
		return have
	}
	if code, why := alter("consumer.session.timeout.ms", "44999"); code != kerr.InvalidConfig.Code || why != "consumer.session.timeout.ms must be greater than or equal to group.consumer.min.session.timeout.ms" {
		t.Errorf("too short a session: %v %q", kerr.ErrorForCode(code), why)
	}
	if code, why := alter("consumer.heartbeat.interval.ms", "7000"); code != 0 {
		t.Fatalf("altering: %v %q", kerr.ErrorForCode(code), why)
	}
	if code, why := alter("consumer.assignment.interval.ms", "1000"); code != 0 {
		t.Fatalf("what Kafka has by default: %v %q", kerr.ErrorForCode(code), why)
	}
	want := map[string]string{
		"consumer.heartbeat.interval.ms": fmt.Sprint("7000 ", kmsg.ConfigSourceGroupConfig), "consumer.session.timeout.ms": fmt.Sprint("45000 ", kmsg.ConfigSourceDefaultConfig),
		"consumer.assignment.interval.ms": fmt.Sprint("1000 ", kmsg.ConfigSourceGroupConfig), "consumer.assignor.offload.enable": fmt.Sprint("false ", kmsg.ConfigSourceDefaultConfig),
	}
	if have := describe(); !maps.Equal(have, want) {
		t.Errorf("the group has %v, want %v", have, want)
	}
	b.kill()
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	w = dialTo(t, b.addr())
	if have := describe(); !maps.Equal(have, want) {
		t.Errorf("after kill -9 the group has %v, want %v", have, want)
	}
	join := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	join.Version, join.Group, join.MemberID, join.RebalanceTimeoutMillis, join.SubscribedTopicNames, join.Topics = 1, "g", "m", 1000, []string{"t"}, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	if r := mustAsk[*kmsg.ConsumerGroupHeartbeatResponse](t, w, join); r.ErrorCode != 0 || r.HeartbeatIntervalMillis != 7000 {
		t.Errorf("a member is told %+v", r)
	}
}

// TestConfigResources: the resources that have configurations are listed by every node, by type: topics, nodes, and the groups that have configurations of
// their own. A type without resources here is listed empty.
func TestConfigResources(t *testing.T) {
	needReal(t, "it lists in no order")
	b := ownBroker(t, groupFlags...)
	adm := admin(t, b)
	ctx := within(t, time.Minute)
	topics := []string{topicName(t) + ".a", topicName(t) + ".b"}
	slices.Sort(topics) // as they are listed; names have a count in front
	for _, topic := range topics {
		createTopic(t, b, topic, 1)
	}
	alter := func(group, value string) {
		t.Helper()
		req := kmsg.NewPtrIncrementalAlterConfigsRequest()
		out := kmsg.NewIncrementalAlterConfigsRequestResource()
		out.ResourceType, out.ResourceName = kmsg.ConfigResourceTypeGroupConfig, group
		config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		config.Name, config.Value = "consumer.heartbeat.interval.ms", &value
		if value == "" {
			config.Op, config.Value = kmsg.IncrementalAlterConfigOpDelete, nil
		}
		out.Configs = append(out.Configs, config)
		req.Resources = append(req.Resources, out)
		if resp := mustAsk[*kmsg.IncrementalAlterConfigsResponse](t, dialTo(t, b.addr()), req).Resources[0]; resp.ErrorCode != 0 {
			t.Fatalf("altering group %s: %+v", group, resp)
		}
	}
	alter("second", "7000")
	alter("first", "7000")
	alter("gone", "7000")
	alter("gone", "")

	client, err := franz{}.dial(b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	nodes, err := adm.ListBrokers(ctx)
	if err != nil {
		t.Fatal(err)
	}
	groups := []string{"GROUP_CONFIG first", "GROUP_CONFIG second"}
	brokers, loggers := make([]string, len(nodes)), make([]string, len(nodes))
	for i, node := range nodes {
		brokers[i], loggers[i] = fmt.Sprint("BROKER ", node.NodeID), fmt.Sprint("BROKER_LOGGER ", node.NodeID)
	}
	named := []string{"TOPIC " + topics[0], "TOPIC " + topics[1]}
	for _, node := range nodes {
		for _, c := range []struct {
			kinds []int8
			want  []string
		}{
			{nil, slices.Concat(groups, loggers, brokers, named)},
			{[]int8{2}, named},
			{[]int8{4, 4}, brokers},
			{[]int8{32, 2}, slices.Concat(groups, named)},
			{[]int8{8, 16}, loggers},
			{[]int8{16}, nil},
		} {
			req := kmsg.NewPtrListConfigResourcesRequest()
			req.ResourceTypes = c.kinds
			resp, err := client.Broker(int(node.NodeID)).Request(ctx, req)
			if err != nil {
				t.Fatalf("node %d: %v", node.NodeID, err)
			}
			r := resp.(*kmsg.ListConfigResourcesResponse)
			var have []string
			for _, resource := range r.ConfigResources {
				have = append(have, fmt.Sprint(kmsg.ConfigResourceType(resource.Type), " ", resource.Name))
			}
			if r.Version != 1 || r.ErrorCode != 0 || !slices.Equal(have, c.want) {
				t.Errorf("node %d lists of %d, in version %d, error %d: %q, want %q", node.NodeID, c.kinds, r.Version, r.ErrorCode, have, c.want)
			}
		}
		if r := mustAsk[*kmsg.ListConfigResourcesResponse](t, dialTo(t, node.Host+":"+fmt.Sprint(node.Port)), kmsg.NewPtrListConfigResourcesRequest()); r.ErrorCode != 0 || len(r.ConfigResources) != 0 {
			t.Errorf("node %d lists what subscribes to metrics: %+v", node.NodeID, r)
		}
	}
}

// TestAuthorizedOperations: as nothing is authorized, a client may do all that can be done to a topic and to the cluster, and is told so where it asks.
func TestAuthorizedOperations(t *testing.T) {
	needReal(t, "it tells none")
	b := sharedBroker(t)
	topic := topicName(t)
	createTopic(t, b, topic, 1)
	const none, topicBits, clusterBits = -1 << 31, 0xdf8, 0x1fa0
	w := dialTo(t, b.addr())
	for version := int16(8); version <= 13; version++ {
		for _, asks := range []bool{false, true} {
			req := kmsg.NewPtrMetadataRequest()
			req.Version, req.IncludeTopicAuthorizedOperations, req.IncludeClusterAuthorizedOperations = version, asks, asks
			for _, name := range []string{topic, topic + ".gone"} {
				rt := kmsg.NewMetadataRequestTopic()
				rt.Topic = kmsg.StringPtr(name)
				req.Topics = append(req.Topics, rt)
			}
			req.AllowAutoTopicCreation = false
			wantTopic, wantCluster := int32(none), int32(none)
			if asks {
				wantTopic, wantCluster = topicBits, clusterBits
			}
			if version > 10 { // it is not in the answer
				wantCluster = none
			}
			r := mustAsk[*kmsg.MetadataResponse](t, w, req)
			if r.AuthorizedOperations != wantCluster || r.Topics[0].AuthorizedOperations != wantTopic || r.Topics[1].AuthorizedOperations != none {
				t.Errorf("Metadata %d, asked: %t: of the cluster %#x, of a topic %#x, of one that is not there %#x", version, asks, r.AuthorizedOperations, r.Topics[0].AuthorizedOperations, r.Topics[1].AuthorizedOperations)
			}
		}
	}
	for _, asks := range []bool{false, true} {
		req := kmsg.NewPtrDescribeClusterRequest()
		req.Version, req.EndpointType, req.IncludeClusterAuthorizedOperations = 2, 1, asks
		want := map[bool]int32{false: none, true: clusterBits}[asks]
		if r := mustAsk[*kmsg.DescribeClusterResponse](t, w, req); r.ClusterAuthorizedOperations != want {
			t.Errorf("DescribeCluster, asked: %t: %#x, want %#x", asks, r.ClusterAuthorizedOperations, want)
		}
	}
	parts := kmsg.NewPtrDescribeTopicPartitionsRequest()
	x := kmsg.NewDescribeTopicPartitionsRequestTopic()
	x.Topic = topic
	parts.Topics = append(parts.Topics, x)
	if r := mustAsk[*kmsg.DescribeTopicPartitionsResponse](t, w, parts); r.Topics[0].AuthorizedOperations != topicBits {
		t.Errorf("DescribeTopicPartitions: %#x", r.Topics[0].AuthorizedOperations)
	}
}

// TestLoggersDescribed: the level of a broker's log is described as that of its root logger; of subscriptions to clients' metrics there is nothing to describe.
func TestLoggersDescribed(t *testing.T) {
	needReal(t, "it has no loggers")
	b := ownBroker(t, "--log-level", "warn")
	w := dialTo(t, b.addr())
	describe := func(kind kmsg.ConfigResourceType, name string) kmsg.DescribeConfigsResponseResource {
		req := kmsg.NewPtrDescribeConfigsRequest()
		x := kmsg.NewDescribeConfigsRequestResource()
		x.ResourceType, x.ResourceName = kind, name
		req.Version, req.Resources = 4, append(req.Resources, x)
		return mustAsk[*kmsg.DescribeConfigsResponse](t, w, req).Resources[0]
	}
	r := describe(kmsg.ConfigResourceTypeBrokerLogger, "0")
	if r.ErrorCode != 0 || len(r.Configs) != 1 || r.Configs[0].Name != "root" || *r.Configs[0].Value != "WARN" || r.Configs[0].Source != kmsg.ConfigSourceDynamicBrokerLoggerConfig || !r.Configs[0].ReadOnly {
		t.Errorf("the loggers of node 0: %+v", r)
	}
	if r := describe(kmsg.ConfigResourceTypeBrokerLogger, "77"); r.ErrorCode != kerr.InvalidRequest.Code {
		t.Errorf("the loggers of a node that is not there: %+v", r)
	}
	if r := describe(kmsg.ConfigResourceTypeClientMetrics, "any"); r.ErrorCode != 0 || len(r.Configs) != 0 {
		t.Errorf("a subscription: %+v", r)
	}
	if r := describe(kmsg.ConfigResourceTypeClientMetrics, ""); r.ErrorCode != kerr.InvalidRequest.Code {
		t.Errorf("a subscription without a name: %+v", r)
	}
}

// TestKeepAll: with an empty cleanup.policy nothing is deleted by age or size, and DeleteRecords still works (KIP-1161).
func TestKeepAll(t *testing.T) {
	needReal(t, "it deletes nothing by itself")
	b := ownBroker(t, "--retention-check-interval", "100ms")
	adm := admin(t, b)
	ctx := within(t, time.Minute)
	kept, gone := topicName(t)+".kept", topicName(t)+".gone"
	old := time.Now().Add(-time.Hour).UnixMilli()
	for topic, policy := range map[string]string{kept: "", gone: "delete,delete"} {
		configured(t, b, adm, topic, map[string]string{"cleanup.policy": policy, "retention.ms": "1000", "segment.ms": "1"})
		batch := batchOf("old")
		batch.FirstTimestamp, batch.MaxTimestamp = old, old
		for range 2 {
			mustProduce(t, dialTo(t, leaderOf(t, b, topic, 0)), topic, bytesOf(batch))
			time.Sleep(5 * time.Millisecond)
		}
	}
	if c := configOf(t, adm, gone, "cleanup.policy"); c.MaybeValue() != "delete" {
		t.Errorf("a policy that was given twice is %q", c.MaybeValue())
	}
	if c := configOf(t, adm, kept, "cleanup.policy"); c.MaybeValue() != "" || c.Source != kmsg.ConfigSourceDynamicTopicConfig {
		t.Errorf("an empty policy is %q of %v", c.MaybeValue(), c.Source)
	}
	start := func(topic string) int64 {
		r := mustAsk[*kmsg.ListOffsetsResponse](t, dialTo(t, leaderOf(t, b, topic, 0)), listRequest(topic, 7, -2))
		return r.Topics[0].Partitions[0].Offset
	}
	for limit := time.Now().Add(time.Minute); start(gone) == 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("nothing was deleted by age")
		}
	}
	if at := start(kept); at != 0 {
		t.Errorf("with an empty policy the log begins at %d", at)
	}
	to := kadm.Offsets{}
	to.Add(kadm.Offset{Topic: kept, Partition: 0, At: 1})
	if _, err := adm.DeleteRecords(ctx, to); err != nil || start(kept) != 1 {
		t.Errorf("DeleteRecords: %v, the log begins at %d", err, start(kept))
	}
}
