package recovery

import (
	"fmt"

	"github.com/tailbound/tailbound/engine/format"
)

// Refusal is why a data directory cannot be opened, checked or repaired: the file, the
// position in it, what is wrong, and what to do next.
type Refusal struct {
	Path string // relative to the data directory; "": the directory itself
	At   int64  // byte of the file; negative: no position
	What string
	Next string // "": nothing is known that helps
}

// Error is one line: "shard-001/journal at 8192: ...; ...".
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

// damaged refuses what is broken and cannot be repaired.
func damaged(path string, at int64, what string, args ...any) error {
	return &Refusal{Path: path, At: at, What: fmt.Sprintf(what, args...), Next: restore}
}

// contradicts refuses what its checksums say is whole although it cannot be true.
func contradicts(path string, at int64, what string, args ...any) error {
	return &Refusal{Path: path, At: at, What: fmt.Sprintf(what, args...), Next: report}
}

// newer refuses what is whole and of this directory and epoch, and needs a later version.
func newer(path string, at int64, what string) error {
	return &Refusal{Path: path, At: at, What: format.Newer(what).Error(), Next: "serve the directory with that version or a later one"}
}
