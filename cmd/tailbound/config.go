package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tailbound/tailbound/cmd/tailbound/term"
)

// A setting of serve is a flag; the file's key is the flag's name, and its
// variable is TAILBOUND_ and that name in capitals. A flag goes before the
// variable, that before the file, and that before the default.

const envPrefix = "TAILBOUND_"

// notSettings are flags that say what to do now.
var notSettings = []string{"config", "print-config", "print-memory", "help"}

// entry is one key of a configuration file.
type entry struct {
	key, value   string
	line, column int
}

// settingsOf are a command's settings, in the order they were defined.
func settingsOf(f *pflag.FlagSet) (all []*pflag.Flag) {
	f.SortFlags = false
	f.VisitAll(func(x *pflag.Flag) {
		if !slices.Contains(notSettings, x.Name) {
			all = append(all, x)
		}
	})
	return all
}

func variableOf(name string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// origins says where each setting's value came from: "--shards",
// "TAILBOUND_SHARDS", "tailbound.yaml:3:1"; "" is the default.
type origins map[string]string

// wrong is an error about a setting, after where its value came from.
func (o origins) wrong(name, what string) error {
	from := o[name]
	switch {
	case from == "" || strings.HasPrefix(from, "--"):
		return fmt.Errorf("--%s: %s", name, what)
	case strings.HasPrefix(from, envPrefix):
		return fmt.Errorf("%s: %s", from, what)
	}
	return fmt.Errorf("%s: %s: %s", from, name, what)
}

// configure gives a command's settings their values from a file ("": none) and
// the environment, but for those that were given as flags. It returns every
// error there is.
func configure(f *pflag.FlagSet, path string, environment []string) (origins, error) {
	from := origins{}
	given := map[string]bool{}
	settings := settingsOf(f)
	for _, x := range settings {
		if x.Changed {
			given[x.Name], from[x.Name] = true, "--"+x.Name
		}
	}
	var wrong []error
	// A value that another one goes before has to be right too: set each, in
	// order, and the flags' again.
	flags := map[string]string{}
	for name := range given { // order does not matter
		flags[name] = f.Lookup(name).Value.String()
	}
	if path != "" {
		entries, err := readConfig(path)
		if err != nil {
			return from, err
		}
		for _, e := range entries {
			at := fmt.Sprintf("%s:%d:%d", path, e.line, e.column)
			i := slices.IndexFunc(settings, func(x *pflag.Flag) bool { return x.Name == e.key })
			if i < 0 {
				wrong = append(wrong, fmt.Errorf("%s: %s", at, unknownSetting(e.key, settings)))
				continue
			}
			if err := setting(settings[i], e.value); err != nil {
				wrong = append(wrong, fmt.Errorf("%s: %s: %w", at, e.key, err))
			} else if !given[e.key] {
				from[e.key] = at
			}
		}
	}
	for _, x := range settings {
		name := variableOf(x.Name)
		i := slices.IndexFunc(environment, func(v string) bool { return strings.HasPrefix(v, name+"=") })
		if i < 0 {
			continue
		}
		if err := setting(x, strings.TrimPrefix(environment[i], name+"=")); err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", name, err))
		} else if !given[x.Name] {
			from[x.Name] = name
		}
	}
	for name, value := range flags { // order does not matter
		f.Set(name, value) // it was taken before
	}
	return from, errors.Join(wrong...)
}

// setting sets one value, with errors for people.
func setting(x *pflag.Flag, value string) error {
	err := x.Value.Set(value)
	if err == nil {
		return nil
	}
	return term.WrongValue(x, value, err)
}

func unknownSetting(key string, settings []*pflag.Flag) string {
	var names []string
	for _, x := range settings {
		names = append(names, x.Name)
	}
	if near := term.Nearest(strings.ReplaceAll(key, "_", "-"), names); near != "" {
		return fmt.Sprintf("there is no setting %s; did you mean %s?", key, near)
	}
	return fmt.Sprintf("there is no setting %s; `tailbound config example` shows all", key)
}

// misspelled are variables that look like a setting's and are none. There may
// be others: clients' and tests', and what an orchestrator makes of a service
// that is called tailbound.
func misspelled(f *pflag.FlagSet, environment []string) (lines []string) {
	known := []string{"TAILBOUND_BROKERS", "TAILBOUND_CONFIG"}
	for _, x := range settingsOf(f) {
		known = append(known, variableOf(x.Name))
	}
	for _, v := range environment {
		name, _, _ := strings.Cut(v, "=")
		if !strings.HasPrefix(name, envPrefix) || slices.Contains(known, name) {
			continue
		}
		for _, k := range known {
			if term.EditDistance(name, k) <= 2 {
				lines = append(lines, fmt.Sprintf("%s is no setting and has no effect; did you mean %s?", name, k))
				break
			}
		}
	}
	return lines
}

// readConfig reads a file: one YAML document, a mapping of settings to plain
// values; a list is its members with commas between.
func readConfig(path string) ([]entry, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		var syntax *yaml.SyntaxError
		if errors.As(err, &syntax) && syntax.Token != nil {
			return nil, fmt.Errorf("%s:%d:%d: %s", path, syntax.Token.Position.Line, syntax.Token.Position.Column, syntax.Message)
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(file.Docs) > 1 {
		return nil, fmt.Errorf("%s: it is more than one YAML document", path)
	}
	if len(file.Docs) == 0 || file.Docs[0].Body == nil {
		return nil, nil
	}
	at := func(n ast.Node) string {
		p := n.GetToken().Position
		return fmt.Sprintf("%s:%d:%d", path, p.Line, p.Column)
	}
	var values []*ast.MappingValueNode
	switch body := file.Docs[0].Body.(type) {
	case *ast.MappingNode:
		values = body.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{body}
	case *ast.NullNode, *ast.CommentGroupNode:
		return nil, nil
	default:
		return nil, fmt.Errorf("%s: it is a mapping of settings to values, such as `shards: 4`", at(body))
	}
	var entries []entry
	var wrong []error
	for _, v := range values {
		key := v.Key.GetToken()
		value, err := plain(v.Value)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %s: %w", at(v.Value), key.Value, err))
			continue
		}
		entries = append(entries, entry{key.Value, value, key.Position.Line, key.Position.Column})
	}
	return entries, errors.Join(wrong...)
}

// plain is the text of a value.
func plain(n ast.Node) (string, error) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, nil
	case *ast.LiteralNode:
		return n.Value.Value, nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, nil
	case *ast.NullNode:
		return "", errors.New("it has no value; leave the key away for its default")
	case *ast.SequenceNode:
		var all []string
		for _, x := range n.Values {
			text, err := plain(x)
			if err != nil {
				return "", err
			}
			all = append(all, text)
		}
		return strings.Join(all, ","), nil
	}
	return "", fmt.Errorf("a plain value is wanted, not a %s", strings.ToLower(n.Type().String()))
}

// printConfig prints what is in force as a configuration file, with where each
// value came from.
func printConfig(w io.Writer, f *pflag.FlagSet, from origins, derived map[string]derivedValue) error {
	fmt.Fprintf(w, "# What `tailbound serve` runs with; %s\n", versionString())
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, x := range settingsOf(f) {
		value, source := x.Value.String(), cmp.Or(from[x.Name], "default")
		if d, ok := derived[x.Name]; ok {
			value, source = d.value, source+": "+d.because
		}
		fmt.Fprintf(t, "%s: %s\t# %s\n", x.Name, inYAML(x, value), source)
	}
	return t.Flush()
}

// derivedValue is what is in force where a setting leaves it open.
type derivedValue struct{ value, because string }

func inYAML(x *pflag.Flag, value string) string {
	switch x.Value.Type() {
	case "int", "bool", "duration", "SIZE":
		return value
	}
	if value == "" {
		return `""`
	}
	text, err := yaml.Marshal(value)
	if err != nil || strings.ContainsFunc(value, unicode.IsControl) { // a comment is to follow on the line
		return strconv.Quote(value)
	}
	return strings.TrimSpace(string(text))
}

func configCommand() *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "Check a configuration file, or print an example",
		Example: "  tailbound config example > tailbound.yaml\n  tailbound config check tailbound.yaml"}
	c.AddCommand(&cobra.Command{
		Use:   "check FILE",
		Short: "Say what is wrong with a configuration file",
		Long: `Say what is wrong with a configuration file, each with its line and column.

Exit status: 0 where serve would take it on this machine, 1 where not.`,
		Example: "  tailbound config check /etc/tailbound.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			serve, o := newServeCommand()
			from, err := configure(serve.Flags(), args[0], nil)
			if err == nil {
				err = o.problems(from, false)
			}
			if err == nil {
				err = o.fits()
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s, nothing wrong\n", args[0], term.Plural(len(from), "setting"))
			return err
		},
	}, &cobra.Command{
		Use:     "example",
		Short:   "Print a configuration file with every setting at its default",
		Example: "  tailbound config example > tailbound.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			serve, _ := newServeCommand()
			w := cmd.OutOrStdout()
			fmt.Fprintln(w, "# Settings of `tailbound serve --config FILE`. TAILBOUND_... variables go before\n# the file, and flags before both.")
			for _, x := range settingsOf(serve.Flags()) {
				fmt.Fprintf(w, "\n# %s\n# %s\n#%s: %s\n", x.Usage, variableOf(x.Name), x.Name, inYAML(x, x.DefValue))
			}
			return nil
		},
	})
	return c
}
