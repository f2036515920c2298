package lives

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/engine/format"
)

// epochRead records the leader epoch of a batch that was read. Batches of this life have this life's epoch.
func (s *brokerSim) epochRead(p *partBook, base, end int64, epoch int32) error {
	if base >= p.lifeFrom && epoch != s.epoch {
		return fmt.Errorf("EPOCH: %s/%d at %d: a batch of this life has leader epoch %d, the partition has %d", p.topic.name, p.index, base, epoch, s.epoch)
	}
	if base > p.epochsTo || end <= p.epochsTo {
		return nil
	}
	if n := len(p.epochs); n == 0 || p.epochs[n-1].Epoch < epoch {
		p.epochs = append(p.epochs, format.EpochStart{Epoch: epoch, Start: base})
	} else if p.epochs[n-1].Epoch > epoch {
		return fmt.Errorf("EPOCH: %s/%d at %d: a batch of leader epoch %d, after one of %d", p.topic.name, p.index, base, epoch, p.epochs[n-1].Epoch)
	}
	p.epochsTo = end
	return nil
}

// auditEpochs checks the leader epochs of a partition all of which was just read.
func (s *brokerSim) auditEpochs(p *partBook) error {
	p.lifeFrom = p.next
	first := s.epoch
	if len(p.epochs) > 0 {
		first = p.epochs[0].Epoch
	}
	if p.startEpoch != -2 && p.startEpoch != first {
		return fmt.Errorf("EPOCH: %s/%d starts at %d with leader epoch %d, it was said to have %d", p.topic.name, p.index, p.start, first, p.startEpoch)
	}
	for tries := 0; ; tries++ {
		c, err := s.askEpochs(p)
		if err != nil {
			return err
		}
		for n := 0; n < 5000 && len(c.owed) > 0 && !c.c.Closed; n++ {
			if err := s.rest(); err != nil {
				return err
			}
		}
		if len(c.owed) == 0 && !c.c.Closed {
			return nil
		}
		if !c.c.Closed || tries > 100 {
			return fmt.Errorf("STALLED: no answer where the leader epochs of %s/%d end", p.topic.name, p.index)
		}
	}
}

// askEpochs asks where each leader epoch of a partition ends, and those that there were never.
func (s *brokerSim) askEpochs(p *partBook) (*conn, error) {
	c, err := s.to(p.node)
	if err != nil {
		return nil, err
	}
	req := kmsg.NewPtrOffsetForLeaderEpochRequest()
	req.Version, req.ReplicaID = int16(2+s.rng.IntN(3)), -1
	for asked := int32(-1); asked <= s.epoch+1; asked++ {
		t := kmsg.NewOffsetForLeaderEpochRequestTopic()
		t.Topic = p.topic.name
		q := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
		q.Partition, q.CurrentLeaderEpoch, q.LeaderEpoch = p.index, -1, asked
		t.Partitions = append(t.Partitions, q)
		req.Topics = append(req.Topics, t)
	}
	c.ask(req, owed{note: &epochAsk{p, p.high}, start: p.start})
	return c, nil
}

// epochAsk is what was known of a partition when the request was sent.
type epochAsk struct {
	part *partBook
	high int64 // high watermark
}

// epochsTold compares the ends of leader epochs with what was read. While DeleteRecords is under way, the answer may be that of the old start, of the
// new one, or between the two.
func (s *brokerSim) epochsTold(c *conn, k owed, r *kmsg.OffsetForLeaderEpochResponse) error {
	ask := k.note.(*epochAsk)
	p := ask.part
	req := k.req.(*kmsg.OffsetForLeaderEpochRequest)
	if len(r.Topics) != len(req.Topics) {
		return fmt.Errorf("%d topics in a response, %d were asked", len(r.Topics), len(req.Topics))
	}
	for i := range r.Topics {
		q, asked := &r.Topics[i].Partitions[0], req.Topics[i].Partitions[0].LeaderEpoch
		switch {
		case q.ErrorCode == codeUnknownTopic && p.topic.fate != open, q.ErrorCode == codeNotLeader && c.node != p.node:
			return nil
		case q.ErrorCode != 0:
			return fmt.Errorf("the end of leader epoch %d of %s/%d: error %d", asked, p.topic.name, p.index, q.ErrorCode)
		case asked == s.epoch:
			if q.LeaderEpoch != asked || q.EndOffset < ask.high {
				return fmt.Errorf("EPOCH: %s/%d: the present leader epoch %d: %d ends at %d, the high watermark was %d", p.topic.name, p.index, asked, q.LeaderEpoch, q.EndOffset, ask.high)
			}
			continue
		case s.mayStart(p) != p.startTo: // retention may have moved the start
			continue
		}
		want := p.epochs.end(asked, s.epoch, k.start, p.lifeFrom, 0, format.EpochsMax)
		to := p.epochs.end(asked, s.epoch, p.startTo, p.lifeFrom, 0, format.EpochsMax)
		if q.LeaderEpoch != want.Epoch && q.LeaderEpoch != to.Epoch || q.EndOffset < want.Start || q.EndOffset > to.Start {
			return fmt.Errorf("EPOCH: %s/%d, from %d to %d: leader epoch %d: %d ends at %d; it is %+v (or %+v) of %+v, and the present one, %d, began at %d",
				p.topic.name, p.index, k.start, p.startTo, asked, q.LeaderEpoch, q.EndOffset, want, to, p.epochs, s.epoch, p.lifeFrom)
		}
	}
	return nil
}
