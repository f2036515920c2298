package broker

import (
	"encoding/base64"

	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/engine/recovery"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
	"github.com/tailbound/tailbound/shard"
	"github.com/tailbound/tailbound/shard/control"
)

// Broker is the shards of a process, and the mail between them.
type Broker struct {
	Boot   *engine.RecoveredState // what opening the data directory found
	post   *shard.Post
	shards []*shard.Shard // [0] is the control shard
}

// Machine is what a broker runs on: threads with an io_uring each, or the simulator's
// world.
type Machine interface {
	// Recover calls recover with a ring on the data directory and an arena of
	// m.RecoveryBytes. Both end with the call.
	Recover(m Memory, recover func(ioring.Ring, *mem.Arena) (*engine.RecoveredState, error)) (*engine.RecoveredState, error)
	// Open calls open once for each shard of the plan, on the thread that the shard is
	// going to run on, and returns when all are open or one could not be opened.
	Open(plan []Memory, open func(shard int, p Place) (*shard.Shard, error)) error
}

// Place is where one shard runs.
type Place struct {
	Ring  ioring.Ring
	Arena *mem.Arena // of its plan's ArenaBytes
	Waker shard.Waker
	Seed  uint64
}

// Compose builds a broker on a machine: it plans memory, recovers the data
// directory, makes the mailboxes, and opens the control shard, with its API, and every
// data shard. Errors are those of the plan, of the directory, and of the machine.
func Compose(o Options, on Machine) (*Broker, error) {
	plan, err := Plan(o)
	if err != nil {
		return nil, err
	}
	boot, err := on.Recover(plan[0], func(ring ioring.Ring, arena *mem.Arena) (*engine.RecoveredState, error) {
		return recovery.Recover(ring, arena, recoverOptions(o, plan))
	})
	if err != nil {
		return nil, err
	}
	if o.ClusterID == "" {
		o.ClusterID = base64.RawURLEncoding.EncodeToString(boot.Directory[:])
	}
	b := &Broker{Boot: boot, shards: make([]*shard.Shard, len(plan))}
	if b.post, err = shard.NewPost(o.DataShards, mailboxCapacity(plan)); err != nil {
		return nil, err
	}
	api := control.API(o.Groups)
	return b, on.Open(plan, func(i int, p Place) (*shard.Shard, error) {
		b.post.SetWaker(i, p.Waker)
		w := shard.World{Ring: p.Ring, Arena: p.Arena, Boot: boot, Post: b.post, API: api, Log: o.Log, Seed: p.Seed}
		s, err := shard.Open(w, shardOptions(o, plan, i))
		if err != nil {
			return nil, err
		}
		p.Arena.Seal()
		b.shards[i] = s
		return s, nil
	})
}

// Stop asks all shards to stop cleanly. Any thread may call it.
func (b *Broker) Stop() { b.post.Stop() }

// Reload has the broker act on those of the options that can change while it runs:
// shard.Settings has them. Any thread may call it, until Stop.
func (b *Broker) Reload(o Options) {
	b.post.Reload(&shard.Settings{
		AutoCreateTopics: o.AutoCreateTopics, LogLevel: o.LogLevel, PartitionsDefault: o.PartitionsDefault, RetentionCheckNS: o.RetentionCheckNS,
		ConnsPerAddressMax: o.ConnsPerAddressMax, AddressLimits: o.AddressLimits, Groups: o.Groups,
	})
}

// Reloaded says that the broker acts on what Reload was given. Any thread may call it.
func (b *Broker) Reloaded() bool { return b.post.Reloaded() }

// Shards returns all shards, for their published counters. Only the thread that runs a
// shard may call the shard's other methods.
func (b *Broker) Shards() []*shard.Shard { return b.shards }

// Wake makes a shard take a turn, so that it hands over what a collector has asked for.
// Any thread may call it while the shard runs.
func (b *Broker) Wake(i int) { b.post.Waker(i).Wake() }
