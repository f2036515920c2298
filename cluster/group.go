package cluster

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/tailbound/tailbound/engine/format"
)

// Group is the durable part of a consumer group: the last durable generation, and the
// offsets. What lookups return belongs to the State: callers do not modify it, and do
// not keep it after an Apply.
type Group struct {
	ID           string
	Generation   int32
	ProtocolType string        // "": the group never had members and only stores offsets
	Protocol     string        // by which partitions were assigned; "" without members
	Leader       string        // the leader's member id
	ChangedMS    int64         // wall time at which it entered its present state
	Members      []GroupMember // in the order in which they joined
	Topics       []GroupTopic  // sorted by name; each has offsets

	// Consumer is the state of a group of the consumer protocol (KIP-848), which has no
	// Protocol, Leader or Members. It is nil for a classic group.
	Consumer *ConsumerGroup

	metaBytes, offsetBytes int
}

// GroupIDBytesMax bounds the length of group ids, instance ids, and names of protocols
// and of protocol types. Kafka has no bound of its own; this is the one for topics.
const GroupIDBytesMax = TopicNameBytesMax

// GroupProtocol is an assignment protocol that a member supports, with the member's
// metadata for it.
type GroupProtocol struct {
	Name     string
	Metadata []byte
}

// GroupMember is one member of a Group, as of its last durable generation.
type GroupMember struct {
	ID                                   string
	InstanceID                           string // group.instance.id; "": a dynamic member
	ClientID, ClientHost                 string
	SessionTimeoutMS, RebalanceTimeoutMS int32
	Subscription                         []byte // the member's metadata for the group's protocol
	Assignment                           []byte
}

// GroupTopic is a group's committed offsets of one topic.
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
	ExpiresMS   int64 // wall time that the client asked for (OffsetCommit 2 to 4); -1: by the broker's retention
	Metadata    string
}

// What is counted for groups, members, topics and offsets besides their strings and
// bytes. Limits on groups are in these counted bytes, which are close to the bytes on
// disk and in memory.
const (
	GroupFixedBytes  = 64
	MemberFixedBytes = 64
	TopicFixedBytes  = 32
	offsetBytes      = 48
)

// Group returns the group of an id.
func (s *State) Group(id string) (*Group, bool) {
	i, ok := s.groupAt(id)
	if !ok {
		return nil, false
	}
	return s.groups[i], true
}

// Groups returns all groups, sorted by id. The slice belongs to the State and is valid
// until the next Apply.
func (s *State) Groups() []*Group { return s.groups }

// GroupBytes returns the counted bytes of all groups.
func (s *State) GroupBytes() int { return s.groupsBytes }

// Offset returns the group's committed offset of a partition.
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

// OffsetBytes returns the counted bytes of the group's offsets.
func (g *Group) OffsetBytes() int { return g.offsetBytes }

// MoreOffsetBytes returns by how much a commit of offsets would raise a group's
// OffsetBytes.
func (s *State) MoreOffsetBytes(group string, topics []GroupTopic) (n int) {
	stored, ok := s.Group(group)
	for _, topic := range topics {
		known := false
		if ok {
			_, known = stored.topicAt(topic.Name)
		}
		if !known {
			n += TopicFixedBytes + len(topic.Name)
		}
		for i := range topic.Offsets {
			n += len(topic.Offsets[i].Metadata)
			if known {
				if old, ok := stored.Offset(topic.Name, topic.Offsets[i].Partition); ok {
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
	return slices.BinarySearchFunc(s.groups, id, func(group *Group, id string) int { return cmp.Compare(group.ID, id) })
}

func (g *Group) topicAt(name string) (int, bool) {
	return slices.BinarySearchFunc(g.Topics, name, func(topic GroupTopic, n string) int { return cmp.Compare(topic.Name, n) })
}

func offsetAt(all []Offset, partition int32) (int, bool) {
	return slices.BinarySearchFunc(all, partition, func(offset Offset, p int32) int { return cmp.Compare(offset.Partition, p) })
}

func (g *Group) equal(other *Group) bool {
	return g.ID == other.ID && g.Generation == other.Generation && g.ProtocolType == other.ProtocolType && g.Protocol == other.Protocol &&
		g.Leader == other.Leader && g.ChangedMS == other.ChangedMS && g.Consumer.equal(other.Consumer) && g.metaBytes == other.metaBytes && g.offsetBytes == other.offsetBytes &&
		slices.EqualFunc(g.Members, other.Members, func(a, b GroupMember) bool {
			return a.ID == b.ID && a.InstanceID == b.InstanceID && a.ClientID == b.ClientID && a.ClientHost == b.ClientHost &&
				a.SessionTimeoutMS == b.SessionTimeoutMS && a.RebalanceTimeoutMS == b.RebalanceTimeoutMS &&
				bytes.Equal(a.Subscription, b.Subscription) && bytes.Equal(a.Assignment, b.Assignment)
		}) &&
		slices.EqualFunc(g.Topics, other.Topics, func(a, b GroupTopic) bool {
			return a.Name == b.Name && slices.Equal(a.Offsets, b.Offsets)
		})
}

// Kinds of changes of groups. A change is: kind u8, length u32 of what follows, group
// id, then
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
// A string is preceded by its length, u16. Put and consumer do not change the group's
// offsets; drop removes them. Commit creates the group if there is none, and ignores
// partitions that do not exist: a commit that was in flight when its topic was deleted
// has the same effect as one before the deletion.
const (
	groupPut    = 1
	groupDrop   = 2
	groupCommit = 3
	groupForget = 4
	groupModern = 5
)

const groupChangeHeaderBytes = 5

// GroupStringBytesMax bounds every string in a change: group ids, member ids, names of
// protocols, metadata of offsets.
const GroupStringBytesMax = 1<<16 - 1

// PlanGroups returns the command that makes changes of groups, all of them, in order.
// The functions of this file build the changes.
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

// PutGroup returns the change that replaces a group's metadata, or creates the group.
func PutGroup(group *Group) []byte {
	b := groupChange(groupPut, group.ID, 256)
	b = binary.LittleEndian.AppendUint32(b, uint32(group.Generation))
	b = appendString(b, group.ProtocolType)
	b = appendString(b, group.Protocol)
	b = appendString(b, group.Leader)
	b = binary.LittleEndian.AppendUint64(b, uint64(group.ChangedMS))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(group.Members)))
	for i := range group.Members {
		member := &group.Members[i]
		for _, s := range [...]string{member.ID, member.InstanceID, member.ClientID, member.ClientHost} {
			b = appendString(b, s)
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(member.SessionTimeoutMS))
		b = binary.LittleEndian.AppendUint32(b, uint32(member.RebalanceTimeoutMS))
		b = appendBytes(b, member.Subscription)
		b = appendBytes(b, member.Assignment)
	}
	return endGroupChange(b)
}

// DropGroup returns the change that removes a group and its offsets.
func DropGroup(id string) []byte { return endGroupChange(groupChange(groupDrop, id, 0)) }

// CommitOffsets returns the change that stores offsets, replacing older ones.
func CommitOffsets(id string, topics []GroupTopic) []byte {
	b := groupChange(groupCommit, id, 256)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(topics)))
	for _, topic := range topics {
		b = appendString(b, topic.Name)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(topic.Offsets)))
		for i := range topic.Offsets {
			offset := &topic.Offsets[i]
			b = binary.LittleEndian.AppendUint32(b, uint32(offset.Partition))
			b = binary.LittleEndian.AppendUint32(b, uint32(offset.LeaderEpoch))
			b = binary.LittleEndian.AppendUint64(b, uint64(offset.Offset))
			b = binary.LittleEndian.AppendUint64(b, uint64(offset.CommittedMS))
			b = binary.LittleEndian.AppendUint64(b, uint64(offset.ExpiresMS))
			b = appendString(b, offset.Metadata)
		}
	}
	return endGroupChange(b)
}

// GroupPartitions are partitions of one topic.
type GroupPartitions struct {
	Topic      string
	Partitions []int32
}

// ForgetOffsets returns the change that removes offsets.
func ForgetOffsets(id string, topics []GroupPartitions) []byte {
	b := groupChange(groupForget, id, 256)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(topics)))
	for _, topic := range topics {
		b = appendString(b, topic.Topic)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(topic.Partitions)))
		for _, p := range topic.Partitions {
			b = binary.LittleEndian.AppendUint32(b, uint32(p))
		}
	}
	return endGroupChange(b)
}

// OnlyRemoves reports that changes, which the functions of this file built, remove groups
// and offsets and do nothing else.
func OnlyRemoves(changes []byte) bool {
	for len(changes) > 0 {
		if changes[0] != groupDrop && changes[0] != groupForget {
			return false
		}
		changes = changes[groupChangeHeaderBytes+int(binary.LittleEndian.Uint32(changes[1:])):]
	}
	return true
}

// parsedGroupChange is one valid change.
type parsedGroupChange struct {
	kind   byte
	group  *Group // put, commit, consumer: the group with the fields of the change
	forget []GroupPartitions
	whole  bool     // consumer: the change has all members
	gone   []string // consumer: ids of members that left
}

// parseGroupChanges parses all changes of a command, before any is applied.
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
		change, err := parseGroupChange(body[0], body[groupChangeHeaderBytes:groupChangeHeaderBytes+int(n)])
		if err != nil {
			return nil, err
		}
		all = append(all, change)
		body = body[groupChangeHeaderBytes+int(n):]
	}
	return all, nil
}

// Kinds of changes that later versions write. They are refused by name.
const (
	changeTransactionsFirst = 6 // put, add, offsets, end, done, drop
	changeTransactionsLast  = 11
	changeShare             = 12
	changeShareTopics       = 13
)

// newerChange returns the error for a kind of change that is not served.
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
	change := parsedGroupChange{kind: kind, group: &Group{ID: r.string()}}
	group := change.group
	switch kind {
	case groupPut:
		group.Generation = int32(r.uint32())
		group.ProtocolType, group.Protocol, group.Leader = r.string(), r.string(), r.string()
		group.ChangedMS = int64(r.uint64())
		for n := r.uint32(); n > 0 && !r.short; n-- {
			member := GroupMember{ID: r.string(), InstanceID: r.string(), ClientID: r.string(), ClientHost: r.string()}
			member.SessionTimeoutMS, member.RebalanceTimeoutMS = int32(r.uint32()), int32(r.uint32())
			member.Subscription, member.Assignment = r.bytes(), r.bytes()
			group.Members = append(group.Members, member)
		}
	case groupDrop:
	case groupCommit:
		for n := r.uint32(); n > 0 && !r.short; n-- {
			topic := GroupTopic{Name: r.string()}
			for k := r.uint32(); k > 0 && !r.short; k-- {
				offset := Offset{Partition: int32(r.uint32()), LeaderEpoch: int32(r.uint32()), Offset: int64(r.uint64())}
				offset.CommittedMS, offset.ExpiresMS = int64(r.uint64()), int64(r.uint64())
				offset.Metadata = r.string()
				topic.Offsets = append(topic.Offsets, offset)
			}
			group.Topics = append(group.Topics, topic)
		}
	case groupForget:
		for n := r.uint32(); n > 0 && !r.short; n-- {
			topic := GroupPartitions{Topic: r.string()}
			for k := r.uint32(); k > 0 && !r.short; k-- {
				topic.Partitions = append(topic.Partitions, int32(r.uint32()))
			}
			change.forget = append(change.forget, topic)
		}
	case groupModern:
		change.parseConsumer(&r)
	default:
		return change, newerChange(kind)
	}
	if r.short || len(r.b) != 0 {
		return change, malformed("a change of group %q of %d bytes, kind %d", group.ID, len(body), kind)
	}
	return change, nil
}

// applyGroups applies the changes of one command if all are valid. Otherwise it
// changes nothing.
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

func (s *State) applyGroup(change *parsedGroupChange) {
	at, known := s.groupAt(change.group.ID)
	switch change.kind {
	case groupPut:
		if known {
			old := s.groups[at]
			s.groupsBytes -= old.metaBytes
			change.group.Topics, change.group.offsetBytes = old.Topics, old.offsetBytes
			s.groups[at] = change.group
		} else {
			s.groups = slices.Insert(s.groups, at, change.group)
		}
		change.group.metaBytes = change.group.countMeta()
		s.groupsBytes += change.group.metaBytes
	case groupDrop:
		if known {
			s.groupsBytes -= s.groups[at].metaBytes + s.groups[at].offsetBytes
			s.groups = slices.Delete(s.groups, at, at+1)
		}
	case groupCommit:
		if !known {
			group := &Group{ID: change.group.ID}
			group.metaBytes = group.countMeta()
			s.groupsBytes += group.metaBytes
			s.groups = slices.Insert(s.groups, at, group)
		}
		group := s.groups[at]
		for i := range change.group.Topics {
			s.commit(group, &change.group.Topics[i])
		}
	case groupModern:
		group := change.group
		if !change.whole && (!known || s.groups[at].Consumer == nil || s.groups[at].Consumer.Serial+1 != group.Consumer.Serial) {
			return
		}
		if known {
			old := s.groups[at]
			s.groupsBytes -= old.metaBytes
			group.Topics, group.offsetBytes = old.Topics, old.offsetBytes
			if !change.whole {
				group.Consumer.inherit(old.Consumer, change.gone)
			}
			s.groups[at] = group
		} else {
			s.groups = slices.Insert(s.groups, at, group)
		}
		group.metaBytes = group.countMeta()
		s.groupsBytes += group.metaBytes
	case groupForget:
		if known {
			for _, topic := range change.forget {
				s.forgetOffsets(s.groups[at], topic.Topic, topic.Partitions)
			}
		}
	}
}

// commit stores the committed offsets of one topic.
func (s *State) commit(group *Group, committed *GroupTopic) {
	topic, ok := s.Topic(committed.Name)
	if !ok {
		return
	}
	for _, offset := range committed.Offsets {
		if offset.Partition < 0 || int(offset.Partition) >= len(topic.Partitions) {
			continue
		}
		at, ok := group.topicAt(topic.Name)
		if !ok {
			group.Topics = slices.Insert(group.Topics, at, GroupTopic{Name: topic.Name})
			s.count(group, TopicFixedBytes+len(topic.Name))
		}
		all := &group.Topics[at].Offsets
		i, ok := offsetAt(*all, offset.Partition)
		if ok {
			s.count(group, len(offset.Metadata)-len((*all)[i].Metadata))
			(*all)[i] = offset
			continue
		}
		*all = slices.Insert(*all, i, offset)
		s.count(group, offsetBytes+len(offset.Metadata))
	}
}

// forgetOffsets removes a group's offsets of partitions of one topic; nil: of all of
// them.
func (s *State) forgetOffsets(group *Group, topic string, partitions []int32) {
	at, ok := group.topicAt(topic)
	if !ok {
		return
	}
	all := &group.Topics[at].Offsets
	if partitions == nil {
		for _, offset := range *all {
			s.count(group, -offsetBytes-len(offset.Metadata))
		}
		*all = nil
	}
	for _, p := range partitions {
		if i, ok := offsetAt(*all, p); ok {
			s.count(group, -offsetBytes-len((*all)[i].Metadata))
			*all = slices.Delete(*all, i, i+1)
		}
	}
	if len(*all) == 0 {
		s.count(group, -TopicFixedBytes-len(topic))
		group.Topics = slices.Delete(group.Topics, at, at+1)
	}
}

// forgetTopic removes all groups' offsets of a topic.
func (s *State) forgetTopic(name string) {
	for _, group := range s.groups {
		s.forgetOffsets(group, name, nil)
	}
}

func (s *State) count(group *Group, n int) {
	group.offsetBytes += n
	s.groupsBytes += n
}

// countMeta returns the counted bytes of a group without its offsets.
func (g *Group) countMeta() int {
	n := GroupFixedBytes + len(g.ID) + len(g.ProtocolType) + len(g.Protocol) + len(g.Leader)
	for i := range g.Members {
		member := &g.Members[i]
		n += MemberFixedBytes + len(member.ID) + len(member.InstanceID) + len(member.ClientID) + len(member.ClientHost) + len(member.Subscription) + len(member.Assignment)
	}
	if g.Consumer != nil {
		for i := range g.Consumer.Members {
			n += g.Consumer.Members[i].CountedBytes()
		}
	}
	return n
}

// snapshotGroups yields the groups as changes of about chunkMax bytes at most, except
// that put and consumer have all members.
func (s *State) snapshotGroups(chunkMax int, yield func([]byte)) {
	for _, group := range s.groups {
		if group.Consumer != nil {
			yield(PutConsumer(group.ID, group.ChangedMS, group.Consumer, true, nil))
		} else {
			yield(PutGroup(group))
		}
		var part []GroupTopic
		size := 0
		flush := func() {
			if len(part) > 0 {
				yield(CommitOffsets(group.ID, part))
			}
			part, size = nil, 0
		}
		for _, topic := range group.Topics {
			from := 0
			size += TopicFixedBytes + len(topic.Name)
			for i, offset := range topic.Offsets {
				size += offsetBytes + len(offset.Metadata)
				if size >= chunkMax/2 {
					part = append(part, GroupTopic{topic.Name, topic.Offsets[from : i+1]})
					flush()
					from = i + 1
				}
			}
			if from < len(topic.Offsets) {
				part = append(part, GroupTopic{topic.Name, topic.Offsets[from:]})
			}
		}
		flush()
	}
}

func appendBytes(b, v []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(v)))
	return append(b, v...)
}

// bytes reads bytes with a u32 length, and returns a copy.
func (r *reader) bytes() []byte {
	n := r.uint32()
	if uint64(n) > uint64(len(r.b)) {
		r.short = true
		return nil
	}
	return slices.Clone(r.take(int(n)))
}
