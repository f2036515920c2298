package mem

import "fmt"

// Pool is a fixed number of blocks of one size with reference counts. It
// belongs to one shard.
//
// Invariant: len(free) + blocks with refs > 0 == count.
type Pool struct {
	name   string
	all    Block
	size   int
	refs   []int32
	free   []uint32
	low    int     // fewest blocks ever free
	region *Region // blocks are first used in order, as the one that became free last is used next
	poison bool
}

// poolAheadBytes is how much of a pool is resident beyond what was ever used, at most.
const poolAheadBytes = 2 << 20

// NewPool allocates count blocks of size bytes, which is a multiple of 64. Blocks are
// aligned to BlockBytes if size is a multiple of that, else to 64.
func NewPool(arena *Arena, name string, size, count int) (*Pool, error) {
	align := 64
	if size%BlockBytes == 0 {
		align = BlockBytes
	}
	if size%64 != 0 {
		return nil, fmt.Errorf("mem: pool %s: block size %d is not a multiple of 64", name, size)
	}
	all, err := arena.Allocate("pool "+name, size*count, align)
	if err != nil {
		return nil, err
	}
	arena.allocated[len(arena.allocated)-1].Count = count
	p := &Pool{name: name, all: all, size: size, refs: make([]int32, count), free: make([]uint32, count), low: count, poison: arena.poison}
	p.region = arena.Grow(all, all, max(size, min(all.Len()/8, poolAheadBytes)))
	for i := range p.free {
		p.free[i] = uint32(count - 1 - i)
	}
	return p, nil
}

// Get takes a free block, gives it one reference, and returns its number. False: none is
// free.
func (p *Pool) Get() (i int, ok bool) {
	n := len(p.free)
	if n == 0 {
		return 0, false
	}
	i = int(p.free[n-1])
	p.free = p.free[:n-1]
	if n-1 < p.low {
		p.low = n - 1
		p.region.Use((len(p.refs) - p.low) * p.size)
	}
	if p.refs[i] != 0 {
		panic("mem: pool " + p.name + ": a free block has references")
	}
	p.refs[i] = 1
	return i, true
}

// Ref adds a reference to block i, which must have one.
func (p *Pool) Ref(i int) {
	if p.refs[i] <= 0 {
		panic("mem: pool " + p.name + ": Ref of a free block")
	}
	p.refs[i]++
}

// Unref drops a reference to block i. freed: it was the last one, and the block is free.
func (p *Pool) Unref(i int) (freed bool) {
	if p.refs[i] <= 0 {
		panic("mem: pool " + p.name + ": Unref of a free block")
	}
	p.refs[i]--
	if p.refs[i] != 0 {
		return false
	}
	if p.poison {
		poison(p.Block(i))
	}
	p.free = append(p.free, uint32(i))
	return true
}

// Block is the memory of block i.
func (p *Pool) Block(i int) Block { return p.all.Slice(i*p.size, p.size) }

// Refs is the number of references to block i.
func (p *Pool) Refs(i int) int { return int(p.refs[i]) }

// Free is how many blocks are free.
func (p *Pool) Free() int { return len(p.free) }

// Low is the fewest blocks that were ever free.
func (p *Pool) Low() int { return p.low }

// Count is how many blocks the pool has.
func (p *Pool) Count() int { return len(p.refs) }

// Size is a block's size in bytes.
func (p *Pool) Size() int { return p.size }

// Name is the pool's name, as given to NewPool.
func (p *Pool) Name() string { return p.name }
