package kafka

// TimeSearch looks through records for the first one at offset From or later that is
// not older than Time or, with Largest, for the first of those with the largest time.
// A record without a time (-1) is never found: Time is not negative.
type TimeSearch struct {
	Time    int64 // ms
	From    int64
	Largest bool

	Found       bool
	FoundTime   int64
	FoundOffset int64
}

// Record looks at the next record. True: the search is over.
func (s *TimeSearch) Record(time, offset int64) (over bool) {
	if offset < s.From || time < s.Time || s.Found && time <= s.FoundTime {
		return false
	}
	s.Found, s.FoundTime, s.FoundOffset = true, time, offset
	return !s.Largest
}

// Batch looks through a stored batch. It reports whether it could: a compressed batch,
// whose records do not all have the broker's time, has to be decompressed first.
func (s *TimeSearch) Batch(b []byte) bool {
	header, base := ParseBatchHeader(b), BaseOffset(b)
	if header.AppendTime() {
		if first := max(base, s.From); first <= base+int64(header.LastOffsetDelta) {
			s.Record(header.MaxTime, first)
		}
		return true
	}
	if header.Codec() != 0 {
		return false
	}
	for it := Records(b); ; {
		record, ok := it.Next()
		if !ok || s.Record(record.Time, base+record.Delta) {
			return true
		}
	}
}

// Undecompressed is the answer where a compressed batch may hold what is sought and
// cannot be decompressed: its first record at offset From or later, with the time of the
// batch's first, which is at most a batch too early.
func (s *TimeSearch) Undecompressed(b []byte) {
	s.Found, s.FoundTime, s.FoundOffset = true, ParseBatchHeader(b).BaseTime, max(BaseOffset(b), s.From)
}
