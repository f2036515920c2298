package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/tailbound/tailbound/bench/record"
	"github.com/tailbound/tailbound/bench/trial"
)

// knees searches each system's knee, round after round, and forms ratios inside
// a round.
func (o *options) knees(ctx context.Context, rep *report, scratch string, systems []string, p phase) error {
	found := map[string][]float64{} // by system, of each round; 0: it held nothing
	for round := range o.rounds {
		for i := range systems {
			s := systems[i]
			if round%2 == 1 {
				s = systems[len(systems)-1-i]
			}
			best, err := o.kneeOf(ctx, rep, scratch, s, p, round)
			if err != nil {
				return err
			}
			found[s] = append(found[s], best)
		}
	}
	mb := float64(p.Load.Records*p.Load.RecordBytes) / 1e6
	fmt.Printf("The highest rate with p99 below %v; MB/s, the median of the rounds (least..greatest); ratios inside a round.\n", o.knee)
	for _, s := range systems {
		v := found[s]
		fmt.Printf("  %-18s %-11s %8.1f (%.1f..%.1f)", s, promise(s), record.Median(v)*mb, slices.Min(v)*mb, slices.Max(v)*mb)
		var ratios []float64
		for round := range v {
			if v[round] > 0 {
				ratios = append(ratios, found[systems[0]][round]/v[round])
			}
		}
		if s != systems[0] && len(ratios) > 0 {
			fmt.Printf("  %s has %.2f times it (%.2f..%.2f)", systems[0], record.Median(ratios), slices.Min(ratios), slices.Max(ratios))
		}
		fmt.Println()
	}
	return rep.write(o.results)
}

func (o *options) kneeOf(ctx context.Context, rep *report, scratch, system string, p phase, round int) (float64, error) {
	k := trial.NewKnee(p.Load.Rate, 0.05)
	for {
		rate, ok := k.Next()
		if !ok {
			best, _ := k.Found()
			return best, nil
		}
		p.Load.Rate = rate
		p.Name = fmt.Sprintf("knee %.0f/s", rate)
		m := o.measure(ctx, scratch, system, p)
		if ctx.Err() != nil {
			return 0, errors.New("interrupted")
		}
		m.Round = round
		rep.Runs = append(rep.Runs, m)
		progress(m)
		if m.Result == nil {
			return 0, fmt.Errorf("%s at %.0f/s: %s", system, rate, m.Failed)
		}
		held := comparable(m.Result) && m.Result.Unfinished == 0 && m.Result.Latency.P99 < int64(o.knee)
		if !held && m.Result.GeneratorLimited != "" {
			best, _ := k.Found()
			fmt.Fprintf(os.Stderr, "round %d  %s: at least %.0f/s; the generator was the limit: %s\n", round+1, system, best, m.Result.GeneratorLimited)
			return best, nil
		}
		k.Tell(held)
	}
}

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
