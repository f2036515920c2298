package sim

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/ioring"
)

// An echo server in a few lines: every byte a client sends comes back, in
// order, whatever the cuts, the windows and the buffers.
func TestEchoOverTheLyingNetwork(t *testing.T) {
	for seed := range uint64(100) {
		b := newBench(t, seed, NewDisk(0))
		b.r.o.NoMultishot = seed%3 == 0
		b.r.Listen(5, 9092)
		b.r.Push(ioring.Op{Token: 1, Code: ioring.Accept, File: 5})
		for i := range 4 {
			b.r.Push(ioring.Op{Code: ioring.Provide, Arg: uint64(i), Buf: b.data.Slice(i*4096, 4096)})
		}
		sent := make([]byte, 40_000)
		for i := range sent {
			sent[i] = byte(i * 7 >> 3)
		}
		c := b.w.Dial(9092)
		c.Window = 1000
		c.Send(sent)
		var pending [][2]int // buffer id, bytes left to echo
		at, sock, sending, armed := 0, uint32(0), false, false
		var got []byte
		for steps := 0; len(got) < len(sent); steps++ {
			if steps > 100_000 {
				t.Fatalf("seed %d: %d of %d bytes came back", seed, len(got), len(sent))
			}
			if sock != 0 && !armed {
				armed = true
				b.r.Push(ioring.Op{Token: 2, Code: ioring.Recv, File: sock})
			}
			if len(pending) > 0 && !sending {
				sending = true
				v := b.path
				piece := b.data.Slice(pending[0][0]*4096+at, pending[0][1])
				n := min(2, piece.Len())
				ioring.SetPiece(v, 0, piece.Bytes()[:piece.Len()-n+1])
				if n == 2 {
					ioring.SetPiece(v, 1, piece.Bytes()[piece.Len()-1:])
				}
				b.r.Push(ioring.Op{Token: 3, Code: ioring.Send, File: sock, Arg: uint64(n), Buf: v.Slice(0, ioring.VectorBytes(n))})
			}
			b.r.Wait(b.w.Now + 1_000_000)
			var out [8]ioring.Completion
			for _, x := range out[:b.r.Reap(out[:])] {
				switch x.Token {
				case 1:
					sock = uint32(x.Result)
				case 2:
					if x.Result > 0 {
						pending = append(pending, [2]int{int(x.BufferID()), int(x.Result)})
					} else if x.Result != -int32(unix.ENOBUFS) {
						t.Fatalf("seed %d: Recv %d", seed, x.Result)
					}
					armed = x.Flags&ioring.FlagMore != 0
				case 3:
					sending = false
					at += int(x.Result)
					if pending[0][1] -= int(x.Result); pending[0][1] == 0 {
						b.r.Push(ioring.Op{Code: ioring.Provide, Arg: uint64(pending[0][0]), Buf: b.data.Slice(pending[0][0]*4096, 4096)})
						pending, at = pending[1:], 0
					}
				}
			}
			if n := len(c.Received); n > 0 {
				got = append(got, c.Take(n)...)
				c.Widen(n)
			}
		}
		if !bytes.Equal(got, sent) {
			t.Fatalf("seed %d: the echo differs", seed)
		}
		c.End()
		for end := false; !end; {
			if !armed {
				armed = true
				b.r.Push(ioring.Op{Token: 2, Code: ioring.Recv, File: sock})
			}
			b.r.Wait(ioring.Never)
			var out [8]ioring.Completion
			for _, x := range out[:b.r.Reap(out[:])] {
				end = x.Token == 2 && x.Result == 0 && x.Flags&ioring.FlagMore == 0
			}
		}
		b.must(b.do(ioring.Op{Code: ioring.Shutdown, File: sock}), 0)
		b.must(b.do(ioring.Op{Code: ioring.Close, File: sock}), 0)
		for b.w.Step(ioring.Never) {
		}
		if !c.Closed {
			t.Fatal("the client does not know that the server closed")
		}
	}
}

func TestResetAndCancel(t *testing.T) {
	b := newBench(t, 7, NewDisk(0))
	b.r.Listen(5, 1)
	b.r.Push(ioring.Op{Token: 1, Code: ioring.Accept, File: 5})
	b.r.Submit()
	c := b.w.Dial(1)
	var out [8]ioring.Completion
	b.r.Wait(ioring.Never)
	if b.r.Reap(out[:]) != 1 || out[0].Flags&ioring.FlagMore == 0 {
		t.Fatalf("accept: %+v", out[0])
	}
	sock := uint32(out[0].Result)
	b.r.Push(ioring.Op{Token: 2, Code: ioring.Recv, File: sock})
	b.must(b.do(ioring.Op{Code: ioring.Cancel, Arg: 2}), 1)
	b.r.Wait(ioring.Never)
	if b.r.Reap(out[:]) != 1 || out[0].Token != 2 || out[0].Result != -int32(unix.ECANCELED) {
		t.Fatalf("cancelled receive: %+v", out[0])
	}
	b.r.Push(ioring.Op{Token: 2, Code: ioring.Recv, File: sock})
	c.Reset()
	b.r.Wait(ioring.Never)
	if b.r.Reap(out[:]) != 1 || out[0].Result != -int32(unix.ECONNRESET) {
		t.Fatalf("receive of a reset connection: %+v", out[0])
	}
	if b.w.Dial(2) != nil {
		t.Fatal("connected to nobody")
	}
}
