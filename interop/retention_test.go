package interop

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func startOf(t *testing.T, leader, topic string) int64 {
	t.Helper()
	p := mustAsk[*kmsg.ListOffsetsResponse](t, dialTo(t, leader), listRequest(topic, 4, -2)).Topics[0].Partitions[0]
	if p.ErrorCode != 0 {
		t.Fatalf("ListOffsets %s: error %d", topic, p.ErrorCode)
	}
	return p.Offset
}

// eventually waits for what the broker does by itself.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("%s never came", what)
		}
	}
}

// segmentBytes is what the files of a stopped or running broker's segments take.
func segmentFiles(t *testing.T, b *broker) (n int) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(b.dir, "segments", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// TestRetention: whole segments go by size and by age, files and all; what is left is read and appended to, in the next life too.
func TestRetention(t *testing.T) {
	needReal(t, "it has no files")
	b := ownBroker(t, "--retention-check-interval", "50ms")
	adm := admin(t, b)
	ctx := within(t, 2*time.Minute)
	topic := topicName(t)
	leader := configured(t, b, adm, topic, map[string]string{"segment.bytes": "1048576", "retention.bytes": "2000000", "retention.ms": "-1"})
	w := dialTo(t, leader)
	value := func(i int64) string { return fmt.Sprintf("%d %s", i, strings.Repeat("v", 100_000)) }
	end := int64(0)
	produce := func(n int64) {
		t.Helper()
		for range n {
			if base := mustProduce(t, w, topic, bytesOf(batchOf(value(end)))); base != end {
				t.Fatalf("record %d is at %d", end, base)
			}
			end++
		}
	}
	readable := func(from int64) {
		t.Helper()
		for at := from; at < end; at++ {
			p := mustAsk[*kmsg.FetchResponse](t, dialTo(t, leader), fetchRequest(topic, 11, at, 0)).Topics[0].Partitions[0]
			if p.ErrorCode != 0 || !bytes.Contains(p.RecordBatches, []byte(value(at))) || p.LogStartOffset > at {
				t.Fatalf("record %d cannot be read: error %d, %d bytes, log start %d", at, p.ErrorCode, len(p.RecordBatches), p.LogStartOffset)
			}
		}
	}
	produce(70)
	var start int64
	since := time.Now() // the last segments count when they are flushed, a second after the last append
	eventually(t, "retention by size", func() bool {
		was := start
		if start = startOf(t, leader, topic); start != was || start < 30 {
			since = time.Now()
		}
		return time.Since(since) > 2*time.Second
	})
	if start > 55 {
		t.Fatalf("of 7 MB the first %d records of 100 kB are gone, though 2 MB may stay", start)
	}
	readable(start)
	if p := mustAsk[*kmsg.FetchResponse](t, dialTo(t, leader), fetchRequest(topic, 11, start-1, 0)).Topics[0].Partitions[0]; p.ErrorCode != kerr.OffsetOutOfRange.Code {
		t.Errorf("a fetch below the start: error %d", p.ErrorCode)
	}
	b.kill()
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	leader = leaderOf(t, b, topic, 0)
	w = dialTo(t, leader)
	if again := startOf(t, leader, topic); again < start || again > 60 {
		t.Errorf("after kill -9 the log starts at %d; it was %d", again, start)
	}
	start = startOf(t, leader, topic)
	readable(start)
	produce(3)

	before := segmentFiles(t, b)
	if err := alterTopic(ctx, adm, topic, setConfig("retention.bytes", "-1"), setConfig("retention.ms", "300")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "retention by age", func() bool { return startOf(t, leader, topic) == end })
	eventually(t, "the end of the files", func() bool { return segmentFiles(t, b) < before })
	if err := alterTopic(ctx, adm, topic, setConfig("retention.ms", "-1")); err != nil {
		t.Fatal(err)
	}
	start = end
	produce(5)
	readable(start)

	// A segment that is old enough takes no more: the one before the last append can go.
	if err := alterTopic(ctx, adm, topic, setConfig("segment.ms", "1")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a segment by age", func() bool {
		produce(1)
		have, err := os.ReadDir(filepath.Join(b.dir, "segments"))
		return err == nil && len(have) > before
	})
}

// TestUntimedRecordsStay: records without timestamps, as librdkafka sends them, and records of which their producer claims that the largest timestamp is -1, as
// Sarama before 1.45.1 did, are not removed before they are old, in this life and in later ones, and are found by time where they have one. Then they are.
func TestUntimedRecordsStay(t *testing.T) {
	needReal(t, "it has no files")
	b := ownBroker(t, "--retention-check-interval", "50ms")
	adm := admin(t, b)
	ctx := within(t, 2*time.Minute)
	const n = 10
	topics := map[string]bool{} // whether the records have timestamps
	now := time.Now().UnixMilli()
	for _, codec := range []string{"none", "gzip"} {
		if c, ok := clients["confluent"]; ok {
			topic := topicName(t) + ".librdkafka." + codec
			configured(t, b, adm, topic, nil)
			var rs []record
			for i := range n {
				rs = append(rs, record{timeMS: -1, value: fmt.Appendf(nil, "v%d", i)})
			}
			if _, err := c.produce(ctx, b, topic, produceOptions{codec: codec, acks: -1}, rs); err != nil {
				t.Fatal(err)
			}
			topics[topic] = false
		}
		topic := topicName(t) + ".sarama." + codec
		leader := configured(t, b, adm, topic, nil)
		var values []string
		for i := range n {
			values = append(values, fmt.Sprint(i))
		}
		batch := batchOf(values...)
		batch.FirstTimestamp, batch.MaxTimestamp = now, -1
		if codec == "gzip" {
			var zipped bytes.Buffer
			w := gzip.NewWriter(&zipped)
			w.Write(batch.Records)
			w.Close()
			batch.Records, batch.Attributes = zipped.Bytes(), 1
		}
		mustProduce(t, dialTo(t, leader), topic, bytesOf(batch))
		topics[topic] = true
	}
	there := func(state string) {
		t.Helper()
		time.Sleep(500 * time.Millisecond) // ten looks at ages
		for topic, timed := range topics {
			leader := leaderOf(t, b, topic, 0)
			if start, end := startOf(t, leader, topic), endOf(t, leader, topic); start != 0 || end != n {
				t.Errorf("%s: %s has offsets %d to %d, want 0 to %d", state, topic, start, end, n)
			}
			found := mustAsk[*kmsg.ListOffsetsResponse](t, dialTo(t, leader), listRequest(topic, 7, now-1)).Topics[0].Partitions[0]
			largest := mustAsk[*kmsg.ListOffsetsResponse](t, dialTo(t, leader), listRequest(topic, 7, -3)).Topics[0].Partitions[0]
			wantOffset, wantTime := int64(-1), int64(-1)
			if timed {
				wantOffset, wantTime = 0, now
			}
			if found.ErrorCode != 0 || found.Offset != wantOffset || found.Timestamp != wantTime || largest.ErrorCode != 0 || largest.Offset != wantOffset {
				t.Errorf("%s: %s: by time offset %d, time %d, the largest at %d; want offset %d, time %d", state, topic, found.Offset, found.Timestamp, largest.Offset, wantOffset, wantTime)
			}
		}
	}
	there("as produced")
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	there("after a clean restart")
	b.kill()
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	there("after kill -9")
	adm = admin(t, b)
	for topic := range topics {
		if err := alterTopic(ctx, adm, topic, setConfig("retention.ms", "1000")); err != nil {
			t.Fatal(err)
		}
	}
	for topic := range topics {
		leader := leaderOf(t, b, topic, 0)
		eventually(t, "the end of "+topic, func() bool { return startOf(t, leader, topic) == n })
	}
}

// TestDeleteRecords: the log starts where it is told to, from the answer on, kill -9 or not.
func TestDeleteRecords(t *testing.T) {
	b := ownBroker(t)
	adm := admin(t, b)
	ctx := within(t, time.Minute)
	topic := topicName(t)
	if _, err := adm.CreateTopic(ctx, 3, 1, nil, topic); err != nil {
		t.Fatal(err)
	}
	leader := leaderOf(t, b, topic, 0)
	for i := range 10 {
		old := batchOf(fmt.Sprint(i))
		old.FirstTimestamp -= int64(i) * 1000 // the newest is the first
		old.MaxTimestamp = old.FirstTimestamp
		mustProduce(t, dialTo(t, leader), topic, bytesOf(old))
	}
	remove := func(partition int32, at int64) (low int64, err error) {
		t.Helper()
		var os kadm.Offsets
		os.AddOffset(topic, partition, at, -1)
		rs, err := adm.DeleteRecords(ctx, os)
		if err != nil {
			return 0, err
		}
		r, _ := rs.Lookup(topic, partition)
		return r.LowWatermark, r.Err
	}
	if low, err := remove(0, 4); err != nil || low != 4 {
		t.Fatalf("deleting before 4: %d %v", low, err)
	}
	at := func(want int64) {
		t.Helper()
		if got := startOf(t, leader, topic); got != want {
			t.Errorf("the log starts at %d, want %d", got, want)
		}
		p := mustAsk[*kmsg.FetchResponse](t, dialTo(t, leader), fetchRequest(topic, 11, want-1, 0)).Topics[0].Partitions[0]
		if p.ErrorCode != kerr.OffsetOutOfRange.Code {
			t.Errorf("a fetch below the start: error %d", p.ErrorCode)
		}
		for at, want := range map[int64]int64{-4: want, -5: -1, -6: -1} { // what is local; nothing is anywhere else
			if p := mustAsk[*kmsg.ListOffsetsResponse](t, dialTo(t, leader), listRequest(topic, 11, at)).Topics[0].Partitions[0]; b.fake == nil && (p.ErrorCode != 0 || p.Offset != want) {
				t.Errorf("ListOffsets %d: %+v, want %d", at, p, want)
			}
		}
		if p := mustAsk[*kmsg.FetchResponse](t, dialTo(t, leader), fetchRequest(topic, 11, want, 0)).Topics[0].Partitions[0]; p.ErrorCode != 0 || p.LogStartOffset != want {
			t.Errorf("a fetch at the start: error %d, log start %d", p.ErrorCode, p.LogStartOffset)
		}
	}
	at(4)
	if p := mustAsk[*kmsg.ListOffsetsResponse](t, dialTo(t, leader), listRequest(topic, 7, -3)).Topics[0].Partitions[0]; b.fake == nil && (p.ErrorCode != 0 || p.Offset != 4) {
		t.Errorf("the newest record by time that is left: %+v, want offset 4", p)
	}
	for _, c := range []struct {
		what      string
		partition int32
		at        int64
		low       int64
		want      error
	}{
		{"what is gone", 0, 2, 4, nil},
		{"above the end", 0, 11, 0, kerr.OffsetOutOfRange},
		{"-2", 0, -2, 0, kerr.OffsetOutOfRange},
		{"of an empty partition", 1, -1, 0, nil},
		{"of a partition that is not", 7, 0, 0, kerr.UnknownTopicOrPartition},
	} {
		if b.fake != nil && (c.at == -2 || c.at == 2) {
			continue // kfake has it otherwise
		}
		if low, err := remove(c.partition, c.at); !errors.Is(err, c.want) || err == nil && low != c.low {
			t.Errorf("deleting %s: %d %v; want %d %v", c.what, low, err, c.low, c.want)
		}
	}
	if b.fake != nil {
		return
	}
	req := kmsg.NewPtrDeleteRecordsRequest()
	p := kmsg.NewDeleteRecordsRequestTopicPartition()
	p.Offset = 5
	q := kmsg.NewDeleteRecordsRequestTopic()
	q.Topic, q.Partitions = topic, append(q.Partitions, p)
	req.Topics = append(req.Topics, q)
	for version := range req.MaxVersion() + 1 {
		req.Version = version
		if x := mustAsk[*kmsg.DeleteRecordsResponse](t, dialTo(t, b.addr()), req).Topics[0].Partitions[0]; x.ErrorCode != kerr.NotLeaderForPartition.Code || x.LowWatermark != -1 {
			t.Errorf("asked of the wrong node, v%d: %+v", version, x)
		}
	}
	at(4)
	// Answered is durable.
	if low, err := remove(0, 7); err != nil || low != 7 {
		t.Fatalf("deleting before 7: %d %v", low, err)
	}
	b.kill()
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	leader = leaderOf(t, b, topic, 0)
	at(7)
	if low, err := remove(0, -1); err != nil || low != 10 {
		t.Fatalf("deleting all: %d %v", low, err)
	}
	b.kill()
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	leader = leaderOf(t, b, topic, 0)
	at(10)
	if base := mustProduce(t, dialTo(t, leader), topic, bytesOf(batchOf("next"))); base != 10 {
		t.Errorf("the next record is at %d, want 10", base)
	}
}
