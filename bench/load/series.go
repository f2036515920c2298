package load

import (
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/bench/record"
)

// A series is one distribution. The loop fills live; at the end of an interval
// it takes the spare in its place.
type series struct {
	name        string
	live, spare *record.Histogram
	pooled      *record.Histogram // of the intervals that are over; the packer's until it has ended
}

func newSeries(name string) *series {
	return &series{name, record.NewHistogram(), record.NewHistogram(), record.NewHistogram()}
}

func (s *series) record(ns int64) { s.live.Record(ns) }

// A packer turns the histograms of an interval that is over into what a
// recording keeps, on a thread of the least priority: the loop goes on.
type packer struct {
	all      []*series
	interval func(Interval)
	work     chan Interval
	done     chan struct{} // the spares are free again
	free     bool
	ended    chan struct{}
}

func startPacker(all []*series, interval func(Interval)) *packer {
	p := &packer{all: all, interval: interval, work: make(chan Interval, 1), done: make(chan struct{}, 1), free: true, ended: make(chan struct{})}
	go p.run()
	return p
}

func (p *packer) run() {
	defer close(p.ended)
	runtime.LockOSThread() // and never unlocked: the thread ends with its priority
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), 19)
	for i := range p.work {
		for _, s := range p.all {
			if s.spare.Count() > 0 {
				i.Series = append(i.Series, record.Interval{Series: s.name, StartNS: i.StartNS, EndNS: i.EndNS, H: s.spare.Pack()})
				s.pooled.Add(s.spare)
				s.spare.Reset()
			}
		}
		if p.interval != nil {
			p.interval(i)
		}
		p.done <- struct{}{}
	}
}

// rotate ends an interval; false while the one before is still at work: the
// interval goes on then.
func (p *packer) rotate(i Interval) bool {
	if !p.free {
		select {
		case <-p.done:
		default:
			return false
		}
	}
	p.swap(i)
	return true
}

func (p *packer) swap(i Interval) {
	for _, s := range p.all {
		s.live, s.spare = s.spare, s.live
	}
	p.free = false
	p.work <- i
}

// finish hands over the last interval and waits. The pools are the caller's then.
func (p *packer) finish(i Interval) {
	if !p.free {
		<-p.done
	}
	p.swap(i)
	close(p.work)
	<-p.ended
}

// numbers is a set of request numbers of one lane.
type numbers []uint64

// add says whether it was there already.
func (n *numbers) add(k uint32) (had bool) {
	word := int(k / 64)
	if word >= len(*n) {
		*n = append(slices.Grow(*n, word+1-len(*n)), make([]uint64, word+1-len(*n))...)
	}
	had = (*n)[word]>>(k%64)&1 == 1
	(*n)[word] |= 1 << (k % 64)
	return had
}

func (n numbers) has(k uint32) bool {
	return int(k/64) < len(n) && n[k/64]>>(k%64)&1 == 1
}
