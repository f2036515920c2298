package shard

import (
	"encoding/binary"

	"github.com/tailbound/tailbound/kafka"
)

// A search for a time that comes to a compressed batch has the control shard decompress
// it, which may use the heap. A data shard never decompresses:
//
//	lend(copy of the batch, what is sought)   // decompress
//	await MailBatchOpened                     // decompressed
//	found(offset), or go on behind the batch

// The block of a MailOpenBatch holds the batch and, behind it, the log's start. Mail.A is
// the time, and mail.Code 1 if the largest is sought.
const lentSearchBytes = 8

// LentSearch is the batch and the search of a MailOpenBatch.
func LentSearch(mail Mail) (batch []byte, search kafka.TimeSearch) {
	lent := mail.Block.Bytes()[:mail.B+lentSearchBytes]
	search = kafka.TimeSearch{Time: int64(mail.A), From: int64(binary.LittleEndian.Uint64(lent[mail.B:])), Largest: mail.Code == 1}
	return lent[:mail.B], search
}

// decompress lends a batch to the control shard, which looks through it. If there is no
// memory to lend, the request is tried again later. False: the batch is too large to lend.
func (s *Shard) decompress(req *request, at int32, batch []byte, search *kafka.TimeSearch) bool {
	size := len(batch) + lentSearchBytes
	if size > s.mailMem.Max() {
		return false
	}
	block, ok := s.mailMem.Get(size)
	if !ok {
		s.requests.blockOnMemory(req)
		return true
	}
	copy(block.Bytes(), batch)
	binary.LittleEndian.PutUint64(block.Bytes()[len(batch):], uint64(search.From))
	mail := Mail{Kind: MailOpenBatch, Slot: uint32(at), Serial: req.serial, A: uint64(search.Time), B: uint64(len(batch)), Block: block}
	if search.Largest {
		mail.Code = 1
	}
	req.pending++
	s.searches.parts.all[at].where = batchEnd(batch)
	s.outbox.put(mail, 0)
	return true
}

// decompressed goes on with a part after the control shard has looked through a batch.
func (s *Shard) decompressed(mail Mail) {
	part := &s.searches.parts.all[mail.Slot]
	req := &s.requests.all[part.request]
	if !req.used || req.serial != mail.Serial || req.kind != kindSearch || !part.searching {
		panic("shard: a batch was decompressed for a request that is not in flight")
	}
	s.mailMem.Put(mail.Block)
	s.backlog.retry = true
	if mail.Code == 1 && part.code == kafka.None { // else its log was deleted
		s.searches.foundRecord(req, part, int64(mail.A), int64(mail.B))
	}
	s.requests.doneForRequest(req.slot)
}
