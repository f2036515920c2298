package cli

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/tailbound/tailbound/bench/load"
	"github.com/tailbound/tailbound/bench/record"
	"github.com/tailbound/tailbound/bench/trial"
)

// A table is what versus got: for programs as it is, for people printed.
type table struct {
	Recording string         `json:"recording"`
	Machine   record.Machine `json:"machine"`
	Phases    []phaseRow     `json:"phases,omitempty"`
	Knees     []kneeFound    `json:"knees,omitempty"`

	systems []System
	phases  []phase
}

// A phaseRow is what every system did in one phase.
type phaseRow struct {
	Phase   string         `json:"phase"`
	Systems []systemRow    `json:"systems"`
	Ratios  []trial.Ratios `json:"ratios,omitempty"`    // the first system's to each other's
	Beside  []trial.Ratios `json:"disturbed,omitempty"` // each system's to its own of the phase with nothing beside it
}

// A systemRow is what one system did, by round.
type systemRow struct {
	System  string        `json:"system"`
	Promise string        `json:"promise"`
	Rounds  []*record.Run `json:"rounds"` // nil: not measured
	Failed  []string      `json:"failed,omitempty"`
}

// A kneeFound is one system's knee in one round.
type kneeFound struct {
	System string       `json:"system"`
	Round  int          `json:"round"`
	Found  *trial.Found `json:"found"`
}

// add keeps what one system did in one phase of one round.
func (t *table) add(round, phase, system int, run *record.Run, err error) {
	for len(t.Phases) < len(t.phases) {
		row := phaseRow{Phase: t.phases[len(t.Phases)].Name}
		for _, s := range t.systems {
			row.Systems = append(row.Systems, systemRow{System: s.Name, Promise: s.Promise})
		}
		t.Phases = append(t.Phases, row)
	}
	s := &t.Phases[phase].Systems[system]
	for len(s.Rounds) <= round {
		s.Rounds = append(s.Rounds, nil)
	}
	if s.Rounds[round] = run; err != nil {
		s.Failed = append(s.Failed, fmt.Sprintf("round %d failed: %v", round+1, err))
	}
}

// failed says whether something was not measured.
func (t *table) failed() bool {
	return slices.ContainsFunc(t.Phases, func(p phaseRow) bool {
		return slices.ContainsFunc(p.Systems, func(s systemRow) bool { return len(s.Failed) > 0 })
	})
}

// broken says whether an expectation did not hold.
func (t *table) broken() bool {
	return slices.ContainsFunc(t.Phases, func(p phaseRow) bool {
		return slices.ContainsFunc(p.Systems, func(s systemRow) bool {
			return slices.ContainsFunc(s.Rounds, func(run *record.Run) bool { return run != nil && failed(run) })
		})
	})
}

// comparable are the runs of rounds in which the system carried the rate and
// answered nothing with an error; the others are nil.
func (s systemRow) comparable() (all []*record.Run) {
	for _, run := range s.Rounds {
		if !trial.Carried(run) {
			run = nil
		}
		all = append(all, run)
	}
	return all
}

// compared are the quantities of which ratios are formed.
var compared = append(trial.SeriesQuantities(load.Produce),
	trial.Quantity{Name: "throughput", Of: func(run *record.Run) (float64, bool) { return run.Figure("requests/s") }},
	trial.Quantity{Name: "CPU a request", Of: func(run *record.Run) (float64, bool) {
		cores, ok := run.Figure("system CPU")
		requests, _ := run.Figure("requests/s")
		return cores / max(requests, 1), ok && cores > 0
	}})

// form forms all ratios.
func (t *table) form() {
	for i := range t.Phases {
		p := &t.Phases[i]
		for _, other := range p.Systems[1:] {
			p.Ratios = append(p.Ratios, ratiosOf(compared, p.Systems[0].System, other.System, p.Systems[0].comparable(), other.comparable())...)
		}
		quiet := slices.IndexFunc(t.Phases, func(q phaseRow) bool { return q.Phase == t.phases[i].quiet })
		if t.phases[i].disturbed == "" || quiet < 0 {
			continue
		}
		for k, s := range p.Systems {
			p.Beside = append(p.Beside, ratiosOf(trial.SeriesQuantities(load.Produce), s.System, s.System, s.comparable(), t.Phases[quiet].Systems[k].comparable())...)
		}
	}
}

func ratiosOf(quantities []trial.Quantity, nameA, nameB string, a, b []*record.Run) (all []trial.Ratios) {
	for _, q := range quantities {
		if r, ok := trial.FormRatios(q, a, b); ok {
			r.A, r.B = nameA, nameB
			all = append(all, r)
		}
	}
	return all
}

func (t *table) header(w io.Writer) { fmt.Fprintln(w, t.Machine.Lines()) }

// print prints, for each phase, the median over the rounds of each figure (of the
// maximum: the greatest), then the ratios.
func (t *table) print(w io.Writer) {
	if t.Knees != nil {
		t.printKnees(w)
		return
	}
	fmt.Fprintf(w, "Latency in ms, from the intended send to the whole answer; medians over the rounds (max: the greatest).\n")
	for i, p := range t.Phases {
		l := t.phases[i].Plan
		fmt.Fprintf(w, "\n%s  (%d x %d B a request, %d partitions, %d connections, up to %d in flight each, %.4g s)\n",
			p.Phase, l.Records, l.RecordBytes, l.Partitions, l.Connections, l.Inflight, l.Duration.Seconds())
		columns := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprint(columns, "system\tat ack\tp50\tp99\tp99.9\tmax\tp99/p50\tMB/s\trequests/s\tCPU\tRSS MiB\tready s\tlag p50/p99\t\n")
		var notes []string
		for _, s := range p.Systems {
			s.print(columns)
			notes = append(notes, s.notes()...)
		}
		_ = columns.Flush() // what w cannot take is missed by the reader of w
		printRatios(w, p.Ratios)
		for _, n := range notes {
			fmt.Fprintf(w, "  ! %s\n", n)
		}
	}
	t.printDisturbances(w)
}

// print is one line of a system, and one of each of its readers' series.
func (s systemRow) print(w io.Writer) {
	var runs []*record.Run
	for _, run := range s.Rounds {
		if run != nil {
			runs = append(runs, run)
		}
	}
	if len(runs) == 0 {
		if len(s.Failed) > 0 {
			fmt.Fprintf(w, "%s\t\tfailed\t\t\t\t\t\t\t\t\t\t\t\n", s.System)
		}
		return
	}
	each := func(of func(*record.Run) float64) (all []float64) {
		for _, run := range runs {
			all = append(all, of(run))
		}
		return all
	}
	middle := func(of func(*record.Run) float64) float64 { return record.Median(each(of)) }
	figure := func(name string) float64 {
		return middle(func(run *record.Run) float64 {
			v, _ := run.Figure(name) // 0: a broker that runs elsewhere has no such figure
			return v
		})
	}
	ms := func(series string, of func(record.Summary) int64) func(*record.Run) float64 {
		return func(run *record.Run) float64 { return float64(of(run.Series[series])) / 1e6 }
	}
	promise, _, _ := strings.Cut(s.Promise, ":")
	latencies := func(series string) string {
		return fmt.Sprintf("%.3f\t%.3f\t%.3f\t%.3f", middle(ms(series, p50)), middle(ms(series, p99)), middle(ms(series, p999)), slices.Max(each(ms(series, greatest))))
	}
	fmt.Fprintf(w, "%s\t%s\t%s\t%.1f\t%.1f\t%.0f\t%.0f %%\t%.0f\t%.2f\t%.3f/%.3f\t\n", s.System, promise, latencies(load.Produce),
		middle(func(run *record.Run) float64 {
			produce := run.Series[load.Produce]
			return float64(produce.P99) / float64(max(produce.P50, 1))
		}),
		figure("MB/s"), figure("requests/s"), figure("system CPU")*100, figure("memory peak"), figure("ready"),
		middle(ms(load.Lag, p50)), middle(ms(load.Lag, p99)))
	for _, series := range slices.Sorted(maps.Keys(runs[0].Series)) {
		if series != load.Produce && !ofMachine(series) {
			fmt.Fprintf(w, "%s\t\t%s\t\t\t\t\t\t\t\t\n", series, latencies(series))
		}
	}
}

func p50(s record.Summary) int64      { return s.P50 }
func p99(s record.Summary) int64      { return s.P99 }
func p999(s record.Summary) int64     { return s.P999 }
func greatest(s record.Summary) int64 { return s.Max }

// notes are what a reader must know before reading the row.
func (s systemRow) notes() (all []string) {
	for _, text := range s.Failed {
		all = append(all, s.System+", "+text)
	}
	for round, run := range s.Rounds {
		if run == nil {
			continue
		}
		for _, n := range run.Notes {
			if n != trial.ClosedLoop { // the phase's name says it
				all = append(all, fmt.Sprintf("%s, round %d: %s", s.System, round+1, brief(n)))
			}
		}
		for _, c := range run.Verdict {
			if !c.Held {
				all = append(all, fmt.Sprintf("%s, round %d: expected %s, and it was %s", s.System, round+1, c.Expected, c.Was))
			}
		}
	}
	return all
}

// brief is a note without its advice.
func brief(note string) string {
	note, _, _ = strings.Cut(note, ";")
	return note
}

// printRatios prints a line for each pair of systems.
func printRatios(w io.Writer, all []trial.Ratios) {
	for len(all) > 0 {
		a, b := all[0].A, all[0].B
		line := ""
		for len(all) > 0 && all[0].A == a && all[0].B == b {
			line += "  " + all[0].String()
			all = all[1:]
		}
		control := ""
		if same, _, _ := strings.Cut(b, " #"); same == a {
			control = "  (control: twice the same)"
		}
		fmt.Fprintf(w, "  %s / %s:%s%s\n", a, b, line, control)
	}
}

// printDisturbances says what was beside each system did to it.
func (t *table) printDisturbances(w io.Writer) {
	said := false
	for i, p := range t.Phases {
		if t.phases[i].disturbed == "" {
			continue
		}
		if !said {
			fmt.Fprintf(w, "\nWhat was beside a system did to it (disturbed / undisturbed, median of the rounds, least..greatest):\n")
			said = true
		}
		for _, s := range p.Systems {
			line := ""
			for _, r := range p.Beside {
				if r.A == s.System {
					line += "  " + r.String()
				}
			}
			if line == "" {
				line = "  could not carry the rate in both"
			}
			fmt.Fprintf(w, "  %s, %s:%s\n", s.System, p.Phase, line)
		}
	}
}

// printKnees prints the median over the rounds, and ratios formed inside them.
func (t *table) printKnees(w io.Writer) {
	plan := t.phases[0].Plan
	mb := float64(plan.Records*plan.RecordBytes) / 1e6
	of := func(system string) (best []float64, atLeast int) {
		for _, k := range t.Knees {
			if k.System == system {
				if best = append(best, k.Found.Best*mb); k.Found.AtLeast != "" {
					atLeast++
				}
			}
		}
		return best, atLeast
	}
	fmt.Fprintf(w, "The highest rate with %s; MB/s, the median of the rounds (least..greatest); ratios inside a round.\n", strings.Join(t.Knees[0].Found.Within, " and "))
	first, _ := of(t.systems[0].Name)
	for i, s := range t.systems {
		best, atLeast := of(s.Name)
		promise, _, _ := strings.Cut(s.Promise, ":")
		fmt.Fprintf(w, "  %-18s %-11s %8.1f (%.1f..%.1f)", s.Name, promise, record.Median(best), slices.Min(best), slices.Max(best))
		if atLeast > 0 {
			fmt.Fprintf(w, "  at least, in %d rounds: the generator was the limit", atLeast)
		}
		var ratios []float64
		for round := range best {
			if best[round] > 0 {
				ratios = append(ratios, first[round]/best[round])
			}
		}
		if i > 0 && len(ratios) > 0 {
			fmt.Fprintf(w, "  %s has %s times it", t.systems[0].Name, record.Spread(ratios))
		}
		fmt.Fprintln(w)
	}
}

// Where a page has its table.
const (
	measuredFrom = "<!-- measured -->"
	measuredTo   = "<!-- /measured -->"
)

// putInto puts a table into a page, in the place of the one before.
func putInto(path, table string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(b), measuredFrom)
	_, after, closed := strings.Cut(rest, measuredTo)
	if !ok || !closed {
		return fmt.Errorf("%s has no %s with its end", path, measuredFrom)
	}
	return os.WriteFile(path, []byte(before+measuredFrom+"\n```\n"+strings.TrimSpace(table)+"\n```\n"+measuredTo+after), 0o644)
}
