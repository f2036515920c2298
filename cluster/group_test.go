package cluster

import (
	"encoding/binary"
	"fmt"
	"math/rand"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

var codeNames = map[int16]string{
	-1: "UNKNOWN_SERVER_ERROR", 0: "NONE", 15: "COORDINATOR_NOT_AVAILABLE", 16: "NOT_COORDINATOR", 22: "ILLEGAL_GENERATION",
	23: "INCONSISTENT_GROUP_PROTOCOL", 24: "INVALID_GROUP_ID", 25: "UNKNOWN_MEMBER_ID", 26: "INVALID_SESSION_TIMEOUT", 27: "REBALANCE_IN_PROGRESS",
	28: "INVALID_COMMIT_OFFSET_SIZE", 42: "INVALID_REQUEST", 44: "POLICY_VIOLATION", 68: "NON_EMPTY_GROUP", 69: "GROUP_ID_NOT_FOUND",
	79: "MEMBER_ID_REQUIRED", 81: "GROUP_MAX_SIZE_REACHED", 82: "FENCED_INSTANCE_ID", 86: "GROUP_SUBSCRIBED_TO_TOPIC",
}

func codeName(c int16) string {
	if n, ok := codeNames[c]; ok {
		return n
	}
	return fmt.Sprint("code ", c)
}

var kafkaGroups = GroupOptions{
	SessionTimeoutMinMS: 6000, SessionTimeoutMaxMS: 1800000, InitialRebalanceDelayMS: 3000, NewMemberTimeoutMS: 300000, OffsetsRetentionMS: 7 * 24 * 3600 * 1000,
	GroupSizeMax: 1000, MembersMax: 1000, GroupsMax: 1000, GroupBytesMax: 1 << 20, OffsetBytesMax: 1 << 20, BytesMax: 1 << 24,
}

// subscription is the metadata of a consumer, version 0.
func subscription(topics ...string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0, 0}, uint32(len(topics)))
	for _, t := range topics {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(t))), t...)
	}
	return append(b, 0xff, 0xff, 0xff, 0xff)
}

// bench is a State and a Coordinator under test, and the world around them.
type bench struct {
	t     *testing.T
	state *State
	c     *Coordinator
	o     GroupOptions
	at    GroupTime
	hold  bool
	held  [][]byte // changes not stored yet
	said  strings.Builder
	saved [][]byte // the log: commands since the beginning
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, state: New(), o: kafkaGroups, at: GroupTime{NowMS: 1000, WallMS: 1_000_000}}
	b.c = NewCoordinator(b.state, b.o, b.at)
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
			switch r := e.Reply.(type) {
			case *JoinReply:
				b.joined(r)
			case *SyncReply:
				if r.Code != 0 {
					fmt.Fprintf(&b.said, "sync %s\n", codeName(r.Code))
				} else {
					fmt.Fprintf(&b.said, "sync %s/%s %q\n", r.ProtocolType, r.Protocol, r.Assignment)
				}
			case GroupDone:
				fmt.Fprintf(&b.said, "done %s\n", codeName(r.Code))
			}
		}
		if !b.hold {
			b.release(0)
		}
	}
}

// release ends the changes that wait.
func (b *bench) release(code int16) {
	all := b.held
	b.held = nil
	if code == 0 {
		if cmd := b.state.PlanGroups(all); len(cmd) > commandHeaderBytes {
			b.apply(cmd)
		}
	}
	for range all {
		b.c.Stored(b.at, code)
	}
}

func (b *bench) joined(r *JoinReply) {
	if r.Code != 0 {
		fmt.Fprintf(&b.said, "join %s id=%s\n", codeName(r.Code), r.MemberID)
		return
	}
	fmt.Fprintf(&b.said, "join id=%s generation=%d %s/%s leader=%s", r.MemberID, r.Generation, r.ProtocolType, r.Protocol, r.Leader)
	if r.SkipAssignment {
		b.said.WriteString(" skip")
	}
	for _, m := range r.Members {
		fmt.Fprintf(&b.said, " [%s", m.ID)
		if m.InstanceID != "" {
			fmt.Fprintf(&b.said, "@%s", m.InstanceID)
		}
		fmt.Fprintf(&b.said, " %q]", m.Metadata)
	}
	b.said.WriteString("\n")
}

// restart takes up a state as a broker does that was killed: from its snapshot
// or from all of its commands, which must give the same.
func (b *bench) restart() {
	b.held = nil
	replayed, restored := New(), New()
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
	b.c = NewCoordinator(b.state, b.o, b.at)
}

// check holds the invariants of live groups.
func (b *bench) check() {
	members, total := 0, 0
	for i, g := range b.c.groups {
		if i > 0 && b.c.groups[i-1].id >= g.id {
			b.t.Fatal("groups are out of order")
		}
		awaiting, bytes, static := 0, 0, 0
		for _, m := range g.members {
			if g.byID[m.id] != m || m.instance != "" && g.static[m.instance] != m {
				b.t.Fatalf("group %s: member %s is in disorder", g.id, m.id)
			}
			if m.join != 0 && m.sync != 0 {
				b.t.Fatalf("group %s: member %s waits twice", g.id, m.id)
			}
			if m.join != 0 {
				awaiting++
			}
			if m.instance != "" {
				static++
			}
			bytes += m.bytes()
		}
		if awaiting != g.awaiting || bytes != g.bytes || len(g.byID) != len(g.members) || len(g.static) != static {
			b.t.Fatalf("group %s: %d of %d wait for joins, %d of %d bytes, %d of %d members, %d of %d static", g.id, g.awaiting, awaiting, g.bytes, bytes, len(g.byID), len(g.members), len(g.static), static)
		}
		if empty := g.state == GroupEmpty; empty && len(g.members) > 0 {
			b.t.Fatalf("group %s: empty with members", g.id)
		}
		if (g.state == GroupStable || g.state == GroupCompletingRebalance) && len(g.members) == 0 {
			b.t.Fatalf("group %s: %s without members", g.id, g.state)
		}
		if len(g.members) > 0 && g.byID[g.leader] == nil {
			b.t.Fatalf("group %s: its leader %q is no member", g.id, g.leader)
		}
		if due := g.earliest(); due != GroupsNever && (g.heapAt < 0 || b.c.due[g.heapAt] != g || g.due > due) {
			b.t.Fatalf("group %s: due at %d, scheduled for %d", g.id, due, g.due)
		}
		members += len(g.members) + len(g.pending)
		total += g.bytes
	}
	if members != b.c.members || total != b.c.bytes {
		b.t.Fatalf("%d members counted of %d, %d bytes of %d", b.c.members, members, b.c.bytes, total)
	}
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
			group := a.str("group", "g")
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
				b.o.OffsetsRetentionMS = a.num("retention", b.o.OffsetsRetentionMS)
				b.c.o = b.o
			case "topic":
				topics++
				must(t, b.state)(func() ([]byte, *Refusal) {
					cmd, r := b.state.PlanCreate(a.str("name", ""), int(a.num("partitions", 4)), 1, nil, id(topics), roomy)
					b.saved = append(b.saved, cmd)
					return cmd, r
				}())
			case "delete-topic":
				must(t, b.state)(func() ([]byte, *Refusal) {
					cmd, r := b.state.PlanDelete(a.str("name", ""))
					b.saved = append(b.saved, cmd)
					return cmd, r
				}())
			case "join":
				r := &JoinRequest{
					Group: group, MemberID: a.str("id", ""), InstanceID: a.str("instance", ""), ProtocolType: a.str("type", "consumer"), NewID: a.str("new", ""), ClientID: "client",
					SessionTimeoutMS: int32(a.num("session", 10000)), RebalanceTimeoutMS: int32(a.num("rebalance", 60000)), IDRequired: a.has("v4"), CanSkip: a.has("v9"),
				}
				for _, p := range strings.Split(a.str("knows", "range:t"), "+") {
					if name, what, ok := strings.Cut(p, ":"); ok {
						meta := []byte(what)
						if r.ProtocolType == "consumer" {
							meta = subscription(what)
						}
						r.Protocols = append(r.Protocols, GroupProtocol{name, meta})
					}
				}
				if a.has("type") && a.str("type", "") == "none" {
					r.ProtocolType = ""
				}
				b.c.Join(b.at, next(), r)
			case "sync":
				r := &SyncRequest{Group: group, MemberID: a.str("id", ""), InstanceID: a.str("instance", ""), Generation: int32(a.num("generation", 1))}
				if v := a.str("type", ""); v != "" {
					r.ProtocolType = &v
				}
				if v := a.str("protocol", ""); v != "" {
					r.Protocol = &v
				}
				for _, x := range strings.Split(a.str("assign", ""), "+") {
					if m, what, ok := strings.Cut(x, ":"); ok {
						r.Assignments = append(r.Assignments, GroupAssignment{m, []byte(what)})
					}
				}
				b.c.Sync(b.at, next(), r)
			case "heartbeat":
				say("%s", codeName(b.c.Heartbeat(b.at, group, a.str("id", ""), a.str("instance", ""), int32(a.num("generation", 1)))))
			case "leave":
				var who []Leaving
				for _, x := range strings.Split(a.str("ids", ""), "+") {
					m, instance, _ := strings.Cut(x, "@")
					who = append(who, Leaving{m, instance})
				}
				codes, code := b.c.Leave(b.at, next(), group, who)
				if code != 0 {
					say("%s", codeName(code))
				}
				for i, c := range codes {
					say("%s@%s %s", who[i].MemberID, who[i].InstanceID, codeName(c))
				}
			case "commit":
				r := &CommitRequest{Group: group, MemberID: a.str("id", ""), InstanceID: a.str("instance", ""), Generation: int32(a.num("generation", -1)), KnowsGroupIDNotFound: a.has("v9")}
				var offsets []GroupTopic
				for _, x := range strings.Fields(strings.ReplaceAll(d.Input, "\n", " ")) {
					var name string
					o := Offset{LeaderEpoch: int32(a.num("epoch", -1)), CommittedMS: b.at.WallMS, ExpiresMS: -1, Metadata: a.str("metadata", "")}
					if e := a.num("expires", -1); e >= 0 {
						o.ExpiresMS = b.at.WallMS + e
					}
					name, rest, _ := strings.Cut(x, "/")
					fmt.Sscanf(rest, "%d=%d", &o.Partition, &o.Offset)
					offsets = append(offsets, GroupTopic{name, []Offset{o}})
				}
				if code := b.c.Commit(b.at, next(), r, offsets); code != 0 {
					say("%s", codeName(code))
				}
			case "offsets":
				g, ok := b.state.Group(group)
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
				var parts []GroupPartitions
				for _, x := range strings.Split(a.str("of", ""), "+") {
					name, rest, _ := strings.Cut(x, "/")
					n, _ := strconv.Atoi(rest)
					parts = append(parts, GroupPartitions{name, []int32{int32(n)}})
				}
				subscribed, code := b.c.DeleteOffsets(b.at, next(), group, parts)
				say("%s %v", codeName(code), subscribed)
			case "delete":
				for i, c := range b.c.Delete(b.at, next(), strings.Split(group, "+")) {
					say("%s %s", strings.Split(group, "+")[i], codeName(c))
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
				b.release(int16(a.num("code", 0)))
				b.hold = a.has("held")
			case "close":
				b.c.Close()
			case "restart":
				b.restart()
			case "list":
				for _, g := range b.c.List() {
					say("%s %s type=%q", g.ID, g.State, g.ProtocolType)
				}
			case "describe":
				g, ok := b.c.Describe(group)
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
		b.c = NewCoordinator(b.state, b.o, b.at)
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
				switch r := e.Reply.(type) {
				case *JoinReply:
					switch r.Code {
					case 0:
						w.id, w.generation, w.leader, w.others = r.MemberID, r.Generation, r.Leader == r.MemberID && !r.SkipAssignment, nil
						for _, m := range r.Members {
							w.others = append(w.others, m.ID)
						}
					case CodeMemberIDRequired:
						w.id = r.MemberID
					case CodeUnknownMemberID, CodeFencedInstanceID, CodeGroupMaxSizeReached:
						w.id = ""
					}
				case *SyncReply:
					if r.Code == 0 {
						w.stable = true
						stable++
						g, _ := b.state.Group(w.group)
						if g == nil || g.Generation < w.generation {
							t.Fatalf("seed %d: generation %d of %s was assigned and is not durable", seed, w.generation, w.group)
						}
					} else if r.Code == CodeUnknownMemberID {
						w.id = ""
					}
				case GroupDone:
					if at, ok := offered[e.Ticket]; ok && r.Code == 0 {
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
					Group: x.group, MemberID: x.id, InstanceID: x.instance, ProtocolType: "consumer", Protocols: []GroupProtocol{{"range", subscription("t")}},
					SessionTimeoutMS: 6000, RebalanceTimeoutMS: 5000, NewID: fmt.Sprint("m", fresh), IDRequired: fresh%2 == 0, CanSkip: fresh%4 < 2,
				})
			case n < 11 && x.waits == 0 && x.id != "" && !x.stable:
				q := &SyncRequest{Group: x.group, MemberID: x.id, InstanceID: x.instance, Generation: x.generation}
				if x.leader {
					for _, o := range x.others {
						q.Assignments = append(q.Assignments, GroupAssignment{o, []byte("a" + o)})
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
				if b.c.Commit(b.at, ticket, &CommitRequest{Group: x.group, MemberID: x.id, InstanceID: x.instance, Generation: x.generation}, []GroupTopic{{"t", []Offset{{Partition: 0, Offset: int64(ticket), CommittedMS: b.at.WallMS, ExpiresMS: -1}}}}) != 0 {
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

// TestGroupCommandsAreWholeOrNothing: a command that is cut or damaged changes
// nothing.
func TestGroupCommandsAreWholeOrNothing(t *testing.T) {
	s := New()
	must(t, s)(s.PlanCreate("t", 2, 1, nil, id(1), roomy))
	cmd := s.PlanGroups([][]byte{
		commitOffsets("a", []GroupTopic{{"t", []Offset{{Partition: 1, Offset: 7, Metadata: "m"}, {Partition: 9, Offset: 1}}}, {"none", []Offset{{Offset: 1}}}}),
		putGroup(&Group{ID: "b", Generation: 3, ProtocolType: "consumer", Protocol: "range", Leader: "x", Members: []GroupMember{{ID: "x", Subscription: []byte("s"), Assignment: []byte("a")}}}),
		forgetOffsets("a", []GroupPartitions{{"t", []int32{0}}}),
		dropGroup("none"),
	})
	body := cmd[commandHeaderBytes:]
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
	if len(s.Groups()) != 2 || !slices.ContainsFunc(s.Groups(), func(g *Group) bool { return g.ID == "b" && g.Generation == 3 && len(g.Members) == 1 }) {
		t.Fatalf("groups are %+v", s.Groups())
	}
}
