package observe

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tailbound/tailbound/cmd/tailbound/term"
	"github.com/tailbound/tailbound/metrics"
)

// Command is `tailbound profile`, with tail, watch and record below it.
func Command() *cobra.Command {
	var dir, output string
	var asJSON, once bool
	var interval time.Duration
	c := &cobra.Command{
		Use:   "profile [--data-dir DIR]",
		Short: "Show where a running broker's time goes, by shard and stage",
		Long: `Show where a running broker's time goes: for each shard and each stage of a
request's way how long it took to get there from the stage before, how long
turns took, how full the pools are, and what the process uses.

The broker answers on profile.sock in its data directory; only its owner may
ask. In a terminal it goes on; --once prints everything since the start, or,
with --interval, what came within that time.`,
		Example: `  tailbound profile --data-dir /var/lib/tailbound
  tailbound profile --data-dir /var/lib/tailbound --once
  tailbound profile --once --interval 10s
  tailbound profile --once --output json | jq .process.heap_allocs_objects
  tailbound profile tail --data-dir /var/lib/tailbound --once`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON {
				output = "json"
			}
			if err := term.CheckOutput(output); err != nil {
				return err
			}
			if !once && output == "table" {
				return watchLive(dir, interval)
			}
			p, err := dial(dir)
			if err != nil {
				return err
			}
			defer p.close()
			got, err := p.next()
			if err != nil {
				return err
			}
			if interval > 0 {
				time.Sleep(interval)
				if got, err = p.next(); err != nil {
					return err
				}
			}
			if output != "table" {
				return term.PrintValue(cmd.OutOrStdout(), output, got)
			}
			return printProfile(cmd.OutOrStdout(), got, interval > 0)
		},
	}
	f := c.Flags()
	f.StringVar(&dir, "data-dir", term.EnvOr("TAILBOUND_DATA_DIR", "data"), "the broker's data directory")
	f.BoolVar(&once, "once", false, "print once and end")
	term.OutputFlag(c, f, &output)
	f.BoolVar(&asJSON, "json", false, "as --output json: once, everything since the start (total) and within the interval (since)")
	f.DurationVar(&interval, "interval", 0, "measure for so long; in a terminal: how often (1s)")
	c.AddCommand(profileTailCommand(), profileWatchCommand(), profileRecordCommand())
	return c
}

// watchLive shows the live view, which needs a terminal.
func watchLive(dir string, interval time.Duration) error {
	if !term.IsTerminal(os.Stdout) || !term.IsTerminal(os.Stdin) {
		return errors.New("the live view needs a terminal; give --once, or --output json")
	}
	return watchProfile(dir, max(interval, 250*time.Millisecond, cmp.Or(interval, time.Second)))
}

// printProfile prints tables of everything since the start, or of the interval.
func printProfile(w io.Writer, p *Profile, interval bool) error {
	over := fmt.Sprintf("since the start %s ago", time.Duration(p.UptimeSeconds*1e9).Round(time.Second))
	if interval {
		over = fmt.Sprintf("within %.1f s", p.SinceSeconds)
	}
	fmt.Fprintf(w, "tailbound %s, process %d, %s\n", p.Version, p.PID, over)
	for _, s := range p.Shards {
		r := s.Total
		if interval {
			r = s.Since
		}
		role := "data shard"
		if s.Shard == 0 {
			role = "control shard"
		}
		late := ""
		if s.Late {
			late = "  TOOK NO TURN IN TIME: older figures"
		}
		fmt.Fprintf(w, "\n%s %d, node %d, %s%s\n", role, s.Shard, s.Node, s.Address, late)
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(t, "\tcount\tp50\tp90\tp99\tp99.9\tmax\t")
		row := func(name string, s metrics.Summary) {
			if s.Count > 0 {
				fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t\n", name, s.Count, term.ShortNS(s.P50NS), term.ShortNS(s.P90NS), term.ShortNS(s.P99NS), term.ShortNS(s.P999NS), term.ShortNS(s.MaxNS))
			}
		}
		for _, k := range r.Kinds {
			row(k.Kind, k.Total)
			for _, stage := range k.Stages {
				row("· "+stage.Stage, stage.Took)
			}
		}
		row("turn", r.Turn)
		if err := t.Flush(); err != nil {
			return err
		}
		t = tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(t, "\tused\tpeak\tof\t")
		for _, l := range s.Levels {
			if l.Used == 0 && l.Peak == 0 {
				continue
			}
			peak := ""
			if l.Peak > 0 {
				peak = fmt.Sprint(l.Peak)
			}
			fmt.Fprintf(t, "%s\t%d\t%s\t%d\t\n", l.Name, l.Used, peak, l.Max)
		}
		if err := t.Flush(); err != nil {
			return err
		}
		c := s.Counters
		fmt.Fprintf(w, "  %d turns, %d sleeps, %d spins that paid, %d wake-ups from other threads, %d completions\n", c["turns"], c["sleeps"], c["spin_hits"], c["wakes"], c["completions"])
		if n := c["turns"]; n > 0 && c["frames"] > 0 {
			one, more := c["turns_in_flight1"], c["turns_in_flight2"]
			fmt.Fprintf(w, "  %d journal frames; in flight at the end of turns: none %.1f%%, one %.1f%%, more %.1f%%\n", c["frames"], percent(n-one-more, n), percent(one, n), percent(more, n))
		}
	}
	g := p.Process
	_, err := fmt.Fprintf(w, "\nprocess  %s resident (at most %s), %s locked; Go: %s mapped, %s live\n         %d collections, %d pauses, p99 %s, max %s; %d objects allocated, %d by profiles\n",
		mib(g.RSSBytes), mib(g.RSSPeakBytes), mib(g.LockedBytes), mib(g.GoBytes), mib(g.HeapLiveBytes),
		g.GCCycles, g.GCPauses.Count, term.ShortNS(g.GCPauses.P99NS), term.ShortNS(g.GCPauses.MaxNS), g.HeapAllocsObjects, g.ProfileAllocsObjects)
	return err
}

func percent(part, whole uint64) float64 { return float64(part) * 100 / float64(whole) }

func mib(n uint64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
