package control

import (
	"encoding/binary"
	"math/rand/v2"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/mem"
	"github.com/tailbound/tailbound/shard"
)

// control is what the control shard has beside a shard: the cluster's state,
// the log that makes it durable, and the cold requests. It lives on the
// control shard's core and may allocate on the Go heap; its live heap is
// bounded by the limits on topics, on requests in flight and on their size.
//
// A change runs plan(); append(); await durable(); apply(), one at a time: a
// plan sees every change before it, and nobody sees a change that is not
// durable. What the data shards then have to do runs beside later changes.
type control struct {
	shard   *shard.Shard
	engine  *engine.Engine // the shard's
	state   *cluster.State
	o       options     // in force
	started options     // what the broker was started with
	slot    engine.Slot // of the control log
	rand    *rand.Rand
	reader  kafka.Reader // of forwarded requests
	pieces  [][]byte
	views   []engine.View

	loaded  int64 // offset of the next command to apply while loading
	changes []change
	current change
	stage   changeStage

	numbers   map[[16]byte]int32    // topic id -> its number in every data shard's table
	numbered  int32                 // topics ever put into those tables in this life: the next number
	confirm   map[awaited]confirmed // who waits for an open or a delete
	questions map[uint32]question   // by number: who waits for a data shard's answer
	asked     uint32                // the last question's number
	credit    int                   // mail that is to be answered and may be sent before an answer
	errands   []errand              // mail that waits for memory or credit
	answers   []answer              // answers that wait for memory
	tasks     int                   // cold requests not answered
	ids       []*task               // producers that wait for an id
	early     int64                 // Faults.ProducerIDTwice: the next id that nobody made durable
	reserving bool                  // a block of ids is becoming durable
	groups    coordinator

	grown        int      // what commands since the last snapshot are counted to cost at a start
	snapshotSize int      // of the last snapshot
	rest         [][]byte // parts of a snapshot not appended yet
	snapshotAt   int64    // where it begins
	former       bool     // the log has commands of a former version: the next snapshot raises them

	serving    int // data shards that serve
	shardsDone int // data shards that have stopped
	named      bool
}

type changeStage uint8

const (
	changeNone changeStage = iota
	changeAppend
	changeDurable
	changeSnapshot
)

// change is one command on its way: who wants it, and what for.
type change struct {
	kind       changeKind
	task       *task
	item       int // in the task's response
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
	end        int64 // the control log's offset behind it
}

type changeKind uint8

const (
	changeCreate changeKind = iota
	changeDelete
	changeDeleteID
	changeForget
	changeReserve
	changeGroups
	changeConfigure
	changeConfigureBroker
	changeConfigureGroup
	changeGrow
)

// awaited is what a data shard is to confirm. A log may be on its way in and
// out at once, for different tasks.
type awaited struct {
	log    uint64
	delete bool
}

type confirmed struct {
	task  *task
	item  int
	id    [16]byte
	grown bool // the topic is older than this log of it
}

// errand is mail for a data shard that is not sent yet.
type errand struct {
	to   int
	m    shard.Mail
	fill []byte // what to copy into a block, if anything
}

// task is a cold request under way.
type task struct {
	from     shard.Origin
	header   kafka.Request
	clientID string
	req      kmsg.Request
	resp     kmsg.Response
	pending  int              // changes, confirmations and answers it waits for
	topics   map[[16]byte]int // log dirs: where a topic is in the response
}

type answer struct {
	to    shard.Origin
	bytes []byte // nil: close the connection
}

const (
	snapshotAfter = 1 << 20 // beside what the last snapshot had, several times
	commandCost   = 256     // what a command is counted to cost, beside its bytes
	commandRoom   = 1 << 10 // for the batch around a command, and its header
	controlLogID  = format.ControlLogID
)

// options are a shard's, and what only the control shard has to know.
type options struct {
	shard.Options
	Groups GroupOptions
}

// API is what a broker serves beside the hot path, with these rules for consumer
// groups; without any: DefaultGroupOptions. All shards of a broker are given it.
func API(groups GroupOptions) *shard.API {
	if groups.SessionTimeoutMaxMS == 0 {
		groups = DefaultGroupOptions()
	}
	api := &shard.API{New: func(s *shard.Shard, o shard.Options, seed uint64) shard.Control {
		return newControl(s, options{o, groups}, seed)
	}}
	for v := range api.Versions {
		api.Versions[v] = apiVersionsBody(int16(v))
		api.VersionsInvalid[v] = apiVersionsInvalid(int16(v))
	}
	api.VersionsRefusal = apiVersionsRefusal()
	return api
}

// viewsMax is how many pieces of the control log are looked at in one go.
const viewsMax = 1 << 10

func newControl(s *shard.Shard, o options, seed uint64) *control {
	c := &control{
		shard: s, engine: s.Log(), state: cluster.New(), o: o, started: o, rand: rand.New(rand.NewPCG(seed, 0x7461696c)), views: make([]engine.View, viewsMax),
		numbers: map[[16]byte]int32{}, confirm: map[awaited]confirmed{}, questions: map[uint32]question{}, credit: shard.OpenCredit,
	}
	if slot, ok := c.engine.Lookup(controlLogID); ok {
		c.slot = slot
		c.loaded = c.engine.Start(slot)
	} else {
		c.engine.OpenLog(controlLogID, 0)
		c.loaded = -1
	}
	return c
}

// Idle says that nothing is owed to any client or data shard.
func (c *control) Idle() bool {
	return c.tasks == 0 && len(c.answers) == 0 && c.stage == changeNone && len(c.changes) == 0 && c.groups.idle() && c.shardsDone == c.o.DataShards
}

// Next is when Step has something to do though nothing has happened.
func (c *control) Next() ioring.Instant { return c.groups.next() }

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
func (c *control) Mail(m shard.Mail) {
	switch m.Kind {
	case shard.MailRequest:
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
	case shard.MailOpenBatch:
		c.openFor(m)
	case shard.MailOpened, shard.MailDeleted:
		c.confirmedBy(awaited{m.A, m.Kind == shard.MailDeleted}, kafka.ErrorCode(m.Code))
	case shard.MailConfigured, shard.MailTruncated, shard.MailSized, shard.MailProduced:
		c.answered(m)
	case shard.MailServing:
		c.serving--
		if c.serving == -1-c.o.DataShards {
			c.shard.BeginServing()
		}
	case shard.MailStopped:
		c.shardsDone++
	}
}

// Step moves everything that can move.
func (c *control) Step() {
	switch c.shard.Stage() {
	case shard.StageLoading:
		c.load()
		return
	case shard.StageNaming:
		c.runErrands() // of the last that has no answer nobody tells us
		if c.named && len(c.errands) == 0 && len(c.confirm) == 0 && c.serving == 0 {
			c.serving = -1
			for i := 1; i <= c.o.DataShards; i++ {
				c.shard.Send(shard.Mail{Kind: shard.MailServe}, i)
			}
		}
	}
	c.stepGroups()
	c.change()
	c.runErrands()
	c.sendAnswers()
}

// load applies the control log from its start: a snapshot, then what came
// after it.
func (c *control) load() {
	if c.loaded < 0 {
		return // the log is being created
	}
	for c.loaded < c.engine.Durable(c.slot) && !c.shard.Failed() {
		n, st := c.engine.Read(c.slot, c.loaded, c.engine.Durable(c.slot), 1<<20, c.views)
		switch st {
		case engine.OK:
			for _, v := range c.views[:n] {
				c.applyAll(v.Bytes)
				c.engine.Unpin(v.Pin)
			}
		case engine.NotCached:
			if c.engine.ReadDisk(c.slot, c.loaded, shard.ControlUser) == engine.OK {
				c.loaded = -c.loaded - 2 // readDone turns it back
			}
			return
		default:
			c.shard.Fatalf("the control log cannot be read at offset ", c.loaded)
			return
		}
	}
	if !c.shard.Failed() {
		c.name()
	}
}

func (c *control) loadRead(st engine.Status, read uint32) {
	c.loaded = -c.loaded - 2
	if st != engine.OK {
		c.shard.Fatalf("the control log cannot be read at offset ", c.loaded)
		return
	}
	n := c.engine.ReadViews(read, c.loaded, c.engine.Durable(c.slot), 1<<30, c.views)
	for _, v := range c.views[:n] {
		c.applyAll(v.Bytes)
		c.engine.Unpin(v.Pin)
	}
	c.engine.ReadEnd(read)
}

// applyAll applies the commands in stored batches, each once.
func (c *control) applyAll(b []byte) {
	for len(b) >= kafka.BatchHeaderBytes && !c.shard.Failed() {
		size := kafka.BatchBytes(b)
		base := kafka.BaseOffset(b)
		if base >= c.loaded {
			if cmd, ok := commandOf(b[:size]); ok {
				c.grown += commandCost + len(cmd)
				c.former = c.former || len(cmd) > 0 && cmd[0] < format.CommandVersion
				if err := c.state.Apply(cmd); err != nil && err != cluster.ErrReplayed {
					c.shard.Fatalf("the control log has a command this version cannot apply ("+err.Error()+") at offset ", base)
					return
				}
			}
			c.loaded = base + 1
		}
		b = b[size:]
	}
}

// name tells every data shard the topics and the logs it has of them.
func (c *control) name() {
	c.shard.BeginNaming()
	c.groupsLoaded()
	c.brokerConfigured()
	for _, t := range c.state.Topics() {
		c.announce(t, nil, 0, 0)
	}
	for _, t := range c.state.Tombstones() {
		c.erase(t, nil, 0)
	}
	c.named = true
	if c.former {
		c.snapshot()
	}
}

// announce tells all shards of a topic and its owners to open its logs, those of
// partition from and later.
func (c *control) announce(t *cluster.Topic, by *task, item, from int) {
	number, known := c.numbers[t.ID]
	if !known {
		number = c.numbered
		c.numbers[t.ID] = number
		c.numbered++
	}
	for i := 1; i <= c.o.DataShards; i++ {
		fill := shard.AppendTopicMail(nil, t, c.state.LogConfig(t, c.o.Nodes[i].ID))
		c.errands = append(c.errands, errand{to: i, m: shard.Mail{Kind: shard.MailTopic, A: uint64(len(t.Partitions)), B: uint64(number)}, fill: fill})
	}
	for i, p := range t.Partitions {
		if i < from {
			continue
		}
		if by != nil {
			by.pending++
		}
		c.confirm[awaited{p.LogID, false}] = confirmed{task: by, item: item, id: t.ID, grown: from > 0}
		c.errands = append(c.errands, errand{to: format.Place(p.LogID, c.o.DataShards), m: shard.Mail{Kind: shard.MailOpen, A: p.LogID, B: uint64(number)<<32 | uint64(i)}})
	}
}

// erase tells all shards to forget a topic and its owners to delete its logs.
func (c *control) erase(t *cluster.Topic, by *task, item int) {
	number, known := c.numbers[t.ID]
	for _, p := range t.Partitions {
		if by != nil {
			by.pending++
		}
		c.confirm[awaited{p.LogID, true}] = confirmed{task: by, item: item, id: t.ID}
		c.errands = append(c.errands, errand{to: format.Place(p.LogID, c.o.DataShards), m: shard.Mail{Kind: shard.MailDelete, A: p.LogID}})
	}
	if known {
		delete(c.numbers, t.ID)
		for i := 1; i <= c.o.DataShards; i++ {
			c.errands = append(c.errands, errand{to: i, m: shard.Mail{Kind: shard.MailForget, B: uint64(number)}})
		}
	}
}

// runErrands sends mail while there is memory and credit, in order.
func (c *control) runErrands() {
	done := 0
	for _, e := range c.errands {
		answered := e.m.Kind == shard.MailOpen || e.m.Kind == shard.MailDelete || e.m.Serial != 0
		if answered && c.credit == 0 {
			break
		}
		if len(e.fill) > 0 {
			block, ok := c.shard.MailMemory().Get(len(e.fill))
			if !ok {
				break
			}
			copy(block.Bytes(), e.fill)
			e.m.Block = block
		}
		if answered {
			c.credit--
		}
		c.shard.Send(e.m, e.to)
		done++
	}
	c.errands = c.errands[done:]
	if len(c.errands) == 0 {
		c.errands = nil
	}
}

// confirmedBy takes a data shard's word that a log is open or gone.
func (c *control) confirmedBy(a awaited, code kafka.ErrorCode) {
	c.credit++
	w, ok := c.confirm[a]
	if !ok {
		return
	}
	delete(c.confirm, a)
	if a.delete && code == kafka.None {
		if t, gone := c.tombstone(w.id); gone && c.allDeleted(t) {
			c.changes = append(c.changes, change{kind: changeForget, id: w.id})
		}
	}
	if w.task == nil {
		if code != kafka.None {
			c.shard.Logf(shard.Warn, "a log could not be opened or deleted: log ", int64(a.log))
		}
		return
	}
	if code != kafka.None {
		w.task.fail(w.item, code, "The partition's log could not be changed: its storage refused.")
		if !a.delete && !w.grown {
			c.changes = append(c.changes, change{kind: changeDeleteID, id: w.id})
		}
	}
	c.less(w.task)
}

func (c *control) tombstone(id [16]byte) (*cluster.Topic, bool) {
	for _, t := range c.state.Tombstones() {
		if t.ID == id {
			return t, true
		}
	}
	return nil, false
}

func (c *control) allDeleted(t *cluster.Topic) bool {
	for _, p := range t.Partitions {
		if _, waits := c.confirm[awaited{p.LogID, true}]; waits {
			return false
		}
	}
	return true
}

// change drives the one change under way: plan, append, await, apply.
func (c *control) change() {
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
			switch c.append(c.current.cmd) {
			case engine.OK:
				c.current.end = c.engine.End(c.slot)
				c.stage = changeDurable
				if c.current.kind == changeGroups && c.o.Faults.CommitAckedEarly {
					c.groupsStored(kafka.None)
				}
			case engine.WaitMemory, engine.WaitRoom:
				return
			default:
				c.stage = changeNone
				c.refuse(&c.current, kafka.KafkaStorageError, "The control log cannot be written; see the broker's log.")
			}
		case changeDurable:
			if c.engine.Durable(c.slot) < c.current.end {
				if !c.shard.Failed() {
					return
				}
				c.stage = changeNone
				c.refuse(&c.current, kafka.KafkaStorageError, "The control log cannot be written; see the broker's log.")
				continue
			}
			c.stage = changeNone
			c.applied(&c.current)
		case changeSnapshot:
			if !c.appendSnapshot() {
				return
			}
			c.stage = changeNone
		}
	}
}

// plan makes the command of a change, or answers why not.
func (c *control) plan(x *change) bool {
	var r *cluster.Refusal
	switch x.kind {
	case changeCreate:
		binary.LittleEndian.PutUint64(x.id[:8], c.rand.Uint64())
		binary.LittleEndian.PutUint64(x.id[8:], c.rand.Uint64())
		x.id[6] = x.id[6]&0x0f | 0x40 // UUID version 4, RFC 9562
		x.id[8] = x.id[8]&0x3f | 0x80
		x.cmd, r = c.state.PlanCreateOn(x.name, x.partitions, x.replicas, x.on, x.configs, x.id, c.limits())
		if r == nil && x.task.validateOnly() {
			c.less(x.task)
			return false
		}
	case changeDelete:
		if t, ok := c.state.Topic(x.name); ok {
			x.id = t.ID
		}
		x.cmd, r = c.state.PlanDelete(x.name)
	case changeDeleteID:
		x.cmd, r = c.state.PlanDeleteID(x.id)
	case changeForget:
		x.cmd, r = c.state.PlanForget(x.id)
	case changeReserve:
		x.cmd, r = c.state.PlanReserveProducerIDs(cluster.ProducerIDBlock)
	case changeGrow:
		if x.cmd, r = c.state.PlanGrow(x.name, x.partitions, x.on, c.limits()); r == nil {
			t, _ := c.state.Topic(x.name)
			x.id, x.had = t.ID, len(t.Partitions)
			if x.task.validateOnly() {
				c.less(x.task)
				return false
			}
		}
	case changeConfigure:
		if x.cmd, r = c.state.PlanConfigure(x.name, x.edits, x.replace, c.limits()); r == nil && (x.cmd == nil || x.task.validateOnly()) {
			c.less(x.task)
			return false
		}
	case changeConfigureBroker:
		if x.cmd, r = c.state.PlanConfigureBroker(x.node, c.o.Nodes[0].ID, x.edits, x.replace, c.startedNumber, c.limits()); r == nil && (x.cmd == nil || x.task.validateOnly()) {
			c.less(x.task)
			return false
		}
	case changeConfigureGroup:
		if x.cmd, r = c.state.PlanConfigureGroup(x.name, c.o.Nodes[0].ID, x.edits, x.replace, c.startedNumber, c.limits()); r == nil && (x.cmd == nil || x.task.validateOnly()) {
			c.less(x.task)
			return false
		}
	}
	if r != nil {
		c.refuse(x, r.Code, r.Message)
		return false
	}
	return true
}

func (c *control) refuse(x *change, code kafka.ErrorCode, message string) {
	if x.kind == changeGroups {
		c.groupsStored(kafka.NotCoordinator) // as Kafka: clients ask again, who the coordinator is first
	}
	if x.kind == changeReserve {
		c.reserving = false
		for _, t := range c.ids {
			t.fail(0, code, message)
			c.less(t)
		}
		c.ids = nil
	}
	if x.task == nil {
		return
	}
	x.task.fail(x.item, code, message)
	c.less(x.task)
}

// applied makes a durable change visible and starts what follows from it.
func (c *control) applied(x *change) {
	if err := c.state.Apply(x.cmd); err != nil {
		c.shard.Fatalf("a planned change could not be applied ("+err.Error()+") at offset ", x.end-1)
		return
	}
	c.grown += commandCost + len(x.cmd)
	switch x.kind {
	case changeGroups:
		c.groupsStored(kafka.None)
	case changeCreate:
		t, _ := c.state.Topic(x.name)
		c.announce(t, x.task, x.item, 0)
	case changeReserve:
		c.reserving = false
		c.giveIDs()
	case changeDelete, changeDeleteID:
		if t, ok := c.tombstone(x.id); ok {
			c.erase(t, x.task, x.item)
		}
	case changeGrow:
		t, _ := c.state.TopicByID(x.id)
		c.announce(t, x.task, x.item, x.had)
	case changeConfigure:
		t, _ := c.state.Topic(x.name)
		c.tellConfig(t, x.task, x.item)
	case changeConfigureBroker:
		c.brokerConfigured()
		for _, t := range c.state.Topics() {
			c.tellConfig(t, x.task, x.item)
		}
	}
	if x.task != nil {
		c.less(x.task)
	}
	c.snapshot()
}

// snapshot begins to rewrite the state at the end of a log grown long. It is
// due when a start would read several times what the state has, so that it
// costs a small part of what is written anyway; or at once, where a former
// version wrote some of it.
func (c *control) snapshot() {
	if c.grown < snapshotAfter+4*c.snapshotSize && !c.former || c.shard.Failed() {
		return
	}
	c.rest, c.snapshotSize = c.state.Snapshot(c.commandBytes()), 0
	for _, cmd := range c.rest {
		c.snapshotSize += len(cmd)
	}
	c.snapshotAt = c.engine.End(c.slot)
	c.stage = changeSnapshot
}

// appendSnapshot appends the rest of a snapshot, as far as there is memory for
// it, and lets go of what lies before it at its end. It says whether it is over.
// Nothing else is appended in between.
func (c *control) appendSnapshot() bool {
	for len(c.rest) > 0 {
		switch c.append(c.rest[0]) {
		case engine.OK:
			c.rest = c.rest[1:]
		case engine.WaitMemory, engine.WaitRoom:
			return false
		default: // an unfinished snapshot is not applied; it is tried again, not soon
			c.rest, c.former = nil, false
			c.grown /= 2
			return true
		}
	}
	if c.former {
		c.former = false
		c.shard.Logf(shard.Info, "the data directory is raised: versions of Tailbound before "+format.ThisRelease.String()+" do not open it any more. Commands of the control log were rewritten in version ", format.CommandVersion)
	}
	c.rest, c.grown = nil, 0
	c.engine.TruncateBefore(c.slot, c.snapshotAt, shard.ControlUser)
	return true
}

// commandBytes is a good size for a command that gathers things: large enough
// to cost little for each, small enough for two of them to be on their way.
func (c *control) commandBytes() int { return min(256<<10, c.o.Engine.BatchBytesMax-commandRoom) }

// append reserves, fills and commits a batch of one command.
func (c *control) append(cmd []byte) engine.Status {
	batch := commandBatch(cmd, int64(c.shard.Wall()))
	dst, base, st := c.engine.Reserve(c.slot, len(batch))
	if st == engine.OK {
		copy(dst, batch)
		kafka.PatchBase(dst, base, c.shard.LeaderEpoch())
		c.engine.Commit(engine.Meta{Count: 1, MaxTime: int64(c.shard.Wall()), CRC: kafka.BatchCRC(dst)})
	}
	return st
}

// less counts one thing done for a task, and answers when it was the last.
func (c *control) less(t *task) {
	t.pending--
	if t.pending > 0 {
		return
	}
	c.finish(t)
}

// Accept takes a cold request: from a connection of this shard, or by mail.
func (c *control) Accept(from shard.Origin, h kafka.Request, body []byte) {
	c.tasks++
	req := kmsg.RequestForKey(h.Key)
	if req == nil {
		c.answer(from, nil)
		return
	}
	req.SetVersion(h.Version)
	if err := req.ReadFrom(body); err != nil {
		c.shard.Logf(shard.Warn, "malformed request, connection closed: key ", int64(h.Key))
		c.answer(from, nil)
		return
	}
	if n := named(req); n > c.namesMax() {
		c.shard.Logf(shard.Warn, "a request names more topics or partitions than there can be, connection closed: ", int64(n))
		c.answer(from, nil)
		return
	}
	t := &task{from: from, header: h, clientID: string(h.ClientID[:min(len(h.ClientID), clientIDBytesMax)]), req: req, resp: req.ResponseKind(), pending: 1}
	t.header.ClientID = nil
	c.start(t)
	c.less(t)
}

// clientHost is the address a request came from as Kafka writes it: /10.1.2.3.
func (t *task) clientHost() string { return string(t.from.Peer.Append([]byte("/"))) }

// finish encodes a task's response and answers it.
func (c *control) finish(t *task) {
	switch r := t.req.(type) {
	case *kmsg.MetadataRequest:
		c.metadata(t.from.Listener, r, t.resp.(*kmsg.MetadataResponse))
	case *kmsg.CreateTopicsRequest:
		if !r.ValidateOnly {
			c.createdIDs(t.from.Shard, t.resp.(*kmsg.CreateTopicsResponse))
		}
	}
	if t.resp == nil {
		c.answer(t.from, nil)
		return
	}
	t.resp.SetVersion(t.header.Version)
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 1024), uint32(t.header.Correlation))
	if t.resp.IsFlexible() && t.header.Key != int16(kmsg.ApiVersions) {
		b = append(b, 0)
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
		a := c.answers[0]
		var block mem.Block
		if len(a.bytes) > 0 {
			var ok bool
			if block, ok = c.shard.MailMemory().Get(len(a.bytes)); !ok {
				if len(a.bytes) <= c.shard.MailMemory().Max() {
					return
				}
				c.shard.Logf(shard.Error, "an answer is larger than the memory for answers, connection closed: bytes ", int64(len(a.bytes)))
			} else {
				copy(block.Bytes(), a.bytes)
			}
		}
		c.answers = c.answers[1:]
		c.tasks--
		if a.to.Shard != 0 {
			c.shard.Send(shard.Mail{Kind: shard.MailReply, Slot: a.to.Slot, Serial: a.to.Serial, Block: block}, a.to.Shard)
			continue
		}
		c.shard.Answer(a.to.Slot, block)
	}
	c.answers = nil
}

// commandBatch is a command as a record batch of one record, so that the
// control log reads like any other log.
func commandBatch(cmd []byte, wall int64) []byte {
	return kafka.AppendBatch(nil, wall, nil, cmd)
}

// commandOf is the command in a stored batch.
func commandOf(b []byte) ([]byte, bool) {
	it := kafka.Records(b)
	r, ok := it.Next()
	if !ok {
		return nil, false
	}
	return r.Value, true
}
