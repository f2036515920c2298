package shard

import (
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/mem"
)

// outbox has mail that was not put into a mailbox yet, in order, for each shard.
type outbox struct{ to [][]Mail }

func newOutbox(dataShards, requests int) outbox {
	o := outbox{to: make([][]Mail, dataShards+1)}
	for i := range o.to {
		o.to[i] = make([]Mail, 0, 4*requests)
	}
	return o
}

func (o *outbox) put(mail Mail, to int) { o.to[to] = append(o.to[to], mail) }

// flush moves what the mailboxes have room for, and wakes the shards that get any.
func (o *outbox) flush(s *Shard) {
	for i := range o.to {
		moved := 0
		for _, mail := range o.to[i] {
			box := &s.post.toCtl[s.o.Shard]
			if i != 0 {
				box = &s.post.toData[i]
			}
			mail.From = uint8(s.o.Shard)
			if !box.put(mail) {
				break
			}
			moved++
		}
		if moved == 0 {
			continue
		}
		s.Timelines.Counters.MailOut += uint64(moved)
		o.to[i] = o.to[i][:copy(o.to[i], o.to[i][moved:])]
		s.post.wake(i)
	}
}

// readMail takes all mail that has come.
func (s *Shard) readMail() {
	if s.control == nil {
		for {
			mail, ok := s.post.toData[s.o.Shard].take()
			if !ok {
				return
			}
			s.Timelines.Counters.MailIn++
			s.dataMail(mail)
		}
	}
	for i := 1; i <= s.o.DataShards; i++ {
		for {
			mail, ok := s.post.toCtl[i].take()
			if !ok {
				break
			}
			s.Timelines.Counters.MailIn++
			s.controlMail(mail)
		}
	}
}

// dataMail takes mail from the control shard.
func (s *Shard) dataMail(mail Mail) {
	switch mail.Kind {
	case MailReply:
		s.forwarded(mail)
	case MailGiveBack:
		s.mailMem.Put(mail.Block)
		s.backlog.retry = true // the control shard's questions may wait for it
	case MailBatchOpened:
		s.decompressed(mail)
	case MailTopic:
		b := mail.Block.Bytes()
		var id [16]byte
		copy(id[:], b)
		if n := s.topics.add(string(b[topicMailBytes:]), id, int(mail.A)); n != int32(mail.B) {
			panic("shard: topic numbers disagree between shards")
		}
		s.configure(int32(mail.B), b[16:])
		s.outbox.put(Mail{Kind: MailGiveBack, Block: mail.Block}, 0)
	case MailForget:
		s.forgetTopic(int32(mail.B))
	case MailOpen, MailDelete, MailTruncate, MailSizes, MailProducers, MailLosses:
		s.changeLog(mail)
	case MailConfigure:
		s.configure(int32(mail.B), mail.Block.Bytes())
		s.outbox.put(Mail{Kind: MailGiveBack, Block: mail.Block}, 0)
		s.outbox.put(Mail{Kind: MailConfigured, Serial: mail.Serial}, 0)
	case MailNoRoom:
		s.engine.ReleaseRecycled()
	case MailSettings:
		s.o.RetentionCheckNS = int64(mail.A)
		s.retention.at = min(s.retention.at, s.now+ioring.Instant(mail.A))
		s.retention.agesAt = min(s.retention.agesAt, s.now+ioring.Instant(mail.A))
		s.limitConnections()
	case MailServe:
		s.serve()
	case MailClose:
		s.close()
	}
}

// controlMail takes mail from data shard mail.From.
func (s *Shard) controlMail(mail Mail) {
	switch mail.Kind {
	case MailGiveBack:
		s.mailMem.Put(mail.Block)
	case MailNoRoom:
		if told := NewShortage(mail); told.Failure.Full() {
			s.releaseRecycled(int(mail.From))
		}
		s.control.Mail(mail)
	default:
		s.control.Mail(mail)
	}
}

// forward lends a request to the control shard, which serves its API key.
func (s *Shard) forward(in *incoming, header *kafka.Request) outcome {
	peer := s.net.Peer(in.conn)
	size := len(peer) + s.reader.Offset() + s.reader.Left()
	if size > s.mailMem.Max() {
		s.lines.writef(Warn, "connection closed: a request for the control shard is too large: bytes ", int64(size))
		return s.hangUp(in)
	}
	block, ok := s.mailMem.Get(size)
	if !ok {
		return postponed
	}
	moved := copy(block.Bytes(), peer[:])
	for _, p := range s.pieces {
		moved += copy(block.Bytes()[moved:], p)
	}
	req := s.newRequest(in, kindForward, header)
	s.net.Release(in.id)
	s.Timelines.Counters.Forwarded++
	s.outbox.put(Mail{Kind: MailRequest, Code: int16(s.net.Listener(in.conn)), Slot: req.slot, Serial: req.serial, Block: block}, 0)
	return started
}

// forwarded sends the reply that the control shard made.
func (s *Shard) forwarded(mail Mail) {
	req := &s.requests.all[mail.Slot]
	if !req.used || req.serial != mail.Serial {
		panic("shard: an answer to a request that is not in flight")
	}
	s.sendWhole(req, mail.Block)
}

// sendWhole sends a reply that is in one block. Without a block it closes the
// connection.
func (s *Shard) sendWhole(req *request, block mem.Block) {
	req.reply = block
	if block.IsZero() {
		s.net.Abort(req.id)
		s.endRequest(req)
		return
	}
	if s.net.Begin(req.id, 0) {
		s.net.Attach(req.id, block.Bytes())
	}
	s.sendReply(req)
}
