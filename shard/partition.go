package shard

import (
	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/mem"
)

// partition is a partition whose log is on this shard. It is the one place that
// knows under which leader epoch the partition is served, up to which offset its
// records may be read, and which requests and sessions wait for it. It belongs to
// the shard. A table holds them by the log's slot in the engine; an entry begins
// anew when the engine gives its slot to another log.
//
// The shard that has a partition's log leads the partition: whether an entry is
// there is the partition's role.
//
// Invariant: named says that the topic's entry points here; locate finds no
// other partitions.
type partition struct {
	engine *engine.Engine
	slot   engine.Slot

	topic       int32 // in the topic table
	index       int32
	named       bool
	retained    bool               // retention has seen it in this life
	leaderEpoch int32              // of what this life of the directory appends
	config      *cluster.LogConfig // its topic's; nil before it is named
	cached      int64              // acknowledged from memory up to this offset: write.caching

	awaitingDurable mem.List // parts of Produce requests, in offset order
	awaitingData    mem.List // parts of Fetch requests
	subscribers     mem.List // partitions of fetch sessions that wait for changes
	asked           int32    // the part that names it, while one ListOffsets is walked; else none

	bytesIn     uint64 // of batches appended in this life
	filling     int64  // first offset of the segment being filled, as retention last saw it; none64
	filledSince Wall
}

const none64 = int64(-1)

// newPartition is the entry of a slot that has no name yet.
func (s *Shard) newPartition(slot engine.Slot) partition {
	p := partition{
		engine: s.engine, slot: slot, topic: none, asked: none, filling: none64,
		awaitingDurable: mem.EmptyList, awaitingData: mem.EmptyList, subscribers: mem.EmptyList,
	}
	if s.boot != nil {
		p.leaderEpoch = s.boot.LeaderEpoch()
	}
	return p
}

// locate is the partition of a topic's entry and an index, or the code that
// refuses a request for it. byID says that the request names topics by their ids.
func (t *topicTable) locate(topic, index int32, byID bool) (*partition, kafka.ErrorCode) {
	switch {
	case topic == none || t.all[topic].gone:
		if byID {
			return nil, kafka.UnknownTopicID
		}
		return nil, kafka.UnknownTopicOrPartition
	case index < 0 || int(index) >= len(t.all[topic].partitions):
		return nil, kafka.UnknownTopicOrPartition
	}
	if p := t.all[topic].partitions[index]; p != nil {
		return p, kafka.None
	}
	return nil, kafka.NotLeaderOrFollower // another shard's
}

// checkEpoch holds the leader epoch that a client believes in, -1 for none,
// against the partition's.
func (p *partition) checkEpoch(epoch int32) kafka.ErrorCode {
	switch {
	case epoch == -1 || epoch == p.leaderEpoch:
		return kafka.None
	case epoch < p.leaderEpoch:
		return kafka.FencedLeaderEpoch
	default:
		return kafka.UnknownLeaderEpoch
	}
}

// highWatermark is one past the last offset that is acknowledged and may be
// read. That is what is durable or, with write.caching, what is in memory.
func (p *partition) highWatermark() int64 { return max(p.engine.Durable(p.slot), p.cached) }
