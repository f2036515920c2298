package engine

import (
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

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
