package shard

import (
	"strconv"

	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/netring"
)

// A stop takes a few seconds at most, whatever clients do. Its stages, and the bound of
// each wait:
//
//	await stopping()
//	stop listening; await answers to all requests  // StageDraining: DrainNS
//	await peers' receipt of the answers            // netring's StopTimeoutNS
//	await the control shard's MailClose            // it gives up after DrainNS too
//	await the engine's mark of a clean stop        // StageClosing: bounded by the disk
//
// Until MailClose a data shard still does what the control shard asks.

// DrainNS is the default for how long a stop waits for answers to requests in flight.
const DrainNS = 2e9

const stopLookNS = 10e6 // how often a shard that stops checks whether it is done

// life moves the shard on from stage to stage until it has stopped.
func (s *Shard) life() {
	switch s.stage {
	case StageLoading, StageNaming:
		if s.post.stopping() {
			s.close()
		}
	case StageServing:
		if s.post.stopping() {
			s.stage, s.drainUntil = StageDraining, s.now+ioring.Instant(s.o.DrainNS)
			s.net.Stop()
			s.answerLongPolls()
			s.endSearches()
		}
	case StageDraining:
		if s.now >= s.drainUntil {
			s.drainUntil = ioring.Never
			s.giveUp()
		}
		switch {
		case !s.net.Idle():
		case s.control == nil && !s.drained:
			s.drained = true
			s.reportStop()
			s.outbox.put(Mail{Kind: MailStopped}, 0)
		case s.control != nil && s.control.Idle():
			s.reportStop()
			s.close()
		}
	case StageClosing:
		if s.engine.Idle() {
			s.stage = StageDone
		}
	}
}

// giveUp closes the connections whose requests are not answered yet. Clients can have
// requested any amount of work: reads from disk, changes of the cluster, batches for
// which there is no log memory. A Produce whose batches are all appended is still
// answered, since the stop waits for them to be durable in any case.
func (s *Shard) giveUp() {
	for i := range s.requests.all {
		req := &s.requests.all[i]
		if !req.used || req.replied || req.kind == kindProduce {
			continue
		}
		s.abortForStop(req.id)
		if req.kind == kindFetch || req.kind == kindSearch {
			s.requests.schedule(req) // it ends when its reads have ended
		}
	}
	for n := s.backlog.n; n > 0; n-- {
		in := s.backlog.pop()
		s.abortForStop(in.id)
		s.backlog.push(in)
	}
	if s.control != nil {
		s.control.GiveUp()
	}
}

func (s *Shard) abortForStop(id netring.RequestID) {
	if s.net.Alive(id) {
		s.unanswered++
		s.net.Abort(id)
	}
}

// reportStop logs how many clients the stop has not waited for.
func (s *Shard) reportStop() {
	untaken := s.net.Stats().StopTimeouts
	if untaken == 0 && s.unanswered == 0 {
		return
	}
	line := strconv.AppendUint(s.lines.begin("stopping: connections closed because their clients did not receive replies in time: "), untaken, 10)
	line = strconv.AppendUint(append(line, "; requests that were not answered in time: "...), s.unanswered, 10)
	s.lines.write(Info, line)
}

// close has the engine write its mark of a clean stop. The control shard has all
// data shards do the same.
func (s *Shard) close() {
	if s.stage >= StageClosing {
		return
	}
	s.stage = StageClosing
	s.engine.Shutdown()
	if s.control != nil {
		for i := 1; i <= s.o.DataShards; i++ {
			s.outbox.put(Mail{Kind: MailClose}, i)
		}
	}
}
