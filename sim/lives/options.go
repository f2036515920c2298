package lives

import (
	"encoding/binary"
	"fmt"

	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/engine/recovery"
	"github.com/tailbound/tailbound/sim"
)

// The memory of a recovery and of a shard: enough for all options that drawOptions draws.
const (
	recoveryArenaBytes = 32 << 20
	shardArenaBytes    = 32 << 20
)

var workloads = []workload{
	{"engine", engineWork},
	{"rot", rotWork},
	{"net", netWork},
}

// fault is a bug that can be planted, the workload that finds it, and the first seed that
// does. An intended change of behaviour may change the seeds; go test -run
// TestPlantedBugsAreFound then prints the new ones.
type fault struct {
	name  string
	work  string
	seed  uint64
	plant func(*Run)
}

var faults = []fault{
	{"NoSync", "engine", 2, func(r *Run) { r.Faults |= engine.NoSync }},
	{"AckBeforeSync", "engine", 3, func(r *Run) { r.Faults |= engine.AckBeforeSync }},
	{"NoEpoch", "engine", 3, func(r *Run) { r.Faults |= engine.NoEpoch }},
	{"StaleRunAccepted", "engine", 1, func(r *Run) { r.Faults |= engine.StaleRunAccepted }},
	{"JournalReusedEarly", "engine", 23, func(r *Run) { r.Faults |= engine.JournalReusedEarly }},
	{"CheckpointFromLate", "engine", 38, func(r *Run) { r.Faults |= engine.CheckpointFromLate }},
	{"RunAckedAlone", "engine", 42, func(r *Run) { r.Faults |= engine.RunAckedAlone }},
	{"GapIsRot", "engine", 1, func(r *Run) { r.Faults |= engine.GapIsRot }},
	{"NoSyncAtOpen", "engine", 4, func(r *Run) { r.Faults |= engine.NoSyncAtOpen }},
	{"ReusedKept", "engine", 9, func(r *Run) { r.Faults |= engine.ReusedKept }},
	{"PresentLimits", "engine", 39, func(r *Run) { r.Faults |= engine.PresentLimits }},
	{"EpochsForgotten", "engine", 1, func(r *Run) { r.Faults |= engine.EpochsForgotten }},
	{"EpochsOfEight", "engine", 21, func(r *Run) { r.Faults |= engine.EpochsOfEight }},
	{"WalksOnAnyway", "engine", 37, func(r *Run) { r.Faults |= engine.WalksOnAnyway }},
	{"EndsAtBreak", "rot", 8, func(r *Run) { r.Faults |= engine.EndsAtBreak }},
	{"FillForgotten", "rot", 35, func(r *Run) { r.Faults |= engine.FillForgotten }},
	{"HolesForgotten", "rot", 1, func(r *Run) { r.Faults |= engine.HolesForgotten }},
	{"HolesPassedEarly", "rot", 1, func(r *Run) { r.Faults |= engine.HolesPassedEarly }},
	{"ReadsOverHole", "rot", 8, func(r *Run) { r.Faults |= engine.ReadsOverHole }},
	{"JournalForEachLog", "engine", 1, func(r *Run) { r.Faults |= engine.JournalForEachLog }},
	{"LooksAtOneBlock", "rot", 65, func(r *Run) { r.Faults |= engine.LooksAtOneBlock }},
}

// drawOptions draws all limits of the engine. They are small, so that journals wrap,
// segments roll and memory runs out within a life.
func (s *engineSim) drawOptions() {
	s.o = engine.Options{
		LogsMax:        s.pick(4, 8, 32),
		SegmentBytes:   s.pick(256<<10, 1<<20, 2<<20, 4<<20),
		JournalBytes:   s.pick(1<<20, 2<<20, 4<<20),
		LogMemoryBytes: s.pick(4<<20, 8<<20),
		BatchBytesMax:  s.pick(16<<10, 64<<10, 256<<10),
		InflightMax:    s.pick(1, 2, 4),
		CheckLogs:      s.pick(1, 1, 32),
		CheckPauseNS:   int64(s.pick(50e3, 5e6)),
		DirectBytes:    s.pick(-1, 1, 2000, 16<<10, 64<<10),
		SpareBytes:     int64(s.pick(-1, 4<<20, 64<<20)),
		PrepareBytes:   int64(s.pick(0, 4<<20)),
		Files:          8,
		FilesMax:       256,
		Faults:         s.run.Faults,
	}
}

// redrawOptions draws the settings that an operator may change between two lives. LogsMax stays, because the workload relies on it.
func (s *engineSim) redrawOptions() {
	draw := func(v ...int) int { return v[s.also.IntN(len(v))] }
	s.o.InflightMax = draw(1, 2, 4, engine.InflightLimit)
	if s.flood {
		return // its sizes make the journal run full
	}
	s.o.SegmentBytes = draw(256<<10, 1<<20, 2<<20, 4<<20)
	s.o.JournalBytes = draw(1<<20, 2<<20, 4<<20)
	s.o.LogMemoryBytes = draw(4<<20, 8<<20)
	s.o.BatchBytesMax = draw(16<<10, 64<<10, 256<<10)
	if s.large {
		s.o.LogMemoryBytes, s.o.BatchBytesMax = 8<<20, draw(256<<10, 1<<20)
	}
	s.o.DirectBytes = draw(-1, 1, 2000, 16<<10, 64<<10)
	s.o.SpareBytes, s.o.PrepareBytes = int64(draw(-1, 4<<20, 64<<20)), int64(draw(0, 4<<20))
}

func (s *engineSim) recoverOptions() recovery.Options {
	o := recovery.Options{Shards: s.shards, Options: s.o}
	binary.LittleEndian.PutUint64(o.Seed[:], s.run.Seed+1)
	return o
}

// check runs the checker, which must find no problem.
func (s *engineSim) check() error {
	arena := s.arena(recoveryArenaBytes)
	ring := sim.NewRing(s.w, s.disk, arena, s.mood)
	report, err := recovery.Check(ring, arena, s.recoverOptions())
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	if p := report.Problems(); len(p) > 0 {
		return fmt.Errorf("CHECK: %v", p)
	}
	return nil
}
