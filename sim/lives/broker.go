package lives

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/broker"
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/mem"
	"github.com/tailbound/tailbound/shard"
	"github.com/tailbound/tailbound/sim"
)

// brokerWork runs one seed of the whole broker: the control shard and data shards on
// simulated rings, mail between them, Kafka clients over a network that cuts and loses,
// and crashes between lives.
func brokerWork(r Run) (res Result) {
	s := newBrokerSim(r)
	defer s.finish(&res)
	for range 2 + s.rng.IntN(3) {
		s.lives++
		if err := s.life(); err != nil {
			res.Err = fmt.Errorf("life %d: %w", s.lives, err)
			return res
		}
	}
	return res
}

// finish ends a seed, whose workload defers it: a panic is its failure.
func (s *brokerSim) finish(res *Result) {
	if p := recover(); p != nil {
		res.Err = explain(p)
	}
	s.free()
	res.Hash, res.Lives, res.Appends, res.Reads, res.Steps, res.LostCached = s.w.Hash(), s.lives, s.appends, s.reads, s.w.Steps(), s.lostCached
}

// brokerSim is the world of one seed of the broker.
type brokerSim struct {
	run        Run
	w          *sim.World
	rng        *rand.Rand
	disk       *sim.Disk
	lives      int
	appends    int
	reads      int
	lostCached int             // records of topics with write.caching that crashes lost
	fetchers   []*fetchSession // by node
	full       bool            // this life's disk has little room or none
	over       bool            // this life is to end now

	shards   int
	o        broker.Options // as drawn from the seed; open changes them for each life
	also     *rand.Rand     // a second source of chance: drawing from it leaves what rng draws
	changing bool           // each life has settings of its own
	epoch    int32          // the leader epoch of this life; 0: not known yet
	mood     sim.RingOptions

	broker *broker.Broker
	cores  []*core
	arenas []*mem.Arena

	topics    []*topicBook
	serial    uint64
	sent      map[uint64]*sentBatch // by serial; looked up only
	conns     []*conn
	producers []*producer
	ids       map[int64]bool // producer ids ever given out
	groups    []*groupBook
	members   []*groupMember
	consumers []*consumer
	joins     int   // of consumers: their ids
	starts    int   // of consumers, which choose their protocol at a start
	commits   int64 // the last number that was committed
	passers   int   // ever
	stopping  bool  // this life is being stopped
	patience  int   // of producers: once in so many times they send a batch again while its answer could still come
}

// producer is an idempotent producer. It sends each batch until it is acknowledged, in
// order, and each must be stored once.
type producer struct {
	pid     int64
	part    *partBook
	seq     int32
	unacked []sentBatch // in order; at most 5
	conn    *conn       // on which they were sent; nil: not sent yet
}

func (p *producer) awaits(serial uint64) bool {
	for i := range p.unacked {
		if p.unacked[i].serial == serial {
			return true
		}
	}
	return false
}

func newBrokerSim(r Run) *brokerSim {
	s := &brokerSim{run: r, w: sim.NewWorld(r.Seed), disk: sim.NewDisk(0), sent: map[uint64]*sentBatch{}, ids: map[int64]bool{}}
	s.rng, s.also = s.w.Rand, rand.New(rand.NewPCG(r.Seed*0x9e3779b97f4a7c15, 0x616c736f))
	s.changing = s.also.IntN(3) == 0
	s.w.Trace = r.Trace
	s.shards = 1 + s.rng.IntN(2)
	s.drawLimits()
	s.makeGroups()
	return s
}

func (s *brokerSim) pick(v ...int) int { return v[s.rng.IntN(len(v))] }

func (s *brokerSim) free() {
	for _, a := range s.arenas {
		a.Unmap()
	}
	s.arenas = nil
}

func (s *brokerSim) arena(n int) *mem.Arena {
	a, err := mem.Map(n, mem.Options{Poison: true})
	if err != nil {
		panic(err)
	}
	s.arenas = append(s.arenas, a)
	return a
}

// Log writes the broker's log lines to the trace.
func (s *brokerSim) Log(level shard.Level, n int, text []byte) {
	s.w.Logf("shard %d: %s", n, text)
}

func (s *brokerSim) life() error {
	if s.full && s.rng.IntN(2) == 0 {
		s.full, s.disk.Capacity = false, 0 // otherwise it could be opened with no room left
	}
	if !s.full && s.rng.IntN(3) == 0 {
		s.shards = 1 + s.rng.IntN(3) // a new shard's files need room
	}
	if err := s.open(); err != nil {
		return err
	}
	if !s.full && s.rng.IntN(4) == 0 {
		s.full, s.disk.Capacity = true, s.disk.Used()+s.rng.Int64N(int64(s.pick(64<<10, 8<<20)))
		s.w.Logf("--- %d bytes are left", s.disk.Capacity-s.disk.Used())
	}
	if (s.run.Seed+uint64(7*s.lives))%29 == 0 { // the broker is stopped while it starts
		for range s.rng.IntN(40) {
			if err := s.rest(); err != nil {
				return err
			}
		}
		if err := s.halt(); err != nil {
			return fmt.Errorf("while it starts: %w", err)
		}
		s.end()
		return nil
	}
	if err := s.serve(); err != nil {
		return err
	}
	if err := s.audit(); err != nil {
		return fmt.Errorf("after opening: %w", err)
	}
	if s.fewGroups() && s.lives == 1 { // before the other groups exist
		for range s.o.Groups.GroupsMax {
			if err := s.pass(); err != nil {
				return err
			}
		}
	}
	if err := s.use(50 + s.rng.IntN(1500)); err != nil {
		return err
	}
	if s.rng.IntN(4) == 0 {
		if err := s.settle(); err != nil {
			return err
		}
		if err := s.calm(); err != nil {
			return err
		}
	}
	if s.rng.IntN(4) == 0 {
		if err := s.stop(); err != nil {
			return err
		}
		for _, t := range s.topics {
			for _, p := range t.parts {
				p.sure = p.known()
			}
		}
	}
	s.end()
	return nil
}

// end stops the process.
func (s *brokerSim) end() {
	s.w.Stop()
	s.cores, s.broker, s.stopping, s.epoch = nil, nil, false, 0
	s.free()
	for _, c := range s.conns {
		s.lost(c)
	}
	s.conns = nil
	s.producers = slices.DeleteFunc(s.producers, func(p *producer) bool {
		return p.part != nil && p.part.topic.cached // acknowledged batches may be lost: it begins anew
	})
	if s.rng.IntN(3) == 0 {
		s.w.Logf("--- kill -9")
		s.disk.Kill(s.rng)
	} else {
		s.w.Logf("--- power cut")
		s.disk.PowerCut(s.rng)
	}
}

// turn runs one turn of a shard.
func (s *brokerSim) turn(c *core) {
	c.ring.Wait(s.w.Now)
	c.sleep = c.shard.Turn(s.w.Now, shard.Wall(s.w.WallMS()))
	c.ring.Submit()
}

// round runs turns of shards, two of some and none of others, and lets time pass.
func (s *brokerSim) round() error {
	for range len(s.cores) {
		s.turn(s.cores[s.rng.IntN(len(s.cores))])
	}
	switch s.rng.IntN(4) {
	case 0:
	case 1:
		s.w.Step(s.w.Now + 1_000_000)
	default:
		until := s.w.Now + ioring.Instant(s.rng.Int64N(300_000))
		for s.w.Step(until) {
		}
	}
	return s.poll()
}

// rest runs a turn of every shard and advances to the next event.
func (s *brokerSim) rest() error {
	until := s.w.Now + 20_000_000
	for _, c := range s.cores {
		s.turn(c)
		if c.shard.Done() {
			continue
		}
		until = min(until, max(c.sleep, s.w.Now+1))
	}
	s.w.Step(until)
	return s.poll()
}

func (s *brokerSim) poll() error {
	for i, c := range s.cores {
		if fault := c.shard.Fault(); fault != "" {
			return fmt.Errorf("shard %d stopped: %s", i, fault)
		}
	}
	for i := 0; i < len(s.conns); i++ {
		c := s.conns[i]
		if err := c.poll(); err != nil {
			return err
		}
		if c.c.Closed {
			s.conns = append(s.conns[:i], s.conns[i+1:]...)
			i--
			s.lost(c)
		}
	}
	return nil
}

// lost: what became of the connection's unanswered requests is unknown.
func (s *brokerSim) lost(c *conn) {
	for _, p := range s.producers {
		if p.conn == c {
			p.conn = nil
		}
	}
	for _, m := range s.members {
		if m.conn == c {
			m.conn, m.waits = nil, false
		}
	}
	for _, m := range s.consumers {
		if m.conn == c {
			m.conn, m.waits = nil, false
		}
	}
	for _, k := range c.owed {
		if a, ok := k.note.(*groupAsk); ok {
			a.lost()
		}
	}
	c.owed = nil
}

// serve runs turns until every shard listens.
func (s *brokerSim) serve() error {
	for i := range s.shards + 1 {
		for tries := 0; ; tries++ {
			if tries > 5000 {
				return fmt.Errorf("STALLED: shard %d does not answer after opening", i)
			}
			c, err := s.connect(i)
			if err != nil {
				return err
			}
			req := kmsg.NewPtrMetadataRequest()
			req.Version, req.AllowAutoTopicCreation = 10, false
			req.Topics = nil
			c.ask(req, owed{})
			for n := 0; n < 2000 && len(c.owed) > 0 && !c.c.Closed; n++ {
				if err := s.rest(); err != nil {
					return err
				}
			}
			if len(c.owed) == 0 && !c.c.Closed {
				break
			}
			if !c.c.Closed {
				return fmt.Errorf("STALLED: shard %d accepts and does not answer", i)
			}
		}
	}
	return nil
}

func (s *brokerSim) connect(node int) (*conn, error) {
	cl := s.w.Dial(s.port(node))
	if cl == nil {
		return nil, fmt.Errorf("nobody listens on node %d", node)
	}
	c := &conn{c: cl, node: node, now: func() ioring.Instant { return s.w.Now }}
	c.read = func(k owed, resp kmsg.Response) error { return s.answered(c, k, resp) }
	s.conns = append(s.conns, c)
	return c, nil
}

// to returns a connection to a node, occasionally a new one.
func (s *brokerSim) to(node int) (*conn, error) {
	var have []*conn
	for _, c := range s.conns {
		if c.node == node && !c.c.Closed && !c.private {
			have = append(have, c)
		}
	}
	if len(have) == 0 || len(have) < 4 && s.rng.IntN(30) == 0 {
		return s.connect(node)
	}
	return have[s.rng.IntN(len(have))], nil
}

// use lets clients act at random.
func (s *brokerSim) use(turns int) error {
	s.over = false
	for range turns {
		if s.over {
			return nil
		}
		if err := s.act(); err != nil {
			return err
		}
		if err := s.round(); err != nil {
			return err
		}
	}
	return nil
}

func (s *brokerSim) act() error {
	owe := 0
	for _, c := range s.conns {
		owe += len(c.owed)
	}
	if owe > 60 {
		return nil
	}
	if err := s.resend(); err != nil {
		return err
	}
	if s.rng.IntN(4) == 0 {
		return s.actGroups()
	}
	open := s.openTopics()
	x := s.rng.IntN(100)
	if len(open) == 0 {
		x = 99
	}
	switch {
	case x < 30:
		t := open[s.rng.IntN(len(open))]
		return s.produce(t.parts[s.rng.IntN(len(t.parts))])
	case x < 50:
		return s.produceOnce()
	case x < 75:
		t := open[s.rng.IntN(len(open))]
		p := t.parts[s.rng.IntN(len(t.parts))]
		switch s.rng.IntN(8) {
		case 0, 1, 2, 3:
			return s.fetchOn(p)
		case 4:
			c, err := s.to(p.node)
			if err == nil {
				s.askTime(c, p)
			}
			return err
		}
		_, err := s.fetch(p, s.rng.Int64N(p.known()+1), false)
		return err
	case x < 80:
		if len(s.conns) > 0 && s.rng.IntN(3) == 0 {
			c := s.conns[s.rng.IntN(len(s.conns))]
			c.c.Reset()
		}
	case x < 85:
		return s.initProducer()
	case x < 88:
		if len(open) > 3 || len(open) > 1 && s.rng.IntN(4) == 0 {
			return s.deleteTopic(open[s.rng.IntN(len(open))])
		}
	case x < 94:
		c, err := s.to(s.rng.IntN(s.shards + 1))
		if err != nil {
			return err
		}
		req := kmsg.NewPtrMetadataRequest()
		req.Version = 10
		c.ask(req, owed{})
	case x < 96:
		t := open[s.rng.IntN(len(open))]
		return s.deleteRecords(t.parts[s.rng.IntN(len(t.parts))])
	case x < 97:
		return s.grow(open[s.rng.IntN(len(open))])
	case x < 98:
		t := open[s.rng.IntN(len(open))]
		_, err := s.askEpochs(t.parts[s.rng.IntN(len(t.parts))])
		return err
	default:
		return s.createTopic()
	}
	return nil
}

func (s *brokerSim) openTopics() []*topicBook {
	var out []*topicBook
	for _, t := range s.topics {
		if t.fate == open && len(t.parts) > 0 {
			out = append(out, t)
		}
	}
	return out
}

func (s *brokerSim) createTopic() error {
	there := 0
	for _, t := range s.topics {
		if t.fate != gone && t.fate != absent {
			there++
		}
	}
	if there >= 20 {
		return nil // PartitionsMax is 100
	}
	c, err := s.to(s.rng.IntN(s.shards + 1))
	if err != nil {
		return err
	}
	t := &topicBook{name: fmt.Sprintf("t%d", len(s.topics)), fate: opening, cached: s.rng.IntN(4) == 0}
	t.ages = !t.cached && s.rng.IntN(4) == 0
	s.topics = append(s.topics, t)
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Version = 5
	q := kmsg.NewCreateTopicsRequestTopic()
	q.Topic, q.NumPartitions, q.ReplicationFactor = t.name, int32(1+s.rng.IntN(4)), 1
	if t.cached {
		x := kmsg.NewCreateTopicsRequestTopicConfig()
		x.Name, x.Value = "write.caching", kmsg.StringPtr("true")
		q.Configs = append(q.Configs, x)
	}
	req.Topics = append(req.Topics, q)
	c.ask(req, owed{note: t})
	return nil
}

// grow asks for one more partition of a topic.
func (s *brokerSim) grow(t *topicBook) error {
	there := 0
	for _, t := range s.topics {
		if t.fate != gone && t.fate != absent {
			there++
		}
	}
	if there >= 15 || len(t.parts) >= 5 || t.counted != len(t.parts) {
		return nil
	}
	c, err := s.to(s.rng.IntN(s.shards + 1))
	if err != nil {
		return err
	}
	req := kmsg.NewPtrCreatePartitionsRequest()
	req.Version = 1
	q := kmsg.NewCreatePartitionsRequestTopic()
	q.Topic, q.Count = t.name, int32(len(t.parts)+1)
	if s.rng.IntN(2) == 0 {
		a := kmsg.NewCreatePartitionsRequestTopicAssignment()
		a.Replicas = []int32{int32(1 + s.rng.IntN(s.shards))}
		q.Assignment = append(q.Assignment, a)
	}
	req.Topics = append(req.Topics, q)
	c.ask(req, owed{note: t})
	return nil
}

// deleteRecords asks to move a partition's start up to a known offset.
func (s *brokerSim) deleteRecords(p *partBook) error {
	if p.high <= p.start || s.rng.IntN(2) == 0 {
		return nil
	}
	c, err := s.to(p.node)
	if err != nil {
		return err
	}
	req := kmsg.NewPtrDeleteRecordsRequest()
	req.Version = int16(s.rng.IntN(3))
	q := kmsg.NewDeleteRecordsRequestTopicPartition()
	q.Partition, q.Offset = p.index, p.start+s.rng.Int64N(p.high-p.start+1)
	if s.rng.IntN(4) > 0 {
		q.Offset = p.start + (q.Offset-p.start)/8 // leave some to read
	}
	p.startTo = max(p.startTo, q.Offset)
	t := kmsg.NewDeleteRecordsRequestTopic()
	t.Topic, t.Partitions = p.topic.name, append(t.Partitions, q)
	req.Topics = append(req.Topics, t)
	c.ask(req, owed{note: p})
	return nil
}

func (s *brokerSim) recordsDeleted(k owed, r *kmsg.DeleteRecordsResponse) error {
	p := k.note.(*partBook)
	asked := k.req.(*kmsg.DeleteRecordsRequest).Topics[0].Partitions[0].Offset
	switch q := &r.Topics[0].Partitions[0]; {
	case q.ErrorCode == codeUnknownTopic && p.topic.fate != open, q.ErrorCode == codeStorage && s.full:
	case q.ErrorCode != 0:
		return fmt.Errorf("deleting the records of %s/%d before %d: error %d (high watermark was %d)", p.topic.name, p.index, asked, q.ErrorCode, p.high)
	case q.LowWatermark < asked || q.LowWatermark > s.mayStart(p):
		return fmt.Errorf("deleting the records of %s/%d before %d: the low watermark is %d, at most %d was asked", p.topic.name, p.index, asked, q.LowWatermark, p.startTo)
	default:
		p.start = max(p.start, q.LowWatermark)
		s.over = s.over || s.rng.IntN(3) == 0 // a crash at once tests what was answered
	}
	return nil
}

func (s *brokerSim) deleteTopic(t *topicBook) error {
	c, err := s.to(s.rng.IntN(s.shards + 1))
	if err != nil {
		return err
	}
	t.fate = deleting
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.Version = 4
	req.TopicNames = []string{t.name}
	c.ask(req, owed{note: t})
	return nil
}

func (s *brokerSim) initProducer() error {
	c, err := s.to(s.rng.IntN(s.shards + 1))
	if err != nil {
		return err
	}
	req := kmsg.NewPtrInitProducerIDRequest()
	req.Version = 3
	req.ProducerID, req.ProducerEpoch = -1, -1
	c.ask(req, owed{})
	return nil
}

func (s *brokerSim) newBatch(p *partBook, pid int64, seq int32) sentBatch {
	s.serial++
	count := 1 + s.rng.IntN(s.pick(1, 3, 20))
	size := s.rng.IntN(s.pick(100, 2000, s.o.MessageBytesMax*3/4))
	epoch := int16(0)
	if pid < 0 {
		epoch = -1
	}
	b := sentBatch{part: p, serial: s.serial, count: count, pid: pid, seq: seq, times: timesOf(s.serial, count)}
	if p.topic.ages {
		s.age(&b, size)
	} else {
		b.bytes = timedBatch(s.serial, b.times, size, pid, epoch, seq)
		b.stored = b.bytes
	}
	s.sent[b.serial] = &b
	return b
}

func (s *brokerSim) produceRequest(batches []sentBatch) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Version = int16(3 + s.rng.IntN(7))
	req.Acks, req.TimeoutMillis = -1, 600_000
	for _, b := range batches {
		q := kmsg.NewProduceRequestTopicPartition()
		q.Partition, q.Records = b.part.index, b.bytes
		t := kmsg.NewProduceRequestTopic()
		t.Topic = b.part.topic.name
		t.Partitions = append(t.Partitions, q)
		req.Topics = append(req.Topics, t)
	}
	return req
}

func (s *brokerSim) produce(p *partBook) error {
	node := p.node
	if s.rng.IntN(40) == 0 {
		node = s.rng.IntN(s.shards + 1)
	}
	c, err := s.to(node)
	if err != nil {
		return err
	}
	batches := []sentBatch{s.newBatch(p, -1, -1)}
	if s.rng.IntN(3) == 0 { // other partitions of the same node, each in a topic entry of its own
		for _, t := range s.openTopics() {
			if q := t.parts[s.rng.IntN(len(t.parts))]; t != p.topic && q.node == node {
				batches = append(batches, s.newBatch(q, -1, -1))
			}
		}
	}
	c.ask(s.produceRequest(batches), owed{sent: batches})
	return nil
}

// produceOnce sends the next batch of an idempotent producer.
func (s *brokerSim) produceOnce() error {
	if len(s.producers) == 0 {
		return s.initProducer()
	}
	p := s.producers[s.rng.IntN(len(s.producers))]
	if p.part == nil {
		open := slices.DeleteFunc(s.openTopics(), func(t *topicBook) bool { return t.ages })
		if len(open) == 0 {
			return nil
		}
		t := open[s.rng.IntN(len(open))]
		p.part = t.parts[s.rng.IntN(len(t.parts))]
	}
	if len(p.unacked) >= 5 || p.part.topic.fate != open || p.conn == nil && len(p.unacked) > 0 {
		return nil
	}
	if p.conn == nil || p.conn.c.Closed {
		c, err := s.to(p.part.node)
		if err != nil {
			return err
		}
		p.conn = c
	}
	b := s.newBatch(p.part, p.pid, p.seq)
	b.owner = p
	p.seq += int32(b.count)
	p.unacked = append(p.unacked, b)
	p.conn.ask(s.produceRequest([]sentBatch{b}), owed{sent: []sentBatch{b}})
	return nil
}

// resend sends batches without a known outcome again, on another connection; sometimes
// although the answer could still come.
func (s *brokerSim) resend() error {
	for _, p := range s.producers {
		if len(p.unacked) == 0 || p.part.topic.fate != open {
			continue
		}
		if p.conn != nil && !p.conn.c.Closed && s.rng.IntN(s.patience) != 0 {
			continue
		}
		c, err := s.to(p.part.node)
		if err != nil {
			return err
		}
		p.conn = c
		for _, b := range p.unacked {
			c.ask(s.produceRequest([]sentBatch{b}), owed{sent: []sentBatch{b}})
		}
	}
	return nil
}

// fetch fetches a partition from an offset on: all of it for an audit, otherwise with
// limits drawn from the seed.
func (s *brokerSim) fetch(p *partBook, from int64, whole bool) (*conn, error) {
	c, err := s.to(p.node)
	if err != nil {
		return nil, err
	}
	req := kmsg.NewPtrFetchRequest()
	req.Version = int16(4 + s.rng.IntN(9))
	req.ReplicaID = -1
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = int32(s.pick(0, 1, 20)), int32(s.pick(0, 1, 10_000)), int32(s.pick(1, 10_000, 1<<20))
	req.SessionEpoch = -1
	part := s.pick(1, 5_000, 1<<20)
	if whole {
		req.MaxWaitMillis, req.MaxBytes, part = 0, 1<<20, 1<<20
	}
	t := kmsg.NewFetchRequestTopic()
	t.Topic = p.topic.name
	q := kmsg.NewFetchRequestTopicPartition()
	q.Partition, q.FetchOffset, q.PartitionMaxBytes, q.CurrentLeaderEpoch = p.index, from, int32(part), -1
	t.Partitions = append(t.Partitions, q)
	req.Topics = append(req.Topics, t)
	c.ask(req, owed{note: p, start: p.start})
	return c, nil
}

// Kafka's error codes that the workload meets, of the type that responses have.
const (
	codeOutOfRange     = int16(kafka.OffsetOutOfRange)
	codeCorrupt        = int16(kafka.CorruptMessage) // of a topic that is being deleted under the read
	codeUnknownTopic   = int16(kafka.UnknownTopicOrPartition)
	codeNotLeader      = int16(kafka.NotLeaderOrFollower)
	codeNoSession      = int16(kafka.FetchSessionIDNotFound)
	codeOutOfOrder     = int16(kafka.OutOfOrderSequenceNumber)
	codePartitions     = int16(kafka.InvalidPartitions) // another client has given the topic as many already
	codeStorage        = int16(kafka.KafkaStorageError)
	codeDuplicate      = int16(kafka.DuplicateSequenceNumber)
	codeUnavailable    = int16(kafka.CoordinatorNotAvailable)
	codeNotCoordinator = int16(kafka.NotCoordinator)
	codeGeneration     = int16(kafka.IllegalGeneration)
	codeUnknownMember  = int16(kafka.UnknownMemberID)
	codeRebalance      = int16(kafka.RebalanceInProgress)
	codeIDRequired     = int16(kafka.MemberIDRequired)
	codeGroupFull      = int16(kafka.GroupMaxSizeReached)
	codeNoGroup        = int16(kafka.GroupIDNotFound)
	codeFenced         = int16(kafka.FencedInstanceID)
	codeFencedEpoch    = int16(kafka.FencedMemberEpoch)
	codeUnreleased     = int16(kafka.UnreleasedInstanceID)
	codeStaleEpoch     = int16(kafka.StaleMemberEpoch)
)

// answered checks one response.
func (s *brokerSim) answered(c *conn, k owed, resp kmsg.Response) error {
	switch note := k.note.(type) {
	case *groupAsk:
		return s.answeredGroup(note, resp)
	case *passer:
		return s.passed(note, resp)
	}
	switch r := resp.(type) {
	case *kmsg.ProduceResponse:
		return s.produced(c, k, r)
	case *kmsg.FetchResponse:
		return s.fetched(c, k, r)
	case *kmsg.MetadataResponse:
		return s.metadata(k, r)
	case *kmsg.ListOffsetsResponse:
		q := &r.Topics[0].Partitions[0]
		if a, ok := k.note.(*timeAsk); ok {
			return s.timeFound(c, a, q)
		}
		if q.ErrorCode != 0 {
			return fmt.Errorf("the start of a partition: error %d", q.ErrorCode)
		}
		p := k.note.(*partBook)
		p.next, p.startEpoch = q.Offset, q.LeaderEpoch
		if r.Version < 4 {
			p.startEpoch = -2 // it does not say
		}
	case *kmsg.OffsetForLeaderEpochResponse:
		return s.epochsTold(c, k, r)
	case *kmsg.InitProducerIDResponse:
		if r.ErrorCode == codeStorage && s.full {
			return nil
		}
		if r.ErrorCode != 0 {
			return fmt.Errorf("no producer id: error %d", r.ErrorCode)
		}
		if s.ids[r.ProducerID] {
			return fmt.Errorf("TWICE: producer id %d was given out before", r.ProducerID)
		}
		s.ids[r.ProducerID] = true
		if len(s.producers) < 6 {
			s.producers = append(s.producers, &producer{pid: r.ProducerID})
		} else if s.rng.IntN(2) == 0 {
			i := s.rng.IntN(len(s.producers))
			if len(s.producers[i].unacked) == 0 {
				s.producers[i] = &producer{pid: r.ProducerID}
			}
		}
	case *kmsg.CreateTopicsResponse:
		t := k.note.(*topicBook)
		if code := r.Topics[0].ErrorCode; code == codeStorage && s.full {
			return nil // it may exist after a crash
		} else if code != 0 {
			return fmt.Errorf("creating topic %s: error %d", t.name, code)
		}
		if t.fate == opening {
			t.fate = open // its partitions are learned from Metadata
			t.counted, t.countedAt = int(k.req.(*kmsg.CreateTopicsRequest).Topics[0].NumPartitions), s.w.Now
		}
	case *kmsg.CreatePartitionsResponse:
		t := k.note.(*topicBook)
		switch code := r.Topics[0].ErrorCode; {
		case code == 0:
			t.counted, t.countedAt = max(t.counted, int(k.req.(*kmsg.CreatePartitionsRequest).Topics[0].Count)), s.w.Now
		case code == codeStorage && s.full, code == codeUnknownTopic && t.fate != open, code == codePartitions:
		default:
			return fmt.Errorf("giving topic %s a partition more: error %d", t.name, code)
		}
	case *kmsg.DeleteRecordsResponse:
		return s.recordsDeleted(k, r)
	case *kmsg.DeleteTopicsResponse:
		t := k.note.(*topicBook)
		if code := r.Topics[0].ErrorCode; code != 0 && code != codeUnknownTopic {
			return fmt.Errorf("deleting topic %s: error %d", t.name, code)
		}
		s.gone(t)
	}
	return nil
}

// gone: the topic is deleted; its producers look for another one.
func (s *brokerSim) gone(t *topicBook) {
	t.fate, t.goneAt = gone, s.w.Now
	for _, p := range s.producers {
		if p.part != nil && p.part.topic == t {
			p.part, p.unacked, p.conn, p.seq = nil, nil, nil, 0
		}
	}
}

func (s *brokerSim) produced(c *conn, k owed, r *kmsg.ProduceResponse) error {
	if len(r.Topics) != len(k.sent) {
		return fmt.Errorf("%d topics in a response, %d were asked", len(r.Topics), len(k.sent))
	}
	for i, b := range k.sent {
		if r.Topics[i].Topic != b.part.topic.name || len(r.Topics[i].Partitions) != 1 || r.Topics[i].Partitions[0].Partition != b.part.index {
			return fmt.Errorf("the answer is for topic %s, the question was for %s/%d", r.Topics[i].Topic, b.part.topic.name, b.part.index)
		}
		q := &r.Topics[i].Partitions[0]
		switch {
		case q.ErrorCode == 0:
		case q.ErrorCode == codeUnknownTopic && b.part.topic.fate != open:
			continue
		case q.ErrorCode == codeNotLeader && c.node != b.part.node:
			continue
		case (q.ErrorCode == codeOutOfOrder || q.ErrorCode == codeDuplicate) && b.owner != nil && !b.owner.awaits(b.serial):
			continue // sent again although acknowledged: it is not in the producer's window any more
		case s.full && (q.ErrorCode == codeStorage || q.ErrorCode == codeOutOfOrder && b.owner != nil):
			if b.owner != nil && b.owner.conn == c {
				b.owner.conn = nil // send everything again
			}
			continue
		default:
			return fmt.Errorf("producing batch %d (producer %d, sequence %d) to %s/%d: error %d", b.serial, b.pid, b.seq, b.part.topic.name, b.part.index, q.ErrorCode)
		}
		if c.node != b.part.node {
			return fmt.Errorf("node %d took a batch for %s/%d, which node %d leads", c.node, b.part.topic.name, b.part.index, b.part.node)
		}
		s.appends++
		if err := b.part.place(q.BaseOffset, b.serial, b.count, "acknowledged"); err != nil {
			return err
		}
		if p := b.owner; p != nil {
			for j := range p.unacked {
				if p.unacked[j].serial == b.serial {
					p.unacked = append(p.unacked[:j:j], p.unacked[j+1:]...)
					break
				}
			}
		}
	}
	return nil
}

func (s *brokerSim) fetched(c *conn, k owed, r *kmsg.FetchResponse) error {
	if x, ok := k.note.(*fetchSession); ok {
		return s.fetchedOn(c, k, x, r)
	}
	p := k.note.(*partBook)
	asked := k.req.(*kmsg.FetchRequest).Topics[0].Partitions[0].FetchOffset
	if r.ErrorCode != 0 {
		return fmt.Errorf("fetching: error %d", r.ErrorCode)
	}
	if len(r.Topics) != 1 || len(r.Topics[0].Partitions) != 1 {
		return fmt.Errorf("a fetch of one partition was answered with %d topics", len(r.Topics))
	}
	return s.fetchedPart(c, p, asked, k.start, r.Version, &r.Topics[0].Partitions[0])
}

// fetchedPart checks a fetch's answer for a partition whose known start was start when the
// fetch was sent.
func (s *brokerSim) fetchedPart(c *conn, p *partBook, asked, start int64, version int16, q *kmsg.FetchResponseTopicPartition) error {
	switch {
	case q.ErrorCode == 0:
	case (q.ErrorCode == codeUnknownTopic || q.ErrorCode == codeCorrupt) && p.topic.fate != open, q.ErrorCode == codeNotLeader && c.node != p.node:
		return nil
	case q.ErrorCode == codeOutOfRange && asked < s.mayStart(p):
		p.passed = true
		return nil
	default:
		return fmt.Errorf("fetching %s/%d from %d: error %d (known to %d, high watermark was %d)", p.topic.name, p.index, asked, q.ErrorCode, p.known(), p.high)
	}
	s.reads++
	if asked < start {
		return fmt.Errorf("RETURNED: %s/%d can be read from %d, its records before %d were deleted", p.topic.name, p.index, asked, start)
	}
	if version >= 5 && (q.LogStartOffset < start || q.LogStartOffset > s.mayStart(p)) {
		return fmt.Errorf("%s/%d starts at %d, it was told to start at %d to %d", p.topic.name, p.index, q.LogStartOffset, start, p.startTo)
	}
	if q.HighWatermark < asked && p.topic.fate == open {
		return fmt.Errorf("%s/%d: high watermark %d of a fetch from %d", p.topic.name, p.index, q.HighWatermark, asked)
	}
	b := q.RecordBatches
	at := asked
	for first := true; len(b) > 0; first = false {
		if len(b) < headBytes {
			break // a partial batch, which a fetch may return
		}
		base, n := int64(binary.BigEndian.Uint64(b)), int(binary.BigEndian.Uint32(b[8:]))+12
		if n < headBytes || n > len(b) {
			break
		}
		serial := serialOf(b[:n])
		was := s.sent[serial]
		if was == nil {
			return fmt.Errorf("INVENTED: %s/%d at %d: a batch that nobody sent", p.topic.name, p.index, base)
		}
		if was.part != p {
			return fmt.Errorf("CHANGED: %s/%d at %d: batch %d of %s/%d", p.topic.name, p.index, base, serial, was.part.topic.name, was.part.index)
		}
		if !bytes.Equal(b[16:n], was.stored[16:]) {
			return fmt.Errorf("CHANGED: %s/%d at %d: batch %d has other bytes: %s", p.topic.name, p.index, base, serial, difference(was.stored[16:], b[16:n]))
		}
		if first && (base > asked || base+int64(was.count) <= asked) || !first && base != at {
			return fmt.Errorf("%s/%d: a fetch from %d: batch %d..%d after %d", p.topic.name, p.index, asked, base, base+int64(was.count), at)
		}
		if err := s.epochRead(p, base, base+int64(was.count), int32(binary.BigEndian.Uint32(b[12:]))); err != nil {
			return err
		}
		at = base + int64(was.count)
		if at > q.HighWatermark {
			return fmt.Errorf("%s/%d: a batch to %d above the high watermark %d", p.topic.name, p.index, at, q.HighWatermark)
		}
		if err := p.place(base, serial, was.count, "read"); err != nil {
			return err
		}
		b = b[n:]
	}
	if asked == p.next && at > p.next {
		p.next = at
	}
	p.high = max(p.high, q.HighWatermark)
	return nil
}

// metadata compares the topics with the oracle, and adds new ones.
func (s *brokerSim) metadata(k owed, r *kmsg.MetadataResponse) error {
	if len(r.Brokers) != s.shards+1 {
		return fmt.Errorf("%d nodes, want %d", len(r.Brokers), s.shards+1)
	}
	for i := range r.Topics {
		x := &r.Topics[i]
		if x.ErrorCode != 0 {
			continue
		}
		for _, t := range s.topics {
			if t.name != *x.Topic {
				continue
			}
			switch t.fate {
			case gone:
				if k.at <= t.goneAt {
					continue // the request was sent before the change
				}
				return fmt.Errorf("RETURNED: topic %s was deleted", t.name)
			case opening:
				continue
			}
			t.id = x.TopicID
			ready := 0 // partitions whose logs are open
			for ready < len(x.Partitions) && x.Partitions[ready].ErrorCode == 0 {
				ready++
			}
			x.Partitions = x.Partitions[:ready]
			if ready < t.counted && k.at > t.countedAt {
				return fmt.Errorf("LOST: topic %s has %d partitions with a leader, it was said to have %d", t.name, ready, t.counted)
			}
			for len(t.parts) < ready {
				t.parts = append(t.parts, &partBook{topic: t, index: int32(len(t.parts)), base: map[uint64]int64{}})
			}
			for j := range x.Partitions {
				q := &x.Partitions[j]
				if int(q.Partition) >= len(t.parts) {
					return fmt.Errorf("topic %s has a partition %d of %d", t.name, q.Partition, len(t.parts))
				}
				node := -1
				for _, b := range r.Brokers {
					if b.NodeID == q.Leader {
						node = int(b.Port) - s.port(0)
					}
				}
				if node < 0 {
					return fmt.Errorf("topic %s/%d is led by node %d, which is not listed", t.name, q.Partition, q.Leader)
				}
				t.parts[q.Partition].node = node
				if s.epoch == 0 {
					s.epoch = q.LeaderEpoch
				}
				if q.LeaderEpoch != s.epoch {
					return fmt.Errorf("%s/%d has leader epoch %d, another one has %d", t.name, q.Partition, q.LeaderEpoch, s.epoch)
				}
			}
		}
	}
	return nil
}

// askAll sends a Metadata request for all topics and waits for the answer.
func (s *brokerSim) askAll() (*kmsg.MetadataResponse, error) {
	c, err := s.connect(s.rng.IntN(s.shards + 1))
	if err != nil {
		return nil, err
	}
	var got *kmsg.MetadataResponse
	read := c.read
	c.read = func(k owed, resp kmsg.Response) error {
		got, _ = resp.(*kmsg.MetadataResponse)
		return read(k, resp)
	}
	req := kmsg.NewPtrMetadataRequest()
	req.Version = 10
	c.ask(req, owed{})
	for n := 0; n < 5000 && got == nil; n++ {
		if err := s.rest(); err != nil {
			return nil, err
		}
	}
	if got == nil {
		return nil, fmt.Errorf("STALLED: no answer to Metadata")
	}
	return got, nil
}

// audit reads everything after a crash. What was known must be there; what was not known
// may be there or not.
func (s *brokerSim) audit() error {
	r, err := s.askAll()
	if err != nil {
		return err
	}
	listed := map[string]bool{}
	for i := range r.Topics {
		listed[*r.Topics[i].Topic] = true
	}
	for _, t := range s.topics {
		switch {
		case t.fate == open && !listed[t.name]:
			return fmt.Errorf("LOST: topic %s", t.name)
		case t.fate == opening && listed[t.name]:
			t.fate = open
		case t.fate == opening:
			t.fate = absent
		case t.fate == deleting && !listed[t.name]:
			s.gone(t)
		case t.fate == deleting:
			t.fate = open
		}
	}
	if _, err := s.askAll(); err != nil {
		return err
	}
	for _, t := range s.openTopics() {
		t.counted = len(t.parts)
		for _, p := range t.parts {
			// Retention may remove what is about to be read.
			for p.passed = true; p.passed; {
				if err := s.auditStart(p); err != nil {
					return err
				}
				if err := s.auditPart(p); err != nil {
					return err
				}
			}
			if err := s.auditTimes(p); err != nil {
				return err
			}
		}
	}
	return s.auditGroups()
}

// auditStart asks for a partition's start, which must not be before the last answered one
// nor after the last requested one. From here on it is known.
func (s *brokerSim) auditStart(p *partBook) error {
	for tries := 0; ; tries++ {
		c, err := s.to(p.node)
		if err != nil {
			return err
		}
		req := kmsg.NewPtrListOffsetsRequest()
		req.Version, req.ReplicaID = int16(1+s.rng.IntN(7)), -1
		t := kmsg.NewListOffsetsRequestTopic()
		t.Topic = p.topic.name
		q := kmsg.NewListOffsetsRequestTopicPartition()
		q.Partition, q.Timestamp, q.CurrentLeaderEpoch = p.index, -2, -1
		t.Partitions = append(t.Partitions, q)
		req.Topics = append(req.Topics, t)
		p.next = -1
		c.ask(req, owed{note: p})
		for n := 0; n < 5000 && len(c.owed) > 0 && !c.c.Closed; n++ {
			if err := s.rest(); err != nil {
				return err
			}
		}
		if p.next >= 0 {
			break
		}
		if !c.c.Closed || tries > 100 {
			return fmt.Errorf("STALLED: no answer where %s/%d starts", p.topic.name, p.index)
		}
	}
	if p.next < p.start || p.next > s.mayStart(p) {
		return fmt.Errorf("%s/%d starts at %d, it was told to start at %d to %d", p.topic.name, p.index, p.next, p.start, p.startTo)
	}
	p.start, p.startTo = p.next, p.next
	return nil
}

// auditPart reads a partition from its start. If its start passes what is asked for, that is in p.passed and nothing else is known.
func (s *brokerSim) auditPart(p *partBook) error {
	want := p.floor()
	p.passed, p.next, p.high = false, p.start, 0
	p.epochs, p.epochsTo, p.lifeFrom = nil, p.start, math.MaxInt64
	for tries := 0; ; tries++ {
		before := p.next
		c, err := s.fetch(p, p.next, true)
		if err != nil {
			return err
		}
		for n := 0; n < 5000 && len(c.owed) > 0 && !c.c.Closed; n++ {
			if err := s.rest(); err != nil {
				return err
			}
		}
		if len(c.owed) > 0 {
			return fmt.Errorf("STALLED: no answer to a fetch of %s/%d from %d", p.topic.name, p.index, p.next)
		}
		if p.passed {
			return nil
		}
		if c.c.Closed {
			continue
		}
		if p.next >= p.high {
			break
		}
		if p.next == before && tries > 50 {
			return fmt.Errorf("LOST: %s/%d: nothing at %d, the high watermark is %d, known to %d", p.topic.name, p.index, p.next, p.high, want)
		}
	}
	lost, err := p.end(p.next)
	s.lostCached += int(lost)
	if err != nil {
		return err
	}
	return s.auditEpochs(p)
}

// settle waits until all requests are answered.
func (s *brokerSim) settle() error {
	for range 20_000 {
		owe := 0
		for _, c := range s.conns {
			owe += len(c.owed)
		}
		if owe == 0 {
			return nil
		}
		if err := s.rest(); err != nil {
			return err
		}
	}
	for _, c := range s.conns {
		if len(c.owed) > 0 {
			return fmt.Errorf("STALLED: node %d owes %d answers, the first to key %d", c.node, len(c.owed), c.owed[0].req.Key())
		}
	}
	return nil
}

// stopMaxNS bounds a clean stop: the time that shards give requests to be answered, the
// time that netring then gives peers to receive replies, and a second for the storage.
const stopMaxNS = 4e9

// stop stops the broker cleanly. Clients may obstruct it.
func (s *brokerSim) stop() error {
	if err := s.obstruct(); err != nil {
		return err
	}
	return s.halt()
}

// halt stops the broker cleanly, which takes at most stopMaxNS.
func (s *brokerSim) halt() error {
	s.broker.Stop()
	s.stopping = true
	for began := s.w.Now; ; {
		done := 0
		for _, c := range s.cores {
			if c.shard.Done() {
				done++
			}
		}
		if done == len(s.cores) {
			return nil
		}
		if took := s.w.Now - began; took > stopMaxNS {
			return fmt.Errorf("STALLED: a clean stop does not end within %d ms", int64(stopMaxNS/1e6))
		}
		for _, c := range s.conns {
			if c.trickles && s.rng.IntN(4) == 0 {
				c.c.Widen(1 + s.rng.IntN(20))
			}
		}
		if err := s.rest(); err != nil {
			return err
		}
	}
}

// obstruct has some clients do what could delay a stop: they receive nothing more of the
// answers to their requests, or a few bytes now and then; they have sent half a request,
// or nothing.
func (s *brokerSim) obstruct() error {
	if s.rng.IntN(2) == 0 {
		return nil
	}
	for _, t := range s.openTopics() {
		if p := t.parts[s.rng.IntN(len(t.parts))]; s.rng.IntN(2) == 0 {
			if _, err := s.fetch(p, p.start, true); err != nil {
				return err
			}
		}
	}
	for _, c := range s.conns {
		if s.rng.IntN(3) == 0 {
			c.c.Window, c.trickles = 0, s.rng.IntN(3) == 0
		}
	}
	for range s.rng.IntN(3) {
		c, err := s.connect(s.rng.IntN(s.shards + 1))
		if err != nil {
			return err
		}
		if s.rng.IntN(2) == 0 {
			half := formatter.AppendRequest(nil, kmsg.NewPtrMetadataRequest(), 1)
			c.c.Send(half[:1+s.rng.IntN(len(half)-1)])
		}
	}
	for range s.rng.IntN(10) {
		if err := s.rest(); err != nil {
			return err
		}
	}
	return nil
}

func init() {
	workloads = append(workloads, workload{"broker", brokerWork})
	faults = append(faults,
		fault{"StartToldEarly", "broker", 9, func(r *Run) { r.ShardFaults.StartToldEarly = true }},
		fault{"DuplicateAckedEarly", "broker", 14, func(r *Run) { r.ShardFaults.DuplicateAckedEarly = true }},
		fault{"CommitAckedEarly", "broker", 5, func(r *Run) { r.ShardFaults.CommitAckedEarly = true }},
		fault{"GenerationKept", "broker", 2, func(r *Run) { r.GroupFaults.GenerationKept = true }},
		fault{"AssignedUnreleased", "broker", 1, func(r *Run) { r.GroupFaults.AssignedUnreleased = true }},
		fault{"StaleEpochTaken", "broker", 3, func(r *Run) { r.GroupFaults.StaleEpochTaken = true }},
		fault{"LateCommitRefused", "broker", 2, func(r *Run) { r.GroupFaults.LateCommitRefused = true }},
		fault{"AssignedSinceEver", "broker", 32, func(r *Run) { r.GroupFaults.AssignedSinceEver = true }},
		fault{"SessionsNeverEnd", "broker", 2, func(r *Run) { r.GroupFaults.SessionsNeverEnd = true }},
		fault{"UpgradeForgets", "broker", 153, func(r *Run) { r.GroupFaults.UpgradeForgets = true }},
		fault{"DowngradeQuiet", "broker", 81, func(r *Run) { r.GroupFaults.DowngradeQuiet = true }},
		fault{"SyncForgotten", "broker", 1, func(r *Run) { r.GroupFaults.SyncForgotten = true }},
		fault{"NewsMissed", "broker", 2, func(r *Run) { r.ShardFaults.NewsMissed = true }},
		fault{"MaxTimeBelieved", "broker", 2, func(r *Run) { r.ShardFaults.MaxTimeBelieved = true }},
		fault{"TimesTrusted", "broker", 3, func(r *Run) { r.Faults |= engine.TimesTrusted }},
		fault{"SearchReadsAtTime", "broker", 2, func(r *Run) { r.ShardFaults.SearchReadsAtTime = true }},
		fault{"SearchFindsDeleted", "broker", 2, func(r *Run) { r.ShardFaults.SearchFindsDeleted = true }},
		fault{"ProducerIDTwice", "broker", 2, func(r *Run) { r.ShardFaults.ProducerIDTwice = true }},
		fault{"StopAwaitsPeers", "broker", 2, func(r *Run) { r.ShardFaults.StopAwaitsPeers = true }},
		fault{"EmptyGroupsStay", "broker", 3, func(r *Run) { r.GroupFaults.EmptyGroupsStay = true }},
	)
}
