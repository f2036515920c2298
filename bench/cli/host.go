package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/bench/load"
	"github.com/tailbound/tailbound/bench/trial"
)

// A Host is the program that the commands are part of.
type Host struct {
	Version string // of Tailbound; for recordings
	Binary  string // the broker that is started; "": this program itself
	Brokers string // the address of a broker where none is given, HOST:PORT

	// Profile begins a profile of the broker that serves a data directory. nil:
	// this program cannot.
	Profile func(dir string) func() (func() json.RawMessage, error)
	// NotHeld ends a command that has said everything, and of which an
	// expectation did not hold.
	NotHeld error

	Kinds []Kind               // of systems, besides those that every program has
	Flags func(*cobra.Command) // adds flags of those kinds to a command that may start one; nil: there are none
}

// Command is bench with everything below it. The host has all kinds of systems
// then.
func Command(host *Host) *cobra.Command {
	host.Kinds = append([]Kind{tailbound()}, append(host.Kinds, running())...)
	c := measureCommand(host)
	c.AddCommand(runCommand(host), versusCommand(host), kneeCommand(host), compareCommand(), reportCommand(), hiccupCommand(host))
	c.AddCommand(helpers()...)
	return c
}

// helpers are the processes that measurements start of this program.
func helpers() []*cobra.Command {
	generate := &cobra.Command{
		Use: "generate", Hidden: true, Args: cobra.NoArgs, Short: "What bench starts to make a load",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return trial.Generate(cmd.InOrStdin(), io.Writer(os.Stdout), load.Run)
		},
	}
	return []*cobra.Command{generate, touchCommand(), hogCommand()}
}

// self is how this program is started with one of its helpers, of any command of
// bench.
func self(cmd *cobra.Command, helper ...string) ([]string, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	bench := cmd
	for bench.HasParent() && !slices.ContainsFunc(bench.Commands(), func(c *cobra.Command) bool { return c.Name() == "generate" }) {
		bench = bench.Parent()
	}
	words := strings.Fields(bench.CommandPath())
	return slices.Concat([]string{program}, words[1:], helper), nil
}

var outputs = []string{"table", "json", "yaml"}

// outputFlag is --output, the same for every command that prints data.
func outputFlag(c *cobra.Command, output *string) {
	c.Flags().StringVar(output, "output", outputs[0], "table, json or yaml")
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputs, cobra.ShellCompDirectiveNoFileComp)) // it fails for a flag that is not there
}

// checkOutput says what --output is, where it is something else.
func checkOutput(output string) error {
	if !slices.Contains(outputs, output) {
		return fmt.Errorf("--output %q: it is table, json or yaml", output)
	}
	return nil
}

// printValue writes a value as JSON or YAML.
func printValue(w io.Writer, output string, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	if output == "yaml" {
		if text, err = yaml.JSONToYAML(text); err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", text)
	return err
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
