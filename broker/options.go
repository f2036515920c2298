package broker

import (
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/netring"
	"github.com/tailbound/tailbound/shard"
	"github.com/tailbound/tailbound/shard/control"
)

// Options are what a process decides before any shard exists. A zero means zero, not a
// default: begin with Defaults.
type Options struct {
	// What clients see.
	DataShards    int
	Nodes         []shard.Node   // the control shard's, then one for each data shard; if all are the same, clients see one node
	OtherNodes    [][]shard.Node // the nodes as clients of the second listener see them, then of the third, ...
	ListenerNames []string
	Listeners     [][]int // of each listener: the control shard's socket, then each data shard's; -1: none
	ClusterID     string  // empty: the data directory's id
	DataDir       string  // for messages only

	// What a request may ask for.
	MessageBytesMax    int // one record batch
	AutoCreateTopics   bool
	LogLevel           string // as Kafka writes levels: INFO
	PartitionsDefault  int    // of a topic that is created without a number
	TopicsMax          int
	PartitionsMax      int // of all topics
	ConnsMax           int // of a shard
	ConnsPerAddressMax int // of these from one address; 0: ConnsMax; below 0: none
	AddressLimits      []netring.AddressLimit
	FetchSessionsMax   int // of a data shard
	RetentionCheckNS   int64
	RequestTimeoutNS   int64 // how long receiving a request may take
	DrainNS            int64 // how long a stop waits for answers to requests in flight
	Groups             control.GroupOptions
	ReadOnlyOnFailure  bool // after a failed write the shard continues with reads; otherwise the process ends
	Log                shard.Logger
	Seed               uint64   // of random choices
	NewDirectory       [16]byte // the id of a data directory that is made now

	// What a shard gets of the machine. Plan divides it.
	ArenaBytes         int     // of a data shard
	JournalBytes       int     // of a data shard
	SpareBytes         int64   // of logs' released files that a data shard keeps for reuse; 0: SpareBytesMax; below 0: none
	PrepareBytes       int64   // of files of zeroes that a data shard keeps ready
	InflightMax        int     // journal writes of a shard in flight, and direct runs of a log
	DirectBytes        int     // from this size on a log's batches are written directly to its segment; 0: never
	ReceiveBufferBytes int     // of a data shard
	Memory             *Memory // the simulator's sizes, of every shard; nil: those that follow from ArenaBytes

	// How threads run. The simulator has none.
	CPUs      []int // for data shard i: CPUs[(i-1) % len]; none: not pinned
	OtherCPUs []int // for the control shard and the kernel's workers; none: anywhere
	SpinNS    int64 // how long a thread polls for completions before it sleeps
	Nice      int   // nice value of a data shard's thread and its kernel workers; 0: the process's
	RootFD    int   // the data directory
	Features  ioring.FeatureMask
	Buffered  bool

	// Planted bugs, for the simulator only.
	EngineFaults engine.Faults
	ShardFaults  shard.Faults
}

// Defaults returns the default options. Measurements of them are in docs/decisions.
func Defaults() Options {
	return Options{
		MessageBytesMax: 1<<20 + 12, AutoCreateTopics: true, LogLevel: "INFO", PartitionsDefault: 1, TopicsMax: 4096, PartitionsMax: 4096,
		ConnsMax: 4096, FetchSessionsMax: shard.SessionsMax, RetentionCheckNS: shard.RetentionCheckNS, RequestTimeoutNS: 10e9, DrainNS: shard.DrainNS, Groups: control.DefaultGroupOptions(),
		ArenaBytes: 256 << 20, JournalBytes: 128 << 20, InflightMax: 2, DirectBytes: 64 << 10, ReceiveBufferBytes: 64 << 10,
		SpinNS: 20e3, Nice: -15, Features: ioring.AllFeatures,
	}
}
