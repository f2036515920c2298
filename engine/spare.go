package engine

import "tailbound/ioring"

// spares are files that logs let go and the next ones may have: whole, their
// blocks written. A sync over blocks that were only allocated is a commit of the
// file system's own journal; over these it is not. A file changes hands so, and
// the name with it, so that what lies in it is nobody's until the journal says
// whose:
//
//	await start moved past it, or log closed, durable; await its readers; close();
//	await rename(old, new); await syncDirectory(); entry(assigned); await durable; ready
type spares struct {
	spare       [sparesMax]spare
	sparesN     int
	sparesBytes int64
}

type spare struct {
	segment int32
	since   ioring.Instant
}

const (
	sparesMax   = 32
	spareForNS  = 600e9 // one that nobody took for so long goes
	sparesLooks = 60e9
)

// keepSpare keeps the file of segment g, which nobody has open, for another log.
// False: it may go.
func (e *Engine) keepSpare(g int32) bool {
	q := &e.all[g]
	if e.failed != 0 || e.stopping || q.broken || q.position == 0 || q.position < q.bytes/2 || e.sparesN == sparesMax || e.sparesBytes+q.bytes > e.o.SpareBytes {
		return false
	}
	e.spare[e.sparesN] = spare{g, e.now}
	e.sparesN++
	e.sparesBytes += q.bytes
	return true
}

// takeSpare is the largest of the spares that has room for n bytes and no more
// than bytes; none.
func (e *Engine) takeSpare(n, bytes int64) int32 {
	best := -1
	for i := range e.sparesN {
		has := e.all[e.spare[i].segment].bytes
		if has >= n && has <= bytes && (best < 0 || has > e.all[e.spare[best].segment].bytes) {
			best = i
		}
	}
	if best < 0 {
		return none
	}
	return e.dropSpare(best)
}

func (e *Engine) dropSpare(i int) int32 {
	g := e.spare[i].segment
	e.sparesN--
	e.spare[i] = e.spare[e.sparesN]
	e.sparesBytes -= e.all[g].bytes
	return g
}

// Spares is how many files are kept for logs to come, and their bytes.
func (e *Engine) Spares() (n int, bytes int64) { return e.sparesN, e.sparesBytes }

// letSparesGo has the spares removed that nobody took since before.
func (e *Engine) letSparesGo(before ioring.Instant) {
	for i := e.sparesN - 1; i >= 0; i-- {
		if e.spare[i].since <= before {
			g := e.dropSpare(i)
			e.all[g].position = 0 // not to be kept again
			e.unlinks = append(e.unlinks, g)
		}
	}
}

func (e *Engine) stepSpares(sleep *ioring.Instant) {
	if e.sparesN > 0 {
		e.letSparesGo(e.now - spareForNS)
		earlier(sleep, e.now+sparesLooks)
	}
}
