package shard

// counters copies the counters of netring and the engine into this shard's.
func (s *Shard) counters() {
	counters, net, stats := &s.Timelines.Counters, s.net.Stats(), s.engine.Stats()
	counters.Connections, counters.ConnectionsRefused = net.Accepted, net.Refused+net.RefusedPerAddress
	counters.Sends, counters.SentBytes, counters.RepliesGathered = net.SendOps, net.SentBytes, net.Gathered
	counters.NoBuffers, counters.AdmissionWaits = net.NoBuffers, net.Waited
	counters.TimedOut = net.ProgressTimeouts + net.SendTimeouts + net.IdleCloses
	counters.ProduceWaits = stats.WaitMemory + stats.WaitRoom
	counters.Frames, counters.FrameBytes = stats.Frames, stats.FrameBytes
	counters.Runs, counters.RunBytes = stats.Runs, stats.RunBytes
	counters.Checkpoints, counters.Evictions = stats.Checkpoints, stats.Evictions
	counters.Segments, counters.Recycled = stats.SegmentsMade, stats.Recycled
	counters.Zeroed, counters.ZeroBytes = stats.Zeroed, stats.ZeroBytes
	counters.NoSpace, counters.NoFile = stats.NoSpace, stats.NoFile
}

// countFrames counts how many journal frames are in flight at the end of a turn.
func (s *Shard) countFrames() {
	counters := &s.Timelines.Counters
	n := s.engine.InFlight()
	counters.InFlightMost = max(counters.InFlightMost, uint64(n))
	switch n {
	case 0:
	case 1:
		counters.TurnsInFlight1++
	default:
		counters.TurnsInFlight2++
	}
}

// gauges records how full this shard's pools are.
func (s *Shard) gauges() {
	net, log, level := s.net.Stats(), s.engine.Gauges(), s.Timelines.Gauge
	level("connections", net.Conns, 0, s.o.Net.ConnsMax)
	level("network frames", net.RequestsOpen, s.o.Net.RequestsMax-net.RequestsFreeLow, s.o.Net.RequestsMax)
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
	level("receive buffers", net.BuffersHeld, receive-net.BuffersFreeLow, receive)
	level("receive buffers lent to the kernel", net.BuffersInRing, 0, receive)
	small := s.o.Net.ReceiveBuffers / 8 * 16
	level("small receive blocks", small-net.SmallFree, small-net.SmallLow, small)
	level("pieces attached to answers", net.Attached, 0, s.o.Net.AttachedMax)
	level("reply blocks", s.o.Net.ReplyBlocks-net.ReplyFree, s.o.Net.ReplyBlocks-net.ReplyLow, s.o.Net.ReplyBlocks)
	level("mail bytes", s.mailMem.InUse(), 0, s.o.MailBytes)
	level("log memory slabs", log.Slabs, 0, log.SlabsMax)
	level("log memory slabs pinned by answers", log.SlabsPinned, 0, log.SlabsPinned+s.engine.PinsLeft())
	level("batch index chunks", log.IndexChunks-log.IndexChunksFree, 0, log.IndexChunks)
	level("journal frames in flight", log.Frames, int(s.Timelines.Counters.InFlightMost), log.FramesMax)
	level("journal blocks", log.JournalBlocks, 0, log.JournalBlocksMax)
	level("drains", log.Flushes, 0, log.FlushesMax)
	level("logs that wait for a drain", log.FlushQueue, 0, log.LogsMax)
	level("cold reads", log.DiskReads, 0, log.DiskReadsMax)
	level("spare files", log.Recycled, 0, log.RecycledMax)
	level("logs", log.Logs, 0, log.LogsMax)
	short := 0
	if _, active := s.engine.Shortage(); active {
		short = 1
	}
	level("short of room", short, 0, 1)
	level("logs that have lost records", log.Lossy, 0, log.LogsMax)
	level("ranges of lost records", log.Holes, 0, log.HolesMax)
	if s.control != nil {
		s.control.Gauges(level)
	}
}
