package trial

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tailbound/tailbound/bench/load"
	"github.com/tailbound/tailbound/bench/record"
)

// System is what is measured.
type System struct {
	Address      string
	Command      []string // starts a generating process that speaks its protocol; nil: Env's
	PID          int      // 0: its CPU time is not known
	CPUs         []int    // that it should keep to: threads that may leave them are named; none: no thread is
	ReadySeconds float64  // how long its start took; 0: it was there before
	Promise      string   // what its acknowledgement means, briefly, and behind a colon how
	Versions     map[string]string

	Restart func(context.Context) (pid int, err error) // ends it and starts it again; nil: cannot be done
	Profile func() (func() json.RawMessage, error)     // begins a profile and gives what ends it; nil: there is none
	Beside  func(context.Context) (Ending, error)      // starts what goes on beside the load; nil: nothing does
}

// An Ending ends what went on beside a load and says what that was.
type Ending func() ([]record.Figure, error)

// Env is where and how a trial is made.
type Env struct {
	Command  []string  // starts a generating process: Generate
	LoadCPUs []int     // the cores of generating processes, in turn; none: any
	Watch    []int     // cores whose hiccups are recorded beside
	Dir      string    // the recording's
	Live     io.Writer // progress; nil: none
	Terminal bool      // Live may be written over
	Disk     string    // a directory on the file system that is described
	Label    map[string]string
}

// Below is this environment with the recording in a directory below its own.
func (e Env) Below(names ...string) Env {
	e.Dir = filepath.Join(append([]string{e.Dir}, names...)...)
	return e
}

// Run measures one plan.
func Run(ctx context.Context, p Plan, s System, e Env) (*record.Run, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	if len(p.Restarts) > 0 && s.Restart == nil {
		return nil, errors.New("the plan restarts the broker, and nothing says how to: let it be started here, or say what command restarts it")
	}
	var notes []string
	if p.AtMost > 0 {
		note, err := p.scale(ctx, s, e)
		if err != nil {
			return nil, err
		}
		notes = append(notes, note)
	}
	if p.Topic == "" {
		p.Topic = NewTopic()
		defer p.remove(s, e)
	}
	if p.Fill > 0 {
		if err := p.fill(ctx, s, e); err != nil {
			return nil, fmt.Errorf("before the measurement: %w", err)
		}
	}
	t := &trial{Plan: p, system: s, env: e, notes: notes}
	return t.run(ctx)
}

// NewTopic is a name that no topic has yet.
func NewTopic() string { return fmt.Sprintf("bench-%d", time.Now().UnixMilli()) }

// remove deletes the topics that were made for this trial, with their data.
func (p *Plan) remove(s System, e Env) {
	topics := load.Topics(p.Topic, p.Hops)
	if err := load.Remove(s.Address, topics); err != nil && e.Live != nil {
		fmt.Fprintf(e.Live, "%s is left at the broker: %v\n", strings.Join(topics, ", "), err)
	}
}

// The recordings of what is done before a measurement lie below its own.
const (
	calibration = "calibration"
	filling     = "fill"
)

// IsMeans says whether a recording, by its path, was only a means to another one.
func IsMeans(path string) bool {
	base := filepath.Base(path)
	return base == calibration || base == filling
}

// closedLoop is this plan without anything but a closed loop of producers.
func (p *Plan) closedLoop(name string, duration time.Duration) Plan {
	c := *p
	c.Name, c.Duration, c.Interval = name, duration, time.Second
	c.Saturate, c.AtMost, c.Fill, c.Restarts, c.Verify, c.Expect, c.Arrivals = true, 0, 0, nil, false, nil, ""
	c.Inflight = min(p.Inflight, 16)
	return c
}

// fill puts a closed loop on the topic of the measurement.
func (p *Plan) fill(ctx context.Context, s System, e Env) error {
	before := p.closedLoop(filling, p.Fill)
	before.Readers = nil
	s.Profile, s.Beside = nil, nil
	_, err := Run(ctx, before, s, e.Below(filling))
	return err
}

// scale bounds the rate by what the system was seen to carry.
func (p *Plan) scale(ctx context.Context, s System, e Env) (string, error) {
	probe := p.closedLoop(calibration, 3*time.Second)
	probe.Warmup, probe.Topic = time.Second, ""
	probe.Readers = slices.DeleteFunc(slices.Clone(p.Readers), func(r Reader) bool { return r.After > 0 || r.BytesPerSecond > 0 })
	s.Beside = nil
	run, err := Run(ctx, probe, s, e.Below(calibration))
	if err != nil {
		return "", fmt.Errorf("calibration: %w", err)
	}
	carried, _ := run.Figure("requests/s")
	limit := carried * p.AtMost
	if p.Rate > 0 && p.Rate <= limit {
		return fmt.Sprintf("the full rate, %.0f requests/s, is within %.0f %% of the %.0f/s that a closed loop carried just before", p.Rate, p.AtMost*100, carried), nil
	}
	note := fmt.Sprintf("scaled to this machine: %.0f requests/s, %.0f %% of the %.0f/s that a closed loop carried just before; the full rate is %.0f/s", limit, p.AtMost*100, carried, p.Rate)
	p.From *= limit / max(p.Rate, 1)
	p.Rate, p.Saturate, p.AtMost = limit, false, 0
	return note, nil
}

type trial struct {
	Plan
	system  System
	env     Env
	notes   []string
	out     *record.Recorder
	pooled  map[string]*record.Histogram
	ordered map[int64]*load.Interval // by their number
	heard   []int64                  // each process's last
	results []*load.Result
	last    time.Time
	packed  []load.Interval // all, for what changes over time
}

func (t *trial) run(ctx context.Context) (*record.Run, error) {
	var loads []load.Options
	for i := range t.Processes {
		o := t.options(t.system.Address, i)
		if i == 0 {
			o.ServerPID = t.system.PID
		}
		loads = append(loads, o)
	}
	machine := record.Describe(t.env.Disk)
	beside := func() ([]record.Figure, error) { return nil, nil }
	if t.system.Beside != nil {
		end, err := t.system.Beside(ctx)
		if err != nil {
			return nil, err
		}
		beside = sync.OnceValues(end)
		defer beside() // where the load failed its error is the one to tell
	}
	command := t.env.Command
	if t.system.Command != nil {
		command = t.system.Command
	}
	c, err := startGenerators(ctx, command, t.env.LoadCPUs, loads)
	if err != nil {
		return nil, err
	}
	defer c.kill()
	begin := load.Now() + 50e6
	window := begin + int64(t.Warmup)
	started := time.Now().Add(time.Duration(window - load.Now()))
	if t.out, err = record.Create(t.env.Dir, started, "tailbound bench "+t.Name+"\n"+machine.Lines()); err != nil {
		return nil, err
	}
	if err := c.begin(begin); err != nil {
		return nil, err
	}
	hiccups := watchHiccups(t.env.Watch, window, int64(t.Duration), int64(t.Interval))
	profile, used := t.profile(window), t.watchUsage(window)
	restarts := t.restart(ctx, begin)
	if err := t.collect(ctx, c); err != nil {
		return nil, err
	}
	for _, i := range hiccups() {
		t.add(i)
		if err := t.out.Add(i); err != nil {
			return nil, err
		}
	}
	notes, err := restarts()
	if err != nil {
		return nil, err
	}
	t.notes = append(t.notes, notes...)
	figures, err := beside()
	if err != nil {
		return nil, err
	}
	run := t.page(machine, started, figures, used)
	run.Profile = profile()
	return run, t.out.Finish(run)
}

// profile takes one of the measured time.
func (t *trial) profile(window int64) func() json.RawMessage {
	if t.system.Profile == nil {
		return func() json.RawMessage { return nil }
	}
	got := make(chan json.RawMessage, 1)
	go func() {
		time.Sleep(time.Duration(window - load.Now()))
		end, err := t.system.Profile()
		if err != nil {
			got <- nil
			return
		}
		time.Sleep(time.Duration(window + int64(t.Duration) - load.Now()))
		got <- end()
	}()
	return func() json.RawMessage { return <-got }
}

// restart does the plan's restarts beside the load.
func (t *trial) restart(ctx context.Context, begin int64) func() ([]string, error) {
	type ended struct {
		notes []string
		err   error
	}
	got := make(chan ended, 1)
	go func() {
		var e ended
		for _, at := range t.Restarts {
			select {
			case <-time.After(time.Duration(begin + int64(at) - load.Now())):
			case <-ctx.Done():
				got <- e
				return
			}
			start := time.Now()
			if _, err := t.system.Restart(ctx); err != nil {
				e.err = fmt.Errorf("restarting the broker: %w", err)
				break
			}
			e.notes = append(e.notes, fmt.Sprintf("the broker was ended and started again %v after the load began; it served again after %v", at, time.Since(start).Round(time.Millisecond)))
		}
		got <- e
	}()
	return func() ([]string, error) {
		e := <-got
		return e.notes, e.err
	}
}

// collect hears all processes to their end.
func (t *trial) collect(ctx context.Context, c *generators) error {
	t.pooled, t.ordered, t.heard = map[string]*record.Histogram{}, map[int64]*load.Interval{}, make([]int64, len(c.all))
	limit := time.After(t.Warmup + t.Duration + t.Drain + 60*time.Second)
	for open := len(c.all); open > 0; {
		select {
		case s := <-c.lines:
			switch {
			case errors.Is(s.err, io.EOF):
				open--
				t.heard[s.from] = math.MaxInt64
			case s.err != nil:
				return fmt.Errorf("the load generator: %w", s.err)
			case s.Interval != nil:
				t.hear(s.from, s.Interval)
			case s.Result != nil:
				t.results = append(t.results, s.Result)
			}
			if err := t.flush(); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		case <-limit:
			return errors.New("the load generator has not ended a minute after its time")
		}
	}
	if len(t.results) != len(c.all) {
		return fmt.Errorf("%d of %d generating processes gave a result", len(t.results), len(c.all))
	}
	if t.env.Live != nil && t.env.Terminal {
		fmt.Fprintln(t.env.Live)
	}
	return nil
}

// hear keeps an interval until every process has said its own of that time.
func (t *trial) hear(from int, i *load.Interval) {
	number := (i.EndNS + int64(t.Interval)/2) / int64(t.Interval)
	t.heard[from] = number
	have := t.ordered[number]
	if have == nil {
		t.ordered[number] = i
		return
	}
	have.StartNS, have.EndNS = min(have.StartNS, i.StartNS), max(have.EndNS, i.EndNS)
	have.Requests, have.ReadBytes, have.Errors, have.Held = have.Requests+i.Requests, have.ReadBytes+i.ReadBytes, have.Errors+i.Errors, have.Held+i.Held
	for _, s := range i.Series {
		k := slices.IndexFunc(have.Series, func(o record.Interval) bool { return o.Series == s.Series })
		if k < 0 {
			have.Series = append(have.Series, s)
			continue
		}
		both := record.NewHistogram()
		have.Series[k].H.Into(both)
		s.H.Into(both)
		have.Series[k].H = both.Pack()
		have.Series[k].StartNS, have.Series[k].EndNS = have.StartNS, have.EndNS
	}
}

func (t *trial) flush() error {
	upTo := slices.Min(t.heard)
	for _, number := range slices.Sorted(maps.Keys(t.ordered)) {
		if number > upTo {
			break
		}
		i := t.ordered[number]
		delete(t.ordered, number)
		for _, s := range i.Series {
			t.add(s)
			if err := t.out.Add(s); err != nil {
				return err
			}
		}
		t.packed = append(t.packed, *i)
		t.live(i)
	}
	return nil
}

func (t *trial) add(i record.Interval) {
	h := t.pooled[i.Series]
	if h == nil {
		h = record.NewHistogram()
		t.pooled[i.Series] = h
	}
	i.H.Into(h)
}

// live shows an interval: on a terminal in place, elsewhere every ten seconds.
func (t *trial) live(i *load.Interval) {
	if t.env.Live == nil || !t.env.Terminal && time.Since(t.last) < 10*time.Second {
		return
	}
	t.last = time.Now()
	seconds := float64(i.EndNS-i.StartNS) / 1e9
	line := fmt.Sprintf("%3.0f %%  %.0f s  %.0f/s  %.1f MB/s", min(100, float64(i.EndNS)*100/float64(t.Duration)), float64(i.EndNS)/1e9,
		float64(i.Requests)/seconds, float64(i.Requests)/seconds*float64(t.Records*t.RecordBytes)/1e6)
	for _, s := range i.Series {
		switch s.Series {
		case load.Produce:
			line += fmt.Sprintf("  p50 %s  p99 %s  max %s", Short(s.H.At(50)), Short(s.H.At(99)), Short(s.H.Max()))
		case load.Lag:
			line += fmt.Sprintf("  lag %s", Short(s.H.At(99)))
		default:
			line += fmt.Sprintf("  %s p50 %s  p99 %s", s.Series, Short(s.H.At(50)), Short(s.H.At(99)))
		}
	}
	if i.Errors > 0 {
		line += fmt.Sprintf("  %d errors", i.Errors)
	}
	if t.env.Terminal {
		fmt.Fprintf(t.env.Live, "\r\x1b[K%s", line)
	} else {
		fmt.Fprintln(t.env.Live, line)
	}
}

// page is the recording's page.
func (t *trial) page(machine record.Machine, started time.Time, beside []record.Figure, used func() (first, last usage)) *record.Run {
	run := &record.Run{
		Name: t.Name, Why: strings.TrimSpace(t.Why), Started: started, Seconds: t.Duration.Seconds(), Machine: machine,
		Versions: maps.Clone(t.system.Versions), Promise: t.system.Promise, Series: map[string]record.Summary{}, Notes: t.notes,
	}
	for k, v := range t.env.Label {
		if run.Versions == nil {
			run.Versions = map[string]string{}
		}
		run.Versions[k] = v
	}
	run.Configuration, _ = json.Marshal(t.Plan) // of numbers and strings
	for name, h := range t.pooled {
		run.Series[name] = h.Summary()
	}
	t.figures(run)
	first, last := used()
	t.usageFigures(first, last, run)
	run.Figures = append(run.Figures, beside...)
	for _, text := range t.Expect {
		e, err := parseExpectation(text)
		if err != nil {
			continue // Check has refused it
		}
		run.Verdict = append(run.Verdict, e.check(t.pooled, run))
	}
	return run
}

func (t *trial) figures(run *record.Run) {
	sum := load.Result{Errors: map[string]int64{}}
	carried, steal := 1.0, 0.0
	var cpu []float64
	for _, r := range t.results {
		sum.RequestsPerSec += r.RequestsPerSec
		sum.MBPerSec += r.MBPerSec
		sum.Held += r.Held
		sum.Unfinished += r.Unfinished
		sum.EndToEndLost += r.EndToEndLost
		sum.Lost += r.Lost
		sum.Duplicates += r.Duplicates
		sum.Reconnects += r.Reconnects
		sum.ServerCPU += r.ServerCPU
		carried, steal = min(carried, r.Carried), max(steal, r.Steal)
		cpu = append(cpu, r.GeneratorCPU)
		for what, n := range r.Errors {
			sum.Errors[what] += n
		}
		if r.GeneratorLimited != "" {
			run.Notes = append(run.Notes, GeneratorLimit+": "+r.GeneratorLimited+"; believe less of it, give it more --processes or a core of its own, or lower the rate")
		}
	}
	var errs int64
	for _, n := range sum.Errors {
		errs += n
	}
	add := func(name string, v float64, unit string) {
		run.Figures = append(run.Figures, record.Figure{Name: name, Value: v, Unit: unit})
	}
	if !t.Saturate {
		add("offered", t.Rate, "requests/s")
	}
	add("requests/s", sum.RequestsPerSec, "")
	add("MB/s", sum.MBPerSec, "")
	add("carried", carried, "of what was offered")
	if t.system.PID != 0 && len(t.Restarts) == 0 {
		add("system CPU", sum.ServerCPU, "cores")
	}
	add("generator CPU", slices.Max(cpu), "of a core, the busiest process")
	add("steal", steal, "of the machine's time")
	add("held", float64(sum.Held), "requests sent late because the system held them back")
	add("unfinished", float64(sum.Unfinished), "requests without an answer, counted with what they had waited")
	add("errors", float64(errs), "")
	if t.Verify {
		add("lost", float64(sum.Lost), "acknowledged requests that were never read back")
		add("duplicates", float64(sum.Duplicates), "requests read back more than once")
	}
	if len(t.Restarts) > 0 {
		add("reconnects", float64(sum.Reconnects), "")
	}
	for k, r := range t.results[0].Readers {
		mb, behind := 0.0, r.CaughtUpNS
		for _, o := range t.results {
			mb += o.Readers[k].MBPerSec
			if behind = max(behind, o.Readers[k].CaughtUpNS); o.Readers[k].CaughtUpNS < 0 {
				behind = -1
				break
			}
		}
		add(r.Name+" read", mb, fmt.Sprintf("MB/s, all %d", r.Count))
		if behind > 0 {
			add(r.Name+" caught up after", float64(behind)/1e9, "s")
		}
		if behind < 0 && t.Readers != nil {
			run.Notes = append(run.Notes, fmt.Sprintf("%s did not catch up within the run", r.Name))
		}
	}
	t.endToEnd(run)
	t.behind(run)
	t.trend(run)
	say := func(format string, a ...any) { run.Notes = append(run.Notes, fmt.Sprintf(format, a...)) }
	if carried < carriedLeast && !t.Saturate {
		say("the system could not carry the rate (%.0f %%); its queue grew for as long as it was asked, and percentiles say how long that was", carried*100)
	}
	if t.Saturate {
		say(ClosedLoop)
	}
	if t.Acks == "0" {
		say("acks=0 has no answer: produce is the time until the socket took the request")
	}
	if sum.Unfinished > 0 {
		say("%d requests had no answer", sum.Unfinished)
	}
	if sum.EndToEndLost > 0 && sum.Lost == 0 {
		say("%d acknowledged batches were not read back in time", sum.EndToEndLost)
	}
	if steal > 0.01 {
		say("the host took %.1f %% of the machine's time", steal*100)
	}
	for _, what := range slices.Sorted(maps.Keys(sum.Errors)) {
		say("%d x %s", sum.Errors[what], what)
	}
}

// What notes begin with that other code looks for.
const (
	GeneratorLimit = "the load generator was the limit"
	ClosedLoop     = "a closed loop: latencies say how deep the queue was, no more"
)

// carriedLeast is the share of an offered rate below which a system could not
// carry it; above it the difference is what is in flight at the window's end.
const carriedLeast = 0.98

// Carried says whether a run may be compared with others: its system carried the
// rate, and answered nothing with an error.
func Carried(run *record.Run) bool {
	if run == nil {
		return false
	}
	share, ok := run.Figure("carried")
	failed, _ := run.Figure("errors")
	return ok && share >= carriedLeast && failed == 0
}

// trend says how the end of a run differs from its beginning, which is what a
// soak is made for: the last fifth from the first, of five minutes or more the
// last minute from the second.
func (t *trial) trend(run *record.Run) {
	n := len(t.packed)
	if n < 20 {
		return
	}
	first, last, unit := t.packed[:n/5], t.packed[n-n/5:], "p99 of the last fifth of the time to that of the first"
	if m := int(time.Minute / t.Interval); n >= 5*m {
		first, last, unit = t.packed[m:2*m], t.packed[n-m:], "p99 of the last minute to that of the second"
	}
	if was := p99(first); was > 0 {
		run.Figures = append(run.Figures, record.Figure{Name: "drift", Value: p99(last) / was, Unit: unit, Ratio: true})
	}
}

// behind says what readers that begin behind do to producers: while they catch
// up, to before they began.
func (t *trial) behind(run *record.Run) {
	for k, r := range t.Readers {
		if r.After == 0 {
			continue
		}
		begin := int64(r.After - t.Warmup)
		end := begin
		for _, o := range t.results {
			caught := o.Readers[k].CaughtUpNS
			if caught < 0 {
				caught = int64(t.Duration)
			}
			end = max(end, begin+caught)
		}
		var before, during []load.Interval
		for _, i := range t.packed {
			switch {
			case i.EndNS <= begin:
				before = append(before, i)
			case i.StartNS < end:
				during = append(during, i)
			}
		}
		if was, is := p99(before), p99(during); was > 0 && is > 0 {
			run.Figures = append(run.Figures, record.Figure{Name: "produce beside " + t.results[0].Readers[k].Name, Value: is / was, Unit: "its p99 while they were behind to that before", Ratio: true})
		}
	}
}

// endToEnd says what reading adds to producing.
func (t *trial) endToEnd(run *record.Run) {
	produced, read := run.Series[load.Produce], run.Series[load.EndToEnd]
	if produced.P50 == 0 || produced.P99 == 0 || read.Count == 0 {
		return
	}
	run.Figures = append(run.Figures,
		record.Figure{Name: "end-to-end/produce p50", Value: float64(read.P50) / float64(produced.P50), Ratio: true},
		record.Figure{Name: "end-to-end/produce p99", Value: float64(read.P99) / float64(produced.P99), Ratio: true})
}

// p99 is that of producing, in ns, over some intervals; 0 where nothing was
// produced.
func p99(part []load.Interval) float64 {
	h := record.NewHistogram()
	for _, i := range part {
		for _, s := range i.Series {
			if s.Series == load.Produce {
				s.H.Into(h)
			}
		}
	}
	return float64(h.At(99))
}

// Print says a run's results to people.
func Print(w io.Writer, run *record.Run) {
	fmt.Fprintf(w, "\n%s\n", run.Name)
	names := slices.SortedFunc(maps.Keys(run.Series), func(a, b string) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	fmt.Fprintf(w, "  %-22s %10s %9s %9s %9s %9s %9s %9s\n", "", "count", "p50", "p90", "p99", "p99.9", "p99.99", "max")
	for _, name := range names {
		s := run.Series[name]
		fmt.Fprintf(w, "  %-22s %10d %9s %9s %9s %9s %9s %9s\n", name, s.Count, Short(s.P50), Short(s.P90), Short(s.P99), Short(s.P999), Short(s.P9999), Short(s.Max))
	}
	for _, f := range run.Figures {
		fmt.Fprintf(w, "  %-22s %10s  %s\n", f.Name, number(f.Value), f.Unit)
	}
	for _, n := range run.Notes {
		fmt.Fprintf(w, "  note: %s\n", n)
	}
	for _, c := range run.Verdict {
		held := "held"
		if !c.Held {
			held = "NOT HELD"
		}
		fmt.Fprintf(w, "  expected %s: %s, %s\n", c.Expected, c.Was, held)
	}
}

func rank(series string) int {
	switch {
	case series == load.Produce:
		return 0
	case strings.HasPrefix(series, "hiccup"):
		return 3
	case series == load.Lag:
		return 2
	}
	return 1
}

func number(v float64) string {
	if v == math.Trunc(v) {
		return fmt.Sprintf("%.0f", v)
	}
	if math.Abs(v) >= 100 {
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

// TempDir makes a directory for a recording without one of its own.
func TempDir(name string) string {
	return filepath.Join("bench", "results", time.Now().UTC().Format("20060102T150405Z")+"-"+strings.Map(func(r rune) rune {
		if r == '/' || r == ' ' || r == os.PathSeparator {
			return '-'
		}
		return r
	}, name))
}
