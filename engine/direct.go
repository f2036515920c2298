package engine

import (
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
)

// crowd counts the logs that had large batches in an interval. Many of them are
// served by frames, all of them, with one sync for all; when frames do not keep
// up, because they write everything twice, by runs, all of them again. Some of
// each would be in each other's way: a run waits until what the journal has
// before it is in its segment.
type crowd struct {
	interval   uint32
	until      ioring.Instant
	logs, last int // in this interval, in the one before

	runsUntil ioring.Instant // frames did not keep up
	runsFor   ioring.Instant
}

const (
	// crowdLogs is up to how many logs with large batches write runs of their
	// own whatever comes; directLogsMax is it when frames do not keep up.
	crowdLogs = 8
	// crowdNS is the interval in which they are counted: some writes and syncs of
	// the disk.
	crowdNS = 10e6
	// crowdRunsNS is how long a crowd writes runs before frames are tried again;
	// twice as long, up to crowdRunsMaxNS, each time they fail again soon.
	crowdRunsNS    = 1e9
	crowdRunsMaxNS = 64e9
)

// growing is a slab that direct runs fill, one after the other, of any log.
type growing struct {
	slab int32 // none before the first
	run  int32 // that grows there; none
}

// crowded counts log l, which has a large batch of need entry bytes, and says
// that the frames take it because they take them all.
func (e *Engine) crowded(l *log, need int) bool {
	c := &e.extents.crowd
	if e.now >= c.until {
		if c.last = c.logs; e.now >= c.until+crowdNS {
			c.last = 0 // that was not the one before
		}
		c.logs, c.until = 0, e.now+crowdNS
		c.interval++
	}
	if l.crowd != c.interval {
		l.crowd = c.interval
		c.logs++
	}
	switch n := max(c.logs, c.last); {
	case n <= crowdLogs || n <= directLogsMax && e.now < c.runsUntil:
		return false
	case n > directLogsMax || e.journal.openBytes+need <= format.FrameBytesMax || int(e.journal.submitted-e.journal.durableSeq) < e.o.InflightMax:
		return true
	}
	// a frame is full, and as many as may be are in flight
	if e.now < c.runsUntil+c.runsFor {
		c.runsFor = min(2*c.runsFor, crowdRunsMaxNS)
	} else {
		c.runsFor = crowdRunsNS
	}
	c.runsUntil = e.now + c.runsFor
	return false
}

// directFits makes sure that the run of log s that is being built takes a batch
// of n bytes, beginning one where it must. False: no memory for it.
func (e *Engine) directFits(s Slot, n int) bool {
	l := &e.logs[s]
	need := format.EntryHeaderBytes + format.Align8(n)
	if l.building != none {
		r := &e.extents.pool[l.building]
		if r.segment == l.filling && (r.header.Batches == 0 || r.header.End == l.end && format.HeaderBytes+r.bytes+need <= e.extents.directMax) &&
			r.pos+format.HeaderBytes+r.bytes+need <= e.cache.slabs[r.slab].block.Len() {
			if r.header.Batches == 0 {
				r.header.Base, r.header.End = l.end, l.end
			}
			return true
		}
		e.sealRun(l)
	}
	if e.extents.runFree == none {
		return false
	}
	g := e.slabFor(format.HeaderBytes + need)
	if g == nil {
		return false
	}
	l.building = e.takeRun(run{state: runBuilding, log: s, segment: l.filling, buffer: none, slab: g.slab, pos: e.cache.slabs[g.slab].used, extra: 2 * runOverhead,
		header: format.RunHeader{Base: l.end, End: l.end, MaxTime: format.NoTime}})
	g.run = l.building
	e.segments.all[l.filling].extra += 2 * runOverhead
	if l.directs == 0 {
		e.extents.directAt[e.extents.directLogs] = s
		e.extents.directLogs++
	}
	l.directs++
	l.direct = true
	return true
}

// slabFor is where a run may grow that begins with n bytes: the fullest place
// that has them and nobody uses, or one with a new slab, or the place of the
// largest run, which is closed for that. nil: no memory.
func (e *Engine) slabFor(n int) *growing {
	var fullest, idle, largest *growing
	for i := range e.extents.growing {
		g := &e.extents.growing[i]
		switch {
		case g.run != none:
			if largest == nil || e.extents.pool[g.run].bytes > e.extents.pool[largest.run].bytes {
				largest = g
			}
		case g.slab != none && e.cache.slabs[g.slab].used+n <= e.cache.slabs[g.slab].block.Len():
			if fullest == nil || e.cache.slabs[g.slab].used > e.cache.slabs[fullest.slab].used {
				fullest = g
			}
		case idle == nil || g.slab != none:
			idle = g
		}
	}
	if fullest != nil {
		return fullest
	}
	if idle == nil {
		e.sealRun(&e.logs[e.extents.pool[largest.run].log])
		if idle = largest; e.cache.slabs[idle.slab].used+n <= e.cache.slabs[idle.slab].block.Len() {
			return idle
		}
	}
	if !e.takeSlab(&idle.slab) {
		return nil
	}
	return idle
}

// sealRun closes the run of l that is being built.
func (e *Engine) sealRun(l *log) {
	i := l.building
	if i == none {
		return
	}
	r := &e.extents.pool[i]
	if r.header.Batches == 0 { // what it was begun for was given back
		e.dropRun(l, i)
		return
	}
	e.grown(l)
	s := &e.cache.slabs[r.slab]
	at := r.pos + format.HeaderBytes + r.bytes
	n := format.AlignBlock(at)
	clear(s.block.Bytes()[at:n])
	s.used = n
	r.state, r.block = runSealed, s.block.Slice(r.pos, n-r.pos)
	l.runBytes = r.bytes
}

// grown: the run of l that was being built has its size, or is given up.
func (e *Engine) grown(l *log) {
	for i := range e.extents.growing {
		if g := &e.extents.growing[i]; g.run == l.building {
			g.run = none
		}
	}
	l.building = none
}

// stepRuns sends direct runs, while few of their log's are in flight; what
// comes meanwhile is gathered in the next one, which goes beside them when it is
// half as large as it may be.
func (e *Engine) stepRuns(sleep *ioring.Instant) {
	if e.extents.runsUsed == 0 {
		return
	}
	for i := range e.extents.growing {
		if k := e.extents.growing[i].run; k != none {
			r := &e.extents.pool[k]
			if l := &e.logs[r.log]; r.header.Batches == 0 || l.runsFlying == 0 || l.runsFlying < e.o.InflightMax && r.bytes >= e.extents.directMax/2 {
				e.sealRun(l)
			}
		}
	}
	for i := range e.flush.lent {
		if k := e.flush.lent[i]; k != none && e.extents.pool[k].state == runSent && !e.extents.pool[k].io.pushed {
			e.pushRun(k, sleep)
		}
	}
	// a log may leave the list under way: backwards
	for k := e.extents.directLogs - 1; k >= 0; k-- {
		s := e.extents.directAt[k]
		for i := e.logs[s].runFirst; i != none && e.extents.pool[i].state >= runSent; {
			next := e.extents.pool[i].next
			if r := &e.extents.pool[i]; r.state == runSent && !r.io.pushed {
				e.pushRun(i, sleep)
			}
			i = next
		}
		if !e.failed {
			e.sendNext(s, sleep)
		}
	}
}

// sendNext sends what log s may send of its runs, in order.
func (e *Engine) sendNext(s Slot, sleep *ioring.Instant) {
	l := &e.logs[s]
	for l.runsFlying < e.o.InflightMax && (l.state == logOpen || l.state == logClosing) {
		i := l.runFirst
		if l.runSent != none {
			i = e.extents.pool[l.runSent].next
		}
		if i == none || e.extents.pool[i].state != runSealed {
			return
		}
		r := &e.extents.pool[i]
		if l.taken < r.header.Base {
			// the journal has something before it: that goes first, in a run of its own
			if !e.startDrain(s, r.header.Base, sleep) {
				earlier(sleep, e.now+1e6)
				return
			}
			continue
		}
		q := &e.segments.all[r.segment]
		if q.next0+int64(r.block.Len()) > q.bytes {
			e.wantRoom(s, r.segment, q.next0+int64(r.block.Len()))
			earlier(sleep, e.now+1e6)
			return
		}
		e.writesTo(l, r.segment)
		e.sendRun(i, sleep)
	}
}
