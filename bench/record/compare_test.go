package record

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// intervals are n of a series whose latencies are exponential, with a mean that
// changes from interval to interval.
func intervals(seed uint64, n int, mean float64) (all []Interval) {
	r := rand.New(rand.NewPCG(seed, 2))
	for i := range n {
		h := NewHistogram()
		here := mean * (0.8 + 0.4*r.Float64())
		for range 300 {
			h.Record(int64(r.ExpFloat64() * here))
		}
		all = append(all, Interval{"produce", int64(i) * 1e9, int64(i+1) * 1e9, h.Pack()})
	}
	return all
}

// The range holds the truth about as often as it says, and says that two of a
// kind are of a kind.
func TestBootstrapCoversTheTruth(t *testing.T) {
	covered, resolved := 0, 0
	const times = 60
	for i := range uint64(times) {
		r := Compare(intervals(2*i, 30, 2e6), intervals(2*i+1, 30, 1e6), "produce", []float64{50}, 200, i)[0]
		if r.Low <= 2 && 2 <= r.High {
			covered++
		}
		same := Compare(intervals(2*i+1000, 30, 1e6), intervals(2*i+1001, 30, 1e6), "produce", []float64{50}, 200, i)[0]
		if same.Resolved() {
			resolved++
		}
	}
	if covered < times*85/100 {
		t.Errorf("the truth was in %d of %d ranges of 95 %%", covered, times)
	}
	if resolved > times*15/100 {
		t.Errorf("a difference was found in %d of %d pairs of one kind", resolved, times)
	}
}

func TestCompareIsExactAndRepeats(t *testing.T) {
	a, b := intervals(1, 10, 3e6), intervals(2, 10, 1e6)
	ps := []float64{50, 99, 99.9}
	got := Compare(a, b, "produce", ps, 100, 7)
	for i, p := range ps {
		// A histogram gives a bucket's upper edge, the comparison its lower.
		if want := float64(Pool(a, "produce").At(p)) / float64(Pool(b, "produce").At(p)); math.Abs(got[i].Ratio/want-1) > 0.002 {
			t.Errorf("p%v: ratio %v, pooled histograms say %v", p, got[i].Ratio, want)
		}
		if got[i].Low > got[i].Ratio || got[i].High < got[i].Ratio || !got[i].Resolved() {
			t.Errorf("p%v: %+v", p, got[i])
		}
	}
	if !slices.Equal(got, Compare(a, b, "produce", ps, 100, 7)) {
		t.Error("one seed gave two answers")
	}
	if few := Compare(a[:3], b, "produce", ps, 100, 7); few[0].High != 0 || few[0].Ratio == 0 {
		t.Errorf("three intervals gave a range: %+v", few[0])
	}
	if none := Compare(a, b, "nothing", ps, 100, 7); none != nil {
		t.Errorf("a series that is not there gave %+v", none)
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		v    []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := Median(c.v); got != c.want {
			t.Errorf("median(%v) = %v, want %v", c.v, got, c.want)
		}
	}
}
