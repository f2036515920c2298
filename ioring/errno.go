package ioring

import "strconv"

// Errno is an error number of Linux, positive.
type Errno int32

// The numbers that rooms above have something to say to (asm-generic/errno.h).
const (
	EPERM      Errno = 1
	ENOENT     Errno = 2
	EINTR      Errno = 4
	EIO        Errno = 5
	EBADF      Errno = 9
	EAGAIN     Errno = 11
	ENOMEM     Errno = 12
	EACCES     Errno = 13
	EFAULT     Errno = 14
	EBUSY      Errno = 16
	EEXIST     Errno = 17
	ENOTDIR    Errno = 20
	EINVAL     Errno = 22
	ENFILE     Errno = 23
	EMFILE     Errno = 24
	EFBIG      Errno = 27
	ENOSPC     Errno = 28
	EROFS      Errno = 30
	EPIPE      Errno = 32
	ENOSYS     Errno = 38
	ETIME      Errno = 62
	EOPNOTSUP  Errno = 95
	ENOBUFS    Errno = 105
	ECONNRESET Errno = 104
	ETIMEDOUT  Errno = 110
	ECANCELED  Errno = 125
	EDQUOT     Errno = 122
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
}

// Error is the number's name and meaning.
func (e Errno) Error() string {
	if s, ok := errnoNames[e]; ok {
		return s
	}
	return "errno " + strconv.Itoa(int(e))
}

// Verdict is what a result means to whoever pushed the operation.
type Verdict uint8

const (
	Good      Verdict = iota // the result is a count, or 0
	Again                    // push it again as it is: EINTR, EAGAIN
	Cancelled                // it was cancelled, or the write before it in its link failed
	NoSpace                  // the disk is full; nothing else is wrong
	NoBuffers                // no receive buffer was free
	Gone                     // the peer or the connection is gone
	Missing                  // no such file; or it exists already
	Limit                    // too many open files, too little memory: later, perhaps
	Broken                   // the disk failed: final for what was asked
	OurBug                   // EBADF, EFAULT, EINVAL: we asked for nonsense
)

// Judge is the one table in which results are read.
func Judge(code Code, result int32) Verdict {
	if result >= 0 {
		return Good
	}
	switch Errno(-result) {
	case EINTR, EAGAIN:
		return Again
	case ECANCELED:
		return Cancelled
	case ENOSPC, EDQUOT, EFBIG:
		return NoSpace
	case ENOBUFS:
		return NoBuffers
	case ENOENT, EEXIST, ENOTDIR:
		return Missing
	case EMFILE, ENFILE, ENOMEM:
		return Limit
	case EPIPE, ECONNRESET, ETIMEDOUT:
		return Gone
	case ETIME:
		return Good
	case EBADF, EFAULT:
		return OurBug
	case EINVAL:
		if code == Accept || code == Recv || code == Send || code == Shutdown {
			return Gone
		}
		return OurBug
	}
	if code == Accept || code == Recv || code == Send || code == Shutdown {
		return Gone
	}
	return Broken
}
