package engine

import (
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// checkpoints writes checkpoints: two slots in turn, each whole, linked with its
// sync. What both slots replay from past is free in the journal. One of many logs
// is put together in several turns:
//
//	from := replayFrom(); for some logs each turn { put(durable and drained now) }; await write+sync(); release(from)
//
// A log's record may be newer than from: so was every log's but that whose batch
// holds from back. What came between is replayed, and changes nothing.
type checkpointer struct {
	attach       Attacher
	buf          mem.Block
	sequence     uint64
	replays      [2]uint64 // the frame each slot replays from
	busy         bool
	draft        draft // the one under way
	wantClean    bool
	cleanWritten bool
	io           writeSync
	retryAt      ioring.Instant // after the disk had no room for one
}

// draft is a checkpoint that is being put together, or, when that is done, its
// header.
type draft struct {
	open  bool // it has not all logs yet
	head  format.Checkpoint
	log   int            // whose turn it is
	bytes int            // put so far
	room  int            // bytes left for attachments
	next  ioring.Instant // when some more may be put
}

// idleCheckNS is how long after the last entry a checkpoint leaves nothing to
// replay.
const idleCheckpointNS = 3e9

// checkEpochs is how many of a log's epochs a checkpoint keeps, the last ones.
const checkpointEpochs = 8

func (e *Engine) allocateCheckpoint(arena *mem.Arena) (err error) {
	e.checkpoints.replays = [2]uint64{1, 1} // Recover wrote both
	e.checkpoints.buf, err = arena.Allocate("checkpoint", e.o.checkpointBytes(), format.BlockBytes)
	return err
}

func (e *Engine) stepCheckpoint(sleep *ioring.Instant) {
	if e.checkpoints.draft.open {
		e.buildDraft(sleep)
		return
	}
	if e.checkpoints.busy {
		if !e.checkpoints.io.pushed && !e.checkpoints.io.push(e.ring, kindCheckpoint, 0) {
			earlier(sleep, e.now)
		}
		return
	}
	if e.failed || e.checkpoints.cleanWritten {
		return
	}
	if e.now < e.checkpoints.retryAt {
		earlier(sleep, e.checkpoints.retryAt)
		return
	}
	from := e.replayFrom()
	useful := min(e.checkpoints.replays[0], e.checkpoints.replays[1]) < from
	if !(e.checkpoints.wantClean || useful && (e.journal.sinceCheckpoint > e.journal.blocks/4 || e.checkpointFrees(from)) || e.extents.uncovered > 2*e.journal.blocks*format.BlockBytes) {
		// a quiet shard leaves nothing to replay, and no run that nothing says was durable
		if !useful && e.extents.uncovered == 0 || from <= e.journal.sealedSeq || e.journal.openEntries > 0 || e.extents.used > 0 {
			return
		}
		if at := e.journal.lastEntry + idleCheckpointNS; e.now < at {
			earlier(sleep, at)
			return
		}
	}
	e.checkpoints.sequence++
	e.journal.sinceCheckpoint, e.extents.uncovered = 0, 0
	if e.o.Faults.Has(JournalReusedEarly) {
		e.release(from)
	}
	e.checkpoints.busy = true
	e.checkpoints.draft = draft{open: true}
	e.checkpoints.draft.head = format.Checkpoint{Directory: e.dir, Epoch: e.epoch, Shard: uint32(e.shard), Clean: e.checkpoints.wantClean, Sequence: e.checkpoints.sequence, Journal: e.journal.id,
		Durable: e.journal.durableSeq}
	e.replayStartsAt(from)
	e.restartDraft()
	e.buildDraft(sleep)
}

// checkFrees says that the journal is short of room and that checkpoints from
// here would free some that is worth writing them: one frees what the one before
// it covers.
func (e *Engine) checkpointFrees(from uint64) bool {
	worth := e.journal.blocks / 8
	if e.journal.full {
		worth = e.journal.blocks / 64
	}
	return e.journal.usedBlocks > e.journal.blocks/4*3 && e.blocksBefore(from) >= worth || e.journal.full && e.extents.used == 0
}

// startsAt has the checkpoint under way say that replay begins with frame from.
func (e *Engine) replayStartsAt(from uint64) {
	head := &e.checkpoints.draft.head
	head.Frame, head.Block, head.Previous = from, uint64(e.journal.next), e.journal.chain
	if from <= e.journal.submitted {
		frame := e.journal.frame(from)
		head.Block, head.Previous = uint64(frame.block), frame.previous
	}
}

// rebuild begins the checkpoint under way from its first log.
func (e *Engine) restartDraft() {
	draft := &e.checkpoints.draft
	draft.log, draft.bytes, draft.room, draft.head.Logs = 0, format.CheckpointHeaderBytes, e.o.attachmentsBytes(), 0
}

// buildOn puts some logs more into the checkpoint under way, and writes it when
// it has all.
func (e *Engine) buildDraft(sleep *ioring.Instant) {
	draft := &e.checkpoints.draft
	if e.failed {
		e.checkpoints.busy, draft.open = false, false
		return
	}
	if e.now < draft.next && !draft.head.Clean {
		earlier(sleep, draft.next)
		return
	}
	until := draft.log + e.o.CheckLogs
	if draft.head.Clean {
		until = e.logs.used
	}
	for draft.log < e.logs.used {
		if draft.log == until {
			draft.next = e.now + ioring.Instant(e.o.CheckPauseNS)
			earlier(sleep, draft.next)
			return
		}
		if e.putLog(&e.logs.all[draft.log]) {
			draft.log++
			continue
		}
		// segments went from log to log meanwhile and stand here twice: all logs
		// at once fit
		e.restartDraft()
		until = e.logs.used
	}
	if e.o.Faults.Has(CheckpointFromLate) {
		e.replayStartsAt(e.replayFrom())
	}
	buf := e.checkpoints.buf.Bytes()
	n := format.AlignBlock(draft.bytes)
	clear(buf[draft.bytes:n])
	draft.head.Put(buf, draft.bytes-format.CheckpointHeaderBytes)
	draft.open = false
	e.checkpoints.io.begin(e.o.Files+slotCheckpoint+uint32(e.checkpoints.sequence%2), 0, e.checkpoints.buf.Slice(0, n))
	e.disk.begin(WorkCheckpoints, n)
	e.stats.Checkpoints++
	e.stats.CheckpointBytes += uint64(n)
	if !e.checkpoints.io.push(e.ring, kindCheckpoint, 0) {
		earlier(sleep, e.now)
	}
}

// putLog puts what is durable and drained of l now. False: there is no room.
func (e *Engine) putLog(lg *log) bool {
	// one whose end is durable and whose files linger is left out
	if lg.state != logOpen && lg.state != logDeleting {
		return true
	}
	segments := 0
	for seg := e.segments.at(lg.firstSegment); seg != nil; seg = e.segments.at(seg.next) {
		segments++
	}
	buf, draft := e.checkpoints.buf.Bytes(), &e.checkpoints.draft
	if draft.bytes+format.LogRecordBytes+checkpointEpochs*format.EpochRecordBytes+segments*format.SegmentRecordBytes+draft.room > len(buf) {
		return false
	}
	// of a start past what is drained the journal holds the rest, the new start too
	record := format.LogRecord{ID: lg.id, Start: min(lg.start, lg.flushed), End: lg.flushed, MaxTime: lg.flushedMaxTime, MaxTimeBase: lg.flushedMaxTimeBase, RotFrom: lg.corruptFrom, RotTo: lg.corruptTo, Direct: lg.wroteDirect, Chain: lg.chain}
	at := draft.bytes + format.LogRecordBytes
	epochs := 0
	for k := max(0, lg.nEpochs-checkpointEpochs); k < lg.nEpochs; k++ {
		if lg.epochs[k].Start < lg.flushed {
			at += format.PutEpoch(buf[at:], lg.epochs[k])
			epochs++
		}
	}
	segments = 0
	for seg := e.segments.at(lg.firstSegment); seg != nil; seg = e.segments.at(seg.next) {
		if !seg.ready {
			continue
		}
		recorded := format.SegmentRecord{Generation: seg.generation, Base: seg.base, End: seg.end, Position: seg.position, MaxTime: seg.maxTime, Chain: seg.chain, Bytes: seg.allocated}
		at += format.PutSegment(buf[at:], &recorded)
		segments++
	}
	n := 0
	if e.checkpoints.attach != nil {
		n = e.checkpoints.attach.Attachment(lg.slot, buf[at:at+draft.room])
		draft.room -= n
	}
	record.Attachment = buf[at : at+n]
	format.PutLogRecord(buf[draft.bytes:], &record, epochs, segments)
	draft.bytes = at + n
	draft.head.Logs++
	return true
}

func (e *Engine) checkpointCompleted(index uint32, completion ioring.Completion) {
	if !e.checkpoints.io.complete(index&1 != 0, completion.Result, e.now) {
		return
	}
	e.disk.end(WorkCheckpoints, e.checkpoints.io.buf.Len())
	e.checkpoints.busy = false
	if io := &e.checkpoints.io; spaceShort(io.failed, io.errno) {
		// the slot may be torn, and is the one to write again: the other is whole
		e.checkpoints.sequence--
		e.extents.uncovered++ // what it would have covered is not known any more: some
		e.checkpoints.retryAt = e.now + retryNS
		e.stats.NoSpace++
		return
	}
	if e.checkpoints.io.errno != 0 {
		// the slot may be torn; without checkpoints the journal ends
		e.fail(e.checkpoints.io.failure(CheckpointFile0 + FailedFile(e.checkpoints.sequence%2)))
		return
	}
	e.checkpoints.replays[e.checkpoints.sequence%2] = e.checkpoints.draft.head.Frame
	if e.checkpoints.draft.head.Clean {
		e.checkpoints.cleanWritten = true
	}
	e.release(min(e.checkpoints.replays[0], e.checkpoints.replays[1]))
}
