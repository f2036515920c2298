package lives

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/broker"
	"github.com/tailbound/tailbound/metrics"
	"github.com/tailbound/tailbound/shard"
)

// timedLog is a topic of one partition, and what a count by hand knows of it.
type timedLog struct {
	topic   string
	gzip    bool
	configs map[string]string
	claims  *int64              // what the producer claims to be the largest time of every batch; nil: the truth
	time    func(i int64) int64 // of record i as its producer sends it
	times   []int64             // of the records, by offset, as readers see them; noTime: none
	start   int64
}

const (
	noTime          = -1
	timesPerBatch   = 7
	timesBatchBytes = 5000
)

// answer is what ListOffsets says: -1 where there is none.
type answer struct{ time, offset int64 }

// byHand is the answer that a count gives: -1 is the end, -2 and -4 the start, -3 the largest time.
func (l *timedLog) byHand(asked int64) answer {
	switch asked {
	case -1:
		return answer{-1, int64(len(l.times))}
	case -2, -4:
		return answer{-1, l.start}
	}
	found := answer{-1, -1}
	for offset := l.start; offset < int64(len(l.times)); offset++ {
		switch time := l.times[offset]; {
		case time == noTime:
		case asked == -3 && time > found.time:
			found = answer{time, offset}
		case asked >= 0 && time >= asked:
			return answer{time, offset}
		}
	}
	return found
}

// timesBatch is a record batch whose records have these times, and whose producer claims that largest is the largest.
func timesBatch(times []int64, largest int64, zipped bool) []byte {
	var records []byte
	for i, time := range times {
		record := []byte{0}
		record = binary.AppendVarint(record, time-times[0])
		record = binary.AppendVarint(record, int64(i))
		record = binary.AppendVarint(record, -1)
		value := make([]byte, timesBatchBytes/len(times))
		x := uint64(time)*0x9e3779b97f4a7c15 + uint64(i) + 1
		for k := range value {
			x = x*6364136223846793005 + 1442695040888963407
			value[k] = byte(x >> 56)
		}
		record = binary.AppendVarint(record, int64(len(value)))
		record = append(append(record, value...), 0)
		records = append(binary.AppendVarint(records, int64(len(record))), record...)
	}
	b := make([]byte, headBytes)
	if zipped {
		var out bytes.Buffer
		w := gzip.NewWriter(&out)
		w.Write(records)
		w.Close()
		records, b[22] = out.Bytes(), 1
	}
	b[16] = 2
	binary.BigEndian.PutUint32(b[23:], uint32(len(times)-1))
	binary.BigEndian.PutUint64(b[27:], uint64(times[0]))
	binary.BigEndian.PutUint64(b[35:], uint64(largest))
	binary.BigEndian.PutUint64(b[43:], ^uint64(0))
	binary.BigEndian.PutUint16(b[51:], ^uint16(0))
	binary.BigEndian.PutUint32(b[53:], ^uint32(0))
	binary.BigEndian.PutUint32(b[57:], uint32(len(times)))
	b = append(b, records...)
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
	return b
}

// timesWorld is a broker whose memory holds little, and segments little more.
func timesWorld(t *testing.T) *scarce {
	return newScarce(t, 3, func(o *broker.Options) {
		o.Memory.LogMemoryBytes, o.Memory.SegmentBytes, o.Memory.JournalBytes = 1<<20, 256<<10, 1<<20
		o.DirectBytes, o.DrainNS = 0, shard.DrainNS
	})
}

// begin makes the log's topic.
func (l *timedLog) begin(s *scarce) {
	s.t.Helper()
	r := kmsg.NewPtrCreateTopicsRequest()
	r.Version = 5
	q := kmsg.NewCreateTopicsRequestTopic()
	q.Topic, q.NumPartitions, q.ReplicationFactor = l.topic, 1, 1
	for name, value := range l.configs {
		x := kmsg.NewCreateTopicsRequestTopicConfig()
		x.Name, x.Value = name, kmsg.StringPtr(value)
		q.Configs = append(q.Configs, x)
	}
	r.Topics = append(r.Topics, q)
	if code := s.dial(0).mustAnswer(r).(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode; code != 0 {
		s.t.Fatalf("making topic %s: error %d", l.topic, code)
	}
}

// add appends batches.
func (l *timedLog) add(u *user, batches int) {
	u.s.t.Helper()
	for range batches {
		var times []int64
		for i := range int64(timesPerBatch) {
			times = append(times, l.time(int64(len(l.times))+i))
		}
		r := kmsg.NewPtrProduceRequest()
		r.Version, r.Acks, r.TimeoutMillis = 8, -1, 600_000
		q := kmsg.NewProduceRequestTopicPartition()
		largest := slices.Max(times)
		if l.claims != nil {
			largest = *l.claims
		}
		q.Records = timesBatch(times, largest, l.gzip)
		t := kmsg.NewProduceRequestTopic()
		t.Topic, t.Partitions = l.topic, append(t.Partitions, q)
		r.Topics = append(r.Topics, t)
		p := u.mustAnswer(r).(*kmsg.ProduceResponse).Topics[0].Partitions[0]
		if p.ErrorCode != 0 || p.BaseOffset != int64(len(l.times)) {
			u.s.t.Fatalf("%s: a batch for offset %d is at %d, error %d", l.topic, len(l.times), p.BaseOffset, p.ErrorCode)
		}
		if p.LogAppendTime >= 0 {
			for i := range times {
				times[i] = p.LogAppendTime
			}
		}
		l.times = append(l.times, times...)
	}
}

// listOf is a question about each of some logs.
func listOf(logs []*timedLog, asked int64) *kmsg.ListOffsetsRequest {
	r := kmsg.NewPtrListOffsetsRequest()
	r.Version, r.ReplicaID = 8, -1
	for _, l := range logs {
		q := kmsg.NewListOffsetsRequestTopicPartition()
		q.Timestamp, q.CurrentLeaderEpoch = asked, -1
		t := kmsg.NewListOffsetsRequestTopic()
		t.Topic, t.Partitions = l.topic, append(t.Partitions, q)
		r.Topics = append(r.Topics, t)
	}
	return r
}

// ask asks the broker about some logs in one request, and holds its answers against a count by hand.
func (s *scarce) askAt(u *user, state string, logs []*timedLog, asked int64) {
	s.t.Helper()
	n := len(u.got)
	u.ask(listOf(logs, asked))
	s.until(fmt.Sprintf("%s: an answer to %d", state, asked), 60, func() bool { return len(u.got) > n })
	for i, topic := range u.got[n].(*kmsg.ListOffsetsResponse).Topics {
		l, p := logs[i], topic.Partitions[0]
		if got, want := (answer{p.Timestamp, p.Offset}), l.byHand(asked); p.ErrorCode != 0 || got != want {
			s.t.Errorf("%s, %s, which has offsets %d to %d: asked for %d: error %d, time %d, offset %d; want time %d, offset %d", state, l.topic, l.start, len(l.times), asked,
				p.ErrorCode, got.time, got.offset, want.time, want.offset)
		}
	}
}

// remove has the records before an offset deleted.
func (l *timedLog) remove(u *user, before int64) {
	u.s.t.Helper()
	r := kmsg.NewPtrDeleteRecordsRequest()
	q := kmsg.NewDeleteRecordsRequestTopicPartition()
	q.Offset = before
	t := kmsg.NewDeleteRecordsRequestTopic()
	t.Topic, t.Partitions = l.topic, append(t.Partitions, q)
	r.Topics = append(r.Topics, t)
	if p := u.mustAnswer(r).(*kmsg.DeleteRecordsResponse).Topics[0].Partitions[0]; p.ErrorCode != 0 || p.LowWatermark != before {
		u.s.t.Fatalf("%s: deleting before %d: low watermark %d, error %d", l.topic, before, p.LowWatermark, p.ErrorCode)
	}
	l.start = before
}

// restart ends the broker's life and begins the next.
func (s *scarce) restart(clean bool) {
	s.t.Helper()
	if clean {
		s.must(s.stop())
	}
	s.w.Stop()
	s.cores, s.broker, s.conns, s.stopping = nil, nil, nil, false
	s.free()
	if clean {
		s.disk.PowerCut(s.rng) // what a clean stop left is durable
	} else {
		s.disk.Kill(s.rng)
	}
	s.must(s.open())
	s.levels = metrics.NewCollector(s.cores[1].shard.Timelines)
	s.must(s.brokerSim.serve())
}

// evict has other records take the memory that a log's have.
func (s *scarce) evict(u *user) {
	s.t.Helper()
	s.store(u, 3<<20/30_000, 30_000)
	s.pass(3e9)
}

// TestOffsetsByTime: every question of ListOffsets, about logs whose times rise, go up and down, are small, are the broker's or are missing, plain and
// compressed, is answered as a count by hand answers it: from memory, from disk after eviction and in later lives, across runs and segments, and where
// records were deleted up to the middle of a batch.
func TestOffsetsByTime(t *testing.T) {
	t.Parallel()
	const first = 1_700_000_000_000
	keep := map[string]string{"retention.ms": "-1"}
	rising := func(i int64) int64 { return first + 10*i }
	falling := func(i int64) int64 { return first - 10*i }
	updown := func(i int64) int64 { return first + int64(uint64(i)*0x9e3779b97f4a7c15>>40)%20_000 }
	small := func(i int64) int64 { return i / 3 }
	some := func(i int64) int64 {
		if i%3 > 0 {
			return noTime
		}
		return updown(i)
	}
	none := func(int64) int64 { return noTime }
	zero, without := int64(0), int64(noTime)
	logs := []*timedLog{
		{topic: "librdkafka", configs: keep, time: none, claims: &zero},
		{topic: "librdkafka-gzip", configs: keep, time: none, claims: &zero, gzip: true},
		{topic: "sarama", configs: keep, time: updown, claims: &without},
		{topic: "sarama-gzip", configs: keep, time: updown, claims: &without, gzip: true},
		{topic: "rising", configs: keep, time: rising},
		{topic: "rising-gzip", configs: keep, time: rising, gzip: true},
		{topic: "falling", configs: keep, time: falling},
		{topic: "up-and-down", configs: keep, time: updown},
		{topic: "up-and-down-gzip", configs: keep, time: updown, gzip: true},
		{topic: "small", configs: keep, time: small},
		{topic: "append-time", configs: map[string]string{"retention.ms": "-1", "message.timestamp.type": "LogAppendTime"}, time: updown},
		{topic: "append-time-gzip", configs: map[string]string{"retention.ms": "-1", "message.timestamp.type": "LogAppendTime"}, time: updown, gzip: true},
		{topic: "some-without", configs: keep, time: some},
		{topic: "all-without", configs: keep, time: none},
	}
	s := timesWorld(t)
	u := s.dial(1)
	for _, l := range logs {
		l.begin(s)
		l.add(u, 1)
	}
	read := func() uint64 { return s.cores[1].shard.Timelines.Counters.ColdReads }
	check := func(state string, cold bool) {
		t.Helper()
		before := read()
		for _, at := range []int64{-1, -2, -3, -4, 0, 1, first, first + 5000, first + 1<<40} {
			s.askAt(u, state, logs, at)
		}
		for _, l := range logs {
			var asked []int64
			if l.start > 0 {
				asked = append(asked, l.times[l.start-1], slices.Max(l.times))
			}
			for range 24 {
				asked = append(asked, l.times[s.rng.IntN(len(l.times))]+int64(s.rng.IntN(3))-1)
			}
			for _, at := range asked {
				if at >= 0 {
					s.askAt(u, state, []*timedLog{l}, at)
				}
			}
		}
		if cold != (read() > before) {
			t.Errorf("%s: %d reads from disk, want some: %v", state, read()-before, cold)
		}
	}
	// in the middle of batches, and past the largest times
	cut := func(part int64) {
		for _, l := range logs {
			l.remove(u, int64(len(l.times))*part/10/timesPerBatch*timesPerBatch+3)
		}
	}
	check("in memory", false)
	cut(0)
	check("in memory, a batch cut in two", false)
	for _, l := range logs {
		l.add(u, 120)
	}
	check("partly in memory", true)
	s.evict(u)
	check("evicted", true)
	cut(2)
	check("evicted, a batch cut in two", true)
	s.restart(true)
	u = s.dial(1)
	check("after a clean restart", true)
	for _, l := range logs {
		l.add(u, 3)
	}
	check("after a clean restart, appended to", true)
	s.restart(false)
	u = s.dial(1)
	check("after kill -9", true)
	cut(7)
	check("after kill -9, a batch cut in two", true)
	s.restart(true)
	u = s.dial(1)
	check("after a clean restart, a batch cut in two", true)
	for _, l := range logs {
		l.remove(u, int64(len(l.times)))
	}
	check("emptied", false)
	for _, l := range logs {
		l.add(u, 1)
	}
	check("emptied and appended to", false)
}

// TestAgesAreTheRecords: retention goes by what the records say and by when they were appended, never by what only a producer claims, in the life in which they
// were appended and in later ones; and it looks at ages as seldom as it is told.
func TestAgesAreTheRecords(t *testing.T) {
	t.Parallel()
	keepsHour := map[string]string{"retention.ms": "3600000"}
	keepsSeconds := map[string]string{"retention.ms": "20000"}
	now := func(int64) int64 { return 1_700_000_000_000 }
	history := func(i int64) int64 { return 1_600_000_000_000 + i }
	small := func(i int64) int64 { return i }
	none := func(int64) int64 { return noTime }
	some := func(i int64) int64 {
		if i%timesPerBatch == 3 {
			return noTime
		}
		return history(i)
	}
	zero, without := int64(0), int64(noTime)
	// What is old by its times goes at the first look at ages; what only seems to be so stays. What is appended now goes after 20 seconds.
	old := []*timedLog{{topic: "history", time: history}, {topic: "history-gzip", time: history, gzip: true}, {topic: "small", time: small}, {topic: "small-gzip", time: small, gzip: true}}
	young := []*timedLog{
		{topic: "now", time: now}, {topic: "now-gzip", time: now, gzip: true},
		{topic: "librdkafka", time: none, claims: &zero}, {topic: "librdkafka-gzip", time: none, claims: &zero, gzip: true},
		{topic: "sarama", time: now, claims: &without}, {topic: "sarama-gzip", time: now, claims: &without, gzip: true},
		{topic: "without", time: none}, {topic: "some-without", time: some}, {topic: "claims-history", time: now, claims: &zero},
	}
	var short []*timedLog
	for _, l := range young {
		l.configs = keepsHour
		x := *l
		x.topic, x.configs = "short-"+l.topic, keepsSeconds
		short = append(short, &x)
	}
	for _, l := range old {
		l.configs = keepsHour
	}
	s := newScarce(t, 5, func(o *broker.Options) {
		o.Memory.SegmentBytes, o.DirectBytes, o.RetentionCheckNS = 256<<10, 0, 10e9
	})
	u := s.dial(1)
	for _, l := range slices.Concat(old, young, short) {
		l.begin(s)
		l.add(u, 60)
	}
	start := func(l *timedLog) int64 {
		return u.mustAnswer(listOf([]*timedLog{l}, -2)).(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0].Offset
	}
	all := func(state string, logs []*timedLog, there bool) {
		t.Helper()
		for _, l := range logs {
			want := int64(0)
			if !there {
				want = int64(len(l.times))
			}
			if got := start(l); got != want {
				t.Errorf("%s: %s, which has %d records, starts at %d", state, l.topic, len(l.times), got)
			}
		}
	}
	s.pass(5e9)
	all("5 s after they were appended", slices.Concat(old, young, short), true)
	s.pass(8e9)
	all("13 s after", old, false)
	all("13 s after", slices.Concat(young, short), true)
	for _, clean := range []bool{true, false} {
		s.restart(clean)
		u = s.dial(1)
		all("after a restart", slices.Concat(young, short), true)
	}
	s.pass(30e9)
	all("43 s after they were appended", short, false)
	all("43 s after", young, true)
}

// TestSearchesAreBounded: searches by time that have to look through a whole log on disk neither starve a reader of old records nor hold a stop up, and end
// with their connections. None of them reads more at a time than its share.
func TestSearchesAreBounded(t *testing.T) {
	t.Parallel()
	const searches = 12
	// The largest time is deleted: what is left has to be looked through, each batch for a larger one.
	l := &timedLog{topic: "long", configs: map[string]string{"retention.ms": "-1"}, time: func(i int64) int64 {
		if i == 0 {
			return 1_700_003_000_000
		}
		return 1_700_000_000_000 + i
	}}
	s := timesWorld(t)
	u := s.dial(1)
	l.begin(s)
	l.add(u, 1200)
	s.store(u, 100, 30_000) // and other records, which a reader asks for
	s.evict(u)
	l.remove(u, 1)
	s.restart(true)
	c := &s.cores[1].shard.Timelines.Counters
	askAll := func() (all []*user) {
		for range searches {
			x := s.dial(1)
			x.ask(listOf([]*timedLog{l}, -3))
			all = append(all, x)
		}
		s.until("all of them search", 10, func() bool { return c.SearchesYielded >= searches && s.pool("requests").Used == searches })
		return all
	}
	answered := func(all []*user) (n int) {
		for _, x := range all {
			n += len(x.got)
		}
		return n
	}

	all := askAll()
	before := c.ColdReads
	p := s.dial(1).mustAnswer(fetchOf(0, 10_000, 30_000)).(*kmsg.FetchResponse).Topics[0].Partitions[0]
	if p.ErrorCode != 0 || len(p.RecordBatches) == 0 || answered(all) > 0 {
		t.Fatalf("a reader of old records: error %d, %d bytes; %d searches have ended", p.ErrorCode, len(p.RecordBatches), answered(all))
	}
	// Those that wait before it, each with one share.
	if n := c.ColdReads - before; n > searches*4+4 {
		t.Errorf("%d reads of %d searches came before a reader's", n, searches)
	}
	s.until("the searches end", 100, func() bool { return answered(all) == searches })
	want := l.byHand(-3)
	for _, x := range all {
		if p := x.got[0].(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0]; p.ErrorCode != 0 || p.Offset != want.offset || p.Timestamp != want.time {
			t.Errorf("error %d, offset %d, time %d; want offset %d, time %d", p.ErrorCode, p.Offset, p.Timestamp, want.offset, want.time)
		}
	}
	whole := c.ColdReads - before

	c.SearchesYielded = 0
	all = askAll()
	for _, x := range all {
		x.c.c.Reset()
	}
	before = c.ColdReads
	s.until("nothing is held any more", 10, func() bool { return s.pool("requests").Used == 0 && s.pool("cold reads").Used == 0 })
	if n := c.ColdReads - before; n > 2*searches {
		t.Errorf("%d reads for connections that were gone; %d for those that were not", n, whole)
	}

	c.SearchesYielded = 0
	all = askAll()
	before = c.ColdReads
	s.must(s.halt())
	if n := c.ColdReads - before; n > 2*searches {
		t.Errorf("%d reads while the broker stops; %d otherwise", n, whole)
	}
	for _, x := range all {
		s.must(x.c.poll())
		if len(x.got) != 1 {
			t.Fatal("a stop does not answer a search")
		}
		if p := x.got[0].(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0]; p.ErrorCode != codeNotLeader || p.Offset != -1 {
			t.Errorf("at a stop: error %d, offset %d", p.ErrorCode, p.Offset)
		}
	}
}
