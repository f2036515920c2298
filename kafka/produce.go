package kafka

// TopicNameMax is the length of the longest topic name in a request, in bytes. No topic
// has a name of more than 249, but unknown names are repeated in replies.
const TopicNameMax = 1024

// From these versions on, requests and responses name topics only by their ids
// (KIP-516).
const (
	ProduceByID = 13
	FetchByID   = 13
)

// ProduceVersions are the versions of Produce that are advertised. Those before
// ProduceMin are refused; they are advertised for librdkafka before 2.11.1, which does
// not compress for a broker without version 0 (KAFKA-18659).
var ProduceVersions = Versions{0, 13}

// ProduceMin is the lowest version of Produce that is served.
const ProduceMin = 3

// TopicIDBytes is the size of a topic's id.
const TopicIDBytes = 16

// Topic is a topic as a request names it: by name, or by the bytes of its id.
type Topic struct {
	Name       []byte // a view, valid until the Reader is used again
	Span       Span   // the name's place in the request
	Partitions int
}

// walk is the common part of the parsers of requests with topics and partitions. They
// are plain values with a pointer to their Reader.
type walk struct {
	r          *Reader
	version    int16
	flexible   bool
	byID       bool
	topics     int // not read yet
	partitions int // of the current topic, not read yet
}

// Topics returns how many topics are not read yet.
func (w *walk) Topics() int { return w.topics }

// topic reads a topic's name or id, and the number of its partitions, which have at
// least size bytes each. The tagged fields of the topic before it were read with its
// last partition.
func (w *walk) topic(size int) (Topic, error) {
	w.topics--
	r := w.r
	n := TopicIDBytes
	if !w.byID {
		n = r.length(w.flexible, true, "topic name")
	}
	t := Topic{Span: Span{r.Offset(), n}}
	if n > TopicNameMax {
		r.fail("topic name")
	}
	t.Name = r.take(n, "topic name")
	t.Partitions = r.count(w.flexible, size, "partitions")
	w.partitions = t.Partitions
	if t.Partitions == 0 {
		r.tags(w.flexible, "topic's tagged fields")
	}
	return t, r.Err()
}

// partitionEnd reads the tagged fields after a partition, and those of the topic after
// its last partition.
func (w *walk) partitionEnd() error {
	w.r.tags(w.flexible, "partition's tagged fields")
	w.partitions--
	if w.partitions == 0 {
		w.r.tags(w.flexible, "topic's tagged fields")
	}
	return w.r.Err()
}

// end reads the tagged fields after the last topic.
func (w *walk) end() error {
	w.r.tags(w.flexible, "request's tagged fields")
	return w.r.Err()
}

// ProduceWalk parses a Produce request of one of ProduceVersions (ProduceRequest.json).
// Versions 0 to 2 do not have record batches.
type ProduceWalk struct {
	walk
	Acks          int16
	TimeoutMS     int32
	Transactional bool // the request has a transactional id
}

// ProducePartition is one partition of a Produce request.
type ProducePartition struct {
	Index   int32
	Records Span // the record batch's place in the request
	Null    bool
}

// Begin reads up to the topics.
func (w *ProduceWalk) Begin(r *Reader, version int16) error {
	*w = ProduceWalk{}
	w.r, w.version, w.flexible, w.byID = r, version, flexible(KeyProduce, version), version >= ProduceByID
	if version >= 3 {
		w.Transactional = r.nullable(w.flexible, "transactional id") != nil
	}
	w.Acks = r.int16("acks")
	w.TimeoutMS = r.int32("timeout")
	w.topics = r.count(w.flexible, 2, "topics")
	return r.Err()
}

// NextTopic reads the next topic's name.
func (w *ProduceWalk) NextTopic() (Topic, error) { return w.topic(5) }

// NextPartition reads the next partition of the current topic.
func (w *ProduceWalk) NextPartition() (ProducePartition, error) {
	p := ProducePartition{Index: w.r.int32("partition index")}
	n := w.r.length(w.flexible, false, "records")
	if n < 0 {
		p.Null = n == -1
		if n < -1 {
			w.r.fail("records")
		}
		n = 0
	}
	p.Records = Span{w.r.Offset(), n}
	w.r.skip(n, "records")
	return p, w.partitionEnd()
}

// End reads what follows the last topic.
func (w *ProduceWalk) End() error { return w.end() }

// Measure reads a request from its first topic to its end, and returns how many
// partitions it names and the size of its reply.
func (w *ProduceWalk) Measure(header *Request) (partitions, replyBytes int, err error) {
	replyBytes = ProduceHeadBytes(header, w.topics) + ProduceEndBytes(w.version)
	for w.topics > 0 {
		topic, err := w.NextTopic()
		if err != nil {
			return 0, 0, err
		}
		replyBytes += ProduceTopicBytes(w.version, len(topic.Name), topic.Partitions)
		for left := topic.Partitions - 1; left >= 0; left-- {
			if _, err := w.NextPartition(); err != nil {
				return 0, 0, err
			}
			partitions++
			replyBytes += ProducePartitionBytes(w.version, left == 0)
		}
	}
	return partitions, replyBytes, w.End()
}

// A Produce response (ProduceResponse.json) is written as a head, for each topic a topic
// and for each of its partitions a partition, and an end. A topic's tagged fields follow
// its last partition, so PutProducePartition is told which one that is.

// ProduceHeadBytes is the size of what PutProduceHead writes.
func ProduceHeadBytes(h *Request, topics int) int {
	return headBytes(h) + countBytes(h.Flexible, topics)
}

// PutProduceHead writes the response header and the number of topics.
func PutProduceHead(b []byte, h *Request, topics int) {
	w := writer{b: b}
	w.head(h)
	w.count(h.Flexible, topics)
	w.done()
}

// ProduceTopicBytes is the size of what PutProduceTopic writes.
func ProduceTopicBytes(version int16, name, partitions int) int {
	if version >= ProduceByID {
		return topicIDBytes(partitions)
	}
	return topicBytes(flexible(KeyProduce, version), name, partitions)
}

// PutProduceTopic writes a topic's name, or from ProduceByID on the bytes of its id, and
// its number of partitions.
func PutProduceTopic(b []byte, version int16, name []byte, partitions int) {
	w := writer{b: b}
	if version >= ProduceByID {
		w.topicID(name, partitions)
	} else {
		w.topic(flexible(KeyProduce, version), name, partitions)
	}
	w.done()
}

// ProducePartitionBytes is the size of what PutProducePartition writes.
func ProducePartitionBytes(version int16, last bool) int {
	n := 4 + 2 + 8
	if version >= 2 {
		n += 8
	}
	if version >= 5 {
		n += 8
	}
	if version >= 8 {
		if flexible(KeyProduce, version) {
			n += 1 + 1 + 1 // record errors, error message, tags
		} else {
			n += 4 + 2
		}
	}
	if last {
		n += tagBytes(flexible(KeyProduce, version))
	}
	return n
}

// PutProducePartition writes one partition's result. last: it is its topic's last one.
// stamp: the broker's timestamp of the records, -1 if they keep their own.
func PutProducePartition(b []byte, version int16, last bool, index int32, code ErrorCode, base, stamp, start int64) {
	w := writer{b: b}
	w.int32(index)
	w.int16(int16(code))
	w.int64(base)
	if version >= 2 {
		w.int64(stamp)
	}
	if version >= 5 {
		w.int64(start)
	}
	switch {
	case flexible(KeyProduce, version):
		w.uvarint(1) // record errors: none
		w.uvarint(0) // error message: null
		w.tags(true)
	case version >= 8:
		w.int32(0)
		w.int16(-1)
	}
	if last {
		w.tags(flexible(KeyProduce, version))
	}
	w.done()
}

// ProduceFaults is the first version of Produce whose response says in words why a batch
// is refused, and for which record (KIP-467).
const ProduceFaults = 8

// ProduceFault is why a batch is refused.
type ProduceFault struct {
	Message []byte
	Record  int32 // the index of the record at fault; -1: the whole batch
}

// ProduceFaultBytes is the size of what PutProduceFault writes.
func ProduceFaultBytes(version int16, last bool, fault *ProduceFault) int {
	n := ProducePartitionBytes(version, last) + len(fault.Message)
	if flexible(KeyProduce, version) {
		n += uvarintBytes(uint32(len(fault.Message)+1)) - 1
		if fault.Record >= 0 {
			n += 4 + 1 + 1 // its index, no message of its own, no tagged fields
		}
	} else if fault.Record >= 0 {
		n += 4 + 2
	}
	return n
}

// PutProduceFault writes one partition's result where its batch is refused, of
// ProduceFaults or later. Clients take the partition's message for the record's too.
func PutProduceFault(b []byte, version int16, last bool, index int32, code ErrorCode, fault *ProduceFault) {
	w, flexible := writer{b: b}, flexible(KeyProduce, version)
	w.int32(index)
	w.int16(int16(code))
	for range 3 { // base offset, append time, log start
		w.int64(-1)
	}
	records := 0
	if fault.Record >= 0 {
		records = 1
	}
	w.count(flexible, records)
	for range records {
		w.int32(fault.Record)
		if flexible {
			w.uvarint(0)
		} else {
			w.int16(-1)
		}
		w.tags(flexible)
	}
	w.name(flexible, fault.Message)
	w.tags(flexible)
	if last {
		w.tags(flexible)
	}
	w.done()
}

// ProduceEndBytes is the size of what PutProduceEnd writes.
func ProduceEndBytes(version int16) int {
	n := tagBytes(flexible(KeyProduce, version))
	if version >= 1 {
		n += 4
	}
	return n
}

// PutProduceEnd writes the end of the response.
func PutProduceEnd(b []byte, version int16) {
	w := writer{b: b}
	if version >= 1 {
		w.int32(0) // throttle time
	}
	w.tags(flexible(KeyProduce, version))
	w.done()
}
