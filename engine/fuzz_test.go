package engine_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/tailbound/tailbound/engine/recovery"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/sim"
)

// damaged is a directory that was killed while busy: something in the journal,
// something in segments, something in flight. It is made once and cloned.
var damaged = sync.OnceValue(func() *host {
	h := newHost(&quietTB{}, 3)
	h.o.JournalBytes, h.o.LogMemoryBytes, h.o.BatchBytesMax, h.o.FilesMax = 1<<20, 1<<20, 32<<10, 16
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	must(h.open())
	must(h.openLog(2))
	must(h.openLog(3))
	for i := range 60 {
		if _, err := h.append(2, 700+i*211%9000, 3); err != nil {
			panic(err)
		}
		if _, err := h.append(3, 12_000, 5); err != nil {
			panic(err)
		}
	}
	must(h.settle())
	h.rest(3e9)
	for range 10 {
		h.append(2, 3000, 2)
		h.settle()
	}
	h.append(3, 500, 1)
	h.end()
	h.disk.Kill(rand.New(rand.NewPCG(1, 1)))
	return h
})

type quietTB struct{ testing.TB }

func (*quietTB) Cleanup(func()) {}
func (*quietTB) Helper()        {}

// FuzzRecover overwrites pieces of files and opens the directory. Whatever lies
// there, opening and checking do not panic, and what is read afterwards is what
// was appended, or nothing.
//
// The input is a list of pieces: file 1, offset 3, length 2, bytes. With the
// highest bit of the file's byte set the piece's header CRC is made to fit, so
// that what is behind it is reached; then nothing is said about the contents.
func FuzzRecover(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 0, 0, 0, 4, 0, 1, 2, 3, 4})
	f.Add([]byte{3, 0, 16, 0, 4, 0, 1, 2, 3, 4, 3, 0, 48, 0, 1, 0, 9})
	f.Add([]byte{0x83, 0, 0, 0, 200, 0})
	f.Add([]byte{0x81, 36, 0, 0, 4, 0, 255, 255, 255, 127})
	f.Add([]byte{0x84, 128, 0, 0, 4, 0, 255, 255, 0, 0})
	f.Add([]byte{6, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, input []byte) {
		base := damaged()
		h := newHost(t, 5)
		h.o, h.sizes, h.shards = base.o, base.sizes, base.shards
		h.disk = base.disk.Clone()
		forged := h.damage(input)
		if r, err := h.check(); err == nil && r == nil {
			t.Fatal("no report and no error")
		}
		h.end()
		if err := h.open(); err != nil {
			var refused *recovery.Refusal
			var failed *ioring.OpError
			if !errors.As(err, &refused) && !errors.As(err, &failed) {
				t.Fatalf("an error that does not say of which file: %v", err)
			}
			return
		}
		for id := uint64(2); id <= 3; id++ {
			if _, _, err := h.slot(id); err != nil {
				continue
			}
			_, _, _, why := h.readAll(id)
			if (strings.Contains(why, "appended") || strings.Contains(why, "gave nothing")) && !forged {
				t.Fatalf("log %d: %s", id, why)
			}
		}
	})
}

// damage does what input says. It says whether CRCs were made to fit.
func (h *host) damage(input []byte) (forged bool) {
	paths := h.disk.Paths()
	for len(input) >= 6 {
		path := paths[int(input[0]&0x7f)%len(paths)]
		forge := input[0]&0x80 != 0
		size := h.disk.Size(path)
		at := int64(input[1]) | int64(input[2])<<8 | int64(input[3])<<16
		n := int(input[4]) | int(input[5])<<8
		input = input[6:]
		n = min(n, len(input))
		piece := input[:n]
		input = input[n:]
		if size <= 0 {
			continue
		}
		at %= size
		piece = piece[:min(int64(len(piece)), size-at)]
		h.disk.Overwrite(path, at, piece)
		if forge {
			forged = true
			h.forge(path, at&^4095)
		}
	}
	return forged
}

// forge makes the CRC of whatever header stands at a block fit.
func (h *host) forge(path string, at int64) {
	p := h.disk.Contents(path)[at:]
	without := func(n, off int) uint32 {
		q := append([]byte(nil), p[:n]...)
		binary.LittleEndian.PutUint32(q[off:], 0)
		return crc32.Checksum(q, castagnoli)
	}
	crc := make([]byte, 4)
	switch binary.LittleEndian.Uint32(p) {
	case 0x52464254, 0x4e524254: // a frame, a run: the body's CRC, then the header's
		if n := int64(binary.LittleEndian.Uint32(p[36:])); 256+n <= int64(len(p)) {
			binary.LittleEndian.PutUint32(crc, crc32.Checksum(p[256:256+n], castagnoli))
			h.disk.Overwrite(path, at+48, crc)
			copy(p[48:], crc)
		}
		binary.LittleEndian.PutUint32(crc, without(256, 44))
		h.disk.Overwrite(path, at+44, crc)
	case 0x4b434254: // a checkpoint
		if n := int64(binary.LittleEndian.Uint32(p[36:])); 128+n <= int64(len(p)) {
			binary.LittleEndian.PutUint32(crc, crc32.Checksum(p[128:128+n], castagnoli))
			h.disk.Overwrite(path, at+48, crc)
			copy(p[48:], crc)
		}
		binary.LittleEndian.PutUint32(crc, without(128, 44))
		h.disk.Overwrite(path, at+44, crc)
	case 0x42534254: // a superblock
		binary.LittleEndian.PutUint32(crc, crc32.Checksum(p[:4092], castagnoli))
		h.disk.Overwrite(path, at+4092, crc)
	}
}

// Every byte of the journal's live part and of the segments, one at a time and
// seldom enough to be quick: opening notices, or the byte was not needed.
func TestRotIsNoticedOrHarmless(t *testing.T) {
	base := damaged()
	rng := rand.New(rand.NewPCG(9, 9))
	noticed, harmless := 0, 0
	for range 150 {
		h := newHost(t, 5)
		h.o, h.sizes, h.shards = base.o, base.sizes, base.shards
		h.disk = base.disk.Clone()
		paths := h.disk.Paths()
		path := paths[rng.IntN(len(paths))]
		size := h.disk.Size(path)
		if size == 0 {
			continue
		}
		at := rng.Int64N(size)
		h.disk.Flip(path, at)
		if err := h.open(); err != nil {
			noticed++
			h.free()
			continue
		}
		rot := ""
		for i := range h.boot.Shards {
			for _, l := range h.boot.Shards[i].Logs {
				if len(l.Holes) > 0 {
					rot += fmt.Sprint(l.Holes)
				}
			}
		}
		for id := uint64(2); id <= 3; id++ {
			_, to, _, why := h.readAll(id)
			if strings.Contains(why, "appended") {
				t.Fatalf("%s at %d: log %d: %s", path, at, id, why)
			}
			rot += why
			// the last frame before the kill has no later stamp
			if low := lastAcked[id]; to < low && rot == "" {
				t.Fatalf("%s at %d: log %d ends at %d in silence, %d was acknowledged", path, at, id, to, low)
			}
		}
		if rot != "" {
			noticed++
		} else {
			harmless++
		}
		h.end()
	}
	t.Logf("%d noticed, %d harmless", noticed, harmless)
	if noticed == 0 {
		t.Error("nothing was ever noticed")
	}
}

// lastAcked is what the directory of damaged had acknowledged for sure, less
// its last appends.
var lastAcked = map[uint64]int64{2: 180, 3: 300}

var _ = sim.NewWorld
