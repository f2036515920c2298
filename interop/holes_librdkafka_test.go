//go:build cgo && linux && (amd64 || arm64)

package interop

import (
	"slices"
	"testing"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

// TestHolesLibrdkafka: librdkafka reports an error where it meets what is lost, and reads on when it has been set behind it.
func TestHolesLibrdkafka(t *testing.T) {
	t.Parallel()
	b := holed(t)
	defer b.leavesUnsound(t)
	topic := holedTopic
	c, err := kafka.NewConsumer(librd{}.config(b, kafka.ConfigMap{
		"group.id": "unused", "enable.auto.commit": false, "enable.auto.offset.store": false, "auto.offset.reset": "error", "fetch.error.backoff.ms": 10,
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Assign([]kafka.TopicPartition{{Topic: &topic, Partition: 0, Offset: 0}}); err != nil {
		t.Fatal(err)
	}
	ctx := within(t, time.Minute)
	var read, lost []int64
	for next := int64(0); next < holedRecords; {
		if ctx.Err() != nil {
			t.Fatalf("read %v, told of %v", read, lost)
		}
		told := func(err error) {
			if code := refused(librdError(err)); code != 2 {
				t.Fatalf("error %d: %v", code, err)
			}
			lost = append(lost, next)
			next++
			if err := c.Seek(kafka.TopicPartition{Topic: &topic, Partition: 0, Offset: kafka.Offset(next)}, 5000); err != nil {
				t.Fatal(err)
			}
		}
		switch e := c.Poll(100).(type) {
		case *kafka.Message:
			if e.TopicPartition.Error != nil {
				told(e.TopicPartition.Error)
				continue
			}
			read, next = append(read, int64(e.TopicPartition.Offset)), int64(e.TopicPartition.Offset)+1
		case kafka.Error:
			told(e)
		}
	}
	if !slices.Equal(read, holedWhole()) || !slices.Equal(lost, holedLost) {
		t.Errorf("read %v, told of %v", read, lost)
	}
}
