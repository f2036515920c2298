// Command tailbound is the broker and its tools.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/tailbound/tailbound/cmd/tailbound/client"
	"github.com/tailbound/tailbound/cmd/tailbound/datadir"
	"github.com/tailbound/tailbound/cmd/tailbound/observe"
	"github.com/tailbound/tailbound/cmd/tailbound/term"
)

func main() {
	if err := rootCommand().Execute(); err != nil {
		var status term.ExitStatus
		if errors.As(err, &status) {
			os.Exit(int(status))
		}
		fmt.Fprintln(os.Stderr, "tailbound: "+err.Error())
		os.Exit(1)
	}
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "tailbound",
		Short:         "A message-streaming broker with a bound on its tail",
		Long:          "Tailbound speaks the Kafka protocol and acknowledges a record when it is on stable storage.",
		Version:       versionString(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Example: `  tailbound serve --data-dir /var/lib/tailbound --listen 0.0.0.0:9092 --shards 4
  tailbound topic create orders -p 6
  seq 1000 | tailbound produce orders
  tailbound consume orders --exit-at-end
  tailbound profile --data-dir /var/lib/tailbound
  tailbound check /var/lib/tailbound
  kcat -b localhost:9092 -L`,
	}
	root.AddCommand(serveCommand(), observe.Command(), benchCommand(), configCommand(), versionCommand())
	root.AddCommand(datadir.Commands()...)
	root.AddCommand(client.Commands(versionString())...)
	root.InitDefaultCompletionCmd()
	term.ExplainMistakes(root)
	return root
}
