package interop

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestWriteCaching: a topic whose records are acknowledged from memory gives them to consumers at once, keeps all of them through a clean
// stop and a whole beginning of them through kill -9, and goes on from where they end.
func TestWriteCaching(t *testing.T) {
	t.Parallel()
	needReal(t, "it has no such configuration")
	b := ownBroker(t)
	adm := admin(t, b)
	ctx := within(t, 2*time.Minute)
	topic := topicName(t)
	leader := configured(t, b, adm, topic, map[string]string{"write.caching": "true"})
	value := func(i int64) string { return fmt.Sprintf("record %d", i) }
	end := int64(0)
	produce := func(n int64) {
		t.Helper()
		w := dialTo(t, leader)
		for range n {
			if base := mustProduce(t, w, topic, bytesOf(batchOf(value(end)))); base != end {
				t.Fatalf("record %d is at %d", end, base)
			}
			end++
			p := mustAsk[*kmsg.FetchResponse](t, w, fetchRequest(topic, 11, end-1, 0)).Topics[0].Partitions[0]
			if p.ErrorCode != 0 || len(p.RecordBatches) == 0 || p.HighWatermark < end {
				t.Fatalf("record %d was acknowledged and cannot be read: error %d, %d bytes, high watermark %d", end-1, p.ErrorCode, len(p.RecordBatches), p.HighWatermark)
			}
		}
	}
	high := func() int64 {
		t.Helper()
		leader = leaderOf(t, b, topic, 0)
		return mustAsk[*kmsg.FetchResponse](t, dialTo(t, leader), fetchRequest(topic, 11, 0, 0)).Topics[0].Partitions[0].HighWatermark
	}
	produce(50)
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	if h := high(); h != end {
		t.Fatalf("after a clean stop the partition ends at %d; it ended at %d", h, end)
	}
	produce(50)
	b.kill()
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	h := high()
	if h < end-50 || h > end {
		t.Fatalf("after kill -9 the partition ends at %d; it ended at %d, and at %d when it was started", h, end, end-50)
	}
	if code := mustAsk[*kmsg.FetchResponse](t, dialTo(t, leader), fetchRequest(topic, 11, h+1, 0)).Topics[0].Partitions[0].ErrorCode; code != kerr.OffsetOutOfRange.Code {
		t.Errorf("a fetch past the end: error %d", code)
	}
	end = h
	produce(10)
	if err := alterTopic(ctx, adm, topic, setConfig("write.caching", "false")); err != nil {
		t.Fatal(err)
	}
	produce(10)
	b.kill()
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	if h := high(); h != end {
		t.Fatalf("kill -9 after records that were acknowledged as durable: the partition ends at %d, it ended at %d", h, end)
	}
}
