package shard

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/kafka"
)

// What a request for a partition is told before its log is looked at.
func TestPartitionsAreLocated(t *testing.T) {
	h := newHotShardOf(t, hotArenaBytes, 64, 2)
	hot := h.s.topics.find([]byte("hot"))
	elsewhere := h.s.topics.add("elsewhere", [16]byte{1}, 1)
	gone := h.s.topics.add("gone", [16]byte{2}, 1)
	h.s.topics.remove(gone)
	for _, c := range []struct {
		topic, index int32
		byID         bool
		code         kafka.ErrorCode
	}{
		{hot, 0, false, kafka.None}, {hot, 1, true, kafka.None},
		{hot, 2, true, kafka.UnknownTopicOrPartition}, {hot, -1, false, kafka.UnknownTopicOrPartition},
		{elsewhere, 0, true, kafka.NotLeaderOrFollower},
		{gone, 0, false, kafka.UnknownTopicOrPartition}, {gone, 0, true, kafka.UnknownTopicID},
		{none, 0, false, kafka.UnknownTopicOrPartition}, {none, 0, true, kafka.UnknownTopicID},
	} {
		p, code := h.s.topics.locate(c.topic, c.index, c.byID)
		if code != c.code || (p != nil) != (code == kafka.None) {
			t.Errorf("%+v: %d, found: %v", c, code, p != nil)
		}
		if p != nil && (p.topic != c.topic || p.index != c.index || p != h.s.partitions.of(p.slot)) {
			t.Errorf("%+v: another partition was found", c)
		}
	}
}

func TestLeaderEpochs(t *testing.T) {
	p := &partition{leaderEpoch: 7}
	for epoch, want := range map[int32]kafka.ErrorCode{-1: kafka.None, 7: kafka.None, 6: kafka.FencedLeaderEpoch, 8: kafka.UnknownLeaderEpoch, -2: kafka.FencedLeaderEpoch} {
		if code := p.checkEpoch(epoch); code != want {
			t.Errorf("epoch %d: %d, want %d", epoch, code, want)
		}
	}
}

// The high watermark is the durable offset, with write.caching the end of what
// is in memory; a topic's partitions share its configuration.
func TestHighWatermark(t *testing.T) {
	for _, caching := range []bool{false, true} {
		var configs []cluster.Config
		if caching {
			configs = []cluster.Config{{Name: "write.caching", Value: "true"}}
		}
		h := newHotShardOf(t, hotArenaBytes, 64, 2, configs...)
		p := h.s.topics.all[h.s.topics.find([]byte("hot"))].partitions[0]
		if p.config != h.s.topics.all[p.topic].config || p.config.WriteCaching != caching {
			t.Fatalf("write.caching %v: the partition has %+v", caching, p.config)
		}
		h.ring.say(produceFrame(8, 1, make([]byte, 100)))
		for h.s.Timelines.Counters.Batches == 0 {
			h.turn()
		}
		want := int64(0)
		if caching {
			want = 1
		}
		if got := p.highWatermark(); got != want || p.engine.Durable(p.slot) != 0 {
			t.Errorf("write.caching %v: high watermark %d before the batch is durable (%d)", caching, got, p.engine.Durable(p.slot))
		}
		for range 10 {
			h.turn()
		}
		if got := p.highWatermark(); got != 1 || p.engine.Durable(p.slot) != 1 {
			t.Errorf("write.caching %v: high watermark %d after it is durable", caching, got)
		}
	}
}

// A Fetch of a deleted log that waits for its turn on its connection does not
// take others from the lists of the log that has the slot next.
func TestSlotBeginsAnew(t *testing.T) {
	h := newHotShardOf(t, hotArenaBytes, 64, 3)
	turns := func() {
		for range 30 {
			h.turn()
		}
	}
	fetch := func(min int32, partitions ...int32) {
		r := kmsg.NewPtrFetchRequest()
		r.ReplicaID, r.MaxWaitMillis, r.MinBytes, r.MaxBytes, r.SessionEpoch = -1, 60_000, min, 1<<20, -1
		rt := kmsg.NewFetchRequestTopic()
		rt.Topic = "hot"
		for _, p := range partitions {
			rp := kmsg.NewFetchRequestTopicPartition()
			rp.Partition, rp.PartitionMaxBytes, rp.CurrentLeaderEpoch = p, 1<<20, -1
			rt.Partitions = append(rt.Partitions, rp)
		}
		r.Topics = append(r.Topics, rt)
		h.ring.say(frameOf(r, 11, 9))
		turns()
	}
	produce := func(partition int32) {
		r := kmsg.NewPtrProduceRequest()
		r.TimeoutMillis = 1000
		rt := kmsg.NewProduceRequestTopic()
		rt.Topic = "hot"
		rp := kmsg.NewProduceRequestTopicPartition()
		rp.Partition, rp.Records = partition, kafka.AppendBatch(nil, 1_700_000_000_000, nil, make([]byte, 100))
		rt.Partitions = append(rt.Partitions, rp)
		r.Topics = append(r.Topics, rt)
		h.ring.say(frameOf(r, 8, 7))
		turns()
	}
	tell := func(m Mail) {
		if !h.post.toData[1].put(m) {
			t.Fatal("no room for mail")
		}
		turns()
	}
	hot := &h.s.topics.all[h.s.topics.find([]byte("hot"))]
	before := hot.partitions[0]
	produce(1)
	fetch(1, 2)        // waits, and is the first of its connection
	fetch(1<<20, 0, 1) // waits too
	tell(Mail{Kind: MailDelete, A: 2})
	tell(Mail{Kind: MailOpen, A: 99})
	if hot.partitions[0] != before {
		t.Fatal("the new log has another slot: this test tests nothing")
	}
	fetch(1, 0)
	if n := h.s.fetches.polls.n; n != 3 {
		t.Fatalf("%d fetches wait", n)
	}
	produce(2) // ends the first, behind which the second is answered
	if n := h.s.fetches.polls.n; n != 1 {
		t.Fatalf("%d fetches wait, the third should", n)
	}
	produce(0)
	if n := h.s.fetches.polls.n; n != 0 {
		t.Fatal("an append does not end the wait of a fetch for its partition")
	}
}

// Lines about a partition's log name the partition as people do, also while the
// log is opened or deleted.
func TestLogsAreNamed(t *testing.T) {
	h := newHotShardOf(t, hotArenaBytes, 64, 2)
	name := func(id uint64) string { return string(h.s.appendLogName(nil, id)) }
	for id, want := range map[uint64]string{2: "hot/0", 3: "hot/1", 77: "log 77"} {
		if got := name(id); got != want {
			t.Errorf("log %d is called %q, want %q", id, got, want)
		}
	}
	h.s.changeLog(Mail{Kind: MailDelete, A: 2})
	h.s.changeLog(Mail{Kind: MailOpen, A: 99})
	if got, again := name(2), name(99); got != "hot/0" || again != "hot/0" {
		t.Errorf("while they are deleted and opened: %q, %q", got, again)
	}
	for range 30 {
		h.turn()
	}
	if got, again := name(2), name(99); got != "log 2" || again != "hot/0" {
		t.Errorf("after it: %q, %q", got, again)
	}
	f := engine.Failure{Log: 3, From: 20, To: 30}
	if got := string(h.s.appendFailure(nil, &f)); !strings.HasSuffix(got, "; offsets 20 to 29 of hot/1") {
		t.Errorf("%q", got)
	}
}
