package trial

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tailbound/tailbound/bench/load"
	"github.com/tailbound/tailbound/bench/plain"
	"github.com/tailbound/tailbound/bench/record"
)

// The test binary is its own generating process, and a system that is started.
func TestMain(m *testing.M) {
	if os.Getenv("TRIAL_SERVE") != "" {
		fmt.Fprintln(os.Stderr, plain.Serve(plain.Options{Listen: os.Args[1], DataDir: os.Args[2], Sync: true}))
		os.Exit(1)
	}
	if os.Getenv("TRIAL_GENERATE") != "" {
		if err := Generate(os.Stdin, os.Stdout, load.Run); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// servePlain starts a plain server in this process.
func servePlain(t *testing.T) (address string) {
	t.Helper()
	port, err := FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	address = fmt.Sprintf("127.0.0.1:%d", port)
	data := t.TempDir()
	go func() { _ = plain.Serve(plain.Options{Listen: address, DataDir: data, Sync: true}) }()
	for start := time.Now(); load.Ready(address) != nil; time.Sleep(time.Millisecond) {
		if time.Since(start) > 10*time.Second {
			t.Fatal("the plain server does not answer")
		}
	}
	return address
}

// Two processes' load is one recording: every intended request of both is in
// it, in its log and in its page. No time is asserted.
func TestProcessesArePooled(t *testing.T) {
	t.Setenv("TRIAL_GENERATE", "1")
	addr := servePlain(t)
	p := Default()
	p.Name, p.Rate, p.Duration, p.Warmup, p.Interval, p.Processes, p.Drain = "pooled", 400, 500*time.Millisecond, 50*time.Millisecond, 100*time.Millisecond, 2, 30*time.Second
	p.Expect = []string{"produce p99 < 1h", "unfinished = 0", "produce max < 1ns"}
	dir := filepath.Join(t.TempDir(), "r")
	var live bytes.Buffer
	run, err := Run(t.Context(), p, System{Address: addr}, Env{Command: []string{os.Args[0]}, Dir: dir, Disk: dir, Live: &live, Terminal: true, Watch: []int{0}})
	if err != nil {
		t.Fatal(err)
	}
	all, err := record.Read(dir)
	if err != nil || len(all) != 1 {
		t.Fatalf("%d recordings, %v", len(all), err)
	}
	const want = 200
	if n := record.Pool(all[0].Intervals, load.Produce).Count(); n < want-4 || n > want+4 || run.Series[load.Produce].Count != n {
		t.Errorf("%d latencies in the log, %d in the page, %d were intended", n, run.Series[load.Produce].Count, want)
	}
	if n := record.Pool(all[0].Intervals, "hiccup-cpu0").Count(); n != 100 {
		t.Errorf("%d wake-ups were recorded, 100 were due", n)
	}
	if v := run.Verdict; len(v) != 3 || !v[0].Held || !v[1].Held || v[2].Held {
		t.Errorf("the verdict is %+v", v)
	}
	if !strings.Contains(live.String(), "p99") {
		t.Errorf("the live line is %q", live.String())
	}
	if m := all[0].Run.Machine; m.Kernel == "" || all[0].Run.Configuration == nil {
		t.Errorf("the machine or the configuration is missing: %+v", m)
	}
}

// What is done before a measurement and beside it leaves its own recording and its
// figures; the measurement has only what was intended of it.
func TestFillAndBeside(t *testing.T) {
	t.Setenv("TRIAL_GENERATE", "1")
	address := servePlain(t)
	p := Default()
	p.Name, p.Rate, p.Duration, p.Warmup, p.Interval, p.Drain, p.Fill = "filled", 400, 500*time.Millisecond, 0, 100*time.Millisecond, 30*time.Second, 200*time.Millisecond
	started, ended := 0, 0
	s := System{Address: address, ReadySeconds: 2, Beside: func(context.Context) (Ending, error) {
		started++
		return func() ([]record.Figure, error) {
			ended++
			return []record.Figure{{Name: "beside", Value: 7}}, nil
		}, nil
	}}
	dir := filepath.Join(t.TempDir(), "r")
	run, err := Run(t.Context(), p, s, Env{Command: []string{os.Args[0]}, Dir: dir, Disk: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if started != 1 || ended != 1 {
		t.Errorf("what is beside was started %d times and ended %d times", started, ended)
	}
	for name, want := range map[string]float64{"beside": 7, "ready": 2} {
		if v, ok := run.Figure(name); !ok || v != want {
			t.Errorf("%s is %v", name, v)
		}
	}
	if n := run.Series[load.Produce].Count; n < 196 || n > 204 {
		t.Errorf("%d latencies, 200 were intended", n)
	}
	all, err := record.Read(dir)
	if err != nil || len(all) != 2 || IsMeans(all[0].Path) == IsMeans(all[1].Path) {
		t.Errorf("%d recordings, %v", len(all), err)
	}
}

// The order turns, and ratios are of the same round.
func TestRatiosOfRounds(t *testing.T) {
	if even, odd := fmt.Sprint(Order(0, 3)), fmt.Sprint(Order(1, 3)); even != "[0 1 2]" || odd != "[2 1 0]" {
		t.Errorf("orders %s and %s", even, odd)
	}
	run := func(v float64) *record.Run { return &record.Run{Figures: []record.Figure{{Name: "x", Value: v}}} }
	x := Quantity{"x", func(r *record.Run) (float64, bool) { return r.Figure("x") }}
	r, ok := FormRatios(x, []*record.Run{run(2), run(5), nil, run(9)}, []*record.Run{run(1), run(10), run(1), {}})
	if !ok || fmt.Sprint(r.Rounds) != "[2 0.5]" || r.Median != 1.25 || r.String() != "x 1.25 (0.50..2.00)" {
		t.Errorf("%+v", r)
	}
	if r, ok := FormRatios(x, []*record.Run{run(2)}, []*record.Run{run(0)}); ok {
		t.Errorf("a ratio to nothing: %+v", r)
	}
	for _, c := range []struct {
		carried, errors float64
		want            bool
	}{{1, 0, true}, {0.985, 0, true}, {0.58, 0, false}, {1, 1, false}} {
		got := &record.Run{Figures: []record.Figure{{Name: "carried", Value: c.carried}, {Name: "errors", Value: c.errors}}}
		if Carried(got) != c.want {
			t.Errorf("%+v may be compared: %v", c, !c.want)
		}
	}
	if Carried(nil) || Carried(&record.Run{}) {
		t.Error("what was not measured may be compared")
	}
}

func TestCPULists(t *testing.T) {
	for text, want := range map[string]string{"0": "[0]", "0-2,5": "[0 1 2 5]", "1,3-4": "[1 3 4]", "": "[]"} {
		if got := fmt.Sprint(cpuList(text)); got != want {
			t.Errorf("%q is %s, want %s", text, got, want)
		}
	}
}

// A process is ended and started again on the same address.
func TestServerRestarts(t *testing.T) {
	t.Setenv("TRIAL_SERVE", "1")
	port, err := FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "d")
	address := fmt.Sprintf("127.0.0.1:%d", port)
	s, err := Serve(t.Context(), Launch{Name: "plain", Address: address, Dir: dir, Command: []string{os.Args[0], address, filepath.Join(dir, "data")}})
	if err != nil {
		t.Fatal(err)
	}
	first := s.PID()
	if pid, err := s.Restart(t.Context()); err != nil || pid == first || load.Ready(address) != nil {
		t.Errorf("process %d, then %d, %v", first, pid, err)
	}
	s.End()
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the directory is left: %v", err)
	}
	if load.Ready(address) == nil {
		t.Error("it still serves")
	}
	if _, err := Serve(t.Context(), Launch{Name: "nothing", Address: address, Dir: dir, Command: []string{"false"}}); err == nil || !strings.Contains(err.Error(), "nothing: it ended") {
		t.Errorf("a process that ends at once: %v", err)
	}
}

func TestPlansAreChecked(t *testing.T) {
	for what, change := range map[string]func(*Plan){
		"no rate":         func(p *Plan) { p.Rate = 0 },
		"no time":         func(p *Plan) { p.Duration = 0 },
		"few connections": func(p *Plan) { p.Processes = 8 },
		"a share of 2":    func(p *Plan) { p.AtMost = 2 },
		"arrivals":        func(p *Plan) { p.Arrivals = "sometimes" },
		"a chain":         func(p *Plan) { p.Hops, p.Restarts = 2, []time.Duration{1} },
		"an expectation":  func(p *Plan) { p.Expect = []string{"fast"} },
		"a percentile":    func(p *Plan) { p.Expect = []string{"produce p101 < 1s"} },
		"a comparison":    func(p *Plan) { p.Expect = []string{"lost ~ 3"} },
		"a filled chain":  func(p *Plan) { p.Fill, p.Hops = time.Second, 2 },
		"behind a fill":   func(p *Plan) { p.Fill, p.Readers = time.Second, []Reader{{After: time.Second}} },
	} {
		p := Default()
		change(&p)
		if p.Check() == nil {
			t.Errorf("%s: taken", what)
		}
	}
	p := Default()
	if err := p.Check(); err != nil {
		t.Error(err)
	}
	p.Restarts = []time.Duration{time.Second}
	if _, err := Run(context.Background(), p, System{}, Env{}); err == nil {
		t.Error("a restart without a way to restart was taken")
	}
}

func TestExpectations(t *testing.T) {
	h := record.NewHistogram()
	for i := range 1000 {
		h.Record(int64(i+1) * 1e6)
	}
	run := &record.Run{Figures: []record.Figure{{Name: "slow read", Value: 7}}}
	for text, held := range map[string]bool{
		"produce p50 < 501ms": true, "produce p50 < 400ms": false, "produce max >= 1s": true, "produce p99.9 <= 999.9ms": true,
		"slow read = 7": true, "slow read > 7": false, "nothing p50 < 1s": false, "nothing = 0": false,
	} {
		e, err := parseExpectation(text)
		if err != nil {
			t.Fatal(err)
		}
		if c := e.check(map[string]*record.Histogram{"produce": h}, run); c.Held != held {
			t.Errorf("%s: %v (%s)", text, c.Held, c.Was)
		}
	}
}

// A simulated system that holds up to a rate; every fourth answer is the
// host's mischief.
func TestKneeIsFound(t *testing.T) {
	for _, real := range []float64{90, 1000, 4321, 250_000} {
		k := NewKnee(1000, 0.05)
		tries := 0
		for ; ; tries++ {
			rate, ok := k.Next()
			if !ok {
				break
			}
			k.Tell(rate <= real && tries%4 != 3)
			if tries > 100 {
				t.Fatalf("knee %v: no end", real)
			}
		}
		best, failed := k.Found()
		if best > real || failed < real && failed != 0 && math.Abs(failed-real) > real*0.05 || best < real*0.94 {
			t.Errorf("knee %v: found %v to %v after %d rates", real, best, failed, tries)
		}
	}
	k := NewKnee(100, 0.05)
	for n := 0; ; n++ {
		if _, ok := k.Next(); !ok {
			break
		}
		if k.Tell(false); n > 100 {
			t.Fatal("a system that holds nothing is asked for ever")
		}
	}
	if best, failed := k.Found(); best != 0 || failed >= 2 {
		t.Errorf("nothing holds: %v, %v", best, failed)
	}
}

// What changes over a run is read from its intervals: the drift of a short one
// by fifths, of a long one by minutes, and what readers do that begin behind
// while they are.
func TestFiguresOverTime(t *testing.T) {
	interval := func(second int, ns int64) load.Interval {
		h := record.NewHistogram()
		for range 100 {
			h.Record(ns)
		}
		i := load.Interval{StartNS: int64(second) * 1e9, EndNS: int64(second+1) * 1e9}
		i.Series = append(i.Series, record.Interval{Series: load.Produce, H: h.Pack()})
		return i
	}
	run := func(seconds int, p99 func(second int) int64) (float64, float64) {
		x := &trial{Plan: Default(), results: []*load.Result{{Readers: []load.ReaderResult{{Name: "catch-up", CaughtUpNS: 5e9}}}}}
		x.Duration, x.Readers = time.Duration(seconds)*time.Second, []Reader{{After: x.Warmup + 10*time.Second}}
		for second := range seconds {
			x.packed = append(x.packed, interval(second, p99(second)))
		}
		var page record.Run
		x.trend(&page)
		x.behind(&page)
		drift, _ := page.Figure("drift")
		beside, _ := page.Figure("produce beside catch-up")
		return drift, beside
	}
	near := func(what string, was, want float64) {
		t.Helper()
		if math.Abs(was-want) > want/100 {
			t.Errorf("%s: %v, want %v", what, was, want)
		}
	}
	drift, beside := run(20, func(second int) int64 {
		switch {
		case second >= 16:
			return 2e6
		case second >= 10 && second < 15:
			return 3e6
		}
		return 1e6
	})
	near("drift of 20 s", drift, 2)
	near("beside readers behind", beside, 3)
	drift, _ = run(600, func(second int) int64 {
		switch second / 60 {
		case 0:
			return 9e6
		case 9:
			return 4e6
		}
		return 1e6
	})
	near("drift of ten minutes", drift, 4)
}
