package control

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/tailbound/tailbound/kafka"
)

// compressed is b as a codec has it; snappy is 2 as one block, 5 as Java's frames.
func compressed(t testing.TB, codec int, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var err error
	switch codec {
	case 1:
		w := gzip.NewWriter(&out)
		w.Write(b)
		err = w.Close()
	case 2:
		return s2.EncodeSnappy(nil, b)
	case 3:
		w := lz4.NewWriter(&out)
		w.Write(b)
		err = w.Close()
	case 4:
		w, _ := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1))
		w.Write(b)
		err = w.Close()
	case 5:
		out.Write(xerialMagic)
		out.Write([]byte{0, 0, 0, 1, 0, 0, 0, 1})
		for len(b) > 0 {
			n := min(len(b), 100)
			block := s2.EncodeSnappy(nil, b[:n])
			out.Write(binary.BigEndian.AppendUint32(nil, uint32(len(block))))
			out.Write(block)
			b = b[n:]
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// timedBatch has records of these times, at offsets from base on.
func timedBatch(t testing.TB, codec int, base int64, times []int64, value int) []byte {
	var records []byte
	largest := times[0]
	for i, at := range times {
		r := []byte{0}
		r = binary.AppendVarint(r, at-times[0])
		r = binary.AppendVarint(r, int64(i))
		r = binary.AppendVarint(r, -1)
		r = binary.AppendVarint(r, int64(value))
		r = append(r, make([]byte, value)...)
		r = binary.AppendVarint(r, 0)
		records = append(binary.AppendVarint(records, int64(len(r))), r...)
		largest = max(largest, at)
	}
	b := make([]byte, kafka.BatchHeaderBytes)
	b = append(b, compressed(t, codec, records)...)
	binary.BigEndian.PutUint64(b, uint64(base))
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
	b[16] = 2
	if codec == 5 {
		binary.BigEndian.PutUint16(b[21:], 2)
	} else {
		binary.BigEndian.PutUint16(b[21:], uint16(codec))
	}
	binary.BigEndian.PutUint32(b[23:], uint32(len(times)-1))
	binary.BigEndian.PutUint64(b[27:], uint64(times[0]))
	binary.BigEndian.PutUint64(b[35:], uint64(largest))
	binary.BigEndian.PutUint32(b[57:], uint32(len(times)))
	return b
}

// The record found is the first that is not older, also where times go back.
func TestSearchOpened(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for codec := 1; codec <= 5; codec++ {
		t.Run(fmt.Sprint(codec), func(t *testing.T) {
			for range 100 {
				times := make([]int64, 1+rng.IntN(50))
				for i := range times {
					times[i] = 1_700_000_000_000 + rng.Int64N(1000)
				}
				b := timedBatch(t, codec, 7000, times, rng.IntN(200))
				for range 10 {
					ts := 1_700_000_000_000 + rng.Int64N(1000)
					search := kafka.TimeSearch{Time: ts, From: 7000 + rng.Int64N(int64(len(times))), Largest: rng.IntN(2) == 0}
					want := search
					for i, x := range times {
						if want.Record(x, 7000+int64(i)) {
							break
						}
					}
					if searchCompressed(b, &search); search != want {
						t.Fatalf("found %+v, want %+v", search, want)
					}
				}
				// What cannot be read is answered too.
				bad := bytes.Clone(b)
				for range 3 {
					bad[kafka.BatchHeaderBytes+rng.IntN(len(bad)-kafka.BatchHeaderBytes)] ^= byte(1 + rng.IntN(255))
				}
				search := kafka.TimeSearch{Time: times[0] + 1}
				if searchCompressed(bad, &search); search.Found && (search.FoundOffset < 7000 || search.FoundOffset > 7000+int64(len(times))) {
					t.Fatalf("a damaged batch: offset %d", search.FoundOffset)
				}
			}
		})
	}
}

// No more is made of a batch than its bound.
func TestSearchOpenedIsBounded(t *testing.T) {
	for codec := 1; codec <= 4; codec++ {
		b := timedBatch(t, codec, 7000, []int64{1000, 2000, 3000}, decompressedBytesMax*3/4)
		search := kafka.TimeSearch{Time: 2000}
		if searchCompressed(b, &search); search.FoundOffset != 7001 && codec != 2 {
			t.Errorf("codec %d: offset %d is within the bound", codec, search.FoundOffset)
		}
		search = kafka.TimeSearch{Time: 3000}
		if searchCompressed(b, &search); search.FoundOffset != 7000 {
			t.Errorf("codec %d: offset %d, and it lies beyond the bound", codec, search.FoundOffset)
		}
	}
}
