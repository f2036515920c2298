package load

import (
	"encoding/base64"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Options says what one phase asks of one system.
type Options struct {
	Bootstrap   string
	Topic       string
	Partitions  int
	Connections int
	Inflight    int     // bound per connection
	Rate        float64 // requests per second over all connections; 0: closed loop
	Records     int     // per request
	RecordBytes int
	WarmupNS    int64 // excluded from every figure
	WindowNS    int64 // measured
	DrainNS     int64 // how long answers are waited for after the window
	Consumer    bool  // read the tail on connections of its own
	Keep        int64 // retention.bytes of the topic, in segments of half of it; 0: as the system has it
	ServerPID   int   // its CPU time over the window is read; 0: none
}

// Histogram is nanoseconds, three significant digits; above its top it is
// clamped and counted.
type Histogram struct {
	h     *hdrhistogram.Histogram
	over  int64
	count int64
}

const histogramTopNS = 120e9

func newHistogram() *Histogram { return &Histogram{h: hdrhistogram.New(100, histogramTopNS, 3)} }

func (h *Histogram) record(ns int64) {
	h.count++
	if ns < 0 {
		ns = 0
	}
	if ns > histogramTopNS {
		h.over++
		ns = histogramTopNS
	}
	_ = h.h.RecordValue(ns)
}

// Summary is a Histogram in the result: nanoseconds, and the whole histogram
// as HdrHistogram's V2 compressed encoding in base64.
type Summary struct {
	Count   int64
	P50     int64
	P90     int64
	P99     int64
	P999    int64
	P9999   int64
	Max     int64
	Clamped int64  `json:",omitempty"`
	Raw     string `json:",omitempty"`
}

func (h *Histogram) summary() Summary {
	s := Summary{
		Count:   h.count,
		P50:     h.h.ValueAtQuantile(50),
		P90:     h.h.ValueAtQuantile(90),
		P99:     h.h.ValueAtQuantile(99),
		P999:    h.h.ValueAtQuantile(99.9),
		P9999:   h.h.ValueAtQuantile(99.99),
		Max:     h.h.Max(),
		Clamped: h.over,
	}
	if raw, err := h.h.Encode(hdrhistogram.V2CompressedEncodingCookieBase); err == nil {
		s.Raw = base64.StdEncoding.EncodeToString(raw)
	}
	return s
}

// Result is what one phase showed. All figures are of the window.
type Result struct {
	Offered        float64 // requests per second; 0: closed loop
	Acknowledged   int64   // requests answered inside the window
	RequestsPerSec float64
	MBPerSec       float64  // 1e6 bytes of record values
	Carried        float64  // acknowledged / offered; 1 for a closed loop
	Latency        Summary  // intended send to whole answer
	Lag            Summary  // actual minus intended send, where nothing held it back
	EndToEnd       *Summary `json:",omitempty"`
	EndToEndLost   int64    `json:",omitempty"` // acknowledged in time, never read back

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
