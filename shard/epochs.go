package shard

import "github.com/tailbound/tailbound/kafka"

// offsetForLeaderEpoch answers where the records of a leader epoch end (KIP-320). It
// waits for reply memory only.
func (s *Shard) offsetForLeaderEpoch(in *incoming, header *kafka.Request) outcome {
	body := s.reader.Mark()
	var walk kafka.EpochWalk
	if err := walk.Begin(&s.reader, header.Version); err != nil {
		return s.malformed(in, err)
	}
	topics := walk.Topics()
	_, bytes, err := walk.Measure(header)
	if err != nil {
		return s.malformed(in, err)
	}
	if !s.net.Begin(in.id, bytes) {
		return postponed
	}
	req := s.newRequest(in, kindImmediate, header)
	kafka.PutEpochHead(s.net.Bytes(in.id, kafka.EpochHeadBytes(header, topics)), header, topics)
	s.reader.Back(body)
	walk.Begin(&s.reader, header.Version)
	for walk.Topics() > 0 {
		topic, _ := walk.NextTopic()
		kafka.PutEpochTopic(s.net.Bytes(in.id, kafka.EpochTopicBytes(header.Version, len(topic.Name), topic.Partitions)), header.Version, topic.Name, topic.Partitions)
		number := s.topics.lookup(topic.Name, false)
		for left := topic.Partitions - 1; left >= 0; left-- {
			asked, _ := walk.NextPartition()
			p, code := s.topics.locateAt(number, asked.Index, false, asked.CurrentEpoch)
			epoch, end := int32(-1), int64(-1)
			if code == kafka.None {
				epoch, end = p.epochEnd(asked.Epoch)
			}
			kafka.PutEpochPartition(s.net.Bytes(in.id, kafka.EpochPartitionBytes(header.Version, left == 0)), header.Version, left == 0, asked.Index, code, epoch, end)
		}
	}
	kafka.PutEpochEnd(s.net.Bytes(in.id, kafka.EpochEndBytes(header.Version)))
	s.net.Release(in.id)
	s.sendReply(req)
	return started
}
