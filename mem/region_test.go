package mem

import (
	"math/rand/v2"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// resident counts the resident bytes among n from at on.
func resident(t *testing.T, at unsafe.Pointer, n int) (bytes int) {
	t.Helper()
	from := uintptr(at) &^ (BlockBytes - 1)
	pages := make([]byte, (uintptr(at)+uintptr(n)-from+BlockBytes-1)/BlockBytes)
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, from, uintptr(len(pages)*BlockBytes), uintptr(unsafe.Pointer(&pages[0]))); errno != 0 {
		t.Fatal(errno)
	}
	for _, p := range pages {
		bytes += int(p&1) * BlockBytes
	}
	return bytes
}

// What a region has used, and some ahead of it, is resident; the rest is not. What is no
// region is resident from the start.
func TestRegionsBecomeResidentAsTheyAreUsed(t *testing.T) {
	a, err := Map(64<<20, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Unmap()
	fixed, _ := a.Allocate("fixed", 1<<20, 4096)
	grown, _ := a.Allocate("grown", 40<<20, 4096)
	after, _ := a.Allocate("after", 1<<20, 4096)
	const ahead = 1 << 20
	region := a.Grow(grown, grown, ahead)
	table, rows, err := MapTable[[8]int64](a, "rows", 100_000)
	if err != nil {
		t.Fatal(err)
	}
	if n := resident(t, a.whole, a.Used()); n != 0 {
		t.Fatalf("%d bytes are resident before anything was touched", n)
	}
	a.Warming()
	if !a.Asked() || a.Asked() {
		t.Fatal("making a region did not ask for its first bytes, or it asked twice")
	}
	fixed.Bytes()[7], grown.Bytes()[7] = 7, 7
	a.Populate()
	if fixed.Bytes()[7] != 7 || grown.Bytes()[7] != 7 {
		t.Fatal("populating changed bytes")
	}
	for _, b := range []Block{fixed, after} {
		if n := resident(t, b.Pointer(), b.Len()); n != b.Len() {
			t.Errorf("%d of %d bytes of what is no region are resident", n, b.Len())
		}
	}
	for used := 0; used < grown.Len(); used += 300_000 {
		region.Use(used)
		if a.Asked() {
			a.Warm()
		}
		n, least := resident(t, grown.Pointer(), grown.Len()), min(used+ahead/2, grown.Len())
		if n < least || n > used+ahead+tableStepBytes+BlockBytes || !region.Resident(used) || n < grown.Len() && region.Resident(grown.Len()) {
			t.Fatalf("%d bytes are used, %d resident", used, n)
		}
	}
	each := int(unsafe.Sizeof(table[0]))
	rows.Use(2000 * each)
	a.Warm()
	if n := resident(t, unsafe.Pointer(&table[0]), len(table)*each); n < 2000*each || n > 2000*each+tableAheadBytes+2*tableStepBytes {
		t.Errorf("%d bytes of a table of which %d are used are resident", n, 2000*each)
	}
	if got := a.Tables(); len(got) != 1 || got[0] != (Allocation{"rows", 100_000 * each, 100_000}) || !a.Owns(unsafe.Pointer(&table[99_999])) || a.Owns(unsafe.Pointer(&got[0])) {
		t.Errorf("the arena's tables are %+v", got)
	}
}

// A table outside of Go's heap has no pointers into it.
func TestTablesHaveNoPointersIntoTheHeap(t *testing.T) {
	a := arena(t, 1<<20)
	for what, make := range map[string]func() error{
		"slice":  func() error { _, _, err := MapTable[struct{ name []byte }](a, "slice", 2); return err },
		"string": func() error { _, _, err := MapTable[[2]string](a, "string", 2); return err },
		"map":    func() error { _, _, err := MapTable[map[int]int](a, "map", 2); return err },
		"raw":    func() error { _, _, err := MapTable[unsafe.Pointer](a, "raw", 2); return err },
	} {
		if err := make(); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, _, err := MapTable[struct {
		at    Block
		links Links
	}](a, "blocks", 2); err != nil {
		t.Error(err)
	}
	a.Seal()
	if _, _, err := MapTable[int64](a, "late", 2); err == nil || !strings.Contains(err.Error(), "late") {
		t.Errorf("a table beside a sealed arena: %v", err)
	}
}

// Free entries come in the order in which they would if all had been linked from the first
// to the last, and no entry is written before it is taken.
func TestFreshEntriesComeInOrder(t *testing.T) {
	type entry struct {
		used bool
		next int32
	}
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		n := r.IntN(20)
		table := make([]entry, n)
		fresh, free := FreshOf(table, nil)
		var model, taken []int32 // of the free ones the last comes first
		for i := n - 1; i >= 0; i-- {
			model = append(model, int32(i))
		}
		for range 300 {
			if len(model) > 1 {
				if second := fresh.After(free, table[free].next); second != model[len(model)-2] {
					t.Fatalf("seed %d: entry %d is behind %d, not %d", seed, second, free, model[len(model)-2])
				}
			}
			if r.IntN(2) == 0 {
				if (free == None) != (len(model) == 0) {
					t.Fatalf("seed %d: %d is free, and there are %d", seed, free, len(model))
				}
				if free == None {
					continue
				}
				at := free
				if want := model[len(model)-1]; at != want {
					t.Fatalf("seed %d: took entry %d, not %d", seed, at, want)
				}
				free = fresh.Take(at, table[at].next)
				table[at] = entry{used: true}
				model, taken = model[:len(model)-1], append(taken, at)
			} else if len(taken) > 0 {
				i := r.IntN(len(taken))
				at := taken[i]
				taken = append(taken[:i], taken[i+1:]...)
				table[at].next, free = free, at
				model = append(model, at)
			}
		}
		if n := fresh.Count(free, func(at int32) int32 { return table[at].next }); n != len(model) {
			t.Fatalf("seed %d: %d are free, not %d", seed, n, len(model))
		}
	}
}
