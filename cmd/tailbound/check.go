package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"tailbound/engine"
	"tailbound/ioring"
	"tailbound/mem"
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
		Example: "  tailbound check /var/lib/tailbound\n  tailbound check --json /var/lib/tailbound | jq .logs",
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
				if err := e.Encode(report); err != nil {
					return err
				}
			} else {
				fmt.Fprint(cmd.OutOrStdout(), report.String())
			}
			if !report.Clean() {
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
	arena, err := mem.Map(engine.CheckMemoryBytes, mem.Options{})
	if err != nil {
		return nil, err
	}
	ring, err := ioring.NewKernel(ioring.KernelOptions{Entries: 64, CQEntries: 256, Files: 64, Sockets: 1, RootFD: root, Features: ioring.AllFeatures, Buffered: direct != nil})
	if err != nil {
		return nil, err
	}
	defer ring.Close()
	return engine.Check(ring, arena, engine.CheckOptions{})
}
