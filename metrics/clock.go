package metrics

import (
	"math/bits"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Clock reads nanoseconds of CLOCK_MONOTONIC. If the kernel itself trusts the
// processor's time stamp counter, Clock reads the counter instead (10 ns a call
// against 26: BenchmarkNow), and Tick keeps it close to CLOCK_MONOTONIC.
//
// A Clock belongs to the shard that reads it. Deterministic rooms have no Clock:
// time is an argument there.
type Clock struct {
	tsc bool

	start  time.Time // for the runtime's own monotonic reading
	offset int64     // CLOCK_MONOTONIC at start

	// now = baseNS + (counter - baseTSC) * scale >> 32
	baseTSC uint64
	baseNS  int64
	scale   uint64 // ns per count, 32 bits of fraction

	// The first sample: rates are measured from it, more exactly as time passes.
	firstTSC uint64
	firstNS  int64

	nextTick int64
}

const (
	tickNS       = 1e9 // between two recalibrations
	firstTickNS  = 1e7 // before the first one: the rate measured at the start is rough
	calibrateNS  = 2e6 // how long the rate is measured at the start
	stepNS       = 1e7 // a larger error is corrected by a step, forwards only
	correctionPM = 100 // the most by which the rate is changed to correct an error, in thousandths
)

// NewClock chooses and calibrates a clock. Calibrating the time stamp counter takes
// about 2 ms.
func NewClock() *Clock {
	return newClock(tscTrusted())
}

func newClock(tsc bool) *Clock {
	c := &Clock{tsc: tsc, start: time.Now()}
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic("metrics: CLOCK_MONOTONIC cannot be read: " + err.Error())
	}
	c.offset = ts.Nano()
	if !c.tsc {
		return c
	}
	c.firstTSC, c.firstNS = c.sample()
	for c.monotonic() < c.firstNS+calibrateNS {
	}
	c.baseTSC, c.baseNS = c.sample()
	c.scale = scaleOf(c.baseNS-c.firstNS, c.baseTSC-c.firstTSC)
	c.nextTick = c.baseNS + firstTickNS
	if c.scale == 0 { // a counter that stands still, or whose rate is impossible
		c.tsc = false
	}
	return c
}

// Source returns what is read: "tsc" or "monotonic".
func (c *Clock) Source() string {
	if c.tsc {
		return "tsc"
	}
	return "monotonic"
}

// Now returns the time in nanoseconds of CLOCK_MONOTONIC.
func (c *Clock) Now() int64 {
	if !c.tsc {
		return c.monotonic()
	}
	return c.at(rdtsc())
}

// Tick recalibrates once a second; otherwise it is one comparison. The owner calls it
// in every turn, with the result of Now.
func (c *Clock) Tick(now int64) {
	if c.tsc && now >= c.nextTick {
		c.recalibrate()
	}
}

// monotonic returns CLOCK_MONOTONIC from the runtime, which needs no system call;
// x/sys makes one.
func (c *Clock) monotonic() int64 { return c.offset + int64(time.Since(c.start)) }

func (c *Clock) at(tsc uint64) int64 {
	d := tsc - c.baseTSC
	if int64(d) < 0 { // the counter of another core, slightly behind
		return c.baseNS
	}
	hi, lo := bits.Mul64(d, c.scale)
	return c.baseNS + int64(hi<<32|lo>>32)
}

// sample reads both clocks at nearly the same instant: of a few tries it returns the
// one with the shortest time between two readings of the counter.
func (c *Clock) sample() (tsc uint64, ns int64) {
	best := ^uint64(0)
	for range 5 {
		before := rdtsc()
		mono := c.monotonic()
		after := rdtsc()
		if d := after - before; d < best {
			best, tsc, ns = d, before+d/2, mono
		}
	}
	return tsc, ns
}

// recalibrate measures the rate since the start, and changes it so that the present
// error is gone by the next tick. It continues from the clock's present value, so
// that time never goes backwards.
func (c *Clock) recalibrate() {
	tsc, true_ := c.sample()
	ours := c.at(tsc)
	rate := scaleOf(true_-c.firstNS, tsc-c.firstTSC)
	miss := true_ - ours
	if miss > stepNS {
		// The machine slept, or Tick was not called for long.
		ours, miss = true_, 0
	}
	if rate == 0 {
		// The counter was reset, as when a virtual machine is restored elsewhere.
		c.tsc = false
		c.offset += max(0, ours-c.monotonic())
		return
	}
	limit := int64(tickNS / 1000 * correctionPM)
	miss = min(max(miss, -limit), limit)
	bend := int64(float64(rate) * float64(miss) / tickNS)
	c.baseTSC, c.baseNS = tsc, ours
	c.scale = uint64(int64(rate) + bend)
	c.nextTick = ours + tickNS
}

// scaleOf returns ns per count with 32 bits of fraction, or 0 if the rate is
// impossible: slower than 1 MHz or faster than 100 GHz.
func scaleOf(ns int64, counts uint64) uint64 {
	if ns <= 0 || counts == 0 || int64(counts) < 0 {
		return 0
	}
	perNS := float64(counts) / float64(ns)
	if perNS < 0.001 || perNS > 100 {
		return 0
	}
	return uint64(float64(1<<32) / perNS)
}

// tscTrusted says whether the kernel's own clock reads the counter, and the counter
// runs at one rate, also in sleep states. It asks the kernel, not CPUID, which traps
// in a virtual machine.
func tscTrusted() bool {
	if runtime.GOARCH != "amd64" {
		return false
	}
	source, err := os.ReadFile("/sys/devices/system/clocksource/clocksource0/current_clocksource")
	if err != nil || strings.TrimSpace(string(source)) != "tsc" {
		return false
	}
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(info)) {
		if name, flags, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "flags" {
			flags = " " + strings.TrimSpace(flags) + " "
			return strings.Contains(flags, " constant_tsc ") && strings.Contains(flags, " nonstop_tsc ")
		}
	}
	return false
}
