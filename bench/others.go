package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/tailbound/tailbound/bench/cli"
	"github.com/tailbound/tailbound/bench/groups"
	"github.com/tailbound/tailbound/bench/record"
	"github.com/tailbound/tailbound/bench/trial"
)

// others are the systems that Tailbound is compared with, and what may be beside
// it.
type others struct {
	peers      string
	processors int
	properties []string // more of Kafka's, NAME=VALUE
	crowd      groups.Options
	heartbeat  time.Duration
	commit     time.Duration
	crowdCPU   int
}

// flags adds those of these systems to the commands that measure them.
func (o *others) flags(c *cobra.Command) {
	f := c.Flags()
	if c.Name() != "versus" && c.Name() != "rebalance" {
		return
	}
	f.StringVar(&o.peers, "peers", "bin/peers", "what starts Kafka and JetStream (make bin/peers)")
	f.IntVar(&o.processors, "plain-gomaxprocs", 4, "GOMAXPROCS of the plain server and of the probes")
	if c.Name() != "versus" {
		return
	}
	f.IntVar(&o.crowd.Groups, "groups", 2000, "groups of tailbound-groups: the broker, and groups beside the load")
	f.IntVar(&o.crowd.Members, "members", 10000, "their members, of the consumer protocol")
	f.IntVar(&o.crowd.Connections, "group-connections", 32, "connections their heartbeats share; as many again for commits")
	f.DurationVar(&o.heartbeat, "heartbeat", 3*time.Second, "between two heartbeats of one member")
	f.DurationVar(&o.commit, "commit", 5*time.Second, "between two commits of one member")
	f.IntVar(&o.crowdCPU, "groups-cpu", 1, "core of the groups; with the generator's, they share it")
}

// What an acknowledgement means, as the tables say it.
const (
	inGroups  = "on disk: written and synced"
	byItself  = "on disk: each batch by itself"
	pageCache = "page cache: written when the operating system likes"
)

func (o *others) kinds() []cli.Kind {
	child := func(name string, words ...string) func(cli.Place) ([]string, []string, error) {
		return func(p cli.Place) ([]string, []string, error) {
			command, err := child(append([]string{name, p.Address, p.Dir}, words...)...)
			return command, []string{fmt.Sprintf("GOMAXPROCS=%d", o.processors)}, err
		}
	}
	peer := func(name, promise string) cli.Kind {
		return cli.Kind{Name: name, Promise: promise, Start: func(p cli.Place) ([]string, []string, error) {
			return append([]string{o.peers, "serve", name, p.Address, p.Dir}, o.properties...), nil, nil
		}}
	}
	kafka := func(name, promise string) cli.Kind {
		k := peer(name, promise)
		k.ReadsBack, k.Wide, k.Warmup = true, true, 15*time.Second // its compiler's; a JVM on one core suffers
		return k
	}
	jetStream := func(name, promise string) cli.Kind {
		k := peer(name, promise)
		k.Ready, k.Generator = servesNATS, func() []string { return []string{o.peers, "generate"} }
		return k
	}
	return []cli.Kind{
		{Name: "tailbound-groups", Promise: inGroups, ReadsBack: true, Wide: true, Tailbound: true, Start: cli.StartTailbound, Beside: o.gather},
		{Name: "probe", Promise: inGroups, Always: true, Start: child("child-probe", "written")},
		{Name: "probe-new", Promise: inGroups, Always: true, Start: child("child-probe", "new")},
		{Name: "plain", Promise: inGroups, Always: true, Start: child("child-plain", "sync")},
		{Name: "plain-nosync", Promise: pageCache, Start: child("child-plain", "nosync")},
		kafka("kafka", pageCache),
		kafka("kafka-flush", byItself),
		jetStream("jetstream", "page cache: synced every two minutes"),
		jetStream("jetstream-sync", "on disk: each message by itself"),
	}
}

// child is how this program is started as one of its children.
func child(words ...string) ([]string, error) {
	program, err := os.Executable()
	return append([]string{program}, words...), err
}

// servesNATS says whether a NATS server serves: it begins every connection with
// INFO.
func servesNATS(address string) error {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second)) // a connection that is closed fails to read
	_, err = conn.Read(make([]byte, 4))
	return err
}

// gather has a process of its own join all groups, and waits until it has.
func (o *others) gather(ctx context.Context, address, dir string) (trial.Ending, error) {
	c := o.crowd
	c.Bootstrap, c.HeartbeatNS, c.CommitNS = address, int64(o.heartbeat), int64(o.commit)
	if c.Groups < 1 || c.Members < c.Groups || c.Connections < 1 || c.HeartbeatNS < 1 || c.CommitNS < 1 {
		return nil, errors.New("every group has a member, and all numbers of groups are above 0")
	}
	text, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	ready := filepath.Join(dir, "gathered")
	if err := os.RemoveAll(ready); err != nil {
		return nil, err
	}
	command, err := child("child-groups", string(text), ready)
	if err != nil {
		return nil, err
	}
	crowd, err := trial.Spawn([]int{o.crowdCPU}, nil, command[0], command[1:]...)
	if err != nil {
		return nil, err
	}
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(ready); err == nil {
			return func() ([]record.Figure, error) { return dismiss(crowd) }, nil
		}
		switch {
		case crowd.Exited():
			err = fmt.Errorf("groups: %s", crowd.LastWords())
		case time.Since(start) > 3*time.Minute:
			err = errors.New("groups: they have not joined after three minutes")
		default:
			if err = ctx.Err(); err == nil {
				continue
			}
		}
		crowd.Kill()
		return nil, err
	}
}

// dismiss ends the groups and reads what they saw.
func dismiss(crowd *trial.Process) ([]record.Figure, error) {
	crowd.Stop()
	var s groups.Summary
	if err := json.Unmarshal(crowd.Stdout.Bytes(), &s); err != nil {
		return nil, fmt.Errorf("groups: %s", crowd.LastWords())
	}
	var figures []record.Figure
	for _, r := range []struct {
		name string
		groups.Requests
	}{{"heartbeats", s.Heartbeats}, {"commits", s.Commits}} {
		figures = append(figures,
			record.Figure{Name: r.name, Value: float64(r.Answered) / float64(max(r.Due, 1)), Unit: fmt.Sprintf("answered of %d that were due", r.Due)},
			record.Figure{Name: r.name + " p50", Value: float64(r.P50NS) / 1e6, Unit: "ms"},
			record.Figure{Name: r.name + " p99", Value: float64(r.P99NS) / 1e6, Unit: "ms"})
	}
	for name, n := range s.Errors {
		figures = append(figures, record.Figure{Name: "group errors " + name, Value: float64(n)})
	}
	return figures, nil
}
