package page

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/tailbound/tailbound/bench/record"
)

//go:embed page.html
var text string

// data is what the page's script draws.
type data struct {
	Title      string      `json:"title"`
	Recordings []recording `json:"recordings"`
}

type recording struct {
	Name     string            `json:"name"`
	Why      string            `json:"why,omitempty"`
	Started  string            `json:"started"`
	Seconds  float64           `json:"seconds"`
	Promise  string            `json:"promise,omitempty"`
	Machine  record.Machine    `json:"machine"`
	Versions map[string]string `json:"versions,omitempty"`
	Asked    json.RawMessage   `json:"asked,omitempty"`
	Figures  []record.Figure   `json:"figures"`
	Notes    []string          `json:"notes"`
	Verdict  []record.Check    `json:"verdict"`
	Series   []series          `json:"series"`
	Profile  json.RawMessage   `json:"profile,omitempty"`
}

// series is one distribution, whole and over time.
type series struct {
	Name   string       `json:"name"`
	Noise  bool         `json:"noise"` // of the machine or the generator, not of the system
	Count  int64        `json:"count"`
	P      [6]int64     `json:"p"`      // p50 p90 p99 p99.9 p99.99 max, ns
	Curve  [][2]float64 `json:"curve"`  // 1/(1-quantile), ns
	Over   [][5]float64 `json:"over"`   // from s, to s, p50, p99, max
	Cells  [][3]float64 `json:"cells"`  // interval, bin, count
	Bottom int          `json:"bottom"` // the lowest bin
	Top    int          `json:"top"`
}

// binsPerDecade is how fine the heat map is.
const binsPerDecade = 10

func bin(ns int64) int { return int(math.Floor(math.Log10(float64(max(ns, 1))) * binsPerDecade)) }

// Write makes the page.
func Write(w io.Writer, title string, all []record.Recording) error {
	d := data{Title: title}
	for _, r := range all {
		d.Recordings = append(d.Recordings, view(r))
	}
	page, err := template.New("page").Parse(text)
	if err != nil {
		return err
	}
	// The template's escaper knows that data stands in a script.
	return page.Execute(w, d)
}

func view(r record.Recording) recording {
	name := r.Run.Name
	if r.Path != "." && r.Path != "" && !strings.HasSuffix(r.Path, name) {
		name = r.Path + ", " + name
	}
	v := recording{
		Name: name, Why: r.Run.Why, Seconds: r.Run.Seconds, Promise: r.Run.Promise, Machine: r.Run.Machine, Versions: r.Run.Versions,
		Asked: r.Run.Configuration, Figures: r.Run.Figures, Notes: r.Run.Notes, Verdict: r.Run.Verdict, Profile: r.Run.Profile,
	}
	if !r.Run.Started.IsZero() {
		v.Started = r.Run.Started.UTC().Format("2006-01-02 15:04:05 UTC")
	}
	for _, s := range record.SeriesOf(r.Intervals) {
		v.Series = append(v.Series, viewSeries(s, r.Intervals))
	}
	slices.SortStableFunc(v.Series, func(a, b series) int {
		switch {
		case a.Noise != b.Noise && a.Noise:
			return 1
		case a.Noise != b.Noise:
			return -1
		}
		return 0
	})
	return v
}

func viewSeries(name string, all []record.Interval) series {
	h := record.Pool(all, name)
	s := series{Name: name, Count: h.Count(), Bottom: math.MaxInt, Noise: strings.HasPrefix(name, "hiccup") || strings.HasSuffix(name, "-lag")}
	s.P = [6]int64{h.At(50), h.At(90), h.At(99), h.At(99.9), h.At(99.99), h.Max()}
	// Steps of an eighth of a halving, up to what the count can say.
	for x := 1.0; x <= float64(h.Count()); x *= math.Pow(2, 0.125) {
		s.Curve = append(s.Curve, [2]float64{round(x), float64(h.At(100 * (1 - 1/x)))})
	}
	if n := float64(h.Count()); n > 0 {
		s.Curve = append(s.Curve, [2]float64{n, float64(h.Max())})
	}
	for _, i := range all {
		if i.Series != name {
			continue
		}
		bins := map[int]int64{}
		i.H.Each(func(ns, count int64) { bins[bin(ns)] += count })
		for b, n := range bins {
			s.Cells = append(s.Cells, [3]float64{float64(len(s.Over)), float64(b), float64(n)})
			s.Bottom, s.Top = min(s.Bottom, b), max(s.Top, b)
		}
		s.Over = append(s.Over, [5]float64{float64(i.StartNS) / 1e9, float64(i.EndNS) / 1e9, float64(i.H.At(50)), float64(i.H.At(99)), float64(i.H.Max())})
	}
	slices.SortFunc(s.Cells, func(a, b [3]float64) int {
		if a[0] != b[0] {
			return int(a[0] - b[0])
		}
		return int(a[1] - b[1])
	})
	if s.Bottom > s.Top {
		s.Bottom = s.Top
	}
	return s
}

func round(x float64) float64 { return math.Round(x*1e4) / 1e4 }

// Title is the default title of a page.
func Title(all []record.Recording) string {
	if len(all) == 1 {
		return all[0].Run.Name
	}
	return fmt.Sprintf("%d recordings", len(all))
}
