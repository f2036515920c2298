package cluster

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// ConfigType is how a configuration's value is written. The numbers are those
// of DescribeConfigs responses.
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

// ConfigDef describes one topic configuration.
type ConfigDef struct {
	Name    string
	Type    ConfigType
	Default string
	// Min and Max bound numbers. For lists and strings Choices are what may
	// be written; nil is anything.
	Min, Max float64
	Choices  []string
	Doc      string
}

// configDefs are the topic configurations that may be set, sorted by name.
// Names, types and ranges: org.apache.kafka.common.config.TopicConfig and
// org.apache.kafka.storage.internals.log.LogConfig of Kafka 4.1. Where the
// broker lacks what a value asks for, the value is not among the choices: a
// promise that cannot be kept is refused, not stored.
var configDefs = []ConfigDef{
	{"cleanup.policy", ConfigList, "delete", 0, 0, []string{"delete"}, "What becomes of old data. Compaction is not there yet, and nothing is removed yet."},
	{"compression.type", ConfigString, "producer", 0, 0, []string{"producer"}, "Batches are stored as they arrive, never recompressed."},
	{"delete.retention.ms", ConfigLong, "86400000", 0, math.MaxInt64, nil, "How long tombstones of compacted topics are kept."},
	{"file.delete.delay.ms", ConfigLong, "60000", 0, math.MaxInt64, nil, "Accepted for compatibility; has no effect."},
	{"flush.messages", ConfigLong, "1", 1, math.MaxInt64, nil, "Accepted for compatibility; every acknowledged record is synced."},
	{"flush.ms", ConfigLong, "0", 0, math.MaxInt64, nil, "Accepted for compatibility; every acknowledged record is synced."},
	{"index.interval.bytes", ConfigInt, "4096", 0, math.MaxInt32, nil, "Accepted for compatibility; every run is indexed."},
	{"max.compaction.lag.ms", ConfigLong, "9223372036854775807", 1, math.MaxInt64, nil, "Has no effect without compaction."},
	{"max.message.bytes", ConfigInt, "1048588", 0, math.MaxInt32, nil, "Accepted for compatibility; the broker's own limit rules."},
	{"message.timestamp.after.max.ms", ConfigLong, "3600000", 0, math.MaxInt64, nil, "Accepted for compatibility; record times are not checked."},
	{"message.timestamp.before.max.ms", ConfigLong, "9223372036854775807", 0, math.MaxInt64, nil, "Accepted for compatibility; record times are not checked."},
	{"message.timestamp.type", ConfigString, "CreateTime", 0, 0, []string{"CreateTime"}, "Whose clock stamps records. The append time is not there yet: it would change every batch's checksum."},
	{"min.cleanable.dirty.ratio", ConfigDouble, "0.5", 0, 1, nil, "Has no effect without compaction."},
	{"min.compaction.lag.ms", ConfigLong, "0", 0, math.MaxInt64, nil, "Has no effect without compaction."},
	{"min.insync.replicas", ConfigInt, "1", 1, 1, nil, "How many replicas must have a record; there is one."},
	{"preallocate", ConfigBool, "false", 0, 0, nil, "Accepted for compatibility; segments are prepared by their own rule."},
	{"retention.bytes", ConfigLong, "-1", -1, math.MaxInt64, nil, "Accepted for compatibility; nothing is removed by size yet."},
	{"retention.ms", ConfigLong, "604800000", -1, math.MaxInt64, nil, "Accepted for compatibility; nothing is removed by age yet."},
	{"segment.bytes", ConfigInt, "1073741824", 1 << 20, math.MaxInt32, nil, "Accepted for compatibility; segments have the broker's size."},
	{"segment.index.bytes", ConfigInt, "10485760", 4, math.MaxInt32, nil, "Accepted for compatibility; has no effect."},
	{"segment.jitter.ms", ConfigLong, "0", 0, math.MaxInt64, nil, "Accepted for compatibility; has no effect."},
	{"segment.ms", ConfigLong, "604800000", 1, math.MaxInt64, nil, "Accepted for compatibility; has no effect."},
	{"unclean.leader.election.enable", ConfigBool, "false", 0, 0, nil, "Has no effect without replication."},
	{"write.caching", ConfigBool, "false", 0, 0, []string{"false"}, "To be acknowledged from memory is not there yet."},
}

// Configs are the configurations a topic may have, sorted by name. Not to
// be written.
func Configs() []ConfigDef { return configDefs }

// LookupConfig is the description of one configuration.
func LookupConfig(name string) (*ConfigDef, bool) {
	i, ok := slices.BinarySearchFunc(configDefs, name, func(d ConfigDef, n string) int { return cmp.Compare(d.Name, n) })
	if !ok {
		return nil, false
	}
	return &configDefs[i], true
}

// ConfigFault says what is wrong with a topic configuration, "" for nothing.
func ConfigFault(name, value string) string {
	d, ok := LookupConfig(name)
	if !ok {
		return fmt.Sprintf("Unknown topic config name: %s", strings.ToValidUTF8(name, "?"))
	}
	bad := func(why string) string {
		return fmt.Sprintf("Invalid value %s for configuration %s: %s", strings.ToValidUTF8(value, "?"), name, why)
	}
	number := func(v float64) string {
		if !(v >= d.Min) {
			return bad(fmt.Sprintf("Value must be at least %v", d.Min))
		}
		if v > d.Max {
			return bad(fmt.Sprintf("Value must be no more than %v", d.Max))
		}
		return ""
	}
	switch d.Type {
	case ConfigBool:
		if v := strings.ToLower(strings.TrimSpace(value)); v != "true" && v != "false" {
			return bad("Expected value to be either true or false")
		} else if d.Choices != nil && !slices.Contains(d.Choices, v) {
			return bad("this broker has " + strings.Join(d.Choices, ", "))
		}
	case ConfigInt, ConfigLong:
		bits := 64
		if d.Type == ConfigInt {
			bits = 32
		}
		v, err := strconv.ParseInt(strings.TrimSpace(value), 10, bits)
		if err != nil {
			return bad(fmt.Sprintf("Not a number of type %s", map[int]string{32: "INT", 64: "LONG"}[bits]))
		}
		return number(float64(v))
	case ConfigDouble:
		v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil {
			return bad("Not a number of type DOUBLE")
		}
		return number(v)
	case ConfigList:
		if strings.TrimSpace(value) == "" {
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
