package shard

import (
	"encoding/binary"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/kafka"
)

// topicTable has the topics of the broker, with those of their partitions that are
// on this shard. Every shard knows every topic, so that it can tell a partition of
// another shard from one that does not exist. An entry is never reused while the
// process runs: requests and sessions keep its index.
type topicTable struct {
	all      []topic
	byName   map[string]int32
	byID     map[[16]byte]int32
	removals uint64 // topics that were deleted
}

type topic struct {
	name       string
	nameBytes  []byte // the same
	id         [16]byte
	partitions []*partition       // by index; nil: on another shard
	config     *cluster.LogConfig // overwritten in place: its partitions point at it
	gone       bool               // deleted
	objective  int                // index in objectives.all + 1; 0: it has none
}

func newTopicTable() topicTable {
	return topicTable{byName: map[string]int32{}, byID: map[[16]byte]int32{}}
}

// add adds a topic, or partitions to one that is known, and returns its index.
func (t *topicTable) add(name string, id [16]byte, partitions int) int32 {
	if number, ok := t.byID[id]; ok {
		for len(t.all[number].partitions) < partitions {
			t.all[number].partitions = append(t.all[number].partitions, nil)
		}
		return number
	}
	number := int32(len(t.all))
	t.all = append(t.all, topic{name: name, nameBytes: []byte(name), id: id, partitions: make([]*partition, partitions), config: new(cluster.LogConfig)})
	t.byName[name], t.byID[id] = number, number
	return number
}

// remove deletes a topic. Its entry stays for requests and sessions that have its
// index.
func (t *topicTable) remove(number int32) {
	topic := &t.all[number]
	if topic.gone {
		return
	}
	topic.gone = true
	t.removals++
	delete(t.byID, topic.id)
	if t.byName[topic.name] == number {
		delete(t.byName, topic.name)
	}
	topic.partitions = nil
}

// lookup is the index of a topic as a request names it, by the bytes of its id or by
// name; none if there is no such topic.
func (t *topicTable) lookup(name []byte, byID bool) int32 {
	if byID {
		return t.findID(name)
	}
	return t.find(name)
}

// find is the index of the topic with that name, or none.
func (t *topicTable) find(name []byte) int32 {
	if number, ok := t.byName[string(name)]; ok {
		return number
	}
	return none
}

// findID is the index of the topic with an id of these bytes, or none.
func (t *topicTable) findID(id []byte) int32 {
	if len(id) == kafka.TopicIDBytes {
		if number, ok := t.byID[[16]byte(id)]; ok {
			return number
		}
	}
	return none
}

// A topic's configuration in mail is eleven int64s, little endian, in the order of
// AppendConfigMail. A topic in mail is its id, its configuration, its name.
const (
	configMailBytes = 88
	topicMailBytes  = 16 + configMailBytes
)

// AppendTopicMail appends a topic as MailTopic has it.
func AppendTopicMail(b []byte, topic *cluster.Topic, config cluster.LogConfig) []byte {
	b = append(b, topic.ID[:]...)
	b = AppendConfigMail(b, config)
	return append(b, topic.Name...)
}

// AppendConfigMail appends a topic's configuration as MailConfigure has it.
func AppendConfigMail(b []byte, config cluster.LogConfig) []byte {
	for _, value := range [...]int64{config.RetentionMS, config.RetentionBytes, config.SegmentBytes, config.SegmentMS, config.MessageBytesMax, config.BeforeMaxMS, config.AfterMaxMS, flag(config.AppendTime), flag(config.WriteCaching), config.ObjectiveMS, config.ObjectivePPM} {
		b = binary.LittleEndian.AppendUint64(b, uint64(value))
	}
	return b
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// configure puts a topic's configuration into force on this shard.
func (s *Shard) configure(number int32, b []byte) {
	topic := &s.topics.all[number]
	v := func(i int) int64 { return int64(binary.LittleEndian.Uint64(b[8*i:])) }
	*topic.config = cluster.LogConfig{
		RetentionMS: v(0), RetentionBytes: v(1), SegmentBytes: v(2), SegmentMS: v(3),
		MessageBytesMax: v(4), BeforeMaxMS: v(5), AfterMaxMS: v(6), AppendTime: v(7) != 0, WriteCaching: v(8) != 0, ObjectiveMS: v(9), ObjectivePPM: v(10),
	}
	if s.Flight != nil && !s.recorder.slo.set(number) {
		s.lines.writef(Warn, "a topic's latency.slo.ms is not watched: so many have one already: ", int64(s.recorder.slo.n))
	}
	for _, p := range topic.partitions {
		if p != nil {
			p.configured()
		}
	}
}

// configured passes on to the engine what concerns it of a partition's configuration.
func (p *partition) configured() { p.engine.SetSegmentBytes(p.slot, p.config.SegmentBytes) }
