package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// admin is franz-go's administrative client.
func admin(t *testing.T, b *broker) *kadm.Client {
	t.Helper()
	cl, err := franz{}.dial(b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return kadm.NewClient(cl)
}

// configured creates a topic of one partition with configurations, and returns the address of its leader.
func configured(t *testing.T, b *broker, adm *kadm.Client, topic string, configs map[string]string) (leader string) {
	t.Helper()
	set := map[string]*string{}
	for k, v := range configs {
		set[k] = &v
	}
	if _, err := adm.CreateTopic(within(t, time.Minute), 1, 1, set, topic); err != nil {
		t.Fatal(err)
	}
	return leaderOf(t, b, topic, 0)
}

func alterTopic(ctx context.Context, adm *kadm.Client, topic string, edits ...kadm.AlterConfig) error {
	rs, err := adm.AlterTopicConfigs(ctx, edits, topic)
	if err != nil {
		return err
	}
	return rs[0].Err
}

func setConfig(name, value string) kadm.AlterConfig {
	return kadm.AlterConfig{Op: kadm.SetConfig, Name: name, Value: &value}
}

// configOf is one configuration of a topic, as it is described.
func configOf(t *testing.T, adm *kadm.Client, topic, name string) *kadm.Config {
	t.Helper()
	rs, err := adm.DescribeTopicConfigs(within(t, time.Minute), topic)
	if err != nil || len(rs) != 1 || rs[0].Err != nil {
		t.Fatalf("DescribeConfigs: %v %+v", err, rs)
	}
	for _, c := range rs[0].Configs {
		if c.Key == name {
			return &c
		}
	}
	t.Fatalf("%s is not described", name)
	return nil
}

// TestConfigs: what is altered is described and in force, at once and in the next life.
func TestConfigs(t *testing.T) {
	needReal(t, "its defaults are its own")
	b := ownBroker(t)
	adm := admin(t, b)
	ctx := within(t, time.Minute)
	topic := topicName(t)
	leader := configured(t, b, adm, topic, map[string]string{"retention.ms": "86400000"})

	c := configOf(t, adm, topic, "retention.ms")
	if c.MaybeValue() != "86400000" || c.Source != kmsg.ConfigSourceDynamicTopicConfig || len(c.Synonyms) != 2 || c.Synonyms[1].Key != "log.retention.ms" || *c.Synonyms[1].Value != "604800000" {
		t.Errorf("retention.ms is described as %+v", c)
	}
	if c := configOf(t, adm, topic, "segment.ms"); c.MaybeValue() != "604800000" || c.Source != kmsg.ConfigSourceDefaultConfig {
		t.Errorf("segment.ms is described as %+v", c)
	}
	big := bytesOf(batchOf(strings.Repeat("x", 2000)))
	mustProduce(t, dialTo(t, leader), topic, big)
	if err := alterTopic(ctx, adm, topic, setConfig("max.message.bytes", "1000"), setConfig("message.timestamp.type", "LogAppendTime")); err != nil {
		t.Fatal(err)
	}
	inForce := func(life string) {
		t.Helper()
		if c := configOf(t, adm, topic, "max.message.bytes"); c.MaybeValue() != "1000" || c.Source != kmsg.ConfigSourceDynamicTopicConfig {
			t.Errorf("%s: max.message.bytes is described as %+v", life, c)
		}
		w := dialTo(t, leader)
		p := mustAsk[*kmsg.ProduceResponse](t, w, produceRequest(topic, 7, -1, big)).Topics[0].Partitions[0]
		if p.ErrorCode != kerr.MessageTooLarge.Code {
			t.Errorf("%s: a batch of more than max.message.bytes: error %d", life, p.ErrorCode)
		}
		before := time.Now().UnixMilli()
		old := batchOf("old")
		old.FirstTimestamp, old.MaxTimestamp = 1000, 1000
		sent := bytesOf(old)
		p = mustAsk[*kmsg.ProduceResponse](t, w, produceRequest(topic, 7, -1, sent)).Topics[0].Partitions[0]
		if p.ErrorCode != 0 || p.LogAppendTime < before || p.LogAppendTime > time.Now().UnixMilli() {
			t.Fatalf("%s: produced with LogAppendTime: error %d, time %d, asked at %d", life, p.ErrorCode, p.LogAppendTime, before)
		}
		raw := mustAsk[*kmsg.FetchResponse](t, w, fetchRequest(topic, 11, p.BaseOffset, 0)).Topics[0].Partitions[0].RecordBatches
		var got kmsg.RecordBatch
		if err := got.ReadFrom(raw); err != nil || got.MaxTimestamp != p.LogAppendTime || got.Attributes != 8 {
			t.Errorf("%s: stored: %v, attributes %#x, time %d; answered %d", life, err, got.Attributes, got.MaxTimestamp, p.LogAppendTime)
		}
		if !bytes.Equal(seal(bytes.Clone(raw)), raw) || !bytes.Equal(raw[43:], sent[43:]) {
			t.Errorf("%s: the checksum is wrong, or more was changed than the time", life)
		}
		l := mustAsk[*kmsg.ListOffsetsResponse](t, w, listRequest(topic, 4, before)).Topics[0].Partitions[0]
		if l.Timestamp < before || l.Offset < 1 || l.Offset > p.BaseOffset {
			t.Errorf("%s: ListOffsets by time: %+v, want a batch's own append time", life, l)
		}
	}
	inForce("as altered")
	b.kill()
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	leader = leaderOf(t, b, topic, 0)
	inForce("after kill -9")
	if c := configOf(t, adm, topic, "retention.ms"); c.MaybeValue() != "86400000" {
		t.Errorf("after kill -9 retention.ms is %s", c.MaybeValue())
	}
	// The older AlterConfigs replaces them all.
	rs, err := adm.AlterTopicConfigsState(ctx, []kadm.AlterConfig{setConfig("segment.ms", "5000")}, topic)
	if err != nil || rs[0].Err != nil {
		t.Fatalf("AlterConfigs: %v %+v", err, rs)
	}
	if c := configOf(t, adm, topic, "max.message.bytes"); c.Source != kmsg.ConfigSourceDefaultConfig || configOf(t, adm, topic, "segment.ms").MaybeValue() != "5000" {
		t.Errorf("after AlterConfigs max.message.bytes is %+v", c)
	}
	mustProduce(t, dialTo(t, leader), topic, big)
	if err := alterTopic(ctx, adm, topic, kadm.AlterConfig{Op: kadm.DeleteConfig, Name: "segment.ms"}, kadm.AlterConfig{Op: kadm.AppendConfig, Name: "cleanup.policy", Value: kmsg.StringPtr("delete")}); err != nil {
		t.Fatal(err)
	}
	if configOf(t, adm, topic, "segment.ms").Source != kmsg.ConfigSourceDefaultConfig || configOf(t, adm, topic, "cleanup.policy").MaybeValue() != "delete" {
		t.Error("a configuration that was deleted is still set, or one appended to is not")
	}
}

// TestMirroredConfigs: a topic is made with every configuration that Apache Kafka 4.4 describes one with, at its default there, as a mirror or a tool sends it,
// and is described with them.
func TestMirroredConfigs(t *testing.T) {
	needReal(t, "it has other configurations")
	b := sharedBroker(t)
	adm := admin(t, b)
	source := map[string]string{
		"cleanup.policy": "delete", "compression.gzip.level": "-1", "compression.lz4.level": "9", "compression.type": "producer", "compression.zstd.level": "3",
		"delete.retention.ms": "86400000", "errors.deadletterqueue.group.enable": "false", "file.delete.delay.ms": "60000", "flush.messages": "9223372036854775807",
		"flush.ms": "9223372036854775807", "follower.replication.throttled.replicas": "", "index.interval.bytes": "4096", "leader.replication.throttled.replicas": "",
		"local.retention.bytes": "-2", "local.retention.ms": "-2", "max.compaction.lag.ms": "9223372036854775807", "max.decompressed.message.bytes": "2147483639",
		"max.message.bytes": "1048588", "message.timestamp.after.max.ms": "3600000", "message.timestamp.before.max.ms": "9223372036854775807",
		"message.timestamp.type": "CreateTime", "min.cleanable.dirty.ratio": "0.5", "min.compaction.lag.ms": "0", "min.insync.replicas": "1", "preallocate": "false",
		"remote.copy.lag.bytes": "-1", "remote.copy.lag.ms": "0", "remote.log.copy.disable": "false", "remote.log.delete.on.disable": "false",
		"remote.storage.enable": "false", "retention.bytes": "-1", "retention.ms": "604800000", "segment.bytes": "1073741824", "segment.index.bytes": "10485760",
		"segment.jitter.ms": "0", "segment.ms": "604800000", "unclean.leader.election.enable": "false",
	}
	topic := topicName(t)
	configured(t, b, adm, topic, source)
	for name, value := range source {
		if c := configOf(t, adm, topic, name); c.MaybeValue() != value || c.Source != kmsg.ConfigSourceDynamicTopicConfig {
			t.Errorf("%s is %q of %v, want %q", name, c.MaybeValue(), c.Source, value)
		}
	}
	// Beside a reassignment kafka-reassign-partitions sets lists, and takes them away again.
	ctx := within(t, time.Minute)
	for _, edit := range []kadm.AlterConfig{
		setConfig("leader.replication.throttled.replicas", "0:1"),
		{Op: kadm.AppendConfig, Name: "leader.replication.throttled.replicas", Value: kmsg.StringPtr("1:2")},
		{Op: kadm.SubtractConfig, Name: "leader.replication.throttled.replicas", Value: kmsg.StringPtr("0:1")},
	} {
		if err := alterTopic(ctx, adm, topic, edit); err != nil {
			t.Errorf("throttled replicas, operation %v: %v", edit.Op, err)
		}
	}
	if c := configOf(t, adm, topic, "leader.replication.throttled.replicas"); c.MaybeValue() != "1:2" {
		t.Errorf("throttled replicas are %q", c.MaybeValue())
	}
	for name, value := range map[string]string{"remote.storage.enable": "true", "errors.deadletterqueue.group.enable": "true", "max.decompressed.message.bytes": "1048576", "compression.gzip.level": "0"} {
		if rs, err := adm.AlterTopicConfigs(ctx, []kadm.AlterConfig{setConfig(name, value)}, topic); err != nil || !errors.Is(rs[0].Err, kerr.InvalidConfig) || !strings.Contains(rs[0].ErrMessage, name) {
			t.Errorf("%s=%s: %v %+v", name, value, err, rs)
		}
	}
}

// TestConfigRefusals: bad input is refused by name, with Kafka's codes, and nothing is changed.
func TestConfigRefusals(t *testing.T) {
	needReal(t, "it has other configurations")
	b := sharedBroker(t)
	adm := admin(t, b)
	ctx := within(t, time.Minute)
	topic := topicName(t)
	configured(t, b, adm, topic, map[string]string{"retention.ms": "77"})
	for _, c := range []struct {
		what, topic string
		edits       []kadm.AlterConfig
		want        *kerr.Error
		says        string
	}{
		{"an unknown configuration", topic, []kadm.AlterConfig{setConfig("retention.msec", "1")}, kerr.InvalidConfig, "Unknown topic config name: retention.msec"},
		{"a unit", topic, []kadm.AlterConfig{setConfig("retention.ms", "7d")}, kerr.InvalidConfig, "LONG"},
		{"a size with a unit", topic, []kadm.AlterConfig{setConfig("segment.bytes", "1GiB")}, kerr.InvalidConfig, "INT"},
		{"too small", topic, []kadm.AlterConfig{setConfig("retention.ms", "-2")}, kerr.InvalidConfig, "at least -1"},
		{"one bad among good", topic, []kadm.AlterConfig{setConfig("segment.ms", "5"), setConfig("retention.bytes", "much")}, kerr.InvalidConfig, "retention.bytes"},
		{"compaction", topic, []kadm.AlterConfig{setConfig("cleanup.policy", "compact")}, kerr.InvalidConfig, "delete"},
		{"compaction too", topic, []kadm.AlterConfig{{Op: kadm.AppendConfig, Name: "cleanup.policy", Value: kmsg.StringPtr("compact")}}, kerr.InvalidConfig, "delete"},
		{"neither true nor false", topic, []kadm.AlterConfig{setConfig("write.caching", "yes")}, kerr.InvalidConfig, "true or false"},
		{"more than the broker takes", topic, []kadm.AlterConfig{setConfig("max.message.bytes", "2000000000")}, kerr.InvalidConfig, "message.max.bytes"},
		{"no value", topic, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms"}}, kerr.InvalidRequest, "retention.ms"},
		{"appending to a number", topic, []kadm.AlterConfig{{Op: kadm.AppendConfig, Name: "retention.ms", Value: kmsg.StringPtr("1")}}, kerr.InvalidConfig, "not a list"},
		{"twice", topic, []kadm.AlterConfig{setConfig("retention.ms", "1"), setConfig("retention.ms", "2")}, kerr.InvalidRequest, "twice"},
		{"of an unknown topic", topic + ".not", []kadm.AlterConfig{setConfig("retention.ms", "1")}, kerr.UnknownTopicOrPartition, ""},
		{"of an invalid topic", "in valid", []kadm.AlterConfig{setConfig("retention.ms", "1")}, kerr.InvalidTopicException, ""},
	} {
		rs, err := adm.AlterTopicConfigs(ctx, c.edits, c.topic)
		if err != nil || len(rs) != 1 || !errors.Is(rs[0].Err, c.want) || !strings.Contains(rs[0].ErrMessage, c.says) {
			t.Errorf("%s: %v %+v; want %v with %q", c.what, err, rs, c.want, c.says)
		}
	}
	if rs, err := adm.ValidateAlterTopicConfigs(ctx, []kadm.AlterConfig{setConfig("retention.ms", "99")}, topic); err != nil || rs[0].Err != nil {
		t.Errorf("a rehearsal: %v %+v", err, rs)
	}
	if c := configOf(t, adm, topic, "retention.ms"); c.MaybeValue() != "77" {
		t.Errorf("what was refused or rehearsed changed retention.ms to %s", c.MaybeValue())
	}
	if _, err := adm.CreateTopic(ctx, 1, 1, map[string]*string{"max.messages": kmsg.StringPtr("1")}, topic+".new"); !errors.Is(err, kerr.InvalidConfig) {
		t.Errorf("creating with an unknown configuration: %v", err)
	}

	ds, err := adm.DescribeBrokerConfigs(ctx, 1)
	if err != nil || ds[0].Err != nil {
		t.Fatalf("DescribeConfigs of broker 1: %v %+v", err, ds)
	}
	have := map[string]string{}
	for _, c := range ds[0].Configs {
		have[c.Key] = c.MaybeValue()
	}
	if have["node.id"] != "1" || have["message.max.bytes"] != "1048588" || have["log.retention.ms"] != "604800000" || have["num.partitions"] != "1" {
		t.Errorf("broker 1 is described as %v", have)
	}
	if ds, err := adm.DescribeBrokerConfigs(ctx, 99); err == nil && ds[0].Err == nil {
		t.Error("broker 99 is described")
	}
	for name, want := range map[string]*kerr.Error{"log.dirs": kerr.InvalidRequest, "group.max.size": kerr.InvalidRequest, "log.segment.bytes": kerr.InvalidConfig, "no.such": kerr.InvalidConfig} {
		req := kmsg.NewPtrIncrementalAlterConfigsRequest()
		q := kmsg.NewIncrementalAlterConfigsRequestResource()
		q.ResourceType, q.ResourceName = kmsg.ConfigResourceTypeBroker, "1"
		k := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		k.Name, k.Value = name, kmsg.StringPtr("1")
		q.Configs = append(q.Configs, k)
		req.Resources = append(req.Resources, q)
		if x := mustAsk[*kmsg.IncrementalAlterConfigsResponse](t, dialTo(t, b.addr()), req).Resources[0]; x.ErrorCode != want.Code {
			t.Errorf("altering %s of broker 1: error %d, want %v", name, x.ErrorCode, want)
		}
		req.Resources = append(req.Resources, q)
		for _, x := range mustAsk[*kmsg.IncrementalAlterConfigsResponse](t, dialTo(t, b.addr()), req).Resources {
			if x.ErrorCode != kerr.InvalidRequest.Code {
				t.Errorf("a resource given twice: error %d", x.ErrorCode)
			}
		}
	}
}

// TestTimestampLimits: a record whose time is too far from the broker's is refused.
func TestTimestampLimits(t *testing.T) {
	needReal(t, "it looks at no times")
	b := sharedBroker(t)
	adm := admin(t, b)
	topic := topicName(t)
	leader := configured(t, b, adm, topic, map[string]string{"message.timestamp.before.max.ms": "60000", "message.timestamp.after.max.ms": "60000"})
	w := dialTo(t, leader)
	now := time.Now().UnixMilli()
	for _, c := range []struct {
		first, largest, delta int64
		want                  int16
	}{
		{now, now, 0, 0},
		{now - 30000, now + 30000, 0, 0},
		{now, now + 90000, 90000, kerr.InvalidTimestamp.Code},
		{now, now + 90000, 0, 0}, // a claim that its record does not bear out
		{now - 90000, now, 0, kerr.InvalidTimestamp.Code},
		{now, now, -90000, kerr.InvalidTimestamp.Code}, // the record's own, which the header does not tell
		{-1, -1, 0, 0},                                 // none
	} {
		batch := batchOf("x")
		r := kmsg.Record{Value: []byte("x"), TimestampDelta64: c.delta}
		r.Length = int32(len(r.AppendTo(nil)) - 1)
		batch.FirstTimestamp, batch.MaxTimestamp, batch.Records = c.first, c.largest, r.AppendTo(nil)
		p := mustAsk[*kmsg.ProduceResponse](t, w, produceRequest(topic, 7, -1, bytesOf(batch))).Topics[0].Partitions[0]
		if p.ErrorCode != c.want {
			t.Errorf("%+v less now %d: error %d", c, now, p.ErrorCode)
		}
	}
}

// TestCreatePartitions: a topic grows while it is in use; its records stay where they are, and the new partitions take some, in the next life too.
func TestCreatePartitions(t *testing.T) {
	t.Parallel()
	b := ownBroker(t)
	adm := admin(t, b)
	ctx := within(t, time.Minute)
	topic := topicName(t)
	configured(t, b, adm, topic, nil)
	rs := []record{{timeMS: dawn, value: []byte("before")}}
	produce := func(partition int32, offset int64, value string) record {
		t.Helper()
		r := record{partition: partition, offset: offset, timeMS: dawn, value: []byte(value)}
		got, err := franz{}.produce(ctx, b, topic, produceOptions{acks: -1, idempotent: true}, []record{r})
		if err != nil || got[0] != offset {
			t.Fatalf("produced to partition %d at %v: %v", partition, got, err)
		}
		return r
	}
	produce(0, 0, "before")
	for _, c := range []struct {
		what  string
		topic string
		count int
		want  *kerr.Error
	}{
		{"to what it has", topic, 1, kerr.InvalidPartitions},
		{"to none", topic, 0, kerr.InvalidPartitions},
		{"to -1", topic, -1, kerr.InvalidPartitions},
		{"to a million", topic, 1_000_000, kerr.InvalidPartitions},
		{"of a topic that is not", topic + ".not", 5, kerr.UnknownTopicOrPartition},
	} {
		if b.fake != nil && c.count > 0 {
			continue // kfake has no limit, and takes what there is
		}
		if got := updatePartitions(t, b, c.topic, int32(c.count), false); got.ErrorCode != c.want.Code {
			t.Errorf("growing %s: error %d, want %v", c.what, got.ErrorCode, c.want)
		}
	}
	if got := updatePartitions(t, b, topic, 7, true); got.ErrorCode != 0 {
		t.Errorf("a rehearsal: error %d", got.ErrorCode)
	}
	if n := len(metadata(t, dialTo(t, b.addr()), topic).Topics[0].Partitions); n != 1 {
		t.Fatalf("what was refused or rehearsed made %d partitions", n)
	}
	if r, err := adm.UpdatePartitions(ctx, 4, topic); err != nil || r[topic].Err != nil {
		t.Fatalf("growing to 4: %v %+v", err, r)
	}
	for p := range int32(4) {
		leaderOf(t, b, topic, p)
	}
	for p := int32(1); p < 4; p++ {
		rs = append(rs, produce(p, 0, fmt.Sprint("new ", p)))
	}
	rs = append(rs, produce(0, 1, "after"))
	if b.fake != nil {
		return
	}
	verify := func(life string, counts []int) {
		t.Helper()
		got, err := franz{}.consume(ctx, b, topic, zeroes(len(counts)), counts)
		if err != nil {
			t.Fatalf("%s: %v", life, err)
		}
		if err := same(rs, got, nullness{}); err != nil {
			t.Errorf("%s: %v", life, err)
		}
	}
	verify("grown", []int{2, 1, 1, 1})
	b.kill()
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	verify("after kill -9", []int{2, 1, 1, 1})
	if r, err := adm.CreatePartitions(ctx, 3, topic); err != nil || r[topic].Err != nil {
		t.Fatalf("growing by 3: %v %+v", err, r)
	}
	rs = append(rs, produce(6, 0, "newest"))
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	b.shards = 3
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	verify("on three shards", []int{2, 1, 1, 1, 0, 0, 1})
	if r, err := adm.DeleteTopic(ctx, topic); err != nil || r.Err != nil {
		t.Fatalf("deleting what has grown: %v %+v", err, r)
	}
	configured(t, b, adm, topic, nil)
	if n := len(metadata(t, dialTo(t, b.addr()), topic).Topics[0].Partitions); n != 1 {
		t.Errorf("made anew it has %d partitions", n)
	}
}

// updatePartitions asks for a number of partitions as no client would.
func updatePartitions(t *testing.T, b *broker, topic string, count int32, validate bool) kmsg.CreatePartitionsResponseTopic {
	t.Helper()
	req := kmsg.NewPtrCreatePartitionsRequest()
	req.Version, req.TimeoutMillis, req.ValidateOnly = 1, 10000, validate
	q := kmsg.NewCreatePartitionsRequestTopic()
	q.Topic, q.Count = topic, count
	req.Topics = append(req.Topics, q)
	w := dialTo(t, b.addr())
	if b.fake != nil {
		m := metadata(t, w, "")
		for _, n := range m.Brokers {
			if n.NodeID == m.ControllerID {
				w = dialTo(t, fmt.Sprintf("%s:%d", n.Host, n.Port))
			}
		}
	}
	return mustAsk[*kmsg.CreatePartitionsResponse](t, w, req).Topics[0]
}

// TestAssignment: partitions are made on the nodes a client names, or not at all.
func TestAssignment(t *testing.T) {
	needReal(t, "its nodes are laid out otherwise")
	b := sharedBroker(t)
	create := func(topic string, partitions int32, factor int16, on ...[]int32) int16 {
		t.Helper()
		req := kmsg.NewPtrCreateTopicsRequest()
		req.Version, req.TimeoutMillis = 5, 10000
		q := kmsg.NewCreateTopicsRequestTopic()
		q.Topic, q.NumPartitions, q.ReplicationFactor = topic, partitions, factor
		for i, r := range on {
			a := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
			a.Partition, a.Replicas = int32(i), r
			q.ReplicaAssignment = append(q.ReplicaAssignment, a)
		}
		req.Topics = append(req.Topics, q)
		return mustAsk[*kmsg.CreateTopicsResponse](t, dialTo(t, b.addr()), req).Topics[0].ErrorCode
	}
	leaders := func(topic string) (on []int32) {
		for _, p := range metadata(t, dialTo(t, b.addr()), topic).Topics[0].Partitions {
			on = append(on, p.Leader)
		}
		return on
	}
	topic := topicName(t)
	if code := create(topic, -1, -1, []int32{2}, []int32{2}, []int32{1}, []int32{2}); code != 0 {
		t.Fatalf("an assignment: error %d", code)
	}
	if on := leaders(topic); fmt.Sprint(on) != "[2 2 1 2]" {
		t.Errorf("assigned to 2 2 1 2, the partitions are on %v", on)
	}
	mustProduce(t, dialTo(t, leaderOf(t, b, topic, 0)), topic, bytesOf(batchOf("there")))
	for _, c := range []struct {
		what       string
		partitions int32
		factor     int16
		on         [][]int32
		want       *kerr.Error
	}{
		{"with a number of partitions", 1, -1, [][]int32{{1}}, kerr.InvalidRequest},
		{"with a replication factor", -1, 1, [][]int32{{1}}, kerr.InvalidRequest},
		{"to a broker that is not there", -1, -1, [][]int32{{1}, {77}}, kerr.InvalidReplicaAssignment},
		{"to the control shard's node", -1, -1, [][]int32{{0}}, kerr.InvalidReplicaAssignment},
		{"to two brokers", -1, -1, [][]int32{{1, 2}}, kerr.InvalidReplicaAssignment},
		{"to none", -1, -1, [][]int32{{}}, kerr.InvalidReplicaAssignment},
	} {
		if code := create(topic+".not", c.partitions, c.factor, c.on...); code != c.want.Code {
			t.Errorf("an assignment %s: error %d, want %v", c.what, code, c.want)
		}
	}
	req := kmsg.NewPtrCreatePartitionsRequest()
	req.Version, req.TimeoutMillis = 3, 10000
	q := kmsg.NewCreatePartitionsRequestTopic()
	q.Topic, q.Count = topic, 6
	for _, on := range []int32{1, 1} {
		a := kmsg.NewCreatePartitionsRequestTopicAssignment()
		a.Replicas = []int32{on}
		q.Assignment = append(q.Assignment, a)
	}
	req.Topics = append(req.Topics, q)
	if code := mustAsk[*kmsg.CreatePartitionsResponse](t, dialTo(t, b.addr()), req).Topics[0].ErrorCode; code != 0 {
		t.Fatalf("growing with an assignment: error %d", code)
	}
	if on := leaders(topic); fmt.Sprint(on) != "[2 2 1 2 1 1]" {
		t.Errorf("the partitions are on %v", on)
	}
	req.Topics[0].Count, req.Topics[0].Assignment = 9, q.Assignment[:1]
	if code := mustAsk[*kmsg.CreatePartitionsResponse](t, dialTo(t, b.addr()), req).Topics[0].ErrorCode; code != kerr.InvalidReplicaAssignment.Code {
		t.Errorf("growing by 3 with one assignment: error %d", code)
	}
}

// TestDescribe: what operators ask for, answered with what is so.
func TestDescribe(t *testing.T) {
	needReal(t, "it describes itself otherwise")
	b := ownBroker(t)
	adm := admin(t, b)
	ctx := within(t, time.Minute)
	topic := topicName(t)
	if _, err := adm.CreateTopic(ctx, 4, 1, nil, topic); err != nil {
		t.Fatal(err)
	}
	var rs []record
	for i := range 40 {
		rs = append(rs, record{partition: int32(i % 4), offset: int64(i / 4), timeMS: dawn, value: bytes.Repeat([]byte("x"), 5000)})
	}
	if _, err := (franz{}).produce(ctx, b, topic, produceOptions{acks: -1, idempotent: true}, rs); err != nil {
		t.Fatal(err)
	}
	dirs, err := adm.DescribeAllLogDirs(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	dirs.Each(func(d kadm.DescribedLogDir) {
		if d.Err != nil || d.Dir != b.dir {
			t.Errorf("log dir %q of node %d: %v", d.Dir, d.Broker, d.Err)
		}
		for p, x := range d.Topics[topic] {
			found++
			if x.Size < 50_000 || x.Size > 200_000 {
				t.Errorf("partition %d on node %d has %d bytes, 50 kB were produced", p, d.Broker, x.Size)
			}
		}
		if d.Broker == 0 && len(d.Topics) > 0 {
			t.Errorf("the control shard's node holds %v", d.Topics)
		}
	})
	if len(dirs) != 1+dataShards || found != 4 {
		t.Errorf("%d nodes have log dirs, %d partitions were found in them", len(dirs), found)
	}

	set := kadm.TopicsSet{}
	set.Add(topic, 0, 3)
	ps, err := adm.DescribeProducers(ctx, set)
	if err != nil {
		t.Fatal(err)
	}
	for p, x := range ps[topic].Partitions {
		if x.Err != nil || len(x.ActiveProducers) != 1 {
			t.Errorf("producers of partition %d: %v, %d of them", p, x.Err, len(x.ActiveProducers))
			continue
		}
		for _, y := range x.ActiveProducers {
			if y.ProducerID < 0 || y.ProducerEpoch != 0 || y.LastSequence != 9 || y.LastTimestamp != dawn {
				t.Errorf("the producer of partition %d: %+v", p, y)
			}
		}
	}
	wrong := kmsg.NewPtrDescribeProducersRequest()
	wq := kmsg.NewDescribeProducersRequestTopic()
	wq.Topic, wq.Partitions = topic, []int32{0, 9}
	wrong.Topics = append(wrong.Topics, wq)
	w := dialTo(t, b.addr())
	if x := mustAsk[*kmsg.DescribeProducersResponse](t, w, wrong).Topics[0].Partitions; x[0].ErrorCode != kerr.NotLeaderForPartition.Code || x[1].ErrorCode != kerr.UnknownTopicOrPartition.Code || x[0].ErrorMessage == nil || x[1].ErrorMessage == nil {
		t.Errorf("producers asked of the wrong node: %+v", x)
	}

	// Page by page.
	var seen []int32
	req := kmsg.NewPtrDescribeTopicPartitionsRequest()
	req.ResponsePartitionLimit = 3
	for _, name := range []string{topic, topic + ".not"} {
		rt := kmsg.NewDescribeTopicPartitionsRequestTopic()
		rt.Topic = name
		req.Topics = append(req.Topics, rt)
	}
	unknown := 0
	for {
		r := mustAsk[*kmsg.DescribeTopicPartitionsResponse](t, w, req)
		for _, x := range r.Topics {
			if *x.Topic != topic {
				unknown++
				if x.ErrorCode != kerr.UnknownTopicOrPartition.Code {
					t.Errorf("%s: error %d", *x.Topic, x.ErrorCode)
				}
			}
			for _, p := range x.Partitions {
				seen = append(seen, p.Partition)
			}
		}
		if r.NextCursor == nil {
			break
		}
		at := kmsg.NewDescribeTopicPartitionsRequestCursor()
		at.Topic, at.Partition = r.NextCursor.Topic, r.NextCursor.Partition
		req.Cursor = &at
	}
	if fmt.Sprint(seen) != "[0 1 2 3]" || unknown != 1 {
		t.Errorf("described in pages: partitions %v, %d unknown topics", seen, unknown)
	}

	els, err := adm.ElectLeaders(ctx, kadm.ElectPreferredReplica, set)
	if err != nil || !errors.Is(els[topic][3].Err, kerr.ElectionNotNeeded) {
		t.Errorf("ElectLeaders: %v %+v", err, els)
	}
	if l, err := adm.ListPartitionReassignments(ctx, nil); err != nil || len(l) != 0 {
		t.Errorf("ListPartitionReassignments: %v %+v", err, l)
	}
}
