package recovery

import (
	"encoding/binary"
	"unsafe"

	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/mem"
)

// store holds the data entries of one shard's journal until they are in segments. Its memory is
// mapped as it is needed, outside of Go's heap, and kept for the next shard: there may be
// as much of it as the journal is long. The entries of a log are a chain in the order of
// the journal.
//
// Invariant: no pointer into Go's heap is in it.
type store struct {
	mapped []*mem.Arena
	chunks [][]byte
	at     int // the chunk that is being filled
	used   int // bytes of it
}

// storeChunkBytes is how much the store takes at a time. A larger entry gets a chunk of its own.
const storeChunkBytes = 4 << 20

// link is a place in the store: one more than the chunk << 32 | the offset in it; 0: none.
type link uint64

// chain is the entries of one log.
type chain struct {
	first, last link
	count       int
}

// storedBytes is what an entry has in front of it in the store: the link to the next 8, its
// length 4, the broken frame's journal 4 and position 8.
const storedBytes = 24

// take gives n bytes, which are not zeroed.
func (s *store) take(n int) ([]byte, link) {
	n = format.Align8(n)
	for s.at < len(s.chunks) && s.used+n > len(s.chunks[s.at]) {
		s.at, s.used = s.at+1, 0
	}
	if s.at == len(s.chunks) {
		size := max(n, storeChunkBytes)
		s.chunks = append(s.chunks, s.mapChunk(size))
	}
	from := s.used
	s.used += n
	return s.chunks[s.at][from:s.used:s.used], link(s.at)<<32 | link(from) + 1
}

// mapChunk maps memory.
func (s *store) mapChunk(bytes int) []byte {
	arena, err := mem.Map(bytes, mem.Options{})
	if err == nil {
		var block mem.Block
		if block, err = arena.Allocate("recovery", bytes, format.BlockBytes); err == nil {
			s.mapped = append(s.mapped, arena)
			return block.Bytes()
		}
		arena.Unmap()
	}
	return make([]byte, bytes) // which ends the process if there is no memory at all
}

// close unmaps all. No entry of the store may be used afterwards.
func (s *store) close() {
	for _, arena := range s.mapped {
		arena.Unmap()
	}
	*s = store{}
}

// reset makes the store empty. Its memory is kept.
func (s *store) reset() { s.at, s.used = 0, 0 }

// bytes is what is at a place.
func (s *store) bytes(at link) []byte {
	at--
	return s.chunks[at>>32][uint32(at):]
}

// add adds an entry to a log's chain: its header and batch. Of one in a broken frame it is the
// header alone, or nothing.
func (s *store) add(to *chain, bytes []byte, broken brokenFrame) {
	stored, at := s.take(storedBytes + len(bytes))
	le := binary.LittleEndian
	le.PutUint64(stored, 0)
	le.PutUint32(stored[8:], uint32(len(bytes)))
	le.PutUint32(stored[12:], uint32(broken.journal))
	le.PutUint64(stored[16:], uint64(broken.at))
	copy(stored[storedBytes:], bytes)
	if to.last == 0 {
		to.first = at
	} else {
		le.PutUint64(s.bytes(to.last), uint64(at))
	}
	to.last = at
	to.count++
}

// entries is a chain as a table, in the store.
func (s *store) entries(of *chain) []replayedEntry {
	if of.count == 0 {
		return nil
	}
	memory, _ := s.take(of.count * int(unsafe.Sizeof(replayedEntry{})))
	all := unsafe.Slice((*replayedEntry)(unsafe.Pointer(unsafe.SliceData(memory))), of.count)
	le, at := binary.LittleEndian, of.first
	for i := range all {
		stored := s.bytes(at)
		bytes := stored[storedBytes:][:le.Uint32(stored[8:])]
		all[i] = replayedEntry{frame: brokenFrame{int32(le.Uint32(stored[12:])), int64(le.Uint64(stored[16:]))}}
		if len(bytes) > 0 {
			all[i].Entry.Read(bytes)
		}
		if all[i].frame.journal == 0 {
			all[i].bytes = bytes
		}
		at = link(le.Uint64(stored))
	}
	return all
}
