package engine

import (
	"tailbound/ioring"
	"tailbound/mem"
)

// checks writes checkpoints: two slots in turn, each whole, linked with its
// sync. What both slots replay from past is free in the journal.
type checks struct {
	checkBuf     mem.Block
	sequence     uint64
	replays      [2]uint64 // the frame each slot replays from
	checkBusy    bool
	wantClean    bool
	cleanWritten bool
	writingClean bool
	checkFrom    uint64
	checkIO      writeSync
	checkRetry   ioring.Instant // after the disk had no room for one
}

func (e *Engine) carveChecks(a *mem.Arena) (err error) {
	e.replays = [2]uint64{1, 1} // Recover wrote both
	e.checkBuf, err = a.Carve("checkpoint", e.o.checkpointBytes(), blockBytes)
	return err
}

func (e *Engine) stepChecks(sleep *ioring.Instant) {
	if e.checkBusy {
		if !e.checkIO.pushed && !e.checkIO.push(e.ring, kindCheck, 0) {
			earlier(sleep, e.now)
		}
		return
	}
	if e.failed != 0 || e.cleanWritten {
		return
	}
	if e.now < e.checkRetry {
		earlier(sleep, e.checkRetry)
		return
	}
	from := e.replayFrom()
	useful := min(e.replays[0], e.replays[1]) < from
	if !(e.wantClean || useful && (e.sinceCheck > e.blocks/4 || e.journalFull || e.used > e.blocks/4*3) || e.walked > 2*e.blocks*blockBytes) {
		// a quiet shard leaves nothing to replay, and no run that nothing says was durable
		if !useful && e.walked == 0 || from <= e.sealedSeq || e.openCount > 0 || e.runsUsed > 0 {
			return
		}
		if at := e.lastEntry + idleCheckNS; e.now < at {
			earlier(sleep, at)
			return
		}
	}
	e.checkFrom, e.writingClean = from, e.wantClean
	e.sequence++
	e.sinceCheck, e.walked = 0, 0
	if e.o.Faults.has(JournalReusedEarly) {
		e.release(e.checkFrom)
	}
	n := e.buildCheckpoint()
	e.checkBusy = true
	e.checkIO.begin(e.o.Files+slotCheck+uint32(e.sequence%2), 0, e.checkBuf.Slice(0, n))
	e.disk.begin(WorkCheckpoints, n)
	e.stats.Checkpoints++
	e.stats.CheckpointBytes += uint64(n)
	if !e.checkIO.push(e.ring, kindCheck, 0) {
		earlier(sleep, e.now)
	}
}

// buildCheckpoint writes what is durable and drained now; the number of bytes.
func (e *Engine) buildCheckpoint() int {
	p := e.checkBuf.Bytes()
	c := checkpoint{directory: e.dir, epoch: e.epoch, shard: uint32(e.shard), clean: e.wantClean, sequence: e.sequence, journal: e.journal,
		frame: e.checkFrom, durable: e.durableSeq, block: uint64(e.next), previous: e.chain}
	if e.checkFrom <= e.submitted {
		f := &e.live[e.checkFrom%uint64(len(e.live))]
		c.block, c.previous = uint64(f.block), f.previous
	}
	at := checkHeader
	budget := e.o.attachmentsBytes()
	for i := range e.logs[:e.logsHigh] {
		l := &e.logs[i]
		// one whose end is durable and whose files linger is left out
		if l.state != logOpen && l.state != logClosing {
			continue
		}
		r := logRecord{id: l.id, start: min(l.start, l.drained), end: l.drained, maxTime: l.drainMax, maxTimeBase: l.drainBase, rotFrom: l.rotFrom, rotTo: l.rotTo, direct: l.direct, chain: l.chain}
		if l.start > l.drained {
			r.start = l.drained // the journal holds the rest, its new start too
		}
		head := at
		at += logRecordBytes
		epochs, segments := 0, 0
		for k := max(0, l.nEpochs-8); k < l.nEpochs; k++ {
			if l.epochs[k].start < l.drained {
				at += putEpoch(p[at:], l.epochs[k])
				epochs++
			}
		}
		for g := l.segments; g != none; g = e.all[g].next {
			q := &e.all[g]
			if !q.ready {
				continue
			}
			x := segRecord{generation: q.generation, base: q.base, end: q.end, position: q.position, maxTime: q.maxTime, chain: q.chain, bytes: q.bytes}
			at += putSegment(p[at:], &x)
			segments++
		}
		n := 0
		if e.attach != nil {
			n = e.attach.Attachment(Slot(i), p[at:at+budget])
			budget -= n
		}
		putLogRecord(p[head:], &r, epochs, segments)
		le.PutUint32(p[head+60:], uint32(n))
		at += n
		c.logs++
	}
	n := alignBlock(at)
	clear(p[at:n])
	c.put(p, at-checkHeader)
	return n
}

func (e *Engine) checkCompleted(i uint32, c ioring.Completion) {
	if !e.checkIO.complete(i&1 != 0, c.Result, e.now) {
		return
	}
	e.disk.end(WorkCheckpoints, e.checkIO.buf.Len())
	e.checkBusy = false
	if errno := e.checkIO.errno; errno == int(ioring.ENOSPC) || errno == int(ioring.EDQUOT) {
		// the slot may be torn, and is the one to write again: the other is whole
		e.sequence--
		e.walked++ // what it would have covered is not known any more: some
		e.checkRetry = e.now + retryNS
		e.stats.NoSpace++
		return
	}
	if e.checkIO.errno != 0 {
		// the slot may be torn; without checkpoints the journal ends
		e.fail(e.checkIO.errno)
		return
	}
	e.replays[e.sequence%2] = e.checkFrom
	if e.writingClean {
		e.cleanWritten = true
	}
	e.release(min(e.replays[0], e.replays[1]))
}
