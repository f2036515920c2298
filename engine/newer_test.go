package engine_test

import (
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
)

// twoLives is a directory of two epochs: the first stopped cleanly and left frames and runs,
// the second was killed with acknowledged records in its journal (log 2) and in direct runs
// behind its checkpoint (log 3).
var twoLives = sync.OnceValue(func() *host {
	h := newHost(&quietTB{}, 11)
	h.o.DirectBytes = 8 << 10
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	life := func(small, large int) {
		for range small {
			if _, err := h.append(2, 3000, 2); err != nil {
				panic(err)
			}
			must(h.settle())
		}
		for range large {
			if _, err := h.append(3, 50_000, 1); err != nil {
				panic(err)
			}
			must(h.settle())
		}
	}
	must(h.open())
	must(h.openLog(2))
	must(h.openLog(3))
	life(40, 3)
	must(h.stop())
	must(h.open())
	life(6, 4)
	h.end()
	h.disk.Kill(rand.New(rand.NewPCG(1, 1)))
	return h
})

// edit changes bytes of a file and gives what a case needs to say where.
type edit struct {
	*host
}

func (e edit) put16(path string, at int64, v uint16) {
	e.disk.Overwrite(path, at, binary.LittleEndian.AppendUint16(nil, v))
}

func (e edit) put32(path string, at int64, v uint32) {
	e.disk.Overwrite(path, at, binary.LittleEndian.AppendUint32(nil, v))
}

func (e edit) put64(path string, at int64, v uint64) {
	e.disk.Overwrite(path, at, binary.LittleEndian.AppendUint64(nil, v))
}

func (e edit) get64(path string, at int64) uint64 {
	return binary.LittleEndian.Uint64(e.disk.Contents(path)[at:])
}

// sealLong makes the CRC of a header of that length fit, with its own field at 44.
func (e edit) sealLong(path string, at, length int64) {
	p := append([]byte(nil), e.disk.Contents(path)[at:at+length]...)
	clear(p[44:48])
	e.put32(path, at+44, crc32.Checksum(p, castagnoli))
}

// sealEntry makes the CRC of an entry's header fit.
func (e edit) sealEntry(path string, at int64) {
	e.put32(path, at, crc32.Checksum(e.disk.Contents(path)[at+4:at+64], castagnoli))
}

// newest is the slot of the superblock, or the checkpoint of shard 1, with the
// higher sequence; older is the other.
func (e edit) superblocks() (newest, older int64) {
	if e.get64("superblock", 40) > e.get64("superblock", 4096+40) {
		return 0, 4096
	}
	return 4096, 0
}

func (e edit) checkpoints() (newest, older string) {
	a, b := "shard-001/checkpoint-0", "shard-001/checkpoint-1"
	if e.get64(a, 56) > e.get64(b, 56) {
		return a, b
	}
	return b, a
}

// run is the newest run of log 3 of an epoch.
func (e edit) run(epoch uint32) (path string, at int64) {
	for _, path := range e.disk.Paths() {
		p := e.disk.Contents(path)
		if !strings.HasPrefix(path, "segments/") {
			continue
		}
		for at := int64(0); at+4096 <= int64(len(p)); at += 4096 {
			q := p[at:]
			if binary.LittleEndian.Uint32(q) == 0x4e524254 && binary.LittleEndian.Uint32(q[32:]) == epoch && binary.LittleEndian.Uint64(q[112:]) == 3 {
				return path, at
			}
		}
	}
	e.t.Fatalf("log 3 has no run of epoch %d", epoch)
	return "", 0
}

// stale is a frame of the first epoch that the second did not overwrite.
func (e edit) stale() int64 {
	frames := e.journalFrames()
	for _, f := range frames {
		if f.epoch == 1 {
			return f.at
		}
	}
	e.t.Fatal("no frame of the first life is left")
	return 0
}

// TestNewer: what a later version writes is refused by its name, if it is whole and of this
// epoch. What is corrupt, or left by an earlier epoch, does not prevent a start.
func TestNewer(t *testing.T) {
	const journal = dataJournal
	for _, x := range []struct {
		name string
		edit func(e edit)
		want string // the refusal; "": it opens
	}{
		{"untouched", func(e edit) {}, ""},

		{"superblock of 0.1, without bit 0", func(e edit) { at, _ := e.superblocks(); e.put32("superblock", at+12, 0); e.forge("superblock", at) }, ""},
		{"superblock, bit 1", func(e edit) { at, _ := e.superblocks(); e.put32("superblock", at+12, 2); e.forge("superblock", at) },
			"written by a newer Tailbound: sealed frames and runs"},
		{"superblock, bit 2, by a version", func(e edit) {
			at, _ := e.superblocks()
			e.put32("superblock", at+12, 4)
			e.put32("superblock", at+56, 10_203)
			e.forge("superblock", at)
		}, "written by a newer Tailbound: groups of replicas (Tailbound 1.2.3)"},
		{"superblock, a bit without a name", func(e edit) { at, _ := e.superblocks(); e.put32("superblock", at+12, 1<<9); e.forge("superblock", at) },
			"written by a newer Tailbound: feature 9 of the superblock"},
		{"superblock, another version", func(e edit) { at, _ := e.superblocks(); e.put16("superblock", at+4, 3); e.forge("superblock", at) },
			"written by a newer Tailbound: format version 3"},
		{"superblock, compatible bits", func(e edit) { at, _ := e.superblocks(); e.put32("superblock", at+8, 7); e.forge("superblock", at) }, ""},
		{"superblock, the older slot", func(e edit) { _, at := e.superblocks(); e.put32("superblock", at+12, 4); e.forge("superblock", at) }, ""},
		{"superblock, rotten", func(e edit) { at, _ := e.superblocks(); e.put32("superblock", at+12, 4) }, ""},

		{"checkpoint of version 2", func(e edit) {
			path, _ := e.checkpoints()
			body := append([]byte(nil), e.disk.Contents(path)[128:]...)
			n := int64(binary.LittleEndian.Uint32(e.disk.Contents(path)[36:]))
			e.disk.Overwrite(path, 128, make([]byte, 64))
			e.disk.Overwrite(path, 192, body[:n])
			e.put16(path, 4, 2)
			e.put16(path, 6, 192)
			e.sealLong(path, 0, 192)
		}, "written by a newer Tailbound: checkpoints of version 2"},
		{"checkpoint of version 2, torn", func(e edit) {
			path, _ := e.checkpoints()
			e.put16(path, 4, 2)
			e.put16(path, 6, 192)
			e.sealLong(path, 0, 192)
		}, ""},
		{"checkpoint, needs something", func(e edit) { path, _ := e.checkpoints(); e.put32(path, 12, 8); e.forge(path, 0) },
			"written by a newer Tailbound: feature 3 of checkpoints"},
		{"checkpoint, the older slot", func(e edit) { _, path := e.checkpoints(); e.put32(path, 12, 8); e.forge(path, 0) }, ""},
		{"checkpoint, another life", func(e edit) {
			_, path := e.checkpoints()
			e.put32(path, 12, 8)
			e.put32(path, 32, 77)
			e.forge(path, 0)
		}, ""},
		{"checkpoint, rotten", func(e edit) { path, _ := e.checkpoints(); e.put32(path, 12, 8) }, ""},
		{"record with ended transactions", func(e edit) { path, _ := e.checkpoints(); e.put16(path, 128+70, 2); e.forge(path, 0) },
			"written by a newer Tailbound: ends of transactions"},
		{"record with other windows", func(e edit) { path, _ := e.checkpoints(); e.put16(path, 128+70, 5); e.forge(path, 0) },
			"written by a newer Tailbound: producers' windows of version 2"},
		{"record of a group", func(e edit) { path, _ := e.checkpoints(); e.put32(path, 128+76, 1); e.forge(path, 0) },
			"written by a newer Tailbound: groups of replicas"},

		{"sealed frame", func(e edit) { at, _ := e.frame(2); e.put32(journal, at+12, 1); e.forge(journal, at) },
			"written by a newer Tailbound: sealed frames and runs"},
		{"frame that needs something", func(e edit) { at, _ := e.frame(1); e.put32(journal, at+12, 2); e.forge(journal, at) },
			"written by a newer Tailbound: feature 1 of frames and runs"},
		{"frame of version 2", func(e edit) { at, _ := e.frame(1); e.put16(journal, at+4, 2); e.forge(journal, at) },
			"written by a newer Tailbound: frames or runs of version 2"},
		{"frame with a longer header", func(e edit) { at, _ := e.frame(1); e.put16(journal, at+6, 320); e.sealLong(journal, at, 320) },
			"written by a newer Tailbound: frames or runs with headers of 320 bytes"},
		{"sealed frame behind a hole", func(e edit) {
			hole, _ := e.frame(2)
			e.disk.Overwrite(journal, hole, make([]byte, 4096))
			at, _ := e.frame(4)
			e.put32(journal, at+12, 1)
			e.forge(journal, at)
		}, "written by a newer Tailbound: sealed frames and runs"},
		{"sealed frame, rotten", func(e edit) { at, _ := e.frame(2); e.put32(journal, at+12, 1) }, ""},
		{"sealed frame of an earlier life", func(e edit) { at := e.stale(); e.put32(journal, at+12, 1); e.forge(journal, at) }, ""},
		{"sealed frame of another journal", func(e edit) {
			at, _ := e.frame(2)
			e.disk.Overwrite(journal, e.stale(), e.disk.Contents(journal)[at:at+4096])
			at = e.stale2()
			e.put32(journal, at+12, 1)
			e.put64(journal, at+112, 99)
			e.forge(journal, at)
		}, ""},
		{"sealed frame of an earlier lap", func(e edit) {
			at, _ := e.frame(2)
			to := e.stale()
			e.disk.Overwrite(journal, to, e.disk.Contents(journal)[at:at+4096])
			e.put32(journal, to+12, 1)
			e.put64(journal, to+128, 0)
			e.forge(journal, to)
		}, ""},

		{"replaced segment", entryOf(7, 0, true), "written by a newer Tailbound: compacted segments"},
		{"note", entryOf(16, 0, true), "written by a newer Tailbound: share groups"},
		{"configuration of seats", entryOf(20, 0, true), "written by a newer Tailbound: groups of replicas"},
		{"noted", entryOf(28, 0, true), "written by a newer Tailbound: groups of replicas"},
		{"a kind without a name", entryOf(99, 0, true), "written by a newer Tailbound: entries of kind 99"},
		{"transactional batch", entryOf(1, 1, true), "written by a newer Tailbound: batches of transactions"},
		{"marker", entryOf(1, 2, true), "written by a newer Tailbound: ends of transactions"},
		{"abort", entryOf(1, 4, true), "written by a newer Tailbound: aborted transactions"},
		{"entry of a group", entryOf(1, 8, true), "written by a newer Tailbound: groups of replicas"},
		{"a flag without a name", entryOf(1, 64, true), "written by a newer Tailbound: feature 6 of an entry"},
		{"note in a broken frame", entryOf(16, 0, false), ""},

		{"sealed run", func(e edit) { path, at := e.run(2); e.put32(path, at+12, 1); e.forge(path, at) },
			"written by a newer Tailbound: sealed frames and runs"},
		{"compacted run", func(e edit) { path, at := e.run(2); e.put32(path, at+148, 2); e.forge(path, at) },
			"written by a newer Tailbound: compacted runs"},
		{"run of a kind without a name", func(e edit) { path, at := e.run(2); e.put32(path, at+148, 5); e.forge(path, at) },
			"written by a newer Tailbound: runs of kind 5"},
		{"run of times that were checked", func(e edit) { path, at := e.run(2); e.put32(path, at+8, 1); e.forge(path, at) }, ""},
		{"run of transactions", func(e edit) {
			path, at := e.run(2)
			e.put16(path, at+256+6, 1)
			e.sealEntry(path, at+256)
			e.forge(path, at)
		}, "written by a newer Tailbound: batches of transactions"},
		{"compacted run, rotten", func(e edit) { path, at := e.run(2); e.put32(path, at+148, 2) }, ""},
		{"compacted run of another file", func(e edit) {
			path, at := e.run(2)
			e.put32(path, at+148, 2)
			e.put64(path, at+120, 12345)
			e.forge(path, at)
		}, ""},
		{"compacted run of an epoch that is not this life's", func(e edit) {
			path, at := e.run(2)
			e.put32(path, at+148, 2)
			e.put32(path, at+32, 1)
			e.forge(path, at)
		}, ""},
	} {
		t.Run(x.name, func(t *testing.T) {
			base := twoLives()
			h := newHost(t, 5)
			h.o, h.sizes, h.shards = base.o, base.sizes, base.shards
			h.disk = base.disk.Clone()
			x.edit(edit{h})
			before := h.disk.Clone()
			for what, err := range map[string]error{"check": func() error { _, err := h.check(); return err }(), "open": h.open()} {
				switch {
				case x.want == "" && err != nil:
					t.Errorf("%s: %v", what, err)
				case x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want+"; serve the directory with that version")):
					t.Errorf("%s: %v; it is to be refused: %s", what, err, x.want)
				}
			}
			if x.want == "" {
				h.end()
				return
			}
			// Of a log before the one that is refused, segments may have what its journal had.
			for _, path := range before.Paths() {
				if !strings.HasPrefix(path, "segments/") && string(before.Contents(path)) != string(h.disk.Contents(path)) {
					t.Errorf("the refusal changed %s", path)
				}
			}
		})
	}
}

// stale2 is the first block whose frame is of the second epoch but is where the first had one:
// what a case copied there.
func (e edit) stale2() int64 {
	var last int64
	for _, f := range e.journalFrames() {
		if f.epoch == 2 {
			last = max(last, f.at)
		}
	}
	return last
}

// entryOf gives the first entry of the second epoch's frame 3 another kind and flags; with
// whole the frame's CRCs are right.
func entryOf(kind, flags uint16, whole bool) func(e edit) {
	return func(e edit) {
		at, _ := e.frame(3)
		e.put16(dataJournal, at+256+4, kind)
		e.put16(dataJournal, at+256+6, flags)
		e.sealEntry(dataJournal, at+256)
		if whole {
			e.forge(dataJournal, at)
		}
	}
}
