package shard

import (
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/mem"
	"github.com/tailbound/tailbound/metrics"
	"github.com/tailbound/tailbound/netring"
)

// request is one Kafka request in flight on this shard, from its last byte in
// to its reply's last byte out: what requests of every kind have. What a Produce,
// a Fetch or a ListOffsets has beside it lies in the same slot of its kind's table.
// It belongs to the shard. Parts, timers and the mail name it by its slot; the
// mail adds the serial, since a slot is used again.
type request struct {
	slot      uint32 // its place in the table
	nextFree  uint32
	serial    uint32 // use of this slot
	pending   int32  // what has to end before it goes on: appends to become durable, reads, batches to be decompressed
	kind      requestKind
	used      bool
	replied   bool // the reply is on its way: only Sent is awaited
	scheduled bool // in the list of requests that are tried in this turn
	blocked   bool // in the list of those that wait for memory
	waited    metrics.Waits
	id        netring.RequestID
	conn      netring.ConnID
	header    kafka.Request // without the client id, which lies in the request's bytes
	reply     mem.Block     // kindForward, kindLocal: the whole reply, from the control shard
	timeline  metrics.Timeline
	early     metrics.Step // what the shard did while the request's last byte may have come unseen
}

type requestKind uint8

const (
	kindProduce requestKind = iota
	kindFetch
	kindSearch    // ListOffsets
	kindImmediate // answered when it came
	kindForward   // waits for the control shard
	kindLocal     // on the control shard itself
)

// requests are the requests in flight. The table never grows.
type requests struct {
	all       []request
	free      uint32
	inFlight  int
	credit    partCredit
	scheduled []uint32 // to try in this turn
	blocked   []uint32 // that wait for read or reply memory
}

func newRequests(n int) requests {
	t := requests{all: make([]request, n), scheduled: make([]uint32, 0, n), blocked: make([]uint32, 0, 2*n)}
	for i := range t.all {
		t.all[i].slot, t.all[i].nextFree = uint32(i), uint32(i+1)
	}
	return t
}

func (t *requests) full() bool { return t.inFlight == len(t.all) }

// schedule has a Fetch or a ListOffsets tried in this turn.
func (t *requests) schedule(req *request) {
	if !req.scheduled {
		req.scheduled = true
		t.scheduled = append(t.scheduled, req.slot)
	}
}

// blockOnMemory has a Fetch or a ListOffsets tried again when memory is given
// back, or when it is its turn on its connection.
func (t *requests) blockOnMemory(req *request) {
	if !req.blocked {
		req.blocked = true
		req.waited |= metrics.WaitedReader
		t.blocked = append(t.blocked, req.slot)
	}
}

func (t *requests) retryBlocked() {
	for _, slot := range t.blocked {
		if req := &t.all[slot]; req.used {
			req.blocked = false
			t.schedule(req)
		}
	}
	t.blocked = t.blocked[:0]
}

// doneForRequest: something has ended that was under way for a Fetch or a
// ListOffsets.
func (t *requests) doneForRequest(slot uint32) {
	req := &t.all[slot]
	req.pending--
	t.schedule(req)
}

// A request, a part, and what a kind adds begin as copies of templates like this
// one: the compiler fills a literal with anything variable in it by narrow stores
// and copies it by wide loads, which wait for the stores to leave the core.
var emptyRequest = request{used: true}

// newRequest takes a slot. There must be one: start asks.
func (s *Shard) newRequest(in *incoming, kind requestKind, header *kafka.Request) *request {
	t := &s.requests
	slot := t.free
	req := &t.all[slot]
	t.free = req.nextFree
	serial := req.serial + 1
	*req = emptyRequest
	req.slot, req.serial, req.kind = slot, serial, kind
	req.id, req.conn, req.header = in.id, in.conn, *header
	req.header.ClientID = nil
	req.timeline[metrics.Received] = int64(in.at)
	req.timeline[metrics.Parsed] = int64(s.now)
	if s.Flight != nil && in.at == s.now {
		req.early = *s.Flight.Early()
	}
	t.inFlight++
	s.Timelines.Counters.Requests++
	return req
}

// endRequest gives everything back. The reply, if there was one, has left.
func (s *Shard) endRequest(req *request) {
	switch req.kind {
	case kindProduce:
		s.produces.end(&s.produces.requests[req.slot])
	case kindFetch:
		fetch := s.fetches.of(req)
		s.sessions.detach(fetch)
		s.fetches.end(fetch)
	case kindSearch:
		s.searches.end(&s.searches.requests[req.slot])
	case kindLocal:
		if !req.reply.IsZero() {
			s.mailMem.Put(req.reply)
		}
	case kindForward:
		if !req.reply.IsZero() {
			s.outbox.put(Mail{Kind: MailGiveBack, From: uint8(s.o.Shard), Block: req.reply}, 0)
		}
	}
	s.timers.clear(req.slot)
	s.backlog.retry = true // another request may wait for what this one held
	req.used, req.scheduled, req.reply = false, false, mem.Block{}
	req.nextFree, s.requests.free = s.requests.free, req.slot
	s.requests.inFlight--
}

// sendReply hands a request's finished reply to its connection. Where that is
// gone, the request ends here.
func (s *Shard) sendReply(req *request) {
	s.timers.clear(req.slot)
	if req.kind == kindFetch {
		s.fetches.stopWaiting(req)
	}
	req.replied = true
	if !s.net.Alive(req.id) {
		s.endRequest(req)
		return
	}
	req.timeline[metrics.Queued] = int64(s.now)
	s.net.Send(req.id, uint64(req.slot))
}

// sent: the kernel has the last byte of a reply, or never will.
func (s *Shard) sent(req *request) {
	req.timeline[metrics.Sent] = int64(s.now)
	switch req.kind {
	case kindProduce:
		s.Timelines.Record(metrics.Produce, &req.timeline)
		s.recorder.produceSent(req, &s.produces.requests[req.slot], &s.produces.parts)
	case kindFetch:
		s.Timelines.Record(metrics.Fetch, &req.timeline)
		s.recorder.fetchSent(req, s.fetches.of(req), &s.fetches.parts)
	default:
		s.Timelines.Record(metrics.Other, &req.timeline)
	}
	s.endRequest(req)
}

// runScheduled tries the requests that are scheduled.
func (s *Shard) runScheduled() {
	t := &s.requests
	for i := 0; i < len(t.scheduled); i++ { // what is tried may schedule more
		req := &t.all[t.scheduled[i]]
		if !req.scheduled {
			continue
		}
		req.scheduled = false
		if !req.used || req.replied || req.pending > 0 {
			continue // another request has the slot, or something is under way for it
		}
		switch req.kind {
		case kindFetch:
			s.tryFetch(req)
		case kindSearch:
			s.trySearch(req)
		}
	}
	t.scheduled = t.scheduled[:0]
}

// expire: a long poll has waited long enough.
func (s *Shard) expire(slot uint32) {
	s.fetches.requests[slot].deadline = ioring.Instant(0)
	s.requests.schedule(&s.requests.all[slot])
}

// partTable holds the parts of one kind of request: a part is one partition that
// a request names. The table never grows.
type partTable[P any] struct {
	all       []P
	free      mem.Stack
	ofRequest mem.Thread // a request's parts, in the request's order
	credit    *partCredit
}

func newPartTable[P any](n int, credit *partCredit, links func(*P) *mem.Links) partTable[P] {
	t := partTable[P]{all: make([]P, n), credit: credit}
	t.ofRequest = mem.ThreadOf(t.all, links)
	t.ofRequest.Fill(&t.free)
	return t
}

// take adds a part, as a copy of a template, behind those of a request. There
// must be credit for it.
func (t *partTable[P]) take(parts *mem.List, template *P) int32 {
	at := t.ofRequest.Pop(&t.free)
	t.all[at] = *template
	t.ofRequest.PushBack(parts, at)
	t.credit.free--
	return at
}

// give takes a part out of those of a request.
func (t *partTable[P]) give(parts *mem.List, at int32) {
	t.ofRequest.Remove(parts, at)
	t.ofRequest.Push(&t.free, at)
	t.credit.free++
}

func (t *partTable[P]) next(at int32) int32 { return t.ofRequest.Next(at) }

// partCredit is how many parts requests may have, all kinds together: a request
// that names partitions takes credit for them before it starts, or comes again.
//
// Invariant: 0 <= free <= all.
type partCredit struct{ all, free int }

// perRequestMax is the most that one Produce or ListOffsets may name.
func (c *partCredit) perRequestMax() int { return c.all / 4 }

// A quarter of the parts is kept from Fetch requests, which may wait for data
// as long as they like: they keep no producer from its parts.
func (c *partCredit) fetchesMax() int  { return c.all - c.all/4 }
func (c *partCredit) fetchesFree() int { return c.free - c.all/4 }
