package observe

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/tailbound/tailbound/cmd/tailbound/program"
	"github.com/tailbound/tailbound/metrics"
)

func TestProfileTail(t *testing.T) {
	b := program.Start(t)
	program.Must(t, "a\nb\nc\n", "produce", "recorded", "--create", "--brokers", b.Addr)
	program.Must(t, "", "consume", "recorded", "--exit-at-end", "--brokers", b.Addr)
	var got TailProfile
	if err := json.Unmarshal([]byte(program.Must(t, "", "profile", "tail", "--data-dir", b.Dir, "--once", "--json")), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Shards) != 1 || got.Shards[0].Shard != 1 || len(got.Shards[0].Kinds) != 2 {
		t.Fatalf("%+v: one data shard, produce and fetch", got)
	}
	for _, k := range got.Shards[0].Kinds {
		if k.Requests == 0 || len(k.Slowest) == 0 || k.MaxNS < k.P50NS/2 {
			t.Errorf("%s: %+v", k.Kind, k)
		}
		for _, r := range k.Slowest {
			sum := int64(0)
			for _, c := range r.Causes {
				sum += c.NS
			}
			if whole := r.TookNS + r.EarlyNS; sum != whole || r.Verdict == "" || r.Cause == "" || len(r.Stages) < 4 || time.Since(r.At) > time.Minute || time.Since(r.At) < 0 {
				t.Errorf("%s: of %d ns %d have a cause: %+v", k.Kind, whole, sum, r)
			}
		}
	}
	if r := got.Shards[0].Kinds[metrics.Produce].Slowest; len(r) > 0 && (r[0].Topic != "recorded" || r[0].Partitions != 1 || r[0].Bytes == 0 || r[0].FrameBytes == 0) {
		t.Errorf("the produce: %+v", r[0])
	}
	text := program.Must(t, "", "profile", "tail", "--data-dir", b.Dir, "--once", "--count", "1")
	for _, w := range []string{"data shard 1", "produce", "recorded/0 offset 0", "durable", "p99.9"} {
		if !strings.Contains(text, w) {
			t.Errorf("nothing of %q in:\n%s", w, text)
		}
	}
	program.Refused(t, []string{"profile", "tail", "--data-dir", b.Dir, "--once", "--output", "xml"}, "table, json or yaml")
	program.Refused(t, []string{"profile", "tail", "--data-dir", t.TempDir(), "--once"}, "no broker serves")
}
