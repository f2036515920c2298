package shard

import (
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/metrics"
)

// readahead keeps extents that a client which reads a log from disk sequentially will
// ask for next. It belongs to the shard. For each such client it is this function:
//
//	for {
//		if the extent that was sent from has more { keep it } else { keep(await read(the next one)) }
//		await the client's next Fetch             // take: it is served from the kept extent
//	}
//
// A kept extent is given up when another request finds no read buffer, and when its
// log is deleted.
//
// A log has at most one extent kept or read ahead, a shard aheadMax. One read is under
// way at a time, and only while another read buffer is free, so that readers far
// behind disturb appends by no more than one read.
type readahead struct {
	engine   *engine.Engine
	counters *metrics.Counters

	all     [aheadMax]ahead
	victim  int // the last that was given up for another
	reading int
	peek    [1]engine.View
}

const aheadMax = 2

type ahead struct {
	used    bool
	reading bool
	gone    bool // its log was deleted while it was read
	slot    engine.Slot
	from    int64  // an offset in the extent
	read    uint32 // the engine's number of the read, once it is done
	part    int32  // of a Fetch that waits for the read; else none
}

// take gives part at of a Fetch the kept extent that has its offset, or has the part
// wait for it if it is being read.
func (r *readahead) take(part *fetchPart, at int32) (have, waits bool) {
	for i := range r.all {
		kept := &r.all[i]
		if !kept.used || kept.gone || kept.slot != part.partition.slot || part.from < kept.from {
			continue
		}
		if kept.reading {
			if kept.part != none || kept.from != part.from {
				continue
			}
			kept.part = at
			r.counters.AheadHits++
			return false, true
		}
		if !r.holds(kept.read, part.from, part.high) {
			continue // it ends before the offset
		}
		part.read, part.hasRead = kept.read, true
		kept.used = false
		r.counters.AheadHits++
		return true, false
	}
	return false, false
}

// holds says whether an extent has the record at from, where to is the high
// watermark.
func (r *readahead) holds(read uint32, from, to int64) bool {
	got := r.engine.ReadViews(read, from, to, 0, r.peek[:])
	if got > 0 {
		r.engine.UnpinQuietly(r.peek[0].Pin)
	}
	return got > 0
}

// answered keeps the extent that a part is answered from, or begins to read the next
// one: the client will ask for what follows.
func (r *readahead) answered(part *fetchPart) {
	slot, next := part.partition.slot, part.counted
	at := r.place(slot)
	if at < 0 {
		return
	}
	kept := &r.all[at]
	if r.holds(part.read, next, part.high) {
		*kept = ahead{used: true, slot: slot, from: next, read: part.read, part: none}
		part.hasRead = false // the extent is kept here now; the reply's views pin it until they have left
		return
	}
	if r.reading > 0 || r.engine.ReadBuffersFree() < 2 || r.engine.ReadDisk(slot, next, aheadUser|uint32(at)) != engine.OK {
		return
	}
	*kept = ahead{used: true, reading: true, slot: slot, from: next, part: none}
	r.reading++
	r.counters.ReadsAhead++
}

// place is the index for another extent of a log, whose kept one is given up. -1:
// there is none.
func (r *readahead) place(slot engine.Slot) int {
	at := -1
	for i := range r.all {
		kept := &r.all[i]
		switch {
		case kept.used && kept.slot == slot && kept.reading:
			return -1
		case kept.used && kept.slot == slot:
			r.end(kept)
			return i
		case !kept.used:
			at = i
		}
	}
	for range aheadMax {
		if at >= 0 {
			break
		}
		r.victim = (r.victim + 1) % aheadMax
		if kept := &r.all[r.victim]; !kept.reading {
			r.end(kept)
			at = r.victim
		}
	}
	return at
}

// end gives an extent up.
func (r *readahead) end(kept *ahead) {
	r.engine.ReadEnd(kept.read)
	kept.used = false
}

// drop gives up any kept extent. False: there is none.
func (r *readahead) drop() bool {
	for i := range r.all {
		if kept := &r.all[i]; kept.used && !kept.reading {
			r.end(kept)
			return true
		}
	}
	return false
}

// forget gives up a log's extents: the log is deleted.
func (r *readahead) forget(slot engine.Slot) {
	for i := range r.all {
		if kept := &r.all[i]; kept.used && kept.slot == slot {
			if kept.reading {
				kept.gone = true
			} else {
				r.end(kept)
			}
		}
	}
}

// done takes the result of a read. It returns the part that waits for it, or none,
// and then keeps the extent.
func (r *readahead) done(at uint32, st engine.Status, read uint32) (part int32) {
	kept := &r.all[at]
	kept.reading, kept.read = false, read
	r.reading--
	switch {
	case kept.part != none:
		kept.used = false
	case st != engine.OK:
		kept.used = false // a Fetch will meet the error itself
	case kept.gone:
		r.end(kept)
	}
	return kept.part
}
