package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/broker"
	"github.com/tailbound/tailbound/metrics"
	"github.com/tailbound/tailbound/shard"
)

// profile is what a running broker tells of itself. The names stay.
type profile struct {
	Version       string         `json:"version"`
	PID           int            `json:"pid"`
	At            time.Time      `json:"at"`
	UptimeSeconds float64        `json:"uptime_seconds"`
	SinceSeconds  float64        `json:"since_seconds"` // how long "since" took
	Process       processProfile `json:"process"`
	Shards        []shardProfile `json:"shards"`
}

// shardProfile is one shard: all since its start, and what came since this
// connection's last request (or its beginning).
type shardProfile struct {
	Shard    int               `json:"shard"`
	Node     int32             `json:"node"`
	Address  string            `json:"address"`
	Late     bool              `json:"late,omitempty"` // it took no turn in time: what follows is older
	Counters map[string]uint64 `json:"counters"`
	Levels   []metrics.Level   `json:"levels"`
	Total    metrics.Report    `json:"total"`
	Since    metrics.Report    `json:"since"`
}

const (
	profileSocket  = "profile.sock"
	socketPathMax  = 107 // bytes; sockaddr_un has 108
	shardAnswersIn = 500 * time.Millisecond
	profileIdle    = 10 * time.Minute
)

// profileQuestion is a line that comes. An empty one asks for the profile.
type profileQuestion struct {
	Tail *tailQuestion `json:"tail,omitempty"`
	SLO  bool          `json:"slo,omitempty"`
	// Record asks for the histograms of what came since the question before.
	Record bool `json:"record,omitempty"`
}

// tailQuestion asks for the slowest requests of so long, so many of each kind.
type tailQuestion struct {
	OverMS int64 `json:"over_ms"`
	Count  int   `json:"count"`
}

// profiler answers on DIR/profile.sock: a line comes, a profile goes back as
// one line of JSON. It runs on ordinary goroutines beside the shards and asks
// them for what they have recorded; they hand it over in their turns.
type profiler struct {
	version  string
	listener net.Listener
	started  time.Time
	allocs   uint64 // objects that answering has allocated

	mu         sync.Mutex
	broker     *broker.Broker // nil before the start and after the end
	nodes      []shard.Node
	collectors []*metrics.Collector
	histories  []*history // nil where a shard has no recorder
	budgets    map[string]*budget
}

// listenProfile makes the socket, for its owner only. The caller holds the
// directory's lock, so a socket that is there is a dead broker's.
func listenProfile(dir, version string) (*profiler, error) {
	path := filepath.Join(dir, profileSocket)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var listener net.Listener
	err := withSocketPath(path, func(path string) (err error) {
		// No shard runs yet: nobody else makes files while the mask is on.
		defer unix.Umask(unix.Umask(0o177))
		listener, err = net.Listen("unix", path)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &profiler{version: version, listener: listener, budgets: map[string]*budget{}}, nil
}

// withSocketPath calls f with a path to the same place that fits a socket's
// address.
func withSocketPath(path string, f func(string) error) error {
	if len(path) <= socketPathMax {
		return f(path)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return f(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)))
}

// serve answers until close.
func (p *profiler) serve(b *broker.Broker, nodes []shard.Node) {
	p.mu.Lock()
	p.broker, p.nodes, p.started = b, nodes, time.Now()
	for _, s := range b.Shards() {
		p.collectors = append(p.collectors, metrics.NewCollector(s.Timelines))
		var h *history
		if s.Flight != nil {
			h = newHistory(s.Flight)
		}
		p.histories = append(p.histories, h)
	}
	p.mu.Unlock()
	go p.keepFlights()
	go func() {
		for {
			c, err := p.listener.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil { // no descriptors: later
				time.Sleep(100 * time.Millisecond)
				continue
			}
			go p.session(c)
		}
	}()
}

// close ends answering. No shard is woken after it.
func (p *profiler) close(dir string) {
	p.listener.Close()
	os.Remove(filepath.Join(dir, profileSocket)) // where the name was too long for Go to know it
	p.mu.Lock()
	p.broker = nil
	p.mu.Unlock()
}

func (p *profiler) session(c net.Conn) {
	defer c.Close()
	var windows []*metrics.Window
	p.mu.Lock()
	for _, k := range p.collectors {
		windows = append(windows, k.Open())
	}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		for i, k := range p.collectors {
			k.Close(windows[i])
		}
		p.mu.Unlock()
	}()
	since := time.Now()
	in, out := bufio.NewReader(c), bufio.NewWriter(c)
	for {
		c.SetDeadline(time.Now().Add(profileIdle))
		line, err := in.ReadSlice('\n')
		if err != nil {
			return
		}
		var q profileQuestion
		if len(line) > 1 && json.Unmarshal(line, &q) != nil {
			return // not one of ours
		}
		p.mu.Lock()
		begin := heapAllocs()
		switch {
		case q.Record:
			var v *recordedInterval
			if v, err = p.recorded(windows); err == nil {
				err = json.NewEncoder(out).Encode(v)
			}
		case q.SLO:
			err = json.NewEncoder(out).Encode(p.slo())
		case q.Tail != nil:
			err = json.NewEncoder(out).Encode(p.tail(time.Duration(q.Tail.OverMS)*time.Millisecond, q.Tail.Count))
		default:
			answer := p.profile(windows)
			answer.SinceSeconds = answer.At.Sub(since).Seconds()
			since = answer.At
			err = json.NewEncoder(out).Encode(answer)
		}
		p.allocs += heapAllocs() - begin
		p.mu.Unlock()
		if err != nil || out.Flush() != nil {
			return
		}
	}
}

// profile asks every shard and puts together what it gets.
func (p *profiler) profile(windows []*metrics.Window) *profile {
	late := make([]bool, len(p.collectors))
	if p.broker != nil {
		p.collect(late)
	}
	now := time.Now()
	answer := &profile{Version: p.version, PID: os.Getpid(), At: now, UptimeSeconds: now.Sub(p.started).Seconds(), Process: readProcess()}
	answer.Process.ProfileAllocsObjects = p.allocs
	for i, k := range p.collectors {
		s := shardProfile{Shard: i, Node: p.nodes[i].ID, Address: p.nodes[i].Address(), Late: late[i], Counters: map[string]uint64{},
			Levels: k.Total().Levels(), Total: k.Total().Report(), Since: windows[i].Report()}
		windows[i].Reset()
		for _, v := range k.Counters() {
			s.Counters[v.Name] = v.Value
		}
		answer.Shards = append(answer.Shards, s)
	}
	return answer
}

// stuck are the shards that take no turn when they are asked to.
func (p *profiler) stuck() (all []int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broker == nil {
		return nil
	}
	late := make([]bool, len(p.collectors))
	p.collect(late)
	for i, l := range late {
		if l {
			all = append(all, i)
		}
	}
	return all
}

// collect asks all shards, and gives them a while.
func (p *profiler) collect(late []bool) {
	for i, k := range p.collectors {
		late[i] = true
		k.Collect() // what came too late for the request before
		k.Ask()
		p.broker.Wake(i)
	}
	missing := len(p.collectors)
	for end := time.Now().Add(shardAnswersIn); missing > 0 && time.Now().Before(end); {
		time.Sleep(100 * time.Microsecond)
		for i, k := range p.collectors {
			if late[i] && k.Collect() {
				late[i] = false
				missing--
			}
		}
	}
}

// keepFlights takes what the shards' recorders hand over, until close. It wakes
// no shard, and waits for none.
func (p *profiler) keepFlights() {
	for {
		time.Sleep(flightsEvery)
		p.mu.Lock()
		if p.broker == nil {
			p.mu.Unlock()
			return
		}
		p.takeFlights(false)
		p.mu.Unlock()
	}
}

const flightsEvery = 250 * time.Millisecond

// takeFlights takes what the recorders have handed over; with ask, what they have
// up to now.
func (p *profiler) takeFlights(ask bool) {
	take := func(i int) bool {
		h := p.histories[i]
		if !h.take() {
			return false
		}
		p.budgeted(i, h.last(), time.Now())
		return true
	}
	var waits []int
	for i, h := range p.histories {
		if h == nil {
			continue
		}
		take(i)
		if ask {
			h.flight.Ask()
			p.broker.Wake(i)
			waits = append(waits, i)
		}
	}
	for end := time.Now().Add(shardAnswersIn); len(waits) > 0 && time.Now().Before(end); {
		time.Sleep(100 * time.Microsecond)
		waits = slices.DeleteFunc(waits, take)
	}
}
