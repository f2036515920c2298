package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/tailbound/tailbound/bench/record"
	"github.com/tailbound/tailbound/bench/trial"
)

// Every scenario can be run, says why, and expects something.
func TestScenarios(t *testing.T) {
	names := scenarioNames()
	if len(names) < 8 {
		t.Errorf("only %v", names)
	}
	for _, name := range names {
		s, err := readScenario(name)
		if err != nil {
			t.Fatal(err)
		}
		plans, err := s.plans()
		if err != nil {
			t.Fatal(err)
		}
		if s.Name != name || len(s.Why) < 200 {
			t.Errorf("%s: it is called %q, and why is %q", name, s.Name, s.Why)
		}
		for _, p := range plans {
			if len(p.Expect) == 0 || p.Duration < 30*time.Second {
				t.Errorf("%s, phase %s: expects %v in %v", name, p.Name, p.Expect, p.Duration)
			}
		}
	}
	if s, err := readScenario("durable-vs-cached"); err != nil {
		t.Error(err)
	} else if plans, err := s.plans(); err != nil || len(plans) != 2 || plans[0].TopicConfig != nil || plans[1].TopicConfig["write.caching"] != "true" || plans[1].Rate != plans[0].Rate {
		t.Errorf("phases do not change only what they say: %+v, %v", plans, err)
	}
	if _, err := readScenario("nonsense"); err == nil || !strings.Contains(err.Error(), "voice") {
		t.Errorf("a wrong name is answered with %v", err)
	}
}

func TestReaderFlag(t *testing.T) {
	var all []trial.Reader
	f := readerFlag{&all}
	for _, text := range []string{"3", "slow=1,mb=2.5", "2,after=10s"} {
		if err := f.Set(text); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	want := []trial.Reader{{Name: "end-to-end", Count: 3}, {Name: "slow", Count: 1, BytesPerSecond: 2.5e6}, {Name: "catch-up", Count: 2, After: 10 * time.Second}}
	for i := range want {
		if all[i] != want[i] {
			t.Errorf("reader %d is %+v", i, all[i])
		}
	}
	for _, text := range []string{"", "0", "x", "1,when=now", "1,after=soon"} {
		if f.Set(text) == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

func TestComparisonSaysWhatIsNoPair(t *testing.T) {
	one := func(kernel string, scale int64) []record.Recording {
		h := record.NewHistogram()
		for i := range int64(1000) {
			h.Record((i + 1) * scale)
		}
		r := record.Recording{Path: ".", Run: record.Run{Name: "x", Machine: record.Machine{Kernel: kernel}}}
		for i := range int64(8) {
			r.Intervals = append(r.Intervals, record.Interval{Series: "produce", StartNS: i * 1e9, EndNS: (i + 1) * 1e9, H: h.Pack()})
		}
		return []record.Recording{r}
	}
	var out bytes.Buffer
	if err := compareRecordings(one("6.1", 2000), one("6.8", 1000), 100, 1).print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"careful: kernel: 6.1, and 6.8", "produce p99", "2.00..2.00"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

// Ratios of phases are formed inside a round.
func TestRoundsAreCompared(t *testing.T) {
	run := func(name string, p99 int64, drift float64) *record.Run {
		return &record.Run{Name: name, Series: map[string]record.Summary{"produce": {Count: 9, P50: 1, P99: p99, P999: 1}}, Figures: []record.Figure{{Name: "drift", Value: drift, Ratio: true}, {Name: "errors", Value: 3}}}
	}
	var out bytes.Buffer
	printRounds(&out, [][]*record.Run{{run("one", 100, 1), run("ten", 200, 2)}, {run("one", 10, 1), run("ten", 60, 4)}, {run("one", 50, 1), run("ten", 50, 3)}})
	for _, want := range []string{"produce / one's         p50 1.00 (1.00..1.00)  p99 2.00 (1.00..6.00)", "drift                   3.00 (2.00..4.00)"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "errors") {
		t.Errorf("errors are no ratio:\n%s", out.String())
	}
	out.Reset()
	if printRounds(&out, [][]*record.Run{{run("one", 1, 1)}}); out.Len() > 0 {
		t.Errorf("one round is compared with itself: %s", out.String())
	}
}

// What a measurement prints for programs is what its recording says.
func TestBenchOutput(t *testing.T) {
	got := &measured{Recording: "r"}
	var out bytes.Buffer
	got.add(&out, "json", &record.Run{Name: "x", Figures: []record.Figure{{Name: "MB/s", Value: 4}}})
	if out.Len() > 0 {
		t.Errorf("a table is printed where none is wanted: %s", out.String())
	}
	if err := got.end(&out, "json"); err != nil {
		t.Fatal(err)
	}
	var read measured
	if err := json.Unmarshal(out.Bytes(), &read); err != nil || read.Recording != "r" || len(read.Runs) != 1 || read.Runs[0].Figures[0].Value != 4 {
		t.Errorf("%v: %s", err, out.String())
	}
}
