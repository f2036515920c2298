package main

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tailbound/tailbound/cmd/tailbound/program"
)

// systemd is told of readiness, then that all is well as long as it is, then of the
// stop.
func TestNotices(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	cmd := exec.Command(program.Path, "serve", "--data-dir", t.TempDir(), "--listen", "127.0.0.1:0", "--shards", "1", "--arena", "64MiB", "--buffered")
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=150000")
	log := &program.Output{}
	cmd.Stdout, cmd.Stderr = log, log
	var told []string
	next := func() {
		socket.SetReadDeadline(time.Now().Add(30 * time.Second))
		b := make([]byte, 1024)
		n, err := socket.Read(b)
		if err != nil {
			t.Fatalf("told %q, then: %v\n%s", told, err, log)
		}
		told = append(told, string(b[:n]))
	}
	stop := program.RunUntil(t, cmd, func() bool { return strings.Contains(log.String(), "control") })
	for range 3 {
		next()
	}
	if err := stop(); err != nil {
		t.Errorf("%v\n%s", err, log)
	}
	for !slices.Contains(told, "STOPPING=1") {
		next()
	}
	if told[0] != "READY=1" || told[1] != "WATCHDOG=1" || told[2] != "WATCHDOG=1" {
		t.Errorf("told %q", told)
	}
}

// This version reads the example in the tarball and the unit's settings.
func TestUnit(t *testing.T) {
	text, err := os.ReadFile("packaging/tailbound.service")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		for _, prefix := range []string{"ExecStart=/usr/bin/tailbound ", "ExecStartPre=/usr/bin/tailbound "} {
			words, ok := strings.CutPrefix(line, prefix)
			if !ok {
				continue
			}
			words = strings.ReplaceAll(strings.TrimSpace(words), "/etc/tailbound/tailbound.yaml", writeConfig(t, program.Must(t, "", "config", "example")))
			args := strings.Fields(words)
			if args[0] == "serve" {
				args = append(args, "--print-config")
			}
			program.Must(t, "", args...)
		}
	}
	if !strings.Contains(string(text), "LimitMEMLOCK=infinity") {
		t.Error("arenas are locked; the unit has to allow it")
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("no systemd-analyze to ask")
	}
	unit := filepath.Join(t.TempDir(), "tailbound.service")
	if err := os.WriteFile(unit, []byte(strings.ReplaceAll(string(text), "/usr/bin/tailbound", program.Path)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(analyze, "verify", unit).CombinedOutput(); err != nil || strings.Contains(string(out), "tailbound.service") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// The bill of materials has every module that is in the program, as go.mod has
// it, and is the same for the program and for its file.
func TestMaterials(t *testing.T) {
	out := program.Must(t, "", "version", "--sbom")
	if of := program.Must(t, "", "version", "--sbom", program.Path); of != out {
		t.Errorf("of its file it says\n%s\nof itself\n%s", of, out)
	}
	var b billOfMaterials
	if err := json.Unmarshal([]byte(out), &b); err != nil || b.Format != "CycloneDX" || b.Metadata.Component.Name != "tailbound" {
		t.Fatalf("%v\n%s", err, out)
	}
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	has := map[string]bool{}
	for _, c := range b.Components {
		has[c.Name] = true
		if c.Name != "std" && (!strings.Contains(string(mod), c.Name+" "+c.Version) || len(c.Hashes) != 1) {
			t.Errorf("%+v is not in go.mod, or has no checksum", c)
		}
	}
	for _, name := range []string{"std", "github.com/twmb/franz-go", "github.com/spf13/cobra", "golang.org/x/sys"} {
		if !has[name] {
			t.Errorf("%s is not in it", name)
		}
	}
	program.Refused(t, []string{"version", "--sbom", "../../go.mod"}, "go.mod")
	program.Refused(t, []string{"version", "x"}, "--sbom")
}

func TestCompletion(t *testing.T) {
	b := program.Start(t)
	program.Must(t, "", "topic", "create", "orders", "audit", "--brokers", b.Addr)
	for _, x := range []struct {
		args []string
		want []string
	}{
		{[]string{"topic", "describe", "--brokers", b.Addr, "or"}, []string{"orders"}},
		{[]string{"topic", "delete", "--brokers", b.Addr, "orders", ""}, []string{"audit"}},
		{[]string{"consume", "--brokers", "127.0.0.1:1", ""}, nil},
		{[]string{"top"}, []string{"topic"}},
	} {
		out := program.Must(t, "", append([]string{"__complete"}, x.args...)...)
		var got []string
		for line := range strings.Lines(out) {
			if name, _, _ := strings.Cut(strings.TrimSpace(line), "\t"); name != "" && !strings.HasPrefix(name, ":") {
				got = append(got, name)
			}
		}
		if !slices.Equal(got, x.want) {
			t.Errorf("%q completes to %q, want %q", x.args, got, x.want)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if out := program.Must(t, "", "completion", shell); len(out) < 1000 {
			t.Errorf("%s: %d bytes", shell, len(out))
		}
	}
}
