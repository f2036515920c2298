package interop

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
)

// A client is one foreign implementation of the protocol, reduced to what the tests ask of all of them.
type client interface {
	// produce appends the records, each to the partition it names, and returns their offsets in the same order once they are acknowledged, -1 where
	// the client does not learn it. A refusal is returned as a refusal.
	produce(ctx context.Context, b *broker, topic string, o produceOptions, rs []record) ([]int64, error)
	// consume reads count[p] records of each partition p, beginning at from[p] (atEnd: what arrives after the call).
	consume(ctx context.Context, b *broker, topic string, from []int64, count []int) ([]record, error)
	// offsetAt asks for the first record at or after a time; -1 when there is none.
	offsetAt(ctx context.Context, b *broker, topic string, partition int32, timeMS int64) (int64, error)
	create(ctx context.Context, b *broker, topic string, partitions, replication int) error
	remove(ctx context.Context, b *broker, topic string) error
	// tells says what the client can tell apart when it produces and when it consumes.
	tells() (produced, consumed nullness)
}

const atEnd = int64(-1)

type produceOptions struct {
	codec      string // "" is none
	acks       int    // 0, 1, or -1 for all
	idempotent bool   // for clients that support it
	bytesMax   int    // the client's own limit to a message or batch; 0 leaves it alone
}

// A refusal is an error code that the broker sent, whatever error the client made of it.
type refusal int16

func (r refusal) Error() string { return kerr.ErrorForCode(int16(r)).Error() }

// refused says which error code of the broker an error stands for, 0 for none.
func refused(err error) int16 {
	var r refusal
	if errors.As(err, &r) {
		return int16(r)
	}
	var k *kerr.Error
	if errors.As(err, &k) {
		return k.Code
	}
	return 0
}

// clients are those of this build; confluent's joins them where cgo is on.
var clients = map[string]client{"franz-go": franz{}, "sarama": samsa{}, "kafka-go": segment{}}

// clientNames fixes the order in which clients are tried and paired.
var clientNames = []string{"franz-go", "sarama", "kafka-go", "confluent"}

// eachClient runs test for each client of this build, side by side.
func eachClient(t *testing.T, test func(t *testing.T, name string, c client)) {
	for _, name := range clientNames {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, ok := clients[name]
			if !ok {
				t.Skip("built without cgo")
			}
			test(t, name, c)
		})
	}
}

// zeroes is the start of each of n partitions.
func zeroes(n int) []int64 { return make([]int64, n) }

func counts(rs []record, partitions int) []int {
	n := make([]int, partitions)
	for _, r := range rs {
		n[r.partition]++
	}
	return n
}

func sum(n []int) (total int) {
	for _, v := range n {
		total += v
	}
	return total
}

var topics atomic.Int64

// topicName makes a name that no other test, and no other run of this one, has.
func topicName(t *testing.T) string {
	name := fmt.Sprintf("t%d.", topics.Add(1))
	for _, r := range strings.TrimPrefix(t.Name(), "Test") {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' {
			name += string(r)
		} else {
			name += "."
		}
	}
	return name
}
