package trial

import (
	"time"

	"github.com/tailbound/tailbound/bench/load"
	"github.com/tailbound/tailbound/bench/record"
)

// usage is what a system on this machine holds and has written at an instant;
// what is not known is 0.
type usage struct {
	residentMiB float64
	written     int64 // bytes that the disk has written, for whomever
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
			got <- usage{memoryMiB(t.system.PID, "VmRSS:"), record.DeviceWritten(t.env.Disk)}
		}
	}()
	return func() (first, last usage) { return <-got, <-got }
}

// figuresOf puts the difference of two usages into the page.
func (t *trial) figuresOf(first, last usage, run *record.Run) {
	add := func(name string, v float64, unit string) {
		run.Figures = append(run.Figures, record.Figure{Name: name, Value: v, Unit: unit})
	}
	if first.residentMiB > 0 && last.residentMiB > 0 {
		add("memory", last.residentMiB, "MiB resident at the end")
		add("memory grown", last.residentMiB-first.residentMiB, "MiB since the measured time began")
	}
	produced, _ := run.Figure("MB/s")
	if produced *= 1e6 * t.Duration.Seconds(); first.written > 0 && produced > 0 {
		run.Figures = append(run.Figures, record.Figure{Name: "write amplification", Value: float64(last.written-first.written) / produced, Unit: "bytes that the disk wrote, for whomever, to one of a record's value", Ratio: true})
	}
}
