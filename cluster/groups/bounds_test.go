package groups

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/tailbound/tailbound/cluster"
)

// What groups take of the heap is bounded by what --print-memory plans for them: a fixed
// part for each, and a multiple of the bytes that are counted.
func TestBytesOfGroups(t *testing.T) {
	const count = 2000
	for _, x := range []struct {
		name string
		make func(b *bench, id string)
	}{
		{"empty", func(b *bench, id string) {
			b.c.Join(b.at, 1, &JoinRequest{Group: id, NewID: "m", ProtocolType: "consumer", Protocols: []cluster.GroupProtocol{{Name: "range", Metadata: []byte{0}}}, SessionTimeoutMS: 10000, RebalanceTimeoutMS: 10000, ClientID: "c", IDRequired: true})
		}},
		{"one offset", func(b *bench, id string) { b.commit(id, 1, "") }},
		{"ten offsets", func(b *bench, id string) { b.commit(id, 10, "") }},
		{"ten offsets with metadata", func(b *bench, id string) { b.commit(id, 10, "some text that a client keeps beside its offset") }},
		{"a classic member", func(b *bench, id string) {
			b.c.Join(b.at, 1, &JoinRequest{Group: id, NewID: "consumer-1-0123456789-0123456789-0123456789", ProtocolType: "consumer", Protocols: []cluster.GroupProtocol{{Name: "range", Metadata: subscription("t")}}, SessionTimeoutMS: 10000, RebalanceTimeoutMS: 10000, ClientID: "client", ClientHost: "/10.0.0.1"})
		}},
		{"a consumer", func(b *bench, id string) {
			b.c.ConsumerHeartbeat(b.at, 1, &ConsumerRequest{Group: id, MemberID: "0123456789-0123456789-01", ClientID: "client", ClientHost: "/10.0.0.1", RebalanceTimeoutMS: 60000, Owned: []cluster.TopicPartitions{}, Topics: []string{"t"}})
		}},
	} {
		b := newBench(t)
		b.o.GroupsMax, b.o.MembersMax, b.o.ConsumersMax = count, count, count
		b.c.SetOptions(b.o)
		must(t, b.state)(b.state.PlanCreate("t", 10, 1, nil, id(1), roomy))
		before := liveHeap()
		for i := range count {
			x.make(b, fmt.Sprintf("a-group-of-an-application-%d", i))
			b.settle()
			b.said.Reset()
			b.saved = nil
		}
		took := int(liveHeap() - before)
		if len(b.c.groups) != count {
			t.Fatalf("%s: %d groups", x.name, len(b.c.groups))
		}
		counted := b.c.bytes + b.state.GroupBytes()
		planned := count*GroupHeapBytes + counted*CountedHeapBytes
		t.Logf("%s: %d bytes a group, %d of them counted; %d planned", x.name, took/count, counted/count, planned/count)
		if took > planned {
			t.Errorf("%s: a group takes %d bytes of the heap, %d are planned for it (%d counted)", x.name, took/count, planned/count, counted/count)
		}
		runtime.KeepAlive(b)
	}
}

// commit commits so many offsets for a group.
func (b *bench) commit(group string, offsets int, metadata string) {
	topic := cluster.GroupTopic{Name: "t"}
	for p := range offsets {
		topic.Offsets = append(topic.Offsets, cluster.Offset{Partition: int32(p), Offset: 1, LeaderEpoch: -1, Metadata: metadata, CommittedMS: b.at.WallMS, ExpiresMS: -1})
	}
	if code := b.c.Commit(b.at, 1, &CommitRequest{Group: group, Generation: -1}, []cluster.GroupTopic{topic}); code != 0 {
		b.t.Fatal(code)
	}
}

func liveHeap() uint64 {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}
