package settings

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tailbound/tailbound/cmd/tailbound/term"
)

// Set is the settings of one start: the values, and where each came from.
//
//	s := Define(command.Flags()) // the command parses its words
//	s.Read(file, environment)    // or nothing: flags and defaults
//	s.Check(true)
type Set struct {
	Values
	flags *pflag.FlagSet
	// from is by name where a value came from: "--shards", "TAILBOUND_SHARDS",
	// "tailbound.yaml:3:1". One that is not in it is at its default.
	from map[string]string
}

// Define adds a flag for each setting and returns the set that they change.
func Define(flags *pflag.FlagSet) *Set {
	set := &Set{flags: flags, from: map[string]string{}}
	for i := range table {
		row := &table[i]
		row.field.define(flags, row.name, row.usage(), &set.Values)
	}
	return set
}

// Read gives settings their values from a file ("": none) and from the environment,
// those excepted that were given as flags. It returns all errors there are.
func (s *Set) Read(path string, environment []string) error {
	// A value that another one goes before is parsed too: each is set, in order, and
	// what the flags said is set again at the end.
	given := map[string]string{}
	for i := range table {
		if flag := s.flag(&table[i]); flag.Changed {
			given[flag.Name], s.from[flag.Name] = flag.Value.String(), "--"+flag.Name
		}
	}
	var wrong []error
	take := func(row *setting, value, from, prefix string) {
		if err := s.take(row, value); err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", prefix, err))
		} else if _, flag := given[row.name]; !flag {
			s.from[row.name] = from
		}
	}
	if path != "" {
		entries, err := readFile(path)
		if err != nil {
			return err
		}
		for _, entry := range entries {
			at := fmt.Sprintf("%s:%d:%d", path, entry.line, entry.column)
			if row := lookup(entry.key); row != nil {
				take(row, entry.value, at, at+": "+entry.key)
			} else {
				wrong = append(wrong, fmt.Errorf("%s: %s", at, unknown(entry.key)))
			}
		}
	}
	for i := range table {
		row := &table[i]
		name := row.variable()
		if k := slices.IndexFunc(environment, func(v string) bool { return strings.HasPrefix(v, name+"=") }); k >= 0 {
			take(row, strings.TrimPrefix(environment[k], name+"="), name, name)
		}
	}
	for name, value := range given { // the order makes no difference
		if err := s.flags.Set(name, value); err != nil {
			return fmt.Errorf("--%s: %w", name, err)
		}
	}
	return errors.Join(wrong...)
}

// take sets one value.
func (s *Set) take(row *setting, value string) error {
	flag := s.flag(row)
	if err := flag.Value.Set(value); err != nil {
		return term.WrongValue(flag, value, err)
	}
	return nil
}

func (s *Set) flag(row *setting) *pflag.Flag { return s.flags.Lookup(row.name) }

// lookup is the setting of that name, nil if there is none.
func lookup(name string) *setting {
	for i := range table {
		if table[i].name == name {
			return &table[i]
		}
	}
	return nil
}

func unknown(key string) string {
	var names []string
	for i := range table {
		names = append(names, table[i].name)
	}
	if near := term.Nearest(strings.ReplaceAll(key, "_", "-"), names); near != "" {
		return fmt.Sprintf("there is no setting %s; did you mean %s?", key, near)
	}
	return fmt.Sprintf("there is no setting %s; `tailbound config example` shows all", key)
}

// Given is how many settings are not at their defaults because a flag, a variable or
// the file says so.
func (s *Set) Given() int { return len(s.from) }

// Check returns everything that is wrong with the values, in the order of the table.
// With serving, what a start requires has to be there.
func (s *Set) Check(serving bool) error {
	var wrong []error
	for i := range table {
		row := &table[i]
		if serving && row.required != "" && s.flag(row).Value.String() == "" {
			wrong = append(wrong, s.wrong(row.name, row.required))
		}
		for _, what := range row.wrong(&s.Values) {
			wrong = append(wrong, s.wrong(row.name, what))
		}
	}
	return errors.Join(wrong...)
}

// wrong is an error about a setting, after where its value came from.
func (s *Set) wrong(name, what string) error {
	from := cmp.Or(s.from[name], "--"+name)
	if strings.HasPrefix(from, "--") || strings.HasPrefix(from, variablePrefix) {
		return fmt.Errorf("%s: %s", from, what)
	}
	return fmt.Errorf("%s: %s: %s", from, name, what)
}

// Misspelled are lines about variables that look like a setting's but are none. Other
// variables may begin with TAILBOUND_: those of clients and tests, and what an
// orchestrator makes of a service that is called tailbound.
func Misspelled(environment []string) (lines []string) {
	known := []string{"TAILBOUND_BROKERS", "TAILBOUND_CONFIG"}
	for i := range table {
		known = append(known, table[i].variable())
	}
	for _, variable := range environment {
		name, _, _ := strings.Cut(variable, "=")
		if !strings.HasPrefix(name, variablePrefix) || slices.Contains(known, name) {
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
