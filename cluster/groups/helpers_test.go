package groups

import (
	"testing"

	"github.com/tailbound/tailbound/cluster"
)

var roomy = cluster.Limits{TopicsMax: 1000, PartitionsPerTopicMax: 100, PartitionsMax: 10000, PartitionsDefault: 3}

// id is a topic id made of a number.
func id(n uint64) (topicID [16]byte) {
	for k := range 8 {
		topicID[k] = byte(n >> (8 * k))
	}
	topicID[15] = 1
	return topicID
}

// must applies what was planned.
func must(t testing.TB, s *cluster.State) func([]byte, *cluster.Refusal) {
	return func(cmd []byte, r *cluster.Refusal) {
		t.Helper()
		if r != nil {
			t.Fatalf("refused: %v", r)
		}
		if err := s.Apply(cmd); err != nil {
			t.Fatalf("applying what was just planned: %v", err)
		}
	}
}
