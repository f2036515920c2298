package netring

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/tailbound/tailbound/ioring"
)

// FuzzFrames gives a connection a stream in pieces: data[0] is how many sizes
// of pieces follow; the rest is the stream. What comes out must be what a
// plain reading of it gives, up to the first length that cannot be.
func FuzzFrames(f *testing.F) {
	whole := append(encoded(1, 8), append(encoded(2, 3000), encoded(3, 5000)...)...)
	f.Add(append([]byte{0}, whole...))
	f.Add(append([]byte{3, 1, 2, 7}, whole...))
	f.Add(append([]byte{2, 255, 120}, whole...))
	f.Add(append([]byte{1, 9}, append(encoded(1, 600), "GET / HTTP/1.1"...)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == 0 || len(data) > 1<<16 {
			return
		}
		k := min(int(data[0]), len(data)-1)
		sizes, stream := data[1:1+k], data[1+k:]
		r := newRig(t, 1, Options{ConnsMax: 1, RequestsMax: 8, ReceiveBufferBytes: 1024, ReceiveBuffers: 64, PipelineMax: 4, ReplyBlocks: 4, VectorsMax: 1})
		r.calm = true
		p := &peer{}
		r.dialed = append(r.dialed, p)
		r.next(Opened)
		noise := false
		var got []byte
		take := func() {
			for {
				e, ok := r.n.Next()
				if !ok {
					return
				}
				switch e.Kind {
				case RequestReady:
					at := len(got)
					got = append(got, 0, 0, 0, 0)
					for _, q := range r.n.Slices(e.Request, nil) {
						got = append(got, q...)
					}
					binary.BigEndian.PutUint32(got[at:], uint32(len(got)-at-4))
					r.n.Drop(e.Request)
				case ProtocolError:
					noise = true
				}
			}
		}
		turn := func() { r.turn(); take(); r.step() }
		for i, rest := 0, stream; len(rest) > 0; i++ {
			cut := len(rest)
			if len(sizes) > 0 {
				cut = min(cut, 1+7*int(sizes[i%len(sizes)]))
			}
			p.out = append(p.out, rest[:cut]...)
			rest = rest[cut:]
			turn()
		}
		for range 400 {
			turn()
		}
		want, bad := stream, false
		at := 0
		for at+4 <= len(stream) {
			size := int(int32(binary.BigEndian.Uint32(stream[at:])))
			if size < headerBytesMin || size > r.n.options.RequestBytesMax {
				bad = true
				break
			}
			if at+4+size > len(stream) {
				break
			}
			at += 4 + size
		}
		want = stream[:at]
		if !bytes.Equal(got, want) || noise != bad {
			t.Fatalf("%d bytes of requests instead of %d; noise %v instead of %v", len(got), len(want), noise, bad)
		}
		if s := r.n.Stats(); !p.closed && s.BuffersHeld > 64/2 {
			t.Fatalf("%d buffers held", s.BuffersHeld)
		}
		r.clean()
	})
}

var _ ioring.Ring = (*world)(nil)
