package cluster

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/tailbound/tailbound/kafka"
)

// GroupConfigs are what was set for one group, which need not exist.
type GroupConfigs struct {
	Group   string
	Configs []Config // sorted by name, each name once; not empty
}

// Configurations of groups.
const (
	GroupHeartbeatMS = "consumer.heartbeat.interval.ms"
	GroupSessionMS   = "consumer.session.timeout.ms"
)

// groupConfigsMax is how many groups may have configurations of their own.
const groupConfigsMax = 8192

// groupDefs are sorted by name; Broker is the broker's configuration that rules
// where a group has none of its own. Names and bounds:
// org.apache.kafka.coordinator.group.GroupConfig of Kafka 4.1. Those of share
// and streams groups are not here, as the groups are not.
var groupDefs = []ConfigDef{
	{GroupHeartbeatMS, ConsumerHeartbeatMS, ConfigInt, "5000", 1, 1<<31 - 1, nil, "How often members of the consumer protocol are to send heartbeats."},
	{GroupSessionMS, ConsumerSessionMS, ConfigInt, "45000", 1, 1<<31 - 1, nil, "How long a member of the consumer protocol may be silent."},
}

// GroupDefs are the configurations a group may have, sorted by name. Not to be
// written.
func GroupDefs() []ConfigDef { return groupDefs }

// GroupConfig is the value that was set for a group.
func (s *State) GroupConfig(group, name string) (value string, ok bool) {
	i, ok := s.groupConfigAt(group)
	if !ok {
		return "", false
	}
	return configIn(s.groupConfigs[i].Configs, name)
}

// GroupNumber is a group's configuration as a number; v where nothing was set.
func (s *State) GroupNumber(group, name string, v int64) int64 {
	if text, ok := s.GroupConfig(group, name); ok {
		v, _ = strconv.ParseInt(strings.TrimSpace(text), 10, 64) // it was checked when it was set
	}
	return v
}

func (s *State) groupConfigAt(group string) (int, bool) {
	return slices.BinarySearchFunc(s.groupConfigs, group, func(g GroupConfigs, id string) int { return cmp.Compare(g.Group, id) })
}

// PlanConfigureGroup proposes other configurations of a group: the edits made
// to those it has or, where replace is set, to none. started are the numbers the
// broker was started with; control is the node that acts on them. nil bytes
// without a refusal: they are these already.
func (s *State) PlanConfigureGroup(group string, control int32, edits []ConfigEdit, replace bool, started func(name string) int64, lim Limits) ([]byte, *Refusal) {
	if group == "" {
		return nil, refuse(kafka.InvalidRequest, "Default group resources are not allowed.")
	}
	if len(group) > GroupIDBytesMax {
		return nil, refuse(kafka.InvalidRequest, "The group's id is too long.")
	}
	i, known := s.groupConfigAt(group)
	var have []Config
	if known {
		have = s.groupConfigs[i].Configs
	} else if len(s.groupConfigs) >= groupConfigsMax {
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
	for _, e := range edits {
		if def(e.Name) == nil {
			return nil, refuse(kafka.InvalidConfig, "Unknown group config name: %s", strings.ToValidUTF8(e.Name, "?"))
		}
	}
	sorted, r := edited(have, edits, replace, lim, def)
	if r != nil {
		return nil, r
	}
	after := map[string]int64{}
	for _, d := range groupDefs {
		broker := func(name string) int64 {
			if v := started(name); v >= 0 {
				return s.BrokerNumber(control, name, v)
			}
			b, _ := LookupBroker(name)
			v, _ := strconv.ParseInt(b.Default, 10, 64)
			return s.BrokerNumber(control, name, v)
		}
		after[d.Name] = broker(d.Broker)
		text, set := configIn(sorted, d.Name)
		if !set {
			continue
		}
		v, _ := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		after[d.Name] = v
		least, most := strings.Replace(d.Broker, "consumer.", "consumer.min.", 1), strings.Replace(d.Broker, "consumer.", "consumer.max.", 1)
		if v < broker(least) {
			return nil, refuse(kafka.InvalidConfig, "%s must be greater than or equal to %s", d.Name, least)
		}
		if v > broker(most) {
			return nil, refuse(kafka.InvalidConfig, "%s must be less than or equal to %s", d.Name, most)
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

// A group's entry: id, configurations.
func appendGroupConfigs(b []byte, group string, configs []Config) []byte {
	return appendConfigs(appendString(b, group), configs)
}

// applyConfigureGroup takes one entry, which replaces what the group had.
func (s *State) applyConfigureGroup(body []byte) error {
	r := reader{b: body}
	group := r.string()
	if r.short || group == "" {
		return malformed("configurations of a group in %d bytes", len(body))
	}
	configs, err := r.configs()
	if err != nil {
		return err
	}
	if len(r.b) != 0 {
		return malformed("configurations of a group with %d bytes too many", len(r.b))
	}
	i, ok := s.groupConfigAt(group)
	switch {
	case ok && len(configs) == 0:
		s.groupConfigs = slices.Delete(s.groupConfigs, i, i+1)
	case ok:
		s.groupConfigs[i].Configs = configs
	case len(configs) > 0:
		s.groupConfigs = slices.Insert(s.groupConfigs, i, GroupConfigs{group, configs})
	}
	return nil
}

// MigrationPolicy says which groups with members may change their protocol.
// Those without may always.
type MigrationPolicy struct{ Upgrades, Downgrades bool }

// MigrationPolicies are the policies by Kafka's names, its default first.
var MigrationPolicies = []string{"bidirectional", "upgrade", "downgrade", "disabled"}

// ParseMigrationPolicy is the policy of that name, in letters of either case.
func ParseMigrationPolicy(name string) (p MigrationPolicy, ok bool) {
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

// String is the policy's name.
func (p MigrationPolicy) String() string {
	for _, name := range MigrationPolicies {
		if q, _ := ParseMigrationPolicy(name); p == q {
			return name
		}
	}
	return ""
}
