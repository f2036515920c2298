package control

import (
	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/kafka"
)

// Changes of the cluster's state happen one at a time. Each stands for this function:
//
//	plan(); append(); await durable(); apply(); have the data shards act on it
//
// Invariants: a change is planned on a state that has every change before it, and is
// visible only once it is durable. Later changes do not wait for the data shards to act.

// changeStage is where the change under way is.
type changeStage uint8

const (
	changeNone     changeStage = iota
	changeAppend               // planned, and waits for memory of the log
	changeDurable              // appended
	changeSnapshot             // not a change: a snapshot is being appended; resumed is the stage behind it
)

// change is a change of the cluster's state that is under way or waits for its turn. Which
// fields mean something depends on its kind.
type change struct {
	kind       changeKind
	task       *task // nil: no request asked for it
	item       int   // of the task's request
	name       string
	partitions int
	had        int // changeGrow: partitions before
	replicas   int
	configs    []cluster.Config
	on         cluster.Placement
	edits      []cluster.ConfigEdit // changeConfigure
	replace    bool                 // changeConfigure: the edits are all there is
	node       int32                // changeConfigureBroker
	id         [16]byte
	cmd        []byte
	removes    bool  // changeGroups: cmd removes groups and offsets, and does nothing else
	end        int64 // the control log's end after cmd was appended
}

type changeKind uint8

const (
	changeCreate changeKind = iota
	changeDelete
	changeDeleteID
	changeForget // of a deleted topic, once all its logs are deleted
	changeReserve
	changeGroups
	changeConfigure
	changeConfigureBroker
	changeConfigureGroup
	changeGrow
)

const cannotWrite = "The control log cannot be written; see the broker's log."

// enqueue puts a change behind those that wait for their turn. Its task waits for it. Once
// the control has given up there are no further changes.
func (c *control) enqueue(next change) {
	if c.gaveUp {
		if next.task != nil {
			next.task.abandoned = true
		}
		return
	}
	if next.task != nil {
		next.task.pending++
	}
	c.changes = append(c.changes, next)
}

// stepChanges advances the change under way, and then the ones behind it, until one has
// to wait.
func (c *control) stepChanges() {
	for {
		switch c.stage {
		case changeNone:
			if c.nextGroups() {
				c.stage = changeAppend
				continue
			}
			if len(c.changes) == 0 {
				return
			}
			c.current = c.changes[0]
			c.changes = c.changes[1:]
			if !c.plan(&c.current) {
				continue
			}
			c.stage = changeAppend
		case changeAppend:
			switch st := c.append(c.current.cmd, c.current.makesRoom()); st {
			case engine.OK:
				c.current.end = c.engine.End(c.slot)
				c.stage = changeDurable
				if c.current.kind == changeGroups && c.o.Faults.CommitAckedEarly {
					c.groupsStored(kafka.None)
				}
			case engine.WaitMemory, engine.WaitRoom:
				return
			default:
				if st == engine.NoSpace {
					if c.rewrite() || c.roll() {
						continue
					}
					if c.nextComes() {
						return
					}
				}
				c.stage = changeNone
				message := cannotWrite
				if st == engine.NoSpace {
					message = noRoom
					c.shard.CountNoRoom()
				}
				c.refuse(&c.current, kafka.KafkaStorageError, message)
			}
		case changeDurable:
			if c.engine.Durable(c.slot) < c.current.end {
				if !c.shard.Failed() {
					return
				}
				c.stage = changeNone
				c.refuse(&c.current, kafka.KafkaStorageError, cannotWrite)
				continue
			}
			c.stage = changeNone
			c.applied(&c.current)
		case changeSnapshot:
			if !c.appendSnapshot() {
				return
			}
			c.stage, c.rewriting = c.resumed, false
		}
	}
}

// plan makes a change's command and returns true, or ends the change and returns false:
// because it is refused, because it was to be validated only, or because the state is as it
// should be already.
func (c *control) plan(ch *change) bool {
	var refusal *cluster.Refusal
	limits := cluster.Limits{TopicsMax: c.o.TopicsMax, PartitionsPerTopicMax: c.o.PartitionsMax, PartitionsMax: c.o.PartitionsMax, PartitionsDefault: c.o.PartitionsDefault, MessageBytesMax: c.o.MessageBytesMax}
	switch ch.kind {
	case changeCreate:
		ch.id = c.newUUID()
		ch.cmd, refusal = c.state.PlanCreateOn(ch.name, ch.partitions, ch.replicas, ch.on, ch.configs, ch.id, limits)
	case changeDelete:
		if topic, ok := c.state.Topic(ch.name); ok {
			ch.id = topic.ID
		}
		ch.cmd, refusal = c.state.PlanDelete(ch.name)
	case changeDeleteID:
		ch.cmd, refusal = c.state.PlanDeleteID(ch.id)
	case changeForget:
		ch.cmd, refusal = c.state.PlanForget(ch.id)
	case changeReserve:
		ch.cmd, refusal = c.state.PlanReserveProducerIDs(cluster.ProducerIDBlock)
	case changeGrow:
		if ch.cmd, refusal = c.state.PlanGrow(ch.name, ch.partitions, ch.on, limits); refusal == nil {
			topic, _ := c.state.Topic(ch.name)
			ch.id, ch.had = topic.ID, len(topic.Partitions)
		}
	case changeConfigure:
		ch.cmd, refusal = c.state.PlanConfigure(ch.name, ch.edits, ch.replace, limits)
	case changeConfigureBroker:
		ch.cmd, refusal = c.state.PlanConfigureBroker(ch.node, c.o.Nodes[0].ID, ch.edits, ch.replace, c.startedNumber, limits)
	case changeConfigureGroup:
		ch.cmd, refusal = c.state.PlanConfigureGroup(ch.name, c.o.Nodes[0].ID, ch.edits, ch.replace, c.startedNumber, limits)
	}
	if refusal != nil {
		c.refuse(ch, refusal.Code, refusal.Message)
		return false
	}
	if ch.task != nil && (ch.task.validateOnly || ch.cmd == nil) {
		if ch.kind == changeCreate {
			c.describeValidated(ch)
		}
		c.done(ch.task)
		return false
	}
	return true
}

// refuse fails what waits for a change that cannot be made.
func (c *control) refuse(ch *change, code kafka.ErrorCode, message string) {
	switch ch.kind {
	case changeGroups:
		c.groupsStored(kafka.NotCoordinator) // as Kafka: clients look for the coordinator and ask again
	case changeReserve:
		c.refuseIDs(code, message)
	}
	if ch.task == nil {
		return
	}
	ch.task.fail(ch.item, code, message)
	c.done(ch.task)
}

// applied makes a durable change visible, and has the data shards act on it.
func (c *control) applied(ch *change) {
	if err := c.state.Apply(ch.cmd); err != nil {
		c.shard.Fatalf("a planned change could not be applied ("+err.Error()+") at offset ", ch.end-1)
		return
	}
	c.grown += commandCost + len(ch.cmd)
	switch ch.kind {
	case changeGroups:
		c.groupsStored(kafka.None)
	case changeCreate:
		topic, _ := c.state.Topic(ch.name)
		c.announce(topic, ch.task, ch.item, 0)
	case changeReserve:
		c.reserving = false
		c.giveIDs()
	case changeDelete, changeDeleteID:
		if topic, ok := c.tombstone(ch.id); ok {
			c.erase(topic, ch.task, ch.item)
		}
	case changeGrow:
		topic, _ := c.state.TopicByID(ch.id)
		c.announce(topic, ch.task, ch.item, ch.had)
	case changeConfigure:
		topic, _ := c.state.Topic(ch.name)
		c.configureTopic(topic, ch.task)
	case changeConfigureBroker:
		c.configureBrokers()
		for _, topic := range c.state.Topics() {
			c.configureTopic(topic, ch.task)
		}
	}
	if ch.task != nil {
		c.done(ch.task)
	}
	c.snapshot()
}
