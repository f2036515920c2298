package mem

import (
	"fmt"
	"math/bits"
)

// Buddy hands out contiguous blocks of powers of two between min and max
// bytes. It serves what is rare and of any size (mail between shards, answers
// of the control shard), never the hot path. It belongs to one shard.
//
// Invariant: a byte of the region is in exactly one free block or one lent
// one; two free buddies of one size do not exist (they are one of the next).
type Buddy struct {
	name   string
	region Block
	min    int
	orders int
	// order[i] is, for the block that starts at min-unit i, its order + 1 with
	// the sign telling free (+) from lent (-); 0: no block starts here.
	order  []int8
	next   []int32 // free lists, by min-unit; -1 ends
	prev   []int32
	heads  []int32 // by order
	inUse  int
	poison bool
}

// NewBuddy carves count blocks of max bytes and hands them out in pieces of at
// least min bytes. min and max are powers of two.
func NewBuddy(a *Arena, name string, min, max, count int) (*Buddy, error) {
	if min&(min-1) != 0 || max&(max-1) != 0 || min < 64 || max < min || count < 1 {
		return nil, fmt.Errorf("mem: buddy %s: blocks of %d to %d bytes, %d of them", name, min, max, count)
	}
	align := min
	if align > BlockBytes {
		align = BlockBytes
	}
	region, err := a.Allocate("buddy "+name, max*count, align)
	if err != nil {
		return nil, err
	}
	units := max / min * count
	b := &Buddy{name: name, region: region, min: min, orders: bits.Len(uint(max/min)) - 1,
		order: make([]int8, units), next: make([]int32, units), prev: make([]int32, units), poison: a.poison}
	b.heads = make([]int32, b.orders+1)
	for i := range b.heads {
		b.heads[i] = -1
	}
	for i := count - 1; i >= 0; i-- {
		b.push(int32(i<<b.orders), b.orders)
	}
	return b, nil
}

// Get lends a block of exactly n bytes (more are set aside). False: no room.
func (b *Buddy) Get(n int) (Block, bool) {
	want := 0
	for b.min<<want < n {
		want++
	}
	if n <= 0 || want > b.orders {
		return Block{}, false
	}
	o := want
	for o <= b.orders && b.heads[o] < 0 {
		o++
	}
	if o > b.orders {
		return Block{}, false
	}
	i := b.heads[o]
	b.pop(i, o)
	for ; o > want; o-- {
		b.push(i+int32(1)<<(o-1), o-1)
	}
	b.order[i] = int8(-(want + 1))
	b.inUse += b.min << want
	return b.region.Slice(int(i)*b.min, n), true
}

// Put takes back a block that Get lent, whole.
func (b *Buddy) Put(k Block) {
	off := int64(k.Addr()) - int64(b.region.Addr())
	if off < 0 || off >= int64(b.region.Len()) || off%int64(b.min) != 0 {
		panic("mem: buddy " + b.name + ": a block of somebody else's")
	}
	i := int32(off / int64(b.min))
	if b.order[i] >= 0 {
		panic("mem: buddy " + b.name + ": Put of a block that is not lent")
	}
	o := int(-b.order[i]) - 1
	b.inUse -= b.min << o
	if b.poison {
		poison(b.region.Slice(int(i)*b.min, b.min<<o))
	}
	b.order[i] = 0
	for o < b.orders {
		peer := i ^ int32(1)<<o
		if b.order[peer] != int8(o+1) {
			break
		}
		b.pop(peer, o)
		b.order[peer] = 0
		if peer < i {
			i = peer
		}
		o++
	}
	b.push(i, o)
}

// Max is the largest block there can be.
func (b *Buddy) Max() int { return b.min << b.orders }

// InUse is how many bytes are set aside.
func (b *Buddy) InUse() int { return b.inUse }

func (b *Buddy) push(i int32, o int) {
	b.order[i] = int8(o + 1)
	b.prev[i], b.next[i] = -1, b.heads[o]
	if b.heads[o] >= 0 {
		b.prev[b.heads[o]] = i
	}
	b.heads[o] = i
}

func (b *Buddy) pop(i int32, o int) {
	if b.prev[i] >= 0 {
		b.next[b.prev[i]] = b.next[i]
	} else {
		b.heads[o] = b.next[i]
	}
	if b.next[i] >= 0 {
		b.prev[b.next[i]] = b.prev[i]
	}
}
