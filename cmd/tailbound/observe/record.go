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
	c := &cobra.Command{
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
	f := c.Flags()
	f.StringVar(&dir, "data-dir", term.EnvOr("TAILBOUND_DATA_DIR", "data"), "the broker's data directory")
	f.DurationVar(&interval, "interval", time.Second, "how long an interval is")
	f.DurationVar(&duration, "duration", 0, "how long to record (until it is interrupted)")
	return c
}

// recordProfile asks for an interval at a time until the recording is over. It has
// two connections, as each question begins its connection's interval anew: one for
// the intervals, and one for the profile of the whole.
func recordProfile(cmd *cobra.Command, dir, into string, interval, duration time.Duration) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, unix.SIGTERM)
	defer stop()
	p, err := dial(dir)
	if err != nil {
		return err
	}
	defer p.close()
	whole, err := dial(dir)
	if err != nil {
		return err
	}
	defer whole.close()
	first, err := whole.next()
	if err != nil {
		return err
	}
	var got recordedInterval
	if err := p.ask(question{Record: true}, &got); err != nil {
		return err
	}
	began := got.At
	machine := record.Describe(dir)
	out, err := record.Create(into, began, machine.Lines())
	if err != nil {
		return err
	}
	run := &record.Run{Name: "live broker", Started: began, Machine: machine, Versions: map[string]string{"tailbound": first.Version}, Series: map[string]record.Summary{}}
	pooled := map[string]*record.Histogram{}
	late := map[int]bool{}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for over, last, failed := false, began, error(nil); !over; {
		select {
		case <-tick.C:
			over = duration > 0 && time.Since(began) >= duration
		case <-ctx.Done():
			over = true
		}
		got = recordedInterval{}
		if failed = p.ask(question{Record: true}, &got); failed != nil {
			run.Notes = append(run.Notes, "the broker was gone before the recording was over")
			break
		}
		for _, s := range got.Series {
			i := record.Interval{Series: s.Name, StartNS: int64(last.Sub(began)), EndNS: int64(got.At.Sub(began))}
			if err := i.H.UnmarshalText([]byte(s.H)); err != nil {
				return err
			}
			if err := out.Add(i); err != nil {
				return err
			}
			if pooled[s.Name] == nil {
				pooled[s.Name] = record.NewHistogram()
			}
			i.H.Into(pooled[s.Name])
		}
		for _, s := range got.Late {
			late[s] = true
		}
		last = got.At
		run.Seconds = last.Sub(began).Seconds()
	}
	for name, h := range pooled {
		run.Series[name] = h.Summary()
	}
	for _, s := range slices.Sorted(maps.Keys(late)) {
		run.Notes = append(run.Notes, fmt.Sprintf("shard %d took no turn in time to be asked, once at least: what it had is in a later interval", s))
	}
	if last, err := whole.next(); err == nil {
		tail := new(TailProfile)
		if err := whole.ask(question{Tail: &tailQuestion{OverMS: int64(run.Seconds * 1000), Count: 10}}, tail); err == nil {
			run.Profile, err = json.Marshal(struct {
				*Profile
				Tail *TailProfile `json:"tail"`
			}{last, tail})
			if err != nil {
				return err
			}
		}
	}
	if err := out.Finish(run); err != nil {
		return err
	}
	return printRecorded(cmd.OutOrStdout(), into, run)
}

func printRecorded(w io.Writer, into string, run *record.Run) error {
	_, err := fmt.Fprintf(w, "%.1f s, %s, in %s\n", run.Seconds, term.Plural(len(run.Series), "histogram"), into)
	return err
}

// recorded encodes and empties a connection's windows. The caller holds Server.mu.
func (p *Server) recorded(windows []*metrics.Window) (*recordedInterval, error) {
	late := make([]bool, len(p.collectors))
	if p.broker != nil {
		p.collect(late)
	}
	v := &recordedInterval{At: time.Now(), Series: []recordedSeries{}}
	for i, w := range windows {
		if late[i] {
			v.Late = append(v.Late, i)
		}
		var failed error
		add := func(name string, h *metrics.Histogram) {
			if h.Count() == 0 {
				return
			}
			b, err := h.Encode()
			failed = errors.Join(failed, err)
			v.Series = append(v.Series, recordedSeries{fmt.Sprintf("shard%d.%s", i, name), string(b)})
		}
		for k := range metrics.Kinds {
			add(k.Name()+".total", w.Step(k, metrics.Received))
			for s := metrics.Parsed; s < metrics.Stages; s++ {
				add(k.Name()+"."+s.Name(k), w.Step(k, s))
			}
		}
		add("turn", w.Turn())
		w.Reset()
		if failed != nil {
			return nil, failed
		}
	}
	return v, nil
}
