package mem

import "unsafe"

// AllocateTable takes n zeroed entries of a table out of the arena. T must hold no
// pointers: the collector does not see the arena. Errors: as Allocate's.
func AllocateTable[T any](a *Arena, what string, n int) ([]T, error) {
	each := int(unsafe.Sizeof(*new(T)))
	b, err := a.Allocate(what, n*each, 64)
	if err != nil {
		return nil, err
	}
	a.carved[len(a.carved)-1].Count = n
	return unsafe.Slice((*T)(b.Pointer()), n), nil
}
