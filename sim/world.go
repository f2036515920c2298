package sim

import (
	"fmt"
	"io"
	"math/rand/v2"

	"github.com/tailbound/tailbound/ioring"
)

// Crash is the panic of Wait when the world is to crash.
type Crash struct{ Step int }

// Abuse is the simulator's panic when the code under test breaks a rule of ioring.Ring: a
// buffer changed while it was lent, misaligned I/O, memory outside the arena.
type Abuse string

// Stuck is the panic of Wait when it is to sleep for ever and no event is left.
type Stuck string

func (a Abuse) Error() string { return "abuse of the ring: " + string(a) }

func (s Stuck) Error() string { return "stuck: " + string(s) }

// World is shared by all rings, disks and sockets of a simulation: the clock, the random
// source, and the events to come.
type World struct {
	Rand  *rand.Rand
	Now   ioring.Instant
	Trace io.Writer // gets one line for each event; nil: only the hash is computed

	// CrashIn is how many events happen before Wait panics with Crash; 0: no crash.
	CrashIn int

	events []*event // not sorted; few enough to search
	steps  int
	serial uint64 // order of submissions and completions; never repeats
	hash   uint64
	net    network
}

type event struct {
	at     ioring.Instant
	serial uint64 // of simultaneous events the one made first happens first
	ring   *Ring  // the ring that it belongs to; nil: the world
	run    func()
}

// NewWorld makes a world from a seed.
func NewWorld(seed uint64) *World {
	return &World{Rand: rand.New(rand.NewPCG(seed, 0x7461696c)), Now: 1_000_000_000, hash: 14695981039346656037}
}

// WallMS returns the time in milliseconds since 1970.
func (w *World) WallMS() int64 { return 1_700_000_000_000 + int64(w.Now)/1_000_000 }

// Hash returns the hash of the trace so far. The same seed gives the same hash.
func (w *World) Hash() uint64 { return w.hash }

// Steps returns how many events have happened.
func (w *World) Steps() int { return w.steps }

// Logf adds a line to the trace. It has no effect on the hash.
func (w *World) Logf(format string, a ...any) {
	if w.Trace != nil {
		fmt.Fprintf(w.Trace, "%12d "+format+"\n", append([]any{int64(w.Now)}, a...)...)
	}
}

func (w *World) mix(v ...uint64) {
	for _, x := range v {
		w.hash = (w.hash ^ x) * 1099511628211
		w.hash ^= w.hash >> 29
	}
}

func (w *World) tick() uint64 { w.serial++; return w.serial }

// after schedules run in about delay nanoseconds.
func (w *World) after(r *Ring, delay int64, run func()) *event {
	e := &event{at: w.Now + ioring.Instant(delay), serial: w.tick(), ring: r, run: run}
	w.events = append(w.events, e)
	return e
}

func (w *World) drop(e *event) {
	for i, x := range w.events {
		if x == e {
			w.events = append(w.events[:i], w.events[i+1:]...)
			return
		}
	}
}

func (w *World) next() int {
	best := -1
	for i, e := range w.events {
		if best < 0 || e.at < w.events[best].at || e.at == w.events[best].at && e.serial < w.events[best].serial {
			best = i
		}
	}
	return best
}

// NextEvent returns when the next event happens; Never if none is left.
func (w *World) NextEvent() ioring.Instant {
	i := w.next()
	if i < 0 {
		return ioring.Never
	}
	return w.events[i].at
}

// Step runs the next event if it is due by until, and advances the clock to it. False: no
// event was due, and the clock is at until (unless that is Never).
func (w *World) Step(until ioring.Instant) bool {
	i := w.next()
	if i < 0 || w.events[i].at > until {
		if until != ioring.Never && until > w.Now {
			w.Now = until
		}
		return false
	}
	e := w.events[i]
	w.events[i] = w.events[len(w.events)-1]
	w.events = w.events[:len(w.events)-1]
	if e.at > w.Now {
		w.Now = e.at
	}
	w.steps++
	if w.CrashIn > 0 {
		if w.CrashIn--; w.CrashIn == 0 {
			panic(Crash{w.steps})
		}
	}
	e.run()
	return true
}

// Stop ends every ring and socket of the world, like the end of the process. Afterwards
// call PowerCut or Kill of the disk.
func (w *World) Stop() {
	for _, e := range w.events {
		if e.ring != nil {
			e.ring.dead = true
		}
	}
	w.events = w.events[:0]
	w.net = network{}
	w.CrashIn = 0
}

// delay draws a duration around typical nanoseconds: mostly half to twice as long,
// occasionally a hundred times as long.
func (w *World) delay(typical int64) int64 {
	d := typical/2 + w.Rand.Int64N(typical*3/2+1)
	switch w.Rand.IntN(64) {
	case 0:
		d *= 100
	case 1, 2, 3:
		d *= 8
	case 4, 5, 6, 7:
		d = 1
	}
	return d
}

// oneIn returns true once in n times; never for n = 0.
func (w *World) oneIn(n int) bool { return n > 0 && w.Rand.IntN(n) == 0 }
