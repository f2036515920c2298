package engine

import (
	"encoding/binary"

	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// blocking is what Recover, Check and New do before any shard runs: one
// operation at a time, in a straight line.
type blocking struct {
	ring  ioring.Ring
	buf   mem.Block // data
	path  mem.Block
	files uint32    // the ring slots it may use: files and the few after it
	paths [8]string // of what is open in them, for errors
	dead  bool      // the ring's Wait was left by a panic: nothing more is done, deferred closes neither
}

func newBlocking(ring ioring.Ring, arena *mem.Arena, files uint32) (*blocking, error) {
	buf, err := arena.Allocate("recovery", 1<<20, format.BlockBytes)
	if err != nil {
		return nil, err
	}
	path, err := arena.Allocate("recovery", format.BlockBytes, format.BlockBytes)
	return &blocking{ring: ring, buf: buf, path: path, files: files}, err
}

func (b *blocking) do(op ioring.Op) int32 {
	op.Token = ioring.MakeToken(kindBlocking, 0, 0)
	if b.dead {
		return -int32(ioring.EIO)
	}
	for {
		b.dead = true
		if !b.ring.Push(op) {
			b.ring.Wait(0)
			continue
		}
		var out [1]ioring.Completion
		for b.ring.Reap(out[:]) == 0 {
			b.ring.Wait(ioring.Never)
		}
		b.dead = false
		if out[0].Token.Kind() != kindBlocking {
			panic("engine: something else is in flight while the directory is opened")
		}
		if !again(out[0].Result) {
			return out[0].Result
		}
	}
}

func (b *blocking) name(path string) mem.Block {
	p := b.path.Bytes()
	n := copy(p, path)
	p[n] = 0
	return b.path
}

// failure is what becomes of a result that is none: a negative one is an errno,
// any other came short.
func failure(code ioring.Code, path string, offset, length int64, result int32) error {
	return &ioring.OpError{Op: code, Path: path, Offset: offset, Length: length, Errno: ioring.Errno(max(0, -result))}
}

// missing is a file that has to be there and is not.
func missing(path string) error {
	return &ioring.OpError{Op: ioring.Open, Path: path, Errno: ioring.ENOENT}
}

// pathOf is the path of what was opened in slot last.
func (b *blocking) pathOf(slot uint32) string { return b.paths[slot-b.files] }

// open opens path into slot. found is false where there is no such file; any
// other failure is an error.
func (b *blocking) open(slot uint32, path string, bits uint64) (found bool, err error) {
	b.paths[slot-b.files] = path
	r := b.do(ioring.Op{Code: ioring.Open, File: slot, Arg: bits, Buf: b.name(path)})
	switch ioring.Judge(ioring.Open, r) {
	case ioring.Good:
	case ioring.Missing:
		return false, nil
	default:
		return false, failure(ioring.Open, path, 0, 0, r)
	}
	return true, nil
}

func (b *blocking) close(slot uint32) { b.do(ioring.Op{Code: ioring.Close, File: slot}) }

// need opens path into slot; it has to be there.
func (b *blocking) need(slot uint32, path string, bits uint64) error {
	found, err := b.open(slot, path, bits)
	if err == nil && !found {
		err = missing(path)
	}
	return err
}

func (b *blocking) sync(slot uint32) error {
	if r := b.do(ioring.Op{Code: ioring.Sync, Flags: ioring.FlagFull, File: slot}); r < 0 {
		return failure(ioring.Sync, b.pathOf(slot), 0, 0, r)
	}
	return nil
}

func (b *blocking) syncDirectory(path string) error {
	slot := b.files + 5
	if err := b.need(slot, path, ioring.OpenDirectory|ioring.OpenReadOnly); err != nil {
		return err
	}
	defer b.close(slot)
	return b.sync(slot)
}

func (b *blocking) mkdir(path string) error {
	if r := b.do(ioring.Op{Code: ioring.Mkdir, Buf: b.name(path)}); r < 0 && ioring.Judge(ioring.Mkdir, r) != ioring.Exists {
		return failure(ioring.Mkdir, path, 0, 0, r)
	}
	return nil
}

func (b *blocking) size(slot uint32) (int64, error) {
	if r := b.do(ioring.Op{Code: ioring.Stat, File: slot, Buf: b.path}); r < 0 {
		return 0, failure(ioring.Stat, b.pathOf(slot), 0, 0, r)
	}
	return int64(binary.LittleEndian.Uint64(b.path.Bytes())), nil
}

// read reads n bytes at off, fewer where the file ends; both whole blocks.
func (b *blocking) read(slot uint32, off int64, n int) ([]byte, error) {
	p := make([]byte, 0, n)
	for len(p) < n {
		at := len(p) &^ (format.BlockBytes - 1)
		p = p[:at]
		k := min(n-at, b.buf.Len())
		r := b.do(ioring.Op{Code: ioring.Read, File: slot, Offset: uint64(off) + uint64(at), Buf: b.buf.Slice(0, k)})
		if r < 0 {
			return p, failure(ioring.Read, b.pathOf(slot), off+int64(at), int64(k), r)
		}
		p = append(p, b.buf.Bytes()[:r]...)
		if int(r) < format.BlockBytes {
			break
		}
	}
	return p, nil
}

// write writes p, whole blocks, at off.
func (b *blocking) write(slot uint32, off int64, p []byte) error {
	for len(p) > 0 {
		k := copy(b.buf.Bytes(), p)
		r := b.do(ioring.Op{Code: ioring.Write, File: slot, Offset: uint64(off), Buf: b.buf.Slice(0, k)})
		if r < format.BlockBytes {
			return failure(ioring.Write, b.pathOf(slot), off, int64(k), r)
		}
		k = int(r) &^ (format.BlockBytes - 1)
		p, off = p[k:], off+int64(k)
	}
	return nil
}

// zero writes zeroes from size from to size to.
func (b *blocking) zero(slot uint32, from, to int64) error {
	from &^= format.BlockBytes - 1
	clear(b.buf.Bytes())
	for from < to {
		k := int(min(to-from, int64(b.buf.Len())))
		r := b.do(ioring.Op{Code: ioring.Write, File: slot, Offset: uint64(from), Buf: b.buf.Slice(0, k)})
		if r < format.BlockBytes {
			return failure(ioring.Write, b.pathOf(slot), from, int64(k), r)
		}
		from += int64(r) &^ (format.BlockBytes - 1)
	}
	return b.sync(slot)
}

func (b *blocking) list(path string) (names []string, err error) {
	for {
		p := b.buf.Bytes()
		p[copy(p, path)] = 0
		r := b.do(ioring.Op{Code: ioring.List, Offset: uint64(len(names)), Buf: b.buf})
		if r < 0 {
			return nil, failure(ioring.List, path, 0, 0, r)
		}
		if r == 0 {
			return names, nil
		}
		for range r {
			n := 0
			for p[n] != 0 {
				n++
			}
			names = append(names, string(p[:n]))
			p = p[n+1:]
		}
	}
}

func (b *blocking) unlink(path string) { b.do(ioring.Op{Code: ioring.Unlink, Buf: b.name(path)}) }

// openShard opens the files of this shard for good.
func (e *Engine) openShard(arena *mem.Arena) error {
	b := &blocking{ring: e.ring, buf: e.flush.buffers[0], path: e.flush.buffers[1].Slice(0, format.BlockBytes), files: e.o.Files}
	for i, name := range []string{"journal", "checkpoint-0", "checkpoint-1"} {
		path := format.ShardPath(e.shard, name)
		if err := b.need(e.o.Files+uint32(i), path, 0); err != nil {
			return err
		}
	}
	if err := b.need(e.o.Files+slotSegments, "segments", ioring.OpenDirectory|ioring.OpenReadOnly); err != nil {
		return err
	}
	size, err := b.size(e.journal.file)
	if err != nil {
		return err
	}
	if want := int64(e.o.JournalBytes); size < want {
		if err := b.zero(e.journal.file, size, want); err != nil {
			return err
		}
		size = want
	}
	e.journal.blocks = min(size, int64(e.o.JournalBytes)) / format.BlockBytes
	for i := range uint32(2) {
		// room for the largest checkpoint there may be, where the disk has it
		slot := e.o.Files + slotCheck + i
		size, err := b.size(slot)
		if err != nil {
			return err
		}
		if want := int64(e.o.checkpointBytes()); size < want {
			b.do(ioring.Op{Code: ioring.Allocate, File: slot, Offset: uint64(size), Arg: uint64(want - size)})
			b.do(ioring.Op{Code: ioring.Sync, Flags: ioring.FlagFull, File: slot})
		}
	}
	return nil
}
