package metrics

// Cause is a reason why a request took time.
type Cause int

// The causes.
const (
	OwnQueueing       Cause = iota // the shard was busy with other requests
	Gathering                      // an earlier frame was in flight: the request waited for the next one
	DiskWrite                      // of its journal frame
	DiskSync                       // of its journal frame
	AwayFromCPU                    // the shard's thread waited for a CPU
	GarbageCollection              // Go's collector kept the thread from running
	Stolen                         // the thread could have run and did not: the virtual machine's host
	SlowReader                     // the client did not take the reply, or an earlier one
	NeighbourLog                   // other logs of the shard used the disk, or filled the frame
	Flushing                       // journal to segments, checkpoints: log memory or the disk
	Preparing                      // files were made, grown, zeroed, removed
	ColdRead                       // records were read from disk
	Causes                         // how many there are
)

var causeNames = [Causes]string{"own queueing", "gathering", "disk write", "disk sync", "away from CPU", "GC", "steal", "slow reader", "neighbour log", "drain", "preparation", "cold reads"}

// Name returns the cause's name.
func (c Cause) Name() string { return causeNames[c] }

// syncWorthBytes is what a disk could write during a sync. Other writes of this size
// explain a slow write and sync as much as the sync itself does. A disk of 500 MB/s
// writes 256 KiB in half a millisecond.
const syncWorthBytes = 256 << 10

// Spent is a request's time by stage and cause, in ns. The sum over all stages is NS
// plus EarlyNS, which is at stage Received.
type Spent [Stages][Causes]int64

// Spent divides a request's time by stage and cause.
//
// A stage that ends with a completion ends when the shard sees the completion. The
// shard's own work between the last turn that did not see it and the one that did,
// and between starting an operation and the end of that turn, is charged to the
// shard. The rest belongs to the stage: to the disk, or to the reader. A wait for the
// disk is divided between the request and other work by the bytes of each.
func (s *Slow) Spent(k Kind) (all Spent) {
	late(&all[Received], &s.Early, s.EarlyNS())
	last := s.Stamps[Received]
	for i := Parsed; i < Stages; i++ {
		if s.Stamps[i] == 0 {
			continue
		}
		took := max(0, s.Stamps[i]-last)
		last = max(last, s.Stamps[i])
		if k == Fetch && i == Appended {
			took = max(0, took-s.Idle)
		}
		if took > 0 {
			left := took - late(&all[i], &s.Steps[i], took)
			if i == Durable {
				left -= contended(&all[i], &s.Steps[i], took, left)
			}
			s.step(k, i, left, &all[i])
		}
	}
	return all
}

// late charges the shard and its thread with their part of a step of took ns, and
// returns that part.
func late(out *[Causes]int64, p *Step, took int64) (taken int64) {
	parts := [...]struct {
		cause Cause
		ns    int64
	}{{AwayFromCPU, p.LateAway}, {GarbageCollection, p.LateGC}, {Stolen, p.LateSteal}, {OwnQueueing, p.LateBusy}}
	for _, x := range parts {
		n := min(x.ns, took-taken)
		out[x.cause] += n
		taken += n
	}
	return taken
}

// contended charges the thread's CPU with its part of the remaining time of a step at
// the disk. The kernel completes a write on that CPU too, in workers whose waiting
// times are not reported: if the thread got only a part of the CPU time it wanted,
// the workers are taken to have got the same part. If the thread was kept waiting for
// less than an eighth of the step, nothing is charged.
func contended(out *[Causes]int64, p *Step, took, left int64) (taken int64) {
	kept := p.Away + p.GC + p.Steal
	if kept < took/8 || kept == 0 || left <= 0 {
		return 0
	}
	wanted := float64(max(p.Busy, kept))
	if p.Busy < kept { // the thread was kept waiting between its turns
		wanted = float64(p.Busy + kept)
	}
	for _, x := range [...]struct {
		cause Cause
		ns    int64
	}{{AwayFromCPU, p.Away}, {GarbageCollection, p.GC}, {Stolen, p.Steal}} {
		n := min(int64(float64(left)*float64(x.ns)/wanted), left-taken)
		out[x.cause] += n
		taken += n
	}
	return taken
}

// step charges the remaining time of a step to causes.
func (s *Slow) step(k Kind, i Stage, left int64, out *[Causes]int64) {
	own := max(s.OwnBytes, syncWorthBytes)
	share := func(c Cause, part, whole int64) {
		n := int64(float64(left) * float64(part) / float64(whole))
		out[c] += n
		left -= n
	}
	switch {
	case i == Sent:
		out[SlowReader] += left
	case s.Waited&WaitedReadBuffers != 0 && i == Appended, k == Fetch && (i == Submitted || i == Durable):
		out[ColdRead] += left
	case s.Waited&WaitedReader != 0 && (i == Appended || k == Fetch && i == Queued):
		out[SlowReader] += left
	case s.Waited&WaitedRoom != 0 && i == Appended:
		out[Preparing] += left
	case s.Waited&WaitedMemory != 0 && i == Appended:
		out[Flushing] += left
	case s.Waited&WaitedJournal != 0 && i == Submitted:
		out[Flushing] += left
	case k == Produce && i == Submitted:
		share(NeighbourLog, s.OtherBytes, s.OtherBytes+own)
		out[Gathering] += left
	case k == Produce && i == Durable:
		drains, files, reads := s.Disk[DiskFlushes]+s.Disk[DiskCheckpoints], s.Disk[DiskFiles], s.Disk[DiskReads]
		others := s.OtherBytes
		whole := own + drains + files + reads + others
		all := left
		for _, x := range [...]struct {
			c     Cause
			bytes int64
		}{{NeighbourLog, others}, {Flushing, drains}, {Preparing, files}, {ColdRead, reads}} {
			n := int64(float64(all) * float64(x.bytes) / float64(whole))
			out[x.c] += n
			left -= n
		}
		took, write := s.Stamps[Durable]-s.Stamps[Submitted], s.Written-s.Stamps[Submitted]
		if write > 0 && write <= took {
			share(DiskWrite, write, took)
		}
		out[DiskSync] += left
	default:
		out[OwnQueueing] += left
	}
}

// ByCause returns the sums over all stages.
func (a *Spent) ByCause() (out [Causes]int64) {
	for i := range a {
		for c, n := range a[i] {
			out[c] += n
		}
	}
	return out
}

// Beyond returns by cause how much longer a request took than its stages usually do.
// usual is the median of each stage, 0 if unknown; it is subtracted from the causes
// in the order of usualFirst, the stage's own work first.
func (a *Spent) Beyond(k Kind, usual *Timeline) (out [Causes]int64) {
	for i := range a {
		left := usual[i]
		if i == int(Received) || k == Fetch && i == int(Appended) {
			left = 0 // usual has the whole request here, or a fetch's wait for data
		}
		for _, c := range usualFirst {
			n := min(left, a[i][c])
			left -= n
			out[c] += a[i][c] - n
		}
	}
	return out
}

var usualFirst = [Causes]Cause{DiskSync, DiskWrite, Gathering, SlowReader, ColdRead, OwnQueueing, NeighbourLog, Flushing, Preparing, AwayFromCPU, GarbageCollection, Stolen}

// Leading returns the largest cause and its time.
func Leading(by *[Causes]int64) (c Cause, ns int64) {
	for i, n := range by {
		if n > ns {
			c, ns = Cause(i), n
		}
	}
	return c, ns
}
