package ioring_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// world is a kernel ring over a temporary directory, on a locked thread.
type world struct {
	t     *testing.T
	ring  *ioring.Kernel
	arena *mem.Arena
	dir   string
	done  []ioring.Completion
}

// each runs a test with all features, and as Linux 5.19 has them.
func each(t *testing.T, test func(t *testing.T, w *world)) {
	for _, mask := range []string{"all", "5.19"} {
		t.Run(mask, func(t *testing.T) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			test(t, newWorld(t, mask))
		})
	}
}

func newWorld(t *testing.T, mask string) *world {
	t.Helper()
	m, err := ioring.ParseMask(mask)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	root, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	buffered := false
	if _, err := ioring.DirectIO(root); err != nil {
		t.Logf("without direct I/O: %v", err)
		buffered = true
	}
	ring, err := ioring.NewKernel(ioring.KernelOptions{Entries: 64, CQEntries: 256, Files: 16, Sockets: 16, RootFD: root, ReceiveBuffers: 4, Features: m, Buffered: buffered, SpinNS: 20e3})
	if err != nil {
		t.Skipf("no io_uring here: %v", err)
	}
	arena, err := mem.Map(4<<20, mem.Options{Poison: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ring.Close()
		arena.Unmap()
		unix.Close(root)
	})
	return &world{t: t, ring: ring, arena: arena, dir: dir}
}

func (w *world) block(n int) mem.Block {
	b, err := w.arena.Allocate("test", n, 4096)
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

func (w *world) path(text string) mem.Block {
	b := w.block(4096)
	copy(b.Bytes(), text+"\x00")
	return b
}

// await waits for the next completion of token.
func (w *world) await(token ioring.Token) ioring.Completion {
	w.t.Helper()
	out := make([]ioring.Completion, 16)
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		for i, c := range w.done {
			if c.Token == token {
				w.done = append(w.done[:i], w.done[i+1:]...)
				return c
			}
		}
		w.ring.Wait(w.ring.Now() + 1e9)
		n := w.ring.Reap(out)
		w.done = append(w.done, out[:n]...)
	}
	w.t.Fatalf("no completion of %x came", uint64(token))
	return ioring.Completion{}
}

func (w *world) do(op ioring.Op) int32 {
	w.t.Helper()
	op.Token = ioring.MakeToken(1, 2, 3)
	if !w.ring.Push(op) {
		w.t.Fatal("no room")
	}
	return w.await(op.Token).Result
}

func (w *world) open(slot uint32, name string) {
	w.t.Helper()
	if r := w.do(ioring.Op{Code: ioring.Open, File: slot, Buf: w.path(name), Arg: ioring.OpenCreate}); r != 0 {
		w.t.Fatalf("open %s: %v", name, ioring.Errno(-r))
	}
}

func TestFiles(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.open(3, "a")
		b := w.block(8192)
		for i := range b.Bytes() {
			b.Bytes()[i] = byte(i * 7)
		}
		if r := w.do(ioring.Op{Code: ioring.Allocate, File: 3, Arg: 1 << 20}); r != 0 {
			t.Fatalf("allocate: %v", ioring.Errno(-r))
		}
		if r := w.do(ioring.Op{Code: ioring.Write, File: 3, Offset: 4096, Buf: b}); r != 8192 {
			t.Fatalf("write: %d", r)
		}
		if r := w.do(ioring.Op{Code: ioring.Sync, File: 3}); r != 0 {
			t.Fatalf("sync: %d", r)
		}
		c := w.block(8192)
		if r := w.do(ioring.Op{Code: ioring.Read, File: 3, Offset: 4096, Buf: c}); r != 8192 || !bytes.Equal(b.Bytes(), c.Bytes()) {
			t.Fatalf("read: %d, or other bytes than were written", r)
		}
		if r := w.do(ioring.Op{Code: ioring.Read, File: 3, Offset: 1 << 20, Buf: c}); r != 0 {
			t.Fatalf("read at the end: %d", r)
		}
		s := w.block(4096)
		if r := w.do(ioring.Op{Code: ioring.Stat, File: 3, Buf: s}); r != 0 || s.Bytes()[2] != 0x10 {
			t.Fatalf("stat: %d, size % x", r, s.Bytes()[:8])
		}
		// [4096, 12288) was written, of a mebibyte that was allocated. A file system may not know.
		for _, seek := range []struct {
			from uint64
			want int64
		}{{0, 4096}, {8192, 8192}, {12288, math.MaxInt64}} {
			r := w.do(ioring.Op{Code: ioring.SeekData, File: 3, Offset: seek.from, Buf: s})
			if at := int64(binary.LittleEndian.Uint64(s.Bytes())); r != 0 || at != seek.want && at != int64(seek.from) {
				t.Fatalf("data from %d on: %d, at %d, want %d", seek.from, r, at, seek.want)
			}
		}
		if r := w.do(ioring.Op{Code: ioring.Close, File: 3}); r != 0 {
			t.Fatalf("close: %d", r)
		}
		if r := w.do(ioring.Op{Code: ioring.Read, File: 3, Buf: c}); ioring.Judge(ioring.Read, r) != ioring.OurBug {
			t.Fatalf("read of a closed slot: %v", ioring.Errno(-r))
		}
	})
}

func TestDirectories(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		if r := w.do(ioring.Op{Code: ioring.Mkdir, Buf: w.path("d")}); r != 0 {
			t.Fatalf("mkdir: %v", ioring.Errno(-r))
		}
		if r := w.do(ioring.Op{Code: ioring.Mkdir, Buf: w.path("d")}); ioring.Errno(-r) != ioring.EEXIST {
			t.Fatalf("mkdir again: %v", ioring.Errno(-r))
		}
		for i, name := range []string{"d/z", "d/a", "d/m"} {
			w.open(uint32(i), name)
		}
		two := w.path("d/z")
		copy(two.Bytes(), "d/z\x00d/b\x00")
		if r := w.do(ioring.Op{Code: ioring.Rename, Buf: two}); r != 0 {
			t.Fatalf("rename: %v", ioring.Errno(-r))
		}
		if r := w.do(ioring.Op{Code: ioring.Unlink, Buf: w.path("d/m")}); r != 0 {
			t.Fatalf("unlink: %v", ioring.Errno(-r))
		}
		if r := w.do(ioring.Op{Code: ioring.Open, File: 9, Buf: w.path("d"), Arg: ioring.OpenDirectory}); r != 0 {
			t.Fatalf("open directory: %v", ioring.Errno(-r))
		}
		if r := w.do(ioring.Op{Code: ioring.Sync, File: 9, Flags: ioring.FlagFull}); r != 0 {
			t.Fatalf("sync directory: %v", ioring.Errno(-r))
		}
		l := w.path("d")
		if r := w.do(ioring.Op{Code: ioring.List, Buf: l}); r != 2 || !bytes.HasPrefix(l.Bytes(), []byte("a\x00b\x00")) {
			t.Fatalf("list: %d %q", r, l.Bytes()[:8])
		}
		l = w.path("d")
		if r := w.do(ioring.Op{Code: ioring.List, Buf: l, Offset: 2}); r != 0 {
			t.Fatalf("list from the end: %d", r)
		}
		if r := w.do(ioring.Op{Code: ioring.Open, File: 9, Buf: w.path("none")}); ioring.Errno(-r) != ioring.ENOENT {
			t.Fatalf("open of what is not there: %v", ioring.Errno(-r))
		}
	})
}

// A linked sync starts when its write is complete in full; a short write
// cancels it. RLIMIT_FSIZE makes a write short.
func TestLinkedSync(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.open(1, "linked")
		b := w.block(8192)
		write, sync := ioring.MakeToken(7, 0, 1), ioring.MakeToken(7, 0, 2)
		push := func(off uint64) (int32, int32) {
			w.ring.Push(ioring.Op{Token: write, Code: ioring.Write, Flags: ioring.FlagLink, File: 1, Offset: off, Buf: b})
			w.ring.Push(ioring.Op{Token: sync, Code: ioring.Sync, File: 1})
			return w.await(write).Result, w.await(sync).Result
		}
		if r, s := push(0); r != 8192 || s != 0 {
			t.Fatalf("write %d, sync %d", r, s)
		}
		var old unix.Rlimit
		unix.Getrlimit(unix.RLIMIT_FSIZE, &old)
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 12288, Max: old.Max}); err != nil {
			t.Skip(err)
		}
		r, s := push(8192)
		unix.Setrlimit(unix.RLIMIT_FSIZE, &old)
		if r != 4096 || ioring.Errno(-s) != ioring.ECANCELED {
			t.Fatalf("a short write: %d, its sync %v; want 4096 and ECANCELED", r, ioring.Errno(-s))
		}
	})
}

func listener(t *testing.T) (fd, port int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 16); err != nil {
		t.Fatal(err)
	}
	a, _ := unix.Getsockname(fd)
	return fd, a.(*unix.SockaddrInet4).Port
}

// One connection at a time, with whose it is, on listeners of both families.
func TestAcceptWithAddress(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		for i, at := range []string{"127.0.0.1", "::1", "::"} {
			l, err := net.Listen("tcp", net.JoinHostPort(at, "0"))
			if err != nil {
				t.Skip(err)
			}
			defer l.Close()
			f, err := l.(*net.TCPListener).File()
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := w.ring.InstallFile(uint32(i), int(f.Fd())); err != nil {
				t.Fatal(err)
			}
			dial := "127.0.0.1"
			if at == "::1" {
				dial = at
			}
			to := net.TCPAddr{IP: net.ParseIP(dial), Port: l.Addr().(*net.TCPAddr).Port}
			peer, token := w.block(ioring.AddressBytes), ioring.MakeToken(9, 0, uint32(i))
			for range 2 {
				w.ring.Push(ioring.Op{Token: token, Code: ioring.Accept, File: uint32(i), Buf: peer})
				w.ring.Wait(0)
				c, err := net.DialTCP("tcp", nil, &to)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				a := w.await(token)
				if a.Result < 16 || a.Flags&ioring.FlagMore != 0 {
					t.Fatalf("accepted into slot %d (want 16 or more), flags %x", a.Result, a.Flags)
				}
				if got, want := ioring.PeerAddress(peer), ioring.Address(to.IP.To16()); got != want || string(got.Append(nil)) != map[string]string{"127.0.0.1": dial, "::1": "0:0:0:0:0:0:0:1"}[dial] {
					t.Fatalf("on %s: the peer is %v, want %v", at, got, want)
				}
			}
		}
	})
}

func TestSockets(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		fd, port := listener(t)
		defer unix.Close(fd)
		if err := w.ring.InstallFile(0, fd); err != nil {
			t.Fatal(err)
		}
		for i := range 4 {
			w.ring.Push(ioring.Op{Code: ioring.Provide, Arg: uint64(i), Buf: w.block(4096)})
		}
		accept, recv, send := ioring.MakeToken(9, 0, 0), ioring.MakeToken(9, 0, 1), ioring.MakeToken(9, 0, 2)
		w.ring.Push(ioring.Op{Token: accept, Code: ioring.Accept, File: 0})
		w.ring.Wait(0)
		for range 3 {
			c, err := net.DialTCP("tcp4", nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
			if err != nil {
				t.Fatal(err)
			}
			a := w.await(accept)
			if a.Result < 16 || a.Flags&ioring.FlagMore == 0 {
				t.Fatalf("accepted into slot %d (want 16 or more), flags %x", a.Result, a.Flags)
			}
			slot := uint32(a.Result)
			w.ring.Push(ioring.Op{Token: recv, Code: ioring.Recv, File: slot})
			w.ring.Wait(0)
			c.Write([]byte("hello"))
			r := w.await(recv)
			if r.Result != 5 || r.Flags&ioring.FlagBuffer == 0 || r.BufferID() > 3 {
				t.Fatalf("received %d, flags %x", r.Result, r.Flags)
			}
			// A vector larger than the socket takes at once is sent in part.
			big := w.block(256 << 10)
			v := w.block(4096)
			ioring.SetPiece(v, 0, big.Bytes())
			ioring.SetPiece(v, 1, []byte("tail!"))
			got := make(chan int)
			total := 256<<10 + 5
			go func() {
				n := 0
				b := make([]byte, 32<<10)
				for n < total {
					time.Sleep(time.Millisecond)
					m, err := c.Read(b)
					if err != nil {
						break
					}
					n += m
				}
				got <- n
			}()
			for at := 0; at < total; {
				pieces := 0
				if at < big.Len() {
					ioring.SetPiece(v, 0, big.Bytes()[at:])
					pieces = 1
				}
				if at < big.Len() {
					w.ring.Push(ioring.Op{Token: send, Code: ioring.Send, File: slot, Buf: v, Arg: uint64(pieces)})
				} else {
					tail := w.block(4096)
					copy(tail.Bytes(), "tail!")
					ioring.SetPiece(v, 0, tail.Bytes()[at-big.Len():5])
					w.ring.Push(ioring.Op{Token: send, Code: ioring.Send, File: slot, Buf: v, Arg: 1})
				}
				s := w.await(send).Result
				if s <= 0 {
					t.Fatalf("send: %v", ioring.Errno(-s))
				}
				at += int(s)
			}
			if n := <-got; n != total {
				t.Fatalf("the peer got %d of %d", n, total)
			}
			c.Close()
			if r.Flags&ioring.FlagMore == 0 {
				w.ring.Push(ioring.Op{Token: recv, Code: ioring.Recv, File: slot})
			}
			for w.await(recv).Result > 0 {
			}
			if r := w.do(ioring.Op{Code: ioring.Close, File: slot}); r != 0 {
				t.Fatalf("closing a socket: %v", ioring.Errno(-r))
			}
		}
		if r := w.do(ioring.Op{Code: ioring.Cancel, Arg: uint64(accept)}); r < 0 {
			t.Fatalf("cancel: %v", ioring.Errno(-r))
		}
		for {
			if a := w.await(accept); a.Flags&ioring.FlagMore == 0 {
				if ioring.Judge(ioring.Accept, a.Result) != ioring.Cancelled {
					t.Fatalf("the cancelled accept: %v", ioring.Errno(-a.Result))
				}
				break
			}
		}
	})
}

func TestNoBuffers(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		fd, port := listener(t)
		defer unix.Close(fd)
		w.ring.InstallFile(0, fd)
		accept, recv := ioring.MakeToken(9, 0, 0), ioring.MakeToken(9, 0, 1)
		w.ring.Push(ioring.Op{Token: accept, Code: ioring.Accept, File: 0})
		c, err := net.DialTCP("tcp4", nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		slot := uint32(w.await(accept).Result)
		c.Write([]byte("data"))
		w.ring.Push(ioring.Op{Token: recv, Code: ioring.Recv, File: slot})
		if r := w.await(recv); ioring.Judge(ioring.Recv, r.Result) != ioring.NoBuffers || r.Flags&ioring.FlagMore != 0 {
			t.Fatalf("a receive without a buffer: %d, flags %x", r.Result, r.Flags)
		}
		w.ring.Push(ioring.Op{Code: ioring.Provide, Arg: 2, Buf: w.block(4096)})
		w.ring.Push(ioring.Op{Token: recv, Code: ioring.Recv, File: slot})
		if r := w.await(recv); r.Result != 4 || r.BufferID() != 2 {
			t.Fatalf("a receive into what was provided: %d into %d", r.Result, r.BufferID())
		}
	})
}

func TestTimeoutAndWake(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		tok := ioring.MakeToken(5, 0, 0)
		start := w.ring.Now()
		w.ring.Push(ioring.Op{Token: tok, Code: ioring.Timeout, Offset: uint64(start + 2e6)})
		if r := w.await(tok).Result; ioring.Errno(-r) != ioring.ETIME || w.ring.Now() < start+2e6 {
			t.Fatalf("timeout: %v", ioring.Errno(-r))
		}
		start = w.ring.Now()
		w.ring.Wait(start + 3e6)
		if w.ring.Now() < start+3e6 {
			t.Fatal("Wait returned with nothing to say before its time")
		}
		for range 3 {
			wake := w.ring.Waker()
			go func() {
				time.Sleep(5 * time.Millisecond)
				wake.Wake()
			}()
			w.ring.Wait(w.ring.Now() + 60e9) // a wake-up that is lost shows as a minute
			w.ring.Reap(make([]ioring.Completion, 4))
			if w.ring.Now() > start+30e9 {
				t.Fatal("a wake-up was lost")
			}
		}
	})
}

func TestOverflowLosesNothing(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		out := make([]ioring.Completion, 32)
		seen := make([]bool, 2000)
		pushed := 0
		for pushed < len(seen) {
			if !w.ring.Push(ioring.Op{Token: ioring.MakeToken(1, 0, uint32(pushed)), Code: ioring.Nop}) {
				break
			}
			pushed++
		}
		for got := 0; got < len(seen); {
			w.ring.Wait(w.ring.Now() + 1e9)
			n := w.ring.Reap(out)
			for _, c := range out[:n] {
				if seen[c.Token.Slot()] {
					t.Fatal("a completion came twice")
				}
				seen[c.Token.Slot()] = true
			}
			got += n
			for pushed < len(seen) && w.ring.Push(ioring.Op{Token: ioring.MakeToken(1, 0, uint32(pushed)), Code: ioring.Nop}) {
				pushed++
			}
		}
	})
}

func TestNothingAllocates(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.open(1, "f")
		b := w.block(4096)
		out := make([]ioring.Completion, 16)
		if n := testing.AllocsPerRun(200, func() {
			w.ring.Push(ioring.Op{Token: 1, Code: ioring.Write, Flags: ioring.FlagLink, File: 1, Buf: b})
			w.ring.Push(ioring.Op{Token: 2, Code: ioring.Sync, File: 1})
			for got := 0; got < 2; {
				w.ring.Wait(ioring.Never)
				got += w.ring.Reap(out)
			}
		}); n != 0 {
			t.Fatalf("%v allocations for a durable write", n)
		}
	})
}

func TestParseMask(t *testing.T) {
	if m, err := ioring.ParseMask("5.19"); err != nil || m != 0 {
		t.Fatalf("5.19: %x %v", m, err)
	}
	if m, err := ioring.ParseMask("all,-defer-taskrun"); err != nil || m.Has(ioring.FeatureDeferTaskrun) || !m.Has(ioring.FeatureSingleIssuer) {
		t.Fatalf("all but one: %x %v", m, err)
	}
	for _, bad := range []string{"5.4", "-nonsense", "6"} {
		if _, err := ioring.ParseMask(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestDirectIOIsJudgedByFileSystem(t *testing.T) {
	root, err := unix.Open("/dev/shm", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Skip("no /dev/shm here: ", err)
	}
	defer os.NewFile(uintptr(root), "").Close()
	var st unix.Statfs_t
	if unix.Fstatfs(root, &st); st.Type != unix.TMPFS_MAGIC {
		t.Skip("/dev/shm is no tmpfs here")
	}
	if _, err := ioring.DirectIO(root); err == nil {
		t.Fatal("tmpfs was taken for a disk")
	}
}
