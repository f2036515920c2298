package engine

import (
	"fmt"

	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// New allocates all memory of one shard's engine and opens its files. It is the
// only call that blocks. boot is what recovery.Recover returned; its logs of this
// shard are open afterwards.
func New(ring ioring.Ring, arena *mem.Arena, boot *RecoveredState, shard int, attach Attacher, o Options) (*Engine, error) {
	if shard > 0 { // the control shard's log has commands, whose size no setting changes
		o.BatchBytesMax = max(o.BatchBytesMax, boot.BatchBytesMax)
	}
	if err := o.Complete(); err != nil {
		return nil, err
	}
	if shard < 0 || shard >= len(boot.Shards) {
		return nil, fmt.Errorf("shard %d of %d", shard, len(boot.Shards))
	}
	if shard == 0 {
		// The control log relies on journal order between a record and a later
		// start-moved entry, so it never writes directly.
		o.DirectBytes = -1
	}
	o.LogsMax = max(o.LogsMax, len(boot.Shards[shard].Logs)) // with fewer shards than before there may be more of them
	e := &Engine{env: env{ring: ring, o: o, shard: shard, dir: boot.Directory, epoch: boot.Epoch}}
	e.journal.id = format.JournalID(boot.Directory, boot.Epoch, shard)
	e.checkpoints.attach = attach
	if err := e.allocate(arena); err != nil {
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
	e.adoptRecycled(boot.Shards[shard].Recycled)
	return e, nil
}

// Plan allocates what New would and opens nothing. The engine is good for measuring
// its memory only.
func Plan(arena *mem.Arena, o Options) (*Engine, error) {
	if err := o.Complete(); err != nil {
		return nil, err
	}
	e := &Engine{env: env{o: o}}
	return e, e.allocate(arena)
}

// allocate takes all memory that the engine will ever have.
func (e *Engine) allocate(arena *mem.Arena) error {
	for _, shared := range []**env{&e.cache.env, &e.checkpoints.env, &e.extents.env, &e.files.env, &e.flush.env, &e.index.env, &e.ages.env,
		&e.journal.env, &e.provision.env, &e.reads.env, &e.recycled.env, &e.segments.env} {
		*shared = &e.env
	}
	if err := e.logs.allocate(arena, e.o.LogsMax); err != nil {
		return err
	}
	e.events.all = make([]Event, 4*e.o.LogsMax+1024)
	for _, allocate := range []func(*mem.Arena) error{e.segments.allocate, e.extents.allocate, e.journal.allocate, e.files.allocate, e.flush.allocate, e.index.allocate, e.ages.allocate, e.recycled.allocate,
		e.checkpoints.allocate, e.reads.allocate} {
		if err := allocate(arena); err != nil {
			return err
		}
	}
	// Last of all: what the arena has left is log memory.
	e.o.LogMemoryBytes = min(e.o.LogMemoryBytes, arena.Bytes()-arena.Used()-format.BlockBytes)
	if err := e.cache.allocate(arena); err != nil {
		return err
	}
	e.extents.allocatePlaces(len(e.cache.slabs))
	return e.batches.allocate(arena, &e.o)
}

// openShard opens the journal, the checkpoints and the directory of segments, and
// allocates their blocks.
func (e *Engine) openShard(arena *mem.Arena) error {
	blocking := ioring.NewBlocking(e.ring, e.flush.buffers[0], e.flush.buffers[1].Slice(0, format.BlockBytes), KindBlocking, e.o.Files)
	for i, name := range []string{"journal", "checkpoint-0", "checkpoint-1"} {
		path := format.ShardPath(e.shard, name)
		if err := blocking.Need(e.o.Files+uint32(i), path, 0); err != nil {
			return err
		}
	}
	if err := blocking.Need(e.o.Files+slotSegments, "segments", ioring.OpenDirectory|ioring.OpenReadOnly); err != nil {
		return err
	}
	size, err := blocking.Size(e.journal.file)
	if err != nil {
		return err
	}
	if want := int64(e.o.JournalBytes); size < want {
		if size, err = e.growJournal(blocking, size, want); err != nil {
			return err
		}
	}
	e.o.JournalBytes = min(int(size), e.o.JournalBytes)
	e.journal.blocks = int64(e.o.JournalBytes) / format.BlockBytes
	for index := range uint32(2) {
		// Room for the largest checkpoint that can be, if the disk has it.
		slot := e.o.Files + slotCheckpoint + index
		size, err := blocking.Size(slot)
		if err != nil {
			return err
		}
		if want := int64(e.o.checkpointBytes()); size < want {
			if err := blocking.Allocate(slot, size, want-size); err != nil && ioring.IsFull(err) {
				e.note("%v: a checkpoint that needs more is tried again until there is room", err)
			}
			if err := blocking.Sync(slot); err != nil {
				return err
			}
		}
	}
	return nil
}

// growJournal fills the journal with zeroes up to want bytes, and returns its size. On a
// disk without room it stays as it is, if the largest batches fit: the shard serves with
// that, and the next start tries again.
func (e *Engine) growJournal(blocking *ioring.Blocking, size, want int64) (int64, error) {
	err := blocking.Zero(e.journal.file, size, want)
	if err == nil {
		return want, nil
	}
	if !ioring.IsFull(err) || size < int64(e.o.journalBytesMin()) {
		return size, err
	}
	grown, sizeErr := blocking.Size(e.journal.file)
	if sizeErr != nil {
		return size, sizeErr
	}
	if err := blocking.Sync(e.journal.file); err != nil {
		return size, err
	}
	size = max(size, grown&^(format.BlockBytes-1))
	e.note("%v: the journal has %d bytes, of %d that are asked for; it is grown at a start on a disk with more room", err, size, want)
	return size, nil
}

// note adds a line for the operator, of what could not be done at this opening and is not
// needed to serve.
func (e *Engine) note(text string, args ...any) {
	e.notes = append(e.notes, fmt.Sprintf(text, args...))
}

// Notes is what could not be done when the engine was opened, and is not needed to serve.
func (e *Engine) Notes() []string { return e.notes }

// adopt opens a log that recovery found.
func (e *Engine) adopt(recovered *RecoveredLog) error {
	slot, ok := e.logs.add(recovered.ID)
	if !ok {
		return fmt.Errorf("shard %d has more than %d logs", e.shard, e.o.LogsMax)
	}
	record, lg := recovered.Record, &e.logs.all[slot]
	lg.state = logOpen
	lg.start, lg.startDurable = record.Start, record.Start
	lg.end, lg.durable = record.End, record.End
	lg.flushed, lg.flushing = record.End, record.End
	lg.maxTime, lg.maxTimeBase = record.MaxTime, record.MaxTimeBase
	lg.flushedMaxTime, lg.flushedMaxTimeBase = record.MaxTime, record.MaxTimeBase
	lg.chain, lg.chainSent = record.Chain, record.Chain
	for _, epoch := range record.Epochs {
		lg.addEpoch(epoch)
	}
	for _, hole := range recovered.Holes {
		e.logs.holes.add(lg, hole)
	}
	for i := range record.Segments {
		recorded := &record.Segments[i]
		seg := e.segments.take(recorded.Generation, slot)
		if seg == nil {
			return fmt.Errorf("shard %d has more than %d segments", e.shard, e.o.segmentsMax())
		}
		seg.base, seg.end = recorded.Base, recorded.End
		seg.position, seg.nextPosition = recorded.Position, recorded.Position
		seg.maxTime, seg.chain = recorded.MaxTime, recorded.Chain
		seg.allocated, seg.ready = recorded.Bytes, true
		if seg.position > 0 {
			seg.ageKnown = false
			seg.addIndexEntry(format.IndexEntry{Base: seg.base, Before: format.NoTime})
			e.index.readDue(seg)
		}
		e.segments.append(lg, seg)
		if lg.writing == none || seg.position > 0 {
			lg.writing, lg.active = seg.number, seg.number
		}
	}
	if e.shard > 0 { // the control log's become its next segment: see KeepNext
		e.removeBeforeStart(lg)
	}
	return nil
}

// adoptRecycled keeps the files that recovery found ready.
func (e *Engine) adoptRecycled(files []RecycledFile) {
	for _, file := range files {
		seg := e.segments.take(file.Generation, 0)
		if seg == nil {
			return // the next start removes it
		}
		if seg.allocated = file.Bytes; !e.recycled.add(seg, true) {
			e.segments.discard(seg)
		}
	}
}
