package control

import (
	"fmt"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/shard"
)

// This file is about a disk without room: which changes the control log still takes, and
// what the operator is told.

// keptRoom is how much of the control log's segment is left to changes that make room: to
// delete topics, groups and offsets, and to alter what retention goes by. All other
// changes leave it free, so that a disk which commits of offsets have filled up can be
// made room on.
const keptRoom = 256 << 10

// keptRoom bounds the constant by the size of segments, which are small in the simulator.
func (c *control) keptRoom() int { return min(keptRoom, c.o.Engine.SegmentBytes/8) }

const noRoom = "The control log finds no room on the disk; see the broker's log. Deleting topics, records or groups and lowering retention are still possible, and make room."

// makesRoom reports that a change has data removed, now or by retention, or goes on with a
// removal.
func (ch *change) makesRoom() bool {
	switch ch.kind {
	case changeDelete, changeDeleteID, changeForget:
		return true
	case changeConfigure, changeConfigureBroker:
		for _, edit := range ch.edits {
			if cluster.MakesRoom(edit.Name) {
				return true
			}
		}
	case changeGroups:
		return ch.removes
	}
	return false
}

// append reserves, fills and commits a batch of one command. A command that does not make
// room leaves keptRoom free; its room is asked for in either case, so that the log grows
// once there is room on the disk.
func (c *control) append(cmd []byte, makesRoom bool) engine.Status {
	batch := commandBatch(cmd, int64(c.shard.Wall()))
	if st := c.engine.Room(c.slot, len(batch)+c.keptRoom()); st != engine.OK && !makesRoom && !c.o.Faults.RoomNotKept {
		return st
	}
	reserve := c.engine.Reserve
	if makesRoom && !c.o.Faults.JournalNotKept {
		reserve = c.engine.ReserveKept
	}
	dst, base, st := reserve(c.slot, len(batch))
	if st == engine.OK {
		copy(dst, batch)
		kafka.PatchBase(dst, base, c.shard.LeaderEpoch())
		c.engine.Commit(engine.Meta{Count: 1, MaxTime: int64(c.shard.Wall()), TimesChecked: true, CRC: kafka.BatchCRC(dst)})
	}
	return st
}

// keptSegment is the control log's next segment, which is kept for a rewrite: on a disk
// that is full, a snapshot goes there, and the segment before is removed and becomes the
// next. So the log goes on though it gets no new space, as long as the state fits twice.
type keptSegment struct {
	at  ioring.Instant // when it is looked at again
	end int64          // of the log, when it was looked at
	st  engine.Status  // then
}

const keptEveryNS = 1e9

// keepNext has the next segment made, or made larger as the state grows.
func (c *control) keepNext() {
	if !c.changed() || c.shard.Now() < c.kept.at {
		return
	}
	c.askForNext()
}

// askForNext asks for the next segment: with room for what the state is now, twice.
func (c *control) askForNext() {
	c.kept = keptSegment{at: c.shard.Now() + keptEveryNS, end: c.engine.End(c.slot)}
	n := 2*(c.state.SnapshotBytes()+c.keptRoom()) + keptRoom/2
	c.kept.st = c.engine.KeepNext(c.slot, int64(min(n, c.o.Engine.SegmentBytes/4*3)))
}

// changed reports that there is a reason to look at the next segment.
func (c *control) changed() bool {
	if c.stage == changeSnapshot || c.o.Faults.NextNotKept || c.shard.Failed() || c.shard.Stage() < shard.StageNaming || c.shard.Stage() > shard.StageServing {
		return false
	}
	end := c.engine.End(c.slot)
	return end > 0 && (end != c.kept.end || c.kept.st != engine.OK)
}

// keptDue is when keepNext has something to do.
func (c *control) keptDue() ioring.Instant {
	if c.changed() {
		return c.kept.at
	}
	return ioring.Never
}

// rewrite begins a snapshot in the log's next segment, for lack of room in this one, and
// reports whether it did: it gains enough only where the state leaves room there. The
// change under way goes on behind it.
func (c *control) rewrite() bool {
	gain := 2 * c.keptRoom()
	if c.engine.JournalKept() || !c.engine.NextHolds(c.slot, int64(c.state.SnapshotBytes()+gain)) {
		return false
	}
	commands := c.state.Snapshot(c.commandBytes())
	if !c.engine.NextHolds(c.slot, int64(snapshotRoom(commands)+gain)) {
		return false
	}
	c.engine.RollSegment(c.slot)
	c.beginSnapshot(commands)
	c.rewriting = true
	return true
}

// roll has the log go on in its next segment where that cannot be rewritten into, and
// reports whether it did.
func (c *control) roll() bool {
	if c.engine.JournalKept() || !c.engine.NextHolds(c.slot, int64(commandRoom+c.commandBytes()+c.keptRoom())) {
		return false
	}
	c.engine.RollSegment(c.slot)
	return true
}

// nextComes reports that the log gets its next segment without waiting for room on the
// disk: it is being made, or the one before becomes it.
func (c *control) nextComes() bool {
	if c.o.Faults.NextNotKept {
		return false
	}
	c.askForNext()
	return c.kept.st == engine.WaitRoom || c.engine.NextComing(c.slot)
}

// short reports that the control log's own shard is short of room.
func (c *control) short() bool { _, short := c.engine.Shortage(); return short }

// roomWatch is what the control shard knows of shards that are short of room, itself
// included, and what it has told the operator. A full disk is one thing, however many
// shards meet it:
//
//	for {
//		await a shard's shortage; say what is short, and what to do
//		for a shard is short { await roomLineNS; say how long it lasts, and what was refused }
//		say that it is over
//	}
//
// A shortage that begins again within roomLineNS of a line is said when that time is over,
// if it lasts so long: a disk at its limit does not fill the log.
type roomWatch struct {
	short   []bool // by shard
	shards  int    // how many are
	last    shard.Shortage
	refused uint64         // since the last line
	since   ioring.Instant // when the first of them became short
	said    bool           // that it is short, since then
	next    ioring.Instant // no line before
}

// roomLineNS is how often at most a shortage that lasts is said.
const roomLineNS = 60e9

// roomShort takes what a shard tells of its shortage.
func (c *control) roomShort(mail shard.Mail) {
	w := &c.room
	if !w.short[mail.From] {
		w.short[mail.From] = true
		if w.shards++; w.shards == 1 {
			w.since, w.said = c.shard.Now(), false
		}
	}
	w.last = shard.NewShortage(mail)
	w.refused += uint64(w.last.Refused)
	c.stepRoom()
}

// roomBack takes that a shard is not short any more.
func (c *control) roomBack(mail shard.Mail) {
	w := &c.room
	if !w.short[mail.From] {
		return
	}
	w.short[mail.From] = false
	w.shards--
	w.refused += uint64(mail.Serial)
	if w.shards > 0 {
		return
	}
	if w.said {
		over := "files can be made and grown again"
		if w.last.Failure.Full() {
			over = "there is room again on the disk"
		}
		c.shard.Log(shard.Info, fmt.Sprintf("%s, after %d s%s", over, w.lastedS(c.shard.Now()), w.refusals()))
	}
	w.refused, w.said = 0, false
	c.forgetDeleted()
}

// stepRoom says that a shortage has begun, or lasts, if it is time.
func (c *control) stepRoom() {
	w, now := &c.room, c.shard.Now()
	if w.shards == 0 || now < w.next {
		return
	}
	if w.said && c.o.Faults.NoRoomUnsaid {
		w.next = now + roomLineNS
		return
	}
	failure := &w.last.Failure
	line := "no file can be made or grown"
	if failure.Full() {
		line = "the disk is full"
	}
	if w.said {
		line += fmt.Sprintf(", for %d s now%s", w.lastedS(now), w.refusals())
	}
	line += ": " + failure.Error()
	if failure.Log != 0 {
		line += "; a file of " + c.logName(failure.Log)
	}
	if !w.said {
		line += "; what needs room is refused with KAFKA_STORAGE_ERROR until there is some, and nothing that was acknowledged is lost"
	}
	if failure.Full() {
		line += ": delete topics, records or groups, or lower retention.ms or retention.bytes of topics, all of which is still done"
	}
	if advice := failure.Advice(); advice != "" {
		line += "; " + advice
	}
	c.shard.Log(shard.Error, line)
	w.said, w.refused, w.next = true, 0, now+roomLineNS
}

// roomDue is when stepRoom has something to say.
func (w *roomWatch) due() ioring.Instant {
	if w.shards == 0 {
		return ioring.Never
	}
	return w.next
}

func (w *roomWatch) lastedS(now ioring.Instant) int64 { return int64(now-w.since) / 1e9 }

// refusals is how many requests were refused since the last line, as the end of a clause.
func (w *roomWatch) refusals() string {
	if w.refused == 0 {
		return ""
	}
	return fmt.Sprintf(", %d record batches and changes refused since the line before", w.refused)
}

// logName names a log: "orders/2", or "the control log".
func (c *control) logName(id uint64) string {
	if id == format.ControlLogID {
		return "the control log"
	}
	if topic, partition, ok := c.state.LogOwner(id); ok {
		return fmt.Sprintf("%s/%d", topic.Name, partition)
	}
	return fmt.Sprintf("log %d", id)
}

// forgetDeleted has deleted topics forgotten whose logs are deleted: the change may have
// been refused while there was no room.
func (c *control) forgetDeleted() {
	for _, topic := range c.state.Tombstones() {
		if c.allDeleted(topic) {
			c.enqueue(change{kind: changeForget, id: topic.ID})
		}
	}
}
