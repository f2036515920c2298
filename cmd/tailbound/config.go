package main

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tailbound/tailbound/cmd/tailbound/settings"
	"github.com/tailbound/tailbound/cmd/tailbound/term"
)

func configCommand() *cobra.Command {
	command := &cobra.Command{Use: "config", Short: "Check a configuration file, or print an example",
		Example: "  tailbound config example > tailbound.yaml\n  tailbound config check tailbound.yaml"}
	command.AddCommand(&cobra.Command{
		Use:   "check FILE",
		Short: "Say what is wrong with a configuration file",
		Long: `Say what is wrong with a configuration file, each with its line and column.

Exit status: 0 where serve would take it on this machine, 1 where not.`,
		Example: "  tailbound config check /etc/tailbound.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			told := settings.Define(pflag.NewFlagSet("", pflag.ContinueOnError))
			err := told.Read(args[0], nil)
			if err == nil {
				err = told.Check(false)
			}
			if err == nil {
				err = fits(&told.Values)
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s, nothing wrong\n", args[0], term.Plural(told.Given(), "setting"))
			return err
		},
	}, &cobra.Command{
		Use:     "example",
		Short:   "Print a configuration file with every setting at its default",
		Example: "  tailbound config example > tailbound.yaml",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return settings.Example(cmd.OutOrStdout()) },
	})
	return command
}

// printConfig prints the settings, with what this machine makes of those that are left
// open.
func printConfig(out io.Writer, told *settings.Set) error {
	v := &told.Values
	allowed, err := allowedCPUs()
	if err != nil {
		return err
	}
	chosen := map[string]settings.Chosen{}
	shards := v.DataShards(len(allowed))
	if v.Shards == 0 {
		chosen["shards"] = settings.Chosen{Value: strconv.Itoa(shards), Because: fmt.Sprintf("%s, one of them for the rest", term.Plural(len(allowed), "CPU"))}
		if v.Single() {
			chosen["shards"] = settings.Chosen{Value: "1", Because: "listen-mode single"}
		}
	}
	if v.Journal == 0 && v.DataDir != "" {
		if each, because, err := journalSize(v, shards); err == nil {
			chosen["journal"] = settings.Chosen{Value: each.String(), Because: because}
		}
	}
	if v.CPUs == "" {
		chosen["cpus"] = settings.Chosen{Because: "not pinned, fewer CPUs than shards + 1"}
		if data, _, err := placeCPUs("", allowed, shards); err == nil && len(data) > 0 {
			list := strings.ReplaceAll(strings.Trim(fmt.Sprint(data), "[]"), " ", ",")
			chosen["cpus"] = settings.Chosen{Value: list, Because: "the last ones allowed"}
		}
	}
	if v.Advertise == "" {
		if host, _, err := net.SplitHostPort(v.Listen); err == nil {
			if host, err = advertisedHost(host); err == nil {
				chosen["advertise"] = settings.Chosen{Value: host, Because: "of listen"}
			}
		}
	}
	return told.Print(out, versionString(), chosen)
}
