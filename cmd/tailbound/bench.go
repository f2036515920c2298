package main

import (
	"github.com/spf13/cobra"

	"github.com/tailbound/tailbound/bench/cli"
	"github.com/tailbound/tailbound/cmd/tailbound/client"
	"github.com/tailbound/tailbound/cmd/tailbound/observe"
	"github.com/tailbound/tailbound/cmd/tailbound/term"
)

func benchCommand() *cobra.Command {
	return cli.Command(&cli.Host{
		Version: versionString(), Brokers: term.EnvOr("TAILBOUND_BROKERS", client.DefaultBrokers), Profile: observe.Measure, NotHeld: term.ExitStatus(1),
	})
}
