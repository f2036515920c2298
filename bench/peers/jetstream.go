package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/bench/load"
	"github.com/tailbound/tailbound/bench/record"
)

// serveJetStream is a NATS server with JetStream until it is told to end.
func serveJetStream(addr, dir string, always bool) error {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	s, err := server.NewServer(&server.Options{
		Host: host, Port: port, JetStream: true, StoreDir: dir, JetStreamMaxMemory: 1 << 30, JetStreamMaxStore: 200 << 30, SyncAlways: always, NoSigs: true,
	})
	if err != nil {
		return err
	}
	s.Start()
	if !s.ReadyForConnections(30 * time.Second) {
		return errors.New("it is not ready after half a minute")
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	<-end
	s.Shutdown()
	s.WaitForShutdown()
	return nil
}

// A line is one publishing connection. A request is all of a batch's messages,
// each published by itself, as this protocol has it; it is answered when the
// last of them is.
type line struct {
	load.Schedule
	conn     *nats.Conn
	inbox    string
	subjects []string
	slots    chan int // free
	pending  []pending
	*tally
}

// A tally is what was measured of all lines. The goroutines that publish, those
// that get answers and the one that ends intervals share it.
type tally struct {
	mu       sync.Mutex
	latency  series
	lag      series
	answered int64 // within the window
	failed   int64
	held     int64
	unsent   int64 // what could not be published by the end of the drain; in latency as it had waited
	errors   map[string]int64
	before   load.Interval // totals at the end of the last interval
}

// A series has what came since the last interval's end, and all.
type series struct{ now, all *record.Histogram }

func newTally() *tally {
	series := func() series { return series{record.NewHistogram(), record.NewHistogram()} }
	return &tally{latency: series(), lag: series(), errors: map[string]int64{}}
}

// interval ends an interval, whose times are since the window's start.
func (t *tally) interval(endNS int64) load.Interval {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := load.Interval{StartNS: t.before.EndNS, EndNS: endNS, Requests: t.answered - t.before.Requests, Errors: t.failed - t.before.Errors, Held: t.held - t.before.Held}
	for _, s := range []struct {
		name string
		series
	}{{load.Produce, t.latency}, {load.Lag, t.lag}} {
		if s.now.Count() > 0 {
			i.Series = append(i.Series, record.Interval{Series: s.name, StartNS: i.StartNS, EndNS: endNS, H: s.now.Pack()})
			s.all.Add(s.now)
			s.now.Reset()
		}
	}
	t.before = load.Interval{EndNS: endNS, Requests: t.answered, Errors: t.failed, Held: t.held}
	return i
}

type pending struct {
	intended int64
	left     int32
}

// drive publishes by the same schedule as the Kafka generator does.
func drive(o load.Options, hooks load.Hooks) (*load.Result, error) {
	switch {
	case o.Consumer || len(o.Readers) > 0 || o.Verify || o.Hops > 1:
		return nil, errors.New("reading back is not driven for JetStream")
	case o.Of > 1 || o.KeyBytes > 0 || o.LingerNS > 0 || o.Codec != "" && o.Codec != "none" || o.Acks != "" && o.Acks != "all":
		return nil, errors.New("JetStream is driven by one process, without keys, linger, codecs and other acknowledgements")
	}
	t := newTally()
	lines, err := connect(o, t)
	if err != nil {
		return nil, err
	}
	start := load.Now() + 20e6
	if hooks.Ready != nil {
		if start, err = hooks.Ready(); err != nil {
			return nil, err
		}
	}
	from := start + o.WarmupNS
	to := from + o.WindowNS
	message := make([]byte, max(o.RecordBytes, 16))
	over := make(chan struct{}) // the drain is
	defer time.AfterFunc(time.Duration(to+o.DrainNS-load.Now()), func() { close(over) }).Stop()
	var publishing sync.WaitGroup
	failed := make(chan error, len(lines))
	for i, l := range lines {
		l.Schedule = load.Schedule{Start: start, End: to, Lanes: int64(len(lines)), Lane: int64(i), Arrivals: o.Arrivals}
		if o.Rate > 0 {
			l.Interval = 1e9 / o.Rate
		}
		if err := l.listen(from, to); err != nil {
			return nil, err
		}
		publishing.Go(func() { failed <- l.publish(message, o.Records, from, over) })
	}
	sleepUntil(from)
	first := load.ReadUsage(o.ServerPID)
	for at := from + o.IntervalNS; o.IntervalNS > 0 && at < to; at += o.IntervalNS {
		sleepUntil(at)
		hooks.Interval(t.interval(load.Now() - from))
	}
	sleepUntil(to)
	last := load.ReadUsage(o.ServerPID)
	publishing.Wait()
	close(failed)
	for err := range failed {
		if err != nil {
			return nil, err
		}
	}
	for end := to + o.DrainNS; load.Now() < end && unanswered(lines) > 0; {
		time.Sleep(5 * time.Millisecond)
	}
	for _, l := range lines {
		l.conn.Close()
	}
	r := result(o, lines, t, from)
	if end := t.interval(load.Now() - from); hooks.Interval != nil {
		hooks.Interval(end)
	}
	r.Latency, r.Lag = t.latency.all.Summary(), t.lag.all.Summary()
	first.Until(last, r)
	return r, nil
}

func connect(o load.Options, t *tally) (lines []*line, err error) {
	for i := range o.Connections {
		l := &line{inbox: fmt.Sprintf("_INBOX.bench.%d.", i), tally: t, slots: make(chan int, o.Inflight), pending: make([]pending, o.Inflight)}
		if l.conn, err = nats.Connect("nats://"+o.Bootstrap, nats.ReconnectBufSize(-1)); err != nil {
			return nil, err
		}
		for s := range o.Inflight {
			l.slots <- s
		}
		lines = append(lines, l)
	}
	js, err := lines[0].conn.JetStream()
	if err != nil {
		return nil, err
	}
	// A partition is a stream: what orders its messages, and what is synced.
	for p := range o.Partitions {
		name := fmt.Sprintf("%s-%d", o.Topic, p)
		if _, err := js.AddStream(&nats.StreamConfig{Name: name, Subjects: []string{name}, Storage: nats.FileStorage, Replicas: 1, MaxBytes: cmp.Or(o.Keep, -1)}); err != nil {
			return nil, fmt.Errorf("making stream %s: %w", name, err)
		}
		l := lines[p%len(lines)]
		l.subjects = append(l.subjects, name)
	}
	for i, l := range lines {
		if l.subjects == nil { // fewer partitions than connections: share one
			l.subjects = lines[i%o.Partitions].subjects
		}
	}
	return lines, nil
}

// listen records answers. The inbox ends with the request's slot.
func (l *line) listen(from, to int64) error {
	_, err := l.conn.Subscribe(l.inbox+"*", func(m *nats.Msg) {
		now := load.Now()
		slot, err := strconv.Atoi(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:])
		if err != nil || slot < 0 || slot >= len(l.pending) {
			return
		}
		p := &l.pending[slot]
		failed := bytes.Contains(m.Data, []byte(`"error"`)) || m.Header != nil
		left := atomic.AddInt32(&p.left, -1)
		l.mu.Lock()
		if failed {
			l.errors[string(m.Data[:min(len(m.Data), 100)])]++
			l.failed++
		}
		if left == 0 && now >= from && now < to {
			l.answered++
		}
		if left == 0 && p.intended >= from {
			l.latency.now.Record(now - p.intended)
		}
		l.mu.Unlock()
		if left == 0 {
			l.slots <- slot
		}
	})
	if err == nil {
		err = l.conn.Flush()
	}
	return err
}

// publish sends what is due. Once over is closed it sends no more of it.
func (l *line) publish(message []byte, records int, from int64, over <-chan struct{}) error {
	runtime.LockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	replies := make([]string, len(l.pending))
	for i := range replies {
		replies[i] = l.inbox + strconv.Itoa(i)
	}
	heldUntil := int64(0)
	for turn := 0; ; turn++ {
		due := load.Now()
		if l.Interval > 0 {
			due = l.Due()
			if due < l.End {
				sleepUntil(due)
			}
			l.Advance()
		}
		if due >= l.End {
			return nil
		}
		var slot int
		select {
		case slot = <-l.slots:
		default:
			select {
			case slot = <-l.slots:
				heldUntil = load.Now()
			case <-over:
				if due >= from {
					l.mu.Lock()
					l.latency.now.Record(load.Now() - due)
					l.unsent++
					l.mu.Unlock()
				}
				continue
			}
		}
		if l.Interval > 0 && due >= from {
			l.mu.Lock()
			if due > heldUntil {
				l.lag.now.Record(load.Now() - due)
			} else {
				l.held++
			}
			l.mu.Unlock()
		}
		l.pending[slot].intended = due
		atomic.StoreInt32(&l.pending[slot].left, int32(records))
		subject := l.subjects[turn%len(l.subjects)]
		for range records {
			if err := l.conn.PublishRequest(subject, replies[slot], message); err != nil {
				return err
			}
		}
	}
}

func unanswered(lines []*line) (n int) {
	for _, l := range lines {
		n += cap(l.slots) - len(l.slots)
	}
	return n
}

// result counts what has no answer, and sums up.
func result(o load.Options, lines []*line, t *tally, from int64) *load.Result {
	r := &load.Result{Offered: o.Rate, Carried: 1}
	end := load.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range lines {
		// Its connection is closed: what is left gets no answer.
		for i := range l.pending {
			if p := &l.pending[i]; atomic.LoadInt32(&p.left) > 0 && p.intended >= from {
				r.Unfinished++
				t.latency.now.Record(end - p.intended)
			}
		}
	}
	seconds := float64(o.WindowNS) / 1e9
	r.Acknowledged, r.Held, r.Unfinished, r.Errors = t.answered, t.held, r.Unfinished+t.unsent, t.errors
	r.RequestsPerSec = float64(r.Acknowledged) / seconds
	r.MBPerSec = r.RequestsPerSec * float64(o.Records*max(o.RecordBytes, 16)) / 1e6
	if o.Rate > 0 {
		r.Carried = r.RequestsPerSec / o.Rate
	}
	return r
}

func sleepUntil(at int64) {
	ts := unix.NsecToTimespec(at)
	for {
		if _, _, errno := unix.Syscall6(unix.SYS_CLOCK_NANOSLEEP, unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, uintptr(unsafe.Pointer(&ts)), 0, 0, 0); errno != unix.EINTR {
			return
		}
	}
}
