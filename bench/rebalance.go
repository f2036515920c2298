package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/tailbound/tailbound/bench/groups"
	"github.com/tailbound/tailbound/bench/record"
	"github.com/tailbound/tailbound/bench/trial"
)

// rebalanced is one system's group of one protocol in one round.
type rebalanced struct {
	round            int
	system, protocol string
	groups.Rebalanced
}

// rebalance is bench rebalance: a member of a group crashes, and the others get
// its partitions; each system in turn, in a process and a directory of its own
// for each round, the order turning from round to round.
func rebalance(args []string) error {
	o := options{serverCPU: 0, loadCPU: 1, serverProc: 4}
	f := flag.NewFlagSet("bench rebalance", flag.ContinueOnError)
	f.IntVar(&o.rounds, "rounds", 3, "rounds")
	f.StringVar(&o.systems, "systems", "tailbound,kafka-wide", "the first is compared with each other: tailbound, kafka, kafka-flush, kafka-wide, kafka-flush-wide")
	f.StringVar(&o.binary, "binary", "bin/tailbound", "the broker")
	f.StringVar(&o.peers, "peers", "bin/peers", "what starts Kafka (make bin/peers)")
	f.StringVar(&o.dir, "dir", "tmp", "where data directories are made, and removed; a real disk")
	f.IntVar(&o.serverCPU, "server-cpu", 0, "core of the system")
	f.IntVar(&o.loadCPU, "load-cpu", 1, "core of the members")
	protocols := f.String("protocols", "classic,consumer", "of the group")
	members := f.Int("members", 50, "of the group")
	partitions := f.Int("partitions", 0, "of its topic; 0: four for each member")
	session := f.Duration("session", 6*time.Second, "of a member")
	heartbeat := f.Duration("heartbeat", 100*time.Millisecond, "between two of one member: the others hear of the crash in their next one, so that it is a part of what is measured")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	systems := strings.Split(o.systems, ",")
	for _, name := range systems {
		if err := valid(name); err != nil {
			return err
		}
		if !readsBack(name) || strings.HasPrefix(name, "broker@") {
			return fmt.Errorf("system %q has no groups, or is not ours to start", name)
		}
	}
	c := groups.CrashOptions{Members: *members, Partitions: cmp.Or(*partitions, 4**members), SessionNS: int64(*session), HeartbeatNS: int64(*heartbeat)}
	// Kafka is told as it starts, Tailbound when it runs.
	configs := map[string]string{
		"group.consumer.session.timeout.ms": fmt.Sprint(session.Milliseconds()), "group.consumer.heartbeat.interval.ms": fmt.Sprint(heartbeat.Milliseconds()),
	}
	o.properties = []string{
		"group.initial.rebalance.delay.ms=0", "group.min.session.timeout.ms=1", "group.consumer.min.session.timeout.ms=1", "group.consumer.min.heartbeat.interval.ms=1",
	}
	for name, value := range configs {
		o.properties = append(o.properties, name+"="+value)
	}
	o.serveArgs = "--group-initial-rebalance-delay=0s --group-min-session-timeout=1ms"
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return err
	}
	var all []rebalanced
	for round := range o.rounds {
		for i := range systems {
			name := systems[(i+round)%len(systems)]
			got, err := o.crashOn(ctx, name, strings.Split(*protocols, ","), c, configs)
			if err != nil {
				return fmt.Errorf("round %d, %s: %w", round+1, name, err)
			}
			for _, r := range got {
				r.round = round
				fmt.Fprintf(os.Stderr, "round %d: %-16s %-8s %s after the crash, %s after the session's end\n", round+1, r.system, r.protocol, ms(r.FromCrashNS), ms(r.FromExpiryNS))
				all = append(all, r)
			}
		}
	}
	fmt.Printf("a group of %d members, %d partitions; session %v, heartbeats every %v; %d rounds: median (least to greatest)\n", c.Members, c.Partitions, *session, *heartbeat, o.rounds)
	rebalanceTable(os.Stdout, systems, strings.Split(*protocols, ","), all)
	return nil
}

// crashOn starts a system and has a member of a group of each protocol crash.
func (o *options) crashOn(ctx context.Context, name string, protocols []string, c groups.CrashOptions, configs map[string]string) (got []rebalanced, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(o.dir, "rebalance-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	port, err := trial.FreePorts(2)
	if err != nil {
		return nil, err
	}
	c.Bootstrap = fmt.Sprintf("127.0.0.1:%d", port)
	server, err := o.start(name, c.Bootstrap, filepath.Join(dir, "data"))
	if err != nil {
		return nil, err
	}
	defer server.Stop()
	if err := awaitReady(ctx, server, name, c.Bootstrap); err != nil {
		return nil, err
	}
	if isBroker(name) {
		if err := groups.Configure(c.Bootstrap, configs); err != nil {
			return nil, err
		}
	}
	for _, protocol := range protocols {
		c.Protocol = protocol
		encoded, err := json.Marshal(c)
		if err != nil {
			return nil, err
		}
		crowd, err := trial.Spawn([]int{o.loadCPU}, nil, self, "child-rebalance", string(encoded))
		if err != nil {
			return nil, err
		}
		err = crowd.Await(ctx, time.Duration(c.SessionNS)+4*time.Minute)
		r := rebalanced{system: name, protocol: protocol}
		if err == nil {
			err = json.Unmarshal(crowd.Stdout.Bytes(), &r.Rebalanced)
		}
		if err != nil {
			crowd.Kill()
			return nil, fmt.Errorf("the %s protocol: %w", protocol, err)
		}
		got = append(got, r)
	}
	return got, nil
}

func childRebalance(options string) error {
	var c groups.CrashOptions
	if err := json.Unmarshal([]byte(options), &c); err != nil {
		return err
	}
	r, err := groups.Crash(c)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// rebalanceTable has a line for each system and protocol, and one for each ratio
// of the first system to another, formed inside the rounds.
func rebalanceTable(w io.Writer, systems, protocols []string, all []rebalanced) {
	crash := func(r rebalanced) float64 { return float64(r.FromCrashNS) / 1e6 }
	expiry := func(r rebalanced) float64 { return float64(r.FromExpiryNS) / 1e6 }
	for _, protocol := range protocols {
		// The rounds are in order, so that two systems' have the same places.
		of := func(system string, what func(rebalanced) float64) (v []float64) {
			for _, r := range all {
				if r.system == system && r.protocol == protocol {
					v = append(v, what(r))
				}
			}
			return v
		}
		for _, name := range systems {
			fmt.Fprintf(w, "%-9s %-20s from the crash %s ms   from the session's end %s ms\n", protocol, name, spread(of(name, crash), "%.0f"), spread(of(name, expiry), "%.1f"))
		}
		for _, name := range systems[1:] {
			line := fmt.Sprintf("%-9s %s / %s:", protocol, systems[0], name)
			for _, q := range []struct {
				what string
				of   func(rebalanced) float64
			}{{"from the crash", crash}, {"from the session's end", expiry}} {
				ours, theirs := of(systems[0], q.of), of(name, q.of)
				ratios := make([]float64, 0, len(ours))
				for i := range min(len(ours), len(theirs)) {
					ratios = append(ratios, ours[i]/theirs[i])
				}
				line += fmt.Sprintf("  %s %s", q.what, spread(ratios, "%.2f"))
			}
			fmt.Fprintln(w, line)
		}
	}
}

// spread is the median, and the least and the greatest.
func spread(v []float64, format string) string {
	if len(v) == 0 {
		return "-"
	}
	return fmt.Sprintf(strings.ReplaceAll("F (F to F)", "F", format), record.Median(v), slices.Min(v), slices.Max(v))
}
