package groups

import (
	"fmt"
	"math/rand"
	"slices"
	"testing"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/kafka"
)

// migrant is a client that speaks one protocol until it goes, and then perhaps
// the other one.
type migrant struct {
	id, instance string
	modern       bool
	cooperative  bool  // keeps what it has while it joins again, of a classic one
	epoch        int32 // or generation
	joined       bool  // of a classic one: it is to sync
	stable       bool  // has its assignment
	leads        bool
	others       []JoinMember
	uses         []cluster.TopicPartitions
	waits        uint64
	sent, heard  int64
	full         bool
}

func (x *migrant) forget() {
	x.id, x.epoch, x.joined, x.stable, x.uses, x.full = "", 0, false, false, nil, false
}

// migration is a State and a Coordinator with migrants.
type migration struct {
	*bench
	seed    int64
	rng     *rand.Rand
	clients []*migrant
	waits   map[uint64]*migrant
	ticket  uint64
	fresh   int
	told    [2]int // assignments of the classic, and the consumer protocol
}

const migrantSessionMS = 6000

// gets has a client use what it was assigned, which no other client may use.
func (w *migration) gets(x *migrant, has []cluster.TopicPartitions) {
	x.uses = has
	for _, o := range w.clients {
		if o != x && w.at.NowMS-o.heard < migrantSessionMS && overlap(o.uses, has) {
			w.t.Fatalf("seed %d: %s is assigned %s, %s may use %s", w.seed, x.id, w.partitions(has), o.id, w.partitions(o.uses))
		}
	}
}

// take looks at what the coordinator says.
func (w *migration) take() {
	for _, e := range w.c.Effects() {
		if e.Store {
			w.held = append(w.held, e.Change)
			continue
		}
		x := w.waits[e.Ticket]
		if x == nil {
			w.t.Fatalf("seed %d: ticket %d is answered twice, or was never given: %#v", w.seed, e.Ticket, e.Reply)
		}
		delete(w.waits, e.Ticket)
		if x.waits != e.Ticket {
			continue
		}
		x.waits = 0
		switch reply := e.Reply.(type) {
		case *JoinReply:
			switch reply.Code {
			case 0:
				// It may have been out before, and is taken as a new one: it hears what
				// it may use when it syncs.
				x.id, x.epoch, x.joined, x.leads, x.others = reply.MemberID, reply.Generation, true, reply.Leader == reply.MemberID, reply.Members
			case kafka.MemberIDRequired:
				x.id = reply.MemberID
			case kafka.RebalanceInProgress, kafka.NotCoordinator:
			default:
				x.forget()
			}
		case *SyncReply:
			switch reply.Code {
			case 0:
				has, _, ok := parseAssignment(reply.Assignment)
				if !ok {
					w.t.Fatalf("seed %d: %s is assigned %q", w.seed, x.id, reply.Assignment)
				}
				x.stable, x.heard = true, x.sent
				w.told[0]++
				lost := without(x.uses, w.c.withIDs(has))
				w.gets(x, w.c.withIDs(has))
				if len(lost) > 0 { // it has given that up, and says so at once
					x.stable, x.joined = false, false
				}
			case kafka.RebalanceInProgress, kafka.IllegalGeneration, kafka.NotCoordinator:
				x.joined = false
			default:
				x.forget()
			}
		case *ConsumerReply:
			switch reply.Code {
			case 0:
				if x.epoch = reply.Epoch; reply.Epoch < 0 {
					x.forget()
					break
				}
				x.id, x.full, x.heard = reply.MemberID, false, x.sent
				if reply.Assigns {
					w.told[1]++
					w.gets(x, reply.Assignment)
				}
			case kafka.NotCoordinator:
				x.full = true
			case kafka.UnreleasedInstanceID:
			default:
				x.forget()
			}
		}
	}
}

// step has a client do the next thing.
func (w *migration) step(x *migrant) {
	w.ticket++
	if x.id == "" && w.rng.Intn(2) == 0 {
		x.modern, x.cooperative = !x.modern, w.rng.Intn(2) == 0
	}
	if x.modern {
		w.waits[w.ticket], x.waits, x.sent = x, w.ticket, w.at.NowMS
		req := &ConsumerRequest{Group: "g", MemberID: x.id, Epoch: x.epoch, RebalanceTimeoutMS: -1, Owned: append([]cluster.TopicPartitions{}, x.uses...)}
		if x.instance != "" {
			req.InstanceID = &x.instance
		}
		if x.epoch == 0 || x.full {
			if x.id == "" {
				w.fresh++
				x.id = fmt.Sprint("m", w.fresh)
				req.MemberID = x.id
			}
			if x.epoch == 0 {
				req.Owned, x.uses = []cluster.TopicPartitions{}, nil
			}
			req.RebalanceTimeoutMS, req.Topics = 60000, []string{"t1", "t2"}
		}
		w.c.ConsumerHeartbeat(w.at, w.ticket, req)
		return
	}
	switch {
	case !x.joined:
		w.fresh++
		w.waits[w.ticket], x.waits, x.sent = x, w.ticket, w.at.NowMS
		if !x.cooperative {
			x.uses = nil
		}
		protocol := cluster.GroupProtocol{Name: "p", Metadata: subscriptionV1(w.named(w.known(x.uses)), "t1", "t2")}
		w.c.Join(w.at, w.ticket, &JoinRequest{
			Group: "g", MemberID: x.id, InstanceID: x.instance, ProtocolType: "consumer", Protocols: []cluster.GroupProtocol{protocol},
			SessionTimeoutMS: migrantSessionMS, RebalanceTimeoutMS: 60000, NewID: fmt.Sprint("m", w.fresh), IDRequired: w.fresh%2 == 0,
		})
	case !x.stable:
		w.waits[w.ticket], x.waits, x.sent = x, w.ticket, w.at.NowMS
		q := &SyncRequest{Group: "g", MemberID: x.id, InstanceID: x.instance, Generation: x.epoch}
		if x.leads {
			q.Assignments = w.lead(x.others)
		}
		w.c.Sync(w.at, w.ticket, q)
	default:
		x.sent = w.at.NowMS
		switch w.c.Heartbeat(w.at, "g", x.id, x.instance, x.epoch) {
		case 0:
			x.heard = x.sent
		case kafka.RebalanceInProgress:
			x.heard = x.sent
			x.joined, x.stable = false, false
		case kafka.IllegalGeneration:
			x.joined, x.stable, x.uses = false, false, nil
		default:
			x.forget()
		}
	}
}

// known are the partitions of a list whose topics still exist.
func (w *migration) known(all []cluster.TopicPartitions) (out []cluster.TopicPartitions) {
	for _, t := range all {
		if topic, ok := w.state.TopicByID(t.Topic); ok && !topic.Deleted {
			out = append(out, t)
		}
	}
	return out
}

// lead assigns as a cooperative assignor does: no member gets what another has, and
// a member that has too much has to give it up first.
func (w *migration) lead(members []JoinMember) (out []Assignment) {
	has := make([][]cluster.TopicPartitions, len(members))
	var owned []cluster.TopicPartitions
	for i, m := range members {
		subscription, _ := parseSubscription(m.Metadata)
		has[i] = without(w.c.withIDs(subscription.owned), owned)
		owned = union(owned, has[i])
	}
	n := 0
	gets := make([][]cluster.TopicPartitions, len(members))
	for _, name := range []string{"t1", "t2"} {
		topic, ok := w.state.Topic(name)
		if !ok {
			continue
		}
		for partition := range topic.Partitions {
			part := []cluster.TopicPartitions{{Topic: topic.ID, Partitions: []int32{int32(partition)}}}
			to := n % len(members)
			if overlap(has[to], part) || !overlap(owned, part) {
				gets[to] = union(gets[to], part)
			}
			n++
		}
	}
	for i, m := range members {
		out = append(out, Assignment{m.ID, w.assigned(gets[i], "")})
	}
	return out
}

// TestMigrationLife drives a group whose members come with one protocol and then
// with the other: they join, crash, fall silent, and some keep what they have
// while they join again; changes are stored late, are lost, or do not get there
// before a restart. Nobody is assigned what another may still use. In the end,
// with no further events, every member has its part, whatever it speaks.
func TestMigrationLife(t *testing.T) {
	for _, policy := range []string{"bidirectional", "upgrade"} {
		sawBoth, swapped := 0, 0
		for seed := range int64(40) {
			w := newMigration(t, seed, policy)
			kind := ""
			for range 2500 {
				w.at.NowMS += int64(w.rng.Intn(200))
				w.at.WallMS = w.at.NowMS
				w.c.Tick(w.at)
				w.take()
				x := w.clients[w.rng.Intn(len(w.clients))]
				switch n := w.rng.Intn(40); {
				case n < 26:
					if x.waits == 0 {
						w.step(x)
					}
				case n == 26: // crashes; only the coordinator knows what it used
					x.forget()
					x.waits, x.heard = 0, -1<<40
				case n == 27 && x.id != "" && x.waits == 0:
					x.uses = nil
					if x.modern && x.epoch > 0 {
						x.epoch = cluster.EpochLeave
						w.step(x)
						break
					}
					w.ticket++
					w.waits[w.ticket] = x
					w.c.Leave(w.at, w.ticket, "g", []Leaving{{x.id, x.instance}})
					x.forget()
				case n == 28 && x.waits != 0: // its connection breaks
					x.waits, x.full = 0, x.id != ""
				case n == 29 && w.rng.Intn(10) == 0:
					if topic, ok := w.state.Topic("t1"); ok && len(topic.Partitions) < 9 {
						cmd, r := w.state.PlanGrow("t1", len(topic.Partitions)+1, cluster.Placement{}, roomy)
						if r != nil {
							t.Fatal(r)
						}
						w.apply(cmd)
					}
				case n == 30 && w.rng.Intn(20) == 0:
					w.restart()
					w.hold, w.waits = true, map[uint64]*migrant{}
					for _, y := range w.clients {
						y.waits, y.full = 0, y.id != ""
					}
				case n == 31 && len(w.held) > 0 && w.rng.Intn(5) == 0:
					w.held = w.held[1:]
					w.c.Stored(w.at, kafka.NotCoordinator)
				default:
					if len(w.held) > 0 {
						w.release(0)
					}
				}
				w.take()
				w.check()
				if group, ok := w.c.group("g"); ok {
					now := KindClassic
					if group.consumer != nil {
						now = KindConsumer
						classic := slices.ContainsFunc(group.consumer.members, func(member *consumerMember) bool { return member.Classic != nil })
						if classic && slices.ContainsFunc(group.consumer.members, func(member *consumerMember) bool { return member.Classic == nil }) {
							sawBoth++
						}
					}
					if now != kind && group.state != Empty {
						kind = now
						swapped++
					}
				}
			}
			w.calm()
		}
		if sawBoth == 0 || swapped < 60 {
			t.Errorf("%s: %d times a group had members of both protocols, %d times it changed", policy, sawBoth, swapped)
		}
	}
}

func newMigration(t *testing.T, seed int64, policy string) *migration {
	w := &migration{bench: newBench(t), seed: seed, rng: rand.New(rand.NewSource(seed)), waits: map[uint64]*migrant{}}
	w.o.ConsumerSessionTimeoutMS, w.o.InitialRebalanceDelayMS = migrantSessionMS, 0
	w.o.Migration, _ = cluster.ParseMigrationPolicy(policy)
	w.c = New(w.state, w.o, w.at)
	for i := range uint64(2) {
		cmd, r := w.state.PlanCreate(fmt.Sprint("t", i+1), 1+w.rng.Intn(4), 1, nil, id(i+1), roomy)
		if r != nil {
			t.Fatal(r)
		}
		w.apply(cmd)
	}
	w.hold = true
	for i := range 5 {
		x := &migrant{}
		if i%3 == 0 {
			x.instance = fmt.Sprint("i", i)
		}
		w.clients = append(w.clients, x)
	}
	return w
}

// calm injects no further faults. After the sessions of crashed members, and some
// rebalances, every member has its part.
func (w *migration) calm() {
	w.settled(w.clients)
	// Members that speak the consumer protocol leave for good: the others get theirs.
	var stay []*migrant
	for _, x := range w.clients {
		if !x.modern {
			stay = append(stay, x)
			continue
		}
		x.epoch, x.uses = cluster.EpochLeave, nil
		w.step(x)
	}
	if len(stay) > 0 {
		w.settled(stay)
	}
	w.release(0)
	w.restart()
}

// settled has these clients, the only ones, do what they have to, and checks
// whether they have everything in the end.
func (w *migration) settled(clients []*migrant) {
	for range 260 {
		w.at.NowMS += 500
		w.c.Tick(w.at)
		for _, x := range clients {
			for range 3 {
				w.take()
				if len(w.held) > 0 {
					w.release(0)
					w.take()
				}
				if x.waits == 0 && (x.id == "" || !x.stable || x.modern) {
					w.step(x)
				}
			}
			if x.waits == 0 && x.stable {
				w.step(x)
			}
		}
	}
	w.take()
	used, want := 0, 0
	for _, topic := range w.state.Topics() {
		want += len(topic.Partitions)
	}
	for _, x := range clients {
		for _, topic := range x.uses {
			used += len(topic.Partitions)
		}
	}
	group, ok := w.c.group("g")
	if !ok || group.state != Stable || used != want {
		w.t.Fatalf("seed %d: in the end the group is %v, %d of %d partitions are used: %+v", w.seed, group.state, used, want, group)
	}
}
