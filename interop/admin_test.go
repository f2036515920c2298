package interop

import (
	"bytes"
	"context"
	"errors"
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
		{"acknowledged from memory", topic, []kadm.AlterConfig{setConfig("write.caching", "true")}, kerr.InvalidConfig, "false"},
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

	// Brokers are described, and not altered.
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
	for name, want := range map[string]*kerr.Error{"log.retention.ms": kerr.InvalidRequest, "no.such": kerr.InvalidConfig} {
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
		{now, now + 90000, 0, kerr.InvalidTimestamp.Code},
		{now - 90000, now, 0, kerr.InvalidTimestamp.Code},
		{now, now, -90000, kerr.InvalidTimestamp.Code}, // the record's own, which the header does not tell
		{-1, -1, 0, 0}, // none
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
