package ioring

import (
	"encoding/binary"

	"github.com/tailbound/tailbound/mem"
)

// Blocking executes one operation at a time and waits for it. It is for opening, checking and
// repairing a directory, before any shard runs. Its errors are OpErrors. Several may be
// the Lanes of a ring.
//
// Its callers use the file slots First to First+7; SyncDirectory uses First+5.
type Blocking struct {
	First uint32 // the first of its file slots

	ring   Ring
	kind   uint8     // of its tokens
	buf    mem.Block // for what is read and written
	path   mem.Block // for paths, and the result of Stat
	paths  [8]string // of the last file opened in each slot, for errors
	lanes  *Lanes    // that it is one of, at present; nil: it has the ring to itself
	lane   uint32    // its number there
	tally  *Tally
	broken bool // the ring's Wait was left by a panic: every operation fails, deferred closes too
}

// NewBlocking makes a Blocking on a ring on which nothing else is in flight. buf and path are
// whole blocks of arena memory, kind is that of its tokens, first the first of its file
// slots.
func NewBlocking(ring Ring, buf, path mem.Block, kind uint8, first uint32) *Blocking {
	return &Blocking{First: first, ring: ring, kind: kind, buf: buf, path: path, tally: &Tally{}}
}

// Beside makes another Blocking on the same ring, with the same Tally, for Lanes.
func (b *Blocking) Beside(buf, path mem.Block, first uint32) *Blocking {
	return &Blocking{First: first, ring: b.ring, kind: b.kind, buf: buf, path: path, tally: b.tally}
}

// Tally is how many operations were executed, and with how many bytes.
type Tally struct {
	Opens, Reads, Writes, Syncs uint64
	ReadBytes, WriteBytes       uint64
}

// Tally is what b, and all that were made Beside it, have done.
func (b *Blocking) Tally() Tally { return *b.tally }

func (t *Tally) add(code Code, result int32) {
	switch code {
	case Open:
		t.Opens++
	case Read:
		t.Reads++
		t.ReadBytes += uint64(max(0, result))
	case Write:
		t.Writes++
		t.WriteBytes += uint64(max(0, result))
	case Sync:
		t.Syncs++
	}
}

// do executes one operation, again if it was interrupted.
func (b *Blocking) do(op Op) int32 {
	op.Token = MakeToken(b.kind, 0, b.lane)
	for !b.broken {
		b.broken = true // unless this comes to its end
		result, ok := b.await(op)
		if !ok {
			break
		}
		b.broken = false
		b.tally.add(op.Code, result)
		if Judge(op.Code, result) != Again {
			return result
		}
	}
	return -int32(EIO)
}

// await pushes an operation and waits for its completion. ok is false if the lanes were left.
func (b *Blocking) await(op Op) (result int32, ok bool) {
	if b.lanes != nil {
		return b.lanes.do(b.lane, op)
	}
	for !b.ring.Push(op) {
		b.ring.Wait(0)
	}
	var out [1]Completion
	for b.ring.Reap(out[:]) == 0 {
		b.ring.Wait(Never)
	}
	if out[0].Token.Kind() != b.kind {
		panic("ioring: something else is in flight while the directory is opened")
	}
	return out[0].Result, true
}

// name writes a path where operations take it from.
func (b *Blocking) name(path string) mem.Block {
	buf := b.path.Bytes()
	n := copy(buf, path)
	buf[n] = 0
	return b.path
}

// failure is the error of an operation that failed, with a negative result, or was short.
func failure(code Code, path string, offset, length int64, result int32) error {
	return &OpError{Op: code, Path: path, Offset: offset, Length: length, Errno: Errno(max(0, -result))}
}

// MissingFile is the error of a file that must exist and does not.
func MissingFile(path string) error {
	return &OpError{Op: Open, Path: path, Errno: ENOENT}
}

// PathOf is the path of the last file opened in a slot.
func (b *Blocking) PathOf(slot uint32) string { return b.paths[slot-b.First] }

// Open opens a path into a slot. found is false if there is no such file; any other failure
// is an error.
func (b *Blocking) Open(slot uint32, path string, bits uint64) (found bool, err error) {
	b.paths[slot-b.First] = path
	result := b.do(Op{Code: Open, File: slot, Arg: bits, Buf: b.name(path)})
	switch Judge(Open, result) {
	case Good:
	case Missing:
		return false, nil
	default:
		return false, failure(Open, path, 0, 0, result)
	}
	return true, nil
}

// Close closes slot.
func (b *Blocking) Close(slot uint32) { b.do(Op{Code: Close, File: slot}) }

// Need opens path into slot; it has to be there.
func (b *Blocking) Need(slot uint32, path string, bits uint64) error {
	found, err := b.Open(slot, path, bits)
	if err == nil && !found {
		err = MissingFile(path)
	}
	return err
}

// Sync makes a file durable, with its size and other metadata.
func (b *Blocking) Sync(slot uint32) error {
	if result := b.do(Op{Code: Sync, Flags: FlagFull, File: slot}); result < 0 {
		return failure(Sync, b.PathOf(slot), 0, 0, result)
	}
	return nil
}

// SyncDirectory makes the names in a directory durable.
func (b *Blocking) SyncDirectory(path string) error {
	slot := b.First + 5
	if err := b.Need(slot, path, OpenDirectory|OpenReadOnly); err != nil {
		return err
	}
	defer b.Close(slot)
	return b.Sync(slot)
}

// Mkdir makes a directory, unless it exists.
func (b *Blocking) Mkdir(path string) error {
	if result := b.do(Op{Code: Mkdir, Buf: b.name(path)}); result < 0 && Judge(Mkdir, result) != Exists {
		return failure(Mkdir, path, 0, 0, result)
	}
	return nil
}

// Size is the size of a file, in bytes.
func (b *Blocking) Size(slot uint32) (int64, error) {
	if result := b.do(Op{Code: Stat, File: slot, Buf: b.path}); result < 0 {
		return 0, failure(Stat, b.PathOf(slot), 0, 0, result)
	}
	return int64(binary.LittleEndian.Uint64(b.path.Bytes())), nil
}

// SeekData is the offset of the first byte of a file at off or behind it that may have been
// written; 2^63-1 if there is none.
func (b *Blocking) SeekData(slot uint32, off int64) (int64, error) {
	if result := b.do(Op{Code: SeekData, File: slot, Offset: uint64(off), Buf: b.path}); result < 0 {
		return 0, failure(SeekData, b.PathOf(slot), off, 0, result)
	}
	return int64(binary.LittleEndian.Uint64(b.path.Bytes())), nil
}

// Read reads n bytes at off, or fewer if the file ends before. Both are whole blocks. What it
// returns is Buffer's, and valid until the next Read, Write, Zero or List, unless n is
// more than that.
func (b *Blocking) Read(slot uint32, off int64, n int) ([]byte, error) {
	if n > b.buf.Len() {
		return b.readLarge(slot, off, n)
	}
	for have := 0; ; {
		at := have &^ (mem.BlockBytes - 1)
		result := b.do(Op{Code: Read, File: slot, Offset: uint64(off) + uint64(at), Buf: b.buf.Slice(at, n-at)})
		if result < 0 {
			return b.buf.Bytes()[:at], failure(Read, b.PathOf(slot), off+int64(at), int64(n-at), result)
		}
		if have = at + int(result); have >= n || int(result) < mem.BlockBytes {
			return b.buf.Bytes()[:have], nil
		}
	}
}

// readLarge is Read into memory of Go's heap.
func (b *Blocking) readLarge(slot uint32, off int64, n int) ([]byte, error) {
	buf := make([]byte, 0, n)
	for len(buf) < n {
		at := len(buf) &^ (mem.BlockBytes - 1)
		buf = buf[:at]
		length := min(n-at, b.buf.Len())
		result := b.do(Op{Code: Read, File: slot, Offset: uint64(off) + uint64(at), Buf: b.buf.Slice(0, length)})
		if result < 0 {
			return buf, failure(Read, b.PathOf(slot), off+int64(at), int64(length), result)
		}
		buf = append(buf, b.buf.Bytes()[:result]...)
		if int(result) < mem.BlockBytes {
			break
		}
	}
	return buf, nil
}

// Buffer is the memory that is read into and written from. WriteBuffer writes what was put
// together there.
func (b *Blocking) Buffer() []byte { return b.buf.Bytes() }

// WriteBuffer writes the first n bytes of Buffer at off. Both are whole blocks.
func (b *Blocking) WriteBuffer(slot uint32, off int64, n int) error {
	for at := 0; at < n; {
		result := b.do(Op{Code: Write, File: slot, Offset: uint64(off) + uint64(at), Buf: b.buf.Slice(at, n-at)})
		if result < mem.BlockBytes {
			return failure(Write, b.PathOf(slot), off+int64(at), int64(n-at), result)
		}
		at += int(result) &^ (mem.BlockBytes - 1)
	}
	return nil
}

// Write writes whole blocks at off. buf is not Buffer's.
func (b *Blocking) Write(slot uint32, off int64, buf []byte) error {
	for len(buf) > 0 {
		length := copy(b.buf.Bytes(), buf)
		result := b.do(Op{Code: Write, File: slot, Offset: uint64(off), Buf: b.buf.Slice(0, length)})
		if result < mem.BlockBytes {
			return failure(Write, b.PathOf(slot), off, int64(length), result)
		}
		length = int(result) &^ (mem.BlockBytes - 1)
		buf, off = buf[length:], off+int64(length)
	}
	return nil
}

// Zero writes zeroes to the bytes from from to to - 1, and syncs the file.
func (b *Blocking) Zero(slot uint32, from, to int64) error {
	from &^= mem.BlockBytes - 1
	clear(b.buf.Bytes())
	for from < to {
		length := int(min(to-from, int64(b.buf.Len())))
		result := b.do(Op{Code: Write, File: slot, Offset: uint64(from), Buf: b.buf.Slice(0, length)})
		if result < mem.BlockBytes {
			return failure(Write, b.PathOf(slot), from, int64(length), result)
		}
		from += int64(result) &^ (mem.BlockBytes - 1)
	}
	return b.Sync(slot)
}

// List is the names in a directory, in lexical order.
func (b *Blocking) List(path string) (names []string, err error) {
	for {
		buf := b.buf.Bytes()
		buf[copy(buf, path)] = 0
		result := b.do(Op{Code: List, Offset: uint64(len(names)), Buf: b.buf})
		if result < 0 {
			return nil, failure(List, path, 0, 0, result)
		}
		if result == 0 {
			return names, nil
		}
		for range result {
			n := 0
			for buf[n] != 0 {
				n++
			}
			names = append(names, string(buf[:n]))
			buf = buf[n+1:]
		}
	}
}

// Allocate reserves length bytes of a file at off; the file grows to hold them.
func (b *Blocking) Allocate(slot uint32, off, length int64) error {
	if result := b.do(Op{Code: Allocate, File: slot, Offset: uint64(off), Arg: uint64(length)}); result < 0 {
		return failure(Allocate, b.PathOf(slot), off, length, result)
	}
	return nil
}

// Unlink removes a file if it exists. Its failure is ignored: the next opening of the directory
// tries again.
func (b *Blocking) Unlink(path string) { b.do(Op{Code: Unlink, Buf: b.name(path)}) }
