package groups

import (
	"slices"

	"github.com/tailbound/tailbound/kafka"
)

// Bounds of all groups together. A request that exceeds one is refused with
// COORDINATOR_NOT_AVAILABLE, on which clients try again: it is not the client's fault, and
// passes. A bound of one group is GROUP_MAX_SIZE_REACHED or INVALID_COMMIT_OFFSET_SIZE, on
// which they give up.

// Bound is a bound of all groups together.
type Bound uint8

// The bounds, by the Options that they are.
const (
	GroupsBound Bound = iota
	MembersBound
	ConsumersBound
	BytesBound
)

// Refusals says how many requests were refused because a bound of all groups was
// reached, and which was the last.
type Refusals struct {
	Count    uint64
	Bound    Bound
	Max      int
	Group    string
	ClientID string // "": it is not known
}

const (
	// An empty group with a member that was given an id and has not joined with it yet
	// makes room for another group after this time.
	pendingKeptMS = 10_000
	// Where no group could make room it is not looked for again so soon.
	roomAgainMS = 1000
)

// Refusals returns what was refused so far.
func (c *Coordinator) Refusals() *Refusals { return &c.refusals }

// refused counts a refusal, and returns its code.
func (c *Coordinator) refused(bound Bound, group, clientID string) kafka.ErrorCode {
	most := [...]int{c.options.GroupsMax, c.options.MembersMax, c.options.ConsumersMax, c.options.BytesMax}[bound]
	c.refusals = Refusals{c.refusals.Count + 1, bound, most, group, clientID}
	return kafka.CoordinatorNotAvailable
}

// Usage is how much of the bounds is used.
func (c *Coordinator) Usage(bound Bound) (used, most int) {
	switch bound {
	case GroupsBound:
		return len(c.groups), c.options.GroupsMax
	case MembersBound:
		return c.members, c.options.MembersMax
	case ConsumersBound:
		return c.consumers, c.options.ConsumersMax
	}
	return c.bytes + c.state.GroupBytes(), c.options.BytesMax
}

// hasBytes says whether all groups together may have so many bytes more.
func (c *Coordinator) hasBytes(more int) bool {
	return c.bytes+c.state.GroupBytes()+more <= c.options.BytesMax
}

// hasRoomForGroup says whether there may be one group more. Where there are as many as
// may be, those make room that hold nothing: they are empty, and have no offsets, or none
// that have not expired.
func (c *Coordinator) hasRoomForGroup() bool {
	if len(c.groups) < c.options.GroupsMax {
		return true
	}
	if c.at.NowMS < c.roomAt || c.options.Faults.EmptyGroupsStay {
		return false
	}
	for _, group := range slices.Clone(c.groups) {
		if group.state == Empty && len(group.pending) > 0 && c.at.WallMS-group.changedMS >= pendingKeptMS {
			c.dropAllPending(group)
			c.unlistUnused(group)
			c.schedule(group)
		}
	}
	c.Expire(c.at)
	if len(c.groups) < c.options.GroupsMax {
		return true
	}
	c.roomAt = c.at.NowMS + roomAgainMS
	return false
}

// What groups take of the heap: GroupHeapBytes each, and CountedHeapBytes for each byte
// that BytesMax counts. TestBytesOfGroups measures both.
const (
	GroupHeapBytes   = 1024
	CountedHeapBytes = 3
)
