package shard

import (
	"encoding/binary"

	"github.com/tailbound/tailbound/engine"
)

// What a data shard answers when the control shard asks about its logs, in lent
// blocks.

// sizesPerPage is how many logs one answer has.
const sizesPerPage = 1024

// SizeMailBytes is a log in such an answer: the topic's id, the partition, its bytes.
const SizeMailBytes = 32

// tellSizes answers how large this shard's logs are, from slot mail.B on, and with
// which slot the next page begins.
func (s *Shard) tellSizes(mail Mail) engine.Status {
	block, ok := s.mailMem.Get(sizesPerPage * SizeMailBytes)
	if !ok {
		return engine.WaitMemory
	}
	b, n, slot := block.Bytes(), 0, int(mail.B)
	for ; slot < len(s.partitions.all) && n < sizesPerPage; slot++ {
		p := &s.partitions.all[slot]
		if !p.named {
			continue
		}
		x := b[n*SizeMailBytes:]
		copy(x, s.topics.all[p.topic].id[:])
		binary.LittleEndian.PutUint64(x[16:], uint64(p.index))
		binary.LittleEndian.PutUint64(x[24:], uint64(s.engine.Bytes(engine.Slot(slot))))
		n++
	}
	if slot == len(s.partitions.all) {
		slot = 0
	}
	s.outbox.put(Mail{Kind: MailSized, Serial: mail.Serial, A: uint64(n), B: uint64(slot), Block: block}, 0)
	return engine.OK
}

// ProducerMailBytes is a producer in an answer: id, epoch, last sequence number, and the
// largest timestamp of its last batch.
const ProducerMailBytes = 24

// tellProducers answers which idempotent producers the partition of log mail.A
// remembers.
func (s *Shard) tellProducers(mail Mail) engine.Status {
	slot, ok := s.engine.Lookup(mail.A)
	if !ok || !s.partitions.of(slot).named {
		return engine.Unknown
	}
	p, n := s.partitions.of(slot), 0
	for at := p.producers.First; at != none; at = s.producers.ofLog.Next(at) {
		n++
	}
	answer := Mail{Kind: MailProduced, Serial: mail.Serial, A: uint64(n)}
	if n > 0 {
		if answer.Block, ok = s.mailMem.Get(n * ProducerMailBytes); !ok {
			if n*ProducerMailBytes > s.mailMem.Max() {
				return engine.TooLarge
			}
			return engine.WaitMemory
		}
		b := answer.Block.Bytes()
		for at := p.producers.First; at != none; at = s.producers.ofLog.Next(at) {
			known := &s.producers.all[at]
			binary.LittleEndian.PutUint64(b, uint64(known.id))
			binary.LittleEndian.PutUint32(b[8:], uint32(known.epoch))
			binary.LittleEndian.PutUint32(b[12:], uint32(known.marks[known.n-1].last))
			binary.LittleEndian.PutUint64(b[16:], uint64(known.newMS))
			b = b[ProducerMailBytes:]
		}
	}
	s.outbox.put(answer, 0)
	return engine.OK
}
