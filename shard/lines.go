package shard

import (
	"strconv"

	"github.com/tailbound/tailbound/ioring"
)

// lines are what a shard tells the operator, through a buffer of its own.
type lines struct {
	out    Logger
	shard  int
	buffer []byte

	refusals repeated // connections that were refused
	failures repeated // of the disk, that were survived
}

// repeated is something that happens often, and that has a line at most every
// repeatNS.
type repeated struct {
	told uint64 // how often it had happened when there was a line
	next ioring.Instant
}

const repeatNS = 1e9

func newLines(out Logger, shard int) lines {
	return lines{out: out, shard: shard, buffer: make([]byte, 0, 1024)}
}

// begin begins a line. Until it is written no other is begun.
func (l *lines) begin(what string) []byte { return append(l.buffer[:0], what...) }

func (l *lines) write(level Level, line []byte) {
	l.buffer = line
	l.out.Log(level, l.shard, line)
}

// writef writes a line: what, then a number that says which or how many.
func (l *lines) writef(level Level, what string, number int64) {
	l.write(level, strconv.AppendInt(l.begin(what), number, 10))
}
