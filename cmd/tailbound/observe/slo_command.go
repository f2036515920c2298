package observe

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tailbound/tailbound/cmd/tailbound/term"
)

func profileWatchCommand() *cobra.Command {
	var dir, output string
	var asJSON, once bool
	var interval time.Duration
	command := &cobra.Command{
		Use:   "watch [slo]",
		Short: "Watch a broker: where its time goes, or how fast error budgets burn",
		Long: `Watch a broker. By itself it is the live view of ` + "`tailbound profile`" + `. With slo
it says of each topic that has a latency objective how fast its error budget
burns.

latency.slo.ms is how long a produce or fetch of the topic may take, and
latency.slo.target the share of its requests that is to keep it. The rest is the
budget of 30 days; a burn rate of 1 spends it in 30 days, one of 14.4 spends 2 %
of it in an hour. Two windows at a time say what is to be done, as in the Site
Reliability Workbook: page above 14.4 (1h and 5m) or 6 (6h and 30m), ticket
above 3 (1d and 2h) or 1 (3d and 6h). What is counted goes back to the broker's
start, or to when the objective was set.`,
		Example: `  tailbound topic alter orders -s latency.slo.ms=5 -s latency.slo.target=0.999
  tailbound profile watch slo --data-dir /var/lib/tailbound
  tailbound profile watch slo --once --output json | jq '.topics[] | select(.alert != "none")'`,
		Args: cobra.MatchAll(cobra.MaximumNArgs(1), func(_ *cobra.Command, words []string) error {
			if len(words) > 0 && !strings.EqualFold(words[0], "slo") {
				return errors.New("it is slo, or nothing")
			}
			return nil
		}),
		ValidArgs: []string{"slo"},
		RunE: func(cmd *cobra.Command, words []string) error {
			if asJSON {
				output = "json"
			}
			if err := term.CheckOutput(output); err != nil {
				return err
			}
			if interval < 0 {
				return errors.New("--interval is not less than nothing")
			}
			if len(words) == 0 {
				if once || output != "table" {
					return errors.New("for the profile, once or as JSON or YAML, it is `tailbound profile`; of error budgets it is `tailbound profile watch slo`")
				}
				return watchLive(dir, interval)
			}
			conn, err := dial(dir)
			if err != nil {
				return err
			}
			defer conn.close()
			for {
				got := new(SLOProfile)
				if err := conn.ask(question{SLO: true}, got); err != nil {
					return err
				}
				out := cmd.OutOrStdout()
				err := term.PrintRepeated(out, output, once, got, func(coloured bool) error { return printSLO(out, got, coloured) })
				if err != nil || once {
					return err
				}
				select {
				case <-time.After(cmp.Or(interval, 5*time.Second)):
				case <-cmd.Context().Done():
					return nil
				}
			}
		},
	}
	flags := command.Flags()
	flags.StringVar(&dir, "data-dir", term.EnvOr("TAILBOUND_DATA_DIR", "data"), "the broker's data directory")
	flags.DurationVar(&interval, "interval", 0, "how often (5s; the live view 1s)")
	flags.BoolVar(&once, "once", false, "print once and end")
	term.OutputFlag(command, flags, &output)
	flags.BoolVar(&asJSON, "json", false, "as --output json")
	return command
}

// windowText is the length of a window: 5m, 6h, 3d.
func windowText(seconds int64) string {
	switch {
	case seconds > 86400 && seconds%86400 == 0, seconds == 86400:
		return fmt.Sprintf("%dd", seconds/86400)
	case seconds%3600 == 0:
		return fmt.Sprintf("%dh", seconds/3600)
	}
	return fmt.Sprintf("%dm", seconds/60)
}

func printSLO(out io.Writer, slo *SLOProfile, coloured bool) error {
	fmt.Fprintf(out, "tailbound %s, process %d, %s\n", slo.Version, slo.PID, slo.At.Format("15:04:05"))
	if len(slo.Topics) == 0 {
		_, err := fmt.Fprintln(out, "no topic has an objective: tailbound topic alter TOPIC -s latency.slo.ms=5")
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	head := "topic\tobjective\trequests\tmissed\tbudget left\t"
	for _, window := range slo.Topics[0].Windows {
		head += windowText(window.Seconds) + "\t"
	}
	fmt.Fprintln(table, head+"lasts\t")
	for _, topic := range slo.Topics {
		lasts := ""
		if topic.BudgetLastsS > 0 {
			lasts = shortTime(topic.BudgetLastsS)
		}
		row := fmt.Sprintf("%s\t%.5g%% within %s\t%d\t%d\t%.1f%%\t", topic.Topic, topic.Target*100, term.ShortNS(topic.LimitNS), topic.Requests, topic.Missed, topic.BudgetLeft*100)
		for _, n := range topic.Windows {
			text := term.ShortNumber(n.Burn)
			if !n.Covered {
				text += "*"
			}
			row += text + "\t"
		}
		fmt.Fprintln(table, row+lasts+"\t")
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, topic := range slo.Topics {
		text := ""
		switch topic.Alert {
		case "page":
			text = fmt.Sprintf("PAGE    %s spends its error budget too fast to wait", topic.Topic)
			if coloured {
				text = styleBad.Render(text)
			}
		case "ticket":
			text = fmt.Sprintf("ticket  %s spends its error budget faster than it lasts", topic.Topic)
			if coloured {
				text = styleWarn.Render(text)
			}
		}
		if text != "" {
			fmt.Fprintln(out, text)
		}
	}
	_, err := fmt.Fprintln(out, "burn rates: 1 spends the budget in 30 days; *: of what there is, less than the window")
	return err
}

// shortTime is a duration in its largest unit: 3.5 d, 20 min.
func shortTime(seconds float64) string {
	for _, u := range []struct {
		s    float64
		name string
	}{{86400, "d"}, {3600, "h"}, {60, "min"}} {
		if seconds >= u.s {
			return fmt.Sprintf("%.3g %s", seconds/u.s, u.name)
		}
	}
	return fmt.Sprintf("%.3g s", seconds)
}
