package shard

import (
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/mem"
	"github.com/tailbound/tailbound/metrics"
)

// appendTrace is what a Produce has for the flight recorder, in addition to its
// timeline.
type appendTrace struct {
	partition  *partition     // of its first batch; nil: nothing was appended
	written    ioring.Instant // when the write that had its last batch ended
	writeBytes int32          // and its size
	bytes      int64          // of its batches
	own, all   int64          // bytes that were not durable when it came: of its partition, of all
	ownIn      uint64         // bytes that had been appended by then, likewise
	allIn      uint64
}

// The engine's counters are handed to the recorder as they are: both number the kinds
// of work in the same way.
var _ = [1]struct{}{}[int(engine.Works)-int(metrics.DiskWorks)]

// recorder gives the flight recorder what this shard sees, and counts the requests
// of topics with a latency objective. It belongs to the shard. Nothing that a shard
// does depends on it.
type recorder struct {
	flight   *metrics.Flight // nil: nothing is recorded
	slo      objectives
	topics   *topicTable
	engine   *engine.Engine
	counters *metrics.Counters
}

// newFlight makes the flight recorder of a data shard. The control shard has none.
func newFlight(arena *mem.Arena, shard int) (*metrics.Flight, error) {
	if !metrics.Recording || shard == 0 {
		return nil, nil
	}
	b, err := arena.Allocate("flight recorder", metrics.FlightBytes, 64)
	if err != nil {
		return nil, err
	}
	return metrics.NewFlight(b.Bytes()), nil
}

// turnBegins and turnEnds record a turn.
func (r *recorder) turnBegins(now ioring.Instant) {
	if r.flight != nil {
		r.flight.Begin(int64(now))
	}
}

func (r *recorder) turnEnds(now ioring.Instant, wall Wall) {
	if r.flight == nil {
		return
	}
	disk := r.engine.Disk()
	r.flight.Disk((*[metrics.DiskWorks]uint64)(&disk.Begun), (*[metrics.DiskWorks]uint64)(&disk.Over))
	if r.flight.Due(int64(now)) {
		n := copy(r.flight.Objectives()[:], r.slo.all[:r.slo.n])
		r.flight.Roll(int64(now), int64(wall), n)
	}
}

// appended counts a batch of so many bytes. Of a Produce's first batch it also notes
// what was under way when it came.
func (r *recorder) appended(req *request, trace *appendTrace, p *partition, bytes int) {
	if trace.partition == nil {
		trace.partition = p
		trace.own, trace.all = r.engine.Unsynced(p.slot)
		trace.ownIn, trace.allIn = p.bytesIn, r.counters.BytesIn
		if r.engine.JournalFull() {
			req.waited |= metrics.WaitedJournal
		}
	}
	trace.bytes += int64(bytes)
	p.bytesIn += uint64(bytes)
}

// durable adds to a Produce's trace what came until its batches were durable.
func (r *recorder) durable(trace *appendTrace) {
	if trace.partition != nil {
		trace.own += max(0, int64(trace.partition.bytesIn-trace.ownIn))
		trace.all += max(0, int64(r.counters.BytesIn-trace.allIn))
	}
}

// produceSent counts a Produce whose reply has left, and describes it if it is among
// the slowest.
func (r *recorder) produceSent(req *request, produce *produceRequest, parts *partTable[producePart]) {
	if r.flight == nil {
		return
	}
	tookNS := req.timeline[metrics.Sent] - req.timeline[metrics.Received]
	if r.slo.n > 0 {
		last := none
		for at := produce.parts.First; at != none; at = parts.next(at) {
			if part := &parts.all[at]; part.code == kafka.None {
				r.slo.count(part.partition.topic, &last, tookNS)
			}
		}
	}
	slow := r.slow(metrics.Produce, req, tookNS)
	if slow == nil {
		return
	}
	trace := &produce.trace
	slow.Written, slow.FrameBytes, slow.Bytes = int64(trace.written), int64(trace.writeBytes), trace.bytes
	slow.OwnBytes, slow.OtherBytes = trace.own, max(0, trace.all-trace.own)
	for at := produce.parts.First; at != none; at = parts.next(at) {
		if slow.Parts++; slow.Parts > 1 {
			continue
		}
		part := &parts.all[at]
		slow.Partition, slow.Offset = part.index, part.base
		if part.code == kafka.None {
			r.name(slow, part.partition.topic)
		}
	}
	r.flight.Surround(slow)
}

// fetchSent does the same with a Fetch. Its wait for data does not count.
func (r *recorder) fetchSent(req *request, fetch *fetchRequest, parts *partTable[fetchPart]) {
	if r.flight == nil {
		return
	}
	idleNS := int64(fetch.idleTo - fetch.idleFrom)
	tookNS := req.timeline[metrics.Sent] - req.timeline[metrics.Received] - idleNS
	if r.slo.n > 0 {
		last := none
		for at := fetch.parts.First; at != none; at = parts.next(at) {
			r.slo.count(parts.all[at].topic, &last, tookNS)
		}
	}
	slow := r.slow(metrics.Fetch, req, tookNS)
	if slow == nil {
		return
	}
	slow.Idle = idleNS
	for at := fetch.parts.First; at != none; at = parts.next(at) {
		part := &parts.all[at]
		slow.Parts++
		slow.Bytes += int64(part.bytes)
		if slow.Parts == 1 {
			slow.Partition, slow.Offset = part.index, part.from
			r.name(slow, part.topic)
		}
	}
	r.flight.Surround(slow)
}

// slow is the entry in which to describe a request, nil if it is not among the
// slowest.
func (r *recorder) slow(kind metrics.Kind, req *request, tookNS int64) *metrics.Slow {
	early := &req.early
	slow := r.flight.Add(kind, tookNS, early.LateBusy+early.LateAway+early.LateGC+early.LateSteal)
	if slow != nil {
		*slow = metrics.Slow{}
		slow.Stamps, slow.Waited, slow.Early = req.timeline, req.waited, *early
	}
	return slow
}

// name writes the topic into a description.
func (r *recorder) name(slow *metrics.Slow, topic int32) {
	if topic != none {
		slow.TopicLen = uint32(copy(slow.TopicName[:metrics.TopicNameMax], r.topics.all[topic].nameBytes))
	}
}
