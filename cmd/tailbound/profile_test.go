package main

import (
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	rtm "runtime/metrics"
	"strings"
	"testing"
)

func TestProfile(t *testing.T) {
	b := startBroker(t)
	if info, err := os.Stat(filepath.Join(b.dir, profileSocket)); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the socket: %v, %v; only its owner may ask", info, err)
	}
	once := func() (p profile) {
		out := must(t, "", "profile", "--data-dir", b.dir, "--once", "--json")
		if err := json.Unmarshal([]byte(out), &p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	first := once()
	if len(first.Shards) != 2 || first.Shards[0].Address != b.addr || first.Process.RSSBytes < 64<<20 || first.Process.HeapAllocsObjects == 0 {
		t.Fatalf("%d shards, control at %s (want %s), %d bytes resident, %d objects allocated",
			len(first.Shards), first.Shards[0].Address, b.addr, first.Process.RSSBytes, first.Process.HeapAllocsObjects)
	}
	second := once()
	if second.PID != first.PID || second.Process.ProfileAllocsObjects == 0 || second.Process.HeapAllocsObjects < first.Process.HeapAllocsObjects {
		t.Errorf("process %d then %d, %d objects by profiles, %d objects then %d", first.PID, second.PID,
			second.Process.ProfileAllocsObjects, first.Process.HeapAllocsObjects, second.Process.HeapAllocsObjects)
	}
	for i, s := range second.Shards {
		if s.Late || s.Total.Turn.Count == 0 || s.Total.Turn.Count < first.Shards[i].Total.Turn.Count || s.Counters["turns"] < uint64(s.Total.Turn.Count) {
			t.Errorf("shard %d: late %v, %d turns timed, %d before, %d counted", i, s.Late, s.Total.Turn.Count, first.Shards[i].Total.Turn.Count, s.Counters["turns"])
		}
		for _, l := range s.Levels {
			if l.Used < 0 || l.Used > l.Max || l.Peak > l.Max {
				t.Errorf("shard %d: %s: %d used, %d at most, of %d", i, l.Name, l.Used, l.Peak, l.Max)
			}
		}
		if len(s.Levels) < 10 {
			t.Errorf("shard %d tells of %d pools", i, len(s.Levels))
		}
	}
	if text := must(t, "", "profile", "--data-dir", b.dir, "--once", "--interval", "50ms"); !strings.Contains(text, "data shard 1") || !strings.Contains(text, "within 0.") {
		t.Errorf("the table:\n%s", text)
	}
	if err := b.stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(b.dir, profileSocket)); err == nil {
		t.Error("the socket is still there after a clean stop")
	}
	refused(t, []string{"profile", "--data-dir", b.dir, "--once"}, "no broker serves", "--data-dir")
}

// A directory may be deeper than a socket's address is long, and a dead
// broker's socket is no obstacle.
func TestProfileInADeepDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 120))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, profileSocket), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := listenProfile(dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := dialProfile(dir)
	if err != nil {
		t.Fatal(err)
	}
	c.close()
	p.close(dir)
	if out, err := exec.Command("ls", dir).Output(); err != nil || len(out) > 0 {
		t.Errorf("left behind: %s, %v", out, err)
	}
}

func TestPauses(t *testing.T) {
	s := summarizePauses(&rtm.Float64Histogram{Counts: []uint64{0, 98, 1, 1}, Buckets: []float64{math.Inf(-1), 1e-6, 2e-6, 4e-6, math.Inf(1)}})
	if s != (pauseSummary{100, 2000, 2000, 4000, 4000, 4000}) {
		t.Errorf("%+v", s)
	}
	if s := summarizePauses(&rtm.Float64Histogram{Counts: []uint64{0}, Buckets: []float64{0, 1}}); s != (pauseSummary{}) {
		t.Errorf("of nothing: %+v", s)
	}
	for ns, want := range map[int64]string{0: "0 ns", 999: "999 ns", 1000: "1.00 us", 12345: "12.3 us", 999999: "1.00 ms", 123456789: "123 ms", 60e9: "60.0 s"} {
		if got := shortNS(ns); got != want {
			t.Errorf("%d ns: %s, want %s", ns, got, want)
		}
	}
}
