package shard

import "github.com/tailbound/tailbound/kafka"

// A search by time that ends in a compressed batch has it opened by the control
// shard, which may use the heap:
//
//	lend a copy; await found(); answer
//
// Data shards never open one.

// openBatch lends a batch to the control shard, for the first record of it that
// is not older than part p's time; where there is no memory the search goes on
// from here when there is. False: the batch is too large to lend.
func (s *Shard) openBatch(i uint32, p int32, batch []byte) bool {
	if len(batch) > s.mailMem.Max() {
		return false
	}
	block, ok := s.mailMem.Get(len(batch))
	if !ok {
		s.starve(i)
		return true
	}
	copy(block.Bytes(), batch)
	r := &s.requests[i]
	r.pending++
	s.outbox.put(Mail{Kind: MailOpenBatch, Slot: uint32(p), Serial: r.serial, A: uint64(s.parts[p].from), B: uint64(len(batch)), Block: block}, 0)
	return true
}

// batchOpened: the control shard found the record, at offset m.B.
func (s *Shard) batchOpened(m Mail) {
	x := &s.parts[m.Slot]
	r := &s.requests[x.request]
	if !r.used || r.serial != m.Serial || r.kind != kindOffsets || !x.searching {
		panic("shard: a batch was opened for a request that is not in flight")
	}
	s.mailMem.Put(m.Block)
	s.waiting.retry = true
	r.pending--
	if x.code != kafka.None {
		s.offsetFound(r, x, -1, -1) // its log is gone
	} else {
		s.offsetFound(r, x, int64(m.A), int64(m.B))
	}
	s.lookAt(x.request)
}
