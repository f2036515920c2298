package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/bench/disturb"
	"github.com/tailbound/tailbound/bench/groups"
	"github.com/tailbound/tailbound/bench/load"
	"github.com/tailbound/tailbound/bench/plain"
	"github.com/tailbound/tailbound/bench/record"
	"github.com/tailbound/tailbound/bench/rings"
	"github.com/tailbound/tailbound/bench/trial"
)

// Children are told to die with the thread that made them (PR_SET_PDEATHSIG):
// it has to be the main one, which lives as long as the process. Only init
// locks that one for certain.
func init() { runtime.LockOSThread() }

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run is the orchestrator, or, started by it, one of its children.
func run(args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "child-load":
			return childLoad(args[1])
		case "child-groups":
			return childGroups(args[1], args[2])
		case "child-rebalance":
			return childRebalance(args[1])
		case "rebalance":
			return rebalance(args[1:])
		case "blocks":
			return blocks(args[1:])
		case "child-touch":
			return childTouch(args[1])
		case "child-hog":
			hog()
		case "child-probe":
			return rings.Serve(args[1], args[2], args[3] == "probe-new")
		case "child-plain":
			if err := disturb.Start(); err != nil {
				return err
			}
			return plain.Serve(plain.Options{Listen: args[1], DataDir: args[2], Sync: args[3] == "sync"})
		}
	}
	return orchestrate(args)
}

func childLoad(options string) error {
	var o load.Options
	if err := json.Unmarshal([]byte(options), &o); err != nil {
		return err
	}
	r, err := load.Run(o, load.Hooks{})
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// childTouch takes memory, writes to all of it and ends. A virtual machine's
// first touch of a page costs a fault in the host (two thirds of the
// plain server's time at saturation, half of its throughput, in November 2026), and a machine that reports free pages
// gives them back when they lie idle. Without this a system that writes through
// the page cache would be measured paying the host, one that takes its memory
// at start would not.
func childTouch(mib string) error {
	n, err := strconv.Atoi(mib)
	if err != nil {
		return err
	}
	b, err := unix.Mmap(-1, 0, n<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	_ = unix.Madvise(b, unix.MADV_HUGEPAGE) // only to be quicker
	return unix.Madvise(b, unix.MADV_POPULATE_WRITE)
}

// touch has as much memory backed as the phase may write through the page
// cache, and 512 MiB for the rest.
func (o *options) touch(ctx context.Context, self string, l load.Options) error {
	perSecond := l.Rate * float64(l.Records*(l.RecordBytes+100))
	if l.Rate == 0 {
		perSecond = 1.5e9 // more than the yardsticks were seen to do
	}
	n := min(o.touchMiB, 512+int(perSecond*float64(l.WarmupNS+l.WindowNS)/1e9)>>20)
	if n = min(n, availableMiB()-2048); n <= 0 {
		return nil
	}
	t, err := trial.Spawn([]int{o.loadCPU}, nil, self, "child-touch", strconv.Itoa(n))
	if err != nil {
		return err
	}
	defer t.Kill()
	return t.Await(ctx, time.Minute)
}

type options struct {
	rounds     int
	seconds    float64
	warmup     float64
	rates      string
	smallRates string
	systems    string
	partitions int
	records    int
	bytes      int
	small      bool
	consumer   bool
	steady     bool
	binary     string
	peers      string
	properties []string // more of Kafka's, NAME=VALUE
	serveArgs  string
	dir        string
	results    string
	into       string
	disturb    string
	knee       time.Duration
	serverCPU  int
	loadCPU    int
	serverProc int
	touchMiB   int
	settle     time.Duration
	crowd      groups.Options // of tailbound-groups
	crowdCPU   int
}

// A phase is one load that every system gets in turn.
type phase struct {
	Name       string
	Load       load.Options // without address and process
	onlyBroker bool         // reads back, which the yardsticks cannot
	disturbed  string       // what is beside the system: "", alloc, heap, hog
}

func (p phase) closed() bool { return p.Load.Rate == 0 }
func (p phase) open() bool   { return p.Load.Rate > 0 }

// measured is one system's result in one phase of one round.
type measured struct {
	Round   int
	Phase   string
	System  string
	ReadyS  float64  // process start to the first answer
	RSSMiB  float64  // largest resident size
	Promise string   // what its acknowledgement means
	OffCore []string `json:",omitempty"` // threads that may leave the system's core
	Result  *load.Result
	Crowd   *groups.Summary `json:",omitempty"`
	Failed  string          `json:",omitempty"`
}

func orchestrate(args []string) error {
	var o options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.IntVar(&o.rounds, "rounds", 3, "rounds; every system meets every rate once in each")
	f.Float64Var(&o.seconds, "seconds", 6, "measured seconds a phase")
	f.Float64Var(&o.warmup, "warmup", 2, "seconds before them, not measured")
	f.StringVar(&o.rates, "rates", "50,200,400,sat", "MB/s of batches; sat: closed loop; empty: none")
	f.IntVar(&o.records, "records", 100, "records of a batch (-small: 1)")
	f.IntVar(&o.bytes, "record-bytes", 1000, "bytes of a record (-small: 100)")
	f.StringVar(&o.smallRates, "small-rates", "5000,20000,50000,sat", "requests/s of -small")
	f.StringVar(&o.systems, "systems", "tailbound,probe,probe-new,plain", "of "+strings.Join(systemNames(), ", ")+"; tailbound@BINARY is another build, tailbound:ARGS one with more arguments of serve, separated by spaces")
	f.IntVar(&o.partitions, "partitions", 4, "partitions of the batch phases (-small: 64)")
	f.BoolVar(&o.small, "small", false, "also one 100 B record a request, over 64 partitions")
	f.BoolVar(&o.consumer, "consumer", false, "also each rate with a reader at the tail: end to end, where a system can be read back")
	f.BoolVar(&o.steady, "steady", false, "topics keep 128 MiB a partition in segments of 64, and each phase begins behind 4 s of closed loop: a broker that has been at it for a while, where logs take the files that others let go")
	f.StringVar(&o.binary, "binary", "bin/tailbound", "the broker")
	f.StringVar(&o.peers, "peers", "bin/peers", "what starts Kafka and JetStream (make bin/peers)")
	f.StringVar(&o.serveArgs, "serve-args", "", "more arguments of its serve command, separated by spaces")
	f.StringVar(&o.dir, "dir", "tmp", "where data directories are made, and removed; a real disk")
	f.StringVar(&o.results, "results", "bench/results", "where results go")
	f.StringVar(&o.into, "into", "", "a page in which the table goes between <!-- measured --> and <!-- /measured -->")
	f.DurationVar(&o.knee, "knee", 0, "instead of rates: the highest one with p99 below this, of each system in each round; begins at the first of -rates")
	f.StringVar(&o.disturb, "disturb", "", "each rate again beside these: alloc, a goroutine in the process that allocates; heap, a large live heap in it; hog, a process that takes the other core. Processes have all cores then, and the broker pins its shard. Wants a broker that was built with -tags disturb")
	f.IntVar(&o.serverCPU, "server-cpu", 0, "core of the system")
	f.IntVar(&o.loadCPU, "load-cpu", 1, "core of the generator")
	f.IntVar(&o.serverProc, "plain-gomaxprocs", 4, "GOMAXPROCS of the plain server")
	f.IntVar(&o.touchMiB, "touch", 12288, "MiB of memory to touch, at most, before each phase, so that the host has backed it; 0: none")
	f.DurationVar(&o.settle, "settle", 2*time.Second, "rest after a saturation phase")
	f.IntVar(&o.crowd.Groups, "groups", 2000, "groups of tailbound-groups: the broker, and groups beside the load")
	f.IntVar(&o.crowd.Members, "members", 10000, "their members, of the consumer protocol")
	f.IntVar(&o.crowd.Connections, "group-connections", 32, "connections their heartbeats share; as many again for commits")
	heartbeat := f.Duration("heartbeat", 3*time.Second, "between two heartbeats of one member")
	commit := f.Duration("commit", 5*time.Second, "between two commits of one member")
	f.IntVar(&o.crowdCPU, "groups-cpu", 1, "core of the groups; with the generator's, they share it")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	o.crowd.HeartbeatNS, o.crowd.CommitNS = int64(*heartbeat), int64(*commit)
	if o.crowd.Groups < 1 || o.crowd.Members < o.crowd.Groups || o.crowd.Connections < 1 || o.crowd.HeartbeatNS < 1 || o.crowd.CommitNS < 1 {
		return errors.New("every group has a member, and all numbers of groups are above 0")
	}
	for _, d := range strings.Split(o.disturb, ",") {
		if d != "" && d != "hog" && !slices.Contains(disturb.Kinds, d) {
			return fmt.Errorf("-disturb %s: there are hog, %s", d, strings.Join(disturb.Kinds, ", "))
		}
	}
	if o.records < 1 || o.bytes < 1 || o.rounds < 1 {
		return errors.New("there is at least one round, one record in a batch, and one byte in a record")
	}
	phases, err := o.phases()
	if err != nil {
		return err
	}
	systems := strings.Split(o.systems, ",")
	for _, s := range systems {
		if err := valid(s); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(systems, func(s string) bool { _, other, _ := variant(s); return isBroker(s) && other == "" }) {
		if _, err := os.Stat(o.binary); err != nil {
			return fmt.Errorf("%w: build it first (make build)", err)
		}
	}
	if o.serverCPU == o.loadCPU {
		return errors.New("system and generator on one core measure each other")
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return err
	}
	scratch, err := os.MkdirTemp(o.dir, "bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)

	rep := &report{Machine: record.Describe(scratch), Arguments: args}
	rep.header(os.Stdout)
	if o.knee > 0 {
		if phases[0].closed() {
			return errors.New("a knee begins at a rate")
		}
		return o.knees(ctx, rep, scratch, systems, phases[0])
	}
	// All rounds of rates come before the first of saturation: for half a
	// minute after gigabytes were written the host takes time from the machine
	// (November 2026: p99 of the next small phase 25 ms instead of 1).
	if err := o.rounded(ctx, rep, scratch, systems, slices.DeleteFunc(slices.Clone(phases), phase.closed)); err != nil {
		return err
	}
	if err := o.rounded(ctx, rep, scratch, systems, slices.DeleteFunc(slices.Clone(phases), phase.open)); err != nil {
		return err
	}
	rep.table(os.Stdout, phases, systems)
	rep.disturbances(os.Stdout, phases, systems)
	if o.into != "" {
		var text bytes.Buffer
		rep.header(&text)
		rep.table(&text, phases, systems)
		rep.disturbances(&text, phases, systems)
		if err := putInto(o.into, text.String()); err != nil {
			return err
		}
	}
	if err := rep.write(o.results); err != nil {
		return err
	}
	if slices.ContainsFunc(rep.Runs, func(m measured) bool { return m.Failed != "" }) {
		return errors.New("not every phase was measured")
	}
	return nil
}

// rounded measures every system in every phase, round after round.
func (o *options) rounded(ctx context.Context, rep *report, scratch string, systems []string, phases []phase) error {
	for round := range o.rounds {
		for _, p := range phases {
			for i := range systems {
				// The order turns: who is first in one round is last in the next.
				s := systems[i]
				if round%2 == 1 {
					s = systems[len(systems)-1-i]
				}
				if p.onlyBroker && !readsBack(s) {
					continue
				}
				m := o.measure(ctx, scratch, s, p)
				if ctx.Err() != nil {
					return errors.New("interrupted")
				}
				m.Round = round
				rep.Runs = append(rep.Runs, m)
				progress(m)
			}
		}
	}
	return nil
}

// phases turns the flags into loads.
func (o *options) phases() ([]phase, error) {
	base := load.Options{
		Topic:       "bench",
		Connections: 4,
		Inflight:    64,
		WarmupNS:    int64(o.warmup * 1e9),
		WindowNS:    int64(o.seconds * 1e9),
		DrainNS:     3e9,
	}
	if o.steady {
		base.Keep = 128 << 20
	}
	var phases []phase
	add := func(rates, unit string, perUnit float64, l load.Options, closed int) error {
		for _, r := range strings.Split(rates, ",") {
			l := l
			name := "saturation"
			switch r {
			case "":
				continue
			case "sat":
				l.Inflight = closed
			default:
				v, err := strconv.ParseFloat(r, 64)
				if err != nil || v <= 0 {
					return fmt.Errorf("rate %q: want a positive number or sat", r)
				}
				l.Rate = v * perUnit
				name = r
			}
			name += unit
			phases = append(phases, phase{Name: name, Load: l})
			for _, d := range strings.Split(o.disturb, ",") {
				if d != "" {
					phases = append(phases, phase{Name: name + " beside " + d, Load: l, disturbed: d})
				}
			}
			if o.consumer && l.Rate > 0 {
				l.Consumer = true
				phases = append(phases, phase{Name: name + ", read at the tail", Load: l, onlyBroker: true})
			}
		}
		return nil
	}
	batches := base
	batches.Partitions, batches.Records, batches.RecordBytes = o.partitions, o.records, o.bytes
	if err := add(o.rates, " MB/s", 1e6/float64(o.records*o.bytes), batches, 16); err != nil {
		return nil, err
	}
	if o.small {
		small := base
		small.Partitions, small.Records, small.RecordBytes, small.Inflight = 64, 1, 100, 1024
		if err := add(o.smallRates, " small/s", 1, small, 256); err != nil {
			return nil, err
		}
	}
	if len(phases) == 0 {
		return nil, errors.New("nothing to measure")
	}
	return phases, nil
}

// measure runs one phase of one system: start; await ready; load; stop; remove.
func (o *options) measure(ctx context.Context, scratch, name string, p phase) measured {
	m := measured{Phase: p.Name, System: name}
	dir := filepath.Join(scratch, "data")
	defer func() {
		_ = os.RemoveAll(dir)
		unix.Sync() // what was removed must not be trimmed in the next one's time
		settle := 500 * time.Millisecond
		if p.Load.Rate == 0 {
			settle = o.settle
		}
		select {
		case <-time.After(settle):
		case <-ctx.Done():
		}
	}()
	if p.disturbed == "hog" {
		stop, err := o.startHog()
		if err != nil {
			m.Failed = err.Error()
			return m
		}
		defer stop()
	} else if p.disturbed != "" { // what is started inherits it
		_ = os.Setenv(disturb.Variable, p.disturbed)
		defer os.Unsetenv(disturb.Variable)
	}
	if err := o.measureIn(ctx, dir, name, p, &m); err != nil {
		m.Failed = err.Error()
	}
	return m
}

func (o *options) measureIn(ctx context.Context, dir, name string, p phase, m *measured) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := o.touch(ctx, self, p.Load); err != nil {
		return fmt.Errorf("touch memory: %w", err)
	}
	port, err := trial.FreePorts(2)
	if err != nil {
		return err
	}
	kind, at, _ := variant(name)
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	start := time.Now()
	var server *trial.Process // nil: it was there before
	if kind == "broker" {
		addr = at
	} else {
		if server, err = o.start(name, addr, dir); err != nil {
			return err
		}
		defer server.Stop()
	}
	if err := awaitReady(ctx, server, name, addr); err != nil {
		return err
	}
	m.ReadyS = time.Since(start).Seconds()

	l := p.Load
	l.Bootstrap, l.ServerPID = addr, server.PID()
	l.Topic = fmt.Sprintf("%s-%d", l.Topic, time.Now().UnixMilli()) // new at one that was there before
	if strings.HasPrefix(kind, "kafka") {
		l.WarmupNS = max(l.WarmupNS, 15e9) // its compiler's
	}
	if o.steady {
		fill := l
		fill.Rate, fill.Inflight, fill.Consumer, fill.WindowNS = 0, 16, false, 4e9
		if _, err := o.generate(ctx, self, name, server, fill); err != nil {
			return fmt.Errorf("before the measurement: %w", err)
		}
	}
	var crowd *trial.Process
	if kind, _, _ := variant(name); strings.HasPrefix(kind, "tailbound-groups") {
		if crowd, err = o.gather(ctx, self, addr, filepath.Join(filepath.Dir(dir), "gathered")); err != nil {
			return err
		}
		defer crowd.Kill()
	}
	m.Result, err = o.generate(ctx, self, name, server, l)
	if crowd != nil {
		crowd.Stop()
		m.Crowd = new(groups.Summary)
		if e := json.Unmarshal(crowd.Stdout.Bytes(), m.Crowd); e != nil && err == nil {
			err = fmt.Errorf("groups: %s", crowd.LastWords())
		}
		fmt.Fprintf(os.Stderr, "groups: %+v\n", *m.Crowd)
	}
	m.RSSMiB, m.OffCore = server.PeakMiB(), server.OffCore(o.serverCPU)
	m.Promise = promise(name)
	return err
}

// awaitReady waits until a system serves.
func awaitReady(ctx context.Context, server *trial.Process, name, addr string) error {
	kind, _, _ := variant(name)
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		err := ready(kind, addr)
		switch {
		case err == nil:
			return nil
		case server.Exited():
			return fmt.Errorf("%s ended: %s", name, server.LastWords())
		case time.Since(start) > 60*time.Second:
			return fmt.Errorf("%s is not ready after a minute: %w", name, err)
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
}

// gather has a process of its own join all groups, and waits until it has.
func (o *options) gather(ctx context.Context, self, addr, ready string) (*trial.Process, error) {
	_ = os.Remove(ready)
	c := o.crowd
	c.Bootstrap = addr
	encoded, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	crowd, err := trial.Spawn([]int{o.crowdCPU}, nil, self, "child-groups", string(encoded), ready)
	if err != nil {
		return nil, err
	}
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(ready); err == nil {
			return crowd, nil
		}
		switch {
		case crowd.Exited():
			err = fmt.Errorf("groups: %s", crowd.LastWords())
		case time.Since(start) > 3*time.Minute:
			err = errors.New("groups: they have not joined after three minutes")
		default:
			if err = ctx.Err(); err == nil {
				continue
			}
		}
		crowd.Kill()
		return nil, err
	}
}

// childGroups says by a file that all have joined, and on its way out what they
// saw.
func childGroups(options, ready string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var o groups.Options
	if err := json.Unmarshal([]byte(options), &o); err != nil {
		return err
	}
	crowd, err := groups.Join(o)
	if err != nil {
		return err
	}
	if err := os.WriteFile(ready, nil, 0o644); err != nil {
		return err
	}
	s, err := crowd.Stay(ctx.Done())
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(s)
}

// generate has a process of its own put load on a system.
func (o *options) generate(ctx context.Context, self, name string, server *trial.Process, l load.Options) (*load.Result, error) {
	encoded, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	command := []string{self, "child-load"}
	environment := []string{"GOMAXPROCS=2", "GOGC=off"}
	if kind, _, _ := variant(name); isJetStream(kind) {
		command, environment = []string{o.peers, "load"}, []string{"GOMAXPROCS=2"} // its client allocates
	}
	gen, err := trial.Spawn([]int{o.loadCPU}, environment, command[0], append(command[1:], string(encoded))...)
	if err != nil {
		return nil, err
	}
	defer gen.Kill()
	limit := time.Duration(l.WarmupNS+l.WindowNS+l.DrainNS) + 40*time.Second
	if err := gen.Await(ctx, limit); err != nil {
		if server.Exited() {
			return nil, fmt.Errorf("generator: %w; %s ended: %s", err, name, server.LastWords())
		}
		return nil, fmt.Errorf("generator: %w", err)
	}
	r := new(load.Result)
	return r, json.Unmarshal(gen.Stdout.Bytes(), r)
}

// blocks measures what new blocks cost on the disk of a directory.
func blocks(args []string) error {
	f := flag.NewFlagSet("bench blocks", flag.ExitOnError)
	dir := f.String("dir", ".", "on the disk to measure, with 3 GiB free")
	rounds := f.Int("rounds", 3, "how often each state is measured")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 || *rounds < 1 {
		return fmt.Errorf("bench blocks: -dir DIR and -rounds N, 1 or more, are all it takes")
	}
	rows, err := rings.Blocks(*dir, *rounds)
	for _, r := range rows {
		fmt.Printf("%4d KiB  %-8s  throughput %s  p50 %s  p99 %s\n", r.Bytes>>10, r.State, record.Spread(r.Rates), record.Spread(r.P50s), record.Spread(r.P99s))
	}
	return err
}
