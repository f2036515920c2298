package mem

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// BlockBytes is the unit of direct I/O: the address and the length of every block that is
// read from or written to disk are multiples of it.
const BlockBytes = 4096

// PoisonByte fills freed memory of a poisoned arena, so that a use after free shows as
// 0xdb and not as other data.
const PoisonByte = 0xdb

const hugePageBytes = 2 << 20

// Block is a range of arena memory: an address and a length. It is a value; copying it
// copies no memory. The zero Block is no memory.
type Block struct {
	base unsafe.Pointer
	size uint32
}

// Bytes is the block's memory.
func (b Block) Bytes() []byte {
	if b.size == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(b.base), int(b.size))
}

// Len is the block's length in bytes.
func (b Block) Len() int { return int(b.size) }

// IsZero reports whether the block is no memory.
func (b Block) IsZero() bool { return b.size == 0 }

// Pointer is the block's first byte.
func (b Block) Pointer() unsafe.Pointer { return b.base }

// Addr is the block's address, for the kernel.
func (b Block) Addr() uint64 { return uint64(uintptr(b.base)) }

// Slice is the n bytes of the block from off on. It panics if they are not all in the
// block.
func (b Block) Slice(off, n int) Block {
	if off < 0 || n < 0 || off+n > int(b.size) {
		b.noSlice(off, n)
	}
	return Block{unsafe.Add(b.base, off), uint32(n)}
}

// noSlice is a function of its own so that Slice is small enough to be inlined.
//
//go:noinline
func (b Block) noSlice(off, n int) {
	panic(fmt.Sprintf("mem: slice [%d:+%d] of a block of %d bytes", off, n, b.size))
}

// Options are how an arena is mapped.
type Options struct {
	HugePages bool // try 2 MiB pages, explicit ones first, then transparent ones
	Lock      bool // lock what becomes resident; a refused lock is no error, and Locked reports it
	Poison    bool // fill freed memory with PoisonByte
}

// Arena is one mapping of anonymous memory, and tables that are mapped beside it. It belongs
// to one shard. Nothing of it is resident before it is touched.
type Arena struct {
	whole     unsafe.Pointer
	bytes     uintptr
	used      uintptr // Invariant: used <= bytes
	sealed    bool
	poison    bool
	locked    bool
	huge      bool
	allocated []Allocation
	mapping   unsafe.Pointer // what was mapped: whole, and what its alignment costs
	mapped    uintptr

	tables        []Allocation
	tableMappings []mapping
	regions       []*Region // Invariant: those in the arena itself are in ascending order
	warming       bool
	asked         bool // a region has asked for memory since Asked
}

// ErrMap is Map's error where the system does not map so much, with its own.
var ErrMap = errors.New("mem: mapping an arena")

// Map maps an arena of at least n bytes, all zero. Errors: ErrMap with ENOMEM if the
// machine has too little memory.
func Map(n int, options Options) (*Arena, error) {
	if n <= 0 {
		return nil, errors.New("mem: an arena needs at least one byte")
	}
	size := (uintptr(n) + hugePageBytes - 1) &^ (hugePageBytes - 1)
	arena := &Arena{bytes: size, poison: options.Poison}
	flags := unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	prot := unix.PROT_READ | unix.PROT_WRITE
	if options.HugePages {
		mapped, err := unix.MmapPtr(-1, 0, nil, size, prot, flags|unix.MAP_HUGETLB)
		if err == nil {
			arena.whole, arena.mapping, arena.mapped, arena.huge = mapped, mapped, size, true
		}
	}
	if arena.whole == nil {
		mapped, err := unix.MmapPtr(-1, 0, nil, size+hugePageBytes, prot, flags)
		if err != nil {
			return nil, fmt.Errorf("%w of %d MiB: %w", ErrMap, size>>20, err)
		}
		arena.mapping, arena.mapped = mapped, size+hugePageBytes
		skip := -uintptr(mapped) & (hugePageBytes - 1)
		arena.whole = unsafe.Add(mapped, skip)
		if options.HugePages {
			arena.huge = unix.Madvise(unsafe.Slice((*byte)(arena.whole), size), unix.MADV_HUGEPAGE) == nil
		}
	}
	if options.Lock {
		arena.locked = lockAsTouched(unsafe.Slice((*byte)(arena.whole), size)) == nil
	}
	return arena, nil
}

// Unmap returns the memory to the system. No block of the arena and no table may be used
// after it.
func (a *Arena) Unmap() error {
	var failed error
	for _, table := range append(a.tableMappings, mapping{a.mapping, a.mapped}) {
		failed = errors.Join(failed, unix.MunmapPtr(table.at, table.bytes))
	}
	*a = Arena{}
	return failed
}

// Allocate takes n bytes out of the arena, aligned to align, a power of two. It is never
// given back. Errors: the arena is sealed, or too small; they name what the bytes are for.
func (a *Arena) Allocate(what string, n, align int) (Block, error) {
	if a.sealed {
		return Block{}, fmt.Errorf("mem: %s asks for %d bytes of a sealed arena", what, n)
	}
	at := (a.used + uintptr(align) - 1) &^ (uintptr(align) - 1)
	if n <= 0 || int64(n) > 1<<32-1 || at+uintptr(n) > a.bytes {
		return Block{}, fmt.Errorf("mem: %s asks for %d bytes; the arena of %d has %d left", what, n, a.bytes, a.bytes-a.used)
	}
	a.used = at + uintptr(n)
	for i := range a.allocated {
		if a.allocated[i].What == what {
			a.allocated[i].Bytes += int(a.used - at)
			a.allocated[i].Count++
			return Block{unsafe.Add(a.whole, at), uint32(n)}, nil
		}
	}
	a.allocated = append(a.allocated, Allocation{what, int(a.used - at), 1})
	return Block{unsafe.Add(a.whole, at), uint32(n)}, nil
}

// Allocation is what was allocated under one name: Count blocks, Bytes in all.
type Allocation struct {
	What  string
	Bytes int
	Count int
}

// Allocations is what was allocated, in the order of the first of each name. The sum is
// less than Used by what alignment costs.
func (a *Arena) Allocations() []Allocation { return a.allocated }

// Seal ends allocation: Allocate fails from now on.
func (a *Arena) Seal() { a.sealed = true }

// Sealed reports whether Seal was called.
func (a *Arena) Sealed() bool { return a.sealed }

// Bytes is the arena's size.
func (a *Arena) Bytes() int { return int(a.bytes) }

// Used is how many bytes were allocated, with what alignment costs.
func (a *Arena) Used() int { return int(a.used) }

// Locked reports whether the memory is locked.
func (a *Arena) Locked() bool { return a.locked }

// Huge reports whether the kernel accepted huge pages.
func (a *Arena) Huge() bool { return a.huge }

// Contains reports whether a block is in the arena.
func (a *Arena) Contains(block Block) bool {
	lo, at := uintptr(a.whole), uintptr(block.base)
	return at >= lo && at+uintptr(block.size) <= lo+a.bytes
}

// Poisoned reports whether freed memory is filled with PoisonByte.
func (a *Arena) Poisoned() bool { return a.poison }

func poison(block Block) {
	buf := block.Bytes()
	for i := range buf {
		buf[i] = PoisonByte
	}
}
