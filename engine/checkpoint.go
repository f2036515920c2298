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
type checkpoints struct {
	checkBuf     mem.Block
	sequence     uint64
	replays      [2]uint64 // the frame each slot replays from
	checkBusy    bool
	draft        draft // the one under way
	wantClean    bool
	cleanWritten bool
	checkIO      writeSync
	checkRetry   ioring.Instant // after the disk had no room for one
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
const idleCheckNS = 3e9

// checkEpochs is how many of a log's epochs a checkpoint keeps, the last ones.
const checkEpochs = 8

func (e *Engine) carveChecks(arena *mem.Arena) (err error) {
	e.checkpoints.replays = [2]uint64{1, 1} // Recover wrote both
	e.checkpoints.checkBuf, err = arena.Allocate("checkpoint", e.o.checkpointBytes(), format.BlockBytes)
	return err
}

func (e *Engine) stepChecks(sleep *ioring.Instant) {
	if e.checkpoints.draft.open {
		e.buildOn(sleep)
		return
	}
	if e.checkpoints.checkBusy {
		if !e.checkpoints.checkIO.pushed && !e.checkpoints.checkIO.push(e.ring, kindCheck, 0) {
			earlier(sleep, e.now)
		}
		return
	}
	if e.failed || e.checkpoints.cleanWritten {
		return
	}
	if e.now < e.checkpoints.checkRetry {
		earlier(sleep, e.checkpoints.checkRetry)
		return
	}
	from := e.replayFrom()
	useful := min(e.checkpoints.replays[0], e.checkpoints.replays[1]) < from
	if !(e.checkpoints.wantClean || useful && (e.journal.sinceCheck > e.journal.blocks/4 || e.checkFrees(from)) || e.extents.walked > 2*e.journal.blocks*format.BlockBytes) {
		// a quiet shard leaves nothing to replay, and no run that nothing says was durable
		if !useful && e.extents.walked == 0 || from <= e.journal.sealedSeq || e.journal.openCount > 0 || e.extents.runsUsed > 0 {
			return
		}
		if at := e.journal.lastEntry + idleCheckNS; e.now < at {
			earlier(sleep, at)
			return
		}
	}
	e.checkpoints.sequence++
	e.journal.sinceCheck, e.extents.walked = 0, 0
	if e.o.Faults.Has(JournalReusedEarly) {
		e.release(from)
	}
	e.checkpoints.checkBusy = true
	e.checkpoints.draft = draft{open: true}
	e.checkpoints.draft.head = format.Checkpoint{Directory: e.dir, Epoch: e.epoch, Shard: uint32(e.shard), Clean: e.checkpoints.wantClean, Sequence: e.checkpoints.sequence, Journal: e.journalID,
		Durable: e.journal.durableSeq}
	e.startsAt(from)
	e.rebuild()
	e.buildOn(sleep)
}

// checkFrees says that the journal is short of room and that checkpoints from
// here would free some that is worth writing them: one frees what the one before
// it covers.
func (e *Engine) checkFrees(from uint64) bool {
	worth := e.journal.blocks / 8
	if e.journal.journalFull {
		worth = e.journal.blocks / 64
	}
	return e.journal.used > e.journal.blocks/4*3 && e.blocksBefore(from) >= worth || e.journal.journalFull && e.extents.runsUsed == 0
}

// startsAt has the checkpoint under way say that replay begins with frame from.
func (e *Engine) startsAt(from uint64) {
	head := &e.checkpoints.draft.head
	head.Frame, head.Block, head.Previous = from, uint64(e.journal.next), e.journal.chain
	if from <= e.journal.submitted {
		frame := &e.journal.live[from%uint64(len(e.journal.live))]
		head.Block, head.Previous = uint64(frame.block), frame.previous
	}
}

// rebuild begins the checkpoint under way from its first log.
func (e *Engine) rebuild() {
	draft := &e.checkpoints.draft
	draft.log, draft.bytes, draft.room, draft.head.Logs = 0, format.CheckpointHeaderBytes, e.o.attachmentsBytes(), 0
}

// buildOn puts some logs more into the checkpoint under way, and writes it when
// it has all.
func (e *Engine) buildOn(sleep *ioring.Instant) {
	draft := &e.checkpoints.draft
	if e.failed {
		e.checkpoints.checkBusy, draft.open = false, false
		return
	}
	if e.now < draft.next && !draft.head.Clean {
		earlier(sleep, draft.next)
		return
	}
	until := draft.log + e.o.CheckLogs
	if draft.head.Clean {
		until = e.logsHigh
	}
	for draft.log < e.logsHigh {
		if draft.log == until {
			draft.next = e.now + ioring.Instant(e.o.CheckPauseNS)
			earlier(sleep, draft.next)
			return
		}
		if e.putLog(&e.logs[draft.log], Slot(draft.log)) {
			draft.log++
			continue
		}
		// segments went from log to log meanwhile and stand here twice: all logs
		// at once fit
		e.rebuild()
		until = e.logsHigh
	}
	if e.o.Faults.Has(CheckpointFromLate) {
		e.startsAt(e.replayFrom())
	}
	buf := e.checkpoints.checkBuf.Bytes()
	n := format.AlignBlock(draft.bytes)
	clear(buf[draft.bytes:n])
	draft.head.Put(buf, draft.bytes-format.CheckpointHeaderBytes)
	draft.open = false
	e.checkpoints.checkIO.begin(e.o.Files+slotCheck+uint32(e.checkpoints.sequence%2), 0, e.checkpoints.checkBuf.Slice(0, n))
	e.disk.begin(WorkCheckpoints, n)
	e.stats.Checkpoints++
	e.stats.CheckpointBytes += uint64(n)
	if !e.checkpoints.checkIO.push(e.ring, kindCheck, 0) {
		earlier(sleep, e.now)
	}
}

// putLog puts what is durable and drained of l now. False: there is no room.
func (e *Engine) putLog(lg *log, slot Slot) bool {
	// one whose end is durable and whose files linger is left out
	if lg.state != logOpen && lg.state != logClosing {
		return true
	}
	segments := 0
	for g := lg.segments; g != none; g = e.segments.all[g].next {
		segments++
	}
	buf, draft := e.checkpoints.checkBuf.Bytes(), &e.checkpoints.draft
	if draft.bytes+format.LogRecordBytes+checkEpochs*format.EpochRecordBytes+segments*format.SegmentRecordBytes+draft.room > len(buf) {
		return false
	}
	// of a start past what is drained the journal holds the rest, the new start too
	record := format.LogRecord{ID: lg.id, Start: min(lg.start, lg.drained), End: lg.drained, MaxTime: lg.drainMax, MaxTimeBase: lg.drainBase, RotFrom: lg.rotFrom, RotTo: lg.rotTo, Direct: lg.direct, Chain: lg.chain}
	at := draft.bytes + format.LogRecordBytes
	epochs := 0
	for k := max(0, lg.nEpochs-checkEpochs); k < lg.nEpochs; k++ {
		if lg.epochs[k].Start < lg.drained {
			at += format.PutEpoch(buf[at:], lg.epochs[k])
			epochs++
		}
	}
	segments = 0
	for g := lg.segments; g != none; g = e.segments.all[g].next {
		seg := &e.segments.all[g]
		if !seg.ready {
			continue
		}
		recorded := format.SegmentRecord{Generation: seg.generation, Base: seg.base, End: seg.end, Position: seg.position, MaxTime: seg.maxTime, Chain: seg.chain, Bytes: seg.bytes}
		at += format.PutSegment(buf[at:], &recorded)
		segments++
	}
	n := 0
	if e.attach != nil {
		n = e.attach.Attachment(slot, buf[at:at+draft.room])
		draft.room -= n
	}
	record.Attachment = buf[at : at+n]
	format.PutLogRecord(buf[draft.bytes:], &record, epochs, segments)
	draft.bytes = at + n
	draft.head.Logs++
	return true
}

func (e *Engine) checkCompleted(index uint32, completion ioring.Completion) {
	if !e.checkpoints.checkIO.complete(index&1 != 0, completion.Result, e.now) {
		return
	}
	e.disk.end(WorkCheckpoints, e.checkpoints.checkIO.buf.Len())
	e.checkpoints.checkBusy = false
	if io := &e.checkpoints.checkIO; spaceShort(io.failed, io.errno) {
		// the slot may be torn, and is the one to write again: the other is whole
		e.checkpoints.sequence--
		e.extents.walked++ // what it would have covered is not known any more: some
		e.checkpoints.checkRetry = e.now + retryNS
		e.stats.NoSpace++
		return
	}
	if e.checkpoints.checkIO.errno != 0 {
		// the slot may be torn; without checkpoints the journal ends
		e.fail(e.checkpoints.checkIO.failure(CheckpointFile0 + FailedFile(e.checkpoints.sequence%2)))
		return
	}
	e.checkpoints.replays[e.checkpoints.sequence%2] = e.checkpoints.draft.head.Frame
	if e.checkpoints.draft.head.Clean {
		e.checkpoints.cleanWritten = true
	}
	e.release(min(e.checkpoints.replays[0], e.checkpoints.replays[1]))
}
