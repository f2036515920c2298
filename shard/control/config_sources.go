package control

import (
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/netring"
	"github.com/tailbound/tailbound/shard"
)

// Where a configuration's value comes from, first to last: what was set for the topic or
// the group, for the node, and for all nodes, which commands of the cluster keep; the
// options the broker was started with; the default.

// configValue is one value of a configuration, and where it comes from.
type configValue struct {
	name, value string
	source      kmsg.ConfigSource
}

// topicConfig returns the values of a topic's configuration at a node, the one in force
// first. A nil topic has none of its own.
func (c *control) topicConfig(topic *cluster.Topic, def *cluster.ConfigDef, node int) (out []configValue) {
	if topic != nil {
		if value, set := topic.Config(def.Name); set {
			out = append(out, configValue{def.Name, value, kmsg.ConfigSourceDynamicTopicConfig})
		}
	}
	if def.Broker == "" {
		return append(out, configValue{def.Name, def.Default, kmsg.ConfigSourceDefaultConfig})
	}
	return append(out, c.brokerConfig(def.Broker, node)...)
}

// brokerConfig returns the values of a broker's configuration at a node, the one in force
// first.
func (c *control) brokerConfig(name string, node int) (out []configValue) {
	def, _ := cluster.LookupBroker(name)
	add := func(value string, source kmsg.ConfigSource) { out = append(out, configValue{name, value, source}) }
	if value, set := c.state.BrokerConfig(c.o.Nodes[node].ID, name); set {
		add(value, kmsg.ConfigSourceDynamicBrokerConfig)
	}
	if value, set := c.state.BrokerConfig(cluster.AllBrokers, name); set {
		add(value, kmsg.ConfigSourceDynamicDefaultBrokerConfig)
	}
	if value := c.startedWith(name, node); value != def.Default {
		add(value, kmsg.ConfigSourceStaticBrokerConfig)
	}
	if def.Default != "" || len(out) == 0 {
		add(def.Default, kmsg.ConfigSourceDefaultConfig)
	}
	return out
}

// startedWith returns the value of a configuration that a node was started with.
func (c *control) startedWith(name string, node int) string {
	started := &c.started
	self := started.Nodes[node]
	switch name {
	case "advertised.listeners":
		all := "PLAINTEXT://" + self.Address()
		for i, name := range started.ListenerNames {
			if i == 0 {
				all = name + "://" + self.Address()
			} else {
				all += "," + name + "://" + started.OtherNodes[i-1][node].Address()
			}
		}
		return all
	case "broker.id", "node.id":
		return strconv.Itoa(int(self.ID))
	case "log.dirs":
		return started.DataDir
	case cluster.AutoCreateTopics:
		return strconv.FormatBool(started.AutoCreateTopics)
	case "connections.max.idle.ms":
		return strconv.FormatInt(started.Net.IdleTimeoutNS/1e6, 10)
	case "max.connections":
		return strconv.Itoa(started.Net.ConnsMax)
	case "max.incremental.fetch.session.cache.slots":
		return strconv.Itoa(started.SessionsMax)
	case "max.connections.per.ip.overrides":
		return addressLimits(started.Net.AddressLimits)
	case "socket.request.max.bytes":
		if node == 0 && !started.OneNode() {
			return strconv.Itoa(started.Net.RequestBytesMax)
		}
		return strconv.Itoa(started.DataFrameBytesMax)
	case cluster.ConsumerMigration:
		return started.Groups.Migration.String()
	case "offset.metadata.max.bytes":
		return strconv.Itoa(started.Groups.OffsetMetadataBytesMax)
	}
	if number := c.startedNumber(name); number >= 0 {
		return strconv.FormatInt(number, 10)
	}
	def, _ := cluster.LookupBroker(name)
	return def.Default
}

// startedNumber returns the number that the broker was started with for a configuration, or
// -1 where no option of the broker has that name.
func (c *control) startedNumber(name string) int64 {
	started := &c.started
	switch name {
	case "max.connections.per.ip":
		if started.Net.ConnsPerAddressMax != 0 {
			return int64(max(started.Net.ConnsPerAddressMax, 0))
		}
	case "message.max.bytes":
		return int64(started.MessageBytesMax)
	case cluster.NumPartitions:
		return int64(started.PartitionsDefault)
	case cluster.RetentionCheckMS:
		return started.RetentionCheckNS / 1e6
	case cluster.RebalanceDelayMS:
		return started.Groups.InitialRebalanceDelayMS
	case cluster.SessionMinMS:
		return started.Groups.SessionTimeoutMinMS
	case cluster.SessionMaxMS:
		return started.Groups.SessionTimeoutMaxMS
	case cluster.GroupSizeMax:
		return int64(started.Groups.GroupSizeMax)
	case cluster.ConsumerSessionMS:
		return started.Groups.ConsumerSessionTimeoutMS
	case cluster.ConsumerHeartbeatMS:
		return started.Groups.ConsumerHeartbeatIntervalMS
	case cluster.ConsumerGroupSizeMax:
		return int64(started.Groups.ConsumerGroupSizeMax)
	case cluster.OffsetsRetentionMins:
		return started.Groups.OffsetsRetentionMS / 60000
	}
	return -1
}

func addressLimits(all []netring.AddressLimit) string {
	var list []byte
	for i, limit := range all {
		if i > 0 {
			list = append(list, ',')
		}
		list = append(limit.Address.Append(list), ':')
		list = strconv.AppendInt(list, int64(limit.ConnsMax), 10)
	}
	return string(list)
}

// reload acts on other settings than the broker was started with, if there are any. What
// was set for nodes and topics still takes precedence.
func (c *control) reload() {
	settings := c.shard.Settings()
	if settings == nil {
		return
	}
	started := &c.started
	started.LogLevel = settings.LogLevel
	started.AutoCreateTopics, started.PartitionsDefault, started.RetentionCheckNS = settings.AutoCreateTopics, settings.PartitionsDefault, settings.RetentionCheckNS
	started.Net.ConnsPerAddressMax, started.Net.AddressLimits = settings.ConnsPerAddressMax, settings.AddressLimits
	started.Groups = settings.Groups.(GroupOptions)
	c.configureBrokers()
}

// configureBrokers puts what was set for brokers into force, here and at the data shards.
// It does not send the topics' configurations that depend on it: see configureTopic.
func (c *control) configureBrokers() {
	inForce, node := &c.o, c.started.Nodes[0].ID
	inForce.PartitionsDefault = int(c.state.BrokerNumber(node, cluster.NumPartitions, int64(c.started.PartitionsDefault)))
	inForce.AutoCreateTopics = c.started.AutoCreateTopics
	if value, set := c.state.BrokerValue(node, cluster.AutoCreateTopics); set {
		inForce.AutoCreateTopics = strings.EqualFold(strings.TrimSpace(value), "true")
	}
	c.groups.live.SetOptions(c.groupOptions())
	for i := 1; i <= inForce.DataShards; i++ {
		every := c.state.BrokerNumber(inForce.Nodes[i].ID, cluster.RetentionCheckMS, c.started.RetentionCheckNS/1e6) * 1e6
		if every == c.started.RetentionCheckNS/1e6*1e6 {
			every = c.started.RetentionCheckNS
		}
		c.outgoing = append(c.outgoing, outgoing{to: i, mail: shard.Mail{Kind: shard.MailSettings, A: uint64(every)}})
	}
}
