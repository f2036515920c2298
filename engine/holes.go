package engine

import (
	"math"

	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/mem"
)

// Hole is a range of a log's offsets, From to To - 1, whose acknowledged records are lost.
// From == To: the log's end, behind which an unknown number may be lost.
//
// At is where the first of them was, or would be, in the segment of that generation;
// generation 0: in no segment.
type Hole struct {
	From, To   int64
	Generation uint64
	At         int64
}

// holes is the pool of the holes of all logs of the shard. A log with holes takes no
// appends; what lies before, between and behind them is read. A hole goes when the log's
// start passes it.
//
// Invariant: a log's holes are in its list in order, apart from each other by at least
// one offset, and at most format.HolesMax. There is always room for the first hole
// of a log; where there is none for another, two of the log's become one, with what is
// between them.
type holes struct {
	all   []listedHole
	free  int32
	fresh mem.Fresh
	used  int
	extra int // how many of those are not the first of their log
}

type listedHole struct {
	Hole
	next int32
}

// extraHolesMax bounds how many holes the logs of a shard have beside the first of each.
const extraHolesMax = 1024

func (h *holes) allocate(arena *mem.Arena, logsMax int) (err error) {
	var region *mem.Region
	h.all, region, err = mem.MapTable[listedHole](arena, "ranges of lost records", logsMax+extraHolesMax)
	h.fresh, h.free = mem.FreshOf(h.all, region)
	return err
}

// take takes a hole that is in no list. There is one: see the invariant.
func (h *holes) take() (number int32) {
	h.used++
	number = h.free
	h.free = h.fresh.Take(number, h.all[number].next)
	return number
}

// at is the hole with a number; nil for none.
func (h *holes) at(number int32) *listedHole {
	if number == none {
		return nil
	}
	return &h.all[number]
}

// find is the hole of a log that has an offset; nil: there is none.
func (h *holes) find(lg *log, offset int64) *listedHole {
	for hole := h.at(lg.firstHole); hole != nil; hole = h.at(hole.next) {
		if offset >= hole.From && offset < hole.To {
			return hole
		}
	}
	return nil
}

// endUnknown reports that records may be lost behind a log's end.
func (h *holes) endUnknown(lg *log) bool {
	for hole := h.at(lg.firstHole); hole != nil; hole = h.at(hole.next) {
		if hole.From == hole.To && hole.To == lg.end {
			return true
		}
	}
	return false
}

// count is how many holes a log has.
func (h *holes) count(lg *log) (n int) {
	for hole := h.at(lg.firstHole); hole != nil; hole = h.at(hole.next) {
		n++
	}
	return n
}

// bounds is where a log's first hole begins and its last one ends; format.NoOffset where
// there is none.
func (h *holes) bounds(lg *log) (from, to int64) {
	from, to = format.NoOffset, format.NoOffset
	for hole := h.at(lg.firstHole); hole != nil; hole = h.at(hole.next) {
		if from == format.NoOffset {
			from = hole.From
		}
		to = hole.To
	}
	return from, to
}

// add adds a hole to a log. It reports whether that says something new.
func (h *holes) add(lg *log, added Hole) bool {
	previous := none
	for i := lg.firstHole; i != none; i = h.all[i].next {
		hole := &h.all[i]
		switch {
		case hole.To < added.From:
			previous = i
			continue
		case hole.From > added.To:
		case hole.From <= added.From && hole.To >= added.To && (hole.From < hole.To || added.From == added.To):
			return false
		default: // they touch
			if added.From < hole.From {
				hole.From, hole.Generation, hole.At = added.From, added.Generation, added.At
			}
			hole.To = max(hole.To, added.To)
			for next := h.at(hole.next); next != nil && next.From <= hole.To; next = h.at(hole.next) {
				h.join(lg, i)
			}
			return true
		}
		break
	}
	if lg.firstHole != none && (h.extra == extraHolesMax || h.count(lg) == format.HolesMax) {
		h.addToNearest(lg, previous, added)
		return true
	}
	i := h.take()
	if lg.firstHole != none {
		h.extra++
	}
	h.all[i] = listedHole{Hole: added, next: lg.firstHole}
	if previous != none {
		h.all[i].next = h.all[previous].next
		h.all[previous].next = i
	} else {
		lg.firstHole = i
	}
	return true
}

// addToNearest adds a hole for which there is no room: previous is the one before it. The
// two that are nearest to each other, of all, become one.
func (h *holes) addToNearest(lg *log, previous int32, added Hole) {
	before := h.at(previous)
	behind := h.at(lg.firstHole)
	if before != nil {
		behind = h.at(before.next)
	}
	nearest, gap := none, int64(-1)
	for i := lg.firstHole; h.all[i].next != none; i = h.all[i].next {
		if between := h.all[h.all[i].next].From - h.all[i].To; i != previous && (gap < 0 || between < gap) {
			nearest, gap = i, between
		}
	}
	if nearest != none && (before == nil || gap < added.From-before.To) && (behind == nil || gap < behind.From-added.To) {
		h.join(lg, nearest)
		h.add(lg, added)
		return
	}
	if behind == nil || before != nil && added.From-before.To <= behind.From-added.To {
		before.To = added.To
	} else {
		behind.From, behind.Generation, behind.At = added.From, added.Generation, added.At
	}
}

// join makes one hole of a hole and the next.
func (h *holes) join(lg *log, first int32) {
	second := h.all[first].next
	h.all[first].To = max(h.all[first].To, h.all[second].To)
	h.all[first].next = h.all[second].next
	h.release(lg, second)
}

// release frees a hole that is in no list any more.
func (h *holes) release(lg *log, number int32) {
	h.all[number] = listedHole{next: h.free}
	h.free = number
	h.used--
	if lg.firstHole != none {
		h.extra--
	}
}

// passed removes the holes of a log that are wholly below its durable start. It reports
// whether that was the last one: the log takes appends again.
func (h *holes) passed(lg *log, startDurable int64) bool {
	if lg.firstHole == none {
		return false
	}
	for lg.firstHole != none && h.all[lg.firstHole].To <= startDurable {
		first := lg.firstHole
		lg.firstHole = h.all[first].next
		h.release(lg, first)
	}
	return lg.firstHole == none
}

// drop removes all holes of a log, which is deleted.
func (h *holes) drop(lg *log) {
	h.passed(lg, math.MaxInt64)
}

// Holes copies the holes of a log into out, oldest first, and returns how many it has.
func (e *Engine) Holes(slot Slot, out []Hole) (n int) {
	if !e.logs.isOpen(slot) {
		return 0
	}
	for hole := e.logs.holes.at(e.logs.all[slot].firstHole); hole != nil; hole = e.logs.holes.at(hole.next) {
		if n < len(out) {
			out[n] = hole.Hole
		}
		n++
	}
	return n
}

// HoleEnd is one past the last offset of the hole that has an offset. False: none has it.
func (e *Engine) HoleEnd(slot Slot, offset int64) (to int64, ok bool) {
	if hole := e.logs.holes.find(&e.logs.all[slot], offset); hole != nil {
		return hole.To, true
	}
	return 0, false
}
