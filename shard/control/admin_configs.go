package control

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/netring"
	"github.com/tailbound/tailbound/shard"
)

// Configurations, described and altered. What was set for a topic, a node or all
// nodes are commands of the cluster; beneath lie the flags the broker was
// started with.

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

// brokerConfigured puts what was set for brokers in force: here, and at the data
// shards. Topics' configurations that follow from it are told by tellConfig.
func (c *control) brokerConfigured() {
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
		c.errands = append(c.errands, errand{to: i, m: shard.Mail{Kind: shard.MailSettings, A: uint64(every)}})
	}
}

// resource is what has configurations.
type resource struct {
	kind kmsg.ConfigResourceType
	name string
}

func (c *control) describeConfigs(by int, r *kmsg.DescribeConfigsRequest, resp *kmsg.DescribeConfigsResponse) {
	described := map[resource]bool{}
	for i := range r.Resources {
		q := &r.Resources[i]
		if described[resource{q.ResourceType, q.ResourceName}] {
			continue // once is enough, and bounds the answer
		}
		described[resource{q.ResourceType, q.ResourceName}] = true
		x := kmsg.NewDescribeConfigsResponseResource()
		x.ResourceType, x.ResourceName = q.ResourceType, q.ResourceName
		add := func(name string, kind kmsg.ConfigType, readOnly bool, doc string, from []configValue) {
			if len(q.ConfigNames) > 0 && !slices.Contains(q.ConfigNames, name) {
				return
			}
			e := kmsg.NewDescribeConfigsResponseResourceConfig()
			e.Name, e.Value, e.Source, e.ReadOnly, e.ConfigType = name, &from[0].value, from[0].source, readOnly, kind
			e.IsDefault = from[0].source == kmsg.ConfigSourceDefaultConfig
			if r.IncludeSynonyms {
				for k := range from {
					y := kmsg.NewDescribeConfigsResponseResourceConfigConfigSynonym()
					y.Name, y.Value, y.Source = from[k].name, &from[k].value, from[k].source
					e.ConfigSynonyms = append(e.ConfigSynonyms, y)
				}
			}
			if r.IncludeDocumentation {
				e.Documentation = &doc
			}
			x.Configs = append(x.Configs, e)
		}
		configs := cluster.Configs()
		code, message := kafka.None, ""
		switch q.ResourceType {
		case kmsg.ConfigResourceTypeTopic:
			t, ok := c.state.Topic(q.ResourceName)
			if why := cluster.NameFault(q.ResourceName); why != "" {
				code, message = kafka.InvalidTopic, "Topic name is invalid: "+why
			} else if !ok {
				code, message = kafka.UnknownTopicOrPartition, "This server does not host this topic-partition."
			} else {
				for k := range configs {
					d := &configs[k]
					add(d.Name, kmsg.ConfigType(d.Type), false, d.Doc, c.topicConfig(t, d, by))
				}
			}
		case kmsg.ConfigResourceTypeBroker:
			var node int
			if node, code, message = c.nodeNamed(q.ResourceName); code != kafka.None {
				break
			}
			defs := cluster.BrokerDefs()
			for k := range defs {
				d := &defs[k]
				if node >= 0 {
					add(d.Name, kmsg.ConfigType(d.Type), d.Scope == cluster.ScopeStart, d.Doc, c.brokerConfig(d.Name, node))
				} else if v, set := c.state.BrokerConfig(cluster.AllBrokers, d.Name); set { // only what was set, as in Kafka
					add(d.Name, kmsg.ConfigType(d.Type), false, d.Doc, []configValue{{d.Name, v, kmsg.ConfigSourceDynamicDefaultBrokerConfig}})
				}
			}
		case kmsg.ConfigResourceTypeGroupConfig: // of any id: the group need not be there
			if q.ResourceName == "" {
				code, message = kafka.InvalidRequest, "Group name must not be empty"
				break
			}
			defs := cluster.GroupDefs()
			for k := range defs {
				d := &defs[k]
				from := c.brokerConfig(d.Broker, 0)
				if v, set := c.state.GroupConfig(q.ResourceName, d.Name); set {
					from = append([]configValue{{d.Name, v, kmsg.ConfigSourceGroupConfig}}, from...)
				}
				add(d.Name, kmsg.ConfigType(d.Type), false, d.Doc, from)
			}
		default:
			code, message = kafka.InvalidRequest, fmt.Sprintf("Unsupported resource type: %d", q.ResourceType)
		}
		if code != kafka.None {
			x.ErrorCode, x.ErrorMessage = int16(code), &message
		}
		resp.Resources = append(resp.Resources, x)
	}
}

// nodeNamed is the place among the nodes of the one that a broker resource
// names; -1 for "", which is all of them.
func (c *control) nodeNamed(name string) (int, kafka.ErrorCode, string) {
	if name == "" {
		return -1, kafka.None, ""
	}
	id, err := strconv.ParseInt(name, 10, 32)
	if err != nil {
		return -1, kafka.InvalidRequest, "Broker id must be an integer, but it is: " + strings.ToValidUTF8(name, "?")
	}
	for i, n := range c.o.Nodes {
		if n.ID == int32(id) {
			return i, kafka.None, ""
		}
	}
	return -1, kafka.InvalidRequest, fmt.Sprintf("There is no broker %d here.", id)
}

// alteration is what is to become of one resource's configurations.
type alteration struct {
	kind    kmsg.ConfigResourceType
	name    string
	edits   []cluster.ConfigEdit
	null    string // a configuration that has no value and needs one
	replace bool
}

func (c *control) alterConfigs(t *task, r *kmsg.AlterConfigsRequest, resp *kmsg.AlterConfigsResponse) {
	all := make([]alteration, len(r.Resources))
	for i := range r.Resources {
		q := &r.Resources[i]
		a := &all[i]
		*a = alteration{kind: q.ResourceType, name: q.ResourceName, replace: true}
		for _, k := range q.Configs {
			if k.Value == nil {
				a.null = k.Name
				break
			}
			a.edits = append(a.edits, cluster.ConfigEdit{Op: cluster.ConfigSet, Name: k.Name, Value: *k.Value})
		}
		x := kmsg.NewAlterConfigsResponseResource()
		x.ResourceType, x.ResourceName = q.ResourceType, q.ResourceName
		resp.Resources = append(resp.Resources, x)
	}
	c.alter(t, all)
}

func (c *control) incrementalAlterConfigs(t *task, r *kmsg.IncrementalAlterConfigsRequest, resp *kmsg.IncrementalAlterConfigsResponse) {
	all := make([]alteration, len(r.Resources))
	for i := range r.Resources {
		q := &r.Resources[i]
		a := &all[i]
		*a = alteration{kind: q.ResourceType, name: q.ResourceName}
		for _, k := range q.Configs {
			e := cluster.ConfigEdit{Op: int8(k.Op), Name: k.Name}
			if k.Value != nil {
				e.Value = *k.Value
			} else if e.Op != cluster.ConfigDelete {
				a.null = k.Name
				break
			}
			a.edits = append(a.edits, e)
		}
		x := kmsg.NewIncrementalAlterConfigsResponseResource()
		x.ResourceType, x.ResourceName = q.ResourceType, q.ResourceName
		resp.Resources = append(resp.Resources, x)
	}
	c.alter(t, all)
}

// alter begins the changes of a task, one for each resource, or says why not.
func (c *control) alter(t *task, all []alteration) {
	count := map[resource]int{}
	for i := range all {
		count[resource{all[i].kind, all[i].name}]++
	}
	for i := range all {
		a := &all[i]
		switch {
		case count[resource{a.kind, a.name}] > 1:
			t.fail(i, kafka.InvalidRequest, "Each resource must appear at most once.")
		case a.null != "":
			t.fail(i, kafka.InvalidRequest, "Null value not supported for : "+a.null)
		case a.kind == kmsg.ConfigResourceTypeTopic:
			t.pending++
			c.changes = append(c.changes, change{kind: changeConfigure, task: t, item: i, name: a.name, edits: a.edits, replace: a.replace})
		case a.kind == kmsg.ConfigResourceTypeBroker:
			c.alterBroker(t, i, a)
		case a.kind == kmsg.ConfigResourceTypeGroupConfig:
			t.pending++
			c.changes = append(c.changes, change{kind: changeConfigureGroup, task: t, item: i, name: a.name, edits: a.edits, replace: a.replace})
		default:
			t.fail(i, kafka.InvalidRequest, fmt.Sprintf("Unsupported resource type: %d", a.kind))
		}
	}
}

// alterBroker begins a change of what a node, or all of them, are configured to.
func (c *control) alterBroker(t *task, item int, a *alteration) {
	node, code, message := c.nodeNamed(a.name)
	if code != kafka.None {
		t.fail(item, code, message)
		return
	}
	id := cluster.AllBrokers
	if node >= 0 {
		id = c.o.Nodes[node].ID
	}
	t.pending++
	c.changes = append(c.changes, change{kind: changeConfigureBroker, task: t, item: item, node: id, edits: a.edits, replace: a.replace})
}
