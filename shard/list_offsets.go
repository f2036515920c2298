package shard

import (
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/mem"
	"github.com/tailbound/tailbound/netring"
)

// Timestamps with a meaning of their own (KIP-79, KIP-734, KIP-405). Every log is
// local as a whole, so earliestLocal is earliest.
const (
	latest        = -1
	earliest      = -2
	maxTimestamp  = -3
	earliestLocal = -4
)

// This file is a ListOffsets, from its bytes to its reply. As one function it would
// be:
//
//	async listOffsets(request) {
//		parse(request)                        // refuse what is malformed
//		reply := await begin()                // its memory
//		for each partition { answer(reply) }  // what needs no reading
//		for each that is searched {           // trySearch, searchOn
//			for {
//				batches := read()
//				if they are on disk { batches = await read() } // beginRead, readDone
//				if one has the record { break }
//			}
//			if it is compressed { await decompress() } // decompressed
//			found(reply)
//		}
//		await send(reply)                     // sendReply, sent
//	}
//
// Each await is a return to the turn; trySearch goes on where searchPart.where says.

// searchRequest is what a ListOffsets has in addition to its request.
type searchRequest struct{ parts mem.List }

// searchPart is one partition of a ListOffsets, with the search for its offset.
type searchPart struct {
	ofRequest mem.Links
	request   uint32
	index     int32
	partition *partition // nil if it was not found
	time      int64      // that is asked for; for maxTimestamp the largest in the log
	where     int64      // the offset at which the search goes on
	reply     []byte     // its answer in the reply
	read      uint32     // with hasRead: the read from disk that it is served from
	hasRead   bool
	searching bool // not answered yet
	last      bool // of its topic in the request
	code      kafka.ErrorCode
}

// searches is the table of ListOffsets requests in flight.
type searches struct {
	engine   *engine.Engine
	net      *netring.Net
	requests []searchRequest // by the request's slot
	parts    partTable[searchPart]
}

var emptySearchPart searchPart

func newSearches(requests int, credit *partCredit, log *engine.Engine, net *netring.Net) searches {
	return searches{log, net, make([]searchRequest, requests), newPartTable(credit.all, credit, func(part *searchPart) *mem.Links { return &part.ofRequest })}
}

// listOffsets starts a ListOffsets.
func (s *Shard) listOffsets(in *incoming, header *kafka.Request) outcome {
	body := s.reader.Mark()
	var walk kafka.ListOffsetsWalk
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
	if parts > s.requests.credit.free || !s.net.Begin(in.id, bytes) {
		return postponed
	}
	req := s.newRequest(in, kindSearch, header)
	search := &s.searches.requests[req.slot]
	search.parts = mem.EmptyList
	kafka.PutListOffsetsHead(s.net.Bytes(in.id, kafka.ListOffsetsHeadBytes(header, topics)), header, topics)
	s.reader.Back(body)
	walk.Begin(&s.reader, header.Version)
	for walk.Topics() > 0 {
		topic, _ := walk.NextTopic()
		kafka.PutListOffsetsTopic(s.net.Bytes(in.id, kafka.ListOffsetsTopicBytes(header.Version, len(topic.Name), topic.Partitions)), header.Version, topic.Name, topic.Partitions)
		number := s.topics.lookup(topic.Name, false)
		for left := topic.Partitions - 1; left >= 0; left-- {
			asked, _ := walk.NextPartition()
			at := s.searches.parts.take(&search.parts, &emptySearchPart)
			part := &s.searches.parts.all[at]
			part.request, part.index = req.slot, asked.Index
			part.time, part.last = asked.Timestamp, left == 0
			part.reply = s.net.Bytes(in.id, kafka.ListOffsetsPartitionBytes(header.Version, part.last))
			part.partition, part.code = s.topics.locateAt(number, asked.Index, false, asked.CurrentEpoch)
			s.searches.refuseTwice(at)
		}
	}
	for at := search.parts.First; at != none; at = s.searches.parts.next(at) {
		part := &s.searches.parts.all[at]
		if part.partition != nil {
			part.partition.asked = none
		}
		s.searches.answer(req, part)
	}
	kafka.PutListOffsetsEnd(s.net.Bytes(in.id, kafka.ListOffsetsEndBytes(header.Version)))
	s.net.Release(in.id)
	s.trySearch(req)
	return started
}

// refuseTwice refuses a part, and the one before it, whose partition the request has
// named before, as Kafka does.
func (t *searches) refuseTwice(at int32) {
	part := &t.parts.all[at]
	if part.partition == nil {
		return
	}
	first := &part.partition.asked
	if *first == none {
		*first = at
		return
	}
	t.parts.all[*first].code, part.code = kafka.InvalidRequest, kafka.InvalidRequest
}

// answer answers a part that needs no reading; else the part is searching.
func (t *searches) answer(req *request, part *searchPart) {
	if part.code != kafka.None {
		t.found(req, part, -1, -1)
		return
	}
	slot := part.partition.slot
	switch part.time {
	case latest:
		t.found(req, part, -1, part.partition.highWatermark())
	case earliest, earliestLocal:
		t.found(req, part, -1, part.partition.logStart())
	case maxTimestamp:
		time, base := t.engine.MaxTime(slot)
		if base < 0 {
			t.found(req, part, -1, -1)
			return
		}
		part.time, part.where, part.searching = time, base, true
	default:
		base, ok := t.engine.SeekTime(slot, part.time)
		if part.time < 0 || !ok {
			t.found(req, part, -1, -1)
			return
		}
		part.where, part.searching = base, true
	}
}

// trySearch goes on with the search of each part, and replies when all are answered.
func (s *Shard) trySearch(req *request) {
	if req.pending > 0 || req.replied {
		return
	}
	if !s.net.Alive(req.id) {
		s.endRequest(req)
		return
	}
	for at := s.searches.requests[req.slot].parts.First; at != none; at = s.searches.parts.next(at) {
		for part := &s.searches.parts.all[at]; part.searching; {
			if !s.searchOn(req, at) {
				return // an operation is under way, or there is no memory for it
			}
		}
	}
	s.sendReply(req)
}

// searchOn looks through the next bytes of a part's log for the first record that is
// not older than its time. False: they have to be read or decompressed first.
func (s *Shard) searchOn(req *request, at int32) bool {
	part := &s.searches.parts.all[at]
	if part.code != kafka.None {
		s.searches.found(req, part, -1, -1)
		return true
	}
	slot, to := part.partition.slot, part.partition.highWatermark()
	count, st := 0, engine.OK
	if part.hasRead {
		if count = s.engine.ReadViews(part.read, part.where, to, searchBytes, s.views); count == 0 {
			st = engine.Empty
		}
	} else {
		count, st = s.engine.Read(slot, part.where, to, searchBytes, s.views)
	}
	switch st {
	case engine.OK:
	case engine.NotCached:
		_, part.code = s.beginRead(req, part.partition, part.where, searchUser|uint32(at))
		return part.code != kafka.None
	case engine.Empty:
		if part.hasRead {
			s.engine.ReadEnd(part.read) // the next bytes may be in memory
			part.hasRead = false
			if part.where < to {
				return true
			}
		}
		s.searches.found(req, part, -1, -1)
		return true
	default:
		part.code = codeOf(st)
		s.searches.found(req, part, -1, -1)
		return true
	}
	for _, view := range s.views[:count] {
		for b := view.Bytes; len(b) >= kafka.BatchHeaderBytes; b = b[kafka.BatchBytes(b):] {
			header := kafka.ParseBatchHeader(b)
			base := kafka.BaseOffset(b)
			part.where = base + int64(header.LastOffsetDelta) + 1
			if header.MaxTime < part.time {
				continue
			}
			if header.Codec() != 0 && header.BaseTime < part.time && !header.AppendTime() {
				if s.decompress(req, at, b[:kafka.BatchBytes(b)]) {
					part.where = base // the batch is looked at again, if there was no memory to lend it
					s.unpin(0, count)
					return false
				}
			}
			time, offset := kafka.FindTime(b, part.time)
			s.searches.found(req, part, time, offset)
			s.unpin(0, count)
			return true
		}
	}
	s.unpin(0, count)
	return true
}

// searchBytes is how much of a log one step of a search reads.
const searchBytes = 64 << 10

// found answers a part: with its code, or with time and offset, -1 for none.
func (t *searches) found(req *request, part *searchPart, time, offset int64) {
	part.searching = false
	epoch := int32(-1)
	if offset >= 0 {
		epoch = part.partition.epochOf(offset)
	}
	if t.net.Alive(req.id) {
		kafka.PutListOffsetsPartition(part.reply, req.header.Version, part.last, part.index, part.code, time, offset, epoch)
	}
}

// end frees a request's parts.
func (t *searches) end(search *searchRequest) {
	for parts := &search.parts; !parts.Empty(); {
		at := parts.First
		part := &t.parts.all[at]
		if part.hasRead {
			t.engine.ReadEnd(part.read)
			part.hasRead = false
		}
		part.reply = nil
		t.parts.give(parts, at)
	}
}
