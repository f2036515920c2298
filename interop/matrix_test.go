package interop

import (
	"fmt"
	"testing"
	"time"
)

// TestMatrix: what any client writes, with any codec, over any number of partitions, it reads again byte for byte, and so does another client.
func TestMatrix(t *testing.T) {
	b := sharedBroker(t)
	eachClient(t, func(t *testing.T, name string, writer client) {
		var present []string
		for _, n := range clientNames {
			if _, ok := clients[n]; ok && n != name {
				present = append(present, n)
			}
		}
		for i, codec := range codecs {
			if testing.Short() && i%2 == 1 {
				continue
			}
			for j, partitions := range []int{1, 3, 64} {
				other := present[(i+j)%len(present)]
				t.Run(fmt.Sprintf("%s/%d", codec, partitions), func(t *testing.T) {
					roundTrip(t, b, name, other, writer, clients[other], codec, partitions)
				})
			}
		}
	})
}

func roundTrip(t *testing.T, b *broker, writerName, otherName string, writer, other client, codec string, partitions int) {
	ctx := within(t, time.Minute)
	topic := topicName(t)
	if err := writer.create(ctx, b, topic, partitions, 1); err != nil {
		t.Fatalf("create: %v", err)
	}
	rs := recordsFor(partitions)
	offsets, err := writer.produce(ctx, b, topic, produceOptions{codec: codec, acks: -1, idempotent: true}, rs)
	if err != nil {
		t.Fatalf("produce: %v", err)
	}
	for i, r := range rs {
		if offsets[i] != r.offset {
			t.Fatalf("record %d of partition %d was acknowledged at %d", r.offset, r.partition, offsets[i])
		}
	}
	written, _ := writer.tells()
	for name, reader := range map[string]client{writerName: writer, otherName: other} {
		got, err := reader.consume(ctx, b, topic, zeroes(partitions), counts(rs, partitions))
		if err != nil {
			t.Fatalf("%s consumes: %v", name, err)
		}
		_, read := reader.tells()
		if err := same(rs, got, written.and(read)); err != nil {
			t.Errorf("%s reads what %s wrote: %v", name, writerName, err)
		}
	}
	if err := writer.remove(ctx, b, topic); err != nil {
		t.Errorf("delete: %v", err)
	}
}
