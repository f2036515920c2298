package ioring

import (
	"errors"
	"fmt"
)

// OpError is a failed operation on a file, with what an operator needs to know: the
// operation, the file, the range, and the kernel's answer.
//
// It is plain data: on a hot path it is kept by value, and becomes an error, which
// allocates, only where it is printed.
type OpError struct {
	Op     Code
	Path   string // relative to the data directory; "": not known
	Offset int64  // of the first byte
	Length int64  // in bytes; 0: the operation has no range
	Errno  Errno  // 0: it was short, without an error
}

var doing = map[Code]string{
	Read: "reading", Write: "writing", Sync: "syncing", Allocate: "reserving room in", Open: "opening", Close: "closing",
	Rename: "renaming", Unlink: "removing", Mkdir: "making the directory", List: "listing", Stat: "asking for the size of", SeekData: "looking for data in",
}

// Error is one line: "writing shard-001/journal, 8192 bytes at 4096:
// EIO: input/output error".
func (e *OpError) Error() string {
	what, ok := doing[e.Op]
	if !ok {
		what = fmt.Sprintf("operation %d on", e.Op)
	}
	path := e.Path
	switch path {
	case "":
		path = "a file"
	case ".":
		path = "the data directory"
	}
	where := ""
	if e.Length > 0 {
		where = fmt.Sprintf(", %d bytes at %d", e.Length, e.Offset)
	}
	if e.Op == Open && e.Errno == ENOENT {
		return path + " is missing (" + e.Errno.Error() + ")"
	}
	if e.Errno == 0 {
		return fmt.Sprintf("%s %s%s: it ended short, without an error", what, path, where)
	}
	return fmt.Sprintf("%s %s%s: %s", what, path, where, e.Errno.Error())
}

// Unwrap is the errno, for errors.Is(err, ioring.ENOSPC).
func (e *OpError) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return e.Errno
}

// Advice is what an operator can do about it; "": nothing is known.
func (e *OpError) Advice() string {
	switch e.Errno {
	case EACCES, EPERM:
		return "give the user that runs tailbound the right to read and write it"
	case EROFS:
		return "mount its file system for writing"
	case ENOTDIR, EISDIR, ELOOP:
		return "something else stands there: move it away"
	case EMFILE, ENFILE:
		return "raise the limit of open files (ulimit -n)"
	case ENOENT:
		return "restore the directory from a copy of all of it"
	}
	switch Judge(e.Op, -int32(e.Errno)) {
	case NoSpace:
		if e.Errno == EDQUOT {
			return "raise the quota of its user or project, or make room under it"
		}
		return "make room on its file system (df -h and df -i say whether it lacks space or inodes)"
	case Broken:
		return "the kernel's log (dmesg) says what its disk answered"
	}
	return ""
}

// IsFull reports that an operation failed for lack of space, of inodes or of quota.
func IsFull(err error) bool {
	var failed *OpError
	return errors.As(err, &failed) && Judge(failed.Op, -int32(failed.Errno)) == NoSpace
}

// Advised adds the Advice to the error of a failed operation. Other errors stay as they are.
func Advised(err error) error {
	var failed *OpError
	if errors.As(err, &failed) {
		if advice := failed.Advice(); advice != "" {
			return fmt.Errorf("%w; %s", err, advice)
		}
	}
	return err
}
