package metrics

// Gauge is how full one of a shard's pools was when the shard was asked.
//
// Invariant: 0 <= Used <= Peak <= Max, where Peak is known.
type Gauge struct {
	Name string `json:"name"`
	Used int64  `json:"used"`
	Peak int64  `json:"peak,omitempty"` // the most since the start; 0 if it is not recorded
	Max  int64  `json:"max"`
}

// gaugesMax is how many pools a shard may report.
const gaugesMax = 32

// gauges are the gauges of one set.
type gauges struct {
	all [gaugesMax]Gauge
	n   int
}

// Gauge reports how full a pool is. If Asked returns true, the owner calls Gauge for
// each of its pools before Swap. name is a constant.
func (s *Shard) Gauge(name string, used, peak, max int) {
	g := &s.sets[s.live].gauges
	g.all[g.n] = Gauge{name, int64(used), int64(peak), int64(max)}
	g.n++
}

// Asked says whether the next Swap will hand over a set.
func (s *Shard) Asked() bool { return s.handover.Load() == asked }

// Turned records how long a turn of the shard took.
func (s *Shard) Turned(ns int64) {
	if Recording {
		s.sets[s.live].turn.Record(ns)
	}
}
