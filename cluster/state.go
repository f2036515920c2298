package cluster

import (
	"bytes"
	"cmp"
	"errors"
	"slices"

	"github.com/tailbound/tailbound/engine/format"
)

// ErrReplayed says that the State has a command's effect already. Nothing was
// changed, and replaying may continue.
var ErrReplayed = errors.New("cluster: the command was applied before")

// ErrOrder says that a command was planned against another State: a command before it
// is missing, or another command was applied since. Nothing was changed.
var ErrOrder = errors.New("cluster: the command does not continue this state")

// ErrMalformed says that bytes are not a command, or contradict themselves or the
// State. Nothing was changed.
var ErrMalformed = errors.New("cluster: malformed command")

// Partition is one partition of a topic.
type Partition struct {
	LogID uint64 // the log that stores its records; never reused
}

// Config is a configuration that was set, its value as the client wrote it.
type Config struct {
	Name, Value string
}

// Topic is one topic. What lookups return belongs to the State: callers do not modify
// it, and do not keep it after an Apply.
type Topic struct {
	Name       string
	ID         [16]byte
	Partitions []Partition // by partition index, with increasing log ids
	Configs    []Config    // sorted by name, each name once
	Deleted    bool        // a tombstone: kept until its logs are deleted
}

// Config returns the value that was set for a configuration of the topic.
func (t *Topic) Config(name string) (value string, ok bool) {
	return configIn(t.Configs, name)
}

// owner is the entry of a log: the partition that it stores.
type owner struct {
	logID     uint64
	topic     *Topic
	partition int32
}

// State is all durable metadata. New creates it, and Apply changes it.
type State struct {
	// sequence is the number of the last applied command. Each command carries its
	// number, so a gap or a replay is noticed.
	sequence uint64

	byName []*Topic // sorted by name; no tombstones
	byID   []*Topic // sorted by id; tombstones too
	logs   []owner  // sorted by log id; those of tombstones too
	groups []*Group // sorted by id

	brokers      configSets[int32]  // by node
	groupConfigs configSets[string] // by group, which need not exist

	groupsBytes int // Invariant: the sum of all groups' counted bytes

	// nextLogID is greater than every log id that was ever given out.
	// Invariant: format.ControlLogID < nextLogID.
	nextLogID uint64

	// producerReserved is greater than every producer id that may have been given
	// out, in this life or an earlier one.
	producerReserved int64

	// The other fields belong to this life: snapshots do not have them, and Equal
	// ignores them.

	// The producer ids that this life may give out: [producerNext, producerEnd).
	// Invariant: producerNext <= producerEnd <= producerReserved.
	producerNext, producerEnd int64
	// producerPlanned is the first id of the block that this life has planned, -1 for
	// none. A block that is applied without having been planned here is replayed from
	// the log, and its ids may have been given out before a restart.
	producerPlanned int64
	producerBlock   int64 // size of the last block, for the low-water mark

	topicChanges uint64 // rises whenever topics or partitions change

	incoming *snapshot // a snapshot whose parts have not all been applied yet
}

// New returns the State of a new directory.
func New() *State {
	return &State{nextLogID: format.ControlLogID + 1, producerPlanned: -1}
}

// Sequence returns the number of commands applied since the directory was made.
func (s *State) Sequence() uint64 { return s.sequence }

// Topic returns the topic of a name. A deleted topic has no name any more.
func (s *State) Topic(name string) (*Topic, bool) {
	i, ok := s.nameAt(name)
	if !ok {
		return nil, false
	}
	return s.byName[i], true
}

// TopicByID returns the topic of an id; false for a tombstone.
func (s *State) TopicByID(id [16]byte) (*Topic, bool) {
	i, ok := s.idAt(id)
	if !ok || s.byID[i].Deleted {
		return nil, false
	}
	return s.byID[i], true
}

// Topics returns all topics, sorted by name. The slice belongs to the State and is
// valid until the next Apply.
func (s *State) Topics() []*Topic { return s.byName }

// Tombstones returns the topics that are deleted and not yet forgotten, in the order
// of their first logs.
func (s *State) Tombstones() []*Topic {
	var out []*Topic
	for topic := range s.inLogOrder {
		if topic.Deleted {
			out = append(out, topic)
		}
	}
	return out
}

// LogOwner returns the topic and partition that a log stores. The topic may be a
// tombstone (Deleted). False: no topic ever had the log, or it was forgotten.
func (s *State) LogOwner(logID uint64) (topic *Topic, partition int32, ok bool) {
	i, ok := s.logAt(logID)
	if !ok {
		return nil, 0, false
	}
	return s.logs[i].topic, s.logs[i].partition, true
}

// TopicChanges returns a number that rises whenever topics or partitions change.
func (s *State) TopicChanges() uint64 { return s.topicChanges }

// NextLogID returns the smallest log id that a new partition can get.
func (s *State) NextLogID() uint64 { return s.nextLogID }

// Logs returns how many logs partitions have, those of tombstones included.
func (s *State) Logs() int { return len(s.logs) }

// NextProducerID gives out a producer id that was never given out in the directory
// before; id is -1 if no reserved one is left. needBlock asks the caller to plan,
// store and apply another block (PlanReserveProducerIDs). It becomes true while some
// ids are left, so that producers do not have to wait.
func (s *State) NextProducerID() (id int64, needBlock bool) {
	id = -1
	if s.producerNext < s.producerEnd {
		id = s.producerNext
		s.producerNext++
	}
	return id, s.producerEnd-s.producerNext <= s.producerBlock/4
}

// Equal says whether the durable parts of two States are equal.
func (s *State) Equal(other *State) bool {
	if s.sequence != other.sequence || s.nextLogID != other.nextLogID || s.producerReserved != other.producerReserved {
		return false
	}
	if !s.brokers.equal(other.brokers) || !s.groupConfigs.equal(other.groupConfigs) {
		return false
	}
	return s.groupsBytes == other.groupsBytes && slices.EqualFunc(s.groups, other.groups, (*Group).equal) && slices.EqualFunc(s.byID, other.byID, func(a, b *Topic) bool {
		return a.Name == b.Name && a.ID == b.ID && a.Deleted == b.Deleted &&
			slices.Equal(a.Partitions, b.Partitions) && slices.Equal(a.Configs, b.Configs)
	})
}

func (s *State) nameAt(name string) (int, bool) {
	return slices.BinarySearchFunc(s.byName, name, func(topic *Topic, n string) int { return cmp.Compare(topic.Name, n) })
}

func (s *State) idAt(id [16]byte) (int, bool) {
	return slices.BinarySearchFunc(s.byID, id, func(topic *Topic, i [16]byte) int { return bytes.Compare(topic.ID[:], i[:]) })
}

func (s *State) logAt(logID uint64) (int, bool) {
	return slices.BinarySearchFunc(s.logs, logID, func(entry owner, l uint64) int { return cmp.Compare(entry.logID, l) })
}

// inLogOrder yields all topics, tombstones too, in the order of their first logs.
func (s *State) inLogOrder(yield func(*Topic) bool) {
	for i := range s.logs {
		if s.logs[i].partition == 0 && !yield(s.logs[i].topic) {
			return
		}
	}
}

// insert adds a topic to the three tables. The caller has checked that its ids are
// new, and its name too unless it is a tombstone.
func (s *State) insert(topic *Topic) {
	i, _ := s.idAt(topic.ID)
	s.byID = slices.Insert(s.byID, i, topic)
	if !topic.Deleted {
		i, _ = s.nameAt(topic.Name)
		s.byName = slices.Insert(s.byName, i, topic)
		s.topicChanges++
	}
	s.insertLogs(topic, topic.Partitions, 0)
}

// insertLogs makes a topic the owner of the logs of parts, which are its partitions
// from index from on.
func (s *State) insertLogs(topic *Topic, parts []Partition, from int) {
	for len(parts) > 0 {
		n := len(parts)                 // how many have no other log between them
		i, _ := s.logAt(parts[0].LogID) // mostly the end: ids increase, and Snapshot keeps their order
		if i < len(s.logs) {
			n = 1
			for n < len(parts) && parts[n].LogID < s.logs[i].logID {
				n++
			}
		}
		logs := make([]owner, n)
		for k := range logs {
			logs[k] = owner{parts[k].LogID, topic, int32(from + k)}
		}
		s.logs = slices.Insert(s.logs, i, logs...)
		parts, from = parts[n:], from+n
	}
}

// bury makes a topic a tombstone: its name becomes free, its logs are kept.
func (s *State) bury(topic *Topic) {
	i, _ := s.nameAt(topic.Name)
	s.byName = slices.Delete(s.byName, i, i+1)
	topic.Deleted = true
	s.topicChanges++
}

// forget removes a tombstone.
func (s *State) forget(topic *Topic) {
	i, _ := s.idAt(topic.ID)
	s.byID = slices.Delete(s.byID, i, i+1)
	s.logs = slices.DeleteFunc(s.logs, func(entry owner) bool { return entry.topic == topic })
}
