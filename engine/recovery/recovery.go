package recovery

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"unsafe"

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

// recovery is the state of one opening, check or repair, as one lane sees it: logs are taken in
// several lanes side by side. What is not of the lane alone is shared.
type recovery struct {
	*shared
	*ioring.Blocking
	notes       *[]string // lines for an operator, of the log that is being taken
	opened      uint64    // generation of the segment that openSegment has open; 0: none
	openedBytes int64     // its size
}

// shared is what all lanes share. They take turns on one thread.
type shared struct {
	lanes          []*recovery
	o              Options
	old            format.Superblock
	boot           *engine.RecoveredState
	logs           map[uint64]*recoveredLog
	checkpointSeqs map[int]uint64 // sequence of each shard's newest checkpoint
	frames         int            // how many were replayed
	segmentsMade   uint64         // by newSegment
	store          store          // what the shard's journal has of its logs
	unknown        *brokenFrame   // the last broken frame of the shard's journal of which nothing is known; nil
	newest         uint64         // the highest id in the shard's checkpoint
	journalCorrupt bool           // a frame that was durable is broken: no segment file is removed
	readOnly       bool           // this is Check
	checked        int64          // Check: bytes of segments that were read
	toCheck        int64          // ... and of all that are to be read
}

// recoveredLog is a log as the checkpoint, the segments and the journal describe it.
type recoveredLog struct {
	format.LogRecord
	accepted       int64           // its end, with what the journal has
	claimedDurable int64           // the highest durable offset that any entry or run claims
	startMoved     bool            // by an entry of the journal
	closed         bool            // it was deleted
	journal        chain           // its entries in the journal, in order
	replayed       []replayedEntry // the same, while its lane is at it
	entries        []replayedEntry // those that were accepted and are not in a segment yet, behind its last run
	gaps           []gap           // the places of broken runs among its runs, with what the journal has of them
	holes          []hole          // what is lost of it, in order; LogRecord's are not used
	pruneAt        int             // Headers is pruned when it has so many bytes, and some more
	unsynced       []uint64        // generations of segments with runs that are relied upon, and may not be durable
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

// extend notes that a run lies at a segment's position, and is relied upon from now on.
func (l *recoveredLog) extend(seg *format.SegmentRecord, header *format.RunHeader) {
	if seg.Position == 0 {
		seg.Base = header.Base
	}
	l.rely(seg)
	seg.Position += int64(header.Bytes())
	seg.End, seg.Chain, seg.MaxTime = header.End, header.CRC, max(seg.MaxTime, header.MaxTime)
	l.End, l.Chain = header.End, header.CRC
	l.saw(header.MaxTime, header.MaxTimeBase)
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
//		for every log, in lanes { scan(segments); accept(journal's entries); flush(to segments); sync them }
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
	defer r.store.close()
	if err := r.recoverShards(); err != nil {
		return nil, err
	}
	if err := r.commit(); err != nil {
		return nil, err
	}
	r.boot.Frames, r.boot.Tally = r.frames, r.Tally()
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
	slotsFixed      = 8 // those of lanes follow
)

// begin is the beginning of Recover, Check and Repair: it allocates memory and reads the
// superblock.
func begin(ring ioring.Ring, arena *mem.Arena, options Options) (*recovery, error) {
	if err := options.Complete(); err != nil {
		return nil, err
	}
	r := &recovery{shared: &shared{o: options, boot: &engine.RecoveredState{Clean: true}, logs: map[uint64]*recoveredLog{}, checkpointSeqs: map[int]uint64{}}}
	r.notes = &r.boot.Notes
	buf, path, err := buffers(arena, bufferBytes)
	if err != nil {
		return nil, err
	}
	r.Blocking = ioring.NewBlocking(ring, buf, path, engine.KindBlocking, options.Files)
	if err := r.readSuperblock(); err != nil {
		return nil, err
	}
	return r, r.makeLanes(arena)
}

// buffers are those of a Blocking.
func buffers(arena *mem.Arena, bytes int) (buf, path mem.Block, err error) {
	if buf, err = arena.Allocate("recovery", bytes, format.BlockBytes); err == nil {
		path, err = arena.Allocate("recovery", format.BlockBytes, format.BlockBytes)
	}
	return buf, path, err
}

// LanesMax is how many logs are recovered side by side. A sync of a log's file takes as long as
// one of many together, so a start with thousands of logs is that much shorter; more than
// this made it no shorter.
const LanesMax = 32

// laneSlots is how many file slots of the ring a lane has: for a segment and a directory.
const laneSlots = 2

// laneBytes is the memory of a lane. It has room for the largest run.
func laneBytes(o *engine.Options) int {
	return max(bufferBytes, o.RunBufferBytes()) + format.BlockBytes
}

// Need is memory that Recover takes, of which the most is in use while it is at one shard.
type Need struct {
	Name        string
	Count, Each int
	Heap        bool // in Go's heap; the rest is mapped
}

// Needs is what Recover needs with these options for journals of at most journalBytes, and so
// many logs in all.
func Needs(o Options, journalBytes, logs int) ([]Need, error) {
	if err := o.Complete(); err != nil {
		return nil, err
	}
	o.BatchBytesMax = max(o.BatchBytesMax, o.Shard0)
	each := laneBytes(&o.Options)
	smallest := format.EntryHeaderBytes + format.Align8(smallestBatchBytes)
	table := int(unsafe.Sizeof(replayedEntry{})) + storedBytes
	chunk := max(storeChunkBytes, each)
	return []Need{
		{"buffer", 1, bufferBytes + format.BlockBytes, false},
		{"lanes", lanesIn(math.MaxInt, &o.Options), each, false},
		{"what the journal has", 1, journalBytes/4*5 + chunk, false},
		{"its entries, in a table", journalBytes / smallest, table, false},
		{"logs", logs, logBytes, true},
		{"checkpoints", 2, logs*checkpointBytesOfLog + o.AttachmentsBytes, true},
	}, nil
}

const (
	// smallestBatchBytes is a batch of one record without a key, with a value of a few bytes.
	smallestBatchBytes = format.BatchHeaderBytes + 12
	// logBytes is what is kept in Go's heap of one log, with some segments and all epochs, twice,
	// and what is garbage of it before the next collection.
	logBytes = 6 << 10
	// checkpointBytesOfLog is a log's record in a checkpoint with all epochs and some segments.
	checkpointBytesOfLog = format.LogRecordBytes + format.EpochsMax*format.EpochRecordBytes + 4*format.SegmentRecordBytes
)

// lanesBytesMax is how much memory the lanes take at most, unless four need more.
const lanesBytesMax = 64 << 20

// lanesIn is how many lanes there are in so much memory, with as many file slots; one at least.
func lanesIn(bytes int, o *engine.Options) int {
	each := laneBytes(o)
	return max(1, min(LanesMax, bytes/each, max(4, lanesBytesMax/each), (o.FilesMax-slotsFixed)/laneSlots))
}

// arenaPart is how large a part of the arena lanes may take: tests and the simulator recover in
// a small one.
const arenaPart = 4

// ArenaBytes is the arena that Recover needs with these options for all its lanes. Most of it
// is never touched.
func ArenaBytes(o Options) (int, error) {
	if err := o.Complete(); err != nil {
		return 0, err
	}
	o.BatchBytesMax = max(o.BatchBytesMax, o.Shard0)
	return arenaPart*lanesIn(math.MaxInt, &o.Options)*laneBytes(&o.Options) + 2*bufferBytes, nil
}

// makeLanes makes as many lanes as there is memory for, which is a quarter of a small arena, and
// file slots; one at least.
func (r *recovery) makeLanes(arena *mem.Arena) error {
	each := laneBytes(&r.o.Options)
	count := lanesIn(arena.Bytes()/arenaPart, &r.o.Options)
	for k := range count {
		buf, path, err := buffers(arena, each-format.BlockBytes)
		if err != nil {
			return err
		}
		// Their slots for segments and directories follow slotsFixed.
		first := r.First + slotsFixed - slotSegment + uint32(k)*laneSlots
		r.lanes = append(r.lanes, &recovery{shared: r.shared, Blocking: r.Beside(buf, path, first), notes: r.notes})
	}
	return nil
}

// note adds a line for an operator.
func (r *recovery) note(format string, args ...any) {
	*r.notes = append(*r.notes, fmt.Sprintf(format, args...))
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
	open := make([]*recoveredLog, 0, len(logs))
	for _, id := range sorted(logs) {
		if logs[id].closed {
			continue
		}
		if r.logs[id] != nil {
			return contradicts(format.ShardPath(shard, "checkpoint-0"), -1, "log %d is on this shard and on another", id)
		}
		r.logs[id] = logs[id]
		open = append(open, logs[id])
	}
	if err := r.inLanes(open, func(lane *recovery, lg *recoveredLog) error { return lane.recoverLog(lg, checkpoint.Clean) }); err != nil {
		return err
	}
	if !r.readOnly { // which reads entries once more
		r.store.reset()
	}
	return nil
}

// inLanes calls do for each log. What they note is in the order of the logs.
func (r *recovery) inLanes(logs []*recoveredLog, do func(lane *recovery, lg *recoveredLog) error) error {
	all := make([]*ioring.Blocking, len(r.lanes))
	for k, lane := range r.lanes {
		all[k] = lane.Blocking
	}
	notes := make([][]string, len(logs))
	err := ioring.NewLanes(all).Each(len(logs), func(lane, i int) error {
		r.lanes[lane].notes = &notes[i]
		return do(r.lanes[lane], logs[i])
	})
	for _, lane := range r.lanes {
		lane.notes = r.notes
	}
	*r.notes = append(*r.notes, slices.Concat(notes...)...)
	return err
}

// recoverLog takes what a log has, and writes to its segments what only the journal has.
func (r *recovery) recoverLog(lg *recoveredLog, clean bool) error {
	defer r.closeSegment()
	if !clean {
		if r.o.Faults.Has(engine.JournalForEachLog) {
			if err := r.readJournal(); err != nil {
				return err
			}
		}
		lg.replayed = r.store.entries(&lg.journal)
		if err := r.walk(lg); err != nil {
			return err
		}
	}
	lg.dropPassedHoles()
	if !r.readOnly {
		if err := r.flush(lg); err != nil {
			return err
		}
		if err := r.syncLog(lg); err != nil {
			return err
		}
	}
	if err := r.locate(lg); err != nil {
		return err
	}
	r.noteHoles(lg)
	return nil
}

// readJournal reads the shard's journal for nothing: the fault JournalForEachLog.
func (r *recovery) readJournal() error {
	for at := int64(0); ; at += bufferBytes {
		if buf, err := r.Read(r.o.Files+slotJournal, at, bufferBytes); err != nil || len(buf) < bufferBytes {
			return err
		}
	}
}

// syncLog syncs the segments with runs that are relied upon: what a killed process wrote can be
// read and need not be durable, nor is what was flushed. Until the new epoch begins nothing
// depends on it.
func (r *recovery) syncLog(lg *recoveredLog) error {
	if r.o.Faults.Has(engine.NoSyncAtOpen) {
		return nil
	}
	for i := len(lg.Segments) - 1; i >= 0; i-- { // the last one is open
		seg := &lg.Segments[i]
		if !slices.Contains(lg.unsynced, seg.Generation) {
			continue
		}
		there, err := r.openSegment(seg)
		if err != nil {
			return err
		}
		if there {
			if err := r.Sync(r.First + slotSegment); err != nil {
				return err
			}
		}
	}
	lg.unsynced = nil
	return nil
}

// rely notes that a run of a segment is relied upon.
func (l *recoveredLog) rely(seg *format.SegmentRecord) {
	if n := len(l.unsynced); n == 0 || l.unsynced[n-1] != seg.Generation {
		l.unsynced = append(l.unsynced, seg.Generation)
	}
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
			best, body, unserved = checkpoint, slices.Clone(buf), what
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
