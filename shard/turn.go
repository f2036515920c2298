package shard

import (
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/netring"
)

// Turn is one iteration of the shard's loop:
//
//	take completions, mail, and the events of engine and connections
//	end the long polls whose deadline has passed
//	retry requests that wait for memory, if any was given back
//	let the control and retention step
//	try the requests that are scheduled
//	let the engine and netring step: they push operations to the ring
//	take the events that these steps made
//	publish counters; put mail into mailboxes
//
// It returns the time until which the shard may sleep; now, if there is more to do.
func (s *Shard) Turn(now ioring.Instant, wall Wall) (sleepUntil ioring.Instant) {
	s.post.awake(s.o.Shard)
	s.now, s.wall = now, wall
	s.Timelines.Counters.Turns++
	s.recorder.turnBegins(now)
	again, before := false, s.stage
	s.reap()
	s.readMail()
	s.engineEvents()
	s.netEvents()
	for {
		slot, ok := s.timers.due(now)
		if !ok {
			break
		}
		s.expire(slot)
	}
	if p := s.engine.Progress(); p != s.backlog.progress || s.backlog.retry {
		s.backlog.progress = p
		s.retryDeferred()
		s.retryBacklog()
		s.requests.retryBlocked()
	}
	if s.control != nil {
		s.control.Step()
	}
	s.retain()
	s.makeRoom()
	s.runScheduled()
	sleepUntil = s.engine.Step(now)
	if s.engineEvents() {
		s.runScheduled()
		again = true
	}
	sleepUntil = min(sleepUntil, s.net.Step(now), s.timers.next())
	if s.control == nil && s.stage == StageServing && !s.failed {
		sleepUntil = min(sleepUntil, s.retention.at)
	}
	if s.control != nil {
		sleepUntil = min(sleepUntil, s.control.Next())
	}
	sleepUntil = min(sleepUntil, max(now, s.roomDue()))
	if s.netEvents() {
		sleepUntil = now
	}
	sleepUntil = min(sleepUntil, s.refusals())
	s.warnOfFailures()
	s.reportRoom()
	s.countFrames()
	s.recorder.turnEnds(now, wall)
	if s.Timelines.Asked() {
		s.counters()
		s.gauges()
		s.Timelines.Swap()
	}
	if now-s.published >= 1e9 {
		s.published = now
		s.counters()
		s.Timelines.Publish()
	}
	// The control's step and the retries come before the engine's step: what that
	// step has made possible is done in the next turn.
	if again && s.control != nil || s.searches.yielded || s.engine.Progress() != s.backlog.progress && s.backlog.n+len(s.requests.blocked)+len(s.logOps.deferred) > 0 {
		sleepUntil = now
		s.backlog.retry = s.backlog.retry || s.searches.yielded
		s.searches.yielded = false
	}
	s.life()
	if s.stage != before {
		sleepUntil = now
	} else if s.stage >= StageDraining {
		sleepUntil = min(sleepUntil, now+stopLookNS)
	}
	s.outbox.flush(s)
	if s.stage == StageDone || !s.post.sleep(s.o.Shard) {
		return now
	}
	return sleepUntil
}

// engineEvents takes the engine's events, and says whether there were any.
func (s *Shard) engineEvents() (any bool) {
	for {
		ev, ok := s.engine.Next()
		if !ok {
			return any
		}
		any = true
		switch ev.Kind {
		case engine.Durable:
			s.advanced(s.partitions.of(ev.Slot))
		case engine.ReadDone:
			if s.control != nil {
				s.control.LogEvent(ev)
			} else {
				s.readDone(ev.User, ev.Status, ev.Read)
			}
		case engine.Opened:
			if s.control != nil {
				s.control.LogEvent(ev)
			} else {
				s.logOpened(ev)
			}
		case engine.Deleted:
			s.logDeleted(ev)
		case engine.HolesPassed:
			s.regained(s.partitions.of(ev.Slot))
		case engine.Failed:
			s.storageFailed()
		}
	}
}

// netEvents takes the events of connections, and says whether there were any.
func (s *Shard) netEvents() (any bool) {
	for {
		ev, ok := s.net.Next()
		if !ok {
			return any
		}
		any = true
		switch ev.Kind {
		case netring.Opened:
			s.conns.opened(ev.Conn)
		case netring.RequestReady:
			s.arrived(ev)
		case netring.Sent:
			s.sent(&s.requests.all[uint32(ev.User)])
		case netring.Closed:
			s.closed(ev.Conn)
		case netring.ProtocolError:
			s.protocolError(ev)
		}
	}
}

// reap takes all completions and hands each to the package that its token names.
func (s *Shard) reap() {
	for {
		n := s.ring.Reap(s.completions)
		s.Timelines.Counters.Completions += uint64(n)
		for _, completion := range s.completions[:n] {
			switch completion.Token.Kind() & 0xf0 {
			case ioring.KindNet:
				s.net.Complete(completion, s.now)
			case ioring.KindEngine:
				s.engine.Complete(completion, s.now)
			}
		}
		if n < len(s.completions) {
			return
		}
	}
}

// advanced serves all that wait for a partition's high watermark or log start, one
// of which has moved.
func (s *Shard) advanced(p *partition) {
	s.acknowledge(p)
	if s.truncations.n > 0 {
		s.truncations.advanced(p)
	}
	s.countAll(p)
	s.notify(p, false)
}

func (s *Shard) listen() {
	if !s.o.Hidden {
		s.net.Listen()
	}
}
