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
	AssignUniform = "uniform" // balanced, with as few moves as possible
	AssignRange   = "range"   // a contiguous range of each topic, in the order of the members
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
	topics       []int                     // indices of its topics, sorted
	had          []cluster.TopicPartitions // its previous target
}

// assign is the target of each member. Topics are sorted by name, members by id.
func assign(assignor string, topics []assignTopic, members []assignMember) [][]cluster.TopicPartitions {
	owners := make([][]int32, len(topics)) // member index by topic and partition; -1: none
	subscribers := make([][]int32, len(topics))
	for i, topic := range topics {
		owners[i] = make([]int32, topic.partitions)
		for partition := range owners[i] {
			owners[i][partition] = -1
		}
	}
	for i := range members {
		for _, topic := range members[i].topics {
			subscribers[topic] = append(subscribers[topic], int32(i))
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
	slices.SortFunc(byID, func(left, right int) int { return bytes.Compare(topics[left].id[:], topics[right].id[:]) })
	for _, topic := range byID {
		for partition, member := range owners[topic] {
			if member < 0 {
				continue
			}
			if count := len(out[member]); count == 0 || out[member][count-1].Topic != topics[topic].id {
				out[member] = append(out[member], cluster.TopicPartitions{Topic: topics[topic].id})
			}
			last := &out[member][len(out[member])-1]
			last.Partitions = append(last.Partitions, int32(partition))
		}
	}
	return out
}

// assignRanges gives each subscriber a contiguous range of each topic; the first
// ones get one partition more if the division leaves a remainder. Static members
// come first, by their instance ids, so that they keep their ranges when they
// come back.
// Source: org.apache.kafka.coordinator.group.assignor.RangeAssignor.
func assignRanges(owners, subscribers [][]int32, members []assignMember) {
	for topic := range owners {
		order := slices.Clone(subscribers[topic])
		slices.SortStableFunc(order, func(left, right int32) int {
			first, second := &members[left], &members[right]
			switch {
			case first.instance != "" && second.instance != "":
				return cmp.Compare(first.instance, second.instance)
			case first.instance != "":
				return -1
			case second.instance != "":
				return 1
			}
			return cmp.Compare(first.id, second.id)
		})
		if len(order) == 0 {
			continue
		}
		each, more, partition := len(owners[topic])/len(order), len(owners[topic])%len(order), 0
		for i, member := range order {
			count := each
			if i < more {
				count++
			}
			for range count {
				owners[topic][partition] = member
				partition++
			}
		}
	}
}

// assignEvenly leaves members the partitions they had and gives each remaining
// partition to the subscriber with the fewest. Then it moves single partitions
// from one member to another that has at least two fewer, until there is no such
// pair. Every move reduces the sum of the squares of the loads, so it ends; if
// all members subscribe to the same topics, loads then differ by at most one.
func assignEvenly(owners, subscribers [][]int32, topics []assignTopic, members []assignMember) {
	at := map[[16]byte]int{} // looked up only
	for i, topic := range topics {
		at[topic.id] = i
	}
	load := make([]int, len(members))
	for i := range members {
		for _, had := range members[i].had {
			topic, ok := at[had.Topic]
			if !ok {
				continue
			}
			if _, ok := slices.BinarySearch(members[i].topics, topic); !ok {
				continue
			}
			for _, partition := range had.Partitions {
				if int(partition) < len(owners[topic]) && owners[topic][partition] < 0 {
					owners[topic][partition] = int32(i)
					load[i]++
				}
			}
		}
	}
	least := func(among []int32) int32 {
		best := among[0]
		for _, member := range among[1:] {
			if load[member] < load[best] {
				best = member
			}
		}
		return best
	}
	// Topics with few subscribers come first: there is less choice for these.
	order := make([]int, 0, len(topics))
	for topic := range topics {
		if len(subscribers[topic]) > 0 {
			order = append(order, topic)
		}
	}
	slices.SortStableFunc(order, func(left, right int) int { return cmp.Compare(len(subscribers[left]), len(subscribers[right])) })
	for _, topic := range order {
		for partition := range owners[topic] {
			if owners[topic][partition] < 0 {
				member := least(subscribers[topic])
				owners[topic][partition] = member
				load[member]++
			}
		}
	}
	for moved := len(members) > 1; moved; {
		moved = false
		low := slices.Min(load)
		for _, topic := range slices.Backward(order) {
			for partition := len(owners[topic]) - 1; partition >= 0; partition-- {
				from := owners[topic][partition]
				if load[from]-low < 2 {
					continue
				}
				to := least(subscribers[topic])
				if load[from]-load[to] < 2 {
					low = slices.Min(load) // the minimum may have risen
					continue
				}
				owners[topic][partition] = to
				load[from]--
				load[to]++
				moved = true
			}
		}
	}
}
