package engine_test

import (
	"testing"

	"github.com/tailbound/tailbound/engine/recovery"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
	"github.com/tailbound/tailbound/sim"
)

// manyLogs are options for more logs than lanes.
const manyLogs = 200

// TestStartTakesLogsTogether: after a power cut each log with something in the journal costs a
// start one open, one read, one write and one sync, and these are under way for many logs
// at a time. The journal is read twice, however many logs there are: once for its frames,
// once for what is behind the last one.
func TestStartTakesLogsTogether(t *testing.T) {
	before := options
	defer func() { options = before }()
	options.LogsMax = manyLogs + 1
	w, disk := sim.NewWorld(11), sim.NewDisk(0)
	l := begin(t, w, disk)
	for id := range uint64(manyLogs) {
		l.append(l.open(id+2), 500)
	}
	for id := range uint64(manyLogs) {
		slot, _ := l.e.Lookup(id + 2)
		l.durable(slot)
	}
	l.cut()
	start := func(disk *sim.Disk, files int) (ioring.Tally, ioring.Instant) {
		arena, err := mem.Map(64<<20, mem.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer arena.Unmap()
		o := recovery.Options{Options: options, Shards: 1}
		o.FilesMax = files
		began := w.Now
		boot, err := recovery.Recover(sim.NewRing(w, disk, arena, sim.RingOptions{Files: 128}), arena, o)
		if err != nil {
			t.Fatal(err)
		}
		if boot.Clean || len(boot.Shards[1].Logs) != manyLogs {
			t.Fatalf("clean %v, %d logs", boot.Clean, len(boot.Shards[1].Logs))
		}
		for i := range boot.Shards[1].Logs {
			if lg := &boot.Shards[1].Logs[i]; lg.End != 1 {
				t.Errorf("log %d ends at %d", lg.ID, lg.End)
			}
		}
		return boot.Tally, w.Now - began
	}
	copied := disk.Clone()
	tally, many := start(disk, 64)
	const besides = 40 // superblock, checkpoints, directories
	most := ioring.Tally{Opens: manyLogs + besides, Reads: 2*manyLogs + besides, Writes: manyLogs + besides, Syncs: manyLogs + besides,
		ReadBytes: 3*4<<20 + 2*manyLogs*4096, WriteBytes: 2*manyLogs*4096 + 2<<20}
	if tally.Opens > most.Opens || tally.Reads > most.Reads || tally.Writes > most.Writes || tally.Syncs > most.Syncs ||
		tally.ReadBytes > most.ReadBytes || tally.WriteBytes > most.WriteBytes {
		t.Errorf("a start with %d logs took %+v, at most %+v", manyLogs, tally, most)
	}
	// With file slots for one lane it takes that much longer. Time is the simulator's.
	if _, one := start(copied, 16); one < 2*many {
		t.Errorf("a start took %d ns, with a seventh of the lanes %d", many, one)
	}
}
