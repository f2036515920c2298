package metrics

import (
	"slices"
	"sync/atomic"
)

// Stage is a point that a request reaches in a shard.
type Stage int

// The stages, in order. A request stamps the stages it reaches.
const (
	Received  Stage = iota // its last byte was reaped from the ring
	Parsed                 // produce: validated. fetch: decoded
	Appended               // produce: copied to log memory. fetch: enough data was found to answer
	Submitted              // produce: its last frame was pushed. fetch: its last read from disk was pushed
	Durable                // produce: all of it is durable. fetch: its last read from disk was verified
	Queued                 // the reply was handed to the connection
	Sent                   // the kernel took the reply's last byte
	Stages                 // how many there are
)

var stageNames = [Kinds][Stages]string{
	Produce: {"received", "parsed", "appended", "submitted", "durable", "queued", "sent"},
	Fetch:   {"received", "parsed", "found", "read", "verified", "queued", "sent"},
	Other:   {"received", "parsed", "done", "submitted", "durable", "queued", "sent"},
}

// Name returns the stage's name for a kind of request.
func (s Stage) Name(k Kind) string { return stageNames[k][s] }

// Kind is a kind of request; each has its own histograms.
type Kind int

// The kinds.
const (
	Produce Kind = iota
	Fetch
	Other
	Kinds // how many there are
)

var kindNames = [Kinds]string{"produce", "fetch", "other"}

// Name returns the kind's name.
func (k Kind) Name() string { return kindNames[k] }

// Timeline is when a request reached each stage, in ns of its shard's clock; 0 for a
// stage that it did not reach. It belongs to the request.
type Timeline [Stages]int64

// set is one buffer of recordings: for each kind and stage the time from the stage
// before it, and at stage 0, which has none before it, the time of whole requests;
// the length of turns; and how full the pools were when the set was handed over.
type set struct {
	steps  [Kinds][Stages]*Histogram
	turn   *Histogram
	gauges gauges
}

func newSet() *set {
	s := &set{turn: NewHistogram()}
	for k := range s.steps {
		for i := range s.steps[k] {
			s.steps[k][i] = NewHistogram()
		}
	}
	return s
}

func (s *set) add(o *set) {
	for k := range s.steps {
		for i := range s.steps[k] {
			if o.steps[k][i].Count() > 0 {
				s.steps[k][i].Add(o.steps[k][i])
			}
		}
	}
	s.turn.Add(o.turn)
	s.gauges = o.gauges
}

func (s *set) reset() {
	for k := range s.steps {
		for i := range s.steps[k] {
			if s.steps[k][i].Count() > 0 {
				s.steps[k][i].Reset()
			}
		}
	}
	s.turn.Reset()
	s.gauges.n = 0
}

// Shard is what one shard records. It lives on that shard's core: only the shard
// calls Record, Swap and Publish and uses Counters. A Collector on another thread
// reads only what was handed over.
type Shard struct {
	Counters Counters

	sets [2]*set // 24 KiB a histogram, 22 of them: 1 MiB in all
	live int     // which of the two the shard fills

	// handover says who may use the set that is not live.
	// shardHas -> (Collector asks) asked -> (Swap) collectorHas -> shardHas.
	// Each step is made by one side only, so there is no race for a step.
	handover atomic.Uint32

	published publishedCounters
}

const (
	shardHas = iota
	asked
	collectorHas
)

// NewShard allocates all memory that recording needs.
func NewShard() *Shard {
	return &Shard{sets: [2]*set{newSet(), newSet()}}
}

// Histograms returns how many histograms a shard has, and the size of each.
func (s *Shard) Histograms() (count, bytes int) {
	return len(s.sets) * (int(Kinds)*int(Stages) + 1), s.sets[0].turn.hdr.ByteSize()
}

// Record records a request that reached its last stage. A stage that it did not reach
// records nothing, and the next stage's time counts from the last one reached.
func (s *Shard) Record(k Kind, t *Timeline) {
	if !Recording {
		return
	}
	live := &s.sets[s.live].steps[k]
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

// Swap retires the live histograms and publishes the counters if a Collector has
// asked for them, and says whether it did. Otherwise it costs one atomic load, so
// the shard may call it in every turn.
func (s *Shard) Swap() bool {
	if s.handover.Load() != asked {
		return false
	}
	s.live ^= 1
	s.Publish()
	s.handover.Store(collectorHas)
	return true
}

// Collector collects what one shard has recorded. It belongs to one goroutine, and
// allocates.
type Collector struct {
	shard   *Shard
	total   *Window
	windows []*Window
}

// NewCollector makes the collector of a shard, which has one.
func NewCollector(s *Shard) *Collector {
	return &Collector{shard: s, total: &Window{newSet()}}
}

// Ask asks the shard for its recordings, which it hands over in its next turn. The
// caller has to wake a shard that sleeps.
func (c *Collector) Ask() { c.shard.handover.CompareAndSwap(shardHas, asked) }

// Collect takes what the shard has handed over and gives the emptied buffer back.
// False: the shard has handed over nothing yet.
func (c *Collector) Collect() bool {
	if c.shard.handover.Load() != collectorHas {
		return false
	}
	// The live index was written before collectorHas was stored, and is not
	// written again before shardHas is.
	retired := c.shard.sets[c.shard.live^1]
	c.total.set.add(retired)
	for _, w := range c.windows {
		w.set.add(retired)
	}
	retired.reset()
	c.shard.handover.Store(shardHas)
	return true
}

// Total returns everything collected since the start.
func (c *Collector) Total() *Window { return c.total }

// Open makes a window, to which all that is collected from now on is added.
func (c *Collector) Open() *Window {
	w := &Window{newSet()}
	c.windows = append(c.windows, w)
	return w
}

// Close ends a window: nothing more is added to it.
func (c *Collector) Close(w *Window) {
	c.windows = slices.DeleteFunc(c.windows, func(o *Window) bool { return o == w })
}

// Counters returns the shard's counters as last published.
func (c *Collector) Counters() []CounterValue { return c.shard.ReadCounters() }

// Window is what was collected in some period. It belongs to its collector's
// goroutine.
type Window struct{ set *set }

// Reset empties the window.
func (w *Window) Reset() { w.set.reset() }

// Step returns the time that a kind of request took from the stage before s to s; for
// Received, the time of whole requests.
func (w *Window) Step(k Kind, s Stage) *Histogram { return w.set.steps[k][s] }

// Usual returns the median time of each step.
func (w *Window) Usual(k Kind) (t Timeline) {
	for i := range t {
		if h := w.set.steps[k][i]; h.Count() > 0 {
			t[i] = h.Quantile(50)
		}
	}
	return t
}

// Turn returns the length of turns.
func (w *Window) Turn() *Histogram { return w.set.turn }

// Gauges returns the pools as of the last collection.
func (w *Window) Gauges() []Gauge { return slices.Clone(w.set.gauges.all[:w.set.gauges.n]) }

// Report is a window as encoding/json writes it. Programs rely on the names.
type Report struct {
	Kinds []KindReport `json:"kinds"`
	Turn  Summary      `json:"turn"`
}

// KindReport is one kind of request in a Report.
type KindReport struct {
	Kind   string        `json:"kind"`
	Total  Summary       `json:"total"` // from received to sent
	Stages []StageReport `json:"stages"`
}

// StageReport is one step in a Report: the time to this stage from the one
// before it.
type StageReport struct {
	Stage string  `json:"stage"`
	Took  Summary `json:"took"`
}

// Report summarizes the window.
func (w *Window) Report() Report {
	r := Report{Turn: w.set.turn.Summary()}
	for k := range Kinds {
		kind := KindReport{Kind: k.Name(), Total: w.Step(k, Received).Summary()}
		for s := Parsed; s < Stages; s++ {
			kind.Stages = append(kind.Stages, StageReport{s.Name(k), w.Step(k, s).Summary()})
		}
		r.Kinds = append(r.Kinds, kind)
	}
	return r
}
