package shard

import "github.com/tailbound/tailbound/kafka"

// A search by time that ends in a compressed batch has it decompressed by the
// control shard, which may use the heap:
//
//	lend a copy; await found(); answer
//
// Data shards never decompress one.

// decompress lends a batch to the control shard, for the first record of it that
// is not older than part p's time; where there is no memory the search goes on
// from here when there is. False: the batch is too large to lend.
func (s *Shard) decompress(req *request, at int32, batch []byte) bool {
	if len(batch) > s.mailMem.Max() {
		return false
	}
	block, ok := s.mailMem.Get(len(batch))
	if !ok {
		s.requests.blockOnMemory(req)
		return true
	}
	copy(block.Bytes(), batch)
	req.pending++
	s.outbox.put(Mail{Kind: MailOpenBatch, Slot: uint32(at), Serial: req.serial, A: uint64(s.searches.parts.all[at].time), B: uint64(len(batch)), Block: block}, 0)
	return true
}

// decompressed: the control shard found the record, at offset mail.B.
func (s *Shard) decompressed(mail Mail) {
	part := &s.searches.parts.all[mail.Slot]
	req := &s.requests.all[part.request]
	if !req.used || req.serial != mail.Serial || req.kind != kindSearch || !part.searching {
		panic("shard: a batch was decompressed for a request that is not in flight")
	}
	s.mailMem.Put(mail.Block)
	s.backlog.retry = true
	if part.code != kafka.None {
		s.found(req, part, -1, -1) // its log is gone
	} else {
		s.found(req, part, int64(mail.A), int64(mail.B))
	}
	s.requests.doneForRequest(req.slot)
}
