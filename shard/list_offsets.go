package shard

import (
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/kafka"
)

// Timestamps that ListOffsets gives a meaning of their own (KIP-79, KIP-734,
// KIP-405). All of a log is local, so there is nothing of it elsewhere.
const (
	latest        = -1
	earliest      = -2
	maxTimestamp  = -3
	earliestLocal = -4
)

// ListOffsets runs
//
//	walk it, to refuse what is malformed; begin the reply;
//	refuse the partitions that are named twice;
//	for each other: answer at once what the log knows by heart;
//	for each that asks by time: find the run; read it, await read() where it is
//	cold; look into its batches for the record, await opened() where the batch
//	is compressed; fill in the reply;
//	send.
func (s *Shard) listOffsets(w *waiter, h *kafka.Request) outcome {
	body := s.reader.Mark()
	var walk kafka.ListOffsetsWalk
	if err := walk.Begin(&s.reader, h.Version); err != nil {
		return s.malformed(w, h, err)
	}
	topics := walk.Topics()
	parts, bytes := 0, kafka.ListOffsetsHeadBytes(h, topics)+kafka.ListOffsetsEndBytes(h.Version)
	for walk.Topics() > 0 {
		topic, err := walk.NextTopic()
		if err != nil {
			return s.malformed(w, h, err)
		}
		bytes += kafka.ListOffsetsTopicBytes(h.Version, len(topic.Name), topic.Partitions)
		for left := topic.Partitions - 1; left >= 0; left-- {
			if _, err := walk.NextPartition(); err != nil {
				return s.malformed(w, h, err)
			}
			parts++
			bytes += kafka.ListOffsetsPartitionBytes(h.Version, left == 0)
		}
	}
	if err := walk.End(); err != nil {
		return s.malformed(w, h, err)
	}
	if parts > len(s.parts)/4 {
		return s.malformed(w, h, kafka.ErrTooMany)
	}
	if parts > s.partsFree || !s.net.Begin(w.frame, bytes) {
		return tooEarly
	}
	i, r := s.newRequest(w)
	r.kind, r.header = kindOffsets, *h
	r.header.ClientID = nil
	kafka.PutListOffsetsHead(s.net.Bytes(w.frame, kafka.ListOffsetsHeadBytes(h, topics)), h, topics)
	s.reader.Back(body)
	walk.Begin(&s.reader, h.Version)
	for walk.Topics() > 0 {
		topic, _ := walk.NextTopic()
		kafka.PutListOffsetsTopic(s.net.Bytes(w.frame, kafka.ListOffsetsTopicBytes(h.Version, len(topic.Name), topic.Partitions)), h.Version, topic.Name, topic.Partitions)
		number := s.topics.find(topic.Name)
		for left := topic.Partitions - 1; left >= 0; left-- {
			p, _ := walk.NextPartition()
			x := s.addPart(i)
			x.topic, x.index, x.from = number, p.Index, p.Timestamp
			x.last = left == 0
			x.dst = s.net.Bytes(w.frame, kafka.ListOffsetsPartitionBytes(h.Version, x.last))
			s.locate(x, p.CurrentEpoch, false)
			s.ask(r.parts.Last)
		}
	}
	for p := r.parts.First; p != none; p = s.partsOf.Next(p) {
		x := &s.parts[p]
		if x.partition != nil {
			x.partition.asked = none
		}
		s.listOffset(r, x)
	}
	kafka.PutListOffsetsEnd(s.net.Bytes(w.frame, kafka.ListOffsetsEndBytes(h.Version)))
	s.net.Release(w.frame)
	s.search(i)
	return taken
}

// ask remembers which part of the ListOffsets that is walked names its
// partition. Where one did before, both are refused, as Kafka does.
func (s *Shard) ask(p int32) {
	x := &s.parts[p]
	if x.partition == nil {
		return
	}
	first := &x.partition.asked
	if *first == none {
		*first = p
		return
	}
	s.parts[*first].code, x.code = kafka.InvalidRequest, kafka.InvalidRequest
}

// listOffset answers what needs no reading. What does is left as searching.
func (s *Shard) listOffset(r *request, x *part) {
	if x.code != kafka.None {
		s.offsetFound(r, x, -1, -1)
		return
	}
	switch x.from {
	case latest:
		s.offsetFound(r, x, -1, x.partition.highWatermark())
	case earliest, earliestLocal:
		s.offsetFound(r, x, -1, s.engine.Start(x.partition.slot))
	case maxTimestamp:
		ts, base := s.engine.MaxTime(x.partition.slot)
		if base < 0 {
			s.offsetFound(r, x, -1, -1)
			return
		}
		x.from, x.where, x.searching = ts, base, true
	default:
		base, ok := s.engine.SeekTime(x.partition.slot, x.from)
		if x.from < 0 || !ok {
			s.offsetFound(r, x, -1, -1)
			return
		}
		x.where, x.searching = base, true
	}
}

// search goes on where the search of each part stands; it answers when none is
// left.
func (s *Shard) search(i uint32) {
	r := &s.requests[i]
	if r.pending > 0 || r.replied {
		return
	}
	for p := r.parts.First; p != none; p = s.partsOf.Next(p) {
		for x := &s.parts[p]; x.searching; {
			if !s.searchOn(r, i, p) {
				return // a read is under way
			}
		}
	}
	if r.pending == 0 {
		s.reply(i)
	}
}

// searchOn looks through the next piece of a part's log for the first record
// at or after its time. False: it has to be read first.
func (s *Shard) searchOn(r *request, i uint32, p int32) bool {
	x := &s.parts[p]
	if x.code != kafka.None {
		s.offsetFound(r, x, -1, -1)
		return true
	}
	to := x.partition.highWatermark()
	n, st := 0, engine.OK
	if x.haveRead {
		if n = s.engine.ReadViews(x.read, x.where, to, searchBytes, s.views); n == 0 {
			st = engine.Empty
		}
	} else {
		n, st = s.engine.Read(x.partition.slot, x.where, to, searchBytes, s.views)
	}
	switch st {
	case engine.OK:
	case engine.Cold:
		if !s.readCold(i, p) && x.code == kafka.None {
			return false // starved: it is looked at again
		}
		return x.code != kafka.None
	case engine.Empty:
		if x.haveRead {
			s.engine.ReadEnd(x.read) // this run is through; the next one may be anywhere
			x.haveRead = false
			if x.where < to {
				return true
			}
		}
		s.offsetFound(r, x, -1, -1)
		return true
	default:
		x.code = codeOf(st)
		s.offsetFound(r, x, -1, -1)
		return true
	}
	for _, v := range s.views[:n] {
		for b := v.Bytes; len(b) >= kafka.BatchHeaderBytes; b = b[kafka.BatchBytes(b):] {
			h := kafka.ParseBatchHeader(b)
			base := kafka.BaseOffset(b)
			x.where = base + int64(h.LastOffsetDelta) + 1
			if h.MaxTime < x.from {
				continue
			}
			if h.Codec() != 0 && h.BaseTime < x.from && !h.AppendTime() {
				if s.openBatch(i, p, b[:kafka.BatchBytes(b)]) {
					x.where = base // from here again, where there was no memory
					s.unpin(0, n)
					return false
				}
			}
			ts, offset := kafka.FindTime(b, x.from)
			s.offsetFound(r, x, ts, offset)
			s.unpin(0, n)
			return true
		}
	}
	s.unpin(0, n)
	return true
}

// searchBytes is how much of a log one step of a search by time looks at.
const searchBytes = 64 << 10

func (s *Shard) offsetFound(r *request, x *part, ts, offset int64) {
	x.searching = false
	epoch := int32(-1)
	if offset >= 0 {
		if epoch = s.engine.EpochOf(x.partition.slot, offset); epoch < 0 {
			epoch = x.partition.leaderEpoch
		}
	}
	if s.net.Alive(r.frame) {
		kafka.PutListOffsetsPartition(x.dst, r.header.Version, x.last, x.index, x.code, ts, offset, epoch)
	}
}
