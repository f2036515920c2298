package settings

import (
	"errors"
	"fmt"

	"github.com/spf13/pflag"
)

// Change is a setting whose value in the file differs from the one in force.
type Change struct {
	Name     string
	From, To string
	// Restart: the broker acts on the new value after its next start only.
	Restart bool
}

// Reread reads the file again, with the flags and the environment of the start. It
// returns the settings that are then in force: those that need a restart keep their
// values. An error is everything that is wrong with the file; nothing is to change then.
func (s *Set) Reread(path string, environment []string) (*Set, []Change, error) {
	next := Define(pflag.NewFlagSet("", pflag.ContinueOnError))
	for i := range table {
		if flag := s.flag(&table[i]); flag.Changed {
			if err := next.flags.Set(flag.Name, flag.Value.String()); err != nil {
				return nil, nil, fmt.Errorf("--%s: %w", flag.Name, err)
			}
		}
	}
	err := next.Read(path, environment)
	if err == nil {
		err = next.Check(true)
	}
	if err != nil {
		return nil, nil, err
	}
	var changes []Change
	var wrong []error
	for i := range table {
		row := &table[i]
		from, to := s.flag(row).Value.String(), next.flag(row).Value.String()
		if from == to {
			continue
		}
		changes = append(changes, Change{row.name, from, to, !row.reloads})
		if !row.reloads {
			wrong = append(wrong, next.take(row, from))
		}
	}
	if err := errors.Join(wrong...); err != nil {
		return nil, nil, err
	}
	// A value may contradict one that stays in force until a restart.
	if err := next.Check(true); err != nil {
		return nil, nil, fmt.Errorf("with the settings that need a restart as they are: %w", err)
	}
	return next, changes, nil
}
