package ioring

import (
	"unsafe"

	"github.com/tailbound/tailbound/mem"
)

// piece is the kernel's struct iovec.
type piece struct {
	base unsafe.Pointer
	size uint64
}

// SetPiece makes some memory the i-th piece of the vector in buf. It must be arena memory, and
// is lent to the ring until the Send's completion is reaped.
func SetPiece(buf mem.Block, i int, memory []byte) {
	at := buf.Slice(VectorHeaderBytes+16*i, 16)
	*(*piece)(at.Pointer()) = piece{unsafe.Pointer(unsafe.SliceData(memory)), uint64(len(memory))}
}

// Piece is the i-th piece of the vector in buf.
func Piece(buf mem.Block, i int) []byte {
	at := buf.Slice(VectorHeaderBytes+16*i, 16)
	stored := (*piece)(at.Pointer())
	return unsafe.Slice((*byte)(stored.base), int(stored.size))
}
