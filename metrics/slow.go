package metrics

// TopicNameMax is the longest name of a topic, in Kafka.
const TopicNameMax = 249

// Slow is a recorded request. It holds no pointer.
type Slow struct {
	Stamps  Timeline
	Written int64 // produce: when its journal record was written; the rest until Durable is the sync
	Idle    int64 // fetch: ns it waited for data, which is no delay
	// Early is the window in which its last byte may have arrived unseen: between the
	// turn before and its own, of which half counts.
	Early Step
	Steps [Stages]Step

	// Disk is, in bytes, what was under way at the disk when it was submitted and what
	// came until it was durable.
	Disk       [DiskWorks]int64
	FrameBytes int64 // of the journal record or extent that it was written with
	OwnBytes   int64 // of its own log: not yet synced when it was appended, and appended until it was durable
	OtherBytes int64 // of other logs, likewise

	Bytes     int64 // of record batches
	Offset    int64 // base offset, or the offset asked for
	Partition int32
	Parts     int32 // how many partitions it names
	Waited    Waits
	TopicLen  uint32
	TopicName [TopicNameMax + 7]byte
}

// Topic is the name of its first topic; empty if it is not known.
func (s *Slow) Topic() string { return string(s.TopicName[:s.TopicLen]) }

// NS is how long it took, without Idle.
func (s *Slow) NS() int64 { return s.Stamps[Sent] - s.Stamps[Received] - s.Idle }

// EarlyNS is how long it may have lain unseen while the shard did something else.
func (s *Slow) EarlyNS() int64 {
	return s.Early.LateBusy + s.Early.LateAway + s.Early.LateGC + s.Early.LateSteal
}

// Waits is a set of things other than the disk that a request waited for.
type Waits uint32

// The members of Waits.
const (
	WaitedMemory      Waits = 1 << iota // log memory, which flushes free
	WaitedRoom                          // room in the file of its log
	WaitedJournal                       // room in the journal, which a checkpoint frees
	WaitedReader                        // memory or a turn that slow readers hold
	WaitedReadBuffers                   // buffers for disk reads
)

// DiskWork is a kind of work that a shard gives its disk.
type DiskWork int

// The kinds, in the order in which the shard reports them.
const (
	DiskFrames DiskWork = iota
	DiskRuns
	DiskFlushes
	DiskCheckpoints
	DiskFiles
	DiskReads
	DiskWorks // how many there are
)

var diskNames = [DiskWorks]string{"journal frames", "runs", "drains", "checkpoints", "files", "cold reads"}

// Name is the kind's name.
func (w DiskWork) Name() string { return diskNames[w] }
