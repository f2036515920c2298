package cluster

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// ConfigType is the type of a configuration's value, numbered as in DescribeConfigs
// responses.
// Source: Kafka's DescribeConfigsResponse.json, ConfigType.
type ConfigType int8

// The types of configuration values.
const (
	ConfigBool   ConfigType = 1
	ConfigString ConfigType = 2
	ConfigInt    ConfigType = 3
	ConfigLong   ConfigType = 5
	ConfigDouble ConfigType = 6
	ConfigList   ConfigType = 7
)

// ConfigDef describes a configuration of a topic or a group.
type ConfigDef struct {
	Name string
	// Broker is the broker's configuration that applies if the topic has no value of
	// its own; "": none.
	Broker  string
	Type    ConfigType
	Default string
	// Min and Max bound numbers. Choices are the allowed strings, numbers or members of
	// lists; nil allows any. A list without Choices is of throttled replicas.
	Min, Max float64
	Choices  []string
	Doc      string
}

// makesRoom are the configurations by which data is removed: retention's, and those by
// which segments end, as only whole segments are removed. Those of brokers are there too.
var makesRoom = []string{
	retentionMS, retentionBytes, segmentMS, segmentBytes,
	"log.retention.ms", "log.retention.bytes", "log.roll.ms", "log.segment.bytes", RetentionCheckMS, OffsetsRetentionMins,
}

// MakesRoom reports that data may be removed where a configuration is altered. Such a
// change is taken where the control log has little room left.
func MakesRoom(name string) bool { return slices.Contains(makesRoom, name) }

// configDefs are the topic configurations that may be set, sorted by name.
// Names, types and ranges: org.apache.kafka.common.config.TopicConfig and
// org.apache.kafka.storage.internals.log.LogConfig of Kafka 4.4; the brokers'
// names: org.apache.kafka.server.config.ServerTopicConfigSynonyms. A value that asks
// for a feature the broker lacks is not among the choices: a promise that cannot be
// kept is refused, not stored. A value that asks for nothing here, such as a level of
// compression where nothing is compressed again, is taken: mirrors and tools send what
// their source has.
var configDefs = []ConfigDef{
	{cleanupPolicy, "log.cleanup.policy", ConfigList, "delete", 0, 0, []string{"delete"}, "What becomes of old data: it is deleted, by retention.ms and retention.bytes; empty, it is kept until DeleteRecords removes it. Compaction is not there yet."},
	{"compression.gzip.level", "compression.gzip.level", ConfigInt, "-1", -1, 9, []string{"-1", "1", "2", "3", "4", "5", "6", "7", "8", "9"}, noRecompression},
	{"compression.lz4.level", "compression.lz4.level", ConfigInt, "9", 1, 17, nil, noRecompression},
	{"compression.type", "compression.type", ConfigString, "producer", 0, 0, []string{"producer"}, "Batches are stored as they arrive, never recompressed."},
	{"compression.zstd.level", "compression.zstd.level", ConfigInt, "3", -131072, 22, nil, noRecompression},
	{"delete.retention.ms", "log.cleaner.delete.retention.ms", ConfigLong, "86400000", 0, math.MaxInt64, nil, "Has no effect without compaction."},
	{"errors.deadletterqueue.group.enable", "", ConfigBool, "false", 0, 0, []string{"false"}, "Whether the topic may be a share group's dead-letter queue; there are no share groups."},
	{"file.delete.delay.ms", "log.segment.delete.delay.ms", ConfigLong, "60000", 0, math.MaxInt64, nil, "Accepted for compatibility; a file is deleted when the last read of it has ended."},
	{"flush.messages", "log.flush.interval.messages", ConfigLong, "1", 1, math.MaxInt64, nil, "Accepted for compatibility; every acknowledged record is synced."},
	{"flush.ms", "log.flush.interval.ms", ConfigLong, "0", 0, math.MaxInt64, nil, "Accepted for compatibility; every acknowledged record is synced."},
	{"follower.replication.throttled.replicas", "", ConfigList, "", 0, 0, nil, noReplication},
	{"index.interval.bytes", "log.index.interval.bytes", ConfigInt, "4096", 0, math.MaxInt32, nil, "Accepted for compatibility; every run is indexed."},
	{latencyObjective, "", ConfigLong, "-1", -1, 3600000, nil, "How long a produce or a fetch of the topic may take, from its last byte until its answer was taken, without what a fetch waits for data; -1 is no objective. Requests that keep it and do not are counted: tailbound profile watch slo."},
	{latencyTarget, "", ConfigDouble, "0.999", 0, 0.999999, nil, "Which share of a topic's requests is to keep latency.slo.ms. The rest is its error budget."},
	{"leader.replication.throttled.replicas", "", ConfigList, "", 0, 0, nil, noReplication},
	{"local.retention.bytes", "log.local.retention.bytes", ConfigLong, "-2", -2, math.MaxInt64, nil, noTiers},
	{"local.retention.ms", "log.local.retention.ms", ConfigLong, "-2", -2, math.MaxInt64, nil, noTiers},
	{"max.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms", ConfigLong, "9223372036854775807", 1, math.MaxInt64, nil, "Has no effect without compaction."},
	{"max.decompressed.message.bytes", "max.decompressed.message.bytes", ConfigInt, "2147483639", 0, math.MaxInt32, []string{"2147483639"}, "How large a compressed record may be once it is opened. Batches are stored unopened, so there is no other limit."},
	{maxMessageBytes, "message.max.bytes", ConfigInt, "1048588", 0, math.MaxInt32, nil, "The largest record batch that is taken. It cannot be above the broker's message.max.bytes, which its memory is made for."},
	{timestampAfter, "log.message.timestamp.after.max.ms", ConfigLong, "3600000", 0, math.MaxInt64, nil, "How far a record's time may be ahead of the broker's, with CreateTime. Of a compressed batch the header's times are looked at."},
	{timestampBefore, "log.message.timestamp.before.max.ms", ConfigLong, "9223372036854775807", 0, math.MaxInt64, nil, "How far a record's time may be behind the broker's, with CreateTime. Of a compressed batch the header's times are looked at."},
	{timestampType, "log.message.timestamp.type", ConfigString, "CreateTime", 0, 0, []string{"CreateTime", "LogAppendTime"}, "Whose clock stamps records: CreateTime, the producer's; LogAppendTime, the broker's when it appends."},
	{"min.cleanable.dirty.ratio", "log.cleaner.min.cleanable.ratio", ConfigDouble, "0.5", 0, 1, nil, "Has no effect without compaction."},
	{"min.compaction.lag.ms", "log.cleaner.min.compaction.lag.ms", ConfigLong, "0", 0, math.MaxInt64, nil, "Has no effect without compaction."},
	{"min.insync.replicas", "min.insync.replicas", ConfigInt, "1", 1, 1, nil, "How many replicas must have a record; there is one."},
	{"preallocate", "log.preallocate", ConfigBool, "false", 0, 0, nil, "Accepted for compatibility; segments are prepared by their own rule."},
	{"remote.copy.lag.bytes", "", ConfigLong, "-1", -1, math.MaxInt64, nil, noTiers},
	{"remote.copy.lag.ms", "", ConfigLong, "0", -1, math.MaxInt64, nil, noTiers},
	{"remote.log.copy.disable", "", ConfigBool, "false", 0, 0, nil, noTiers},
	{"remote.log.delete.on.disable", "", ConfigBool, "false", 0, 0, nil, noTiers},
	{"remote.storage.enable", "", ConfigBool, "false", 0, 0, []string{"false"}, "Whether segments are kept in tiered storage, which there is none of."},
	{retentionBytes, "log.retention.bytes", ConfigLong, "-1", -1, math.MaxInt64, nil, "A partition larger than this loses its oldest segments; -1 is no limit."},
	{retentionMS, "log.retention.ms", ConfigLong, "604800000", -1, math.MaxInt64, nil, "A segment whose newest record is older than this is deleted; -1 is no limit. Records without a time do not age."},
	{segmentBytes, "log.segment.bytes", ConfigInt, "1073741824", 1 << 20, math.MaxInt32, nil, "The size at which a new segment is begun. A segment is never larger than the broker's own 256 MiB."},
	{"segment.index.bytes", "log.index.size.max.bytes", ConfigInt, "10485760", 4, math.MaxInt32, nil, "Accepted for compatibility; has no effect."},
	{"segment.jitter.ms", "log.roll.jitter.ms", ConfigLong, "0", 0, math.MaxInt64, nil, "Accepted for compatibility; has no effect."},
	{segmentMS, "log.roll.ms", ConfigLong, "604800000", 1, math.MaxInt64, nil, "A segment older than this takes no more records: the next append begins a new one."},
	{"unclean.leader.election.enable", "unclean.leader.election.enable", ConfigBool, "false", 0, 0, nil, noReplication},
	{writeCaching, "", ConfigBool, "false", 0, 0, nil, "With true, records are acknowledged, and can be read, before they are on stable storage: a crash loses those of the last moments."},
}

// What configurations of features that are not here are described as.
const (
	noRecompression = "Has no effect: batches are stored as they arrive."
	noReplication   = "Has no effect without replication."
	noTiers         = "Has no effect without tiered storage."
)

// The configurations that have an effect.
const (
	cleanupPolicy    = "cleanup.policy"
	latencyObjective = "latency.slo.ms"
	latencyTarget    = "latency.slo.target"
	maxMessageBytes  = "max.message.bytes"
	timestampAfter   = "message.timestamp.after.max.ms"
	timestampBefore  = "message.timestamp.before.max.ms"
	timestampType    = "message.timestamp.type"
	retentionBytes   = "retention.bytes"
	retentionMS      = "retention.ms"
	segmentBytes     = "segment.bytes"
	segmentMS        = "segment.ms"
	writeCaching     = "write.caching"
)

// LogConfig is the part of a topic's configuration that the shards of its logs use, as
// numbers.
type LogConfig struct {
	RetentionMS     int64 // -1: no limit
	RetentionBytes  int64 // of one partition; -1: no limit
	SegmentBytes    int64
	SegmentMS       int64
	MessageBytesMax int64 // -1: the broker's
	BeforeMaxMS     int64 // how far a record's timestamp may be behind
	AfterMaxMS      int64 // how far it may be ahead
	AppendTime      bool  // records get the broker's time as their timestamp
	WriteCaching    bool  // records are acknowledged from memory
	ObjectiveMS     int64 // the latency objective of a request; -1: none
	ObjectivePPM    int64 // how many of a million requests are to meet it
}

// LogConfig returns a topic's configuration at a node. Each value is the one set for
// the topic, or else for the node, or else for all nodes, or else the default.
func (s *State) LogConfig(topic *Topic, node int32) LogConfig {
	value := func(name string) (v string, set bool) {
		if v, set = topic.Config(name); set {
			return v, true
		}
		def, _ := LookupConfig(name)
		if v, set = s.BrokerValue(node, def.Broker); set {
			return v, true
		}
		return def.Default, false
	}
	number := func(name string) int64 {
		text, _ := value(name)
		return numberOf(text)
	}
	largest := int64(-1)
	if _, set := value(maxMessageBytes); set {
		largest = number(maxMessageBytes)
	}
	stamps, _ := value(timestampType)
	age, size := number(retentionMS), number(retentionBytes)
	if policy, _ := value(cleanupPolicy); strings.TrimSpace(policy) == "" {
		age, size = -1, -1 // nothing is deleted by itself (KIP-1161)
	}
	caching, _ := value(writeCaching)
	target, _ := value(latencyTarget)
	share, _ := strconv.ParseFloat(strings.TrimSpace(target), 64) // checked when it was set
	return LogConfig{
		RetentionMS: age, RetentionBytes: size,
		SegmentBytes: number(segmentBytes), SegmentMS: number(segmentMS), MessageBytesMax: largest,
		BeforeMaxMS: number(timestampBefore), AfterMaxMS: number(timestampAfter), AppendTime: stamps == "LogAppendTime", WriteCaching: strings.EqualFold(strings.TrimSpace(caching), "true"),
		ObjectiveMS: number(latencyObjective), ObjectivePPM: int64(math.Round(share * 1e6)),
	}
}

// Configs returns the configurations that a topic may have, sorted by name. Callers do
// not modify it.
func Configs() []ConfigDef { return configDefs }

// LookupConfig returns the description of a topic configuration.
func LookupConfig(name string) (*ConfigDef, bool) {
	i, ok := slices.BinarySearchFunc(configDefs, name, func(def ConfigDef, n string) int { return cmp.Compare(def.Name, n) })
	if !ok {
		return nil, false
	}
	return &configDefs[i], true
}

func topicDef(name string) *ConfigDef {
	def, _ := LookupConfig(name)
	return def
}

// ConfigFault says what is wrong with a topic configuration, "" for nothing.
func ConfigFault(name, value string) string {
	def, ok := LookupConfig(name)
	if !ok {
		return fmt.Sprintf("Unknown topic config name: %s", strings.ToValidUTF8(name, "?"))
	}
	return def.fault(value)
}

// fault says what is wrong with a value, "" for nothing.
func (d *ConfigDef) fault(value string) string {
	bad := func(why string) string {
		return fmt.Sprintf("Invalid value %s for configuration %s: %s", strings.ToValidUTF8(value, "?"), d.Name, why)
	}
	number := func(parsed float64) string {
		if !(parsed >= d.Min) {
			return bad("Value must be at least " + strconv.FormatFloat(d.Min, 'f', -1, 64))
		}
		if parsed > d.Max {
			return bad("Value must be no more than " + strconv.FormatFloat(d.Max, 'f', -1, 64))
		}
		return ""
	}
	switch d.Type {
	case ConfigBool:
		if parsed := strings.ToLower(strings.TrimSpace(value)); parsed != "true" && parsed != "false" {
			return bad("Expected value to be either true or false")
		} else if d.Choices != nil && !slices.Contains(d.Choices, parsed) {
			return bad("this broker has " + strings.Join(d.Choices, ", "))
		}
	case ConfigInt, ConfigLong:
		bits := 64
		if d.Type == ConfigInt {
			bits = 32
		}
		parsed, err := strconv.ParseInt(strings.TrimSpace(value), 10, bits)
		if err != nil {
			return bad(fmt.Sprintf("Not a number of type %s", map[int]string{32: "INT", 64: "LONG"}[bits]))
		}
		if d.Choices != nil && !slices.Contains(d.Choices, strconv.FormatInt(parsed, 10)) {
			return bad("this broker has " + strings.Join(d.Choices, ", "))
		}
		return number(float64(parsed))
	case ConfigDouble:
		parsed, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil {
			return bad("Not a number of type DOUBLE")
		}
		return number(parsed)
	case ConfigList:
		if d.Choices == nil {
			if !throttledReplicas(value) {
				return bad("it is *, or a list of PARTITION:BROKER")
			}
			return ""
		}
		if strings.TrimSpace(value) == "" {
			if d.Name == cleanupPolicy || d.Broker == "log."+cleanupPolicy || d.Name == "log."+cleanupPolicy {
				break // KIP-1161
			}
			return bad("it must not be empty")
		}
		for _, one := range strings.Split(value, ",") {
			if !slices.Contains(d.Choices, strings.TrimSpace(one)) {
				return bad("this broker has " + strings.Join(d.Choices, ", "))
			}
		}
	case ConfigString:
		if d.Choices != nil && !slices.Contains(d.Choices, value) {
			return bad("this broker has " + strings.Join(d.Choices, ", "))
		}
	}
	return ""
}

// throttledReplicas returns whether a value is * or a list of PARTITION:BROKER, which may
// be empty.
// Source: org.apache.kafka.storage.internals.log.ThrottledReplicaListValidator.
func throttledReplicas(value string) bool {
	if value = strings.TrimSpace(value); value == "*" || value == "" {
		return true
	}
	digits := func(text string) bool { return text != "" && strings.Trim(text, "0123456789") == "" }
	for _, one := range strings.Split(value, ",") {
		if one = strings.TrimSpace(one); one == "" {
			continue
		}
		if partition, broker, ok := strings.Cut(one, ":"); !ok || !digits(partition) || !digits(broker) {
			return false
		}
	}
	return true
}
