package main

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/broker"
	"github.com/tailbound/tailbound/cmd/tailbound/settings"
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
