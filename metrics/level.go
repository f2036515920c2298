package metrics

// Level is how full one of a shard's pools was when the shard was asked.
//
// Invariant: 0 <= Used <= Peak <= Max, where Peak is known.
type Level struct {
	Name string `json:"name"`
	Used int64  `json:"used"`
	Peak int64  `json:"peak,omitempty"` // the most since the start; 0 where nobody keeps it
	Max  int64  `json:"max"`
}

// levelsMax is how many pools a shard may tell of.
const levelsMax = 32

// levels are those of one set.
type levels struct {
	all [levelsMax]Level
	n   int
}

// Level tells how full a pool is. The owner calls it for each of its pools
// when Asked says that somebody wants to know, before Swap. name is a constant.
func (s *Shard) Level(name string, used, peak, max int) {
	l := &s.sets[s.live].levels
	l.all[l.n] = Level{name, int64(used), int64(peak), int64(max)}
	l.n++
}

// Asked says that the next Swap will hand over.
func (s *Shard) Asked() bool { return s.handover.Load() == asked }

// Turned records how long a turn of the shard took.
func (s *Shard) Turned(ns int64) {
	if Recording {
		s.sets[s.live].turn.Record(ns)
	}
}
