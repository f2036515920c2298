package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	runFile = "run.json"
	logFile = "latency.hlog"
)

// Run is one recording's run.json.
type Run struct {
	Format        int // 1
	Name          string
	Why           string `json:",omitempty"`
	Started       time.Time
	Seconds       float64 // measured
	Machine       Machine
	Versions      map[string]string `json:",omitempty"` // of the system and of the measuring program
	Promise       string            `json:",omitempty"` // what an acknowledgement of the system means
	Configuration json.RawMessage   `json:",omitempty"` // what was asked for
	Figures       []Figure          // what is not a distribution
	Series        map[string]Summary
	Notes         []string        `json:",omitempty"` // what a reader must know before believing any of it
	Verdict       []Check         `json:",omitempty"` // what was expected, and whether it held
	Profile       json.RawMessage `json:",omitempty"` // of a Tailbound broker, over the measured time
}

// Figure is one number with its name and unit.
type Figure struct {
	Name  string
	Value float64
	Unit  string `json:",omitempty"`
	Ratio bool   `json:"-"` // inside its run, to be held against that of other runs
}

// Check is one expectation.
type Check struct {
	Expected string
	Was      string
	Held     bool
}

// Figure finds a figure by name.
func (r *Run) Figure(name string) (float64, bool) {
	i := slices.IndexFunc(r.Figures, func(f Figure) bool { return f.Name == name })
	if i < 0 {
		return 0, false
	}
	return r.Figures[i].Value, true
}

// A Recorder writes a recording while it is made.
type Recorder struct {
	dir  string
	file *os.File
	log  *Log
}

// Create begins a recording in dir, which is made. One that is there already
// is not written over.
func Create(dir string, start time.Time, comment string) (*Recorder, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, logFile), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%s has a recording already; give another directory", dir)
	}
	if err != nil {
		return nil, err
	}
	l, err := NewLog(f, start, comment)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Recorder{dir, f, l}, nil
}

// Add writes one interval.
func (r *Recorder) Add(i Interval) error { return r.log.Add(i) }

// Finish ends the recording with its page.
func (r *Recorder) Finish(run *Run) error {
	run.Format = 1
	b, err := json.MarshalIndent(run, "", " ")
	if err == nil {
		err = os.WriteFile(filepath.Join(r.dir, runFile), append(b, '\n'), 0o644)
	}
	return errors.Join(err, r.file.Close())
}

// Write makes a whole recording of intervals that are there already; the page gets
// the series of them.
func Write(dir string, run *Run, intervals []Interval) error {
	r, err := Create(dir, run.Started, run.Name+"\n"+run.Machine.Lines())
	if err != nil {
		return err
	}
	run.Series = map[string]Summary{}
	for _, series := range SeriesOf(intervals) {
		run.Series[series] = Pool(intervals, series).Summary()
	}
	for _, i := range intervals {
		if err := r.Add(i); err != nil {
			return errors.Join(err, r.Finish(run))
		}
	}
	return r.Finish(run)
}

// Recording is one that was read.
type Recording struct {
	Path      string // below the directory that was asked for; "." for itself
	Run       Run
	Intervals []Interval
}

// Read reads the recordings in dir and below, sorted by path. A file whose
// name ends in .hlog is one too, without a page.
func Read(dir string) (all []Recording, err error) {
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		intervals, err := readLogFile(dir)
		if err != nil {
			return nil, err
		}
		return []Recording{{Path: ".", Run: Run{Name: filepath.Base(dir)}, Intervals: intervals}}, nil
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() != runFile {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var r Recording
		if err := json.Unmarshal(b, &r.Run); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if r.Run.Format != 1 {
			return fmt.Errorf("%s: format %d, this version reads 1", path, r.Run.Format)
		}
		if r.Path, err = filepath.Rel(dir, filepath.Dir(path)); err != nil {
			return err
		}
		if r.Intervals, err = readLogFile(filepath.Join(filepath.Dir(path), logFile)); err != nil {
			return err
		}
		all = append(all, r)
		return nil
	})
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("%s has no recording (%s) in it", dir, runFile)
	}
	return all, err
}

func readLogFile(path string) ([]Interval, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, err := ReadLog(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return all, nil
}
