package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/tailbound/tailbound/bench/load"
	"github.com/tailbound/tailbound/bench/record"
)

type report struct {
	Machine   record.Machine
	Arguments []string
	Runs      []measured
}

func (r *report) header(w io.Writer) {
	fmt.Fprintln(w, r.Machine.Lines())
}

func progress(m measured) {
	if m.Result == nil {
		fmt.Fprintf(os.Stderr, "round %d  %-28s %-13s failed: %s\n", m.Round+1, m.Phase, m.System, m.Failed)
		return
	}
	r := m.Result
	fmt.Fprintf(os.Stderr, "round %d  %-28s %-13s p50 %s p99 %s, %.0f MB/s %s\n",
		m.Round+1, m.Phase, m.System, ms(r.Latency.P50), ms(r.Latency.P99), r.MBPerSec, r.GeneratorLimited)
}

// carriedLeast is the share of an offered rate below which a system could not
// carry it; above it the difference is what is in flight at the window's end.
const carriedLeast = 0.98

func (r *report) of(phase, system string) (runs []measured) {
	for _, m := range r.Runs {
		if m.Phase == phase && m.System == system {
			runs = append(runs, m)
		}
	}
	return runs
}

// table prints, for each phase, the median over the rounds of each figure (of
// the maximum: the greatest), then ratios formed round by round.
func (r *report) table(w io.Writer, phases []phase, systems []string) {
	fmt.Fprintf(w, "Latency in ms, from the intended send to the whole answer; medians over the rounds (max: the greatest).\n")
	for _, p := range phases {
		l := p.Load
		fmt.Fprintf(w, "\n%s  (%d x %d B a request, %d partitions, %d connections, up to %d in flight each, %.0f s)\n",
			p.Name, l.Records, l.RecordBytes, l.Partitions, l.Connections, l.Inflight, float64(l.WindowNS)/1e9)
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprint(t, "system\tat ack\tp50\tp99\tp99.9\tmax\tp99/p50\tMB/s\trequests/s\tCPU\tRSS MiB\tready s\tlag p50/p99\t\n")
		var notes []string
		for _, s := range systems {
			notes = append(notes, r.row(t, p, s)...)
		}
		_ = t.Flush()
		for _, s := range systems[1:] {
			r.ratios(w, p, systems[0], s)
		}
		for _, n := range notes {
			fmt.Fprintf(w, "  ! %s\n", n)
		}
	}
}

func (r *report) row(w io.Writer, p phase, system string) (notes []string) {
	runs := r.of(p.Name, system)
	if len(runs) == 0 {
		return nil
	}
	var good []*load.Result
	var rss, ready []float64
	for _, m := range runs {
		if m.Failed != "" {
			notes = append(notes, fmt.Sprintf("%s, round %d failed: %s", system, m.Round+1, m.Failed))
			continue
		}
		good = append(good, m.Result)
		rss, ready = append(rss, m.RSSMiB), append(ready, m.ReadyS)
		notes = append(notes, remarks(system, m)...)
	}
	if len(good) == 0 {
		fmt.Fprintf(w, "%s\t\tfailed\t\t\t\t\t\t\t\t\t\t\t\n", system)
		return notes
	}
	mid := func(f func(*load.Result) float64) float64 { return record.Median(each(good, f)) }
	fmt.Fprintf(w, "%s\t%s\t%.3f\t%.3f\t%.3f\t%.3f\t%.1f\t%.1f\t%.0f\t%.0f %%\t%.0f\t%.2f\t%.3f/%.3f\t\n", system, promise(system),
		mid(func(r *load.Result) float64 { return float64(r.Latency.P50) / 1e6 }),
		mid(func(r *load.Result) float64 { return float64(r.Latency.P99) / 1e6 }),
		mid(func(r *load.Result) float64 { return float64(r.Latency.P999) / 1e6 }),
		slices.Max(each(good, func(r *load.Result) float64 { return float64(r.Latency.Max) / 1e6 })),
		mid(func(r *load.Result) float64 { return float64(r.Latency.P99) / float64(max(r.Latency.P50, 1)) }),
		mid(func(r *load.Result) float64 { return r.MBPerSec }),
		mid(func(r *load.Result) float64 { return r.RequestsPerSec }),
		mid(func(r *load.Result) float64 { return r.ServerCPU * 100 }),
		record.Median(rss), record.Median(ready),
		mid(func(r *load.Result) float64 { return float64(r.Lag.P50) / 1e6 }),
		mid(func(r *load.Result) float64 { return float64(r.Lag.P99) / 1e6 }))
	if p.Load.Consumer {
		end := func(f func(record.Summary) int64) float64 {
			return mid(func(r *load.Result) float64 { return float64(f(*r.EndToEnd)) / 1e6 })
		}
		fmt.Fprintf(w, "end to end\t\t%.3f\t%.3f\t%.3f\t%.3f\t\t\t\t\t\t\t\t\n",
			end(func(s record.Summary) int64 { return s.P50 }), end(func(s record.Summary) int64 { return s.P99 }),
			end(func(s record.Summary) int64 { return s.P999 }),
			slices.Max(each(good, func(r *load.Result) float64 { return float64(r.EndToEnd.Max) / 1e6 })))
	}
	return notes
}

// remarks are what a reader must know before reading the row.
func remarks(system string, m measured) (notes []string) {
	r := m.Result
	say := func(format string, a ...any) {
		notes = append(notes, fmt.Sprintf("%s, round %d: ", system, m.Round+1)+fmt.Sprintf(format, a...))
	}
	if r.Carried < carriedLeast {
		say("cannot (%.0f %%)", r.Carried*100)
	}
	if r.Unfinished > 0 {
		say("%d requests without an answer, counted with what they had waited", r.Unfinished)
	}
	if r.EndToEndLost > 0 {
		say("%d acknowledged batches were not read back in time", r.EndToEndLost)
	}
	for what, n := range r.Errors {
		say("%d x %s", n, what)
	}
	if r.GeneratorLimited != "" {
		say("the generator was the limit: %s", r.GeneratorLimited)
	}
	if len(m.OffCore) > 0 {
		say("threads that may leave its core: %s", strings.Join(m.OffCore, " "))
	}
	if r.Steal > 0.01 {
		say("the host took %.1f %% of the machine's time", r.Steal*100)
	}
	return notes
}

// ratios prints a/b of each figure: the median of the rounds (least..greatest).
// A round counts only where both carried the rate.
func (r *report) ratios(w io.Writer, p phase, a, b string) {
	figures := []struct {
		name string
		of   func(*load.Result) float64
	}{
		{"p50", func(r *load.Result) float64 { return float64(r.Latency.P50) }},
		{"p99", func(r *load.Result) float64 { return float64(r.Latency.P99) }},
		{"p99.9", func(r *load.Result) float64 { return float64(r.Latency.P999) }},
		{"throughput", func(r *load.Result) float64 { return r.RequestsPerSec }},
	}
	line := ""
	for _, f := range figures {
		line += ratioLine(f.name, r.of(p.Name, a), r.of(p.Name, b), f.of)
	}
	if line != "" {
		fmt.Fprintf(w, "  %s / %s:%s\n", a, b, line)
	}
}

// ratioLine is one figure's a/b over the rounds that both were good in.
func ratioLine(name string, as, bs []measured, of func(*load.Result) float64) string {
	var rs []float64
	for _, x := range as {
		for _, y := range bs {
			if x.Round == y.Round && comparable(x.Result) && comparable(y.Result) && of(y.Result) > 0 {
				rs = append(rs, of(x.Result)/of(y.Result))
			}
		}
	}
	if len(rs) == 0 {
		return ""
	}
	return "  " + name + " " + record.Spread(rs)
}

func comparable(r *load.Result) bool {
	return r != nil && r.Carried >= carriedLeast && len(r.Errors) == 0
}

func each(rs []*load.Result, f func(*load.Result) float64) []float64 {
	out := make([]float64, len(rs))
	for i, r := range rs {
		out[i] = f(r)
	}
	return out
}

func ms(ns int64) string { return fmt.Sprintf("%.3f ms", float64(ns)/1e6) }

// write keeps everything, histograms too, as one JSON file.
func (r *report) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	name := filepath.Join(dir, strings.NewReplacer(":", "", "-", "").Replace(r.Machine.Time)+"-"+r.Machine.Commit+".json")
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(name, append(b, '\n'), 0o644); err != nil {
		return err
	}
	fmt.Printf("\n%s\n", name)
	return nil
}
