package engine_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/engine/recovery"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// real is the storage of one data shard on the kernel's ring and a directory.
type real struct {
	t     testing.TB
	ring  *ioring.Kernel
	arena *mem.Arena
	e     *engine.Engine
	boot  *engine.RecoveredState
	slot  engine.Slot
	views []engine.View
}

func (r *real) now() ioring.Instant {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ioring.Instant(ts.Nano())
}

func newKernel(t testing.TB, dir string, direct int) (*ioring.Kernel, *mem.Arena, recovery.Options) {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	buffered := false
	probe, err := unix.Open(filepath.Join(dir, "probe"), unix.O_CREAT|unix.O_RDWR|unix.O_DIRECT, 0o600)
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs); err != nil || fs.Type == unix.TMPFS_MAGIC {
		buffered = true
	}
	if err == nil {
		unix.Close(probe)
	}
	os.Remove(filepath.Join(dir, "probe"))
	features, err := ioring.Probe()
	if err != nil {
		t.Skipf("no ring: %v", err)
	}
	ring, err := ioring.NewKernel(ioring.KernelOptions{Entries: 256, CQEntries: 1024, Files: 128, Sockets: 1, RootFD: fd, Features: features.Mask, Buffered: buffered, SpinNS: 20e3})
	if err != nil {
		t.Skipf("no ring: %v", err)
	}
	t.Cleanup(func() { ring.Close() })
	arena, err := mem.Map(64<<20, mem.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { arena.Unmap() })
	o := engine.Options{LogsMax: 16, SegmentBytes: 4 << 20, JournalBytes: 4 << 20, LogMemoryBytes: 8 << 20, BatchBytesMax: 256 << 10, DirectBytes: direct, Files: 1, FilesMax: 64}
	return ring, arena, recovery.Options{Options: o, Shards: 1, Seed: [16]byte{4, 4}}
}

func openReal(t testing.TB, dir string, direct int) *real {
	t.Helper()
	ring, arena, o := newKernel(t, dir, direct)
	r := &real{t: t, ring: ring, arena: arena, views: make([]engine.View, 64)}
	var err error
	if r.boot, err = recovery.Recover(ring, arena, o); err != nil {
		t.Fatal(err)
	}
	if r.e, err = engine.New(ring, arena, r.boot, 1, nil, o.Options); err != nil {
		t.Fatal(err)
	}
	if s, ok := r.e.Lookup(3); ok {
		r.slot = s
		return r
	}
	if st := r.e.OpenLog(3, 0); st != engine.OK {
		t.Fatal(name(st))
	}
	r.until(func(ev engine.Event) bool { r.slot = ev.Slot; return ev.Kind == engine.Opened })
	return r
}

// turn reaps, steps, and passes events on; it sleeps at most a millisecond.
func (r *real) turn(told func(engine.Event) bool) bool {
	var out [64]ioring.Completion
	sleep := r.e.Step(r.now())
	r.ring.Wait(min(sleep, r.now()+1e6))
	n := r.ring.Reap(out[:])
	for _, c := range out[:n] {
		r.e.Complete(c, r.now())
	}
	hit := false
	for {
		ev, ok := r.e.Next()
		if !ok {
			return hit
		}
		if ev.Kind == engine.Failed {
			f, _ := r.e.Failure()
			r.t.Fatalf("the storage failed: %v", f.Error())
		}
		hit = told(ev) || hit
	}
}

func (r *real) until(told func(engine.Event) bool) {
	for deadline := time.Now().Add(20 * time.Second); !r.turn(told); {
		if time.Now().After(deadline) {
			r.t.Fatal("twenty seconds were not enough")
		}
	}
}

func quiet(engine.Event) bool { return false }

func (r *real) append(n int, count uint32) {
	for deadline := time.Now().Add(20 * time.Second); ; {
		dst, base, st := r.e.Reserve(r.slot, n)
		if st == engine.OK {
			clear(dst)
			fill(dst, 3, base, count)
			r.e.Commit(engine.Meta{Count: count, MaxTime: base, CRC: 1})
			return
		}
		if st != engine.WaitMemory && st != engine.WaitRoom || time.Now().After(deadline) {
			r.t.Fatal(name(st))
		}
		r.turn(quiet)
	}
}

func (r *real) settle() {
	for deadline := time.Now().Add(20 * time.Second); r.e.Durable(r.slot) < r.e.End(r.slot); r.turn(quiet) {
		if time.Now().After(deadline) {
			r.t.Fatal("twenty seconds were not enough")
		}
	}
}

// verify reads the log whole; every batch is n bytes and count records.
func (r *real) verify(n int, count uint32) (cold int) {
	want := make([]byte, n)
	for at := r.e.Start(r.slot); at < r.e.Durable(r.slot); {
		k, st := r.e.Read(r.slot, at, r.e.Durable(r.slot), 1<<20, r.views)
		read := uint32(0)
		isCold := st == engine.NotCached
		if isCold {
			cold++
			if st = r.e.ReadDisk(r.slot, at, 5); st == engine.OK {
				r.until(func(ev engine.Event) bool {
					if ev.Kind != engine.ReadDone {
						return false
					}
					st, read = ev.Status, ev.Read
					return true
				})
			}
			if st == engine.OK {
				k = r.e.ReadViews(read, at, r.e.Durable(r.slot), 1<<20, r.views)
			}
		}
		if st != engine.OK || k == 0 {
			r.t.Fatalf("reading at %d: %s, %d views", at, name(st), k)
		}
		for _, v := range r.views[:k] {
			for p := v.Bytes; len(p) > 0; p = p[n:] {
				clear(want)
				fill(want, 3, at, count)
				if !bytes.Equal(p[:n], want) {
					r.t.Fatalf("the batch at %d is not what was appended; its head says %d", at, binary.BigEndian.Uint64(p))
				}
				at += int64(count)
			}
			r.e.Unpin(v.Pin)
		}
		if isCold {
			r.e.ReadEnd(read)
		}
	}
	return cold
}

func (r *real) stop() {
	r.e.Shutdown()
	for deadline := time.Now().Add(20 * time.Second); !r.e.Idle(); r.turn(quiet) {
		if time.Now().After(deadline) {
			r.t.Fatal("a clean stop does not end")
		}
	}
	r.ring.Close()
}

func checkReal(t *testing.T, dir string, direct int) {
	t.Helper()
	ring, arena, o := newKernel(t, dir, direct)
	defer ring.Close()
	report, err := recovery.Check(ring, arena, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range report.Problems() {
		t.Error(p)
	}
}

// The kernel's ring and a real directory: several segments, journal laps, a
// clean stop, a process that just ends, and all of it read again from disk.
// Once through the journal, once straight to the segments.
func TestKernel(t *testing.T) {
	for name, direct := range map[string]int{"journal": -1, "direct": 20_000} {
		t.Run(name, func(t *testing.T) { testKernel(t, direct) })
	}
}

func testKernel(t *testing.T, direct int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	dir, err := os.MkdirTemp(".", "kernel-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := openReal(t, dir, direct)
	for range 600 {
		r.append(30_000, 10)
	}
	r.settle()
	if cold := r.verify(30_000, 10); cold == 0 {
		t.Error("18 MB in 8 MiB of memory, and nothing was read from disk")
	}
	if s := r.e.Stats(); direct > 0 && s.DirectRuns == 0 {
		t.Errorf("no run was direct: %+v", *s)
	}
	r.stop()
	checkReal(t, dir, direct)

	r = openReal(t, dir, direct)
	for range 200 {
		r.append(30_000, 10)
	}
	r.settle()
	end := r.e.Durable(r.slot)
	for range 20 { // let what is in flight land, then end without a word
		r.turn(quiet)
	}
	r.ring.Close()

	r = openReal(t, dir, direct)
	if r.e.End(r.slot) < end {
		t.Errorf("the log ends at %d, %d was acknowledged", r.e.End(r.slot), end)
	}
	r.verify(30_000, 10)
	r.stop()
	checkReal(t, dir, direct)
}
