package shard

import (
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/mem"
	"github.com/tailbound/tailbound/metrics"
)

// appendTrace is what a Produce carries for the flight recorder beside its
// timeline.
type appendTrace struct {
	partition  *partition     // its first batch's; nil: nothing was stored
	written    ioring.Instant // when the write that its last batch went with was over
	writeBytes int32          // and its bytes
	bytes      int64          // of batches
	own, all   int64          // appended and not durable when it came: of its partition, of all
	ownIn      uint64         // appended so far, likewise
	allIn      uint64
}

// The shard gives the recorder what the engine has: both number the kinds alike.
var _ = [1]struct{}{}[int(engine.Works)-int(metrics.DiskWorks)]

// newFlight makes a data shard's recorder; the control shard has none.
func (s *Shard) newFlight(arena *mem.Arena) error {
	if !metrics.Recording || s.o.Shard == 0 {
		return nil
	}
	b, err := arena.Allocate("flight recorder", metrics.FlightBytes, 64)
	if err != nil {
		return err
	}
	s.Flight = metrics.NewFlight(b.Bytes())
	return nil
}

// beginTurn and endTurn tell the recorder of a turn.
func (s *Shard) beginTurn() {
	if s.Flight != nil {
		s.Flight.Begin(int64(s.now))
	}
}

func (s *Shard) endTurn() {
	if s.Flight == nil {
		return
	}
	disk := s.engine.Disk()
	s.Flight.Disk((*[metrics.DiskWorks]uint64)(&disk.Begun), (*[metrics.DiskWorks]uint64)(&disk.Over))
	if s.Flight.Due(int64(s.now)) {
		n := copy(s.Flight.Objectives()[:], s.slo.all[:s.slo.n])
		s.Flight.Roll(int64(s.now), int64(s.wall), n)
	}
}

// traceAppend notes what was under way when a batch of n bytes came, before it is
// counted itself.
func (s *Shard) traceAppend(req *request, trace *appendTrace, p *partition, n int) {
	if trace.partition == nil {
		trace.partition = p
		trace.own, trace.all = s.engine.Unsynced(p.slot)
		trace.ownIn, trace.allIn = p.bytesIn, s.Timelines.Counters.BytesIn
		if s.engine.JournalFull() {
			req.waited |= metrics.WaitedJournal
		}
	}
	trace.bytes += int64(n)
	p.bytesIn += uint64(n)
}

// traceDurable notes what came until a Produce was durable.
func (s *Shard) traceDurable(trace *appendTrace) {
	if trace.partition != nil {
		trace.own += max(0, int64(trace.partition.bytesIn-trace.ownIn))
		trace.all += max(0, int64(s.Timelines.Counters.BytesIn-trace.allIn))
	}
}

// recordProduce has the recorder look at a Produce that is over.
func (s *Shard) recordProduce(req *request) {
	if s.Flight == nil {
		return
	}
	produce, parts := &s.produces.requests[req.slot], &s.produces.parts
	took := req.timeline[metrics.Sent] - req.timeline[metrics.Received]
	if s.slo.n > 0 {
		last := none
		for at := produce.parts.First; at != none; at = parts.next(at) {
			if part := &parts.all[at]; part.code == kafka.None {
				s.slo.count(part.partition.topic, &last, took)
			}
		}
	}
	slow := s.Flight.Add(metrics.Produce, took, lateNS(&req.early))
	if slow == nil {
		return
	}
	trace := &produce.trace
	slow.Written, slow.FrameBytes = int64(trace.written), int64(trace.writeBytes)
	slow.OwnBytes, slow.OtherBytes, slow.Bytes = trace.own, max(0, trace.all-trace.own), trace.bytes
	slow.Idle, slow.Parts, slow.Partition, slow.Offset, slow.TopicLen = 0, 0, 0, 0, 0
	for at := produce.parts.First; at != none; at = parts.next(at) {
		if slow.Parts++; slow.Parts > 1 {
			continue
		}
		part := &parts.all[at]
		slow.Partition, slow.Offset = part.index, part.base
		if part.code == kafka.None {
			s.nameSlow(slow, part.partition.topic)
		}
	}
	s.recordSlow(req, slow)
}

// recordFetch has the recorder look at a Fetch that is over.
func (s *Shard) recordFetch(req *request) {
	if s.Flight == nil {
		return
	}
	fetch, parts := s.fetches.of(req), &s.fetches.parts
	idle := int64(fetch.idleTo - fetch.idleFrom)
	took := req.timeline[metrics.Sent] - req.timeline[metrics.Received] - idle
	if s.slo.n > 0 {
		last := none
		for at := fetch.parts.First; at != none; at = parts.next(at) {
			s.slo.count(parts.all[at].topic, &last, took)
		}
	}
	slow := s.Flight.Add(metrics.Fetch, took, lateNS(&req.early))
	if slow == nil {
		return
	}
	slow.Written, slow.FrameBytes, slow.OwnBytes, slow.OtherBytes, slow.Bytes = 0, 0, 0, 0, 0
	slow.Idle, slow.Parts, slow.Partition, slow.Offset, slow.TopicLen = idle, 0, 0, 0, 0
	for at := fetch.parts.First; at != none; at = parts.next(at) {
		part := &parts.all[at]
		slow.Parts++
		slow.Bytes += int64(part.bytes)
		if slow.Parts == 1 {
			slow.Partition, slow.Offset = part.index, part.from
			s.nameSlow(slow, part.topic)
		}
	}
	s.recordSlow(req, slow)
}

func (s *Shard) recordSlow(req *request, slow *metrics.Slow) {
	slow.Stamps, slow.Waited, slow.Early = req.timeline, req.waited, req.early
	s.Flight.Surround(slow)
}

func (s *Shard) nameSlow(slow *metrics.Slow, topic int32) {
	if topic != none {
		slow.TopicLen = uint32(copy(slow.TopicName[:metrics.TopicNameMax], s.topics.all[topic].nameBytes))
	}
}

// lateNS is what the shard did in the time in which a request may have come
// unseen.
func lateNS(early *metrics.Step) int64 {
	return early.LateBusy + early.LateAway + early.LateGC + early.LateSteal
}
