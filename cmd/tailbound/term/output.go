package term

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var outputs = []string{"table", "json", "yaml"}

// OutputFlag adds --output, the same for every command that prints data.
func OutputFlag(command *cobra.Command, flags *pflag.FlagSet, output *string) {
	flags.StringVar(output, "output", outputs[0], "table, json or yaml")
	command.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputs, cobra.ShellCompDirectiveNoFileComp))
}

// CheckOutput is the error for a value of --output that is not table, json or yaml.
func CheckOutput(output string) error {
	if !slices.Contains(outputs, output) {
		return fmt.Errorf("--output %q: it is table, json or yaml", output)
	}
	return nil
}

// PrintValue writes a value as JSON, or as YAML if output is yaml. YAML has the
// names and the order of the JSON.
func PrintValue(out io.Writer, output string, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	if output == "yaml" {
		if text, err = yaml.JSONToYAML(text); err != nil {
			return err
		}
		_, err = out.Write(text)
		return err
	}
	_, err = fmt.Fprintf(out, "%s\n", text)
	return err
}

// PrintRepeated writes one value of a sequence, or with once the only one. As a
// table it is written by the function table. In a sequence JSON is one line a
// value, and YAML one document a value.
func PrintRepeated(out io.Writer, output string, once bool, value any, table func(coloured bool) error) error {
	switch {
	case output == "table":
		return table(out == os.Stdout && IsTerminal(os.Stdout))
	case once:
		return PrintValue(out, output, value)
	case output == "json":
		return json.NewEncoder(out).Encode(value)
	}
	if _, err := io.WriteString(out, "---\n"); err != nil {
		return err
	}
	return PrintValue(out, output, value)
}
