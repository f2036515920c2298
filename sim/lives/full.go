package lives

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/shard"
	"github.com/tailbound/tailbound/sim"
)

// fullWork runs one seed of a broker on a disk that is full, of bytes, of files or of both,
// and of an operator who makes room there:
//
//	create topics; commit offsets; limit the disk
//	produce until the disk is full; commit, many times what the control log's segment holds, or
//	as much as the journals hold while no checkpoint can be written
//	crash or stop, and open on the full disk, several times
//	what makes room: DeleteRecords, retention, DeleteGroups, OffsetDelete, DeleteTopics
//	produce and commit again
//
// Nothing that was acknowledged is lost. What makes room is never refused. Commits that
// replace others go on on the full disk, if the broker had time to prepare. A start needs
// neither a byte nor a file. The operator is told: when it begins, while it lasts, and when
// it is over.
func fullWork(r Run) (res Result) {
	s := newFullSim(r)
	defer s.brokerSim.finish(&res)
	res.Err = s.story()
	return res
}

// fullSim is the world of one seed.
type fullSim struct {
	*brokerSim
	prepared  bool             // the broker had time before the disk was limited
	uncovered bool             // the full disk has no room for checkpoints, so that nothing frees journals
	to        map[int]*conn    // a connection to each node
	leaders   map[string][]int // topic -> the node of each partition
	stored    map[fullPart][]string
	acked     [fullOffsets]int64 // committed offsets of fullGroup
	offered   int64
	bigStored bool // bigTopic had records
	refused   int  // produce requests and commits that found no room
	shortAt   []ioring.Instant
	roomAt    []ioring.Instant // when it was said that there is room again
}

// fullPart is a partition of a topic.
type fullPart struct {
	topic string
	index int32
}

const (
	fullGroup   = "group" // commits to keptTopic
	idleGroup   = "idle"  // is deleted
	keptTopic   = "kept"  // has the partitions of offsets, and few records
	bigTopic    = "big"   // fills the disk
	fullOffsets = 8       // partitions that a commit names
)

func newFullSim(r Run) *fullSim {
	s := &fullSim{brokerSim: &brokerSim{run: r, w: sim.NewWorld(r.Seed), disk: sim.NewDisk(0), sent: map[uint64]*sentBatch{}, ids: map[int64]bool{}},
		to: map[int]*conn{}, leaders: map[string][]int{}, stored: map[fullPart][]string{}}
	s.rng = s.w.Rand
	s.w.Trace = r.Trace
	s.shards = 1 + s.rng.IntN(2)
	s.drawLimits()
	s.makeGroups()
	s.o.Log = s
	return s
}

// Log takes the broker's lines, and notes those about room.
func (s *fullSim) Log(level shard.Level, n int, text []byte) {
	s.brokerSim.Log(level, n, text)
	switch line := string(text); {
	case strings.HasPrefix(line, "the disk is full") && level == shard.Error:
		s.shortAt = append(s.shortAt, s.w.Now)
	case strings.HasPrefix(line, "there is room again"):
		s.roomAt = append(s.roomAt, s.w.Now)
	}
}

// ask asks a node and awaits the answer.
func (s *fullSim) ask(node int, req kmsg.Request) (kmsg.Response, error) {
	c := s.to[node]
	if c == nil || c.c.Closed {
		var err error
		if c, err = s.connect(node); err != nil {
			return nil, err
		}
		s.to[node] = c
	}
	var got kmsg.Response
	c.read = func(_ owed, resp kmsg.Response) error {
		got = resp
		return nil
	}
	c.ask(req, owed{})
	for give := s.w.Now + 60e9; got == nil; {
		if c.c.Closed {
			return nil, fmt.Errorf("the connection to node %d was closed before key %d was answered", node, req.Key())
		}
		if s.w.Now > give {
			return nil, fmt.Errorf("STALLED: no answer to key %d", req.Key())
		}
		if err := s.rest(); err != nil {
			return nil, err
		}
	}
	return got, nil
}

// pass lets time pass.
func (s *fullSim) pass(ns ioring.Instant) error {
	for end := s.w.Now + ns; s.w.Now < end; {
		if err := s.rest(); err != nil {
			return err
		}
	}
	return nil
}

// begin opens the broker, and learns who leads what.
func (s *fullSim) begin() error {
	s.lives++
	if err := s.open(); err != nil {
		return err
	}
	if err := s.serve(); err != nil {
		return err
	}
	return s.learn()
}

func (s *fullSim) learn() error {
	req := kmsg.NewPtrMetadataRequest()
	req.Version, req.AllowAutoTopicCreation = 9, false
	resp, err := s.ask(0, req)
	if err != nil {
		return err
	}
	meta := resp.(*kmsg.MetadataResponse)
	s.leaders = map[string][]int{}
	for _, topic := range meta.Topics {
		nodes := make([]int, len(topic.Partitions))
		for _, p := range topic.Partitions {
			nodes[p.Partition] = int(p.Leader)
		}
		s.leaders[*topic.Topic] = nodes
	}
	return nil
}

// finish ends a life: by a clean stop, kill -9 or a power cut.
func (s *fullSim) finish() error {
	if s.rng.IntN(3) == 0 {
		if err := s.stop(); err != nil {
			return err
		}
	}
	s.end()
	s.to = map[int]*conn{}
	return nil
}

// limit limits the disk to what is used of it, and so many bytes and files more; negative:
// without limit.
func (s *fullSim) limit(bytes int64, files int) {
	s.disk.Capacity, s.disk.Inodes = 0, 0
	if bytes >= 0 {
		s.disk.Capacity = s.disk.Used() + bytes
	}
	if files >= 0 {
		s.disk.Inodes = s.disk.Files() + files
	}
	s.w.Logf("--- %d bytes and %d files are left", bytes, files)
}

func (s *fullSim) story() error {
	if err := s.begin(); err != nil {
		return err
	}
	if s.prepared = s.rng.IntN(4) > 0; !s.prepared {
		s.limit(1<<20+s.rng.Int64N(int64(s.pick(64<<10, 2<<20))), -1) // for the first segment of the control log
	}
	for _, t := range []struct {
		name       string
		partitions int
	}{{keptTopic, fullOffsets}, {bigTopic, 1 + s.rng.IntN(3)}} {
		if code, err := s.create(t.name, t.partitions); code == codeStorage && !s.prepared {
			return nil // others took the room that was left: files that are kept ready
		} else if code != 0 || err != nil {
			return fmt.Errorf("creating topic %s: error %d, %w", t.name, code, err)
		}
	}
	for range 3 {
		if err := s.commit(true); err != nil {
			return err
		}
	}
	if err := s.commitIdle(); err != nil {
		return err
	}
	if err := s.append(keptTopic, 0, 100, s.prepared); err != nil {
		return err
	}
	if s.prepared {
		if err := s.pass(3e9); err != nil {
			return err
		}
		files := s.pick(-1, 0, 2)
		bytes := s.rng.Int64N(6 << 20)
		if files >= 0 && s.rng.IntN(3) == 0 {
			bytes = -1
		}
		s.limit(bytes, files)
		s.uncovered = s.rng.IntN(5) == 0
	}
	if err := s.fill(); err != nil {
		return fmt.Errorf("on the full disk: %w", err)
	}
	restarts := s.rng.IntN(3)
	if s.uncovered {
		restarts = 0 // a start writes checkpoints
	}
	for range restarts {
		if err := s.finish(); err != nil {
			return err
		}
		s.limit(0, 0)
		if err := s.begin(); err != nil {
			return fmt.Errorf("on the full disk: %w", err)
		}
		if err := s.audit(); err != nil {
			return fmt.Errorf("after opening on the full disk: %w", err)
		}
		if err := s.pass(3e9); err != nil {
			return err
		}
		for range 3 {
			if err := s.commit(s.prepared); err != nil {
				return fmt.Errorf("after opening on the full disk: %w", err)
			}
		}
	}
	if err := s.told(); err != nil {
		return err
	}
	if err := s.makeRoom(); err != nil {
		return fmt.Errorf("making room on the full disk: %w", err)
	}
	s.disk.Fail = nil
	if err := s.goesOn(); err != nil {
		return fmt.Errorf("with room again: %w", err)
	}
	if err := s.finish(); err != nil {
		return err
	}
	if err := s.begin(); err != nil {
		return err
	}
	return s.audit()
}

func (s *fullSim) create(name string, partitions int) (code int16, err error) {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Version = 5
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, int32(partitions), 1
	req.Topics = append(req.Topics, t)
	resp, err := s.ask(0, req)
	if err != nil {
		return 0, err
	}
	if code := resp.(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode; code != 0 {
		return code, nil
	}
	return 0, s.learn()
}

// append appends a batch. Unless it has to be taken, it may find no room.
func (s *fullSim) append(topic string, index int32, size int, must bool) error {
	s.serial++
	b := makeBatch(s.serial, 1, size, -1, -1, -1)
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks, req.TimeoutMillis = 8, -1, 600_000
	q := kmsg.NewProduceRequestTopicPartition()
	q.Partition, q.Records = index, b
	t := kmsg.NewProduceRequestTopic()
	t.Topic, t.Partitions = topic, append(t.Partitions, q)
	req.Topics = append(req.Topics, t)
	resp, err := s.ask(s.leaders[topic][index], req)
	if err != nil {
		return err
	}
	p := &resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
	part := fullPart{topic, index}
	switch {
	case p.ErrorCode == codeStorage && !must:
		s.refused++
		return nil
	case p.ErrorCode != 0:
		return fmt.Errorf("producing to %s/%d: error %d", topic, index, p.ErrorCode)
	case p.BaseOffset != int64(len(s.stored[part])):
		return fmt.Errorf("batch %d of %s/%d is at offset %d", len(s.stored[part]), topic, index, p.BaseOffset)
	}
	s.stored[part] = append(s.stored[part], string(b[16:]))
	s.bigStored = s.bigStored || topic == bigTopic
	s.appends++
	return nil
}

// commit commits offsets that replace those before, with metadata so that the control log
// is soon full. Unless it has to be taken, it may find no room.
func (s *fullSim) commit(must bool) error {
	s.offered++
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Version, req.Group, req.Generation = 7, fullGroup, -1
	t := kmsg.NewOffsetCommitRequestTopic()
	t.Topic = keptTopic
	metadata := strings.Repeat("m", s.metadataBytes()-s.rng.IntN(200))
	for i := range fullOffsets {
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset, p.Metadata = int32(i), s.offered, &metadata
		t.Partitions = append(t.Partitions, p)
	}
	req.Topics = append(req.Topics, t)
	resp, err := s.ask(0, req)
	if err != nil {
		return err
	}
	for i, p := range resp.(*kmsg.OffsetCommitResponse).Topics[0].Partitions {
		switch {
		case p.ErrorCode == 0:
			s.acked[i] = s.offered
		case p.ErrorCode == codeNotCoordinator && !must:
			s.refused++
		default:
			return fmt.Errorf("REFUSED: a commit of offsets that replace others: error %d", p.ErrorCode)
		}
	}
	s.appends++
	return nil
}

// metadataBytes is how much of it an offset has: what a command of the control log holds,
// and a small part of its segment.
func (s *fullSim) metadataBytes() int { return min(s.o.MessageBytesMax*3/4, 20_000) / fullOffsets }

// commitIdle commits an offset of the group that is to be deleted.
func (s *fullSim) commitIdle() error {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Version, req.Group, req.Generation = 7, idleGroup, -1
	t := kmsg.NewOffsetCommitRequestTopic()
	t.Topic, t.Partitions = keptTopic, append(t.Partitions, kmsg.NewOffsetCommitRequestTopicPartition())
	req.Topics = append(req.Topics, t)
	resp, err := s.ask(0, req)
	if err == nil && resp.(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode != 0 {
		err = fmt.Errorf("committing: error %d", resp.(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode)
	}
	return err
}

// fill fills the disk with records, and then the control log with offsets.
func (s *fullSim) fill() error {
	for n := 0; s.refused < 3; n++ {
		if n > 5000 {
			return fmt.Errorf("the disk does not fill")
		}
		for i := range s.leaders[bigTopic] {
			if err := s.append(bigTopic, int32(i), s.o.MessageBytesMax/2, false); err != nil {
				return err
			}
		}
		if s.disk.Capacity == 0 && n > 20 {
			break // files alone are short, and there may never be a need for one
		}
	}
	most := min(3*max(s.o.Memory.SegmentBytes, 1<<20)/(fullOffsets*s.metadataBytes()), 400)
	if s.uncovered {
		return s.fillJournal(most)
	}
	if s.prepared {
		most = s.rng.IntN(most + 1)
	}
	before := s.refused
	for n := 0; n < most && s.refused == before; n++ {
		if err := s.commit(s.prepared); err != nil {
			return fmt.Errorf("commit %d: %w", n, err)
		}
	}
	return nil
}

// fillJournal commits, while no checkpoint can be written, until the control shard's journal
// takes no more.
func (s *fullSim) fillJournal(most int) error {
	s.disk.Fail = func(code ioring.Code, path string, _ uint64, _ int) int32 {
		if code == ioring.Write && strings.Contains(path, "/checkpoint-") {
			return -int32(unix.ENOSPC)
		}
		return 0
	}
	before := s.refused
	for n := 0; n < most && s.refused < before+20; n++ {
		if err := s.commit(false); err != nil {
			return fmt.Errorf("commit %d without checkpoints: %w", n, err)
		}
	}
	return nil
}

// audit reads everything back.
func (s *fullSim) audit() error {
	for part, stored := range s.inOrder {
		for at := int64(0); at < int64(len(stored)); {
			req := kmsg.NewPtrFetchRequest()
			req.Version, req.ReplicaID, req.MaxBytes, req.SessionEpoch = 11, -1, 1<<20, -1
			q := kmsg.NewFetchRequestTopicPartition()
			q.Partition, q.FetchOffset, q.PartitionMaxBytes, q.CurrentLeaderEpoch = part.index, at, 1<<20, -1
			t := kmsg.NewFetchRequestTopic()
			t.Topic, t.Partitions = part.topic, append(t.Partitions, q)
			req.Topics = append(req.Topics, t)
			resp, err := s.ask(s.leaders[part.topic][part.index], req)
			if err != nil {
				return err
			}
			p := &resp.(*kmsg.FetchResponse).Topics[0].Partitions[0]
			if p.ErrorCode == codeOutOfRange && p.LogStartOffset > at {
				at = p.LogStartOffset
				continue
			}
			if p.ErrorCode != 0 {
				return fmt.Errorf("reading %s/%d at %d of %d: error %d", part.topic, part.index, at, len(stored), p.ErrorCode)
			}
			before := at
			for rest := p.RecordBatches; len(rest) >= headBytes; at++ {
				n := len(stored[at]) + 16
				if n > len(rest) {
					break
				}
				if !bytes.Equal(rest[16:n], []byte(stored[at])) {
					return fmt.Errorf("CHANGED: %s/%d at %d", part.topic, part.index, at)
				}
				rest = rest[n:]
				s.reads++
			}
			if at == before {
				return fmt.Errorf("LOST: %s/%d at %d of %d", part.topic, part.index, at, len(stored))
			}
		}
	}
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Version, req.Group = 5, fullGroup
	resp, err := s.ask(0, req)
	if err != nil {
		return err
	}
	have := map[int32]int64{}
	for _, t := range resp.(*kmsg.OffsetFetchResponse).Topics {
		for _, p := range t.Partitions {
			have[p.Partition] = p.Offset
		}
	}
	for i := range s.acked {
		if at, ok := have[int32(i)]; s.acked[i] > 0 && (!ok || at < s.acked[i] || at > s.offered) {
			return fmt.Errorf("WENT BACK: partition %d is committed at %d, and %d was acknowledged", i, at, s.acked[i])
		}
	}
	return nil
}

// inOrder yields what was stored, by partition.
func (s *fullSim) inOrder(yield func(fullPart, []string) bool) {
	var parts []fullPart
	for part := range s.stored {
		parts = append(parts, part)
	}
	slices.SortFunc(parts, func(a, b fullPart) int {
		if a.topic != b.topic {
			return strings.Compare(a.topic, b.topic)
		}
		return int(a.index - b.index)
	})
	for _, part := range parts {
		if !yield(part, s.stored[part]) {
			return
		}
	}
}

// told: what is short is said when it begins, and again as it lasts.
func (s *fullSim) told() error {
	if s.short() == 0 && s.refused == 0 {
		return nil
	}
	for range 3 { // something that finds no room in this life
		for i := range s.leaders[bigTopic] {
			if err := s.append(bigTopic, int32(i), s.o.MessageBytesMax/2, false); err != nil {
				return err
			}
		}
	}
	if err := s.pass(2e9); err != nil {
		return err
	}
	if s.short() == 0 {
		return nil // there was room for these after all
	}
	if len(s.shortAt) == 0 {
		return fmt.Errorf("UNSAID: the disk is full, and the operator was not told")
	}
	lines, begin := len(s.shortAt), s.w.Now
	if err := s.pass(190e9); err != nil {
		return err
	}
	if n := len(s.shortAt) - lines; s.short() > 0 && (n < 2 || n > 4) {
		return fmt.Errorf("UNSAID: the disk is full for three minutes more, and that was said %d times", n)
	}
	for i := 1; i < len(s.shortAt); i++ {
		if gap := s.shortAt[i] - s.shortAt[i-1]; s.shortAt[i-1] >= begin && gap < 50e9 {
			return fmt.Errorf("SAID TOO OFTEN: twice in %d ms", gap/1e6)
		}
	}
	return nil
}

// short is how many shards are short of room now.
func (s *fullSim) short() (n int) {
	for _, c := range s.cores {
		if c.shard.ShortOfRoom() {
			n++
		}
	}
	return n
}

// makeRoom does what an operator may do about a full disk, in an order that the seed draws.
// All of it has to be done.
func (s *fullSim) makeRoom() error {
	ways := []func() error{s.deleteRecords, s.lowerRetention, s.deleteGroup, s.deleteOffset}
	s.rng.Shuffle(len(ways), func(i, k int) { ways[i], ways[k] = ways[k], ways[i] })
	for _, way := range ways[:s.rng.IntN(len(ways)+1)] {
		if err := way(); err != nil {
			return err
		}
	}
	return s.deleteTopic(bigTopic)
}

// deleteRecords deletes the records of a partition that fills the disk. Its files go, with
// whatever was being written when it was asked.
func (s *fullSim) deleteRecords() error {
	index := int32(s.rng.IntN(len(s.leaders[bigTopic])))
	req := kmsg.NewPtrDeleteRecordsRequest()
	req.Version = 2
	q := kmsg.NewDeleteRecordsRequestTopicPartition()
	q.Partition, q.Offset = index, -1
	t := kmsg.NewDeleteRecordsRequestTopic()
	t.Topic, t.Partitions = bigTopic, append(t.Partitions, q)
	req.Topics = append(req.Topics, t)
	resp, err := s.ask(s.leaders[bigTopic][index], req)
	if err != nil {
		return err
	}
	if code := resp.(*kmsg.DeleteRecordsResponse).Topics[0].Partitions[0].ErrorCode; code != 0 {
		return fmt.Errorf("REFUSED: DeleteRecords: error %d", code)
	}
	return s.pass(3e9)
}

func (s *fullSim) lowerRetention() error {
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	req.Version = 1
	x := kmsg.NewIncrementalAlterConfigsRequestResource()
	x.ResourceType, x.ResourceName = kmsg.ConfigResourceTypeTopic, bigTopic
	value := "1048576"
	y := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	y.Name, y.Value = "retention.bytes", &value
	x.Configs = append(x.Configs, y)
	req.Resources = append(req.Resources, x)
	resp, err := s.ask(0, req)
	if err == nil && resp.(*kmsg.IncrementalAlterConfigsResponse).Resources[0].ErrorCode != 0 {
		err = fmt.Errorf("REFUSED: lowering retention.bytes: error %d", resp.(*kmsg.IncrementalAlterConfigsResponse).Resources[0].ErrorCode)
	}
	return err
}

func (s *fullSim) deleteGroup() error {
	req := kmsg.NewPtrDeleteGroupsRequest()
	req.Version, req.Groups = 2, []string{idleGroup}
	resp, err := s.ask(0, req)
	if err == nil && resp.(*kmsg.DeleteGroupsResponse).Groups[0].ErrorCode != 0 {
		err = fmt.Errorf("REFUSED: DeleteGroups: error %d", resp.(*kmsg.DeleteGroupsResponse).Groups[0].ErrorCode)
	}
	return err
}

func (s *fullSim) deleteOffset() error {
	req := kmsg.NewPtrOffsetDeleteRequest()
	req.Group = fullGroup
	p := kmsg.NewOffsetDeleteRequestTopicPartition()
	p.Partition = int32(s.rng.IntN(fullOffsets))
	t := kmsg.NewOffsetDeleteRequestTopic()
	t.Topic, t.Partitions = keptTopic, append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	resp, err := s.ask(0, req)
	if err != nil {
		return err
	}
	r := resp.(*kmsg.OffsetDeleteResponse)
	if r.ErrorCode != 0 || r.Topics[0].Partitions[0].ErrorCode != 0 {
		return fmt.Errorf("REFUSED: OffsetDelete: error %d", r.ErrorCode)
	}
	s.acked[p.Partition] = 0
	return nil
}

func (s *fullSim) deleteTopic(name string) error {
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.Version, req.TopicNames = 4, []string{name}
	resp, err := s.ask(s.rng.IntN(s.shards+1), req)
	if err != nil {
		return err
	}
	if code := resp.(*kmsg.DeleteTopicsResponse).Topics[0].ErrorCode; code != 0 {
		return fmt.Errorf("REFUSED: DeleteTopics: error %d", code)
	}
	for i := range s.leaders[name] {
		delete(s.stored, fullPart{name, int32(i)})
	}
	return s.learn()
}

// goesOn: a topic was deleted, and the disk has the room that its files had.
func (s *fullSim) goesOn() error {
	short := s.short() > 0
	if !s.prepared || !s.bigStored {
		s.limit(-1, -1) // what was deleted may have had no file
	}
	for give := s.w.Now + 20e9; ; {
		before := s.refused
		if err := s.append(keptTopic, 0, 1000, false); err != nil {
			return err
		}
		if err := s.commit(false); err != nil {
			return err
		}
		if s.refused == before {
			break
		}
		if s.w.Now > give {
			return fmt.Errorf("STALLED: twenty seconds after a topic was deleted there is no room")
		}
		if err := s.pass(200e6); err != nil {
			return err
		}
	}
	if err := s.pass(5e9); err != nil {
		return err
	}
	if s.short() == 0 && short && len(s.shortAt) > 0 && len(s.roomAt) == 0 {
		return fmt.Errorf("UNSAID: there is room again")
	}
	return nil
}

func init() {
	workloads = append(workloads, workload{"full", fullWork})
	faults = append(faults,
		fault{"RoomNotKept", "full", 13, func(r *Run) { r.ShardFaults.RoomNotKept = true }},
		fault{"JournalNotKept", "full", 23, func(r *Run) { r.ShardFaults.JournalNotKept = true }},
		fault{"NextNotKept", "full", 3, func(r *Run) { r.ShardFaults.NextNotKept = true }},
		fault{"NoRoomUnsaid", "full", 1, func(r *Run) { r.ShardFaults.NoRoomUnsaid = true }},
	)
}
