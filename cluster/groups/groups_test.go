package groups

import (
	"encoding/binary"
	"fmt"
	"math/rand"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/kafka"
)

var kafkaGroups = Options{
	SessionTimeoutMinMS: 6000, SessionTimeoutMaxMS: 1800000, InitialRebalanceDelayMS: 3000, NewMemberTimeoutMS: 300000, OffsetsRetentionMS: 7 * 24 * 3600 * 1000,
	GroupSizeMax: 1000, MembersMax: 1000, GroupsMax: 1000, GroupBytesMax: 1 << 20, OffsetBytesMax: 1 << 20, BytesMax: 1 << 24,
	ConsumerSessionTimeoutMS: 45000, ConsumerHeartbeatIntervalMS: 5000, ConsumerGroupSizeMax: 1000, ConsumersMax: 1000,
}

// subscription is the metadata of a consumer, version 0.
func subscription(topics ...string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0, 0}, uint32(len(topics)))
	for _, t := range topics {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(t))), t...)
	}
	return append(b, 0xff, 0xff, 0xff, 0xff)
}

// subscriptionV1 is a consumer's metadata of version 1, which says what it has.
func subscriptionV1(owned []byte, topics ...string) []byte {
	b := subscription(topics...)
	b[1] = 1
	return append(b, owned...)
}

// named writes partitions down as a consumer's metadata and its assignment do.
func (b *bench) named(all []cluster.TopicPartitions) []byte {
	out := binary.BigEndian.AppendUint32(nil, uint32(len(all)))
	for _, t := range all {
		topic, _ := b.state.TopicByID(t.Topic)
		out = append(binary.BigEndian.AppendUint16(out, uint16(len(topic.Name))), topic.Name...)
		out = binary.BigEndian.AppendUint32(out, uint32(len(t.Partitions)))
		for _, partition := range t.Partitions {
			out = binary.BigEndian.AppendUint32(out, uint32(partition))
		}
	}
	return out
}

// assigned is what a leader of consumers assigns.
func (b *bench) assigned(all []cluster.TopicPartitions, userData string) []byte {
	out := append([]byte{0, 1}, b.named(all)...)
	if userData == "" {
		return append(out, 0xff, 0xff, 0xff, 0xff)
	}
	return append(binary.BigEndian.AppendUint32(out, uint32(len(userData))), userData...)
}

// bench is a State and a Coordinator under test, and the world around them.
type bench struct {
	t     *testing.T
	state *cluster.State
	c     *Coordinator
	o     Options
	at    Time
	hold  bool
	held  [][]byte // changes not stored yet
	said  strings.Builder
	saved [][]byte // the log: commands since the beginning
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, state: cluster.New(), o: kafkaGroups, at: Time{NowMS: 1000, WallMS: 1_000_000}}
	b.c = New(b.state, b.o, b.at)
	return b
}

func (b *bench) apply(cmd []byte) {
	if err := b.state.Apply(cmd); err != nil {
		b.t.Fatalf("applying: %v", err)
	}
	b.saved = append(b.saved, cmd)
}

// settle writes down effects, and stores what is to be stored.
func (b *bench) settle() {
	for {
		effects := b.c.Effects()
		if len(effects) == 0 && (b.hold || len(b.held) == 0) {
			return
		}
		for _, e := range effects {
			if e.Store {
				b.held = append(b.held, e.Change)
				continue
			}
			fmt.Fprintf(&b.said, "%d: ", e.Ticket)
			switch reply := e.Reply.(type) {
			case *JoinReply:
				b.joined(reply)
			case *SyncReply:
				has, _, ok := parseAssignment(reply.Assignment)
				if reply.Code != 0 {
					fmt.Fprintf(&b.said, "sync %s\n", reply.Code)
				} else if ok && len(reply.Assignment) > 0 {
					fmt.Fprintf(&b.said, "sync %s/%s has %s\n", reply.ProtocolType, reply.Protocol, b.partitions(b.c.withIDs(has)))
				} else {
					fmt.Fprintf(&b.said, "sync %s/%s %q\n", reply.ProtocolType, reply.Protocol, reply.Assignment)
				}
			case *ConsumerReply:
				if reply.Code != 0 {
					fmt.Fprintf(&b.said, "beat %s\n", reply.Code)
					break
				}
				fmt.Fprintf(&b.said, "beat id=%s epoch=%d", reply.MemberID, reply.Epoch)
				if reply.Assigns {
					fmt.Fprintf(&b.said, " has %s", b.partitions(reply.Assignment))
				}
				b.said.WriteString("\n")
			case Done:
				fmt.Fprintf(&b.said, "done %s\n", reply.Code)
			}
		}
		if !b.hold {
			b.release(0)
		}
	}
}

// release ends the changes that wait.
func (b *bench) release(code kafka.ErrorCode) {
	all := b.held
	b.held = nil
	if code == 0 {
		if slices.ContainsFunc(all, func(change []byte) bool { return len(change) > 0 }) {
			b.apply(b.state.PlanGroups(all))
		}
	}
	for range all {
		b.c.Stored(b.at, code)
	}
}

func (b *bench) joined(reply *JoinReply) {
	if reply.Code != 0 {
		fmt.Fprintf(&b.said, "join %s id=%s\n", reply.Code, reply.MemberID)
		return
	}
	fmt.Fprintf(&b.said, "join id=%s generation=%d %s/%s leader=%s", reply.MemberID, reply.Generation, reply.ProtocolType, reply.Protocol, reply.Leader)
	if reply.SkipAssignment {
		b.said.WriteString(" skip")
	}
	for _, m := range reply.Members {
		fmt.Fprintf(&b.said, " [%s", m.ID)
		if m.InstanceID != "" {
			fmt.Fprintf(&b.said, "@%s", m.InstanceID)
		}
		fmt.Fprintf(&b.said, " %q]", m.Metadata)
	}
	b.said.WriteString("\n")
}

// partitions are written t:0,1+u:0, none as none.
func (b *bench) partitions(all []cluster.TopicPartitions) string {
	var out []string
	for _, t := range all {
		name := fmt.Sprintf("%x", t.Topic[15])
		if topic, ok := b.state.TopicByID(t.Topic); ok {
			name = topic.Name
		}
		out = append(out, name+":"+strings.ReplaceAll(strings.Trim(fmt.Sprint(t.Partitions), "[]"), " ", ","))
	}
	slices.Sort(out)
	if out == nil {
		return "none"
	}
	return strings.Join(out, "+")
}

func (b *bench) parsePartitions(text string) []cluster.TopicPartitions {
	out := []cluster.TopicPartitions{}
	for _, x := range strings.Split(text, "+") {
		name, parts, ok := strings.Cut(x, ":")
		topic, known := b.state.Topic(name)
		if !ok || !known {
			continue
		}
		t := cluster.TopicPartitions{Topic: topic.ID}
		for _, p := range strings.Split(parts, ",") {
			n, _ := strconv.Atoi(p)
			t.Partitions = append(t.Partitions, int32(n))
		}
		out = append(out, t)
	}
	return out
}

// restart takes up a state as a broker does that was killed: from its snapshot
// or from all of its commands, which must give the same.
func (b *bench) restart() {
	b.held = nil
	replayed, restored := cluster.New(), cluster.New()
	for _, cmd := range b.saved {
		if err := replayed.Apply(cmd); err != nil {
			b.t.Fatalf("replaying: %v", err)
		}
	}
	if b.state.Sequence() > 0 {
		for _, cmd := range b.state.Snapshot(200) {
			if err := restored.Apply(cmd); err != nil {
				b.t.Fatalf("restoring: %v", err)
			}
		}
	}
	if !replayed.Equal(b.state) || !restored.Equal(b.state) {
		b.t.Fatalf("a restart changed the state: replayed %t, restored %t", replayed.Equal(b.state), restored.Equal(b.state))
	}
	b.state = restored
	b.c = New(b.state, b.o, b.at)
}

// check holds the invariants of live groups.
func (b *bench) check() {
	members, total := 0, 0
	for i, group := range b.c.groups {
		if i > 0 && b.c.groups[i-1].id >= group.id {
			b.t.Fatal("groups are out of order")
		}
		awaiting, bytes, static := 0, 0, 0
		for _, member := range group.members {
			if group.byID[member.id] != member || member.instance != "" && group.static[member.instance] != member {
				b.t.Fatalf("group %s: member %s is in disorder", group.id, member.id)
			}
			if member.join != 0 && member.sync != 0 {
				b.t.Fatalf("group %s: member %s waits twice", group.id, member.id)
			}
			if member.join != 0 {
				awaiting++
			}
			if member.instance != "" {
				static++
			}
			bytes += member.bytes()
		}
		if consumer := group.consumer; consumer != nil {
			bytes += b.checkConsumers(group, consumer)
		}
		if awaiting != group.awaiting || bytes != group.bytes || len(group.byID) != len(group.members) || len(group.static) != static {
			b.t.Fatalf("group %s: %d of %d wait for joins, %d of %d bytes, %d of %d members, %d of %d static", group.id, group.awaiting, awaiting, group.bytes, bytes, len(group.byID), len(group.members), len(group.static), static)
		}
		if empty := group.state == Empty; empty && len(group.members) > 0 {
			b.t.Fatalf("group %s: empty with members", group.id)
		}
		if (group.state == Stable || group.state == CompletingRebalance) && len(group.members) == 0 && group.consumer == nil {
			b.t.Fatalf("group %s: %s without members", group.id, group.state)
		}
		if len(group.members) > 0 && group.byID[group.leader] == nil {
			b.t.Fatalf("group %s: its leader %q is no member", group.id, group.leader)
		}
		if due := group.earliest(); due != Never && (group.heapAt < 0 || b.c.due[group.heapAt] != group || group.due > due) {
			b.t.Fatalf("group %s: due at %d, scheduled for %d", group.id, due, group.due)
		}
		members += len(group.members) + len(group.pending)
		total += group.bytes
	}
	if members != b.c.members || total != b.c.bytes {
		b.t.Fatalf("%d members counted of %d, %d bytes of %d", b.c.members, members, b.c.bytes, total)
	}
}

// checkConsumers holds the invariants of a live group of the consumer protocol,
// and says how much its members are counted to have.
func (b *bench) checkConsumers(group *group, consumer *consumerGroup) (bytes int) {
	if len(group.members) > 0 || group.protocolType != cluster.ConsumerProtocol || consumer.assigned > consumer.epoch || group.state != consumer.state() {
		b.t.Fatalf("group %s: %d classic members, type %q, epoch %d assigned %d, %s but %s", group.id, len(group.members), group.protocolType, consumer.epoch, consumer.assigned, group.state, consumer.state())
	}
	owned, static := 0, 0
	targets := map[slot]string{}
	for i, member := range consumer.members {
		if i > 0 && consumer.members[i-1].ID >= member.ID {
			b.t.Fatalf("group %s: members are out of order", group.id)
		}
		if member.InstanceID != "" {
			static++
			if consumer.static[member.InstanceID] != member {
				b.t.Fatalf("group %s: static member %s is in disorder", group.id, member.ID)
			}
		}
		if member.Epoch > consumer.assigned || (member.State == cluster.MemberUnrevoked) != (len(member.Revoking) > 0) || (member.State == cluster.MemberUnrevoked && member.Classic == nil) != (member.revokeBy != Never) || member.Classic == nil && min(member.joinBy, member.syncBy) != Never || member.dirty {
			b.t.Fatalf("group %s: member %+v at assignment epoch %d, to revoke by %d", group.id, member.ConsumerMember, consumer.assigned, member.revokeBy)
		}
		if member.State == cluster.MemberStable && member.Epoch == consumer.assigned && !cluster.SamePartitions(member.Assigned, member.Target) {
			b.t.Fatalf("group %s: member %s is stable with %v, its target is %v", group.id, member.ID, member.Assigned, member.Target)
		}
		for _, all := range [][]cluster.TopicPartitions{member.Assigned, member.Revoking} {
			for _, topic := range all {
				for _, partition := range topic.Partitions {
					owned++
					if consumer.owners[slot{topic.Topic, partition}] != member {
						b.t.Fatalf("group %s: %s has a partition that is not its own", group.id, member.ID)
					}
				}
			}
		}
		for _, topic := range member.Target {
			for _, partition := range topic.Partitions {
				s := slot{topic.Topic, partition}
				if targets[s] != "" {
					b.t.Fatalf("group %s: partition %d is to be %s's and %s's", group.id, partition, targets[s], member.ID)
				}
				targets[s] = member.ID
			}
		}
		if member.counted != member.CountedBytes() {
			b.t.Fatalf("group %s: member %s is counted to have %d bytes, it has %d", group.id, member.ID, member.counted, member.CountedBytes())
		}
		bytes += member.counted
	}
	if owned != len(consumer.owners) || static != len(consumer.static) {
		b.t.Fatalf("group %s: %d partitions owned, %d counted; %d static members, %d counted", group.id, owned, len(consumer.owners), static, len(consumer.static))
	}
	return bytes
}

// args reads a command's arguments.
type args struct {
	t *testing.T
	d *datadriven.TestData
}

func (a args) has(key string) bool { return a.d.HasArg(key) }
func (a args) str(key, or string) string {
	for _, x := range a.d.CmdArgs {
		if x.Key == key && len(x.Vals) > 0 {
			return x.Vals[0]
		}
	}
	return or
}
func (a args) num(key string, or int64) int64 {
	s := a.str(key, "")
	if s == "" {
		return or
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		a.d.Fatalf(a.t, "%s=%s is not a number", key, s)
	}
	return n
}

// TestGroups runs the scenarios of testdata/groups. Each begins with nothing
// and Kafka's defaults; commands are those of the switch below. Changes are
// stored at once unless they are held.
func TestGroups(t *testing.T) {
	datadriven.Walk(t, "testdata/groups", func(t *testing.T, path string) {
		b := newBench(t)
		ticket := uint64(0)
		topics := uint64(0)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			b.t = t
			a := args{t, d}
			groupID := a.str("group", "g")
			b.said.Reset()
			next := func() uint64 {
				ticket++
				return ticket
			}
			say := func(format string, v ...any) { fmt.Fprintf(&b.said, format+"\n", v...) }
			switch d.Cmd {
			case "options":
				b.o.InitialRebalanceDelayMS = a.num("delay", b.o.InitialRebalanceDelayMS)
				b.o.GroupSizeMax = int(a.num("size", int64(b.o.GroupSizeMax)))
				b.o.MembersMax = int(a.num("members", int64(b.o.MembersMax)))
				b.o.GroupsMax = int(a.num("groups", int64(b.o.GroupsMax)))
				b.o.GroupBytesMax = int(a.num("group-bytes", int64(b.o.GroupBytesMax)))
				b.o.OffsetBytesMax = int(a.num("offset-bytes", int64(b.o.OffsetBytesMax)))
				b.o.BytesMax = int(a.num("bytes", int64(b.o.BytesMax)))
				b.o.OffsetsRetentionMS = a.num("retention", b.o.OffsetsRetentionMS)
				b.o.ConsumerGroupSizeMax = int(a.num("consumers", int64(b.o.ConsumerGroupSizeMax)))
				b.o.ConsumersMax = int(a.num("all-consumers", int64(b.o.ConsumersMax)))
				if name := a.str("migration", ""); name != "" {
					b.o.Migration, _ = cluster.ParseMigrationPolicy(name)
				}
				b.c.options = b.o
			case "topic":
				topics++
				must(t, b.state)(func() ([]byte, *cluster.Refusal) {
					cmd, r := b.state.PlanCreate(a.str("name", ""), int(a.num("partitions", 4)), 1, nil, id(topics), roomy)
					b.saved = append(b.saved, cmd)
					return cmd, r
				}())
			case "delete-topic":
				must(t, b.state)(func() ([]byte, *cluster.Refusal) {
					cmd, r := b.state.PlanDelete(a.str("name", ""))
					b.saved = append(b.saved, cmd)
					return cmd, r
				}())
			case "join":
				req := &JoinRequest{
					Group: groupID, MemberID: a.str("id", ""), InstanceID: a.str("instance", ""), ProtocolType: a.str("type", "consumer"), NewID: a.str("new", ""), ClientID: "client",
					SessionTimeoutMS: int32(a.num("session", 10000)), RebalanceTimeoutMS: int32(a.num("rebalance", 60000)), IDRequired: a.has("v4"), CanSkip: a.has("v9"),
				}
				for _, p := range strings.Split(a.str("knows", "range:t"), "+") {
					if name, what, ok := strings.Cut(p, ":"); ok {
						meta := []byte(what)
						if req.ProtocolType == "consumer" {
							meta = subscription(strings.Split(what, "/")...)
							if a.has("owned") {
								meta = subscriptionV1(b.named(b.parsePartitions(a.str("owned", ""))), strings.Split(what, "/")...)
							}
							if what == "garbage" {
								meta = []byte{0}
							}
						}
						req.Protocols = append(req.Protocols, cluster.GroupProtocol{Name: name, Metadata: meta})
					}
				}
				if a.has("type") && a.str("type", "") == "none" {
					req.ProtocolType = ""
				}
				b.c.Join(b.at, next(), req)
			case "sync":
				req := &SyncRequest{Group: groupID, MemberID: a.str("id", ""), InstanceID: a.str("instance", ""), Generation: int32(a.num("generation", 1))}
				if v := a.str("type", ""); v != "" {
					req.ProtocolType = &v
				}
				if v := a.str("protocol", ""); v != "" {
					req.Protocol = &v
				}
				for _, x := range strings.Split(a.str("assign", ""), "+") {
					if m, what, ok := strings.Cut(x, ":"); ok {
						req.Assignments = append(req.Assignments, Assignment{m, []byte(what)})
					}
				}
				for _, line := range strings.Split(d.Input, "\n") { // what consumers are assigned
					if m, what, ok := strings.Cut(line, " "); ok {
						req.Assignments = append(req.Assignments, Assignment{m, b.assigned(b.parsePartitions(what), a.str("custom", ""))})
					}
				}
				b.c.Sync(b.at, next(), req)
			case "grow":
				must(t, b.state)(func() ([]byte, *cluster.Refusal) {
					cmd, r := b.state.PlanGrow(a.str("name", ""), int(a.num("partitions", 4)), cluster.Placement{}, roomy)
					b.saved = append(b.saved, cmd)
					return cmd, r
				}())
			case "beat":
				req := &ConsumerRequest{Group: groupID, MemberID: a.str("id", ""), Epoch: int32(a.num("epoch", 0)), RebalanceTimeoutMS: int32(a.num("rebalance", -1)), ClientID: "client", NewID: a.str("new", ""), BringsID: a.has("v1")}
				text := func(key string) *string {
					if !a.has(key) {
						return nil
					}
					v := a.str(key, "")
					return &v
				}
				req.InstanceID, req.RackID, req.Assignor = text("instance"), text("rack"), text("assignor")
				if regex := strings.TrimSpace(d.Input); regex != "" {
					req.Regex = &regex
				}
				if req.Epoch == 0 { // a join says it all
					req.RebalanceTimeoutMS = int32(a.num("rebalance", 60000))
					req.Owned = []cluster.TopicPartitions{}
					if req.Regex == nil {
						req.Topics = []string{"t"}
					}
				}
				if a.has("topics") {
					req.Topics = strings.FieldsFunc(a.str("topics", ""), func(c rune) bool { return c == '+' })
					if req.Topics == nil {
						req.Topics = []string{}
					}
				}
				if a.has("owned") {
					req.Owned = b.parsePartitions(a.str("owned", ""))
				}
				b.c.ConsumerHeartbeat(b.at, next(), req)
			case "members":
				g, ok := b.c.DescribeConsumer(groupID)
				if !ok {
					say("no consumer group")
					break
				}
				say("%s epoch=%d assigned=%d %s", g.State, g.Epoch, g.AssignmentEpoch, g.Assignor)
				for _, m := range g.Members {
					state := [...]string{"stable", "unrevoked", "unreleased"}[m.State]
					fmt.Fprintf(&b.said, "  %s epoch=%d %s has %s target %s", m.ID, m.Epoch, state, b.partitions(m.Assigned), b.partitions(m.Target))
					if m.Revoking != nil {
						fmt.Fprintf(&b.said, " revoking %s", b.partitions(m.Revoking))
					}
					if m.Classic != nil {
						b.said.WriteString(" classic")
					}
					b.said.WriteString("\n")
				}
			case "bounds":
				r := b.c.Refusals()
				say("%d refused", r.Count)
				if r.Count > 0 {
					say("the last: %s of at most %d, group %s, client %q", [...]string{"groups", "members", "consumers", "bytes"}[r.Bound], r.Max, r.Group, r.ClientID)
				}
			case "may-fetch":
				var who *string
				if a.has("id") {
					v := a.str("id", "")
					who = &v
				}
				say("%s", b.c.ValidateFetch(groupID, who, int32(a.num("epoch", -1))))
			case "heartbeat":
				say("%s", b.c.Heartbeat(b.at, groupID, a.str("id", ""), a.str("instance", ""), int32(a.num("generation", 1))))
			case "leave":
				var who []Leaving
				for _, x := range strings.Split(a.str("ids", ""), "+") {
					m, instance, _ := strings.Cut(x, "@")
					who = append(who, Leaving{m, instance})
				}
				codes, code := b.c.Leave(b.at, next(), groupID, who)
				if code != 0 {
					say("%s", code)
				}
				for i, c := range codes {
					say("%s@%s %s", who[i].MemberID, who[i].InstanceID, c)
				}
			case "commit":
				req := &CommitRequest{Group: groupID, MemberID: a.str("id", ""), InstanceID: a.str("instance", ""), Generation: int32(a.num("generation", -1)), KnowsGroupIDNotFound: a.has("v9")}
				var offsets []cluster.GroupTopic
				for _, x := range strings.Fields(strings.ReplaceAll(d.Input, "\n", " ")) {
					var name string
					o := cluster.Offset{LeaderEpoch: int32(a.num("epoch", -1)), CommittedMS: b.at.WallMS, ExpiresMS: -1, Metadata: a.str("metadata", "")}
					if e := a.num("expires", -1); e >= 0 {
						o.ExpiresMS = b.at.WallMS + e
					}
					name, rest, _ := strings.Cut(x, "/")
					fmt.Sscanf(rest, "%d=%d", &o.Partition, &o.Offset)
					offsets = append(offsets, cluster.GroupTopic{Name: name, Offsets: []cluster.Offset{o}})
				}
				if code := b.c.Commit(b.at, next(), req, offsets); code != 0 {
					say("%s", code)
				}
			case "offsets":
				g, ok := b.state.Group(groupID)
				if !ok {
					say("no group")
					break
				}
				for _, x := range g.Topics {
					for _, o := range x.Offsets {
						say("%s/%d=%d epoch=%d metadata=%q committed=%d expires=%d", x.Name, o.Partition, o.Offset, o.LeaderEpoch, o.Metadata, o.CommittedMS, o.ExpiresMS)
					}
				}
			case "delete-offsets":
				var parts []cluster.GroupPartitions
				for _, x := range strings.Split(a.str("of", ""), "+") {
					name, rest, _ := strings.Cut(x, "/")
					n, _ := strconv.Atoi(rest)
					parts = append(parts, cluster.GroupPartitions{Topic: name, Partitions: []int32{int32(n)}})
				}
				subscribed, code := b.c.DeleteOffsets(b.at, next(), groupID, parts)
				say("%s %v", code, subscribed)
			case "delete":
				for i, c := range b.c.Delete(b.at, next(), strings.Split(groupID, "+")) {
					say("%s %s", strings.Split(groupID, "+")[i], c)
				}
			case "settle":
				b.c.Settle(next())
			case "advance":
				ms := a.num("ms", 0)
				until := b.at.NowMS + ms
				for b.c.Next() <= until {
					n := max(b.c.Next(), b.at.NowMS)
					b.at.WallMS += n - b.at.NowMS
					b.at.NowMS = n
					said := b.said.Len()
					b.c.Tick(b.at)
					b.settle()
					if b.said.Len() > said {
						say("(at %d)", b.at.NowMS)
					}
				}
				b.at.WallMS += until - b.at.NowMS
				b.at.NowMS = until
			case "expire":
				b.c.Expire(b.at)
			case "hold":
				b.hold = true
			case "release":
				b.release(kafka.ErrorCode(a.num("code", 0)))
				b.hold = a.has("held")
			case "fail": // the first change is lost, the others are not
				lost := b.held[0]
				b.held = b.held[1:]
				b.c.Stored(b.at, kafka.ErrorCode(a.num("code", 16)))
				if lost == nil {
					d.Fatalf(t, "nothing was to be stored")
				}
			case "close":
				b.c.Close()
			case "restart":
				b.restart()
			case "list":
				for _, g := range b.c.List() {
					kind := ""
					if g.Kind != KindClassic {
						kind = " " + g.Kind
					}
					say("%s %s type=%q%s", g.ID, g.State, g.ProtocolType, kind)
				}
			case "describe":
				g, ok := b.c.Describe(groupID)
				say("%s %s type=%q protocol=%q known=%t", g.ID, g.State, g.ProtocolType, g.Protocol, ok)
				for _, m := range g.Members {
					say("  %s@%s %s %q %q", m.ID, m.InstanceID, m.ClientID, m.Subscription, m.Assignment)
				}
			default:
				d.Fatalf(t, "there is no command %s", d.Cmd)
			}
			b.settle()
			b.check()
			return b.said.String()
		})
	})
}

// TestGroupLife drives groups at random: members come, go, crash and rejoin,
// changes are stored late or not at all before a restart. The invariants hold,
// generations never go back, an assignment is told only when it is durable, and
// a durable offset never goes back.
func TestGroupLife(t *testing.T) {
	for seed := range int64(40) {
		rng := rand.New(rand.NewSource(seed))
		b := newBench(t)
		b.o.GroupSizeMax, b.o.MembersMax, b.o.GroupsMax = 4, 9, 3
		b.o.InitialRebalanceDelayMS = int64(rng.Intn(3)) * 500
		b.c = New(b.state, b.o, b.at)
		cmd, r := b.state.PlanCreate("t", 4, 1, nil, id(1), roomy)
		if r != nil {
			t.Fatal(r)
		}
		b.apply(cmd)
		b.hold = true
		type client struct {
			group, id, instance string
			generation          int32
			leader              bool
			others              []string
			waits               uint64
			stable              bool
		}
		clients := make([]*client, 8)
		for i := range clients {
			clients[i] = &client{group: fmt.Sprint("g", i%2)}
			if i%3 == 0 {
				clients[i].instance = fmt.Sprint("i", i)
			}
		}
		waits := map[uint64]*client{}
		ticket, fresh := uint64(0), 0
		generations := map[string]int32{} // durable ones
		committed := map[string]int64{}   // by group: acknowledged
		offered := map[uint64]int64{}
		stable := 0
		take := func() {
			for _, e := range b.c.Effects() {
				if e.Store {
					b.held = append(b.held, e.Change)
					continue
				}
				w := waits[e.Ticket]
				if w == nil {
					t.Fatalf("seed %d: ticket %d is answered twice, or was never given: %#v", seed, e.Ticket, e.Reply)
				}
				delete(waits, e.Ticket)
				if w.waits == e.Ticket {
					w.waits = 0
				}
				switch reply := e.Reply.(type) {
				case *JoinReply:
					switch reply.Code {
					case 0:
						w.id, w.generation, w.leader, w.others = reply.MemberID, reply.Generation, reply.Leader == reply.MemberID && !reply.SkipAssignment, nil
						for _, m := range reply.Members {
							w.others = append(w.others, m.ID)
						}
					case kafka.MemberIDRequired:
						w.id = reply.MemberID
					case kafka.UnknownMemberID, kafka.FencedInstanceID, kafka.GroupMaxSizeReached:
						w.id = ""
					}
				case *SyncReply:
					if reply.Code == 0 {
						w.stable = true
						stable++
						g, _ := b.state.Group(w.group)
						if g == nil || g.Generation < w.generation {
							t.Fatalf("seed %d: generation %d of %s was assigned and is not durable", seed, w.generation, w.group)
						}
					} else if reply.Code == kafka.UnknownMemberID {
						w.id = ""
					}
				case Done:
					if at, ok := offered[e.Ticket]; ok && reply.Code == 0 {
						committed[w.group] = at
					}
				}
			}
		}
		for range 3000 {
			b.at.NowMS += int64(rng.Intn(400))
			b.at.WallMS = b.at.NowMS
			b.c.Tick(b.at)
			take()
			x := clients[rng.Intn(len(clients))]
			ticket++
			switch n := rng.Intn(20); {
			case n < 6 && x.waits == 0 && !x.stable:
				fresh++
				waits[ticket], x.waits = x, ticket
				b.c.Join(b.at, ticket, &JoinRequest{
					Group: x.group, MemberID: x.id, InstanceID: x.instance, ProtocolType: "consumer", Protocols: []cluster.GroupProtocol{{Name: "range", Metadata: subscription("t")}},
					SessionTimeoutMS: 6000, RebalanceTimeoutMS: 5000, NewID: fmt.Sprint("m", fresh), IDRequired: fresh%2 == 0, CanSkip: fresh%4 < 2,
				})
			case n < 11 && x.waits == 0 && x.id != "" && !x.stable:
				q := &SyncRequest{Group: x.group, MemberID: x.id, InstanceID: x.instance, Generation: x.generation}
				if x.leader {
					for _, o := range x.others {
						q.Assignments = append(q.Assignments, Assignment{o, []byte("a" + o)})
					}
				}
				waits[ticket], x.waits = x, ticket
				b.c.Sync(b.at, ticket, q)
			case n < 14 && x.stable:
				if b.c.Heartbeat(b.at, x.group, x.id, x.instance, x.generation) != 0 {
					x.stable = false
				}
			case n == 14 && x.id != "":
				waits[ticket] = x
				if _, code := b.c.Leave(b.at, ticket, x.group, []Leaving{{x.id, x.instance}}); code != 0 {
					t.Fatal(code)
				}
				x.id, x.stable = "", false
			case n == 15: // crashes
				x.id, x.stable, x.waits = "", false, 0
			case n == 16 && x.stable:
				offered[ticket] = int64(ticket)
				waits[ticket] = x
				if b.c.Commit(b.at, ticket, &CommitRequest{Group: x.group, MemberID: x.id, InstanceID: x.instance, Generation: x.generation}, []cluster.GroupTopic{{Name: "t", Offsets: []cluster.Offset{{Partition: 0, Offset: int64(ticket), CommittedMS: b.at.WallMS, ExpiresMS: -1}}}}) != 0 {
					delete(waits, ticket)
				}
			case n == 17 && rng.Intn(20) == 0:
				b.restart()
				b.hold = true
				waits = map[uint64]*client{}
				for _, y := range clients {
					y.waits = 0
				}
			default:
				if len(b.held) > 0 {
					b.release(0)
				}
			}
			take()
			b.check()
			for _, g := range b.state.Groups() {
				if g.Generation < generations[g.ID] {
					t.Fatalf("seed %d: group %s went from generation %d to %d", seed, g.ID, generations[g.ID], g.Generation)
				}
				generations[g.ID] = g.Generation
				if o, ok := g.Offset("t", 0); committed[g.ID] > 0 && (!ok || o.Offset < committed[g.ID]) {
					t.Fatalf("seed %d: group %s had acknowledged offset %d and has %v", seed, g.ID, committed[g.ID], o)
				}
			}
		}
		if stable == 0 {
			t.Errorf("seed %d: no group ever was stable", seed)
		}
		b.restart()
	}
}

// TestConsumerLife drives groups of the consumer protocol at random: members
// come, go, crash, fall silent and give up partitions late; topics grow and go;
// changes are stored late, are lost, or do not get there before a restart. What
// members are told never overlaps: no member is assigned what another may still
// use. In the end, with no further events, every member has its target.
func TestConsumerLife(t *testing.T) {
	for seed := range int64(60) {
		rng := rand.New(rand.NewSource(seed))
		b := newBench(t)
		b.o.ConsumerSessionTimeoutMS = 5000
		b.c = New(b.state, b.o, b.at)
		topics := uint64(0)
		create := func() {
			topics++
			cmd, r := b.state.PlanCreate(fmt.Sprint("t", topics), 1+rng.Intn(4), 1, nil, id(topics), roomy)
			if r != nil {
				t.Fatal(r)
			}
			b.apply(cmd)
		}
		create()
		create()
		b.hold = true
		type client struct {
			id, instance string
			epoch        int32
			owned        []cluster.TopicPartitions // what it uses
			waits        uint64
			sent, heard  int64 // when it last asked, and asked what was answered then
			full         bool
		}
		clients := make([]*client, 6)
		for i := range clients {
			clients[i] = &client{}
			if i%3 == 0 {
				clients[i].instance = fmt.Sprint("i", i)
			}
		}
		waits := map[uint64]*client{}
		ticket, fresh, told := uint64(0), 0, 0
		forget := func(x *client) { x.id, x.epoch, x.owned, x.full = "", 0, nil, false }
		take := func() {
			for _, e := range b.c.Effects() {
				if e.Store {
					b.held = append(b.held, e.Change)
					continue
				}
				x := waits[e.Ticket]
				if x == nil {
					t.Fatalf("seed %d: ticket %d is answered twice, or was never given: %#v", seed, e.Ticket, e.Reply)
				}
				delete(waits, e.Ticket)
				if x.waits != e.Ticket {
					continue // it did not wait for it
				}
				x.waits = 0
				r := e.Reply.(*ConsumerReply)
				switch r.Code {
				case 0:
					if x.epoch = r.Epoch; r.Epoch < 0 {
						forget(x)
						break
					}
					x.id, x.full, x.heard = r.MemberID, false, x.sent
					if r.Assigns {
						told++
						// What it loses it gives up later: it uses both.
						x.owned = r.Assignment
						for _, o := range clients {
							if o != x && b.at.NowMS-o.heard < b.o.ConsumerSessionTimeoutMS && overlap(o.owned, x.owned) {
								t.Fatalf("seed %d: %s is assigned %s, %s may use %s", seed, x.id, b.partitions(x.owned), o.id, b.partitions(o.owned))
							}
						}
					}
				case kafka.NotCoordinator:
					x.full = true
				case kafka.UnreleasedInstanceID:
				default:
					forget(x)
				}
			}
		}
		beat := func(x *client) {
			ticket++
			waits[ticket], x.waits, x.sent = x, ticket, b.at.NowMS
			req := &ConsumerRequest{Group: "g", MemberID: x.id, Epoch: x.epoch, RebalanceTimeoutMS: -1, Owned: slices.Clone(x.owned)}
			if req.Owned == nil {
				req.Owned = []cluster.TopicPartitions{}
			}
			if x.instance != "" {
				req.InstanceID = &x.instance
			}
			if x.id == "" || x.epoch == 0 || x.full {
				fresh++
				if x.id == "" {
					req.NewID, req.Epoch = fmt.Sprint("m", fresh), 0
					if x.instance != "" {
						req.MemberID, req.NewID = req.NewID, ""
					}
				}
				if req.Epoch == 0 {
					req.Owned, x.owned = []cluster.TopicPartitions{}, nil
				}
				req.RebalanceTimeoutMS, req.Topics = 60000, []string{"t1", "t2"}
				if rng.Intn(2) == 0 {
					req.Regex = new(string)
					*req.Regex = "t[0-9]+"
				}
				assignor := []string{AssignUniform, AssignRange}[rng.Intn(2)]
				req.Assignor = &assignor
			}
			b.c.ConsumerHeartbeat(b.at, ticket, req)
		}
		for range 2000 {
			b.at.NowMS += int64(rng.Intn(200))
			b.at.WallMS = b.at.NowMS
			b.c.Tick(b.at)
			take()
			x := clients[rng.Intn(len(clients))]
			switch n := rng.Intn(40); {
			case n < 24:
				if x.waits == 0 {
					beat(x)
				}
			case n == 24: // crashes; only the coordinator knows what it used
				forget(x)
				x.waits, x.heard = 0, -1<<40
			case n == 25 && x.id != "" && x.waits == 0:
				x.epoch = cluster.EpochLeave
				if x.instance != "" && rng.Intn(2) == 0 {
					x.epoch = cluster.EpochAway
				}
				x.owned = nil
				beat(x)
			case n == 26 && x.waits != 0: // its connection breaks
				x.waits, x.full = 0, x.id != ""
			case n == 27 && rng.Intn(10) == 0:
				create()
			case n == 28 && rng.Intn(10) == 0:
				if topic, ok := b.state.Topic("t1"); ok && len(topic.Partitions) < 12 {
					cmd, r := b.state.PlanGrow("t1", len(topic.Partitions)+1, cluster.Placement{}, roomy)
					if r != nil {
						t.Fatal(r)
					}
					b.apply(cmd)
				}
			case n == 29 && topics > 2 && rng.Intn(10) == 0:
				if cmd, r := b.state.PlanDelete(fmt.Sprint("t", 3+rng.Intn(int(topics)-2))); r == nil {
					b.apply(cmd)
				}
			case n == 30 && rng.Intn(20) == 0:
				b.restart()
				b.hold, waits = true, map[uint64]*client{}
				for _, y := range clients {
					y.waits, y.full = 0, y.id != ""
				}
			case n == 31 && len(b.held) > 0 && rng.Intn(5) == 0:
				b.held = b.held[1:]
				b.c.Stored(b.at, kafka.NotCoordinator)
			default:
				if len(b.held) > 0 {
					b.release(0)
				}
			}
			take()
			b.check()
		}
		// Nothing goes wrong any more: after a few heartbeats of all, and the
		// sessions of crashed members, every member has its part.
		for range 60 {
			b.at.NowMS += 500
			b.c.Tick(b.at)
			for _, x := range clients {
				take()
				if len(b.held) > 0 {
					b.release(0)
					take()
				}
				if x.waits == 0 {
					beat(x)
				}
			}
		}
		g, _ := b.c.DescribeConsumer("g")
		n := 0
		for _, topic := range b.state.Topics() {
			n += len(topic.Partitions)
		}
		for _, m := range g.Members {
			for _, x := range m.Assigned {
				n -= len(x.Partitions)
			}
		}
		if g.State != Stable || len(g.Members) != len(clients) {
			t.Fatalf("seed %d: in the end the group is %s, with %d members: %+v", seed, g.State, len(g.Members), g.Members)
		}
		if told == 0 {
			t.Errorf("seed %d: nobody was ever assigned anything", seed)
		}
		b.release(0)
		b.restart()
	}
}

// TestAssignors holds both assignors to what they promise, on random groups.
func TestAssignors(t *testing.T) {
	for seed := range int64(300) {
		rng := rand.New(rand.NewSource(seed))
		topics := make([]assignTopic, 1+rng.Intn(5))
		for i := range topics {
			topics[i] = assignTopic{id(uint64(i + 1)), fmt.Sprint("t", i), rng.Intn(9)}
		}
		same := rng.Intn(2) == 0
		members := make([]assignMember, 1+rng.Intn(6))
		for i := range members {
			members[i].id = fmt.Sprint("m", i)
			for k := range topics {
				if same || rng.Intn(2) == 0 {
					members[i].topics = append(members[i].topics, k)
				}
			}
		}
		for _, assignor := range []string{AssignUniform, AssignRange} {
			before := 0
			for round := range 4 {
				got := assign(assignor, topics, members)
				seen := map[slot]int{}
				load := make([]int, len(members))
				for i, all := range got {
					for _, x := range all {
						k := slices.IndexFunc(topics, func(t assignTopic) bool { return t.id == x.Topic })
						if !slices.Contains(members[i].topics, k) {
							t.Fatalf("seed %d: %s is assigned a topic it does not subscribe to", seed, members[i].id)
						}
						if assignor == AssignRange && int(x.Partitions[len(x.Partitions)-1]-x.Partitions[0]) != len(x.Partitions)-1 {
							t.Fatalf("seed %d: %v is no range", seed, x.Partitions)
						}
						for _, partition := range x.Partitions {
							seen[slot{x.Topic, partition}]++
							load[i]++
						}
					}
				}
				for k, topic := range topics {
					wanted := slices.ContainsFunc(members, func(m assignMember) bool { return slices.Contains(m.topics, k) })
					for partition := range topic.partitions {
						if n := seen[slot{topic.id, int32(partition)}]; n != 0 && !wanted || n != 1 && wanted {
							t.Fatalf("seed %d: partition %d of %s is assigned %d times", seed, partition, topic.name, n)
						}
					}
				}
				if assignor == AssignUniform && same && slices.Max(load)-slices.Min(load) > 1 {
					t.Fatalf("seed %d: loads are %v", seed, load)
				}
				if assignor == AssignUniform && same && round > 0 {
					// Nobody loses more than it must: what moves is what the others lack.
					kept := 0
					for i := range got {
						for _, x := range both(got[i], members[i].had) {
							kept += len(x.Partitions)
						}
					}
					if round == 1 && kept != before {
						t.Fatalf("seed %d: with nothing changed %d of %d partitions stayed", seed, kept, before)
					}
				}
				before = 0
				for i := range got {
					members[i].had = got[i]
					before += load[i]
				}
				if round > 0 && len(members) > 1 {
					members = members[:len(members)-1]
				}
			}
		}
	}
}
