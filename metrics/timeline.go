package metrics

import (
	"slices"
	"sync/atomic"
)

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
// the stage before it, and the whole way in place 0, which has no before; the
// length of turns; and how full the pools were when it was handed over.
type set struct {
	steps  [Kinds][Stages]*Histogram
	turn   *Histogram
	levels levels
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
	s.levels = o.levels
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
	s.levels.n = 0
}

// Shard is what one shard records. It lives on that shard's core: Record, Swap
// and Publish are its own, and so is Counters. A Collector on another thread
// sees only what was handed over.
type Shard struct {
	Counters Counters

	sets [2]*set // 24 KiB a histogram, 22 of them: 1 MiB in all
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

// Histograms is how many histograms a shard has, and the bytes of each.
func (s *Shard) Histograms() (count, bytes int) {
	return len(s.sets) * (int(Kinds)*int(Stages) + 1), s.sets[0].turn.hdr.ByteSize()
}

// Record feeds the histograms with a request that reached its last stage. A
// stage that was not passed records nothing; the next one's time counts from
// the last that was.
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

// Collector gathers what one shard has recorded. One goroutine owns it; it
// allocates.
type Collector struct {
	shard   *Shard
	total   *Window
	windows []*Window
}

// NewCollector is the one collector of a shard.
func NewCollector(s *Shard) *Collector {
	return &Collector{shard: s, total: &Window{newSet()}}
}

// Ask asks the shard for what it has; it hands it over in its next turn. A
// shard that sleeps has to be woken.
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
	c.total.set.add(retired)
	for _, w := range c.windows {
		w.set.add(retired)
	}
	retired.reset()
	c.shard.handover.Store(shardHas)
	return true
}

// Total is everything collected since the start.
func (c *Collector) Total() *Window { return c.total }

// Open makes a window that takes in what is collected from now on.
func (c *Collector) Open() *Window {
	w := &Window{newSet()}
	c.windows = append(c.windows, w)
	return w
}

// Close ends a window: nothing more comes into it.
func (c *Collector) Close(w *Window) {
	c.windows = slices.DeleteFunc(c.windows, func(o *Window) bool { return o == w })
}

// Counters are the shard's, as last published.
func (c *Collector) Counters() []CounterValue { return c.shard.ReadCounters() }

// Window is what was collected over some time. It belongs to its collector's
// goroutine.
type Window struct{ set *set }

// Reset empties the window.
func (w *Window) Reset() { w.set.reset() }

// Step is how long a kind of request took to get to a stage from the one
// before it; for Received, how long it took in all.
func (w *Window) Step(k Kind, s Stage) *Histogram { return w.set.steps[k][s] }

// Usual is how long each step usually takes, its median.
func (w *Window) Usual(k Kind) (t Timeline) {
	for i := range t {
		if h := w.set.steps[k][i]; h.Count() > 0 {
			t[i] = h.Quantile(50)
		}
	}
	return t
}

// Turn is how long turns took.
func (w *Window) Turn() *Histogram { return w.set.turn }

// Levels are the pools, as of the last collection.
func (w *Window) Levels() []Level { return slices.Clone(w.set.levels.all[:w.set.levels.n]) }

// Report is a window, ready for encoding/json. The names stay.
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
