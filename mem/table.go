package mem

import (
	"fmt"
	"reflect"
	"unsafe"

	"golang.org/x/sys/unix"
)

// AllocateTable allocates a table of n zeroed entries from the arena. T must have no
// pointers, as the garbage collector does not see the arena. Errors are those of Allocate.
func AllocateTable[T any](arena *Arena, what string, n int) ([]T, error) {
	each := int(unsafe.Sizeof(*new(T)))
	block, err := arena.Allocate(what, n*each, 64)
	if err != nil {
		return nil, err
	}
	arena.allocated[len(arena.allocated)-1].Count = n
	return unsafe.Slice((*T)(block.Pointer()), n), nil
}

// AllocateGrowing is AllocateTable for a table that is used from its first entry on, and is
// resident as far as the region is told.
func AllocateGrowing[T any](arena *Arena, what string, n int) ([]T, *Region, error) {
	table, err := AllocateTable[T](arena, what, n)
	if err != nil {
		return nil, nil, err
	}
	return table, newRegion(arena, unsafe.Pointer(&table[0]), uintptr(n)*unsafe.Sizeof(table[0]), tableAheadBytes, arena.step()), nil
}

const (
	tableStepBytes  = 64 << 10  // in which a table becomes resident that is too small for huge pages
	tableAheadBytes = 256 << 10 // of a table beyond what is used: more than is used in the time that another thread takes to be woken
)

// MapTable maps a table of n zeroed entries beside the arena; Unmap unmaps it too. It is
// resident as far as it is used: the shard tells the region how far that is. T must have no
// pointers but to memory that is mapped as an arena's is: the garbage collector sees
// neither. Errors: the arena is sealed; ENOMEM.
func MapTable[T any](arena *Arena, what string, n int) ([]T, *Region, error) {
	if n == 0 {
		return nil, nil, nil
	}
	if kind := reflect.TypeFor[T](); pointsIntoHeap(kind) {
		return nil, nil, fmt.Errorf("mem: the table %s of %s would hide Go's heap from its collector", what, kind)
	}
	each := unsafe.Sizeof(*new(T))
	at, region, err := arena.mapTable(what, uintptr(n), each)
	if err != nil {
		return nil, nil, err
	}
	return unsafe.Slice((*T)(at), n), region, nil
}

// mapping is what was mapped for a table.
type mapping struct {
	at    unsafe.Pointer
	bytes uintptr
}

func (a *Arena) mapTable(what string, n, each uintptr) (unsafe.Pointer, *Region, error) {
	if a.sealed {
		return nil, nil, fmt.Errorf("mem: table %s asks for %d bytes beside a sealed arena", what, n*each)
	}
	size := (n*each + BlockBytes - 1) &^ (BlockBytes - 1)
	whole, huge := size, a.huge && size >= hugePageBytes
	if huge {
		whole += hugePageBytes
	}
	mapped, err := unix.MmapPtr(-1, 0, nil, whole, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, nil, fmt.Errorf("mem: mapping the table %s of %d KiB: %w", what, size>>10, err)
	}
	a.tableMappings = append(a.tableMappings, mapping{mapped, whole})
	a.tables = append(a.tables, Allocation{what, int(n * each), int(n)})
	at, step := mapped, uintptr(tableStepBytes)
	if huge {
		at, step = unsafe.Add(mapped, -uintptr(mapped)&(hugePageBytes-1)), hugePageBytes
	}
	bytes := unsafe.Slice((*byte)(at), size)
	if huge {
		_ = unix.Madvise(bytes, unix.MADV_HUGEPAGE) // without them there are more pages
	} else {
		_ = unix.Madvise(bytes, unix.MADV_NOHUGEPAGE) // else a first entry takes 2 MiB where the machine gives huge pages to all
	}
	return at, newRegion(a, at, n*each, tableAheadBytes, step), nil
}

// Tables is what was mapped with MapTable, in that order.
func (a *Arena) Tables() []Allocation { return a.tables }

// Owns reports whether the arena or one of its tables has that byte.
func (a *Arena) Owns(at unsafe.Pointer) bool {
	return uintptr(at) >= uintptr(a.whole) && uintptr(at) < uintptr(a.whole)+a.bytes || a.InTable(at)
}

// InTable reports whether one of the tables beside the arena has that byte.
func (a *Arena) InTable(at unsafe.Pointer) bool {
	for _, m := range a.tableMappings {
		if uintptr(at) >= uintptr(m.at) && uintptr(at) < uintptr(m.at)+m.bytes {
			return true
		}
	}
	return false
}

// pointsIntoHeap reports whether values of a type can have pointers to Go's heap. A Block
// has one to an arena.
func pointsIntoHeap(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32,
		reflect.Uint64, reflect.Float32, reflect.Float64:
		return false
	case reflect.Array:
		return pointsIntoHeap(t.Elem())
	case reflect.Struct:
		if t == reflect.TypeFor[Block]() {
			return false
		}
		for i := range t.NumField() {
			if pointsIntoHeap(t.Field(i).Type) {
				return true
			}
		}
		return false
	}
	return true
}

// lockAsTouched locks pages as they become resident, and not before.
func lockAsTouched(b []byte) error {
	const onFault = 1 // MLOCK_ONFAULT
	_, _, errno := unix.Syscall(unix.SYS_MLOCK2, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), onFault)
	if errno != 0 {
		return errno
	}
	return nil
}
