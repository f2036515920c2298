package recovery

import (
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/engine/format"
)

// walk finds what a log has: its runs, and what the journal has beside them. Runs say
// themselves what they are, so that what is broken ends nothing:
//
//	for {
//		scan()                               // runs, as long as they continue
//		have := what the journal has from there on
//		if no run behind is needed { break } // the rest is in the journal, or was not acknowledged
//		if what the journal has of the broken ones does not fit in their place, and it has
//			the next whole one too { go on as if that were broken }
//		what have does not cover up to the next whole run is a hole; go on behind it
//	}
//	append the journal's rest; what it lacks of what was acknowledged is a hole
//
// A run behind is needed if more was acknowledged than the journal has (claimedDurable), or
// if it goes on where the journal ends. Else it is what a power cut leaves of writes in
// flight, of which nothing was acknowledged. What is broken in front of it is then no hole.
//
// The control log ends at the first hole: a command that is missing cannot be passed over.
func (r *recovery) walk(lg *recoveredLog) error {
	k, err := r.scan(lg, lg.lastWritten())
	if err != nil {
		return err
	}
	later, err := r.scanAhead(lg, k, false)
	if err != nil {
		return err
	}
	for all := false; lg.ID != format.ControlLogID && !r.o.Faults.Has(engine.EndsAtBreak); {
		lg.claimBy(later)
		covered, unknown := lg.covered()
		lost := lg.claimedDurable > max(covered, lg.Start)
		next, body, err := r.nextNeeded(lg, k, later, covered, lost || unknown || r.o.Faults.Has(engine.WalksOnAnyway))
		if err != nil {
			return err
		}
		if next == nil && lost {
			// Nothing behind it is whole. If its header is, it is known where it ends.
			if passed, err := r.passRun(lg, k, later); err != nil {
				return err
			} else if passed {
				if k, err = r.scan(lg, k); err != nil {
					return err
				}
				continue
			}
		}
		if next == nil && lost && !all {
			// More is broken than can have been in flight.
			all = true
			if later, err = r.scanAhead(lg, k, true); err != nil {
				return err
			}
			continue
		}
		if next == nil {
			break
		}
		gaps, fits, err := r.gapsUpTo(lg, k, next.segment, next.at, next.Base)
		if err != nil {
			return err
		}
		if !fits && lg.journalHas(next) {
			next.rewritten = true
			continue
		}
		r.passGaps(lg, gaps, next.Base, later)
		seg := &lg.Segments[next.segment]
		if _, err := r.openSegment(seg); err != nil {
			return err
		}
		r.addRun(lg, seg, &next.RunHeader, body)
		if k, err = r.scan(lg, next.segment); err != nil {
			return err
		}
	}
	lg.claimBy(later)
	r.acceptRest(lg)
	return nil
}

// passRun goes on behind the run at segment k's position, which is broken, if its header is
// whole and continues the log. Not if there is no room in its place for what the journal has of
// it: that is written behind the last run then.
func (r *recovery) passRun(lg *recoveredLog, k int, later []laterRun) (passed bool, err error) {
	if k >= len(lg.Segments) {
		return false, nil
	}
	header, err := r.readHeader(lg, &lg.Segments[k], lg.Segments[k].Position)
	if err != nil || !r.continues(lg, &header) {
		return false, err
	}
	gaps, fits, err := r.gapsUpTo(lg, k, k, lg.Segments[k].Position+int64(header.Bytes()), header.End)
	if err != nil || !fits {
		return false, err
	}
	r.passGaps(lg, gaps, header.End, later)
	lg.Chain = header.CRC
	return true, nil
}

// claimBy takes the claims of runs and of the journal's entries.
func (l *recoveredLog) claimBy(later []laterRun) {
	for i := range later {
		l.claimedDurable = max(l.claimedDurable, later[i].Durable)
	}
	for i := range l.replayed {
		l.claimedDurable = max(l.claimedDurable, l.replayed[i].Durable)
	}
}

// covered is how far the journal has what follows the runs, without a gap; what is known to
// have been in a broken frame counts. unknown: a broken frame of which nothing is known may
// have held what follows that.
func (l *recoveredLog) covered() (to int64, unknown bool) {
	to = l.End
	for i := range l.replayed {
		entry := &l.replayed[i]
		switch {
		case entry.Kind == 0:
			unknown = true
		case entry.Base > max(to, l.Start):
			return to, unknown
		default:
			to, unknown = max(to, entry.end()), false
		}
	}
	return to, unknown
}

// nextNeeded is the next whole run behind what the log has, if one is needed: see walk. nil:
// none is, or there is none.
func (r *recovery) nextNeeded(lg *recoveredLog, k int, later []laterRun, covered int64, missing bool) (next *laterRun, body []byte, err error) {
	tried := map[*laterRun]bool{}
	for {
		var best *laterRun
		needed := missing
		for i := range later {
			run := &later[i]
			behind := run.segment > k || run.segment == k && run.at >= lg.Segments[k].Position
			if !behind || run.Base < lg.End || run.rewritten || tried[run] {
				continue
			}
			needed = needed || run.Base <= max(covered, lg.Start) && run.End > max(covered, lg.Start)
			if best == nil || run.Base < best.Base || run.Base == best.Base && run.segment > best.segment {
				best = run
			}
		}
		if best == nil || !needed {
			return nil, nil, nil
		}
		tried[best] = true
		if body, err = r.readBody(&lg.Segments[best.segment], best.at, &best.RunHeader); err != nil || body != nil {
			return best, body, err
		}
	}
}

// acceptRest adds to a log what the journal has behind its last run. A gap there is a hole if
// something that was acknowledged is missing. Else the run that was there was torn, and the
// entries behind the gap were not acknowledged either.
func (r *recovery) acceptRest(lg *recoveredLog) {
	to, unknown, control := lg.End, (*replayedEntry)(nil), lg.ID == format.ControlLogID
	lg.entries = lg.replayed[:0] // never ahead of the entry that is looked at
	for i := range lg.replayed {
		entry := &lg.replayed[i]
		from := max(to, lg.Start)
		switch {
		case entry.Kind == 0:
			unknown = entry
			continue
		case entry.end() <= to:
			unknown = nil
			continue
		case entry.Base > from && (control || r.o.Faults.Has(engine.EndsAtBreak) || unknown == nil && lg.claimedDurable <= from):
			continue
		case entry.Base > from:
			r.lose(lg, from, entry.Base, lg.endOfRuns(unknown))
		}
		unknown = nil
		switch {
		case entry.bytes == nil && control:
			lg.claimedDurable = max(lg.claimedDurable, entry.end())
			continue
		case entry.bytes == nil && entry.end() > lg.Start:
			r.lose(lg, max(entry.Base, lg.Start), entry.end(), place{frame: entry.frame})
		case entry.bytes != nil:
			r.accept(lg, entry)
			lg.entries = append(lg.entries, *entry)
		}
		to = entry.end()
	}
	lg.replayed = nil
	if to < lg.Start {
		// All records were removed, and with them what they said of their producers.
		to, lg.End, lg.entries = lg.Start, lg.Start, nil
		lg.Attachment, lg.Headers = nil, nil
	}
	lost := unknown != nil || lg.claimedDurable > to
	switch {
	case lost && control:
		lg.addHole(hole{Hole: format.Hole{From: to, To: to}, found: true})
	case lg.claimedDurable > to:
		r.lose(lg, to, lg.claimedDurable, lg.endOfRuns(unknown))
		to = lg.claimedDurable
	case lost:
		lg.addHole(hole{format.Hole{From: to, To: to}, lg.endOfRuns(unknown), true})
	}
	lg.accepted = to
}

// endOfRuns is the place of what is lost behind a log's runs: a broken frame, or else a broken
// run.
func (l *recoveredLog) endOfRuns(unknown *replayedEntry) place {
	if unknown != nil {
		return place{frame: unknown.frame}
	}
	if len(l.Segments) == 0 {
		return place{}
	}
	seg := &l.Segments[l.lastWritten()]
	return place{generation: seg.Generation, at: seg.Position}
}

// accept accepts an entry, whose place in the segments is known to the caller.
func (r *recovery) accept(lg *recoveredLog, entry *replayedEntry) {
	r.epochBegan(lg, entry.Base)
	r.keepHeader(lg, &entry.Entry, entry.bytes)
}

// lose makes a hole of a log.
func (r *recovery) lose(lg *recoveredLog, from, to int64, at place) {
	r.epochBegan(lg, from)
	lg.addHole(hole{format.Hole{From: from, To: to}, at, true})
}
