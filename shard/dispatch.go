package shard

import (
	"bytes"
	"strconv"

	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/metrics"
	"github.com/tailbound/tailbound/netring"
)

// outcome is what became of a frame.
type outcome uint8

const (
	taken    outcome = iota // a request owns it, or it is answered, or its connection is closed
	tooEarly                // memory is short: it has to come again
)

// frame takes a request as netring has it whole.
func (s *Shard) frame(ev netring.Event) {
	if !s.net.Alive(ev.Request) {
		return // its connection was closed by a request before it
	}
	w := waiter{frame: ev.Request, conn: ev.Conn, at: ev.At, request: none}
	conn := s.conns.of(ev.Conn)
	if conn.waiting == 0 && s.handle(&w) == taken {
		return
	}
	conn.wait()
	s.waiting.push(w)
}

// retryWaiting gives every frame that waits another chance, in order of
// arrival. A frame that finds no log memory ends the pass for Produce: memory
// is handed out first in, first out.
func (s *Shard) retryWaiting() {
	q := &s.waiting
	q.retry = false
	q.pass++
	for n := q.n; n > 0; n-- {
		w := q.pop()
		conn := s.conns.of(w.conn)
		if conn.passed == q.pass {
			q.push(w)
			continue
		}
		if !s.net.Alive(w.frame) {
			s.abandon(&w)
		} else if s.handle(&w) == tooEarly {
			conn.passed = q.pass
			q.push(w)
			continue
		}
		conn.waited()
	}
}

// abandon forgets a frame whose connection is gone. A produce that was half
// done keeps what it appended.
func (s *Shard) abandon(w *waiter) {
	if w.request != none {
		s.lessPending(uint32(w.request))
	}
}

// handle starts one request.
func (s *Shard) handle(w *waiter) outcome {
	if s.inFlight == len(s.requests) {
		return tooEarly
	}
	if w.parts > 0 && int(w.parts) > s.fetchPartsFree() {
		s.crowded = true
		return tooEarly // it need not be walked again to know that
	}
	s.pieces = s.net.Slices(w.frame, s.pieces[:0])
	s.reader.Reset(s.pieces)
	var h kafka.Request
	if err := kafka.ParseHeader(&s.reader, &h); err != nil {
		return s.malformed(w, &h, err)
	}
	key, known := kafka.KeyOf(h.Key)
	if !known {
		return s.notServed(w, "connection closed: it asked for an API key that is not served: ", &h)
	}
	if h.Key == kafka.KeyApiVersions {
		return s.apiVersions(w, &h)
	}
	if h.Version < key.Min || h.Version > key.Max {
		return s.notServed(w, "connection closed: it asked for a version that is not served, of API key ", &h)
	}
	if s.control == nil {
		switch h.Key {
		case kafka.KeyProduce:
			return s.produce(w, &h)
		case kafka.KeyFetch:
			return s.fetch(w, &h)
		case kafka.KeyListOffsets:
			return s.listOffsets(w, &h)
		case kafka.KeyOffsetForLeaderEpoch:
			return s.offsetForLeaderEpoch(w, &h)
		}
		return s.forward(w, &h)
	}
	return s.local(w, &h)
}

// local hands a request on the control shard's own node to the control.
func (s *Shard) local(w *waiter, h *kafka.Request) outcome {
	i, r := s.newRequest(w)
	r.kind, r.header = kindLocal, *h
	r.header.ClientID = nil
	header := r.header
	header.ClientID = bytes.Clone(h.ClientID)
	body := make([]byte, s.reader.Left())
	s.reader.CopyTo(kafka.Span{Off: s.reader.Offset(), Len: len(body)}, body)
	s.net.Release(w.frame)
	s.control.Accept(Origin{0, i, r.serial, uint8(s.net.Listener(w.conn)), s.net.Peer(w.conn)}, header, body)
	return taken
}

// apiVersions answers from bodies made at start, whatever the shard.
func (s *Shard) apiVersions(w *waiter, h *kafka.Request) outcome {
	body := s.api.VersionsRefusal
	if h.Version >= 0 && int(h.Version) < len(s.api.Versions) {
		where, valid, err := kafka.ParseApiVersions(&s.reader, h.Version)
		if err != nil {
			return s.malformed(w, h, err)
		}
		if valid {
			s.conns.of(w.conn).heard(&s.reader, where)
		}
		body = s.api.Versions[h.Version]
		if !valid {
			body = s.api.VersionsInvalid[h.Version]
		}
	}
	if !s.net.Begin(w.frame, 4+len(body)) {
		return tooEarly
	}
	i, r := s.newRequest(w)
	r.kind, r.header = kindImmediate, *h
	kafka.PutInt32(s.net.Bytes(w.frame, 4), h.Correlation)
	for len(body) > 0 {
		n := min(len(body), 1024)
		copy(s.net.Bytes(w.frame, n), body[:n])
		body = body[n:]
	}
	s.net.Release(w.frame)
	s.reply(i)
	return taken
}

// malformed closes a connection whose request cannot be read. Nothing of the
// request was stored.
func (s *Shard) malformed(w *waiter, h *kafka.Request, err error) outcome {
	s.Timelines.Counters.Refused++
	s.line = append(s.line[:0], "connection closed: malformed request: "...)
	s.line = append(s.line, err.Error()...)
	s.line = s.conns.of(w.conn).software.append(s.line)
	s.out.Log(Warn, s.o.Shard, s.line)
	return s.hangUp(w)
}

// notServed closes a connection that asked for what no version list offers.
func (s *Shard) notServed(w *waiter, what string, h *kafka.Request) outcome {
	s.line = strconv.AppendInt(append(s.line[:0], what...), int64(h.Key), 10)
	s.line = s.conns.of(w.conn).software.append(s.line)
	s.out.Log(Warn, s.o.Shard, s.line)
	return s.hangUp(w)
}

func (s *Shard) hangUp(w *waiter) outcome {
	s.net.Release(w.frame)
	s.net.Abort(w.frame)
	s.waiting.retry = true
	return taken
}

// reply hands a request's finished answer to its connection. Where that is
// gone, the request ends here.
func (s *Shard) reply(i uint32) {
	r := &s.requests[i]
	s.timers.clear(i)
	for p := r.parts.First; p != none; p = s.partsOf.Next(p) {
		s.unwait(p)
	}
	s.unpark(i)
	r.replied = true
	if !s.net.Alive(r.frame) {
		s.endRequest(i)
		return
	}
	r.stamps[metrics.Queued] = int64(s.now)
	s.net.Send(r.frame, uint64(i))
}

// sent: the kernel has the last byte of an answer, or never will.
func (s *Shard) sent(i uint32) {
	r := &s.requests[i]
	r.stamps[metrics.Sent] = int64(s.now)
	switch r.kind {
	case kindProduce:
		s.Timelines.Record(metrics.Produce, &r.stamps)
		s.record(metrics.Produce, r)
	case kindFetch:
		s.Timelines.Record(metrics.Fetch, &r.stamps)
		s.record(metrics.Fetch, r)
	default:
		s.Timelines.Record(metrics.Other, &r.stamps)
	}
	s.endRequest(i)
}

// expire: a long poll has waited long enough.
func (s *Shard) expire(i uint32) {
	s.requests[i].waitUntil = ioring.Instant(0)
	s.lookAt(i)
}

// closed ends what a connection that is gone waits for: memory, or data.
func (s *Shard) closed(c netring.ConnID) {
	for n := s.waiting.n; n > 0; n-- {
		w := s.waiting.pop()
		if w.conn == c {
			s.abandon(&w)
		} else {
			s.waiting.push(w)
		}
	}
	s.waiting.retry = true // fetches that wait for memory, or their turn, have nobody to wait for
	for i := s.polls.all.First; i != none; {
		r := &s.requests[i]
		next := r.poll.Next
		if r.conn == c {
			s.unpark(uint32(i))
			s.lookAt(uint32(i)) // ends it, but for reads under way: the last of them does
		}
		i = next
	}
	s.conns.closed(c)
}
