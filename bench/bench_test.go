package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tailbound/tailbound/bench/groups"
	"github.com/tailbound/tailbound/bench/load"
	"github.com/tailbound/tailbound/bench/plain"
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

// Ratios are formed inside a round, and only where both carried the rate.
func TestRatiosSkipRoundsThatCouldNot(t *testing.T) {
	if comparable(nil) || comparable(&load.Result{Carried: 0.58}) ||
		comparable(&load.Result{Carried: 1, Errors: map[string]int64{"x": 1}}) || !comparable(&load.Result{Carried: 0.995}) {
		t.Fatal("what may be compared has changed")
	}
}

func TestVariants(t *testing.T) {
	for name, ok := range map[string]bool{"tailbound": true, "tailbound@/tmp/x": true, "tailbound-groups-wide": true, "tailbound:--spin=0s --arena=64MiB": true, "tailbound@/tmp/x:--spin=0s": true, "probe": true, "probe:--spin=0s": false, "plain@/tmp/x": false, "rabbit": false, "broker@10.0.0.1:9092": true, "broker": false, "kafka-flush-wide": true, "": false} {
		if err := valid(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
	kind, binary, args := variant("tailbound@/tmp/x:--spin=0s --arena=64MiB")
	if kind != "tailbound" || binary != "/tmp/x" || len(args) != 2 || args[1] != "--arena=64MiB" {
		t.Errorf("it is %q, %q, %q", kind, binary, args)
	}
}

func TestTableGoesIntoItsPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(path, []byte("before\n<!-- measured -->\nold\n<!-- /measured -->\nafter\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := putInto(path, "\nnew\n"); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "before\n<!-- measured -->\n```\nnew\n```\n<!-- /measured -->\nafter\n" {
		t.Errorf("%q, %v", b, err)
	}
	if err := os.WriteFile(path, []byte("<!-- measured --> without an end"), 0o644); err != nil {
		t.Fatal(err)
	}
	if putInto(path, "x") == nil {
		t.Error("a page without an end of its place was written")
	}
}

// Ratios of a rebalance are formed inside a round.
func TestRebalanceTable(t *testing.T) {
	var all []rebalanced
	for round, ns := range [][2]int64{{10e6, 20e6}, {90e6, 30e6}} {
		for i, system := range []string{"a", "b"} {
			all = append(all, rebalanced{round, system, "classic", groups.Rebalanced{FromCrashNS: 1e9, FromExpiryNS: ns[i]}})
		}
	}
	var out strings.Builder
	rebalanceTable(&out, []string{"a", "b"}, []string{"classic"}, all)
	for _, want := range []string{"from the session's end 50.0 (10.0 to 90.0) ms", "from the crash 1.00 (1.00 to 1.00)  from the session's end 1.75 (0.50 to 3.00)"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}
