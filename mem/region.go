package mem

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Region is a part of a shard's memory that is used from its beginning on, and of which
// only what is used is resident, and some ahead of that. The shard says with Use how far
// it is; another thread (Arena.Warm) makes resident what comes next, so that the shard
// finds its pages there. A page that is used before that costs the shard one page fault.
//
// Invariant: resident <= asked <= bytes; neither becomes less.
type Region struct {
	arena    *Arena
	base     unsafe.Pointer
	bytes    uintptr
	ahead    uintptr        // how much beyond what is used is to be resident
	step     uintptr        // the end of what is resident is a multiple of it
	mark     uintptr        // use up to here asks for nothing
	asked    atomic.Uintptr // the shard writes it
	resident atomic.Uintptr // the thread that calls Warm writes it
}

// newRegion makes a region of bytes from base on. Its first ahead bytes are asked for.
func newRegion(arena *Arena, base unsafe.Pointer, bytes, ahead, step uintptr) *Region {
	r := &Region{arena: arena, base: base, bytes: bytes, ahead: ahead, step: step}
	r.ask(0)
	arena.regions = append(arena.regions, r)
	return r
}

// Grow makes a region of blocks that were allocated one behind the other, from first to
// last. ahead is how many bytes beyond what is used are resident.
func (a *Arena) Grow(first, last Block, ahead int) *Region {
	end := unsafe.Add(last.base, last.size)
	return newRegion(a, first.base, uintptr(end)-uintptr(first.base), uintptr(ahead), a.step())
}

// step is the unit in which an arena becomes resident.
func (a *Arena) step() uintptr {
	if a.huge {
		return hugePageBytes
	}
	return tableStepBytes
}

// Use says that the first n bytes of the region are in use or are about to be.
func (r *Region) Use(n int) {
	if uintptr(n) > r.mark {
		r.ask(uintptr(n))
	}
}

// Resident reports whether the first n bytes are resident: that they were warmed, or that
// nobody warms this arena.
func (r *Region) Resident(n int) bool {
	return !r.arena.warming || uintptr(n) <= r.resident.Load()
}

// ask asks for what is ahead of the first n bytes.
func (r *Region) ask(n uintptr) {
	end := (uintptr(r.base) + n + r.ahead + r.step - 1) &^ (r.step - 1)
	asked := min(end-uintptr(r.base), r.bytes)
	r.mark = asked - min(r.ahead, asked)
	if asked == r.bytes {
		r.mark = r.bytes
	}
	r.asked.Store(asked)
	r.arena.asked = true
}

// Asked reports whether a region has asked for memory since the last call. It is the
// shard's.
func (a *Arena) Asked() bool {
	asked := a.asked
	a.asked = false
	return asked
}

// Warming says that another thread is going to call Populate and then Warm. The shard's
// thread calls it before the arena is used.
func (a *Arena) Warming() { a.warming = true }

// Warm makes resident what the regions have asked for. One thread may call it beside the
// shard's. It changes no byte. The kernel may refuse: the shard's own faults then make the
// memory resident, as those of a process that was told nothing.
func (a *Arena) Warm() {
	for _, r := range a.regions {
		if resident, asked := r.resident.Load(), r.asked.Load(); asked > resident {
			touch(unsafe.Add(r.base, resident), asked-resident)
			r.resident.Store(asked)
		}
	}
}

// Populate makes resident all that was allocated, except for what regions have not asked
// for. The thread that calls Warm calls it once, first.
func (a *Arena) Populate() {
	a.Warm()
	from := uintptr(0)
	for _, r := range a.regions { // those of the arena itself lie in it in the order in which they were made
		at := uintptr(r.base) - uintptr(a.whole)
		if uintptr(r.base) < uintptr(a.whole) || at >= a.bytes {
			continue // a table
		}
		touch(unsafe.Add(a.whole, from), at-from)
		from = at + r.bytes
	}
	touch(unsafe.Add(a.whole, from), a.used-from)
}

// touch has the kernel map pages for n bytes, some at a time so that others who change the
// address space wait shortly.
func touch(base unsafe.Pointer, n uintptr) {
	for from := uintptr(base) &^ (BlockBytes - 1); from < uintptr(base)+n; {
		end := min((from+hugePageBytes)&^(hugePageBytes-1), (uintptr(base)+n+BlockBytes-1)&^(BlockBytes-1))
		at := unsafe.Add(base, int(from)-int(uintptr(base)))
		_ = unix.Madvise(unsafe.Slice((*byte)(at), end-from), unix.MADV_POPULATE_WRITE)
		from = end
	}
}
