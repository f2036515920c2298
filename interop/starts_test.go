package interop

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestStartAfterKill: a start after kill -9 with thousands of partitions that were all written to takes no more memory than `--print-memory` says of a start,
// and of the disk a bounded number of operations for each partition. What was acknowledged is there.
func TestStartAfterKill(t *testing.T) {
	needReal(t, "a process is killed")
	sizes := []struct{ partitions, shards int }{{1000, 1}}
	if os.Getenv("TAILBOUND_TESTS") == "long" {
		sizes = append(sizes, []struct{ partitions, shards int }{{4000, 1}, {4000, 4}}...)
	}
	for _, size := range sizes {
		t.Run(fmt.Sprintf("%d partitions, %d shards", size.partitions, size.shards), func(t *testing.T) {
			startAfterKill(t, size.partitions, size.shards)
		})
	}
}

func startAfterKill(t *testing.T, partitions, shards int) {
	flags := []string{"--partitions-max", strconv.Itoa(partitions)}
	b := ownBroker(t, flags...)
	if shards > b.shards+portsSpare {
		t.Fatalf("%d shards", shards)
	}
	b.kill()
	b.shards = shards
	b.again(t, flags...)
	topic := topicName(t)
	createTopic(t, b, topic, int32(partitions))
	cl, err := franz{}.dial(b, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(5*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	value := []byte(strings.Repeat("x", 2000))
	const each = 3
	for range each {
		records := make([]*kgo.Record, partitions)
		for p := range records {
			records[p] = &kgo.Record{Topic: topic, Partition: int32(p), Value: value}
		}
		if err := cl.ProduceSync(within(t, 2*time.Minute), records...).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	b.kill()
	b.again(t, flags...)
	peak := resident(t, b, "VmHWM")
	if most := startingMost(t, b, flags); peak > most {
		t.Errorf("a start after kill -9 had %d MiB resident, and --print-memory says %d", peak>>20, most>>20)
	}
	line := regexp.MustCompile(`did not stop cleanly.*frames=(\d+) opens=(\d+) reads=(\d+) read_bytes=(\d+) writes=(\d+) written_bytes=(\d+) syncs=(\d+)`)
	said := line.FindStringSubmatch(b.out.tail())
	for limit := time.Now().Add(startLimit); said == nil; said = line.FindStringSubmatch(b.out.tail()) { // it is said when clients are answered already
		if time.Now().After(limit) {
			t.Fatalf("the start does not say what it took\n%s", b.out.tail())
		}
		time.Sleep(10 * time.Millisecond)
	}
	count := func(i int) int { n, _ := strconv.Atoi(said[i]); return n } // digits
	// Of each journal at most 128 MiB are read, twice, a mebibyte at a time.
	const besides = 100
	journalReads := 3 * 128 * (shards + 1)
	for _, bound := range []struct {
		what      string
		was, most int
	}{
		{"opens", count(2), partitions + besides}, {"reads", count(3), 3*partitions + journalReads + besides},
		{"writes", count(5), 2*partitions + besides}, {"syncs", count(7), partitions + besides},
	} {
		if bound.was > bound.most {
			t.Errorf("a start with %d partitions took %d %s, at most %d", partitions, bound.was, bound.what, bound.most)
		}
	}
	adm := admin(t, b)
	ends, err := adm.ListEndOffsets(context.Background(), topic)
	if err != nil || ends.Error() != nil {
		t.Fatal(err, ends.Error())
	}
	for p := range int32(partitions) {
		if end, _ := ends.Lookup(topic, p); end.Offset < each {
			t.Fatalf("partition %d ends at %d, want %d at least", p, end.Offset, each)
		}
	}
}

// resident is one of the sizes of a broker's process (proc(5), status), in bytes.
func resident(t *testing.T, b *broker, which string) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), which+":")
	kib, err := strconv.Atoi(strings.Fields(after)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// startingMost is the memory that a broker says it takes at most while it starts.
func startingMost(t *testing.T, b *broker, flags []string) int {
	t.Helper()
	said, err := exec.Command(b.binary, append([]string{"serve", "--print-memory", "--shards", strconv.Itoa(b.shards)}, flags...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	sum := regexp.MustCompile(`(?m)^ *resident while it starts, at most +.* (\d+) *$`).FindSubmatch(said)
	if sum == nil {
		t.Fatalf("--print-memory does not speak of a start:\n%s", said)
	}
	n, err := strconv.Atoi(string(sum[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
