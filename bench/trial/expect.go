package trial

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tailbound/tailbound/bench/record"
)

// An expectation is "SERIES pN < DURATION" or "FIGURE < NUMBER", with <, <=, =,
// >= or >.
type expectation struct {
	text       string
	what       string  // series or figure
	percentile float64 // of a series; 0: a figure
	than       string
	bound      float64
}

func parseExpectation(s string) (e expectation, err error) {
	f := strings.Fields(s)
	e.text = s
	switch {
	case len(f) == 4 && (strings.HasPrefix(f[1], "p") || f[1] == "max"):
		if e.percentile = 100; f[1] != "max" {
			if e.percentile, err = strconv.ParseFloat(f[1][1:], 64); err != nil || e.percentile <= 0 || e.percentile > 100 {
				return e, fmt.Errorf("%q: %s is no percentile", s, f[1])
			}
		}
		bound, err := time.ParseDuration(f[3])
		if err != nil {
			return e, fmt.Errorf("%q: %w", s, err)
		}
		e.bound = float64(bound)
	case len(f) >= 3:
		if e.bound, err = strconv.ParseFloat(f[len(f)-1], 64); err != nil {
			return e, fmt.Errorf("%q: %w", s, err)
		}
	default:
		return e, fmt.Errorf("%q is no expectation, such as \"produce p99 < 5ms\" or \"lost = 0\"", s)
	}
	e.than = f[len(f)-2]
	e.what = strings.Join(f[:len(f)-2], " ")
	if e.percentile > 0 {
		e.what = f[0]
	}
	if !strings.Contains(" < <= = >= > ", " "+e.than+" ") {
		return e, fmt.Errorf("%q: %s is none of < <= = >= >", s, e.than)
	}
	return e, nil
}

func (e expectation) check(pooled map[string]*record.Histogram, run *record.Run) record.Check {
	c := record.Check{Expected: e.text}
	var was float64
	if e.percentile > 0 {
		h := pooled[e.what]
		if h == nil || h.Count() == 0 {
			c.Was = "nothing was recorded"
			return c
		}
		ns := h.At(e.percentile)
		was, c.Was = float64(ns), Short(ns)
	} else {
		v, ok := run.Figure(e.what)
		if !ok {
			c.Was = "there is no such figure"
			return c
		}
		was, c.Was = v, strconv.FormatFloat(v, 'g', 6, 64)
	}
	switch e.than {
	case "<":
		c.Held = was < e.bound
	case "<=":
		c.Held = was <= e.bound
	case "=":
		c.Held = was == e.bound
	case ">=":
		c.Held = was >= e.bound
	case ">":
		c.Held = was > e.bound
	}
	return c
}

// Short is a duration with three digits: 950 ns, 12.3 us, 1.20 ms, 3.00 s.
func Short(ns int64) string {
	v, unit := float64(ns), "ns"
	for _, u := range []string{"us", "ms", "s"} {
		if v < 999.5 {
			break
		}
		v, unit = v/1000, u
	}
	if unit == "ns" {
		return fmt.Sprintf("%d ns", ns)
	}
	if v < 99.95 {
		return fmt.Sprintf("%.3g %s", v, unit)
	}
	return fmt.Sprintf("%.0f %s", v, unit)
}
