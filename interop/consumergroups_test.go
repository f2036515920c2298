package interop

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// consumerClients are those that know the consumer protocol (KIP-848); the assignors are the broker's.
var consumerClients = map[string]joins{
	"franz-go": franzConsumer,
}

func franzConsumer(b *broker, m membership) (leave, crash func(), err error) {
	balancer := map[string]kgo.GroupBalancer{"uniform": kgo.StickyBalancer(), "range": kgo.RangeBalancer()}[m.assignor]
	return franzGroup(b, m, kgo.ServerSideBalancer(), kgo.Balancers(balancer))
}

// consumerBroker is a broker whose groups of the consumer protocol are quick.
func consumerBroker(t *testing.T) *broker {
	t.Helper()
	needReal(t, "its sessions are long")
	b := ownBroker(t, groupFlags...)
	sessions(t, b, "3000")
	return b
}

// sessions has members' sessions last so many milliseconds from their next heartbeat on.
func sessions(t *testing.T, b *broker, ms string) {
	t.Helper()
	var sets []kadm.AlterConfig
	for name, value := range map[string]string{"group.consumer.session.timeout.ms": ms, "group.consumer.heartbeat.interval.ms": "200"} {
		sets = append(sets, kadm.AlterConfig{Op: kadm.SetConfig, Name: name, Value: &value})
	}
	rs, err := admin(t, b).AlterBrokerConfigs(within(t, 10*time.Second), sets)
	if err != nil || len(rs) == 0 || rs[0].Err != nil {
		t.Fatal(err, rs)
	}
}

// consumed waits until the group is stable with n members that have every partition of the topic once between them.
func (f *flock) consumed(n, partitions int) kadm.DescribedConsumerGroup {
	f.t.Helper()
	var g kadm.DescribedConsumerGroup
	f.until(fmt.Sprintf("stable with %d members", n), func() (bool, string) {
		ds, err := f.adm.DescribeConsumerGroups(within(f.t, f.patience), f.group)
		if err != nil {
			return false, err.Error()
		}
		g = ds[f.group]
		have := fmt.Sprintf("%s, %v, epoch %d:", g.State, g.Err, g.Epoch)
		owners := map[int32]string{}
		for _, m := range g.Members {
			for p := range m.Assignment[f.topic] {
				if owners[p] != "" {
					f.t.Errorf("partition %d is %s's and %s's", p, owners[p], m.MemberID)
				}
				owners[p] = m.MemberID
			}
			have += fmt.Sprintf(" %s at %d %v;", m.MemberID, m.MemberEpoch, m.Assignment)
		}
		return g.State == "Stable" && len(g.Members) == n && len(owners) == partitions, have
	})
	return g
}

// TestConsumerGroups: members of the consumer protocol join, leave and crash, partitions are added; every record is seen, and committed records
// are not seen again by later members.
func TestConsumerGroups(t *testing.T) {
	b := consumerBroker(t)
	for _, name := range clientNames {
		join, ok := consumerClients[name]
		if !ok {
			continue
		}
		for _, assignor := range []string{"uniform", "range"} {
			t.Run(name+"/"+assignor, func(t *testing.T) {
				t.Parallel()
				f := newFlock(t, b, groupPartitions)
				f.join, f.assignor = join, assignor
				f.write(60)
				leaveA, _ := f.member("")
				f.sees()
				f.consumed(1, groupPartitions)
				leaveB, _ := f.member("")
				if g := f.consumed(2, groupPartitions); g.AssignorName != assignor {
					t.Errorf("the group's assignor is %q", g.AssignorName)
				}
				f.write(60)
				f.sees()
				if listed, err := f.adm.ListGroupsByType(within(t, f.patience), []string{"consumer"}); err != nil || listed[f.group].State != "Stable" {
					t.Errorf("the group is listed as %+v, %v", listed[f.group], err)
				}
				grow(t, f.adm, f.topic, groupPartitions+2)
				f.consumed(2, groupPartitions+2)
				leaveB()
				f.consumed(1, groupPartitions+2)
				f.write(60)
				f.sees()
				members := 1
				if _, crash := f.member(""); crash != nil {
					f.consumed(2, groupPartitions+2)
					f.write(60)
					crash()
					f.sees()
					f.consumed(1, groupPartitions+2)
				} else {
					members = 2
					f.consumed(2, groupPartitions+2)
				}
				f.until("everything committed", func() (bool, string) {
					var n int64
					for _, at := range f.committed() {
						n += max(at, 0)
					}
					return n == int64(f.written), fmt.Sprint(n)
				})
				leaveA()
				if members == 1 {
					f.until("empty", func() (bool, string) {
						ds, err := f.adm.DescribeConsumerGroups(within(t, f.patience), f.group)
						return err == nil && ds[f.group].State == "Empty", fmt.Sprint(ds[f.group].State, err)
					})
				}
				f.seen.mu.Lock()
				f.seen.seen = map[string]int{}
				f.seen.mu.Unlock()
				f.member("")
				f.write(6)
				f.until("only new records seen", func() (bool, string) { n := f.seen.count(); return n >= 6, fmt.Sprint(n) })
				if n := f.seen.count(); n != 6 {
					t.Errorf("who came last saw %d records; 6 were not committed", n)
				}
			})
		}
	}
}

func grow(t *testing.T, adm *kadm.Client, topic string, to int) {
	t.Helper()
	rs, err := adm.UpdatePartitions(within(t, 10*time.Second), to, topic)
	if err != nil || rs[topic].Err != nil {
		t.Fatal(err, rs[topic].Err)
	}
}

// TestConsumerGroupsStatic: a static member that is closed, or that crashes and comes back, has what it had; the others do not notice.
func TestConsumerGroupsStatic(t *testing.T) {
	b := consumerBroker(t)
	sessions(t, b, "15000") // on a busy machine a restart takes its time
	for name, join := range consumerClients {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFlock(t, b, groupPartitions)
			f.join, f.assignor = join, "uniform"
			f.staticReturnsUnnoticed()
		})
	}
}

// staticReturnsUnnoticed has two static members of a group of the consumer protocol, of which one is closed and comes back.
func (f *flock) staticReturnsUnnoticed() {
	f.t.Helper()
	f.member("one")
	leave, _ := f.member("two")
	before := f.consumed(2, groupPartitions)
	leave()
	f.member("two")
	f.write(60)
	f.sees()
	after := f.consumed(2, groupPartitions)
	if before.Epoch != after.Epoch {
		f.t.Errorf("the group went from epoch %d to %d", before.Epoch, after.Epoch)
	}
	for i, m := range after.Members { // sorted by instance
		if was := before.Members[i]; *was.InstanceID != *m.InstanceID || !maps.Equal(was.Assignment[f.topic], m.Assignment[f.topic]) {
			f.t.Errorf("%s had %v and has %v", *m.InstanceID, was.Assignment, m.Assignment)
		}
	}
}

// TestConsumerGroupsRegex: members subscribe by a regular expression that the broker matches; topics that come later are theirs too.
func TestConsumerGroupsRegex(t *testing.T) {
	b := consumerBroker(t)
	for name, join := range consumerClients {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFlock(t, b, groupPartitions)
			f.assignor = "uniform"
			f.regexFinds(join)
		})
	}
}

// TestConsumerGroupsKill: the broker is killed again and again under members of the consumer protocol. They stay the members they are, the group's
// epoch is as it was, no committed offset goes back, and every record is seen; so it is when one stalls past its session, and comes back.
func TestConsumerGroupsKill(t *testing.T) {
	for name, join := range consumerClients {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := consumerBroker(t)
			sessions(t, b, "15000") // on a busy machine a restart takes its time
			f := newFlock(t, b, groupPartitions)
			f.join, f.assignor = join, "uniform"
			line := &lines{}
			f.member("")
			_, crash := f.memberOn(line, "")
			before := f.consumed(2, groupPartitions)
			for range 2 {
				f.write(60)
				last := f.committed()
				b.kill()
				if err := b.start(); err != nil {
					t.Fatal(err)
				}
				f.until("offsets fetched", func() (bool, string) { // a connection of the life before ends with an error first
					rs, err := f.adm.FetchOffsets(within(t, f.patience), f.group)
					for p, at := range last {
						if o, ok := rs.Lookup(f.topic, p); err == nil && (!ok || o.At < at) {
							t.Errorf("partition %d was committed to %d, after kill -9 to %+v", p, at, o)
						}
					}
					return err == nil, fmt.Sprint(err)
				})
				f.write(60)
				f.sees()
				if after := f.consumed(2, groupPartitions); after.Epoch != before.Epoch {
					t.Errorf("the group went from epoch %d to %d: a restart within a session should not be noticed", before.Epoch, after.Epoch)
				}
			}
			if crash == nil {
				return // its lines are not ours
			}
			sessions(t, b, "3000")
			line.still.Lock()
			f.consumed(1, groupPartitions)
			f.write(60)
			f.sees()
			line.still.Unlock()
			f.consumed(2, groupPartitions)
			f.write(60)
			f.sees()
		})
	}
}

// TestConsumerGroupWire: what the protocol answers, byte by byte as Kafka does, in every version.
func TestConsumerGroupWire(t *testing.T) {
	b := consumerBroker(t)
	topic := topicName(t)
	createTopic(t, b, topic, 2)
	w, err := dial(b.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	ask := func(req kmsg.Request) kmsg.Response {
		t.Helper()
		resp, err := w.ask(req)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	for version := int16(0); version <= 1; version++ {
		group := fmt.Sprint(topic, version)
		join := kmsg.NewPtrConsumerGroupHeartbeatRequest()
		join.Version, join.Group, join.RebalanceTimeoutMillis, join.SubscribedTopicNames, join.Topics = version, group, 1000, []string{topic}, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
		if version > 0 {
			join.MemberID = "mine"
		}
		r := ask(join).(*kmsg.ConsumerGroupHeartbeatResponse)
		if r.ErrorCode != 0 || r.MemberID == nil || *r.MemberID == "" || r.MemberEpoch != 1 || r.HeartbeatIntervalMillis != 200 || r.Assignment == nil || len(r.Assignment.Topics) != 1 || len(r.Assignment.Topics[0].Partitions) != 2 {
			t.Fatalf("version %d: joined with %+v", version, r)
		}
		beat := kmsg.NewPtrConsumerGroupHeartbeatRequest()
		beat.Version, beat.Group, beat.MemberID, beat.MemberEpoch, beat.RebalanceTimeoutMillis = version, group, *r.MemberID, 1, -1
		if r := ask(beat).(*kmsg.ConsumerGroupHeartbeatResponse); r.ErrorCode != 0 || r.Assignment != nil || r.MemberEpoch != 1 {
			t.Errorf("version %d: a heartbeat is answered %+v", version, r)
		}
		// Offsets, by the member's epoch.
		for epoch, want := range map[int32]*kerr.Error{1: nil, 0: kerr.StaleMemberEpoch, 2: kerr.StaleMemberEpoch} {
			c := commitRequest(group, topic, 1, 7)
			c.Version, c.MemberID, c.Generation = 9, *r.MemberID, epoch
			if code := ask(c).(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode; kerr.TypedErrorForCode(code) != want {
				t.Errorf("a commit of epoch %d is answered %v", epoch, kerr.ErrorForCode(code))
			}
			q := kmsg.NewPtrOffsetFetchRequest()
			q.Version = 9
			g := kmsg.NewOffsetFetchRequestGroup()
			g.Group, g.MemberID, g.MemberEpoch = group, r.MemberID, epoch
			q.Groups = append(q.Groups, g)
			if code := ask(q).(*kmsg.OffsetFetchResponse).Groups[0].ErrorCode; kerr.TypedErrorForCode(code) != want {
				t.Errorf("a fetch of offsets of epoch %d is answered %v", epoch, kerr.ErrorForCode(code))
			}
		}
		d := kmsg.NewPtrConsumerGroupDescribeRequest()
		d.Version, d.Groups = version, []string{group, "none." + group}
		ds := ask(d).(*kmsg.ConsumerGroupDescribeResponse).Groups
		if g := ds[0]; g.ErrorCode != 0 || g.State != "Stable" || g.Epoch != 1 || g.AssignmentEpoch != 1 || g.AssignorName != "uniform" || len(g.Members) != 1 || g.Members[0].Assignment.TopicPartitions[0].Topic != topic {
			t.Errorf("the group is described as %+v", g)
		}
		if g := ds[1]; g.ErrorCode != kerr.GroupIDNotFound.Code || g.ErrorMessage == nil {
			t.Errorf("no group is described as %+v", g)
		}
		// To clients that only know classic groups it does not exist.
		old := kmsg.NewPtrDescribeGroupsRequest()
		old.Version, old.Groups = 6, []string{group}
		if g := ask(old).(*kmsg.DescribeGroupsResponse).Groups[0]; g.ErrorCode != kerr.GroupIDNotFound.Code || g.State != "Dead" {
			t.Errorf("as a classic group it is described as %+v", g)
		}
		// A classic member of consumers is one of the group, and is what is left of it.
		strange := joinRequest(5, group, "")
		strange.ProtocolType = "connect"
		if r := ask(strange).(*kmsg.JoinGroupResponse); r.ErrorCode != kerr.InconsistentGroupProtocol.Code {
			t.Errorf("a classic join of another kind is answered %v", kerr.ErrorForCode(r.ErrorCode))
		}
		classic := joinRequest(3, group, "")
		classic.Protocols[0].Metadata = subscribing(topic)
		joined := ask(classic).(*kmsg.JoinGroupResponse)
		if joined.ErrorCode != 0 || joined.Generation != 2 || joined.LeaderID != "" || len(joined.Members) != 0 || joined.Protocol == nil || *joined.Protocol != "range" {
			t.Errorf("a classic join is answered %+v", joined)
		}
		if g := ask(d).(*kmsg.ConsumerGroupDescribeResponse).Groups[0]; version > 0 && (len(g.Members) != 2 || g.Members[0].MemberType+g.Members[1].MemberType != 1) {
			t.Errorf("a group of both protocols is described as %+v", g)
		}
		beat.MemberEpoch = -1
		if r := ask(beat).(*kmsg.ConsumerGroupHeartbeatResponse); r.ErrorCode != 0 || r.MemberEpoch != -1 {
			t.Errorf("leaving is answered %+v", r)
		}
		if g := ask(old).(*kmsg.DescribeGroupsResponse).Groups[0]; g.ErrorCode != 0 || g.State != "PreparingRebalance" || len(g.Members) != 1 || g.Members[0].MemberID != joined.MemberID {
			t.Errorf("what is left is described as %+v", g)
		}
	}
}
