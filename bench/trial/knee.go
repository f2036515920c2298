package trial

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/tailbound/tailbound/bench/record"
)

// A Knee is the search for the highest rate that a system carries within a
// bound. It knows no time and no system: it says which rate to try, and is told
// how that went.
//
//	grow by half until a rate fails; halve what is between, until it is small
//
// Where even a 64th of the first rate fails, nothing holds, and it is over.
// A rate fails when it fails twice: once may have been the host.
type Knee struct {
	Tolerance float64 // the search ends when the least failed is so much above the best: 0.05

	best   float64 // the highest that held; 0: none yet
	failed float64 // the lowest that did not; 0: none yet
	next   float64
	least  float64
	again  bool
}

// NewKnee begins at a rate.
func NewKnee(first, tolerance float64) *Knee {
	return &Knee{Tolerance: tolerance, next: first, least: first / 64}
}

// Next is the rate to try; ok is false when the search is over.
func (k *Knee) Next() (rate float64, ok bool) {
	if k.failed > 0 && k.best > 0 && k.failed <= k.best*(1+k.Tolerance) || k.next < k.least {
		return 0, false
	}
	return k.next, true
}

// Tell says whether the rate that Next gave held.
func (k *Knee) Tell(held bool) {
	if !held && !k.again {
		k.again = true
		return
	}
	k.again = false
	if held {
		k.best = k.next
	} else {
		k.failed = k.next
	}
	switch {
	case k.failed == 0:
		k.next *= 1.5
	case k.best == 0:
		k.next /= 2
	default:
		k.next = math.Sqrt(k.best * k.failed)
	}
}

// Found is the highest rate that held, 0 where none did, and the lowest that
// did not.
func (k *Knee) Found() (best, failed float64) { return k.best, k.failed }

// Found is a knee with the way to it.
type Found struct {
	Within  []string
	Best    float64 // requests a second; 0: not even the least that was tried
	Failed  float64 // the lowest rate that failed
	AtLeast string  // why the search ended early, where it did: the knee is above Best
	Tried   []Tried
}

// Tried is one rate.
type Tried struct {
	Rate float64
	Held bool
	Was  string
}

// FindKnee searches for a plan's knee. measure measures one rate; name is the
// directory that its recording is to have among those of the search.
func FindKnee(p Plan, within []string, tolerance float64, live io.Writer, measure func(p Plan, name string) (*record.Run, error)) (*Found, error) {
	if len(within) == 0 {
		return nil, errors.New("a knee is searched within a bound, such as \"produce p99 < 2ms\"")
	}
	p.Expect, p.Saturate = within, false
	found := &Found{Within: within}
	k := NewKnee(p.Rate, tolerance)
	for n := 1; ; n++ {
		rate, ok := k.Next()
		if !ok {
			break
		}
		p.Rate, p.Name = rate, fmt.Sprintf("%.0f/s", rate)
		run, err := measure(p, fmt.Sprintf("%02d-%.0f", n, rate))
		if err != nil {
			return nil, err
		}
		held, was := holds(run)
		found.Tried = append(found.Tried, Tried{rate, held, was})
		if live != nil {
			fmt.Fprintf(live, "%.0f/s: %s\n", rate, was)
		}
		if limited := slices.IndexFunc(run.Notes, func(n string) bool { return strings.HasPrefix(n, GeneratorLimit) }); limited >= 0 && !held {
			found.AtLeast = run.Notes[limited]
			break
		}
		k.Tell(held)
	}
	found.Best, found.Failed = k.Found()
	return found, nil
}

// holds says whether a run is within its bound.
func holds(run *record.Run) (held bool, was string) {
	held = true
	for _, c := range run.Verdict {
		held = held && c.Held
		was += c.Expected + ": " + c.Was + "  "
	}
	unfinished, _ := run.Figure("unfinished")
	if !Carried(run) || unfinished > 0 {
		held = false
		share, _ := run.Figure("carried")
		errs, _ := run.Figure("errors")
		was += fmt.Sprintf("carried %.0f %%, %.0f without an answer, %.0f errors  ", share*100, unfinished, errs)
	}
	if !held {
		return false, was + "FAILS"
	}
	return true, was + "holds"
}

// Print says it to people.
func (f *Found) Print(w io.Writer, records, recordBytes int) {
	fmt.Fprintf(w, "\nknee within %s\n", strings.Join(f.Within, " and "))
	mb := func(rate float64) float64 { return rate * float64(records*recordBytes) / 1e6 }
	switch {
	case f.Best == 0 && f.AtLeast != "":
		fmt.Fprintf(w, "  nothing held, and it cannot be said of the broker: %s\n", f.AtLeast)
	case f.Best == 0:
		fmt.Fprintf(w, "  not even %.0f requests/s held\n", f.Failed)
	case f.AtLeast != "":
		fmt.Fprintf(w, "  at least %.0f requests/s, %.1f MB/s: %s\n", f.Best, mb(f.Best), f.AtLeast)
	default:
		fmt.Fprintf(w, "  %.0f requests/s, %.1f MB/s; %.0f/s fails\n", f.Best, mb(f.Best), f.Failed)
	}
}
