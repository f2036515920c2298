package trial

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"tailbound/bench/load"
	"tailbound/bench/record"
)

// usage is what a system on this machine holds and has written at an instant.
type usage struct {
	resident int64 // bytes of memory
	written  int64 // bytes that the disk has written, for whomever
}

// usageOf reads it; of what is not known it says 0.
func usageOf(pid int, dir string) usage {
	return usage{resident(pid), record.DeviceWritten(dir)}
}

// resident is a process's resident memory in bytes (proc(5), statm).
func resident(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(f[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

// watchUsage reads the system's usage where the measured time begins and where
// it ends. What it gives waits for that.
func (t *trial) watchUsage(window int64) func() (first, last usage) {
	if t.system.PID == 0 || len(t.Restarts) > 0 {
		return func() (first, last usage) { return }
	}
	got := make(chan usage, 2)
	go func() {
		for _, at := range []int64{window, window + int64(t.Duration)} {
			time.Sleep(time.Duration(at - load.Now()))
			got <- usageOf(t.system.PID, t.env.Disk)
		}
	}()
	return func() (first, last usage) { return <-got, <-got }
}

// figuresOf puts the difference of two usages into the page.
func (t *trial) figuresOf(first, last usage, run *record.Run) {
	add := func(name string, v float64, unit string) {
		run.Figures = append(run.Figures, record.Figure{Name: name, Value: v, Unit: unit})
	}
	if first.resident > 0 && last.resident > 0 {
		add("memory", float64(last.resident)/(1<<20), "MiB resident at the end")
		add("memory grown", float64(last.resident-first.resident)/(1<<20), "MiB since the measured time began")
	}
	produced, _ := run.Figure("MB/s")
	if produced *= 1e6 * t.Duration.Seconds(); first.written > 0 && produced > 0 {
		add("write amplification", float64(last.written-first.written)/produced, "bytes that the disk wrote, for whomever, to one of a record's value")
	}
}
