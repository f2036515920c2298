package load

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// never is later than every instant.
const never = math.MaxInt64

// Arrivals is how the sends of a rate are spread over time.
type Arrivals struct {
	Kind  string  // constant, poisson, bursts, ramp; "": constant
	Burst int64   // bursts: so many sends are due at one instant
	From  float64 // ramp: the rate at the first send; it grows evenly to Rate at the window's end
	Seed  uint64  // poisson
}

// Check says what is wrong with it.
func (a Arrivals) Check() error {
	switch a.Kind {
	case "", "constant", "poisson":
	case "bursts":
		if a.Burst < 1 {
			return fmt.Errorf("arrivals in bursts of %d", a.Burst)
		}
	case "ramp":
		if a.From < 0 {
			return fmt.Errorf("a ramp from %v", a.From)
		}
	default:
		return fmt.Errorf("arrivals %q: they are constant, poisson, bursts or ramp", a.Kind)
	}
	return nil
}

// A Schedule is the intended sends of one lane among several that share a
// rate. Its zero Interval is a closed loop.
type Schedule struct {
	Start    int64   // ns, the first send of lane 0
	End      int64   // ns, nothing is intended at or after it
	Interval float64 // ns between two sends of all lanes together; of a ramp: at its end
	Lanes    int64
	Lane     int64
	Arrivals

	random *rand.Rand // poisson
	drawn  float64    // ns since Start
	number int64      // of the next send
}

// Due is the instant at which the next send is intended.
func (s *Schedule) Due() int64 {
	if s.Kind != "poisson" {
		return s.at(s.number)
	}
	if s.random == nil {
		s.random = rand.New(rand.NewPCG(s.Seed, uint64(s.Lane)))
		s.draw()
	}
	return s.Start + int64(s.drawn)
}

// Advance goes on to the send after it.
func (s *Schedule) Advance() {
	s.number++
	if s.Kind == "poisson" {
		s.Due() // it may be the first
		s.draw()
	}
}

// draw adds one gap. Lanes that each are Poisson processes are one together.
func (s *Schedule) draw() {
	s.drawn += s.random.ExpFloat64() * s.Interval * float64(s.Lanes)
}

// at is the instant at which send number k of this lane is intended, where
// that is not drawn.
func (s *Schedule) at(k int64) int64 {
	n := k*s.Lanes + s.Lane
	switch s.Kind {
	case "bursts":
		n -= n % s.Burst
	case "ramp":
		return s.ramp(float64(n))
	}
	return s.Start + int64(float64(n)*s.Interval)
}

// ramp solves n = from*t + growth*t*t/2 for t.
func (s *Schedule) ramp(n float64) int64 {
	from, to := s.From/1e9, 1/s.Interval // per ns
	growth := (to - from) / float64(s.End-s.Start)
	if math.Abs(growth) < 1e-30 {
		return s.Start + int64(n*s.Interval)
	}
	d := from*from + 2*growth*n
	if d < 0 {
		return never // it falls to nothing before
	}
	return s.Start + int64((math.Sqrt(d)-from)/growth)
}
