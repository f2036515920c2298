package main

import (
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"github.com/tailbound/tailbound/bench/load"
)

// The same schedule drives JetStream: every intended request is answered. No
// time is asserted.
func TestJetStreamIsDriven(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	_ = ln.Close()
	dir := t.TempDir()
	go func() { _ = serveJetStream(addr, dir, true) }()
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		if c, err := net.Dial("tcp", addr); err == nil {
			_ = c.Close()
			break
		}
		if time.Since(start) > 20*time.Second {
			t.Fatal("it does not listen")
		}
	}
	for i, o := range []load.Options{
		{Partitions: 2, Connections: 2, Inflight: 64, Rate: 100, Records: 10, RecordBytes: 100},
		{Partitions: 1, Connections: 2, Inflight: 4, Records: 1, RecordBytes: 100},
	} {
		o.Bootstrap, o.Topic, o.ServerPID = addr, fmt.Sprintf("t%d", i), os.Getpid()
		o.WarmupNS, o.WindowNS, o.DrainNS = 50e6, 300e6, 30e9
		o.IntervalNS = 100e6
		var counted, latencies int64
		r, err := drive(o, load.Hooks{Interval: func(i load.Interval) {
			counted += i.Requests
			for _, s := range i.Series {
				if s.Series == load.Produce {
					latencies += s.H.Count()
				}
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Errors) > 0 || r.Unfinished > 0 || r.Latency.Count == 0 {
			t.Errorf("load %d: errors %v, %d unfinished, %d measured", i, r.Errors, r.Unfinished, r.Latency.Count)
		}
		if counted != r.Acknowledged || latencies != r.Latency.Count {
			t.Errorf("load %d: intervals have %d requests and %d latencies, the result %d and %d", i, counted, latencies, r.Acknowledged, r.Latency.Count)
		}
		if want := o.Rate * 0.3; o.Rate > 0 && (float64(r.Latency.Count) < want-3 || float64(r.Latency.Count) > want+3) {
			t.Errorf("load %d: %d latencies, %.0f were intended", i, r.Latency.Count, want)
		}
	}
}
