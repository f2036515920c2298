package observe

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"

	"github.com/tailbound/tailbound/cmd/tailbound/term"
	"github.com/tailbound/tailbound/metrics"
)

func profileTailCommand() *cobra.Command {
	var dir, output string
	var asJSON, once bool
	var interval time.Duration
	var count int
	command := &cobra.Command{
		Use:   "tail [--data-dir DIR]",
		Short: "Show the slowest requests, each as a timeline with a verdict",
		Long: `Show the slowest requests of a running broker, each as a timeline with a
verdict, and which causes the time above the p99 had.

Each data shard keeps the slowest of every second whole: when they reached each
stage, and what the shard, its thread and its disk did meanwhile. What is kept
reaches about a minute back: --once shows it, or as much of it as --interval
says. Without --once it goes on, an interval after the other.

A request counts from the turn that saw its last byte to the one that saw its
answer taken; what a fetch waits for data is nobody's fault, and left out.`,
		Example: `  tailbound profile tail --once
  tailbound profile tail --interval 5s --count 3
  tailbound profile tail --once --output json | jq '.shards[].kinds[] | {kind, p99_ns, causes}'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON {
				output = "json"
			}
			if err := term.CheckOutput(output); err != nil {
				return err
			}
			if count < 0 || interval < 0 {
				return errors.New("--count and --interval are not less than nothing")
			}
			over := interval
			if over == 0 {
				over = 10 * time.Second
				if once {
					over = time.Minute
				}
			}
			conn, err := dial(dir)
			if err != nil {
				return err
			}
			defer conn.close()
			out := cmd.OutOrStdout()
			for {
				if !once {
					select {
					case <-time.After(over):
					case <-cmd.Context().Done():
						return nil
					}
				}
				got := new(TailProfile)
				if err := conn.ask(question{Tail: &tailQuestion{OverMS: over.Milliseconds(), Count: count}}, got); err != nil {
					return err
				}
				err := term.PrintRepeated(out, output, once, got, func(coloured bool) error { return printTail(out, got, coloured) })
				if err != nil || once {
					return err
				}
			}
		},
	}
	flags := command.Flags()
	flags.StringVar(&dir, "data-dir", term.EnvOr("TAILBOUND_DATA_DIR", "data"), "the broker's data directory")
	flags.DurationVar(&interval, "interval", 0, "of how long (10s; with --once what is kept, a minute)")
	flags.IntVar(&count, "count", 3, "how many requests of each kind and shard")
	flags.BoolVar(&once, "once", false, "print once, of what has been kept, and end")
	term.OutputFlag(command, flags, &output)
	flags.BoolVar(&asJSON, "json", false, "as --output json")
	return command
}

// causeMarks are the signs of causes in a timeline: a letter, or a colour on a
// terminal.
var causeMarks = [metrics.Causes]struct {
	letter byte
	colour int // of the terminal's 256
}{
	metrics.OwnQueueing: {'q', 39}, metrics.Gathering: {'g', 73}, metrics.DiskWrite: {'w', 179}, metrics.DiskSync: {'s', 214},
	metrics.AwayFromCPU: {'A', 197}, metrics.GarbageCollection: {'G', 129}, metrics.Stolen: {'S', 201}, metrics.SlowReader: {'R', 34},
	metrics.NeighbourLog: {'N', 45}, metrics.Flushing: {'D', 136}, metrics.Preparing: {'P', 102}, metrics.ColdRead: {'C', 33},
}

// causeOf is a cause by its name.
func causeOf(name string) metrics.Cause {
	for c := range metrics.Causes {
		if c.Name() == name {
			return c
		}
	}
	return metrics.OwnQueueing // a cause that only a newer broker knows
}

// markOf is the sign of a cause, n times.
func markOf(cause string, n int, coloured bool) string {
	m := causeMarks[causeOf(cause)]
	if coloured {
		return lipgloss.NewStyle().Foreground(lipgloss.ANSIColor(m.colour)).Render(strings.Repeat("█", n))
	}
	return strings.Repeat(string(m.letter), n)
}

// printTail prints the report for people.
func printTail(out io.Writer, tail *TailProfile, coloured bool) error {
	text := new(strings.Builder)
	bold, faint := func(s string) string { return s }, func(s string) string { return s }
	if coloured {
		bold, faint = func(s string) string { return styleTitle.Render(s) }, func(s string) string { return styleFaint.Render(s) }
	}
	fmt.Fprintf(text, "tailbound %s, process %d, %s\n", tail.Version, tail.PID, tail.At.Format("15:04:05"))
	for _, shard := range tail.Shards {
		late := ""
		if shard.Late {
			late = "  TOOK NO TURN IN TIME: older figures"
		}
		fmt.Fprintf(text, "\n%s, node %d, %s, the last %.1f s%s\n", bold(fmt.Sprintf("data shard %d", shard.Shard)), shard.Node, shard.Address, shard.Seconds, late)
		any := false
		for _, kind := range shard.Kinds {
			if kind.Requests > 0 {
				any = true
				kind.print(text, bold, faint, coloured)
			}
		}
		if !any {
			fmt.Fprintln(text, "  no requests")
		}
	}
	_, err := io.WriteString(out, text.String())
	return err
}

const barWidth = 64

// print prints a kind: its quantiles, the causes of its tail, its slowest requests.
func (k *TailKind) print(text *strings.Builder, bold, faint func(string) string, coloured bool) {
	fmt.Fprintf(text, "\n%s  %d requests   p50 %s   p99 %s   p99.9 %s   max %s\n", bold(k.Kind), k.Requests, term.ShortNS(k.P50NS), term.ShortNS(k.P99NS), term.ShortNS(k.P999NS), term.ShortNS(k.MaxNS))
	if k.AboveP99 > 0 {
		fmt.Fprintf(text, "  the time above the p99, %s in %d of the slowest, went to\n", term.ShortNS(k.AboveP99NS), k.AboveP99)
		for _, cause := range k.Causes {
			if cause.Share >= 0.005 {
				fmt.Fprintf(text, "    %-14s %5.1f%%  %s\n", cause.Cause, cause.Share*100, markOf(cause.Cause, max(1, int(cause.Share*40+0.5)), coloured))
			}
		}
	}
	for _, request := range k.Slowest {
		request.print(text, bold, faint, coloured)
	}
}

// print prints a request: verdict, timeline, stages of half a percent or more.
func (r *SlowRequest) print(b *strings.Builder, bold, faint func(string) string, coloured bool) {
	what := r.Topic
	if what == "" {
		what = "no partition"
	} else {
		what = fmt.Sprintf("%s/%d offset %d", what, r.Partition, r.Offset)
	}
	if r.Partitions > 1 {
		what += fmt.Sprintf(" and %d more", r.Partitions-1)
	}
	fmt.Fprintf(b, "\n  %s  %s  %s, %s\n", bold(term.ShortNS(r.TookNS+r.EarlyNS)), r.At.Format("15:04:05.000"), what, term.ShortBytes(r.Bytes))
	fmt.Fprintf(b, "  %s: %s\n", bold(r.Cause), r.Verdict)
	fmt.Fprintf(b, "  ▕%s▏\n", r.bar(coloured))
	whole := r.TookNS + r.EarlyNS
	line := func(name string, took int64, causes []CauseShare, around *metrics.Step) {
		if took*200 < whole {
			return
		}
		var parts []string
		for _, cause := range causes {
			if cause.NS*200 >= whole {
				parts = append(parts, cause.Cause+" "+term.ShortNS(cause.NS))
			}
		}
		text := fmt.Sprintf("    %-10s %9s  %s", name, term.ShortNS(took), strings.Join(parts, ", "))
		if around.Turns > 0 {
			text += faint(fmt.Sprintf("  (%s)", aroundText(around)))
		}
		fmt.Fprintln(b, text)
	}
	for i, stage := range r.Stages {
		if i == 0 {
			line("unseen", r.EarlyNS, stage.Causes, &stage.Around)
			continue
		}
		took := stage.TookNS
		if stage.Stage == "found" {
			took -= r.IdleNS
		}
		line(stage.Stage, took, stage.Causes, &stage.Around)
	}
	var beside []string
	for work := range metrics.DiskWorks {
		if n := r.Disk[work.Name()]; n > 0 {
			beside = append(beside, work.Name()+" "+term.ShortBytes(n))
		}
	}
	if len(beside) > 0 {
		fmt.Fprintln(b, faint("    at the disk meanwhile: "+strings.Join(beside, ", ")))
	}
	if len(r.Waited) > 0 {
		fmt.Fprintln(b, faint("    waited for: "+strings.Join(r.Waited, ", ")))
	}
}

// aroundText is what the shard's turns did during a step.
func aroundText(step *metrics.Step) string {
	text := fmt.Sprintf("%s of %s", term.Plural(int(step.Turns), "turn"), term.ShortNS(step.Busy))
	for _, x := range []struct {
		name string
		ns   int64
	}{{"away", step.Away}, {"GC", step.GC}, {"steal", step.Steal}} {
		if x.ns > 0 {
			text += ", " + x.name + " " + term.ShortNS(x.ns)
		}
	}
	return text
}

// bar is the request's time from left to right, a sign for the cause of each part.
func (r *SlowRequest) bar(coloured bool) string {
	whole := r.TookNS + r.EarlyNS
	if whole <= 0 {
		return strings.Repeat(" ", barWidth)
	}
	var text strings.Builder
	done, cells := int64(0), 0
	for _, stage := range r.Stages {
		inOrder := slices.Clone(stage.Causes)
		slices.SortFunc(inOrder, func(a, b CauseShare) int { return cmp.Compare(causeOf(a.Cause), causeOf(b.Cause)) })
		for _, cause := range inOrder {
			done += cause.NS
			if to := min(barWidth, int(done*barWidth/whole)); to > cells {
				text.WriteString(markOf(cause.Cause, to-cells, coloured))
				cells = to
			}
		}
	}
	return text.String() + strings.Repeat("·", barWidth-cells)
}
