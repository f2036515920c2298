package lives

import (
	"fmt"
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
func (p *partBook) timeAt(offset int64) int64 {
	serial := p.at[offset]
	return timeOf(serial, int(offset-p.base[serial]))
}

// askTime asks for a time that a record has, or nearly, or for the largest.
func (s *brokerSim) askTime(c *conn, p *partBook) {
	a := &timeAsk{book: p, time: largestTime, start: p.start, at: slices.Clone(p.at)}
	if n := s.rng.Int64N(p.known() + 1); n < p.known() && p.at[n] != 0 && s.rng.IntN(4) > 0 {
		a.time = p.timeAt(n) + int64(s.rng.IntN(3)) - 1
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
		if q.Offset < p.known() && p.at[q.Offset] != 0 && p.timeAt(q.Offset) != q.Timestamp {
			return fmt.Errorf("CHANGED: %s: offset %d has time %d, it was sent with %d", what, q.Offset, q.Timestamp, p.timeAt(q.Offset))
		}
	}
	for offset := p.startTo; offset < int64(len(a.at)); offset++ {
		if a.at[offset] == 0 || p.at[offset] == 0 {
			continue
		}
		time := p.timeAt(offset)
		better := time >= a.time && (q.Offset < 0 || offset < q.Offset)
		if a.time == largestTime {
			better = time > q.Timestamp || time == q.Timestamp && offset < q.Offset
		}
		if better {
			return fmt.Errorf("MISSED: %s: offset %d with time %d was found, and offset %d has %d (the start was at %d to %d)", what, q.Offset, q.Timestamp, offset, time, a.start, p.startTo)
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
