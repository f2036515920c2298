package interop

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// What docs/ERRORS.md says of bad input, row by row, where no other test does.

func createRequest(topics ...kmsg.CreateTopicsRequestTopic) *kmsg.CreateTopicsRequest {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Version, req.TimeoutMillis, req.Topics = 7, 10000, topics
	return req
}

func aTopic(name string, partitions int32, factor int16, configs ...string) kmsg.CreateTopicsRequestTopic {
	q := kmsg.NewCreateTopicsRequestTopic()
	q.Topic, q.NumPartitions, q.ReplicationFactor = name, partitions, factor
	for i := 0; i+1 < len(configs); i += 2 {
		k := kmsg.NewCreateTopicsRequestTopicConfig()
		k.Name, k.Value = configs[i], &configs[i+1]
		q.Configs = append(q.Configs, k)
	}
	return q
}

// TestTopicInput: what a topic cannot be is refused by name, says why, and makes nothing.
func TestTopicInput(t *testing.T) {
	needReal(t, "it takes more than Kafka does")
	b := sharedBroker(t)
	w := dialTo(t, b.addr())
	count := func() int { return len(metadata(t, dialTo(t, b.addr()), "").Topics) }
	name := topicName(t)
	null := aTopic(name, 1, 1)
	null.Configs = append(null.Configs, kmsg.NewCreateTopicsRequestTopicConfig())
	null.Configs[0].Name = "retention.ms"
	for _, c := range []struct {
		topic kmsg.CreateTopicsRequestTopic
		want  *kerr.Error
	}{
		{aTopic("", 1, 1), kerr.InvalidTopicException},
		{aTopic(".", 1, 1), kerr.InvalidTopicException},
		{aTopic("..", 1, 1), kerr.InvalidTopicException},
		{aTopic("a b", 1, 1), kerr.InvalidTopicException},
		{aTopic("a/b", 1, 1), kerr.InvalidTopicException},
		{aTopic("../a", 1, 1), kerr.InvalidTopicException},
		{aTopic("a\x00b", 1, 1), kerr.InvalidTopicException},
		{aTopic("a\nb", 1, 1), kerr.InvalidTopicException},
		{aTopic("\u00fc", 1, 1), kerr.InvalidTopicException},
		{aTopic("\u2603", 1, 1), kerr.InvalidTopicException},
		{aTopic("\xff\xfe", 1, 1), kerr.InvalidTopicException},
		{aTopic("a:b", 1, 1), kerr.InvalidTopicException},
		{aTopic("a*", 1, 1), kerr.InvalidTopicException},
		{aTopic(strings.Repeat("x", 250), 1, 1), kerr.InvalidTopicException},
		{aTopic(strings.Repeat("x", 30000), 1, 1), kerr.InvalidTopicException},
		{aTopic(name, 0, 1), kerr.InvalidPartitions},
		{aTopic(name, -2, 1), kerr.InvalidPartitions},
		{aTopic(name, -1<<31, 1), kerr.InvalidPartitions},
		{aTopic(name, 1_000_000, 1), kerr.InvalidPartitions},
		{aTopic(name, 1<<31-1, 1), kerr.InvalidPartitions},
		{aTopic(name, 1, 0), kerr.InvalidReplicationFactor},
		{aTopic(name, 1, 2), kerr.InvalidReplicationFactor},
		{aTopic(name, 1, -2), kerr.InvalidReplicationFactor},
		{aTopic(name, 1, 32767), kerr.InvalidReplicationFactor},
		{aTopic(name, 1, 1, "no.such", "1"), kerr.InvalidConfig},
		{aTopic(name, 1, 1, "Retention.ms", "1"), kerr.InvalidConfig},
		{aTopic(name, 1, 1, "retention.ms", "1h"), kerr.InvalidConfig},
		{aTopic(name, 1, 1, "retention.ms", ""), kerr.InvalidConfig},
		{aTopic(name, 1, 1, "retention.ms", "9223372036854775808"), kerr.InvalidConfig},
		{aTopic(name, 1, 1, "segment.bytes", "100MB"), kerr.InvalidConfig},
		{aTopic(name, 1, 1, "segment.bytes", "1e9"), kerr.InvalidConfig},
		{aTopic(name, 1, 1, "min.insync.replicas", "2"), kerr.InvalidConfig},
		{aTopic(name, 1, 1, "message.timestamp.type", "logappendtime"), kerr.InvalidConfig},
		{aTopic(name, 1, 1, "cleanup.policy", "compact,delete"), kerr.InvalidConfig},
		{aTopic(name, 1, 1, "compression.type", "zstd"), kerr.InvalidConfig},
		{aTopic(name, 1, 1, "retention.ms", "1", "retention.ms", "2"), kerr.InvalidConfig},
		{null, kerr.InvalidConfig},
	} {
		before := count()
		x := mustAsk[*kmsg.CreateTopicsResponse](t, w, createRequest(c.topic)).Topics[0]
		if x.ErrorCode != c.want.Code || x.ErrorMessage == nil || *x.ErrorMessage == "" {
			t.Errorf("%.40q, %d partitions, factor %d, %v: error %d; want %v and why", c.topic.Topic, c.topic.NumPartitions, c.topic.ReplicationFactor, c.topic.Configs, x.ErrorCode, c.want)
		}
		if after := count(); after != before {
			t.Errorf("%.40q was refused and made: %d topics, then %d", c.topic.Topic, before, after)
		}
		// Metadata makes no such topic either.
		if c.want == kerr.InvalidTopicException {
			if m := metadata(t, dialTo(t, b.addr()), c.topic.Topic); c.topic.Topic != "" && m.Topics[0].ErrorCode != c.want.Code {
				t.Errorf("metadata of %.40q: error %d", c.topic.Topic, m.Topics[0].ErrorCode)
			}
		}
	}
	// A request that names a topic twice makes it not at all, and the others.
	other := name + ".other"
	rs := mustAsk[*kmsg.CreateTopicsResponse](t, w, createRequest(aTopic(name, 1, 1), aTopic(other, 1, 1), aTopic(name, 2, 1))).Topics
	if rs[0].ErrorCode != kerr.InvalidRequest.Code || rs[1].ErrorCode != 0 || rs[2].ErrorCode != kerr.InvalidRequest.Code {
		t.Errorf("a topic named twice: %+v", rs)
	}
	if x := mustAsk[*kmsg.CreateTopicsResponse](t, w, createRequest(aTopic(other, 1, 1))).Topics[0]; x.ErrorCode != kerr.TopicAlreadyExists.Code {
		t.Errorf("made again: error %d", x.ErrorCode)
	}
	rehearsal := createRequest(aTopic(name, 3, -1), aTopic(other, 3, -1))
	rehearsal.ValidateOnly = true
	before := count()
	if rs := mustAsk[*kmsg.CreateTopicsResponse](t, w, rehearsal).Topics; rs[0].ErrorCode != 0 || rs[1].ErrorCode != kerr.TopicAlreadyExists.Code || count() != before {
		t.Errorf("a rehearsal: %+v, %d topics, then %d", rs, before, count())
	}
	// From version 5 on it is told all that the topic would have.
	withConfig := aTopic(name, 3, -1)
	withConfig.Configs = append(withConfig.Configs, kmsg.CreateTopicsRequestTopicConfig{Name: "retention.ms", Value: kmsg.StringPtr("77000")})
	rehearsal = createRequest(withConfig)
	rehearsal.Version, rehearsal.ValidateOnly = 7, true
	told := mustAsk[*kmsg.CreateTopicsResponse](t, w, rehearsal).Topics[0]
	retention := ""
	for _, c := range told.Configs {
		if c.Name == "retention.ms" {
			retention = *c.Value
		}
	}
	if told.ErrorCode != 0 || told.NumPartitions != 3 || told.ReplicationFactor != 1 || told.TopicID != [16]byte{} || retention != "77000" {
		t.Errorf("a rehearsal in version 7: %+v", told)
	}
	for _, good := range []string{".a", "-", "_", "...", strings.Repeat("y", 249)} {
		if x := mustAsk[*kmsg.CreateTopicsResponse](t, w, createRequest(aTopic(good, -1, -1))).Topics[0]; x.ErrorCode != 0 || x.NumPartitions != 1 {
			t.Errorf("%.40q, which is allowed: %+v", good, x)
		}
	}
}

// TestDeleteInput: what cannot be deleted is refused, and what can is, by name and by id.
func TestDeleteInput(t *testing.T) {
	needReal(t, "it deletes what is named twice")
	b := sharedBroker(t)
	w := dialTo(t, b.addr())
	name := topicName(t)
	made := mustAsk[*kmsg.CreateTopicsResponse](t, w, createRequest(aTopic(name+".1", 2, 1), aTopic(name+".2", 2, 1), aTopic(name+".3", 2, 1))).Topics
	named := func(n string) kmsg.DeleteTopicsRequestTopic {
		q := kmsg.NewDeleteTopicsRequestTopic()
		q.Topic = &n
		return q
	}
	byID := func(id [16]byte) kmsg.DeleteTopicsRequestTopic {
		q := kmsg.NewDeleteTopicsRequestTopic()
		q.TopicID = id
		return q
	}
	both := named(name + ".1")
	both.TopicID = made[0].TopicID
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.Version, req.TimeoutMillis = 6, 10000
	ask := func(qs ...kmsg.DeleteTopicsRequestTopic) (codes []int16) {
		t.Helper()
		req.Topics = qs
		for _, x := range mustAsk[*kmsg.DeleteTopicsResponse](t, w, req).Topics {
			codes = append(codes, x.ErrorCode)
		}
		return codes
	}
	for _, c := range []struct {
		what string
		ask  []kmsg.DeleteTopicsRequestTopic
		want []int16
	}{
		{"an unknown name", []kmsg.DeleteTopicsRequestTopic{named(name)}, []int16{3}},
		{"an unknown id", []kmsg.DeleteTopicsRequestTopic{byID([16]byte{1, 2, 3})}, []int16{100}},
		{"name and id", []kmsg.DeleteTopicsRequestTopic{both}, []int16{42}},
		{"neither", []kmsg.DeleteTopicsRequestTopic{byID([16]byte{})}, []int16{42}},
		{"a name twice", []kmsg.DeleteTopicsRequestTopic{named(name + ".1"), named(name + ".1")}, []int16{42, 42}},
		{"an id twice", []kmsg.DeleteTopicsRequestTopic{byID(made[0].TopicID), byID(made[0].TopicID)}, []int16{42, 42}},
		{"a name, an id, and one that is not", []kmsg.DeleteTopicsRequestTopic{named(name + ".1"), byID(made[1].TopicID), named("../x")}, []int16{0, 0, 3}},
		{"both again", []kmsg.DeleteTopicsRequestTopic{named(name + ".1"), byID(made[1].TopicID)}, []int16{3, 100}},
	} {
		if got := ask(c.ask...); fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("deleting %s: errors %v, want %v", c.what, got, c.want)
		}
	}
	if m := metadata(t, dialTo(t, b.addr()), name+".3"); m.Topics[0].ErrorCode != 0 || len(m.Topics[0].Partitions) != 2 {
		t.Errorf("the one that was not named: %+v", m.Topics[0])
	}
}

// TestDeletedUnderLoad: a topic that is deleted while clients produce to it, and recreated at once under its name, has no records of the old one; producers
// get an error, and are never left waiting.
func TestDeletedUnderLoad(t *testing.T) {
	needReal(t, "it places partitions anywhere")
	b := sharedBroker(t)
	topic := topicName(t)
	leader := createTopic(t, b, topic, 1)
	var sent, stop atomic.Int64 // records sent so far
	failed := make(chan error, 1)
	go func() {
		failed <- func() error {
			var w *wire
			defer func() {
				if w != nil {
					w.Close()
				}
			}()
			for n := int64(0); stop.Load() == 0; n++ {
				var err error
				if w == nil {
					if w, err = dial(leader); err != nil {
						return err
					}
				}
				resp, err := w.ask(produceRequest(topic, 7, -1, bytesOf(batchOf(fmt.Sprintf("record %d.", n)))))
				if err != nil {
					return fmt.Errorf("record %d: %w", n, err)
				}
				sent.Store(n + 1)
				switch code := errorIn(resp); code {
				case 0, kerr.UnknownTopicOrPartition.Code, kerr.NotLeaderForPartition.Code:
				default:
					return fmt.Errorf("record %d: error %d", n, code)
				}
			}
			return nil
		}()
	}()
	c := clients["franz-go"]
	ctx := within(t, time.Minute)
	for range 4 {
		for at := sent.Load(); sent.Load() < at+20; {
			select {
			case err := <-failed:
				t.Fatal(err)
			case <-time.After(time.Millisecond):
			}
		}
		before := sent.Load()
		if err := c.remove(ctx, b, topic); err != nil {
			t.Fatal(err)
		}
		if err := c.create(ctx, b, topic, 1, 1); err != nil {
			t.Fatal(err)
		}
		now := leaderOf(t, b, topic, 0)
		end := endOf(t, now, topic)
		for at := int64(0); at < end; at++ {
			p := mustAsk[*kmsg.FetchResponse](t, dialTo(t, now), fetchRequest(topic, 11, at, 0)).Topics[0].Partitions[0]
			if p.ErrorCode != 0 || len(p.RecordBatches) == 0 {
				t.Fatalf("record %d of the new topic: error %d, %d bytes", at, p.ErrorCode, len(p.RecordBatches))
			}
			for n := range before - 1 { // the last may have been on its way when the old topic ended
				if bytes.Contains(p.RecordBatches, fmt.Appendf(nil, "record %d.", n)) {
					t.Fatalf("the new topic holds record %d, acknowledged by the old one", n)
				}
			}
		}
		if now != leader { // the next logs are elsewhere: make it once more, to come back
			if err := c.remove(ctx, b, topic); err != nil {
				t.Fatal(err)
			}
			if err := c.create(ctx, b, topic, 1, 1); err != nil {
				t.Fatal(err)
			}
			if leaderOf(t, b, topic, 0) != leader {
				t.Skip("somebody else makes topics meanwhile")
			}
		}
	}
	stop.Store(1)
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
}

// TestMadeAndDeletedAtOnce: requests that make and delete one topic, sent without waiting, are all answered, in order.
func TestMadeAndDeletedAtOnce(t *testing.T) {
	needReal(t, "it answers one at a time")
	b := sharedBroker(t)
	name := topicName(t)
	w := dialTo(t, b.addr())
	remove := kmsg.NewPtrDeleteTopicsRequest()
	remove.Version, remove.TimeoutMillis = 3, 10000
	remove.TopicNames = []string{name}
	var reqs []kmsg.Request
	const rounds = 10
	for range rounds {
		reqs = append(reqs, createRequest(aTopic(name, 40, 1)), remove)
	}
	reqs = append(reqs, createRequest(aTopic(name, 3, 1)))
	var all []byte
	for i, r := range reqs {
		all = append(all, frame(r, int32(i))...)
	}
	if _, err := w.Write(all); err != nil {
		t.Fatal(err)
	}
	for i, r := range reqs {
		resp, err := w.receive(r, int32(i))
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		code := int16(0)
		switch x := resp.(type) {
		case *kmsg.CreateTopicsResponse:
			code = x.Topics[0].ErrorCode
		case *kmsg.DeleteTopicsResponse:
			code = x.Topics[0].ErrorCode
		}
		if code != 0 {
			t.Errorf("request %d: error %d", i, code)
		}
	}
	for p := range int32(3) {
		if code := errorIn(mustAsk[*kmsg.ListOffsetsResponse](t, dialTo(t, leaderOf(t, b, name, p)), listPartition(name, p))); code != 0 {
			t.Errorf("partition %d: error %d", p, code)
		}
	}
}

func listPartition(topic string, partition int32) *kmsg.ListOffsetsRequest {
	r := listRequest(topic, 4, -1)
	r.Topics[0].Partitions[0].Partition = partition
	return r
}

// TestNamesWithoutEnd: a request that names more than there can be ends its connection, and what is named twice is answered once.
func TestNamesWithoutEnd(t *testing.T) {
	needReal(t, "it answers whatever is asked")
	v := newVictim(t)
	many := kmsg.NewPtrMetadataRequest()
	many.Version = 4
	for range 100_000 {
		rt := kmsg.NewMetadataRequestTopic()
		rt.Topic = &v.topic
		many.Topics = append(many.Topics, rt)
	}
	describe := kmsg.NewPtrDescribeConfigsRequest()
	describe.Version = 4
	for range 100_000 {
		x := kmsg.NewDescribeConfigsRequestResource()
		x.ResourceType, x.ResourceName = kmsg.ConfigResourceTypeTopic, v.topic
		describe.Resources = append(describe.Resources, x)
	}
	producers := kmsg.NewPtrDescribeProducersRequest()
	q := kmsg.NewDescribeProducersRequestTopic()
	q.Topic, q.Partitions = v.topic, make([]int32, 500_000)
	producers.Topics = append(producers.Topics, q)
	for port, addr := range v.ports() {
		for _, req := range []kmsg.Request{many, describe, producers} {
			w := dialTo(t, addr)
			w.send(req)
			if err := w.closedBy(10 * time.Second); err != nil {
				t.Errorf("%s without end to the %s port: %v", kmsg.NameForKey(req.Key()), port, err)
			}
		}
	}
	many.Topics, describe.Resources, producers.Topics[0].Partitions = many.Topics[:1000], describe.Resources[:1000], make([]int32, 1000)
	if n := len(mustAsk[*kmsg.MetadataResponse](t, dialTo(t, v.leader), many).Topics); n != 1 {
		t.Errorf("metadata of one topic named 1000 times: %d topics", n)
	}
	if n := len(mustAsk[*kmsg.DescribeConfigsResponse](t, dialTo(t, v.leader), describe).Resources); n != 1 {
		t.Errorf("configurations of one topic named 1000 times: %d resources", n)
	}
	answered := 0
	for _, p := range mustAsk[*kmsg.DescribeProducersResponse](t, dialTo(t, v.leader), producers).Topics[0].Partitions {
		if p.ErrorCode == 0 {
			answered++
		}
	}
	if answered != 1 {
		t.Errorf("producers of one partition named 1000 times: %d answers", answered)
	}
	v.unhurt(t, "names without end")
}

// TestBadCompression: a compressed batch of which it can be seen without opening it that nobody can is refused, and nothing of it is stored; what is wrong
// further inside is not seen.
func TestBadCompression(t *testing.T) {
	needReal(t, "it opens none")
	b := sharedBroker(t)
	topic := topicName(t)
	leader := createTopic(t, b, topic, 1)
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	w.Write(batchOf("one", "two").Records)
	w.Close()
	batch := func(codec int16, count int32, body []byte) []byte {
		x := batchOf("one", "two")
		x.Attributes, x.NumRecords, x.LastOffsetDelta, x.Records = codec, count, count-1, body
		return bytesOf(x)
	}
	for _, c := range []struct {
		what string
		raw  []byte
		want int16
	}{
		{"no body", batch(1, 2, nil), kerr.InvalidRecord.Code},
		{"gzip that says lz4", batch(3, 2, zipped.Bytes()), kerr.InvalidRecord.Code},
		{"gzip that says zstd", batch(4, 2, zipped.Bytes()), kerr.InvalidRecord.Code},
		{"records that are not compressed", batch(1, 2, batchOf("one", "two").Records), kerr.InvalidRecord.Code},
		{"two billion records", batch(1, 1<<31-1, zipped.Bytes()), kerr.InvalidRecord.Code},
		{"three records that are two", batch(1, 3, zipped.Bytes()), 0}, // unread until something opens it
		{"a stream that is cut", batch(1, 2, zipped.Bytes()[:zipped.Len()-6]), 0},
		{"whole", batch(1, 2, zipped.Bytes()), 0},
	} {
		end := endOf(t, leader, topic)
		p := mustAsk[*kmsg.ProduceResponse](t, dialTo(t, leader), produceRequest(topic, 8, -1, c.raw)).Topics[0].Partitions[0]
		if p.ErrorCode != c.want {
			t.Errorf("%s: error %d, want %d", c.what, p.ErrorCode, c.want)
		}
		if now := endOf(t, leader, topic); (now > end) != (c.want == 0) {
			t.Errorf("%s: the log ended at %d, and ends at %d", c.what, end, now)
		}
	}
}
