package engine

import (
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
)

// shortage is what keeps logs from getting room, or the shard from writing a checkpoint:
//
//	begin(failure); for the same still fails { await retryNS; try again } end()
//
// What failed is tried again without being asked for, so that a shortage ends once there
// is room, whether or not a client sends anything.
//
// Invariant: while a shortage is active, the log is short or a checkpoint is.
type shortage struct {
	active     bool
	failure    Failure // the last one
	log        Slot    // whose segment could not be made or grown
	id         uint64  // of that log; 0: it is a checkpoint
	lacks      lack    // what it was refused
	entryBytes int64   // what an append asked room for
	retryAt    ioring.Instant
}

// lack is something that a log may be refused.
type lack uint8

const (
	lacksGrowth  lack = iota // room in its segment
	lacksSegment             // another segment
	lackKinds                // how many there are
)

// Shortage is why a log of the shard, or a checkpoint, finds no room. False: nothing is
// known to be short of it.
func (e *Engine) Shortage() (failure *Failure, active bool) {
	return &e.shortage.failure, e.shortage.active
}

// Full reports that the failure is for lack of space, of inodes or of quota.
func (f *Failure) Full() bool { return spaceShort(f.Op, int(f.Errno)) }

// begin records what failed. A shortage that is active goes on.
func (s *shortage) begin(env *env, failure Failure, log Slot, what lack, entryBytes int64) {
	failure.Shard = env.shard
	*s = shortage{active: true, failure: failure, log: log, id: failure.Log, lacks: what, entryBytes: entryBytes, retryAt: env.now + retryNS}
	if failure.Full() {
		env.stats.NoSpace++
	} else {
		env.stats.NoFile++
	}
	env.progress++
}

// covers reports that a log need not try: another one that asked for the same, and for no
// more, found no room just now. So thousands of logs on a full disk do not each make and
// remove a file every second.
func (s *shortage) covers(lg *log, what lack, entryBytes int64) bool {
	return s.active && s.lacks == what && s.id != lg.id && entryBytes >= s.entryBytes
}

// noRoom has a log wait for room, for retryNS. If the disk is full and files are kept for
// later segments, these are removed, and the log tries again at once; so does one that a
// file is held for.
func (e *Engine) noRoom(lg *log, what lack, failure Failure, entryBytes int64) {
	held := what == lacksSegment && lg.keptNext > 0 && e.recycled.heldFor(&e.segments, lg, format.RoomFor(entryBytes)) >= 0
	if failure.Full() && (held || e.recycled.releaseAll(&e.segments)) {
		e.progress++
		return
	}
	lg.refused[what] = e.now + retryNS
	e.shortage.begin(&e.env, failure, lg.slot, what, entryBytes)
}

// roomFound says that a log has got what it asked for: its shortage may be over.
func (e *Engine) roomFound(lg *log) {
	if e.shortage.active && e.shortage.id == lg.id {
		e.shortage.retryAt = e.now
	}
}

// stepShortage tries again for the log that was refused last. A shortage ends when that
// log has room or is deleted; other logs that lack room begin another when they are
// refused again.
func (e *Engine) stepShortage(sleep *ioring.Instant) {
	s := &e.shortage
	if !s.active || s.id == 0 || e.failed || e.stopping {
		return
	}
	lg := &e.logs.all[s.log]
	switch {
	case lg.state != logOpen || lg.id != s.id:
		e.shortageEnds()
	case lg.provisioning: // its end comes here, or to noRoom
	case e.now < s.retryAt:
		earlier(sleep, s.retryAt)
	case e.hasRoom(lg, s.entryBytes) && !lg.provisioning:
		e.shortageEnds()
	case lg.provisioning:
	default:
		s.retryAt = e.now + retryNS // all jobs are busy
		earlier(sleep, s.retryAt)
	}
}

// hasRoom reports that a log has what it was refused, and else asks for it again. A log
// whose next segment is kept has room as long as it has that.
func (e *Engine) hasRoom(lg *log, entryBytes int64) bool {
	if lg.keptNext > 0 {
		return e.keepNext(lg) == OK
	}
	return e.admit(lg, entryBytes) == OK
}

// shortageEnds ends the shortage: what was refused may be asked for again.
func (e *Engine) shortageEnds() {
	e.shortage = shortage{}
	for i := range e.logs.all[:e.logs.used] {
		e.logs.all[i].refused = [lackKinds]ioring.Instant{}
	}
	e.progress++
}
