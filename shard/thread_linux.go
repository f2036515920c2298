package shard

import (
	"encoding/base64"
	"fmt"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/engine/recovery"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
	"github.com/tailbound/tailbound/metrics"
	"github.com/tailbound/tailbound/netring"
)

// This file puts shards on their threads. It is the one place of this room
// with goroutines, channels and clocks.

// BrokerOptions are what a process decides before any shard exists.
type BrokerOptions struct {
	DataShards                                                   int
	CPUs                                                         []int    // for data shard i: CPUs[(i-1) % len]; none: not pinned
	OtherCPUs                                                    []int    // for the control shard and the kernel's workers; none: anywhere
	ArenaBytes                                                   int      // of a data shard
	JournalBytes                                                 int      // of a data shard; 0: JournalBytesDefault
	SpareBytes                                                   int64    // of files that logs let go; 0: SpareBytesMax
	PrepareBytes                                                 int64    // of files of zeroes that a data shard keeps ready
	Listeners                                                    [][]int  // of each listener: the control shard's socket, then each data shard's; -1: none
	OtherNodes                                                   [][]Node // as clients see them who come by the second listener, the third, ...
	ListenerNames                                                []string
	Nodes                                                        []Node
	ClusterID                                                    string
	DataDir                                                      string   // for people to read
	NewDirectory                                                 [16]byte // random: the id of a directory that is made now
	RootFD                                                       int      // the data directory
	Features                                                     ioring.FeatureMask
	Buffered                                                     bool
	MessageBytesMax, PartitionsDefault, TopicsMax, PartitionsMax int
	AutoCreateTopics                                             bool
	RetentionCheckNS                                             int64 // 0: the default
	ConnsMax, ConnsPerAddressMax                                 int   // of a shard; 0: ConnsMax, and as many of one address; below 0: none
	AddressLimits                                                []netring.AddressLimit
	FetchSessionsMax                                             int // of a data shard; 0: SessionsMax; below 0: none
	ReadOnlyOnFailure                                            bool
	API                                                          *API
	Tuning                                                       Tuning // zero: Tuned
	Log                                                          Logger
	Seed                                                         uint64
}

// Broker is all shards of a process, each on its thread.
type Broker struct {
	Boot   *engine.RecoveredState
	post   *Post
	shards []*Shard
	done   chan error
	ready  chan struct{}
}

// Start recovers the data directory, then starts every shard. It returns when
// all listen, or with the first error.
func Start(o BrokerOptions) (*Broker, error) {
	boot, err := recoverDirectory(o)
	if err != nil {
		return nil, err
	}
	o.ClusterID = base64.RawURLEncoding.EncodeToString(boot.Directory[:])
	plan, err := PlanMemory(o.ArenaBytes, o)
	if err != nil {
		return nil, err
	}
	b := &Broker{Boot: boot, shards: make([]*Shard, o.DataShards+1), done: make(chan error, o.DataShards+1), ready: make(chan struct{}, o.DataShards+1)}
	if b.post, err = NewPost(o.DataShards, mailboxCapacity(plan[1])); err != nil {
		return nil, err
	}
	opened := make(chan error, o.DataShards+1)
	begin := make(chan bool)
	for i := range b.shards {
		go b.run(i, o, plan[min(i, 1)], opened, begin)
	}
	for range b.shards {
		if e := <-opened; e != nil && err == nil {
			err = e
		}
	}
	if err != nil {
		close(begin)
		return nil, err
	}
	for range b.shards {
		begin <- true
	}
	for range b.shards {
		select {
		case <-b.ready:
		case err := <-b.done:
			if err == nil {
				err = fmt.Errorf("stopped while starting")
			}
			b.post.Stop()
			return nil, err
		}
	}
	return b, nil
}

// Stop asks all shards to stop cleanly; Wait says when they have.
func (b *Broker) Stop() { b.post.Stop() }

// Wait returns when every shard has stopped, with the first error, or when one
// has failed and the process is to end.
func (b *Broker) Wait() error {
	var first error
	for range b.shards {
		if err := <-b.done; err != nil {
			return err
		}
	}
	return first
}

// Shards are for reading counters that are published, never for calling.
func (b *Broker) Shards() []*Shard { return b.shards }

// Wake has a shard take a turn, so that it hands over what it was asked for.
// Not after Wait has returned.
func (b *Broker) Wake(shard int) { b.post.wakers[shard].Wake() }

// run is one shard's life on its thread.
func (b *Broker) run(i int, o BrokerOptions, plan Memory, opened chan<- error, begin <-chan bool) {
	runtime.LockOSThread() // never unlocked: the thread ends with the shard
	// The kernel's workers go where there is time, which may be here: one that had
	// to share another core waits for who computes there, and a sync with it.
	workers := o.OtherCPUs
	if i > 0 && len(o.CPUs) > 0 {
		workers = append(slices.Clone(workers), o.CPUs[(i-1)%len(o.CPUs)])
		if err := pin(o.CPUs[(i-1)%len(o.CPUs)]); err != nil {
			opened <- fmt.Errorf("shard %d: pinning to CPU %d: %w", i, o.CPUs[(i-1)%len(o.CPUs)], err)
			return
		}
	} else if len(o.OtherCPUs) > 0 {
		if err := pin(o.OtherCPUs...); err != nil {
			opened <- fmt.Errorf("shard %d: pinning to CPUs %v: %w", i, o.OtherCPUs, err)
			return
		}
	}
	if nice := o.Tuning.orTuned().Nice; i > 0 && nice != 0 {
		// before the ring: its workers have what the thread has
		if err := unix.Setpriority(unix.PRIO_PROCESS, 0, nice); err != nil && i == 1 && o.Log != nil {
			o.Log.Log(Warn, i, fmt.Appendf(nil, "data shards have no precedence over what else this machine computes, which makes tails longer beside it: nice %d: %v (RLIMIT_NICE, LimitNICE= of a systemd unit, or CAP_SYS_NICE allow it; nice 0 does without)", nice, err))
		}
	}
	arena, err := mem.Map(plan.ArenaBytes, mem.Options{HugePages: true, Lock: true})
	if err != nil {
		opened <- err
		return
	}
	if !arena.Locked() && o.Log != nil {
		o.Log.Log(Warn, i, []byte("the kernel may take this shard's memory away for a while, which makes tails longer: RLIMIT_MEMLOCK is below its arena (raise it with ulimit -l, or LimitMEMLOCK= of a systemd unit)"))
	}
	ring, err := ioring.NewKernel(kernelOptions(o, plan, workers))
	if err != nil {
		opened <- fmt.Errorf("shard %d: %w", i, err)
		return
	}
	defer ring.Close()
	for k, sockets := range o.Listeners {
		if sockets[i] < 0 {
			continue
		}
		if err := ring.InstallFile(plan.Net.Listener+uint32(k), sockets[i]); err != nil {
			opened <- fmt.Errorf("shard %d: listening socket: %w", i, err)
			return
		}
	}
	b.post.SetWaker(i, ring.Waker())
	s, err := Open(World{Ring: ring, Arena: arena, Boot: b.Boot, Post: b.post, API: o.API, Log: o.Log, Seed: o.Seed + uint64(i)}, plan.options(i, o))
	if err == nil {
		arena.Seal()
	}
	b.shards[i] = s
	opened <- err
	if err != nil || !<-begin {
		return
	}
	clock := metrics.NewClock()
	away := newAway(s.Flight, clock.Now())
	defer away.close()
	serving := false
	var failed ioring.Instant
	for !s.Done() {
		now := clock.Now()
		clock.Tick(now)
		away.look(now, &ring.Stats)
		sleep := s.Turn(ioring.Instant(now), Wall(time.Now().UnixMilli()))
		if !serving && s.stage == StageServing {
			serving = true
			b.ready <- struct{}{}
		}
		ended := clock.Now()
		s.Timelines.Turned(ended - now)
		away.turned(now, ended)
		ring.Wait(sleep)
		counters := &s.Timelines.Counters
		counters.Enters, counters.Sleeps, counters.SpinHits, counters.Wakes = ring.Stats.Enters, ring.Stats.Sleeps, ring.Stats.SpinHits, ring.Stats.Wakes
		if s.failed && !o.ReadOnlyOnFailure {
			// Who waits is told; then the process ends.
			if failed == 0 {
				failed = ioring.Instant(now)
			}
			if s.inFlight == 0 || ioring.Instant(now)-failed > 1e9 {
				break
			}
		}
	}
	if s.failed {
		b.done <- fmt.Errorf("shard %d: its storage failed; nothing that was acknowledged is lost", i)
		return
	}
	b.done <- nil
}

// recoverDirectory opens the data directory on a thread and ring of its own.
func recoverDirectory(o BrokerOptions) (*engine.RecoveredState, error) {
	type result struct {
		boot *engine.RecoveredState
		err  error
	}
	out := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		out <- func() (r result) {
			plan, err := PlanMemory(o.ArenaBytes, o)
			if err != nil {
				return result{err: err}
			}
			arena, err := mem.Map(plan[0].RecoveryBytes, mem.Options{})
			if err != nil {
				return result{err: err}
			}
			defer arena.Unmap()
			ring, err := ioring.NewKernel(kernelOptions(o, plan[0], o.OtherCPUs))
			if err != nil {
				return result{err: err}
			}
			defer ring.Close()
			r.boot, r.err = recovery.Recover(ring, arena, plan[0].recovery(o))
			return r
		}()
	}()
	r := <-out
	return r.boot, r.err
}

func pin(cpus ...int) error {
	var set unix.CPUSet
	for _, c := range cpus {
		set.Set(c)
	}
	return unix.SchedSetaffinity(0, &set)
}
