package control

import (
	"math"
	"slices"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/cluster/groups"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/shard"
)

// This file is the control shard's side of consumer groups. It coordinates all of
// them: groups.Coordinator decides, and here its decisions become commands in the
// control log and answers to requests.
//
// Changes that come while a command is becoming durable wait together and are the next
// one: a write for many commits, without a timer.

// coordinator is what the control shard has of the groups: those that live, and the
// requests and changes of theirs that wait.
type coordinator struct {
	live     *groups.Coordinator // nil until the control log was read
	tickets  map[uint64]ticket   // requests the coordinator has to answer
	last     uint64              // the last ticket
	stores   [][]byte            // changes that wait, in order; a nil one only waits for those before it
	underWay int                 // changes in the command under way
	yields   bool                // the next command is not one of groups, if there is another
	expireAt ioring.Instant      // when to look again for offsets whose time is over
}

// ticket is a task that waits for the coordinator's answer.
type ticket struct {
	task  *task
	taken func(reply any) // writes an answer without an error into the response; nil: it has nothing to write
}

// GroupOptions are what a broker has to know of consumer groups.
type GroupOptions struct {
	groups.Options
	OffsetMetadataBytesMax int // offset.metadata.max.bytes
	ExpireEveryMS          int // offsets.retention.check.interval.ms
}

// groupAnswerBytes is how large an answer about groups may become: what mail can lend
// for one, with room for names.
const groupAnswerBytes = 3 << 20

// DefaultGroupOptions are Kafka's defaults, and bounds that Kafka does not have. Every
// member may wait with a request: MembersMax leaves request slots of the control shard
// for others.
func DefaultGroupOptions() GroupOptions {
	return GroupOptions{
		Options: groups.Options{
			SessionTimeoutMinMS: 6000, SessionTimeoutMaxMS: 1800000, InitialRebalanceDelayMS: 3000, NewMemberTimeoutMS: 300000, OffsetsRetentionMS: 10080 * 60000,
			GroupSizeMax: 1024, MembersMax: 1536, GroupsMax: 8192, GroupBytesMax: 1 << 20, OffsetBytesMax: 2 << 20, BytesMax: 32 << 20,
			ConsumerSessionTimeoutMS: 45000, ConsumerHeartbeatIntervalMS: 5000, ConsumerGroupSizeMax: math.MaxInt32, ConsumersMax: 16384,
			Migration: cluster.MigrationPolicy{Upgrades: true, Downgrades: true},
		},
		OffsetMetadataBytesMax: 4096, ExpireEveryMS: 600000,
	}
}

// loadGroups takes up the groups of the control log.
func (c *control) loadGroups() {
	c.groups.tickets = map[uint64]ticket{}
	c.groups.live = groups.New(c.state, c.groupOptions(), c.groupTime())
	c.groups.expireAt = c.shard.Now() + ioring.Instant(c.o.Groups.ExpireEveryMS)*1e6
}

// groupOptions are the coordinator's rules as they are now.
func (c *control) groupOptions() groups.Options {
	options, node := c.started.Groups.Options, c.o.Nodes[0].ID
	options.InitialRebalanceDelayMS = c.state.BrokerNumber(node, cluster.RebalanceDelayMS, options.InitialRebalanceDelayMS)
	options.SessionTimeoutMinMS = c.state.BrokerNumber(node, cluster.SessionMinMS, options.SessionTimeoutMinMS)
	options.SessionTimeoutMaxMS = c.state.BrokerNumber(node, cluster.SessionMaxMS, options.SessionTimeoutMaxMS)
	options.GroupSizeMax = int(c.state.BrokerNumber(node, cluster.GroupSizeMax, int64(options.GroupSizeMax)))
	options.ConsumerSessionTimeoutMS = c.state.BrokerNumber(node, cluster.ConsumerSessionMS, options.ConsumerSessionTimeoutMS)
	options.ConsumerHeartbeatIntervalMS = c.state.BrokerNumber(node, cluster.ConsumerHeartbeatMS, options.ConsumerHeartbeatIntervalMS)
	options.ConsumerGroupSizeMax = int(c.state.BrokerNumber(node, cluster.ConsumerGroupSizeMax, int64(options.ConsumerGroupSizeMax)))
	if name, set := c.state.BrokerValue(node, cluster.ConsumerMigration); set {
		options.Migration, _ = cluster.ParseMigrationPolicy(name) // it was checked when it was set
	}
	if minutes := c.state.BrokerNumber(node, cluster.OffsetsRetentionMins, -1); minutes >= 0 {
		options.OffsetsRetentionMS = minutes * 60000
	}
	options.GroupBytesMax = min(options.GroupBytesMax, c.o.Engine.BatchBytesMax-commandRoom)
	return options
}

func (c *control) groupTime() groups.Time {
	return groups.Time{NowMS: int64(c.shard.Now()) / 1e6, WallMS: int64(c.shard.Wall())}
}

// coordinates says whether the node that was asked is the coordinator of all groups.
// Clients ask every node for its groups.
func (c *control) coordinates(asked shard.Origin) bool { return asked.Shard == 0 || c.o.OneNode() }

// startGroup starts a request to the coordinator.
func (c *control) startGroup(task *task) {
	if !c.coordinates(task.from) {
		task.fail(wholeRequest, kafka.NotCoordinator, "")
		return
	}
	task.api.start(c, task)
	c.groupEffects()
}

// await has the task wait for the coordinator's answer to a ticket. Where the method
// that is given the ticket returns an error for the whole request, there is none:
// withdraw.
func (c *control) await(task *task, taken func(reply any)) uint64 {
	c.groups.last++
	c.groups.tickets[c.groups.last] = ticket{task, taken}
	task.pending++
	return c.groups.last
}

// withdraw takes the last ticket back.
func (c *control) withdraw(task *task) {
	delete(c.groups.tickets, c.groups.last)
	task.pending--
}

// stepGroups does what is due.
func (c *control) stepGroups() {
	live := c.groups.live
	if live == nil {
		return
	}
	if c.shard.Stage() >= shard.StageDraining {
		live.Close()
	}
	live.Tick(c.groupTime())
	if c.shard.Now() >= c.groups.expireAt && c.shard.Stage() == shard.StageServing {
		live.Expire(c.groupTime())
		c.groups.expireAt = c.shard.Now() + ioring.Instant(c.o.Groups.ExpireEveryMS)*1e6
	}
	c.groupEffects()
}

// next is when stepGroups has something to do.
func (g *coordinator) next() ioring.Instant {
	if g.live == nil {
		return ioring.Never
	}
	due := g.expireAt
	if ms := g.live.Next(); ms < int64(ioring.Never)/1e6 {
		due = min(due, ioring.Instant(ms)*1e6)
	}
	return due
}

// idle says that no change of a group is on its way.
func (g *coordinator) idle() bool { return g.live == nil || !g.live.Waiting() }

// groupEffects does what the coordinator wants done.
func (c *control) groupEffects() {
	for _, effect := range c.groups.live.Effects() {
		if effect.Store {
			c.groups.stores = append(c.groups.stores, effect.Change)
			continue
		}
		waits := c.groups.tickets[effect.Ticket]
		delete(c.groups.tickets, effect.Ticket)
		if done, ok := effect.Reply.(groups.Done); ok && done.Code != kafka.None {
			waits.task.fail(wholeRequest, done.Code, "")
		} else if waits.taken != nil {
			waits.taken(effect.Reply)
		}
		c.done(waits.task)
	}
}

// nextGroups makes the changes that wait the next command. It says whether there is
// one; changes that only wait are over at once.
func (c *control) nextGroups() bool {
	g := &c.groups
	if len(g.stores) == 0 || g.yields && len(c.changes) > 0 {
		g.yields = false
		return false
	}
	count, size := 0, 0
	for count < len(g.stores) && (size == 0 || size+len(g.stores[count]) <= c.commandBytes()) {
		size += len(g.stores[count])
		count++
	}
	all := g.stores[:count]
	g.stores = slices.Clone(g.stores[count:])
	g.underWay, g.yields = count, true
	if size == 0 {
		c.groupsStored(kafka.None)
		return c.nextGroups()
	}
	c.current = change{kind: changeGroups, cmd: c.state.PlanGroups(all)}
	return true
}

// groupsStored tells the coordinator that the command under way is applied, or cannot
// be stored.
func (c *control) groupsStored(code kafka.ErrorCode) {
	count := c.groups.underWay
	c.groups.underWay = 0
	for range count {
		c.groups.live.Stored(c.groupTime(), code)
	}
	c.groupEffects()
}
