package ioring

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// NewKernel makes a ring for the calling thread, which must be locked (runtime.LockOSThread) and
// is its only user from then on. Errors name the setting of the machine that prevents it.
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

// setup makes the ring and maps its queues.
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
	k.ringsBytes = max(sqN, cqN)
	var err error
	prot, flags := unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE
	if k.rings, err = unix.MmapPtr(k.fd, offSQRing, nil, k.ringsBytes, prot, flags); err != nil {
		return fmt.Errorf("io_uring: mapping the queues: %w", err)
	}
	k.sqesBytes = uintptr(offered.sqEntries) * unsafe.Sizeof(sqe{})
	if k.sqes, err = unix.MmapPtr(k.fd, offSQEs, nil, k.sqesBytes, prot, flags); err != nil {
		return fmt.Errorf("io_uring: mapping the submission entries: %w", err)
	}
	word := func(off uint32) *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Add(k.rings, off)) }
	k.sqHead, k.sqTailShared, k.sqFlags = word(offered.sqOff.head), word(offered.sqOff.tail), word(offered.sqOff.flags)
	k.cqHead, k.cqTail = word(offered.cqOff.head), word(offered.cqOff.tail)
	k.sqMask, k.cqMask, k.entries = offered.sqEntries-1, offered.cqEntries-1, offered.sqEntries
	k.cqes = unsafe.Add(k.rings, offered.cqOff.cqes)
	if want&setupNoSQArray == 0 {
		array := unsafe.Slice((*uint32)(unsafe.Add(k.rings, offered.sqOff.array)), offered.sqEntries)
		for i := range array {
			array[i] = uint32(i)
		}
	}
	k.offHeapBytes = 4096 + uintptr(offered.sqEntries)*unsafe.Sizeof(timespec{})
	if k.offHeap, err = unix.MmapPtr(-1, 0, nil, k.offHeapBytes, prot, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err != nil {
		return fmt.Errorf("io_uring: mapping 4 KiB: %w", err)
	}
	k.arg = (*getEventsArg)(k.offHeap)
	k.argTS = (*timespec)(unsafe.Add(k.offHeap, 64))
	k.wakeWord = (*uint64)(unsafe.Add(k.offHeap, 128))
	k.times = unsafe.Add(k.offHeap, 4096)
	k.arg.ts = uint64(uintptr(unsafe.Pointer(k.argTS)))
	k.inlineResults = make([]Completion, 0, 64)
	return k.register()
}

// register registers with the kernel the slots of files and sockets, the ring of receive
// buffers, the ring's own descriptor, and the CPUs of its workers.
func (k *Kernel) register() error {
	n := k.o.Files + k.o.Sockets
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil && limit.Cur < uint64(n) {
		unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(n) + 1024, Max: max(limit.Max, uint64(n)+1024)})
	}
	files := rsrcRegister{nr: uint32(n), flags: resourceSparse}
	if errno := k.registerCall(registerFiles, unsafe.Pointer(&files), uint32(unsafe.Sizeof(files))); errno != 0 {
		return fmt.Errorf("io_uring: registering %d file slots: %w (is RLIMIT_NOFILE, ulimit -n, below that?)", n, errno)
	}
	k.paths = make([][64]byte, k.o.Files)
	if k.features.Has(FeatureFileRange) {
		sockets := fileRange{off: uint32(k.o.Files), len: uint32(k.o.Sockets)}
		if errno := k.registerCall(registerFileRange, unsafe.Pointer(&sockets), 0); errno != 0 {
			return fmt.Errorf("io_uring: setting apart slots for sockets: %w", errno)
		}
	} else {
		k.freeSockets, k.acceptTokens = make([]uint32, 0, k.o.Sockets), make([]Token, 0, 64)
		for i := n - 1; i >= k.o.Files; i-- {
			k.freeSockets = append(k.freeSockets, uint32(i))
		}
		k.closing = make([]bool, k.o.Sockets)
	}
	if k.o.ReceiveBuffers > 0 {
		k.bufsBytes = uintptr(k.o.ReceiveBuffers) * unsafe.Sizeof(bufEntry{})
		k.bufsBytes = (k.bufsBytes + 4095) &^ 4095
		var err error
		if k.bufs, err = unix.MmapPtr(-1, 0, nil, k.bufsBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err != nil {
			return fmt.Errorf("io_uring: mapping the buffer ring: %w", err)
		}
		registered := bufReg{ringAddr: uint64(uintptr(k.bufs)), ringEntries: uint32(k.o.ReceiveBuffers)}
		if errno := k.registerCall(registerPbufRing, unsafe.Pointer(&registered), 1); errno != 0 {
			return fmt.Errorf("io_uring: registering a ring of %d receive buffers: %w", k.o.ReceiveBuffers, errno)
		}
		k.bufMask = uint16(k.o.ReceiveBuffers - 1)
	}
	update := ringFDUpdate{offset: 1<<32 - 1, data: uint64(k.fd)}
	if n, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(k.fd), registerRingFDs, uintptr(unsafe.Pointer(&update)), 1, 0, 0); errno == 0 && n == 1 {
		k.enterFD, k.enterFlags = uintptr(update.offset), enterRegisteredRing
	}
	if len(k.o.IOWQCPUs) > 0 {
		var set unix.CPUSet
		for _, cpu := range k.o.IOWQCPUs {
			set.Set(cpu)
		}
		k.registerCall(registerIOWQAff, unsafe.Pointer(&set), uint32(unsafe.Sizeof(set))) // optional: otherwise workers run where the thread may
	}
	var err error
	if k.event, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	k.wakeReadDue = true
	return nil
}

func (k *Kernel) registerCall(op uintptr, arg unsafe.Pointer, count uint32) unix.Errno {
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(k.fd), op, uintptr(arg), uintptr(count), 0, 0)
	return errno
}

// setupError is what prevents a ring, for an operator.
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

// Close releases the ring. The kernel cancels the operations in flight; their memory must stay
// mapped until Close has returned.
func (k *Kernel) Close() {
	if k.fd >= 0 {
		if k.enterFlags != 0 { // the registration keeps the ring, and its listeners, open
			update := ringFDUpdate{offset: uint32(k.enterFD)}
			k.registerCall(unregisterRingFDs, unsafe.Pointer(&update), 1)
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
	}{{&k.rings, k.ringsBytes}, {&k.sqes, k.sqesBytes}, {&k.offHeap, k.offHeapBytes}, {&k.bufs, k.bufsBytes}} {
		if *m.p != nil {
			unix.MunmapPtr(*m.p, m.n)
			*m.p = nil
		}
	}
}

// InstallFile puts an open file into a slot. fd may be closed afterwards.
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
