package load

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/bench/record"
)

// Result is what one phase showed. All figures are of the window.
type Result struct {
	Offered        float64 // requests per second; 0: closed loop
	Acknowledged   int64   // requests answered inside the window
	RequestsPerSec float64
	MBPerSec       float64         // 1e6 bytes of record values
	Carried        float64         // acknowledged / offered; 1 for a closed loop
	Latency        record.Summary  // intended send to whole answer
	Lag            record.Summary  // actual minus intended send, where nothing held it back
	EndToEnd       *record.Summary `json:",omitempty"`
	EndToEndLost   int64           `json:",omitempty"` // acknowledged in time, never read back

	Readers []ReaderResult `json:",omitempty"`

	// With Verify: each is a request that the system said is safe and that was
	// not read back, or that was read back more than once.
	Lost       int64 `json:",omitempty"`
	Duplicates int64 `json:",omitempty"`
	Reconnects int64 `json:",omitempty"`

	Held       int64            // requests sent late because the bound or the socket held them
	Unfinished int64            // no answer by the end of the drain; in Latency with what they had waited
	Errors     map[string]int64 `json:",omitempty"`

	GeneratorCPU float64 // share of one CPU
	ServerCPU    float64
	Steal        float64 // share of the whole machine's time that the host took
	// GeneratorLimited says why the figures are the generator's; empty when
	// they are the system's.
	GeneratorLimited string `json:",omitempty"`
}

// ReaderResult is what a group of readers did.
type ReaderResult struct {
	Name       string
	Count      int
	MBPerSec   float64 // of all of them, within the window
	Age        record.Summary
	CaughtUpNS int64 `json:",omitempty"` // from its begin to the tail, the last of them; -1: not within the run
}

// Usage is what processes have used of the machine at an instant.
type Usage struct{ own, server, steal, all, at int64 }

// ReadUsage reads it: of this process, of the system's (0: not known), of the
// machine.
func ReadUsage(pid int) Usage {
	u := Usage{at: Now()}
	var self unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &self) == nil {
		u.own = self.Utime.Nano() + self.Stime.Nano()
	}
	if pid != 0 {
		u.server = cpuTicks(strconv.Itoa(pid))
	}
	u.steal, u.all = machineTicks()
	return u
}

// Until puts what was used until last into a result, and says whether the
// generator made its figures.
func (u Usage) Until(last Usage, r *Result) {
	elapsed := float64(last.at - u.at)
	r.GeneratorCPU = float64(last.own-u.own) / elapsed
	r.ServerCPU = float64(last.server-u.server) * 1e7 / elapsed
	if all := last.all - u.all; all > 0 {
		r.Steal = float64(last.steal-u.steal) / float64(all)
	}
	r.judge()
}

// judge says whether the generator, not the system, made the figures.
func (r *Result) judge() {
	switch {
	case r.GeneratorCPU >= 0.95:
		r.GeneratorLimited = fmt.Sprintf("generator used %.0f %% of its CPU", r.GeneratorCPU*100)
	case r.Offered == 0:
	case r.Lag.P50 > r.Latency.P50/4:
		r.GeneratorLimited = "its lag is above a quarter of the median"
	case r.Lag.P99 > r.Latency.P99/2:
		r.GeneratorLimited = "its lag is above half of the p99"
	}
}

// cpuTicks reads the user and system time of a process, in clock ticks of
// 10 ms (proc(5)).
func cpuTicks(pid string) int64 {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return 0
	}
	s := string(b)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	return user + system
}

// machineTicks reads the machine's stolen time and all of its time.
func machineTicks() (steal, all int64) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	for i, f := range strings.Fields(line) {
		v, _ := strconv.ParseInt(f, 10, 64)
		if i >= 1 && i <= 8 { // user nice system idle iowait irq softirq steal
			all += v
		}
		if i == 8 {
			steal = v
		}
	}
	return steal, all
}
