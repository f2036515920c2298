package datadir

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tailbound/tailbound/broker"
	"github.com/tailbound/tailbound/cmd/tailbound/term"
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/engine/recovery"
	"github.com/tailbound/tailbound/shard/control"
)

func repairCommand() *cobra.Command {
	var accept []string
	var output string
	var dryRun bool
	command := &cobra.Command{
		Use:   "repair DIR [--accept-loss TOPIC/PARTITION]...",
		Short: "Show what is broken in a data directory, and cut what you accept to lose",
		Long: `Show what is broken in a data directory, and cut what you accept to lose.

A partition of which acknowledged records are broken takes no more. What lies
before and behind them is read; a consumer is told CORRUPT_MESSAGE where they
were, and may seek past them. That is so until it is decided, for each
partition, how to go on. Without --accept-loss nothing is written: what each way
keeps and gives up is shown, partition by partition.

With it the partition is cut where it first breaks, and takes records again from
there on. Records behind the break are lost too, sound or not; the files they
lie in are first copied to DIR/lost. Offsets are given out again, in a new leader
epoch, as after an unclean election of Kafka's: consumers that were further are
told OFFSET_OUT_OF_RANGE, or that their log was truncated. The broker must not
be running.

The other way is to delete the records up to and including the broken ones,
while the broker runs: ` + "`tailbound topic purge`" + `, or retention in its time. Then
the partition takes records again, at its end.

Exit status: 0 where nothing is broken any more, 1 where something is, 2 where
it could not be looked at or repaired.`,
		Example: "  tailbound repair /var/lib/tailbound\n  tailbound repair /var/lib/tailbound --accept-loss orders/3 --dry-run\n  tailbound repair /var/lib/tailbound --accept-loss orders/3",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := term.CheckOutput(output); err != nil {
				return notLookedAt(err)
			}
			out, got := cmd.OutOrStdout(), repairJSON{Broken: []brokenJSON{}}
			if output != "table" {
				out = io.Discard
			}
			left, err := repair(out, args[0], accept, dryRun, &got)
			if err == nil && output != "table" {
				err = term.PrintValue(cmd.OutOrStdout(), output, got)
			}
			if err != nil {
				return notLookedAt(err)
			}
			if left > 0 {
				return term.ExitStatus(1)
			}
			return nil
		},
	}
	command.Flags().StringSliceVar(&accept, "accept-loss", nil, "a partition to cut where it breaks: TOPIC/PARTITION, or log:ID for a log without a topic")
	term.OutputFlag(command, command.Flags(), &output)
	command.Flags().BoolVar(&dryRun, "dry-run", false, "only show what would be done")
	return command
}

// repairJSON is what repair prints as JSON and YAML. The names stay.
type repairJSON struct {
	Directory string       `json:"directory"`
	Logs      int          `json:"logs"`
	Broken    []brokenJSON `json:"broken"`
	Saved     string       `json:"saved,omitempty"` // where the files that lose something were copied to
}

// brokenJSON is a broken log: a cut keeps the records start to from - 1 and loses from
// to end - 1, as far as can be told.
type brokenJSON struct {
	ID       uint64        `json:"id"`
	Name     string        `json:"name"`
	Start    int64         `json:"start"`
	From     int64         `json:"from"`
	End      int64         `json:"end"`
	Sound    int64         `json:"sound"` // of what is lost
	Cut      bool          `json:"cut"`   // it was
	Problems []problemJSON `json:"problems"`
	Purge    *purgeJSON    `json:"purge,omitempty"`
}

// purgeJSON is the way that deletes the records start to before - 1 and keeps those behind them.
type purgeJSON struct {
	Before int64 `json:"before"`
	Sound  int64 `json:"sound"` // of what is deleted
}

// repair shows what is broken and cuts the logs that accept names. left is how many
// stay broken.
func repair(out io.Writer, dir string, accept []string, dryRun bool, got *repairJSON) (left int, err error) {
	d, err := openOffline(dir)
	if err != nil {
		return 0, err
	}
	defer d.close()
	report, err := d.check()
	if err != nil {
		return 0, err
	}
	broken := report.Cuts()
	got.Directory, got.Logs = dir, len(report.Logs)
	for _, b := range broken {
		row := brokenJSON{ID: b.Log, Name: d.name(b.Log), Start: b.Start, From: b.From, End: b.To, Sound: b.Sound, Problems: problemsJSON(b.Why)}
		if before, sound, ok := purge(&b); ok && b.Log != format.ControlLogID {
			row.Purge = &purgeJSON{before, sound}
		}
		got.Broken = append(got.Broken, row)
	}
	var chosen []recovery.Cut
	for _, name := range accept {
		i := slices.IndexFunc(broken, func(b recovery.Cut) bool { return d.name(b.Log) == name })
		switch {
		case i >= 0 && broken[i].Log == format.ControlLogID, name == d.name(format.ControlLogID):
			return 0, fmt.Errorf("the control log names all the others and gives out their numbers: it is not cut")
		case i < 0 && slices.ContainsFunc(report.Logs, func(log recovery.LogReport) bool { return d.name(log.ID) == name }):
			return 0, fmt.Errorf("nothing of %s is broken; nothing was done", name)
		case i < 0:
			return 0, fmt.Errorf("there is no %s in %s; nothing was done (partitions are named TOPIC/PARTITION, logs without a topic log:ID)", name, dir)
		}
		if !slices.ContainsFunc(chosen, func(c recovery.Cut) bool { return c.Log == broken[i].Log }) {
			chosen = append(chosen, broken[i])
		}
	}
	if len(broken) == 0 {
		fmt.Fprintf(out, "%s: nothing is broken, in %s\n", dir, term.Plural(len(report.Logs), "log"))
		return 0, nil
	}
	for _, b := range broken {
		d.show(out, b)
	}
	if len(chosen) == 0 || dryRun {
		if len(chosen) == 0 {
			chosen = broken
		}
		var flags []string
		for _, c := range chosen {
			if c.Log != format.ControlLogID {
				flags = append(flags, "--accept-loss "+d.name(c.Log))
			}
		}
		fmt.Fprintf(out, "\nnothing was written. To go on without what is lost:\n  tailbound repair %s %s\n", dir, strings.Join(flags, " "))
		return len(broken), nil
	}
	saved, err := d.save(chosen)
	if err != nil {
		return 0, fmt.Errorf("copying what will be lost: %w; nothing was cut", err)
	}
	got.Saved = saved
	if saved != "" {
		fmt.Fprintf(out, "\ncopied to %s: the files that lose something\n", saved)
	}
	var logs []uint64
	for _, c := range chosen {
		logs = append(logs, c.Log)
	}
	options := broker.CheckOptions()
	options.Sound, options.TimesChecked = control.SoundBatch, control.TimesChecked
	done, err := recovery.Repair(d.ring, d.arena, options, logs)
	if err != nil {
		return 0, err
	}
	for _, cut := range done {
		got.Broken[slices.IndexFunc(got.Broken, func(b brokenJSON) bool { return b.ID == cut.Log })].Cut = true
		fmt.Fprintf(out, "cut: %s has records %d to %d, and takes more from %d on\n", d.name(cut.Log), cut.Start, cut.From-1, cut.From)
	}
	if len(done) != len(chosen) {
		return 0, fmt.Errorf("%s of %d were cut", term.Plural(len(done), "log"), len(chosen))
	}
	return len(broken) - len(chosen), nil
}

// show prints what is broken of a log, and what each way to go on keeps and gives up.
func (d *offline) show(out io.Writer, cut recovery.Cut) {
	name := d.name(cut.Log)
	fmt.Fprintf(out, "%s (log %d)\n", name, cut.Log)
	for _, problem := range cut.Why {
		fmt.Fprintf(out, "  broken  %s\n", problem)
	}
	kept, broken := "none", int64(0)
	if cut.From > cut.Start {
		kept = fmt.Sprintf("%d to %d", cut.Start, cut.From-1)
	}
	for _, r := range cut.Broken() {
		broken += max(0, r.To-max(r.From, cut.From))
	}
	lost := fmt.Sprintf("%d to %d", cut.From, cut.To-1)
	if cut.To <= cut.From {
		lost = "how many cannot be told; none is seen here"
	}
	if slices.ContainsFunc(cut.Why, func(problem recovery.Problem) bool { return problem.From == problem.To }) {
		lost += " at least" // the journal's break hides what came last
	}
	fmt.Fprintf(out, "  to cut it: tailbound repair %s --accept-loss %s\n    kept    records %s\n    lost    records %s", d.dir, name, kept, lost)
	if cut.Sound > 0 {
		fmt.Fprintf(out, "; %d of them are broken, and %d are sound, behind the break", broken, cut.Sound)
	}
	fmt.Fprintln(out)
	topic, partition, ok := d.topics.Owner(cut.Log)
	before, sound, ways := purge(&cut)
	if !ok || !ways {
		return
	}
	fmt.Fprintf(out, "  to delete it up to there: tailbound topic purge %s -p %d --before %d (while the broker runs)\n", topic, partition, before)
	kept = "none"
	if cut.To > before {
		kept = fmt.Sprintf("%d to %d", before, cut.To-1)
	}
	fmt.Fprintf(out, "    kept    records %s\n    lost    records %d to %d", kept, cut.Start, before-1)
	if sound > 0 {
		fmt.Fprintf(out, "; %d of them are broken, and %d are sound, before the break", before-cut.Start-sound, sound)
	}
	fmt.Fprintln(out)
}

// purge is up to where a log's records have to be deleted so that none is broken any more, and
// how many sound ones that takes. False: there is no such offset, as an unknown number is
// lost behind the log's end.
func purge(cut *recovery.Cut) (before, sound int64, ok bool) {
	ranges := cut.Broken()
	if len(ranges) == 0 {
		return 0, 0, false
	}
	before = ranges[len(ranges)-1].To
	sound = before - cut.Start
	for _, r := range ranges {
		sound -= r.To - r.From
	}
	return before, sound, true
}

// save copies the files that a cut takes something from to DIR/lost. If it cannot copy all of
// them, as on a full disk, it leaves no copies: they would take room that the broker needs.
func (d *offline) save(cut []recovery.Cut) (dir string, err error) {
	defer func() {
		if err != nil && dir != "" {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	for _, c := range cut {
		for _, file := range c.Files {
			if dir == "" {
				dir = filepath.Join(d.dir, "lost", time.Now().UTC().Format("20060102T150405.000"))
				if err := os.MkdirAll(dir, 0o755); err != nil {
					return dir, err
				}
			}
			from, err := os.Open(filepath.Join(d.dir, file))
			if os.IsNotExist(err) {
				continue
			}
			if err != nil {
				return dir, err
			}
			to, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("log-%d-%s", c.Log, filepath.Base(file))), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
			if err == nil {
				_, err = io.Copy(to, from)
				if err == nil {
					err = to.Sync()
				}
				to.Close()
			}
			from.Close()
			if err != nil {
				return dir, err
			}
		}
	}
	return dir, nil
}
