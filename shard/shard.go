package shard

import (
	"fmt"
	"strings"

	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/mem"
	"github.com/tailbound/tailbound/metrics"
	"github.com/tailbound/tailbound/netring"
)

// Wall is wall-clock time in milliseconds since 1970.
type Wall int64

// Node is a broker as clients see it. The control shard is the first node, and
// each data shard is one more.
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

// Options configure a shard. All shards of a broker are given the same, except
// for Shard, Net and Engine.
type Options struct {
	Shard                int // 0 is the control shard
	DataShards           int
	Nodes                []Node   // DataShards + 1; two equal ones: clients see a single node, the data shard's
	OtherNodes           [][]Node // the same nodes as clients of the second listener, the third, ... see them
	ListenerNames        []string
	Hidden               bool // the shard does not listen
	ClusterID            string
	DataDir              string // named in messages to the operator
	MessageBytesMax      int    // message.max.bytes: one record batch
	AutoCreateTopics     bool   // auto.create.topics.enable
	LogLevel             string // of the broker's log, as Kafka writes levels; for DescribeConfigs
	PartitionsDefault    int    // num.partitions
	ProducersMax         int    // pairs of a partition and an idempotent producer that are remembered
	WaitersMax           int    // partitions that all requests in flight may name together
	SessionsMax          int    // max.incremental.fetch.session.cache.slots, of this shard
	SessionPartitionsMax int    // of all sessions together
	MailBytes            int    // memory for requests and replies that cross shards; a power of two
	RetentionCheckNS     int64  // log.retention.check.interval.ms, in nanoseconds, for ages; default RetentionCheckNS
	DrainNS              int64  // how long a stop waits for answers to requests in flight; default DrainNS
	DataFrameBytesMax    int    // socket.request.max.bytes of a data shard
	TopicsMax            int
	PartitionsMax        int
	Net                  netring.Options
	Engine               engine.Options
	Faults               Faults // planted bugs, for the simulator only
}

// Settings are the options that can change while the broker runs (Post.Reload). All of them
// are given, also those that stay as they are.
type Settings struct {
	AutoCreateTopics   bool
	LogLevel           string
	PartitionsDefault  int
	RetentionCheckNS   int64
	ConnsPerAddressMax int // as in netring.Options
	AddressLimits      []netring.AddressLimit
	Groups             any // the control's: what it was made with, changed
}

// Faults are bugs that the simulator plants to prove that it finds them.
type Faults struct {
	DuplicateAckedEarly bool // a duplicate is acknowledged before its original is durable
	StartToldEarly      bool // DeleteRecords is answered before the new start is durable
	CommitAckedEarly    bool // changes of groups are answered before they are durable
	NewsMissed          bool // a fetch session is not notified of appends
	ProducerIDTwice     bool // ids are handed out before their block is durable
	MaxTimeBelieved     bool // the largest timestamp that a producer claims for a batch is taken for true
	SearchReadsAtTime   bool // a search by time takes the time for the offset from which it reads from disk
	SearchFindsDeleted  bool // a search by time finds records before the log's start
	StopAwaitsPeers     bool // a stop waits for peers to receive their replies
	RoomNotKept         bool // changes that make no room use up what is kept for those that do
	JournalNotKept      bool // changes that make room are refused where the rest of the journal is kept for them
	NextNotKept         bool // the control log's next segment is made only when it is needed
	NoRoomUnsaid        bool // the operator is told of a full disk when it begins, and then no more
}

// ClientNodes are the nodes as clients of that listener see them.
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

// OneNode says that clients see a single node, the data shard's. They send it all
// requests; it forwards those that the control shard serves.
func (o *Options) OneNode() bool { return len(o.Nodes) == 2 && o.Nodes[0] == o.Nodes[1] }

// World is everything outside itself that a shard touches.
type World struct {
	Ring  ioring.Ring
	Arena *mem.Arena
	Boot  *engine.RecoveredState
	Post  *Post
	API   *API
	Log   Logger
	Seed  uint64
}

// Logger writes log lines for the operator. It must not block; it may drop lines
// if it counts them. text is valid only during the call.
type Logger interface {
	Log(level Level, shard int, text []byte)
}

// Level is the severity of a log line.
type Level int8

// The levels have the values of package slog.
const (
	Debug Level = -4
	Info  Level = 0
	Warn  Level = 4
	Error Level = 8
)

const (
	copyBelow = 2048    // smaller views are copied into the reply
	viewsMax  = 1 << 10 // of one reply
)

// Shard is one core of the broker. It belongs to the thread that calls Turn; no
// other thread may touch it. Other threads send it mail.
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

	// Scratch memory: its contents are used before the function that filled it returns.
	completions []ioring.Completion
	pieces      [][]byte                     // the bytes of the request that is parsed
	reader      kafka.Reader                 // over pieces
	views       []engine.View                // batches that were read from logs, pinned
	losses      [format.HolesMax]engine.Hole // of one partition

	mailMem *mem.Buddy // blocks that are lent to other shards with mail
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

	control Control // nil on a data shard
	api     *API
	logOps  logOps

	retention   retention
	truncations truncations
	room        roomReport

	stage      Stage
	fault      string // why it stopped by itself
	failed     bool
	drainUntil ioring.Instant // with StageDraining: when unanswered requests are given up; Never once they were
	drained    bool           // the control shard was told that no request is in flight
	unanswered uint64         // requests that were given up, of connections that were open

	// Timelines has this shard's histograms and counters; the shard is their only writer.
	Timelines *metrics.Shard
	// Flight is the flight recorder of a data shard; nil on the control shard.
	Flight    *metrics.Flight
	recorder  recorder
	published ioring.Instant // when the counters were last published
}

// Stage is where a shard is between start and stop.
type Stage uint8

const (
	StageLoading  Stage = iota // the control shard reads the control log
	StageNaming                // logs are given to their topics
	StageServing               // the shard listens
	StageDraining              // no new requests are taken; those in flight go on
	StageClosing               // the engine writes the mark of a clean stop
	StageDone                  // the shard has stopped
)

// Open makes a shard; its thread calls it. world.Boot has the logs that recovery
// found. A data shard listens once the control shard's mail has named them.
func Open(world World, o Options) (*Shard, error) {
	s := &Shard{o: o, ring: world.Ring, post: world.Post, lines: newLines(world.Log, o.Shard), boot: world.Boot, api: world.API}
	var err error
	if o.Faults.StopAwaitsPeers {
		o.Net.StopTimeoutNS = o.Net.SendTimeoutNS
	}
	if s.net, err = netring.New(world.Ring, world.Arena, o.Net); err != nil {
		return nil, fmt.Errorf("shard %d: %w", o.Shard, err)
	}
	if s.o.RetentionCheckNS <= 0 {
		s.o.RetentionCheckNS = RetentionCheckNS
	}
	if s.o.DrainNS <= 0 {
		s.o.DrainNS = DrainNS
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
	for _, note := range s.engine.Notes() {
		s.lines.write(Warn, s.lines.begin(note))
	}
	if err = s.makeTables(world.Arena); err != nil {
		return nil, fmt.Errorf("shard %d: %w", o.Shard, err)
	}
	if o.Shard == 0 {
		s.control = world.API.New(Host{s}, s.o, world.Seed)
	} else {
		s.restoreWindows()
		s.stage = StageNaming
	}
	return s, nil
}

// newMailMemory makes the memory for requests and replies that cross shards. The largest
// is half of it or 4 MiB.
func newMailMemory(arena *mem.Arena, bytes int) (*mem.Buddy, error) {
	largest := max(min(4<<20, bytes*4), bytes/2)
	return mem.NewBuddy(arena, "mail", 256, largest, max(1, bytes/largest))
}

// makeTables makes the tables of fixed size that are not in the arena: those without
// pointers to Go's heap beside it.
func (s *Shard) makeTables(arena *mem.Arena) (err error) {
	o := &s.o
	s.completions = make([]ioring.Completion, 256)
	s.pieces = make([][]byte, 0, 4096)
	s.views = make([]engine.View, viewsMax)
	s.outbox = newOutbox(o.DataShards, o.Net.RequestsMax)
	s.conns = newConns(o.Net.ConnsMax)
	// A request may outlive its connection, and netring then reuses the connection's place.
	requests, parts := 2*o.Net.RequestsMax, o.WaitersMax
	s.requests, s.timers, s.backlog = newRequests(requests), newTimers(requests), newBacklog(requests)
	s.logOps.deferred = make([]Mail, 0, OpenCredit)
	pinChunks := parts + o.Net.RequestsMax
	if o.Shard == 0 {
		requests, parts, pinChunks = 0, 0, 0 // the control shard serves no request of these kinds
	}
	s.requests.credit = partCredit{all: parts, free: parts}
	s.produces = newProduces(requests, &s.requests.credit)
	s.searches = newSearches(requests, &s.requests.credit, s.engine, s.net)
	if s.fetches, err = newFetches(arena, requests, &s.requests.credit, pinChunks, s.engine); err != nil {
		return err
	}
	s.fetches.replyMax, s.fetches.copyMax = s.engine.LogMemoryBytes()/16, s.o.Net.ReplyBlocks/8*4096
	leaderEpoch := int32(0)
	if s.boot != nil {
		leaderEpoch = s.boot.LeaderEpoch()
	}
	s.partitions = newPartitions(s.engine, leaderEpoch, o.Engine.LogsMax)
	s.topics = newTopicTable()
	if s.producers, err = newProducers(arena, o.ProducersMax, &s.partitions); err != nil {
		return err
	}
	s.Timelines = metrics.NewShard()
	s.sessions.partitions, s.sessions.topics = &s.partitions, &s.topics
	s.sessions.requests, s.sessions.fetches, s.sessions.counters = &s.requests, &s.fetches, &s.Timelines.Counters
	s.recorder = recorder{flight: s.Flight, slo: objectives{topics: &s.topics}, topics: &s.topics, engine: s.engine, counters: &s.Timelines.Counters}
	s.truncations.engine, s.truncations.outbox, s.truncations.early = s.engine, &s.outbox, s.o.Faults.StartToldEarly
	s.readahead.engine, s.readahead.counters = s.engine, &s.Timelines.Counters
	return nil
}

// restoreWindows rebuilds what this shard's partitions remember of producers.
func (s *Shard) restoreWindows() {
	for i := range s.boot.Shards[s.o.Shard].Logs {
		recovered := &s.boot.Shards[s.o.Shard].Logs[i]
		if slot, ok := s.engine.Lookup(recovered.ID); ok {
			s.producers.restore(s.partitions.of(slot), recovered.End, recovered.Attachment, recovered.Headers)
		}
		recovered.Attachment, recovered.Headers = nil, nil
	}
}

// Attachment writes what a log's checkpoint is to keep for the shard: the windows
// of its producers.
func (s *Shard) Attachment(slot engine.Slot, dst []byte) int {
	return s.producers.attachment(s.partitions.of(slot), dst)
}

// Done says that the shard has stopped: all logs are written, nothing is in flight.
func (s *Shard) Done() bool { return s.stage == StageDone }

// Failed says that the shard acknowledges nothing more: a write or sync failed.
func (s *Shard) Failed() bool { return s.failed }

// Fault is why the shard stopped by itself, other than for a failed write or sync; "" if
// it did not.
func (s *Shard) Fault() string { return s.fault }

// ShortOfRoom says that a file cannot be made or grown, for lack of space or for another
// reason.
func (s *Shard) ShortOfRoom() bool { _, short := s.engine.Shortage(); return short }

// Serving says that the shard listens and has not begun to stop.
func (s *Shard) Serving() bool { return s.stage == StageServing }

// InFlight is how many requests have not been answered yet.
func (s *Shard) InFlight() int { return s.requests.inFlight }
