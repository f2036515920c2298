package shard

import (
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/metrics"
	"github.com/tailbound/tailbound/netring"
)

// This file is a Produce, from its bytes to its acknowledgement. As one function it
// would be:
//
//	async produce(request) {
//		parse(request)                        // beginProduce: refuse what is malformed before anything is stored
//		reply := await begin()                // its memory
//		for each partition {                  // append
//			locate(); await reserve(); validate(); sequence(); stamp(); commit()
//			answer(reply)                     // as if the batch were durable, or with an error
//		}
//		release(request)
//		for each partition { await durable }  // acknowledge; failAppends: an error in place of the answer
//		await send(reply)                     // sendReply, sent
//	}
//
// Each await is a return to the turn. A request that waits for log memory stays in
// the backlog with its bytes in its connection's buffers, and goes on with the
// partition that found none (produceRequest.done). A batch that is appended waits
// in its partition's list awaitingDurable. It stays appended if the connection goes.

// produce starts a Produce, or goes on with one that has waited for log memory.
func (s *Shard) produce(in *incoming, header *kafka.Request) outcome {
	if in.request == none {
		body := s.reader.Mark()
		if out := s.beginProduce(in, header); in.request == none {
			return out
		}
		s.reader.Back(body)
	}
	req, produce := &s.requests.all[in.request], &s.produces.requests[in.request]
	byID := header.Version >= kafka.ProduceByID
	var walk kafka.ProduceWalk
	walk.Begin(&s.reader, header.Version)
	for n := int32(0); walk.Topics() > 0; {
		topic, _ := walk.NextTopic()
		if n >= produce.named {
			kafka.PutProduceTopic(s.net.Bytes(in.id, kafka.ProduceTopicBytes(header.Version, len(topic.Name), topic.Partitions)), header.Version, topic.Name, topic.Partitions)
			produce.named = n + int32(topic.Partitions)
		}
		number := s.topics.lookup(topic.Name, byID)
		for left := topic.Partitions - 1; left >= 0; left-- {
			asked, _ := walk.NextPartition()
			n++
			if n <= produce.done {
				continue
			}
			switch s.append(req, produce, number, asked, left == 0) {
			case engine.WaitMemory:
				req.waited |= metrics.WaitedMemory
				return postponed
			case engine.WaitRoom:
				req.waited |= metrics.WaitedRoom
				return postponed
			}
			produce.done = n
		}
	}
	kafka.PutProduceEnd(s.net.Bytes(in.id, kafka.ProduceEndBytes(header.Version)), header.Version)
	s.net.Release(in.id)
	req.timeline[metrics.Appended] = int64(s.now)
	s.pendingDone(req)
	return started
}

// beginProduce checks that the whole request is well formed, reserves its reply, and
// sets in.request. Where that stays none, the request was refused or memory is short.
func (s *Shard) beginProduce(in *incoming, header *kafka.Request) outcome {
	var walk kafka.ProduceWalk
	if err := walk.Begin(&s.reader, header.Version); err != nil {
		return s.malformed(in, err)
	}
	topics := walk.Topics()
	parts, bytes, err := walk.Measure(header)
	if err != nil {
		return s.malformed(in, err)
	}
	if parts > s.requests.credit.perRequestMax() {
		return s.malformed(in, kafka.ErrTooMany)
	}
	slack := 0 // messages take only what the reply's blocks have left
	if header.Version >= kafka.ProduceFaults {
		slack = netring.ReplySlack(bytes)
	}
	if parts > s.requests.credit.free || !s.net.CanReserve(bytes) || !s.net.Begin(in.id, bytes+slack) {
		return postponed
	}
	req := s.newRequest(in, kindProduce, header)
	req.pending = 1 // the loop over its partitions
	produce := &s.produces.requests[req.slot]
	*produce = emptyProduce
	produce.acks, produce.slack = walk.Acks, int32(slack)
	if walk.Acks < -1 || walk.Acks > 1 {
		produce.code = kafka.InvalidRequiredAcks
	}
	if header.Version < kafka.ProduceMin {
		produce.code = kafka.UnsupportedVersion
	}
	if walk.Transactional {
		produce.code = kafka.TransactionalIDAuthorizationFailed // transactions are not served
	}
	s.Timelines.Counters.Produces++
	kafka.PutProduceHead(s.net.Bytes(in.id, kafka.ProduceHeadBytes(header, topics)), header, topics)
	in.request = int32(req.slot)
	return started
}

// appending is one batch between the bytes of a request and the log.
type appending struct {
	partition *partition
	records   kafka.Span // its bytes in the request
	dst       []byte     // and in log memory, once that is reserved
	batch     kafka.Batch
	base, end int64  // its offsets [base, end)
	time      int64  // the broker's, if it was stamped with that; else -1
	duplicate bool   // its original is in the log: base and end are that one's
	fault     string // why it is refused, where the code says too little
}

// append appends one partition's batch to its log and answers into the reply, with
// an error where a step refuses the batch. With WaitMemory or WaitRoom nothing was
// done yet, and append is to be called again.
func (s *Shard) append(req *request, produce *produceRequest, topic int32, asked kafka.ProducePartition, last bool) engine.Status {
	entry, code := appending{records: asked.Records, base: -1, time: -1}, produce.code
	if code == kafka.None {
		code = s.locateAppend(&entry, topic, req.header.Version, &asked)
	}
	if code == kafka.None {
		var st engine.Status
		if code, st = s.reserve(&entry); st == engine.WaitMemory || st == engine.WaitRoom {
			return st
		}
	}
	if code == kafka.None {
		code = entry.validate(s.o.MessageBytesMax, req.header.Version, s.wall)
	}
	if code == kafka.None {
		code = s.sequence(&entry)
	}
	switch {
	case code == kafka.None && !entry.duplicate:
		if s.o.Faults.MaxTimeBelieved {
			entry.batch.Times = kafka.Times{Largest: entry.batch.MaxTime, Checked: true}
		}
		entry.stamp(s.wall)
		s.commit(&entry, req, produce)
	case entry.dst != nil:
		s.engine.Abort()
	}
	s.answerAppend(req, produce, &entry, code, topic, asked.Index, last)
	return engine.OK
}

// locateAppend finds the partition, and refuses a batch that its log cannot take.
func (s *Shard) locateAppend(entry *appending, topic int32, version int16, asked *kafka.ProducePartition) (code kafka.ErrorCode) {
	if entry.partition, code = s.topics.locate(topic, asked.Index, version >= kafka.ProduceByID); code != kafka.None {
		return code
	}
	switch {
	case asked.Null || entry.records.Len < kafka.BatchHeaderBytes:
		entry.fault = "there is no whole record batch"
		return kafka.InvalidRecord
	case entry.records.Len > entry.partition.batchBytesMax(s.o.MessageBytesMax):
		return kafka.MessageTooLarge
	case int64(entry.records.Len) > entry.partition.config.SegmentBytes:
		return kafka.RecordListTooLarge
	case s.failed:
		entry.fault = "a write or sync has failed, and nothing more is accepted until a restart"
		return kafka.KafkaStorageError
	}
	return kafka.None
}

// reserve copies the batch into log memory, which the status says to wait for if
// there is none.
func (s *Shard) reserve(entry *appending) (kafka.ErrorCode, engine.Status) {
	dst, base, st := s.engine.Reserve(entry.partition.slot, entry.records.Len)
	switch st {
	case engine.OK:
		s.reader.CopyTo(entry.records, dst)
		entry.dst, entry.base = dst, base
		return kafka.None, st
	case engine.WaitMemory, engine.WaitRoom:
		return kafka.None, st
	case engine.NoSpace:
		s.Timelines.Counters.NoRoom++
		entry.fault = "there is no room on the disk"
	case engine.LogCorrupt:
		entry.fault = "acknowledged records of it are corrupt on disk; it accepts no more until `tailbound repair`"
	}
	code := codeOf(st)
	s.reader.CopyTo(kafka.Span{Off: entry.records.Off, Len: kafka.BatchHeaderBytes}, s.produces.head[:])
	if batch := kafka.ParseBatchHeader(s.produces.head[:]); code == kafka.KafkaStorageError && batch.ProducerID >= 0 {
		s.producers.refused(entry.partition, &batch)
	}
	return code, st
}

const zstdProduce = 7 // the first version that may use zstd (KIP-110)

// validate refuses a batch that is damaged, or that its topic does not take.
func (entry *appending) validate(messageBytesMax int, version int16, wall Wall) kafka.ErrorCode {
	if code := kafka.ValidateBatch(entry.dst, messageBytesMax, &entry.batch); code != kafka.None {
		return code
	}
	if entry.batch.Codec() == kafka.CodecZstd && version < zstdProduce {
		return kafka.UnsupportedCompressionType
	}
	if !entry.partition.config.AppendTime && !entry.partition.timely(wall, &entry.batch, entry.dst) {
		return kafka.InvalidTimestamp
	}
	return kafka.None
}

// sequence compares the batch of an idempotent producer with those before it. A
// duplicate gets the offsets of its original.
func (s *Shard) sequence(entry *appending) kafka.ErrorCode {
	if entry.batch.ProducerID < 0 {
		return kafka.None
	}
	verdict := s.producers.check(entry.partition, &entry.batch)
	if verdict.duplicate {
		s.Timelines.Counters.Duplicates++
		entry.base, entry.end, entry.duplicate = verdict.base, verdict.end, true
	}
	return verdict.code
}

// stamp writes into the batch what the broker decides: its offsets, the leader
// epoch and, if the topic wants it, the time.
func (entry *appending) stamp(wall Wall) {
	kafka.PatchBase(entry.dst, entry.base, entry.partition.leaderEpoch)
	if entry.partition.config.AppendTime {
		entry.time = int64(wall)
		kafka.StampAppendTime(entry.dst, &entry.batch, entry.time)
	} else {
		kafka.StampMaxTime(entry.dst, &entry.batch)
	}
}

// commit makes the batch part of the log.
func (s *Shard) commit(entry *appending, req *request, produce *produceRequest) {
	p, batch := entry.partition, &entry.batch
	s.recorder.appended(req, &produce.trace, p, entry.records.Len)
	times := batch.Times
	if times.AtLeast { // its records are not known to be older than any that the topic takes
		times.Largest = max(times.Largest, p.latest(s.wall))
	}
	s.engine.Commit(engine.Meta{Count: uint32(batch.Count), MaxTime: times.Largest, TimesChecked: times.Checked, CRC: batch.CRC})
	entry.end = entry.base + int64(batch.Count)
	if batch.ProducerID >= 0 {
		s.producers.note(p, batch, entry.base)
	}
	p.appended(entry.end)
	s.Timelines.Counters.Batches++
	s.Timelines.Counters.Records += uint64(batch.Count)
	s.Timelines.Counters.BytesIn += uint64(entry.records.Len)
}

// answerAppend writes the partition's answer into the reply, and has the request
// wait until the batch is durable, unless it is, or the client wants no reply.
func (s *Shard) answerAppend(req *request, produce *produceRequest, entry *appending, code kafka.ErrorCode, topic, index int32, last bool) {
	version, start := req.header.Version, int64(-1)
	if code == kafka.None {
		start = entry.partition.logStart()
	} else {
		entry.base, entry.end = -1, 0
	}
	var reply []byte
	if code != kafka.None && version >= kafka.ProduceFaults {
		reply = s.putFault(req, produce, entry, code, topic, index, last)
	} else {
		reply = s.net.Bytes(req.id, kafka.ProducePartitionBytes(version, last))
		kafka.PutProducePartition(reply, version, last, index, code, entry.base, entry.time, start)
	}
	at := s.produces.parts.take(&produce.parts, &emptyProducePart)
	part := &s.produces.parts.all[at]
	part.request, part.partition, part.code = req.slot, entry.partition, code
	part.index, part.last, part.reply = index, last, reply
	part.base, part.end = entry.base, entry.end
	if code != kafka.None {
		produce.faulty = true
		s.Timelines.Counters.Rejected++
		return
	}
	if entry.partition.highWatermark() >= entry.end || produce.acks == 0 || entry.duplicate && s.o.Faults.DuplicateAckedEarly {
		return
	}
	req.pending++
	s.produces.await(at)
}

// await puts a part into its partition's awaitingDurable, in the order of the ends:
// a duplicate comes before the batches behind its original.
func (t *produces) await(at int32) {
	part := &t.parts.all[at]
	waiting := &part.partition.awaitingDurable
	after := waiting.Last
	for after != none && t.parts.all[after].end > part.end {
		after = t.parts.all[after].wait.Prev
	}
	part.waits = true
	t.waiters.InsertAfter(waiting, after, at)
}

// acknowledge ends the wait of a partition's batches that are durable now.
func (s *Shard) acknowledge(p *partition) {
	high := p.highWatermark()
	submitted, written, bytes := s.engine.LastWrite(p.slot)
	for !p.awaitingDurable.Empty() {
		at := p.awaitingDurable.First
		part := &s.produces.parts.all[at]
		if part.end > high {
			return
		}
		req, trace := &s.requests.all[part.request], &s.produces.requests[part.request].trace
		req.timeline[metrics.Submitted], trace.written, trace.writeBytes = int64(submitted), written, int32(bytes)
		s.appendDone(at, kafka.None)
	}
}

// failAppends ends the wait of all batches of a partition, with an error: they will
// not be acknowledged.
func (s *Shard) failAppends(p *partition, code kafka.ErrorCode) {
	for !p.awaitingDurable.Empty() {
		s.appendDone(p.awaitingDurable.First, code)
	}
}

// appendDone ends the wait of one batch: it is durable, or the code replaces its
// answer.
func (s *Shard) appendDone(at int32, code kafka.ErrorCode) {
	part := &s.produces.parts.all[at]
	req := &s.requests.all[part.request]
	s.produces.stopAwaiting(at)
	if code != kafka.None && s.net.Alive(req.id) {
		kafka.PutProducePartition(part.reply, req.header.Version, part.last, part.index, code, -1, -1, -1)
	}
	s.pendingDone(req)
}

// stopAwaiting takes a part out of that list, if it is there.
func (t *produces) stopAwaiting(at int32) {
	if part := &t.parts.all[at]; part.waits {
		part.waits = false
		t.waiters.Remove(&part.partition.awaitingDurable, at)
	}
}

// pendingDone counts one thing that a Produce waited for as done, and replies after
// the last.
func (s *Shard) pendingDone(req *request) {
	req.pending--
	if req.pending > 0 {
		return
	}
	produce := &s.produces.requests[req.slot]
	req.timeline[metrics.Durable] = int64(s.now)
	s.recorder.durable(&produce.trace)
	if produce.acks != 0 {
		s.sendReply(req)
		return
	}
	// acks=0: the client expects no reply, and learns of an error by a closed connection.
	s.net.Drop(req.id)
	s.backlog.retry = true
	if produce.faulty {
		s.net.Close(req.conn)
	}
	s.endRequest(req)
}
