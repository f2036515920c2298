package netring

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// The same machine on real sockets: clients that pipeline, read slowly, leave
// in the middle, never finish, or speak something else.
func TestKernel(t *testing.T) {
	for _, mask := range []string{"all", "5.19"} {
		t.Run(mask, func(t *testing.T) {
			runtime.LockOSThread() // a ring belongs to its thread
			defer runtime.UnlockOSThread()
			onKernel(t, mask)
		})
	}
}

func onKernel(t *testing.T, mask string) {
	features, err := ioring.ParseMask(mask)
	if err != nil {
		t.Fatal(err)
	}
	const slot = 0
	o := Options{Listener: slot, ConnsMax: 64, RequestsMax: 128, ReceiveBufferBytes: 16 << 10, ReceiveBuffers: 256, PipelineMax: 8, ReplyBlocks: 64, VectorsMax: 2, ProgressTimeoutNS: 3e9, SendTimeoutNS: 2e9}
	k, err := ioring.NewKernel(ioring.KernelOptions{Entries: 64, CQEntries: 1024, Files: 16, Sockets: 64, RootFD: unix.AT_FDCWD, ReceiveBuffers: 256, Features: features, Buffered: true})
	if err != nil {
		t.Skip(err)
	}
	defer k.Close()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 128); err != nil {
		t.Fatal(err)
	}
	sa, _ := unix.Getsockname(fd)
	addr := net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: sa.(*unix.SockaddrInet4).Port}
	if err := k.InstallFile(slot, fd); err != nil {
		t.Fatal(err)
	}
	arena, err := mem.Map(32<<20, mem.Options{Poison: true})
	if err != nil {
		t.Fatal(err)
	}
	n, err := New(k, arena, o)
	if err != nil {
		t.Fatal(err)
	}
	lent, err := arena.Allocate("lent", 2<<20, 4096)
	if err != nil {
		t.Fatal(err)
	}
	for i := range lent.Bytes() {
		lent.Bytes()[i] = byte(i * 31 >> 4)
	}
	n.Listen()

	var clients sync.WaitGroup
	dial := func() *net.TCPConn {
		c, err := net.DialTCP("tcp4", nil, &addr)
		if err != nil {
			t.Error(err)
		}
		c.SetDeadline(time.Now().Add(20 * time.Second))
		return c
	}
	client := func(run func(c *net.TCPConn)) {
		clients.Add(1)
		go func() {
			defer clients.Done()
			if c := dial(); c != nil {
				defer c.Close()
				run(c)
			}
		}()
	}
	for number := range 12 {
		client(func(c *net.TCPConn) { // pipelines everything, checks every byte
			rng := rand.New(rand.NewPCG(uint64(number), 9))
			const asks = 60
			var all []byte
			for i := range uint32(asks) {
				size := 8 + rng.IntN(300)
				if rng.IntN(4) == 0 {
					size = 8 + rng.IntN(200_000)
				}
				all = append(all, encoded(i, size)...)
			}
			go func() {
				for len(all) > 0 {
					cut := min(len(all), 1+rng.IntN(100_000))
					if _, err := c.Write(all[:cut]); err != nil {
						return
					}
					all = all[cut:]
				}
			}()
			for i := range uint32(asks) {
				if i%7 == 3 {
					continue
				}
				if number == 0 {
					time.Sleep(5 * time.Millisecond)
				}
				want := answer(i, lent)
				got := make([]byte, 4+len(want))
				if _, err := io.ReadFull(c, got); err != nil {
					t.Errorf("client %d, reply %d: %v", number, i, err)
					return
				}
				if int(binary.BigEndian.Uint32(got)) != len(want) || !bytes.Equal(got[4:], want) {
					t.Errorf("client %d: reply %d is wrong", number, i)
					return
				}
			}
		})
	}
	closedByPeer := func(c *net.TCPConn, what string) {
		if _, err := io.Copy(io.Discard, c); err != nil {
			if e, ok := err.(net.Error); ok && e.Timeout() {
				t.Errorf("%s: not closed", what)
			}
		}
	}
	for range 4 {
		client(func(c *net.TCPConn) { // half-open
			c.Write(encoded(0, 5000)[:777])
			closedByPeer(c, "half-open")
		})
		client(func(c *net.TCPConn) {
			io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			closedByPeer(c, "noise")
		})
		client(func(c *net.TCPConn) { // leaves in the middle
			c.SetLinger(0)
			for i := range uint32(5) {
				c.Write(encoded(i, 50_000))
			}
			c.Write(encoded(5, 50_000)[:20_000])
		})
		client(func(c *net.TCPConn) { // asks and never reads
			c.SetReadBuffer(4096)
			c.SetDeadline(time.Now().Add(10 * time.Second))
			for i := uint32(0); ; i++ {
				if _, err := c.Write(encoded(i*5+1, 100)); err != nil {
					if e, ok := err.(net.Error); ok && e.Timeout() {
						t.Error("a client that never reads is not closed")
					}
					return
				}
			}
		})
	}

	done := make(chan struct{})
	go func() { clients.Wait(); close(done) }()
	rng := rand.New(rand.NewPCG(4, 4))
	var todo []pending
	numbers := map[ConnID]uint32{}
	lentOut, user, noise := map[uint64]bool{}, uint64(0), 0
	var out [256]ioring.Completion
	deadline := time.Now().Add(30 * time.Second)
	for stopping := false; ; {
		if time.Now().After(deadline) {
			t.Fatalf("does not end: %+v", *n.Stats())
		}
		if !stopping {
			select {
			case <-done:
				stopping = true
				n.Stop()
			default:
			}
		}
		now := k.Now()
		for {
			c := k.Reap(out[:])
			for _, x := range out[:c] {
				n.Complete(x, now)
			}
			if c < len(out) {
				break
			}
		}
		for {
			e, ok := n.Next()
			if !ok {
				break
			}
			switch e.Kind {
			case RequestReady:
				var got []byte
				for _, p := range n.Slices(e.Request, nil) {
					got = append(got, p...)
				}
				number := binary.BigEndian.Uint32(got)
				want := make([]byte, len(got))
				body(want, number)
				if !bytes.Equal(got, want) {
					t.Fatalf("request %d is wrong", number)
				}
				if last, ok := numbers[e.Conn]; ok && number != last+1 && number != last+5 {
					t.Fatalf("request %d after %d", number, last)
				}
				numbers[e.Conn] = number
				todo = append(todo, pending{e.Request, e.Conn, want})
			case Sent:
				if !lentOut[e.User] {
					t.Fatalf("Sent %d twice", e.User)
				}
				delete(lentOut, e.User)
			case ProtocolError:
				noise++
			}
		}
		for tries := len(todo); tries > 0; tries-- {
			at := rng.IntN(len(todo))
			x := todo[at]
			number := binary.BigEndian.Uint32(x.bytes)
			if n.Alive(x.request) {
				if number%7 == 3 {
					n.Release(x.request)
					n.Drop(x.request)
				} else {
					want := answer(number%5000, lent)
					cut := min(len(want), 100)
					if !n.Begin(x.request, cut) {
						continue
					}
					copy(n.Bytes(x.request, cut), want)
					n.Attach(x.request, lent.Slice(int(number%5000)*100+cut, len(want)-cut).Bytes())
					n.Send(x.request, user)
					lentOut[user] = true
					user++
				}
			}
			todo[at] = todo[len(todo)-1]
			todo = todo[:len(todo)-1]
		}
		until := n.Step(now)
		if stopping && n.Idle() {
			break
		}
		k.Wait(min(until, now+5e6))
	}
	if len(lentOut) != 0 || noise != 4 {
		t.Errorf("%d replies without Sent, %d noises", len(lentOut), noise)
	}
	(&rig{world: &world{t: t}, n: n}).noLeak()
	if n.stats.Evicted > 4 { // those that never read may be
		t.Error("a connection was evicted")
	}
	t.Logf("%+v", *n.Stats())
}
