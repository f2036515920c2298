package mem

import (
	"math/rand/v2"
	"strings"
	"testing"
)

func arena(t *testing.T, n int) *Arena {
	t.Helper()
	a, err := Map(n, Options{Poison: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Unmap() })
	return a
}

func TestAllocateAfterSealIsRefused(t *testing.T) {
	a := arena(t, 1<<20)
	if _, err := a.Allocate("early", 4096, 4096); err != nil {
		t.Fatal(err)
	}
	a.Seal()
	_, err := a.Allocate("late", 64, 64)
	if err == nil || !strings.Contains(err.Error(), "late") || !strings.Contains(err.Error(), "sealed") {
		t.Fatalf("carving a sealed arena: %v; want an error that names who asked", err)
	}
}

func TestAllocateBeyondTheArenaIsRefused(t *testing.T) {
	a := arena(t, 2<<20)
	if _, err := a.Allocate("half", 1<<20, 4096); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Allocate("more", 1<<20+1, 4096); err == nil {
		t.Fatal("allocated more than there is")
	}
	if _, err := a.Allocate("rest", 1<<20, 4096); err != nil {
		t.Fatal(err)
	}
}

func TestPoolReferencesAndPoison(t *testing.T) {
	a := arena(t, 1<<20)
	p, err := NewPool(a, "test", 4096, 2)
	if err != nil {
		t.Fatal(err)
	}
	i, _ := p.Get()
	k, _ := p.Get()
	x, y := p.Block(i), p.Block(k)
	if _, ok := p.Get(); ok || p.Low() != 0 {
		t.Fatal("a third block of two")
	}
	if x.Addr()%BlockBytes != 0 || y.Addr()%BlockBytes != 0 {
		t.Fatal("blocks of a multiple of 4 KiB are not aligned for direct I/O")
	}
	x.Bytes()[17] = 1
	p.Ref(i)
	if p.Unref(i) {
		t.Fatal("freed with a reference left")
	}
	if x.Bytes()[17] != 1 {
		t.Fatal("poisoned while referenced")
	}
	if !p.Unref(i) || x.Bytes()[17] != PoisonByte {
		t.Fatal("the last reference did not free and poison")
	}
	defer func() {
		if recover() == nil {
			t.Fatal("a second free went unnoticed")
		}
	}()
	p.Unref(i)
}

func TestBuddyNeverOverlapsAndComesBackWhole(t *testing.T) {
	a := arena(t, 4<<20)
	b, err := NewBuddy(a, "test", 64, 64<<10, 8)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	type lent struct {
		k    Block
		mark byte
	}
	var out []lent
	for step := range 20000 {
		if r.IntN(2) == 0 || len(out) == 0 {
			block, ok := b.Get(1 + r.IntN(1<<r.IntN(17)))
			if !ok {
				continue
			}
			mark := byte(step)
			for i := range block.Bytes() {
				block.Bytes()[i] = mark
			}
			out = append(out, lent{block, mark})
			continue
		}
		i := r.IntN(len(out))
		for _, c := range out[i].k.Bytes() {
			if c != out[i].mark {
				t.Fatalf("step %d: lent memory changed", step)
			}
		}
		b.Put(out[i].k)
		out[i] = out[len(out)-1]
		out = out[:len(out)-1]
	}
	for _, l := range out {
		b.Put(l.k)
	}
	for i := range 8 {
		if _, ok := b.Get(64 << 10); !ok {
			t.Fatalf("only %d of 8 whole blocks came back together", i)
		}
	}
	if b.InUse() != 8*64<<10 {
		t.Fatalf("in use: %d", b.InUse())
	}
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	a := arena(t, 1<<20)
	p, _ := NewPool(a, "test", 4096, 8)
	b, _ := NewBuddy(a, "test", 64, 4096, 8)
	if n := testing.AllocsPerRun(100, func() {
		x, _ := p.Get()
		p.Unref(x)
		y, _ := b.Get(100)
		b.Put(y)
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}
