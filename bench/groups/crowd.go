package groups

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/bench/record"
)

// Options say what the crowd is.
type Options struct {
	Bootstrap   string // host:port of the coordinator
	Groups      int
	Members     int   // of all groups
	Connections int   // for heartbeats; as many again for commits
	HeartbeatNS int64 // between two of one member
	CommitNS    int64 // between two of one member
}

// Summary is what the crowd saw between Join and its end.
type Summary struct {
	Heartbeats, Commits Requests
	Errors              map[string]int64 `json:",omitempty"` // by their names
}

// Requests are those of one kind. Times are from the send to the whole answer.
type Requests struct {
	Due, Answered       int64
	P50NS, P99NS, MaxNS int64
}

const topic = "groups"

// Crowd is the members that have joined. They are divided among connections. Each has a
// mutex, because heartbeats and commits use different connections.
type Crowd struct {
	o       Options
	members []*member
	lines   []*line // heartbeats', then commits'
	mu      sync.Mutex
	errors  map[string]int64
}

type member struct {
	mu     sync.Mutex
	group  string
	id     string
	epoch  int32
	owned  []kmsg.ConsumerGroupHeartbeatRequestTopic
	offset int64
}

// line is one connection, of one goroutine.
type line struct {
	conn      net.Conn
	formatter *kmsg.RequestFormatter
	last      int32
	latency   *record.Histogram
	due       int64
}

// Join creates the crowd's topic, makes all members join, and sends heartbeats until
// every member has its partitions.
func Join(o Options) (*Crowd, error) {
	each := (o.Members + o.Groups - 1) / o.Groups
	c := &Crowd{o: o, errors: map[string]int64{}}
	for range 2 * o.Connections {
		l, err := connect(o.Bootstrap)
		if err != nil {
			return nil, err
		}
		c.lines = append(c.lines, l)
	}
	resp, err := c.lines[0].ask(creation(topic, each))
	if err != nil {
		return nil, err
	}
	if code := resp.(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode; code != 0 {
		return nil, fmt.Errorf("creating %s: %w", topic, kerr.ErrorForCode(code))
	}
	for i := range o.Members {
		c.members = append(c.members, &member{group: fmt.Sprintf("crowd-%d", i%o.Groups), id: fmt.Sprintf("member-%d", i)})
	}
	// Each sweep lets a group go on by a step: joined; given up; got.
	for range 3 {
		if err := c.everybody(); err != nil {
			return nil, err
		}
	}
	for k, m := range c.members {
		if len(m.owned) == 0 && each*o.Groups == o.Members {
			return nil, fmt.Errorf("member %d of %s has no partition", k, m.group)
		}
	}
	if len(c.errors) > 0 {
		return nil, fmt.Errorf("joining: %v", c.errors)
	}
	for _, l := range c.lines {
		l.latency.Reset()
	}
	return c, nil
}

// everybody sends a heartbeat for each member, as fast as they are answered.
func (c *Crowd) everybody() error {
	failed := make(chan error, c.o.Connections)
	for i, l := range c.lines[:c.o.Connections] {
		go func() {
			for k := i; k < len(c.members); k += c.o.Connections {
				if err := c.beat(l, c.members[k]); err != nil {
					failed <- err
					return
				}
			}
			failed <- nil
		}()
	}
	var err error
	for range c.o.Connections {
		err = errors.Join(err, <-failed)
	}
	return err
}

// Stay has the crowd do what it does until stop is closed.
func (c *Crowd) Stay(stop <-chan struct{}) (*Summary, error) {
	failed := make(chan error, len(c.lines))
	for i, l := range c.lines {
		step, every, first := c.beat, c.o.HeartbeatNS, i
		if i >= c.o.Connections {
			step, every, first = c.commit, c.o.CommitNS, i-c.o.Connections
		}
		go func() { failed <- c.pace(l, first, every, step, stop) }()
	}
	var err error
	for range c.lines {
		err = errors.Join(err, <-failed)
	}
	s := &Summary{Heartbeats: sum(c.lines[:c.o.Connections]), Commits: sum(c.lines[c.o.Connections:]), Errors: c.errors}
	for _, l := range c.lines {
		l.conn.Close()
	}
	return s, err
}

// pace takes a connection's members in turn, each every so often, evenly.
func (c *Crowd) pace(l *line, first int, every int64, step func(*line, *member) error, stop <-chan struct{}) error {
	mine := (len(c.members) - first + c.o.Connections - 1) / c.o.Connections
	if mine <= 0 {
		return nil
	}
	gap := time.Duration(every / int64(mine))
	begin := time.Now()
	for n := 0; ; n++ {
		// Connections begin one after another, not all at once.
		at := begin.Add(time.Duration(n)*gap + gap*time.Duration(first)/time.Duration(c.o.Connections))
		select {
		case <-stop:
			l.due = int64(time.Since(begin)/gap) + 1
			return nil
		case <-time.After(time.Until(at)):
		}
		if err := step(l, c.members[first+n%mine*c.o.Connections]); err != nil {
			return err
		}
	}
}

func sum(lines []*line) Requests {
	all := record.NewHistogram()
	var r Requests
	for _, l := range lines {
		all.Add(l.latency)
		r.Due += l.due
	}
	r.Answered, r.P50NS, r.P99NS, r.MaxNS = all.Count(), all.At(50), all.At(99), all.Max()
	return r
}

func (c *Crowd) beat(l *line, m *member) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	resp, err := l.ask(m.heartbeat(topic))
	if err != nil {
		return err
	}
	r := resp.(*kmsg.ConsumerGroupHeartbeatResponse)
	if r.ErrorCode != 0 {
		m.epoch, m.owned = 0, nil
		c.count(r.ErrorCode)
		return nil
	}
	m.take(r)
	return nil
}

// heartbeat is the member's next one; its first one joins.
func (m *member) heartbeat(topic string) *kmsg.ConsumerGroupHeartbeatRequest {
	req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	req.Version, req.Group, req.MemberID, req.MemberEpoch, req.RebalanceTimeoutMillis, req.Topics = 1, m.group, m.id, m.epoch, -1, m.owned
	if m.epoch == 0 {
		req.RebalanceTimeoutMillis, req.SubscribedTopicNames, req.Topics = 60_000, []string{topic}, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	}
	return req
}

// take notes what a heartbeat without an error was answered.
func (m *member) take(r *kmsg.ConsumerGroupHeartbeatResponse) {
	m.epoch = r.MemberEpoch
	if r.Assignment != nil {
		m.owned = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
		for _, t := range r.Assignment.Topics {
			x := kmsg.NewConsumerGroupHeartbeatRequestTopic()
			x.TopicID, x.Partitions = t.TopicID, t.Partitions
			m.owned = append(m.owned, x)
		}
	}
}

func (c *Crowd) commit(l *line, m *member) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.owned) == 0 || m.epoch == 0 {
		return nil
	}
	m.offset++
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Version, req.Group, req.MemberID, req.Generation = 9, m.group, m.id, m.epoch
	t := kmsg.NewOffsetCommitRequestTopic()
	t.Topic = topic
	for _, p := range m.owned[0].Partitions {
		x := kmsg.NewOffsetCommitRequestTopicPartition()
		x.Partition, x.Offset = p, m.offset
		t.Partitions = append(t.Partitions, x)
	}
	req.Topics = append(req.Topics, t)
	resp, err := l.ask(req)
	if err != nil {
		return err
	}
	for _, p := range resp.(*kmsg.OffsetCommitResponse).Topics[0].Partitions {
		c.count(p.ErrorCode)
	}
	return nil
}

func (c *Crowd) count(code int16) {
	if code == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.errors[kerr.ErrorForCode(code).Error()]++
}

func connect(addr string) (*line, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &line{conn: conn, formatter: kmsg.NewRequestFormatter(kmsg.FormatterClientID("crowd")), latency: record.NewHistogram()}, nil
}

// creation asks for a topic.
func creation(topic string, partitions int) *kmsg.CreateTopicsRequest {
	create := kmsg.NewPtrCreateTopicsRequest()
	create.Version, create.TimeoutMillis = 7, 10_000
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = topic, int32(partitions), 1
	create.Topics = append(create.Topics, t)
	return create
}

// ask sends a request and waits for its answer.
func (l *line) ask(req kmsg.Request) (kmsg.Response, error) {
	l.last++
	begin := time.Now()
	_ = l.conn.SetDeadline(begin.Add(60 * time.Second))
	if _, err := l.conn.Write(l.formatter.AppendRequest(nil, req, l.last)); err != nil {
		return nil, err
	}
	var size [4]byte
	if _, err := io.ReadFull(l.conn, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n < 5 || n > 16<<20 {
		return nil, fmt.Errorf("an answer of %d bytes", n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(l.conn, body); err != nil {
		return nil, err
	}
	if got := int32(binary.BigEndian.Uint32(body)); got != l.last {
		return nil, fmt.Errorf("an answer to request %d, not %d", got, l.last)
	}
	resp := req.ResponseKind()
	body = body[4:]
	if resp.IsFlexible() {
		body = body[1:] // no tags in the header
	}
	if err := resp.ReadFrom(body); err != nil {
		return nil, fmt.Errorf("an answer of %s: %w", kmsg.NameForKey(req.Key()), err)
	}
	l.latency.Record(int64(time.Since(begin)))
	return resp, nil
}
