package term

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// ExplainMistakes makes a command and all commands below it answer an unknown
// command, flag or value with the nearest right one, or with the command that
// lists the right ones.
func ExplainMistakes(command *cobra.Command) {
	command.SetFlagErrorFunc(wrongFlag)
	wanted := command.Args
	switch {
	case command.HasSubCommands():
		command.Args = wrongCommand
		if !command.Runnable() { // one that does something by itself still does
			command.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
	case wanted != nil:
		command.Args = func(cmd *cobra.Command, words []string) error {
			if slices.Contains(words, "") {
				return fmt.Errorf("it is `%s`, and one of its words is empty (a variable of the shell that is not set?); see `%s --help`", cmd.UseLine(), cmd.CommandPath())
			}
			if wanted(cmd, words) == nil {
				return nil
			}
			got := "nothing was given"
			if len(words) > 0 {
				got = fmt.Sprintf("%q was given", strings.Join(words, " "))
			}
			return fmt.Errorf("it is `%s`, and %s; see `%s --help`", cmd.UseLine(), got, cmd.CommandPath())
		}
	}
	for _, below := range command.Commands() {
		ExplainMistakes(below)
	}
}

// wrongCommand is the error for a word that is no command; nil if there is no
// word.
func wrongCommand(command *cobra.Command, words []string) error {
	if len(words) == 0 {
		return nil
	}
	var names []string
	for _, below := range command.Commands() {
		if below.IsAvailableCommand() {
			names = append(append(names, below.Name()), below.Aliases...)
		}
	}
	if near := Nearest(words[0], names); near != "" {
		return fmt.Errorf("there is no `%s %s`; did you mean `%s %s`?", command.CommandPath(), words[0], command.CommandPath(), near)
	}
	return fmt.Errorf("there is no `%s %s`; `%s --help` shows what there is", command.CommandPath(), words[0], command.CommandPath())
}

// wrongFlag is the error for an unknown flag, or for a flag's value.
func wrongFlag(command *cobra.Command, err error) error {
	if command.HasSubCommands() { // with another word on the line, the flag was meant for a command that does not exist
		words := slices.DeleteFunc(slices.Clone(os.Args[1:]), func(word string) bool { return strings.HasPrefix(word, "-") })
		if depth := strings.Count(command.CommandPath(), " "); len(words) > depth {
			return wrongCommand(command, words[depth:])
		}
	}
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		var names []string
		command.Flags().VisitAll(func(flag *pflag.Flag) {
			if !flag.Hidden {
				names = append(names, flag.Name)
			}
		})
		name := unknown.GetSpecifiedName()
		if unknown.GetSpecifiedShortnames() != "" { // one letter
			return fmt.Errorf("`%s` has no flag -%s; `%s --help` shows those it has", command.CommandPath(), name, command.CommandPath())
		}
		if near := Nearest(name, names); near != "" {
			return fmt.Errorf("`%s` has no flag --%s; did you mean --%s?", command.CommandPath(), name, near)
		}
		return fmt.Errorf("`%s` has no flag --%s; `%s --help` shows those it has", command.CommandPath(), name, command.CommandPath())
	}
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		return fmt.Errorf("--%s %w", invalid.GetFlag().Name, WrongValue(invalid.GetFlag(), invalid.GetValue(), invalid.Unwrap()))
	}
	var missing *pflag.ValueRequiredError
	if errors.As(err, &missing) {
		return fmt.Errorf("--%s wants a value: %s", missing.GetFlag().Name, missing.GetFlag().Usage)
	}
	return fmt.Errorf("%w; see `%s --help`", err, command.CommandPath())
}

// WrongValue is the error for a value that the type of a flag does not accept. err
// is the type's own error; it is returned for types that word it well.
func WrongValue(flag *pflag.Flag, value string, err error) error {
	kind := flag.Value.Type()
	switch {
	case strings.HasPrefix(kind, "int"), strings.HasPrefix(kind, "uint"):
		return fmt.Errorf("%q: it is a whole number", value)
	case strings.HasPrefix(kind, "float"):
		return fmt.Errorf("%q: it is a number", value)
	case kind == "bool":
		return fmt.Errorf("%q: it is true or false", value)
	case kind == "duration":
		return fmt.Errorf("%q: it is a duration such as 30s or 5m", value)
	}
	return err
}
