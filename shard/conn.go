package shard

import (
	"strconv"

	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/netring"
)

// conn is what a shard knows of one connection above its bytes, which are
// netring's. It belongs to the shard. Authentication, the principal and quotas
// belong here when they come.
//
// Invariant: a connection's requests start in the order in which they came. While
// one of them waits for memory, those behind it wait too.
type conn struct {
	id       netring.ConnID // 0: the entry is free
	waiting  int32          // its requests in the backlog
	passed   uint32         // the pass over the backlog in which one of them went on waiting
	software software
}

// software is what a client says it is (KIP-511), cut to what fits. A client that
// did not say has none.
type software struct {
	nameBytes, versionBytes uint8
	name                    [32]byte
	version                 [14]byte
}

// conns are the connections of a shard, by netring's slot.
type conns struct{ all []conn }

func newConns(n int) conns { return conns{make([]conn, n)} }

// opened begins a connection, closed ends it.
func (t *conns) opened(id netring.ConnID) { t.all[id.Slot()] = conn{id: id} }

func (t *conns) closed(id netring.ConnID) { *t.of(id) = conn{} }

// of is a connection that was opened and is not closed.
func (t *conns) of(id netring.ConnID) *conn {
	c := &t.all[id.Slot()]
	if c.id != id {
		panic("shard: a connection that is not there")
	}
	return c
}

// wait notes that one more of the connection's requests is in the wait queue.
func (c *conn) wait() { c.waiting++ }

// waited notes that one of them is there no more.
func (c *conn) waited() {
	if c.waiting--; c.waiting == 0 {
		c.passed = 0
	}
}

// heard keeps what a request says of its client's software.
func (c *conn) heard(reader *kafka.Reader, where kafka.Software) {
	kept := &c.software
	kept.nameBytes = uint8(min(where.Name.Len, len(kept.name)))
	kept.versionBytes = uint8(min(where.Version.Len, len(kept.version)))
	reader.CopyTo(kafka.Span{Off: where.Name.Off, Len: int(kept.nameBytes)}, kept.name[:kept.nameBytes])
	reader.CopyTo(kafka.Span{Off: where.Version.Off, Len: int(kept.versionBytes)}, kept.version[:kept.versionBytes])
}

// append names the software to a line for people; nothing where it is not known.
func (x *software) append(line []byte) []byte {
	if x.nameBytes == 0 {
		return line
	}
	line = append(append(line, " (client software: "...), x.name[:x.nameBytes]...)
	return append(append(append(line, ' '), x.version[:x.versionBytes]...), ')')
}

// protocolError names what a connection was that spoke no Kafka.
func (s *Shard) protocolError(ev netring.Event) {
	s.Timelines.Counters.Noise++
	s.lines.write(Warn, append(s.lines.begin("connection closed: "), ev.What()...))
}

// refusals tells of connections that were refused, at most once a second. It
// says when there is more to tell.
func (s *Shard) refusals() ioring.Instant {
	count, last := s.net.Refusals()
	refusals := &s.lines.refusals
	if count == refusals.told {
		return ioring.Never
	}
	if s.now < refusals.next {
		return refusals.next
	}
	line := last.Address.Append(s.lines.begin("connection closed: "))
	if last.PerAddress {
		line = append(line, " has all it may have, max.connections.per.ip "...)
	} else {
		line = append(line, " comes when there are as many as may be, max.connections "...)
	}
	line = strconv.AppendInt(line, int64(last.Limit), 10)
	if more := count - refusals.told - 1; more > 0 {
		line = append(line, "; so were others before it: "...)
		line = strconv.AppendUint(line, more, 10)
	}
	s.lines.write(Warn, line)
	refusals.told, refusals.next = count, s.now+repeatNS
	return ioring.Never
}
