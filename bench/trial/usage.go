package trial

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tailbound/tailbound/bench/load"
	"github.com/tailbound/tailbound/bench/record"
)

// usage is what a system on this machine holds and has written at an instant;
// what is not known is 0.
type usage struct {
	residentMiB float64
	written     int64 // bytes that the disk has written, for any process
}

// watchUsage reads the system's usage where the measured time begins and where
// it ends. The function that it returns waits for both.
func (t *trial) watchUsage(window int64) func() (first, last usage) {
	if !t.observed() {
		return func() (first, last usage) { return }
	}
	got := make(chan usage, 2)
	go func() {
		for _, at := range []int64{window, window + int64(t.Duration)} {
			time.Sleep(time.Duration(at - load.Now()))
			got <- usage{MemoryMiB(t.system.PID, "VmRSS:"), record.DeviceWritten(t.env.Disk)}
		}
	}()
	return func() (first, last usage) { return <-got, <-got }
}

// observed says whether the system is one process of this machine throughout.
func (t *trial) observed() bool { return t.system.PID != 0 && len(t.Restarts) == 0 }

// usageFigures puts the difference of two usages into the page, and what the
// system's process is at the end.
func (t *trial) usageFigures(first, last usage, run *record.Run) {
	add := func(name string, v float64, unit string) {
		run.Figures = append(run.Figures, record.Figure{Name: name, Value: v, Unit: unit})
	}
	if t.system.ReadySeconds > 0 {
		add("ready", t.system.ReadySeconds, "s from its start to its first answer")
	}
	if !t.observed() {
		return
	}
	if first.residentMiB > 0 && last.residentMiB > 0 {
		add("memory", last.residentMiB, "MiB resident at the end")
		add("memory grown", last.residentMiB-first.residentMiB, "MiB since the measured time began")
		add("memory peak", MemoryMiB(t.system.PID, "VmHWM:"), "MiB resident at most since its start")
	}
	produced, _ := run.Figure("MB/s")
	if produced *= 1e6 * t.Duration.Seconds(); first.written > 0 && produced > 0 {
		run.Figures = append(run.Figures, record.Figure{Name: "write amplification", Value: float64(last.written-first.written) / produced, Unit: "bytes that the disk wrote, for any process, to one of a record's value", Ratio: true})
	}
	if names := offCores(t.system.PID, t.system.CPUs); len(names) > 0 {
		run.Notes = append(run.Notes, "threads that may leave its cores: "+strings.Join(names, " "))
	}
}

// MemoryMiB reads one of a process's sizes (proc(5), status); 0: it is not known.
func MemoryMiB(pid int, which string) float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(b), which)
	fields := strings.Fields(after)
	if len(fields) == 0 {
		return 0
	}
	kib, _ := strconv.ParseFloat(fields[0], 64)
	return kib / 1024
}

// offCores names the threads of a process that may run elsewhere than on cpus: a
// system that moves its workers has more cores than it seems to have. No cpus:
// no thread is named.
func offCores(pid int, cpus []int) (names []string) {
	if len(cpus) == 0 {
		return nil
	}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid)) // the pattern is right
	for _, task := range tasks {
		b, err := os.ReadFile(task + "/status")
		if err != nil {
			continue // it has ended meanwhile
		}
		_, after, _ := strings.Cut(string(b), "Cpus_allowed_list:")
		list, _, _ := strings.Cut(strings.TrimSpace(after), "\n")
		if slices.ContainsFunc(cpuList(list), func(cpu int) bool { return !slices.Contains(cpus, cpu) }) {
			name, _ := os.ReadFile(task + "/comm")
			names = append(names, strings.TrimSpace(string(name)))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// cpuList reads a list as the kernel writes it, such as 0-2,5.
func cpuList(text string) (cpus []int) {
	for _, part := range strings.Split(strings.TrimSpace(text), ",") {
		from, to, isRange := strings.Cut(part, "-")
		first, err := strconv.Atoi(from)
		last := first
		if err == nil && isRange {
			last, err = strconv.Atoi(to)
		}
		for cpu := first; err == nil && cpu <= last; cpu++ {
			cpus = append(cpus, cpu)
		}
	}
	return cpus
}
