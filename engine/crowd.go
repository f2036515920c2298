package engine

import (
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
)

// crowd counts the logs that had large batches in an interval. Many of them are
// served by frames, all of them, with one sync for all; when frames do not keep
// up, because they write everything twice, by runs, all of them again. Some of
// each would be in each other's way: a run waits until what the journal has
// before it is in its segment.
type crowd struct {
	interval   uint32
	until      ioring.Instant
	logs, last int // in this interval, in the one before

	runsUntil ioring.Instant // frames did not keep up
	runsFor   ioring.Instant
}

const (
	// crowdLogs is up to how many logs with large batches write runs of their
	// own whatever comes; directLogsMax is it when frames do not keep up.
	crowdLogs = 8
	// crowdNS is the interval in which they are counted: some writes and syncs of
	// the disk.
	crowdNS = 10e6
	// crowdRunsNS is how long a crowd writes runs before frames are tried again;
	// twice as long, up to crowdRunsMaxNS, each time they fail again soon.
	crowdRunsNS    = 1e9
	crowdRunsMaxNS = 64e9
)

// crowded counts log l, which has a large batch of need entry bytes, and says
// that the frames take it because they take them all.
func (e *Engine) crowded(l *log, need int) bool {
	c := &e.extents.crowd
	if e.now >= c.until {
		if c.last = c.logs; e.now >= c.until+crowdNS {
			c.last = 0 // that was not the one before
		}
		c.logs, c.until = 0, e.now+crowdNS
		c.interval++
	}
	if l.crowd != c.interval {
		l.crowd = c.interval
		c.logs++
	}
	switch n := max(c.logs, c.last); {
	case n <= crowdLogs || n <= directLogsMax && e.now < c.runsUntil:
		return false
	case n > directLogsMax || e.journal.openBytes+need <= format.FrameBytesMax || int(e.journal.submitted-e.journal.durableSeq) < e.o.InflightMax:
		return true
	}
	// a frame is full, and as many as may be are in flight
	if e.now < c.runsUntil+c.runsFor {
		c.runsFor = min(2*c.runsFor, crowdRunsMaxNS)
	} else {
		c.runsFor = crowdRunsNS
	}
	c.runsUntil = e.now + c.runsFor
	return false
}
