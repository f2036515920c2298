package shard

import (
	"cmp"
	"fmt"

	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/engine/recovery"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/netring"
)

// Memory is how a shard's arena is shared out. Every pool is a term of one sum:
//
//	receive     requests on their way in, and those that wait    1/4 of the arena
//	replies, mail between shards                                 1/16
//	fetch sessions                                               1/32
//	the engine's run, read and checkpoint buffers                by its limits
//	log memory  open frames, undrained journal, cache            what is left, about half
//
// Open carves it in this order; what does not fit is refused there, by name.
type Memory struct {
	ArenaBytes    int
	RecoveryBytes int
	Net           netring.Options
	Engine        engine.Options
	MailBytes     int
	ProducersMax  int
	WaitersMax    int
	SessionsMax   int
	InterestsMax  int
}

// JournalBytesDefault is the size of a data shard's journal where nobody says.
const JournalBytesDefault = 128 << 20

// SpareBytesMax is the most that a data shard keeps of files that logs let go.
const SpareBytesMax = 2 << 30

// PrepareBytesMin is the least that a data shard keeps ready, where it does.
const PrepareBytesMin = engine.PrepareBytesMin

// ConnsMax is how many connections a shard takes where nobody says.
const ConnsMax = 4096

// socketsSpare are for connections that are refused, until they are closed.
const socketsSpare = 64

// FilesNeeded is what RLIMIT_NOFILE has to allow: the kernel refuses a ring
// more file slots than that, and there are some descriptors beside them.
func FilesNeeded(o BrokerOptions) (int, error) {
	plan, err := PlanMemory(o.ArenaBytes, o)
	if err != nil {
		return 0, err
	}
	k := kernelOptions(o, plan[1], nil)
	return k.Files + k.Sockets + descriptorsSpare, nil
}

// descriptorsSpare are the process's own: rings, listeners, what profiles it.
const descriptorsSpare = 1024

const (
	// ArenaBytesMin is the smallest arena of a data shard.
	ArenaBytesMin = 64 << 20
	controlArena  = 96 << 20
	// One command: the members of a group, and a batch around them.
	controlBatchBytes = 3 << 19
	// ListenersMax is how many listeners a broker may have.
	ListenersMax = 8
	listenerSlot = 0
	engineFiles  = ListenersMax // the engine's first file slot
)

// Tuning is how a data shard works where more than one way is sound. What was
// measured of each is in docs/decisions.
type Tuning struct {
	InflightMax        int // frames, and runs of a log, that are written at a time
	DirectBytes        int // what makes a run of its log's own; below 0: nothing does
	ReceiveBufferBytes int
	SpinNS             int64 // a thread looks for completions so long before it sleeps
	Nice               int   // of a data shard's thread and the kernel's workers that it has; 0: as the process has it
}

// Tuned is the way that fits most.
var Tuned = Tuning{InflightMax: 2, DirectBytes: 64 << 10, ReceiveBufferBytes: 64 << 10, SpinNS: 20e3, Nice: -15}

func (t Tuning) orTuned() Tuning {
	if t == (Tuning{}) {
		return Tuned
	}
	return t
}

// PlanMemory shares out the control shard's arena [0] and a data shard's [1].
func PlanMemory(arenaBytes int, o BrokerOptions) ([2]Memory, error) {
	if arenaBytes < ArenaBytesMin {
		return [2]Memory{}, fmt.Errorf("an arena of %d MiB is too small: a data shard needs at least %d MiB", arenaBytes>>20, ArenaBytesMin>>20)
	}
	control := planShard(controlArena, o)
	// Many small requests, and connections that wait hold a buffer each.
	control.Net.ReceiveBufferBytes, control.Net.ReceiveBuffers, control.Net.RequestBytesMax = 16<<10, 1024, 4<<20
	control.MailBytes = 32 << 20
	control.Engine.LogsMax = 16
	control.Engine.JournalBytes = 8 << 20
	control.Engine.LogMemoryBytes = 16 << 20
	control.Engine.SegmentBytes = 64 << 20
	control.ProducersMax = 16
	control.InterestsMax = 0                         // it leads no partition: there are no sessions
	control.Engine.BatchBytesMax = controlBatchBytes // its batches are commands, of no client's size
	return [2]Memory{control, planShard(arenaBytes, o)}, nil
}

func planShard(arena int, o BrokerOptions) Memory {
	tuned := o.Tuning.orTuned()
	receive := arena / 4
	buffers := floorPower(receive / tuned.ReceiveBufferBytes)
	frames := 2048
	conns := o.ConnsMax
	if conns == 0 {
		conns = ConnsMax
	}
	sessions := o.FetchSessionsMax
	if sessions == 0 {
		sessions = SessionsMax
	}
	return Memory{
		ArenaBytes:    arena,
		RecoveryBytes: arena,
		Net: netring.Options{
			Listener: listenerSlot, Listeners: max(1, len(o.Listeners)), ConnsMax: conns, ConnsPerAddressMax: o.ConnsPerAddressMax, AddressLimits: o.AddressLimits, RequestsMax: frames,
			ReceiveBufferBytes: tuned.ReceiveBufferBytes, ReceiveBuffers: buffers, RequestBytesMax: buffers * tuned.ReceiveBufferBytes / 4,
			ProgressTimeoutNS: 10e9, IdleTimeoutNS: 600e9, SendTimeoutNS: 60e9, PipelineMax: 256, ReplyBlocks: arena / 32 / 4096, AttachedMax: 16 * frames,
		},
		Engine: engine.Options{
			LogsMax: max(64, o.PartitionsMax), SegmentBytes: 256 << 20, JournalBytes: cmp.Or(o.JournalBytes, JournalBytesDefault), SpareBytes: o.SpareBytes, PrepareBytes: o.PrepareBytes, LogMemoryBytes: arena,
			BatchBytesMax: o.MessageBytesMax, InflightMax: tuned.InflightMax, DirectBytes: tuned.DirectBytes, Files: engineFiles, FilesMax: 2048,
		},
		MailBytes: min(4<<20, arena/32), ProducersMax: 16384,
		WaitersMax:  max(16384, 4*o.PartitionsMax), // a quarter of them is one request's, which may name every partition
		SessionsMax: max(sessions, 0), InterestsMax: arena / 32 / interestBytes,
	}
}

func floorPower(n int) int {
	p := 1
	for p*2 <= n {
		p *= 2
	}
	return p
}

// options are a shard's own, out of its memory plan.
func (m Memory) options(shard int, o BrokerOptions) Options {
	return Options{
		Shard: shard, DataShards: o.DataShards, Nodes: o.Nodes, ClusterID: o.ClusterID, DataDir: o.DataDir,
		MessageBytesMax: o.MessageBytesMax, AutoCreateTopics: o.AutoCreateTopics, PartitionsDefault: o.PartitionsDefault,
		ProducersMax: m.ProducersMax, WaitersMax: m.WaitersMax, MailBytes: m.MailBytes,
		SessionsMax: m.SessionsMax, InterestsMax: m.InterestsMax,
		RetentionCheckNS: o.RetentionCheckNS, Hidden: len(o.Listeners) > 0 && o.Listeners[0][shard] < 0, OtherNodes: o.OtherNodes, ListenerNames: o.ListenerNames,
		DataFrameBytesMax: planShard(o.ArenaBytes, o).Net.RequestBytesMax,
		TopicsMax:         o.TopicsMax, PartitionsMax: o.PartitionsMax, Net: m.Net, Engine: m.Engine,
	}
}

func (m Memory) recovery(o BrokerOptions) recovery.Options {
	control := m.Engine.BatchBytesMax
	m.Engine.BatchBytesMax = o.MessageBytesMax
	return recovery.Options{Options: m.Engine, Shards: o.DataShards, Shard0: control, Seed: o.NewDirectory}
}

func kernelOptions(o BrokerOptions, m Memory, workers []int) ioring.KernelOptions {
	return ioring.KernelOptions{
		Entries: 1024, CQEntries: 8192, Files: engineFiles + m.Engine.FilesMax, Sockets: m.Net.ConnsMax + socketsSpare,
		RootFD: o.RootFD, ReceiveBuffers: m.Net.ReceiveBuffers, Features: o.Features, Buffered: o.Buffered,
		SpinNS: o.Tuning.orTuned().SpinNS, IOWQCPUs: workers,
	}
}

// What an offline check of a data directory needs: an arena, file slots, and
// the engine's sizes.
const (
	CheckArenaBytes = 256 << 20
	CheckFiles      = 64
)

// CheckOptions are the engine's sizes for a check.
func CheckOptions() recovery.Options {
	m := planShard(CheckArenaBytes, BrokerOptions{MessageBytesMax: 16 << 20, PartitionsMax: 64})
	m.Engine.FilesMax = CheckFiles - engineFiles
	return recovery.Options{Options: m.Engine, Shards: 1}
}
