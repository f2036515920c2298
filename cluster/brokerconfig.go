package cluster

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"
	"strings"

	"github.com/tailbound/tailbound/kafka"
)

// AllBrokers is the node id for configurations that apply to all nodes without a value
// of their own: Kafka's broker resource without a name.
const AllBrokers int32 = -1

// BrokerDef describes one configuration of a broker.
type BrokerDef struct {
	ConfigDef // with Broker equal to Name
	Scope     BrokerScope
	Why       string // ScopeStart: why it cannot change before the next start
}

// BrokerScope says which nodes act on a broker's configuration.
type BrokerScope int8

const (
	ScopeData    BrokerScope = iota // each node that has partitions
	ScopeControl                    // the control shard's node
	ScopeStart                      // none: it needs a restart
)

// Configurations of brokers that shards act on.
const (
	AutoCreateTopics     = "auto.create.topics.enable"
	RetentionCheckMS     = "log.retention.check.interval.ms"
	NumPartitions        = "num.partitions"
	RebalanceDelayMS     = "group.initial.rebalance.delay.ms"
	SessionMinMS         = "group.min.session.timeout.ms"
	SessionMaxMS         = "group.max.session.timeout.ms"
	GroupSizeMax         = "group.max.size"
	ConsumerSessionMS    = "group.consumer.session.timeout.ms"
	ConsumerHeartbeatMS  = "group.consumer.heartbeat.interval.ms"
	ConsumerGroupSizeMax = "group.consumer.max.size"
	ConsumerMigration    = "group.consumer.migration.policy"
	OffsetsRetentionMins = "offsets.retention.minutes"
	brokerMessageBytes   = "message.max.bytes"
)

const flagged = "It is given when the broker is started: "

// brokerDefs are the configurations of a broker, sorted by name: those of topics under
// the broker's names for them, and the broker's own. Names and types: Kafka 4.1's
// AbstractKafkaConfig and GroupCoordinatorConfig. Scopes are Tailbound's own: in Kafka
// fewer configurations can be altered.
var brokerDefs = func() []BrokerDef {
	own := func(name string, kind ConfigType, byDefault string, least, most float64, scope BrokerScope, doc, why string) BrokerDef {
		return BrokerDef{ConfigDef{name, name, kind, byDefault, least, most, nil, doc}, scope, why}
	}
	all := []BrokerDef{
		own("advertised.listeners", ConfigString, "", 0, 0, ScopeStart, "Where clients reach this node.", flagged+"--advertise, or --listen."),
		own(AutoCreateTopics, ConfigBool, "true", 0, 0, ScopeControl, "Whether a topic is made when a client asks for it.", ""),
		own("broker.id", ConfigInt, "", 0, 0, ScopeStart, "The node's number, as node.id.", "Nodes are numbered by their shards."),
		own("connections.max.idle.ms", ConfigLong, "600000", 0, math.MaxInt64, ScopeStart, "A connection that is idle for so long is closed.", "It is a part of the broker."),
		own("default.replication.factor", ConfigInt, "1", 1, 1, ScopeStart, "There is one replica.", "This broker does not replicate."),
		own("delete.topic.enable", ConfigBool, "true", 0, 0, ScopeStart, "Topics can be deleted.", "It is a part of the broker."),
		own("follower.replication.throttled.rate", ConfigLong, "9223372036854775807", 0, math.MaxInt64, ScopeData, noReplication, ""),
		own("group.consumer.assignors", ConfigString, "uniform,range", 0, 0, ScopeStart, "What groups of the consumer protocol are assigned partitions by; the first where members do not say.", "They are a part of the broker."),
		own(ConsumerHeartbeatMS, ConfigInt, "5000", 1, math.MaxInt32, ScopeControl, "How often members of the consumer protocol are to send heartbeats.", ""),
		own("group.consumer.max.heartbeat.interval.ms", ConfigInt, "15000", 1, math.MaxInt32, ScopeControl, "The most a group may have for consumer.heartbeat.interval.ms.", ""),
		own("group.consumer.max.session.timeout.ms", ConfigInt, "60000", 1, math.MaxInt32, ScopeControl, "The most a group may have for consumer.session.timeout.ms.", ""),
		own("group.consumer.min.heartbeat.interval.ms", ConfigInt, "5000", 1, math.MaxInt32, ScopeControl, "The least a group may have for consumer.heartbeat.interval.ms.", ""),
		own("group.consumer.min.session.timeout.ms", ConfigInt, "45000", 1, math.MaxInt32, ScopeControl, "The least a group may have for consumer.session.timeout.ms.", ""),
		own(ConsumerGroupSizeMax, ConfigInt, "2147483647", 1, math.MaxInt32, ScopeControl, "How many members a group of the consumer protocol may have.", ""),
		{ConfigDef{ConsumerMigration, ConsumerMigration, ConfigString, MigrationPolicies[0], 0, 0, MigrationPolicies, "Which groups with members change their protocol: a classic one when a member of the consumer protocol joins (upgrade), one of that protocol when the last such member goes (downgrade), both or neither."}, ScopeControl, ""},
		own(ConsumerSessionMS, ConfigInt, "45000", 1, math.MaxInt32, ScopeControl, "How long a member of the consumer protocol may be silent.", ""),
		own(RebalanceDelayMS, ConfigInt, "3000", 0, math.MaxInt32, ScopeControl, "How long an empty group waits for more members.", ""),
		own(SessionMaxMS, ConfigInt, "1800000", 1, math.MaxInt32, ScopeControl, "The longest session a member may ask for.", ""),
		own(GroupSizeMax, ConfigInt, "1024", 1, math.MaxInt32, ScopeControl, "How many members a group may have.", ""),
		own(SessionMinMS, ConfigInt, "6000", 1, math.MaxInt32, ScopeControl, "The shortest session a member may ask for.", ""),
		own("leader.replication.throttled.rate", ConfigLong, "9223372036854775807", 0, math.MaxInt64, ScopeData, noReplication, ""),
		own("log.dirs", ConfigString, "", 0, 0, ScopeStart, "Where the data lies.", flagged+"--data-dir."),
		own(RetentionCheckMS, ConfigLong, "300000", 1, math.MaxInt64/1e6, ScopeData, "How often the age of each partition is held against its retention; its size is looked at every second.", ""),
		own("max.connections", ConfigInt, "4096", 0, math.MaxInt32, ScopeStart, "How many connections the node takes.", flagged+"--max-connections."),
		own("max.connections.per.ip", ConfigInt, "2147483647", 0, math.MaxInt32, ScopeStart, "How many of them one address may have.", flagged+"--max-connections-per-ip."),
		own("max.incremental.fetch.session.cache.slots", ConfigInt, "1000", 0, math.MaxInt32, ScopeStart, "How many fetch sessions the node keeps.", flagged+"--max-incremental-fetch-session-cache-slots."),
		own("max.connections.per.ip.overrides", ConfigString, "", 0, 0, ScopeStart, "Addresses with a number of their own.", flagged+"--max-connections-per-ip-overrides."),
		own("node.id", ConfigInt, "", 0, 0, ScopeStart, "The node: 0 is the control shard's, i data shard i's.", "Nodes are numbered by their shards."),
		own(NumPartitions, ConfigInt, "1", 1, math.MaxInt32, ScopeControl, "Partitions of a topic that is made without a number.", ""),
		own("offset.metadata.max.bytes", ConfigInt, "4096", 0, math.MaxInt32, ScopeStart, "The longest metadata of a committed offset.", "It is a part of the broker."),
		own(OffsetsRetentionMins, ConfigInt, "10080", 1, math.MaxInt32, ScopeControl, "How long an empty group's offsets are kept.", ""),
		own("socket.request.max.bytes", ConfigInt, "", 0, math.MaxInt32, ScopeStart, "The largest request the node takes: a quarter of its receive memory.", flagged+"it follows from --arena."),
	}
	for _, d := range configDefs {
		if d.Broker != "" {
			d.Name = d.Broker
			all = append(all, BrokerDef{ConfigDef: d})
		}
	}
	slices.SortFunc(all, func(a, b BrokerDef) int { return cmp.Compare(a.Name, b.Name) })
	return all
}()

// BrokerDefs returns the configurations of a broker, sorted by name. Callers do not
// modify it.
func BrokerDefs() []BrokerDef { return brokerDefs }

// LookupBroker returns the description of a broker's configuration.
func LookupBroker(name string) (*BrokerDef, bool) {
	i, ok := slices.BinarySearchFunc(brokerDefs, name, func(def BrokerDef, n string) int { return cmp.Compare(def.Name, n) })
	if !ok {
		return nil, false
	}
	return &brokerDefs[i], true
}

// BrokerConfig returns the value that was set for exactly this node, or exactly for
// AllBrokers.
func (s *State) BrokerConfig(node int32, name string) (value string, ok bool) {
	return configIn(s.brokers.of(node), name)
}

// BrokerValue returns the value that applies at a node: the one set for the node, or
// else for all.
func (s *State) BrokerValue(node int32, name string) (value string, ok bool) {
	if value, ok = s.BrokerConfig(node, name); ok {
		return value, true
	}
	return s.BrokerConfig(AllBrokers, name)
}

// BrokerNumber returns BrokerValue as a number, byDefault if nothing was set.
func (s *State) BrokerNumber(node int32, name string, byDefault int64) int64 {
	if value, ok := s.BrokerValue(node, name); ok {
		return numberOf(value)
	}
	return byDefault
}

// PlanConfigureBroker returns the command that changes the configurations of a node,
// or of AllBrokers. The edits are made to the present ones or, with replace, to none.
// control is the control shard's node, and started returns the numbers with which the
// broker was started. nil without a refusal: nothing would change.
func (s *State) PlanConfigureBroker(node, control int32, edits []ConfigEdit, replace bool, started func(name string) int64, lim Limits) ([]byte, *Refusal) {
	have := s.brokers.of(node)
	for _, edit := range edits {
		def, ok := LookupBroker(edit.Name)
		switch {
		case !ok:
			return nil, refuse(kafka.InvalidConfig, "Unknown broker config name: %s", strings.ToValidUTF8(edit.Name, "?"))
		case def.Scope == ScopeStart:
			return nil, refuse(kafka.InvalidRequest, "Cannot update these configs dynamically: %s. %s", def.Name, def.Why)
		case def.Scope == ScopeControl && node != AllBrokers && node != control:
			return nil, refuse(kafka.InvalidRequest, "Cannot update %s of broker %d: broker %d acts on it alone. Set it there, or for all brokers.", def.Name, node, control)
		}
	}
	sorted, refusal := edited(have, edits, replace, lim, func(name string) *ConfigDef {
		def, _ := LookupBroker(name)
		return &def.ConfigDef
	})
	if refusal != nil {
		return nil, refusal
	}
	// The values that then apply at the control shard's node must be consistent.
	after := func(name string) int64 {
		own, all := s.brokers.of(control), s.brokers.of(AllBrokers)
		switch node {
		case control:
			own = sorted
		case AllBrokers:
			all = sorted
		}
		for _, configs := range [2][]Config{own, all} {
			if value, ok := configIn(configs, name); ok {
				return numberOf(value)
			}
		}
		return started(name)
	}
	if least, most := after(SessionMinMS), after(SessionMaxMS); least > most {
		return nil, refuse(kafka.InvalidConfig, "%s would be %d, and %s %d.", SessionMinMS, least, SessionMaxMS, most)
	}
	if every, session := after(ConsumerHeartbeatMS), after(ConsumerSessionMS); every >= session {
		return nil, refuse(kafka.InvalidConfig, "%s would be %d, and %s %d.", ConsumerHeartbeatMS, every, ConsumerSessionMS, session)
	}
	if n := after(NumPartitions); n > int64(lim.PartitionsPerTopicMax) {
		return nil, refuse(kafka.InvalidConfig, "Invalid value %d for configuration %s: a topic may have at most %d partitions.", n, NumPartitions, lim.PartitionsPerTopicMax)
	}
	if slices.Equal(sorted, have) {
		return nil, nil
	}
	return command(kindConfigureBroker, s.sequence+1, appendBroker(nil, node, sorted)), nil
}

// appendBroker appends a broker entry: node i32, configurations.
func appendBroker(b []byte, node int32, configs []Config) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(node))
	return appendConfigs(b, configs)
}

// applyConfigureBroker applies a broker entry, which replaces the node's
// configurations.
func (s *State) applyConfigureBroker(body []byte) error {
	r := reader{b: body}
	node := int32(r.uint32())
	if r.short || node < AllBrokers {
		return malformed("configurations of broker %d in %d bytes", node, len(body))
	}
	configs, err := r.configsToEnd()
	if err != nil {
		return err
	}
	s.brokers.put(node, configs)
	return nil
}
