package engine

import (
	"fmt"

	"tailbound/ioring"
	"tailbound/mem"
)

// CheckReport is what Check found: Problems is empty where all is well.
type CheckReport struct {
	Directory [16]byte
	Epoch     uint32
	Clean     bool
	Logs      int
	Segments  int
	Runs      int
	Batches   int
	Bytes     int64
	Frames    int
	Problems  []string
}

// Check reads everything a data directory holds and verifies it, without
// changing a byte. It may be given the directory of a broker that was killed.
func Check(ring ioring.Ring, arena *mem.Arena, o RecoverOptions) (*CheckReport, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	b, err := newBlocking(ring, arena, o.Files)
	if err != nil {
		return nil, err
	}
	o.Faults |= NoSyncAtOpen // it changes nothing
	r := &recovery{blocking: b, o: o, boot: &Boot{Clean: true}, logs: map[uint64]*found{}, seqs: map[int]uint64{}, readOnly: true}
	if err := r.superblock(); err != nil {
		return nil, err
	}
	out := &CheckReport{Directory: r.boot.Directory, Epoch: r.old.epoch}
	if r.boot.Fresh {
		return out, nil
	}
	for s := range int(r.old.shards) {
		if err := r.shard(s); err != nil {
			return nil, err
		}
	}
	out.Clean, out.Frames = r.boot.Clean, r.frames
	for _, id := range sorted(r.logs) {
		l := r.logs[id]
		out.Logs++
		if l.rotFrom != noOffset {
			out.Problems = append(out.Problems, fmt.Sprintf("log %d: acknowledged records %d to %d are lost", id, l.rotFrom, l.rotTo))
		}
		end := noOffset
		for i := range l.segments {
			q := &l.segments[i]
			if q.position == 0 || q.end <= l.start {
				continue
			}
			if end != noOffset && q.base != end && q.base > l.start {
				out.Problems = append(out.Problems, fmt.Sprintf("log %d: segment %016x begins at offset %d, not at %d", id, q.generation, q.base, end))
			}
			end = q.end
			out.Segments++
			if err := r.checkSegment(l, q, out); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// checkSegment walks the runs of one segment, whole.
func (r *recovery) checkSegment(l *found, q *segRecord, out *CheckReport) error {
	path, slot := segmentPath(q.generation), r.files+4
	problem := func(at, offset int64, what string) {
		out.Problems = append(out.Problems, fmt.Sprintf("log %d: %s at %d: %s: records %d to %d", l.id, path, at, what, offset, q.end))
	}
	there, err := r.open(slot, path, ioring.OpenReadOnly)
	if err != nil {
		return err
	}
	if !there {
		problem(0, q.base, "missing")
		return nil
	}
	defer r.close(slot)
	base := q.base
	for at := int64(0); at < q.position; {
		var h runHeader
		p, err := r.read(slot, at, blockBytes)
		if err != nil || len(p) < blockBytes || !h.get(p) || h.directory != r.old.directory || h.generation != q.generation || h.log != l.id || h.base != base && (h.base < base || h.base > l.start) || at+int64(h.bytes()) > q.position {
			problem(at, base, "the head of a run is broken")
			return nil
		}
		p, err = r.read(slot, at, h.bytes())
		if err != nil || len(p) < h.bytes() || !h.whole(p[pieceHeader:pieceHeader+int(h.bodyBytes)]) {
			problem(at, base, "a run is broken")
			return nil
		}
		out.Batches += int(h.batches)
		out.Runs++
		out.Bytes += int64(h.bytes())
		at += int64(h.bytes())
		base = h.end
	}
	if base != q.end {
		problem(q.position, base, "the segment ends early")
	}
	return nil
}
