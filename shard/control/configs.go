package control

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/kafka"
)

// Configurations of topics, brokers and groups: described, altered and listed. Where a
// value comes from is in config_sources.go.
//
// DescribeConfigs (32): 3 has a configuration's type, and its documentation where that
// is asked for (KIP-569), 4 is flexible. 0 is not served, as by Kafka 4.
//
// AlterConfigs (33): replaces everything that was set. 2 is flexible.
//
// IncrementalAlterConfigs (44): sets, deletes, appends and subtracts (KIP-339). 1 is
// flexible.
//
// ListConfigResources (74): 0 lists what subscribes to clients' metrics (KIP-1000), of
// which there is nothing here. 1 lists resources of the types that are asked for, or of
// all (KIP-1142).

// resource is something that has configurations.
type resource struct {
	kind kmsg.ConfigResourceType
	name string
}

func describeConfigsNames(req *kmsg.DescribeConfigsRequest) int { return len(req.Resources) }

func (c *control) describeConfigs(task *task, req *kmsg.DescribeConfigsRequest, resp *kmsg.DescribeConfigsResponse) {
	described := map[resource]bool{}
	for i := range req.Resources {
		asked := &req.Resources[i]
		if described[resource{asked.ResourceType, asked.ResourceName}] {
			continue // each once, which bounds the answer
		}
		described[resource{asked.ResourceType, asked.ResourceName}] = true
		out := kmsg.NewDescribeConfigsResponseResource()
		out.ResourceType, out.ResourceName = asked.ResourceType, asked.ResourceName
		add := func(name string, kind kmsg.ConfigType, readOnly bool, doc string, from []configValue) {
			if len(asked.ConfigNames) > 0 && !slices.Contains(asked.ConfigNames, name) {
				return
			}
			config := kmsg.NewDescribeConfigsResponseResourceConfig()
			config.Name, config.Value, config.Source, config.ReadOnly, config.ConfigType = name, &from[0].value, from[0].source, readOnly, kind
			config.IsDefault = from[0].source == kmsg.ConfigSourceDefaultConfig
			if req.IncludeSynonyms {
				for k := range from {
					synonym := kmsg.NewDescribeConfigsResponseResourceConfigConfigSynonym()
					synonym.Name, synonym.Value, synonym.Source = from[k].name, &from[k].value, from[k].source
					config.ConfigSynonyms = append(config.ConfigSynonyms, synonym)
				}
			}
			if req.IncludeDocumentation {
				config.Documentation = &doc
			}
			out.Configs = append(out.Configs, config)
		}
		code, message := kafka.None, ""
		switch asked.ResourceType {
		case kmsg.ConfigResourceTypeTopic:
			topic, ok := c.state.Topic(asked.ResourceName)
			if why := cluster.NameFault(asked.ResourceName); why != "" {
				code, message = kafka.InvalidTopic, "Topic name is invalid: "+why
			} else if !ok {
				code, message = kafka.UnknownTopicOrPartition, "This server does not host this topic-partition."
			} else {
				defs := cluster.Configs()
				for k := range defs {
					def := &defs[k]
					add(def.Name, kmsg.ConfigType(def.Type), false, def.Doc, c.topicConfig(topic, def, task.from.Shard))
				}
				if slices.Contains(asked.ConfigNames, lostRecords) {
					add(lostRecords, kmsg.ConfigTypeString, true, lostRecordsDoc, []configValue{{lostRecords, "", kmsg.ConfigSourceUnknown}})
					c.describeLosses(task, topic, resp, len(resp.Resources), len(out.Configs)-1)
				}
			}
		case kmsg.ConfigResourceTypeBroker:
			var node int
			if node, code, message = c.nodeNamed(asked.ResourceName); code != kafka.None {
				break
			}
			defs := cluster.BrokerDefs()
			for k := range defs {
				def := &defs[k]
				if node >= 0 {
					add(def.Name, kmsg.ConfigType(def.Type), def.Scope == cluster.ScopeStart, def.Doc, c.brokerConfig(def.Name, node))
				} else if value, set := c.state.BrokerConfig(cluster.AllBrokers, def.Name); set { // only what was set, as in Kafka
					add(def.Name, kmsg.ConfigType(def.Type), false, def.Doc, []configValue{{def.Name, value, kmsg.ConfigSourceDynamicDefaultBrokerConfig}})
				}
			}
		case kmsg.ConfigResourceTypeGroupConfig: // of any id: the group need not be there
			if asked.ResourceName == "" {
				code, message = kafka.InvalidRequest, "Group name must not be empty"
				break
			}
			defs := cluster.GroupDefs()
			for k := range defs {
				def := &defs[k]
				from := []configValue{{def.Name, def.Default, kmsg.ConfigSourceDefaultConfig}}
				if def.Broker != "" {
					from = c.brokerConfig(def.Broker, 0)
				}
				if value, set := c.state.GroupConfig(asked.ResourceName, def.Name); set {
					from = append([]configValue{{def.Name, value, kmsg.ConfigSourceGroupConfig}}, from...)
				}
				add(def.Name, kmsg.ConfigType(def.Type), false, def.Doc, from)
			}
		case kmsg.ConfigResourceTypeBrokerLogger:
			node, why, text := c.nodeNamed(asked.ResourceName)
			if code, message = why, text; code == kafka.None && node < 0 {
				code, message = kafka.InvalidRequest, "Broker id must not be empty"
			}
			if code == kafka.None { // one logger, whose level is a setting
				add("root", kmsg.ConfigTypeString, true, "The level of the broker's log, which --log-level and a reload of the configuration file set.",
					[]configValue{{"root", c.started.LogLevel, kmsg.ConfigSourceDynamicBrokerLoggerConfig}})
			}
		case kmsg.ConfigResourceTypeClientMetrics:
			if asked.ResourceName == "" {
				code, message = kafka.InvalidRequest, "Client metrics subscription name must not be empty"
			} // otherwise it is a subscription that has nothing: there are none
		default:
			code, message = kafka.InvalidRequest, fmt.Sprintf("Unsupported resource type: %d", asked.ResourceType)
		}
		if code != kafka.None {
			out.ErrorCode, out.ErrorMessage = int16(code), &message
		}
		resp.Resources = append(resp.Resources, out)
	}
}

// nodeNamed returns the index in Nodes of the node that a broker resource names, or -1 for
// "", which stands for all nodes.
func (c *control) nodeNamed(name string) (int, kafka.ErrorCode, string) {
	if name == "" {
		return -1, kafka.None, ""
	}
	id, err := strconv.ParseInt(name, 10, 32)
	if err != nil {
		return -1, kafka.InvalidRequest, "Broker id must be an integer, but it is: " + strings.ToValidUTF8(name, "?")
	}
	for i, node := range c.o.Nodes {
		if node.ID == int32(id) {
			return i, kafka.None, ""
		}
	}
	return -1, kafka.InvalidRequest, fmt.Sprintf("There is no broker %d here.", id)
}

// alteration is how the configurations of one resource are to change.
type alteration struct {
	resource
	edits   []cluster.ConfigEdit
	null    string // the name of a configuration that is set without a value; "" if there is none
	replace bool   // what the edits do not set is deleted
}

func alterConfigsNames(req *kmsg.AlterConfigsRequest) int { return len(req.Resources) }

func (c *control) alterConfigs(task *task, req *kmsg.AlterConfigsRequest, resp *kmsg.AlterConfigsResponse) {
	task.validateOnly = req.ValidateOnly
	all := make([]alteration, len(req.Resources))
	for i := range req.Resources {
		asked := &req.Resources[i]
		all[i] = alteration{resource: resource{asked.ResourceType, asked.ResourceName}, replace: true}
		for _, config := range asked.Configs {
			if config.Value == nil {
				all[i].null = config.Name
				break
			}
			all[i].edits = append(all[i].edits, cluster.ConfigEdit{Op: cluster.ConfigSet, Name: config.Name, Value: *config.Value})
		}
		out := kmsg.NewAlterConfigsResponseResource()
		out.ResourceType, out.ResourceName = asked.ResourceType, asked.ResourceName
		resp.Resources = append(resp.Resources, out)
	}
	c.alter(task, all)
}

func failAlterConfigs(_ *kmsg.AlterConfigsRequest, resp *kmsg.AlterConfigsResponse, item int, code kafka.ErrorCode, message string) {
	if out := &resp.Resources[item]; out.ErrorCode == 0 {
		out.ErrorCode, out.ErrorMessage = int16(code), &message
	}
}

func incrementalAlterConfigsNames(req *kmsg.IncrementalAlterConfigsRequest) int {
	return len(req.Resources)
}

func (c *control) incrementalAlterConfigs(task *task, req *kmsg.IncrementalAlterConfigsRequest, resp *kmsg.IncrementalAlterConfigsResponse) {
	task.validateOnly = req.ValidateOnly
	all := make([]alteration, len(req.Resources))
	for i := range req.Resources {
		asked := &req.Resources[i]
		all[i] = alteration{resource: resource{asked.ResourceType, asked.ResourceName}}
		for _, config := range asked.Configs {
			edit := cluster.ConfigEdit{Op: int8(config.Op), Name: config.Name}
			if config.Value != nil {
				edit.Value = *config.Value
			} else if edit.Op != cluster.ConfigDelete {
				all[i].null = config.Name
				break
			}
			all[i].edits = append(all[i].edits, edit)
		}
		out := kmsg.NewIncrementalAlterConfigsResponseResource()
		out.ResourceType, out.ResourceName = asked.ResourceType, asked.ResourceName
		resp.Resources = append(resp.Resources, out)
	}
	c.alter(task, all)
}

func failIncrementalAlterConfigs(_ *kmsg.IncrementalAlterConfigsRequest, resp *kmsg.IncrementalAlterConfigsResponse, item int, code kafka.ErrorCode, message string) {
	if out := &resp.Resources[item]; out.ErrorCode == 0 {
		out.ErrorCode, out.ErrorMessage = int16(code), &message
	}
}

// alter starts a change for each resource, or fails the resource.
func (c *control) alter(task *task, all []alteration) {
	count := map[resource]int{}
	for i := range all {
		count[all[i].resource]++
	}
	for i := range all {
		alt := &all[i]
		if count[alt.resource] > 1 {
			task.fail(i, kafka.InvalidRequest, "Each resource must appear at most once.")
			continue
		}
		if alt.null != "" {
			task.fail(i, kafka.InvalidRequest, "Null value not supported for : "+alt.null)
			continue
		}
		switch alt.kind {
		case kmsg.ConfigResourceTypeTopic:
			c.enqueue(change{kind: changeConfigure, task: task, item: i, name: alt.name, edits: alt.edits, replace: alt.replace})
		case kmsg.ConfigResourceTypeBroker:
			node, code, message := c.nodeNamed(alt.name)
			if code != kafka.None {
				task.fail(i, code, message)
				continue
			}
			id := cluster.AllBrokers
			if node >= 0 {
				id = c.o.Nodes[node].ID
			}
			c.enqueue(change{kind: changeConfigureBroker, task: task, item: i, node: id, edits: alt.edits, replace: alt.replace})
		case kmsg.ConfigResourceTypeGroupConfig:
			c.enqueue(change{kind: changeConfigureGroup, task: task, item: i, name: alt.name, edits: alt.edits, replace: alt.replace})
		default:
			task.fail(i, kafka.InvalidRequest, fmt.Sprintf("Unsupported resource type: %d", alt.kind))
		}
	}
}

func listConfigResourcesNames(req *kmsg.ListConfigResourcesRequest) int {
	return len(req.ResourceTypes)
}

// listConfigResources lists what DescribeConfigs describes, in Kafka's order: groups that
// have configurations of their own, nodes' loggers, nodes and topics. Subscriptions to metrics
// are a type of Kafka's too, and there are none.
func (c *control) listConfigResources(task *task, req *kmsg.ListConfigResourcesRequest, resp *kmsg.ListConfigResourcesResponse) {
	if req.Version == 0 {
		return
	}
	for _, kind := range req.ResourceTypes {
		switch kmsg.ConfigResourceType(kind) {
		case kmsg.ConfigResourceTypeTopic, kmsg.ConfigResourceTypeBroker, kmsg.ConfigResourceTypeBrokerLogger, kmsg.ConfigResourceTypeClientMetrics, kmsg.ConfigResourceTypeGroupConfig:
		default: // as Kafka: a type is unknown because a later version has it
			resp.ErrorCode = int16(kafka.UnsupportedVersion)
			return
		}
	}
	asked := func(kind kmsg.ConfigResourceType) bool {
		return len(req.ResourceTypes) == 0 || slices.Contains(req.ResourceTypes, int8(kind))
	}
	list := func(kind kmsg.ConfigResourceType, name string) {
		out := kmsg.NewListConfigResourcesResponseConfigResource()
		out.Type, out.Name = int8(kind), name
		resp.ConfigResources = append(resp.ConfigResources, out)
	}
	if asked(kmsg.ConfigResourceTypeGroupConfig) {
		for _, group := range c.state.ConfiguredGroups() {
			list(kmsg.ConfigResourceTypeGroupConfig, group)
		}
	}
	for _, kind := range []kmsg.ConfigResourceType{kmsg.ConfigResourceTypeBrokerLogger, kmsg.ConfigResourceTypeBroker} {
		if !asked(kind) {
			continue
		}
		for _, node := range c.o.ClientNodes(task.from.Listener) {
			list(kind, strconv.Itoa(int(node.ID)))
		}
	}
	if asked(kmsg.ConfigResourceTypeTopic) {
		for _, topic := range c.state.Topics() {
			list(kmsg.ConfigResourceTypeTopic, topic.Name)
		}
	}
}
