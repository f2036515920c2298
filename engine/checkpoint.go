package engine

import (
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// checkpointer writes checkpoints of all logs, each whole and with a linked sync, into
// two slots in turn. The journal's blocks before the frame that both slots replay from
// are free. A checkpoint of many logs is put together over several turns:
//
//	from := replayFrom(); for some logs each turn { put(durable and flushed now) }; await write+sync(); release(from)
//
// A log's record may be newer than from. Replaying what lies between is idempotent. (That
// holds in any case: from is where the log that is furthest behind needs it, and every
// other log's record is newer.)
type checkpointer struct {
	env          *env
	attach       Attacher
	buf          mem.Block
	sequence     uint64    // of the last one; its slot is sequence % 2
	replays      [2]uint64 // the frame that each slot replays from
	busy         bool      // one is being put together or written
	draft        draft     // that one
	wantClean    bool      // the next one is that of a clean stop
	cleanWritten bool
	io           writeSync
	short        bool           // the disk had no room for the last one
	retryAt      ioring.Instant // then: when it is tried again
}

// draft is a checkpoint that is being put together, and afterwards its header.
type draft struct {
	open  bool // some logs are not in it yet
	head  format.Checkpoint
	log   int            // the next log to put
	bytes int            // of the checkpoint so far
	room  int            // bytes left for attachments
	next  ioring.Instant // when more logs may be put
}

// idleCheckpointNS is how long after the last entry a checkpoint is written, so that
// there is nothing to replay.
const idleCheckpointNS = 3e9

func (c *checkpointer) allocate(arena *mem.Arena) (err error) {
	c.replays = [2]uint64{1, 1} // recovery wrote both
	c.buf, err = arena.Allocate("checkpoint", c.env.o.checkpointBytes(), format.BlockBytes)
	return err
}

// step begins a checkpoint when one is due, and goes on with the one under way. It is due
// when it frees something and a quarter of the journal was written since the last one,
// when it frees enough of a journal that is short of room,
// when extents have grown by twice the journal's size, which a start would have to
// read, at a clean stop, and some time after the last append.
func (c *checkpointer) step(journal *journal, extents *extents, logs *logTable, segments *segments, sleep *ioring.Instant) {
	if c.draft.open {
		c.build(journal, logs, segments, sleep)
		return
	}
	if c.busy {
		if !c.io.pushed && !c.io.push(c.env.ring, kindCheckpoint, 0) {
			earlier(sleep, c.env.now)
		}
		return
	}
	if c.env.failed || c.cleanWritten {
		return
	}
	if c.env.now < c.retryAt {
		earlier(sleep, c.retryAt)
		return
	}
	from := journal.replayFrom()
	useful := min(c.replays[0], c.replays[1]) < from
	due := c.wantClean ||
		useful && (journal.sinceCheckpoint > journal.blocks/4 || c.frees(journal, extents, from)) ||
		extents.uncovered > 2*journal.blocks*format.BlockBytes
	if !due {
		// An idle shard leaves nothing to replay, and no extent that is in no checkpoint.
		if !useful && extents.uncovered == 0 || from <= journal.sealedSeq || journal.openEntries > 0 || extents.used > 0 {
			return
		}
		if at := journal.lastEntry + idleCheckpointNS; c.env.now < at {
			earlier(sleep, at)
			return
		}
	}
	c.sequence++
	journal.sinceCheckpoint, extents.uncovered = 0, 0
	if c.env.o.Faults.Has(JournalReusedEarly) {
		journal.release(from)
	}
	c.busy = true
	c.draft = draft{open: true}
	c.draft.head = format.Checkpoint{Directory: c.env.dir, Epoch: c.env.epoch, Shard: uint32(c.env.shard), Clean: c.wantClean,
		Sequence: c.sequence, Journal: journal.id, Durable: journal.durableSeq}
	c.replayStartsAt(journal, from)
	c.restart()
	c.build(journal, logs, segments, sleep)
}

// frees reports that the journal is short of room and that two checkpoints now would
// free enough of it to be worth writing: a checkpoint frees what the one before it
// covers.
func (c *checkpointer) frees(journal *journal, extents *extents, from uint64) bool {
	worth := journal.blocks / 8
	if journal.full {
		worth = journal.blocks / 64
	}
	return journal.usedBlocks > journal.blocks/4*3 && journal.blocksBefore(from) >= worth || journal.full && extents.used == 0
}

// replayStartsAt has the draft say that replay begins with a frame.
func (c *checkpointer) replayStartsAt(journal *journal, from uint64) {
	head := &c.draft.head
	head.Frame, head.Block, head.Previous = from, uint64(journal.next), journal.chain
	if from <= journal.submitted {
		frame := journal.frame(from)
		head.Block, head.Previous = uint64(frame.block), frame.previous
	}
}

// restart begins the draft again from the first log.
func (c *checkpointer) restart() {
	draft := &c.draft
	draft.log, draft.head.Logs = 0, 0
	draft.bytes, draft.room = format.CheckpointHeaderBytes, c.env.o.AttachmentsBytes
}

// build puts the next Options.CheckLogs logs into the draft, and starts the write when it
// has all of them.
func (c *checkpointer) build(journal *journal, logs *logTable, segments *segments, sleep *ioring.Instant) {
	draft := &c.draft
	if c.env.failed {
		c.busy, draft.open = false, false
		return
	}
	if c.env.now < draft.next && !draft.head.Clean {
		earlier(sleep, draft.next)
		return
	}
	until := draft.log + c.env.o.CheckLogs
	if draft.head.Clean {
		until = logs.used
	}
	for draft.log < logs.used {
		if draft.log == until {
			draft.next = c.env.now + ioring.Instant(c.env.o.CheckPauseNS)
			earlier(sleep, draft.next)
			return
		}
		if c.put(segments, &logs.holes, &logs.all[draft.log]) {
			draft.log++
			continue
		}
		// There is no room, because segments that went from log to log meanwhile are in
		// the draft twice. All logs in one turn fit.
		c.restart()
		until = logs.used
	}
	if c.env.o.Faults.Has(CheckpointFromLate) {
		c.replayStartsAt(journal, journal.replayFrom())
	}
	buf := c.buf.Bytes()
	n := format.AlignBlock(draft.bytes)
	clear(buf[draft.bytes:n])
	draft.head.Put(buf, draft.bytes-format.CheckpointHeaderBytes)
	draft.open = false
	c.io.begin(c.env.o.Files+slotCheckpoint+uint32(c.sequence%2), 0, c.buf.Slice(0, n))
	c.env.disk.begin(WorkCheckpoints, n)
	c.env.stats.Checkpoints++
	c.env.stats.CheckpointBytes += uint64(n)
	if !c.io.push(c.env.ring, kindCheckpoint, 0) {
		earlier(sleep, c.env.now)
	}
}

// put adds a log to the draft: what is durable and flushed of it now. False: there is no
// room.
func (c *checkpointer) put(segments *segments, lost *holes, lg *log) bool {
	// A deleted log whose files are not removed yet is left out.
	if lg.state != logOpen && lg.state != logDeleting {
		return true
	}
	count := 0
	for seg := segments.at(lg.firstSegment); seg != nil; seg = segments.at(seg.next) {
		count++
	}
	buf, draft := c.buf.Bytes(), &c.draft
	holes := lost.count(lg)
	if c.env.o.Faults.Has(HolesForgotten) {
		holes = 0
	}
	if draft.bytes+format.LogRecordBytes+format.EpochsMax*format.EpochRecordBytes+holes*format.HoleBytes+count*format.SegmentRecordBytes+draft.room > len(buf) {
		return false
	}
	// Of a start past what is flushed the journal has the rest, and the start itself.
	record := format.LogRecord{ID: lg.id, Start: min(lg.start, lg.flushed), End: lg.flushed, MaxTime: lg.flushedMaxTime, MaxTimeBase: lg.flushedMaxTimeBase,
		Chain: lg.chain}
	record.CorruptFrom, record.CorruptTo = format.NoOffset, format.NoOffset
	if holes > 0 {
		record.CorruptFrom, record.CorruptTo = lost.bounds(lg)
	}
	at := draft.bytes + format.LogRecordBytes
	known, epochs := lg.epochs[:lg.nEpochs], 0
	if c.env.o.Faults.Has(EpochsOfEight) {
		known = known[max(0, len(known)-8):]
	}
	for epochs < len(known) && known[epochs].Start < lg.flushed { // at most the last one begins later
		at += format.PutEpoch(buf[at:], known[epochs])
		epochs++
	}
	if holes > 1 {
		for hole := lost.at(lg.firstHole); hole != nil; hole = lost.at(hole.next) {
			at += format.PutHole(buf[at:], format.Hole{From: hole.From, To: hole.To})
		}
	}
	count = 0
	for seg := segments.at(lg.firstSegment); seg != nil; seg = segments.at(seg.next) {
		if !seg.ready {
			continue
		}
		recorded := format.SegmentRecord{Generation: seg.generation, Base: seg.base, End: seg.end, Position: seg.position,
			MaxTime: seg.maxTime, Chain: seg.chain, Bytes: seg.allocated}
		at += format.PutSegment(buf[at:], &recorded)
		count++
	}
	n := 0
	if c.attach != nil {
		n = c.attach.Attachment(lg.slot, buf[at:at+draft.room])
		draft.room -= n
	}
	record.Attachment = buf[at : at+n]
	format.PutLogRecord(buf[draft.bytes:], &record, epochs, holes, count)
	draft.bytes = at + n
	draft.head.Logs++
	return true
}

// completed takes the completion of the write or the sync. The journal is released up to
// where both slots replay from. over: the checkpoint is written, or short of space.
func (c *checkpointer) completed(journal *journal, extents *extents, index uint32, completion ioring.Completion) (over bool) {
	if !c.io.complete(index&1 != 0, completion.Result, c.env.now) {
		return false
	}
	c.env.disk.end(WorkCheckpoints, c.io.buf.Len())
	c.busy = false
	if c.short = spaceShort(c.io.failed, c.io.errno); c.short {
		// The slot may be torn and is written again; the other one is whole.
		c.sequence--
		extents.uncovered++ // how much it would have covered is not known any more: not 0
		c.retryAt = c.env.now + retryNS
		return true
	}
	if c.io.errno != 0 {
		// The slot may be torn, and without checkpoints the journal cannot be freed.
		c.env.fail(c.io.failure(CheckpointFile0 + FailedFile(c.sequence%2)))
		return false
	}
	c.replays[c.sequence%2] = c.draft.head.Frame
	if c.draft.head.Clean {
		c.cleanWritten = true
	}
	journal.release(min(c.replays[0], c.replays[1]))
	return true
}

// checkpointCompleted takes the completion of a checkpoint's write or sync. A checkpoint
// that the disk has no room for is tried again until there is some; meanwhile half of the
// journal is kept for what makes room, as nothing frees it: see Reserve.
func (e *Engine) checkpointCompleted(index uint32, completion ioring.Completion) {
	if !e.checkpoints.completed(&e.journal, &e.extents, index, completion) {
		return
	}
	switch {
	case e.checkpoints.short:
		if e.recycled.releaseAll(&e.segments) {
			e.checkpoints.retryAt = e.now
		}
		slot := (e.checkpoints.sequence + 1) % 2
		e.shortage.begin(&e.env, e.checkpoints.io.failure(CheckpointFile0+FailedFile(slot)), 0, lackKinds, 0)
	case e.shortage.active && e.shortage.id == 0:
		e.shortageEnds()
	}
}
