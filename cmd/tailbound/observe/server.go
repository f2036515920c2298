package observe

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/broker"
	"github.com/tailbound/tailbound/metrics"
	"github.com/tailbound/tailbound/shard"
)

// Profile is what a running broker tells of itself. The JSON names are kept from
// version to version.
type Profile struct {
	Version       string         `json:"version"`
	PID           int            `json:"pid"`
	At            time.Time      `json:"at"`
	UptimeSeconds float64        `json:"uptime_seconds"`
	SinceSeconds  float64        `json:"since_seconds"` // length of the interval that "since" is of
	Process       ProcessProfile `json:"process"`
	Disk          DiskProfile    `json:"disk"`
	Shards        []ShardProfile `json:"shards"`
}

// ShardProfile is one shard: Total is of everything since its start, Since of the
// interval since the question before on this connection, or since its beginning.
type ShardProfile struct {
	Shard    int               `json:"shard"`
	Node     int32             `json:"node"`
	Address  string            `json:"address"`
	Late     bool              `json:"late,omitempty"` // it took no turn in time: the figures are older
	Counters map[string]uint64 `json:"counters"`
	Levels   []metrics.Gauge   `json:"levels"`
	Total    metrics.Report    `json:"total"`
	Since    metrics.Report    `json:"since"`
}

const (
	profileSocket  = "profile.sock"
	socketPathMax  = 107 // bytes; sockaddr_un has 108
	shardAnswersIn = 500 * time.Millisecond
	profileIdle    = 10 * time.Minute
)

// question is one line of JSON to the socket. An empty line asks for the profile.
type question struct {
	Tail *tailQuestion `json:"tail,omitempty"`
	SLO  bool          `json:"slo,omitempty"`
	// Record asks for the histograms since the question before.
	Record bool `json:"record,omitempty"`
}

// tailQuestion asks for the slowest requests of the last OverMS, Count of each kind
// and shard.
type tailQuestion struct {
	OverMS int64 `json:"over_ms"`
	Count  int   `json:"count"`
}

// Server answers questions on DIR/profile.sock, a line of JSON for a line. It asks
// the shards for what they have recorded, which they hand over in their turns.
type Server struct {
	version string
	dir     string
	started time.Time
	allocs  uint64 // objects allocated by answering; under mu
	socket  door

	mu         sync.Mutex
	broker     *broker.Broker // nil before the start and after the end
	nodes      []shard.Node
	collectors []*metrics.Collector
	histories  []*history // nil where a shard has no recorder
	budgets    map[string]*budget
}

// NewServer makes the server of a data directory. version is the broker's own. It
// answers nothing before Serve.
func NewServer(dir, version string) *Server {
	p := &Server{version: version, dir: dir, budgets: map[string]*budget{}}
	p.socket.listen, p.socket.serve = p.listen, p.accept
	return p
}

// listen makes the socket, for its owner only. The process holds the directory's lock, so
// a socket that is there belonged to a broker that is dead.
func (p *Server) listen() (listener net.Listener, err error) {
	path := filepath.Join(p.dir, profileSocket)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	// The mode that a socket has when it is bound is the file's. (The process's umask would
	// be on the files of all threads.)
	config := net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) (err error) {
		if controlErr := conn.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); controlErr != nil {
			return controlErr
		}
		return err
	}}
	err = withSocketPath(path, func(path string) (err error) {
		listener, err = config.Listen(context.Background(), "unix", path)
		return err
	})
	return listener, err
}

// withSocketPath calls f with a path to the same file that is short enough for the
// address of a socket.
func withSocketPath(path string, use func(string) error) error {
	if len(path) <= socketPathMax {
		return use(path)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return use(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)))
}

// Serve answers, on goroutines, until Close. Where the socket cannot be made, as on a disk
// without a free inode, said is given the error and the broker serves without it: it is
// tried again, and said is called with nil once it is there.
func (p *Server) Serve(b *broker.Broker, nodes []shard.Node, said func(error)) {
	p.mu.Lock()
	p.broker, p.nodes, p.started = b, nodes, time.Now()
	for _, shard := range b.Shards() {
		p.collectors = append(p.collectors, metrics.NewCollector(shard.Timelines))
		var h *history
		if shard.Flight != nil {
			h = newHistory(shard.Flight)
		}
		p.histories = append(p.histories, h)
	}
	p.mu.Unlock()
	go p.keepFlights()
	p.socket.said = said
	p.socket.open()
}

// accept answers connections until the listener is closed.
func (p *Server) accept(listener net.Listener) error {
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil { // such as no free descriptor: try again later
			time.Sleep(100 * time.Millisecond)
			continue
		}
		go p.session(conn)
	}
}

// Close ends answering. No shard is woken after it.
func (p *Server) Close() {
	p.socket.close()
	os.Remove(filepath.Join(p.dir, profileSocket)) // Go removes it itself, but by the path of withSocketPath
	p.mu.Lock()
	p.broker = nil
	p.mu.Unlock()
}

// session answers one connection. It has windows of its own, so that connections do
// not shorten each other's intervals.
func (p *Server) session(conn net.Conn) {
	defer conn.Close()
	var windows []*metrics.Window
	p.mu.Lock()
	for _, collector := range p.collectors {
		windows = append(windows, collector.Open())
	}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		for i, collector := range p.collectors {
			collector.Close(windows[i])
		}
		p.mu.Unlock()
	}()
	since := time.Now()
	in := bufio.NewReader(conn)
	var out bytes.Buffer // an answer is sent after mu was released, because its reader may be slow
	for {
		conn.SetDeadline(time.Now().Add(profileIdle))
		line, err := in.ReadSlice('\n')
		if err != nil {
			return
		}
		var q question
		if len(line) > 1 && json.Unmarshal(line, &q) != nil {
			return // not a line of this protocol
		}
		out.Reset()
		p.mu.Lock()
		begin := heapAllocs()
		switch {
		case q.Record:
			var interval *recordedInterval
			if interval, err = p.recorded(windows); err == nil {
				err = json.NewEncoder(&out).Encode(interval)
			}
		case q.SLO:
			err = json.NewEncoder(&out).Encode(p.slo())
		case q.Tail != nil:
			err = json.NewEncoder(&out).Encode(p.tail(time.Duration(q.Tail.OverMS)*time.Millisecond, q.Tail.Count))
		default:
			answer := p.profile(windows)
			answer.SinceSeconds = answer.At.Sub(since).Seconds()
			since = answer.At
			err = json.NewEncoder(&out).Encode(answer)
		}
		p.allocs += heapAllocs() - begin
		p.mu.Unlock()
		if err != nil {
			return
		}
		if _, err := conn.Write(out.Bytes()); err != nil {
			return
		}
	}
}

// profile asks every shard and composes the answer. The caller holds mu.
func (p *Server) profile(windows []*metrics.Window) *Profile {
	late := make([]bool, len(p.collectors))
	if p.broker != nil {
		p.collect(late)
	}
	now := time.Now()
	answer := &Profile{Version: p.version, PID: os.Getpid(), At: now, UptimeSeconds: now.Sub(p.started).Seconds(), Process: ReadProcess(), Disk: readDisk(p.dir)}
	answer.Process.ProfileAllocsObjects = p.allocs
	for i, collector := range p.collectors {
		shard := ShardProfile{Shard: i, Node: p.nodes[i].ID, Address: p.nodes[i].Address(), Late: late[i], Counters: map[string]uint64{},
			Levels: collector.Total().Gauges(), Total: collector.Total().Report(), Since: windows[i].Report()}
		windows[i].Reset()
		for _, counter := range collector.Counters() {
			shard.Counters[counter.Name] = counter.Value
		}
		answer.Shards = append(answer.Shards, shard)
	}
	return answer
}

// Stuck are the shards that took no turn within shardAnswersIn of being asked.
func (p *Server) Stuck() (all []int) {
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

// collect asks all shards and waits up to shardAnswersIn for their turns. late says
// which did not answer. The caller holds mu.
func (p *Server) collect(late []bool) {
	for i, collector := range p.collectors {
		late[i] = true
		collector.Collect() // an answer that was too late for the last question
		collector.Ask()
		p.broker.Wake(i)
	}
	missing := len(p.collectors)
	for end := time.Now().Add(shardAnswersIn); missing > 0 && time.Now().Before(end); {
		time.Sleep(100 * time.Microsecond)
		for i, collector := range p.collectors {
			if late[i] && collector.Collect() {
				late[i] = false
				missing--
			}
		}
	}
}

// keepFlights takes the intervals that flight recorders hand over by themselves,
// until Close. It wakes no shard and waits for none.
func (p *Server) keepFlights() {
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

// takeFlights takes the intervals that flight recorders have handed over; with ask
// it has them hand over the present one too. The caller holds mu.
func (p *Server) takeFlights(ask bool) {
	take := func(i int) bool {
		history := p.histories[i]
		if !history.take() {
			return false
		}
		p.budgeted(i, history.last(), time.Now())
		return true
	}
	var waits []int
	for i, history := range p.histories {
		if history == nil {
			continue
		}
		take(i)
		if ask {
			history.flight.Ask()
			p.broker.Wake(i)
			waits = append(waits, i)
		}
	}
	for end := time.Now().Add(shardAnswersIn); len(waits) > 0 && time.Now().Before(end); {
		time.Sleep(100 * time.Microsecond)
		waits = slices.DeleteFunc(waits, take)
	}
}
