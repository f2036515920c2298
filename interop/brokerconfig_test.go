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
	needReal(t, "it lists loggers, and in no order")
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
	brokers := make([]string, len(nodes))
	for i, node := range nodes {
		brokers[i] = fmt.Sprint("BROKER ", node.NodeID)
	}
	named := []string{"TOPIC " + topics[0], "TOPIC " + topics[1]}
	for _, node := range nodes {
		for _, c := range []struct {
			kinds []int8
			want  []string
		}{
			{nil, slices.Concat(groups, brokers, named)},
			{[]int8{2}, named},
			{[]int8{4, 4}, brokers},
			{[]int8{32, 2}, slices.Concat(groups, named)},
			{[]int8{8, 16}, nil},
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
