package cluster

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
)

// ConsumerGroup is the durable part of a group of the consumer protocol (KIP-848): each
// member's subscription, its target assignment, and how far it has got with it.
type ConsumerGroup struct {
	Epoch           int32 // rises with every change of members, subscriptions or topics
	AssignmentEpoch int32 // the Epoch for which the members' Target was computed
	TopicsHash      uint64
	Serial          uint32           // of the last change, so that a missing change is noticed
	Members         []ConsumerMember // sorted by id
}

// ConsumerProtocol is the protocol type of these groups.
const ConsumerProtocol = "consumer"

// MemberState is how far a member has got with its target assignment.
type MemberState uint8

// The states, as org.apache.kafka.coordinator.group.modern.MemberState.
const (
	MemberStable     MemberState = iota
	MemberUnrevoked              // the member has partitions to release
	MemberUnreleased             // other members still have partitions of its target
)

// ConsumerMember is one member of a ConsumerGroup. Its slices are replaced and never
// modified, because copies of a member share them.
type ConsumerMember struct {
	ID                   string
	InstanceID           string // "": a dynamic member
	RackID               string
	ClientID, ClientHost string
	RebalanceTimeoutMS   int32
	Topics               []string // subscribed names, sorted, each once
	Regex                string   // names that match it as a whole are subscribed too; "": none
	Assignor             string   // the assignor that the member asks for; "": none
	Epoch, PreviousEpoch int32    // Epoch is EpochAway for a static member that left to come back
	State                MemberState
	Assigned             []TopicPartitions // partitions that the member may use
	Revoking             []TopicPartitions // partitions that it has to release, and uses until then
	Target               []TopicPartitions // partitions that it is to get
	Classic              *ClassicMember    // of a member that uses the classic protocol; nil: the consumer protocol
}

// ClassicMember is the additional state of a member that uses the classic protocol in
// a group of the consumer protocol. It is replaced and never modified.
type ClassicMember struct {
	SessionTimeoutMS int32
	Protocols        []GroupProtocol // in the member's order of preference; not empty
}

func (c *ClassicMember) equal(other *ClassicMember) bool {
	if c == nil || other == nil {
		return c == other
	}
	return c.SessionTimeoutMS == other.SessionTimeoutMS && slices.EqualFunc(c.Protocols, other.Protocols, func(a, b GroupProtocol) bool {
		return a.Name == b.Name && bytes.Equal(a.Metadata, b.Metadata)
	})
}

// Special member epochs, in requests and of members.
// Source: org.apache.kafka.common.requests.ConsumerGroupHeartbeatRequest.
const (
	EpochJoin  int32 = 0
	EpochLeave int32 = -1
	EpochAway  int32 = -2 // a static member leaves to come back
)

// TopicPartitions are partitions of one topic, sorted and not empty. Lists of them are
// sorted by topic id.
type TopicPartitions struct {
	Topic      [16]byte
	Partitions []int32
}

func (c *ConsumerGroup) equal(other *ConsumerGroup) bool {
	if c == nil || other == nil {
		return c == other
	}
	return c.Epoch == other.Epoch && c.AssignmentEpoch == other.AssignmentEpoch && c.TopicsHash == other.TopicsHash && c.Serial == other.Serial &&
		slices.EqualFunc(c.Members, other.Members, func(a, b ConsumerMember) bool { return a.Equal(&b) })
}

// Equal says whether all stored fields of two members are equal.
func (m *ConsumerMember) Equal(other *ConsumerMember) bool {
	return m.ID == other.ID && m.InstanceID == other.InstanceID && m.RackID == other.RackID && m.ClientID == other.ClientID && m.ClientHost == other.ClientHost &&
		m.RebalanceTimeoutMS == other.RebalanceTimeoutMS && slices.Equal(m.Topics, other.Topics) && m.Regex == other.Regex && m.Assignor == other.Assignor &&
		m.Epoch == other.Epoch && m.PreviousEpoch == other.PreviousEpoch && m.State == other.State &&
		SamePartitions(m.Assigned, other.Assigned) && SamePartitions(m.Revoking, other.Revoking) && SamePartitions(m.Target, other.Target) && m.Classic.equal(other.Classic)
}

// SamePartitions says whether two lists have the same partitions.
func SamePartitions(a, b []TopicPartitions) bool {
	return slices.EqualFunc(a, b, func(a, b TopicPartitions) bool {
		return a.Topic == b.Topic && slices.Equal(a.Partitions, b.Partitions)
	})
}

// What is counted for a member besides its strings. A member's counted bytes are not
// less than its stored bytes.
const (
	consumerMemberBytes = 160
	assignedTopicBytes  = 24
)

// CountedBytes returns the member's counted bytes.
func (m *ConsumerMember) CountedBytes() int {
	n := consumerMemberBytes + len(m.ID) + len(m.InstanceID) + len(m.RackID) + len(m.ClientID) + len(m.ClientHost) + len(m.Regex) + len(m.Assignor)
	for _, t := range m.Topics {
		n += 16 + len(t)
	}
	if m.Classic != nil {
		for _, protocol := range m.Classic.Protocols {
			n += TopicFixedBytes + len(protocol.Name) + len(protocol.Metadata)
		}
	}
	return n + PartitionsBytes(m.Assigned) + PartitionsBytes(m.Revoking) + PartitionsBytes(m.Target)
}

// PartitionsBytes returns a list's part of a member's CountedBytes.
func PartitionsBytes(all []TopicPartitions) (n int) {
	for _, topic := range all {
		n += assignedTopicBytes + 4*len(topic.Partitions)
	}
	return n
}

// inherit adds the old members that a change neither has nor removes.
func (c *ConsumerGroup) inherit(old *ConsumerGroup, gone []string) {
	for i := range old.Members {
		member := &old.Members[i]
		if at, ok := c.memberAt(member.ID); !ok && !slices.Contains(gone, member.ID) {
			c.Members = slices.Insert(c.Members, at, *member)
		}
	}
}

func (c *ConsumerGroup) memberAt(id string) (int, bool) {
	return slices.BinarySearchFunc(c.Members, id, func(member ConsumerMember, id string) int { return cmp.Compare(member.ID, id) })
}

// PutConsumer returns the change that gives a group of the consumer protocol these
// epochs and members. With whole, members are all of the group's, and the group is
// created or changes to this protocol; otherwise they are the changed ones, gone has
// the ids of those that left, and the change has no effect unless it follows the
// group's last one by its serial number. Layout:
//
//	flags u8 (1: whole), serial u32, epoch i32, assignment epoch i32, hash of topics u64, changed i64,
//	members u32, each id, instance id, rack id, client id, client host, rebalance timeout i32,
//	    topics u32, each name; regex, assignor, epoch i32, previous epoch i32, state u8,
//	    assigned, revoking and target, each topics u32, each id 16 bytes, partitions u32, each i32
//	    classic protocols u32, each name, metadata with u32 length; session timeout i32 if there are any
//	members that are gone u32, each id
func PutConsumer(id string, changedMS int64, group *ConsumerGroup, whole bool, gone []string) []byte {
	b := groupChange(groupModern, id, 256)
	flags := byte(0)
	if whole {
		flags = 1
	}
	b = append(b, flags)
	b = binary.LittleEndian.AppendUint32(b, group.Serial)
	b = binary.LittleEndian.AppendUint32(b, uint32(group.Epoch))
	b = binary.LittleEndian.AppendUint32(b, uint32(group.AssignmentEpoch))
	b = binary.LittleEndian.AppendUint64(b, group.TopicsHash)
	b = binary.LittleEndian.AppendUint64(b, uint64(changedMS))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(group.Members)))
	for i := range group.Members {
		member := &group.Members[i]
		for _, s := range [...]string{member.ID, member.InstanceID, member.RackID, member.ClientID, member.ClientHost} {
			b = appendString(b, s)
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(member.RebalanceTimeoutMS))
		b = appendStrings(b, member.Topics)
		b = appendString(b, member.Regex)
		b = appendString(b, member.Assignor)
		b = binary.LittleEndian.AppendUint32(b, uint32(member.Epoch))
		b = binary.LittleEndian.AppendUint32(b, uint32(member.PreviousEpoch))
		b = append(b, byte(member.State))
		b = appendPartitions(b, member.Assigned)
		b = appendPartitions(b, member.Revoking)
		b = appendPartitions(b, member.Target)
		b = appendClassic(b, member.Classic)
	}
	return endGroupChange(appendStrings(b, gone))
}

func appendClassic(b []byte, classic *ClassicMember) []byte {
	if classic == nil {
		return binary.LittleEndian.AppendUint32(b, 0)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(classic.Protocols)))
	for _, protocol := range classic.Protocols {
		b = appendBytes(appendString(b, protocol.Name), protocol.Metadata)
	}
	return binary.LittleEndian.AppendUint32(b, uint32(classic.SessionTimeoutMS))
}

func appendStrings(b []byte, all []string) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(all)))
	for _, s := range all {
		b = appendString(b, s)
	}
	return b
}

func appendPartitions(b []byte, all []TopicPartitions) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(all)))
	for _, topic := range all {
		b = append(b, topic.Topic[:]...)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(topic.Partitions)))
		for _, p := range topic.Partitions {
			b = binary.LittleEndian.AppendUint32(b, uint32(p))
		}
	}
	return b
}

func (c *parsedGroupChange) parseConsumer(r *reader) {
	c.whole = r.byte() == 1
	group := &ConsumerGroup{Serial: r.uint32(), Epoch: int32(r.uint32()), AssignmentEpoch: int32(r.uint32()), TopicsHash: r.uint64()}
	c.group.Consumer, c.group.ProtocolType, c.group.ChangedMS = group, ConsumerProtocol, int64(r.uint64())
	for n := r.uint32(); n > 0 && !r.short; n-- {
		member := ConsumerMember{ID: r.string(), InstanceID: r.string(), RackID: r.string(), ClientID: r.string(), ClientHost: r.string(), RebalanceTimeoutMS: int32(r.uint32())}
		member.Topics = r.strings()
		member.Regex, member.Assignor = r.string(), r.string()
		member.Epoch, member.PreviousEpoch, member.State = int32(r.uint32()), int32(r.uint32()), MemberState(r.byte())
		member.Assigned, member.Revoking, member.Target, member.Classic = r.partitions(), r.partitions(), r.partitions(), r.classic()
		if at, ok := group.memberAt(member.ID); ok || member.State > MemberUnreleased {
			r.short = true // PutConsumer writes no such member
		} else {
			group.Members = slices.Insert(group.Members, at, member)
		}
	}
	c.gone = r.strings()
}

func (r *reader) classic() *ClassicMember {
	var classic ClassicMember
	for n := r.uint32(); n > 0 && !r.short; n-- {
		classic.Protocols = append(classic.Protocols, GroupProtocol{r.string(), r.bytes()})
	}
	if classic.Protocols == nil {
		return nil
	}
	classic.SessionTimeoutMS = int32(r.uint32())
	return &classic
}

func (r *reader) strings() (out []string) {
	for n := r.uint32(); n > 0 && !r.short; n-- {
		out = append(out, r.string())
	}
	return out
}

func (r *reader) partitions() (out []TopicPartitions) {
	for n := r.uint32(); n > 0 && !r.short; n-- {
		var topic TopicPartitions
		copy(topic.Topic[:], r.take(16))
		for k := r.uint32(); k > 0 && !r.short; k-- {
			topic.Partitions = append(topic.Partitions, int32(r.uint32()))
		}
		out = append(out, topic)
	}
	return out
}
