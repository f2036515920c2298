package interop

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
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	dataShards  = 2
	portsSpare  = 2 // for lives with more shards
	startLimit  = 60 * time.Second
	stopLimit   = 30 * time.Second
	outputShown = 16 << 10
)

// A broker is one life after another of a broker process on one data directory and one range of ports. Of kfake it is one in-process cluster.
type broker struct {
	binary string
	dir    string
	host   string // where clients of the tests find it; 127.0.0.1 where it is empty
	port   int    // of the control shard; data shard i listens on port+i
	shards int    // data shards of the next life
	flags  []string
	out    *output // stdout and stderr of all lives
	fake   *kfake.Cluster

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{} // closed when the present life has been waited for
	status error         // of the life that ended; valid once exited is closed
	ending bool          // we asked for the end: it is no failure
}

// useFake says whether the tests run against franz-go's in-process fake, which is how they are developed, and how a doubt about a test is settled.
func useFake() bool { return os.Getenv("TAILBOUND_INTEROP_BROKER") == "kfake" }

// needReal skips what only makes sense for a real process.
func needReal(t *testing.T, why string) {
	t.Helper()
	if useFake() {
		t.Skip("TAILBOUND_INTEROP_BROKER=kfake: " + why)
	}
}

func binaryPath() (string, error) {
	path := os.Getenv("TAILBOUND_BIN")
	if path == "" {
		path = filepath.Join("..", "bin", "tailbound")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("no broker to test: %w (build it with `make` in the parent directory, or set TAILBOUND_BIN)", err)
	}
	return path, nil
}

// newBroker starts a broker of the test's own.
func newBroker(dir string, flags ...string) (*broker, error) {
	b := &broker{dir: dir, shards: dataShards, flags: flags, out: &output{}}
	if useFake() {
		fake, err := kfake.NewCluster(kfake.NumBrokers(1+dataShards), kfake.AllowAutoTopicCreation(), kfake.DefaultNumPartitions(1))
		if err != nil {
			return nil, err
		}
		b.fake = fake
		_, port, _ := net.SplitHostPort(fake.ListenAddrs()[0])
		b.port, _ = strconv.Atoi(port)
		return b, nil
	}
	var err error
	if b.binary, err = binaryPath(); err != nil {
		return nil, err
	}
	// Somebody else may take a port between the look and the start: a start that dies at once is tried on another range.
	for try := 0; ; try++ {
		if b.port, err = freePorts(1 + portsSpare + dataShards); err != nil {
			return nil, err
		}
		if err = b.start(); err == nil || try == 2 {
			return b, err
		}
	}
}

// freePorts finds n consecutive unused ports, below the range from which the kernel gives ports to outgoing connections.
func freePorts(n int) (int, error) {
	for range 200 {
		base := 20000 + rand.IntN(12000)
		var held []net.Listener
		for i := range n {
			l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(base+i)))
			if err != nil {
				break
			}
			held = append(held, l)
		}
		for _, l := range held {
			l.Close()
		}
		if len(held) == n {
			return base, nil
		}
	}
	return 0, errors.New("no free range of ports")
}

// start begins a life and returns once the broker answers ApiVersions.
func (b *broker) start() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.launch(); err != nil {
		return err
	}
	limit := time.Now().Add(startLimit)
	for {
		select {
		case <-b.exited:
			return fmt.Errorf("the broker ended while starting: %v\n%s", b.status, b.out.tail())
		case <-time.After(10 * time.Millisecond):
		}
		err := answers(b.addr())
		if err == nil {
			b.awaitProfiles()
			return nil
		}
		if time.Now().After(limit) {
			b.cmd.Process.Kill()
			<-b.exited
			return fmt.Errorf("the broker does not answer after %v: %v\n%s", startLimit, err, b.out.tail())
		}
	}
}

// awaitProfiles waits until `tailbound profile` is answered too, which is a moment after the first client. A test may see to it that it never is.
func (b *broker) awaitProfiles() {
	for range 300 {
		if c, err := net.Dial("unix", filepath.Join(b.dir, "profile.sock")); err == nil {
			c.Close()
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// stillborn begins a life and kills it after a while, whether or not it has come to serve.
func (b *broker) stillborn(after time.Duration) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.launch(); err != nil {
		return err
	}
	select {
	case <-b.exited:
		return fmt.Errorf("the broker ended while starting: %v\n%s", b.status, b.out.tail())
	case <-time.After(after):
	}
	b.ending = true
	b.cmd.Process.Kill()
	<-b.exited
	return nil
}

// launch starts the process. The caller holds mu.
func (b *broker) launch() error {
	cmd := exec.Command(b.binary, "serve", "--data-dir", b.dir, "--listen", b.addr(), "--shards", strconv.Itoa(b.shards))
	cmd.Args = append(cmd.Args, b.flags...)
	cmd.Stdout, cmd.Stderr = b.out, b.out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // no broker outlives the tests
	fmt.Fprintf(b.out, "+ %s\n", strings.Join(cmd.Args, " "))
	started := make(chan error)
	exited := make(chan struct{})
	go func() {
		// The death signal comes when the thread that started the process ends, so that thread waits here for as long as the process lives.
		lockThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			b.status = cmd.Wait()
			fmt.Fprintf(b.out, "+ ended: %v\n", cmd.ProcessState)
			close(exited)
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	b.cmd, b.exited, b.ending = cmd, exited, false
	return nil
}

// answers says whether a Kafka broker answers at addr.
func answers(addr string) error {
	w, err := dial(addr)
	if err != nil {
		return err
	}
	defer w.Close()
	_, err = w.ask(kmsg.NewPtrApiVersionsRequest())
	return err
}

// alive says whether the present life goes on.
func (b *broker) alive() bool {
	if b.fake != nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-b.exited:
		return false
	default:
		return true
	}
}

// kill ends the life with SIGKILL.
func (b *broker) kill() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ending = true
	b.cmd.Process.Signal(syscall.SIGKILL)
	<-b.exited
}

// stop ends the life with SIGTERM; it must end with exit status 0.
func (b *broker) stop() error {
	if b.fake != nil {
		b.fake.Close()
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-b.exited:
		if b.ending {
			return nil
		}
		return fmt.Errorf("the broker had ended by itself: %v\n%s", b.status, b.out.tail())
	default:
	}
	b.ending = true
	b.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-b.exited:
	case <-time.After(stopLimit):
		b.cmd.Process.Signal(syscall.SIGQUIT) // a Go process says where it stands
		select {
		case <-b.exited:
		case <-time.After(2 * time.Second):
			b.cmd.Process.Kill()
			<-b.exited
		}
		return fmt.Errorf("the broker did not end within %v of SIGTERM\n%s", stopLimit, b.out.tail())
	}
	if b.status != nil {
		return fmt.Errorf("the broker's end after SIGTERM: %v\n%s", b.status, b.out.tail())
	}
	return nil
}

// check runs `tailbound check` on the data directory of a broker that is not running.
func (b *broker) check() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	said, err := exec.CommandContext(ctx, b.binary, "check", b.dir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("tailbound check: %v\n%s", err, said)
	}
	return nil
}

// addr is the address given to clients: the control shard's.
func (b *broker) addr() string {
	return net.JoinHostPort(cmp.Or(b.host, "127.0.0.1"), strconv.Itoa(b.port))
}

// within is a deadline that no test should meet.
func within(t *testing.T, limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

// The shared broker serves most tests; each uses topics of its own. When it dies, the test that finds it fails with its output, and the next gets a
// new one: one bug must not hide the rest.
var shared struct {
	sync.Mutex
	b *broker
}

func sharedBroker(t *testing.T) *broker {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.b == nil || !shared.b.alive() {
		dir, err := os.MkdirTemp(tempRoot(), "interop-")
		if err != nil {
			t.Fatal(err)
		}
		if shared.b != nil {
			os.RemoveAll(shared.b.dir)
		}
		if shared.b, err = newBroker(dir); err != nil {
			shared.b = nil
			os.RemoveAll(dir)
			t.Fatal(err)
		}
	}
	b := shared.b
	t.Cleanup(func() {
		if !b.alive() {
			t.Errorf("the shared broker has ended (during this test or one beside it): %v\n%s", b.status, b.out.tail())
		} else if t.Failed() && b.fake == nil {
			t.Logf("the broker's output:\n%s", b.out.tail())
		}
	})
	return b
}

// tempRoot is where data directories go: INTEROP_TMP, for a disk other than /tmp's (tmpfs has no direct I/O).
func tempRoot() string { return os.Getenv("INTEROP_TMP") }

func TestMain(m *testing.M) {
	if name := os.Getenv("INTEROP_CHILD"); name != "" {
		if err := children[name](os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	code := m.Run()
	if javaPrograms.dir != "" {
		os.RemoveAll(javaPrograms.dir)
	}
	if b := shared.b; b != nil {
		if b.alive() || b.fake != nil {
			if err := b.stop(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				code = max(code, 1)
			} else if b.fake == nil {
				if err := b.check(); err != nil {
					fmt.Fprintln(os.Stderr, err)
					code = max(code, 1)
				}
			}
		}
		os.RemoveAll(b.dir)
	}
	os.Exit(code)
}

// An output keeps what a broker says; any goroutine may write to it.
type output struct {
	mu   sync.Mutex
	said bytes.Buffer
}

var _ io.Writer = (*output)(nil)

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.said.Write(p)
}

// tail is the last of it, and the first of a panic in it.
func (o *output) tail() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.said.Bytes()
	if i := bytes.Index(s, []byte("panic: ")); i >= 0 {
		return string(s[i:min(len(s), i+outputShown)])
	}
	if len(s) > outputShown {
		s = s[len(s)-outputShown:]
	}
	return string(s)
}
