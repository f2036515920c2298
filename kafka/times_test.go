package kafka_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/kafka"
)

// twoTimes is a batch of two records whose first time is 1000 ms; the second is
// delta later, or earlier.
func twoTimes(delta int64) []byte {
	return batchAround(append(record(v(0), v(0), v(-1), v(-1), v(0)), record(v(delta), v(1), v(-1), v(-1), v(0))...), 2)
}

// claiming is a batch whose header says that its first and its largest timestamp are these;
// the records' are as far from the first as before.
func claiming(raw []byte, first, largest int64) []byte {
	raw = bytes.Clone(raw)
	binary.BigEndian.PutUint64(raw[27:], uint64(first))
	binary.BigEndian.PutUint64(raw[35:], uint64(largest))
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	return raw
}

// What is known of a batch's timestamps, and what is stored of them: the largest of the
// records where they are looked at; else what the header claims, if that can be true.
func TestTimes(t *testing.T) {
	plain := twoTimes(5)
	zipped := twoTimes(5)
	zipped[22] |= 4
	copy(zipped[kafka.BatchHeaderBytes:], "\x28\xb5\x2f\xfd") // as zstd begins
	for _, c := range []struct {
		what   string
		raw    []byte
		want   kafka.Times
		stored int64
	}{
		{"as it says", claiming(plain, 1000, 1005), kafka.Times{Largest: 1005, Checked: true}, 1005},
		{"going back", claiming(twoTimes(-5), 1000, 1000), kafka.Times{Largest: 1000, Checked: true}, 1000},
		{"going back below nothing", claiming(twoTimes(-1001), 1000, 1000), kafka.Times{Largest: 1000}, 1000},
		{"the largest is said to be 0", claiming(plain, 1000, 0), kafka.Times{Largest: 1005, Checked: true}, 1005},
		{"the largest is said to be -1, as by Sarama", claiming(plain, 1000, -1), kafka.Times{Largest: 1005, Checked: true}, 1005},
		{"the largest is said to be far ahead", claiming(plain, 1000, 1<<50), kafka.Times{Largest: 1005, Checked: true}, 1005},
		{"without times, as by librdkafka", claiming(twoTimes(0), -1, 0), kafka.Times{Largest: -1}, -1},
		{"the first without a time", claiming(twoTimes(7), -1, 6), kafka.Times{Largest: 6}, 6},
		{"small", claiming(twoTimes(0), 0, 0), kafka.Times{Checked: true}, 0},
		{"compressed, as it says", claiming(zipped, 1000, 1005), kafka.Times{Largest: 1005, Checked: true}, 1005},
		{"compressed, the largest is said to be -1", claiming(zipped, 1000, -1), kafka.Times{Largest: 1000, AtLeast: true}, -1},
		{"compressed, the largest is said to be 0", claiming(zipped, 1000, 0), kafka.Times{Largest: 1000, AtLeast: true}, 0},
		{"compressed, without times", claiming(zipped, -1, 0), kafka.Times{Largest: -1}, 0},
		{"compressed, the first without a time", claiming(zipped, -1, 1005), kafka.Times{Largest: 1005}, 1005},
		{"compressed, small", claiming(zipped, 0, 0), kafka.Times{Checked: true}, 0},
	} {
		b, code := validate(c.raw, 1<<20)
		if code != kafka.None || b.Times != c.want {
			t.Errorf("%s: %v, %+v, want %+v", c.what, code, b.Times, c.want)
		}
		if n := testing.AllocsPerRun(5, func() { kafka.StampMaxTime(c.raw, &b) }); n != 0 {
			t.Errorf("%s: stamping allocates %v times", c.what, n)
		}
		header := kafka.ParseBatchHeader(c.raw)
		if !kafka.ChecksumFits(c.raw) || header.MaxTime != c.stored || header.CRC != b.CRC || header.MaxTime != b.MaxTime {
			t.Errorf("%s: stored with %+v, which is %+v; want %d", c.what, header, b, c.stored)
		}
		if got := kafka.TimesOf(c.raw); got != c.want {
			t.Errorf("%s: stored, %+v, want %+v", c.what, got, c.want)
		}
		if header.MayReach(max(c.want.Largest, c.stored)+1) != c.want.AtLeast {
			t.Errorf("%s: may reach a later time: %v", c.what, !c.want.AtLeast)
		}
	}
}

func TestStampAppendTime(t *testing.T) {
	raw := twoTimes(5)
	was := bytes.Clone(raw)
	b, code := validate(raw, 1<<20)
	if code != kafka.None {
		t.Fatal(code)
	}
	kafka.StampAppendTime(raw, &b, 777777)
	var got kmsg.RecordBatch
	if err := got.ReadFrom(raw); err != nil {
		t.Fatal(err)
	}
	if got.Attributes != 8 || got.MaxTimestamp != 777777 || got.FirstTimestamp != 1000 || !bytes.Equal(raw[43:], was[43:]) || !bytes.Equal(raw[:17], was[:17]) {
		t.Errorf("stamped: %+v", got)
	}
	// A producer may not send such a mark, but it may send this checksum.
	if _, code := validate(raw, 1<<20); code != kafka.InvalidTimestamp {
		t.Errorf("sent by a producer: %v", code)
	}
	h := kafka.ParseBatchHeader(raw)
	if h.Times = (kafka.Times{Largest: 777777, Checked: true}); h != b {
		t.Errorf("the header is %+v, and %+v is stored of it", h, b)
	}
	kafka.PatchBase(raw, 40, 1)
	search := kafka.TimeSearch{Time: 5000}
	if !search.Batch(raw) || search.FoundTime != 777777 || search.FoundOffset != 40 {
		t.Errorf("found by time: %+v", search)
	}
	if n := testing.AllocsPerRun(20, func() { kafka.StampAppendTime(raw, &b, 888) }); n != 0 {
		t.Errorf("stamping: %v allocations", n)
	}
}

func TestTimesWithin(t *testing.T) {
	compressed := twoTimes(-900)
	compressed[22] |= 4
	none := twoTimes(0)
	for i := 27; i < 43; i++ {
		none[i] = 0xff
	}
	for _, c := range []struct {
		what             string
		raw              []byte
		earliest, latest int64
		want             bool
	}{
		{"no limits", twoTimes(-900), math.MinInt64, math.MaxInt64, true},
		{"just so", twoTimes(0), 1000, 1000, true},
		{"too new", twoTimes(0), math.MinInt64, 999, false},
		{"too old", twoTimes(0), 1001, 2000, false},
		{"the second too old", twoTimes(-1), 1000, 2000, false},
		{"the second too new, as only it says", twoTimes(1001), 1000, 2000, false},
		{"the second too new, as only it says, and nothing is too old", twoTimes(1001), math.MinInt64, 2000, false},
		{"the first has no time", claiming(twoTimes(1501), -1, 0), 1000, 2000, true},
		{"compressed, the first has no time", claiming(compressed, -1, 1500), 1000, 2000, true},
		{"compressed, the first has no time and the others are too old", claiming(compressed, -1, 900), 1000, 2000, false},
		{"compressed, and none has a time", claiming(compressed, -1, 0), 1000, 2000, true},
		{"compressed, and the largest cannot be true", claiming(compressed, 1500, -1), 1000, 2000, true},
		{"compressed, too old, and the largest cannot be true", claiming(compressed, 900, -1), 1000, 2000, false},
		{"compressed, which is not opened", compressed, 1000, 2000, true},
		{"compressed and too old", compressed, 1001, 2000, false},
		{"no time", none, 5000, 6000, true},
	} {
		b := kafka.ParseBatchHeader(c.raw)
		b.Times = kafka.TimesOf(c.raw)
		if got := kafka.TimesWithin(&b, c.raw, c.earliest, c.latest); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
		if n := testing.AllocsPerRun(20, func() { kafka.TimesWithin(&b, c.raw, c.earliest, c.latest) }); n != 0 {
			t.Errorf("%s: %v allocations", c.what, n)
		}
	}
}
