package shard

import (
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/metrics"
)

// This file is a Fetch from its bytes to its reply. It stands for
//
//	async fetch(request) {
//		parts := parse(request)               // or what changed of its session
//		for {
//			for each part {                   // tryFetch
//				views := read()               // collect: from log memory
//				if it is on disk { await read() }
//			}
//			if there is enough, or a fault, or the deadline is over { break }
//			await data, or the deadline       // park
//		}
//		await its turn and the memory it takes // blockOnMemory
//		send(reply around the views)          // replyFetch
//		await sent(); unpin the views
//	}
//
// Each await is a return to the turn, and behind each the parts are read anew
// from the beginning. Of a session, tryFetch first makes the parts, of those of
// its partitions that may have changed, and gives them back while the Fetch waits
// for data: see sessions.
//
// The first partition that has anything gets its first batch whole, however
// large; after it, max_bytes holds.
//
// A consumer that takes its reply slowly holds what the reply is made of. So
// that no other client suffers:
//
//   - a Fetch with anything to read is answered after what came before it on
//     its connection, as in Kafka, and what is pinned for one connection has
//     a limit, replyMax
//   - all replies together pin half of the log memory; beyond that small
//     replies are copied, of reply memory half, and larger ones wait
//   - while one waits, connections that take less than 64 KiB a second are closed

// fetch starts a Fetch.
func (s *Shard) fetch(in *incoming, header *kafka.Request) outcome {
	body := s.reader.Mark()
	var walk kafka.FetchWalk
	if err := walk.Begin(&s.reader, header.Version); err != nil {
		return s.malformed(in, err)
	}
	id, epoch := walk.SessionID, walk.SessionEpoch
	whole := epoch == 0 || epoch == -1 // it names all it wants: it begins a session, or has none
	parts, err := measureFetch(&walk)
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
			s.endSession(n)
		}
		fetch.wants = epoch == 0
		s.addParts(req, fetch, &walk)
	} else {
		fetch.code = s.continueSession(req, fetch, &walk, id, epoch)
	}
	s.Timelines.Counters.Fetches++
	fetch.deadline = s.now + ioring.Instant(int64(max(walk.MaxWaitMS, 0))*1e6)
	s.tryFetch(req)
	return started
}

// measureFetch walks a request to its end and counts the partitions it names.
func measureFetch(walk *kafka.FetchWalk) (parts int, err error) {
	for walk.Topics() > 0 {
		topic, err := walk.NextTopic()
		if err != nil {
			return 0, err
		}
		for range topic.Partitions {
			if _, err := walk.NextPartition(); err != nil {
				return 0, err
			}
		}
		parts += topic.Partitions
	}
	if _, err := walk.Forgotten(); err != nil {
		return 0, err
	}
	for walk.Topics() > 0 {
		topic, err := walk.NextForgotten()
		if err != nil {
			return 0, err
		}
		for range topic.Partitions {
			if _, err := walk.NextForgottenPartition(); err != nil {
				return 0, err
			}
		}
	}
	return parts, walk.End()
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

// attempt is one attempt to answer a Fetch.
type attempt struct {
	req    *request
	isNext bool  // no other reply of its connection goes before its own; else it reads nothing ahead from disk
	isHead bool  // it is its connection's oldest request: it may begin reads from disk, whose buffers are few
	copied bool  // nothing more may be pinned: the reply is copied
	most   int   // bytes that it may have
	used   int   // views there are
	total  int   // and their bytes
	have   int64 // bytes there are for it, taken or not
	reads  int   // reads from disk that were begun
	wants  bool  // there are more to begin
	faults bool  // a partition has an error, which is told at once
	over   bool  // there is more than a reply takes
}

// tryFetch reads what there is for a Fetch, and answers it if that is enough.
// Nothing is under way for it.
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
		s.fetches.dropParts(fetch) // its session ended
	}
	try := attempt{req: req, faults: fetch.code != kafka.None || fetch.parts.Empty() && fetch.session == none}
	if fetch.session != none && fetch.parts.Empty() {
		if try.over = s.addChangedParts(req, fetch); try.over && fetch.parts.Empty() {
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
	switch {
	case !try.isHead && try.wants || !try.isNext && try.used > 0 && !waits:
		s.unpin(0, try.used)
		if fetch.session != none {
			s.fetches.releaseParts(fetch, &s.sessions, false) // the requests before it may wait long
		}
		s.requests.blockOnMemory(req)
	case waits:
		s.unpin(0, try.used)
		if fetch.session != none {
			again := s.sessions.all[fetch.session].changed // while something was read
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

// collect takes what there is in a part's partition for the reply, or notes why
// nothing.
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
			part.code, try.faults = kafka.OffsetOutOfRange, true // as it is told where something is read
			return
		}
		part.full, try.over = true, try.over || part.max > 0
		return
	}
	count := s.read(try, at, limit)
	for !try.copied && count > 0 && s.engine.PinsLeft() < 0 && try.used+count > 1 {
		count--
		s.unpin(try.used+count, 1)
		part.full, try.over, try.most = true, true, 0 // nothing more
	}
	if count == 0 {
		return
	}
	if try.total > 0 && len(s.views[try.used].Bytes) > limit {
		s.unpin(try.used, count) // whole only where it is the first
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
		try.have += int64(max(part.max-part.bytes, 0)) // it holds its maximum, as Kafka counts
	}
	try.used += count
	try.total += got
}

// read reads up to limit bytes of a part's partition into the views, from log
// memory or from what was read from disk for it, and begins to read that where
// it may. It returns how many views there are.
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
		if try.wants = true; try.isHead && try.reads < readsPerFetch {
			var begun bool
			if begun, part.code = s.beginRead(try.req, part.partition, part.from, uint32(at)); begun {
				try.reads++
			}
		}
	case engine.OutOfRange:
		if part.from <= part.high || part.from > part.partition.logEnd() { // or it was appended and is not durable yet
			part.code, try.faults = kafka.OffsetOutOfRange, true
		}
	default:
		part.code, try.faults = codeOf(st), true
	}
	return 0
}

// viewEnd is one past the last offset of a view's batch.
func viewEnd(view engine.View) int64 {
	return kafka.BaseOffset(view.Bytes) + int64(kafka.ParseBatchHeader(view.Bytes).LastOffsetDelta) + 1
}

const zstdFetch = 10 // zstd may go from this version on (KIP-110)

// holdsZstd looks for a batch that an old client could not read.
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

func (s *Shard) unpin(from, count int) {
	for _, view := range s.views[from : from+count] {
		s.engine.UnpinQuietly(view.Pin)
	}
}
