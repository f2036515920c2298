package shard

import "github.com/tailbound/tailbound/kafka"

// offsetForLeaderEpoch answers where an epoch ended, at once (KIP-320).
func (s *Shard) offsetForLeaderEpoch(w *waiter, h *kafka.Request) outcome {
	body := s.reader.Mark()
	var walk kafka.EpochWalk
	if err := walk.Begin(&s.reader, h.Version); err != nil {
		return s.malformed(w, h, err)
	}
	topics := walk.Topics()
	bytes := kafka.EpochHeadBytes(h, topics) + kafka.EpochEndBytes(h.Version)
	for walk.Topics() > 0 {
		topic, err := walk.NextTopic()
		if err != nil {
			return s.malformed(w, h, err)
		}
		bytes += kafka.EpochTopicBytes(h.Version, len(topic.Name), topic.Partitions)
		for left := topic.Partitions - 1; left >= 0; left-- {
			if _, err := walk.NextPartition(); err != nil {
				return s.malformed(w, h, err)
			}
			bytes += kafka.EpochPartitionBytes(h.Version, left == 0)
		}
	}
	if err := walk.End(); err != nil {
		return s.malformed(w, h, err)
	}
	if !s.net.Begin(w.frame, bytes) {
		return tooEarly
	}
	i, r := s.newRequest(w)
	r.kind, r.header = kindImmediate, *h
	r.header.ClientID = nil
	kafka.PutEpochHead(s.net.Bytes(w.frame, kafka.EpochHeadBytes(h, topics)), h, topics)
	s.reader.Back(body)
	walk.Begin(&s.reader, h.Version)
	for walk.Topics() > 0 {
		topic, _ := walk.NextTopic()
		kafka.PutEpochTopic(s.net.Bytes(w.frame, kafka.EpochTopicBytes(h.Version, len(topic.Name), topic.Partitions)), h.Version, topic.Name, topic.Partitions)
		number := s.topics.find(topic.Name)
		for left := topic.Partitions - 1; left >= 0; left-- {
			p, _ := walk.NextPartition()
			on, code := s.topics.locate(number, p.Index, false)
			if code == kafka.None {
				code = on.checkEpoch(p.CurrentEpoch)
			}
			epoch, end := int32(-1), int64(-1)
			if code == kafka.None {
				epoch, end = s.engine.EpochAt(on.slot, p.Epoch, on.highWatermark())
			}
			kafka.PutEpochPartition(s.net.Bytes(w.frame, kafka.EpochPartitionBytes(h.Version, left == 0)), h.Version, left == 0, p.Index, code, epoch, end)
		}
	}
	kafka.PutEpochEnd(s.net.Bytes(w.frame, kafka.EpochEndBytes(h.Version)))
	s.net.Release(w.frame)
	s.reply(i)
	return taken
}
