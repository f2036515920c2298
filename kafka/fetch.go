package kafka

// FetchVersions are the versions of Fetch that are served.
var FetchVersions = Versions{4, 18}

// FetchWalk parses a Fetch request of one of FetchVersions (FetchRequest.json), in the
// order Begin, for each topic NextTopic and NextPartition, Forgotten and likewise for
// each forgotten topic, End.
type FetchWalk struct {
	walk
	MaxWaitMS    int32
	MinBytes     int32
	MaxBytes     int32
	Committed    bool // isolation level read_committed
	SessionID    int32
	SessionEpoch int32
}

// FetchPartition is one partition of a Fetch request.
type FetchPartition struct {
	Index        int32
	CurrentEpoch int32 // -1: the client has none
	Offset       int64
	MaxBytes     int32
}

// Begin reads up to the topics.
func (w *FetchWalk) Begin(r *Reader, version int16) error {
	*w = FetchWalk{walk: walk{r: r, version: version, flexible: flexible(KeyFetch, version), byID: version >= FetchByID}, SessionEpoch: -1}
	if version < 15 {
		r.int32("replica id") // a tagged field from then on
	}
	w.MaxWaitMS = r.int32("max wait")
	w.MinBytes = r.int32("min bytes")
	w.MaxBytes = r.int32("max bytes")
	w.Committed = r.int8("isolation level") == 1
	if version >= 7 {
		w.SessionID = r.int32("session id")
		w.SessionEpoch = r.int32("session epoch")
	}
	w.topics = r.count(w.flexible, 2, "topics")
	return r.Err()
}

// NextTopic reads the next topic's name.
func (w *FetchWalk) NextTopic() (Topic, error) { return w.topic(16) }

// NextPartition reads the next partition of the current topic.
func (w *FetchWalk) NextPartition() (FetchPartition, error) {
	r := w.r
	p := FetchPartition{Index: r.int32("partition index"), CurrentEpoch: -1}
	if w.version >= 9 {
		p.CurrentEpoch = r.int32("current leader epoch")
	}
	p.Offset = r.int64("fetch offset")
	if w.version >= 12 {
		r.int32("last fetched epoch")
	}
	if w.version >= 5 {
		r.int64("log start offset")
	}
	p.MaxBytes = r.int32("partition max bytes")
	return p, w.partitionEnd()
}

// Forgotten reads, after the last topic, the number of topics with partitions that the
// session is to forget (KIP-227).
func (w *FetchWalk) Forgotten() (int, error) {
	w.topics = 0
	if w.version >= 7 {
		w.topics = w.r.count(w.flexible, 2, "forgotten topics")
	}
	return w.topics, w.r.Err()
}

// NextForgotten reads the next forgotten topic.
func (w *FetchWalk) NextForgotten() (Topic, error) { return w.topic(4) }

// NextForgottenPartition reads the index of the next partition of the current
// forgotten topic.
func (w *FetchWalk) NextForgottenPartition() (int32, error) {
	index := w.r.int32("forgotten partition")
	if w.partitions--; w.partitions == 0 {
		w.r.tags(w.flexible, "forgotten topic's tagged fields")
	}
	return index, w.r.Err()
}

// End reads what follows the forgotten topics: the client's rack.
func (w *FetchWalk) End() error {
	if w.version >= 11 {
		w.r.text(w.flexible, "rack")
	}
	return w.end()
}

// Measure reads a request from its first topic to its end, and returns how many
// partitions it names, without forgotten ones.
func (w *FetchWalk) Measure() (partitions int, err error) {
	for w.topics > 0 {
		topic, err := w.NextTopic()
		if err != nil {
			return 0, err
		}
		for range topic.Partitions {
			if _, err := w.NextPartition(); err != nil {
				return 0, err
			}
		}
		partitions += topic.Partitions
	}
	if _, err := w.Forgotten(); err != nil {
		return 0, err
	}
	for w.topics > 0 {
		topic, err := w.NextForgotten()
		if err != nil {
			return 0, err
		}
		for range topic.Partitions {
			if _, err := w.NextForgottenPartition(); err != nil {
				return 0, err
			}
		}
	}
	return partitions, w.End()
}

// A Fetch response (FetchResponse.json) is written as a head, for each topic a topic
// and for each of its partitions a partition, records and a partition's end, and an
// end. For each PutX there is an XBytes that returns the size of what it writes.

// FetchHeadBytes is the size of what PutFetchHead writes.
func FetchHeadBytes(h *Request, topics int) int {
	n := headBytes(h) + 4 + countBytes(h.Flexible, topics)
	if h.Version >= 7 {
		n += 2 + 4
	}
	return n
}

// PutFetchHead writes the response header, the error of the whole request, the session
// id (0: none) and the number of topics.
func PutFetchHead(b []byte, h *Request, code ErrorCode, session int32, topics int) {
	w := writer{b: b}
	w.head(h)
	w.int32(0) // throttle time
	if h.Version >= 7 {
		w.int16(int16(code))
		w.int32(session)
	}
	w.count(h.Flexible, topics)
	w.done()
}

// FetchTopicBytes is the size of what PutFetchTopic writes.
func FetchTopicBytes(version int16, name, partitions int) int {
	if version >= FetchByID {
		return topicIDBytes(partitions)
	}
	f := flexible(KeyFetch, version)
	return topicBytes(f, name, partitions)
}

// PutFetchTopic writes a topic's name, or from FetchByID on the bytes of its id, and
// its number of partitions.
func PutFetchTopic(b []byte, version int16, name []byte, partitions int) {
	w := writer{b: b}
	if version >= FetchByID {
		w.topicID(name, partitions)
	} else {
		f := flexible(KeyFetch, version)
		w.topic(f, name, partitions)
	}
	w.done()
}

// FetchPartitionBytes is the size of what PutFetchPartition writes before a number of
// bytes of records.
func FetchPartitionBytes(version int16, records int) int {
	f := flexible(KeyFetch, version)
	n := 4 + 2 + 8 + 8 + countBytes(f, 0) + countBytes(f, records)
	if version >= 5 {
		n += 8
	}
	if version >= 11 {
		n += 4
	}
	return n
}

// PutFetchPartition writes a partition up to its records. There are no transactions, so
// the last stable offset is the high watermark and none is aborted.
func PutFetchPartition(b []byte, version int16, index int32, code ErrorCode, high, start int64, records int) {
	w := writer{b: b}
	f := flexible(KeyFetch, version)
	w.int32(index)
	w.int16(int16(code))
	w.int64(high)
	w.int64(high)
	if version >= 5 {
		w.int64(start)
	}
	w.count(f, 0) // aborted transactions
	if version >= 11 {
		w.int32(-1) // preferred read replica
	}
	w.count(f, records)
	w.done()
}

// FetchPartitionEndBytes is the size of what PutFetchPartitionEnd writes.
func FetchPartitionEndBytes(version int16, last bool) int {
	f := flexible(KeyFetch, version)
	n := tagBytes(f)
	if last {
		n += tagBytes(f)
	}
	return n
}

// PutFetchPartitionEnd writes what follows a partition's records, and what follows the
// topic's last partition.
func PutFetchPartitionEnd(b []byte) { clear(b) }

// FetchEndBytes is the size of what PutFetchEnd writes.
func FetchEndBytes(version int16) int { return tagBytes(flexible(KeyFetch, version)) }

// PutFetchEnd writes the end of the response.
func PutFetchEnd(b []byte) { clear(b) }
