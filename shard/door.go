package shard

import (
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/mem"
)

// This file is the door between a shard and package shard/control, which makes one of
// the shards the control shard: it serves every API key that a data shard does not,
// and may use the heap. It runs within the turns of the shard that it was made for, on
// the same thread. The shard calls it by Control; it calls the shard by Host.

// API is what a broker serves. All its shards share one, which does not change after
// Open.
type API struct {
	// Keys says of each key whether, in which versions and where it is served. A
	// shard reads it once for each request.
	Keys [kafka.KeysMax]Served

	// New makes the control of the control shard, within Open.
	New func(host Host, o Options, seed uint64) Control

	// Replies to ApiVersions, each without its correlation id: by version; from
	// version 3 on, to a client that names its software in a way that KIP-511 does
	// not allow; in 5, to one that means another node or cluster (KIP-1242); and, of
	// version 0, to a version that is not served.
	Versions          [kafka.ApiVersionsMax + 1][]byte
	VersionsInvalid   [kafka.ApiVersionsMax + 1][]byte
	VersionsElsewhere [kafka.ApiVersionsMax + 1][]byte
	VersionsRefusal   []byte
}

// Served is how a key is served.
type Served struct {
	Where    Where
	Versions kafka.Versions // a request of another version is refused
}

// Where says which shard answers a key's requests.
type Where uint8

const (
	// NotServed: the connection of such a request is closed.
	NotServed Where = iota
	// AtLeader: the data shard that was asked, for the partitions that it leads,
	// without the heap. These are the hot keys. The control shard leads none, and
	// says so where its own port is asked.
	AtLeader
	// AtControl: the control shard, whichever node was asked.
	AtControl
	// AtCoordinator: the control shard, which coordinates all groups. Where another
	// node was asked, it answers that this one does not.
	AtCoordinator
	// AtEveryNode: the shard that was asked, from an answer made at start.
	AtEveryNode
)

// served is how a request's key is served.
func (a *API) served(key int16) Served {
	if key < 0 || key >= kafka.KeysMax {
		return Served{}
	}
	return a.Keys[key]
}

// Control is what makes a shard the control shard. Only the shard's own turn calls it.
type Control interface {
	// Accept takes a request that came to the control shard's own port. Header and
	// body belong to the control from now on. Answer answers it.
	Accept(from Origin, h kafka.Request, body []byte)
	// Mail takes mail from a data shard.
	Mail(m Mail)
	// LogEvent takes the engine's events of the control log: it is open, or a read
	// with ControlUser has ended.
	LogEvent(ev engine.Event)
	// Step does what has become possible, once a turn. The frame that the turn writes
	// has what Step appends.
	Step()
	// Next is when Step has something to do even if nothing happens before.
	Next() ioring.Instant
	// Idle says that no client and no data shard waits for an answer.
	Idle() bool
	// Gauges reports how full the control's own pools are, one call each.
	Gauges(report func(name string, used, peak, max int))
	// GiveUp drops what would delay a stop: changes that have not begun, and mail to data
	// shards that was not sent. Idle becomes true when what is under way has ended.
	GiveUp()
}

// Origin is the request that the control answers: a slot of its own shard's table of
// requests, or of a data shard's.
type Origin struct {
	Shard    int
	Slot     uint32
	Serial   uint32
	Listener uint8          // that the client has connected to
	Peer     ioring.Address // the client's address
}

// ControlUser is the user of the reads of the control log among the engine's events.
const ControlUser = ^uint32(0)

// Host is the control's shard: all that the control may do to it.
type Host struct{ shard *Shard }

// Now is the time of the present turn.
func (h Host) Now() ioring.Instant { return h.shard.now }

// Wall is the wall-clock time of the present turn.
func (h Host) Wall() Wall { return h.shard.wall }

// Stage is where the shard is between start and stop.
func (h Host) Stage() Stage { return h.shard.stage }

// Settings are other settings that the control shard has not acted on yet; nil: there are
// none. They are told once.
func (h Host) Settings() *Settings {
	settings := h.shard.post.reload.Load()
	if settings != nil && h.shard.post.reload.CompareAndSwap(settings, nil) {
		h.shard.limitConnections()
		return settings
	}
	return nil
}

// Failed says that the shard appends and acknowledges nothing more.
func (h Host) Failed() bool { return h.shard.failed }

// LeaderEpoch is the leader epoch of every partition, until the broker stops.
func (h Host) LeaderEpoch() int32 { return h.shard.partitions.leaderEpoch }

// Engine has the control log. On the control shard it has no other log.
func (h Host) Engine() *engine.Engine { return h.shard.engine }

// MailMemory has the blocks that are lent to data shards, which give them back with
// MailGiveBack, and those that Answer takes.
func (h Host) MailMemory() *mem.Buddy { return h.shard.mailMem }

// Send sends mail to a shard.
func (h Host) Send(m Mail, to int) { h.shard.outbox.put(m, to) }

// Answer answers a request of the control shard's own port. The block has the whole
// reply; it is of MailMemory, and returns there when the reply has left. A zero block
// closes the connection.
func (h Host) Answer(slot uint32, block mem.Block) {
	h.shard.sendWhole(&h.shard.requests.all[slot], block)
}

// BeginNaming ends StageLoading: the control log is read.
func (h Host) BeginNaming() { h.shard.stage = StageNaming }

// BeginServing ends StageNaming: every data shard listens, and so does this one. A shard
// that was told to stop meanwhile does not begin.
func (h Host) BeginServing() {
	if h.shard.stage == StageNaming {
		h.shard.stage = StageServing
		h.shard.listen()
	}
}

// Logf writes a log line of a text and a number.
func (h Host) Logf(level Level, what string, n int64) { h.shard.lines.writef(level, what, n) }

// Log writes a log line.
func (h Host) Log(level Level, text string) { h.shard.lines.write(level, h.shard.lines.begin(text)) }

// CountNoRoom counts a change that was refused because the control log finds no room.
func (h Host) CountNoRoom() { h.shard.Timelines.Counters.NoRoom++ }

// Fatalf writes a line as Logf does, and stops the shard, which cannot go on. What it
// has acknowledged is in its files.
func (h Host) Fatalf(what string, n int64) { h.shard.fatalf(what, n) }
