package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/dterei/gotsc"
	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/metrics"
)

// A clock is one of those compared. read is in its own unit.
type clock struct {
	name string
	read func() int64
	tick func(int64) // what its owner calls now and then
	ns   bool        // its unit is ns; else counts, whose rate is measured
}

func clocks() []clock {
	origin := time.Now()
	ours := metrics.NewClock()
	return []clock{
		{"our RDTSC (metrics.Clock, " + ours.Source() + ")", ours.Now, func(int64) { ours.Tick(ours.Now()) }, true},
		{"RDTSC", func() int64 { return int64(rdtsc()) }, nil, false},
		{"RDTSCP", func() int64 { return int64(rdtscp()) }, nil, false},
		{"gotsc BenchStart", func() int64 { return int64(gotsc.BenchStart()) }, nil, false},
		{"vDSO clock_gettime (time.Since)", func() int64 { return int64(time.Since(origin)) }, nil, true},
		{"time.Now", func() int64 { return time.Now().UnixNano() }, nil, true},
		{"clock_gettime as a system call", monotonic, nil, true},
	}
}

func main() {
	seconds := flag.Float64("seconds", 60, "how long drift is watched")
	flag.Parse()
	runtime.LockOSThread()
	text, _ := os.ReadFile("/sys/devices/system/clocksource/clocksource0/current_clocksource")
	fmt.Printf("%d CPUs, the kernel's clock source is %s", runtime.NumCPU(), text)
	all := clocks()
	drift := watchDrift(all, time.Duration(*seconds*1e9))
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "clock\tns a call\tp50\tp99\tmax, ns\tdrift, ppm\tworst off, us\tback across cores\t\n")
	for i, c := range all {
		cost := costOf(c)
		s := spread(c)
		back, most := acrossCores(c, 40_000)
		across := "never"
		switch {
		case runtime.NumCPU() == 1:
			across = "one core"
		case back > 0:
			across = fmt.Sprintf("%d times, by %d at most", back, most)
		}
		fmt.Fprintf(t, "%s\t%.1f\t%d\t%d\t%d\t%.3f\t%.2f\t%s\t\n", c.name, cost, s[len(s)/2], s[len(s)*99/100], s[len(s)-1], drift[i].ppm, drift[i].worst/1e3, across)
	}
	_ = t.Flush()
	fmt.Printf("drift is against CLOCK_MONOTONIC over %.0f s, of counters with the rate of the first half against the second;\np50 to max are of single calls, between two readings of CLOCK_MONOTONIC, less what those cost\n", *seconds)
}

func monotonic() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // there is no Linux without
	return ts.Nano()
}

//lint:ignore U1000 what is written to it keeps the calls that are measured
var sink int64

// costOf is a call's share of a million.
func costOf(c clock) float64 {
	const calls = 200_000
	best := time.Duration(1 << 62)
	for range 5 {
		start := time.Now()
		for range calls {
			sink += c.read()
		}
		best = min(best, time.Since(start))
	}
	return float64(best) / calls
}

// spread is what single calls took, sorted.
func spread(c clock) []int64 {
	origin := time.Now()
	measure := func(f func() int64) []int64 {
		all := make([]int64, 100_000)
		for i := range all {
			a := time.Since(origin)
			sink += f()
			all[i] = int64(time.Since(origin) - a)
		}
		slices.Sort(all)
		return all
	}
	empty := measure(func() int64 { return 0 })
	all := measure(c.read)
	for i := range all {
		all[i] = max(all[i]-empty[len(empty)/2], 0)
	}
	return all
}

type drifted struct{ ppm, worst float64 }

// watchDrift reads all clocks beside CLOCK_MONOTONIC, sixteen times a second.
func watchDrift(all []clock, d time.Duration) []drifted {
	type sample struct{ at, read float64 }
	samples := make([][]sample, len(all))
	origin := time.Now()
	for end := origin.Add(d); time.Now().Before(end); time.Sleep(62500 * time.Microsecond) {
		for i, c := range all {
			if c.tick != nil {
				c.tick(0)
			}
			// Of a few tries the one with the least around it.
			best, kept := int64(1<<62), sample{}
			for range 5 {
				a := int64(time.Since(origin))
				v := c.read()
				b := int64(time.Since(origin))
				if b-a < best {
					best, kept = b-a, sample{float64(a+b) / 2, float64(v)}
				}
			}
			samples[i] = append(samples[i], kept)
		}
	}
	out := make([]drifted, len(all))
	for i, c := range all {
		s := samples[i]
		if len(s) < 4 {
			continue
		}
		first, middle, last := s[0], s[len(s)/2], s[len(s)-1]
		rate := 1.0 // of the clock's unit in ns
		from := first
		if !c.ns {
			rate = (middle.at - first.at) / (middle.read - first.read)
			from = middle
		}
		for _, x := range s {
			if x.at >= from.at {
				off := (x.read-from.read)*rate - (x.at - from.at)
				out[i].worst = max(out[i].worst, off, -off)
			}
		}
		if last.at > from.at {
			out[i].ppm = ((last.read-from.read)*rate/(last.at-from.at) - 1) * 1e6
		}
	}
	return out
}

// acrossCores has a thread go from core to core and looks whether the clock goes
// back; by how much at most, in its unit.
func acrossCores(c clock, hops int) (back int, most int64) {
	var before unix.CPUSet
	if unix.SchedGetaffinity(0, &before) != nil {
		return 0, 0
	}
	defer unix.SchedSetaffinity(0, &before)
	last := c.read()
	for i := range hops / 20 {
		var one unix.CPUSet
		one.Set(i % runtime.NumCPU())
		if unix.SchedSetaffinity(0, &one) != nil {
			continue
		}
		for range 20 {
			v := c.read()
			if v < last {
				back, most = back+1, max(most, last-v)
			}
			last = v
		}
	}
	return back, most
}
