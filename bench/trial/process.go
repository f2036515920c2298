package trial

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Process is a pinned process that dies with this one.
type Process struct {
	cmd    *exec.Cmd
	Stdout bytes.Buffer   // of one that was spawned without pipes; whole when it has ended
	In     io.WriteCloser // with pipes
	Out    io.ReadCloser
	stderr tailBuffer
	ended  chan struct{} // closed when err is set
	err    error
}

// forks runs functions one after another on a thread that lives as long as this
// process. Two things make that necessary: the kernel kills a child when the
// thread that forked it ends (PR_SET_PDEATHSIG), and a child inherits the
// affinity of that thread, which is changed around the fork.
var forks = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for fork := range work {
			fork()
		}
	}()
	return work
})

// Spawn starts a process pinned to some cores; none is any.
func Spawn(cpus []int, env []string, name string, args ...string) (*Process, error) {
	return spawn(cpus, false, env, name, args...)
}

func spawn(cpus []int, pipes bool, env []string, name string, args ...string) (p *Process, err error) {
	done := make(chan struct{})
	forks() <- func() {
		p, err = fork(cpus, pipes, env, name, args...)
		close(done)
	}
	<-done
	return p, err
}

func fork(cpus []int, pipes bool, env []string, name string, args ...string) (*Process, error) {
	c := &Process{cmd: exec.Command(name, args...), ended: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), env...)
	if pipes {
		var err error
		if c.In, err = c.cmd.StdinPipe(); err != nil {
			return nil, err
		}
		if c.Out, err = c.cmd.StdoutPipe(); err != nil {
			return nil, err
		}
	} else {
		c.cmd.Stdout = &c.Stdout
	}
	c.cmd.Stderr = &c.stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	var before, pinned unix.CPUSet
	for _, cpu := range cpus {
		pinned.Set(cpu)
	}
	if len(cpus) == 0 {
		return c, c.start()
	}
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return nil, err
	}
	if err := unix.SchedSetaffinity(0, &pinned); err != nil {
		return nil, fmt.Errorf("cores %v: %w", cpus, err)
	}
	err := c.start()
	if e := unix.SchedSetaffinity(0, &before); err == nil && e != nil {
		c.Kill()
		return nil, e
	}
	return c, err
}

// start starts the process. With pipes, the reader of Out waits for the process, once it
// has read to the end.
func (c *Process) start() error {
	if err := c.cmd.Start(); err != nil {
		return err
	}
	if c.Out == nil {
		go c.wait()
	}
	return nil
}

func (c *Process) wait() {
	c.err = c.cmd.Wait()
	close(c.ended)
}

// PID is its process id; of none, of what was not started here, 0.
func (c *Process) PID() int {
	if c == nil {
		return 0
	}
	return c.cmd.Process.Pid
}

// Exited says whether it has ended.
func (c *Process) Exited() bool {
	if c == nil {
		return false
	}
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

// Await waits until it has ended well.
func (c *Process) Await(ctx context.Context, limit time.Duration) error {
	select {
	case <-c.ended:
		if c.err != nil {
			return fmt.Errorf("%w: %s", c.err, c.LastWords())
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(limit):
		return fmt.Errorf("no result after %v", limit)
	}
}

// Kill ends it.
func (c *Process) Kill() {
	_ = c.cmd.Process.Kill()
	<-c.ended
}

// Stop asks first: a system that cannot end cleanly should be noticed.
func (c *Process) Stop() {
	if c.Exited() {
		return
	}
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.ended:
	case <-time.After(15 * time.Second):
		fmt.Fprintf(os.Stderr, "bench: %s did not end 15 s after SIGTERM: killed\n", c.cmd.Path)
		c.Kill()
	}
}

// LastWords is the end of what it said to stderr.
func (c *Process) LastWords() string {
	select {
	case <-c.ended:
	case <-time.After(time.Second):
	}
	return strings.TrimSpace(c.stderr.String())
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
