package cli

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tailbound/tailbound/bench/load"
	"github.com/tailbound/tailbound/bench/record"
	"github.com/tailbound/tailbound/bench/trial"
)

// run is a made-up run: what it carried, and its p99.
func made(carried float64, p99NS int64) *record.Run {
	return &record.Run{
		Series:  map[string]record.Summary{load.Produce: {Count: 9, P50: 1e6, P99: p99NS, P999: p99NS}},
		Figures: []record.Figure{{Name: "carried", Value: carried}, {Name: "requests/s", Value: 100 * carried}, {Name: "system CPU", Value: 0.5}},
	}
}

func madeTable(t *testing.T, systems string, phases ...phase) *table {
	t.Helper()
	host := &Host{Kinds: []Kind{tailbound(), running()}}
	all, err := host.Systems(systems)
	if err != nil {
		t.Fatal(err)
	}
	return &table{systems: all, phases: phases}
}

// Ratios are formed inside a round, and only where both carried the rate. A system
// that is named twice is held against itself.
func TestVersusRatios(t *testing.T) {
	got := madeTable(t, "tailbound@old,tailbound,tailbound@old", phase{Plan: trial.Plan{Name: "200 MB/s"}})
	for round, p99 := range [][3]int64{{10e6, 5e6, 20e6}, {30e6, 30e6, 30e6}, {80e6, 20e6, 10e6}} {
		for _, system := range trial.Order(round, 3) {
			run := made(1, p99[system])
			if round == 1 && system == 1 {
				run = made(0.58, p99[system])
			}
			got.add(round, 0, system, run, nil)
		}
	}
	got.form()
	find := func(of, b string) trial.Ratios {
		i := slices.IndexFunc(got.Phases[0].Ratios, func(r trial.Ratios) bool { return r.Of == of && r.B == b })
		if i < 0 {
			t.Fatalf("no ratio of %s to %s: %+v", of, b, got.Phases[0].Ratios)
		}
		return got.Phases[0].Ratios[i]
	}
	if r := find("p99", "tailbound"); !slices.Equal(r.Rounds, []float64{2, 4}) || r.Median != 3 || r.Least != 2 || r.Greatest != 4 {
		t.Errorf("old to new: %+v", r)
	}
	if r := find("p99", "tailbound@old #2"); !slices.Equal(r.Rounds, []float64{0.5, 1, 8}) || r.Median != 1 {
		t.Errorf("old to old: %+v", r)
	}
	if r := find("throughput", "tailbound"); r.Median != 1 {
		t.Errorf("throughput: %+v", r)
	}
	var out strings.Builder
	got.print(&out)
	for _, want := range []string{"tailbound@old / tailbound:  p50 1.00 (1.00..1.00)  p99 3.00 (2.00..4.00)", "p99 1.00 (0.50..8.00)", "(control: twice the same)"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}

// What was not measured is said, and is in no ratio; what has something beside it is
// held against the same system without.
func TestVersusDisturbedAndFailed(t *testing.T) {
	got := madeTable(t, "tailbound,tailbound@new",
		phase{Plan: trial.Plan{Name: "100 MB/s"}, quiet: "100 MB/s"}, phase{Plan: trial.Plan{Name: "100 MB/s beside hog"}, disturbed: "hog", quiet: "100 MB/s"})
	for round := range 2 {
		got.add(round, 0, 0, made(1, 10e6), nil)
		got.add(round, 1, 0, made(1, int64(round+2)*10e6), nil)
		got.add(round, 0, 1, nil, errors.New("it ended"))
		got.add(round, 1, 1, made(1, 10e6), nil)
	}
	got.form()
	if len(got.Phases[0].Ratios) != 0 || !got.failed() {
		t.Errorf("%+v", got.Phases[0])
	}
	var out strings.Builder
	got.print(&out)
	for _, want := range []string{"! tailbound@new, round 2 failed: it ended", "tailbound, 100 MB/s beside hog:  p50 1.00 (1.00..1.00)  p99 2.50 (2.00..3.00)", "tailbound@new, 100 MB/s beside hog:  could not carry"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}

func TestKneesAreCompared(t *testing.T) {
	got := madeTable(t, "tailbound,tailbound@new", phase{Plan: trial.Plan{Records: 10, RecordBytes: 1000}})
	for round, best := range [][2]float64{{1000, 2000}, {4000, 2000}} {
		for i, s := range got.systems {
			got.Knees = append(got.Knees, kneeFound{s.Name, round + 1, &trial.Found{Within: []string{"produce p99 < 2ms"}, Best: best[i]}})
		}
	}
	var out strings.Builder
	got.print(&out)
	for _, want := range []string{"25.0 (10.0..40.0)", "tailbound has 1.25 (0.50..2.00) times it"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}

// Flags become the loads that they were in every earlier table.
func TestVersusPhases(t *testing.T) {
	v := &versus{plan: trial.Default(), rates: "50,sat", small: true, smallRates: "5000,sat", consumer: true, disturb: "hog"}
	v.plan.Rate = 0
	all, err := v.phases()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range all {
		names = append(names, p.Name)
	}
	want := []string{"50 MB/s", "50 MB/s beside hog", "50 MB/s, read at the tail", "saturation MB/s", "saturation MB/s beside hog",
		"5000 small/s", "5000 small/s beside hog", "5000 small/s, read at the tail", "saturation small/s", "saturation small/s beside hog"}
	if !slices.Equal(names, want) {
		t.Fatalf("%q", names)
	}
	for i, p := range map[int]trial.Plan{
		0: {Rate: 500, Partitions: 4, Records: 100, RecordBytes: 1000, Inflight: 64}, 3: {Saturate: true, Partitions: 4, Records: 100, RecordBytes: 1000, Inflight: 16},
		5: {Rate: 5000, Partitions: 64, Records: 1, RecordBytes: 100, Inflight: 1024}, 8: {Saturate: true, Partitions: 64, Records: 1, RecordBytes: 100, Inflight: 256},
	} {
		q := all[i].Plan
		if q.Rate != p.Rate || q.Saturate != p.Saturate || q.Partitions != p.Partitions || q.Records != p.Records || q.RecordBytes != p.RecordBytes || q.Inflight != p.Inflight {
			t.Errorf("%s: %+v", all[i].Name, q)
		}
	}
	if len(all[2].Readers) != 1 || all[0].Readers != nil {
		t.Errorf("readers: %+v and %+v", all[2].Readers, all[0].Readers)
	}
	v = &versus{plan: trial.Default(), steady: true}
	v.plan.Rate = 40_000
	if all, err = v.phases(); err != nil || len(all) != 1 || all[0].Name != "40000 requests/s" || all[0].Keep != 128<<20 || all[0].Fill != 4*time.Second {
		t.Errorf("%+v, %v", all, err)
	}
	for _, rates := range []string{"", "x", "-5", "0"} {
		v := &versus{plan: trial.Default(), rates: rates}
		v.plan.Rate = 0
		if _, err := v.phases(); err == nil {
			t.Errorf("--rates %q was taken", rates)
		}
	}
}

func TestSeconds(t *testing.T) {
	for text, want := range map[string]time.Duration{"2": 2 * time.Second, "0.5": 500 * time.Millisecond, "3s": 3 * time.Second, "1m": time.Minute} {
		var s seconds
		if err := s.Set(text); err != nil || time.Duration(s) != want {
			t.Errorf("%s: %v, %v", text, time.Duration(s), err)
		}
	}
	var s seconds
	if s.Set("soon") == nil {
		t.Error("soon was taken")
	}
}

func TestTableGoesIntoItsPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(path, []byte("before\n<!-- measured -->\nold\n<!-- /measured -->\nafter\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := putInto(path, "\nnew\n"); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "before\n<!-- measured -->\n```\nnew\n```\n<!-- /measured -->\nafter\n" {
		t.Errorf("%q, %v", b, err)
	}
	if err := os.WriteFile(path, []byte("<!-- measured --> without an end"), 0o644); err != nil {
		t.Fatal(err)
	}
	if putInto(path, "x") == nil {
		t.Error("a page without an end of its place was written")
	}
}
