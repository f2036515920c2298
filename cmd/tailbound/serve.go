package main

import (
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/broker"
	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/cmd/tailbound/observe"
	"github.com/tailbound/tailbound/cmd/tailbound/term"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/netring"
	"github.com/tailbound/tailbound/shard"
	"github.com/tailbound/tailbound/shard/control"
)

// serveOptions are the flags of serve.
type serveOptions struct {
	dataDir, listen, listenMode, advertise, cpus, features, logLevel string
	logFormat, metricsListen                                         string
	shards                                                           int
	arena                                                            term.ByteSize
	buffered, autoCreate                                             bool
	partitions                                                       int
	messageBytes                                                     term.ByteSize
	partitionsMax                                                    int
	onFailure                                                        string
	groupDelay, sessionMin, sessionMax, offsetsRetention             time.Duration
	groupSize                                                        int
	groupMigration                                                   string
	retentionCheck                                                   time.Duration
	fetchSessions                                                    int
	connsMax, connsPerIP                                             int
	ipOverrides                                                      string
	journal, prepare                                                 term.ByteSize
	inflightMax, nice                                                int
	directBytes, receiveBuffer                                       term.ByteSize
	spin                                                             time.Duration
}

func serveCommand() *cobra.Command {
	c, _ := newServeCommand()
	return c
}

func newServeCommand() (*cobra.Command, *serveOptions) {
	b := broker.Defaults()
	o := &serveOptions{arena: term.ByteSize(b.ArenaBytes), messageBytes: term.ByteSize(b.MessageBytesMax), directBytes: term.ByteSize(b.DirectBytes), receiveBuffer: term.ByteSize(b.ReceiveBufferBytes)}
	var file string
	var showConfig, showMemory bool
	c := &cobra.Command{
		Use:   "serve --data-dir DIR",
		Short: "Run the broker in the foreground",
		Long: `Run the broker in the foreground.

The control shard listens on --listen; data shard i listens on the port i above
it and is a Kafka node of its own. Clients need only --listen's address, but
must reach all of these ports. Where only one can be open, as in a container or
behind a firewall, --listen-mode=single serves everything there, on one core.

Every setting may also stand in the YAML file of --config, under the flag's
name, or in a variable: TAILBOUND_ARENA for --arena. Flags go before variables,
those before the file. --print-config shows what is in force and why.

SIGTERM and SIGINT stop it cleanly within seconds; a second one at once. The
exit status is 0 only after a clean stop.`,
		Example: `  tailbound serve --data-dir /var/lib/tailbound --listen 0.0.0.0:9092 --advertise broker.example.org
  tailbound serve --data-dir ./data --listen 127.0.0.1:9092 --shards 2 --cpus 2,3
  tailbound serve --data-dir ./data --ring-features 5.19   # as on an older kernel`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			from, err := configure(cmd.Flags(), file, os.Environ())
			if err == nil {
				err = o.problems(from, !showConfig && !showMemory)
			}
			if err != nil {
				return err
			}
			switch {
			case showConfig:
				return o.printConfig(cmd, from)
			case showMemory:
				return o.printMemory(cmd.OutOrStdout())
			}
			return serve(cmd, *o)
		},
	}
	f := c.Flags()
	f.StringVar(&file, "config", os.Getenv("TAILBOUND_CONFIG"), "YAML file with settings (environment: TAILBOUND_CONFIG)")
	f.BoolVar(&showConfig, "print-config", false, "print what is in force, and where each value came from")
	f.BoolVar(&showMemory, "print-memory", false, "print each pool of a shard with its bytes")
	f.StringVar(&o.dataDir, "data-dir", "", "where the data lies (required)")
	f.StringVar(&o.listen, "listen", "127.0.0.1:9092", "HOST:PORT of the control shard; data shard i is i ports above; port 0 picks free ones. Several: NAME=HOST:PORT,NAME=HOST:PORT")
	f.StringVar(&o.listenMode, "listen-mode", "shards", "shards: a port for each data shard; single: one port for everything, with one data shard")
	f.StringVar(&o.advertise, "advertise", "", "HOST[:PORT] that clients are told to connect to (default: --listen's host). For several listeners: NAME=HOST[:PORT],...")
	f.IntVar(&o.shards, "shards", 0, "data shards (default: CPUs - 1, at least 1)")
	f.StringVar(&o.cpus, "cpus", "", "CPUs for the data shards, such as 1-3,5 (default: the last ones allowed, where there are as many as shards + 1)")
	f.Var(&o.arena, "arena", "memory of each data shard, at least 64MiB")
	f.Var(&o.journal, "journal", "journal of each data shard, 8MiB to 4GiB (default: 128MiB, less on a small disk, and as it is where there is one)")
	f.IntVar(&o.inflightMax, "journal-inflight-max", b.InflightMax, "journal writes of a shard that are under way at a time, and direct runs of a partition, 1 to 8")
	f.Var(&o.directBytes, "direct-bytes", "a partition's batches that come to this go straight to its segment, others by way of the journal; 4KiB to 1MiB, or 0: all by way of the journal")
	f.Var(&o.prepare, "prepare", "bytes of files to write ahead with zeroes, while nothing is appended, for partitions with large batches: many disks take two or three times as long for blocks they never had. They are written again as they are taken")
	f.DurationVar(&o.spin, "spin", time.Duration(b.SpinNS), "how long a data shard looks for completions before it sleeps, 0s to 1ms")
	f.IntVar(&o.nice, "nice", b.Nice, "nice value of data shards and of the kernel's workers they have, -20 to 19; 0: as it is")
	f.Var(&o.receiveBuffer, "receive-buffer", "size of one of the buffers that requests are received in, 4KiB to 256KiB, a power of two")
	f.StringVar(&o.features, "ring-features", "all", "io_uring features that may be used: all, a kernel release such as 5.19, or names with - before them")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&o.logFormat, "log-format", "text", "text or json")
	f.StringVar(&o.metricsListen, "metrics-listen", "", "HOST:PORT to serve /metrics on, for Prometheus (default: nowhere)")
	f.BoolVar(&o.buffered, "buffered", false, "allow a file system without direct I/O, such as tmpfs, for trying out: nothing is durable then")
	f.BoolVar(&o.autoCreate, "auto-create-topics", true, "create a topic that a client asks for (auto.create.topics.enable)")
	f.IntVar(&o.partitions, "num-partitions", 1, "partitions of a topic that is created without a number")
	f.Var(&o.messageBytes, "message-max-bytes", "largest record batch (message.max.bytes)")
	f.IntVar(&o.partitionsMax, "partitions-max", 4096, "largest number of partitions of all topics")
	f.IntVar(&o.connsMax, "max-connections", b.ConnsMax, "connections to each node; more are closed at once (max.connections)")
	f.IntVar(&o.connsPerIP, "max-connections-per-ip", math.MaxInt32, "of them, of one address (max.connections.per.ip)")
	f.StringVar(&o.ipOverrides, "max-connections-per-ip-overrides", "", "addresses with a number of their own, such as 10.1.2.3:200,[::1]:20 (max.connections.per.ip.overrides)")
	f.IntVar(&o.fetchSessions, "max-incremental-fetch-session-cache-slots", b.FetchSessionsMax, "fetch sessions that each data shard keeps (max.incremental.fetch.session.cache.slots); 0: none")
	f.DurationVar(&o.retentionCheck, "retention-check-interval", time.Duration(b.RetentionCheckNS), "how often each partition is held against its retention (log.retention.check.interval.ms)")
	f.DurationVar(&o.groupDelay, "group-initial-rebalance-delay", 3*time.Second, "how long an empty group waits for more members (group.initial.rebalance.delay.ms)")
	f.DurationVar(&o.sessionMin, "group-min-session-timeout", 6*time.Second, "shortest session a member may ask for (group.min.session.timeout.ms)")
	f.DurationVar(&o.sessionMax, "group-max-session-timeout", 30*time.Minute, "longest session a member may ask for (group.max.session.timeout.ms)")
	f.IntVar(&o.groupSize, "group-max-size", 1024, "members of one group (group.max.size)")
	f.StringVar(&o.groupMigration, "group-consumer-migration-policy", "bidirectional", "which groups with members change between the classic and the consumer protocol: bidirectional, upgrade, downgrade or disabled (group.consumer.migration.policy)")
	f.DurationVar(&o.offsetsRetention, "offsets-retention", 7*24*time.Hour, "how long an empty group's offsets are kept (offsets.retention.minutes)")
	f.StringVar(&o.onFailure, "storage-failure-action", "exit", "what a failed write or sync leads to: exit, or readonly")
	return c, o
}

// problems are what is wrong with the settings, each after where it came from.
func (o *serveOptions) problems(from origins, toServe bool) error {
	var all []error
	wrong := func(name, format string, args ...any) {
		all = append(all, from.wrong(name, fmt.Sprintf(format, args...)))
	}
	if o.dataDir == "" && toServe {
		wrong("data-dir", "say where the data is to lie: --data-dir DIR, TAILBOUND_DATA_DIR, or data-dir in the file of --config")
	}
	if o.shards < 0 || o.shards > shardsMax {
		wrong("shards", "%d: it is 1 to %d, or 0 for the CPUs less one", o.shards, shardsMax)
	}
	if o.listenMode != "shards" && o.listenMode != "single" {
		wrong("listen-mode", "%q: it is shards or single", o.listenMode)
	}
	if o.single() && o.shards > 1 {
		wrong("shards", "%d: with listen-mode single there is one data shard, which has all partitions; for more, each needs a port that clients reach", o.shards)
	}
	ports := o.ports(min(max(o.shards, 0), shardsMax))
	if _, listenErr, advertiseErr := parseListeners(o.listen, o.advertise, ports); listenErr != nil {
		wrong("listen", "%s", listenErr)
	} else if advertiseErr != nil {
		wrong("advertise", "%s", advertiseErr)
	}
	if _, err := parseCPUs(o.cpus); err != nil {
		wrong("cpus", "%s", err)
	}
	if o.arena < broker.ArenaBytesMin {
		wrong("arena", "%s: a data shard needs at least %d MiB", &o.arena, broker.ArenaBytesMin>>20)
	}
	if o.journal != 0 && (o.journal < journalLeast || o.journal > 4<<30) {
		wrong("journal", "%s: it is 8MiB to 4GiB", &o.journal)
	}
	if o.prepare != 0 && o.prepare < broker.PrepareBytesMin {
		wrong("prepare", "%s: it is 0, or a file or more of %s for each data shard", &o.prepare, term.BinaryBytes(broker.PrepareBytesMin))
	}
	if o.inflightMax < 1 || o.inflightMax > 8 {
		wrong("journal-inflight-max", "%d: it is 1 to 8", o.inflightMax)
	}
	if o.directBytes != 0 && (o.directBytes < 4<<10 || o.directBytes > 1<<20) {
		wrong("direct-bytes", "%s: it is 4KiB to 1MiB, or 0", &o.directBytes)
	}
	if o.spin < 0 || o.spin > time.Millisecond {
		wrong("spin", "%s: it is 0s to 1ms", o.spin)
	}
	if o.nice < -20 || o.nice > 19 {
		wrong("nice", "%d: it is -20 to 19", o.nice)
	}
	if n := o.receiveBuffer; n < 4<<10 || n > 256<<10 || n&(n-1) != 0 {
		wrong("receive-buffer", "%s: it is a power of two from 4KiB to 256KiB", &o.receiveBuffer)
	}
	if _, err := ioring.ParseMask(o.features); err != nil {
		wrong("ring-features", "%s", err)
	}
	if err := new(slog.Level).UnmarshalText([]byte(o.logLevel)); err != nil {
		wrong("log-level", "%q: it is debug, info, warn or error", o.logLevel)
	}
	if o.logFormat != "text" && o.logFormat != "json" {
		wrong("log-format", "%q: it is text or json", o.logFormat)
	}
	if o.metricsListen != "" {
		if _, _, err := splitPort(o.metricsListen, 1); err != nil {
			wrong("metrics-listen", "%s", err)
		}
	}
	if o.partitionsMax < 1 {
		wrong("partitions-max", "%d: it is at least 1", o.partitionsMax)
	}
	if o.partitions < 1 || o.partitions > o.partitionsMax {
		wrong("num-partitions", "%d: it is 1 to partitions-max, %d", o.partitions, o.partitionsMax)
	}
	if o.messageBytes < 1<<10 || o.messageBytes > 64<<20 {
		wrong("message-max-bytes", "%d: it is 1024 to %d", o.messageBytes, 64<<20)
	}
	if o.connsMax < 1 || o.connsMax > connsMax {
		wrong("max-connections", "%d: it is 1 to %d", o.connsMax, connsMax)
	}
	limits, err := parseAddressLimits(o.ipOverrides)
	if err != nil {
		wrong("max-connections-per-ip-overrides", "%s", err)
	}
	if o.connsPerIP < 0 || o.connsPerIP == 0 && len(limits) == 0 {
		wrong("max-connections-per-ip", "%d: it is at least 1, or 0 where max-connections-per-ip-overrides names who may connect", o.connsPerIP)
	}
	if o.fetchSessions < 0 || o.fetchSessions > fetchSessionsMax {
		wrong("max-incremental-fetch-session-cache-slots", "%d: it is 0 to %d", o.fetchSessions, fetchSessionsMax)
	}
	if o.retentionCheck <= 0 {
		wrong("retention-check-interval", "%s: it is longer than nothing", o.retentionCheck)
	}
	if o.groupDelay < 0 {
		wrong("group-initial-rebalance-delay", "%s: it is not less than nothing", o.groupDelay)
	}
	if o.sessionMin < time.Millisecond {
		wrong("group-min-session-timeout", "%s: it is at least 1ms", o.sessionMin)
	}
	if o.sessionMax < o.sessionMin {
		wrong("group-max-session-timeout", "%s: it is at least group-min-session-timeout, %s", o.sessionMax, o.sessionMin)
	}
	if o.groupSize < 1 {
		wrong("group-max-size", "%d: it is at least 1", o.groupSize)
	}
	if _, ok := cluster.ParseMigrationPolicy(o.groupMigration); !ok {
		wrong("group-consumer-migration-policy", "%q: it is %s", o.groupMigration, strings.Join(cluster.MigrationPolicies, ", "))
	}
	if o.offsetsRetention < time.Millisecond {
		wrong("offsets-retention", "%s: it is at least 1ms", o.offsetsRetention)
	}
	if o.onFailure != "exit" && o.onFailure != "readonly" {
		wrong("storage-failure-action", "%q: it is exit or readonly", o.onFailure)
	}
	return errors.Join(all...)
}

// groupOptions are the broker's rules for consumer groups.
func (o *serveOptions) groupOptions() control.GroupOptions {
	g := control.DefaultGroupOptions()
	g.InitialRebalanceDelayMS, g.OffsetsRetentionMS = o.groupDelay.Milliseconds(), o.offsetsRetention.Milliseconds()
	g.SessionTimeoutMinMS, g.SessionTimeoutMaxMS = o.sessionMin.Milliseconds(), o.sessionMax.Milliseconds()
	g.GroupSizeMax = o.groupSize
	g.Migration, _ = cluster.ParseMigrationPolicy(o.groupMigration)
	return g
}

const (
	shardsMax = 250
	connsMax  = 1 << 16
	// A session takes 72 bytes of the arena, which may be 64 MiB.
	fetchSessionsMax = 1 << 14
)

// parseAddressLimits reads addresses and numbers: 10.1.2.3:200,[::1]:20.
func parseAddressLimits(list string) (all []netring.AddressLimit, err error) {
	for _, item := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' }) {
		at := strings.LastIndexByte(item, ':')
		address, n := item, -1
		if at >= 0 {
			address = strings.TrimSuffix(strings.TrimPrefix(item[:at], "["), "]")
			if n, err = strconv.Atoi(item[at+1:]); err != nil {
				n = -1
			}
		}
		ip, err := netip.ParseAddr(address)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%q: it is an IP address, a colon and a number of connections, such as 10.1.2.3:200 or [::1]:20", item)
		}
		all = append(all, netring.AddressLimit{Address: ip.As16(), ConnsMax: n})
	}
	return all, nil
}

// raiseFilesLimit has the kernel allow as many files as it may, and says so
// where that is too few.
func raiseFilesLimit(o broker.Options, connections int) error {
	need, err := broker.FilesNeeded(o)
	if err != nil {
		return err
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("RLIMIT_NOFILE: %w", err)
	}
	limit.Cur = limit.Max
	if limit.Max < uint64(need) { // whoever has CAP_SYS_RESOURCE may raise both
		limit.Cur, limit.Max = uint64(need), uint64(need)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
		return fmt.Errorf("--max-connections %d needs %d files, and the hard limit is %d: raise it (ulimit -Hn, LimitNOFILE= of a systemd unit), or take fewer connections", connections, need, limit.Max)
	}
	return nil
}

// printConfig prints the settings with what those that are left open become.
func (o *serveOptions) printConfig(cmd *cobra.Command, from origins) error {
	derived := map[string]derivedValue{}
	allowed, err := allowedCPUs()
	if err != nil {
		return err
	}
	shards := o.shards
	if shards == 0 {
		shards = o.dataShards(allowed)
		derived["shards"] = derivedValue{strconv.Itoa(shards), fmt.Sprintf("%s, one of them for the rest", term.Plural(len(allowed), "CPU"))}
		if o.single() {
			derived["shards"] = derivedValue{"1", "listen-mode single"}
		}
	}
	if o.journal == 0 && o.dataDir != "" {
		if each, because, err := o.journalSize(shards); err == nil {
			derived["journal"] = derivedValue{each.String(), because}
		}
	}
	if o.cpus == "" {
		if data, _, err := placeCPUs("", allowed, shards); err == nil && len(data) > 0 {
			words := strings.Trim(fmt.Sprint(data), "[]")
			derived["cpus"] = derivedValue{strings.ReplaceAll(words, " ", ","), "the last ones allowed"}
		} else {
			derived["cpus"] = derivedValue{"", "not pinned, fewer CPUs than shards + 1"}
		}
	}
	if o.advertise == "" {
		if host, _, err := net.SplitHostPort(o.listen); err == nil {
			if host, err = advertisedHost(host); err == nil {
				derived["advertise"] = derivedValue{host, "of listen"}
			}
		}
	}
	return printConfig(cmd.OutOrStdout(), cmd.Flags(), from, derived)
}

// single says that clients see one node on one port.
func (o *serveOptions) single() bool { return o.listenMode == "single" }

// dataShards is how many data shards are to be started.
func (o *serveOptions) dataShards(allowed []int) int {
	switch {
	case o.shards != 0:
		return o.shards
	case o.single():
		return 1
	}
	return min(max(1, len(allowed)-1), shardsMax)
}

// ports is how many ports so many data shards take.
func (o *serveOptions) ports(shards int) int {
	if o.single() {
		return 1
	}
	return shards + 1
}

func serve(cmd *cobra.Command, o serveOptions) error {
	logger := newLogger(slog.New(o.logHandler(os.Stderr)))
	defer logger.close()
	for _, m := range misspelled(cmd.Flags(), os.Environ()) {
		logger.log.Warn(m)
	}

	features, err := ioring.ParseMask(o.features)
	if err != nil {
		return fmt.Errorf("--ring-features: %w", err)
	}
	found, err := ioring.Probe()
	if err != nil {
		return err
	}
	found.Mask &= features
	allowed, err := allowedCPUs()
	if err != nil {
		return err
	}
	o.shards = o.dataShards(allowed)
	data, other, err := placeCPUs(o.cpus, allowed, o.shards)
	if err != nil {
		return err
	}
	// A processor for each shard, and some for what Go does besides.
	if runtime.GOMAXPROCS(0) < o.shards+3 {
		runtime.GOMAXPROCS(o.shards + 3)
	}
	// Data shards make no garbage; what is made beside them is collected when
	// the heap has grown by so much over what the start left.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(int64(o.shards+2) * garbageMax)

	dir, err := openDirectory(o.dataDir, o.buffered)
	if err != nil {
		return err
	}
	defer dir.close()
	listeners, err, advertiseErr := parseListeners(o.listen, o.advertise, o.ports(o.shards))
	if err = errors.Join(err, advertiseErr); err != nil {
		return err
	}
	options, err := o.brokerOptions(dir)
	if err != nil {
		return err
	}
	defer func() {
		for _, l := range listeners {
			for _, b := range l.bound { // frees the port now, whoever else still holds the socket
				unix.Shutdown(b.fd, unix.SHUT_RDWR)
			}
		}
	}()
	for _, l := range listeners {
		if err := l.bind(o.ports(o.shards)); err != nil {
			return err
		}
		l.listenWith(&options, o.single())
	}
	options.CPUs, options.OtherCPUs, options.Features, options.Log = data, other, features, logger
	if err := raiseFilesLimit(options, o.connsMax); err != nil {
		return err
	}
	profiler, err := observe.Listen(o.dataDir, versionString())
	if err != nil {
		return fmt.Errorf("the socket of `tailbound profile`: %w", err)
	}
	defer profiler.Close(o.dataDir)
	var prometheus *observe.PrometheusServer
	if o.metricsListen != "" {
		if prometheus, err = observe.ListenPrometheus(o.metricsListen); err != nil {
			return err
		}
		defer prometheus.Close()
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT)
	started := time.Now()
	running, err := broker.Start(options)
	if err != nil {
		if small := o.fits(); small != nil {
			err = small
		}
		return err
	}
	runtime.GC()
	debug.SetMemoryLimit(int64(observe.ReadProcess().HeapLiveBytes) + garbageMax)
	for _, note := range running.Boot.Notes {
		logger.log.Warn(note)
	}
	profiler.Serve(running.Broker, options.Nodes)
	if prometheus != nil {
		prometheus.Serve(profiler, func(err error) { logger.log.Error("/metrics is not served any more", "error", err) })
	}
	announce(cmd, logger.log, o, listeners, found, dir.disk, dir.buffered, data, time.Since(started))
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		logger.log.Warn("systemd could not be told of readiness", "error", err)
	}
	go watchdog(profiler, logger.log)
	return untilStopped(running, signals, logger.log, func() { profiler.Close(o.dataDir) })
}

// brokerOptions are the settings as shards take them, but for what is found out
// of the machine besides the disk.
func (o *serveOptions) brokerOptions(dir *directory) (broker.Options, error) {
	b, err := o.memoryOptions()
	if err != nil {
		return b, err
	}
	b.RootFD, b.Buffered, b.DataDir = dir.root, dir.buffered, dir.path
	b.AutoCreateTopics, b.RetentionCheckNS, b.ReadOnlyOnFailure = o.autoCreate, int64(o.retentionCheck), o.onFailure == "readonly"
	b.ConnsPerAddressMax, b.Groups = o.connsPerIP, o.groupOptions()
	var seed [8]byte
	crand.Read(seed[:]) // never fails (crypto/rand)
	crand.Read(b.NewDirectory[:])
	b.Seed = binary.LittleEndian.Uint64(seed[:])
	if o.connsPerIP == 0 {
		b.ConnsPerAddressMax = -1
	}
	journal, _, err := o.journalSize(o.shards)
	if err == nil {
		err = o.journalsFit(o.shards, journal)
	}
	if err != nil {
		return b, err
	}
	b.JournalBytes = int(journal)
	if b.SpareBytes, err = o.spareBytes(o.shards); err != nil {
		return b, fmt.Errorf("data directory: %w", err)
	}
	if b.PrepareBytes, err = o.prepareBytes(o.shards); err != nil {
		return b, err
	}
	b.AddressLimits, err = parseAddressLimits(o.ipOverrides)
	return b, err
}

// listenWith adds a bound listener to what the broker listens with.
func (l *listener) listenWith(b *broker.Options, single bool) {
	nodes, sockets := l.nodes, []int(nil)
	if single {
		nodes, sockets = []shard.Node{nodes[0], nodes[0]}, []int{-1}
	}
	for _, x := range l.bound {
		sockets = append(sockets, x.fd)
	}
	if len(b.Listeners) == 0 {
		b.Nodes = nodes
	} else {
		b.OtherNodes = append(b.OtherNodes, nodes)
	}
	b.Listeners = append(b.Listeners, sockets)
	if l.name != "" {
		b.ListenerNames = append(b.ListenerNames, l.name)
	}
}

// stopMax is how long a clean stop may take.
const stopMax = 30 * time.Second

// untilStopped waits for a signal, stops the broker and waits for that; stopping
// runs in between. It returns early when the broker ends by itself.
func untilStopped(running *broker.Process, signals <-chan os.Signal, log *slog.Logger, stopping func()) error {
	done := make(chan error, 1)
	go func() { done <- running.Wait() }()
	select {
	case err := <-done:
		if err == nil {
			err = errors.New("the broker stopped by itself")
		}
		return err
	case s := <-signals:
		log.Info("stopping", "signal", s.String())
		stopping()
		daemon.SdNotify(false, daemon.SdNotifyStopping)
		running.Stop()
	}
	asked := time.Now()
	overdue := time.After(stopMax)
	for {
		select {
		case err := <-done:
			if err != nil {
				return err
			}
			log.Info("stopped cleanly")
			return nil
		case s := <-signals:
			// Who signals a process and its group, as timeout(1) does, asks once.
			if time.Since(asked) > 500*time.Millisecond {
				return fmt.Errorf("stopped at once by a second %s; the next start recovers", s)
			}
		case <-overdue:
			return fmt.Errorf("stopping took more than %s; stopped at once, the next start recovers", stopMax)
		}
	}
}

const garbageMax = 512 << 20

// watchdog tells systemd, where it wants to know (WatchdogSec), that the broker
// is alive: only while every shard takes turns.
func watchdog(p *observe.Server, log *slog.Logger) {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("systemd's watchdog cannot be fed", "error", err)
	}
	if err != nil || every == 0 {
		return
	}
	for {
		time.Sleep(every / 3)
		if stuck := p.Stuck(); len(stuck) > 0 {
			log.Error("shards took no turn; systemd is not told that all is well", "shards", stuck)
		} else if _, err := daemon.SdNotify(false, daemon.SdNotifyWatchdog); err != nil {
			log.Warn("systemd could not be told that all is well", "error", err)
		}
	}
}

// announce says what runs, and how to reach it.
func announce(cmd *cobra.Command, log *slog.Logger, o serveOptions, listeners []*listener, f ioring.Features, d ioring.Direct, buffered bool, cpus []int, took time.Duration) {
	nodes, bound := listeners[0].nodes, listeners[0].bound
	listen := listeners[0].address()
	if o.logFormat == "json" {
		log.Info("serving", "version", versionString(), "kernel", f.Kernel, "data_dir", o.dataDir, "file_system", d.FileSystem, "listen", listen, "advertise", nodes[0].Address(),
			"shards", o.shards, "cpus", cpus, "arena_bytes", int64(o.arena), "ring_found", f.Found(), "ring_missing", f.Missing(), "durable", !buffered, "started_in_ms", took.Milliseconds())
		return
	}
	if o.metricsListen != "" {
		log.Info("serving /metrics", "listen", o.metricsListen)
	}
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "tailbound %s, Linux %s, serving %s (%s) after %d ms\n", versionString(), f.Kernel, o.dataDir, d.FileSystem, took.Milliseconds())
	listens := ""
	if listen != nodes[0].Address() {
		listens = fmt.Sprintf("  listening on %s and the %s above", listen, term.Plural(len(bound)-1, "port"))
	}
	shards := nodes[1:]
	if o.single() {
		if listens != "" {
			listens = "  listening on " + listen
		}
		fmt.Fprintf(out, "  one node  node %d  %s%s  (--listen-mode=single: one core has all partitions)\n", nodes[0].ID, nodes[0].Address(), listens)
		shards = nodes
	} else {
		fmt.Fprintf(out, "  control   node %d  %s%s\n", nodes[0].ID, nodes[0].Address(), listens)
	}
	for i, n := range shards {
		place := "not pinned"
		if len(cpus) > 0 {
			place = fmt.Sprintf("CPU %d", cpus[i%len(cpus)])
		}
		fmt.Fprintf(out, "  shard %-3d node %d  %s  %s, arena %s\n", i+1, n.ID, n.Address(), place, &o.arena)
	}
	for i, l := range listeners {
		if i > 0 {
			fmt.Fprintf(out, "  listener  %s  the same nodes from %s on, listening on %s\n", l.name, l.nodes[0].Address(), l.address())
		}
	}
	fmt.Fprintf(out, "  io_uring  found: %s\n", strings.Join(append([]string{"linux 5.19's"}, f.Found()...), ", "))
	for _, m := range f.Missing() {
		fmt.Fprintf(out, "            missing: %s\n", m)
	}
	if buffered {
		fmt.Fprintln(out, "  --buffered: NOTHING IS DURABLE here; acknowledged records do not survive a power cut")
	}
	fmt.Fprintf(out, "\n  echo hello | kcat -P -b %s -t demo && kcat -C -b %s -t demo -e\n\n", nodes[0].Address(), nodes[0].Address())
}

// address is where the first node listens.
func (l *listener) address() string {
	return net.JoinHostPort(l.host, strconv.Itoa(l.bound[0].port))
}

// advertised are the nodes as clients see them.
func advertised(advertise, host string, all []bound) ([]shard.Node, error) {
	name, port, err := splitAdvertise(advertise, len(all))
	if err != nil {
		return nil, fmt.Errorf("--advertise: %w", err)
	}
	if name != "" {
		host = name
	}
	if host, err = advertisedHost(host); err != nil {
		return nil, err
	}
	nodes := make([]shard.Node, len(all))
	for i, b := range all {
		nodes[i] = shard.Node{ID: int32(i), Host: host, Port: int32(b.port)}
		if port != 0 {
			nodes[i].Port = int32(port + i)
		}
	}
	return nodes, nil
}

// splitAdvertise reads HOST[:PORT]; port 0 where it names none.
func splitAdvertise(text string, nodes int) (host string, port int, err error) {
	if strings.Count(text, ":") == 1 || strings.Contains(text, "]:") {
		return splitPort(text, nodes)
	}
	return strings.Trim(text, "[]"), 0, nil
}

// splitPort reads HOST:PORT, from which on a port is needed for each node.
func splitPort(text string, nodes int) (host string, port int, err error) {
	host, number, err := net.SplitHostPort(text)
	if err != nil {
		return "", 0, fmt.Errorf("%q: it is HOST:PORT, such as 127.0.0.1:9092, or :9092 for every address of this machine", text)
	}
	port, err = strconv.Atoi(number)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("%q: %s is not a port: it is 1 to 65535, or 0 for a free one", text, number)
	}
	if port+nodes-1 > 65535 {
		return "", 0, fmt.Errorf("%q: %s is not a port from which %s can be counted", text, number, term.Plural(nodes, "port"))
	}
	return host, port, nil
}

// advertisedHost is what clients are told where a broker listens on a host: a
// name of this machine where it listens on all of its addresses.
func advertisedHost(host string) (string, error) {
	if host != "" && host != "0.0.0.0" && host != "::" {
		return host, nil
	}
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("--listen names no host that clients could connect to; give --advertise HOST (%w)", err)
	}
	return name, nil
}

// logHandler writes log lines as the options say.
func (o *serveOptions) logHandler(w io.Writer) slog.Handler {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.logLevel)); err != nil {
		panic("a level that problems took: " + err.Error())
	}
	options := &slog.HandlerOptions{Level: level}
	if o.logFormat == "json" {
		return slog.NewJSONHandler(w, options)
	}
	return slog.NewTextHandler(w, options)
}

func allowedCPUs() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("which CPUs this process may use: %w", err)
	}
	var all []int
	for i := range 1024 {
		if set.IsSet(i) {
			all = append(all, i)
		}
	}
	return all, nil
}

// placeCPUs gives each data shard a CPU and the rest what is left. Without
// --cpus shards are pinned only where every one gets a CPU of its own and one
// is left over.
func placeCPUs(text string, allowed []int, shards int) (data, other []int, err error) {
	if text == "" {
		if len(allowed) <= shards {
			return nil, nil, nil
		}
		first := len(allowed) - shards
		return allowed[first:], allowed[:first], nil
	}
	if data, err = parseCPUs(text); err != nil {
		return nil, nil, fmt.Errorf("--cpus %w", err)
	}
	for _, c := range allowed {
		if !slices.Contains(data, c) {
			other = append(other, c)
		}
	}
	return data, other, nil
}

// parseCPUs reads a list such as 1-3,5.
func parseCPUs(text string) (all []int, err error) {
	if text == "" {
		return nil, nil
	}
	for _, word := range strings.Split(text, ",") {
		from, to, ok := strings.Cut(strings.TrimSpace(word), "-")
		a, err1 := strconv.Atoi(from)
		b, err2 := a, error(nil)
		if ok {
			b, err2 = strconv.Atoi(to)
		}
		if err1 != nil || err2 != nil || a < 0 || b < a || b > 1023 {
			return nil, fmt.Errorf("%q: %q is not a CPU or a range such as 2-5", text, word)
		}
		for c := a; c <= b; c++ {
			all = append(all, c)
		}
	}
	return all, nil
}

// logger writes shards' lines without making a shard wait: what cannot be
// written in time is dropped, and counted.
type logger struct {
	log     *slog.Logger
	lines   chan line
	dropped atomic.Uint64
	done    chan struct{}
}

type line struct {
	level shard.Level
	shard int
	text  string
}

func newLogger(l *slog.Logger) *logger {
	x := &logger{log: l, lines: make(chan line, 1024), done: make(chan struct{})}
	go func() {
		defer close(x.done)
		for m := range x.lines {
			attrs := []any{"shard", m.shard}
			if n := x.dropped.Swap(0); n > 0 {
				attrs = append(attrs, "lines_dropped_before", n)
			}
			l.Log(context.Background(), slog.Level(m.level), m.text, attrs...)
		}
	}()
	return x
}

// Log takes a line from a shard. It never blocks.
func (x *logger) Log(level shard.Level, from int, text []byte) {
	if !x.log.Enabled(context.Background(), slog.Level(level)) {
		return
	}
	select {
	case x.lines <- line{level, from, string(text)}:
	default:
		x.dropped.Add(1)
	}
}

func (x *logger) close() {
	close(x.lines)
	<-x.done
}
