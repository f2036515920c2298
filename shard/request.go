package shard

import (
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/mem"
	"github.com/tailbound/tailbound/metrics"
	"github.com/tailbound/tailbound/netring"
)

// request is one Kafka request in flight, from its last byte received to the last
// byte of its reply sent: the part that requests of all kinds have. What only a
// Produce, a Fetch or a ListOffsets has lies in the same slot of that kind's table.
// It belongs to the shard. Parts, timers and mail name a request by its slot; mail
// adds the serial, because slots are reused.
type request struct {
	slot      uint32 // its index in the table
	nextFree  uint32
	serial    uint32 // how often this slot was used
	pending   int32  // operations that it waits for: appends that become durable, reads, batches that are decompressed
	kind      requestKind
	used      bool
	replied   bool // it waits only for Sent
	scheduled bool // in requests.scheduled
	blocked   bool // in requests.blocked
	waited    metrics.Waits
	id        netring.RequestID
	conn      netring.ConnID
	header    kafka.Request // without the client id, which is a slice of the request's bytes
	reply     mem.Block     // kindForward, kindLocal: the whole reply, from the control shard
	timeline  metrics.Timeline
	early     metrics.Step // what the shard did while the request's last byte may have waited unseen
}

type requestKind uint8

const (
	kindProduce requestKind = iota
	kindFetch
	kindSearch    // ListOffsets
	kindImmediate // answered at once
	kindForward   // served by the control shard
	kindLocal     // served by the control shard, which is this one
)

// requests is the table of requests in flight. It never grows.
type requests struct {
	all       []request
	free      uint32
	inFlight  int
	credit    partCredit
	scheduled []uint32 // slots of those to try in this turn
	blocked   []uint32 // slots of those that wait for read or reply memory
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

// blockOnMemory has a Fetch or a ListOffsets tried again once something was given
// back: memory, or its place behind another request of its connection.
func (t *requests) blockOnMemory(req *request) {
	if !req.blocked {
		req.blocked = true
		req.waited |= metrics.WaitedReader
		t.blocked = append(t.blocked, req.slot)
	}
}

// retryBlocked schedules all that are blocked.
func (t *requests) retryBlocked() {
	for _, slot := range t.blocked {
		if req := &t.all[slot]; req.used {
			req.blocked = false
			t.schedule(req)
		}
	}
	t.blocked = t.blocked[:0]
}

// doneForRequest counts one operation of a Fetch or a ListOffsets as ended.
func (t *requests) doneForRequest(slot uint32) {
	req := &t.all[slot]
	req.pending--
	t.schedule(req)
}

// Requests and parts begin as copies of templates such as this one. Copying a
// template avoids a store-forwarding stall: the compiler fills a partly variable
// literal with narrow stores, then copies it with wide loads.
var emptyRequest = request{used: true}

// newRequest takes a slot. There must be a free one: start has checked it.
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

// endRequest frees a request and all it holds. Its reply, if it had one, has left.
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
	s.backlog.retry = true // others may wait for what this one held
	req.used, req.scheduled, req.reply = false, false, mem.Block{}
	req.nextFree, s.requests.free = s.requests.free, req.slot
	s.requests.inFlight--
}

// sendReply hands a request's finished reply to netring. If the connection is gone,
// the request ends here; else sent ends it.
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

// sent ends a request: the kernel has the last byte of its reply, or never will.
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

// runScheduled tries the requests that are scheduled, and those that they schedule.
func (s *Shard) runScheduled() {
	t := &s.requests
	for i := 0; i < len(t.scheduled); i++ {
		req := &t.all[t.scheduled[i]]
		if !req.scheduled {
			continue
		}
		req.scheduled = false
		if !req.used || req.replied || req.pending > 0 {
			continue // the slot was reused or freed, or an operation is under way
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

// expire has a long poll answered: its deadline has passed.
func (s *Shard) expire(slot uint32) {
	s.fetches.requests[slot].deadline = ioring.Instant(0)
	s.requests.schedule(&s.requests.all[slot])
}

// partTable has the parts of all requests of one kind. A part is one partition that
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
	t.ofRequest.Fill(&t.free, nil) // parts have slices of requests, so they are in Go's heap
	return t
}

// take appends a part, a copy of the template, to those of a request. There must be
// credit for it.
func (t *partTable[P]) take(parts *mem.List, template *P) int32 {
	at := t.ofRequest.Pop(&t.free)
	t.all[at] = *template
	t.ofRequest.PushBack(parts, at)
	t.credit.free--
	return at
}

// give removes a part of a request and frees it.
func (t *partTable[P]) give(parts *mem.List, at int32) {
	t.ofRequest.Remove(parts, at)
	t.ofRequest.Push(&t.free, at)
	t.credit.free++
}

func (t *partTable[P]) next(at int32) int32 { return t.ofRequest.Next(at) }

// partCredit limits the parts that requests of all kinds have together. A request
// that names more partitions than there is credit for has not started yet, and
// waits in the backlog.
//
// Invariant: 0 <= free <= all.
type partCredit struct{ all, free int }

// perRequestMax is how many parts one Produce or ListOffsets may have.
func (c *partCredit) perRequestMax() int { return c.all / 4 }

// fetchesMax is how many parts all Fetch requests together may have, fetchesFree how
// many more. A quarter is kept from them, so that long polls, which wait for data
// as long as their clients ask, cannot stop producers.
func (c *partCredit) fetchesMax() int  { return c.all - c.all/4 }
func (c *partCredit) fetchesFree() int { return c.free - c.all/4 }
