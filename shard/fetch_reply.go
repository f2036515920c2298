package shard

import (
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/kafka"
)

// replyFetch answers with the first used views. copied says that those of log memory
// are to be copied. If there is no memory for the reply, or the connection has too
// much pinned already, the Fetch is tried again later.
func (s *Shard) replyFetch(req *request, fetch *fetchRequest, used int, copied bool) {
	if fetch.session != none {
		s.fetches.dropUnchanged(fetch, &s.sessions)
	}
	size := s.measureReply(req, fetch, copied)
	if pinned := s.net.Attached(req.conn); pinned > 0 && size.lent > 0 && pinned+size.lent > s.fetches.replyMax {
		s.unpin(0, used) // until a reply of this connection has left
		s.requests.blockOnMemory(req)
		return
	}
	noRoom := size.tooLarge || !s.fetches.pins.haveRoom(size.attached) || !s.net.HasReplyRoom(size.copied, size.attached)
	if noRoom {
		s.net.Expedite()
	}
	if noRoom || !s.net.Begin(req.id, size.copied) {
		s.unpin(0, used)
		if s.net.Alive(req.id) {
			s.requests.blockOnMemory(req)
		} else {
			s.fetches.unpark(req)
			s.endRequest(req)
		}
		return
	}
	if fetch.wants && s.stage == StageServing {
		fetch.sessionID = s.sessions.create(req, fetch, s.now)
	}
	kafka.PutFetchHead(s.net.Bytes(req.id, kafka.FetchHeadBytes(&req.header, size.topics)), &req.header, fetch.code, fetch.sessionID, size.topics)
	at, budget := 0, s.fetches.copyMax
	for p := fetch.parts.First; p != none; p = s.fetches.parts.next(p) {
		s.replyPartition(req, fetch, p, s.views[at:at+int(s.fetches.parts.all[p].views)], &budget, copied)
		at += int(s.fetches.parts.all[p].views)
	}
	kafka.PutFetchEnd(s.net.Bytes(req.id, kafka.FetchEndBytes(req.header.Version)))
	s.sessions.detach(fetch)
	s.fetches.unpark(req)
	s.net.Release(req.id)
	s.sendReply(req)
}

// replySize is what a Fetch's reply needs.
type replySize struct {
	topics   int
	copied   int  // bytes of reply memory
	attached int  // views that are attached
	lent     int  // and their bytes
	tooLarge bool // a view has to be copied and is too large for that
}

// measureReply measures the reply before it is written.
func (s *Shard) measureReply(req *request, fetch *fetchRequest, copied bool) replySize {
	version, budget, at := req.header.Version, s.fetches.copyMax, 0
	size := replySize{copied: kafka.FetchEndBytes(version)}
	for p := fetch.parts.First; p != none; p = s.fetches.parts.next(p) {
		part := &s.fetches.parts.all[p]
		if s.fetches.beginsTopic(fetch, p) {
			size.topics++
			size.copied += kafka.FetchTopicBytes(version, s.topics.nameBytes(part), s.fetches.partsOfTopic(p))
		}
		size.copied += kafka.FetchPartitionBytes(version, int(part.bytes)) + kafka.FetchPartitionEndBytes(version, s.fetches.endsTopic(p))
		for _, view := range s.views[at : at+int(part.views)] {
			if copies(view, budget, copied) {
				size.copied += len(view.Bytes)
				budget -= len(view.Bytes)
			} else {
				size.attached++
				size.lent += len(view.Bytes)
				size.tooLarge = size.tooLarge || copied && view.Hot()
			}
		}
		at += int(part.views)
	}
	size.copied += kafka.FetchHeadBytes(&req.header, size.topics)
	return size
}

// copies says whether a view is copied into the reply: a small one or, with all, any
// of log memory, as long as the budget has room.
func copies(view engine.View, budget int, all bool) bool {
	return len(view.Bytes) <= budget && (len(view.Bytes) < copyBelow || all && view.Hot())
}

// replyPartition writes one partition with its views, and the beginning and end of
// its topic.
func (s *Shard) replyPartition(req *request, fetch *fetchRequest, at int32, views []engine.View, budget *int, copied bool) {
	part, version := &s.fetches.parts.all[at], req.header.Version
	if s.fetches.beginsTopic(fetch, at) {
		s.replyTopic(req, at)
	}
	if fetch.session != none {
		s.sessions.markSent(part)
	}
	high, start := part.high, part.start
	if part.code != kafka.None {
		high, start = -1, -1
	}
	kafka.PutFetchPartition(s.net.Bytes(req.id, kafka.FetchPartitionBytes(version, int(part.bytes))), version, part.index, part.code, high, start, int(part.bytes))
	for _, view := range views {
		if copies(view, *budget, copied) {
			*budget -= len(view.Bytes)
			s.copyToReply(req, view.Bytes)
			s.engine.Unpin(view.Pin)
			s.Timelines.Counters.CopiedViews++
			continue
		}
		s.net.Attach(req.id, view.Bytes)
		s.fetches.pins.keep(&fetch.pins, view.Pin)
	}
	if part.hasRead && part.views > 0 && part.code == kafka.None && s.stage == StageServing {
		s.readahead.answered(part)
	}
	s.Timelines.Counters.BytesOut += uint64(part.bytes)
	kafka.PutFetchPartitionEnd(s.net.Bytes(req.id, kafka.FetchPartitionEndBytes(version, s.fetches.endsTopic(at))))
}

// beginsTopic, endsTopic and partsOfTopic group a request's parts by topic: a group
// is neighbouring parts of one topic, or one part whose topic is not known.
func (t *fetches) beginsTopic(fetch *fetchRequest, at int32) bool {
	part := &t.parts.all[at]
	return at == fetch.parts.First || part.topic == none || t.parts.all[part.ofRequest.Prev].topic != part.topic
}

func (t *fetches) endsTopic(at int32) bool {
	part := &t.parts.all[at]
	return part.ofRequest.Next == none || part.topic == none || t.parts.all[part.ofRequest.Next].topic != part.topic
}

func (t *fetches) partsOfTopic(at int32) int {
	n := 1
	for ; !t.endsTopic(at); at = t.parts.next(at) {
		n++
	}
	return n
}

// nameBytes is the length of the topic's name in the reply.
func (t *topicTable) nameBytes(part *fetchPart) int {
	if part.topic != none {
		return len(t.all[part.topic].name)
	}
	return part.name.Len
}

// replyTopic writes the beginning of a topic. One that is not known is named with the
// request's bytes, which it still has: a Fetch of such a topic is never parked.
func (s *Shard) replyTopic(req *request, at int32) {
	part, version := &s.fetches.parts.all[at], req.header.Version
	n := s.fetches.partsOfTopic(at)
	dst := s.net.Bytes(req.id, kafka.FetchTopicBytes(version, s.topics.nameBytes(part), n))
	if part.topic != none {
		topic := &s.topics.all[part.topic]
		name := topic.nameBytes
		if version >= kafka.FetchByID {
			name = topic.id[:]
		}
		kafka.PutFetchTopic(dst, version, name, n)
		return
	}
	s.pieces = s.net.Slices(req.id, s.pieces[:0])
	s.reader.Reset(s.pieces)
	name := s.fetches.name[:part.name.Len]
	s.reader.CopyTo(part.name, name)
	kafka.PutFetchTopic(dst, version, name, n)
}
