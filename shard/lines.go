package shard

import (
	"strconv"

	"github.com/tailbound/tailbound/ioring"
)

// lines writes a shard's log lines, built in a buffer of its own. It belongs to the
// shard.
type lines struct {
	out    Logger
	shard  int
	buffer []byte

	refusals repeated // connections that were refused
	failures repeated // failures of the disk that were survived
}

// repeated is something that may happen often and gets at most one line in repeatNS.
type repeated struct {
	told uint64         // how often it had happened at the last line
	next ioring.Instant // no line before
}

const repeatNS = 1e9

func newLines(out Logger, shard int) lines {
	return lines{out: out, shard: shard, buffer: make([]byte, 0, 1024)}
}

// begin begins a line. No other may be begun before it is written.
func (l *lines) begin(what string) []byte { return append(l.buffer[:0], what...) }

func (l *lines) write(level Level, line []byte) {
	l.buffer = line
	l.out.Log(level, l.shard, line)
}

// writef writes a line of a text and a number.
func (l *lines) writef(level Level, what string, number int64) {
	l.write(level, strconv.AppendInt(l.begin(what), number, 10))
}
