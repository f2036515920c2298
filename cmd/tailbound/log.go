package main

import (
	"context"
	"io"
	"log/slog"
	"sync/atomic"

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

// logger writes the lines of shards without making a shard wait: a goroutine writes
// them. A line that does not fit its queue is dropped, and the next that is written
// says how many were.
type logger struct {
	log     *slog.Logger
	lines   chan line
	dropped atomic.Uint64 // since the last line that was written
	done    chan struct{} // closed once every line is written
}

type line struct {
	level shard.Level
	shard int
	text  string
}

func newLogger(log *slog.Logger) *logger {
	l := &logger{log: log, lines: make(chan line, 1024), done: make(chan struct{})}
	go l.write()
	return l
}

func (l *logger) write() {
	defer close(l.done)
	for line := range l.lines {
		attributes := []any{"shard", line.shard}
		if n := l.dropped.Swap(0); n > 0 {
			attributes = append(attributes, "lines_dropped_before", n)
		}
		l.log.Log(context.Background(), slog.Level(line.level), line.text, attributes...)
	}
}

// Log takes a line from a shard. It never blocks.
func (l *logger) Log(level shard.Level, from int, text []byte) {
	if !l.log.Enabled(context.Background(), slog.Level(level)) {
		return
	}
	select {
	case l.lines <- line{level, from, string(text)}:
	default:
		l.dropped.Add(1)
	}
}

// close returns when every line is written.
func (l *logger) close() {
	close(l.lines)
	<-l.done
}
