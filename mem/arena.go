package mem

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// BlockBytes is the unit of direct I/O: every block carved for the disk is a
// multiple of it, in address and in length.
const BlockBytes = 4096

// PoisonByte fills freed memory of a poisoned arena, so that use after free
// shows as 0xdb instead of as somebody else's data.
const PoisonByte = 0xdb

const hugePageBytes = 2 << 20

// Block is a piece of arena memory: an address and a length. It is a value;
// copying it copies no memory. The zero Block is no memory.
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

// IsZero says whether b is no memory.
func (b Block) IsZero() bool { return b.size == 0 }

// Pointer is the block's first byte.
func (b Block) Pointer() unsafe.Pointer { return b.base }

// Addr is the block's address, as the kernel wants it.
func (b Block) Addr() uint64 { return uint64(uintptr(b.base)) }

// Slice is the part of b that starts at off and has n bytes. It panics where
// b has no such part.
func (b Block) Slice(off, n int) Block {
	if off < 0 || n < 0 || off+n > int(b.size) {
		b.noSlice(off, n)
	}
	return Block{unsafe.Add(b.base, off), uint32(n)}
}

// noSlice is apart so that Slice is small enough to be inlined.
//
//go:noinline
func (b Block) noSlice(off, n int) {
	panic(fmt.Sprintf("mem: slice [%d:+%d] of a block of %d bytes", off, n, b.size))
}

// Options say how an arena is mapped.
type Options struct {
	HugePages bool // try 2 MiB pages, explicit ones first, then transparent ones
	Lock      bool // populate and lock; not being allowed to lock is reported by Locked, not an error
	Poison    bool // fill freed memory with PoisonByte
}

// Arena is one mapping of anonymous memory. It belongs to one shard.
type Arena struct {
	whole   unsafe.Pointer
	bytes   uintptr
	used    uintptr // Invariant: used <= bytes
	sealed  bool
	poison  bool
	locked  bool
	huge    bool
	carved  []Carving
	mapping unsafe.Pointer // what was mapped: whole with what alignment cost
	mapped  uintptr
}

// Map maps an arena of n bytes, zeroed. Errors: ENOMEM where the machine has
// too little.
func Map(n int, o Options) (*Arena, error) {
	if n <= 0 {
		return nil, errors.New("mem: an arena needs at least one byte")
	}
	size := (uintptr(n) + hugePageBytes - 1) &^ (hugePageBytes - 1)
	a := &Arena{bytes: size, poison: o.Poison}
	flags := unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	prot := unix.PROT_READ | unix.PROT_WRITE
	if o.HugePages {
		p, err := unix.MmapPtr(-1, 0, nil, size, prot, flags|unix.MAP_HUGETLB)
		if err == nil {
			a.whole, a.mapping, a.mapped, a.huge = p, p, size, true
		}
	}
	if a.whole == nil {
		p, err := unix.MmapPtr(-1, 0, nil, size+hugePageBytes, prot, flags)
		if err != nil {
			return nil, fmt.Errorf("mem: mapping an arena of %d MiB: %w", size>>20, err)
		}
		a.mapping, a.mapped = p, size+hugePageBytes
		skip := -uintptr(p) & (hugePageBytes - 1)
		a.whole = unsafe.Add(p, skip)
		if o.HugePages {
			a.huge = unix.Madvise(unsafe.Slice((*byte)(a.whole), size), unix.MADV_HUGEPAGE) == nil
		}
	}
	if o.Lock {
		whole := unsafe.Slice((*byte)(a.whole), size)
		a.locked = unix.Mlock(whole) == nil
		if !a.locked {
			for i := uintptr(0); i < size; i += BlockBytes {
				whole[i] = 0
			}
		}
	}
	return a, nil
}

// Unmap gives the memory back. No block of the arena may be used after it.
func (a *Arena) Unmap() error {
	p := a.mapping
	a.mapping, a.whole, a.bytes, a.used = nil, nil, 0, 0
	return unix.MunmapPtr(p, a.mapped)
}

// Allocate takes n bytes, aligned to align (a power of two), out of the arena.
// Error: the arena is sealed, or too small; it names what asked.
func (a *Arena) Allocate(what string, n, align int) (Block, error) {
	if a.sealed {
		return Block{}, fmt.Errorf("mem: %s asks for %d bytes of a sealed arena", what, n)
	}
	at := (a.used + uintptr(align) - 1) &^ (uintptr(align) - 1)
	if n <= 0 || int64(n) > 1<<32-1 || at+uintptr(n) > a.bytes {
		return Block{}, fmt.Errorf("mem: %s asks for %d bytes; the arena of %d has %d left", what, n, a.bytes, a.bytes-a.used)
	}
	a.used = at + uintptr(n)
	for i := range a.carved {
		if a.carved[i].What == what {
			a.carved[i].Bytes += int(a.used - at)
			a.carved[i].Count++
			return Block{unsafe.Add(a.whole, at), uint32(n)}, nil
		}
	}
	a.carved = append(a.carved, Carving{what, int(a.used - at), 1})
	return Block{unsafe.Add(a.whole, at), uint32(n)}, nil
}

// Carving is what was carved under one name: Count blocks, Bytes in all.
type Carving struct {
	What  string
	Bytes int
	Count int
}

// Carvings lists what was carved, in the order of the first of each name. What
// is missing to Used is alignment.
func (a *Arena) Carvings() []Carving { return a.carved }

// Seal ends carving.
func (a *Arena) Seal() { a.sealed = true }

// Sealed says whether Seal was called.
func (a *Arena) Sealed() bool { return a.sealed }

// Bytes is the arena's size, Used what was carved.
func (a *Arena) Bytes() int { return int(a.bytes) }

// Used is how many bytes were carved, alignment included.
func (a *Arena) Used() int { return int(a.used) }

// Locked says whether the memory is locked, Huge whether it may have huge pages.
func (a *Arena) Locked() bool { return a.locked }

// Huge says whether the kernel agreed to huge pages.
func (a *Arena) Huge() bool { return a.huge }

// Contains says whether b lies in the arena.
func (a *Arena) Contains(b Block) bool {
	lo, at := uintptr(a.whole), uintptr(b.base)
	return at >= lo && at+uintptr(b.size) <= lo+a.bytes
}

// Poisoned says whether freed memory is filled with PoisonByte.
func (a *Arena) Poisoned() bool { return a.poison }

func poison(b Block) {
	p := b.Bytes()
	for i := range p {
		p[i] = PoisonByte
	}
}
