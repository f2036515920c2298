package cluster

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/kafka"
)

// TopicNameBytesMax is the longest topic name.
// Source: org.apache.kafka.common.internals.Topic.MAX_NAME_LENGTH.
const TopicNameBytesMax = 249

// ConfigBytesMax bounds the names and values of one topic's configurations
// together, so that a topic always fits one command.
const ConfigBytesMax = 16 << 10

// PartitionsPerTopicCeiling is above any Limits: what Apply believes.
const PartitionsPerTopicCeiling = 1 << 16

// ProducerIDBlock is a good number of producer ids to reserve at once: one
// durable command per so many InitProducerId requests, and what a restart
// throws away. Kafka's is the same (ProducerIdsBlock.PRODUCER_ID_BLOCK_SIZE).
const ProducerIDBlock = 1000

// Refusal is why a plan cannot be: a Kafka error code and a message for the
// client. A nil *Refusal is none.
type Refusal struct {
	Code    kafka.ErrorCode
	Message string
}

// Error makes a Refusal printable like any error.
func (r *Refusal) Error() string { return fmt.Sprintf("%s (Kafka error %d)", r.Message, r.Code) }

func refuse(code kafka.ErrorCode, format string, args ...any) *Refusal {
	return &Refusal{code, fmt.Sprintf(format, args...)}
}

// Limits bound what may be created. What exists already is kept whatever they
// say.
type Limits struct {
	TopicsMax             int // topics, tombstones included
	PartitionsPerTopicMax int
	PartitionsMax         int // partitions of all topics, tombstones included
	PartitionsDefault     int // what -1 partitions means; num.partitions
	MessageBytesMax       int // the broker's message.max.bytes; 0: anything
}

// PlanCreate proposes a topic. partitions is a count or -1 for the default,
// replicationFactor 1 or -1, id a new random one. It changes nothing: the
// topic exists once the bytes were applied.
func (s *State) PlanCreate(name string, partitions, replicationFactor int, configs []Config, id [16]byte, lim Limits) ([]byte, *Refusal) {
	return s.PlanCreateOn(name, partitions, replicationFactor, Placement{}, configs, id, lim)
}

// PlanCreateOn is PlanCreate with the partitions where they are wanted: as many
// shards as partitions.
func (s *State) PlanCreateOn(name string, partitions, replicationFactor int, on Placement, configs []Config, id [16]byte, lim Limits) ([]byte, *Refusal) {
	if why := NameFault(name); why != "" {
		return nil, refuse(kafka.InvalidTopic, "Topic name is invalid: %s", why)
	}
	if _, ok := s.Topic(name); ok {
		return nil, refuse(kafka.TopicAlreadyExists, "Topic '%s' already exists.", name)
	}
	if other, ok := s.collides(name); ok {
		return nil, refuse(kafka.InvalidTopic, "Topic '%s' collides with existing topic: %s", name, other)
	}
	if partitions == -1 {
		partitions = max(1, lim.PartitionsDefault)
	}
	if partitions <= 0 {
		return nil, refuse(kafka.InvalidPartitions, "Number of partitions was set to an invalid non-positive value.")
	}
	if partitions > lim.PartitionsPerTopicMax || partitions > PartitionsPerTopicCeiling {
		return nil, refuse(kafka.InvalidPartitions, "%d partitions are asked for; a topic may have at most %d.",
			partitions, min(lim.PartitionsPerTopicMax, PartitionsPerTopicCeiling))
	}
	if replicationFactor == 0 || replicationFactor < -1 {
		return nil, refuse(kafka.InvalidReplicationFactor, "Replication factor must be larger than 0, or -1 to use the default value.")
	}
	if replicationFactor > 1 {
		return nil, refuse(kafka.InvalidReplicationFactor, "Replication factor %d is asked for; this broker does not replicate, so only 1 (or -1) is possible.", replicationFactor)
	}
	sorted, r := checkConfigs(configs, lim, topicDef)
	if r != nil {
		return nil, r
	}
	if id == ([16]byte{}) {
		return nil, refuse(kafka.InvalidRequest, "A topic id must not be zero.")
	}
	if _, ok := s.idAt(id); ok {
		return nil, refuse(kafka.InvalidRequest, "The topic id is in use.")
	}
	if len(s.byID)+1 > lim.TopicsMax {
		return nil, refuse(kafka.PolicyViolation, "The broker has %d topics, of at most %d.", len(s.byID), lim.TopicsMax)
	}
	if len(s.logs)+partitions > lim.PartitionsMax {
		return nil, refuse(kafka.PolicyViolation, "The broker has %d partitions, of at most %d; %d more are asked for.", len(s.logs), lim.PartitionsMax, partitions)
	}
	t := &Topic{Name: name, ID: id, Partitions: s.place(partitions, on), Configs: sorted}
	return command(kindCreate, s.sequence+1, appendTopic(nil, t)), nil
}

// PlanGrow proposes that the topic has count partitions, more than it has now.
func (s *State) PlanGrow(name string, count int, on Placement, lim Limits) ([]byte, *Refusal) {
	if why := NameFault(name); why != "" {
		return nil, refuse(kafka.InvalidTopic, "Topic name is invalid: %s", why)
	}
	t, ok := s.Topic(name)
	if !ok {
		return nil, refuse(kafka.UnknownTopicOrPartition, "This server does not host this topic-partition.")
	}
	have := len(t.Partitions)
	switch {
	case count == have:
		return nil, refuse(kafka.InvalidPartitions, "Topic already has %d partition(s).", have)
	case count < have:
		return nil, refuse(kafka.InvalidPartitions, "The topic %s currently has %d partition(s); %d would not be an increase.", name, have, count)
	case count > lim.PartitionsPerTopicMax || count > PartitionsPerTopicCeiling:
		return nil, refuse(kafka.InvalidPartitions, "%d partitions are asked for; a topic may have at most %d.", count, min(lim.PartitionsPerTopicMax, PartitionsPerTopicCeiling))
	case on.Shards != nil && len(on.Shards) != count-have:
		return nil, refuse(kafka.InvalidReplicaAssignment, "Attempted to add %d additional partition(s), but %d assignment(s) were specified.", count-have, len(on.Shards))
	case len(s.logs)+count-have > lim.PartitionsMax:
		return nil, refuse(kafka.PolicyViolation, "The broker has %d partitions, of at most %d; %d more are asked for.", len(s.logs), lim.PartitionsMax, count-have)
	}
	return command(kindGrow, s.sequence+1, appendRanges(slices.Clone(t.ID[:]), s.place(count-have, on))), nil
}

// Placement is where a client wants new partitions: the data shard of each, nil
// for wherever the next log ids lie; and how many data shards there are.
type Placement struct {
	Shards     []int
	DataShards int
}

// placeGapMax bounds the log ids left out before one: there are fewer shards.
const placeGapMax = 256

// place gives n new partitions their logs: the next ones, or the next that lie
// where they are wanted.
func (s *State) place(n int, on Placement) []Partition {
	if on.Shards == nil {
		return consecutive(s.nextLogID, n)
	}
	parts, next := make([]Partition, n), s.nextLogID
	for i := range parts {
		for format.Place(next, on.DataShards) != on.Shards[i] {
			next++
		}
		parts[i].LogID = next
		next++
	}
	return parts
}

// PlanDelete proposes to make the topic of that name a tombstone.
func (s *State) PlanDelete(name string) ([]byte, *Refusal) {
	t, ok := s.Topic(name)
	if !ok {
		return nil, refuse(kafka.UnknownTopicOrPartition, "This server does not host this topic-partition.")
	}
	return command(kindDelete, s.sequence+1, t.ID[:]), nil
}

// PlanDeleteID proposes to make the topic of that id a tombstone.
func (s *State) PlanDeleteID(id [16]byte) ([]byte, *Refusal) {
	t, ok := s.TopicByID(id)
	if !ok {
		return nil, refuse(kafka.UnknownTopicID, "This server does not host this topic ID.")
	}
	return command(kindDelete, s.sequence+1, t.ID[:]), nil
}

// What a ConfigEdit does.
// Source: Kafka's IncrementalAlterConfigsRequest.json, ConfigOperation.
const (
	ConfigSet      int8 = 0
	ConfigDelete   int8 = 1
	ConfigAppend   int8 = 2 // to a list
	ConfigSubtract int8 = 3 // from a list
)

// ConfigEdit is one change to a topic's configurations.
type ConfigEdit struct {
	Op          int8
	Name, Value string
}

// PlanConfigure proposes other configurations of a topic: the edits made to
// those it has or, where replace is set, to none. nil bytes without a refusal:
// they are these already.
func (s *State) PlanConfigure(name string, edits []ConfigEdit, replace bool, lim Limits) ([]byte, *Refusal) {
	if why := NameFault(name); why != "" {
		return nil, refuse(kafka.InvalidTopic, "Topic name is invalid: %s", why)
	}
	t, ok := s.Topic(name)
	if !ok {
		return nil, refuse(kafka.UnknownTopicOrPartition, "The topic '%s' does not exist.", name)
	}
	for _, e := range edits {
		if _, ok := LookupConfig(e.Name); !ok {
			return nil, refuse(kafka.InvalidConfig, "%s", ConfigFault(e.Name, e.Value))
		}
	}
	sorted, r := edited(t.Configs, edits, replace, lim, topicDef)
	if r != nil {
		return nil, r
	}
	if slices.Equal(sorted, t.Configs) {
		return nil, nil
	}
	return command(kindConfigure, s.sequence+1, appendConfigs(slices.Clone(t.ID[:]), sorted)), nil
}

// edited is configurations after edits, sorted and checked. lookup knows every
// name.
func edited(have []Config, edits []ConfigEdit, replace bool, lim Limits, lookup func(name string) *ConfigDef) ([]Config, *Refusal) {
	var next []Config
	if !replace {
		next = slices.Clone(have)
	}
	for i, e := range edits {
		d := lookup(e.Name)
		if slices.ContainsFunc(edits[:i], func(o ConfigEdit) bool { return o.Name == e.Name }) {
			return nil, refuse(kafka.InvalidRequest, "Configuration %s is given twice.", e.Name)
		}
		value := e.Value
		if e.Op == ConfigAppend || e.Op == ConfigSubtract {
			if d.Type != ConfigList {
				return nil, refuse(kafka.InvalidConfig, "Configuration %s is not a list: nothing can be appended to it or subtracted from it.", e.Name)
			}
			list, ok := configIn(have, e.Name)
			if !ok {
				list = d.Default
			}
			value = editList(list, e)
		}
		next = slices.DeleteFunc(next, func(c Config) bool { return c.Name == e.Name })
		switch e.Op {
		case ConfigDelete:
		case ConfigSet, ConfigAppend, ConfigSubtract:
			next = append(next, Config{e.Name, value})
		default:
			return nil, refuse(kafka.InvalidRequest, "There is no operation %d on configuration %s.", e.Op, e.Name)
		}
	}
	return checkConfigs(next, lim, lookup)
}

// editList is a list with the members of e's added or taken out.
func editList(list string, e ConfigEdit) string {
	members := func(s string) (out []string) {
		for _, m := range strings.Split(s, ",") {
			if m = strings.TrimSpace(m); m != "" {
				out = append(out, m)
			}
		}
		return out
	}
	have := members(list)
	for _, m := range members(e.Value) {
		if e.Op == ConfigSubtract {
			have = slices.DeleteFunc(have, func(h string) bool { return h == m })
		} else if !slices.Contains(have, m) {
			have = append(have, m)
		}
	}
	return strings.Join(have, ",")
}

// PlanForget proposes to remove a tombstone; its logs must be gone, durably.
func (s *State) PlanForget(id [16]byte) ([]byte, *Refusal) {
	i, ok := s.idAt(id)
	if !ok {
		return nil, refuse(kafka.UnknownTopicID, "There is no topic of that id to forget.")
	}
	if !s.byID[i].Deleted {
		return nil, refuse(kafka.InvalidRequest, "Topic '%s' is not deleted, so it cannot be forgotten.", s.byID[i].Name)
	}
	return command(kindForget, s.sequence+1, id[:]), nil
}

// PlanReserveProducerIDs proposes a block of n producer ids. Once the bytes
// were applied to this same State, NextProducerID gives them out. A block that
// was applied from a log read at start is not given out: some of it may have
// been, before.
func (s *State) PlanReserveProducerIDs(n int) ([]byte, *Refusal) {
	if n < 1 || int64(n) > producerIDsMax-s.producerReserved {
		return nil, refuse(kafka.InvalidRequest, "A block of %d producer ids cannot be reserved.", n)
	}
	s.producerPlanned = s.producerReserved
	return command(kindReserve, s.sequence+1, appendReserve(nil, s.producerReserved, int64(n))), nil
}

// NameFault says what is wrong with a topic name, "" for nothing. The words
// are Kafka's. Source: org.apache.kafka.common.internals.Topic.
func NameFault(name string) string {
	switch {
	case name == "":
		return "the empty string is not allowed"
	case name == ".":
		return "'.' is not allowed"
	case name == "..":
		return "'..' is not allowed"
	case len(name) > TopicNameBytesMax:
		return fmt.Sprintf("the length of '%s' is longer than the max allowed length %d", strings.ToValidUTF8(name[:TopicNameBytesMax], "")+"...", TopicNameBytesMax)
	}
	for i := 0; i < len(name); i++ {
		c := name[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-') {
			return fmt.Sprintf("'%s' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'", strings.ToValidUTF8(name, "?"))
		}
	}
	return ""
}

// collides finds a topic from which name differs only in '.' and '_'. Kafka
// refuses the second of two such names, as their metrics would have one.
func (s *State) collides(name string) (other string, ok bool) {
	if !strings.ContainsAny(name, "._") {
		return "", false
	}
	want := strings.ReplaceAll(name, ".", "_")
	for _, t := range s.byName {
		if t.Name != name && len(t.Name) == len(name) && strings.ReplaceAll(t.Name, ".", "_") == want {
			return t.Name, true
		}
	}
	return "", false
}

// checkConfigs sorts configurations by name and refuses what Kafka, or this
// broker, does not have.
func checkConfigs(configs []Config, lim Limits, lookup func(name string) *ConfigDef) ([]Config, *Refusal) {
	sorted := slices.Clone(configs)
	slices.SortFunc(sorted, func(a, b Config) int { return cmp.Compare(a.Name, b.Name) })
	bytes := 0
	for i, c := range sorted {
		if i > 0 && sorted[i-1].Name == c.Name {
			return nil, refuse(kafka.InvalidConfig, "Configuration %s is given twice.", c.Name)
		}
		d := lookup(c.Name)
		if d == nil {
			return nil, refuse(kafka.InvalidConfig, "%s", ConfigFault(c.Name, c.Value))
		}
		if why := d.fault(c.Value); why != "" {
			return nil, refuse(kafka.InvalidConfig, "%s", why)
		}
		if d.Broker == brokerMessageBytes && lim.MessageBytesMax > 0 {
			if numberOf(c.Value) > int64(lim.MessageBytesMax) {
				return nil, refuse(kafka.InvalidConfig, "Invalid value %s for configuration %s: the broker's memory is made for message.max.bytes of at most %d; a larger one needs another --message-max-bytes, and a restart.", c.Value, c.Name, lim.MessageBytesMax)
			}
		}
		bytes += len(c.Name) + len(c.Value)
	}
	if bytes > ConfigBytesMax {
		return nil, refuse(kafka.InvalidConfig, "The configurations have %d bytes; there may be at most %d.", bytes, ConfigBytesMax)
	}
	return sorted, nil
}

func consecutive(first uint64, n int) []Partition {
	parts := make([]Partition, n)
	for i := range parts {
		parts[i].LogID = first + uint64(i)
	}
	return parts
}
