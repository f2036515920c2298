package interop

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestTenThousandPartitions: as many partitions as --partitions-max allows are served like a few: one request may name them all, and they are there again
// after kill -9.
func TestTenThousandPartitions(t *testing.T) {
	const partitions = 10_000
	flags := []string{"--partitions-max", "10000"}
	b := ownBroker(t, flags...)
	adm := admin(t, b)
	topic := topicName(t)
	createTopic(t, b, topic, partitions)
	cl, err := franz{}.dial(b, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var rs []*kgo.Record
	for p := int32(0); p < partitions; p += 100 {
		rs = append(rs, &kgo.Record{Topic: topic, Partition: p, Value: []byte("one")})
	}
	if err := cl.ProduceSync(within(t, time.Minute), rs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	ends := func(adm *kadm.Client) {
		t.Helper()
		all, err := adm.ListEndOffsets(within(t, time.Minute), topic)
		if err != nil || all.Error() != nil || len(all[topic]) != partitions {
			t.Fatalf("%d partitions: %v, %v\n%s", len(all[topic]), err, all.Error(), b.out.tail())
		}
		all.Each(func(o kadm.ListedOffset) {
			want := int64(0)
			if o.Partition%100 == 0 {
				want = 1
			}
			if o.Offset != want {
				t.Errorf("partition %d ends at %d, want %d", o.Partition, o.Offset, want)
			}
		})
	}
	ends(adm)
	b.kill()
	b.again(t, flags...)
	ends(admin(t, b)) // the client before has a connection to each node of the life before, and gives up after so many that end
}
