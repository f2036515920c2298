package control

import (
	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/shard"
)

// The control log: one command in each batch, applied to the state in order. It is
// read once, at the start, and rewritten as a snapshot when it has grown long:
//
//	append(every command that makes the state); TruncateBefore(the first of them)
//
// Nothing else is appended in between. A snapshot that a crash cut is not applied:
// cluster.State takes one only when it is whole.

const (
	controlLogID  = format.ControlLogID
	snapshotAfter = 1 << 20 // a snapshot is not due before the log has so many bytes more than several times the last one
	commandCost   = 256     // estimated cost of reading a command at a start, in bytes, beside its own
	commandRoom   = 1 << 10 // bytes of the batch and the record header around a command

	// loadedNothing is control.loaded while the log is being created.
	loadedNothing = -1
)

// load applies the control log from its start: a snapshot, then the commands after it.
// While a read from disk is awaited, loaded is below 0: see suspended.
func (c *control) load() {
	if c.loaded < 0 {
		return
	}
	for c.loaded < c.engine.Durable(c.slot) && !c.shard.Failed() {
		count, st := c.engine.Read(c.slot, c.loaded, c.engine.Durable(c.slot), 1<<20, c.views)
		switch st {
		case engine.OK:
			for _, view := range c.views[:count] {
				c.applyAll(view.Bytes)
				c.engine.Unpin(view.Pin)
			}
		case engine.NotCached:
			if c.engine.ReadDisk(c.slot, c.loaded, shard.ControlUser) == engine.OK {
				c.loaded = suspended(c.loaded)
			}
			return
		default:
			c.shard.Fatalf("the control log cannot be read at offset ", c.loaded)
			return
		}
	}
	if !c.shard.Failed() {
		c.announceAll()
	}
}

// suspended converts an offset to the value that loaded has while a read from disk is under
// way, which is below loadedNothing, and converts that value back to the offset.
func suspended(offset int64) int64 { return -offset - 2 }

// loadRead applies the commands that a read from disk has returned.
func (c *control) loadRead(st engine.Status, read uint32) {
	c.loaded = suspended(c.loaded)
	if st != engine.OK {
		c.shard.Fatalf("the control log cannot be read at offset ", c.loaded)
		return
	}
	count := c.engine.ReadViews(read, c.loaded, c.engine.Durable(c.slot), 1<<30, c.views)
	for _, view := range c.views[:count] {
		c.applyAll(view.Bytes)
		c.engine.Unpin(view.Pin)
	}
	c.engine.ReadEnd(read)
}

// applyAll applies the commands in stored batches, each once.
func (c *control) applyAll(batches []byte) {
	for len(batches) >= kafka.BatchHeaderBytes && !c.shard.Failed() {
		size := kafka.BatchBytes(batches)
		base := kafka.BaseOffset(batches)
		if base >= c.loaded {
			if cmd, ok := commandOf(batches[:size]); ok {
				c.grown += commandCost + len(cmd)
				c.former = c.former || len(cmd) > 0 && cmd[0] < format.CommandVersion
				if err := c.state.Apply(cmd); err != nil && err != cluster.ErrReplayed {
					c.shard.Fatalf("the control log has a command this version cannot apply ("+err.Error()+") at offset ", base)
					return
				}
			}
			c.loaded = base + 1
		}
		batches = batches[size:]
	}
}

// snapshot begins to rewrite the state at the end of the log, where that is due: when a
// start would read several times as much as the state has, so that snapshots are a small
// part of all that is written; or at once, where a former version of Tailbound wrote some
// of the log, or a crash may have cut a rewrite.
func (c *control) snapshot() {
	if c.grown < snapshotAfter+4*c.snapshotSize && !c.former && !c.spread || c.shard.Failed() || c.stage != changeNone {
		return
	}
	c.spread = false
	commands := c.state.Snapshot(c.commandBytes())
	if c.engine.Room(c.slot, snapshotRoom(commands)+c.keptRoom()) != engine.NoSpace {
		c.beginSnapshot(commands)
		return
	}
	// It does not fit behind what is there. On a disk without room a part of it would take
	// the last that the log has: it goes into the next segment as a whole, or is tried much
	// later.
	switch {
	case c.rewrite():
	case c.short():
		c.former = false
		c.grown /= 2
	default:
		c.beginSnapshot(commands)
	}
}

// snapshotRoom bounds what the commands of a snapshot take as entries of the log.
func snapshotRoom(commands [][]byte) (n int) {
	for _, cmd := range commands {
		n += format.EntryHeaderBytes + commandRoom + len(cmd)
	}
	return n
}

// beginSnapshot has the commands of a snapshot appended, after which the change under way,
// if there is one, goes on.
func (c *control) beginSnapshot(commands [][]byte) {
	c.rest, c.snapshotSize = commands, 0
	for _, cmd := range c.rest {
		c.snapshotSize += len(cmd)
	}
	c.snapshotAt = c.engine.End(c.slot)
	c.resumed, c.stage = c.stage, changeSnapshot
}

// appendSnapshot appends as much of the snapshot as there is memory for. When all of it is
// appended, the log is truncated to begin with it. It reports whether the snapshot is over:
// complete, or given up.
func (c *control) appendSnapshot() bool {
	for len(c.rest) > 0 {
		switch st := c.append(c.rest[0], c.rewriting); {
		case st == engine.OK:
			c.rest = c.rest[1:]
		case st == engine.WaitMemory, st == engine.WaitRoom:
			return false
		case st == engine.NoSpace && !c.rewriting && !c.short() && c.roll():
		case st == engine.NoSpace && !c.rewriting && !c.short() && c.nextComes():
			return false
		default: // an incomplete snapshot is ignored by a start; the next one is tried much later
			c.rest, c.former = nil, false
			c.grown /= 2
			return true
		}
	}
	if c.former {
		c.former = false
		c.shard.Logf(shard.Info, "commands of the control log were rewritten in version ", format.CommandVersion)
	}
	if c.engine.TruncateBefore(c.slot, c.snapshotAt, shard.ControlUser) == engine.WaitMemory {
		return false
	}
	c.rest, c.grown = nil, 0
	return true
}

// commandBytes is the target size of a command that has many changes in it: large enough
// for each of them to cost little, and small enough for two such commands to be in flight.
func (c *control) commandBytes() int { return min(256<<10, c.o.Engine.BatchBytesMax-commandRoom) }

// commandBatch makes a record batch of one record from a command: the control log has the
// same form as any other log.
func commandBatch(cmd []byte, wall int64) []byte {
	return kafka.AppendBatch(nil, wall, nil, cmd)
}

// commandOf returns the command in a stored batch.
func commandOf(batch []byte) ([]byte, bool) {
	it := kafka.Records(batch)
	record, ok := it.Next()
	if !ok {
		return nil, false
	}
	return record.Value, true
}
