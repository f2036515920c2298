package cluster

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
)

// ConsumerGroup is what is durable of a group of the consumer protocol
// (KIP-848): each member's subscription, what it is to have, and how far it is
// with it.
type ConsumerGroup struct {
	Epoch           int32 // rises with every change of members, subscriptions and topics
	AssignmentEpoch int32 // the Epoch whose assignment the members' Target is
	TopicsHash      uint64
	Serial          uint32           // of the last change, so that one that follows a missing one shows
	Members         []ConsumerMember // sorted by id
}

// consumerProtocol is the protocol type of such groups.
const ConsumerProtocol = "consumer"

// MemberState is how far a member is with its assignment.
type MemberState uint8

// The states, as org.apache.kafka.coordinator.group.modern.MemberState.
const (
	MemberStable     MemberState = iota
	MemberUnrevoked              // it has partitions to give up
	MemberUnreleased             // others have partitions that it is to get
)

// ConsumerMember is one member of a ConsumerGroup. Its slices are replaced,
// never written: copies of a member share them.
type ConsumerMember struct {
	ID                   string
	InstanceID           string // "": a dynamic member
	RackID               string
	ClientID, ClientHost string
	RebalanceTimeoutMS   int32
	Topics               []string // subscribed names, sorted, each once
	Regex                string   // subscribed too: names that match it wholly; "": none
	Assignor             string   // the one it asks for; "": none
	Epoch, PreviousEpoch int32    // Epoch is EpochAway for a static member that will be back
	State                MemberState
	Assigned             []TopicPartitions // what it may use
	Revoking             []TopicPartitions // what it has to give up, and may still use
	Target               []TopicPartitions // what it shall have
	Classic              *ClassicMember    // it speaks the classic protocol; nil: the consumer protocol
}

// ClassicMember is what is known of a member that speaks the classic protocol in
// a group of the consumer protocol. It is replaced, never written.
type ClassicMember struct {
	SessionTimeoutMS int32
	Protocols        []GroupProtocol // in its order of preference; never empty
}

func (c *ClassicMember) equal(o *ClassicMember) bool {
	if c == nil || o == nil {
		return c == o
	}
	return c.SessionTimeoutMS == o.SessionTimeoutMS && slices.EqualFunc(c.Protocols, o.Protocols, func(a, b GroupProtocol) bool {
		return a.Name == b.Name && bytes.Equal(a.Metadata, b.Metadata)
	})
}

// Member epochs with a meaning of their own, in requests and for members.
// Source: org.apache.kafka.common.requests.ConsumerGroupHeartbeatRequest.
const (
	EpochJoin  int32 = 0
	EpochLeave int32 = -1
	EpochAway  int32 = -2 // a static member goes, and will come back
)

// TopicPartitions are partitions of one topic, sorted. Lists of them are sorted
// by topic id, and have no topic without partitions.
type TopicPartitions struct {
	Topic      [16]byte
	Partitions []int32
}

func (c *ConsumerGroup) equal(o *ConsumerGroup) bool {
	if c == nil || o == nil {
		return c == o
	}
	return c.Epoch == o.Epoch && c.AssignmentEpoch == o.AssignmentEpoch && c.TopicsHash == o.TopicsHash && c.Serial == o.Serial &&
		slices.EqualFunc(c.Members, o.Members, func(a, b ConsumerMember) bool { return a.Equal(&b) })
}

// Equal says whether two members are the same in all that is stored of them.
func (m *ConsumerMember) Equal(o *ConsumerMember) bool {
	return m.ID == o.ID && m.InstanceID == o.InstanceID && m.RackID == o.RackID && m.ClientID == o.ClientID && m.ClientHost == o.ClientHost &&
		m.RebalanceTimeoutMS == o.RebalanceTimeoutMS && slices.Equal(m.Topics, o.Topics) && m.Regex == o.Regex && m.Assignor == o.Assignor &&
		m.Epoch == o.Epoch && m.PreviousEpoch == o.PreviousEpoch && m.State == o.State &&
		SamePartitions(m.Assigned, o.Assigned) && SamePartitions(m.Revoking, o.Revoking) && SamePartitions(m.Target, o.Target) && m.Classic.equal(o.Classic)
}

// SamePartitions says whether two lists have the same partitions.
func SamePartitions(a, b []TopicPartitions) bool {
	return slices.EqualFunc(a, b, func(a, b TopicPartitions) bool {
		return a.Topic == b.Topic && slices.Equal(a.Partitions, b.Partitions)
	})
}

// What a member is counted to have, beside its strings. It is no less than what
// is stored of it.
const (
	consumerMemberBytes = 160
	assignedTopicBytes  = 24
)

// CountedBytes is how many bytes the member is counted to have.
func (m *ConsumerMember) CountedBytes() int {
	n := consumerMemberBytes + len(m.ID) + len(m.InstanceID) + len(m.RackID) + len(m.ClientID) + len(m.ClientHost) + len(m.Regex) + len(m.Assignor)
	for _, t := range m.Topics {
		n += 16 + len(t)
	}
	if m.Classic != nil {
		for _, p := range m.Classic.Protocols {
			n += TopicFixedBytes + len(p.Name) + len(p.Metadata)
		}
	}
	return n + PartitionsBytes(m.Assigned) + PartitionsBytes(m.Revoking) + PartitionsBytes(m.Target)
}

// PartitionsBytes is the part of a member's CountedBytes that a list of
// partitions makes up.
func PartitionsBytes(all []TopicPartitions) (n int) {
	for _, t := range all {
		n += assignedTopicBytes + 4*len(t.Partitions)
	}
	return n
}

// inherit takes over the members that a change does not speak of.
func (c *ConsumerGroup) inherit(old *ConsumerGroup, gone []string) {
	for i := range old.Members {
		m := &old.Members[i]
		if at, ok := c.memberAt(m.ID); !ok && !slices.Contains(gone, m.ID) {
			c.Members = slices.Insert(c.Members, at, *m)
		}
	}
}

func (c *ConsumerGroup) memberAt(id string) (int, bool) {
	return slices.BinarySearchFunc(c.Members, id, func(m ConsumerMember, id string) int { return cmp.Compare(m.ID, id) })
}

// PutConsumer is the change that makes a group one of the consumer protocol,
// with c's epochs and these members: all of them, where it is whole, or those
// that changed. Then it is as if it had not come where the change before it, by
// their serial numbers, did not. It is:
//
//	flags u8 (1: whole), serial u32, epoch i32, assignment epoch i32, hash of topics u64, changed i64,
//	members u32, each id, instance id, rack id, client id, client host, rebalance timeout i32,
//	    topics u32, each name; regex, assignor, epoch i32, previous epoch i32, state u8,
//	    assigned, revoking and target, each topics u32, each id 16 bytes, partitions u32, each i32
//	    classic protocols u32, each name, metadata with u32 length; session timeout i32 where there are some
//	members that are gone u32, each id
func PutConsumer(id string, changedMS int64, c *ConsumerGroup, whole bool, gone []string) []byte {
	b := groupChange(groupModern, id, 256)
	flags := byte(0)
	if whole {
		flags = 1
	}
	b = append(b, flags)
	b = binary.LittleEndian.AppendUint32(b, c.Serial)
	b = binary.LittleEndian.AppendUint32(b, uint32(c.Epoch))
	b = binary.LittleEndian.AppendUint32(b, uint32(c.AssignmentEpoch))
	b = binary.LittleEndian.AppendUint64(b, c.TopicsHash)
	b = binary.LittleEndian.AppendUint64(b, uint64(changedMS))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(c.Members)))
	for i := range c.Members {
		m := &c.Members[i]
		for _, s := range [...]string{m.ID, m.InstanceID, m.RackID, m.ClientID, m.ClientHost} {
			b = appendString(b, s)
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(m.RebalanceTimeoutMS))
		b = appendStrings(b, m.Topics)
		b = appendString(b, m.Regex)
		b = appendString(b, m.Assignor)
		b = binary.LittleEndian.AppendUint32(b, uint32(m.Epoch))
		b = binary.LittleEndian.AppendUint32(b, uint32(m.PreviousEpoch))
		b = append(b, byte(m.State))
		b = appendPartitions(b, m.Assigned)
		b = appendPartitions(b, m.Revoking)
		b = appendPartitions(b, m.Target)
		b = appendClassic(b, m.Classic)
	}
	return endGroupChange(appendStrings(b, gone))
}

func appendClassic(b []byte, c *ClassicMember) []byte {
	if c == nil {
		return binary.LittleEndian.AppendUint32(b, 0)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(c.Protocols)))
	for _, p := range c.Protocols {
		b = appendBytes(appendString(b, p.Name), p.Metadata)
	}
	return binary.LittleEndian.AppendUint32(b, uint32(c.SessionTimeoutMS))
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
	for _, t := range all {
		b = append(b, t.Topic[:]...)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(t.Partitions)))
		for _, p := range t.Partitions {
			b = binary.LittleEndian.AppendUint32(b, uint32(p))
		}
	}
	return b
}

func (c *parsedGroupChange) parseConsumer(r *reader) {
	c.whole = r.byte() == 1
	g := &ConsumerGroup{Serial: r.uint32(), Epoch: int32(r.uint32()), AssignmentEpoch: int32(r.uint32()), TopicsHash: r.uint64()}
	c.group.Consumer, c.group.ProtocolType, c.group.ChangedMS = g, ConsumerProtocol, int64(r.uint64())
	for n := r.uint32(); n > 0 && !r.short; n-- {
		m := ConsumerMember{ID: r.string(), InstanceID: r.string(), RackID: r.string(), ClientID: r.string(), ClientHost: r.string(), RebalanceTimeoutMS: int32(r.uint32())}
		m.Topics = r.strings()
		m.Regex, m.Assignor = r.string(), r.string()
		m.Epoch, m.PreviousEpoch, m.State = int32(r.uint32()), int32(r.uint32()), MemberState(r.byte())
		m.Assigned, m.Revoking, m.Target, m.Classic = r.partitions(), r.partitions(), r.partitions(), r.classic()
		if at, ok := g.memberAt(m.ID); ok || m.State > MemberUnreleased {
			r.short = true // our own bytes are sorted and whole
		} else {
			g.Members = slices.Insert(g.Members, at, m)
		}
	}
	c.gone = r.strings()
}

func (r *reader) classic() *ClassicMember {
	var c ClassicMember
	for n := r.uint32(); n > 0 && !r.short; n-- {
		c.Protocols = append(c.Protocols, GroupProtocol{r.string(), r.bytes()})
	}
	if c.Protocols == nil {
		return nil
	}
	c.SessionTimeoutMS = int32(r.uint32())
	return &c
}

func (r *reader) strings() (out []string) {
	for n := r.uint32(); n > 0 && !r.short; n-- {
		out = append(out, r.string())
	}
	return out
}

func (r *reader) partitions() (out []TopicPartitions) {
	for n := r.uint32(); n > 0 && !r.short; n-- {
		var t TopicPartitions
		copy(t.Topic[:], r.take(16))
		for k := r.uint32(); k > 0 && !r.short; k-- {
			t.Partitions = append(t.Partitions, int32(r.uint32()))
		}
		out = append(out, t)
	}
	return out
}
