package control

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/shard"
)

// A search by time that ends in a compressed batch has it opened by the control
// shard, which may use the heap:
//
//	lend a copy; await found(); answer
//
// Data shards never open one.

// openedMax bounds what is made of one batch in its search: some tens of
// milliseconds of the control shard's time. The answer is the batch's first
// record where what is sought lies beyond, or the batch is larger than mail.
const openedMax = 16 << 20

// searchBatch answers a data shard that lent a batch.
func (c *control) searchBatch(m shard.Mail) {
	time, offset := searchOpened(m.Block.Bytes()[:m.B], int64(m.A))
	c.shard.Send(shard.Mail{Kind: shard.MailBatchOpened, Slot: m.Slot, Serial: m.Serial, A: uint64(time), B: uint64(offset), Block: m.Block}, int(m.From))
}

// searchOpened is kafka.FindTime of a compressed batch, which it opens. Where it
// cannot be read, or for too long, it is what FindTime says.
func searchOpened(batch []byte, ts int64) (time, offset int64) {
	if at, delta, ok := firstSince(batch, ts); ok {
		return at, kafka.BaseOffset(batch) + delta
	}
	return kafka.FindTime(batch, ts)
}

// firstSince looks through the records of a compressed batch.
func firstSince(batch []byte, ts int64) (at, delta int64, ok bool) {
	h := kafka.ParseBatchHeader(batch)
	opened, err := decompressor(h.Codec(), batch[kafka.BatchHeaderBytes:])
	if err != nil {
		return 0, 0, false
	}
	if z, ok := opened.(*zstd.Decoder); ok {
		defer z.Close()
	}
	in := bufio.NewReaderSize(io.LimitReader(opened, openedMax), 64<<10)
	for range h.Count {
		size, err := binary.ReadVarint(in)
		if err != nil || size < 3 {
			return 0, 0, false
		}
		if _, err := in.ReadByte(); err != nil { // attributes
			return 0, 0, false
		}
		after, err := binary.ReadVarint(in)
		if err != nil {
			return 0, 0, false
		}
		delta, err := binary.ReadVarint(in)
		if err != nil || delta < 0 || delta > int64(h.LastOffsetDelta) {
			return 0, 0, false
		}
		if h.BaseTime+after >= ts {
			return h.BaseTime + after, delta, true
		}
		rest := size - 1 - varintBytes(after) - varintBytes(delta)
		if rest < 0 || rest > openedMax {
			return 0, 0, false
		}
		if _, err := in.Discard(int(rest)); err != nil {
			return 0, 0, false
		}
	}
	return 0, 0, false
}

func varintBytes(v int64) int64 {
	n := int64(1)
	for u := uint64(v)<<1 ^ uint64(v>>63); u >= 0x80; u >>= 7 {
		n++
	}
	return n
}

var errCodec = errors.New("shard: records that cannot be opened")

// decompressor reads what a batch's records are, compressed as the batch's codec
// says (CompressionType.java).
func decompressor(codec int, b []byte) (io.Reader, error) {
	switch codec {
	case 1:
		return gzip.NewReader(bytes.NewReader(b))
	case 2:
		return &snappyReader{left: b, framed: bytes.HasPrefix(b, xerialMagic)}, nil
	case 3:
		return lz4.NewReader(bytes.NewReader(b)), nil
	case kafka.CodecZstd:
		return zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(openedMax))
	}
	return nil, errCodec
}

// Snappy is one block, as librdkafka and franz-go write it, or behind a header
// of sixteen bytes blocks with their lengths, as Java's SnappyOutputStream does.
var xerialMagic = []byte("\x82SNAPPY\x00")

const xerialHeader = 16

type snappyReader struct {
	left   []byte
	framed bool
	begun  bool
	block  []byte
}

func (r *snappyReader) Read(p []byte) (int, error) {
	for len(r.block) == 0 {
		next := r.left
		switch {
		case !r.framed && r.begun:
			return 0, io.EOF
		case !r.framed:
			r.left = nil
		default:
			if !r.begun {
				if len(next) < xerialHeader {
					return 0, errCodec
				}
				next = next[xerialHeader:]
			}
			if len(next) == 0 {
				return 0, io.EOF
			}
			if len(next) < 4 || uint64(binary.BigEndian.Uint32(next)) > uint64(len(next)-4) {
				return 0, errCodec
			}
			n := 4 + int(binary.BigEndian.Uint32(next))
			next, r.left = next[4:n], next[n:]
		}
		r.begun = true
		if n, err := s2.DecodedLen(next); err != nil || n > openedMax {
			return 0, errCodec
		}
		var err error
		if r.block, err = s2.Decode(nil, next); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.block)
	r.block = r.block[n:]
	return n, nil
}
