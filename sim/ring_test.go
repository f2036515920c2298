package sim

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// bench is a ring with an arena and helpers that write a line of a story.
type bench struct {
	t     *testing.T
	w     *World
	d     *Disk
	r     *Ring
	arena *mem.Arena
	path  mem.Block
	data  mem.Block
	token uint32
}

func newBench(t *testing.T, seed uint64, d *Disk) *bench {
	t.Helper()
	arena, err := mem.Map(2<<20, mem.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { arena.Unmap() })
	w := NewWorld(seed)
	b := &bench{t: t, w: w, d: d, arena: arena, r: NewRing(w, d, arena, RingOptions{})}
	b.path, _ = arena.Allocate("path", 4096, 4096)
	b.data, _ = arena.Allocate("data", 64<<10, 4096)
	return b
}

func (b *bench) do(op ioring.Op) int32 {
	b.t.Helper()
	b.token++
	op.Token = ioring.MakeToken(0x2f, 0, b.token)
	if !b.r.Push(op) {
		b.t.Fatal("the ring is full")
	}
	var c [1]ioring.Completion
	for b.r.Reap(c[:]) == 0 {
		b.r.Wait(ioring.Never)
	}
	if c[0].Token != op.Token {
		b.t.Fatalf("completion of %x, want %x", c[0].Token, op.Token)
	}
	return c[0].Result
}

func (b *bench) name(p string) mem.Block {
	copy(b.path.Bytes(), p+"\x00")
	return b.path.Slice(0, len(p)+1)
}

func (b *bench) open(slot uint32, path string, bits uint64) int32 {
	return b.do(ioring.Op{Code: ioring.Open, File: slot, Arg: bits, Buf: b.name(path)})
}

func (b *bench) fill(n int, mark byte) mem.Block {
	p := b.data.Slice(0, n)
	for i := range p.Bytes() {
		p.Bytes()[i] = mark
	}
	return p
}

func (b *bench) write(slot uint32, at uint64, n int, mark byte) int32 {
	return b.do(ioring.Op{Code: ioring.Write, File: slot, Offset: at, Buf: b.fill(n, mark)})
}

func (b *bench) sync(slot uint32, flags uint8) int32 {
	return b.do(ioring.Op{Code: ioring.Sync, File: slot, Flags: flags})
}

func (b *bench) must(r int32, want int32) {
	b.t.Helper()
	if r != want {
		b.t.Fatalf("result %d (%v), want %d", r, unix.Errno(-r), want)
	}
}

func TestASyncedFileSurvivesAndTheRestMayNot(t *testing.T) {
	names, sizes, old := 0, 0, 0
	for seed := range uint64(200) {
		d := NewDisk(0)
		b := newBench(t, seed, d)
		b.must(b.open(1, "x", ioring.OpenCreate), 0)
		b.must(b.write(1, 0, 8192, 'a'), 8192)
		b.must(b.sync(1, 0), 0)
		b.must(b.open(2, "/", ioring.OpenDirectory), 0)
		b.must(b.sync(2, ioring.FlagFull), 0)
		b.must(b.write(1, 4096, 8192, 'b'), 8192) // not synced
		b.must(b.open(3, "y", ioring.OpenCreate), 0)
		b.must(b.sync(3, 0), 0)
		b.w.Stop()
		d.PowerCut(rand.New(rand.NewPCG(seed, 1)))
		x := d.Contents("x")
		if len(x) < 8192 || strings.Trim(string(x[:4096]), "a") != "" {
			t.Fatalf("seed %d: synced bytes are gone (%d left)", seed, len(x))
		}
		if len(x) == 12288 {
			sizes++
		}
		if x[4096] == 'a' {
			old++
		}
		if d.Size("y") >= 0 {
			names++
		}
	}
	for what, n := range map[string]int{"names": names, "sizes": sizes, "old contents": old} {
		if n < 20 || n > 180 {
			t.Errorf("unsynced %s were there in %d of 200 power cuts", what, n)
		}
	}
}

func TestKillKeepsWhatCompletedButDoesNotMakeItDurable(t *testing.T) {
	lost := 0
	for seed := range uint64(50) {
		d := NewDisk(0)
		b := newBench(t, seed, d)
		b.must(b.open(1, "x", ioring.OpenCreate), 0)
		b.must(b.open(2, "/", ioring.OpenDirectory), 0)
		b.must(b.sync(2, ioring.FlagFull), 0)
		b.must(b.write(1, 0, 4096, 'a'), 4096)
		b.w.Stop()
		rng := rand.New(rand.NewPCG(seed, 1))
		d.Kill(rng)
		if x := d.Contents("x"); len(x) != 4096 || x[0] != 'a' {
			t.Fatalf("seed %d: kill -9 lost a completed write", seed)
		}
		d.PowerCut(rng)
		if x := d.Contents("x"); len(x) == 0 || x[0] != 'a' {
			lost++
		}
	}
	if lost < 5 {
		t.Fatalf("a power cut after kill -9 lost unsynced bytes in %d of 50", lost)
	}
}

func TestASyncCoversOnlyWhatCompletedBeforeItWasSubmitted(t *testing.T) {
	lost := 0
	for seed := range uint64(200) {
		d := NewDisk(0)
		b := newBench(t, seed, d)
		b.must(b.open(1, "x", ioring.OpenCreate), 0)
		b.must(b.open(2, "/", ioring.OpenDirectory), 0)
		b.must(b.sync(2, ioring.FlagFull), 0)
		b.r.Push(ioring.Op{Code: ioring.Write, File: 1, Buf: b.fill(4096, 'a')})
		b.r.Push(ioring.Op{Code: ioring.Sync, File: 1}) // not linked: worth nothing
		for n := 0; n < 2; {
			b.r.Wait(ioring.Never)
			var c [4]ioring.Completion
			n += b.r.Reap(c[:])
		}
		b.w.Stop()
		d.PowerCut(rand.New(rand.NewPCG(seed, 1)))
		if x := d.Contents("x"); len(x) == 0 || x[0] != 'a' {
			lost++
		}
	}
	if lost < 30 {
		t.Fatalf("a sync beside its write made it durable in all but %d of 200", lost)
	}
}

func TestLinkedSync(t *testing.T) {
	for seed := range uint64(100) {
		d := NewDisk(0)
		b := newBench(t, seed, d)
		b.r.o.ShortWrites = 2
		b.must(b.open(1, "x", ioring.OpenCreate), 0)
		b.must(b.open(2, "/", ioring.OpenDirectory), 0)
		b.must(b.sync(2, ioring.FlagFull), 0)
		b.r.Push(ioring.Op{Token: 1, Code: ioring.Write, File: 1, Flags: ioring.FlagLink, Buf: b.fill(16384, 'a')})
		b.r.Push(ioring.Op{Token: 2, Code: ioring.Sync, File: 1})
		var got []ioring.Completion
		for len(got) < 2 {
			b.r.Wait(ioring.Never)
			var c [4]ioring.Completion
			got = append(got, c[:b.r.Reap(c[:])]...)
		}
		if got[0].Token != 1 {
			t.Fatalf("seed %d: the linked sync completed first", seed)
		}
		full := got[0].Result == 16384
		if want := failed(unix.ECANCELED); !full && got[1].Result != want || full && got[1].Result != 0 {
			t.Fatalf("seed %d: write %d, sync %d", seed, got[0].Result, got[1].Result)
		}
		b.w.Stop()
		d.PowerCut(rand.New(rand.NewPCG(seed, 1)))
		if x := d.Contents("x"); full && (len(x) != 16384 || x[16383] != 'a') {
			t.Fatalf("seed %d: write and linked sync completed, the bytes are gone", seed)
		}
	}
}

func TestNoSpace(t *testing.T) {
	d := NewDisk(16384)
	b := newBench(t, 1, d)
	b.must(b.open(1, "x", ioring.OpenCreate), 0)
	b.must(b.do(ioring.Op{Code: ioring.Allocate, File: 1, Arg: 8192}), 0)
	b.must(b.write(1, 4096, 16384, 'a'), 12288)
	b.must(b.write(1, 16384, 4096, 'a'), failed(unix.ENOSPC))
	b.must(b.write(1, 0, 8192, 'a'), 8192)
	b.must(b.do(ioring.Op{Code: ioring.Close, File: 1}), 0)
	b.must(b.do(ioring.Op{Code: ioring.Unlink, Buf: b.name("x")}), 0)
	if d.Used() != 0 {
		t.Fatalf("%d bytes used of an empty disk", d.Used())
	}
}

func TestDirectories(t *testing.T) {
	d := NewDisk(0)
	b := newBench(t, 1, d)
	b.must(b.do(ioring.Op{Code: ioring.Mkdir, Buf: b.name("s")}), 0)
	b.must(b.do(ioring.Op{Code: ioring.Mkdir, Buf: b.name("s")}), failed(unix.EEXIST))
	b.must(b.open(1, "s/none", 0), failed(unix.ENOENT))
	for i := range 5 {
		b.must(b.open(1, fmt.Sprintf("s/f%d", 4-i), ioring.OpenCreate|ioring.OpenExclusive), 0)
		b.must(b.do(ioring.Op{Code: ioring.Close, File: 1}), 0)
	}
	copy(b.path.Bytes(), "s/f0\x00s/g0\x00")
	b.must(b.do(ioring.Op{Code: ioring.Rename, Buf: b.path}), 0)
	var names []string
	for {
		copy(b.data.Bytes(), "s\x00")
		n := b.do(ioring.Op{Code: ioring.List, Offset: uint64(len(names)), Buf: b.data.Slice(0, 8)})
		if n <= 0 {
			b.must(n, 0)
			break
		}
		names = append(names, strings.SplitN(string(b.data.Bytes()), "\x00", int(n)+1)[:n]...)
	}
	if got := strings.Join(names, " "); got != "f1 f2 f3 f4 g0" {
		t.Fatalf("listed %q", got)
	}
	b.must(b.open(1, "s/g0", 0), 0)
	b.must(b.write(1, 0, 4096, 'z'), 4096)
	b.must(b.do(ioring.Op{Code: ioring.Stat, File: 1, Buf: b.data.Slice(0, 16)}), 0)
	if n := binary.LittleEndian.Uint64(b.data.Bytes()); n != 4096 {
		t.Fatalf("size %d", n)
	}
	b.must(b.write(1, 16384, 4096, 'z'), 4096)
	for _, seek := range []struct{ from, want int64 }{{0, 0}, {4096, 16384}, {16384, 16384}, {20480, math.MaxInt64}} {
		b.must(b.do(ioring.Op{Code: ioring.SeekData, File: 1, Offset: uint64(seek.from), Buf: b.data.Slice(0, 8)}), 0)
		if at := int64(binary.LittleEndian.Uint64(b.data.Bytes())); at != seek.want {
			t.Fatalf("data from %d on at %d, want %d", seek.from, at, seek.want)
		}
	}
}

func TestAFailedSyncIsNotMadeGoodByTheNext(t *testing.T) {
	lost := 0
	for seed := range uint64(50) {
		d := NewDisk(0)
		b := newBench(t, seed, d)
		b.must(b.open(1, "x", ioring.OpenCreate), 0)
		b.must(b.write(1, 0, 4096, 'o'), 4096)
		b.must(b.sync(1, 0), 0)
		b.must(b.open(2, "/", ioring.OpenDirectory), 0)
		b.must(b.sync(2, ioring.FlagFull), 0)
		b.must(b.write(1, 0, 4096, 'a'), 4096)
		d.Fail = func(code ioring.Code, path string, _ uint64, _ int) int32 {
			if code == ioring.Sync && path == "x" {
				return failed(unix.EIO)
			}
			return 0
		}
		b.must(b.sync(1, 0), failed(unix.EIO))
		d.Fail = nil
		b.must(b.sync(1, 0), 0)
		b.w.Stop()
		d.PowerCut(rand.New(rand.NewPCG(seed, 1)))
		if d.Contents("x")[0] != 'a' {
			lost++
		}
	}
	if lost == 0 {
		t.Fatal("a sync after a failed one made its bytes durable every time")
	}
}

func abused(t *testing.T, want string, f func()) {
	t.Helper()
	defer func() {
		t.Helper()
		a, ok := recover().(Abuse)
		if !ok || !strings.Contains(string(a), want) {
			t.Fatalf("got %v, want an abuse with %q", a, want)
		}
	}()
	f()
}

func TestAbuses(t *testing.T) {
	b := newBench(t, 1, NewDisk(0))
	b.must(b.open(1, "x", ioring.OpenCreate), 0)
	abused(t, "not a multiple", func() { b.do(ioring.Op{Code: ioring.Write, File: 1, Offset: 512, Buf: b.data.Slice(0, 4096)}) })
	b = newBench(t, 1, NewDisk(0))
	b.must(b.open(1, "x", ioring.OpenCreate), 0)
	abused(t, "changed while", func() {
		b.r.Push(ioring.Op{Code: ioring.Write, File: 1, Buf: b.data.Slice(0, 4096)})
		b.r.Submit()
		b.data.Bytes()[7]++
		b.r.Wait(ioring.Never)
	})
	b = newBench(t, 1, NewDisk(0))
	b.must(b.open(1, "x", ioring.OpenCreate), 0)
	abused(t, "overlaps", func() {
		b.r.Push(ioring.Op{Code: ioring.Write, File: 1, Buf: b.data.Slice(0, 8192)})
		b.r.Push(ioring.Op{Code: ioring.Read, File: 1, Buf: b.data.Slice(4096, 4096)})
		b.r.Wait(ioring.Never)
	})
	other, _ := mem.Map(2<<20, mem.Options{})
	defer other.Unmap()
	alien, _ := other.Allocate("alien", 4096, 4096)
	abused(t, "not arena memory", func() { b.r.Push(ioring.Op{Code: ioring.Write, File: 1, Buf: alien}) })
}

func TestSameSeedSameTrace(t *testing.T) {
	run := func(seed uint64) uint64 {
		b := newBench(t, seed, NewDisk(0))
		b.open(1, "x", ioring.OpenCreate)
		for i := range 50 {
			b.write(1, uint64(i)*4096, 4096, byte(i))
			b.sync(1, 0)
		}
		return b.w.Hash()
	}
	first := run(1)
	if again := run(1); first != again {
		t.Fatal("one seed, two traces")
	}
	if first == run(2) {
		t.Fatal("two seeds, one trace")
	}
}

func TestCrashInsideWait(t *testing.T) {
	b := newBench(t, 1, NewDisk(0))
	b.w.CrashIn = 3
	defer func() {
		if _, ok := recover().(Crash); !ok {
			t.Fatal("no crash")
		}
	}()
	b.open(1, "x", ioring.OpenCreate)
	b.write(1, 0, 4096, 1)
	b.write(1, 0, 4096, 2)
	t.Fatal("lived on")
}

func TestStuck(t *testing.T) {
	b := newBench(t, 1, NewDisk(0))
	defer func() {
		if _, ok := recover().(Stuck); !ok {
			t.Fatal("slept for ever")
		}
	}()
	b.r.Wait(ioring.Never)
}

func TestABrokenWriteDoesNotComeBackOverALaterOne(t *testing.T) {
	for seed := range uint64(50) {
		d := NewDisk(0)
		b := newBench(t, seed, d)
		b.must(b.open(1, "x", ioring.OpenCreate), 0)
		b.must(b.open(2, "/", ioring.OpenDirectory), 0)
		b.must(b.sync(2, ioring.FlagFull), 0)
		d.Fail = func(code ioring.Code, path string, _ uint64, _ int) int32 {
			if code == ioring.Sync {
				return failed(unix.EIO)
			}
			return 0
		}
		b.must(b.write(1, 0, 8192, 'a'), 8192)
		b.must(b.sync(1, 0), failed(unix.EIO))
		d.Fail = nil
		b.must(b.write(1, 0, 4096, 'b'), 4096)
		b.must(b.sync(1, 0), 0)
		if x := d.Contents("x"); x[0] != 'b' {
			t.Fatalf("seed %d: the older write is seen", seed)
		}
		b.w.Stop()
		d.PowerCut(rand.New(rand.NewPCG(seed, 1)))
		if x := d.Contents("x"); x[0] != 'b' || x[4095] != 'b' {
			t.Fatalf("seed %d: the older write came back", seed)
		}
	}
}
