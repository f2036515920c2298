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
		{serve("--arena", "900TiB"), []string{"more than this machine gives", "smaller --arena"}},
		{[]string{"config", "check", written(t, "data-dir: /d\narena: 900TiB\n")}, []string{"more than this machine gives", "smaller --arena"}},
		{[]string{"consume", "", "--brokers", b.Addr}, []string{"tailbound consume TOPIC", "is empty"}},
		{[]string{"consume", "orders", "", "--brokers", b.Addr}, []string{"is empty"}},
		{[]string{"consume", "orders", "-g", "", "--brokers", b.Addr}, []string{"--group is empty"}},
		{[]string{"consume", "orders", "--from", "1x", "--brokers", b.Addr}, []string{`--from "1x": it is start, end,`}},
		{[]string{"produce", "", "--create", "--brokers", b.Addr}, []string{"tailbound produce TOPIC", "is empty"}},
		{[]string{"topic", "alter", "", "-s", "retention.ms=1", "--brokers", b.Addr}, []string{"is empty"}},
		{[]string{"topic", "purge", "", "--brokers", b.Addr}, []string{"is empty"}},
		{[]string{"topic", "delete", "", "--brokers", b.Addr}, []string{"is empty"}},
		{[]string{"group", "describe", "", "--brokers", b.Addr}, []string{"is empty"}},
		{[]string{"group", "reset", "g", "--to", "end", "--topic", ":0", "--brokers", b.Addr}, []string{"--topic", "TOPIC:PARTITION"}},
		{[]string{"group", "offsets", "import", "g", written(t, ",0,5\n"), "--brokers", b.Addr}, []string{":1:", "TOPIC,PARTITION,OFFSET"}},
		{[]string{"check", ""}, []string{"is empty"}},
	} {
		program.Refused(t, x.args, x.words...)
	}
	// As many receive buffers as can be numbered, where the arena has room for more.
	program.Must(t, "", "serve", "--data-dir", t.TempDir(), "--arena", "1GiB", "--receive-buffer", "4KiB", "--print-memory")
}

// written is the name of a file with some text.
func written(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// A byte order mark, as some editors begin a file with, is no part of its text.
func TestByteOrderMarks(t *testing.T) {
	const mark = "\ufeff"
	program.Must(t, "", "config", "check", written(t, mark+"shards: 1\ndata-dir: /d\n"))
	program.Must(t, "", "config", "check", written(t, mark))
	program.Refused(t, []string{"config", "check", written(t, mark+"shard: 1\ndata-dir: /d\n")}, ":1:1: there is no setting shard; did you mean shards?")
	program.Refused(t, []string{"config", "check", written(t, "\xff\xfes\x00h\x00")}, "it is UTF-16; save it as UTF-8")
	b := program.Start(t)
	program.Must(t, "", "topic", "create", "orders", "--brokers", b.Addr)
	program.Must(t, mark+`{"value": "first"}`+"\n", "produce", "orders", "-f", "json", "--brokers", b.Addr)
	program.Must(t, "", "group", "offsets", "import", "g", written(t, mark+"orders,0,1\n"), "--brokers", b.Addr)
	if out := program.Must(t, "", "group", "offsets", "export", "g", "--brokers", b.Addr); out != "orders,0,1\n" {
		t.Errorf("offsets: %q", out)
	}
	program.Must(t, mark+"a line\n", "produce", "orders", "--brokers", b.Addr) // of bytes, which are kept
	if out := program.Must(t, "", "consume", "orders", "-e", "--brokers", b.Addr); out != "first\n"+mark+"a line\n" {
		t.Errorf("records: %q", out)
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
