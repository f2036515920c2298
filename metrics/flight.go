package metrics

import (
	"math/bits"
	"sync/atomic"
	"unsafe"
)

// The flight recorder keeps the slowest requests of each interval whole: when
// they reached each stage, and what the shard's turns, its thread and its disk
// did meanwhile.
//
// A request carries its stamps, as it does anyhow. What happened around them
// stands in a circle of turns, one entry each, of sums since the start: what
// happened between two stamps is the difference of two entries. They are looked
// up for a request that is among the slowest when it is over, and for no other.

// DiskWork is a kind of work that a shard has its disk do.
type DiskWork int

// The kinds, in the order in which the shard gives them.
const (
	DiskFrames DiskWork = iota
	DiskRuns
	DiskDrains
	DiskCheckpoints
	DiskFiles
	DiskReads
	DiskWorks // how many there are
)

var diskNames = [DiskWorks]string{"journal frames", "runs", "drains", "checkpoints", "files", "cold reads"}

// Name is the kind's name.
func (w DiskWork) Name() string { return diskNames[w] }

// turn is one turn: sums since the start, as they were when it began; what the
// disk had been given and had done when it ended.
type turn struct {
	at    int64
	seq   uint64
	busy  int64 // ns inside turns
	away  int64 // ns the thread waited for a CPU
	gc    int64 // ns it was kept from running by Go's collector
	steal int64 // ns it was on no CPU for another reason: the host's
	begun [DiskWorks]uint64
	over  [DiskWorks]uint64
}

const (
	turnsKept   = 4096 // the last ones
	coarseEvery = 64   // of the ones before every so many-th
	coarseKept  = 2048
	// SlowKept is how many requests of each kind an interval keeps.
	SlowKept = 8
	// RecordedKinds are the kinds that are recorded: produce and fetch.
	RecordedKinds = 2
	// IntervalNS is how long an interval is, at least.
	IntervalNS = 1e9
	// ObjectivesMax is how many topics of a shard may have an objective.
	ObjectivesMax = 64
	// TopicNameMax is the longest name of a topic, in Kafka.
	TopicNameMax = 249
)

// Step is what happened on the way to a stage from the one before it. All of it
// in ns, but for Turns.
type Step struct {
	Turns int64 `json:"turns"` // that began in it
	Busy  int64 `json:"busy_ns"`
	Away  int64 `json:"away_ns"`
	GC    int64 `json:"gc_ns"`
	Steal int64 `json:"steal_ns"`

	// Of those, what certainly made it longer: what came between the turn that
	// asked for something and the asking, and between the turn before the one
	// that saw the outcome and that.
	LateBusy  int64 `json:"late_busy_ns"`
	LateAway  int64 `json:"late_away_ns"`
	LateGC    int64 `json:"late_gc_ns"`
	LateSteal int64 `json:"late_steal_ns"`
}

// Waits are what a request had to wait for beside the disk.
type Waits uint32

// The things there are to wait for.
const (
	WaitedMemory      Waits = 1 << iota // log memory: drains give it back
	WaitedRoom                          // room in its log's file
	WaitedJournal                       // the journal was full: a checkpoint frees it
	WaitedReader                        // memory or a turn that slow readers hold
	WaitedReadBuffers                   // for cold reads
)

// Slow is one request, whole. It holds no pointer.
type Slow struct {
	Stamps  Timeline
	Written int64 // produce: when the write of its frame was over; the rest to Durable is the sync
	Idle    int64 // fetch: ns it waited for data, which nobody is to blame for
	// Early is what went on while its last byte may have come unseen: it came at
	// some time between the turn before and its own, half of that counts.
	Early Step
	Steps [Stages]Step

	// At the disk between Submitted and Durable, in bytes: what was under way
	// then, and what came.
	Disk       [DiskWorks]int64
	FrameBytes int64 // of the frame or run that it went with
	OwnBytes   int64 // appended and not durable, of its log, when it was and until it was durable
	OtherBytes int64 // and of others

	Bytes     int64 // of record batches
	Offset    int64 // base offset, or the offset asked for
	Partition int32
	Parts     int32 // how many partitions it names
	Waited    Waits
	TopicLen  uint32
	TopicName [TopicNameMax + 7]byte
}

// Topic is the name of its first topic; empty where it is not known.
func (s *Slow) Topic() string { return string(s.TopicName[:s.TopicLen]) }

// NS is how long it took, without what nobody is to blame for.
func (s *Slow) NS() int64 { return s.Stamps[Sent] - s.Stamps[Received] - s.Idle }

// Counts are durations by size: 16 buckets for each doubling, so that a
// quantile is true to 5 %.
type Counts [countBuckets]uint32

const countBuckets = 16 * 36

func bucketOf(ns int64) int {
	v := uint64(max(ns, 0)) >> 6 // 64 ns
	if v < 16 {
		return int(v)
	}
	shift := bits.Len64(v) - 5
	return min(16*(shift+1)+int(v>>shift)-16, countBuckets-1)
}

// bucketTop is the largest duration that a bucket counts.
func bucketTop(i int) int64 {
	if i < 16 {
		return int64(i+1)<<6 - 1
	}
	shift := i/16 - 1
	return (int64(16+i%16+1)<<shift)<<6 - 1
}

// Add counts o's too.
func (c *Counts) Add(o *Counts) {
	for i, n := range o {
		c[i] += n
	}
}

// Total is how many were counted.
func (c *Counts) Total() (n int64) {
	for _, k := range c {
		n += int64(k)
	}
	return n
}

// Quantile is what so many percent do not exceed.
func (c *Counts) Quantile(percent float64) int64 {
	want := int64(percent/100*float64(c.Total()) + 0.5)
	for i, k := range c {
		if want -= int64(k); want <= 0 && k > 0 {
			return bucketTop(i)
		}
	}
	return 0
}

// Objective is what a topic was promised, and what became of it, since the start
// of the shard.
type Objective struct {
	LimitNS   int64
	Total     uint64 // requests
	Missed    uint64 // of them, slower than the limit
	TargetPPM int64  // so many of a million requests are to keep it
	TopicLen  uint32
	TopicName [TopicNameMax + 7]byte
}

// Topic is its name.
func (o *Objective) Topic() string { return string(o.TopicName[:o.TopicLen]) }

// Interval is what a shard recorded within some time. It holds no pointer.
type Interval struct {
	Began, Ended int64 // the shard's clock
	Wall         int64 // ms since 1970, when it ended
	Kinds        [RecordedKinds]IntervalKind
	Objectives   [ObjectivesMax]Objective // the first ObjectivesN of them
	ObjectivesN  int64
}

// IntervalKind is one kind of request in it.
type IntervalKind struct {
	Counts Counts // of NS
	N      int64  // of Slowest
	least  int64  // what a request has to exceed to be among them, where N is SlowKept
	// Slowest are in no order.
	Slowest [SlowKept]Slow
}

func (v *Interval) reset(now int64) {
	v.Began, v.Ended, v.ObjectivesN = now, now, 0
	for k := range v.Kinds {
		v.Kinds[k].Counts = Counts{}
		v.Kinds[k].N, v.Kinds[k].least = 0, 0
	}
}

// Flight is one shard's recorder. It lives on the shard's core, in memory that it
// was given, and allocates none. Only Take and Ask are for another thread, one.
type Flight struct {
	now    turn // sums, up to now
	seq    uint64
	early  Step // of the turn under way
	table  *flightTable
	live   int
	handed atomic.Uint32 // as in Shard: shardHas -> (asked) -> collectorHas -> shardHas
}

type flightTable struct {
	turns     [turnsKept]turn
	coarse    [coarseKept]turn
	intervals [2]Interval
}

// FlightBytes is how much memory a Flight takes, aligned to 64.
const FlightBytes = int(unsafe.Sizeof(flightTable{}))

// NewFlight makes a recorder in memory of FlightBytes, which is zeroed.
func NewFlight(memory []byte) *Flight {
	if len(memory) < FlightBytes || uintptr(unsafe.Pointer(unsafe.SliceData(memory)))%64 != 0 {
		panic("metrics: a flight recorder's memory is too small or not aligned")
	}
	return &Flight{table: (*flightTable)(unsafe.Pointer(unsafe.SliceData(memory)))}
}

// Begin begins a turn.
func (f *Flight) Begin(now int64) {
	if f.seq == 0 {
		f.table.intervals[f.live].reset(now)
	}
	before := f.entry(f.seq)
	f.seq++
	f.now.at, f.now.seq = now, f.seq
	e := f.entry(f.seq)
	*e = f.now
	if f.seq%coarseEvery == 0 {
		f.table.coarse[f.seq/coarseEvery%coarseKept] = f.now
	}
	f.early = Step{}
	if f.seq > 1 {
		f.early.span(before, e)
		f.early.last(before, e)
		f.early.LateBusy /= 2
		f.early.LateAway /= 2
		f.early.LateGC /= 2
		f.early.LateSteal /= 2
	}
}

func (f *Flight) entry(seq uint64) *turn { return &f.table.turns[seq%turnsKept] }

// Turned says how long the turn took that Begin began, in pieces.
func (f *Flight) Turned(ns int64) { f.now.busy += ns }

// Kept says how long the shard's thread did not run since it was said last:
// for want of a CPU, for Go's collector, for the host.
func (f *Flight) Kept(away, gc, steal int64) {
	f.now.away += away
	f.now.gc += gc
	f.now.steal += steal
}

// Disk says what the disk has been given and has done, at a turn's end.
func (f *Flight) Disk(begun, over *[DiskWorks]uint64) {
	e := f.entry(f.seq)
	e.begun, e.over = *begun, *over
	f.now.begun, f.now.over = *begun, *over
}

// Early is what went on while what this turn was the first to see may have come:
// half of what lies between the turn before and this one.
func (f *Flight) Early() *Step { return &f.early }

// EarlyNS is how long of that the shard did something else.
func (f *Flight) EarlyNS() int64 {
	return f.early.LateBusy + f.early.LateAway + f.early.LateGC + f.early.LateSteal
}

// Add counts a request of a kind that took ns. Where it is among the slowest of
// its interval, early included, it gives the place that is to be filled, and to
// be followed by Surround; else nil.
func (f *Flight) Add(k Kind, ns, early int64) *Slow {
	v := &f.table.intervals[f.live].Kinds[k]
	v.Counts[bucketOf(ns)]++
	score := ns + early
	if v.N < SlowKept {
		v.N++
		s := &v.Slowest[v.N-1]
		if v.N == SlowKept {
			v.least = 0 // looked for when the next one comes
		}
		return s
	}
	if score <= v.least {
		return nil
	}
	at, least, next := 0, int64(1<<63-1), int64(1<<63-1)
	for i := range v.Slowest {
		s := v.Slowest[i].NS() + v.Slowest[i].EarlyNS()
		if s < least {
			at, least, next = i, s, least
		} else {
			next = min(next, s)
		}
	}
	if score <= least {
		v.least = least
		return nil
	}
	v.least = min(next, score)
	return &v.Slowest[at]
}

// EarlyNS is how long it may have lain unseen while the shard did something else.
func (s *Slow) EarlyNS() int64 {
	return s.Early.LateBusy + s.Early.LateAway + s.Early.LateGC + s.Early.LateSteal
}

// Surround fills in what happened around a request whose stamps are set.
func (f *Flight) Surround(s *Slow) {
	s.Steps, s.Disk = [Stages]Step{}, [DiskWorks]int64{}
	var before *turn
	for i := range s.Stamps {
		if s.Stamps[i] == 0 {
			continue
		}
		here := f.find(s.Stamps[i])
		if before != nil && here.seq > before.seq {
			s.Steps[i].between(f, before, here)
			if Stage(i) == Durable {
				end := here // what this turn gave the disk was for others, later
				if e := f.near(here.seq - 1); e != nil {
					end = e
				}
				for w := range s.Disk {
					s.Disk[w] = int64(end.begun[w] - before.over[w])
				}
			}
		}
		before = here
	}
}

// find is the turn that began at a time, or the last that is known before it. It
// is the oldest where none is.
func (f *Flight) find(at int64) *turn {
	n := min(f.seq, turnsKept)
	if oldest := f.entry(f.seq - n + 1); oldest.at <= at || f.seq <= turnsKept {
		low, high := f.seq-n+1, f.seq // the answer is in low..high
		for low < high {
			mid := high - (high-low)/2
			if f.entry(mid).at <= at {
				low = mid
			} else {
				high = mid - 1
			}
		}
		return f.entry(low)
	}
	last := f.seq / coarseEvery
	low, high := last-min(last-1, coarseKept-1), last
	for low < high {
		mid := high - (high-low)/2
		if f.table.coarse[mid%coarseKept].at <= at {
			low = mid
		} else {
			high = mid - 1
		}
	}
	return &f.table.coarse[low%coarseKept]
}

// near is the turn after another that is known, or before it.
func (f *Flight) near(seq uint64) *turn {
	if seq+turnsKept > f.seq {
		return f.entry(seq)
	}
	return nil
}

// span is what happened between two turns' beginnings.
func (s *Step) span(a, b *turn) {
	s.Turns = int64(b.seq - a.seq)
	s.Busy, s.Away, s.GC, s.Steal = b.busy-a.busy, b.away-a.away, b.gc-a.gc, b.steal-a.steal
}

// last counts what lies between two turns that follow each other as what made
// the step longer. What the thread was kept from running inside a turn is not
// the turn's work.
func (s *Step) last(a, b *turn) {
	away, gc, steal := b.away-a.away, b.gc-a.gc, b.steal-a.steal
	s.LateAway += away
	s.LateGC += gc
	s.LateSteal += steal
	s.LateBusy += max(0, b.busy-a.busy-away-gc-steal)
}

func (s *Step) between(f *Flight, a, b *turn) {
	s.span(a, b)
	first, before := f.near(a.seq+1), f.near(b.seq-1)
	if first == nil || before == nil { // too long ago to tell turns apart
		s.LateAway, s.LateGC, s.LateSteal = s.Away, s.GC, s.Steal
		if s.Turns > 0 {
			s.LateBusy = 2 * max(0, s.Busy-s.Away-s.GC-s.Steal) / s.Turns
		}
		return
	}
	s.last(a, first)
	if before.seq > a.seq {
		s.last(before, b)
	}
}

// Objectives is room for objectives, to be filled when Due says that the
// interval ends.
func (f *Flight) Objectives() *[ObjectivesMax]Objective {
	return &f.table.intervals[f.live].Objectives
}

// Due says that the interval ends with this turn: it is over and the one before
// it was taken, or somebody asked. Roll is to follow.
func (f *Flight) Due(now int64) bool {
	switch f.handed.Load() {
	case asked:
		return true
	case shardHas:
		return now-f.table.intervals[f.live].Began >= IntervalNS
	}
	return false
}

// Roll ends the interval. objectives is how many of them were filled in.
func (f *Flight) Roll(now, wall int64, objectives int) {
	v := &f.table.intervals[f.live]
	v.Ended, v.Wall, v.ObjectivesN = now, wall, int64(objectives)
	f.live ^= 1
	f.table.intervals[f.live].reset(now)
	f.handed.Store(collectorHas)
}

// Ask has the shard end its interval in its next turn. A shard that sleeps has to
// be woken. Another thread calls it.
func (f *Flight) Ask() { f.handed.CompareAndSwap(shardHas, asked) }

// Take copies the last interval that ended, false for none since the last one
// that was taken. Another thread calls it.
func (f *Flight) Take(into *Interval) bool {
	if f.handed.Load() != collectorHas {
		return false
	}
	*into = f.table.intervals[f.live^1] // as in Collect
	f.handed.Store(shardHas)
	return true
}
