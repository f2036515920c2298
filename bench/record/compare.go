package record

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// A Ratio is one figure of a recording to that of another, with the range in
// which 95 of 100 repetitions would lie if a run's intervals are what it is made
// of. Low and High are 0 where there are too few of them to say.
type Ratio struct {
	Series     string  `json:"series"`
	Percentile float64 `json:"percentile"`
	A          int64   `json:"a"` // ns
	B          int64   `json:"b"`
	Ratio      float64 `json:"ratio"` // 0: B is
	Low        float64 `json:"low,omitempty"`
	High       float64 `json:"high,omitempty"`
}

// Resolved says whether the two differ by more than chance explains.
func (r Ratio) Resolved() bool { return r.Low > 1 || r.High > 0 && r.High < 1 }

// intervalsLeast is how many intervals each of two recordings has for their
// ratio to have a range.
const intervalsLeast = 5

// Compare gives the ratios of a's percentiles to b's, of one series. The range
// is a bootstrap: intervals, not requests, are drawn again, with replacement,
// because requests near one another share their fate; the pools of what was
// drawn are asked for the percentile. One seed gives one answer.
func Compare(a, b []Interval, series string, percentiles []float64, draws int, seed uint64) []Ratio {
	ca, cb := countsOf(a, series), countsOf(b, series)
	if ca.intervals == nil || cb.intervals == nil {
		return nil
	}
	var all []Ratio
	pa, pb := ca.all(), cb.all()
	for _, p := range percentiles {
		r := Ratio{Series: series, Percentile: p, A: ca.at(pa, p), B: cb.at(pb, p)}
		r.Ratio = ratio(r.A, r.B)
		all = append(all, r)
	}
	if len(ca.intervals) < intervalsLeast || len(cb.intervals) < intervalsLeast {
		return all
	}
	random := rand.New(rand.NewPCG(seed, 0x7461696c))
	drawn := make([][]float64, len(percentiles))
	for range draws {
		pa, pb := ca.draw(random), cb.draw(random)
		for i, p := range percentiles {
			if q := ratio(ca.at(pa, p), cb.at(pb, p)); q > 0 {
				drawn[i] = append(drawn[i], q)
			}
		}
	}
	for i, d := range drawn {
		if len(d) < draws*9/10 {
			continue
		}
		slices.Sort(d)
		all[i].Low, all[i].High = d[len(d)*25/1000], d[len(d)*975/1000]
	}
	return all
}

func ratio(a, b int64) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// counts are the intervals of one series over the buckets that any of them has.
type counts struct {
	values    []int64   // ns, of the buckets, ascending
	intervals [][]entry // nil: there is no such series
	pool      []int64
}

type entry struct {
	bucket int32
	count  int64
}

func countsOf(all []Interval, series string) *counts {
	c := &counts{}
	index := map[int64]int32{}
	for _, i := range all {
		if i.Series == series {
			i.H.Each(func(ns, _ int64) { index[ns] = 0 })
		}
	}
	for ns := range index {
		c.values = append(c.values, ns)
	}
	slices.Sort(c.values)
	for i, ns := range c.values {
		index[ns] = int32(i)
	}
	for _, i := range all {
		if i.Series != series || i.H.Count() == 0 {
			continue
		}
		var one []entry
		i.H.Each(func(ns, count int64) { one = append(one, entry{index[ns], count}) })
		c.intervals = append(c.intervals, one)
	}
	c.pool = make([]int64, len(c.values))
	return c
}

func (c *counts) all() []int64 {
	clear(c.pool)
	for _, i := range c.intervals {
		c.add(i)
	}
	return c.pool
}

// draw pools as many intervals as there are, drawn with replacement.
func (c *counts) draw(r *rand.Rand) []int64 {
	clear(c.pool)
	for range c.intervals {
		c.add(c.intervals[r.IntN(len(c.intervals))])
	}
	return c.pool
}

func (c *counts) add(i []entry) {
	for _, e := range i {
		c.pool[e.bucket] += e.count
	}
}

// at is the percentile of a pool, as a Histogram has it to a bucket.
func (c *counts) at(pool []int64, percentile float64) int64 {
	var total int64
	for _, n := range pool {
		total += n
	}
	rank := max(int64(math.Ceil(float64(total)*percentile/100)), 1)
	for i, n := range pool {
		if rank -= n; rank <= 0 {
			return c.values[i]
		}
	}
	return 0
}

// Median is the middle one, or the mean of the middle two.
func Median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// Spread says what a figure was over rounds, of which there is one at least: the
// median (least..greatest).
func Spread(v []float64) string {
	return fmt.Sprintf("%.2f (%.2f..%.2f)", Median(v), slices.Min(v), slices.Max(v))
}
