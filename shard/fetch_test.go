package shard

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// wideFetch asks for all partitions of topic "hot", and waits long for much.
func wideFetch(partitions int, min int32) []byte {
	r := kmsg.NewPtrFetchRequest()
	r.ReplicaID, r.MaxWaitMillis, r.MinBytes, r.MaxBytes, r.SessionEpoch = -1, 60_000, min, 1<<20, -1
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic = "hot"
	for i := range partitions {
		rp := kmsg.NewFetchRequestTopicPartition()
		rp.Partition, rp.PartitionMaxBytes, rp.CurrentLeaderEpoch = int32(i), 1<<20, -1
		rt.Partitions = append(rt.Partitions, rp)
	}
	r.Topics = append(r.Topics, rt)
	return frameOf(r, 11, 9)
}

// An append costs a fetch that waits for a thousand partitions one look, at the
// partition appended to, and turns without one cost it none.
func TestWaitingFetchLooksWhereSomethingCame(t *testing.T) {
	const partitions, fetches, appends = 1000, 8, 100
	h := newHotShardOf(t, hotArenaBytes, 4096, partitions)
	c := &h.s.Timelines.Counters
	settle := func() {
		for range 10 {
			h.turn()
		}
	}
	for range fetches {
		h.ring.say(wideFetch(partitions, 1<<20))
		settle()
	}
	if h.s.fetches.polls.n != fetches {
		t.Fatalf("%d fetches wait", h.s.fetches.polls.n)
	}
	if n := c.PartitionsLookedAt; n != partitions*fetches {
		t.Fatalf("%d partitions were looked at before they waited", n)
	}
	before := c.PartitionsLookedAt
	settle()
	if n := c.PartitionsLookedAt - before; n != 0 {
		t.Fatalf("%d partitions were looked at while nothing came", n)
	}
	for range appends {
		h.ring.say(produceFrame(8, 0, make([]byte, 100)))
		settle()
	}
	if n := c.PartitionsLookedAt - before; n != appends*fetches || c.Batches != appends {
		t.Fatalf("%d appends were %d looks at partitions, of %d fetches", c.Batches, n, fetches)
	}
	if h.s.fetches.polls.n != fetches {
		t.Fatalf("%d fetches wait still", h.s.fetches.polls.n)
	}
	// What was counted is what is sent: enough ends the wait.
	for range 11 {
		h.ring.say(produceFrame(8, 0, make([]byte, 100_000)))
		settle()
	}
	if h.s.fetches.polls.n != 0 {
		t.Fatalf("%d fetches wait, and there is enough for them", h.s.fetches.polls.n)
	}
}

// Fetches that wait take no parts from producers, and those that find none are
// served in turn, though all that have parts could wait for a minute.
func TestWaitingFetchesMakeRoom(t *testing.T) {
	const partitions, first, fetches = 1024, 12, 40
	h := newHotShardOf(t, hotArenaBytes, 4096, partitions)
	for range first {
		h.ring.say(wideFetch(partitions, 1<<20))
		h.turn()
	}
	if n := h.s.requests.credit.fetchesFree(); n != 0 || h.s.fetches.polls.n != first {
		t.Fatalf("%d parts are left for fetches; %d wait", n, h.s.fetches.polls.n)
	}
	h.ring.say(produceFrame(8, 0, make([]byte, 100)))
	for range 20 {
		h.turn()
	}
	if h.s.Timelines.Counters.Batches != 1 {
		t.Fatalf("a producer waits for fetches: %+v", h.s.Timelines.Counters)
	}
	for range fetches - first {
		h.ring.say(wideFetch(partitions, 1<<20))
		h.turn()
	}
	for range 100 * fetches { // 20 microseconds each: 80 ms, and each would wait for 60 s
		h.turn()
	}
	if n := h.s.Timelines.Counters.Fetches; n != fetches {
		t.Fatalf("%d fetches of %d had their turn", n, fetches)
	}
	if h.s.requests.credit.free < h.s.requests.credit.all/4 {
		t.Fatal("fetches took the producers' parts")
	}
}

// A fetch of more partitions than a shard could hold is refused, it does not
// wait for ever.
func TestFetchOfTooManyPartitions(t *testing.T) {
	h := newHotShardOf(t, hotArenaBytes, 64, 1)
	h.ring.say(wideFetch(h.s.requests.credit.fetchesMax()+1, 1))
	for range 10 {
		h.turn()
	}
	if h.s.Timelines.Counters.Refused != 1 || h.s.backlog.n != 0 {
		t.Fatalf("refused %d, waiting %d", h.s.Timelines.Counters.Refused, h.s.backlog.n)
	}
}
