package shard

import (
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/mem"
	"github.com/tailbound/tailbound/metrics"
)

// seen is what a request carries for the flight recorder beside its stamps.
type seen struct {
	slot       engine.Slot // produce: its first batch's log
	stored     bool        // produce: there is one
	frameBytes int32       // bytes of the frame that it was written with
	waited     metrics.Waits
	written    ioring.Instant // when that frame's write was over
	bytes      int64
	own, all   int64  // appended and not durable when it came: of its log, of all
	ownIn      uint64 // appended so far, likewise
	allIn      uint64
	early      metrics.Step
	idleFrom   ioring.Instant // fetch: it waited for data
	idleTo     ioring.Instant
}

// The shard gives the recorder what the engine has: both number the kinds alike.
var _ = [1]struct{}{}[int(engine.Works)-int(metrics.DiskWorks)]

// newFlight makes a data shard's recorder; the control shard has none.
func (s *Shard) newFlight(a *mem.Arena) error {
	if !metrics.Recording || s.o.Shard == 0 {
		return nil
	}
	b, err := a.Allocate("flight recorder", metrics.FlightBytes, 64)
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
	d := s.engine.Disk()
	s.Flight.Disk((*[metrics.DiskWorks]uint64)(&d.Begun), (*[metrics.DiskWorks]uint64)(&d.Over))
	if s.Flight.Due(int64(s.now)) {
		n := copy(s.Flight.Objectives()[:], s.promised.all[:s.promised.n])
		s.Flight.Roll(int64(s.now), int64(s.wall), n)
	}
}

// noteAppend notes what was under way when a batch of n bytes came, before it is
// counted itself.
func (s *Shard) noteAppend(r *request, to *partition, n int) {
	x := &r.seen
	if !x.stored {
		x.stored, x.slot = true, to.slot
		x.own, x.all = s.engine.Undurable(to.slot)
		x.ownIn, x.allIn = to.bytesIn, s.Timelines.Counters.BytesIn
		if s.engine.JournalFull() {
			x.waited |= metrics.WaitedJournal
		}
	}
	x.bytes += int64(n)
	to.bytesIn += uint64(n)
}

// noteDurable notes what came until a request was durable.
func (s *Shard) noteDurable(r *request) {
	if x := &r.seen; x.stored {
		x.own += max(0, int64(s.partitions[x.slot].bytesIn-x.ownIn))
		x.all += max(0, int64(s.Timelines.Counters.BytesIn-x.allIn))
	}
}

// record has the recorder look at a request that is over.
func (s *Shard) record(k metrics.Kind, r *request) {
	if s.Flight == nil {
		return
	}
	idle := int64(r.idleTo - r.idleFrom)
	took := r.stamps[metrics.Sent] - r.stamps[metrics.Received] - idle
	if s.promised.n > 0 {
		s.judge(k, r, took)
	}
	x := s.Flight.Add(k, took, r.seen.earlyNS())
	if x == nil {
		return
	}
	p := &r.seen
	x.Stamps, x.Written, x.Idle, x.Early = r.stamps, int64(p.written), idle, p.early
	x.FrameBytes, x.OwnBytes, x.OtherBytes = int64(p.frameBytes), p.own, max(0, p.all-p.own)
	x.Bytes, x.Waited, x.Parts, x.TopicLen = p.bytes, p.waited, 0, 0
	for i := r.parts.First; i != none; i = s.partsOf.Next(i) {
		part := &s.parts[i]
		x.Parts++
		if k == metrics.Fetch {
			x.Bytes += int64(part.bytes)
		}
		if x.Parts > 1 {
			continue
		}
		x.Partition, x.Offset = part.index, part.from
		topic := part.topic
		if k == metrics.Produce && part.code == kafka.None {
			topic = part.partition.topic
		}
		if topic != none {
			x.TopicLen = uint32(copy(x.TopicName[:metrics.TopicNameMax], s.topics.all[topic].nameBytes))
		}
	}
	s.Flight.Surround(x)
}

func (p *seen) earlyNS() int64 {
	return p.early.LateBusy + p.early.LateAway + p.early.LateGC + p.early.LateSteal
}
