package kafka_test

import (
	"bytes"
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
	if h := kafka.ParseBatchHeader(raw); h != b {
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
		{"compressed, which is not opened", compressed, 1000, 2000, true},
		{"compressed and too old", compressed, 1001, 2000, false},
		{"no time", none, 5000, 6000, true},
	} {
		b := kafka.ParseBatchHeader(c.raw)
		if got := kafka.TimesWithin(&b, c.raw, c.earliest, c.latest); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
		if n := testing.AllocsPerRun(20, func() { kafka.TimesWithin(&b, c.raw, c.earliest, c.latest) }); n != 0 {
			t.Errorf("%s: %v allocations", c.what, n)
		}
	}
}
