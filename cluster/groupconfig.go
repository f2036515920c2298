package cluster

import (
	"slices"
	"strings"

	"github.com/tailbound/tailbound/kafka"
)

// Configurations of groups.
const (
	GroupAssignmentMS = "consumer.assignment.interval.ms"
	GroupHeartbeatMS  = "consumer.heartbeat.interval.ms"
	GroupSessionMS    = "consumer.session.timeout.ms"
)

// groupConfigsMax is how many groups may have configurations of their own.
const groupConfigsMax = 8192

// groupDefs are the configurations of a group, sorted by name. Names and bounds:
// org.apache.kafka.coordinator.group.GroupConfig of Kafka 4.4, without those of share
// and streams groups, which are not served. Those without a broker's have a
// default here: assignments are computed at once, by the coordinator.
var groupDefs = []ConfigDef{
	{GroupAssignmentMS, "", ConfigInt, "0", 0, 15000, nil, "An assignment is computed at most once in this time. Kafka's default is 1000; with 0 who joins gets its partitions at once."},
	{"consumer.assignor.offload.enable", "", ConfigBool, "false", 0, 0, nil, "Accepted for compatibility; assignments are computed by the coordinator's thread."},
	{GroupHeartbeatMS, ConsumerHeartbeatMS, ConfigInt, "5000", 1, 1<<31 - 1, nil, "How often members of the consumer protocol are to send heartbeats."},
	{GroupSessionMS, ConsumerSessionMS, ConfigInt, "45000", 1, 1<<31 - 1, nil, "How long a member of the consumer protocol may be silent."},
}

// GroupDefs returns the configurations that a group may have, sorted by name. Callers
// do not modify it.
func GroupDefs() []ConfigDef { return groupDefs }

// GroupConfig returns the value that was set for a group.
func (s *State) GroupConfig(group, name string) (value string, ok bool) {
	return configIn(s.groupConfigs.of(group), name)
}

// ConfiguredGroups are the ids of the groups that have configurations of their own,
// sorted. There need not be such a group.
func (s *State) ConfiguredGroups() []string {
	ids := make([]string, len(s.groupConfigs))
	for i := range s.groupConfigs {
		ids[i] = s.groupConfigs[i].key
	}
	return ids
}

// GroupNumber returns a group's configuration as a number, byDefault if nothing was
// set.
func (s *State) GroupNumber(group, name string, byDefault int64) int64 {
	if value, ok := s.GroupConfig(group, name); ok {
		return numberOf(value)
	}
	return byDefault
}

// PlanConfigureGroup returns the command that changes a group's configurations. The
// edits are made to the present ones or, with replace, to none. control is the control
// shard's node, and started returns the numbers with which the broker was started. nil
// without a refusal: nothing would change.
func (s *State) PlanConfigureGroup(group string, control int32, edits []ConfigEdit, replace bool, started func(name string) int64, lim Limits) ([]byte, *Refusal) {
	if group == "" {
		return nil, refuse(kafka.InvalidRequest, "Default group resources are not allowed.")
	}
	if len(group) > GroupIDBytesMax {
		return nil, refuse(kafka.InvalidRequest, "The group's id is too long.")
	}
	have := s.groupConfigs.of(group)
	if have == nil && len(s.groupConfigs) >= groupConfigsMax {
		return nil, refuse(kafka.PolicyViolation, "As many groups have configurations of their own as can have them.")
	}
	def := func(name string) *ConfigDef {
		for i := range groupDefs {
			if groupDefs[i].Name == name {
				return &groupDefs[i]
			}
		}
		return nil
	}
	for _, edit := range edits {
		if def(edit.Name) == nil {
			return nil, refuse(kafka.InvalidConfig, "Unknown group config name: %s", strings.ToValidUTF8(edit.Name, "?"))
		}
	}
	sorted, refusal := edited(have, edits, replace, lim, def)
	if refusal != nil {
		return nil, refusal
	}
	broker := func(name string) int64 {
		if number := started(name); number >= 0 {
			return s.BrokerNumber(control, name, number)
		}
		def, _ := LookupBroker(name)
		return s.BrokerNumber(control, name, numberOf(def.Default))
	}
	after := map[string]int64{}
	for _, def := range groupDefs {
		if def.Broker == "" {
			continue
		}
		value, set := configIn(sorted, def.Name)
		if !set {
			after[def.Name] = broker(def.Broker)
			continue
		}
		number := numberOf(value)
		after[def.Name] = number
		least, most := strings.Replace(def.Broker, "consumer.", "consumer.min.", 1), strings.Replace(def.Broker, "consumer.", "consumer.max.", 1)
		if number < broker(least) {
			return nil, refuse(kafka.InvalidConfig, "%s must be greater than or equal to %s", def.Name, least)
		}
		if number > broker(most) {
			return nil, refuse(kafka.InvalidConfig, "%s must be less than or equal to %s", def.Name, most)
		}
	}
	if len(sorted) > 0 && after[GroupSessionMS] <= after[GroupHeartbeatMS] {
		return nil, refuse(kafka.InvalidConfig, "%s must be greater than %s", GroupSessionMS, GroupHeartbeatMS)
	}
	if slices.Equal(sorted, have) {
		return nil, nil
	}
	return command(kindConfigureGroup, s.sequence+1, appendGroupConfigs(nil, group, sorted)), nil
}

// appendGroupConfigs appends a group entry: id, configurations.
func appendGroupConfigs(b []byte, group string, configs []Config) []byte {
	return appendConfigs(appendString(b, group), configs)
}

// applyConfigureGroup applies a group entry, which replaces the group's
// configurations.
func (s *State) applyConfigureGroup(body []byte) error {
	r := reader{b: body}
	group := r.string()
	if r.short || group == "" {
		return malformed("configurations of a group in %d bytes", len(body))
	}
	configs, err := r.configsToEnd()
	if err != nil {
		return err
	}
	s.groupConfigs.put(group, configs)
	return nil
}

// MigrationPolicy says in which direction groups with members may change their
// protocol. A group without members may always.
type MigrationPolicy struct{ Upgrades, Downgrades bool }

// MigrationPolicies are Kafka's names of the policies, its default first.
var MigrationPolicies = []string{"bidirectional", "upgrade", "downgrade", "disabled"}

// ParseMigrationPolicy returns the policy of a name; case does not matter.
func ParseMigrationPolicy(name string) (policy MigrationPolicy, ok bool) {
	switch strings.ToLower(strings.TrimSpace(name)) {
	case "bidirectional":
		return MigrationPolicy{true, true}, true
	case "upgrade":
		return MigrationPolicy{Upgrades: true}, true
	case "downgrade":
		return MigrationPolicy{Downgrades: true}, true
	case "disabled":
		return MigrationPolicy{}, true
	}
	return MigrationPolicy{}, false
}

// String returns the policy's name.
func (p MigrationPolicy) String() string {
	for _, name := range MigrationPolicies {
		if policy, _ := ParseMigrationPolicy(name); p == policy {
			return name
		}
	}
	return ""
}
