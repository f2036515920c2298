package main

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/cmd/tailbound/program"
)

// process is a broker whose stderr the test may leave unread.
type process struct {
	*exec.Cmd
	addr  string
	ended chan struct{} // closed when it has been waited for
	err   error         // of the exit status; valid once ended is closed
}

// serveWith starts a broker of dir with that stderr, and waits until it serves.
func serveWith(t *testing.T, dir string, stderr *os.File, args ...string) *process {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &process{addr: free.Addr().String(), ended: make(chan struct{})}
	free.Close()
	p.Cmd = exec.Command(program.Path, append([]string{"serve", "--data-dir", dir, "--listen", p.addr, "--listen-mode", "single", "--arena", "96MiB", "--buffered"}, args...)...)
	var stdout program.Output
	p.Stdout, p.Stderr = &stdout, stderr
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.Process.Kill()
		<-p.ended
	})
	program.Await(t, func() bool { return strings.Contains(stdout.String(), "serving") })
	return p
}

// stopsCleanly asks the process to stop by a signal. An exit status of 0 is that of a clean stop.
func (p *process) stopsCleanly(t *testing.T, signal os.Signal) {
	t.Helper()
	p.Process.Signal(signal)
	select {
	case <-p.ended:
		if p.err != nil {
			t.Errorf("after %s: %v", signal, p.err)
		}
	case <-time.After(40 * time.Second):
		p.Process.Signal(syscall.SIGQUIT)
		t.Errorf("%s does not end it", signal)
	}
}

// noise has the broker log a line for each of so many connections.
func (p *process) noise(t *testing.T, count int) {
	t.Helper()
	for range count {
		conn, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		conn.Write([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
		conn.SetReadDeadline(time.Now().Add(30 * time.Second))
		conn.Read(make([]byte, 1)) // it is closed
		conn.Close()
	}
}

// TestStopWithoutAReaderOfTheLog: a broker serves and stops cleanly although the reader of its log does not read, or has gone.
func TestStopWithoutAReaderOfTheLog(t *testing.T) {
	for _, gone := range []bool{false, true} {
		reader, writer, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unix.FcntlInt(writer.Fd(), unix.F_SETPIPE_SZ, 4096); err != nil {
			t.Fatal(err)
		}
		p := serveWith(t, t.TempDir(), writer)
		writer.Close()
		if gone {
			reader.Close()
		}
		p.noise(t, 100)
		p.stopsCleanly(t, unix.SIGTERM)
		reader.Close()
	}
}

// TestStopWhileStarting: a signal ends a start at any moment, and the next start serves.
func TestStopWhileStarting(t *testing.T) {
	dir := t.TempDir()
	for after := time.Duration(0); after < 120*time.Millisecond; after += 20 * time.Millisecond {
		var said strings.Builder
		cmd := exec.Command(program.Path, "serve", "--data-dir", dir, "--listen", "127.0.0.1:0", "--shards", "1", "--arena", "96MiB", "--buffered")
		cmd.Stderr = &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(after)
		cmd.Process.Signal(unix.SIGTERM)
		overdue := time.AfterFunc(40*time.Second, func() { cmd.Process.Signal(unix.SIGQUIT) })
		err := cmd.Wait()
		if !overdue.Stop() {
			t.Fatalf("a signal %v after the start does not end it\n%s", after, &said)
		}
		if cmd.ProcessState.ExitCode() == 1 && !strings.Contains(said.String(), "before the broker served") || cmd.ProcessState.ExitCode() > 1 {
			t.Errorf("a signal %v after the start: %v\n%s", after, err, &said)
		}
	}
	p := serveWith(t, dir, nil)
	p.stopsCleanly(t, unix.SIGINT)
}
