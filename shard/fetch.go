package shard

import (
	"tailbound/engine"
	"tailbound/ioring"
	"tailbound/kafka"
	"tailbound/metrics"
)

// Fetch runs
//
//	decode it into parts; start its deadline;
//	look: read every partition from memory;
//	where one is cold: read its run; await read(); look again;
//	where there is too little: await data or the deadline; look again;
//	build the answer around the views; send; unpin when it has left.
//
// The first partition that has anything gets its first batch whole, however
// large; after it, max_bytes holds.
func (s *Shard) fetch(w *waiter, h *kafka.Request) outcome {
	var walk kafka.FetchWalk
	if err := walk.Begin(&s.reader, h.Version); err != nil {
		return s.malformed(w, h, err)
	}
	i, r := s.newRequest(w)
	r.kind, r.header = kindFetch, *h
	r.header.ClientID = nil
	r.bytes, r.bytesMax = max(walk.MinBytes, 0), max(walk.MaxBytes, 0)
	if walk.SessionEpoch > 0 {
		// A session is to go on, and none was ever begun. Epoch 0 asks for one
		// and gets none, -1 wants none, whatever the id (KIP-227).
		r.code = kafka.FetchSessionIDNotFound
	} else {
		for walk.Topics() > 0 {
			t, err := walk.NextTopic()
			if err != nil {
				s.endRequest(i)
				return s.malformed(w, h, err)
			}
			number := none
			if h.Version >= kafka.FetchByID {
				number = s.topics.findID(t.Name)
			} else {
				number = s.topics.find(t.Name)
			}
			for range t.Partitions {
				p, err := walk.NextPartition()
				if err != nil {
					s.endRequest(i)
					return s.malformed(w, h, err)
				}
				if s.partsFree == 0 {
					s.endRequest(i)
					return tooEarly
				}
				x := s.addPart(i)
				x.topic, x.index, x.from, x.max = number, p.Index, p.Offset, max(p.MaxBytes, 0)
				x.name = t.Span
				if x.code = s.fetchable(x, p.CurrentEpoch); x.code == kafka.UnknownTopicOrPartition {
					x.code = s.topics.unknown(number, h.Version >= kafka.FetchByID)
				}
			}
		}
	}
	s.Timelines.Counters.Fetches++
	wait := max(walk.MaxWaitMS, 0)
	r.waitUntil = s.now + ioring.Instant(int64(wait)*1e6)
	s.look(i)
	return taken
}

// fetchable finds a part's log and says what speaks against reading it.
func (s *Shard) fetchable(x *part, epoch int32) kafka.ErrorCode {
	slot, exists, here := s.topics.slot(x.topic, x.index)
	switch {
	case !exists:
		return kafka.UnknownTopicOrPartition
	case !here:
		return kafka.NotLeaderOrFollower
	}
	x.slot = slot
	return s.epochFault(epoch)
}

// epochFault judges the leader epoch a client believes in; -1 is none.
func (s *Shard) epochFault(epoch int32) kafka.ErrorCode {
	switch mine := s.boot.LeaderEpoch(); {
	case epoch == -1 || epoch == mine:
		return kafka.None
	case epoch < mine:
		return kafka.FencedLeaderEpoch
	default:
		return kafka.UnknownLeaderEpoch
	}
}

// lookAt has a fetch looked at in this turn.
func (s *Shard) lookAt(i uint32) {
	if r := &s.requests[i]; !r.dirty {
		r.dirty = true
		s.dirty = append(s.dirty, i)
	}
}

func (s *Shard) lookAgain() {
	for k := 0; k < len(s.dirty); k++ {
		i := s.dirty[k]
		if r := &s.requests[i]; r.dirty {
			r.dirty = false
			s.look(i)
		}
	}
	s.dirty = s.dirty[:0]
}

// look reads what there is for a fetch, and answers it if that is enough.
func (s *Shard) look(i uint32) {
	r := &s.requests[i]
	if !r.used || r.replied || r.pending > 0 {
		return // another request has the slot, or reads are under way
	}
	if r.kind != kindFetch && r.kind != kindOffsets {
		return
	}
	if !s.net.Alive(r.frame) {
		s.unpark(r)
		s.endRequest(i)
		return
	}
	if r.kind == kindOffsets {
		s.search(i)
		return
	}
	used, total, cold, faults := 0, 0, 0, r.code != kafka.None
	for p := r.first; p != none; p = s.parts[p].next {
		x := &s.parts[p]
		x.views, x.bytes = 0, 0
		if x.code != kafka.None {
			faults = true
			continue
		}
		x.known, x.high = s.log.Start(x.slot), s.log.Durable(x.slot)
		limit := min(int(x.max), int(r.bytesMax)-total)
		if total > 0 && limit <= 0 || used == len(s.views) {
			continue
		}
		n, st := 0, engine.OK
		if x.haveRead {
			n = s.log.ReadViews(x.read, x.from, x.high, limit, s.views[used:])
		} else {
			n, st = s.log.Read(x.slot, x.from, x.high, limit, s.views[used:])
		}
		switch st {
		case engine.OK, engine.Empty:
		case engine.Cold:
			if cold < coldPerFetch && s.readCold(i, p) {
				cold++
			}
			continue
		case engine.OutOfRange:
			x.code, faults = kafka.OffsetOutOfRange, true
			if x.from > x.high && x.from <= s.log.End(x.slot) {
				x.code, faults = kafka.None, false // appended, not durable yet
			}
			continue
		case engine.Rot, engine.Corrupt:
			x.code, faults = codeOf(st), true
			continue
		default:
			x.code, faults = codeOf(st), true
			continue
		}
		got := 0
		for _, v := range s.views[used : used+n] {
			got += len(v.Bytes)
		}
		if total > 0 && n > 0 && len(s.views[used].Bytes) > limit {
			s.unpin(used, n) // whole only where it is the first
			continue
		}
		if r.header.Version < zstdFetch && holdsZstd(s.views[used:used+n]) {
			s.unpin(used, n)
			x.code, faults = kafka.UnsupportedCompressionType, true
			continue
		}
		x.views, x.bytes = int32(n), int32(got)
		used += n
		total += got
	}
	if cold > 0 {
		s.unpin(0, used)
		r.stamps[metrics.Submitted] = int64(s.now)
		return
	}
	if !faults && total < int(r.bytes) && s.now < r.waitUntil && s.stage == stageServing {
		s.unpin(0, used)
		s.park(i)
		return
	}
	if r.stamps[metrics.Appended] == 0 {
		r.stamps[metrics.Appended] = int64(s.now)
	}
	s.buildFetch(i, used)
}

// coldPerFetch bounds the cold reads one fetch has under way.
const coldPerFetch = 4

// holdsZstd looks for a batch that an old client could not read.
func holdsZstd(views []engine.View) bool {
	for _, v := range views {
		for b := v.Bytes; len(b) >= kafka.BatchHeaderBytes; b = b[kafka.BatchBytes(b):] {
			if h := kafka.ParseBatchHeader(b); h.Codec() == kafka.CodecZstd {
				return true
			}
		}
	}
	return false
}

func (s *Shard) unpin(from, n int) {
	for _, v := range s.views[from : from+n] {
		s.log.Unpin(v.Pin)
	}
}

// park has a fetch wait for data or its deadline. Its request's bytes are let
// go: every topic it names is known, else it would have been answered.
func (s *Shard) park(i uint32) {
	r := &s.requests[i]
	if r.parked {
		return
	}
	r.parked = true
	s.parked++
	s.Timelines.Counters.FetchWaits++
	s.net.Release(r.frame)
	for p := r.first; p != none; p = s.parts[p].next {
		s.awaitData(p)
	}
	s.timers.set(i, r.waitUntil)
}

func (s *Shard) unpark(r *request) {
	if r.parked {
		r.parked = false
		s.parked--
	}
}

// answerFetches answers every long poll with what there is: the shard stops.
func (s *Shard) answerFetches() {
	for i := range s.requests {
		if r := &s.requests[i]; r.used && r.parked {
			s.lookAt(uint32(i))
		}
	}
}

// readCold starts reading the run that part p needs. False: no read buffer is
// free; the part is answered empty, or tried again when one is.
func (s *Shard) readCold(i uint32, p int32) bool {
	x := &s.parts[p]
	switch st := s.log.ReadCold(x.slot, x.from, uint32(p)); st {
	case engine.OK:
		x.reading = true
		s.requests[i].pending++
		s.Timelines.Counters.ColdReads++
		return true
	case engine.WaitMemory:
		s.starved = append(s.starved, i)
		return false
	default:
		x.code = codeOf(st)
		return false
	}
}

// readDone: a cold read came back, whole and verified, or not.
func (s *Shard) readDone(user uint32, st engine.Status, read uint32) {
	if user == loadUser {
		s.control.loadRead(st, read)
		return
	}
	x := &s.parts[user]
	r := &s.requests[x.request]
	x.reading = false
	r.pending--
	if st == engine.OK {
		x.read, x.haveRead = read, true
	} else {
		x.code = codeOf(st)
	}
	if r.kind == kindFetch {
		r.stamps[metrics.Durable] = int64(s.now)
	}
	s.lookAt(x.request)
}

// buildFetch writes the answer around the first used views.
func (s *Shard) buildFetch(i uint32, used int) {
	r := &s.requests[i]
	v := r.header.Version
	topics, attached, copied, at := 0, 0, kafka.FetchEndBytes(v), 0
	for p := r.first; p != none; p = s.parts[p].next {
		x := &s.parts[p]
		if s.beginsTopic(r, p) {
			topics++
			copied += kafka.FetchTopicBytes(v, s.nameBytes(x), s.partsOfTopic(p))
		}
		copied += kafka.FetchPartitionBytes(v, int(x.bytes)) + kafka.FetchPartitionEndBytes(v, s.endsTopic(p))
		for _, w := range s.views[at : at+int(x.views)] {
			if len(w.Bytes) < copyBelow {
				copied += len(w.Bytes)
			} else {
				attached++
			}
		}
		at += int(x.views)
	}
	copied += kafka.FetchHeadBytes(&r.header, topics)
	if s.pinsFree < (attached+pinsPerChunk-1)/pinsPerChunk || !s.net.Begin(r.frame, copied) {
		s.unpin(0, used)
		if s.net.Alive(r.frame) {
			s.starved = append(s.starved, i)
		} else {
			s.unpark(r)
			s.endRequest(i)
		}
		return
	}
	kafka.PutFetchHead(s.net.Bytes(r.frame, kafka.FetchHeadBytes(&r.header, topics)), &r.header, r.code, topics)
	at = 0
	for p := r.first; p != none; p = s.parts[p].next {
		x := &s.parts[p]
		if s.beginsTopic(r, p) {
			s.putTopic(r, p)
		}
		high, start := x.high, x.known
		if x.code != kafka.None {
			high, start = -1, -1
		}
		kafka.PutFetchPartition(s.net.Bytes(r.frame, kafka.FetchPartitionBytes(v, int(x.bytes))), v, x.index, x.code, high, start, int(x.bytes))
		for _, w := range s.views[at : at+int(x.views)] {
			if len(w.Bytes) < copyBelow {
				copy(s.net.Bytes(r.frame, len(w.Bytes)), w.Bytes)
				s.log.Unpin(w.Pin)
				s.Timelines.Counters.CopiedViews++
				continue
			}
			s.net.Attach(r.frame, w.Bytes)
			s.keepPin(r, w.Pin)
		}
		at += int(x.views)
		s.Timelines.Counters.BytesOut += uint64(x.bytes)
		kafka.PutFetchPartitionEnd(s.net.Bytes(r.frame, kafka.FetchPartitionEndBytes(v, s.endsTopic(p))))
	}
	kafka.PutFetchEnd(s.net.Bytes(r.frame, kafka.FetchEndBytes(v)))
	s.unpark(r)
	s.net.Release(r.frame)
	s.reply(i)
}

// beginsTopic, endsTopic and partsOfTopic see a request's parts as topics: runs
// of parts of one topic. Topics that are not known stand alone.
func (s *Shard) beginsTopic(r *request, p int32) bool {
	x := &s.parts[p]
	return p == r.first || x.topic == none || s.parts[x.prev].topic != x.topic
}

func (s *Shard) endsTopic(p int32) bool {
	x := &s.parts[p]
	return x.next == none || x.topic == none || s.parts[x.next].topic != x.topic
}

func (s *Shard) partsOfTopic(p int32) int {
	n := 1
	for ; !s.endsTopic(p); p = s.parts[p].next {
		n++
	}
	return n
}

// nameBytes is how long the name of a part's topic is, as the answer has it.
func (s *Shard) nameBytes(x *part) int {
	if x.topic != none {
		return len(s.topics.all[x.topic].name)
	}
	return x.name.Len
}

// putTopic begins a topic in a fetch's answer. A topic nobody knows is named
// with the request's own bytes, which are still there: it was never parked.
func (s *Shard) putTopic(r *request, p int32) {
	x := &s.parts[p]
	n := s.partsOfTopic(p)
	dst := s.net.Bytes(r.frame, kafka.FetchTopicBytes(r.header.Version, s.nameBytes(x), n))
	if x.topic != none {
		t := &s.topics.all[x.topic]
		name := t.nameBytes
		if r.header.Version >= kafka.FetchByID {
			name = t.id[:]
		}
		kafka.PutFetchTopic(dst, r.header.Version, name, n)
		return
	}
	s.pieces = s.net.Pieces(r.frame, s.pieces[:0])
	s.reader.Reset(s.pieces)
	name := s.name[:x.name.Len]
	s.reader.CopyTo(x.name, name)
	kafka.PutFetchTopic(dst, r.header.Version, name, n)
}
