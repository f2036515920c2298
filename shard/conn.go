package shard

import (
	"strconv"

	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/netring"
)

// conn is what a shard knows of one connection. Its bytes, its address and the
// order of its replies are netring's; whatever else holds for all requests of a
// connection belongs here, such as authentication, the principal and quotas. It
// belongs to the shard.
//
// Invariant: a connection's requests start in the order in which they came. While
// one of them waits in the backlog, those behind it wait there too.
type conn struct {
	id       netring.ConnID // 0 in a free entry
	waiting  int32          // how many of its requests are in the backlog
	passed   uint32         // the last pass over the backlog in which one of them had to stay there
	software software
}

// software is the name and version that a client gives of itself in ApiVersions
// (KIP-511), truncated; empty if it gave none.
type software struct {
	nameBytes, versionBytes uint8
	name                    [32]byte
	version                 [14]byte
}

// conns is the table of connections, by their slot in netring.
type conns struct{ all []conn }

func newConns(n int) conns { return conns{make([]conn, n)} }

// opened begins an entry, closed ends it.
func (t *conns) opened(id netring.ConnID) { t.all[id.Slot()] = conn{id: id} }

func (t *conns) closed(id netring.ConnID) { *t.of(id) = conn{} }

// of is the entry of a connection, which must be open.
func (t *conns) of(id netring.ConnID) *conn {
	c := &t.all[id.Slot()]
	if c.id != id {
		panic("shard: a connection that is not there")
	}
	return c
}

// wait counts one more of the connection's requests in the backlog.
func (c *conn) wait() { c.waiting++ }

// waited counts one less.
func (c *conn) waited() {
	if c.waiting--; c.waiting == 0 {
		c.passed = 0
	}
}

// heard keeps the client software that an ApiVersions names.
func (c *conn) heard(reader *kafka.Reader, where kafka.Software) {
	kept := &c.software
	kept.nameBytes = uint8(min(where.Name.Len, len(kept.name)))
	kept.versionBytes = uint8(min(where.Version.Len, len(kept.version)))
	reader.CopyTo(kafka.Span{Off: where.Name.Off, Len: int(kept.nameBytes)}, kept.name[:kept.nameBytes])
	reader.CopyTo(kafka.Span{Off: where.Version.Off, Len: int(kept.versionBytes)}, kept.version[:kept.versionBytes])
}

// append adds the software to a log line, if it is known.
func (known *software) append(line []byte) []byte {
	if known.nameBytes == 0 {
		return line
	}
	line = append(append(line, " (client software: "...), known.name[:known.nameBytes]...)
	return append(append(append(line, ' '), known.version[:known.versionBytes]...), ')')
}

// limitConnections puts the latest limits on connections from one address into force, if
// a running broker was given others. Connections that are open stay open.
func (s *Shard) limitConnections() {
	if settings := s.post.latest.Load(); settings != nil {
		s.net.LimitAddresses(settings.ConnsPerAddressMax, settings.AddressLimits)
	}
}

// protocolError logs a connection whose bytes are no Kafka request.
func (s *Shard) protocolError(ev netring.Event) {
	s.Timelines.Counters.Noise++
	s.lines.write(Warn, append(s.lines.begin("connection closed: "), ev.What()...))
}

// refusals logs connections that a limit refused, at most one line a second. It
// returns when there is another line to write.
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
