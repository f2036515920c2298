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

// control is what the control shard has beside a shard: the cluster's state, the
// log that makes it durable, the coordinator of groups, and the requests that are
// not hot. It lives on the control shard's core and may allocate on the Go heap;
// its live heap is bounded by the limits on topics, on requests in flight and on
// their size.
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
	loaded       int64    // offset of the next command to apply while loading; below 0 while it waits: see load
	grown        int      // what a start is estimated to pay for the commands since the last snapshot
	snapshotSize int      // bytes of the last snapshot
	rest         [][]byte // commands of the snapshot under way that are not appended yet
	snapshotAt   int64    // the offset at which it begins
	former       bool     // the log has commands of a former version: the next snapshot raises them

	// changes.go
	changes []change // in order
	current change   // the one under way
	stage   changeStage

	// data_shards.go
	numbers       map[[16]byte]int32 // topic id -> its number in every data shard's table of topics
	numbered      int32              // topics ever put into those tables in this life: the next number
	pendingLogOps map[logOp]logOpWaiter
	questions     map[uint32]question // by number: what waits for a data shard's answer
	asked         uint32              // the last question's number
	credit        int                 // mail that has to be answered and may be sent before an answer comes
	outgoing      []outgoing          // mail in order; it waits for memory or credit
	named         bool                // every data shard was sent its topics and logs
	serving       int                 // counts down from 0 as data shards begin to serve: see Mail
	shardsDone    int                 // data shards that have stopped

	// producer_ids.go
	ids       []*task // that wait for a producer id, in order
	reserving bool    // a block of ids is becoming durable
	early     int64   // Faults.ProducerIDTwice: the next id, which was not made durable

	groups coordinator // coordinator.go
}

// options are a shard's, and what only the control shard has to know.
type options struct {
	shard.Options
	Groups GroupOptions
}

// viewsMax is how many pieces of the control log are looked at in one go.
const viewsMax = 1 << 10

func newControl(host shard.Host, apis *table, with options, seed uint64) *control {
	c := &control{
		shard: host, engine: host.Engine(), state: cluster.New(), apis: apis, o: with, started: with, rand: rand.New(rand.NewPCG(seed, 0x7461696c)), views: make([]engine.View, viewsMax),
		numbers: map[[16]byte]int32{}, pendingLogOps: map[logOp]logOpWaiter{}, questions: map[uint32]question{}, credit: shard.OpenCredit,
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

// Step goes on with everything that can go on, and starts the broker's serving:
//
//	load the control log; send every data shard its topics; await their logs;
//	have them serve; await that; serve
func (c *control) Step() {
	switch c.shard.Stage() {
	case shard.StageLoading:
		c.load()
		return
	case shard.StageNaming:
		c.sendOutgoing() // the last of it may be mail that is not answered
		if c.named && len(c.outgoing) == 0 && len(c.pendingLogOps) == 0 && c.serving == 0 {
			c.serving = -1
			for i := 1; i <= c.o.DataShards; i++ {
				c.shard.Send(shard.Mail{Kind: shard.MailServe}, i)
			}
		}
	}
	c.stepGroups()
	c.stepChanges()
	c.sendOutgoing()
	c.sendAnswers()
}

// Next is when Step has something to do though nothing has happened.
func (c *control) Next() ioring.Instant { return c.groups.next() }

// Idle says that nothing is owed to any client or data shard.
func (c *control) Idle() bool {
	return c.tasks == 0 && len(c.answers) == 0 && c.stage == changeNone && len(c.changes) == 0 && c.groups.idle() && c.shardsDone == c.o.DataShards
}

// LogEvent takes what the engine says of the control log.
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

// Mail takes what data shard m.From tells or asks.
func (c *control) Mail(mail shard.Mail) {
	switch mail.Kind {
	case shard.MailRequest:
		c.forwarded(mail)
	case shard.MailOpenBatch:
		c.searchBatch(mail)
	case shard.MailOpened, shard.MailDeleted:
		c.logOpDone(logOp{mail.A, mail.Kind == shard.MailDeleted}, kafka.ErrorCode(mail.Code))
	case shard.MailConfigured, shard.MailTruncated, shard.MailSized, shard.MailProduced:
		c.answered(mail)
	case shard.MailServing:
		// serving is -1 from when they are told to serve, and one less for each that does.
		c.serving--
		if c.serving == -1-c.o.DataShards {
			c.shard.BeginServing()
		}
	case shard.MailStopped:
		c.shardsDone++
	}
}

// newUUID is a random UUID of version 4 (RFC 9562).
func (c *control) newUUID() (id [16]byte) {
	binary.LittleEndian.PutUint64(id[:8], c.rand.Uint64())
	binary.LittleEndian.PutUint64(id[8:], c.rand.Uint64())
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}
