package observe

import "github.com/tailbound/tailbound/metrics"

// history is the last intervals that the flight recorder of a shard has handed
// over. Server.mu guards it.
type history struct {
	flight    *metrics.Flight
	intervals []metrics.Interval // a ring buffer; interval i is at i % historyKept
	n         uint64             // intervals taken since the start
}

func newHistory(f *metrics.Flight) *history {
	return &history{flight: f, intervals: make([]metrics.Interval, historyKept)}
}

// take copies the next interval that has ended over the oldest one. It returns
// false if none has ended.
func (h *history) take() bool {
	if !h.flight.Take(&h.intervals[h.n%historyKept]) {
		return false
	}
	h.n++
	return true
}

// last is the newest interval. There has to be one.
func (h *history) last() *metrics.Interval { return &h.intervals[(h.n-1)%historyKept] }

// since are the intervals kept that ended after a time, the oldest first.
func (h *history) since(wallMS int64) (all []*metrics.Interval) {
	for i := h.n - min(h.n, historyKept); i < h.n; i++ {
		if interval := &h.intervals[i%historyKept]; interval.Wall > wallMS {
			all = append(all, interval)
		}
	}
	return all
}

// historyKept is how many intervals of each shard are kept. An interval is a second
// unless questions come more often.
const historyKept = 64
