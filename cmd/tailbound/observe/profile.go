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
	command := &cobra.Command{
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
			conn, err := dial(dir)
			if err != nil {
				return err
			}
			defer conn.close()
			got, err := conn.next()
			if err != nil {
				return err
			}
			if interval > 0 {
				time.Sleep(interval)
				if got, err = conn.next(); err != nil {
					return err
				}
			}
			if output != "table" {
				return term.PrintValue(cmd.OutOrStdout(), output, got)
			}
			return printProfile(cmd.OutOrStdout(), got, interval > 0)
		},
	}
	flags := command.Flags()
	flags.StringVar(&dir, "data-dir", term.EnvOr("TAILBOUND_DATA_DIR", "data"), "the broker's data directory")
	flags.BoolVar(&once, "once", false, "print once and end")
	term.OutputFlag(command, flags, &output)
	flags.BoolVar(&asJSON, "json", false, "as --output json: once, everything since the start (total) and within the interval (since)")
	flags.DurationVar(&interval, "interval", 0, "measure for so long; in a terminal: how often (1s)")
	command.AddCommand(profileTailCommand(), profileWatchCommand(), profileRecordCommand())
	return command
}

// watchLive shows the live view, which needs a terminal.
func watchLive(dir string, interval time.Duration) error {
	if !term.IsTerminal(os.Stdout) || !term.IsTerminal(os.Stdin) {
		return errors.New("the live view needs a terminal; give --once, or --output json")
	}
	return watchProfile(dir, max(interval, 250*time.Millisecond, cmp.Or(interval, time.Second)))
}

// printProfile prints tables of everything since the start, or of the interval.
func printProfile(out io.Writer, profile *Profile, interval bool) error {
	over := fmt.Sprintf("since the start %s ago", time.Duration(profile.UptimeSeconds*1e9).Round(time.Second))
	if interval {
		over = fmt.Sprintf("within %.1f s", profile.SinceSeconds)
	}
	fmt.Fprintf(out, "tailbound %s, process %d, %s\n", profile.Version, profile.PID, over)
	for _, shard := range profile.Shards {
		report := shard.Total
		if interval {
			report = shard.Since
		}
		role := "data shard"
		if shard.Shard == 0 {
			role = "control shard"
		}
		late := ""
		if shard.Late {
			late = "  TOOK NO TURN IN TIME: older figures"
		}
		fmt.Fprintf(out, "\n%s %d, node %d, %s%s\n", role, shard.Shard, shard.Node, shard.Address, late)
		table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(table, "\tcount\tp50\tp90\tp99\tp99.9\tmax\t")
		row := func(name string, summary metrics.Summary) {
			if summary.Count > 0 {
				fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t\n", name, summary.Count, term.ShortNS(summary.P50NS), term.ShortNS(summary.P90NS), term.ShortNS(summary.P99NS), term.ShortNS(summary.P999NS), term.ShortNS(summary.MaxNS))
			}
		}
		for _, kind := range report.Kinds {
			row(kind.Kind, kind.Total)
			for _, stage := range kind.Stages {
				row("· "+stage.Stage, stage.Took)
			}
		}
		row("turn", report.Turn)
		if err := table.Flush(); err != nil {
			return err
		}
		table = tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(table, "\tused\tpeak\tof\t")
		for _, pool := range shard.Levels {
			if pool.Used == 0 && pool.Peak == 0 {
				continue
			}
			peak := ""
			if pool.Peak > 0 {
				peak = fmt.Sprint(pool.Peak)
			}
			fmt.Fprintf(table, "%s\t%d\t%s\t%d\t\n", pool.Name, pool.Used, peak, pool.Max)
		}
		if err := table.Flush(); err != nil {
			return err
		}
		counters := shard.Counters
		fmt.Fprintf(out, "  %d turns, %d sleeps, %d spins that paid, %d wake-ups from other threads, %d completions\n", counters["turns"], counters["sleeps"], counters["spin_hits"], counters["wakes"], counters["completions"])
		if n := counters["turns"]; n > 0 && counters["frames"] > 0 {
			one, more := counters["turns_in_flight1"], counters["turns_in_flight2"]
			fmt.Fprintf(out, "  %d journal frames; in flight at the end of turns: none %.1f%%, one %.1f%%, more %.1f%%\n", counters["frames"], percent(n-one-more, n), percent(one, n), percent(more, n))
		}
	}
	if disk := profile.Disk; disk.SizeBytes > 0 {
		fmt.Fprintf(out, "\ndisk     %s free of %s; %d inodes free of %d\n", mib(disk.FreeBytes), mib(disk.SizeBytes), disk.FreeInodes, disk.Inodes)
	}
	process := profile.Process
	_, err := fmt.Fprintf(out, "\nprocess  %s resident (at most %s), %s locked; Go: %s mapped, %s live, limit %s\n         %d collections, %d pauses, p99 %s, max %s; %d objects allocated, %d by profiles\n",
		mib(process.RSSBytes), mib(process.RSSPeakBytes), mib(process.LockedBytes), mib(process.GoBytes), mib(process.HeapLiveBytes), mib(process.HeapLimitBytes),
		process.GCCycles, process.GCPauses.Count, term.ShortNS(process.GCPauses.P99NS), term.ShortNS(process.GCPauses.MaxNS), process.HeapAllocsObjects, process.ProfileAllocsObjects)
	return err
}

func percent(part, whole uint64) float64 { return float64(part) * 100 / float64(whole) }

func mib(n uint64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
