package metrics

import "math/bits"

// Counts is a histogram of durations with 16 buckets for each doubling: a quantile is
// off by 5 % at most.
type Counts [countBuckets]uint32

const countBuckets = 16 * 36

func bucketOf(ns int64) int {
	v := uint64(max(ns, 0)) >> 6 // 64 ns
	if v < 16 {
		return int(v)
	}
	shift := bits.Len64(v) - 5
	return min(16*(shift+1)+int(v>>shift)-16, countBuckets-1)
}

// bucketTop is the largest duration that a bucket counts.
func bucketTop(i int) int64 {
	if i < 16 {
		return int64(i+1)<<6 - 1
	}
	shift := i/16 - 1
	return (int64(16+i%16+1)<<shift)<<6 - 1
}

// Add adds the counts of o.
func (c *Counts) Add(o *Counts) {
	for i, n := range o {
		c[i] += n
	}
}

// Total is how many were counted.
func (c *Counts) Total() (n int64) {
	for _, k := range c {
		n += int64(k)
	}
	return n
}

// Quantile is the duration that so many percent do not exceed.
func (c *Counts) Quantile(percent float64) int64 {
	want := int64(percent/100*float64(c.Total()) + 0.5)
	for i, k := range c {
		if want -= int64(k); want <= 0 && k > 0 {
			return bucketTop(i)
		}
	}
	return 0
}
