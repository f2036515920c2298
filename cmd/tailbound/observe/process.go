package observe

import (
	"bufio"
	"math"
	"os"
	rtm "runtime/metrics"
	"strconv"
	"strings"
)

// ProcessProfile is the resources that the process as a whole uses. The JSON names
// are kept from version to version.
type ProcessProfile struct {
	HeapAllocsObjects    uint64       `json:"heap_allocs_objects"` // since the start: /gc/heap/allocs:objects
	HeapAllocsBytes      uint64       `json:"heap_allocs_bytes"`
	ProfileAllocsObjects uint64       `json:"profile_allocs_objects"` // of those, by answering questions
	HeapLiveBytes        uint64       `json:"heap_live_bytes"`        // after the last collection
	HeapLimitBytes       uint64       `json:"heap_limit_bytes"`       // of what Go's runtime has mapped: reaching it starts a collection
	HeapBytes            uint64       `json:"heap_bytes"`             // live objects, and dead ones not collected yet
	GoBytes              uint64       `json:"go_bytes"`               // all memory that Go's runtime has mapped; arenas are not part of it
	GCCycles             uint64       `json:"gc_cycles"`
	GCPauses             PauseSummary `json:"gc_pauses"`
	Goroutines           uint64       `json:"goroutines"`
	RSSBytes             uint64       `json:"rss_bytes"` // with the arenas
	RSSPeakBytes         uint64       `json:"rss_peak_bytes"`
	LockedBytes          uint64       `json:"locked_bytes"`
	Threads              uint64       `json:"threads"`
}

// PauseSummary summarises the runtime's histogram of pauses: each value is the
// upper end of its bucket.
type PauseSummary struct {
	Count  uint64 `json:"count"`
	P50NS  int64  `json:"p50_ns"`
	P90NS  int64  `json:"p90_ns"`
	P99NS  int64  `json:"p99_ns"`
	P999NS int64  `json:"p999_ns"`
	MaxNS  int64  `json:"max_ns"`
}

func heapAllocs() uint64 {
	s := []rtm.Sample{{Name: "/gc/heap/allocs:objects"}}
	rtm.Read(s)
	return s[0].Value.Uint64()
}

// ReadProcess reads them now. Without /proc what is read there is 0.
func ReadProcess() (process ProcessProfile) {
	numbers := []struct {
		name string
		to   *uint64
	}{
		{"/gc/heap/allocs:objects", &process.HeapAllocsObjects},
		{"/gc/heap/allocs:bytes", &process.HeapAllocsBytes},
		{"/gc/heap/live:bytes", &process.HeapLiveBytes},
		{"/gc/gomemlimit:bytes", &process.HeapLimitBytes},
		{"/memory/classes/heap/objects:bytes", &process.HeapBytes},
		{"/memory/classes/total:bytes", &process.GoBytes},
		{"/gc/cycles/total:gc-cycles", &process.GCCycles},
		{"/sched/goroutines:goroutines", &process.Goroutines},
		{"/sched/pauses/total/gc:seconds", nil},
	}
	samples := make([]rtm.Sample, len(numbers))
	for i, n := range numbers {
		samples[i].Name = n.name
	}
	rtm.Read(samples)
	for i, n := range numbers {
		switch samples[i].Value.Kind() {
		case rtm.KindUint64:
			*n.to = samples[i].Value.Uint64()
		case rtm.KindFloat64Histogram:
			process.GCPauses = summarizePauses(samples[i].Value.Float64Histogram())
		}
	}
	file, err := os.Open("/proc/self/status")
	if err != nil {
		return process // no /proc: the rest is still true
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ":")
		number, _, _ := strings.Cut(strings.TrimSpace(value), " ")
		v, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			continue
		}
		switch name {
		case "VmRSS":
			process.RSSBytes = v << 10
		case "VmHWM":
			process.RSSPeakBytes = v << 10
		case "VmLck":
			process.LockedBytes = v << 10
		case "Threads":
			process.Threads = v
		}
	}
	return process
}

func summarizePauses(histogram *rtm.Float64Histogram) (summary PauseSummary) {
	for _, n := range histogram.Counts {
		summary.Count += n
	}
	upTo := func(part float64) int64 {
		want, n := uint64(math.Ceil(part*float64(summary.Count))), uint64(0)
		for i, c := range histogram.Counts {
			if n += c; n >= want && n > 0 {
				end := histogram.Buckets[i+1]
				if math.IsInf(end, 1) {
					end = histogram.Buckets[i]
				}
				return int64(end * 1e9)
			}
		}
		return 0
	}
	summary.P50NS, summary.P90NS, summary.P99NS, summary.P999NS, summary.MaxNS = upTo(0.5), upTo(0.9), upTo(0.99), upTo(0.999), upTo(1)
	return summary
}
