package settings

import (
	"time"

	"github.com/tailbound/tailbound/cmd/tailbound/term"
)

// Values are the settings in force, a field for each row of the table, whose comments
// and bounds are there.
type Values struct {
	DataDir    string
	Listen     string // parsed by ParseListeners, with Advertise
	ListenMode string // "shards" or "single"
	Advertise  string

	Shards int    // 0: as many as DataShards says
	CPUs   string // parsed by ParseCPUs; "": chosen from the machine

	Arena         term.ByteSize // of a data shard
	Journal       term.ByteSize // of a data shard; 0: chosen from the disk
	InflightMax   int
	DirectBytes   term.ByteSize
	Prepare       term.ByteSize // of all data shards together
	Spin          time.Duration
	Nice          int
	ReceiveBuffer term.ByteSize
	RingFeatures  string // parsed by ioring.ParseMask

	LogLevel      string
	LogFormat     string // "text" or "json"
	MetricsListen string // "": nowhere
	Buffered      bool

	AutoCreateTopics bool
	NumPartitions    int
	MessageBytesMax  term.ByteSize
	PartitionsMax    int

	ConnsMax      int    // of a node
	ConnsPerIP    int    // 0: only the addresses of IPOverrides may connect
	IPOverrides   string // parsed by ParseAddressLimits
	FetchSessions int    // of a data shard

	RetentionCheck   time.Duration
	GroupDelay       time.Duration
	SessionMin       time.Duration
	SessionMax       time.Duration
	GroupsMax        int
	GroupSizeMax     int
	GroupMigration   string // parsed by cluster.ParseMigrationPolicy
	OffsetsRetention time.Duration

	StorageFailure string // "exit" or "readonly"
}

// Single reports whether clients see one node on one port.
func (v *Values) Single() bool { return v.ListenMode == "single" }

// DataShards is how many data shards are started on a machine with so many CPUs.
func (v *Values) DataShards(cpus int) int {
	switch {
	case v.Shards != 0:
		return v.Shards
	case v.Single():
		return 1
	}
	return min(max(1, cpus-1), shardsMax)
}

// Ports is how many ports a listener takes with so many data shards.
func (v *Values) Ports(shards int) int {
	if v.Single() {
		return 1
	}
	return shards + 1
}
