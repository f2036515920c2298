package shard

import (
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/metrics"
)

// coldPerFetch bounds the cold reads one fetch has under way.
const coldPerFetch = 4

// readCold starts reading the run that part p needs. False: no read buffer is
// free; the part is answered empty, or tried again when one is.
func (s *Shard) readCold(i uint32, p int32) bool {
	x := &s.parts[p]
	st := s.engine.ReadCold(x.partition.slot, x.from, uint32(p))
	for st == engine.WaitMemory && s.dropAhead() {
		st = s.engine.ReadCold(x.partition.slot, x.from, uint32(p))
	}
	switch st {
	case engine.OK:
		x.reading = true
		s.requests[i].pending++
		s.Timelines.Counters.ColdReads++
		return true
	case engine.WaitMemory:
		s.starve(i)
		s.requests[i].waited |= metrics.WaitedReadBuffers
		if s.engine.ColdPinned() {
			s.net.Expedite()
		}
		return false
	default:
		x.code = codeOf(st)
		return false
	}
}

// readDone: a cold read came back, whole and verified, or not.
func (s *Shard) readDone(user uint32, st engine.Status, read uint32) {
	if user&aheadUser != 0 {
		s.aheadDone(user&^aheadUser, st, read)
		return
	}
	x := &s.parts[user]
	r := &s.requests[x.request]
	x.reading = false
	r.pending--
	if st == engine.OK {
		x.read, x.haveRead = read, true
	} else {
		x.code = codeOf(st)
	}
	if r.kind == kindFetch {
		r.stamps[metrics.Durable] = int64(s.now)
	}
	s.lookAt(x.request)
}
