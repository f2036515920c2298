package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tailbound/tailbound/cmd/tailbound/program"
)

// Mistakes on the command line, and what the answer has to name.
func TestUsage(t *testing.T) {
	b := program.Start(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	program.Must(t, "", "topic", "create", "orders", "--brokers", b.Addr)
	serve := func(args ...string) []string {
		return append([]string{"serve", "--data-dir", t.TempDir(), "--buffered"}, args...)
	}
	for _, x := range []struct{ args, words []string }{
		{[]string{"serv", "--data-dir", "x"}, []string{"did you mean `tailbound serve`?"}},
		{[]string{"topic", "lst"}, []string{"did you mean `tailbound topic list`?"}},
		{[]string{"topic", "lst", "-p", "3"}, []string{"did you mean `tailbound topic list`?"}},
		{[]string{"topic", "frobnicate"}, []string{"tailbound topic --help"}},
		{[]string{"serve", "--data-dri", "x"}, []string{"did you mean --data-dir?"}},
		{[]string{"topic", "list", "-q"}, []string{"no flag -q", "tailbound topic list --help"}},
		{[]string{"serve", "extra"}, []string{"tailbound serve --data-dir DIR", `"extra"`}},
		{[]string{"produce"}, []string{"tailbound produce TOPIC [FILE...]", "nothing was given"}},
		{[]string{"serve", "--shards"}, []string{"--shards wants a value"}},
		{serve("--shards", "two"), []string{`--shards "two"`, "whole number"}},
		{serve("--arena", "two"), []string{`"two" is not a size`}},
		{serve("--listen", "9092"), []string{"--listen", ":9092"}},
		{serve("--listen", ":70000"), []string{"70000 is not a port"}},
		{serve("--listen", ":65535", "--shards", "3"), []string{"4 ports"}},
		{serve("--listen", b.Addr), []string{"taken by another process", "--listen"}},
		{serve("--listen", "192.0.2.1:9092"), []string{"no such address", "--advertise"}},
		{[]string{"serve", "--data-dir", b.Dir, "--buffered"}, []string{"is in use", "process"}},
		{[]string{"serve", "--data-dir", filepath.Join(file, "below")}, []string{"in, a file", "--data-dir"}},
		{[]string{"topic", "list", "--brokers", "http://127.0.0.1:9092"}, []string{`without "http://"`}},
		{[]string{"topic", "delete", "nothing.like.it", "--brokers", b.Addr}, []string{"topic list"}},
		{[]string{"topic", "create", "a", "-c", "retentoin.ms=1", "--brokers", b.Addr}, []string{"INVALID_CONFIG", "did you mean retention.ms?"}},
		{[]string{"topic", "create", "a", "-c", "retention.ms=1d", "--brokers", b.Addr}, []string{"INVALID_CONFIG", "retention.ms is a number of milliseconds"}},
		{[]string{"topic", "alter", "orders", "-s", "retention.bytes=1GB", "--brokers", b.Addr}, []string{"INVALID_CONFIG", "retention.bytes is a number of bytes"}},
	} {
		program.Refused(t, x.args, x.words...)
	}
}

// A directory that the user may not write to is named, with what to do.
func TestMayNot(t *testing.T) {
	dir := filepath.Join(filepath.Dir(program.Path), "read-only")
	if err := os.Mkdir(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	for _, data := range []string{dir, filepath.Join(dir, "data")} {
		cmd := exec.Command(program.Path, "serve", "--data-dir", data)
		if os.Geteuid() == 0 { // root may write anywhere
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			if err := os.Chmod(filepath.Dir(program.Path), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "may not write there: choose another --data-dir") {
			t.Errorf("%s: %v\n%s", data, err, out)
		}
	}
}
