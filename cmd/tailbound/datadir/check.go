package datadir

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/tailbound/tailbound/cmd/tailbound/term"
	"github.com/tailbound/tailbound/engine/recovery"
)

func checkCommand() *cobra.Command {
	var asJSON bool
	var output string
	command := &cobra.Command{
		Use:   "check DIR",
		Short: "Re-read and verify everything in a data directory",
		Long: `Re-read and verify everything in a data directory: superblock, checkpoints,
journals, and every run of every segment. Nothing is written. The broker must
not be running on it.

Exit status: 0 where everything verifies, 1 where something does not, 2 where
it could not be looked at.`,
		Example: "  tailbound check /var/lib/tailbound\n  tailbound check /var/lib/tailbound --output json | jq '.logs[] | select(.problems != [])'",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if asJSON {
				output = "json"
			}
			if err := term.CheckOutput(output); err != nil {
				return notLookedAt(err)
			}
			dir, err := openOffline(args[0])
			var report *recovery.CheckReport
			if err == nil {
				defer dir.close()
				report, err = dir.check()
			}
			if err != nil {
				return notLookedAt(err)
			}
			if output != "table" {
				if err := term.PrintValue(cmd.OutOrStdout(), output, dir.json(report)); err != nil {
					return err
				}
			} else {
				dir.print(cmd.OutOrStdout(), report)
			}
			if len(report.Problems()) > 0 {
				return term.ExitStatus(1)
			}
			return nil
		},
	}
	term.OutputFlag(command, command.Flags(), &output)
	command.Flags().BoolVar(&asJSON, "json", false, "as --output json")
	return command
}

// checkJSON is what check prints as JSON and YAML. The names stay.
type checkJSON struct {
	Directory string    `json:"directory"`
	Epoch     uint32    `json:"epoch"`
	CleanStop bool      `json:"clean_stop"`
	Frames    int       `json:"frames"`
	Logs      []logJSON `json:"logs"`
}

type logJSON struct {
	ID       uint64        `json:"id"`
	Name     string        `json:"name"` // TOPIC/PARTITION, or log:ID without a topic
	Start    int64         `json:"start"`
	End      int64         `json:"end"`
	Segments int           `json:"segments"`
	Runs     int           `json:"runs"`
	Batches  int           `json:"batches"`
	Bytes    int64         `json:"bytes"`
	Problems []problemJSON `json:"problems"`
}

// problemJSON is a place that does not verify: at is a byte of the file, and what is
// concerned are the records first to end - 1.
type problemJSON struct {
	File  string `json:"file"`
	At    int64  `json:"at"`
	First int64  `json:"first"`
	End   int64  `json:"end"`
	What  string `json:"what"`
}

func (d *offline) json(report *recovery.CheckReport) checkJSON {
	c := checkJSON{fmt.Sprintf("%x", report.Directory), report.Epoch, report.Clean, report.Frames, []logJSON{}}
	for _, log := range report.Logs {
		c.Logs = append(c.Logs, logJSON{log.ID, d.name(log.ID), log.Start, log.End, log.Segments, log.Runs, log.Batches, log.Bytes, problemsJSON(log.Problems)})
	}
	return c
}

func problemsJSON(all []recovery.Problem) []problemJSON {
	rows := []problemJSON{}
	for _, problem := range all {
		rows = append(rows, problemJSON{problem.Path, problem.At, problem.From, problem.To, problem.What})
	}
	return rows
}

func (d *offline) print(out io.Writer, report *recovery.CheckReport) {
	end := "a clean stop"
	if !report.Clean {
		end = "no clean stop: the next start recovers"
	}
	fmt.Fprintf(out, "%s: directory %x, epoch %d, %s\n", d.dir, report.Directory, report.Epoch, end)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "log\tstart\tend\tsegments\truns\tbytes\tproblems\t of")
	for _, log := range report.Logs {
		fmt.Fprintf(table, "%d\t%d\t%d\t%d\t%d\t%d\t%d\t %s\n", log.ID, log.Start, log.End, log.Segments, log.Runs, log.Bytes, len(log.Problems), d.name(log.ID))
	}
	table.Flush()
	sum := report.Sum()
	fmt.Fprintf(out, "read and verified: %d logs, %d segments, %d runs, %d batches, %d bytes; %d journal frames to replay\n", len(report.Logs), sum.Segments, sum.Runs, sum.Batches, sum.Bytes, report.Frames)
	for _, log := range report.Logs {
		for _, problem := range log.Problems {
			fmt.Fprintf(out, "PROBLEM: %s (log %d): %s\n", d.name(log.ID), log.ID, problem)
		}
	}
	if d.topics.Err != nil {
		fmt.Fprintf(out, "the control log could not be followed to its end, so some logs have no name: %v\n", d.topics.Err)
	}
	if len(report.Problems()) > 0 {
		fmt.Fprintf(out, "tailbound repair %s shows what could be done\n", d.dir)
	}
	if len(report.Problems()) == 0 {
		fmt.Fprintln(out, "no problems")
	}
}
