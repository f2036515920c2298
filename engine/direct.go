package engine

import (
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
)

// Direct writes: which batches go to an extent of their log's segment in place of a
// journal frame, where such an extent is built, and when it is sent. Reasons and
// measurements are in docs/decisions/0008-direct-runs.md.

// directContention counts the logs that had large batches in an interval. When they
// are many, either all of them use the journal, which costs one sync for all, or,
// when frames do not keep up because the journal writes every byte twice, all of them
// write directly. They are not mixed: a direct extent waits until the log's journaled
// batches are flushed, so mixing the two stalls both.
type directContention struct {
	interval   uint32         // number of the interval that is being counted
	until      ioring.Instant // its end
	logs, last int            // counted in it, and in the one before

	directUntil ioring.Instant // frames did not keep up: all write directly until then
	directFor   ioring.Instant // for so long
}

const (
	// contentionLogs is how many logs with large batches may write directly in any
	// case. When frames do not keep up it is directLogsMax.
	contentionLogs = 8
	// contentionIntervalNS is the interval of counting: some writes and syncs of the disk.
	contentionIntervalNS = 10e6
	// contentionDirectNS is how long many logs write directly before frames are tried
	// again. It doubles, up to contentionDirectMaxNS, each time frames fail soon after.
	contentionDirectNS    = 1e9
	contentionDirectMaxNS = 64e9
	// directRetryNS is how long an extent that cannot be sent waits for a flush before
	// it, or for room in its segment.
	directRetryNS = 1e6
)

// place is a slab in which direct extents are built, one after the other, of any log.
type place struct {
	slab   int32 // none before the first
	extent int32 // the one that is being built there; none
}

// mustCatchUp reports that a log with large batches has to wait for its flushes: the
// journal has more of it than may be ahead of a direct extent, and memory is short.
// Going on in the journal would write everything twice when that is most expensive.
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
		// A batch that follows the extent that is being built is added to it, however small.
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
	// Two free extents: the flush of what the journal has before it needs one too.
	return x.free != none && x.fresh.After(x.free, x.pool[x.free].next) != none
}

// large reports that need more entry bytes of a log are worth an extent: together with
// what waits for the next frame, or, while the log has direct extents, with what will
// be gathered behind those, as long as the last one became half as large as
// Options.DirectBytes.
func (x *extents) large(journal *journal, lg *log, need int) bool {
	if lg.frameSeq == journal.sealedSeq+1 {
		need += lg.frameBytes
	}
	return x.env.o.DirectBytes > 0 && (need >= x.env.o.DirectBytes || lg.directExtents > 0 && lg.extentBytes >= x.env.o.DirectBytes/2)
}

// flushAheadMax bounds how many unflushed entry bytes a log may have in the journal when
// it begins a direct extent, which waits for their flush.
func (v *env) flushAheadMax() int64 {
	return int64(min(16*format.FlushBytesMax, v.o.LogMemoryBytes/8))
}

// contended counts a log, which has a large batch of need entry bytes, and reports that
// the journal takes the batch because it takes those of all logs.
func (x *extents) contended(journal *journal, lg *log, need int) bool {
	count := &x.contention
	if x.env.now >= count.until {
		if count.last = count.logs; x.env.now >= count.until+contentionIntervalNS {
			count.last = 0 // the interval before had none
		}
		count.logs, count.until = 0, x.env.now+contentionIntervalNS
		count.interval++
	}
	if lg.contentionInterval != count.interval {
		lg.contentionInterval = count.interval
		count.logs++
	}
	switch n := max(count.logs, count.last); {
	case n <= contentionLogs || n <= directLogsMax && x.env.now < count.directUntil:
		return false
	case n > directLogsMax || journal.openBytes+need <= format.FrameBytesMax || journal.inFlight() < x.env.o.InflightMax:
		return true
	}
	// A frame is full, and as many as allowed are in flight: the journal does not keep up.
	if x.env.now < count.directUntil+count.directFor {
		count.directFor = min(2*count.directFor, contentionDirectMaxNS)
	} else {
		count.directFor = contentionDirectNS
	}
	count.directUntil = x.env.now + count.directFor
	return false
}

// openExtentFor makes sure that the log has an extent being built that takes a batch of
// n bytes; it begins one where there is none, or none with room. False: no memory.
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
	lg.building = e.extents.add(&e.logs, extent{state: extentBuilding, log: lg.slot, segment: lg.active, buffer: none,
		slab: place.slab, pos: e.cache.slabs[place.slab].used, extra: 2 * extentOverhead,
		header: format.RunHeader{Base: lg.end, End: lg.end, MaxTime: format.NoTime}})
	place.extent = lg.building
	e.segments.all[lg.active].extra += 2 * extentOverhead
	if lg.directExtents == 0 {
		e.extents.directSlots[e.extents.directLogs] = lg.slot
		e.extents.directLogs++
	}
	lg.directExtents++
	return true
}

// placeFor is a place to build an extent that begins with n bytes: the fullest unused
// one with room for them, or an unused one with a new slab, or the place of the largest
// extent, which is sealed for that. nil: no memory.
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

// seal ends the building of a log's extent. One without a batch is dropped.
func (x *extents) seal(cache *cache, segments *segments, flush *flush, lg *log) {
	i := lg.building
	if i == none {
		return
	}
	ext := &x.pool[i]
	if ext.header.Batches == 0 { // the batch that it was begun for was aborted
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

// leavePlace frees the place of a log's extent, which is built or given up.
func (x *extents) leavePlace(lg *log) {
	for i := range x.places {
		if place := &x.places[i]; place.extent == lg.building {
			place.extent = none
		}
	}
	lg.building = none
}

// stepExtents seals and sends direct extents, and pushes again what the ring had no
// room for. The first extent of a log goes at once. What is appended while it is in
// flight is gathered in the next one, which goes beside it when it has half of its
// largest size: before that, two writes and syncs side by side cost more than they gain.
func (e *Engine) stepExtents(sleep *ioring.Instant) {
	if e.extents.used == 0 {
		return
	}
	for i := range e.extents.places {
		if k := e.extents.places[i].extent; k != none {
			ext := &e.extents.pool[k]
			lg := &e.logs.all[ext.log]
			halfFull := ext.bytes >= e.extents.directBytesMax/2
			if ext.header.Batches == 0 || lg.extentsInFlight == 0 || lg.extentsInFlight < e.o.InflightMax && halfFull {
				e.extents.seal(&e.cache, &e.segments, &e.flush, lg)
			}
		}
	}
	for i := range e.flush.extentOf {
		if k := e.flush.extentOf[i]; k != none && e.extents.pool[k].state == extentSent && !e.extents.pool[k].io.pushed {
			e.pushExtent(k, sleep)
		}
	}
	// Backwards, as a log may leave the list under way.
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

// sendNextExtents sends a log's sealed extents, in order, while fewer than
// Options.InflightMax are in flight.
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
			// What the journal has before it is flushed first.
			if !e.startFlush(lg, ext.header.Base, sleep) {
				earlier(sleep, e.now+directRetryNS)
				return
			}
			continue
		}
		seg := &e.segments.all[ext.segment]
		if seg.nextPosition+int64(ext.block.Len()) > seg.allocated {
			e.requestGrowth(lg, seg, seg.nextPosition+int64(ext.block.Len()), int64(ext.bytes))
			earlier(sleep, e.now+directRetryNS)
			return
		}
		e.segments.writesTo(&e.index, lg, seg)
		e.sendExtent(i, sleep)
	}
}
