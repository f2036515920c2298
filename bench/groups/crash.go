package groups

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// CrashOptions say what the group is of which a member crashes.
type CrashOptions struct {
	Bootstrap   string // host:port of the coordinator
	Protocol    string // classic or consumer
	Members     int
	Partitions  int   // of its topic; at least Members
	SessionNS   int64 // of the consumer protocol it is the broker's, which has to have the same
	HeartbeatNS int64 // between two of one member
}

// Rebalanced says how long after a member's crash the others had all partitions
// between them. Its session ends SessionNS after the last answer it got.
type Rebalanced struct {
	FromCrashNS, FromExpiryNS int64
}

// A scene is one group. Each member is a goroutine with a connection.
type scene struct {
	o            CrashOptions
	topic, group string
	over         chan struct{} // closed when nothing is wanted of the members
	failed       chan error

	mu        sync.Mutex
	players   []*player
	lastWhole time.Time      // while they join
	whole     chan time.Time // gets one when the living have every partition once
}

// A player is one member. What others read is under the scene's mutex.
type player struct {
	s     *scene
	line  *line
	id    string
	crash chan struct{} // closed to have it crash
	ended chan struct{}

	// under mu
	owned  []int32
	leader bool
	dead   bool
	heard  time.Time // its last answer
}

// Crash has a group join, one of its members vanish, and waits until the others
// have what it had. The crashed member's connection is closed, as the kernel
// closes those of a process that is killed; it does not leave.
func Crash(o CrashOptions) (*Rebalanced, error) {
	if o.Protocol != "classic" && o.Protocol != "consumer" {
		return nil, fmt.Errorf("no protocol %q: there are classic and consumer", o.Protocol)
	}
	if o.Members < 2 || o.Partitions < o.Members {
		return nil, fmt.Errorf("%d members and %d partitions: there are at least two, and a partition for each", o.Members, o.Partitions)
	}
	s := &scene{o: o, topic: "crash-" + o.Protocol, group: "crash-" + o.Protocol, lastWhole: time.Now(), over: make(chan struct{}), failed: make(chan error, o.Members), whole: make(chan time.Time, 1)}
	if err := s.prepare(); err != nil {
		return nil, err
	}
	for i := range o.Members {
		l, err := connect(o.Bootstrap)
		if err != nil {
			return nil, err
		}
		s.players = append(s.players, &player{s: s, line: l, crash: make(chan struct{}), ended: make(chan struct{})})
		if o.Protocol == "consumer" {
			s.players[i].id = fmt.Sprintf("member-%d", i)
		}
	}
	for _, p := range s.players {
		go p.live()
	}
	defer s.end()
	// They have everything, and it stays so for three heartbeats and a while.
	for settled := time.Duration(0); settled < time.Duration(3*o.HeartbeatNS)+time.Second; {
		const look = 20 * time.Millisecond
		at, err := s.await(look, time.Minute)
		if err != nil {
			return nil, fmt.Errorf("joining: %w", err)
		}
		if settled += look; at.IsZero() {
			settled = 0
		}
	}
	var victim *player
	s.mu.Lock()
	for _, p := range s.players {
		if !p.leader {
			victim = p
		}
	}
	s.mu.Unlock()
	time.Sleep(rand.N(time.Duration(o.HeartbeatNS))) // at any time between two heartbeats
	close(victim.crash)
	<-victim.ended
	crashed := time.Now()
	s.mu.Lock()
	victim.dead = true
	expires := victim.heard.Add(time.Duration(o.SessionNS))
	select {
	case <-s.whole: // of before
	default:
	}
	s.mu.Unlock()
	select {
	case at := <-s.whole:
		return &Rebalanced{FromCrashNS: int64(at.Sub(crashed)), FromExpiryNS: int64(at.Sub(expires))}, nil
	case err := <-s.failed:
		return nil, err
	case <-time.After(time.Duration(o.SessionNS) + time.Minute):
		return nil, errors.New("a minute after the session the others do not have all partitions")
	}
}

// prepare makes the topic and finds the coordinator, which makes its own.
func (s *scene) prepare() error {
	l, err := connect(s.o.Bootstrap)
	if err != nil {
		return err
	}
	defer l.conn.Close()
	create := creation(s.topic, s.o.Partitions)
	find := kmsg.NewPtrFindCoordinatorRequest()
	find.Version, find.CoordinatorKey = 2, s.group
	for limit := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		resp, err := l.ask(create)
		if err != nil {
			return err
		}
		code := resp.(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode
		if code == 0 || code == kerr.TopicAlreadyExists.Code {
			if resp, err = l.ask(find); err != nil {
				return err
			}
			if code = resp.(*kmsg.FindCoordinatorResponse).ErrorCode; code == 0 {
				return nil
			}
		}
		if time.Now().After(limit) {
			return fmt.Errorf("making %s: %w", s.topic, kerr.ErrorForCode(code))
		}
	}
}

// Configure sets configurations of all brokers.
func Configure(bootstrap string, configs map[string]string) error {
	l, err := connect(bootstrap)
	if err != nil {
		return err
	}
	defer l.conn.Close()
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	req.Version = 1
	r := kmsg.NewIncrementalAlterConfigsRequestResource()
	r.ResourceType = kmsg.ConfigResourceTypeBroker
	for name, value := range configs {
		c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		c.Name, c.Op, c.Value = name, kmsg.IncrementalAlterConfigOpSet, &value
		r.Configs = append(r.Configs, c)
	}
	req.Resources = append(req.Resources, r)
	resp, err := l.ask(req)
	if err != nil {
		return err
	}
	if x := resp.(*kmsg.IncrementalAlterConfigsResponse).Resources[0]; x.ErrorCode != 0 {
		return fmt.Errorf("configuring: %w", kerr.ErrorForCode(x.ErrorCode))
	}
	return nil
}

// await looks after a while whether the group is whole; zero: it is not.
func (s *scene) await(look, limit time.Duration) (at time.Time, err error) {
	select {
	case err := <-s.failed:
		return at, err
	case <-time.After(look):
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isWhole() {
		s.lastWhole = time.Now()
		return s.lastWhole, nil
	}
	if time.Since(s.lastWhole) > limit {
		return at, fmt.Errorf("they do not have all partitions after %v", limit)
	}
	return at, nil
}

func (s *scene) end() {
	close(s.over)
	for _, p := range s.players {
		p.line.conn.Close()
		<-p.ended
	}
}

// own notes what a member has now.
func (s *scene) own(p *player, partitions []int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.owned = partitions
	if s.isWhole() {
		select {
		case s.whole <- time.Now():
		default:
		}
	}
}

// isWhole says whether the living have every partition once, and each has some.
// The caller holds mu.
func (s *scene) isWhole() bool {
	owners := make([]int, s.o.Partitions)
	for _, p := range s.players {
		if p.dead {
			continue
		}
		if len(p.owned) == 0 {
			return false
		}
		for _, k := range p.owned {
			owners[k]++
		}
	}
	for _, n := range owners {
		if n != 1 {
			return false
		}
	}
	return true
}

// live is a member until it crashes or all is over.
func (p *player) live() {
	defer close(p.ended)
	step := p.classic
	if p.s.o.Protocol == "consumer" {
		step = p.consumer
	}
	err := step()
	p.line.conn.Close()
	select {
	case <-p.s.over:
	case <-p.crash:
	default:
		p.s.failed <- err
	}
}

// ask asks, and notes when the broker last heard of the member.
func (p *player) ask(req kmsg.Request) (kmsg.Response, error) {
	resp, err := p.line.ask(req)
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.heard = time.Now()
	return resp, err
}

var errEnded = errors.New("a member ended by itself")

// rest waits between two requests; it returns an error when the member is to end.
func (p *player) rest(d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-p.crash:
	case <-p.s.over:
	}
	return errEnded
}

// passes says that a coordinator is not there yet.
func passes(code int16) bool {
	return code == kerr.CoordinatorNotAvailable.Code || code == kerr.NotCoordinator.Code || code == kerr.CoordinatorLoadInProgress.Code
}

// classic is a member of the classic protocol: join, sync, heartbeats until they
// say that the group rebalances.
func (p *player) classic() error {
	for {
		generation, code, err := p.join()
		if err == nil && code == 0 {
			code, err = p.beats(generation)
		}
		p.s.own(p, nil)
		switch {
		case err != nil:
			return err
		case code == kerr.RebalanceInProgress.Code, code == kerr.MemberIDRequired.Code, code == kerr.IllegalGeneration.Code:
		case code == kerr.UnknownMemberID.Code:
			p.id = ""
		case passes(code):
			if err := p.rest(50 * time.Millisecond); err != nil {
				return err
			}
		default:
			return fmt.Errorf("a classic member: %w", kerr.ErrorForCode(code))
		}
	}
}

// beats sends heartbeats until one is answered with an error.
func (p *player) beats(generation int32) (code int16, err error) {
	beat := time.Duration(p.s.o.HeartbeatNS)
	pause := rand.N(beat) // members that were synced together do not send heartbeats together
	for {
		if err := p.rest(pause); err != nil {
			return 0, err
		}
		pause = beat
		req := kmsg.NewPtrHeartbeatRequest()
		req.Version, req.Group, req.Generation, req.MemberID = 3, p.s.group, generation, p.id
		resp, err := p.ask(req)
		if err != nil {
			return 0, err
		}
		if code := resp.(*kmsg.HeartbeatResponse).ErrorCode; code != 0 {
			return code, nil
		}
	}
}

// join joins and syncs. A leader deals the partitions out in turn.
func (p *player) join() (generation int32, code int16, err error) {
	req := kmsg.NewPtrJoinGroupRequest()
	req.Version, req.Group, req.SessionTimeoutMillis, req.RebalanceTimeoutMillis, req.MemberID, req.ProtocolType = 5, p.s.group, int32(p.s.o.SessionNS/1e6), 60_000, p.id, "consumer"
	protocol := kmsg.NewJoinGroupRequestProtocol()
	subscribed := kmsg.NewConsumerMemberMetadata()
	subscribed.Version, subscribed.Topics = 1, []string{p.s.topic}
	protocol.Name, protocol.Metadata = "range", subscribed.AppendTo(nil)
	req.Protocols = append(req.Protocols, protocol)
	resp, err := p.ask(req)
	if err != nil {
		return 0, 0, err
	}
	j := resp.(*kmsg.JoinGroupResponse)
	if j.MemberID != "" {
		p.id = j.MemberID
	}
	if j.ErrorCode != 0 {
		return 0, j.ErrorCode, nil
	}
	p.s.mu.Lock()
	p.leader = j.LeaderID == p.id
	p.s.mu.Unlock()
	sync := kmsg.NewPtrSyncGroupRequest()
	sync.Version, sync.Group, sync.Generation, sync.MemberID = 3, p.s.group, j.Generation, p.id
	for i, m := range j.Members {
		t := kmsg.NewConsumerMemberAssignmentTopic()
		t.Topic = p.s.topic
		for k := i; k < p.s.o.Partitions; k += len(j.Members) {
			t.Partitions = append(t.Partitions, int32(k))
		}
		assigned := kmsg.NewConsumerMemberAssignment()
		assigned.Version, assigned.Topics = 1, append(assigned.Topics, t)
		x := kmsg.NewSyncGroupRequestGroupAssignment()
		x.MemberID, x.MemberAssignment = m.MemberID, assigned.AppendTo(nil)
		sync.GroupAssignment = append(sync.GroupAssignment, x)
	}
	if resp, err = p.ask(sync); err != nil {
		return 0, 0, err
	}
	r := resp.(*kmsg.SyncGroupResponse)
	if r.ErrorCode != 0 {
		return 0, r.ErrorCode, nil
	}
	assigned := kmsg.NewConsumerMemberAssignment()
	if err := assigned.ReadFrom(r.MemberAssignment); err != nil {
		return 0, 0, fmt.Errorf("an assignment: %w", err)
	}
	var partitions []int32
	for _, t := range assigned.Topics {
		partitions = append(partitions, t.Partitions...)
	}
	p.s.own(p, partitions)
	return j.Generation, 0, nil
}

// consumer is a member of the consumer protocol. A change of what it has is
// acknowledged at once, by another heartbeat.
func (p *player) consumer() error {
	m := &member{group: p.s.group, id: p.id}
	beat := time.Duration(p.s.o.HeartbeatNS)
	for {
		req := m.heartbeat(p.s.topic)
		resp, err := p.ask(req)
		if err != nil {
			return err
		}
		r := resp.(*kmsg.ConsumerGroupHeartbeatResponse)
		pause := beat
		switch {
		case r.ErrorCode == 0:
			m.take(r)
			if r.Assignment != nil {
				var partitions []int32
				for _, t := range r.Assignment.Topics {
					partitions = append(partitions, t.Partitions...)
				}
				p.s.own(p, partitions)
				pause = 0
			} else if req.MemberEpoch == 0 {
				pause = rand.N(beat) // members that joined together do not send heartbeats together
			}
		case r.ErrorCode == kerr.UnknownMemberID.Code, r.ErrorCode == kerr.FencedMemberEpoch.Code:
			m.epoch, m.owned = 0, nil
			p.s.own(p, nil)
		case !passes(r.ErrorCode):
			return fmt.Errorf("a consumer member: %w", kerr.ErrorForCode(r.ErrorCode))
		}
		if err := p.rest(pause); err != nil {
			return err
		}
	}
}
