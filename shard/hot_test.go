package shard

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"runtime"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/engine/recovery"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/mem"
	"github.com/tailbound/tailbound/netring"
)

// calm is a ring on which every operation succeeds in the next turn, with one
// connection whose peer is the test. It allocates nothing, so that what
// allocates is the shard.
type calm struct {
	out      []ioring.Completion
	n        int
	provided []ioring.Op // receive buffers lent to the ring
	accept   ioring.Token
	receive  ioring.Token
	dialled  bool
	sent     []byte // what the peer has been sent
	replies  int    // Send operations
	writes   int
}

const (
	calmSocket    = 900
	hotArenaBytes = 64 << 20
)

var hotID = [16]byte([]byte("0123456789abcdef"))

func (c *calm) Room() int           { return len(c.out) - c.n }
func (c *calm) Wait(ioring.Instant) {}

func (c *calm) complete(x ioring.Completion) {
	c.out[c.n] = x
	c.n++
}

func (c *calm) Push(op ioring.Op) bool {
	if c.n == len(c.out) {
		return false
	}
	done := ioring.Completion{Token: op.Token}
	switch op.Code {
	case ioring.Provide:
		c.provided = append(c.provided, op)
		return true
	case ioring.Accept:
		c.accept = op.Token
		if !c.dialled {
			c.dialled = true
			c.complete(ioring.Completion{Token: op.Token, Result: calmSocket, Flags: ioring.FlagMore})
		}
		return true
	case ioring.Recv:
		c.receive = op.Token
		return true
	case ioring.Write:
		c.writes++
		done.Result = int32(op.Buf.Len())
	case ioring.Read:
		clear(op.Buf.Bytes())
		done.Result = int32(op.Buf.Len())
	case ioring.Send:
		c.replies++
		for i := range int(op.Arg) {
			p := ioring.Piece(op.Buf, i)
			done.Result += int32(len(p))
			c.sent = append(c.sent, p...)
		}
	}
	c.complete(done)
	return true
}

func (c *calm) Reap(out []ioring.Completion) int {
	n := copy(out, c.out[:c.n])
	c.n = copy(c.out, c.out[n:c.n])
	return n
}

// say has the peer send b.
func (c *calm) say(b []byte) {
	for len(b) > 0 {
		op := c.provided[0]
		c.provided = append(c.provided[:0], c.provided[1:]...)
		k := copy(op.Buf.Bytes(), b)
		b = b[k:]
		c.complete(ioring.Completion{Token: c.receive, Result: int32(k), Flags: ioring.FlagBuffer | ioring.FlagMore | uint32(op.Arg)<<16})
	}
}

type mute struct{ t testing.TB }

func (m mute) Log(level Level, shard int, text []byte) {
	if level >= Warn {
		m.t.Logf("shard %d: %s", shard, text)
	}
}

// hotShard is data shard 1 of a broker, serving topic "hot" with one partition;
// the test is its control shard, its disk and its client.
type hotShard struct {
	s     *Shard
	ring  *calm
	post  *Post
	now   ioring.Instant
	arena *mem.Arena
}

func newHotShard(t testing.TB, arenaBytes, partitions int, configs ...cluster.Config) *hotShard {
	return newHotShardOf(t, arenaBytes, partitions, 1, configs...)
}

// newHotShardOf gives topic "hot" so many partitions.
func newHotShardOf(t testing.TB, arenaBytes, partitionsMax, partitions int, configs ...cluster.Config) *hotShard {
	features, err := ioring.Probe()
	if err != nil {
		t.Skipf("no io_uring: %v", err)
	}
	root, err := unix.Open(t.TempDir(), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	o := hotOptions(arenaBytes, partitionsMax)
	boot := recoverEmpty(t, root, features.Mask, o.Engine)
	h := &hotShard{ring: &calm{out: make([]ioring.Completion, 8192), provided: make([]ioring.Op, 0, 1024), sent: make([]byte, 0, 4<<20)}, now: 1e9}
	if h.post, err = NewPost(1, 4096); err != nil {
		t.Fatal(err)
	}
	arena, err := mem.Map(arenaBytes, mem.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { arena.Unmap() })
	h.arena = arena
	if h.s, err = Open(World{Ring: h.ring, Arena: arena, Boot: boot, Post: h.post, API: &hotAPI, Log: mute{t}, Seed: 1}, o); err != nil {
		t.Fatal(err)
	}
	controls, err := mem.Map(1<<20, mem.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { controls.Unmap() })
	hot := &cluster.Topic{Name: "hot", ID: hotID, Configs: configs}
	told := AppendTopicMail(nil, hot, cluster.New().LogConfig(hot, 1))
	topic, err := controls.Allocate("topic", len(told), 64)
	if err != nil {
		t.Fatal(err)
	}
	copy(topic.Bytes(), told)
	mails := []Mail{{Kind: MailTopic, A: uint64(partitions), B: 0, Block: topic}}
	for i := range partitions {
		mails = append(mails, Mail{Kind: MailOpen, A: uint64(2 + i), B: uint64(i)})
	}
	for _, x := range append(mails, Mail{Kind: MailServe}) {
		if !h.post.toData[1].put(x) {
			t.Fatal("no room for mail")
		}
		for range 20 {
			h.turn()
		}
	}
	if h.ring.receive == 0 {
		t.Fatal("the shard does not listen")
	}
	return h
}

// hotAPI has the keys that a data shard answers itself; its ApiVersions is empty.
var hotAPI = API{Keys: [kafka.KeysMax]Served{
	kafka.KeyProduce:              {AtLeader, kafka.ProduceVersions},
	kafka.KeyFetch:                {AtLeader, kafka.FetchVersions},
	kafka.KeyListOffsets:          {AtLeader, kafka.ListOffsetsVersions},
	kafka.KeyOffsetForLeaderEpoch: {AtLeader, kafka.EpochVersions},
	kafka.KeyApiVersions:          {AtEveryNode, kafka.Versions{Max: kafka.ApiVersionsMax}},
}}

// hotOptions are those of data shard 1 with the sizes that production gives it.
func hotOptions(arenaBytes, partitionsMax int) Options {
	const requests, buffer = 2048, 64 << 10
	return Options{
		Shard: 1, DataShards: 1, Nodes: []Node{{0, "h", 1}, {1, "h", 2}}, ClusterID: "hot",
		MessageBytesMax: 1 << 20, PartitionsDefault: 1, TopicsMax: 64, PartitionsMax: partitionsMax, RetentionCheckNS: 1e6,
		ProducersMax: 16384, WaitersMax: max(16384, 4*partitionsMax), SessionsMax: SessionsMax, SessionPartitionsMax: arenaBytes / 32 / SessionPartitionBytes, MailBytes: min(4<<20, arenaBytes/32),
		Net: netring.Options{
			ConnsMax: 4096, RequestsMax: requests, PipelineMax: 256, ReceiveBufferBytes: buffer, ReceiveBuffers: arenaBytes / 4 / buffer, RequestBytesMax: arenaBytes / 16,
			ProgressTimeoutNS: 10e9, ReplyBlocks: arenaBytes / 32 / 4096, AttachedMax: 16 * requests,
		},
		Engine: engine.Options{
			LogsMax: max(64, partitionsMax), SegmentBytes: 4 << 20, JournalBytes: 4 << 20, LogMemoryBytes: arenaBytes, BatchBytesMax: 1 << 20,
			InflightMax: 2, DirectBytes: 64 << 10, Files: 8, FilesMax: 2048,
		},
	}
}

// recoverEmpty makes the data directory at root.
func recoverEmpty(t testing.TB, root int, features ioring.FeatureMask, o engine.Options) *engine.RecoveredState {
	arena, err := mem.Map(96<<20, mem.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer arena.Unmap()
	runtime.LockOSThread() // the ring's thread
	defer runtime.UnlockOSThread()
	ring, err := ioring.NewKernel(ioring.KernelOptions{Entries: 64, CQEntries: 256, Files: 8 + o.FilesMax, Sockets: 1, RootFD: root, Features: features, Buffered: true})
	if err != nil {
		t.Fatal(err)
	}
	defer ring.Close()
	o.LogMemoryBytes = 16 << 20
	boot, err := recovery.Recover(ring, arena, recovery.Options{Options: o, Shards: 1, Seed: [16]byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	return boot
}

func (h *hotShard) turn() {
	h.now += 20_000
	h.s.Turn(h.now, Wall(1_700_000_000_000+int64(h.now)/1e6))
	for { // there is no control shard that takes the mail
		if _, ok := h.post.toCtl[1].take(); !ok {
			return
		}
	}
}

// frame is req as a client sends it.
func frameOf(req kmsg.Request, version int16, correlation int32) []byte {
	req.SetVersion(version)
	client := "hot"
	b := kmsg.NewRequestFormatter(kmsg.FormatterClientID(client)).AppendRequest(nil, req, correlation)
	return b
}

func produceFrame(version, acks int16, record []byte) []byte {
	r := kmsg.NewPtrProduceRequest()
	r.Acks, r.TimeoutMillis = acks, 1000
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic = "hot"
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Records = kafka.AppendBatch(nil, 1_700_000_000_000, nil, record)
	rt.Partitions = append(rt.Partitions, rp)
	r.Topics = append(r.Topics, rt)
	return frameOf(r, version, 7)
}

// fetchFrame returns a Fetch and where its offset stands in it.
func fetchFrame(version int16, wait, min int32) (frame []byte, offsetAt int) {
	const mark = 0x1122334455667788
	r := kmsg.NewPtrFetchRequest()
	r.ReplicaID, r.MaxWaitMillis, r.MinBytes, r.MaxBytes = -1, wait, min, 1<<20
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic = "hot"
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.FetchOffset, rp.PartitionMaxBytes, rp.CurrentLeaderEpoch = mark, 1<<20, -1
	rt.Partitions = append(rt.Partitions, rp)
	r.Topics = append(r.Topics, rt)
	frame = frameOf(r, version, 9)
	for i := range frame {
		if i+8 <= len(frame) && binary.BigEndian.Uint64(frame[i:]) == mark {
			return frame, i
		}
	}
	panic("the offset is not in the frame")
}

// What is mapped beside the arena are tables of the shard, all of it.
func TestTablesAreWhatIsMapped(t *testing.T) {
	h := newHotShard(t, hotArenaBytes, 64)
	mapped := 0
	for _, table := range h.arena.Tables() {
		mapped += table.Bytes
	}
	found := 0
	for _, of := range []any{h.s.net, h.s.engine, h.s} {
		found += sumTables(h.arena, reflect.ValueOf(of).Elem())
	}
	if mapped == 0 || found != mapped {
		t.Errorf("%d bytes are mapped for tables, and the shard has %d", mapped, found)
	}
	if got := tables(h.arena, "", h.s.engine, nil); slices.ContainsFunc(got, func(p Pool) bool { return p.Name == "logs.all" }) {
		t.Errorf("mapped tables count as Go's heap too: %v", got)
	}
}

// sumTables sums the slices in a struct that are outside of Go's heap, and not in the arena.
func sumTables(arena *mem.Arena, value reflect.Value) (sum int) {
	switch value.Kind() {
	case reflect.Struct:
		for i := range value.NumField() {
			sum += sumTables(arena, value.Field(i))
		}
	case reflect.Slice:
		if arena.InTable(value.UnsafePointer()) {
			sum += value.Cap() * int(value.Type().Elem().Size())
		}
	}
	return sum
}

// A shard fits in every arena it is promised to, with as many partitions as
// there may be by default, and its pools are the whole of it.
func TestPoolsAreTheArena(t *testing.T) {
	for _, mib := range []int{64, 96, 128, 256, 512} {
		h := newHotShard(t, mib<<20, 4096)
		sum, log := 0, 0
		for _, c := range h.arena.Allocations() {
			sum += c.Bytes
			if c.What == "log memory" {
				log = c.Bytes
			}
		}
		used, all := h.arena.Used(), h.arena.Bytes()
		if sum > used || used-sum > 64<<10 || used > all || all-used > 4<<20+64<<10 {
			t.Errorf("%d MiB: pools of %d bytes, %d used of %d", mib, sum, used, all)
		}
		if log < all*3/8 {
			t.Errorf("%d MiB: log memory of %d bytes only", mib, log)
		}
	}
}

// From the bytes of a request to the Send operation of its reply a data shard
// allocates nothing, whatever the journal, the drain, checkpoints and eviction
// do in between.
func TestServingAllocatesNothing(t *testing.T) {
	for _, c := range []struct {
		name    string
		record  int
		parked  bool // the fetch comes before the record
		configs []cluster.Config
	}{
		{"small", 100, false, nil}, {"large", 100_000, false, nil}, {"small, long polls", 100, true, nil}, {"large, long polls", 100_000, true, nil},
		{"large, stamped, looked at and soon removed", 100_000, false, []cluster.Config{
			{Name: "message.timestamp.type", Value: "LogAppendTime"}, {Name: "retention.bytes", Value: "3000000"}, {Name: "segment.bytes", Value: "1048576"}, {Name: "segment.ms", Value: "5"},
		}},
		{"small, its times looked at", 100, false, []cluster.Config{{Name: "message.timestamp.before.max.ms", Value: "1600000000000"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHotShard(t, hotArenaBytes, 64, c.configs...)
			produce, flexible := produceFrame(8, -1, make([]byte, c.record)), produceFrame(9, 1, make([]byte, c.record))
			fetch, at := fetchFrame(11, 500, 1)
			fetchFlexible, atFlexible := fetchFrame(12, 500, 1)
			offset, turns := uint64(0), 0
			until := func(what string, replies int) {
				for range 200 {
					if h.ring.replies >= replies {
						return
					}
					h.turn()
					turns++
				}
				t.Fatalf("%s: no reply at offset %d", what, offset)
			}
			one := func(produce, fetch []byte, at int) {
				before := h.ring.replies
				h.ring.sent = h.ring.sent[:0]
				binary.BigEndian.PutUint64(fetch[at:], offset)
				if c.parked {
					h.ring.say(fetch)
					h.turn()
					// Replies of a connection leave in the order of its requests,
					// so the produce behind a parked fetch also waits; both leave
					// together when the record is durable.
					h.ring.say(produce)
					until("both", before+1)
				} else {
					h.ring.say(produce)
					until("produce", before+1)
					h.ring.say(fetch)
					until("fetch", before+2)
				}
				for range 3 {
					h.turn()
				}
				if len(h.ring.sent) < c.record {
					t.Fatalf("offset %d: %d bytes came back, fewer than the record has: % x", offset, len(h.ring.sent), h.ring.sent[:min(100, len(h.ring.sent))])
				}
				offset++
			}
			step := func() {
				one(produce, fetch, at)
				one(flexible, fetchFlexible, atFlexible)
			}
			for range 200 {
				step()
			}
			if n := testing.AllocsPerRun(400, step); n != 0 {
				t.Errorf("%v allocations for two produces and two fetches", n)
			}
			if s := h.s.engine.Stats(); c.record > 10_000 && (s.Checkpoints < 3 || s.Evictions < 3) {
				t.Errorf("the run did not meet everything it should: %+v", *s)
			}
			if s := h.s.engine.Stats(); len(c.configs) > 1 && s.Truncated < 3 {
				t.Errorf("retention moved the start %d times", s.Truncated)
			}
		})
	}
}

// Refusing a batch, and saying why, allocates nothing either.
func TestRefusingAllocatesNothing(t *testing.T) {
	h := newHotShard(t, hotArenaBytes, 64, cluster.Config{Name: "message.timestamp.before.max.ms", Value: "1000"})
	old := produceFrame(9, -1, make([]byte, 100))
	broken := produceFrame(8, -1, make([]byte, 100))
	broken[len(broken)-1] ^= 1
	elsewhere := produceFrame(10, -1, make([]byte, 100))
	copy(elsewhere[bytes.Index(elsewhere, []byte("hot\x02")):], "hat") // an unknown topic
	h.s.Turn(h.now, 1_800_000_000_000)
	step := func() {
		for _, frame := range [][]byte{old, broken, elsewhere} {
			before := h.ring.replies
			h.ring.sent = h.ring.sent[:0]
			h.ring.say(frame)
			for range 20 {
				if h.ring.replies > before {
					break
				}
				h.turn()
			}
			if !bytes.Contains(h.ring.sent, []byte("0: ")) {
				t.Fatalf("the answer says not why: %q", h.ring.sent)
			}
		}
	}
	for range 50 {
		step()
	}
	if n := testing.AllocsPerRun(200, step); n != 0 {
		t.Errorf("%v allocations for three refused batches", n)
	}
}
