package recovery

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/engine/format"

	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// Options say how the directory is to be opened.
type Options struct {
	engine.Options
	Shards int                            // data shards of the new life
	Shard0 int                            // BatchBytesMax of the control shard, where it is more than the others' have
	Seed   [16]byte                       // a new directory's id; to be drawn at random
	Each   func(log uint64, batch []byte) // Check: takes every batch that is whole, a log's in order
	// Progress of Check: how many bytes of segments it has read, of how many.
	// May be nil.
	Progress func(done, total int64)
	// Sound says whether a batch of a broken run is as it was, which a repair then
	// keeps: it was at that offset, in that leader epoch. nil: none is.
	Sound func(batch []byte, base int64, epoch int32) bool
}

// recovery is one opening in its course.
type recovery struct {
	*ioring.Blocking
	o        Options
	old      format.Superblock
	boot     *engine.RecoveredState
	logs     map[uint64]*found
	seqs     map[int]uint64        // newest checkpoint of each shard
	frames   int                   // replayed
	made     uint64                // segments made for what had no home
	synced   map[uint64]bool       // segments that are durable as they are
	visited  *format.SegmentRecord // the segment that is open in the slot for them; nil
	segBytes int64                 // its size
	rotten   bool                  // acknowledged bytes of a journal are broken: no file is removed
	readOnly bool                  // Check's
	passed   int64                 // Check: bytes of segments it is through with
	ahead    int64                 // and of all there are
}

// found is a log as checkpoint, segments and journal tell it.
type found struct {
	format.LogRecord
	accepted int64 // end, with what the journal holds
	noted    int64 // the highest durable offset that anything says it had
	doubt    bool  // a broken frame may have held some of it
	closed   bool
	replayed []foundEntry // what the journal says of it, in order
	entries  []foundEntry // of those, what is not in a segment yet
}

// foundEntry is a data entry of a journal. Of one in a broken frame there may
// be its header alone; an empty one stands for a frame that may have held anything.
type foundEntry struct {
	format.Entry
	bytes []byte // header and batch
}

// Recover opens the data directory: what the life before acknowledged is then
// in segments, the journals are empty, and the epoch is one higher. It may be
// cut at any point and run again. It does, on one ring, before any shard runs:
//
//	superblock(); for every shard of the old life { sync(); checkpoint(); replay(); for every log { walk(); accept(); drain() } }
//	checkpoints of the new epoch, into the older slots; superblock(); the other slots; clean up
func Recover(ring ioring.Ring, arena *mem.Arena, o Options) (_ *engine.RecoveredState, err error) {
	defer func() { err = ioring.Advised(err) }()
	if o.Shards < 1 || o.Shards+1 > format.ShardsMax {
		return nil, fmt.Errorf("%d data shards: there may be 1 to %d", o.Shards, format.ShardsMax-1)
	}
	r, err := begin(ring, arena, o)
	if err != nil {
		return nil, err
	}
	if err := r.shards(); err != nil {
		return nil, err
	}
	if err := r.commit(); err != nil {
		return nil, err
	}
	return r.boot, nil
}

// bufferBytes is how much is read or written at a time.
const bufferBytes = 1 << 20

// begin is where Recover, Check and Repair begin: it takes memory and reads the
// superblock.
func begin(ring ioring.Ring, arena *mem.Arena, o Options) (*recovery, error) {
	if err := o.Complete(); err != nil {
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
	r := &recovery{Blocking: ioring.NewBlocking(ring, buf, path, engine.KindBlocking, o.Files), o: o,
		boot: &engine.RecoveredState{Clean: true}, logs: map[uint64]*found{}, seqs: map[int]uint64{}, synced: map[uint64]bool{}}
	return r, r.superblock()
}

// shards takes over what every shard of the old life left.
func (r *recovery) shards() error {
	for s := range int(r.old.Shards) {
		if err := r.shard(s); err != nil {
			return err
		}
	}
	return nil
}

func (r *recovery) note(format string, a ...any) {
	r.boot.Notes = append(r.boot.Notes, fmt.Sprintf(format, a...))
}

func (r *recovery) superblock() error {
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
		p, err := r.Read(r.First, 0, format.SuperblockBytes)
		if err != nil {
			return err
		}
		unserved, where := "", int64(0)
		for at := int64(0); len(p) >= format.BlockBytes; at += format.BlockBytes {
			var s format.Superblock
			if what, ok := s.Get(p); ok && s.Sequence >= r.old.Sequence && s.Sequence > 0 {
				r.old, unserved, where = s, what, at
			}
			p = p[format.BlockBytes:]
		}
		if unserved != "" {
			if by := r.old.WrittenBy; by > format.ThisRelease {
				unserved += " (Tailbound " + by.String() + ")"
			}
			return newer("superblock", where, unserved)
		}
	}
	// A life that allowed larger batches may have left some.
	r.o.BatchBytesMax = max(r.o.BatchBytesMax, int(r.old.BatchMax))
	r.boot.BatchBytesMax = r.o.BatchBytesMax
	r.o.BatchBytesMax = max(r.o.BatchBytesMax, r.o.Shard0) // it reads every shard's
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
		r.boot.Directory[0] = 1 // whoever has chance gives a seed
	}
	return nil
}

// shard takes over what shard s of the old life left: all its files are synced
// before any of them is believed, for what a killed process wrote need not be
// durable.
func (r *recovery) shard(s int) error {
	for i, name := range []string{"journal", "checkpoint-0", "checkpoint-1"} {
		path, slot := format.ShardPath(s, name), r.First+uint32(i)
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
	var best format.Checkpoint
	var body []byte
	unserved := ""
	for i := range uint32(2) {
		c, p, what, err := r.checkpoint(r.First + 1 + i)
		if err != nil {
			return err
		}
		if p != nil && c.Directory == r.old.Directory && int(c.Shard) == s && c.Epoch == r.old.Epoch && c.Sequence > best.Sequence {
			best, body, unserved = c, p, what
		}
	}
	at := format.ShardPath(s, fmt.Sprintf("checkpoint-%d", best.Sequence%2))
	if unserved != "" {
		return newer(at, 0, unserved)
	}
	if body == nil {
		return damaged(format.ShardPath(s, "checkpoint-0"), -1, "neither it nor checkpoint-1 holds a readable checkpoint of epoch %d", r.old.Epoch)
	}
	records, err := format.GetLogRecords(body, int(best.Logs))
	var unknown format.Newer
	if errors.As(err, &unknown) {
		return newer(at, 0, string(unknown))
	}
	if err != nil {
		return contradicts(at, 0, "%v", err)
	}
	r.seqs[s] = best.Sequence
	logs := map[uint64]*found{}
	for _, l := range records {
		logs[l.ID] = &found{LogRecord: *l, accepted: l.End, noted: l.End}
	}
	if !best.Clean {
		r.boot.Clean = false
		if err := r.replay(s, &best, logs); err != nil {
			return err
		}
	}
	for _, id := range sorted(logs) {
		l := logs[id]
		if l.closed {
			continue
		}
		if r.logs[id] != nil {
			return contradicts(format.ShardPath(s, "checkpoint-0"), -1, "log %d is on this shard and on another", id)
		}
		r.logs[id] = l
		if !best.Clean {
			if err := r.walk(l); err != nil {
				return err
			}
			r.accept(l)
		}
		if r.readOnly {
			continue
		}
		if err := r.drain(l); err != nil {
			return err
		}
	}
	return nil
}

func sorted(m map[uint64]*found) []uint64 {
	ids := make([]uint64, 0, len(m))
	for id := range m { // order does not matter
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// checkpoint reads a slot; nil: it is empty or torn. unserved names what a
// whole one needs that is not served.
func (r *recovery) checkpoint(slot uint32) (c format.Checkpoint, body []byte, unserved string, err error) {
	p, err := r.Read(slot, 0, format.BlockBytes)
	if err != nil || len(p) < format.BlockBytes {
		return c, nil, "", err
	}
	header, n, crc, unserved, ok := c.Get(p)
	if !ok {
		return c, nil, "", nil
	}
	if p, err = r.Read(slot, 0, format.AlignBlock(header+n)); err != nil || len(p) < header+n {
		return c, nil, "", err
	}
	body = p[header : header+n]
	if format.CRC(body) != crc {
		return c, nil, "", nil
	}
	return c, body[:n:n], unserved, nil
}

// journalReader walks the frames of one journal, whose file is open in slot.
type journalReader struct {
	*ioring.Blocking
	slot     uint32
	size     int64
	old      format.Superblock
	journal  uint64
	anyEpoch bool
}

// ours says that h is a frame of this journal in this life.
func (j *journalReader) ours(h *format.FrameHeader) bool {
	return h.Directory == j.old.Directory && (j.anyEpoch || h.Epoch == j.old.Epoch && h.Journal == j.journal)
}

// frame reads the frame at offset at; nil body: it is broken or none. Only one
// that is to be replayed next, with this sequence, is refused where it needs what
// is not served: others may be of an earlier lap.
func (j *journalReader) frame(at int64, sequence uint64, h *format.FrameHeader) (body []byte, whole bool, err error) {
	p, err := j.Read(j.slot, at, format.BlockBytes)
	if err != nil || len(p) < format.BlockBytes {
		return nil, false, err
	}
	unserved, ok := h.Parse(p)
	if !ok || !j.ours(h) {
		return nil, false, nil
	}
	if unserved != "" {
		if h.Sequence == sequence {
			return nil, false, newer(j.PathOf(j.slot), at, unserved)
		}
		return nil, false, nil
	}
	n := format.AlignBlock(format.HeaderBytes + int(h.BodyBytes))
	if at+int64(n) > j.size {
		return nil, false, nil
	}
	if p, err = j.Read(j.slot, at, n); err != nil || len(p) < n {
		return nil, false, err
	}
	body = p[format.HeaderBytes : format.HeaderBytes+int(h.BodyBytes)]
	return body, format.CRC(body) == h.BodyCRC, nil
}

// later are the heads of frames past sequence, in order. All of them are of this
// life and not replayed: one that needs what is not served is refused.
func (j *journalReader) later(sequence uint64) (heads []frameHead, err error) {
	for at := int64(0); at < j.size; at += bufferBytes {
		p, err := j.Read(j.slot, at, int(min(j.size-at, bufferBytes)))
		if err != nil {
			return nil, err
		}
		for k := 0; k+format.BlockBytes <= len(p); k += format.BlockBytes {
			var h format.FrameHeader
			if unserved, ok := h.Parse(p[k:]); ok && j.ours(&h) && h.Sequence > sequence {
				if unserved != "" {
					return nil, newer(j.PathOf(j.slot), at+int64(k), unserved)
				}
				heads = append(heads, frameHead{h, at + int64(k)})
			}
		}
	}
	slices.SortFunc(heads, func(a, b frameHead) int { return int(int64(a.Sequence - b.Sequence)) })
	return heads, nil
}

type frameHead struct {
	format.FrameHeader
	at int64
}

// replay walks the journal of shard s from its checkpoint. At a break it looks
// on: where a later frame says that the broken one was durable, that is rot,
// and it goes on after it; otherwise a power cut left a hole, and nothing at
// or past it was acknowledged.
func (r *recovery) replay(s int, c *format.Checkpoint, logs map[uint64]*found) error {
	size, err := r.Size(r.First)
	if err != nil {
		return err
	}
	if from := int64(c.Block) * format.BlockBytes; size < from || size == 0 {
		return damaged(format.ShardPath(s, "journal"), size, "it ends here, and what is to be replayed begins at %d", from)
	}
	j := &journalReader{Blocking: r.Blocking, slot: r.First, size: size &^ (format.BlockBytes - 1), old: r.old, journal: c.Journal, anyEpoch: r.o.Faults.Has(engine.NoEpoch)}
	var heads []frameHead // of all frames past the first break, in order
	looked, durable := false, uint64(0)
	at, sequence, previous, chained := int64(c.Block)*format.BlockBytes, c.Frame, c.Previous, true
	for {
		var h format.FrameHeader
		var body []byte
		ok := false
		for _, try := range []int64{at, 0} {
			if try >= j.size {
				continue
			}
			p, whole, err := j.frame(try, sequence, &h)
			if err != nil {
				return err
			}
			if whole && h.Sequence == sequence && (!chained || h.Previous == previous || j.anyEpoch) {
				at, body, ok = try, p, true
				break
			}
		}
		if ok {
			r.frames++
			if err := r.entries(s, at, body, logs); err != nil {
				return err
			}
			at += int64(format.AlignBlock(format.HeaderBytes + int(h.BodyBytes)))
			sequence, previous, chained = sequence+1, h.CRC, true
			continue
		}
		if !looked {
			if heads, err = j.later(sequence); err != nil {
				return err
			}
			looked = true
		}
		for len(heads) > 0 && heads[0].Sequence <= sequence {
			heads = heads[1:]
		}
		durable = max(durable, c.Durable)
		for i := range heads {
			durable = max(durable, heads[i].Durable)
		}
		if durable < sequence && !(r.o.Faults.Has(engine.GapIsRot) && len(heads) > 0) {
			if len(heads) > 0 {
				r.note("shard %d: a hole at frame %d, %d frames after it were dropped: none of them was acknowledged", s, sequence, len(heads))
			}
			break
		}
		r.rotten = true
		r.note("shard %d: rot: frame %d of the journal (at %d) is broken and was durable", s, sequence, at)
		next := -1
		for i := range heads {
			if _, whole, err := j.frame(heads[i].at, heads[i].Sequence, &h); err != nil {
				return err
			} else if whole {
				next = i
				break
			}
		}
		exact := r.broken(j, at, sequence, logs)
		if next >= 0 && heads[next].Sequence != sequence+1 || next < 0 && durable > sequence {
			exact = false
		}
		if !exact {
			for _, l := range logs { // order does not matter
				l.replayed = append(l.replayed, foundEntry{})
			}
		}
		if next < 0 {
			break
		}
		at, sequence, chained = heads[next].at, heads[next].Sequence, false
	}
	return nil
}

// accept takes what the journal has of l and its segments have not, and says
// whether anything is missing.
func (r *recovery) accept(l *found) {
	l.accepted = max(l.accepted, l.End)
	for _, x := range l.replayed {
		end := x.Base + int64(x.Count)
		switch {
		case x.Kind == 0:
			l.doubt = true
			continue
		case x.bytes == nil:
			if end > l.accepted {
				l.noted = max(l.noted, end)
			}
			continue
		}
		l.noted = max(l.noted, x.Durable)
		if end <= l.accepted {
			continue
		}
		if x.Base > max(l.accepted, l.Start) {
			continue // a hole; what was noted says whether it is rot
		}
		l.doubt = false
		r.began(l, x.Base)
		l.entries = append(l.entries, x)
		l.keep(&x.Entry, x.bytes)
		l.accepted = end
	}
	l.replayed = nil
	if l.accepted < l.Start {
		// all of it was removed, and what its last batches said of their producers
		l.accepted, l.End, l.entries = l.Start, l.Start, nil
		l.Attachment, l.Headers = nil, nil
	}
	if l.noted > l.accepted || l.doubt {
		if l.RotFrom == format.NoOffset {
			l.RotFrom, l.RotTo = l.accepted, max(l.noted, l.accepted)
		}
		r.note("log %d: rot: offsets %d to %d", l.ID, l.RotFrom, l.RotTo)
	}
}

// began: the old life appended to l, at base or before.
func (r *recovery) began(l *found, base int64) {
	if n := len(l.Epochs); n == 0 || l.Epochs[n-1].Epoch != int32(r.old.Epoch) {
		l.Epochs = append(l.Epochs, format.EpochStart{Epoch: int32(r.old.Epoch), Start: base})
	}
}

// keep keeps the head of a batch for the shard.
func (l *found) keep(x *format.Entry, bytes []byte) {
	var head [format.KeptHeaderBytes]byte
	binary.LittleEndian.PutUint64(head[:], uint64(x.Base+int64(x.Count)))
	copy(head[8:], bytes[format.EntryHeaderBytes:format.EntryHeaderBytes+int(x.Length)])
	l.Headers = append(l.Headers, head[:]...)
}

// broken learns from a frame that is not whole what its entries were. True:
// every one of them is known.
func (r *recovery) broken(j *journalReader, at int64, sequence uint64, logs map[uint64]*found) bool {
	for _, try := range []int64{at, 0} {
		var h format.FrameHeader
		body, _, err := j.frame(try, sequence, &h)
		if err != nil || body == nil || h.Sequence != sequence {
			continue
		}
		for len(body) > 0 {
			var x format.Entry
			// what is not served may be left over from another frame: it is known of neither
			if !x.Get(body) || x.Bytes() > len(body) || x.Newer() != "" {
				return false
			}
			if x.Kind == format.EntryData {
				if l := logs[x.Log]; l != nil {
					l.replayed = append(l.replayed, foundEntry{Entry: x})
				}
			} else {
				r.apply(&x, nil, logs)
			}
			body = body[x.Bytes():]
		}
		return true
	}
	return false
}

// entries takes a whole frame's entries; the frame lies at position at.
func (r *recovery) entries(s int, at int64, body []byte, logs map[uint64]*found) error {
	for len(body) > 0 {
		var x format.Entry
		if !x.Get(body) || x.Bytes() > len(body) {
			return contradicts(format.ShardPath(s, "journal"), at, "a whole frame holds a broken entry")
		}
		if what := x.Newer(); what != "" {
			return newer(format.ShardPath(s, "journal"), at, what)
		}
		r.apply(&x, body[:x.Bytes()], logs)
		body = body[x.Bytes():]
	}
	return nil
}

func (r *recovery) apply(x *format.Entry, bytes []byte, logs map[uint64]*found) {
	l := logs[x.Log]
	if l == nil {
		if x.Kind == format.EntryOpened {
			l = &found{LogRecord: format.LogRecord{ID: x.Log, MaxTime: format.NoTime, MaxTimeBase: format.NoOffset, RotFrom: format.NoOffset, RotTo: format.NoOffset}}
			logs[x.Log] = l
		}
		return
	}
	switch x.Kind {
	case format.EntryClosed:
		l.closed = true
	case format.EntryStartMoved:
		l.Start = max(l.Start, x.Base)
	case format.EntryAssigned:
		for i := range l.Segments {
			if l.Segments[i].Generation == x.Aux {
				return
			}
		}
		l.Segments = append(l.Segments, format.SegmentRecord{Generation: x.Aux, Base: x.Base, End: x.Base, MaxTime: format.NoTime})
	case format.EntryData:
		l.replayed = append(l.replayed, foundEntry{*x, bytes})
	}
}

// drain writes what the journal holds of l past its last run into its segments,
// and syncs them. What lies there is written over: it was not acknowledged.
func (r *recovery) drain(l *found) error {
	slot := r.First + 4
	for len(l.entries) > 0 && l.entries[0].Base+int64(l.entries[0].Count) <= l.Start {
		l.End = l.entries[0].Base + int64(l.entries[0].Count)
		l.entries = l.entries[1:]
	}
	kept := l.Segments[:0]
	for i, q := range l.Segments {
		last := !slices.ContainsFunc(l.Segments[i+1:], func(q format.SegmentRecord) bool { return q.Position > 0 })
		if q.Position > 0 && q.End <= l.Start && !(last && len(l.entries) > 0) {
			continue // removed, or about to be; the last one may hold the room of what follows
		}
		kept = append(kept, q)
	}
	l.Segments = kept
	if len(l.entries) == 0 {
		return r.dropMissing(l)
	}
	k := 0
	for i := range l.Segments {
		if l.Segments[i].Position > 0 {
			k = i
		}
	}
	opened := -1
	var size int64
	done := func() error {
		if opened < 0 {
			return nil
		}
		var err error
		if !r.o.Faults.Has(engine.NoSyncAtOpen) {
			err = r.Sync(slot)
		}
		r.Close(slot)
		opened = -1
		return err
	}
	for at := 0; at < len(l.entries); {
		n, bytes := 0, 0
		for at+n < len(l.entries) && (n == 0 || format.HeaderBytes+bytes+len(l.entries[at+n].bytes) <= format.FlushBytesMax) {
			bytes += len(l.entries[at+n].bytes)
			n++
		}
		length := int64(format.AlignBlock(format.HeaderBytes + bytes))
		for {
			if k >= len(l.Segments) {
				// what assigned it was in a frame that rotted, or its file is gone
				q, err := r.newSegment(l)
				if err != nil {
					return err
				}
				l.Segments = append(l.Segments, q)
			}
			if opened == k {
				break
			}
			if err := done(); err != nil {
				return err
			}
			path := format.SegmentPath(l.Segments[k].Generation)
			there, err := r.Open(slot, path, 0)
			if err != nil {
				return err
			}
			if !there {
				// the life before removed it, after it had filled it with what is before the start
				if q := &l.Segments[k]; q.Position > 0 && q.End > l.Start {
					return ioring.MissingFile(path)
				}
				l.Segments = slices.Delete(l.Segments, k, k+1)
				continue
			}
			opened = k
			if size, err = r.Size(slot); err != nil {
				return err
			}
		}
		q := &l.Segments[k]
		if q.Position+length > size {
			if k+1 < len(l.Segments) {
				k++
				continue
			}
			if err := r.Allocate(slot, size, q.Position+length-size); err != nil {
				return err
			}
			size = q.Position + length
		}
		q.Bytes = size &^ (format.BlockBytes - 1)
		if err := r.run(slot, l, q, l.entries[at:at+n], int(length)); err != nil {
			return err
		}
		at += n
	}
	l.entries = nil
	return done()
}

// dropMissing forgets segments whose files the life before removed: all they
// held came after the checkpoint and was before the start.
func (r *recovery) dropMissing(l *found) error {
	kept := l.Segments[:0]
	for _, q := range l.Segments {
		if q.Position == 0 {
			there, err := r.Open(r.First+4, format.SegmentPath(q.Generation), 0)
			if err != nil {
				return err
			}
			if !there {
				continue
			}
			r.Close(r.First + 4)
		}
		kept = append(kept, q)
	}
	l.Segments = kept
	return nil
}

// newSegment makes a file for what has no home. An attempt that was cut makes
// the same one again.
func (r *recovery) newSegment(l *found) (q format.SegmentRecord, err error) {
	r.made++
	q = format.SegmentRecord{Generation: uint64(r.old.Epoch)<<32 | format.RecoveryShard<<24 | r.made, Base: l.End, End: l.End, MaxTime: format.NoTime, Chain: l.Chain}
	path, slot := format.SegmentPath(q.Generation), r.First+4
	if _, err := r.Open(slot, path, ioring.OpenCreate); err != nil {
		return q, err
	}
	r.Close(slot)
	r.note("log %d: %s was made for what the journal holds of it", l.ID, path)
	return q, r.SyncDirectory("segments")
}

func (r *recovery) run(slot uint32, l *found, q *format.SegmentRecord, entries []foundEntry, length int) error {
	p := make([]byte, length)
	h := format.RunHeader{Log: l.ID, Generation: q.Generation, Base: entries[0].Base, MaxTime: format.NoTime, Durable: entries[0].Base, Batches: uint32(len(entries))}
	at := format.HeaderBytes
	for i := range entries {
		x := &entries[i]
		at += copy(p[at:], x.bytes)
		if x.MaxTime > h.MaxTime || i == 0 {
			h.MaxTime, h.MaxTimeBase = x.MaxTime, x.Base
		}
		h.End = x.Base + int64(x.Count)
	}
	h.Directory, h.Epoch, h.BodyBytes, h.Previous = r.old.Directory, r.old.Epoch, uint32(at-format.HeaderBytes), l.Chain
	h.BodyCRC = format.CRC(p[format.HeaderBytes:at])
	h.Put(p)
	if err := r.Write(slot, q.Position, p); err != nil {
		return err
	}
	if q.Position == 0 {
		q.Base = h.Base
	}
	q.Position += int64(length)
	q.End, q.Chain = h.End, h.CRC
	q.MaxTime = max(q.MaxTime, h.MaxTime)
	l.Chain, l.End = h.CRC, h.End
	if h.MaxTime > l.MaxTime || l.MaxTimeBase == format.NoOffset {
		l.MaxTime, l.MaxTimeBase = h.MaxTime, h.MaxTimeBase
	}
	return nil
}

// commit makes the new life: its checkpoints, then the superblock.
func (r *recovery) commit() error {
	r.boot.Epoch = r.old.Epoch + 1
	shards := r.o.Shards + 1
	r.boot.Shards = make([]engine.RecoveredShard, shards)
	for _, id := range sorted(r.logs) {
		l := r.logs[id]
		l.Start = min(l.Start, l.End)
		b := engine.RecoveredLog{ID: id, Start: l.Start, End: l.End, Attachment: l.Attachment, Headers: headersOf(l.Headers), Record: &l.LogRecord}
		if l.RotFrom != format.NoOffset {
			b.Corruption = fmt.Sprintf("acknowledged records from offset %d on are lost (to %d at least)", l.RotFrom, l.RotTo)
		}
		s := format.Place(id, r.o.Shards)
		r.boot.Shards[s].Logs = append(r.boot.Shards[s].Logs, b)
	}
	if err := r.Mkdir("segments"); err != nil {
		return err
	}
	for s := range shards {
		if err := r.prepare(s); err != nil {
			return err
		}
	}
	if err := r.SyncDirectory("."); err != nil {
		return err
	}
	if err := r.checkpoints(); err != nil {
		return err
	}
	slot := r.First + 6
	next := format.Superblock{Directory: r.boot.Directory, Epoch: r.boot.Epoch, Shards: uint32(shards), Sequence: r.old.Sequence + 1, BatchMax: uint32(r.boot.BatchBytesMax), WrittenBy: format.ThisRelease}
	if _, err := r.Open(slot, "superblock", ioring.OpenCreate); err != nil {
		return err
	}
	defer r.Close(slot)
	p := make([]byte, format.BlockBytes)
	write := func() error {
		next.Put(p)
		if err := r.Write(slot, int64(next.Sequence%2)*format.BlockBytes, p); err != nil {
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
	if err := r.checkpoints(); err != nil {
		return err
	}
	// from here on either slot will do
	next.Sequence++
	if err := write(); err != nil {
		return err
	}
	return r.cleanUp(shards)
}

// headersOf are the heads of batches that were kept, those before the log's
// start included: a producer that is not done yet asks for them again.
func headersOf(kept []byte) (out []byte) {
	for ; len(kept) >= format.KeptHeaderBytes; kept = kept[format.KeptHeaderBytes:] {
		out = append(out, kept[8:format.KeptHeaderBytes]...)
	}
	return out
}

// prepare makes the files of shard s where they are missing.
func (r *recovery) prepare(s int) error {
	if s < int(r.old.Shards) {
		return nil
	}
	if err := r.Mkdir(fmt.Sprintf("shard-%03d", s)); err != nil {
		return err
	}
	for _, name := range []string{"journal", "checkpoint-0", "checkpoint-1"} {
		path := format.ShardPath(s, name)
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
	return r.SyncDirectory(fmt.Sprintf("shard-%03d", s))
}

// checkpoints writes the new life's checkpoint into the next slot of every shard.
func (r *recovery) checkpoints() error {
	for s := range r.boot.Shards {
		b := &r.boot.Shards[s]
		if b.Checkpoint == 0 {
			b.Checkpoint = r.seqs[s]
		}
		b.Checkpoint++
		c := format.Checkpoint{Directory: r.boot.Directory, Epoch: r.boot.Epoch, Shard: uint32(s), Sequence: b.Checkpoint,
			Journal: format.JournalID(r.boot.Directory, r.boot.Epoch, s), Frame: 1, Logs: uint32(len(b.Logs))}
		p := make([]byte, format.CheckpointHeaderBytes, 1<<20)
		for i := range b.Logs {
			l := b.Logs[i].Record
			need := format.LogRecordBytes + len(l.Epochs)*format.EpochRecordBytes + len(l.Segments)*format.SegmentRecordBytes
			at := len(p)
			p = append(p, make([]byte, need)...)
			x := *l
			x.Direct = false
			at += format.PutLogRecord(p[at:], &x, len(l.Epochs), len(l.Segments))
			for _, k := range l.Epochs {
				at += format.PutEpoch(p[at:], k)
			}
			for k := range l.Segments {
				at += format.PutSegment(p[at:], &l.Segments[k])
			}
			p = append(p, l.Attachment...)
			p = append(p, l.Headers...)
		}
		n := len(p)
		p = append(p, make([]byte, format.AlignBlock(n)-n)...)
		c.Put(p, n-format.CheckpointHeaderBytes)
		path := format.ShardPath(s, fmt.Sprintf("checkpoint-%d", b.Checkpoint%2))
		if err := r.Need(r.First, path, 0); err != nil {
			return err
		}
		err := r.Write(r.First, 0, p)
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

// cleanUp removes what no log names and is not kept ready, and the files of
// shards that are no more.
func (r *recovery) cleanUp(shards int) error {
	named := map[string]bool{}
	for _, l := range r.logs { // order does not matter
		for _, q := range l.Segments {
			named[format.SegmentPath(q.Generation)] = true
		}
	}
	names, err := r.List("segments")
	if err != nil {
		return err
	}
	for _, n := range names {
		switch path := "segments/" + n; {
		case named[path]:
		case r.rotten:
			r.note("%s belongs to no log; it is left, for the journal was broken", path)
		case r.keptReady(n, path):
		default:
			r.Unlink(path)
		}
	}
	for s := shards; s < int(r.old.Shards); s++ {
		for _, name := range []string{"journal", "checkpoint-0", "checkpoint-1"} {
			r.Unlink(format.ShardPath(s, name))
		}
	}
	return nil
}

// keptReady keeps a file that no log names for the first shard that has not as
// many ready as it may, where it is as large as those.
func (r *recovery) keptReady(name, path string) bool {
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
	for s := 1; s < len(r.boot.Shards); s++ {
		b := &r.boot.Shards[s]
		sum := size
		for _, x := range b.Recycled {
			sum += x.Bytes
		}
		if sum <= r.o.PrepareBytes && len(b.Recycled) < engine.RecycledMax {
			b.Recycled = append(b.Recycled, engine.RecycledFile{Generation: generation, Bytes: size})
			return true
		}
	}
	return false
}
