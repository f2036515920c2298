package mem

import "unsafe"

// None is the index of no entry.
const None = int32(-1)

// Links are an entry's neighbours in one list, None at its ends. An entry has
// one field of this type for each list that it can be in at a time.
type Links struct{ Next, Prev int32 }

// List is the two ends of a doubly linked list of table entries. The zero List
// is not an empty one: EmptyList is.
//
// Invariant: First == None exactly where Last == None.
type List struct{ First, Last int32 }

// EmptyList holds no entry.
var EmptyList = List{None, None}

// Empty says whether the list holds no entry.
func (l *List) Empty() bool { return l.First == None }

// Stack is a singly linked list of table entries, through their Next: the
// entries that are free. The zero Stack is not an empty one.
type Stack struct{ Top int32 }

// Thread runs lists through the entries of one table, by index. Any number of
// Lists and Stacks may share it, as long as an entry is in one of them at a
// time. It allocates nothing and is not generic beyond its construction, so that
// its methods cost what hand-written links do. The table must not be reallocated.
type Thread struct {
	first   unsafe.Pointer // the links of entry 0
	stride  uintptr
	entries int
}

// ThreadOf makes a Thread through the field of the table's entries that field
// points at. field is called here only.
func ThreadOf[T any](table []T, field func(*T) *Links) Thread {
	if len(table) == 0 {
		return Thread{}
	}
	return Thread{unsafe.Pointer(field(&table[0])), unsafe.Sizeof(table[0]), len(table)}
}

func (t *Thread) at(i int32) *Links {
	if uint(i) >= uint(t.entries) {
		panic("mem: a list runs out of its table")
	}
	return (*Links)(unsafe.Add(t.first, uintptr(i)*t.stride))
}

// Next is the entry behind i, None behind the last.
func (t *Thread) Next(i int32) int32 { return t.at(i).Next }

// PushFront puts entry i, which is in no list, before all others.
func (t *Thread) PushFront(l *List, i int32) {
	x := t.at(i)
	x.Next, x.Prev = l.First, None
	if l.First != None {
		t.at(l.First).Prev = i
	} else {
		l.Last = i
	}
	l.First = i
}

// PushBack puts entry i, which is in no list, behind all others.
func (t *Thread) PushBack(l *List, i int32) {
	x := t.at(i)
	x.Next, x.Prev = None, l.Last
	if l.Last != None {
		t.at(l.Last).Next = i
	} else {
		l.First = i
	}
	l.Last = i
}

// InsertAfter puts entry i, which is in no list, behind entry after of l; None
// puts it before all others.
func (t *Thread) InsertAfter(l *List, after, i int32) {
	if after == None {
		t.PushFront(l, i)
		return
	}
	if after == l.Last {
		t.PushBack(l, i)
		return
	}
	x, before := t.at(i), t.at(after)
	x.Next, x.Prev = before.Next, after
	t.at(before.Next).Prev = i
	before.Next = i
}

// Remove takes entry i out of l, which holds it.
func (t *Thread) Remove(l *List, i int32) {
	x := t.at(i)
	if x.Prev != None {
		t.at(x.Prev).Next = x.Next
	} else {
		l.First = x.Next
	}
	if x.Next != None {
		t.at(x.Next).Prev = x.Prev
	} else {
		l.Last = x.Prev
	}
	x.Next, x.Prev = None, None
}

// Fill has the stack hold every entry of the table, the first on top.
func (t *Thread) Fill(s *Stack) {
	s.Top = None
	for i := t.entries - 1; i >= 0; i-- {
		t.Push(s, int32(i))
	}
}

// Push puts entry i, which is in no list, on top.
func (t *Thread) Push(s *Stack, i int32) {
	t.at(i).Next = s.Top
	s.Top = i
}

// Pop takes the top entry, None where the stack is empty.
func (t *Thread) Pop(s *Stack) int32 {
	i := s.Top
	if i != None {
		s.Top = t.at(i).Next
	}
	return i
}
