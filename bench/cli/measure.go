package cli

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/tailbound/tailbound/bench/record"
	"github.com/tailbound/tailbound/bench/trial"
)

// measureCommand is bench itself: one load.
func measureCommand(host *Host) *cobra.Command {
	p := trial.Default()
	var o single
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure the latency and throughput of any Kafka broker",
		Long: `Measure any broker that speaks Kafka's protocol with an open loop: each request
has an instant at which it is meant to be sent, and its latency counts from
there, whatever held it back. Nothing is omitted, and percentiles are of pooled
histograms.

The recording is a directory: run.json says what was asked of what on which
machine and what came out; latency.hlog has every interval's histograms for the
tools of HdrHistogram. ` + "`bench compare`" + ` puts two side by side, ` + "`bench report`" + ` makes a
page to read, ` + "`bench versus`" + ` measures several systems in turn.

Where the load generator was the limit, the result says so.`,
		Example: `  tailbound bench --serve --rate 2000 --records 100 --record-bytes 1000 --reader 1
  tailbound bench -b kafka:9092 --rate 5000 --records 1 --record-bytes 100 --arrivals poisson
  tailbound bench --rate 1000 --reader 1 --reader slow=1,mb=10 --reader catch-up=2,after=20s
  tailbound bench knee --serve --within "produce p99 < 2ms"
  tailbound bench run voice --serve
  tailbound bench versus --systems tailbound,tailbound@/tmp/before,tailbound
  tailbound bench compare bench/results/A bench/results/B
  tailbound bench report bench/results/A -o report.html`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p.Name = "bench"
			return o.with(cmd, "bench", func(ctx context.Context, s trial.System, e trial.Env, got *measured) error {
				run, err := trial.Run(ctx, p, s, e)
				if err == nil {
					got.add(cmd.OutOrStdout(), o.output, run)
				}
				return err
			})
		},
	}
	o.addTo(c, host)
	planFlags(c.Flags(), &p)
	return c
}

func kneeCommand(host *Host) *cobra.Command {
	p := trial.Default()
	p.Duration, p.Warmup = 8*time.Second, 2*time.Second
	var o single
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
			return o.with(cmd, "knee", func(ctx context.Context, s trial.System, e trial.Env, got *measured) (err error) {
				got.Knee, err = trial.FindKnee(p, within, tolerance, e.Live, func(p trial.Plan, name string) (*record.Run, error) {
					return trial.Run(ctx, p, s, e.Below(name))
				})
				if err == nil && o.output == "table" {
					got.Knee.Print(cmd.OutOrStdout(), p.Records, p.RecordBytes)
				}
				return err
			})
		},
	}
	o.addTo(c, host)
	f := c.Flags()
	planFlags(f, &p)
	f.StringArrayVar(&within, "within", []string{"produce p99 < 2ms"}, "the bound; all of several have to hold")
	f.Float64Var(&tolerance, "tolerance", tolerance, "it ends when the lowest rate that fails is so much above the highest that holds")
	return c
}

func hiccupCommand(host *Host) *cobra.Command {
	o := Options{host: host}
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
			ctx, stop := interruptible(cmd)
			defer stop()
			e, err := o.Env(cmd, "hiccup", false)
			if err != nil {
				return err
			}
			if h.CPUs == nil {
				for cpu := range runtime.NumCPU() {
					h.CPUs = append(h.CPUs, cpu)
				}
			}
			if disk {
				h.Disk = o.ServeDir
			}
			if err := os.MkdirAll(o.ServeDir, 0o755); err != nil {
				return err
			}
			e.Disk = o.ServeDir
			run, err := h.Measure(ctx, e)
			if err != nil {
				return err
			}
			got := &measured{Recording: e.Dir}
			if o.output == "table" {
				fmt.Fprintln(cmd.OutOrStdout(), run.Machine.Lines())
			}
			got.add(cmd.OutOrStdout(), o.output, run)
			return got.end(cmd.OutOrStdout(), o.output)
		},
	}
	f := c.Flags()
	f.Var((*seconds)(&h.Duration), "duration", "of each of the parts")
	f.IntSliceVar(&h.CPUs, "cpus", nil, "cores to look at; by default all")
	f.BoolVar(&h.Spin, "spin", true, "also a thread that never sleeps, on one core after the other")
	f.BoolVar(&disk, "disk", true, "also the disk of --dir")
	f.StringVar(&o.ServeDir, "dir", "tmp", "a directory on the disk that is meant")
	f.StringVarP(&o.out, "out", "o", "", "directory of the recording; by default one below bench/results")
	f.StringToStringVar(&o.label, "label", nil, "KEY=VALUE for the recording")
	outputFlag(c, &o.output)
	return c
}
