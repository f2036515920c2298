package interop

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestAway: a consumer that was away while the broker was restarted many times, in the long run more often than a log keeps leader epochs (32), goes on
// where it was. Its client asks where the leader epoch of the committed offset ended. If that is not known, Kafka's own consumer begins at the end and
// skips what came meanwhile; franz-go goes on, so the test asks itself too.
func TestAway(t *testing.T) {
	t.Parallel()
	needReal(t, "it is restarted")
	t.Run("franz-go", func(t *testing.T) {
		t.Parallel()
		away(t, func(b *broker, m membership) (leave, crash func(), err error) {
			return franzGroup(b, m, kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()))
		})
	})
	t.Run("Java", func(t *testing.T) {
		t.Parallel()
		if os.Getenv("TAILBOUND_TESTS") != "long" {
			t.Skip("in the long run only: Kafka's own consumer, the same")
		}
		away(t, javaMember(t, "group.protocol=classic", "auto.offset.reset=latest"))
	})
}

func away(t *testing.T, join joins) {
	const before, each = 10, 2
	restarts := 10
	if os.Getenv("TAILBOUND_TESTS") == "long" {
		restarts = 34
	}
	const topic, group = "away", "away"
	b := ownBroker(t, "--arena", "64MiB", "--journal", "16MiB")
	produced := 0
	produce := func(n int) {
		w := dialTo(t, leaderOf(t, b, topic, 0))
		defer w.Close()
		for range n {
			mustProduce(t, w, topic, bytesOf(batchOf(fmt.Sprint(produced))))
			produced++
		}
	}
	createTopic(t, b, topic, 1)
	produce(before)

	// A member that has nothing to go on from begins at the end. The first one is told to begin at 0.
	adm, err := franz{}.admin(b)
	if err != nil {
		t.Fatal(err)
	}
	defer adm.Close()
	first := kadm.Offsets{}
	first.Add(kadm.Offset{Topic: topic, At: 0, LeaderEpoch: -1})
	if err := adm.CommitAllOffsets(within(t, time.Minute), group, first); err != nil {
		t.Fatal(err)
	}

	// reads has a member read all there is from an offset on, commit it, and leave.
	reads := func(from int) (epoch int32) {
		var mu sync.Mutex
		var seen, want []int64
		for offset := from; offset < produced; offset++ {
			want = append(want, int64(offset))
		}
		leave, _, err := join(b, membership{topic: topic, group: group, seen: func(_ int32, offset int64, value []byte) {
			mu.Lock()
			defer mu.Unlock()
			if string(value) != fmt.Sprint(offset) {
				t.Errorf("record %d is %q", offset, value)
			}
			seen = append(seen, offset)
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer leave()
		for limit := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			committed, err := adm.FetchOffsets(within(t, time.Minute), group)
			at, _ := committed.Lookup(topic, 0)
			mu.Lock()
			got := slices.Clone(seen)
			mu.Unlock()
			if err == nil && at.At == int64(produced) && slices.Equal(got, want) {
				if at.LeaderEpoch < 1 {
					t.Errorf("offset %d was committed with leader epoch %d", at.At, at.LeaderEpoch)
				}
				return at.LeaderEpoch
			}
			if time.Now().After(limit) {
				t.Fatalf("a member of group %s has read %v, not %d to %d; committed is %d (%v)", group, got, from, produced-1, at.At, err)
			}
		}
	}
	epoch := reads(0)
	for i := range restarts {
		if i%2 == 0 {
			b.kill()
		} else if err := b.stop(); err != nil {
			t.Fatal(err)
		}
		if err := b.start(); err != nil {
			t.Fatal(err)
		}
		produce(each)
	}
	req := kmsg.NewPtrOffsetForLeaderEpochRequest()
	req.Version, req.ReplicaID = 4, -1
	p := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
	p.CurrentLeaderEpoch, p.LeaderEpoch = -1, epoch
	req.Topics = append(req.Topics, kmsg.OffsetForLeaderEpochRequestTopic{Topic: topic, Partitions: []kmsg.OffsetForLeaderEpochRequestTopicPartition{p}})
	told := mustAsk[*kmsg.OffsetForLeaderEpochResponse](t, dialTo(t, leaderOf(t, b, topic, 0)), req).Topics[0].Partitions[0]
	if told.ErrorCode != 0 || told.LeaderEpoch != epoch || told.EndOffset < before {
		t.Errorf("leader epoch %d, of which %d records were read: error %d, epoch %d ends at %d", epoch, before, told.ErrorCode, told.LeaderEpoch, told.EndOffset)
	}
	reads(before)
}
