package settings

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func TestRank(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tailbound.yaml")
	if err := os.WriteFile(path, []byte("# a comment\nshards: 3\ncpus: [1, 2-4]\narena: 128MiB\nlog-level: debug\nbuffered: true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	s := Define(flags)
	if err := flags.Parse([]string{"--shards", "5"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Read(path, []string{"TAILBOUND_SHARDS=4", "TAILBOUND_ARENA=64MiB", "TAILBOUND_DATA_DIR=/data"}); err != nil {
		t.Fatal(err)
	}
	if s.Shards != 5 || s.CPUs != "1,2-4" || s.Arena != 64<<20 || s.LogLevel != "debug" || !s.Buffered || s.DataDir != "/data" || s.LogFormat != "text" {
		t.Errorf("in force: %+v", s.Values)
	}
	for name, want := range map[string]string{"shards": "--shards", "arena": "TAILBOUND_ARENA", "cpus": path + ":3:1", "data-dir": "TAILBOUND_DATA_DIR", "log-format": ""} {
		if s.from[name] != want {
			t.Errorf("%s is from %q, want %q", name, s.from[name], want)
		}
	}
}

func TestMisspelledVariables(t *testing.T) {
	lines := Misspelled([]string{"TAILBOUND_SHARD=2", "TAILBOUND_SHARDS=2", "TAILBOUND_PORT_9092_TCP=x", "TAILBOUND_BROKERS=x", "HOME=/"})
	if len(lines) != 1 || !strings.Contains(lines[0], "TAILBOUND_SHARD is no setting") || !strings.Contains(lines[0], "TAILBOUND_SHARDS?") {
		t.Errorf("%q", lines)
	}
}
