package broker

import (
	"fmt"

	"github.com/tailbound/tailbound/cluster/groups"
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/engine/recovery"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
	"github.com/tailbound/tailbound/netring"
	"github.com/tailbound/tailbound/shard"
	"github.com/tailbound/tailbound/shard/control"
)

// ErrArena is the error of a plan or a start for which the system does not give an arena.
var ErrArena = mem.ErrMap

// Memory is how one shard's arena is divided, and how long its tables are. Every pool
// is a term of one sum:
//
//	receive     requests being received, and requests that wait  1/4 of the arena
//	replies, mail between shards                                 1/16
//	fetch sessions                                               1/32
//	the engine's run, read and checkpoint buffers                by its limits
//	log memory  open frames, unflushed data, cache               the rest, about half
//
// shard.Open allocates in this order, and refuses by its name what does not fit.
type Memory struct {
	ArenaBytes    int
	RecoveryBytes int // of the arena that the data directory is recovered in

	// Connections and requests.
	ListenersMax       int // file slots of listeners; the engine's follow them
	ConnsMax           int
	RequestsMax        int // in flight
	PipelineMax        int // of these, of one connection
	RequestBytesMax    int // one request
	ReceiveBufferBytes int
	ReceiveBuffers     int
	ReplyBlocks        int // of 4 KiB
	AttachedMax        int // slices of replies that are sent by reference
	MailBytes          int // a power of two

	// Logs.
	LogsMax        int
	FilesMax       int // that the engine has open
	SegmentBytes   int
	JournalBytes   int
	LogMemoryBytes int // at most; less if less of the arena is left
	BatchBytesMax  int
	CheckLogs      int   // as in engine.Options
	CheckPauseNS   int64 // as in engine.Options

	// Tables.
	ProducersMax         int // windows of idempotent producers
	WaitersMax           int // partitions named by requests in flight
	SessionsMax          int
	SessionPartitionsMax int // in all sessions
}

const (
	// ArenaBytesMin is the smallest arena of a data shard.
	ArenaBytesMin = 64 << 20
	// SpareBytesMax bounds the files of logs that a data shard keeps for reuse.
	SpareBytesMax = 2 << 30
	// PrepareBytesMin is the least that a data shard keeps preallocated, if it does.
	PrepareBytesMin = engine.PrepareBytesMin
	// InflightLimit bounds Options.InflightMax.
	InflightLimit = engine.InflightLimit
	// ListenersMax is how many listeners a broker may have.
	ListenersMax = 8

	listenerSlot      = 0 // file slot of the first listener
	controlArena      = 96 << 20
	controlBatchBytes = 3 << 19 // one command: the members of a group, and a batch around them
	receiveBuffersMax = 1 << 15 // the kernel numbers them with 16 bits
	socketsSpare      = 64      // for refused connections until they are closed
	descriptorsSpare  = 1024    // for the process's rings, listeners and profiling
)

// Plan divides the memory of each shard: [0] is the control shard's plan. All data
// shards have the same.
func Plan(o Options) ([]Memory, error) {
	var control, data Memory
	switch {
	case o.Memory != nil:
		control, data = *o.Memory, *o.Memory
	case o.ArenaBytes < ArenaBytesMin:
		return nil, fmt.Errorf("an arena of %d MiB is too small: a data shard needs at least %d MiB", o.ArenaBytes>>20, ArenaBytesMin>>20)
	default:
		control, data = controlMemory(o), dataMemory(o, o.ArenaBytes)
	}
	plan := []Memory{control}
	if o.Memory == nil {
		var err error
		if plan[0].RecoveryBytes, err = recovery.ArenaBytes(recoverOptions(o, plan)); err != nil {
			return nil, err
		}
	}
	for range o.DataShards {
		plan = append(plan, data)
	}
	return plan, nil
}

func dataMemory(o Options, arena int) Memory {
	m := Memory{
		ArenaBytes: arena, RecoveryBytes: arena,
		ListenersMax: ListenersMax, ConnsMax: o.ConnsMax, RequestsMax: 2048, PipelineMax: 256,
		ReceiveBufferBytes: o.ReceiveBufferBytes, ReceiveBuffers: min(floorPower(arena/4/o.ReceiveBufferBytes), receiveBuffersMax),
		ReplyBlocks: arena / 32 / 4096, MailBytes: min(4<<20, arena/32),
		LogsMax: max(64, o.PartitionsMax), FilesMax: 2048, SegmentBytes: 256 << 20, JournalBytes: o.JournalBytes, LogMemoryBytes: arena, BatchBytesMax: o.MessageBytesMax,
		ProducersMax: 16384,
		WaitersMax:   max(16384, 4*o.PartitionsMax), // one request may use a quarter, and may name every partition
		SessionsMax:  o.FetchSessionsMax, SessionPartitionsMax: arena / 32 / shard.SessionPartitionBytes,
	}
	m.RequestBytesMax = m.ReceiveBuffers * m.ReceiveBufferBytes / 4
	m.AttachedMax = 16 * m.RequestsMax
	return m
}

func controlMemory(o Options) Memory {
	m := dataMemory(o, controlArena)
	// Requests are many and small, and each waiting connection holds a buffer.
	m.ReceiveBufferBytes, m.ReceiveBuffers, m.RequestBytesMax = 16<<10, 1024, 4<<20
	m.MailBytes = 32 << 20
	m.LogsMax = 16
	m.JournalBytes = 8 << 20
	m.LogMemoryBytes = 16 << 20
	m.SegmentBytes = 64 << 20
	m.BatchBytesMax = controlBatchBytes // its batches are commands, whatever size clients' batches have
	m.ProducersMax = 16
	m.SessionPartitionsMax = 0 // it leads no partition, so it has no sessions
	return m
}

func floorPower(n int) int {
	p := 1
	for p*2 <= n {
		p *= 2
	}
	return p
}

// mailboxCapacity returns how many messages fit between two shards.
func mailboxCapacity(plan []Memory) int { return 4 * plan[len(plan)-1].RequestsMax }

// shardOptions returns the options of shard i.
func shardOptions(o Options, plan []Memory, i int) shard.Options {
	m := plan[i]
	return shard.Options{
		Shard: i, DataShards: o.DataShards, Nodes: o.Nodes, OtherNodes: o.OtherNodes, ListenerNames: o.ListenerNames,
		Hidden: len(o.Listeners) > 0 && o.Listeners[0][i] < 0, ClusterID: o.ClusterID, DataDir: o.DataDir,
		MessageBytesMax: o.MessageBytesMax, AutoCreateTopics: o.AutoCreateTopics, LogLevel: o.LogLevel, PartitionsDefault: o.PartitionsDefault,
		TopicsMax: o.TopicsMax, PartitionsMax: o.PartitionsMax, RetentionCheckNS: o.RetentionCheckNS, DrainNS: o.DrainNS,
		ProducersMax: m.ProducersMax, WaitersMax: m.WaitersMax, SessionsMax: m.SessionsMax, SessionPartitionsMax: m.SessionPartitionsMax, MailBytes: m.MailBytes,
		DataFrameBytesMax: plan[len(plan)-1].RequestBytesMax, Net: netOptions(o, m), Engine: engineOptions(o, m), Faults: o.ShardFaults,
	}
}

func netOptions(o Options, m Memory) netring.Options {
	return netring.Options{
		Listener: listenerSlot, Listeners: max(1, len(o.Listeners)), ConnsMax: m.ConnsMax, ConnsPerAddressMax: o.ConnsPerAddressMax, AddressLimits: o.AddressLimits,
		RequestsMax: m.RequestsMax, RequestBytesMax: m.RequestBytesMax, PipelineMax: m.PipelineMax,
		ReceiveBufferBytes: m.ReceiveBufferBytes, ReceiveBuffers: m.ReceiveBuffers, ReplyBlocks: m.ReplyBlocks, AttachedMax: m.AttachedMax,
		ProgressTimeoutNS: o.RequestTimeoutNS, IdleTimeoutNS: 600e9, SendTimeoutNS: 60e9,
	}
}

func engineOptions(o Options, m Memory) engine.Options {
	direct := o.DirectBytes
	if direct == 0 {
		direct = -1
	}
	return engine.Options{
		LogsMax: m.LogsMax, SegmentBytes: m.SegmentBytes, JournalBytes: m.JournalBytes, LogMemoryBytes: m.LogMemoryBytes, BatchBytesMax: m.BatchBytesMax,
		SpareBytes: o.SpareBytes, PrepareBytes: o.PrepareBytes, InflightMax: o.InflightMax, DirectBytes: direct, AttachmentsBytes: shard.AttachmentsBytes(m.ProducersMax),
		CheckLogs: m.CheckLogs, CheckPauseNS: m.CheckPauseNS, Files: uint32(m.ListenersMax), FilesMax: m.FilesMax, Faults: o.EngineFaults,
	}
}

// recoverOptions returns the options of recovery: the control shard's, with the largest
// batch of all shards.
func recoverOptions(o Options, plan []Memory) recovery.Options {
	e := engineOptions(o, plan[0])
	e.BatchBytesMax = o.MessageBytesMax
	return recovery.Options{Options: e, Shards: o.DataShards, Shard0: plan[0].BatchBytesMax, Seed: o.NewDirectory, TimesChecked: control.TimesChecked, Prune: shard.PruneHeaders}
}

// kernelOptions returns the options of the io_uring of a shard with this plan.
func kernelOptions(o Options, m Memory, workers []int) ioring.KernelOptions {
	return ioring.KernelOptions{
		Entries: 1024, CQEntries: 8192, Files: m.ListenersMax + m.FilesMax, Sockets: m.ConnsMax + socketsSpare,
		RootFD: o.RootFD, ReceiveBuffers: m.ReceiveBuffers, Features: o.Features, Buffered: o.Buffered,
		SpinNS: o.SpinNS, IOWQCPUs: workers,
	}
}

// FilesNeeded returns what RLIMIT_NOFILE has to allow: a ring may not have more file
// slots than that, and the process needs descriptors besides.
func FilesNeeded(o Options) (int, error) {
	plan, err := Plan(o)
	if err != nil {
		return 0, err
	}
	k := kernelOptions(o, plan[len(plan)-1], nil)
	return k.Files + k.Sockets + descriptorsSpare, nil
}

// PlanPools allocates the pools and tables of a shard as Compose would,
// without a ring and a directory, and says what it took. Errors are those of a
// start with such options.
func PlanPools(o Options, i int) (shard.Plan, error) {
	plan, err := Plan(o)
	if err != nil {
		return shard.Plan{}, err
	}
	arena, err := mem.Map(plan[i].ArenaBytes, mem.Options{})
	if err != nil {
		return shard.Plan{}, err
	}
	defer arena.Unmap()
	return shard.PlanPools(arena, shardOptions(o, plan, i))
}

// GroupPools is what consumer groups take of Go's heap when there are as many as may be.
// None of it is taken before.
func GroupPools(o Options) []shard.Pool {
	pool := func(name string, count, each int) shard.Pool {
		return shard.Pool{Name: name, Count: count, Each: each, Bytes: count * each}
	}
	return []shard.Pool{
		pool("groups", o.Groups.GroupsMax, groups.GroupHeapBytes),
		pool("members, subscriptions and offsets, counted bytes", o.Groups.BytesMax, groups.CountedHeapBytes),
	}
}

// RecoveryPools is the memory that a start takes at most if no journal has more than
// journalBytes: what is mapped, and what is in Go's heap. It is given back before a shard
// takes its own.
func RecoveryPools(o Options, journalBytes int) (mapped, heap []shard.Pool, err error) {
	plan, err := Plan(o)
	if err != nil {
		return nil, nil, err
	}
	data := plan[len(plan)-1]
	options := recoverOptions(o, plan)
	options.AttachmentsBytes = o.DataShards * shard.AttachmentsBytes(data.ProducersMax)
	needs, err := recovery.Needs(options, journalBytes, plan[0].LogsMax+o.PartitionsMax)
	if err != nil {
		return nil, nil, err
	}
	needs = append(needs, recovery.Need{Name: "producers", Count: o.DataShards * data.ProducersMax, Each: shard.PrunedBytes, Heap: true})
	for _, need := range needs {
		pool := shard.Pool{Name: need.Name, Count: need.Count, Each: need.Each, Bytes: need.Count * need.Each}
		if need.Heap {
			heap = append(heap, pool)
		} else {
			mapped = append(mapped, pool)
		}
	}
	return mapped, heap, nil
}

// MailboxBytes returns the memory of the mailboxes between all shards, which is outside
// the arenas.
func MailboxBytes(o Options) (int, error) {
	plan, err := Plan(o)
	if err != nil {
		return 0, err
	}
	return shard.PostBytes(o.DataShards, mailboxCapacity(plan)), nil
}

// The sizes for an offline check of a data directory.
const (
	CheckArenaBytes = 256 << 20
	CheckFiles      = 64
)

// CheckOptions returns the engine's options for an offline check.
func CheckOptions() recovery.Options {
	o := Defaults()
	o.MessageBytesMax, o.PartitionsMax = 16<<20, 64
	m := dataMemory(o, CheckArenaBytes)
	m.FilesMax = CheckFiles - m.ListenersMax
	return recovery.Options{Options: engineOptions(o, m), Shards: 1}
}
