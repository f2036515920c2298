package settings

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/goccy/go-yaml"
	"github.com/spf13/pflag"
)

// Chosen is the value in force of a setting that is left open, and why it is that.
type Chosen struct{ Value, Because string }

// Print prints what is in force as a configuration file, with where each value came
// from. chosen is by name what settings became that are left open.
func (s *Set) Print(out io.Writer, version string, chosen map[string]Chosen) error {
	fmt.Fprintf(out, "# What `tailbound serve` runs with; %s\n", version)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for i := range table {
		row := &table[i]
		value, from := s.flag(row).Value.String(), cmp.Or(s.from[row.name], "default")
		if c, ok := chosen[row.name]; ok {
			value, from = c.Value, from+": "+c.Because
		}
		fmt.Fprintf(t, "%s: %s\t# %s\n", row.name, row.inYAML(value), from)
	}
	return t.Flush()
}

// Example prints a configuration file in which every setting is at its default, as a
// comment.
func Example(out io.Writer) error {
	set := Define(pflag.NewFlagSet("", pflag.ContinueOnError))
	_, err := fmt.Fprintln(out, "# Settings of `tailbound serve --config FILE`. TAILBOUND_... variables go before\n# the file, and flags before both. On SIGHUP a running broker reads the file again:\n# it acts on settings that are marked \"reloads\"; the others need a restart.")
	for i := range table {
		row := &table[i]
		mark := ""
		if row.reloads {
			mark = "; reloads"
		}
		fmt.Fprintf(out, "\n# %s\n# %s%s\n#%s: %s\n", row.usage(), row.variable(), mark, row.name, row.inYAML(set.flag(row).DefValue))
	}
	return err
}

// inYAML is a value as YAML, on one line: a comment may follow.
func (s *setting) inYAML(value string) string {
	if _, isText := s.field.(text); !isText {
		return value
	}
	if value == "" {
		return `""`
	}
	quoted, err := yaml.Marshal(value)
	if err != nil || strings.ContainsFunc(value, unicode.IsControl) {
		return strconv.Quote(value)
	}
	return strings.TrimSpace(string(quoted))
}
