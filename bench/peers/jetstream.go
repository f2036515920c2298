package main

import (
	"bytes"
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
	latency  *record.Histogram // the answering goroutine's
	lag      *record.Histogram // the publishing one's
	unsent   *record.Histogram // also: what it could not publish by the end of the drain, as it had waited
	answered atomic.Int64      // within the window
	meant    int64
	held     int64

	mu     sync.Mutex
	errors map[string]int64
}

type pending struct {
	intended int64
	left     int32
}

// drive publishes by the same schedule as the Kafka generator does.
func drive(o load.Options) (*load.Result, error) {
	if o.Consumer || len(o.Readers) > 0 {
		return nil, errors.New("reading back is not driven for JetStream")
	}
	lines, err := connect(o)
	if err != nil {
		return nil, err
	}
	start := load.Now() + 20e6
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
	return result(o, lines, from, first, last), nil
}

func connect(o load.Options) (lines []*line, err error) {
	for i := range o.Connections {
		l := &line{inbox: fmt.Sprintf("_INBOX.bench.%d.", i), latency: record.NewHistogram(), lag: record.NewHistogram(), unsent: record.NewHistogram(), errors: map[string]int64{}, slots: make(chan int, o.Inflight), pending: make([]pending, o.Inflight)}
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
		if _, err := js.AddStream(&nats.StreamConfig{Name: name, Subjects: []string{name}, Storage: nats.FileStorage, Replicas: 1}); err != nil {
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
		if bytes.Contains(m.Data, []byte(`"error"`)) || m.Header != nil {
			l.mu.Lock()
			l.errors[string(m.Data[:min(len(m.Data), 100)])]++
			l.mu.Unlock()
		}
		if atomic.AddInt32(&p.left, -1) > 0 {
			return
		}
		if now >= from && now < to {
			l.answered.Add(1)
		}
		if p.intended >= from {
			l.latency.Record(now - p.intended)
		}
		l.slots <- slot
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
					l.unsent.Record(load.Now() - due)
				}
				continue
			}
		}
		if l.Interval > 0 && due >= from {
			if due > heldUntil {
				l.lag.Record(load.Now() - due)
			} else {
				l.held++
			}
		}
		if due >= from {
			l.meant++
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

func result(o load.Options, lines []*line, from int64, first, last load.Usage) *load.Result {
	r := &load.Result{Offered: o.Rate, Carried: 1, Errors: map[string]int64{}}
	latency, lag := record.NewHistogram(), record.NewHistogram()
	end := load.Now()
	for _, l := range lines {
		// Whoever is closed is heard no more: what is left has no answer.
		for i := range l.pending {
			if p := &l.pending[i]; atomic.LoadInt32(&p.left) > 0 && p.intended >= from {
				r.Unfinished++
				l.latency.Record(end - p.intended)
			}
		}
		latency.Add(l.latency)
		latency.Add(l.unsent)
		r.Unfinished += l.unsent.Count()
		lag.Add(l.lag)
		r.Acknowledged += l.answered.Load()
		r.Held += l.held
		for what, n := range l.errors {
			r.Errors[what] += n
		}
	}
	seconds := float64(o.WindowNS) / 1e9
	r.RequestsPerSec = float64(r.Acknowledged) / seconds
	r.MBPerSec = r.RequestsPerSec * float64(o.Records*max(o.RecordBytes, 16)) / 1e6
	if o.Rate > 0 {
		r.Carried = r.RequestsPerSec / o.Rate
	}
	r.Latency, r.Lag = latency.Summary(), lag.Summary()
	first.Until(last, r)
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
