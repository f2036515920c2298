package main

import (
	"context"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/tailbound/tailbound/cmd/tailbound/settings"
	"github.com/tailbound/tailbound/shard"
)

// logHandler writes log lines as the settings say.
func logHandler(out io.Writer, v *settings.Values) slog.Handler {
	level, err := settings.ParseLogLevel(v.LogLevel)
	if err != nil {
		panic("serve: settings were not checked: " + err.Error())
	}
	options := &slog.HandlerOptions{Level: level}
	if v.LogFormat == "json" {
		return slog.NewJSONHandler(out, options)
	}
	return slog.NewTextHandler(out, options)
}

// logger writes log lines on a goroutine of its own, so that neither a shard nor a stop
// waits for the reader of the log. A line that does not fit its queue is dropped, and the
// next line that is written says how many were.
type logger struct {
	log     *slog.Logger // puts lines into the queue
	out     atomic.Pointer[slog.Handler]
	queue   chan logLine
	flush   chan chan struct{} // closed by the goroutine once what is in the queue is written
	dropped atomic.Uint64      // since the last line that was written
}

// logLine is a line on its way to out.
type logLine struct {
	record slog.Record
	with   func(slog.Handler) slog.Handler // adds the attributes and groups of the line's logger; nil: there are none
}

const (
	logQueueMax = 1024
	// logFlushMax is how long drain waits for the reader of the log.
	logFlushMax = time.Second
)

func newLogger(out slog.Handler) *logger {
	l := &logger{queue: make(chan logLine, logQueueMax), flush: make(chan chan struct{})}
	l.setHandler(out)
	l.log = slog.New(queueHandler{logger: l})
	go l.write()
	return l
}

// setHandler has all further lines written by another handler.
func (l *logger) setHandler(out slog.Handler) { l.out.Store(&out) }

func (l *logger) write() {
	for {
		select {
		case line := <-l.queue:
			l.writeLine(line)
		case done := <-l.flush:
			for len(l.queue) > 0 {
				l.writeLine(<-l.queue)
			}
			close(done)
		}
	}
}

func (l *logger) writeLine(line logLine) {
	if n := l.dropped.Swap(0); n > 0 {
		line.record.AddAttrs(slog.Uint64("lines_dropped_before", n))
	}
	out := *l.out.Load()
	if line.with != nil {
		out = line.with(out)
	}
	out.Handle(context.Background(), line.record) // there is nowhere to report a log that cannot be written
}

func (l *logger) enabled(level slog.Level) bool {
	return (*l.out.Load()).Enabled(context.Background(), level)
}

// put queues a line. It never blocks.
func (l *logger) put(line logLine) {
	select {
	case l.queue <- line:
	default:
		l.dropped.Add(1)
	}
}

// Log takes a line from a shard. It never blocks.
func (l *logger) Log(level shard.Level, from int, text []byte) {
	if !l.enabled(slog.Level(level)) {
		return
	}
	record := slog.NewRecord(time.Now(), slog.Level(level), string(text), 0)
	record.AddAttrs(slog.Int("shard", from))
	l.put(logLine{record: record})
}

// saysOf returns what says that something is not served, though the broker does without
// it, and (nil) that it is now.
func (l *logger) saysOf(what string) func(error) {
	return func(err error) {
		if err != nil {
			l.log.Warn(what+" is not served; the broker serves without, and tries again", "error", err)
		} else {
			l.log.Info(what + " is served now")
		}
	}
}

// drain returns when every line so far is written, or after logFlushMax if the reader of
// the log does not read.
func (l *logger) drain() {
	done := make(chan struct{})
	late := time.After(logFlushMax)
	select {
	case l.flush <- done:
	case <-late:
		return
	}
	select {
	case <-done:
	case <-late:
	}
}

// queueHandler is the handler of a logger's log.
type queueHandler struct {
	logger *logger
	with   func(slog.Handler) slog.Handler
}

func (h queueHandler) Enabled(_ context.Context, level slog.Level) bool {
	return h.logger.enabled(level)
}

func (h queueHandler) Handle(_ context.Context, record slog.Record) error {
	h.logger.put(logLine{record.Clone(), h.with})
	return nil
}

func (h queueHandler) WithAttrs(attributes []slog.Attr) slog.Handler {
	return h.then(func(out slog.Handler) slog.Handler { return out.WithAttrs(attributes) })
}

func (h queueHandler) WithGroup(name string) slog.Handler {
	return h.then(func(out slog.Handler) slog.Handler { return out.WithGroup(name) })
}

func (h queueHandler) then(next func(slog.Handler) slog.Handler) slog.Handler {
	before := h.with
	return queueHandler{h.logger, func(out slog.Handler) slog.Handler {
		if before != nil {
			out = before(out)
		}
		return next(out)
	}}
}
