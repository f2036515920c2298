package control

import (
	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/shard"
)

// What the control shard has the data shards do: keep a table of topics, open and delete
// logs, act on configurations, and answer questions that only they can answer. All of this
// is mail, sent in order:
//
//	await memory, and a credit where mail is answered; send; await the answer
//
// Invariant: no more than shard.OpenCredit pieces of mail that are to be answered are
// unanswered, so a data shard has a place for each.

// outgoing is mail for a data shard that waits to be sent.
type outgoing struct {
	to   int
	mail shard.Mail
	fill []byte // what to copy into a block, which the data shard gives back; may be nil
}

// logOp is the opening or the deletion of a log, which a data shard has to confirm. A log
// may be under way to both at once, for different tasks.
type logOp struct {
	log    uint64
	delete bool // else it is opened
}

// logOpWaiter is what waits for a logOp to be confirmed.
type logOpWaiter struct {
	task  *task // nil: at a start, or where no request asked for it
	item  int
	topic [16]byte
	grown bool // the log is of a partition that was added to an existing topic
}

// question is mail to a data shard whose answer a task waits for.
type question struct {
	task     *task
	onAnswer func(m shard.Mail) // writes the answer into the response; nil: it has nothing to write
}

// announceAll sends every data shard all topics, and has it open its logs of them, at a
// start. It also goes on with deletions that the last life did not finish.
func (c *control) announceAll() {
	c.shard.BeginNaming()
	c.loadGroups()
	c.configureBrokers()
	for _, topic := range c.state.Topics() {
		c.announce(topic, nil, 0, 0)
	}
	for _, topic := range c.state.Tombstones() {
		c.erase(topic, nil, 0)
	}
	c.named = true
	if c.spread = c.engine.Spread(c.slot); c.former || c.spread {
		c.snapshot()
	}
}

// announce sends a topic to all data shards, and has the owners of its partitions open the
// logs of those from first on. A task waits until they are open.
func (c *control) announce(topic *cluster.Topic, by *task, item, first int) {
	number, known := c.numbers[topic.ID]
	if !known {
		number = c.numbered
		c.numbers[topic.ID] = number
		c.numbered++
	}
	for i := 1; i <= c.o.DataShards; i++ {
		fill := shard.AppendTopicMail(nil, topic, c.state.LogConfig(topic, c.o.Nodes[i].ID))
		c.outgoing = append(c.outgoing, outgoing{to: i, mail: shard.Mail{Kind: shard.MailTopic, A: uint64(len(topic.Partitions)), B: uint64(number)}, fill: fill})
	}
	for i, partition := range topic.Partitions {
		if i < first {
			continue
		}
		mail := shard.Mail{Kind: shard.MailOpen, A: partition.LogID, B: uint64(number)<<32 | uint64(i)}
		c.sendLogOp(logOp{partition.LogID, false}, mail, logOpWaiter{task: by, item: item, topic: topic.ID, grown: first > 0})
	}
}

// erase has the owners of a deleted topic's partitions delete their logs, and all data
// shards forget the topic. A task waits until the logs are deleted.
func (c *control) erase(topic *cluster.Topic, by *task, item int) {
	number, known := c.numbers[topic.ID]
	for _, partition := range topic.Partitions {
		c.sendLogOp(logOp{partition.LogID, true}, shard.Mail{Kind: shard.MailDelete, A: partition.LogID}, logOpWaiter{task: by, item: item, topic: topic.ID})
	}
	if known {
		delete(c.numbers, topic.ID)
		for i := 1; i <= c.o.DataShards; i++ {
			c.outgoing = append(c.outgoing, outgoing{to: i, mail: shard.Mail{Kind: shard.MailForget, B: uint64(number)}})
		}
	}
}

// sendLogOp has the owner of a log open or delete it. The task waits for that.
func (c *control) sendLogOp(op logOp, mail shard.Mail, waiter logOpWaiter) {
	if waiter.task != nil {
		waiter.task.pending++
	}
	c.pendingLogOps[op] = waiter
	c.outgoing = append(c.outgoing, outgoing{to: format.Place(op.log, c.o.DataShards), mail: mail})
}

// logOpDone takes a data shard's confirmation that a log is open or deleted, or cannot be.
func (c *control) logOpDone(op logOp, code kafka.ErrorCode) {
	c.credit++
	waiter, ok := c.pendingLogOps[op]
	if !ok {
		return
	}
	delete(c.pendingLogOps, op)
	if op.delete && code == kafka.None {
		if topic, gone := c.tombstone(waiter.topic); gone && c.allDeleted(topic) {
			c.enqueue(change{kind: changeForget, id: waiter.topic})
		}
	}
	if waiter.task == nil {
		if code != kafka.None {
			c.shard.Logf(shard.Warn, "a log could not be opened or deleted: log ", int64(op.log))
		}
		return
	}
	if code != kafka.None {
		waiter.task.fail(waiter.item, code, "The partition's log could not be changed: its storage refused.")
		if !op.delete && !waiter.grown { // a new topic that lacks a log is deleted again
			c.enqueue(change{kind: changeDeleteID, id: waiter.topic})
		}
	}
	c.done(waiter.task)
}

// tombstone returns a topic that was deleted while some of its logs were not yet.
func (c *control) tombstone(id [16]byte) (*cluster.Topic, bool) {
	for _, topic := range c.state.Tombstones() {
		if topic.ID == id {
			return topic, true
		}
	}
	return nil, false
}

func (c *control) allDeleted(topic *cluster.Topic) bool {
	for _, partition := range topic.Partitions {
		if _, pending := c.pendingLogOps[logOp{partition.LogID, true}]; pending {
			return false
		}
	}
	return true
}

// configureTopic has every data shard act on a topic's configurations. The task that changed
// them is answered only afterwards.
func (c *control) configureTopic(topic *cluster.Topic, by *task) {
	number, ok := c.numbers[topic.ID]
	if !ok {
		return
	}
	for i := 1; i <= c.o.DataShards; i++ {
		fill := shard.AppendConfigMail(nil, c.state.LogConfig(topic, c.o.Nodes[i].ID))
		c.ask(i, shard.Mail{Kind: shard.MailConfigure, B: uint64(number)}, fill, question{task: by})
	}
}

// ask sends a question to a data shard, and has its task wait for the answer. The question's
// number becomes the mail's Serial. fill, if there is any, is copied into a block that the
// data shard gives back.
func (c *control) ask(to int, mail shard.Mail, fill []byte, waiting question) {
	waiting.task.pending++
	c.asked++
	if c.asked == 0 {
		c.asked++ // 0 is no question
	}
	mail.Serial = c.asked
	c.questions[mail.Serial] = waiting
	c.outgoing = append(c.outgoing, outgoing{to: to, mail: mail, fill: fill})
}

// answered takes a data shard's answer to a question, and gives its block back.
func (c *control) answered(mail shard.Mail) {
	c.credit++
	waiting := c.questions[mail.Serial]
	delete(c.questions, mail.Serial)
	if waiting.onAnswer != nil {
		waiting.onAnswer(mail)
	}
	if !mail.Block.IsZero() {
		c.shard.Send(shard.Mail{Kind: shard.MailGiveBack, Block: mail.Block}, int(mail.From))
	}
	c.done(waiting.task)
}

// sendOutgoing sends mail, in order, while there is memory and credit for it.
func (c *control) sendOutgoing() {
	sent := 0
	for _, next := range c.outgoing {
		answered := next.mail.Kind == shard.MailOpen || next.mail.Kind == shard.MailDelete || next.mail.Serial != 0
		if answered && c.credit == 0 {
			break
		}
		if len(next.fill) > 0 {
			block, ok := c.shard.MailMemory().Get(len(next.fill))
			if !ok {
				break
			}
			copy(block.Bytes(), next.fill)
			next.mail.Block = block
		}
		if answered {
			c.credit--
		}
		c.shard.Send(next.mail, next.to)
		sent++
	}
	c.outgoing = c.outgoing[sent:]
	if len(c.outgoing) == 0 {
		c.outgoing = nil
	}
}

// dropOutgoing drops mail that was not sent, and abandons what waits for answers to it.
func (c *control) dropOutgoing() {
	outgoing := c.outgoing
	c.outgoing = nil
	for i := range outgoing {
		switch mail := &outgoing[i].mail; {
		case mail.Kind == shard.MailOpen || mail.Kind == shard.MailDelete:
			op := logOp{mail.A, mail.Kind == shard.MailDelete}
			c.abandon(c.pendingLogOps[op].task)
			delete(c.pendingLogOps, op)
		case mail.Serial != 0:
			c.abandon(c.questions[mail.Serial].task)
			delete(c.questions, mail.Serial)
		}
	}
}
