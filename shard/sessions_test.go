package shard

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/mem"
)

// sessionClient speaks Fetch to a hotShard, request by request.
type sessionClient struct {
	*hotShard
	t       *testing.T
	version int16
	read    int // bytes of what was sent that were taken
}

// ask is a request: a session, and where to read of which partitions.
type ask struct {
	id, epoch int32
	topic     string // "hot" where empty
	topicID   [16]byte
	from      map[int32]int64
	forget    []int32
	maxBytes  int32
	wait      int32
	minBytes  int32
}

func (c *sessionClient) frame(f ask) []byte {
	r := kmsg.NewPtrFetchRequest()
	r.ReplicaID, r.MaxWaitMillis, r.MinBytes, r.MaxBytes = -1, f.wait, max(f.minBytes, 1), 1<<20
	if f.maxBytes > 0 {
		r.MaxBytes = f.maxBytes
	}
	r.SessionID, r.SessionEpoch = f.id, f.epoch
	name, id := "hot", hotID
	if f.topic != "" {
		name, id = f.topic, f.topicID
	}
	if len(f.from) > 0 {
		rt := kmsg.NewFetchRequestTopic()
		rt.Topic, rt.TopicID = name, id
		for _, i := range slices.Sorted(maps.Keys(f.from)) {
			rp := kmsg.NewFetchRequestTopicPartition()
			rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes, rp.CurrentLeaderEpoch = i, f.from[i], 1<<20, -1
			rt.Partitions = append(rt.Partitions, rp)
		}
		r.Topics = append(r.Topics, rt)
	}
	if len(f.forget) > 0 {
		rf := kmsg.NewFetchRequestForgottenTopic()
		rf.Topic, rf.TopicID, rf.Partitions = name, id, f.forget
		r.ForgottenTopics = append(r.ForgottenTopics, rf)
	}
	return frameOf(r, c.version, 9)
}

// next is the next answer.
func (c *sessionClient) next(resp kmsg.Response) {
	c.t.Helper()
	for range 2000 {
		b := c.ring.sent[c.read:]
		if len(b) >= 4 && len(b) >= 4+int(binary.BigEndian.Uint32(b)) {
			n := 4 + int(binary.BigEndian.Uint32(b))
			c.read += n
			b = b[8:n]
			if resp.IsFlexible() {
				b = b[1:]
			}
			if err := resp.ReadFrom(b); err != nil {
				c.t.Fatal(err)
			}
			return
		}
		c.turn()
	}
	c.t.Fatal("no answer")
}

func (c *sessionClient) answer() *kmsg.FetchResponse {
	c.t.Helper()
	resp := kmsg.NewPtrFetchResponse()
	resp.SetVersion(c.version)
	c.next(resp)
	return resp
}

func (c *sessionClient) ask(f ask) *kmsg.FetchResponse {
	c.t.Helper()
	c.ring.say(c.frame(f))
	return c.answer()
}

// produce appends one record of n bytes.
func (c *sessionClient) produce(partition int32, n int) {
	c.t.Helper()
	r := kmsg.NewPtrProduceRequest()
	r.Acks, r.TimeoutMillis = -1, 1000
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic = "hot"
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Partition, rp.Records = partition, kafka.AppendBatch(nil, 1_700_000_000_000, nil, make([]byte, n))
	rt.Partitions = append(rt.Partitions, rp)
	r.Topics = append(r.Topics, rt)
	c.ring.say(frameOf(r, 8, 7))
	resp := kmsg.NewPtrProduceResponse()
	resp.SetVersion(8)
	c.next(resp)
	if code := resp.Topics[0].Partitions[0].ErrorCode; code != 0 {
		c.t.Fatalf("produce: error %d", code)
	}
}

// said writes down an answer: its error, and of each partition the error, the
// high watermark, the log start, and whether there are records.
func said(r *kmsg.FetchResponse) string {
	out := ""
	if r.ErrorCode != 0 {
		out = fmt.Sprintf("error %d", r.ErrorCode)
	}
	for _, t := range r.Topics {
		for _, p := range t.Partitions {
			if out != "" {
				out += ", "
			}
			out += fmt.Sprintf("%d:", p.Partition)
			if p.ErrorCode != 0 {
				out += fmt.Sprintf(" error %d", p.ErrorCode)
			} else {
				out += fmt.Sprintf(" %d-%d", p.LogStartOffset, p.HighWatermark)
			}
			if len(p.RecordBatches) > 0 {
				out += " records"
			}
		}
	}
	return out
}

func (c *sessionClient) expect(what string, f ask, id int32, want string) *kmsg.FetchResponse {
	c.t.Helper()
	r := c.ask(f)
	if got := said(r); got != want || r.SessionID != id {
		c.t.Fatalf("%s: session %d, %q; want %d, %q", what, r.SessionID, got, id, want)
	}
	return r
}

func (c *sessionClient) begin(from map[int32]int64) int32 {
	c.t.Helper()
	r := c.ask(ask{from: from})
	if r.ErrorCode != 0 || r.SessionID <= 0 {
		c.t.Fatalf("no session: %+v", r)
	}
	return r.SessionID
}

func newSessionClient(t *testing.T, version int16, partitions int) *sessionClient {
	return &sessionClient{hotShard: newHotShardOf(t, hotArenaBytes, 4096, partitions), t: t, version: version}
}

// What a session says and does not say, step by step.
func TestFetchSession(t *testing.T) {
	for _, version := range []int16{7, 11, 12, 13, 18} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			c := newSessionClient(t, version, 4)
			r := c.ask(ask{from: map[int32]int64{0: 0, 1: 0, 2: 0}})
			id := r.SessionID
			if said(r) != "0: 0-0, 1: 0-0, 2: 0-0" || id <= 0 {
				t.Fatalf("the first fetch: session %d, %s", id, said(r))
			}
			c.expect("nothing is new", ask{id: id, epoch: 1}, id, "")
			c.produce(1, 10)
			c.expect("one partition has a record", ask{id: id, epoch: 2}, id, "1: 0-1 records")
			c.expect("it was not taken", ask{id: id, epoch: 3}, id, "1: 0-1 records")
			c.expect("it was", ask{id: id, epoch: 4, from: map[int32]int64{1: 1}}, id, "")
			c.expect("an old epoch", ask{id: id, epoch: 4}, 0, "error 71")
			c.expect("an epoch to come", ask{id: id, epoch: 9}, 0, "error 71")
			c.expect("no such session", ask{id: id ^ 1<<20, epoch: 5}, 0, "error 70")
			c.expect("nor without one", ask{epoch: 5}, 0, "error 70")
			c.produce(0, 10)
			c.produce(3, 10)
			c.expect("another is named", ask{id: id, epoch: 5, from: map[int32]int64{3: 1}, forget: []int32{0}}, id, "3: 0-1")
			c.expect("one is forgotten", ask{id: id, epoch: 6}, id, "")
			c.expect("out of range", ask{id: id, epoch: 7, from: map[int32]int64{2: 5}}, id, "2: error 1")
			c.expect("still", ask{id: id, epoch: 8}, id, "2: error 1")
			c.expect("well again", ask{id: id, epoch: 9, from: map[int32]int64{2: 0}}, id, "2: 0-0")
			c.expect("no such partition", ask{id: id, epoch: 10, from: map[int32]int64{9: 0}}, id, "9: error 3")
			c.expect("still not", ask{id: id, epoch: 11}, id, "9: error 3")
			c.expect("forgotten, and another never asked for", ask{id: id, epoch: 12, forget: []int32{9, 0}}, id, "")

			other := *c
			other.version = 12
			if version < 13 {
				other.version = 13
			}
			got := other.ask(ask{id: id, epoch: 13})
			if got.ErrorCode != 106 {
				t.Fatalf("names where ids were, or ids where names were: error %d", got.ErrorCode)
			}
			c.read = other.read

			x := &c.s.sessions.all[c.s.sessions.find(id)]
			x.epoch = math.MaxInt32
			c.expect("the last epoch", ask{id: id, epoch: math.MaxInt32}, id, "")
			c.expect("the one after it", ask{id: id, epoch: 1}, id, "")
			c.expect("none is left", ask{id: id, epoch: 2, forget: []int32{1, 2, 3}}, 0, "")
			c.expect("so it is gone", ask{id: id, epoch: 3}, 0, "error 70")

			id = c.begin(map[int32]int64{0: 1})
			c.expect("without a session", ask{epoch: -1, from: map[int32]int64{0: 1}}, 0, "0: 0-1")
			c.expect("which ends none", ask{id: id, epoch: 1}, id, "")
			c.expect("but the one named", ask{id: id, epoch: -1}, 0, "")
			c.expect("is ended", ask{id: id, epoch: 2}, 0, "error 70")
			id = c.begin(map[int32]int64{0: 1})
			r = c.ask(ask{id: id, epoch: 0, from: map[int32]int64{1: 1}})
			if r.SessionID <= 0 || r.SessionID == id || said(r) != "1: 0-1" {
				t.Fatalf("a new one in place of the old: session %d, %s", r.SessionID, said(r))
			}
			c.expect("the old one", ask{id: id, epoch: 1}, 0, "error 70")
			if n := c.s.sessions.n; n != 1 {
				t.Fatalf("%d sessions", n)
			}
			c.expect("and the new", ask{id: r.SessionID, epoch: -1}, 0, "")
			if q := &c.s.sessions; q.n != 0 || q.membersFree != len(q.members) {
				t.Fatalf("%d sessions and %d partitions are left over", q.n, len(q.members)-q.membersFree)
			}
		})
	}
}

// Partitions that gave records go behind the others.
func TestFetchSessionTakesTurns(t *testing.T) {
	c := newSessionClient(t, 11, 3)
	for range 4 {
		for p := range int32(3) {
			c.produce(p, 1000)
		}
	}
	from := map[int32]int64{0: 0, 1: 0, 2: 0}
	id := c.ask(ask{from: from, maxBytes: 1}).SessionID
	seen := ""
	change := map[int32]int64{}
	for epoch := range int32(9) {
		r := c.ask(ask{id: id, epoch: epoch + 1, maxBytes: 1, from: change})
		if len(r.Topics) != 1 || len(r.Topics[0].Partitions) != 1 {
			t.Fatalf("epoch %d: %s", epoch+1, said(r))
		}
		p := r.Topics[0].Partitions[0].Partition
		from[p]++
		change = map[int32]int64{p: from[p]}
		seen += fmt.Sprint(p)
	}
	if seen != "012012012" {
		t.Fatalf("the partitions' turns were %s", seen)
	}
}

// A fetch of a session waits like another, and what it looks at does not depend
// on how much the session holds.
func TestFetchSessionWaits(t *testing.T) {
	const partitions = 1000
	c := newSessionClient(t, 12, partitions)
	from := map[int32]int64{}
	for i := range int32(partitions) {
		from[i] = 0
	}
	id := c.begin(from)
	c.expect("all are looked at once more", ask{id: id, epoch: 1}, id, "")
	before := c.s.Timelines.Counters.PartitionsLookedAt
	epoch := int32(2)
	change := map[int32]int64{}
	for round := range int64(50) {
		p := int32(round*7) % partitions
		c.ring.say(c.frame(ask{id: id, epoch: epoch, from: change, wait: 60_000}))
		for range 5 {
			c.turn()
		}
		if c.s.fetches.polls.n != 1 {
			t.Fatalf("round %d: %d fetches wait", round, c.s.fetches.polls.n)
		}
		if free := c.s.requests.credit.free; free != c.s.requests.credit.all {
			t.Fatalf("round %d: a fetch of a session holds %d parts while it waits", round, c.s.requests.credit.all-free)
		}
		// The answers of one connection keep their order: the fetch's comes first.
		r := kmsg.NewPtrProduceRequest()
		r.Acks = 0
		rt := kmsg.NewProduceRequestTopic()
		rt.Topic = "hot"
		rp := kmsg.NewProduceRequestTopicPartition()
		rp.Partition, rp.Records = p, kafka.AppendBatch(nil, 1_700_000_000_000, nil, []byte("record"))
		rt.Partitions = append(rt.Partitions, rp)
		r.Topics = append(r.Topics, rt)
		c.ring.say(frameOf(r, 8, 7))
		resp := c.answer()
		if want := fmt.Sprintf("%d: 0-%d records", p, from[p]+1); said(resp) != want || resp.SessionID != id {
			t.Fatalf("round %d: %q, want %q", round, said(resp), want)
		}
		from[p]++
		change = map[int32]int64{p: from[p]}
		epoch++
	}
	if n := c.s.Timelines.Counters.PartitionsLookedAt - before; n > 50*5 {
		t.Fatalf("%d partitions were looked at in 50 rounds with one append each", n)
	}
	// Another fetch of the session ends the one that waits.
	c.ring.say(c.frame(ask{id: id, epoch: epoch, from: change, wait: 60_000}))
	for range 5 {
		c.turn()
	}
	c.ring.say(c.frame(ask{id: id, epoch: epoch + 1}))
	if r := c.answer(); r.ErrorCode != 71 || len(r.Topics) != 0 {
		t.Fatalf("the fetch that waited: error %d, %s", r.ErrorCode, said(r))
	}
	if r := c.answer(); r.ErrorCode != 0 || said(r) != "" || r.SessionID != id {
		t.Fatalf("the fetch after it: session %d, %s", r.SessionID, said(r))
	}
	// So does a Fetch that ends the session.
	c.ring.say(c.frame(ask{id: id, epoch: epoch + 2, wait: 60_000}))
	for range 5 {
		c.turn()
	}
	c.ring.say(c.frame(ask{id: id, epoch: -1}))
	if r := c.answer(); r.ErrorCode != 70 {
		t.Fatalf("the fetch whose session ended: error %d, %s", r.ErrorCode, said(r))
	}
	if r := c.answer(); r.ErrorCode != 0 || r.SessionID != 0 {
		t.Fatalf("the end: %+v", r)
	}
	if q := &c.s.sessions; q.n != 0 || q.membersFree != len(q.members) || c.s.fetches.polls.n != 0 {
		t.Fatalf("%d sessions, %d partitions, %d fetches are left over", q.n, len(q.members)-q.membersFree, c.s.fetches.polls.n)
	}
}

// min_bytes counts what comes to all partitions of a session, and what came
// before the fetch.
func TestFetchSessionCounts(t *testing.T) {
	c := newSessionClient(t, 11, 3)
	id := c.begin(map[int32]int64{0: 0, 1: 0, 2: 0})
	batch := len(kafka.AppendBatch(nil, 0, nil, make([]byte, 1000)))
	c.produce(0, 1000)
	c.ring.say(c.frame(ask{id: id, epoch: 1, wait: 60_000, minBytes: int32(4*batch - 20)}))
	acks0 := func(p int32) {
		r := kmsg.NewPtrProduceRequest()
		rt := kmsg.NewProduceRequestTopic()
		rt.Topic = "hot"
		rp := kmsg.NewProduceRequestTopicPartition()
		rp.Partition, rp.Records = p, kafka.AppendBatch(nil, 1_700_000_000_000, nil, make([]byte, 1000))
		rt.Partitions = append(rt.Partitions, rp)
		r.Topics = append(r.Topics, rt)
		c.ring.say(frameOf(r, 8, 7))
		for range 20 {
			c.turn()
		}
	}
	for _, p := range []int32{1, 1} {
		acks0(p)
		if c.s.fetches.polls.n != 1 {
			t.Fatal("it does not wait for what it asked for")
		}
	}
	acks0(0)
	if got, want := said(c.answer()), "0: 0-2 records, 1: 0-2 records"; got != want {
		t.Fatalf("%q, want %q", got, want)
	}
}

// hear has the shard hear of something from the control shard.
func (c *sessionClient) hear(x Mail) {
	if !c.post.toData[1].put(x) {
		c.t.Fatal("no room for mail")
	}
	for range 50 {
		c.turn()
	}
}

func (c *sessionClient) topic(name string, id [16]byte, number, partitions int) {
	arena, err := mem.Map(1<<20, mem.Options{})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { arena.Unmap() })
	topic := &cluster.Topic{Name: name, ID: id}
	told := AppendTopicMail(nil, topic, cluster.New().LogConfig(topic, 1))
	b, err := arena.Allocate("topic", len(told), 64)
	if err != nil {
		c.t.Fatal(err)
	}
	copy(b.Bytes(), told)
	c.hear(Mail{Kind: MailTopic, A: uint64(partitions), B: uint64(number), Block: b})
	for i := range partitions {
		c.hear(Mail{Kind: MailOpen, A: uint64(1000*(number+1) + i), B: uint64(number)<<32 | uint64(i)})
	}
}

// A topic of a session is deleted, and one of its name is made.
func TestFetchSessionOfATopicThatGoes(t *testing.T) {
	for _, version := range []int16{11, 13} {
		for _, waiting := range []bool{false, true} {
			t.Run(fmt.Sprint(version, waiting), func(t *testing.T) {
				c := newSessionClient(t, version, 2)
				c.topic("other", [16]byte{2}, 1, 1)
				c.produce(0, 10)
				id := c.begin(map[int32]int64{0: 1, 1: 0})
				other := ask{id: id, epoch: 1, topic: "other", topicID: [16]byte{2}, from: map[int32]int64{0: 0}}
				c.expect("two topics", other, id, "0: 0-0")
				gone := "0: error 3, 1: error 3"
				if version >= 13 {
					gone = "0: error 100, 1: error 100"
				}
				if waiting {
					c.ring.say(c.frame(ask{id: id, epoch: 2, wait: 60_000}))
					for range 5 {
						c.turn()
					}
				}
				c.hear(Mail{Kind: MailForget, B: 0})
				c.hear(Mail{Kind: MailDelete, A: 2})
				c.hear(Mail{Kind: MailDelete, A: 3})
				if waiting {
					// A Fetch that waits is answered as soon as the first is deleted.
					if r := c.answer(); len(r.Topics) == 0 || r.Topics[0].Partitions[0].ErrorCode == 0 || r.ErrorCode != 0 {
						t.Fatalf("the Fetch that waited was answered %q", said(r))
					}
					epoch := int32(3)
					r := c.ask(ask{id: id, epoch: epoch})
					seen := map[int32]bool{}
					for _, x := range r.Topics {
						for _, p := range x.Partitions {
							seen[p.Partition] = p.ErrorCode != 0
						}
					}
					if !seen[0] || !seen[1] || r.SessionID != id {
						t.Fatalf("after it: %q", said(r))
					}
					return
				}
				r := c.ask(ask{id: id, epoch: 2})
				if said(r) != gone && said(r) != "1"+gone[1:len(gone)/2-1]+", 0"+gone[1:len(gone)/2-1] {
					t.Fatalf("deleted: %q", said(r))
				}
				for _, x := range r.Topics {
					if version < 13 && x.Topic != "hot" || version >= 13 && x.TopicID != hotID {
						t.Fatalf("it is called %q %x", x.Topic, x.TopicID)
					}
				}
				c.topic("hot", [16]byte{3}, 2, 2)
				if version < 13 {
					// Offset 1 is not in the new log; partition 1 is read on from 0.
					r := c.ask(ask{id: id, epoch: 3, forget: []int32{0}})
					if said(r) != "1: 0-0" {
						t.Fatalf("made again: %q", said(r))
					}
					c.produce(1, 10)
					c.expect("a record in it", ask{id: id, epoch: 4}, id, "1: 0-1 records")
					c.expect("named by the same name", ask{id: id, epoch: 5, from: map[int32]int64{1: 1}}, id, "")
				} else {
					r := c.ask(ask{id: id, epoch: 3, forget: []int32{0}})
					if said(r) != "1: error 100" {
						t.Fatalf("made again, with another id: %q", said(r))
					}
					c.expect("forgotten", ask{id: id, epoch: 4, forget: []int32{1}}, id, "")
					c.expect("the new one", ask{id: id, epoch: 5, topic: "hot", topicID: [16]byte{3}, from: map[int32]int64{1: 0}}, id, "1: 0-0")
				}
			})
		}
	}
}

// A topic that is not known has no place in a session.
func TestFetchSessionOfAnUnknownTopic(t *testing.T) {
	c := newSessionClient(t, 11, 1)
	c.expect("a first fetch", ask{topic: "nobody", from: map[int32]int64{0: 0}}, 0, "0: error 3")
	id := c.begin(map[int32]int64{0: 0})
	c.expect("a session is ended by it", ask{id: id, epoch: 1, topic: "nobody", from: map[int32]int64{0: 0}}, 0, "error 70")
	if c.s.sessions.n != 0 {
		t.Fatal("it is still there")
	}
}

// A session is notified once of a new log start.
func TestFetchSessionTellsOfANewStart(t *testing.T) {
	c := newSessionClient(t, 11, 2)
	for range 3 {
		c.produce(0, 10)
	}
	id := c.begin(map[int32]int64{0: 3, 1: 0})
	c.expect("nothing is new", ask{id: id, epoch: 1}, id, "")
	c.hear(Mail{Kind: MailTruncate, A: 2, B: 2, Serial: 1})
	c.expect("a new start", ask{id: id, epoch: 2}, id, "0: 2-3")
	c.expect("known", ask{id: id, epoch: 3}, id, "")
	c.expect("before it", ask{id: id, epoch: 4, from: map[int32]int64{0: 1}}, id, "0: error 1")
}

// Kafka's rules for which session is evicted: a session not used for two minutes, the least
// recently used first; else one older than that which is smaller than the new
// one, the smallest first; else none, and there is no new one.
func TestFetchSessionsMakeRoom(t *testing.T) {
	c := newSessionClient(t, 11, 4)
	q := &c.s.sessions
	trim := func() { c.ring.sent, c.read = c.ring.sent[:0], 0 }
	var ids []int32
	for i := range len(q.all) {
		from := map[int32]int64{0: 0, 1: 0}
		if i == 7 {
			from = map[int32]int64{2: 0}
		}
		ids = append(ids, c.begin(from))
		trim()
	}
	full := map[int32]int64{0: 0, 1: 0, 2: 0, 3: 0}
	c.expect("none is old", ask{from: full}, 0, "0: 0-0, 1: 0-0, 2: 0-0, 3: 0-0")
	for range 2 { // all are used, the second time when they are old
		c.now += sessionEvictNS/2 + 1e9
		for i, id := range ids {
			c.expect("used", ask{id: id, epoch: c.s.sessions.all[q.find(id)].epoch}, id, "")
			if i%100 == 0 {
				trim()
			}
		}
	}
	trim()
	c.expect("none is smaller", ask{from: map[int32]int64{1: 0}}, 0, "1: 0-0")
	a := c.begin(full)
	if q.find(ids[7]) != none || q.n != len(q.all) {
		t.Fatal("the smallest is still there")
	}
	c.begin(full)
	if q.find(a) == none || q.find(ids[0]) != none {
		t.Fatal("a young one had to go, or not the first of the smallest")
	}
	c.expect("used", ask{id: a, epoch: 1}, a, "")
	c.now += sessionEvictNS - 3e9
	c.expect("used", ask{id: ids[1], epoch: c.s.sessions.all[q.find(ids[1])].epoch}, ids[1], "")
	c.now += 5e9
	c.begin(map[int32]int64{1: 0})
	if q.find(ids[1]) == none || q.find(ids[2]) != none {
		t.Fatal("not the least recently used had to go")
	}
}

// The room for partitions is bounded too.
func TestFetchSessionsShareTheRoom(t *testing.T) {
	c := newSessionClient(t, 11, 1000)
	q := &c.s.sessions
	from := map[int32]int64{}
	for i := range int32(1000) {
		from[i] = 0
	}
	got := 0
	for {
		c.ring.sent, c.read = c.ring.sent[:0], 0
		r := c.ask(ask{from: from})
		if len(r.Topics[0].Partitions) != 1000 {
			t.Fatalf("%d partitions were answered", len(r.Topics[0].Partitions))
		}
		if r.SessionID == 0 {
			break
		}
		got++
	}
	if got != len(q.members)/1000 {
		t.Fatalf("%d sessions of 1000 partitions, with room for %d partitions", got, len(q.members))
	}
	if r := c.ask(ask{from: map[int32]int64{5: 0}}); r.SessionID == 0 && q.membersFree > 0 {
		t.Fatal("a small one finds no room, and there is some")
	}
}

// Against a model that looks at everything: what a session says is what has
// records, a new high watermark, or an error.
func TestFetchSessionAgainstAModel(t *testing.T) {
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 1))
		c := newSessionClient(t, []int16{11, 13}[seed%2], 12)
		type view struct{ from, told int64 }
		session, high := map[int32]*view{}, map[int32]int64{}
		id, epoch := int32(0), int32(0)
		for round := range 400 {
			c.ring.sent, c.read = c.ring.sent[:0], 0
			for range rng.IntN(3) {
				p := rng.Int32N(12)
				c.produce(p, 10)
				high[p]++
			}
			f := ask{id: id, epoch: epoch, from: map[int32]int64{}, wait: 5}
			if id == 0 || rng.IntN(40) == 0 {
				f.epoch, epoch = 0, 0
				clear(session)
			}
			for p := range int32(12) {
				x := session[p]
				switch {
				case x == nil && (f.epoch == 0 || rng.IntN(5) == 0):
					session[p] = &view{told: -1}
					session[p].from = rng.Int64N(high[p] + 1)
					f.from[p] = session[p].from
				case x == nil:
				case rng.IntN(8) == 0 && f.epoch > 0 && len(session) > 1:
					delete(session, p)
					f.forget = append(f.forget, p)
				case rng.IntN(2) == 0:
					x.from = rng.Int64N(high[p] + 2) // one beyond may be asked for
					f.from[p] = x.from
				}
			}
			r := c.ask(f)
			got, want := map[int32]string{}, map[int32]string{}
			for _, x := range r.Topics {
				for _, p := range x.Partitions {
					got[p.Partition] = fmt.Sprint(p.ErrorCode, p.HighWatermark, len(p.RecordBatches) > 0)
				}
			}
			for p, x := range session {
				switch {
				case x.from > high[p]:
					want[p] = fmt.Sprint(1, -1, false)
					x.told = -1
				case f.epoch == 0 || x.from < high[p] || x.told != high[p]:
					want[p] = fmt.Sprint(0, high[p], x.from < high[p])
					x.told = high[p]
				}
			}
			if !maps.Equal(got, want) || r.ErrorCode != 0 || r.SessionID == 0 {
				t.Fatalf("seed %d, round %d, %+v:\nsession %d, error %d, got %v\nwant %v", seed, round, f, r.SessionID, r.ErrorCode, got, want)
			}
			id, epoch = r.SessionID, epoch+1
		}
		if q := &c.s.sessions; q.n != 1 || q.membersFree != len(q.members)-len(session) {
			t.Fatalf("seed %d: %d sessions, %d partitions of %d", seed, q.n, len(q.members)-q.membersFree, len(session))
		}
	}
}

// A session's fetches allocate nothing either.
func TestFetchSessionAllocatesNothing(t *testing.T) {
	c := newSessionClient(t, 12, 8)
	id := c.begin(map[int32]int64{0: 0, 1: 0, 2: 0, 3: 0})
	const mark, where = 0x11223344, 0x1122334455667788
	produce := produceFrame(8, 0, make([]byte, 100))
	fetch := c.frame(ask{id: id, epoch: mark, wait: 500, from: map[int32]int64{0: where}, forget: []int32{5}})
	at, offsetAt := -1, -1
	for i := range fetch[:len(fetch)-8] {
		if binary.BigEndian.Uint32(fetch[i:]) == mark && at < 0 {
			at = i
		}
		if binary.BigEndian.Uint64(fetch[i:]) == where {
			offsetAt = i
		}
	}
	epoch, offset := uint32(1), uint64(0)
	step := func() {
		c.ring.sent = c.ring.sent[:0]
		before := c.ring.replies
		binary.BigEndian.PutUint32(fetch[at:], epoch)
		binary.BigEndian.PutUint64(fetch[offsetAt:], offset)
		c.ring.say(fetch)
		c.turn()
		c.turn()
		c.ring.say(produce)
		for range 100 {
			if c.ring.replies > before {
				break
			}
			c.turn()
		}
		c.turn()
		if len(c.ring.sent) < 150 {
			t.Fatalf("epoch %d: % x", epoch, c.ring.sent)
		}
		epoch++
		offset++
	}
	for range 200 {
		step()
	}
	if n := testing.AllocsPerRun(400, step); n != 0 {
		t.Errorf("%v allocations for a fetch of a session", n)
	}
	begin := c.frame(ask{from: map[int32]int64{1: 0, 2: 0}})
	if n := testing.AllocsPerRun(50, func() {
		c.ring.sent = c.ring.sent[:0]
		c.ring.say(begin)
		for range 4 {
			c.turn()
		}
	}); n != 0 || c.s.sessions.n < 50 {
		t.Errorf("%v allocations for a new session", n)
	}
}

// A partition for which an answer has no room is told of all the same where it
// cannot be read from its offset.
func TestFetchBeyondItsRoomIsOutOfRange(t *testing.T) {
	c := newSessionClient(t, 11, 2)
	c.produce(0, 1000)
	c.produce(1, 1000)
	c.expect("there is no room for the second", ask{epoch: -1, from: map[int32]int64{0: 0, 1: 0}, maxBytes: 1}, 0, "0: 0-1 records, 1: 0-1")
	c.expect("nor could it be read", ask{epoch: -1, from: map[int32]int64{0: 0, 1: 5}, maxBytes: 1}, 0, "0: 0-1 records, 1: error 1")
}
