package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func TestProgressLine(t *testing.T) {
	for _, x := range []struct {
		done, total int64
		want        string
	}{
		{0, 4096, "read [                              ] 0%, 0 B of 4 KiB"},
		{2048, 4096, "read [===============               ] 50%, 2 KiB of 4 KiB"},
		{4096, 4096, "read [==============================] 100%, 4 KiB of 4 KiB"},
		{9999, 4096, "read [==============================] 100%, 4 KiB of 4 KiB"},
	} {
		if got := progressLine("read", x.done, x.total); got != x.want {
			t.Errorf("%d of %d: %q, want %q", x.done, x.total, got, x.want)
		}
	}
}

// A bar is drawn where somebody looks, and is gone at the end.
func TestProgressInATerminal(t *testing.T) {
	pipe, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	defer w.Close()
	if newProgress(w, "read") != nil {
		t.Error("there is a bar for a pipe")
	}
	var none *progress
	none.at(1, 2)
	none.end()
	master, slave := terminal(t)
	p := newProgress(slave, "read")
	if p == nil {
		t.Fatal("there is none for a terminal")
	}
	p.at(1, 2) // too soon
	p.next = time.Time{}
	p.at(1, 2)
	p.next = time.Now().Add(time.Hour)
	p.at(2, 2)
	p.end()
	p.end()
	slave.WriteString("|")
	var got bytes.Buffer
	for !strings.HasSuffix(got.String(), "|") {
		if _, err := io.CopyN(&got, master, 1); err != nil {
			t.Fatal(err)
		}
	}
	if want := "\r\x1b[K" + progressLine("read", 1, 2) + "\r\x1b[K|"; got.String() != want {
		t.Errorf("%q, want %q", got.String(), want)
	}
}

// terminal is a pair of which the second is one.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("there are no terminals here: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Skipf("there are no terminals here: %v", err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Skipf("there are no terminals here: %v", err)
	}
	if slave, err = os.OpenFile(filepath.Join("/dev/pts", strconv.Itoa(number)), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Skipf("there are no terminals here: %v", err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// Whatever prints data prints it as --output says, and names what --output is
// where it is none of those; every command shows how it is used.
func TestOutputs(t *testing.T) {
	b := startBroker(t)
	for _, args := range [][]string{
		{"profile", "--once", "--data-dir", b.dir}, {"profile", "tail", "--once", "--data-dir", b.dir}, {"profile", "watch", "slo", "--once", "--data-dir", b.dir},
	} {
		printsAll(t, args)
	}
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	printsAll(t, []string{"check", b.dir})
	printsAll(t, []string{"repair", b.dir})
	for _, c := range []string{"check", "repair"} { // 1 would say that something is broken
		for _, args := range [][]string{{c, b.dir, "--output", "xml"}, {c, t.TempDir()}} {
			if r := tailbound(t, "", args...); r.status != 2 {
				t.Errorf("tailbound %s: exit status %d, not 2\n%s", strings.Join(args, " "), r.status, r.err)
			}
		}
	}
}

func printsAll(t *testing.T, args []string) {
	t.Helper()
	table := must(t, "", args...)
	asJSON := must(t, "", append(args, "--output", "json")...)
	asYAML := must(t, "", append(args, "--output", "yaml")...)
	if !strings.HasPrefix(asJSON, "{\n  \"") || !strings.HasSuffix(asJSON, "}\n") {
		t.Errorf("%v: this is no JSON object:\n%s", args, asJSON)
	}
	key, _, _ := strings.Cut(strings.TrimPrefix(asJSON, "{\n  \""), "\"")
	if !strings.HasPrefix(asYAML, key+": ") || strings.HasPrefix(table, "{") || strings.HasPrefix(table, key+": ") {
		t.Errorf("%v: YAML is\n%s\nand the table\n%s", args, asYAML, table)
	}
	refused(t, append(args, "--output", "xml"), `--output "xml": it is table, json or yaml`)
}

func TestExamples(t *testing.T) {
	var look func(c *cobra.Command)
	look = func(c *cobra.Command) {
		if c.Hidden || c.Name() == "completion" { // which is cobra's own
			return
		}
		if !strings.Contains(c.Example, c.CommandPath()) {
			t.Errorf("`%s --help` has no example of it", c.CommandPath())
		}
		for _, below := range c.Commands() {
			look(below)
		}
	}
	look(rootCommand())
}
