package shard

import (
	"math"

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
	producers       mem.List // idempotent producers that it remembers, newest first
	asked           int32    // the part that names it, while one ListOffsets is walked; else none

	bytesIn     uint64 // of batches appended in this life
	filling     int64  // first offset of the segment being filled, as retention last saw it; none64
	filledSince Wall
}

const none64 = int64(-1)

// partitions are those of a shard, by their log's slot. The table never grows.
type partitions struct {
	all         []partition
	engine      *engine.Engine
	leaderEpoch int32
}

func newPartitions(log *engine.Engine, leaderEpoch int32, logs int) partitions {
	t := partitions{all: make([]partition, logs), engine: log, leaderEpoch: leaderEpoch}
	for i := range t.all {
		t.begin(engine.Slot(i))
	}
	return t
}

func (t *partitions) of(slot engine.Slot) *partition { return &t.all[slot] }

// begin makes the entry of a slot one that has no name yet.
func (t *partitions) begin(slot engine.Slot) {
	t.all[slot] = partition{
		engine: t.engine, slot: slot, topic: none, asked: none, filling: none64, leaderEpoch: t.leaderEpoch,
		awaitingDurable: mem.EmptyList, awaitingData: mem.EmptyList, subscribers: mem.EmptyList,
		producers: mem.EmptyList,
	}
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

// locateAt is locate for a request that believes in a leader epoch. A partition
// that is refused for its epoch is given too.
func (t *topicTable) locateAt(topic, index int32, byID bool, epoch int32) (*partition, kafka.ErrorCode) {
	p, code := t.locate(topic, index, byID)
	if code == kafka.None {
		code = p.checkEpoch(epoch)
	}
	return p, code
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

// logStart is the offset of the oldest record that is kept, logEnd one past the
// last that was appended, durable or not.
func (p *partition) logStart() int64 { return p.engine.Start(p.slot) }
func (p *partition) logEnd() int64   { return p.engine.End(p.slot) }

// appended: the records below end are in memory. With write.caching they are thereby
// acknowledged.
func (p *partition) appended(end int64) {
	if p.config.WriteCaching {
		p.cached = end
		p.engine.NotifyReaders(p.slot)
	}
}

// epochOf is the leader epoch under which the record at an offset was appended.
func (p *partition) epochOf(offset int64) int32 {
	if epoch := p.engine.EpochOf(p.slot, offset); epoch >= 0 {
		return epoch
	}
	return p.leaderEpoch
}

// epochEnd is the largest leader epoch that is not above the given one, and where
// its readable records end; -1, -1: there is none.
func (p *partition) epochEnd(epoch int32) (found int32, end int64) {
	return p.engine.EpochAt(p.slot, epoch, p.highWatermark())
}

// batchBytesMax is the largest batch the partition takes, where the broker takes
// any of brokerMax.
func (p *partition) batchBytesMax(brokerMax int) int {
	if n := p.config.MessageBytesMax; n >= 0 {
		return int(min(n, int64(brokerMax)))
	}
	return brokerMax
}

// timely says whether a batch's times are as near to the broker's as the topic
// wants them.
func (p *partition) timely(now Wall, batch *kafka.Batch, raw []byte) bool {
	before, after := p.config.BeforeMaxMS, p.config.AfterMaxMS
	earliest, latest := int64(math.MinInt64), int64(math.MaxInt64)
	if before < int64(now) { // times begin in 1970, so a larger limit forbids nothing; a record without a time has -1
		earliest = int64(now) - before
	}
	if after < latest-int64(now) {
		latest = int64(now) + after
	}
	return kafka.TimesWithin(batch, raw, earliest, latest)
}
