package kafka

// The versions of ListOffsets and OffsetForLeaderEpoch that are served.
var (
	ListOffsetsVersions = Versions{1, 11}
	EpochVersions       = Versions{2, 4}
)

// ListOffsetsWalk parses a ListOffsets request (ListOffsetsRequest.json). Versions 8, 9
// and 11 add special timestamps and no field; version 10 adds a timeout after the
// topics.
type ListOffsetsWalk struct{ walk }

// ListOffsetsPartition is one partition of a ListOffsets request.
type ListOffsetsPartition struct {
	Index        int32
	CurrentEpoch int32 // -1: the client has none
	Timestamp    int64 // ms, or a special one, below 0
}

// Timestamps of ListOffsets with a meaning of their own (KIP-79, KIP-734, KIP-405,
// KIP-1005, KIP-1023).
const (
	LatestTimestamp                = -1
	EarliestTimestamp              = -2
	MaxTimestamp                   = -3
	EarliestLocalTimestamp         = -4
	LatestTieredTimestamp          = -5
	EarliestPendingUploadTimestamp = -6
)

// TimestampMeansSomething says whether a timestamp is a time, or one of those with a
// meaning of their own in that version of ListOffsets.
// Source: Kafka's ReplicaManager.isListOffsetsTimestampUnsupported.
func TimestampMeansSomething(version int16, timestamp int64) bool {
	switch timestamp {
	case LatestTimestamp, EarliestTimestamp:
		return version >= 1
	case MaxTimestamp:
		return version >= 7
	case EarliestLocalTimestamp:
		return version >= 8
	case LatestTieredTimestamp:
		return version >= 9
	case EarliestPendingUploadTimestamp:
		return version >= 11
	}
	return timestamp >= 0
}

// Begin reads up to the topics.
func (w *ListOffsetsWalk) Begin(r *Reader, version int16) error {
	*w = ListOffsetsWalk{walk{r: r, version: version, flexible: flexible(KeyListOffsets, version)}}
	r.int32("replica id")
	if version >= 2 {
		r.int8("isolation level")
	}
	w.topics = r.count(w.flexible, 2, "topics")
	return r.Err()
}

// NextTopic reads the next topic's name.
func (w *ListOffsetsWalk) NextTopic() (Topic, error) { return w.topic(12) }

// NextPartition reads the next partition of the current topic.
func (w *ListOffsetsWalk) NextPartition() (ListOffsetsPartition, error) {
	p := ListOffsetsPartition{Index: w.r.int32("partition index"), CurrentEpoch: -1}
	if w.version >= 4 {
		p.CurrentEpoch = w.r.int32("current leader epoch")
	}
	p.Timestamp = w.r.int64("timestamp")
	return p, w.partitionEnd()
}

// End reads what follows the last topic.
func (w *ListOffsetsWalk) End() error {
	if w.version >= 10 {
		w.r.int32("timeout")
	}
	return w.end()
}

// Measure reads a request from its first topic to its end, and returns how many
// partitions it names and the size of its reply.
func (w *ListOffsetsWalk) Measure(header *Request) (partitions, replyBytes int, err error) {
	replyBytes = ListOffsetsHeadBytes(header, w.topics) + ListOffsetsEndBytes(w.version)
	for w.topics > 0 {
		topic, err := w.NextTopic()
		if err != nil {
			return 0, 0, err
		}
		replyBytes += ListOffsetsTopicBytes(w.version, len(topic.Name), topic.Partitions)
		for left := topic.Partitions - 1; left >= 0; left-- {
			if _, err := w.NextPartition(); err != nil {
				return 0, 0, err
			}
			partitions++
			replyBytes += ListOffsetsPartitionBytes(w.version, left == 0)
		}
	}
	return partitions, replyBytes, w.End()
}

// ListOffsetsHeadBytes is the size of what PutListOffsetsHead writes.
func ListOffsetsHeadBytes(h *Request, topics int) int {
	n := headBytes(h) + countBytes(h.Flexible, topics)
	if h.Version >= 2 {
		n += 4
	}
	return n
}

// PutListOffsetsHead writes the response header and the number of topics
// (ListOffsetsResponse.json).
func PutListOffsetsHead(b []byte, h *Request, topics int) {
	w := writer{b: b}
	w.head(h)
	if h.Version >= 2 {
		w.int32(0) // throttle time
	}
	w.count(h.Flexible, topics)
	w.done()
}

// ListOffsetsTopicBytes is the size of what PutListOffsetsTopic writes.
func ListOffsetsTopicBytes(version int16, name, partitions int) int {
	f := flexible(KeyListOffsets, version)
	return topicBytes(f, name, partitions)
}

// PutListOffsetsTopic writes a topic's name and its number of partitions.
func PutListOffsetsTopic(b []byte, version int16, name []byte, partitions int) {
	w := writer{b: b}
	f := flexible(KeyListOffsets, version)
	w.topic(f, name, partitions)
	w.done()
}

// ListOffsetsPartitionBytes is the size of what PutListOffsetsPartition writes.
func ListOffsetsPartitionBytes(version int16, last bool) int {
	f := flexible(KeyListOffsets, version)
	n := 4 + 2 + 8 + 8 + tagBytes(f)
	if version >= 4 {
		n += 4
	}
	if last {
		n += tagBytes(f)
	}
	return n
}

// PutListOffsetsPartition writes one partition's result; -1 means none.
func PutListOffsetsPartition(b []byte, version int16, last bool, index int32, code ErrorCode, timestamp, offset int64, epoch int32) {
	w := writer{b: b}
	f := flexible(KeyListOffsets, version)
	w.int32(index)
	w.int16(int16(code))
	w.int64(timestamp)
	w.int64(offset)
	if version >= 4 {
		w.int32(epoch)
	}
	w.tags(f)
	if last {
		w.tags(f)
	}
	w.done()
}

// ListOffsetsEndBytes is the size of what PutListOffsetsEnd writes.
func ListOffsetsEndBytes(version int16) int { return tagBytes(flexible(KeyListOffsets, version)) }

// PutListOffsetsEnd writes the end of the response.
func PutListOffsetsEnd(b []byte) { clear(b) }

// EpochWalk parses an OffsetForLeaderEpoch request (OffsetForLeaderEpochRequest.json).
type EpochWalk struct{ walk }

// EpochPartition is one partition of an OffsetForLeaderEpoch request.
type EpochPartition struct {
	Index        int32
	CurrentEpoch int32 // -1: the client has none
	Epoch        int32 // the epoch whose end offset the client wants
}

// Begin reads up to the topics.
func (w *EpochWalk) Begin(r *Reader, version int16) error {
	*w = EpochWalk{walk{r: r, version: version, flexible: flexible(KeyOffsetForLeaderEpoch, version)}}
	if version >= 3 {
		r.int32("replica id")
	}
	w.topics = r.count(w.flexible, 2, "topics")
	return r.Err()
}

// NextTopic reads the next topic's name.
func (w *EpochWalk) NextTopic() (Topic, error) { return w.topic(12) }

// NextPartition reads the next partition of the current topic.
func (w *EpochWalk) NextPartition() (EpochPartition, error) {
	p := EpochPartition{Index: w.r.int32("partition index"), CurrentEpoch: w.r.int32("current leader epoch"), Epoch: w.r.int32("leader epoch")}
	return p, w.partitionEnd()
}

// End reads what follows the last topic.
func (w *EpochWalk) End() error { return w.end() }

// Measure reads a request from its first topic to its end, and returns how many
// partitions it names and the size of its reply.
func (w *EpochWalk) Measure(header *Request) (partitions, replyBytes int, err error) {
	replyBytes = EpochHeadBytes(header, w.topics) + EpochEndBytes(w.version)
	for w.topics > 0 {
		topic, err := w.NextTopic()
		if err != nil {
			return 0, 0, err
		}
		replyBytes += EpochTopicBytes(w.version, len(topic.Name), topic.Partitions)
		for left := topic.Partitions - 1; left >= 0; left-- {
			if _, err := w.NextPartition(); err != nil {
				return 0, 0, err
			}
			partitions++
			replyBytes += EpochPartitionBytes(w.version, left == 0)
		}
	}
	return partitions, replyBytes, w.End()
}

// EpochHeadBytes is the size of what PutEpochHead writes.
func EpochHeadBytes(h *Request, topics int) int {
	return headBytes(h) + 4 + countBytes(h.Flexible, topics)
}

// PutEpochHead writes the response header and the number of topics
// (OffsetForLeaderEpochResponse.json).
func PutEpochHead(b []byte, h *Request, topics int) {
	w := writer{b: b}
	w.head(h)
	w.int32(0) // throttle time
	w.count(h.Flexible, topics)
	w.done()
}

// EpochTopicBytes is the size of what PutEpochTopic writes.
func EpochTopicBytes(version int16, name, partitions int) int {
	f := flexible(KeyOffsetForLeaderEpoch, version)
	return topicBytes(f, name, partitions)
}

// PutEpochTopic writes a topic's name and its number of partitions.
func PutEpochTopic(b []byte, version int16, name []byte, partitions int) {
	w := writer{b: b}
	f := flexible(KeyOffsetForLeaderEpoch, version)
	w.topic(f, name, partitions)
	w.done()
}

// EpochPartitionBytes is the size of what PutEpochPartition writes.
func EpochPartitionBytes(version int16, last bool) int {
	f := flexible(KeyOffsetForLeaderEpoch, version)
	n := 2 + 4 + 4 + 8 + tagBytes(f)
	if last {
		n += tagBytes(f)
	}
	return n
}

// PutEpochPartition writes one partition's result; -1 means none.
func PutEpochPartition(b []byte, version int16, last bool, index int32, code ErrorCode, epoch int32, end int64) {
	w := writer{b: b}
	f := flexible(KeyOffsetForLeaderEpoch, version)
	w.int16(int16(code))
	w.int32(index)
	w.int32(epoch)
	w.int64(end)
	w.tags(f)
	if last {
		w.tags(f)
	}
	w.done()
}

// EpochEndBytes is the size of what PutEpochEnd writes.
func EpochEndBytes(version int16) int { return tagBytes(flexible(KeyOffsetForLeaderEpoch, version)) }

// PutEpochEnd writes the end of the response.
func PutEpochEnd(b []byte) { clear(b) }
