package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
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

// Options are the flags of every measurement: what is started and where, and
// where the recording goes.
type Options struct {
	Binary     string
	ServeArgs  string
	ServeDir   string
	ServerCPUs []int
	LoadCPUs   []int

	watch    []int
	label    map[string]string
	out      string
	quiet    bool
	output   string
	host     *Host
	unpinned bool // what is started may use all cores
}

// AddTo adds the flags to a command.
func (o *Options) AddTo(c *cobra.Command, host *Host) {
	o.host = host
	f := c.Flags()
	f.StringVar(&o.Binary, "binary", host.Binary, "the broker that is started; by default this program, if that is one")
	f.StringVar(&o.ServeArgs, "serve-args", "", "more arguments of its serve command, separated by spaces")
	f.StringVar(&o.ServeDir, "serve-dir", "tmp", "where data directories are made, and removed; a real disk")
	f.IntSliceVar(&o.ServerCPUs, "server-cpus", nil, "cores that what is started may use; by default the first")
	f.IntSliceVar(&o.LoadCPUs, "load-cpus", nil, "cores of the load generator's processes, in turn; by default the last, where something is started")
	f.IntSliceVar(&o.watch, "watch-cpus", nil, "cores whose hiccups are recorded beside the load; by default those of system and load")
	f.StringToStringVar(&o.label, "label", nil, "KEY=VALUE for the recording, such as broker=kafka-4.1.1")
	f.StringVarP(&o.out, "out", "o", "", "directory of the recording; by default one below bench/results")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "no progress")
	outputFlag(c, &o.output)
	if host.Flags != nil {
		host.Flags(c)
	}
}

// Env is where and how a command measures. starts: it starts what it measures.
func (o *Options) Env(cmd *cobra.Command, name string, starts bool) (e trial.Env, err error) {
	if err := checkOutput(o.output); err != nil {
		return e, err
	}
	if e.Command, err = self(cmd, "generate"); err != nil {
		return e, err
	}
	e.Disk, e.Label = ".", map[string]string{}
	if o.host.Version != "" {
		e.Label["tailbound"] = o.host.Version
	}
	maps.Copy(e.Label, o.label)
	if e.Dir = o.out; e.Dir == "" {
		e.Dir = trial.TempDir(name)
	}
	if !o.quiet {
		e.Live, e.Terminal = cmd.ErrOrStderr(), isTerminal(os.Stderr)
	}
	if starts {
		if o.LoadCPUs == nil {
			o.LoadCPUs = []int{runtime.NumCPU() - 1}
		}
		if o.ServerCPUs == nil {
			o.ServerCPUs = []int{0}
		}
		e.Disk = o.ServeDir
		if err := os.MkdirAll(o.ServeDir, 0o755); err != nil {
			return e, err
		}
	}
	if e.LoadCPUs, e.Watch = o.LoadCPUs, o.watch; e.Watch == nil {
		e.Watch = slices.Compact(slices.Sorted(slices.Values(slices.Concat(o.ServerCPUs, o.LoadCPUs))))
	}
	return e, nil
}

// interruptible is a command's context, which a signal ends.
func interruptible(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
}

// single are the flags of what measures one system: one that runs, or one of
// Tailbound that is started for it.
type single struct {
	Options
	brokers string
	serve   bool
	restart string
	profile string
	promise string
}

func (o *single) addTo(c *cobra.Command, host *Host) {
	o.Options.AddTo(c, host)
	f := c.Flags()
	f.StringVarP(&o.brokers, "brokers", "b", host.Brokers, "the broker to begin with, HOST:PORT (environment: TAILBOUND_BROKERS)")
	f.BoolVar(&o.serve, "serve", false, "start a broker for it, in a directory of its own, and end it afterwards")
	f.StringVar(&o.restart, "restart-command", "", "what a scenario that restarts the broker runs, by sh -c; it returns when the broker was started again")
	f.StringVar(&o.profile, "data-dir", "", "of a Tailbound broker on this machine: its profile of the measured time goes into the recording")
	f.StringVar(&o.promise, "promise", "", "what an acknowledgement of the broker means, for the recording")
}

// measured is what a measurement prints where no table is wanted.
type measured struct {
	Recording string        `json:"recording"` // its directory
	Runs      []*record.Run `json:"runs,omitempty"`
	Knee      *trial.Found  `json:"knee,omitempty"`
}

// add keeps a run. Where a table is wanted it prints it at once: the runs of a
// scenario take minutes each.
func (m *measured) add(w io.Writer, output string, run *record.Run) {
	m.Runs = append(m.Runs, run)
	if output == "table" {
		trial.Print(w, run)
	}
}

// end prints what no table has been printed of.
func (m *measured) end(w io.Writer, output string) error {
	if output != "table" {
		return printValue(w, output, m)
	}
	_, err := fmt.Fprintf(w, "\n%s\n", m.Recording)
	return err
}

// with has a system at hand while measure is at work, and prints what that got.
// An expectation that did not hold is the command's exit status.
func (o *single) with(cmd *cobra.Command, name string, measure func(context.Context, trial.System, trial.Env, *measured) error) error {
	ctx, stop := interruptible(cmd)
	defer stop()
	e, err := o.Env(cmd, name, o.serve)
	if err != nil {
		return err
	}
	r, err := o.system(ctx)
	if err != nil {
		return err
	}
	defer r.End()
	got := &measured{Recording: e.Dir}
	if err := measure(ctx, r.System, e, got); err != nil {
		if ctx.Err() != nil {
			return errors.New("interrupted; what was recorded is in " + e.Dir)
		}
		return err
	}
	if err := got.end(cmd.OutOrStdout(), o.output); err != nil {
		return err
	}
	if slices.ContainsFunc(got.Runs, failed) {
		return o.host.NotHeld
	}
	return nil
}

// failed says whether an expectation of a run did not hold.
func failed(run *record.Run) bool {
	return slices.ContainsFunc(run.Verdict, func(c record.Check) bool { return !c.Held })
}

// system is the broker that runs, or one that is started.
func (o *single) system(ctx context.Context) (*Running, error) {
	if o.serve {
		s, err := o.host.system("tailbound")
		if err != nil {
			return nil, err
		}
		return o.Start(ctx, s, o.ServeDir, nil)
	}
	if err := load.Ready(o.brokers); err != nil {
		return nil, fmt.Errorf("%s: %w", o.brokers, err)
	}
	s := trial.System{Address: o.brokers, Promise: o.promise}
	if o.profile != "" {
		if o.host.Profile == nil {
			return nil, errors.New("--data-dir: this program reads no profiles; `tailbound bench` does")
		}
		s.Profile = o.host.Profile(o.profile)
	}
	if o.restart != "" {
		s.Restart = o.restartByCommand
	}
	return &Running{System: s}, nil
}

func (o *single) restartByCommand(ctx context.Context) (int, error) {
	if out, err := exec.CommandContext(ctx, "sh", "-c", o.restart).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("%w: %s", err, out)
	}
	return 0, trial.AwaitReady(ctx, o.brokers, nil, nil)
}

// planFlags are those of one load.
func planFlags(f *pflag.FlagSet, p *trial.Plan) {
	f.Float64Var(&p.Rate, "rate", p.Rate, "requests a second; a request is one batch")
	f.BoolVar(&p.Saturate, "saturate", false, "a closed loop instead: as fast as answers come")
	f.Var((*seconds)(&p.Duration), "duration", "how long is measured; hours are a soak: the drift is said")
	f.Var((*seconds)(&p.Warmup), "warmup", "before it, not measured")
	f.Var((*seconds)(&p.Fill), "fill", "a closed loop on the same topic before that, of so long: a broker that has been at it for a while")
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
	f.Var(readerFlag{&p.Readers}, "reader", "consumers of everything: at the tail, from behind a pause (catching up), or no faster than so many MB/s; may be repeated")
}

// seconds is a duration of which a bare number is seconds.
type seconds time.Duration

func (s *seconds) Type() string   { return "duration" }
func (s *seconds) String() string { return time.Duration(*s).String() }
func (s *seconds) Set(text string) error {
	if number, err := strconv.ParseFloat(text, 64); err == nil {
		*s = seconds(number * float64(time.Second))
		return nil
	}
	d, err := time.ParseDuration(text)
	*s = seconds(d)
	return err
}

// readerFlag is [NAME=]COUNT[,after=TIME][,mb=RATE].
type readerFlag struct{ to *[]trial.Reader }

func (r readerFlag) Type() string   { return "[NAME=]COUNT[,after=TIME][,mb=RATE]" }
func (r readerFlag) String() string { return "" }
func (r readerFlag) Set(text string) error {
	var one trial.Reader
	for i, part := range strings.Split(text, ",") {
		key, value, named := strings.Cut(part, "=")
		var err error
		switch {
		case i == 0 && named:
			one.Name = key
			one.Count, err = strconv.Atoi(value)
		case i == 0:
			one.Count, err = strconv.Atoi(part)
		case key == "after":
			one.After, err = time.ParseDuration(value)
		case key == "mb":
			one.BytesPerSecond, err = strconv.ParseFloat(value, 64)
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
		}
		one.Name = cmp.Or(one.Name, load.EndToEnd)
	}
	*r.to = append(*r.to, one)
	return nil
}
