package lives

import (
	"fmt"

	"github.com/tailbound/tailbound/broker"
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
	"github.com/tailbound/tailbound/shard"
	"github.com/tailbound/tailbound/sim"
)

// core is one shard under test.
type core struct {
	ring  *sim.Ring
	shard *shard.Shard
	sleep ioring.Instant
}

// drawLimits draws the sizes that the memory plan starts from. They are small, so that pools
// run out within a life.
func (s *brokerSim) drawLimits() {
	o := broker.Defaults()
	m := &broker.Memory{ArenaBytes: 64 << 20, RecoveryBytes: recoveryArenaBytes, ListenersMax: 1, ConnsMax: 64, RequestBytesMax: 1 << 20, ReplyBlocks: 256, AttachedMax: 4096, MailBytes: 4 << 20,
		LogsMax: 128, FilesMax: 512, ProducersMax: 64, WaitersMax: 1024, SessionsMax: 2, SessionPartitionsMax: interestsMax}
	o.MessageBytesMax = s.pick(8<<10, 32<<10, 128<<10)
	m.BatchBytesMax = o.MessageBytesMax
	m.RequestsMax = s.pick(16, 64, 256)
	m.SegmentBytes, m.JournalBytes, m.LogMemoryBytes = s.pick(256<<10, 1<<20, 2<<20), s.pick(2<<20, 4<<20), s.pick(4<<20, 8<<20)
	o.InflightMax = s.pick(1, 2, 4)
	m.CheckLogs, m.CheckPauseNS = s.pick(1, 32), int64(s.pick(50e3, 5e6))
	o.DirectBytes, o.SpareBytes, o.PrepareBytes = s.pick(0, 1, 2000, 16<<10), int64(s.pick(-1, 64<<20)), int64(s.pick(0, 4<<20))
	m.ReceiveBufferBytes = s.pick(4<<10, 64<<10)
	m.ReceiveBuffers = (4 << 20) / m.ReceiveBufferBytes
	m.PipelineMax = s.pick(2, 8, 64)
	o.RetentionCheckNS = int64(s.pick(1e6, 20e6, 1e9))
	o.Memory = m
	o.ClusterID, o.TopicsMax, o.PartitionsMax, o.AutoCreateTopics, o.RequestTimeoutNS = "sim", 100, 100, false, 30e9
	o.DrainNS = [...]int64{shard.DrainNS, shard.DrainNS, 300e3, 1}[s.run.Seed%4] // short: a stop gives requests up
	o.EngineFaults, o.ShardFaults, o.Log = s.run.Faults, s.run.ShardFaults, s
	s.o = o
	s.mood = sim.RingOptions{Files: 1024, Sockets: 64, Depth: 1024, ShortWrites: s.pick(0, 0, 30), ShortReads: s.pick(0, 30), Again: s.pick(0, 0, 40), Late: s.pick(0, 0, 20)}
	s.patience = s.pick(200, 200, 5)
}

func (s *brokerSim) port(i int) int { return 9092 + i }

// redrawLimits draws the settings that an operator may change between two lives. The size of batches and requests stays, because producers send
// batches of the life before again.
func (s *brokerSim) redrawLimits() {
	draw := func(v ...int) int { return v[s.also.IntN(len(v))] }
	m := *s.o.Memory
	m.SegmentBytes, m.JournalBytes, m.LogMemoryBytes = draw(256<<10, 1<<20, 2<<20), draw(2<<20, 4<<20), draw(4<<20, 8<<20)
	s.o.InflightMax, s.o.DirectBytes = draw(1, 2, 4, broker.InflightLimit), draw(0, 1, 2000, 16<<10)
	s.o.SpareBytes, s.o.PrepareBytes = int64(draw(-1, 64<<20)), int64(draw(0, 4<<20))
	s.o.Memory = &m
}

// open composes the broker of this life like production, on simulated rings.
func (s *brokerSim) open() (err error) {
	if s.changing && !s.full { // a larger journal wants room
		s.redrawLimits()
	}
	o := s.o
	o.DataShards = s.shards
	for i := range s.shards + 1 {
		o.Nodes = append(o.Nodes, shard.Node{ID: int32(i), Host: "sim", Port: int32(s.port(i))})
	}
	s.broker, err = broker.Compose(o, s)
	return err
}

// Recover has the data directory recovered on a ring of its own.
func (s *brokerSim) Recover(m broker.Memory, recover func(ioring.Ring, *mem.Arena) (*engine.RecoveredState, error)) (*engine.RecoveredState, error) {
	arena := s.arena(m.RecoveryBytes)
	boot, err := recover(sim.NewRing(s.w, s.disk, arena, s.mood), arena)
	if err != nil {
		return nil, fmt.Errorf("opening: %w", err)
	}
	for _, line := range boot.Notes {
		s.w.Logf("note: %s", line)
	}
	s.free()
	return boot, nil
}

// Open gives each shard a ring and an arena.
func (s *brokerSim) Open(plan []broker.Memory, open func(int, broker.Place) (*shard.Shard, error)) (err error) {
	for i, m := range plan {
		arena := s.arena(m.ArenaBytes)
		c := &core{ring: sim.NewRing(s.w, s.disk, arena, s.mood)}
		c.ring.Listen(0, s.port(i))
		if c.shard, err = open(i, broker.Place{Ring: c.ring, Arena: arena, Waker: c.ring, Seed: s.rng.Uint64()}); err != nil {
			return fmt.Errorf("opening shard %d: %w", i, err)
		}
		s.cores = append(s.cores, c)
	}
	for _, c := range s.cores {
		c.ring.Also = s.arenas // the control shard's replies are sent from its own arena
	}
	return nil
}
