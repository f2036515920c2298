package control

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/cluster/groups"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/shard"
)

// This file connects consumer groups to the control shard, which coordinates all of them:
// groups.Coordinator decides, and its decisions become commands of the control log and
// answers to requests.
//
// Group commit without a timer: changes that arrive while a command is becoming durable
// are gathered, and become the next command.

// coordinator is the control shard's part in consumer groups: the live groups, the requests
// that wait for them, and their changes that are to be stored.
type coordinator struct {
	live     *groups.Coordinator // nil until the control log was read
	tickets  map[uint64]ticket   // by number: requests that wait for the coordinator's answer
	last     uint64              // the last ticket's number
	stores   [][]byte            // changes to be stored, in order; a nil one is done when those before it are
	underWay int                 // how many of them the command under way has
	yields   bool                // the last command was one of groups: another kind of change goes next, if one waits
	expireAt ioring.Instant      // when to look again for offsets that have expired
	told     uint64              // refusals that the log has
	tellAt   ioring.Instant      // no line about them before
}

// ticket is a task that waits for the coordinator's answer.
type ticket struct {
	task     *task
	onAnswer func(reply any) // writes an answer without an error into the response; nil: it has nothing to write
}

// GroupOptions are the rules for consumer groups.
type GroupOptions struct {
	groups.Options
	OffsetMetadataBytesMax int // offset.metadata.max.bytes
	ExpireEveryMS          int // offsets.retention.check.interval.ms
}

// groupAnswerBytes bounds an answer about groups. It is what mail can lend for one answer,
// less room for names.
const groupAnswerBytes = 3 << 20

// DefaultGroupOptions are Kafka's defaults, and bounds that Kafka does not have. As every
// classic member may have a request that waits, MembersMax is less than the request slots of
// the control shard.
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

// loadGroups makes the coordinator, with the groups that the control log has.
func (c *control) loadGroups() {
	c.groups.tickets = map[uint64]ticket{}
	c.groups.live = groups.New(c.state, c.groupOptions(), c.groupTime())
	c.groups.expireAt = c.shard.Now() + ioring.Instant(c.o.Groups.ExpireEveryMS)*1e6
}

// groupOptions returns the coordinator's rules as they are now: those the broker was started
// with, and what was set since.
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

// coordinates reports whether clients see the node that was asked as the coordinator. It is
// the control shard's, or the only one there is.
func (c *control) coordinates(asked shard.Origin) bool { return asked.Shard == 0 || c.o.OneNode() }

// startGroup starts a request of a key that is served at the coordinator.
func (c *control) startGroup(task *task) {
	if !c.coordinates(task.from) {
		task.fail(wholeRequest, kafka.NotCoordinator, "This node does not coordinate groups; FindCoordinator says which one does.")
		return
	}
	task.api.start(c, task)
	c.groupEffects()
}

// await has the task wait for the coordinator's answer, and returns the number of the ticket
// that the coordinator answers. Where the coordinator's method returns an error for the
// whole request no answer follows: see withdraw.
func (c *control) await(task *task, onAnswer func(reply any)) uint64 {
	c.groups.last++
	c.groups.tickets[c.groups.last] = ticket{task, onAnswer}
	task.pending++
	return c.groups.last
}

// withdraw ends the wait that the last await began.
func (c *control) withdraw(task *task) {
	delete(c.groups.tickets, c.groups.last)
	task.pending--
}

// stepGroups does what is due in groups: time-outs, and offsets that expire.
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
	c.tellRefusals()
}

// tellRefusalsNS is how often the log has a line about refusals, at most.
const tellRefusalsNS = 1e9

// tellRefusals logs that requests were refused because all groups together have what they
// may have.
func (c *control) tellRefusals() {
	refusals := c.groups.live.Refusals()
	if refusals.Count == c.groups.told || c.shard.Now() < c.groups.tellAt {
		return
	}
	client := ""
	if refusals.ClientID != "" {
		client = " of client " + strconv.Quote(refusals.ClientID)
	}
	what := [...]string{
		groups.GroupsBound:    "groups (--groups-max), and none is empty and without offsets: raise it, delete groups, or lower --offsets-retention",
		groups.MembersBound:   "members of classic groups as there may be",
		groups.ConsumersBound: "members of groups of the consumer protocol as there may be",
		groups.BytesBound:     "bytes of members and offsets as all groups may have, which is 4 KiB for each of --groups-max: raise it, or delete groups",
	}[refusals.Bound]
	c.shard.Logf(shard.Warn, fmt.Sprintf("a request%s for group %s is refused, and will be tried again: there are as many as %d %s; refused so far: ", client, strconv.Quote(refusals.Group), refusals.Max, what), int64(refusals.Count))
	c.groups.told, c.groups.tellAt = refusals.Count, c.shard.Now()+tellRefusalsNS
}

// Gauges reports how many groups there are, and what they have.
func (c *control) Gauges(report func(name string, used, peak, max int)) {
	if c.groups.live == nil {
		return
	}
	for bound, name := range [...]string{
		groups.GroupsBound: "groups", groups.MembersBound: "members of classic groups", groups.ConsumersBound: "members of consumer groups", groups.BytesBound: "group bytes",
	} {
		used, most := c.groups.live.Usage(groups.Bound(bound))
		report(name, used, 0, most)
	}
}

// next returns when stepGroups is due next.
func (g *coordinator) next() ioring.Instant {
	if g.live == nil {
		return ioring.Never
	}
	due := g.expireAt
	if g.live.Refusals().Count > g.told {
		due = min(due, g.tellAt)
	}
	if ms := g.live.Next(); ms < int64(ioring.Never)/1e6 {
		due = min(due, ioring.Instant(ms)*1e6)
	}
	return due
}

// idle reports that no change of a group waits to be stored.
func (g *coordinator) idle() bool { return g.live == nil || !g.live.Waiting() }

// groupEffects carries out what the coordinator has decided: changes to store, and answers.
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
		} else if waits.onAnswer != nil {
			waits.onAnswer(effect.Reply)
		}
		c.done(waits.task)
	}
}

// nextGroups gathers changes of groups into the next command, and reports whether there is
// one. It takes turns with other changes. Where all that it gathers are nil changes, they
// are done at once.
func (c *control) nextGroups() bool {
	g := &c.groups
	if len(g.stores) == 0 || g.yields && len(c.changes) > 0 {
		g.yields = false
		return false
	}
	// What removes goes into commands of its own: those are taken where there is little room.
	count, size, removes := 0, 0, false
	for ; count < len(g.stores); count++ {
		next := g.stores[count]
		if size > 0 && (size+len(next) > c.commandBytes() || len(next) > 0 && cluster.OnlyRemoves(next) != removes) {
			break
		}
		if size == 0 && len(next) > 0 {
			removes = cluster.OnlyRemoves(next)
		}
		size += len(next)
	}
	all := g.stores[:count]
	g.stores = slices.Clone(g.stores[count:])
	g.underWay, g.yields = count, true
	if size == 0 {
		c.groupsStored(kafka.None)
		return c.nextGroups()
	}
	c.current = change{kind: changeGroups, cmd: c.state.PlanGroups(all), removes: removes}
	return true
}

// groupsStored tells the coordinator that each change of the command under way is durable
// and applied, or could not be stored.
func (c *control) groupsStored(code kafka.ErrorCode) {
	count := c.groups.underWay
	c.groups.underWay = 0
	for range count {
		c.groups.live.Stored(c.groupTime(), code)
	}
	c.groupEffects()
}
