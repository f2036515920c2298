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

// A search by time (ListOffsets) may end in a compressed batch. Decompressing it needs
// the heap, so the data shard lends a copy of the batch to the control shard:
//
//	lend a copy; await the record that is found; go on if there is none
//
// Data shards never decompress anything.

// decompressedBytesMax bounds how much of one batch is decompressed in a search: some
// tens of milliseconds of the control shard's time. Where the record that is sought lies
// beyond this, or the batch is too large to be lent, the answer is the batch's first
// record that is not deleted.
const decompressedBytesMax = 16 << 20

// searchBatch answers a data shard that lent a batch.
func (c *control) searchBatch(mail shard.Mail) {
	batch, search := shard.LentSearch(mail)
	searchCompressed(batch, &search)
	answer := shard.Mail{Kind: shard.MailBatchOpened, Slot: mail.Slot, Serial: mail.Serial, A: uint64(search.FoundTime), B: uint64(search.FoundOffset), Block: mail.Block}
	if search.Found {
		answer.Code = 1
	}
	c.shard.Send(answer, int(mail.From))
}

// searchCompressed looks through the records of a compressed batch. Where the batch
// cannot be decompressed, or what is sought is not within decompressedBytesMax, the
// answer is that of kafka.TimeSearch.Undecompressed.
func searchCompressed(batch []byte, search *kafka.TimeSearch) {
	if !searchRecords(batch, search) && !search.Found {
		search.Undecompressed(batch)
	}
}

// searchRecords is the search. False: it has not come to the batch's end, and the
// search is not over.
func searchRecords(batch []byte, search *kafka.TimeSearch) bool {
	header, base := kafka.ParseBatchHeader(batch), kafka.BaseOffset(batch)
	decompressed, err := decompressor(header.Codec(), batch[kafka.BatchHeaderBytes:])
	if err != nil {
		return false
	}
	if decoder, ok := decompressed.(*zstd.Decoder); ok {
		defer decoder.Close()
	}
	in := bufio.NewReaderSize(io.LimitReader(decompressed, decompressedBytesMax), 64<<10)
	for range header.Count {
		size, err := binary.ReadVarint(in)
		if err != nil || size < 3 {
			return false
		}
		if _, err := in.ReadByte(); err != nil { // attributes
			return false
		}
		after, err := binary.ReadVarint(in)
		if err != nil {
			return false
		}
		delta, err := binary.ReadVarint(in)
		if err != nil || delta < 0 || delta > int64(header.LastOffsetDelta) {
			return false
		}
		if search.Record(header.BaseTime+after, base+delta) {
			return true
		}
		rest := size - 1 - varintBytes(after) - varintBytes(delta)
		if rest < 0 || rest > decompressedBytesMax {
			return false
		}
		if _, err := in.Discard(int(rest)); err != nil {
			return false
		}
	}
	return true
}

func varintBytes(value int64) int64 {
	size := int64(1)
	for rest := uint64(value)<<1 ^ uint64(value>>63); rest >= 0x80; rest >>= 7 {
		size++
	}
	return size
}

var errCodec = errors.New("control: records that cannot be decompressed")

// decompressor reads the records of a batch that are compressed by codec. The numbers are
// those of CompressionType.java.
func decompressor(codec int, records []byte) (io.Reader, error) {
	switch codec {
	case 1:
		return gzip.NewReader(bytes.NewReader(records))
	case 2:
		return &snappyReader{left: records, framed: bytes.HasPrefix(records, xerialMagic)}, nil
	case 3:
		return lz4.NewReader(bytes.NewReader(records)), nil
	case kafka.CodecZstd:
		return zstd.NewReader(bytes.NewReader(records), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(decompressedBytesMax))
	}
	return nil, errCodec
}

// Snappy has two forms. librdkafka and franz-go write one block. Java's SnappyOutputStream
// writes a header of sixteen bytes, and then blocks, each behind its length.
var xerialMagic = []byte("\x82SNAPPY\x00")

const xerialHeader = 16

// snappyReader reads both forms, a block at a time.
type snappyReader struct {
	left   []byte // not decompressed yet
	framed bool   // it is Java's form
	begun  bool   // the header was read, or the only block
	block  []byte // decompressed and not read yet
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
		if size, err := s2.DecodedLen(next); err != nil || size > decompressedBytesMax {
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
