package groups

import (
	"testing"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/kafka"
)

// TestGroupConfigs: what is set for a group is held against Kafka's bounds, rules that group's members alone, and survives a restart.
func TestGroupConfigs(t *testing.T) {
	b := newBench(t)
	set := func(groupID, name, value string) (code kafka.ErrorCode, why string) {
		cmd, r := b.state.PlanConfigureGroup(groupID, 0, []cluster.ConfigEdit{{Op: cluster.ConfigSet, Name: name, Value: value}}, false, func(string) int64 { return -1 }, roomy)
		if r != nil {
			return r.Code, r.Message
		}
		if cmd != nil {
			b.apply(cmd)
		}
		return 0, ""
	}
	for _, c := range []struct {
		group, name, value string
		code               kafka.ErrorCode
		why                string
	}{
		{"g", cluster.GroupSessionMS, "44999", kafka.InvalidConfig, "consumer.session.timeout.ms must be greater than or equal to group.consumer.min.session.timeout.ms"},
		{"g", cluster.GroupSessionMS, "60001", kafka.InvalidConfig, "consumer.session.timeout.ms must be less than or equal to group.consumer.max.session.timeout.ms"},
		{"g", cluster.GroupHeartbeatMS, "4999", kafka.InvalidConfig, "consumer.heartbeat.interval.ms must be greater than or equal to group.consumer.min.heartbeat.interval.ms"},
		{"g", cluster.GroupHeartbeatMS, "15001", kafka.InvalidConfig, "consumer.heartbeat.interval.ms must be less than or equal to group.consumer.max.heartbeat.interval.ms"},
		{"g", cluster.GroupHeartbeatMS, "often", kafka.InvalidConfig, "Invalid value often for configuration consumer.heartbeat.interval.ms: Not a number of type INT"},
		{"g", "share.session.timeout.ms", "45000", kafka.InvalidConfig, "Unknown group config name: share.session.timeout.ms"},
		{"", cluster.GroupSessionMS, "50000", kafka.InvalidRequest, "Default group resources are not allowed."},
		{"g", cluster.GroupSessionMS, "60000", 0, ""},
		{"g", cluster.GroupHeartbeatMS, "15000", 0, ""},
		{"g", cluster.GroupHeartbeatMS, "15000", 0, ""},
	} {
		if code, why := set(c.group, c.name, c.value); code != c.code || why != c.why {
			t.Errorf("%s of %q to %s: %d %q, want %d %q", c.name, c.group, c.value, code, why, c.code, c.why)
		}
	}
	interval := func(groupID string) (ms int32) {
		b.c.ConsumerHeartbeat(b.at, 1, &ConsumerRequest{Group: groupID, MemberID: "m", RebalanceTimeoutMS: 1000, Topics: []string{"t"}, Owned: []cluster.TopicPartitions{}})
		for _, e := range b.c.Effects() {
			if e.Store {
				b.held = append(b.held, e.Change)
			}
		}
		b.release(0)
		for _, e := range b.c.Effects() {
			ms = e.Reply.(*ConsumerReply).IntervalMS
		}
		return ms
	}
	members := func(groupID string) int {
		g, _ := b.c.DescribeConsumer(groupID)
		return len(g.Members)
	}
	for range 2 {
		if g, h := interval("g"), interval("h"); g != 15000 || h != 5000 {
			t.Errorf("members are to send heartbeats every %d and %d ms", g, h)
		}
		for _, at := range []struct{ ms, g, h int }{{44999, 1, 1}, {1, 1, 0}, {14999, 1, 0}, {1, 0, 0}} {
			b.at.NowMS += int64(at.ms)
			b.c.Tick(b.at)
			b.settle()
			if g, h := members("g"), members("h"); g != at.g || h != at.h {
				t.Errorf("at %d the groups have %d and %d members, want %d and %d", b.at.NowMS, g, h, at.g, at.h)
			}
		}
		b.restart()
	}
}

// TestAssignmentInterval: a group that has an interval computes its assignment at the first heartbeat after it, and a group that has none computes it at once.
func TestAssignmentInterval(t *testing.T) {
	b := newBench(t)
	made, refusal := b.state.PlanCreate("t", 4, 1, nil, id(1), roomy)
	if refusal != nil {
		t.Fatal(refusal.Message)
	}
	b.apply(made)
	cmd, refusal := b.state.PlanConfigureGroup("g", 0, []cluster.ConfigEdit{{Op: cluster.ConfigSet, Name: cluster.GroupAssignmentMS, Value: "1000"}}, false, func(string) int64 { return -1 }, roomy)
	if refusal != nil {
		t.Fatal(refusal.Message)
	}
	b.apply(cmd)
	epochs := map[string]int32{}
	beat := func(group, id string) (has int, epoch int32) {
		t.Helper()
		req := &ConsumerRequest{Group: group, MemberID: id, Epoch: epochs[group+id], RebalanceTimeoutMS: -1, Owned: []cluster.TopicPartitions{}}
		if req.Epoch == 0 {
			req.RebalanceTimeoutMS, req.Topics = 1000, []string{"t"}
		}
		b.c.ConsumerHeartbeat(b.at, 1, req)
		for _, e := range b.c.Effects() {
			if e.Store {
				b.held = append(b.held, e.Change)
			} else if r := e.Reply.(*ConsumerReply); r.Code != 0 {
				t.Fatalf("%s of %s: %d %s", id, group, r.Code, r.Why)
			}
		}
		b.release(0)
		for _, e := range b.c.Effects() {
			epochs[group+id] = e.Reply.(*ConsumerReply).Epoch
		}
		info, _ := b.c.DescribeConsumer(group)
		for _, m := range info.Members {
			if m.ID == id {
				for _, topic := range m.Target {
					has += len(topic.Partitions)
				}
			}
		}
		return has, info.AssignmentEpoch
	}
	for group, waits := range map[string]bool{"g": true, "h": false} {
		if has, at := beat(group, "a"); has != 4 || at != 1 {
			t.Errorf("the first member of %s is to have %d partitions, by assignment %d", group, has, at)
		}
		b.at.NowMS += 999
		if has, at := beat(group, "b"); waits != (has == 0 && at == 1) || !waits && (has != 2 || at != 2) {
			t.Errorf("a second member of %s is to have %d partitions at once, by assignment %d", group, has, at)
		}
		b.at.NowMS++
		if has, at := beat(group, "b"); has != 2 || at != 2 {
			t.Errorf("when the interval of %s is over the second member is to have %d partitions, by assignment %d", group, has, at)
		}
	}
}
