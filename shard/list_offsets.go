package shard

import (
	"math"

	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/mem"
	"github.com/tailbound/tailbound/netring"
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
//				seek()                        // past what cannot have the record
//				batches := read()
//				if they are on disk { batches = await read() } // beginRead, readDone
//				if one has the record { break }
//				if it is compressed { await decompress() } // decompressed
//				if it has read much { await the requests that wait } // yield
//			}
//			found(reply)
//		}
//		await send(reply)                     // sendReply, sent
//	}
//
// Each await is a return to the turn; trySearch goes on where searchPart.where says.
//
// A search may have to look through a whole log. It has one read from disk under way
// at a time. When it has begun searchReads of them, or has looked through searchBytes,
// it gives its read buffer back, and goes on behind the requests that wait for one. It
// ends when its connection is gone, and a shard that stops answers it with an error
// where it would have to read on.

// searchRequest is what a ListOffsets has in addition to its request.
type searchRequest struct {
	parts mem.List
	reads int // from disk, since it last let others go before it
	bytes int // that it has looked through since
}

// How much one search reads before others have their turn.
const (
	searchReads = 4
	searchBytes = 1 << 20
)

// searchPart is one partition of a ListOffsets, with the search for its offset.
type searchPart struct {
	ofRequest mem.Links
	request   uint32
	index     int32
	partition *partition // nil if it was not found
	time      int64      // no record is sought that is older
	where     int64      // the offset at which the search goes on
	largest   bool       // all records are looked through for the largest time
	bounded   bool       // MaxTimestamp is asked for: no record is newer than time
	bestTime  int64      // the largest time that was found, and its offset; -1: none
	bestAt    int64
	reply     []byte // its answer in the reply
	diskRead
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
	yielded  bool // in this turn, one that goes on in the next
}

var emptySearchPart = searchPart{bestTime: -1, bestAt: -1}

func newSearches(requests int, credit *partCredit, log *engine.Engine, net *netring.Net) searches {
	return searches{engine: log, net: net, requests: make([]searchRequest, requests), parts: newPartTable(credit.all, credit, func(part *searchPart) *mem.Links { return &part.ofRequest })}
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
	*search = searchRequest{parts: mem.EmptyList}
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
			if part.code != kafka.InvalidRequest && !kafka.TimestampMeansSomething(header.Version, asked.Timestamp) {
				part.code = kafka.UnsupportedVersion
			}
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
	case kafka.LatestTimestamp:
		t.found(req, part, -1, part.partition.highWatermark())
	case kafka.EarliestTimestamp, kafka.EarliestLocalTimestamp: // every log is local as a whole
		t.found(req, part, -1, part.partition.logStart())
	case kafka.LatestTieredTimestamp, kafka.EarliestPendingUploadTimestamp:
		t.found(req, part, -1, -1) // nothing is anywhere else
	case kafka.MaxTimestamp:
		time, base := t.engine.MaxTime(slot, part.partition.highWatermark())
		if base < 0 {
			t.found(req, part, -1, -1)
			return
		}
		// Times that producers claim for batches, and those of deleted records, are
		// upper bounds: if no record has this one, all are looked through.
		part.time, part.where, part.searching, part.bounded = time, base, true, true
	default:
		part.where, part.searching = part.partition.logStart(), true
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

// searchOn looks through the next batches of a part's log for what it seeks. False: they
// have to be read or decompressed first, or other requests go before.
func (s *Shard) searchOn(req *request, at int32) bool {
	part, count := &s.searches.parts.all[at], 0
	switch {
	case part.code != kafka.None:
		s.searches.found(req, part, -1, -1)
		return true
	case part.hasRead:
		count = s.engine.ReadViews(part.read, part.where, part.partition.highWatermark(), searchStep, s.views)
		if count == 0 {
			part.endRead(s.engine)
			return true
		}
	default:
		if s.searches.readMuch(req) {
			return !s.yield(req, part)
		}
		var st engine.Status
		count, st = s.searches.read(req, part, s.views)
		switch st {
		case engine.OK:
		case engine.NotCached:
			return !s.searchDisk(req, at)
		default:
			return true
		}
	}
	more := s.searchViews(req, at, s.views[:count])
	s.unpin(0, count)
	return more
}

// searchStep is how many bytes of a log one step looks through.
const searchStep = 64 << 10

// read reads the next batches that may have what a part seeks, if they are in memory.
// Where the log has none, the part is answered, or begins again.
func (t *searches) read(req *request, part *searchPart, views []engine.View) (count int, st engine.Status) {
	slot, to := part.partition.slot, part.partition.highWatermark()
	where, ok := t.engine.SeekTime(slot, part.time, part.where)
	if !ok || where >= to {
		t.passed(req, part)
		return 0, engine.Empty
	}
	part.where = where
	count, st = t.engine.Read(slot, where, to, searchStep, views)
	switch st {
	case engine.NotCached:
	case engine.Corrupt:
		if !t.passHole(part) {
			part.code = codeOf(st)
		}
	default:
		part.code = codeOf(st)
	}
	return count, st
}

// passHole has a search go on behind the hole in which it is: of what times the lost records
// were is not known. False: it is in none.
func (t *searches) passHole(part *searchPart) bool {
	to, ok := t.engine.HoleEnd(part.partition.slot, part.where)
	if ok {
		part.where = to
	}
	return ok
}

// passed ends a part's search at the end of its log. If no record has the time that
// bounds all, the largest is sought.
func (t *searches) passed(req *request, part *searchPart) {
	if part.bounded && !part.largest {
		part.largest, part.time, part.where = true, 0, part.partition.logStart()
		return
	}
	t.found(req, part, part.bestTime, part.bestAt)
}

// searchDisk begins to read the next batches from disk. False: it cannot, and the part
// has a code.
func (s *Shard) searchDisk(req *request, at int32) (waits bool) {
	part := &s.searches.parts.all[at]
	if s.stage > StageServing {
		part.code = kafka.NotLeaderOrFollower // the client asks again
		return false
	}
	begun, from := false, part.where
	if s.o.Faults.SearchReadsAtTime {
		from = part.time
	}
	if begun, part.code = s.beginRead(req, part.partition, from, searchUser|uint32(at), part.unfinished); begun {
		s.searches.requests[req.slot].reads++
	}
	return part.code == kafka.None
}

// readMuch says that a search has read as much as it may before others have their turn.
func (t *searches) readMuch(req *request) bool {
	search := &t.requests[req.slot]
	return search.reads >= searchReads || search.bytes >= searchBytes
}

// yield has a search go on behind the requests that wait. It holds no read buffer. False:
// the shard stops, and the part has a code.
func (s *Shard) yield(req *request, part *searchPart) (waits bool) {
	if s.stage > StageServing {
		part.code = kafka.NotLeaderOrFollower
		return false
	}
	search := &s.searches.requests[req.slot]
	search.reads, search.bytes = 0, 0
	s.Timelines.Counters.SearchesYielded++
	s.requests.blockOnMemory(req)
	s.searches.yielded = true
	return true
}

// searchViews looks through batches. False: one of them has to be decompressed first.
func (s *Shard) searchViews(req *request, at int32, views []engine.View) bool {
	part, search := &s.searches.parts.all[at], &s.searches.requests[req.slot]
	for _, view := range views {
		for b := view.Bytes; len(b) >= kafka.BatchHeaderBytes; b = b[kafka.BatchBytes(b):] {
			batch := b[:kafka.BatchBytes(b)]
			search.bytes += len(batch)
			if header := kafka.ParseBatchHeader(batch); header.MayReach(part.time) && !s.searchBatch(req, at, batch, &header) {
				return false
			}
			if !part.searching {
				return true
			}
			part.where = batchEnd(batch)
		}
	}
	return true
}

// batchEnd is one past the last offset of a stored batch.
func batchEnd(batch []byte) int64 {
	header := kafka.ParseBatchHeader(batch)
	return kafka.BaseOffset(batch) + int64(header.LastOffsetDelta) + 1
}

// searchBatch looks through a batch that may have what a part seeks. False: it has to be
// decompressed first.
func (s *Shard) searchBatch(req *request, at int32, batch []byte, header *kafka.Batch) bool {
	part := &s.searches.parts.all[at]
	search := kafka.TimeSearch{Time: part.time, From: part.partition.logStart(), Largest: part.largest}
	if s.o.Faults.SearchFindsDeleted {
		search.From = 0
	}
	if first := kafka.BaseOffset(batch); !part.largest && first >= search.From && header.Codec() != 0 && !header.AppendTime() && header.BaseTime >= part.time {
		search.Record(header.BaseTime, first) // the first record's time is the batch's
	} else if !search.Batch(batch) {
		if s.decompress(req, at, batch, &search) {
			return false
		}
		search.Undecompressed(batch)
	}
	if search.Found {
		s.searches.foundRecord(req, part, search.FoundTime, search.FoundOffset)
	}
	return true
}

// foundRecord answers a part with a record, or goes on with the search for a newer one.
func (t *searches) foundRecord(req *request, part *searchPart, time, offset int64) {
	if !part.largest || time == math.MaxInt64 {
		t.found(req, part, time, offset)
	} else if time >= part.time {
		part.time, part.bestTime, part.bestAt = time+1, time, offset
	}
}

// endSearches has every search that waits for its turn answered: the shard stops.
func (s *Shard) endSearches() {
	for i := range s.requests.all {
		if req := &s.requests.all[i]; req.used && req.kind == kindSearch {
			s.requests.schedule(req)
		}
	}
}

// endSearchesOf ends the searches of a connection that is gone, if they wait for their
// turn. One with a read under way ends with that read.
func (s *Shard) endSearchesOf(conn netring.ConnID) {
	for _, slot := range s.requests.blocked {
		if req := &s.requests.all[slot]; req.used && req.kind == kindSearch && req.conn == conn {
			s.requests.schedule(req)
		}
	}
}

// found answers a part: with its code, or with time and offset, -1 for none.
func (t *searches) found(req *request, part *searchPart, time, offset int64) {
	part.searching = false
	part.endRead(t.engine)
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
		part.endRead(t.engine)
		part.reply = nil
		t.parts.give(parts, at)
	}
}
