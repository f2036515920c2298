// Package settings is what `tailbound serve` can be told: one table with a row for
// each setting. Flags, keys of the configuration file, variables, --help, `config
// example`, --print-config, the check of values and what is refused in which words
// are all made from these rows.
//
// It knows what a setting means to people and which options of a broker it becomes.
// It knows nothing of this machine (CPUs, disks, host names) and starts nothing.
//
// Invariants:
//
//   - A flag goes before a variable, a variable before the file, the file before the
//     default.
//   - A value that another one goes before has to be of its setting's type too.
//   - All mistakes are reported at once, each after the flag, the variable or the line
//     and column of the file that it came from.
//   - What --print-config prints is a configuration file, and read again means the same.
package settings
