package recovery

import (
	"fmt"
	"slices"

	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/engine/format"
)

// hole is a range of a log whose acknowledged records are lost, and where the first of them
// was or would be.
type hole struct {
	format.Hole
	place
	found bool // by this opening
}

// place is a position in a segment, or the frame of the journal that held something. Both
// are zero where it is not known.
type place struct {
	generation uint64
	at         int64
	frame      brokenFrame
}

// brokenFrame is where a broken frame is. It is in the store too, so it has no pointer.
type brokenFrame struct {
	journal int32 // one more than its shard; 0: there is none
	at      int64
}

// file is the file of a place, and the position in it; "" if none is known.
func (p *place) file() (path string, at int64) {
	switch {
	case p.frame.journal != 0:
		return format.ShardPath(int(p.frame.journal-1), "journal"), p.frame.at
	case p.generation != 0:
		return format.SegmentPath(p.generation), p.at
	}
	return "", 0
}

// addHole adds a hole, in order. Holes that touch become one; where there are too many, the
// two that are nearest to each other.
func (l *recoveredLog) addHole(added hole) {
	i, _ := slices.BinarySearchFunc(l.holes, added.From, func(h hole, from int64) int {
		if h.From < from {
			return -1
		}
		return 1
	})
	l.holes = slices.Insert(l.holes, i, added)
	nearest := 0
	for k := 0; k+1 < len(l.holes); {
		if l.holes[k].To >= l.holes[k+1].From {
			l.joinHoles(k)
			continue
		}
		if l.holes[k+1].From-l.holes[k].To < l.holes[nearest+1].From-l.holes[nearest].To {
			nearest = k
		}
		k++
	}
	if len(l.holes) > format.HolesMax {
		l.joinHoles(nearest)
	}
}

// joinHoles makes one of a hole and the next.
func (l *recoveredLog) joinHoles(k int) {
	l.holes[k].To = max(l.holes[k].To, l.holes[k+1].To)
	l.holes = slices.Delete(l.holes, k+1, k+2)
}

// dropPassedHoles drops the holes that are wholly before the log's start.
func (l *recoveredLog) dropPassedHoles() {
	l.holes = slices.DeleteFunc(l.holes, func(h hole) bool {
		return h.To <= l.Start && (h.From < h.To || h.To < l.accepted || l.startMoved)
	})
}

// holeAt is the hole that has an offset; nil: there is none.
func (l *recoveredLog) holeAt(offset int64) *hole {
	for i := range l.holes {
		if h := &l.holes[i]; offset >= h.From && offset < h.To {
			return h
		}
	}
	return nil
}

// record is the log as a checkpoint has it.
func (l *recoveredLog) record() *format.LogRecord {
	record := l.LogRecord
	record.CorruptFrom, record.CorruptTo, record.Holes = format.NoOffset, format.NoOffset, nil
	for _, h := range l.holes {
		if len(record.Holes) == 0 {
			record.CorruptFrom = h.From
		}
		record.CorruptTo = h.To
		record.Holes = append(record.Holes, h.Hole)
	}
	return &record
}

// lost is the log's holes for the engine.
func (l *recoveredLog) lost() (holes []engine.Hole) {
	for _, h := range l.holes {
		holes = append(holes, engine.Hole{From: h.From, To: h.To, Generation: h.generation, At: h.at})
	}
	return holes
}

// noteHoles adds a line for each hole that this opening has found.
func (r *recovery) noteHoles(lg *recoveredLog) {
	for i := range lg.holes {
		h := &lg.holes[i]
		if !h.found {
			continue
		}
		text := fmt.Sprintf("log %d: rot: %s", lg.ID, lostText(h.Hole))
		if path, at := h.file(); path != "" {
			text += fmt.Sprintf(": %s at %d", path, at)
		}
		r.note("%s", text)
	}
}

// lostText says which records are lost.
func lostText(h format.Hole) string {
	if h.From == h.To {
		return fmt.Sprintf("records from %d on may be lost", h.From)
	}
	return fmt.Sprintf("records %d to %d are lost", h.From, h.To-1)
}

// locate finds the places in the segments of the holes that were known before, or that the
// journal has left.
func (r *recovery) locate(lg *recoveredLog) error {
	defer r.closeSegment()
	for i := range lg.holes {
		h := &lg.holes[i]
		if h.generation != 0 {
			continue
		}
		for k := range lg.Segments {
			seg := &lg.Segments[k]
			if seg.Position == 0 || seg.Base > h.From && h.generation != 0 {
				continue
			}
			h.generation, h.at = seg.Generation, seg.Position
			if seg.Base > h.From || seg.End <= h.From {
				if seg.Base > h.From {
					h.at = 0
				}
				continue
			}
			at, err := r.positionOf(lg, k, h.From)
			if err != nil {
				return err
			}
			h.at = at
			break
		}
	}
	return nil
}

// positionOf is where the run that has an offset is, or would be, in segment k.
func (r *recovery) positionOf(lg *recoveredLog, k int, offset int64) (at int64, err error) {
	seg := &lg.Segments[k]
	if there, err := r.openSegment(seg); err != nil || !there {
		return 0, err
	}
	var buf []byte
	from := int64(0) // buf[0]
	for base := seg.Base; at < seg.Position; {
		if at+format.BlockBytes > from+int64(len(buf)) {
			if buf, err = r.Read(r.First+slotSegment, at, int(min(bufferBytes, seg.Position-at))); err != nil {
				return 0, err
			}
			if from = at; len(buf) < format.BlockBytes {
				return at, nil
			}
		}
		var header format.RunHeader
		own := r.isOfSegment(lg, seg, &header, buf[at-from:]) && header.Base >= base
		switch {
		case own && header.End <= offset:
			at, base = at+int64(header.Bytes()), header.End
		case own || base >= offset:
			return at, nil
		default: // it is broken, or in a hole before this one
			at += format.BlockBytes
		}
	}
	return at, nil
}
