package engine

import (
	"fmt"

	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// New carves what the engine of one shard needs and opens its files: the only
// call here that blocks. boot is Recover's, whose logs of this shard are open
// afterwards.
func New(ring ioring.Ring, arena *mem.Arena, boot *RecoveredState, shard int, attach Attacher, o Options) (*Engine, error) {
	if shard > 0 { // the control shard's own log has commands, which no setting makes larger
		o.BatchBytesMax = max(o.BatchBytesMax, boot.BatchBytesMax)
	}
	if err := o.Complete(); err != nil {
		return nil, err
	}
	if shard < 0 || shard >= len(boot.Shards) {
		return nil, fmt.Errorf("shard %d of %d", shard, len(boot.Shards))
	}
	if shard == 0 {
		o.DirectBytes = -1 // that a start moves after what was appended before it is the journal's order
	}
	o.LogsMax = max(o.LogsMax, len(boot.Shards[shard].Logs)) // another number of shards may bring more
	e := &Engine{ring: ring, attach: attach, o: o, shard: shard, dir: boot.Directory, epoch: boot.Epoch,
		journalID: format.JournalID(boot.Directory, boot.Epoch, shard)}
	if err := e.carve(arena); err != nil {
		return nil, fmt.Errorf("%w; this directory may hold batches of %d bytes", err, o.BatchBytesMax)
	}
	if err := e.openShard(arena); err != nil {
		return nil, ioring.Advised(err)
	}
	for i := range boot.Shards[shard].Logs {
		if err := e.adopt(&boot.Shards[shard].Logs[i]); err != nil {
			return nil, err
		}
	}
	e.checkpoints.sequence = boot.Shards[shard].Checkpoint
	e.adoptSpares(boot.Shards[shard].Recycled)
	return e, nil
}

// Plan carves what New would and opens nothing: the engine is good for being
// looked at only.
func Plan(arena *mem.Arena, o Options) (*Engine, error) {
	if err := o.Complete(); err != nil {
		return nil, err
	}
	e := &Engine{o: o}
	return e, e.carve(arena)
}

// carve takes all memory the engine will ever have.
func (e *Engine) carve(arena *mem.Arena) error {
	e.logs = make([]log, e.o.LogsMax)
	e.byID = make(map[uint64]Slot, e.o.LogsMax)
	e.freeLog = none
	for i := len(e.logs) - 1; i >= 0; i-- {
		e.logs[i].nextFree = e.freeLog
		e.freeLog = int32(i)
	}
	e.events = make([]Event, 4*e.o.LogsMax+1024)
	for _, err := range []error{e.carveFiles(arena), e.carveSegments(arena), e.carveDrains(arena), e.carveIndexes(arena), e.carveSpares(arena), e.carveChecks(arena), e.carveColds(arena), e.carveMemory(arena)} {
		if err != nil {
			return err
		}
	}
	return nil
}

// openShard opens the files of this shard for good.
func (e *Engine) openShard(arena *mem.Arena) error {
	b := ioring.NewBlocking(e.ring, e.flush.buffers[0], e.flush.buffers[1].Slice(0, format.BlockBytes), KindBlocking, e.o.Files)
	for i, name := range []string{"journal", "checkpoint-0", "checkpoint-1"} {
		path := format.ShardPath(e.shard, name)
		if err := b.Need(e.o.Files+uint32(i), path, 0); err != nil {
			return err
		}
	}
	if err := b.Need(e.o.Files+slotSegments, "segments", ioring.OpenDirectory|ioring.OpenReadOnly); err != nil {
		return err
	}
	size, err := b.Size(e.journal.file)
	if err != nil {
		return err
	}
	if want := int64(e.o.JournalBytes); size < want {
		if err := b.Zero(e.journal.file, size, want); err != nil {
			return err
		}
		size = want
	}
	e.journal.blocks = min(size, int64(e.o.JournalBytes)) / format.BlockBytes
	for i := range uint32(2) {
		// room for the largest checkpoint there may be, where the disk has it
		slot := e.o.Files + slotCheck + i
		size, err := b.Size(slot)
		if err != nil {
			return err
		}
		if want := int64(e.o.checkpointBytes()); size < want {
			_ = b.Allocate(slot, size, want-size) // where there is none, it grows when one is written
			if err := b.Sync(slot); err != nil {
				return err
			}
		}
	}
	return nil
}

// adopt opens a log that Recover found.
func (e *Engine) adopt(b *RecoveredLog) error {
	s, ok := e.takeLog(b.ID)
	if !ok {
		return fmt.Errorf("shard %d has more than %d logs", e.shard, e.o.LogsMax)
	}
	r, l := b.Record, &e.logs[s]
	l.state = logOpen
	l.start, l.end, l.durable, l.drained, l.taken = r.Start, r.End, r.End, r.End, r.End
	l.startDurable = r.Start
	l.maxTime, l.maxTimeBase, l.drainMax, l.drainBase = r.MaxTime, r.MaxTimeBase, r.MaxTime, r.MaxTimeBase
	l.rotFrom, l.rotTo, l.chain, l.chainSent = r.RotFrom, r.RotTo, r.Chain, r.Chain
	for _, x := range r.Epochs {
		l.addEpoch(x)
	}
	for i := range r.Segments {
		x := &r.Segments[i]
		g, ok := e.takeSegment(x.Generation, s)
		if !ok {
			return fmt.Errorf("shard %d has more than %d segments", e.shard, e.o.segmentsMax())
		}
		q := &e.segments.all[g]
		q.base, q.end, q.position, q.maxTime, q.bytes, q.chain = x.Base, x.End, x.Position, x.MaxTime, x.Bytes, x.Chain
		q.ready, q.next0 = true, q.position
		if q.position > 0 {
			q.note(format.IndexEntry{Base: q.base, Before: format.NoTime})
			e.loadDue(g)
		}
		e.appendSegment(l, g)
		if l.writing == none || q.position > 0 {
			l.writing, l.filling = g, g
		}
	}
	return nil
}

// adoptSpares goes on with what another life made ready.
func (e *Engine) adoptSpares(files []RecycledFile) {
	for _, x := range files {
		g, ok := e.takeSegment(x.Generation, 0)
		if !ok {
			return // it is removed at the next start
		}
		if e.segments.all[g].bytes = x.Bytes; !e.addSpare(g, true) {
			e.discard(g)
		}
	}
}
