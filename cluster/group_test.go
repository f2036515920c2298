package cluster

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/kafka"
)

// TestGroupCommandsAreWholeOrNothing: a command that is cut or damaged changes
// nothing.
func TestGroupCommandsAreWholeOrNothing(t *testing.T) {
	s := New()
	must(t, s)(s.PlanCreate("t", 2, 1, nil, id(1), roomy))
	cmd := s.PlanGroups([][]byte{
		CommitOffsets("a", []GroupTopic{{"t", []Offset{{Partition: 1, Offset: 7, Metadata: "m"}, {Partition: 9, Offset: 1}}}, {"none", []Offset{{Offset: 1}}}}),
		PutGroup(&Group{ID: "b", Generation: 3, ProtocolType: "consumer", Protocol: "range", Leader: "x", Members: []GroupMember{{ID: "x", Subscription: []byte("s"), Assignment: []byte("a")}}}),
		ForgetOffsets("a", []GroupPartitions{{"t", []int32{0}}}),
		DropGroup("none"),
		PutConsumer("c", 5, &ConsumerGroup{Epoch: 2, AssignmentEpoch: 2, Serial: 1, Members: []ConsumerMember{{ID: "x", Topics: []string{"t"}, Regex: "u.*", Target: []TopicPartitions{{id(1), []int32{0, 1}}}}, {ID: "y"}}}, true, nil),
		PutConsumer("c", 6, &ConsumerGroup{Epoch: 3, AssignmentEpoch: 2, Serial: 2}, false, []string{"y"}),
		PutConsumer("c", 7, &ConsumerGroup{Epoch: 9, AssignmentEpoch: 9, Serial: 4}, false, []string{"x"}), // the one before it is missing
		PutConsumer("d", 7, &ConsumerGroup{Epoch: 9, AssignmentEpoch: 9, Serial: 1}, false, nil),
	})
	body := cmd[format.CommandHeaderBytes:]
	for n := 1; n < len(body); n++ {
		whole := false // cut between two changes it is a sound, shorter command
		for at := 0; at < len(body); at += groupChangeHeaderBytes + int(binary.LittleEndian.Uint32(body[at+1:])) {
			whole = whole || at == n
		}
		err := s.Apply(command(kindGroups, s.Sequence()+1, body[:n]))
		if whole {
			continue
		}
		if err == nil {
			t.Fatalf("a command cut to %d of %d bytes was applied", n, len(body))
		}
	}
	s = New()
	must(t, s)(s.PlanCreate("t", 2, 1, nil, id(1), roomy))
	if err := s.Apply(cmd); err != nil {
		t.Fatal(err)
	}
	a, _ := s.Group("a")
	if o, ok := a.Offset("t", 1); !ok || o.Offset != 7 || o.Metadata != "m" || len(a.Topics) != 1 || len(a.Topics[0].Offsets) != 1 {
		t.Fatalf("group a has %+v", a.Topics)
	}
	if c, ok := s.Group("c"); !ok || c.Consumer == nil || c.Consumer.Epoch != 3 || len(c.Consumer.Members) != 1 || c.Consumer.Members[0].ID != "x" || c.ChangedMS != 6 {
		t.Fatalf("group c has %+v", c)
	}
	if len(s.Groups()) != 3 || !slices.ContainsFunc(s.Groups(), func(g *Group) bool { return g.ID == "b" && g.Generation == 3 && len(g.Members) == 1 }) {
		t.Fatalf("groups are %+v", s.Groups())
	}
}

// TestGroupConfigsMax: configurations that are deleted leave nothing behind, and
// only so many groups may have some.
func TestGroupConfigsMax(t *testing.T) {
	s := New()
	started := func(string) int64 { return -1 }
	plan := func(group string, edits ...ConfigEdit) ([]byte, *Refusal) {
		return s.PlanConfigureGroup(group, 0, edits, false, started, roomy)
	}
	set := ConfigEdit{Op: ConfigSet, Name: GroupSessionMS, Value: "50000"}
	must(t, s)(plan("g", set, ConfigEdit{Op: ConfigSet, Name: GroupHeartbeatMS, Value: "15000"}))
	must(t, s)(plan("g", ConfigEdit{Op: ConfigDelete, Name: GroupHeartbeatMS}, ConfigEdit{Op: ConfigDelete, Name: GroupSessionMS}))
	if ids := s.ConfiguredGroups(); len(ids) != 0 {
		t.Errorf("groups %q have configurations", ids)
	}
	must(t, s)(plan("h", set))
	must(t, s)(plan("g", set))
	if ids := s.ConfiguredGroups(); !slices.Equal(ids, []string{"g", "h"}) {
		t.Errorf("groups %q have configurations, want g and h", ids)
	}
	s.groupConfigs = make(configSets[string], groupConfigsMax) // as if there were so many
	if _, refusal := plan("one more", set); refusal == nil || refusal.Code != kafka.PolicyViolation {
		t.Errorf("one group too many: %v", refusal)
	}
}
