package shard

import (
	"bytes"
	"strconv"

	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/netring"
)

// incoming is a request that is received and has not started yet, or a Produce that
// has started and waits for log memory.
type incoming struct {
	id      netring.RequestID
	conn    netring.ConnID
	at      ioring.Instant
	request int32 // the slot of a Produce that has started; else none
	parts   int32 // of a Fetch: how many it needs, if there were too few
}

// outcome is what became of an incoming request.
type outcome uint8

const (
	started   outcome = iota // it has a slot, or its connection is being closed
	postponed                // memory is short: it waits in the backlog
)

// backlog is the queue of requests that wait for log or reply memory or for parts,
// in order of arrival. It never grows.
type backlog struct {
	all      []incoming
	head     int
	n        int
	pass     uint32
	retry    bool   // memory or parts were given back since the last pass
	progress uint64 // the engine's Progress at the last pass
}

func newBacklog(n int) backlog { return backlog{all: make([]incoming, n)} }

func (b *backlog) push(in incoming) {
	if b.n == len(b.all) {
		panic("shard: more requests wait than there are")
	}
	b.all[(b.head+b.n)%len(b.all)] = in
	b.n++
}

func (b *backlog) pop() incoming {
	in := b.all[b.head]
	b.head = (b.head + 1) % len(b.all)
	b.n--
	return in
}

// arrived starts a request that netring has received whole, or puts it into the
// backlog.
func (s *Shard) arrived(ev netring.Event) {
	if !s.net.Alive(ev.Request) {
		return // a request before it has closed their connection
	}
	in := incoming{id: ev.Request, conn: ev.Conn, at: ev.At, request: none}
	conn := s.conns.of(ev.Conn)
	if conn.waiting == 0 && s.start(&in) == started {
		return
	}
	conn.wait()
	s.backlog.push(in)
}

// retryBacklog starts what can start now, in order of arrival. A request that
// cannot ends the pass for its connection, whose requests start in order.
func (s *Shard) retryBacklog() {
	b := &s.backlog
	b.retry = false
	b.pass++
	for n := b.n; n > 0; n-- {
		in := b.pop()
		conn := s.conns.of(in.conn)
		if conn.passed == b.pass {
			b.push(in)
			continue
		}
		if !s.net.Alive(in.id) {
			s.abandon(&in)
		} else if s.start(&in) == postponed {
			conn.passed = b.pass
			b.push(in)
			continue
		}
		conn.waited()
	}
}

// abandon ends a request of the backlog whose connection is gone. What a Produce has
// appended so far stays appended.
func (s *Shard) abandon(in *incoming) {
	if in.request != none {
		s.pendingDone(&s.requests.all[in.request])
	}
}

// start parses the header of a request, and starts it by its API key.
func (s *Shard) start(in *incoming) outcome {
	if s.requests.full() {
		return postponed
	}
	if in.parts > 0 && int(in.parts) > s.requests.credit.fetchesFree() {
		s.fetches.partsExhausted = true
		return postponed // without parsing it again
	}
	s.pieces = s.net.Slices(in.id, s.pieces[:0])
	s.reader.Reset(s.pieces)
	var header kafka.Request
	if err := kafka.ParseHeader(&s.reader, &header); err != nil {
		return s.malformed(in, err)
	}
	served := s.api.served(header.Key)
	switch {
	case served.Where == NotServed:
		return s.notServed(in, "connection closed: it asked for an API key that is not served: ", &header)
	case served.Where == AtEveryNode:
		return s.apiVersions(in, &header)
	case !served.Versions.Has(header.Version):
		return s.notServed(in, "connection closed: it asked for a version that is not served, of API key ", &header)
	case s.control != nil:
		return s.local(in, &header)
	case served.Where != AtLeader:
		return s.forward(in, &header)
	}
	switch header.Key {
	case kafka.KeyProduce:
		return s.produce(in, &header)
	case kafka.KeyFetch:
		return s.fetch(in, &header)
	case kafka.KeyListOffsets:
		return s.listOffsets(in, &header)
	case kafka.KeyOffsetForLeaderEpoch:
		return s.offsetForLeaderEpoch(in, &header)
	}
	panic("shard: a key is said to be served at the leader, and is not")
}

// local hands a request to the control: this is the control shard.
func (s *Shard) local(in *incoming, header *kafka.Request) outcome {
	req := s.newRequest(in, kindLocal, header)
	copied := req.header
	copied.ClientID = bytes.Clone(header.ClientID)
	body := make([]byte, s.reader.Left())
	s.reader.CopyTo(kafka.Span{Off: s.reader.Offset(), Len: len(body)}, body)
	s.net.Release(in.id)
	s.control.Accept(Origin{0, req.slot, req.serial, uint8(s.net.Listener(in.conn)), s.net.Peer(in.conn)}, copied, body)
	return started
}

// apiVersions answers with one of the bodies that were made at start. All shards do. A
// client that names the cluster and the node that it means (KIP-1242) is told if it has
// reached another: each port is a node of its own, and what stands between may mix them up.
func (s *Shard) apiVersions(in *incoming, header *kafka.Request) outcome {
	body := s.api.VersionsRefusal
	if header.Version >= 0 && int(header.Version) < len(s.api.Versions) {
		asked, err := kafka.ParseApiVersions(&s.reader, header.Version)
		if err != nil {
			return s.malformed(in, err)
		}
		self := s.o.Nodes[s.o.Shard].ID
		switch {
		case !asked.Valid, (asked.Cluster == nil) != (asked.Node == -1):
			body = s.api.VersionsInvalid[header.Version]
		case asked.Cluster != nil && (asked.Node != self || string(asked.Cluster) != s.o.ClusterID):
			body = s.api.VersionsElsewhere[header.Version]
		default:
			body = s.api.Versions[header.Version]
		}
		if asked.Valid {
			s.conns.of(in.conn).heard(&s.reader, asked.Software)
		}
	}
	if !s.net.Begin(in.id, 4+len(body)) {
		return postponed
	}
	req := s.newRequest(in, kindImmediate, header)
	kafka.PutInt32(s.net.Bytes(in.id, 4), header.Correlation)
	s.copyToReply(req, body)
	s.net.Release(in.id)
	s.sendReply(req)
	return started
}

// copyToReply copies bytes into a reply, a part of a block at a time.
func (s *Shard) copyToReply(req *request, b []byte) {
	for len(b) > 0 {
		n := min(len(b), copyBelow)
		copy(s.net.Bytes(req.id, n), b[:n])
		b = b[n:]
	}
}

// malformed closes the connection of a request that cannot be parsed. Nothing of it
// was stored.
func (s *Shard) malformed(in *incoming, err error) outcome {
	s.Timelines.Counters.Refused++
	line := append(s.lines.begin("connection closed: malformed request: "), err.Error()...)
	s.lines.write(Warn, s.conns.of(in.conn).software.append(line))
	return s.hangUp(in)
}

// notServed closes the connection of a request whose API key or version is not
// served.
func (s *Shard) notServed(in *incoming, what string, header *kafka.Request) outcome {
	line := strconv.AppendInt(s.lines.begin(what), int64(header.Key), 10)
	s.lines.write(Warn, s.conns.of(in.conn).software.append(line))
	return s.hangUp(in)
}

// hangUp closes the connection of a request after the replies before it.
func (s *Shard) hangUp(in *incoming) outcome {
	s.net.Release(in.id)
	s.net.Abort(in.id)
	s.backlog.retry = true
	return started
}

// closed ends the waiting requests of a connection that is gone.
func (s *Shard) closed(conn netring.ConnID) {
	for n := s.backlog.n; n > 0; n-- {
		in := s.backlog.pop()
		if in.conn == conn {
			s.abandon(&in)
		} else {
			s.backlog.push(in)
		}
	}
	s.backlog.retry = true // others may wait for what its requests held
	s.endLongPolls(conn)
	s.endSearchesOf(conn)
	s.conns.closed(conn)
}
