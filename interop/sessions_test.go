package interop

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestFetchSession: what a session says over the wire, begun on one connection and gone on with on another, as the Java client's FetchSessionHandler
// would: a whole fetch, then increments.
func TestFetchSession(t *testing.T) {
	b := sharedBroker(t)
	for _, version := range []int16{7, 11, 12, 13, 18} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			topic := topicName(t)
			leader := createTopic(t, b, topic, 1)
			id := idOf(t, b, topic)
			one, two := dialTo(t, leader), dialTo(t, leader)
			session := int32(0)
			ask := func(w *wire, epoch int32, offset int64) *kmsg.FetchResponse {
				req := fetchRequest(topic, version, max(offset, 0), 0)
				req.SessionID, req.SessionEpoch = session, epoch
				req.Topics[0].TopicID = id
				if offset < 0 {
					req.Topics = nil
				}
				return mustAsk[*kmsg.FetchResponse](t, w, req)
			}
			says := func(what string, r *kmsg.FetchResponse, code int16, records, high int64) {
				t.Helper()
				got := int64(-1) // nothing of the partition
				if len(r.Topics) == 1 && len(r.Topics[0].Partitions) == 1 {
					p := r.Topics[0].Partitions[0]
					got = 0
					for in := p.RecordBatches; len(in) > 0; {
						var batch kmsg.RecordBatch
						if err := batch.ReadFrom(in); err != nil {
							t.Fatal(err)
						}
						got += int64(batch.NumRecords)
						in = in[12+batch.Length:]
					}
					if p.ErrorCode != 0 || p.HighWatermark != high {
						t.Errorf("%s: error %d, high watermark %d, want %d", what, p.ErrorCode, p.HighWatermark, high)
					}
				}
				if r.ErrorCode != code || got != records {
					t.Errorf("%s: error %d, %d records; want %d, %d", what, r.ErrorCode, got, code, records)
				}
			}
			r := ask(one, 0, 0)
			says("the first fetch", r, 0, 0, 0)
			if session = r.SessionID; session <= 0 {
				t.Fatalf("session %d", session)
			}
			says("nothing is new", ask(two, 1, -1), 0, -1, 0)
			mustProduce(t, one, topic, bytesOf(batchOf("a", "b")))
			says("two records", ask(one, 2, -1), 0, 2, 2)
			says("again, for they were not taken", ask(two, 3, -1), 0, 2, 2)
			says("taken", ask(one, 4, 2), 0, -1, 0)
			says("an epoch of the past", ask(two, 3, -1), 71, -1, 0)
			says("in step", ask(two, 5, -1), 0, -1, 0)
			session ^= 1 << 25
			says("another's session", ask(two, 6, -1), 70, -1, 0)
			session ^= 1 << 25
			if r := ask(one, -1, -1); r.ErrorCode != 0 || r.SessionID != 0 {
				t.Errorf("the end: error %d, session %d", r.ErrorCode, r.SessionID)
			}
			says("after the end", ask(two, 6, -1), 70, -1, 0)
		})
	}
}

// TestFranzUsesSessions: a franz-go consumer of many partitions goes on with a session, through a kill -9 that ends it and a topic deleted beside
// the one it reads, and reads every record once and in order.
func TestFranzUsesSessions(t *testing.T) {
	needReal(t, "it is killed, and asked for its sessions")
	b := ownBroker(t)
	ctx := within(t, 2*time.Minute)
	topic, beside := topicName(t), topicName(t)+".beside"
	const partitions = 40
	createTopic(t, b, topic, partitions)
	createTopic(t, b, beside, 3)
	reader, err := (franz{}).dial(b, kgo.ConsumeTopics(topic, beside), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(300*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	writer, err := (franz{}).dial(b, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	next := map[int32]int64{}
	for round := range 60 {
		if round == 20 {
			b.kill()
			if err := b.start(); err != nil {
				t.Fatal(err)
			}
		}
		if round == 40 {
			req := kmsg.NewPtrDeleteTopicsRequest()
			req.TopicNames, req.TimeoutMillis = []string{beside}, 5000
			x := kmsg.NewDeleteTopicsRequestTopic()
			x.Topic = &beside
			req.Topics = append(req.Topics, x)
			if _, err := req.RequestWith(ctx, writer); err != nil {
				t.Fatal(err)
			}
		}
		p := int32(round*7) % partitions
		if err := writer.ProduceSync(ctx, &kgo.Record{Topic: topic, Partition: p, Value: fmt.Append(nil, round)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		for got := 0; got == 0; {
			fetches := reader.PollFetches(ctx)
			if ctx.Err() != nil {
				t.Fatalf("round %d: the record does not come: %v", round, fetches.Errors())
			}
			fetches.EachRecord(func(r *kgo.Record) {
				if r.Partition != p || r.Offset != next[p] || string(r.Value) != fmt.Sprint(round) {
					t.Fatalf("round %d: record %d of partition %d is %q", round, r.Offset, r.Partition, r.Value)
				}
				next[p]++
				got++
			})
		}
		if round == 19 || round == 59 {
			said, err := exec.Command(b.binary, "profile", "--data-dir", b.dir, "--once").Output()
			if err != nil {
				t.Fatal(err)
			}
			used := "?"
			for _, line := range strings.Split(string(said), "\n") {
				if f := strings.Fields(line); strings.Contains(line, "partitions in fetch sessions") {
					used = strings.Join(f, " ")
				}
			}
			t.Logf("round %d: %s", round, used)
			if !strings.Contains(used, "partitions in fetch sessions") || strings.Contains(used, "sessions 0 ") {
				t.Errorf("round %d: no session is in use: %s", round, used)
			}
		}
	}
}
