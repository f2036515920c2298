package kafka_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/tailbound/tailbound/kafka"
)

// compressedBatch is a batch of a codec with that body and that many records.
func compressedBatch(codec byte, count int, body []byte) []byte {
	raw := append(make([]byte, kafka.BatchHeaderBytes), body...)
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-12))
	raw[16], raw[22] = 2, codec
	binary.BigEndian.PutUint32(raw[23:], uint32(count-1))
	for at := 43; at < 57; at++ {
		raw[at] = 0xff // no producer
	}
	binary.BigEndian.PutUint32(raw[57:], uint32(count))
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	return raw
}

// A compressed batch is stored unopened. What can be seen without opening it is looked at: that
// something is there, that it begins as its codec's streams do, and that as many records as the
// header says can be in it. Whatever an encoder of the codec makes is taken.
func TestCompressedBatches(t *testing.T) {
	bodies := func(records []byte) map[string][]byte {
		var zipped, framed bytes.Buffer
		w := gzip.NewWriter(&zipped)
		w.Write(records)
		w.Close()
		l := lz4.NewWriter(&framed)
		l.Write(records)
		l.Close()
		z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression))
		if err != nil {
			t.Fatal(err)
		}
		raw := snappy.Encode(nil, records)
		java := append([]byte("\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01"), binary.BigEndian.AppendUint32(nil, uint32(len(raw)))...)
		return map[string][]byte{"\x01gzip": zipped.Bytes(), "\x02snappy": raw, "\x02snappy of Java": append(java, raw...), "\x03lz4": framed.Bytes(), "\x04zstd": z.EncodeAll(records, nil)}
	}
	// The smallest records there can be: seven bytes each, all the same but for a delta.
	for _, count := range []int{1, 2, 100, 1 << 20} {
		records := bytes.Repeat([]byte{12, 0, 0, 0, 1, 1, 0}, count)
		for what, body := range bodies(records) {
			if _, code := validate(compressedBatch(what[0], count, body), 64<<20); code != kafka.None {
				t.Errorf("%d records by %s, in %d bytes: %v", count, what[1:], len(body), code)
			}
			if count > 2 {
				continue
			}
			for name, bad := range map[string][]byte{
				"of more records than can come out of it": compressedBatch(what[0], 1<<31-1, body),
				"without a body":       compressedBatch(what[0], count, nil),
				"cut behind its magic": compressedBatch(what[0], count, body[:min(len(body), 4)]),
				"of another codec":     compressedBatch(what[0], count, append([]byte{0xff, 0xff, 0xff, 0xff}, body...)),
			} {
				if what == "\x02snappy" && name == "cut behind its magic" {
					continue // snappy's own format has none
				}
				if _, code := validate(bad, 64<<20); code != kafka.InvalidRecord {
					t.Errorf("%d records by %s, %s: %v", count, what[1:], name, code)
				}
			}
		}
	}
	// Where next to nothing is left of much.
	for what, body := range bodies(make([]byte, 16<<20)) {
		if _, code := validate(compressedBatch(what[0], 16<<20/7, body), 64<<20); code != kafka.None {
			t.Errorf("16 MiB of zeroes by %s, in %d bytes: %v", what[1:], len(body), code)
		}
	}
}
