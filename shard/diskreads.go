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

// headsPerRead is how many headers of other runs a read may pass before others have
// their turn. Each time that this was not enough for a part, it doubles for that part.
const headsPerRead = 256

// readsPerFetch is how many reads one Fetch may have under way.
const readsPerFetch = 4

// beginRead begins to read the extent that has an offset of a partition, for a part whose
// read was Unfinished so many times. If no read
// buffer is free, not even one of read-ahead, the request is tried again when one is.
func (s *Shard) beginRead(req *request, p *partition, from int64, user uint32, unfinished uint8) (begun bool, code kafka.ErrorCode) {
	heads := headsPerRead << min(unfinished, 20)
	st := s.engine.ReadDiskWithin(p.slot, from, user, heads)
	for st == engine.WaitMemory && s.readahead.drop() {
		st = s.engine.ReadDiskWithin(p.slot, from, user, heads)
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
		if !s.takeRead(&part.diskRead, part.request, st, read) {
			return
		}
		switch {
		case st == engine.OK:
		case st == engine.Corrupt:
			if part.unfinished = 0; !s.searches.passHole(part) {
				part.code = codeOf(st)
			}
		default:
			part.code = codeOf(st)
		}
		s.requests.doneForRequest(part.request)
	default:
		s.fetchReadDone(int32(user), st, read)
	}
}

func (s *Shard) fetchReadDone(at int32, st engine.Status, read uint32) {
	part := &s.fetches.parts.all[at]
	if !s.takeRead(&part.diskRead, part.request, st, read) {
		return
	}
	if st != engine.OK {
		part.code = codeOf(st)
	}
	s.requests.all[part.request].timeline[metrics.Durable] = int64(s.now)
	s.requests.doneForRequest(part.request)
}

// diskRead is the read from disk that a part of a request is served from.
type diskRead struct {
	read       uint32 // with hasRead
	hasRead    bool
	unfinished uint8 // how often it was Unfinished
}

// endRead gives the read's buffer back, if there is one: other parts need it too.
func (d *diskRead) endRead(log *engine.Engine) {
	if d.hasRead {
		log.ReadEnd(d.read)
		d.hasRead = false
	}
}

// takeRead takes the result of a read of a part of the request in a slot. False: it was
// Unfinished, and the request goes on behind those that wait for a read buffer.
func (s *Shard) takeRead(d *diskRead, slot uint32, st engine.Status, read uint32) (finished bool) {
	switch st {
	case engine.OK:
		*d = diskRead{read: read, hasRead: true}
	case engine.Unfinished:
		d.unfinished++
		req := &s.requests.all[slot]
		req.pending--
		s.requests.blockOnMemory(req)
		return false
	}
	return true
}
