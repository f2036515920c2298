package shard

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tailbound/cluster"
	"tailbound/kafka"
)

// Configurations, described and altered. A topic's are commands of the cluster
// and may be altered; a broker's are its flags and may not.

// configValue is one place a configuration's value comes from.
type configValue struct {
	name, value string
	source      kmsg.ConfigSource
}

// topicConfig is where a topic's configuration may come from, the value in
// force first. A nil topic has none of its own.
func (c *control) topicConfig(t *cluster.Topic, d *cluster.ConfigDef) (out []configValue) {
	if t != nil {
		if v, set := t.Config(d.Name); set {
			out = append(out, configValue{d.Name, v, kmsg.ConfigSourceDynamicTopicConfig})
		}
	}
	name := d.Broker
	if name == "" {
		name = d.Name
	}
	if d.Broker == "message.max.bytes" {
		if v := strconv.Itoa(c.s.o.MessageBytesMax); v != d.Default {
			out = append(out, configValue{name, v, kmsg.ConfigSourceStaticBrokerConfig})
		}
	}
	return append(out, configValue{name, d.Default, kmsg.ConfigSourceDefaultConfig})
}

// brokerConfig is a configuration of the broker that is no topic's default.
type brokerConfig struct {
	name, value, byDefault string
	kind                   kmsg.ConfigType
	doc                    string
}

func (c *control) brokerConfigs(node Node) []brokerConfig {
	o := &c.s.o
	return []brokerConfig{
		{"advertised.listeners", fmt.Sprintf("PLAINTEXT://%s:%d", node.Host, node.Port), "", kmsg.ConfigTypeString, "Where clients reach this node: --advertise, or --listen."},
		{"auto.create.topics.enable", strconv.FormatBool(o.AutoCreateTopics), "true", kmsg.ConfigTypeBoolean, "Whether a topic is made when a client asks for it: --auto-create-topics."},
		{"default.replication.factor", "1", "1", kmsg.ConfigTypeInt, "There is one replica."},
		{"delete.topic.enable", "true", "true", kmsg.ConfigTypeBoolean, "Topics can be deleted."},
		{"log.retention.check.interval.ms", strconv.FormatInt(o.RetentionCheckNS/1e6, 10), strconv.Itoa(RetentionCheckNS / 1e6), kmsg.ConfigTypeLong, "How often each partition is held against its retention: --retention-check-interval."},
		{"log.dirs", o.DataDir, "", kmsg.ConfigTypeString, "Where the data lies: --data-dir."},
		{"node.id", strconv.Itoa(int(node.ID)), "", kmsg.ConfigTypeInt, "The node: 0 is the control shard's, i data shard i's."},
		{"num.partitions", strconv.Itoa(o.PartitionsDefault), "1", kmsg.ConfigTypeInt, "Partitions of a topic that is made without a number: --num-partitions."},
	}
}

// resource is what has configurations.
type resource struct {
	kind kmsg.ConfigResourceType
	name string
}

func (c *control) describeConfigs(r *kmsg.DescribeConfigsRequest, resp *kmsg.DescribeConfigsResponse) {
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
					add(d.Name, kmsg.ConfigType(d.Type), false, d.Doc, c.topicConfig(t, d))
				}
			}
		case kmsg.ConfigResourceTypeBroker:
			var node Node
			if node, code, message = c.nodeNamed(q.ResourceName); code != kafka.None || q.ResourceName == "" {
				break // the defaults of all brokers are none: nothing of a broker is dynamic
			}
			for k := range configs {
				if d := &configs[k]; d.Broker != "" {
					add(d.Broker, kmsg.ConfigType(d.Type), true, d.Doc, c.topicConfig(nil, d))
				}
			}
			for _, b := range c.brokerConfigs(node) {
				var from []configValue
				if b.value != b.byDefault {
					from = append(from, configValue{b.name, b.value, kmsg.ConfigSourceStaticBrokerConfig})
				}
				if b.byDefault != "" {
					from = append(from, configValue{b.name, b.byDefault, kmsg.ConfigSourceDefaultConfig})
				}
				add(b.name, b.kind, true, b.doc, from)
			}
			slices.SortFunc(x.Configs, func(a, b kmsg.DescribeConfigsResponseResourceConfig) int { return strings.Compare(a.Name, b.Name) })
		default:
			code, message = kafka.InvalidRequest, fmt.Sprintf("Unsupported resource type: %d", q.ResourceType)
		}
		if code != kafka.None {
			x.ErrorCode, x.ErrorMessage = int16(code), &message
		}
		resp.Resources = append(resp.Resources, x)
	}
}

// nodeNamed is the node a broker resource names; "" names all of them.
func (c *control) nodeNamed(name string) (Node, kafka.ErrorCode, string) {
	if name == "" {
		return Node{}, kafka.None, ""
	}
	id, err := strconv.ParseInt(name, 10, 32)
	if err != nil {
		return Node{}, kafka.InvalidRequest, "Broker id must be an integer, but it is: " + name
	}
	for _, n := range c.s.o.Nodes {
		if n.ID == int32(id) {
			return n, kafka.None, ""
		}
	}
	return Node{}, kafka.InvalidRequest, fmt.Sprintf("There is no broker %d here.", id)
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
			t.fail(i, int16(kafka.InvalidRequest), "Each resource must appear at most once.")
		case a.null != "":
			t.fail(i, int16(kafka.InvalidRequest), "Null value not supported for : "+a.null)
		case a.kind == kmsg.ConfigResourceTypeTopic:
			t.pending++
			c.changes = append(c.changes, change{kind: changeConfigure, task: t, item: i, name: a.name, edits: a.edits, replace: a.replace})
		case a.kind == kmsg.ConfigResourceTypeBroker:
			c.alterBroker(t, i, a)
		default:
			t.fail(i, int16(kafka.InvalidRequest), fmt.Sprintf("Unsupported resource type: %d", a.kind))
		}
	}
}

// alterBroker refuses: a broker is configured by its flags.
func (c *control) alterBroker(t *task, item int, a *alteration) {
	node, code, message := c.nodeNamed(a.name)
	if code != kafka.None {
		t.fail(item, int16(code), message)
		return
	}
	known := func(name string) bool {
		return slices.ContainsFunc(cluster.Configs(), func(d cluster.ConfigDef) bool { return d.Broker != "" && d.Broker == name }) ||
			slices.ContainsFunc(c.brokerConfigs(node), func(b brokerConfig) bool { return b.name == name })
	}
	for _, e := range a.edits {
		if !known(e.Name) {
			t.fail(item, int16(kafka.InvalidConfig), "Unknown broker config name: "+strings.ToValidUTF8(e.Name, "?"))
			return
		}
		t.fail(item, int16(kafka.InvalidRequest), "Cannot update these configs dynamically: "+e.Name+". A broker is configured by its flags.")
	}
}
