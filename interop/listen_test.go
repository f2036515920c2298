package interop

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// again begins another life with other flags, which go before those of launch.
func (b *broker) again(t *testing.T, flags ...string) {
	t.Helper()
	if b.alive() {
		if err := b.stop(); err != nil {
			t.Fatal(err)
		}
	}
	b.flags = flags
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
}

// TestSinglePort: with --listen-mode=single there is one node on one port, where every client finds everything: partitions, groups, administration. The
// directory is the same as ever: what several shards wrote is served by the one, and the other way round.
func TestSinglePort(t *testing.T) {
	needReal(t, "it is about ports")
	b := ownBroker(t)
	adm := admin(t, b)
	const partitions = 5
	before := topicName(t)
	rs := recordsFor(partitions)
	write := func(topic string) {
		t.Helper()
		createTopic(t, b, topic, partitions)
		if _, err := (franz{}).produce(within(t, time.Minute), b, topic, produceOptions{acks: -1, idempotent: true}, rs); err != nil {
			t.Fatal(err)
		}
	}
	reads := func(topic string) {
		t.Helper()
		got, err := (franz{}).consume(within(t, time.Minute), b, topic, zeroes(partitions), counts(rs, partitions))
		if err != nil {
			t.Fatalf("%s: %v", topic, err)
		}
		written, read := franz{}.tells()
		if err := same(rs, got, written.and(read)); err != nil {
			t.Fatalf("%s: %v", topic, err)
		}
	}
	write(before)

	b.again(t, "--shards", "1", "--listen-mode", "single", groupFlags[0], groupFlags[1], groupFlags[2], groupFlags[3])
	m := metadata(t, dialTo(t, b.addr()), before)
	if len(m.Brokers) != 1 || m.Brokers[0].NodeID != m.ControllerID || int(m.Brokers[0].Port) != b.port {
		t.Fatalf("nodes %+v, controller %d; want one, on port %d", m.Brokers, m.ControllerID, b.port)
	}
	for i := 1; i <= portsSpare+dataShards; i++ {
		if c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(b.port+i))); err == nil {
			c.Close()
			t.Errorf("port %d is open too", b.port+i)
		}
	}
	reads(before)
	single := topicName(t)
	write(single)
	t.Run("clients", func(t *testing.T) {
		eachClient(t, func(t *testing.T, name string, c client) {
			roundTrip(t, b, name, "franz-go", c, franz{}, "lz4", partitions)
		})
	})
	t.Run("groups", func(t *testing.T) {
		f := newFlock(t, b, groupPartitions)
		f.join = franzMember
		f.assignor = "cooperative-sticky"
		first, _ := f.member("")
		f.write(100)
		f.member("")
		f.sees()
		f.settles(2)
		who, err := adm.DescribeGroups(within(t, time.Minute), f.group)
		if err != nil || who.Error() != nil {
			t.Fatal(err, who.Error())
		}
		for _, m := range who[f.group].Members {
			if m.ClientID != "kgo" || m.ClientHost != "/127.0.0.1" || !strings.HasPrefix(m.MemberID, "kgo-") {
				t.Errorf("member %q of client %q at %q; it is kgo at /127.0.0.1", m.MemberID, m.ClientID, m.ClientHost)
			}
		}
		first()
		f.settles(1)
		f.write(50)
		f.sees()
	})
	t.Run("administration", func(t *testing.T) {
		ctx := within(t, time.Minute)
		d, err := adm.DescribeAllLogDirs(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		d.Each(func(d kadm.DescribedLogDir) { found += len(d.Topics[single]) })
		if found != partitions {
			t.Errorf("%d partitions in the log directories, want %d", found, partitions)
		}
		to := kadm.Offsets{}
		to.Add(kadm.Offset{Topic: single, Partition: 1, At: 2})
		deleted, err := adm.DeleteRecords(ctx, to)
		if err != nil || deleted.Error() != nil {
			t.Fatal(err, deleted.Error())
		}
		if r, _ := deleted.Lookup(single, 1); r.LowWatermark != 2 {
			t.Errorf("partition 1 starts at %d, want 2", r.LowWatermark)
		}
		if grown, err := adm.UpdatePartitions(ctx, partitions+2, single); err != nil || grown.Error() != nil {
			t.Error(err, grown.Error())
		}
		if brokers, err := adm.ListBrokers(ctx); err != nil || len(brokers) != 1 {
			t.Errorf("%v, %v", brokers, err)
		}
	})

	b.again(t)
	reads(before)
	ends, err := adm.ListEndOffsets(within(t, time.Minute), single)
	if err != nil || len(ends[single]) != partitions+2 {
		t.Fatalf("%d partitions, %v", len(ends[single]), err)
	}
	for p, n := range counts(rs, partitions) {
		if ends[single][int32(p)].Offset != int64(n) {
			t.Errorf("partition %d, written on one port, ends at %d, want %d", p, ends[single][int32(p)].Offset, n)
		}
	}
}

// TestAddresses: a broker that listens on all addresses of both families is reached by either, and says what --advertise told it to; one that listens
// on a name or an IPv6 address alone is found there.
func TestAddresses(t *testing.T) {
	needReal(t, "it is about addresses")
	if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skipf("no IPv6 here: %v", err)
	} else {
		l.Close()
	}
	b := ownBroker(t)
	port := strconv.Itoa(b.port)
	for _, x := range []struct {
		listen, advertise, host string
		reach                   []string
	}{
		{"[::]:" + port, "localhost", "localhost", []string{"127.0.0.1", "::1", "localhost"}},
		{":" + port, "::1", "::1", []string{"127.0.0.1", "::1"}},
		{"[::1]:" + port, "", "::1", []string{"::1"}},
		{"localhost:" + port, "", "localhost", []string{"localhost"}},
		{"0.0.0.0:" + port, "127.0.0.1", "127.0.0.1", []string{"127.0.0.1"}},
	} {
		t.Run(x.listen, func(t *testing.T) {
			if err := b.stop(); err != nil {
				t.Fatal(err)
			}
			b.flags = []string{"--listen", x.listen, "--advertise", x.advertise}
			b.host = x.reach[0]
			if err := b.start(); err != nil {
				t.Fatal(err)
			}
			for _, host := range x.reach {
				seed := net.JoinHostPort(host, port)
				m := metadata(t, dialTo(t, seed), "none")
				for _, n := range m.Brokers {
					if n.Host != x.host {
						t.Errorf("by %s: node %d is at %q, want %q", host, n.NodeID, n.Host, x.host)
					}
				}
				c, err := kgo.NewClient(kgo.SeedBrokers(seed), kgo.AllowAutoTopicCreation())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if err := c.ProduceSync(within(t, time.Minute), &kgo.Record{Topic: fmt.Sprintf("addresses.%d", topics.Add(1)), Value: []byte("v")}).FirstErr(); err != nil {
					t.Errorf("by %s: %v", host, err)
				}
			}
		})
	}
}

// TestConnectionLimits: connections to a node, and from one address, are limited; one beyond a limit is closed at once and logged with its address and the
// limit. The others are served, and one that closes makes room.
func TestConnectionLimits(t *testing.T) {
	needReal(t, "it has no such limits")
	b := ownBroker(t)
	b.again(t, "--max-connections", "6", "--max-connections-per-ip", "3", "--max-connections-per-ip-overrides", "127.0.0.3:1")
	from := func(address string) *wire {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
		c, err := d.Dial("tcp", b.addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return &wire{Conn: c}
	}
	serves := func(w *wire) error {
		_, err := w.ask(kmsg.NewPtrApiVersionsRequest())
		return err
	}
	var in []*wire
	come := func(address string) {
		t.Helper()
		// an earlier connection may not be closed yet
		for give := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			w := from(address)
			err := serves(w)
			if err == nil {
				in = append(in, w)
				return
			}
			if time.Now().After(give) {
				t.Fatalf("of %s: %v\n%s", address, err, b.out.tail())
			}
		}
	}
	refused := func(address, limit string) {
		t.Helper()
		if err := serves(from(address)); err == nil {
			t.Fatalf("one more of %s is served", address)
		}
		for give := time.Now().Add(10 * time.Second); !strings.Contains(b.out.tail(), "connection closed: "+address+" "+limit); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(give) {
				t.Fatalf("the log does not say that %s was refused:\n%s", address, b.out.tail())
			}
			serves(from(address)) // a line a second: it may be the next one's
		}
		for i, w := range in {
			if err := serves(w); err != nil {
				t.Fatalf("connection %d, which was there before: %v", i, err)
			}
		}
	}
	for range 3 {
		come("127.0.0.1")
	}
	refused("127.0.0.1", "has all it may have, max.connections.per.ip 3")
	come("127.0.0.3")
	refused("127.0.0.3", "has all it may have, max.connections.per.ip 1")
	come("127.0.0.2")
	come("127.0.0.2")
	refused("127.0.0.2", "comes when there are as many as may be, max.connections 6")
	in[0].Close()
	in = in[1:]
	come("127.0.0.2")
	configs, err := in[0].ask(describeBroker(0))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, c := range configs.(*kmsg.DescribeConfigsResponse).Resources[0].Configs {
		if c.Value != nil {
			got[c.Name] = *c.Value
		}
	}
	for name, want := range map[string]string{"max.connections": "6", "max.connections.per.ip": "3", "max.connections.per.ip.overrides": "127.0.0.3:1"} {
		if got[name] != want {
			t.Errorf("%s is described as %q, want %q", name, got[name], want)
		}
	}
}

func describeBroker(id int32) *kmsg.DescribeConfigsRequest {
	r := kmsg.NewPtrDescribeConfigsRequest()
	r.Version = 4
	x := kmsg.NewDescribeConfigsRequestResource()
	x.ResourceType, x.ResourceName = kmsg.ConfigResourceTypeBroker, strconv.Itoa(int(id))
	r.Resources = append(r.Resources, x)
	return r
}

// TestListeners: of several listeners each is told, in Metadata, DescribeCluster and FindCoordinator, of the nodes as they are reached by it; all lead to the
// same topics and groups.
func TestListeners(t *testing.T) {
	needReal(t, "it is about ports")
	b := ownBroker(t)
	for _, mode := range []string{"shards", "single"} {
		t.Run(mode, func(t *testing.T) {
			second, err := freePorts(1 + dataShards)
			if err != nil {
				t.Fatal(err)
			}
			inside, outside := fmt.Sprintf("127.0.0.1:%d", b.port), fmt.Sprintf("localhost:%d", second)
			flags := []string{"--listen", "INSIDE=" + inside + ",OUTSIDE=0.0.0.0:" + strconv.Itoa(second), "--advertise", "OUTSIDE=localhost", groupFlags[0], groupFlags[1], groupFlags[2], groupFlags[3]}
			nodes := 1 + dataShards
			if mode == "single" {
				flags, nodes = append(flags, "--listen-mode", "single", "--shards", "1"), 1
			}
			b.again(t, flags...)
			topic := topicName(t)
			createTopic(t, b, topic, 3)
			for i, x := range []struct{ seed, host string }{{inside, "127.0.0.1"}, {outside, "localhost"}} {
				_, port, _ := net.SplitHostPort(x.seed)
				first, _ := strconv.Atoi(port)
				m := metadata(t, dialTo(t, x.seed), topic)
				d := mustAsk[*kmsg.DescribeClusterResponse](t, dialTo(t, x.seed), kmsg.NewPtrDescribeClusterRequest())
				if len(m.Brokers) != nodes || len(d.Brokers) != nodes {
					t.Fatalf("by %s there are %d and %d nodes", x.seed, len(m.Brokers), len(d.Brokers))
				}
				for k, n := range m.Brokers {
					if n.Host != x.host || int(n.Port) != first+k || d.Brokers[k].Host != x.host || d.Brokers[k].Port != n.Port {
						t.Errorf("by %s node %d is at %s:%d, or %s:%d; want %s:%d", x.seed, n.NodeID, n.Host, n.Port, d.Brokers[k].Host, d.Brokers[k].Port, x.host, first+k)
					}
					// A data shard hands the question on, with the listener it came by.
					by := metadata(t, dialTo(t, net.JoinHostPort(n.Host, strconv.Itoa(int(n.Port)))), topic)
					if by.Brokers[0].Host != x.host || int(by.Brokers[0].Port) != first {
						t.Errorf("by node %d at %s the first is at %s:%d", n.NodeID, x.seed, by.Brokers[0].Host, by.Brokers[0].Port)
					}
				}
				f := kmsg.NewPtrFindCoordinatorRequest()
				f.Version, f.CoordinatorKeys = 4, []string{"g"}
				if c := mustAsk[*kmsg.FindCoordinatorResponse](t, dialTo(t, x.seed), f).Coordinators[0]; c.Host != x.host || int(c.Port) != first {
					t.Errorf("by %s the coordinator is at %s:%d", x.seed, c.Host, c.Port)
				}
				c, err := kgo.NewClient(kgo.SeedBrokers(x.seed), kgo.ConsumerGroup("g."+topic+x.host), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				ctx := within(t, time.Minute)
				if err := c.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte(x.seed)}).FirstErr(); err != nil {
					t.Fatal(err)
				}
				seen := map[string]bool{}
				for len(seen) <= i && ctx.Err() == nil {
					c.PollFetches(ctx).EachRecord(func(r *kgo.Record) { seen[string(r.Value)] = true })
				}
				if !seen[x.seed] || i == 1 && !seen[inside] {
					t.Errorf("by %s were read %v", x.seed, seen)
				}
			}
			c := brokerConfigOf(t, admin(t, b), "advertised.listeners", 0)
			if want := "INSIDE://" + inside + ",OUTSIDE://" + outside; c.MaybeValue() != want {
				t.Errorf("advertised.listeners is %s, want %s", c.MaybeValue(), want)
			}
		})
	}
}
