package engine

// What retention needs: how large a log's segments get, and which of them may
// go. The rules are the caller's; here is what the log knows.

// SetSegmentBytes bounds the log's segments to n bytes, where that is less than
// the shard's own. One larger batch still finds a place.
func (e *Engine) SetSegmentBytes(s Slot, n int64) { e.logs[s].segmentBytes = n }

func (e *Engine) segmentLimit(l *log) int64 {
	if l.segmentBytes > 0 {
		return min(l.segmentBytes, int64(e.o.SegmentBytes))
	}
	return int64(e.o.SegmentBytes)
}
