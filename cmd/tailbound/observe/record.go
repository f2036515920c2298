package observe

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/bench/record"
	"github.com/tailbound/tailbound/cmd/tailbound/term"
	"github.com/tailbound/tailbound/metrics"
)

// recordedSeries is one histogram of an interval, in HdrHistogram's V2 compressed
// encoding, base64.
type recordedSeries struct {
	Name string `json:"name"` // shard1.produce.durable
	H    string `json:"histogram"`
}

// recordedInterval is the histograms of what was recorded since the question before
// on the same connection.
type recordedInterval struct {
	At     time.Time        `json:"at"`
	Late   []int            `json:"late,omitempty"` // shards that took no turn in time
	Series []recordedSeries `json:"series"`
}

func profileRecordCommand() *cobra.Command {
	var dir string
	var interval, duration time.Duration
	command := &cobra.Command{
		Use:   "record DIR",
		Short: "Record a broker's histograms, interval after interval",
		Long: `Record a running broker: how long its requests took, by shard and stage, an
interval after the other, until it is interrupted or --duration is over.

DIR is made, and has what ` + "`tailbound bench`" + ` leaves behind too:

  latency.hlog   every interval's histograms, in HdrHistogram's log format 1.3,
                 with a tag for each series: shard1.produce.total, from received
                 to sent; shard1.produce.durable, to that stage from the one
                 before it; shard1.turn. HdrHistogram's own tools read it
  run.json       the whole of each series, the machine, the broker's profile of
                 that time and its slowest requests

` + "`tailbound bench report DIR`" + ` makes a page of it, ` + "`tailbound bench compare`" + ` puts two
beside each other.`,
		Example: `  tailbound profile record --data-dir /var/lib/tailbound --duration 1m before
  HistogramLogProcessor -i before/latency.hlog -tag shard1.produce.total -outputValueUnitRatio 1000`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, words []string) error {
			if interval < 10*time.Millisecond || duration < 0 {
				return errors.New("--interval is at least 10ms, and --duration not less than nothing")
			}
			return recordProfile(cmd, dir, words[0], interval, duration)
		},
	}
	flags := command.Flags()
	flags.StringVar(&dir, "data-dir", term.EnvOr("TAILBOUND_DATA_DIR", "data"), "the broker's data directory")
	flags.DurationVar(&interval, "interval", time.Second, "how long an interval is")
	flags.DurationVar(&duration, "duration", 0, "how long to record (until it is interrupted)")
	return command
}

// recording is a recording under way.
type recording struct {
	conn   *client // for the intervals
	out    *record.Recorder
	began  time.Time
	last   time.Time // end of the last interval
	run    *record.Run
	pooled map[string]*record.Histogram // by series, all intervals
	late   map[int]bool                 // shards that took no turn in time, once or more
}

// recordProfile asks for one interval after the other until the recording is over. It
// has two connections, as each question begins its connection's interval anew: one for
// the intervals, and one for the profile of the whole.
func recordProfile(cmd *cobra.Command, dir, into string, interval, duration time.Duration) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, unix.SIGTERM)
	defer stop()
	conn, err := dial(dir)
	if err != nil {
		return err
	}
	defer conn.close()
	whole, err := dial(dir)
	if err != nil {
		return err
	}
	defer whole.close()
	first, err := whole.next()
	if err != nil {
		return err
	}
	var start recordedInterval
	if err := conn.ask(question{Record: true}, &start); err != nil {
		return err
	}
	machine := record.Describe(dir)
	out, err := record.Create(into, start.At, machine.Lines())
	if err != nil {
		return err
	}
	r := recording{conn: conn, out: out, began: start.At, last: start.At, pooled: map[string]*record.Histogram{}, late: map[int]bool{},
		run: &record.Run{Name: "live broker", Started: start.At, Machine: machine, Versions: map[string]string{"tailbound": first.Version}, Series: map[string]record.Summary{}}}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for over := false; !over; {
		select {
		case <-tick.C:
			over = duration > 0 && time.Since(r.began) >= duration
		case <-ctx.Done():
			over = true
		}
		var got recordedInterval
		if conn.ask(question{Record: true}, &got) != nil {
			r.run.Notes = append(r.run.Notes, "the broker was gone before the recording was over")
			break
		}
		if err := r.add(&got); err != nil {
			return err
		}
	}
	if err := r.summarise(whole); err != nil {
		return err
	}
	if err := out.Finish(r.run); err != nil {
		return err
	}
	return printRecorded(cmd.OutOrStdout(), into, r.run)
}

// add records an interval.
func (r *recording) add(got *recordedInterval) error {
	for _, series := range got.Series {
		recorded := record.Interval{Series: series.Name, StartNS: int64(r.last.Sub(r.began)), EndNS: int64(got.At.Sub(r.began))}
		if err := recorded.H.UnmarshalText([]byte(series.H)); err != nil {
			return err
		}
		if err := r.out.Add(recorded); err != nil {
			return err
		}
		if r.pooled[series.Name] == nil {
			r.pooled[series.Name] = record.NewHistogram()
		}
		recorded.H.Into(r.pooled[series.Name])
	}
	for _, shard := range got.Late {
		r.late[shard] = true
	}
	r.last = got.At
	r.run.Seconds = r.last.Sub(r.began).Seconds()
	return nil
}

// summarise fills in what the run says of all intervals together, with the profile of
// the broker if that is still there.
func (r *recording) summarise(whole *client) error {
	run := r.run
	for name, histogram := range r.pooled {
		run.Series[name] = histogram.Summary()
	}
	for _, shard := range slices.Sorted(maps.Keys(r.late)) {
		run.Notes = append(run.Notes, fmt.Sprintf("shard %d took no turn in time to be asked, once at least: what it had is in a later interval", shard))
	}
	last, err := whole.next()
	if err != nil {
		return nil // the broker has ended
	}
	tail := new(TailProfile)
	if err := whole.ask(question{Tail: &tailQuestion{OverMS: int64(run.Seconds * 1000), Count: 10}}, tail); err != nil {
		return nil
	}
	run.Profile, err = json.Marshal(struct {
		*Profile
		Tail *TailProfile `json:"tail"`
	}{last, tail})
	return err
}

func printRecorded(out io.Writer, into string, run *record.Run) error {
	_, err := fmt.Fprintf(out, "%.1f s, %s, in %s\n", run.Seconds, term.Plural(len(run.Series), "histogram"), into)
	return err
}

// recorded encodes and empties a connection's windows. The caller holds Server.mu.
func (p *Server) recorded(windows []*metrics.Window) (*recordedInterval, error) {
	late := make([]bool, len(p.collectors))
	if p.broker != nil {
		p.collect(late)
	}
	interval := &recordedInterval{At: time.Now(), Series: []recordedSeries{}}
	for i, window := range windows {
		if late[i] {
			interval.Late = append(interval.Late, i)
		}
		var failed error
		add := func(name string, histogram *metrics.Histogram) {
			if histogram.Count() == 0 {
				return
			}
			b, err := histogram.Encode()
			failed = errors.Join(failed, err)
			interval.Series = append(interval.Series, recordedSeries{fmt.Sprintf("shard%d.%s", i, name), string(b)})
		}
		for kind := range metrics.Kinds {
			add(kind.Name()+".total", window.Step(kind, metrics.Received))
			for stage := metrics.Parsed; stage < metrics.Stages; stage++ {
				add(kind.Name()+"."+stage.Name(kind), window.Step(kind, stage))
			}
		}
		add("turn", window.Turn())
		window.Reset()
		if failed != nil {
			return nil, failed
		}
	}
	return interval, nil
}
