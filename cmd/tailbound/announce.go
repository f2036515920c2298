package main

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/tailbound/tailbound/cmd/tailbound/settings"
	"github.com/tailbound/tailbound/cmd/tailbound/term"
	"github.com/tailbound/tailbound/ioring"
)

// banner is what a broker says of itself once it serves.
type banner struct {
	settings  *settings.Values
	metrics   bool // /metrics is served
	listeners []*listener
	found     ioring.Features // of the kernel
	disk      ioring.Direct
	buffered  bool
	cpus      []int // of data shards; none: not pinned
	took      time.Duration
}

// announce says what runs and how it is reached: as a line of the log if that is
// JSON, on out if it is read by people.
func (b *banner) announce(out io.Writer, log *slog.Logger) {
	v, first := b.settings, b.listeners[0]
	if v.LogFormat == "json" {
		log.Info("serving", "version", versionString(), "kernel", b.found.Kernel, "data_dir", v.DataDir, "file_system", b.disk.FileSystem, "listen", first.address(), "advertise", first.nodes[0].Address(),
			"shards", v.Shards, "cpus", b.cpus, "arena_bytes", int64(v.Arena), "ring_found", b.found.Found(), "ring_missing", b.found.Missing(), "durable", !b.buffered, "started_in_ms", b.took.Milliseconds())
		return
	}
	if b.metrics {
		log.Info("serving /metrics", "listen", v.MetricsListen)
	}
	fmt.Fprintf(out, "tailbound %s, Linux %s, serving %s (%s) after %d ms\n", versionString(), b.found.Kernel, v.DataDir, b.disk.FileSystem, b.took.Milliseconds())
	b.printNodes(out)
	fmt.Fprintf(out, "  io_uring  found: %s\n", strings.Join(append([]string{"linux 5.19's"}, b.found.Found()...), ", "))
	for _, missing := range b.found.Missing() {
		fmt.Fprintf(out, "            missing: %s\n", missing)
	}
	if b.buffered {
		fmt.Fprintln(out, "  --buffered: NOTHING IS DURABLE here; acknowledged records do not survive a power cut")
	}
	bootstrap := first.nodes[0].Address()
	fmt.Fprintf(out, "\n  echo hello | kcat -P -b %s -t demo && kcat -C -b %s -t demo -e\n\n", bootstrap, bootstrap)
}

// printNodes prints the nodes as clients of the first listener see them, and the
// other listeners.
func (b *banner) printNodes(out io.Writer) {
	v, first := b.settings, b.listeners[0]
	nodes := first.nodes
	control := nodes[0]
	listens := ""
	if address := first.address(); address != control.Address() {
		listens = "  listening on " + address
		if !v.Single() {
			listens += " and the " + term.Plural(len(first.bound)-1, "port") + " above"
		}
	}
	shards := nodes[1:]
	if v.Single() {
		fmt.Fprintf(out, "  one node  node %d  %s%s  (--listen-mode=single: one core has all partitions)\n", control.ID, control.Address(), listens)
		shards = nodes
	} else {
		fmt.Fprintf(out, "  control   node %d  %s%s\n", control.ID, control.Address(), listens)
	}
	for i, node := range shards {
		place := "not pinned"
		if len(b.cpus) > 0 {
			place = fmt.Sprintf("CPU %d", b.cpus[i%len(b.cpus)])
		}
		fmt.Fprintf(out, "  shard %-3d node %d  %s  %s, arena %s\n", i+1, node.ID, node.Address(), place, &v.Arena)
	}
	for i, listener := range b.listeners {
		if i > 0 {
			fmt.Fprintf(out, "  listener  %s  the same nodes from %s on, listening on %s\n", listener.Name, listener.nodes[0].Address(), listener.address())
		}
	}
}
