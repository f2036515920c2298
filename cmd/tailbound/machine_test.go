package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tailbound/tailbound/broker"
)

// The memory that a process may have is the least of what the machine has and of the
// limits of the control groups around it.
func TestMemoryGiven(t *testing.T) {
	machine := memoryGiven(t.TempDir())
	for name, c := range map[string]struct {
		files map[string]string
		want  uint64
	}{
		"version 2":                 {map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/memory.max": "200000000\n"}, 200000000},
		"version 2, in a container": {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "300000000\n"}, 300000000},
		"version 1":                 {map[string]string{"proc/self/cgroup": "5:cpu:/x\n4:memory,other:/docker/x\n0::/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "100000000\n"}, 100000000},
		"version 1, no limit":       {map[string]string{"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, machine},
		"none":                      {nil, machine},
	} {
		root := t.TempDir()
		for path, text := range c.files {
			path = filepath.Join(root, path)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got := memoryGiven(root); got != c.want {
			t.Errorf("%s: %d bytes, want %d", name, got, c.want)
		}
	}
	options := broker.Defaults()
	options.DataShards = 2
	if got := shortOfMemory(options, 500<<20); !strings.Contains(got, "608 MiB") || !strings.Contains(got, "500 MiB") || !strings.Contains(got, "--arena") {
		t.Errorf("608 MiB of arenas where 500 MiB are given: %q", got)
	}
	if got := shortOfMemory(options, 608<<20); got != "" {
		t.Errorf("arenas that fit: %q", got)
	}
}
