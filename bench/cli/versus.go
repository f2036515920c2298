package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/bench/disturb"
	"github.com/tailbound/tailbound/bench/load"
	"github.com/tailbound/tailbound/bench/record"
	"github.com/tailbound/tailbound/bench/trial"
)

// versus measures several systems under several loads, in rounds:
//
//	for each round: for each phase: for each system, in the order of the round:
//		start(); await ready(); load(); end(); remove()
//
// Phases that saturate have their rounds after all others: for half a minute after
// gigabytes were written the host takes time from the machine (November 2026: p99 of
// the next small phase 25 ms instead of 1).
type versus struct {
	Options
	plan       trial.Plan // what all phases have in common
	rounds     int
	systems    string
	rates      string
	smallRates string
	small      bool
	consumer   bool
	steady     bool
	disturb    string
	knee       time.Duration
	into       string
	touchMiB   int
	settle     time.Duration
}

// A phase is one load that every system gets in turn.
type phase struct {
	trial.Plan
	disturbed string // what is beside the system: "", one of disturb.Kinds, hog
	quiet     string // the name of the phase without that
}

// What -small and a steady phase are.
const (
	smallPartitions = 64
	smallBytes      = 100
	smallInflight   = 1024
	smallSaturating = 256 // in flight, of a closed loop
	largeSaturating = 16
	steadyKeep      = 128 << 20
	steadyFill      = 4 * time.Second
)

func versusCommand(host *Host) *cobra.Command {
	v := &versus{plan: trial.Default()}
	v.plan.Duration, v.plan.Warmup = 6*time.Second, 2*time.Second
	c := &cobra.Command{
		Use:   "versus",
		Short: "Measure systems in turn, in rounds, with the ratios of the first to each other",
		Long: `Measure several systems under the same loads, in turn: in each round every system
meets every load, each time in a fresh process with a fresh directory, and the
order turns from round to round. Ratios are formed inside a round, between
measurements that were minutes or less apart; what is printed is their median
and, in brackets, the least and the greatest. A round counts only where both
carried the rate.

Systems are ` + host.Names() + `.
tailbound@BINARY is another build, tailbound:ARGUMENTS one with more arguments of
serve, separated by spaces. A system that is named twice is a control: what the
two differ by is chance, and no smaller difference is one.

The recordings lie in DIRECTORY/SYSTEM/PHASE/round-N, so that
` + "`bench compare DIRECTORY/A DIRECTORY/B`" + ` puts two systems side by side.`,
		Example: `  tailbound bench versus --systems tailbound@/tmp/before,tailbound,tailbound@/tmp/before --small --rounds 5
  tailbound bench versus --systems tailbound,tailbound:--spin=0s --rates 50,sat --seconds 3
  tailbound bench versus --systems tailbound,broker@kafka:9092 --rates 50 --consumer
  tailbound bench versus --systems tailbound --knee 2ms --rates 20
  tailbound bench versus --serve-args '--partitions-max 10000' --partitions 10000 --records 1 --rate 40000 --warmup 20s`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("rate") || cmd.Flags().Changed("saturate") {
				if !cmd.Flags().Changed("rates") {
					v.rates = ""
				}
			} else {
				v.plan.Rate = 0
			}
			return v.run(cmd)
		},
	}
	v.AddTo(c, host)
	f := c.Flags()
	planFlags(f, &v.plan)
	f.Lookup("rate").Usage += "; instead of --rates, or besides"
	f.Lookup("rate").DefValue = "0"
	f.Lookup("partitions").Usage = fmt.Sprintf("of the topic (--small: %d)", smallPartitions)
	f.IntVar(&v.rounds, "rounds", 3, "rounds; every system meets every load once in each")
	f.StringVar(&v.systems, "systems", defaultSystems(host), "what is measured, separated by commas; the first is compared with each other")
	f.StringVar(&v.rates, "rates", "50,200,400,sat", "MB/s of batches; sat: closed loop; empty: none")
	f.Var((*seconds)(&v.plan.Duration), "seconds", "as --duration")
	f.BoolVar(&v.small, "small", false, fmt.Sprintf("also one record of %d B a request, over %d partitions", smallBytes, smallPartitions))
	f.StringVar(&v.smallRates, "small-rates", "5000,20000,50000,sat", "requests/s of --small")
	f.BoolVar(&v.consumer, "consumer", false, "also each rate with a reader at the tail: end to end, where a system can be read back")
	f.BoolVar(&v.steady, "steady", false, "topics keep 128 MiB a partition in segments of 64, and each phase begins behind 4 s of closed loop: a broker that has been at it for a while, where logs take the files that others let go")
	f.StringVar(&v.disturb, "disturb", "", "each rate again beside these: alloc, a goroutine in the process that allocates; heap, a large live heap in it; hog, a process that takes the other core. Processes have all cores then, and the broker pins its shards. Wants a broker that was built with -tags disturb")
	f.DurationVar(&v.knee, "knee", 0, "instead of rates: the highest one with p99 below this, of each system in each round; begins at the first of --rates")
	f.StringVar(&v.into, "into", "", "a page in which the table goes between <!-- measured --> and <!-- /measured -->")
	f.IntVar(&v.touchMiB, "touch", 12288, "MiB of memory to touch, at most, before each phase, so that the host has backed it; 0: none")
	f.DurationVar(&v.settle, "settle", 2*time.Second, "rest after a saturation phase")
	return c
}

// defaultSystems are all that are meant to be in every comparison.
func defaultSystems(host *Host) string {
	names := []string{"tailbound"}
	for i := range host.Kinds {
		if host.Kinds[i].Always {
			names = append(names, host.Kinds[i].Name)
		}
	}
	return strings.Join(names, ",")
}

// check says what is wrong with the flags, and gives what they ask for.
func (v *versus) check() (systems []System, phases []phase, err error) {
	for _, kind := range strings.Split(v.disturb, ",") {
		if kind != "" && kind != "hog" && !slices.Contains(disturb.Kinds, kind) {
			return nil, nil, fmt.Errorf("--disturb %s: there are hog, %s", kind, strings.Join(disturb.Kinds, ", "))
		}
	}
	if v.rounds < 1 {
		return nil, nil, errors.New("there is at least one round")
	}
	if systems, err = v.host.Systems(v.systems); err != nil {
		return nil, nil, err
	}
	for _, s := range systems {
		if s.Tailbound {
			if _, err := v.binary(s); err != nil {
				return nil, nil, err
			}
		}
	}
	if phases, err = v.phases(); err != nil {
		return nil, nil, err
	}
	if v.knee > 0 && phases[0].Saturate {
		return nil, nil, errors.New("a knee begins at a rate")
	}
	return systems, phases, nil
}

// phases turns the flags into loads.
func (v *versus) phases() (all []phase, err error) {
	base := v.plan
	if v.steady {
		base.Keep, base.Fill = steadyKeep, steadyFill
	}
	add := func(p trial.Plan) error {
		if err := p.Check(); err != nil {
			return err
		}
		all = append(all, phase{Plan: p, quiet: p.Name})
		for _, kind := range strings.Split(v.disturb, ",") {
			if kind != "" {
				beside := phase{Plan: p, disturbed: kind, quiet: p.Name}
				beside.Name += " beside " + kind
				all = append(all, beside)
			}
		}
		if v.consumer && !p.Saturate {
			p.Name += ", read at the tail"
			p.Readers = append(slices.Clone(p.Readers), trial.Reader{Name: load.EndToEnd, Count: 1})
			all = append(all, phase{Plan: p, quiet: p.Name})
		}
		return nil
	}
	each := func(rates, unit string, perUnit float64, p trial.Plan, saturating int) error {
		for _, rate := range strings.Split(rates, ",") {
			p := p
			switch rate {
			case "":
				continue
			case "sat":
				p.Name, p.Saturate, p.Rate, p.Inflight = "saturation"+unit, true, 0, saturating
			default:
				number, err := strconv.ParseFloat(rate, 64)
				if err != nil || number <= 0 {
					return fmt.Errorf("rate %q: it is a number above 0, or sat", rate)
				}
				p.Name, p.Saturate, p.Rate = rate+unit, false, number*perUnit
			}
			if err := add(p); err != nil {
				return err
			}
		}
		return nil
	}
	if base.Rate > 0 || base.Saturate {
		one := base
		if one.Name = fmt.Sprintf("%.0f requests/s", one.Rate); one.Saturate {
			one.Name = "saturation"
		}
		if err := add(one); err != nil {
			return nil, err
		}
	}
	if base.Records < 1 || base.RecordBytes < 1 {
		return nil, errors.New("there is at least one record in a batch, and one byte in a record")
	}
	if err := each(v.rates, " MB/s", 1e6/float64(base.Records*base.RecordBytes), base, min(base.Inflight, largeSaturating)); err != nil {
		return nil, err
	}
	if v.small {
		small := base
		small.Partitions, small.Records, small.RecordBytes, small.Inflight = smallPartitions, 1, smallBytes, smallInflight
		if err := each(v.smallRates, " small/s", 1, small, smallSaturating); err != nil {
			return nil, err
		}
	}
	if len(all) == 0 {
		return nil, errors.New("nothing to measure")
	}
	return all, nil
}

func (v *versus) run(cmd *cobra.Command) error {
	systems, phases, err := v.check()
	if err != nil {
		return err
	}
	v.unpinned = v.disturb != ""
	e, err := v.Env(cmd, "versus", true)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(v.ServerCPUs, func(cpu int) bool { return slices.Contains(v.LoadCPUs, cpu) }) {
		return errors.New("system and generator on one core measure each other")
	}
	ctx, stop := interruptible(cmd)
	defer stop()
	scratch, err := os.MkdirTemp(v.ServeDir, "versus-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	m := &measuring{versus: v, cmd: cmd, env: e, scratch: scratch}
	t := &table{Recording: e.Dir, Machine: record.Describe(scratch), systems: systems, phases: phases}
	out := cmd.OutOrStdout()
	if v.output == "table" {
		t.header(out)
	}
	if v.knee > 0 {
		err = m.knees(ctx, t, phases[0])
	} else if err = m.rounds(ctx, t, func(p *phase) bool { return !p.Saturate }); err == nil {
		err = m.rounds(ctx, t, func(p *phase) bool { return p.Saturate })
	}
	if ctx.Err() != nil {
		return errors.New("interrupted; what was recorded is in " + e.Dir)
	}
	if err != nil {
		return err
	}
	t.form()
	if v.output != "table" {
		err = printValue(out, v.output, t)
	} else {
		t.print(out)
		_, err = fmt.Fprintf(out, "\n%s\n", e.Dir)
	}
	if err == nil && v.into != "" {
		var text bytes.Buffer
		t.header(&text)
		t.print(&text)
		err = putInto(v.into, text.String())
	}
	switch {
	case err != nil:
		return err
	case t.failed():
		return errors.New("not every phase was measured")
	case t.broken():
		return v.host.NotHeld
	}
	return nil
}

// measuring is a versus at work.
type measuring struct {
	*versus
	cmd     *cobra.Command
	env     trial.Env
	scratch string
}

// rounds measures every system in every phase that is wanted, round after round.
func (m *measuring) rounds(ctx context.Context, t *table, wanted func(*phase) bool) error {
	for round := range m.versus.rounds {
		for i := range t.phases {
			p := &t.phases[i]
			if !wanted(p) {
				continue
			}
			for _, k := range trial.Order(round, len(t.systems)) {
				s := t.systems[k]
				if len(p.Readers) > 0 && !s.ReadsBack {
					continue
				}
				run, err := m.one(ctx, s, p.Plan, p.disturbed, FileName(s.Name), FileName(p.Name), fmt.Sprintf("round-%d", round+1))
				if ctx.Err() != nil {
					return ctx.Err()
				}
				m.progress(round, p.Name, s.Name, run, err)
				t.add(round, i, k, run, err)
			}
		}
	}
	return nil
}

// progress says what one measurement gave, in a line.
func (m *measuring) progress(round int, phase, system string, run *record.Run, err error) {
	if m.env.Live == nil {
		return
	}
	text := ""
	if err != nil {
		text = "failed: " + err.Error()
	} else {
		s := run.Series[load.Produce]
		mb, _ := run.Figure("MB/s")
		text = fmt.Sprintf("p50 %s p99 %s, %.0f MB/s", trial.Short(s.P50), trial.Short(s.P99), mb)
		if i := slices.IndexFunc(run.Notes, func(n string) bool { return strings.HasPrefix(n, trial.GeneratorLimit) }); i >= 0 {
			text += "  " + brief(run.Notes[i])
		}
	}
	fmt.Fprintf(m.env.Live, "round %d  %-28s %-13s %s\n", round+1, phase, system, text)
}

// one measures one system under one load: start; await ready; load; end; remove.
func (m *measuring) one(ctx context.Context, s System, p trial.Plan, disturbed string, names ...string) (*record.Run, error) {
	defer m.rest(ctx, p.Saturate)
	var env []string
	switch disturbed {
	case "":
	case "hog":
		end, err := m.startHog()
		if err != nil {
			return nil, err
		}
		defer end()
	default:
		env = []string{disturb.Variable + "=" + disturbed}
	}
	if err := m.touch(ctx, &p); err != nil {
		return nil, fmt.Errorf("touching memory: %w", err)
	}
	r, err := m.Start(ctx, s, m.scratch, env)
	if err != nil {
		return nil, err
	}
	defer r.End()
	p.Warmup = max(p.Warmup, s.Warmup)
	if r.Server != nil {
		p.Topic = cmp.Or(p.Topic, trial.NewTopic()) // it goes with the directory
	}
	e := m.env.Below(names...)
	if !e.Terminal {
		e.Live = nil // a line for each interval is for a terminal
	}
	return trial.Run(ctx, p, r.System, e)
}

// rest lets the machine come to rest before the next measurement.
func (m *measuring) rest(ctx context.Context, saturated bool) {
	unix.Sync() // what was removed must not be trimmed in the next one's time
	pause := 500 * time.Millisecond
	if saturated {
		pause = m.settle
	}
	select {
	case <-time.After(pause):
	case <-ctx.Done():
	}
}

// knees searches each system's knee, round after round.
func (m *measuring) knees(ctx context.Context, t *table, p phase) error {
	within := []string{fmt.Sprintf("%s p99 < %v", load.Produce, m.knee)}
	for round := range m.versus.rounds {
		for _, k := range trial.Order(round, len(t.systems)) {
			s := t.systems[k]
			found, err := trial.FindKnee(p.Plan, within, 0.05, nil, func(one trial.Plan, name string) (*record.Run, error) {
				run, err := m.one(ctx, s, one, "", FileName(s.Name), fmt.Sprintf("round-%d", round+1), name)
				m.progress(round, one.Name, s.Name, run, err)
				return run, err
			})
			if err != nil {
				return fmt.Errorf("%s: %w", s.Name, err)
			}
			t.Knees = append(t.Knees, kneeFound{System: s.Name, Round: round + 1, Found: found})
		}
	}
	return nil
}

// FileName is a name as a part of a path.
func FileName(name string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune("/ \t#,'\"", r) || r == filepath.Separator {
			return '-'
		}
		return r
	}, strings.ReplaceAll(name, ", ", "-"))
}
