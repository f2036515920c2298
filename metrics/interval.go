package metrics

const (
	// SlowKept is how many requests of each kind an interval keeps.
	SlowKept = 8
	// IntervalNS is how long an interval is, at least.
	IntervalNS = 1e9
	// ObjectivesMax is how many topics of a shard may have an objective.
	ObjectivesMax = 64
)

// Interval is what a shard recorded in some time. It holds no pointer.
type Interval struct {
	Began, Ended int64 // the shard's clock
	Wall         int64 // ms since 1970, when it ended
	Kinds        [RecordedKinds]IntervalKind
	Objectives   [ObjectivesMax]Objective // the first ObjectivesN of them
	ObjectivesN  int64
}

// IntervalKind is what an interval has of one kind of request.
type IntervalKind struct {
	Counts Counts // of NS
	N      int64  // of Slowest
	least  int64  // with N = SlowKept, what a request has to exceed to be among them
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

// Objective is the latency objective of a topic and how far it was kept, since the
// start of the shard.
type Objective struct {
	LimitNS   int64
	Total     uint64 // requests
	Missed    uint64 // of them slower than the limit
	TargetPPM int64  // so many of a million requests should be within the limit
	TopicLen  uint32
	TopicName [TopicNameMax + 7]byte
}

// Topic is the name of the topic.
func (o *Objective) Topic() string { return string(o.TopicName[:o.TopicLen]) }

// Objectives is the place for objectives, which the shard fills if Due reports that the
// interval ends.
func (f *Flight) Objectives() *[ObjectivesMax]Objective {
	return &f.table.intervals[f.live].Objectives
}

// Due reports whether the interval ends with this turn: it is over and the one before it
// was taken, or Ask was called. Roll has to follow.
func (f *Flight) Due(now int64) bool {
	switch f.handed.Load() {
	case asked:
		return true
	case shardHas:
		return now-f.table.intervals[f.live].Began >= IntervalNS
	}
	return false
}

// Roll ends the interval. objectives is how many of Objectives were filled.
func (f *Flight) Roll(now, wall int64, objectives int) {
	v := &f.table.intervals[f.live]
	v.Ended, v.Wall, v.ObjectivesN = now, wall, int64(objectives)
	f.live ^= 1
	f.table.intervals[f.live].reset(now)
	f.handed.Store(collectorHas)
}

// Ask makes the shard end its interval in its next turn. A shard that sleeps has to be
// woken. Another thread calls it.
func (f *Flight) Ask() { f.handed.CompareAndSwap(shardHas, asked) }

// Take copies the last interval that ended; false if none has ended since the last that
// was taken. Another thread calls it.
func (f *Flight) Take(into *Interval) bool {
	if f.handed.Load() != collectorHas {
		return false
	}
	*into = f.table.intervals[f.live^1] // as in Collect
	f.handed.Store(shardHas)
	return true
}
