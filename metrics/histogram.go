package metrics

import (
	"github.com/HdrHistogram/hdrhistogram-go"
)

// The range of a Histogram in ns. Values below LowestNS share the first buckets (64 ns
// wide); values above TopNS are recorded as TopNS and counted as Above.
const (
	LowestNS int64 = 100
	TopNS    int64 = 60e9
)

const significantDigits = 2

// Histogram is the distribution of a duration, to two significant digits. It takes
// 24 KiB. It has one writer, and no reader while it is written.
type Histogram struct {
	hdr   *hdrhistogram.Histogram
	above int64 // values above TopNS; they are in hdr too, as TopNS
	sum   int64 // ns, exact
	max   int64 // ns, exact

	// The last value, and how often it was recorded in a row, are not in the other
	// fields yet: requests that shared a turn and a frame took equally long.
	last, times int64
}

// NewHistogram returns an empty histogram.
func NewHistogram() *Histogram {
	return &Histogram{hdr: hdrhistogram.New(LowestNS, TopNS, significantDigits)}
}

// Record adds one duration. A negative one (two clocks that differ slightly) counts
// as 0.
func (h *Histogram) Record(ns int64) {
	if ns != h.last {
		h.settle()
		h.last = ns
	}
	h.times++
}

// settle counts the last value. It does not allocate: the library allocates for values
// out of range, so none is passed to it.
func (h *Histogram) settle() {
	if h.times == 0 {
		return
	}
	ns := max(h.last, 0)
	h.sum += ns * h.times
	h.max = max(h.max, ns)
	if ns > TopNS {
		h.above += h.times
		ns = TopNS
	}
	if h.hdr.RecordValues(ns, h.times) != nil {
		panic("metrics: a value inside the range was refused")
	}
	h.times = 0
}

// Count returns how many durations were recorded.
func (h *Histogram) Count() int64 { return h.hdr.TotalCount() + h.times }

// SumNS returns their sum.
func (h *Histogram) SumNS() int64 {
	h.settle()
	return h.sum
}

// Quantile returns the duration in ns that percent (0 to 100) of them do not exceed.
func (h *Histogram) Quantile(percent float64) int64 {
	h.settle()
	return h.hdr.ValueAtPercentile(percent)
}

// Add adds the durations of o.
func (h *Histogram) Add(o *Histogram) {
	o.settle()
	h.settle()
	if h.hdr.Merge(o.hdr) != 0 {
		panic("metrics: a merge of equal ranges dropped values")
	}
	h.above += o.above
	h.sum += o.sum
	h.max = max(h.max, o.max)
}

// Encode returns HdrHistogram's V2 compressed encoding in base64, as in its interval
// logs. It allocates.
func (h *Histogram) Encode() ([]byte, error) {
	h.settle()
	return h.hdr.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
}

// Reset empties it.
func (h *Histogram) Reset() {
	h.hdr.Reset()
	h.above, h.sum, h.max, h.times = 0, 0, 0, 0
}

// Summary is a histogram in a few numbers, durations in ns.
type Summary struct {
	Count  int64   `json:"count"`
	MeanNS float64 `json:"mean_ns"`
	P50NS  int64   `json:"p50_ns"`
	P90NS  int64   `json:"p90_ns"`
	P99NS  int64   `json:"p99_ns"`
	P999NS int64   `json:"p999_ns"`
	MaxNS  int64   `json:"max_ns"` // exact
	Above  int64   `json:"above"`  // how many exceeded TopNS
}

// Summary computes the summary. It allocates, so a shard's turn must not call it.
func (h *Histogram) Summary() Summary {
	h.settle()
	s := Summary{Count: h.Count(), MaxNS: h.max, Above: h.above}
	if s.Count == 0 {
		return s
	}
	s.MeanNS = float64(h.sum) / float64(s.Count)
	q := h.hdr.ValueAtPercentilesSlice([]float64{50, 90, 99, 99.9})
	for i, at := range []*int64{&s.P50NS, &s.P90NS, &s.P99NS, &s.P999NS} {
		*at = min(q[i], h.max) // a bucket's end may be above every value in it
	}
	return s
}

// Bucket is one step of a distribution: Count durations of at most UpToNS.
type Bucket struct {
	UpToNS int64 `json:"up_to_ns"`
	Count  int64 `json:"count"`
}

// Buckets returns the buckets that are not empty, in order. It allocates.
func (h *Histogram) Buckets() []Bucket {
	h.settle()
	var out []Bucket
	for _, b := range h.hdr.Distribution() {
		if b.Count > 0 {
			out = append(out, Bucket{b.To, b.Count})
		}
	}
	return out
}
