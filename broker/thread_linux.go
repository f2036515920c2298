package broker

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
	"github.com/tailbound/tailbound/metrics"
	"github.com/tailbound/tailbound/shard"
)

// Process is a broker whose shards run on threads of their own.
type Process struct {
	*Broker
	RecoveryTook time.Duration // of the start
	done         chan error    // one from each shard's thread when it ends
	ended        []atomic.Bool // by shard: its thread has ended
}

// Start composes a broker on threads. It returns when every shard listens, or
// with the first error.
func Start(o Options) (*Process, error) {
	n := o.DataShards + 1
	t := &threads{o: o, begin: make(chan bool), ready: make(chan struct{}, n), done: make(chan error, n), ended: make([]atomic.Bool, n)}
	b, err := Compose(o, t)
	if err != nil {
		close(t.begin)
		return nil, err
	}
	for range n {
		t.begin <- true
	}
	for range n {
		select {
		case <-t.ready:
		case err := <-t.done:
			if err == nil {
				err = fmt.Errorf("stopped while starting")
			}
			b.Stop()
			return nil, err
		}
	}
	return &Process{Broker: b, RecoveryTook: t.recoveryTook, done: t.done, ended: t.ended}, nil
}

// Running are the shards that have not stopped. Any thread may call it.
func (p *Process) Running() (all []int) {
	for i := range p.ended {
		if !p.ended[i].Load() {
			all = append(all, i)
		}
	}
	return all
}

// Wait returns nil when every shard has stopped, or an error as soon as one has
// failed and the process is to end.
func (p *Process) Wait() error {
	for range p.shards {
		if err := <-p.done; err != nil {
			return err
		}
	}
	return nil
}

// failedAnswerNS is how long a shard whose storage failed may take to answer its
// requests before the process ends.
const failedAnswerNS = 1e9

// threads is the machine of production: a thread locked to each shard, with an
// io_uring of its own.
type threads struct {
	o     Options
	begin chan bool     // a value for each thread to run; closed: a shard could not be opened, so none runs
	ready chan struct{} // a shard listens
	done  chan error
	ended []atomic.Bool

	recoveryTook time.Duration
}

// Recover runs recover on a thread and ring of its own.
func (t *threads) Recover(m Memory, recover func(ioring.Ring, *mem.Arena) (*engine.RecoveredState, error)) (*engine.RecoveredState, error) {
	type result struct {
		boot *engine.RecoveredState
		err  error
	}
	out := make(chan result, 1)
	began := time.Now()
	go func() {
		runtime.LockOSThread()
		out <- func() (r result) {
			arena, err := mem.Map(m.RecoveryBytes, mem.Options{})
			if err != nil {
				return result{err: err}
			}
			defer arena.Unmap()
			ring, err := ioring.NewKernel(kernelOptions(t.o, m, t.o.OtherCPUs))
			if err != nil {
				return result{err: err}
			}
			defer ring.Close()
			r.boot, r.err = recover(ring, arena)
			return r
		}()
	}()
	r := <-out
	t.recoveryTook = time.Since(began)
	// What it has left would lie beside the memory of the shards.
	debug.FreeOSMemory()
	return r.boot, r.err
}

// Open starts the threads. Each opens its shard, then waits for begin.
func (t *threads) Open(plan []Memory, open func(int, Place) (*shard.Shard, error)) (err error) {
	opened := make(chan error, len(plan))
	for i := range plan {
		go t.run(i, plan[i], open, opened)
	}
	for range plan {
		if e := <-opened; e != nil && err == nil {
			err = e
		}
	}
	return err
}

// run is the life of one shard's thread: prepare; open; await begin; loop.
func (t *threads) run(i int, m Memory, open func(int, Place) (*shard.Shard, error), opened chan<- error) {
	runtime.LockOSThread() // never unlocked: the thread ends with the shard
	ring, arena, err := t.prepare(i, m)
	if err != nil {
		opened <- err
		return
	}
	defer ring.Close()
	s, err := open(i, Place{Ring: ring, Arena: arena, Waker: ring.Waker(), Seed: t.o.Seed + uint64(i)})
	if err != nil {
		opened <- err
		return
	}
	warm := newWarmer(arena, i > 0)
	defer warm.close()
	opened <- nil
	if !<-t.begin {
		return
	}
	t.loop(s, ring, warm)
	t.ended[i].Store(true)
	switch fault := s.Fault(); {
	case fault != "":
		t.done <- errors.New(fault)
	case s.Failed():
		t.done <- fmt.Errorf("shard %d: its storage failed; nothing that was acknowledged is lost", i)
	default:
		t.done <- nil
	}
}

// prepare gives the calling thread its CPU and its priority, and makes the arena
// and the ring of its shard, with the shard's listening sockets.
func (t *threads) prepare(i int, m Memory) (*ioring.Kernel, *mem.Arena, error) {
	o := &t.o
	// The kernel's workers may also use the CPU of this shard: a worker on a CPU
	// that is busy with something else delays its sync.
	workers := o.OtherCPUs
	if i > 0 && len(o.CPUs) > 0 {
		cpu := o.CPUs[(i-1)%len(o.CPUs)]
		workers = append(slices.Clone(workers), cpu)
		if err := pin(cpu); err != nil {
			return nil, nil, fmt.Errorf("shard %d: pinning to CPU %d: %w", i, cpu, err)
		}
	} else if len(o.OtherCPUs) > 0 {
		if err := pin(o.OtherCPUs...); err != nil {
			return nil, nil, fmt.Errorf("shard %d: pinning to CPUs %v: %w", i, o.OtherCPUs, err)
		}
	}
	if i > 0 && o.Nice != 0 {
		// Before the ring is made: its workers inherit the priority of the thread.
		if err := unix.Setpriority(unix.PRIO_PROCESS, 0, o.Nice); err != nil && i == 1 && o.Log != nil {
			o.Log.Log(shard.Warn, i, fmt.Appendf(nil, "data shards have no precedence over what else this machine computes, which makes tails longer beside it: nice %d: %v (RLIMIT_NICE, LimitNICE= of a systemd unit, or CAP_SYS_NICE allow it; nice 0 does without)", o.Nice, err))
		}
	}
	// The control shard is on the way of no hot request: its pages come as it touches them,
	// each for itself.
	arena, err := mem.Map(m.ArenaBytes, mem.Options{HugePages: i > 0, Lock: true})
	if err != nil {
		return nil, nil, err
	}
	if !arena.Locked() && o.Log != nil {
		o.Log.Log(shard.Warn, i, []byte("the kernel may take this shard's memory away for a while, which makes tails longer: RLIMIT_MEMLOCK is below its arena (raise it with ulimit -l, or LimitMEMLOCK= of a systemd unit)"))
	}
	ring, err := ioring.NewKernel(kernelOptions(*o, m, workers))
	if err != nil {
		return nil, nil, fmt.Errorf("shard %d: %w", i, err)
	}
	for k, sockets := range o.Listeners {
		if sockets[i] < 0 {
			continue
		}
		if err := ring.InstallFile(listenerSlot+uint32(k), sockets[i]); err != nil {
			ring.Close()
			return nil, nil, fmt.Errorf("shard %d: listening socket: %w", i, err)
		}
	}
	return ring, arena, nil
}

// loop turns a shard until it is done, and sleeps in its ring between two turns.
// After a failure of the storage, waiting requests have a second to be answered;
// with ReadOnlyOnFailure the shard goes on.
func (t *threads) loop(s *shard.Shard, ring *ioring.Kernel, warm *warmer) {
	clock := metrics.NewClock()
	offCPU := newOffCPU(s.Flight, clock.Now())
	defer offCPU.close()
	serving := false
	var failed ioring.Instant
	for !s.Done() {
		now := clock.Now()
		clock.Tick(now)
		offCPU.look(now, &ring.Stats)
		sleep := s.Turn(ioring.Instant(now), shard.Wall(time.Now().UnixMilli()))
		if !serving && s.Serving() {
			serving = true
			t.ready <- struct{}{}
		}
		ended := clock.Now()
		s.Timelines.Turned(ended - now)
		offCPU.turned(now, ended)
		warm.look()
		ring.Wait(sleep)
		counters := &s.Timelines.Counters
		counters.Enters, counters.Sleeps, counters.SpinHits, counters.Wakes = ring.Stats.Enters, ring.Stats.Sleeps, ring.Stats.SpinHits, ring.Stats.Wakes
		if s.Failed() && !t.o.ReadOnlyOnFailure {
			if failed == 0 {
				failed = ioring.Instant(now)
			}
			if s.InFlight() == 0 || ioring.Instant(now)-failed > failedAnswerNS {
				break
			}
		}
	}
}

func pin(cpus ...int) error {
	var set unix.CPUSet
	for _, c := range cpus {
		set.Set(c)
	}
	return unix.SchedSetaffinity(0, &set)
}
