package main

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tailbound/tailbound/bench/load"
	"github.com/tailbound/tailbound/bench/trial"
)

func systemNames() []string {
	return []string{"tailbound", "tailbound-groups", "tailbound-wide", "tailbound-groups-wide", "probe", "probe-new", "plain", "plain-nosync", "kafka", "kafka-flush", "kafka-wide", "kafka-flush-wide", "jetstream", "jetstream-sync", "broker@HOST:PORT"}
}

// promise is what a system's acknowledgement means.
func promise(name string) string {
	switch kind, _, _ := variant(name); {
	case isBroker(kind), kind == "probe", kind == "probe-new", kind == "plain", kind == "kafka-flush", kind == "kafka-flush-wide", kind == "jetstream-sync":
		return "on disk"
	case kind == "broker":
		return "as it is set"
	}
	return "page cache"
}

func isJetStream(kind string) bool { return strings.HasPrefix(kind, "jetstream") }

// readsBack says whether a phase with a reader can be driven.
func readsBack(name string) bool {
	kind, _, _ := variant(name)
	return isBroker(kind) || strings.HasPrefix(kind, "kafka") || kind == "broker"
}

// ready asks whether a system serves.
func ready(kind, addr string) error {
	if !isJetStream(kind) {
		return load.Ready(addr)
	}
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	_, err = conn.Read(make([]byte, 4)) // INFO
	return err
}

func isBroker(name string) bool { return strings.HasPrefix(name, "tailbound") }

// variant splits what a system is called: its kind, another binary behind @,
// more arguments of its serve command behind a colon, separated by spaces, as in
// tailbound@/tmp/before:--spin=0s.
func variant(name string) (kind, binary string, args []string) {
	if addr, ok := strings.CutPrefix(name, "broker@"); ok {
		return "broker", addr, nil
	}
	kind, rest, _ := strings.Cut(name, ":")
	kind, binary, _ = strings.Cut(kind, "@")
	return kind, binary, strings.Fields(rest)
}

// valid says what is wrong with a system's name.
func valid(name string) error {
	kind, binary, args := variant(name)
	switch {
	case kind == "broker" && binary != "":
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
	kind, binary, more := variant(name)
	kind, wide := strings.CutSuffix(kind, "-wide") // all cores: a JVM on one suffers
	cpus, beside := []int{o.serverCPU}, []string(nil)
	if wide || o.disturb != "" {
		// What is in its process and is not a shard goes where it likes, as it does
		// where nobody pins the process: on one core it would be a fight for it.
		cpus, beside = nil, []string{"--cpus", strconv.Itoa(o.serverCPU)}
	}
	procs := fmt.Sprintf("GOMAXPROCS=%d", o.serverProc)
	switch kind {
	case "tailbound", "tailbound-groups":
		args := append([]string{"serve", "--data-dir", dir, "--listen", addr, "--shards", "1"}, append(beside, strings.Fields(o.serveArgs)...)...)
		return trial.Spawn(cpus, nil, cmp.Or(binary, o.binary), append(args, more...)...)
	case "probe", "probe-new":
		return trial.Spawn(cpus, []string{procs}, self, "child-probe", addr, dir, kind)
	case "plain":
		return trial.Spawn(cpus, []string{procs}, self, "child-plain", addr, dir, "sync")
	case "plain-nosync":
		return trial.Spawn(cpus, []string{procs}, self, "child-plain", addr, dir, "nosync")
	}
	if kind == "kafka" || kind == "kafka-flush" || isJetStream(kind) {
		return trial.Spawn(cpus, nil, o.peers, append([]string{"serve", kind, addr, dir}, o.properties...)...)
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
