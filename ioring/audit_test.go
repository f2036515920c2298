package ioring_test

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// script is a ring whose completions a test writes down.
type script struct{ next []ioring.Completion }

func (s *script) Push(ioring.Op) bool { return true }
func (s *script) Room() int           { return 8 }
func (s *script) Wait(ioring.Instant) {}
func (s *script) Reap(out []ioring.Completion) int {
	n := copy(out, s.next)
	s.next = s.next[n:]
	return n
}

func TestAudit(t *testing.T) {
	arena, err := mem.Map(1<<20, mem.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer arena.Unmap()
	b, err := arena.Allocate("test", 8192, 4096)
	if err != nil {
		t.Fatal(err)
	}
	s := &script{}
	found := ""
	sends := 0
	a := ioring.NewAudit(s, ioring.AuditOptions{Arena: arena, Alignment: 4096, UniqueTokens: true,
		OnSend: func(ioring.Op) { sends++ }, Fail: func(what string) { found += what }})
	expect := func(want string) {
		t.Helper()
		if want == "" && found != "" || !strings.Contains(found, want) {
			t.Fatalf("found %q, want %q", found, want)
		}
		found = ""
	}
	finish := func(token ioring.Token, result int32) {
		s.next = append(s.next, ioring.Completion{Token: token, Result: result})
		a.Reap(make([]ioring.Completion, 4))
	}
	unsynced := func(off, n uint64, want bool) {
		t.Helper()
		if a.Unsynced(1, off, n) != want {
			t.Fatalf("unsynced(%d, %d) is %v", off, n, !want)
		}
	}
	write := ioring.Op{Token: 1, Code: ioring.Write, File: 1, Buf: b}
	sync := ioring.Op{Token: 2, Code: ioring.Sync, File: 1}

	a.Push(write)
	a.Push(sync) // before the write completed: covers nothing
	finish(1, 8192)
	finish(2, 0)
	unsynced(0, 1, true)
	a.Push(sync)
	finish(2, -int32(ioring.EIO))
	unsynced(0, 1, true)
	a.Push(sync)
	finish(2, 0)
	unsynced(0, 8192, false)

	write.Flags = ioring.FlagLink
	a.Push(write)
	a.Push(sync)
	finish(1, 4096)
	finish(2, -int32(ioring.ECANCELED))
	a.Push(sync)
	finish(2, 0)
	unsynced(0, 4096, false)
	unsynced(4096, 4096, true) // never written
	a.Push(write)
	a.Push(sync)
	finish(1, 8192)
	finish(2, 0)
	unsynced(0, 8192, false)
	expect("")

	write.Flags = 0
	a.Push(write)
	a.Push(write)
	expect("pushed again")
	b.Bytes()[5]++
	finish(1, 8192)
	expect("changed")
	finish(1, 8192)
	finish(9, 0)
	expect("not in flight")
	write.Offset = 512
	a.Push(write)
	expect("not aligned")
	a.Push(ioring.Op{Token: 4, Code: ioring.Send, Arg: 0, Buf: b})
	if sends != 1 {
		t.Fatal("a send was not shown")
	}
	expect("")
}

func TestWakeCompletes(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		tok := ioring.MakeToken(4, 0, 0)
		w.ring.Push(ioring.Op{Token: tok, Code: ioring.Wake})
		for range 3 {
			w.ring.Waker().Wake()
			if c := w.await(tok); c.Result != 0 || c.Flags&ioring.FlagMore == 0 {
				t.Fatalf("wake: %+v", c)
			}
		}
	})
}

// A socket accepted while the close of its slot's last owner is still queued
// must not be what that close closes.
func TestSlotIsNotReusedBeforeItsClose(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		fd, port := listener(t)
		defer unix.Close(fd)
		w.ring.InstallFile(0, fd)
		accept, closed, send := ioring.MakeToken(9, 0, 0), ioring.MakeToken(9, 0, 1), ioring.MakeToken(9, 0, 2)
		w.ring.Push(ioring.Op{Token: accept, Code: ioring.Accept, File: 0})
		dial := func() {
			t.Helper()
			c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Close(c) })
			if err := unix.Connect(c, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
				t.Fatal(err)
			}
		}
		var slot uint32
		for range 16 {
			dial()
			slot = uint32(w.await(accept).Result)
		}
		dial()
		w.ring.Push(ioring.Op{Token: ioring.MakeToken(9, 0, 3), Code: ioring.Nop})
		w.ring.Wait(0)
		w.ring.Push(ioring.Op{Token: closed, Code: ioring.Close, File: slot})
		out := make([]ioring.Completion, 16) // reaped before a Wait submits the close
		w.done = append(w.done, out[:w.ring.Reap(out)]...)
		c := w.await(accept)
		if c.Result < 0 {
			t.Skipf("this ring accepts before it closes: %v", ioring.Errno(-c.Result))
		}
		w.await(closed)
		buf := w.block(4096)
		ioring.SetPiece(buf, 0, buf.Bytes()[4000:4001])
		w.ring.Push(ioring.Op{Token: send, Code: ioring.Send, File: uint32(c.Result), Arg: 1, Buf: buf})
		if r := w.await(send).Result; r != 1 {
			t.Fatalf("send on the new socket: %v", ioring.Errno(-r))
		}
	})
}
