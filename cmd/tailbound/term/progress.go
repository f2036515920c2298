package term

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// Progress is a bar in a terminal, for work of a known number of bytes. It belongs
// to the goroutine that does the work. A nil Progress shows nothing.
type Progress struct {
	w     io.Writer
	what  string
	drawn bool
	next  time.Time // it is not drawn before
}

const (
	progressAfter = 300 * time.Millisecond // shorter work shows no bar
	progressEvery = 100 * time.Millisecond
	progressCells = 30
)

// NewProgress is a bar with a label; nil where the file is no terminal.
func NewProgress(file *os.File, what string) *Progress {
	if !IsTerminal(file) {
		return nil
	}
	return &Progress{w: file, what: what, next: time.Now().Add(progressAfter)}
}

// At draws the bar for done of total bytes, unless it was drawn a moment ago.
func (p *Progress) At(done, total int64) {
	if p == nil || total <= 0 || time.Now().Before(p.next) {
		return
	}
	p.drawn, p.next = true, time.Now().Add(progressEvery)
	fmt.Fprint(p.w, "\r\x1b[K"+progressLine(p.what, done, total))
}

// End clears the bar.
func (p *Progress) End() {
	if p != nil && p.drawn {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.drawn = false
	}
}

func progressLine(what string, done, total int64) string {
	done = min(max(done, 0), total)
	part := float64(done) / float64(total)
	full := int(part * progressCells)
	return fmt.Sprintf("%s [%s%s] %d%%, %s of %s", what, strings.Repeat("=", full), strings.Repeat(" ", progressCells-full), int(part*100), ShortBytes(done), ShortBytes(total))
}
