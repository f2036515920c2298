package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tailbound/tailbound/bench/cli"
	"github.com/tailbound/tailbound/bench/load"
	"github.com/tailbound/tailbound/bench/record"
	"github.com/tailbound/tailbound/bench/trial"
)

// starting is a broker with many partitions that is killed under load and started again, then
// stopped and started again: each number of partitions in a process and a directory of its
// own for each round.
type starting struct {
	cli.Options
	rounds      int
	partitions  []int
	shards      int
	batches     int // of each partition, before the kill
	records     int // of a batch
	recordBytes int
	rate        float64
}

// A started is what was measured with one number of partitions, by round.
type started struct {
	partitions int
	promised   float64 // MiB
	began      []time.Time
	rounds     []*record.Run
}

// The figures of a round.
const (
	readyAfterKill = "ready after kill -9"
	readyAfterStop = "ready after a clean stop"
	peakAfterKill  = "peak memory after kill -9"
	peakAfterStop  = "peak memory after a clean stop"
	collections    = "collections of garbage after kill -9"
	startRatio     = "ready after kill -9 / after a clean stop"
	peakRatio      = "peak memory after kill -9 / what --print-memory says"
)

func startsCommand(host *cli.Host) *cobra.Command {
	s := &starting{}
	c := &cobra.Command{
		Use:   "starts",
		Short: "Measure a start after kill -9 with many partitions beside one after a clean stop",
		Long: `Measure a start after kill -9 with many partitions beside one after a clean stop.
All partitions are written to, the broker is killed, started, stopped and started.
A start ends with the first answer. Its ratio to the one after the clean stop is
formed inside the round; the peak of resident memory (VmHWM) is held against what
the broker says with --print-memory.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if s.rounds < 1 || len(s.partitions) == 0 || s.batches < 1 || s.shards < 1 {
				return errors.New("there is at least one round, one number of partitions, one batch and one shard")
			}
			return s.run(cmd)
		},
	}
	s.Options.AddTo(c, host)
	f := c.Flags()
	f.IntVar(&s.rounds, "rounds", 3, "rounds")
	f.IntSliceVar(&s.partitions, "partitions", []int{100, 1000, 4000, 10000}, "of one topic; each is measured by itself")
	f.IntVar(&s.shards, "shards", 1, "data shards; they are not pinned")
	f.IntVar(&s.batches, "batches", 4, "of each partition before the kill")
	f.IntVar(&s.records, "records", 10, "of a batch")
	f.IntVar(&s.recordBytes, "record-bytes", 100, "bytes of a record's value")
	f.Float64Var(&s.rate, "rate", 5000, "batches a second")
	return c
}

func (s *starting) run(cmd *cobra.Command) error {
	e, err := s.Env(cmd, "starts", true)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	all := make([]started, len(s.partitions))
	for i, n := range s.partitions {
		all[i].partitions = n
		if all[i].promised, err = s.promised(ctx, n); err != nil {
			return err
		}
	}
	for round := range s.rounds {
		for _, i := range trial.Order(round, len(all)) {
			one := &all[i]
			if err := s.one(ctx, one); err != nil {
				return fmt.Errorf("round %d, %d partitions: %w", round+1, one.partitions, err)
			}
			run := one.rounds[round]
			figure := func(name string) float64 { v, _ := run.Figure(name); return v }
			fmt.Fprintf(cmd.ErrOrStderr(), "round %d: %6d partitions: ready after %.2f s, clean %.2f s; peak %.0f MiB, clean %.0f MiB, promised %.0f MiB; %.0f collections\n",
				round+1, one.partitions, figure(readyAfterKill), figure(readyAfterStop), figure(peakAfterKill), figure(peakAfterStop), one.promised, figure(collections))
		}
	}
	machine := record.Describe(s.ServeDir)
	for i := range all {
		if err := all[i].record(filepath.Join(e.Dir, strconv.Itoa(all[i].partitions)), machine); err != nil {
			return err
		}
	}
	w := cmd.OutOrStdout()
	fmt.Fprintf(w, "%d data shards; %d batches of %d x %d B to each partition, then kill -9; %d rounds: median (least..greatest)\n", s.shards, s.batches, s.records, s.recordBytes, s.rounds)
	printStarted(w, all)
	_, err = fmt.Fprintf(w, "\n%s\n", e.Dir)
	return err
}

// serveArgs are those of serve besides the data directory and the address.
func (s *starting) serveArgs(partitions int) []string {
	return append([]string{"--shards", strconv.Itoa(s.shards), "--partitions-max", strconv.Itoa(partitions), "--metrics-listen="}, strings.Fields(s.ServeArgs)...)
}

// promised is how much memory the broker says that it takes at most, in MiB.
func (s *starting) promised(ctx context.Context, partitions int) (float64, error) {
	words := append([]string{s.Binary, "serve", "--print-memory"}, s.serveArgs(partitions)...)
	p, err := trial.Spawn(nil, nil, words[0], words[1:]...)
	if err != nil {
		return 0, err
	}
	if err := p.Await(ctx, time.Minute); err != nil {
		return 0, err
	}
	return promiseIn(p.Stdout.String())
}

// promiseOf finds what --print-memory says of a start, in bytes.
var promiseOf = regexp.MustCompile(`(?m)^ *resident while it starts, at most +.* (\d+) *$`)

// promiseIn is the most memory that a start takes by the output of --print-memory, in MiB.
func promiseIn(text string) (mib float64, err error) {
	found := promiseOf.FindStringSubmatch(text)
	if found == nil {
		return 0, fmt.Errorf("--print-memory has no sum of a start:\n%s", text)
	}
	n, err := strconv.ParseFloat(found[1], 64)
	return n / (1 << 20), err
}

// one is one round.
func (s *starting) one(ctx context.Context, into *started) (err error) {
	parent, err := os.MkdirTemp(s.ServeDir, "starts-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(parent)) }()
	port, err := trial.FreePorts(1 + s.shards)
	if err != nil {
		return err
	}
	address, run := fmt.Sprintf("127.0.0.1:%d", port), &record.Run{}
	into.began, into.rounds = append(into.began, time.Now()), append(into.rounds, run)
	words := append([]string{s.Binary, "serve", "--data-dir", filepath.Join(parent, "data"), "--listen", address}, s.serveArgs(into.partitions)...)
	life := func(ready, peak string, during func() error) (*trial.Process, error) {
		began := time.Now()
		p, err := trial.Spawn(nil, []string{"GODEBUG=gctrace=1"}, words[0], words[1:]...)
		if err != nil {
			return nil, err
		}
		if err := trial.AwaitReady(ctx, address, nil, p); err != nil {
			p.Kill()
			return nil, err
		}
		if ready != "" {
			run.Figures = append(run.Figures, record.Figure{Name: ready, Value: time.Since(began).Seconds(), Unit: "s"},
				record.Figure{Name: peak, Value: trial.MemoryMiB(p.PID(), "VmHWM:"), Unit: "MiB"})
		}
		if err := during(); err != nil {
			p.Kill()
			return nil, err
		}
		return p, nil
	}
	nothing := func() error { return nil }
	p, err := life("", "", func() error { return s.fill(ctx, address, into.partitions) })
	if err != nil {
		return err
	}
	p.Kill()
	if p, err = life(readyAfterKill, peakAfterKill, nothing); err != nil {
		return err
	}
	p.Stop()
	if n, ok := collectionsIn(p.LastWords()); ok {
		run.Figures = append(run.Figures, record.Figure{Name: collections, Value: n})
	}
	if p, err = life(readyAfterStop, peakAfterStop, nothing); err != nil {
		return err
	}
	p.Stop()
	for _, ratio := range []struct {
		name string
		a, b float64
	}{{startRatio, value(run, readyAfterKill), value(run, readyAfterStop)}, {peakRatio, value(run, peakAfterKill), into.promised}} {
		run.Figures = append(run.Figures, record.Figure{Name: ratio.name, Value: ratio.a / ratio.b, Ratio: true})
	}
	return nil
}

func value(run *record.Run, name string) float64 {
	v, _ := run.Figure(name)
	return v
}

// collectionsIn is the number of the last collection that Go's tracer spoke of.
func collectionsIn(stderr string) (n float64, ok bool) {
	all := regexp.MustCompile(`(?m)^gc ([0-9]+) @`).FindAllStringSubmatch(stderr, -1)
	if len(all) == 0 {
		return 0, false
	}
	n, err := strconv.ParseFloat(all[len(all)-1][1], 64)
	return n, err == nil
}

// fill makes the topic and writes to all of its partitions.
func (s *starting) fill(ctx context.Context, address string, partitions int) error {
	seconds := float64(partitions*s.batches) / s.rate
	text, err := json.Marshal(load.Options{
		Bootstrap: address, Topic: "starts", Partitions: partitions, Connections: 4, Inflight: 64, Rate: s.rate,
		Records: s.records, RecordBytes: s.recordBytes, WindowNS: int64(seconds * 1e9), DrainNS: 60e9,
	})
	if err != nil {
		return err
	}
	command, err := child("child-fill", string(text))
	if err != nil {
		return err
	}
	p, err := trial.Spawn(nil, nil, command[0], command[1:]...)
	if err != nil {
		return err
	}
	defer p.Kill()
	return p.Await(ctx, time.Duration(seconds*float64(time.Second))+5*time.Minute)
}

// fillTopic is what child-fill does.
func fillTopic(options string) error {
	var o load.Options
	if err := json.Unmarshal([]byte(options), &o); err != nil {
		return err
	}
	r, err := load.Run(o, load.Hooks{})
	if err == nil && (len(r.Errors) > 0 || r.Unfinished > 0) {
		err = fmt.Errorf("not everything was acknowledged: %v, %d without an answer", r.Errors, r.Unfinished)
	}
	return err
}

// record leaves a recording in which a round is an interval.
func (s *started) record(dir string, machine record.Machine) error {
	run := &record.Run{Name: fmt.Sprintf("starts, %d partitions", s.partitions), Started: s.began[0], Machine: machine}
	var intervals []record.Interval
	for i, round := range s.rounds {
		start := s.began[i].Sub(s.began[0]).Nanoseconds()
		end := start + int64(time.Second)
		for _, name := range []string{readyAfterKill, readyAfterStop} {
			h := record.NewHistogram()
			h.Record(int64(value(round, name) * 1e9))
			intervals = append(intervals, record.Interval{Series: strings.ReplaceAll(name, " ", "-"), StartNS: start, EndNS: end, H: h.Pack()})
		}
		for _, f := range round.Figures {
			run.Figures = append(run.Figures, record.Figure{Name: fmt.Sprintf("round %d %s", i+1, f.Name), Value: f.Value, Unit: f.Unit})
		}
		run.Seconds = float64(end) / 1e9
	}
	return record.Write(dir, run, intervals)
}

// printStarted prints a line for each number of partitions.
func printStarted(w io.Writer, all []started) {
	for i := range all {
		one := &all[i]
		fmt.Fprintf(w, "%6d partitions: %s %s   %s %s of %.0f MiB\n", one.partitions, startRatio, spread(one.rounds, startRatio, "%.2f"), peakRatio, spread(one.rounds, peakRatio, "%.2f"), one.promised)
	}
}
