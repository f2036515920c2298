package metrics

// Cause is what a request's time went to.
type Cause int

// The causes.
const (
	OwnQueueing       Cause = iota // the shard was busy with other requests
	Gathering                      // an earlier frame was in flight: it waited for the next one
	DiskWrite                      // of its frame
	DiskSync                       // of its frame
	AwayFromCPU                    // the shard's thread waited for a CPU
	GarbageCollection              // Go's collector kept the thread from running
	Stolen                         // the thread ran on no CPU though it could have: the host's
	SlowReader                     // who was to take the answer, or an answer before it
	NeighbourLog                   // other logs of the shard had the disk, or the frame
	Draining                       // journal to segments, checkpoints: log memory or the disk
	Preparing                      // files made, grown, zeroed, removed
	ColdRead                       // the disk was read from
	Causes                         // how many there are
)

var causeNames = [Causes]string{"own queueing", "gathering", "disk write", "disk sync", "away from CPU", "GC", "steal", "slow reader", "neighbour log", "drain", "preparation", "cold reads"}

// Name is the cause's name.
func (c Cause) Name() string { return causeNames[c] }

// syncWorthBytes is how much a disk could have written in the time a sync takes
// it: as much of others' work is as good a reason for a slow write and sync as
// the sync itself. 256 KiB is what a disk of 500 MB/s writes in half a millisecond.
const syncWorthBytes = 256 << 10

// Spent is what a request's time went to, by stage and cause. The sums of all
// stages come to NS and EarlyNS; those are in Received.
type Spent [Stages][Causes]int64

// Spent takes a request's time apart.
//
// A stage that ends with a completion ends when the shard sees it. What the shard
// did between its last look and that one, and between asking for something and
// the end of the turn that asked, is to blame for that much; what is left is the
// stage's own: the disk's, the reader's. At the disk others are to blame by the
// bytes they had there at the same time.
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

// late takes what the shard and its thread did out of a step that took so long.
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

// contended takes out of the rest of a step at the disk what the thread's CPU is to
// blame for. The kernel ends a write on that CPU as well, in workers that nobody
// tells us of: where the thread could run for a part of the time that it wanted, so
// could they. Where it was kept from it for less than an eighth of the step nothing
// is taken.
func contended(out *[Causes]int64, p *Step, took, left int64) (taken int64) {
	kept := p.Away + p.GC + p.Steal
	if kept < took/8 || kept == 0 || left <= 0 {
		return 0
	}
	wanted := float64(max(p.Busy, kept))
	if p.Busy < kept { // it was away between its turns
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

// step says what the rest of a step was.
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
		out[Draining] += left
	case s.Waited&WaitedJournal != 0 && i == Submitted:
		out[Draining] += left
	case k == Produce && i == Submitted:
		share(NeighbourLog, s.OtherBytes, s.OtherBytes+own)
		out[Gathering] += left
	case k == Produce && i == Durable:
		drains, files, reads := s.Disk[DiskDrains]+s.Disk[DiskCheckpoints], s.Disk[DiskFiles], s.Disk[DiskReads]
		others := s.OtherBytes
		whole := own + drains + files + reads + others
		all := left
		for _, x := range [...]struct {
			c     Cause
			bytes int64
		}{{NeighbourLog, others}, {Draining, drains}, {Preparing, files}, {ColdRead, reads}} {
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

// ByCause adds the stages up.
func (a *Spent) ByCause() (out [Causes]int64) {
	for i := range a {
		for c, n := range a[i] {
			out[c] += n
		}
	}
	return out
}

// Beyond is what a request took beyond what its stages usually take, by cause. A
// stage's own work is the first to be usual: usual is the median of each, 0 where
// it is not known.
func (a *Spent) Beyond(k Kind, usual *Timeline) (out [Causes]int64) {
	for i := range a {
		left := usual[i]
		if i == int(Received) || k == Fetch && i == int(Appended) {
			left = 0 // the whole way's; a fetch's wait for data
		}
		for _, c := range usualFirst {
			n := min(left, a[i][c])
			left -= n
			out[c] += a[i][c] - n
		}
	}
	return out
}

var usualFirst = [Causes]Cause{DiskSync, DiskWrite, Gathering, SlowReader, ColdRead, OwnQueueing, NeighbourLog, Draining, Preparing, AwayFromCPU, GarbageCollection, Stolen}

// Leading is the cause with the most, and how much that is.
func Leading(by *[Causes]int64) (c Cause, ns int64) {
	for i, n := range by {
		if n > ns {
			c, ns = Cause(i), n
		}
	}
	return c, ns
}
