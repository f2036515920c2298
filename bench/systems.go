package main

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"tailbound/bench/trial"
)

func systemNames() []string {
	return []string{"tailbound", "tailbound-groups", "probe", "plain", "plain-nosync"}
}

func isBroker(name string) bool { return strings.HasPrefix(name, "tailbound") }

// variant splits what a system is called: its kind, another binary behind @,
// more arguments of its serve command behind a colon, separated by spaces, as in
// tailbound@/tmp/before:--spin=0s.
func variant(name string) (kind, binary string, args []string) {
	kind, rest, _ := strings.Cut(name, ":")
	kind, binary, _ = strings.Cut(kind, "@")
	return kind, binary, strings.Fields(rest)
}

// valid says what is wrong with a system's name.
func valid(name string) error {
	kind, binary, args := variant(name)
	switch {
	case !slices.Contains(systemNames(), kind):
		return fmt.Errorf("no system %q: there are %s", name, strings.Join(systemNames(), ", "))
	case !isBroker(kind) && (binary != "" || len(args) > 0):
		return fmt.Errorf("system %q: only the broker comes with another binary or more arguments", name)
	}
	return nil
}

// start starts a system that serves addr and keeps its data in dir.
func (o *options) start(name, addr, dir string) (*trial.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	procs := fmt.Sprintf("GOMAXPROCS=%d", o.serverProc)
	kind, binary, more := variant(name)
	switch kind {
	case "tailbound", "tailbound-groups":
		args := append([]string{"serve", "--data-dir", dir, "--listen", addr, "--shards", "1"}, strings.Fields(o.serveArgs)...)
		return trial.Spawn([]int{o.serverCPU}, nil, cmp.Or(binary, o.binary), append(args, more...)...)
	case "probe":
		return trial.Spawn([]int{o.serverCPU}, []string{procs}, self, "child-probe", addr, dir)
	case "plain":
		return trial.Spawn([]int{o.serverCPU}, []string{procs}, self, "child-plain", addr, dir, "sync")
	case "plain-nosync":
		return trial.Spawn([]int{o.serverCPU}, []string{procs}, self, "child-plain", addr, dir, "nosync")
	}
	return nil, fmt.Errorf("no system %q", name)
}

// availableMiB reads what can be taken without hurting anyone.
func availableMiB() int {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(b), "MemAvailable:")
	f := strings.Fields(after)
	if len(f) == 0 {
		return 0
	}
	kib, _ := strconv.Atoi(f[0])
	return kib / 1024
}
