package lives

import (
	"fmt"
	"math"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Readers that ask by time: for the first record that is not older than some time, and for the one with the largest.

// largestTime is asked for by this timestamp (KIP-734).
const largestTime = -3

// timeAsk is a question by time, and what was known of the partition when it was asked.
type timeAsk struct {
	book  *partBook
	time  int64
	start int64    // it started here or later
	at    []uint64 // as partBook.at
}

// timeAt is the timestamp of the record at an offset that is known.
func (s *brokerSim) timeAt(p *partBook, offset int64) int64 {
	serial := p.at[offset]
	return s.sent[serial].times[offset-p.base[serial]]
}

// age gives a batch records of some age, and a claim that may be untrue.
func (s *brokerSim) age(b *sentBatch, size int) {
	claim := int64(0)
	switch kind := s.rng.IntN(5); kind {
	case 0: // the truth
		claim = slices.Max(b.times)
	case 1: // as Sarama before 1.45.1
		claim = -1
	case 2: // as librdkafka without timestamps
		for i := range b.times {
			b.times[i] = -1
		}
	default: // from long ago, all or every other
		for i := range b.times {
			b.times[i] = int64(b.serial) + int64(i*i%7)
			if kind == 4 && i%2 == 1 {
				b.times[i] = -1
			}
		}
		claim = slices.Max(b.times)
	}
	b.stored = timedBatch(b.serial, b.times, size, -1, -1, -1)
	b.bytes = claiming(b.stored, claim)
}

// mayStart is the last offset at which a partition may start now: where DeleteRecords was asked to put it, or behind that as far as nothing is known that
// retention may not remove.
func (s *brokerSim) mayStart(p *partBook) int64 {
	if !p.topic.ages {
		return p.startTo
	}
	for offset := p.startTo; offset < p.known(); offset++ {
		if serial := p.at[offset]; serial != 0 && (slices.Min(s.sent[serial].times) < 0 || slices.Max(s.sent[serial].times) > serialBase/2) {
			return offset
		}
	}
	return math.MaxInt64
}

// askTime asks for a time that a record has, or nearly, or for the largest.
func (s *brokerSim) askTime(c *conn, p *partBook) {
	a := &timeAsk{book: p, time: largestTime, start: p.start, at: slices.Clone(p.at)}
	if n := s.rng.Int64N(p.known() + 1); n < p.known() && p.at[n] != 0 && s.rng.IntN(4) > 0 {
		a.time = max(s.timeAt(p, n)+int64(s.rng.IntN(3))-1, 0)
	}
	req := kmsg.NewPtrListOffsetsRequest()
	req.Version, req.ReplicaID = int16(7+s.rng.IntN(5)), -1
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = p.topic.name
	q := kmsg.NewListOffsetsRequestTopicPartition()
	q.Partition, q.Timestamp, q.CurrentLeaderEpoch = p.index, a.time, -1
	t.Partitions = append(t.Partitions, q)
	req.Topics = append(req.Topics, t)
	c.ask(req, owed{note: a})
}

// timeFound holds an answer against what was known when it was asked for: no record that was known then, and is not deleted, would have been a better one.
func (s *brokerSim) timeFound(c *conn, a *timeAsk, q *kmsg.ListOffsetsResponseTopicPartition) error {
	p, what := a.book, fmt.Sprintf("%s/%d, asked for time %d", a.book.topic.name, a.book.index, a.time)
	switch {
	case q.ErrorCode == 0:
	case (q.ErrorCode == codeUnknownTopic || q.ErrorCode == codeCorrupt) && p.topic.fate != open, q.ErrorCode == codeNotLeader && (c.node != p.node || s.stopping):
		return nil
	default:
		return fmt.Errorf("%s: error %d", what, q.ErrorCode)
	}
	s.reads++
	if q.Offset >= 0 {
		if q.Offset < a.start {
			return fmt.Errorf("RETURNED: %s: offset %d, its records before %d were deleted", what, q.Offset, a.start)
		}
		if q.Timestamp < a.time {
			return fmt.Errorf("%s: offset %d has time %d", what, q.Offset, q.Timestamp)
		}
		if q.Offset < p.known() && p.at[q.Offset] != 0 && s.timeAt(p, q.Offset) != q.Timestamp {
			return fmt.Errorf("CHANGED: %s: offset %d has time %d, it was sent with %d", what, q.Offset, q.Timestamp, s.timeAt(p, q.Offset))
		}
	}
	for offset := s.mayStart(p); offset < int64(len(a.at)); offset++ {
		if a.at[offset] == 0 || p.at[offset] == 0 {
			continue
		}
		time := s.timeAt(p, offset)
		better := time >= a.time && (q.Offset < 0 || offset < q.Offset)
		if a.time == largestTime {
			better = time >= 0 && (time > q.Timestamp || time == q.Timestamp && offset < q.Offset)
		}
		if better {
			return fmt.Errorf("MISSED: %s: offset %d with time %d was found, and offset %d has %d (the start was at %d to %d)", what, q.Offset, q.Timestamp, offset, time, a.start, s.mayStart(p))
		}
	}
	return nil
}

// auditTimes asks by time where nothing is in memory.
func (s *brokerSim) auditTimes(p *partBook) error {
	for tries := 0; ; tries++ {
		c, err := s.to(p.node)
		if err != nil {
			return err
		}
		for range 2 {
			s.askTime(c, p)
		}
		for n := 0; n < 5000 && len(c.owed) > 0 && !c.c.Closed; n++ {
			if err := s.rest(); err != nil {
				return err
			}
		}
		if !c.c.Closed && len(c.owed) == 0 {
			return nil
		}
		if !c.c.Closed || tries > 100 {
			return fmt.Errorf("STALLED: no answer by time of %s/%d", p.topic.name, p.index)
		}
	}
}
