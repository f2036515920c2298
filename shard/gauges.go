package shard

// counters brings the counters that other rooms keep into this shard's.
func (s *Shard) counters() {
	c, n, e := &s.Timelines.Counters, s.net.Stats(), s.engine.Stats()
	c.Connections, c.ConnectionsRefused = n.Accepted, n.Refused+n.RefusedPerAddress
	c.Sends, c.SentBytes, c.RepliesGathered = n.SendOps, n.SentBytes, n.Gathered
	c.NoBuffers, c.AdmissionWaits = n.NoBuffers, n.Waited
	c.TimedOut = n.ProgressTimeouts + n.SendTimeouts + n.IdleCloses
	c.ProduceWaits = e.WaitMemory + e.WaitRoom
	c.Frames, c.FrameBytes = e.Frames, e.FrameBytes
	c.Runs, c.RunBytes, c.Checkpoints, c.Evictions = e.Runs, e.RunBytes, e.Checkpoints, e.Evictions
	c.Segments, c.Recycled, c.Zeroed, c.ZeroBytes = e.SegmentsMade, e.Recycled, e.Zeroed, e.ZeroBytes
}

// countFrames takes note of how many journal frames are in flight at the end of
// a turn.
func (s *Shard) countFrames() {
	c := &s.Timelines.Counters
	n := s.engine.InFlight()
	c.InFlightMost = max(c.InFlightMost, uint64(n))
	switch n {
	case 0:
	case 1:
		c.TurnsInFlight1++
	default:
		c.TurnsInFlight2++
	}
}

// gauges tell how full this shard's pools are.
func (s *Shard) gauges() {
	n, e, level := s.net.Stats(), s.engine.Gauges(), s.Timelines.Level
	level("connections", n.Conns, 0, s.o.Net.ConnsMax)
	level("network frames", n.RequestsOpen, s.o.Net.RequestsMax-n.RequestsFreeLow, s.o.Net.RequestsMax)
	level("requests", s.requests.inFlight, 0, len(s.requests.all))
	level("long polls", s.fetches.polls.n, 0, len(s.requests.all))
	if s.requests.credit.all > 0 {
		level("partitions in requests", s.requests.credit.all-s.requests.credit.free, 0, s.requests.credit.all)
		level("pin chunks", len(s.fetches.pins.all)-s.fetches.pins.free, 0, len(s.fetches.pins.all))
	}
	if len(s.sessions.all) > 0 {
		level("fetch sessions", s.sessions.n, 0, len(s.sessions.all))
		level("partitions in fetch sessions", len(s.sessions.members)-s.sessions.membersFree, 0, len(s.sessions.members))
	}
	receive := s.o.Net.ReceiveBuffers - s.o.Net.ReceiveBuffers/8
	level("receive buffers", n.BuffersHeld, receive-n.BuffersFreeLow, receive)
	level("receive buffers lent to the kernel", n.BuffersInRing, 0, receive)
	small := s.o.Net.ReceiveBuffers / 8 * 16
	level("small receive blocks", small-n.SmallFree, small-n.SmallLow, small)
	level("pieces attached to answers", n.Attached, 0, s.o.Net.AttachedMax)
	level("reply blocks", s.o.Net.ReplyBlocks-n.ReplyFree, s.o.Net.ReplyBlocks-n.ReplyLow, s.o.Net.ReplyBlocks)
	level("mail bytes", s.mailMem.InUse(), 0, s.o.MailBytes)
	level("log memory slabs", e.Slabs, 0, e.SlabsMax)
	level("log memory slabs pinned by answers", e.SlabsPinned, 0, e.SlabsPinned+s.engine.PinsLeft())
	level("batch index chunks", e.IndexChunks-e.IndexChunksFree, 0, e.IndexChunks)
	level("journal frames in flight", e.Frames, int(s.Timelines.Counters.InFlightMost), e.FramesMax)
	level("journal blocks", e.JournalBlocks, 0, e.JournalBlocksMax)
	level("drains", e.Flushes, 0, e.FlushesMax)
	level("logs that wait for a drain", e.FlushQueue, 0, e.LogsMax)
	level("cold reads", e.DiskReads, 0, e.DiskReadsMax)
	level("spare files", e.Recycled, 0, e.RecycledMax)
	level("logs", e.Logs, 0, e.LogsMax)
}
