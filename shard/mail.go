package shard

import (
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/mem"
)

// outbox keeps mail until its mailbox has room, in order, for each shard.
type outbox struct {
	to   [][]Mail
	sent []bool
}

func newOutbox(dataShards, frames int) outbox {
	o := outbox{to: make([][]Mail, dataShards+1), sent: make([]bool, dataShards+1)}
	for i := range o.to {
		o.to[i] = make([]Mail, 0, 4*frames)
	}
	return o
}

func (o *outbox) put(m Mail, to int) { o.to[to] = append(o.to[to], m) }

// flush moves what fits into the mailboxes and wakes who gets any.
func (o *outbox) flush(s *Shard) {
	for i := range o.to {
		n := 0
		for _, m := range o.to[i] {
			box := &s.post.toCtl[s.o.Shard]
			if i != 0 {
				box = &s.post.toData[i]
			}
			m.From = uint8(s.o.Shard)
			if !box.put(m) {
				break
			}
			n++
		}
		if n == 0 {
			continue
		}
		s.Timelines.Counters.MailOut += uint64(n)
		o.to[i] = o.to[i][:copy(o.to[i], o.to[i][n:])]
		s.post.wake(i)
	}
}

// readMail takes all mail there is.
func (s *Shard) readMail() {
	if s.control == nil {
		for {
			m, ok := s.post.toData[s.o.Shard].take()
			if !ok {
				return
			}
			s.Timelines.Counters.MailIn++
			s.dataMail(m)
		}
	}
	for i := 1; i <= s.o.DataShards; i++ {
		for {
			m, ok := s.post.toCtl[i].take()
			if !ok {
				break
			}
			s.Timelines.Counters.MailIn++
			s.controlMail(m)
		}
	}
}

// dataMail is what the control shard tells a data shard.
func (s *Shard) dataMail(m Mail) {
	switch m.Kind {
	case MailReply:
		s.forwarded(m)
	case MailGiveBack:
		s.mailMem.Put(m.Block)
		s.backlog.retry = true // questions may wait for it
	case MailBatchOpened:
		s.decompressed(m)
	case MailTopic:
		b := m.Block.Bytes()
		var id [16]byte
		copy(id[:], b)
		if n := s.topics.add(string(b[topicMailBytes:]), id, int(m.A)); n != int32(m.B) {
			panic("shard: topic numbers disagree between shards")
		}
		s.configure(int32(m.B), b[16:])
		s.outbox.put(Mail{Kind: MailGiveBack, Block: m.Block}, 0)
	case MailForget:
		s.forgetTopic(int32(m.B))
	case MailOpen, MailDelete, MailTruncate, MailSizes, MailProducers:
		s.changeLog(m)
	case MailConfigure:
		s.configure(int32(m.B), m.Block.Bytes())
		s.outbox.put(Mail{Kind: MailGiveBack, Block: m.Block}, 0)
		s.outbox.put(Mail{Kind: MailConfigured, Serial: m.Serial}, 0)
	case MailNoRoom:
		s.engine.ReleaseRecycled()
	case MailSettings:
		s.o.RetentionCheckNS = int64(m.A)
		s.retention.at = min(s.retention.at, s.now+ioring.Instant(m.A))
	case MailServe:
		s.serve()
	case MailClose:
		s.close()
	}
}

// controlMail is what data shard m.From tells the control shard.
func (s *Shard) controlMail(m Mail) {
	switch m.Kind {
	case MailGiveBack:
		s.mailMem.Put(m.Block)
	case MailNoRoom:
		s.engine.ReleaseRecycled()
		for i := 1; i <= s.o.DataShards; i++ {
			if i != int(m.From) {
				s.outbox.put(Mail{Kind: MailNoRoom}, i)
			}
		}
	default:
		s.control.Mail(m)
	}
}

// forward lends a cold request to the control shard.
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
	n := copy(block.Bytes(), peer[:])
	for _, p := range s.pieces {
		n += copy(block.Bytes()[n:], p)
	}
	req := s.newRequest(in, kindForward, header)
	s.net.Release(in.id)
	s.Timelines.Counters.Forwarded++
	s.outbox.put(Mail{Kind: MailRequest, Code: int16(s.net.Listener(in.conn)), Slot: req.slot, Serial: req.serial, Block: block}, 0)
	return started
}

// forwarded: the control shard answered a request of ours.
func (s *Shard) forwarded(m Mail) {
	req := &s.requests.all[m.Slot]
	if !req.used || req.serial != m.Serial {
		panic("shard: an answer to a request that is not in flight")
	}
	s.sendWhole(req, m.Block)
}

// sendWhole sends a reply that is whole in a block; none closes the connection.
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
