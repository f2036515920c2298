package recovery

import (
	"encoding/binary"
	"slices"

	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
)

// journalReader reads the frames of one journal, whose file is open in slot.
type journalReader struct {
	*ioring.Blocking
	slot     uint32
	size     int64 // whole blocks
	old      format.Superblock
	journal  uint64 // its id
	anyEpoch bool   // the fault NoEpoch

	// What was read last, a part of the journal: frames are small, and lie one behind the other.
	part   []byte
	partAt int64
}

// read gives n bytes at an offset, or fewer if the journal ends before. They are valid until the
// next call.
func (j *journalReader) read(at int64, n int) ([]byte, error) {
	if from := at - j.partAt; from >= 0 && from+int64(n) <= int64(len(j.part)) {
		return j.part[from:][:n], nil
	}
	j.part = nil
	if most := int(min(j.size-at, bufferBytes)); most > n {
		// An error may be of a block behind what is asked for.
		if buf, err := j.Read(j.slot, at, most); err == nil {
			j.part, j.partAt = buf, at
			return buf[:min(n, len(buf))], nil
		}
	}
	return j.Read(j.slot, at, n)
}

// framePosition is where the next frame of a journal is expected, and which.
type framePosition struct {
	at       int64
	sequence uint64
	previous uint32 // header CRC of the frame before
	chained  bool   // that is known
}

// replay reads the frames of a shard's journal from where its checkpoint says, and gives
// their entries to the logs. At a broken frame it looks at the frames behind it. If one
// of them, or the checkpoint, says that the broken frame was durable, acknowledged
// entries are lost: replay goes on behind it. Otherwise it is the hole of a power cut,
// and nothing in or behind it was acknowledged.
func (r *recovery) replay(shard int, checkpoint *format.Checkpoint, logs map[uint64]*recoveredLog) error {
	size, err := r.Size(r.First + slotJournal)
	if err != nil {
		return err
	}
	next := framePosition{int64(checkpoint.Block) * format.BlockBytes, checkpoint.Frame, checkpoint.Previous, true}
	if size < next.at || size == 0 {
		return damaged(format.ShardPath(shard, "journal"), size, "it ends here, and what is to be replayed begins at %d", next.at)
	}
	journal := &journalReader{Blocking: r.Blocking, slot: r.First + slotJournal, size: size &^ (format.BlockBytes - 1), old: r.old, journal: checkpoint.Journal, anyEpoch: r.o.Faults.Has(engine.NoEpoch)}
	var later []laterFrame // the frames behind the first broken one, in order
	looked, durable := false, checkpoint.Durable
	for {
		header, body, err := journal.next(&next)
		if err != nil {
			return err
		}
		if body != nil {
			r.frames++
			if err := r.replayFrame(shard, next.at, body, logs); err != nil {
				return err
			}
			next = framePosition{next.at + int64(format.AlignBlock(format.HeaderBytes+len(body))), next.sequence + 1, header.CRC, true}
			continue
		}
		if !looked {
			if later, err = journal.framesAfter(next.sequence); err != nil {
				return err
			}
			for i := range later {
				durable = max(durable, later[i].Durable)
			}
			looked = true
		}
		for len(later) > 0 && later[0].Sequence <= next.sequence {
			later = later[1:]
		}
		if durable < next.sequence && !(r.o.Faults.Has(engine.GapIsRot) && len(later) > 0) {
			if len(later) > 0 {
				r.note("shard %d: a hole at frame %d, %d frames after it were dropped: none of them was acknowledged", shard, next.sequence, len(later))
			}
			return nil
		}
		r.journalCorrupt = true
		r.note("shard %d: rot: frame %d of the journal (%s at %d) is broken and was durable", shard, next.sequence, format.ShardPath(shard, "journal"), next.at)
		resume, err := r.passBroken(shard, journal, next, later, durable, logs)
		if err != nil || resume == nil {
			return err
		}
		next = framePosition{at: resume.at, sequence: resume.Sequence}
	}
}

// passBroken passes a broken frame that was durable. resume is the first whole frame of
// those behind it; nil: there is none. Unless all entries that are lost are known, every
// log is suspect.
func (r *recovery) passBroken(shard int, journal *journalReader, broken framePosition, later []laterFrame, durable uint64, logs map[uint64]*recoveredLog) (resume *laterFrame, err error) {
	for i := range later {
		_, _, whole, err := journal.readFrame(later[i].at, later[i].Sequence)
		if err != nil {
			return nil, err
		}
		if whole {
			resume = &later[i]
			break
		}
	}
	frame := brokenFrame{int32(shard) + 1, broken.at}
	known := r.replayBroken(journal, broken, frame, logs)
	if resume != nil && resume.Sequence != broken.sequence+1 || resume == nil && durable > broken.sequence {
		known = false // the frames between are lost too
	}
	if !known {
		r.unknown = &frame
		for _, lg := range logs { // order does not matter
			r.store.add(&lg.journal, nil, frame)
		}
	}
	return resume, nil
}

// laterFrame is the header of a frame behind a broken one, and its position.
type laterFrame struct {
	format.FrameHeader
	at int64
}

// next reads the frame that is expected at a position or, as a frame does not straddle the
// journal's end, at its beginning; the position is moved there. A nil body: neither is
// that frame, whole.
func (j *journalReader) next(position *framePosition) (header format.FrameHeader, body []byte, err error) {
	for _, at := range []int64{position.at, 0} {
		if at >= j.size {
			continue
		}
		header, body, whole, err := j.readFrame(at, position.sequence)
		if err != nil {
			return header, nil, err
		}
		if whole && header.Sequence == position.sequence && (!position.chained || header.Previous == position.previous || j.anyEpoch) {
			position.at = at
			return header, body, nil
		}
	}
	return header, nil, nil
}

// readFrame reads the frame at an offset. A nil body: the header is broken, or there is no
// frame. whole: the body is what was written. What needs a later version is refused only
// in the frame with this sequence, which is to be replayed: any other may be of an
// earlier lap.
func (j *journalReader) readFrame(at int64, sequence uint64) (header format.FrameHeader, body []byte, whole bool, err error) {
	buf, err := j.read(at, format.BlockBytes)
	if err != nil || len(buf) < format.BlockBytes {
		return header, nil, false, err
	}
	unserved, ok := header.Parse(buf)
	if !ok || !j.isOwn(&header) {
		return header, nil, false, nil
	}
	if unserved != "" {
		if header.Sequence == sequence {
			return header, nil, false, newer(j.PathOf(j.slot), at, unserved)
		}
		return header, nil, false, nil
	}
	n := format.AlignBlock(format.HeaderBytes + int(header.BodyBytes))
	if at+int64(n) > j.size {
		return header, nil, false, nil
	}
	if buf, err = j.read(at, n); err != nil || len(buf) < n {
		return header, nil, false, err
	}
	body = buf[format.HeaderBytes : format.HeaderBytes+int(header.BodyBytes)]
	return header, body, format.CRC(body) == header.BodyCRC, nil
}

// framesAfter is the headers of all frames with higher sequences, in order. They are of the
// epoch before and not replayed: one that needs a later version is refused.
func (j *journalReader) framesAfter(sequence uint64) (heads []laterFrame, err error) {
	for at := int64(0); at < j.size; at += bufferBytes {
		buf, err := j.read(at, int(min(j.size-at, bufferBytes)))
		if err != nil {
			return nil, err
		}
		for k := 0; k+format.BlockBytes <= len(buf); k += format.BlockBytes {
			var header format.FrameHeader
			if unserved, ok := header.Parse(buf[k:]); ok && j.isOwn(&header) && header.Sequence > sequence {
				if unserved != "" {
					return nil, newer(j.PathOf(j.slot), at+int64(k), unserved)
				}
				heads = append(heads, laterFrame{header, at + int64(k)})
			}
		}
	}
	slices.SortFunc(heads, func(a, b laterFrame) int { return int(int64(a.Sequence - b.Sequence)) })
	return heads, nil
}

// isOwn reports that a frame is of this journal in the epoch before.
func (j *journalReader) isOwn(header *format.FrameHeader) bool {
	return header.Directory == j.old.Directory && (j.anyEpoch || header.Epoch == j.old.Epoch && header.Journal == j.journal)
}

// replayFrame replays the entries of a whole frame, which is at offset at.
func (r *recovery) replayFrame(shard int, at int64, body []byte, logs map[uint64]*recoveredLog) error {
	for len(body) > 0 {
		var entry format.Entry
		if !entry.Get(body) || entry.Bytes() > len(body) {
			return contradicts(format.ShardPath(shard, "journal"), at, "a whole frame holds a broken entry")
		}
		if what := entry.Newer(); what != "" {
			return newer(format.ShardPath(shard, "journal"), at, what)
		}
		r.replayEntry(&entry, body[:entry.Bytes()], logs)
		body = body[entry.Bytes():]
	}
	return nil
}

// replayBroken replays what can be known of a broken frame: whose its data entries were,
// and all other entries. True: all of its entries are known.
func (r *recovery) replayBroken(journal *journalReader, broken framePosition, frame brokenFrame, logs map[uint64]*recoveredLog) bool {
	for _, at := range []int64{broken.at, 0} {
		header, body, _, err := journal.readFrame(at, broken.sequence)
		if err != nil || body == nil || header.Sequence != broken.sequence {
			continue
		}
		for len(body) > 0 {
			var entry format.Entry
			// An entry that needs a later version may be left over from another frame, and
			// then says nothing of this one.
			if !entry.Get(body) || entry.Bytes() > len(body) || entry.Newer() != "" {
				return false
			}
			if entry.Kind == format.EntryData {
				if lg := logs[entry.Log]; lg != nil {
					r.store.add(&lg.journal, body[:format.EntryHeaderBytes], frame)
				}
			} else {
				r.replayEntry(&entry, nil, logs)
			}
			body = body[entry.Bytes():]
		}
		return true
	}
	return false
}

// replayEntry does what an entry says to its log. The bytes are its header and batch.
func (r *recovery) replayEntry(entry *format.Entry, bytes []byte, logs map[uint64]*recoveredLog) {
	lg := logs[entry.Log]
	if lg == nil && (entry.Kind == format.EntryOpened || r.mayBeNew(entry.Log)) {
		lg = newRecoveredLog(&format.LogRecord{ID: entry.Log, MaxTime: format.NoTime, MaxTimeBase: format.NoOffset})
		if entry.Kind != format.EntryOpened { // that entry was in a frame of which nothing is known
			r.store.add(&lg.journal, nil, *r.unknown)
		}
		logs[entry.Log] = lg
	}
	if lg == nil {
		return
	}
	switch entry.Kind {
	case format.EntryClosed:
		lg.closed = true
	case format.EntryStartMoved:
		lg.startMoved = lg.startMoved || entry.Base > lg.Start
		lg.Start = max(lg.Start, entry.Base)
	case format.EntryAssigned:
		for i := range lg.Segments {
			if lg.Segments[i].Generation == entry.Aux {
				return
			}
		}
		lg.Segments = append(lg.Segments, format.SegmentRecord{Generation: entry.Aux, Base: entry.Base, End: entry.Base, MaxTime: format.NoTime})
	case format.EntryData:
		r.store.add(&lg.journal, bytes, brokenFrame{})
	}
}

// mayBeNew reports that the entry that opened an unknown log may have been in a broken frame. Ids
// are given out in order: one below those in the checkpoint is that of a deleted log.
func (r *recovery) mayBeNew(id uint64) bool { return r.unknown != nil && id > r.newest }

// epochBegan adds the epoch before to a log's leader epochs: it has appended at base or
// before.
func (r *recovery) epochBegan(lg *recoveredLog, base int64) {
	if n := len(lg.Epochs); n == 0 || lg.Epochs[n-1].Epoch != int32(r.old.Epoch) {
		lg.AddEpoch(format.EpochStart{Epoch: int32(r.old.Epoch), Start: base})
	}
}

// keepHeader keeps the header of a batch for RecoveredLog.Headers. They are pruned each
// time they have doubled: a journal may hold a million batches of a log, and the
// checkpoints of a start on a full disk get no new room.
func (r *recovery) keepHeader(lg *recoveredLog, entry *format.Entry, bytes []byte) {
	var head [format.KeptHeaderBytes]byte
	binary.LittleEndian.PutUint64(head[:], uint64(entry.Base+int64(entry.Count)))
	copy(head[8:], bytes[format.EntryHeaderBytes:format.EntryHeaderBytes+int(entry.Length)])
	lg.Headers = append(lg.Headers, head[:]...)
	if len(lg.Headers) >= lg.pruneAt+pruneBytesMin {
		r.pruneHeaders(lg)
	}
}

const pruneBytesMin = 64 << 10

// pruneHeaders drops the headers that the logs' owner has no use for.
func (r *recovery) pruneHeaders(lg *recoveredLog) {
	if r.o.Prune != nil {
		lg.Headers = r.o.Prune(lg.Headers)
	}
	lg.pruneAt = 2 * len(lg.Headers)
}
