package interop

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
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

// TestTimesAfterRestart: clients of every kind are told the offsets for times after a clean restart and after kill -9, as they were before.
func TestTimesAfterRestart(t *testing.T) {
	needReal(t, "it is restarted")
	b := ownBroker(t)
	topic := topicName(t)
	createTopic(t, b, topic, 1)
	ctx := within(t, 5*time.Minute)
	base := time.Now().UnixMilli() - 400_000
	var times []int64
	for _, codec := range codecs {
		var rs []record
		for range 40 {
			times = append(times, base+int64(len(times))*1000)
			rs = append(rs, record{value: fmt.Appendf(nil, "v%d", len(times)-1), timeMS: times[len(times)-1]})
		}
		if _, err := (franz{}).produce(ctx, b, topic, produceOptions{codec: codec, acks: -1, idempotent: true}, rs); err != nil {
			t.Fatal(err)
		}
	}
	end := int64(len(times))
	var asked, want []int64
	for _, i := range []int64{0, 1, 39, 40, 99, 121, 160, 199} {
		asked, want = append(asked, times[i]-500), append(want, i)
	}
	asked, want = append(asked, times[end-1]+1), append(want, -1)
	run := func(name string, args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
		}
		return strings.TrimSpace(string(out)), err
	}
	binary, err := binaryPath()
	if err != nil {
		t.Fatal(err)
	}
	each := func(ask func(at int64) (int64, error)) func() ([]int64, error) {
		return func() (got []int64, err error) {
			for _, at := range asked {
				offset, err := ask(at)
				if err != nil {
					return got, err
				}
				got = append(got, offset)
			}
			return got, nil
		}
	}
	readers := map[string]func() ([]int64, error){
		"tailbound consume": func() (got []int64, err error) {
			for i, at := range asked {
				if want[i] < 0 {
					got = append(got, -1) // it would wait
					continue
				}
				out, err := run(binary, "consume", topic, "--brokers", b.addr(), "--from", fmt.Sprintf("@%d", at), "-n", "1", "--format", "%o\n")
				if err != nil {
					return got, err
				}
				offset, err := strconv.ParseInt(out, 10, 64)
				if err != nil {
					return got, err
				}
				got = append(got, offset)
			}
			return got, nil
		},
	}
	for _, name := range []string{"franz-go", "confluent"} {
		if c, ok := clients[name]; ok {
			readers[name] = each(func(at int64) (int64, error) { return c.offsetAt(ctx, b, topic, 0, at) })
		}
	}
	if kcat, err := exec.LookPath("kcat"); err == nil {
		readers["kcat"] = func() (got []int64, err error) {
			for i, at := range asked {
				out, err := run(kcat, "-b", b.addr(), "-Q", "-t", fmt.Sprintf("%s:0:%d", topic, at))
				if err != nil {
					return got, err
				}
				_, number, _ := strings.Cut(out, "offset ")
				offset, err := strconv.ParseInt(number, 10, 64)
				if err != nil {
					return got, fmt.Errorf("kcat says %q", out)
				}
				if got = append(got, offset); want[i] < 0 {
					continue
				}
				out, err = run(kcat, "-b", b.addr(), "-C", "-q", "-t", topic, "-p", "0", "-o", fmt.Sprintf("s@%d", at), "-c", "1", "-f", "%o %s")
				if err != nil || out != fmt.Sprintf("%d v%d", want[i], want[i]) {
					return got, fmt.Errorf("consumed from time %d: %q, want record %d: %w", at, out, want[i], err)
				}
			}
			return got, nil
		}
	}
	if _, why := foreigns[0].had(t); why == "" {
		classpath := javaProgram(t, &foreigns[0], "Times")
		readers["Java"] = func() (got []int64, err error) {
			args := []string{b.addr(), topic}
			for _, at := range asked {
				args = append(args, strconv.FormatInt(at, 10))
			}
			out, err := java(context.Background(), classpath, "Times", args...).Output()
			if err != nil {
				return nil, err
			}
			for _, line := range strings.Fields(string(out)) {
				offset, err := strconv.ParseInt(line, 10, 64)
				if err != nil {
					return got, err
				}
				got = append(got, offset)
			}
			if n := len(got) - 1; n >= 0 && got[n] != end-1 {
				return got, fmt.Errorf("the largest time is at offset %d, want %d", got[n], end-1)
			}
			return got[:len(got)-1], nil
		}
	}
	check := func(state string) {
		t.Helper()
		for name, ask := range readers {
			if got, err := ask(); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s, %s: offsets %v, want %v: %v", state, name, got, want, err)
			}
		}
		newest := mustAsk[*kmsg.ListOffsetsResponse](t, dialTo(t, leaderOf(t, b, topic, 0)), listRequest(topic, 7, -3)).Topics[0].Partitions[0]
		if newest.ErrorCode != 0 || newest.Offset != end-1 || newest.Timestamp != times[end-1] {
			t.Errorf("%s: the largest time: error %d, offset %d, time %d", state, newest.ErrorCode, newest.Offset, newest.Timestamp)
		}
	}
	for _, name := range []string{"kcat", "Java", "franz-go", "confluent"} {
		if readers[name] == nil {
			t.Logf("%s is not on this machine", name)
		}
	}
	check("in memory")
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	check("after a clean restart")
	b.kill()
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	check("after kill -9")
}
