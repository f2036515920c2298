package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tailbound/tailbound/bench/cli"
	"github.com/tailbound/tailbound/bench/groups"
	"github.com/tailbound/tailbound/bench/load"
	"github.com/tailbound/tailbound/bench/plain"
	"github.com/tailbound/tailbound/bench/record"
	"github.com/tailbound/tailbound/bench/rings"
	"github.com/tailbound/tailbound/bench/trial"
)

// The generator and the plain server understand each other: every intended
// request is answered, none with an error. No time is asserted.
func TestGeneratorDrivesThePlainServer(t *testing.T) {
	for _, sync := range []bool{true, false} {
		port, err := trial.FreePorts(1)
		if err != nil {
			t.Fatal(err)
		}
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		dir := t.TempDir()
		go func() { _ = plain.Serve(plain.Options{Listen: addr, DataDir: dir, Sync: sync}) }()
		for start := time.Now(); load.Ready(addr) != nil; time.Sleep(time.Millisecond) {
			if time.Since(start) > 10*time.Second {
				t.Fatal("the plain server does not answer")
			}
		}
		for i, o := range []load.Options{
			{Partitions: 4, Inflight: 64, Rate: 200, Records: 100, RecordBytes: 1000},
			{Partitions: 3, Inflight: 64, Rate: 200, Records: 10, RecordBytes: 100},
			{Partitions: 64, Inflight: 1024, Rate: 1000, Records: 1, RecordBytes: 100},
			{Partitions: 4, Inflight: 4, Records: 2, RecordBytes: 1000},
		} {
			o.Bootstrap, o.Topic, o.Connections = addr, fmt.Sprintf("t%d", i), 4
			o.WarmupNS, o.WindowNS, o.DrainNS = 50e6, 200e6, 30e9
			r, err := load.Run(o, load.Hooks{})
			if err != nil {
				t.Fatalf("load %d: %v", i, err)
			}
			if len(r.Errors) != 0 || r.Unfinished != 0 || r.Latency.Count == 0 {
				t.Errorf("load %d: errors %v, unfinished %d, %d measured", i, r.Errors, r.Unfinished, r.Latency.Count)
			}
			if want := o.Rate * 0.2; o.Rate > 0 && (float64(r.Latency.Count) < want-4 || float64(r.Latency.Count) > want+4) {
				t.Errorf("load %d: %d latencies, %.0f were intended", i, r.Latency.Count, want)
			}
		}
	}
}

// Ratios of a rebalance are formed inside a round, and what is recorded is every
// round of it.
func TestRebalance(t *testing.T) {
	systems := []string{"a", "b"}
	all := []rebalanced{{system: "a", protocol: "classic"}, {system: "b", protocol: "classic"}}
	for _, ns := range [][2]int64{{10e6, 20e6}, {90e6, 30e6}} {
		for i := range systems {
			all[i].began = append(all[i].began, time.Now())
			all[i].rounds = append(all[i].rounds, roundOf(groups.Rebalanced{FromCrashNS: 1e9, FromExpiryNS: ns[i]}))
		}
	}
	var out strings.Builder
	printRebalanced(&out, len(systems), all)
	for _, want := range []string{"from the session's end 50.0 (10.0..90.0) ms", "from the crash 1.00 (1.00..1.00)  from the session's end 1.75 (0.50..3.00)"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	dir := t.TempDir()
	if err := all[0].record(filepath.Join(dir, "a"), record.Machine{}); err != nil {
		t.Fatal(err)
	}
	read, err := record.Read(dir)
	if err != nil || len(read) != 1 {
		t.Fatalf("%d recordings, %v", len(read), err)
	}
	for series, ns := range map[string]int64{"rebalanced-from-crash": 1e9, "rebalanced-from-session-end": 90e6} {
		if h := record.Pool(read[0].Intervals, series); h.Count() != 2 || h.Max() != ns {
			t.Errorf("%s: %d rounds, at most %d ns", series, h.Count(), h.Max())
		}
	}
}

// Each state of blocks is held against the written ones of the same size and round.
func TestBlocks(t *testing.T) {
	row := func(state string, bytes int, rates ...float64) rings.BlocksRow {
		h := record.NewHistogram()
		h.Record(1e6)
		r := rings.BlocksRow{State: state, Bytes: bytes}
		for _, rate := range rates {
			r.Rounds = append(r.Rounds, rings.BlocksRound{Began: time.Now(), Seconds: 1, BytesPerSecond: rate, Took: h.Pack()})
		}
		return r
	}
	rows := []rings.BlocksRow{row("new", 1024, 50, 25), row("written", 1024, 100, 100), row("new", 2048, 30, 30), row("written", 2048, 10, 10)}
	var out strings.Builder
	printBlocks(&out, rows)
	for _, want := range []string{"1 KiB  new       throughput 0.38 (0.25..0.50)", "1 KiB  written   throughput 1.00 (1.00..1.00)", "2 KiB  new       throughput 3.00 (3.00..3.00)"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	dir := t.TempDir()
	if err := recordBlocks(filepath.Join(dir, "new"), record.Machine{}, rows[0]); err != nil {
		t.Fatal(err)
	}
	if read, err := record.Read(dir); err != nil || len(read) != 1 || len(read[0].Intervals) != 2 || read[0].Run.Series["write+fdatasync"].Count != 2 {
		t.Errorf("%+v, %v", read, err)
	}
}

// All systems that the documents name are there.
func TestSystems(t *testing.T) {
	var o others
	host := &cli.Host{Kinds: o.kinds()}
	cli.Command(host)
	for name, ok := range map[string]bool{
		"tailbound": true, "tailbound@/tmp/x": true, "tailbound-groups": true, "tailbound-wide": true, "tailbound-groups-wide": true, "tailbound:--spin=0s --arena=64MiB": true, "tailbound@/tmp/x:--spin=0s": true,
		"probe": true, "probe-new": true, "plain": true, "plain-nosync": true, "kafka": true, "kafka-flush": true, "kafka-wide": true, "kafka-flush-wide": true, "jetstream": true, "jetstream-sync": true, "broker@10.0.0.1:9092": true,
		"probe:--spin=0s": false, "plain@/tmp/x": false, "plain-wide": false, "rabbit": false, "broker": false, "broker-wide@10.0.0.1:9092": false, "tailbound@": false, "": false,
	} {
		if _, err := host.Systems(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
	all, err := host.Systems("tailbound@/tmp/x:--spin=0s --arena=64MiB,probe,broker@[::1]:9092")
	if err != nil {
		t.Fatal(err)
	}
	if s := all[0]; s.Kind.Name != "tailbound" || s.Binary != "/tmp/x" || !slices.Equal(s.Args, []string{"--spin=0s", "--arena=64MiB"}) || all[2].Address != "[::1]:9092" {
		t.Errorf("%+v", all)
	}
}

// What --print-memory promises of a start is found, and so is how often a broker
// collected garbage.
func TestPromiseOfMemory(t *testing.T) {
	text := "   the program                      34.2 MiB   35891998\n   resident while it starts, at most                   = 2.0 MiB  2097152 \n\nthe process: arenas 1.2 GiB = 1.5 GiB;\n"
	if got, err := promiseIn(text); err != nil || got != 2 {
		t.Errorf("%v MiB, %v", got, err)
	}
	if _, err := promiseIn("nothing"); err == nil {
		t.Error("a promise without a sum")
	}
	if n, ok := collectionsIn("gc 1 @0.1s 0%: 1 ms\nsaid\ngc 12 @0.5s 0%: 1 ms\n"); !ok || n != 12 {
		t.Errorf("%v collections, %v", n, ok)
	}
}
