package shard

import "github.com/tailbound/tailbound/ioring"

// timers is a heap of deadlines, at most one for each request slot. It belongs to
// the shard and never grows.
//
// Invariant: at[heap[i].slot] == i + 1 for every i; 0 for slots not in it.
type timers struct {
	heap []deadline
	at   []int32
}

type deadline struct {
	when ioring.Instant
	slot uint32
}

func newTimers(slots int) timers {
	return timers{heap: make([]deadline, 0, slots), at: make([]int32, slots)}
}

// set makes a slot due at that time, instead of any time set before.
func (t *timers) set(slot uint32, when ioring.Instant) {
	t.clear(slot)
	t.heap = append(t.heap, deadline{when, slot})
	t.at[slot] = int32(len(t.heap))
	t.up(len(t.heap) - 1)
}

// clear makes a slot due at no time.
func (t *timers) clear(slot uint32) {
	i := int(t.at[slot]) - 1
	if i < 0 {
		return
	}
	last := len(t.heap) - 1
	t.swap(i, last)
	t.heap = t.heap[:last]
	t.at[slot] = 0
	if i < last {
		t.down(i)
		t.up(i)
	}
}

// next is the earliest deadline, or Never.
func (t *timers) next() ioring.Instant {
	if len(t.heap) == 0 {
		return ioring.Never
	}
	return t.heap[0].when
}

// due takes out a slot whose deadline has passed.
func (t *timers) due(now ioring.Instant) (slot uint32, ok bool) {
	if len(t.heap) == 0 || t.heap[0].when > now {
		return 0, false
	}
	slot = t.heap[0].slot
	t.clear(slot)
	return slot, true
}

func (t *timers) swap(i, j int) {
	t.heap[i], t.heap[j] = t.heap[j], t.heap[i]
	t.at[t.heap[i].slot], t.at[t.heap[j].slot] = int32(i+1), int32(j+1)
}

func (t *timers) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if t.heap[parent].when <= t.heap[i].when {
			return
		}
		t.swap(i, parent)
		i = parent
	}
}

func (t *timers) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(t.heap) {
			return
		}
		if child+1 < len(t.heap) && t.heap[child+1].when < t.heap[child].when {
			child++
		}
		if t.heap[i].when <= t.heap[child].when {
			return
		}
		t.swap(i, child)
		i = child
	}
}
