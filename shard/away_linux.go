package shard

import (
	"runtime/debug"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/metrics"
)

// away asks the kernel how long this thread wanted to run and did not. It belongs
// to the thread of one data shard, which asks at most each sampleNS: a stretch of
// so long that is missing is so always found in the turn that it came before.
//
//   - waited for a CPU: the second number of /proc/thread-self/schedstat, exact
//   - kept from it by Go's collector: what was missing while a collection ran
//   - taken by the host: what turns took that the thread has neither spent on a
//     CPU nor waited for one; at least that
type away struct {
	flight    *metrics.Flight
	schedstat int // -1: this kernel has none
	last      int64
	cpu       int64
	waited    int64
	turns     int64 // ns in turns since last
	ended     int64 // when the last turn did
	waits     uint64
	collected bool // a collection was under way
	stats     debug.GCStats
	buf       *[64]byte
}

const (
	sampleNS = 500e3
	// what is missing less than that is not asked after
	missingNS = 50e3
)

// The runtime's own flag that a collection marks: it stands for the compiler's
// write barriers, is set and cleared while the world is stopped, and may be
// linked to (go.dev/issue/67401). There is no other way to know without a lock.
//
//go:linkname writeBarrier runtime.writeBarrier
var writeBarrier struct {
	enabled bool
	_       [3]byte
	_       uint64
}

// newAway begins to watch the calling thread; nil where nothing is recorded.
func newAway(f *metrics.Flight, now int64) *away {
	if f == nil {
		return nil
	}
	a := &away{flight: f, last: now, buf: new([64]byte)}
	var err error
	if a.schedstat, err = unix.Open("/proc/thread-self/schedstat", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		a.schedstat = -1
	}
	a.cpu, a.waited = a.read()
	debug.ReadGCStats(&a.stats) // takes the memory it will need
	return a
}

func (a *away) close() {
	if a != nil && a.schedstat >= 0 {
		unix.Close(a.schedstat)
	}
}

// turned is told when a turn began and ended.
func (a *away) turned(began, ended int64) {
	if a != nil {
		a.busy(ended - began)
		a.ended = ended
	}
}

func (a *away) busy(ns int64) {
	a.flight.Turned(ns)
	a.turns += ns
}

// look is called before each turn. What the ring took to hand its operations over
// is the turn's before, where it neither slept nor spun behind that.
func (a *away) look(now int64, stats *ioring.KernelStats) {
	if a == nil {
		return
	}
	waits := stats.Sleeps + stats.SpinHits
	if waits == a.waits && a.ended > 0 {
		a.busy(now - a.ended)
	}
	a.waits = waits
	if now-a.last < sampleNS {
		return
	}
	cpu, waited := a.read()
	missing := max(0, waited-a.waited)
	steal := max(0, a.turns-(cpu-a.cpu)-missing)
	if steal < missingNS {
		steal = 0 // the clocks' own differences
	}
	gc, collects := int64(0), writeBarrier.enabled
	if missing+steal >= missingNS && (collects || a.collected || a.endedSince(now)) {
		gc, missing, steal = missing+steal, 0, 0
	}
	if missing+gc+steal > 0 {
		a.flight.Kept(missing, gc, steal)
	}
	a.last, a.cpu, a.waited, a.turns, a.collected = now, cpu, waited, 0, collects
}

// endedSince says whether a collection ended since the last look. It takes a few
// microseconds, and is asked where at least as many were missing.
func (a *away) endedSince(now int64) bool {
	debug.ReadGCStats(&a.stats)
	return a.stats.NumGC > 0 && time.Since(a.stats.LastGC) < time.Duration(now-a.last)
}

// read is the CPU time of this thread, and how long it waited for a CPU, ns.
func (a *away) read() (cpu, waited int64) {
	ts := (*unix.Timespec)(unsafe.Pointer(a.buf))
	if _, _, errno := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_THREAD_CPUTIME_ID, uintptr(unsafe.Pointer(ts)), 0); errno != 0 {
		return a.cpu + a.turns, a.waited
	}
	cpu = ts.Nano()
	if a.schedstat < 0 {
		return cpu, 0
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_PREAD64, uintptr(a.schedstat), uintptr(unsafe.Pointer(a.buf)), unsafe.Sizeof(*a.buf), 0, 0, 0)
	if errno != 0 {
		return cpu, a.waited
	}
	field := 0
	for _, c := range a.buf[:n] {
		switch {
		case c == ' ':
			field++
		case field == 1 && c >= '0' && c <= '9':
			waited = waited*10 + int64(c-'0')
		}
	}
	return cpu, waited
}
