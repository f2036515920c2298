package mem

import (
	"math/rand/v2"
	"slices"
	"testing"
)

type listed struct {
	_    [3]byte
	a    Links
	kept int64
	b    Links
}

// Lists through two fields of the same table, against slices.
func TestListsAgainstSlices(t *testing.T) {
	table := make([]listed, 40)
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		threads := []Thread{ThreadOf(table, func(x *listed) *Links { return &x.a }), ThreadOf(table, func(x *listed) *Links { return &x.b })}
		for k := range threads {
			thread := &threads[k]
			var free Stack
			thread.Fill(&free, nil)
			lists, models := []List{EmptyList, EmptyList}, make([][]int32, 2)
			for range 500 {
				n := r.IntN(2)
				list, model := &lists[n], models[n]
				if r.IntN(2) == 0 {
					i := thread.Pop(&free)
					if i == None {
						if len(models[0])+len(models[1]) != len(table) {
							t.Fatal("the stack is empty though entries are free")
						}
						continue
					}
					at := r.IntN(len(model) + 1)
					switch {
					case at == 0 && r.IntN(2) == 0:
						thread.PushFront(list, i)
					case at == len(model) && r.IntN(2) == 0:
						thread.PushBack(list, i)
					case at == 0:
						thread.InsertAfter(list, None, i)
					default:
						thread.InsertAfter(list, model[at-1], i)
					}
					models[n] = slices.Insert(model, at, i)
				} else if len(model) > 0 {
					at := r.IntN(len(model))
					i := model[at]
					thread.Remove(list, i)
					thread.Push(&free, i)
					models[n] = slices.Delete(model, at, at+1)
				}
				for n := range lists {
					compareList(t, thread, &lists[n], models[n])
				}
			}
		}
	}
	for i := range table {
		if table[i].kept != 0 {
			t.Fatal("a list wrote beside its links")
		}
	}
}

func compareList(t *testing.T, thread *Thread, list *List, model []int32) {
	t.Helper()
	if list.Empty() != (len(model) == 0) || (list.First == None) != (list.Last == None) {
		t.Fatalf("list %v; want %v", *list, model)
	}
	at, before := list.First, None
	for _, want := range model {
		if at != want || thread.at(at).Prev != before {
			t.Fatalf("entry %d behind %d; want %d", at, before, want)
		}
		at, before = thread.Next(at), at
	}
	if at != None || list.Last != before {
		t.Fatalf("the list ends at %d, %d; want %v", before, list.Last, model)
	}
}

func TestListOutOfItsTable(t *testing.T) {
	for _, n := range []int{0, 4} {
		thread := ThreadOf(make([]listed, n), func(x *listed) *Links { return &x.b })
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("an entry behind a table of %d", n)
				}
			}()
			l := EmptyList
			thread.PushBack(&l, int32(n))
		}()
	}
}

func TestListsAllocateNothing(t *testing.T) {
	table := make([]listed, 8)
	thread, l := ThreadOf(table, func(x *listed) *Links { return &x.a }), EmptyList
	if n := testing.AllocsPerRun(100, func() {
		thread.PushFront(&l, 3)
		thread.PushBack(&l, 5)
		thread.InsertAfter(&l, 3, 4)
		for !l.Empty() {
			thread.Remove(&l, l.First)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
