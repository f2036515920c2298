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
type directContention struct {
	interval   uint32
	until      ioring.Instant
	logs, last int // in this interval, in the one before

	directUntil ioring.Instant // frames did not keep up
	directFor   ioring.Instant
}

const (
	// crowdLogs is up to how many logs with large batches write runs of their
	// own whatever comes; directLogsMax is it when frames do not keep up.
	contentionLogs = 8
	// crowdNS is the interval in which they are counted: some writes and syncs of
	// the disk.
	contentionIntervalNS = 10e6
	// crowdRunsNS is how long a crowd writes runs before frames are tried again;
	// twice as long, up to crowdRunsMaxNS, each time they fail again soon.
	contentionDirectNS    = 1e9
	contentionDirectMaxNS = 64e9
)

// growing is a slab that direct runs fill, one after the other, of any log.
type place struct {
	slab   int32 // none before the first
	extent int32 // that grows there; none
}

// mustCatchUp says that a log with large batches has to wait for its flushes: the
// journal has more of it than may be ahead of a direct extent, and memory is
// short. Going on in the journal would write everything twice just when that is
// too much.
func (x *extents) mustCatchUp(journal *journal, lg *log, need int) bool {
	lg.catchingUp = (lg.catchingUp || journal.memoryShort) && lg.unflushed > x.env.flushAheadMax() && x.large(journal, lg, need)
	return lg.catchingUp
}

// wantsDirect chooses, for a batch of need entry bytes, between the journal and an
// extent of the log's own segment. An extent costs a sync of its file; a frame
// costs writing its bytes twice. At Options.DirectBytes the two are about even.
// Many logs with a little each never get there, and share the journal's one sync.
func (x *extents) wantsDirect(journal *journal, lg *log, need int) bool {
	if lg.building != none {
		// What follows an extent that is being built goes with it, however small.
		if ext := &x.pool[lg.building]; ext.header.End == lg.end && ext.header.Batches > 0 && format.HeaderBytes+ext.bytes+need <= x.directBytesMax {
			return true
		}
	}
	if !x.large(journal, lg, need) || x.contended(journal, lg, need) {
		return false
	}
	if lg.unflushed > x.env.flushAheadMax() || lg.directExtents == 0 && x.directLogs == directLogsMax {
		return false
	}
	// Two free ones: what the journal has before it needs one too.
	return x.free != none && x.pool[x.free].next != none
}

// large says that with need entry bytes more there is as much of a log as is worth
// an extent: with what waits for the next frame, or, while direct extents of it are
// in flight, with what gathers behind those, as long as that came to something the
// last time.
func (x *extents) large(journal *journal, lg *log, need int) bool {
	if lg.frameSeq == journal.sealedSeq+1 {
		need += lg.frameBytes
	}
	return x.env.o.DirectBytes > 0 && (need >= x.env.o.DirectBytes || lg.directExtents > 0 && lg.extentBytes >= x.env.o.DirectBytes/2)
}

// flushAheadMax is how much the journal may have of a log that its segment has not
// when the log goes on with a direct extent, which waits for that.
func (v *env) flushAheadMax() int64 {
	return int64(min(16*format.FlushBytesMax, v.o.LogMemoryBytes/8))
}

// crowded counts log l, which has a large batch of need entry bytes, and says
// that the frames take it because they take them all.
func (x *extents) contended(journal *journal, lg *log, need int) bool {
	crowd := &x.contention
	if x.env.now >= crowd.until {
		if crowd.last = crowd.logs; x.env.now >= crowd.until+contentionIntervalNS {
			crowd.last = 0 // that was not the one before
		}
		crowd.logs, crowd.until = 0, x.env.now+contentionIntervalNS
		crowd.interval++
	}
	if lg.contentionInterval != crowd.interval {
		lg.contentionInterval = crowd.interval
		crowd.logs++
	}
	switch n := max(crowd.logs, crowd.last); {
	case n <= contentionLogs || n <= directLogsMax && x.env.now < crowd.directUntil:
		return false
	case n > directLogsMax || journal.openBytes+need <= format.FrameBytesMax || journal.inFlight() < x.env.o.InflightMax:
		return true
	}
	// a frame is full, and as many as may be are in flight
	if x.env.now < crowd.directUntil+crowd.directFor {
		crowd.directFor = min(2*crowd.directFor, contentionDirectMaxNS)
	} else {
		crowd.directFor = contentionDirectNS
	}
	crowd.directUntil = x.env.now + crowd.directFor
	return false
}

// directFits makes sure that the run of log s that is being built takes a batch
// of n bytes, beginning one where it must. False: no memory for it.
func (e *Engine) openExtentFor(lg *log, n int) bool {
	need := format.EntryHeaderBytes + format.Align8(n)
	if lg.building != none {
		ext := &e.extents.pool[lg.building]
		if ext.segment == lg.active && (ext.header.Batches == 0 || ext.header.End == lg.end && format.HeaderBytes+ext.bytes+need <= e.extents.directBytesMax) &&
			ext.pos+format.HeaderBytes+ext.bytes+need <= e.cache.slabs[ext.slab].block.Len() {
			if ext.header.Batches == 0 {
				ext.header.Base, ext.header.End = lg.end, lg.end
			}
			return true
		}
		e.extents.seal(&e.cache, &e.segments, &e.flush, lg)
	}
	if e.extents.free == none {
		return false
	}
	place := e.placeFor(format.HeaderBytes + need)
	if place == nil {
		return false
	}
	lg.building = e.extents.add(&e.logs, extent{state: extentBuilding, log: lg.slot, segment: lg.active, buffer: none, slab: place.slab, pos: e.cache.slabs[place.slab].used, extra: 2 * extentOverhead,
		header: format.RunHeader{Base: lg.end, End: lg.end, MaxTime: format.NoTime}})
	place.extent = lg.building
	e.segments.all[lg.active].extra += 2 * extentOverhead
	if lg.directExtents == 0 {
		e.extents.directSlots[e.extents.directLogs] = lg.slot
		e.extents.directLogs++
	}
	lg.directExtents++
	lg.wroteDirect = true
	return true
}

// slabFor is where a run may grow that begins with n bytes: the fullest place
// that has them and nobody uses, or one with a new slab, or the place of the
// largest run, which is closed for that. nil: no memory.
func (e *Engine) placeFor(n int) *place {
	var fullest, idle, largest *place
	for i := range e.extents.places {
		place := &e.extents.places[i]
		switch {
		case place.extent != none:
			if largest == nil || e.extents.pool[place.extent].bytes > e.extents.pool[largest.extent].bytes {
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
		e.extents.seal(&e.cache, &e.segments, &e.flush, &e.logs.all[e.extents.pool[largest.extent].log])
		if idle = largest; e.cache.slabs[idle.slab].used+n <= e.cache.slabs[idle.slab].block.Len() {
			return idle
		}
	}
	if !e.cache.take(&e.logs, &e.batches, &idle.slab) {
		return nil
	}
	return idle
}

// sealRun closes the run of l that is being built.
func (x *extents) seal(cache *cache, segments *segments, flush *flush, lg *log) {
	i := lg.building
	if i == none {
		return
	}
	ext := &x.pool[i]
	if ext.header.Batches == 0 { // what it was begun for was given back
		x.drop(segments, flush, lg, i)
		return
	}
	x.leavePlace(lg)
	slab := &cache.slabs[ext.slab]
	at := ext.pos + format.HeaderBytes + ext.bytes
	n := format.AlignBlock(at)
	clear(slab.block.Bytes()[at:n])
	slab.used = n
	ext.state, ext.block = extentSealed, slab.block.Slice(ext.pos, n-ext.pos)
	lg.extentBytes = ext.bytes
}

// grown: the run of l that was being built has its size, or is given up.
func (x *extents) leavePlace(lg *log) {
	for i := range x.places {
		if place := &x.places[i]; place.extent == lg.building {
			place.extent = none
		}
	}
	lg.building = none
}

// stepRuns sends direct runs, while few of their log's are in flight; what
// comes meanwhile is gathered in the next one, which goes beside them when it is
// half as large as it may be.
func (e *Engine) stepExtents(sleep *ioring.Instant) {
	if e.extents.used == 0 {
		return
	}
	for i := range e.extents.places {
		if k := e.extents.places[i].extent; k != none {
			ext := &e.extents.pool[k]
			if lg := &e.logs.all[ext.log]; ext.header.Batches == 0 || lg.extentsInFlight == 0 || lg.extentsInFlight < e.o.InflightMax && ext.bytes >= e.extents.directBytesMax/2 {
				e.extents.seal(&e.cache, &e.segments, &e.flush, lg)
			}
		}
	}
	for i := range e.flush.extentOf {
		if k := e.flush.extentOf[i]; k != none && e.extents.pool[k].state == extentSent && !e.extents.pool[k].io.pushed {
			e.pushExtent(k, sleep)
		}
	}
	// a log may leave the list under way: backwards
	for k := e.extents.directLogs - 1; k >= 0; k-- {
		lg := &e.logs.all[e.extents.directSlots[k]]
		for i := lg.firstExtent; i != none && e.extents.pool[i].state >= extentSent; {
			next := e.extents.pool[i].next
			if ext := &e.extents.pool[i]; ext.state == extentSent && !ext.io.pushed {
				e.pushExtent(i, sleep)
			}
			i = next
		}
		if !e.failed {
			e.sendNextExtents(lg, sleep)
		}
	}
}

// sendNext sends what log s may send of its runs, in order.
func (e *Engine) sendNextExtents(lg *log, sleep *ioring.Instant) {
	for lg.extentsInFlight < e.o.InflightMax && (lg.state == logOpen || lg.state == logDeleting) {
		i := lg.firstExtent
		if lg.sentExtent != none {
			i = e.extents.pool[lg.sentExtent].next
		}
		if i == none || e.extents.pool[i].state != extentSealed {
			return
		}
		ext := &e.extents.pool[i]
		if lg.flushing < ext.header.Base {
			// the journal has something before it: that goes first, in a run of its own
			if !e.startFlush(lg, ext.header.Base, sleep) {
				earlier(sleep, e.now+1e6)
				return
			}
			continue
		}
		seg := &e.segments.all[ext.segment]
		if seg.nextPosition+int64(ext.block.Len()) > seg.allocated {
			e.requestGrowth(lg, seg, seg.nextPosition+int64(ext.block.Len()))
			earlier(sleep, e.now+1e6)
			return
		}
		e.segments.writesTo(&e.index, lg, seg)
		e.sendExtent(i, sleep)
	}
}
