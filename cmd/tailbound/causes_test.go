package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/cmd/tailbound/observe"
	"github.com/tailbound/tailbound/cmd/tailbound/program"
	"github.com/tailbound/tailbound/cmd/tailbound/term"
	"github.com/tailbound/tailbound/metrics"
)

// These tests disturb a broker and look whether `profile tail` names the disturbance.
// They assert which cause leads, never how long anything took, and are repeated a few
// times if the machine itself interferes.

// litter runs in a broker that is this test's own binary. On SIGUSR1 it makes garbage
// for a while and has it collected again and again.
func litter() {
	begin := make(chan os.Signal, 1)
	signal.Notify(begin, syscall.SIGUSR1)
	go func() {
		for range begin {
			for range runtime.NumCPU() {
				go func() {
					var keep [][]byte
					for end := time.Now().Add(garbageFor); time.Now().Before(end); {
						for range 1000 {
							keep = append(keep, make([]byte, 1000))
						}
						if len(keep) > 100000 {
							keep = nil
						}
						runtime.GC()
					}
				}()
			}
		}
	}()
}

const garbageFor = 2 * time.Second

// victim is a broker whose data shard is pinned, with a producer that sends one record
// after the other.
type victim struct {
	*program.Broker
	t      *testing.T
	shard  string // its data shard's address
	pid    int
	cpu    int
	client *kgo.Client
	sent   atomic.Int64
}

// startVictim needs a CPU for the shard and one for everything else, and a disk with
// direct I/O.
func startVictim(t *testing.T, args ...string) *victim {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	allowed, err := allowedCPUs()
	if err != nil || len(allowed) < 2 {
		t.Skipf("%d CPUs: the shard needs one of its own to be disturbed on", len(allowed))
	}
	v := &victim{t: t, cpu: allowed[len(allowed)-1]}
	v.Broker = program.Start(t, append(args, "--cpus", strconv.Itoa(v.cpu))...)
	var p observe.Profile
	if err := json.Unmarshal([]byte(program.Must(t, "", "profile", "--data-dir", v.Dir, "--once", "--json")), &p); err != nil {
		t.Fatal(err)
	}
	v.pid, v.shard = p.PID, p.Shards[1].Address
	program.Must(t, "", "topic", "create", "victim", "--brokers", v.Addr)
	v.client, err = kgo.NewClient(kgo.SeedBrokers(v.Addr), kgo.DefaultProduceTopic("victim"), kgo.ProducerLinger(0), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan bool)
	go func() {
		defer close(ended)
		value := make([]byte, 1000)
		for ctx.Err() == nil {
			err := v.client.ProduceSync(ctx, &kgo.Record{Value: value}).FirstErr()
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("the producer: %v", err)
				return
			}
			v.sent.Add(1)
			time.Sleep(2 * time.Millisecond)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		v.client.Close()
	})
	v.quiet()
	return v
}

// quiet lets it run undisturbed, so that the usual durations are known.
func (v *victim) quiet() {
	from := v.sent.Load()
	program.Await(v.t, func() bool { return v.sent.Load() >= from+300 })
}

// tail is the report of `profile tail` on the last time of that length.
func (v *victim) tail(over time.Duration) (t observe.TailProfile) {
	v.t.Helper()
	if err := json.Unmarshal([]byte(program.Must(v.t, "", "profile", "tail", "--data-dir", v.Dir, "--once", "--json", "--count", "1000", "--interval", over.String())), &t); err != nil {
		v.t.Fatal(err)
	}
	return t
}

// blames disturbs the broker until the cause that is expected has the largest share of
// the ten slowest requests of a topic, each counting the same; eight times at most. A
// shared disk is slow by itself now and then.
func (v *victim) blames(topic string, kind metrics.Kind, disturb func(), causes ...string) {
	v.t.Helper()
	var told []string
	for range 8 {
		began := time.Now()
		disturb()
		k := v.tail(time.Since(began)).Shards[0].Kinds[kind]
		by, leading, n := map[string]float64{}, "", 0
		for _, r := range k.Slowest {
			if r.Topic == topic && n < 10 {
				if n == 0 {
					told = append(told, term.ShortNS(r.TookNS)+": "+r.Cause+": "+r.Verdict)
				}
				for _, c := range r.Causes {
					by[c.Cause] += c.Share
				}
				n++
			}
		}
		for c, n := range by {
			if leading == "" || n > by[leading] {
				leading = c
			}
		}
		told = append(told, fmt.Sprintf("of %d the slowest %d, by their causes: %v", k.Requests, n, by))
		if strings.Contains(strings.Join(causes, ","), leading) && leading != "" {
			v.t.Log(strings.Join(told, "\n"))
			return
		}
		v.quiet()
	}
	v.t.Errorf("not once it was called %v:\n%s", causes, strings.Join(told, "\n"))
}

func TestTailNamesACPUHog(t *testing.T) {
	v := startVictim(t, "--nice", "0") // or it goes before them
	v.blames("victim", metrics.Produce, func() {
		var hogs []*exec.Cmd
		for range 3 {
			c := exec.Command("taskset", "-c", strconv.Itoa(v.cpu), "sh", "-c", "while :; do :; done")
			c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			if err := c.Start(); err != nil {
				t.Skipf("no taskset: %v", err)
			}
			hogs = append(hogs, c)
		}
		time.Sleep(2 * time.Second)
		for _, c := range hogs {
			c.Process.Kill()
			c.Wait()
		}
	}, "away from CPU")
}

func TestTailNamesGarbage(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	before := program.Path
	program.Path = filepath.Join(t.TempDir(), "tailbound")
	script := fmt.Sprintf("#!/bin/sh\nTAILBOUND_TEST_GARBAGE=1 exec %s \"$@\"\n", self)
	if err := os.WriteFile(program.Path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	v := func() *victim {
		defer func() { program.Path = before }()
		return startVictim(t, "--nice", "0") // or it goes before the collector
	}()
	v.blames("victim", metrics.Produce, func() {
		syscall.Kill(v.pid, syscall.SIGUSR1)
		time.Sleep(garbageFor)
	}, "GC")
}

// A cgroup that may write only so often a second makes a slow disk.
func TestTailNamesASlowDisk(t *testing.T) {
	v := startVictim(t)
	var st unix.Stat_t
	if err := unix.Stat(v.Dir, &st); err != nil {
		t.Fatal(err)
	}
	group := "/sys/fs/cgroup/blkio/tailbound-test-" + strconv.Itoa(os.Getpid())
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Skipf("no blkio controller to slow the disk with, and no dm-delay: %v", err)
	}
	t.Cleanup(func() { os.Remove(group) })
	move := func(to string) error {
		return os.WriteFile(to+"/cgroup.procs", []byte(strconv.Itoa(v.pid)), 0)
	}
	limit := fmt.Sprintf("%d:%d 30", unix.Major(st.Dev), unix.Minor(st.Dev))
	if err := os.WriteFile(group+"/blkio.throttle.write_iops_device", []byte(limit), 0); err != nil {
		t.Skipf("the device of %s cannot be slowed: %v", v.Dir, err)
	}
	v.blames("victim", metrics.Produce, func() {
		if err := move(group); err != nil {
			t.Skip(err)
		}
		time.Sleep(2 * time.Second)
		if err := move("/sys/fs/cgroup/blkio"); err != nil {
			t.Fatal(err)
		}
	}, "disk write", "disk sync")
}

func TestTailNamesASlowReader(t *testing.T) {
	v := startVictim(t)
	fill := make([]byte, 500<<10)
	program.Must(t, "", "topic", "create", "read", "--brokers", v.Addr)
	for range 20 {
		if err := v.client.ProduceSync(context.Background(), &kgo.Record{Topic: "read", Value: fill}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	const answers = 4
	v.blames("read", metrics.Fetch, func() {
		c, err := net.Dial("tcp", v.shard)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.(*net.TCPConn).SetReadBuffer(64 << 10)
		for i := range answers {
			r := kmsg.NewFetchRequest()
			r.Version, r.MaxBytes, r.MinBytes = 11, 50<<20, 1
			p := kmsg.NewFetchRequestTopicPartition()
			p.PartitionMaxBytes = 50 << 20
			r.Topics = []kmsg.FetchRequestTopic{{Topic: "read", Partitions: []kmsg.FetchRequestTopicPartition{p}}}
			if _, err := c.Write(kmsg.NewRequestFormatter().AppendRequest(nil, &r, int32(i))); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second) // it reads nothing
		for range answers {
			var size [4]byte
			if _, err := io.ReadFull(c, size[:]); err != nil {
				t.Fatal(err)
			}
			if _, err := io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(size[:]))); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(50 * time.Millisecond)
	}, "slow reader")
}

// Bursts keep the machine busy in more than one way. So: without bursts no request
// of the victim is blamed on a neighbour, and with them one that met one is. The
// neighbour awaits no answers: its own requests are not among the slowest.
func TestTailNamesANeighbour(t *testing.T) {
	v := startVictim(t)
	program.Must(t, "", "topic", "create", "neighbour", "--brokers", v.Addr)
	neighbour, err := kgo.NewClient(kgo.SeedBrokers(v.Addr), kgo.DefaultProduceTopic("neighbour"), kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.DisableIdempotentWrite(), kgo.RequiredAcks(kgo.NoAck()))
	if err != nil {
		t.Fatal(err)
	}
	defer neighbour.Close()
	blamed := func(over time.Duration) (all []observe.SlowRequest) {
		for _, r := range v.tail(over).Shards[0].Kinds[metrics.Produce].Slowest {
			if r.Topic == "victim" && r.Cause == "neighbour log" {
				all = append(all, r)
			}
		}
		return all
	}
	if all := blamed(time.Minute); len(all) > 0 {
		t.Errorf("there is no neighbour yet: %+v", all)
	}
	value := make([]byte, 900000)
	for range 12 {
		began := time.Now()
		for range 5 {
			left := atomic.Int64{}
			for range 48 {
				left.Add(1)
				neighbour.Produce(context.Background(), &kgo.Record{Value: value}, func(_ *kgo.Record, err error) {
					if err != nil {
						t.Errorf("the neighbour: %v", err)
					}
					left.Add(-1)
				})
			}
			program.Await(t, func() bool { return left.Load() == 0 })
			time.Sleep(50 * time.Millisecond)
		}
		if all := blamed(time.Since(began)); len(all) > 0 {
			t.Logf("%s: %s", term.ShortNS(all[0].TookNS), all[0].Verdict)
			return
		}
	}
	t.Errorf("no request was blamed on the bursts:\n%s", program.Must(t, "", "profile", "tail", "--data-dir", v.Dir, "--once"))
}

// Data shards have precedence over other work of the machine, if that is allowed; if it
// is not, a line says so.
func TestNice(t *testing.T) {
	b := program.Start(t)
	switch niced, warned := threadsAt(t, b, -15), strings.Contains(b.Log.String(), "nice -15:"); {
	case warned && niced > 0:
		t.Errorf("%d threads are at -15, and it says that none may be:\n%s", niced, b.Log)
	case !warned && niced == 0:
		t.Errorf("no thread is at -15, and nothing says why:\n%s", b.Log)
	case warned:
		t.Logf("not allowed here:\n%s", b.Log)
	}
	if b = program.Start(t, "--nice", "0"); threadsAt(t, b, -15) > 0 || strings.Contains(b.Log.String(), "nice") {
		t.Errorf("with --nice 0: %d threads are at -15:\n%s", threadsAt(t, b, -15), b.Log)
	}
}

// threadsAt counts the broker's threads of a nice value.
func threadsAt(t *testing.T, b *program.Broker, nice int) (n int) {
	t.Helper()
	var p observe.Profile
	if err := json.Unmarshal([]byte(program.Must(t, "", "profile", "--data-dir", b.Dir, "--once", "--json")), &p); err != nil {
		t.Fatal(err)
	}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", p.PID))
	if err != nil || len(tasks) == 0 {
		t.Fatal("no threads:", err)
	}
	for _, task := range tasks {
		tid, _ := strconv.Atoi(filepath.Base(task))
		// the system call has 20 less it, so that it is never below 0
		if is, err := unix.Getpriority(unix.PRIO_PROCESS, tid); err == nil && 20-is == nice {
			n++
		}
	}
	return n
}

// A control shard that takes no turn does not delay a data shard.
func TestTailDoesNotShowAStalledControlShard(t *testing.T) {
	v := startVictim(t)
	// Its thread may run everywhere but on the shard's CPU, and is none of the kernel's.
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", v.pid))
	if err != nil {
		t.Fatal(err)
	}
	thread := 0
	for _, task := range tasks {
		tid, _ := strconv.Atoi(task.Name())
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/comm", v.pid, tid))
		var cpus unix.CPUSet
		if unix.SchedGetaffinity(tid, &cpus) == nil && !cpus.IsSet(v.cpu) && !strings.HasPrefix(string(name), "iou-") {
			if thread != 0 {
				t.Fatalf("threads %d and %d may both be the control shard's", thread, tid)
			}
			thread = tid
		}
	}
	if thread == 0 {
		t.Fatal("no thread is the control shard's")
	}
	// ptrace has to be called by one thread throughout.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.PtraceSeize(thread); err != nil {
		t.Skipf("threads cannot be stopped here: %v", err)
	}
	if err := unix.PtraceInterrupt(thread); err != nil {
		t.Fatal(err)
	}
	const stalled = 2 * time.Second
	before := v.sent.Load()
	began := time.Now()
	time.Sleep(stalled)
	got := v.tail(stalled)
	sent := v.sent.Load() - before
	status := unix.WaitStatus(0)
	if _, err := unix.Wait4(thread, &status, unix.WALL|unix.WNOHANG, nil); err != nil || !status.Stopped() {
		t.Fatalf("the control shard's thread did not stand still: %v, %v", status, err)
	}
	if err := unix.PtraceDetach(thread); err != nil {
		t.Fatal(err)
	}
	k := got.Shards[0].Kinds[metrics.Produce]
	t.Logf("while the control shard stood still for %s: %d records, the slowest took %s", time.Since(began).Round(time.Millisecond), sent, term.ShortNS(k.MaxNS))
	if sent < 100 || k.MaxNS > int64(stalled)/2 {
		t.Errorf("the data shard was held up: %d records, the slowest took %s: %+v", sent, term.ShortNS(k.MaxNS), k.Slowest)
	}
	program.Must(t, "", "topic", "list", "--brokers", v.Addr) // it goes on
}
