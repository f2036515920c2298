package record

import (
	"fmt"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// The range of a Histogram, nanoseconds, and its significant digits.
const (
	lowestNS = 100
	topNS    = 120e9
	digits   = 3
)

// Histogram is nanoseconds, three significant digits; above its top it is
// clamped and counted. It is 200 KiB. One owner.
type Histogram struct {
	h    *hdrhistogram.Histogram
	max  int64 // exact; the library's is a bucket's edge
	over int64
}

// NewHistogram is an empty histogram.
func NewHistogram() *Histogram { return &Histogram{h: hdrhistogram.New(lowestNS, topNS, digits)} }

// Record adds one duration. It does not allocate: the library would for a
// value out of range, so none reaches it.
func (h *Histogram) Record(ns int64) { h.RecordN(ns, 1) }

// RecordN adds n durations of one length.
func (h *Histogram) RecordN(ns, n int64) {
	ns = max(ns, 0)
	h.max = max(h.max, ns)
	if ns > topNS {
		h.over += n
		ns = topNS
	}
	_ = h.h.RecordValues(ns, n)
}

// Count is how many durations were recorded.
func (h *Histogram) Count() int64 { return h.h.TotalCount() }

// At is the duration below which percent of all lie.
func (h *Histogram) At(percent float64) int64 {
	return min(h.h.ValueAtPercentile(percent), h.max)
}

// Max is the greatest, exactly; of one that was read from a log, its bucket's edge.
func (h *Histogram) Max() int64 { return h.max }

// Reset empties it.
func (h *Histogram) Reset() {
	h.h.Reset()
	h.max, h.over = 0, 0
}

// Add pools another's durations with its own.
func (h *Histogram) Add(o *Histogram) {
	h.h.Merge(o.h)
	h.max, h.over = max(h.max, o.max), h.over+o.over
}

// Packed is a Histogram's content at the size of what is in it: what intervals
// are kept as. It does not change.
type Packed struct {
	p    *hdrhistogram.PackedHistogram
	max  int64
	over int64
}

// Pack copies what a histogram has.
func (h *Histogram) Pack() Packed {
	p := hdrhistogram.NewPacked(lowestNS, topNS, digits)
	p.MergeFrom(h.h)
	p.Compact()
	return Packed{p, h.max, h.over}
}

// Count is how many durations are in it.
func (p Packed) Count() int64 { return p.p.TotalCount() }

// Max is the greatest.
func (p Packed) Max() int64 { return p.max }

// At is the duration below which percent of all lie.
func (p Packed) At(percent float64) int64 { return min(p.p.ValueAtPercentile(percent), p.max) }

// Into pools its durations with those of h.
func (p Packed) Into(h *Histogram) {
	p.p.MergeInto(h.h)
	h.max, h.over = max(h.max, p.max), h.over+p.over
}

// Each calls f with each bucket's least value and count, ascending.
func (p Packed) Each(f func(ns, count int64)) {
	p.p.ForEachBucket(func(ns, count int64) bool {
		f(ns, count)
		return true
	})
}

// text is HdrHistogram's V2 compressed encoding in base64.
func (p Packed) text() (string, error) {
	b, err := p.p.Encode()
	return string(b), err
}

func unpack(text string) (Packed, error) {
	p, err := hdrhistogram.DecodePacked([]byte(text))
	if err != nil {
		return Packed{}, fmt.Errorf("a histogram that cannot be read: %w", err)
	}
	return Packed{p: p, max: p.Max()}, nil
}

// MarshalText is HdrHistogram's V2 compressed encoding in base64.
func (p Packed) MarshalText() ([]byte, error) { return p.p.Encode() }

// UnmarshalText reads what MarshalText wrote.
func (p *Packed) UnmarshalText(b []byte) (err error) {
	*p, err = unpack(string(b))
	return err
}

// Summary is a Histogram in a result: nanoseconds, and the whole histogram as
// HdrHistogram's V2 compressed encoding in base64.
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

// Summary is what results say of it.
func (h *Histogram) Summary() Summary {
	s := Summary{
		Count:   h.Count(),
		P50:     h.At(50),
		P90:     h.At(90),
		P99:     h.At(99),
		P999:    h.At(99.9),
		P9999:   h.At(99.99),
		Max:     h.max,
		Clamped: h.over,
	}
	if raw, err := h.Pack().text(); err == nil {
		s.Raw = raw
	}
	return s
}
