package cluster

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/kafka"
)

// TopicNameBytesMax is the length of the longest topic name.
// Source: org.apache.kafka.common.internals.Topic.MAX_NAME_LENGTH.
const TopicNameBytesMax = 249

// ConfigBytesMax bounds the configurations of one topic, broker or group, names and
// values together, so that they always fit into one command.
const ConfigBytesMax = 16 << 10

// PartitionsPerTopicCeiling bounds a topic's partitions, whatever Limits allow. Apply
// enforces it.
const PartitionsPerTopicCeiling = 1 << 16

// ProducerIDBlock is how many producer ids are reserved at once, as in Kafka
// (ProducerIdsBlock.PRODUCER_ID_BLOCK_SIZE): one durable command serves so many
// InitProducerId requests, and a restart loses at most so many ids.
const ProducerIDBlock = 1000

// Refusal is why a request was refused: a Kafka error code, and a message for the
// client.
type Refusal struct {
	Code    kafka.ErrorCode
	Message string
}

// Error returns the message with the code.
func (r *Refusal) Error() string { return fmt.Sprintf("%s (Kafka error %d)", r.Message, r.Code) }

func refuse(code kafka.ErrorCode, format string, args ...any) *Refusal {
	return &Refusal{code, fmt.Sprintf(format, args...)}
}

// Limits bound what may be created. Existing topics are kept even if they exceed
// them.
type Limits struct {
	TopicsMax             int // topics, tombstones included
	PartitionsPerTopicMax int
	PartitionsMax         int // partitions of all topics, tombstones included
	PartitionsDefault     int // num.partitions: for topics created with -1 partitions
	MessageBytesMax       int // the broker's message.max.bytes; 0: no bound
}

// PlanCreate returns the command that creates a topic. partitions is a count or -1 for
// the default, replicationFactor 1 or -1, id a new random one. The topic exists once
// the command is applied.
func (s *State) PlanCreate(name string, partitions, replicationFactor int, configs []Config, id [16]byte, lim Limits) ([]byte, *Refusal) {
	return s.PlanCreateOn(name, partitions, replicationFactor, Placement{}, configs, id, lim)
}

// PlanCreateOn is PlanCreate with partitions on chosen shards: on.Shards has one for
// each partition.
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
	sorted, refusal := checkConfigs(configs, lim, topicDef)
	if refusal != nil {
		return nil, refusal
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
	topic := &Topic{Name: name, ID: id, Partitions: s.place(partitions, on), Configs: sorted}
	return command(kindCreate, s.sequence+1, appendTopic(nil, topic)), nil
}

// PlannedTopic returns the topic that a command of PlanCreate makes, whether or not the
// command is ever applied.
func PlannedTopic(cmd []byte) *Topic {
	_, body, err := parseCommand(cmd)
	if err != nil {
		panic("cluster: a command that was planned here cannot be read: " + err.Error())
	}
	topic, _, err := parseTopic(body)
	if err != nil {
		panic("cluster: a topic that was planned here cannot be read: " + err.Error())
	}
	return topic
}

// PlanGrow returns the command that raises a topic's partitions to count.
func (s *State) PlanGrow(name string, count int, on Placement, lim Limits) ([]byte, *Refusal) {
	if why := NameFault(name); why != "" {
		return nil, refuse(kafka.InvalidTopic, "Topic name is invalid: %s", why)
	}
	topic, ok := s.Topic(name)
	if !ok {
		return nil, refuse(kafka.UnknownTopicOrPartition, "This server does not host this topic-partition.")
	}
	have := len(topic.Partitions)
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
	return command(kindGrow, s.sequence+1, appendRanges(slices.Clone(topic.ID[:]), s.place(count-have, on))), nil
}

// Placement is where a client wants new partitions: the data shard of each, or nil to
// take the next log ids; and how many data shards there are.
type Placement struct {
	Shards     []int
	DataShards int
}

// placeGapMax bounds how many log ids are skipped before one. There are fewer shards.
const placeGapMax = 256

// place returns n new partitions with their logs: the next log ids, or the next ones
// that the wanted shards own.
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

// PlanDelete returns the command that makes the topic of a name a tombstone.
func (s *State) PlanDelete(name string) ([]byte, *Refusal) {
	topic, ok := s.Topic(name)
	if !ok {
		return nil, refuse(kafka.UnknownTopicOrPartition, "This server does not host this topic-partition.")
	}
	return command(kindDelete, s.sequence+1, topic.ID[:]), nil
}

// PlanDeleteID returns the command that makes the topic of an id a tombstone.
func (s *State) PlanDeleteID(id [16]byte) ([]byte, *Refusal) {
	topic, ok := s.TopicByID(id)
	if !ok {
		return nil, refuse(kafka.UnknownTopicID, "This server does not host this topic ID.")
	}
	return command(kindDelete, s.sequence+1, topic.ID[:]), nil
}

// What a ConfigEdit does.
// Source: Kafka's IncrementalAlterConfigsRequest.json, ConfigOperation.
const (
	ConfigSet      int8 = 0
	ConfigDelete   int8 = 1
	ConfigAppend   int8 = 2 // to a list
	ConfigSubtract int8 = 3 // from a list
)

// ConfigEdit is one change to the configurations of a topic, broker or group.
type ConfigEdit struct {
	Op          int8
	Name, Value string
}

// PlanConfigure returns the command that changes a topic's configurations. The edits
// are made to the present ones or, with replace, to none. nil without a refusal:
// nothing would change.
func (s *State) PlanConfigure(name string, edits []ConfigEdit, replace bool, lim Limits) ([]byte, *Refusal) {
	if why := NameFault(name); why != "" {
		return nil, refuse(kafka.InvalidTopic, "Topic name is invalid: %s", why)
	}
	topic, ok := s.Topic(name)
	if !ok {
		return nil, refuse(kafka.UnknownTopicOrPartition, "The topic '%s' does not exist.", name)
	}
	for _, edit := range edits {
		if _, ok := LookupConfig(edit.Name); !ok {
			return nil, refuse(kafka.InvalidConfig, "%s", ConfigFault(edit.Name, edit.Value))
		}
	}
	sorted, refusal := edited(topic.Configs, edits, replace, lim, topicDef)
	if refusal != nil {
		return nil, refusal
	}
	if slices.Equal(sorted, topic.Configs) {
		return nil, nil
	}
	return command(kindConfigure, s.sequence+1, appendConfigs(slices.Clone(topic.ID[:]), sorted)), nil
}

// edited returns configurations after edits, sorted and checked. lookup must know
// every name.
func edited(have []Config, edits []ConfigEdit, replace bool, lim Limits, lookup func(name string) *ConfigDef) ([]Config, *Refusal) {
	var next []Config
	if !replace {
		next = slices.Clone(have)
	}
	for i, edit := range edits {
		def := lookup(edit.Name)
		if slices.ContainsFunc(edits[:i], func(earlier ConfigEdit) bool { return earlier.Name == edit.Name }) {
			return nil, refuse(kafka.InvalidRequest, "Configuration %s is given twice.", edit.Name)
		}
		value := edit.Value
		if edit.Op == ConfigAppend || edit.Op == ConfigSubtract {
			if def.Type != ConfigList {
				return nil, refuse(kafka.InvalidConfig, "Configuration %s is not a list: nothing can be appended to it or subtracted from it.", edit.Name)
			}
			list, ok := configIn(have, edit.Name)
			if !ok {
				list = def.Default
			}
			value = editList(list, edit)
		}
		next = slices.DeleteFunc(next, func(config Config) bool { return config.Name == edit.Name })
		switch edit.Op {
		case ConfigDelete:
		case ConfigSet, ConfigAppend, ConfigSubtract:
			next = append(next, Config{edit.Name, value})
		default:
			return nil, refuse(kafka.InvalidRequest, "There is no operation %d on configuration %s.", edit.Op, edit.Name)
		}
	}
	return checkConfigs(next, lim, lookup)
}

// editList returns a list with the members of an edit's value added or removed.
func editList(list string, edit ConfigEdit) string {
	members := func(s string) (out []string) {
		for _, name := range strings.Split(s, ",") {
			if name = strings.TrimSpace(name); name != "" {
				out = append(out, name)
			}
		}
		return out
	}
	have := members(list)
	for _, name := range members(edit.Value) {
		if edit.Op == ConfigSubtract {
			have = slices.DeleteFunc(have, func(other string) bool { return other == name })
		} else if !slices.Contains(have, name) {
			have = append(have, name)
		}
	}
	return strings.Join(have, ",")
}

// PlanForget returns the command that removes a tombstone. The deletion of its logs
// must be durable.
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

// PlanReserveProducerIDs returns the command that reserves a block of n producer ids.
// Once it is applied to this same State, NextProducerID gives them out. A block that
// is applied from the log at a start is not given out, because some of it may have
// been before.
func (s *State) PlanReserveProducerIDs(n int) ([]byte, *Refusal) {
	if n < 1 || int64(n) > producerIDsMax-s.producerReserved {
		return nil, refuse(kafka.InvalidRequest, "A block of %d producer ids cannot be reserved.", n)
	}
	s.producerPlanned = s.producerReserved
	return command(kindReserve, s.sequence+1, appendReserve(nil, s.producerReserved, int64(n))), nil
}

// NameFault says what is wrong with a topic name, "" for nothing, in Kafka's words.
// Source: org.apache.kafka.common.internals.Topic.
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

// collides finds a topic whose name differs from name only in '.' and '_'. Kafka
// refuses the second of two such names, because they would share metric names.
func (s *State) collides(name string) (other string, ok bool) {
	if !strings.ContainsAny(name, "._") {
		return "", false
	}
	want := strings.ReplaceAll(name, ".", "_")
	for _, topic := range s.byName {
		if topic.Name != name && len(topic.Name) == len(name) && strings.ReplaceAll(topic.Name, ".", "_") == want {
			return topic.Name, true
		}
	}
	return "", false
}

// checkConfigs sorts configurations by name, and refuses values that Kafka or this
// broker does not allow.
func checkConfigs(configs []Config, lim Limits, lookup func(name string) *ConfigDef) ([]Config, *Refusal) {
	sorted := slices.Clone(configs)
	slices.SortFunc(sorted, func(a, b Config) int { return cmp.Compare(a.Name, b.Name) })
	bytes := 0
	for i, config := range sorted {
		if def := lookup(config.Name); def != nil && def.Type == ConfigList {
			config.Value = editList("", ConfigEdit{ConfigAppend, config.Name, config.Value}) // each member once (KIP-1161)
			sorted[i].Value = config.Value
		}
		if i > 0 && sorted[i-1].Name == config.Name {
			return nil, refuse(kafka.InvalidConfig, "Configuration %s is given twice.", config.Name)
		}
		def := lookup(config.Name)
		if def == nil {
			return nil, refuse(kafka.InvalidConfig, "%s", ConfigFault(config.Name, config.Value))
		}
		if why := def.fault(config.Value); why != "" {
			return nil, refuse(kafka.InvalidConfig, "%s", why)
		}
		if def.Broker == brokerMessageBytes && lim.MessageBytesMax > 0 {
			if numberOf(config.Value) > int64(lim.MessageBytesMax) {
				return nil, refuse(kafka.InvalidConfig, "Invalid value %s for configuration %s: the broker's memory is made for message.max.bytes of at most %d; a larger one needs another --message-max-bytes, and a restart.", config.Value, config.Name, lim.MessageBytesMax)
			}
		}
		bytes += len(config.Name) + len(config.Value)
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
