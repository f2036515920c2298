package control

import (
	"encoding/binary"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/mem"
	"github.com/tailbound/tailbound/shard"
)

// task is a request that was accepted and is not answered. It is this function:
//
//	decode(); start(); await all that start began; finish(); encode(); answer
//
// Invariant: pending counts what the task waits for, start itself included; when it
// is 0 the task is answered, once.
type task struct {
	api          *api
	from         shard.Origin
	header       kafka.Request // without a client id
	clientID     string        // cut to clientIDBytesMax
	req          kmsg.Request
	resp         kmsg.Response // nil: its connection is closed
	pending      int           // changes, and answers of data shards and of the coordinator
	validateOnly bool          // changes are planned and not made
	finish       func()        // fills in what is true when the answer leaves; may be nil
}

// answer is an encoded response on its way to a connection.
type answer struct {
	to    shard.Origin
	bytes []byte // nil: close the connection
}

// clientIDBytesMax is how much of a client's id is kept: it becomes part of its
// member's id.
const clientIDBytesMax = 255

// forwarded takes a request that a data shard lends, and gives the block back.
func (c *control) forwarded(m shard.Mail) {
	b := m.Block.Bytes()
	peer, frame := ioring.Address(b), b[len(ioring.Address{}):]
	c.pieces = append(c.pieces[:0], frame)
	c.reader.Reset(c.pieces)
	var h kafka.Request
	if err := kafka.ParseHeader(&c.reader, &h); err != nil {
		panic("control: a request was forwarded whose header does not parse")
	}
	c.Accept(shard.Origin{Shard: int(m.From), Slot: m.Slot, Serial: m.Serial, Listener: uint8(m.Code), Peer: peer}, h, frame[c.reader.Offset():])
	c.shard.Send(shard.Mail{Kind: shard.MailGiveBack, Block: m.Block}, int(m.From))
}

// Accept takes a request: from a connection of this shard, or from forwarded. Its
// key and version are served.
func (c *control) Accept(from shard.Origin, h kafka.Request, body []byte) {
	c.tasks++
	req := kmsg.RequestForKey(h.Key)
	req.SetVersion(h.Version)
	if err := req.ReadFrom(body); err != nil {
		c.shard.Logf(shard.Warn, "malformed request, connection closed: key ", int64(h.Key))
		c.answer(from, nil)
		return
	}
	api := &c.apis[h.Key]
	if n := api.names(req); n > c.namesMax() {
		c.shard.Logf(shard.Warn, "a request names more topics or partitions than there can be, connection closed: ", int64(n))
		c.answer(from, nil)
		return
	}
	t := &task{api: api, from: from, header: h, clientID: string(h.ClientID[:min(len(h.ClientID), clientIDBytesMax)]), req: req, resp: req.ResponseKind(), pending: 1}
	t.header.ClientID = nil
	if api.served.Where == shard.AtCoordinator {
		c.startGroup(t)
	} else {
		api.start(c, t)
	}
	c.done(t)
}

// namesMax bounds what one request may name, so that its answer, which may be much
// larger, is bounded by what the broker can have.
func (c *control) namesMax() int { return 2*(c.o.TopicsMax+c.o.PartitionsMax) + 1000 }

// fail writes into the response that an item of the request went wrong, or
// wholeRequest.
func (t *task) fail(item int, code kafka.ErrorCode, message string) {
	t.api.fail(t, item, code, message)
}

// done says that one thing the task waited for is over, and answers it when that was
// the last.
func (c *control) done(t *task) {
	t.pending--
	if t.pending > 0 {
		return
	}
	if t.finish != nil {
		t.finish()
	}
	if t.resp == nil {
		c.answer(t.from, nil)
		return
	}
	t.resp.SetVersion(t.header.Version)
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 1024), uint32(t.header.Correlation))
	if kafka.ResponseHeaderBytes(t.header.Key, t.header.Version) > len(b) {
		b = append(b, 0) // no tags
	}
	c.answer(t.from, t.resp.AppendTo(b))
}

func (c *control) answer(to shard.Origin, b []byte) {
	c.answers = append(c.answers, answer{to, b})
	c.sendAnswers()
}

// sendAnswers hands out answers, in order, while there is memory to lend.
func (c *control) sendAnswers() {
	for len(c.answers) > 0 {
		next := c.answers[0]
		var block mem.Block
		if size := len(next.bytes); size > 0 {
			var ok bool
			if block, ok = c.shard.MailMemory().Get(size); !ok {
				if size <= c.shard.MailMemory().Max() {
					return
				}
				c.shard.Logf(shard.Error, "an answer is larger than the memory for answers, connection closed: bytes ", int64(size))
			} else {
				copy(block.Bytes(), next.bytes)
			}
		}
		c.answers = c.answers[1:]
		c.tasks--
		if next.to.Shard != 0 {
			c.shard.Send(shard.Mail{Kind: shard.MailReply, Slot: next.to.Slot, Serial: next.to.Serial, Block: block}, next.to.Shard)
			continue
		}
		c.shard.Answer(next.to.Slot, block)
	}
	c.answers = nil
}

// clientHost is the address a request came from as Kafka writes it: /10.1.2.3.
func (t *task) clientHost() string { return string(t.from.Peer.Append([]byte("/"))) }

// stringOf is a nullable string of a request, "" for null.
func stringOf(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// nullable is how an empty string is written into a response where a field may be
// null.
func nullable(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
