package client

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"time"
)

// unreadMax is how long output may stay unread after a signal.
const unreadMax = time.Second

// interruptible is a reader whose Read ends with a context, even while it waits for a
// terminal or a pipe. What the waiting read gets afterwards is lost, so it is for a
// command that ends then.
type interruptible struct {
	ctx  context.Context
	got  chan piece    // from the goroutine that reads
	more chan struct{} // to it: rest was taken
	rest []byte        // of the goroutine's buffer, lent until more
	err  error         // what comes after rest
}

// piece is the result of one Read.
type piece struct {
	bytes []byte
	err   error
}

func newInterruptible(ctx context.Context, from io.Reader) *interruptible {
	r := &interruptible{ctx: ctx, got: make(chan piece), more: make(chan struct{}, 1)}
	go func() {
		buffer := make([]byte, 64<<10)
		for range r.more {
			n, err := from.Read(buffer)
			select {
			case r.got <- piece{buffer[:n], err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	r.more <- struct{}{}
	return r
}

// Read is from's Read, or the context's error.
func (r *interruptible) Read(into []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, r.ctx.Err()
	}
	for len(r.rest) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		select {
		case <-r.ctx.Done():
			return 0, r.ctx.Err()
		case piece := <-r.got:
			r.rest, r.err = piece.bytes, piece.err
			if len(r.rest) == 0 && r.err == nil {
				r.more <- struct{}{}
			}
		}
	}
	n := copy(into, r.rest)
	if r.rest = r.rest[n:]; len(r.rest) == 0 && r.err == nil {
		r.more <- struct{}{}
	}
	return n, nil
}

// errUnread is that nobody reads what is written, after a signal.
var errUnread = errors.New("the output is not read")

// interruptibleWriter is a writer whose Write ends a moment after a context, even while
// it waits for the reader of a pipe. After errUnread it is not to be used.
type interruptibleWriter struct {
	ctx context.Context
	to  io.Writer
}

func (w *interruptibleWriter) Write(text []byte) (int, error) {
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 1)
	go func() {
		n, err := w.to.Write(text)
		done <- result{n, err}
	}()
	select {
	case r := <-done:
		return r.n, r.err
	case <-w.ctx.Done():
	}
	select {
	case r := <-done:
		return r.n, r.err
	case <-time.After(unreadMax):
		return 0, errUnread
	}
}

// withoutMark is a reader of text without the byte order mark that some editors begin
// a file with. Lines of records keep it: they may be anything.
func withoutMark(from io.Reader) io.Reader {
	return &markless{bufio.NewReader(from), []byte("\ufeff")}
}

type markless struct {
	*bufio.Reader
	mark []byte // nil once the text has begun
}

func (m *markless) Read(into []byte) (int, error) {
	if m.mark != nil {
		if begin, _ := m.Peek(len(m.mark)); bytes.Equal(begin, m.mark) {
			m.Discard(len(m.mark))
		}
		m.mark = nil
	}
	return m.Reader.Read(into)
}
