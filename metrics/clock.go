package metrics

import (
	"math/bits"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Clock reads nanoseconds of CLOCK_MONOTONIC. Where the kernel itself trusts
// the processor's time stamp counter it reads that instead (10 ns a call
// against 26: BenchmarkNow), and follows CLOCK_MONOTONIC by Tick.
//
// A Clock has one owner, the shard that reads it. Rooms that must be
// deterministic never see one: they are given the time.
type Clock struct {
	tsc bool

	start  time.Time // for the runtime's own monotonic reading
	offset int64     // CLOCK_MONOTONIC at start

	// now = baseNS + (counter - baseTSC) * scale >> 32
	baseTSC uint64
	baseNS  int64
	scale   uint64 // ns per count, 32 bits of fraction

	// The first sample: rates are measured from it, ever more exactly.
	firstTSC uint64
	firstNS  int64

	nextTick int64
}

const (
	tickNS       = 1e9 // between two recalibrations
	firstTickNS  = 1e7 // before the first one: the start's rate is rough
	calibrateNS  = 2e6 // how long the start measures the rate
	stepNS       = 1e7 // an error above this is stepped over, forwards only
	correctionPM = 100 // at most so many thousandths of the rate correct an error
)

// NewClock chooses and calibrates a clock; it takes about 2 ms where it
// chooses the time stamp counter.
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
	if c.scale == 0 { // a counter that stands still or runs wild
		c.tsc = false
	}
	return c
}

// Source names what is read: "tsc" or "monotonic".
func (c *Clock) Source() string {
	if c.tsc {
		return "tsc"
	}
	return "monotonic"
}

// Now is the time in nanoseconds, on CLOCK_MONOTONIC's scale.
func (c *Clock) Now() int64 {
	if !c.tsc {
		return c.monotonic()
	}
	return c.at(rdtsc())
}

// Tick recalibrates once a second; in between it is one comparison. The owner
// calls it every turn, with what Now gave it.
func (c *Clock) Tick(now int64) {
	if c.tsc && now >= c.nextTick {
		c.recalibrate()
	}
}

// monotonic is CLOCK_MONOTONIC through the runtime, which reads it without a
// system call; x/sys makes one.
func (c *Clock) monotonic() int64 { return c.offset + int64(time.Since(c.start)) }

func (c *Clock) at(tsc uint64) int64 {
	d := tsc - c.baseTSC
	if int64(d) < 0 { // another core's counter, a hair behind
		return c.baseNS
	}
	hi, lo := bits.Mul64(d, c.scale)
	return c.baseNS + int64(hi<<32|lo>>32)
}

// sample reads both clocks at once: of a few tries the one with the least
// between the two readings of the counter.
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

// recalibrate measures the rate since the start, and bends it so that the
// error of now is gone by the next tick. It goes on from where the clock
// stood, so that time never goes back.
func (c *Clock) recalibrate() {
	tsc, true_ := c.sample()
	ours := c.at(tsc)
	rate := scaleOf(true_-c.firstNS, tsc-c.firstTSC)
	miss := true_ - ours
	if miss > stepNS {
		// The machine slept, or we were not called for long.
		ours, miss = true_, 0
	}
	if rate == 0 {
		// The counter was reset beneath us (a machine restored elsewhere).
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

// scaleOf is ns per count with 32 bits of fraction, 0 where it cannot be: a
// counter slower than 1 MHz or faster than 100 GHz is none.
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

// tscTrusted says whether the counter is what the kernel's own clock reads,
// and runs at one rate, also in sleep states. It asks the kernel, not CPUID:
// that instruction traps in a virtual machine.
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
