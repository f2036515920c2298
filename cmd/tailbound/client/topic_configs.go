package client

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/cmd/tailbound/term"
)

// keyValues reads the values of a flag that is KEY=VALUE.
func keyValues(flag string, words []string) (map[string]*string, error) {
	all := map[string]*string{}
	for _, w := range words {
		k, v, ok := strings.Cut(w, "=")
		if !ok || k == "" {
			return nil, fmt.Errorf("%s %q: it is KEY=VALUE", flag, w)
		}
		if all[k] != nil {
			return nil, fmt.Errorf("%s: %s is given twice", flag, k)
		}
		all[k] = &v
	}
	return all, nil
}

// configStep is the next step for a configuration that a broker refuses: a similar
// name, or that a number has no unit.
func configStep(err error, set map[string]*string) (steps string) {
	if !errors.Is(err, kerr.InvalidConfig) {
		return ""
	}
	for _, name := range slices.Sorted(maps.Keys(set)) {
		_, known := cluster.LookupConfig(name)
		_, notANumber := strconv.ParseInt(*set[name], 10, 64)
		switch near := term.Nearest(name, configNames()); {
		case !known && near != "":
			steps += fmt.Sprintf("; %s: did you mean %s?", name, near)
		case notANumber == nil:
		case strings.HasSuffix(name, ".ms"):
			steps += fmt.Sprintf("; %s is a number of milliseconds, without a unit", name)
		case strings.HasSuffix(name, ".bytes"):
			steps += fmt.Sprintf("; %s is a number of bytes, without a unit", name)
		}
	}
	return steps
}

// configNames are the configurations of a topic at a Tailbound broker. Most of them
// any Kafka broker has.
func configNames() (names []string) {
	for _, config := range cluster.Configs() {
		names = append(names, config.Name)
	}
	return names
}

// completeConfigs completes the name in KEY=VALUE (suffix "="), or KEY alone.
func completeConfigs(suffix string) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return func(_ *cobra.Command, _ []string, typed string) (all []string, _ cobra.ShellCompDirective) {
		for _, name := range configNames() {
			if strings.HasPrefix(name, typed) {
				all = append(all, name+suffix)
			}
		}
		return all, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
}
