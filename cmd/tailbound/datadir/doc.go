// Package datadir is a data directory as one process holds it: to serve it, or, while
// no broker does, to check and repair it (the commands check and repair).
//
// It knows the file that keeps other processes out, what a file system must be able to
// do, and how a report reads. What is sound and what a cut loses is known by
// engine/recovery; names of topics are read from the control log by shard/control.
//
// Invariants:
//
//   - One process holds a directory. The kernel lets go of it when the process ends.
//   - check writes nothing but the file LOCK; repair writes nothing without
//     --accept-loss, and copies what it cuts first.
//   - Exit status 2 says that nothing could be looked at; 1 says that something is broken.
//   - What is printed with --output json and yaml keeps its names from version to version.
package datadir

import "github.com/spf13/cobra"

// Commands are check and repair.
func Commands() []*cobra.Command { return []*cobra.Command{checkCommand(), repairCommand()} }
