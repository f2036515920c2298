package control

import (
	"encoding/binary"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/mem"
	"github.com/tailbound/tailbound/shard"
)

// task is a request from when it is accepted to when it is answered. It stands for this
// function:
//
//	decode(); start(); await all that start began; finish(); encode(); answer
//
// Invariant: pending counts what the task waits for, start itself included. The task is
// answered when pending becomes 0, and only then.
type task struct {
	api          *api
	from         shard.Origin
	header       kafka.Request // without a client id
	clientID     string        // cut to clientIDBytesMax
	req          kmsg.Request
	resp         kmsg.Response // nil: the connection is closed instead of answered
	pending      int           // changes, and answers of data shards and of the coordinator
	validateOnly bool          // changes are planned and not made
	abandoned    bool          // the broker stops before all is done; the connection is closed
	finish       func()        // fills in what must be true when the answer leaves; may be nil
}

// answer is an encoded response on its way to a connection.
type answer struct {
	to    shard.Origin
	bytes []byte // nil: close the connection
}

// clientIDBytesMax is how much of a client's id is kept. It becomes part of the id of a
// group's member.
const clientIDBytesMax = 255

// forwarded accepts a request that a data shard has lent: the address of its client, and the
// whole request. The block is given back at once, since decoding copies what it needs.
func (c *control) forwarded(mail shard.Mail) {
	lent := mail.Block.Bytes()
	peer, frame := ioring.Address(lent), lent[len(ioring.Address{}):]
	c.pieces = append(c.pieces[:0], frame)
	c.reader.Reset(c.pieces)
	var header kafka.Request
	if err := kafka.ParseHeader(&c.reader, &header); err != nil {
		panic("control: a request was forwarded whose header does not parse")
	}
	c.Accept(shard.Origin{Shard: int(mail.From), Slot: mail.Slot, Serial: mail.Serial, Listener: uint8(mail.Code), Peer: peer}, header, frame[c.reader.Offset():])
	c.shard.Send(shard.Mail{Kind: shard.MailGiveBack, Block: mail.Block}, int(mail.From))
}

// Accept decodes and starts a request: one of a connection of this shard, or one from
// forwarded. The shard has checked that its key and version are served. A request that
// cannot be decoded, or names more than there can be, closes its connection.
func (c *control) Accept(from shard.Origin, header kafka.Request, body []byte) {
	c.tasks++
	if c.gaveUp {
		c.answer(from, nil)
		return
	}
	req := kmsg.RequestForKey(header.Key)
	req.SetVersion(header.Version)
	if err := req.ReadFrom(body); err != nil {
		c.shard.Logf(shard.Warn, "malformed request, connection closed: key ", int64(header.Key))
		c.answer(from, nil)
		return
	}
	api := &c.apis[header.Key]
	if count := api.names(req); count > c.namesMax() {
		c.shard.Logf(shard.Warn, "a request names more topics or partitions than there can be, connection closed: ", int64(count))
		c.answer(from, nil)
		return
	}
	task := &task{api: api, from: from, header: header, clientID: string(header.ClientID[:min(len(header.ClientID), clientIDBytesMax)]), req: req, resp: req.ResponseKind(), pending: 1}
	task.header.ClientID = nil
	if api.served.Where == shard.AtCoordinator {
		c.startGroup(task)
	} else {
		api.start(c, task)
	}
	c.done(task)
}

// namesMax bounds how much one request may name. An answer may be much larger than its
// request, and is bounded through this by what the broker can have.
func (c *control) namesMax() int { return 2*(c.o.TopicsMax+c.o.PartitionsMax) + 1000 }

// fail writes an error into the response: for one item of the request, or for wholeRequest.
func (t *task) fail(item int, code kafka.ErrorCode, message string) {
	t.api.fail(t, item, code, message)
}

// done ends one of the things that the task waits for. The last of them has the task
// answered.
func (c *control) done(task *task) {
	task.pending--
	if task.pending > 0 {
		return
	}
	if task.finish != nil && !task.abandoned {
		task.finish()
	}
	if task.resp == nil || task.abandoned {
		c.answer(task.from, nil)
		return
	}
	task.resp.SetVersion(task.header.Version)
	encoded := binary.BigEndian.AppendUint32(make([]byte, 0, 1024), uint32(task.header.Correlation))
	if kafka.ResponseHeaderBytes(task.header.Key, task.header.Version) > len(encoded) {
		encoded = append(encoded, 0) // no tags
	}
	c.answer(task.from, task.resp.AppendTo(encoded))
}

// abandon ends one of the things that the task, if there is one, waits for. It will not be
// done, so the task's connection is closed.
func (c *control) abandon(task *task) {
	if task != nil {
		task.abandoned = true
		c.done(task)
	}
}

func (c *control) answer(to shard.Origin, encoded []byte) {
	c.answers = append(c.answers, answer{to, encoded})
	c.sendAnswers()
}

// sendAnswers hands answers to their shards, in order, while there is memory to lend.
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

// clientHost is the address of the task's client in the form that Kafka gives it: /10.1.2.3.
func (t *task) clientHost() string { return string(t.from.Peer.Append([]byte("/"))) }

// stringOf returns a nullable string of a request, "" for null.
func stringOf(text *string) string {
	if text == nil {
		return ""
	}
	return *text
}

// nullable returns a string for a nullable field of a response: "" becomes null.
func nullable(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}
