package mem

import "unsafe"

// AllocateTable allocates a table of n zeroed entries. T must have no pointers, as the
// garbage collector does not see the arena. Errors are those of Allocate.
func AllocateTable[T any](arena *Arena, what string, n int) ([]T, error) {
	each := int(unsafe.Sizeof(*new(T)))
	block, err := arena.Allocate(what, n*each, 64)
	if err != nil {
		return nil, err
	}
	arena.allocated[len(arena.allocated)-1].Count = n
	return unsafe.Slice((*T)(block.Pointer()), n), nil
}
