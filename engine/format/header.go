package format

import (
	"fmt"
	"hash/crc32"
)

// HeaderBytes is the length of the header of a frame and of a run.
const HeaderBytes = 256

// Header is the header that frames and runs have in common.
//
//	0 magic 4 | 4 version 2 | 6 header length 2 | 8 compatible features 4 | 12 incompatible features 4
//	16 directory id 16 | 32 epoch 4 | 36 body length 4 | 40 algorithm 2, flags 2 | 44 header CRC 4
//	48 body CRC 4 | 52 header CRC of the one before 4 | 56 reserved: key id 4, nonce 12, tag 16
//	88 reserved: term 8, first index 8, last index 8 | 112 of its own
type Header struct {
	Magic     uint32
	Directory [16]byte
	Epoch     uint32
	BodyBytes uint32
	CRC       uint32 // of the header; computed by Put, checked by Get
	BodyCRC   uint32
	Previous  uint32
}

func (h *Header) put(p []byte) {
	clear(p[:112])
	le.PutUint32(p, h.Magic)
	le.PutUint16(p[4:], Version)
	le.PutUint16(p[6:], HeaderBytes)
	copy(p[16:], h.Directory[:])
	le.PutUint32(p[32:], h.Epoch)
	le.PutUint32(p[36:], h.BodyBytes)
	le.PutUint32(p[48:], h.BodyCRC)
	le.PutUint32(p[52:], h.Previous)
}

// seal computes the header's CRC, with the CRC's own field taken as zero.
func (h *Header) seal(p []byte) {
	le.PutUint32(p[44:], 0)
	h.CRC = CRC(p[:HeaderBytes])
	le.PutUint32(p[44:], h.CRC)
}

// get parses the header. ok: it is one, and whole; newer then names what it
// needs that is not served. A longer header of a later version has its CRC over
// all of it, in the same place.
func (h *Header) get(p []byte, magic uint32) (newer string, ok bool) {
	if len(p) < HeaderBytes || le.Uint32(p) != magic {
		return "", false
	}
	version, length := le.Uint16(p[4:]), int(le.Uint16(p[6:]))
	if length < HeaderBytes || length > len(p) {
		return "", false
	}
	h.Magic, h.CRC = magic, le.Uint32(p[44:])
	var zero [4]byte
	c := crc32.Update(0, castagnoli, p[:44])
	c = crc32.Update(c, castagnoli, zero[:])
	if crc32.Update(c, castagnoli, p[48:length]) != h.CRC {
		return "", false
	}
	copy(h.Directory[:], p[16:])
	h.Epoch, h.BodyBytes = le.Uint32(p[32:]), le.Uint32(p[36:])
	h.BodyCRC, h.Previous = le.Uint32(p[48:]), le.Uint32(p[52:])
	switch {
	case version != Version:
		return fmt.Sprintf("frames or runs of version %d", version), true
	case length != HeaderBytes:
		return fmt.Sprintf("frames or runs with headers of %d bytes", length), true
	}
	return pieceNeeds.first(le.Uint32(p[12:]), "frames and runs"), true
}
