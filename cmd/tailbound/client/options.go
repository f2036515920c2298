package client

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tailbound/tailbound/cmd/tailbound/term"
)

// options are the flags that all commands of this package have.
type options struct {
	version string // of the program
	brokers []string
	output  string
	timeout time.Duration
}

// DefaultBrokers is where brokers are looked for without --brokers and
// TAILBOUND_BROKERS.
const DefaultBrokers = "127.0.0.1:9092"

// flags adds the flags to a command and all commands below it.
func (o *options) flags(command *cobra.Command) {
	flags := command.PersistentFlags()
	flags.StringSliceVarP(&o.brokers, "brokers", "b", strings.Split(term.EnvOr("TAILBOUND_BROKERS", DefaultBrokers), ","), "brokers to begin with, HOST:PORT,... (environment: TAILBOUND_BROKERS)")
	flags.DurationVar(&o.timeout, "timeout", 10*time.Second, "how long to wait for a broker's answer")
	term.OutputFlag(command, flags, &o.output)
}

// softwareVersion is the version in the characters that ApiVersions allows.
func (o *options) softwareVersion() string {
	return strings.Map(func(r rune) rune {
		if r == '.' || r == '-' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '-'
	}, "v"+o.version)
}

// print writes value as JSON or YAML, or as the table that write writes, as --output says.
func (o *options) print(out io.Writer, value any, write func(table *tabwriter.Writer)) error {
	if o.output == "table" {
		table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
		write(table)
		return table.Flush()
	}
	return term.PrintValue(out, o.output, value)
}

// outcome is the result for one of several topics, groups or partitions.
type outcome struct {
	Name  string `json:"name"`
	Done  string `json:"done,omitempty"`
	Error string `json:"error,omitempty"`
}

// printOutcomes prints results, errors to standard error. One error or more makes the
// exit status 1.
func (o *options) printOutcomes(out io.Writer, all []outcome) error {
	failed := 0
	err := o.print(out, all, func(table *tabwriter.Writer) {
		for _, row := range all {
			if row.Error == "" {
				fmt.Fprintf(table, "%s\t%s\n", row.Name, row.Done)
			}
		}
	})
	for _, row := range all {
		if row.Error != "" {
			failed++
			fmt.Fprintf(os.Stderr, "tailbound: %s: %s\n", row.Name, row.Error)
		}
	}
	if err == nil && failed > 0 {
		return term.ExitStatus(1)
	}
	return err
}

// completeTopics completes names of topics.
func (o *options) completeTopics(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	return o.complete(cmd, args, typed, func(conn *client) ([]string, error) {
		ctx, cancel := conn.limited()
		defer cancel()
		topics, err := conn.admin.ListTopics(ctx)
		return topics.Names(), err
	})
}

// complete offers the names that begin with what is typed; none where no broker
// answers within two seconds.
func (o *options) complete(cmd *cobra.Command, args []string, typed string, list func(*client) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	quick := *o
	quick.timeout, quick.output = 2*time.Second, "table"
	conn, err := quick.connect(cmd)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer conn.close()
	all, err := list(conn)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return slices.DeleteFunc(all, func(n string) bool { return !strings.HasPrefix(n, typed) || slices.Contains(args, n) }), cobra.ShellCompDirectiveNoFileComp
}
