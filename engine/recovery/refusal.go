package recovery

import (
	"fmt"

	"github.com/tailbound/tailbound/engine/format"
)

// Refusal says why a data directory, as it is, cannot be opened, checked or
// repaired: which file, where in it, what is wrong, and what to do next.
type Refusal struct {
	Path string // relative to the data directory; "": the directory itself
	At   int64  // byte of the file; negative: no place in it
	What string
	Next string // "" where nothing is known that helps
}

// Error says it in one line: "shard-001/journal at 8192: ...; ...".
func (r *Refusal) Error() string {
	text := r.What
	switch {
	case r.Path != "" && r.At >= 0:
		text = fmt.Sprintf("%s at %d: %s", r.Path, r.At, text)
	case r.Path != "":
		text = r.Path + ": " + text
	}
	if r.Next != "" {
		text += "; " + r.Next
	}
	return text
}

const (
	restore = "restore the directory from a copy of all of it"
	report  = "the files are whole and contradict each other, which is a bug: keep a copy of the directory and report it"
)

// damaged refuses what is broken and what nothing here can mend.
func damaged(path string, at int64, what string, a ...any) error {
	return &Refusal{Path: path, At: at, What: fmt.Sprintf(what, a...), Next: restore}
}

// contradicts refuses what is whole by its checksums and cannot be.
func contradicts(path string, at int64, what string, a ...any) error {
	return &Refusal{Path: path, At: at, What: fmt.Sprintf(what, a...), Next: report}
}

// newer refuses what is whole, of this directory and life, and not known here.
func newer(path string, at int64, what string) error {
	return &Refusal{Path: path, At: at, What: format.Newer(what).Error(), Next: "serve the directory with that version or a later one"}
}
