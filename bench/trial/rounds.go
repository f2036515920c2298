package trial

import (
	"fmt"
	"slices"

	"github.com/tailbound/tailbound/bench/record"
)

// Order is the order in which n things are measured in a round, counted from 0.
// Every second round goes backwards, so that the first of one round is the last
// of the next: a machine that slows down, or is disturbed for a while, does not
// meet the same one each time.
func Order(round, n int) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	if round%2 == 1 {
		slices.Reverse(order)
	}
	return order
}

// Ratios are one figure of one thing to that of another, each formed inside a
// round, between measurements that were minutes or less apart.
type Ratios struct {
	Of       string    `json:"of"` // the figure
	A        string    `json:"a"`
	B        string    `json:"b"`
	Rounds   []float64 `json:"rounds"` // those rounds in which there is a ratio
	Median   float64   `json:"median"`
	Least    float64   `json:"least"`
	Greatest float64   `json:"greatest"`
}

// A Quantity reads one figure of a run; ok is false where the run has none.
type Quantity struct {
	Name string
	Of   func(*record.Run) (value float64, ok bool)
}

// SeriesQuantities are the percentiles of a series that ratios are formed of.
func SeriesQuantities(series string) []Quantity {
	quantity := func(name string, of func(record.Summary) int64) Quantity {
		return Quantity{name, func(run *record.Run) (float64, bool) {
			s := run.Series[series]
			return float64(of(s)), s.Count > 0
		}}
	}
	return []Quantity{
		quantity("p50", func(s record.Summary) int64 { return s.P50 }),
		quantity("p99", func(s record.Summary) int64 { return s.P99 }),
		quantity("p99.9", func(s record.Summary) int64 { return s.P999 }),
	}
}

// FormRatios forms a/b of one quantity, round by round. A round counts where both
// runs are there and have the quantity. ok is false where no round counts.
func FormRatios(q Quantity, a, b []*record.Run) (r Ratios, ok bool) {
	r.Of = q.Name
	for round := range min(len(a), len(b)) {
		if a[round] == nil || b[round] == nil {
			continue
		}
		x, okA := q.Of(a[round])
		y, okB := q.Of(b[round])
		if okA && okB && y > 0 {
			r.Rounds = append(r.Rounds, x/y)
		}
	}
	if len(r.Rounds) == 0 {
		return r, false
	}
	r.Median, r.Least, r.Greatest = record.Median(r.Rounds), slices.Min(r.Rounds), slices.Max(r.Rounds)
	return r, true
}

// String is the median (least..greatest).
func (r Ratios) String() string { return fmt.Sprintf("%s %s", r.Of, record.Spread(r.Rounds)) }
