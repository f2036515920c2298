package shard

import (
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/mem"
	"github.com/tailbound/tailbound/metrics"
)

// Fetch runs
//
//	decode it into parts; start its deadline;
//	look: read every partition from memory;
//	where one is cold: read its run; await read(); look again;
//	where there is too little: await data or the deadline; look again;
//	build the answer around the views; send; unpin when it has left.
//
// Of a session, look first makes the parts, of those of its partitions that have
// news, and gives them back while the fetch waits for data: see sessions.
//
// The first partition that has anything gets its first batch whole, however
// large; after it, max_bytes holds.
//
// A consumer that takes its answer slowly holds what the answer is made of. So
// that nobody else suffers:
//
//   - a fetch with anything to read is answered after what came before it on
//     its connection, as in Kafka, and what is pinned for one connection has
//     a limit, replyMax
//   - all answers together pin half of the log memory; beyond that small
//     answers are copied, of reply memory half, and larger ones wait
//   - while one waits, connections that take less than 64 KiB a second are closed
func (s *Shard) fetch(w *waiter, h *kafka.Request) outcome {
	body := s.reader.Mark()
	var walk kafka.FetchWalk
	if err := walk.Begin(&s.reader, h.Version); err != nil {
		return s.malformed(w, h, err)
	}
	id, epoch := walk.SessionID, walk.SessionEpoch
	whole := epoch == 0 || epoch == -1 // it names all it wants: it begins a session, or has none
	parts, err := measureFetch(&walk)
	if err != nil {
		return s.malformed(w, h, err)
	}
	if !whole {
		parts = 0
	}
	if parts > s.fetchPartsMax() {
		return s.malformed(w, h, kafka.ErrTooMany)
	}
	if parts > s.fetchPartsFree() {
		w.parts, s.crowded = int32(parts), true
		return tooEarly
	}
	i, r := s.newRequest(w)
	r.kind, r.header = kindFetch, *h
	r.header.ClientID = nil
	s.reader.Back(body)
	walk.Begin(&s.reader, h.Version)
	r.bytesMax = max(walk.MaxBytes, 0)
	r.bytes = min(max(walk.MinBytes, 0), r.bytesMax)
	if !whole {
		r.code = s.continueSession(i, &walk, id, epoch)
	} else {
		if n := s.sessions.find(id); n != none {
			s.endSession(n)
		}
		r.wants = epoch == 0
		for walk.Topics() > 0 {
			t, _ := walk.NextTopic()
			number := s.findTopic(h, t.Name)
			for range t.Partitions {
				p, _ := walk.NextPartition()
				x := s.addPart(i)
				x.topic, x.index, x.from, x.max, x.epoch = number, p.Index, p.Offset, max(p.MaxBytes, 0), p.CurrentEpoch
				x.name = t.Span
				s.locate(x, p.CurrentEpoch, h.Version >= kafka.FetchByID)
			}
		}
	}
	s.Timelines.Counters.Fetches++
	wait := max(walk.MaxWaitMS, 0)
	r.waitUntil = s.now + ioring.Instant(int64(wait)*1e6)
	s.look(i)
	return taken
}

// measureFetch walks a request to its end and counts the partitions it names.
func measureFetch(walk *kafka.FetchWalk) (parts int, err error) {
	for walk.Topics() > 0 {
		t, err := walk.NextTopic()
		if err != nil {
			return 0, err
		}
		for range t.Partitions {
			if _, err := walk.NextPartition(); err != nil {
				return 0, err
			}
		}
		parts += t.Partitions
	}
	if _, err := walk.Forgotten(); err != nil {
		return 0, err
	}
	for walk.Topics() > 0 {
		t, err := walk.NextForgotten()
		if err != nil {
			return 0, err
		}
		for range t.Partitions {
			if _, err := walk.NextForgottenPartition(); err != nil {
				return 0, err
			}
		}
	}
	return parts, walk.End()
}

// A quarter of the parts is for who does not wait for data: fetches that do
// keep no producer from its own.
func (s *Shard) fetchPartsMax() int { return len(s.parts) - len(s.parts)/4 }

func (s *Shard) fetchPartsFree() int { return s.partsFree - len(s.parts)/4 }

// findTopic is the entry of a topic as a fetch of this version names it.
func (s *Shard) findTopic(h *kafka.Request, name []byte) int32 {
	if h.Version >= kafka.FetchByID {
		return s.topics.findID(name)
	}
	return s.topics.find(name)
}

// locate finds the partition of a part that reads, and says what speaks against
// reading it under the leader epoch that the client believes in.
func (s *Shard) locate(x *part, epoch int32, byID bool) {
	if x.partition, x.code = s.topics.locate(x.topic, x.index, byID); x.code == kafka.None {
		x.code = x.partition.checkEpoch(epoch)
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
		s.unpark(i)
		s.endRequest(i)
		return
	}
	if r.kind == kindOffsets {
		s.search(i)
		return
	}
	if r.parked && r.idleTo == 0 {
		r.idleTo = s.now
	}
	if r.code != kafka.None {
		s.freeParts(r) // its session ended
	}
	k := looking{request: i, faults: r.code != kafka.None || r.parts.Empty() && r.session == none}
	if r.session != none && r.parts.Empty() {
		if k.over = s.gather(i); k.over && r.parts.Empty() {
			s.crowded = true
			s.starve(i)
			return
		}
	}
	k.early, k.first = !s.net.IsNext(r.frame), s.net.IsHead(r.frame)
	k.most, k.copied = min(int(r.bytesMax), s.replyMax), s.engine.PinsLeft() <= 0
	if k.copied {
		k.most = min(k.most, s.copyMax)
	}
	for p := r.parts.First; p != none; p = s.partsOf.Next(p) {
		s.Timelines.Counters.PartitionsLookedAt++
		s.take(&k, p)
	}
	if k.cold > 0 {
		s.unpin(0, k.used)
		if r.stamps[metrics.Appended] == 0 {
			r.stamps[metrics.Appended] = int64(s.now)
		}
		r.stamps[metrics.Submitted] = int64(s.now)
		return
	}
	waits := !k.faults && !k.over && k.have < int64(r.bytes) && s.now < r.waitUntil && s.stage == StageServing
	if !k.first && k.wants || k.early && k.used > 0 && !waits {
		s.unpin(0, k.used)
		if r.session != none {
			s.scatter(i, false) // who comes first may wait long
		}
		s.starve(i)
		return
	}
	if waits {
		s.unpin(0, k.used)
		if r.session != none {
			again := r.behind // while something was read
			s.scatter(i, !again)
			if again {
				s.look(i)
				return
			}
		}
		r.have = k.have
		s.park(i)
		return
	}
	if r.stamps[metrics.Appended] == 0 {
		r.stamps[metrics.Appended] = int64(s.now)
	}
	s.buildFetch(i, k.used, k.copied)
}

// looking is one look of a fetch at its partitions.
type looking struct {
	request uint32
	// Reads from disk have few buffers: they are for who has taken what it had.
	early, first bool  // another answer of its connection goes before its; it is the oldest of them
	copied       bool  // nothing more may be pinned: the answer is copied
	most         int   // bytes that it may have
	used, total  int   // views there are, and their bytes
	have         int64 // bytes there are for it, taken or not
	cold         int   // reads from disk that were begun
	wants        bool  // there are more to begin
	faults       bool  // a partition has an error, which is told at once
	over         bool  // there is more than an answer takes
}

// take takes what there is in partition p for the answer, or notes why nothing.
func (s *Shard) take(k *looking, p int32) {
	x := &s.parts[p]
	x.views, x.tally = 0, tally{}
	if x.code != kafka.None {
		k.faults = true
		return
	}
	x.known, x.high = s.engine.Start(x.partition.slot), x.partition.highWatermark()
	x.tally = tally{counted: x.from}
	limit := min(int(x.max), k.most-k.total)
	if k.total > 0 && limit <= 0 || k.used == len(s.views) {
		if x.from < x.known || x.from > s.engine.End(x.partition.slot) {
			x.code, k.faults = kafka.OffsetOutOfRange, true // as it is told where something is read
			return
		}
		x.full, k.over = true, k.over || x.max > 0
		return
	}
	n := s.readFor(k, p, limit)
	for !k.copied && n > 0 && s.engine.PinsLeft() < 0 && k.used+n > 1 {
		n--
		s.unpin(k.used+n, 1)
		x.full, k.over, k.most = true, true, 0 // nothing more
	}
	if n == 0 {
		return
	}
	if k.total > 0 && len(s.views[k.used].Bytes) > limit {
		s.unpin(k.used, n) // whole only where it is the first
		x.full, k.over = true, true
		return
	}
	views := s.views[k.used : k.used+n]
	if s.requests[k.request].header.Version < zstdFetch && holdsZstd(views) {
		s.unpin(k.used, n)
		x.code, k.faults = kafka.UnsupportedCompressionType, true
		return
	}
	got := 0
	for _, v := range views {
		got += len(v.Bytes)
	}
	x.views, x.bytes, x.counted = int32(n), int32(got), viewEnd(views[n-1])
	k.have += int64(got)
	if x.counted < x.high {
		x.full, k.over = true, k.over || limit < int(x.max)
		k.have += int64(max(x.max-x.bytes, 0)) // it holds its maximum, as Kafka counts
	}
	k.used += n
	k.total += got
}

// readFor reads up to limit bytes of partition p into the views, from memory or
// from what was read from disk for it, and begins to read that where it may. It
// returns how many views there are.
func (s *Shard) readFor(k *looking, p int32, limit int) (n int) {
	x := &s.parts[p]
	views, st := s.views[k.used:], engine.OK
	if !x.haveRead {
		n, st = s.engine.Read(x.partition.slot, x.from, x.high, limit, views)
	}
	if st == engine.Cold && !k.early && k.cold < coldPerFetch {
		have, comes := s.takeAhead(k.request, p)
		if comes {
			k.cold++
			return 0
		}
		if have {
			st = engine.OK
		}
	}
	if x.haveRead {
		n = s.engine.ReadViews(x.read, x.from, x.high, limit, views)
	}
	switch st {
	case engine.OK, engine.Empty:
		return n
	case engine.Cold:
		if k.wants = true; k.first && k.cold < coldPerFetch && s.readCold(k.request, p) {
			k.cold++
		}
	case engine.OutOfRange:
		if x.from <= x.high || x.from > s.engine.End(x.partition.slot) { // or it was appended and is not durable yet
			x.code, k.faults = kafka.OffsetOutOfRange, true
		}
	default:
		x.code, k.faults = codeOf(st), true
	}
	return 0
}

// viewEnd is one past the last offset of a view's batch.
func viewEnd(v engine.View) int64 {
	return kafka.BaseOffset(v.Bytes) + int64(kafka.ParseBatchHeader(v.Bytes).LastOffsetDelta) + 1
}

// tally is how much of a partition a fetch has counted, while it waits.
type tally struct {
	counted int64 // up to this offset
	bytes   int32
	full    bool // there is more than the answer takes of it: no more is counted
}

// count counts what has become durable of a partition for fetch i, which waits, and
// has the fetch looked at when that is enough: an append costs it the same
// however many partitions it waits for.
func (s *Shard) count(i uint32, on *partition, x *tally, most int32) {
	r := &s.requests[i]
	high := on.highWatermark()
	if r.dirty || x.full || x.counted >= high {
		return
	}
	s.Timelines.Counters.PartitionsLookedAt++
	n, st := s.engine.Read(on.slot, x.counted, high, int(most-x.bytes), s.views)
	if st != engine.OK {
		s.lookAt(i)
		return
	}
	for _, v := range s.views[:n] {
		if x.bytes > 0 && int(x.bytes)+len(v.Bytes) > int(most) {
			x.full = true
			r.have += int64(max(most-x.bytes, 0))
			break
		}
		x.bytes += int32(len(v.Bytes))
		x.counted = viewEnd(v)
		r.have += int64(len(v.Bytes))
	}
	s.unpin(0, n)
	if r.have >= int64(r.bytes) {
		s.lookAt(i)
	}
}

// starve has a fetch or a search looked at again when memory is given back, or
// when it is its turn on its connection.
func (s *Shard) starve(i uint32) {
	if r := &s.requests[i]; !r.starved {
		r.starved = true
		r.waited |= metrics.WaitedReader
		s.starved = append(s.starved, i)
	}
}

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
		s.engine.Unread(v.Pin)
	}
}

// park has a fetch wait for data or its deadline. Its request's bytes are let
// go: every topic it names is known, else it would have been answered.
func (s *Shard) park(i uint32) {
	r := &s.requests[i]
	r.idleTo = 0
	if r.parked {
		return
	}
	r.parked, r.parkedAt, r.idleFrom = true, s.now, s.now
	s.polls.push(i)
	s.Timelines.Counters.FetchWaits++
	s.net.Release(r.frame)
	for p := r.parts.First; p != none; p = s.partsOf.Next(p) {
		s.awaitData(p)
	}
	s.timers.set(i, r.waitUntil)
}

// unpark takes a fetch off those that wait.
func (s *Shard) unpark(i uint32) {
	if r := &s.requests[i]; r.parked {
		r.parked = false
		s.polls.remove(i)
	}
}

// polls are the fetches that wait for data, those that have waited longest first.
type polls struct {
	all   mem.List
	links mem.Thread // through requests
	n     int
}

func (q *polls) push(i uint32) {
	q.links.PushBack(&q.all, int32(i))
	q.n++
}

func (q *polls) remove(i uint32) {
	q.links.Remove(&q.all, int32(i))
	q.n--
}

// pollLeastNS is how long a fetch may wait for data while others find no parts
// to wait with. Shorter would be kinder to them, and have a crowd of clients
// keep the shard busy with answers that say nothing.
const pollLeastNS = 10e6

// makeRoom answers who has waited for data longest, where a fetch finds no
// parts, or any request no frame.
func (s *Shard) makeRoom() {
	if s.roomDue() > s.now {
		return
	}
	i := uint32(s.polls.all.First)
	s.crowded = false // whoever still finds none says so again
	// One that has reads under way is not over at once: the others are asked
	// before it is asked again.
	s.polls.remove(i)
	s.requests[i].parkedAt = s.now
	s.polls.push(i)
	s.timers.clear(i)
	s.expire(i)
}

// roomDue says when makeRoom has something to do.
func (s *Shard) roomDue() ioring.Instant {
	if s.polls.n == 0 || !s.crowded && !s.net.RequestsWanted() {
		return ioring.Never
	}
	return s.requests[s.polls.all.First].parkedAt + pollLeastNS
}

// answerFetches answers every long poll with what there is: the shard stops.
func (s *Shard) answerFetches() {
	for i := range s.requests {
		if r := &s.requests[i]; r.used && r.parked {
			s.lookAt(uint32(i))
		}
	}
}

// copies says whether a view is copied into the answer: a small one, or any of
// log memory where others have pinned as much of it as may be.
func (s *Shard) copies(v engine.View, budget int, all bool) bool {
	return len(v.Bytes) <= budget && (len(v.Bytes) < copyBelow || all && v.Hot())
}

// buildFetch writes the answer around the first used views. all: those of log
// memory are to be copied.
func (s *Shard) buildFetch(i uint32, used int, all bool) {
	r := &s.requests[i]
	if r.session != none {
		s.hush(r)
	}
	v := r.header.Version
	topics, attached, copied, at := 0, 0, kafka.FetchEndBytes(v), 0
	budget, lent, wait := s.copyMax, 0, false
	for p := r.parts.First; p != none; p = s.partsOf.Next(p) {
		x := &s.parts[p]
		if s.beginsTopic(r, p) {
			topics++
			copied += kafka.FetchTopicBytes(v, s.nameBytes(x), s.partsOfTopic(p))
		}
		copied += kafka.FetchPartitionBytes(v, int(x.bytes)) + kafka.FetchPartitionEndBytes(v, s.endsTopic(p))
		for _, w := range s.views[at : at+int(x.views)] {
			if s.copies(w, budget, all) {
				copied += len(w.Bytes)
				budget -= len(w.Bytes)
			} else {
				attached++
				lent += len(w.Bytes)
				wait = wait || all && w.Hot()
			}
		}
		at += int(x.views)
	}
	copied += kafka.FetchHeadBytes(&r.header, topics)
	mine := s.net.Attached(r.conn)
	switch {
	case mine > 0 && lent > 0 && mine+lent > s.replyMax:
		s.unpin(0, used) // until what is pinned for this connection has left
		s.starve(i)
		return
	case wait, s.pinsFree < (attached+pinsPerChunk-1)/pinsPerChunk, !s.net.HasReplyRoom(copied, attached):
		s.net.Expedite()
		wait = true
	}
	if wait || !s.net.Begin(r.frame, copied) {
		s.unpin(0, used)
		if s.net.Alive(r.frame) {
			s.starve(i)
		} else {
			s.unpark(i)
			s.endRequest(i)
		}
		return
	}
	if r.wants && s.stage == StageServing {
		r.sessionID = s.remember(r)
	}
	kafka.PutFetchHead(s.net.Bytes(r.frame, kafka.FetchHeadBytes(&r.header, topics)), &r.header, r.code, r.sessionID, topics)
	at, budget = 0, s.copyMax
	for p := r.parts.First; p != none; p = s.partsOf.Next(p) {
		x := &s.parts[p]
		if s.beginsTopic(r, p) {
			s.putTopic(r, p)
		}
		if r.session != none {
			s.told(x)
		}
		high, start := x.high, x.known
		if x.code != kafka.None {
			high, start = -1, -1
		}
		kafka.PutFetchPartition(s.net.Bytes(r.frame, kafka.FetchPartitionBytes(v, int(x.bytes))), v, x.index, x.code, high, start, int(x.bytes))
		for _, w := range s.views[at : at+int(x.views)] {
			if s.copies(w, budget, all) {
				budget -= len(w.Bytes)
				s.copyOut(r, w.Bytes)
				s.engine.Unpin(w.Pin)
				s.Timelines.Counters.CopiedViews++
				continue
			}
			s.net.Attach(r.frame, w.Bytes)
			s.keepPin(r, w.Pin)
		}
		at += int(x.views)
		if x.haveRead && x.views > 0 && x.code == kafka.None {
			s.readAhead(x)
		}
		s.Timelines.Counters.BytesOut += uint64(x.bytes)
		kafka.PutFetchPartitionEnd(s.net.Bytes(r.frame, kafka.FetchPartitionEndBytes(v, s.endsTopic(p))))
	}
	kafka.PutFetchEnd(s.net.Bytes(r.frame, kafka.FetchEndBytes(v)))
	s.leave(r)
	s.unpark(i)
	s.net.Release(r.frame)
	s.reply(i)
}

// copyOut copies bytes into an answer, in pieces that a block holds.
func (s *Shard) copyOut(r *request, b []byte) {
	for len(b) > 0 {
		n := min(len(b), copyBelow)
		copy(s.net.Bytes(r.frame, n), b[:n])
		b = b[n:]
	}
}

// beginsTopic, endsTopic and partsOfTopic see a request's parts as topics: runs
// of parts of one topic. Topics that are not known stand alone.
func (s *Shard) beginsTopic(r *request, p int32) bool {
	x := &s.parts[p]
	return p == r.parts.First || x.topic == none || s.parts[x.links.Prev].topic != x.topic
}

func (s *Shard) endsTopic(p int32) bool {
	x := &s.parts[p]
	return x.links.Next == none || x.topic == none || s.parts[x.links.Next].topic != x.topic
}

func (s *Shard) partsOfTopic(p int32) int {
	n := 1
	for ; !s.endsTopic(p); p = s.partsOf.Next(p) {
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
	s.pieces = s.net.Slices(r.frame, s.pieces[:0])
	s.reader.Reset(s.pieces)
	name := s.name[:x.name.Len]
	s.reader.CopyTo(x.name, name)
	kafka.PutFetchTopic(dst, r.header.Version, name, n)
}
