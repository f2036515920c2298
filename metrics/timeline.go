package metrics

import "sync/atomic"

// Stage is a point on a request's way through a shard.
type Stage int

// The stages, in order. A request stamps those it passes.
const (
	Received  Stage = iota // its last byte was reaped from the ring
	Parsed                 // produce: validated. fetch: decoded
	Appended               // produce: copied to log memory. fetch: there is enough to answer with
	Submitted              // produce: its last frame was pushed. fetch: its last cold read was pushed
	Durable                // produce: durable has passed its end. fetch: its last cold read is verified
	Queued                 // the reply was handed to the connection
	Sent                   // the reply's last byte was taken by the kernel
	Stages                 // how many there are
)

var stageNames = [Kinds][Stages]string{
	Produce: {"received", "parsed", "appended", "submitted", "durable", "queued", "sent"},
	Fetch:   {"received", "parsed", "found", "read", "verified", "queued", "sent"},
	Other:   {"received", "parsed", "done", "submitted", "durable", "queued", "sent"},
}

// Name is the stage's name for a kind of request.
func (s Stage) Name(k Kind) string { return stageNames[k][s] }

// Kind is a kind of request with histograms of its own.
type Kind int

// The kinds.
const (
	Produce Kind = iota
	Fetch
	Other
	Kinds // how many there are
)

var kindNames = [Kinds]string{"produce", "fetch", "other"}

// Name is the kind's name.
func (k Kind) Name() string { return kindNames[k] }

// Timeline is when a request reached each stage, in ns of its shard's clock; 0
// for a stage it did not pass. It belongs to the request.
type Timeline [Stages]int64

// set is one buffer: per kind and stage the time it took to get there from
// the stage before it, and the whole way in place 0, which has no before.
type set [Kinds][Stages]*Histogram

func newSet() *set {
	s := new(set)
	for k := range s {
		for i := range s[k] {
			s[k][i] = NewHistogram()
		}
	}
	return s
}

func (s *set) add(o *set) {
	for k := range s {
		for i := range s[k] {
			if o[k][i].Count() > 0 {
				s[k][i].Add(o[k][i])
			}
		}
	}
}

func (s *set) reset() {
	for k := range s {
		for i := range s[k] {
			if s[k][i].Count() > 0 {
				s[k][i].Reset()
			}
		}
	}
}

// Shard is what one shard records. It lives on that shard's core: Record, Swap
// and Publish are its own, and so is Counters. A Collector on another thread
// sees only what was handed over.
type Shard struct {
	Counters Counters

	sets [2]*set // 24 KiB a histogram: 1 MiB in all
	live int     // which of the two the shard fills

	// handover says whose the set that is not live is.
	// shardHas -> (Collector asks) asked -> (Swap) collectorHas -> shardHas.
	// Each side only makes the steps that are its own, so no step is raced for.
	handover atomic.Uint32

	published publishedCounters
}

const (
	shardHas = iota
	asked
	collectorHas
)

// NewShard makes all memory that recording will ever need.
func NewShard() *Shard {
	return &Shard{sets: [2]*set{newSet(), newSet()}}
}

// Record feeds the histograms with a request that reached its last stage. A
// stage that was not passed records nothing; the next one's time counts from
// the last that was.
func (s *Shard) Record(k Kind, t *Timeline) {
	live := &s.sets[s.live][k]
	first, last := t[0], t[0]
	for i := 1; i < len(t); i++ {
		if t[i] == 0 {
			continue
		}
		if last != 0 {
			live[i].Record(t[i] - last)
		} else {
			first = t[i]
		}
		last = t[i]
	}
	if last != 0 {
		live[0].Record(last - first)
	}
}

// Swap retires the live histograms if a Collector has asked for them, and says
// whether it did. Otherwise it is one atomic load: the shard may call it in
// every turn. It publishes the counters too when it swaps.
func (s *Shard) Swap() bool {
	if s.handover.Load() != asked {
		return false
	}
	s.live ^= 1
	s.Publish()
	s.handover.Store(collectorHas)
	return true
}

// Collector gathers what one shard has recorded, since its start and since the
// last collection. One goroutine owns it; it allocates.
type Collector struct {
	shard *Shard
	total *set
	last  *set
}

// NewCollector is the one collector of a shard.
func NewCollector(s *Shard) *Collector {
	return &Collector{shard: s, total: newSet(), last: newSet()}
}

// Ask asks the shard for what it has; it hands it over in its next turn.
func (c *Collector) Ask() { c.shard.handover.CompareAndSwap(shardHas, asked) }

// Collect takes what the shard has handed over, false for nothing yet. It
// empties the buffer and gives it back.
func (c *Collector) Collect() bool {
	if c.shard.handover.Load() != collectorHas {
		return false
	}
	// The live index was written before collectorHas was stored, and is not
	// written again before shardHas is.
	retired := c.shard.sets[c.shard.live^1]
	c.last.reset()
	c.last.add(retired)
	c.total.add(retired)
	retired.reset()
	c.shard.handover.Store(shardHas)
	return true
}

// Total is how long a kind of request took to get to a stage from the one
// before it, since the start; for Received, how long it took in all.
func (c *Collector) Total(k Kind, s Stage) *Histogram { return c.total[k][s] }

// Last is the same for the last collection only.
func (c *Collector) Last(k Kind, s Stage) *Histogram { return c.last[k][s] }

// Report is what was collected, ready for encoding/json.
type Report struct {
	Counters []CounterValue `json:"counters"`
	Kinds    []KindReport   `json:"kinds"`
}

// KindReport is one kind of request in a Report.
type KindReport struct {
	Kind   string        `json:"kind"`
	Total  Summary       `json:"total"`
	Stages []StageReport `json:"stages"`
}

// StageReport is one step in a Report: the time to this stage from the one
// before it.
type StageReport struct {
	Stage string  `json:"stage"`
	Took  Summary `json:"took"`
}

// Report summarizes everything since the start.
func (c *Collector) Report() Report {
	r := Report{Counters: c.shard.ReadCounters()}
	for k := range Kinds {
		kind := KindReport{Kind: k.Name(), Total: c.total[k][0].Summary()}
		for s := Parsed; s < Stages; s++ {
			kind.Stages = append(kind.Stages, StageReport{s.Name(k), c.total[k][s].Summary()})
		}
		r.Kinds = append(r.Kinds, kind)
	}
	return r
}
