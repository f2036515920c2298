package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tailbound/tailbound/bench/cli"
	"github.com/tailbound/tailbound/bench/groups"
	"github.com/tailbound/tailbound/bench/record"
	"github.com/tailbound/tailbound/bench/trial"
)

// rebalancing is a group of which a member crashes, and whose others get its
// partitions: on each system in turn, in a process and a directory of its own for
// each round.
type rebalancing struct {
	cli.Options
	others    *others
	rounds    int
	protocols []string
	crash     groups.CrashOptions
	session   time.Duration
	heartbeat time.Duration
}

// A rebalanced is one system's groups of one protocol, by round.
type rebalanced struct {
	system   string
	promise  string
	protocol string
	began    []time.Time
	rounds   []*record.Run
}

// The two figures of a round, and the series that recordings have of them.
const (
	fromCrash  = "from the crash"
	fromExpiry = "from the session's end"
)

var rebalanceSeries = map[string]string{fromCrash: "rebalanced-from-crash", fromExpiry: "rebalanced-from-session-end"}

func rebalanceCommand(host *cli.Host, o *others) *cobra.Command {
	r := &rebalancing{others: o}
	var list string
	c := &cobra.Command{
		Use:   "rebalance",
		Short: "Measure how long a group is without the partitions of a member that crashed",
		Long: `Measure how long a group is without the partitions of a member that crashed. All
brokers have the same session and the same interval of heartbeats, and no delay
of an empty group. The others hear of the crash in their next heartbeat, so that
the interval of those is a part of what is measured.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			systems, err := host.Systems(list)
			if err != nil {
				return err
			}
			for _, s := range systems {
				if !s.ReadsBack || s.Kind.Start == nil {
					return fmt.Errorf("system %q has no groups, or is not ours to start", s.Name)
				}
			}
			if r.rounds < 1 || len(r.protocols) == 0 {
				return errors.New("there is at least one round, and one protocol")
			}
			return r.run(cmd, systems)
		},
	}
	r.Options.AddTo(c, host)
	f := c.Flags()
	f.IntVar(&r.rounds, "rounds", 3, "rounds")
	f.StringVar(&list, "systems", "tailbound,kafka-wide", "the first is compared with each other; of those that have groups")
	f.StringSliceVar(&r.protocols, "protocols", []string{"classic", "consumer"}, "of the group")
	f.IntVar(&r.crash.Members, "members", 50, "of the group")
	f.IntVar(&r.crash.Partitions, "partitions", 0, "of its topic; 0: four for each member")
	f.DurationVar(&r.session, "session", 6*time.Second, "of a member")
	f.DurationVar(&r.heartbeat, "heartbeat", 100*time.Millisecond, "between two of one member")
	return c
}

func (r *rebalancing) run(cmd *cobra.Command, systems []cli.System) error {
	e, err := r.Env(cmd, "rebalance", true)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r.crash.SessionNS, r.crash.HeartbeatNS = int64(r.session), int64(r.heartbeat)
	r.crash.Partitions = cmp.Or(r.crash.Partitions, 4*r.crash.Members)
	r.ServeArgs = strings.TrimSpace("--group-initial-rebalance-delay=0s --group-min-session-timeout=1ms " + r.ServeArgs)
	r.others.properties = []string{
		"group.initial.rebalance.delay.ms=0", "group.min.session.timeout.ms=1", "group.consumer.min.session.timeout.ms=1", "group.consumer.min.heartbeat.interval.ms=1",
	}
	for name, value := range r.configs() {
		r.others.properties = append(r.others.properties, name+"="+value)
	}
	all := make([]rebalanced, 0, len(systems)*len(r.protocols))
	for _, protocol := range r.protocols {
		for _, s := range systems {
			all = append(all, rebalanced{system: s.Name, promise: s.Promise, protocol: protocol})
		}
	}
	for round := range r.rounds {
		for _, i := range trial.Order(round, len(systems)) {
			var mine []*rebalanced
			for k := i; k < len(all); k += len(systems) {
				mine = append(mine, &all[k])
			}
			if err := r.one(ctx, systems[i], mine); err != nil {
				return fmt.Errorf("round %d, %s, %w", round+1, systems[i].Name, err)
			}
			for _, one := range mine {
				crash, _ := one.rounds[round].Figure(fromCrash)
				expiry, _ := one.rounds[round].Figure(fromExpiry)
				fmt.Fprintf(cmd.ErrOrStderr(), "round %d: %-16s %-8s %.0f ms after the crash, %.1f ms after the session's end\n", round+1, one.system, one.protocol, crash, expiry)
			}
		}
	}
	machine := record.Describe(r.ServeDir)
	for _, one := range all {
		if err := one.record(filepath.Join(e.Dir, cli.FileName(one.system), one.protocol), machine); err != nil {
			return err
		}
	}
	w := cmd.OutOrStdout()
	fmt.Fprintf(w, "a group of %d members, %d partitions; session %v, heartbeats every %v; %d rounds: median (least..greatest)\n", r.crash.Members, r.crash.Partitions, r.session, r.heartbeat, r.rounds)
	printRebalanced(w, len(systems), all)
	_, err = fmt.Fprintf(w, "\n%s\n", e.Dir)
	return err
}

// configs are what all brokers are told: Kafka as it starts, Tailbound when it
// runs.
func (r *rebalancing) configs() map[string]string {
	return map[string]string{
		"group.consumer.session.timeout.ms": fmt.Sprint(r.session.Milliseconds()), "group.consumer.heartbeat.interval.ms": fmt.Sprint(r.heartbeat.Milliseconds()),
	}
}

// one starts a system and has a member of a group of each protocol crash.
func (r *rebalancing) one(ctx context.Context, s cli.System, all []*rebalanced) error {
	running, err := r.Start(ctx, s, r.ServeDir, nil)
	if err != nil {
		return err
	}
	defer running.End()
	if s.Tailbound {
		if err := groups.Configure(running.Address, r.configs()); err != nil {
			return err
		}
	}
	for _, into := range all {
		if err := r.crashOn(ctx, running, into); err != nil {
			return fmt.Errorf("the %s protocol: %w", into.protocol, err)
		}
	}
	return nil
}

func (r *rebalancing) crashOn(ctx context.Context, running *cli.Running, into *rebalanced) error {
	options := r.crash
	options.Bootstrap, options.Protocol = running.Address, into.protocol
	text, err := json.Marshal(options)
	if err != nil {
		return err
	}
	command, err := child("child-rebalance", string(text))
	if err != nil {
		return err
	}
	into.began = append(into.began, time.Now())
	group, err := trial.Spawn(r.LoadCPUs, nil, command[0], command[1:]...)
	if err != nil {
		return err
	}
	defer group.Kill()
	if err := group.Await(ctx, r.session+4*time.Minute); err != nil {
		return err
	}
	var got groups.Rebalanced
	if err := json.Unmarshal(group.Stdout.Bytes(), &got); err != nil {
		return err
	}
	into.rounds = append(into.rounds, roundOf(got))
	return nil
}

// roundOf is one round's figures.
func roundOf(got groups.Rebalanced) *record.Run {
	return &record.Run{Figures: []record.Figure{
		{Name: fromCrash, Value: float64(got.FromCrashNS) / 1e6, Unit: "ms"}, {Name: fromExpiry, Value: float64(got.FromExpiryNS) / 1e6, Unit: "ms"},
	}}
}

// record leaves a recording in which a round is an interval.
func (r *rebalanced) record(dir string, machine record.Machine) error {
	run := &record.Run{Name: "rebalance, " + r.protocol, Started: r.began[0], Machine: machine, Promise: r.promise}
	var intervals []record.Interval
	for i, round := range r.rounds {
		start := r.began[i].Sub(r.began[0]).Nanoseconds()
		for _, f := range round.Figures {
			h := record.NewHistogram()
			h.Record(int64(f.Value * 1e6))
			end := start + int64(time.Second)
			intervals = append(intervals, record.Interval{Series: rebalanceSeries[f.Name], StartNS: start, EndNS: end, H: h.Pack()})
			run.Figures = append(run.Figures, record.Figure{Name: fmt.Sprintf("round %d %s", i+1, f.Name), Value: f.Value, Unit: f.Unit})
			run.Seconds = float64(end) / 1e9
		}
	}
	return record.Write(dir, run, intervals)
}

// printRebalanced prints a line for each system and protocol, and one for each ratio
// of the first system to another. all has so many systems for each protocol.
func printRebalanced(w io.Writer, systems int, all []rebalanced) {
	quantity := func(name string) trial.Quantity {
		return trial.Quantity{Name: name, Of: func(run *record.Run) (float64, bool) { return run.Figure(name) }}
	}
	for group := range slices.Chunk(all, systems) {
		for _, one := range group {
			fmt.Fprintf(w, "%-9s %-20s %s %s ms   %s %s ms\n", one.protocol, one.system, fromCrash, spread(one.rounds, fromCrash, "%.0f"), fromExpiry, spread(one.rounds, fromExpiry, "%.1f"))
		}
		for _, one := range group[1:] {
			fmt.Fprintf(w, "%-9s %s / %s:", one.protocol, group[0].system, one.system)
			for _, name := range []string{fromCrash, fromExpiry} {
				if ratios, ok := trial.FormRatios(quantity(name), group[0].rounds, one.rounds); ok {
					fmt.Fprintf(w, "  %s", ratios)
				}
			}
			fmt.Fprintln(w)
		}
	}
}

// spread is the median of a figure, and the least and the greatest.
func spread(rounds []*record.Run, name, format string) string {
	var all []float64
	for _, run := range rounds {
		if v, ok := run.Figure(name); ok {
			all = append(all, v)
		}
	}
	return fmt.Sprintf(strings.ReplaceAll("F (F..F)", "F", format), record.Median(all), slices.Min(all), slices.Max(all))
}
