package interop

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// counters sums what the broker's shards have counted.
func (b *broker) counters(t *testing.T) map[string]uint64 {
	t.Helper()
	said, err := exec.Command(b.binary, "profile", "--data-dir", b.dir, "--once", "--json").Output()
	if err != nil {
		t.Fatalf("tailbound profile: %v\n%s", err, said)
	}
	var all struct {
		Shards []struct{ Counters map[string]uint64 }
	}
	if err := json.Unmarshal(said, &all); err != nil || len(all.Shards) == 0 {
		t.Fatalf("tailbound profile: %v\n%s", err, said)
	}
	sum := map[string]uint64{}
	for _, s := range all.Shards {
		for name, n := range s.Counters {
			sum[name] += n
		}
	}
	return sum
}

// TestCatchingUp: for a consumer that reads a log from disk in small fetches, each run is read once, and the next one while the consumer takes the
// present one. Every record arrives, in order.
func TestCatchingUp(t *testing.T) {
	needReal(t, "it counts what is read from the disk")
	b := ownBroker(t)
	topic := topicName(t)
	w := dialTo(t, createTopic(t, b, topic, 1))
	const batches = 600
	value := strings.Repeat("v", 20_000)
	for i := range batches {
		mustProduce(t, w, topic, bytesOf(batchOf(string(binary.BigEndian.AppendUint32(nil, uint32(i)))+value)))
	}
	b.again(t) // nothing of it is in memory now
	w = dialTo(t, leaderOf(t, b, topic, 0))
	before := b.counters(t)
	fetches := uint64(0)
	for next := int64(0); next < batches; fetches++ {
		req := fetchRequest(topic, 11, next, 0)
		req.MaxBytes, req.Topics[0].Partitions[0].PartitionMaxBytes = 50_000, 50_000
		p := mustAsk[*kmsg.FetchResponse](t, w, req).Topics[0].Partitions[0]
		if p.ErrorCode != 0 || len(p.RecordBatches) == 0 {
			t.Fatalf("from %d: error %d, %d bytes", next, p.ErrorCode, len(p.RecordBatches))
		}
		for in := p.RecordBatches; len(in) > 0; next++ {
			var batch kmsg.RecordBatch
			if err := batch.ReadFrom(in); err != nil {
				t.Fatal(err)
			}
			if batch.FirstOffset != next || !bytes.Contains(batch.Records, binary.BigEndian.AppendUint32(nil, uint32(next))) {
				t.Fatalf("offset %d: a batch of offset %d", next, batch.FirstOffset)
			}
			in = in[12+batch.Length:]
		}
	}
	after := b.counters(t)
	since := func(name string) uint64 { return after[name] - before[name] }
	cold, ahead, hits := since("cold_reads"), since("reads_ahead"), since("ahead_hits")
	t.Logf("%d fetches: %d runs read for them, %d before, %d fetches found theirs", fetches, cold, ahead, hits)
	if fetches < batches/3 || ahead == 0 || cold > 2 || cold+hits != fetches || cold+ahead > fetches/2 {
		t.Errorf("%d fetches: %d runs were read for them, %d before, and %d found theirs", fetches, cold, ahead, hits)
	}
}
