package lives

import (
	"fmt"

	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/engine/recovery"
	"github.com/tailbound/tailbound/sim"
)

// foundRun is a whole run in a segment file.
type foundRun struct {
	path   string
	at     int64
	header format.RunHeader
}

// damage breaks runs of one log in a copy of the directory that a crash left, at most as many in a row as could be in flight, and opens the copy with
// other settings. The run behind the broken ones says that some of their records were durable: the log does not end before that, and has lost nothing
// but records of the broken runs. No other log has lost anything.
func (s *engineSim) damage() error {
	disk := s.disk.Clone()
	superblock, logs := readDirectory(disk)
	broken, witness := s.chooseRuns(runsOf(disk, &superblock, logs), int(superblock.InflightMax))
	if len(broken) == 0 {
		return nil
	}
	for _, run := range broken {
		block := make([]byte, format.BlockBytes)
		for i := range block {
			block[i] = byte(s.also.Uint32())
		}
		disk.Overwrite(run.path, run.at, block)
	}
	id := witness.header.Log
	s.w.Logf("--- in a copy: %d runs of log %d from %s at %d on are broken, and a later one says that %d was durable", len(broken), id, broken[0].path, broken[0].at, witness.header.Durable)
	boot, err := s.openDamaged(disk)
	if err != nil {
		return fmt.Errorf("opening a damaged copy: %w", err)
	}
	from, to := broken[0].header.Base, broken[len(broken)-1].header.End
	for i := range boot.Shards {
		for _, l := range boot.Shards[i].Logs {
			for _, hole := range l.Holes {
				if l.ID != id || hole.From < from || hole.To > to {
					return fmt.Errorf("FALSE ROT: log %d: %v; of log %d offsets %d to %d are broken", l.ID, hole, id, from, to-1)
				}
			}
		}
	}
	l, _ := s.find(boot, id)
	if l == nil {
		return nil // it was deleted
	}
	if max(l.End, l.Start) < witness.header.Durable && (id != format.ControlLogID || len(l.Holes) == 0) {
		return fmt.Errorf("SILENT: of log %d %d runs from offset %d on are broken, it ends at %d, and nothing says that it was durable to %d",
			id, len(broken), from, l.End, witness.header.Durable)
	}
	return nil
}

// chooseRuns chooses up to most successive runs of one segment, and the run behind them, which says that records of the first one were durable.
// It returns none if it finds none in some tries.
func (s *engineSim) chooseRuns(runs []foundRun, most int) (broken []foundRun, witness foundRun) {
	for range 20 {
		if len(runs) < 2 {
			break
		}
		from, n := s.also.IntN(len(runs)-1), most
		if s.also.IntN(2) == 0 {
			n = 1 + s.also.IntN(most)
		}
		if s.also.IntN(2) == 0 { // nothing but the last run of the log says that they were durable
			last := from
			for last+1 < len(runs) && runs[last+1].header.Log == runs[from].header.Log {
				last++
			}
			from = last - n
		}
		if from < 0 || from+n >= len(runs) || runs[from+n].path != runs[from].path || runs[from+n].header.Durable <= runs[from].header.Base {
			continue
		}
		return runs[from : from+n], runs[from+n]
	}
	return nil, witness
}

// readDirectory returns the newest superblock of a directory, and the logs of its shards' newest checkpoints.
func readDirectory(disk *sim.Disk) (superblock format.Superblock, logs []*format.LogRecord) {
	slots := disk.Contents("superblock")
	for ; len(slots) >= format.BlockBytes; slots = slots[format.BlockBytes:] {
		var slot format.Superblock
		if _, ok := slot.Get(slots); ok && slot.Sequence > superblock.Sequence {
			superblock = slot
		}
	}
	for shard := range int(superblock.Shards) {
		var newest format.Checkpoint
		var body []byte
		for _, name := range []string{"checkpoint-0", "checkpoint-1"} {
			buf := disk.Contents(format.ShardPath(shard, name))
			if len(buf) < format.BlockBytes {
				continue
			}
			var checkpoint format.Checkpoint
			header, n, crc, _, ok := checkpoint.Get(buf)
			if ok && header+n <= len(buf) && format.CRC(buf[header:header+n]) == crc && checkpoint.Epoch == superblock.Epoch && checkpoint.Sequence > newest.Sequence {
				newest, body = checkpoint, buf[header:header+n]
			}
		}
		records, err := format.GetLogRecords(body, int(newest.Logs))
		if err != nil {
			panic(err)
		}
		logs = append(logs, records...)
	}
	return superblock, logs
}

// runsOf returns the whole runs that the last epoch wrote after its checkpoints, by log and segment.
func runsOf(disk *sim.Disk, superblock *format.Superblock, logs []*format.LogRecord) (runs []foundRun) {
	for _, record := range logs {
		for i := range record.Segments {
			seg := &record.Segments[i]
			path := format.SegmentPath(seg.Generation)
			file := disk.Contents(path)
			for at := seg.Position; at+format.BlockBytes <= int64(len(file)); {
				run := foundRun{path: path, at: at}
				if !run.header.Get(file[at:]) || run.header.Epoch != superblock.Epoch || run.header.Log != record.ID || run.header.Generation != seg.Generation ||
					at+int64(run.header.Bytes()) > int64(len(file)) || !run.header.Whole(file[at+format.HeaderBytes:at+format.HeaderBytes+int64(run.header.BodyBytes)]) {
					break
				}
				runs = append(runs, run)
				at += int64(run.header.Bytes())
			}
		}
	}
	return runs
}

// openDamaged opens a directory with newly drawn settings, in a world of its own.
func (s *engineSim) openDamaged(disk *sim.Disk) (*engine.RecoveredState, error) {
	settings := *s
	settings.redrawOptions()
	if s.also.IntN(2) == 0 {
		settings.o.InflightMax = 1 // as far as it can be from what the life before had in flight
	}
	w := sim.NewWorld(s.run.Seed)
	arena := s.arena(recoveryArenaBytes)
	defer s.freeArenas()
	ring := sim.NewRing(w, disk, arena, sim.RingOptions{Files: s.mood.Files, Depth: s.mood.Depth})
	return recovery.Recover(ring, arena, settings.recoverOptions())
}
