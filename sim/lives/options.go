package lives

import (
	"fmt"

	"tailbound/engine"
	"tailbound/sim"
)

// Memory of one process's recovery and of one shard: enough for every choice
// that drawOptions makes.
const (
	recoveryArenaBytes = 32 << 20
	shardArenaBytes    = 32 << 20
)

var workloads = []workload{
	{"engine", engineWork},
	{"net", netWork},
}

// fault is a bug that can be planted, and the workload that finds it.
type fault struct {
	name  string
	work  string
	plant func(*Run)
}

var faults = []fault{
	{"NoSync", "engine", plantEngine(engine.NoSync)},
	{"AckBeforeSync", "engine", plantEngine(engine.AckBeforeSync)},
	{"NoEpoch", "engine", plantEngine(engine.NoEpoch)},
	{"StaleRunAccepted", "engine", plantEngine(engine.StaleRunAccepted)},
	{"JournalReusedEarly", "engine", plantEngine(engine.JournalReusedEarly)},
	{"GapIsRot", "engine", plantEngine(engine.GapIsRot)},
	{"NoSyncAtOpen", "engine", plantEngine(engine.NoSyncAtOpen)},
}

func plantEngine(f engine.Faults) func(*Run) {
	return func(r *Run) { r.Faults |= f }
}

// drawOptions draws every limit of the engine: small ones, so that journals
// wrap, segments roll and memory runs out within a life.
func (s *engineSim) drawOptions() {
	s.o = engine.Options{
		LogsMax:        s.pick(4, 8, 32),
		SegmentBytes:   s.pick(256<<10, 1<<20, 2<<20),
		JournalBytes:   s.pick(1<<20, 2<<20, 4<<20),
		LogMemoryBytes: s.pick(2<<20, 4<<20, 8<<20),
		BatchBytesMax:  s.pick(16<<10, 64<<10, 256<<10),
		InflightMax:    s.pick(1, 2, 4),
		Files:          8,
		FilesMax:       256,
		Faults:         s.run.Faults,
	}
}

func (s *engineSim) recoverOptions() engine.RecoverOptions {
	return engine.RecoverOptions{Shards: s.shards, Options: s.o}
}

// check runs the checker, which has nothing to find.
func (s *engineSim) check() error {
	arena := s.arena(recoveryArenaBytes)
	ring := sim.NewRing(s.w, s.disk, arena, s.mood)
	report, err := engine.Check(ring, arena, s.recoverOptions())
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	_ = report
	return nil
}
