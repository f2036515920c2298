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
//	48 body CRC 4 | 52 header CRC of the frame or run before 4 | 56 reserved: key id 4, nonce 12, tag 16
//	88 reserved: term 8, first index 8, last index 8 | 112 of its own
type Header struct {
	Magic      uint32
	Compatible uint32 // feature bits
	Directory  [16]byte
	Epoch      uint32
	BodyBytes  uint32
	CRC        uint32 // of the header; computed by Put, checked by Get
	BodyCRC    uint32
	Previous   uint32
}

// put writes the common part, without its CRC.
func (h *Header) put(buf []byte) {
	clear(buf[:112])
	le.PutUint32(buf, h.Magic)
	le.PutUint16(buf[4:], Version)
	le.PutUint16(buf[6:], HeaderBytes)
	le.PutUint32(buf[8:], h.Compatible)
	copy(buf[16:], h.Directory[:])
	le.PutUint32(buf[32:], h.Epoch)
	le.PutUint32(buf[36:], h.BodyBytes)
	le.PutUint32(buf[48:], h.BodyCRC)
	le.PutUint32(buf[52:], h.Previous)
}

// seal computes the header's CRC, for which its own field counts as zero.
func (h *Header) seal(buf []byte) {
	le.PutUint32(buf[44:], 0)
	h.CRC = CRC(buf[:HeaderBytes])
	le.PutUint32(buf[44:], h.CRC)
}

// get parses the common part. ok: it is a header, and whole; newer then names what it
// needs of a later version, "" if nothing. A longer header of a later version has its CRC
// in the same place, over all of it.
func (h *Header) get(buf []byte, magic uint32) (newer string, ok bool) {
	if len(buf) < HeaderBytes || le.Uint32(buf) != magic {
		return "", false
	}
	version, length := le.Uint16(buf[4:]), int(le.Uint16(buf[6:]))
	if length < HeaderBytes || length > len(buf) {
		return "", false
	}
	h.Magic, h.CRC = magic, le.Uint32(buf[44:])
	var zero [4]byte
	crc := crc32.Update(0, castagnoli, buf[:44])
	crc = crc32.Update(crc, castagnoli, zero[:])
	if crc32.Update(crc, castagnoli, buf[48:length]) != h.CRC {
		return "", false
	}
	h.Compatible = le.Uint32(buf[8:])
	copy(h.Directory[:], buf[16:])
	h.Epoch, h.BodyBytes = le.Uint32(buf[32:]), le.Uint32(buf[36:])
	h.BodyCRC, h.Previous = le.Uint32(buf[48:]), le.Uint32(buf[52:])
	switch {
	case version != Version:
		return fmt.Sprintf("frames or runs of version %d", version), true
	case length != HeaderBytes:
		return fmt.Sprintf("frames or runs with headers of %d bytes", length), true
	}
	return pieceNeeds.first(le.Uint32(buf[12:]), "frames and runs"), true
}
