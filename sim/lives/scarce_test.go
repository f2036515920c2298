package lives

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/broker"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/metrics"
	"github.com/tailbound/tailbound/shard"
	"github.com/tailbound/tailbound/sim"
)

// scarce is a broker of one data shard with one topic of one partition, whose
// pools are as small as a test wants them.
type scarce struct {
	*brokerSim
	t      *testing.T
	serial uint64
	levels *metrics.Collector // of the data shard
}

const scarceBatch = 32 << 10 // the largest batch

// newScarce opens it. tune changes the sizes of both its shards.
func newScarce(t *testing.T, seed uint64, tune func(o *broker.Options)) *scarce {
	s := &scarce{t: t, brokerSim: &brokerSim{w: sim.NewWorld(seed), disk: sim.NewDisk(0), sent: map[uint64]*sentBatch{}, ids: map[int64]bool{}}}
	s.rng, s.shards = s.w.Rand, 1
	s.drawLimits()
	s.makeGroups()
	s.mood = sim.RingOptions{Files: 1024, Sockets: 256, Depth: 1024}
	s.o.MessageBytesMax, s.o.InflightMax, s.o.DirectBytes, s.o.SpareBytes, s.o.PrepareBytes = scarceBatch, 2, 64<<10, 0, 0
	s.o.Memory = &broker.Memory{ArenaBytes: 64 << 20, RecoveryBytes: recoveryArenaBytes, ListenersMax: 1, ConnsMax: 256, RequestsMax: 512, PipelineMax: 64, RequestBytesMax: 1 << 20,
		ReceiveBufferBytes: 16 << 10, ReceiveBuffers: 512, ReplyBlocks: 512, AttachedMax: 4096, MailBytes: 4 << 20,
		LogsMax: 128, FilesMax: 512, SegmentBytes: 2 << 20, JournalBytes: 4 << 20, LogMemoryBytes: 8 << 20, BatchBytesMax: scarceBatch,
		ProducersMax: 64, WaitersMax: 1024, SessionsMax: 2, SessionPartitionsMax: interestsMax}
	if tune != nil {
		tune(&s.o)
	}
	s.must(s.open())
	t.Cleanup(func() { s.w.Stop(); s.free() })
	s.levels = metrics.NewCollector(s.cores[1].shard.Timelines)
	s.must(s.brokerSim.serve())
	r := kmsg.NewPtrCreateTopicsRequest()
	r.Version = 5
	q := kmsg.NewCreateTopicsRequestTopic()
	q.Topic, q.NumPartitions, q.ReplicationFactor = "scarce", 1, 1
	r.Topics = append(r.Topics, q)
	c := s.dial(0)
	c.mustAnswer(r)
	return s
}

func (s *scarce) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// until turns the broker until done, and for no more than seconds of its time.
func (s *scarce) until(what string, seconds int64, done func() bool) {
	s.t.Helper()
	for give := s.w.Now + ioring.Instant(seconds*1e9); !done(); {
		s.must(s.rest())
		if s.w.Now > give {
			s.t.Fatalf("%s: not within %d seconds\n%s", what, seconds, s.pools())
		}
	}
}

func (s *scarce) pass(ns ioring.Instant) {
	s.t.Helper()
	for end := s.w.Now + ns; s.w.Now < end; {
		s.must(s.rest())
	}
}

// pool is how full one of the data shard's is now.
func (s *scarce) pool(name string) (l metrics.Gauge) {
	s.t.Helper()
	for _, l := range s.allPools() {
		if l.Name == name {
			return l
		}
	}
	s.t.Fatalf("there is no pool %q", name)
	return l
}

func (s *scarce) allPools() []metrics.Gauge {
	s.levels.Ask()
	for !s.levels.Collect() {
		s.must(s.rest())
	}
	return s.levels.Total().Gauges()
}

func (s *scarce) pools() string {
	out := ""
	for _, l := range s.allPools() {
		out += fmt.Sprintf("%s: %d of %d\n", l.Name, l.Used, l.Max)
	}
	return out
}

// user is a client on a connection of its own.
type user struct {
	s    *scarce
	c    *conn
	next int64
	got  []kmsg.Response
}

func (s *scarce) dial(node int) *user {
	s.t.Helper()
	c, err := s.connect(node)
	s.must(err)
	u := &user{s: s, c: c}
	c.read = func(_ owed, r kmsg.Response) error {
		u.got = append(u.got, r)
		return nil
	}
	return u
}

func (u *user) ask(r kmsg.Request) { u.c.ask(r, owed{}) }

// mustAnswer asks and awaits the answer.
func (u *user) mustAnswer(r kmsg.Request) kmsg.Response {
	u.s.t.Helper()
	n := len(u.got)
	u.ask(r)
	u.s.until(fmt.Sprintf("an answer to key %d", r.Key()), 2, func() bool { return len(u.got) > n || u.c.c.Closed })
	if len(u.got) == n {
		u.s.t.Fatalf("the connection was closed while key %d was to be answered\n%s", r.Key(), u.s.pools())
	}
	return u.got[n]
}

func (s *scarce) produceOf(size int) *kmsg.ProduceRequest {
	s.serial++
	r := kmsg.NewPtrProduceRequest()
	r.Version, r.Acks, r.TimeoutMillis = 8, -1, 600_000
	q := kmsg.NewProduceRequestTopicPartition()
	q.Records = makeBatch(s.serial, 1, size, -1, -1, -1)
	t := kmsg.NewProduceRequestTopic()
	t.Topic, t.Partitions = "scarce", append(t.Partitions, q)
	r.Topics = append(r.Topics, t)
	return r
}

func fetchOf(from int64, waitMS, partBytes int32) *kmsg.FetchRequest {
	r := kmsg.NewPtrFetchRequest()
	r.Version, r.ReplicaID, r.MaxWaitMillis, r.MinBytes, r.MaxBytes, r.SessionEpoch = 11, -1, waitMS, 1, 50<<20, -1
	q := kmsg.NewFetchRequestTopicPartition()
	q.FetchOffset, q.PartitionMaxBytes, q.CurrentLeaderEpoch = from, partBytes, -1
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.Partitions = "scarce", append(t.Partitions, q)
	r.Topics = append(r.Topics, t)
	return r
}

// store appends batches, one after the other.
func (s *scarce) store(u *user, n, size int) {
	s.t.Helper()
	for range n {
		r := u.mustAnswer(s.produceOf(size)).(*kmsg.ProduceResponse)
		if p := &r.Topics[0].Partitions[0]; p.ErrorCode != 0 {
			s.t.Fatalf("a batch is answered with error %d", p.ErrorCode)
		} else if p.BaseOffset == 0 && s.serial > 1 && u.next > 0 {
			s.t.Fatal("a batch is at offset 0 again")
		} else {
			u.next = p.BaseOffset + 1
		}
	}
}

// readAll reads from the start to end; every record has to be there.
func (s *scarce) readAll(end int64) {
	s.t.Helper()
	u := s.dial(1)
	for at := int64(0); at < end; {
		r := u.mustAnswer(fetchOf(at, 0, 1<<20)).(*kmsg.FetchResponse)
		p := &r.Topics[0].Partitions[0]
		if p.ErrorCode != 0 {
			s.t.Fatalf("reading offset %d: error %d", at, p.ErrorCode)
		}
		before := at
		for b := p.RecordBatches; len(b) >= headBytes; {
			n := int(binary.BigEndian.Uint32(b[8:])) + 12
			if n > len(b) {
				break
			}
			if base := int64(binary.BigEndian.Uint64(b)); base != at {
				s.t.Fatalf("offset %d where %d was due", base, at)
			}
			at++
			b = b[n:]
		}
		if at == before && p.HighWatermark > at {
			s.until("there is something to read", 1, func() bool { return true })
		}
	}
}

// TestStalledConsumers: consumers that stop reading in the middle of their answers hold up neither producers nor consumers that
// do read, however many there are; they are closed, and what they held is back.
func TestStalledConsumers(t *testing.T) {
	t.Parallel()
	for _, size := range []int{300, 30_000} { // copied; pinned
		for _, stalled := range []int{1, 10, 100} {
			t.Run(fmt.Sprintf("%d bytes, %d stalled", size, stalled), func(t *testing.T) {
				t.Parallel()
				s := newScarce(t, uint64(stalled), nil)
				p := s.dial(1)
				history := 6 << 20 / 30_000 // what memory holds
				if size < 1000 {
					history = 2000
				}
				s.store(p, history, size)
				var slow []*user
				for i := range stalled {
					u := s.dial(1)
					u.c.c.Window = 100
					for k := range 3 { // pipelined, and each from elsewhere
						u.ask(fetchOf(int64((i*3+k)*history/(stalled*3)), 0, 1<<20))
					}
					slow = append(slow, u)
				}
				s.pass(200e6)
				pinned := s.pool("log memory slabs pinned by answers")
				if pinned.Used > pinned.Max || size > 1000 && pinned.Used == 0 {
					t.Fatalf("%d slabs are pinned, at most %d may be", pinned.Used, pinned.Max)
				}
				// twice what the log memory holds
				begin := s.w.Now
				good := s.dial(1)
				at := p.next
				for range 2 * 8 << 20 / max(size, 8000) {
					s.store(p, 1, size)
					r := good.mustAnswer(fetchOf(at, 0, 1<<20)).(*kmsg.FetchResponse)
					if b := r.Topics[0].Partitions[0].RecordBatches; len(b) == 0 {
						t.Fatalf("nothing at offset %d, below the high watermark", at)
					}
					at = p.next
				}
				if took := s.w.Now - begin; took > 20e9 {
					t.Errorf("it took %d ms beside stalled consumers", took/1e6)
				}
				s.until("stalled connections are closed", 200, func() bool {
					for _, u := range slow {
						if !u.c.c.Closed {
							return false
						}
					}
					return true
				})
				s.pass(1e9)
				for _, name := range []string{"log memory slabs pinned by answers", "pieces attached to answers", "reply blocks", "requests", "pin chunks"} {
					if l := s.pool(name); l.Used != 0 {
						t.Errorf("%s: %d are still held", name, l.Used)
					}
				}
				s.readAll(p.next)
			})
		}
	}
}

// hold makes the disk do nothing, without failing, to files whose path says so.
func (s *scarce) hold(code ioring.Code, held func(path string) bool) {
	s.disk.Fail = func(c ioring.Code, path string, _ uint64, _ int) int32 {
		if c == code && held(path) {
			return -int32(unix.EAGAIN)
		}
		return 0
	}
}

// alone turns the data shard and leaves the control shard where it is.
func (s *scarce) alone(turns int) {
	s.t.Helper()
	for range turns {
		s.turn(s.cores[1])
		s.w.Step(s.w.Now + 20_000)
		s.must(s.poll())
	}
}

// many has n users, each on a connection of its own, ask.
func (s *scarce) many(n int, ask func(u *user)) (all []*user) {
	s.t.Helper()
	for range n {
		u := s.dial(1)
		ask(u)
		all = append(all, u)
	}
	return all
}

func isJournal(path string) bool { return strings.HasSuffix(path, "journal") }
func isSegment(path string) bool { return strings.HasPrefix(path, "segments/") }

// TestEachPoolExhausted fills one pool at a time on purpose. The requests that fill it are slowed down; no request waits for ever,
// requests that do not need the pool do not wait, and once the cause is gone all are answered and the pool is as empty as before.
func TestEachPoolExhausted(t *testing.T) {
	t.Parallel()
	produces := func(s *scarce) { // beside whatever is exhausted
		s.t.Helper()
		s.store(s.dial(1), 3, 200)
	}
	fetches := func(s *scarce) {
		s.t.Helper()
		r := s.dial(1).mustAnswer(fetchOf(0, 0, 1<<20)).(*kmsg.FetchResponse)
		if p := &r.Topics[0].Partitions[0]; p.ErrorCode != 0 || len(p.RecordBatches) == 0 {
			s.t.Fatalf("reading beside it: error %d, %d bytes", p.ErrorCode, len(p.RecordBatches))
		}
	}
	neither := func(*scarce) {}
	for _, x := range []struct {
		name   string
		pool   string
		part   float64 // of it has to be in use for it to be short
		tune   func(o *broker.Options)
		before int // batches of 30,000 bytes that are there
		fill   func(s *scarce) []*user
		beside func(s *scarce) // goes on meanwhile
		free   func(s *scarce, all []*user)
		unsure bool // a client that filled it may be closed instead of answered
	}{
		{
			name: "receive buffers, by requests that never end", pool: "receive buffers", part: 0.25, unsure: true,
			tune: func(o *broker.Options) {
				o.Memory.ReceiveBuffers, o.Memory.ReceiveBufferBytes, o.Memory.RequestBytesMax = 32, 16<<10, 100<<10
			},
			fill: func(s *scarce) []*user {
				return s.many(60, func(u *user) {
					u.c.c.Send(append(binary.BigEndian.AppendUint32(nil, 90_000), make([]byte, 20_000)...))
				})
			},
			beside: func(s *scarce) { produces(s); fetches(s) },
			free: func(s *scarce, all []*user) {
				for _, u := range all {
					u.c.c.Reset()
				}
			},
		},
		{
			name: "frames, by fetches that wait", pool: "network frames", part: 1,
			tune:   func(o *broker.Options) { o.Memory.RequestsMax = 16 },
			fill:   func(s *scarce) []*user { return s.many(40, func(u *user) { u.ask(fetchOf(s.end(), 30_000, 1<<20)) }) },
			beside: func(s *scarce) { produces(s); fetches(s) },
			free:   func(s *scarce, _ []*user) {},
		},
		{
			name: "parts, by fetches that wait", pool: "partitions in requests", part: 0.7,
			tune:   func(o *broker.Options) { o.Memory.WaitersMax = 64 },
			fill:   func(s *scarce) []*user { return s.many(80, func(u *user) { u.ask(fetchOf(s.end(), 30_000, 1<<20)) }) },
			beside: func(s *scarce) { produces(s); fetches(s) },
			free:   func(s *scarce, _ []*user) {},
		},
		{
			name: "requests, by produces that outlive their connections", pool: "requests", part: 1, unsure: true,
			tune: func(o *broker.Options) { o.Memory.RequestsMax = 16 },
			fill: func(s *scarce) (all []*user) {
				s.hold(ioring.Write, isJournal)
				for range 4 {
					some := s.many(12, func(u *user) { u.ask(s.produceOf(100)) })
					s.pass(20e6)
					for _, u := range some {
						u.c.c.Reset()
					}
					s.pass(20e6)
				}
				return nil
			},
			beside: neither,
			free:   func(s *scarce, _ []*user) { s.disk.Fail = nil },
		},
		{
			name: "mail, by requests the control shard does not look at", pool: "mail bytes", part: 0.9,
			tune: func(o *broker.Options) { o.Memory.MailBytes = 64 << 10 },
			fill: func(s *scarce) []*user {
				all := s.many(60, func(u *user) {
					r := kmsg.NewPtrMetadataRequest()
					r.Version = 9
					for i := range 100 {
						q := kmsg.NewMetadataRequestTopic()
						name := fmt.Sprintf("no-such-topic-%d", i)
						q.Topic = &name
						r.Topics = append(r.Topics, q)
					}
					u.ask(r)
				})
				s.alone(2000)
				return all
			},
			beside: neither, // the control shard is not to turn: see mailIsFull
			free: func(s *scarce, _ []*user) {
				p := s.dial(1)
				p.ask(s.produceOf(100))
				p.ask(fetchOf(0, 0, 1<<20))
				for n := 0; len(p.got) < 2; n++ {
					if n > 10_000 {
						s.t.Fatal("a produce and a fetch wait for mail they do not need")
					}
					s.alone(1)
				}
			},
		},
		{
			name: "log memory, by a journal that does not move", pool: "log memory slabs", part: 1,
			tune: func(o *broker.Options) { o.DirectBytes, o.Memory.SegmentBytes = 0, 64<<20 },
			fill: func(s *scarce) []*user {
				s.hold(ioring.Write, isJournal)
				return s.many(150, func(u *user) {
					for range 3 {
						u.ask(s.produceOf(30_000))
					}
				})
			},
			before: 3,
			beside: fetches,
			free:   func(s *scarce, _ []*user) { s.disk.Fail = nil },
		},
		{
			name: "the index of batches in memory, by small ones", pool: "batch index chunks", part: 0.95,
			tune: func(o *broker.Options) { o.Memory.LogMemoryBytes, o.Memory.LogsMax = 2<<20, 16 },
			fill: func(s *scarce) []*user {
				s.hold(ioring.Write, isJournal)
				return s.many(100, func(u *user) {
					for range 60 {
						r := s.produceOf(10)
						r.Acks = 0
						u.c.c.Send(formatter.AppendRequest(nil, r, 1))
					}
					u.ask(s.produceOf(10))
				})
			},
			before: 1,
			beside: fetches,
			free:   func(s *scarce, _ []*user) { s.disk.Fail = nil },
		},
		{
			name: "the journal, by segments that do not move", pool: "journal blocks", part: 0.9,
			tune: func(o *broker.Options) { o.Memory.JournalBytes, o.DirectBytes = 1<<20, 0 },
			fill: func(s *scarce) []*user {
				s.hold(ioring.Write, isSegment)
				return s.many(100, func(u *user) {
					for range 3 {
						u.ask(s.produceOf(10_000))
					}
				})
			},
			before: 1,
			beside: fetches,
			free:   func(s *scarce, _ []*user) { s.disk.Fail = nil },
		},
		{
			name: "cold reads, by a disk that does not read", pool: "cold reads", part: 1, before: 600,
			fill: func(s *scarce) []*user {
				s.hold(ioring.Read, isSegment)
				return s.many(30, func(u *user) { u.ask(fetchOf(s.rng.Int64N(50), 100, 1<<20)) })
			},
			beside: func(s *scarce) {
				produces(s)
				r := s.dial(1).mustAnswer(fetchOf(s.end()-1, 0, 1<<20)).(*kmsg.FetchResponse)
				if len(r.Topics[0].Partitions[0].RecordBatches) == 0 {
					s.t.Fatal("the end of the log waits for its beginning")
				}
			},
			free: func(s *scarce, _ []*user) { s.disk.Fail = nil },
		},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			s := newScarce(t, 7, x.tune)
			s.store(s.dial(1), max(x.before, 1), 30_000*min(x.before, 1)+100)
			s.pass(300e6)
			calm := s.pool(x.pool).Used
			all := x.fill(s)
			short := func() bool { l := s.pool(x.pool); return float64(l.Used) >= x.part*float64(l.Max) }
			if x.pool == "mail bytes" {
				s.levels.Ask()
				s.alone(10)
				s.levels.Collect()
				for _, l := range s.levels.Total().Gauges() {
					if l.Name == x.pool && float64(l.Used) < x.part*float64(l.Max) {
						t.Fatalf("%d of %d: it is not short", l.Used, l.Max)
					}
				}
			} else {
				s.until("it is short", 20, short)
			}
			began := s.w.Now
			x.beside(s)
			if took := s.w.Now - began; took > 5e9 {
				t.Errorf("who does not need it waits for %d ms", took/1e6)
			}
			x.free(s, all)
			s.until("who filled it is answered", 100, func() bool {
				for _, u := range all {
					if len(u.c.owed) > 0 && !(x.unsure && u.c.c.Closed) {
						if u.c.c.Closed {
							t.Fatal("a connection is closed, and it waited as it should")
						}
						return false
					}
				}
				return true
			})
			produces(s)
			for _, u := range all {
				u.c.c.Reset()
			}
			cache := x.pool == "log memory slabs" || x.pool == "batch index chunks" // what was read last stays there
			s.until("it is as it was", 100, func() bool { return s.pool(x.pool).Used <= calm || cache && !short() })
			s.pass(1e9)
			for _, name := range []string{"requests", "partitions in requests", "network frames", "mail bytes", "pin chunks"} {
				if l := s.pool(name); l.Used != 0 {
					t.Errorf("%s: %d are still held", name, l.Used)
				}
			}
			s.readAll(s.end())
		})
	}
}

// end is the log's end.
func (s *scarce) end() int64 {
	s.t.Helper()
	r := kmsg.NewPtrListOffsetsRequest()
	r.Version, r.ReplicaID = 4, -1
	q := kmsg.NewListOffsetsRequestTopicPartition()
	q.Timestamp, q.CurrentLeaderEpoch = -1, -1
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic, t.Partitions = "scarce", append(t.Partitions, q)
	r.Topics = append(r.Topics, t)
	return s.dial(1).mustAnswer(r).(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0].Offset
}

// said takes the lines of a broker.
type said struct{ lines []string }

func (l *said) Log(level shard.Level, _ int, text []byte) {
	if level >= shard.Info {
		l.lines = append(l.lines, string(text))
	}
}

// A segment that cannot be made for another reason than a full disk is said in the same way: once, again as it lasts, and when it is over.
func TestSegmentCannotBeMade(t *testing.T) {
	lines := &said{}
	s := newScarce(t, 7, func(o *broker.Options) { o.Log = lines })
	s.disk.Fail = func(code ioring.Code, path string, _ uint64, _ int) int32 {
		if code == ioring.Open && strings.HasPrefix(path, "segments/") {
			return -int32(unix.EMFILE)
		}
		return 0
	}
	u := s.dial(1)
	produce := func() int16 {
		t.Helper()
		return u.mustAnswer(s.produceOf(1000)).(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode
	}
	for range 3 {
		if code := produce(); code != codeStorage {
			t.Fatalf("without a segment a batch is answered with %d", code)
		}
	}
	s.pass(125e9)
	s.disk.Fail = nil
	s.pass(3e9)
	if code := produce(); code != 0 {
		t.Fatalf("with a segment a batch is answered with %d", code)
	}
	var about []string
	for _, line := range lines.lines {
		if strings.Contains(line, "file") {
			about = append(about, line)
		}
	}
	wants := []string{
		`^no file can be made or grown: opening segments/[0-9a-f]{16}: EMFILE: too many open files; a file of scarce/0; what needs room is refused with KAFKA_STORAGE_ERROR until there is some, and nothing that was acknowledged is lost; raise the limit of open files \(ulimit -n\)$`,
		`^no file can be made or grown, for 60 s now, 3 record batches and changes refused since the line before: opening segments/.* of scarce/0; raise the limit of open files`,
		`^no file can be made or grown, for 120 s now: opening segments/`,
		`^files can be made and grown again, after 12[5-8] s$`,
	}
	if len(about) != len(wants) {
		t.Fatalf("%d lines:\n%s", len(about), strings.Join(about, "\n"))
	}
	for i, want := range wants {
		if !regexp.MustCompile(want).MatchString(about[i]) {
			t.Errorf("%q\nis not %q", about[i], want)
		}
	}
}
