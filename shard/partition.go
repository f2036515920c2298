package shard

import (
	"math"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/mem"
)

// partition is a partition whose log is on this shard: its leader epoch, its
// offsets as clients see them, its producers, and the requests and sessions that
// wait for it. No other type keeps any of these. It belongs to the shard. The table
// has an entry for each log slot of the engine, which starts anew when the engine
// gives the slot to another log.
//
// The shard that has the log leads the partition, so an entry that is named is the
// leader's; locate refuses a partition without one as another shard's.
//
// Invariant: logStart <= highWatermark <= logEnd. What is read by clients ends at
// the high watermark.
//
// Invariant: an entry is named exactly while its topic's entry points to it.
type partition struct {
	engine *engine.Engine
	slot   engine.Slot

	topic       int32 // in the topic table
	index       int32
	named       bool               // locate finds it
	retained    bool               // retention has examined it since the start
	leaderEpoch int32              // of what is appended; it rises with each start of the broker
	config      *cluster.LogConfig // its topic's; nil until it is named
	cached      int64              // with write.caching: one past the last offset in memory, which is acknowledged there

	awaitingDurable mem.List // parts of Produce requests, in the order of their ends
	awaitingData    mem.List // parts of Fetch requests
	subscribers     mem.List // partitions of fetch sessions that are to be notified of changes
	producers       mem.List // idempotent producers that are remembered, newest first
	asked           int32    // while a ListOffsets is parsed: the part that names it; else none

	bytesIn     uint64 // of batches appended since the start
	filling     int64  // first offset of the active segment when retention last examined it; none64
	filledSince Wall   // when that segment got its first record
}

const none64 = int64(-1)

// partitions is the table of a shard's partitions, by their log's slot. It never
// grows.
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

// begin clears the entry of a slot. It is not named yet.
func (t *partitions) begin(slot engine.Slot) {
	t.all[slot] = partition{
		engine: t.engine, slot: slot, topic: none, asked: none, filling: none64, leaderEpoch: t.leaderEpoch,
		awaitingDurable: mem.EmptyList, awaitingData: mem.EmptyList, subscribers: mem.EmptyList,
		producers: mem.EmptyList,
	}
}

// locate is the partition with that index of a topic's entry, or the code that
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

// locateAt is locate for a request that names the leader epoch the client knows. A
// partition that is refused for its epoch is returned too.
func (t *topicTable) locateAt(topic, index int32, byID bool, epoch int32) (*partition, kafka.ErrorCode) {
	p, code := t.locate(topic, index, byID)
	if code == kafka.None {
		code = p.checkEpoch(epoch)
	}
	return p, code
}

// checkEpoch compares the leader epoch that a client knows, -1 for none, with the
// partition's.
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

// highWatermark is one past the last offset that is acknowledged and may be read:
// what is durable or, with write.caching, what is in memory.
func (p *partition) highWatermark() int64 { return max(p.engine.Durable(p.slot), p.cached) }

// logStart is the offset of the first record that is kept. logEnd is one past the
// last record that was appended, durable or not.
func (p *partition) logStart() int64 { return p.engine.Start(p.slot) }
func (p *partition) logEnd() int64   { return p.engine.End(p.slot) }

// appended notes that the records below end are in memory. With write.caching that
// acknowledges them.
func (p *partition) appended(end int64) {
	if p.config.WriteCaching {
		p.cached = end
		p.engine.NotifyReaders(p.slot)
	}
}

// epochOf is the leader epoch with which the record at an offset was appended; -1 if
// that is not known any more.
func (p *partition) epochOf(offset int64) int32 { return p.engine.EpochOf(p.slot, offset) }

// epochEnd is what OffsetForLeaderEpoch answers about a leader epoch. The present one
// ends where what may be read does.
func (p *partition) epochEnd(epoch int32) (found int32, end int64) {
	return p.engine.EpochEnd(p.slot, epoch, p.highWatermark())
}

// batchBytesMax is the size of the largest batch that the partition takes;
// brokerMax is the broker's limit.
func (p *partition) batchBytesMax(brokerMax int) int {
	if n := p.config.MessageBytesMax; n >= 0 {
		return int(min(n, int64(brokerMax)))
	}
	return brokerMax
}

// timely says whether a batch's timestamps are as close to the broker's clock as the
// topic demands.
func (p *partition) timely(now Wall, batch *kafka.Batch, raw []byte) bool {
	return kafka.TimesWithin(batch, raw, p.earliest(now), p.latest(now))
}

// earliest returns the earliest timestamp that the topic takes.
func (p *partition) earliest(now Wall) int64 {
	if before := p.config.BeforeMaxMS; before < int64(now) { // a larger limit reaches before 1970 and forbids nothing; -1, no timestamp, passes too
		return int64(now) - before
	}
	return math.MinInt64
}

// latest returns the latest timestamp that the topic takes.
func (p *partition) latest(now Wall) int64 {
	if after := p.config.AfterMaxMS; after < math.MaxInt64-int64(now) {
		return int64(now) + after
	}
	return math.MaxInt64
}
