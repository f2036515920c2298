package interop

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"
)

// children are what this binary is instead of the tests where INTEROP_CHILD names one.
var children = map[string]func(args []string) error{}

// A child is a member in a process of its own, which can be stopped by a signal. It says "saw PARTITION OFFSET VALUE" of each record, polls nothing between
// "pause" and "resume", and leaves when its input ends.
type child struct {
	process *os.Process
	in      io.Writer

	mu    sync.Mutex
	other map[string]bool // what it said besides
}

func (c *child) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := c.process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func (c *child) tell(t *testing.T, what string) {
	t.Helper()
	if _, err := fmt.Fprintln(c.in, what); err != nil {
		t.Fatal(err)
	}
}

func (c *child) said(what string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.other[what]
}

// inChild begins the membership as a child.
func (m membership) inChild(t *testing.T, cmd *exec.Cmd) (leave, crash func(), err error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	said := &bytes.Buffer{}
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	c := &child{process: cmd.Process, in: in, other: map[string]bool{}}
	if m.child != nil {
		m.child(c)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var partition int32
			var offset int64
			var value string
			if n, _ := fmt.Sscanf(lines.Text(), "saw %d %d %s", &partition, &offset, &value); n == 3 {
				m.seen(partition, offset, []byte(value))
				continue
			}
			c.mu.Lock()
			c.other[lines.Text()] = true
			c.mu.Unlock()
		}
	}()
	end := func(how func()) func() {
		return func() {
			how()
			late := time.AfterFunc(20*time.Second, func() {
				t.Errorf("a member does not end:\n%s", said)
				cmd.Process.Kill()
			})
			<-done
			cmd.Wait()
			late.Stop()
		}
	}
	return end(func() { in.Close() }), end(func() { cmd.Process.Kill() }), nil
}

// children has the flock's members be processes of their own, and gives the last of them.
func (f *flock) children(how joins) (last **child) {
	last = new(*child)
	f.join = func(b *broker, m membership) (leave, crash func(), err error) {
		m.child = func(c *child) { *last = c }
		return how(b, m)
	}
	return last
}

// works waits until so many members have all partitions between them, in the classic protocol or the consumer protocol, and sees records go through.
func (f *flock) works(members int, classic bool) {
	f.t.Helper()
	if classic {
		f.settles(members)
	} else {
		f.consumed(members, f.parts)
	}
	f.write(60)
	f.sees()
}
