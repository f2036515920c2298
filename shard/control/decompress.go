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
func (c *control) searchBatch(mail shard.Mail) {
	time, offset := searchOpened(mail.Block.Bytes()[:mail.B], int64(mail.A))
	c.shard.Send(shard.Mail{Kind: shard.MailBatchOpened, Slot: mail.Slot, Serial: mail.Serial, A: uint64(time), B: uint64(offset), Block: mail.Block}, int(mail.From))
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
	header := kafka.ParseBatchHeader(batch)
	opened, err := decompressor(header.Codec(), batch[kafka.BatchHeaderBytes:])
	if err != nil {
		return 0, 0, false
	}
	if decoder, ok := opened.(*zstd.Decoder); ok {
		defer decoder.Close()
	}
	in := bufio.NewReaderSize(io.LimitReader(opened, openedMax), 64<<10)
	for range header.Count {
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
		if err != nil || delta < 0 || delta > int64(header.LastOffsetDelta) {
			return 0, 0, false
		}
		if header.BaseTime+after >= ts {
			return header.BaseTime + after, delta, true
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

func varintBytes(value int64) int64 {
	size := int64(1)
	for rest := uint64(value)<<1 ^ uint64(value>>63); rest >= 0x80; rest >>= 7 {
		size++
	}
	return size
}

var errCodec = errors.New("shard: records that cannot be opened")

// decompressor reads what a batch's records are, compressed as the batch's codec
// says (CompressionType.java).
func decompressor(codec int, records []byte) (io.Reader, error) {
	switch codec {
	case 1:
		return gzip.NewReader(bytes.NewReader(records))
	case 2:
		return &snappyReader{left: records, framed: bytes.HasPrefix(records, xerialMagic)}, nil
	case 3:
		return lz4.NewReader(bytes.NewReader(records)), nil
	case kafka.CodecZstd:
		return zstd.NewReader(bytes.NewReader(records), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(openedMax))
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

func (r *snappyReader) Read(dst []byte) (int, error) {
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
			size := 4 + int(binary.BigEndian.Uint32(next))
			next, r.left = next[4:size], next[size:]
		}
		r.begun = true
		if size, err := s2.DecodedLen(next); err != nil || size > openedMax {
			return 0, errCodec
		}
		var err error
		if r.block, err = s2.Decode(nil, next); err != nil {
			return 0, err
		}
	}
	size := copy(dst, r.block)
	r.block = r.block[size:]
	return size, nil
}
