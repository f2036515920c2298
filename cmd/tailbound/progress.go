package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// progress is a bar in a terminal, for work whose bytes are known. It belongs to
// the goroutine that does the work; nil shows nothing.
type progress struct {
	w     io.Writer
	what  string
	drawn bool
	next  time.Time // when it is drawn again
}

const (
	progressAfter = 300 * time.Millisecond // what is over sooner needs none
	progressEvery = 100 * time.Millisecond
	progressCells = 30
)

// newProgress is nil where nobody looks.
func newProgress(f *os.File, what string) *progress {
	if !isTerminal(f) {
		return nil
	}
	return &progress{w: f, what: what, next: time.Now().Add(progressAfter)}
}

// at draws how far the work is, now and then.
func (p *progress) at(done, total int64) {
	if p == nil || total <= 0 || time.Now().Before(p.next) {
		return
	}
	p.drawn, p.next = true, time.Now().Add(progressEvery)
	fmt.Fprint(p.w, "\r\x1b[K"+progressLine(p.what, done, total))
}

// end takes the bar away.
func (p *progress) end() {
	if p != nil && p.drawn {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.drawn = false
	}
}

func progressLine(what string, done, total int64) string {
	done = min(max(done, 0), total)
	part := float64(done) / float64(total)
	full := int(part * progressCells)
	return fmt.Sprintf("%s [%s%s] %d%%, %s of %s", what, strings.Repeat("=", full), strings.Repeat(" ", progressCells-full), int(part*100), shortBytes(done), shortBytes(total))
}
