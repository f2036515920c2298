package shard

import (
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/mem"
)

// Timestamps that ListOffsets gives a meaning of their own (KIP-79, KIP-734,
// KIP-405). All of a log is local, so there is nothing of it elsewhere.
const (
	latest        = -1
	earliest      = -2
	maxTimestamp  = -3
	earliestLocal = -4
)

// This file is a ListOffsets. It stands for
//
//	async listOffsets(request) {
//		parse(request)                        // refuses what is malformed
//		refuse the partitions that are named twice
//		for each other: answer at once what the log knows by heart
//		for each that asks by time {          // trySearch
//			find the extent; await read() where it is on disk
//			look into its batches for the record; await decompressed() where a batch is compressed
//			fill in the reply
//		}
//		send(reply)
//	}

// searchRequest is what a ListOffsets has beside its request.
type searchRequest struct{ parts mem.List }

// searchPart is one partition of a ListOffsets.
type searchPart struct {
	ofRequest mem.Links
	request   uint32
	index     int32
	partition *partition // nil where it was not found
	time      int64      // asked for; later the time of the record that is looked for
	where     int64      // the offset at which the search stands
	reply     []byte     // where in the reply the partition stands
	read      uint32     // a read from disk that serves it
	hasRead   bool
	searching bool // by time, and not found yet
	last      bool // its topic's last, behind which the topic is closed
	code      kafka.ErrorCode
}

// searches are the ListOffsets requests in flight.
type searches struct {
	engine   *engine.Engine
	requests []searchRequest // by the request's slot
	parts    partTable[searchPart]
}

var emptySearchPart searchPart

func newSearches(requests int, credit *partCredit, log *engine.Engine) searches {
	return searches{log, make([]searchRequest, requests), newPartTable(credit.all, credit, func(part *searchPart) *mem.Links { return &part.ofRequest })}
}

// listOffsets starts a ListOffsets.
func (s *Shard) listOffsets(in *incoming, header *kafka.Request) outcome {
	body := s.reader.Mark()
	var walk kafka.ListOffsetsWalk
	if err := walk.Begin(&s.reader, header.Version); err != nil {
		return s.malformed(in, err)
	}
	topics, parts := walk.Topics(), 0
	bytes := kafka.ListOffsetsHeadBytes(header, topics) + kafka.ListOffsetsEndBytes(header.Version)
	for walk.Topics() > 0 {
		topic, err := walk.NextTopic()
		if err != nil {
			return s.malformed(in, err)
		}
		bytes += kafka.ListOffsetsTopicBytes(header.Version, len(topic.Name), topic.Partitions)
		for left := topic.Partitions - 1; left >= 0; left-- {
			if _, err := walk.NextPartition(); err != nil {
				return s.malformed(in, err)
			}
			parts++
			bytes += kafka.ListOffsetsPartitionBytes(header.Version, left == 0)
		}
	}
	if err := walk.End(); err != nil {
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
		s.beginSearch(req, part)
	}
	kafka.PutListOffsetsEnd(s.net.Bytes(in.id, kafka.ListOffsetsEndBytes(header.Version)))
	s.net.Release(in.id)
	s.trySearch(req)
	return started
}

// refuseTwice notes which part of the request that is parsed names its partition.
// Where one did before, both are refused, as Kafka does.
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

// beginSearch answers what needs no reading. What does is left as searching.
func (s *Shard) beginSearch(req *request, part *searchPart) {
	if part.code != kafka.None {
		s.found(req, part, -1, -1)
		return
	}
	slot := part.partition.slot
	switch part.time {
	case latest:
		s.found(req, part, -1, part.partition.highWatermark())
	case earliest, earliestLocal:
		s.found(req, part, -1, part.partition.logStart())
	case maxTimestamp:
		time, base := s.engine.MaxTime(slot)
		if base < 0 {
			s.found(req, part, -1, -1)
			return
		}
		part.time, part.where, part.searching = time, base, true
	default:
		base, ok := s.engine.SeekTime(slot, part.time)
		if part.time < 0 || !ok {
			s.found(req, part, -1, -1)
			return
		}
		part.where, part.searching = base, true
	}
}

// trySearch goes on where the search of each part stands, and replies when none
// is left.
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
				return // something is under way, or there is no memory
			}
		}
	}
	s.sendReply(req)
}

// searchOn looks through the next bytes of a part's log for the first record at
// or after its time. False: they have to be read or decompressed first.
func (s *Shard) searchOn(req *request, at int32) bool {
	part := &s.searches.parts.all[at]
	if part.code != kafka.None {
		s.found(req, part, -1, -1)
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
			s.engine.ReadEnd(part.read) // this extent is through; the next one may be anywhere
			part.hasRead = false
			if part.where < to {
				return true
			}
		}
		s.found(req, part, -1, -1)
		return true
	default:
		part.code = codeOf(st)
		s.found(req, part, -1, -1)
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
					part.where = base // from here again, where there was no memory
					s.unpin(0, count)
					return false
				}
			}
			time, offset := kafka.FindTime(b, part.time)
			s.found(req, part, time, offset)
			s.unpin(0, count)
			return true
		}
	}
	s.unpin(0, count)
	return true
}

// searchBytes is how much of a log one step of a search by time looks at.
const searchBytes = 64 << 10

// found answers a part: its code, or a record's time and offset, -1 for none.
func (s *Shard) found(req *request, part *searchPart, time, offset int64) {
	part.searching = false
	epoch := int32(-1)
	if offset >= 0 {
		epoch = part.partition.epochOf(offset)
	}
	if s.net.Alive(req.id) {
		kafka.PutListOffsetsPartition(part.reply, req.header.Version, part.last, part.index, part.code, time, offset, epoch)
	}
}

// end gives a request's parts back.
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
