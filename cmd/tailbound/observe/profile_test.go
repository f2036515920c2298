package observe

import (
	"encoding/json"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	rtm "runtime/metrics"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/cmd/tailbound/program"
	"github.com/tailbound/tailbound/metrics"
)

func TestProfile(t *testing.T) {
	b := program.Start(t)
	if info, err := os.Stat(filepath.Join(b.Dir, profileSocket)); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the socket: %v, %v; only its owner may ask", info, err)
	}
	once := func() (p Profile) {
		out := program.Must(t, "", "profile", "--data-dir", b.Dir, "--once", "--json")
		if err := json.Unmarshal([]byte(out), &p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	first := once()
	if len(first.Shards) != 2 || first.Shards[0].Address != b.Addr || first.Process.RSSBytes < 16<<20 || first.Process.HeapAllocsObjects == 0 {
		t.Fatalf("%d shards, control at %s (want %s), %d bytes resident, %d objects allocated",
			len(first.Shards), first.Shards[0].Address, b.Addr, first.Process.RSSBytes, first.Process.HeapAllocsObjects)
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
	if text := program.Must(t, "", "profile", "--data-dir", b.Dir, "--once", "--interval", "50ms"); !strings.Contains(text, "data shard 1") || !strings.Contains(text, "within 0.") {
		t.Errorf("the table:\n%s", text)
	}
	if err := b.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(b.Dir, profileSocket)); err == nil {
		t.Error("the socket is still there after a clean stop")
	}
	program.Refused(t, []string{"profile", "--data-dir", b.Dir, "--once"}, "no broker serves", "--data-dir")
}

// A client that asks for profiles and reads no answer delays neither other clients nor a
// stop.
func TestProfileClientThatReadsNothing(t *testing.T) {
	b := program.Start(t)
	idle, err := net.Dial("unix", filepath.Join(b.Dir, profileSocket))
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	for asked := 0; ; asked++ { // until the broker reads no more questions, as it cannot send its answers
		idle.SetWriteDeadline(time.Now().Add(2 * time.Second))
		if _, err := idle.Write([]byte(strings.Repeat("\n", 100))); err != nil {
			break
		}
		if asked == 100_000 {
			t.Fatal("the broker reads questions without end")
		}
	}
	program.Must(t, "", "profile", "--data-dir", b.Dir, "--once")
	if err := b.Stop(); err != nil {
		t.Error(err)
	}
}

// The path of a directory may be longer than the address of a socket can be, and a
// dead broker's socket is no obstacle.
func TestProfileInADeepDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 120))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, profileSocket), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := NewServer(dir, "test")
	p.socket.said = func(err error) { t.Fatal(err) }
	p.socket.open()
	if info, err := os.Stat(filepath.Join(dir, profileSocket)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket's mode: %v, %v", info.Mode(), err)
	}
	c, err := dial(dir)
	if err != nil {
		t.Fatal(err)
	}
	c.close()
	p.Close()
	if out, err := exec.Command("ls", dir).Output(); err != nil || len(out) > 0 {
		t.Errorf("left behind: %s, %v", out, err)
	}
}

// What cannot be listened on is said once, tried again, and said once more when it is there.
func TestListenedLater(t *testing.T) {
	defer func(d time.Duration) { listenAgainEvery = d }(listenAgainEvery)
	listenAgainEvery = time.Millisecond
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	said := make(chan error, 10)
	server := ServePrometheus(taken.Addr().String(), NewServer(t.TempDir(), "test"), func(err error) { said <- err })
	if err := <-said; !errors.Is(err, unix.EADDRINUSE) || server.Listening() {
		t.Fatalf("of an address that is taken it says %v", err)
	}
	time.Sleep(20 * time.Millisecond) // it fails again, and says nothing
	taken.Close()
	if err := <-said; err != nil || !server.Listening() {
		t.Fatalf("of an address that is free it says %v", err)
	}
	answer, err := http.Get("http://" + taken.Addr().String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	if err != nil || !strings.Contains(string(text), "tailbound_disk_free_bytes") || !strings.Contains(string(text), "tailbound_disk_free_inodes") {
		t.Errorf("%v\n%s", err, text)
	}
	server.Close()
	if len(said) > 0 {
		t.Errorf("and it says %v", <-said)
	}
}

func TestPauses(t *testing.T) {
	s := summarizePauses(&rtm.Float64Histogram{Counts: []uint64{0, 98, 1, 1}, Buckets: []float64{math.Inf(-1), 1e-6, 2e-6, 4e-6, math.Inf(1)}})
	if s != (PauseSummary{100, 2000, 2000, 4000, 4000, 4000}) {
		t.Errorf("%+v", s)
	}
	if s := summarizePauses(&rtm.Float64Histogram{Counts: []uint64{0}, Buckets: []float64{0, 1}}); s != (PauseSummary{}) {
		t.Errorf("of nothing: %+v", s)
	}
}

// What Prometheus scrapes is what the profile has.
func TestPrometheus(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := free.Addr().String()
	free.Close()
	b := program.Start(t, "--metrics-listen", at)
	program.Must(t, "a\nb\nc\n", "produce", "scraped", "--create", "--brokers", b.Addr)
	answer, err := http.Get("http://" + at + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v\n%s", answer.Status, err, text)
	}
	for _, w := range []string{`tailbound_records_total{shard="1"} 3`, `tailbound_request_seconds_count{kind="produce",shard="1"} 1`, `tailbound_stage_seconds_bucket{kind="produce",shard="1",stage="durable",le="10"} 1`,
		`tailbound_stage_seconds_bucket{kind="produce",shard="1",stage="durable",le="+Inf"} 1`, `tailbound_turn_seconds_sum{shard="0"}`, `tailbound_pool_max{pool="log memory slabs",shard="1"}`, `tailbound_shard_late{shard="0"} 0`, "go_gc_duration_seconds", "go_gc_heap_live_bytes ", "go_gc_gomemlimit_bytes ", "go_gc_cycles_total_gc_cycles_total ", "process_resident_memory_bytes"} {
		if !strings.Contains(string(text), w) {
			t.Errorf("nothing of %s", w)
		}
	}
	if t.Failed() {
		t.Logf("%s", text)
	}
	if err := b.Stop(); err != nil || strings.Contains(b.Log.String(), "level=ERROR") {
		t.Errorf("a clean stop: %v\n%s", err, b.Log)
	}
}

func TestCumulativeBuckets(t *testing.T) {
	h := metrics.NewHistogram()
	for _, ns := range []int64{500, 1e3, 1.5e3, 4e6, 9e9, 30e9} {
		h.Record(ns)
	}
	got := cumulative(h)
	for upTo, want := range map[float64]uint64{1e-6: 2, 2e-6: 3, 2e-3: 3, 5e-3: 4, 10: 5} {
		if got[upTo] != want {
			t.Errorf("up to %v s: %d, want %d", upTo, got[upTo], want)
		}
	}
}

// The live view without a terminal: what it shows of given answers.
func TestWatch(t *testing.T) {
	b := program.Start(t)
	var m tea.Model = live{dir: b.Dir, interval: time.Second}
	tell := func(msg tea.Msg) string {
		t.Helper()
		m, _ = m.Update(msg)
		return m.View().Content
	}
	has := func(text string, words ...string) {
		t.Helper()
		for _, w := range words {
			if !strings.Contains(text, w) {
				t.Errorf("nothing of %q in:\n%s", w, text)
			}
		}
	}
	ask := func() string { return tell(m.(live).ask()) }
	has(m.View().Content, "asking")
	has(ask(), "records/s", "0 control", "resident")
	program.Must(t, "a\nb\nc\n", "produce", "watched", "--create", "--brokers", b.Addr)
	ask()
	has(tell(tea.KeyPressMsg{Code: '1', Text: "1"}), "data shard 1", "produce", "durable", "pool", "receive buffers", "per second", "records")
	has(tell(tea.KeyPressMsg{Code: tea.KeyLeft}), "control shard 0")
	has(tell(tea.KeyPressMsg{Code: 't', Text: "t"}), "since the start")
	has(tell(tea.KeyPressMsg{Code: 'p', Text: "p"}), "PAUSED")
	tell(tea.KeyPressMsg{Code: 'p', Text: "p"})
	has(tell(tea.WindowSizeMsg{Width: 80, Height: 5}), "taller")
	tell(tea.WindowSizeMsg{Width: 120, Height: 60})
	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	has(ask(), "it has stopped", "control shard 0") // what was known stays
	has(ask(), "no broker serves")
	if _, quit := m.Update(tea.KeyPressMsg{Code: 'q', Text: "q"}); quit == nil || quit() != tea.Quit() {
		t.Error("q does not end it")
	}
	program.Refused(t, []string{"profile", "--data-dir", b.Dir}, "--once")
}
