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
	c := &cobra.Command{
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
			d, err := openOffline(args[0])
			var report *recovery.CheckReport
			if err == nil {
				defer d.close()
				report, err = d.check()
			}
			if err != nil {
				return notLookedAt(err)
			}
			if output != "table" {
				if err := term.PrintValue(cmd.OutOrStdout(), output, d.json(report)); err != nil {
					return err
				}
			} else {
				d.print(cmd.OutOrStdout(), report)
			}
			if len(report.Problems()) > 0 {
				return term.ExitStatus(1)
			}
			return nil
		},
	}
	term.OutputFlag(c, c.Flags(), &output)
	c.Flags().BoolVar(&asJSON, "json", false, "as --output json")
	return c
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
	Name     string        `json:"name"` // TOPIC/PARTITION, where it has one
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

func (d *offline) json(r *recovery.CheckReport) checkJSON {
	c := checkJSON{fmt.Sprintf("%x", r.Directory), r.Epoch, r.Clean, r.Frames, []logJSON{}}
	for _, l := range r.Logs {
		c.Logs = append(c.Logs, logJSON{l.ID, d.name(l.ID), l.Start, l.End, l.Segments, l.Runs, l.Batches, l.Bytes, problemsJSON(l.Problems)})
	}
	return c
}

func problemsJSON(all []recovery.Problem) []problemJSON {
	rows := []problemJSON{}
	for _, p := range all {
		rows = append(rows, problemJSON{p.Path, p.At, p.From, p.To, p.What})
	}
	return rows
}

func (d *offline) print(w io.Writer, r *recovery.CheckReport) {
	end := "a clean stop"
	if !r.Clean {
		end = "no clean stop: the next start recovers"
	}
	fmt.Fprintf(w, "%s: directory %x, epoch %d, %s\n", d.dir, r.Directory, r.Epoch, end)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "log\tstart\tend\tsegments\truns\tbytes\tproblems\t of")
	for _, l := range r.Logs {
		fmt.Fprintf(t, "%d\t%d\t%d\t%d\t%d\t%d\t%d\t %s\n", l.ID, l.Start, l.End, l.Segments, l.Runs, l.Bytes, len(l.Problems), d.name(l.ID))
	}
	t.Flush()
	sum := r.Sum()
	fmt.Fprintf(w, "read and verified: %d logs, %d segments, %d runs, %d batches, %d bytes; %d journal frames to replay\n", len(r.Logs), sum.Segments, sum.Runs, sum.Batches, sum.Bytes, r.Frames)
	for _, l := range r.Logs {
		for _, p := range l.Problems {
			fmt.Fprintf(w, "PROBLEM: %s (log %d): %s\n", d.name(l.ID), l.ID, p)
		}
	}
	if d.topics.Err != nil {
		fmt.Fprintf(w, "the control log could not be followed to its end, so some logs have no name: %v\n", d.topics.Err)
	}
	if len(r.Problems()) > 0 {
		fmt.Fprintf(w, "tailbound repair %s shows what could be done\n", d.dir)
	}
	if len(r.Problems()) == 0 {
		fmt.Fprintln(w, "no problems")
	}
}
