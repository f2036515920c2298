package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/tailbound/tailbound/bench/cli"
)

// errNotHeld ends a command that has said everything.
var errNotHeld = errors.New("an expectation did not hold")

func main() {
	err := rootCommand().Execute()
	if err != nil && !errors.Is(err, errNotHeld) {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	if err != nil {
		os.Exit(1)
	}
}

func rootCommand() *cobra.Command {
	var o others
	host := &cli.Host{
		Binary: "bin/tailbound", Brokers: cmp.Or(os.Getenv("TAILBOUND_BROKERS"), "127.0.0.1:9092"), NotHeld: errNotHeld,
		Kinds: o.kinds(), Flags: o.flags,
	}
	root := cli.Command(host)
	root.SilenceUsage, root.SilenceErrors = true, true
	root.AddCommand(rebalanceCommand(host, &o), startsCommand(host), blocksCommand())
	root.AddCommand(children()...)
	return root
}
