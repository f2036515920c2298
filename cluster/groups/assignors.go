package groups

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/tailbound/tailbound/cluster"
)

// This file assigns partitions to the members of a group of the consumer
// protocol, by Kafka's two assignors. Same input, same output: nothing depends
// on the order of a map or on chance.

// The assignors, in the order of Kafka's group.consumer.assignors.
const (
	AssignUniform = "uniform" // as even as can be, and as little moves as need be
	AssignRange   = "range"   // of each topic a contiguous range, by the order of the members
)

func knownAssignor(name string) bool { return name == AssignUniform || name == AssignRange }

// assignTopic is a topic that members subscribe to.
type assignTopic struct {
	id         [16]byte
	name       string
	partitions int
}

// assignMember is a member that takes part.
type assignMember struct {
	id, instance string
	topics       []int                     // of the topics, sorted
	had          []cluster.TopicPartitions // its target until now
}

// assign says what each member shall have. Topics are sorted by name, members by
// id.
func assign(assignor string, topics []assignTopic, members []assignMember) [][]cluster.TopicPartitions {
	owners := make([][]int32, len(topics)) // by topic and partition; -1: nobody
	subscribers := make([][]int32, len(topics))
	for i, t := range topics {
		owners[i] = make([]int32, t.partitions)
		for p := range owners[i] {
			owners[i][p] = -1
		}
	}
	for i := range members {
		for _, t := range members[i].topics {
			subscribers[t] = append(subscribers[t], int32(i))
		}
	}
	if assignor == AssignRange {
		assignRanges(owners, subscribers, members)
	} else {
		assignEvenly(owners, subscribers, topics, members)
	}
	out := make([][]cluster.TopicPartitions, len(members))
	byID := make([]int, len(topics))
	for i := range byID {
		byID[i] = i
	}
	slices.SortFunc(byID, func(a, b int) int { return bytes.Compare(topics[a].id[:], topics[b].id[:]) })
	for _, t := range byID {
		for p, m := range owners[t] {
			if m < 0 {
				continue
			}
			if n := len(out[m]); n == 0 || out[m][n-1].Topic != topics[t].id {
				out[m] = append(out[m], cluster.TopicPartitions{Topic: topics[t].id})
			}
			last := &out[m][len(out[m])-1]
			last.Partitions = append(last.Partitions, int32(p))
		}
	}
	return out
}

// assignRanges gives of each topic each subscriber a contiguous range; the first
// ones get one more where it does not come out even. Static members come first,
// by their instance ids, so that they keep theirs when they come back.
// Source: org.apache.kafka.coordinator.group.assignor.RangeAssignor.
func assignRanges(owners, subscribers [][]int32, members []assignMember) {
	for t := range owners {
		order := slices.Clone(subscribers[t])
		slices.SortStableFunc(order, func(a, b int32) int {
			x, y := &members[a], &members[b]
			switch {
			case x.instance != "" && y.instance != "":
				return cmp.Compare(x.instance, y.instance)
			case x.instance != "":
				return -1
			case y.instance != "":
				return 1
			}
			return cmp.Compare(x.id, y.id)
		})
		if len(order) == 0 {
			continue
		}
		each, more, p := len(owners[t])/len(order), len(owners[t])%len(order), 0
		for i, m := range order {
			n := each
			if i < more {
				n++
			}
			for range n {
				owners[t][p] = m
				p++
			}
		}
	}
}

// assignEvenly leaves members what they had, gives what nobody has to who has
// least, and then moves single partitions from who has more to who has at least
// two fewer until there are no such two. Every move makes the sum of the squares
// of the loads smaller, so it ends; where all subscribe to the same, loads then
// differ by one at most.
func assignEvenly(owners, subscribers [][]int32, topics []assignTopic, members []assignMember) {
	at := map[[16]byte]int{} // looked up only
	for i, t := range topics {
		at[t.id] = i
	}
	load := make([]int, len(members))
	for i := range members {
		for _, had := range members[i].had {
			t, ok := at[had.Topic]
			if !ok {
				continue
			}
			if _, ok := slices.BinarySearch(members[i].topics, t); !ok {
				continue
			}
			for _, p := range had.Partitions {
				if int(p) < len(owners[t]) && owners[t][p] < 0 {
					owners[t][p] = int32(i)
					load[i]++
				}
			}
		}
	}
	least := func(among []int32) int32 {
		best := among[0]
		for _, m := range among[1:] {
			if load[m] < load[best] {
				best = m
			}
		}
		return best
	}
	// Topics with few subscribers first: the others can go round them.
	order := make([]int, 0, len(topics))
	for t := range topics {
		if len(subscribers[t]) > 0 {
			order = append(order, t)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(len(subscribers[a]), len(subscribers[b])) })
	for _, t := range order {
		for p := range owners[t] {
			if owners[t][p] < 0 {
				m := least(subscribers[t])
				owners[t][p] = m
				load[m]++
			}
		}
	}
	for moved := len(members) > 1; moved; {
		moved = false
		low := slices.Min(load)
		for _, t := range slices.Backward(order) {
			for p := len(owners[t]) - 1; p >= 0; p-- {
				from := owners[t][p]
				if load[from]-low < 2 {
					continue
				}
				to := least(subscribers[t])
				if load[from]-load[to] < 2 {
					low = slices.Min(load) // it may have risen
					continue
				}
				owners[t][p] = to
				load[from]--
				load[to]++
				moved = true
			}
		}
	}
}
