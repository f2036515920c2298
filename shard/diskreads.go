package shard

import (
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/metrics"
)

// A read from disk is for a part of a Fetch, for a part of a ListOffsets, or for
// read-ahead. The engine, which has few buffers for them, is given a number that says
// which, and returns it with the result. Without a flag it is a part of a Fetch.
const (
	aheadUser  = uint32(1) << 31 // with an index of readahead.all
	searchUser = uint32(1) << 30 // with a part of a ListOffsets
)

// readsPerFetch is how many reads one Fetch may have under way.
const readsPerFetch = 4

// beginRead begins to read the extent that has an offset of a partition. If no read
// buffer is free, not even one of read-ahead, the request is tried again when one is.
func (s *Shard) beginRead(req *request, p *partition, from int64, user uint32) (begun bool, code kafka.ErrorCode) {
	st := s.engine.ReadDisk(p.slot, from, user)
	for st == engine.WaitMemory && s.readahead.drop() {
		st = s.engine.ReadDisk(p.slot, from, user)
	}
	switch st {
	case engine.OK:
		req.pending++
		s.Timelines.Counters.ColdReads++
		return true, kafka.None
	case engine.WaitMemory:
		s.requests.blockOnMemory(req)
		req.waited |= metrics.WaitedReadBuffers
		if s.engine.ReadBuffersPinned() {
			s.net.Expedite()
		}
		return false, kafka.None
	default:
		return false, codeOf(st)
	}
}

// readDone takes the result of a read, which is whole and verified if st is OK.
func (s *Shard) readDone(user uint32, st engine.Status, read uint32) {
	switch {
	case user&aheadUser != 0:
		if part := s.readahead.done(user&^aheadUser, st, read); part != none {
			s.fetchReadDone(part, st, read)
		}
	case user&searchUser != 0:
		part := &s.searches.parts.all[user&^searchUser]
		if st == engine.OK {
			part.read, part.hasRead = read, true
		} else {
			part.code = codeOf(st)
		}
		s.requests.doneForRequest(part.request)
	default:
		s.fetchReadDone(int32(user), st, read)
	}
}

func (s *Shard) fetchReadDone(at int32, st engine.Status, read uint32) {
	part := &s.fetches.parts.all[at]
	if st == engine.OK {
		part.read, part.hasRead = read, true
	} else {
		part.code = codeOf(st)
	}
	s.requests.all[part.request].timeline[metrics.Durable] = int64(s.now)
	s.requests.doneForRequest(part.request)
}
