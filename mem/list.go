package mem

import "unsafe"

// None is the index of no entry.
const None = int32(-1)

// Links are an entry's neighbours in one list, None at its ends. An entry has one field of
// this type for each list that it can be in at the same time.
type Links struct{ Next, Prev int32 }

// List is the two ends of a doubly linked list of table entries. The empty list is
// EmptyList, not the zero value.
//
// Invariant: First == None if and only if Last == None.
type List struct{ First, Last int32 }

// EmptyList is a list without entries.
var EmptyList = List{None, None}

// Empty reports whether the list has no entries.
func (l *List) Empty() bool { return l.First == None }

// Stack is a singly linked list of table entries, through their Next; it is for the free
// entries of a table. The zero value is not empty.
type Stack struct {
	Top   int32
	fresh Fresh
}

// Fresh is the entries of a table that were never used. They are the last ones of its list
// of free entries, and are linked only as they are taken, so that a table costs no more
// memory than what was used of it. The zero value is a table without entries.
//
// Invariant: while there are any, the first of them is on the list of free entries, whatever
// it says is behind it, and the others are not.
type Fresh struct {
	first, entries int32
	stride         uintptr
	region         *Region // of the table; nil: it is resident, or in Go's heap
}

// FreshOf is a table none of whose entries was used, and its first free entry.
func FreshOf[T any](table []T, region *Region) (fresh Fresh, free int32) {
	if len(table) == 0 {
		return Fresh{}, None
	}
	return Fresh{0, int32(len(table)), unsafe.Sizeof(table[0]), region}, 0
}

// After is the free entry behind a free one that says it is next.
func (f *Fresh) After(entry, next int32) int32 {
	if !f.isFirst(entry) {
		return next
	}
	if entry+1 == f.entries {
		return None
	}
	return entry + 1
}

// Take is called when the first free entry is taken, which says that next is behind it. It
// is the one that is now the first.
func (f *Fresh) Take(entry, next int32) int32 {
	if entry != f.first {
		return next
	}
	return f.advance()
}

// Count is how many entries are free, from the first free one on. next is what a free entry
// says is behind it.
func (f *Fresh) Count(free int32, next func(int32) int32) (n int) {
	for ; free != None && !f.isFirst(free); free = next(free) {
		n++
	}
	if free != None {
		n += int(f.entries - f.first)
	}
	return n
}

func (f *Fresh) isFirst(entry int32) bool { return entry == f.first && f.entries > 0 }

func (f *Fresh) advance() int32 {
	f.first++
	if f.region != nil {
		f.region.Use(int(uintptr(f.first) * f.stride))
	}
	if f.first == f.entries {
		f.first = None // no entry
		return None
	}
	return f.first
}

// Thread links the entries of one table into lists, by index. Any number of Lists and
// Stacks may share it, as long as an entry is in one of them at a time. It allocates
// nothing, and only its construction is generic, so that its methods cost what
// hand-written links do. The table must not be reallocated.
type Thread struct {
	first   unsafe.Pointer // the links of entry 0
	stride  uintptr
	entries int
}

// ThreadOf makes a Thread of the Links that field selects in each entry of a table. field
// is called here only.
func ThreadOf[T any](table []T, field func(*T) *Links) Thread {
	if len(table) == 0 {
		return Thread{}
	}
	return Thread{unsafe.Pointer(field(&table[0])), unsafe.Sizeof(table[0]), len(table)}
}

func (t *Thread) at(entry int32) *Links {
	if uint(entry) >= uint(t.entries) {
		panic("mem: a list runs out of its table")
	}
	return (*Links)(unsafe.Add(t.first, uintptr(entry)*t.stride))
}

// Next is the entry after this one, None after the last.
func (t *Thread) Next(entry int32) int32 { return t.at(entry).Next }

// PushFront puts an entry that is in no list before all others.
func (t *Thread) PushFront(list *List, entry int32) {
	links := t.at(entry)
	links.Next, links.Prev = list.First, None
	if list.First != None {
		t.at(list.First).Prev = entry
	} else {
		list.Last = entry
	}
	list.First = entry
}

// PushBack puts an entry that is in no list behind all others.
func (t *Thread) PushBack(list *List, entry int32) {
	links := t.at(entry)
	links.Next, links.Prev = None, list.Last
	if list.Last != None {
		t.at(list.Last).Next = entry
	} else {
		list.First = entry
	}
	list.Last = entry
}

// InsertAfter puts an entry that is in no list behind another one of the list; with after
// None, before all others.
func (t *Thread) InsertAfter(list *List, after, entry int32) {
	if after == None {
		t.PushFront(list, entry)
		return
	}
	if after == list.Last {
		t.PushBack(list, entry)
		return
	}
	links, before := t.at(entry), t.at(after)
	links.Next, links.Prev = before.Next, after
	t.at(before.Next).Prev = entry
	before.Next = entry
}

// Remove takes an entry out of the list that it is in.
func (t *Thread) Remove(list *List, entry int32) {
	links := t.at(entry)
	if links.Prev != None {
		t.at(links.Prev).Next = links.Next
	} else {
		list.First = links.Next
	}
	if links.Next != None {
		t.at(links.Next).Prev = links.Prev
	} else {
		list.Last = links.Prev
	}
	links.Next, links.Prev = None, None
}

// Fill puts every entry of the table on the stack, the first one on top. None was used
// before. region is the table's, nil if it has none.
func (t *Thread) Fill(stack *Stack, region *Region) {
	stack.Top, stack.fresh = None, Fresh{}
	if t.entries > 0 {
		stack.Top, stack.fresh = 0, Fresh{0, int32(t.entries), t.stride, region}
	}
}

// Push puts an entry that is in no list on top.
func (t *Thread) Push(stack *Stack, entry int32) {
	t.at(entry).Next = stack.Top
	stack.Top = entry
}

// Pop takes the top entry; None: the stack is empty.
func (t *Thread) Pop(stack *Stack) int32 {
	entry := stack.Top
	if entry != None {
		stack.Top = stack.fresh.Take(entry, t.at(entry).Next)
	}
	return entry
}
