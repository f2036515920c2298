package record

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Interval is what one series recorded within a part of a recording.
type Interval struct {
	Series  string
	StartNS int64 // since the recording's start
	EndNS   int64
	H       Packed
}

// Log writes intervals as they come. A reader may look at it meanwhile: every
// line is whole.
type Log struct{ w io.Writer }

// NewLog begins a log of a recording that started at start.
func NewLog(w io.Writer, start time.Time, comment string) (*Log, error) {
	for _, line := range strings.Split(strings.TrimSpace(comment), "\n") {
		if _, err := fmt.Fprintf(w, "#%s\n", line); err != nil {
			return nil, err
		}
	}
	at := float64(start.UnixMilli()) / 1000
	_, err := fmt.Fprintf(w, "#[Histogram log format version 1.3]\n#[BaseTime: %.3f (seconds since epoch)]\n#[StartTime: %.3f (seconds since epoch), %s]\n"+
		"\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"HistogramEncodedPayload\"\n", at, at, start.UTC().Format(time.RFC3339))
	return &Log{w}, err
}

// Add writes one interval. The greatest value is said in milliseconds, as the
// tools expect of nanoseconds.
func (l *Log) Add(i Interval) error {
	if strings.ContainsAny(i.Series, ", \r\n") {
		return fmt.Errorf("series %q: a tag has no commas and no spaces", i.Series)
	}
	text, err := i.H.text()
	if err != nil {
		return err
	}
	tag := ""
	if i.Series != "" {
		tag = "Tag=" + i.Series + ","
	}
	_, err = fmt.Fprintf(l.w, "%s%.3f,%.3f,%.3f,%s\n", tag, float64(i.StartNS)/1e9, float64(i.EndNS-i.StartNS)/1e9, float64(i.H.max)/1e6, text)
	return err
}

// ReadLog reads a log of any program. A last line that is cut, as when the process was
// killed, ends it.
func ReadLog(r io.Reader) (all []Interval, err error) {
	in := bufio.NewReader(r)
	var start, base float64
	for n := 1; ; n++ {
		line, err := in.ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if err != nil {
			return all, nil
		}
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '"':
			continue
		case line[0] == '#':
			_, _ = fmt.Sscanf(line, "#[StartTime: %f", &start)
			_, _ = fmt.Sscanf(line, "#[BaseTime: %f", &base)
			continue
		}
		var i Interval
		if rest, ok := strings.CutPrefix(line, "Tag="); ok {
			i.Series, line, _ = strings.Cut(rest, ",")
		}
		f := strings.Split(line, ",")
		if len(f) != 4 {
			return nil, fmt.Errorf("line %d: %d fields, not 4", n, len(f))
		}
		var v [3]float64
		for k := range v {
			if v[k], err = strconv.ParseFloat(f[k], 64); err != nil {
				return nil, fmt.Errorf("line %d: %w", n, err)
			}
		}
		if i.H, err = unpack(f[3]); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		// A log without a base has times of the day they were taken, as its
		// format allows.
		if base == 0 && start > 0 && v[0] >= start {
			v[0] -= start
		}
		i.StartNS = int64(v[0]*1e3+0.5) * 1e6
		i.EndNS = i.StartNS + int64(v[1]*1e3+0.5)*1e6
		if said := int64(v[2] * 1e6); said > i.H.max/2 && said < i.H.max {
			i.H.max = said // three digits of a millisecond are nearer than the bucket's edge
		}
		all = append(all, i)
	}
}

// Pool adds up the intervals of one series.
func Pool(all []Interval, series string) *Histogram {
	h := NewHistogram()
	for _, i := range all {
		if i.Series == series {
			i.H.Into(h)
		}
	}
	return h
}

// SeriesOf names the series in the order they first came.
func SeriesOf(all []Interval) (names []string) {
	seen := map[string]bool{}
	for _, i := range all {
		if !seen[i.Series] {
			seen[i.Series] = true
			names = append(names, i.Series)
		}
	}
	return names
}
