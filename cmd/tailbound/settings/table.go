package settings

import (
	"fmt"
	"log/slog"
	"math"
	"strings"
	"time"

	"github.com/tailbound/tailbound/broker"
	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/cmd/tailbound/term"
	"github.com/tailbound/tailbound/ioring"
)

const (
	shardsMax = 250
	connsMax  = 1 << 16
	// A session takes 72 bytes of the arena, which may be 64 MiB.
	fetchSessionsMax = 1 << 14
	// An answer to ListGroups has all of them, and is sent from 16 MiB at most.
	groupsMax = 50_000
	// What a group may have on average of members, subscriptions and offsets.
	groupBytes = 4 << 10
	// The tables of so many partitions take some GiB of each shard.
	partitionsMax = 1_000_000
	// JournalBytesMin is the smallest journal of a data shard.
	JournalBytesMin = 8 << 20
)

// defaults are the broker's, which are the defaults of the settings that it takes.
var defaults = broker.Defaults()

// table is every setting, in the order in which they are printed and checked.
var table = []setting{{
	name: "data-dir", kafka: "log.dirs",
	doc:      "where the data lies (required)",
	field:    text{at: func(v *Values) *string { return &v.DataDir }},
	required: "say where the data is to lie: --data-dir DIR, TAILBOUND_DATA_DIR, or data-dir in the file of --config",
}, {
	name:  "listen",
	doc:   "HOST:PORT of the control shard; data shard i is i ports above; port 0 picks free ones. Several: NAME=HOST:PORT,NAME=HOST:PORT",
	field: text{at: func(v *Values) *string { return &v.Listen }, initial: "127.0.0.1:9092"},
	check: func(v *Values) error { _, err, _ := v.listeners(); return err },
}, {
	name:  "listen-mode",
	doc:   "shards: a port for each data shard; single: one port for everything, with one data shard",
	field: text{at: func(v *Values) *string { return &v.ListenMode }, initial: "shards", words: []string{"shards", "single"}},
}, {
	name: "advertise", kafka: "advertised.listeners",
	doc:   "HOST[:PORT] that clients are told to connect to (default: --listen's host). For several listeners: NAME=HOST[:PORT],...",
	field: text{at: func(v *Values) *string { return &v.Advertise }},
	check: func(v *Values) error { _, _, err := v.listeners(); return err },
}, {
	name:    "shards",
	doc:     "data shards (default: CPUs - 1, at least 1)",
	field:   quantity[int]{at: func(v *Values) *int { return &v.Shards }, min: 1, max: shardsMax, zero: true},
	refusal: "it is {bounds}, or 0 for the CPUs less one",
	check: func(v *Values) error {
		if v.Single() && v.Shards > 1 {
			return fmt.Errorf("%d: with listen-mode single there is one data shard, which has all partitions; for more, each needs a port that clients reach", v.Shards)
		}
		return nil
	},
}, {
	name:  "cpus",
	doc:   "CPUs for the data shards, such as 1-3,5 (default: the last ones allowed, where there are as many as shards + 1)",
	field: text{at: func(v *Values) *string { return &v.CPUs }},
	check: func(v *Values) error { _, err := ParseCPUs(v.CPUs); return err },
}, {
	name:    "arena",
	doc:     "memory of each data shard, {bounds}",
	field:   quantity[term.ByteSize]{at: func(v *Values) *term.ByteSize { return &v.Arena }, initial: term.ByteSize(defaults.ArenaBytes), min: broker.ArenaBytesMin},
	refusal: "a data shard needs at least " + term.BinaryBytes(broker.ArenaBytesMin),
	set:     func(v *Values, o *broker.Options) { o.ArenaBytes = int(v.Arena) },
}, {
	name:  "journal",
	doc:   "journal of each data shard, {bounds} (default: 128MiB, less on a small disk, and as it is where there is one)",
	field: quantity[term.ByteSize]{at: func(v *Values) *term.ByteSize { return &v.Journal }, min: JournalBytesMin, max: 4 << 30, zero: true},
	set: func(v *Values, o *broker.Options) {
		if v.Journal != 0 {
			o.JournalBytes = int(v.Journal)
		}
	},
}, {
	name:  "journal-inflight-max",
	doc:   "journal writes of a shard that are under way at a time, and direct runs of a partition, {bounds}",
	field: quantity[int]{at: func(v *Values) *int { return &v.InflightMax }, initial: defaults.InflightMax, min: 1, max: broker.InflightLimit},
	set:   func(v *Values, o *broker.Options) { o.InflightMax = v.InflightMax },
}, {
	name:    "direct-bytes",
	doc:     "a partition's batches that come to this go straight to its segment, others by way of the journal; {bounds}, or 0: all by way of the journal",
	field:   quantity[term.ByteSize]{at: func(v *Values) *term.ByteSize { return &v.DirectBytes }, initial: term.ByteSize(defaults.DirectBytes), min: 4 << 10, max: 1 << 20, zero: true},
	refusal: "it is {bounds}, or 0",
	set:     func(v *Values, o *broker.Options) { o.DirectBytes = int(v.DirectBytes) },
}, {
	name:    "prepare",
	doc:     "bytes of files to write ahead with zeroes, while nothing is appended, for partitions with large batches: many disks take two or three times as long for blocks they never had. They are written again as they are taken",
	field:   quantity[term.ByteSize]{at: func(v *Values) *term.ByteSize { return &v.Prepare }, min: broker.PrepareBytesMin, zero: true},
	refusal: "it is 0, or a file or more of " + term.BinaryBytes(broker.PrepareBytesMin) + " for each data shard",
}, {
	name:  "spin",
	doc:   "how long a data shard looks for completions before it sleeps, {bounds}",
	field: quantity[time.Duration]{at: func(v *Values) *time.Duration { return &v.Spin }, initial: time.Duration(defaults.SpinNS), max: time.Millisecond},
	set:   func(v *Values, o *broker.Options) { o.SpinNS = int64(v.Spin) },
}, {
	name:  "nice",
	doc:   "nice value of data shards and of the kernel's workers they have, {bounds}; 0: as it is",
	field: quantity[int]{at: func(v *Values) *int { return &v.Nice }, initial: defaults.Nice, min: -20, max: 19},
	set:   func(v *Values, o *broker.Options) { o.Nice = v.Nice },
}, {
	name:    "receive-buffer",
	doc:     "size of one of the buffers that requests are received in, {bounds}, a power of two",
	field:   quantity[term.ByteSize]{at: func(v *Values) *term.ByteSize { return &v.ReceiveBuffer }, initial: term.ByteSize(defaults.ReceiveBufferBytes), min: 4 << 10, max: 256 << 10, powerOfTwo: true},
	refusal: "it is a power of two from {bounds}",
	set:     func(v *Values, o *broker.Options) { o.ReceiveBufferBytes = int(v.ReceiveBuffer) },
}, {
	name:  "ring-features",
	doc:   "io_uring features that may be used: all, a kernel release such as 5.19, or names with - before them",
	field: text{at: func(v *Values) *string { return &v.RingFeatures }, initial: "all"},
	check: func(v *Values) error { _, err := ioring.ParseMask(v.RingFeatures); return err },
}, {
	name: "log-level", reloads: true,
	doc:   "debug, info, warn or error",
	field: text{at: func(v *Values) *string { return &v.LogLevel }, initial: "info"},
	check: func(v *Values) error { _, err := ParseLogLevel(v.LogLevel); return err },
	set: func(v *Values, o *broker.Options) {
		level, _ := ParseLogLevel(v.LogLevel)
		o.LogLevel = level.String() // slog's names are Kafka's
	},
}, {
	name: "log-format", reloads: true,
	doc:   "{bounds}",
	field: text{at: func(v *Values) *string { return &v.LogFormat }, initial: "text", words: []string{"text", "json"}},
}, {
	name:  "metrics-listen",
	doc:   "HOST:PORT to serve /metrics on, for Prometheus (default: nowhere)",
	field: text{at: func(v *Values) *string { return &v.MetricsListen }},
	check: func(v *Values) error {
		if v.MetricsListen == "" {
			return nil
		}
		_, _, err := SplitPort(v.MetricsListen, 1)
		return err
	},
}, {
	name:  "buffered",
	doc:   "allow a file system without direct I/O, such as tmpfs, for trying out: nothing is durable then",
	field: toggle{at: func(v *Values) *bool { return &v.Buffered }},
}, {
	name: "auto-create-topics", kafka: cluster.AutoCreateTopics, reloads: true,
	doc:   "create a topic that a client asks for ({kafka})",
	field: toggle{at: func(v *Values) *bool { return &v.AutoCreateTopics }, initial: defaults.AutoCreateTopics},
	set:   func(v *Values, o *broker.Options) { o.AutoCreateTopics = v.AutoCreateTopics },
}, {
	name: "num-partitions", kafka: cluster.NumPartitions, reloads: true,
	doc:   "partitions of a topic that is created without a number",
	field: quantity[int]{at: func(v *Values) *int { return &v.NumPartitions }, initial: defaults.PartitionsDefault},
	check: func(v *Values) error {
		if v.NumPartitions < 1 || v.NumPartitions > v.PartitionsMax {
			return fmt.Errorf("%d: it is 1 to partitions-max, %d", v.NumPartitions, v.PartitionsMax)
		}
		return nil
	},
	set: func(v *Values, o *broker.Options) { o.PartitionsDefault = v.NumPartitions },
}, {
	name: "message-max-bytes", kafka: "message.max.bytes",
	doc:   "largest record batch ({kafka})",
	field: quantity[term.ByteSize]{at: func(v *Values) *term.ByteSize { return &v.MessageBytesMax }, initial: term.ByteSize(defaults.MessageBytesMax), min: 1 << 10, max: 64 << 20, inBytes: true},
	set:   func(v *Values, o *broker.Options) { o.MessageBytesMax = int(v.MessageBytesMax) },
}, {
	name:  "partitions-max",
	doc:   "largest number of partitions of all topics",
	field: quantity[int]{at: func(v *Values) *int { return &v.PartitionsMax }, initial: defaults.PartitionsMax, min: 1, max: partitionsMax},
	set:   func(v *Values, o *broker.Options) { o.TopicsMax, o.PartitionsMax = v.PartitionsMax, v.PartitionsMax },
}, {
	name: "max-connections", kafka: "max.connections",
	doc:   "connections to each node; more are closed at once ({kafka})",
	field: quantity[int]{at: func(v *Values) *int { return &v.ConnsMax }, initial: defaults.ConnsMax, min: 1, max: connsMax},
	set:   func(v *Values, o *broker.Options) { o.ConnsMax = v.ConnsMax },
}, {
	name: "max-connections-per-ip", kafka: "max.connections.per.ip", reloads: true,
	doc:   "of them, of one address ({kafka})",
	field: quantity[int]{at: func(v *Values) *int { return &v.ConnsPerIP }, initial: math.MaxInt32},
	check: func(v *Values) error {
		limits, _ := ParseAddressLimits(v.IPOverrides) // its own row reports an error
		if v.ConnsPerIP < 0 || v.ConnsPerIP == 0 && len(limits) == 0 {
			return fmt.Errorf("%d: it is at least 1, or 0 where max-connections-per-ip-overrides names who may connect", v.ConnsPerIP)
		}
		return nil
	},
	set: func(v *Values, o *broker.Options) {
		o.ConnsPerAddressMax = v.ConnsPerIP
		if v.ConnsPerIP == 0 { // the broker's 0 is no limit
			o.ConnsPerAddressMax = -1
		}
	},
}, {
	name: "max-connections-per-ip-overrides", kafka: "max.connections.per.ip.overrides", reloads: true,
	doc:   "addresses with a number of their own, such as 10.1.2.3:200,[::1]:20 ({kafka})",
	field: text{at: func(v *Values) *string { return &v.IPOverrides }},
	check: func(v *Values) error { _, err := ParseAddressLimits(v.IPOverrides); return err },
	set:   func(v *Values, o *broker.Options) { o.AddressLimits, _ = ParseAddressLimits(v.IPOverrides) },
}, {
	name: "max-incremental-fetch-session-cache-slots", kafka: "max.incremental.fetch.session.cache.slots",
	doc:   "fetch sessions that each data shard keeps ({kafka}); 0: none",
	field: quantity[int]{at: func(v *Values) *int { return &v.FetchSessions }, initial: defaults.FetchSessionsMax, max: fetchSessionsMax},
	set:   func(v *Values, o *broker.Options) { o.FetchSessionsMax = v.FetchSessions },
}, {
	name: "retention-check-interval", kafka: cluster.RetentionCheckMS, reloads: true,
	doc:     "how often the age of each partition is held against retention.ms ({kafka}); its size is looked at every second",
	field:   quantity[time.Duration]{at: func(v *Values) *time.Duration { return &v.RetentionCheck }, initial: time.Duration(defaults.RetentionCheckNS), min: 1},
	refusal: "it is longer than nothing",
	set:     func(v *Values, o *broker.Options) { o.RetentionCheckNS = int64(v.RetentionCheck) },
}, {
	name: "group-initial-rebalance-delay", kafka: cluster.RebalanceDelayMS, reloads: true,
	doc:     "how long an empty group waits for more members ({kafka})",
	field:   quantity[time.Duration]{at: func(v *Values) *time.Duration { return &v.GroupDelay }, initial: milliseconds(defaults.Groups.InitialRebalanceDelayMS), max: math.MaxInt64},
	refusal: "it is not less than nothing",
	set:     func(v *Values, o *broker.Options) { o.Groups.InitialRebalanceDelayMS = v.GroupDelay.Milliseconds() },
}, {
	name: "group-min-session-timeout", kafka: cluster.SessionMinMS, reloads: true,
	doc:   "shortest session a member may ask for ({kafka})",
	field: quantity[time.Duration]{at: func(v *Values) *time.Duration { return &v.SessionMin }, initial: milliseconds(defaults.Groups.SessionTimeoutMinMS), min: time.Millisecond},
	set:   func(v *Values, o *broker.Options) { o.Groups.SessionTimeoutMinMS = v.SessionMin.Milliseconds() },
}, {
	name: "group-max-session-timeout", kafka: cluster.SessionMaxMS, reloads: true,
	doc:   "longest session a member may ask for ({kafka})",
	field: quantity[time.Duration]{at: func(v *Values) *time.Duration { return &v.SessionMax }, initial: milliseconds(defaults.Groups.SessionTimeoutMaxMS)},
	check: func(v *Values) error {
		if v.SessionMax < v.SessionMin {
			return fmt.Errorf("%s: it is at least group-min-session-timeout, %s", v.SessionMax, v.SessionMin)
		}
		return nil
	},
	set: func(v *Values, o *broker.Options) { o.Groups.SessionTimeoutMaxMS = v.SessionMax.Milliseconds() },
}, {
	name: "groups-max", reloads: true,
	doc:   "groups, {bounds}. Beyond it empty groups without offsets make room; new groups are refused where there are none, and clients try again",
	field: quantity[int]{at: func(v *Values) *int { return &v.GroupsMax }, initial: defaults.Groups.GroupsMax, min: 1, max: groupsMax},
	set: func(v *Values, o *broker.Options) {
		o.Groups.GroupsMax = v.GroupsMax
		o.Groups.BytesMax = max(defaults.Groups.BytesMax, v.GroupsMax*groupBytes)
	},
}, {
	name: "group-max-size", kafka: cluster.GroupSizeMax, reloads: true,
	doc:   "members of one group ({kafka})",
	field: quantity[int]{at: func(v *Values) *int { return &v.GroupSizeMax }, initial: defaults.Groups.GroupSizeMax, min: 1},
	set:   func(v *Values, o *broker.Options) { o.Groups.GroupSizeMax = v.GroupSizeMax },
}, {
	name: "group-consumer-migration-policy", kafka: cluster.ConsumerMigration, reloads: true,
	doc:   "which groups with members change between the classic and the consumer protocol: bidirectional, upgrade, downgrade or disabled ({kafka})",
	field: text{at: func(v *Values) *string { return &v.GroupMigration }, initial: defaults.Groups.Migration.String()},
	check: func(v *Values) error {
		if _, ok := cluster.ParseMigrationPolicy(v.GroupMigration); !ok {
			return fmt.Errorf("%q: it is %s", v.GroupMigration, strings.Join(cluster.MigrationPolicies, ", "))
		}
		return nil
	},
	set: func(v *Values, o *broker.Options) {
		o.Groups.Migration, _ = cluster.ParseMigrationPolicy(v.GroupMigration)
	},
}, {
	name: "offsets-retention", kafka: cluster.OffsetsRetentionMins, reloads: true,
	doc:   "how long an empty group's offsets are kept ({kafka})",
	field: quantity[time.Duration]{at: func(v *Values) *time.Duration { return &v.OffsetsRetention }, initial: milliseconds(defaults.Groups.OffsetsRetentionMS), min: time.Millisecond},
	set:   func(v *Values, o *broker.Options) { o.Groups.OffsetsRetentionMS = v.OffsetsRetention.Milliseconds() },
}, {
	name:  "storage-failure-action",
	doc:   "what a failed write or sync leads to: exit, or readonly",
	field: text{at: func(v *Values) *string { return &v.StorageFailure }, initial: "exit", words: []string{"exit", "readonly"}},
	set:   func(v *Values, o *broker.Options) { o.ReadOnlyOnFailure = v.StorageFailure == "readonly" },
}}

func milliseconds(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

// ParseLogLevel reads a level of log/slog.
func ParseLogLevel(text string) (level slog.Level, err error) {
	if err := level.UnmarshalText([]byte(text)); err != nil {
		return 0, fmt.Errorf("%q: it is debug, info, warn or error", text)
	}
	return level, nil
}
