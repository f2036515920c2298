package observe

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tailbound/tailbound/bench/record"
	"github.com/tailbound/tailbound/cmd/tailbound/program"
)

// What is recorded of a live broker is what its profile has, interval by interval.
func TestProfileRecord(t *testing.T) {
	b := program.Start(t)
	into := filepath.Join(t.TempDir(), "recording")
	program.Must(t, "a\n", "produce", "recorded", "--create", "--brokers", b.Addr)
	var out program.Output
	cmd := exec.Command(program.Path, "profile", "record", into, "--data-dir", b.Dir, "--interval", "50ms")
	cmd.Stdout, cmd.Stderr = &out, &out
	lines := func() int {
		text, _ := os.ReadFile(filepath.Join(into, "latency.hlog"))
		return strings.Count(string(text), "Tag=shard1.turn")
	}
	stop := program.RunUntil(t, cmd, func() bool { return lines() > 0 })
	const produced = 5
	for range produced {
		program.Must(t, "a\n", "produce", "recorded", "--brokers", b.Addr)
	}
	enough := lines() + 3
	program.Await(t, func() bool { return lines() >= enough })
	if err := stop(); err != nil || !strings.Contains(out.String(), "histograms") {
		t.Fatalf("%v\n%s", err, out.String())
	}
	all, err := record.Read(into)
	if err != nil || len(all) != 1 {
		t.Fatalf("%d recordings, %v", len(all), err)
	}
	names := record.SeriesOf(all[0].Intervals)
	for _, want := range []string{"shard1.produce.total", "shard1.produce.durable", "shard1.produce.sent", "shard1.turn", "shard0.turn", "shard0.other.total"} {
		if !slices.Contains(names, want) {
			t.Errorf("there is no series %s: %v", want, names)
		}
	}
	for _, name := range []string{"shard1.produce.total", "shard1.produce.durable"} {
		h := record.Pool(all[0].Intervals, name)
		if h.Count() != produced || all[0].Run.Series[name].Count != produced {
			t.Errorf("%s: %d in the log, %d on the page; %d were produced meanwhile", name, h.Count(), all[0].Run.Series[name].Count, produced)
		}
	}
	turns, last := 0, int64(0)
	for _, i := range all[0].Intervals {
		if i.EndNS <= i.StartNS || i.StartNS < last-1e6 && i.Series == "shard1.turn" {
			t.Errorf("%s: from %d to %d, after %d", i.Series, i.StartNS, i.EndNS, last)
		}
		if i.Series == "shard1.turn" {
			turns, last = turns+1, i.EndNS
		}
	}
	if turns < 3 {
		t.Errorf("%d intervals", turns)
	}
	var p struct {
		Shards []ShardProfile `json:"shards"`
		Tail   TailProfile    `json:"tail"`
	}
	if err := json.Unmarshal(all[0].Run.Profile, &p); err != nil || len(p.Shards) != 2 || len(p.Tail.Shards) != 1 {
		t.Errorf("the profile: %v, %+v", err, p)
	}
	program.Refused(t, []string{"profile", "record", into, "--data-dir", b.Dir, "--duration", "1s"}, "has a recording already")
}
