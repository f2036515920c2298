package main

import (
	"cmp"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/tailbound/tailbound/bench/record"
	"github.com/tailbound/tailbound/bench/rings"
	"github.com/tailbound/tailbound/bench/trial"
)

func blocksCommand() *cobra.Command {
	var dir, out string
	var rounds int
	c := &cobra.Command{
		Use:   "blocks",
		Short: "Measure what a block costs that was never written, on the disk of a directory",
		Long: `Measure what a block costs that was never written: the same files are written to
blocks that were only allocated (new), that were written and made unwritten again
(touched), and that were written (written). New against touched is the disk's own
part, touched against written the file system's. Ratios are to written blocks of
the same round.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if rounds < 1 {
				return fmt.Errorf("--rounds %d: there is at least one", rounds)
			}
			rows, err := rings.Blocks(dir, rounds)
			if err != nil {
				return err
			}
			out = cmp.Or(out, trial.TempDir("blocks"))
			machine := record.Describe(dir)
			for _, row := range rows {
				if err := recordBlocks(filepath.Join(out, fmt.Sprintf("%dKiB", row.Bytes>>10), row.State), machine, row); err != nil {
					return err
				}
			}
			printBlocks(cmd.OutOrStdout(), rows)
			fmt.Fprintf(cmd.OutOrStdout(), "\n%s\n", out)
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&dir, "dir", ".", "on the disk to measure, with 3 GiB free")
	f.IntVar(&rounds, "rounds", 3, "how often each state is measured")
	f.StringVarP(&out, "out", "o", "", "directory of the recordings; by default one below bench/results")
	return c
}

// recordBlocks leaves a recording of one state; a round is an interval.
func recordBlocks(dir string, machine record.Machine, row rings.BlocksRow) error {
	first := row.Rounds[0].Began
	run := &record.Run{Name: fmt.Sprintf("%s blocks, %d KiB", row.State, row.Bytes>>10), Started: first, Machine: machine}
	var intervals []record.Interval
	for i, round := range row.Rounds {
		start := round.Began.Sub(first).Nanoseconds()
		intervals = append(intervals, record.Interval{Series: "write+fdatasync", StartNS: start, EndNS: start + int64(round.Seconds*1e9), H: round.Took})
		run.Seconds += round.Seconds
		run.Figures = append(run.Figures, record.Figure{Name: fmt.Sprintf("round %d", i+1), Value: round.BytesPerSecond / 1e6, Unit: "MB/s"})
	}
	return record.Write(dir, run, intervals)
}

func printBlocks(w io.Writer, rows []rings.BlocksRow) {
	for i, row := range rows {
		written := rows[i]
		for _, other := range rows[i:] { // the last of its size
			if other.Bytes == row.Bytes {
				written = other
			}
		}
		ratios := func(of func(rings.BlocksRound) float64) string {
			var all []float64
			for k := range row.Rounds {
				all = append(all, of(row.Rounds[k])/of(written.Rounds[k]))
			}
			return record.Spread(all)
		}
		fmt.Fprintf(w, "%4d KiB  %-8s  throughput %s  p50 %s  p99 %s\n", row.Bytes>>10, row.State,
			ratios(func(r rings.BlocksRound) float64 { return r.BytesPerSecond }),
			ratios(func(r rings.BlocksRound) float64 { return float64(r.Took.At(50)) }),
			ratios(func(r rings.BlocksRound) float64 { return float64(r.Took.At(99)) }))
	}
}
