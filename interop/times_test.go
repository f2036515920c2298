package interop

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestTimeInABatch: what ListOffsets finds for a time is the record, also in the middle of a batch that a client compressed.
func TestTimeInABatch(t *testing.T) {
	b := sharedBroker(t)
	for _, client := range []string{"franz-go", "confluent"} {
		for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
			t.Run(client+" "+codec, func(t *testing.T) {
				if clients[client] == nil {
					t.Skip("not built: it needs a C compiler")
				}
				topic := topicName(t)
				leader := createTopic(t, b, topic, 1)
				var rs []record
				for i := range 200 {
					rs = append(rs, record{value: fmt.Appendf(nil, "value %d", i), key: []byte("key"), timeMS: 1_700_000_000_000 + int64(i)*1000})
				}
				if _, err := clients[client].produce(within(t, time.Minute), b, topic, produceOptions{codec: codec, acks: -1, idempotent: true}, rs); err != nil {
					t.Fatal(err)
				}
				w := dialTo(t, leader)
				for i := range rs {
					p := mustAsk[*kmsg.ListOffsetsResponse](t, w, listRequest(topic, 5, rs[i].timeMS-500)).Topics[0].Partitions[0]
					if p.ErrorCode != 0 || p.Offset != int64(i) || p.Timestamp != rs[i].timeMS {
						t.Fatalf("record %d: error %d, offset %d, time %d", i, p.ErrorCode, p.Offset, p.Timestamp-rs[i].timeMS)
					}
				}
				newest := mustAsk[*kmsg.ListOffsetsResponse](t, w, listRequest(topic, 7, -3)).Topics[0].Partitions[0]
				if newest.ErrorCode != 0 || newest.Offset != int64(len(rs)-1) {
					t.Errorf("the newest record: error %d, offset %d", newest.ErrorCode, newest.Offset)
				}
				fetched := mustAsk[*kmsg.FetchResponse](t, w, fetchRequest(topic, 11, 0, 0)).Topics[0].Partitions[0]
				var first kmsg.RecordBatch
				if err := first.ReadFrom(fetched.RecordBatches); err != nil || first.NumRecords < 20 {
					t.Errorf("a batch of %d records says little of batches: %v", first.NumRecords, err)
				}
			})
		}
	}
}
