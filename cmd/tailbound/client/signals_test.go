package client

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tailbound/tailbound/cmd/tailbound/program"
)

// command is a client command that runs beside the test.
type command struct {
	*exec.Cmd
	out, said *program.Output
	in        io.WriteCloser
	ended     chan struct{}
}

// begin starts a command whose standard input stays open.
func (w kafkaWorld) begin(args ...string) *command {
	w.t.Helper()
	c := &command{Cmd: exec.Command(program.Path, append(args, "--brokers", w.addr)...), out: &program.Output{}, said: &program.Output{}, ended: make(chan struct{})}
	c.Stdout, c.Stderr = c.out, c.said
	var err error
	if c.in, err = c.StdinPipe(); err != nil {
		w.t.Fatal(err)
	}
	w.start(c)
	return c
}

func (w kafkaWorld) start(c *command) {
	w.t.Helper()
	if err := c.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() {
		c.Wait()
		close(c.ended)
	}()
	w.t.Cleanup(func() { c.Process.Kill() })
}

// status awaits the command's end, without a further signal. -1: it did not end, or
// a signal ended it.
func (c *command) status() int {
	select {
	case <-c.ended:
		return c.ProcessState.ExitCode()
	case <-time.After(45 * time.Second):
		return -1
	}
}

// Records of any age are copied through JSON: no time-out counts from a record's own
// time. A time that the client would change is refused.
func TestOldRecords(t *testing.T) {
	b := program.Start(t)
	w := kafkaWorld{t, b.Addr}
	w.run("", "topic", "create", "old", "copy")
	var lines []string
	for i, at := range []time.Time{time.Now().Add(-time.Hour), time.UnixMilli(0), time.UnixMilli(-1), time.Date(1901, 1, 1, 0, 0, 0, 0, time.UTC), time.Now()} {
		lines = append(lines, fmt.Sprintf(`{"time": %q, "value": "%d"}`, at.UTC().Format(time.RFC3339Nano), i))
	}
	for _, codec := range []string{"none", "zstd"} {
		w.run(strings.Join(lines, "\n"), "produce", "old", "-f", "json", "-z", codec)
	}
	w.run(w.run("", "consume", "old", "-e", "-f", "json"), "produce", "copy", "-f", "json")
	const all = `%o %v %d\n`
	if from, to := w.run("", "consume", "old", "-e", "-f", all), w.run("", "consume", "copy", "-e", "-f", all); from != to || strings.Count(to, "\n") != 10 {
		t.Errorf("a copy of old records differs:\n%s\n%s", from, to)
	}
	r := program.Run(t, `{"value": "kept"}`+"\n"+`{"time": "9998-01-01T00:00:00Z", "value": "x"}`, "produce", "copy", "-f", "json", "--brokers", b.Addr)
	if r.Status == 0 || !strings.Contains(r.Err, "record 2: its time 9998-01-01T00:00:00Z") {
		t.Errorf("a time that would be changed: %d, %s", r.Status, r.Err)
	}
}

// A command that waits for input ends on a signal, and has written what came.
func TestSignalsWhileWaitingForInput(t *testing.T) {
	t.Parallel()
	b := program.Start(t)
	w := kafkaWorld{t, b.Addr}
	w.run("", "topic", "create", "orders")
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	written := 0
	for _, args := range [][]string{{}, {"-f", "json"}, {"-f", `%v\n`}, {"-K", "="}, {"--whole"}, {fifo}, {"--rate", "1"}} {
		for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
			c := w.begin(append([]string{"produce", "orders"}, args...)...)
			var in io.Writer = c.in
			if len(args) == 1 && args[0] == fifo {
				file, err := os.OpenFile(fifo, os.O_WRONLY, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer file.Close()
				in = file
			}
			text, records := "k=first\nunfinished", 1
			switch {
			case len(args) > 0 && args[0] == "--whole":
				records = 0
			case len(args) > 0 && args[0] == "-f" && args[1] == "json":
				text = `{"value": "first"} {"value":`
			}
			io.WriteString(in, text)
			written += records
			if records > 0 {
				program.Await(t, func() bool {
					var r []struct{}
					out := strings.TrimSpace(w.run("", "consume", "orders", "-e", "-f", `{},`))
					return json.Unmarshal([]byte("["+strings.TrimSuffix(out, ",")+"]"), &r) == nil && len(r) == written
				})
			} else {
				time.Sleep(200 * time.Millisecond)
			}
			c.Process.Signal(signal)
			if status := c.status(); status != 130 {
				t.Fatalf("produce %v, %v: exit status %d\n%s", args, signal, status, c.said)
			}
			if want := fmt.Sprintf("%d record", records); !strings.HasPrefix(c.said.String(), want) {
				t.Errorf("produce %v, %v: it says\n%s", args, signal, c.said)
			}
		}
	}
	for _, args := range [][]string{{"group", "reset", "g", "--file", "-"}, {"group", "offsets", "import", "g", "-"}, {"consume", "orders"}, {"consume", "orders", "-g", "g"}} {
		c := w.begin(args...)
		time.Sleep(200 * time.Millisecond)
		c.Process.Signal(syscall.SIGTERM)
		if c.status(); c.ProcessState == nil {
			t.Errorf("%v does not end", args)
		}
	}
}

// beginUnread starts a command into a pipe, of which one byte has come and is read.
func (w kafkaWorld) beginUnread(args ...string) (*command, *os.File) {
	w.t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		w.t.Fatal(err)
	}
	c := &command{Cmd: exec.Command(program.Path, append(args, "--brokers", w.addr)...), said: &program.Output{}, ended: make(chan struct{})}
	c.Stdout, c.Stderr = writer, c.said
	w.start(c)
	writer.Close()
	if _, err := io.ReadFull(reader, make([]byte, 1)); err != nil {
		w.t.Fatal(err)
	}
	return c, reader
}

// A broker that goes, or stops answering, holds up no command for longer than
// --timeout, and none ignores a signal meanwhile.
func TestBrokerGoesAway(t *testing.T) {
	t.Parallel()
	b := program.Start(t)
	w := kafkaWorld{t, b.Addr}
	w.run("", "topic", "create", "orders", "large")
	value := strings.Repeat("0123456789abcdef", 4096)
	w.run(strings.Repeat(value+"\n", 160), "produce", "large") // 10 MiB: more than a client buffers

	toEnd, reader := w.beginUnread("consume", "large", "-e", "--timeout", "5s")
	following, member := w.begin("consume", "orders"), w.begin("consume", "orders", "-g", "g")
	timed, signalled := w.begin("produce", "orders", "--timeout", "5s"), w.begin("produce", "orders")
	for i, c := range []*command{timed, signalled} {
		io.WriteString(c.in, "before\n")
		program.Await(t, func() bool { return strings.Count(following.out.String(), "before\n") == i+1 })
	}
	program.Await(t, func() bool { return strings.Count(member.out.String(), "before\n") == 2 })

	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	if status := toEnd.status(); status != 1 || !strings.Contains(toEnd.said.String(), "no answer within 5s: node ") {
		t.Errorf("consume -e: exit status %d\n%s", status, toEnd.said)
	}
	if n := bytes.Count(rest, []byte("\n")); n >= 160 {
		t.Errorf("all %d records came: this test is to have fewer buffered", n)
	}
	for _, c := range []*command{timed, signalled} {
		io.WriteString(c.in, "after\nafter\n")
	}
	if status := timed.status(); status != 1 || !strings.Contains(timed.said.String(), "2 of 3 records were not acknowledged: no answer within 5s: node ") {
		t.Errorf("produce: exit status %d\n%s", status, timed.said)
	}
	for what, c := range map[string]*command{"produce": signalled, "consume": following, "consume -g": member} {
		c.Process.Signal(syscall.SIGTERM)
		if c.status() < 0 {
			t.Errorf("%s ignores SIGTERM while its broker is gone:\n%s", what, c.said)
		}
	}
	if !strings.Contains(signalled.said.String(), "2 of 3 records were not acknowledged") {
		t.Errorf("produce, after a signal:\n%s", signalled.said)
	}
}

// A signal ends consume where nobody reads what it prints.
func TestSignalWhileNobodyReads(t *testing.T) {
	t.Parallel()
	b := program.Start(t)
	w := kafkaWorld{t, b.Addr}
	w.run("", "topic", "create", "large")
	w.run(strings.Repeat(strings.Repeat("0123456789abcdef", 4096)+"\n", 16), "produce", "large")
	for _, args := range [][]string{{"consume", "large"}, {"consume", "large", "-e"}, {"consume", "large", "-g", "g"}} {
		c, reader := w.beginUnread(args...)
		defer reader.Close()
		c.Process.Signal(syscall.SIGTERM)
		if status := c.status(); status != 0 {
			t.Errorf("%v: exit status %d\n%s", args, status, c.said)
		}
	}
}

// The rest of a topic is deleted while it is consumed to its end: that is the end.
func TestDeletedUpToTheEnd(t *testing.T) {
	t.Parallel()
	b := program.Start(t)
	w := kafkaWorld{t, b.Addr}
	w.run("", "topic", "create", "large")
	w.run(strings.Repeat(strings.Repeat("0123456789abcdef", 4096)+"\n", 160), "produce", "large")
	c, reader := w.beginUnread("consume", "large", "-e", "--timeout", "5s")
	w.run("", "topic", "purge", "large", "--before", "end")
	if _, err := io.Copy(io.Discard, reader); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if status := c.status(); status != 0 {
		t.Errorf("exit status %d\n%s", status, c.said)
	}
}

// A record that is refused ends the command, which does not wait for more input.
func TestRefusedWhileWaitingForInput(t *testing.T) {
	b := program.Start(t)
	w := kafkaWorld{t, b.Addr}
	w.run("", "topic", "create", "small", "-c", "max.message.bytes=1024")
	c := w.begin("produce", "small")
	io.WriteString(c.in, strings.Repeat("x", 2000)+"\n")
	if status := c.status(); status != 1 || !strings.Contains(c.said.String(), "1 of 1 record") || !strings.Contains(c.said.String(), "MESSAGE_TOO_LARGE") {
		t.Errorf("exit status %d\n%s", status, c.said)
	}
}
