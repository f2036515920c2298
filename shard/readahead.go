package shard

import "github.com/tailbound/tailbound/engine"

// aheads are runs that somebody who reads a log from disk, from its start to its
// end, will want next. They belong to one shard:
//
//	answered from a run, and there is more in it: keep it
//	answered to its end: read the next one; await read(); keep it
//	asked for what is kept, or being read: that is it
//	somebody else finds no read buffer, or the log goes: let it go
//
// Of a log one run is kept or read ahead, of a shard aheadMax; one read is under
// way at a time, and only while another read buffer stays free. So whoever
// reads far behind takes no more of the device from appends than one read.
type aheads struct {
	all     [aheadMax]ahead
	victim  int // whose turn it is to make place
	reading int
	peek    [1]engine.View
}

const aheadMax = 2

type ahead struct {
	used    bool
	reading bool
	gone    bool // while it was read its log went
	slot    engine.Slot
	from    int64 // the run holds this offset
	read    uint32
	part    int32 // who waits for it; none
}

// aheadUser marks these reads among the engine's events, with their number.
const aheadUser = uint32(1) << 31

// takeAhead gives part p, whose records are not in memory, the run that holds
// its offset, where that is kept, or has it wait for it.
func (s *Shard) takeAhead(i uint32, p int32) (have, waits bool) {
	x := &s.parts[p]
	for k := range s.aheads.all {
		a := &s.aheads.all[k]
		if !a.used || a.gone || a.slot != x.partition.slot || x.from < a.from {
			continue
		}
		if a.reading {
			if a.part != none || a.from != x.from {
				continue
			}
			a.part = p
			x.reading = true
			s.requests[i].pending++
			s.Timelines.Counters.AheadHits++
			return false, true
		}
		if !s.holds(a.read, x.from, x.high) {
			continue // it ends before
		}
		x.read, x.haveRead = a.read, true
		a.used = false
		s.Timelines.Counters.AheadHits++
		return true, false
	}
	return false, false
}

// holds says whether a run that begins at from or before reaches past it.
func (s *Shard) holds(read uint32, from, to int64) bool {
	n := s.engine.ReadViews(read, from, to, 0, s.aheads.peek[:])
	if n > 0 {
		s.engine.Unread(s.aheads.peek[0].Pin)
	}
	return n > 0
}

// readAhead is called for a part that is answered from a run: its reader will
// ask for what follows.
func (s *Shard) readAhead(x *part) {
	if s.stage != StageServing {
		return
	}
	next := x.counted
	k := s.placeAhead(x.partition.slot)
	if k < 0 {
		return
	}
	a := &s.aheads.all[k]
	if s.holds(x.read, next, x.high) {
		*a = ahead{used: true, slot: x.partition.slot, from: next, read: x.read, part: none}
		x.haveRead = false // it is kept; its views stay pinned until they have left
		return
	}
	if s.aheads.reading > 0 || s.engine.ColdFree() < 2 || s.engine.ReadCold(x.partition.slot, next, aheadUser|uint32(k)) != engine.OK {
		return
	}
	*a = ahead{used: true, reading: true, slot: x.partition.slot, from: next, part: none}
	s.aheads.reading++
	s.Timelines.Counters.ReadsAhead++
}

// placeAhead finds a place for a run of a log: what is kept of the same log goes.
// -1: there is none.
func (s *Shard) placeAhead(slot engine.Slot) int {
	at := -1
	for k := range s.aheads.all {
		a := &s.aheads.all[k]
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
		s.aheads.victim = (s.aheads.victim + 1) % aheadMax
		if a := &s.aheads.all[s.aheads.victim]; !a.reading {
			s.endAhead(a)
			at = s.aheads.victim
		}
	}
	return at
}

func (s *Shard) endAhead(a *ahead) {
	s.engine.ReadEnd(a.read)
	a.used = false
}

// dropAhead lets go of a run that is kept. False: there is none.
func (s *Shard) dropAhead() bool {
	for k := range s.aheads.all {
		if a := &s.aheads.all[k]; a.used && !a.reading {
			s.endAhead(a)
			return true
		}
	}
	return false
}

// forgetAhead lets go of a log's runs: its slot will be another's.
func (s *Shard) forgetAhead(slot engine.Slot) {
	for k := range s.aheads.all {
		if a := &s.aheads.all[k]; a.used && a.slot == slot {
			if a.reading {
				a.gone = true
			} else {
				s.endAhead(a)
			}
		}
	}
}

// aheadDone: a run that was read ahead is there, whole and verified, or is not.
func (s *Shard) aheadDone(k uint32, st engine.Status, read uint32) {
	a := &s.aheads.all[k]
	a.reading, a.read = false, read
	s.aheads.reading--
	switch {
	case a.part != none:
		a.used = false
		s.readDone(uint32(a.part), st, read)
	case st != engine.OK:
		a.used = false // whoever asks for it finds out
	case a.gone:
		s.endAhead(a)
	}
}
