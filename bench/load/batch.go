package load

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// A batch is a record batch v2 with random values, built once. Only its stamp
// changes between uses. As that lies at the end, the new CRC costs 17 bytes, not
// the whole batch; and where the records are compressed, what is compressed ends
// in a piece that its codec stores as it is, so that nothing is compressed anew.
type batch struct {
	bytes   []byte
	stampAt int
	prefix  uint32 // CRC of bytes[crcFrom:stampAt]
	inner   uint32 // gzip: CRC of the records before the stamp
	codec   codec
}

// The stamp: magic, lane, number of the request, intended instant.
const (
	stampBytes = 16
	stampMagic = 0x5442
	tailBytes  = stampBytes + 1 // and an empty list of headers
)

// codec has Kafka's numbers, of a batch's attributes.
type codec byte

const (
	plain codec = iota
	gzipped
	snappied
	lz4ed
	zstded
)

var codecs = map[string]codec{"": plain, "none": plain, "gzip": gzipped, "snappy": snappied, "lz4": lz4ed, "zstd": zstded}

// behind is how many bytes of a codec's come behind the tail.
func (c codec) behind() int {
	switch c {
	case gzipped:
		return 8 // CRC and length
	case lz4ed:
		return 4 // end mark
	}
	return 0
}

// A shape is what all batches of a load have in common.
type shape struct {
	records, recordBytes int
	codec                codec
	key                  func(r *rand.Rand) []byte // of the next record; nil: none
}

func newBatch(s shape, seed uint64) (*batch, error) {
	r := rand.New(rand.NewPCG(seed, 'b'))
	records := s.body(r)
	cut := len(records) - tailBytes
	t := &batch{codec: s.codec, inner: crc32.ChecksumIEEE(records[:cut])}
	b := make([]byte, batchHeaderBytes)
	b, err := s.codec.append(b, records[:cut], records[cut:])
	if err != nil {
		return nil, err
	}
	be := binary.BigEndian
	now := uint64(time.Now().UnixMilli())
	be.PutUint32(b[8:], uint32(len(b)-12))
	be.PutUint32(b[12:], ^uint32(0)) // leader epoch: -1
	b[16] = 2
	b[22] = byte(s.codec)
	be.PutUint32(b[23:], uint32(s.records-1))
	be.PutUint64(b[27:], now)
	be.PutUint64(b[35:], now)
	be.PutUint64(b[43:], ^uint64(0)) // no producer id
	be.PutUint16(b[51:], ^uint16(0))
	be.PutUint32(b[53:], ^uint32(0))
	be.PutUint32(b[57:], uint32(s.records))
	t.bytes, t.stampAt = b, len(b)-s.codec.behind()-tailBytes
	t.prefix = crc32.Checksum(b[crcFrom:t.stampAt], castagnoli)
	t.stamp(0, 0, 0)
	return t, nil
}

// body is the records. With a codec every other value is random and the ones
// between are words, so that there is something to compress.
func (s shape) body(r *rand.Rand) (b []byte) {
	size := max(s.recordBytes, stampBytes)
	value := make([]byte, size)
	var one []byte
	for i := range s.records {
		if s.codec != plain && i%2 == 0 {
			for at := range value {
				value[at] = "the tail is what they remember; "[at%32]
			}
		} else {
			for at := range value {
				value[at] = byte(r.Uint32())
			}
		}
		one = append(one[:0], 0)                 // attributes
		one = binary.AppendVarint(one, 0)        // timestamp delta
		one = binary.AppendVarint(one, int64(i)) // offset delta
		if s.key == nil {
			one = binary.AppendVarint(one, -1)
		} else {
			key := s.key(r)
			one = binary.AppendVarint(one, int64(len(key)))
			one = append(one, key...)
		}
		one = binary.AppendVarint(one, int64(size)) // value
		one = append(one, value...)
		one = binary.AppendVarint(one, 0) // headers: one byte
		b = binary.AppendVarint(b, int64(len(one)))
		b = append(b, one...)
	}
	return b
}

// append compresses before and appends it and, stored as it is, tail.
func (c codec) append(b, before, tail []byte) ([]byte, error) {
	le := binary.LittleEndian
	switch c {
	case gzipped:
		var out bytes.Buffer
		w := gzip.NewWriter(&out)
		_, _ = w.Write(before) // a buffer takes everything
		_ = w.Flush()          // a stored block may follow at a byte's edge
		b = append(b, out.Bytes()...)
		b = append(b, 1) // last, stored
		b = le.AppendUint16(b, uint16(len(tail)))
		b = le.AppendUint16(b, ^uint16(len(tail)))
		b = append(b, tail...)
		b = le.AppendUint32(b, crc32.Update(crc32.ChecksumIEEE(before), crc32.IEEETable, tail))
		b = le.AppendUint32(b, uint32(len(before)+len(tail)))
	case snappied: // in the frames of xerial's, as Kafka has it
		b = append(b, 0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1)
		be := binary.BigEndian
		for len(before) > 0 {
			n := min(len(before), 32<<10)
			piece := snappy.Encode(nil, before[:n])
			b = be.AppendUint32(b, uint32(len(piece)))
			b = append(b, piece...)
			before = before[n:]
		}
		b = be.AppendUint32(b, uint32(2+len(tail)))
		b = append(b, byte(len(tail)), byte(len(tail)-1)<<2) // a literal
		b = append(b, tail...)
	case lz4ed:
		var out bytes.Buffer
		w := lz4.NewWriter(&out)
		if err := w.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(false), lz4.BlockChecksumOption(false)); err != nil {
			return nil, err
		}
		if _, err := w.Write(before); err != nil {
			return nil, err
		}
		if err := w.Close(); err != nil {
			return nil, err
		}
		b = append(b, out.Bytes()[:out.Len()-4]...)     // without the end mark
		b = le.AppendUint32(b, 1<<31|uint32(len(tail))) // a block that is not compressed
		b = append(b, tail...)
		b = le.AppendUint32(b, 0)
	case zstded:
		w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
		if err != nil {
			return nil, err
		}
		b = w.EncodeAll(before, b)
		if err := w.Close(); err != nil {
			return nil, err
		}
		// A frame of its own (RFC 8878): magic, one segment of so many bytes,
		// one raw block, the last.
		b = append(b, 0x28, 0xb5, 0x2f, 0xfd, 0x20, byte(len(tail)), byte(len(tail))<<3|1, 0, 0)
		b = append(b, tail...)
	default:
		b = append(append(b, before...), tail...)
	}
	return b, nil
}

// stamp writes the stamp into the last record and makes the sums right again.
func (t *batch) stamp(lane uint16, number uint32, intended int64) {
	be := binary.BigEndian
	rest := t.bytes[t.stampAt:]
	be.PutUint16(rest, stampMagic)
	be.PutUint16(rest[2:], lane)
	be.PutUint32(rest[4:], number)
	be.PutUint64(rest[8:], uint64(intended))
	if t.codec == gzipped {
		binary.LittleEndian.PutUint32(rest[tailBytes:], crc32.Update(t.inner, crc32.IEEETable, rest[:tailBytes]))
	}
	be.PutUint32(t.bytes[crcAt:], crc32.Update(t.prefix, castagnoli, rest))
}

// stampOf reads the stamp of a batch that came back.
func stampOf(b []byte) (lane uint16, number uint32, intended int64, ok bool) {
	if len(b) < batchHeaderBytes+tailBytes {
		return 0, 0, 0, false
	}
	at := len(b) - codec(b[22]&7).behind() - tailBytes
	be := binary.BigEndian
	if at < batchHeaderBytes || be.Uint16(b[at:]) != stampMagic {
		return 0, 0, 0, false
	}
	return be.Uint16(b[at+2:]), be.Uint32(b[at+4:]), int64(be.Uint64(b[at+8:])), true
}

// keysOf draws keys of a partition, as Kafka's producers place them; nil where
// none of them is there.
func keysOf(partition int32, partitions, keys, keyBytes int) func(*rand.Rand) []byte {
	var of [][]byte
	for i := range keys {
		k := fmt.Appendf(nil, "%0*d", keyBytes, i)
		k = k[len(k)-max(keyBytes, len(strconv.Itoa(i))):]
		if int32(murmur2(k)&0x7fffffff)%int32(partitions) == partition {
			of = append(of, k)
		}
		if len(of) == 10_000 {
			break
		}
	}
	if of == nil {
		return nil
	}
	return func(r *rand.Rand) []byte { return of[r.IntN(len(of))] }
}

// murmur2 is the hash by which Kafka's default partitioner places keys
// (org.apache.kafka.common.utils.Utils.murmur2).
func murmur2(b []byte) uint32 {
	const m = 0x5bd1e995
	h := uint32(0x9747b28c) ^ uint32(len(b))
	for ; len(b) >= 4; b = b[4:] {
		k := binary.LittleEndian.Uint32(b) * m
		k ^= k >> 24
		h = h*m ^ k*m
	}
	for i := len(b) - 1; i >= 0; i-- {
		h ^= uint32(b[i]) << (8 * i)
	}
	if len(b) > 0 {
		h *= m
	}
	h ^= h >> 13
	h *= m
	return h ^ h>>15
}
