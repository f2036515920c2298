package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/tailbound/tailbound/bench/load"
	"github.com/tailbound/tailbound/bench/record"
	"github.com/tailbound/tailbound/bench/scenarios"
	"github.com/tailbound/tailbound/bench/trial"
)

// scenario is a file of bench/scenarios, or somebody's own.
type scenario struct {
	Name   string           `yaml:"name"`
	Why    string           `yaml:"why"`
	Plan   trial.Plan       `yaml:"plan"`
	Phases []map[string]any `yaml:"phases"` // what each changes of the plan
}

// readScenario reads one by its name, or a file.
func readScenario(name string) (scenario, error) {
	s := scenario{Plan: trial.Default()}
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		if text, err = scenarios.Files.ReadFile(name + ".yaml"); err != nil {
			return s, fmt.Errorf("%q is neither a file nor one of the scenarios %s", name, strings.Join(scenarioNames(), ", "))
		}
	}
	if err != nil {
		return s, err
	}
	if err := yaml.UnmarshalWithOptions(text, &s, yaml.Strict()); err != nil {
		return s, fmt.Errorf("%s: %w", name, err)
	}
	if s.Name == "" || strings.TrimSpace(s.Why) == "" {
		return s, fmt.Errorf("%s: a scenario has a name, and says why", name)
	}
	return s, nil
}

func scenarioNames() (names []string) {
	found, _ := fs.Glob(scenarios.Files, "*.yaml") // the pattern is right
	for _, f := range found {
		names = append(names, strings.TrimSuffix(f, ".yaml"))
	}
	return names
}

// plans are its phases.
func (s scenario) plans() (all []trial.Plan, err error) {
	phases := s.Phases
	if phases == nil {
		phases = []map[string]any{{"name": s.Name}}
	}
	for i, changes := range phases {
		p := s.Plan
		p.Why, p.TopicConfig, p.Readers = s.Why, maps.Clone(p.TopicConfig), slices.Clone(p.Readers)
		text, err := yaml.Marshal(changes)
		if err != nil {
			return nil, err
		}
		if changes["readers"] != nil {
			p.Readers = nil
		}
		if err := yaml.UnmarshalWithOptions(text, &p, yaml.Strict()); err != nil {
			return nil, fmt.Errorf("phase %d of %s: %w", i+1, s.Name, err)
		}
		p.Name = cmp.Or(p.Name, fmt.Sprint(i+1))
		if err := p.Check(); err != nil {
			return nil, fmt.Errorf("phase %s of %s: %w", p.Name, s.Name, err)
		}
		all = append(all, p)
	}
	return all, nil
}

func benchRunCommand() *cobra.Command {
	var o benchOptions
	var scale float64
	var rounds int
	c := &cobra.Command{
		Use:   "run SCENARIO",
		Short: "Measure a load that stands for something: voice, agents, fraud, ...",
		Long: `Measure a scenario: a load that stands for something, with what is expected of
it. Each says why it is there; "bench run" alone lists them. A file of one's own
has the same form (bench/scenarios).

Rates are scaled to what the machine carries: a closed loop of three seconds
comes first, and no more than a share of that is offered; the recording says
what became of the rate. All phases have the rate of the first.

With --rounds phases are measured in turn, in an order that turns from round to
round, and each is compared with the first one of its round: the median of the
ratios, and the least and the greatest.`,
		Example: `  tailbound bench run
  tailbound bench run voice --serve
  tailbound bench run headline -b kafka:9092 --restart-command 'systemctl restart kafka'
  tailbound bench run fan-out --serve --rounds 3
  tailbound bench run fraud --serve --short 0.1`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: cobra.FixedCompletions(scenarioNames(), cobra.ShellCompDirectiveDefault),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return listScenarios(cmd.OutOrStdout())
			}
			if rounds < 1 {
				return fmt.Errorf("--rounds %d: there is at least one", rounds)
			}
			s, err := readScenario(args[0])
			if err != nil {
				return err
			}
			plans, err := s.plans()
			if err != nil {
				return err
			}
			return o.with(cmd, s.Name, func(ctx context.Context, system trial.System, e trial.Env, got *benched) error {
				w := cmd.OutOrStdout()
				all, err := measureScenario(ctx, plans, rounds, scale, system, e, func(run *record.Run) { got.add(w, o.output, run) })
				if err == nil && o.output == "table" {
					printRounds(w, all)
				}
				return err
			})
		},
	}
	o.flags(c)
	c.Flags().IntVar(&rounds, "rounds", 1, "how often each phase is measured")
	c.Flags().Float64Var(&scale, "short", 1, "a share of each phase's time: to see whether it works, not for figures")
	return c
}

// measureScenario measures each phase in each round; what the first one's rate
// was scaled to is the rate of all that ask for the same.
func measureScenario(ctx context.Context, plans []trial.Plan, rounds int, short float64, s trial.System, e trial.Env, done func(*record.Run)) (all [][]*record.Run, err error) {
	scaled := map[float64]float64{}
	dir := e.Dir
	all = make([][]*record.Run, rounds) // [round][phase]
	for round := range rounds {
		all[round] = make([]*record.Run, len(plans))
		for i := range plans {
			if round%2 == 1 {
				i = len(plans) - 1 - i
			}
			p := plans[i]
			asked := p.Rate
			if rate := scaled[asked]; rate > 0 {
				p.Rate, p.AtMost = rate, 0
			}
			p.Shorten(short)
			e.Dir = dir
			if rounds > 1 {
				e.Dir = filepath.Join(e.Dir, fmt.Sprintf("round-%d", round+1))
			}
			if len(plans) > 1 {
				e.Dir = filepath.Join(e.Dir, p.Name)
			}
			run, err := trial.Run(ctx, p, s, e)
			if err != nil {
				return nil, fmt.Errorf("phase %s: %w", p.Name, err)
			}
			if offered, ok := run.Figure("offered"); ok && p.AtMost > 0 {
				scaled[asked] = offered
			}
			all[round][i] = run
			done(run)
		}
	}
	return all, nil
}

// printRounds compares the phases of several rounds: each with the first of its
// round. Of what is a ratio already it says the median and the range.
func printRounds(w io.Writer, runs [][]*record.Run) {
	if len(runs) < 2 {
		return
	}
	for i, run := range runs[0] {
		fmt.Fprintf(w, "\n%s, %d rounds: the median (least..greatest)\n", run.Name, len(runs))
		for _, name := range slices.Sorted(maps.Keys(run.Series)) {
			if i == 0 || runs[0][0].Series[name].Count == 0 || name == load.Lag || strings.HasPrefix(name, "hiccup") {
				continue
			}
			fmt.Fprintf(w, "  %-22s", name+" / "+runs[0][0].Name+"'s")
			for _, p := range []struct {
				name string
				of   func(record.Summary) int64
			}{
				{"p50", func(s record.Summary) int64 { return s.P50 }}, {"p99", func(s record.Summary) int64 { return s.P99 }}, {"p99.9", func(s record.Summary) int64 { return s.P999 }},
			} {
				fmt.Fprintf(w, "  %s %s", p.name, spread(runs, func(round []*record.Run) float64 {
					return float64(p.of(round[i].Series[name])) / float64(p.of(round[0].Series[name]))
				}))
			}
			fmt.Fprintln(w)
		}
		for _, f := range run.Figures {
			if f.Ratio {
				fmt.Fprintf(w, "  %-22s  %s  %s\n", f.Name, spread(runs, func(round []*record.Run) float64 {
					v, _ := round[i].Figure(f.Name)
					return v
				}), f.Unit)
			}
		}
	}
}

// spread is that of a figure of rounds.
func spread(runs [][]*record.Run, of func(round []*record.Run) float64) string {
	var all []float64
	for _, round := range runs {
		all = append(all, of(round))
	}
	return record.Spread(all)
}

func listScenarios(w io.Writer) error {
	for _, name := range scenarioNames() {
		s, err := readScenario(name)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s\n", s.Name)
		line := " "
		for _, word := range strings.Fields(s.Why) {
			if len(line)+len(word) > 78 {
				fmt.Fprintln(w, line)
				line = " "
			}
			line += " " + word
		}
		fmt.Fprintf(w, "%s\n\n", line)
	}
	return nil
}

func benchCompareCommand() *cobra.Command {
	var draws int
	var seed uint64
	var output string
	c := &cobra.Command{
		Use:   "compare A B",
		Short: "Put two recordings side by side: ratios with their confidence",
		Long: `Put two recordings side by side. For each series and percentile it prints what
each had, the ratio of A to B, and the range in which 95 of 100 repetitions
would lie: a bootstrap that draws each recording's intervals again, with
replacement, and pools them. Phases of the same name are compared; the rest is
named.

The range is of these two runs. What differs from run to run, as a machine that
was slower in the second, is not in it: run both again, in turn, to see that.`,
		Example: `  tailbound bench compare bench/results/A bench/results/B
  tailbound bench compare before/latency.hlog after/latency.hlog`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			a, err := readRecordings(args[0])
			if err != nil {
				return err
			}
			b, err := readRecordings(args[1])
			if err != nil {
				return err
			}
			all := compareRecordings(a, b, draws, seed)
			if len(all.Phases) == 0 {
				return errors.New("no phase is in both")
			}
			if output != "table" {
				return printValue(cmd.OutOrStdout(), output, all)
			}
			return all.print(cmd.OutOrStdout())
		},
	}
	c.Flags().IntVar(&draws, "draws", 2000, "of the bootstrap")
	c.Flags().Uint64Var(&seed, "seed", 1, "of the bootstrap; one seed gives one answer")
	outputFlag(c, c.Flags(), &output)
	return c
}

// comparison is two recordings side by side.
type comparison struct {
	Phases []comparedPhase `json:"phases"`
	OnlyA  []string        `json:"onlyA,omitempty"` // phases
	OnlyB  []string        `json:"onlyB,omitempty"`
}

type comparedPhase struct {
	A       string           `json:"a"`
	B       string           `json:"b"`
	Careful []string         `json:"careful,omitempty"` // what makes them no pair
	Ratios  []record.Ratio   `json:"ratios"`
	Figures []comparedFigure `json:"figures,omitempty"`
}

type comparedFigure struct {
	Name string  `json:"name"`
	A    float64 `json:"a"`
	B    float64 `json:"b"`
}

// compareRecordings compares the phases of the same name; of two that are one
// phase each the name does not matter.
func compareRecordings(as, bs []record.Recording, draws int, seed uint64) (all comparison) {
	for _, a := range as {
		i := slices.IndexFunc(bs, func(b record.Recording) bool { return b.Path == a.Path })
		if len(as) == 1 && len(bs) == 1 {
			i = 0
		}
		if i < 0 {
			all.OnlyA = append(all.OnlyA, a.Path)
			continue
		}
		b := bs[i]
		p := comparedPhase{A: cmp.Or(a.Run.Name, a.Path), B: cmp.Or(b.Run.Name, b.Path), Careful: differences(a.Run, b.Run)}
		for _, series := range record.SeriesOf(a.Intervals) {
			if series == load.Lag || strings.HasPrefix(series, "hiccup") {
				continue
			}
			p.Ratios = append(p.Ratios, record.Compare(a.Intervals, b.Intervals, series, []float64{50, 90, 99, 99.9, 99.99}, draws, seed)...)
		}
		for _, name := range []string{"offered", "requests/s", "system CPU"} {
			x, okA := a.Run.Figure(name)
			y, okB := b.Run.Figure(name)
			if okA && okB && y > 0 {
				p.Figures = append(p.Figures, comparedFigure{name, x, y})
			}
		}
		all.Phases = append(all.Phases, p)
	}
	for _, b := range bs {
		if len(bs) > 1 && !slices.ContainsFunc(as, func(a record.Recording) bool { return a.Path == b.Path }) {
			all.OnlyB = append(all.OnlyB, b.Path)
		}
	}
	return all
}

func (c comparison) print(w io.Writer) error {
	for _, p := range c.Phases {
		fmt.Fprintf(w, "%s (A) to %s (B)\n", p.A, p.B)
		for _, d := range p.Careful {
			fmt.Fprintf(w, "  careful: %s\n", d)
		}
		t := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
		fmt.Fprintln(t, "\tA\tB\tA/B\t95 %\t\t")
		for _, r := range p.Ratios {
			within, verdict := "too few intervals", ""
			if r.High > 0 {
				within, verdict = fmt.Sprintf("%.2f..%.2f", r.Low, r.High), "not resolved"
				if r.Resolved() {
					verdict = ""
				}
			}
			fmt.Fprintf(t, "%s p%v\t%s\t%s\t%.2f\t%s\t%s\t\n", r.Series, r.Percentile, trial.Short(r.A), trial.Short(r.B), r.Ratio, within, verdict)
		}
		if err := t.Flush(); err != nil {
			return err
		}
		for _, f := range p.Figures {
			fmt.Fprintf(w, "  %s: %.4g to %.4g, %.2f\n", f.Name, f.A, f.B, f.A/f.B)
		}
		fmt.Fprintln(w)
	}
	for _, name := range c.OnlyA {
		fmt.Fprintf(w, "%s is only in the first\n", name)
	}
	for _, name := range c.OnlyB {
		fmt.Fprintf(w, "%s is only in the second\n", name)
	}
	return nil
}

// differences are what makes two runs of one name no pair.
func differences(a, b record.Run) (all []string) {
	x, y := a.Machine, b.Machine
	for _, d := range []struct{ what, a, b string }{
		{"CPU", x.CPU, y.CPU}, {"kernel", x.Kernel, y.Kernel}, {"file system", x.FileSystem, y.FileSystem}, {"promise", a.Promise, b.Promise},
	} {
		if d.a != d.b {
			all = append(all, fmt.Sprintf("%s: %s, and %s", d.what, cmp.Or(d.a, "unknown"), cmp.Or(d.b, "unknown")))
		}
	}
	if p, ok := a.Figure("offered"); ok {
		if q, ok := b.Figure("offered"); ok && (p > q*1.02 || q > p*1.02) {
			all = append(all, fmt.Sprintf("offered: %.0f/s, and %.0f/s", p, q))
		}
	}
	return all
}
