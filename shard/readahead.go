package shard

import (
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/metrics"
)

// readahead holds extents that a client which reads a log from disk, from its
// start to its end, will want next. It belongs to the shard:
//
//	answered from an extent, and there is more in it: keep it
//	answered to its end: read the next one; await read(); keep it
//	asked for what is kept, or being read: that is it
//	another client finds no read buffer, or the log goes: let it go
//
// Of a log one extent is kept or read ahead, of a shard aheadMax; one read is
// under way at a time, and only while another read buffer stays free. So a client
// that reads far behind takes no more of the device from appends than one read.
type readahead struct {
	engine   *engine.Engine
	counters *metrics.Counters

	all     [aheadMax]ahead
	victim  int // which makes room next
	reading int
	peek    [1]engine.View
}

const aheadMax = 2

type ahead struct {
	used    bool
	reading bool
	gone    bool // while it was read its log went
	slot    engine.Slot
	from    int64 // the extent holds this offset
	read    uint32
	part    int32 // of a Fetch, that waits for it; none
}

// take gives part at of a Fetch, whose records are not in memory, the extent that
// holds its offset, where that is kept, or has it wait for it.
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
			continue // it ends before
		}
		part.read, part.hasRead = kept.read, true
		kept.used = false
		r.counters.AheadHits++
		return true, false
	}
	return false, false
}

// holds says whether an extent that begins at from or before reaches past it.
func (r *readahead) holds(read uint32, from, to int64) bool {
	got := r.engine.ReadViews(read, from, to, 0, r.peek[:])
	if got > 0 {
		r.engine.UnpinQuietly(r.peek[0].Pin)
	}
	return got > 0
}

// answered is called for a part that is answered from an extent: its client will
// ask for what follows.
func (r *readahead) answered(part *fetchPart) {
	slot, next := part.partition.slot, part.counted
	at := r.place(slot)
	if at < 0 {
		return
	}
	kept := &r.all[at]
	if r.holds(part.read, next, part.high) {
		*kept = ahead{used: true, slot: slot, from: next, read: part.read, part: none}
		part.hasRead = false // it is kept; its views stay pinned until they have left
		return
	}
	if r.reading > 0 || r.engine.ReadBuffersFree() < 2 || r.engine.ReadDisk(slot, next, aheadUser|uint32(at)) != engine.OK {
		return
	}
	*kept = ahead{used: true, reading: true, slot: slot, from: next, part: none}
	r.reading++
	r.counters.ReadsAhead++
}

// place finds a place for an extent of a log: what is kept of the same log goes.
// -1: there is none.
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

func (r *readahead) end(kept *ahead) {
	r.engine.ReadEnd(kept.read)
	kept.used = false
}

// drop lets go of an extent that is kept. False: there is none.
func (r *readahead) drop() bool {
	for i := range r.all {
		if kept := &r.all[i]; kept.used && !kept.reading {
			r.end(kept)
			return true
		}
	}
	return false
}

// forget lets go of a log's extents: its slot will be another's.
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

// done: an extent that was read ahead is there, whole and verified, or is not. It
// is the part that waits for it, none where it is kept.
func (r *readahead) done(at uint32, st engine.Status, read uint32) (part int32) {
	kept := &r.all[at]
	kept.reading, kept.read = false, read
	r.reading--
	switch {
	case kept.part != none:
		kept.used = false
	case st != engine.OK:
		kept.used = false // a client that asks for it finds out
	case kept.gone:
		r.end(kept)
	}
	return kept.part
}
