package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/tailbound/tailbound/bench/record"
	"github.com/tailbound/tailbound/bench/trial"
)

func compareCommand() *cobra.Command {
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
	outputFlag(c, &output)
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
			if ofMachine(series) {
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
