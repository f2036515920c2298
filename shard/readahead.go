package shard

import "github.com/tailbound/tailbound/engine"

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

// takeAhead gives part p, whose records are not in memory, the extent that holds
// its offset, where that is kept, or has it wait for it.
func (s *Shard) takeAhead(req *request, p int32) (have, waits bool) {
	part := &s.fetches.parts.all[p]
	for k := range s.readahead.all {
		a := &s.readahead.all[k]
		if !a.used || a.gone || a.slot != part.partition.slot || part.from < a.from {
			continue
		}
		if a.reading {
			if a.part != none || a.from != part.from {
				continue
			}
			a.part = p
			req.pending++
			s.Timelines.Counters.AheadHits++
			return false, true
		}
		if !s.holds(a.read, part.from, part.high) {
			continue // it ends before
		}
		part.read, part.hasRead = a.read, true
		a.used = false
		s.Timelines.Counters.AheadHits++
		return true, false
	}
	return false, false
}

// holds says whether an extent that begins at from or before reaches past it.
func (s *Shard) holds(read uint32, from, to int64) bool {
	n := s.engine.ReadViews(read, from, to, 0, s.readahead.peek[:])
	if n > 0 {
		s.engine.UnpinQuietly(s.readahead.peek[0].Pin)
	}
	return n > 0
}

// readAhead is called for a part that is answered from an extent: its client
// will ask for what follows.
func (s *Shard) readAhead(part *fetchPart) {
	if s.stage != StageServing {
		return
	}
	slot, next := part.partition.slot, part.counted
	k := s.placeAhead(slot)
	if k < 0 {
		return
	}
	a := &s.readahead.all[k]
	if s.holds(part.read, next, part.high) {
		*a = ahead{used: true, slot: slot, from: next, read: part.read, part: none}
		part.hasRead = false // it is kept; its views stay pinned until they have left
		return
	}
	if s.readahead.reading > 0 || s.engine.ReadBuffersFree() < 2 || s.engine.ReadDisk(slot, next, aheadUser|uint32(k)) != engine.OK {
		return
	}
	*a = ahead{used: true, reading: true, slot: slot, from: next, part: none}
	s.readahead.reading++
	s.Timelines.Counters.ReadsAhead++
}

// placeAhead finds a place for an extent of a log: what is kept of the same log
// goes. -1: there is none.
func (s *Shard) placeAhead(slot engine.Slot) int {
	at := -1
	for k := range s.readahead.all {
		a := &s.readahead.all[k]
		switch {
		case a.used && a.slot == slot && a.reading:
			return -1
		case a.used && a.slot == slot:
			s.endAhead(a)
			return k
		case !a.used:
			at = k
		}
	}
	for range aheadMax {
		if at >= 0 {
			break
		}
		s.readahead.victim = (s.readahead.victim + 1) % aheadMax
		if a := &s.readahead.all[s.readahead.victim]; !a.reading {
			s.endAhead(a)
			at = s.readahead.victim
		}
	}
	return at
}

func (s *Shard) endAhead(a *ahead) {
	s.engine.ReadEnd(a.read)
	a.used = false
}

// dropAhead lets go of an extent that is kept. False: there is none.
func (s *Shard) dropAhead() bool {
	for k := range s.readahead.all {
		if a := &s.readahead.all[k]; a.used && !a.reading {
			s.endAhead(a)
			return true
		}
	}
	return false
}

// forgetAhead lets go of a log's extents: its slot will be another's.
func (s *Shard) forgetAhead(slot engine.Slot) {
	for k := range s.readahead.all {
		if a := &s.readahead.all[k]; a.used && a.slot == slot {
			if a.reading {
				a.gone = true
			} else {
				s.endAhead(a)
			}
		}
	}
}

// aheadDone: an extent that was read ahead is there, whole and verified, or is
// not.
func (s *Shard) aheadDone(k uint32, st engine.Status, read uint32) {
	a := &s.readahead.all[k]
	a.reading, a.read = false, read
	s.readahead.reading--
	switch {
	case a.part != none:
		a.used = false
		s.readDone(uint32(a.part), st, read)
	case st != engine.OK:
		a.used = false // a client that asks for it finds out
	case a.gone:
		s.endAhead(a)
	}
}
