package kafka_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math"
	"testing"

	"github.com/tailbound/tailbound/kafka"
)

// batchAround is a batch of count records with those bytes for its records, and
// a right length and checksum.
func batchAround(records []byte, count int32) []byte {
	b := kafka.AppendBatch(nil, 1000, nil, nil)[:kafka.BatchHeaderBytes]
	b = append(b, records...)
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
	binary.BigEndian.PutUint32(b[23:], uint32(count-1))
	binary.BigEndian.PutUint32(b[57:], uint32(count))
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// record is a record of these parts behind its attributes, with its length.
func record(parts ...[]byte) []byte {
	body := append([]byte{0}, bytes.Join(parts, nil)...)
	return append(binary.AppendVarint(nil, int64(len(body))), body...)
}

func v(n int64) []byte { return binary.AppendVarint(nil, n) }

// long is a varint of n bytes for 0.
func long(n int) []byte {
	b := bytes.Repeat([]byte{0x80}, n)
	b[n-1] = 0
	return b
}

func TestRecords(t *testing.T) {
	for _, c := range []struct {
		name    string
		records []byte
		count   int32
		code    kafka.ErrorCode
	}{
		{"null key and value", record(v(0), v(0), v(-1), v(-1), v(0)), 1, kafka.None},
		{"two", append(record(v(0), v(0), v(-1), v(-1), v(0)), record(v(-5), v(1), v(1), []byte("k"), v(0), v(0))...), 2, kafka.None},
		{"header", record(v(0), v(0), v(-1), v(-1), v(1), v(1), []byte("h"), v(-1)), 1, kafka.None},
		{"time delta of 64 bits", record(v(math.MinInt64), v(0), v(-1), v(-1), v(0)), 1, kafka.None},
		{"longest varint of 32 bits", record(v(0), long(5), v(-1), v(-1), v(0)), 1, kafka.None},
		{"no header count", record(v(0), v(0), v(-1), v(-1)), 1, kafka.InvalidRecord},
		{"empty record", []byte{0}, 1, kafka.InvalidRecord},
		{"negative length", v(-2), 1, kafka.InvalidRecord},
		{"length past the end", v(9), 1, kafka.InvalidRecord},
		{"header without a key", record(v(0), v(0), v(-1), v(-1), v(1), v(-1), v(-1)), 1, kafka.InvalidRecord},
		{"more headers than there are", record(v(0), v(0), v(-1), v(-1), v(2), v(1), []byte("h"), v(-1)), 1, kafka.InvalidRecord},
		{"2^31-1 headers", record(v(0), v(0), v(-1), v(-1), v(math.MaxInt32)), 1, kafka.InvalidRecord},
		{"-1 headers", record(v(0), v(0), v(-1), v(-1), v(-1)), 1, kafka.InvalidRecord},
		{"bytes behind the headers", record(v(0), v(0), v(-1), v(-1), v(0), []byte{0}), 1, kafka.InvalidRecord},
		{"bytes behind the records", append(record(v(0), v(0), v(-1), v(-1), v(0)), 0), 1, kafka.InvalidRecord},
		{"offset delta 1", record(v(0), v(1), v(-1), v(-1), v(0)), 1, kafka.InvalidRecord},
		{"the same delta twice", bytes.Repeat(record(v(0), v(0), v(-1), v(-1), v(0)), 2), 2, kafka.InvalidRecord},
		{"key -2", record(v(0), v(0), v(-2), v(-1), v(0)), 1, kafka.InvalidRecord},
		{"key past the end", record(v(0), v(0), v(99), v(-1), v(0)), 1, kafka.InvalidRecord},
		{"key length 2^40", record(v(0), v(0), v(1<<40), v(-1), v(0)), 1, kafka.InvalidRecord},
		// What Java's clients cannot read (ByteUtils.readVarint) must not come into a log.
		{"delta in 6 bytes", record(v(0), long(6), v(-1), v(-1), v(0)), 1, kafka.InvalidRecord},
		{"value length in 6 bytes", record(v(0), v(0), v(-1), long(6), v(0)), 1, kafka.InvalidRecord},
		{"header count in 10 bytes", record(v(0), v(0), v(-1), v(-1), long(10)), 1, kafka.InvalidRecord},
		{"time delta in 11 bytes", record(long(11), v(0), v(-1), v(-1), v(0)), 1, kafka.InvalidRecord},
	} {
		b := batchAround(c.records, c.count)
		if _, code := validate(b, 1<<20); code != c.code {
			t.Errorf("%s: %v, not %v", c.name, code, c.code)
		}
		n := int32(0)
		for it := kafka.Records(b); n <= c.count; n++ {
			if _, ok := it.Next(); !ok {
				break
			}
		}
		if c.code == kafka.None && n != c.count {
			t.Errorf("%s: %d records are shown", c.name, n)
		}
	}
}

func TestStoredBatches(t *testing.T) {
	var stored []byte
	for i := range 3 {
		b := batchAround(append(record(v(int64(i)), v(0), v(-1), v(-1), v(0)), record(v(int64(10+i)), v(1), v(-1), v(-1), v(0))...), 2)
		kafka.PatchBase(b, int64(100+2*i), 7)
		stored = append(stored, b...)
	}
	n := 0
	for it := kafka.Batches(stored); ; n++ {
		b, ok := it.Next()
		if !ok {
			break
		}
		if kafka.BaseOffset(b) != int64(100+2*n) || binary.BigEndian.Uint32(b[12:]) != 7 {
			t.Fatalf("batch %d: base %d", n, kafka.BaseOffset(b))
		}
		for _, search := range []kafka.TimeSearch{{Time: 1001 + int64(n)}, {Time: 1000, From: int64(101 + 2*n)}, {Time: 0, Largest: true}} {
			if !search.Batch(b) || search.FoundTime != int64(1010+n) || search.FoundOffset != int64(101+2*n) {
				t.Fatalf("batch %d: %+v", n, search)
			}
		}
		for _, search := range []kafka.TimeSearch{{Time: 1011 + int64(n)}, {Time: 1000, From: int64(102 + 2*n)}} {
			if !search.Batch(b) || search.Found {
				t.Fatalf("batch %d: %+v", n, search)
			}
		}
	}
	if n != 3 {
		t.Fatalf("%d batches", n)
	}
	for i := range stored { // cut off anywhere
		it := kafka.Batches(stored[:i])
		for b, ok := it.Next(); ok; b, ok = it.Next() {
			if len(b) != kafka.BatchBytes(b) {
				t.Fatal("a batch that is not whole")
			}
		}
	}
}

func TestSequenceAdd(t *testing.T) {
	const most = math.MaxInt32
	for _, c := range [][3]int32{{0, 0, 0}, {0, 1, 1}, {most, 0, most}, {most, 1, 0}, {most - 1, 1, most}, {most - 1, 5, 3}, {most, most, most - 1}} {
		if got := kafka.SequenceAdd(c[0], c[1]); got != c[2] {
			t.Errorf("%d + %d = %d, not %d", c[0], c[1], got, c[2])
		}
	}
}

func TestCodesHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for c := kafka.UnknownServerError; c <= kafka.ControllerIDNotRegistered; c++ {
		if s := c.String(); seen[s] || s == "" || s[0] == 'e' {
			t.Errorf("code %d is called %q", c, s)
		} else {
			seen[s] = true
		}
	}
	for c, s := range map[kafka.ErrorCode]string{3: "UNKNOWN_TOPIC_OR_PARTITION", 56: "KAFKA_STORAGE_ERROR", 87: "INVALID_RECORD", 133: "SHARE_SESSION_LIMIT_REACHED", 137: "error 137", -2: "error -2"} {
		if c.String() != s {
			t.Errorf("code %d is called %s, not %s", c, c, s)
		}
	}
}

func validate(b []byte, max int) (h kafka.Batch, code kafka.ErrorCode) {
	code = kafka.ValidateBatch(b, max, &h)
	return h, code
}
