package shard

import (
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/mem"
)

// This file is the door between a shard and what makes one of them the control
// shard. Room shard/control stands behind it: it decodes every key that is not
// hot, may use the heap, and drives the shard it was made for from within that
// shard's turns, on the same thread. Everything it may do to the shard is below.

// API is what a broker serves. All its shards share one; it is not changed once a
// shard has it.
type API struct {
	// Keys says of each key whether, in which versions and where it is served. A
	// shard reads it once for each request.
	Keys [kafka.KeysMax]Served

	// New makes the control of the control shard, within Open.
	New func(s *Shard, o Options, seed uint64) Control

	// Answers to ApiVersions, each without its correlation id: by version; of a
	// client that names its software as KIP-511 does not allow, from version 3
	// on; and to a version that is not served, which is of version 0.
	Versions        [kafka.ApiVersionsMax + 1][]byte
	VersionsInvalid [kafka.ApiVersionsMax + 1][]byte
	VersionsRefusal []byte
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

// Control is the machine that makes a shard the control shard. Only the shard's
// own turn calls it.
type Control interface {
	// Accept takes a whole request that came to the control shard's own port.
	// Header and body are the control's from here on. It is answered by Answer.
	Accept(from Origin, h kafka.Request, body []byte)
	// Mail takes what a data shard tells or asks the control shard.
	Mail(m Mail)
	// LogEvent takes what the engine says of the control log: that it is open,
	// or that a read with ControlUser has ended.
	LogEvent(ev engine.Event)
	// Step goes on with everything that can go on: once a turn, and what it
	// appends is in the frame that the turn writes.
	Step()
	// Next is when Step has something to do though nothing has happened.
	Next() ioring.Instant
	// Idle says that nothing is owed to any client or data shard.
	Idle() bool
}

// Origin is where a request for the control shard came from: a slot of its own
// table of requests, or of a data shard's.
type Origin struct {
	Shard    int
	Slot     uint32
	Serial   uint32
	Listener uint8          // by which the client came
	Peer     ioring.Address // the client's
}

// ControlUser marks the control log's own reads among the engine's events.
const ControlUser = ^uint32(0)

// Now is the time of the present turn.
func (s *Shard) Now() ioring.Instant { return s.now }

// Wall is the wall-clock time of the present turn.
func (s *Shard) Wall() Wall { return s.wall }

// Stage is where the shard is in its life.
func (s *Shard) Stage() Stage { return s.stage }

// LeaderEpoch is the leader epoch of every partition in this life of the
// directory.
func (s *Shard) LeaderEpoch() int32 { return s.partitions.leaderEpoch }

// Log is the shard's engine. The control shard's has one log, the control log.
func (s *Shard) Log() *engine.Engine { return s.engine }

// MailMemory is where blocks that are lent to other shards, or sent from, come
// from. What a data shard was lent comes home with MailGiveBack.
func (s *Shard) MailMemory() *mem.Buddy { return s.mailMem }

// Send puts mail into the outbox of a shard, behind what is there.
func (s *Shard) Send(m Mail, to int) { s.outbox.put(m, to) }

// Answer ends a request of the control shard's own port: b is the whole answer,
// in MailMemory, which gets it back once it is sent. A zero block closes the
// connection.
func (s *Shard) Answer(slot uint32, b mem.Block) {
	s.sendWhole(&s.requests.all[slot], b)
}

// BeginNaming ends StageLoading: the control log was read.
func (s *Shard) BeginNaming() { s.stage = StageNaming }

// BeginServing ends StageNaming: every data shard listens, and so does this one.
func (s *Shard) BeginServing() {
	s.stage = StageServing
	s.listen()
}

// Logf writes a line for the operator: what, then a number that says which or
// how many.
func (s *Shard) Logf(level Level, what string, n int64) { s.lines.writef(level, what, n) }

// Fatalf writes a line as Logf does, and stops the shard: it cannot go on. What
// it has stored is intact.
func (s *Shard) Fatalf(what string, n int64) { s.fatalf(what, n) }
