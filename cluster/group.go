package cluster

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/tailbound/tailbound/engine/format"
)

// Group is what is durable of a consumer group: the generation that was last
// made durable, and the offsets. What lookups return belongs to the State:
// read it, do not write it, and do not keep it across an Apply.
type Group struct {
	ID           string
	Generation   int32
	ProtocolType string        // "": nobody ever joined it; it only stores offsets
	Protocol     string        // how partitions were assigned; "" without members
	Leader       string        // a member's id
	ChangedMS    int64         // wall time since when it is in its state
	Members      []GroupMember // in the order in which they joined
	Topics       []GroupTopic  // sorted by name, none without offsets

	// Consumer is what a group of the consumer protocol (KIP-848) has; nil for a
	// classic group. Such a one has no Protocol, Leader or Members.
	Consumer *ConsumerGroup

	metaBytes, offsetBytes int
}

// GroupIDBytesMax is the longest group id; the longest name of an instance, a
// protocol or its type too. Kafka does not say; its names of topics are so long.
const GroupIDBytesMax = TopicNameBytesMax

// GroupProtocol is a way to assign partitions that a member knows, and what it
// has to say for it.
type GroupProtocol struct {
	Name     string
	Metadata []byte
}

// GroupMember is one member of a Group, as its generation was made durable.
type GroupMember struct {
	ID                                   string
	InstanceID                           string // group.instance.id; "": a dynamic member
	ClientID, ClientHost                 string
	SessionTimeoutMS, RebalanceTimeoutMS int32
	Subscription                         []byte // its metadata for the group's protocol
	Assignment                           []byte
}

// GroupTopic is what a group has committed of one topic.
type GroupTopic struct {
	Name    string
	Offsets []Offset // sorted by partition
}

// Offset is one committed offset.
type Offset struct {
	Partition   int32
	LeaderEpoch int32 // -1: not given
	Offset      int64
	CommittedMS int64 // wall time
	ExpiresMS   int64 // wall time a client asked for (OffsetCommit 2 to 4); -1: the broker's rule
	Metadata    string
}

// What a group is counted to have, beside its strings and bytes. Bounds are
// counted in these bytes: they follow what is stored and what lies in memory.
const (
	GroupFixedBytes  = 64
	MemberFixedBytes = 64
	TopicFixedBytes  = 32
	offsetBytes      = 48
)

// Group is the group of that id.
func (s *State) Group(id string) (*Group, bool) {
	i, ok := s.groupAt(id)
	if !ok {
		return nil, false
	}
	return s.groups[i], true
}

// Groups are all groups, sorted by id. The slice is the State's own: valid
// until the next Apply, and not to be written.
func (s *State) Groups() []*Group { return s.groups }

// GroupBytes is how much all groups are counted to have.
func (s *State) GroupBytes() int { return s.groupsBytes }

// Offset is what the group has committed for a partition.
func (g *Group) Offset(topic string, partition int32) (*Offset, bool) {
	t, ok := g.topicAt(topic)
	if !ok {
		return nil, false
	}
	i, ok := offsetAt(g.Topics[t].Offsets, partition)
	if !ok {
		return nil, false
	}
	return &g.Topics[t].Offsets[i], true
}

// OffsetBytes is how much the group's offsets are counted to have.
func (g *Group) OffsetBytes() int { return g.offsetBytes }

// MoreOffsetBytes is by how much offsets would make a group grow.
func (s *State) MoreOffsetBytes(group string, topics []GroupTopic) (n int) {
	d, ok := s.Group(group)
	for _, t := range topics {
		known := false
		if ok {
			_, known = d.topicAt(t.Name)
		}
		if !known {
			n += TopicFixedBytes + len(t.Name)
		}
		for i := range t.Offsets {
			n += len(t.Offsets[i].Metadata)
			if known {
				if old, ok := d.Offset(t.Name, t.Offsets[i].Partition); ok {
					n -= len(old.Metadata)
					continue
				}
			}
			n += offsetBytes
		}
	}
	return n
}

func (s *State) groupAt(id string) (int, bool) {
	return slices.BinarySearchFunc(s.groups, id, func(g *Group, id string) int { return cmp.Compare(g.ID, id) })
}

func (g *Group) topicAt(name string) (int, bool) {
	return slices.BinarySearchFunc(g.Topics, name, func(t GroupTopic, n string) int { return cmp.Compare(t.Name, n) })
}

func offsetAt(all []Offset, partition int32) (int, bool) {
	return slices.BinarySearchFunc(all, partition, func(o Offset, p int32) int { return cmp.Compare(o.Partition, p) })
}

func (g *Group) equal(o *Group) bool {
	return g.ID == o.ID && g.Generation == o.Generation && g.ProtocolType == o.ProtocolType && g.Protocol == o.Protocol &&
		g.Leader == o.Leader && g.ChangedMS == o.ChangedMS && g.Consumer.equal(o.Consumer) && g.metaBytes == o.metaBytes && g.offsetBytes == o.offsetBytes &&
		slices.EqualFunc(g.Members, o.Members, func(a, b GroupMember) bool {
			return a.ID == b.ID && a.InstanceID == b.InstanceID && a.ClientID == b.ClientID && a.ClientHost == b.ClientHost &&
				a.SessionTimeoutMS == b.SessionTimeoutMS && a.RebalanceTimeoutMS == b.RebalanceTimeoutMS &&
				bytes.Equal(a.Subscription, b.Subscription) && bytes.Equal(a.Assignment, b.Assignment)
		}) &&
		slices.EqualFunc(g.Topics, o.Topics, func(a, b GroupTopic) bool {
			return a.Name == b.Name && slices.Equal(a.Offsets, b.Offsets)
		})
}

// A change of groups: kind u8, length u32 of what follows, group id, then
//
//	put      generation i32, protocol type, protocol, leader, changed i64, members u32,
//	         each id, instance id, client id, client host, session timeout i32,
//	         rebalance timeout i32, subscription and assignment with u32 lengths
//	drop     nothing
//	commit   topics u32, each name, offsets u32, each partition i32, leader epoch i32,
//	         offset i64, committed i64, expires i64, metadata
//	forget   topics u32, each name, partitions u32, each i32
//	consumer what appendConsumer of consumergroup.go writes
//
// Strings have a u16 length before them. A put leaves the group's offsets as
// they are, and so does a consumer. A drop takes them along. A commit makes the group where there is
// none, and keeps nothing of partitions that do not exist: one that was on its
// way when its topic was deleted is as if it had come before.
const (
	groupPut    = 1
	groupDrop   = 2
	groupCommit = 3
	groupForget = 4
	groupModern = 5
)

const groupChangeHeaderBytes = 5

// GroupStringBytesMax bounds every string in a change: group ids, member ids,
// names of protocols, metadata of offsets.
const GroupStringBytesMax = 1<<16 - 1

// PlanGroups proposes changes of groups, as the functions of this file build
// them, in their order and all at once.
func (s *State) PlanGroups(changes [][]byte) []byte {
	n := 0
	for _, c := range changes {
		n += len(c)
	}
	body := make([]byte, 0, n)
	for _, c := range changes {
		body = append(body, c...)
	}
	return command(kindGroups, s.sequence+1, body)
}

func groupChange(kind byte, id string, sizeHint int) []byte {
	b := make([]byte, 0, groupChangeHeaderBytes+2+len(id)+sizeHint)
	b = append(b, kind, 0, 0, 0, 0)
	return appendString(b, id)
}

func endGroupChange(b []byte) []byte {
	binary.LittleEndian.PutUint32(b[1:], uint32(len(b)-groupChangeHeaderBytes))
	return b
}

// PutGroup is the change that makes a group's metadata what g has.
func PutGroup(g *Group) []byte {
	b := groupChange(groupPut, g.ID, 256)
	b = binary.LittleEndian.AppendUint32(b, uint32(g.Generation))
	b = appendString(b, g.ProtocolType)
	b = appendString(b, g.Protocol)
	b = appendString(b, g.Leader)
	b = binary.LittleEndian.AppendUint64(b, uint64(g.ChangedMS))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(g.Members)))
	for i := range g.Members {
		m := &g.Members[i]
		for _, s := range [...]string{m.ID, m.InstanceID, m.ClientID, m.ClientHost} {
			b = appendString(b, s)
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(m.SessionTimeoutMS))
		b = binary.LittleEndian.AppendUint32(b, uint32(m.RebalanceTimeoutMS))
		b = appendBytes(b, m.Subscription)
		b = appendBytes(b, m.Assignment)
	}
	return endGroupChange(b)
}

// DropGroup is the change that removes a group with its offsets.
func DropGroup(id string) []byte { return endGroupChange(groupChange(groupDrop, id, 0)) }

// CommitOffsets is the change that stores offsets, in place of older ones.
func CommitOffsets(id string, topics []GroupTopic) []byte {
	b := groupChange(groupCommit, id, 256)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(topics)))
	for _, t := range topics {
		b = appendString(b, t.Name)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(t.Offsets)))
		for i := range t.Offsets {
			o := &t.Offsets[i]
			b = binary.LittleEndian.AppendUint32(b, uint32(o.Partition))
			b = binary.LittleEndian.AppendUint32(b, uint32(o.LeaderEpoch))
			b = binary.LittleEndian.AppendUint64(b, uint64(o.Offset))
			b = binary.LittleEndian.AppendUint64(b, uint64(o.CommittedMS))
			b = binary.LittleEndian.AppendUint64(b, uint64(o.ExpiresMS))
			b = appendString(b, o.Metadata)
		}
	}
	return endGroupChange(b)
}

// GroupPartitions are partitions of one topic.
type GroupPartitions struct {
	Topic      string
	Partitions []int32
}

// ForgetOffsets is the change that removes offsets.
func ForgetOffsets(id string, topics []GroupPartitions) []byte {
	b := groupChange(groupForget, id, 256)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(topics)))
	for _, t := range topics {
		b = appendString(b, t.Topic)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(t.Partitions)))
		for _, p := range t.Partitions {
			b = binary.LittleEndian.AppendUint32(b, uint32(p))
		}
	}
	return endGroupChange(b)
}

// parsedGroupChange is one change, read and found sound.
type parsedGroupChange struct {
	kind   byte
	group  *Group // put, commit, consumer: what it says
	forget []GroupPartitions
	whole  bool     // consumer: members it does not name are none
	gone   []string // consumer: members that are no more
}

// parseGroupChanges reads all of a command before anything of it is applied.
func parseGroupChanges(body []byte) ([]parsedGroupChange, error) {
	var all []parsedGroupChange
	for len(body) > 0 {
		if len(body) < groupChangeHeaderBytes {
			return nil, malformed("a change of groups of %d bytes", len(body))
		}
		n := binary.LittleEndian.Uint32(body[1:])
		if uint64(n) > uint64(len(body)-groupChangeHeaderBytes) {
			return nil, malformed("a change of groups says it has %d bytes, of %d", n, len(body)-groupChangeHeaderBytes)
		}
		c, err := parseGroupChange(body[0], body[groupChangeHeaderBytes:groupChangeHeaderBytes+int(n)])
		if err != nil {
			return nil, err
		}
		all = append(all, c)
		body = body[groupChangeHeaderBytes+int(n):]
	}
	return all, nil
}

// Kinds of changes that later versions write: they are refused by name.
const (
	changeTransactionsFirst = 6 // put, add, offsets, end, done, drop
	changeTransactionsLast  = 11
	changeShare             = 12
	changeShareTopics       = 13
)

// newerChange is the error for a kind of change that is not served.
func newerChange(kind byte) error {
	switch {
	case kind >= changeTransactionsFirst && kind <= changeTransactionsLast:
		return format.Newer("transactions")
	case kind == changeShare || kind == changeShareTopics:
		return format.Newer("share groups")
	}
	return format.Newer(fmt.Sprintf("changes of groups of kind %d", kind))
}

func parseGroupChange(kind byte, body []byte) (parsedGroupChange, error) {
	r := reader{b: body}
	c := parsedGroupChange{kind: kind, group: &Group{ID: r.string()}}
	g := c.group
	switch kind {
	case groupPut:
		g.Generation = int32(r.uint32())
		g.ProtocolType, g.Protocol, g.Leader = r.string(), r.string(), r.string()
		g.ChangedMS = int64(r.uint64())
		for n := r.uint32(); n > 0 && !r.short; n-- {
			m := GroupMember{ID: r.string(), InstanceID: r.string(), ClientID: r.string(), ClientHost: r.string()}
			m.SessionTimeoutMS, m.RebalanceTimeoutMS = int32(r.uint32()), int32(r.uint32())
			m.Subscription, m.Assignment = r.bytes(), r.bytes()
			g.Members = append(g.Members, m)
		}
	case groupDrop:
	case groupCommit:
		for n := r.uint32(); n > 0 && !r.short; n-- {
			t := GroupTopic{Name: r.string()}
			for k := r.uint32(); k > 0 && !r.short; k-- {
				o := Offset{Partition: int32(r.uint32()), LeaderEpoch: int32(r.uint32()), Offset: int64(r.uint64())}
				o.CommittedMS, o.ExpiresMS = int64(r.uint64()), int64(r.uint64())
				o.Metadata = r.string()
				t.Offsets = append(t.Offsets, o)
			}
			g.Topics = append(g.Topics, t)
		}
	case groupForget:
		for n := r.uint32(); n > 0 && !r.short; n-- {
			t := GroupPartitions{Topic: r.string()}
			for k := r.uint32(); k > 0 && !r.short; k-- {
				t.Partitions = append(t.Partitions, int32(r.uint32()))
			}
			c.forget = append(c.forget, t)
		}
	case groupModern:
		c.parseConsumer(&r)
	default:
		return c, newerChange(kind)
	}
	if r.short || len(r.b) != 0 {
		return c, malformed("a change of group %q of %d bytes, kind %d", g.ID, len(body), kind)
	}
	return c, nil
}

// applyGroups takes the changes of one command. Either all are sound, or
// nothing is changed.
func (s *State) applyGroups(body []byte) error {
	all, err := parseGroupChanges(body)
	if err != nil {
		return err
	}
	for i := range all {
		s.applyGroup(&all[i])
	}
	return nil
}

func (s *State) applyGroup(c *parsedGroupChange) {
	at, known := s.groupAt(c.group.ID)
	switch c.kind {
	case groupPut:
		if known {
			old := s.groups[at]
			s.groupsBytes -= old.metaBytes
			c.group.Topics, c.group.offsetBytes = old.Topics, old.offsetBytes
			s.groups[at] = c.group
		} else {
			s.groups = slices.Insert(s.groups, at, c.group)
		}
		c.group.metaBytes = c.group.countMeta()
		s.groupsBytes += c.group.metaBytes
	case groupDrop:
		if known {
			s.groupsBytes -= s.groups[at].metaBytes + s.groups[at].offsetBytes
			s.groups = slices.Delete(s.groups, at, at+1)
		}
	case groupCommit:
		if !known {
			g := &Group{ID: c.group.ID}
			g.metaBytes = g.countMeta()
			s.groupsBytes += g.metaBytes
			s.groups = slices.Insert(s.groups, at, g)
		}
		g := s.groups[at]
		for i := range c.group.Topics {
			s.commit(g, &c.group.Topics[i])
		}
	case groupModern:
		g := c.group
		if !c.whole && (!known || s.groups[at].Consumer == nil || s.groups[at].Consumer.Serial+1 != g.Consumer.Serial) {
			return
		}
		if known {
			old := s.groups[at]
			s.groupsBytes -= old.metaBytes
			g.Topics, g.offsetBytes = old.Topics, old.offsetBytes
			if !c.whole {
				g.Consumer.inherit(old.Consumer, c.gone)
			}
			s.groups[at] = g
		} else {
			s.groups = slices.Insert(s.groups, at, g)
		}
		g.metaBytes = g.countMeta()
		s.groupsBytes += g.metaBytes
	case groupForget:
		if known {
			for _, t := range c.forget {
				s.forgetOffsets(s.groups[at], t.Topic, t.Partitions)
			}
		}
	}
}

// commit stores offsets of one topic.
func (s *State) commit(g *Group, t *GroupTopic) {
	topic, ok := s.Topic(t.Name)
	if !ok {
		return
	}
	for _, o := range t.Offsets {
		if o.Partition < 0 || int(o.Partition) >= len(topic.Partitions) {
			continue
		}
		at, ok := g.topicAt(topic.Name)
		if !ok {
			g.Topics = slices.Insert(g.Topics, at, GroupTopic{Name: topic.Name})
			s.count(g, TopicFixedBytes+len(topic.Name))
		}
		all := &g.Topics[at].Offsets
		i, ok := offsetAt(*all, o.Partition)
		if ok {
			s.count(g, len(o.Metadata)-len((*all)[i].Metadata))
			(*all)[i] = o
			continue
		}
		*all = slices.Insert(*all, i, o)
		s.count(g, offsetBytes+len(o.Metadata))
	}
}

// forgetOffsets removes offsets of one topic; nil partitions are all.
func (s *State) forgetOffsets(g *Group, topic string, partitions []int32) {
	at, ok := g.topicAt(topic)
	if !ok {
		return
	}
	all := &g.Topics[at].Offsets
	if partitions == nil {
		for _, o := range *all {
			s.count(g, -offsetBytes-len(o.Metadata))
		}
		*all = nil
	}
	for _, p := range partitions {
		if i, ok := offsetAt(*all, p); ok {
			s.count(g, -offsetBytes-len((*all)[i].Metadata))
			*all = slices.Delete(*all, i, i+1)
		}
	}
	if len(*all) == 0 {
		s.count(g, -TopicFixedBytes-len(topic))
		g.Topics = slices.Delete(g.Topics, at, at+1)
	}
}

// forgetTopic removes what all groups have committed of a topic.
func (s *State) forgetTopic(name string) {
	for _, g := range s.groups {
		s.forgetOffsets(g, name, nil)
	}
}

func (s *State) count(g *Group, n int) {
	g.offsetBytes += n
	s.groupsBytes += n
}

// countMeta is how much a group is counted to have without its offsets.
func (g *Group) countMeta() int {
	n := GroupFixedBytes + len(g.ID) + len(g.ProtocolType) + len(g.Protocol) + len(g.Leader)
	for i := range g.Members {
		m := &g.Members[i]
		n += MemberFixedBytes + len(m.ID) + len(m.InstanceID) + len(m.ClientID) + len(m.ClientHost) + len(m.Subscription) + len(m.Assignment)
	}
	if g.Consumer != nil {
		for i := range g.Consumer.Members {
			n += g.Consumer.Members[i].CountedBytes()
		}
	}
	return n
}

// snapshotGroups yields the groups as changes of at most about chunkMax bytes
// each, a put excepted.
func (s *State) snapshotGroups(chunkMax int, yield func([]byte)) {
	for _, g := range s.groups {
		if g.Consumer != nil {
			yield(PutConsumer(g.ID, g.ChangedMS, g.Consumer, true, nil))
		} else {
			yield(PutGroup(g))
		}
		var part []GroupTopic
		size := 0
		flush := func() {
			if len(part) > 0 {
				yield(CommitOffsets(g.ID, part))
			}
			part, size = nil, 0
		}
		for _, t := range g.Topics {
			from := 0
			size += TopicFixedBytes + len(t.Name)
			for i, o := range t.Offsets {
				size += offsetBytes + len(o.Metadata)
				if size >= chunkMax/2 {
					part = append(part, GroupTopic{t.Name, t.Offsets[from : i+1]})
					flush()
					from = i + 1
				}
			}
			if from < len(t.Offsets) {
				part = append(part, GroupTopic{t.Name, t.Offsets[from:]})
			}
		}
		flush()
	}
}

func appendBytes(b, v []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(v)))
	return append(b, v...)
}

// bytes is a copy: what was read is not kept.
func (r *reader) bytes() []byte {
	n := r.uint32()
	if uint64(n) > uint64(len(r.b)) {
		r.short = true
		return nil
	}
	return slices.Clone(r.take(int(n)))
}
