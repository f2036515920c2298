package shard

import (
	"fmt"
	"strings"

	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/mem"
	"github.com/tailbound/tailbound/metrics"
	"github.com/tailbound/tailbound/netring"
)

// Wall is wall-clock time in milliseconds since 1970.
type Wall int64

// Node is a broker as clients see it: the control shard's node first, then one
// for each data shard.
type Node struct {
	ID   int32
	Host string
	Port int32
}

// Address is HOST:PORT, with brackets around a host that has colons of its own.
func (n Node) Address() string {
	if strings.Contains(n.Host, ":") {
		return fmt.Sprintf("[%s]:%d", n.Host, n.Port)
	}
	return fmt.Sprintf("%s:%d", n.Host, n.Port)
}

// Options are what a shard needs to know. All shards of a broker are given the
// same, but for Shard, Net and Engine.
type Options struct {
	Shard                int // 0 is the control shard
	DataShards           int
	Nodes                []Node   // DataShards + 1; twice the same: clients see one node, and speak to the data shard
	OtherNodes           [][]Node // the same nodes, as the clients of the second listener, the third, ... see them
	ListenerNames        []string
	Hidden               bool // it does not listen
	ClusterID            string
	DataDir              string // for people to read
	MessageBytesMax      int    // message.max.bytes: one record batch
	AutoCreateTopics     bool   // auto.create.topics.enable
	PartitionsDefault    int    // num.partitions
	ProducersMax         int    // windows of idempotent producers, by partition and producer
	WaitersMax           int    // partitions named by requests in flight
	SessionsMax          int    // max.incremental.fetch.session.cache.slots, of this shard
	SessionPartitionsMax int    // in all of them
	MailBytes            int    // memory for requests and answers that cross shards; a power of two
	RetentionCheckNS     int64  // log.retention.check.interval.ms, in nanoseconds; default RetentionCheckNS
	DataFrameBytesMax    int    // socket.request.max.bytes of a data shard
	TopicsMax            int
	PartitionsMax        int
	Net                  netring.Options
	Engine               engine.Options
	Faults               Faults // planted bugs, for the simulator only
}

// Faults are bugs that the simulator plants to prove that it would find them.
type Faults struct {
	DuplicateAckedEarly bool // a duplicate is answered before its original is durable
	StartToldEarly      bool // DeleteRecords is answered before the new start is durable
	CommitAckedEarly    bool // changes of groups are answered before they are durable
	NewsMissed          bool // a session does not hear of appends to partitions it waits for
	ProducerIDTwice     bool // ids are handed out before their block is durable
}

// ClientNodes are the nodes as the clients of a listener see them.
func (o *Options) ClientNodes(listener uint8) []Node {
	nodes := o.Nodes
	if listener > 0 {
		nodes = o.OtherNodes[listener-1]
	}
	if o.OneNode() {
		return nodes[1:]
	}
	return nodes
}

// OneNode says that clients see a single node, the data shard's: it is asked
// for everything, and hands on what is not its own.
func (o *Options) OneNode() bool { return len(o.Nodes) == 2 && o.Nodes[0] == o.Nodes[1] }

// World is everything a shard touches outside itself.
type World struct {
	Ring  ioring.Ring
	Arena *mem.Arena
	Boot  *engine.RecoveredState
	Post  *Post
	API   *API
	Log   Logger
	Seed  uint64
}

// Logger takes lines for people. It must not block, and may drop lines if it
// counts them. text is valid during the call only.
type Logger interface {
	Log(level Level, shard int, text []byte)
}

// Level is how much a log line matters.
type Level int8

// The levels, as slog has them.
const (
	Debug Level = -4
	Info  Level = 0
	Warn  Level = 4
	Error Level = 8
)

const (
	copyBelow  = 2048    // views smaller than this are copied into the reply
	viewsMax   = 1 << 10 // of one reply
	stopLookNS = 10e6    // while stopping: how often to see whether all is done
)

// Shard is one core of the broker. It belongs to the thread that drives it; no
// other may touch it. Other threads reach it by mail.
type Shard struct {
	o      Options
	ring   ioring.Ring
	net    *netring.Net
	engine *engine.Engine
	post   *Post
	lines  lines
	boot   *engine.RecoveredState

	now  ioring.Instant
	wall Wall

	// Scratch: what is in them is used up before the function returns that filled them.
	completions []ioring.Completion
	pieces      [][]byte      // of the request that is parsed
	reader      kafka.Reader  // over them
	views       []engine.View // of the log, pinned

	mailMem *mem.Buddy // blocks that are lent to other shards
	outbox  outbox

	conns    conns
	backlog  backlog
	requests requests
	produces produces
	fetches  fetches
	searches searches
	timers   timers

	topics     topicTable
	partitions partitions
	producers  producers
	sessions   sessions
	readahead  readahead

	control Control // the control shard's, else nil
	api     *API
	logOps  logOps

	retention   retention
	truncations truncations
	noRoomAt    ioring.Instant // the other shards are not told before that the disk is full

	stage   Stage
	failed  bool
	drained bool // the control shard was told

	// Timelines feeds the histograms of this shard, one writer.
	Timelines *metrics.Shard
	// Flight keeps the slowest requests of a data shard; the control shard has none.
	Flight    *metrics.Flight
	recorder  recorder
	published ioring.Instant // when the counters were last made readable
}

// Stage is where a shard is in its life.
type Stage uint8

const (
	StageLoading  Stage = iota // control: its own log is being read
	StageNaming                // logs get their topics' names
	StageServing               // listening
	StageDraining              // no new requests; what is in flight goes on
	StageClosing               // the engine writes its clean end
	StageDone                  // it may be let go
)

// Open makes the shard on its thread. boot says which logs it has; they are
// named by the control shard's mail before the shard listens.
func Open(world World, o Options) (*Shard, error) {
	s := &Shard{o: o, ring: world.Ring, post: world.Post, lines: newLines(world.Log, o.Shard), boot: world.Boot, api: world.API}
	var err error
	if s.net, err = netring.New(world.Ring, world.Arena, o.Net); err != nil {
		return nil, fmt.Errorf("shard %d: %w", o.Shard, err)
	}
	if s.o.RetentionCheckNS <= 0 {
		s.o.RetentionCheckNS = RetentionCheckNS
	}
	if s.mailMem, err = newMailMemory(world.Arena, o.MailBytes); err != nil {
		return nil, fmt.Errorf("shard %d: %w", o.Shard, err)
	}
	if s.sessions, err = newSessions(world.Arena, o.SessionsMax, o.SessionPartitionsMax, world.Seed^0x666574636865730a); err != nil {
		return nil, fmt.Errorf("shard %d: %w", o.Shard, err)
	}
	if s.Flight, err = newFlight(world.Arena, o.Shard); err != nil {
		return nil, fmt.Errorf("shard %d: %w", o.Shard, err)
	}
	if s.engine, err = engine.New(world.Ring, world.Arena, world.Boot, o.Shard, s, o.Engine); err != nil {
		return nil, fmt.Errorf("shard %d: %w", o.Shard, err)
	}
	s.makeTables()
	if o.Shard == 0 {
		s.control = world.API.New(s, s.o, world.Seed)
	} else {
		s.restoreWindows()
		s.stage = StageNaming
	}
	return s, nil
}

func newMailMemory(arena *mem.Arena, bytes int) (*mem.Buddy, error) {
	block := min(1<<20, bytes)
	return mem.NewBuddy(arena, "mail", 256, block*4, max(1, bytes/(block*4)))
}

// makeTables makes everything of fixed size that is not in the arena.
func (s *Shard) makeTables() {
	o := &s.o
	s.completions = make([]ioring.Completion, 256)
	s.pieces = make([][]byte, 0, 4096)
	s.views = make([]engine.View, viewsMax)
	s.outbox = newOutbox(o.DataShards, o.Net.RequestsMax)
	s.conns = newConns(o.Net.ConnsMax)
	// A request may outlive its connection, whose place is then free for another.
	requests, parts := 2*o.Net.RequestsMax, o.WaitersMax
	s.requests, s.timers, s.backlog = newRequests(requests), newTimers(requests), newBacklog(requests)
	s.logOps.deferred = make([]Mail, 0, OpenCredit)
	pinChunks := parts + o.Net.RequestsMax
	if o.Shard == 0 {
		requests, parts, pinChunks = 0, 0, 0 // the control shard serves none of these
	}
	s.requests.credit = partCredit{all: parts, free: parts}
	s.produces = newProduces(requests, &s.requests.credit)
	s.searches = newSearches(requests, &s.requests.credit, s.engine)
	s.fetches = newFetches(requests, &s.requests.credit, pinChunks, s.engine)
	s.fetches.replyMax, s.fetches.copyMax = s.engine.LogMemoryBytes()/16, s.o.Net.ReplyBlocks/8*4096
	leaderEpoch := int32(0)
	if s.boot != nil {
		leaderEpoch = s.boot.LeaderEpoch()
	}
	s.partitions = newPartitions(s.engine, leaderEpoch, o.Engine.LogsMax)
	s.sessions.partitions, s.sessions.topics = &s.partitions, &s.topics
	s.topics = newTopicTable()
	s.producers = newProducers(o.ProducersMax, &s.partitions)
	s.Timelines = metrics.NewShard()
	s.recorder = recorder{flight: s.Flight, slo: objectives{topics: &s.topics}, topics: &s.topics, engine: s.engine, counters: &s.Timelines.Counters}
	s.truncations.engine, s.truncations.outbox, s.truncations.early = s.engine, &s.outbox, s.o.Faults.StartToldEarly
	s.readahead.engine, s.readahead.counters = s.engine, &s.Timelines.Counters
}

// restoreWindows rebuilds the producer windows of this shard's logs.
func (s *Shard) restoreWindows() {
	for i := range s.boot.Shards[s.o.Shard].Logs {
		recovered := &s.boot.Shards[s.o.Shard].Logs[i]
		if slot, ok := s.engine.Lookup(recovered.ID); ok {
			s.producers.restore(s.partitions.of(slot), recovered.End, recovered.Attachment, recovered.Headers)
		}
		recovered.Attachment, recovered.Headers = nil, nil
	}
}

// Attachment gives the engine the producer windows of a log, for its checkpoint.
func (s *Shard) Attachment(slot engine.Slot, dst []byte) int {
	return s.producers.attachment(s.partitions.of(slot), dst)
}

// Done says that the shard has stopped: every log written, nothing in flight.
func (s *Shard) Done() bool { return s.stage == StageDone }

// Failed says that a write or sync of this shard failed for good.
func (s *Shard) Failed() bool { return s.failed }

// Serving says that it listens, and has not begun to stop.
func (s *Shard) Serving() bool { return s.stage == StageServing }

// InFlight is how many requests are not answered yet.
func (s *Shard) InFlight() int { return s.requests.inFlight }
