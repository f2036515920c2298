package ioring

import (
	"encoding/binary"
	"math"
	"slices"
	"sort"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// KernelOptions are the sizes and choices of a kernel ring.
type KernelOptions struct {
	Entries        int         // of the submission queue; a power of two
	CQEntries      int         // of the completion queue; a power of two
	Files          int         // slots that the caller chooses: [0, Files)
	Sockets        int         // slots for accepted sockets: [Files, Files+Sockets)
	RootFD         int         // the directory that paths are relative to
	ReceiveBuffers int         // how many buffers will be provided; a power of two, at most 32768; 0: none
	Features       FeatureMask // what may be used of what the kernel has
	Buffered       bool        // open files without O_DIRECT
	SpinNS         int64       // how long Wait polls before it sleeps
	IOWQCPUs       []int       // where the kernel's workers may run; nil: anywhere
}

// KernelStats are counters, for the thread that owns the ring.
type KernelStats struct {
	Enters     uint64 // system calls
	Sleeps     uint64 // those that could block
	SpinHits   uint64 // waits that ended while polling
	Wakes      uint64 // wake-ups by other threads
	Overflows  uint64 // times that the completion queue had overflowed
	NoBuffers  uint64 // receives that found no buffer
	Interrupts uint64 // EINTR
}

// Kernel is a Ring of the kernel: an io_uring. It belongs to the thread that made it, except
// that any thread may use its Waker.
//
// Invariant: sqTail - *sqHead <= entries. The entries in [submitted, sqTail) are filled in
// and not yet known to the kernel. One entry is reserved for the wake-up.
type Kernel struct {
	o          KernelOptions
	features   FeatureMask
	fd         int
	enterFD    uintptr // the registered index of fd, or fd
	enterFlags uintptr

	rings        unsafe.Pointer // both queues, shared with the kernel
	ringsBytes   uintptr
	sqes         unsafe.Pointer // submission entries
	sqesBytes    uintptr
	sqHead       *atomic.Uint32
	sqTailShared *atomic.Uint32 // sqTail, where the kernel reads it
	sqFlags      *atomic.Uint32
	sqMask       uint32
	entries      uint32
	sqTail       uint32
	submitted    uint32 // the tail that the kernel has taken
	cqHead       *atomic.Uint32
	cqTail       *atomic.Uint32
	cqMask       uint32
	cqes         unsafe.Pointer

	offHeap      unsafe.Pointer // what the kernel reads and writes: the next four
	offHeapBytes uintptr
	arg          *getEventsArg
	argTS        *timespec
	times        unsafe.Pointer // a timespec for each submission entry
	wakeWord     *uint64        // what is read from event

	bufs          unsafe.Pointer // the ring of provided buffers
	bufsBytes     uintptr
	bufTail       uint16
	bufMask       uint16
	event         int          // the eventfd of Waker
	wakeReadDue   bool         // no read of event is in flight
	inlineResults []Completion // of operations that are done in Push
	paths         [][64]byte   // of open files, for Stat and SeekData
	wakeToken     Token        // of the Wake that was pushed, if wakeAsked
	wakeAsked     bool

	// Only where the kernel cannot pick the slots of accepted sockets (FeatureFileRange):
	freeSockets  []uint32
	acceptTokens []Token // of all accepts, one for each listener
	closing      []bool  // sockets whose Close was pushed: free when it is submitted

	Stats KernelStats
}

// eventToken is the token of the read of event.
const eventToken = ^uint64(0)

// Room is how many operations can be pushed.
func (k *Kernel) Room() int {
	return int(k.entries) - int(k.sqTail-k.sqHead.Load()) - 1
}

// Push queues an operation. Provide, List, Stat, SeekData and Wake are done at once.
func (k *Kernel) Push(op Op) bool {
	switch op.Code {
	case Provide:
		k.provide(op)
		return true
	case List, Stat, SeekData:
		k.inlineResults = append(k.inlineResults, Completion{Token: op.Token, Result: k.inline(op)})
		return true
	case Wake:
		k.wakeToken, k.wakeAsked = op.Token, true // the ring's own wake-up is always armed
		return true
	}
	if k.Room() <= 0 {
		k.submit()
		if k.Room() <= 0 {
			return false
		}
	}
	entry := k.next()
	entry.userData = uint64(op.Token)
	entry.fd = int32(op.File)
	entry.flags = sqeFixedFile
	switch op.Code {
	case Nop:
		entry.opcode, entry.flags, entry.fd = opNop, 0, -1
	case Read:
		entry.opcode, entry.off, entry.addr, entry.len = opRead, op.Offset, op.Buf.Addr(), uint32(op.Buf.Len())
	case Write:
		entry.opcode, entry.off, entry.addr, entry.len = opWrite, op.Offset, op.Buf.Addr(), uint32(op.Buf.Len())
		if op.Flags&FlagLink != 0 {
			entry.flags |= sqeLink
		}
	case Sync:
		entry.opcode = opFsync
		if op.Flags&FlagFull == 0 {
			entry.opFlags = fsyncDatasync
		}
	case Allocate:
		entry.opcode, entry.off, entry.addr = opFallocate, op.Offset, op.Arg
		if op.Flags&FlagKeepSize != 0 {
			entry.len = unix.FALLOC_FL_KEEP_SIZE
		}
	case Open:
		entry.opcode, entry.flags, entry.fd = opOpenat, 0, int32(k.o.RootFD)
		entry.addr, entry.len, entry.opFlags, entry.fileIndex = op.Buf.Addr(), 0o644, k.openFlags(op.Arg), op.File+1
		k.paths[op.File] = [64]byte{}
		copy(k.paths[op.File][:63], path(op.Buf.Bytes()))
	case Close:
		entry.opcode, entry.flags, entry.fd, entry.fileIndex = opClose, 0, 0, op.File+1
		if k.closing != nil && int(op.File) >= k.o.Files {
			// The slot is free once the close is submitted. What was pushed before
			// it goes first.
			k.closing[int(op.File)-k.o.Files] = true
		}
	case Rename:
		buf := op.Buf.Bytes()
		old := path(buf)
		entry.opcode, entry.flags, entry.fd, entry.len = opRenameat, 0, int32(k.o.RootFD), uint32(k.o.RootFD)
		entry.addr, entry.off = op.Buf.Addr(), op.Buf.Addr()+uint64(len(old))+1
	case Unlink:
		entry.opcode, entry.flags, entry.fd, entry.addr = opUnlinkat, 0, int32(k.o.RootFD), op.Buf.Addr()
	case Mkdir:
		entry.opcode, entry.flags, entry.fd, entry.addr, entry.len = opMkdirat, 0, int32(k.o.RootFD), op.Buf.Addr(), 0o755
	case Accept:
		entry.opcode = opAccept
		if op.Buf.IsZero() {
			entry.ioprio = acceptMulti
		} else {
			*(*uint32)(op.Buf.Pointer()) = AddressBytes - addressAt
			entry.addr, entry.off = op.Buf.Addr()+addressAt, op.Buf.Addr() // addr2 is in off's place
		}
		if k.freeSockets == nil {
			entry.fileIndex = fileIndexAlloc
		} else {
			if !slices.Contains(k.acceptTokens, op.Token) {
				k.acceptTokens = append(k.acceptTokens, op.Token)
			}
			entry.opFlags = unix.SOCK_CLOEXEC
		}
	case Recv:
		entry.opcode = opRecv
		if !op.Buf.IsZero() {
			entry.addr, entry.len = op.Buf.Addr(), uint32(op.Buf.Len())
			break
		}
		entry.flags |= sqeBufferSelect
		if k.features.Has(FeatureRecvMultishot) {
			entry.ioprio = recvMulti
		}
	case Send:
		message := (*msghdr)(op.Buf.Pointer())
		*message = msghdr{iov: op.Buf.Addr() + VectorHeaderBytes, iovLen: op.Arg}
		entry.opcode, entry.addr, entry.len, entry.opFlags = opSendmsg, op.Buf.Addr(), 1, unix.MSG_NOSIGNAL
	case Shutdown:
		entry.opcode, entry.len = opShutdown, unix.SHUT_RDWR
	case Cancel:
		entry.opcode, entry.flags, entry.fd, entry.addr, entry.opFlags = opAsyncCancel, 0, -1, op.Arg, cancelAll
	case Timeout:
		ts := (*timespec)(unsafe.Add(k.times, uintptr((k.sqTail-1)&k.sqMask)*unsafe.Sizeof(timespec{})))
		*ts = timespec{int64(op.Offset) / 1e9, int64(op.Offset) % 1e9}
		entry.opcode, entry.flags, entry.fd, entry.addr, entry.len, entry.opFlags = opTimeout, 0, -1, uint64(uintptr(unsafe.Pointer(ts))), 1, timeoutAbs
	default:
		panic("ioring: an op of no known code")
	}
	return true
}

// next is the next submission entry, all zero.
func (k *Kernel) next() *sqe {
	entry := (*sqe)(unsafe.Add(k.sqes, uintptr(k.sqTail&k.sqMask)*unsafe.Sizeof(sqe{})))
	*entry = sqe{}
	k.sqTail++
	return entry
}

// openFlags is the flags of openat for the Open bits of an Arg.
func (k *Kernel) openFlags(arg uint64) uint32 {
	flags := uint32(unix.O_RDWR)
	switch {
	case arg&OpenDirectory != 0:
		return unix.O_RDONLY | unix.O_DIRECTORY
	case arg&OpenReadOnly != 0:
		flags = unix.O_RDONLY
	}
	if arg&OpenCreate != 0 {
		flags |= unix.O_CREAT
	}
	if arg&OpenExclusive != 0 {
		flags |= unix.O_EXCL
	}
	if !k.o.Buffered {
		flags |= unix.O_DIRECT
	}
	return flags
}

// path is the bytes before the first NUL.
func path(buf []byte) []byte {
	for i, char := range buf {
		if char == 0 {
			return buf[:i]
		}
	}
	panic("ioring: a path without its NUL")
}

// provide gives a receive buffer to the kernel.
func (k *Kernel) provide(op Op) {
	entry := (*bufEntry)(unsafe.Add(k.bufs, uintptr(k.bufTail&k.bufMask)*unsafe.Sizeof(bufEntry{})))
	entry.addr, entry.len, entry.bid = op.Buf.Addr(), uint32(op.Buf.Len()), uint16(op.Arg)
	k.bufTail++
	// The tail is the last 16 bits of entry 0 (struct io_uring_buf_ring). The kernel must
	// not see it before the entry: the 32-bit word (bid of entry 0, tail) is stored
	// atomically.
	first := (*bufEntry)(k.bufs)
	word := (*atomic.Uint32)(unsafe.Pointer(&first.bid))
	word.Store(uint32(first.bid) | uint32(k.bufTail)<<16)
}

// inline executes Stat, SeekData and List, which io_uring does not have. They may block.
func (k *Kernel) inline(op Op) int32 {
	if op.Code == Stat {
		// The system call itself: unix.Statx would copy the path to the heap.
		var st unix.Statx_t
		_, _, errno := unix.Syscall6(unix.SYS_STATX, uintptr(k.o.RootFD), uintptr(unsafe.Pointer(&k.paths[op.File][0])), unix.AT_SYMLINK_NOFOLLOW,
			unix.STATX_SIZE|unix.STATX_MTIME, uintptr(unsafe.Pointer(&st)), 0)
		if errno != 0 {
			return -int32(errno)
		}
		binary.LittleEndian.PutUint64(op.Buf.Bytes(), st.Size)
		binary.LittleEndian.PutUint64(op.Buf.Bytes()[8:], uint64(st.Mtime.Sec*1000+int64(st.Mtime.Nsec)/1e6))
		return 0
	}
	if op.Code == SeekData {
		return k.seekData(op)
	}
	buf := op.Buf.Bytes()
	name := string(path(buf))
	if name == "" {
		name = "."
	}
	fd, err := unix.Openat(k.o.RootFD, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -int32(err.(unix.Errno))
	}
	defer unix.Close(fd)
	var names []string
	dents := make([]byte, 64<<10)
	for {
		n, err := unix.Getdents(fd, dents)
		if err != nil {
			return -int32(err.(unix.Errno))
		}
		if n == 0 {
			break
		}
		_, _, names = unix.ParseDirent(dents[:n], -1, names)
	}
	sort.Strings(names)
	count := int32(0)
	for i := int(op.Offset); i < len(names); i++ {
		if len(names[i])+1 > len(buf) {
			break
		}
		copy(buf, names[i])
		buf[len(names[i])] = 0
		buf = buf[len(names[i])+1:]
		count++
	}
	return count
}

// seekData executes SeekData.
func (k *Kernel) seekData(op Op) int32 {
	fd, err := unix.Openat(k.o.RootFD, string(path(k.paths[op.File][:])), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -int32(err.(unix.Errno))
	}
	defer unix.Close(fd)
	at, err := unix.Seek(fd, int64(op.Offset), unix.SEEK_DATA)
	switch err {
	case nil:
	case unix.ENXIO:
		at = math.MaxInt64
	default: // the file system does not know
		at = int64(op.Offset)
	}
	binary.LittleEndian.PutUint64(op.Buf.Bytes(), uint64(at))
	return 0
}

// Reap copies completions out of the queue.
func (k *Kernel) Reap(out []Completion) int {
	n := copy(out, k.inlineResults)
	k.inlineResults = k.inlineResults[:copy(k.inlineResults, k.inlineResults[n:])]
	head, tail := k.cqHead.Load(), k.cqTail.Load()
	for head != tail && n < len(out) {
		entry := (*cqe)(unsafe.Add(k.cqes, uintptr(head&k.cqMask)*unsafe.Sizeof(cqe{})))
		head++
		if entry.userData == eventToken {
			k.wakeReadDue = true
			k.Stats.Wakes++
			if k.wakeAsked {
				out[n] = Completion{Token: k.wakeToken, Flags: FlagMore}
				n++
			}
			continue
		}
		out[n] = Completion{Token: Token(entry.userData), Result: entry.res, Flags: entry.flags}
		if entry.res == -int32(ENOBUFS) {
			k.Stats.NoBuffers++
		}
		if k.freeSockets != nil {
			k.installSocket(&out[n])
		}
		n++
	}
	k.cqHead.Store(head)
	return n
}

// installSocket puts a socket that the kernel accepted as an ordinary file into a free slot. The
// slots of closed sockets become free here.
func (k *Kernel) installSocket(completion *Completion) {
	if completion.Result < 0 || !slices.Contains(k.acceptTokens, completion.Token) {
		return
	}
	fd := int(completion.Result)
	if len(k.freeSockets) == 0 {
		k.submit() // a close that is still queued would close the slot's next socket
	}
	if len(k.freeSockets) == 0 && k.submitted == k.sqTail {
		for i, closed := range k.closing {
			if closed {
				k.closing[i] = false
				k.freeSockets = append(k.freeSockets, uint32(k.o.Files+i))
			}
		}
	}
	if len(k.freeSockets) == 0 {
		unix.Close(fd)
		completion.Result = -int32(ENFILE)
		return
	}
	slot := k.freeSockets[len(k.freeSockets)-1]
	if err := k.InstallFile(slot, fd); err != nil {
		completion.Result = -int32(err.(unix.Errno))
	} else {
		k.freeSockets = k.freeSockets[:len(k.freeSockets)-1]
		completion.Result = int32(slot)
	}
	unix.Close(fd)
}

// submit submits what is queued and has the kernel run its pending work, without sleeping.
func (k *Kernel) submit() {
	if k.wakeReadDue && k.entries-(k.sqTail-k.sqHead.Load()) > 0 {
		k.wakeReadDue = false
		entry := k.next()
		entry.opcode, entry.fd, entry.addr, entry.len, entry.userData, entry.off = opRead, int32(k.event), uint64(uintptr(unsafe.Pointer(k.wakeWord))), 8, eventToken, 1<<64-1
	}
	for {
		count := k.sqTail - k.submitted
		flags := k.sqFlags.Load()
		if count == 0 && flags&(sqTaskrun|sqCQOverflow) == 0 {
			return
		}
		if flags&sqCQOverflow != 0 {
			k.Stats.Overflows++
		}
		k.sqTailShared.Store(k.sqTail)
		k.Stats.Enters++
		got, _, errno := unix.RawSyscall6(unix.SYS_IO_URING_ENTER, k.enterFD, uintptr(count), 0, enterGetEvents|k.enterFlags, 0, 0)
		switch Judge(enter, -int32(errno)) {
		case Good:
			k.submitted += uint32(got)
			return
		case Again:
			k.Stats.Interrupts++
		case Limit:
			return // the next round tries again
		default:
			panic("ioring: io_uring_enter: " + errno.Error())
		}
	}
}

// Wait submits what is queued, polls for SpinNS, then sleeps.
func (k *Kernel) Wait(until Instant) {
	k.submit()
	if len(k.inlineResults) > 0 || k.ready() || until <= 0 {
		return
	}
	t := now()
	if until <= t {
		return
	}
	if k.o.SpinNS > 0 {
		end := min(t+Instant(k.o.SpinNS), until)
		for i := 1; ; i++ {
			if k.ready() {
				k.Stats.SpinHits++
				return
			}
			if k.sqFlags.Load()&sqTaskrun != 0 {
				k.submit()
				if k.ready() {
					k.Stats.SpinHits++
					return
				}
			}
			if i&63 == 0 {
				if t = now(); t >= end {
					break
				}
			}
		}
		if t >= until {
			return
		}
	}
	for !k.ready() {
		flags := enterGetEvents | enterExtArg | k.enterFlags
		if until == Never {
			k.arg.ts = 0
		} else {
			left := until - now()
			if left <= 0 {
				return
			}
			*k.argTS = timespec{int64(left) / 1e9, int64(left) % 1e9}
			k.arg.ts = uint64(uintptr(unsafe.Pointer(k.argTS)))
		}
		k.Stats.Enters++
		k.Stats.Sleeps++
		// Syscall6, not RawSyscall6: Go's scheduler has to know that the thread blocks, or
		// every stop of the world would wait for it.
		_, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, k.enterFD, 0, 1, flags, uintptr(unsafe.Pointer(k.arg)), unsafe.Sizeof(getEventsArg{}))
		switch Judge(enter, -int32(errno)) {
		case Good:
			if errno != 0 {
				return // the time until is reached
			}
		case Again:
			k.Stats.Interrupts++
		case Limit:
			return
		default:
			panic("ioring: io_uring_enter: " + errno.Error())
		}
	}
}

func (k *Kernel) ready() bool { return k.cqHead.Load() != k.cqTail.Load() }

// Waker wakes the ring's owner from any thread.
type Waker struct{ fd int }

// Wake makes the owner's present or next Wait return.
func (w Waker) Wake() {
	one := uint64(1)
	unix.Write(w.fd, (*[8]byte)(unsafe.Pointer(&one))[:])
}

// Waker is for other threads.
func (k *Kernel) Waker() Waker { return Waker{k.event} }

// Now is the monotonic clock (CLOCK_MONOTONIC).
func (k *Kernel) Now() Instant { return now() }

var started = func() Instant {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return Instant(ts.Nano())
}()

var startedAt = time.Now()

func now() Instant { return started + Instant(time.Since(startedAt)) }
