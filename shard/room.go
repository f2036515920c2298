package shard

import (
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/ioring"
)

// A shard that is short of room, for its logs or its checkpoints, tells the control shard,
// which says it to the operator, once for all shards, and has the other shards remove the
// files that they keep for later. This is what each shard does:
//
//	for {
//		await a shortage of the engine
//		for it lasts { tell(MailNoRoom); await roomReportNS }
//		tell(MailRoom)
//	}

// roomReport is what the control shard was told last.
type roomReport struct {
	short   bool
	refused uint64         // Counters.NoRoom then
	next    ioring.Instant // then it is told again, if the shortage lasts
}

const roomReportNS = 1e9

// Shortage is what a shard tells of a shortage: a failure of its engine, without the
// range in the file, and how much was refused since it was told before.
type Shortage struct {
	Failure engine.Failure
	Refused uint32
}

// Fields of a MailNoRoom, beside A: the log, B: the generation, Code: the errno and
// Serial: what was refused.
const (
	shortageFileShift  = 8
	shortageLimitShift = 16
)

// mail puts the shortage into a mail.
func (s *Shortage) mail() Mail {
	f := &s.Failure
	return Mail{Kind: MailNoRoom, From: uint8(f.Shard), Code: int16(f.Errno), Slot: uint32(f.Op) | uint32(f.File)<<shortageFileShift | uint32(f.Limit)<<shortageLimitShift,
		Serial: s.Refused, A: f.Log, B: f.Generation}
}

// NewShortage is the shortage that a MailNoRoom tells of.
func NewShortage(mail Mail) Shortage {
	return Shortage{Refused: mail.Serial, Failure: engine.Failure{
		Op: ioring.Code(mail.Slot & 0xff), Shard: int(mail.From), File: engine.FailedFile(mail.Slot >> shortageFileShift & 0xff), Limit: engine.Limit(mail.Slot >> shortageLimitShift),
		Generation: mail.B, Errno: ioring.Errno(mail.Code), Log: mail.A,
	}}
}

// reportRoom tells the control shard when a shortage begins, while it lasts, and when it
// is over.
func (s *Shard) reportRoom() {
	failure, short := s.engine.Shortage()
	report := &s.room
	if !short && !report.short || short && report.short && s.now < report.next {
		return
	}
	refused := s.Timelines.Counters.NoRoom
	told := Shortage{*failure, uint32(min(refused-report.refused, 1<<32-1))}
	mail := Mail{Kind: MailRoom, From: uint8(s.o.Shard), Serial: told.Refused}
	if short {
		mail = told.mail()
	}
	*report = roomReport{short, refused, s.now + roomReportNS}
	if s.control != nil {
		s.controlMail(mail)
	} else {
		s.outbox.put(mail, 0)
	}
}

// releaseRecycled has all shards but one, which found the disk full and has done so,
// remove the files that they keep for later segments.
func (s *Shard) releaseRecycled(except int) {
	if except != s.o.Shard {
		s.engine.ReleaseRecycled()
	}
	for i := 1; i <= s.o.DataShards; i++ {
		if i != except {
			s.outbox.put(Mail{Kind: MailNoRoom}, i)
		}
	}
}
