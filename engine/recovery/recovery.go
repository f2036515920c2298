package recovery

import (
	"errors"
	"fmt"
	"slices"

	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// Options are the sizes and choices of one opening, check or repair.
type Options struct {
	engine.Options
	Shards int                            // data shards of the new epoch
	Shard0 int                            // BatchBytesMax of the control shard, if it is larger than the others'
	Seed   [16]byte                       // id of a new directory, random
	Each   func(log uint64, batch []byte) // called by Check with every sound batch, in the order of each log; may be nil
	// Progress is called by Check with how many bytes of segments it has read, and of how
	// many. May be nil.
	Progress func(done, total int64)
	// TimesChecked reports whether each record of a batch that only a journal has has a
	// timestamp, none of which is newer than maxTime. nil: that is not known of any.
	TimesChecked func(batch []byte, maxTime int64) bool
	// Sound reports whether a batch of a broken run, which was at that offset in one of
	// these leader epochs, first to last, is what was written. A repair keeps those.
	// nil: none is.
	Sound func(batch []byte, base int64, first, last int32) bool
	// Prune drops those of a log's kept headers (format.KeptHeaderBytes each, oldest first)
	// that have no meaning for its owner, in place. nil: all are kept.
	Prune func(headers []byte) []byte
}

// recovery is the state of one opening, check or repair.
type recovery struct {
	*ioring.Blocking
	o              Options
	old            format.Superblock
	boot           *engine.RecoveredState
	logs           map[uint64]*recoveredLog
	checkpointSeqs map[int]uint64        // sequence of each shard's newest checkpoint
	frames         int                   // how many were replayed
	segmentsMade   uint64                // by newSegment
	synced         map[uint64]bool       // generations of segments that were synced
	opened         *format.SegmentRecord // the segment that openSegment has open; nil
	openedBytes    int64                 // its size
	unknown        *brokenFrame          // the last broken frame of the shard's journal of which nothing is known; nil
	newest         uint64                // the highest id in the shard's checkpoint
	journalCorrupt bool                  // a frame that was durable is broken: no segment file is removed
	readOnly       bool                  // this is Check
	checked        int64                 // Check: bytes of segments that were read
	toCheck        int64                 // ... and of all that are to be read
}

// recoveredLog is a log as the checkpoint, the segments and the journal describe it.
type recoveredLog struct {
	format.LogRecord
	accepted       int64           // its end, with what the journal has
	claimedDurable int64           // the highest durable offset that any entry or run claims
	startMoved     bool            // by an entry of the journal
	closed         bool            // it was deleted
	replayed       []replayedEntry // its entries in the journal, in order
	entries        []replayedEntry // those that were accepted and are not in a segment yet, behind its last run
	gaps           []gap           // the places of broken runs among its runs, with what the journal has of them
	holes          []hole          // what is lost of it, in order; LogRecord's are not used
	pruneAt        int             // Headers is pruned when it has so many bytes, and some more
}

// newRecoveredLog is a log as a checkpoint has it. Before 0.2 a log ended where its loss began.
func newRecoveredLog(record *format.LogRecord) *recoveredLog {
	lg := &recoveredLog{LogRecord: *record, claimedDurable: record.End}
	for _, lost := range record.Holes {
		if lost.To > lg.End && record.ID == format.ControlLogID {
			lost = format.Hole{From: lg.End, To: lg.End}
		}
		lg.End = max(lg.End, lost.To)
		lg.addHole(hole{Hole: lost})
	}
	lg.accepted = lg.End
	return lg
}

// saw notes the largest timestamp of a run or batch, and at which offset that is.
func (l *recoveredLog) saw(maxTime, base int64) {
	if maxTime > l.MaxTime || l.MaxTimeBase == format.NoOffset {
		l.MaxTime, l.MaxTimeBase = maxTime, base
	}
}

// replayedEntry is a data entry of a journal. Of an entry in a broken frame there may be
// the header alone. An empty one stands for a broken frame whose entries are not known.
type replayedEntry struct {
	format.Entry
	bytes []byte      // header and batch
	frame brokenFrame // that it was in
}

// end is one past the entry's last offset.
func (e *replayedEntry) end() int64 { return e.Base + int64(e.Count) }

// Recover opens the data directory: afterwards all that was acknowledged is in segments,
// the journals are empty, and the epoch is one higher. It may be interrupted at any
// point and run again. What it does:
//
//	readSuperblock()
//	for every shard of the epoch before {
//		sync its files; read its newest checkpoint; replay(journal)
//		for every log { scan(segments); accept(journal's entries); flush(to segments) }
//	}
//	commit: checkpoints of the new epoch into the older slots; superblock; the other slots; clean up
func Recover(ring ioring.Ring, arena *mem.Arena, options Options) (_ *engine.RecoveredState, err error) {
	defer func() { err = ioring.Advised(err) }()
	if options.Shards < 1 || options.Shards+1 > format.ShardsMax {
		return nil, fmt.Errorf("%d data shards: there may be 1 to %d", options.Shards, format.ShardsMax-1)
	}
	r, err := begin(ring, arena, options)
	if err != nil {
		return nil, err
	}
	if err := r.recoverShards(); err != nil {
		return nil, err
	}
	if err := r.commit(); err != nil {
		return nil, err
	}
	return r.boot, nil
}

// bufferBytes is how much is read or written at a time.
const bufferBytes = 1 << 20

// File slots of the ring, from First on. That of ioring.Blocking.SyncDirectory is 5.
const (
	slotJournal     = 0
	slotCheckpoints = 1 // and 2
	slotSegment     = 4
	slotSuperblock  = 6 // where it is written
)

// begin is the beginning of Recover, Check and Repair: it allocates memory and reads the
// superblock.
func begin(ring ioring.Ring, arena *mem.Arena, options Options) (*recovery, error) {
	if err := options.Complete(); err != nil {
		return nil, err
	}
	buf, err := arena.Allocate("recovery", bufferBytes, format.BlockBytes)
	if err != nil {
		return nil, err
	}
	path, err := arena.Allocate("recovery", format.BlockBytes, format.BlockBytes)
	if err != nil {
		return nil, err
	}
	r := &recovery{Blocking: ioring.NewBlocking(ring, buf, path, engine.KindBlocking, options.Files), o: options,
		boot: &engine.RecoveredState{Clean: true}, logs: map[uint64]*recoveredLog{}, checkpointSeqs: map[int]uint64{}, synced: map[uint64]bool{}}
	return r, r.readSuperblock()
}

// note adds a line for an operator.
func (r *recovery) note(format string, args ...any) {
	r.boot.Notes = append(r.boot.Notes, fmt.Sprintf(format, args...))
}

// readSuperblock reads both slots and takes the newer one. A directory without a
// superblock is new, unless there are segments.
func (r *recovery) readSuperblock() error {
	there, err := r.Open(r.First, "superblock", 0)
	if err != nil {
		return err
	}
	if there {
		defer r.Close(r.First)
		if !r.o.Faults.Has(engine.NoSyncAtOpen) {
			if err := r.Sync(r.First); err != nil {
				return err
			}
		}
		buf, err := r.Read(r.First, 0, format.SuperblockBytes)
		if err != nil {
			return err
		}
		unserved, where := "", int64(0)
		for at := int64(0); len(buf) >= format.BlockBytes; at += format.BlockBytes {
			var slot format.Superblock
			if what, ok := slot.Get(buf); ok && slot.Sequence >= r.old.Sequence && slot.Sequence > 0 {
				r.old, unserved, where = slot, what, at
			}
			buf = buf[format.BlockBytes:]
		}
		if unserved != "" {
			if by := r.old.WrittenBy; by > format.ThisRelease {
				unserved += " (Tailbound " + by.String() + ")"
			}
			return newer("superblock", where, unserved)
		}
	}
	// An epoch that allowed larger batches may have left some.
	r.o.BatchBytesMax = max(r.o.BatchBytesMax, int(r.old.BatchMax))
	r.boot.BatchBytesMax = r.o.BatchBytesMax
	r.o.BatchBytesMax = max(r.o.BatchBytesMax, r.o.Shard0) // recovery reads the batches of every shard
	if r.old.Sequence > 0 {
		r.boot.Directory = r.old.Directory
		return nil
	}
	names, err := r.List("segments")
	if err != nil && !errors.Is(err, ioring.ENOENT) {
		return err
	}
	if len(names) > 0 {
		if !there {
			return damaged("superblock", -1, "it is missing, and there are segments: this directory is damaged")
		}
		return damaged("superblock", -1, "neither of its two slots can be read, and there are segments: this directory is damaged")
	}
	r.boot.Fresh = true
	r.boot.Directory = r.o.Seed
	if r.o.Seed == [16]byte{} {
		r.boot.Directory[0] = 1 // any id but zero, for callers without a random one
	}
	return nil
}

// recoverShards takes the logs of every shard of the epoch before.
func (r *recovery) recoverShards() error {
	for shard := range int(r.old.Shards) {
		if err := r.recoverShard(shard); err != nil {
			return err
		}
	}
	return nil
}

// recoverShard takes the logs of one shard. Its files are synced before they are read:
// what a killed process wrote can be read and need not be durable.
func (r *recovery) recoverShard(shard int) error {
	for i, name := range []string{"journal", "checkpoint-0", "checkpoint-1"} {
		path, slot := format.ShardPath(shard, name), r.First+slotJournal+uint32(i)
		if err := r.Need(slot, path, 0); err != nil {
			return err
		}
		defer r.Close(slot)
		if !r.o.Faults.Has(engine.NoSyncAtOpen) {
			if err := r.Sync(slot); err != nil {
				return err
			}
		}
	}
	checkpoint, records, err := r.newestCheckpoint(shard)
	if err != nil {
		return err
	}
	r.checkpointSeqs[shard] = checkpoint.Sequence
	logs := map[uint64]*recoveredLog{}
	r.newest = 0
	for _, record := range records {
		logs[record.ID] = newRecoveredLog(record)
		r.newest = max(r.newest, record.ID)
	}
	if r.unknown = nil; !checkpoint.Clean {
		r.boot.Clean = false
		if err := r.replay(shard, &checkpoint, logs); err != nil {
			return err
		}
	}
	if r.unknown != nil {
		if err := r.adoptSegments(shard, logs); err != nil {
			return err
		}
	}
	for _, id := range sorted(logs) {
		lg := logs[id]
		if lg.closed {
			continue
		}
		if r.logs[id] != nil {
			return contradicts(format.ShardPath(shard, "checkpoint-0"), -1, "log %d is on this shard and on another", id)
		}
		r.logs[id] = lg
		if !checkpoint.Clean {
			if err := r.walk(lg); err != nil {
				return err
			}
		}
		lg.dropPassedHoles()
		if !r.readOnly {
			if err := r.flush(lg); err != nil {
				return err
			}
		}
		if err := r.locate(lg); err != nil {
			return err
		}
		r.noteHoles(lg)
	}
	return nil
}

// newestCheckpoint is the newer whole checkpoint of a shard, of the epoch before.
func (r *recovery) newestCheckpoint(shard int) (best format.Checkpoint, records []*format.LogRecord, err error) {
	var body []byte
	unserved := ""
	for i := range uint32(2) {
		checkpoint, buf, what, err := r.readCheckpoint(r.First + slotCheckpoints + i)
		if err != nil {
			return best, nil, err
		}
		own := buf != nil && checkpoint.Directory == r.old.Directory && int(checkpoint.Shard) == shard && checkpoint.Epoch == r.old.Epoch
		if own && checkpoint.Sequence > best.Sequence {
			best, body, unserved = checkpoint, buf, what
		}
	}
	at := format.ShardPath(shard, fmt.Sprintf("checkpoint-%d", best.Sequence%2))
	if unserved != "" {
		return best, nil, newer(at, 0, unserved)
	}
	if body == nil {
		return best, nil, damaged(format.ShardPath(shard, "checkpoint-0"), -1, "neither it nor checkpoint-1 holds a readable checkpoint of epoch %d", r.old.Epoch)
	}
	records, err = format.GetLogRecords(body, int(best.Logs))
	var unknown format.Newer
	if errors.As(err, &unknown) {
		return best, nil, newer(at, 0, string(unknown))
	}
	if err != nil {
		return best, nil, contradicts(at, 0, "%v", err)
	}
	return best, records, nil
}

// sorted is the ids of logs, in order.
func sorted(logs map[uint64]*recoveredLog) []uint64 {
	ids := make([]uint64, 0, len(logs))
	for id := range logs { // order does not matter
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// readCheckpoint reads a slot. A nil body: it is empty or torn. unserved names what a
// whole one needs that this version does not have.
func (r *recovery) readCheckpoint(slot uint32) (checkpoint format.Checkpoint, body []byte, unserved string, err error) {
	buf, err := r.Read(slot, 0, format.BlockBytes)
	if err != nil || len(buf) < format.BlockBytes {
		return checkpoint, nil, "", err
	}
	header, n, crc, unserved, ok := checkpoint.Get(buf)
	if !ok {
		return checkpoint, nil, "", nil
	}
	if buf, err = r.Read(slot, 0, format.AlignBlock(header+n)); err != nil || len(buf) < header+n {
		return checkpoint, nil, "", err
	}
	body = buf[header : header+n]
	if format.CRC(body) != crc {
		return checkpoint, nil, "", nil
	}
	return checkpoint, body[:n:n], unserved, nil
}
