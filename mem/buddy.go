package mem

import (
	"fmt"
	"math/bits"
)

// Buddy is a buddy allocator: contiguous blocks of powers of two, between min and max
// bytes. It is for memory that is needed rarely and in any size (mail between shards,
// answers of the control shard), never for the hot path. It belongs to one shard.
//
// Invariant: a byte of the region is in exactly one block, free or lent; two free buddies
// of one size do not exist, as they are merged into one of the next size.
type Buddy struct {
	name   string
	region Block
	min    int
	orders int
	// order[i] is the order + 1 of the block that starts at unit i, of min bytes: positive
	// if it is free, negative if it is lent. 0: no block starts there.
	order  []int8
	next   []int32 // of free blocks, by unit; -1 ends a list
	prev   []int32
	heads  []int32 // by order
	inUse  int
	grown  *Region // Get takes low addresses first where all sizes are free
	poison bool
}

// NewBuddy allocates count blocks of max bytes and divides them into blocks of at least
// min bytes. min and max are powers of two.
func NewBuddy(arena *Arena, name string, min, max, count int) (*Buddy, error) {
	if min&(min-1) != 0 || max&(max-1) != 0 || min < 64 || max < min || count < 1 {
		return nil, fmt.Errorf("mem: buddy %s: blocks of %d to %d bytes, %d of them", name, min, max, count)
	}
	align := min
	if align > BlockBytes {
		align = BlockBytes
	}
	region, err := arena.Allocate("buddy "+name, max*count, align)
	if err != nil {
		return nil, err
	}
	units := max / min * count
	b := &Buddy{name: name, region: region, min: min, orders: bits.Len(uint(max/min)) - 1,
		order: make([]int8, units), next: make([]int32, units), prev: make([]int32, units), poison: arena.poison}
	b.grown = arena.Grow(region, region, max)
	b.heads = make([]int32, b.orders+1)
	for i := range b.heads {
		b.heads[i] = -1
	}
	for i := count - 1; i >= 0; i-- {
		b.push(int32(i<<b.orders), b.orders)
	}
	return b, nil
}

// Get lends a block of n bytes, in a block of the next power of two. False: no room.
func (b *Buddy) Get(n int) (Block, bool) {
	want := 0
	for b.min<<want < n {
		want++
	}
	if n <= 0 || want > b.orders {
		return Block{}, false
	}
	order := want
	for order <= b.orders && b.heads[order] < 0 {
		order++
	}
	if order > b.orders {
		return Block{}, false
	}
	unit := b.heads[order]
	b.pop(unit, order)
	for ; order > want; order-- {
		b.push(unit+int32(1)<<(order-1), order-1)
	}
	b.order[unit] = int8(-(want + 1))
	b.inUse += b.min << want
	b.grown.Use((int(unit) + 1<<want) * b.min)
	return b.region.Slice(int(unit)*b.min, n), true
}

// Put takes back a whole block that Get lent.
func (b *Buddy) Put(block Block) {
	off := int64(block.Addr()) - int64(b.region.Addr())
	if off < 0 || off >= int64(b.region.Len()) || off%int64(b.min) != 0 {
		panic("mem: buddy " + b.name + ": a block of somebody else's")
	}
	unit := int32(off / int64(b.min))
	if b.order[unit] >= 0 {
		panic("mem: buddy " + b.name + ": Put of a block that is not lent")
	}
	order := int(-b.order[unit]) - 1
	b.inUse -= b.min << order
	if b.poison {
		poison(b.region.Slice(int(unit)*b.min, b.min<<order))
	}
	b.order[unit] = 0
	for order < b.orders {
		peer := unit ^ int32(1)<<order
		if b.order[peer] != int8(order+1) {
			break
		}
		b.pop(peer, order)
		b.order[peer] = 0
		if peer < unit {
			unit = peer
		}
		order++
	}
	b.push(unit, order)
}

// Max is the size of the largest block, in bytes.
func (b *Buddy) Max() int { return b.min << b.orders }

// InUse is how many bytes are in lent blocks.
func (b *Buddy) InUse() int { return b.inUse }

// push makes the block at a unit a free one of an order.
func (b *Buddy) push(unit int32, order int) {
	b.order[unit] = int8(order + 1)
	b.prev[unit], b.next[unit] = -1, b.heads[order]
	if b.heads[order] >= 0 {
		b.prev[b.heads[order]] = unit
	}
	b.heads[order] = unit
}

// pop takes the block at a unit out of the free ones of its order.
func (b *Buddy) pop(unit int32, order int) {
	if b.prev[unit] >= 0 {
		b.next[b.prev[unit]] = b.next[unit]
	} else {
		b.heads[order] = b.next[unit]
	}
	if b.next[unit] >= 0 {
		b.prev[b.next[unit]] = b.prev[unit]
	}
}
