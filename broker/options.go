package broker

import (
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/netring"
	"github.com/tailbound/tailbound/shard"
	"github.com/tailbound/tailbound/shard/control"
)

// Options are what a process decides before any shard exists. Zero means zero:
// begin with Defaults.
type Options struct {
	// What clients see.
	DataShards    int
	Nodes         []shard.Node   // the control shard's, then one for each data shard; twice the same: clients see one node
	OtherNodes    [][]shard.Node // as clients see them who come by the second listener, the third, ...
	ListenerNames []string
	Listeners     [][]int // of each listener: the control shard's socket, then each data shard's; -1: none
	ClusterID     string  // empty: the data directory's id
	DataDir       string  // for people to read

	// What a request may ask for.
	MessageBytesMax    int // one record batch
	AutoCreateTopics   bool
	PartitionsDefault  int // of a topic that is created without a number
	TopicsMax          int
	PartitionsMax      int // of all topics
	ConnsMax           int // of a shard
	ConnsPerAddressMax int // of them; 0: ConnsMax; below 0: none
	AddressLimits      []netring.AddressLimit
	FetchSessionsMax   int // of a data shard
	RetentionCheckNS   int64
	RequestTimeoutNS   int64 // how long a request may take to come in
	Groups             control.GroupOptions
	ReadOnlyOnFailure  bool // what a failed write leads to: the shard goes on with reads, or the process ends
	Log                shard.Logger
	Seed               uint64   // of what is drawn at random
	NewDirectory       [16]byte // the id of a data directory that is made now

	// What a shard gets of the machine. Plan says what becomes of it.
	ArenaBytes         int     // of a data shard
	JournalBytes       int     // of a data shard
	SpareBytes         int64   // of files that logs let go, which a data shard keeps; 0: SpareBytesMax; below 0: none
	PrepareBytes       int64   // of files of zeroes that a data shard keeps ready
	InflightMax        int     // journal writes of a shard at a time, and direct runs of a log
	DirectBytes        int     // a log's batches that come to this are written to its segment at once; 0: none are
	ReceiveBufferBytes int     // of a data shard
	Memory             *Memory // the simulator's sizes, of every shard; nil: those that follow from ArenaBytes

	// How threads run. The simulator has none.
	CPUs      []int // for data shard i: CPUs[(i-1) % len]; none: not pinned
	OtherCPUs []int // for the control shard and the kernel's workers; none: anywhere
	SpinNS    int64 // a thread looks for completions so long before it sleeps
	Nice      int   // of a data shard's thread and the kernel's workers that it has; 0: as the process has it
	RootFD    int   // the data directory
	Features  ioring.FeatureMask
	Buffered  bool

	// Planted bugs, for the simulator only.
	EngineFaults engine.Faults
	ShardFaults  shard.Faults
}

// Defaults are the options that fit most. What was measured of each is in
// docs/decisions.
func Defaults() Options {
	return Options{
		MessageBytesMax: 1<<20 + 12, AutoCreateTopics: true, PartitionsDefault: 1, TopicsMax: 4096, PartitionsMax: 4096,
		ConnsMax: 4096, FetchSessionsMax: shard.SessionsMax, RetentionCheckNS: shard.RetentionCheckNS, RequestTimeoutNS: 10e9, Groups: control.DefaultGroupOptions(),
		ArenaBytes: 256 << 20, JournalBytes: 128 << 20, InflightMax: 2, DirectBytes: 64 << 10, ReceiveBufferBytes: 64 << 10,
		SpinNS: 20e3, Nice: -15, Features: ioring.AllFeatures,
	}
}
