package shard

import "github.com/tailbound/tailbound/kafka"

// A search that ends in a compressed batch has the control shard decompress it, which
// may use the heap. A data shard never decompresses:
//
//	lend(copy of the batch)                   // decompress
//	offset := await MailBatchOpened           // decompressed
//	found(offset)

// decompress lends a batch to the control shard, which finds the first record in it
// that is not older than the part's time. If there is no memory to lend, the search
// is tried again later. False: the batch is too large to lend.
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

// decompressed answers a part with the record that the control shard found, at
// offset mail.B.
func (s *Shard) decompressed(mail Mail) {
	part := &s.searches.parts.all[mail.Slot]
	req := &s.requests.all[part.request]
	if !req.used || req.serial != mail.Serial || req.kind != kindSearch || !part.searching {
		panic("shard: a batch was decompressed for a request that is not in flight")
	}
	s.mailMem.Put(mail.Block)
	s.backlog.retry = true
	if part.code != kafka.None {
		s.searches.found(req, part, -1, -1) // its log was deleted
	} else {
		s.searches.found(req, part, int64(mail.A), int64(mail.B))
	}
	s.requests.doneForRequest(req.slot)
}
