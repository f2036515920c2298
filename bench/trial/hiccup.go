package trial

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/bench/load"
	"github.com/tailbound/tailbound/bench/record"
)

// How far apart the wake-ups are that look for hiccups: of a measurement of its
// own, and beside a load, where they should cost nothing.
const (
	hiccupEveryNS = 1_000_000
	watchEveryNS  = 5_000_000
	gapLeastNS    = 1_000 // of a spinning thread: what is shorter is the loop itself
	blockBytes    = 4096
)

// Hiccups is the machine's own noise: how late a thread wakes on each core,
// with nothing else asked of it; for how long it is kept from running while it
// spins; what a small durable write takes.
type Hiccups struct {
	CPUs     []int
	Duration time.Duration
	Spin     bool   // also the gaps of a thread that never sleeps, core after core
	Disk     string // a directory: also 4 KiB direct writes with fdatasync; "": none
}

// Measure records it.
func (h Hiccups) Measure(ctx context.Context, e Env) (*record.Run, error) {
	machine := record.Describe(e.Disk)
	started := time.Now()
	out, err := record.Create(e.Dir, started, "tailbound bench hiccup\n"+machine.Lines())
	if err != nil {
		return nil, err
	}
	window := load.Now()
	interval := min(int64(time.Second), int64(h.Duration))
	parts := []func() ([]record.Interval, error){func() ([]record.Interval, error) {
		return sleepers(h.CPUs, load.Now(), int64(h.Duration), interval, hiccupEveryNS, "wake-cpu%d")(), nil
	}}
	if h.Spin {
		for _, cpu := range h.CPUs {
			parts = append(parts, func() ([]record.Interval, error) {
				return []record.Interval{spin(cpu, int64(h.Duration)/int64(len(h.CPUs)))}, nil
			})
		}
	}
	if h.Disk != "" {
		parts = append(parts, func() ([]record.Interval, error) { return disk(h.Disk, int64(h.Duration), interval) })
	}
	run := &record.Run{Name: "hiccup", Why: "What this machine does to a program that asks nothing of it: no figure below this is resolved.",
		Started: started, Machine: machine, Versions: e.Label, Series: map[string]record.Summary{}}
	pooled := map[string]*record.Histogram{}
	for _, part := range parts {
		if ctx.Err() != nil {
			return nil, errors.Join(ctx.Err(), out.Finish(run))
		}
		begin := load.Now() - window
		all, err := part()
		if err != nil {
			return nil, errors.Join(err, out.Finish(run))
		}
		for _, i := range all {
			i.StartNS, i.EndNS = i.StartNS+begin, i.EndNS+begin
			if pooled[i.Series] == nil {
				pooled[i.Series] = record.NewHistogram()
			}
			i.H.Into(pooled[i.Series])
			if err := out.Add(i); err != nil {
				return nil, err
			}
		}
	}
	for name, p := range pooled {
		run.Series[name] = p.Summary()
	}
	run.Seconds = time.Since(started).Seconds()
	return run, out.Finish(run)
}

// watchHiccups looks at some cores beside a load.
func watchHiccups(cpus []int, from, forNS, intervalNS int64) func() []record.Interval {
	return sleepers(cpus, from, forNS, intervalNS, watchEveryNS, "hiccup-cpu%d")
}

// sleepers have a thread on each core sleep until the next even instant and
// record how late it woke. What they give waits for their end.
func sleepers(cpus []int, from, forNS, intervalNS, everyNS int64, name string) func() []record.Interval {
	var wait sync.WaitGroup
	all := make([][]record.Interval, len(cpus))
	for i, cpu := range cpus {
		wait.Go(func() {
			runtime.LockOSThread() // never unlocked: it ends with its affinity
			var one unix.CPUSet
			one.Set(cpu)
			if unix.SchedSetaffinity(0, &one) != nil {
				return // no such core for us
			}
			_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
			all[i] = sleeper(fmt.Sprintf(name, cpu), from, forNS, intervalNS, everyNS)
		})
	}
	return func() (flat []record.Interval) {
		wait.Wait()
		for _, a := range all {
			flat = append(flat, a...)
		}
		return flat
	}
}

func sleeper(name string, from, forNS, intervalNS, everyNS int64) (all []record.Interval) {
	h := record.NewHistogram()
	start := from
	for at := from; at < from+forNS; at += everyNS {
		sleepUntil(at)
		now := load.Now()
		h.Record(now - at)
		// Who was asleep through several instants was late for each of them.
		for at+everyNS <= now && at+everyNS < from+forNS {
			at += everyNS
			h.Record(now - at)
		}
		if now >= start+intervalNS {
			all = append(all, record.Interval{Series: name, StartNS: start - from, EndNS: now - from, H: h.Pack()})
			h.Reset()
			start = now
		}
	}
	if h.Count() > 0 {
		all = append(all, record.Interval{Series: name, StartNS: start - from, EndNS: max(forNS, start-from+1), H: h.Pack()})
	}
	return all
}

func sleepUntil(at int64) {
	ts := unix.NsecToTimespec(at)
	for {
		_, _, errno := unix.Syscall6(unix.SYS_CLOCK_NANOSLEEP, unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
		if errno != unix.EINTR {
			return
		}
	}
}

// spin reads the clock without a pause; in each gap the thread was kept from running.
func spin(cpu int, forNS int64) record.Interval {
	h := record.NewHistogram()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		var one unix.CPUSet
		one.Set(cpu)
		if unix.SchedSetaffinity(0, &one) != nil {
			return
		}
		origin := time.Now()
		for before := time.Duration(0); int64(before) < forNS; {
			now := time.Since(origin)
			if gap := int64(now - before); gap >= gapLeastNS {
				h.Record(gap)
			}
			before = now
		}
	}()
	<-done
	return record.Interval{Series: fmt.Sprintf("spin-cpu%d", cpu), StartNS: 0, EndNS: forNS, H: h.Pack()}
}

// disk writes 4 KiB around a file of 16 MiB that has been written before, each
// with its sync, 200 a second, late ones from when they were due.
func disk(dir string, forNS, intervalNS int64) (all []record.Interval, err error) {
	path := filepath.Join(dir, fmt.Sprintf("hiccup-%d", os.Getpid()))
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	defer os.Remove(path)
	defer unix.Close(fd)
	const size = 16 << 20
	b, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, err
	}
	defer unix.Munmap(b)
	for at := 0; at < size; at += len(b) {
		if _, err := unix.Pwrite(fd, b, int64(at)); err != nil {
			return nil, err
		}
	}
	if err := unix.Fdatasync(fd); err != nil {
		return nil, err
	}
	h := record.NewHistogram()
	from := load.Now()
	start := from
	for n := int64(0); ; n++ {
		due := from + n*watchEveryNS
		if due >= from+forNS {
			break
		}
		sleepUntil(due)
		if _, err := unix.Pwrite(fd, b[:blockBytes], n*blockBytes%size); err != nil {
			return nil, err
		}
		if err := unix.Fdatasync(fd); err != nil {
			return nil, err
		}
		now := load.Now()
		h.Record(now - due)
		if now >= start+intervalNS {
			all = append(all, record.Interval{Series: "write+fdatasync", StartNS: start - from, EndNS: now - from, H: h.Pack()})
			h.Reset()
			start = now
		}
	}
	if h.Count() > 0 {
		all = append(all, record.Interval{Series: "write+fdatasync", StartNS: start - from, EndNS: max(forNS, start-from+1), H: h.Pack()})
	}
	return all, nil
}
