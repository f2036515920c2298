package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/cmd/tailbound/program"
)

// TestReload: SIGHUP has a broker read its file again; the log says what changed, what needs a restart, and what is wrong, and then nothing changes.
func TestReload(t *testing.T) {
	dir := t.TempDir()
	config := writeConfig(t, "")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fixed := "data-dir: " + dir + "\nlisten: 127.0.0.1:0\nshards: 1\narena: 96MiB\nbuffered: true\n"
	write(fixed + "group-max-size: 100\n")
	cmd := exec.Command(program.Path, "serve", "--config", config, "--num-partitions", "2")
	cmd.Env = append(os.Environ(), "TAILBOUND_OFFSETS_RETENTION=2h")
	log := &program.Output{}
	cmd.Stdout, cmd.Stderr = log, log
	stop := program.RunUntil(t, cmd, func() bool { return strings.Contains(log.String(), "io_uring") })
	addr := regexp.MustCompile(`control   node 0  (\S+)`).FindStringSubmatch(log.String())[1]

	described := func(name string) string {
		t.Helper()
		client, err := kgo.NewClient(kgo.SeedBrokers(addr))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		got, err := kadm.NewClient(client).DescribeBrokerConfigs(ctx, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range got[0].Configs {
			if c.Key == name {
				return c.MaybeValue()
			}
		}
		t.Fatalf("%s is not described", name)
		return ""
	}
	// reload has the broker read the file, and returns what the broker logs of it, up to the line that has the last word.
	reload := func(last string) string {
		t.Helper()
		before := len(log.String())
		cmd.Process.Signal(unix.SIGHUP)
		program.Await(t, func() bool { return strings.Contains(log.String()[before:], last) })
		return log.String()[before:]
	}
	says := func(said string, words ...string) {
		t.Helper()
		for _, w := range words {
			if !strings.Contains(said, w) {
				t.Errorf("it says nothing of %q:\n%s", w, said)
			}
		}
	}

	write(fixed + "group-max-size: 7\nauto-create-topics: false\nmax-connections: 500\nnum-partitions: 9\noffsets-retention: 5h\n")
	says(reload("configuration reloaded"), "setting=group-max-size from=100 to=7", "setting=auto-create-topics from=true to=false",
		"setting=max-connections in_force=4096 in_file=500", "changed=2 need_restart=1")
	for name, want := range map[string]string{"group.max.size": "7", "auto.create.topics.enable": "false", "max.connections": "4096",
		"num.partitions": "2", "offsets.retention.minutes": "120"} { // of the flag, and of the variable
		if got := described(name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}

	// Everything that reloads.
	all := map[string]struct{ value, kafka, described string }{
		"log-level": {value: "debug"}, "log-format": {value: "text"},
		"auto-create-topics":               {"false", "auto.create.topics.enable", "false"},
		"num-partitions":                   {"9", "num.partitions", "2"}, // the flag's
		"max-connections-per-ip":           {"90", "max.connections.per.ip", "90"},
		"max-connections-per-ip-overrides": {"10.1.2.3:7", "max.connections.per.ip.overrides", "10.1.2.3:7"},
		"retention-check-interval":         {"3s", "log.retention.check.interval.ms", "3000"},
		"group-initial-rebalance-delay":    {"20ms", "group.initial.rebalance.delay.ms", "20"},
		"group-min-session-timeout":        {"2s", "group.min.session.timeout.ms", "2000"},
		"group-max-session-timeout":        {"20m", "group.max.session.timeout.ms", "1200000"},
		"groups-max":                       {value: "9000"},
		"group-max-size":                   {"7", "group.max.size", "7"},
		"group-consumer-migration-policy":  {"upgrade", "group.consumer.migration.policy", "upgrade"},
		"offsets-retention":                {"5h", "offsets.retention.minutes", "120"}, // the variable's
	}
	text := fixed
	for _, m := range regexp.MustCompile(`(?m)^# \S+; reloads\n#([a-z-]+):`).FindAllStringSubmatch(program.Must(t, "", "config", "example"), -1) {
		setting, ok := all[m[1]]
		if !ok {
			t.Fatalf("%s reloads, and this test does not reload it", m[1])
		}
		text += m[1] + ": " + setting.value + "\n"
	}
	write(text)
	says(reload("configuration reloaded"), "configuration reloaded")
	for name, setting := range all {
		if setting.kafka != "" {
			if got := described(setting.kafka); got != setting.described {
				t.Errorf("%s is %s, want %s", name, got, setting.described)
			}
		}
	}

	write(fixed + "group-max-size: none\nno-such-setting: 1\n")
	says(reload("no-such-setting"), "not reloaded", config+":6:1", "group-max-size")
	if got := described("group.max.size"); got != "7" {
		t.Errorf("after a file with errors group.max.size is %s", got)
	}
	os.Rename(config, config+".gone")
	says(reload("not reloaded"), config)
	os.Rename(config+".gone", config)

	// Data shards act on it too. Connections that are open stay open.
	data := regexp.MustCompile(`shard 1 +node 1  (\S+)`).FindStringSubmatch(log.String())[1]
	write(fixed + "max-connections-per-ip: 3\n")
	open := dialAll(t, data, 5)
	reload("configuration reloaded")
	program.Await(t, func() bool { return closed(dialAll(t, data, 1)[0]) })
	for i, conn := range open {
		if closed(conn) {
			t.Errorf("connection %d, which was open before the limit, is closed", i)
		}
		conn.Close()
	}
	program.Await(t, func() bool {
		conns := dialAll(t, data, 5)
		count := 0
		for _, conn := range conns {
			if !closed(conn) {
				count++
			}
		}
		for _, conn := range conns {
			conn.Close()
		}
		return count == 3
	})

	// What contradicts a setting that needs a restart is refused as a whole.
	write(fixed + "partitions-max: 9000\ngroup-max-session-timeout: 1ms\n")
	says(reload("not reloaded"), "group-max-session-timeout")

	write(fixed + "group-max-size: 7\nauto-create-topics: false\nlog-format: json\nlog-level: warn\n")
	says(reload("configuration reloaded"), "setting=log-format", "setting=log-level")
	before := len(log.String())
	write(fixed + "group-max-size: 8\nauto-create-topics: false\nlog-format: json\n")
	says(reload(`"msg":"configuration reloaded"`), `"changed":2`)
	if strings.Contains(log.String()[before:], "level=") {
		t.Errorf("the format has not changed:\n%s", log.String()[before:])
	}
	if got := described("group.max.size"); got != "8" {
		t.Errorf("group.max.size is %s, want 8", got)
	}
	if err := stop(); err != nil {
		t.Errorf("%v\n%s", err, log)
	}
}

// TestReloadWithoutAFile: SIGHUP ends no broker, and one without a file says so.
func TestReloadWithoutAFile(t *testing.T) {
	b := program.Start(t)
	b.Signal(unix.SIGHUP)
	program.Await(t, func() bool { return strings.Contains(b.Log.String(), "--config names no file") })
	program.Must(t, "", "topic", "create", "orders", "--brokers", b.Addr)
}

// TestClosedTerminal: a broker that was started from a terminal stops cleanly when that closes, with and without a shell between them; with nohup it goes on.
// SIGHUP while the terminal is there is a reload.
func TestClosedTerminal(t *testing.T) {
	for _, x := range []struct {
		name  string
		shell string // a command, with % for the program's; "": no shell
		goes  bool   // it is not to stop
	}{{name: "no shell"}, {name: "in the foreground of a shell", shell: "%; true"}, {name: "nohup", shell: "nohup %; true", goes: true}} {
		t.Run(x.name, func(t *testing.T) {
			dir := t.TempDir()
			master, slave := openTerminal(t)
			words := []string{program.Path, "serve", "--data-dir", dir, "--listen", "127.0.0.1:0", "--shards", "1", "--arena", "96MiB", "--buffered"}
			log, err := os.Create(dir + ".log")
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			said := func() string {
				text, err := os.ReadFile(log.Name())
				if err != nil {
					t.Fatal(err)
				}
				return string(text)
			}
			cmd := exec.Command(words[0], words[1:]...)
			if x.shell != "" {
				cmd = exec.Command("bash", "-c", strings.ReplaceAll(x.shell, "%", strings.Join(words, " ")))
			}
			cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, log, log // that of the terminal could not be read once it has gone
			cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			slave.Close()
			t.Cleanup(func() { cmd.Wait() })
			program.Await(t, func() bool { return strings.Contains(said(), "io_uring") })
			pid := holder(t, dir)
			t.Cleanup(func() { unix.Kill(pid, unix.SIGKILL) })
			unix.Kill(pid, unix.SIGHUP)
			program.Await(t, func() bool { return strings.Contains(said(), "--config names no file") })
			master.Close()
			if x.goes {
				unix.Kill(pid, unix.SIGHUP)
				program.Await(t, func() bool { return strings.Count(said(), "--config names no file") > 1 })
				unix.Kill(pid, unix.SIGTERM)
			}
			program.Await(t, func() bool { return strings.Contains(said(), "stopped cleanly") })
			if !x.goes && !strings.Contains(said(), "signal=hangup") {
				t.Errorf("it has stopped for another reason:\n%s", said())
			}
		})
	}
}

// dialAll connects so many times.
func dialAll(t *testing.T, addr string, count int) (all []net.Conn) {
	t.Helper()
	for range count {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		all = append(all, conn)
	}
	return all
}

// closed says that the broker has closed a connection, or closes it soon.
func closed(conn net.Conn) bool {
	conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	_, err := conn.Read(make([]byte, 1))
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// openTerminal makes a terminal: master is its end, whose Close is the hang-up.
func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Skip(err)
	}
	return master, slave
}

// holder is the process that serves a data directory.
func holder(t *testing.T, dir string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "LOCK"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}
