package ioring

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sort"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// KernelOptions say what a kernel ring is to be.
type KernelOptions struct {
	Entries        int         // submissions between two entries into the kernel; a power of two
	CQEntries      int         // completions not reaped; a power of two
	Files          int         // file slots the caller chooses: [0, Files)
	Sockets        int         // slots for accepted sockets: [Files, Files+Sockets)
	RootFD         int         // the directory that paths are relative to
	ReceiveBuffers int         // how many buffers will be provided; a power of two, at most 32768; 0: none
	Features       FeatureMask // what may be used of what the kernel has
	Buffered       bool        // open files without O_DIRECT
	SpinNS         int64       // how long Wait looks before it sleeps
	IOWQCPUs       []int       // where the kernel's workers may run; nil: anywhere
}

// KernelStats are plain counts, for the thread that owns the ring.
type KernelStats struct {
	Enters     uint64 // system calls made
	Sleeps     uint64 // of them, those that could block
	SpinHits   uint64 // waits that ended while spinning
	Wakes      uint64 // wake-ups from other threads
	Overflows  uint64 // times the completion queue had overflowed
	NoBuffers  uint64 // receives that found no buffer
	Interrupts uint64 // EINTR
}

// Kernel is the kernel's ring. It belongs to the thread that made it.
//
// Invariants: sqTail - *sqHead <= entries; entries in [submitted, sqTail) are
// filled and not yet known to the kernel; one entry is kept for the wake-up.
type Kernel struct {
	o        KernelOptions
	features FeatureMask
	fd       int
	enterFD  uintptr // the registered index, or fd
	enterFlg uintptr

	rings   unsafe.Pointer
	ringsN  uintptr
	sqes    unsafe.Pointer
	sqesN   uintptr
	sqHead  *atomic.Uint32
	sqTailP *atomic.Uint32
	sqFlags *atomic.Uint32
	sqMask  uint32
	entries uint32
	sqTail  uint32
	told    uint32 // the tail the kernel was told
	cqHead  *atomic.Uint32
	cqTail  *atomic.Uint32
	cqMask  uint32
	cqes    unsafe.Pointer

	off    unsafe.Pointer // off-heap: getEventsArg, timespecs, eventfd word, slots' buffers
	offN   uintptr
	arg    *getEventsArg
	argTS  *timespec
	times  unsafe.Pointer // a timespec for each submission entry
	wakeTo *uint64

	bufs      unsafe.Pointer // the provided-buffer ring
	bufsN     uintptr
	bufTail   uint16
	bufMask   uint16
	event     int
	rearm     bool
	local     []Completion // results of what is done without the kernel's ring
	paths     [][64]byte   // of open files, for Stat
	accepted  []uint32     // free socket slots, where the kernel cannot pick them
	accepts   []Token      // of the accepts there ever were, one for each listener, likewise
	closing   []bool
	wakeAs    Token // of the Wake that was pushed, if wakeAsked
	wakeAsked bool

	Stats KernelStats
}

const wakeToken = ^uint64(0)

// NewKernel makes a ring on the calling thread, which must be locked and is
// its only user from then on. Errors say which setting of the machine stands
// in the way.
func NewKernel(options KernelOptions) (*Kernel, error) {
	features, err := Probe()
	if err != nil {
		return nil, err
	}
	k := &Kernel{o: options, features: features.Mask & options.Features, fd: -1, event: -1}
	if err := k.setup(); err != nil {
		k.Close()
		return nil, err
	}
	return k, nil
}

func (k *Kernel) setup() error {
	var offered params
	want := uint32(setupCQSize | setupSubmitAll)
	offered.cqEntries = uint32(k.o.CQEntries)
	if k.features.Has(FeatureSingleIssuer) {
		want |= setupSingleIssuer
	}
	if k.features.Has(FeatureDeferTaskrun) {
		want |= setupDeferTaskrun | setupTaskrunFlag
	} else {
		want |= setupCoopTaskrun | setupTaskrunFlag
	}
	if k.features.Has(FeatureNoSQArray) {
		want |= setupNoSQArray
	}
	offered.flags = want
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(k.o.Entries), uintptr(unsafe.Pointer(&offered)), 0)
	if errno != 0 {
		return setupError(errno, k.o)
	}
	k.fd = int(fd)
	k.enterFD = fd
	unix.CloseOnExec(k.fd)
	if offered.features&featSingleMmap == 0 || offered.features&featNoDrop == 0 || offered.features&featExtArg == 0 {
		return errors.New("io_uring: the kernel lacks features every release since 5.11 has; Tailbound needs Linux 5.19")
	}
	sqN := uintptr(offered.sqOff.array) + uintptr(offered.sqEntries)*4
	cqN := uintptr(offered.cqOff.cqes) + uintptr(offered.cqEntries)*unsafe.Sizeof(cqe{})
	k.ringsN = max(sqN, cqN)
	var err error
	prot, flags := unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE
	if k.rings, err = unix.MmapPtr(k.fd, offSQRing, nil, k.ringsN, prot, flags); err != nil {
		return fmt.Errorf("io_uring: mapping the queues: %w", err)
	}
	k.sqesN = uintptr(offered.sqEntries) * unsafe.Sizeof(sqe{})
	if k.sqes, err = unix.MmapPtr(k.fd, offSQEs, nil, k.sqesN, prot, flags); err != nil {
		return fmt.Errorf("io_uring: mapping the submission entries: %w", err)
	}
	word := func(off uint32) *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Add(k.rings, off)) }
	k.sqHead, k.sqTailP, k.sqFlags = word(offered.sqOff.head), word(offered.sqOff.tail), word(offered.sqOff.flags)
	k.cqHead, k.cqTail = word(offered.cqOff.head), word(offered.cqOff.tail)
	k.sqMask, k.cqMask, k.entries = offered.sqEntries-1, offered.cqEntries-1, offered.sqEntries
	k.cqes = unsafe.Add(k.rings, offered.cqOff.cqes)
	if want&setupNoSQArray == 0 {
		array := unsafe.Slice((*uint32)(unsafe.Add(k.rings, offered.sqOff.array)), offered.sqEntries)
		for i := range array {
			array[i] = uint32(i)
		}
	}
	k.offN = 4096 + uintptr(offered.sqEntries)*unsafe.Sizeof(timespec{})
	if k.off, err = unix.MmapPtr(-1, 0, nil, k.offN, prot, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err != nil {
		return fmt.Errorf("io_uring: mapping 4 KiB: %w", err)
	}
	k.arg = (*getEventsArg)(k.off)
	k.argTS = (*timespec)(unsafe.Add(k.off, 64))
	k.wakeTo = (*uint64)(unsafe.Add(k.off, 128))
	k.times = unsafe.Add(k.off, 4096)
	k.arg.ts = uint64(uintptr(unsafe.Pointer(k.argTS)))
	k.local = make([]Completion, 0, 64)
	return k.register()
}

// register gives the kernel the files, the receive buffers, the ring itself
// and the workers' place.
func (k *Kernel) register() error {
	n := k.o.Files + k.o.Sockets
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil && limit.Cur < uint64(n) {
		unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(n) + 1024, Max: max(limit.Max, uint64(n)+1024)})
	}
	files := rsrcRegister{nr: uint32(n), flags: resourceSparse}
	if errno := k.reg(registerFiles, unsafe.Pointer(&files), uint32(unsafe.Sizeof(files))); errno != 0 {
		return fmt.Errorf("io_uring: registering %d file slots: %w (is RLIMIT_NOFILE, ulimit -n, below that?)", n, errno)
	}
	k.paths = make([][64]byte, k.o.Files)
	if k.features.Has(FeatureFileRange) {
		sockets := fileRange{off: uint32(k.o.Files), len: uint32(k.o.Sockets)}
		if errno := k.reg(registerFileRange, unsafe.Pointer(&sockets), 0); errno != 0 {
			return fmt.Errorf("io_uring: setting apart slots for sockets: %w", errno)
		}
	} else {
		k.accepted, k.accepts = make([]uint32, 0, k.o.Sockets), make([]Token, 0, 64)
		for i := n - 1; i >= k.o.Files; i-- {
			k.accepted = append(k.accepted, uint32(i))
		}
		k.closing = make([]bool, k.o.Sockets)
	}
	if k.o.ReceiveBuffers > 0 {
		k.bufsN = uintptr(k.o.ReceiveBuffers) * unsafe.Sizeof(bufEntry{})
		k.bufsN = (k.bufsN + 4095) &^ 4095
		var err error
		if k.bufs, err = unix.MmapPtr(-1, 0, nil, k.bufsN, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err != nil {
			return fmt.Errorf("io_uring: mapping the buffer ring: %w", err)
		}
		registered := bufReg{ringAddr: uint64(uintptr(k.bufs)), ringEntries: uint32(k.o.ReceiveBuffers)}
		if errno := k.reg(registerPbufRing, unsafe.Pointer(&registered), 1); errno != 0 {
			return fmt.Errorf("io_uring: registering a ring of %d receive buffers: %w", k.o.ReceiveBuffers, errno)
		}
		k.bufMask = uint16(k.o.ReceiveBuffers - 1)
	}
	update := ringFDUpdate{offset: 1<<32 - 1, data: uint64(k.fd)}
	if n, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(k.fd), registerRingFDs, uintptr(unsafe.Pointer(&update)), 1, 0, 0); errno == 0 && n == 1 {
		k.enterFD, k.enterFlg = uintptr(update.offset), enterRegisteredRing
	}
	if len(k.o.IOWQCPUs) > 0 {
		var set unix.CPUSet
		for _, cpu := range k.o.IOWQCPUs {
			set.Set(cpu)
		}
		k.reg(registerIOWQAff, unsafe.Pointer(&set), uint32(unsafe.Sizeof(set))) // a wish: without it workers run where the thread may
	}
	var err error
	if k.event, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	k.rearm = true
	return nil
}

func (k *Kernel) reg(op uintptr, arg unsafe.Pointer, count uint32) unix.Errno {
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(k.fd), op, uintptr(arg), uintptr(count), 0, 0)
	return errno
}

// setupError says what stands in the way of a ring.
func setupError(errno unix.Errno, options KernelOptions) error {
	switch errno {
	case unix.ENOSYS:
		return errors.New("io_uring is not there: the kernel was built without it or a seccomp filter hides it (containers: allow io_uring_setup, io_uring_enter and io_uring_register)")
	case unix.EPERM:
		if value, err := readSysctl("/proc/sys/kernel/io_uring_disabled"); err == nil && value != "0" {
			return fmt.Errorf("io_uring is forbidden: kernel.io_uring_disabled is %s (set it to 0: sysctl -w kernel.io_uring_disabled=0)", value)
		}
		return errors.New("io_uring is forbidden: a seccomp filter or a security module refuses io_uring_setup (containers: allow io_uring_setup, io_uring_enter and io_uring_register)")
	case unix.ENOMEM:
		return errors.New("io_uring: too little memory, or RLIMIT_MEMLOCK (ulimit -l) is too low, for the queues")
	}
	return fmt.Errorf("io_uring: setting up a ring of %d entries: %w", options.Entries, errno)
}

// Close gives everything back. Operations under way are cancelled by the
// kernel; their memory must live until Close has returned.
func (k *Kernel) Close() {
	if k.fd >= 0 {
		if k.enterFlg != 0 { // the registration holds the ring, and its listeners, open
			update := ringFDUpdate{offset: uint32(k.enterFD)}
			k.reg(unregisterRingFDs, unsafe.Pointer(&update), 1)
		}
		unix.Close(k.fd)
		k.fd = -1
	}
	if k.event >= 0 {
		unix.Close(k.event)
		k.event = -1
	}
	for _, m := range []struct {
		p *unsafe.Pointer
		n uintptr
	}{{&k.rings, k.ringsN}, {&k.sqes, k.sqesN}, {&k.off, k.offN}, {&k.bufs, k.bufsN}} {
		if *m.p != nil {
			unix.MunmapPtr(*m.p, m.n)
			*m.p = nil
		}
	}
}

// InstallFile puts an open file into a slot; fd may be closed after it.
func (k *Kernel) InstallFile(slot uint32, fd int) error {
	v := int32(fd)
	update := rsrcUpdate2{offset: slot, data: uint64(uintptr(unsafe.Pointer(&v))), nr: 1}
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(k.fd), registerFilesUpdate2, uintptr(unsafe.Pointer(&update)), unsafe.Sizeof(update), 0, 0)
	runtime.KeepAlive(&v)
	if errno != 0 {
		return errno
	}
	return nil
}

// Waker wakes the ring's owner from any thread.
type Waker struct{ fd int }

// Wake makes the owner's Wait return, now or the next time.
func (w Waker) Wake() {
	one := uint64(1)
	unix.Write(w.fd, (*[8]byte)(unsafe.Pointer(&one))[:])
}

// Waker is for other threads to keep.
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

// Room is how many ops can be pushed.
func (k *Kernel) Room() int {
	return int(k.entries) - int(k.sqTail-k.sqHead.Load()) - 1
}

// Push queues op.
func (k *Kernel) Push(op Op) bool {
	switch op.Code {
	case Provide:
		k.provide(op)
		return true
	case List, Stat:
		k.local = append(k.local, Completion{Token: op.Token, Result: k.inline(op)})
		return true
	case Wake:
		k.wakeAs, k.wakeAsked = op.Token, true // the ring's own wake-up is always armed
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
			// The slot is free once the kernel has closed it; what was pushed
			// before the close goes first.
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
		if k.accepted == nil {
			entry.fileIndex = fileIndexAlloc
		} else {
			if !slices.Contains(k.accepts, op.Token) {
				k.accepts = append(k.accepts, op.Token)
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

// next is the next submission entry, zeroed.
func (k *Kernel) next() *sqe {
	entry := (*sqe)(unsafe.Add(k.sqes, uintptr(k.sqTail&k.sqMask)*unsafe.Sizeof(sqe{})))
	*entry = sqe{}
	k.sqTail++
	return entry
}

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
	// The tail is the last 16 bits of entry 0 (struct io_uring_buf_ring). The
	// store must not be seen before the entry's: publish the 32-bit word
	// (bid of entry 0, tail) atomically.
	first := (*bufEntry)(k.bufs)
	word := (*atomic.Uint32)(unsafe.Pointer(&first.bid))
	word.Store(uint32(first.bid) | uint32(k.bufTail)<<16)
}

// inline does what has no asynchronous form.
func (k *Kernel) inline(op Op) int32 {
	if op.Code == Stat {
		name := path(k.paths[op.File][:])
		var st unix.Stat_t
		if err := unix.Fstatat(k.o.RootFD, string(name), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return -int32(err.(unix.Errno))
		}
		binary.LittleEndian.PutUint64(op.Buf.Bytes(), uint64(st.Size))
		return 0
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

// Reap copies out what has completed.
func (k *Kernel) Reap(out []Completion) int {
	n := copy(out, k.local)
	k.local = k.local[:copy(k.local, k.local[n:])]
	head, tail := k.cqHead.Load(), k.cqTail.Load()
	for head != tail && n < len(out) {
		entry := (*cqe)(unsafe.Add(k.cqes, uintptr(head&k.cqMask)*unsafe.Sizeof(cqe{})))
		head++
		if entry.userData == wakeToken {
			k.rearm = true
			k.Stats.Wakes++
			if k.wakeAsked {
				out[n] = Completion{Token: k.wakeAs, Flags: FlagMore}
				n++
			}
			continue
		}
		out[n] = Completion{Token: Token(entry.userData), Result: entry.res, Flags: entry.flags}
		if entry.res == -int32(ENOBUFS) {
			k.Stats.NoBuffers++
		}
		if k.accepted != nil {
			k.place(&out[n])
		}
		n++
	}
	k.cqHead.Store(head)
	return n
}

// place puts a socket that the kernel accepted as an ordinary file into a slot
// of ours, and takes slots back.
func (k *Kernel) place(completion *Completion) {
	if completion.Result < 0 || !slices.Contains(k.accepts, completion.Token) {
		return
	}
	fd := int(completion.Result)
	if len(k.accepted) == 0 {
		k.submit() // a close still queued would close the slot's next owner
	}
	if len(k.accepted) == 0 && k.told == k.sqTail {
		for i, closed := range k.closing {
			if closed {
				k.closing[i] = false
				k.accepted = append(k.accepted, uint32(k.o.Files+i))
			}
		}
	}
	if len(k.accepted) == 0 {
		unix.Close(fd)
		completion.Result = -int32(ENFILE)
		return
	}
	slot := k.accepted[len(k.accepted)-1]
	if err := k.InstallFile(slot, fd); err != nil {
		completion.Result = -int32(err.(unix.Errno))
	} else {
		k.accepted = k.accepted[:len(k.accepted)-1]
		completion.Result = int32(slot)
	}
	unix.Close(fd)
}

// submit tells the kernel what is queued and runs its pending work, without
// sleeping.
func (k *Kernel) submit() {
	if k.rearm && k.entries-(k.sqTail-k.sqHead.Load()) > 0 {
		k.rearm = false
		entry := k.next()
		entry.opcode, entry.fd, entry.addr, entry.len, entry.userData, entry.off = opRead, int32(k.event), uint64(uintptr(unsafe.Pointer(k.wakeTo))), 8, wakeToken, 1<<64-1
	}
	for {
		count := k.sqTail - k.told
		flags := k.sqFlags.Load()
		if count == 0 && flags&(sqTaskrun|sqCQOverflow) == 0 {
			return
		}
		if flags&sqCQOverflow != 0 {
			k.Stats.Overflows++
		}
		k.sqTailP.Store(k.sqTail)
		k.Stats.Enters++
		got, _, errno := unix.RawSyscall6(unix.SYS_IO_URING_ENTER, k.enterFD, uintptr(count), 0, enterGetEvents|k.enterFlg, 0, 0)
		switch Judge(enter, -int32(errno)) {
		case Good:
			k.told += uint32(got)
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

// Wait submits, then sleeps.
func (k *Kernel) Wait(until Instant) {
	k.submit()
	if len(k.local) > 0 || k.ready() || until <= 0 {
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
		flags := enterGetEvents | enterExtArg | k.enterFlg
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
		// Syscall6, so that Go's scheduler sees the thread block and gives its
		// processor away: a raw call would hold up every stop of the world.
		_, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, k.enterFD, 0, 1, flags, uintptr(unsafe.Pointer(k.arg)), unsafe.Sizeof(getEventsArg{}))
		switch Judge(enter, -int32(errno)) {
		case Good:
			if errno != 0 {
				return // its time has come
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

func readSysctl(name string) (string, error) {
	buf := make([]byte, 64)
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(buf[:n])), nil
}
