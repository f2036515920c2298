package program

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

// Path is the program that Main has built. A test may put another in its place.
var Path string

// Main builds the program, runs the tests of a package and ends the process with
// their status.
func Main(m *testing.M) {
	if slices.Contains(os.Args, "-test.fuzzworker") { // a fuzzing worker runs no program
		os.Exit(m.Run())
	}
	os.Exit(buildAndRun(m))
}

// buildAndRun is Main without the exit, so that the directory is removed.
func buildAndRun(m *testing.M) (status int) {
	dir, err := os.MkdirTemp("", "tailbound-cmd-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	Path = filepath.Join(dir, "tailbound")
	build := exec.Command("go", "build", "-o", Path, "github.com/tailbound/tailbound/cmd/tailbound")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the program: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// Broker is a broker process.
type Broker struct {
	Dir, Addr string
	Log       *Output // its stderr
	Stdout    *Output
	Stop      func() error // SIGTERM; the exit status' error
	Signal    func(os.Signal)
}

// Output is what a process has written so far. It may be read while the process
// writes.
type Output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write adds to it.
func (l *Output) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String is all of it.
func (l *Output) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

var controlLine = regexp.MustCompile(`control   node 0  (?:.*listening on )?(\S+)`)

// Start starts a broker with one data shard on free ports. It is stopped
// when the test ends, and must have stopped cleanly.
func Start(t *testing.T, args ...string) *Broker {
	t.Helper()
	b := &Broker{Dir: t.TempDir()}
	b.Again(t, args...)
	return b
}

// Again starts a broker on the directory of one that has stopped.
func (b *Broker) Again(t *testing.T, args ...string) {
	t.Helper()
	b.Addr, b.Log, b.Stdout = "", &Output{}, &Output{}
	cmd := exec.Command(Path, append([]string{"serve", "--data-dir", b.Dir, "--listen", "127.0.0.1:0", "--shards", "1", "--arena", "96MiB", "--buffered"}, args...)...)
	cmd.Stderr = b.Log
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
		for lines := bufio.NewScanner(io.TeeReader(pipe, b.Stdout)); lines.Scan(); {
			if m := controlLine.FindStringSubmatch(lines.Text()); m != nil {
				found <- m[1]
			}
		}
	}()
	b.Signal = func(signal os.Signal) { cmd.Process.Signal(signal) }
	stopped, log := false, b.Log
	b.Stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cmd.Process.Signal(syscall.SIGTERM)
		overdue := time.AfterFunc(40*time.Second, func() { cmd.Process.Kill() })
		defer overdue.Stop()
		return cmd.Wait()
	}
	stop := b.Stop
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("the broker did not stop cleanly: %v\n%s", err, log)
		}
	})
	select {
	case b.Addr = <-found:
	case <-time.After(60 * time.Second):
	}
	if b.Addr == "" {
		t.Fatalf("the broker did not start:\n%s%s", b.Stdout, b.Log)
	}
}

// Result is what came of one run of the program.
type Result struct {
	Out, Err string
	Status   int
}

// Run runs the program to its end, for a minute at most. No TAILBOUND_ variable of
// the test's environment reaches it.
func Run(t *testing.T, stdin string, args ...string) Result {
	t.Helper()
	cmd := exec.Command(Path, args...)
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
	return Result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// Must runs the program, which must succeed, and returns what it printed.
func Must(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	r := Run(t, stdin, args...)
	if r.Status != 0 {
		t.Fatalf("tailbound %s: exit status %d\n%s%s", strings.Join(args, " "), r.Status, r.Out, r.Err)
	}
	return r.Out
}

// Refused runs the program, which must fail with an error that has all of words.
func Refused(t *testing.T, args []string, words ...string) {
	t.Helper()
	r := Run(t, "", args...)
	if r.Status == 0 {
		t.Errorf("tailbound %s: succeeded\n%s", strings.Join(args, " "), r.Out)
	}
	for _, w := range words {
		if !strings.Contains(r.Err, w) {
			t.Errorf("tailbound %s: says nothing of %q:\n%s", strings.Join(args, " "), w, r.Err)
		}
	}
}

// RunUntil starts a process and waits until ready returns true. stop sends SIGTERM
// and returns the error of the exit.
func RunUntil(t *testing.T, cmd *exec.Cmd, ready func() bool) (stop func() error) {
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

// Await waits until a condition holds, for half a minute at most.
func Await(t *testing.T, so func() bool) {
	t.Helper()
	for limit := time.Now().Add(30 * time.Second); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("it does not come to be so within 30 s")
		}
	}
}
