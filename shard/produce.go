package shard

import (
	"math"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/metrics"
)

// Produce runs
//
//	walk it, to refuse what is malformed before anything is stored;
//	begin the reply, as if all went well;
//	for each partition: reserve(); copy; validate; check its producer; commit();
//	release the request;
//	await every partition's durable offset; send.
//
// The reply is written as the request is parsed; what is not known then, an
// error code and a base offset, is filled in where it stands. Where log memory
// runs out between two partitions the request stays in its connection's
// buffers and goes on there later. An append outlives its connection.
func (s *Shard) produce(w *waiter, h *kafka.Request) outcome {
	if w.request == none {
		body := s.reader.Mark()
		i, st := s.beginProduce(w, h)
		if i == none {
			return st
		}
		w.request = i
		s.reader.Back(body)
	}
	i := uint32(w.request)
	r := &s.requests[i]
	var walk kafka.ProduceWalk
	walk.Begin(&s.reader, h.Version)
	for n := int32(0); walk.Topics() > 0; {
		topic, _ := walk.NextTopic()
		number := none
		if n >= r.named {
			kafka.PutProduceTopic(s.net.Bytes(w.frame, kafka.ProduceTopicBytes(h.Version, len(topic.Name), topic.Partitions)), h.Version, topic.Name, topic.Partitions)
			r.named = n + int32(topic.Partitions)
		}
		if h.Version >= kafka.ProduceByID {
			number = s.topics.findID(topic.Name)
		} else {
			number = s.topics.find(topic.Name)
		}
		for left := topic.Partitions - 1; left >= 0; left-- {
			p, _ := walk.NextPartition()
			n++
			if n <= r.done {
				continue
			}
			switch s.append(w, i, number, &p, left == 0) {
			case engine.WaitMemory:
				r.waited |= metrics.WaitedMemory
				return tooEarly
			case engine.WaitRoom:
				r.waited |= metrics.WaitedRoom
				return tooEarly
			}
			r.done = n
		}
	}
	kafka.PutProduceEnd(s.net.Bytes(w.frame, kafka.ProduceEndBytes(h.Version)), h.Version)
	s.net.Release(w.frame)
	r.stamps[metrics.Appended] = int64(s.now)
	s.lessPending(i)
	return taken
}

// zstd may come from Produce 7 and go from Fetch 10 on (KIP-110).
const (
	zstdProduce = 7
	zstdFetch   = 10
)

// beginProduce walks the request to see that it is whole, and takes what its
// answer needs. none: it was refused, or memory is short.
func (s *Shard) beginProduce(w *waiter, h *kafka.Request) (int32, outcome) {
	var walk kafka.ProduceWalk
	if err := walk.Begin(&s.reader, h.Version); err != nil {
		return none, s.malformed(w, h, err)
	}
	acks, topics := walk.Acks, walk.Topics()
	parts, bytes := 0, kafka.ProduceHeadBytes(h, topics)+kafka.ProduceEndBytes(h.Version)
	for walk.Topics() > 0 {
		topic, err := walk.NextTopic()
		if err != nil {
			return none, s.malformed(w, h, err)
		}
		bytes += kafka.ProduceTopicBytes(h.Version, len(topic.Name), topic.Partitions)
		for left := topic.Partitions - 1; left >= 0; left-- {
			if _, err := walk.NextPartition(); err != nil {
				return none, s.malformed(w, h, err)
			}
			parts++
			bytes += kafka.ProducePartitionBytes(h.Version, left == 0)
		}
	}
	if err := walk.End(); err != nil {
		return none, s.malformed(w, h, err)
	}
	if parts > len(s.parts)/4 {
		return none, s.malformed(w, h, kafka.ErrTooMany)
	}
	if parts > s.partsFree {
		return none, tooEarly
	}
	if !s.net.CanReserve(bytes) || !s.net.Begin(w.frame, bytes) {
		return none, tooEarly
	}
	i, r := s.newRequest(w)
	r.kind, r.header, r.acks, r.pending = kindProduce, *h, acks, 1
	r.header.ClientID = nil
	if acks < -1 || acks > 1 {
		r.code = kafka.InvalidRequiredAcks
	}
	if h.Version < kafka.ProduceMin {
		r.code = kafka.UnsupportedVersion
	}
	if walk.Transactional {
		r.code = kafka.TransactionalIDAuthorizationFailed // there are no transactions to be in
	}
	s.Timelines.Counters.Produces++
	kafka.PutProduceHead(s.net.Bytes(w.frame, kafka.ProduceHeadBytes(h, topics)), h, topics)
	return int32(i), taken
}

// append stores one partition's batch, or writes down why not.
func (s *Shard) append(w *waiter, i uint32, topic int32, p *kafka.ProducePartition, last bool) engine.Status {
	r := &s.requests[i]
	code, base, end := r.code, int64(-1), int64(0)
	to, refusal := s.topics.locate(topic, p.Index, r.header.Version >= kafka.ProduceByID)
	duplicate, stamp := false, int64(-1)
	switch {
	case code != kafka.None:
	case refusal != kafka.None:
		code = refusal
	case p.Null || p.Records.Len < kafka.BatchHeaderBytes:
		code = kafka.InvalidRecord
	case p.Records.Len > s.batchBytesMax(to.config):
		code = kafka.MessageTooLarge
	case int64(p.Records.Len) > to.config.SegmentBytes:
		code = kafka.RecordListTooLarge
	case s.failed:
		code = kafka.KafkaStorageError
	default:
		dst, at, st := s.engine.Reserve(to.slot, p.Records.Len)
		if st == engine.WaitMemory || st == engine.WaitRoom {
			return st
		}
		if st == engine.NoSpace {
			s.noRoom()
		}
		if code = codeOf(st); code != kafka.None {
			s.reader.CopyTo(kafka.Span{Off: p.Records.Off, Len: len(s.head)}, s.head[:])
			if b := kafka.ParseBatchHeader(s.head[:]); code == kafka.KafkaStorageError && b.ProducerID >= 0 {
				s.windows.refused(to.slot, &b)
			}
			break
		}
		s.reader.CopyTo(p.Records, dst)
		var b kafka.Batch
		code = kafka.ValidateBatch(dst, s.o.MessageBytesMax, &b)
		if code == kafka.None && b.Codec() == kafka.CodecZstd && r.header.Version < zstdProduce {
			code = kafka.UnsupportedCompressionType
		}
		config := to.config
		if code == kafka.None && !config.AppendTime && !s.timely(config, &b, dst) {
			code = kafka.InvalidTimestamp
		}
		if code == kafka.None && b.ProducerID >= 0 {
			v := s.windows.check(to.slot, &b)
			if v.duplicate {
				s.engine.Abort()
				s.Timelines.Counters.Duplicates++
				base, end, duplicate = v.base, v.end, true
				break
			}
			code = v.code
		}
		if code != kafka.None {
			s.engine.Abort()
			break
		}
		kafka.PatchBase(dst, at, to.leaderEpoch)
		if config.AppendTime {
			stamp = int64(s.wall)
			kafka.StampAppendTime(dst, &b, stamp)
		}
		s.noteAppend(r, to, p.Records.Len)
		s.engine.Commit(engine.Meta{Count: uint32(b.Count), MaxTime: b.MaxTime, CRC: b.CRC})
		base, end = at, at+int64(b.Count)
		if b.ProducerID >= 0 {
			s.windows.note(to.slot, &b, at)
		}
		if config.WriteCaching {
			to.cached = end
			s.engine.Announce(to.slot)
		}
		s.Timelines.Counters.Batches++
		s.Timelines.Counters.Records += uint64(b.Count)
		s.Timelines.Counters.BytesIn += uint64(p.Records.Len)
	}
	start := int64(-1)
	if code == kafka.None {
		start = s.engine.Start(to.slot)
	}
	v := r.header.Version
	dst := s.net.Bytes(w.frame, kafka.ProducePartitionBytes(v, last))
	kafka.PutProducePartition(dst, v, last, p.Index, code, base, stamp, start)
	x := s.addPart(i)
	x.partition, x.code, x.index, x.last, x.dst, x.from, x.end = to, code, p.Index, last, dst, base, end
	if code != kafka.None {
		r.faulty = true
		s.Timelines.Counters.Rejected++
		return engine.OK
	}
	if to.highWatermark() >= end || r.acks == 0 || duplicate && s.o.Faults.DuplicateAckedEarly {
		return engine.OK
	}
	r.pending++
	s.awaitDurable(r.parts.Last)
	return engine.OK
}

// noRoom: the disk is full. What this shard keeps for its logs to come it has let
// go already; the others are asked to.
func (s *Shard) noRoom() {
	if s.now < s.noRoomAt {
		return
	}
	s.noRoomAt = s.now + noRoomAgainNS
	s.outbox.put(Mail{Kind: MailNoRoom}, 0)
}

const noRoomAgainNS = 1e9

// batchBytesMax is the largest batch the topic takes.
func (s *Shard) batchBytesMax(c *cluster.LogConfig) int {
	if n := c.MessageBytesMax; n >= 0 {
		return int(min(n, int64(s.o.MessageBytesMax)))
	}
	return s.o.MessageBytesMax
}

// timely says whether a batch's times are as near to the broker's as its topic
// wants them.
func (s *Shard) timely(c *cluster.LogConfig, b *kafka.Batch, raw []byte) bool {
	now := int64(s.wall)
	earliest, latest := int64(math.MinInt64), int64(math.MaxInt64)
	if c.BeforeMaxMS < now { // it cannot be that a time is more than 1970 behind, but for -1: none
		earliest = now - c.BeforeMaxMS
	}
	if c.AfterMaxMS < latest-now {
		latest = now + c.AfterMaxMS
	}
	return kafka.TimesWithin(b, raw, earliest, latest)
}

// acknowledge tells a log's waiters how far it may be acknowledged.
func (s *Shard) acknowledge(slot engine.Slot) {
	on := &s.partitions[slot]
	high := on.highWatermark()
	submitted, written, frame := s.engine.Landed(slot)
	for !on.awaitingDurable.Empty() && s.parts[on.awaitingDurable.First].end <= high {
		r := &s.requests[s.parts[on.awaitingDurable.First].request]
		r.stamps[metrics.Submitted], r.written, r.frameBytes = int64(submitted), written, int32(frame)
		s.produceDone(on.awaitingDurable.First, kafka.None)
	}
	if s.truncating > 0 {
		s.truncated(slot)
	}
	for p := on.awaitingData.First; p != none; p = s.waiters.Next(p) {
		x := &s.parts[p]
		s.count(x.request, on, &x.tally, x.max)
	}
	s.stir(on, false)
}

// produceDone ends the wait of one part: its batch is durable, or will never
// be acknowledged.
func (s *Shard) produceDone(p int32, code kafka.ErrorCode) {
	x := &s.parts[p]
	i := x.request
	s.unwait(p)
	if code != kafka.None && s.net.Alive(s.requests[i].frame) {
		kafka.PutProducePartition(x.dst, s.requests[i].header.Version, x.last, x.index, code, -1, -1, -1)
	}
	s.lessPending(i)
}

// lessPending counts one thing done for a produce, and answers when it was the
// last.
func (s *Shard) lessPending(i uint32) {
	r := &s.requests[i]
	r.pending--
	if r.pending > 0 {
		return
	}
	r.stamps[metrics.Durable] = int64(s.now)
	s.noteDurable(r)
	if r.acks != 0 {
		s.reply(i)
		return
	}
	// No answer is awaited. An error shows as a closed connection.
	s.net.Drop(r.frame)
	s.waiting.retry = true
	if r.faulty {
		s.net.Close(r.conn)
	}
	s.endRequest(i)
}
