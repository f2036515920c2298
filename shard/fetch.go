package shard

import (
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/metrics"
)

// This file is a Fetch, from its bytes to its reply. As one function it would be:
//
//	async fetch(request) {
//		parts := parse(request)               // addParts; of a session: resume, addChangedParts
//		for {
//			for each part {                   // tryFetch
//				views := read()               // collect: pinned log memory
//				if they are on disk { await read() } // beginRead, readDone
//			}
//			if there is enough, or an error, or the deadline has passed { break }
//			await data or the deadline        // park; count, expire
//		}
//		await earlier replies, reply memory   // blockOnMemory
//		reply(views)                          // replyFetch
//		await send(reply)                     // sendReply, sent
//		unpin(views)                          // endRequest
//	}
//
// Each await is a return to the turn, and after each tryFetch reads all parts again
// from the beginning. The parts of a session's Fetch are those of its partitions that
// may have changed: tryFetch makes them, and frees them while the Fetch waits for
// data (session_fetch.go).
//
// The first partition that has any records gives its first batch whole, however
// large; max_bytes holds for all after it.
//
// A reply pins the log memory that it is sent from, and a consumer may be slow to
// take it. So that other clients do not suffer:
//
//   - a Fetch that has records to send is answered after the requests before it on
//     its connection, as in Kafka, and what is pinned for one connection is at most
//     replyMax;
//   - all replies together pin at most half of the log memory; beyond that small
//     replies are copied, into at most half of the reply memory, and larger ones
//     wait;
//   - while one waits, connections that take less than 64 KiB of a reply in a second
//     are closed.

// fetch starts a Fetch.
func (s *Shard) fetch(in *incoming, header *kafka.Request) outcome {
	body := s.reader.Mark()
	var walk kafka.FetchWalk
	if err := walk.Begin(&s.reader, header.Version); err != nil {
		return s.malformed(in, err)
	}
	id, epoch := walk.SessionID, walk.SessionEpoch
	whole := epoch == 0 || epoch == -1 // it names all partitions: it begins a session, or uses none
	parts, err := walk.Measure()
	if err != nil {
		return s.malformed(in, err)
	}
	if !whole {
		parts = 0
	}
	if parts > s.requests.credit.fetchesMax() {
		return s.malformed(in, kafka.ErrTooMany)
	}
	if parts > s.requests.credit.fetchesFree() {
		in.parts, s.fetches.partsExhausted = int32(parts), true
		return postponed
	}
	req := s.newRequest(in, kindFetch, header)
	fetch := s.fetches.of(req)
	*fetch = emptyFetch
	s.reader.Back(body)
	walk.Begin(&s.reader, header.Version)
	fetch.bytesMax = max(walk.MaxBytes, 0)
	fetch.bytesMin = min(max(walk.MinBytes, 0), fetch.bytesMax)
	if whole {
		if n := s.sessions.find(id); n != none {
			s.sessions.end(n)
		}
		fetch.wants = epoch == 0
		s.addParts(req, fetch, &walk)
	} else {
		fetch.code = s.sessions.resume(req, fetch, &walk, id, epoch, s.now)
	}
	s.Timelines.Counters.Fetches++
	fetch.deadline = s.now + ioring.Instant(int64(max(walk.MaxWaitMS, 0))*1e6)
	s.tryFetch(req)
	return started
}

// addParts makes a part of each partition that the request names.
func (s *Shard) addParts(req *request, fetch *fetchRequest, walk *kafka.FetchWalk) {
	byID := req.header.Version >= kafka.FetchByID
	for walk.Topics() > 0 {
		topic, _ := walk.NextTopic()
		number := s.topics.lookup(topic.Name, byID)
		for range topic.Partitions {
			asked, _ := walk.NextPartition()
			part := &s.fetches.parts.all[s.fetches.parts.take(&fetch.parts, &emptyFetchPart)]
			part.request, part.name = req.slot, topic.Span
			part.topic, part.index = number, asked.Index
			part.from, part.max, part.epoch = asked.Offset, max(asked.MaxBytes, 0), asked.CurrentEpoch
			part.partition, part.code = s.topics.locateAt(number, asked.Index, byID, asked.CurrentEpoch)
		}
	}
}

// attempt is what one attempt to answer a Fetch has found.
type attempt struct {
	req    *request
	isNext bool  // all requests before it on its connection are answered: it may use what was read ahead
	isHead bool  // their replies have left: it may begin reads from disk, for which there are few buffers
	copied bool  // no more log memory may be pinned: the reply is copied
	most   int   // bytes of records that the reply may have
	used   int   // views that were collected
	total  int   // and their bytes
	have   int64 // bytes that there are to send, collected or not
	reads  int   // reads from disk that were begun
	wants  bool  // there are more to begin
	faults bool  // a partition has an error, which is answered at once
	over   bool  // there is more than the reply takes
}

// tryFetch reads what there is for a Fetch, and answers if that is enough. No
// operation of the Fetch is under way.
func (s *Shard) tryFetch(req *request) {
	fetch := s.fetches.of(req)
	if !s.net.Alive(req.id) {
		s.fetches.unpark(req)
		s.endRequest(req)
		return
	}
	if fetch.parked && fetch.idleTo == 0 {
		fetch.idleTo = s.now
	}
	if fetch.code != kafka.None {
		s.fetches.dropParts(fetch) // its session has ended
	}
	try := attempt{req: req, faults: fetch.code != kafka.None || fetch.parts.Empty() && fetch.session == none}
	if fetch.session != none && fetch.parts.Empty() {
		if try.over = s.sessions.addChangedParts(req, fetch); try.over && fetch.parts.Empty() {
			s.fetches.partsExhausted = true
			s.requests.blockOnMemory(req)
			return
		}
	}
	try.isNext, try.isHead = s.net.IsNext(req.id), s.net.IsHead(req.id)
	try.most, try.copied = min(int(fetch.bytesMax), s.fetches.replyMax), s.engine.PinsLeft() <= 0
	if try.copied {
		try.most = min(try.most, s.fetches.copyMax)
	}
	for at := fetch.parts.First; at != none; at = s.fetches.parts.next(at) {
		s.Timelines.Counters.PartitionsLookedAt++
		s.collect(&try, at)
	}
	if try.reads > 0 {
		s.unpin(0, try.used)
		if req.timeline[metrics.Appended] == 0 {
			req.timeline[metrics.Appended] = int64(s.now)
		}
		req.timeline[metrics.Submitted] = int64(s.now)
		return
	}
	waits := !try.faults && !try.over && try.have < int64(fetch.bytesMin) && s.now < fetch.deadline && s.stage == StageServing
	early := !try.isHead && try.wants || !try.isNext && try.used > 0 && !waits
	switch {
	case early: // requests before it on its connection go first
		s.unpin(0, try.used)
		if fetch.session != none {
			s.fetches.releaseParts(fetch, &s.sessions, false) // they may take long
		}
		s.requests.blockOnMemory(req)
	case waits: // for data
		s.unpin(0, try.used)
		if fetch.session != none {
			again := s.sessions.all[fetch.session].changed // since its parts were made
			s.fetches.releaseParts(fetch, &s.sessions, !again)
			if again {
				s.tryFetch(req)
				return
			}
		}
		fetch.have = try.have
		s.park(req)
	default:
		if req.timeline[metrics.Appended] == 0 {
			req.timeline[metrics.Appended] = int64(s.now)
		}
		s.replyFetch(req, fetch, try.used, try.copied)
	}
}

// collect adds to the views what a part's partition has for the reply, or notes why
// that is nothing.
func (s *Shard) collect(try *attempt, at int32) {
	part := &s.fetches.parts.all[at]
	part.views, part.tally = 0, tally{}
	if part.code != kafka.None {
		try.faults = true
		return
	}
	part.start, part.high = part.partition.logStart(), part.partition.highWatermark()
	part.tally = tally{counted: part.from}
	limit := min(int(part.max), try.most-try.total)
	if try.total > 0 && limit <= 0 || try.used == len(s.views) {
		if part.from < part.start || part.from > part.partition.logEnd() {
			part.code, try.faults = kafka.OffsetOutOfRange, true // as read would find
			return
		}
		part.full, try.over = true, try.over || part.max > 0
		return
	}
	count := s.read(try, at, limit)
	for !try.copied && count > 0 && s.engine.PinsLeft() < 0 && try.used+count > 1 {
		count--
		s.unpin(try.used+count, 1)
		part.full, try.over, try.most = true, true, 0 // the reply takes no more
	}
	if count == 0 {
		return
	}
	if try.total > 0 && len(s.views[try.used].Bytes) > limit {
		s.unpin(try.used, count) // only the reply's first batch may exceed the limit
		part.full, try.over = true, true
		return
	}
	views := s.views[try.used : try.used+count]
	if try.req.header.Version < zstdFetch && holdsZstd(views) {
		s.unpin(try.used, count)
		part.code, try.faults = kafka.UnsupportedCompressionType, true
		return
	}
	got := 0
	for _, view := range views {
		got += len(view.Bytes)
	}
	part.views, part.bytes, part.counted = int32(count), int32(got), viewEnd(views[count-1])
	try.have += int64(got)
	if part.counted < part.high {
		part.full, try.over = true, try.over || limit < int(part.max)
		try.have += int64(max(part.max-part.bytes, 0)) // Kafka too counts such a partition with its maximum
	}
	try.used += count
	try.total += got
}

// read reads up to limit bytes of a part's partition into the views: from log memory,
// from what was read from disk for the part, or from what was read ahead. Where the
// records are on disk it begins to read them, if the Fetch may. It returns how many
// views it added.
func (s *Shard) read(try *attempt, at int32, limit int) (count int) {
	part := &s.fetches.parts.all[at]
	slot, views, st := part.partition.slot, s.views[try.used:], engine.OK
	if !part.hasRead {
		count, st = s.engine.Read(slot, part.from, part.high, limit, views)
	}
	if st == engine.NotCached && try.isNext && try.reads < readsPerFetch {
		have, comes := s.readahead.take(part, at)
		if comes {
			try.req.pending++
			try.reads++
			return 0
		}
		if have {
			st = engine.OK
		}
	}
	if part.hasRead {
		count = s.engine.ReadViews(part.read, part.from, part.high, limit, views)
	}
	switch st {
	case engine.OK, engine.Empty:
		return count
	case engine.NotCached:
		if part.unfinished > 0 && s.stage > StageServing {
			return count // a stop does not wait for it
		}
		if try.wants = true; try.isHead && try.reads < readsPerFetch {
			var begun bool
			if begun, part.code = s.beginRead(try.req, part.partition, part.from, uint32(at), part.unfinished); begun {
				try.reads++
			}
		}
	case engine.OutOfRange:
		if part.from <= part.high || part.from > part.partition.logEnd() { // what lies between them is not durable yet
			part.code, try.faults = kafka.OffsetOutOfRange, true
		}
	default:
		part.code, try.faults = codeOf(st), true
	}
	return 0
}

// viewEnd is one past the last offset in a view.
func viewEnd(view engine.View) int64 {
	return kafka.BaseOffset(view.Bytes) + int64(kafka.ParseBatchHeader(view.Bytes).LastOffsetDelta) + 1
}

const zstdFetch = 10 // the first version that may be sent zstd (KIP-110)

// holdsZstd says whether there is a batch that is compressed with zstd.
func holdsZstd(views []engine.View) bool {
	for _, view := range views {
		for b := view.Bytes; len(b) >= kafka.BatchHeaderBytes; b = b[kafka.BatchBytes(b):] {
			if header := kafka.ParseBatchHeader(b); header.Codec() == kafka.CodecZstd {
				return true
			}
		}
	}
	return false
}

// unpin unpins count of the views.
func (s *Shard) unpin(from, count int) {
	for _, view := range s.views[from : from+count] {
		s.engine.UnpinQuietly(view.Pin)
	}
}
