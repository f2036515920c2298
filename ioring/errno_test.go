package ioring

import (
	"errors"
	"testing"
)

// Every row of the table, by the operation.
func TestJudge(t *testing.T) {
	files := []Code{Read, Write, Sync, Allocate, Open, Close, Rename, Unlink, Mkdir, List, Stat, SeekData}
	sockets := []Code{Recv, Send, Shutdown}
	accept := []Code{Accept}
	for _, row := range []struct {
		codes  []Code
		errnos []Errno
		want   Verdict
	}{
		{files, []Errno{EINTR, EAGAIN}, Again},
		{files, []Errno{ECANCELED}, Cancelled},
		{files, []Errno{ENOSPC, EDQUOT}, NoSpace},
		{files, []Errno{ENOENT}, Missing},
		{files, []Errno{EEXIST}, Exists},
		{files, []Errno{EACCES, EPERM, EROFS, ENOTDIR, EISDIR, ELOOP}, Refused},
		{files, []Errno{EMFILE, ENFILE, ENOMEM}, Limit},
		{files, []Errno{EBADF, EFAULT, EINVAL}, OurBug},
		{files, []Errno{EIO, EFBIG, ENODATA, EUCLEAN, EREMOTEIO, ESTALE, ETIME, 4000}, Broken},
		{sockets, []Errno{EINTR, EAGAIN}, Again},
		{sockets, []Errno{ECANCELED}, Cancelled},
		{sockets, []Errno{ENOBUFS}, NoBuffers},
		{sockets, []Errno{EBADF, EFAULT}, OurBug},
		{sockets, []Errno{EPIPE, ECONNRESET, ETIMEDOUT, EINVAL, EIO, ENOMEM, ETIME, 4000}, Gone},
		{accept, []Errno{EINTR, EAGAIN}, Again},
		{accept, []Errno{ECANCELED}, Cancelled},
		{accept, []Errno{ECONNABORTED}, Gone},
		{accept, []Errno{EBADF, EFAULT}, OurBug},
		{accept, []Errno{EMFILE, ENFILE, ENOMEM, ENOBUFS, EINVAL, EPIPE, ECONNRESET, EPERM, 4000}, Limit},
		{[]Code{Timeout}, []Errno{ETIME}, Good},
		{[]Code{Timeout}, []Errno{ECANCELED}, Cancelled},
		{[]Code{Cancel}, []Errno{ENOENT}, Missing},
		{[]Code{enter}, []Errno{EINTR}, Again},
		{[]Code{enter}, []Errno{ETIME}, Good},
		{[]Code{enter}, []Errno{EBUSY, EAGAIN, EBADR, ENOMEM}, Limit},
		{[]Code{enter}, []Errno{EINVAL, EBADF, EFAULT}, OurBug},
	} {
		for _, code := range row.codes {
			for _, errno := range row.errnos {
				if got := Judge(code, -int32(errno)); got != row.want {
					t.Errorf("operation %d with %v: %d, not %d", code, errno, got, row.want)
				}
			}
			if Judge(code, 0) != Good || Judge(code, 17) != Good {
				t.Errorf("operation %d: a count is not good", code)
			}
		}
	}
}

// The text names operation, file, range and errno.
func TestOpError(t *testing.T) {
	for _, row := range []struct {
		e            OpError
		text, advice string
	}{
		{OpError{Op: Write, Path: "shard-001/journal", Offset: 4096, Length: 8192, Errno: EIO},
			"writing shard-001/journal, 8192 bytes at 4096: EIO: input/output error", "the kernel's log (dmesg) says what its disk answered"},
		{OpError{Op: Open, Path: "superblock", Errno: EACCES},
			"opening superblock: EACCES: permission denied", "give the user that runs tailbound the right to read and write it"},
		{OpError{Op: Open, Path: "shard-001/journal", Errno: ENOENT},
			"shard-001/journal is missing (ENOENT: no such file or directory)", "restore the directory from a copy of all of it"},
		{OpError{Op: Allocate, Path: "segments/0000000100000001", Offset: 0, Length: 1 << 20, Errno: ENOSPC},
			"reserving room in segments/0000000100000001, 1048576 bytes at 0: ENOSPC: no space left on device", "make room on its file system (df -h and df -i say whether it lacks space or inodes)"},
		{OpError{Op: Sync, Path: ".", Errno: EIO}, "syncing the data directory: EIO: input/output error", "the kernel's log (dmesg) says what its disk answered"},
		{OpError{Op: Write, Path: "superblock", Offset: 0, Length: 4096}, "writing superblock, 4096 bytes at 0: it ended short, without an error", ""},
	} {
		if row.e.Error() != row.text {
			t.Errorf("%q is not %q", row.e.Error(), row.text)
		}
		if row.e.Advice() != row.advice {
			t.Errorf("%q: %q is not %q", row.text, row.e.Advice(), row.advice)
		}
		if row.e.Errno != 0 && !errors.Is(&row.e, row.e.Errno) {
			t.Errorf("%q is not %v", row.text, row.e.Errno)
		}
	}
}
