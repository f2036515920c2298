package recovery

import (
	"sort"

	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/engine/format"
)

// gap is the place of broken runs in a segment, in front of a whole one: its bytes at to
// end - 1 had the records base to next - 1. What the journal has of them is written there,
// as the runs fills; a hole is the rest.
//
// A reader goes from run to run, by their lengths, but for holes, which it knows. So fills
// take all of the place where there is no hole in it. Else those before the first hole lie
// at its beginning, and those behind that at its end. A reader finds a run behind a hole by
// its first record, and, once the log's start has passed the hole, as the first one with
// records behind the start: no broken one may have the same records.
type gap struct {
	segment    int
	at, end    int64
	base, next int64
	previous   uint32 // header CRC of the run before it
	fills      []fill
	stale      []int64 // positions of broken runs there that have the same records as a fill
}

// fill is a run that is written into a gap.
type fill struct {
	at      int64
	bytes   int64 // with header and padding
	entries []replayedEntry
}

// gapsUpTo is the gaps from the position of segment k to a position of the same segment or a
// later one, where the records from base on are, with what the journal has of the records
// between. fits: all of that has a place in them.
func (r *recovery) gapsUpTo(lg *recoveredLog, k, segment int, position, base int64) (gaps []gap, fits bool, err error) {
	var have []replayedEntry
	for i := range lg.replayed {
		entry := &lg.replayed[i]
		if !r.o.Faults.Has(engine.FillForgotten) && entry.bytes != nil && entry.Base >= lg.End && entry.end() <= base {
			have = append(have, *entry)
		}
	}
	left := 0 // how many are in front of the first hole, or of what is missing before the log's start
	for to := lg.End; left < len(have) && have[left].Base == to; left++ {
		to = have[left].end()
	}
	gaps = []gap{{segment: k, at: lg.Segments[k].Position, end: position, base: lg.End, next: base, previous: lg.Chain}}
	if segment != k {
		if _, err := r.openSegment(&lg.Segments[k]); err != nil {
			return nil, false, err
		}
		gaps[0].end = r.openedBytes &^ (format.BlockBytes - 1)
		gaps = append(gaps, gap{segment: segment, end: position, base: lg.End, next: base})
	}
	if left == len(have) && (left == 0 && lg.End >= base || left > 0 && have[left-1].end() == base) {
		fillWhole(gaps, have)
	} else {
		fillAround(gaps, have[:left], have[left:])
	}
	placed := 0
	for i := range gaps {
		for f := range gaps[i].fills {
			placed += len(gaps[i].fills[f].entries)
		}
	}
	return gaps, placed == len(have), nil
}

// passGaps goes on behind gaps, where the records from base on are. What is in none of them is
// lost.
func (r *recovery) passGaps(lg *recoveredLog, gaps []gap, base int64, later []laterRun) {
	k, segment := gaps[0].segment, gaps[len(gaps)-1].segment
	to := lg.End
	for i := range gaps {
		g := &gaps[i]
		seg := &lg.Segments[g.segment]
		if i == 0 && len(gaps) > 1 {
			g.end, g.next = g.at, to
			if n := len(g.fills); n > 0 {
				last := &g.fills[n-1]
				g.end, g.next = last.at+last.bytes, last.entries[len(last.entries)-1].end()
			}
		}
		g.base = to
		g.findStale(later)
		if seg.Position == 0 {
			seg.Base = to
		}
		for f := range g.fills {
			for e := range g.fills[f].entries {
				entry := &g.fills[f].entries[e]
				if from := max(to, lg.Start); entry.Base > from {
					r.lose(lg, from, entry.Base, place{generation: seg.Generation, at: g.at})
				}
				r.accept(lg, entry)
				seg.MaxTime = max(seg.MaxTime, entry.MaxTime)
				lg.saw(entry.MaxTime, entry.Base)
				to = entry.end()
			}
		}
		if i+1 == len(gaps) && base > max(to, lg.Start) {
			at := place{generation: seg.Generation, at: g.at}
			if i > 0 && g.at == g.end { // they were in the segment before
				at = place{generation: lg.Segments[k].Generation, at: gaps[0].end}
			}
			r.lose(lg, max(to, lg.Start), base, at)
		}
		seg.Position, seg.End = g.end, g.next
		if i+1 == len(gaps) && g.end == 0 {
			seg.Base = base
		}
		lg.gaps = append(lg.gaps, *g)
	}
	for i := k + 1; i < segment; i++ {
		lg.Segments[i].Base, lg.Segments[i].End = gaps[0].next, gaps[0].next
	}
	lg.End = base
}

// journalHas reports that the journal has all records of a run.
func (l *recoveredLog) journalHas(run *laterRun) bool {
	to := run.Base
	for i := range l.replayed {
		if entry := &l.replayed[i]; entry.bytes != nil && entry.Base == to && to < run.End {
			to = entry.end()
		}
	}
	return to == run.End
}

// fillWhole places entries that are all of what was in the gaps: nothing, if they do not fit.
func fillWhole(gaps []gap, have []replayedEntry) {
	last := &gaps[len(gaps)-1]
	first := 0 // of the entries in the last gap
	if len(gaps) > 1 {
		// As many as take all of it: how many runs there were in each is not known.
		bytes := format.HeaderBytes
		for first = len(have); first > 0 && bytes+len(have[first-1].bytes) <= int(last.end); first-- {
			bytes += len(have[first-1].bytes)
		}
	}
	for tries := 0; first <= len(have) && tries < tilingsMax; first, tries = first+1, tries+1 {
		behind, ok := tile(have[first:], last.end-last.at)
		before := pack(have[:first], format.FlushBytesMax)
		if !ok || len(gaps) > 1 && bytesOf(before) > gaps[0].end-gaps[0].at {
			continue
		}
		last.put(last.at, behind)
		if len(gaps) > 1 {
			gaps[0].put(gaps[0].at, before)
		}
		return
	}
}

// tilingsMax bounds how many ways to divide entries among two segments are tried.
const tilingsMax = 64

// fillAround places entries in front of a hole and behind it, as far as they fit.
func fillAround(gaps []gap, before, behind []replayedEntry) {
	first, last := &gaps[0], &gaps[len(gaps)-1]
	room := first.end - first.at
	put := most(len(before), room, func(n int) []replayedEntry { return before[:n] })
	left := first.put(first.at, put)
	room -= left
	ofLast := room
	if len(gaps) > 1 {
		ofLast = last.end
		for i := range put {
			before = before[len(put[i].entries):]
		}
		if len(before) > 0 { // the hole is in the last gap
			ofLast -= last.put(last.at, most(len(before), ofLast, func(n int) []replayedEntry { return before[:n] }))
			room = 0
		}
		if all := pack(behind, format.FlushBytesMax); bytesOf(all) > ofLast && bytesOf(all) <= room {
			first.put(first.at+left, all)
			return
		}
	}
	right := most(len(behind), ofLast, func(n int) []replayedEntry { return behind[len(behind)-n:] })
	last.put(last.end-bytesOf(right), right)
}

// most is the runs of as many entries as take so many bytes at most, of n. some is that many of
// them.
func most(n int, bytes int64, some func(n int) []replayedEntry) (runs []fill) {
	fit := func(n int) []fill {
		runs := pack(some(n), format.FlushBytesMax)
		if bytesOf(runs) > bytes {
			runs = pack(some(n), format.RunBytesMax)
		}
		return runs
	}
	return fit(sort.Search(n, func(n int) bool { return bytesOf(fit(n+1)) > bytes }))
}

// put places runs in a gap, from a position on, and returns how many bytes they take.
func (g *gap) put(at int64, runs []fill) (bytes int64) {
	for _, run := range runs {
		run.at = at + bytes
		g.fills = append(g.fills, run)
		bytes += run.bytes
	}
	return bytes
}

// pack divides entries into runs of at most so many bytes each, or of one entry. A run has no
// gap in it.
func pack(entries []replayedEntry, most int) (runs []fill) {
	for len(entries) > 0 {
		n := runLength(entries, most)
		runs = append(runs, fill{bytes: runBytes(entries[:n]), entries: entries[:n]})
		entries = entries[n:]
	}
	return runs
}

// bytesOf is how many bytes runs take.
func bytesOf(runs []fill) (n int64) {
	for i := range runs {
		n += runs[i].bytes
	}
	return n
}

// tile divides entries into runs that take exactly so many bytes. False: there is no such
// division. They were runs that did. To divide a run makes both parts together as long
// or a block longer, so every length between that of the fewest runs and that of a run for
// each entry is met on the way.
func tile(entries []replayedEntry, bytes int64) (runs []fill, ok bool) {
	for _, most := range []int{format.FlushBytesMax, format.RunBytesMax} {
		if runs = pack(entries, most); bytesOf(runs) <= bytes {
			break
		}
	}
	have := bytesOf(runs)
	for i := 0; have < bytes && i < len(runs); i++ {
		for run := runs[i]; have < bytes && len(run.entries) > 1; run = runs[i] {
			// The first entry becomes a run of its own.
			size := format.HeaderBytes
			for e := range run.entries {
				size += len(run.entries[e].bytes)
			}
			head := format.AlignBlock(format.HeaderBytes + len(run.entries[0].bytes))
			tail := format.AlignBlock(size - len(run.entries[0].bytes))
			have += int64(head+tail) - run.bytes
			runs = append(runs[:i], append([]fill{{bytes: int64(head), entries: run.entries[:1]}, {bytes: int64(tail), entries: run.entries[1:]}}, runs[i+1:]...)...)
			i++
		}
	}
	return runs, have == bytes
}

// findStale finds the broken runs in a gap whose headers are whole, and that have records which
// fills have: once the log's start has passed the hole between them, nothing else tells
// which of both is to be read.
func (g *gap) findStale(later []laterRun) {
	for i := range later {
		run := &later[i]
		stale := false
		if run.segment != g.segment || run.at < g.at || run.at >= g.end {
			continue
		}
		for f := range g.fills {
			x := &g.fills[f]
			if run.at >= x.at && run.at < x.at+x.bytes { // it is overwritten
				stale = false
				break
			}
			stale = stale || run.Base < x.entries[len(x.entries)-1].end() && run.End > x.entries[0].Base
		}
		if stale {
			g.stale = append(g.stale, run.at)
		}
	}
}

// writeFills writes what the journal has into the gaps of a log's segments, and syncs it. An
// opening that is interrupted and run again finds these runs, or writes them again: what was
// there is broken.
func (r *recovery) writeFills(lg *recoveredLog) error {
	if len(lg.gaps) == 0 {
		return nil
	}
	defer r.closeSegment()
	for i := range lg.gaps {
		g := &lg.gaps[i]
		if len(g.fills) == 0 {
			continue
		}
		seg := &lg.Segments[g.segment]
		if _, err := r.openSegment(seg); err != nil {
			return err
		}
		previous := g.previous
		for f := range g.fills {
			header, err := r.putRun(lg, seg, &g.fills[f], previous)
			if err != nil {
				return err
			}
			previous = header.CRC
		}
		if err := r.Sync(r.First + slotSegment); err != nil {
			return err
		}
		// Only now, as these claim that records were durable. So do the fills.
		for _, at := range g.stale {
			if err := r.Zero(r.First+slotSegment, at, at+format.BlockBytes); err != nil {
				return err
			}
		}
	}
	return nil
}
