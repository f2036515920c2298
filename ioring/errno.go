package ioring

import "strconv"

// Errno is an error number of Linux, positive.
type Errno int32

// The numbers that Tailbound handles or names (asm-generic/errno.h).
const (
	EPERM        Errno = 1
	ENOENT       Errno = 2
	EINTR        Errno = 4
	EIO          Errno = 5
	ENXIO        Errno = 6
	EBADF        Errno = 9
	EAGAIN       Errno = 11
	ENOMEM       Errno = 12
	EACCES       Errno = 13
	EFAULT       Errno = 14
	EBUSY        Errno = 16
	EEXIST       Errno = 17
	EXDEV        Errno = 18
	ENODEV       Errno = 19
	ENOTDIR      Errno = 20
	EISDIR       Errno = 21
	EINVAL       Errno = 22
	ENFILE       Errno = 23
	EMFILE       Errno = 24
	EFBIG        Errno = 27
	ENOSPC       Errno = 28
	EROFS        Errno = 30
	EPIPE        Errno = 32
	ENAMETOOLONG Errno = 36
	ENOSYS       Errno = 38
	ELOOP        Errno = 40
	EBADR        Errno = 53
	ENODATA      Errno = 61
	ETIME        Errno = 62
	EOPNOTSUP    Errno = 95
	ECONNABORTED Errno = 103
	ECONNRESET   Errno = 104
	ENOBUFS      Errno = 105
	ETIMEDOUT    Errno = 110
	ESTALE       Errno = 116
	EUCLEAN      Errno = 117
	EREMOTEIO    Errno = 121
	EDQUOT       Errno = 122
	ECANCELED    Errno = 125
)

var errnoNames = map[Errno]string{
	EPERM: "EPERM: operation not permitted", ENOENT: "ENOENT: no such file or directory", EINTR: "EINTR: interrupted",
	EIO: "EIO: input/output error", EBADF: "EBADF: bad file", EAGAIN: "EAGAIN: try again", ENOMEM: "ENOMEM: out of memory",
	EACCES: "EACCES: permission denied", EFAULT: "EFAULT: bad address", EBUSY: "EBUSY: busy", EEXIST: "EEXIST: exists",
	ENOTDIR: "ENOTDIR: not a directory", EINVAL: "EINVAL: invalid argument", ENFILE: "ENFILE: too many open files in the system",
	EMFILE: "EMFILE: too many open files", EFBIG: "EFBIG: file too large", ENOSPC: "ENOSPC: no space left on device",
	EROFS: "EROFS: read-only file system", EPIPE: "EPIPE: broken pipe", ENOSYS: "ENOSYS: not implemented", ETIME: "ETIME: timer expired",
	EOPNOTSUP: "EOPNOTSUP: not supported", ENOBUFS: "ENOBUFS: no buffers", ECONNRESET: "ECONNRESET: connection reset",
	ETIMEDOUT: "ETIMEDOUT: timed out", ECANCELED: "ECANCELED: cancelled", EDQUOT: "EDQUOT: quota exceeded",
	ENXIO: "ENXIO: no such device or address", EXDEV: "EXDEV: on another file system", ENODEV: "ENODEV: no such device",
	EISDIR: "EISDIR: is a directory", ENAMETOOLONG: "ENAMETOOLONG: file name too long", ELOOP: "ELOOP: too many symbolic links",
	EBADR: "EBADR: invalid request descriptor", ENODATA: "ENODATA: no data available", ECONNABORTED: "ECONNABORTED: connection aborted",
	ESTALE: "ESTALE: stale file handle", EUCLEAN: "EUCLEAN: structure needs cleaning", EREMOTEIO: "EREMOTEIO: remote I/O error",
}

// Error is the name and meaning of the number.
func (e Errno) Error() string {
	if name, ok := errnoNames[e]; ok {
		return name
	}
	return "errno " + strconv.Itoa(int(e))
}

// Verdict is what the result of an operation means.
type Verdict uint8

const (
	Good      Verdict = iota // it succeeded: a count, or 0; of a Timeout, its time is reached
	Again                    // it has to be pushed again as it is
	Cancelled                // it was cancelled, or the write that it is linked to failed
	NoSpace                  // the disk or a quota is full; nothing else is wrong
	NoBuffers                // no receive buffer was free
	Gone                     // the peer or the connection is gone
	Missing                  // there is no such file
	Exists                   // there is such a file already
	Refused                  // no permission, or the path is of another kind
	Limit                    // too many open files, too little memory or a full queue: it may succeed later
	Broken                   // the disk failed: final for this operation
	OurBug                   // EBADF, EFAULT, EINVAL: the operation makes no sense
)

// enter is the code of io_uring_enter itself, whose errno is not that of an operation.
const enter Code = 0xff

// Judge is what a result means for an operation of this code: the one table of errnos. The
// caller decides what to do about it.
func Judge(code Code, result int32) Verdict {
	if result >= 0 {
		return Good
	}
	errno := Errno(-result)
	switch code {
	case Accept:
		return judgeAccept(errno)
	case Recv, Send, Shutdown:
		return judgeSocket(errno)
	case Timeout:
		if errno == ETIME {
			return Good
		}
	case enter:
		return judgeEnter(errno)
	}
	return judgeFile(errno)
}

// judgeAccept judges an Accept. Except for a connection that ended before it was accepted, a
// failure will be repeated at the next try: it is a limit of files or memory.
func judgeAccept(errno Errno) Verdict {
	switch errno {
	case EINTR, EAGAIN:
		return Again
	case ECANCELED:
		return Cancelled
	case ECONNABORTED:
		return Gone
	case EBADF, EFAULT:
		return OurBug
	}
	return Limit
}

// judgeSocket judges a Recv, Send or Shutdown. EINVAL is the answer of a socket that was shut
// down. Every errno that is not listed has ended the connection.
func judgeSocket(errno Errno) Verdict {
	switch errno {
	case EINTR, EAGAIN:
		return Again
	case ECANCELED:
		return Cancelled
	case ENOBUFS:
		return NoBuffers
	case EBADF, EFAULT:
		return OurBug
	}
	return Gone
}

// judgeFile judges operations on files. EFBIG is not NoSpace, as making room on the disk does
// not help.
func judgeFile(errno Errno) Verdict {
	switch errno {
	case EINTR, EAGAIN:
		return Again
	case ECANCELED:
		return Cancelled
	case ENOSPC, EDQUOT:
		return NoSpace
	case ENOENT:
		return Missing
	case EEXIST:
		return Exists
	case EACCES, EPERM, EROFS, ENOTDIR, EISDIR, ELOOP:
		return Refused
	case EMFILE, ENFILE, ENOMEM:
		return Limit
	case EBADF, EFAULT, EINVAL:
		return OurBug
	}
	return Broken
}

// judgeEnter judges io_uring_enter. EBUSY, EAGAIN and EBADR mean that completions have to be
// reaped first, ENOMEM that memory is short; all of them pass.
func judgeEnter(errno Errno) Verdict {
	switch errno {
	case EINTR:
		return Again
	case ETIME:
		return Good
	case EBUSY, EAGAIN, EBADR, ENOMEM:
		return Limit
	}
	return OurBug
}
