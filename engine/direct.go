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
func (e *Engine) crowded(lg *log, need int) bool {
	crowd := &e.extents.crowd
	if e.now >= crowd.until {
		if crowd.last = crowd.logs; e.now >= crowd.until+crowdNS {
			crowd.last = 0 // that was not the one before
		}
		crowd.logs, crowd.until = 0, e.now+crowdNS
		crowd.interval++
	}
	if lg.crowd != crowd.interval {
		lg.crowd = crowd.interval
		crowd.logs++
	}
	switch n := max(crowd.logs, crowd.last); {
	case n <= crowdLogs || n <= directLogsMax && e.now < crowd.runsUntil:
		return false
	case n > directLogsMax || e.journal.openBytes+need <= format.FrameBytesMax || int(e.journal.submitted-e.journal.durableSeq) < e.o.InflightMax:
		return true
	}
	// a frame is full, and as many as may be are in flight
	if e.now < crowd.runsUntil+crowd.runsFor {
		crowd.runsFor = min(2*crowd.runsFor, crowdRunsMaxNS)
	} else {
		crowd.runsFor = crowdRunsNS
	}
	crowd.runsUntil = e.now + crowd.runsFor
	return false
}

// directFits makes sure that the run of log s that is being built takes a batch
// of n bytes, beginning one where it must. False: no memory for it.
func (e *Engine) directFits(slot Slot, n int) bool {
	lg := &e.logs[slot]
	need := format.EntryHeaderBytes + format.Align8(n)
	if lg.building != none {
		ext := &e.extents.pool[lg.building]
		if ext.segment == lg.filling && (ext.header.Batches == 0 || ext.header.End == lg.end && format.HeaderBytes+ext.bytes+need <= e.extents.directMax) &&
			ext.pos+format.HeaderBytes+ext.bytes+need <= e.cache.slabs[ext.slab].block.Len() {
			if ext.header.Batches == 0 {
				ext.header.Base, ext.header.End = lg.end, lg.end
			}
			return true
		}
		e.sealRun(lg)
	}
	if e.extents.runFree == none {
		return false
	}
	place := e.slabFor(format.HeaderBytes + need)
	if place == nil {
		return false
	}
	lg.building = e.takeRun(run{state: runBuilding, log: slot, segment: lg.filling, buffer: none, slab: place.slab, pos: e.cache.slabs[place.slab].used, extra: 2 * runOverhead,
		header: format.RunHeader{Base: lg.end, End: lg.end, MaxTime: format.NoTime}})
	place.run = lg.building
	e.segments.all[lg.filling].extra += 2 * runOverhead
	if lg.directs == 0 {
		e.extents.directAt[e.extents.directLogs] = slot
		e.extents.directLogs++
	}
	lg.directs++
	lg.direct = true
	return true
}

// slabFor is where a run may grow that begins with n bytes: the fullest place
// that has them and nobody uses, or one with a new slab, or the place of the
// largest run, which is closed for that. nil: no memory.
func (e *Engine) slabFor(n int) *growing {
	var fullest, idle, largest *growing
	for i := range e.extents.growing {
		place := &e.extents.growing[i]
		switch {
		case place.run != none:
			if largest == nil || e.extents.pool[place.run].bytes > e.extents.pool[largest.run].bytes {
				largest = place
			}
		case place.slab != none && e.cache.slabs[place.slab].used+n <= e.cache.slabs[place.slab].block.Len():
			if fullest == nil || e.cache.slabs[place.slab].used > e.cache.slabs[fullest.slab].used {
				fullest = place
			}
		case idle == nil || place.slab != none:
			idle = place
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
func (e *Engine) sealRun(lg *log) {
	i := lg.building
	if i == none {
		return
	}
	ext := &e.extents.pool[i]
	if ext.header.Batches == 0 { // what it was begun for was given back
		e.dropRun(lg, i)
		return
	}
	e.grown(lg)
	slab := &e.cache.slabs[ext.slab]
	at := ext.pos + format.HeaderBytes + ext.bytes
	n := format.AlignBlock(at)
	clear(slab.block.Bytes()[at:n])
	slab.used = n
	ext.state, ext.block = runSealed, slab.block.Slice(ext.pos, n-ext.pos)
	lg.runBytes = ext.bytes
}

// grown: the run of l that was being built has its size, or is given up.
func (e *Engine) grown(lg *log) {
	for i := range e.extents.growing {
		if place := &e.extents.growing[i]; place.run == lg.building {
			place.run = none
		}
	}
	lg.building = none
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
			ext := &e.extents.pool[k]
			if lg := &e.logs[ext.log]; ext.header.Batches == 0 || lg.runsFlying == 0 || lg.runsFlying < e.o.InflightMax && ext.bytes >= e.extents.directMax/2 {
				e.sealRun(lg)
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
		slot := e.extents.directAt[k]
		for i := e.logs[slot].runFirst; i != none && e.extents.pool[i].state >= runSent; {
			next := e.extents.pool[i].next
			if ext := &e.extents.pool[i]; ext.state == runSent && !ext.io.pushed {
				e.pushRun(i, sleep)
			}
			i = next
		}
		if !e.failed {
			e.sendNext(slot, sleep)
		}
	}
}

// sendNext sends what log s may send of its runs, in order.
func (e *Engine) sendNext(slot Slot, sleep *ioring.Instant) {
	lg := &e.logs[slot]
	for lg.runsFlying < e.o.InflightMax && (lg.state == logOpen || lg.state == logClosing) {
		i := lg.runFirst
		if lg.runSent != none {
			i = e.extents.pool[lg.runSent].next
		}
		if i == none || e.extents.pool[i].state != runSealed {
			return
		}
		ext := &e.extents.pool[i]
		if lg.taken < ext.header.Base {
			// the journal has something before it: that goes first, in a run of its own
			if !e.startDrain(slot, ext.header.Base, sleep) {
				earlier(sleep, e.now+1e6)
				return
			}
			continue
		}
		seg := &e.segments.all[ext.segment]
		if seg.next0+int64(ext.block.Len()) > seg.bytes {
			e.wantRoom(slot, ext.segment, seg.next0+int64(ext.block.Len()))
			earlier(sleep, e.now+1e6)
			return
		}
		e.writesTo(lg, ext.segment)
		e.sendRun(i, sleep)
	}
}
