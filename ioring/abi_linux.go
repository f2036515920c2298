package ioring

// The io_uring ABI, as include/uapi/linux/io_uring.h of Linux 6.12 has it.

const (
	setupCQSize       = 1 << 3
	setupSubmitAll    = 1 << 7
	setupCoopTaskrun  = 1 << 8
	setupTaskrunFlag  = 1 << 9
	setupSingleIssuer = 1 << 12
	setupDeferTaskrun = 1 << 13
	setupNoSQArray    = 1 << 16

	enterGetEvents      = 1 << 0
	enterExtArg         = 1 << 3
	enterRegisteredRing = 1 << 4

	sqCQOverflow = 1 << 1
	sqTaskrun    = 1 << 2

	featSingleMmap = 1 << 0
	featNoDrop     = 1 << 1
	featExtArg     = 1 << 8

	offSQRing = 0
	offSQEs   = 0x10000000

	registerFiles        = 13 // IORING_REGISTER_FILES2
	registerFilesUpdate2 = 14
	registerProbe        = 8
	registerIOWQAff      = 17
	registerRingFDs      = 20
	unregisterRingFDs    = 21
	registerPbufRing     = 22
	registerFileRange    = 25
	resourceSparse       = 1 << 0

	opNop          = 0
	opFsync        = 3
	opSendmsg      = 9
	opTimeout      = 11
	opAccept       = 13
	opAsyncCancel  = 14
	opFallocate    = 17
	opOpenat       = 18
	opClose        = 19
	opStatx        = 21
	opRead         = 22
	opWrite        = 23
	opRecv         = 27
	opShutdown     = 34
	opRenameat     = 35
	opUnlinkat     = 36
	opMkdirat      = 37
	opSendZC       = 47 // the first op of Linux 6.0: a probe that has it has multishot receive
	fsyncDatasync  = 1 << 0
	timeoutAbs     = 1 << 0
	cancelAll      = 1 << 0
	acceptMulti    = 1 << 0
	recvMulti      = 1 << 1
	fileIndexAlloc = 1<<32 - 1

	sqeFixedFile    = 1 << 0
	sqeLink         = 1 << 2
	sqeBufferSelect = 1 << 5
)

// sqe is struct io_uring_sqe, 64 bytes.
type sqe struct {
	opcode      uint8
	flags       uint8
	ioprio      uint16
	fd          int32
	off         uint64
	addr        uint64
	len         uint32
	opFlags     uint32
	userData    uint64
	bufGroup    uint16 // or buf_index
	personality uint16
	fileIndex   uint32 // or splice_fd_in
	addr3       uint64
	pad         uint64
}

// cqe is struct io_uring_cqe.
type cqe struct {
	userData uint64
	res      int32
	flags    uint32
}

type sqOffsets struct {
	head, tail, ringMask, ringEntries, flags, dropped, array, resv1 uint32
	userAddr                                                        uint64
}

type cqOffsets struct {
	head, tail, ringMask, ringEntries, overflow, cqes, flags, resv1 uint32
	userAddr                                                        uint64
}

type params struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
	resv                                                                   [3]uint32
	sqOff                                                                  sqOffsets
	cqOff                                                                  cqOffsets
}

type getEventsArg struct {
	sigmask   uint64
	sigmaskSz uint32
	minWait   uint32
	ts        uint64
}

type timespec struct{ sec, nsec int64 }

type rsrcRegister struct {
	nr, flags  uint32
	resv2      uint64
	data, tags uint64
}

type rsrcUpdate2 struct {
	offset, resv uint32
	data, tags   uint64
	nr, resv2    uint32
}

type ringFDUpdate struct {
	offset, resv uint32
	data         uint64
}

type bufReg struct {
	ringAddr    uint64
	ringEntries uint32
	bgid, flags uint16
	resv        [3]uint64
}

type bufEntry struct {
	addr uint64
	len  uint32
	bid  uint16
	tail uint16 // of entry 0: the ring's tail
}

type fileRange struct {
	off, len uint32
	resv     uint64
}

type msghdr struct {
	name       uint64
	nameLen    uint32
	_          uint32
	iov        uint64
	iovLen     uint64
	control    uint64
	controlLen uint64
	flags      int32
	_          int32
}
