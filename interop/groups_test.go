package interop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
	segmentio "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const groupPartitions = 6

// groupFlags make groups quick: an empty group does not wait for more members, and sessions may be short.
var groupFlags = []string{"--group-initial-rebalance-delay", "0s", "--group-min-session-timeout", "500ms"}

// membership is how a consumer takes part in a group. It commits what it has seen, and only that.
type membership struct {
	topic, group, assignor string
	instance               string       // group.instance.id
	regex                  string       // to subscribe to, in place of the topic
	line                   *lines       // its connections; nil: its own
	child                  func(*child) // is told of the process it is, if it is one of its own
	seen                   func(partition int32, offset int64, value []byte)
}

func (m *membership) lines() *lines {
	if m.line != nil {
		return m.line
	}
	return &lines{}
}

// joins begins a membership. leave ends it as a client does that is closed, crash as one whose machine is gone; nil where the client cannot.
type joins = func(b *broker, m membership) (leave, crash func(), err error)

// groupClients are those of the classic protocol, with the assignors that each has.
var groupClients = map[string]struct {
	assignors []string
	join      joins
}{
	"franz-go": {[]string{"range", "roundrobin", "sticky", "cooperative-sticky"}, franzMember},
	"sarama":   {[]string{"range", "roundrobin", "sticky"}, saramaMember},
	"kafka-go": {[]string{"range", "roundrobin"}, segmentMember},
}

// lines are the connections of one client, which can be cut all at once, or stall: then nothing goes in or out, as with a process that is stopped.
type lines struct {
	mu    sync.Mutex
	conns []net.Conn
	down  bool
	still sync.RWMutex // held by the test that makes them stall
}

// stalling is a connection of lines.
type stalling struct {
	net.Conn
	l *lines
}

func (c stalling) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.l.still.RLock()
	defer c.l.still.RUnlock()
	return n, err
}

func (c stalling) Write(b []byte) (int, error) {
	c.l.still.RLock()
	defer c.l.still.RUnlock()
	return c.Conn.Write(b)
}

func (l *lines) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		c.Close()
		return nil, errors.New("the line is down")
	}
	l.conns = append(l.conns, c)
	return stalling{c, l}, nil
}

// Dial makes lines a proxy.Dialer.
func (l *lines) Dial(network, addr string) (net.Conn, error) {
	return l.dial(context.Background(), network, addr)
}

func (l *lines) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = true
	for _, c := range l.conns {
		c.Close()
	}
}

func franzMember(b *broker, m membership) (leave, crash func(), err error) {
	balancer := map[string]kgo.GroupBalancer{"range": kgo.RangeBalancer(), "roundrobin": kgo.RoundRobinBalancer(), "sticky": kgo.StickyBalancer(), "cooperative-sticky": kgo.CooperativeStickyBalancer()}[m.assignor]
	return franzGroup(b, m, kgo.Balancers(balancer), kgo.MetadataMaxAge(500*time.Millisecond), kgo.SessionTimeout(2*time.Second), kgo.HeartbeatInterval(200*time.Millisecond))
}

// franzGroup is a member of either protocol.
func franzGroup(b *broker, m membership, more ...kgo.Opt) (leave, crash func(), err error) {
	line := m.lines()
	opts := append([]kgo.Opt{
		kgo.ConsumerGroup(m.group), kgo.MetadataMinAge(100 * time.Millisecond), kgo.DisableAutoCommit(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.RebalanceTimeout(5 * time.Second), kgo.FetchMaxWait(200 * time.Millisecond), kgo.Dialer(line.dial),
	}, more...)
	if m.regex != "" {
		opts = append(opts, kgo.ConsumeRegex(), kgo.ConsumeTopics(m.regex))
	} else {
		opts = append(opts, kgo.ConsumeTopics(m.topic))
	}
	if m.instance != "" {
		opts = append(opts, kgo.InstanceID(m.instance))
	}
	cl, err := franz{}.dial(b, opts...)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			rs := cl.PollRecords(ctx, 20).Records()
			for _, r := range rs {
				m.seen(r.Partition, r.Offset, r.Value)
			}
			if len(rs) > 0 {
				cl.CommitRecords(ctx, rs...) // what is not committed is seen again
			}
		}
	}()
	end := func() { cancel(); <-done; cl.Close() }
	return end, func() { line.cut(); end() }, nil
}

// saramaHandler is what sarama wants of a member.
type saramaHandler struct{ membership }

func (saramaHandler) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (saramaHandler) Cleanup(sarama.ConsumerGroupSession) error { return nil }
func (h saramaHandler) ConsumeClaim(s sarama.ConsumerGroupSession, c sarama.ConsumerGroupClaim) error {
	for {
		select {
		case r, ok := <-c.Messages():
			if !ok {
				return nil
			}
			h.seen(r.Partition, r.Offset, r.Value)
			s.MarkMessage(r, "")
			s.Commit()
		case <-s.Context().Done():
			return nil
		}
	}
}

func saramaMember(b *broker, m membership) (leave, crash func(), err error) {
	line := m.lines()
	c := samsa{}.config()
	c.Consumer.Return.Errors = false
	c.Consumer.Offsets.Initial, c.Consumer.Offsets.AutoCommit.Enable = sarama.OffsetOldest, false
	c.Consumer.Group.Session.Timeout, c.Consumer.Group.Heartbeat.Interval, c.Consumer.Group.Rebalance.Timeout = 2*time.Second, 200*time.Millisecond, 5*time.Second
	c.Consumer.Group.Rebalance.Retry.Backoff = 100 * time.Millisecond
	c.Consumer.Group.InstanceId = m.instance
	c.Metadata.RefreshFrequency = 500 * time.Millisecond
	c.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{map[string]func() sarama.BalanceStrategy{
		"range": sarama.NewBalanceStrategyRange, "roundrobin": sarama.NewBalanceStrategyRoundRobin, "sticky": sarama.NewBalanceStrategySticky,
	}[m.assignor]()}
	c.Net.Proxy.Enable, c.Net.Proxy.Dialer = true, line
	g, err := sarama.NewConsumerGroup([]string{b.addr()}, m.group, c)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if err := g.Consume(ctx, []string{m.topic}, saramaHandler{m}); err != nil {
				time.Sleep(20 * time.Millisecond)
			}
		}
	}()
	end := func() { cancel(); <-done; g.Close() }
	return end, func() { line.cut(); end() }, nil
}

func segmentMember(b *broker, m membership) (leave, crash func(), err error) {
	line := m.lines()
	balancer := map[string]segmentio.GroupBalancer{"range": segmentio.RangeGroupBalancer{}, "roundrobin": segmentio.RoundRobinGroupBalancer{}}[m.assignor]
	r := segmentio.NewReader(segmentio.ReaderConfig{
		Brokers: []string{b.addr()}, GroupID: m.group, Topic: m.topic, GroupBalancers: []segmentio.GroupBalancer{balancer}, StartOffset: segmentio.FirstOffset,
		SessionTimeout: 2 * time.Second, HeartbeatInterval: 200 * time.Millisecond, RebalanceTimeout: 5 * time.Second, JoinGroupBackoff: 100 * time.Millisecond,
		MaxWait: 200 * time.Millisecond, MinBytes: 1, MaxBytes: 1 << 20, Dialer: &segmentio.Dialer{Timeout: 5 * time.Second, DialFunc: line.dial},
		WatchPartitionChanges: true, PartitionWatchInterval: 500 * time.Millisecond,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			x, err := r.FetchMessage(ctx)
			if err != nil {
				continue
			}
			m.seen(int32(x.Partition), x.Offset, x.Value)
			r.CommitMessages(ctx, x)
		}
	}()
	end := func() { cancel(); <-done; r.Close() }
	return end, func() { line.cut(); end() }, nil
}

// sightings are the records of one topic that members have seen.
type sightings struct {
	mu   sync.Mutex
	seen map[string]int
}

func (s *sightings) add(_ int32, _ int64, value []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[string(value)]++
}

func (s *sightings) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.seen)
}

// flock is one group under test, and what it has to see.
type flock struct {
	t        *testing.T
	b        *broker
	adm      *kadm.Client
	writer   *kgo.Client
	topic    string
	group    string
	parts    int // of the topic
	written  int
	seen     sightings
	join     joins
	assignor string
	patience time.Duration
}

func newFlock(t *testing.T, b *broker, partitions int32) *flock {
	f := &flock{t: t, b: b, adm: admin(t, b), topic: topicName(t), parts: int(partitions), seen: sightings{seen: map[string]int{}}, patience: 30 * time.Second}
	f.group = "g." + f.topic
	createTopic(t, b, f.topic, partitions)
	var err error
	if f.writer, err = (franz{}).dial(b, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DisableIdempotentWrite(), kgo.MetadataMinAge(50*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.writer.Close)
	return f
}

func (f *flock) write(n int) {
	f.t.Helper()
	var rs []*kgo.Record
	for range n {
		rs = append(rs, &kgo.Record{Topic: f.topic, Partition: int32(f.written % f.parts), Value: fmt.Appendf(nil, "r%d", f.written)})
		f.written++
	}
	if err := f.writer.ProduceSync(within(f.t, f.patience), rs...).FirstErr(); err != nil {
		f.t.Fatal(err)
	}
}

func (f *flock) member(instance string) (leave, crash func()) {
	f.t.Helper()
	return f.memberOn(nil, instance)
}

func (f *flock) memberOn(line *lines, instance string) (leave, crash func()) {
	f.t.Helper()
	leave, crash, err := f.join(f.b, membership{line: line, topic: f.topic, group: f.group, assignor: f.assignor, instance: instance, seen: f.seen.add})
	if err != nil {
		f.t.Fatal(err)
	}
	var once sync.Once
	end := leave
	leave = func() { once.Do(end) }
	f.t.Cleanup(leave)
	if stop := crash; crash != nil {
		crash = func() { once.Do(stop) }
	}
	return leave, crash
}

// until waits for what a group comes to.
func (f *flock) until(what string, ok func() (bool, string)) {
	f.t.Helper()
	limit := time.Now().Add(f.patience)
	for {
		is, have := ok()
		if is {
			return
		}
		if time.Now().After(limit) {
			f.t.Fatalf("after %v not %s: %s", f.patience, what, have)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// sees waits until everything that was written was seen.
func (f *flock) sees() {
	f.t.Helper()
	f.until("all records seen", func() (bool, string) {
		n := f.seen.count()
		return n == f.written, fmt.Sprintf("%d of %d", n, f.written)
	})
}

// settles waits until the group is stable with n members that own every partition once between them.
func (f *flock) settles(n int) kadm.DescribedGroup {
	f.t.Helper()
	var g kadm.DescribedGroup
	f.until(fmt.Sprintf("stable with %d members", n), func() (bool, string) {
		ds, err := f.adm.DescribeGroups(within(f.t, f.patience), f.group)
		if err != nil {
			return false, err.Error()
		}
		g = ds[f.group]
		owners := map[int32]int{}
		have := fmt.Sprintf("%s, %v:", g.State, g.Err)
		for _, m := range g.Members {
			a, ok := m.Assigned.AsConsumer()
			if !ok {
				return false, have + " an assignment that cannot be read"
			}
			for _, t := range a.Topics {
				for _, p := range t.Partitions {
					owners[p]++
				}
				have += fmt.Sprintf(" %s %v;", m.MemberID, t.Partitions)
			}
		}
		if g.State != "Stable" || len(g.Members) != n || len(owners) != f.parts {
			return false, have
		}
		for p, k := range owners {
			if k != 1 {
				f.t.Errorf("partition %d has %d owners in one generation: %s", p, k, have)
			}
		}
		return true, ""
	})
	return g
}

// committed are the group's offsets, by partition.
func (f *flock) committed() map[int32]int64 {
	f.t.Helper()
	rs, err := f.adm.FetchOffsets(within(f.t, f.patience), f.group)
	if err != nil {
		f.t.Fatal(err)
	}
	out := map[int32]int64{}
	rs.Each(func(r kadm.OffsetResponse) {
		if r.Err == nil && r.Topic == f.topic {
			out[r.Partition] = r.At
		}
	})
	return out
}

// TestGroupClients: every client, with every way it has to assign partitions: members join, leave and crash; whatever happens, each record is seen at
// least once, each partition has one owner, and committed records are not seen again by later members.
func TestGroupClients(t *testing.T) {
	b := ownBroker(t, groupFlags...)
	for _, name := range clientNames {
		c, ok := groupClients[name]
		if !ok {
			continue
		}
		for _, assignor := range c.assignors {
			t.Run(name+"/"+assignor, func(t *testing.T) {
				t.Parallel()
				f := newFlock(t, b, groupPartitions)
				f.join, f.assignor = c.join, assignor
				f.write(60)
				leaveA, _ := f.member("")
				f.sees()
				f.settles(1)
				leaveB, _ := f.member("")
				f.settles(2)
				f.write(60)
				f.sees()
				leaveB()
				f.settles(1)
				f.write(60)
				f.sees()
				_, crash := f.member("")
				if crash != nil {
					f.settles(2)
					f.write(60)
					crash()
					f.sees()
					f.settles(1)
				}
				f.until("everything committed", func() (bool, string) {
					var n int64
					for _, at := range f.committed() {
						n += at
					}
					return n == int64(f.written), fmt.Sprint(n)
				})
				leaveA()
				f.until("without A", func() (bool, string) {
					ds, err := f.adm.DescribeGroups(within(t, f.patience), f.group)
					if err != nil {
						return false, err.Error()
					}
					return len(ds[f.group].Members) == 1-boolInt(crash != nil), ds[f.group].State
				})
				before := f.seen.count()
				f.seen.mu.Lock()
				f.seen.seen = map[string]int{}
				f.seen.mu.Unlock()
				f.member("")
				for range 6 {
					f.write(1)
				}
				f.until("only new records seen", func() (bool, string) { n := f.seen.count(); return n >= 6, fmt.Sprint(n) })
				if n := f.seen.count(); n != 6 {
					t.Errorf("who came last saw %d records; 6 of %d were not committed", n, before+6)
				}
			})
		}
	}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestGroupEvents: every client, while partitions are added, one of its members stalls past its session, and the broker is killed: every record is
// seen, and every partition has an owner.
func TestGroupEvents(t *testing.T) {
	needReal(t, "it is not killed")
	for name, assignor := range map[string]string{"franz-go": "cooperative-sticky", "sarama": "sticky", "kafka-go": "roundrobin", "confluent": "cooperative-sticky"} {
		c, ok := groupClients[name]
		if !ok {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFlock(t, ownBroker(t, groupFlags...), groupPartitions)
			f.join, f.assignor = c.join, assignor
			line := &lines{}
			f.member("")
			_, crash := f.memberOn(line, "")
			f.settles(2)
			f.write(60)
			f.sees()
			grow(t, f.adm, f.topic, groupPartitions+2)
			f.parts += 2
			f.writer.ForceMetadataRefresh()
			f.settles(2)
			f.write(80)
			f.sees()
			if crash != nil { // its lines are ours
				line.still.Lock()
				f.settles(1) // its session is over
				f.write(80)
				f.sees()
				line.still.Unlock()
				f.settles(2)
			}
			f.write(80)
			f.b.kill()
			if err := f.b.start(); err != nil {
				t.Fatal(err)
			}
			f.write(80)
			f.sees()
			f.settles(2)
		})
	}
}

// TestGroupRegex: clients that subscribe by a regular expression take up topics that come later.
func TestGroupRegex(t *testing.T) {
	b := ownBroker(t, groupFlags...)
	for _, name := range []string{"franz-go", "confluent"} {
		if c, ok := groupClients[name]; ok {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				f := newFlock(t, b, groupPartitions)
				f.assignor = "cooperative-sticky"
				f.regexFinds(c.join)
			})
		}
	}
}

// regexFinds has two members subscribe by a regular expression.
func (f *flock) regexFinds(join joins) {
	f.t.Helper()
	f.join = func(b *broker, m membership) (leave, crash func(), err error) {
		m.regex = "^" + f.topic + ".*"
		return join(b, m)
	}
	f.member("")
	f.member("")
	f.write(60)
	f.sees()
	later := f.topic + ".later"
	createTopic(f.t, f.b, later, 1)
	f.written++
	if err := f.writer.ProduceSync(within(f.t, f.patience), &kgo.Record{Topic: later, Value: []byte("later")}).FirstErr(); err != nil {
		f.t.Fatal(err)
	}
	f.sees()
}

// TestGroupStatic: a static member that goes and comes back within its session finds its partitions, in the same generation and without a rebalance.
func TestGroupStatic(t *testing.T) {
	needReal(t, "sarama's static members do not come back there")
	b := ownBroker(t, groupFlags...)
	for _, name := range []string{"franz-go", "sarama", "confluent"} {
		c, ok := groupClients[name]
		if !ok {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFlock(t, b, groupPartitions)
			f.join, f.assignor = c.join, "range"
			f.staticReturns()
		})
	}
}

// staticReturns has two static members of a classic group, of which one crashes and comes back.
func (f *flock) staticReturns() {
	f.t.Helper()
	f.member("one")
	leave, crash := f.member("two")
	before := f.settles(2)
	if crash != nil {
		crash()
	} else {
		leave() // a static member that is closed stays a member
	}
	f.member("two")
	f.write(60)
	f.sees()
	after := f.settles(2)
	partsOf := func(g kadm.DescribedGroup, instance string) (id string, parts []int32) {
		for _, m := range g.Members {
			if m.InstanceID != nil && *m.InstanceID == instance {
				if a, ok := m.Assigned.AsConsumer(); ok && len(a.Topics) == 1 {
					return m.MemberID, a.Topics[0].Partitions
				}
			}
		}
		f.t.Errorf("there is no member %s in %+v", instance, g)
		return "", nil
	}
	for _, who := range []string{"one", "two"} {
		idBefore, had := partsOf(before, who)
		idAfter, has := partsOf(after, who)
		if !slices.Equal(had, has) {
			f.t.Errorf("%s had %v and has %v", who, had, has)
		}
		if (idBefore == idAfter) != (who == "one") {
			f.t.Errorf("%s had id %s and has %s", who, idBefore, idAfter)
		}
	}
}

// TestGroupKill: members consume and commit while their broker is killed again and again. No acknowledged commit goes back, no member has to join a new
// group, and every record is seen.
func TestGroupKill(t *testing.T) {
	needReal(t, "it is not killed")
	b := ownBroker(t, groupFlags...)
	f := newFlock(t, b, groupPartitions)
	f.join, f.assignor = franzMember, "cooperative-sticky"
	f.member("")
	f.member("")
	before := f.settles(2)
	outside := f.group + ".outside"
	for round := range 3 {
		// Commits from outside, each awaited: what is acknowledged must be there after the kill.
		acked := int64(-1)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Add(1)
		go func() {
			defer wg.Done()
			w, err := dial(b.addr())
			if err != nil {
				return
			}
			defer w.Close()
			for n := int64(round * 1_000_000); ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				resp, err := w.ask(commitRequest(outside, f.topic, 0, n))
				if err != nil {
					return
				}
				if code := resp.(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode; code != 0 {
					t.Errorf("commit: %v", kerr.ErrorForCode(code))
					return
				}
				acked = n
			}
		}()
		f.write(60)
		time.Sleep(100 * time.Millisecond)
		b.kill()
		close(stop)
		wg.Wait()
		if acked < 0 {
			t.Fatal("no commit was acknowledged before the kill")
		}
		if err := b.start(); err != nil {
			t.Fatal(err)
		}
		var rs kadm.OffsetResponses
		f.until("offsets fetched", func() (bool, string) { // a connection of the life before ends with an error first
			var err error
			rs, err = f.adm.FetchOffsets(within(t, f.patience), outside)
			return err == nil, fmt.Sprint(err)
		})
		if o, ok := rs.Lookup(f.topic, 0); !ok || o.At < acked {
			t.Fatalf("offset %d was acknowledged; after kill -9 it is %+v", acked, o)
		}
		f.write(60)
		f.sees()
	}
	after := f.settles(2)
	for _, m := range after.Members {
		if !slices.ContainsFunc(before.Members, func(x kadm.DescribedGroupMember) bool { return x.MemberID == m.MemberID }) {
			t.Errorf("member %s joined anew: a restart within a session should not be noticed", m.MemberID)
		}
	}
}

// commitRequest commits one offset from outside of a group.
func commitRequest(group, topic string, partition int32, offset int64) *kmsg.OffsetCommitRequest {
	r := kmsg.NewPtrOffsetCommitRequest()
	r.Version, r.Group, r.Generation = 8, group, -1
	p := kmsg.NewOffsetCommitRequestTopicPartition()
	p.Partition, p.Offset = partition, offset
	x := kmsg.NewOffsetCommitRequestTopic()
	x.Topic, x.Partitions = topic, append(x.Partitions, p)
	r.Topics = append(r.Topics, x)
	return r
}

// subscribing is what a consumer says when it joins: which topics it wants (Kafka's ConsumerProtocolSubscription, version 0).
func subscribing(topics ...string) []byte {
	m := kmsg.NewConsumerMemberMetadata()
	m.Topics = topics
	return m.AppendTo(nil)
}

func joinRequest(version int16, group, id string) *kmsg.JoinGroupRequest {
	r := kmsg.NewPtrJoinGroupRequest()
	r.Version, r.Group, r.MemberID, r.ProtocolType, r.SessionTimeoutMillis, r.RebalanceTimeoutMillis = version, group, id, "consumer", 6000, 10000
	p := kmsg.NewJoinGroupRequestProtocol()
	p.Name, p.Metadata = "range", subscribing("t")
	r.Protocols = append(r.Protocols, p)
	return r
}

// TestOffsetsByID: offsets are committed and fetched by the ids of topics, and those of a topic are not its successor's.
func TestOffsetsByID(t *testing.T) {
	needReal(t, "it has many coordinators")
	b := ownBroker(t, groupFlags...)
	w := dialTo(t, b.addr())
	topic := topicName(t)
	createTopic(t, b, topic, 2)
	id := idOf(t, b, topic)
	commit := func(id [16]byte, offset int64) int16 {
		r := commitRequest("by.id", "", 1, offset)
		r.Version, r.Topics[0].TopicID = 10, id
		x := mustAsk[*kmsg.OffsetCommitResponse](t, w, r).Topics[0]
		if x.TopicID != id || x.Partitions[0].Partition != 1 {
			t.Errorf("committed: %+v", x)
		}
		return x.Partitions[0].ErrorCode
	}
	fetch := func(ids ...[16]byte) kmsg.OffsetFetchResponseGroup {
		r := kmsg.NewPtrOffsetFetchRequest()
		g := kmsg.NewOffsetFetchRequestGroup()
		g.Group = "by.id"
		for _, id := range ids {
			x := kmsg.NewOffsetFetchRequestGroupTopic()
			x.TopicID, x.Partitions = id, []int32{1}
			g.Topics = append(g.Topics, x)
		}
		r.Version, r.Groups = 10, append(r.Groups, g)
		return mustAsk[*kmsg.OffsetFetchResponse](t, w, r).Groups[0]
	}
	holds := func(what string, g kmsg.OffsetFetchResponseGroup, id [16]byte, offset int64, code int16) {
		t.Helper()
		if g.ErrorCode != 0 || len(g.Topics) != 1 || g.Topics[0].TopicID != id || len(g.Topics[0].Partitions) != 1 || g.Topics[0].Partitions[0].Partition != 1 ||
			g.Topics[0].Partitions[0].Offset != offset || g.Topics[0].Partitions[0].ErrorCode != code {
			t.Errorf("%s: %+v, want offset %d, error %d", what, g, offset, code)
		}
	}
	if code := commit(id, 42); code != 0 {
		t.Fatalf("a commit by id: error %d", code)
	}
	holds("by id", fetch(id), id, 42, 0)
	holds("all", fetch(), id, 42, 0)
	if at := mustAsk[*kmsg.OffsetFetchResponse](t, w, func() *kmsg.OffsetFetchRequest {
		r := kmsg.NewPtrOffsetFetchRequest()
		x := kmsg.NewOffsetFetchRequestTopic()
		x.Topic, x.Partitions = topic, []int32{1}
		r.Version, r.Group, r.Topics = 5, "by.id", append(r.Topics, x)
		return r
	}()).Topics[0].Partitions[0].Offset; at != 42 {
		t.Errorf("by name: offset %d, want 42", at)
	}
	ctx := within(t, time.Minute)
	if err := clients["franz-go"].remove(ctx, b, topic); err != nil {
		t.Fatal(err)
	}
	createTopic(t, b, topic, 2)
	holds("of the topic that is gone", fetch(id), id, -1, kerr.UnknownTopicID.Code)
	holds("of its successor", fetch(idOf(t, b, topic)), idOf(t, b, topic), -1, 0)
	if code := commit(id, 43); code != kerr.UnknownTopicID.Code {
		t.Errorf("a commit to the topic that is gone: error %d", code)
	}
	if g := fetch(); len(g.Topics) != 0 {
		t.Errorf("all, where there are none: %+v", g)
	}
}

// TestGroupVersions walks a member through its life in every version of every key of groups.
func TestGroupVersions(t *testing.T) {
	needReal(t, "it has many coordinators")
	b := ownBroker(t, groupFlags...)
	topic := topicName(t)
	createTopic(t, b, topic, 2)
	at := func(v, highest int16) int16 { return min(v, highest) }
	for v := int16(0); v <= 9; v++ {
		t.Run(fmt.Sprint("v", v), func(t *testing.T) {
			group := fmt.Sprint("versions.", v)
			w := dialTo(t, b.addr())
			find := kmsg.NewPtrFindCoordinatorRequest()
			find.Version, find.CoordinatorKey, find.CoordinatorKeys = at(v, 4), group, []string{group}
			found := mustAsk[*kmsg.FindCoordinatorResponse](t, w, find)
			port, code := found.Port, found.ErrorCode
			if find.Version >= 4 {
				port, code = found.Coordinators[0].Port, found.Coordinators[0].ErrorCode
			}
			if !useFake() && (code != 0 || int(port) != b.port) {
				t.Fatalf("the coordinator is at port %d, error %d; want %d", port, code, b.port)
			}
			j := mustAsk[*kmsg.JoinGroupResponse](t, w, joinRequest(v, group, ""))
			if v >= 4 {
				if j.ErrorCode != kerr.MemberIDRequired.Code || j.MemberID == "" {
					t.Fatalf("a first join: %v, id %q", kerr.ErrorForCode(j.ErrorCode), j.MemberID)
				}
				j = mustAsk[*kmsg.JoinGroupResponse](t, w, joinRequest(v, group, j.MemberID))
			}
			if j.ErrorCode != 0 || j.Generation != 1 || j.LeaderID != j.MemberID || j.Protocol == nil || *j.Protocol != "range" || len(j.Members) != 1 || string(j.Members[0].ProtocolMetadata) != string(subscribing("t")) {
				t.Fatalf("joined: %+v", j)
			}
			if v >= 7 && (j.ProtocolType == nil || *j.ProtocolType != "consumer") {
				t.Errorf("joined without its type of protocol: %+v", j)
			}
			s := kmsg.NewPtrSyncGroupRequest()
			s.Version, s.Group, s.Generation, s.MemberID, s.ProtocolType, s.Protocol = at(v, 5), group, 1, j.MemberID, kmsg.StringPtr("consumer"), kmsg.StringPtr("range")
			a := kmsg.NewSyncGroupRequestGroupAssignment()
			a.MemberID, a.MemberAssignment = j.MemberID, []byte("mine")
			s.GroupAssignment = append(s.GroupAssignment, a)
			if r := mustAsk[*kmsg.SyncGroupResponse](t, w, s); r.ErrorCode != 0 || string(r.MemberAssignment) != "mine" {
				t.Fatalf("synced: %+v", r)
			}
			h := kmsg.NewPtrHeartbeatRequest()
			h.Version, h.Group, h.Generation, h.MemberID = at(v, 4), group, 1, j.MemberID
			if r := mustAsk[*kmsg.HeartbeatResponse](t, w, h); r.ErrorCode != 0 {
				t.Errorf("heartbeat: %v", kerr.ErrorForCode(r.ErrorCode))
			}
			h.Generation = 2
			if r := mustAsk[*kmsg.HeartbeatResponse](t, w, h); r.ErrorCode != kerr.IllegalGeneration.Code {
				t.Errorf("heartbeat of another generation: %v", kerr.ErrorForCode(r.ErrorCode))
			}

			commit := commitRequest(group, topic, 1, 42)
			commit.Version, commit.MemberID, commit.Generation = max(2, v), j.MemberID, 1
			p := &commit.Topics[0].Partitions[0]
			p.LeaderEpoch, p.Metadata = 7, kmsg.StringPtr("note")
			unknown, large := *p, *p
			unknown.Partition, large.Partition, large.Metadata = 2, 0, kmsg.StringPtr(string(make([]byte, 4097)))
			commit.Topics[0].Partitions = append(commit.Topics[0].Partitions, unknown, large)
			c := mustAsk[*kmsg.OffsetCommitResponse](t, w, commit).Topics[0].Partitions
			if len(c) != 3 || c[0].ErrorCode != 0 || c[1].ErrorCode != kerr.UnknownTopicOrPartition.Code || c[2].ErrorCode != kerr.OffsetMetadataTooLarge.Code {
				t.Errorf("committed: %+v", c)
			}

			for _, all := range []bool{false, true} {
				fetch := kmsg.NewPtrOffsetFetchRequest()
				fetch.Version, fetch.Group, fetch.RequireStable = max(1, v), group, true
				if all && fetch.Version < 2 {
					continue
				}
				none := kmsg.NewOffsetFetchRequestGroup()
				none.Group = "none"
				mine := kmsg.NewOffsetFetchRequestGroup()
				mine.Group = group
				if !all {
					x := kmsg.NewOffsetFetchRequestTopic()
					x.Topic, x.Partitions = topic, []int32{1, 0}
					fetch.Topics = append(fetch.Topics, x)
					y := kmsg.NewOffsetFetchRequestGroupTopic()
					y.Topic, y.Partitions = topic, []int32{1, 0}
					mine.Topics = append(mine.Topics, y)
				}
				fetch.Groups = append(fetch.Groups, none, mine)
				r := mustAsk[*kmsg.OffsetFetchResponse](t, w, fetch)
				var got []kmsg.OffsetFetchResponseGroupTopicPartition
				if fetch.Version >= 8 {
					if len(r.Groups) != 2 || r.Groups[0].ErrorCode != 0 || len(r.Groups[0].Topics) != 0 || r.Groups[1].ErrorCode != 0 || len(r.Groups[1].Topics) != 1 {
						t.Fatalf("fetched: %+v", r)
					}
					got = r.Groups[1].Topics[0].Partitions
				} else {
					if r.ErrorCode != 0 || len(r.Topics) != 1 {
						t.Fatalf("fetched: %+v", r)
					}
					for _, p := range r.Topics[0].Partitions {
						got = append(got, kmsg.OffsetFetchResponseGroupTopicPartition{Partition: p.Partition, Offset: p.Offset, LeaderEpoch: p.LeaderEpoch, Metadata: p.Metadata, ErrorCode: p.ErrorCode})
					}
				}
				epoch := int32(-1)
				if v >= 6 {
					epoch = 7
				}
				if got[0].Partition != 1 || got[0].Offset != 42 || got[0].LeaderEpoch != epoch || *got[0].Metadata != "note" || got[0].ErrorCode != 0 {
					t.Errorf("fetched, all %t: %+v", all, got[0])
				}
				if !all && (len(got) != 2 || got[1].Partition != 0 || got[1].Offset != -1 || got[1].ErrorCode != 0) || all && len(got) != 1 {
					t.Errorf("fetched, all %t: %+v", all, got)
				}
			}

			d := kmsg.NewPtrDescribeGroupsRequest()
			d.Version, d.Groups, d.IncludeAuthorizedOperations = at(v, 6), []string{group, "none"}, true
			described := mustAsk[*kmsg.DescribeGroupsResponse](t, w, d).Groups
			if g := described[0]; g.ErrorCode != 0 || g.State != "Stable" || g.ProtocolType != "consumer" || g.Protocol != "range" || len(g.Members) != 1 ||
				g.Members[0].MemberID != j.MemberID || g.Members[0].ClientID != "interop" || g.Members[0].ClientHost != "/127.0.0.1" || string(g.Members[0].MemberAssignment) != "mine" {
				t.Errorf("described: %+v", g)
			}
			if g := described[1]; g.State != "Dead" || (g.ErrorCode == kerr.GroupIDNotFound.Code) != (v >= 6) {
				t.Errorf("a group that is not there: %+v", g)
			}
			l := kmsg.NewPtrListGroupsRequest()
			l.Version, l.StatesFilter, l.TypesFilter = at(v, 5), []string{"stable"}, []string{"Classic"}
			listed := mustAsk[*kmsg.ListGroupsResponse](t, w, l)
			if i := slices.IndexFunc(listed.Groups, func(g kmsg.ListGroupsResponseGroup) bool { return g.Group == group }); i < 0 || listed.Groups[i].ProtocolType != "consumer" {
				t.Errorf("listed: %+v", listed)
			}
			l.StatesFilter = []string{"Empty"}
			if l.Version >= 4 && slices.ContainsFunc(mustAsk[*kmsg.ListGroupsResponse](t, w, l).Groups, func(g kmsg.ListGroupsResponseGroup) bool { return g.Group == group }) {
				t.Error("a stable group is listed among the empty ones")
			}

			del := kmsg.NewPtrDeleteGroupsRequest()
			del.Version, del.Groups = at(v, 2), []string{group, "none"}
			if r := mustAsk[*kmsg.DeleteGroupsResponse](t, w, del).Groups; len(r) != 2 || r[0].ErrorCode != kerr.NonEmptyGroup.Code || r[1].ErrorCode != kerr.GroupIDNotFound.Code {
				t.Errorf("deleted: %+v", r)
			}
			leave := kmsg.NewPtrLeaveGroupRequest()
			leave.Version, leave.Group, leave.MemberID = at(v, 5), group, j.MemberID
			for _, id := range []string{j.MemberID, "nobody"} {
				m := kmsg.NewLeaveGroupRequestMember()
				m.MemberID = id
				leave.Members = append(leave.Members, m)
			}
			r := mustAsk[*kmsg.LeaveGroupResponse](t, w, leave)
			if r.ErrorCode != 0 || leave.Version >= 3 && (len(r.Members) != 2 || r.Members[0].ErrorCode != 0 || r.Members[1].ErrorCode != kerr.UnknownMemberID.Code) {
				t.Errorf("left: %+v", r)
			}
			od := kmsg.NewPtrOffsetDeleteRequest()
			x := kmsg.NewOffsetDeleteRequestTopic()
			x.Topic = topic
			for n := range int32(3) {
				y := kmsg.NewOffsetDeleteRequestTopicPartition()
				y.Partition = n
				x.Partitions = append(x.Partitions, y)
			}
			od.Group, od.Topics = group, append(od.Topics, x)
			gone := mustAsk[*kmsg.OffsetDeleteResponse](t, w, od)
			if gone.ErrorCode != 0 || len(gone.Topics) != 1 || gone.Topics[0].Partitions[1].ErrorCode != 0 || gone.Topics[0].Partitions[2].ErrorCode != kerr.UnknownTopicOrPartition.Code {
				t.Errorf("deleted offsets: %+v", gone)
			}
			if r := mustAsk[*kmsg.DeleteGroupsResponse](t, w, del).Groups; r[0].ErrorCode != 0 {
				t.Errorf("deleted an empty group: %+v", r)
			}
		})
	}
}

// TestGroupElsewhere: a data shard coordinates no group, and lists none, so a client that asks every node counts each group once.
func TestGroupElsewhere(t *testing.T) {
	needReal(t, "its nodes are laid out otherwise")
	b := sharedBroker(t)
	topic := topicName(t)
	leader := createTopic(t, b, topic, 1)
	group := "g." + topic
	w, data := dialTo(t, b.addr()), dialTo(t, leader)
	if c := mustAsk[*kmsg.OffsetCommitResponse](t, w, commitRequest(group, topic, 0, 5)).Topics[0].Partitions[0]; c.ErrorCode != 0 {
		t.Fatalf("commit: %v", kerr.ErrorForCode(c.ErrorCode))
	}
	if c := mustAsk[*kmsg.OffsetCommitResponse](t, data, commitRequest(group, topic, 0, 6)).Topics[0].Partitions[0]; c.ErrorCode != kerr.NotCoordinator.Code {
		t.Errorf("commit to a data shard: %v", kerr.ErrorForCode(c.ErrorCode))
	}
	if j := mustAsk[*kmsg.JoinGroupResponse](t, data, joinRequest(5, group, "")); j.ErrorCode != kerr.NotCoordinator.Code {
		t.Errorf("join at a data shard: %v", kerr.ErrorForCode(j.ErrorCode))
	}
	if l := mustAsk[*kmsg.ListGroupsResponse](t, data, kmsg.NewPtrListGroupsRequest()); l.ErrorCode != 0 || len(l.Groups) != 0 {
		t.Errorf("a data shard lists groups: %+v", l)
	}
	groups, err := admin(t, b).ListGroups(within(t, time.Minute))
	if err != nil || groups[group].Group != group {
		t.Errorf("groups are %v: %v", groups, err)
	}
	// A topic takes its offsets along.
	if err := (franz{}).remove(within(t, time.Minute), b, topic); err != nil {
		t.Fatal(err)
	}
	createTopic(t, b, topic, 1)
	rs, err := admin(t, b).FetchOffsets(within(t, time.Minute), group)
	if o, ok := rs.Lookup(topic, 0); err != nil || ok && o.At >= 0 {
		t.Errorf("a topic made anew begins with offset %+v: %v", o, err)
	}
}

// TestGroupWaits: a waiting join delays no request of other connections, and ends when the broker stops.
func TestGroupWaits(t *testing.T) {
	needReal(t, "it is no process")
	b := ownBroker(t, groupFlags...)
	topic := topicName(t)
	createTopic(t, b, topic, 1)
	one, two := dialTo(t, b.addr()), dialTo(t, b.addr())
	j := mustAsk[*kmsg.JoinGroupResponse](t, one, joinRequest(3, "waits", ""))
	if j.ErrorCode != 0 {
		t.Fatalf("joined: %+v", j)
	}
	waiting := joinRequest(3, "waits", "")
	if err := two.send(waiting); err != nil {
		t.Fatal(err)
	}
	h := kmsg.NewPtrHeartbeatRequest()
	h.Group, h.Generation, h.MemberID = "waits", 1, j.MemberID
	for code := int16(0); code != kerr.RebalanceInProgress.Code; {
		code = mustAsk[*kmsg.HeartbeatResponse](t, one, h).ErrorCode
		if code != 0 && code != kerr.RebalanceInProgress.Code {
			t.Fatalf("heartbeat: %v", kerr.ErrorForCode(code))
		}
	}
	// What is sent on one connection at once is done in its order.
	commit := commitRequest("other", topic, 0, 7)
	fetch := kmsg.NewPtrOffsetFetchRequest()
	fetch.Version, fetch.Group = 5, "other"
	if _, err := one.Write(append(frame(commit, 1000), frame(fetch, 1001)...)); err != nil {
		t.Fatal(err)
	}
	if _, err := one.receive(commit, 1000); err != nil {
		t.Fatal(err)
	}
	if r, err := one.receive(fetch, 1001); err != nil || len(r.(*kmsg.OffsetFetchResponse).Topics) != 1 || r.(*kmsg.OffsetFetchResponse).Topics[0].Partitions[0].Offset != 7 {
		t.Fatalf("fetched behind a commit: %+v, %v", r, err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- b.stop() }()
	r, err := two.receive(waiting, two.correlation)
	if err != nil || r.(*kmsg.JoinGroupResponse).ErrorCode != kerr.NotCoordinator.Code {
		t.Errorf("a join that waits while the broker stops: %+v, %v", r, err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
}

// TestGroupsMax: where there are as many groups as may be, a new member's client tries again until there is room, and the log and a gauge say why. Groups that
// hold nothing make room, and those that do lose nothing, also after a restart.
func TestGroupsMax(t *testing.T) {
	needReal(t, "it is about the broker's bounds")
	const most = 4
	b := ownBroker(t, append(slices.Clone(groupFlags), "--groups-max", strconv.Itoa(most))...)
	topic := topicName(t)
	createTopic(t, b, topic, 1)
	w := dialTo(t, b.addr())
	commit := func(group string, offset int64) int16 {
		t.Helper()
		return mustAsk[*kmsg.OffsetCommitResponse](t, w, commitRequest(group, topic, 0, offset)).Topics[0].Partitions[0].ErrorCode
	}
	gone := 0 // commits of groups that were deleted
	for _, name := range clientNames {
		client, ok := groupClients[name]
		if !ok || name != "franz-go" && os.Getenv("TAILBOUND_TESTS") != "long" {
			continue
		}
		// A group that has been left, without offsets, is no obstacle.
		left := mustAsk[*kmsg.JoinGroupResponse](t, w, joinRequest(3, "left", ""))
		leave := kmsg.NewPtrLeaveGroupRequest()
		leave.Group, leave.MemberID = "left", left.MemberID
		mustAsk[*kmsg.LeaveGroupResponse](t, w, leave)
		f := newFlock(t, b, 1)
		f.join, f.assignor = client.join, client.assignors[0]
		f.write(10)
		for i := range most {
			f.until("committed", func() (bool, string) { // what makes room is looked for once a second
				code := commit(fmt.Sprintf("kept-%d", i), int64(100*i+gone))
				return code == 0, fmt.Sprintf("group %d of %d: %v", i+1, most, kerr.ErrorForCode(code))
			})
		}
		if code := commit("one-more", 1); code != kerr.CoordinatorNotAvailable.Code {
			t.Fatalf("a commit for a group more: %v", kerr.ErrorForCode(code))
		}
		if r := mustAsk[*kmsg.JoinGroupResponse](t, w, joinRequest(3, "one-more", "")); r.ErrorCode != kerr.CoordinatorNotAvailable.Code {
			t.Fatalf("a join of a group more: %v", kerr.ErrorForCode(r.ErrorCode))
		}
		leaveGroup, _ := f.member("")
		f.until("in the log", func() (bool, string) {
			said := b.out.tail()
			return strings.Contains(said, "--groups-max") && strings.Contains(said, f.group), said
		})
		if f.seen.count() > 0 {
			t.Errorf("%s: a consumer has records and no group", name)
		}
		if rs, err := f.adm.DeleteGroups(within(t, time.Minute), "kept-0"); err != nil || rs["kept-0"].Err != nil {
			t.Fatal(rs, err)
		}
		f.sees()
		leaveGroup()
		f.until("without members", func() (bool, string) {
			rs, err := f.adm.DeleteGroups(within(t, time.Minute), f.group)
			return err == nil && rs[f.group].Err == nil, fmt.Sprint(rs, err)
		})
		gone++
	}
	if code := commit("kept-0", 7); code != 0 {
		t.Fatal(kerr.ErrorForCode(code))
	}
	out, err := exec.Command(b.binary, "profile", "--data-dir", b.dir, "--once", "--output", "json").Output()
	if err != nil {
		t.Fatal(err)
	}
	gauge := regexp.MustCompile(`"name":\s*"groups",\s*"used":\s*(\d+),\s*"max":\s*(\d+)`).FindStringSubmatch(string(out))
	if len(gauge) != 3 || gauge[1] != strconv.Itoa(most) || gauge[2] != strconv.Itoa(most) {
		t.Errorf("the gauge of groups: %q, want %d of %d", gauge, most, most)
	}
	b.again(t, "--groups-max", "2") // fewer than there are
	w = dialTo(t, b.addr())
	for i := range most {
		fetch := kmsg.NewPtrOffsetFetchRequest()
		fetch.Version, fetch.Group = 5, fmt.Sprintf("kept-%d", i)
		r := mustAsk[*kmsg.OffsetFetchResponse](t, w, fetch)
		want := int64(100*i + gone - 1)
		if i == 0 {
			want = 7
		}
		if len(r.Topics) != 1 || r.Topics[0].Partitions[0].Offset != want {
			t.Errorf("group %d after a restart: %+v, want offset %d", i, r.Topics, want)
		}
	}
	if code := commit("kept-1", 8); code != 0 {
		t.Errorf("a commit of a group that is there: %v", kerr.ErrorForCode(code))
	}
}

// TestManyGroups: as many groups as the setting allows, with ids as long as they may be, are listed in one answer, before and after a restart.
func TestManyGroups(t *testing.T) {
	if os.Getenv("TAILBOUND_TESTS") != "long" {
		t.Skip("it takes a minute")
	}
	needReal(t, "it is about the broker's bounds")
	const most = 50_000
	b := ownBroker(t, "--groups-max", strconv.Itoa(most))
	topic := topicName(t)
	createTopic(t, b, topic, 1)
	w := dialTo(t, b.addr())
	w.SetDeadline(time.Now().Add(5 * time.Minute))
	const pipelined = 50
	for i := 0; i < most; i += pipelined {
		var all []byte
		for k := range pipelined {
			all = append(all, frame(commitRequest(fmt.Sprintf("%0249d", i+k), topic, 0, 1), int32(i+k))...)
		}
		if _, err := w.Write(all); err != nil {
			t.Fatal(err)
		}
		for k := range pipelined {
			r, err := w.receive(commitRequest("", topic, 0, 1), int32(i+k))
			if err != nil || r.(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode != 0 {
				t.Fatalf("group %d: %+v, %v", i+k, r, err)
			}
		}
	}
	for range 2 {
		list := kmsg.NewPtrListGroupsRequest()
		list.Version = 5
		w = dialTo(t, b.addr())
		if got := len(mustAsk[*kmsg.ListGroupsResponse](t, w, list).Groups); got != most {
			t.Errorf("%d groups are listed", got)
		}
		b.again(t, "--groups-max", strconv.Itoa(most))
	}
}

// TestGroupCommits: what many commit at once takes few writes; a control log grown long is compacted; kill -9 loses nothing acknowledged in either.
func TestGroupCommits(t *testing.T) {
	needReal(t, "it writes none")
	b := ownBroker(t, groupFlags...)
	topic := topicName(t)
	createTopic(t, b, topic, 4)
	w := dialTo(t, b.addr())
	const window, groups = 200, 50
	n := 0
	// commitMany sends a window of commits at once, and takes their answers.
	commitMany := func() {
		t.Helper()
		var all []byte
		var reqs []*kmsg.OffsetCommitRequest
		for i := range window {
			r := commitRequest(fmt.Sprint("many.", n%groups), topic, int32(n/groups%4), int64(n))
			reqs = append(reqs, r)
			all = append(all, frame(r, int32(i))...)
			n++
		}
		if _, err := w.Write(all); err != nil {
			t.Fatal(err)
		}
		for i, r := range reqs {
			resp, err := w.receive(r, int32(i))
			if err != nil {
				t.Fatal(err)
			}
			if code := resp.(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode; code != 0 {
				t.Fatalf("commit: %v", kerr.ErrorForCode(code))
			}
		}
	}
	type logRow struct {
		ID         uint64
		Start, End int64
	}
	controlLog := func() (row logRow) {
		t.Helper()
		said, err := exec.Command(b.binary, "check", "--json", b.dir).Output()
		if err != nil {
			t.Fatalf("check: %v\n%s", err, said)
		}
		var report struct{ Logs []logRow }
		if err := json.Unmarshal(said, &report); err != nil {
			t.Fatal(err)
		}
		for _, l := range report.Logs {
			if l.ID == 1 {
				return l
			}
		}
		t.Fatalf("there is no control log in %s", said)
		return row
	}
	verify := func(when string) {
		t.Helper()
		r := kmsg.NewPtrOffsetFetchRequest()
		r.Version = 8
		for g := range groups {
			x := kmsg.NewOffsetFetchRequestGroup()
			x.Group = fmt.Sprint("many.", g)
			r.Groups = append(r.Groups, x)
		}
		resp := mustAsk[*kmsg.OffsetFetchResponse](t, w, r)
		for g := range groups {
			x := resp.Groups[g]
			if len(x.Topics) != 1 || len(x.Topics[0].Partitions) != 4 {
				t.Fatalf("%s group %d has %+v", when, g, x)
			}
			for _, p := range x.Topics[0].Partitions {
				last := int64(n) - groups*4 + int64(p.Partition)*groups + int64(g) // n is a multiple of groups*4
				if p.Offset != last {
					t.Errorf("%s group %d has offset %d of partition %d, want %d", when, g, p.Offset, p.Partition, last)
				}
			}
		}
	}
	for range 20 {
		commitMany()
	}
	verify("at once,")
	b.kill()
	row := controlLog()
	if commands := row.End - row.Start; commands > int64(n)/10 {
		t.Errorf("%d commits took %d commands", n, commands)
	}
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	w = dialTo(t, b.addr())
	verify("after kill -9")
	for range 80 {
		commitMany()
	}
	b.kill()
	if row = controlLog(); row.Start == 0 {
		t.Errorf("after %d commits the control log still begins with its first command: %+v", n, row)
	}
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	w = dialTo(t, b.addr())
	verify("after a snapshot and kill -9")
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	w = dialTo(t, b.addr())
	verify("after a clean stop")
}
