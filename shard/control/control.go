package control

import (
	"encoding/binary"
	"math/rand/v2"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/shard"
)

// control is what the control shard has that other shards have not: the cluster's state,
// the log that makes it durable, the coordinator of groups, and the requests that are not
// hot. It lives on the control shard's core and no other thread touches it. It may allocate
// on the Go heap; its live heap is bounded by the limits on topics, on requests in flight
// and on their size.
type control struct {
	shard   shard.Host
	engine  *engine.Engine // the shard's
	state   *cluster.State
	apis    *table
	o       options // in force
	started options // what the broker was started with
	rand    *rand.Rand
	reader  kafka.Reader // of forwarded requests
	pieces  [][]byte     // the one that reader reads

	// requests.go
	tasks   int      // requests that were accepted and are not answered
	answers []answer // in order; they wait for memory

	// log.go
	slot         engine.Slot // of the control log
	views        []engine.View
	loaded       int64    // offset of the next command to apply while loading; below 0 while a read is awaited: see load
	grown        int      // estimated cost, at a start, of the commands since the last snapshot, in bytes
	snapshotSize int      // bytes of the last snapshot
	rest         [][]byte // commands of the snapshot under way that are not appended yet
	snapshotAt   int64    // the offset at which that snapshot begins
	former       bool     // the log has commands in a former version's format; the next snapshot rewrites them
	spread       bool     // the log began this life in more than one segment, as after a crash that cut a rewrite
	rewriting    bool     // the snapshot under way goes into a segment of its own: see rewrite

	// changes.go
	changes []change // in order
	current change   // the one under way
	stage   changeStage
	resumed changeStage // after a snapshot

	// data_shards.go
	numbers       map[[16]byte]int32 // topic id -> its number in every data shard's table of topics
	numbered      int32              // topics ever put into those tables in this life: the next number
	pendingLogOps map[logOp]logOpWaiter
	questions     map[uint32]question // by number: tasks that wait for a data shard's answer
	asked         uint32              // the last question's number
	credit        int                 // how much more mail that has to be answered may be sent before an answer comes
	outgoing      []outgoing          // mail that waits for memory or credit, in order
	named         bool                // all topics and logs are in outgoing, or were sent
	serving       int                 // 0; then -1 less the number of data shards that serve: see Mail
	shardsDone    int                 // data shards that have stopped
	gaveUp        bool                // GiveUp was called; no new request or change begins

	// producer_ids.go
	ids       []*task // requests that wait for a producer id, in order
	reserving bool    // the change that reserves the next block of ids is under way
	early     int64   // Faults.ProducerIDTwice: the next id, which no durable block has

	groups coordinator // coordinator.go

	// room.go
	room roomWatch
	kept keptSegment
}

// options are a shard's options, and those that only the control shard needs.
type options struct {
	shard.Options
	Groups GroupOptions
}

// viewsMax is how many slices of the control log one read returns at most.
const viewsMax = 1 << 10

func newControl(host shard.Host, apis *table, with options, seed uint64) *control {
	c := &control{
		shard: host, engine: host.Engine(), state: cluster.New(), apis: apis, o: with, started: with, rand: rand.New(rand.NewPCG(seed, 0x7461696c)), views: make([]engine.View, viewsMax),
		room: roomWatch{short: make([]bool, with.DataShards+1)}, numbers: map[[16]byte]int32{}, pendingLogOps: map[logOp]logOpWaiter{}, questions: map[uint32]question{}, credit: shard.OpenCredit,
	}
	if slot, ok := c.engine.Lookup(controlLogID); ok {
		c.slot = slot
		c.loaded = c.engine.Start(slot)
	} else {
		c.engine.OpenLog(controlLogID, 0)
		c.loaded = loadedNothing
	}
	return c
}

// Step advances everything that can advance. At a start it stands for this function:
//
//	load(control log); announceAll(); await all logs open;
//	tell the data shards to serve; await serving; serve
func (c *control) Step() {
	switch c.shard.Stage() {
	case shard.StageLoading:
		c.load()
		return
	case shard.StageNaming:
		c.sendOutgoing() // first: the last of it may be mail that has no answer to wait for
		if c.named && len(c.outgoing) == 0 && len(c.pendingLogOps) == 0 && c.serving == 0 {
			c.serving = -1
			for i := 1; i <= c.o.DataShards; i++ {
				c.shard.Send(shard.Mail{Kind: shard.MailServe}, i)
			}
		}
	}
	if c.shard.Stage() == shard.StageServing {
		c.reload()
	}
	c.stepRoom()
	c.keepNext()
	c.stepGroups()
	c.stepChanges()
	if c.gaveUp {
		c.dropOutgoing() // mail of the change that was under way
	}
	c.sendOutgoing()
	c.sendAnswers()
}

// Next returns when Step is due next, where nothing else happens before.
func (c *control) Next() ioring.Instant { return min(c.groups.next(), c.room.due(), c.keptDue()) }

// Idle reports that no client and no data shard waits for the control.
func (c *control) Idle() bool {
	return c.tasks == 0 && len(c.answers) == 0 && c.stage == changeNone && len(c.changes) == 0 && c.groups.idle() && c.shardsDone == c.o.DataShards
}

// GiveUp drops what would delay a stop: changes that have not begun, and mail to data shards
// that was not sent. Clients can have requested any amount of both. Connections of such
// requests are closed, because neither success nor failure would be true. What data shards
// have not done for a durable change is done at the next start, as after a crash: the logs
// of a topic are opened, those of a deleted topic are deleted.
func (c *control) GiveUp() {
	c.gaveUp = true
	changes := c.changes
	c.changes = nil
	for i := range changes {
		if changes[i].kind == changeReserve {
			c.abandonIDs()
		}
		c.abandon(changes[i].task)
	}
	c.dropOutgoing()
}

// LogEvent takes an event of the engine, which is about the control log.
func (c *control) LogEvent(ev engine.Event) {
	switch ev.Kind {
	case engine.ReadDone:
		if ev.User != shard.ControlUser {
			panic("control: a read of the control shard that is not the control log's")
		}
		c.loadRead(ev.Status, ev.Read)
	case engine.Opened:
		c.slot, c.loaded = ev.Slot, 0
		if ev.Status != engine.OK {
			c.shard.Fatalf("the control log cannot be created: status ", int64(ev.Status))
		}
	}
}

// Mail takes mail of data shard mail.From.
func (c *control) Mail(mail shard.Mail) {
	switch mail.Kind {
	case shard.MailRequest:
		c.forwarded(mail)
	case shard.MailOpenBatch:
		c.searchBatch(mail)
	case shard.MailOpened, shard.MailDeleted:
		c.logOpDone(logOp{mail.A, mail.Kind == shard.MailDeleted}, kafka.ErrorCode(mail.Code))
	case shard.MailConfigured, shard.MailTruncated, shard.MailSized, shard.MailProduced, shard.MailLost:
		c.answered(mail)
	case shard.MailServing:
		// Step sets serving to -1 when it tells the data shards to serve; each that does
		// takes one more away.
		c.serving--
		if c.serving == -1-c.o.DataShards {
			c.shard.BeginServing()
		}
	case shard.MailNoRoom:
		c.roomShort(mail)
	case shard.MailRoom:
		c.roomBack(mail)
	case shard.MailStopped:
		c.shardsDone++
	}
}

// newUUID returns a random UUID of version 4 (RFC 9562).
func (c *control) newUUID() (id [16]byte) {
	binary.LittleEndian.PutUint64(id[:8], c.rand.Uint64())
	binary.LittleEndian.PutUint64(id[8:], c.rand.Uint64())
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}
