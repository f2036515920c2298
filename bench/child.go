package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func systemNames() []string {
	return []string{"tailbound", "tailbound-groups", "probe", "plain", "plain-nosync"}
}

func isBroker(name string) bool { return strings.HasPrefix(name, "tailbound") }

// variant splits what a system is called: its kind, another binary behind @,
// more arguments of its serve command behind a colon, separated by spaces, as in
// tailbound@/tmp/before:--spin=0s.
func variant(name string) (kind, binary string, args []string) {
	kind, rest, _ := strings.Cut(name, ":")
	kind, binary, _ = strings.Cut(kind, "@")
	return kind, binary, strings.Fields(rest)
}

// valid says what is wrong with a system's name.
func valid(name string) error {
	kind, binary, args := variant(name)
	switch {
	case !slices.Contains(systemNames(), kind):
		return fmt.Errorf("no system %q: there are %s", name, strings.Join(systemNames(), ", "))
	case !isBroker(kind) && (binary != "" || len(args) > 0):
		return fmt.Errorf("system %q: only the broker comes with another binary or more arguments", name)
	}
	return nil
}

// start starts a system that serves addr and keeps its data in dir.
func (o *options) start(name, addr, dir string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	procs := fmt.Sprintf("GOMAXPROCS=%d", o.serverProc)
	kind, binary, more := variant(name)
	switch kind {
	case "tailbound", "tailbound-groups":
		args := append([]string{"serve", "--data-dir", dir, "--listen", addr, "--shards", "1"}, strings.Fields(o.serveArgs)...)
		return spawn(o.serverCPU, nil, cmp.Or(binary, o.binary), append(args, more...)...)
	case "probe":
		return spawn(o.serverCPU, []string{procs}, self, "child-probe", addr, dir)
	case "plain":
		return spawn(o.serverCPU, []string{procs}, self, "child-plain", addr, dir, "sync")
	case "plain-nosync":
		return spawn(o.serverCPU, []string{procs}, self, "child-plain", addr, dir, "nosync")
	}
	return nil, fmt.Errorf("no system %q", name)
}

// A child is a pinned process that dies with this one.
type child struct {
	cmd    *exec.Cmd
	stdout bytes.Buffer
	stderr tailBuffer
	ended  chan struct{} // closed when err is set
	err    error
}

// spawn starts a process pinned to one core. Affinity is inherited from the
// thread that forks; the caller is on the main thread, locked.
func spawn(cpu int, env []string, name string, args ...string) (*child, error) {
	c := &child{cmd: exec.Command(name, args...), ended: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), env...)
	c.cmd.Stdout = io.Writer(&c.stdout)
	c.cmd.Stderr = &c.stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	var before, pinned unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return nil, err
	}
	pinned.Set(cpu)
	if err := unix.SchedSetaffinity(0, &pinned); err != nil {
		return nil, fmt.Errorf("core %d: %w", cpu, err)
	}
	err := c.cmd.Start()
	if e := unix.SchedSetaffinity(0, &before); err == nil && e != nil {
		c.kill()
		return nil, e
	}
	if err != nil {
		return nil, err
	}
	go func() {
		c.err = c.cmd.Wait()
		close(c.ended)
	}()
	return c, nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

func (c *child) exited() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

func (c *child) await(ctx context.Context, limit time.Duration) error {
	select {
	case <-c.ended:
		if c.err != nil {
			return fmt.Errorf("%w: %s", c.err, c.lastWords())
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(limit):
		return fmt.Errorf("no result after %v", limit)
	}
}

func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	<-c.ended
}

// stop asks first: a system that cannot end cleanly should be noticed.
func (c *child) stop() {
	if c.exited() {
		return
	}
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.ended:
	case <-time.After(15 * time.Second):
		fmt.Fprintf(os.Stderr, "bench: %s did not end 15 s after SIGTERM: killed\n", c.cmd.Path)
		c.kill()
	}
}

func (c *child) lastWords() string {
	select {
	case <-c.ended:
	case <-time.After(time.Second):
	}
	return strings.TrimSpace(c.stderr.String())
}

// peakMiB reads the process's largest resident size (VmHWM, proc(5)).
func (c *child) peakMiB() float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.pid()))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(b), "VmHWM:")
	f := strings.Fields(after)
	if len(f) == 0 {
		return 0
	}
	kib, _ := strconv.ParseFloat(f[0], 64)
	return kib / 1024
}

// offCore names the threads that may run elsewhere than on cpu: a system that
// moves its workers has more than one core, and its reader must know.
func (c *child) offCore(cpu int) (names []string) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", c.pid()))
	for _, t := range tasks {
		b, err := os.ReadFile(t + "/status")
		if err != nil {
			continue // ended meanwhile
		}
		_, after, _ := strings.Cut(string(b), "Cpus_allowed_list:")
		if f := strings.Fields(after); len(f) > 0 && f[0] != strconv.Itoa(cpu) {
			name, _ := os.ReadFile(t + "/comm")
			names = append(names, strings.TrimSpace(string(name)))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// availableMiB reads what can be taken without hurting anyone.
func availableMiB() int {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(b), "MemAvailable:")
	f := strings.Fields(after)
	if len(f) == 0 {
		return 0
	}
	kib, _ := strconv.Atoi(f[0])
	return kib / 1024
}

// A tailBuffer keeps the last of what a child said; os/exec's copying
// goroutine is done when Wait returns.
type tailBuffer struct{ b []byte }

func (t *tailBuffer) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if len(t.b) > 8<<10 {
		t.b = append([]byte(nil), t.b[len(t.b)-4<<10:]...)
	}
	return len(p), nil
}

func (t *tailBuffer) String() string { return string(t.b) }

// freePorts finds n consecutive ports below the ephemeral range: a broker of
// several listeners takes them all.
func freePorts(n int) (int, error) {
	for range 100 {
		port := 20_000 + rand.IntN(10_000)
		free := true
		for i := range n {
			ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+i))
			if err != nil {
				free = false
				break
			}
			_ = ln.Close()
		}
		if free {
			return port, nil
		}
	}
	return 0, errors.New("no free ports")
}
