package cluster

import (
	"errors"
	"fmt"
	"math/rand"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/kafka"
)

var roomy = Limits{TopicsMax: 1000, PartitionsPerTopicMax: 100, PartitionsMax: 10000, PartitionsDefault: 3}

func id(n uint64) (i [16]byte) {
	for k := range 8 {
		i[k] = byte(n >> (8 * k))
	}
	i[15] = 1
	return i
}

// must applies what a plan gave.
func must(t testing.TB, s *State) func([]byte, *Refusal) {
	return func(cmd []byte, r *Refusal) {
		t.Helper()
		if r != nil {
			t.Fatalf("refused: %v", r)
		}
		if err := s.Apply(cmd); err != nil {
			t.Fatalf("applying what was just planned: %v", err)
		}
	}
}

func TestRefusals(t *testing.T) {
	s := New()
	must(t, s)(s.PlanCreate("orders", 2, 1, nil, id(1), roomy))
	must(t, s)(s.PlanCreate("gone", 2, 1, nil, id(2), roomy))
	must(t, s)(s.PlanDelete("gone"))

	type plan func() ([]byte, *Refusal)
	create := func(name string, partitions, factor int, topic uint64, lim Limits, configs ...Config) plan {
		return func() ([]byte, *Refusal) { return s.PlanCreate(name, partitions, factor, configs, id(topic), lim) }
	}
	set := func(name, value string) plan { return create("t", 1, 1, 9, roomy, Config{name, value}) }
	alter := func(name string, replace bool, edits ...ConfigEdit) plan {
		return func() ([]byte, *Refusal) { return s.PlanConfigure(name, edits, replace, roomy) }
	}
	grow := func(name string, count int, on []int) plan {
		return func() ([]byte, *Refusal) {
			lim := roomy
			if count == 4 && on == nil {
				lim.PartitionsMax = 5
			}
			return s.PlanGrow(name, count, Placement{on, 2}, lim)
		}
	}
	narrow := Limits{TopicsMax: 2, PartitionsPerTopicMax: 3, PartitionsMax: 5, PartitionsDefault: 1}
	wide := narrow
	wide.TopicsMax = 9
	for _, c := range []struct {
		what string
		plan plan
		code kafka.ErrorCode
		says string
	}{
		{"empty name", create("", 1, 1, 9, roomy), kafka.InvalidTopic, "the empty string is not allowed"},
		{"dot", create(".", 1, 1, 9, roomy), kafka.InvalidTopic, "'.' is not allowed"},
		{"dots", create("..", 1, 1, 9, roomy), kafka.InvalidTopic, "'..' is not allowed"},
		{"long name", create(strings.Repeat("x", 250), 1, 1, 9, roomy), kafka.InvalidTopic, "longer than the max allowed length 249"},
		{"long binary name", create(strings.Repeat("\xff", 250), 1, 1, 9, roomy), kafka.InvalidTopic, "longer than"},
		{"space", create("a b", 1, 1, 9, roomy), kafka.InvalidTopic, "'a b' contains one or more characters other than"},
		{"slash", create("a/b", 1, 1, 9, roomy), kafka.InvalidTopic, "contains one or more"},
		{"umlaut", create("\u00fc", 1, 1, 9, roomy), kafka.InvalidTopic, "contains one or more"},
		{"NUL", create("a\x00", 1, 1, 9, roomy), kafka.InvalidTopic, "contains one or more"},
		{"exists", create("orders", 1, 1, 9, roomy), kafka.TopicAlreadyExists, "'orders' already exists"},
		{"no partitions", create("t", 0, 1, 9, roomy), kafka.InvalidPartitions, "non-positive"},
		{"-2 partitions", create("t", -2, 1, 9, roomy), kafka.InvalidPartitions, "non-positive"},
		{"many partitions", create("t", 101, 1, 9, roomy), kafka.InvalidPartitions, "at most 100"},
		{"beyond the ceiling", create("t", PartitionsPerTopicCeiling+1, 1, 9, Limits{1 << 30, 1 << 30, 1 << 30, 1, 0}), kafka.InvalidPartitions, "at most 65536"},
		{"factor 0", create("t", 1, 0, 9, roomy), kafka.InvalidReplicationFactor, "larger than 0"},
		{"factor -2", create("t", 1, -2, 9, roomy), kafka.InvalidReplicationFactor, "larger than 0"},
		{"factor 2", create("t", 1, 2, 9, roomy), kafka.InvalidReplicationFactor, "does not replicate"},
		{"zero id", func() ([]byte, *Refusal) { return s.PlanCreate("t", 1, 1, nil, [16]byte{}, roomy) }, kafka.InvalidRequest, "must not be zero"},
		{"id in use", create("t", 1, 1, 1, roomy), kafka.InvalidRequest, "in use"},
		{"id of a tombstone", create("t", 1, 1, 2, roomy), kafka.InvalidRequest, "in use"},
		{"topics, tombstone counted", create("t", 1, 1, 9, narrow), kafka.PolicyViolation, "2 topics, of at most 2"},
		{"partitions, tombstone's counted", create("t", 2, 1, 9, wide), kafka.PolicyViolation, "4 partitions, of at most 5"},
		{"unknown config", set("no.such", "1"), kafka.InvalidConfig, "Unknown topic config name: no.such"},
		{"a broker's config", set("num.partitions", "1"), kafka.InvalidConfig, "Unknown topic config"},
		{"config twice", create("t", 1, 1, 9, roomy, Config{"retention.ms", "1"}, Config{"retention.ms", "2"}), kafka.InvalidConfig, "given twice"},
		{"not a number", set("retention.ms", "soon"), kafka.InvalidConfig, "LONG"},
		{"not an int", set("max.message.bytes", "4294967296"), kafka.InvalidConfig, "INT"},
		{"below", set("retention.ms", "-2"), kafka.InvalidConfig, "at least -1"},
		{"above", set("min.insync.replicas", "2"), kafka.InvalidConfig, "no more than 1"},
		{"not a bool", set("write.caching", "yes"), kafka.InvalidConfig, "true or false"},
		{"not a ratio", set("min.cleanable.dirty.ratio", "NaN"), kafka.InvalidConfig, "at least 0"},
		{"ratio", set("min.cleanable.dirty.ratio", "1.5"), kafka.InvalidConfig, "no more than 1"},
		{"compaction", set("cleanup.policy", "compact"), kafka.InvalidConfig, "this broker has delete"},
		{"half compaction", set("cleanup.policy", "delete, compact"), kafka.InvalidConfig, "this broker has delete"},
		{"recompression", set("compression.type", "zstd"), kafka.InvalidConfig, "this broker has producer"},
		{"a unit", set("retention.ms", "7d"), kafka.InvalidConfig, "Not a number of type LONG"},
		{"another unit", set("segment.bytes", "1GB"), kafka.InvalidConfig, "Not a number of type INT"},
		{"a small segment", set("segment.bytes", "1024"), kafka.InvalidConfig, "at least 1048576"},
		{"a time of nobody", set("message.timestamp.type", "EventTime"), kafka.InvalidConfig, "this broker has CreateTime, LogAppendTime"},
		{"larger than the broker's", create("t", 1, 1, 9, Limits{9, 9, 99, 1, 1000}, Config{"max.message.bytes", "1001"}), kafka.InvalidConfig, "message.max.bytes of at most 1000"},
		{"configure unknown", alter("none", false), kafka.UnknownTopicOrPartition, "does not exist"},
		{"configure deleted", alter("gone", false), kafka.UnknownTopicOrPartition, "does not exist"},
		{"configure no name", alter("a b", false), kafka.InvalidTopic, "contains one or more"},
		{"configure what is not", alter("orders", false, ConfigEdit{ConfigSet, "no.such", "1"}), kafka.InvalidConfig, "Unknown topic config name: no.such"},
		{"delete what is not", alter("orders", false, ConfigEdit{ConfigDelete, "no.such", ""}), kafka.InvalidConfig, "Unknown topic config name: no.such"},
		{"configure twice", alter("orders", true, ConfigEdit{ConfigSet, "retention.ms", "1"}, ConfigEdit{ConfigSet, "retention.ms", "1"}), kafka.InvalidRequest, "given twice"},
		{"append to a number", alter("orders", false, ConfigEdit{ConfigAppend, "retention.ms", "1"}), kafka.InvalidConfig, "not a list"},
		{"append compaction", alter("orders", false, ConfigEdit{ConfigAppend, "cleanup.policy", "compact"}), kafka.InvalidConfig, "this broker has delete"},
		{"an operation of nobody", alter("orders", false, ConfigEdit{4, "retention.ms", "1"}), kafka.InvalidRequest, "no operation 4"},
		{"grow unknown", grow("none", 3, nil), kafka.UnknownTopicOrPartition, "does not host"},
		{"grow deleted", grow("gone", 3, nil), kafka.UnknownTopicOrPartition, "does not host"},
		{"grow to what it has", grow("orders", 2, nil), kafka.InvalidPartitions, "already has 2"},
		{"shrink", grow("orders", 1, nil), kafka.InvalidPartitions, "1 would not be an increase"},
		{"shrink below nothing", grow("orders", -1, nil), kafka.InvalidPartitions, "-1 would not be an increase"},
		{"grow beyond", grow("orders", 101, nil), kafka.InvalidPartitions, "at most 100"},
		{"grow beyond all", grow("orders", 4, nil), kafka.PolicyViolation, "4 partitions, of at most 5; 2 more"},
		{"grow with too few places", grow("orders", 4, []int{1}), kafka.InvalidReplicaAssignment, "add 2 additional partition(s), but 1"},
		{"delete unknown", func() ([]byte, *Refusal) { return s.PlanDelete("none") }, kafka.UnknownTopicOrPartition, "does not host"},
		{"delete deleted", func() ([]byte, *Refusal) { return s.PlanDelete("gone") }, kafka.UnknownTopicOrPartition, "does not host"},
		{"delete unknown id", func() ([]byte, *Refusal) { return s.PlanDeleteID(id(9)) }, kafka.UnknownTopicID, "topic ID"},
		{"delete deleted id", func() ([]byte, *Refusal) { return s.PlanDeleteID(id(2)) }, kafka.UnknownTopicID, "topic ID"},
		{"forget unknown", func() ([]byte, *Refusal) { return s.PlanForget(id(9)) }, kafka.UnknownTopicID, "no topic"},
		{"forget living", func() ([]byte, *Refusal) { return s.PlanForget(id(1)) }, kafka.InvalidRequest, "'orders' is not deleted"},
		{"reserve none", func() ([]byte, *Refusal) { return s.PlanReserveProducerIDs(0) }, kafka.InvalidRequest, "0 producer ids"},
	} {
		cmd, r := c.plan()
		if r == nil {
			t.Errorf("%s: not refused", c.what)
		} else if cmd != nil || r.Code != c.code || !strings.Contains(r.Message, c.says) {
			t.Errorf("%s: refused with %d %q; want %d and %q in it", c.what, r.Code, r.Message, c.code, c.says)
		}
	}
	if s.Sequence() != 3 {
		t.Errorf("refusals changed the state: sequence %d", s.Sequence())
	}
}

func TestCreateTakesWhatKafkaTakes(t *testing.T) {
	s := New()
	for i, c := range []struct {
		name               string
		partitions, factor int
		configs            []Config
	}{
		{"a", -1, -1, nil},
		{strings.Repeat("x", 249), 1, 1, nil},
		{"...", 1, 1, nil},
		{"A-z_0.9", 100, 1, []Config{{"write.caching", "FALSE"}, {"retention.ms", "-1"}, {"cleanup.policy", "delete"}, {"min.cleanable.dirty.ratio", "0.25"}}},
	} {
		must(t, s)(s.PlanCreate(c.name, c.partitions, c.factor, c.configs, id(uint64(i+1)), roomy))
	}
	a, ok := s.Topic("a")
	if !ok || len(a.Partitions) != roomy.PartitionsDefault {
		t.Fatalf("-1 partitions is the default, %d: %+v", roomy.PartitionsDefault, a)
	}
	z, _ := s.Topic("A-z_0.9")
	if v, ok := z.Config("write.caching"); !ok || v != "FALSE" {
		t.Errorf("write.caching is %q, %t", v, ok)
	}
	if _, ok := z.Config("segment.ms"); ok {
		t.Error("a configuration nobody set is set")
	}
	if other, ok := s.collides("A.z_0.9"); ok {
		t.Errorf("A.z_0.9 collides with %q, from which it differs in '-'", other)
	}
	if other, ok := s.collides("A-z.0.9"); !ok || other != "A-z_0.9" {
		t.Errorf("A-z.0.9 and A-z_0.9 differ in '.' and '_' only; got %q, %t", other, ok)
	}
}

func TestConfigure(t *testing.T) {
	s := New()
	must(t, s)(s.PlanCreate("t", 1, 1, []Config{{"retention.ms", "5"}, {"segment.ms", "7"}}, id(1), roomy))
	step := func(replace bool, want string, edits ...ConfigEdit) {
		t.Helper()
		must(t, s)(s.PlanConfigure("t", edits, replace, roomy))
		topic, _ := s.Topic("t")
		if got := fmt.Sprint(topic.Configs); got != want {
			t.Fatalf("%v give %s, want %s", edits, got, want)
		}
	}
	step(false, "[{max.message.bytes 99} {retention.ms 5}]", ConfigEdit{ConfigDelete, "segment.ms", ""}, ConfigEdit{ConfigSet, "max.message.bytes", "99"})
	step(false, "[{cleanup.policy delete} {max.message.bytes 99} {retention.ms 5}]", ConfigEdit{ConfigAppend, "cleanup.policy", "delete"})
	topic, _ := s.Topic("t")
	if c := s.LogConfig(topic, 1); c.RetentionMS != 5 || c.MessageBytesMax != 99 || c.SegmentMS != 604800000 || c.RetentionBytes != -1 || c.AppendTime {
		t.Errorf("in force: %+v", c)
	}
	if cmd, r := s.PlanConfigure("t", []ConfigEdit{{ConfigSet, "retention.ms", "5"}}, false, roomy); cmd != nil || r != nil {
		t.Errorf("no change is a command: %v %v", cmd, r)
	}
	step(true, "[{message.timestamp.type LogAppendTime}]", ConfigEdit{ConfigSet, "message.timestamp.type", "LogAppendTime"})
	if c := s.LogConfig(topic, 1); c.RetentionMS != 604800000 || !c.AppendTime {
		t.Errorf("in force: %+v", c)
	}
	step(true, "[]")
	restored := New()
	for _, cmd := range s.Snapshot(100) {
		if err := restored.Apply(cmd); err != nil {
			t.Fatal(err)
		}
	}
	if !restored.Equal(s) {
		t.Error("a snapshot has other configurations")
	}
}

func noFlags(name string) int64 {
	d, _ := LookupBroker(name)
	v, _ := strconv.ParseInt(d.Default, 10, 64)
	return v
}

// What was set for a topic goes before what was set for its node, that before
// what was set for all, and that before the default.
func TestBrokerConfigs(t *testing.T) {
	s := New()
	must(t, s)(s.PlanCreate("t", 1, 1, nil, id(1), roomy))
	topic, _ := s.Topic("t")
	set := func(name, value string) []ConfigEdit { return []ConfigEdit{{ConfigSet, name, value}} }
	broker := func(node int32, edits []ConfigEdit) {
		t.Helper()
		must(t, s)(s.PlanConfigureBroker(node, 0, edits, false, noFlags, roomy))
	}
	for i, step := range []struct {
		change       func()
		node1, node2 int64
	}{
		{func() { broker(AllBrokers, set("log.retention.ms", "1000")) }, 1000, 1000},
		{func() { broker(2, set("log.retention.ms", "2000")) }, 1000, 2000},
		{func() { must(t, s)(s.PlanConfigure("t", set("retention.ms", "3000"), false, roomy)) }, 3000, 3000},
		{func() { must(t, s)(s.PlanConfigure("t", nil, true, roomy)) }, 1000, 2000},
		{func() { broker(AllBrokers, []ConfigEdit{{ConfigDelete, "log.retention.ms", ""}}) }, 604800000, 2000},
	} {
		step.change()
		if a, b := s.LogConfig(topic, 1).RetentionMS, s.LogConfig(topic, 2).RetentionMS; a != step.node1 || b != step.node2 {
			t.Errorf("step %d: %d at node 1, %d at node 2; want %d, %d", i, a, b, step.node1, step.node2)
		}
	}
	broker(0, set("message.max.bytes", "999"))
	if n := s.LogConfig(topic, 0).MessageBytesMax; n != 999 || s.LogConfig(topic, 1).MessageBytesMax != -1 {
		t.Errorf("message.max.bytes of node 0 is %d", n)
	}
	broker(AllBrokers, set("group.max.session.timeout.ms", "7000"))
	for _, c := range []struct {
		node  int32
		edits []ConfigEdit
		code  kafka.ErrorCode
		says  string
	}{
		{0, set("log.retention.msec", "1"), kafka.InvalidConfig, "Unknown broker config name: log.retention.msec"},
		{AllBrokers, set("retention.ms", "1"), kafka.InvalidConfig, "Unknown"},
		{AllBrokers, set("log.dirs", "/tmp"), kafka.InvalidRequest, "--data-dir"},
		{0, set("log.retention.ms", "7d"), kafka.InvalidConfig, "LONG"},
		{0, set("message.max.bytes", "1001"), kafka.InvalidConfig, "restart"},
		{2, set("group.max.size", "5"), kafka.InvalidRequest, "broker 0 acts on it alone"},
		{0, set("group.min.session.timeout.ms", "7001"), kafka.InvalidConfig, "group.max.session.timeout.ms 7000"},
		{AllBrokers, set("group.min.session.timeout.ms", "7001"), kafka.InvalidConfig, "group.max.session.timeout.ms 7000"},
		{0, set("num.partitions", "1000000"), kafka.InvalidConfig, "num.partitions"},
		{0, set("num.partitions", "0"), kafka.InvalidConfig, "at least 1"},
		{0, append(set("num.partitions", "2"), set("num.partitions", "3")...), kafka.InvalidRequest, "twice"},
		{0, []ConfigEdit{{ConfigAppend, "num.partitions", "2"}}, kafka.InvalidConfig, "not a list"},
	} {
		lim := roomy
		lim.MessageBytesMax = 1000
		if _, r := s.PlanConfigureBroker(c.node, 0, c.edits, false, noFlags, lim); r == nil || r.Code != c.code || !strings.Contains(r.Message, c.says) {
			t.Errorf("%v of broker %d: %v; want %d with %q", c.edits, c.node, r, c.code, c.says)
		}
	}
	// What the control shard's node acts on is its own value or that of all; a data
	// shard's configurations have no part in it.
	broker(AllBrokers, set("group.max.session.timeout.ms", "4000000"))
	broker(0, set("group.min.session.timeout.ms", "3000000"))
	started := func(name string) int64 {
		return map[string]int64{"group.max.session.timeout.ms": 1800000, "group.consumer.session.timeout.ms": 45000}[name]
	}
	if _, r := s.PlanConfigureBroker(2, 0, set("log.retention.ms", "2001"), false, started, roomy); r != nil {
		t.Errorf("a data shard's configuration is refused: %v", r)
	}
	if cmd, r := s.PlanConfigureBroker(2, 0, set("log.retention.ms", "2000"), false, noFlags, roomy); cmd != nil || r != nil {
		t.Errorf("no change is a command: %v %v", cmd, r)
	}
	restored := New()
	for _, cmd := range s.Snapshot(100) {
		if err := restored.Apply(cmd); err != nil {
			t.Fatal(err)
		}
	}
	if !restored.Equal(s) {
		t.Error("a snapshot has other configurations of brokers")
	}
	for i, d := range BrokerDefs() {
		if why := d.fault(d.Default); why != "" && d.Default != "" {
			t.Errorf("%s: the default is invalid: %s", d.Name, why)
		}
		if i > 0 && BrokerDefs()[i-1].Name >= d.Name {
			t.Errorf("%s is there twice, or out of order", d.Name)
		}
	}
}

func TestConfigDefaultsAreValid(t *testing.T) {
	for i, d := range Configs() {
		if why := ConfigFault(d.Name, d.Default); why != "" {
			t.Errorf("the default of %s is refused: %s", d.Name, why)
		}
		if i > 0 && Configs()[i-1].Name >= d.Name {
			t.Errorf("%s is out of order; lookups search the table by halves", d.Name)
		}
		if d.Doc == "" {
			t.Errorf("%s is not described", d.Name)
		}
	}
}

// What Kafka knows and this broker lacks is taken where it asks for nothing, and refused
// by name where it asks for something.
func TestConfigsThatAskForNothing(t *testing.T) {
	for _, c := range []struct{ name, taken, refused string }{
		{"remote.storage.enable", "false FALSE", "true yes 1"},
		{"remote.log.copy.disable", "false true", "no"},
		{"remote.log.delete.on.disable", "false true", "0"},
		{"local.retention.ms", "-2 -1 0 86400000", "-3 1d"},
		{"local.retention.bytes", "-2 -1 1073741824", "-3 1GiB"},
		{"remote.copy.lag.ms", "-1 0 60000", "-2 x"},
		{"remote.copy.lag.bytes", "-1 0 1048576", "-2 x"},
		{"leader.replication.throttled.replicas", "* 0:1 0:1,1:2,10:3", "none 0 0:a 0:1;1:2 *,0:1 -1:0"},
		{"follower.replication.throttled.replicas", "* 0:1 0:1,1:2,10:3", "none 0 0:a 0:1;1:2 *,0:1 -1:0"},
		{"errors.deadletterqueue.group.enable", "false", "true"},
		{"compression.gzip.level", "-1 1 9", "0 10 -2"},
		{"compression.lz4.level", "1 9 17", "0 18"},
		{"compression.zstd.level", "-131072 0 3 22", "-131073 23"},
		{"max.decompressed.message.bytes", "2147483639", "2147483647 1048576 0"},
	} {
		for _, value := range strings.Fields(c.taken) {
			s := New()
			if cmd, r := s.PlanCreate("t", 1, 1, []Config{{c.name, value}}, id(1), roomy); r != nil || cmd == nil {
				t.Errorf("%s=%s is refused: %v", c.name, value, r)
			}
		}
		for _, value := range strings.Fields(c.refused) {
			s := New()
			if _, r := s.PlanCreate("t", 1, 1, []Config{{c.name, value}}, id(1), roomy); r == nil || r.Code != kafka.InvalidConfig || !strings.Contains(r.Message, c.name) || !strings.Contains(r.Message, value) {
				t.Errorf("%s=%s: %v", c.name, value, r)
			}
		}
	}
	if why := ConfigFault("leader.replication.throttled.replicas", ""); why != "" {
		t.Errorf("an empty list of throttled replicas: %s", why)
	}
	for _, c := range []struct{ name, taken, refused string }{
		{"consumer.assignment.interval.ms", "0 1000 15000", "-1 15001 often"},
		{"consumer.assignor.offload.enable", "true false", "1"},
		{"share.record.lock.duration.ms", "", "30000"},
		{"errors.deadletterqueue.topic.name", "", "dead"},
	} {
		for taken, values := range map[bool]string{true: c.taken, false: c.refused} {
			for _, value := range strings.Fields(values) {
				cmd, r := New().PlanConfigureGroup("g", 0, []ConfigEdit{{ConfigSet, c.name, value}}, false, noFlags, roomy)
				if taken && (r != nil || cmd == nil) || !taken && (r == nil || r.Code != kafka.InvalidConfig || !strings.Contains(r.Message, c.name)) {
					t.Errorf("%s=%s of a group: %v", c.name, value, r)
				}
			}
		}
	}
	for _, name := range []string{"leader.replication.throttled.rate", "follower.replication.throttled.rate"} {
		if cmd, r := New().PlanConfigureBroker(1, 0, []ConfigEdit{{ConfigSet, name, "1000000"}}, false, noFlags, roomy); r != nil || cmd == nil {
			t.Errorf("%s of a broker: %v", name, r)
		}
	}
}

func TestLogIDsAreNeverReused(t *testing.T) {
	s := New()
	if s.NextLogID() != 2 {
		t.Fatalf("the first partition gets log %d; 1 is the control shard's own", s.NextLogID())
	}
	must(t, s)(s.PlanCreate("t", 3, 1, nil, id(1), roomy))
	must(t, s)(s.PlanDelete("t"))
	must(t, s)(s.PlanCreate("t", 2, 1, nil, id(2), roomy)) // while the old one is a tombstone
	topic, p, ok := s.LogOwner(3)
	if !ok || !topic.Deleted || p != 1 || topic.ID != id(1) {
		t.Fatalf("log 3 is partition 1 of the tombstone; got %+v %d %t", topic, p, ok)
	}
	if ts := s.Tombstones(); len(ts) != 1 || ts[0].ID != id(1) {
		t.Fatalf("tombstones: %+v", ts)
	}
	must(t, s)(s.PlanForget(id(1)))
	if _, _, ok := s.LogOwner(3); ok || len(s.Tombstones()) != 0 || s.Logs() != 2 {
		t.Fatal("a forgotten topic's logs have an owner")
	}
	topic, p, ok = s.LogOwner(6)
	if !ok || topic.Name != "t" || topic.Deleted || p != 1 || s.NextLogID() != 7 {
		t.Fatalf("log 6 is partition 1 of the new t, 7 the next; got %+v %d %t, %d", topic, p, ok, s.NextLogID())
	}
}

func TestPlace(t *testing.T) {
	for shards := 1; shards <= 8; shards++ {
		if format.Place(format.ControlLogID, shards) != 0 {
			t.Fatal("the control shard's log is its own")
		}
		counts := make([]int, shards+1)
		for l := uint64(2); l < 2+uint64(shards)*10; l++ {
			counts[format.Place(l, shards)]++
		}
		for i, n := range counts[1:] {
			if n != 10 {
				t.Errorf("%d shards: shard %d has %d of the logs, not 10", shards, i+1, n)
			}
		}
	}
}

func TestProducerIDsAreGivenOutOnce(t *testing.T) {
	var log [][]byte
	given := map[int64]bool{}
	reserve := func(s *State, n int, lost bool) {
		cmd, r := s.PlanReserveProducerIDs(n)
		if r != nil {
			t.Fatal(r)
		}
		log = append(log, cmd)
		if lost {
			return // durable, but the process ends before it is applied
		}
		if err := s.Apply(cmd); err != nil {
			t.Fatal(err)
		}
	}
	give := func(s *State, n int) {
		for range n {
			id, _ := s.NextProducerID()
			if id < 0 {
				t.Fatal("no id in a block that has some")
			}
			if given[id] {
				t.Fatalf("producer id %d was given out twice", id)
			}
			given[id] = true
		}
	}
	s := New()
	if id, need := s.NextProducerID(); id != -1 || !need {
		t.Fatalf("nothing was reserved, and %d was given out", id)
	}
	reserve(s, 8, false)
	give(s, 5)
	if _, need := s.NextProducerID(); !need {
		t.Error("2 of 8 are left: it is time to ask for more")
	}
	reserve(s, 8, false) // ahead of need: what is left of the first stays usable
	give(s, 10)
	for life := range 5 {
		lost := life%2 == 0
		reserve(s, 8, lost)
		snapshot := s.Snapshot(100)
		s = New()
		for _, cmd := range log {
			if err := s.Apply(cmd); err != nil {
				t.Fatal(err)
			}
		}
		if !lost {
			r := New()
			for _, cmd := range snapshot {
				if err := r.Apply(cmd); err != nil {
					t.Fatal(err)
				}
			}
			if !r.Equal(s) {
				t.Fatal("snapshot and replay differ")
			}
			if life == 3 {
				s = r
			}
		}
		if id, need := s.NextProducerID(); id != -1 || !need {
			t.Fatalf("a restart gave %d out of a block of an earlier life", id)
		}
		reserve(s, 8, false)
		give(s, 3)
	}
	// A snapshot of its own state takes no ids from a living one.
	for _, cmd := range s.Snapshot(1 << 20) {
		if err := s.Apply(cmd); !errors.Is(err, ErrReplayed) {
			t.Fatal(err)
		}
	}
	give(s, 5)
}

func TestApplyRefusesWhatDoesNotFollow(t *testing.T) {
	s := New()
	first, _ := s.PlanCreate("a", 1, 1, nil, id(1), roomy)
	rival, _ := s.PlanCreate("b", 1, 1, nil, id(2), roomy)
	if err := s.Apply(first); err != nil {
		t.Fatal(err)
	}
	before := s.Snapshot(1 << 20)
	check := func(what string, cmd []byte, want error) {
		t.Helper()
		if err := s.Apply(cmd); !errors.Is(err, want) {
			t.Errorf("%s: %v; want %v", what, err, want)
		}
		if fmt.Sprint(s.Snapshot(1<<20)) != fmt.Sprint(before) {
			t.Fatalf("%s changed the state", what)
		}
	}
	edit := func(cmd []byte, at int, v byte) []byte {
		c := append([]byte(nil), cmd...)
		c[at] = v
		return c
	}
	next, _ := s.PlanCreate("b", 1, 1, nil, id(2), roomy)
	check("a replay", first, ErrReplayed)
	check("a plan made before another was applied", rival, ErrReplayed)
	check("a gap", edit(next, 8, 3), ErrOrder)
	check("nothing", nil, ErrMalformed)
	check("no version", edit(next, 0, 0), ErrMalformed)
	check("a newer version", edit(next, 0, 3), format.Newer("commands of version 3"))
	check("a kind without a name", edit(next, 1, 15), format.Newer("commands of kind 15"))
	check("a kind without a name, replayed", edit(first, 1, 200), format.Newer("commands of kind 200"))
	for kind, name := range map[byte]string{10: "users", 11: "ACLs", 12: "quotas", 32: "groups of replicas", 39: "groups of replicas",
		22: "transactions", 23: "users", 24: "ACLs", 25: "quotas", 26: "groups of replicas"} {
		check(name, edit(next, 1, kind), format.Newer(name))
	}
	for kind, name := range map[byte]string{6: "transactions", 11: "transactions", 12: "share groups", 13: "share groups", 77: "changes of groups of kind 77"} {
		check(name, command(kindGroups, 2, []byte{kind, 2, 0, 0, 0, 0, 0}), format.Newer(name))
	}
	check("reserved bytes", edit(next, 3, 1), ErrMalformed)
	check("a short body", next[:len(next)-1], ErrMalformed)
	check("a long body", append(append([]byte(nil), next...), 0), ErrMalformed)
	check("a snapshot's part alone", edit(s.Snapshot(1 << 20)[1], 8, 9), ErrOrder)
	check("its own snapshot", s.Snapshot(1 << 20)[0], ErrReplayed)
	check("a snapshot that gives ids out again", edit(edit(s.Snapshot(1 << 20)[0], 8, 9), format.CommandHeaderBytes, 2), ErrMalformed)
	check("an old snapshot", New().Snapshot(100)[0], ErrReplayed)
	del, _ := s.PlanDelete("a")
	check("deleting what is not there", edit(del, format.CommandHeaderBytes, 9), ErrMalformed)
	check("forgetting what lives", edit(del, 1, kindForget), ErrMalformed)
	again := command(kindCreate, 2, appendTopic(nil, &Topic{Name: "a", ID: id(3), Partitions: consecutive(3, 1)}))
	check("a name twice", again, ErrMalformed)
	again = command(kindCreate, 2, appendTopic(nil, &Topic{Name: "c", ID: id(1), Partitions: consecutive(3, 1)}))
	check("an id twice", again, ErrMalformed)
	again = command(kindCreate, 2, appendTopic(nil, &Topic{Name: "c", ID: id(3), Partitions: consecutive(2, 1)}))
	check("a log twice", again, ErrMalformed)
	again = command(kindCreate, 2, appendTopic(nil, &Topic{Name: "c", ID: id(3), Partitions: consecutive(900, 1)}))
	check("a log out of turn", again, ErrMalformed)
	check("producer ids out of turn", command(kindReserve, 2, appendReserve(nil, 5, 5)), ErrMalformed)
}

// TestSnapshotEnds: the end of a snapshot says how many of each kind there are,
// in version 1 by position, since then as a list, which names what is not served.
func TestSnapshotEnds(t *testing.T) {
	s := New()
	must(t, s)(s.PlanCreate("a", 2, 1, nil, id(1), roomy))
	must(t, s)(s.PlanCreate("b", 1, 1, nil, id(2), roomy))
	chunks := s.Snapshot(1 << 20)
	last := len(chunks) - 1
	end := func(counts ...format.PartCount) []byte {
		var body []byte
		for _, c := range counts {
			body = c.Append(body)
		}
		return command(kindSnapshotEnd, s.Sequence(), body)
	}
	former := command(kindSnapshotEnd, s.Sequence(), []byte{2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	former[0] = 1
	wrong := append([]byte(nil), former...)
	wrong[format.CommandHeaderBytes+4] = 1
	for _, x := range []struct {
		what string
		end  []byte
		want error
	}{
		{"as it is written", chunks[last], nil},
		{"version 1", former, nil},
		{"version 1, another count", wrong, ErrMalformed},
		{"without those of which there are none", end(format.PartCount{Kind: kindSnapshotPart, Count: 2}), nil},
		{"another count", end(format.PartCount{Kind: kindSnapshotPart, Count: 3}), ErrMalformed},
		{"no count", end(), ErrMalformed},
		{"twice", end(format.PartCount{Kind: kindSnapshotPart, Count: 2}, format.PartCount{Kind: kindSnapshotPart, Count: 2}), ErrMalformed},
		{"cut short", command(kindSnapshotEnd, s.Sequence(), []byte{kindSnapshotPart, 2, 0, 0}), ErrMalformed},
		{"with ACLs", end(format.PartCount{Kind: kindSnapshotPart, Count: 2}, format.PartCount{Kind: kindSnapshotACLs}), format.Newer("ACLs")},
	} {
		r := New()
		for _, c := range chunks[:last] {
			if err := r.Apply(c); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.Apply(x.end); !errors.Is(err, x.want) {
			t.Errorf("%s: %v; want %v", x.what, err, x.want)
		} else if (err == nil) != r.Equal(s) {
			t.Errorf("%s: the state is restored: %t", x.what, r.Equal(s))
		}
	}
}

func TestSnapshotCutShort(t *testing.T) {
	s := New()
	for i := range 20 {
		must(t, s)(s.PlanCreate(fmt.Sprintf("topic-%d", i), 2, 1, nil, id(uint64(i+1)), roomy))
	}
	chunks := s.Snapshot(200)
	if len(chunks) < 5 {
		t.Fatalf("20 topics in parts of 200 bytes are %d chunks", len(chunks))
	}
	for i, c := range chunks {
		if len(c) > 200 {
			t.Errorf("chunk %d has %d bytes of at most 200", i, len(c))
		}
	}
	for cut := range chunks {
		r := New()
		for _, c := range chunks[:cut] {
			if err := r.Apply(c); err != nil {
				t.Fatal(err)
			}
		}
		if r.Sequence() != 0 || len(r.Topics()) != 0 {
			t.Fatalf("%d of %d chunks took effect", cut, len(chunks))
		}
		must(t, r)(r.PlanReserveProducerIDs(1))
		if cut > 0 && cut < len(chunks)-1 {
			// Its number is 20, ours 1: a part whose beginning was dropped.
			if err := r.Apply(chunks[cut]); !errors.Is(err, ErrOrder) {
				t.Fatalf("a command cut the snapshot short, and it goes on: %v", err)
			}
		}
	}
	for gap := 1; gap < len(chunks)-1; gap++ {
		r := New()
		var err error
		for i, c := range chunks {
			if i != gap && err == nil {
				err = r.Apply(c)
			}
		}
		if !errors.Is(err, ErrMalformed) || len(r.Topics()) != 0 {
			t.Fatalf("a snapshot without chunk %d was taken: %v", gap, err)
		}
	}
}

// The state machine against a naive model, with restarts by replay, by
// snapshot, and by both, in between.
func TestRandomLives(t *testing.T) {
	for seed := range int64(60) {
		r := rand.New(rand.NewSource(seed))
		type topic struct {
			id      uint64
			logs    []uint64
			deleted bool
		}
		var (
			s     = New()
			log   [][]byte
			model = map[uint64]*topic{}
			names = map[string]uint64{}
			ids   uint64
			used  = map[uint64]bool{format.ControlLogID: true}
			pids  = map[int64]bool{}
		)
		lim := Limits{TopicsMax: 12, PartitionsPerTopicMax: 6, PartitionsMax: 40, PartitionsDefault: 2}
		for step := range 300 {
			var cmd []byte
			var refusal *Refusal
			var then func()
			name := fmt.Sprintf("t%d", r.Intn(15))
			switch r.Intn(8) {
			case 7:
				var on Placement
				n := 1 + r.Intn(6)
				if r.Intn(2) == 0 {
					on.DataShards = 3
					for range n {
						on.Shards = append(on.Shards, 1+r.Intn(3))
					}
				}
				had := 0
				if got, ok := s.Topic(name); ok {
					had = len(got.Partitions)
				}
				cmd, refusal = s.PlanGrow(name, had+n, on, lim)
				then = func() {
					got, _ := s.Topic(name)
					m := model[names[name]]
					for i, p := range got.Partitions[had:] {
						if used[p.LogID] || on.Shards != nil && format.Place(p.LogID, 3) != on.Shards[i] {
							t.Fatalf("seed %d: log %d was given out twice, or is not where it was wanted", seed, p.LogID)
						}
						used[p.LogID] = true
						m.logs = append(m.logs, p.LogID)
					}
				}
			case 6:
				cmd, refusal = s.PlanConfigure(name, []ConfigEdit{{ConfigSet, "retention.ms", fmt.Sprint(step)}}, false, lim)
				then = func() {
					if got, _ := s.Topic(name); fmt.Sprint(got.Configs) != fmt.Sprintf("[{retention.ms %d}]", step) {
						t.Fatalf("seed %d: configured to %v", seed, got.Configs)
					}
				}
			case 0, 1:
				ids++
				n := r.Intn(8) - 1
				cmd, refusal = s.PlanCreate(name, n, 1, nil, id(ids), lim)
				then = func() {
					m := &topic{id: ids}
					got, _ := s.Topic(name)
					for _, p := range got.Partitions {
						if used[p.LogID] {
							t.Fatalf("seed %d: log %d was given out twice", seed, p.LogID)
						}
						used[p.LogID] = true
						m.logs = append(m.logs, p.LogID)
					}
					model[ids], names[name] = m, ids
				}
			case 2:
				cmd, refusal = s.PlanDelete(name)
				then = func() { model[names[name]].deleted = true; delete(names, name) }
			case 3:
				victim := uint64(r.Intn(int(ids) + 1))
				cmd, refusal = s.PlanForget(id(victim))
				then = func() { delete(model, victim) }
			case 4:
				cmd, refusal = s.PlanReserveProducerIDs(1 + r.Intn(5))
				then = func() {}
			case 5:
				if r.Intn(4) == 0 {
					edit := ConfigEdit{ConfigSet, "log.retention.ms", strconv.Itoa(r.Intn(3))}
					if r.Intn(3) == 0 {
						edit = ConfigEdit{Op: ConfigDelete, Name: "log.retention.ms"}
					}
					if cmd, refusal = s.PlanConfigureBroker(int32(r.Intn(4)-1), 0, []ConfigEdit{edit}, r.Intn(2) == 0, noFlags, roomy); cmd == nil && refusal == nil {
						continue // it is that already
					}
					then = func() {}
					break
				}
				if pid, _ := s.NextProducerID(); pid >= 0 {
					if pids[pid] {
						t.Fatalf("seed %d: producer id %d was given out twice", seed, pid)
					}
					pids[pid] = true
				}
				continue
			}
			if refusal == nil {
				if err := s.Apply(cmd); err != nil {
					t.Fatalf("seed %d step %d: %v", seed, step, err)
				}
				log = append(log, cmd)
				then()
				if err := s.Apply(cmd); !errors.Is(err, ErrReplayed) {
					t.Fatalf("seed %d: replaying the last command: %v", seed, err)
				}
			}
			if r.Intn(20) > 0 {
				continue
			}
			// A restart: the log from some point before the snapshot, as one
			// finds it when old commands were not removed yet.
			n := New()
			if r.Intn(2) == 0 {
				for _, c := range s.Snapshot(64 + r.Intn(400)) {
					if err := n.Apply(c); err != nil && s.Sequence() > 0 {
						t.Fatalf("seed %d: restoring: %v", seed, err)
					}
				}
				for _, c := range log[r.Intn(len(log)+1):] {
					if err := n.Apply(c); !errors.Is(err, ErrReplayed) {
						t.Fatalf("seed %d: replaying over the snapshot: %v", seed, err)
					}
				}
				if r.Intn(2) == 0 && s.Sequence() > 0 { // of nothing, it restores nothing
					log = s.Snapshot(100)
				}
			} else {
				for _, c := range log {
					if err := n.Apply(c); err != nil && s.Sequence() > 0 {
						t.Fatalf("seed %d: replaying: %v", seed, err)
					}
				}
			}
			if !n.Equal(s) || !s.Equal(n) {
				t.Fatalf("seed %d step %d: the restarted state differs", seed, step)
			}
			s = n
			living := 0
			for mid, m := range model { // order does not matter
				for i, l := range m.logs {
					got, p, ok := s.LogOwner(l)
					if !ok || got.ID != id(mid) || int(p) != i || got.Deleted != m.deleted {
						t.Fatalf("seed %d: log %d should be partition %d of topic %d; %+v %d %t", seed, l, i, mid, got, p, ok)
					}
				}
				if !m.deleted {
					living++
				}
			}
			if len(s.Topics()) != living || len(s.Tombstones()) != len(model)-living {
				t.Fatalf("seed %d: %d topics and %d tombstones; want %d and %d", seed, len(s.Topics()), len(s.Tombstones()), living, len(model)-living)
			}
		}
	}
}

// Restoring is part of starting: a large broker's must not be quadratic.
func TestRestoreOfALargeBroker(t *testing.T) {
	s := New()
	lim := Limits{TopicsMax: 1 << 20, PartitionsPerTopicMax: 100, PartitionsMax: 1 << 20}
	r := rand.New(rand.NewSource(1))
	for i := range 10000 {
		must(t, s)(s.PlanCreate(fmt.Sprintf("topic-%d", i), 20, 1, nil, id(r.Uint64()), lim))
	}
	n := New()
	for _, c := range s.Snapshot(64 << 10) {
		if err := n.Apply(c); err != nil {
			t.Fatal(err)
		}
	}
	if !n.Equal(s) || n.Logs() != 200000 {
		t.Fatalf("restored %d logs", n.Logs())
	}
}

// FuzzApply: no bytes make Apply panic, change a state it refuses to change,
// or leave one whose snapshot does not restore it. The input is commands, each
// behind its length in two bytes.
func FuzzApply(f *testing.F) {
	s := New()
	var log [][]byte
	add := func(cmd []byte, r *Refusal) {
		must(f, s)(cmd, r)
		log = append(log, cmd)
	}
	add(s.PlanCreate("orders", 3, 1, []Config{{"retention.ms", "1000"}, {"write.caching", "false"}}, id(1), roomy))
	add(s.PlanReserveProducerIDs(10))
	add(s.PlanCreate("a.b", 1, 1, nil, id(2), roomy))
	add(s.PlanConfigure("orders", []ConfigEdit{{ConfigSet, "segment.ms", "1000"}}, false, roomy))
	add(s.PlanGrow("orders", 5, Placement{[]int{2, 2}, 2}, roomy))
	add(s.PlanDelete("orders"))
	f.Add(framed(log))
	f.Add(framed(s.Snapshot(64)))
	f.Add(framed(append(s.Snapshot(1000), log...)))
	add(s.PlanForget(id(1)))
	f.Add(framed(log))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := New()
		for len(b) >= 2 {
			n := min(int(b[0])|int(b[1])<<8, len(b)-2)
			before := s.Snapshot(1 << 20)
			err := s.Apply(b[2 : 2+n])
			b = b[2+n:]
			after := s.Snapshot(1 << 20)
			if err != nil && fmt.Sprint(before) != fmt.Sprint(after) {
				t.Fatalf("refused with %v, yet the state changed", err)
			}
			r := New()
			for _, c := range after {
				if err := r.Apply(c); err != nil && s.Sequence() > 0 {
					t.Fatalf("its own snapshot is refused: %v", err)
				}
			}
			if !r.Equal(s) {
				t.Fatal("its own snapshot restores another state")
			}
		}
	})
}

func framed(cmds [][]byte) []byte {
	var b []byte
	for _, c := range cmds {
		b = append(b, byte(len(c)), byte(len(c)>>8))
		b = append(b, c...)
	}
	return b
}

// TestNumbers holds what docs/FORMAT.md says of kinds against the code.
func TestNumbers(t *testing.T) {
	page, err := os.ReadFile("../docs/FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(string(page)), " ")
	for _, want := range []string{
		fmt.Sprintf("Kinds: %d create a topic, %d delete, %d forget, %d reserve producer ids, %d configure a topic, %d grow, %d configure a broker, %d changes of groups, %d configure a group; "+
			"%d users, %d ACLs, %d quotas and %d to %d replication", kindCreate, kindDelete, kindForget, kindReserve, kindConfigure, kindGrow, kindConfigureBroker, kindGroups, kindConfigureGroup,
			kindUsers, kindACLs, kindQuotas, kindReplicasFirst, kindReplicasLast),
		fmt.Sprintf("A snapshot is %d its beginning, %d topics, %d changes of groups, %d brokers, %d groups' configurations, %d its end; %d transactions, %d users, %d ACLs, %d quotas and %d replication",
			kindSnapshotBegin, kindSnapshotPart, kindSnapshotGroup, kindSnapshotBroker, kindSnapshotConfigs, kindSnapshotEnd,
			kindSnapshotTransactions, kindSnapshotUsers, kindSnapshotACLs, kindSnapshotQuotas, kindSnapshotReplicas),
		fmt.Sprintf("%d to %d are served, %d to %d are transactions, %d and %d share groups", groupPut, groupModern, changeTransactionsFirst, changeTransactionsLast, changeShare, changeShareTopics),
	} {
		if !strings.Contains(text, want) {
			t.Errorf("docs/FORMAT.md does not say: %s", want)
		}
	}
}
