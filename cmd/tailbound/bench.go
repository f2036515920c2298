package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tailbound/tailbound/bench/load"
	"github.com/tailbound/tailbound/bench/record"
	"github.com/tailbound/tailbound/bench/trial"
)

// benchOptions are the flags of every measurement: what is measured, where,
// and where the recording goes.
type benchOptions struct {
	brokers    string
	serve      bool
	serveArgs  string
	serveDir   string
	serverCPUs []int
	loadCPUs   []int
	watch      []int
	restart    string
	profile    string
	promise    string
	label      map[string]string
	out        string
	quiet      bool
	output     string
}

func (o *benchOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVarP(&o.brokers, "brokers", "b", envOr("TAILBOUND_BROKERS", defaultBrokers), "the broker to begin with, HOST:PORT (environment: TAILBOUND_BROKERS)")
	f.BoolVar(&o.serve, "serve", false, "start a broker of this binary for it, in a directory of its own, and end it afterwards")
	f.StringVar(&o.serveArgs, "serve-args", "", "more arguments of its serve command, separated by spaces")
	f.StringVar(&o.serveDir, "serve-dir", "tmp", "where its data directory is made, and removed; a real disk")
	f.IntSliceVar(&o.serverCPUs, "server-cpus", nil, "cores that the started broker may use; by default the first")
	f.IntSliceVar(&o.loadCPUs, "load-cpus", nil, "cores of the load generator's processes, in turn; with --serve by default the last")
	f.IntSliceVar(&o.watch, "watch-cpus", nil, "cores whose hiccups are recorded beside the load; by default those of broker and load")
	f.StringVar(&o.restart, "restart-command", "", "what a scenario that restarts the broker runs, by sh -c; it returns when the broker was started again")
	f.StringVar(&o.profile, "data-dir", "", "of a Tailbound broker on this machine: its profile of the measured time goes into the recording")
	f.StringVar(&o.promise, "promise", "", "what an acknowledgement of the broker means, for the recording")
	f.StringToStringVar(&o.label, "label", nil, "KEY=VALUE for the recording, such as broker=kafka-4.1.1")
	f.StringVarP(&o.out, "out", "o", "", "directory of the recording; by default one below bench/results")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "no progress")
	outputFlag(c, f, &o.output)
}

// benched is what a measurement prints where no table is wanted.
type benched struct {
	Recording string        `json:"recording"` // its directory
	Runs      []*record.Run `json:"runs,omitempty"`
	Knee      *trial.Found  `json:"knee,omitempty"`
}

// add keeps a run, and prints it where a table is wanted: those of a scenario
// take minutes each.
func (b *benched) add(w io.Writer, output string, run *record.Run) {
	b.Runs = append(b.Runs, run)
	if output == "table" {
		trial.Print(w, run)
	}
}

// end prints what a table has not been printed of.
func (b *benched) end(w io.Writer, output string) error {
	if output != "table" {
		return printValue(w, output, b)
	}
	_, err := fmt.Fprintf(w, "\n%s\n", b.Recording)
	return err
}

func planFlags(f *pflag.FlagSet, p *trial.Plan) {
	f.Float64Var(&p.Rate, "rate", p.Rate, "requests a second; a request is one batch")
	f.BoolVar(&p.Saturate, "saturate", false, "a closed loop instead: as fast as answers come")
	f.DurationVar(&p.Duration, "duration", p.Duration, "how long is measured; hours are a soak: the drift is said")
	f.DurationVar(&p.Warmup, "warmup", p.Warmup, "before it, not measured")
	f.DurationVar(&p.Drain, "drain", p.Drain, "how long answers are waited for behind it")
	f.DurationVar(&p.Interval, "interval", p.Interval, "one interval of the recording")
	f.StringVar(&p.Arrivals, "arrivals", "constant", "constant, poisson, bursts or ramp")
	f.Int64Var(&p.Burst, "burst", 100, "bursts: requests that are due at one instant")
	f.Float64Var(&p.From, "from", 0, "ramp: the first rate; it grows to --rate")
	f.Uint64Var(&p.Seed, "seed", 1, "poisson: the seed")
	f.IntVar(&p.Records, "records", p.Records, "records of a batch")
	f.IntVar(&p.RecordBytes, "record-bytes", p.RecordBytes, "bytes of a record's value")
	f.IntVar(&p.KeyBytes, "key-bytes", 0, "bytes of a record's key; 0: no keys")
	f.IntVar(&p.Keys, "keys", 10_000, "how many keys there are")
	f.DurationVar(&p.Linger, "linger", 0, "how long a batch has gathered when it is sent; latency counts from its first record")
	f.StringVar(&p.Codec, "codec", "none", "none, gzip, snappy, lz4 or zstd; half of each value's bytes are random then")
	f.StringVar(&p.Acks, "acks", "all", "all, 1 or 0")
	f.StringVar(&p.Topic, "topic", "", "a topic with nothing in it; by default a new one")
	f.StringToStringVar(&p.TopicConfig, "topic-config", nil, "KEY=VALUE of the topic that is made")
	f.IntVar(&p.Partitions, "partitions", p.Partitions, "of the topic")
	f.IntVar(&p.Connections, "connections", p.Connections, "producing clients, of all processes")
	f.IntVar(&p.Inflight, "inflight", p.Inflight, "requests without an answer, of each")
	f.IntVar(&p.Hops, "hops", 0, "a chain: what is read is produced to the next topic, so many times in all")
	f.BoolVar(&p.Verify, "verify", false, "see that each acknowledged request is read back, once")
	f.DurationSliceVar(&p.Restarts, "restart-at", nil, "restart the broker so long after the load began")
	f.IntVar(&p.Processes, "processes", 1, "that make the load, where one cannot hold the rate")
	f.StringArrayVar(&p.Expect, "expect", nil, `what has to hold, such as "end-to-end p99.99 < 100ms" or "lost = 0"; it ends with 1 where it does not`)
}

// readerFlag is [NAME=]COUNT[,after=TIME][,mb=RATE].
type readerFlag struct{ to *[]trial.Reader }

func (r readerFlag) Type() string   { return "[NAME=]COUNT[,after=TIME][,mb=RATE]" }
func (r readerFlag) String() string { return "" }
func (r readerFlag) Set(text string) error {
	var one trial.Reader
	for i, part := range strings.Split(text, ",") {
		k, v, named := strings.Cut(part, "=")
		var err error
		switch {
		case i == 0 && named:
			one.Name = k
			one.Count, err = strconv.Atoi(v)
		case i == 0:
			one.Count, err = strconv.Atoi(part)
		case k == "after":
			one.After, err = time.ParseDuration(v)
		case k == "mb":
			one.BytesPerSecond, err = strconv.ParseFloat(v, 64)
			one.BytesPerSecond *= 1e6
		default:
			err = fmt.Errorf("%q is neither after= nor mb=", part)
		}
		if err != nil {
			return err
		}
	}
	if one.Count < 1 {
		return errors.New("at least one reads")
	}
	if one.Name == "" {
		switch {
		case one.After > 0:
			one.Name = "catch-up"
		case one.BytesPerSecond > 0:
			one.Name = "slow"
		default:
			one.Name = load.EndToEnd
		}
	}
	*r.to = append(*r.to, one)
	return nil
}

func benchCommand() *cobra.Command {
	p := trial.Default()
	var o benchOptions
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure the latency and throughput of any Kafka broker",
		Long: `Measure any broker that speaks Kafka's protocol with an open loop: each request
has an instant at which it is meant to be sent, and its latency counts from
there, whoever held it back. Nothing is omitted, and percentiles are of pooled
histograms.

The recording is a directory: run.json says what was asked of what on which
machine and what came out; latency.hlog has every interval's histograms for the
tools of HdrHistogram. ` + "`bench compare`" + ` puts two side by side, ` + "`bench report`" + ` makes a
page to read.

Where the load generator was the limit, the result says so.`,
		Example: `  tailbound bench --serve --rate 2000 --records 100 --record-bytes 1000 --reader 1
  tailbound bench -b kafka:9092 --rate 5000 --records 1 --record-bytes 100 --arrivals poisson
  tailbound bench --rate 1000 --reader 1 --reader slow=1,mb=10 --reader catch-up=2,after=20s
  tailbound bench knee --serve --within "produce p99 < 2ms"
  tailbound bench run voice --serve
  tailbound bench compare bench/results/A bench/results/B
  tailbound bench report bench/results/A -o report.html`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p.Name = "bench"
			return o.with(cmd, "bench", func(ctx context.Context, s trial.System, e trial.Env, got *benched) error {
				run, err := trial.Run(ctx, p, s, e)
				if err == nil {
					got.add(cmd.OutOrStdout(), o.output, run)
				}
				return err
			})
		},
	}
	o.flags(c)
	planFlags(c.Flags(), &p)
	c.Flags().Var(readerFlag{&p.Readers}, "reader", "consumers of everything: at the tail, from behind a pause (catching up), or no faster than so many MB/s; may be repeated")
	c.AddCommand(benchRunCommand(), benchKneeCommand(), benchCompareCommand(), benchReportCommand(), benchHiccupCommand(), benchGenerateCommand())
	return c
}

// with has a system at hand while measure is at work, and prints what that got.
// What was expected and did not hold is the command's exit status.
func (o *benchOptions) with(cmd *cobra.Command, name string, measure func(context.Context, trial.System, trial.Env, *benched) error) error {
	if err := checkOutput(o.output); err != nil {
		return err
	}
	runtime.LockOSThread() // what is started dies with this thread
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	e, err := o.env(cmd, name)
	if err != nil {
		return err
	}
	s := trial.System{Address: o.brokers, Promise: o.promise}
	if o.serve {
		b, err := o.startBroker(ctx)
		if err != nil {
			return err
		}
		defer b.end()
		s = b.system()
	} else {
		if err := load.Ready(o.brokers); err != nil {
			return fmt.Errorf("%s: %w", o.brokers, err)
		}
		if o.profile != "" {
			s.Profile = profileOf(o.profile)
		}
		if o.restart != "" {
			s.Restart = o.restartByCommand
		}
	}
	got := &benched{Recording: e.Dir}
	if err := measure(ctx, s, e, got); err != nil {
		if ctx.Err() != nil {
			return errors.New("interrupted; what was recorded is in " + e.Dir)
		}
		return err
	}
	if err := got.end(cmd.OutOrStdout(), o.output); err != nil {
		return err
	}
	if slices.ContainsFunc(got.Runs, func(r *record.Run) bool { return slices.ContainsFunc(r.Verdict, notHeld) }) {
		return exitStatus(1)
	}
	return nil
}

func notHeld(c record.Check) bool { return !c.Held }

func (o *benchOptions) env(cmd *cobra.Command, name string) (trial.Env, error) {
	self, err := os.Executable()
	if err != nil {
		return trial.Env{}, err
	}
	e := trial.Env{Command: []string{self, "bench", "generate"}, LoadCPUs: o.loadCPUs, Watch: o.watch, Dir: o.out, Disk: ".", Label: map[string]string{"tailbound": versionString()}}
	for k, v := range o.label {
		e.Label[k] = v
	}
	if e.Dir == "" {
		e.Dir = trial.TempDir(name)
	}
	if !o.quiet {
		e.Live, e.Terminal = cmd.ErrOrStderr(), isTerminal(os.Stderr)
	}
	if o.serve {
		if e.LoadCPUs == nil {
			e.LoadCPUs = []int{runtime.NumCPU() - 1}
		}
		if o.serverCPUs == nil {
			o.serverCPUs = []int{0}
		}
		e.Disk = o.serveDir
		if err := os.MkdirAll(o.serveDir, 0o755); err != nil {
			return e, err
		}
	}
	if e.Watch == nil {
		e.Watch = slices.Compact(slices.Sorted(slices.Values(slices.Concat(o.serverCPUs, e.LoadCPUs))))
	}
	return e, nil
}

func (o *benchOptions) restartByCommand(ctx context.Context) (int, error) {
	if out, err := exec.CommandContext(ctx, "sh", "-c", o.restart).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("%w: %s", err, out)
	}
	return 0, awaitReady(ctx, o.brokers, func() error { return nil })
}

// awaitReady waits for a broker to serve; ended says when it never will.
func awaitReady(ctx context.Context, addr string, ended func() error) error {
	for start := time.Now(); ; {
		err := load.Ready(addr)
		if err == nil {
			return nil
		}
		if e := ended(); e != nil {
			return e
		}
		if time.Since(start) > time.Minute {
			return fmt.Errorf("%s does not serve after a minute: %w", addr, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// ownBroker is one that was started for a measurement.
type ownBroker struct {
	o       *benchOptions
	address string
	dir     string
	process *trial.Process
	spawn   chan func() // done by the thread that outlives what it starts
}

func (o *benchOptions) startBroker(ctx context.Context) (*ownBroker, error) {
	port, err := trial.FreePorts(8)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(o.serveDir, "bench-")
	if err != nil {
		return nil, err
	}
	b := &ownBroker{o: o, address: fmt.Sprintf("127.0.0.1:%d", port), dir: dir, spawn: make(chan func())}
	// A process dies with the thread that started it, so one thread starts the
	// first and those of restarts.
	go func() {
		runtime.LockOSThread()
		for f := range b.spawn {
			f()
		}
	}()
	if err := b.start(ctx); err != nil {
		b.end()
		return nil, err
	}
	return b, nil
}

func (b *ownBroker) start(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := []string{"serve", "--data-dir", filepath.Join(b.dir, "data"), "--listen", b.address, "--shards", strconv.Itoa(len(b.o.serverCPUs))}
	done := make(chan struct{})
	b.spawn <- func() {
		b.process, err = trial.Spawn(b.o.serverCPUs, nil, self, append(args, strings.Fields(b.o.serveArgs)...)...)
		close(done)
	}
	<-done
	if err != nil {
		return err
	}
	p := b.process
	return awaitReady(ctx, b.address, func() error {
		if p.Exited() {
			return fmt.Errorf("the broker ended: %s", p.LastWords())
		}
		return nil
	})
}

func (b *ownBroker) system() trial.System {
	return trial.System{
		Address: b.address, PID: b.process.PID(), Promise: "on disk: written and synced",
		Versions: map[string]string{"broker": "tailbound " + versionString()},
		Profile:  profileOf(filepath.Join(b.dir, "data")),
		Restart: func(ctx context.Context) (int, error) {
			b.process.Kill() // as kill -9 does: what was acknowledged has to be there
			err := b.start(ctx)
			return b.process.PID(), err
		},
	}
}

func (b *ownBroker) end() {
	if b.process != nil {
		b.process.Stop()
	}
	close(b.spawn)
	os.RemoveAll(b.dir)
}

// profileOf begins a profile of the broker that serves dir.
func profileOf(dir string) func() (func() json.RawMessage, error) {
	return func() (func() json.RawMessage, error) {
		p, err := dialProfile(dir)
		if err != nil {
			return nil, err
		}
		if _, err := p.next(); err != nil {
			p.close()
			return nil, err
		}
		begun := time.Now()
		return func() json.RawMessage {
			defer p.close()
			got, err := p.next()
			if err != nil {
				return nil // it has ended meanwhile, as at a restart
			}
			whole := struct {
				*profile
				Tail *tailProfile `json:"tail,omitempty"` // the slowest requests, of a minute at most
			}{profile: got}
			slowest := new(tailProfile)
			over := min(time.Since(begun), time.Minute)
			if p.ask(profileQuestion{Tail: &tailQuestion{OverMS: over.Milliseconds(), Count: 10}}, slowest) == nil {
				whole.Tail = slowest
			}
			text, err := json.Marshal(whole)
			if err != nil {
				return nil
			}
			return text
		}, nil
	}
}

func benchKneeCommand() *cobra.Command {
	p := trial.Default()
	p.Duration, p.Warmup = 8*time.Second, 2*time.Second
	var o benchOptions
	var within []string
	tolerance := 0.05
	c := &cobra.Command{
		Use:   "knee",
		Short: "Find the highest rate that a broker carries within a bound",
		Long: `Find the highest rate that a broker carries within a bound. It begins at --rate,
grows by half until a rate fails twice, and closes in on where that begins.
Each rate is a recording of its own, in the directory of all.

A rate fails where the bound is broken, where less than 98 % of it is carried,
or where a request has no answer. Where the load generator was the limit the
knee is said to be at least what was found.`,
		Example: `  tailbound bench knee --serve --within "produce p99 < 2ms"
  tailbound bench knee -b kafka:9092 --records 1 --record-bytes 100 --partitions 16 --within "produce p99.9 < 10ms"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p.Name = "knee"
			return o.with(cmd, "knee", func(ctx context.Context, s trial.System, e trial.Env, got *benched) (err error) {
				if got.Knee, err = trial.FindKnee(ctx, p, within, tolerance, s, e); err == nil && o.output == "table" {
					got.Knee.Print(cmd.OutOrStdout(), p.Records, p.RecordBytes)
				}
				return err
			})
		},
	}
	o.flags(c)
	f := c.Flags()
	planFlags(f, &p)
	f.Var(readerFlag{&p.Readers}, "reader", "consumers of everything, as of bench")
	f.StringArrayVar(&within, "within", []string{"produce p99 < 2ms"}, "the bound; all of several have to hold")
	f.Float64Var(&tolerance, "tolerance", tolerance, "it ends when the lowest rate that fails is so much above the highest that holds")
	return c
}

func benchHiccupCommand() *cobra.Command {
	var o benchOptions
	h := trial.Hiccups{Duration: 10 * time.Second}
	disk := true
	c := &cobra.Command{
		Use:   "hiccup",
		Short: "Measure the machine's own noise: late wake-ups, stolen time, the disk's sync",
		Long: `Measure what the machine does to a program that asks nothing of it: how late a
thread wakes on each core, for how long one that never sleeps is kept from
running, and what a 4 KiB direct write with its fdatasync takes, 200 a second.
No latency below these is resolved on this machine.`,
		Example: "  tailbound bench hiccup --dir /var/lib --duration 30s",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(o.output); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			e, err := o.env(cmd, "hiccup")
			if err != nil {
				return err
			}
			if h.CPUs == nil {
				for cpu := range runtime.NumCPU() {
					h.CPUs = append(h.CPUs, cpu)
				}
			}
			if disk {
				h.Disk = o.serveDir
			}
			if err := os.MkdirAll(o.serveDir, 0o755); err != nil {
				return err
			}
			e.Disk = o.serveDir
			run, err := h.Measure(ctx, e)
			if err != nil {
				return err
			}
			got := &benched{Recording: e.Dir}
			if o.output == "table" {
				fmt.Fprintln(cmd.OutOrStdout(), run.Machine.Lines())
			}
			got.add(cmd.OutOrStdout(), o.output, run)
			return got.end(cmd.OutOrStdout(), o.output)
		},
	}
	f := c.Flags()
	f.DurationVar(&h.Duration, "duration", h.Duration, "of each of the parts")
	f.IntSliceVar(&h.CPUs, "cpus", nil, "cores to look at; by default all")
	f.BoolVar(&h.Spin, "spin", true, "also a thread that never sleeps, on one core after the other")
	f.BoolVar(&disk, "disk", true, "also the disk of --dir")
	f.StringVar(&o.serveDir, "dir", "tmp", "a directory on the disk that is meant")
	f.StringVarP(&o.out, "out", "o", "", "directory of the recording; by default one below bench/results")
	f.StringToStringVar(&o.label, "label", nil, "KEY=VALUE for the recording")
	outputFlag(c, f, &o.output)
	return c
}

func benchGenerateCommand() *cobra.Command {
	return &cobra.Command{
		Use: "generate", Hidden: true, Args: cobra.NoArgs, Short: "What bench starts to make a load",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return trial.Generate(cmd.InOrStdin(), io.Writer(os.Stdout))
		},
	}
}
