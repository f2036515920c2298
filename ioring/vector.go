package ioring

import (
	"unsafe"

	"github.com/tailbound/tailbound/mem"
)

type piece struct {
	base unsafe.Pointer
	size uint64
}

// SetPiece makes p the i-th piece of the vector in buf. p must be arena memory
// and stays lent until the Send's completion is reaped.
func SetPiece(buf mem.Block, i int, p []byte) {
	at := buf.Slice(VectorHeaderBytes+16*i, 16)
	*(*piece)(at.Pointer()) = piece{unsafe.Pointer(unsafe.SliceData(p)), uint64(len(p))}
}

// Piece is the i-th piece of the vector in buf.
func Piece(buf mem.Block, i int) []byte {
	at := buf.Slice(VectorHeaderBytes+16*i, 16)
	p := (*piece)(at.Pointer())
	return unsafe.Slice((*byte)(p.base), int(p.size))
}
