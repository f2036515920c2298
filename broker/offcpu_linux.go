package broker

import (
	"runtime/debug"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/metrics"
)

// offCPU asks the kernel how long this thread could have run and did not. It belongs to
// the thread of one data shard, which asks at most once in sampleNS. A longer interval
// off the CPU is therefore always noticed in the turn that follows it. It has three
// causes:
//
//   - waiting for a CPU: the second number of /proc/thread-self/schedstat, exact
//   - Go's garbage collector: time off the CPU while a collection ran
//   - the host of a virtual machine: time in turns that the thread neither spent on a
//     CPU nor waited for one; a lower bound
type offCPU struct {
	flight    *metrics.Flight
	schedstat int // -1: this kernel has none
	last      int64
	cpu       int64
	waited    int64
	turns     int64 // ns in turns since last
	ended     int64 // when the last turn ended
	waits     uint64
	collected bool // a collection was under way
	stats     debug.GCStats
	buf       *[64]byte
}

const (
	sampleNS  = 500e3
	missingNS = 50e3 // less time off the CPU is ignored
)

// writeBarrier is the runtime's flag for the compiler's write barriers, which is set
// while a garbage collection marks. It changes only while the world is stopped, and may
// be linked to (go.dev/issue/67401). There is no other way to learn this without a lock.
//
//go:linkname writeBarrier runtime.writeBarrier
var writeBarrier struct {
	enabled bool
	_       [3]byte
	_       uint64
}

// newOffCPU begins to watch the calling thread. It returns nil if there is no recorder;
// the methods of a nil offCPU do nothing.
func newOffCPU(f *metrics.Flight, now int64) *offCPU {
	if f == nil {
		return nil
	}
	o := &offCPU{flight: f, last: now, buf: new([64]byte)}
	var err error
	if o.schedstat, err = unix.Open("/proc/thread-self/schedstat", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		o.schedstat = -1
	}
	o.cpu, o.waited = o.read()
	debug.ReadGCStats(&o.stats) // allocates the memory for later calls
	return o
}

func (o *offCPU) close() {
	if o != nil && o.schedstat >= 0 {
		unix.Close(o.schedstat)
	}
}

// turned records when a turn began and ended.
func (o *offCPU) turned(began, ended int64) {
	if o != nil {
		o.busy(ended - began)
		o.ended = ended
	}
}

func (o *offCPU) busy(ns int64) {
	o.flight.Turned(ns)
	o.turns += ns
}

// look is called before each turn. If the ring neither slept nor polled since the last
// turn, the time since then was spent on submitting, and counts as a part of that turn.
func (o *offCPU) look(now int64, stats *ioring.KernelStats) {
	if o == nil {
		return
	}
	waits := stats.Sleeps + stats.SpinHits
	if waits == o.waits && o.ended > 0 {
		o.busy(now - o.ended)
	}
	o.waits = waits
	if now-o.last < sampleNS {
		return
	}
	cpu, waited := o.read()
	missing := max(0, waited-o.waited)
	steal := max(0, o.turns-(cpu-o.cpu)-missing)
	if steal < missingNS {
		steal = 0 // within the differences between the clocks
	}
	gc, collects := int64(0), writeBarrier.enabled
	if missing+steal >= missingNS && (collects || o.collected || o.endedSince(now)) {
		gc, missing, steal = missing+steal, 0, 0
	}
	if missing+gc+steal > 0 {
		o.flight.Kept(missing, gc, steal)
	}
	o.last, o.cpu, o.waited, o.turns, o.collected = now, cpu, waited, 0, collects
}

// endedSince says whether a collection ended since the last look. It takes a few
// microseconds, and is called only after at least missingNS off the CPU.
func (o *offCPU) endedSince(now int64) bool {
	debug.ReadGCStats(&o.stats)
	return o.stats.NumGC > 0 && time.Since(o.stats.LastGC) < time.Duration(now-o.last)
}

// read returns in ns the CPU time of this thread and how long it waited for a CPU.
func (o *offCPU) read() (cpu, waited int64) {
	ts := (*unix.Timespec)(unsafe.Pointer(o.buf))
	if _, _, errno := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_THREAD_CPUTIME_ID, uintptr(unsafe.Pointer(ts)), 0); errno != 0 {
		return o.cpu + o.turns, o.waited
	}
	cpu = ts.Nano()
	if o.schedstat < 0 {
		return cpu, 0
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_PREAD64, uintptr(o.schedstat), uintptr(unsafe.Pointer(o.buf)), unsafe.Sizeof(*o.buf), 0, 0, 0)
	if errno != 0 {
		return cpu, o.waited
	}
	field := 0
	for _, c := range o.buf[:n] {
		switch {
		case c == ' ':
			field++
		case field == 1 && c >= '0' && c <= '9':
			waited = waited*10 + int64(c-'0')
		}
	}
	return cpu, waited
}
