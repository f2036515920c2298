package control

import (
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/netring"
	"github.com/tailbound/tailbound/shard"
)

// Where a configuration's value comes from. What was set for a topic, a node or all
// nodes are commands of the cluster; beneath lie the flags the broker was started with,
// and beneath those the defaults.

// configValue is one place a configuration's value comes from.
type configValue struct {
	name, value string
	source      kmsg.ConfigSource
}

// topicConfig is where a topic's configuration may come from at a node, the
// value in force first. A nil topic has none of its own.
func (c *control) topicConfig(t *cluster.Topic, d *cluster.ConfigDef, node int) (out []configValue) {
	if t != nil {
		if v, set := t.Config(d.Name); set {
			out = append(out, configValue{d.Name, v, kmsg.ConfigSourceDynamicTopicConfig})
		}
	}
	if d.Broker == "" {
		return append(out, configValue{d.Name, d.Default, kmsg.ConfigSourceDefaultConfig})
	}
	return append(out, c.brokerConfig(d.Broker, node)...)
}

// brokerConfig is where a broker's configuration may come from at a node, the
// value in force first.
func (c *control) brokerConfig(name string, node int) (out []configValue) {
	d, _ := cluster.LookupBroker(name)
	add := func(value string, source kmsg.ConfigSource) { out = append(out, configValue{name, value, source}) }
	if v, set := c.state.BrokerConfig(c.o.Nodes[node].ID, name); set {
		add(v, kmsg.ConfigSourceDynamicBrokerConfig)
	}
	if v, set := c.state.BrokerConfig(cluster.AllBrokers, name); set {
		add(v, kmsg.ConfigSourceDynamicDefaultBrokerConfig)
	}
	if v := c.startedWith(name, node); v != d.Default {
		add(v, kmsg.ConfigSourceStaticBrokerConfig)
	}
	if d.Default != "" || len(out) == 0 {
		add(d.Default, kmsg.ConfigSourceDefaultConfig)
	}
	return out
}

// startedWith is what a node was started with.
func (c *control) startedWith(name string, node int) string {
	o := &c.started
	n := o.Nodes[node]
	switch name {
	case "advertised.listeners":
		all := "PLAINTEXT://" + n.Address()
		for i, name := range o.ListenerNames {
			if i == 0 {
				all = name + "://" + n.Address()
			} else {
				all += "," + name + "://" + o.OtherNodes[i-1][node].Address()
			}
		}
		return all
	case "broker.id", "node.id":
		return strconv.Itoa(int(n.ID))
	case "log.dirs":
		return o.DataDir
	case cluster.AutoCreateTopics:
		return strconv.FormatBool(o.AutoCreateTopics)
	case "connections.max.idle.ms":
		return strconv.FormatInt(o.Net.IdleTimeoutNS/1e6, 10)
	case "max.connections":
		return strconv.Itoa(o.Net.ConnsMax)
	case "max.incremental.fetch.session.cache.slots":
		return strconv.Itoa(o.SessionsMax)
	case "max.connections.per.ip.overrides":
		return addressLimits(o.Net.AddressLimits)
	case "socket.request.max.bytes":
		if node == 0 && !o.OneNode() {
			return strconv.Itoa(o.Net.RequestBytesMax)
		}
		return strconv.Itoa(o.DataFrameBytesMax)
	case cluster.ConsumerMigration:
		return o.Groups.Migration.String()
	case "offset.metadata.max.bytes":
		return strconv.Itoa(o.Groups.OffsetMetadataBytesMax)
	}
	if v := c.startedNumber(name); v >= 0 {
		return strconv.FormatInt(v, 10)
	}
	d, _ := cluster.LookupBroker(name)
	return d.Default
}

// startedNumber is a number the broker was started with, -1 where its flags do
// not know the name.
func (c *control) startedNumber(name string) int64 {
	o := &c.started
	switch name {
	case "max.connections.per.ip":
		if o.Net.ConnsPerAddressMax != 0 {
			return int64(max(o.Net.ConnsPerAddressMax, 0))
		}
	case "message.max.bytes":
		return int64(o.MessageBytesMax)
	case cluster.NumPartitions:
		return int64(o.PartitionsDefault)
	case cluster.RetentionCheckMS:
		return o.RetentionCheckNS / 1e6
	case cluster.RebalanceDelayMS:
		return o.Groups.InitialRebalanceDelayMS
	case cluster.SessionMinMS:
		return o.Groups.SessionTimeoutMinMS
	case cluster.SessionMaxMS:
		return o.Groups.SessionTimeoutMaxMS
	case cluster.GroupSizeMax:
		return int64(o.Groups.GroupSizeMax)
	case cluster.ConsumerSessionMS:
		return o.Groups.ConsumerSessionTimeoutMS
	case cluster.ConsumerHeartbeatMS:
		return o.Groups.ConsumerHeartbeatIntervalMS
	case cluster.ConsumerGroupSizeMax:
		return int64(o.Groups.ConsumerGroupSizeMax)
	case cluster.OffsetsRetentionMins:
		return o.Groups.OffsetsRetentionMS / 60000
	}
	return -1
}

func addressLimits(all []netring.AddressLimit) string {
	var list []byte
	for i, l := range all {
		if i > 0 {
			list = append(list, ',')
		}
		list = append(l.Address.Append(list), ':')
		list = strconv.AppendInt(list, int64(l.ConnsMax), 10)
	}
	return string(list)
}

// configureBrokers puts what was set for brokers in force: here, and at the data
// shards. Topics' configurations that follow from it are configureTopic's to send.
func (c *control) configureBrokers() {
	o, node := &c.o, c.started.Nodes[0].ID
	o.PartitionsDefault = int(c.state.BrokerNumber(node, cluster.NumPartitions, int64(c.started.PartitionsDefault)))
	o.AutoCreateTopics = c.started.AutoCreateTopics
	if v, set := c.state.BrokerValue(node, cluster.AutoCreateTopics); set {
		o.AutoCreateTopics = strings.EqualFold(strings.TrimSpace(v), "true")
	}
	c.groups.live.SetOptions(c.groupOptions())
	for i := 1; i <= o.DataShards; i++ {
		every := c.state.BrokerNumber(o.Nodes[i].ID, cluster.RetentionCheckMS, c.started.RetentionCheckNS/1e6) * 1e6
		if every == c.started.RetentionCheckNS/1e6*1e6 {
			every = c.started.RetentionCheckNS
		}
		c.outgoing = append(c.outgoing, outgoing{to: i, m: shard.Mail{Kind: shard.MailSettings, A: uint64(every)}})
	}
}
