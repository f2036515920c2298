package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// These tests run the program as people do: built, as a process of its own,
// over real sockets.

var program string // built by TestMain

func TestMain(m *testing.M) {
	if os.Getenv("TAILBOUND_TEST_GARBAGE") != "" {
		litter()
		main()
		return
	}
	if slices.Contains(os.Args, "-test.fuzzworker") { // it runs no program
		os.Exit(m.Run())
	}
	status := func() int {
		dir, err := os.MkdirTemp("", "tailbound-cmd-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "tailbound")
		build := exec.Command("go", "build", "-o", program, ".")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "building the program: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}()
	os.Exit(status)
}

// running is a broker process.
type running struct {
	dir, addr string
	log       *lockedBuffer // its stderr
	stdout    *lockedBuffer
	stop      func() error // SIGTERM; the exit status' error
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

var controlLine = regexp.MustCompile(`control   node 0  (?:.*listening on )?(\S+)`)

// startBroker starts a broker with one data shard on free ports. It is stopped
// when the test ends, and must have stopped cleanly.
func startBroker(t *testing.T, args ...string) *running {
	t.Helper()
	b := &running{dir: t.TempDir()}
	b.again(t, args...)
	return b
}

// again starts a broker on the directory of one that has stopped.
func (b *running) again(t *testing.T, args ...string) {
	t.Helper()
	b.addr, b.log, b.stdout = "", &lockedBuffer{}, &lockedBuffer{}
	cmd := exec.Command(program, append([]string{"serve", "--data-dir", b.dir, "--listen", "127.0.0.1:0", "--shards", "1", "--arena", "96MiB", "--buffered"}, args...)...)
	cmd.Stderr = b.log
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	found := make(chan string, 1)
	go func() {
		defer close(found)
		for lines := bufio.NewScanner(io.TeeReader(pipe, b.stdout)); lines.Scan(); {
			if m := controlLine.FindStringSubmatch(lines.Text()); m != nil {
				found <- m[1]
			}
		}
	}()
	stopped, log := false, b.log
	b.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cmd.Process.Signal(syscall.SIGTERM)
		overdue := time.AfterFunc(40*time.Second, func() { cmd.Process.Kill() })
		defer overdue.Stop()
		return cmd.Wait()
	}
	stop := b.stop
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("the broker did not stop cleanly: %v\n%s", err, log)
		}
	})
	select {
	case b.addr = <-found:
	case <-time.After(60 * time.Second):
	}
	if b.addr == "" {
		t.Fatalf("the broker did not start:\n%s%s", b.stdout, b.log)
	}
}

// result is what came of one run of the program.
type result struct {
	out, err string
	status   int
}

// tailbound runs the program with an environment of its own.
func tailbound(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	cmd := exec.Command(program, args...)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "TAILBOUND_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	overdue := time.AfterFunc(60*time.Second, func() { cmd.Process.Kill() })
	defer overdue.Stop()
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatalf("tailbound %v: %v", args, err)
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// must runs the program, which must succeed, and is what it printed.
func must(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	r := tailbound(t, stdin, args...)
	if r.status != 0 {
		t.Fatalf("tailbound %s: exit status %d\n%s%s", strings.Join(args, " "), r.status, r.out, r.err)
	}
	return r.out
}

// refused runs the program, which must fail and say all of the words.
func refused(t *testing.T, args []string, words ...string) {
	t.Helper()
	r := tailbound(t, "", args...)
	if r.status == 0 {
		t.Errorf("tailbound %s: succeeded\n%s", strings.Join(args, " "), r.out)
	}
	for _, w := range words {
		if !strings.Contains(r.err, w) {
			t.Errorf("tailbound %s: says nothing of %q:\n%s", strings.Join(args, " "), w, r.err)
		}
	}
}

// runUntil starts a process and waits until ready says so. stop asks it to
// end, and is what came of it.
func runUntil(t *testing.T, cmd *exec.Cmd, ready func() bool) (stop func() error) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { cmd.Process.Kill() })
	for limit := time.Now().Add(60 * time.Second); !ready(); time.Sleep(5 * time.Millisecond) {
		select {
		case err := <-ended:
			t.Fatalf("ended while starting: %v\n%v", err, cmd.Stderr)
		default:
		}
		if time.Now().After(limit) {
			t.Fatalf("not ready after 60 s:\n%v", cmd.Stderr)
		}
	}
	return func() error {
		cmd.Process.Signal(syscall.SIGTERM)
		overdue := time.AfterFunc(40*time.Second, func() { cmd.Process.Kill() })
		defer overdue.Stop()
		return <-ended
	}
}

// await waits until something is so.
func await(t *testing.T, so func() bool) {
	t.Helper()
	for limit := time.Now().Add(30 * time.Second); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("it does not come to be so within 30 s")
		}
	}
}
