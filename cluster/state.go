package cluster

import (
	"bytes"
	"cmp"
	"errors"
	"slices"

	"github.com/tailbound/tailbound/engine/format"
)

// ErrReplayed says that a command's effect is in the State already. Nothing
// was changed, and replaying may go on.
var ErrReplayed = errors.New("cluster: the command was applied before")

// ErrOrder says that a command was planned against a State other than this
// one: a command between is missing, or another was applied since. Nothing was
// changed.
var ErrOrder = errors.New("cluster: the command does not continue this state")

// ErrMalformed says that bytes are not a command of a kind and version this
// program knows, or contradict themselves or the State. Nothing was changed.
var ErrMalformed = errors.New("cluster: malformed command")

// Partition is one partition of a topic.
type Partition struct {
	LogID uint64 // the log that stores it; never reused
}

// Config is one topic configuration that was set, as the client wrote it.
type Config struct {
	Name, Value string
}

// Topic is one topic. What lookups return belongs to the State: read it, do
// not write it, and do not keep it across an Apply.
type Topic struct {
	Name       string
	ID         [16]byte
	Partitions []Partition // by partition index; log ids rise
	Configs    []Config    // sorted by name, each name once
	Deleted    bool        // a tombstone: kept until its logs are gone
}

// Config is the value that was set for a configuration of the topic.
func (t *Topic) Config(name string) (value string, ok bool) {
	return configIn(t.Configs, name)
}

type owner struct {
	logID     uint64
	topic     *Topic
	partition int32
}

// State is all the control shard knows durably. Create it with New, change it
// with Apply.
type State struct {
	// sequence is the number of the last command applied; each command carries
	// its own, so that a gap or a replay shows.
	sequence uint64

	byName []*Topic // sorted by name; no tombstones
	byID   []*Topic // sorted by id; tombstones too
	logs   []owner  // sorted by log id; tombstones' too
	groups []*Group // sorted by id

	brokers      configSets[int32]  // by node
	groupConfigs configSets[string] // by group, which need not exist

	groupsBytes int // Invariant: the sum of what groups are counted to have

	// nextLogID is above every log id ever given out.
	// Invariant: format.ControlLogID < nextLogID.
	nextLogID uint64

	// producerReserved is above every producer id that may ever have been
	// given out, in this life or another.
	producerReserved int64

	// The rest is of this life only: neither in a snapshot nor compared.

	// The producer ids this life may give out: [producerNext, producerEnd).
	// Invariant: producerNext <= producerEnd <= producerReserved.
	producerNext, producerEnd int64
	// producerPlanned is the first id of the block this life has planned, -1
	// for none. A block which was applied without having been planned here was
	// replayed, and its ids may have been given out before a restart.
	producerPlanned int64
	producerBlock   int64 // size of the last block, for the low-water mark

	topicChanges uint64 // rises whenever there are other topics or partitions

	incoming *snapshot // a snapshot of which not all parts were applied yet
}

// New is the state of a broker that has nothing yet.
func New() *State {
	return &State{nextLogID: format.ControlLogID + 1, producerPlanned: -1}
}

// Sequence is the number of commands applied since the directory was made.
func (s *State) Sequence() uint64 { return s.sequence }

// Topic is the topic of that name; a deleted one has no name any more.
func (s *State) Topic(name string) (*Topic, bool) {
	i, ok := s.nameAt(name)
	if !ok {
		return nil, false
	}
	return s.byName[i], true
}

// TopicByID is the topic of that id; false for a tombstone.
func (s *State) TopicByID(id [16]byte) (*Topic, bool) {
	i, ok := s.idAt(id)
	if !ok || s.byID[i].Deleted {
		return nil, false
	}
	return s.byID[i], true
}

// Topics are all topics, sorted by name. The slice is the State's own: valid
// until the next Apply, and not to be written.
func (s *State) Topics() []*Topic { return s.byName }

// Tombstones are the topics that were deleted and not yet forgotten, in the
// order of their first log.
func (s *State) Tombstones() []*Topic {
	var out []*Topic
	for t := range s.inLogOrder {
		if t.Deleted {
			out = append(out, t)
		}
	}
	return out
}

// LogOwner is the topic and partition a log stores. The topic may be a
// tombstone (Deleted); a log without an owner was never listed, or forgotten.
func (s *State) LogOwner(logID uint64) (t *Topic, partition int32, ok bool) {
	i, ok := s.logAt(logID)
	if !ok {
		return nil, 0, false
	}
	return s.logs[i].topic, s.logs[i].partition, true
}

// TopicChanges rises whenever there are other topics or partitions.
func (s *State) TopicChanges() uint64 { return s.topicChanges }

// NextLogID is the log id that the next partition gets.
func (s *State) NextLogID() uint64 { return s.nextLogID }

// Logs is how many logs partitions have, tombstones' included.
func (s *State) Logs() int { return len(s.logs) }

// NextProducerID gives out a producer id, each once in the life of the data
// directory. id is -1 where no reserved one is left. needBlock asks the caller
// to plan, store and apply another block (PlanReserveProducerIDs); it becomes
// true while there are still some, so that nobody need wait.
func (s *State) NextProducerID() (id int64, needBlock bool) {
	id = -1
	if s.producerNext < s.producerEnd {
		id = s.producerNext
		s.producerNext++
	}
	return id, s.producerEnd-s.producerNext <= s.producerBlock/4
}

// Equal says whether the durable parts of two states are the same.
func (s *State) Equal(o *State) bool {
	if s.sequence != o.sequence || s.nextLogID != o.nextLogID || s.producerReserved != o.producerReserved {
		return false
	}
	if !s.brokers.equal(o.brokers) || !s.groupConfigs.equal(o.groupConfigs) {
		return false
	}
	return s.groupsBytes == o.groupsBytes && slices.EqualFunc(s.groups, o.groups, (*Group).equal) && slices.EqualFunc(s.byID, o.byID, func(a, b *Topic) bool {
		return a.Name == b.Name && a.ID == b.ID && a.Deleted == b.Deleted &&
			slices.Equal(a.Partitions, b.Partitions) && slices.Equal(a.Configs, b.Configs)
	})
}

func (s *State) nameAt(name string) (int, bool) {
	return slices.BinarySearchFunc(s.byName, name, func(t *Topic, n string) int { return cmp.Compare(t.Name, n) })
}

func (s *State) idAt(id [16]byte) (int, bool) {
	return slices.BinarySearchFunc(s.byID, id, func(t *Topic, i [16]byte) int { return bytes.Compare(t.ID[:], i[:]) })
}

func (s *State) logAt(logID uint64) (int, bool) {
	return slices.BinarySearchFunc(s.logs, logID, func(o owner, l uint64) int { return cmp.Compare(o.logID, l) })
}

// inLogOrder yields every topic, tombstones too, in the order of their first
// logs.
func (s *State) inLogOrder(yield func(*Topic) bool) {
	for i := range s.logs {
		if s.logs[i].partition == 0 && !yield(s.logs[i].topic) {
			return
		}
	}
}

// insert adds a topic to the three tables. Its ids are new, and its name is
// where it is not a tombstone: the callers have checked.
func (s *State) insert(t *Topic) {
	i, _ := s.idAt(t.ID)
	s.byID = slices.Insert(s.byID, i, t)
	if !t.Deleted {
		i, _ = s.nameAt(t.Name)
		s.byName = slices.Insert(s.byName, i, t)
		s.topicChanges++
	}
	s.insertLogs(t, t.Partitions, 0)
}

// insertLogs makes t the owner of its partitions from number from on.
func (s *State) insertLogs(t *Topic, parts []Partition, from int) {
	for len(parts) > 0 {
		n := len(parts)                 // as many as have nobody else's between them
		i, _ := s.logAt(parts[0].LogID) // mostly the end: ids rise, and Snapshot keeps their order
		if i < len(s.logs) {
			n = 1
			for n < len(parts) && parts[n].LogID < s.logs[i].logID {
				n++
			}
		}
		logs := make([]owner, n)
		for k := range logs {
			logs[k] = owner{parts[k].LogID, t, int32(from + k)}
		}
		s.logs = slices.Insert(s.logs, i, logs...)
		parts, from = parts[n:], from+n
	}
}

// bury makes a topic a tombstone: its name is free, its logs are still known.
func (s *State) bury(t *Topic) {
	i, _ := s.nameAt(t.Name)
	s.byName = slices.Delete(s.byName, i, i+1)
	t.Deleted = true
	s.topicChanges++
}

// forget removes a tombstone.
func (s *State) forget(t *Topic) {
	i, _ := s.idAt(t.ID)
	s.byID = slices.Delete(s.byID, i, i+1)
	s.logs = slices.DeleteFunc(s.logs, func(o owner) bool { return o.topic == t })
}
