package shard

import (
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
)

// Retention runs on every data shard, as this function:
//
//	for {
//		for each log, retainPerTurn a turn {      // retainLog
//			begin a new segment if the active one is old
//			move the log's start past the segments that are too many or, once every
//			RetentionCheckNS, too old
//			delete the last file of an empty log
//		}
//		await sizeCheckNS
//	}
//
// Ages are looked at as seldom as in Kafka, because what is copied here with old
// timestamps is to be read before it goes.
//
// A log for which there is no memory now is examined again in the next round. The
// engine makes a new start durable before it deletes a file, and deletes a file when
// its last read has ended.
const (
	retainPerTurn = 64
	retainPauseNS = 1e6 // between the turns of one round
)

// RetentionCheckNS is the default time between two looks at the age of a log, Kafka's.
// Its size is looked at more often.
const (
	RetentionCheckNS = 300e9
	sizeCheckNS      = 1e9
)

// retention is the progress of a round.
type retention struct {
	at      ioring.Instant // when it goes on
	next    int            // with the partition of this slot
	ages    bool           // it looks at ages too
	agesAt  ioring.Instant // when the next one does
	unknown bool           // the age of a segment is being found out
}

// retain examines the next partitions, if it is time.
func (s *Shard) retain() {
	if s.control != nil || s.stage != StageServing || s.failed || s.now < s.retention.at {
		return
	}
	round := &s.retention
	if round.next == 0 {
		round.ages, round.unknown = s.now >= round.agesAt, false
	}
	for range retainPerTurn {
		if round.next == len(s.partitions.all) {
			pause := ioring.Instant(min(sizeCheckNS, s.o.RetentionCheckNS))
			round.next, round.at = 0, s.now+pause
			switch {
			case round.ages && round.unknown:
				round.agesAt = s.now + pause
			case round.ages:
				round.agesAt = s.now + ioring.Instant(s.o.RetentionCheckNS)
			}
			return
		}
		s.retainLog(&s.partitions.all[round.next])
		round.next++
	}
	round.at = s.now + retainPauseNS
}

// retainLog applies a partition's retention.
func (s *Shard) retainLog(p *partition) {
	if !p.named {
		return
	}
	slot, config := p.slot, p.config
	base, bytes, newest := s.engine.ActiveSegment(slot)
	switch {
	case bytes == 0:
		p.filling = none64
	case p.filling != base:
		// After a restart the newest record says how old the segment is at least.
		p.filledSince = s.wall
		if !p.retained && newest >= 0 {
			p.filledSince = min(s.wall, Wall(newest))
		}
		p.filling = base
	}
	p.retained = true
	if bytes > 0 && int64(s.wall-p.filledSince) >= config.SegmentMS {
		s.engine.RollSegment(slot)
	}
	limits := engine.Limits{BytesMax: config.RetentionBytes}
	if s.retention.ages && config.RetentionMS >= 0 {
		limits.ByAge, limits.Now, limits.OlderThan = true, int64(s.wall), int64(s.wall)-config.RetentionMS
	}
	start := p.logStart()
	to, unknown := s.engine.RetentionStart(slot, limits)
	if to > start && s.engine.TruncateBefore(slot, to, 0) == engine.OK {
		s.Timelines.Counters.Expired += uint64(to - start)
		s.notify(p, false)
	}
	s.retention.unknown = s.retention.unknown || unknown || p.logStart() < to
	if p.logStart() == p.logEnd() {
		s.engine.DropEmpty(slot)
	}
}

// truncation is a DeleteRecords that waits until the log's new start is durable.
type truncation struct {
	partition *partition
	start     int64
	serial    uint32
	used      bool
}

// truncations is the table of those that wait: at most as many as the control shard
// has credit for.
type truncations struct {
	all    [OpenCredit]truncation
	n      int
	engine *engine.Engine
	outbox *outbox
	early  bool // Faults.StartToldEarly
}

// deleteRecords moves the start of log mail.A to offset mail.B, -1 for the high
// watermark, and answers once the new start is durable.
func (s *Shard) deleteRecords(mail Mail) engine.Status {
	slot, ok := s.engine.Lookup(mail.A)
	if !ok || !s.partitions.of(slot).named {
		return engine.Unknown
	}
	p := s.partitions.of(slot)
	to, high := int64(mail.B), p.highWatermark()
	if to == -1 {
		to = high
	}
	if to < 0 || to > high {
		return engine.OutOfRange
	}
	if to > s.engine.Durable(slot) {
		return engine.WaitMemory // until it is durable
	}
	if st := s.engine.TruncateBefore(slot, to, 0); st != engine.OK {
		return st
	}
	s.notify(p, false)
	s.truncations.add(truncation{partition: p, start: p.logStart(), serial: mail.Serial})
	s.truncations.advanced(p)
	return engine.OK
}

func (t *truncations) add(begun truncation) {
	for i := range t.all {
		if !t.all[i].used {
			begun.used = true
			t.all[i] = begun
			t.n++
			return
		}
	}
	panic("shard: more questions than the control shard has credit for")
}

// advanced answers those whose partition's start is durable now.
func (t *truncations) advanced(p *partition) {
	for i := range t.all {
		if waits := &t.all[i]; waits.used && waits.partition == p && (t.engine.StartDurable(p.slot) >= waits.start || t.early) {
			t.end(waits, kafka.None)
		}
	}
}

// fail answers those of a partition, nil for all, with an error: the start will not
// become durable.
func (t *truncations) fail(code kafka.ErrorCode, p *partition) {
	for i := range t.all {
		if waits := &t.all[i]; waits.used && (p == nil || waits.partition == p) {
			t.end(waits, code)
		}
	}
}

func (t *truncations) end(ended *truncation, code kafka.ErrorCode) {
	t.outbox.put(Mail{Kind: MailTruncated, Serial: ended.serial, A: uint64(ended.start), Code: int16(code)}, 0)
	*ended = truncation{}
	t.n--
}
