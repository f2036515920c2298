package shard

import (
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
)

// changeLog does what the control shard asks of logs. What finds no memory now is
// deferred, and tried again when memory was given back.
func (s *Shard) changeLog(mail Mail) {
	var st engine.Status
	switch mail.Kind {
	case MailOpen:
		st = s.openLog(mail.A, int32(mail.B>>32), int32(uint32(mail.B)))
	case MailDelete:
		st = s.deleteLog(mail.A)
	case MailTruncate:
		st = s.deleteRecords(mail)
	case MailSizes:
		st = s.tellSizes(mail)
	case MailProducers:
		st = s.tellProducers(mail)
	case MailLosses:
		st = s.tellLosses(mail)
	}
	switch st {
	case engine.OK:
	case engine.WaitMemory, engine.WaitRoom:
		s.logOps.deferred = append(s.logOps.deferred, mail)
	default:
		s.outbox.put(Mail{Kind: mail.Kind + 1, Serial: mail.Serial, A: mail.A, Code: int16(codeOf(st))}, 0)
	}
}

// retryDeferred tries again what was deferred.
func (s *Shard) retryDeferred() {
	deferred := s.logOps.deferred
	s.logOps.deferred = s.logOps.deferred[:0] // changeLog appends at most one for each taken out
	for _, mail := range deferred {
		s.changeLog(mail)
	}
}

// openLog names a log, and creates it if there is none.
func (s *Shard) openLog(id uint64, number, index int32) engine.Status {
	if slot, ok := s.engine.Lookup(id); ok {
		s.nameLog(slot, number, index)
		s.outbox.put(Mail{Kind: MailOpened, A: id}, 0)
		return engine.OK
	}
	user := s.logOps.begin(logOp{id: id, topic: number, index: index, opens: true})
	st := s.engine.OpenLog(id, user)
	if st != engine.OK {
		s.logOps.end(user)
	}
	return st
}

// nameLog has requests find a topic's partition.
func (s *Shard) nameLog(slot engine.Slot, number, index int32) {
	if s.topics.all[number].gone {
		return // the log is about to be deleted too
	}
	p := s.partitions.of(slot)
	topic := &s.topics.all[number]
	p.topic, p.index = number, index
	p.named, p.config = true, topic.config
	p.configured()
	topic.partitions[index] = p
	s.reportLosses(p)
}

// logOpened names a log that the engine has created durably, and answers.
func (s *Shard) logOpened(ev engine.Event) {
	op := s.logOps.end(ev.User)
	if ev.Status == engine.OK {
		s.producers.forget(s.partitions.of(ev.Slot))
		s.partitions.begin(ev.Slot)
		s.nameLog(ev.Slot, op.topic, op.index)
	}
	s.outbox.put(Mail{Kind: MailOpened, A: op.id, Code: int16(codeOf(ev.Status))}, 0)
}

// deleteLog deletes a log. Requests that wait for it are refused.
func (s *Shard) deleteLog(id uint64) engine.Status {
	slot, ok := s.engine.Lookup(id)
	if !ok && s.logOps.opening(id) {
		return engine.WaitMemory // until it is created
	}
	if !ok {
		s.outbox.put(Mail{Kind: MailDeleted, A: id}, 0)
		return engine.OK
	}
	p := s.partitions.of(slot)
	s.unnameLog(p)
	user := s.logOps.begin(logOp{id: id, topic: p.topic, index: p.index})
	st := s.engine.DeleteLog(slot, user)
	if st != engine.OK {
		s.logOps.end(user)
	}
	return st
}

// unnameLog removes a log from its topic and ends everything that refers to its slot,
// which another log will get: requests that read it or wait for it are refused.
func (s *Shard) unnameLog(p *partition) {
	if p.named && !s.topics.all[p.topic].gone {
		s.topics.all[p.topic].partitions[p.index] = nil
	}
	p.named = false
	s.failReads(p, kafka.UnknownTopicOrPartition)
	s.notify(p, true)
	s.readahead.forget(p.slot)
	s.failAppends(p, kafka.UnknownTopicOrPartition)
	s.truncations.fail(kafka.UnknownTopicOrPartition, p)
	s.producers.forget(p)
}

// failReads has each Fetch and ListOffsets that names a partition answered with an
// error for it, in the order of their slots.
func (s *Shard) failReads(p *partition, code kafka.ErrorCode) {
	for i := range s.requests.all {
		req := &s.requests.all[i]
		switch {
		case !req.used:
		case req.kind == kindFetch:
			for at := s.fetches.of(req).parts.First; at != none; at = s.fetches.parts.next(at) {
				if part := &s.fetches.parts.all[at]; part.code == kafka.None && part.partition == p {
					part.code = code
					s.fetches.stopAwaiting(at) // before the list is another log's
					s.requests.schedule(req)
				}
			}
		case req.kind == kindSearch:
			for at := s.searches.requests[i].parts.First; at != none; at = s.searches.parts.next(at) {
				if part := &s.searches.parts.all[at]; part.code == kafka.None && part.partition == p {
					part.code = code
					s.requests.schedule(req)
				}
			}
		}
	}
}

// logDeleted answers: the engine has deleted a log durably.
func (s *Shard) logDeleted(ev engine.Event) {
	op := s.logOps.end(ev.User)
	s.outbox.put(Mail{Kind: MailDeleted, A: op.id, Code: int16(codeOf(ev.Status))}, 0)
}

// forgetTopic deletes a topic. Its logs are deleted by mail of their own.
func (s *Shard) forgetTopic(number int32) {
	s.recorder.slo.drop(number)
	s.topics.remove(number)
}

// serve begins to listen: all logs are named. A log without a topic is set aside,
// never deleted. A shard that was told to stop meanwhile does not begin.
func (s *Shard) serve() {
	if s.stage != StageNaming {
		return
	}
	nameless := uint64(0)
	for i := range s.boot.Shards[s.o.Shard].Logs {
		id := s.boot.Shards[s.o.Shard].Logs[i].ID
		if slot, ok := s.engine.Lookup(id); ok && !s.partitions.of(slot).named {
			nameless++
			s.lines.writef(Warn, "a log belongs to no topic; it is kept aside, unread and undeleted: log ", int64(id))
		}
	}
	s.stage = StageServing
	s.retention.agesAt = s.now + ioring.Instant(s.o.RetentionCheckNS)
	s.listen()
	s.outbox.put(Mail{Kind: MailServing, A: nameless}, 0)
}

// logOp is the creation or deletion of a log that is becoming durable.
type logOp struct {
	id    uint64
	topic int32 // of its partition; none if it has none
	index int32
	opens bool // it is a creation
	used  bool
}

// logOps is the table of those. The control shard asks for at most OpenCredit at a
// time.
type logOps struct {
	all      [OpenCredit]logOp
	deferred []Mail // what was asked for and waits for memory
}

// begin adds an operation that is to be answered when the engine has done it, and
// returns the number that the engine returns with it. end removes it.
func (t *logOps) begin(op logOp) uint32 {
	for i := range t.all {
		if !t.all[i].used {
			op.used = true
			t.all[i] = op
			return uint32(i)
		}
	}
	panic("shard: more opens and deletes than the control shard has credit for")
}

func (t *logOps) end(i uint32) logOp {
	op := t.all[i]
	t.all[i] = logOp{}
	return op
}

// opening says whether a log is being created, or its creation is deferred.
func (t *logOps) opening(id uint64) bool {
	for i := range t.all {
		if op := &t.all[i]; op.used && op.id == id && op.opens {
			return true
		}
	}
	for i := range t.deferred {
		if t.deferred[i].Kind == MailOpen && t.deferred[i].A == id {
			return true
		}
	}
	return false
}
