package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"tailbound/engine"
	"tailbound/ioring"
	"tailbound/mem"
	"tailbound/shard"
)

func checkCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "check DIR",
		Short: "Re-read and verify everything in a data directory",
		Long: `Re-read and verify everything in a data directory: superblock, checkpoints,
journals, and every run of every segment. Nothing is written. The broker must
not be running on it.

Exit status: 0 where everything verifies, 1 where something does not, 2 where
it could not be looked at.`,
		Example: "  tailbound check /var/lib/tailbound\n  tailbound check --json /var/lib/tailbound | jq '.logs[] | select(.problems != [])'",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			report, err := check(args[0])
			if err != nil {
				fmt.Fprintln(os.Stderr, "tailbound: "+err.Error())
				return exitStatus(2)
			}
			if asJSON {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				if err := e.Encode(jsonReport(report)); err != nil {
					return err
				}
			} else {
				printReport(cmd.OutOrStdout(), args[0], report)
			}
			if len(report.Problems()) > 0 {
				return exitStatus(1)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the report as JSON")
	return c
}

func check(dir string) (*engine.CheckReport, error) {
	if _, err := os.Stat(filepath.Join(dir, "superblock")); err != nil {
		return nil, fmt.Errorf("%s is no data directory of Tailbound: %w", dir, err)
	}
	lock, err := lockDirectory(dir)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	root, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	_, direct := ioring.DirectIO(root)
	runtime.LockOSThread()
	arena, err := mem.Map(shard.CheckArenaBytes, mem.Options{})
	if err != nil {
		return nil, err
	}
	ring, err := ioring.NewKernel(ioring.KernelOptions{Entries: 64, CQEntries: 256, Files: shard.CheckFiles, Sockets: 1, RootFD: root, Features: ioring.AllFeatures, Buffered: direct != nil})
	if err != nil {
		return nil, err
	}
	defer ring.Close()
	return engine.Check(ring, arena, shard.CheckOptions())
}

// checkJSON is what --json prints. The names stay.
type checkJSON struct {
	Directory string    `json:"directory"`
	Epoch     uint32    `json:"epoch"`
	CleanStop bool      `json:"clean_stop"`
	Frames    int       `json:"frames"`
	Logs      []logJSON `json:"logs"`
}

type logJSON struct {
	ID       uint64        `json:"id"`
	Start    int64         `json:"start"`
	End      int64         `json:"end"`
	Segments int           `json:"segments"`
	Runs     int           `json:"runs"`
	Batches  int           `json:"batches"`
	Bytes    int64         `json:"bytes"`
	Problems []problemJSON `json:"problems"`
}

// problemJSON: at is a byte of the file; the records are first to end - 1.
type problemJSON struct {
	File  string `json:"file"`
	At    int64  `json:"at"`
	First int64  `json:"first"`
	End   int64  `json:"end"`
	What  string `json:"what"`
}

func jsonReport(r *engine.CheckReport) checkJSON {
	c := checkJSON{fmt.Sprintf("%x", r.Directory), r.Epoch, r.Clean, r.Frames, []logJSON{}}
	for _, l := range r.Logs {
		problems := []problemJSON{}
		for _, p := range l.Problems {
			problems = append(problems, problemJSON{p.Path, p.At, p.From, p.To, p.What})
		}
		c.Logs = append(c.Logs, logJSON{l.ID, l.Start, l.End, l.Segments, l.Runs, l.Batches, l.Bytes, problems})
	}
	return c
}

func printReport(w io.Writer, dir string, r *engine.CheckReport) {
	end := "a clean stop"
	if !r.Clean {
		end = "no clean stop: the next start recovers"
	}
	fmt.Fprintf(w, "%s: directory %x, epoch %d, %s\n", dir, r.Directory, r.Epoch, end)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "log\tstart\tend\tsegments\truns\tbytes\tproblems\t")
	for _, l := range r.Logs {
		fmt.Fprintf(t, "%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n", l.ID, l.Start, l.End, l.Segments, l.Runs, l.Bytes, len(l.Problems))
	}
	t.Flush()
	sum := r.Sum()
	fmt.Fprintf(w, "read and verified: %d logs, %d segments, %d runs, %d batches, %d bytes; %d journal frames to replay\n", len(r.Logs), sum.Segments, sum.Runs, sum.Batches, sum.Bytes, r.Frames)
	for _, p := range r.Problems() {
		fmt.Fprintln(w, "PROBLEM: "+p)
	}
	if len(r.Problems()) == 0 {
		fmt.Fprintln(w, "no problems")
	}
}
