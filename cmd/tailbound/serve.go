package main

import (
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"tailbound/ioring"
	"tailbound/shard"
)

// serveOptions are the flags of serve.
type serveOptions struct {
	dataDir, listen, advertise, cpus, features, logLevel string
	shards                                               int
	arena                                                byteSize
	buffered, autoCreate                                 bool
	partitions                                           int
	messageBytes                                         byteSize
	partitionsMax                                        int
	onFailure                                            string
	retentionCheck                                       time.Duration
}

func serveCommand() *cobra.Command {
	o := serveOptions{arena: 256 << 20, messageBytes: 1048588}
	c := &cobra.Command{
		Use:   "serve --data-dir DIR",
		Short: "Run the broker in the foreground",
		Long: `Run the broker in the foreground.

The control shard listens on --listen; data shard i listens on the port i above
it and is a Kafka node of its own. Clients need only --listen's address.

SIGTERM and SIGINT stop it cleanly within seconds; a second one at once. The
exit status is 0 only after a clean stop.`,
		Example: `  tailbound serve --data-dir /var/lib/tailbound --listen 0.0.0.0:9092 --advertise broker.example.org
  tailbound serve --data-dir ./data --listen 127.0.0.1:9092 --shards 2 --cpus 2,3
  tailbound serve --data-dir ./data --ring-features 5.19   # as on an older kernel`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return serve(cmd, o) },
	}
	f := c.Flags()
	f.StringVar(&o.dataDir, "data-dir", "", "where the data lies (required)")
	f.StringVar(&o.listen, "listen", "127.0.0.1:9092", "address of the control shard; data shard i is i ports above; port 0 picks free ones")
	f.StringVar(&o.advertise, "advertise", "", "HOST[:PORT] that clients are told to connect to (default: --listen's host)")
	f.IntVar(&o.shards, "shards", 0, "data shards (default: CPUs - 1, at least 1)")
	f.StringVar(&o.cpus, "cpus", "", "CPUs for the data shards, such as 1-3,5 (default: the last ones allowed, where there are as many as shards + 1)")
	f.Var(&o.arena, "arena", "memory of each data shard, at least 64MiB")
	f.StringVar(&o.features, "ring-features", envOr("TAILBOUND_RING_FEATURES", "all"), "io_uring features that may be used: all, a kernel release such as 5.19, or names with - before them")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	f.BoolVar(&o.buffered, "buffered", false, "allow a file system without direct I/O, such as tmpfs, for trying out: nothing is durable then")
	f.BoolVar(&o.autoCreate, "auto-create-topics", true, "create a topic that a client asks for (auto.create.topics.enable)")
	f.IntVar(&o.partitions, "num-partitions", 1, "partitions of a topic that is created without a number")
	f.Var(&o.messageBytes, "message-max-bytes", "largest record batch (message.max.bytes)")
	f.IntVar(&o.partitionsMax, "partitions-max", 4096, "largest number of partitions of all topics")
	f.DurationVar(&o.retentionCheck, "retention-check-interval", shard.RetentionCheckNS, "how often each partition is held against its retention (log.retention.check.interval.ms)")
	f.StringVar(&o.onFailure, "storage-failure-action", "exit", "what a failed write or sync leads to: exit, or readonly")
	c.MarkFlagRequired("data-dir")
	return c
}

func envOr(name, value string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return value
}

func serve(cmd *cobra.Command, o serveOptions) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.logLevel)); err != nil {
		return fmt.Errorf("--log-level %q: it is debug, info, warn or error", o.logLevel)
	}
	logger := newLogger(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})))
	defer logger.close()

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
	if o.shards == 0 {
		o.shards = max(1, len(allowed)-1)
	}
	if o.shards < 1 || o.shards > 250 {
		return fmt.Errorf("--shards %d: it is 1 to 250", o.shards)
	}
	data, other, err := placeCPUs(o.cpus, allowed, o.shards)
	if err != nil {
		return err
	}
	// A processor for each shard, and some for what Go does besides.
	if runtime.GOMAXPROCS(0) < o.shards+3 {
		runtime.GOMAXPROCS(o.shards + 3)
	}
	// Data shards make no garbage; the control side has a bound.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(512 << 20)

	if o.onFailure != "exit" && o.onFailure != "readonly" {
		return fmt.Errorf("--storage-failure-action %q: it is exit or readonly", o.onFailure)
	}
	if err := os.MkdirAll(o.dataDir, 0o755); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	dataDir, err := filepath.Abs(o.dataDir)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	lock, err := lockDirectory(o.dataDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	root, err := unix.Open(o.dataDir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("data directory %s: %w", o.dataDir, err)
	}
	defer unix.Close(root)
	disk, err := ioring.DirectIO(root)
	buffered := false
	if err != nil {
		if !o.buffered {
			return fmt.Errorf("data directory %s: %w; choose a directory on ext4 or XFS, or --buffered to try things out without durability", o.dataDir, err)
		}
		buffered = true
	}
	host, bound, err := listenAll(o.listen, o.shards+1)
	if err != nil {
		return err
	}
	defer func() {
		for _, b := range bound { // frees the port now, whoever else still holds the socket
			unix.Shutdown(b.fd, unix.SHUT_RDWR)
		}
	}()
	nodes, err := advertised(o.advertise, host, bound)
	if err != nil {
		return err
	}
	var seed [8]byte
	var directory [16]byte
	crand.Read(seed[:]) // never fails (crypto/rand)
	crand.Read(directory[:])
	options := shard.BrokerOptions{
		DataShards: o.shards, CPUs: data, OtherCPUs: other, ArenaBytes: int(o.arena), Nodes: nodes, RootFD: root, Features: features,
		Buffered: buffered, MessageBytesMax: int(o.messageBytes), PartitionsDefault: o.partitions, TopicsMax: o.partitionsMax, PartitionsMax: o.partitionsMax,
		DataDir: dataDir, AutoCreateTopics: o.autoCreate, RetentionCheckNS: int64(o.retentionCheck), ReadOnlyOnFailure: o.onFailure == "readonly", Log: logger, Seed: binary.LittleEndian.Uint64(seed[:]), NewDirectory: directory,
	}
	for _, b := range bound {
		options.Listeners = append(options.Listeners, b.fd)
	}
	profiler, err := listenProfile(o.dataDir)
	if err != nil {
		logger.log.Warn("`tailbound profile` will not be answered", "error", err)
	} else {
		defer profiler.close(o.dataDir)
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT)
	started := time.Now()
	broker, err := shard.Start(options)
	if err != nil {
		return err
	}
	for _, note := range broker.Boot.Notes {
		logger.log.Warn(note)
	}
	if profiler != nil {
		profiler.serve(broker, nodes)
	}
	announce(cmd, o, nodes, host, bound, found, disk, buffered, data, time.Since(started))
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		logger.log.Warn("systemd could not be told of readiness", "error", err)
	}
	done := make(chan error, 1)
	go func() { done <- broker.Wait() }()
	select {
	case err := <-done:
		if err == nil {
			err = errors.New("the broker stopped by itself")
		}
		return err
	case s := <-signals:
		logger.log.Info("stopping", "signal", s.String())
		if profiler != nil {
			profiler.close(o.dataDir)
		}
		daemon.SdNotify(false, daemon.SdNotifyStopping)
		broker.Stop()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	select {
	case err := <-done:
		if err != nil {
			return err
		}
		logger.log.Info("stopped cleanly")
		return nil
	case s := <-signals:
		return fmt.Errorf("stopped at once by a second %s; the next start recovers", s)
	case <-ctx.Done():
		return errors.New("stopping took more than 30 s; stopped at once, the next start recovers")
	}
}

// announce says what runs, and how to reach it.
func announce(cmd *cobra.Command, o serveOptions, nodes []shard.Node, host string, bound []bound, f ioring.Features, d ioring.Direct, buffered bool, cpus []int, took time.Duration) {
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "tailbound %s, Linux %s, serving %s (%s) after %d ms\n", versionString(), f.Kernel, o.dataDir, d.FileSystem, took.Milliseconds())
	listens := ""
	if at := net.JoinHostPort(host, strconv.Itoa(bound[0].port)); at != address(nodes[0]) {
		listens = fmt.Sprintf("  listening on %s and the %s above", at, plural(len(bound)-1, "port"))
	}
	fmt.Fprintf(out, "  control   node %d  %s%s\n", nodes[0].ID, address(nodes[0]), listens)
	for i, n := range nodes[1:] {
		place := "not pinned"
		if len(cpus) > 0 {
			place = fmt.Sprintf("CPU %d", cpus[i%len(cpus)])
		}
		fmt.Fprintf(out, "  shard %-3d node %d  %s  %s, arena %s\n", i+1, n.ID, address(n), place, &o.arena)
	}
	fmt.Fprintf(out, "  io_uring  found: %s\n", strings.Join(append([]string{"linux 5.19's"}, f.Found()...), ", "))
	for _, m := range f.Missing() {
		fmt.Fprintf(out, "            missing: %s\n", m)
	}
	if buffered {
		fmt.Fprintln(out, "  --buffered: NOTHING IS DURABLE here; acknowledged records do not survive a power cut")
	}
	fmt.Fprintf(out, "\n  echo hello | kcat -P -b %s -t demo && kcat -C -b %s -t demo -e\n\n", address(nodes[0]), address(nodes[0]))
}

func address(n shard.Node) string { return net.JoinHostPort(n.Host, strconv.Itoa(int(n.Port))) }

// advertised are the nodes as clients see them.
func advertised(advertise, host string, all []bound) ([]shard.Node, error) {
	port := 0
	if advertise != "" {
		h, p, err := net.SplitHostPort(advertise)
		if err != nil {
			h = strings.Trim(advertise, "[]")
		} else if port, err = strconv.Atoi(p); err != nil || port < 1 || port+len(all)-1 > 65535 {
			return nil, fmt.Errorf("--advertise %s: %s is not a port from which %d can be counted", advertise, p, len(all))
		}
		host = h
	}
	if host == "" || host == "0.0.0.0" || host == "::" {
		name, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("--listen names no host that clients could connect to; give --advertise HOST (%w)", err)
		}
		host = name
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
	taken := map[int]bool{}
	for _, word := range strings.Split(text, ",") {
		from, to, ok := strings.Cut(strings.TrimSpace(word), "-")
		a, err1 := strconv.Atoi(from)
		b, err2 := a, error(nil)
		if ok {
			b, err2 = strconv.Atoi(to)
		}
		if err1 != nil || err2 != nil || a < 0 || b < a || b > 1023 {
			return nil, nil, fmt.Errorf("--cpus %q: %q is not a CPU or a range such as 2-5", text, word)
		}
		for c := a; c <= b; c++ {
			data = append(data, c)
			taken[c] = true
		}
	}
	for _, c := range allowed {
		if !taken[c] {
			other = append(other, c)
		}
	}
	return data, other, nil
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
