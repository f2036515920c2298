package recovery

import (
	"fmt"
	"strconv"

	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
)

// commit begins the new epoch: its checkpoints are written into the older slot of every
// shard, then the superblock takes effect, then the other slots are written too.
func (r *recovery) commit() error {
	r.boot.Epoch = r.old.Epoch + 1
	shards := r.o.Shards + 1
	r.boot.Shards = make([]engine.RecoveredShard, shards)
	for _, id := range sorted(r.logs) {
		lg := r.logs[id]
		lg.Start = min(lg.Start, lg.End)
		r.pruneHeaders(lg)
		recovered := engine.RecoveredLog{ID: id, Start: lg.Start, End: lg.End, Holes: lg.lost(), Attachment: lg.Attachment, Headers: headersOf(lg.Headers), Record: lg.record()}
		shard := format.Place(id, r.o.Shards)
		r.boot.Shards[shard].Logs = append(r.boot.Shards[shard].Logs, recovered)
	}
	if err := r.Mkdir("segments"); err != nil {
		return err
	}
	for shard := range shards {
		if err := r.makeShardFiles(shard); err != nil {
			return err
		}
	}
	if err := r.SyncDirectory("."); err != nil {
		return err
	}
	if err := r.writeCheckpoints(); err != nil {
		return err
	}
	if added := format.NeedsServed &^ r.old.Needs; added != 0 && r.old.Sequence > 0 {
		r.note("the data directory is raised: versions of Tailbound before %s do not open it any more. It may list what is lost of a log", format.ThisRelease)
	}
	slot := r.First + slotSuperblock
	next := format.Superblock{Directory: r.boot.Directory, Epoch: r.boot.Epoch, Shards: uint32(shards), Sequence: r.old.Sequence + 1,
		BatchMax: uint32(r.boot.BatchBytesMax), InflightMax: max(r.old.InflightMax, uint32(r.o.InflightMax)), WrittenBy: format.ThisRelease, Needs: format.NeedsServed}
	if _, err := r.Open(slot, "superblock", ioring.OpenCreate); err != nil {
		return err
	}
	defer r.Close(slot)
	buf := make([]byte, format.BlockBytes)
	write := func() error {
		next.Put(buf)
		if err := r.Write(slot, int64(next.Sequence%2)*format.BlockBytes, buf); err != nil {
			return err
		}
		return r.Sync(slot)
	}
	if err := write(); err != nil {
		return err
	}
	if err := r.SyncDirectory("."); err != nil {
		return err
	}
	if err := r.writeCheckpoints(); err != nil {
		return err
	}
	// From here on both slots of every shard and of the superblock are of the new epoch.
	next.Sequence++
	if err := write(); err != nil {
		return err
	}
	return r.cleanUp(shards)
}

// headersOf is the batch headers that were kept, those before the log's start included: a
// producer that waits for an answer sends its batch again.
func headersOf(kept []byte) (out []byte) {
	for ; len(kept) >= format.KeptHeaderBytes; kept = kept[format.KeptHeaderBytes:] {
		out = append(out, kept[8:format.KeptHeaderBytes]...)
	}
	return out
}

// makeShardFiles makes the files of a shard that the epoch before did not have.
func (r *recovery) makeShardFiles(shard int) error {
	if shard < int(r.old.Shards) {
		return nil
	}
	if err := r.Mkdir(fmt.Sprintf("shard-%03d", shard)); err != nil {
		return err
	}
	for _, name := range []string{"journal", "checkpoint-0", "checkpoint-1"} {
		path := format.ShardPath(shard, name)
		if _, err := r.Open(r.First, path, ioring.OpenCreate); err != nil {
			return err
		}
		size, err := r.Size(r.First)
		want := int64(1 << 20)
		if name == "journal" {
			want = int64(r.o.JournalBytes)
		}
		if err == nil && size < want {
			err = r.Zero(r.First, size, want)
		} else if err == nil {
			err = r.Sync(r.First)
		}
		r.Close(r.First)
		if err != nil {
			return err
		}
	}
	return r.SyncDirectory(fmt.Sprintf("shard-%03d", shard))
}

// writeCheckpoints writes a checkpoint of the new epoch into the next slot of every shard.
func (r *recovery) writeCheckpoints() error {
	for shard := range r.boot.Shards {
		recovered := &r.boot.Shards[shard]
		if recovered.Checkpoint == 0 {
			recovered.Checkpoint = r.checkpointSeqs[shard]
		}
		recovered.Checkpoint++
		checkpoint := format.Checkpoint{Directory: r.boot.Directory, Epoch: r.boot.Epoch, Shard: uint32(shard), Sequence: recovered.Checkpoint,
			Journal: format.JournalID(r.boot.Directory, r.boot.Epoch, shard), Frame: 1, Logs: uint32(len(recovered.Logs))}
		buf := make([]byte, format.CheckpointHeaderBytes, 1<<20)
		for i := range recovered.Logs {
			record := recovered.Logs[i].Record
			need := format.LogRecordBytes + len(record.Epochs)*format.EpochRecordBytes + len(record.Segments)*format.SegmentRecordBytes
			listed := record.Holes
			if len(listed) < 2 { // a single one is in the fixed part
				listed = nil
			}
			need += len(listed) * format.HoleBytes
			at := len(buf)
			buf = append(buf, make([]byte, need)...)
			at += format.PutLogRecord(buf[at:], record, len(record.Epochs), len(listed), len(record.Segments))
			for _, epoch := range record.Epochs {
				at += format.PutEpoch(buf[at:], epoch)
			}
			for _, hole := range listed {
				at += format.PutHole(buf[at:], hole)
			}
			for k := range record.Segments {
				at += format.PutSegment(buf[at:], &record.Segments[k])
			}
			buf = append(buf, record.Attachment...)
			buf = append(buf, record.Headers...)
		}
		n := len(buf)
		buf = append(buf, make([]byte, format.AlignBlock(n)-n)...)
		checkpoint.Put(buf, n-format.CheckpointHeaderBytes)
		path := format.ShardPath(shard, fmt.Sprintf("checkpoint-%d", recovered.Checkpoint%2))
		if err := r.Need(r.First, path, 0); err != nil {
			return err
		}
		err := r.Write(r.First, 0, buf)
		if err == nil {
			err = r.Sync(r.First)
		}
		r.Close(r.First)
		if err != nil {
			return err
		}
	}
	return nil
}

// cleanUp removes files of segments that are in no log and are not kept for new segments,
// and the files of shards that the new epoch does not have.
func (r *recovery) cleanUp(shards int) error {
	named := map[string]bool{}
	for _, lg := range r.logs { // order does not matter
		for _, seg := range lg.Segments {
			named[format.SegmentPath(seg.Generation)] = true
		}
	}
	names, err := r.List("segments")
	if err != nil {
		return err
	}
	for _, name := range names {
		switch path := "segments/" + name; {
		case named[path]:
		case r.journalCorrupt:
			r.note("%s belongs to no log; it is left, for the journal was broken", path)
		case r.keepRecycled(name, path):
		default:
			r.Unlink(path)
		}
	}
	for shard := shards; shard < int(r.old.Shards); shard++ {
		for _, name := range []string{"journal", "checkpoint-0", "checkpoint-1"} {
			r.Unlink(format.ShardPath(shard, name))
		}
	}
	return nil
}

// keepRecycled keeps a file that is in no log for the first shard that may keep one more,
// if it has the size of a prepared file. False: it is not kept.
func (r *recovery) keepRecycled(name, path string) bool {
	generation, err := strconv.ParseUint(name, 16, 64)
	if err != nil || path != format.SegmentPath(generation) || r.o.PrepareBytes <= 0 {
		return false
	}
	if there, err := r.Open(r.First, path, ioring.OpenReadOnly); err != nil || !there {
		return false
	}
	size, err := r.Size(r.First)
	r.Close(r.First)
	if err != nil || size < min(engine.PrepareBytesMin, int64(r.o.SegmentBytes)) || size > int64(r.o.SegmentBytes) || size%format.BlockBytes != 0 {
		return false
	}
	for shard := 1; shard < len(r.boot.Shards); shard++ {
		recovered := &r.boot.Shards[shard]
		sum := size
		for _, file := range recovered.Recycled {
			sum += file.Bytes
		}
		if sum <= r.o.PrepareBytes && len(recovered.Recycled) < engine.RecycledMax {
			recovered.Recycled = append(recovered.Recycled, engine.RecycledFile{Generation: generation, Bytes: size})
			return true
		}
	}
	return false
}
