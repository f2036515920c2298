package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/tailbound/tailbound/bench/load"
	"github.com/tailbound/tailbound/bench/record"
	"github.com/tailbound/tailbound/bench/scenarios"
	"github.com/tailbound/tailbound/bench/trial"
)

// scenario is a file of bench/scenarios, or another of the same form.
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
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // a byte order mark, as some editors write it
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

func runCommand(host *Host) *cobra.Command {
	var o single
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
			return o.with(cmd, s.Name, func(ctx context.Context, system trial.System, e trial.Env, got *measured) error {
				w := cmd.OutOrStdout()
				all, err := measureScenario(ctx, plans, rounds, scale, system, e, func(run *record.Run) { got.add(w, o.output, run) })
				if err == nil && o.output == "table" {
					printRounds(w, all)
				}
				return err
			})
		},
	}
	o.addTo(c, host)
	c.Flags().IntVar(&rounds, "rounds", 1, "how often each phase is measured")
	c.Flags().Float64Var(&scale, "short", 1, "a share of each phase's time: to see whether it works, not for figures")
	return c
}

// measureScenario measures each phase in each round; what the first one's rate
// was scaled to is the rate of all that ask for the same.
func measureScenario(ctx context.Context, plans []trial.Plan, rounds int, short float64, s trial.System, e trial.Env, done func(*record.Run)) (all [][]*record.Run, err error) {
	scaled := map[float64]float64{}
	all = make([][]*record.Run, rounds) // [round][phase]
	for round := range rounds {
		all[round] = make([]*record.Run, len(plans))
		here := e
		if rounds > 1 {
			here = e.Below(fmt.Sprintf("round-%d", round+1))
		}
		for _, i := range trial.Order(round, len(plans)) {
			p, at := plans[i], here
			asked := p.Rate
			if rate := scaled[asked]; rate > 0 {
				p.Rate, p.AtMost = rate, 0
			}
			p.Shorten(short)
			if len(plans) > 1 {
				at = here.Below(p.Name)
			}
			run, err := trial.Run(ctx, p, s, at)
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
// round. Of a figure that is a ratio already it prints the median and the range.
func printRounds(w io.Writer, runs [][]*record.Run) {
	if len(runs) < 2 {
		return
	}
	phase := func(i int) (all []*record.Run) {
		for _, round := range runs {
			all = append(all, round[i])
		}
		return all
	}
	first := phase(0)
	for i, run := range runs[0] {
		fmt.Fprintf(w, "\n%s, %d rounds: the median (least..greatest)\n", run.Name, len(runs))
		for _, name := range slices.Sorted(maps.Keys(run.Series)) {
			if i == 0 || first[0].Series[name].Count == 0 || ofMachine(name) {
				continue
			}
			fmt.Fprintf(w, "  %-22s", name+" / "+first[0].Name+"'s")
			for _, q := range trial.SeriesQuantities(name) {
				if r, ok := trial.FormRatios(q, phase(i), first); ok {
					fmt.Fprintf(w, "  %s", r)
				}
			}
			fmt.Fprintln(w)
		}
		for _, f := range run.Figures {
			if !f.Ratio {
				continue
			}
			var values []float64
			for _, r := range phase(i) {
				if v, ok := r.Figure(f.Name); ok {
					values = append(values, v)
				}
			}
			fmt.Fprintf(w, "  %-22s  %s  %s\n", f.Name, record.Spread(values), f.Unit)
		}
	}
}

// ofMachine says whether a series is the machine's or the load generator's, not
// the system's.
func ofMachine(series string) bool { return series == load.Lag || strings.HasPrefix(series, "hiccup") }

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
