package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/broker"
	"github.com/tailbound/tailbound/cmd/tailbound/settings"
	"github.com/tailbound/tailbound/cmd/tailbound/term"
)

// allowedCPUs are the CPUs that this process may use.
func allowedCPUs() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("which CPUs this process may use: %w", err)
	}
	var all []int
	for i := range 1024 {
		if set.IsSet(i) {
			all = append(all, i)
		}
	}
	return all, nil
}

// placeCPUs divides the CPUs: data has those for data shards, other the rest. list is
// --cpus. Without it shards are pinned only if every one gets a CPU of its own and
// one is left over; both are nil if not.
func placeCPUs(list string, allowed []int, shards int) (data, other []int, err error) {
	if list == "" {
		if len(allowed) <= shards {
			return nil, nil, nil
		}
		first := len(allowed) - shards
		return allowed[first:], allowed[:first], nil
	}
	if data, err = settings.ParseCPUs(list); err != nil {
		return nil, nil, fmt.Errorf("--cpus %w", err)
	}
	for _, cpu := range allowed {
		if !slices.Contains(data, cpu) {
			other = append(other, cpu)
		}
	}
	return data, other, nil
}

// raiseFilesLimit raises the number of files that this process may open to the hard
// limit, and that too if it is not enough for the broker.
func raiseFilesLimit(options broker.Options) error {
	need, err := broker.FilesNeeded(options)
	if err != nil {
		return err
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("RLIMIT_NOFILE: %w", err)
	}
	limit.Cur = limit.Max
	if limit.Max < uint64(need) { // to raise both takes CAP_SYS_RESOURCE
		limit.Cur, limit.Max = uint64(need), uint64(need)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
		return fmt.Errorf("--max-connections %d needs %d files, and the hard limit is %d: raise it (ulimit -Hn, LimitNOFILE= of a systemd unit), or take fewer connections", options.ConnsMax, need, limit.Max)
	}
	return nil
}

// memoryGiven is how much memory this process may have: the machine's, or the limit of a
// control group around it where that is less. root is "/", but for tests.
func memoryGiven(root string) uint64 {
	given := uint64(math.MaxUint64)
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		given = info.Totalram * uint64(info.Unit)
	}
	groups, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return given // no control groups
	}
	for line := range strings.Lines(string(groups)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) < 3 {
			continue
		}
		at, file := "sys/fs/cgroup", "memory.max"
		if slices.Contains(strings.Split(fields[1], ","), "memory") { // version 1
			at, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		} else if fields[1] != "" {
			continue
		}
		for path := filepath.Clean("/" + fields[2]); ; path = filepath.Dir(path) {
			// In a container the path can be one of the host; its own group is then the root.
			limit, err := os.ReadFile(filepath.Join(root, at, path, file))
			if err == nil {
				if n, err := strconv.ParseUint(strings.TrimSpace(string(limit)), 10, 64); err == nil { // else it is "max"
					given = min(given, n)
				}
			}
			if path == "/" {
				break
			}
		}
	}
	return given
}

// shortOfMemory is what to tell the operator if the arenas do not fit the memory that is
// given. They become resident as they are used, so a start does not show it.
func shortOfMemory(options broker.Options, given uint64) string {
	plan, err := broker.Plan(options)
	if err != nil {
		return "" // the start has failed already
	}
	arenas := 0
	for _, m := range plan {
		arenas += m.ArenaBytes
	}
	if uint64(arenas) <= given {
		return ""
	}
	return fmt.Sprintf("the arenas of all shards are %s and this process may have %s of memory: when more is used, the kernel ends the broker; give it a smaller --arena (--print-memory shows what takes how much)",
		term.BinaryBytes(arenas), term.BinaryBytes(int(given)))
}
